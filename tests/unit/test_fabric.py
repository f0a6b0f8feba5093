"""Bridges that are wired port to port: packets go from one to the next until they are where they should be."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import msgspec
import pytest
from fabric import GATEWAY, OUT, TUNNEL, gateway_address, of_family
from hypothesis import given, settings
from hypothesis import strategies as st
from wired import FIRST_WIRE, POD, Wired, join, line, node

import flows.wiring
from flows import fabric_parts, packets
from flows import fields as f
from flows.interpreter import Packet
from flows.pipeline import FABRIC
from flows.registers import Identity
from flows.state import Port
from flows.update import CLUSTER
from flows.values import Bucket, Flow, Group, GroupType
from topology.graph import Link, LinkKind, Wire
from topology.model import Object
from topology.naming import (
    FABRIC_SENDER_PREFIX,
    GATEWAY_MAC,
    GATEWAY_PORT,
    ROUTER_MAC,
    TUNNEL_PORT,
    fabric_mac,
    pod_port_name,
)
from topology.policies import PodSet, Policy, Rule
from topology.selectors import Operator, Requirement

FAMILIES = pytest.mark.parametrize("version", [4, 6])
DIAMOND = [join("a", "b"), join("a", "c"), join("b", "d"), join("c", "d")]
TRIANGLE = [join("a", "b"), join("a", "c"), join("b", "c")]


# Where packets go -------------------------------------------------------------------------------------------------


@FAMILIES
@pytest.mark.parametrize("transit", [[], ["b"]])
def test_a_packet_crosses_three_bridges_and_is_answered(version: int, transit: list[str]) -> None:
    cluster = Wired(line("a", "b", "c"), pods=["a", "c"], transit=transit)
    there = cluster.ping("a", "c", version)
    assert there.way == ["a", "b", "c"]
    pod = cluster.pod("c")
    assert (there.packet[f.ETH_SRC], there.packet[f.ETH_DST]) == (ROUTER_MAC, pod.mac)
    back = cluster.ping("c", "a", version, reply=True)
    assert back.way == ["c", "b", "a"]
    assert back.packet[f.CT_STATE] == f.CT_TRK | f.CT_EST | f.CT_RPL


@FAMILIES
def test_bridges_between_count_as_hops_and_neighbours_do_not(version: int) -> None:
    cluster = Wired(line("a", "b", "c", "d"), pods=["a", "b", "d"])
    assert cluster.ping("a", "b", version).packet[f.IP_TTL] == 64
    assert cluster.ping("a", "d", version).packet[f.IP_TTL] == 62
    assert not cluster.send("a", cluster.request("a", "d", version) | {f.IP_TTL: 2})


@FAMILIES
def test_hosts_reach_pods_and_pods_reach_hosts_by_wire(version: int) -> None:
    cluster = Wired(line("a", "b", "c"), pods=["c"], tunnels="a")
    own = gateway_address(cluster.compiler.cluster.nodes["a"], version)
    pod = cluster.pod("c")
    target = of_family(pod.addresses, version)
    (there,) = cluster.send("a", packets.ping(GATEWAY, (GATEWAY_MAC, OUT), own, target))
    assert (there.way, there.port) == (["a", "b", "c"], POD)
    (back,) = cluster.send("c", packets.ping(POD, (pod.mac, OUT), target, own, reply=True))
    assert (back.way, back.port) == (["c", "b", "a"], GATEWAY)


def test_the_far_end_knows_who_sends() -> None:
    cluster = Wired(line("a", "b", "c"), pods=["a", "c"], tunnels="a")
    said = []
    for source, packet in (
        (cluster.pod("a").identity, cluster.request("a", "c")),
        (Identity.THIS_HOST, host_ping(cluster, "a", "c")),
    ):
        (emission,) = cluster.walk("a", packet).emissions
        assert emission.packet[f.ETH_SRC] == FABRIC_SENDER_PREFIX << 32 | source
        assert emission.packet[f.ETH_DST] == fabric_mac("c")
        (arrival,) = cluster.send("a", packet)
        said.append(arrival.packet[f.REG5] & 0xFF_FFFF)
    assert said == [cluster.pod("a").identity, Identity.OTHER_NODE]


def host_ping(cluster: Wired, source: str, target: str) -> Packet:
    own = gateway_address(cluster.compiler.cluster.nodes[source], 4)
    return packets.ping(GATEWAY, (GATEWAY_MAC, OUT), own, of_family(cluster.pod(target).addresses, 4))


def test_policies_hold_across_wires() -> None:
    only_b = PodSet((Requirement("name", Operator.IN, ("b",)),), "default")
    of_d = PodSet((Requirement("name", Operator.IN, ("d",)),), "default")
    policy = Policy(namespace="default", name="d", subjects=of_d, ingress=(Rule(peers=(only_b,)),))
    cluster = Wired(DIAMOND, pods="abd", transit="c", objects=[policy])
    assert not cluster.send("a", cluster.request("a", "d"))
    cluster.ping("b", "d")
    # An answer is let through.
    cluster = Wired(DIAMOND, pods="abd", transit="c", objects=[policy])
    cluster.ping("d", "a")
    cluster.ping("a", "d", reply=True)


@pytest.mark.parametrize("lie", ["not for us", "no sender", "another port", "discovery", "arp"])
def test_what_is_no_frame_of_the_fabric_is_dropped(lie: str) -> None:
    cluster = Wired(line("a", "b"), pods="ab")
    macs = (FABRIC_SENDER_PREFIX << 32 | cluster.pod("a").identity, fabric_mac("b"))
    ends = [of_family(cluster.pod(name).addresses, 6) for name in "ab"]
    true = packets.ping(FIRST_WIRE + 1, macs, *ends)
    assert cluster.walk("b", true).emissions
    false = {
        "not for us": true | {f.ETH_DST: ROUTER_MAC},
        "no sender": true | {f.ETH_SRC: ROUTER_MAC},
        "another port": true | {f.IN_PORT: 77},
        "discovery": true | {f.ICMPV6_TYPE: 136},
        "arp": packets.arp(FIRST_WIRE + 1, macs[0], (macs[0], of_family(cluster.pod("a").addresses, 4)), ends[1]),
    }[lie]
    assert not cluster.walk("b", false).emissions


def test_what_comes_by_wire_is_for_a_pod_here_or_for_nobody() -> None:
    cluster = Wired(line("a", "b"), pods="ab", tunnels="ab")
    macs = (FABRIC_SENDER_PREFIX << 32 | cluster.pod("a").identity, fabric_mac("b"))
    own = of_family(cluster.pod("a").addresses, 4)
    for target in (own, gateway_address(cluster.compiler.cluster.nodes["a"], 4)):
        assert not cluster.walk("b", packets.ping(FIRST_WIRE + 1, macs, own, target)).emissions


# Several ways -----------------------------------------------------------------------------------------------------


def exits(cluster: Wired, name: str, target: str) -> Group | Flow:
    """How a switch sends to another: its group, or else the flow."""
    (flow,) = [
        each
        for each in cluster.compiler.flows(name)
        if each.table == FABRIC.number and each.match == (f.ETH_DST(fabric_mac(target)),)
    ]
    groups = {each.group_id: each for each in cluster.compiler.groups(name)}
    number = getattr(flow.program[0], "group_id", None)
    return flow if number is None else groups[number]


def group(cluster: Wired, name: str, target: str) -> Group:
    found = exits(cluster, name, target)
    assert isinstance(found, Group)
    return found


def test_equal_ways_are_shared_by_a_group_that_watches_their_ports() -> None:
    cluster = Wired(DIAMOND, pods="ad")
    shared = group(cluster, "a", "d")
    ports = [cluster.numbers["a", "to-b"], cluster.numbers["a", "to-c"]]
    assert (shared.type, [bucket.watch_port for bucket in shared.buckets]) == (GroupType.SELECT, ports)
    ways = set()
    for number in range(2):
        (arrival,) = cluster.send("a", cluster.request("a", "d"), lambda found, n=number: found.buckets[n])
        ways.add("".join(arrival.way))
    assert ways == {"abd", "acd"}


def test_switches_in_a_row_don_t_choose_alike() -> None:
    cluster = Wired(DIAMOND, pods="ad")
    bases = {group(cluster, name, target).selection_parameter for name, target in ("ad", "da", "bc", "cb")}
    assert len(bases) == 4 and all(0 < base < 1 << 32 for base in bases)


def test_parallel_wires_are_shared_and_dearer_ones_are_left_alone() -> None:
    cluster = Wired([join("a", "b", number=1), join("a", "b", number=2), join("a", "b", cost=2, number=3)], pods="ab")
    assert len(group(cluster, "a", "b").buckets) == 2
    cluster.compiler.set_links(cluster.wires[1:])
    assert isinstance(exits(cluster, "a", "b"), Flow)
    cluster.compiler.set_links(cluster.wires[2:])
    cluster.interpret()
    cluster.ping("a", "b")


def test_the_only_way_has_an_alternate_where_one_is_free_of_loops() -> None:
    cluster = Wired(TRIANGLE, pods="abc")
    pair = group(cluster, "a", "b")
    assert pair.type is GroupType.FAST_FAILOVER
    assert [bucket.watch_port for bucket in pair.buckets] == [
        cluster.numbers["a", "to-b"], cluster.numbers["a", "to-c"],
    ]  # fmt: skip
    cluster.interpret(down={"a": [cluster.numbers["a", "to-b"]], "b": [cluster.numbers["b", "to-a"]]})
    assert cluster.ping("a", "b").way == ["a", "c", "b"]
    assert cluster.ping("b", "a", reply=True).way == ["b", "c", "a"]
    assert isinstance(exits(Wired(line("a", "b", "c"), pods="ac"), "a", "c"), Flow)


def test_destinations_behind_the_same_ports_share_a_group() -> None:
    leaves = [f"leaf-{number}" for number in range(12)]
    wires = [join(leaf, spine) for leaf in leaves for spine in ("spine-1", "spine-2")]
    cluster = Wired(wires, pods=leaves, transit=["spine-1", "spine-2"])
    assert len(list(cluster.compiler.groups("leaf-0"))) == 1
    assert not list(cluster.compiler.groups("spine-1"))
    # Nobody sends to a switch in transit.
    ways = [flow for flow in cluster.compiler.flows("leaf-0") if flow.table == FABRIC.number]
    assert len(ways) == len(leaves) - 1


def test_groups_whose_hashes_meet_have_numbers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    wires = [
        join("a", "b"),
        join("a", "c"),
        join("a", "d"),
        join("b", "e"),
        join("c", "e"),
        join("c", "f"),
        join("d", "f"),
    ]
    hashed = fabric_parts._hashed
    monkeypatch.setattr(fabric_parts, "_hashed", lambda each, salt: 0xC000_0000 + (hashed(each, 0) + salt) % 3)
    fabric_parts._first.cache_clear()
    try:
        cluster = Wired(wires, pods="aef")
        assert group(cluster, "a", "e") != group(cluster, "a", "f")
        for target in "ef":
            cluster.ping("a", target)
        held = {each.group_id: each for each in cluster.compiler.groups("a")}
        table = set(cluster.compiler.flows("a"))
        for links in (wires[1:], wires[:-1], wires[2:], wires):
            for update in cluster.compiler.set_links(links):
                if update.scope == "a":
                    table = (table - set(update.removed)) | set(update.added)
                    for gone in update.groups_removed:
                        assert held.pop(gone.group_id) == gone
                    held |= {each.group_id: each for each in update.groups_added}
            assert table == set(cluster.compiler.flows("a"))
            assert held == {each.group_id: each for each in cluster.compiler.groups("a")}
    finally:
        fabric_parts._first.cache_clear()


# Beside tunnels ---------------------------------------------------------------------------------------------------


def test_a_wire_is_taken_before_a_tunnel_and_a_tunnel_where_no_wire_leads() -> None:
    cluster = Wired([join("a", "b"), join("c", "d")], pods="abce", tunnels="abce")
    assert cluster.ping("a", "b").way == ["a", "b"]
    for target in "ce":
        # Its own is wired, but not to ours; or it has no wire at all.
        (emission,) = cluster.walk("a", cluster.request("a", target)).emissions
        assert emission.port == TUNNEL
        assert emission.packet[f.TUN_DST] == int(cluster.compiler.cluster.nodes[target].addresses[0])
        assert emission.packet[f.TUN_ID] == cluster.pod("a").identity
    # Who has no wire reaches by tunnel who has.
    (emission,) = cluster.walk("e", cluster.request("e", "a")).emissions
    assert emission.port == TUNNEL


def test_where_neither_wire_nor_tunnel_leads_packets_are_dropped() -> None:
    cluster = Wired([join("a", "b"), join("c", "d")], pods="abcd", tunnels="a")
    cluster.ping("c", "d")
    for source, target in ("ac", "ca", "bc"):
        assert not cluster.send(source, cluster.request(source, target))


def test_a_bridge_between_sends_nothing_into_a_tunnel() -> None:
    cluster = Wired(line("a", "b"), pods="ab", tunnels="abc")
    macs = (FABRIC_SENDER_PREFIX << 32 | cluster.pod("a").identity, fabric_mac("c"))
    packet = packets.ping(FIRST_WIRE + 1, macs, *(of_family(cluster.pod(name).addresses, 4) for name in "ab"))
    assert not cluster.walk("b", packet).emissions


# What changes -----------------------------------------------------------------------------------------------------


def test_a_wire_counts_while_both_ports_are_there_and_up() -> None:
    cluster = Wired(DIAMOND, pods="ad")
    for ports in (cluster.ports("b", down=["to-d"]), [port for port in cluster.ports("b") if port.name != "to-d"]):
        cluster.compiler.set_ports("b", ports)
        assert [wire for wire, _ in cluster.compiler.unused_wires()] == [join("b", "d")]
        cluster.interpret()
        assert cluster.ping("a", "d").way == ["a", "c", "d"]
        assert cluster.ping("d", "a").way == ["d", "c", "a"]
        cluster.compiler.set_ports("b", cluster.ports("b"))
        assert not list(cluster.compiler.unused_wires())


def test_a_port_that_comes_back_under_another_number_is_used_by_that() -> None:
    cluster = Wired(line("a", "b", "c"), pods="ac")
    ports = [msgspec.structs.replace(port, number=900) if port.name == "to-b" else port for port in cluster.ports("a")]
    cluster.compiler.set_ports("a", ports)
    far = cluster.far.pop(("a", cluster.numbers["a", "to-b"]))
    cluster.far["a", 900], cluster.far[far] = far, ("a", 900)
    cluster.interpret()
    cluster.ping("a", "c")
    cluster.ping("c", "a")


def test_a_link_far_away_changes_nothing_of_the_cluster_s_scope() -> None:
    cluster = Wired(DIAMOND, pods="abcd")
    updates = cluster.compiler.set_ports("b", cluster.ports("b", down=["to-d"]))
    assert updates and CLUSTER not in {update.scope for update in updates}


def test_what_nothing_changes_for_is_not_touched() -> None:
    leaves = [f"leaf-{number}" for number in range(6)]
    wires = [join(leaf, spine) for leaf in leaves for spine in ("spine-1", "spine-2")]
    cluster = Wired(wires, pods=leaves, transit=["spine-1", "spine-2"])
    updates = {each.scope: each for each in cluster.compiler.set_links(wires[1:])}
    # Each other leaf has one way less to leaf-0; leaf-0 one way less to each of them.
    assert len(updates["leaf-3"].added) == 1 and len(updates["leaf-0"].added) == len(leaves) - 1
    assert "spine-2" not in updates
    assert not cluster.compiler.set_links(wires[1:])


def test_the_graph_has_the_wires_in_use_with_their_costs() -> None:
    cluster = Wired([join("a", "b", 7), join("b", "c")], pods="a")
    assert list(cluster.compiler.topology.links()) == [
        Link("a", "b", LinkKind.WIRE, 7),
        Link("b", "c", LinkKind.WIRE, 1),
    ]
    cluster.compiler.set_ports("b", cluster.ports("b", down=["to-a"]))
    assert [link.b for link in cluster.compiler.topology.links()] == ["c"]


# Wires that can't be used -----------------------------------------------------------------------------------------


def test_wires_that_can_t_be_used_are_kept_aside_and_told() -> None:
    good = line("a", "b", "c")
    bad = {
        Wire("a", "to-x", "x", "to-a"): "there is no node x",
        Wire("a", "e9", "c", "to-b2"): "node a has no port e9",
        Wire("a", "e1", "a", "e2"): "both ends are on one node",
        Wire("a", GATEWAY_PORT, "c", "e3"): f"port {GATEWAY_PORT} of node a is there for something else",
        Wire("b", TUNNEL_PORT, "c", "e4"): f"port {TUNNEL_PORT} of node b is there for something else",
        Wire("a", pod_port_name("default", "a"), "c", "e5"): "is there for something else",
        Wire("a", "e6", "c", "e6", 0): "its cost is 0, not one of 1 to 65535",
        Wire("a", "e7", "c", "e7", 1 << 16): "its cost is 65536, not one of 1 to 65535",
        Wire("a", "to-b", "c", "e8"): "port to-b of node a is wired to port to-a of node b",
    }
    cluster = Wired(good, pods="ac")
    cluster.compiler.set_links([*good, *bad])
    told = dict(cluster.compiler.unused_wires())
    assert told.keys() == bad.keys()
    for wire, reason in bad.items():
        assert reason in told[wire]
    cluster.interpret()
    assert cluster.ping("a", "c").way == ["a", "b", "c"]


def test_a_wire_is_used_once_its_node_is_known_and_no_longer_when_it_goes() -> None:
    cluster = Wired(line("a", "b", "c"), pods="ac")
    bridge = cluster.compiler.cluster.nodes["b"]
    cluster.compiler.remove(bridge.key)
    assert {reason for _, reason in cluster.compiler.unused_wires()} == {"there is no node b"}
    assert not list(cluster.compiler.flows("b"))
    cluster.compiler.put(bridge)
    cluster.interpret()
    assert cluster.ping("a", "c").way == ["a", "b", "c"]


def test_of_two_nodes_with_one_address_the_first_by_name_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    mac = {name: fabric_mac("a" if name == "c" else name) for name in "abcd"}
    monkeypatch.setattr(flows.wiring, "fabric_mac", mac.__getitem__)
    cluster = Wired([join("a", "b"), join("b", "c"), join("b", "d")], pods="abd")
    ((wire, reason),) = cluster.compiler.unused_wires()
    assert wire == join("b", "c")
    assert reason == "node c has the same address in the fabric as node a: rename one of them"
    cluster.ping("a", "d")
    cluster.compiler.remove(("Node", "", "a"))
    assert [reason for _, reason in cluster.compiler.unused_wires()] == ["there is no node a"]


def test_a_fabric_in_parts_works_within_each() -> None:
    cluster = Wired([*line("a", "b", "c"), *line("x", "y")], pods="acxy")
    cluster.ping("a", "c")
    cluster.ping("x", "y")
    assert not cluster.send("a", cluster.request("a", "x"))


def test_a_switch_in_transit_has_flows_for_wires_and_for_nothing_else() -> None:
    cluster = Wired(line("a", "b", "c"), pods="ac", transit="b", tunnels="a")
    compiler = cluster.compiler
    assert {flow.table for flow in compiler.flows("b")} == {0, FABRIC.number}
    ports = [*cluster.ports("b"), Port(2, TUNNEL_PORT, 1), Port(POD, pod_port_name("default", "b"), 0x0A59_0AF4_0202)]
    compiler.set_ports("b", ports)
    assert {flow.table for flow in compiler.flows("b")} == {0, FABRIC.number}
    # It may be a node like others tomorrow.
    before = set(compiler.flows("b"))
    compiler.put(node("b", 2))
    assert set(compiler.flows("b")) > before


# What always holds ------------------------------------------------------------------------------------------------


def test_tables_grow_with_nodes_and_not_with_pods() -> None:
    sizes = {}
    for pods in (1, 40):
        cluster = Wired(line("a", "b", "c", "d"), pods="ad", transit="b")
        for number in range(pods):
            cluster.compiler.put(pod_like(cluster, number))
        sizes[pods] = {name: len(list(cluster.compiler.flows(name))) for name in (CLUSTER, "b", "c")}
    assert sizes[1] == sizes[40]
    ways = {
        count: sum(flow.table == FABRIC.number for flow in ring(count).compiler.flows("n0")) for count in (4, 8, 16)
    }
    assert ways == {4: 3, 8: 7, 16: 15}


def pod_like(cluster: Wired, number: int) -> Object:
    """Another pod on node d, of the same kind."""
    pod = cluster.compiler.cluster.pods["default", "d"]
    addresses = tuple(cidr[10 + number] for cidr in cluster.compiler.cluster.nodes["d"].pod_cidrs)
    return msgspec.structs.replace(pod, name=f"d{number}", addresses=addresses)


def ring(count: int) -> Wired:
    return Wired([join(f"n{number}", f"n{(number + 1) % count}") for number in range(count)], pods=["n0"])


NAMES = "abcdefg"
graphs = st.dictionaries(
    st.sampled_from(list(combinations(NAMES, 2))), st.sampled_from([1, 1, 1, 2, 3, 6]), min_size=1, max_size=14
)


def every_choice(cluster: Wired, source: str, target: str) -> Iterator[tuple[list[str], bool]]:
    """Each way that a packet may take, whichever bucket a group of several chooses, and whether it arrived."""

    class Choice:
        """Plays a list of choices; learns how many there were at each."""

        def __init__(self, taken: list[int]) -> None:
            self.taken, self.sizes = taken, list[int]()

        def __call__(self, found: Group) -> Bucket:
            place = len(self.sizes)
            self.sizes.append(len(found.buckets))
            return found.buckets[self.taken[place] if place < len(self.taken) else 0]

    waiting: list[list[int]] = [[]]
    while waiting:
        taken = waiting.pop()
        choice = Choice(taken)
        arrivals = cluster.send(source, cluster.request(source, target), choice, limit=len(NAMES))
        assert len(arrivals) <= 1
        assert all((arrival.way[-1], arrival.port) == (target, POD) for arrival in arrivals)
        yield (arrivals[0].way if arrivals else []), bool(arrivals)
        for place in range(len(taken), len(choice.sizes)):
            chosen = taken + [0] * (place - len(taken))
            waiting += [[*chosen, other] for other in range(1, choice.sizes[place])]


@settings(max_examples=150, deadline=None)
@given(graphs, st.data())
def test_no_packet_ever_goes_round_whichever_link_has_just_failed(
    graph: dict[tuple[str, str], int], data: st.DataObject
) -> None:
    wires = [join(a, b, cost) for (a, b), cost in graph.items()]
    names = sorted({name for edge in graph for name in edge})
    ends = data.draw(st.permutations(names))[:2]
    cluster = Wired(wires, pods=ends, transit=set(names) - set(ends))
    reached = cluster.compiler.fabric.paths.distance(*ends) is not None
    for _, arrived in every_choice(cluster, *ends):
        assert arrived == reached
    # One wire fails, and both switches see it, or only one does; nobody has told the compiler yet.
    wire = data.draw(st.sampled_from([each for each in wires if ends[0] in (each.a, each.b)] or wires))
    broken = [(wire.a, cluster.numbers[wire.a, wire.a_port]), (wire.b, cluster.numbers[wire.b, wire.b_port])]
    for seen in (broken, broken[:1], broken[1:]):
        cluster.interpret(down={name: [port] for name, port in seen})
        for way, _ in every_choice(cluster, *ends):
            assert len(set(way)) == len(way)
    # Who has an alternate doesn't lose the packet.
    cluster.interpret(down={name: [port] for name, port in broken})
    first = exits(cluster, *ends) if reached else None
    if isinstance(first, Group) and first.type is GroupType.FAST_FAILOVER:
        assert (ends[0], first.buckets[0].watch_port) not in broken or all(
            arrived for _, arrived in every_choice(cluster, *ends)
        )
    # Then it is told.
    cluster.compiler.set_links([each for each in wires if each != wire])
    cluster.interpret()
    reached = cluster.compiler.fabric.paths.distance(*ends) is not None
    for way, arrived in every_choice(cluster, *ends):
        assert arrived == reached and len(set(way)) == len(way)


def test_a_packet_that_goes_round_while_ways_change_ends() -> None:
    """Each of three has heard another word of where the target is, so each thinks that the next one is nearer."""
    ring = [join("s", "a"), join("a", "b"), join("b", "c"), join("c", "a")]
    cluster = Wired([*ring, *(join(name, "t") for name in "abc")], pods="st", transit="abc")
    heard = {}
    for name, nearest in ("ab", "bc", "ca"):
        cluster.compiler.set_links([*ring, join(nearest, "t")])
        cluster.interpret()
        assert cluster.ping("s", "t").way[-2] == nearest
        heard[name] = cluster.switches[name]
    cluster.switches |= heard
    ways: list[str] = []
    walk = cluster.walk
    cluster.walk = lambda name, packet, choose=None: ways.append(name) or walk(name, packet, choose)  # type: ignore
    assert cluster.send("s", cluster.request("s", "t"), limit=100) == []
    assert 60 < len(ways) < 70
