"""Flows that somebody changes by hand are found by the audit, told of, and put right."""

from __future__ import annotations

import os
import subprocess

import pytest
from probes import addresses, answers, pod_netns, until

from deploy.lab.cluster import Lab
from deploy.lab.substrate import switch_environment


def ofctl(lab: Lab, node: str, *words: str) -> str:
    done = subprocess.run(
        ["ovs-ofctl", *words],
        env={**os.environ, **switch_environment(lab.layout, node)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def held(lab: Lab, node: str) -> set[str]:
    """A switch's flows, without what changes by itself."""
    return set(ofctl(lab, node, "--names", "--no-stats", "dump-flows", "br-int").splitlines())


def repaired(lab: Lab, node: str) -> int:
    (row,) = [row for row in lab.ask("nodes")["items"] if row["name"] == node]
    return int(row["repaired"])


@pytest.mark.parametrize(
    "by_hand",
    [
        pytest.param(("del-flows", "br-int", "table=Route"), id="a table emptied"),
        pytest.param(("del-flows", "br-int"), id="every flow deleted"),
        pytest.param(("add-flow", "br-int", "table=Classify,priority=9000,icmp,actions=drop"), id="a flow added"),
        pytest.param(("mod-flows", "br-int", "table=Output,actions=drop"), id="actions altered"),
        pytest.param(("add-flow", "br-int", "table=99,actions=normal"), id="a flow in a table of nobody"),
    ],
)
def test_what_was_changed_by_hand_is_found_told_and_repaired(lab: Lab, by_hand: tuple[str, ...]) -> None:
    node, log = "node-2", lab.layout.directory / "controller.log"
    lab.wait_for_sync()
    good, count, told = held(lab, node), repaired(lab, node), len(log.read_text())
    others = {row["name"]: row["flowModsSent"] for row in lab.ask("nodes")["items"] if row["name"] != node}
    ofctl(lab, node, "--names", *by_hand)
    assert held(lab, node) != good
    lab.audit()
    until(lambda: held(lab, node) == good, "the flows are as they were")
    assert repaired(lab, node) > count
    (line,) = [line for line in log.read_text()[told:].splitlines() if "WARNING" in line and node in line][:1]
    assert "missing" in line or "altered" in line or "foreign" in line, line
    answers(pod_netns(lab, "a1"), addresses(lab, "b1")[0])
    after = {row["name"]: row["flowModsSent"] for row in lab.ask("nodes")["items"] if row["name"] != node}
    assert after == others


def test_an_audit_of_a_switch_in_order_sends_nothing(lab: Lab) -> None:
    lab.wait_for_sync()
    before = [(row["flowModsSent"], row["repaired"]) for row in lab.ask("nodes")["items"]]
    lab.audit()
    # Comparisons are made one after another, and with these the audit's are over.
    for node in (*lab.nodes, *lab.nodes):
        lab.ask("nodes", node, "flows", diff="1")
    lab.wait_for_sync()
    assert [(row["flowModsSent"], row["repaired"]) for row in lab.ask("nodes")["items"]] == before
