"""OpenFlow 1.5 bytes to values: what switches say.

The simple messages are a `struct` each. Flows and groups are decoded back into our own values (os-ken's parser fails
on any flow with a copy-field action, and has no fields of neighbour discovery); one that holds something beyond our
vocabulary - someone's own flow, say - is still reported, with the reason in place of the value.
Raises DecodeError, and nothing else, whatever the bytes are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import lru_cache
from struct import Struct, error, unpack_from
from typing import TypeVar

from flows.fields import (
    ETH_TYPE,
    FIELDS,
    IPV4_DST,
    IPV4_SRC,
    IPV6_DST,
    IPV6_SRC,
    PACKET_REGS,
    REG0,
    REG1,
    REG2,
    REG3,
    REG4,
    REG5,
    REG6,
    REG7,
    REG8,
    REG9,
    Field,
    Match,
    Term,
)
from flows.openflow import wire
from flows.openflow.messages import (
    AggregateReply,
    BarrierReply,
    BundleReply,
    DescReply,
    EchoReply,
    EchoRequest,
    Error,
    FeaturesReply,
    FlowStats,
    FlowStatsReply,
    GroupDescReply,
    GroupStats,
    GroupStatsReply,
    Hello,
    Message,
    PacketIn,
    PortDesc,
    PortDescReply,
    PortStats,
    PortStatsReply,
    PortStatus,
    RoleReply,
    RoleStatus,
    TableStats,
    TableStatsReply,
    Unknown,
    UnreadReply,
)
from flows.openflow.wire import HEADER, Multipart, Type
from flows.registers import MARKS, PARTS, REGISTERS, Bits, whole
from flows.values import (
    PORT_ANY,
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


class DecodeError(ValueError):
    """A message that isn't what its header says; the text names the message's type."""


class UnknownPartError(ValueError):
    """A flow or group holds a field, action or instruction that this codec has no value for."""


def decode(message: bytes) -> Message:
    """A whole message (as `Framer` gives them) as a value."""
    try:
        version, kind, _, xid = HEADER.unpack_from(message)
    except error as problem:
        raise DecodeError(f"{len(message)} bytes are too few for a header") from problem
    if version != wire.VERSION and kind not in (Type.HELLO, Type.ERROR):
        raise DecodeError(f"OpenFlow version {version:#x}, expected {wire.VERSION:#x}")
    reader = _READERS.get(kind)
    if reader is None:
        return Unknown(xid, kind)
    try:
        return reader(xid, message)
    except (error, ValueError, IndexError) as problem:
        raise DecodeError(f"{Type(kind).name} message of {len(message)} bytes: {problem}") from problem


# Simple messages ----------------------------------------------------------------------------------------------------


def _hello(xid: int, message: bytes) -> Hello:
    versions: set[int] = set()
    offset = HEADER.size
    while offset + 4 <= len(message):
        kind, length = unpack_from("!HH", message, offset)
        if length < 4:
            raise ValueError(f"hello element of {length} bytes")
        if kind == 1 and length >= 8:
            (bitmap,) = unpack_from("!I", message, offset + 4)
            versions |= {number for number in range(32) if bitmap >> number & 1}
        offset += length + -length % 8
    # Without a bitmap the header's version is the highest that the peer speaks (6.3.1).
    return Hello(xid, frozenset(versions) or frozenset(range(1, message[0] + 1)))


def _error(xid: int, message: bytes) -> Error:
    kind, code = unpack_from("!HH", message, 8)
    return Error(xid, kind, code, message[12:])


def _features(xid: int, message: bytes) -> FeaturesReply:
    datapath_id, _, n_tables, capabilities = unpack_from("!QIB3xI", message, 8)
    return FeaturesReply(xid, datapath_id, n_tables, capabilities)


_PORT = Struct("!IH2x6s2x16sII")
_LINK_DOWN, _PORT_DOWN = 1, 1


def _port(message: bytes, offset: int) -> tuple[PortDesc, int]:
    number, length, mac, name, config, state = _PORT.unpack_from(message, offset)
    if length < _PORT.size:
        raise ValueError(f"port description of {length} bytes")
    text = name.split(b"\0", 1)[0].decode("utf-8", "replace")
    live = not (config & _PORT_DOWN or state & _LINK_DOWN)
    speed = _speed(message[offset + _PORT.size : offset + length])
    return PortDesc(number, text, int.from_bytes(mac, "big"), live, speed), offset + length


def _speed(properties: bytes) -> int:
    """What a port's Ethernet property (7.2.1.1) says that its speed is; 0 where there is none."""
    at = 0
    while at + 4 <= len(properties):
        kind, length = unpack_from("!HH", properties, at)
        if length < 4:
            raise ValueError(f"port property of {length} bytes")
        if kind == wire.PORT_PROPERTY_ETHERNET:
            return int(unpack_from("!I", properties, at + 24)[0])
        at += length + -length % 8
    return 0


def _port_status(xid: int, message: bytes) -> PortStatus:
    port, _ = _port(message, 16)
    return PortStatus(xid, message[8], port)


def _role_reply(xid: int, message: bytes) -> RoleReply:
    role, generation = unpack_from("!I4xQ", message, 8)
    return RoleReply(xid, role, generation)


def _role_status(xid: int, message: bytes) -> RoleStatus:
    role, generation = unpack_from("!I4xQ", message, 8)
    return RoleStatus(xid, role, generation)


def _packet_in(xid: int, message: bytes) -> PacketIn:
    table, cookie, _, length = unpack_from("!BQHH", message, 15)
    if length < 4:
        raise ValueError(f"match of {length} bytes")
    data = 24 + length + -length % 8 + 2
    (total,) = unpack_from("!H", message, 12)
    return PacketIn(xid, table, cookie, _known(message[28 : 24 + length]), message[data:], total)


def _known(encoded: bytes) -> Match:
    """The terms that there are fields for; a switch tells of others too."""
    terms: list[Term] = []
    offset = 0
    while offset + 4 <= len(encoded):
        end = offset + 4 + encoded[offset + 3]
        with contextlib.suppress(UnknownPartError):
            terms += terms_of(encoded[offset:end])
        offset = end
    return tuple(sorted(terms, key=lambda term: term.field.index))


def _bundle_reply(xid: int, message: bytes) -> BundleReply:
    bundle_id, step = unpack_from("!IH", message, 8)
    return BundleReply(xid, bundle_id, step)


Item = TypeVar("Item")


# Multipart replies --------------------------------------------------------------------------------------------------


def _multipart(xid: int, message: bytes) -> Message:
    kind, flags = unpack_from("!HH", message, 8)
    more = bool(flags & 1)
    if xid & wire.COUNTS_ALONE == wire.COUNTS_ALONE and kind in (Multipart.FLOW_DESC, Multipart.GROUP_DESC):
        # Who asked reads it (`flows.openflow.counted`).
        return UnreadReply(xid, more, message)
    match kind:
        case Multipart.DESC:
            return DescReply(xid, _datapath(message))
        case Multipart.PORT_DESC:
            return PortDescReply(xid, more, _items(message, _port))
        case Multipart.FLOW_DESC:
            return FlowStatsReply(xid, more, _items(message, _flow_stats))
        case Multipart.TABLE:
            return TableStatsReply(xid, more, _items(message, _table_stats))
        case Multipart.PORT_STATS:
            return PortStatsReply(xid, more, _items(message, _port_stats))
        case Multipart.GROUP_DESC:
            groups = _items(message, _group)
            known = tuple(group for group in groups if group is not None)
            return GroupDescReply(xid, more, known, len(groups) - len(known))
        case Multipart.GROUP:
            return GroupStatsReply(xid, more, _items(message, _group_stats))
        case Multipart.AGGREGATE:
            stats, _ = oxs(message, 16)
            return AggregateReply(xid, stats.get(4, 0), stats.get(5, 0), stats.get(3, 0))
    return Unknown(xid, Type.MULTIPART_REPLY)


def _datapath(message: bytes) -> str:
    """The last of the five texts of a description (7.3.5.1), which ends with the first zero."""
    (text,) = unpack_from("!800x256s", message, 16)
    return str(text.partition(b"\0")[0].decode(errors="replace"))


def _items(message: bytes, read: Callable[[bytes, int], tuple[Item, int]]) -> tuple[Item, ...]:
    items, offset = [], 16
    while offset < len(message):
        item, following = read(message, offset)
        if not offset < following <= len(message):
            raise ValueError(f"an item at byte {offset} says that it ends at byte {following}")
        items.append(item)
        offset = following
    return tuple(items)


def _table_stats(message: bytes, offset: int) -> tuple[TableStats, int]:
    table, active = unpack_from("!B3xI", message, offset)
    return TableStats(table, active), offset + 24


_PORT_STATS = Struct("!H2xIIIQQQQQQQQ")


def _port_stats(message: bytes, offset: int) -> tuple[PortStats, int]:
    length, number, seconds, nanoseconds, *counts = _PORT_STATS.unpack_from(message, offset)
    if length < _PORT_STATS.size:
        raise ValueError(f"port statistics of {length} bytes")
    return PortStats(number, seconds + nanoseconds / 1e9, *counts), offset + length


_FLOW_DESC = Struct("!H2xBxHHHHHQ")


def _flow_stats(message: bytes, offset: int) -> tuple[FlowStats, int]:
    length, table, priority, _, _, _, _, cookie = _FLOW_DESC.unpack_from(message, offset)
    end = offset + length
    if end > len(message):
        raise ValueError(f"flow description of {length} bytes at byte {offset}")
    start = offset + _FLOW_DESC.size
    (_, match_length) = unpack_from("!HH", message, start)
    encoded = message[start : start + match_length]
    stats, instructions = oxs(message, start + match_length + -match_length % 8)
    flow, why = None, ""
    try:
        flow = Flow(table, priority, terms_of(encoded[4:]), program_of(message[instructions:end]), cookie)
    except UnknownPartError as problem:
        why = str(problem)
    duration = stats.get(0, 0)
    seconds = (duration >> 32) + (duration & 0xFFFF_FFFF) / 1e9
    found = FlowStats(table, priority, cookie, flow, stats.get(4, 0), stats.get(5, 0), seconds, encoded, why)
    return found, end


def oxs(message: bytes, offset: int) -> tuple[dict[int, int], int]:
    """The statistics at an offset by their OXS number (7.2.4), and where they end."""
    (length,) = unpack_from("!2xH", message, offset)
    if length < 4:
        raise ValueError(f"statistics of {length} bytes")
    found = {}
    at, end = offset + 4, offset + length
    while at + 4 <= end:
        _, number, size = unpack_from("!HBB", message, at)
        found[number >> 1] = int.from_bytes(message[at + 4 : at + 4 + size], "big")
        at += 4 + size
    return found, end + -length % 8


# Matches and actions ------------------------------------------------------------------------------------------------

_BY_HEADER: dict[bytes, tuple[Field, bool]] = {field.header: (field, False) for field in FIELDS}
_BY_HEADER |= {field.masked_header: (field, True) for field in FIELDS}
_NAMES_OF_NUMBERS = {field.header[:3]: field for field in FIELDS}
#: In learn actions OVS speaks of fields by their older names too (nicira-ext.h, NXM_OF_* and NXM_NX_*).
_NAMES_OF_NUMBERS |= {
    bytes((0, nxm_class, number << 1)): field
    for nxm_class, number, field in (
        (0, 3, ETH_TYPE),
        (0, 7, IPV4_SRC),
        (0, 8, IPV4_DST),
        (1, 19, IPV6_SRC),
        (1, 20, IPV6_DST),
    )
}
_PACKET_REGS = PACKET_REGS.to_bytes(2, "big")
_REGISTER_PAIRS = ((REG0, REG1), (REG2, REG3), (REG4, REG5), (REG6, REG7), (REG8, REG9))
#: Register bits by where they are: a flow that is read back equals the one that was sent.
_DECLARED = {(bits.field, bits.start, bits.width): bits for bits in (*REGISTERS, *PARTS, *MARKS)}


@lru_cache(maxsize=1 << 12)
def terms_of(encoded: bytes) -> Match:
    """An encoded match. Raises UnknownPartError and ValueError."""
    terms: list[Term] = []
    offset = 0
    while offset < len(encoded):
        if encoded[offset : offset + 2] == _PACKET_REGS:
            pair, offset = _register_pair(encoded, offset)
            terms += pair
        else:
            term, offset = _term(encoded, offset)
            terms.append(term)
    return tuple(sorted(terms, key=lambda term: term.field.index))


def _register_pair(encoded: bytes, offset: int) -> tuple[list[Term], int]:
    """Terms on two registers. OVS speaks OpenFlow 1.5 of 32-bit registers in matches as pairs of 64 bits."""
    number, masked = encoded[offset + 2] >> 1, encoded[offset + 2] & 1
    end = offset + 4 + (16 if masked else 8)
    if end > len(encoded) or number >= len(_REGISTER_PAIRS):
        raise UnknownPartError(f"unknown match field {encoded[offset : offset + 4].hex()}")
    (value,) = unpack_from("!Q", encoded, offset + 4)
    mask = unpack_from("!Q", encoded, offset + 12)[0] if masked else (1 << 64) - 1
    terms = []
    for field, shift in zip(_REGISTER_PAIRS[number], (32, 0), strict=True):
        part = mask >> shift & field.maximum
        if part:
            terms.append(Term(field, value >> shift & field.maximum, None if part == field.maximum else part))
    return terms, end


def _term(encoded: bytes, offset: int) -> tuple[Term, int]:
    header = encoded[offset : offset + 4]
    known = _BY_HEADER.get(header)
    if known is None:
        raise UnknownPartError(f"unknown match field {header.hex()}")
    field, masked = known
    start, size = offset + 4, field.length
    end = start + size * (2 if masked else 1)
    if end > len(encoded):
        raise ValueError(f"field {field} is cut short")
    value = int.from_bytes(encoded[start : start + size], "big")
    mask = int.from_bytes(encoded[start + size : end], "big") if masked else None
    return Term(field, value, None if mask == field.maximum else mask), end


@lru_cache(maxsize=1 << 12)
def program_of(encoded: bytes) -> Program:
    """Encoded instructions. Raises UnknownPartError and ValueError."""
    program: list[Action] = []
    goto: list[Action] = []
    offset = 0
    while offset < len(encoded):
        kind, length = unpack_from("!HH", encoded, offset)
        if length < 8 or offset + length > len(encoded):
            raise ValueError(f"instruction of {length} bytes")
        if kind == wire.INSTRUCTION_APPLY:
            program += actions(encoded[offset + 8 : offset + length])
        elif kind == wire.INSTRUCTION_GOTO:
            goto = [Goto(encoded[offset + 4])]
        else:
            raise UnknownPartError(f"unknown instruction {kind}")
        offset += length
    return (*program, *goto)


def actions(encoded: bytes) -> Program:
    """A list of actions. Raises UnknownPartError and ValueError."""
    found: list[Action] = []
    offset = 0
    while offset < len(encoded):
        kind, length = unpack_from("!HH", encoded, offset)
        if length < 8 or offset + length > len(encoded):
            raise ValueError(f"action of {length} bytes")
        found.append(_action(kind, encoded[offset : offset + length]))
        offset += length
    return tuple(found)


def _action(kind: int, encoded: bytes) -> Action:
    match kind:
        case wire.ACTION_OUTPUT:
            port, max_len = unpack_from("!IH", encoded, 4)
            return Output(port, max_len)
        case wire.ACTION_GROUP:
            return ToGroup(*unpack_from("!I", encoded, 4))
        case wire.ACTION_DEC_TTL:
            return DecTtl()
        case wire.ACTION_SET_FIELD:
            term, _ = _term(encoded, 4)
            return SetField(term.field, term.value, term.mask)
        case wire.ACTION_COPY_FIELD:
            width, source_start, target_start = unpack_from("!HHH", encoded, 4)
            source, target = _field(encoded[12:16]), _field(encoded[16:20])
            return Move(_bits(source, source_start, width), _bits(target, target_start, width))
        case wire.ACTION_EXPERIMENTER:
            vendor, subtype = unpack_from("!IH", encoded, 4)
            if (vendor, subtype) == (wire.NICIRA, wire.NX_OUTPUT_REG):
                (reach,) = unpack_from("!H", encoded, 10)
                return OutputBits(_bits(_field(encoded[12:16]), reach >> 6, (reach & 0x3F) + 1))
            if (vendor, subtype) == (wire.NICIRA, wire.NX_CT):
                return _ct(encoded)
            if (vendor, subtype) == (wire.NICIRA, wire.NX_RESUBMIT_TABLE):
                port, table = unpack_from("!HB", encoded, 10)
                if port != wire.IN_PORT_16:
                    raise UnknownPartError(f"a resubmit as if by port {port}")
                return Resubmit(table)
            if (vendor, subtype) == (wire.NICIRA, wire.NX_LEARN2):
                return _learn(encoded)
            if (vendor, subtype) == (wire.NICIRA, wire.NX_CONJUNCTION):
                clause, clauses, number = unpack_from("!BBI", encoded, 10)
                return Conjunction(number, clause + 1, clauses)
            if (vendor, subtype) == (wire.NICIRA, wire.NX_CONTROLLER2):
                return _tell(encoded)
            if (vendor, subtype) == (wire.NICIRA, wire.NX_NOTE):
                return Note(encoded[10:])
            raise UnknownPartError(f"unknown action {subtype} of experimenter {vendor:#x}")
    raise UnknownPartError(f"unknown action {kind}")


def _tell(encoded: bytes) -> Tell:
    found = {wire.TELL_MAX_LEN: 0xFFFF, wire.TELL_METER: 0}
    offset = 16
    while offset + 4 <= len(encoded):
        kind, length = unpack_from("!HH", encoded, offset)
        if kind not in found or length < 4:
            raise UnknownPartError(f"unknown property {kind} of controller()")
        found[kind] = int.from_bytes(encoded[offset + 4 : offset + length], "big")
        offset += length + -length % 8
    return Tell(found[wire.TELL_METER], found[wire.TELL_MAX_LEN])


def _learn(encoded: bytes) -> Learn:
    idle, hard, priority, cookie, flags, table, fin_idle, fin_hard, limit, result, _ = unpack_from(
        "!HHHQHBxHHIHH", encoded, 10
    )
    if hard or flags or fin_idle or fin_hard or result:
        raise UnknownPartError("a learn action with more than an idle timeout and a limit")
    terms, copied, loads = [], [], []
    offset = 40
    while offset + 2 <= len(encoded):
        (head,) = unpack_from("!H", encoded, offset)
        if not head:
            break
        width, kind = head & 0x7FF, head & ~0x7FF
        offset += 2
        size = (width + 15) // 16 * 2 if kind & wire.LEARN_IMMEDIATE else 6
        value = encoded[offset : offset + size]
        field = _field(encoded[offset + size : offset + size + 4])
        if field.bits != width or encoded[offset + size + 4 : offset + size + 6] != b"\0\0":
            raise UnknownPartError(f"a learn action with a part of {field}")
        offset += size + 6
        if kind == wire.LEARN_IMMEDIATE:
            terms.append(Term(field, int.from_bytes(value, "big"), None))
        elif kind == wire.LEARN_IMMEDIATE | wire.LEARN_LOAD:
            loads.append(Term(field, int.from_bytes(value, "big"), None))
        elif not kind and _field(value[:4]) is field and value[4:] == b"\0\0":
            copied.append(field)
        else:
            raise UnknownPartError("a learn action with a part of another kind")
    return Learn(table, priority, cookie, idle, limit, tuple(terms), tuple(copied), tuple(loads))


def _field(header: bytes) -> Field:
    field = _NAMES_OF_NUMBERS.get(header[:3])
    if field is None:
        raise UnknownPartError(f"unknown field {header.hex()}")
    return field


def _bits(field: Field, start: int, width: int) -> Bits:
    declared = _DECLARED.get((field, start, width))
    if declared is not None:
        return declared
    if (start, width) == (0, field.bits):
        return whole(field)
    return Bits(f"{field.name}[{start}..{start + width - 1}]", field, start, width)


def _ct(encoded: bytes) -> Ct:
    flags, source, number, table, alg = unpack_from("!HIHB3xH", encoded, 10)
    if alg or flags & ~0b11:
        raise UnknownPartError("a ct action with an alg or unknown flags")
    zone = _bits(_field(encoded[12:16]), number >> 6, (number & 0x3F) + 1) if source else number
    nat, execute = None, []
    offset = 24
    while offset < len(encoded):
        kind, length = unpack_from("!HH", encoded, offset)
        if length < 8 or offset + length > len(encoded):
            raise ValueError(f"action of {length} bytes inside ct")
        nested = encoded[offset : offset + length]
        if kind == wire.ACTION_EXPERIMENTER and unpack_from("!IH", nested, 4) == (wire.NICIRA, wire.NX_NAT):
            nat = _nat(nested)
        else:
            action = _action(kind, nested)
            if not isinstance(action, SetField | Move):
                raise UnknownPartError(f"{type(action).__name__} inside ct")
            execute.append(action)
        offset += length
    target = None if table == wire.NO_TABLE else table
    return Ct(zone, bool(flags & 1), bool(flags & 2), target, nat, tuple(execute))


def _nat(encoded: bytes) -> Nat:
    flags, present = unpack_from("!HH", encoded, 12)
    kinds = {0: "", wire.NAT_SRC: "src", wire.NAT_DST: "dst"}
    if flags not in kinds:
        raise UnknownPartError(f"nat with flags {flags:#x}")
    values: dict[int, int] = {}
    offset = 16
    for bit, size in (
        (wire.NAT_IPV4_MIN, 4),
        (wire.NAT_IPV4_MAX, 4),
        (wire.NAT_IPV6_MIN, 16),
        (wire.NAT_IPV6_MAX, 16),
        (wire.NAT_PORT_MIN, 2),
        (wire.NAT_PORT_MAX, 2),
    ):
        if present & bit:
            if offset + size > len(encoded):
                raise ValueError("nat is cut short")
            values[bit] = int.from_bytes(encoded[offset : offset + size], "big")
            offset += size
    ipv6 = bool(present & (wire.NAT_IPV6_MIN | wire.NAT_IPV6_MAX))
    return Nat(
        kind=kinds[flags],
        address_min=values.get(wire.NAT_IPV6_MIN if ipv6 else wire.NAT_IPV4_MIN),
        address_max=values.get(wire.NAT_IPV6_MAX if ipv6 else wire.NAT_IPV4_MAX),
        ipv6=ipv6,
        port_min=values.get(wire.NAT_PORT_MIN),
        port_max=values.get(wire.NAT_PORT_MAX),
    )


# Groups -------------------------------------------------------------------------------------------------------------


def _group(message: bytes, offset: int) -> tuple[Group | None, int]:
    length, kind, group_id, bucket_length = unpack_from("!HBxIH6x", message, offset)
    end = offset + length
    start = offset + 16
    try:
        buckets = []
        while start < offset + 16 + bucket_length:
            bucket, start = _bucket(message, start)
            buckets.append(bucket)
        method, parameter, fields = _selection(message[start:end])
        return Group(group_id, GroupType(kind), tuple(buckets), method, parameter, fields), end
    except UnknownPartError:
        return None, end


_BUCKET_COUNTER = Struct("!QQ")


def _group_stats(message: bytes, offset: int) -> tuple[GroupStats, int]:
    length, group_id = unpack_from("!H2xI", message, offset)
    end = offset + length
    if length < 40 or end > len(message):
        raise ValueError(f"group statistics of {length} bytes")
    packets = tuple([packets for packets, _ in _BUCKET_COUNTER.iter_unpack(message[offset + 40 : end])])
    return GroupStats(group_id, packets), end


def _bucket(message: bytes, offset: int) -> tuple[Bucket, int]:
    length, action_length, bucket_id = unpack_from("!HHI", message, offset)
    if length < 8 + action_length:
        raise ValueError(f"bucket of {length} bytes with {action_length} bytes of actions")
    at, end = offset + 8 + action_length, offset + length
    program = actions(message[offset + 8 : at])
    weight, watch_port = 100, PORT_ANY
    while at < end:
        kind, size = unpack_from("!HH", message, at)
        if size < 4:
            raise ValueError(f"bucket property of {size} bytes")
        if kind == wire.BUCKET_WEIGHT:
            (weight,) = unpack_from("!H", message, at + 4)
        elif kind == wire.BUCKET_WATCH_PORT:
            (watch_port,) = unpack_from("!I", message, at + 4)
        at += size + -size % 8
    return Bucket(bucket_id, program, weight, watch_port), end


def _selection(encoded: bytes) -> tuple[str, int, tuple[Field, ...]]:
    if not encoded:
        return "", 0, ()
    kind, length, vendor, experiment, name, parameter = unpack_from("!HHII4x16sQ", encoded, 0)
    if (kind, vendor, experiment) != (0xFFFF, wire.NETRONOME, 1):
        raise UnknownPartError(f"unknown group property {kind}")
    fields, offset = [], 40
    while offset < length:
        term, offset = _term(encoded, offset)
        fields.append(term.field)
    return name.split(b"\0", 1)[0].decode("ascii", "replace"), parameter, tuple(fields)


_READERS: dict[int, Callable[[int, bytes], Message]] = {
    Type.HELLO: _hello,
    Type.ERROR: _error,
    Type.ECHO_REQUEST: lambda xid, message: EchoRequest(xid, message[8:]),
    Type.ECHO_REPLY: lambda xid, message: EchoReply(xid, message[8:]),
    Type.FEATURES_REPLY: _features,
    Type.PORT_STATUS: _port_status,
    Type.PACKET_IN: _packet_in,
    Type.MULTIPART_REPLY: _multipart,
    Type.BARRIER_REPLY: lambda xid, _: BarrierReply(xid),
    Type.ROLE_REPLY: _role_reply,
    Type.ROLE_STATUS: _role_status,
    Type.BUNDLE_CONTROL: _bundle_reply,
}
