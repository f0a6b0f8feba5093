"""Values to OpenFlow 1.5 bytes. Every function returns one whole message.

Flow-mods are the hot path: what many flows share (a program, a match term) is encoded once and remembered, bounded.
Layouts: OpenFlow 1.5.1 section 7; Nicira extensions: nicira-ext.h and ovs-actions(7).
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct, pack
from struct import error as StructError

from flows.fields import IN_PORT, Field, Match, Term
from flows.openflow.wire import (
    ACTION_COPY_FIELD,
    ACTION_DEC_TTL,
    ACTION_EXPERIMENTER,
    ACTION_GROUP,
    ACTION_OUTPUT,
    ACTION_SET_FIELD,
    ASYNC_PACKET_IN_SLAVE,
    BUCKET_ALL,
    BUCKET_WATCH_PORT,
    BUCKET_WEIGHT,
    BUNDLE_FLAGS,
    CT_FLUSH_REPLY,
    CT_FLUSH_ZONE,
    CT_TUPLE_SOURCE,
    CT_TUPLE_SOURCE_PORT,
    GROUP_ALL,
    HEADER,
    IN_PORT_16,
    INSTRUCTION_APPLY,
    INSTRUCTION_GOTO,
    LEARN_IMMEDIATE,
    LEARN_LOAD,
    MAX_MESSAGE,
    METER_BAND_DROP,
    METER_FLAGS,
    NAT_DST,
    NAT_IPV4_MAX,
    NAT_IPV4_MIN,
    NAT_IPV6_MAX,
    NAT_IPV6_MIN,
    NAT_PORT_MAX,
    NAT_PORT_MIN,
    NAT_SRC,
    NETRONOME,
    NICIRA,
    NO_BUFFER,
    NO_TABLE,
    NX_CONJUNCTION,
    NX_CONTROLLER2,
    NX_CT,
    NX_LEARN2,
    NX_NAT,
    NX_NOTE,
    NX_OUTPUT_REG,
    NX_RESUBMIT_TABLE,
    NXT_CT_FLUSH,
    TABLE_ALL,
    TELL_MAX_LEN,
    TELL_METER,
    VERSION,
    BundleControl,
    FlowCommand,
    GroupCommand,
    MeterCommand,
    Multipart,
    Reason,
    Role,
    Type,
    padding,
)
from flows.values import (
    GROUP_ANY,
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


class EncodeError(ValueError):
    """A value that has no encoding: a message over 64 KiB, a value wider than its field."""


# The hot path -------------------------------------------------------------------------------------------------------

#: Bytes of the longest values that are remembered.
_REMEMBERED = 2
_FLOW_MOD = Struct("!BBHIQQBBHHHIIIHHHH")
_ACTION = Struct("!HH")
_BUNDLE_ADD = Struct("!BBHIIHHBBHI")


def flow_mod(flow: Flow, xid: int = 0) -> bytes:
    """Add a flow, or replace the one with the same table, priority and match."""
    return _flow_mod(flow.table, flow.priority, flow.match, flow.program, flow.cookie, 0, FlowCommand.ADD, xid)


def flow_mod_passing(flow: Flow, seconds: int, xid: int = 0) -> bytes:
    """Add a flow that goes by itself after so many seconds."""
    return _flow_mod(flow.table, flow.priority, flow.match, flow.program, flow.cookie, 0, FlowCommand.ADD, xid, seconds)


def flow_delete_strict(flow: Flow, xid: int = 0) -> bytes:
    """Delete the flow with this table, priority and match, whatever it does."""
    return _flow_mod(flow.table, flow.priority, flow.match, (), 0, 0, FlowCommand.DELETE_STRICT, xid)


def flow_delete(table: int, cookie: int, cookie_mask: int, xid: int = 0) -> bytes:
    """Delete every flow of a table whose cookie agrees in the bits of the mask."""
    return _flow_mod(table, 0, (), (), cookie, cookie_mask, FlowCommand.DELETE, xid)


def flow_delete_encoded(table: int, priority: int, match: bytes, xid: int = 0) -> bytes:
    """Delete the flow with this table, priority and match, the match as a switch encoded it (without its padding).

    For flows that someone else made: they may match on what has no value here.
    """
    size = 48 + len(match) + -len(match) % 8
    fixed = _FLOW_MOD.pack(
        VERSION, Type.FLOW_MOD, size, xid, 0, 0, table, FlowCommand.DELETE_STRICT, 0, 0, priority,
        NO_BUFFER, PORT_ANY, GROUP_ANY, 0, 0, 1, len(match),
    )  # fmt: skip
    return fixed + match[4:] + padding(len(match))


def _flow_mod(
    table: int,
    priority: int,
    match: Match,
    program: Program,
    cookie: int,
    cookie_mask: int,
    command: int,
    xid: int,
    hard_timeout: int = 0,
) -> bytes:
    terms = b"".join([_term(term) for term in match])
    length = 4 + len(terms)
    pad = -length % 8
    try:
        instructions = _instructions(program)
        size = 48 + length + pad + len(instructions)
        fixed = _FLOW_MOD.pack(
            VERSION, Type.FLOW_MOD, size, xid, cookie, cookie_mask, table, command, 0, hard_timeout, priority,
            NO_BUFFER, PORT_ANY, GROUP_ANY, 0, 0, 1, length,
        )  # fmt: skip
    except StructError as error:
        raise EncodeError(f"a flow of table {table} doesn't fit an OpenFlow message: {error}") from error
    return b"".join((fixed, terms, bytes(pad), instructions))


def _term(term: Term) -> bytes:
    # Addresses are nearly all different: looking for them among what is remembered would cost more than encoding them.
    return _oxm(term) if term.field.length > _REMEMBERED else _remembered_oxm(term)


def _oxm(term: Term) -> bytes:
    field, value, mask = term
    try:
        if mask is None:
            return field.header + value.to_bytes(field.length, "big")
        return field.masked_header + value.to_bytes(field.length, "big") + mask.to_bytes(field.length, "big")
    except OverflowError as error:
        raise EncodeError(f"{value:#x}/{mask} doesn't fit field {field}") from error


_remembered_oxm = lru_cache(maxsize=1 << 12)(_oxm)


@lru_cache(maxsize=1 << 12)
def _instructions(program: Program) -> bytes:
    if program and isinstance(program[-1], Goto):
        goto = pack("!HHB3x", INSTRUCTION_GOTO, 8, program[-1].table)
        program = program[:-1]
    else:
        goto = b""
    if not program:
        return goto
    encoded = actions(program)
    return pack("!HH4x", INSTRUCTION_APPLY, 8 + len(encoded)) + encoded + goto


def bundle_add(bundle_id: int, message: bytes, xid: int) -> bytes:
    """A message inside a bundle; it gets the xid of the outer one, as 7.3.9.6 demands."""
    length = len(message)
    if length > MAX_MESSAGE - 16:
        raise EncodeError(f"a message of {length} bytes doesn't fit a bundle")
    head = _BUNDLE_ADD.pack(
        VERSION, Type.BUNDLE_ADD, 16 + length, xid, bundle_id, 0, BUNDLE_FLAGS, VERSION, message[1], length, xid
    )
    return head + message[8:]


# Actions ------------------------------------------------------------------------------------------------------------


def actions(program: Program) -> bytes:
    """A list of actions, as in apply-actions, buckets and packet-outs."""
    return b"".join([_action(action) for action in program])


def _action(action: Action) -> bytes:
    match action:
        case Output(port, max_len):
            return pack("!HHIH6x", ACTION_OUTPUT, 16, port, max_len)
        case OutputBits(bits):
            source = int.from_bytes(bits.field.header, "big")
            reach = bits.start << 6 | bits.width - 1
            return pack("!HHIHHIH6x", ACTION_EXPERIMENTER, 24, NICIRA, NX_OUTPUT_REG, reach, source, 0)
        case SetField(field, value, mask):
            return _set_field(field, value, mask)
        case Move(source, target):
            headers = source.field.header + target.field.header
            size = 12 + len(headers)
            fixed = pack("!HHHHH2x", ACTION_COPY_FIELD, size + -size % 8, source.width, source.start, target.start)
            return fixed + headers + padding(size)
        case DecTtl():
            return pack("!HH4x", ACTION_DEC_TTL, 8)
        case ToGroup(group_id):
            return pack("!HHI", ACTION_GROUP, 8, group_id)
        case Ct():
            return _ct(action)
        case Resubmit(table):
            return pack("!HHIHHB3x", ACTION_EXPERIMENTER, 16, NICIRA, NX_RESUBMIT_TABLE, IN_PORT_16, table)
        case Learn():
            return _learn(action)
        case Conjunction(number, clause, clauses):
            # Clauses count from 0 on the wire.
            head = (ACTION_EXPERIMENTER, 16, NICIRA, NX_CONJUNCTION)
            return pack("!HHIHBBI", *head, clause - 1, clauses, number)
        case Tell(meter, max_len):
            properties = pack("!HHH2xHHI", TELL_MAX_LEN, 6, max_len, TELL_METER, 8, meter)
            return pack("!HHIH6x", ACTION_EXPERIMENTER, 16 + len(properties), NICIRA, NX_CONTROLLER2) + properties
        case Note(data):
            size = 10 + len(data)
            fixed = pack("!HHIH", ACTION_EXPERIMENTER, size + -size % 8, NICIRA, NX_NOTE)
            return fixed + data + padding(size)
        case Goto():
            raise EncodeError("goto_table is an instruction: it can only end a flow's program")


def _learn(learn: Learn) -> bytes:
    """Each part of the flow to be learnt is a header - its width, where from, where to - and then both ends."""
    parts = []
    for term in learn.terms:
        parts.append(_learn_value(term, LEARN_IMMEDIATE))
    for field in learn.copied:
        ends = (field.header + b"\0\0") * 2
        parts.append(pack("!H", field.bits) + ends)
    for term in learn.loads:
        parts.append(_learn_value(term, LEARN_IMMEDIATE | LEARN_LOAD))
    body = b"".join(parts)
    size = 40 + len(body)
    fixed = pack(
        "!HHIHHHHQHBxHHIHH", ACTION_EXPERIMENTER, size + -size % 8, NICIRA, NX_LEARN2,
        learn.idle_timeout, 0, learn.priority, learn.cookie, 0, learn.table, 0, 0, learn.limit, 0, 0,
    )  # fmt: skip
    return fixed + body + padding(size)


def _learn_value(term: Term, flags: int) -> bytes:
    field = term.field
    if term.mask is not None:
        raise EncodeError(f"a learnt flow takes whole fields only, not {field} with a mask")
    # Values are in units of 16 bits.
    value = term.value.to_bytes(field.length + field.length % 2, "big")
    return pack("!H", field.bits | flags) + value + field.header + b"\0\0"


def _set_field(field: Field, value: int, mask: int | None) -> bytes:
    oxm = _term(Term(field, value, mask))
    size = 4 + len(oxm)
    pad = -size % 8
    return _ACTION.pack(ACTION_SET_FIELD, size + pad) + oxm + bytes(pad)


def _ct(ct: Ct) -> bytes:
    nested = (_nat(ct.nat) if ct.nat is not None else b"") + actions(ct.execute)
    flags = ct.commit | ct.force << 1
    table = NO_TABLE if ct.table is None else ct.table
    size = 24 + len(nested)
    if isinstance(ct.zone, int):
        source, zone = 0, int(ct.zone)
    else:
        source, zone = int.from_bytes(ct.zone.field.header, "big"), ct.zone.start << 6 | ct.zone.width - 1
    return pack("!HHIHHIHB3xH", ACTION_EXPERIMENTER, size, NICIRA, NX_CT, flags, source, zone, table, 0) + nested


def _nat(nat: Nat) -> bytes:
    flags = {"": 0, "src": NAT_SRC, "dst": NAT_DST}[nat.kind]
    width = 16 if nat.ipv6 else 4
    present, ranges = 0, b""
    for value, bit, size in (
        (nat.address_min, NAT_IPV6_MIN if nat.ipv6 else NAT_IPV4_MIN, width),
        (nat.address_max, NAT_IPV6_MAX if nat.ipv6 else NAT_IPV4_MAX, width),
        (nat.port_min, NAT_PORT_MIN, 2),
        (nat.port_max, NAT_PORT_MAX, 2),
    ):
        if value is not None:
            present |= bit
            ranges += value.to_bytes(size, "big")
    size = 16 + len(ranges)
    # Padded here, and counted in the length: what follows must start at a multiple of eight.
    fixed = pack("!HHIH2xHH", ACTION_EXPERIMENTER, size + -size % 8, NICIRA, NX_NAT, flags, present)
    return fixed + ranges + padding(size)


# Groups -------------------------------------------------------------------------------------------------------------


def group_mod(group: Group, command: GroupCommand = GroupCommand.ADD_OR_MODIFY, xid: int = 0) -> bytes:
    """Make, change or delete a group. Deleting one deletes the flows that use it."""
    buckets, properties = b"", b""
    try:
        if command is not GroupCommand.DELETE:
            buckets = b"".join([_bucket(group.type, bucket) for bucket in group.buckets])
            properties = _selection(group)
        body = pack("!HBxIH2xI", command, group.type, group.group_id, len(buckets), BUCKET_ALL) + buckets + properties
    except StructError as error:
        raise EncodeError(f"group {group.group_id} doesn't fit an OpenFlow message: {error}") from error
    return _message(Type.GROUP_MOD, body, xid)


def _bucket(kind: GroupType, bucket: Bucket) -> bytes:
    encoded = actions(bucket.program)
    properties = b""
    if kind is GroupType.SELECT:
        properties += pack("!HHH2x", BUCKET_WEIGHT, 8, bucket.weight)
    if bucket.watch_port != PORT_ANY:
        properties += pack("!HHI", BUCKET_WATCH_PORT, 8, bucket.watch_port)
    size = 8 + len(encoded) + len(properties)
    return pack("!HHI", size, len(encoded), bucket.bucket_id) + encoded + properties


def _selection(group: Group) -> bytes:
    if not group.selection_method:
        return b""
    fields = b"".join([field.header + b"\xff" * field.length for field in group.selection_fields])
    size = 40 + len(fields)
    name = group.selection_method.encode()
    fixed = pack("!HHII4x16sQ", 0xFFFF, size, NETRONOME, 1, name, group.selection_parameter)
    return fixed + fields + padding(size)


# Meters -------------------------------------------------------------------------------------------------------------


def meter_add(meter: int, rate: int, burst: int, xid: int = 0) -> bytes:
    """Make a meter that lets `rate` packets a second through, `burst` at a time. There must be none of this number."""
    band = pack("!HHII4x", METER_BAND_DROP, 16, rate, burst)
    return _message(Type.METER_MOD, pack("!HHI", MeterCommand.ADD, METER_FLAGS, meter) + band, xid)


def meter_delete(meter: int, xid: int = 0) -> bytes:
    """Delete a meter, if it is there."""
    return _message(Type.METER_MOD, pack("!HHI", MeterCommand.DELETE, METER_FLAGS, meter), xid)


# Everything else ----------------------------------------------------------------------------------------------------


def _message(kind: Type, body: bytes = b"", xid: int = 0) -> bytes:
    size = HEADER.size + len(body)
    if size > MAX_MESSAGE:
        raise EncodeError(f"a {kind.name} message of {size} bytes is too long for OpenFlow")
    return HEADER.pack(VERSION, kind, size, xid) + body


def hello(xid: int = 0) -> bytes:
    """Says that this end speaks OpenFlow 1.5 and nothing else."""
    return _message(Type.HELLO, pack("!HHI", 1, 8, 1 << VERSION), xid)


def error(kind: int, code: int, data: bytes = b"", xid: int = 0) -> bytes:
    """An error about the peer's message `data` (its first 64 bytes)."""
    return _message(Type.ERROR, pack("!HH", kind, code) + data[:64], xid)


def echo_request(data: bytes = b"", xid: int = 0) -> bytes:
    """Asks whether the peer is there."""
    return _message(Type.ECHO_REQUEST, data, xid)


def echo_reply(data: bytes, xid: int) -> bytes:
    """The answer, with the data and the xid of the request."""
    return _message(Type.ECHO_REPLY, data, xid)


def features_request(xid: int = 0) -> bytes:
    """Asks for the datapath id."""
    return _message(Type.FEATURES_REQUEST, b"", xid)


def set_config(miss_send_len: int, xid: int = 0) -> bytes:
    """How many bytes of a packet a packet-in carries; with 0xffff all of them."""
    return _message(Type.SET_CONFIG, pack("!HH", 0, miss_send_len), xid)


def barrier_request(xid: int = 0) -> bytes:
    """Is answered when everything before it is done."""
    return _message(Type.BARRIER_REQUEST, b"", xid)


def role_request(role: Role, generation_id: int = 0, xid: int = 0) -> bytes:
    """Asks for a role; for MASTER and SLAVE with the generation that this controller holds."""
    return _message(Type.ROLE_REQUEST, pack("!IH2xQ", role, 0xFFFF, generation_id), xid)


def hear_packets_as_slave(xid: int = 0) -> bytes:
    """Have the switch send the packets that flows send to the controller here too, while another one is its master."""
    return _message(Type.SET_ASYNC, pack("!HHI", ASYNC_PACKET_IN_SLAVE, 8, 1 << Reason.APPLY_ACTION), xid)


def bundle_control(step: BundleControl, bundle_id: int, xid: int = 0) -> bytes:
    """Open, commit or discard an ordered, atomic bundle."""
    return _message(Type.BUNDLE_CONTROL, pack("!IHH", bundle_id, step, BUNDLE_FLAGS), xid)


def packet_out(data: bytes, program: Program, in_port: int, xid: int = 0) -> bytes:
    """Send a packet through `program` as if it had entered by `in_port`."""
    encoded = actions(program)
    body = pack("!IH2x", NO_BUFFER, len(encoded)) + _match((IN_PORT(in_port),)) + encoded + data
    return _message(Type.PACKET_OUT, body, xid)


def _match(match: Match) -> bytes:
    terms = b"".join([_term(term) for term in match])
    return pack("!HH", 1, 4 + len(terms)) + terms + padding(4 + len(terms))


def ct_flush(zone: int, protocol: int, source: int, port: int, xid: int = 0) -> bytes:
    """Forget the connections of a zone whose answers come from this address and port (nicira-ext.h, NXT_CT_FLUSH).

    Port 0 stands for all. `source` is the number of an IPv6 address, of IPv4 that of its mapped form (RFC 4291 section
    2.5.5.2).
    """
    address = pack("!HH", CT_TUPLE_SOURCE, 20) + source.to_bytes(16, "big") + padding(20)
    ends = address + (pack("!HHH2x", CT_TUPLE_SOURCE_PORT, 8, port) if port else b"")
    reply = pack("!HH4x", CT_FLUSH_REPLY, 8 + len(ends)) + ends
    head = pack("!IIB7x", NICIRA, NXT_CT_FLUSH, protocol)
    return _message(Type.EXPERIMENTER, head + reply + pack("!HHH2x", CT_FLUSH_ZONE, 8, zone), xid)


def _multipart(kind: Multipart, body: bytes, xid: int) -> bytes:
    return _message(Type.MULTIPART_REQUEST, pack("!HH4x", kind, 0) + body, xid)


def port_desc_request(xid: int = 0) -> bytes:
    """Asks for every port's description."""
    return _multipart(Multipart.PORT_DESC, pack("!I4x", PORT_ANY), xid)


def desc_request(xid: int = 0) -> bytes:
    """Asks what the switch and its datapath are."""
    return _multipart(Multipart.DESC, b"", xid)


def port_stats_request(xid: int = 0) -> bytes:
    """Asks what every port has carried."""
    return _multipart(Multipart.PORT_STATS, pack("!I4x", PORT_ANY), xid)


def _flow_filter(table: int, cookie: int, cookie_mask: int, match: Match) -> bytes:
    return pack("!B3xII4xQQ", table, PORT_ANY, GROUP_ANY, cookie, cookie_mask) + _match(match)


def flow_stats_request(
    table: int = TABLE_ALL, cookie: int = 0, cookie_mask: int = 0, match: Match = (), xid: int = 0
) -> bytes:
    """Asks for the flows of a table, or of all, whose cookie agrees in the mask and that are within `match`."""
    return _multipart(Multipart.FLOW_DESC, _flow_filter(table, cookie, cookie_mask, match), xid)


def aggregate_request(
    table: int = TABLE_ALL, cookie: int = 0, cookie_mask: int = 0, match: Match = (), xid: int = 0
) -> bytes:
    """Asks how many such flows there are and what they have carried."""
    return _multipart(Multipart.AGGREGATE, _flow_filter(table, cookie, cookie_mask, match), xid)


def table_stats_request(xid: int = 0) -> bytes:
    """Asks how many flows each table has."""
    return _multipart(Multipart.TABLE, b"", xid)


def group_stats_request(xid: int = 0) -> bytes:
    """Asks what every group, and every bucket of it, has carried."""
    return _multipart(Multipart.GROUP, pack("!I4x", GROUP_ALL), xid)


def group_desc_request(xid: int = 0) -> bytes:
    """Asks for every group."""
    return _multipart(Multipart.GROUP_DESC, pack("!I4x", GROUP_ALL), xid)
