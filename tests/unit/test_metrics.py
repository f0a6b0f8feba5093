"""What a scrape is answered: everything that is declared, of a switch that is there and one that isn't."""

from __future__ import annotations

from fake_switch import FakeSwitch, Wire
from prometheus_client.parser import text_string_to_metric_families
from test_sync import UPLINKS, node, pod, pod_port, snapshot, started

from controller.app import Controller
from controller.metrics import DECLARED, exposition


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
