"""A node that is drained: no new work for it, and what it has goes on."""

from __future__ import annotations

from ipaddress import ip_network

import msgspec
import pytest
from fabric import Fabric
from kubernetes_objects import node
from test_announcements import BALANCED as ADDRESSES
from test_announcements import LOCAL, NODES, WEB, cluster, slice_on
from test_kubernetes_objects import reading
from test_service_parts import announcers, balanced, forgotten
from test_services import PODS, VIPS, both, outcomes, packet, pod_client, service, slice_of

from controller import views
from flows.compiler import Compiler
from flows.update import Update
from topology import manifest_fields as fields
from topology.announcements import Route, routes
from topology.drained import ANNOTATION, drained
from topology.manifests import parse
from topology.model import Node
from topology.yaml_tree import tree_of


def drain(compiler: Compiler, name: str, *, drained: bool = True) -> list[Update]:
    return compiler.put(msgspec.structs.replace(compiler.cluster.nodes[name], drained=drained))


# What is said of it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "said"), [("true", True), ("false", False)])
def test_an_annotation_says_that_a_node_is_drained(text: str, said: bool) -> None:
    manifest = f"apiVersion: v1\nkind: Node\nmetadata:\n  name: n\n  annotations: {{{ANNOTATION}: '{text}'}}\n"
    (declared,) = parse("f.yaml", manifest.encode()).declared
    assert isinstance(declared.value, Node) and declared.value.drained is said


@pytest.mark.parametrize("text", ["", "True", "yes", "1"])
def test_what_else_it_says_is_told_and_drains_nothing(text: str) -> None:
    problems: list[str] = []
    remarks = fields.Remarks(lambda error: problems.append(str(error)), lambda tree, note: None)
    assert not drained(tree_of({"metadata": {"annotations": {ANNOTATION: text}}}), remarks)
    assert len(problems) == 1 and 'write "true" or "false"' in problems[0]


def test_kubernetes_says_it_by_the_same_annotation() -> None:
    written = node("n", 1)
    written["metadata"]["annotations"] = {ANNOTATION: "true", "other": "yes"}
    value = reading(written).value
    assert isinstance(value, Node) and value.drained
    written["metadata"]["annotations"] = {ANNOTATION: "yes"}
    there = reading(written)
    assert isinstance(there.value, Node) and not there.value.drained and 'write "true"' in there.problems[0]


# Services -------------------------------------------------------------------------------------------------------------


def test_connections_that_it_has_go_on_and_new_ones_go_elsewhere() -> None:
    fabric = Fabric(3, PODS, [service(), slice_of(*both("b1", "c1"))])
    client = pod_client(fabric, "a1", 4)
    made = packet(client, VIPS[0], 80, sport=41000)
    (first,) = fabric.send("n1", made)
    drain(fabric.compiler, first.node)
    fabric.interpret()
    (again,) = fabric.send("n1", made)
    assert (again.node, again.port) == (first.node, first.port)
    (left,) = outcomes(fabric, client, VIPS[0], 80)
    _, kept = fabric.pod("c1" if first.node == "n2" else "b1")
    assert left == (int(kept.addresses[0]), 8080)
    drain(fabric.compiler, first.node, drained=False)
    fabric.interpret()
    assert len(outcomes(fabric, client, VIPS[0], 80)) == 2


def test_endpoints_that_only_a_slice_says_are_on_it_are_drained_with_it() -> None:
    inner = service(external_ips=(), load_balancer_ips=())
    ends = [msgspec.structs.replace(each, pod="") for each in both("b1", "c1")]
    fabric = Fabric(3, PODS, [inner, slice_of(*ends)])
    (update,) = drain(fabric.compiler, "n2")
    assert update.scope == "" and len(update.groups_added) == 2
    assert all(len(group.buckets) == 1 for group in update.groups_added)
    (back,) = fabric.compiler.remove(("Node", "", "n2"))[:1]
    assert all(len(group.buckets) == 2 for group in back.groups_added)


def test_with_every_endpoint_drained_clients_are_refused_as_if_none_were_ready() -> None:
    fabric = Fabric(2, PODS[:3], [service(), slice_of(*both("b1"))])
    drain(fabric.compiler, "n2")
    fabric.interpret()
    assert outcomes(fabric, pod_client(fabric, "a1", 4), VIPS[0], 80) == {"refused": 1}


def test_datagrams_of_clients_that_it_has_go_on_too() -> None:
    fabric = Fabric(2, PODS[:3], [service(protocol="UDP"), slice_of(*both("a1", "b1"), protocol="UDP")])
    assert forgotten(drain(fabric.compiler, "n2")) == set()
    # And when it is gone in earnest, they are cut loose.
    gone = slice_of(*both("a1"), protocol="UDP")
    assert "10.244.2.2:8080" in forgotten(fabric.compiler.put(gone))


def test_who_wants_endpoints_that_aren_t_ready_has_those_too() -> None:
    fabric = Fabric(2, PODS[:3], [service(publish_not_ready=True), slice_of(*both("b1"))])
    drain(fabric.compiler, "n2")
    fabric.interpret()
    (there,) = outcomes(fabric, pod_client(fabric, "a1", 4), VIPS[0], 80)
    assert there == (int(fabric.pod("b1")[1].addresses[0]), 8080)


def test_an_endpoint_s_row_says_so() -> None:
    fabric = Fabric(3, PODS, [service(), slice_of(*both("b1", "c1", terminating=True))])
    drain(fabric.compiler, "n2")
    rows = {(row["node"], row["status"], row["used"]) for row in views.endpoints(fabric.compiler)}
    assert rows == {("n2", "Drained", False), ("n3", "Ready,Terminating", True)}


# Addresses ------------------------------------------------------------------------------------------------------------


def test_it_answers_for_no_address_and_those_that_were_its_own_are_others() -> None:
    compiler = Fabric(4, [], balanced(20)).compiler
    addresses = [ADDRESSES[0] + index for index in range(20)]
    before = announcers(compiler, addresses)
    drain(compiler, "n2")
    after = announcers(compiler, addresses)
    assert "n2" in before and "n2" not in after and "" not in after
    assert all(new == old or old == "n2" for old, new in zip(before, after, strict=True))
    for name in ("n1", "n3", "n4"):
        drain(compiler, name)
    assert set(announcers(compiler, addresses)) == {""}


def test_routers_are_told_others_and_still_the_way_to_its_pods() -> None:
    maintained = [msgspec.structs.replace(NODES[0], drained=True), *NODES[1:]]
    here = cluster(*maintained, WEB)
    found = {route.prefix: route for route in routes(here)}
    assert all(found[cidr].owner == "Node/node-1" for cidr in NODES[0].pod_cidrs)
    compiler = Compiler()
    for _ in compiler.take([*maintained, WEB], []):
        pass
    for address in ADDRESSES:
        answering = compiler.cluster.nodes[compiler.services.announcer(address)]
        hop = next(each for each in answering.addresses if each.version == address.version)
        assert found[ip_network(address)] == Route(ip_network(address), (hop,), "Service/default/web")
        assert answering.name != "node-1"
    local = {str(route.prefix): route.next_hops for route in routes(cluster(*maintained, LOCAL, slice_on(1, 3)))}
    assert local["198.51.100.10/32"] == (NODES[2].addresses[0],)
    nobody = [msgspec.structs.replace(each, drained=True) for each in NODES]
    assert {route.owner for route in routes(cluster(*nobody, WEB))} == {f"Node/{each.name}" for each in NODES}
