"""Questions to all switches: a few at a time, each for a while, and one for all who want to know the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from test_sync import node, started

from controller import counting, policy_views
from controller.counting import AT_A_TIME, Answered, ask_all


async def everybody_s_turn() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Switches:
    """Switches that answer when they are told to."""

    def __init__(self, count: int) -> None:
        self.syncs: dict[str, Any] = {f"n{number}": f"n{number}" for number in range(count)}
        self.asked: dict[str, Answered] = {}
        self.counted: list[str] = []

    def ask(self, sync: Any, answered: Answered) -> None:
        self.asked[sync] = answered

    def answer(self, name: str) -> None:
        self.asked.pop(name)(lambda: self.counted.append(name))


async def test_a_few_switches_are_asked_at_a_time_and_all_in_the_end() -> None:
    switches = Switches(3 * AT_A_TIME)
    task = asyncio.create_task(ask_all(switches.syncs, switches.ask))
    for _ in range(3 * AT_A_TIME):
        await everybody_s_turn()
        assert len(switches.asked) <= AT_A_TIME
        switches.answer(next(iter(switches.asked)))
    assert await task == ()
    assert sorted(switches.counted) == sorted(switches.syncs)


async def test_what_comes_too_late_is_not_counted_and_its_node_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "PATIENCE", 0.02)
    switches = Switches(2)

    def ask(sync: Any, answered: Answered) -> None:
        switches.ask(sync, answered)
        # At once: on a machine that stands still for a moment, any later may be too late.
        if sync == "n1":
            switches.answer(sync)

    assert await asyncio.wait_for(ask_all(switches.syncs, ask, deadline=3600.0), 20) == ("n0",)
    switches.answer("n0")
    assert switches.counted == ["n1"]


async def test_silent_switches_hold_up_an_answer_no_longer_than_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "PATIENCE", 3600.0)
    switches = Switches(2 * AT_A_TIME)
    assert len(await asyncio.wait_for(ask_all(switches.syncs, switches.ask, deadline=0.05), 20)) == 2 * AT_A_TIME


class Slow:
    """A switch that keeps who asks it waiting."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def request_counts(self, make: object, take: object, then: Callable[[], None]) -> None:
        self.waiting.append(then)

    def answer(self) -> None:
        """Say, to everything that was asked, that there is nothing."""
        waiting, self.waiting = self.waiting, []
        for then in waiting:
            then()


async def test_who_asks_while_the_same_is_being_asked_gets_that_answer() -> None:
    controller = started(node(1))
    slow = Slow()
    controller.fleet.syncs = {"n1": slow}  # type: ignore[dict-item]
    askers = [asyncio.create_task(controller.counting.policies()) for _ in range(3)]
    await everybody_s_turn()
    # One of them has gone away; the others get what was asked for it.
    askers[0].cancel()
    await asyncio.sleep(0)
    assert len(slow.waiting) == len(policy_views.TABLES)
    slow.answer()
    assert [(await each).missing for each in askers[1:]] == [(), ()]
    again = asyncio.create_task(controller.counting.policies())
    await everybody_s_turn()
    slow.answer()
    await again
