"""What Services are given, addresses and node ports; who gets nothing and why; and that others keep what they have."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology.model import Key, Node, Service, ServicePort
from topology.naming import Address
from topology.services import RangeError, ServiceRanges, ServiceSpec, allocate

V4, V6 = ip_network("10.96.0.0/16"), ip_network("fd00:10:96::/112")
POOLS = (ip_network("198.51.100.0/24"), ip_network("2001:db8:1::/112"))
RANGES = ServiceRanges(cluster=(V4, V6), load_balancer=POOLS, node_ports=(30000, 30099))
NODE = Node(
    name="node-1",
    addresses=(ip_address("172.30.0.1"),),
    pod_cidrs=(ip_network("10.244.1.0/24"), ip_network("fd00::/64")),
)


def spec(name: str = "web", **fields: object) -> ServiceSpec:
    return msgspec.structs.replace(ServiceSpec(namespace="default", name=name, ports=(ServicePort(port=80),)), **fields)


def given_to(*specs: ServiceSpec, ranges: ServiceRanges = RANGES) -> tuple[dict[str, Service], dict[str, str]]:
    """What Services get, and what they are told, by their names."""
    found, problems = allocate({each.key: each for each in specs}, ranges, [NODE])
    assert len(dict(problems)) == len(problems)
    return {key[2]: value for key, value in found.items()}, {key[2]: reason for key, reason in problems}


def only(asked: ServiceSpec, ranges: ServiceRanges = RANGES) -> Service:
    found, problems = given_to(asked, ranges=ranges)
    assert problems == {}
    return found[asked.name]


def refusal(asked: ServiceSpec, *others: ServiceSpec, ranges: ServiceRanges = RANGES) -> str:
    found, problems = given_to(asked, *others, ranges=ranges)
    assert asked.name not in found and problems.keys() == {asked.name}
    return problems[asked.name]


# Cluster addresses and families ---------------------------------------------------------------------------------------


def versions(service: Service) -> list[int]:
    return [each.version for each in service.cluster_ips]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [4]),
        ({"families": (6,)}, [6]),
        ({"families": (6, 4)}, [6, 4]),
        ({"family_policy": "SingleStack"}, [4]),
        ({"family_policy": "SingleStack", "families": (6, 4)}, [6]),
        ({"family_policy": "PreferDualStack"}, [4, 6]),
        ({"family_policy": "PreferDualStack", "families": (6,)}, [6, 4]),
        ({"family_policy": "RequireDualStack"}, [4, 6]),
        ({"cluster_ips": (ip_address("fd00:10:96::7"),)}, [6]),
        ({"cluster_ips": (ip_address("fd00:10:96::7"),), "family_policy": "PreferDualStack"}, [6, 4]),
    ],
)
def test_a_service_has_an_address_of_each_family_that_it_asks_for_the_first_one_first(
    fields: dict[str, object], expected: list[int]
) -> None:
    found = only(spec(**fields))
    assert versions(found) == expected
    assert all(address in (V4, V6)[address.version == 6] for address in found.cluster_ips)


def test_an_address_that_is_asked_for_is_given() -> None:
    both = (ip_address("10.96.0.10"), ip_address("fd00:10:96::10"))
    assert only(spec(cluster_ips=both)).cluster_ips == both


@pytest.mark.parametrize("policy", ["", "SingleStack", "PreferDualStack"])
def test_where_the_cluster_has_one_family_that_is_what_there_is(policy: str) -> None:
    ranges = ServiceRanges(cluster=(V6,))
    assert versions(only(spec(family_policy=policy), ranges)) == [6]


def test_two_families_can_t_be_had_of_a_cluster_with_one() -> None:
    one = ServiceRanges(cluster=(V4,))
    assert "PreferDualStack takes what is there" in refusal(spec(family_policy="RequireDualStack"), ranges=one)
    assert "spec.ipFamilies: the cluster has no IPv6 range" in refusal(spec(families=(6,)), ranges=one)


@pytest.mark.parametrize("fields", [{"headless": True}, {"type": "ExternalName"}])
def test_headless_services_and_external_names_get_no_address_and_no_port(fields: dict[str, object]) -> None:
    found = only(spec(**fields))
    assert found.cluster_ips == () == found.load_balancer_ips
    assert [port.node_port for port in found.ports] == [0]


def test_neither_the_network_s_own_address_nor_the_one_for_all_is_given() -> None:
    small = ServiceRanges(cluster=(ip_network("10.96.0.0/30"),))
    found, problems = given_to(spec("a"), spec("b"), spec("c"), ranges=small)
    assert {each.cluster_ips[0] for each in found.values()} == {ip_address("10.96.0.1"), ip_address("10.96.0.2")}
    assert problems == {"c": "no address is free in 10.96.0.0/30; make the range larger"}


@pytest.mark.parametrize("cidr", ["10.96.0.7/32", "fd00:7::7/128"])
def test_a_range_of_one_address_has_that_one(cidr: str) -> None:
    alone = ServiceRanges(cluster=(ip_network(cidr),))
    assert only(spec(), alone).cluster_ips == (ip_network(cidr)[0],)


# Node ports and health checks -----------------------------------------------------------------------------------------


def test_services_of_type_nodeport_and_loadbalancer_get_a_port_of_nodes_for_each_port() -> None:
    two = (ServicePort(port=80, name="http"), ServicePort(port=53, protocol="UDP", name="dns"))
    for kind in ("NodePort", "LoadBalancer"):
        ports = only(spec(type=kind, ports=two)).ports
        assert all(30000 <= port.node_port <= 30099 for port in ports)
    assert [port.node_port for port in only(spec(ports=two)).ports] == [0, 0]


def test_a_load_balancer_can_do_without_ports_of_nodes_and_a_nodeport_can_t() -> None:
    assert only(spec(type="LoadBalancer", allocate_node_ports=False)).ports[0].node_port == 0
    assert only(spec(type="NodePort", allocate_node_ports=False)).ports[0].node_port != 0


def test_one_number_may_serve_two_protocols_and_not_two_services() -> None:
    asked = (ServicePort(port=80, node_port=30080, name="a"), ServicePort(port=80, protocol="UDP", node_port=30080))
    first = spec("a", type="NodePort", ports=asked)
    assert [port.node_port for port in only(first).ports] == [30080, 30080]
    said = refusal(spec("b", type="NodePort", ports=asked[1:]), first)
    assert said == "spec: nodePort 30080 is Service default/a's already; choose another, or leave it out"


def test_one_number_can_t_be_given_to_two_ports_of_a_service() -> None:
    twice = (ServicePort(port=80, node_port=30080, name="a"), ServicePort(port=81, node_port=30080, name="b"))
    said = refusal(spec(type="NodePort", ports=twice))
    assert said == "spec: nodePort 30080 is given twice; choose another for one of them"


def test_a_number_outside_of_the_range_is_refused() -> None:
    asked = (ServicePort(port=80, node_port=8080),)
    said = refusal(spec(type="NodePort", ports=asked))
    assert said == "spec: nodePort 8080 is not in the range of node ports, 30000-30099"


def test_when_all_ports_are_given_the_next_gets_nothing() -> None:
    few = ServiceRanges(cluster=(V4,), node_ports=(30000, 30001))
    found, problems = given_to(*(spec(name, type="NodePort") for name in "abc"), ranges=few)
    assert {each.ports[0].node_port for each in found.values()} == {30000, 30001}
    assert problems == {"c": "no node port is free in 30000-30001; make the range larger"}


def test_only_a_load_balancer_with_a_local_policy_gets_a_port_for_health_checks() -> None:
    assert only(spec(type="LoadBalancer", external_local=True)).health_check_node_port in range(30000, 30100)
    assert (
        only(spec(type="LoadBalancer", external_local=True, health_check_node_port=30007)).health_check_node_port
        == 30007
    )
    for fields in ({"type": "LoadBalancer"}, {"type": "NodePort", "external_local": True}):
        assert only(spec(health_check_node_port=30007, **fields)).health_check_node_port == 0


def test_a_health_check_port_is_a_node_port_that_nobody_else_can_have() -> None:
    balanced = spec("a", type="LoadBalancer", external_local=True, health_check_node_port=30007)
    said = refusal(spec("b", type="NodePort", ports=(ServicePort(port=80, node_port=30007),)), balanced)
    assert "nodePort 30007 is Service default/a's already" in said
    assert "healthCheckNodePort 8080 is not in the range" in refusal(
        spec(type="LoadBalancer", external_local=True, health_check_node_port=8080)
    )


# Addresses outside of the cluster's range -----------------------------------------------------------------------------


def test_a_load_balancer_gets_an_address_of_each_of_its_families() -> None:
    found = only(spec(type="LoadBalancer", family_policy="PreferDualStack"))
    assert [address in pool for address, pool in zip(found.load_balancer_ips, POOLS, strict=True)] == [True, True]
    assert [each.version for each in only(spec(type="LoadBalancer", families=(6,))).load_balancer_ips] == [6]


def test_without_a_pool_of_its_family_a_load_balancer_waits_without_complaint() -> None:
    bare = ServiceRanges(cluster=(V4, V6), load_balancer=POOLS[1:])
    assert only(spec(type="LoadBalancer"), bare).load_balancer_ips == ()


def test_a_load_balancer_of_another_class_is_left_to_others() -> None:
    other = spec(type="LoadBalancer", load_balancer_class="example.com/lb")
    assert only(other).load_balancer_ips == ()
    told = (ip_address("203.0.113.9"),)
    assert only(msgspec.structs.replace(other, load_balancer_status=told)).load_balancer_ips == told
    assert only(spec(type="LoadBalancer", load_balancer_class="signalbox.io/load-balancer")).load_balancer_ips


def test_an_address_of_the_pool_that_is_asked_for_is_given_and_another_is_refused() -> None:
    asked = ip_address("198.51.100.77")
    assert only(spec(type="LoadBalancer", load_balancer_ip=asked)).load_balancer_ips == (asked,)
    said = refusal(spec(type="LoadBalancer", load_balancer_ip=ip_address("203.0.113.1")))
    assert said == "spec.loadBalancerIP 203.0.113.1 is in no pool (198.51.100.0/24, 2001:db8:1::/112); choose another"


def test_a_service_for_which_the_pool_has_no_address_gets_everything_else_and_is_told() -> None:
    small = ServiceRanges(cluster=(V4,), load_balancer=(ip_network("198.51.100.8/32"),))
    found, problems = given_to(spec("a", type="LoadBalancer"), spec("b", type="LoadBalancer"), ranges=small)
    assert found["a"].load_balancer_ips == (ip_address("198.51.100.8"),)
    assert found["b"].load_balancer_ips == () and found["b"].cluster_ips and found["b"].ports[0].node_port
    assert problems == {"b": "no address is free in 198.51.100.8/32; make the range larger"}


def test_a_full_pool_is_followed_by_the_next() -> None:
    pools = (ip_network("198.51.100.8/32"), ip_network("198.51.100.9/32"))
    two = ServiceRanges(cluster=(V4,), load_balancer=pools)
    found, problems = given_to(spec("a", type="LoadBalancer"), spec("b", type="LoadBalancer"), ranges=two)
    assert problems == {}
    assert [found[name].load_balancer_ips[0] for name in "ab"] == [pools[0][0], pools[1][0]]


def test_services_may_share_an_address_where_no_port_is_wanted_twice() -> None:
    shared = ip_address("203.0.113.1")
    first = spec("a", external_ips=(shared,))
    other = spec("b", external_ips=(shared,), ports=(ServicePort(port=81),))
    found, problems = given_to(first, other)
    assert problems == {} and {each.external_ips for each in found.values()} == {(shared,)}
    said = refusal(msgspec.structs.replace(other, ports=first.ports), first)
    assert said == "spec.externalIPs: 203.0.113.1 port 80/TCP is Service default/a's already; choose another"


def test_an_address_that_a_service_asks_for_is_not_given_to_one_that_leaves_it_open() -> None:
    small = ServiceRanges(cluster=(V4,), load_balancer=(ip_network("198.51.100.8/31"),))
    wanted = only(spec("a", type="LoadBalancer"), small).load_balancer_ips[0]
    found, problems = given_to(
        spec("a", type="LoadBalancer"), spec("z", type="LoadBalancer", load_balancer_ip=wanted), ranges=small
    )
    assert problems == {} and found["z"].load_balancer_ips == (wanted,) != found["a"].load_balancer_ips


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"cluster_ips": (ip_address("10.97.0.1"),)},
            "spec.clusterIP 10.97.0.1 is not in the range of Services, 10.96.0.0/16, fd00:10:96::/112; choose another, "
            "or leave it out",
        ),
        (
            {"external_ips": (ip_address("10.96.0.1"),)},
            "spec.externalIPs: 10.96.0.1 is in the range of cluster addresses; choose another",
        ),
        (
            {"external_ips": (ip_address("172.30.0.1"),)},
            "spec.externalIPs: 172.30.0.1 is of node node-1 or of its pods; choose another",
        ),
        (
            {"external_ips": (ip_address("10.244.1.255"),)},
            "spec.externalIPs: 10.244.1.255 is of node node-1 or of its pods; choose another",
        ),
        (
            {"type": "LoadBalancer", "load_balancer_status": (ip_address("fd00::5"),)},
            "spec.loadBalancerIP fd00::5 is of node node-1 or of its pods; choose another",
        ),
    ],
)
def test_an_address_that_can_t_be_a_service_s_is_named_with_its_field_and_the_remedy(
    fields: dict[str, object], said: str
) -> None:
    assert refusal(spec(**fields)) == said


def test_one_cluster_address_can_t_be_two_services() -> None:
    asked = (ip_address("10.96.0.10"),)
    said = refusal(spec("b", cluster_ips=asked), spec("a", cluster_ips=asked))
    assert said == "spec.clusterIP 10.96.0.10 is Service default/a's already; choose another"


def test_addresses_beside_those_of_nodes_are_free() -> None:
    for text in ("172.30.0.0", "172.30.0.2", "10.244.0.255", "10.244.2.0", "fd00:0:0:1::"):
        assert only(spec(external_ips=(ip_address(text),))).external_ips


def test_a_pool_that_nodes_are_in_gives_what_they_don_t_have() -> None:
    pool = (ip_network("172.30.0.0/30"),)
    found, problems = given_to(
        *(spec(name, type="LoadBalancer") for name in "ab"), ranges=ServiceRanges(cluster=(V4,), load_balancer=pool)
    )
    assert found["a"].load_balancer_ips == (ip_address("172.30.0.2"),)
    assert problems.keys() == {"b"}


# Policies that mean nothing -------------------------------------------------------------------------------------------


def test_policies_of_a_kind_of_traffic_that_a_service_doesn_t_get_are_left_out() -> None:
    ranges = (ip_network("192.0.2.0/24"),)
    plain = only(spec(external_local=True, source_ranges=ranges))
    assert not plain.external_local and plain.source_ranges == ()
    assert only(spec(external_local=True, external_ips=(ip_address("203.0.113.1"),))).external_local
    assert only(spec(type="LoadBalancer", source_ranges=ranges)).source_ranges == ranges


def test_what_is_not_given_out_is_as_it_was_asked_for() -> None:
    fields = {
        "internal_local": True,
        "affinity_seconds": 77,
        "publish_not_ready": True,
        "distribution": "PreferSameZone",
        "selector": (("app", "web"),),
    }
    found = only(spec(**fields))
    assert {name: getattr(found, name) for name in fields} == fields


# Stability ------------------------------------------------------------------------------------------------------------

wishes = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]),
        "cluster_ips": st.sampled_from([(), (), (ip_address("10.96.0.1"),), (ip_address("10.96.0.2"),)]),
        "family_policy": st.sampled_from(["", "PreferDualStack"]),
        "external_ips": st.sampled_from([(), (ip_address("203.0.113.1"),)]),
        "load_balancer_ip": st.sampled_from([None, ip_address("198.51.100.1")]),
        "external_local": st.booleans(),
        "ports": st.sampled_from(
            [(ServicePort(port=80),), (ServicePort(port=80, node_port=30001),), (ServicePort(port=81),)]
        ),
    }
)
TIGHT = ServiceRanges(
    cluster=(ip_network("10.96.0.0/29"), V6), load_balancer=(ip_network("198.51.100.0/30"),), node_ports=(30000, 30004)
)


def held(found: Iterable[Service]) -> list[tuple[Address | None, str, int]]:
    """Everything that only one Service can have."""
    had: list[tuple[Address | None, str, int]] = []
    for each in found:
        had += [(address, "", 0) for address in each.cluster_ips]
        for port in each.ports:
            outside = dict.fromkeys(each.external_ips + each.load_balancer_ips)
            had += [(address, port.protocol, port.port) for address in outside]
            had += [(None, port.protocol, port.node_port)] if port.node_port else []
        had += [(None, "TCP", each.health_check_node_port)] if each.health_check_node_port else []
    return had


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from("abcdefgh"), wishes, max_size=8), st.randoms(use_true_random=False))
def test_in_any_order_the_same_is_given_and_nothing_twice(asked: dict[str, dict[str, object]], random: object) -> None:
    specs = {each.key: each for each in (spec(name, **fields) for name, fields in asked.items())}
    keys: list[Key] = list(specs)
    random.shuffle(keys)  # type: ignore[attr-defined]
    found, problems = allocate(specs, TIGHT)
    again, told = allocate({key: specs[key] for key in keys}, TIGHT)
    assert (again, told) == (found, problems)
    assert found.keys() | dict(problems).keys() == specs.keys()
    assert len(set(held(found.values()))) == len(held(found.values()))


@given(st.sets(st.integers(0, 200), max_size=30), st.integers(201, 400))
def test_a_service_that_comes_or_goes_moves_nobody_else_but_for_one_whose_place_it_has(
    names: set[int], new: int
) -> None:
    roomy = ServiceRanges(cluster=(ip_network("10.0.0.0/8"),), load_balancer=(ip_network("11.0.0.0/8"),))
    before, _ = given_to(
        *(spec(f"s{name}", type="LoadBalancer", allocate_node_ports=False) for name in names), ranges=roomy
    )
    after, _ = given_to(
        *(spec(f"s{name}", type="LoadBalancer", allocate_node_ports=False) for name in {*names, new}), ranges=roomy
    )
    assert {name: after[name] for name in before} == before


# Ranges on the command line -------------------------------------------------------------------------------------------


def test_ranges_are_read_from_a_command_line() -> None:
    made = ServiceRanges.parse(["10.96.0.0/16", "fd00:10:96::/112"], ["198.51.100.0/24"], "30000-30099")
    assert made == msgspec.structs.replace(RANGES, load_balancer=POOLS[:1])


@pytest.mark.parametrize(
    ("cluster", "pools", "ports", "said"),
    [
        (
            ["10.96.0.0"],
            ["x"],
            "30000-32767",
            "--load-balancer-pool: 'x' does not appear to be an IPv4 or IPv6 network",
        ),
        (["10.96.0.1/16"], [], "30000-32767", "--service-cidr: 10.96.0.1/16 has host bits set"),
        (
            ["10.96.0.0/16", "10.97.0.0/16"],
            [],
            "30000-32767",
            "--service-cidr: give one for each family, not 10.96.0.0/16, 10.97.0.0/16",
        ),
        ([], [], "", "--service-node-port-range : give two ports, the lower first: 30000-32767"),
        ([], [], "5-4", "--service-node-port-range 5-4: give two ports"),
        ([], [], "0-4", "--service-node-port-range 0-4: give two ports"),
        ([], [], "1-65536", "--service-node-port-range 1-65536: give two ports"),
        ([], [], "²-³", "--service-node-port-range ²-³: give two ports"),
    ],
)
def test_ranges_that_can_t_be_are_named_with_their_option(
    cluster: list[str], pools: list[str], ports: str, said: str
) -> None:
    with pytest.raises(RangeError) as problem:
        ServiceRanges.parse(cluster, pools, ports)
    assert str(problem.value).startswith(said)
