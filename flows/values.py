"""Flows, groups and their actions as frozen, hashable values: what the compiler makes and the codec encodes.

A flow's identity is (table, priority, match); its program is what the switch does with a packet that it catches.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

import msgspec

from flows.fields import Field, Match, Term
from flows.registers import Bits

#: Reserved port numbers (OpenFlow 1.5.1, 7.2.1).
PORT_IN_PORT = 0xFFFF_FFF8
PORT_CONTROLLER = 0xFFFF_FFFD
PORT_LOCAL = 0xFFFF_FFFE
PORT_ANY = 0xFFFF_FFFF
GROUP_ANY = 0xFFFF_FFFF


class Output(msgspec.Struct, frozen=True):
    """Send the packet to a port. `max_len` counts only for the controller's port."""

    port: int
    max_len: int = 0


class OutputBits(msgspec.Struct, frozen=True):
    """Send the packet to the port whose number is in these bits."""

    bits: Bits


class SetField(msgspec.Struct, frozen=True):
    """Set a field, or those bits of it that `mask` names."""

    field: Field
    value: int
    mask: int | None = None


class Move(msgspec.Struct, frozen=True):
    """Copy bits; both have the same width."""

    source: Bits
    target: Bits


class DecTtl(msgspec.Struct, frozen=True):
    """Take one off the TTL or hop limit; a packet that has none left is dropped there. For IP packets only."""


class ToGroup(msgspec.Struct, frozen=True):
    """Process the packet by a group."""

    group_id: int


class Nat(msgspec.Struct, frozen=True):
    """NAT inside `Ct`. Without addresses it undoes or repeats what the connection already has."""

    #: "src", "dst" or "" (existing mappings only).
    kind: str = ""
    address_min: int | None = None
    address_max: int | None = None
    ipv6: bool = False
    port_min: int | None = None
    port_max: int | None = None


class Ct(msgspec.Struct, frozen=True):
    """Send the packet through conntrack; with `table`, it comes back there with ct_state set (a recirculation).

    `zone` is a number, or the bits of a register that hold it.
    """

    zone: int | Bits
    commit: bool = False
    force: bool = False
    table: int | None = None
    nat: Nat | None = None
    #: Actions on ct_mark and ct_label of a committed connection.
    execute: tuple[SetField | Move, ...] = ()


class Goto(msgspec.Struct, frozen=True):
    """Go on in a later table. Always the last of a program."""

    table: int


class Resubmit(msgspec.Struct, frozen=True):
    """Look the packet up in another table as well, carry out what is found there, and come back."""

    table: int


class Learn(msgspec.Struct, frozen=True):
    """Make a flow of the packet at hand, or set the timeout of the one that is there anew.

    The flow matches `terms` and, in the fields `copied`, what the packet has; its program are the `loads`, of whole
    fields. It goes when no packet has met it for `idle_timeout` seconds; with `limit` of them, no more are made.
    """

    table: int
    priority: int
    cookie: int
    idle_timeout: int
    limit: int
    terms: Match
    copied: tuple[Field, ...]
    loads: tuple[Term, ...]


class Conjunction(msgspec.Struct, frozen=True):
    """The flow is one alternative in dimension `clause` (from 1) of `clauses`; who meets one of each has `id`.

    A flow with such actions has no others. The packet then meets the flow that matches `conj_id` (ovs-actions(7)).
    """

    id: int
    clause: int
    clauses: int


class Tell(msgspec.Struct, frozen=True):
    """Send the first `max_len` bytes to the controller, as many packets as a meter lets through; the packet goes on."""

    meter: int
    max_len: int


class Note(msgspec.Struct, frozen=True):
    """Does nothing: bytes for whoever reads the flow. Zeros may follow when it is read back."""

    data: bytes


Action = (
    Output | OutputBits | SetField | Move | DecTtl | ToGroup | Ct | Resubmit | Learn | Conjunction | Tell | Note | Goto
)
#: Actions in order. An empty program drops the packet.
Program = tuple[Action, ...]

DROP: Program = ()


def load(bits: Bits, value: int) -> SetField:
    """Set register bits to a value."""
    if bits.width == bits.field.bits:
        return SetField(bits.field, value)
    return SetField(bits.field, value << bits.start, bits.mask)


#: (table, priority, match)
FlowKey = tuple[int, int, Match]


class Flow(msgspec.Struct, frozen=True):
    """One flow of one table."""

    table: int
    priority: int
    match: Match
    program: Program
    cookie: int

    @property
    def key(self) -> FlowKey:
        return (self.table, self.priority, self.match)


class GroupType(IntEnum):
    """Group types (OpenFlow 1.5.1, 7.3.4.2)."""

    ALL = 0
    SELECT = 1
    INDIRECT = 2
    FAST_FAILOVER = 3


class Bucket(msgspec.Struct, frozen=True):
    """One bucket. `weight` counts in select groups; with a `watch_port` it is only chosen while that port is live."""

    bucket_id: int
    program: Program
    weight: int = 100
    watch_port: int = PORT_ANY


class Group(msgspec.Struct, frozen=True):
    """A group. Its id is a function of its object's name, never a counter."""

    NONE: ClassVar[int] = GROUP_ANY
    group_id: int
    type: GroupType
    buckets: tuple[Bucket, ...]
    #: "" (the switch's default, dp_hash), "hash" or "dp_hash"; see ovs-ofctl(8).
    selection_method: str = ""
    selection_parameter: int = 0
    selection_fields: tuple[Field, ...] = ()
