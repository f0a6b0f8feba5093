"""What nodes' agents report of hardware offload, as their switches are described by it, and what is told of that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from asked_controller import Asked, asked
from test_metrics import samples
from test_sync import node

from controller import kubernetes_reports
from controller.agent_reports import INTERVAL
from controller.kinds import kinds
from controller.offloads import fault_of, row
from topology.agent_report import AgentReport, encode
from topology.kubernetes.objects import About, Condition
from topology.offload import Report

GOOD = Report(
    capable=True,
    enabled=True,
    nics=1,
    used_functions=2,
    functions=8,
    offloaded=90,
    partial=1,
    not_offloaded=9,
    share=97,
)
WANTING = Report(asked=True, enabled=True, why="no NIC of this node has a switch that takes flows")


def say(here: Asked, report: Report, now: float) -> None:
    describe(here, encode(AgentReport(version="1.0", beat=1, offload=report)), now)


def describe(here: Asked, text: str, now: float) -> None:
    here.wire.switch.description = text
    here.controller.agents.look(now)
    here.wire.pump()


async def test_a_node_whose_nics_forward_is_shown_with_how_much_they_do(tmp_path: Path) -> None:
    async with asked(tmp_path) as here:
        say(here, GOOD, 0.0)
        told = (await here.run("offload", "-o", "wide")).output.splitlines()
        assert told[0].split() == [
            "NODE",
            "STATE",
            "CAPABLE",
            "ENABLED",
            "ASKED",
            "NICS",
            "FUNCTIONS",
            "FLOWS",
            "BYTES",
            "WHY",
        ]
        assert told[1].split() == ["n1", "InForce", "yes", "yes", "no", "1", "2/8", "90/1/9", "97%", "<none>"]
        assert told[2].split()[:2] == ["n2", "Unknown"]
        assert told[2].endswith("its switch isn't connected")
        rows = json.loads((await here.run("offload", "-o", "json")).output)["items"]
        assert rows == [row("n1", GOOD), row("n2", None, connected=False)]
        fields = [each.name for each in kinds(here.controller)["offload"].fields]
        assert all(list(each) == fields for each in rows)
        found = samples(here.controller)
        label = ("node", "n1")
        assert found["signalbox_node_offload_enabled", frozenset({label})] == 1
        assert found["signalbox_node_offload_wanting", frozenset({label})] == 0
        assert found["signalbox_node_offload_flows", frozenset({label, ("offloaded", "partially")})] == 1
        assert found["signalbox_node_offload_bytes_ratio", frozenset({label})] == 0.97
        assert found["signalbox_node_offload_functions", frozenset({label, ("state", "free")})] == 6
        assert not list(here.controller.offloads.troubles())


async def test_offload_that_was_asked_for_in_vain_is_a_problem_until_it_is_in_force(tmp_path: Path) -> None:
    async with asked(tmp_path) as here:
        say(here, WANTING, 0.0)
        trouble = f"node n1: hardware offload was asked for and is not in force: {WANTING.why}"
        status = await here.run("status")
        assert status.exit_code == 1 and trouble in status.output
        assert samples(here.controller)["signalbox_node_offload_wanting", frozenset({("node", "n1")})] == 1
        say(here, GOOD, INTERVAL / 2)
        assert list(here.controller.offloads.troubles()) == [trouble], "it isn't asked again so soon"
        say(here, GOOD, INTERVAL)
        assert not list(here.controller.offloads.troubles())


@pytest.mark.parametrize(
    "text", ["", "offload v9 whatever", "agent v1 version=1.0 beat=1 every=30", "somebody else's words"]
)
async def test_a_switch_that_is_described_otherwise_has_no_report(tmp_path: Path, text: str) -> None:
    async with asked(tmp_path) as here:
        describe(here, text, 0.0)
        first = next(here.controller.offloads.rows())
        assert (first["state"], first["why"]) == ("Unknown", "its agent has reported nothing")


async def test_what_a_switch_said_goes_with_its_connection(tmp_path: Path) -> None:
    async with asked(tmp_path) as here:
        say(here, GOOD, 0.0)
        here.controller.fleet.peers["n1"].close("over")
        here.controller.agents.look(1.0)
        assert here.controller.offloads.report("n1") is None


def test_a_node_gets_a_condition_where_offload_is_wanting_and_loses_it_in_words() -> None:
    name, fault = node(1).name, fault_of(WANTING)
    write = kubernetes_reports.offload(name, About(), fault, "now")
    assert write is not None and isinstance(write.body, dict)
    (made,) = write.body["status"]["conditions"]
    assert (made["type"], made["status"], made["message"]) == ("SignalboxOffloadUnavailable", "True", fault)
    there = About(offload=Condition(made["type"], made["status"], made["reason"], made["message"]))
    assert kubernetes_reports.offload(name, there, fault, "later") is None
    again = kubernetes_reports.offload(name, there, "", "later")
    assert again is not None and isinstance(again.body, dict)
    assert again.body["status"]["conditions"][0]["status"] == "False"
    assert kubernetes_reports.offload(name, About(), fault_of(GOOD), "now") is None, (
        "nothing is said of what was never wrong"
    )
