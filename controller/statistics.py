"""How much nodes, Services and policies carry: switches are asked in turn; rates are what came between two answers.

    turn ──look──> SwitchSync ──counts, part by part──> growth of flows ──by object──> rates and totals

Ports and flows are asked for once an interval. What answers cost here is bounded: where there are many flows on many
switches, Services and policies are asked for less often, by what reading has been found to take. A switch that hasn't
answered isn't asked again until its answer is overdue, so slow ones gather no questions. A counter that is less than
it was began anew: what it says now has come since. Totals only grow while this controller and their object are there,
whatever becomes of switches and flows meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from controller import policy_views, questions
from controller.fleet import Fleet
from controller.flow_growth import FlowTally, Growth, Look
from controller.service_counts import is_connection
from controller.sync import SwitchSync
from flows.compiler import Compiler
from flows.cookies import KIND_MASK, KIND_SHIFT, OBJECT_MASK, Kind
from flows.openflow.counted import FlowCount
from flows.openflow.messages import PortDesc, PortStats
from flows.pipeline import SERVICE, SERVICE_STATS
from topology.metadata import Key
from topology.naming import object_id

#: Seconds between two looks at all switches, unless told otherwise.
INTERVAL = 10.0
#: Intervals after which an answer is overdue and what is known of a switch says nothing of now.
OVERDUE = 3.0
#: Seconds between the two looks that a first question takes, and for which it waits for answers.
MEASURED, PATIENCE = 1.0, 5.0
#: Parts that an interval is divided into: switches are asked a few at a time.
PARTS = 10
#: The part of the controller's time that may go into reading one kind of answers, and seconds that it takes to read a
#: flow of one, until that is measured.
SHARE, READING = 0.05, 2e-6
#: Seconds that it takes to read a port of an answer, with its description.
READING_PORT = 1e-5
#: Seconds of reading that one question may cause; with more, what is known is told.
QUESTION_LIMIT = 2.0
#: Services, and policies, that have totals of their own, unless told otherwise.
OBJECTS = 1000
#: How much of what reading takes is made up of the last answer.
_NEWS = 0.1
_TABLES = {"services": (SERVICE.number, SERVICE_STATS.number), "policies": policy_views.TABLES}
#: What is asked for.
KINDS = ("ports", *_TABLES)
#: What is kept of each object of a kind.
SERVICE_COUNTS = ("connections", "packets", "bytes")
POLICY_COUNTS = ("allowed", "denied")
#: Rates are added up in whole thousandths, so that what is taken away again leaves nothing.
_FINE = 1000
#: What a switch says of what it doesn't count.
_UNCOUNTED = 2**64 - 1

Row = dict[str, Any]
K = TypeVar("K", bound=Hashable)


class Tally(Generic[K]):
    """Counters of one switch: how fast each grows."""

    def __init__(self) -> None:
        self.rates: dict[K, tuple[float, ...]] = {}
        self.at: float | None = None
        self._last: dict[K, tuple[int, ...]] = {}

    def take(self, counts: Mapping[K, tuple[int, ...]], now: float) -> None:
        """The counters as they are now, some of each object."""
        seconds = now - self.at if self.at is not None else 0.0
        self.rates = {}
        if seconds > 0:
            for key, found in counts.items():
                before = self._last.get(key, (0,) * len(found))
                grown = [new - old if new >= old else new for new, old in zip(found, before, strict=True)]
                if any(grown):
                    self.rates[key] = tuple(more / seconds for more in grown)
        self.at, self._last = now, dict(counts)


class Carried(Generic[K]):
    """What all switches together carry of each object, some counts of each: rates now, and totals of `limit` objects.

    Who comes first has a total of its own, for as long as it is there; what all others carry is one total. So neither
    ever goes back.
    """

    def __init__(self, width: int, limit: int) -> None:
        self.limit = limit
        self._nothing = (0,) * width
        self._rates: dict[K, tuple[int, ...]] = {}
        #: Since this controller began.
        self.totals: dict[K, tuple[int, ...]] = {}
        self.others = self._nothing

    def add(self, grown: Mapping[K, Iterable[int]]) -> None:
        """This much has come."""
        for key, more in grown.items():
            if key in self.totals or len(self.totals) < self.limit:
                self.totals[key] = _sum(self.totals.get(key, self._nothing), more)
            else:
                self.others = _sum(self.others, more)

    def replace(self, old: Mapping[K, tuple[int, ...]], new: Mapping[K, tuple[int, ...]]) -> None:
        """The rates of a switch, in thousandths, instead of those that it had."""
        for key, rates in new.items():
            self._rates[key] = _sum(self._rates.get(key, self._nothing), rates)
        for key, rates in old.items():
            left = _sum(self._rates.get(key, self._nothing), (-each for each in rates))
            if any(left):
                self._rates[key] = left
            else:
                self._rates.pop(key, None)

    def rates(self, key: K) -> tuple[float, ...]:
        """What an object carries now, each a second."""
        return tuple(each / _FINE for each in self._rates.get(key, self._nothing))

    def keep_only(self, keys: Mapping[K, object]) -> None:
        """Of objects that are gone nothing is told."""
        for gone in [key for key in self.totals if key not in keys]:
            del self.totals[gone]


def _sum(first: Iterable[int], second: Iterable[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(first, second, strict=True))


class _Flows(msgspec.Struct):
    """What is known of one switch's flows of one kind."""

    tally: FlowTally
    #: The look that is under way, and what it has found: what comes of a former one is nobody's business.
    look: Look | None = None
    #: By object, in thousandths a second.
    rates: dict[Any, tuple[int, ...]] = {}


class _Switch(msgspec.Struct):
    ports: Tally[str]
    flows: dict[str, _Flows]
    #: When each kind of question was asked that hasn't been answered, and on which connection.
    asked: dict[str, tuple[float, SwitchSync]]
    due: float = 0.0
    #: When to ask at the earliest, by kind, where that costs much.
    not_before: dict[str, float] = {}
    row: Row = {}


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
        self._began = time.monotonic()
        #: By the Service's object id, and by the policy's key.
        self.services_carried: Carried[int] = Carried(len(SERVICE_COUNTS), OBJECTS)
        self.policies_carried: Carried[Key] = Carried(len(POLICY_COUNTS), OBJECTS)
        #: Seconds that reading a flow has taken lately, by kind, and the ports of a switch.
        self._seconds: dict[str, float] = {"ports": READING_PORT}
        self._ports = 0.0
        #: Answers that switches have given.
        self.answers = 0
        self._service_ids: dict[Key, int] = {}
        self._tidy_at = 0.0

    # Asking -----------------------------------------------------------------------------------------------------

    def tell_apart(self, objects: int) -> None:
        """So many Services, and so many policies, have totals of their own."""
        self.services_carried.limit = self.policies_carried.limit = objects

    async def keep(self) -> None:
        """Ask switches in turn, until cancelled; nothing where the interval is 0."""
        while self.interval > 0:
            await asyncio.sleep(self.interval / PARTS)
            self.look(time.monotonic())

    def look(self, now: float, *, everyone: bool = False) -> None:
        """Ask the switches whose turn it is."""
        self._forget_switches()
        if everyone or now >= self._tidy_at:
            self._tidy_at = now + self.interval
            self._forget_objects()
        for index, (node, sync) in enumerate(self._fleet.syncs.items()):
            switch = self._switches.get(node)
            if switch is None:
                kinds = {kind: _Flows(FlowTally()) for kind in _TABLES}
                switch = self._switches[node] = _Switch(Tally(), kinds, {})
                # The first turns are spread over an interval, and so are all others then.
                switch.due = now + (index % PARTS) * self.interval / PARTS
            if everyone or now >= switch.due:
                switch.due = now + self.interval
                self._ask(node, sync, switch, now, index / len(self._fleet.syncs), everyone=everyone)

    def _forget_switches(self) -> None:
        """Of nodes that are gone nothing is known, and who is away carries nothing that is known of now."""
        for node, switch in list(self._switches.items()):
            if node not in self._fleet.syncs:
                for kind, known in switch.flows.items():
                    self._carried(kind).replace(known.rates, {})
                    known.rates = {}
                if node not in self._compiler.cluster.nodes:
                    del self._switches[node]

    def _forget_objects(self) -> None:
        self.services_carried.keep_only(dict.fromkeys(self._ids().values()))
        self.policies_carried.keep_only(self._compiler.cluster.policies)

    def _carried(self, kind: str) -> Carried[Any]:
        return self.services_carried if kind == "services" else self.policies_carried

    def _rows(self, kind: str) -> float:
        """How many flows or ports an answer is of."""
        if kind == "ports":
            return self._ports
        counts = self._fleet.cluster.state.counts
        return sum(counts.get(table, 0) for table in _TABLES[kind])

    def _reading(self, kind: str) -> float:
        """Seconds that it takes to read what all switches answer, about."""
        return self._rows(kind) * self._seconds.get(kind, READING) * len(self._fleet.syncs)

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
            if asked is not None and asked[1] is sync and now - asked[0] < OVERDUE * max(self.interval, 1.0):
                return False
            switch.asked[kind] = (now, sync)
            return True

        if begin("ports"):
            questions.count_ports(sync, lambda ports, counts: self._take_ports(node, ports, counts))
        if begin("services"):
            self._ask_flows("services", sync, switch, now, _services_of)
        if self._compiler.cluster.policies and begin("policies"):
            self._ask_flows("policies", sync, switch, now, self._policies_of)

    def _ask_flows(
        self, kind: str, sync: SwitchSync, switch: _Switch, now: float, objects: Callable[[Growth], Iterator[Grown]]
    ) -> None:
        known = switch.flows[kind]
        look = known.look = Look(known.tally, now, self._began)
        found: dict[Hashable, tuple[int, ...]] = {}
        spent = 0.0

        def take(flows: Iterator[FlowCount]) -> None:
            nonlocal spent
            if known.look is not look:
                return
            begun = time.perf_counter()
            for growth in look.grown(flows):
                for key, more in objects(growth):
                    there = found.get(key)
                    found[key] = more if there is None else _sum(there, more)
            spent += time.perf_counter() - begun

        def end() -> None:
            if known.look is not look:
                return
            ended, last = time.monotonic(), known.tally.at
            known.look = None
            look.end(ended)
            carried, seconds = self._carried(kind), ended - last if last is not None else 0.0
            carried.add(found)
            fine = _FINE / seconds if seconds > 0 else 0.0
            rates = {key: tuple(round(each * fine) for each in more) for key, more in found.items()} if fine else {}
            carried.replace(known.rates, rates)
            known.rates = rates
            switch.asked.pop(kind, None)
            self.answers += 1
            self._measured(kind, spent)

        questions.count_flows(sync, _TABLES[kind], take, end)

    def _measured(self, kind: str, seconds: float) -> None:
        """Reading an answer has taken so long."""
        rows = self._rows(kind)
        if rows:
            before = self._seconds.get(kind, seconds / rows)
            self._seconds[kind] = before + _NEWS * (seconds / rows - before)

    def _policies_of(self, growth: Growth) -> Iterator[Grown]:
        """Whose packets these are."""
        try:
            key = growth.flow.key()
        except ValueError:
            return
        for owner, verdict in policy_views.judged(self._compiler, key):
            yield owner, tuple(growth.packets * (verdict == each) for each in POLICY_COUNTS)

    def _take_ports(self, node: str, ports: list[PortDesc], counts: list[PortStats]) -> None:
        switch = self._switches.get(node)
        if switch is None:
            return
        names = {port.number: port.name for port in ports}
        found = {names[each.number]: _port_counts(each) for each in counts if each.number in names}
        self._ports += _NEWS * (len(counts) - self._ports)
        switch.asked.pop("ports", None)
        self.answers += 1
        switch.ports.take(found, time.monotonic())
        sums = [sum(each) for each in zip(*switch.ports.rates.values(), strict=True)] or [0.0] * len(PORT_COUNTS)
        busiest = max(switch.ports.rates, key=lambda port: sum(switch.ports.rates[port][:2]), default="")
        switch.row = {f"{name}PerSecond": each for name, each in zip(PORT_COUNTS, sums, strict=True)}
        switch.row["busiestPort"] = busiest

    def overdue(self, now: float) -> list[str]:
        """Switches that are connected and haven't answered for so long that what is known of them isn't of now."""
        age = (OVERDUE + 1) * self.period("ports")
        answered = {node: self._switches[node].ports.at for node in self._fleet.syncs if node in self._switches}
        return sorted(node for node, at in answered.items() if at is not None and now - at > age)

    async def measure(self, *, policies: bool = False) -> None:
        """Have rates of now: at once where switches are being asked already, else after two looks."""
        now, kind = time.monotonic(), "policies" if policies else "services"
        if self._is_known(kind, now) or self._reading(kind) > QUESTION_LIMIT:
            return
        await self._look_at_all(kind)
        await asyncio.sleep(MEASURED)
        await self._look_at_all(kind)

    def _looked(self, node: str, kind: str) -> float | None:
        switch = self._switches.get(node)
        return switch.flows[kind].tally.at if switch is not None else None

    def _is_known(self, kind: str, now: float) -> bool:
        if kind == "policies" and not self._compiler.cluster.policies:
            return True
        age = max(self.period(kind) * OVERDUE, MEASURED)
        looked = (self._looked(node, kind) for node in self._fleet.syncs)
        return all(at is not None and now - at <= age for at in looked)

    async def _look_at_all(self, kind: str) -> None:
        asked = time.monotonic()
        self.look(asked, everyone=True)
        while time.monotonic() - asked < PATIENCE:
            looked = [self._looked(node, kind) for node in self._fleet.syncs]
            if all(at is not None and at >= asked for at in looked):
                return
            await asyncio.sleep(0.02)

    # Telling ----------------------------------------------------------------------------------------------------

    def nodes(self) -> Iterator[Row]:
        """What the ports of each node's bridge carry now, together, and which one carries most.

        Where the switch is away that is None: nobody knows.
        """
        for node in self._compiler.cluster.nodes:
            switch = self._switches.get(node) if node in self._fleet.syncs else None
            rate = None if switch is None else 0.0
            nothing = {f"{name}PerSecond": rate for name in PORT_COUNTS} | {"busiestPort": ""}
            yield {"name": node} | nothing | (switch.row if switch is not None else {})

    def _ids(self) -> dict[Key, int]:
        """The object id of each Service that there is."""
        known, services = self._service_ids, self._compiler.cluster.services.values()
        found = {each.key: known.get(each.key) or object_id(*each.key) for each in services}
        self._service_ids = found
        return found

    def services(self) -> Iterator[Row]:
        """What each Service carries now, on all switches together."""
        for (_, namespace, name), number in sorted(self._ids().items()):
            rates = zip(SERVICE_COUNTS, self.services_carried.rates(number), strict=True)
            yield {"namespace": namespace, "name": name} | {f"{what}PerSecond": rate for what, rate in rates}

    def policies(self) -> Iterator[Row]:
        """The packets that each policy lets through and drops now, on all switches together."""
        for key in sorted(self._compiler.cluster.policies):
            kind, namespace, name = key
            rates = zip(POLICY_COUNTS, self.policies_carried.rates(key), strict=True)
            row: Row = {"kind": kind, "namespace": namespace, "name": name}
            yield row | {f"{what}PerSecond": rate for what, rate in rates}

    def service_totals(self) -> Iterator[tuple[Key, tuple[int, ...], tuple[float, ...]]]:
        """What Services that have carried something have carried since this controller began, and carry now."""
        carried = self.services_carried
        for key, number in self._ids().items():
            if number in carried.totals:
                yield key, carried.totals[number], carried.rates(number)

    def policy_totals(self) -> Iterator[tuple[Key, tuple[int, ...], tuple[float, ...]]]:
        """The packets that policies have let through and dropped since this controller began, and do now."""
        carried = self.policies_carried
        for key, counts in carried.totals.items():
            if key in self._compiler.cluster.policies:
                yield key, counts, carried.rates(key)


#: An object, and how much more it has carried.
Grown = tuple[Hashable, tuple[int, ...]]
_OF_SERVICE = Kind.SERVICE << KIND_SHIFT


def _services_of(growth: Growth) -> Iterator[Grown]:
    """Whose connections these are, or whose packets."""
    flow = growth.flow
    cookie = flow.cookie
    if cookie & KIND_MASK == _OF_SERVICE:
        if flow.table == SERVICE_STATS.number:
            yield cookie & OBJECT_MASK, (0, growth.packets, growth.bytes)
        elif is_connection(flow):
            yield cookie & OBJECT_MASK, (growth.packets, 0, 0)


def _port_counts(stats: PortStats) -> tuple[int, ...]:
    found = (getattr(stats, field) for field in PORT_COUNTS.values())
    return tuple(0 if each == _UNCOUNTED else each for each in found)
