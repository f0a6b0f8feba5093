"""Services through the compiled pipeline: who is sent where, against Kubernetes' rules in plain Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import NamedTuple

import msgspec
import pytest
from fabric import GATEWAY, OUT, Arrival, Fabric, gateway_address, of_family
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import fields as f
from flows import packets, pipeline
from flows.fields import Field
from flows.interpreter import Conntrack, Packet, Walk
from flows.tables.service import DIRECT_LIMIT
from flows.update import CLUSTER
from flows.values import Bucket, Group
from topology.model import Endpoint, EndpointPort, EndpointSlice, Labels, Service, ServicePort, Subset
from topology.naming import ENTRY_ADDRESSES, GATEWAY_MAC, HAIRPIN_ADDRESSES, Address, translation_addresses

FAMILIES = pytest.mark.parametrize("version", [4, 6])
PROTOCOLS = pytest.mark.parametrize("protocol", ["TCP", "UDP", "SCTP"])
VIPS = (ip_address("10.96.0.10"), ip_address("fd00:10:96::10"))
BALANCED = (ip_address("198.51.100.10"), ip_address("2001:db8:1::10"))
EXTERNAL = (ip_address("203.0.113.10"), ip_address("2001:db8:2::10"))
WORLD = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
OTHER_WORLD = {4: ip_address("192.0.2.129"), 6: ip_address("2001:db8::8001")}
RANGES = (ip_network("192.0.2.0/25"), ip_network("2001:db8::/113"))
NODE_PORT = 30080
PODS = [(1, "a1"), (1, "a2"), (2, "b1"), (3, "c1")]
ZONES = {1: "east", 2: "west"}
_NUMBERS = {"TCP": f.PROTO_TCP, "UDP": f.PROTO_UDP, "SCTP": f.PROTO_SCTP}
_PORTS = {"TCP": (f.TCP_SRC, f.TCP_DST), "UDP": (f.UDP_SRC, f.UDP_DST), "SCTP": (f.SCTP_SRC, f.SCTP_DST)}
_DESTINATION = {4: f.IPV4_DST, 6: f.IPV6_DST}
_SOURCE = {4: f.IPV4_SRC, 6: f.IPV6_SRC}


def service(selector: Labels | None = None, protocol: str = "TCP", **changes: object) -> Service:
    """Service web: port 80 to 8080, with an address of every kind."""
    plain = Service(
        namespace="default",
        name="web",
        type="LoadBalancer",
        ports=(ServicePort(port=80, protocol=protocol, target=8080, node_port=NODE_PORT),),
        selector=selector,
        cluster_ips=VIPS,
        external_ips=EXTERNAL,
        load_balancer_ips=BALANCED,
    )
    return msgspec.structs.replace(plain, **changes)


def slice_of(*endpoints: Endpoint, name: str = "web-1", protocol: str = "TCP", port: int = 8080) -> EndpointSlice:
    subset = Subset((EndpointPort(port=port, protocol=protocol),), endpoints)
    return EndpointSlice(namespace="default", name=name, service="web", subsets=(subset,))


def endpoint(pod: str, version: int, **changes: object) -> Endpoint:
    """A pod of `PODS` as an endpoint."""
    number, place = next(
        (number, 2 + [name for there, name in PODS if there == number].index(pod))
        for number, name in PODS
        if name == pod
    )
    text = f"10.244.{number}.{place}" if version == 4 else f"fd00:10:244:{number:x}::{place:x}"
    return msgspec.structs.replace(Endpoint(address=ip_address(text), node=f"n{number}", pod=pod), **changes)


def both(*pods: str, **changes: object) -> list[Endpoint]:
    return [endpoint(pod, version, **changes) for pod in pods for version in (4, 6)]


class Client(NamedTuple):
    """Who sends: on which node, by which port, with which MAC and address."""

    node: str
    port: int
    mac: int
    address: Address
    world: bool = False


def pod_client(fabric: Fabric, name: str, version: int) -> Client:
    node, pod = fabric.pod(name)
    return Client(node, pod.port, pod.mac, of_family(pod.addresses, version))


def host_client(fabric: Fabric, node: str, version: int) -> Client:
    return Client(node, GATEWAY, GATEWAY_MAC, gateway_address(fabric.node(node), version))


def world_client(node: str, address: Address) -> Client:
    return Client(node, GATEWAY, GATEWAY_MAC, address, world=True)


def packet(client: Client, target: Address, port: int, protocol: str = "TCP", sport: int = 40000) -> dict[Field, int]:
    made = packets.ip(client.port, (client.mac, OUT), client.address, target, _NUMBERS[protocol])
    source, destination = _PORTS[protocol]
    return made | {source: sport, destination: port}


def choices(fabric: Fabric, client: Client, made: Packet) -> list[Walk]:
    """What becomes of a packet, for every endpoint that could be chosen; nothing of it is remembered."""
    count = 1
    walks: list[Walk] = []
    while len(walks) < count:

        def choose(group: Group) -> Bucket:
            nonlocal count
            count = len(group.buckets)
            return group.buckets[len(walks)]

        fabric.conntracks[client.node] = Conntrack()
        walks.append(fabric.walk(client.node, made, choose))
    fabric.conntracks[client.node] = Conntrack()
    return walks


def outcomes(fabric: Fabric, client: Client, target: Address, port: int, protocol: str = "TCP") -> Counter[object]:
    """Where connections go: endpoints' (address, port), "refused" (the host is to say so) or "dropped"."""
    found: Counter[object] = Counter()
    made = packet(client, target, port, protocol)
    for walk in choices(fabric, client, made):
        if not walk.emissions:
            found["dropped"] += 1
            continue
        (emission,) = walk.emissions
        destination = emission.packet[_DESTINATION[target.version]]
        number = emission.packet[_PORTS[protocol][1]]
        if destination == int(target):
            assert emission.port == GATEWAY and number == port
            found["refused"] += 1
        else:
            found[destination, number] += 1
    return found


def places(endpoints: Sequence[Endpoint], port: int = 8080) -> Counter[object]:
    return Counter((int(each.address), port) for each in endpoints)


# Kubernetes' rules, from its documentation --------------------------------------------------------------------------


def rules(
    here: Service, endpoints: Sequence[Endpoint], client: Client, zone: str, front: str, version: int
) -> Counter[object]:
    """Where a client's connections may go."""
    mine = [each for each in endpoints if each.address.version == version]
    ready = [each for each in mine if each.ready]
    cluster = ready if ready else [each for each in mine if each.serving and each.terminating]
    if front == "load balancer" and here.source_ranges:
        allowed = [each for each in here.source_ranges if each.version == version]
        if not any(client.address in each for each in allowed):
            return Counter({"dropped": 1})
    external = front != "cluster"
    if external and client.world and here.external_local and cluster:
        local = [each for each in mine if each.node == client.node]
        chosen = [each for each in local if each.ready]
        chosen = chosen or [each for each in local if each.serving and each.terminating]
        return places(chosen) if chosen else Counter({"dropped": 1})
    if not external and here.internal_local:
        local = [each for each in mine if each.node == client.node]
        chosen = [each for each in local if each.ready]
        chosen = chosen or [each for each in local if each.serving and each.terminating]
        return places(chosen) if chosen else Counter({"refused": 1})
    if here.distribution == "PreferSameNode":
        near = [each for each in cluster if each.node == client.node]
        if near:
            return places(near)
    if cluster and all(each.zones for each in cluster):
        hinted = [each for each in cluster if zone and zone in each.zones]
        if hinted:
            return places(hinted)
    return places(cluster) if cluster else Counter({"refused": 1})


flags = st.booleans()


@st.composite
def clusters(draw: st.DrawFn) -> tuple[Service, list[Endpoint]]:
    endpoints = []
    for pod in draw(st.sets(st.sampled_from([name for _, name in PODS]))):
        for version in draw(st.sets(st.sampled_from([4, 6]))):
            terminating = draw(flags)
            ready = not terminating and draw(flags)
            endpoints.append(
                endpoint(
                    pod,
                    version,
                    ready=ready,
                    serving=ready or draw(flags),
                    terminating=terminating,
                    zones=tuple(draw(st.sampled_from([(), ("east",), ("west",), ("east", "west")]))),
                )
            )
    here = service(
        external_local=draw(flags),
        internal_local=draw(flags),
        source_ranges=draw(st.sampled_from([(), RANGES, RANGES[:1]])),
        affinity_seconds=draw(st.sampled_from([0, 60])),
        distribution=draw(st.sampled_from(["", "", "PreferSameNode"])),
        cluster_ips=draw(st.sampled_from([VIPS, VIPS[:1], VIPS[1:]])),
    )
    return here, endpoints


def drained(endpoints: Sequence[Endpoint], nodes: set[str]) -> list[Endpoint]:
    """What endpoints are while these nodes are drained: there are none on them."""
    gone = {"ready": False, "serving": False, "terminating": False}
    return [msgspec.structs.replace(each, **gone) if each.node in nodes else each for each in endpoints]


@settings(max_examples=60, deadline=None)
@given(clusters(), st.one_of(st.just(set[str]()), st.sets(st.sampled_from(["n1", "n2", "n3"]))))
def test_every_client_is_sent_where_kubernetes_rules_say(
    made: tuple[Service, list[Endpoint]], maintained: set[str]
) -> None:
    here, endpoints = made
    fabric = Fabric(3, PODS, [here, slice_of(*endpoints)], ZONES)
    for name in maintained:
        fabric.compiler.put(msgspec.structs.replace(fabric.node(name), drained=True))
    fabric.interpret()
    endpoints = drained(endpoints, maintained)
    for scope in (CLUSTER, *fabric.names):
        for flow in fabric.compiler.flows(scope):
            pipeline.check(flow)
    for version in (4, 6):
        clients = [pod_client(fabric, name, version) for _, name in PODS]
        clients += [host_client(fabric, node, version) for node in fabric.names]
        clients += [world_client(node, source[version]) for node in fabric.names for source in (WORLD, OTHER_WORLD)]
        has_family = any(each.version == version for each in here.cluster_ips)
        for client in clients:
            zone = ZONES.get(int(client.node[1:]), "")
            for front, target, port in fronts(fabric, client, version):
                if not has_family:
                    continue
                found = outcomes(fabric, client, target, port)
                expected = rules(here, endpoints, client, zone, front, version)
                assert found == expected, (front, client)


def fronts(fabric: Fabric, client: Client, version: int) -> Iterator[tuple[str, Address, int]]:
    yield "cluster", of_family(VIPS, version), 80
    yield "external", of_family(EXTERNAL, version), 80
    yield "load balancer", of_family(BALANCED, version), 80
    if client.port == GATEWAY:
        # The host's kernel has put the entry address in the place of the node's own.
        yield "node port", of_family(ENTRY_ADDRESSES, version), NODE_PORT
    else:
        yield "node port", of_family(fabric.node("n2").addresses, version), NODE_PORT


# Single cases ---------------------------------------------------------------------------------------------------------


@PROTOCOLS
@FAMILIES
def test_a_pod_s_connection_goes_to_an_endpoint_and_the_answer_comes_from_the_service(
    protocol: str, version: int
) -> None:
    fabric = Fabric(2, [(1, "a1"), (2, "b1")], [service((("name", "b1"),), protocol)])
    client, vip = pod_client(fabric, "a1", version), of_family(VIPS, version)
    (there,) = fabric.send("n1", packet(client, vip, 80, protocol))
    _, server = fabric.pod("b1")
    assert (there.node, there.port) == ("n2", server.port)
    assert there.packet[_SOURCE[version]] == int(client.address)
    answer = reply_to(there, server.mac, protocol, version)
    (back,) = fabric.send("n2", answer)
    assert (back.node, back.port) == ("n1", client.port)
    assert (back.packet[_SOURCE[version]], back.packet[_PORTS[protocol][0]]) == (int(vip), 80)


def reply_to(there: Arrival, mac: int, protocol: str, version: int) -> dict[Field, int]:
    """The answer to a packet, from where it arrived."""
    source, destination = _PORTS[protocol]
    ends = [ip_address(there.packet[field]) for field in (_DESTINATION[version], _SOURCE[version])]
    ends = [type(of_family(VIPS, version))(int(each)) for each in ends]
    made = packets.ip(there.port, (mac, OUT), ends[0], ends[1], _NUMBERS[protocol])
    return made | {source: there.packet[destination], destination: there.packet[source]}


@FAMILIES
def test_a_pod_that_calls_its_own_service_reaches_itself_as_the_hairpin_address(version: int) -> None:
    fabric = Fabric(1, [(1, "a1")], [service((("name", "a1"),))])
    client, vip = pod_client(fabric, "a1", version), of_family(VIPS, version)
    for _ in range(2):
        (there,) = fabric.send("n1", packet(client, vip, 80))
        assert (there.port, there.packet[_SOURCE[version]]) == (client.port, int(of_family(HAIRPIN_ADDRESSES, version)))
        (back,) = fabric.send("n1", reply_to(there, client.mac, "TCP", version))
        assert (back.port, back.packet[_SOURCE[version]]) == (client.port, int(vip))
        assert back.packet[_DESTINATION[version]] == int(client.address)


@FAMILIES
def test_the_world_reaches_an_endpoint_on_another_node_and_is_answered_by_the_node_it_came_to(version: int) -> None:
    fabric = Fabric(2, [(2, "b1")], [service((("name", "b1"),))])
    client, entry = world_client("n1", WORLD[version]), of_family(ENTRY_ADDRESSES, version)
    (there,) = fabric.send("n1", packet(client, entry, NODE_PORT))
    _, server = fabric.pod("b1")
    own = of_family(translation_addresses(fabric.node("n1").pod_cidrs), version)
    assert (there.node, there.port, there.packet[_SOURCE[version]]) == ("n2", server.port, int(own))
    (back,) = fabric.send("n2", reply_to(there, server.mac, "TCP", version))
    assert (back.node, back.port, back.packet[_DESTINATION[version]]) == ("n1", GATEWAY, int(client.address))
    assert (back.packet[_SOURCE[version]], back.packet[f.TCP_SRC]) == (int(entry), NODE_PORT)


@FAMILIES
def test_another_node_that_comes_as_the_world_is_answered_through_the_host(version: int) -> None:
    fabric = Fabric(2, [(1, "a1")], [service((("name", "a1"),))])
    client = world_client("n1", of_family(fabric.node("n2").addresses, version))
    (there,) = fabric.send("n1", packet(client, of_family(ENTRY_ADDRESSES, version), NODE_PORT))
    _, server = fabric.pod("a1")
    assert there.packet[_SOURCE[version]] == int(client.address)
    (back,) = fabric.send("n1", reply_to(there, server.mac, "TCP", version))
    assert (back.node, back.port) == ("n1", GATEWAY)


@FAMILIES
def test_a_client_stays_with_its_endpoint_while_others_come_and_leaves_it_only_when_it_goes(version: int) -> None:
    sticky = service(affinity_seconds=60)
    endpoints = both("a1", "a2", "b1")
    fabric = Fabric(3, PODS, [sticky, slice_of(*endpoints)])
    client, vip = pod_client(fabric, "c1", version), of_family(VIPS, version)

    def connect(sport: int, index: int) -> int:
        made = packet(client, vip, 80, sport=sport)
        (arrival,) = fabric.walk("n3", made, lambda group: group.buckets[index]).emissions
        return arrival.packet[_DESTINATION[version]]

    first = connect(1001, 1)
    assert [connect(1002, 0), connect(1003, 2)] == [first, first]
    fabric.compiler.put(slice_of(*endpoints, *both("c1")))
    fabric.interpret()
    assert connect(1004, 0) == first
    kept = [each for each in endpoints if int(each.address) != first]
    fabric.compiler.put(slice_of(*kept))
    fabric.interpret()
    second = connect(1005, 0)
    assert second != first and connect(1006, 1) == second


def test_a_service_of_a_thousand_endpoints_uses_them_all_and_each_group_fits_a_message() -> None:
    many = [Endpoint(address=ip_address("10.250.0.0") + index) for index in range(1000)]
    fabric = Fabric(1, [(1, "a1")], [service(), slice_of(*many)])
    client = pod_client(fabric, "a1", 4)
    found = outcomes(fabric, client, VIPS[0], 80)
    assert len(many) > DIRECT_LIMIT
    assert found == places(many)


def test_a_port_that_no_service_has_is_refused() -> None:
    fabric = Fabric(1, [(1, "a1")], [service((("name", "a1"),))])
    client = pod_client(fabric, "a1", 4)
    for target in (VIPS[0], BALANCED[0], EXTERNAL[0], ip_address("10.96.77.77")):
        assert outcomes(fabric, client, target, 81) == Counter({"refused": 1})


def test_a_change_to_one_service_is_about_that_service_alone() -> None:
    fabric = Fabric(3, PODS, [service((("name", "a1"),)), slice_of(*both("a1"))])
    compiler = fabric.compiler
    other = msgspec.structs.replace(
        service(),
        name="other",
        cluster_ips=tuple(each + 1 for each in VIPS),
        external_ips=(),
        load_balancer_ips=(),
        ports=(ServicePort(port=80, node_port=NODE_PORT + 1),),
    )
    before = {scope: set(compiler.flows(scope)) for scope in (CLUSTER, *fabric.names)}
    updates = compiler.put(other)
    assert [update.scope for update in updates] == [CLUSTER] and not updates[0].removed
    for scope, flows in before.items():
        assert flows <= set(compiler.flows(scope))
    (update,) = compiler.put(slice_of(*both("a1", "b1")))
    assert not update.removed and len(update.groups_removed) == len(update.groups_added) == 2


def test_of_two_services_that_claim_one_address_the_first_by_name_has_it() -> None:
    fabric = Fabric(3, PODS, [service(), slice_of(*both("a1"))])
    rival = msgspec.structs.replace(service((("name", "b1"),)), name="aaa")
    fabric.compiler.put(rival)
    fabric.interpret()
    client = pod_client(fabric, "c1", 4)
    assert outcomes(fabric, client, VIPS[0], 80) == places([endpoint("b1", 4)])
    assert {each.name for each, _ in fabric.compiler.services.clashes()} == {"web"}
    fabric.compiler.remove(rival.key)
    fabric.interpret()
    assert outcomes(fabric, client, VIPS[0], 80) == places([endpoint("a1", 4)])
