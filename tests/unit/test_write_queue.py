"""Writes that wait: one for each subject, at a limited rate, again after failures, not again after success."""

from __future__ import annotations

import math

import pytest

from controller import write_queue as subject
from controller.write_queue import PLAIN, Write, WriteQueue


def write(name: str, same: str = "", method: str = "PATCH") -> Write:
    return Write(name, method, f"/{name}", {"is": same}, PLAIN, same)


@pytest.fixture
def queue() -> WriteQueue:
    return WriteQueue(lambda: 0.0)


def taken(queue: WriteQueue, now: float) -> list[Write]:
    found = []
    while (each := queue.take(now)) is not None:
        found.append(each)
    return found


def test_of_one_subject_the_last_write_counts(queue: WriteQueue) -> None:
    for same in ("a", "b", "c"):
        queue.put(write("x", same), 0.0)
    queue.put(write("y"), 0.0)
    assert taken(queue, 0.0) == [write("x", "c"), write("y")]
    assert len(queue) == 2 and queue.take(0.0) is None


def test_what_comes_while_a_write_is_under_way_goes_out_after_it(queue: WriteQueue) -> None:
    queue.put(write("x", "a"), 0.0)
    (first,) = taken(queue, 0.0)
    queue.put(write("x", "b"), 0.0)
    assert taken(queue, 0.0) == []
    queue.answered(first, 200, "", 1.0)
    assert taken(queue, 1.0) == [write("x", "b")]


def test_what_has_just_been_written_is_not_written_again(queue: WriteQueue) -> None:
    queue.put(write("x", "a"), 0.0)
    queue.answered(taken(queue, 0.0)[0], 200, "", 0.0)
    queue.put(write("x", "a"), 1.0)
    assert taken(queue, 1.0) == []
    queue.put(write("x", "b"), 1.0)
    assert taken(queue, 1.0) == [write("x", "b")]
    queue.answered(write("x", "b"), 200, "", 1.0)
    # Somebody else has changed it back meanwhile.
    queue.put(write("x", "b"), 1.0 + subject.AFTER_SUCCESS)
    assert taken(queue, 1.0 + subject.AFTER_SUCCESS) == [write("x", "b")]


@pytest.mark.parametrize("status", [401, 409, 429, 500, 503])
def test_failures_are_repeated_after_twice_as_long_each_time(queue: WriteQueue, status: int) -> None:
    queue.put(write("x"), 0.0)
    now, delays = 0.0, []
    for _ in range(10):
        (each,) = taken(queue, now)
        queue.answered(each, status, "", now)
        delays.append(queue.wait(now))
        now += delays[-1]
    assert delays[:4] == pytest.approx([0.5, 1.0, 2.0, 4.0]) and max(delays) == pytest.approx(subject.LONGEST_DELAY)
    assert list(queue.troubles()) == []


def test_a_server_is_left_alone_for_as_long_as_it_says(queue: WriteQueue) -> None:
    queue.put(write("x"), 0.0)
    queue.answered(taken(queue, 0.0)[0], 429, "", 0.0, retry_after=30.0)
    assert taken(queue, 29.0) == [] and taken(queue, 30.0) == [write("x")]


def test_what_the_server_wont_have_is_told_and_left_for_some_time(queue: WriteQueue) -> None:
    queue.put(write("x"), 0.0)
    queue.answered(taken(queue, 0.0)[0], 403, "forbidden", 0.0)
    assert list(queue.troubles()) == ["Kubernetes refuses PATCH /x: 403 forbidden"]
    queue.put(write("x"), 1.0)
    assert taken(queue, 1.0) == []
    queue.put(write("x"), subject.AFTER_REFUSAL)
    queue.answered(taken(queue, subject.AFTER_REFUSAL)[0], 200, "", subject.AFTER_REFUSAL)
    assert list(queue.troubles()) == []


def test_an_object_that_is_gone_and_an_event_that_is_there_are_no_trouble(queue: WriteQueue) -> None:
    queue.put(write("x"), 0.0)
    queue.put(write("y", method="POST"), 0.0)
    for each in taken(queue, 0.0):
        queue.answered(each, 404 if each.method == "PATCH" else 409, "", 0.0)
    assert len(queue) == 0 and list(queue.troubles()) == []


def test_no_more_is_sent_than_the_rate_allows(queue: WriteQueue) -> None:
    for i in range(200):
        queue.put(write(f"x{i}"), 0.0)
    assert len(taken(queue, 0.0)) == subject.BURST
    assert 0 < queue.wait(0.0) <= 1 / subject.RATE
    assert len(taken(queue, 1.0)) == pytest.approx(subject.RATE, abs=1)


def test_a_full_queue_takes_no_more_and_says_so(queue: WriteQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LIMIT", 2)
    assert [queue.put(write(name), 0.0) for name in ("x", "y", "z", "x")] == [True, True, False, True]
    assert "1 writes were dropped" in "".join(queue.troubles())
    for each in taken(queue, 0.0):
        queue.answered(each, 200, "", 0.0)
    assert queue.put(write("z"), 0.0)


def test_an_empty_queue_waits_for_ever(queue: WriteQueue) -> None:
    assert queue.wait(0.0) == math.inf
