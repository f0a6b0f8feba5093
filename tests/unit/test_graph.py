"""Ways through the cluster's graph."""

from ipaddress import ip_address, ip_network
from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.graph import (
    COSTS,
    OVERLAY,
    ROUTED,
    Interconnect,
    Link,
    LinkKind,
    Mode,
    NextHop,
    Topology,
    TopologyError,
    is_network,
    subnet,
)
from topology.model import Node

LAN = ip_network("192.0.2.0/24")


def node(name: str, *addresses: str) -> Node:
    return Node(name=name, addresses=tuple(map(ip_address, addresses)), pod_cidrs=())


def topology(*nodes: Node) -> Topology:
    made = Topology()
    for item in nodes:
        made.put(item)
    return made


def overlay(name: str, endpoint: str) -> NextHop:
    return NextHop(LinkKind.OVERLAY, name, ip_address(endpoint))


A, B, C = node("a", "192.0.2.1"), node("b", "192.0.2.2"), node("c", "198.51.100.3")


def test_nodes_reach_each_other_by_tunnel() -> None:
    assert topology(A, B).next_hops("a", "b") == (overlay("b", "192.0.2.2"),)


def test_what_the_overlay_does_is_what_each_member_does() -> None:
    cluster = topology(A, B, C)
    assert cluster.next_hops(OVERLAY, "c") == cluster.next_hops("a", "c") == cluster.next_hops("b", "c")


def test_a_thousand_nodes_are_a_thousand_edges() -> None:
    assert topology(*(node(f"n{i}", f"10.0.{i // 250}.{i % 250 + 1}") for i in range(1000))).graph.size() == 1000


def test_a_node_without_an_address_is_not_reached() -> None:
    cluster = topology(A, node("bare"))
    assert cluster.next_hops("a", "bare") == cluster.next_hops(OVERLAY, "bare") == ()


@pytest.mark.parametrize(("source", "target"), [("a", "a"), ("a", "gone"), ("gone", "a"), ("a", OVERLAY)])
def test_there_is_no_way_to_oneself_to_a_network_or_to_what_is_not_there(source: str, target: str) -> None:
    assert topology(A, B).next_hops(source, target) == ()


def test_nodes_of_one_segment_route_and_all_others_tunnel() -> None:
    cluster = topology(A, B, C)
    cluster.join("a", LAN)
    cluster.join("b", LAN)
    assert cluster.next_hops("a", "b") == (NextHop(LinkKind.SUBNET, "b", ip_address("192.0.2.2")),)
    assert cluster.next_hops("a", "c") == (overlay("c", "198.51.100.3"),)
    assert cluster.next_hops(OVERLAY, "b") == (overlay("b", "192.0.2.2"),)


def test_equal_wires_are_all_taken() -> None:
    cluster = topology(*(node(name) for name in ("leaf-1", "leaf-2", "spine-1", "spine-2")))
    for leaf in ("leaf-1", "leaf-2"):
        for spine in ("spine-1", "spine-2"):
            cluster.wire(leaf, spine)
    assert cluster.next_hops("leaf-1", "leaf-2") == (
        NextHop(LinkKind.WIRE, "spine-1"),
        NextHop(LinkKind.WIRE, "spine-2"),
    )
    cluster.cut("spine-1", "leaf-2")
    assert cluster.next_hops("leaf-1", "leaf-2") == (NextHop(LinkKind.WIRE, "spine-2"),)


def test_a_node_behind_a_member_is_reached_through_it() -> None:
    cluster = topology(A, B, node("behind"))
    cluster.wire("b", "behind")
    assert cluster.next_hops("a", "behind") == cluster.next_hops(OVERLAY, "behind") == (overlay("b", "192.0.2.2"),)


def test_a_tunnel_ends_at_an_address_of_a_family_that_both_have() -> None:
    cluster = topology(node("dual", "192.0.2.9", "2001:db8::9"), node("six", "2001:db8::6"), A)
    assert cluster.next_hops("six", "dual") == (overlay("dual", "2001:db8::9"),)
    assert cluster.next_hops("a", "dual") == (overlay("dual", "192.0.2.9"),)
    assert cluster.next_hops("a", "six") == ()


def test_a_node_with_a_new_address_is_reached_there_and_leaves_the_segments_it_is_no_longer_on() -> None:
    cluster = topology(A, B)
    cluster.join("a", LAN)
    cluster.join("b", LAN)
    cluster.put(node("b", "203.0.113.2"))
    assert cluster.next_hops("a", "b") == (overlay("b", "203.0.113.2"),)
    cluster.put(node("b"))
    assert cluster.next_hops("a", "b") == ()


def test_the_last_member_takes_its_network_along() -> None:
    cluster = topology(A)
    cluster.join("a", LAN)
    cluster.remove("a")
    assert list(cluster.links()) == []
    assert cluster.nodes() == []
    assert len(cluster.graph) == 0


def test_links_are_listed_once_with_the_cost_of_crossing() -> None:
    cluster = topology(A, B)
    cluster.join("a", LAN)
    cluster.wire("b", "a")
    assert list(cluster.links()) == [
        Link("a", "b", LinkKind.WIRE, 1),
        Link("a", OVERLAY, LinkKind.OVERLAY, 10),
        Link("a", subnet(LAN), LinkKind.SUBNET, 1),
        Link("b", OVERLAY, LinkKind.OVERLAY, 10),
    ]


def test_links_that_can_not_be_are_refused() -> None:
    cluster = topology(A, C)
    with pytest.raises(TopologyError, match=r"node c has no address in 192\.0\.2\.0/24"):
        cluster.join("c", LAN)
    with pytest.raises(TopologyError, match="there is no node x"):
        cluster.wire("a", "x")
    with pytest.raises(TopologyError, match="can't be wired to itself"):
        cluster.wire("a", "a")


NAMES = [f"n{i}" for i in range(7)]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(NAMES), st.booleans()),
        st.tuples(st.just("remove"), st.sampled_from(NAMES)),
        st.tuples(st.just("join"), st.sampled_from(NAMES), st.integers(0, 1)),
        st.tuples(st.just("wire"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
        st.tuples(st.just("cut"), st.sampled_from(NAMES), st.sampled_from([*NAMES, OVERLAY, subnet(LAN)])),
    ),
    max_size=40,
)


def play(history: list[tuple[object, ...]]) -> Topology:
    """Nodes with an address have one on each of two segments, so that only missing nodes and addresses are refused."""
    cluster = Topology()
    for step in history:
        match step:
            case ("put", str(name), bool(addressed)):
                i = NAMES.index(name) + 1
                cluster.put(node(name, f"192.0.2.{i}", f"198.51.100.{i}") if addressed else node(name))
            case ("remove", str(name)):
                cluster.remove(name)
            case ("cut", str(a), str(b)):
                cluster.cut(a, b)
            case (verb, str(name), other):
                try:
                    if verb == "join":
                        cluster.join(name, (LAN, ip_network("198.51.100.0/24"))[int(str(other))])
                    else:
                        cluster.wire(name, str(other))
                except TopologyError:
                    continue
    return cluster


@given(steps)
def test_next_hops_are_the_first_steps_of_all_shortest_paths(history: list[tuple[object, ...]]) -> None:
    cluster = play(history)
    plain: nx.Graph[str] = nx.Graph()
    for link in cluster.links():
        halves = 1 if link.kind is LinkKind.WIRE else 0.5
        plain.add_edge(link.a, link.b, cost=link.cost * halves, kind=link.kind)
    for source in (*NAMES, OVERLAY):
        for target in NAMES:
            expected = set()
            if source != target and source in plain and target in plain and nx.has_path(plain, source, target):
                for path in nx.all_shortest_paths(plain, source, target, weight="cost"):
                    member = path[2] if is_network(path[1]) else path[1]
                    expected.add((plain.edges[path[0], path[1]]["kind"], member))
            assert {(hop.kind, hop.node) for hop in cluster.next_hops(source, target)} == expected


@given(steps)
def test_following_next_hops_arrives(history: list[tuple[object, ...]]) -> None:
    cluster = play(history)
    for source, target in pairwise(NAMES):
        at, cost = source, 0
        while hops := cluster.next_hops(at, target):
            at, cost = hops[0].node, cost + COSTS[hops[0].kind]
            assert cost <= 10 * len(NAMES)
        assert at in (source, target)


HYBRID = Interconnect.parse("hybrid", "vxlan", ["192.0.2.0/24", "2001:db8::/64"])


def test_what_joins_nodes_is_the_interconnect_s_to_say() -> None:
    def links(interconnect: Interconnect) -> set[tuple[str, str]]:
        made = Topology(interconnect)
        for item in (A, B, C):
            made.put(item)
        return {(link.a, link.b) for link in made.links()}

    everywhere = {(name, OVERLAY) for name in "abc"}
    assert links(Interconnect()) == everywhere
    assert links(Interconnect(Mode.ROUTED)) == {(name, ROUTED) for name in "abc"}
    assert links(HYBRID) == everywhere | {(name, subnet(LAN)) for name in "ab"}


def test_a_node_is_reached_in_one_way_from_each_of_its_networks() -> None:
    made = Topology(HYBRID)
    both = node("both", "192.0.2.9", "2001:db8::9")
    for item in (A, both):
        made.put(item)
    cidrs = [subnet(each) for each in HYBRID.subnets]
    assert made.ways_to("both") == sorted([OVERLAY, *cidrs]) and made.ways_to("gone") == []
    hops = {way: made.next_hops(way, "both") for way in made.ways_to("both")}
    assert hops == {
        OVERLAY: (overlay("both", "192.0.2.9"),),
        cidrs[0]: (NextHop(LinkKind.SUBNET, "both", ip_address("192.0.2.9")),),
        cidrs[1]: (NextHop(LinkKind.SUBNET, "both", ip_address("2001:db8::9")),),
    }
    assert made.next_hops("a", "both")[0].kind is LinkKind.SUBNET
    # It moves to another segment.
    made.put(node("both", "198.51.100.9", "2001:db8::9"))
    assert made.ways_to("both") == sorted([OVERLAY, cidrs[1]])


def test_of_several_subnets_of_a_family_a_node_is_on_the_first_in_any_order() -> None:
    names = ["198.51.100.0/24", "192.0.2.0/24"]
    both = node("both", "198.51.100.9", "192.0.2.9")
    for order in (names, names[::-1]):
        made = Interconnect.parse("hybrid", "vxlan", order)
        assert made.subnets_of(both) == (LAN,)
        assert [made.number(each) for each in (LAN, ip_network(names[0]), None)] == [1, 2, 0]
