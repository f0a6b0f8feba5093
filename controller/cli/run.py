"""signalbox controller: runs the central process in the foreground."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--listen",
    "listen",
    multiple=True,
    metavar="TARGET",
    required=True,
    help="Where switches connect: tcp:ADDRESS:PORT or unix:PATH.",
)
@click.option(
    "--manifests",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Directory of Kubernetes YAML files, watched: the cluster's state.",
)
@click.option(
    "--service-cidr",
    "service_cidrs",
    multiple=True,
    metavar="CIDR",
    default=("10.96.0.0/16", "fd00:10:96::/112"),
    show_default=True,
    help="Where Services' cluster addresses are from; one for each family, the primary one first.",
)
@click.option(
    "--load-balancer-pool",
    "pools",
    multiple=True,
    metavar="CIDR",
    help="Where the addresses of Services of type LoadBalancer are from.  [default: they get none]",
)
@click.option(
    "--service-node-port-range",
    default="30000-32767",
    show_default=True,
    metavar="LOW-HIGH",
    help="The node ports that Services may have.",
)
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path),
    default=Path("/run/signalbox/controller.sock"),
    show_default=True,
    help="Unix socket of the admin API.",
)
@click.option(
    "--source-identity",
    type=click.Choice(["tunnel-key", "address"]),
    default="tunnel-key",
    show_default=True,
    help="How a node knows which pod sends from another node: by the tunnel's key, or by its address.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for the few numbers that can't be derived anew (identities whose hashes meet). Without it, a "
    "restart may number those otherwise.",
)
@click.option(
    "--audit-interval", default=60.0, show_default=True, metavar="SECONDS", help="How often flows are audited."
)
@click.option(
    "--health",
    metavar="ADDRESS:PORT",
    help="Where /healthz and /readyz are answered over plain HTTP, as 127.0.0.1:9879.  [default: nowhere]",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What is logged, on standard error.",
)
def controller(
    listen: tuple[str, ...],
    manifests: Path,
    service_cidrs: tuple[str, ...],
    pools: tuple[str, ...],
    service_node_port_range: str,
    socket_path: Path,
    source_identity: str,
    state: Path | None,
    audit_interval: float,
    health: str | None,
    log_level: str,
) -> None:
    """Run the controller: compile the cluster's state and keep every switch in sync with it."""
    import asyncio
    import logging

    from controller.app import run
    from controller.channel import TargetError
    from controller.identity_memory import IdentityMemory, MemoryFileError
    from topology.manifest_source import UnreadableError
    from topology.services import RangeError, ServiceRanges

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        ranges = ServiceRanges.parse(service_cidrs, pools, service_node_port_range)
        memory = IdentityMemory(state / "identities.json" if state is not None else None)
        keyed = source_identity == "tunnel-key"
        asyncio.run(
            run(
                listen, manifests, socket_path, audit_interval, ranges,
                keyed=keyed, memory=memory, health_address=health,
            )
        )  # fmt: skip
    except (MemoryFileError, RangeError, TargetError, UnreadableError) as error:
        raise click.ClickException(str(error)) from error
