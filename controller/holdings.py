"""What one switch should hold by now: both scopes, without what it has refused, and the flows that store their digests.

Pure: `controller.sync` tells it what the switch refuses, brings the switch there, and asks it what differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from controller.audit import Drift
from controller.batch import name_of
from controller.scopes import ClusterLog, ScopeState, Source
from flows.cookies import Scope, is_tap
from flows.openflow import encode
from flows.openflow.messages import Error, FlowStats, TableStats
from flows.openflow.wire import ERROR_TYPES
from flows.pipeline import DIGEST, LEARNT, TABLE_NAMES
from flows.tables.digest import digest_flow
from flows.update import CLUSTER
from flows.values import Flow, FlowKey, Group

#: Flows that are looked at in one step of a comparison: it is to take some milliseconds.
STRIDE = 200
_FLOW_MOD_FAILED, _TABLE_FULL = 5, 1


class Refusal(msgspec.Struct, frozen=True):
    """A flow or group that the switch didn't take, and its error."""

    item: Flow | Group
    error: Error

    @property
    def full_table(self) -> int | None:
        """The table that has no room for it, where that is why."""
        is_full = (self.error.type, self.error.code) == (_FLOW_MOD_FAILED, _TABLE_FULL)
        return self.item.table if is_full and isinstance(self.item, Flow) else None


def error_text(refusal: Refusal) -> str:
    """A switch's error in a few words."""
    kind = ERROR_TYPES.get(refusal.error.type, f"type {refusal.error.type}")
    table = refusal.full_table
    full = f" (table {TABLE_NAMES.get(table, str(table))} is full)" if table is not None else ""
    return f"error {kind} code {refusal.error.code}{full}"


class Comparison:
    """Flows found on a switch against what it should hold at the moment when this is made.

    It takes a while to make all of them, so it is gone through in steps, between which the state may change. Flows that
    have changed since are neither told as missing, nor as altered or foreign: of the others each is what it was.
    """

    def __init__(self, holdings: Holdings, found: Sequence[FlowStats]) -> None:
        self._holdings, self._found = holdings, found
        #: Of which state it is.
        self._version, self._digest = holdings.version, holdings.digest(Scope.NODE)
        self._refused = frozenset(holdings.refusals[Scope.CLUSTER])
        # A node's own flows are few, and no log tells what of them has changed.
        self._own = {flow.key: flow for flow in holdings.flows(Scope.NODE)}
        stored = (digest_flow(scope, holdings.digest(scope)) for scope in Scope)
        self._own |= {flow.key: flow for flow in stored}
        self._wanted: dict[FlowKey, Flow] = {}
        self._altered: list[tuple[Flow, FlowStats]] = []
        self._foreign: list[FlowStats] = []

    def steps(self) -> Iterator[None]:
        """Go through all flows; to be exhausted before `drift` is asked for."""
        made = 0
        for portion in self._holdings.portions(Scope.CLUSTER):
            for flow in portion:
                made += 1
                if flow.key not in self._refused:
                    self._wanted[flow.key] = flow
            if made >= STRIDE:
                made = 0
                yield
        self._wanted |= self._own
        for start in range(0, len(self._found), STRIDE):
            yield
            for stats in self._found[start : start + STRIDE]:
                self._look_at(stats)

    def _look_at(self, stats: FlowStats) -> None:
        # Flows that the switch has learnt and taps are nobody's business.
        if stats.table in LEARNT or _is_of_taps(stats):
            return
        flow = self._wanted.pop(stats.flow.key, None) if stats.flow is not None else None
        if flow is None:
            self._foreign.append(stats)
        elif flow != stats.flow:
            self._altered.append((flow, stats))

    @property
    def is_of_node(self) -> bool:
        """Whether the node's own flows are still what they were."""
        return self._holdings.digest(Scope.NODE) == self._digest

    def drift(self) -> Drift | None:
        """What differs. None where so much has changed since that it isn't known any more what."""
        changed = self._holdings.changed_since(self._version)
        if changed is None:
            return None
        return Drift(
            tuple(flow for key, flow in self._wanted.items() if key not in changed),
            tuple((flow, stats) for flow, stats in self._altered if flow.key not in changed),
            tuple(stats for stats in self._foreign if stats.flow is None or stats.flow.key not in changed),
        )


class Holdings:
    """What the switch of one node should hold, and what of that it has refused."""

    def __init__(self, node: str, source: Source, log: ClusterLog, own: ScopeState) -> None:
        self.refusals: dict[Scope, dict[FlowKey | int, Refusal]] = {Scope.CLUSTER: {}, Scope.NODE: {}}
        self._node = node
        self._source = source
        self._log = log
        self._own = own

    def refuse(self, item: Flow | Group, error: Error) -> tuple[Scope, Refusal]:
        """The switch doesn't take this: it is set aside, in the scope that it is of."""
        scope = _scope(item, self._source)
        refusal = self.refusals[scope][name_of(item)] = Refusal(item, error)
        return scope, refusal

    def forget_refusals(self) -> None:
        """Everything may be tried again."""
        for refusals in self.refusals.values():
            refusals.clear()

    def forget_outdated(self, scope: Scope) -> None:
        """All of a scope is sent as it is now: what isn't as it was when it was refused may be taken."""
        refused = self.refusals[scope]
        if not refused:
            return
        key = self._key(scope)
        current: dict[FlowKey | int, Flow | Group] = {}
        current.update((flow.key, flow) for flow in self._source.flows(key) if flow.key in refused)
        current.update((group.group_id, group) for group in self._source.groups(key))
        for name in [name for name, refusal in refused.items() if current.get(name) != refusal.item]:
            del refused[name]

    def no_room_for(self) -> list[Flow]:
        """The flows that were refused because their tables are full."""
        found = (refusal for refused in self.refusals.values() for refusal in refused.values())
        return [each.item for each in found if each.full_table is not None and isinstance(each.item, Flow)]

    def try_again(self, flow: Flow) -> None:
        """A flow is no longer taken for one that the switch refuses."""
        self.refusals[scope_of(flow)].pop(flow.key, None)

    def flows(self, scope: Scope) -> Iterator[Flow]:
        """A scope's flows, but for those that store digests."""
        refused = self.refusals[scope]
        return (flow for flow in self._source.flows(self._key(scope)) if flow.key not in refused)

    def portions(self, scope: Scope) -> Iterable[Iterable[Flow]]:
        """All of a scope's flows, some at a time, also those that the switch has refused."""
        return self._source.portions(self._key(scope))

    @property
    def version(self) -> int:
        """How often the cluster's scope has changed."""
        return self._log.version

    def changed_since(self, version: int) -> set[FlowKey] | None:
        """The flows of the cluster's scope that have changed since; None where that isn't known any more."""
        batches = self._log.since(version)
        if batches is None:
            return None
        return {item.key for each in batches for item in each.items if isinstance(item, Flow)}

    def groups(self) -> dict[int, tuple[Group, bytes]]:
        """All groups, each with the message that makes it."""
        refused = self.refusals[Scope.CLUSTER].keys() | self.refusals[Scope.NODE].keys()
        wanted = {number: made for number, made in self._log.groups().items() if number not in refused}
        for group in self._source.groups(self._node):
            if group.group_id not in refused:
                wanted[group.group_id] = (group, encode.group_mod(group))
        return wanted

    def digest(self, scope: Scope) -> int:
        """The digest that this switch stores: of what it hasn't refused."""
        return self._state(scope).less(refusal.item for refusal in self.refusals[scope].values())

    def is_counted(self, found: Iterable[TableStats]) -> bool:
        """Whether every table has as many flows as it should."""
        told = {each.table: each.active for each in found if each.active and each.table not in LEARNT}
        return told == self._counts()

    def comparison(self, found: Sequence[FlowStats]) -> Comparison:
        """The flows found against what is to be there now."""
        return Comparison(self, found)

    def _counts(self) -> dict[int, int]:
        counts = {DIGEST.number: len(Scope)}
        for state in (self._log.state, self._own):
            for table, number in state.counts.items():
                counts[table] = counts.get(table, 0) + number
        for refusals in self.refusals.values():
            for refusal in refusals.values():
                if isinstance(refusal.item, Flow):
                    counts[refusal.item.table] -= 1
        return {table: number for table, number in counts.items() if number and table not in LEARNT}

    def _state(self, scope: Scope) -> ScopeState:
        return self._log.state if scope is Scope.CLUSTER else self._own

    def _key(self, scope: Scope) -> str:
        return CLUSTER if scope is Scope.CLUSTER else self._node


def scope_of(flow: Flow) -> Scope:
    """The scope that a flow is of."""
    return Scope(flow.cookie >> 55 & 1)


def _scope(item: Flow | Group, source: Source) -> Scope:
    if isinstance(item, Flow):
        return scope_of(item)
    in_cluster = any(group.group_id == item.group_id for group in source.groups(CLUSTER))
    return Scope.CLUSTER if in_cluster else Scope.NODE


def _is_of_taps(found: FlowStats) -> bool:
    # A digest may be any number, so one in 256 begins as the cookies of taps do.
    return is_tap(found.cookie) and found.table != DIGEST.number
