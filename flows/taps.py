"""Taps: flows that tell the controller of a packet where it passes a table, and let it go on as if they weren't there.

    tap of T   what it is about, and T's bit of TAPPED is 0: set the bit, tell, look up T again
    T          ... and there the packet meets the flow that it would have met

So each table tells of a packet once, whoever has taps there, with all that is known of it by then, also after
conntrack: registers come back with the packet. A tap of the packets that a flow drops is right above that flow, so that
what is caught by a flow above never comes to it. Taps pass: the switch deletes them after their time, whether or not
there is a controller by then. Their cookies have an owner of their own, so they are in no scope, no digest and no
replacement, and audits leave them alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from flows import fields as f
from flows.cookies import TAP_OWNER
from flows.fields import Match, Term
from flows.openflow import encode
from flows.openflow.wire import TABLE_ALL
from flows.pipeline import BY_NUMBER, CLASSIFY, DIGEST, HOST, OUTPUT, TABLES, Table
from flows.registers import EXIT, EXIT_PORT, TAPPED, Exit
from flows.values import Flow, Resubmit, SetField, Tell
from topology.naming import Address

#: Above every flow of a scope: taps of captures, and above these those of traces, which hold their packet back.
PRIORITY, TRACE_PRIORITY = 0xFFFE, 0xFFFF
#: A tap's cookie: 63..56 owner, 39 whether it is a trace's, 38..16 which taps it is one of, 15..0 which of them.
_TRACE = 1 << 39
_SESSION_SHIFT, SESSIONS, POINTS = 16, 1 << 23, 1 << 16
_SESSION_MASK = 0xFF << 56 | (SESSIONS - 1) << _SESSION_SHIFT
#: Captures at a time, which have slots from 0 up; and the slot of traces.
CAPTURES, TRACE_SLOT = 8, 64
#: The meters of taps, by slot. Above what people number by hand.
_FIRST_METER = 0x5B00
#: Bits of TAPPED that no packet has, one for each slot of captures: without them, of two taps for the same packets the
#: second would take the place of the first.
_FIRST_UNUSED = 24
_BIT = {table.number: 1 << index for index, table in enumerate(each for each in TABLES if each not in (DIGEST, HOST))}


class Taps(msgspec.Struct, frozen=True):
    """Some taps that come and go together: a number of theirs, and a slot that no others have at the time."""

    session: int
    slot: int
    #: Bytes of a packet, packets a second, seconds.
    snaplen: int
    rate: int
    seconds: int

    @property
    def meter(self) -> int:
        return _FIRST_METER + self.slot

    @property
    def is_trace(self) -> bool:
        """Whether they are a live trace's."""
        return self.slot == TRACE_SLOT

    def flow(self, table: Table, about: Match, point: int, *, held: bool = False, priority: int = 0) -> Flow:
        """The tap of a table for packets that match; `point` comes back with what it tells. `held`: they end there.

        `priority`: that of the tap, where it isn't to be above all others.
        """
        bit = _BIT[table.number]
        unused = 0 if self.is_trace else 1 << _FIRST_UNUSED + self.slot
        match = f.match(*about, Term(TAPPED.field, 0, bit | unused))
        cookie = TAP_OWNER << 56 | _TRACE * self.is_trace | self.session << _SESSION_SHIFT | point
        program = (SetField(TAPPED.field, bit, bit), Tell(self.meter, self.snaplen))
        usual = TRACE_PRIORITY if self.is_trace else PRIORITY
        again = () if held else (Resubmit(table.number),)
        return Flow(table.number, priority or usual, match, (*program, *again), cookie)

    def before(self, flow: Flow, point: int) -> Flow:
        """The tap for packets that would meet this flow, or another at its priority: right above it."""
        return self.flow(BY_NUMBER[flow.table], flow.match, point, priority=flow.priority + 1)

    def made(self, flows: list[Flow]) -> list[bytes]:
        """The messages that make them."""
        # A meter may be left of somebody who went without a word.
        meter = [encode.meter_delete(self.meter), encode.meter_add(self.meter, self.rate, self.rate)]
        return [*meter, *(encode.flow_mod_passing(flow, self.seconds) for flow in flows)]

    def unmade(self) -> list[bytes]:
        """The messages that delete them, all that are left."""
        cookie = TAP_OWNER << 56 | self.session << _SESSION_SHIFT
        return [encode.flow_delete(TABLE_ALL, cookie, _SESSION_MASK), encode.meter_delete(self.meter)]


def told_by(cookie: int) -> tuple[int, int]:
    """The session and the point of a tap's cookie."""
    return cookie >> _SESSION_SHIFT & SESSIONS - 1, cookie & POINTS - 1


def is_trace(cookie: int) -> bool:
    """Whether a tap's cookie is that of a trace."""
    return bool(cookie & _TRACE)


def about(tap: Flow) -> Match:
    """What a tap is about."""
    return tuple(term for term in tap.match if term.field is not TAPPED.field)


def sent(port: int, to: tuple[Address, ...] = ()) -> Iterator[tuple[Table, Match]]:
    """What enters by a port, as it was sent, whatever becomes of it; with `to`, what is bound for these addresses."""
    for term in _either(to, f.IPV4_DST, f.IPV6_DST):
        yield CLASSIFY, f.match(f.IN_PORT(port), *term)


def delivered(port: int, of: tuple[Address, ...] = ()) -> Iterator[tuple[Table, Match]]:
    """What leaves by a port, as it leaves; with `of`, what comes from these addresses."""
    for term in _either(of, f.IPV4_SRC, f.IPV6_SRC):
        yield OUTPUT, f.match(EXIT(Exit.PORT), EXIT_PORT(port), *term)


def _either(addresses: tuple[Address, ...], ipv4: f.Field, ipv6: f.Field) -> list[tuple[Term, ...]]:
    if not addresses:
        return [()]
    return [
        (f.ETH_TYPE(f.ETH_IPV4), ipv4(int(each))) if each.version == 4 else (f.ETH_TYPE(f.ETH_IPV6), ipv6(int(each)))
        for each in addresses
    ]
