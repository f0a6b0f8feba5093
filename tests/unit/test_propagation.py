"""How long a change takes to be on the last switch: which bundles count as having it, and who isn't waited for."""

from __future__ import annotations

import pytest

from controller.propagation import LIMIT, Propagation

Done = list[tuple[str, float, int]]


@pytest.fixture
def done() -> Done:
    return []


@pytest.fixture
def changes(done: Done) -> Propagation:
    return Propagation(lambda *each: done.append(each))


def test_a_change_is_done_when_the_last_switch_has_it(changes: Propagation, done: Done) -> None:
    changes.begin("object", ["n1", "n2"], 7, known=10.0, sent=10.5)
    changes.installed("n1", 10.5, 7, 11.0)
    assert not done and changes.under_way == 1
    changes.installed("n2", 10.5, 7, 13.0)
    assert done == [("object", pytest.approx(3.0), 2)] and changes.under_way == 0


@pytest.mark.parametrize(
    ("begun", "version"), [pytest.param(10.4, 7, id="begun before"), pytest.param(10.5, 6, id="an earlier version")]
)
def test_a_bundle_without_the_change_does_not_count(
    changes: Propagation, done: Done, begun: float, version: int
) -> None:
    changes.begin("object", ["n1"], 7, known=10.0, sent=10.5)
    changes.installed("n1", begun, version, 11.0)
    assert not done and changes.under_way == 1


def test_a_switch_that_goes_is_not_waited_for(changes: Propagation, done: Done) -> None:
    changes.begin("port", ["n1", "n2"], 1, known=1.0, sent=1.0)
    changes.installed("n1", 1.0, 1, 1.25)
    changes.keep_only({"n1"})
    assert done == [("port", pytest.approx(0.25), 2)]


def test_a_change_that_no_switch_has_taken_says_no_duration(changes: Propagation, done: Done) -> None:
    changes.begin("port", ["n1"], 1, known=1.0, sent=1.0)
    changes.keep_only(())
    assert not done and changes.under_way == 0


def test_changes_under_way_are_bounded(changes: Propagation) -> None:
    for version in range(LIMIT + 10):
        changes.begin("object", ["n1"], version, known=1.0, sent=1.0)
    assert changes.under_way == LIMIT
