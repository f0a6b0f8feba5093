"""Connections that policies have denied or allowed, as lines of a log: for policies that ask for it.

Switches send the first bytes of such packets, at a limited rate: so the log is a sample. What comes again within
`WINDOW` seconds - the same policy, ends and port - is counted and told once. Pure: packets in, lines out; time is an
argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from struct import error, unpack_from

import msgspec

from flows.compiler import Compiler
from flows.cookies import OBJECT_MASK
from flows.fields import ETH_IPV4, ETH_IPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP
from flows.openflow.messages import PacketIn
from flows.registers import DESTINATION_IDENTITY, SCRATCH, SOURCE_IDENTITY, Identity
from flows.tables.policy import direction_of
from topology.manifests import object_words
from topology.metadata import Key
from topology.naming import Address, object_id

#: Seconds within which the same is told once.
WINDOW = 10.0
#: Connections that are remembered at a time; of more, each packet is a line.
LIMIT = 10_000
_PORTS = {PROTO_TCP: "TCP", PROTO_UDP: "UDP", PROTO_SCTP: "SCTP"}
_NAMES = {1: "ICMP", 58: "ICMPv6"}
_RESERVED = {
    Identity.THIS_HOST: "its host",
    Identity.OTHER_NODE: "another node",
    Identity.WORLD: "world",
}


class Headers(msgspec.Struct, frozen=True):
    """What a packet's headers say. Ports are 0 where the protocol has none."""

    source: Address
    destination: Address
    protocol: str
    source_port: int = 0
    destination_port: int = 0


def headers(data: bytes) -> Headers | None:
    """An Ethernet frame's IP and port numbers; None where it is something else, or too short."""
    try:
        (ethertype,) = unpack_from("!H", data, 12)
        source: Address
        destination: Address
        if ethertype == ETH_IPV4:
            protocol, at = data[23], 14 + (data[14] & 0xF) * 4
            source, destination = IPv4Address(data[26:30]), IPv4Address(data[30:34])
        elif ethertype == ETH_IPV6:
            protocol, at = data[20], 54
            source, destination = IPv6Address(data[22:38]), IPv6Address(data[38:54])
        else:
            return None
        name = _PORTS.get(protocol)
        if name is None:
            return Headers(source, destination, _NAMES.get(protocol, f"protocol {protocol}"))
        return Headers(source, destination, name, *unpack_from("!HH", data, at))
    except (error, ValueError, IndexError):
        return None


class _Seen(msgspec.Struct):
    since: float
    line: str
    again: int = 0


class ConnectionLog:
    """What was told lately."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._seen: dict[tuple[str, int, int, Address, Address, str, int], _Seen] = {}
        self._keys: dict[int, Key] = {}

    def take(self, node: str, packet: PacketIn, now: float) -> Iterator[str]:
        """A packet that a switch tells of; a line, if it is news."""
        found = headers(packet.data)
        where = direction_of(packet.table)
        if found is None or where is None:
            return
        ends = (found.source, found.destination, found.protocol, found.destination_port)
        key = (node, packet.table, packet.cookie, *ends)
        seen = self._seen.get(key)
        if seen is not None:
            seen.again += 1
            return
        word = "allowed" if any(term.field is SCRATCH.field for term in packet.match) else "denied"
        line = f"{word} {where} by {self._policy(packet.cookie)} on {node}: {self._words(packet, found)}"
        if len(self._seen) < LIMIT:
            self._seen[key] = _Seen(now, line)
        yield line

    def repeated(self, now: float) -> Iterator[str]:
        """What has come again since it was told; it is news again the next time."""
        for key, seen in list(self._seen.items()):
            if now - seen.since >= WINDOW:
                del self._seen[key]
                if seen.again:
                    yield f"{seen.line}, again {seen.again} times within {WINDOW:g} s"

    def _policy(self, cookie: int) -> str:
        number, policies = cookie & OBJECT_MASK, self._compiler.cluster.policies
        if self._keys.get(number) not in policies:
            # Seldom: policies are many, and what comes is of few of them.
            self._keys = {object_id(*key): key for key in policies}
        key = self._keys.get(number)
        return object_words(key) if key is not None else "a policy that is gone"

    def _words(self, packet: PacketIn, found: Headers) -> str:
        values = {term.field: term.value for term in packet.match}
        ends = []
        for address, port, bits in (
            (found.source, found.source_port, SOURCE_IDENTITY),
            (found.destination, found.destination_port, DESTINATION_IDENTITY),
        ):
            text = f"[{address}]" if address.version == 6 and port else str(address)
            who = self._identity(values.get(bits.field, 0) & bits.mask)
            ends.append(text + (f":{port}" if port else "") + (f" ({who})" if who else ""))
        return f"{found.protocol} {ends[0]} -> {ends[1]}"

    def _identity(self, number: int) -> str:
        identities = self._compiler.policies.identities
        if number in identities:
            profile = identities[number]
            return f"{profile.namespace}[{','.join(f'{key}={value}' for key, value in profile.labels)}]"
        return _RESERVED.get(Identity(number), "") if number in set(Identity) else ""
