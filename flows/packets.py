"""Packets as the interpreter takes them: fields and their values. One function for each kind of packet."""

from __future__ import annotations

from flows import fields as f
from flows.fields import Field
from topology.naming import Address

Fields = dict[Field, int]
_ECHO_REQUEST = {4: 8, 6: 128}
_ECHO_REPLY = {4: 0, 6: 129}
_BROADCAST = 0xFFFF_FFFF_FFFF


def ip(in_port: int, macs: tuple[int, int], source: Address, destination: Address, protocol: int) -> Fields:
    """An IP packet; `macs` are those of its source and its destination."""
    packet = {f.IN_PORT: in_port, f.ETH_SRC: macs[0], f.ETH_DST: macs[1], f.IP_PROTO: protocol, f.IP_TTL: 64}
    if source.version == 4:
        return packet | {f.ETH_TYPE: f.ETH_IPV4, f.IPV4_SRC: int(source), f.IPV4_DST: int(destination)}
    return packet | {f.ETH_TYPE: f.ETH_IPV6, f.IPV6_SRC: int(source), f.IPV6_DST: int(destination)}


def ping(in_port: int, macs: tuple[int, int], source: Address, destination: Address, *, reply: bool = False) -> Fields:
    """An ICMP or ICMPv6 echo request, or the reply to one."""
    kind = (_ECHO_REPLY if reply else _ECHO_REQUEST)[source.version]
    if source.version == 4:
        return ip(in_port, macs, source, destination, f.PROTO_ICMP) | {f.ICMPV4_TYPE: kind, f.ICMPV4_CODE: 0}
    return ip(in_port, macs, source, destination, f.PROTO_ICMPV6) | {f.ICMPV6_TYPE: kind, f.ICMPV6_CODE: 0}


def tcp(in_port: int, macs: tuple[int, int], source: tuple[Address, int], destination: tuple[Address, int]) -> Fields:
    """A TCP segment between two (address, port)."""
    packet = ip(in_port, macs, source[0], destination[0], f.PROTO_TCP)
    return packet | {f.TCP_SRC: source[1], f.TCP_DST: destination[1]}


def udp(in_port: int, macs: tuple[int, int], source: tuple[Address, int], destination: tuple[Address, int]) -> Fields:
    """A UDP datagram between two (address, port)."""
    packet = ip(in_port, macs, source[0], destination[0], f.PROTO_UDP)
    return packet | {f.UDP_SRC: source[1], f.UDP_DST: destination[1]}


def arp(in_port: int, mac: int, sender: tuple[int, Address], target: Address, *, operation: int = 1) -> Fields:
    """An ARP packet from `mac` that says that `sender` (MAC, address) asks for `target`; operation 2 is an answer."""
    return {
        f.IN_PORT: in_port,
        f.ETH_SRC: mac,
        f.ETH_DST: _BROADCAST,
        f.ETH_TYPE: f.ETH_ARP,
        f.ARP_OP: operation,
        f.ARP_SHA: sender[0],
        f.ARP_SPA: int(sender[1]),
        f.ARP_THA: 0,
        f.ARP_TPA: int(target),
    }


def solicitation(in_port: int, mac: int, sender: tuple[int, Address], target: Address) -> Fields:
    """A neighbour solicitation from `mac` that says that `sender` (MAC, address) asks for `target`."""
    low = int(target) & 0xFF_FFFF
    packet = {f.ETH_SRC: mac, f.ETH_DST: 0x3333_FF00_0000 | low, f.ETH_TYPE: f.ETH_IPV6, f.IP_PROTO: f.PROTO_ICMPV6}
    # To the solicited-node multicast address (RFC 4291 section 2.7.1).
    destination = 0xFF02_0000_0000_0000_0000_0001_FF00_0000 | low
    return packet | {
        f.IN_PORT: in_port,
        f.IPV6_SRC: int(sender[1]),
        f.IPV6_DST: destination,
        f.IP_TTL: 255,
        f.ICMPV6_TYPE: 135,
        f.ICMPV6_CODE: 0,
        f.ND_TARGET: int(target),
        f.ND_SLL: sender[0],
        f.ND_RESERVED: 0,
        f.ND_OPTIONS_TYPE: 1,
    }
