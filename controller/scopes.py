"""What each scope should hold, in numbers, and the log of changes to the cluster's scope.

The flows themselves are not kept: the compiler makes them again when a switch needs all of them. What is kept is a
scope's digest, its flow counts, and, for the cluster, the last changes as encoded batches. A switch holds a cursor into
that log and nothing else, so a switch that doesn't read costs no memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Protocol

from controller.batch import Batch, Xids, batch, digest_step, encoded, flushes, replacement
from flows.cookies import Scope
from flows.openflow.digest import digest, flow_hash, group_hash
from flows.openflow.encode import group_mod
from flows.update import CLUSTER, Update
from flows.values import Flow, Group

#: Bytes of encoded changes that are kept for switches that are behind; one further behind gets the whole scope.
LOG_LIMIT = 16 << 20


class Source(Protocol):
    """What can make all of a scope again: the compiler. `CLUSTER` or a node's name is the scope's key."""

    def flows(self, scope: str) -> Iterable[Flow]: ...

    def portions(self, scope: str) -> Iterable[Iterable[Flow]]:
        """The same, some at a time: between two the state may change, see `flows.compiler.Compiler.portions`."""

    def groups(self, scope: str) -> Iterable[Group]: ...

    def bridge_index(self, node: str) -> int: ...


class OwnOnly:
    """A source for switches in transit, which have nothing of the cluster's scope."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def flows(self, scope: str) -> Iterable[Flow]:
        """A node's own flows."""
        return () if scope == CLUSTER else self._source.flows(scope)

    def portions(self, scope: str) -> Iterable[Iterable[Flow]]:
        """A node's own flows, some at a time."""
        return () if scope == CLUSTER else self._source.portions(scope)

    def groups(self, scope: str) -> Iterable[Group]:
        """A node's own groups."""
        return () if scope == CLUSTER else self._source.groups(scope)

    def bridge_index(self, node: str) -> int:
        """A node's number among those whose bridges share its datapath."""
        return self._source.bridge_index(node)


class ScopeState:
    """A scope in numbers: its digest (64 bits) and how many flows each table has of it."""

    def __init__(self, flows: Iterable[Flow] = (), groups: Iterable[Group] = ()) -> None:
        self.counts: dict[int, int] = {}
        self.digest = digest((), groups)
        self.take(Update("", added=tuple(flows)))

    def take(self, update: Update, difference: int | None = None) -> None:
        """Follow a change. `difference` is what it adds to the digest, where that is known already."""
        if difference is None:
            difference = encoded(update).difference
        self.digest = (self.digest + difference) % (1 << 64)
        for flow in update.removed:
            self.counts[flow.table] -= 1
        for flow in update.added:
            self.counts[flow.table] = self.counts.get(flow.table, 0) + 1

    def less(self, flows: Iterable[Flow | Group]) -> int:
        """The digest without these, which a switch has refused."""
        hashes = (flow_hash(each) if isinstance(each, Flow) else group_hash(each) for each in flows)
        return (self.digest - sum(hashes)) % (1 << 64)


class ClusterLog:
    """The cluster's scope: its state, and the changes that led to it.

    `version` counts changes. `since(cursor)` is what takes a switch from `cursor` to now.
    """

    def __init__(self, source: Source, xids: Xids, limit: int = LOG_LIMIT) -> None:
        self._source = source
        self._xids = xids
        self._limit = limit
        self._entries: deque[Batch] = deque()
        #: The digest before each entry: what a switch that lacks the entry and all after it has stored.
        self._digests: deque[int] = deque()
        self._size = 0
        self._whole: Batch | None = None
        self._groups: dict[int, tuple[Group, bytes]] | None = None
        self.state = ScopeState(source.flows(CLUSTER), source.groups(CLUSTER))
        self.version = 0

    def take(self, update: Update) -> None:
        """Add a change; the oldest go where there are more bytes than the limit."""
        messages = encoded(update)
        self._digests.append(self.state.digest)
        self.state.take(update, messages.difference)
        steps = [*messages.steps, digest_step(Scope.CLUSTER, self.state.digest)]
        altered = {flow.key for flow in update.removed}.intersection(flow.key for flow in update.added)
        entry = batch(steps, self._xids, flushes(update.forgotten), altered)
        self._entries.append(entry)
        self._size += entry.size
        self.version += 1
        self._whole = self._groups = None
        while self._size > self._limit:
            self._size -= self._entries.popleft().size
            self._digests.popleft()

    def version_of(self, digest: int) -> int | None:
        """The latest version that has this digest: the present one, or one from which the changes are still kept."""
        if digest == self.state.digest:
            return self.version
        for behind, each in enumerate(reversed(self._digests), 1):
            if each == digest:
                return self.version - behind
        return None

    def since(self, cursor: int) -> list[Batch] | None:
        """The changes after a version, in order; None where they are no longer kept."""
        behind = self.version - cursor
        if behind > len(self._entries):
            return None
        return [self._entries[index] for index in range(len(self._entries) - behind, len(self._entries))]

    def whole(self) -> Batch:
        """All of the scope as it is now, encoded at the first call for a version."""
        if self._whole is None:
            steps = replacement(self._source.flows(CLUSTER), Scope.CLUSTER, self.state.digest)
            self._whole = batch(steps, self._xids)
        return self._whole

    def groups(self) -> Mapping[int, tuple[Group, bytes]]:
        """The groups of the scope as it is now, each with the message that makes it: encoded once, like the whole."""
        if self._groups is None:
            self._groups = {each.group_id: (each, group_mod(each)) for each in self._source.groups(CLUSTER)}
        return self._groups
