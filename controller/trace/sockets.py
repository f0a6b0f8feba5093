"""A packet's two ends, and where a Service's flows send it, as people write them: 10.244.1.2:80, [fd00::2]:80. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from controller.trace.result import Translation
from flows import fields as f
from flows.interpreter import Packet
from flows.values import Ct, Program
from topology.naming import Address

_ENDS = {
    "source": ((f.IPV4_SRC, f.IPV6_SRC), (f.TCP_SRC, f.UDP_SRC, f.SCTP_SRC)),
    "destination": ((f.IPV4_DST, f.IPV6_DST), (f.TCP_DST, f.UDP_DST, f.SCTP_DST)),
}


def address_of(packet: Packet, end: str) -> Address:
    """The address of an end, `source` or `destination`."""
    four, six = _ENDS[end][0]
    return IPv4Address(packet[four]) if four in packet else IPv6Address(packet[six])


def port_at(packet: Packet, end: str) -> int:
    """Its port; 0 where there are none."""
    return next((packet[field] for field in _ENDS[end][1] if field in packet), 0)


def socket_of(packet: Packet, end: str) -> str:
    """Both, as people write them."""
    return socket(address_of(packet, end), port_at(packet, end))


def socket(address: Address, port: int) -> str:
    """ADDRESS:PORT, or the address alone where the port is 0."""
    host = f"[{address}]" if address.version == 6 and port else str(address)
    return f"{host}:{port}" if port else host


def translations(before: Packet, after: Packet) -> Iterable[Translation]:
    """The ends of which a packet has others than before."""
    for end in _ENDS:
        texts = [socket_of(packet, end) for packet in (before, after)]
        if texts[0] != texts[1]:
            yield Translation(end=end, before=texts[0], after=texts[1])


def endpoint_of(program: Program) -> str:
    """Where a program sends connections; empty where it doesn't, or only names an endpoint."""
    for action in program:
        if (
            isinstance(action, Ct)
            and action.nat is not None
            and action.nat.kind == "dst"
            and action.nat.address_min is not None
        ):
            number, port = action.nat.address_min, action.nat.port_min or 0
            return socket(IPv6Address(number) if action.nat.ipv6 else IPv4Address(number), port)
    return ""
