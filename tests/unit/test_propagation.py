"""How long a change takes to be on the last switch: which bundles count as having it, and who isn't waited for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.propagation import LIMIT, Done, Installed, Moments, Propagation

#: What was changed, how long it took, and on how many switches it is.
Told = list[tuple[str, float, int]]


@pytest.fixture
def done() -> Told:
    return []


@pytest.fixture
def changes(done: Told) -> Propagation:
    return Propagation(lambda each: done.append((each.what, each.seconds, each.size)))


def test_a_change_is_done_when_the_last_switch_has_it(changes: Propagation, done: Told) -> None:
    changes.begin("object", ["n1", "n2"], 7, Moments(10.0, 10.0, 10.5))
    changes.installed("n1", 10.5, 7, 11.0)
    assert not done and changes.under_way == 1
    changes.installed("n2", 10.5, 7, 13.0)
    assert done == [("object", pytest.approx(3.0), 2)] and changes.under_way == 0


@pytest.mark.parametrize(
    ("begun", "version"), [pytest.param(10.4, 7, id="begun before"), pytest.param(10.5, 6, id="an earlier version")]
)
def test_a_bundle_without_the_change_does_not_count(
    changes: Propagation, done: Told, begun: float, version: int
) -> None:
    changes.begin("object", ["n1"], 7, Moments(10.0, 10.0, 10.5))
    changes.installed("n1", begun, version, 11.0)
    assert not done and changes.under_way == 1


def test_a_switch_that_goes_is_not_waited_for(changes: Propagation, done: Told) -> None:
    changes.begin("port", ["n1", "n2"], 1, Moments(1.0, 1.0, 1.0))
    changes.installed("n1", 1.0, 1, 1.25)
    changes.keep_only({"n1"})
    assert done == [("port", pytest.approx(0.25), 2)]


def test_a_change_that_no_switch_has_taken_says_no_duration(changes: Propagation, done: Told) -> None:
    changes.begin("port", ["n1"], 1, Moments(1.0, 1.0, 1.0))
    changes.keep_only(())
    assert not done and changes.under_way == 0


def test_changes_under_way_are_bounded(changes: Propagation) -> None:
    for version in range(LIMIT + 10):
        changes.begin("object", ["n1"], version, Moments(1.0, 1.0, 1.0))
    assert changes.under_way == LIMIT


def test_a_switch_that_never_answers_holds_up_no_other_change_and_costs_bundles_nothing(
    changes: Propagation, done: Told
) -> None:
    changes.begin("object", ["stuck", "n1"], 1, Moments(1.0, 1.0, 1.0))
    for number in range(2, 50):
        changes.begin("object", ["stuck"] if number % 2 else ["n1", "n2"], number, Moments(number, number, number))
        for node in ("n1", "n2"):
            changes.installed(node, number, number, number + 0.5)
    assert len(done) == 24 and all(seconds == pytest.approx(0.5) for _, seconds, _ in done)
    assert changes.under_way == 25
    changes.installed("stuck", 60.0, 49, 61.0)
    assert changes.under_way == 0 and len(done) == 24 + 25
    changes.begin("object", ["n1"], 50, Moments(62.0, 62.0, 62.0))
    changes.installed("n1", 62.0, 50, 63.0)
    assert done[-1] == ("object", pytest.approx(1.0), 1)


def test_when_each_switch_had_it_is_noted_where_it_is_asked_for() -> None:
    found: list[Done] = []
    changes = Propagation(found.append)
    changes.detailed = True
    changes.begin("object", ["n1", "n2"], 1, Moments(0.5, 1.0, 2.0))
    changes.installed("n2", 2.0, 1, 3.0)
    changes.installed("n1", 2.5, 1, 4.0)
    assert found[0].switches == [Installed("n2", 2.0, 3.0), Installed("n1", 2.5, 4.0)]


@given(st.lists(st.tuples(st.sampled_from(["begin", "install", "go"]), st.sets(st.sampled_from("abc"), min_size=1)),
                max_size=40))  # fmt: skip
def test_any_order_comes_to_what_looking_at_every_change_would(events: list[tuple[str, set[str]]]) -> None:
    found: list[str] = []
    changes = Propagation(lambda each: found.append(each.what))
    waiting: dict[str, set[str]] = {}
    expected: list[str] = []
    for now, (what, nodes) in enumerate(events, 1):
        if what == "begin":
            changes.begin(str(now), nodes, now, Moments(now, now, now))
            waiting[str(now)] = set(nodes)
            continue
        if what == "install":
            for node in sorted(nodes):
                changes.installed(node, now, now, now + 0.5)
                for each in waiting.values():
                    each.discard(node)
            expected += [name for name, left in waiting.items() if not left]
        else:
            changes.keep_only(nodes)
            for each in waiting.values():
                each &= nodes
        waiting = {name: left for name, left in waiting.items() if left}
        assert changes.under_way == len(waiting)
    assert set(expected) <= set(found)
