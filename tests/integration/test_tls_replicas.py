"""A small lab with TLS and two controllers at once, from the command line: its master is killed, and it goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from probes import until
from test_failover import masters, name_of, others, until_taken_over, victim

from deploy.lab import substrate
from deploy.lab.cluster import Lab
from deploy.lab.layout import controller_target

ROOT = Path(__file__).parents[2]
NAME = f"tr{os.getpid()}"


def signalbox(*words: str, fine: bool = True) -> str:
    """What a command prints; `fine` is whether it must have ended well."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.command", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SIGNALBOX_LAB": NAME},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert not fine or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pod(name: str, node: str) -> str:
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "c", "command": ["sleep", "infinity"]}]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two nodes with a pod on each."""
    manifests = tmp_path_factory.mktemp("manifests") / "pods.yaml"
    manifests.write_text("\n---\n".join((pod("here", "node-1"), pod("there", "node-2"))))
    here = Lab(NAME)
    words = ("--nodes", "2", "--tls", "--controllers", "2", "--owner", str(os.getpid()), "-f", str(manifests))
    try:
        assert "2 nodes" in signalbox("lab", "up", *words)
        yield here
    finally:
        if here.is_up:
            here.down()


def ping(lab: Lab, source: str, target: str) -> None:
    (row,) = [row for row in lab.pods() if row["name"] == target]
    assert len(row["addresses"]) == 2
    for address in row["addresses"]:
        assert " 0% packet loss" in signalbox("lab", "exec", source, "--", "ping", "-i", "0.1", "-c", "3", address)


def told() -> dict[str, int]:
    """Of how many nodes each controller is master, says `signalbox status`."""
    text = signalbox("status", fine=False)
    found = re.findall(r"^(\S+): master of (\d+) nodes?,", text, re.MULTILINE)
    return {name: int(nodes) for name, nodes in found}


def test_a_master_is_killed_and_the_other_controller_goes_on_over_tls(lab: Lab, tmp_path: Path) -> None:
    for node in lab.nodes:
        shown = substrate.vsctl(lab.layout, node, "get-controller", "br-int")
        assert sorted(shown.split()) == [controller_target(lab.settings, number) for number in lab.controllers]
    ping(lab, "here", "there")
    gone = victim(lab)
    (left,) = others(lab, gone)
    # Whoever is asked reads the others' leases now and then.
    mine = list(masters(lab).values()).count(name_of(gone))
    until(lambda: told().get(name_of(gone)) == mine, "signalbox status names the master")

    lab.stop_controller(signal.SIGKILL, gone)
    until_taken_over(lab, gone)
    assert told()[name_of(left)] == 2
    assert f"\nthis is {name_of(left)};" in signalbox("status", fine=False)
    ping(lab, "here", "there")
    late = tmp_path / "late.yaml"
    late.write_text(pod("late", "node-2"))
    assert "pod/late created" in signalbox("lab", "apply", "-f", str(late))
    ping(lab, "here", "late")
    ping(lab, "late", "here")

    lab.start_controller(gone)
    until(lambda: sorted(told()) == sorted(map(name_of, lab.controllers)), "both are there")
    lab.wait_for_sync()
    ping(lab, "there", "late")
