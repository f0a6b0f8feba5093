"""Captures: what taps are, what a file of packets is, and what is refused."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from controller import pcapng
from controller.capture import CaptureError, Request, check
from flows import fields as f
from flows import taps
from flows.cookies import Scope, is_tap, scope_match
from flows.openflow.decode import decode
from flows.pipeline import CLASSIFY, OUTPUT, TABLES
from flows.taps import Taps
from flows.text import flow_text

_TAPS = Taps(session=0xABCDEF, slot=2, snaplen=96, rate=20, seconds=15)


def test_a_tap_reads_as_a_person_would_write_it() -> None:
    flow = _TAPS.flow(CLASSIFY, f.match(f.IN_PORT(7)), 3)
    assert flow_text(flow, names=True) == (
        "cookie=0x5d0000abcdef0003,table=Classify,priority=65535,in_port=7,reg9=0/0x1"
        " actions=set_field:0x1/0x1->reg9,controller(max_len=96,meter_id=23298),resubmit(,Classify)"
    ).replace("reg9=0/0x1", "reg9=0x0/0x1")


def test_taps_are_in_no_scope_and_say_which_they_are() -> None:
    cookie = _TAPS.flow(OUTPUT, (), 0xFFFF).cookie
    assert is_tap(cookie)
    assert taps.told_by(cookie) == (0xABCDEF, 0xFFFF)
    for scope in Scope:
        value, mask = scope_match(scope)
        assert cookie & mask != value


def test_every_table_that_packets_cross_has_a_bit_of_its_own() -> None:
    bits = [_TAPS.flow(table, (), 0).match[0].mask for table in TABLES[:-2]]
    assert len(set(bits)) == len(bits)
    assert all(bit is not None and bit.bit_count() == 1 for bit in bits)


def test_who_is_between_two_is_matched_by_family() -> None:
    both = (ip_address("10.0.0.1"), ip_address("fd00::1"))
    found = list(taps.sent(4, both))
    assert [table for table, _ in found] == [CLASSIFY, CLASSIFY]
    assert [match[1].value for _, match in found] == [f.ETH_IPV4, f.ETH_IPV6]
    assert [len(list(taps.delivered(4, peers))) for peers in ((), both)] == [1, 2]


def test_messages_of_taps_have_openflows_lengths() -> None:
    for message in [*_TAPS.made([_TAPS.flow(OUTPUT, (), 0)]), *_TAPS.unmade()]:
        assert int.from_bytes(message[2:4], "big") == len(message)
        assert len(message) % 8 == 0
        decode(message)


def test_tcpdump_reads_what_is_written(tmp_path: Path) -> None:
    frame = bytes.fromhex("0a570000000102020202020208060001080006040001020202020202") + bytes(14)
    file = tmp_path / "some.pcapng"
    head = pcapng.section("test") + pcapng.interface("n1:a/b", "sent by pod a/b", 96)
    file.write_bytes(head + pcapng.packet(0, 1_700_000_000_123_456_789, frame, 60, pcapng.OUTBOUND, "here"))
    with file.open("rb") as given:
        done = subprocess.run(
            ["tcpdump", "-tt", "-e", "-nn", "-r", "-"], stdin=given, capture_output=True, text=True, check=True
        )
    assert done.stdout.startswith("1700000000.123456 02:02:02:02:02:02 > 0a:57:00:00:00:01, ethertype ARP")
    assert "length 60" in done.stdout


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (Request(), "name a pod"),
        (Request(pod="a/b", source="a/c", target="a/d"), "name a pod"),
        (Request(source="a/b"), "name a pod"),
        (Request(pod="a/b", direction="up"), "direction"),
        (Request(pod="a/b", duration=301), "duration"),
        (Request(pod="a/b", rate=0), "rate"),
        (Request(pod="a/b", snaplen=1 << 16), "snaplen"),
        (Request(pod="a/b", size=1 << 40), "size"),
        (Request(pod="a/b", count=0), "count"),
    ],
)
def test_what_is_out_of_bounds_is_refused(wanted: Request, text: str) -> None:
    with pytest.raises(CaptureError, match=text):
        check(wanted)
