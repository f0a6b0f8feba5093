"""signalbox controller: runs the central process in the foreground."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from controller.kubernetes_access import Reviews
    from controller.leases import LeaseStore
    from topology.kubernetes.client import Client

#: What stands before the namespace of Lease objects.
_LEASE_OBJECTS = "kubernetes:"
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option(
    "--listen",
    "listen",
    multiple=True,
    metavar="TARGET",
    required=True,
    help="Where switches connect: ssl:ADDRESS:PORT or unix:PATH; tcp:ADDRESS:PORT only with --insecure.",
)
@click.option("--insecure", is_flag=True, help="Allow --listen tcp:..., where anybody can be any switch.")
@click.option("--tls-cert", type=_FILE, help="The controller's certificate, PEM; read again when it changes.")
@click.option("--tls-key", type=_FILE, help="The certificate's key.")
@click.option("--tls-ca", type=_FILE, help="The CAs that certificates are of: nodes', and those of people who ask.")
@click.option(
    "--api-listen",
    multiple=True,
    metavar="ADDRESS:PORT",
    help="Serve the admin API there too, over TLS with the same certificate, to those who have a token, or a person's "
    "certificate of --tls-ca.",
)
@click.option(
    "--api-tokens", type=_FILE, help="Who may ask there: a line TOKEN,NAME,ROLE each; roles are admin and read-only."
)
@click.option(
    "--manifests",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory of Kubernetes YAML files, watched: the cluster's state.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="With --manifests: where it is kept which nodes are drained, beside the manifests; controllers may share it.  "
    "[default: until the controller ends]",
)
@click.option(
    "--kubernetes",
    "from_kubernetes",
    is_flag=True,
    help="Take the cluster's state from Kubernetes' API server instead: as the pod's service account, or as a "
    "kubeconfig says.",
)
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --kubernetes: the kubeconfig that says where the API server is, and who we are.",
)
@click.option("--context", metavar="NAME", help="With --kubeconfig: the context to use.  [default: its current one]")
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
    "--mode",
    type=click.Choice(["overlay", "routed", "hybrid"]),
    default="overlay",
    show_default=True,
    help="How nodes reach one another: by tunnels, by routing, or by routing on each --subnet and by tunnels beyond.",
)
@click.option(
    "--encap",
    type=click.Choice(["vxlan", "geneve", "gre"]),
    default="vxlan",
    show_default=True,
    help="What tunnels are; agents are told by their switches.",
)
@click.option(
    "--subnet",
    "subnets",
    multiple=True,
    metavar="CIDR",
    help="With --mode hybrid: an L2 segment; nodes with an address in it reach one another without a tunnel.",
)
@click.option(
    "--source-identity",
    type=click.Choice(["tunnel-key", "address"]),
    default="tunnel-key",
    show_default=True,
    help="How a node knows which pod sends from another node by a tunnel: by its key, or by the pod's address.",
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
    "--lldp-interval",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How often bridges' ports tell one another what they are, by LLDP, to find what is wired to what; 0: never.",
)
@click.option(
    "--stats-interval",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How often switches are asked what ports and Services have carried; 0: only when somebody wants to know.",
)
@click.option(
    "--bgp-peer",
    "bgp_peers",
    multiple=True,
    metavar="ADDRESS@AS[:PORT]",
    help="A router that is told by BGP where pods' CIDRs and load balancers' addresses are.  [default: nobody is]",
)
@click.option("--bgp-as", type=int, metavar="AS", help="With --bgp-peer: the AS that this side is of.")
@click.option(
    "--bgp-router-id",
    metavar="ADDRESS",
    help="With --bgp-peer: this side's router id.  [default: its IPv4 address towards the routers]",
)
@click.option(
    "--bgp-listen",
    multiple=True,
    metavar="ADDRESS:PORT",
    help="With --bgp-peer: where routers may connect to, one of each family; sessions are from that address.  "
    "[default: only this side connects]",
)
@click.option(
    "--bgp-restart-time",
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="With --bgp-peer: how long routers keep what they know when the controller is away.",
)
@click.option(
    "--flow-export",
    "flow_exports",
    multiple=True,
    metavar="PROTOCOL:ADDRESS:PORT",
    help="A collector that every node's Open vSwitch tells of the packets it sees, by ipfix, sflow or netflow; agents "
    "are told by their switches.  [default: nobody is told]",
)
@click.option(
    "--flow-export-sampling",
    default=400,
    show_default=True,
    metavar="N",
    help="With --flow-export ipfix: or sflow: look at one packet of N.",
)
@click.option(
    "--flow-export-interval",
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="With --flow-export: how often flows that go on, or sflow's counters of ports, are reported.",
)
@click.option(
    "--health",
    metavar="ADDRESS:PORT",
    help="Where /healthz and /readyz are answered over plain HTTP, as 127.0.0.1:9879.  [default: nowhere]",
)
@click.option(
    "--metrics",
    metavar="ADDRESS:PORT",
    help="Where Prometheus finds /metrics over plain HTTP, as 127.0.0.1:9880.  [default: with the admin API only]",
)
@click.option(
    "--metrics-objects",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="How many Services, and how many policies, have series of their own in /metrics; others are told together.",
)
@click.option(
    "--otlp-endpoint",
    metavar="URL",
    help="An OpenTelemetry collector, as http://127.0.0.1:4318, that is told what became of each change, in OTLP over "
    "HTTP. Needs the extra otlp.  [default: what OTEL_EXPORTER_OTLP_ENDPOINT says]",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How it is logged: one event per line, in words or as JSON with node and object in fields.",
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
    insecure: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    api_listen: tuple[str, ...],
    api_tokens: Path | None,
    manifests: Path | None,
    state_dir: Path | None,
    from_kubernetes: bool,
    kubeconfig: Path | None,
    context: str | None,
    service_cidrs: tuple[str, ...],
    pools: tuple[str, ...],
    service_node_port_range: str,
    socket_path: Path,
    mode: str,
    encap: str,
    subnets: tuple[str, ...],
    source_identity: str,
    audit_interval: float,
    replica_id: str,
    leases: str | None,
    lease_duration: float,
    renew_deadline: float,
    retry_period: float,
    join_after: float,
    lldp_interval: float,
    stats_interval: float,
    bgp_peers: tuple[str, ...],
    bgp_as: int | None,
    bgp_router_id: str | None,
    bgp_listen: tuple[str, ...],
    bgp_restart_time: int,
    flow_exports: tuple[str, ...],
    flow_export_sampling: int,
    flow_export_interval: int,
    health: str | None,
    metrics: str | None,
    metrics_objects: int,
    otlp_endpoint: str | None,
    log_format: str,
    log_level: str,
) -> None:
    """Run the controller: compile the cluster's state and keep every switch in sync with it."""
    import asyncio

    from controller import change_traces, structured_log
    from controller.access import Access, Tokens, TokensError
    from controller.bgp import Speaker
    from controller.bgp_settings import BgpSettings, BgpSettingsError, check_listen
    from controller.channel import TargetError
    from controller.drains import DrainError, StateDirectory
    from controller.leases import LeaseError, Leases, Times, TimesError
    from controller.manifest_feed import ManifestFeed
    from controller.process import Feed, Options, run
    from controller.replica import Replica
    from controller.tls import Credentials, CredentialsError, TlsFiles
    from topology import flow_export
    from topology.graph import Interconnect, TopologyError
    from topology.manifest_source import UnreadableError
    from topology.services import RangeError, ServiceRanges

    if from_kubernetes == (manifests is not None):
        raise click.UsageError("say where the cluster's state is from: --manifests DIRECTORY or --kubernetes, not both")
    if (kubeconfig or context) and not from_kubernetes:
        raise click.UsageError("--kubeconfig and --context go with --kubernetes")
    if state_dir and from_kubernetes:
        raise click.UsageError("--state-dir goes with --manifests: Kubernetes keeps which nodes are drained")
    if context and not kubeconfig:
        raise click.UsageError("--context NAME is one of a kubeconfig: say --kubeconfig FILE")
    if leases is not None and leases.startswith(_LEASE_OBJECTS) and not from_kubernetes:
        raise click.UsageError(f"--leases {leases} goes with --kubernetes; with --manifests, say a directory")
    structured_log.begin(log_level, log_format)
    keyed = source_identity == "tunnel-key"
    errors: tuple[type[Exception], ...] = (
        BgpSettingsError, CredentialsError, DrainError, LeaseError, RangeError, TargetError, TimesError, TokensError,
        TopologyError, UnreadableError, change_traces.TracesError, flow_export.FlowExportError,
    )  # fmt: skip
    try:
        _check_secured(listen, insecure, (tls_cert, tls_key, tls_ca), api_listen, api_tokens)
        credentials = Credentials(TlsFiles(tls_cert, tls_key, tls_ca)) if tls_cert and tls_key and tls_ca else None
        tokens = Tokens(api_tokens) if api_tokens else None
        interconnect = Interconnect.parse(mode, encap, subnets)
        ranges = ServiceRanges.parse(service_cidrs, pools, service_node_port_range)
        exports = flow_export.parse(flow_exports, flow_export_sampling, flow_export_interval)
        bgp = BgpSettings.parse(bgp_as, bgp_peers, bgp_router_id, bgp_listen, bgp_restart_time)
        if bgp is not None:
            check_listen(bgp)
        speaker = Speaker(bgp, socket_path.with_suffix(".bgp")) if bgp is not None else None
        with contextlib.ExitStack() as held:
            client = None
            if from_kubernetes:
                # Imported here: Kubernetes' client takes half a second, which nobody else should wait for.
                from topology.kubernetes.client import Client, KubeconfigError

                errors += (KubeconfigError,)
                client = Client(kubeconfig, context)
            access = Access(credentials, api_listen, tokens, reviews_by(client) if client is not None else None)
            replica = None
            if leases is not None:
                times = Times(lease_duration, renew_deadline, retry_period, join_after)
                store = held.enter_context(_lease_store(leases, replica_id, client))
                replica = Replica(Leases(replica_id, times), store)
            feed: Feed
            if client is not None:
                from controller.kubernetes_feed import KubernetesFeed

                feed = KubernetesFeed(
                    client, ranges, keyed=keyed, replica=replica, interconnect=interconnect, exports=exports
                )
            else:
                assert manifests is not None
                feed = ManifestFeed(
                    manifests,
                    ranges,
                    keyed=keyed,
                    replica=replica,
                    interconnect=interconnect,
                    exports=exports,
                    drained=StateDirectory(state_dir) if state_dir is not None else None,
                )
            options = Options(
                listen=listen,
                socket_path=socket_path,
                audit_interval=audit_interval,
                access=access,
                health_address=health,
                metrics_address=metrics,
                bgp=speaker,
                lldp_interval=lldp_interval,
                stats_interval=stats_interval,
                settings=_settings(),
                metrics_objects=metrics_objects,
                traces=change_traces.begin(otlp_endpoint, replica_id),
            )
            asyncio.run(run(feed, options))
    except errors as error:
        raise click.ClickException(str(error)) from error


def reviews_by(client: Client) -> Reviews:
    """Kubernetes' word on tokens."""
    from controller.kubernetes_access import ReviewError, Reviews
    from topology.kubernetes.client import TransportError

    async def post(path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        try:
            answer = await client.ask("POST", path, body, "application/json")
        except TransportError as error:
            raise ReviewError(f"Kubernetes: {error}") from error
        return answer.status, answer.body

    return Reviews(post)


def _settings() -> dict[str, Any]:
    """What the command was started with, by the names of its options. None of them is a secret: those are in files."""
    return {
        option.opts[0].removeprefix("--"): str(value) if isinstance(value, Path) else value
        for option in click.get_current_context().command.params
        if isinstance(option, click.Option)
        and (value := click.get_current_context().params.get(option.name or "")) is not None
    }


@contextlib.contextmanager
def _lease_store(where: str, replica: str, client: Client | None) -> Iterator[LeaseStore]:
    """Where leases are; a directory has one replica of each name at most. Raises LeaseError."""
    if client is not None and where.startswith(_LEASE_OBJECTS):
        from controller.kubernetes_leases import KubernetesLeases
        from topology.kubernetes.client import TransportError

        yield KubernetesLeases(client, where.removeprefix(_LEASE_OBJECTS), (TransportError,))
        return
    from controller.lease_directory import LeaseDirectory

    directory = LeaseDirectory(Path(where))
    with directory.named(replica):
        yield directory


def _check_secured(
    listen: tuple[str, ...],
    insecure: bool,
    files: tuple[Path | None, ...],
    api_listen: tuple[str, ...],
    api_tokens: Path | None,
) -> None:
    """Nothing is in the clear but what was asked for by name. Raises click.UsageError with what to do."""
    for target in listen:
        if target.startswith("tcp:") and not insecure:
            raise click.UsageError(
                f"--listen {target}: over plain TCP anybody can be any switch; listen on ssl:{target[4:]} "
                "(signalbox pki makes certificates), or add --insecure"
            )
    if any(files) and not all(files):
        raise click.UsageError("--tls-cert, --tls-key and --tls-ca go together")
    if not any(files) and (api_listen or any(target.startswith("ssl:") for target in listen)):
        what = "--api-listen" if api_listen else "--listen ssl:..."
        raise click.UsageError(f"{what} takes --tls-cert, --tls-key and --tls-ca; signalbox pki makes them")
    if api_tokens is not None and not api_listen:
        raise click.UsageError("--api-tokens goes with --api-listen: on the Unix socket nobody needs a token")
