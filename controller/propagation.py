"""How long a change takes from being known to being installed on the last switch that it concerns.

    a change ──begin: which switches it was sent to──> waiting ──installed, on each──> done: a duration for `finished`

A switch has a change in when a bundle is confirmed that was begun no earlier than the change was sent, that reached the
change's version of the cluster's log, and that left nothing of the node's own behind. A switch that goes away, or
becomes another controller's, is waited for no longer: it is brought up to date when it is back, which is no part of how
long this change took. Pure: time is an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable

import msgspec

#: Changes that may be on their way; with more the oldest aren't waited for any more.
LIMIT = 1000


class _Change(msgspec.Struct):
    what: str
    known: float
    sent: float
    version: int
    waiting: set[str]
    #: How many switches it concerns.
    size: int
    last: float = 0.0


class Propagation:
    """The changes that are on their way."""

    def __init__(self, finished: Callable[[str, float, int], None]) -> None:
        """`finished` hears of each change what it was, how many seconds it took, and on how many switches it is."""
        self._finished = finished
        self._changes: deque[_Change] = deque(maxlen=LIMIT)

    def begin(self, what: str, nodes: Iterable[str], version: int, known: float, sent: float) -> None:
        """A change that was known at one time and sent at another. `nodes`: whose switches are yet to have it."""
        waiting = set(nodes)
        if waiting:
            self._changes.append(_Change(what, known, sent, version, waiting, len(waiting)))

    def installed(self, node: str, begun: float, version: int, now: float) -> None:
        """A bundle that was begun then, and left nothing of that version behind, is in a node's switch."""
        for change in self._changes:
            if begun >= change.sent and version >= change.version:
                change.waiting.discard(node)
                change.last = now
        self._settle()

    def keep_only(self, nodes: Collection[str]) -> None:
        """Wait for no others: they are away, or another controller's."""
        for change in self._changes:
            change.waiting.intersection_update(nodes)
        self._settle()

    @property
    def under_way(self) -> int:
        """How many changes aren't on all their switches yet."""
        return len(self._changes)

    def _settle(self) -> None:
        done = [change for change in self._changes if not change.waiting]
        if not done:
            return
        self._changes = deque((change for change in self._changes if change.waiting), maxlen=LIMIT)
        for change in done:
            # Where the last that was waited for has gone, nobody can say how long it would have taken.
            if change.last:
                self._finished(change.what, change.last - change.known, change.size)
