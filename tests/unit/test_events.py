"""The ring of events: the newest is last, the same is counted, and nobody pushes out what there is of others."""

from __future__ import annotations

import logging
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sync import node, started

from controller import chronicle as chronicles
from controller import events
from controller.audit import Drift
from controller.chronicle import FINDING, Chronicle
from controller.events import KEPT, KEPT_OF_ONE, LONGEST, NORMAL, WARNING, WITHIN, EventLog
from flows.openflow.messages import FlowStats
from topology.graph import Wire
from topology.manifests import Problem

MOMENT = 1_700_000_000.0


def rows(log: EventLog) -> list[dict[str, object]]:
    return list(log.rows(log.numbers()))


def told(log: EventLog) -> list[tuple[object, ...]]:
    return [(row["type"], row["reason"], row["object"], row["message"]) for row in rows(log)]


def test_an_event_says_what_where_and_when() -> None:
    log = EventLog()
    log.tell(MOMENT, WARNING, "Refused", object="Service default/web", node="n1", message="table full")
    assert rows(log) == [
        {
            "number": 1,
            "time": "2023-11-14T22:13:20Z",
            "firstTime": "2023-11-14T22:13:20Z",
            "type": "Warning",
            "reason": "Refused",
            "object": "Service default/web",
            "node": "n1",
            "message": "table full",
            "count": 1,
        }
    ]


def test_the_same_is_counted_while_it_goes_on_and_is_the_newest_then() -> None:
    log = EventLog()
    for later in (0.0, WITHIN, 2 * WITHIN):
        log.tell(MOMENT + later, NORMAL, "InSync", node="n1")
        log.tell(MOMENT + later, NORMAL, "InSync", node="n2")
    assert [(row["node"], row["count"]) for row in rows(log)] == [("n1", 3), ("n2", 3)]
    assert rows(log)[0]["firstTime"] != rows(log)[0]["time"]
    log.tell(MOMENT + 3 * WITHIN + 1, NORMAL, "InSync", node="n1")
    assert [(row["node"], row["count"]) for row in rows(log)] == [("n1", 3), ("n2", 3), ("n1", 1)]


@given(
    st.lists(
        st.tuples(st.floats(0, 2 * WITHIN), st.sampled_from("RS"), st.sampled_from("ab"), st.sampled_from("xyz")),
        max_size=60,
    )
)
def test_the_ring_is_what_was_told_counted_and_cut(steps: list[tuple[float, str, str, str]]) -> None:
    """Against the plainest way to write it down: a list of all, each merged into the last that is the same."""
    kept, kept_of_one = events.KEPT, events.KEPT_OF_ONE
    events.KEPT, events.KEPT_OF_ONE = 8, 3
    try:
        heard: Counter[int] = Counter()
        log = EventLog(lambda number: heard.update([number]))
        plain: list[tuple[str, str, str, int, float]] = []
        known: dict[int, dict[str, object]] = {}
        now = MOMENT
        for later, reason, node, message in steps:
            now += later
            heard.clear()
            log.tell(now, NORMAL, reason, node=node, message=message)
            same = [each for each in plain if each[:3] == (reason, node, message) and now - each[4] <= WITHIN]
            for each in same:
                plain.remove(each)
            plain.append((reason, node, message, 1 + sum(each[3] for each in same), now))
            of_one = [each for each in plain if each[:2] == (reason, node)]
            if len(of_one) > 3:
                plain.remove(of_one[0])
            plain = plain[-8:]
            found = rows(log)
            assert [(row["reason"], row["node"], row["message"], row["count"]) for row in found] == [
                each[:4] for each in plain
            ]
            # Who hears of numbers, and looks at those alone, knows all.
            for number in heard:
                known.pop(number, None)
                for row in log.rows([number]):
                    known[number] = row
            assert list(known.values()) == found
    finally:
        events.KEPT, events.KEPT_OF_ONE = kept, kept_of_one


def test_one_switch_can_t_push_out_what_there_is_of_others() -> None:
    log = EventLog()
    log.tell(MOMENT, NORMAL, "InSync", node="n1")
    for number in range(2 * KEPT):
        log.tell(MOMENT, WARNING, "Refused", object=f"Pod {number}", node="n2", message="x" * 2 * LONGEST)
    assert len(rows(log)) == 1 + KEPT_OF_ONE and rows(log)[0]["node"] == "n1"
    assert all(len(str(row["message"])) <= LONGEST for row in rows(log))


def test_the_log_has_what_the_ring_has_when_that_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = EventLog()
    chronicle = Chronicle(log, lambda: MOMENT)
    chronicle.lost(frozenset({"n1"}), ["n1", "n2"])
    chronicle.lost(frozenset(), ["n1", "n2"])
    assert [row["reason"] for row in rows(log)] == ["NodeLost", "NodeBack"]
    assert [(each.levelname, each.getMessage()) for each in caplog.records if each.name == chronicles.__name__] == [
        ("WARNING" if row["type"] == WARNING else "INFO", f"Node n1: {row['message']}") for row in rows(log)
    ]


def test_objects_are_rejected_and_accepted_once_nothing_is_wrong_with_them() -> None:
    log = EventLog()
    chronicle = Chronicle(log, lambda: MOMENT)
    one, other = Problem("a.yaml", 3, "Service default/web", "no port"), Problem("", 0, "Service default/web", "worse")
    chronicle.problems((), (one, other))
    chronicle.problems((one, other), (one,))
    assert told(log) == [
        ("Warning", "ObjectRejected", "Service default/web", "worse"),
        ("Warning", "ObjectRejected", "Service default/web", "a.yaml:3: no port"),
    ]
    chronicle.problems((one,), ())
    assert told(log)[-1][:3] == ("Normal", "ObjectAccepted", "Service default/web")


def test_what_is_no_object_yet_is_known_by_its_file() -> None:
    log = EventLog()
    chronicle = Chronicle(log, lambda: MOMENT)
    one, other = (Problem(f"{name}.yaml", 1, "", "not YAML") for name in "ab")
    chronicle.problems((), (one, other))
    chronicle.problems((one, other), (other,))
    assert told(log)[-1] == ("Normal", "ObjectAccepted", "", "a.yaml: nothing is wrong with it any more")
    chronicle.problems((other,), ())
    assert told(log)[-1] == ("Normal", "ObjectAccepted", "", "b.yaml: nothing is wrong with it any more")


def test_wires_that_a_controller_finds_when_it_starts_are_no_news() -> None:
    now = [MOMENT]
    log = EventLog()
    chronicle = Chronicle(log, lambda: now[0])
    one, other = Wire("n1", "eth1", "n2", "eth1", 1), Wire("n1", "eth2", "n3", "eth1", 1)
    chronicle.rewired([], [one])
    chronicle.rewired([one], [])
    now[0] += FINDING
    chronicle.rewired([], [one, other])
    assert [(row["reason"], row["object"]) for row in rows(log)] == [
        ("LinkDown", "Link n1:eth1 - n2:eth1"),
        ("LinkUp", "Link n1:eth1 - n2:eth1"),
        ("LinkUp", "Link n1:eth2 - n3:eth1"),
    ]


def test_who_is_master_is_told_of_shards_whose_master_is_another() -> None:
    log = EventLog()
    chronicle = Chronicle(log, lambda: MOMENT)
    assert not chronicle.masters({0: "", 1: ""})
    assert chronicle.masters({0: "a", 1: "a"}) and not chronicle.masters({0: "a", 1: "a"})
    assert chronicle.masters({0: "a", 1: "b"}) and chronicle.masters({0: "", 1: "b"})
    assert [(row["object"], row["message"]) for row in rows(log)] == [
        ("Replica a", "it is master of shards 0, 1 now"),
        ("Replica b", "it is master of shard 1 now"),
        ("", "nobody is master of shard 0: switches go on as they are"),
    ]


def test_nodes_are_told_of_that_are_drained_and_that_work_again() -> None:
    controller = started(node(1), node(2))
    for drained in (True, True, False):
        controller.change([msgspec.structs.replace(node(1), drained=drained), node(2)], (), ())
    assert [(row["reason"], row["node"]) for row in rows(controller.events)] == [("Drained", "n1"), ("Undrained", "n1")]


def test_drift_is_told_in_numbers() -> None:
    log = EventLog()
    stats = FlowStats(0, 1, 0, None, 0, 0, 0.0, b"")
    chronicle = Chronicle(log, lambda: MOMENT)
    chronicle.drifted("n1", Drift(foreign=(stats,)))
    chronicle.drifted("n1", Drift(foreign=(stats, stats)))
    assert [row["message"] for row in rows(log)] == [
        "a flow wasn't as it should be and was repaired: 1 foreign",
        "flows weren't as they should be and were repaired: 2 foreign",
    ]
