"""What people look with, on real switches: differences, rates, how all is, descriptions, watches, a support bundle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from click.testing import CliRunner, Result
from guests import NAMESPACE, Guest
from probes import addresses, pings, pod_netns, until
from test_drift import ofctl

from deploy.command import main
from deploy.lab.cluster import Lab

ROOT = Path(__file__).parents[2]


def signalbox(lab: Lab, *words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [*words, "--lab", lab.layout.name])
    assert result.exit_code == code, result.output
    return result


def test_what_somebody_changed_by_hand_is_told_and_left_until_it_is_repaired(lab: Lab) -> None:
    lab.wait_for_sync()
    node = lab.nodes[2]
    assert "flows are as they should be" in signalbox(lab, "flows", node, "--diff").output
    ofctl(lab, node, "--names", "del-flows", "br-int", "table=Arp")
    ofctl(lab, node, "--names", "mod-flows", "br-int", "table=NdReply,actions=drop")
    ofctl(lab, node, "add-flow", "br-int", "table=99,priority=7,udp,actions=drop")
    # More than once: a question repairs nothing.
    for _ in range(2):
        rows = json.loads(signalbox(lab, "flows", node, "--diff", "-o", "json", code=1).output)["items"]
        assert {(row["state"], row["table"]) for row in rows} == {
            ("missing", "Arp"), ("altered", "NdReply"), ("foreign", "99"),
        }  # fmt: skip
    signalbox(lab, "resync", node)
    until(
        lambda: CliRunner().invoke(main, ["flows", node, "--diff", "--lab", lab.layout.name]).exit_code == 0, "repair"
    )


def test_what_flows_carry_is_measured(lab: Lab) -> None:
    command = ["ip", "netns", "exec", pod_netns(lab, "a1"), "ping", "-q", "-i", "0.01", "-w", "120"]
    command.append(addresses(lab, "b1")[0])
    pinging = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        words = ("flows", "node-1", "--pod", "a1", "--rate", "1", "-o", "json")

        def rates() -> list[float]:
            return [row["packetsPerSecond"] for row in json.loads(signalbox(lab, *words).output)["items"]]

        until(lambda: max(rates()) > 10, "flows of a1 carry the pings")
    finally:
        pinging.terminate()
        pinging.wait()


def test_all_is_well_in_a_lab_and_a_pod_is_told_with_its_flows(lab: Lab) -> None:
    lab.wait_for_sync()
    assert pings(pod_netns(lab, "a1"), "10.244.1.1") == 1
    parts = json.loads(signalbox(lab, "status", "-o", "json").output)["parts"]
    assert {part["state"] for part in parts} == {"Ok"}
    lines = signalbox(lab, "describe", "pod/a1").output.splitlines()
    flows = [line.split() for line in lines if line.split()[:1] == ["Classify"]]
    assert flows and int(flows[0][1]) > 0 and int(flows[0][2]) > 0


def test_a_pod_is_seen_to_come_and_go(lab: Lab, guest: Guest) -> None:
    words = ("get", "pods", "-n", NAMESPACE, "-w", "--output-watch-events", "--lab", lab.layout.name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    watching = subprocess.Popen(
        [sys.executable, "-m", "deploy.command", *words], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert watching.stdout is not None
    try:
        assert watching.stdout.readline().startswith("EVENT")
        path = guest.declare()
        assert watching.stdout.readline().split()[:3] == ["ADDED", guest.name, "Pending"]
        guest.add()
        seen = ""
        while "Ready" not in seen:
            seen = watching.stdout.readline()
            assert seen.startswith("MODIFIED")
        path.unlink()
        while "DELETED" not in seen:
            seen = watching.stdout.readline()
        assert guest.name in seen
    finally:
        watching.terminate()
        watching.wait()


def test_a_support_bundle_of_a_lab_lacks_nothing(lab: Lab, tmp_path: Path) -> None:
    target = tmp_path / "bundle.tar.gz"
    result = signalbox(lab, "support-bundle", "-o", str(target))
    assert "not in it" not in result.output
    with tarfile.open(target) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"status.json", "events.json", "metrics.txt", "logs/controller.log", "ABOUT.txt"} <= names
    assert {f"nodes/{node}/flows.json" for node in lab.nodes} <= names
