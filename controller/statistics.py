"""How much nodes, Services and policies carry: switches are asked in turn; rates are what came between two answers.

Ports and Services are asked for once an interval; the policies' tables, which are large, only for a while after
somebody wanted to know. A switch that hasn't answered isn't asked again until its answer is overdue, so slow ones
gather no questions. What answers cost here is bounded: where there are many flows on many switches, Services and
policies are asked for less often than once an interval. A counter that is less than it was began anew: what it says
now has come since.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from controller import policy_views, service_counts
from controller.fleet import Fleet
from controller.service_counts import Sums
from controller.sync import SwitchSync
from flows.compiler import Compiler
from flows.openflow.messages import FlowStats, GroupStats, PortDesc, PortStats
from flows.pipeline import ENDPOINT, SERVICE, SERVICE_STATS
from flows.values import FlowKey, Group
from topology.naming import object_id

#: Seconds between two looks at all switches, unless told otherwise.
INTERVAL = 10.0
#: Intervals after which an answer is overdue and what is known of a switch says nothing of now.
OVERDUE = 3.0
#: Seconds for which policies are counted after somebody has asked for them.
INTEREST = 60.0
#: Seconds between the two looks that a first question takes, and for which it waits for answers.
MEASURED, PATIENCE = 1.0, 5.0
#: Parts that an interval is divided into: switches are asked a few at a time.
PARTS = 10
#: Seconds that it takes to read a flow of an answer, about, and the part of the controller's time that may go there.
READING, SHARE = 2e-5, 0.05
#: Seconds of reading that one question may cause; with more, what is known is told.
QUESTION_LIMIT = 2.0
_TABLES = {"services": (SERVICE.number, ENDPOINT.number, SERVICE_STATS.number), "policies": policy_views.TABLES}
#: What a switch says of what it doesn't count.
_UNCOUNTED = 2**64 - 1

Row = dict[str, Any]
K = TypeVar("K", bound=Hashable)


class Tally(Generic[K]):
    """Counters of one switch: how fast each grows."""

    def __init__(self) -> None:
        self.rates: dict[K, float] = {}
        self.at: float | None = None
        self._last: dict[K, int] = {}

    def take(self, counts: Mapping[K, int], now: float) -> None:
        """The counters as they are now."""
        seconds = now - self.at if self.at is not None else 0.0
        first = self.at is None
        grown = {}
        for key, count in counts.items():
            before = self._last.get(key, 0)
            grown[key] = count - before if count >= before else count
        self.rates = {} if first or seconds <= 0 else {key: more / seconds for key, more in grown.items() if more}
        self.at, self._last = now, dict(counts)

    def is_of(self, now: float, age: float) -> bool:
        """Whether the last look was not longer ago than `age` seconds."""
        return self.at is not None and now - self.at <= age


class _Switch(msgspec.Struct):
    ports: Tally[tuple[str, str]]
    services: Tally[tuple[str, int, int]]
    policies: Tally[FlowKey]
    #: When each kind of question was asked that hasn't been answered.
    asked: dict[str, float]
    due: float = 0.0
    #: When to ask at the earliest, by kind, where that costs much.
    not_before: dict[str, float] = {}


#: What is counted of ports, by the names that rows have.
PORT_COUNTS = {
    "rxBytes": "rx_bytes",
    "txBytes": "tx_bytes",
    "rxPackets": "rx_packets",
    "txPackets": "tx_packets",
    "rxDropped": "rx_dropped",
    "txDropped": "tx_dropped",
}


class Statistics:
    """What switches have counted, and how fast that grows."""

    def __init__(self, compiler: Compiler, fleet: Fleet, interval: float = INTERVAL) -> None:
        self.interval = interval
        self._compiler = compiler
        self._fleet = fleet
        self._switches: dict[str, _Switch] = {}
        self._policies_until = 0.0
        #: Answers that switches have given.
        self.answers = 0

    # Asking -----------------------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Ask switches in turn, until cancelled; nothing where the interval is 0."""
        while self.interval > 0:
            await asyncio.sleep(self.interval / PARTS)
            self.look(time.monotonic())

    @property
    def counts_policies(self) -> bool:
        """Whether somebody has asked for policies lately."""
        return time.monotonic() < self._policies_until

    def look(self, now: float, *, everyone: bool = False) -> None:
        """Ask the switches whose turn it is."""
        self._switches = {node: each for node, each in self._switches.items() if node in self._compiler.cluster.nodes}
        for index, (node, sync) in enumerate(self._fleet.syncs.items()):
            switch = self._switches.get(node)
            if switch is None:
                switch = self._switches[node] = _Switch(Tally(), Tally(), Tally(), {})
                # The first turns are spread over an interval, and so are all others then.
                switch.due = now + (index % PARTS) * self.interval / PARTS
            if everyone or now >= switch.due:
                switch.due = now + self.interval
                self._ask(node, sync, switch, now, index / len(self._fleet.syncs), everyone=everyone)

    def _reading(self, kind: str) -> float:
        """Seconds that it takes to read what all switches answer, about."""
        counts = self._fleet.cluster.state.counts
        flows = sum(counts.get(table, 0) for table in _TABLES.get(kind, ()))
        return flows * READING * len(self._fleet.syncs)

    def period(self, kind: str) -> float:
        """Seconds between two looks at a switch: an interval, or more where that would be too much to read."""
        return max(self.interval, self._reading(kind) / SHARE)

    def _ask(self, node: str, sync: SwitchSync, switch: _Switch, now: float, place: float, *, everyone: bool) -> None:
        """Ask a switch; `place`, from 0 to 1, is its own among all, by which first costly questions are spread."""

        def begin(kind: str) -> bool:
            period = self.period(kind)
            if period > self.interval and not (everyone and self._reading(kind) <= QUESTION_LIMIT):
                if now < switch.not_before.setdefault(kind, now + place * period):
                    return False
                switch.not_before[kind] = now + period
            asked = switch.asked.get(kind)
            if asked is not None and now - asked < OVERDUE * max(self.interval, 1.0):
                return False
            switch.asked[kind] = now
            return True

        if begin("ports"):
            sync.count_ports(lambda ports, counts: self._take_ports(node, ports, counts))
        if begin("services"):
            sync.count_services(lambda flows, groups, stats: self._take_services(node, flows, groups, stats))
        if now < self._policies_until and begin("policies"):
            flows: list[FlowStats] = []
            for table in policy_views.TABLES[:-1]:
                sync.dump(flows.extend, table=table)
            # Answered in the order asked: with the last everything is there.
            sync.dump(lambda found: self._take_policies(node, [*flows, *found]), table=policy_views.TABLES[-1])

    def _take_ports(self, node: str, ports: list[PortDesc], counts: list[PortStats]) -> None:
        names = {port.number: port.name for port in ports}
        found = {
            (names[each.number], name): getattr(each, field)
            for each in counts
            if each.number in names
            for name, field in PORT_COUNTS.items()
            if getattr(each, field) != _UNCOUNTED
        }
        self._answered(node, "ports", lambda switch, now: switch.ports.take(found, now))

    def _take_services(
        self, node: str, flows: list[FlowStats], groups: dict[int, Group], stats: list[GroupStats]
    ) -> None:
        sums = Sums()
        service_counts.add(sums, self._compiler.services.labels(), flows, groups, stats)
        found: dict[tuple[str, int, int], int] = {("connections", 0, key): n for key, n in sums.connections.items()}
        for (label, number), counts in sums.endpoints.items():
            found["packets", label, number] = counts.packets
            found["bytes", label, number] = counts.bytes
        self._answered(node, "services", lambda switch, now: switch.services.take(found, now))

    def _take_policies(self, node: str, flows: list[FlowStats]) -> None:
        counts: policy_views.Counts = {}
        policy_views.add_counts(counts, flows)
        self._answered(node, "policies", lambda switch, now: switch.policies.take(counts, now))

    def _answered(self, node: str, kind: str, take: Callable[[_Switch, float], None]) -> None:
        switch = self._switches.get(node)
        if switch is not None:
            switch.asked.pop(kind, None)
            self.answers += 1
            take(switch, time.monotonic())

    def overdue(self, now: float) -> list[str]:
        """Switches that are connected and haven't answered for so long that what is known of them isn't of now."""
        age = (OVERDUE + 1) * self.interval
        answered = ((node, switch.ports.at) for node, switch in self._fresh())
        return sorted(node for node, at in answered if at is not None and now - at > age)

    async def measure(self, *, policies: bool = False) -> None:
        """Have rates of now: at once where switches are being asked already, else after two looks."""
        now = time.monotonic()
        if policies:
            self._policies_until = now + INTEREST
        if self._is_known(policies, now) or self._reading("policies" if policies else "services") > QUESTION_LIMIT:
            return
        await self._look_at_all(policies)
        await asyncio.sleep(MEASURED)
        await self._look_at_all(policies)

    def _kind(self, switch: _Switch, policies: bool) -> Tally[Any]:
        return switch.policies if policies else switch.services

    def _is_known(self, policies: bool, now: float) -> bool:
        age = max(self.period("policies" if policies else "services") * OVERDUE, MEASURED)
        return all(
            node in self._switches and self._kind(self._switches[node], policies).is_of(now, age)
            for node in self._fleet.syncs
        )

    async def _look_at_all(self, policies: bool) -> None:
        asked = time.monotonic()
        self.look(asked, everyone=True)
        while time.monotonic() - asked < PATIENCE:
            looked = [self._kind(self._switches[node], policies).at for node in self._fleet.syncs]
            if all(at is not None and at >= asked for at in looked):
                return
            await asyncio.sleep(0.02)

    # Telling ----------------------------------------------------------------------------------------------------

    def _fresh(self) -> Iterator[tuple[str, _Switch]]:
        for node, switch in self._switches.items():
            if node in self._fleet.syncs:
                yield node, switch

    def nodes(self) -> Iterator[Row]:
        """What the ports of each node's bridge carry now, together, and which one carries most."""
        for node, switch in self._fresh():
            row: Row = {"name": node} | {f"{name}PerSecond": 0.0 for name in PORT_COUNTS}
            ports: dict[str, float] = {}
            for (port, name), rate in switch.ports.rates.items():
                row[f"{name}PerSecond"] += rate
                if name in ("rxBytes", "txBytes"):
                    ports[port] = ports.get(port, 0.0) + rate
            row["busiestPort"] = max(ports, key=lambda port: ports[port], default="")
            yield row

    def services(self) -> Iterator[Row]:
        """What each Service carries now, on all switches together."""
        sums: dict[tuple[str, int, int], float] = {}
        for _, switch in self._fresh():
            for key, rate in switch.services.rates.items():
                sums[key] = sums.get(key, 0) + rate
        for _, service in sorted(self._compiler.cluster.services.items()):
            numbers = {each for _, _, each, _ in self._compiler.services.endpoints_of(service)}
            yield {
                "namespace": service.namespace,
                "name": service.name,
                "connectionsPerSecond": sums.get(("connections", 0, object_id(*service.key)), 0.0),
                "packetsPerSecond": sum(sums.get(("packets", *each), 0.0) for each in numbers),
                "bytesPerSecond": sum(sums.get(("bytes", *each), 0.0) for each in numbers),
            }

    def policies(self) -> Iterator[Row]:
        """The packets that each policy lets through and drops now, on all switches together."""
        rates: dict[FlowKey, float] = {}
        for _, switch in self._fresh():
            for flow, rate in switch.policies.rates.items():
                rates[flow] = rates.get(flow, 0) + rate
        for key, policy in sorted(self._compiler.cluster.policies.items()):
            found = policy_views.counted(self._compiler, key, rates)
            yield {
                "kind": policy.kind,
                "namespace": policy.namespace,
                "name": policy.name,
                "allowedPerSecond": found["allowed"],
                "deniedPerSecond": found["denied"],
            }
