"""The marked packet of a live trace, as bytes, and packets that come back, as fields.

The mark: a DSCP that nothing else here uses, by which taps know it, and in the payload a word and a number, by which we
do. Ports and MACs are as the question has them. Checksums are filled in (RFC 1071).
"""

from __future__ import annotations

from struct import error, pack, unpack_from

from flows import fields as f
from flows.fields import Field
from flows.interpreter import Packet

#: Of pool 2, which RFC 2474 leaves to experiments and local use.
DSCP = 0x3F
_WORD = b"signalbox trace "
_NUMBER = 8
_PORTS = {f.PROTO_TCP: (f.TCP_SRC, f.TCP_DST), f.PROTO_UDP: (f.UDP_SRC, f.UDP_DST)}
_ECHO = {f.PROTO_ICMP: (f.ICMPV4_TYPE, f.ICMPV4_CODE), f.PROTO_ICMPV6: (f.ICMPV6_TYPE, f.ICMPV6_CODE)}
#: Longest frame that is made here, bytes.
LENGTH = 14 + 40 + 20 + len(_WORD) + _NUMBER


def frame(packet: Packet, number: int) -> bytes:
    """An Ethernet frame with a packet's fields: TCP (a SYN), UDP or an echo request. `number` is in its payload."""
    payload = _WORD + number.to_bytes(_NUMBER, "big")
    protocol, ipv6 = packet[f.IP_PROTO], packet[f.ETH_TYPE] == f.ETH_IPV6
    if ipv6:
        ends = packet[f.IPV6_SRC].to_bytes(16, "big") + packet[f.IPV6_DST].to_bytes(16, "big")
    else:
        ends = packet[f.IPV4_SRC].to_bytes(4, "big") + packet[f.IPV4_DST].to_bytes(4, "big")
    ethernet = packet[f.ETH_DST].to_bytes(6, "big") + packet[f.ETH_SRC].to_bytes(6, "big")
    ethernet += packet[f.ETH_TYPE].to_bytes(2, "big")
    transport = _transport(packet, protocol, ends, payload, number)
    if ipv6:
        header = pack("!IHBB", 6 << 28 | DSCP << 22, len(transport), protocol, packet[f.IP_TTL]) + ends
    else:
        header = pack("!BBHHHBBH", 0x45, DSCP << 2, 20 + len(transport), 0, 0, packet[f.IP_TTL], protocol, 0) + ends
        header = header[:10] + pack("!H", _checksum(header)) + header[12:]
    return ethernet + header + transport


def _transport(packet: Packet, protocol: int, ends: bytes, payload: bytes, number: int) -> bytes:
    if protocol in _ECHO:
        kind, code = (packet[each] for each in _ECHO[protocol])
        made, at = pack("!BBHHH", kind, code, 0, number & 0xFFFF, 1) + payload, 2
    elif protocol == f.PROTO_TCP:
        source, target = packet[f.TCP_SRC], packet[f.TCP_DST]
        # Five words of header, SYN, and a window.
        made, at = pack("!HHIIBBHHH", source, target, number & 0xFFFF_FFFF, 0, 5 << 4, 2, 64_240, 0, 0) + payload, 16
    else:
        made, at = pack("!HHHH", packet[f.UDP_SRC], packet[f.UDP_DST], 8 + len(payload), 0) + payload, 6
    pseudo = b"" if protocol == f.PROTO_ICMP else ends + pack("!IHBB", len(made), 0, 0, protocol)
    return made[:at] + pack("!H", _checksum(pseudo + made) or 0xFFFF) + made[at + 2 :]


def _checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total: int = sum(unpack_from(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def number_of(data: bytes) -> int | None:
    """The number of a marked frame; None where it isn't one."""
    at = data.find(_WORD)
    if at < 0 or len(data) < at + len(_WORD) + _NUMBER:
        return None
    return int.from_bytes(data[at + len(_WORD) : at + len(_WORD) + _NUMBER], "big")


def fields_of(data: bytes) -> dict[Field, int] | None:
    """What a frame's headers say, as flows match it; None where it is no IP packet or too short."""
    try:
        found: dict[Field, int] = {
            f.ETH_DST: int.from_bytes(data[0:6], "big"),
            f.ETH_SRC: int.from_bytes(data[6:12], "big"),
            f.ETH_TYPE: unpack_from("!H", data, 12)[0],
        }
        if found[f.ETH_TYPE] == f.ETH_IPV4:
            at = 14 + (data[14] & 0xF) * 4
            found |= {f.IP_PROTO: data[23], f.IP_TTL: data[22], f.IP_DSCP: data[15] >> 2}
            found |= {f.IPV4_SRC: unpack_from("!I", data, 26)[0], f.IPV4_DST: unpack_from("!I", data, 30)[0]}
        elif found[f.ETH_TYPE] == f.ETH_IPV6:
            at = 54
            found |= {f.IP_PROTO: data[20], f.IP_TTL: data[21], f.IP_DSCP: unpack_from("!H", data, 14)[0] >> 6 & 0x3F}
            found |= {
                f.IPV6_SRC: int.from_bytes(data[22:38], "big"),
                f.IPV6_DST: int.from_bytes(data[38:54], "big"),
            }
        else:
            return None
        if found[f.IP_PROTO] in _PORTS:
            found |= dict(zip(_PORTS[found[f.IP_PROTO]], unpack_from("!HH", data, at), strict=True))
        elif found[f.IP_PROTO] in _ECHO:
            found |= dict(zip(_ECHO[found[f.IP_PROTO]], unpack_from("!BB", data, at), strict=True))
        return found
    except (error, IndexError):
        return None
