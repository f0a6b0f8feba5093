"""Whether nodes' agents are there, as it is seen from how their switches are described."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count, takewhile
from pathlib import Path

import pytest
from asked_controller import asked
from fake_switch import FakeSwitch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_metrics import samples
from test_sync import connect, node, snapshot, started, switch_of

from controller import parts
from controller.agent_reports import INTERVAL, MISSED, AgentReports, State
from controller.app import Controller
from topology import offload
from topology.agent_report import BEAT, AgentReport, encode
from topology.version import version

#: The silence after which an agent is lost.
LIMIT = MISSED * BEAT + INTERVAL


class Node:
    """A node whose agent beats as it is told to."""

    def __init__(self, controller: Controller, switch: FakeSwitch | None = None) -> None:
        self.controller = controller
        self.switch = switch or switch_of(1)
        self.wire = connect(controller, self.switch)

    def says(self, beat: int | None, every: int = BEAT, version: str = "1.0") -> None:
        self.switch.description = "" if beat is None else encode(AgentReport(version=version, beat=beat, every=every))

    def asked(self, *moments: float) -> State:
        """What is known after the switch was asked at some moments."""
        for now in moments:
            self.controller.agents.look(now)
            self.wire.pump()
        return self.controller.agents.state("n1")


@pytest.fixture
def here() -> Node:
    return Node(started(node(1)))


def events(controller: Controller) -> list[str]:
    found = controller.events.rows(controller.events.numbers())
    return [row["reason"] for row in found if row["reason"].startswith("Agent")]


def every_ten(begin: float, end: float) -> Iterator[float]:
    return takewhile(lambda now: now < end, count(begin, INTERVAL))


def test_an_agent_whose_beat_stays_the_same_is_lost_and_with_another_it_is_back(here: Node) -> None:
    here.says(7)
    assert here.asked(*every_ten(1000.0, 1000.0 + LIMIT)) is State.ALIVE
    assert not list(here.controller.troubles()) and events(here.controller) == []
    assert here.asked(1000.0 + LIMIT) is State.LOST
    assert list(here.controller.troubles()) == [
        "node n1: its agent has said nothing for 100 s: pods there can't be added or removed"
    ]
    assert here.asked(1000.0 + LIMIT + INTERVAL) is State.LOST
    assert events(here.controller) == ["AgentLost"], "it is told once"
    here.says(8)
    assert here.asked(1000.0 + LIMIT + 2 * INTERVAL) is State.ALIVE
    assert not list(here.controller.troubles()) and events(here.controller) == ["AgentLost", "AgentBack"]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.0, 9.0), min_size=20, max_size=20), st.floats(0.0, INTERVAL))
def test_an_agent_that_beats_a_little_late_is_never_lost_and_one_that_is_gone_soon_is(
    late: list[float], phase: float
) -> None:
    here = Node(started(node(1)))
    beats = [number * BEAT + by for number, by in enumerate(late)]
    for now in every_ten(phase, beats[-1]):
        here.says(sum(moment <= now for moment in beats))
        assert here.asked(now) is not State.LOST
    here.says(len(beats))
    silent = [now for now in every_ten(beats[-1], beats[-1] + 200) if here.asked(now) is not State.LOST]
    assert LIMIT <= silent[-1] + INTERVAL - beats[-1] <= LIMIT + 2 * INTERVAL


def test_how_often_it_beats_is_the_agent_s_to_say(here: Node) -> None:
    here.says(1, every=200)
    assert here.asked(*every_ten(0.0, 600.0)) is State.ALIVE
    here.says(2, every=1)
    assert here.asked(*every_ten(600.0, 613.0)) is State.ALIVE
    assert here.asked(620.0) is State.LOST


def test_a_pause_of_the_controller_makes_no_agent_lost(here: Node) -> None:
    here.says(1)
    here.asked(0.0)
    here.controller.agents.look(10.0)
    # The answer is read after ten minutes; the next question is asked then.
    here.wire.pump()
    assert here.controller.agents.state("n1") is State.ALIVE
    here.says(20)
    assert here.asked(610.0) is State.ALIVE


def test_a_controller_that_starts_anew_waits_as_long_as_for_any_silence(here: Node) -> None:
    here.says(1)
    assert here.asked(*every_ten(0.0, 300.0)) is State.LOST
    here.wire.cut()
    again = Node(started(node(1)), here.switch)
    assert again.asked(*every_ten(5000.0, 5000.0 + LIMIT)) is State.ALIVE
    assert again.asked(5000.0 + LIMIT) is State.LOST


def test_a_switch_that_was_away_says_nothing_of_its_agent_meanwhile(here: Node) -> None:
    here.says(1)
    here.asked(0.0, 90.0)
    here.wire.cut()
    assert here.asked(95.0) is State.UNKNOWN
    here.wire = connect(here.controller, here.switch)
    assert here.asked(500.0, 500.0 + LIMIT - 1) is State.ALIVE
    assert here.asked(510.0 + LIMIT) is State.LOST


def test_an_agent_that_was_lost_is_lost_when_its_switch_comes_back_and_it_is_not_told_again(here: Node) -> None:
    here.says(1)
    assert here.asked(0.0, LIMIT) is State.LOST
    here.wire.cut()
    assert here.asked(LIMIT + 1) is State.UNKNOWN
    here.wire = connect(here.controller, here.switch)
    assert here.asked(400.0) is State.LOST
    assert "its agent has said nothing for 400 s" in next(here.controller.troubles())
    assert events(here.controller) == ["AgentLost"]
    here.wire.cut()
    here.says(2)
    here.wire = connect(here.controller, here.switch)
    assert here.asked(500.0) is State.ALIVE and events(here.controller) == ["AgentLost", "AgentBack"]


def test_a_node_that_is_gone_is_forgotten(here: Node) -> None:
    here.says(1)
    assert here.asked(0.0, LIMIT) is State.LOST
    here.controller.take(snapshot(node(2)))
    assert here.asked(LIMIT + 10) is State.UNKNOWN and "n1" not in here.controller.agents.states()
    here.controller.take(snapshot(node(1)))
    assert here.asked(LIMIT + 20) is State.ALIVE


def test_a_switch_without_an_agent_is_no_trouble_and_no_part(here: Node) -> None:
    assert here.asked(*every_ten(0.0, 300.0)) is State.NONE
    assert not list(here.controller.troubles()) and events(here.controller) == []
    assert "agents" not in told(here.controller)


def test_an_agent_without_a_beat_keeps_its_report_and_is_never_lost(here: Node) -> None:
    report = offload.Report(capable=True, nics=2)
    here.switch.description = offload.encode(report)
    assert here.asked(*every_ten(0.0, 300.0)) is State.UNKNOWN
    assert here.controller.offloads.report("n1") == report and not list(here.controller.troubles())


def test_who_watches_is_told_of_another_state_or_version_and_of_nothing_else(here: Node) -> None:
    touched: list[str] = []
    controller = here.controller
    controller.agents = AgentReports(controller.compiler, controller.fleet, controller.chronicle, touched.append)
    here.says(1)
    here.asked(*every_ten(0.0, 60.0))
    assert touched == ["n1"]
    here.says(2)
    here.asked(60.0)
    assert touched == ["n1"]
    here.says(3, version="1.1")
    here.asked(70.0)
    assert touched == ["n1"] * 2
    here.asked(70.0 + LIMIT)
    assert touched == ["n1"] * 3


def told(controller: Controller) -> dict[str, parts.Part]:
    now = datetime.now(UTC)
    found = parts.troubles_by_part(controller, now)
    return {part.name: part for part in parts.parts(controller, found, now, 0.0)}


def test_a_part_says_how_many_are_alive_and_who_is_of_another_version() -> None:
    here = Node(started(node(1), node(2), node(3)))
    others = {number: switch_of(number) for number in (2, 3)}
    wires = [connect(here.controller, each) for each in others.values()]
    here.says(1, version=version())
    others[2].description = encode(AgentReport(version="0.0.9", beat=1))
    others[3].description = encode(AgentReport(version="0.0.8", beat=1))

    def look(now: float) -> parts.Part:
        here.controller.agents.look(now)
        for wire in (here.wire, *wires):
            wire.pump()
        return told(here.controller)["agents"]

    part = look(0.0)
    words = f"of another version than the controller ({version()}): n2 (0.0.9) and others"
    assert (part.state, part.message) == (parts.State.OK, f"3 of 3 alive, {words}")
    others[2].description = encode(AgentReport(version=version(), beat=2))
    others[3].description = encode(AgentReport(version=version(), beat=1))
    assert look(INTERVAL).message == "3 of 3 alive"
    here.says(2, version=version())
    look(LIMIT - 1)
    part = look(LIMIT + INTERVAL)
    assert part.state is parts.State.DEGRADED
    assert part.message.startswith("1 of 3 alive; node n2: its agent has said nothing for 100 s: ")
    part = look(3 * LIMIT)
    assert part.state is parts.State.FAILED and part.message.startswith("0 of 3 alive; node n1: ")
    found = samples(here.controller)
    assert found["signalbox_agents", frozenset({("state", "Lost")})] == 3
    assert found["signalbox_node_agent_lost", frozenset({("node", "n1")})] == 1


async def test_people_see_how_each_agent_is(tmp_path: Path) -> None:
    async with asked(tmp_path) as here:

        def say(now: float) -> None:
            here.controller.agents.look(now)
            here.wire.pump()

        here.wire.switch.description = encode(AgentReport(version="1.0", beat=1))
        say(0.0)
        status = await here.run("status")
        assert "1 of 1 alive" in status.output
        text = (await here.run("get", "nodes", "-o", "wide")).output.splitlines()
        columns = [line.split()[-2:] for line in text]
        assert columns == [["AGENT", "AGENT-VERSION"], ["Alive", "1.0"], ["Unknown", "<none>"]]
        say(LIMIT)
        status = await here.run("status")
        assert status.exit_code == 1
        assert "node n1: its agent has said nothing for 100 s: pods there can't be added or removed" in status.output
        described = (await here.run("describe", "node", "n1")).output
        assert "Agent Version:" in described and "AgentAlive       False" in described and "AgentLost" in described
        away = (await here.run("describe", "node", "n2")).output
        assert "AgentAlive       Unknown" in away
