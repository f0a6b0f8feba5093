"""The cluster's objects and what changes among them."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.model import (
    Change,
    Cluster,
    EndpointSlice,
    Key,
    Namespace,
    Node,
    Object,
    Pod,
    Service,
    labels_of,
)
from topology.policies import PodSet, Policy

NODE = Node(name="a", addresses=(ip_address("192.0.2.1"),), pod_cidrs=(ip_network("10.244.0.0/24"),))
POD = Pod(namespace="default", name="web-0", node="a")

names = st.sampled_from(["a", "b", "c"])
objects: st.SearchStrategy[Object] = st.one_of(
    st.builds(lambda name, n: Node(name=name, addresses=(ip_address(n),), pod_cidrs=()), names, st.integers(1, 3)),
    st.builds(lambda name, value: Namespace(name=name, labels=(("x", value),)), names, names),
    st.builds(
        lambda name, node, host, labels: Pod(
            namespace="default", name=name, node=node, host_network=host, labels=labels_of(labels)
        ),
        names,
        st.one_of(st.just(""), names),
        st.booleans(),
        st.dictionaries(names, names),
    ),
    st.builds(
        lambda name, selector: Service(namespace="default", name=name, selector=labels_of(selector) or None),
        names,
        st.dictionaries(names, names),
    ),
    st.builds(
        lambda kind, name, service: EndpointSlice(kind=kind, namespace="default", name=name, service=service),
        st.sampled_from(["EndpointSlice", "Endpoints"]),
        names,
        names,
    ),
    st.builds(
        lambda kind, name, namespace: Policy(kind=kind, name=name, subjects=PodSet(namespace=namespace)),
        st.sampled_from(["NetworkPolicy", "ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy"]),
        names,
        names,
    ),
)
events = st.lists(st.one_of(objects, objects.map(lambda new: new.key)))


def apply(cluster: Cluster, event: Object | Key) -> Change | None:
    return cluster.remove(event) if isinstance(event, tuple) else cluster.put(event)


def test_putting_the_same_object_again_is_no_change() -> None:
    cluster = Cluster()
    assert cluster.put(POD) == Change(None, POD)
    assert cluster.put(Pod(namespace="default", name="web-0", node="a")) is None


def test_removing_what_is_not_there_is_no_change() -> None:
    assert Cluster().remove(NODE.key) is None


def test_a_port_finds_its_pod_on_its_node_alone() -> None:
    cluster = Cluster()
    cluster.put(POD)
    assert cluster.pod_by_port["a", POD.port_name] == POD
    assert ("b", POD.port_name) not in cluster.pod_by_port


def test_a_pod_that_moves_is_found_where_it_is_and_no_longer_where_it_was() -> None:
    cluster = Cluster()
    cluster.put(POD)
    moved = Pod(namespace="default", name="web-0", node="b")
    assert cluster.put(moved) == Change(POD, moved)
    assert cluster.pod_by_port == {("b", moved.port_name): moved}


def test_a_pod_on_its_hosts_network_has_no_port() -> None:
    cluster = Cluster()
    cluster.put(Pod(namespace="default", name="web-0", node="a", host_network=True))
    assert cluster.pod_by_port == {}


def test_a_kind_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError, match="Gateway"):
        Cluster().get(("Gateway", "", "x"))


def test_labels_are_equal_whatever_the_order_they_were_written_in() -> None:
    assert labels_of({"b": "2", "a": "1"}) == labels_of({"a": "1", "b": "2"})


@given(events)
def test_indexes_are_those_of_the_objects_that_are_left(history: list[Object | Key]) -> None:
    cluster, expected = Cluster(), dict[Key, Object]()
    for event in history:
        change = apply(cluster, event)
        key = event if isinstance(event, tuple) else event.key
        new = None if isinstance(event, tuple) else event
        old = expected.pop(key, None)
        if new is not None:
            expected[key] = new
        assert change == (None if old == new else Change(old, new))
    fresh = Cluster()
    for value in expected.values():
        fresh.put(value)
    assert set(cluster.objects()) == set(expected.values())
    assert cluster.pod_by_port == fresh.pod_by_port
    assert cluster.node_by_datapath == fresh.node_by_datapath
    assert cluster.slices_of == fresh.slices_of
    assert cluster.pods_on == fresh.pods_on
    pods, services = list(cluster.pods.values()), list(cluster.services.values())
    for each in services:
        wanted = set(each.selector or ())
        chosen = [pod for pod in sorted(pods, key=lambda pod: pod.name) if wanted and wanted <= set(pod.labels)]
        assert list(cluster.selected(each)) == chosen
    for pod in pods:
        found = {each.name for each in cluster.selecting(pod)}
        assert found == {each.name for each in services if pod in cluster.selected(each)}
