"""The compiler: what it makes of a cluster, and that changes in any order add up to the same as starting afresh."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from random import Random

import msgspec
import pytest
from fabric import WAYS, Way
from hypothesis import given, settings
from hypothesis import strategies as st

import flows.compiler
from flows import pipeline
from flows.compiler import Compiler
from flows.cookies import Kind
from flows.numbers import _first as first_hash
from flows.openflow.digest import changed, digest, group_hash
from flows.state import Port
from flows.update import CLUSTER, Update
from flows.values import Flow, FlowKey, Group
from topology.endpoints import ZONE_LABEL
from topology.graph import Wire
from topology.model import (
    TRANSIT,
    ContainerPort,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Namespace,
    Node,
    Object,
    Pod,
    Service,
    ServicePort,
    Subset,
)
from topology.naming import (
    GATEWAY_MAC,
    GATEWAY_PORT,
    HOST_END_MAC_PREFIX,
    POD_MAC_PREFIX,
    TUNNEL_PORT,
    mac_of,
    pod_port_name,
    port_of_place,
)


def node(
    number: int,
    *,
    address: int | None = None,
    cidr: int | None = None,
    zone: str = "",
    transit: bool = False,
    drained: bool = False,
) -> Node:
    """Node n<number>; `address` and `cidr` make it claim those of another."""
    cidr = number if cidr is None else cidr
    return Node(
        name=f"n{number}",
        addresses=(ip_address(f"172.30.0.{number if address is None else address}"),),
        pod_cidrs=(ip_network(f"10.244.{cidr}.0/24"), ip_network(f"fd00:10:244:{cidr}::/64")),
        labels=(*(((ZONE_LABEL, zone),) if zone else ()), *((TRANSIT,) if transit else ())),
        drained=drained,
    )


#: Wires as they may be: parallel ones, one that claims another's port, one of a node to itself, one to nowhere.
WIRES = [
    Wire("n1", "e1", "n2", "e1"),
    Wire("n1", "e2", "n2", "e2", 2),
    Wire("n1", "e2", "n2", "e2"),
    Wire("n1", "e3", "n3", "e1"),
    Wire("n2", "e2", "n3", "e2"),
    Wire("n2", "e3", "n3", "e3", 3),
    Wire("n2", "e4", "n2", "e5"),
    Wire("n3", "e4", "n9", "e1"),
    Wire("n1", "e1", "n3", TUNNEL_PORT),
]


def pod_port(number: int, namespace: str, name: str, place: int, cidr: int = 1) -> Port:
    mac = mac_of(HOST_END_MAC_PREFIX, ip_address(f"10.244.{cidr}.{place}"))
    return Port(number, pod_port_name(namespace, name), mac)


def placed_port(namespace: str, name: str, place: int) -> Port:
    """A port whose number says which pod is there: its hardware address is its own."""
    return Port(port_of_place(place), pod_port_name(namespace, name), 0xE2AA_0000_0001)


UPLINKS = [Port(1, GATEWAY_PORT, GATEWAY_MAC), Port(2, TUNNEL_PORT, 0x5B)]


HOST_PORTS = [
    (ContainerPort(port=80, name="web", host_port=8080),),
    (ContainerPort(port=81, host_port=8080, host_ip=ip_address("172.30.0.1")),),
    (ContainerPort(port=82, host_port=8080, host_ip=ip_address("127.0.0.1")),),
]


class Switches:
    """What switches would hold that were sent every update, and the digests that would be stored in them."""

    def __init__(self, compiler: Compiler) -> None:
        self.tables: dict[str, dict[FlowKey, Flow]] = {CLUSTER: {flow.key: flow for flow in compiler.flows(CLUSTER)}}
        self.groups: dict[str, dict[int, Group]] = {}
        self.digests: dict[str, int] = {CLUSTER: digest(compiler.flows(CLUSTER))}

    def take(self, updates: list[Update]) -> None:
        for update in updates:
            table = self.tables.setdefault(update.scope, {})
            groups = self.groups.setdefault(update.scope, {})
            for group in update.groups_removed:
                assert groups.pop(group.group_id) == group
            for group in update.groups_added:
                assert group.group_id not in groups
                groups[group.group_id] = group
            for flow in update.removed:
                assert table.pop(flow.key) == flow
            for flow in update.added:
                assert flow.key not in table
                table[flow.key] = flow
            before = self.digests.get(update.scope, 0)
            after = changed(before, update.removed, update.added)
            after += sum(map(group_hash, update.groups_added)) - sum(map(group_hash, update.groups_removed))
            self.digests[update.scope] = after % (1 << 64)


def assert_same_as_afresh(compiler: Compiler, switches: Switches) -> None:
    for scope in (CLUSTER, "n1", "n2", "n3"):
        flows = list(compiler.flows(scope))
        assert len({flow.key for flow in flows}) == len(flows)
        assert set(flows) == set(switches.tables.get(scope, {}).values())
        groups = list(compiler.groups(scope))
        assert {group.group_id: group for group in groups} == switches.groups.get(scope, {})
        assert len({group.group_id for group in groups}) == len(groups)
        assert digest(flows, groups) == switches.digests.get(scope, 0)
        for flow in flows:
            pipeline.check(flow)


def wires_of(compiler: Compiler) -> set[Wire]:
    """The wires that it was told of."""
    return {*compiler.fabric.used(), *(wire for wire, _ in compiler.unused_wires())}


names = st.sampled_from(["a", "b", "c"])
numbers = st.integers(1, 3)
Step = Callable[[Compiler], list[Update]]


_MORE = ["service", "slice", "remove service", "remove slice", "down"] * 2 + ["workload"] * 2
flags = st.booleans()


def put(new: Object) -> Step:
    return lambda compiler: compiler.put(new)


@st.composite
def services(draw: st.DrawFn) -> Service:
    """Services that want the same addresses and node ports as often as not."""
    vips = [ip_address("10.96.0.1"), ip_address("10.96.0.2"), ip_address("fd00:10:96::1")]
    worlds = [ip_address("192.0.2.1"), ip_address("2001:db8::1")]
    port = ServicePort(
        port=80,
        name="a",
        protocol=draw(st.sampled_from(["TCP", "UDP"])),
        target=draw(st.sampled_from([0, "web"])),
        node_port=draw(st.sampled_from([0, 30080])),
    )
    other = ServicePort(port=81, name="b", node_port=draw(st.sampled_from([0, 30081])))
    external_local = draw(flags)
    return Service(
        namespace="default",
        name=draw(names),
        ports=(port, other) if draw(flags) else (port,),
        selector=draw(st.sampled_from([None, (("app", "web"),)])),
        cluster_ips=tuple(sorted(draw(st.sets(st.sampled_from(vips))), key=str)),
        load_balancer_ips=tuple(sorted(draw(st.sets(st.sampled_from(worlds))), key=str)),
        source_ranges=draw(st.sampled_from([(), (ip_network("198.51.100.0/24"),)])),
        publish_not_ready=draw(flags),
        external_ips=tuple(sorted(draw(st.sets(st.sampled_from(worlds))), key=str)),
        external_local=external_local,
        internal_local=draw(flags),
        # As `topology.services` gives them: only such Services have one.
        health_check_node_port=draw(st.sampled_from([0, 32000])) if external_local else 0,
        affinity_seconds=draw(st.sampled_from([0, 60])),
        distribution=draw(st.sampled_from(["", "PreferSameZone", "PreferSameNode"])),
    )


@st.composite
def slices(draw: st.DrawFn) -> EndpointSlice:
    endpoints = tuple(
        Endpoint(
            address=address,
            node=draw(st.sampled_from(["", "n1", "n2"])),
            ready=draw(flags),
            serving=draw(flags),
            terminating=draw(flags),
            zones=draw(st.sampled_from([(), ("east",), ("east", "west")])),
        )
        for address in draw(st.sets(st.sampled_from([ip_address("10.244.2.2"), ip_address("fd00:10:244:2::2")])))
    )
    ports = tuple(EndpointPort(port=8080, name=name, protocol=protocol) for name in "ab" for protocol in ("TCP", "UDP"))
    kind, name = draw(st.sampled_from(["EndpointSlice", "Endpoints"])), draw(names)
    service = name if kind == "Endpoints" else draw(names)
    return EndpointSlice(
        kind=kind, namespace="default", name=name, service=service, subsets=(Subset(ports, endpoints),)
    )


def drain(compiler: Compiler, name: str, drained: bool) -> list[Update]:
    """Nothing but whether a node gets new work changes."""
    there = compiler.cluster.nodes.get(name)
    return [] if there is None else compiler.put(msgspec.structs.replace(there, drained=drained))


@st.composite
def drains(draw: st.DrawFn) -> Step:
    name, drained = f"n{draw(numbers)}", draw(flags)
    return lambda compiler: drain(compiler, name, drained)


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """One event: a node, pod or namespace comes, changes or goes; a switch announces its ports."""
    kinds = ["node", "drain", "pod", "ports", "wires", "namespace", "remove node", "remove pod", *_MORE]
    match draw(st.sampled_from(kinds)):
        case "wires":
            wires = draw(st.sets(st.sampled_from(WIRES)))
            return lambda compiler: compiler.set_links(wires)
        case "node":
            zone = draw(st.sampled_from(["", "east", "west"]))
            transit = draw(st.sampled_from([False, False, True]))
            claims = {"address": draw(numbers), "cidr": draw(numbers)}
            new = node(draw(numbers), **claims, zone=zone, transit=transit, drained=draw(flags))
            return lambda compiler: compiler.put(new)
        case "drain":
            return draw(drains())
        case "workload":
            # Some are others' neighbours: by port, by address, by an address that is a node's or for its pods.
            texts = ["192.0.2.10", "192.0.2.11", "2001:db8::10", "172.30.0.2", "10.244.1.2"]
            workload = Pod(
                namespace="default",
                name=draw(names),
                node=draw(st.sampled_from(["n1", "n2", "n3"])),
                labels=draw(st.sampled_from([(), (("app", "web"),)])),
                addresses=tuple(map(ip_address, draw(st.sets(st.sampled_from(texts), min_size=1, max_size=2)))),
                ports=draw(st.sampled_from([(), (ContainerPort(port=80, name="web"),)])),
                port=draw(st.sampled_from(["veth1", "veth2"])),
                mac=draw(st.sampled_from([0x5254_0000_0001, 0x5254_0000_0002])),
            )
            return lambda compiler: compiler.put(workload)
        case "pod":
            where = draw(st.sampled_from(["", "n1", "n2", "n3"]))
            pod = Pod(
                namespace="default",
                name=draw(names),
                node=where,
                host_network=draw(st.booleans()),
                labels=draw(st.sampled_from([(), (("app", "web"),)])),
                addresses=draw(st.sampled_from([(), (ip_address("10.244.1.2"),), (ip_address("fd00:10:244:1::2"),)])),
                ready=draw(st.booleans()),
                terminating=draw(st.booleans()),
                ports=draw(st.sampled_from([(), *HOST_PORTS])),
            )
            return lambda compiler: compiler.put(pod)
        case "namespace":
            namespace = Namespace(name=draw(names))
            return lambda compiler: compiler.put(namespace)
        case "service":
            here = draw(services())
            return lambda compiler: compiler.put(here)
        case "slice":
            there = draw(slices())
            return lambda compiler: compiler.put(there)
        case "down":
            down = draw(st.sets(st.sampled_from(["n1", "n2", "n3"])))
            return lambda compiler: compiler.set_down(down)
        case "remove service":
            key = ("Service", "default", draw(names))
            return lambda compiler: compiler.remove(key)
        case "remove slice":
            key = (draw(st.sampled_from(["EndpointSlice", "Endpoints"])), "default", draw(names))
            return lambda compiler: compiler.remove(key)
        case "remove node":
            key = ("Node", "", f"n{draw(numbers)}")
            return lambda compiler: compiler.remove(key)
        case "remove pod":
            key = ("Pod", "default", draw(names))
            return lambda compiler: compiler.remove(key)
    which = draw(st.sets(names))
    ports = [
        placed_port("default", name, draw(st.integers(1, 4)))
        if draw(flags)
        else pod_port(10 + index, "default", name, draw(st.integers(1, 4)), draw(numbers))
        for index, name in enumerate(sorted(which))
    ]
    ports += draw(st.sampled_from([[], UPLINKS, UPLINKS[:1]]))
    ports += draw(st.sampled_from([[], [Port(40, "veth1", 0x5C)], [Port(40, "veth1", 0x5C), Port(41, "veth2", 0x5C)]]))
    for index in draw(st.sets(st.integers(1, 5))):
        ports.append(Port(20 + index + draw(st.sampled_from([0, 0, 10])), f"e{index}", index, up=draw(flags)))
    where = f"n{draw(numbers)}"
    return lambda compiler: compiler.set_ports(where, ports)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps(), max_size=25), st.sampled_from(list(WAYS.values())))
def test_updates_in_any_order_add_up_to_what_a_fresh_compilation_makes(events: list[Step], way: Way) -> None:
    compiler = Compiler(keyed=way.keyed, interconnect=way.interconnect)
    switches = Switches(compiler)
    for event in events:
        switches.take(event(compiler))
    assert_same_as_afresh(compiler, switches)


def test_without_keys_senders_are_known_from_their_status_until_their_switch_is_heard() -> None:
    """A controller that starts again has what its switches have, also before the last one of them is there."""
    compiler = Compiler(keyed=False)
    addresses = tuple(map(ip_address, ("10.244.1.2", "fd00:10:244:1::2")))
    for each in (node(1), Pod(namespace="default", name="a", node="n1", addresses=addresses)):
        compiler.put(each)
    before = set(compiler.flows(CLUSTER))
    assert not [
        each for each in compiler.set_ports("n1", [*UPLINKS, pod_port(3, "default", "a", 2)]) if each.scope == CLUSTER
    ]
    assert set(compiler.flows(CLUSTER)) == before
    assert len([flow for flow in before if flow.cookie >> 48 & 0x7F == Kind.POD]) == 2
    # What the switch then doesn't have is nobody's.
    compiler.set_ports("n1", UPLINKS)
    assert not [flow for flow in compiler.flows(CLUSTER) if flow.cookie >> 48 & 0x7F == Kind.POD]


def test_without_keys_an_address_that_two_say_they_have_is_the_first_one_s() -> None:
    """Two pods of one node, and two nodes of one CIDR."""
    compiler = Compiler(keyed=False)
    switches = Switches(compiler)
    own = (ip_address("10.244.1.2"),)
    for each in (
        node(1),
        node(2, cidr=1),
        *(Pod(namespace="default", name=name, node="n1", addresses=own) for name in "ba"),
    ):
        switches.take(compiler.put(each))
        assert_same_as_afresh(compiler, switches)
    switches.take(compiler.put(Pod(namespace="default", name="c", node="n2", addresses=own)))
    for name, pod in (("n1", "b"), ("n2", "c")):
        switches.take(compiler.set_ports(name, [*UPLINKS, pod_port(3, "default", pod, 2)]))
        assert_same_as_afresh(compiler, switches)
    switches.take(compiler.remove(("Node", "", "n1")))
    assert_same_as_afresh(compiler, switches)
    assert [flow for flow in compiler.flows(CLUSTER) if flow.cookie >> 48 & 0x7F == Kind.POD]


@settings(max_examples=200, deadline=None)
@given(st.lists(steps(), max_size=15), st.lists(steps(), max_size=25), st.sampled_from([1, 3, 1000]))
def test_many_changes_at_once_end_up_where_one_after_another_do(first: list[Step], then: list[Step], step: int) -> None:
    compiler, goal = Compiler(), Compiler()
    for event in first:
        event(compiler)
        event(goal)
    switches = Switches(compiler)
    for scope in ("n1", "n2", "n3"):
        switches.take([Update(scope, (), tuple(compiler.flows(scope)), (), tuple(compiler.groups(scope)))])
    switches.take([Update(CLUSTER, groups_added=tuple(compiler.groups(CLUSTER)))])
    for event in then:
        event(goal)
    for name in ("n1", "n2", "n3"):
        switches.take(compiler.set_ports(name, goal.ports(name)))
    switches.take(compiler.set_links(wires_of(goal)))
    switches.take(compiler.set_down(goal.services.down))
    wanted = {each.key: each for each in goal.cluster.objects()}
    gone = [each.key for each in compiler.cluster.objects() if each.key not in wanted]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows.compiler, "STEP", step)
        for updates in compiler.take(wanted.values(), gone):
            switches.take(updates)
    assert_same_as_afresh(compiler, switches)
    afresh = Compiler()
    for each in wanted.values():
        afresh.put(each)
    for name in ("n1", "n2", "n3"):
        afresh.set_ports(name, goal.ports(name))
    afresh.set_down(goal.services.down)
    afresh.set_links(wires_of(goal))
    for scope in (CLUSTER, "n1", "n2", "n3"):
        for made in (goal, afresh):
            assert set(compiler.flows(scope)) == set(made.flows(scope))
            assert set(compiler.groups(scope)) == set(made.groups(scope))


@settings(max_examples=100, deadline=None)
@given(st.permutations(range(5)))
def test_the_order_in_which_parts_become_known_does_not_matter(order: list[int]) -> None:
    ports = [*UPLINKS, pod_port(10, "default", "a", 2)]
    events: list[Step] = [
        lambda compiler: compiler.put(node(1)),
        lambda compiler: compiler.put(node(2)),
        lambda compiler: compiler.put(Pod(namespace="default", name="a", node="n1")),
        lambda compiler: compiler.set_ports("n1", ports),
        lambda compiler: compiler.set_ports("n2", UPLINKS),
    ]
    compiler, expected = Compiler(), Compiler()
    for index in order:
        events[index](compiler)
    for event in events:
        event(expected)
    for scope in (CLUSTER, "n1", "n2"):
        assert set(compiler.flows(scope)) == set(expected.flows(scope))


def test_updates_add_up_where_the_numbers_of_groups_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.numbers._first", lambda title: 1 + first_hash(title) % 5)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.one_of(services().map(put), slices().map(put), steps()), max_size=25))
    def holds(events: list[Step]) -> None:
        compiler = Compiler()
        switches = Switches(compiler)
        for event in events:
            switches.take(event(compiler))
        assert_same_as_afresh(compiler, switches)

    holds()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(services().map(put), slices().map(put), drains()), min_size=8, max_size=25))
def test_updates_add_up_while_nodes_are_drained_and_are_not(events: list[Step]) -> None:
    compiler = Compiler()
    switches = Switches(compiler)
    for event in [*map(put, (node(1), node(2), node(3))), *events]:
        switches.take(event(compiler))
    assert_same_as_afresh(compiler, switches)


def state(compiler: Compiler) -> dict[str, tuple[set[Flow], set[Group]]]:
    scopes = (CLUSTER, "n1", "n2", "n3")
    return {scope: (set(compiler.flows(scope)), set(compiler.groups(scope))) for scope in scopes}


@settings(max_examples=150, deadline=None)
@given(st.lists(steps(), max_size=12), st.randoms(use_true_random=False))
def test_what_there_is_in_the_end_decides_and_not_how_it_came_to_be(events: list[Step], random: Random) -> None:
    compiler = Compiler()
    for event in events:
        event(compiler)
    afresh = Compiler()
    left: list[Step] = [put(each) for each in compiler.cluster.objects()]
    left += [_announce(name, list(compiler.ports(name))) for name in ("n1", "n2", "n3")]
    left.append(lambda other: other.set_down(compiler.services.down))
    left.append(lambda other: other.set_links(wires_of(compiler)))
    random.shuffle(left)
    for event in left:
        event(afresh)
    assert state(afresh) == state(compiler)


def _announce(name: str, ports: list[Port]) -> Step:
    return lambda compiler: compiler.set_ports(name, ports)


def small_cluster() -> Compiler:
    compiler = Compiler()
    for number in (1, 2):
        compiler.put(node(number))
        compiler.set_ports(f"n{number}", UPLINKS)
    compiler.put(Pod(namespace="default", name="a", node="n1"))
    compiler.set_ports("n1", [*UPLINKS, pod_port(10, "default", "a", 2)])
    return compiler


def test_a_new_pod_changes_its_own_node_and_no_other_scope() -> None:
    compiler = small_cluster()
    compiler.put(Pod(namespace="default", name="b", node="n1"))
    ports = [*compiler.ports("n1"), pod_port(11, "default", "b", 3)]
    (update,) = compiler.set_ports("n1", ports)
    assert update.scope == "n1"
    assert not update.removed
    assert {flow.cookie for flow in update.added} == {update.added[0].cookie}


def test_a_pod_that_moves_to_another_node_leaves_the_first() -> None:
    compiler = small_cluster()
    (update,) = compiler.put(Pod(namespace="default", name="a", node="n2"))
    assert (update.scope, update.added) == ("n1", ())
    assert len(update.removed) == 9


def test_a_port_of_a_pod_scheduled_elsewhere_is_refused_with_the_reason() -> None:
    compiler = small_cluster()
    assert compiler.set_ports("n2", [*UPLINKS, pod_port(10, "default", "a", 2, cidr=2)]) == []
    ((port, reason),) = compiler.refusals("n2")
    assert port.number == 10
    assert "no pod that is scheduled to this node" in reason


def test_an_address_outside_the_nodes_pod_cidr_is_refused_with_the_reason() -> None:
    compiler = small_cluster()
    compiler.set_ports("n1", [*UPLINKS, pod_port(10, "default", "a", 2, cidr=2)])
    ((_, reason),) = compiler.refusals("n1")
    assert "outside its node's pod CIDR 10.244.1.0/24" in reason
    assert not list(compiler.local_pods("n1"))


def test_the_gateways_and_the_networks_own_address_are_no_pods() -> None:
    compiler = small_cluster()
    for place in (0, 1, 255):
        compiler.set_ports("n1", [*UPLINKS, pod_port(10, "default", "a", place)])
        assert not list(compiler.local_pods("n1")), place


def test_of_two_ports_with_one_address_the_second_is_refused_until_the_first_goes() -> None:
    compiler = small_cluster()
    compiler.put(Pod(namespace="default", name="b", node="n1"))
    first, second = pod_port(10, "default", "a", 2), pod_port(11, "default", "b", 2)
    if first.name > second.name:
        first, second = second, first
    compiler.set_ports("n1", [*UPLINKS, first, second])
    ((port, reason),) = compiler.refusals("n1")
    assert port == second
    assert reason == "another port announces the same address, 10.244.1.2"
    compiler.set_ports("n1", [*UPLINKS, second])
    assert not list(compiler.refusals("n1"))


def test_a_port_that_keeps_its_own_hardware_address_says_by_its_number_which_pod_is_there() -> None:
    compiler = small_cluster()
    compiler.set_ports("n1", [*UPLINKS, placed_port("default", "a", 2)])
    ((_, local),) = compiler.local_pods("n1")
    assert local.addresses == (ip_address("10.244.1.2"), ip_address("fd00:10:244:1::2"))
    assert local.port == 0x8002
    assert local.mac == mac_of(POD_MAC_PREFIX, local.addresses[0]), "what the pod sends with"
    for place in (0, 1, 255):
        compiler.set_ports("n1", [*UPLINKS, placed_port("default", "a", place)])
        ((_, reason),) = compiler.refusals("n1")
        assert f"stands for place {place}, which no pod" in reason


def test_of_two_ports_that_announce_one_address_in_two_ways_the_first_has_it() -> None:
    compiler = small_cluster()
    compiler.put(Pod(namespace="default", name="b", node="n1"))
    ports = sorted([pod_port(10, "default", "a", 2), placed_port("default", "b", 2)], key=lambda port: port.name)
    compiler.set_ports("n1", [*UPLINKS, *ports])
    ((port, reason),) = compiler.refusals("n1")
    assert (port, reason) == (ports[1], "another port announces the same address, 10.244.1.2")
    compiler.set_ports("n1", [*UPLINKS, ports[1]])
    assert not list(compiler.refusals("n1"))


def test_addresses_that_the_api_reports_must_be_those_that_the_port_announces() -> None:
    compiler = small_cluster()
    compiler.put(Pod(namespace="default", name="a", node="n1", addresses=(ip_address("10.244.1.9"),)))
    ((_, reason),) = compiler.refusals("n1")
    assert "10.244.1.9" in reason


def test_every_node_gets_the_same_cluster_flows_and_its_own_routes_come_first() -> None:
    compiler = small_cluster()
    route = pipeline.ROUTE.number
    elsewhere = max(flow.priority for flow in compiler.flows(CLUSTER) if flow.table == route and len(flow.program) == 3)
    here = min(flow.priority for flow in compiler.flows("n1") if flow.table == route)
    assert here > elsewhere


def test_an_address_is_announced_for_the_service_that_is_left_when_the_one_that_shared_it_goes() -> None:
    shared, vip = (ip_address("192.0.2.1"),), (ip_address("10.96.0.1"),)
    first = Service(namespace="default", name="a", ports=(ServicePort(port=80),), cluster_ips=vip, external_ips=shared)
    second = Service(
        namespace="default", name="b", ports=(ServicePort(port=81),), cluster_ips=vip, load_balancer_ips=shared
    )
    compiler = Compiler()
    for each in (node(1), first, second):
        compiler.put(each)
    assert compiler.services.announcer(shared[0]) == ""
    updates = {update.scope: update for update in compiler.remove(first.key)}
    assert compiler.services.announcer(shared[0]) == "n1"
    assert len(updates["n1"].added) == 1
