"""How much more the flows of one switch have counted since they were last looked at.

    answer ──flows that have met packets──> Look: what each has more than before ──end──> what is known for the next

A flow is known by a hash of the bytes that say which it is, and 24 bytes are kept of each that has met a packet: there
are switches by the thousand. A flow that counts less than before, or is younger than the last look, began anew. What a
flow had counted before this controller was there is nobody's growth. Pure: time is an argument.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

import msgspec

from flows.openflow.counted import FlowCount


class Growth(msgspec.Struct, frozen=True):
    """What a flow has met since the last look."""

    flow: FlowCount
    packets: int
    bytes: int


class FlowTally:
    """What the flows of one switch had counted when it was last looked at."""

    def __init__(self) -> None:
        #: When the last answer was there; None where there was none.
        self.at: float | None = None
        self.names, self.packets, self.bytes = array("q"), array("Q"), array("Q")


class Look:
    """One look at a switch, asked for at a time; `began` is when this controller did."""

    def __init__(self, tally: FlowTally, asked: float, began: float) -> None:
        self._tally = tally
        self._is_first = tally.at is None
        #: A flow that is younger than this has come since the last look: then it was not there, or another.
        self._young = asked - (tally.at if tally.at is not None else began)
        self._before = dict(zip(tally.names, zip(tally.packets, tally.bytes, strict=True), strict=True))
        self._names, self._packets, self._bytes = array("q"), array("Q"), array("Q")

    def grown(self, flows: Iterable[FlowCount]) -> Iterator[Growth]:
        """The flows that have met packets since the last look."""
        for each in flows:
            name = hash(each.head)
            self._names.append(name)
            self._packets.append(each.packets)
            self._bytes.append(each.bytes)
            before = self._before.get(name)
            if each.age < self._young:
                before = None
            elif before is None and self._is_first:
                continue
            packets, octets = before or (0, 0)
            if each.packets < packets or each.bytes < octets:
                packets = octets = 0
            if each.packets > packets:
                yield Growth(each, each.packets - packets, each.bytes - octets)

    def end(self, now: float) -> None:
        """All is told: the next look is compared with this one."""
        tally = self._tally
        tally.names, tally.packets, tally.bytes = self._names, self._packets, self._bytes
        tally.at = now
