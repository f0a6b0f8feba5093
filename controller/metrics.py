"""What Prometheus is told: every metric is declared here, and docs/metrics.md is made of the declarations.

What there is at the moment is read from the controller's state when somebody asks; only durations are kept, in
histograms, when they happen. Nothing asks a switch because of a scrape: counters are those of the last look
(`controller.statistics`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller import plain_http
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
POLICY_RATE = _gauge(
    "policy_packets_per_second",
    "Packets that a policy allows and denies; while somebody asks for /v1/top/policies.",
    "kind",
    "namespace",
    "policy",
    "verdict",
)
OBJECTS = _gauge("objects", "Objects of the cluster's state, by kind.", "kind")
LOOKS = _counter("looks", "Answers of switches to what they carry.")
TROUBLES = _gauge("troubles", "What isn't as it should be: lines of signalbox status.")
UNDER_WAY = _gauge("changes_under_way", "Changes that aren't installed on all their switches yet.")
READY = _gauge("ready", "1 once the cluster's state is read and switches are heard.")
COMPILE = _histogram("compile", "Seconds to make flows of a change of objects and to send them.")
INSTALL = _histogram(
    "change_installed",
    "Seconds from a change being known to its being installed on the last switch that it concerns.",
    "source",
)
WATCHED = _histogram("watch_latency", "Seconds from a row being another to its being told to who watches it.")

DECLARED = (
    READY, CONNECTED, PHASE, DIGEST_AGE, FLOWS, REFUSED, BUNDLE, FLOW_MODS, BUNDLES, FAILED, REPAIRED, NODE_RATE,
    SERVICE_RATE, POLICY_RATE, OBJECTS, LOOKS, TROUBLES, UNDER_WAY, COMPILE, INSTALL, WATCHED,
)  # fmt: skip


class Durations:
    """What is kept when it happens."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._compile = Histogram(COMPILE.name, COMPILE.about, buckets=BUCKETS, registry=self.registry)
        self._install = Histogram(INSTALL.name, INSTALL.about, INSTALL.labels, buckets=BUCKETS, registry=self.registry)

        self._watched = Histogram(WATCHED.name, WATCHED.about, buckets=BUCKETS, registry=self.registry)

    def compiled(self, seconds: float) -> None:
        """A change of objects has been made flows of."""
        self._compile.observe(seconds)

    def installed(self, source: str, seconds: float, switches: int) -> None:
        """A change is on the last switch that it concerns."""
        self._install.labels(source).observe(seconds)

    def watched(self, seconds: float) -> None:
        """Who watches has been told of what was others for so long."""
        self._watched.observe(seconds)


class _State(Collector):
    """What there is now."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def collect(self) -> Iterator[Metric]:
        """Every metric that is read when somebody asks."""
        yield from self._switches()
        yield from self._carried()
        controller = self._controller
        cluster = controller.compiler.cluster
        objects = _family(OBJECTS)
        for kind in ("nodes", "pods", "services", "policies"):
            objects.add_metric([kind], len(getattr(cluster, kind)))
        yield objects
        for declared, value in (
            (LOOKS, controller.statistics.answers),
            (TROUBLES, sum(1 for _ in controller.troubles())),
            (UNDER_WAY, controller.propagation.under_way),
            (READY, not controller.not_ready),
        ):
            family = _family(declared)
            family.add_metric([], value)
            yield family

    def _switches(self) -> Iterator[Metric]:
        families = {
            each: _family(each)
            for each in (
                CONNECTED, PHASE, DIGEST_AGE, FLOWS, REFUSED, BUNDLE, FLOW_MODS, BUNDLES, FAILED, REPAIRED
            )
        }  # fmt: skip
        fleet, now = self._controller.fleet, time.monotonic()
        for node in sorted(self._controller.compiler.cluster.nodes):
            sync = fleet.syncs.get(node)
            families[CONNECTED].add_metric([node], sync is not None)
            if sync is None:
                continue
            counters = sync.counters
            for phase in Phase:
                families[PHASE].add_metric([node, phase.value], sync.phase is phase)
            if counters.synced_at:
                families[DIGEST_AGE].add_metric([node], now - counters.synced_at)
            states = (fleet.shared(node), fleet.scope(node))
            families[FLOWS].add_metric([node], sum(sum(state.counts.values()) for state in states))
            families[REFUSED].add_metric([node], sum(map(len, sync.refusals.values())))
            families[BUNDLE].add_metric([node], counters.latency)
            families[FLOW_MODS].add_metric([node], counters.flow_mods)
            families[BUNDLES].add_metric([node], counters.bundles)
            families[FAILED].add_metric([node], counters.failed_bundles)
            families[REPAIRED].add_metric([node], counters.repaired)
        yield from families.values()

    def _carried(self) -> Iterator[Metric]:
        statistics = self._controller.statistics
        nodes, services, policies = _family(NODE_RATE), _family(SERVICE_RATE), _family(POLICY_RATE)
        for row in statistics.nodes():
            for key, value in row.items():
                if key.endswith("PerSecond"):
                    nodes.add_metric([row["name"], key.removesuffix("PerSecond")], value)
        for row in statistics.services():
            for kind in ("connections", "packets", "bytes"):
                services.add_metric([row["namespace"], row["name"], kind], row[f"{kind}PerSecond"])
        if statistics.counts_policies:
            for row in statistics.policies():
                for verdict in ("allowed", "denied"):
                    labels = [row["kind"], row["namespace"], row["name"], verdict]
                    policies.add_metric(labels, row[f"{verdict}PerSecond"])
        yield from (nodes, services, policies)


def _family(declared: Declared) -> GaugeMetricFamily | CounterMetricFamily:
    made = CounterMetricFamily if declared.type == "counter" else GaugeMetricFamily
    return made(declared.name, declared.about, labels=declared.labels)


def exposition(controller: Controller) -> bytes:
    """All metrics, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_State(controller))
    return generate_latest(registry) + generate_latest(controller.durations.registry)


async def answer(controller: Controller) -> web.Response:
    """The answer to a scrape."""
    return web.Response(body=exposition(controller), headers={"Content-Type": CONTENT_TYPE})


async def serve(address: str, controller: Controller) -> web.AppRunner:
    """Serve GET /metrics on ADDRESS:PORT, plain HTTP, until the runner is cleaned up. Raises TargetError."""

    async def metrics(request: web.Request) -> web.Response:
        return await answer(controller)

    return await plain_http.serve("--metrics", address, [web.get("/metrics", metrics)])
