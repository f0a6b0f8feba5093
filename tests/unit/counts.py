"""Flows that have met packets, as a switch's answer has them."""

from __future__ import annotations

from collections.abc import Iterable
from struct import pack

from flows.openflow import encode, wire
from flows.openflow.counted import FlowCount, flow_counts
from flows.values import Flow


def entry(flow: Flow, packets: int, octets: int, age: float = 1000.0) -> bytes:
    """One flow of an answer, as Open vSwitch writes it."""
    mod = encode.flow_mod(flow)
    length = int.from_bytes(mod[50:52], "big")
    padded = length + -length % 8
    nanoseconds = round(age % 1 * 1e9)
    numbers = zip((0, 1, 4, 5), (int(age) << 32 | nanoseconds, 0, packets, octets), strict=True)
    stats = b"".join(pack("!HBBQ", 0x8002, number << 1, 8, value) for number, value in numbers)
    body = mod[48 : 48 + padded] + pack("!HH", 0, 52) + stats + bytes(4) + mod[48 + padded :]
    head = pack("!H2xBxHHHHHQ", 24 + len(body), flow.table, flow.priority, 0, 0, 0, 0, flow.cookie)
    return head + body


def answer(entries: Iterable[bytes], *, more: bool = False, xid: int = wire.COUNTS_ALONE) -> bytes:
    """A part of an answer to somebody who wants counts alone."""
    body = b"".join(entries)
    return pack("!BBHIHH4x", 6, wire.Type.MULTIPART_REPLY, 16 + len(body), xid, wire.Multipart.FLOW_DESC, more) + body


def count(flow: Flow, packets: int, octets: int = 0, age: float = 1000.0) -> FlowCount:
    """A flow that has met packets."""
    (found,) = flow_counts(answer([entry(flow, packets, octets, age)]))
    return found
