"""Rates from counters: what is known after each look, and what a counter that begins anew means."""

from __future__ import annotations

import pytest

from controller.statistics import Tally


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
    assert tally.totals == {"a": 1040}


def test_what_is_gone_is_forgotten() -> None:
    tally: Tally[str] = Tally()
    tally.take({"a": 1}, 1.0)
    tally.take({}, 2.0)
    assert tally.totals == {} and tally.rates == {}


def test_what_is_known_ages() -> None:
    tally: Tally[str] = Tally()
    assert not tally.is_of(1.0, 5.0)
    tally.take({}, 1.0)
    assert tally.is_of(6.0, 5.0) and not tally.is_of(6.1, 5.0)
