"""What routers are told, as a function of the cluster: which prefixes, by which nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from ipaddress import ip_address, ip_network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.compiler import Compiler
from topology import announcements
from topology.announcements import LINE, Elections, Route, elected, routes
from topology.model import (
    TRANSIT,
    Cluster,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Node,
    Object,
    Service,
    ServicePort,
    Subset,
)
from topology.naming import Address

BALANCED = (ip_address("198.51.100.10"), ip_address("2001:db8:1::10"))
WEB = Service(
    namespace="default",
    name="web",
    type="LoadBalancer",
    ports=(ServicePort(port=80),),
    cluster_ips=(ip_address("10.96.0.10"), ip_address("fd00:10:96::10")),
    external_ips=(ip_address("203.0.113.10"),),
    load_balancer_ips=BALANCED,
)
LOCAL = msgspec.structs.replace(WEB, external_local=True)


def node(number: int) -> Node:
    return Node(
        name=f"node-{number}",
        addresses=(ip_address(f"172.30.0.{number}"), ip_address(f"fd00:172:30::{number}")),
        pod_cidrs=(ip_network(f"10.244.{number}.0/24"), ip_network(f"fd00:10:244:{number}::/64")),
    )


NODES = [node(number) for number in (1, 2, 3)]


def slice_on(*numbers: int, ready: bool = True) -> EndpointSlice:
    """One IPv4 endpoint of Service web on each of these nodes."""
    ends = tuple(
        Endpoint(address=ip_address(f"10.244.{number}.9"), node=f"node-{number}", ready=ready, serving=ready)
        for number in numbers
    )
    subset = Subset((EndpointPort(port=80),), ends)
    return EndpointSlice(namespace="default", name="web-1", service="web", subsets=(subset,))


def cluster(*objects: Object) -> Cluster:
    here = Cluster()
    for each in objects:
        here.put(each)
    return here


def told(found: Sequence[Route]) -> dict[str, list[str]]:
    return {str(route.prefix): list(map(str, route.next_hops)) for route in found}


def test_each_pod_cidr_is_reached_by_its_node_s_address_of_the_same_family() -> None:
    assert told(routes(cluster(*NODES[:2]))) == {
        "10.244.1.0/24": ["172.30.0.1"],
        "10.244.2.0/24": ["172.30.0.2"],
        "fd00:10:244:1::/64": ["fd00:172:30::1"],
        "fd00:10:244:2::/64": ["fd00:172:30::2"],
    }


def test_a_cidr_of_a_family_in_which_its_node_has_no_address_is_reached_by_nobody() -> None:
    lacking = msgspec.structs.replace(NODES[0], addresses=NODES[0].addresses[:1])
    assert list(told(routes(cluster(lacking)))) == ["10.244.1.0/24"]


def test_of_two_nodes_with_one_cidr_the_first_by_name_has_it_also_while_it_is_lost() -> None:
    rival = msgspec.structs.replace(NODES[1], pod_cidrs=NODES[0].pod_cidrs)
    here = cluster(*NODES[:1], rival)
    assert told(routes(here))["10.244.1.0/24"] == ["172.30.0.1"]
    assert "10.244.1.0/24" not in told(routes(here, ["node-1"]))


def test_a_load_balancer_s_address_is_reached_by_the_node_that_answers_arp_for_it() -> None:
    compiler = Compiler()
    for _ in compiler.take([*NODES, WEB], []):
        pass
    for lost in ((), ("node-1",), ("node-2",), ("node-1", "node-3")):
        compiler.set_down(lost)
        found = {route.prefix: route for route in routes(compiler.cluster, lost)}
        for address in BALANCED:
            answering = compiler.cluster.nodes[compiler.services.announcer(address)]
            hop = next(each for each in answering.addresses if each.version == address.version)
            assert found[ip_network(address)] == Route(ip_network(address), (hop,), "Service/default/web")


def test_a_switch_in_transit_which_knows_no_services_answers_for_no_address() -> None:
    passing = [msgspec.structs.replace(each, labels=(TRANSIT,)) for each in NODES[1:]]
    addresses = tuple(ip_address(f"198.51.100.{number}") for number in range(1, 20))
    found = told(routes(cluster(NODES[0], *passing, msgspec.structs.replace(WEB, load_balancer_ips=addresses))))
    assert {tuple(found[f"{each}/32"]) for each in addresses} == {("172.30.0.1",)}


def test_other_external_addresses_are_the_business_of_who_gave_them() -> None:
    assert not [prefix for prefix in told(routes(cluster(*NODES, WEB))) if prefix.startswith("203.")]


def test_an_address_whose_packets_stay_is_reached_by_all_nodes_with_ready_endpoints() -> None:
    hops = told(routes(cluster(*NODES, LOCAL, slice_on(1, 3))))
    assert sorted(hops["198.51.100.10/32"]) == ["172.30.0.1", "172.30.0.3"]
    # Its endpoints are all of the other family.
    assert "2001:db8:1::10/128" not in hops
    assert "198.51.100.10/32" not in told(routes(cluster(*NODES, LOCAL, slice_on(1, 3, ready=False))))
    assert told(routes(cluster(*NODES, LOCAL, slice_on(1, 3)), ["node-1"]))["198.51.100.10/32"] == ["172.30.0.3"]


def test_who_takes_one_next_hop_only_isn_t_sent_to_the_same_node_for_every_address() -> None:
    addresses = tuple(ip_address(f"198.51.100.{number}") for number in range(1, 40))
    many = msgspec.structs.replace(LOCAL, load_balancer_ips=addresses)
    found = told(routes(cluster(*NODES, many, slice_on(1, 2, 3))))
    assert {found[f"{each}/32"][0] for each in addresses} == {"172.30.0.1", "172.30.0.2", "172.30.0.3"}


def test_a_lost_node_is_withdrawn_but_if_all_are_lost_nothing_is() -> None:
    here = cluster(*NODES, WEB)
    assert not [hop for hops in told(routes(here, ["node-2"])).values() for hop in hops if hop.endswith(".2")]
    assert routes(here, ["node-1", "node-2", "node-3"]) == routes(here)
    assert routes(cluster(WEB)) == ()


def test_of_services_that_share_an_address_the_first_by_name_decides() -> None:
    other = msgspec.structs.replace(LOCAL, name="aaa")
    owners = {str(route.prefix): route.owner for route in routes(cluster(*NODES, WEB, other))}
    # The first has no endpoints, and its packets are to stay: so nobody takes them.
    assert "198.51.100.10/32" not in owners


def highest_hash(address: Address, nodes: Collection[str]) -> str:
    """Who answers for an address: as it is defined, with nothing done once for several."""
    return max(
        nodes, key=lambda name: hashlib.blake2b(f"{address}/{name}".encode(), digest_size=8).digest(), default=""
    )


#: More than are kept in line for an address.
NAMES = [f"node-{number}" for number in range(3 * LINE)]
QUESTIONS = st.tuples(st.integers(1, 6), st.frozensets(st.sampled_from(NAMES)))


@given(st.lists(st.one_of(QUESTIONS, st.sampled_from(NAMES)), max_size=40))
def test_what_was_remembered_of_elections_is_what_would_be_elected(
    events: list[tuple[int, frozenset[str]] | str],
) -> None:
    remembering = Elections()
    for event in events:
        if isinstance(event, str):
            remembering.forget(event)
            continue
        address: Address = ip_address(f"198.51.100.{event[0]}")
        assert remembering(address, event[1]) == elected(address, event[1]) == highest_hash(address, event[1])


@pytest.mark.parametrize("gone", range(0, 3 * LINE, 5))
def test_when_all_who_were_first_in_line_are_gone_others_are_elected(gone: int) -> None:
    remembering, address = Elections(), BALANCED[0]
    everybody = frozenset(NAMES)
    assert remembering(address, everybody)
    order = sorted(NAMES, key=lambda name: [highest_hash(address, (name, other)) for other in NAMES].count(name))
    left = frozenset(order[: len(NAMES) - gone])
    assert remembering(address, left) == highest_hash(address, left)
    for name in everybody - left:
        remembering.forget(name)
    assert remembering(address, left) == highest_hash(address, left)
    assert remembering(address, everybody) == highest_hash(address, everybody)


def test_asked_again_after_a_node_has_come_it_asks_none_but_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    remembering, asked = Elections(), list[str]()
    addresses: list[Address] = [ip_address(f"198.51.100.{number}") for number in range(1, 9)]
    for each in addresses:
        remembering(each, frozenset(NAMES))
    standing = announcements.standing_for

    def noted(address: Address) -> Callable[[str], bytes]:
        return lambda name: asked.append(name) or standing(address)(name)  # type: ignore[func-returns-value]

    monkeypatch.setattr(announcements, "standing_for", noted)
    grown = frozenset({*NAMES, "new"})
    for each in addresses:
        assert remembering(each, grown) == highest_hash(each, grown)
        # Neither who is out of reach, nor who is back.
        remembering(each, frozenset(NAMES[1:]))
    assert asked == ["new"] * len(addresses)


@pytest.mark.parametrize("gone", ["node-1", "node-2", "node-3"])
def test_a_node_that_goes_moves_no_address_but_its_own(gone: str) -> None:
    names = {each.name for each in NODES}
    for number in range(50):
        address = ip_address(f"198.51.100.{number}")
        before = elected(address, names)
        assert before == gone or elected(address, names - {gone}) == before
