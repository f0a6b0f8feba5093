"""What has happened of late, in lines for people: a ring of events, as Kubernetes' are, but kept nowhere else.

    Controller ──tell──> EventLog ──rows──> GET /v1/events
                            └──told(number)──> whoever watches

The same again within `WITHIN` seconds is counted, not added. Bounded twice: so many events in all, and so many of one
reason and node, so that a single switch that is in trouble, or means trouble, can't push out what there is of others.
What those who aren't let in do is not told here (`controller.refusals`). Pure: time is an argument, in seconds since
1970.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

NORMAL, WARNING = "Normal", "Warning"
#: Events that are kept: in all, and of one reason and node.
KEPT, KEPT_OF_ONE = 1_000, 100
#: Seconds for which the same is counted up.
WITHIN = 300.0
#: Characters of a message, and of what an object is called.
LONGEST = 500


class _Event(msgspec.Struct):
    number: int
    type: str
    reason: str
    object: str
    node: str
    message: str
    first: float
    last: float
    count: int = 1

    @property
    def name(self) -> tuple[str, str, str, str]:
        """What makes it the same as another."""
        return self.object, self.reason, self.message, self.node


class EventLog:
    """Every event of late. `told` hears the number of each that is new or gone.

    One that is counted up has another number from then on: in the order of their numbers, the newest is always last.
    """

    def __init__(self, told: Callable[[int], None] = lambda number: None) -> None:
        self._told = told
        self._number = 0
        self._events: dict[int, _Event] = {}
        self._numbers: dict[tuple[str, str, str, str], int] = {}
        #: By reason and node.
        self._of_one: dict[tuple[str, str], dict[int, None]] = {}

    def tell(self, now: float, type: str, reason: str, *, object: str = "", node: str = "", message: str = "") -> None:
        """Something has happened: `reason` is one word in CamelCase, `object` is `Pod default/web-0`, say."""
        self._number += 1
        made = _Event(self._number, type, reason, _cut(object), node, _cut(message), now, now)
        known = self._events.get(self._numbers.get(made.name, 0))
        if known is not None and now - known.last <= WITHIN:
            made.first, made.count = known.first, known.count + 1
            self._forget(known)
        self._events[made.number] = made
        self._numbers[made.name] = made.number
        alike = self._of_one.setdefault((reason, node), {})
        alike[made.number] = None
        if len(alike) > KEPT_OF_ONE:
            self._forget(self._events[next(iter(alike))])
        elif len(self._events) > KEPT:
            self._forget(next(iter(self._events.values())))
        self._told(made.number)

    def _forget(self, event: _Event) -> None:
        self._drop(event)
        self._told(event.number)

    def _drop(self, event: _Event) -> None:
        del self._events[event.number]
        if self._numbers.get(event.name) == event.number:
            del self._numbers[event.name]
        alike = self._of_one[event.reason, event.node]
        del alike[event.number]
        if not alike:
            del self._of_one[event.reason, event.node]

    def numbers(self) -> list[int]:
        """Every event's number, the newest last."""
        return list(self._events)

    def rows(self, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The events of these numbers, without those that aren't there any more."""
        for number in numbers:
            found = self._events.get(number)
            if found is not None:
                yield {
                    "number": number,
                    "time": _time(found.last),
                    "firstTime": _time(found.first),
                    "type": found.type,
                    "reason": found.reason,
                    "object": found.object,
                    "node": found.node,
                    "message": found.message,
                    "count": found.count,
                }


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
