"""signalbox node: runs the node agent in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--name", "--node-name", "name", required=True, help="The node's name, as its Node object has it.")
@click.option(
    "--pod-cidr",
    "pod_cidrs",
    multiple=True,
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
    "--node-ip", "node_ips", multiple=True, metavar="ADDRESS", help="The node's address; tunnels end at the first."
)
@click.option(
    "--kubernetes",
    is_flag=True,
    help="Ask Kubernetes, as the pod's service account, for what isn't given of pod CIDRs and addresses.",
)
@click.option(
    "--kubeconfig", type=click.Path(path_type=Path), help="The same, with the API server and account of this file."
)
@click.option(
    "--controller",
    "controllers",
    multiple=True,
    required=True,
    metavar="TARGET",
    help="ssl:IP:PORT, unix:PATH or tcp:IP:PORT. With --kubernetes IP may be a label: the nodes that have it.",
)
@click.option(
    "--tls-cert",
    type=_FILE,
    help="The node's certificate for ssl: controllers, PEM; taken anew when it changes. Without it, Open vSwitch's own "
    "SSL configuration is left as it is.",
)
@click.option("--tls-key", type=_FILE, help="The certificate's key.")
@click.option("--tls-ca", type=_FILE, help="The CA that the controller's certificate is of.")
@click.option(
    "--tls-secrets",
    metavar="NAMESPACE",
    help="With --kubernetes, instead of these files: the namespace whose Secret signalbox-node-NAME has them.",
)
@click.option(
    "--datapath-type",
    type=click.Choice(["system", "netdev"]),
    default="system",
    show_default=True,
    help="Open vSwitch's datapath: the kernel's, or the one in userspace.",
)
@click.option(
    "--hw-offload",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Whether Open vSwitch gives flows to NICs: where one takes them, in any case, or not.",
)
@click.option(
    "--tc-policy",
    type=click.Choice(["none", "skip_sw", "skip_hw"]),
    help="Where flows that are offered to NICs may be: anywhere, in the NIC alone, or in tc alone.  "
    "[default: as Open vSwitch's database says]",
)
@click.option("--dpdk", is_flag=True, help="With --datapath-type netdev: have Open vSwitch start DPDK.")
@click.option(
    "--restart-ovs",
    metavar="COMMAND",
    help="What starts ovs-vswitchd anew where a setting needs it.  [default: nobody does, the log asks for it]",
)
@click.option(
    "--ovs-control",
    type=click.Path(path_type=Path),
    help="Where ovs-vswitchd listens for ovs-appctl.  [default: beside its pidfile in --ovs-rundir]",
)
@click.option(
    "--sysfs",
    type=click.Path(path_type=Path),
    default=Path("/sys"),
    show_default=True,
    help="Where sysfs is mounted: it says which NICs there are.",
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
    "--cni-conf-dir",
    type=click.Path(path_type=Path),
    help="Where the runtime looks for CNI configurations: one is written there when the node is ready.",
)
@click.option(
    "--cni-bin-dir",
    type=click.Path(path_type=Path),
    help="Where the runtime looks for CNI plugins: signalbox-cni is put there.",
)
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
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/signalbox"),
    show_default=True,
    help="With --kubernetes: where what it has said is kept, for a start without it.",
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
    kubernetes: bool,
    kubeconfig: Path | None,
    controllers: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    tls_secrets: str | None,
    datapath_type: str,
    hw_offload: str,
    tc_policy: str | None,
    dpdk: bool,
    restart_ovs: str | None,
    ovs_control: Path | None,
    sysfs: Path,
    ovsdb: str,
    ovs_rundir: Path,
    socket_path: Path,
    mtu: int | None,
    flow_wait: float,
    cni_conf_dir: Path | None,
    cni_bin_dir: Path | None,
    health: str | None,
    tables: tuple[str, ...],
    state_dir: Path,
    only_clean: bool,
    log_level: str,
) -> None:
    """Run the node agent: set up the node's bridge and serve the CNI plugin."""
    import asyncio
    import logging
    from ipaddress import ip_address, ip_network

    from node.agent import AgentError, clean, run
    from node.credentials import TlsFiles
    from node.facts import Kept, NodeFacts, label_of, targets
    from node.ovsdb import DatabaseError
    from node.settings import Settings, SettingsError, port_range

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if any((tls_cert, tls_key, tls_ca)) and not all((tls_cert, tls_key, tls_ca)):
        raise click.UsageError("--tls-cert, --tls-key and --tls-ca go together")
    if tls_secrets and (tls_cert or not (kubernetes or kubeconfig)):
        raise click.UsageError("--tls-secrets takes --kubernetes, and the place of --tls-cert, --tls-key and --tls-ca")
    files = TlsFiles(tls_cert, tls_key, tls_ca) if tls_cert and tls_key and tls_ca else None
    kept = Kept(state_dir)

    def settings_with(facts: NodeFacts) -> Settings:
        return Settings(
            name=name,
            pod_cidrs=tuple(map(ip_network, pod_cidrs)) or facts.pod_cidrs,
            cluster_cidrs=tuple(map(ip_network, cluster_cidrs)),
            service_cidrs=tuple(map(ip_network, service_cidrs)),
            node_ports=port_range("--service-node-port-range", service_node_port_range),
            node_ips=tuple(map(ip_address, node_ips)) or facts.addresses,
            controllers=targets(controllers, facts),
            tls=kept.tls if tls_secrets else files,
            datapath_type=datapath_type,
            hw_offload=hw_offload,
            tc_policy=tc_policy or "",
            dpdk=dpdk,
            restart_ovs=restart_ovs or "",
            ovs_control=ovs_control,
            sysfs=sysfs,
            ovsdb=ovsdb,
            ovs_rundir=ovs_rundir,
            socket=socket_path,
            mtu=mtu or 0,
            tables=tuple((int(number), word) for number, _, word in (each.partition("=") for each in tables)),
            flow_wait=flow_wait,
            cni_conf_dir=cni_conf_dir,
            cni_bin_dir=cni_bin_dir,
            health=health or "",
        )

    async def live() -> None:
        if not (kubernetes or kubeconfig):
            settings = settings_with(NodeFacts((), ()))
            await (clean(settings) if only_clean else run(settings))
            return
        # Only now: it takes time and memory that other agents don't need.
        from node import kubernetes_agent
        from node.kubernetes_node import Wanted

        labels = tuple(dict.fromkeys(filter(None, map(label_of, controllers))))
        wanted = Wanted(name, kubeconfig, labels, tls_secrets or "")
        if only_clean:
            await kubernetes_agent.clean(wanted, kept, settings_with)
        else:
            await kubernetes_agent.run(wanted, kept, settings_with, health or "")

    try:
        asyncio.run(live())
    except (AgentError, DatabaseError, SettingsError, ValueError) as error:
        raise click.ClickException(str(error)) from error
