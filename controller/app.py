"""The controller, wired: which part hears of what from whom.

    a feed ──objects──> Controller ──objects──> Compiler ──updates──> Fleet ──bytes──> switches
                            ▲                      ▲                    │
                            │                      └──────ports─────────┤
                            └──────────────refusals, drift, status──────┘

Owns which part is told of what; what a part does with it is its own. Knows nothing of where objects are from (a feed:
`controller.manifest_feed`, `controller.kubernetes_feed`) nor of sockets, signals and turns (`controller.process`, which
calls what is done again and again).

Everything happens in one event loop, one thing after another: what a feed gives is taken whole before a switch is
heard, so no switch ever sees half of a change. Only reading files is done in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, TypeVar

from controller import dhcp, parts, questions, views
from controller.access import Access
from controller.agent_reports import AgentReports
from controller.api import UnknownNodeError
from controller.audit import Drift
from controller.audits import Audits, exhaust
from controller.bgp import Speaker
from controller.capture import Captures
from controller.change_traces import NoTraces
from controller.changes import Changes
from controller.chronicle import Chronicle
from controller.concerns import Concerns
from controller.connection_log import ConnectionLog
from controller.counting import Answered, Counting, ask_all
from controller.drains import Drains
from controller.events import EventLog
from controller.fleet import Fleet
from controller.holdings import Refusal, error_text
from controller.links import Links
from controller.metrics import Durations
from controller.offloads import Offloads
from controller.packet_ins import PacketIns, Purpose, in_port
from controller.phases import Phases
from controller.port_loads import Load, PortLoads
from controller.propagation import Done, Moments, Propagation, Timed
from controller.replica import Replica
from controller.statistics import Statistics
from controller.structured_log import about
from controller.sync import Events, Phase, SwitchSync
from controller.trace.live import Tracer
from controller.watching import Watches
from flows.compiler import Compiler
from flows.openflow import encode
from flows.openflow.messages import FlowStats, PacketIn, PortDesc, PortStats
from flows.state import Port
from flows.text import flow_text
from flows.update import Update
from flows.values import PORT_CONTROLLER, Group, Output
from topology.announcements import Route, routes
from topology.discovery import Sender
from topology.flow_export import FlowExport
from topology.graph import Interconnect, Wire
from topology.manifest_state import Snapshot, difference
from topology.manifests import Problem, object_words
from topology.model import Key, Object
from topology.services import ServiceRanges

_T = TypeVar("_T")

log = logging.getLogger(__name__)
#: Connections that policies deny or allow, where policies ask for it: a logger of its own, to be kept apart.
connection_log = logging.getLogger("signalbox.connections")

#: Differences of one audit that are written to the log one by one.
DRIFT_LINES = 20
#: Lines that are logged, and events that are told, of what a switch refuses at once.
REFUSED_LINES = 20
#: Seconds that a dump of a switch's flows may take: less than the silence after which its connection is given up.
DUMP_LIMIT = 10.0
#: How often a switch is compared with what it should hold until nothing changes meanwhile.
COMPARISONS = 5
#: Seconds after which a node whose switch is away is taken for lost.
LOST_AFTER = 5.0
#: Objects of a change that are named in a trace of it.
NAMED = 10
#: Seconds for which it is looked how much ports carry.
MEASURED = 1.0
#: Seconds for which an identity that no pod has is kept: pods that come back soon change no policy's flows.
IDENTITY_GRACE = 60.0


class Controller:
    """The cluster's state and the switches, and what happens between them."""

    def __init__(
        self,
        ranges: ServiceRanges | None = None,
        *,
        keyed: bool = True,
        replica: Replica | None = None,
        interconnect: Interconnect | None = None,
        exports: Sequence[FlowExport] = (),
    ) -> None:
        #: What of the cluster's addresses and ports is Services'.
        self.ranges = ranges or ServiceRanges()
        self.compiler = Compiler(self.ranges.cluster, keyed=keyed, interconnect=interconnect, exports=exports)
        #: Who watches what, and which rows are to be looked at again.
        self.changes = Changes()
        self.watches = Watches(self.changes)
        self.concerns = Concerns(self.compiler, self.changes)
        #: What has happened of late.
        self.events = EventLog(self.concerns.event)
        self.chronicle = Chronicle(self.events)
        self._phases = Phases()
        #: Whether tunnels carry the sender's identity.
        self.keyed = keyed
        packets = PacketIns(
            {
                Purpose.CONNECTION: self._log_connection,
                Purpose.DHCP: self._answer_dhcp,
                Purpose.LLDP: self._linked,
                Purpose.TAP: self._tapped,
            }
        )
        self.durations = Durations()
        #: Changes that aren't on all their switches yet.
        self.propagation = Propagation(self._installed)
        #: Who is told what became of changes.
        self.traces = NoTraces()
        events = Events(
            ports=self._ports_changed,
            refused=self._refused,
            drift=self._drifted,
            suspected=lambda node: self.audits.suspect(node),
            told=packets.told,
            overheard=packets.overheard,
            unsettled=self._unsettled,
            installed=self.propagation.installed,
            connected=self._connected,
            disconnected=self._disconnected,
        )
        if replica is not None:
            events.outranked = replica.outranked
        self._connections = ConnectionLog(self.compiler)
        self.tracer = Tracer(self.compiler, self._may_write, self._write, self.reach, self.dump)
        #: This controller among several; None where it is the only one.
        self.replica = replica
        self.fleet = Fleet(self.compiler, events, self.compiler.cluster.node_by_datapath.get, replica)
        #: Switches whose flows are compared with what they should be.
        self.audits = Audits(self.fleet)
        self.captures = Captures(self.compiler, self._may_write, self._write)
        self.links = Links(self.compiler, self.fleet, self._sender, self._rewired)
        self.problems: tuple[Problem, ...] = ()
        self._loads = PortLoads()
        #: What switches have counted lately.
        self.statistics = Statistics(self.compiler, self.fleet)
        #: Questions to all switches of what they have counted.
        self.counting = Counting(self.compiler, self.fleet)
        #: What nodes' agents say; and of it, how hardware offload is.
        self.agents = AgentReports(self.compiler, self.fleet, self.chronicle, self.concerns.agent)
        self.offloads = Offloads(self.compiler, self.fleet, self.agents)
        #: Certificates and tokens.
        self.access = Access()
        #: What it was started with, by the names of options.
        self.settings: Mapping[str, Any] = {}
        #: Nodes that people have drained.
        self.drains = Drains()
        #: Why no switch is heard yet; empty when they are.
        self.not_ready = "the cluster's state hasn't been read yet"
        #: Which state of its source is in force, in the source's own words, and what troubles the source.
        self.edition: Callable[[], str] = str
        self.source_troubles: Callable[[], Iterable[str]] = tuple
        #: What tells routers, if anything does; and what it is to tell them, made of which state.
        self.bgp: Speaker | None = None
        self._routes: tuple[Route, ...] = ()
        self._routes_of: tuple[int, frozenset[str]] | None = None
        #: Endpoints that are of no pod, and after which change they were looked for: every scrape asks.
        self._strangers: tuple[int, tuple[tuple[Key, str], ...]] = (-1, ())
        #: How many changes of objects there were.
        self.changes_taken = 0
        #: The objects that were taken last.
        self._taken: dict[Key, Object] = {}
        #: When each node's switch was connected last.
        self._seen: dict[str, float] = {}
        #: When each identity that no pod has was first seen so.
        self._idle: dict[int, float] = {}

    # The source speaks ------------------------------------------------------------------------------------------

    def take(self, snapshot: Snapshot, told: float | None = None) -> None:
        """The objects that there are now, all of them. `told`: when the source was told of what is new."""
        changed, gone = difference(self._taken, snapshot.objects)
        self._taken = snapshot.objects
        self.change(changed, gone, snapshot.problems, told)

    def change(
        self,
        changed: Iterable[Object],
        gone: Iterable[Key],
        problems: tuple[Problem, ...],
        told: float | None = None,
    ) -> None:
        """Objects that are new or others, the keys of those that are gone, and all that is wrong with any now."""
        gone = list(gone)
        changed = self.drains.take(changed, gone)
        self.changes_taken += 1
        self.concerns.objects(changed, gone)
        self.chronicle.drained(self.compiler.cluster.nodes, changed)
        if told is not None:
            self.durations.heard(max(time.monotonic() - told, 0.0))
        keys = (
            (*(each.key for each in islice(changed, NAMED)), *islice(gone, NAMED)) if self.propagation.detailed else ()
        )
        words = tuple(map(object_words, keys[:NAMED]))
        sent = self._send("object", lambda: chain.from_iterable(self.compiler.take(changed, gone)), told, words)
        self.durations.compiled(sent.sent - sent.known)
        self.fleet.admit(time.monotonic())
        self.links.objects_changed(changed, gone, time.monotonic())
        if problems != self.problems:
            for problem in sorted(set(problems) - set(self.problems)):
                log.error("%s", problem, extra=about(object=problem.object))
            self.chronicle.problems(self.problems, problems)
        self.problems = problems

    def _send(
        self, what: str, make: Callable[[], Iterable[Update]], told: float | None = None, about: tuple[str, ...] = ()
    ) -> Moments:
        """Have updates made, send them, and see how long it takes until all switches that were sent some have them."""
        known, making = time.monotonic(), Timed(make, time.monotonic)
        concerned = self.fleet.follow(making)
        # What the clock says after all that: a tenure may have ended meanwhile.
        sent = time.monotonic()
        self.fleet.flush(concerned, sent)
        moments = Moments(known if told is None else told, known, sent, making.seconds)
        waiting = [node for node in concerned if self._is_behind(node)]
        self.propagation.begin(what, waiting, self.fleet.cluster.version, moments, about)
        return moments

    def tell_traces(self, traces: NoTraces) -> None:
        """Somebody is to be told what became of changes."""
        self.traces = traces
        self.propagation.detailed = type(traces) is not NoTraces

    def _installed(self, done: Done) -> None:
        self.durations.installed(done.what, done.seconds)
        self.traces.take(done)

    def _is_behind(self, node: str) -> bool:
        return self.fleet.phase(node) in (Phase.READING, Phase.SYNCING)

    def look_for_lost_nodes(self) -> None:
        """Whose switch has been away for long announces no addresses: others do."""
        now = time.monotonic()
        names = self.compiler.cluster.nodes.keys()
        # At the start every node counts as just seen: a restart changes nothing.
        self._seen = {name: now if name in self.fleet.syncs else self._seen.get(name, now) for name in names}
        self.propagation.keep_only({name for name in self.fleet.syncs if self._is_behind(name)})
        lost = [name for name, seen in self._seen.items() if now - seen > LOST_AFTER]
        if self.replica is not None:
            lost = self.replica.agree(names, lost)
        updates = self.compiler.set_down(lost)
        if self.chronicle.lost(self.compiler.services.down, names):
            self.concerns.announcers()
        self.fleet.take(updates, now)

    def look_at_phases(self) -> None:
        """What has become of switches, and of who is master of them, for those who watch."""
        for turn in self._phases.look(self.fleet.syncs):
            self.concerns.switch(turn.node)
            if turn.first:
                self.chronicle.in_sync(turn.node)
        if self.replica is not None and self.chronicle.masters(self.replica.masters()):
            self.concerns.masters()

    @property
    def speaks(self) -> bool:
        """Whether it is this controller that tells of what is no node's: of several, the master of the first shard."""
        return self.replica is None or self.replica.leases.tenure(0) is not None

    def routes(self) -> tuple[Route, ...] | None:
        """What routers are to be told; None where it isn't this controller that tells them."""
        if not self.speaks:
            return None
        state = (self.changes_taken, self.compiler.services.down)
        if state != self._routes_of:
            services = self.compiler.services
            self._routes = routes(self.compiler.cluster, services.down, services.elections)
            self._routes_of = state
        return self._routes

    def obey_leases(self) -> None:
        """Be master where the leases say so, by now, and nowhere else; and decide what has waited for long enough."""
        if self.replica is not None:
            self.replica.expire()
        self.fleet.obey(time.monotonic())

    def release_identities(self) -> None:
        """Identities that no pod has had for long are given up."""
        now, identities = time.monotonic(), self.compiler.policies.identities
        self._idle = {number: self._idle.get(number, now) for number in identities.idle}
        old = [number for number, since in self._idle.items() if now - since > IDENTITY_GRACE]
        if old:
            self.fleet.take(self.compiler.release(sorted(old)), now)
            self.concerns.identities()

    def look_at_links(self) -> None:
        """Who speaks for which switch by now."""
        self.links.look_at_senders(time.monotonic())

    def ask_ports(self) -> None:
        """Have ports say who they are, whose turn it is."""
        self.links.look(time.monotonic())

    def _sender(self, node: str) -> Sender:
        """Who has a node's switch send frames."""
        sync = self.fleet.syncs.get(node)
        if sync is None:
            return Sender.NOBODY
        if sync.is_master:
            return Sender.US
        return Sender.OTHERS if self.replica is not None and self.replica.master(node)[0] else Sender.NOBODY

    def tell_connections(self) -> None:
        """What was repeated since it was last told."""
        for line in self._connections.repeated(time.monotonic()):
            connection_log.info("%s", line)

    async def drain(self, node: str, *, drained: bool) -> bool:
        """Give a node no new work, or work again; whether that is new. Raises DrainError and SourceSaysError."""
        changed = await self.drains.put(node, drained=drained)
        self.follow_drains()
        return changed

    def follow_drains(self) -> None:
        """Have those nodes drained that people have said so of by now."""
        others = self.drains.differing(self.compiler.cluster.nodes)
        if others:
            self.change(others, (), self.problems)

    # The switches speak -----------------------------------------------------------------------------------------

    def _ports_changed(self, node: str, ports: list[Port]) -> None:
        self.concerns.switch(node)
        self._send("port", lambda: self.compiler.set_ports(node, ports), about=(node,))
        self.links.set_ports(node, time.monotonic())

    def _refused(self, node: str, refusals: Sequence[Refusal]) -> None:
        for refusal in refusals[:REFUSED_LINES]:
            text = flow_text(refusal.item, names=True)
            maker = views.maker_of(self.compiler, refusal.item)
            extra = about(node=node, object=maker)
            log.error("node %s refuses with %s, for %s: %s", node, error_text(refusal), maker, text, extra=extra)
            self.chronicle.refused(node, maker, error_text(refusal), text)
        if len(refusals) > REFUSED_LINES:
            more = len(refusals) - REFUSED_LINES
            log.error("node %s refuses %d flows and groups more at once", node, more, extra=about(node=node))
        self.concerns.switch(node)

    def _drifted(self, node: str, drift: Drift) -> None:
        lines = [f"missing {flow_text(flow, names=True)}" for flow in drift.missing]
        lines += [f"altered {flow_text(flow, names=True)}" for flow, _ in drift.altered]
        lines += [f"foreign {_stats_text(stats)}" for stats in drift.foreign]
        for line in lines[:DRIFT_LINES]:
            log.warning("node %s drifted, repaired: %s", node, line, extra=about(node=node))
        if len(lines) > DRIFT_LINES:
            more = len(lines) - DRIFT_LINES
            log.warning("node %s drifted, repaired: %d flows more", node, more, extra=about(node=node))
        self.chronicle.drifted(node, drift)
        self.concerns.switch(node)

    def _connected(self, node: str) -> None:
        self.chronicle.connected(node)
        self.concerns.switch(node)

    def _disconnected(self, node: str, reason: str) -> None:
        self.chronicle.disconnected(node, reason)
        self.concerns.switch(node)

    def _rewired(self, before: Collection[Wire], now: Collection[Wire]) -> None:
        self.chronicle.rewired(before, now)
        self.concerns.links()

    def _log_connection(self, node: str, packet: PacketIn, now: float) -> None:
        for line in self._connections.take(node, packet, now):
            connection_log.info("%s", line, extra=about(node=node))

    def _linked(self, node: str, packet: PacketIn, now: float) -> None:
        self.links.hear(node, packet, now)

    def _tapped(self, node: str, packet: PacketIn, now: float) -> None:
        # Each table tells of a packet once, by whoever's tap: both may want it.
        self.tracer.take(node, packet)
        self.captures.take(node, packet)

    def _may_write(self, node: str) -> bool:
        return node in self.fleet.syncs and self.fleet.syncs[node].is_master

    def _write(self, node: str, messages: list[bytes]) -> None:
        self.fleet.send(node, messages, time.monotonic())

    def _unsettled(self, node: str, now: float) -> bool:
        return self.links.are_unsettled(self.fleet.syncs.keys(), now)

    def _answer_dhcp(self, node: str, packet: PacketIn, now: float) -> None:
        number = in_port(packet)
        found = self.compiler.pod_at(node, number)
        if found is None or not found[0].dhcp:
            return
        reply = dhcp.answer(packet.data, found[0])
        if reply is not None:
            self.fleet.send(node, [encode.packet_out(reply, (Output(number),), PORT_CONTROLLER)], now)

    # People ask -------------------------------------------------------------------------------------------------

    async def dump(self, node: str) -> list[FlowStats]:
        """A node's flows as its switch has them. Raises UnknownNodeError and TimeoutError."""
        return await _answer(self._sync_of(node), questions.dump)

    async def reach(self, node: str) -> None:
        """Return when a node's switch has taken what it was sent before. Raises as `dump` does."""
        await _answer(self._sync_of(node), questions.describe)

    async def groups(self, node: str) -> list[Group]:
        """A node's groups as its switch has them. Raises as `dump` does."""
        return await _answer(self._sync_of(node), questions.groups)

    def _sync_of(self, node: str) -> SwitchSync:
        """A node's switch. Raises UnknownNodeError."""
        sync = self.fleet.syncs.get(node)
        if sync is None:
            known = node in self.compiler.cluster.nodes
            raise UnknownNodeError(f"the switch of node {node!r} isn't connected" if known else f"no node {node!r}")
        return sync

    async def compare(self, node: str) -> tuple[Drift, int, bool]:
        """What differs on a node's switch from what it should hold, of how many flows that it has.

        And whether nothing was on its way when it was asked; else what was may be told as a difference. What changes
        while it is compared isn't told. Raises as `dump` does.
        """
        for turn in range(1, COMPARISONS + 1):
            before = self._sync_of(node).settled
            found = await self.dump(node)
            holdings = self._sync_of(node).holdings
            is_settled = before is not None and self._sync_of(node).settled == before
            if is_settled or turn == COMPARISONS:
                comparison = holdings.comparison(found)
                await self.audits.go_through(comparison)
                drift = comparison.drift()
                if drift is not None:
                    return drift, len(found), is_settled
        # More has changed each time than is remembered. In one go, nothing can.
        comparison = holdings.comparison(found)
        exhaust(comparison.steps())
        return comparison.drift() or Drift(), len(found), False

    async def measure_ports(self) -> dict[tuple[str, str], Load]:
        """How much ports carry now, by node and name, on all switches that answer in time."""
        self._loads.keep_only(self.compiler.cluster.nodes)
        if not all(self._loads.is_fresh(node, time.monotonic()) for node in self.fleet.syncs):
            await self._look_at_ports()
            await asyncio.sleep(MEASURED)
        return await self._look_at_ports()

    async def _look_at_ports(self) -> dict[tuple[str, str], Load]:
        found: dict[tuple[str, str], Load] = {}

        def ask(sync: SwitchSync, answered: Answered) -> None:
            def take(ports: list[PortDesc], counts: list[PortStats]) -> None:
                answered(lambda: found.update(self._loads.take(sync.node, ports, counts, time.monotonic())))

            questions.count_ports(sync, take)

        await ask_all(self.fleet.syncs, ask)
        return found

    def strange_endpoints(self) -> tuple[tuple[Key, str], ...]:
        """What is wrong with endpoints, looked for again after a change alone: it goes through all of them."""
        if self._strangers[0] != self.changes_taken:
            self._strangers = (self.changes_taken, tuple(self.compiler.services.strangers()))
        return self._strangers[1]

    def audit(self, *, full: bool) -> None:
        """Look whether every switch holds what it should."""
        for sync in self.fleet.syncs.values():
            sync.audit(full=full)

    def troubles(self) -> Iterator[str]:
        """Everything that isn't as it should be, a line each."""
        return parts.troubles(self, datetime.now(UTC))


async def _answer(sync: SwitchSync, ask: Callable[[SwitchSync, Callable[[_T], None]], None]) -> _T:
    """What a node's switch answers to a question. Raises TimeoutError."""
    answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
    ask(sync, lambda found: None if answer.done() else answer.set_result(found))
    try:
        async with asyncio.timeout(DUMP_LIMIT):
            return await answer
    except TimeoutError:
        raise TimeoutError(f"the switch of node {sync.node!r} doesn't answer within {DUMP_LIMIT:g} s") from None


def _stats_text(stats: FlowStats) -> str:
    if stats.flow is not None:
        return flow_text(stats.flow, names=True)
    return f"table={stats.table},priority={stats.priority} ({stats.why})"
