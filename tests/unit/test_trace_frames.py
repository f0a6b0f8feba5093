"""The marked packet of a live trace: as bytes, with checksums that are right, and read back."""

from __future__ import annotations

from ipaddress import ip_address
from struct import pack, unpack

import pytest

from controller.trace import frames
from flows import fields as f
from flows import packets
from flows.packets import Fields

MACS = (0x0A58_0AF4_0102, 0x0A58_0000_0001)
ENDS = {4: ("10.244.1.2", "10.244.2.3"), 6: ("fd00:10:244:1::2", "fd00:10:244:2::3")}


def made(kind: str, family: int) -> Fields:
    source, target = map(ip_address, ENDS[family])
    if kind == "icmp":
        return packets.ping(7, MACS, source, target)
    return {"tcp": packets.tcp, "udp": packets.udp}[kind](7, MACS, (source, 40_001), (target, 80))


def ones_sum(data: bytes) -> int:
    """The sum of RFC 1071 over all words: 0xFFFF where the checksum within is right."""
    data += bytes(len(data) % 2)
    total = sum(unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", ["tcp", "udp", "icmp"])
def test_a_marked_frame_says_what_the_packet_is_and_its_checksums_are_right(kind: str, family: int) -> None:
    packet = made(kind, family)
    data = frames.frame(packet, 0x1234_5678_9ABC)
    assert frames.fields_of(data) == {
        **{field: value for field, value in packet.items() if field is not f.IN_PORT},
        f.IP_DSCP: frames.DSCP,
    }
    assert frames.number_of(data) == 0x1234_5678_9ABC and len(data) <= frames.LENGTH
    body = data[14 + (20 if family == 4 else 40) :]
    if family == 4:
        assert ones_sum(data[14:34]) == 0xFFFF
        assert int.from_bytes(data[16:18], "big") == len(data) - 14
        ends = data[26:34]
    else:
        assert int.from_bytes(data[18:20], "big") == len(body)
        ends = data[22:54]
    pseudo = b"" if (kind, family) == ("icmp", 4) else ends + pack("!IHBB", len(body), 0, 0, packet[f.IP_PROTO])
    assert ones_sum(pseudo + body) == 0xFFFF


def test_what_is_no_marked_frame_has_no_number_and_what_is_cut_off_no_fields() -> None:
    data = frames.frame(made("tcp", 4), 5)
    assert frames.number_of(data[:-1]) is None and frames.number_of(data[:30]) is None
    assert frames.fields_of(data[:30]) is None and frames.fields_of(b"") is None
    assert frames.fields_of(data[:12] + b"\x08\x06" + data[14:]) is None
