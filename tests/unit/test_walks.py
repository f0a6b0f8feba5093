"""Packets through the compiled pipeline, from end to end."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from fabric import FIRST_POD, GATEWAY, OUT, TUNNEL, WAYS, Arrival, Fabric, gateway_address, of_family
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import fields as f
from flows import packets
from flows.pipeline import (
    ARP,
    CLASSIFY,
    COMMIT,
    EGRESS_ADMIN,
    EGRESS_BASELINE,
    EGRESS_POLICY,
    INGRESS_ADMIN,
    INGRESS_BASELINE,
    INGRESS_POLICY,
    LOCALITY,
    ND_REPLY,
    NODE_ADDRESS,
    OUTPUT,
    POLICY,
    ROUTE,
    SERVICE,
    TRACK,
    TRACK_STATE,
    UNSNAT,
)
from topology.naming import GATEWAY_MAC, ROUTER_MAC, link_local

FAMILIES = pytest.mark.parametrize("version", [4, 6])
JUDGED = (
    *(POLICY, EGRESS_ADMIN, EGRESS_POLICY, EGRESS_BASELINE),
    *(INGRESS_ADMIN, INGRESS_POLICY, INGRESS_BASELINE),
)
NEW = (CLASSIFY, UNSNAT, TRACK, TRACK_STATE, LOCALITY, NODE_ADDRESS, SERVICE, ROUTE, *JUDGED, COMMIT, OUTPUT)
LATER = (CLASSIFY, UNSNAT, TRACK, TRACK_STATE, ROUTE, *JUDGED, COMMIT, OUTPUT)
REPLY = (CLASSIFY, UNSNAT, TRACK, TRACK_STATE, ROUTE, POLICY, COMMIT, OUTPUT)
WORLD = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
NOBODY = {4: ip_address("10.244.1.200"), 6: ip_address("fd00:10:244:1::c8")}


@pytest.fixture(params=WAYS)
def fabric(request: pytest.FixtureRequest) -> Fabric:
    return Fabric(3, [(1, "a1"), (1, "a2"), (2, "b1")], way=WAYS[request.param])


def ping(fabric: Fabric, source: str, target: str, version: int, *, reply: bool = False) -> list[Arrival]:
    """What comes of a ping from one pod to another."""
    node, pod = fabric.pod(source)
    _, other = fabric.pod(target)
    ends = of_family(pod.addresses, version), of_family(other.addresses, version)
    return fabric.send(node, packets.ping(pod.port, (pod.mac, OUT), *ends, reply=reply))


def assert_arrives(fabric: Fabric, arrivals: list[Arrival], source: str, target: str, version: int) -> None:
    """At the one pod, un-NATed, from the router to the pod's own MAC."""
    _, pod = fabric.pod(source)
    node, other = fabric.pod(target)
    (arrival,) = arrivals
    assert (arrival.node, arrival.port) == (node, other.port)
    assert (arrival.packet[f.ETH_SRC], arrival.packet[f.ETH_DST]) == (ROUTER_MAC, other.mac)
    fields = (f.IPV4_SRC, f.IPV4_DST) if version == 4 else (f.IPV6_SRC, f.IPV6_DST)
    ends = of_family(pod.addresses, version), of_family(other.addresses, version)
    assert tuple(arrival.packet[field] for field in fields) == tuple(map(int, ends))


@FAMILIES
@pytest.mark.parametrize(("source", "target"), [("a1", "a2"), ("a2", "a1"), ("a1", "b1"), ("b1", "a2")])
def test_a_pod_reaches_a_pod_and_is_answered(fabric: Fabric, source: str, target: str, version: int) -> None:
    there = ping(fabric, source, target, version)
    assert_arrives(fabric, there, source, target, version)
    back = ping(fabric, target, source, version, reply=True)
    assert_arrives(fabric, back, target, source, version)
    assert back[0].packet[f.CT_STATE] == f.CT_TRK | f.CT_EST | f.CT_RPL


@FAMILIES
def test_a_forwarded_packet_takes_the_short_way_through_the_tables(fabric: Fabric, version: int) -> None:
    node, pod = fabric.pod("a1")
    target = of_family(fabric.pod("a2")[1].addresses, version)
    packet = packets.ping(pod.port, (pod.mac, OUT), of_family(pod.addresses, version), target)
    assert fabric.walk(node, packet).tables == [each.number for each in NEW]
    ping(fabric, "a2", "a1", version, reply=True)
    assert fabric.walk(node, packet).tables == [each.number for each in LATER]
    _, other = fabric.pod("a2")
    answer = packets.ping(other.port, (other.mac, OUT), target, of_family(pod.addresses, version), reply=True)
    assert fabric.walk(node, answer).tables == [each.number for each in REPLY]


@FAMILIES
def test_a_node_reaches_pods_here_and_there_and_they_answer_it(fabric: Fabric, version: int) -> None:
    own = gateway_address(fabric.node("n1"), version)
    for name in ("a1", "b1"):
        node, pod = fabric.pod(name)
        target = of_family(pod.addresses, version)
        (there,) = fabric.send("n1", packets.ping(GATEWAY, (GATEWAY_MAC, OUT), own, target))
        assert (there.node, there.port) == (node, pod.port)
        (back,) = fabric.send(node, packets.ping(pod.port, (pod.mac, OUT), target, own, reply=True))
        assert (back.node, back.port, back.packet[f.ETH_DST]) == ("n1", GATEWAY, GATEWAY_MAC)
        assert back.packet[f.CT_STATE] & f.CT_RPL


@FAMILIES
def test_a_node_s_own_address_is_reached_from_every_pod_un_natted(fabric: Fabric, version: int) -> None:
    target = of_family(fabric.node("n2").addresses, version)
    for name in ("a1", "b1"):
        node, pod = fabric.pod(name)
        source = of_family(pod.addresses, version)
        (there,) = fabric.send(node, packets.ping(pod.port, (pod.mac, OUT), source, target))
        assert (there.node, there.port) == ("n2", GATEWAY)
        assert there.packet[f.IPV4_SRC if version == 4 else f.IPV6_SRC] == int(source)


@FAMILIES
def test_the_world_is_behind_the_pod_s_own_node(fabric: Fabric, version: int) -> None:
    node, pod = fabric.pod("a1")
    source = of_family(pod.addresses, version)
    (there,) = fabric.send(node, packets.ping(pod.port, (pod.mac, OUT), source, WORLD[version]))
    assert (there.node, there.port, there.packet[f.ETH_DST]) == ("n1", GATEWAY, GATEWAY_MAC)
    (back,) = fabric.send("n1", packets.ping(GATEWAY, (GATEWAY_MAC, OUT), WORLD[version], source, reply=True))
    assert (back.port, back.packet[f.CT_STATE]) == (pod.port, f.CT_TRK | f.CT_EST | f.CT_RPL)


@FAMILIES
def test_what_nobody_has_is_dropped_and_not_sent_round(fabric: Fabric, version: int) -> None:
    node, pod = fabric.pod("a1")
    source = of_family(pod.addresses, version)
    assert not fabric.send(node, packets.ping(pod.port, (pod.mac, OUT), source, NOBODY[version]))
    assert not fabric.send("n2", packets.ping(GATEWAY, (GATEWAY_MAC, OUT), WORLD[version], NOBODY[version]))
    multicast = ip_address("224.0.0.251" if version == 4 else "ff02::fb")
    assert not fabric.send(node, packets.ping(pod.port, (pod.mac, OUT), source, multicast))


@FAMILIES
def test_what_comes_by_tunnel_is_for_this_node_or_for_nobody(fabric: Fabric, version: int) -> None:
    source = of_family(fabric.pod("a1")[1].addresses, version)
    for target in (of_family(fabric.pod("b1")[1].addresses, version), WORLD[version]):
        assert not fabric.walk("n3", packets.ping(TUNNEL, (1, 2), source, target)).emissions


@FAMILIES
@pytest.mark.parametrize("lie", ["mac", "address", "another pod's address", "port"])
def test_a_pod_that_lies_about_itself_is_not_heard(fabric: Fabric, version: int, lie: str) -> None:
    node, pod = fabric.pod("a1")
    other = fabric.pod("a2")[1]
    target = of_family(fabric.pod("b1")[1].addresses, version)
    own = of_family(pod.addresses, version)
    packet = {
        "mac": packets.ping(pod.port, (other.mac, OUT), own, target),
        "address": packets.ping(pod.port, (pod.mac, OUT), WORLD[version], target),
        "another pod's address": packets.ping(pod.port, (pod.mac, OUT), of_family(other.addresses, version), target),
        "port": packets.ping(FIRST_POD + 50, (pod.mac, OUT), own, target),
    }[lie]
    assert fabric.walk(node, packet).tables == [CLASSIFY.number]
    assert fabric.send(node, packets.ping(pod.port, (pod.mac, OUT), own, target))


def test_arp_is_answered_for_every_address_with_the_router_s_mac(fabric: Fabric) -> None:
    node, pod = fabric.pod("a1")
    sender = pod.mac, of_family(pod.addresses, 4)
    for target in (gateway_address(fabric.node(node), 4), of_family(fabric.pod("b1")[1].addresses, 4), WORLD[4]):
        walk = fabric.walk(node, packets.arp(pod.port, pod.mac, sender, target))
        assert walk.tables == [CLASSIFY.number, ARP.number]
        (answer,) = walk.emissions
        assert answer.port == pod.port
        said = {field: answer.packet[field] for field in (f.ETH_SRC, f.ETH_DST, f.ARP_OP)}
        assert said == {f.ETH_SRC: ROUTER_MAC, f.ETH_DST: pod.mac, f.ARP_OP: 2}
        told = [answer.packet[field] for field in (f.ARP_SHA, f.ARP_SPA, f.ARP_THA, f.ARP_TPA)]
        assert told == [ROUTER_MAC, int(target), pod.mac, int(sender[1])]


@pytest.mark.parametrize("from_link_local", [False, True])
def test_a_solicitation_is_answered_with_an_advertisement(fabric: Fabric, from_link_local: bool) -> None:
    node, pod = fabric.pod("a1")
    source = link_local(pod.mac) if from_link_local else of_family(pod.addresses, 6)
    target = of_family(fabric.pod("b1")[1].addresses, 6)
    walk = fabric.walk(node, packets.solicitation(pod.port, pod.mac, (pod.mac, source), target))
    assert walk.tables == [CLASSIFY.number, ARP.number, ND_REPLY.number]
    (answer,) = walk.emissions
    assert answer.port == pod.port
    said = [answer.packet[field] for field in (f.ETH_SRC, f.ETH_DST, f.IPV6_SRC, f.IPV6_DST)]
    assert said == [ROUTER_MAC, pod.mac, int(target), int(source)]
    told = [answer.packet[field] for field in (f.ICMPV6_TYPE, f.ND_TARGET, f.ND_TLL, f.ND_RESERVED)]
    assert told == [136, int(target), ROUTER_MAC, 0xE000_0000]


def test_neighbour_packets_that_lie_are_dropped(fabric: Fabric) -> None:
    node, pod = fabric.pod("a1")
    other = fabric.pod("a2")[1]
    v4, v6 = of_family(pod.addresses, 4), of_family(pod.addresses, 6)
    target_v4, target_v6 = gateway_address(fabric.node(node), 4), gateway_address(fabric.node(node), 6)
    lies = [
        packets.arp(pod.port, pod.mac, (pod.mac, of_family(other.addresses, 4)), target_v4),
        packets.arp(pod.port, pod.mac, (other.mac, v4), target_v4),
        packets.arp(pod.port, other.mac, (pod.mac, v4), target_v4),
        packets.arp(pod.port, pod.mac, (pod.mac, v4), target_v4, operation=2),
        packets.solicitation(pod.port, pod.mac, (pod.mac, of_family(other.addresses, 6)), target_v6),
        packets.solicitation(pod.port, pod.mac, (other.mac, v6), target_v6),
        packets.solicitation(pod.port, other.mac, (pod.mac, v6), target_v6),
        packets.solicitation(pod.port, pod.mac, (pod.mac, v6), target_v6) | {f.ICMPV6_TYPE: 136},
        packets.solicitation(pod.port, pod.mac, (pod.mac, v6), target_v6) | {f.ICMPV6_TYPE: 134},
        packets.arp(TUNNEL, pod.mac, (pod.mac, v4), target_v4),
        packets.solicitation(TUNNEL, pod.mac, (pod.mac, v6), target_v6),
    ]
    assert [fabric.walk(node, lie).emissions for lie in lies] == [()] * len(lies)


clusters = st.integers(1, 5).flatmap(
    lambda nodes: st.tuples(st.just(nodes), st.lists(st.integers(1, nodes), min_size=1, max_size=6))
)


@settings(max_examples=40, deadline=None)
@given(clusters)
def test_in_any_cluster_every_pod_reaches_every_pod_over_both_families(cluster: tuple[int, list[int]]) -> None:
    count, where = cluster
    names = [f"p{number}" for number in range(len(where))]
    fabric = Fabric(count, zip(where, names, strict=True))
    for source in names:
        for target in names:
            if source != target:
                for version in (4, 6):
                    assert_arrives(fabric, ping(fabric, source, target, version), source, target, version)
