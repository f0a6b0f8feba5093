"""DHCP for workloads (RFC 2131): a frame with a question and the workload in, a frame with the answer out. Pure.

What a workload is told is what is declared of it, so there is nothing to remember: every controller gives the same
answers, also after a restart. Its address is alone in its network (a prefix of 32) and everything is behind a router
that is on the wire (RFC 3442), since the bridge routes all that it forwards. The lease is long and renewed often: a
change is heard soon, and a controller that is away for days cuts nobody off.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from ipaddress import IPv4Address
from struct import error, pack, unpack_from

import msgspec

from flows.fields import ETH_IPV4, PROTO_UDP
from topology.model import Pod
from topology.naming import ROUTER_ADDRESS, ROUTER_MAC

#: Seconds: how long an address may be used, when it is asked for again, and when anybody is asked for it.
LEASE, RENEWAL, REBINDING = 7 * 86400, 3600, 6 * 86400
_SERVER_PORT, _CLIENT_PORT = 67, 68
_REQUEST, _REPLY, _ETHERNET = 1, 2, 1
_COOKIE = 0x6382_5363
_BROADCAST_FLAG = 0x8000
_EVERYBODY = IPv4Address("255.255.255.255")
_NOBODY = IPv4Address(0)
_EVERY_MAC = 0xFFFF_FFFF_FFFF
#: Bytes before the options, and of the least message that every client takes (RFC 1542, 2.1).
_FIXED, _LEAST = 240, 300


class Kind(IntEnum):
    """The types of messages (RFC 2132, 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option(IntEnum):
    """The options that are read or sent (RFC 2132, RFC 3442)."""

    PAD = 0
    MASK = 1
    ROUTER = 3
    MTU = 26
    REQUESTED = 50
    LEASE = 51
    KIND = 53
    SERVER = 54
    RENEWAL = 58
    REBINDING = 59
    CLIENT = 61
    ROUTES = 121
    END = 255


class Question(msgspec.Struct, frozen=True):
    """What a client asks. `current` is the address that it says it has already, 0.0.0.0 where it has none."""

    kind: int
    transaction: int
    flags: int
    current: IPv4Address
    mac: int
    options: dict[int, bytes]


def answer(frame: bytes, workload: Pod) -> bytes | None:
    """The answer to a frame from a workload's port; None where none is due: to others, or to what isn't DHCP."""
    asked = read(frame)
    address = next((each for each in workload.addresses if isinstance(each, IPv4Address)), None)
    if asked is None or address is None or asked.mac != workload.mac:
        return None
    match asked.kind:
        case Kind.DISCOVER:
            return _reply(asked, Kind.OFFER, address, workload.mtu)
        case Kind.REQUEST:
            if asked.options.get(Option.SERVER, ROUTER_ADDRESS.packed) != ROUTER_ADDRESS.packed:
                # It has chosen another server.
                return None
            wanted = asked.options.get(Option.REQUESTED, asked.current.packed)
            return _reply(asked, Kind.ACK if wanted == address.packed else Kind.NAK, address, workload.mtu)
        case Kind.INFORM:
            return _reply(asked, Kind.ACK, address, workload.mtu)
    # It gives its address back, or says that another has it: that changes nothing.
    return None


def read(frame: bytes) -> Question | None:
    """A client's message in an Ethernet frame; None where it is something else, or cut short."""
    try:
        (ethertype,) = unpack_from("!H", frame, 12)
        header = (frame[14] & 0xF) * 4
        at = 14 + header + 8
        if ethertype != ETH_IPV4 or frame[14] >> 4 != 4 or header < 20 or frame[23] != PROTO_UDP:
            return None
        source, destination = unpack_from("!HH", frame, 14 + header)
        operation, hardware, length, _, transaction, _, flags, current = unpack_from("!BBBBIHHI", frame, at)
        (cookie,) = unpack_from("!I", frame, at + _FIXED - 4)
        if (source, destination) != (_CLIENT_PORT, _SERVER_PORT) or cookie != _COOKIE:
            return None
        if (operation, hardware, length) != (_REQUEST, _ETHERNET, 6) or frame[at + 24 : at + 28] != bytes(4):
            # Or it comes by a relay, which there is none of.
            return None
        options = _options(frame[at + _FIXED :])
        mac = int.from_bytes(frame[at + 28 : at + 34], "big")
    except (error, IndexError):
        return None
    kind = options.get(Option.KIND, b"")
    if len(kind) != 1:
        return None
    return Question(kind[0], transaction, flags, IPv4Address(current), mac, options)


def _options(data: bytes) -> dict[int, bytes]:
    """What stands there, up to the end. One that is given in parts is put together (RFC 3396)."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != Option.END:
        if data[at] == Option.PAD:
            at += 1
            continue
        end = at + 2 + data[at + 1]
        if end > len(data):
            raise IndexError("an option that is cut off")
        found[data[at]] = found.get(data[at], b"") + data[at + 2 : end]
        at = end
    return found


def _reply(asked: Question, kind: Kind, address: IPv4Address, mtu: int) -> bytes:
    refused, informed = kind is Kind.NAK, asked.kind == Kind.INFORM
    current = _NOBODY if refused or kind is Kind.OFFER else asked.current
    given = _NOBODY if refused or informed else address
    options = bytes([Option.KIND, 1, kind]) + _option(Option.SERVER, ROUTER_ADDRESS.packed)
    if not refused:
        options += b"".join(_told(mtu, leased=not informed))
    if Option.CLIENT in asked.options:
        # RFC 6842: what it calls itself is said again.
        options += _option(Option.CLIENT, asked.options[Option.CLIENT])
    message = pack("!BBBBIHHI", _REPLY, _ETHERNET, 6, 0, asked.transaction, 0, asked.flags, int(current))
    message += given.packed + bytes(8) + asked.mac.to_bytes(6, "big") + bytes(10 + 64 + 128)
    message += pack("!I", _COOKIE) + options + bytes([Option.END])
    message += bytes(max(_LEAST - len(message), 0))
    # RFC 2131, 4.1: to an address that the client has; else by its MAC, or to everybody where it asks for that.
    everybody = refused or (asked.flags & _BROADCAST_FLAG and not int(current))
    target = _EVERYBODY if everybody else current if int(current) else address
    return _frame(_EVERY_MAC if everybody else asked.mac, target, message)


def _told(mtu: int, *, leased: bool) -> Iterator[bytes]:
    if leased:
        for option, seconds in ((Option.LEASE, LEASE), (Option.RENEWAL, RENEWAL), (Option.REBINDING, REBINDING)):
            yield _option(option, pack("!I", seconds))
    yield _option(Option.MASK, _EVERYBODY.packed)
    yield _option(Option.ROUTER, ROUTER_ADDRESS.packed)
    if mtu:
        yield _option(Option.MTU, pack("!H", mtu))
    # The router itself, on the wire; everything, by the router. Who reads these passes over the option above.
    on_the_wire = bytes([32]) + ROUTER_ADDRESS.packed + _NOBODY.packed
    yield _option(Option.ROUTES, on_the_wire + bytes([0]) + ROUTER_ADDRESS.packed)


def _option(option: Option, value: bytes) -> bytes:
    return b"".join(
        bytes([option, len(part)]) + part for part in (value[at : at + 255] for at in range(0, max(len(value), 1), 255))
    )


def _frame(mac: int, target: IPv4Address, message: bytes) -> bytes:
    length = 8 + len(message)
    udp = pack("!HHHH", _SERVER_PORT, _CLIENT_PORT, length, 0) + message
    pseudo = ROUTER_ADDRESS.packed + target.packed + pack("!HH", PROTO_UDP, length)
    udp = udp[:6] + pack("!H", _checksum(pseudo + udp) or 0xFFFF) + udp[8:]
    header = pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, PROTO_UDP, 0) + ROUTER_ADDRESS.packed + target.packed
    header = header[:10] + pack("!H", _checksum(header)) + header[12:]
    return mac.to_bytes(6, "big") + ROUTER_MAC.to_bytes(6, "big") + pack("!H", ETH_IPV4) + header + udp


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(unpack_from(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
