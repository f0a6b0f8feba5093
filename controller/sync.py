"""Keeps one switch in sync: what it should hold against what it says that it holds. Sans-I/O; time is an argument.

    READING ──ports and digests are read──> STEADY ──one bundle in flight, the next one gathering──> STEADY
       (a digest that is right: nothing is sent; a wrong one: that scope is replaced in one bundle)

The switch holds a cursor into the cluster's log and a table of pending changes of its own node, coalesced by flow.
Whatever gathers while a bundle is in flight goes out in the next. A flow that the switch refuses is set aside with the
error, its hash taken out of the digest that this switch stores, and the rest goes in; it is tried again when it changes
and at the next connection, and where its table was full now and then, longer apart each time.

What is wrong only when a bundle is committed, as where a table is full, fails all of it, and the switch tells of the
first such message alone. The bundle is sent once more without that, and for a full table without all new flows that
come behind it there: so what is in it stays. A switch that goes on failing is left alone for a while, longer each time;
a new connection would make nothing better.

Where there are several controllers, only the one that holds the switch's lease writes, and only until its tenure ends
or the switch says that another is master:

    STANDBY ──appoint: role request, digests are read──> READING ──> STEADY ──dismiss, or displaced──> STANDBY

The others have sent the switch nothing but their role, and that they want to hear what it tells its master; they know
its ports. What the former master has sent last may be of a change that this controller has yet to hear of, so a digest
that isn't right is given a moment to become so.

What people and statistics want to know of a switch is asked in `controller.questions`, by means of `request`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from itertools import chain, count

import msgspec

from controller.audit import Drift
from controller.batch import (
    BUNDLE_ID,
    OWN_XIDS,
    Batch,
    Step,
    Xids,
    batch,
    change,
    digest_step,
    flushes,
    name_of,
    on_bridge,
    replacement,
)
from controller.holdings import Holdings, Refusal, scope_of
from controller.leases import Tenure
from controller.pauses import Pause
from controller.scopes import ClusterLog, ScopeState, Source
from flows.cookies import Scope
from flows.openflow import encode
from flows.openflow.decode import DecodeError
from flows.openflow.messages import (
    BundleReply,
    Error,
    FlowStatsReply,
    GroupDescReply,
    Message,
    PacketIn,
    PortDesc,
    PortDescReply,
    PortStatus,
    RoleReply,
    RoleStatus,
    TableStatsReply,
    UnreadReply,
)
from flows.openflow.wire import COUNTS_ALONE, BundleControl, GroupCommand, Role
from flows.pipeline import DIGEST
from flows.state import Port
from flows.tables.digest import digest_flow
from flows.update import Forgotten, Update
from flows.values import Ct, Flow, FlowKey, Group

#: Bundles that may fail one after another before everything is sent anew, and from then on with pauses between them.
FAILURE_LIMIT = 5
#: Seconds of the first of these pauses, and of the longest; and until what full tables have refused is tried again.
FIRST_PAUSE, FIRST_RETRY, LONGEST_PAUSE = 0.1, 1.0, 60.0
#: Flow-mods of one bundle, about. While a bundle is committed the switch takes no new connections into its datapath:
#: for 100,000 flow-mods a tenth of a second. Changes beyond this go out in the next one; a single change is never cut.
BUNDLE_LIMIT = 10_000
#: Flows of a node that may wait beyond what its scope holds; with more, the whole scope is sent instead.
PENDING_SLACK = 10_000
#: Seconds for which a new master waits where a switch holds what it doesn't know (yet) before it replaces that.
PATIENCE = 0.5
#: The only controller that there is: master for good, and no switch is told so.
ALONE = Tenure(epoch=0, confirmed=0.0, until=float("inf"))
_BAD_REQUEST, _IS_SLAVE = 1, 10
_ROLE_REQUEST_FAILED, _STALE = 11, 0


class SyncError(Exception):
    """The switch can't be brought into sync on this connection; the text says why."""


class Phase(StrEnum):
    READING = "Reading"
    STANDBY = "Standby"
    SYNCING = "Syncing"
    SYNCED = "Synced"


class Counters(msgspec.Struct):
    """What has been sent on this connection and how it went. `latency`: seconds from a bundle's start to its reply."""

    flow_mods: int = 0
    bundles: int = 0
    sent_bytes: int = 0
    refused: int = 0
    failed_bundles: int = 0
    audits: int = 0
    repaired: int = 0
    latency: float = 0.0
    #: When the last bundle was confirmed.
    synced_at: float = 0.0


class _Flight(msgspec.Struct):
    """A bundle that is on its way."""

    batches: list[Batch]
    open_xid: int
    commit_xid: int
    started: float
    #: The version of the cluster's log that it leads to, and whether it leaves nothing of the node's own behind.
    version: int
    is_whole: bool
    #: Whether it is of flows that were refused before.
    is_retry: bool
    #: What goes out behind it.
    after: list[bytes]
    #: Flows and groups in it that were refused in another form.
    missing: set[FlowKey | int]
    #: By xid: a switch that repeats itself fills nothing.
    errors: dict[int, tuple[Flow | Group, Error]] = {}
    broken: Error | None = None


class Events(msgspec.Struct):
    """What the wiring wants to hear. Each is called with the node's name first."""

    #: The switch's ports, all of them, at first and at each change.
    ports: Callable[[str, list[Port]], None]
    refused: Callable[[str, Sequence[Refusal]], None]
    drift: Callable[[str, Drift], None]
    #: The switch may hold what it shouldn't, or lack something: its flows are to be looked at, each of them.
    suspected: Callable[[str], None]
    #: A packet that a flow was to tell of, and when it came.
    told: Callable[[str, PacketIn, float], None]
    #: The same, while another controller is the switch's master.
    overheard: Callable[[str, PacketIn, float], None] = lambda node, packet, now: None
    #: Whether what a switch should hold may yet be found to be what it holds: then that is left alone for a moment.
    unsettled: Callable[[str, float], bool] = lambda node, now: False
    #: A bundle is in: when it was begun, and to which version of the cluster's log it leads.
    installed: Callable[[str, float, int, float], None] = lambda node, begun, version, now: None
    #: The switch has seen a master with this generation, which is above the epoch of our tenure.
    outranked: Callable[[str, int], None] = lambda node, generation: None
    #: The switch is there; and it has gone, and why.
    connected: Callable[[str], None] = lambda node: None
    disconnected: Callable[[str, str], None] = lambda node, reason: None


class SwitchSync:
    """One switch on one connection. `write` takes buffers to send, in order."""

    def __init__(
        self,
        node: str,
        source: Source,
        log: ClusterLog,
        scope: ScopeState,
        xids: Xids,
        write: Callable[[Iterable[bytes]], None],
        events: Events,
    ) -> None:
        self.node = node
        self.counters = Counters()
        self.holdings = Holdings(node, source, log, scope)
        self.refusals = self.holdings.refusals
        self._source = source
        self._log = log
        self._scope = scope
        self._xids = xids
        self._write = write
        self._events = events
        self._own_xids = count(OWN_XIDS)
        self._waiting: dict[int, Callable[[Message, float], None]] = {}
        self._tenure: Tenure | None = None
        #: Counts appointments and dismissals: answers to what was asked before the last one are nobody's business.
        self._term = 0
        #: The switch has said that we are master. What it says before is of what was before.
        self._granted = False
        self._reading = True
        self._standby = False
        #: When the switch said that another controller is master, against what the lease says.
        self._displaced: float | None = None
        #: The epoch that the switch was told as a standby's, and whether it has refused to hear of it.
        self._told_epoch, self._unheard = -1, False
        #: Digests that the switch has stored, while it isn't decided what that means; and until when to wait with it.
        self._undecided: dict[Scope, int | None] | None = None
        self._patience = 0.0
        self._succeeds = False
        self._ports: dict[int, PortDesc] | None = None
        self._flight: _Flight | None = None
        self._failures = 0
        #: Why bundles fail, where they go on doing so; what is to be sent again then; and when.
        self.setback = ""
        self._again: _Flight | None = None
        self._pause = Pause(FIRST_PAUSE, LONGEST_PAUSE)
        #: Until full tables are tried again.
        self._retry = Pause(FIRST_RETRY, LONGEST_PAUSE)
        self._cursor = 0
        #: Scopes that are to be replaced as a whole, and those whose stored digest must be corrected.
        self._replace: set[Scope] = set()
        self._correct: set[Scope] = set()
        self._pending: dict[FlowKey, tuple[Flow, bool]] = {}
        self._pending_groups: dict[int, tuple[Group, bool]] = {}
        #: Of the pending flows, those that the switch has in another form, or had.
        self._old: set[FlowKey] = set()
        #: Of what the next bundle has, what was refused in another form.
        self._missing: set[FlowKey | int] = set()
        self._repairs: list[Step] = []
        #: Of a scope that is replaced: what leads nowhere any more is to be forgotten too.
        self._flushes: tuple[bytes, ...] = ()
        #: Groups that a switch out of sync was found to hold; None where it must be asked before a scope is replaced.
        self._found_groups: dict[int, Group] | None = None

    @property
    def phase(self) -> Phase:
        if self._reading:
            return Phase.READING
        if self._standby:
            return Phase.STANDBY
        under_way = self._flight is not None or self._again is not None
        return Phase.SYNCING if under_way or self._is_behind() else Phase.SYNCED

    @property
    def settled(self) -> tuple[Phase, int, int, int] | None:
        """Which state the switch has been brought into, by us or by its master; None while something is on its way.

        What is asked of the switch is of this state if it is the same before the question and after the answer.
        """
        phase = self.phase
        if phase not in (Phase.SYNCED, Phase.STANDBY):
            return None
        return (phase, self.counters.bundles, self._log.version, self._scope.digest)

    @property
    def is_master(self) -> bool:
        """Whether the switch takes what is sent, as far as is known."""
        return self._tenure is not None and not self._standby and (self._granted or not self._tenure.epoch)

    # Reading ----------------------------------------------------------------------------------------------------

    def begin(self, now: float, tenure: Tenure | None = ALONE, epoch: int = 0) -> None:
        """Ask for everything that decides whether the switch is in sync; as a standby (no `tenure`), for its ports."""
        self.request(encode.port_desc_request, self._take_ports)
        if tenure is None:
            self._dismiss(epoch)
        else:
            self._appoint(tenure, now)

    def obey(self, tenure: Tenure | None, epoch: int, now: float) -> None:
        """Be what the lease says: master while there is a tenure, else standby. `epoch` is that of whoever holds it."""
        if tenure is None:
            if self._tenure is not None or not self._standby or (self._unheard and epoch != self._told_epoch):
                self._dismiss(epoch)
        elif tenure is not self._tenure or (self._displaced is not None and tenure.confirmed > self._displaced):
            self._appoint(tenure, now)
        if self._undecided is not None and now >= self._patience:
            self._decide(now)
        if self._pause.is_over(now) or self._retry.is_over(now):
            self.flush(now)

    def _appoint(self, tenure: Tenure, now: float) -> None:
        self._begin_term(tenure)
        self._standby, self._reading = False, True
        if tenure.epoch:
            self._ask(lambda xid: encode.role_request(Role.MASTER, tenure.epoch, xid), self._take_role)
        # On a connection that is new there is no former master of a moment ago.
        self._succeeds = tenure.epoch > 0 and self._ports is not None
        self._patience = now + PATIENCE if self._succeeds else now
        self._ask(lambda xid: encode.flow_stats_request(DIGEST.number, xid=xid), self._take_digests)

    def _dismiss(self, epoch: int) -> None:
        self._begin_term(None)
        self._standby, self._reading = True, False
        self._told_epoch, self._unheard = epoch, False

        def take(message: Message, now: float) -> None:
            # A newer master than is known here. The switch sends a bit more than a standby needs, and that is all.
            self._unheard = isinstance(message, Error)

        self._ask(lambda xid: encode.role_request(Role.SLAVE, epoch, xid), take)
        # What ports hear of one another all replicas must know, each by itself.
        self._write([encode.hear_packets_as_slave()])

    def _begin_term(self, tenure: Tenure | None) -> None:
        """Nothing is under way, and nothing is known of what the switch holds."""
        self._term += 1
        self._tenure = tenure
        self._granted = False
        self._displaced = None
        self._undecided = None
        self._flight = self._again = None
        self._well()
        self._retry.end()
        self._pending, self._pending_groups, self._old = {}, {}, set()
        self._replace.clear()
        self._correct.clear()
        self._repairs, self._flushes = [], ()
        self._found_groups = None
        self.holdings.forget_refusals()

    def _take_role(self, message: Message, now: float) -> None:
        if isinstance(message, RoleReply) and message.role == Role.MASTER:
            self._granted = True
            return
        if not isinstance(message, Error) or (message.type, message.code) != (_ROLE_REQUEST_FAILED, _STALE):
            raise SyncError(f"the switch doesn't make us master: {message}")
        self._displace(now)
        self._ask(lambda xid: encode.role_request(Role.NOCHANGE, 0, xid), self._take_generation)

    def _take_generation(self, message: Message, now: float) -> None:
        if isinstance(message, RoleReply):
            self._events.outranked(self.node, message.generation_id)

    def _displace(self, now: float) -> None:
        """Another is master, says the switch. It is believed; the lease will tell whether it was right."""
        tenure = self._tenure
        self._begin_term(tenure)
        self._standby, self._reading = True, False
        self._displaced = now

    def _take_ports(self, message: Message, now: float) -> None:
        if not isinstance(message, PortDescReply):
            raise SyncError(f"the switch doesn't tell its ports: {message}")
        self._ports = {port.number: port for port in message.items}
        self._tell_ports()

    def _tell_ports(self) -> None:
        assert self._ports is not None
        self._events.ports(
            self.node, [Port(port.number, port.name, port.mac, port.live) for port in self._ports.values()]
        )

    def _take_digests(self, message: Message, now: float) -> None:
        if not isinstance(message, FlowStatsReply):
            raise SyncError(f"the switch doesn't tell its digests: {message}")
        stored = {stats.flow.key: stats.cookie for stats in message.items if stats.flow is not None}
        self._undecided = {scope: stored.get(digest_flow(scope, 0).key) for scope in Scope}
        self._decide(now)

    def _decide(self, now: float) -> None:
        """Compare what the switch has stored with everything known by now: what was queued meanwhile is in it."""
        assert self._undecided is not None
        cluster, own = self._undecided[Scope.CLUSTER], self._undecided[Scope.NODE]
        version = self._log.version if cluster == self._log.state.digest else None
        if version is None and cluster is not None and self._succeeds:
            # What the cluster's scope was a while ago is known too: then only what has changed since is sent.
            version = self._log.version_of(cluster)
        unknown = {Scope.CLUSTER} if version is None else set()
        if own != self._scope.digest:
            unknown.add(Scope.NODE)
        is_early = now < self._patience or self._events.unsettled(self.node, now)
        if is_early and any(self._undecided[scope] is not None for scope in unknown):
            return
        self._undecided = None
        self._cursor = self._log.version if version is None else version
        self._pending.clear()
        self._pending_groups.clear()
        self._old.clear()
        self._replace |= unknown
        if self._replace:
            self._read_groups()
        else:
            self._start(now)

    def _read_groups(self) -> None:
        self._reading = True
        self._ask(encode.group_desc_request, self._take_groups)

    def _take_groups(self, message: Message, now: float) -> None:
        if not isinstance(message, GroupDescReply):
            raise SyncError(f"the switch doesn't tell its groups: {message}")
        self._found_groups = {group.group_id: group for group in message.items}
        self._start(now)

    def _start(self, now: float) -> None:
        self._reading = False
        # What changed since the digests were compared is in the log after the cursor, or among the pending.
        self.flush(now)

    # Changes ----------------------------------------------------------------------------------------------------

    def queue(self, update: Update) -> None:
        """A change to this node's scope. Call `flush` when all changes of the moment are queued."""
        if self._standby or self._undecided is not None:
            # What the switch holds will be compared with all that is known by then.
            return
        self._old.update(flow.key for flow in update.removed if flow.key not in self._pending)
        for flow in update.removed:
            self._pending[flow.key] = (flow, False)
        for flow in update.added:
            self._pending[flow.key] = (flow, True)
        for group in update.groups_removed:
            self._pending_groups[group.group_id] = (group, False)
        for group in update.groups_added:
            self._pending_groups[group.group_id] = (group, True)
        if len(self._pending) > sum(self._scope.counts.values()) + PENDING_SLACK:
            self._replace.add(Scope.NODE)
            self._pending.clear()

    def _is_behind(self) -> bool:
        return bool(
            self._replace
            or self._correct
            or self._pending
            or self._pending_groups
            or self._repairs
            or self._cursor != self._log.version
        )

    def flush(self, now: float) -> None:
        """Send what has gathered, if nothing is in flight and there is something."""
        if self._undecided is not None:
            self._decide(now)
            return
        if self._tenure is None or now >= self._tenure.until:
            # The lease may be another's by now, and whoever has it reads what the switch holds.
            return
        if self._reading or self._standby or self._flight is not None or self._pause.is_on(now):
            return
        if self._again is not None:
            again, self._again = self._again, None
            self._launch(again)
            return
        if not self._is_behind():
            if self._retry.is_over(now):
                self._try_again(now)
            return
        if self._log.since(self._cursor) is None:
            self._replace.add(Scope.CLUSTER)
        if self._replace and self._found_groups is None:
            # The flows to come are of no use without their groups: which of these it has, only the switch knows.
            self._read_groups()
            return
        groups_first, groups_last = self._group_steps()
        batches = [batch(groups_first, self._xids)] if groups_first else []
        batches += self._cluster_batches()
        scopes = [Scope.CLUSTER]
        if self._cursor == self._log.version:
            # Never a pod before what the cluster says of it: its policies.
            batches += self._node_batches()
            scopes.append(Scope.NODE)
        if self._repairs:
            repaired = (item.key for _, item in self._repairs if isinstance(item, Flow))
            batches.append(batch(self._repairs, self._xids, altered=repaired))
        last = groups_last
        # The batches that all switches share carry the digest of a switch that refused nothing.
        corrected = [scope for scope in scopes if self.refusals[scope] or scope in self._correct]
        last += [digest_step(scope, self.holdings.digest(scope)) for scope in corrected]
        if last:
            batches.append(batch(last, self._xids))
        self._repairs = []
        self._replace.difference_update(scopes)
        self._correct.difference_update(scopes)
        after = [*(message for each in batches for message in each.after), *self._flushes]
        self._flushes = ()
        self._launch(self._prepared(batches, now, is_whole=len(scopes) == len(Scope), after=after))

    def _try_again(self, now: float) -> None:
        """Send what full tables have refused: by now there may be room."""
        flows = self.holdings.no_room_for()[:BUNDLE_LIMIT]
        if not flows:
            self._retry.end()
            return
        self._retry.begin(now)
        for flow in flows:
            self.holdings.try_again(flow)
        steps: list[Step] = [(encode.flow_mod(flow), flow) for flow in flows]
        steps += [digest_step(scope, self.holdings.digest(scope)) for scope in {scope_of(flow) for flow in flows}]
        self._launch(self._prepared([batch(steps, self._xids)], now, is_whole=False, is_retry=True))

    def _prepared(
        self, batches: list[Batch], now: float, *, is_whole: bool, after: Sequence[bytes] = (), is_retry: bool = False
    ) -> _Flight:
        opening, commit = next(self._own_xids), next(self._own_xids)
        missing, self._missing = self._missing, set()
        return _Flight(batches, opening, commit, now, self._cursor, is_whole, is_retry, list(after), missing)

    def _launch(self, flight: _Flight) -> None:
        self._flight, batches = flight, flight.batches
        buffers = [encode.bundle_control(BundleControl.OPEN_REQUEST, BUNDLE_ID, flight.open_xid)]
        buffers += [buffer for each in batches for buffer in each.buffers]
        buffers.append(encode.bundle_control(BundleControl.COMMIT_REQUEST, BUNDLE_ID, flight.commit_xid))
        buffers += on_bridge(flight.after, self._source.bridge_index(self.node))
        self.counters.bundles += 1
        self.counters.flow_mods += sum(each.flow_mods for each in batches)
        self.counters.sent_bytes += sum(map(len, buffers))
        self._write(buffers)

    def _cluster_batches(self) -> list[Batch]:
        refused = self.refusals[Scope.CLUSTER]
        changes = None if Scope.CLUSTER in self._replace else self._log.since(self._cursor)
        if changes is None:
            self._cursor = self._log.version
            self.holdings.forget_outdated(Scope.CLUSTER)
            if not refused:
                return [self._log.whole()]
            flows = self.holdings.flows(Scope.CLUSTER)
            return [batch(replacement(flows, Scope.CLUSTER, self._log.state.digest), self._xids)]
        # A node's flows anew don't wait, so neither does what they build on.
        changes = changes if Scope.NODE in self._replace else _first(changes, BUNDLE_LIMIT)
        self._cursor += len(changes)
        if refused:
            for each in changes:
                for item in each.items:
                    if item is not None and refused.pop(name_of(item), None) is not None:
                        self._missing.add(name_of(item))
        return changes

    def _node_batches(self) -> list[Batch]:
        refused = self.refusals[Scope.NODE]
        pending, groups = self._pending, self._pending_groups
        self._pending, self._pending_groups = {}, {}
        old, self._old = self._old, set()
        if Scope.NODE in self._replace:
            self.holdings.forget_outdated(Scope.NODE)
            flows = self.holdings.flows(Scope.NODE)
            return [batch(replacement(flows, Scope.NODE, self._scope.digest), self._xids)]
        if not pending and not groups:
            return []
        names: list[FlowKey | int] = [*pending, *groups]
        self._missing |= refused.keys() & set(names)
        for name in names:
            refused.pop(name, None)
        update = Update(
            self.node,
            removed=tuple(flow for flow, stays in pending.values() if not stays),
            added=tuple(flow for flow, stays in pending.values() if stays),
            groups_removed=tuple(group for group, stays in groups.values() if not stays),
            groups_added=tuple(group for group, stays in groups.values() if stays),
        )
        return [batch(change(update, Scope.NODE, self._scope.digest), self._xids, altered=old)]

    def _group_steps(self) -> tuple[list[Step], list[Step]]:
        """Groups to make before and to delete after a replacement: the difference, never all of them."""
        found, self._found_groups = self._found_groups, None
        if not self._replace or found is None:
            return [], []
        wanted = self.holdings.groups()
        gone = [group for number, group in found.items() if number not in wanted]
        # Connections to where no group sends any more lead nowhere.
        lost = _endpoints(found.values()) - _endpoints(group for group, _ in wanted.values()) if found else set()
        self._flushes = flushes(sorted(lost, key=lambda each: each.order))
        make: list[Step] = [
            (message, group)
            for number, (group, message) in wanted.items()
            if number not in found or _in_order(found[number]) != group
        ]
        return make, [(encode.group_mod(group, GroupCommand.DELETE), group) for group in gone]

    # Answers ----------------------------------------------------------------------------------------------------

    def receive(self, message: Message, now: float) -> None:
        """A message from the switch. Raises SyncError."""
        waiting = self._waiting.pop(message.xid, None) if not isinstance(message, PortStatus) else None
        if waiting is not None:
            waiting(message, now)
            return
        match message:
            case PortStatus() if self._ports is not None:
                if message.reason == 1:
                    self._ports.pop(message.port.number, None)
                else:
                    self._ports[message.port.number] = message.port
                self._tell_ports()
            case BundleReply(_, _, BundleControl.COMMIT_REPLY) if self._flight is not None:
                self._landed(self._flight, now)
            case Error(_, type_, code) if (type_, code) == (_BAD_REQUEST, _IS_SLAVE):
                if self._granted:
                    self._displace(now)
            case Error() if self._flight is not None and message.xid:
                # Without one it is about what `send` was given: no state is in that.
                self._note_error(self._flight, message, now)
            case RoleStatus(role=Role.SLAVE) if self._granted:
                self._displace(now)
            case PacketIn():
                (self._events.overheard if self._standby else self._events.told)(self.node, message, now)

    def _note_error(self, flight: _Flight, error: Error, now: float) -> None:
        if error.xid in (flight.open_xid, flight.commit_xid):
            self._crashed(flight, error, now)
            return
        for each in flight.batches:
            found, item = each.item(error.xid)
            if found and item is not None:
                flight.errors[error.xid] = (item, error)
                return
        flight.broken = error

    def _landed(self, flight: _Flight, now: float) -> None:
        """The bundle is in. OVS leaves out a message that it can't accept and commits the rest of the bundle."""
        if flight.broken is not None:
            self._crashed(flight, flight.broken, now)
            return
        self._flight = None
        self._well()
        self.counters.latency = now - flight.started
        self.counters.synced_at = now
        self._correct |= self._set_aside(flight, now)
        if flight.is_retry and not self.holdings.no_room_for():
            self._retry.end()
        if flight.is_whole:
            self._events.installed(self.node, flight.started, flight.version, now)
        self.flush(now)

    def _well(self) -> None:
        """Bundles don't fail, or not any more."""
        self._failures, self.setback = 0, ""
        self._pause.end()

    def _crashed(self, flight: _Flight, error: Error, now: float) -> None:
        """The bundle as a whole has failed: nothing of it is in."""
        self._flight = None
        self._failures += 1
        self.counters.failed_bundles += 1
        told = {xid: Refusal(*each) for xid, each in flight.errors.items()}
        for xid, refusal in told.items():
            if refusal.full_table is not None:
                # It is told of the first that has no room; new ones behind it have none either.
                behind = _behind(flight, xid, refusal.full_table)
                flight.errors |= {other: (flow, refusal.error) for other, flow in behind}
        wrong = self._set_aside(flight, now)
        if self._failures > FAILURE_LIMIT:
            self._pause.begin(now)
            text = f"error type {error.type} code {error.code}"
            self.setback = f"{self._failures} bundles failed one after another, the last with {text}"
        if flight.errors and flight.broken is None:
            # The same once more, without what was found at fault.
            batches = [each.without(flight.errors) for each in flight.batches]
            batches.append(batch([digest_step(scope, self.holdings.digest(scope)) for scope in wrong], self._xids))
            opening, commit = next(self._own_xids), next(self._own_xids)
            self._again = msgspec.structs.replace(
                flight, batches=batches, open_xid=opening, commit_xid=commit, errors={}, broken=None
            )
            self.flush(now)
            return
        self._replace |= {Scope.CLUSTER, Scope.NODE}
        self._read_groups()

    def _set_aside(self, flight: _Flight, now: float) -> set[Scope]:
        """What the switch has refused is known as refused. The scopes that it is of."""
        if not flight.errors:
            return set()
        names = {name_of(item) for item, _ in flight.errors.values()}
        # Of several changes of a flow the last one counts, whatever became of those before.
        last = dict(pair for each in flight.batches for pair in each.about(names))
        wrong = [(item, error) for xid, (item, error) in flight.errors.items() if last[name_of(item)] == xid]
        found = [self.holdings.refuse(item, error) for item, error in wrong]
        if not self._retry.begun and any(refusal.full_table is not None for _, refusal in found):
            self._retry.begin(now)
        if found and not flight.is_retry:
            self.counters.refused += len(found)
            self._events.refused(self.node, [refusal for _, refusal in found])
        return {scope for scope, _ in found}

    # Requests ---------------------------------------------------------------------------------------------------

    def request(self, make: Callable[[int], bytes], then: Callable[[Message, float], None]) -> None:
        """Send what is made of a new xid, and hear the answer, which may be an Error."""
        xid = next(self._own_xids)
        self._waiting[xid] = then
        self._write([make(xid)])

    def request_counts(
        self, make: Callable[[int], bytes], take: Callable[[UnreadReply], None], then: Callable[[], None]
    ) -> None:
        """A request whose answer is taken part by part, unread; a DecodeError of `take` ends the connection."""
        xid = next(self._own_xids) | COUNTS_ALONE

        def take_part(message: Message, now: float) -> None:
            if isinstance(message, UnreadReply):
                try:
                    take(message)
                except DecodeError as error:
                    raise SyncError(str(error)) from error
                if message.more:
                    self._waiting[xid] = take_part
                    return
            then()

        self._waiting[xid] = take_part
        self._write([make(xid)])

    def _ask(self, make: Callable[[int], bytes], then: Callable[[Message, float], None]) -> None:
        """A request whose answer is of no use once this controller's part has changed."""
        term = self._term

        def take(message: Message, now: float) -> None:
            if self._term == term:
                then(message, now)

        self.request(make, take)

    def send(self, messages: Iterable[bytes], now: float) -> None:
        """Send messages that nobody answers and no state is in, packets for one; only a master does."""
        if self.is_master and self._tenure is not None and now < self._tenure.until:
            self._write(messages)

    # Audits -----------------------------------------------------------------------------------------------------

    def audit(self, *, full: bool = False) -> None:
        """Compare flow counts of each table; where they differ (or with `full`) every flow is to be looked at.

        Does nothing while the switch is not in sync, and gives up where a change is sent meanwhile, or nothing told.
        """
        if self.phase is not Phase.SYNCED:
            return
        state = self.settled
        self.counters.audits += 1

        def take_counts(message: Message, now: float) -> None:
            if not isinstance(message, TableStatsReply) or self.settled != state:
                return
            if full or not self.holdings.is_counted(message.items):
                self._events.suspected(self.node)

        self.request(encode.table_stats_request, take_counts)

    def repair(self, drift: Drift, now: float) -> None:
        """Have what differs as it should be. Nothing is to be on its way: what is sent later counts on this."""
        if self.phase is not Phase.SYNCED or not drift:
            return
        self._events.drift(self.node, drift)
        self.counters.repaired += len(drift.missing) + len(drift.altered) + len(drift.foreign)
        deletions = [encode.flow_delete_encoded(each.table, each.priority, each.match) for each in drift.foreign]
        self._repairs = [(deletion, None) for deletion in deletions]
        wanted = (*drift.missing, *(flow for flow, _ in drift.altered))
        self._repairs += [(encode.flow_mod(flow), flow) for flow in wanted]
        self.flush(now)


def _behind(flight: _Flight, xid: int, table: int) -> Iterator[tuple[int, Flow]]:
    """The new flows that go into a table behind that of a message."""
    there = False
    for number, flow in chain.from_iterable(each.additions(flight.missing) for each in flight.batches):
        if there and flow.table == table:
            yield number, flow
        there |= number == xid


def _first(changes: list[Batch], limit: int) -> list[Batch]:
    """The first changes, up to the one that reaches the limit of flow-mods."""
    total = 0
    for index, each in enumerate(changes):
        total += each.flow_mods
        if total >= limit:
            return changes[: index + 1]
    return changes


def _in_order(group: Group) -> Group:
    """A group as it is made: in which order a switch says that it has its buckets is all the same."""
    return msgspec.structs.replace(group, buckets=tuple(sorted(group.buckets, key=lambda bucket: bucket.bucket_id)))


def _endpoints(groups: Iterable[Group]) -> set[Forgotten]:
    """Where groups send connections; of those only UDP's don't end by themselves."""
    found: set[Forgotten] = set()
    for group in groups:
        for bucket in group.buckets:
            for action in bucket.program:
                nat = action.nat if isinstance(action, Ct) else None
                if nat is not None and nat.kind == "dst" and nat.address_min is not None:
                    address = (IPv6Address if nat.ipv6 else IPv4Address)(nat.address_min)
                    found.add(Forgotten("UDP", address, nat.port_min or 0))
    return found
