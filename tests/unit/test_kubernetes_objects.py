"""Objects as the API server has them, read into the model; and what Services are given beside it."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from kubernetes_objects import (
    Json,
    cluster_policy,
    endpoint_slice,
    meta,
    namespace,
    network_policy,
    node,
    pod,
    service,
    workload,
)

from topology.kubernetes.objects import READERS, Reading, Unreadable
from topology.kubernetes.reflector import Found, Gone
from topology.kubernetes.state import Batch, KubernetesState
from topology.manifests import parse
from topology.model import ContainerPort, Endpoint, EndpointSlice, Key, Namespace, Node, Pod, Service
from topology.policies import Action, Policy, Tier
from topology.services import ServiceRanges
from topology.workloads import PortWorkload


def found(written: Json) -> Found:
    data = json.dumps({key: value for key, value in written.items() if key != "kind"})
    return READERS[written["kind"]](msgspec.Raw(data.encode()))


def reading(written: Json) -> Reading:
    value = found(written).value
    assert isinstance(value, Reading)
    return value


class Clusters:
    """A state, and the model that its batches have come to."""

    def __init__(self, **ranges: Any) -> None:
        self.state = KubernetesState(ServiceRanges(**ranges))
        self.model: dict[Key, Any] = {}
        self.put(namespace("default"))

    def put(self, *written: Json) -> Batch:
        for each in written:
            self.state.take(each["kind"], [found(each)])
        return self.collect()

    def remove(self, kind: str, namespace: str, name: str) -> Batch:
        self.state.take(kind, [Gone(namespace, name)])
        return self.collect()

    def collect(self) -> Batch:
        batch = self.state.collect()
        for key in batch.gone:
            self.model.pop(key, None)
        self.model |= {each.key: each for each in batch.changed}
        return batch

    def service(self, name: str) -> Service:
        found = self.model["Service", "default", name]
        assert isinstance(found, Service)
        return found

    @property
    def problems(self) -> list[str]:
        return list(map(str, self.state.problems()))


@pytest.fixture
def cluster() -> Clusters:
    return Clusters()


# Nodes, namespaces, pods ----------------------------------------------------------------------------------------------


def test_a_node_is_its_internal_addresses_its_cidrs_and_its_labels() -> None:
    value = reading(node("n", 1)).value
    assert isinstance(value, Node)
    assert value.addresses == (ip_address("192.0.2.1"),)
    assert value.pod_cidrs == (ip_network("10.244.1.0/24"), ip_network("fd00:244:1::/64"))
    assert value.labels == (("kubernetes.io/hostname", "n"), ("zone", "z1"))


def test_a_node_without_internal_addresses_is_reached_by_its_external_ones() -> None:
    written = node("n", 1)
    written["status"]["addresses"] = [each for each in written["status"]["addresses"] if each["type"] != "InternalIP"]
    value = reading(written).value
    assert isinstance(value, Node) and value.addresses == (ip_address("198.51.100.1"),)


def test_a_node_that_has_just_joined_has_nothing_yet() -> None:
    value = reading({"kind": "Node", "metadata": meta("n")}).value
    assert value == Node(name="n", addresses=(), pod_cidrs=(), labels=(("kubernetes.io/hostname", "n"),))


def test_what_a_node_says_of_its_network_is_kept_for_writing() -> None:
    condition = {"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated", "message": "wait"}
    about = reading(node("n", 1, conditions=[{"type": "Ready", "status": "True"}, condition])).about
    assert about.condition is not None and about.condition.status == "True"


def test_a_namespace_has_its_labels_and_what_it_wants_logged() -> None:
    value = reading(namespace("team", annotations={"signalbox.io/log": "deny"})).value
    assert isinstance(value, Namespace) and value.log_denied and not value.log_allowed
    assert dict(value.labels) == {"team": "team", "kubernetes.io/metadata.name": "team"}
    wrong = reading(namespace("team", annotations={"signalbox.io/log": "everything"}))
    assert "signalbox.io/log is 'everything'" in wrong.problems[0]


def test_a_pod_is_what_policies_and_ports_need_of_it() -> None:
    spec = {
        "containers": [
            {"name": "a", "ports": [{"containerPort": 80, "name": "web", "protocol": "TCP", "hostPort": 8080}]},
            {"name": "b", "ports": [{"containerPort": 53, "protocol": "UDP", "hostPort": 53, "hostIP": "127.0.0.1"}]},
        ],
        "initContainers": [
            {"name": "setup", "ports": [{"containerPort": 1}]},
            {"name": "sidecar", "restartPolicy": "Always", "ports": [{"containerPort": 2}]},
        ],
    }
    value = reading(
        pod("default", "p", "n1", ["10.244.1.2", "fd00:244:1::2"], labels={"b": "2", "a": "1"}, spec=spec)
    ).value
    assert value == Pod(
        namespace="default",
        name="p",
        node="n1",
        labels=(("a", "1"), ("b", "2")),
        addresses=(ip_address("10.244.1.2"), ip_address("fd00:244:1::2")),
        ports=(
            ContainerPort(port=80, name="web", host_port=8080),
            ContainerPort(port=53, protocol="UDP", host_port=53, host_ip=ip_address("127.0.0.1")),
            ContainerPort(port=2),
        ),
        ready=True,
    )


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_is_gone(cluster: Clusters, phase: str) -> None:
    cluster.put(pod("default", "p"))
    assert cluster.put(pod("default", "p", phase=phase)).gone == [("Pod", "default", "p")]


def test_a_pod_that_is_ending_says_so_and_is_there() -> None:
    ending = reading(pod("default", "p", ready=False, deletionTimestamp="2026-01-01T00:00:00Z")).value
    assert isinstance(ending, Pod) and ending.terminating and not ending.ready


def test_a_pod_waits_for_its_namespace(cluster: Clusters) -> None:
    assert cluster.put(pod("team", "p")).changed == []
    assert {each.key for each in cluster.put(namespace("team")).changed} == {
        ("Namespace", "", "team"),
        ("Pod", "team", "p"),
    }


# Policies -------------------------------------------------------------------------------------------------------------


def test_a_policy_means_what_the_same_text_means_in_a_manifest() -> None:
    written = network_policy(
        "default",
        "p",
        podSelector={"matchLabels": {"app": "db"}},
        ingress=[
            {
                "from": [
                    {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}},
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                    {"namespaceSelector": {}},
                ],
                "ports": [{"port": 5432}, {"protocol": "UDP", "port": 1000, "endPort": 2000}, {"port": "web"}],
            }
        ],
    )
    manifest = parse("f", json.dumps({"apiVersion": "networking.k8s.io/v1"} | written).encode())
    assert reading(written).value == manifest.declared[0].value
    assert reading(written).problems == ()


def test_a_policy_of_the_cluster_is_read() -> None:
    value = reading(
        cluster_policy("c", ingress=[{"action": "Deny", "from": [{"namespaces": {"matchLabels": {"a": "b"}}}]}])
    ).value
    assert isinstance(value, Policy) and (value.tier, value.priority) == (Tier.ADMIN, 10)
    assert value.ingress is not None and value.ingress[0].action is Action.DENY


def test_a_policy_that_is_not_understood_is_closed_and_said(cluster: Clusters) -> None:
    cluster.put(network_policy("default", "p", ingress=[{"from": [{"somebodySelector": {}}]}]))
    value = cluster.model["NetworkPolicy", "default", "p"]
    assert value.fault and value.ingress == ()
    assert len(cluster.problems) == 1
    assert cluster.problems[0].startswith("NetworkPolicy default/p: spec.ingress[0].from[0].somebodySelector is not")
    cluster.put(network_policy("default", "p", ingress=[{}]))
    assert cluster.problems == []


def test_what_cant_be_read_stays_as_it_was(cluster: Clusters) -> None:
    cluster.put(network_policy("default", "p"), service("default", "s", "10.96.0.1"))
    before = dict(cluster.model)
    broken = service("default", "s", "10.96.0.2", ports=[{"port": "eighty"}])
    assert cluster.put(network_policy("default", "p", podSelector={"x": 1}), broken).changed == []
    assert cluster.model == before
    assert len(cluster.problems) == 2 and all("stays in force" in each for each in cluster.problems)
    cluster.remove("NetworkPolicy", "default", "p")
    cluster.remove("Service", "default", "s")
    assert cluster.problems == [] and len(cluster.model) == 1


def test_a_workload_is_a_pod_and_means_what_the_same_text_means_in_a_manifest(cluster: Clusters) -> None:
    written = workload("default", "db", ports=[{"port": 5432, "name": "sql"}], dhcp=True)
    cluster.put(written)
    (declared,) = parse("f.yaml", json.dumps({"apiVersion": "signalbox.io/v1alpha1", **written}).encode()).declared
    assert isinstance(declared.value, PortWorkload)
    assert cluster.model["Pod", "default", "db"] == declared.value.pod
    assert cluster.state.objects()["Pod", "default", "db"] == declared.value.pod
    assert not cluster.state.problems()
    cluster.remove("Workload", "default", "db")
    assert ("Pod", "default", "db") not in cluster.model


def test_a_workload_waits_for_its_namespace(cluster: Clusters) -> None:
    cluster.put(workload("late", "db"))
    assert ("Pod", "late", "db") not in cluster.model
    cluster.put(namespace("late"))
    assert ("Pod", "late", "db") in cluster.model


def test_of_a_pod_and_a_workload_of_one_name_the_pod_is_there_and_it_is_said(cluster: Clusters) -> None:
    batch = cluster.put(workload("default", "db"), pod("default", "db", "n1", ["10.244.1.7"]))
    assert cluster.model["Pod", "default", "db"].port == ""
    said = "has the name of Pod default/db, and both are pods to Services and policies; rename one"
    assert [str(problem) for problem in batch.problems] == [f"Workload default/db: {said}"]
    batch = cluster.remove("Pod", "default", "db")
    assert cluster.model["Pod", "default", "db"].port == "vnet0" and not batch.problems


def test_a_workload_that_can_t_be_read_stays_as_it_was_and_it_is_said(cluster: Clusters) -> None:
    cluster.put(workload("default", "db"))
    batch = cluster.put(workload("default", "db", port="sb-gw0"))
    assert cluster.model["Pod", "default", "db"].port == "vnet0"
    assert "spec.port is sb-gw0, a port that the node's agent makes" in str(batch.problems[0])


def test_an_object_without_a_name_is_none() -> None:
    with pytest.raises(msgspec.MsgspecError):
        READERS["Pod"](msgspec.Raw(b'{"metadata":{}}'))
    assert isinstance(reading({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": 1}}).value, Unreadable)


# Services and endpoints -----------------------------------------------------------------------------------------------


def test_a_service_is_what_the_api_server_has_given_it(cluster: Clusters) -> None:
    cluster.put(
        service(
            "default",
            "s",
            "10.96.0.1",
            clusterIPs=["10.96.0.1", "fd00:10:96::1"],
            type="LoadBalancer",
            ports=[{"port": 80, "protocol": "TCP", "targetPort": "http", "nodePort": 30080, "name": "web"}],
            externalTrafficPolicy="Local",
            healthCheckNodePort=32000,
            internalTrafficPolicy="Local",
            sessionAffinity="ClientIP",
            sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
            loadBalancerSourceRanges=["192.0.2.0/24"],
            trafficDistribution="PreferClose",
            externalIPs=["203.0.113.9"],
        )
    )
    value = cluster.service("s")
    assert value.cluster_ips == (ip_address("10.96.0.1"), ip_address("fd00:10:96::1"))
    assert value.ports[0].node_port == 30080 and value.health_check_node_port == 32000
    assert value.external_local and value.internal_local and value.affinity_seconds == 60
    assert value.source_ranges == (ip_network("192.0.2.0/24"),) and value.distribution == "PreferSameZone"
    assert value.external_ips == (ip_address("203.0.113.9"),) and value.load_balancer_ips == ()
    # Kubernetes' own controller writes into EndpointSlices what the selector selects.
    assert value.selector is None


@pytest.mark.parametrize("spec", [{"clusterIP": "None", "clusterIPs": ["None"]}, {"type": "ExternalName"}])
def test_a_service_without_an_address_is_not_programmed(cluster: Clusters, spec: Json) -> None:
    cluster.put(service("default", "s", "10.96.0.1"))
    assert cluster.put(service("default", "s", "", **spec)).gone == [("Service", "default", "s")]


def test_a_source_range_that_is_none_does_not_open_a_service(cluster: Clusters) -> None:
    cluster.put(service("default", "s", "10.96.0.1", type="LoadBalancer", loadBalancerSourceRanges=["everybody"]))
    assert ("Service", "default", "s") not in cluster.model and "everybody" in cluster.problems[0]


def test_endpoints_are_as_their_slice_says() -> None:
    written = endpoint_slice("default", "s-1", "s")
    written["endpoints"] = [
        {
            "addresses": ["10.244.1.2"],
            "conditions": {"ready": False, "serving": True, "terminating": True},
            "nodeName": "n1",
            "zone": "z",
            "targetRef": {"kind": "Pod", "name": "p"},
            "hints": {"forZones": [{"name": "z"}]},
        },
        {"addresses": ["10.244.1.3"], "conditions": {}},
        {"addresses": ["127.0.0.1"]},
    ]
    written["ports"] = [{"name": None, "port": 8080}, {"name": "all", "port": None}]
    read = reading(written)
    assert isinstance(read.value, EndpointSlice)
    (subset,) = read.value.subsets
    assert [(each.name, each.port, each.protocol) for each in subset.ports] == [("", 8080, "TCP")]
    assert subset.endpoints == (
        Endpoint(
            address=ip_address("10.244.1.2"),
            node="n1",
            zone="z",
            pod="p",
            ready=False,
            serving=True,
            terminating=True,
            zones=("z",),
        ),
        Endpoint(address=ip_address("10.244.1.3")),
    )
    assert "127.0.0.1" in read.problems[0]


def test_a_slice_without_endpoints_or_of_names_is_read() -> None:
    empty = reading(endpoint_slice("default", "s-1", "s") | {"ports": None}).value
    assert isinstance(empty, EndpointSlice) and empty.subsets[0].endpoints == ()
    assert reading(endpoint_slice("default", "s-1", "s") | {"addressType": "FQDN"}).value is None


# Load balancers -------------------------------------------------------------------------------------------------------


def balanced(name: str, *status: str, **spec: Any) -> Json:
    ingress = {"loadBalancer": {"ingress": [{"ip": each} for each in status]}}
    return service("default", name, f"10.96.1.{sum(map(ord, name)) % 250}", type="LoadBalancer", status=ingress, **spec)


@pytest.fixture
def pooled() -> Clusters:
    return Clusters(load_balancer=(ip_network("203.0.113.0/29"),))


def given(cluster: Clusters, name: str) -> list[str]:
    return [str(each) for each in cluster.service(name).load_balancer_ips]


def test_a_load_balancer_has_an_address_of_the_pool_which_its_status_is_owed(pooled: Clusters) -> None:
    pooled.put(balanced("a"))
    (address,) = given(pooled, "a")
    assert ip_address(address) in ip_network("203.0.113.0/29")
    assert pooled.state.owed == {("Service", "default", "a")}
    pooled.put(balanced("a", address))
    assert pooled.state.owed == set() and given(pooled, "a") == [address]


def test_after_a_restart_a_load_balancer_has_what_its_status_says() -> None:
    for first in ("203.0.113.1", "203.0.113.5"):
        anew = Clusters(load_balancer=(ip_network("203.0.113.0/29"),))
        anew.put(balanced("b"), balanced("a", first))
        assert given(anew, "a") == [first] != given(anew, "b")


def test_a_load_balancer_keeps_its_address_whoever_writes_another_into_its_status(pooled: Clusters) -> None:
    pooled.put(balanced("a"))
    mine = given(pooled, "a")
    other = "203.0.113.1" if mine != ["203.0.113.1"] else "203.0.113.2"
    pooled.put(balanced("a", other))
    assert given(pooled, "a") == mine and pooled.state.owed == {("Service", "default", "a")}


def test_one_that_finds_the_pool_empty_is_served_when_another_goes(pooled: Clusters) -> None:
    pooled.put(*(balanced(name) for name in "abcdef"))
    assert len({given(pooled, name)[0] for name in "abcdef"}) == 6
    pooled.put(balanced("g"))
    assert given(pooled, "g") == [] and pooled.service("g").cluster_ips
    assert "no load balancer's address is free in 203.0.113.0/29" in pooled.problems[0]
    freed = given(pooled, "c")
    pooled.remove("Service", "default", "c")
    assert given(pooled, "g") == freed and pooled.problems == []


def test_an_address_that_is_asked_for_is_had_or_none(pooled: Clusters) -> None:
    pooled.put(balanced("a", loadBalancerIP="203.0.113.3"))
    assert given(pooled, "a") == ["203.0.113.3"]
    pooled.put(balanced("b", loadBalancerIP="203.0.113.3"))
    assert given(pooled, "b") == [] and "is Service default/a's already" in pooled.problems[0]
    # Of other ports, two may have one address.
    pooled.put(balanced("b", loadBalancerIP="203.0.113.3", ports=[{"port": 443, "protocol": "TCP"}]))
    assert given(pooled, "b") == ["203.0.113.3"] and pooled.problems == []
    pooled.put(balanced("c", loadBalancerIP="198.51.100.1"))
    assert given(pooled, "c") == [] and "is in no pool" in pooled.problems[0]


def test_of_several_one_gives_addresses_and_the_others_wait_for_the_status(pooled: Clusters) -> None:
    pooled.state.lead(False)
    pooled.put(balanced("a"), balanced("b", loadBalancerIP="203.0.113.3"))
    assert given(pooled, "a") == given(pooled, "b") == [] and pooled.service("a").cluster_ips
    assert pooled.problems == []
    pooled.put(balanced("b", "203.0.113.3", loadBalancerIP="203.0.113.3"))
    assert given(pooled, "b") == ["203.0.113.3"]
    pooled.state.lead(True)
    assert pooled.state.pending
    pooled.collect()
    assert len(given(pooled, "a")) == 1 and given(pooled, "b") == ["203.0.113.3"]


def test_an_address_of_an_asked_for_family_that_a_service_doesn_t_have_is_refused(pooled: Clusters) -> None:
    pooled.put(balanced("a", loadBalancerIP="2001:db8::1"))
    assert given(pooled, "a") == [] and "2001:db8::1 is of no family of the Service" in pooled.problems[0]


def test_one_that_has_led_takes_what_its_successor_has_told_also_crosswise(pooled: Clusters) -> None:
    pooled.put(balanced("a"), balanced("b"))
    first, second = given(pooled, "a"), given(pooled, "b")
    assert first != second
    # What it gave it couldn't tell any more, and the next one has given it the other way round.
    pooled.state.lead(False)
    pooled.put(balanced("a", *second))
    assert (given(pooled, "a"), given(pooled, "b")) == (second, [])
    pooled.put(balanced("b", *first))
    assert (given(pooled, "a"), given(pooled, "b")) == (second, first)
    assert pooled.state.owed == set() and pooled.problems == []


@settings(max_examples=200, deadline=None)
@hypothesis.given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["put", "remove", "see", "lead"])), max_size=40)
)
# e's status names what the other replica gave c, which loses it later.
@hypothesis.example([("a", "put"), ("e", "put"), ("a", "lead"), ("c", "put"), ("a", "remove"), ("a", "lead")])
def test_whoever_leads_in_between_all_replicas_end_with_the_same_addresses(acts: list[tuple[str, str]]) -> None:
    """Two replicas; what one hears the other may hear later, and only the leader's statuses are written."""
    replicas = [Clusters(load_balancer=(ip_network("203.0.113.0/29"),)) for _ in range(2)]
    there: dict[str, tuple[str, ...]] = {}
    leader = 0

    def see(which: int) -> None:
        here = replicas[which]
        for name in [name for _, _, name in here.model if name not in there and name != "default"]:
            here.remove("Service", "default", name)
        here.put(*(balanced(name, *status) for name, status in sorted(there.items())))

    def lead(which: int) -> None:
        nonlocal leader
        leader = which
        for number, each in enumerate(replicas):
            each.state.lead(number == which)

    def tell() -> None:
        for _, _, name in replicas[leader].state.owed:
            if name in there:
                there[name] = tuple(map(str, replicas[leader].state.ingress(("Service", "default", name))))

    lead(0)
    for name, act in acts:
        match act:
            case "put":
                there.setdefault(name, ())
                see(leader)
            case "remove":
                there.pop(name, None)
            case "see":
                see(ord(name) % 2)
            case "lead":
                lead(1 - leader)
        if name in "abc":
            tell()
    for _ in range(4):
        for number in (0, 1):
            see(number)
            replicas[number].collect()
        tell()
    found = [{name: given(each, name) for name in there} for each in replicas]
    assert found[0] == found[1] == {name: list(status) for name, status in there.items()}
    flat = [address for each in found[0].values() for address in each]
    assert len(flat) == len(set(flat)) == min(len(there), 6)


def test_a_service_that_is_no_load_balancer_any_more_loses_its_address(pooled: Clusters) -> None:
    pooled.put(balanced("a"))
    (address,) = given(pooled, "a")
    pooled.put(balanced("a", address) | {"spec": service("default", "a", "10.96.0.1")["spec"]})
    assert given(pooled, "a") == []
    assert pooled.state.owed == {("Service", "default", "a")}
    assert pooled.state.ingress(("Service", "default", "a")) == ()


def test_without_a_pool_or_of_another_class_the_status_counts_and_nothing_is_owed(
    cluster: Clusters, pooled: Clusters
) -> None:
    cluster.put(balanced("a", "198.51.100.7"))
    pooled.put(balanced("a", "198.51.100.7", loadBalancerClass="example.com/other"))
    for each in (cluster, pooled):
        assert given(each, "a") == ["198.51.100.7"] and each.state.owed == set()
    proxied = balanced("a")
    proxied["status"]["loadBalancer"]["ingress"] = [{"ip": "198.51.100.7", "ipMode": "Proxy"}, {"hostname": "x"}]
    cluster.put(proxied)
    assert given(cluster, "a") == []


def test_an_external_address_that_is_a_nodes_is_left_out_for_as_long(cluster: Clusters) -> None:
    written = service("default", "s", "10.96.0.1", externalIPs=["192.0.2.1", "203.0.113.9", "10.96.0.77"])
    cluster.put(written)
    assert [str(each) for each in cluster.service("s").external_ips] == ["192.0.2.1", "203.0.113.9"]
    cluster.put(node("n", 1))
    assert [str(each) for each in cluster.service("s").external_ips] == ["203.0.113.9"]
    assert "external address 192.0.2.1 is of node n or of its pods: left out" in "\n".join(cluster.problems)
    cluster.remove("Node", "", "n")
    assert len(cluster.service("s").external_ips) == 2
