"""Where packets are judged, and as whose: packets through compiled flows, from node to node."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

import pytest
from fabric import GATEWAY, OUT, TUNNEL, WAYS, Fabric, Way, gateway_address, of_family
from policy_objects import has
from test_services import both, service, slice_of

from flows import fields as f
from flows import packets
from flows.interpreter import Walk
from flows.pipeline import BY_NUMBER, TABLES
from flows.registers import Identity
from topology.model import Object
from topology.naming import GATEWAY_MAC, Address
from topology.policies import Action, IpBlock, PodSet, Policy, PolicyPort, Rule, Tier

FAMILIES = pytest.mark.parametrize("version", [4, 6])
WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
PODS = [(1, "a1"), (1, "a2"), (2, "b1")]
WORLD = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
OTHER_WORLD = {4: ip_address("192.0.2.129"), 6: ip_address("2001:db8::8001")}
OF_WORLD = tuple(IpBlock(ip_network(each)) for each in WORLD.values())
VIP = {4: ip_address("198.51.100.10"), 6: ip_address("2001:db8:1::10")}


def named(*names: str) -> PodSet:
    return PodSet((has("name", *names),), "default")


def policy(subject: str, **directions: tuple[Rule, ...]) -> Policy:
    """A NetworkPolicy for one pod."""
    return Policy(namespace="default", name=f"for-{subject}", subjects=named(subject), **directions)


def fabric(*objects: Object, way: Way = WAYS["by key"]) -> Fabric:
    return Fabric(2, PODS, objects, way=way)


def address(made: Fabric, name: str, version: int) -> Address:
    return of_family(made.pod(name)[1].addresses, version)


def call(made: Fabric, source: str, target: Address, port: int = 80) -> tuple[str, dict[f.Field, int]]:
    """The node of a pod, and what it sends to open a connection."""
    node, pod = made.pod(source)
    own = of_family(pod.addresses, target.version)
    return node, packets.tcp(pod.port, (pod.mac, OUT), (own, 40000), (target, port))


def from_host(source: Address, target: Address, port: int = 80) -> dict[f.Field, int]:
    return packets.tcp(GATEWAY, (GATEWAY_MAC, OUT), (source, 40000), (target, port))


def asked(walk: Walk) -> set[str]:
    """The tables of the tiers that a packet went through."""
    names = {BY_NUMBER[number].name for number in walk.tables}
    return {name for name in names if name.endswith(("Admin", "Policy", "Baseline")) and name != "Policy"}


TIERS = {table.name for table in TABLES if table.name.startswith(("Egress", "Ingress"))}


@FAMILIES
@WAY
@pytest.mark.parametrize("rules", [{"ingress": ()}, {"egress": ()}], ids=["ingress", "egress"])
def test_pod_to_pod_is_judged_at_the_receiver_s_node_in_both_directions(
    rules: dict[str, tuple[Rule, ...]], way: Way, version: int
) -> None:
    judged = policy("b1" if "ingress" in rules else "a1", **rules)
    made = fabric(judged, way=way)
    node, packet = call(made, "a1", address(made, "b1", version))
    walk = made.walk(node, packet)
    assert [each.port for each in walk.emissions] == [made.way_out(node, packet)] and not asked(walk)
    assert made.send(node, packet) == []
    made.compiler.remove(judged.key)
    made.interpret()
    assert len(made.send(node, packet)) == 1


@FAMILIES
def test_the_tunnel_s_key_tells_who_sends(version: int) -> None:
    made = fabric()
    node, packet = call(made, "a1", address(made, "b1", version))
    (out,) = made.walk(node, packet).emissions
    assert out.packet[f.TUN_ID] == made.compiler.policies.identities.of_pod("default", "a1") > 255


@FAMILIES
def test_on_one_node_both_directions_are_asked_one_after_the_other(version: int) -> None:
    made = fabric()
    assert asked(made.walk(*call(made, "a1", address(made, "a2", version)))) == TIERS


@FAMILIES
def test_what_leaves_the_pods_network_is_judged_where_it_leaves(version: int) -> None:
    made = fabric(policy("a1", egress=(Rule(peers=OF_WORLD),)))
    allowed, denied = (made.walk(*call(made, "a1", there[version])) for there in (WORLD, OTHER_WORLD))
    assert [each.port for each in allowed.emissions] == [GATEWAY] and denied.emissions == ()
    assert asked(denied) == {"EgressAdmin", "EgressPolicy"}


@FAMILIES
@WAY
def test_answers_are_not_judged(way: Way, version: int) -> None:
    made = fabric(policy("a1", ingress=()), policy("b1", egress=()), way=way)
    node, packet = call(made, "a1", address(made, "b1", version))
    assert len(made.send(node, packet)) == 1
    there, other = made.pod("b1")
    ends = (of_family(other.addresses, version), 80), (address(made, "a1", version), 40000)
    assert len(made.send(there, packets.tcp(other.port, (other.mac, OUT), *ends))) == 1
    # The same packet where nobody has asked is one that opens a connection.
    ends = (of_family(other.addresses, version), 81), (address(made, "a1", version), 40000)
    assert made.send(there, packets.tcp(other.port, (other.mac, OUT), *ends)) == []


@FAMILIES
def test_a_connection_that_is_denied_while_it_is_open_ends(version: int) -> None:
    isolated = policy("b1", ingress=())
    made = fabric()
    node, packet = call(made, "a1", address(made, "b1", version))
    there, other = made.pod("b1")
    ends = (of_family(other.addresses, version), 80), (address(made, "a1", version), 40000)
    assert len(made.send(node, packet)) == 1
    assert len(made.send(there, packets.tcp(other.port, (other.mac, OUT), *ends))) == 1
    made.compiler.put(isolated)
    made.interpret()
    assert made.send(node, packet) == []


@FAMILIES
@pytest.mark.parametrize("rules", [{"ingress": ()}, {"egress": ()}], ids=["ingress", "egress"])
def test_what_was_denied_opens_no_way_for_what_looks_like_its_answer(
    rules: dict[str, tuple[Rule, ...]], version: int
) -> None:
    """A node sends what another judges, and knows the connection then: two pods that both call could meet so."""
    made = fabric(policy("a1", **rules), policy("b1", **rules))
    there, other = made.pod("b1")
    node, packet = call(made, "a1", address(made, "b1", version))
    ends = (of_family(other.addresses, version), 80), (address(made, "a1", version), 40000)
    back = packets.tcp(other.port, (other.mac, OUT), *ends)
    for _ in range(3):
        assert made.send(node, packet) == [] == made.send(there, back)


@FAMILIES
def test_an_answer_through_a_tunnel_says_that_it_is_one(version: int) -> None:
    made = fabric()
    made.send(*call(made, "a1", address(made, "b1", version)))
    there, other = made.pod("b1")
    ends = (of_family(other.addresses, version), 80), (address(made, "a1", version), 40000)
    (out,) = made.walk(there, packets.tcp(other.port, (other.mac, OUT), *ends)).emissions
    assert (out.port, out.packet[f.TUN_ID]) == (TUNNEL, Identity.JUDGED)


@FAMILIES
@WAY
def test_a_host_reaches_its_own_pods_whatever_policies_say_and_no_other_node_s(way: Way, version: int) -> None:
    made = fabric(policy("a1", ingress=()), policy("b1", ingress=()), way=way)
    for own in (gateway_address(made.node("n1"), version), of_family(made.node("n1").addresses, version)):
        assert len(made.send("n1", from_host(own, address(made, "a1", version)))) == 1
        assert made.send("n1", from_host(own, address(made, "b1", version))) == []


@FAMILIES
@WAY
def test_an_address_of_a_node_is_told_by_blocks(way: Way, version: int) -> None:
    node = {4: "172.30.0.1/32", 6: "fd00:172:30::1/128"}[version]
    made = fabric(policy("b1", ingress=(Rule(peers=(IpBlock(ip_network(node)),)),)), way=way)
    own = of_family(made.node("n1").addresses, version)
    assert len(made.send("n1", from_host(own, address(made, "b1", version)))) == 1


@FAMILIES
def test_without_keys_an_address_of_pods_that_no_pod_has_is_nobody_s(version: int) -> None:
    made = fabric(way=WAYS["by address"])
    for place, arrives in ((2, True), (77, False)):
        sender = next(each for each in made.node("n2").pod_cidrs if each.version == version)[place]
        packet = packets.tcp(TUNNEL, (1, 2), (sender, 40000), (address(made, "a1", version), 80))
        walk = made.walk("n1", packet)
        assert bool(walk.emissions) == arrives
    assert BY_NUMBER[walk.tables[-1]].name == "Policy"


def world_fabric(judged: Iterable[Policy], version: int, way: Way) -> Fabric:
    """A Service of b1 with addresses for the world, and policies."""
    ends = [each for each in both("b1") if each.address.version == version]
    return fabric(service(), slice_of(*ends), *judged, way=way)


@FAMILIES
@WAY
def test_the_world_is_judged_where_it_enters_by_its_own_address(way: Way, version: int) -> None:
    made = world_fabric([policy("b1", ingress=(Rule(peers=OF_WORLD),))], version, way)
    walk = made.walk("n1", from_host(WORLD[version], VIP[version]))
    (out,) = walk.emissions
    assert out.port == made.way_out("n1", out.packet) and asked(walk) == {"IngressAdmin", "IngressPolicy"}
    source = out.packet[f.IPV4_SRC if version == 4 else f.IPV6_SRC]
    assert source != int(WORLD[version])
    assert out.port == GATEWAY or out.packet[f.TUN_ID] == Identity.JUDGED
    assert len(made.send("n1", from_host(WORLD[version], VIP[version]))) == 1
    denied = made.walk("n1", from_host(OTHER_WORLD[version], VIP[version]))
    assert denied.emissions == () and asked(denied) == {"IngressAdmin", "IngressPolicy"}


@FAMILIES
@WAY
def test_the_world_that_reaches_a_pod_by_its_own_address_is_judged_at_the_pod(way: Way, version: int) -> None:
    made = fabric(policy("a1", ingress=(Rule(peers=OF_WORLD),)), way=way)
    target = address(made, "a1", version)
    assert len(made.send("n1", from_host(WORLD[version], target))) == 1
    assert made.send("n1", from_host(OTHER_WORLD[version], target)) == []


@FAMILIES
@WAY
def test_policies_see_a_service_s_endpoint_and_its_port_and_nothing_of_the_service(way: Way, version: int) -> None:
    vip = {4: ip_address("10.96.0.10"), 6: ip_address("fd00:10:96::10")}[version]
    for port, arrives in ((8080, True), (80, False)):
        rule = Rule(peers=(named("a1"),), ports=(PolicyPort("TCP", port),))
        made = world_fabric([policy("b1", ingress=(rule,))], version, way)
        assert bool(made.send(*call(made, "a1", vip))) == arrives
    made = world_fabric([policy("a1", egress=(Rule(peers=(IpBlock(ip_network(f"{vip}")),)),))], version, way)
    assert made.send(*call(made, "a1", vip)) == []


@FAMILIES
def test_admin_is_asked_first_and_passing_leaves_it_to_the_next_tier_and_accepting_skips_the_rest(version: int) -> None:
    def admin(action: Action) -> Policy:
        return Policy(kind="ClusterNetworkPolicy", name="p", tier=Tier.ADMIN, subjects=named("b1"),
                      ingress=(Rule(action, peers=(named("a1"),)),))  # fmt: skip

    isolated = policy("b1", ingress=())
    for action, with_isolation, without in (
        (Action.ACCEPT, True, True),
        (Action.PASS, False, True),
        (Action.DENY, False, False),
    ):
        for others, arrives in (((isolated,), with_isolation), ((), without)):
            made = fabric(admin(action), *others)
            assert bool(made.send(*call(made, "a1", address(made, "b1", version)))) == arrives


@FAMILIES
def test_the_baseline_is_asked_only_where_no_network_policy_is_about_the_pod(version: int) -> None:
    deny = Policy(kind="BaselineAdminNetworkPolicy", name="default", tier=Tier.BASELINE, priority=1000,
                  subjects=PodSet(), ingress=(Rule(Action.DENY),))  # fmt: skip
    made = fabric(deny, policy("b1", ingress=(Rule(peers=(named("a1"),)),)))
    assert len(made.send(*call(made, "a1", address(made, "b1", version)))) == 1
    assert made.send(*call(made, "a1", address(made, "a2", version))) == []
