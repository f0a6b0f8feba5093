"""Policies as flows: what each kind of rule becomes, and how addresses, ports and priorities are put."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address, ip_network
from itertools import pairwise
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_objects import has, policy

from flows import fields as f
from flows.fields import Match
from flows.policies import Piece, blocks, pieces, ranks, without
from flows.registers import DESTINATION_IDENTITY, FROM_POD, SOURCE_IDENTITY, TO_POD
from flows.tables import policy as table
from flows.tables.policy import joined, port_masks
from flows.values import DROP, Conjunction, Goto
from topology.identities import NamedPort
from topology.naming import Address, Network
from topology.policies import (
    Action,
    Direction,
    IpBlock,
    NodeSet,
    PodSet,
    Policy,
    PolicyPort,
    Rule,
    Tier,
)
from topology.selectors import Selector

SUBJECTS, PEERS, MANY = (PodSet((has("app", value),), "a") for value in ("x", "y", "many"))
INGRESS_POLICY, EGRESS_POLICY, INGRESS_ADMIN = 51, 41, 50
INGRESS_BASELINE, COMMIT = 52, 60
_IPV4, _IPV6, _TCP = f.ETH_TYPE(f.ETH_IPV4), f.ETH_TYPE(f.ETH_IPV6), f.IP_PROTO(f.PROTO_TCP)


class Names:
    """Who is meant: subjects are 300 and 301, peers 400, `MANY` 500 to 519."""

    ports: ClassVar[dict[int, tuple[NamedPort, ...]]] = {
        300: (("http", "TCP", 80),),
        301: (("http", "TCP", 8080), ("http", "UDP", 80)),
        400: (("http", "TCP", 8000),),
        900: (("dns", "UDP", 53),),
    }

    def members(self, pods: PodSet) -> frozenset[int]:
        return frozenset({SUBJECTS: (300, 301), PEERS: (400,), MANY: range(500, 520)}.get(pods, ()))

    def addresses_of(self, nodes: Selector) -> tuple[Address, ...]:
        return ip_address("172.30.0.1"), ip_address("fd00:172:30::1")

    def named_ports(self, identity: int) -> tuple[NamedPort, ...]:
        return self.ports.get(identity, ())

    def having(self, port_name: str) -> frozenset[int]:
        return frozenset(each for each, ports in self.ports.items() if any(port[0] == port_name for port in ports))


def made(given: Policy) -> list[Piece]:
    """Everything that a policy wants; a rule's rank is its place, and every conjunction has number 7."""
    places = {each: tuple(range(len(given.rules(each) or ()))) for each in Direction}
    return [each for block in blocks(given, places, Names()) for each in pieces(block, lambda title: 7)]


def of_rule(rule: Rule, direction: Direction = Direction.INGRESS) -> dict[Match, Piece]:
    """What a NetworkPolicy for `SUBJECTS` wants with this rule alone, beside their isolation."""
    found = made(policy(subjects=SUBJECTS, **{direction.value: (rule,)}))
    isolated = [each for each in found if each.key[1] == table.ISOLATED]
    assert len(isolated) == 2 and all(each.program == DROP for each in isolated)
    return {each.key[2]: each for each in found if each not in isolated}


def to(identity: int, *terms: f.Term) -> Match:
    return f.match(DESTINATION_IDENTITY(identity), *terms)


# Rules --------------------------------------------------------------------------------------------------------------


def test_a_rule_for_everybody_allows_each_subject_everything() -> None:
    found = of_rule(Rule())
    assert set(found) == {to(300), to(301)}
    piece = found[to(300)]
    assert piece.key[:2] == (INGRESS_POLICY, table.ALLOWED) and piece.program == (Goto(COMMIT),)


@pytest.mark.parametrize("rule", [Rule(peers=()), Rule(ports=()), Rule(peers=(PodSet((has("app", "none"),), "a"),))])
def test_a_rule_for_nobody_allows_nothing(rule: Rule) -> None:
    assert of_rule(rule) == {}


def test_a_peer_is_told_by_its_identity_every_pod_by_a_bit_and_a_subject_from_the_other_side_in_egress() -> None:
    assert set(of_rule(Rule(peers=(PEERS,)))) == {to(each, SOURCE_IDENTITY(400)) for each in (300, 301)}
    assert set(of_rule(Rule(peers=(PodSet(),)))) == {to(each, FROM_POD(1)) for each in (300, 301)}
    egress = of_rule(Rule(peers=(PEERS, PodSet())), Direction.EGRESS)
    assert set(egress) == {
        f.match(SOURCE_IDENTITY(subject), peer)
        for subject in (300, 301)
        for peer in (DESTINATION_IDENTITY(400), TO_POD(1))
    }
    assert {piece.key[0] for piece in egress.values()} == {EGRESS_POLICY}


def test_addresses_are_matched_at_the_other_end_and_nodes_by_theirs() -> None:
    block = IpBlock(ip_network("192.0.2.0/24"), (ip_network("192.0.2.0/25"),))
    assert set(of_rule(Rule(peers=(block,)))) == {
        to(each, _IPV4, f.IPV4_SRC(0xC0000280, 0xFFFFFF80)) for each in (300, 301)
    }
    everything = of_rule(Rule(peers=(IpBlock(ip_network("::/0")),)), Direction.EGRESS)
    assert set(everything) == {f.match(SOURCE_IDENTITY(each), _IPV6) for each in (300, 301)}
    of_nodes = of_rule(Rule(peers=(NodeSet(),)), Direction.EGRESS)
    addresses = (_IPV4, f.IPV4_DST(0xAC1E0001)), (_IPV6, f.IPV6_DST(int(ip_address("fd00:172:30::1"))))
    assert set(of_nodes) == {f.match(SOURCE_IDENTITY(each), *own) for each in (300, 301) for own in addresses}


def test_ports_are_matched_in_both_families_but_where_the_peer_is_of_one() -> None:
    by_number = Rule(ports=(PolicyPort("TCP", 80),))
    assert set(of_rule(by_number)) == {
        to(each, family, _TCP, f.TCP_DST(80)) for each in (300, 301) for family in (_IPV4, _IPV6)
    }
    with_block = Rule(peers=(IpBlock(ip_network("0.0.0.0/0")),), ports=(PolicyPort("TCP", 80),))
    assert set(of_rule(with_block)) == {to(each, _IPV4, _TCP, f.TCP_DST(80)) for each in (300, 301)}
    every_port = Rule(peers=(PEERS,), ports=(PolicyPort("SCTP"),))
    sctp = f.IP_PROTO(f.PROTO_SCTP)
    assert set(of_rule(every_port)) == {
        to(each, SOURCE_IDENTITY(400), family, sctp) for each in (300, 301) for family in (_IPV4, _IPV6)
    }


def test_a_range_of_ports_is_values_and_masks() -> None:
    found = of_rule(Rule(peers=(IpBlock(ip_network("0.0.0.0/0")),), ports=(PolicyPort("UDP", 1024, 1535),)))
    udp = f.IP_PROTO(f.PROTO_UDP)
    assert set(found) == {to(each, _IPV4, udp, f.UDP_DST(1024, 0xFE00)) for each in (300, 301)}


def test_a_named_port_is_what_each_subject_calls_so() -> None:
    found = of_rule(Rule(ports=(PolicyPort("TCP", "http"),)))
    assert set(found) == {
        *(to(300, family, _TCP, f.TCP_DST(80)) for family in (_IPV4, _IPV6)),
        *(to(301, family, _TCP, f.TCP_DST(8080)) for family in (_IPV4, _IPV6)),
    }
    of_any_protocol = of_rule(Rule(ports=(PolicyPort("", "http"),)))
    udp = (f.IP_PROTO(f.PROTO_UDP), f.UDP_DST(80))
    assert set(of_any_protocol) == {*found, *(to(301, family, *udp) for family in (_IPV4, _IPV6))}
    assert of_rule(Rule(ports=(PolicyPort("TCP", "nobody's"),))) == {}


def test_a_named_port_of_egress_is_what_each_receiver_calls_so_also_one_that_is_found_by_its_address() -> None:
    by_pods = of_rule(Rule(peers=(PEERS,), ports=(PolicyPort("TCP", "http"),)), Direction.EGRESS)
    assert set(by_pods) == {
        f.match(SOURCE_IDENTITY(each), DESTINATION_IDENTITY(400), family, _TCP, f.TCP_DST(8000))
        for each in (300, 301)
        for family in (_IPV4, _IPV6)
    }
    block = IpBlock(ip_network("10.0.0.0/8"))
    by_address = of_rule(Rule(peers=(block,), ports=(PolicyPort("UDP", "dns"),)), Direction.EGRESS)
    there = (f.IPV4_DST(0x0A000000, 0xFF000000), f.IP_PROTO(f.PROTO_UDP), f.UDP_DST(53))
    assert set(by_address) == {
        f.match(SOURCE_IDENTITY(each), DESTINATION_IDENTITY(900), _IPV4, *there) for each in (300, 301)
    }


def test_few_combinations_are_written_out_and_many_become_a_conjunction() -> None:
    few = of_rule(Rule(peers=(PodSet((has("app", "y"),), "a"),), ports=(PolicyPort("TCP", 80), PolicyPort("UDP", 53))))
    assert len(few) == 2 * 1 * 4
    found = of_rule(Rule(peers=(MANY,)))
    parts = {match: piece for match, piece in found.items() if isinstance(piece.program[0], Conjunction)}
    assert {match: piece.program for match, piece in parts.items()} == {
        **{to(each): (Conjunction(7, 1, 2),) for each in (300, 301)},
        **{(SOURCE_IDENTITY(each),): (Conjunction(7, 2, 2),) for each in range(500, 520)},
    }
    ((end, whole),) = (each for each in found.items() if each[0] not in parts)
    assert end == (f.CONJ_ID(7),) and whole.program == (Goto(COMMIT),)
    assert {piece.key[:2] for piece in found.values()} == {(INGRESS_POLICY, table.conjunction_priority(7))}


def test_a_dimension_of_one_alternative_is_part_of_all_others() -> None:
    one = PodSet((has("app", "y"),), "a")
    found = made(
        policy(subjects=one, ingress=(Rule(peers=(MANY,), ports=(PolicyPort("TCP", 80), PolicyPort("UDP", 53))),))
    )
    parts = [each for each in found if each.program and isinstance(each.program[0], Conjunction)]
    assert all(DESTINATION_IDENTITY(400) in each.key[2] for each in parts)
    assert {part for each in parts for part in each.program} == {Conjunction(7, 1, 2), Conjunction(7, 2, 2)}


def test_a_cluster_policy_isolates_nobody_and_each_action_leads_where_its_tier_says() -> None:
    rules = tuple(Rule(action, peers=(PEERS,)) for action in (Action.DENY, Action.PASS, Action.ACCEPT))
    admin = Policy(kind="ClusterNetworkPolicy", name="p", tier=Tier.ADMIN, subjects=PodSet(), ingress=rules)
    found = made(admin)
    assert [each.program for each in found] == [DROP, (Goto(INGRESS_POLICY),), (Goto(COMMIT),)]
    assert [each.key[0] for each in found] == [INGRESS_ADMIN] * 3
    assert [each.key[1] for each in found] == [table.rank_priority(0, rank) for rank in range(3)]
    assert (
        {each.key[2] for each in found}
        == {f.match(TO_POD(1), SOURCE_IDENTITY(400))}
        == {joined([(TO_POD(1),), (SOURCE_IDENTITY(400),)])}
    )


def test_a_conjunction_of_a_cluster_policy_is_right_below_the_single_flows_of_its_rank() -> None:
    rule = Rule(Action.DENY, peers=(MANY,), ports=(PolicyPort("TCP", 80),))
    found = made(
        Policy(kind="ClusterNetworkPolicy", name="p", tier=Tier.BASELINE, subjects=PodSet(), ingress=(rule,))
    )  # fmt: skip
    assert {each.key[:2] for each in found} == {(INGRESS_BASELINE, table.rank_priority(0, 0) - 1)}


# Priorities ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(0, table.RANKS - 1), st.integers(0, 1000), st.integers(0, table.RANKS - 1))
def test_priorities_are_in_the_order_of_policies_and_ranks_with_two_for_each(a: int, i: int, b: int, j: int) -> None:
    first, second = table.rank_priority(a, i), table.rank_priority(b, j)
    assert ((a, i) < (b, j)) == (first - 1 > second)
    assert first - 1 > 0 and first <= 0xFFFF


def of_actions(name: str, *actions: Action) -> Policy:
    rules = tuple(map(Rule, actions))
    return Policy(kind="ClusterNetworkPolicy", name=name, tier=Tier.ADMIN, subjects=PodSet(), ingress=rules)


ACCEPT, DENY, PASS = Action.ACCEPT, Action.DENY, Action.PASS


def test_rules_that_say_the_same_one_after_another_share_a_rank_also_across_policies() -> None:
    one, two, empty = of_actions("a", ACCEPT, ACCEPT, DENY), of_actions("b", DENY, PASS, PASS), of_actions("c")
    given, crowded = ranks([one, two, empty], Direction.INGRESS)
    assert (given[one], given[two], given[empty]) == ((0, 0, 1), (1, 2, 2), ())
    assert not crowded
    assert ranks([one], Direction.EGRESS) == ({one: ()}, [])


def test_who_finds_no_room_is_told_and_takes_none_from_those_that_follow() -> None:
    full = of_actions("a", *[ACCEPT, DENY] * 15)
    too_much, fits = of_actions("b", ACCEPT, DENY), of_actions("c", DENY)
    given, crowded = ranks([full, too_much, fits], Direction.INGRESS)
    assert crowded == [too_much] and too_much not in given
    assert given[full] == tuple(range(30)) and given[fits] == (29,)


@given(st.lists(st.lists(st.sampled_from(Action), max_size=20), max_size=6))
def test_ranks_keep_the_order_in_which_rules_are_asked(lists: list[list[Action]]) -> None:
    policies = [of_actions(f"p{index}", *actions) for index, actions in enumerate(lists)]
    given, crowded = ranks(policies, Direction.INGRESS)
    assert set(given) | set(crowded) == set(policies)
    placed = [(rank, rule.action) for each in policies if each in given
              for rank, rule in zip(given[each], each.ingress or (), strict=True)]  # fmt: skip
    assert [rank for rank, _ in placed] == sorted(rank for rank, _ in placed)
    assert len({rank for rank, _ in placed}) == len(set(placed)), "a rank has one action"
    assert all(rank < table.RANKS - 1 for rank, _ in placed)
    for (rank, action), (following, other) in pairwise(placed):
        assert following == rank + (action is not other)


# Addresses and ports ------------------------------------------------------------------------------------------------

_BASE = int(ip_address("192.0.2.0"))


@st.composite
def networks(draw: st.DrawFn, shortest: int = 24) -> IPv4Network:
    """Inside 192.0.2.0/24."""
    length = draw(st.integers(shortest, 32))
    place = draw(st.integers(0, 255)) & ~((1 << (32 - length)) - 1)
    return IPv4Network((_BASE + place, length))


def addresses(parts: list[Network]) -> list[int]:
    return [int(address) for part in parts for address in part]


@given(networks(), st.lists(networks(), max_size=4))
def test_a_network_without_others_is_the_addresses_that_are_left_in_as_few_networks_as_can_be(
    network: IPv4Network, excepted: list[IPv4Network]
) -> None:
    left = without(network, excepted)
    expected = {int(each) for each in network} - {int(each) for other in excepted for each in other}
    assert sorted(addresses(left)) == sorted(expected)
    # Each is as large as it can be: with the other half of what it is half of, there is more than is left.
    for part in left:
        if part.prefixlen > network.prefixlen:
            assert not set(addresses([part.supernet()])) <= expected


def test_an_exception_of_the_other_family_takes_nothing_out() -> None:
    network, other = ip_network("10.0.0.0/8"), ip_network("::/0")
    assert without(network, [other]) == [network]
    assert without(network, [network]) == []


ports = st.integers(0, 0xFFFF)


@given(ports, ports)
def test_port_masks_cover_a_range_and_nothing_else_with_as_few_as_can_be(one: int, other: int) -> None:
    first, last = min(one, other), max(one, other)
    found = list(port_masks(first, last))
    blocks = [(value, value + (0xFFFF & ~mask)) for value, mask in found]
    assert blocks[0][0] == first and blocks[-1][1] == last
    assert all(end + 1 == start for (_, end), (start, _) in pairwise(blocks))
    assert all(value & mask == value for value, mask in found)
    for value, end in blocks:
        size = end - value + 1
        # No block has its other half in the range: the two would be one.
        other_half = value ^ size
        if size <= 0xFFFF:
            assert not first <= other_half <= other_half + size - 1 <= last


def test_a_range_of_all_ports_is_one_mask_and_of_one_port_that_port() -> None:
    assert list(port_masks(0, 0xFFFF)) == [(0, 0)]
    assert list(port_masks(80, 80)) == [(80, 0xFFFF)]
    assert len(list(port_masks(1, 0xFFFE))) == 30


def test_matches_that_exclude_one_another_have_no_match_together() -> None:
    assert joined([(_IPV4, f.IPV4_SRC(1)), (_IPV6, _TCP)]) is None
    assert joined([(_IPV4, _TCP), (_IPV4, f.IP_PROTO(f.PROTO_UDP))]) is None
    assert joined([(SOURCE_IDENTITY(300),), (SOURCE_IDENTITY(301),)]) is None
    assert joined([(_TCP,), (_IPV4, _TCP)]) == (_IPV4, _TCP)
