"""LLDP frames (IEEE 802.1AB): what a port says of itself to whatever is at the other end of its wire.

    chassis id: the switch's datapath id │ port id: the port's name │ time to live │ node's name │ Signalbox's own

The organisationally specific part at the end tells these frames from those of other devices, which are none of our
business. Pure: values to bytes and back. Own few lines and not os-ken's packet library, which isn't needed at run time.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import error, pack, unpack_from

import msgspec

ETH_LLDP = 0x88CC
#: "Nearest bridge": no bridge forwards it, so who hears it is at the other end of this very wire (802.1AB table 7-1).
NEAREST_BRIDGE = 0x0180_C200_000E
#: Bytes that an Ethernet frame has at the least, without its checksum; and more than any of ours has.
_SHORTEST, LONGEST = 60, 600

_END, _CHASSIS_ID, _PORT_ID, _TTL, _SYSTEM_NAME, _ORGANISATION = 0, 1, 2, 3, 5, 127
_INTERFACE_NAME, _LOCALLY_ASSIGNED = 5, 7
_DATAPATH = b"dpid:"
#: There is no OUI of ours, so it is a locally administered one; then the kind, of which there is one, and its version.
_OURS = b"\x0a\x5b\x00\x01\x01"
#: A value of a TLV has a length of nine bits; texts in it are at most 255 bytes (8.5.2.3, 8.5.3.3).
_LONGEST_TEXT = 254


class LldpError(ValueError):
    """Not a frame of ours; the text says why."""


class Announcement(msgspec.Struct, frozen=True):
    """Which switch and port a frame was sent from. `ttl`: seconds for which it is to be believed; 0: not any more."""

    datapath_id: int
    port: str
    ttl: int


def frame(announcement: Announcement, source_mac: int, node: str = "") -> bytes:
    """The frame that a port sends. `node` is for people who look at it. Raises LldpError."""
    port = announcement.port.encode()
    if not port or len(port) > _LONGEST_TEXT:
        raise LldpError(f"a port's name has 1 to {_LONGEST_TEXT} bytes, not {len(port)}")
    parts = [
        _tlv(_CHASSIS_ID, bytes((_LOCALLY_ASSIGNED,)) + _DATAPATH + b"%016x" % announcement.datapath_id),
        _tlv(_PORT_ID, bytes((_INTERFACE_NAME,)) + port),
        _tlv(_TTL, pack("!H", announcement.ttl)),
        _tlv(_SYSTEM_NAME, node.encode()[:_LONGEST_TEXT]) if node else b"",
        _tlv(_ORGANISATION, _OURS),
        _tlv(_END, b""),
    ]
    head = NEAREST_BRIDGE.to_bytes(6, "big") + source_mac.to_bytes(6, "big") + pack("!H", ETH_LLDP)
    return (head + b"".join(parts)).ljust(_SHORTEST, b"\0")


def read(data: bytes) -> Announcement:
    """What a frame says. Raises LldpError, and nothing else, whatever the bytes are."""
    try:
        (ethertype,) = unpack_from("!H", data, 12)
        if ethertype != ETH_LLDP:
            raise LldpError(f"ethertype {ethertype:#06x}")
        (first, chassis), (second, port), (third, ttl), *others = _tlvs(data[14:])
        if (first, second, third) != (_CHASSIS_ID, _PORT_ID, _TTL):
            raise LldpError("it doesn't begin with chassis id, port id and time to live")
        if (_ORGANISATION, _OURS) not in others:
            raise LldpError("another device's")
        if chassis[:1] != bytes((_LOCALLY_ASSIGNED,)) or chassis[1:6] != _DATAPATH or len(chassis) != 22:
            raise LldpError("its chassis id is no datapath id")
        if port[:1] != bytes((_INTERFACE_NAME,)) or not 1 < len(port) <= 1 + _LONGEST_TEXT:
            raise LldpError("its port id is no interface's name")
        return Announcement(int(chassis[6:], 16), port[1:].decode(), *unpack_from("!H", ttl))
    except LldpError:
        raise
    except (error, ValueError) as problem:
        raise LldpError(f"{len(data)} bytes that are no LLDP: {problem}") from problem


def _tlv(kind: int, value: bytes) -> bytes:
    return pack("!H", kind << 9 | len(value)) + value


def _tlvs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each, up to the end."""
    offset = 0
    while True:
        (head,) = unpack_from("!H", data, offset)
        kind, length = head >> 9, head & 0x1FF
        if kind == _END:
            return
        value = data[offset + 2 : offset + 2 + length]
        if len(value) != length:
            raise LldpError(f"a part of {length} bytes is cut short")
        yield kind, value
        offset += 2 + length
