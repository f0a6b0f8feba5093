"""Packets between nodes that route: Services, what is told of senders, and what a host must not be made to send on."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from fabric import GATEWAY, OUT, TUNNEL, WAYS, Fabric, gateway_address, of_family
from test_policy_walks import policy
from test_services import PODS, both, service, slice_of

from flows import fields as f
from flows import packets
from flows.interpreter import Packet
from flows.registers import SOURCE_IDENTITY, Identity
from flows.update import CLUSTER
from flows.values import Note
from topology.graph import Interconnect, Mode, TopologyError
from topology.model import Object
from topology.naming import GATEWAY_MAC, Address
from topology.policies import IpBlock, Rule

FAMILIES = pytest.mark.parametrize("version", [4, 6])
ROUTED = pytest.mark.parametrize("way", ["routed", "hybrid"])
WORLD = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
SOURCE, DESTINATION = {4: f.IPV4_SRC, 6: f.IPV6_SRC}, {4: f.IPV4_DST, 6: f.IPV6_DST}


def fabric(way: str, *objects: Object) -> Fabric:
    """b1 is on n2, c1 on n3, which share both segments in hybrid mode."""
    return Fabric(3, PODS, objects, way=WAYS[way])


def vip(made: Fabric, version: int) -> Address:
    (found,) = made.compiler.cluster.services.values()
    return of_family(found.cluster_ips, version)


def address(made: Fabric, pod: str, version: int) -> Address:
    return of_family(made.pod(pod)[1].addresses, version)


def back(packet: Packet, version: int, port: int, macs: tuple[int, int]) -> Packet:
    """The answer to a packet that has arrived."""
    source, target = (ip_address(packet[each[version]]) for each in (SOURCE, DESTINATION))
    return packets.tcp(port, macs, (target, packet[f.TCP_DST]), (source, packet[f.TCP_SRC]))


def answered(made: Fabric, packet: Packet, version: int, pod: str) -> Packet:
    """What the sender gets when a pod answers a packet that has come to it."""
    node, local = made.pod(pod)
    (last,) = made.send(node, back(packet, version, local.port, (local.mac, OUT)))
    assert (last.node, last.port) == ("n2", GATEWAY)
    return last.packet


@ROUTED
@FAMILIES
@pytest.mark.parametrize("who", ["host", "world"])
def test_a_host_and_the_world_behind_it_call_an_endpoint_elsewhere_by_a_service(
    way: str, version: int, who: str
) -> None:
    made = fabric(way, service(), slice_of(*both("c1")))
    client = gateway_address(made.node("n2"), version) if who == "host" else WORLD[version]
    (there,) = made.send("n2", packets.tcp(GATEWAY, (GATEWAY_MAC, OUT), (client, 40000), (vip(made, version), 80)))
    assert (there.node, there.port) == ("n3", made.pod("c1")[1].port)
    # A host would take a packet from one of its own addresses that comes back to it for a forgery.
    seen = ip_address(there.packet[SOURCE[version]])
    assert seen != client and any(seen in cidr for cidr in made.node("n2").pod_cidrs)
    last = answered(made, there.packet, version, "c1")
    assert last[SOURCE[version]] == int(vip(made, version)) and last[DESTINATION[version]] == int(client)


@ROUTED
@FAMILIES
@pytest.mark.parametrize("who", ["host", "world"])
def test_who_calls_by_a_service_is_judged_by_the_address_that_it_has_on_its_own_node(
    way: str, version: int, who: str
) -> None:
    plain = fabric(way)
    client = gateway_address(plain.node("n2"), version) if who == "host" else WORLD[version]
    packet = packets.tcp(GATEWAY, (GATEWAY_MAC, OUT), (client, 40000), (of_family(service().cluster_ips, version), 80))
    for blocks, wanted in (((client,), True), ((gateway_address(plain.node("n3"), version),), False)):
        rule = Rule(peers=tuple(IpBlock(ip_network(each)) for each in blocks))
        made = fabric(way, service(), slice_of(*both("c1")), policy("c1", ingress=(rule,)))
        assert bool(made.send("n2", packet)) == wanted, blocks


@ROUTED
@FAMILIES
def test_who_claims_at_the_host_s_port_to_be_a_pod_of_this_node_is_of_the_world(way: str, version: int) -> None:
    made = fabric(way)
    target, other = address(made, "b1", version), address(made, "c1", version)
    own = target + 20
    identities = {}
    for source in (own, other):
        (arrival,) = made.walk("n2", packets.ping(GATEWAY, (GATEWAY_MAC, OUT), source, target)).emissions
        identities[source] = arrival.packet[SOURCE_IDENTITY.field] & SOURCE_IDENTITY.mask
    assert identities == {own: Identity.WORLD, other: made.pod("c1")[1].identity}


@ROUTED
@FAMILIES
def test_what_another_node_s_pods_send_is_never_sent_on(way: str, version: int) -> None:
    made = fabric(way)
    source = address(made, "c1", version)
    elsewhere = of_family(made.node("n1").addresses, version)
    nobody = gateway_address(made.node("n1"), version) + 50
    for target in (WORLD[version], elsewhere, nobody):
        assert not made.walk("n2", packets.ping(GATEWAY, (GATEWAY_MAC, OUT), source, target)).emissions


@ROUTED
@FAMILIES
def test_what_a_pod_may_send_to_another_node_itself_is_judged_where_it_leaves(way: str, version: int) -> None:
    target = of_family(fabric(way).node("n3").addresses, version)
    allowed = Rule(peers=(IpBlock(ip_network(target)),))
    for rules, wanted in (((), False), ((allowed,), True)):
        made = fabric(way, policy("b1", egress=rules))
        node, pod = made.pod("b1")
        packet = packets.tcp(pod.port, (pod.mac, OUT), (address(made, "b1", version), 40000), (target, 80))
        assert bool(made.walk(node, packet).emissions) == wanted


def test_in_hybrid_mode_each_family_goes_its_own_way() -> None:
    made = fabric("hybrid")
    node, pod = made.pod("a1")
    out = {}
    for version in (4, 6):
        packet = packets.ping(pod.port, (pod.mac, OUT), address(made, "a1", version), address(made, "b1", version))
        (emission,) = made.walk(node, packet).emissions
        out[version] = emission.port
    assert out == {4: GATEWAY, 6: TUNNEL}


def test_hosts_are_told_whose_pods_they_reach_themselves() -> None:
    def notes(way: str) -> set[str]:
        flows = Fabric(3, PODS, way=WAYS[way]).compiler.flows(CLUSTER)
        found = {each.data.decode().rstrip() for flow in flows for each in flow.program if isinstance(each, Note)}
        return {each for each in found if '"route"' in each and '"10.244.' in each}

    assert notes("by key") == set()
    assert notes("routed") == {
        f'{{"kind":"route","network":"10.244.{each}.0/24","via":"172.30.0.{each}"}}' for each in (1, 2, 3)
    }
    assert notes("hybrid") == {
        f'{{"kind":"route","network":"10.244.{each}.0/24","via":"172.30.0.{each}","subnet":"172.30.0.0/30"}}'
        for each in (1, 2, 3)
    }


@pytest.mark.parametrize("way", WAYS)
def test_one_more_node_is_as_many_flows_as_the_one_before_and_none_of_other_nodes_own(way: str) -> None:
    def flows(nodes: int, scope: str) -> int:
        return len([*Fabric(nodes, [], way=WAYS[way]).compiler.flows(scope)])

    # From the fourth on, nodes are on no segment.
    assert flows(7, CLUSTER) - flows(6, CLUSTER) == flows(5, CLUSTER) - flows(4, CLUSTER)
    assert flows(7, "n1") == flows(4, "n1")


@pytest.mark.parametrize(
    ("mode", "subnets", "said"),
    [
        ("hybrid", [], "--subnet and --mode hybrid go together"),
        ("routed", ["192.0.2.0/24"], "--subnet and --mode hybrid go together"),
        ("hybrid", ["192.0.2.0/24", "192.0.2.128/25"], "192.0.2.0/24 and 192.0.2.128/25 overlap"),
        ("hybrid", ["192.0.2.1/24"], "192.0.2.1/24 has host bits set"),
    ],
)
def test_modes_that_can_t_be_are_refused_with_the_option(mode: str, subnets: list[str], said: str) -> None:
    with pytest.raises(TopologyError) as problem:
        Interconnect.parse(mode, "vxlan", subnets)
    assert said in str(problem.value)
    assert Interconnect.parse("routed", "vxlan").mode is Mode.ROUTED
