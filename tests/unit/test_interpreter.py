"""The reference interpreter against OpenFlow's and Open vSwitch's rules."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from flows import fields as f
from flows import packets
from flows.interpreter import Conntrack, Interpreter, InterpreterError
from flows.registers import Bits, whole
from flows.values import (
    PORT_IN_PORT,
    Bucket,
    Conjunction,
    Ct,
    Flow,
    Goto,
    Group,
    GroupType,
    Move,
    Nat,
    Output,
    OutputBits,
    Program,
    SetField,
    ToGroup,
    load,
)

A, B, VIP = ip_address("10.0.0.1"), ip_address("10.0.0.2"), ip_address("10.96.0.1")
MACS = (1, 2)
PING = packets.ping(5, MACS, A, B)
LOW, HIGH = Bits("low", f.REG3, 0, 8), Bits("high", f.REG3, 8, 8)


def flow(table: int, priority: int, match: f.Match, *program: object) -> Flow:
    return Flow(table, priority, match, program, 0)  # type: ignore[arg-type]


def walk(*flows: Flow, packet: dict[f.Field, int] = PING, conntrack: Conntrack | None = None, **options: object):
    groups = options.pop("groups", ())
    return Interpreter(flows, groups).walk(packet, conntrack or Conntrack(), **options)


def ports(*program: object, **options: object) -> list[int]:
    return [each.port for each in walk(flow(0, 1, (), *program), **options).emissions]


def test_the_highest_priority_that_matches_wins() -> None:
    low, high = flow(0, 1, (), Output(1)), flow(0, 9, (f.ETH_TYPE(f.ETH_IPV4),), Output(2))
    other = flow(0, 99, (f.ETH_TYPE(f.ETH_IPV6),), Output(3))
    assert [each.port for each in walk(low, high, other).emissions] == [2]


def test_a_miss_drops() -> None:
    found = walk(flow(0, 1, (f.IN_PORT(6),), Output(1)))
    assert not found.emissions and found.steps[-1].flow is None


def test_a_field_that_the_packet_has_not_never_matches_but_metadata_is_zero() -> None:
    assert not walk(flow(0, 1, (f.ARP_OP(0),), Output(1))).emissions
    assert walk(flow(0, 1, (f.REG5(0), f.TUN_ID(0), f.CT_STATE(0)), Output(1))).emissions


def test_masks_choose_the_bits_that_count() -> None:
    assert walk(flow(0, 1, (f.IPV4_SRC(0x0A000000, 0xFF000000),), Output(1))).emissions
    assert not walk(flow(0, 1, (f.IPV4_SRC(0x0B000000, 0xFF000000),), Output(1))).emissions


def test_two_flows_of_one_priority_that_differ_are_an_error_that_names_both() -> None:
    with pytest.raises(InterpreterError, match=r"overlap: .*output:1.* and .*output:2"):
        walk(flow(0, 1, (f.IN_PORT(5),), Output(1)), flow(0, 1, (f.ETH_TYPE(f.ETH_IPV4),), Output(2)))


def test_registers_keep_their_bits_between_tables_and_are_moved_bit_by_bit() -> None:
    first = flow(0, 1, (), load(LOW, 0xAB), Move(LOW, HIGH), load(LOW, 0x01), Goto(7))
    second = flow(7, 1, (LOW(0x01), HIGH(0xAB << 0)), OutputBits(HIGH))
    assert [each.port for each in walk(first, second).emissions] == [0xAB]


def test_a_field_can_be_set_in_part() -> None:
    (out,) = walk(flow(0, 1, (), SetField(f.IPV4_DST, 0x0B000000, 0xFF000000), Output(1))).emissions
    assert out.packet[f.IPV4_DST] == 0x0B000002


def test_a_field_that_the_packet_has_not_can_t_be_moved() -> None:
    with pytest.raises(InterpreterError, match="no arp_spa"):
        walk(flow(0, 1, (), Move(whole(f.ARP_SPA), whole(f.ARP_TPA))))


def test_a_packet_goes_back_where_it_came_from_only_when_told_in_these_words() -> None:
    assert ports(Output(5), Output(PORT_IN_PORT)) == [5]
    assert ports(load(whole(f.REG1), 5), OutputBits(whole(f.REG1))) == []


def test_what_follows_an_output_doesn_t_change_what_was_sent() -> None:
    (out,) = walk(flow(0, 1, (), Output(1), SetField(f.ETH_DST, 9))).emissions
    assert out.packet[f.ETH_DST] == 2


def test_a_pipeline_that_never_ends_is_an_error() -> None:
    with pytest.raises(InterpreterError, match="still on its way"):
        walk(flow(0, 1, (), Goto(0)))


def test_groups_all_send_copies_and_select_sends_one() -> None:
    buckets = (Bucket(1, (SetField(f.ETH_DST, 9), Output(1))), Bucket(2, (Output(2),)))
    every, one = Group(1, GroupType.ALL, buckets), Group(2, GroupType.SELECT, buckets)
    found = walk(flow(0, 1, (), ToGroup(1)), groups=(every,)).emissions
    assert [(each.port, each.packet[f.ETH_DST]) for each in found] == [(1, 9), (2, 2)]
    assert ports(ToGroup(2), groups=(one,)) == [1]
    assert ports(ToGroup(2), groups=(one,), choose=lambda group: group.buckets[1]) == [2]
    with pytest.raises(InterpreterError, match="no group 3"):
        ports(ToGroup(3))


def states(*sent: dict[f.Field, int], commit: bool = True, zone: int = 1) -> list[int]:
    """What ct_state each packet comes back with, in turn, when everything new is committed."""
    known = Conntrack()
    program: Program = (Ct(zone, commit=True),) if commit else ()
    tables = (flow(0, 1, (), Ct(zone, table=1)), flow(1, 1, (), Output(9), *program))
    return [walk(*tables, packet=each, conntrack=known).emissions[0].packet[f.CT_STATE] for each in sent]


def test_a_connection_is_new_until_it_is_answered_then_established() -> None:
    back = packets.ping(5, MACS, B, A, reply=True)
    new, established = f.CT_TRK | f.CT_NEW, f.CT_TRK | f.CT_EST
    assert states(PING, PING, back, PING) == [new, new, established | f.CT_RPL, established]
    assert states(PING, back, commit=False) == [new, new]


def test_connections_differ_by_ports_and_zones() -> None:
    there = packets.tcp(5, MACS, (A, 1000), (B, 80))
    back = packets.tcp(5, MACS, (B, 80), (A, 1000))
    other = packets.tcp(5, MACS, (B, 80), (A, 1001))
    assert [bool(state & f.CT_RPL) for state in states(there, back, other)] == [False, True, False]
    known = Conntrack()
    known.track(dict(there), Ct(1, commit=True))
    packet = dict(back)
    known.track(packet, Ct(2))
    assert packet[f.CT_STATE] == f.CT_TRK | f.CT_NEW


def test_destination_nat_is_undone_on_the_way_back_and_repeated_on_the_way_there() -> None:
    known = Conntrack()
    service = (Ct(1, commit=True, table=1, nat=Nat("dst", int(B), port_min=8080)),)
    tables = (
        flow(0, 9, (f.IPV4_DST(int(VIP)), f.CT_STATE(0)), Ct(1, table=2, nat=Nat())),
        flow(2, 9, (f.CT_STATE(f.CT_NEW, f.CT_NEW), f.IPV4_DST(int(VIP))), *service),
        flow(2, 1, (), Output(1)),
        flow(1, 1, (), Output(1)),
        flow(0, 1, (), Ct(1, table=1, nat=Nat())),
    )
    for _ in range(2):
        (there,) = walk(*tables, packet=packets.tcp(5, MACS, (A, 1000), (VIP, 80)), conntrack=known).emissions
        assert (there.packet[f.IPV4_DST], there.packet[f.TCP_DST]) == (int(B), 8080)
        (back,) = walk(*tables, packet=packets.tcp(6, MACS, (B, 8080), (A, 1000)), conntrack=known).emissions
        assert (back.packet[f.IPV4_SRC], back.packet[f.TCP_SRC]) == (int(VIP), 80)
        assert back.packet[f.CT_STATE] & f.CT_RPL


def test_marks_and_labels_are_kept_with_the_connection() -> None:
    known = Conntrack()
    known.track(dict(PING), Ct(1, commit=True, execute=(SetField(f.CT_MARK, 0x7),)))
    packet = packets.ping(5, MACS, B, A, reply=True)
    known.track(packet, Ct(1))
    assert packet[f.CT_MARK] == 7


def test_after_conntrack_the_original_goes_on_untracked_and_the_copy_knows_its_connection() -> None:
    tables = (flow(0, 1, (), Ct(1, table=1), Output(3)), flow(1, 1, (), Output(4)))
    assert [(each.port, f.CT_STATE in each.packet) for each in walk(*tables).emissions] == [(3, False), (4, True)]


def test_conntrack_takes_ip_only() -> None:
    with pytest.raises(InterpreterError, match="IPv4 and IPv6"):
        walk(flow(0, 1, (), Ct(1, table=1)), packet=packets.arp(5, 1, (1, A), B))


# Conjunctions (ovs-actions(7)) --------------------------------------------------------------------------------------

TO_B, FROM_A, OF_ICMP = (f.ETH_TYPE(f.ETH_IPV4), f.IPV4_DST(int(B))), (f.ETH_TYPE(f.ETH_IPV4), f.IPV4_SRC(int(A))), (
    f.ETH_TYPE(f.ETH_IPV4), f.IP_PROTO(f.PROTO_ICMP),
)  # fmt: skip
#: Of another packet than PING.
OF_TCP = (f.ETH_TYPE(f.ETH_IPV4), f.IP_PROTO(f.PROTO_TCP))


def outputs(*flows: Flow) -> list[int]:
    return [each.port for each in walk(*flows).emissions]


def conjunction(number: int, priority: int, *dimensions: tuple[f.Match, ...], port: int) -> list[Flow]:
    """A conjunction that sends what meets all of its dimensions to a port."""
    parts = [
        flow(0, priority, match, Conjunction(number, clause, len(dimensions)))
        for clause, alternatives in enumerate(dimensions, 1)
        for match in alternatives
    ]
    return [*parts, flow(0, priority, (f.CONJ_ID(number),), Output(port))]


def test_a_conjunction_is_met_when_one_alternative_of_each_dimension_is() -> None:
    assert outputs(*conjunction(7, 9, (TO_B, OF_TCP), (FROM_A,), port=2)) == [2]
    assert outputs(*conjunction(7, 9, (TO_B, FROM_A), (OF_TCP,), port=2)) == []
    assert outputs(*conjunction(7, 9, (TO_B,), (FROM_A,), (OF_ICMP,), port=2)) == [2]
    assert outputs(*conjunction(7, 9, (TO_B,), (FROM_A,), (OF_TCP,), port=2)) == []


def test_parts_alone_do_nothing_and_what_is_below_them_is_met() -> None:
    below = flow(0, 1, (), Output(3))
    assert outputs(*conjunction(7, 9, (TO_B,), (OF_TCP,), port=2), below) == [3]
    assert outputs(*conjunction(7, 9, (TO_B,), (FROM_A,), port=2), below) == [2]


def test_a_conjunction_is_as_high_as_its_parts_and_a_plain_flow_above_it_wins() -> None:
    parts = conjunction(7, 9, (TO_B,), (FROM_A,), port=2)
    assert outputs(*parts, flow(0, 10, OF_ICMP, Output(3))) == [3]
    assert outputs(*parts, flow(0, 8, OF_ICMP, Output(3))) == [2]


def test_a_plain_flow_of_the_same_priority_wins() -> None:
    assert outputs(*conjunction(7, 9, (TO_B,), (FROM_A,), port=2), flow(0, 9, OF_ICMP, Output(3))) == [3]


def test_the_higher_of_two_conjunctions_is_met_and_the_lower_where_that_is_not_whole() -> None:
    low = conjunction(8, 5, (TO_B,), (FROM_A,), port=3)
    assert outputs(*conjunction(7, 9, (TO_B,), (OF_ICMP,), port=2), *low) == [2]
    assert outputs(*conjunction(7, 9, (TO_B,), (OF_TCP,), port=2), *low) == [3]


def test_a_flow_can_be_part_of_several_conjunctions() -> None:
    shared = flow(0, 9, TO_B, Conjunction(7, 1, 2), Conjunction(8, 1, 2))
    ends = [flow(0, 9, (f.CONJ_ID(number),), Output(number)) for number in (7, 8)]
    of_7, of_8 = (flow(0, 9, match, Conjunction(number, 2, 2)) for number, match in ((7, OF_TCP), (8, FROM_A)))
    assert outputs(shared, *ends, of_7, of_8) == [8]


def test_a_flow_that_is_two_parts_of_one_conjunction_is_an_error() -> None:
    both = flow(0, 9, TO_B, Conjunction(7, 1, 2), Conjunction(7, 2, 2))
    with pytest.raises(InterpreterError, match=r"two parts of one conjunction: .*conjunction.7,1/2.,conjunction.7,2/2"):
        outputs(both, flow(0, 9, (f.CONJ_ID(7),), Output(2)))


def test_whoever_meets_a_conjunction_must_still_match_the_rest_of_the_flow_that_it_ends_in() -> None:
    parts = conjunction(7, 9, (TO_B,), (FROM_A,), port=2)[:-1]
    assert outputs(*parts, flow(0, 9, f.match(f.CONJ_ID(7), *OF_ICMP), Output(2))) == [2]
    assert outputs(*parts, flow(0, 9, f.match(f.CONJ_ID(7), *OF_TCP), Output(2))) == []


def test_no_packet_has_a_conjunction_s_number_by_itself() -> None:
    assert outputs(flow(0, 9, (f.CONJ_ID(7),), Output(2))) == []


def test_two_conjunctions_of_one_priority_that_differ_are_an_error() -> None:
    flows = conjunction(7, 9, (TO_B,), (FROM_A,), port=2) + conjunction(8, 9, (OF_ICMP,), (FROM_A[:1],), port=3)
    with pytest.raises(InterpreterError, match="overlap"):
        outputs(*flows)


def test_a_walk_tells_its_story() -> None:
    text = str(walk(flow(0, 1, (), Goto(35)), flow(35, 1, (), Output(3))))
    assert text.splitlines()[0].startswith("Classify: ") and text.splitlines()[-1] == "out by port 3"
    assert str(walk()) == "Classify: no match, drop"
