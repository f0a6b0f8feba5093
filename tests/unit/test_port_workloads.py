"""Workloads - hosts and virtual machines on a port of a bridge, with addresses of their own - and who reaches them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import msgspec
import pytest
from fabric import GATEWAY, OUT, WAYS, Arrival, Fabric, gateway_address, of_family

from flows import fields as f
from flows import packets
from flows.compiler import Compiler
from flows.fields import Field
from flows.packets import Fields
from flows.pipeline import CLASSIFY, HOST
from flows.state import LocalPod, Port
from flows.update import CLUSTER
from flows.values import PORT_CONTROLLER, Note
from topology.model import Node, Object, Pod, Service, ServicePort
from topology.naming import GATEWAY_MAC, ROUTER_ADDRESS, ROUTER_MAC, Address
from topology.policies import PodSet, Policy, Rule
from topology.selectors import Operator, Requirement

FAMILIES = pytest.mark.parametrize("version", [4, 6])
VIP = ip_address("10.96.0.10")
WORLD = {4: ip_address("198.51.100.1"), 6: ip_address("2001:db8:ffff::1")}


def node(number: int, *, bare: bool = False) -> Node:
    return Node(
        name=f"n{number}",
        addresses=() if bare else (ip_address(f"172.30.0.{number}"), ip_address(f"fd00:172:30::{number}")),
        pod_cidrs=() if bare else (ip_network(f"10.244.{number}.0/24"), ip_network(f"fd00:10:244:{number}::/64")),
    )


def pod(number: int, name: str, place: int) -> Pod:
    addresses = (ip_address(f"10.244.{number}.{place}"), ip_address(f"fd00:10:244:{number}::{place}"))
    return Pod(namespace="default", name=name, node=f"n{number}", labels=(("app", name),), addresses=addresses)


def workload(number: int, name: str, place: int, port: str = "") -> Pod:
    """A host of another network than the pods', on node n<number>."""
    return Pod(
        namespace="default",
        name=name,
        node=f"n{number}",
        labels=(("app", name),),
        addresses=(ip_address(f"192.0.2.{place}"), ip_address(f"2001:db8::{place}")),
        port=port or f"{name}-eth0",
        mac=0x5254_0000_0000 | place,
    )


OBJECTS: list[Object] = [
    node(1),
    node(2),
    node(3),
    pod(1, "a", 2),
    pod(2, "b", 2),
    workload(1, "h1", 1),
    workload(2, "h2", 2),
]


@pytest.fixture(params=["by key", "by address"])
def fabric(request: pytest.FixtureRequest) -> Fabric:
    return Fabric.of(OBJECTS, way=WAYS[request.param])


def ping(fabric: Fabric, source: str, target: str, version: int, *, reply: bool = False) -> list[Arrival]:
    where, sender = fabric.pod(source)
    _, receiver = fabric.pod(target)
    ends = of_family(sender.addresses, version), of_family(receiver.addresses, version)
    return fabric.send(where, packets.ping(sender.port, (sender.mac, OUT), *ends, reply=reply))


def arrived(fabric: Fabric, arrivals: list[Arrival], target: str) -> None:
    where, receiver = fabric.pod(target)
    (arrival,) = arrivals
    assert (arrival.node, arrival.port) == (where, receiver.port)
    assert (arrival.packet[f.ETH_SRC], arrival.packet[f.ETH_DST]) == (ROUTER_MAC, receiver.mac)


PAIRS = [("h1", "h2"), ("h1", "a"), ("h1", "b"), ("a", "h1"), ("a", "h2")]


@FAMILIES
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_workload_reaches_pods_and_workloads_and_is_answered(
    fabric: Fabric, source: str, target: str, version: int
) -> None:
    arrived(fabric, ping(fabric, source, target, version), target)
    arrived(fabric, ping(fabric, target, source, version, reply=True), source)


@FAMILIES
def test_a_workload_is_known_by_its_own_mac_and_addresses_and_nothing_else(fabric: Fabric, version: int) -> None:
    where, sender = fabric.pod("h1")
    other = fabric.pod("h2")[1]
    own, target = of_family(sender.addresses, version), of_family(fabric.pod("a")[1].addresses, version)
    assert sender.mac == 0x5254_0000_0001
    assert fabric.send(where, packets.ping(sender.port, (sender.mac, OUT), own, target))
    assert not fabric.send(where, packets.ping(sender.port, (other.mac, OUT), own, target))
    assert not fabric.send(
        where, packets.ping(sender.port, (sender.mac, OUT), of_family(other.addresses, version), target)
    )
    assert not fabric.send(
        where, packets.ping(sender.port, (sender.mac, OUT), of_family(fabric.pod("a")[1].addresses, version), target)
    )


def test_the_bridge_answers_a_workload_that_asks_for_its_gateway_wherever_that_is(fabric: Fabric) -> None:
    where, sender = fabric.pod("h1")
    asks = packets.arp(sender.port, sender.mac, (sender.mac, sender.addresses[0]), ip_address("192.0.2.254"))
    (answer,) = fabric.walk(where, asks).emissions
    assert answer.packet[f.ARP_SHA] == ROUTER_MAC


@FAMILIES
@pytest.mark.parametrize("where", ["n1", "n3"])
def test_every_node_reaches_a_workload_and_is_answered(fabric: Fabric, where: str, version: int) -> None:
    host = gateway_address(fabric.node(where), version)
    there, receiver = fabric.pod("h1")
    address = of_family(receiver.addresses, version)
    arrived(fabric, fabric.send(where, packets.ping(GATEWAY, (GATEWAY_MAC, OUT), host, address)), "h1")
    back = fabric.send(there, packets.ping(receiver.port, (receiver.mac, OUT), address, host, reply=True))
    assert [(each.node, each.port) for each in back] == [(where, GATEWAY)]


@FAMILIES
def test_the_world_reaches_a_workload_by_any_node_s_host(fabric: Fabric, version: int) -> None:
    there, receiver = fabric.pod("h1")
    address = of_family(receiver.addresses, version)
    arrived(fabric, fabric.send(there, packets.ping(GATEWAY, (GATEWAY_MAC, OUT), WORLD[version], address)), "h1")
    back = fabric.send(there, packets.ping(receiver.port, (receiver.mac, OUT), address, WORLD[version], reply=True))
    assert [(each.node, each.port) for each in back] == [(there, GATEWAY)]


def notes(compiler: Compiler) -> list[str]:
    flows = (flow for flow in compiler.flows(CLUSTER) if flow.table == HOST.number)
    return [action.data.decode() for flow in flows for action in flow.program if isinstance(action, Note)]


def test_every_host_is_told_that_a_workload_s_addresses_are_behind_the_bridge(fabric: Fabric) -> None:
    told = "".join(notes(fabric.compiler))
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"):
        assert f'{{"kind":"address","address":"{address}"}}' in told


@FAMILIES
def test_what_is_for_a_workload_whose_port_is_not_there_goes_nowhere(version: int) -> None:
    fabric = Fabric.of(OBJECTS)
    target = of_family(fabric.pod("h2")[1].addresses, version)
    fabric.compiler.set_ports("n2", [port for port in fabric.compiler.ports("n2") if port.name != "h2-eth0"])
    fabric.interpret()
    for name in ("a", "b"):
        where, sender = fabric.pod(name)
        own = of_family(sender.addresses, version)
        assert not fabric.send(where, packets.ping(sender.port, (sender.mac, OUT), own, target))


def tcp(sender: LocalPod, source: Address, target: Address, port: int) -> Fields:
    return packets.tcp(sender.port, (sender.mac, OUT), (source, 40000), (target, port))


def test_a_workload_is_an_endpoint_and_a_client_of_services() -> None:
    port = ServicePort(port=80, target=8080)
    service = Service(namespace="default", name="h2", selector=(("app", "h2"),), cluster_ips=(VIP,), ports=(port,))
    fabric = Fabric.of([*OBJECTS, service])
    where, sender = fabric.pod("h1")
    arrivals = fabric.send(where, tcp(sender, sender.addresses[0], VIP, 80))
    arrived(fabric, arrivals, "h2")
    assert arrivals[0].packet[f.TCP_DST] == 8080


@FAMILIES
@pytest.mark.parametrize("way", ["by key", "by address"])
def test_policies_know_a_workload_by_its_labels_as_subject_and_as_peer(version: int, way: str) -> None:
    allowed = PodSet((Requirement("app", Operator.IN, ("h1",)),), "default")
    subjects = PodSet((Requirement("app", Operator.IN, ("h2", "b")),), "default")
    policy = Policy(namespace="default", name="p", subjects=subjects, ingress=(Rule(peers=(allowed,)),))
    fabric = Fabric.of([*OBJECTS, policy], way=WAYS[way])
    for target in ("h2", "b"):
        arrived(fabric, ping(fabric, "h1", target, version), target)
        assert not ping(fabric, "a", target, version)


def test_nodes_without_addresses_and_pod_cidrs_carry_workloads_among_themselves() -> None:
    fabric = Fabric.of([node(1, bare=True), workload(1, "h1", 1), workload(1, "h2", 2)])
    arrived(fabric, ping(fabric, "h1", "h2", 4), "h2")
    arrived(fabric, ping(fabric, "h2", "h1", 4, reply=True), "h1")


def asks(pod: LocalPod, target: Address, mac: int, port: int = 67) -> Fields:
    return packets.udp(pod.port, (mac, 0xFFFF_FFFF_FFFF), (ip_address("0.0.0.0"), 68), (target, port))


def test_only_a_workload_that_has_dhcp_is_heard_asking_and_nobody_else_hears_it() -> None:
    everybody = ip_address("255.255.255.255")
    fabric = Fabric.of([node(1), workload(1, "h1", 1), msgspec.structs.replace(workload(1, "h2", 2), dhcp=True)])
    _, deaf = fabric.pod("h1")
    _, heard = fabric.pod("h2")
    for target in (everybody, ROUTER_ADDRESS):
        (emission,) = fabric.walk("n1", asks(heard, target, heard.mac)).emissions
        assert emission.port == PORT_CONTROLLER
    assert not fabric.walk("n1", asks(deaf, everybody, deaf.mac)).emissions
    assert not fabric.walk("n1", asks(heard, everybody, deaf.mac)).emissions
    assert not fabric.walk("n1", asks(heard, everybody, heard.mac, port=69)).emissions


# What clashes: the compiler never makes one match of two objects, whatever its source lets through --------------------


def reasons(*objects: Object) -> dict[str, str]:
    compiler = Compiler()
    for each in objects:
        compiler.put(each)
    return {each.name: reason for each, reason in compiler.misfits()}


def test_of_two_workloads_with_one_address_or_one_port_the_first_by_name_has_it() -> None:
    assert reasons(node(1), node(2), workload(1, "x", 1), workload(2, "w", 1)) == {
        "x": "its address 192.0.2.1 is that of Workload default/w; give it another"
    }
    assert reasons(node(1), workload(1, "x", 1, "veth0"), workload(1, "w", 2, "veth0")) == {
        "x": "its port veth0 is that of Workload default/w; give it another"
    }


def test_a_workload_has_no_address_of_a_node_or_of_its_pods() -> None:
    taken = Pod(namespace="default", name="x", node="n1", port="veth0", mac=2, addresses=(ip_address("10.244.2.9"),))
    assert reasons(node(1), node(2), taken) == {
        "x": "its address 10.244.2.9 is node n2's, or for its pods; give it another"
    }
    assert reasons(node(1), taken) == {}
    assert reasons(taken) == {"x": "there is no node n1"}


def test_a_workload_s_port_is_taken_over_when_the_other_goes() -> None:
    compiler = Compiler()
    for each in (node(1), workload(1, "x", 1, "veth0"), workload(1, "w", 2, "veth0")):
        compiler.put(each)
    compiler.set_ports("n1", [Port(10, "veth0", 0x5A)])
    assert [each.name for each, _ in compiler.local_pods("n1")] == ["w"]
    compiler.remove(("Pod", "default", "w"))
    assert [each.name for each, _ in compiler.local_pods("n1")] == ["x"]
    admitted: dict[Field, int] = {f.IN_PORT: 10, f.ETH_SRC: 0x5254_0000_0001}
    own = [flow for flow in compiler.flows("n1") if flow.table == CLASSIFY.number]
    assert any({term.field: term.value for term in flow.match}.items() >= admitted.items() for flow in own)
