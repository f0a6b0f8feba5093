"""Rates from counters: what is known after each look, and what a counter that begins anew means."""

from __future__ import annotations

import pytest
from fake_switch import FakeSwitch
from test_sync import UPLINKS, connect, node, started

from controller.statistics import READING, SHARE, Tally
from flows.pipeline import SERVICE


def test_a_first_look_says_no_rate() -> None:
    tally: Tally[str] = Tally()
    tally.take({"a": 1000}, 10.0)
    assert tally.rates == {}


def test_a_rate_is_what_came_between_two_looks() -> None:
    tally: Tally[str] = Tally()
    tally.take({"a": 1000, "b": 5}, 10.0)
    tally.take({"a": 1500, "b": 5}, 12.0)
    assert tally.rates == {"a": pytest.approx(250.0)}


def test_a_counter_that_began_anew_counts_what_it_says_now() -> None:
    tally: Tally[str] = Tally()
    tally.take({"a": 1000}, 10.0)
    tally.take({"a": 40}, 12.0)
    assert tally.rates == {"a": pytest.approx(20.0)}


def test_what_is_gone_is_forgotten() -> None:
    tally: Tally[str] = Tally()
    tally.take({"a": 1}, 1.0)
    tally.take({}, 2.0)
    assert tally.rates == {}
    tally.take({"a": 5}, 3.0)
    assert tally.rates == {"a": pytest.approx(5.0)}


def test_what_is_known_ages() -> None:
    tally: Tally[str] = Tally()
    assert not tally.is_of(1.0, 5.0)
    tally.take({}, 1.0)
    assert tally.is_of(6.0, 5.0) and not tally.is_of(6.1, 5.0)


def test_many_flows_on_many_switches_are_looked_at_less_often() -> None:
    controller = started(node(1))
    connect(controller, FakeSwitch(node(1).datapath_id, UPLINKS))
    statistics = controller.statistics
    assert statistics.period("services") == statistics.interval
    controller.fleet.cluster.state.counts[SERVICE.number] = 100_000
    assert statistics.period("services") == pytest.approx(100_000 * READING / SHARE, rel=0.01)
    assert statistics.period("ports") == statistics.interval
