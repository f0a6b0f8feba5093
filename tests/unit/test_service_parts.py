"""What several Services want: who has it, and what the others are told; who announces addresses; what people see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from struct import pack, unpack_from

import msgspec
import pytest
from counts import count
from fabric import Fabric
from hypothesis import given
from hypothesis import strategies as st
from test_services import BALANCED, EXTERNAL, NODE_PORT, PODS, VIPS, both, endpoint, service, slice_of

from controller import views
from controller.service_counts import Counts, Sums, add_buckets, add_flows
from flows import fields as f
from flows import services as flow_services
from flows.compiler import Compiler
from flows.cookies import Kind, Scope, cookie
from flows.openflow import encode
from flows.openflow.counted import BucketIds, bucket_ids
from flows.openflow.messages import GroupStats
from flows.pipeline import ENDPOINT, HOST, SERVICE, SERVICE_STATS
from flows.tables.service import DIRECT_LIMIT
from flows.update import CLUSTER, Update
from flows.values import Flow, Group
from topology.endpoints import ENDPOINT_LIMIT
from topology.model import Endpoint, EndpointPort, EndpointSlice, Service, ServicePort, Subset
from topology.naming import Address, object_id

WEB = ("name", "b1")


def clashes(fabric: Fabric) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each, reason in fabric.compiler.services.clashes():
        found.setdefault(each.name, []).append(reason)
    return {name: sorted(reasons) for name, reasons in found.items()}


def alone(name: str, **changes: object) -> Service:
    """A Service that wants nothing but what `changes` say."""
    bare = {"external_ips": (), "load_balancer_ips": (), "ports": (ServicePort(port=80),)}
    return msgspec.structs.replace(service(), name=name, **(bare | changes))


# Who has what several want --------------------------------------------------------------------------------------------


def test_every_way_in_that_two_services_want_is_told_to_the_one_that_hasn_t_got_it() -> None:
    fabric = Fabric(1, [], [service(), msgspec.structs.replace(service(), name="zzz")])
    assert clashes(fabric) == {
        "zzz": sorted(
            [
                f"{each} port 80/TCP is Service default/web's already; choose another"
                for each in VIPS + EXTERNAL + BALANCED
            ]
            + [f"node port {NODE_PORT}/TCP is Service default/web's already; choose another"] * 2
        )
    }


def test_a_port_for_health_checks_is_wanted_like_any_other() -> None:
    ones = [
        alone(name, cluster_ips=(VIPS[0] + place,), health_check_node_port=32000) for place, name in enumerate("ab")
    ]
    fabric = Fabric(1, [], ones)
    assert clashes(fabric) == {"b": ["health check node port 32000 is Service default/a's already; choose another"]}
    assert {name for _, name, _ in health(fabric, "")} == {"a"}


def test_what_differs_in_protocol_or_port_or_family_is_wanted_by_nobody_else() -> None:
    fabric = Fabric(
        1,
        [],
        [
            alone("a", cluster_ips=VIPS[:1]),
            alone("b", cluster_ips=VIPS[:1], ports=(ServicePort(port=80, protocol="UDP"),)),
            alone("c", cluster_ips=VIPS[:1], ports=(ServicePort(port=81),)),
            alone("d", cluster_ips=VIPS[1:], ports=(ServicePort(port=80, node_port=NODE_PORT),)),
            alone("e", cluster_ips=(VIPS[0] + 9,), ports=(ServicePort(port=80, node_port=NODE_PORT),)),
        ],
    )
    assert clashes(fabric) == {}


def test_a_headless_service_wants_nothing() -> None:
    headless = msgspec.structs.replace(service(), name="aaa", cluster_ips=())
    fabric = Fabric(1, [], [service(), headless])
    assert clashes(fabric) == {}
    assert not list(flow_services.claims(headless)) and not flow_services.external_addresses(headless)


# Endpoints that can't be ----------------------------------------------------------------------------------------------


def test_an_endpoint_among_a_node_s_pods_that_no_pod_has_is_named() -> None:
    there, nobody = endpoint("a1", 4), Endpoint(address=ip_address("10.244.2.77"))
    outside = Endpoint(address=ip_address("192.0.2.7"))
    fabric = Fabric(2, PODS[:3], [service(), slice_of(there, nobody, outside)])
    assert list(fabric.compiler.services.strangers()) == [
        (
            ("EndpointSlice", "default", "web-1"),
            "endpoint 10.244.2.77 is in the pod CIDR of node n2, and no pod's",
        )
    ]


def many(count: int) -> EndpointSlice:
    return slice_of(*(Endpoint(address=ip_address("10.250.0.0") + index) for index in range(count)))


def test_of_too_many_endpoints_the_first_are_used_and_that_is_told() -> None:
    fabric = Fabric(1, [], [service(), many(ENDPOINT_LIMIT + 1)])
    (told,) = fabric.compiler.services.strangers()
    assert told == (
        ("Service", "default", "web"),
        "port 80/TCP has 1001 endpoints; the first 1000 are used: split the Service",
    )
    (group,) = fabric.compiler.groups(CLUSTER)
    assert len(group.buckets) == ENDPOINT_LIMIT
    fabric.compiler.put(many(ENDPOINT_LIMIT))
    assert not list(fabric.compiler.services.strangers())


# Who announces an address ---------------------------------------------------------------------------------------------


def announcers(compiler: Compiler, addresses: list[Address]) -> list[str]:
    return [compiler.services.announcer(each) for each in addresses]


def balanced(count: int, **changes: object) -> list[Service]:
    return [
        alone(
            f"s{index}",
            cluster_ips=(VIPS[0] + 100 + index,),
            load_balancer_ips=(BALANCED[0] + index,),
            ports=(ServicePort(port=80, node_port=31000 + index),),
            **changes,
        )
        for index in range(count)
    ]


def told_to_announce(fabric: Fabric) -> dict[str, set[int]]:
    """By node, the addresses that its switch's notes tell its host to answer for."""
    found: dict[str, set[int]] = {}
    for name in fabric.names:
        notes = [flow for flow in fabric.compiler.flows(name) if flow.table == HOST.number and flow.priority == 20]
        found[name] = {term.value for flow in notes for term in flow.match if term.field == f.IPV4_DST}
    return found


def test_each_address_is_announced_by_one_node_and_all_nodes_have_a_share() -> None:
    fabric = Fabric(4, [], balanced(100))
    shares = told_to_announce(fabric)
    assert sum(map(len, shares.values())) == 100 == len(set().union(*shares.values()))
    assert all(10 <= len(each) <= 45 for each in shares.values())


@given(st.sets(st.sampled_from(["n1", "n2", "n3", "n4"]), max_size=3), st.sampled_from(["n1", "n2", "n3", "n4"]))
def test_a_node_that_is_lost_moves_its_own_addresses_and_no_others(down: set[str], lost: str) -> None:
    compiler = FOUR_NODES.compiler
    addresses = [BALANCED[0] + index for index in range(20)]
    compiler.set_down(down)
    before = announcers(compiler, addresses)
    compiler.set_down({*down, lost})
    after = announcers(compiler, addresses)
    assert not {*down, lost} & set(after) - {""}
    for old, new in zip(before, after, strict=True):
        assert new == old or old == lost
    compiler.set_down(down)
    assert announcers(compiler, addresses) == before


FOUR_NODES = Fabric(4, [], balanced(20))


def test_the_change_when_a_node_is_lost_is_the_notes_of_those_concerned() -> None:
    fabric = Fabric(3, [], balanced(20))
    before = told_to_announce(fabric)
    updates = fabric.compiler.set_down(["n1"])
    after = told_to_announce(fabric)
    assert after["n1"] == set() and set().union(*after.values()) == set().union(*before.values())
    moved = {update.scope: len(update.removed) + len(update.added) for update in updates}
    assert sum(moved.values()) == 2 * len(before["n1"]) and moved["n1"] == len(before["n1"])
    assert CLUSTER not in moved
    assert fabric.compiler.set_down(["n1"]) == []


def test_with_all_nodes_lost_nobody_announces() -> None:
    fabric = Fabric(2, [], balanced(3))
    fabric.compiler.set_down(fabric.names)
    assert not any(told_to_announce(fabric).values())


def test_with_a_local_policy_a_node_with_an_endpoint_announces_as_long_as_there_is_one() -> None:
    local = service(external_local=True)
    fabric = Fabric(3, PODS, [local, slice_of(*both("b1"))])
    services = fabric.compiler.services
    assert [services.announcer(each) for each in BALANCED] == ["n2", "n2"]
    fabric.compiler.put(slice_of(*both("c1"), endpoint("b1", 4, ready=False, serving=False)))
    assert [services.announcer(each) for each in BALANCED] == ["n3", "n3"]
    fabric.compiler.set_down(["n3"])
    assert all(services.announcer(each) in ("n1", "n2") for each in BALANCED)
    fabric.compiler.put(slice_of())
    assert all(services.announcer(each) for each in BALANCED)


def test_addresses_that_others_route_to_are_not_announced() -> None:
    fabric = Fabric(2, [], [service()])
    assert not any(fabric.compiler.services.announcer(each) for each in EXTERNAL)
    assert not fabric.compiler.services.announcer(ip_address("192.0.2.99"))


# Health checks --------------------------------------------------------------------------------------------------------


def health(fabric: Fabric, scope: str) -> Iterator[tuple[int, str, int]]:
    """The notes of health checks in a scope: port, Service, endpoints."""
    for flow in fabric.compiler.flows(scope):
        if flow.table == HOST.number:
            note = msgspec.json.decode(flow.program[0].data)  # type: ignore[union-attr]
            if note["kind"] == "health":
                yield note["port"], note["name"], note["endpoints"]


def test_a_health_check_counts_the_pods_that_are_ready_on_the_node_once_in_both_families() -> None:
    checked = service(external_local=True, health_check_node_port=32000)
    ends = [*both("a1", "a2", "b1"), *both("c1", ready=False, terminating=True)]
    fabric = Fabric(3, PODS, [checked, slice_of(*ends)])
    assert {name: list(health(fabric, name)) for name in ("", *fabric.names)} == {
        "": [(32000, "web", 0)],
        "n1": [(32000, "web", 2)],
        "n2": [(32000, "web", 1)],
        "n3": [],
    }


# UDP endpoints --------------------------------------------------------------------------------------------------------


def forgotten(updates: list[Update]) -> set[str]:
    return {f"{each.address}:{each.port}" for update in updates for each in update.forgotten}


def test_an_endpoint_that_no_longer_serves_is_forgotten_and_one_that_merely_isn_t_ready_is_not() -> None:
    udp = service(protocol="UDP")
    fabric = Fabric(3, PODS, [udp, slice_of(*both("a1", "b1"), protocol="UDP")])
    compiler = fabric.compiler
    late = [*both("a1"), *both("b1", ready=False)]
    assert forgotten(compiler.put(slice_of(*late, protocol="UDP"))) == set()
    gone = [*both("a1"), *both("b1", ready=False, serving=False)]
    assert forgotten(compiler.put(slice_of(*gone, protocol="UDP"))) == {"10.244.2.2:8080", "fd00:10:244:2::2:8080"}
    (update, *_) = compiler.remove(udp.key)
    assert update.scope == CLUSTER and forgotten([update]) == {"10.244.1.2:8080", "fd00:10:244:1::2:8080"}


# What Services have carried -------------------------------------------------------------------------------------------


def told_buckets(groups: Iterable[Group]) -> dict[int, BucketIds]:
    """The buckets of groups, as a switch tells of them."""
    descs = []
    for group in groups:
        mod = encode.group_mod(group)
        kind, number, size = unpack_from("!BxIH", mod, 10)
        descs.append(pack("!HBxIH6x", 16 + len(mod) - 24, kind, number, size) + mod[24:])
    return {each.group_id: each for desc in descs for each in bucket_ids(bytes(16) + desc, range(1 << 32))}


def carried(fabric: Fabric, scopes: tuple[str, ...] = (CLUSTER,)) -> tuple[Sums, int]:
    """Sums of a switch on which each flow has seen its place in the list of packets and ten times that in bytes."""
    sums = Sums()
    flows = [flow for scope in scopes for flow in fabric.compiler.flows(scope)]
    groups = {group.group_id: group for scope in scopes for group in fabric.compiler.groups(scope)}
    told = [GroupStats(number, tuple(range(1, len(group.buckets) + 1))) for number, group in groups.items()]
    labels = fabric.compiler.services.labels()
    add_flows(sums, labels, [count(flow, 1, 10) for flow in flows])
    add_buckets(sums, labels, told_buckets(groups.values()), told)
    return sums, sum(flow.table == SERVICE.number for flow in flows)


def test_packets_are_counted_for_each_endpoint_and_connections_where_a_bucket_chose_it() -> None:
    fabric = Fabric(3, PODS, [alone("web", cluster_ips=VIPS[:1]), slice_of(*both("a1", "b1"))])
    sums, _ = carried(fabric)
    (group,) = fabric.compiler.groups(CLUSTER)
    label = fabric.compiler.services.labels()[group.group_id]
    assert sums.endpoints == {
        (label, bucket.bucket_id): Counts(connections=place, packets=1, bytes=10)
        for place, bucket in enumerate(group.buckets, 1)
    }
    assert sums.connections == {object_id("Service", "default", "web"): 1}
    add_buckets(sums, fabric.compiler.services.labels(), told_buckets([group]), [GroupStats(group.group_id, (5, 5))])
    assert {counts.connections for counts in sums.endpoints.values()} == {6, 7}


@pytest.mark.parametrize("affinity", [True, False])
def test_where_buckets_only_name_endpoints_connections_are_counted_where_they_are_sent_on(affinity: bool) -> None:
    ends = slice_of(*both("a1", "b1")) if affinity else many(DIRECT_LIMIT + 1)
    fabric = Fabric(3, PODS, [alone("web", cluster_ips=VIPS[:1], affinity_seconds=60 * affinity), ends])
    sums, _ = carried(fabric)
    assert len(sums.endpoints) == (2 if affinity else DIRECT_LIMIT + 1)
    assert set(map(msgspec.structs.astuple, sums.endpoints.values())) == {(1, 1, 10)}


def test_groups_for_one_node_count_for_the_same_endpoints_as_those_for_all() -> None:
    near = alone("web", cluster_ips=VIPS[:1], distribution="PreferSameNode")
    fabric = Fabric(3, PODS, [near, slice_of(*both("a1", "b1"))])
    sums, _ = carried(fabric, (CLUSTER, "n1"))
    assert len(sums.endpoints) == 2
    ((view, end, numbers, used), *_) = fabric.compiler.services.endpoints_of(near)
    # Its own bucket is the first of the node's group; in the group of all it is the first or the second.
    assert end.endpoint.pod == "a1" and used and view.title == "default/web/80/TCP/4"
    assert sums.endpoints[numbers].connections in (2, 3)
    assert sums.connections == {object_id("Service", "default", "web"): 2}


def test_what_is_refused_or_dropped_or_of_other_tables_is_no_connection() -> None:
    dark = service(source_ranges=(), external_local=True)
    fabric = Fabric(2, [], [dark, slice_of()])
    sums, in_service = carried(fabric)
    assert in_service > 5 and sums.connections == {} and sums.endpoints == {}
    mark = cookie(Scope.NODE, Kind.SERVICE, 1)
    foreign = [Flow(each.number, 400, (), (), mark) for each in (SERVICE_STATS, ENDPOINT)]
    unread = msgspec.structs.replace(count(Flow(SERVICE.number, 400, (), (), mark), 9), rest=bytes(8))
    add_flows(sums, {}, [*(count(each, 7, 7) for each in foreign), unread])
    add_buckets(sums, {}, {}, [GroupStats(99, (1, 2))])
    assert sums.connections == {} and sums.endpoints == {}


# What people are shown ------------------------------------------------------------------------------------------------


def rows(found: Iterator[views.Row]) -> dict[str, views.Row]:
    return {row["name"] if "address" not in row else row["address"]: row for row in found}


def test_services_are_shown_with_their_addresses_and_how_many_endpoints_are_used() -> None:
    ends = [*both("a1"), endpoint("b1", 4), endpoint("c1", 4, ready=False)]
    fabric = Fabric(3, PODS, [service((WEB,)), slice_of(*ends), alone("other", type="LoadBalancer")])
    shown = rows(views.services(fabric.compiler))
    assert "Service default/other's already; choose another" in shown["web"].pop("reason")
    announcing = sorted({fabric.compiler.services.announcer(each) for each in BALANCED})
    assert shown["web"] == {
        "namespace": "default",
        "name": "web",
        "type": "LoadBalancer",
        "clusterIPs": ["10.96.0.10", "fd00:10:96::10"],
        "externalIPs": ["198.51.100.10", "2001:db8:1::10", "203.0.113.10", "2001:db8:2::10"],
        "announcedBy": announcing,
        "ports": ["80:30080/TCP"],
        "selector": ["name=b1"],
        "endpoints": 3,
    }
    assert (shown["other"]["externalIPs"], shown["other"]["ports"], shown["other"]["announcedBy"]) == (
        ["<pending>"],
        ["80/TCP"],
        [],
    )


def test_a_headless_service_is_shown_without_address_or_endpoints() -> None:
    fabric = Fabric(1, PODS[:1], [alone("web", cluster_ips=(), type="ClusterIP"), slice_of(*both("a1"))])
    (row,) = views.services(fabric.compiler)
    assert (row["clusterIPs"], row["externalIPs"], row["endpoints"]) == (["None"], [], 0)
    assert not list(views.endpoints(fabric.compiler))


def test_endpoints_are_shown_with_their_state_and_whether_connections_go_there() -> None:
    ends = [
        endpoint("a1", 4, zone="east"),
        endpoint("a2", 4, ready=False, serving=False),
        endpoint("b1", 4, ready=False, terminating=True),
        endpoint("c1", 6),
    ]
    fabric = Fabric(3, PODS, [service(), slice_of(*ends)])
    shown = rows(views.endpoints(fabric.compiler))
    assert {address: (row["status"], row["used"]) for address, row in shown.items()} == {
        "10.244.1.2:8080": ("Ready", True),
        "10.244.1.3:8080": ("NotReady", False),
        "10.244.2.2:8080": ("Serving,Terminating", False),
        "[fd00:10:244:3::2]:8080": ("Ready", True),
    }
    assert shown["10.244.1.2:8080"] == {
        "namespace": "default",
        "name": "web",
        "port": "80/TCP",
        "address": "10.244.1.2:8080",
        "status": "Ready",
        "used": True,
        "pod": "a1",
        "node": "n1",
        "zone": "east",
    }


def test_an_endpoint_that_only_its_own_node_s_clients_are_sent_to_is_used() -> None:
    ends = [endpoint("a1", 4), endpoint("b1", 4, ready=False, terminating=True)]
    fabric = Fabric(3, PODS, [service(external_local=True), slice_of(*ends)])
    assert [row["used"] for row in views.endpoints(fabric.compiler)] == [True, True]


def test_counters_are_shown_where_they_are_asked_for_and_add_up_in_the_service_s_row() -> None:
    here = alone("web", cluster_ips=VIPS[:1], ports=(ServicePort(port=80, name="http"), ServicePort(port=81, name="b")))
    ports = tuple(EndpointPort(port=8000, name=name) for name in ("http", "b"))
    ends = EndpointSlice(
        namespace="default", name="x", service="web", subsets=(Subset(ports, tuple(both("a1", "b1"))),)
    )
    fabric = Fabric(3, PODS, [here, ends])
    sums, _ = carried(fabric)
    shown = list(views.endpoints(fabric.compiler, sums))
    assert [(row["port"], row["connections"], row["packets"], row["bytes"]) for row in shown] == [
        ("http", shown[0]["connections"], 1, 10),
        ("http", 3 - shown[0]["connections"], 1, 10),
        ("b", shown[2]["connections"], 1, 10),
        ("b", 3 - shown[2]["connections"], 1, 10),
    ]
    (row,) = views.services(fabric.compiler, sums)
    assert (row["connections"], row["packets"], row["bytes"]) == (2, 4, 40)
    assert "packets" not in next(views.services(fabric.compiler))
