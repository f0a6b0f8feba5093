"""What a scrape is answered: everything that is declared, of a switch that is there and one that isn't."""

from __future__ import annotations

import time

from fake_switch import FakeSwitch, Wire
from msgspec import structs
from policy_objects import policy
from prometheus_client.parser import text_string_to_metric_families
from test_sync import UPLINKS, node, pod, pod_port, snapshot, started
from test_sync_services import service

from controller.app import Controller
from controller.metrics import DECLARED, exposition
from topology.naming import object_id
from topology.policies import PodSet


def samples(controller: Controller) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition(controller).decode())
        for sample in family.samples
    }


def connected() -> tuple[Controller, Wire]:
    controller = started(node(1), node(2), pod("a", 1))
    wire = Wire(controller, FakeSwitch(node(1).datapath_id, (*UPLINKS, pod_port("a", 1))))
    wire.pump()
    return controller, wire


def test_a_scrape_tells_each_switch() -> None:
    controller, _ = connected()
    found = samples(controller)
    assert found["signalbox_switch_connected", frozenset({("node", "n1")})] == 1
    assert found["signalbox_switch_connected", frozenset({("node", "n2")})] == 0
    assert found["signalbox_switch_phase", frozenset({("node", "n1"), ("phase", "Synced")})] == 1
    assert found["signalbox_switch_flows", frozenset({("node", "n1")})] > 0
    assert found["signalbox_switch_flow_mods_total", frozenset({("node", "n1")})] > 0
    assert found["signalbox_objects", frozenset({("kind", "nodes")})] == 2


def test_a_change_is_measured_until_the_last_switch_has_it() -> None:
    controller, wire = connected()
    key = ("signalbox_change_installed_seconds_count", frozenset({("source", "object")}))
    before = samples(controller).get(key, 0)
    controller.take(snapshot(node(1), node(2), node(3), pod("a", 1)))
    assert controller.propagation.under_way == 1 and samples(controller).get(key, 0) == before
    wire.pump()
    assert controller.propagation.under_way == 0 and samples(controller)[key] == before + 1


def test_every_metric_is_declared_and_every_declared_one_is_told() -> None:
    controller, _ = connected()
    told = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_string_to_metric_families(exposition(controller).decode())
    }
    assert told == {each.name for each in DECLARED}


def test_what_services_and_policies_have_carried_is_counted_each_by_itself_and_others_together() -> None:
    controller = started(node(1), service("web"))
    statistics = controller.statistics
    statistics.tell_apart(1)
    statistics.services_carried.add({object_id("Service", "default", "web"): (1, 2, 300), 7: (5, 6, 7)})
    found = samples(controller)
    web, others = (
        frozenset({("namespace", "default"), ("service", "web")}),
        frozenset({("namespace", ""), ("service", "")}),
    )
    for what, counts in (("connections", (1, 5)), ("packets", (2, 6)), ("bytes", (300, 7))):
        assert tuple(found[f"signalbox_service_{what}_total", which] for which in (web, others)) == counts


def test_what_a_policy_drops_is_counted_by_its_flows() -> None:
    guard = policy("guard", namespace="default", subjects=PodSet((), "default"), ingress=())
    controller = started(node(1), pod("a", 1), guard)
    switch = FakeSwitch(node(1).datapath_id, (*UPLINKS, pod_port("a", 1)))
    wire = Wire(controller, switch)
    wire.pump()
    flows = list(controller.compiler.policies.flows_of(guard.key))
    for packets in (10, 13):
        switch.met = {each.key: (packets, packets, 1000) for each in flows}
        controller.statistics.look(time.monotonic(), everyone=True)
        wire.pump()
    labels = {"kind": guard.kind, "namespace": guard.namespace, "policy": "guard"}
    found = samples(controller)
    denied, allowed = (
        found["signalbox_policy_packets_total", frozenset((labels | {"verdict": each}).items())]
        for each in ("denied", "allowed")
    )
    assert (denied, allowed) == (3 * len(flows), 0)


def test_a_name_with_quotes_and_line_ends_breaks_no_line() -> None:
    controller = started(structs.replace(node(1), name='n"1\\\n'))
    assert samples(controller)["signalbox_switch_connected", frozenset({("node", 'n"1\\\n')})] == 0


def test_how_long_a_change_waited_to_be_taken_is_told_where_its_source_says_when_it_was() -> None:
    controller = started(node(1))
    key = ("signalbox_source_latency_seconds_count", frozenset[tuple[str, str]]())
    assert samples(controller)[key] == 0
    begun = time.monotonic()
    controller.take(snapshot(node(1), node(2)), told=begun - 0.3)
    taken = time.monotonic() - begun
    found = samples(controller)
    assert found[key] == 1
    assert 0.3 <= found["signalbox_source_latency_seconds_sum", frozenset()] <= 0.3 + taken + 1e-6
