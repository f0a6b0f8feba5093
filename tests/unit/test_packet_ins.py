"""Packets that switches send to the controller, and for whom each is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.packet_ins import PacketIns, Purpose, in_port, purpose
from flows import fields as f
from flows.openflow.messages import PacketIn
from flows.pipeline import CLASSIFY, EGRESS_POLICY, ROUTE


def packet(table: int, ethertype: int) -> PacketIn:
    return PacketIn(0, table, 0, (f.IN_PORT(7),), bytes(12) + ethertype.to_bytes(2, "big") + bytes(40))


def test_the_table_and_the_kind_of_packet_tell_why_it_was_sent() -> None:
    assert purpose(packet(EGRESS_POLICY.number, f.ETH_IPV4)) is Purpose.CONNECTION
    assert purpose(packet(CLASSIFY.number, f.ETH_IPV4)) is Purpose.DHCP
    assert purpose(packet(CLASSIFY.number, 0x88CC)) is Purpose.LLDP
    assert purpose(packet(CLASSIFY.number, f.ETH_IPV6)) is None
    assert purpose(packet(ROUTE.number, f.ETH_IPV4)) is None
    assert purpose(PacketIn(0, CLASSIFY.number, 0, (), b"short")) is None


def test_a_packet_goes_to_whoever_takes_its_kind_and_what_nobody_takes_is_dropped() -> None:
    taken: list[tuple[str, int, float]] = []

    def take(node: str, packet: PacketIn, now: float) -> None:
        taken.append((node, in_port(packet), now))

    ins = PacketIns({Purpose.DHCP: take})
    for ethertype in (f.ETH_IPV4, 0x88CC):
        ins.told("n1", packet(CLASSIFY.number, ethertype), 5.0)
    assert taken == [("n1", 7, 5.0)]


def test_a_standby_takes_what_all_replicas_must_know_and_nothing_else() -> None:
    taken: list[Purpose] = []
    takers = {each: lambda *_, each=each: taken.append(each) for each in Purpose}
    ins = PacketIns(takers)
    for ethertype in (f.ETH_IPV4, 0x88CC):
        ins.overheard("n1", packet(CLASSIFY.number, ethertype), 5.0)
    ins.overheard("n1", packet(EGRESS_POLICY.number, 0x88CC), 5.0)
    assert taken == [Purpose.LLDP]


@given(st.binary(max_size=80), st.integers(0, 255))
def test_no_packet_is_too_odd_to_be_looked_at(data: bytes, table: int) -> None:
    taken: list[PacketIn] = []
    ins = PacketIns({each: lambda node, packet, now: taken.append(packet) for each in Purpose})
    ins.told("n1", PacketIn(0, table, 0, (), data), 0.0)
    assert len(taken) <= 1


def test_a_packet_that_does_not_say_where_it_entered_entered_nowhere() -> None:
    assert in_port(PacketIn(0, CLASSIFY.number, 0, (), b"")) == 0
