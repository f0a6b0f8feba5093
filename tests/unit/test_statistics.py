"""Rates and totals from counters: what is known after each look, and what a counter that begins anew means."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest
from counts import count
from fake_switch import FakeSwitch, Wire
from test_sync import UPLINKS, connect, node, snapshot, started
from test_sync_services import endpoints, service

from controller.app import Controller
from controller.flow_growth import FlowTally, Look
from controller.statistics import READING, SHARE, Carried, Statistics, Tally
from flows import fields as f
from flows.pipeline import SERVICE, SERVICE_STATS
from flows.values import Flow, FlowKey
from topology.model import Object

A, B = (Flow(SERVICE.number, 300, f.match(f.IN_PORT(port)), (), 7) for port in (1, 2))


def test_a_first_look_says_no_rate() -> None:
    tally: Tally[str] = Tally()
    tally.take({"a": (1000,)}, 10.0)
    assert tally.rates == {}


def test_a_rate_is_what_came_between_two_looks() -> None:
    tally: Tally[str] = Tally()
    tally.take({"a": (1000, 7), "b": (5, 5)}, 10.0)
    tally.take({"a": (1500, 7), "b": (5, 5)}, 12.0)
    assert tally.rates == {"a": (pytest.approx(250.0), 0.0)}


def test_a_counter_that_began_anew_counts_what_it_says_now() -> None:
    tally: Tally[str] = Tally()
    tally.take({"a": (1000,)}, 10.0)
    tally.take({"a": (40,)}, 12.0)
    assert tally.rates == {"a": (pytest.approx(20.0),)}


def test_what_is_gone_is_forgotten() -> None:
    tally: Tally[str] = Tally()
    tally.take({"a": (1,)}, 1.0)
    tally.take({}, 2.0)
    assert tally.rates == {}
    tally.take({"a": (5,)}, 3.0)
    assert tally.rates == {"a": (pytest.approx(5.0),)}


# Flows of one switch --------------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """One switch that is looked at every ten seconds; this controller began at 100."""

    tally: FlowTally = field(default_factory=FlowTally)
    now: float = 200.0

    def look(self, *found: tuple[Flow, int, float]) -> dict[FlowKey, tuple[int, int]]:
        """What has come to flows since the last look, of which each has met so many packets in so many seconds."""
        look = Look(self.tally, self.now, 100.0)
        counts = [count(flow, packets, packets * 100, age) for flow, packets, age in found]
        grown = {each.flow.key(): (each.packets, each.bytes) for each in look.grown(counts)}
        look.end(self.now + 0.01)
        self.now += 10.0
        return grown


def test_what_flows_had_met_before_this_controller_was_there_is_not_counted_and_what_came_since_is() -> None:
    watched = Watched()
    assert watched.look((A, 1000, 500.0), (B, 3, 50.0)) == {B.key: (3, 300)}
    assert watched.look((A, 1010, 510.0), (B, 3, 60.0)) == {A.key: (10, 1000)}


def test_a_flow_that_was_made_again_counts_from_nothing_even_where_it_has_met_more_than_the_former() -> None:
    watched = Watched()
    watched.look((A, 5, 500.0))
    assert watched.look((A, 40, 8.0)) == {A.key: (40, 4000)}
    assert watched.look((A, 2, 18.0)) == {A.key: (2, 200)}


def test_a_flow_that_meets_its_first_packet_counts_whole_and_one_that_went_and_came_does_too() -> None:
    watched = Watched()
    watched.look()
    assert watched.look((A, 5, 500.0)) == {A.key: (5, 500)}
    assert watched.look() == {}
    assert watched.look((A, 7, 520.0)) == {A.key: (7, 700)}


# Of all switches ------------------------------------------------------------------------------------------------------


def test_rates_of_switches_add_up_and_leave_nothing_when_they_go() -> None:
    carried: Carried[str] = Carried(1, 10)
    first, second = {"a": (1_333,), "b": (1,)}, {"a": (1_000,)}
    carried.replace({}, first)
    carried.replace({}, second)
    assert carried.rates("a") == (2.333,)
    carried.replace(first, {})
    carried.replace(second, {})
    assert carried.rates("a") == (0.0,) and carried.rates("b") == (0.0,)


def test_beyond_a_number_of_objects_the_others_have_one_total_and_none_goes_back() -> None:
    carried: Carried[str] = Carried(1, 2)
    carried.add({"a": (1,), "b": (2,), "c": (4,)})
    assert (carried.totals, carried.others) == ({"a": (1,), "b": (2,)}, (4,))
    carried.keep_only({"b": 0, "c": 0})
    carried.add({"c": (5,), "d": (6,)})
    assert (carried.totals, carried.others) == ({"b": (2,), "c": (5,)}, (10,))


@dataclass
class Serving:
    """A controller, and a switch whose flows of Service `web` have met packets."""

    controller: Controller
    switch: FakeSwitch
    wire: Wire

    @property
    def statistics(self) -> Statistics:
        return self.controller.statistics

    def look(self, packets: int, age: int = 1000) -> None:
        """Look again, where each flow that counts has met so many packets."""
        tables = {SERVICE.number, SERVICE_STATS.number}
        flows = [flow for flow in self.switch.flows if flow.table in tables]
        self.switch.met = {flow.key: (packets, 100 * packets, age) for flow in flows}
        self.statistics.look(time.monotonic(), everyone=True)
        self.wire.pump()

    def totals(self) -> dict[str, tuple[int, ...]]:
        return {key[2]: totals for key, totals, _ in self.statistics.service_totals()}


WEB: tuple[Object, ...] = (service("web", protocol="TCP"), endpoints("web", 1, protocol="TCP"))


@pytest.fixture
def serving() -> Serving:
    controller = started(node(1), node(2), *WEB)
    switch = FakeSwitch(node(1).datapath_id, UPLINKS)
    return Serving(controller, switch, connect(controller, switch))


def test_a_service_s_totals_are_what_came_since_the_first_look(serving: Serving) -> None:
    serving.look(1000)
    assert serving.totals() == {}
    serving.look(1003)
    assert serving.totals() == {"web": (3, 3, 300)}
    (row,) = serving.statistics.services()
    assert row["packetsPerSecond"] > 0 and row["name"] == "web"


def test_totals_outlive_a_connection_and_count_what_came_while_it_was_away(serving: Serving) -> None:
    serving.look(1000)
    serving.look(1003)
    serving.wire.cut()
    serving.statistics.look(time.monotonic())
    assert serving.totals() == {"web": (3, 3, 300)}
    assert all(row["packetsPerSecond"] == 0 for row in serving.statistics.services())
    serving.wire = connect(serving.controller, serving.switch)
    serving.look(1010)
    assert serving.totals() == {"web": (10, 10, 1000)}


def test_an_answer_that_a_lost_connection_owed_is_not_waited_for(serving: Serving) -> None:
    serving.statistics.look(time.monotonic(), everyone=True)
    serving.wire.cut()
    serving.wire = connect(serving.controller, serving.switch)
    serving.look(1000)
    serving.look(1001)
    assert serving.totals() == {"web": (1, 1, 100)}


def test_totals_outlive_the_replacement_of_all_flows_and_never_go_back(serving: Serving) -> None:
    serving.look(1000)
    serving.look(1003)
    serving.look(2, age=0)
    assert serving.totals() == {"web": (5, 5, 500)}


def test_of_a_service_that_is_gone_nothing_is_told(serving: Serving) -> None:
    serving.look(1000)
    serving.look(1003)
    serving.controller.take(snapshot(node(1), node(2)))
    serving.wire.pump()
    serving.statistics.look(time.monotonic() + serving.statistics.interval)
    assert serving.totals() == {}
    serving.controller.take(snapshot(node(1), node(2), *WEB))
    serving.wire.pump()
    assert serving.totals() == {}


def test_many_flows_on_many_switches_are_looked_at_less_often() -> None:
    controller = started(node(1))
    connect(controller, FakeSwitch(node(1).datapath_id, UPLINKS))
    statistics = controller.statistics
    assert statistics.period("services") == statistics.interval
    controller.fleet.cluster.state.counts[SERVICE.number] = 1_000_000
    assert statistics.period("services") == pytest.approx(1_000_000 * READING / SHARE, rel=0.01)
    assert statistics.period("ports") == statistics.interval


def test_what_reading_takes_is_learnt_from_answers(serving: Serving) -> None:
    serving.controller.fleet.cluster.state.counts[SERVICE.number] = 100_000_000
    before = serving.statistics.period("services")
    for packets in range(1, 4):
        serving.statistics.look(time.monotonic() + packets * 10 * before, everyone=True)
        serving.wire.pump()
    # A handful of flows take less than was thought of a hundred million.
    assert serving.statistics.period("services") < before / 10
