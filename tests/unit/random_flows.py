"""Hypothesis strategies for flows and groups: every field, every action, any values."""

from __future__ import annotations

from hypothesis import strategies as st

from flows import fields as f
from flows.fields import FIELDS, Field, Match, Term
from flows.registers import EXIT_PORT, MARKS, PARTS, REGISTERS, Bits, whole
from flows.values import (
    Action,
    Bucket,
    Conjunction,
    Ct,
    DecTtl,
    Flow,
    Goto,
    Group,
    GroupType,
    Learn,
    Move,
    Nat,
    Note,
    Output,
    OutputBits,
    Program,
    Resubmit,
    SetField,
    Tell,
    ToGroup,
)

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
fields = st.sampled_from(FIELDS)


def value(field: Field) -> st.SearchStrategy[int]:
    return st.integers(0, field.maximum)


@st.composite
def masked(draw: st.DrawFn, field: Field) -> tuple[int, int | None]:
    """A value, and a mask that covers it or none. A mask of all bits is no mask."""
    mask = draw(st.none() | st.integers(1, field.maximum - 1)) if field.bits > 1 else None
    return draw(value(field)) & (field.maximum if mask is None else mask), mask


@st.composite
def matches(draw: st.DrawFn) -> Match:
    chosen = draw(st.sets(fields, max_size=6))
    return f.match(*(Term(field, *draw(masked(field))) for field in chosen))


@st.composite
def set_fields(draw: st.DrawFn) -> SetField:
    field = draw(fields)
    return SetField(field, *draw(masked(field)))


@st.composite
def moves(draw: st.DrawFn) -> Move:
    source, target = draw(fields), draw(fields)
    width = draw(st.integers(1, min(source.bits, target.bits)))
    return Move(
        part(source, draw(st.integers(0, source.bits - width)), width),
        part(target, draw(st.integers(0, target.bits - width)), width),
    )


def part(field: Field, start: int, width: int) -> Bits:
    """Bits of a field, by their declared name if they have one: as the decoder gives them back."""
    for bits in (*REGISTERS, *PARTS, *MARKS):
        if (bits.field, bits.start, bits.width) == (field, start, width):
            return bits
    if width == field.bits:
        return whole(field)
    return Bits(f"{field.name}[{start}..{start + width - 1}]", field, start, width)


@st.composite
def nats(draw: st.DrawFn) -> Nat:
    kind = draw(st.sampled_from(["", "src", "dst"]))
    if not kind:
        return Nat()
    ipv6 = draw(st.booleans())
    address = st.integers(0, (1 << (128 if ipv6 else 32)) - 1)
    low = draw(st.none() | address)
    port = draw(st.none() | u16)
    return Nat(
        kind,
        low,
        None if low is None else draw(st.none() | address),
        # Without an address there is no telling.
        ipv6 and low is not None,
        port,
        None if port is None else draw(st.none() | u16),
    )


nested = st.lists(set_fields() | moves(), max_size=2).map(tuple)
cts = st.builds(Ct, u16, st.booleans(), st.booleans(), st.none() | st.integers(0, 254), st.none() | nats(), nested)
#: Values in a learn action come in units of 16 bits: fields of odd widths are another story.
whole_terms = fields.flatmap(lambda field: st.builds(Term, st.just(field), value(field), st.none()))
tells = st.builds(Tell, u32, u16)
notes = st.binary(max_size=40).map(lambda data: Note(data + bytes(-(10 + len(data)) % 8)))
learns = st.builds(
    Learn,
    u8,
    u16,
    u64,
    u16,
    u32,
    st.lists(whole_terms, max_size=3).map(tuple),
    st.lists(fields, max_size=3).map(tuple),
    st.lists(whole_terms, max_size=3).map(tuple),
)
actions: st.SearchStrategy[Action] = (
    st.builds(Output, u32, u16)
    | st.just(OutputBits(EXIT_PORT))
    | set_fields()
    | moves()
    | st.builds(ToGroup, u32)
    | cts
    | st.builds(Resubmit, u8)
    | st.just(DecTtl())
    | st.builds(Conjunction, u32, st.integers(1, 64), st.integers(2, 64))
    | notes
    | tells
    | learns
)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    program: Program = tuple(draw(st.lists(actions, max_size=5)))
    return (*program, Goto(draw(u8))) if draw(st.booleans()) else program


flows = st.builds(Flow, u8, u16, matches(), programs(), u64)
buckets = st.lists(actions, max_size=3).map(tuple)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    kind = draw(st.sampled_from(GroupType))
    number = 1 if kind is GroupType.INDIRECT else draw(st.integers(0, 4))
    made = tuple(
        Bucket(
            index,
            draw(buckets),
            draw(u16) if kind is GroupType.SELECT else 100,
            draw(st.integers(0, 0xFFFF_FF00)) if kind in (GroupType.FAST_FAILOVER, GroupType.SELECT) else 0xFFFF_FFFF,
        )
        for index in range(number)
    )
    method = draw(st.sampled_from(["", "hash", "dp_hash"])) if kind is GroupType.SELECT else ""
    chosen = draw(st.lists(fields, max_size=3, unique=True)) if method == "hash" else []
    return Group(draw(st.integers(0, 0xFFFF_FF00)), kind, made, method, draw(u64) if method else 0, tuple(chosen))
