"""What flows and groups have counted, read without making values of them: for whoever asks often, and of every switch.

Reading a flow in full takes ten times as long, and most flows of a switch have met no packet since they are there. So
an entry whose count is zero is passed over, and of the others the bytes are kept that say which flow it is; whoever
needs more of them than the cookie reads that then. Raises DecodeError, and nothing else, whatever the bytes are.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from struct import Struct, error

import msgspec

from flows.fields import Match
from flows.openflow import wire
from flows.openflow.decode import DecodeError, oxs, program_of, terms_of
from flows.values import FlowKey, Program

#: Length, the match's length.
_ENTRY = Struct("!H24xH")
#: Duration, idle time, packets and bytes, each with the header that says so: as Open vSwitch writes them, always.
_STATS = Struct("!IIQIQIQIQ")
_HEADERS = (0x0000_0034, 0x8002_0008, 0x8002_0208, 0x8002_0808, 0x8002_0A08)
_PADDED = 56
_PACKETS_AT, _NONE = 4 + 12 + 12, b"\x80\x02\x08\x08" + bytes(8)
_GROUP, _BUCKET, _ACTION = Struct("!H2xIH6x"), Struct("!HHI"), Struct("!HHIH")
_FIXED = 24
#: Where a match begins in what is kept of a flow.
MATCH_AT = 24


class FlowCount(msgspec.Struct, frozen=True):
    """A flow that has met packets. `head`: the bytes from its table to its match, which say which flow it is.

    `rest` are its instructions; `age` is in seconds.
    """

    head: bytes
    rest: bytes
    packets: int
    bytes: int
    age: float

    @property
    def table(self) -> int:
        """The number of its table."""
        return self.head[0]

    @property
    def priority(self) -> int:
        """Its priority."""
        return int.from_bytes(self.head[2:4], "big")

    @property
    def cookie(self) -> int:
        """Its cookie."""
        return int.from_bytes(self.head[12:20], "big")

    def match(self) -> Match:
        """What it matches. Raises UnknownPartError and ValueError."""
        return terms_of(self.head[MATCH_AT:])

    def key(self) -> FlowKey:
        """Its name. Raises UnknownPartError and ValueError."""
        return self.table, self.priority, self.match()

    def program(self) -> Program:
        """What it does. Raises UnknownPartError and ValueError."""
        return program_of(self.rest)


class BucketIds(msgspec.Struct, frozen=True):
    """The buckets of a group, in the order in which the switch has them: the number of each that sends on by itself.

    None in place of a bucket that doesn't: it only names an endpoint.
    """

    group_id: int
    ids: tuple[int | None, ...]


def flow_counts(message: bytes) -> Iterator[FlowCount]:
    """The flows of a part of an answer that have met packets."""
    try:
        yield from _flow_counts(message)
    except (error, ValueError, IndexError) as problem:
        raise DecodeError(f"flow counts of {len(message)} bytes: {problem}") from problem


def _flow_counts(message: bytes) -> Iterator[FlowCount]:
    at, end = wire.MULTIPART_HEADER, len(message)
    read, read_stats = _ENTRY.unpack_from, _STATS.unpack_from
    while at < end:
        length, size = read(message, at)
        following, stats = at + length, at + _FIXED + (size + 7 & ~7)
        if not stats < following <= end or size < 4:
            raise ValueError(f"flow description of {length} bytes at byte {at}")
        if message[stats + _PACKETS_AT : stats + _PACKETS_AT + 12] != _NONE:
            if following - stats >= _PADDED:
                first, second, age, third, _, fourth, packets, fifth, octets = read_stats(message, stats)
                rest, usual = stats + _PADDED, (first, second, third, fourth, fifth) == _HEADERS
            else:
                usual = False
            if not usual:
                found, rest = oxs(message, stats)
                age, packets, octets = found.get(0, 0), found.get(4, 0), found.get(5, 0)
            seconds = (age >> 32) + (age & 0xFFFF_FFFF) / 1e9
            if packets:
                head = message[at + 4 : at + _FIXED + size]
                yield FlowCount(head, message[rest:following], packets, octets, seconds)
        at = following


def bucket_ids(message: bytes, wanted: Container[int]) -> Iterator[BucketIds]:
    """The groups of these ids, of a part of an answer to what groups there are."""
    try:
        at, end = wire.MULTIPART_HEADER, len(message)
        while at < end:
            length, group_id, size = _GROUP.unpack_from(message, at)
            following = at + length
            if length < 16 + size or following > end:
                raise ValueError(f"group of {length} bytes at byte {at}")
            if group_id in wanted:
                yield BucketIds(group_id, tuple(_buckets(message, at + 16, at + 16 + size)))
            at = following
    except (error, ValueError, IndexError) as problem:
        raise DecodeError(f"groups of {len(message)} bytes: {problem}") from problem


def _buckets(message: bytes, at: int, end: int) -> Iterator[int | None]:
    while at < end:
        length, _, number = _BUCKET.unpack_from(message, at)
        if length < 16:
            raise ValueError(f"bucket of {length} bytes at byte {at}")
        kind, _, vendor, subtype = _ACTION.unpack_from(message, at + 8)
        sends = (kind, vendor, subtype) == (wire.ACTION_EXPERIMENTER, wire.NICIRA, wire.NX_CT)
        yield number if sends else None
        at += length
