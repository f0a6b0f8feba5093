"""Which pods a workload makes, and where they go."""

from collections import Counter
from ipaddress import ip_address

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.model import ContainerPort, Key, Node, Pod
from topology.workloads import Template, Workload, expand, place

WEB = Template(labels=(("app", "web"),))


def nodes(*names: str, **labels: str) -> list[Node]:
    return [Node(name=name, addresses=(), pod_cidrs=(), labels=tuple(labels.items())) for name in names]


def workload(kind: str, replicas: int = 1, template: Template = WEB, name: str = "web") -> Workload:
    return Workload(kind=kind, namespace="default", name=name, replicas=replicas, template=template)


def pods(made: Workload, *names: str) -> list[Pod]:
    return list(expand(made, nodes(*names)))


def owner(i: int) -> Key:
    return ("Deployment", "default", f"web-{i}")


def test_a_pod_is_itself() -> None:
    (pod,) = pods(workload("Pod"), "a")
    assert pod == Pod(namespace="default", name="web", node="a", labels=(("app", "web"),))


@pytest.mark.parametrize("kind", ["Pod", "Deployment", "StatefulSet", "ReplicaSet", "DaemonSet"])
def test_a_host_port_of_one_address_is_every_pod_s(kind: str) -> None:
    port = ContainerPort(port=80, host_port=80, host_ip=ip_address("192.0.2.1"))
    (pod,) = pods(workload(kind, template=msgspec.structs.replace(WEB, ports=(port,))), "a")
    assert pod.ports == (port,)


def test_a_stateful_sets_pods_are_numbered() -> None:
    made = Workload(kind="StatefulSet", namespace="default", name="db", replicas=2, first_ordinal=5, template=WEB)
    found = pods(made, "a")
    assert [pod.name for pod in found] == ["db-5", "db-6"]
    labels = dict(found[1].labels)
    assert labels["statefulset.kubernetes.io/pod-name"] == "db-6"
    assert labels["apps.kubernetes.io/pod-index"] == "6"
    assert labels["app"] == "web"
    assert found[0].owner == ("StatefulSet", "db")


def test_a_deployments_pods_carry_the_templates_hash_in_name_and_label() -> None:
    found = pods(workload("Deployment", 3), "a")
    (revision,) = {dict(pod.labels)["pod-template-hash"] for pod in found}
    assert len({pod.name for pod in found}) == 3
    assert all(pod.name.startswith(f"web-{revision}-") for pod in found)
    assert all(len(pod.name) == len("web-7d4b9c6f5z-x2k8p") for pod in found)


def test_another_template_makes_other_pods_and_more_replicas_keep_those_there_are() -> None:
    names = [pod.name for pod in pods(workload("Deployment", 3), "a")]
    assert [pod.name for pod in pods(workload("Deployment", 5), "a", "b")][:3] == names
    other = Template(labels=(("app", "web"), ("version", "2")))
    assert not set(names) & {pod.name for pod in pods(workload("Deployment", 3, other), "a")}


def test_ten_thousand_replicas_have_ten_thousand_names_that_fit_a_dns_label() -> None:
    names = {pod.name for pod in pods(workload("ReplicaSet", 10_000, name="x" * 80), "a")}
    assert len(names) == 10_000
    assert max(map(len, names)) == 63


def test_a_daemon_set_has_one_pod_on_each_node_and_one_more_node_changes_no_other() -> None:
    before = pods(workload("DaemonSet", 0), "a", "b", "c")
    assert [pod.node for pod in before] == ["a", "b", "c"]
    after = pods(workload("DaemonSet", 0), "a", "aa", "b", "c")
    assert [pod for pod in after if pod.node != "aa"] == before


def test_a_node_selector_leaves_the_nodes_with_those_labels() -> None:
    template = Template(node_selector=(("zone", "west"),))
    there = nodes("a", zone="east") + nodes("b", "c", zone="west", disk="ssd") + nodes("d")
    assert {pod.node for pod in expand(workload("Deployment", 10, template), there)} == {"b", "c"}
    assert [pod.node for pod in expand(workload("DaemonSet", 0, template), there)] == ["b", "c"]


def test_a_named_node_is_taken_whether_it_is_there_or_not() -> None:
    named = Template(node="b")
    assert [pod.node for pod in pods(workload("Deployment", 2, named), "a", "b")] == ["b", "b"]
    assert [pod.node for pod in pods(workload("Pod", 1, named), "a")] == ["b"]
    assert [pod.node for pod in pods(workload("DaemonSet", 0, named), "a", "b")] == ["b"]
    assert pods(workload("DaemonSet", 0, named), "a") == []


def test_without_nodes_pods_are_there_and_wait() -> None:
    assert [pod.node for pod in pods(workload("Deployment", 2))] == ["", ""]


node_names = st.sets(st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True), max_size=12)


@pytest.mark.parametrize("kind", ["Pod", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"])
@given(names=node_names, replicas=st.integers(0, 30), data=st.data())
def test_the_order_of_nodes_does_not_count(kind: str, names: set[str], replicas: int, data: st.DataObject) -> None:
    made = workload(kind, replicas)
    assert pods(made, *data.draw(st.permutations(sorted(names)))) == pods(made, *sorted(names))


@given(node_names, st.integers(0, 40), st.integers(0, 1000))
def test_replicas_are_spread_evenly(names: set[str], replicas: int, i: int) -> None:
    loads = Counter(place(owner(i), replicas, names))
    assert set(loads) <= names
    assert sum(loads.values()) == (replicas if names else 0)
    if names:
        assert {loads[name] for name in names} <= {replicas // len(names), -(-replicas // len(names))}


@given(node_names, st.from_regex(r"[A-Z]", fullmatch=True), st.integers(0, 1000))
def test_a_single_pod_moves_to_a_new_node_or_stays(names: set[str], new: str, i: int) -> None:
    before, after = place(owner(i), 1, names), place(owner(i), 1, names | {new})
    assert after in (before, [new])


@given(node_names, st.integers(0, 30), st.integers(1, 10), st.integers(0, 1000))
def test_more_replicas_move_none_of_those_there_are(names: set[str], replicas: int, more: int, i: int) -> None:
    assert place(owner(i), replicas + more, names)[:replicas] == place(owner(i), replicas, names)


def test_a_node_that_joins_or_leaves_moves_few_pods() -> None:
    ten = [f"node-{i}" for i in range(10)]
    moved = total = needed = 0
    for i in range(200):
        before, after = place(owner(i), 5, ten), place(owner(i), 5, [*ten, "node-x"])
        moved += sum(a != b for a, b in zip(before, after, strict=True))
        needed += after.count("node-x")
        total += len(before)
    # The new node's own share is a must; as many again may make room for each other.
    assert needed <= moved <= 2 * needed
    assert moved < total / 4


def test_workloads_of_one_replica_fill_all_nodes_alike() -> None:
    loads = Counter(name for i in range(2000) for name in place(owner(i), 1, [f"node-{i}" for i in range(10)]))
    assert len(loads) == 10
    assert min(loads.values()) > 140
    assert max(loads.values()) < 260


def test_placement_stays_what_it_was_or_an_upgrade_moves_every_pod() -> None:
    assert place(owner(0), 5, ["a", "b", "c"]) == ["a", "b", "c", "a", "b"]
