"""A flow in words, for people who know networks but not this pipeline's registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address

import msgspec

from flows import fields as f
from flows.cookies import Scope
from flows.fields import Field, Term
from flows.pipeline import DIGEST, TABLE_NAMES
from flows.registers import (
    BY_ADDRESS,
    CT_ZONE,
    DESTINATION_IDENTITY,
    ENDPOINT,
    EXIT,
    EXIT_PORT,
    FROM_POD,
    HAIRPIN,
    MARK_SERVICE,
    MARK_WORLD,
    SERVICE,
    SNAT_ZONE,
    SOURCE,
    SOURCE_IDENTITY,
    SUBNET,
    TO_NODE,
    TO_POD,
    TUNNEL_KEY,
    WIRE_KEY,
    ZONE,
    Bits,
    Exit,
    Identity,
    Source,
    Zone,
)
from flows.tables.digest import digest_flow
from flows.text import match_text, program_text, value_text
from flows.values import (
    PORT_IN_PORT,
    Action,
    Conjunction,
    Ct,
    DecTtl,
    Flow,
    Goto,
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
from topology.naming import GATEWAY_MAC, ROUTER_MAC

_SOURCES: dict[int, str] = {
    Source.POD: "a pod",
    Source.TUNNEL: "another node",
    Source.GATEWAY: "the host",
    Source.WORLD: "the world",
}
_EXITS: dict[int, str] = {
    Exit.PORT: "a port",
    Exit.TUNNEL: "the tunnel",
    Exit.GATEWAY: "the host",
    Exit.FABRIC: "a wire",
    Exit.ROUTED: "the host, on to another node",
}
_ZONES: dict[int, str] = {zone.value: zone.name for zone in Zone}
#: Where a register says the zone's number.
_ZONE_WORDS = {CT_ZONE: " in this bridge's zone", SNAT_ZONE: " in this bridge's zone for other sources"}
_DIGESTS = {
    digest_flow(Scope.CLUSTER, 0).match: "flows that are the same on all nodes",
    digest_flow(Scope.NODE, 0).match: "node's own flows",
}
_MACS = {ROUTER_MAC: "the router's MAC", GATEWAY_MAC: "the host's MAC"}


_IDENTITIES: dict[int, str] = {
    Identity.NONE: "nobody",
    Identity.THIS_HOST: "this host",
    Identity.OTHER_NODE: "another node",
    Identity.WORLD: "the world",
    Identity.JUDGED: "one who was judged already",
}
_ENDS = (SOURCE_IDENTITY, DESTINATION_IDENTITY)
#: What is said of a packet that has a bit, and of one that is given it.
_FLAGS = {
    HAIRPIN: ("that goes back", "it goes back where it came from"),
    BY_ADDRESS: ("from another node without a key", "only its address says whose it is"),
    TO_NODE: ("to an address of a node", "it is bound for an address of a node"),
    MARK_SERVICE: ("of a connection to a Service", "the connection is to a Service"),
    MARK_WORLD: ("of a connection from the world", "the connection is from the world"),
}
#: Numbers with no name: what is said of a packet that has one, and of one that is given it.
_NUMBERS = {
    SUBNET: ("on L2 segment {}", "this is L2 segment {}"),
    ZONE: ("in topology zone {:#x}", "this is topology zone {:#x}"),
    SERVICE: ("for group {}", "it is for group {}"),
    ENDPOINT: ("for endpoint {:#x}", "it is for endpoint {:#x}"),
}
#: Bits of registers and connections that are told in words of their own.
_SPOKEN = (SOURCE, EXIT, *_FLAGS, *_NUMBERS, SOURCE_IDENTITY, FROM_POD, DESTINATION_IDENTITY, TO_POD)


def identity_text(identity: Identity) -> str:
    """Who an identity is that is no pod's."""
    return _IDENTITIES[identity]


def _unknown(_number: int) -> str:
    """Nothing has a name."""
    return ""


class Names(msgspec.Struct, frozen=True):
    """What people call things by their numbers: ports, identities of pods, and rules that are conjunctions.

    Endpoints are by what their connections keep: the number of the Service's port, and below it that of the endpoint.
    Groups are by what they choose among. Both are asked for one by one: there are many, and few of them are ever told.
    """

    ports: Mapping[int, str] = {}
    identities: Mapping[int, str] = {}
    rules: Mapping[int, str] = {}
    endpoints: Callable[[int], str | None] = _unknown
    groups: Callable[[int], str] = _unknown

    def port(self, number: int) -> str:
        return "where it came from" if number == PORT_IN_PORT else self.ports.get(number, f"port {number}")

    def identity(self, number: int) -> str:
        return self.identities.get(number) or _IDENTITIES.get(number) or f"identity {number}"

    def rule(self, number: int) -> str:
        return self.rules.get(number, f"conjunction {number}")

    def endpoint(self, label: int) -> str:
        return self.endpoints(label) or f"an endpoint that is labelled {label:#x}"


def flow_words(flow: Flow, names: Names) -> str:
    """What a flow catches and what it does."""
    if flow.table == DIGEST.number and flow.match in _DIGESTS:
        return f"no packet; the digest of the {_DIGESTS[flow.match]}: {flow.cookie:016x}"
    return f"{_catches(flow.match, names)}: {_does(flow.program, names)}"


def _catches(match: tuple[Term, ...], names: Names) -> str:
    words: list[str] = []
    rest: list[Term] = []
    for term in match:
        if term.field is f.IN_PORT:
            words.append(f"from {names.port(term.value)}")
        elif term.field is f.CONJ_ID:
            words.append(f"all parts of {names.rule(term.value)}")
        elif term.field is f.TUN_ID and term.mask is None:
            words.append(f"with the key of {names.identity(term.value)}")
        elif term.field is f.CT_LABEL and term.mask is None:
            words.append(f"of a connection to {names.endpoint(term.value)}")
        else:
            parts, left = _parts(term.field, term.value, term.mask)
            words += [_caught(bits, value, parts, names) for bits, value in parts.items()]
            if left or not parts:
                rest.append(Term(term.field, term.value & left, None if left == term.field.maximum else left))
    spelled = match_text(tuple(rest))
    return " ".join(filter(None, [",".join(spelled), *words])) or "everything else"


def _parts(field: Field, value: int, mask: int | None) -> tuple[dict[Bits, int], int]:
    """What words can tell of a register, part by part, and the mask of the rest."""
    left = field.maximum if mask is None else mask
    found: dict[Bits, int] = {}
    for bits in _SPOKEN:
        number = (value & bits.mask) >> bits.start
        if bits.field is field and left & bits.mask == bits.mask and _has_words(bits, number):
            found[bits] = number
            left &= ~bits.mask
    return found, left


def _has_words(bits: Bits, value: int) -> bool:
    if bits is SOURCE:
        return value in _SOURCES
    if bits is EXIT:
        return value in _EXITS
    return bits.width > 1 or value == 1


def _caught(bits: Bits, value: int, parts: Mapping[Bits, int], names: Names) -> str:
    if bits is SOURCE:
        return f"from {_SOURCES[value]}"
    if bits is EXIT:
        return f"bound for {_EXITS[value]}"
    if bits in _FLAGS:
        return _FLAGS[bits][0]
    if bits in _NUMBERS:
        return _NUMBERS[bits][0].format(value)
    if bits in _ENDS:
        return f"{'from' if bits is SOURCE_IDENTITY else 'to'} {names.identity(value)}"
    # That it is a pod is clear where its identity is told.
    identity = SOURCE_IDENTITY if bits is FROM_POD else DESTINATION_IDENTITY
    return "" if identity in parts else f"{'from' if bits is FROM_POD else 'to'} any pod"


def _does(program: Program, names: Names) -> str:
    if not program:
        return "drop"
    exit_port = next(
        (each.value for each in program if isinstance(each, SetField) and each.field is EXIT_PORT.field), 0
    )
    words = [_act(action, names, exit_port) for action in program]
    return ", ".join(word for word in words if word)


def _act(action: Action, names: Names, exit_port: int) -> str:
    match action:
        case Goto(table):
            return f"go on in {TABLE_NAMES.get(table, table)}"
        case Output(port):
            return f"send to {names.port(port)}"
        case OutputBits(bits) if bits == EXIT_PORT:
            return "send to the exit port"
        case SetField(field) if field is EXIT_PORT.field:
            return ""
        case SetField(field, value) if field in (f.TUN_DST, f.TUN_IPV6_DST):
            end = IPv4Address(value) if field is f.TUN_DST else IPv6Address(value)
            return f"tunnel to {end}"
        case SetField(field, value, None) if field is CT_ZONE.field:
            zones = [(value & bits.mask) >> bits.start for bits in (CT_ZONE, SNAT_ZONE)]
            return f"the zones here are {' and '.join(str(_ZONES.get(zone, zone)) for zone in zones)}"
        case SetField(field, value, mask):
            return _set(field, value, mask, names, exit_port)
        case Move(source, target) if (source, target) == (TUNNEL_KEY, SOURCE_IDENTITY):
            return "the sender is who the tunnel's key says"
        case Move(source, target) if (source, target) == (SOURCE_IDENTITY, TUNNEL_KEY):
            return "the tunnel's key says who sends"
        case Move(source, target) if (source, target) == (WIRE_KEY, SOURCE_IDENTITY):
            return "the sender is who the frame says"
        case Move(source, target) if (source, target) == (SOURCE_IDENTITY, WIRE_KEY):
            return "the frame says who sends"
        case Move(source, target):
            return f"{target.name} = {source.name}"
        case Ct(zone):
            return _track(action, zone)
        case DecTtl():
            return "one hop less to go"
        case ToGroup(number):
            return f"have group {number} choose {names.groups(number)}".rstrip()
        case Conjunction(number, clause, clauses):
            return f"part {clause} of {clauses} of {names.rule(number)}"
        case Tell():
            return "tell the controller, as often as the meter allows"
        case Learn(idle_timeout=seconds):
            return f"remember this client's endpoint until it was away for {seconds} s"
        case Resubmit(table):
            return f"look it up in {TABLE_NAMES.get(table, table)}"
        case Note(data):
            return f"no packet; a note for the host: {data.rstrip(bytes(1)).decode(errors='replace').rstrip()}"
    return program_text((action,), names=True)


def _set(field: Field, value: int, mask: int | None, names: Names, exit_port: int) -> str:
    parts, left = _parts(field, value, mask)
    words = [_told(bits, number, parts, names, exit_port) for bits, number in parts.items()]
    if not parts and mask is None:
        words.append(f"{_field(field)} = {_MACS.get(value) or value_text(field, value)}")
    elif left:
        words.append(program_text((SetField(field, value & left, left),)))
    return ", ".join(filter(None, words))


def _told(bits: Bits, value: int, parts: Mapping[Bits, int], names: Names, exit_port: int) -> str:
    if bits is SOURCE:
        return f"it comes from {_SOURCES[value]}"
    if bits is EXIT:
        return f"it leaves by {names.port(exit_port) if value == Exit.PORT else _EXITS[value]}"
    if bits in _FLAGS:
        return _FLAGS[bits][1]
    if bits in _NUMBERS:
        return _NUMBERS[bits][1].format(value)
    who = "the sender" if bits in (SOURCE_IDENTITY, FROM_POD) else "the receiver"
    if bits in _ENDS:
        return f"{who} is {names.identity(value)}"
    identity = SOURCE_IDENTITY if bits is FROM_POD else DESTINATION_IDENTITY
    return "" if identity in parts else f"{who} is a pod"


def _track(ct: Ct, zone: int | Bits) -> str:
    where = f" in zone {_ZONES.get(zone, zone)}" if isinstance(zone, int) else _ZONE_WORDS[zone]
    onward = f", go on in {TABLE_NAMES.get(ct.table, ct.table)}" if ct.table else ""
    if ct.commit:
        return "commit the connection" + where + _translation(ct.nat) + onward
    return "look up the connection" + where + onward


def _translation(nat: Nat | None) -> str:
    if nat is None or nat.address_min is None:
        return ""
    address = IPv6Address(nat.address_min) if nat.ipv6 else IPv4Address(nat.address_min)
    end = "source" if nat.kind == "src" else "destination"
    where = f"[{address}]" if nat.ipv6 and nat.port_min else str(address)
    return f" with the {end} {where}" + (f":{nat.port_min}" if nat.port_min else "")


def _field(field: Field) -> str:
    return {f.ETH_SRC: "source MAC", f.ETH_DST: "destination MAC"}.get(field, field.name)
