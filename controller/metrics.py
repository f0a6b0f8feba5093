"""What Prometheus is told: every metric is declared here, and docs/metrics.md is made of the declarations.

What there is at the moment is read from the controller's state when somebody asks; only durations are kept, in
histograms, when they happen. Nothing asks a switch because of a scrape: counters are those of the last look
(`controller.statistics`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest

from controller import plain_http
from controller.agent_reports import State as AgentState
from controller.statistics import KINDS, POLICY_COUNTS, PORT_COUNTS, SERVICE_COUNTS
from controller.sync import Phase

if TYPE_CHECKING:
    from controller.app import Controller

# When a histogram was made is a series of its own otherwise, for each label, and nobody's question.
disable_created_metrics()  # type: ignore[no-untyped-call]

#: The content type of the text format.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Seconds: from a bundle on one switch to a large change on a thousand.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Declared(msgspec.Struct, frozen=True):
    """A metric: its name, what it is for Prometheus, its labels, what it says."""

    name: str
    type: str
    labels: tuple[str, ...]
    about: str


def _gauge(name: str, about: str, *labels: str) -> Declared:
    return Declared(f"signalbox_{name}", "gauge", labels, about)


def _counter(name: str, about: str, *labels: str) -> Declared:
    return Declared(f"signalbox_{name}_total", "counter", labels, about)


def _histogram(name: str, about: str, *labels: str) -> Declared:
    return Declared(f"signalbox_{name}_seconds", "histogram", labels, about)


CONNECTED = _gauge("switch_connected", "1 while a node's switch is connected to this controller.", "node")
PHASE = _gauge("switch_phase", "1 for the phase that a connected switch is in.", "node", "phase")
DIGEST_AGE = _gauge(
    "switch_digest_age_seconds", "Seconds since a bundle, and with it a digest, was last confirmed.", "node"
)
FLOWS = _gauge("switch_flows", "Flows that a node's switch is to hold.", "node")
REFUSED = _gauge("switch_refused", "Flows and groups that a switch refuses now.", "node")
BUNDLE = _gauge("switch_bundle_latency_seconds", "Seconds that the last bundle took to be confirmed.", "node")
FLOW_MODS = _counter("switch_flow_mods", "Flow-mods sent on the present connection.", "node")
BUNDLES = _counter("switch_bundles", "Bundles sent on the present connection.", "node")
FAILED = _counter("switch_failed_bundles", "Bundles that failed as a whole on the present connection.", "node")
REPAIRED = _counter("switch_repaired_flows", "Flows that an audit has repaired on the present connection.", "node")
NODE_RATE = _gauge("node_carried_per_second", "What the ports of a node's bridge carry, by kind.", "node", "kind")
SERVICE_RATE = _gauge("service_carried_per_second", "What a Service carries, by kind.", "namespace", "service", "kind")
SERVICE_TOTALS = (
    _counter("service_connections", "Connections to a Service.", "namespace", "service"),
    _counter("service_packets", "Packets of connections to a Service, in both directions.", "namespace", "service"),
    _counter("service_bytes", "Bytes of connections to a Service, in both directions.", "namespace", "service"),
)
_POLICY = ("kind", "namespace", "policy", "verdict")
POLICY_RATE = _gauge("policy_packets_per_second", "Packets that a policy allows and denies.", *_POLICY)
POLICY_TOTAL = _counter("policy_packets", "Packets that a policy has allowed and denied.", *_POLICY)
AGENT_LOST = _gauge("node_agent_lost", "1 where a node's agent has said nothing for long.", "node")
AGENTS = _gauge("agents", "Agents of nodes, by how they are.", "state")
OFFLOAD_CAPABLE = _gauge("node_offload_capable", "1 where a NIC of the node takes flows.", "node")
OFFLOAD_ENABLED = _gauge("node_offload_enabled", "1 where Open vSwitch gives flows to NICs.", "node")
OFFLOAD_WANTING = _gauge("node_offload_wanting", "1 where hardware offload was asked for and is not in force.", "node")
OFFLOAD_FLOWS = _gauge(
    "node_offload_flows", "Datapath flows by where they are: offloaded, partially, or not.", "node", "offloaded"
)
OFFLOAD_SHARE = _gauge("node_offload_bytes_ratio", "The share of bytes that went by offloaded flows.", "node")
OFFLOAD_FUNCTIONS = _gauge(
    "node_offload_functions", "Virtual functions of NICs that take flows, by use.", "node", "state"
)
LOOK_PERIOD = _gauge("look_period_seconds", "Seconds between two looks at what a switch carries, by kind.", "kind")
OBJECTS = _gauge("objects", "Objects of the cluster's state, by kind.", "kind")
LOOKS = _counter("looks", "Answers of switches to what they carry.")
TROUBLES = _gauge("troubles", "What isn't as it should be: lines of signalbox status.")
UNDER_WAY = _gauge("changes_under_way", "Changes that aren't installed on all their switches yet.")
TRACES = _counter("change_traces", "Traces of changes, by whether they were told or dropped.", "outcome")
READY = _gauge("ready", "1 once the cluster's state is read and switches are heard.")
SOURCE = _histogram(
    "source_latency",
    "Seconds from a file's change, or from an event's being read from Kubernetes' API server, to its being taken in.",
)
COMPILE = _histogram("compile", "Seconds to make flows of a change of objects and to send them.")
INSTALL = _histogram(
    "change_installed",
    "Seconds from a change being known to its being installed on the last switch that it concerns.",
    "source",
)
WATCHED = _histogram("watch_latency", "Seconds from a row being another to its being told to who watches it.")
WATCHES = _gauge("watches", "Lists that are watched now.")

DECLARED = (
    READY, CONNECTED, PHASE, DIGEST_AGE, FLOWS, REFUSED, BUNDLE, FLOW_MODS, BUNDLES, FAILED, REPAIRED, NODE_RATE,
    AGENTS, AGENT_LOST, OFFLOAD_CAPABLE, OFFLOAD_ENABLED, OFFLOAD_WANTING, OFFLOAD_FLOWS, OFFLOAD_SHARE,
    OFFLOAD_FUNCTIONS, SERVICE_RATE, *SERVICE_TOTALS, POLICY_RATE, POLICY_TOTAL, OBJECTS, LOOKS, LOOK_PERIOD, TROUBLES,
    UNDER_WAY, TRACES, WATCHES, SOURCE, COMPILE, INSTALL, WATCHED,
)  # fmt: skip


class Durations:
    """What is kept when it happens."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._source = Histogram(SOURCE.name, SOURCE.about, buckets=BUCKETS, registry=self.registry)
        self._compile = Histogram(COMPILE.name, COMPILE.about, buckets=BUCKETS, registry=self.registry)
        self._install = Histogram(INSTALL.name, INSTALL.about, INSTALL.labels, buckets=BUCKETS, registry=self.registry)
        self._watched = Histogram(WATCHED.name, WATCHED.about, buckets=BUCKETS, registry=self.registry)

    def compiled(self, seconds: float) -> None:
        """A change of objects has been made flows of."""
        self._compile.observe(seconds)

    def heard(self, seconds: float) -> None:
        """A change is taken so long after its source was told of it."""
        self._source.observe(seconds)

    def installed(self, source: str, seconds: float) -> None:
        """A change is on the last switch that it concerns."""
        self._install.labels(source).observe(seconds)

    def watched(self, seconds: float) -> None:
        """Who watches has been told of what was others for so long."""
        self._watched.observe(seconds)


#: Values of labels, in the order of the declaration, and the metric's.
Sample = tuple[Sequence[str], float]


class _State:
    """What there is now."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def told(self) -> Iterator[tuple[Declared, Iterable[Sample]]]:
        """Every metric that is read when somebody asks."""
        yield from self._switches()
        yield from self._carried()
        yield from self._agents()
        yield from self._offload()
        controller = self._controller
        cluster = controller.compiler.cluster
        kinds = ("nodes", "pods", "services", "policies")
        yield OBJECTS, [([kind], len(getattr(cluster, kind))) for kind in kinds]
        yield LOOKS, [((), controller.statistics.answers)]
        yield LOOK_PERIOD, [([kind], controller.statistics.period(kind)) for kind in KINDS]
        yield TROUBLES, [((), sum(1 for _ in controller.troubles()))]
        yield UNDER_WAY, [((), controller.propagation.under_way)]
        yield TRACES, [(("told",), controller.traces.told), (("dropped",), controller.traces.dropped)]
        yield READY, [((), not controller.not_ready)]
        yield WATCHES, [((), controller.changes.watched)]

    def _switches(self) -> Iterator[tuple[Declared, Iterable[Sample]]]:
        found: dict[Declared, list[Sample]] = {
            each: []
            for each in (
                CONNECTED, PHASE, DIGEST_AGE, FLOWS, REFUSED, BUNDLE, FLOW_MODS, BUNDLES, FAILED, REPAIRED
            )
        }  # fmt: skip
        fleet, now = self._controller.fleet, time.monotonic()
        for node in sorted(self._controller.compiler.cluster.nodes):
            sync, label = fleet.syncs.get(node), (node,)
            found[CONNECTED].append((label, sync is not None))
            if sync is None:
                continue
            counters, now_in = sync.counters, sync.phase
            found[PHASE] += [((node, phase.value), phase is now_in) for phase in Phase]
            if counters.synced_at:
                found[DIGEST_AGE].append((label, now - counters.synced_at))
            states = (fleet.shared(node), fleet.scope(node))
            found[FLOWS].append((label, sum(sum(state.counts.values()) for state in states)))
            found[REFUSED].append((label, sum(map(len, sync.refusals.values()))))
            found[BUNDLE].append((label, counters.latency))
            found[FLOW_MODS].append((label, counters.flow_mods))
            found[BUNDLES].append((label, counters.bundles))
            found[FAILED].append((label, counters.failed_bundles))
            found[REPAIRED].append((label, counters.repaired))
        yield from found.items()

    def _agents(self) -> Iterator[tuple[Declared, Iterable[Sample]]]:
        states = self._controller.agents.states()
        known = [(node, state) for node, state in states.items() if state in (AgentState.ALIVE, AgentState.LOST)]
        yield AGENT_LOST, [((node,), state is AgentState.LOST) for node, state in known]
        counts = Counter(states.values())
        yield AGENTS, [((state.value,), counts[state]) for state in AgentState]

    def _offload(self) -> Iterator[tuple[Declared, Iterable[Sample]]]:
        reports = sorted(self._controller.offloads.reports().items())
        yield OFFLOAD_CAPABLE, [((node,), report.capable) for node, report in reports]
        yield OFFLOAD_ENABLED, [((node,), report.enabled) for node, report in reports]
        yield OFFLOAD_WANTING, [((node,), report.asked and not report.is_in_force) for node, report in reports]
        flows = {"yes": "offloaded", "partially": "partial", "no": "not_offloaded"}
        yield (
            OFFLOAD_FLOWS,
            [((node, word), getattr(report, name)) for node, report in reports for word, name in flows.items()],
        )
        yield OFFLOAD_SHARE, [((node,), report.share / 100) for node, report in reports]
        functions = [(node, report.used_functions, report.functions) for node, report in reports]
        yield (
            OFFLOAD_FUNCTIONS,
            [
                ((node, state), number)
                for node, used, there in functions
                for state, number in (("used", used), ("free", max(there - used, 0)))
            ],
        )

    def _carried(self) -> Iterator[tuple[Declared, Iterable[Sample]]]:
        statistics = self._controller.statistics
        # Of a switch that is away nothing is told.
        carried = [row for row in statistics.nodes() if row[f"{next(iter(PORT_COUNTS))}PerSecond"] is not None]
        yield (
            NODE_RATE,
            [((row["name"], kind), row[f"{kind}PerSecond"]) for row in carried for kind in PORT_COUNTS],
        )
        services = [(key[1:], totals, rates) for key, totals, rates in statistics.service_totals()]
        yield (
            SERVICE_RATE,
            [
                ((*name, kind), rate)
                for name, _, rates in services
                for kind, rate in zip(SERVICE_COUNTS, rates, strict=True)
            ],
        )
        for place, declared in enumerate(SERVICE_TOTALS):
            others = (("", ""), statistics.services_carried.others[place])
            yield declared, [*((name, totals[place]) for name, totals, _ in services), others]
        policies = list(statistics.policy_totals())
        yield (
            POLICY_RATE,
            [
                ((*key, verdict), rate)
                for key, _, rates in policies
                for verdict, rate in zip(POLICY_COUNTS, rates, strict=True)
            ],
        )
        told = [*((key, totals) for key, totals, _ in policies), (("", "", ""), statistics.policies_carried.others)]
        yield (
            POLICY_TOTAL,
            [
                ((*key, verdict), total)
                for key, totals in told
                for verdict, total in zip(POLICY_COUNTS, totals, strict=True)
            ],
        )


def exposition(controller: Controller) -> bytes:
    """All metrics, in Prometheus' text format."""
    lines: list[str] = []
    for declared, samples in _State(controller).told():
        lines += (f"# HELP {declared.name} {declared.about}", f"# TYPE {declared.name} {declared.type}")
        # Written here and not by prometheus-client, which takes five times as long: there are 13 for each switch.
        for values, value in samples:
            labels = ",".join(
                [f'{name}="{_escaped(text)}"' for name, text in zip(declared.labels, values, strict=True)]
            )
            lines.append(
                f"{declared.name}{{{labels}}} {float(value)!r}" if labels else f"{declared.name} {float(value)!r}"
            )
    return "\n".join([*lines, ""]).encode() + generate_latest(controller.durations.registry)


def _escaped(text: str) -> str:
    """The value of a label. Names of Kubernetes' objects have nothing to escape; those of others may."""
    if "\\" in text or '"' in text or "\n" in text:
        return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return text


async def answer(controller: Controller) -> web.Response:
    """The answer to a scrape."""
    return web.Response(body=exposition(controller), headers={"Content-Type": CONTENT_TYPE})


async def serve(address: str, controller: Controller) -> web.AppRunner:
    """Serve GET /metrics on ADDRESS:PORT, plain HTTP, until the runner is cleaned up. Raises TargetError."""

    async def metrics(request: web.Request) -> web.Response:
        return await answer(controller)

    return await plain_http.serve("--metrics", address, [web.get("/metrics", metrics)])
