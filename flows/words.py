"""A flow in words, for people who know networks but not this pipeline's registers."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from flows import fields as f
from flows.cookies import Scope
from flows.fields import Field, Term
from flows.pipeline import DIGEST, TABLE_NAMES
from flows.registers import EXIT, EXIT_PORT, SOURCE, Exit, Source, Zone
from flows.tables.digest import digest_flow
from flows.text import match_text, program_text, value_text
from flows.values import (
    PORT_IN_PORT,
    Action,
    Ct,
    Flow,
    Goto,
    Move,
    Nat,
    Note,
    Output,
    OutputBits,
    Program,
    SetField,
    ToGroup,
)
from topology.naming import GATEWAY_MAC, ROUTER_MAC

_SOURCES: dict[int, str] = {
    Source.POD: "a pod",
    Source.TUNNEL: "the tunnel",
    Source.GATEWAY: "the host",
    Source.WORLD: "the world",
}
_EXITS: dict[int, str] = {Exit.PORT: "a port", Exit.TUNNEL: "the tunnel", Exit.GATEWAY: "the host"}
_ZONES: dict[int, str] = {zone.value: zone.name for zone in Zone}
_DIGESTS = {
    digest_flow(Scope.CLUSTER, 0).match: "flows that are the same on all nodes",
    digest_flow(Scope.NODE, 0).match: "node's own flows",
}
_MACS = {ROUTER_MAC: "the router's MAC", GATEWAY_MAC: "the host's MAC"}


def flow_words(flow: Flow, ports: Mapping[int, str]) -> str:
    """What a flow catches and what it does. `ports` names ports by their numbers."""
    if flow.table == DIGEST.number and flow.match in _DIGESTS:
        return f"no packet; the digest of the {_DIGESTS[flow.match]}: {flow.cookie:016x}"
    return f"{_catches(flow.match, ports)}: {_does(flow.program, ports)}"


def _catches(match: tuple[Term, ...], ports: Mapping[int, str]) -> str:
    words: list[str] = []
    rest: list[Term] = []
    for term in match:
        if term.field is f.IN_PORT:
            words.append(f"from {_port(term.value, ports)}")
        elif term.field is SOURCE.field and term.mask == SOURCE.mask and term.value in _SOURCES:
            words.append(f"from {_SOURCES[term.value]}")
        elif term.field is EXIT.field and term.mask == EXIT.mask and term.value >> EXIT.start in _EXITS:
            words.append(f"bound for {_EXITS[term.value >> EXIT.start]}")
        else:
            rest.append(term)
    spelled = match_text(tuple(rest))
    return " ".join(filter(None, [",".join(spelled), *words])) or "everything else"


def _does(program: Program, ports: Mapping[int, str]) -> str:
    if not program:
        return "drop"
    exit_port = next(
        (each.value for each in program if isinstance(each, SetField) and each.field is EXIT_PORT.field), 0
    )
    words = [_act(action, ports, exit_port) for action in program]
    return ", ".join(word for word in words if word)


def _act(action: Action, ports: Mapping[int, str], exit_port: int) -> str:
    match action:
        case Goto(table):
            return f"go on in {TABLE_NAMES.get(table, table)}"
        case Output(port):
            return f"send to {_port(port, ports)}"
        case OutputBits(bits) if bits == EXIT_PORT:
            return "send to the exit port"
        case SetField(field, value, mask) if (field, mask) == (SOURCE.field, SOURCE.mask) and value in _SOURCES:
            return f"it comes from {_SOURCES[value]}"
        case SetField(field, value, mask) if (field, mask) == (EXIT.field, EXIT.mask) and value >> EXIT.start in _EXITS:
            leaving = value >> EXIT.start
            return f"it leaves by {_port(exit_port, ports) if leaving == Exit.PORT else _EXITS[leaving]}"
        case SetField(field) if field is EXIT_PORT.field:
            return ""
        case SetField(field, value) if field in (f.TUN_DST, f.TUN_IPV6_DST):
            end = IPv4Address(value) if field is f.TUN_DST else IPv6Address(value)
            return f"tunnel to {end}"
        case SetField(field, value, None):
            return f"{_field(field)} = {_MACS.get(value) or value_text(field, value)}"
        case Move(source, target):
            return f"{target.name} = {source.name}"
        case Ct(zone):
            return _track(action, zone)
        case ToGroup(number):
            return f"have group {number} choose"
        case Note(data):
            return f"no packet; a note for the host: {data.rstrip(bytes(1)).decode(errors='replace').rstrip()}"
    return program_text((action,), names=True)


def _track(ct: Ct, zone: int) -> str:
    where = f" in zone {_ZONES.get(zone, zone)}"
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


def _port(number: int, ports: Mapping[int, str]) -> str:
    return "where it came from" if number == PORT_IN_PORT else ports.get(number, f"port {number}")
