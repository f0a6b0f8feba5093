"""signalbox controller: runs the central process in the foreground."""

from __future__ import annotations

import socket
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
    "--service-node-port-range", default="30000-32767", show_default=True, help="The node ports that Services may have."
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
    "--audit-interval", default=60.0, show_default=True, metavar="SECONDS", help="How often flows are audited."
)
@click.option(
    "--replica-id",
    default=socket.gethostname,
    metavar="NAME",
    show_default="the host's name",
    help="This controller's name among several.",
)
@click.option(
    "--leases",
    metavar="DIR|kubernetes:NAMESPACE",
    help="Where several controllers settle who is master of which switches: a directory that all of them share, or "
    "Lease objects.  [default: it is the only one]",
)
@click.option(
    "--lease-duration",
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="When others take a lease at the earliest.",
)
@click.option(
    "--renew-deadline",
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="When a controller that can't renew a lease stops writing.",
)
@click.option("--retry-period", default=2.0, show_default=True, metavar="SECONDS", help="How often leases are renewed.")
@click.option(
    "--join-after",
    default=70.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a controller follows before others hand switches over to it.",
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
    audit_interval: float,
    replica_id: str,
    leases: str | None,
    lease_duration: float,
    renew_deadline: float,
    retry_period: float,
    join_after: float,
    log_level: str,
) -> None:
    """Run the controller: compile the cluster's state and keep every switch in sync with it."""
    import asyncio
    import contextlib
    import logging

    from controller.app import run
    from controller.channel import TargetError
    from controller.lease_directory import LeaseDirectory
    from controller.leases import LeaseError, Leases, Times, TimesError
    from controller.replica import Replica
    from topology.manifest_source import UnreadableError
    from topology.services import RangeError, ServiceRanges

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        ranges = ServiceRanges.parse(service_cidrs, pools, service_node_port_range)
        keyed = source_identity == "tunnel-key"
        replica = None
        with contextlib.ExitStack() as held:
            if leases is not None:
                times = Times(lease_duration, renew_deadline, retry_period, join_after)
                if leases.startswith("kubernetes:"):
                    raise click.ClickException(f"--leases {leases}: needs the Kubernetes API as the source of state")
                directory = LeaseDirectory(Path(leases))
                held.enter_context(directory.named(replica_id))
                replica = Replica(Leases(replica_id, times), directory)
            asyncio.run(
                run(
                    listen,
                    manifests,
                    socket_path,
                    audit_interval,
                    ranges,
                    keyed=keyed,
                    replica=replica,
                )
            )
    except (LeaseError, RangeError, TargetError, TimesError, UnreadableError) as error:
        raise click.ClickException(str(error)) from error
