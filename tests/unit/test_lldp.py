"""LLDP frames: what is said is heard, other implementations read the same, and nothing else is believed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.lib.packet import ethernet, packet
from os_ken.lib.packet import lldp as os_ken

from topology import lldp
from topology.lldp import Announcement, LldpError

announcements = st.builds(
    Announcement,
    datapath_id=st.integers(0, 2**64 - 1),
    port=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=15),
    ttl=st.integers(0, 2**16 - 1),
)


@given(announcements, st.integers(0, 2**48 - 1), st.text(max_size=300))
def test_what_is_said_is_heard(said: Announcement, mac: int, node: str) -> None:
    data = lldp.frame(said, mac, node)
    assert lldp.read(data) == said
    assert 60 <= len(data) < lldp.LONGEST
    # Bridges pad frames, and links may.
    assert lldp.read(data + bytes(8)) == said


def test_another_implementation_reads_the_same() -> None:
    data = lldp.frame(Announcement(0x5B0000000000002A, "s1-eth3", 15), 0x0A5D00000001, "leaf-1")
    found = packet.Packet(data)
    head, body = found.get_protocol(ethernet.ethernet), found.get_protocol(os_ken.lldp)
    assert (head.dst, head.src, head.ethertype) == ("01:80:c2:00:00:0e", "0a:5d:00:00:00:01", 0x88CC)
    chassis, port, ttl, name, ours, _ = body.tlvs
    assert (chassis.subtype, chassis.chassis_id) == (7, b"dpid:5b0000000000002a")
    assert (port.subtype, port.port_id) == (5, b"s1-eth3")
    assert (ttl.ttl, name.system_name) == (15, b"leaf-1")
    assert (ours.oui, ours.subtype) == (b"\x0a\x5b\x00", 1)


def test_a_frame_of_another_device_is_none_of_ours() -> None:
    tlvs = [
        os_ken.ChassisID(subtype=7, chassis_id=b"dpid:5b0000000000002a"),
        os_ken.PortID(subtype=5, port_id=b"s1-eth3"),
        os_ken.TTL(ttl=15),
        os_ken.End(),
    ]
    found = packet.Packet()
    found.add_protocol(ethernet.ethernet("01:80:c2:00:00:0e", "0a:5d:00:00:00:01", 0x88CC))
    found.add_protocol(os_ken.lldp(tlvs))
    found.serialize()
    with pytest.raises(LldpError, match="another device's"):
        lldp.read(bytes(found.data))


@given(st.binary(max_size=120))
def test_whatever_the_bytes_are_the_answer_is_no(data: bytes) -> None:
    for each in (data, lldp.frame(Announcement(1, "p", 15), 1)[:14] + data):
        with pytest.raises(LldpError):
            lldp.read(each)


@given(announcements, st.data())
def test_a_frame_that_was_damaged_is_read_or_refused_and_no_more(said: Announcement, data: st.DataObject) -> None:
    damaged = bytearray(lldp.frame(said, 1))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(LldpError):
        lldp.read(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


@pytest.mark.parametrize("port", ["", "x" * 255])
def test_a_port_without_a_name_that_fits_is_refused(port: str) -> None:
    with pytest.raises(LldpError, match="a port's name"):
        lldp.frame(Announcement(1, port, 15), 1)
