"""Which endpoints a Service's port has, and which of them count: Kubernetes' rules case by case."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

import msgspec
import pytest

from topology.endpoints import ZONE_LABEL, Backend, backends, in_zones, on_nodes, target_port, usable, zone_of
from topology.model import (
    Cluster,
    ContainerPort,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Node,
    Object,
    Pod,
    Service,
    ServicePort,
    Subset,
)

HTTP = ServicePort(port=80, name="http", target="web")
WEB = Service(
    namespace="shop", name="web", ports=(HTTP,), selector=(("app", "web"),), cluster_ips=(ip_address("10.96.0.1"),)
)
NODE = Node(
    name="node-1",
    addresses=(ip_address("172.30.0.1"), ip_address("fd00:172:30::1")),
    pod_cidrs=(ip_network("10.244.1.0/24"),),
    labels=((ZONE_LABEL, "east"),),
)


def pod(name: str, place: int, **fields: object) -> Pod:
    plain = Pod(
        namespace="shop",
        name=name,
        node="node-1",
        labels=(("app", "web"), ("x", name)),
        addresses=(ip_address("10.244.1.0") + place, ip_address("fd00:10:244:1::") + place),
        ports=(ContainerPort(port=8080, name="web"),),
    )
    return msgspec.structs.replace(plain, **fields)


def slice_of(name: str, *endpoints: Endpoint, port: EndpointPort | None = None) -> EndpointSlice:
    ports = (port or EndpointPort(port=9000, name="http"),)
    return EndpointSlice(namespace="shop", name=name, service="web", subsets=(Subset(ports, endpoints),))


def found(*objects: Object, service: Service = WEB, version: int = 4, port: ServicePort = HTTP) -> list[Backend]:
    cluster = Cluster()
    for each in objects:
        cluster.put(each)
    return backends(cluster, service, port, version)


def places(ends: Iterable[Backend]) -> list[str]:
    return [f"{each.address}:{each.port}" for each in ends]


def test_the_pods_that_a_selector_selects_are_endpoints_at_the_port_of_that_name() -> None:
    (end,) = found(NODE, pod("a", 2), pod("b", 3, labels=(("app", "api"),)), pod("c", 4, namespace="other"))
    assert end == Backend(
        ip_address("10.244.1.2"),
        8080,
        Endpoint(address=ip_address("10.244.1.2"), node="node-1", zone="east", pod="a"),
    )


def test_a_selector_wants_all_of_its_labels() -> None:
    both = msgspec.structs.replace(WEB, selector=(("app", "web"), ("x", "a")))
    assert places(found(NODE, pod("a", 2), pod("b", 3), service=both)) == ["10.244.1.2:8080"]


def test_endpoints_are_of_the_family_that_is_asked_for_in_the_order_of_their_addresses() -> None:
    pods = (pod("a", 9), pod("b", 3))
    assert places(found(NODE, *pods)) == ["10.244.1.3:8080", "10.244.1.9:8080"]
    assert places(found(NODE, *pods, version=6)) == ["fd00:10:244:1::3:8080", "fd00:10:244:1::9:8080"]


@pytest.mark.parametrize(
    ("target", "protocol", "expected"),
    [(0, "TCP", 80), (8443, "TCP", 8443), ("web", "TCP", 8080), ("web", "UDP", 0), ("other", "TCP", 0)],
)
def test_a_target_is_a_number_or_a_name_of_that_protocol_or_the_port_itself(
    target: int | str, protocol: str, expected: int
) -> None:
    port = ServicePort(port=80, protocol=protocol, target=target)
    assert target_port(pod("a", 2), port) == expected
    assert len(found(NODE, pod("a", 2), port=port)) == bool(expected)


def test_pods_may_have_one_name_for_different_ports() -> None:
    other = pod("b", 3, ports=(ContainerPort(port=8081, name="web"),))
    assert places(found(NODE, pod("a", 2), other)) == ["10.244.1.2:8080", "10.244.1.3:8081"]


def test_a_pod_on_its_node_s_network_has_the_node_s_addresses_until_its_status_says_others() -> None:
    host = pod("a", 2, host_network=True, addresses=())
    assert places(found(NODE, host)) == ["172.30.0.1:8080"]
    assert places(found(NODE, host, version=6)) == ["fd00:172:30::1:8080"]
    assert found(host) == []
    assert places(found(NODE, pod("a", 2, host_network=True))) == ["10.244.1.2:8080"]


def test_a_pod_without_addresses_is_no_endpoint_yet() -> None:
    assert found(NODE, pod("a", 2, addresses=())) == []


@pytest.mark.parametrize(
    ("ready", "terminating", "publish", "expected"),
    [
        (True, False, False, (True, True, False)),
        (False, False, False, (False, False, False)),
        (True, True, False, (False, True, True)),
        (False, True, False, (False, False, True)),
        (False, False, True, (True, True, False)),
        (False, True, True, (True, True, True)),
    ],
)
def test_a_pod_s_state_becomes_its_endpoint_s_as_kubernetes_writes_it(
    ready: bool, terminating: bool, publish: bool, expected: tuple[bool, bool, bool]
) -> None:
    service = msgspec.structs.replace(WEB, publish_not_ready=publish)
    (end,) = found(NODE, pod("a", 2, ready=ready, terminating=terminating), service=service)
    assert (end.endpoint.ready, end.endpoint.serving, end.endpoint.terminating) == expected


def test_slices_say_all_endpoints_of_a_service_that_has_some_whatever_its_selector_selects() -> None:
    slices = (slice_of("web-1", Endpoint(address=ip_address("192.0.2.1"))),)
    assert places(found(NODE, pod("a", 2), *slices)) == ["192.0.2.1:9000"]
    none = msgspec.structs.replace(WEB, selector=None)
    assert places(found(NODE, pod("a", 2), *slices, service=none)) == ["192.0.2.1:9000"]
    assert found(NODE, pod("a", 2), service=none) == []


def test_an_address_in_several_slices_is_one_endpoint_and_the_last_slice_by_name_describes_it() -> None:
    first = slice_of("web-1", Endpoint(address=ip_address("192.0.2.1"), ready=False))
    last = slice_of("web-2", Endpoint(address=ip_address("192.0.2.1"), node="node-1"))
    for order in ((first, last), (last, first)):
        (end,) = found(*order)
        assert end.endpoint.node == "node-1"


def test_a_slice_s_port_is_for_the_service_s_port_of_its_name_and_protocol() -> None:
    end = Endpoint(address=ip_address("192.0.2.1"))
    assert found(slice_of("a", end, port=EndpointPort(port=9000, name="other"))) == []
    assert found(slice_of("a", end, port=EndpointPort(port=9000, name="http", protocol="UDP"))) == []


# Which of them count --------------------------------------------------------------------------------------------------


def end(place: int, **fields: object) -> Backend:
    address = ip_address("192.0.2.0") + place
    return Backend(address, 80, msgspec.structs.replace(Endpoint(address=address), **fields))


READY, LATE = end(1), end(2, ready=False, serving=False)
LEAVING, GONE = end(3, ready=False, terminating=True), end(4, ready=False, serving=False, terminating=True)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([READY, LATE, LEAVING, GONE], [READY]),
        ([LATE, LEAVING, GONE], [LEAVING]),
        ([LATE, GONE], []),
        ([end(5, ready=False)], []),
    ],
)
def test_those_that_are_ready_count_or_else_those_that_serve_while_they_leave(
    there: list[Backend], expected: list[Backend]
) -> None:
    assert usable(there) == expected


def test_each_node_has_those_that_are_ready_on_it_or_else_those_that_leave_it() -> None:
    here, leaving = end(1, node="a"), end(2, node="b", ready=False, terminating=True)
    late = end(3, node="c", ready=False, serving=False)
    also = end(4, node="a", ready=False, terminating=True)
    assert on_nodes([here, leaving, late, also, READY]) == {"a": [here], "b": [leaving]}


def test_hints_count_only_where_every_endpoint_has_one() -> None:
    east, both = end(1, zones=("east",)), end(2, zones=("east", "west"))
    assert in_zones([east, both]) == {"east": [east, both], "west": [both]}
    assert in_zones([east, both, READY]) == {}
    assert in_zones([]) == {}


def test_a_service_that_prefers_its_zone_hints_each_pod_to_the_zone_of_its_node() -> None:
    near = msgspec.structs.replace(WEB, distribution="PreferSameZone")
    (one,) = found(NODE, pod("a", 2), service=near)
    assert one.endpoint.zones == ("east",)
    nowhere = msgspec.structs.replace(NODE, labels=())
    (one,) = found(nowhere, pod("a", 2), service=near)
    assert one.endpoint.zones == () and zone_of(nowhere) == zone_of(None) == ""
