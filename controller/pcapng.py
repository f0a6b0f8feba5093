"""Captured packets as pcapng, what tcpdump, tshark and Wireshark read. Values in, bytes out.

Blocks and options: draft-ietf-opsawg-pcapng, sections 3.5 and 4. Big-endian throughout.
"""

from __future__ import annotations

from struct import calcsize, pack, unpack_from

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_MAGIC, _UNKNOWN_LENGTH = 0x1A2B3C4D, 0xFFFF_FFFF_FFFF_FFFF
#: What a section has before its options: magic, version (two numbers), length.
_SECTION_FIXED = "!IHHQ"
_ETHERNET = 1
_COMMENT, _APPLICATION, _NAME, _DESCRIPTION, _FLAGS, _RESOLUTION = 1, 4, 2, 3, 2, 9
#: Of a packet, as its interface's owner sees it; neither of one that was dropped on its way.
DROPPED, INBOUND, OUTBOUND = 0, 1, 2


def section(application: str, comment: str = "") -> bytes:
    """What a file begins with."""
    fixed = pack(_SECTION_FIXED, _MAGIC, 1, 0, _UNKNOWN_LENGTH)
    comments = ((_COMMENT, comment.encode()),) if comment else ()
    return _block(_SECTION, fixed + _options(*comments, (_APPLICATION, application.encode())))


def interface(name: str, description: str, snaplen: int) -> bytes:
    """Somewhere that packets are seen. Packets name interfaces by their place in the file, from 0."""
    nanoseconds = bytes([9])
    options = _options((_NAME, name.encode()), (_DESCRIPTION, description.encode()), (_RESOLUTION, nanoseconds))
    return _block(_INTERFACE, pack("!HHI", _ETHERNET, 0, snaplen) + options)


def packet(number: int, nanoseconds: int, data: bytes, length: int, direction: int, comment: str) -> bytes:
    """A packet seen at interface `number`, `nanoseconds` since 1970: its first bytes, and how many it had."""
    head = pack("!IIIII", number, nanoseconds >> 32, nanoseconds & 0xFFFF_FFFF, len(data), max(length, len(data)))
    options = _options((_COMMENT, comment.encode()), (_FLAGS, pack("!I", direction)))
    return _block(_PACKET, head + _padded(data) + options)


def counted(data: bytes) -> tuple[int, bytes]:
    """How many packets the whole blocks have that `data` begins with, and what comes after these."""
    count = start = 0
    while len(data) - start >= 8:
        kind, length = unpack_from("!II", data, start)
        if len(data) - start < length:
            break
        count += kind == _PACKET
        start += length
    return count, data[start:]


def comment_of(data: bytes) -> str:
    """What the file says of itself that begins with `data`, its first block whole; empty where it says nothing."""
    (length,) = unpack_from("!I", data, 4)
    start, end = 8 + calcsize(_SECTION_FIXED), length - 4
    while start + 4 <= end:
        code, size = unpack_from("!HH", data, start)
        if code == _COMMENT:
            return data[start + 4 : start + 4 + size].decode(errors="replace")
        start += 4 + size + -size % 4
    return ""


def _options(*options: tuple[int, bytes]) -> bytes:
    return b"".join(pack("!HH", code, len(value)) + _padded(value) for code, value in options) + pack("!HH", 0, 0)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = pack("!I", 12 + len(body))
    return pack("!I", kind) + length + body + length
