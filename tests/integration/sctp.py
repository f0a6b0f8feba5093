"""SCTP packets made by hand: not every kernel has sockets for it."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from topology.naming import format_mac


def sctp_init(macs: tuple[int, int], source: str, target: str, ports: tuple[int, int], mark: bytes) -> bytes:
    """A frame with the first packet of an SCTP association (RFC 9260, 3.3.2), which carries a mark."""
    mark += bytes(-len(mark) % 4)
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20 + len(mark), 1, 65535, 1, 1, 1) + mark
    packet = struct.pack("!HHII", *ports, 0, 0) + chunk
    packet = packet[:8] + struct.pack("<I", _crc32c(packet)) + packet[12:]
    head = bytes.fromhex(format_mac(macs[1]).replace(":", "") + format_mac(macs[0]).replace(":", ""))
    ends = ip_address(source).packed + ip_address(target).packed
    if ":" in source:
        return head + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(packet), 132, 64) + ends + packet
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(packet), 1, 0x4000, 64, 132, 0) + ends
    return head + b"\x08\x00" + ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:] + packet


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
