"""signalbox node: runs the node agent in the foreground."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--name", required=True, help="The node's name, as its Node object has it.")
@click.option(
    "--pod-cidr",
    "pod_cidrs",
    multiple=True,
    required=True,
    metavar="CIDR",
    help="The node's pod CIDR; one for each family.",
)
@click.option(
    "--cluster-cidr",
    "cluster_cidrs",
    multiple=True,
    required=True,
    metavar="CIDR",
    help="What holds every node's pod CIDR.",
)
@click.option(
    "--service-cidr",
    "service_cidrs",
    multiple=True,
    metavar="CIDR",
    default=("10.96.0.0/16", "fd00:10:96::/112"),
    show_default=True,
    help="What Services' cluster addresses are out of; one for each family.",
)
@click.option(
    "--service-node-port-range",
    default="30000-32767",
    show_default=True,
    metavar="LOW-HIGH",
    help="The node ports that Services may have.",
)
@click.option(
    "--node-ip",
    "node_ips",
    multiple=True,
    required=True,
    metavar="ADDRESS",
    help="The node's address; tunnels end at the first.",
)
@click.option(
    "--controller", "controllers", multiple=True, required=True, metavar="TARGET", help="tcp:IP:PORT or unix:PATH."
)
@click.option(
    "--encap", type=click.Choice(["vxlan", "geneve"]), default="vxlan", show_default=True, help="Encapsulation."
)
@click.option(
    "--datapath-type",
    type=click.Choice(["system", "netdev"]),
    default="system",
    show_default=True,
    help="Open vSwitch's datapath: the kernel's, or the one in userspace.",
)
@click.option("--ovsdb", default="unix:/run/openvswitch/db.sock", show_default=True, help="The switch's database.")
@click.option(
    "--ovs-rundir",
    type=click.Path(path_type=Path),
    default=Path("/run/openvswitch"),
    show_default=True,
    help="Where the switch has its management sockets.",
)
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path),
    default=Path("/run/signalbox/node.sock"),
    show_default=True,
    help="Where the CNI plugin finds the agent.",
)
@click.option(
    "--mtu", type=click.IntRange(576, 65535), help="MTU of pods. [default: the underlay's less the encapsulation]"
)
@click.option("--flow-wait", default=10.0, show_default=True, metavar="SECONDS", help="How long ADD waits for flows.")
@click.option(
    "--health",
    metavar="ADDRESS:PORT",
    help="Where /healthz and /readyz are answered over plain HTTP, as 127.0.0.1:9880.  [default: nowhere]",
)
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="NUMBER=NAME",
    help="Names of flow tables for ovs-ofctl.  [default: the pipeline's]",
)
@click.option("--clean", "only_clean", is_flag=True, help="Remove all that the agent has made on this node, and exit.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What is logged, on standard error.",
)
def node(
    name: str,
    pod_cidrs: tuple[str, ...],
    cluster_cidrs: tuple[str, ...],
    service_cidrs: tuple[str, ...],
    service_node_port_range: str,
    node_ips: tuple[str, ...],
    controllers: tuple[str, ...],
    encap: str,
    datapath_type: str,
    ovsdb: str,
    ovs_rundir: Path,
    socket_path: Path,
    mtu: int | None,
    flow_wait: float,
    health: str | None,
    tables: tuple[str, ...],
    only_clean: bool,
    log_level: str,
) -> None:
    """Run the node agent: set up the node's bridge and serve the CNI plugin."""
    import asyncio
    import logging
    from ipaddress import ip_address, ip_network

    from node.agent import AgentError, clean, run
    from node.ovsdb import DatabaseError
    from node.settings import Settings, SettingsError, port_range

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = Settings(
            name=name,
            pod_cidrs=tuple(map(ip_network, pod_cidrs)),
            cluster_cidrs=tuple(map(ip_network, cluster_cidrs)),
            service_cidrs=tuple(map(ip_network, service_cidrs)),
            node_ports=port_range("--service-node-port-range", service_node_port_range),
            node_ips=tuple(map(ip_address, node_ips)),
            controllers=controllers,
            encap=encap,
            datapath_type=datapath_type,
            ovsdb=ovsdb,
            ovs_rundir=ovs_rundir,
            socket=socket_path,
            mtu=mtu or 0,
            tables=tuple((int(number), word) for number, _, word in (each.partition("=") for each in tables)),
            flow_wait=flow_wait,
            health=health or "",
        )
        asyncio.run(clean(settings) if only_clean else run(settings))
    except (AgentError, DatabaseError, SettingsError, ValueError) as error:
        raise click.ClickException(str(error)) from error
