"""Flows and groups as ovs-ofctl writes them: canonical text for goldens, logs and people.

With `names`, tables go by name as `ovs-ofctl --names` shows them; without, `ovs-ofctl add-flow` takes the text.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from flows import fields as f
from flows.fields import Field, Term
from flows.pipeline import TABLE_NAMES
from flows.registers import Bits, whole
from flows.values import (
    PORT_ANY,
    PORT_CONTROLLER,
    PORT_IN_PORT,
    PORT_LOCAL,
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
from topology.naming import format_mac

_ADDRESSES_V4 = {f.TUN_SRC, f.TUN_DST, f.IPV4_SRC, f.IPV4_DST, f.ARP_SPA, f.ARP_TPA}
_ADDRESSES_V6 = {f.TUN_IPV6_SRC, f.TUN_IPV6_DST, f.IPV6_SRC, f.IPV6_DST, f.ND_TARGET}
_MACS = {f.ETH_SRC, f.ETH_DST, f.ARP_SHA, f.ARP_THA, f.ND_SLL, f.ND_TLL}
_HEX = {f.REG0, f.REG1, f.REG2, f.REG3, f.REG4, f.REG5, f.REG6, f.REG7, f.REG9, f.TUN_ID, f.CT_MARK, f.CT_LABEL}
#: Names in matches where ovs-ofctl prints others than in set_field.
_MATCH_NAMES = {f.ETH_SRC: "dl_src", f.ETH_DST: "dl_dst", f.ICMPV6_TYPE: "icmp_type", f.ICMPV6_CODE: "icmp_code"}
_SET_NAMES = {f.IPV4_SRC: "ip_src", f.IPV4_DST: "ip_dst"}
_NXM_NAMES = {
    f.ETH_SRC: "NXM_OF_ETH_SRC",
    f.ETH_DST: "NXM_OF_ETH_DST",
    f.ARP_SPA: "NXM_OF_ARP_SPA",
    f.ARP_TPA: "NXM_OF_ARP_TPA",
    f.IPV4_SRC: "NXM_OF_IP_SRC",
    f.IPV4_DST: "NXM_OF_IP_DST",
    f.IN_PORT: "NXM_OF_IN_PORT",
}
_PROTOCOLS = {
    (f.ETH_IPV4, None): "ip",
    (f.ETH_IPV6, None): "ipv6",
    (f.ETH_ARP, None): "arp",
    (f.ETH_IPV4, f.PROTO_ICMP): "icmp",
    (f.ETH_IPV4, f.PROTO_TCP): "tcp",
    (f.ETH_IPV4, f.PROTO_UDP): "udp",
    (f.ETH_IPV4, f.PROTO_SCTP): "sctp",
    (f.ETH_IPV6, f.PROTO_ICMPV6): "icmp6",
    (f.ETH_IPV6, f.PROTO_TCP): "tcp6",
    (f.ETH_IPV6, f.PROTO_UDP): "udp6",
    (f.ETH_IPV6, f.PROTO_SCTP): "sctp6",
}
_CT_STATES = ((f.CT_NEW, "new"), (f.CT_EST, "est"), (f.CT_REL, "rel"), (f.CT_RPL, "rpl"), (f.CT_INV, "inv"))
_PORTS = {PORT_IN_PORT: "IN_PORT", PORT_CONTROLLER: "CONTROLLER", PORT_LOCAL: "LOCAL"}
_TYPES = {
    GroupType.ALL: "all",
    GroupType.SELECT: "select",
    GroupType.INDIRECT: "indirect",
    GroupType.FAST_FAILOVER: "fast_failover",
}


def flow_text(item: Flow | Group, *, names: bool = False) -> str:
    """A flow or group as one line."""
    if isinstance(item, Group):
        return group_text(item, names=names)
    parts = [f"cookie={item.cookie:#x}", f"table={table_text(item.table, names)}", f"priority={item.priority}"]
    parts += match_text(item.match)
    return f"{','.join(parts)} actions={program_text(item.program, names=names)}"


def group_text(group: Group, *, names: bool = False) -> str:
    """A group as one line."""
    parts = [f"group_id={group.group_id}", f"type={_TYPES[group.type]}"]
    if group.selection_method:
        parts.append(f"selection_method={group.selection_method}")
        if group.selection_parameter:
            parts.append(f"selection_method_param={group.selection_parameter}")
        if group.selection_fields:
            parts.append(f"fields({','.join(each.name for each in group.selection_fields)})")
    return ",".join(parts + [_bucket_text(group.type, bucket, names) for bucket in group.buckets])


def _bucket_text(kind: GroupType, bucket: Bucket, names: bool) -> str:
    parts = [f"bucket=bucket_id:{bucket.bucket_id}"]
    if kind is GroupType.SELECT:
        parts.append(f"weight:{bucket.weight}")
    if bucket.watch_port != PORT_ANY:
        parts.append(f"watch_port:{bucket.watch_port}")
    return ",".join([*parts, f"actions={program_text(bucket.program, names=names)}"])


def table_text(number: int, names: bool) -> str:
    """A table's name, or its number where it has none or none is wanted."""
    return TABLE_NAMES.get(number, str(number)) if names else str(number)


def match_text(match: tuple[Term, ...]) -> list[str]:
    """The terms of a match, EtherType and protocol as one word, in ovs-ofctl's spelling."""
    values = {term.field: term for term in match}
    ethertype, protocol = values.get(f.ETH_TYPE), values.get(f.IP_PROTO)
    skipped: set[Field] = set()
    words: list[str] = []
    if ethertype is not None and ethertype.mask is None:
        plain = protocol.value if protocol is not None and protocol.mask is None else None
        word = _PROTOCOLS.get((ethertype.value, plain)) or _PROTOCOLS.get((ethertype.value, None))
        if word is not None:
            words.append(word)
            skipped.add(f.ETH_TYPE)
            if (ethertype.value, plain) in _PROTOCOLS and plain is not None:
                skipped.add(f.IP_PROTO)
    return words + [_term_text(term) for term in match if term.field not in skipped]


def _term_text(term: Term) -> str:
    name = _MATCH_NAMES.get(term.field, term.field.name)
    if term.field is f.CT_STATE:
        mask = term.field.maximum if term.mask is None else term.mask
        flags = (*_CT_STATES, (f.CT_TRK, "trk"))
        return name + "=" + "".join(("+" if term.value & bit else "-") + word for bit, word in flags if mask & bit)
    return f"{name}={value_text(term.field, term.value, term.mask)}"


def value_text(field: Field, value: int, mask: int | None = None) -> str:
    """A field's value, and its mask if it has one, in the form that fits the field."""
    if field in _ADDRESSES_V4:
        return str(IPv4Address(value)) + ("" if mask is None else "/" + _prefix(mask, 32, str(IPv4Address(mask))))
    if field in _ADDRESSES_V6:
        return str(IPv6Address(value)) + ("" if mask is None else "/" + _prefix(mask, 128, str(IPv6Address(mask))))
    if field in _MACS:
        return format_mac(value) + ("" if mask is None else "/" + format_mac(mask))
    if field in _HEX or mask is not None or field is f.ETH_TYPE:
        return f"{value:#x}" + ("" if mask is None else f"/{mask:#x}")
    return _PORTS.get(value, str(value)) if field is f.IN_PORT else str(value)


def _prefix(mask: int, width: int, otherwise: str) -> str:
    length = mask.bit_count()
    return str(length) if mask == ((1 << length) - 1) << (width - length) else otherwise


def program_text(program: Program, *, names: bool = False) -> str:
    """Actions in order; an empty program is `drop`."""
    return ",".join(_action_text(action, names) for action in program) or "drop"


def _action_text(action: Action, names: bool) -> str:
    match action:
        case Output(port, max_len) if port == PORT_CONTROLLER:
            return f"CONTROLLER:{max_len}"
        case Output(port):
            return _PORTS.get(port, f"output:{port}")
        case OutputBits(bits):
            return f"output:{_bits_text(bits)}"
        case SetField(field, value, mask):
            return f"set_field:{value_text(field, value, mask)}->{_SET_NAMES.get(field, field.name)}"
        case Move(source, target):
            return f"move:{_bits_text(source)}->{_bits_text(target)}"
        case DecTtl():
            return "dec_ttl"
        case ToGroup(group_id):
            return f"group:{group_id}"
        case Goto(table):
            return f"goto_table:{table_text(table, names)}"
        case Ct():
            return _ct_text(action, names)
        case Resubmit(table):
            return f"resubmit(,{table_text(table, names)})"
        case Learn():
            return _learn_text(action, names)
        case Conjunction(number, clause, clauses):
            return f"conjunction({number},{clause}/{clauses})"
        case Tell(meter, max_len):
            return f"controller(max_len={max_len},meter_id={meter})"
        case Note(data):
            # As it is read back: with the zeros that fill it up.
            return "note:" + (data + bytes(-(10 + len(data)) % 8)).hex(".")


def _bits_text(bits: Bits) -> str:
    field = bits.field
    name = _NXM_NAMES.get(field, f"NXM_NX_{field.name.upper()}")
    if bits.width == field.bits:
        return f"{name}[]"
    if bits.width == 1:
        return f"{name}[{bits.start}]"
    return f"{name}[{bits.start}..{bits.start + bits.width - 1}]"


def _learn_text(learn: Learn, names: bool) -> str:
    parts = [f"table={table_text(learn.table, names)}", f"idle_timeout={learn.idle_timeout}"]
    parts += [f"priority={learn.priority}", f"limit={learn.limit}", f"cookie={learn.cookie:#x}"]
    parts += [f"{term.field}={value_text(term.field, term.value)}" for term in learn.terms]
    parts += [_bits_text(whole(field)) for field in learn.copied]
    parts += [f"load:{term.value:#x}->{_bits_text(whole(term.field))}" for term in learn.loads]
    return f"learn({','.join(parts)})"


def _ct_text(ct: Ct, names: bool) -> str:
    parts = ["commit"] * ct.commit + ["force"] * ct.force
    if ct.table is not None:
        parts.append(f"table={table_text(ct.table, names)}")
    parts.append(f"zone={int(ct.zone) if isinstance(ct.zone, int) else _bits_text(ct.zone)}")
    if ct.nat is not None:
        parts.append(_nat_text(ct.nat))
    if ct.execute:
        parts.append(f"exec({program_text(ct.execute, names=names)})")
    return f"ct({','.join(parts)})"


def _nat_text(nat: Nat) -> str:
    if not nat.kind:
        return "nat"
    address = ""
    if nat.address_min is not None:
        ends = [nat.address_min] + ([nat.address_max] if nat.address_max is not None else [])
        spelled = [f"[{IPv6Address(end)}]" if nat.ipv6 else str(IPv4Address(end)) for end in ends]
        address = "-".join(spelled)
    if nat.port_min is not None:
        address += f":{nat.port_min}" + (f"-{nat.port_max}" if nat.port_max is not None else "")
    return f"nat({nat.kind}={address})" if address else f"nat({nat.kind})"
