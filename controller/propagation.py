"""How long a change takes from being known to being installed on the last switch that it concerns.

    a change ──begin: which switches it was sent to──> under way ──installed, on each──> done: handed to `finished`

A switch has a change in when a bundle is confirmed that was begun no earlier than the change was sent, that reached the
change's version of the cluster's log, and that left nothing of the node's own behind. Both only grow from change to
change: so each node has a place among the changes, and what it has in is all before that. A bundle costs what it has
brought, however many changes wait for a switch that doesn't answer.

A switch that goes away, or becomes another controller's, is waited for no longer: it is brought up to date when it is
back, which is no part of how long this change took. Pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Generic, TypeVar

import msgspec

#: Changes that may be on their way; with more the oldest aren't waited for any more.
LIMIT = 1000

Item = TypeVar("Item")


class Timed(Generic[Item]):
    """What is made, one after another, and how many seconds its making takes, whatever is done with it between."""

    def __init__(self, make: Callable[[], Iterable[Item]], clock: Callable[[], float]) -> None:
        self.seconds = 0.0
        self._make, self._clock = make, clock

    def __iter__(self) -> Iterator[Item]:
        begun = self._clock()
        for each in self._make():
            self.seconds += self._clock() - begun
            yield each
            begun = self._clock()
        self.seconds += self._clock() - begun


class Installed(msgspec.Struct, frozen=True):
    """When a change came to a node's switch: the bundle's start, and its confirmation."""

    node: str
    begun: float
    landed: float


class Moments(msgspec.Struct, frozen=True):
    """When a change was what. `told`: when its source said so, which is `known` where that isn't known.

    `compiling`: seconds between `known` and `sent` that were spent on making flows; the rest is encoding them.
    """

    told: float
    known: float
    sent: float
    compiling: float = 0.0


class Done(msgspec.Struct):
    """A change that is on all its switches: of objects or ports, and which, as far as that is noted.

    `switches` are empty unless they are asked for.
    """

    what: str
    about: tuple[str, ...]
    moments: Moments
    #: How many switches it concerns, and when the last of them had it.
    size: int
    last: float
    switches: list[Installed]

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.last - self.moments.known


class _Change(msgspec.Struct):
    done: Done
    version: int
    waiting: set[str]
    is_told: bool = False


class Propagation:
    """The changes that are on their way."""

    def __init__(self, finished: Callable[[Done], None]) -> None:
        self._finished = finished
        #: Whether it is noted when each switch had a change.
        self.detailed = False
        #: Changes in their order, some of them finished, and the place of the first.
        self._changes: list[_Change] = []
        self._first = 0
        #: By node: the place of the first change that its switch hasn't in, or that is none of its own.
        self._places: dict[str, int] = {}

    def begin(
        self, what: str, nodes: Iterable[str], version: int, moments: Moments, about: tuple[str, ...] = ()
    ) -> None:
        """A change that was sent. `nodes`: whose switches are yet to have it."""
        waiting = set(nodes)
        if not waiting:
            return
        self._changes.append(_Change(Done(what, about, moments, len(waiting), 0.0, []), version, waiting))
        if len(self._changes) > LIMIT:
            self._drop(len(self._changes) - LIMIT)

    def installed(self, node: str, begun: float, version: int, now: float) -> None:
        """A bundle that was begun then, and left nothing of that version behind, is in a node's switch."""
        changes = self._changes
        place = start = max(self._places.get(node, 0) - self._first, 0)
        finished = False
        while place < len(changes):
            change = changes[place]
            done = change.done
            if begun < done.moments.sent or version < change.version:
                break
            place += 1
            if node in change.waiting:
                change.waiting.remove(node)
                done.last = now
                if self.detailed:
                    done.switches.append(Installed(node, begun, now))
                finished = finished or not change.waiting
        self._places[node] = self._first + place
        if finished:
            self._settle(start, place)

    def keep_only(self, nodes: Collection[str]) -> None:
        """Wait for no others: they are away, or another controller's."""
        for change in self._changes:
            change.waiting.intersection_update(nodes)
        self._settle(0, len(self._changes))

    @property
    def under_way(self) -> int:
        """How many changes aren't on all their switches yet."""
        return sum(1 for change in self._changes if change.waiting)

    def _settle(self, start: int, end: int) -> None:
        """Tell of what is done, of the changes in these places."""
        for change in self._changes[start:end]:
            if not change.waiting and not change.is_told:
                change.is_told = True
                # Where the last that was waited for has gone, nobody can say how long it would have taken.
                if change.done.last:
                    self._finished(change.done)
        finished = next((index for index, each in enumerate(self._changes) if each.waiting), len(self._changes))
        if finished:
            self._drop(finished)

    def _drop(self, count: int) -> None:
        del self._changes[:count]
        self._first += count
        if not self._changes:
            # Whoever is heard of next is where all are.
            self._places.clear()
