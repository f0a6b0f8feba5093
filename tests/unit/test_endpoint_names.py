"""What a flow's numbers stand for of Services is looked up one by one: the same as by tables of the whole cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import pytest
from fabric import Fabric
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compiler import Step, put, services, slices, steps
from test_services import NODE_PORT, PODS, VIPS, endpoint, service, slice_of

from controller.flow_views import Told, Wanted, flows
from controller.views import EndpointNames, group_words
from flows import services as flow_services
from flows.compiler import Compiler
from flows.cookies import LEARNT_OWNER
from flows.numbers import _first as first_hash
from flows.openflow.messages import FlowStats
from flows.pipeline import AFFINITY, SERVICE
from flows.service_parts import ServiceParts
from flows.services import PortView
from flows.tables.service import stats_flow
from flows.update import CLUSTER
from flows.values import DROP, Ct, Flow, ToGroup
from topology.endpoints import Backend
from topology.manifests import object_words
from topology.model import Key, Object, Service, ServicePort

#: Group ids from here up are the fabric's (`flows.fabric_parts`).
FABRIC_GROUPS = 0xC0000000


def all_owners(compiler: Compiler) -> dict[int, Key]:
    """Of each number of a Service's port, or of a group that chooses for it, the Service."""
    parts = compiler.services
    return {
        parts._numbers(title): found.key
        for found in compiler.cluster.services.values()
        for view in flow_services.views(compiler.cluster, found)
        for title in (view.title, *flow_services.titles(view))
    }


def all_endpoints(compiler: Compiler) -> dict[int, str]:
    """Every Service's endpoints by what their connections keep of them."""
    names = {}
    for found in compiler.cluster.services.values():
        for view in flow_services.views(compiler.cluster, found):
            for each in view.found:
                pod = f" (pod {found.namespace}/{each.endpoint.pod})" if each.endpoint.pod else ""
                address = f"{each.address}" if each.address.version == 4 else f"[{each.address}]"
                label = compiler.services._numbers(view.title) << 32 | view.numbers[each.order]
                names[label] = f"{address}:{each.port}{pod}"
    return names


def assert_found_one_by_one(compiler: Compiler, before: Iterable[int] = ()) -> set[int]:
    """`before`: what there was once, too. What there is now comes back."""
    owners, endpoints, names = all_owners(compiler), all_endpoints(compiler), EndpointNames(compiler)
    # No endpoint's: those of another Service, and what isn't one at all.
    labels = {*before, *endpoints, 0, 7, *(number << 32 | 5 for number in owners), *(each + 1 for each in endpoints)}
    assert {label: names(label) for label in labels} == {label: endpoints.get(label) for label in labels}
    for number in {label >> 32 for label in labels} | owners.keys():
        owner = compiler.services.owner(number)
        assert (owner.key if owner is not None else None) == owners.get(number)
    return {*endpoints, *(number << 32 for number in owners)}


_EVENTS = st.lists(st.one_of(services().map(put), slices().map(put), steps()), max_size=25)


def _replay(events: list[Step]) -> None:
    compiler, seen = Compiler(), set[int]()
    for event in events:
        event(compiler)
        seen |= assert_found_one_by_one(compiler, seen)


@settings(max_examples=150, deadline=None)
@given(_EVENTS)
def test_whatever_happens_each_endpoint_and_owner_is_found_as_by_the_whole_table(events: list[Step]) -> None:
    _replay(events)


def test_they_are_found_too_where_numbers_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.numbers._first", lambda title: 1 + first_hash(title) % 5)
    settings(max_examples=100, deadline=None)(given(_EVENTS)(_replay))()


def several(count: int) -> Compiler:
    """Services s0, s1 and so on, each of an address and a port of its own, of the same two pods."""
    bare = {"external_ips": (), "load_balancer_ips": (), "affinity_seconds": 60}
    objects: list[Object] = []
    for index in range(count):
        ports, name = (ServicePort(port=80, target=8080, node_port=NODE_PORT + index),), f"s{index}"
        made = service(name=name, cluster_ips=(VIPS[0] + index,), ports=ports, **bare)
        ends = slice_of(endpoint("a1", 4), endpoint("b1", 4), name=f"{name}-1")
        objects += [made, msgspec.structs.replace(ends, service=name)]
    return Fabric(3, PODS, objects).compiler


def test_only_services_of_flows_that_are_told_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = several(8)
    endpoints = {label: words for label, words in all_endpoints(compiler).items() if owner_of(compiler, label) == "s5"}
    looked_at: list[str] = []
    endpoints_of = ServiceParts.endpoints_of

    def noticed(self: ServiceParts, found: Service) -> Iterator[tuple[PortView, Backend, tuple[int, int], bool]]:
        looked_at.append(found.name)
        return endpoints_of(self, found)

    monkeypatch.setattr(ServiceParts, "endpoints_of", noticed)
    told = Told(compiler, "n1")
    assert not looked_at
    rows = [told.row(_stats(stats_flow(label >> 32, label & 0xFFFF_FFFF, 0))) for label in endpoints]
    caught = [row["words"].partition(": ")[0] for row in rows]
    assert caught == [f"of a connection to {words}" for words in endpoints.values()]
    assert len(rows) == 2 and looked_at == ["s5"]


def owner_of(compiler: Compiler, label: int) -> str:
    return all_owners(compiler)[label >> 32][2]


def test_what_a_switch_has_learnt_is_its_service_s_and_nobody_s_when_the_service_has_gone() -> None:
    compiler = several(2)
    owners = {number: object_words(key) for number, key in all_owners(compiler).items()}
    dump = [_stats(Flow(AFFINITY.number, 200, (), DROP, LEARNT_OWNER << 56 | number)) for number in owners]

    def objects() -> dict[int, str]:
        rows = flows(compiler, "n1", dump, Wanted())
        return {int(row["cookie"], 16) & 0xFFFF_FFFF: row["object"] for row in rows}

    assert objects() == owners and set(owners.values()) == {"Service default/s0", "Service default/s1"}
    compiler.remove(("Service", "default", "s1"))
    left = {number: words if words == "Service default/s0" else "" for number, words in owners.items()}
    assert objects() == left


def _stats(flow: Flow) -> FlowStats:
    return FlowStats(flow.table, flow.priority, flow.cookie, flow, 0, 0, 0.0, b"")


# What groups choose among ---------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(_EVENTS)
def test_a_group_is_told_by_the_endpoints_that_its_buckets_send_to(events: list[Step]) -> None:
    compiler = Compiler()
    for event in events:
        event(compiler)
    for node in ("n1", "n2", "n3"):
        for group in (*compiler.groups(CLUSTER), *compiler.groups(node)):
            service, chosen = compiler.services.owner(group.group_id), compiler.services.chosen_by(group.group_id, node)
            if service is None:
                assert group.group_id >= FABRIC_GROUPS and not chosen
                continue
            assert len(chosen) == len(group.buckets)
            if not service.affinity_seconds:
                sent_to = [act.nat for bucket in group.buckets for act in bucket.program if isinstance(act, Ct)]
                wanted = [(int(each.address), each.port) for each in chosen]
                assert sorted((nat.address_min, nat.port_min) for nat in sent_to if nat is not None) == wanted


def test_of_a_group_a_few_endpoints_are_told_and_how_many_more_there_are() -> None:
    ends = [endpoint("a1", 4), endpoint("a2", 4), endpoint("b1", 4), endpoint("c1", 4)]
    there = [slice_of(*ends[:count]) for count in (3, 4)]
    compiler = Fabric(3, PODS, [service(), there[0]]).compiler
    few = "10.244.1.2:8080 (pod default/a1) or 10.244.1.3:8080 (pod default/a2) or 10.244.2.2:8080 (pod default/b1)"
    (group,) = compiler.groups(CLUSTER)

    def words() -> str:
        flow = Flow(SERVICE.number, 300, (), (ToGroup(group.group_id),), 0)
        found: str = Told(compiler, "n1").row(_stats(flow))["words"]
        return found

    assert words() == f"everything else: have group {group.group_id} choose {few}"
    compiler.put(there[1])
    assert words() == f"everything else: have group {group.group_id} choose {few} (and 1 more)"
    compiler.remove(("Service", "default", "web"))
    assert words() == f"everything else: have group {group.group_id} choose"


def test_a_group_of_a_node_s_own_endpoints_is_told_by_those() -> None:
    ends = slice_of(*(endpoint(pod, 4) for pod in ("a1", "b1", "c1")))
    compiler = Fabric(3, PODS, [service(internal_local=True), ends]).compiler
    told = {}
    for node in ("n1", "n2"):
        (own,) = compiler.groups(node)
        told[node] = group_words(compiler, node, own.group_id)
    assert told == {"n1": "10.244.1.2:8080 (pod default/a1)", "n2": "10.244.2.2:8080 (pod default/b1)"}
