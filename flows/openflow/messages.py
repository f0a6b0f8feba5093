"""What switches say, as frozen values. `flows.openflow.decode` makes them."""

from __future__ import annotations

import msgspec

from flows.fields import Match
from flows.values import Flow, Group


class Hello(msgspec.Struct, frozen=True):
    """`versions`: the wire versions the peer speaks."""

    xid: int
    versions: frozenset[int]


class Error(msgspec.Struct, frozen=True):
    """A refusal. `xid` is that of the refused message; `data` its first bytes."""

    xid: int
    type: int
    code: int
    data: bytes


class EchoRequest(msgspec.Struct, frozen=True):
    xid: int
    data: bytes


class EchoReply(msgspec.Struct, frozen=True):
    xid: int
    data: bytes


class FeaturesReply(msgspec.Struct, frozen=True):
    xid: int
    datapath_id: int
    n_tables: int
    capabilities: int


class PortDesc(msgspec.Struct, frozen=True):
    """A port. `mac` has 48 bits; `live` is false while its link or the port is down.

    `speed` is in kbit/s, and 0 where the switch doesn't know it.
    """

    number: int
    name: str
    mac: int
    live: bool
    speed: int = 0


class PortStatus(msgspec.Struct, frozen=True):
    """`reason`: 0 added, 1 deleted, 2 modified."""

    xid: int
    reason: int
    port: PortDesc


class FlowStats(msgspec.Struct, frozen=True):
    """A flow as the switch has it. `flow` is None, and `why` says why, where it holds what this codec doesn't know."""

    table: int
    priority: int
    cookie: int
    flow: Flow | None
    packet_count: int
    byte_count: int
    #: Seconds since the flow was made.
    duration: float
    #: The encoded match: with table and priority what a strict deletion names.
    match: bytes
    why: str = ""


class TableStats(msgspec.Struct, frozen=True):
    table: int
    active: int


class PortStats(msgspec.Struct, frozen=True):
    """What a port has carried since it was made, `duration` seconds ago. What a switch doesn't count is 2^64 - 1."""

    number: int
    duration: float
    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_dropped: int
    tx_dropped: int
    rx_errors: int
    tx_errors: int


class PortDescReply(msgspec.Struct, frozen=True):
    xid: int
    more: bool
    items: tuple[PortDesc, ...]


class FlowStatsReply(msgspec.Struct, frozen=True):
    xid: int
    more: bool
    items: tuple[FlowStats, ...]


class UnreadReply(msgspec.Struct, frozen=True):
    """One part of an answer that is read by who asked, who wants to know what was counted and no more."""

    xid: int
    more: bool
    message: bytes


class DescReply(msgspec.Struct, frozen=True):
    """What a switch is; `datapath` is what people call it."""

    xid: int
    datapath: str


class TableStatsReply(msgspec.Struct, frozen=True):
    xid: int
    more: bool
    items: tuple[TableStats, ...]


class PortStatsReply(msgspec.Struct, frozen=True):
    xid: int
    more: bool
    items: tuple[PortStats, ...]


class GroupStats(msgspec.Struct, frozen=True):
    """What a group has carried: the packets of each of its buckets, in the order that it has them."""

    group_id: int
    bucket_packets: tuple[int, ...]


class GroupStatsReply(msgspec.Struct, frozen=True):
    """One part of an answer to a request for group statistics."""

    xid: int
    more: bool
    items: tuple[GroupStats, ...]


class GroupDescReply(msgspec.Struct, frozen=True):
    """`unknown` counts groups that this codec can't read in full."""

    xid: int
    more: bool
    items: tuple[Group, ...]
    unknown: int = 0


class AggregateReply(msgspec.Struct, frozen=True):
    xid: int
    packet_count: int
    byte_count: int
    flow_count: int


class RoleReply(msgspec.Struct, frozen=True):
    xid: int
    role: int
    generation_id: int


class RoleStatus(msgspec.Struct, frozen=True):
    """The switch has changed this controller's role on its own account: another one is master now."""

    xid: int
    role: int
    generation_id: int


class PacketIn(msgspec.Struct, frozen=True):
    """A packet that a flow has sent here: the flow's table and cookie, what is known of the packet, its first bytes.

    `length`: of the whole packet.
    """

    xid: int
    table: int
    cookie: int
    match: Match
    data: bytes
    length: int = 0


class BarrierReply(msgspec.Struct, frozen=True):
    xid: int


class BundleReply(msgspec.Struct, frozen=True):
    """`step` is a `wire.BundleControl`."""

    xid: int
    bundle_id: int
    step: int


class Unknown(msgspec.Struct, frozen=True):
    """A message of a kind that nobody here asks for."""

    xid: int
    type: int


MultipartReply = PortDescReply | FlowStatsReply | TableStatsReply | PortStatsReply | GroupDescReply | GroupStatsReply
Message = (
    Hello
    | Error
    | EchoRequest
    | EchoReply
    | FeaturesReply
    | PortStatus
    | MultipartReply
    | AggregateReply
    | DescReply
    | UnreadReply
    | RoleReply
    | RoleStatus
    | PacketIn
    | BarrierReply
    | BundleReply
    | Unknown
)
