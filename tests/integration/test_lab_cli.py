"""The lab from the command line: what a person types, and what comes back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from probes import until

from deploy.lab.cluster import Lab
from deploy.lab.substrate import namespaces

ROOT = Path(__file__).parents[2]
NAME = f"cli{os.getpid()}"
NOBODY = 65534
EXAMPLES = ROOT / "deploy/lab/examples"
#: A lab of these tests goes with them, also when they are killed.
OURS = ("--owner", str(os.getpid()))


def signalbox(*words: str, code: int = 0) -> str:
    """What a command prints. A traceback is never an answer."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.command", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SIGNALBOX_LAB": NAME},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def shell() -> Iterator[Lab]:
    """Two nodes over Geneve, with the examples that the README names."""
    here = Lab(NAME)
    try:
        said = signalbox("lab", "up", *OURS, "--nodes", "2", "--encap", "geneve", "-f", str(EXAMPLES))
        assert re.search(rf"lab {NAME} is up: 2 nodes, [\d.]+ s\n", said), said
        yield here
    finally:
        signalbox("lab", "down")
    assert not [netns for netns in namespaces() if here.layout.owns(netns)]
    assert not here.layout.directory.exists()


def admin(shell: Lab) -> tuple[str, str]:
    return ("--socket", str(shell.layout.api))


def test_an_agent_that_starts_on_a_new_node_finds_nothing_wrong_with_its_host(shell: Lab) -> None:
    logs = [log.read_text() for log in shell.layout.directory.glob("nodes/*/agent.log")]
    assert len(logs) == 2 and all("is ready" in log for log in logs)
    assert [line for log in logs for line in log.splitlines() if "WARNING node.host" in line] == []


def test_status_is_a_table_json_and_yaml(shell: Lab) -> None:
    text = signalbox("lab", "status")
    assert f"lab {NAME}: overlay by geneve, 2 of 2 nodes in sync" in text
    assert re.search(r"default +web-0 +Running +Ready +10\.244\.\d\.\d+,fd00:\S+ +node-\d", text), text
    as_json, as_yaml = json.loads(signalbox("lab", "status", "-o", "json")), signalbox("lab", "status", "-o", "yaml")
    assert as_json["nodesInSync"] == 2 and yaml.safe_load(as_yaml) == as_json


def test_exec_runs_in_the_pod_and_passes_its_exit_code_on(shell: Lab) -> None:
    pods = {row["name"]: row for row in shell.pods()}
    address = pods["web-1"]["addresses"][0]
    assert "1 received" in signalbox("lab", "exec", "web-0", "--", "ping", "-c", "1", address)
    assert pods["web-0"]["addresses"][0] in signalbox("lab", "exec", "web-0", "--", "ip", "addr")
    signalbox("lab", "exec", "web-0", "--", "sh", "-c", "exit 7", code=7)
    probe = next(name for name, row in pods.items() if row["namespace"] == "monitoring")
    for words in (("-n", "monitoring", probe), (probe, "-n", "monitoring")):
        assert signalbox("lab", "exec", *words, "--", "echo", "here") == "here\n"


def test_a_node_s_own_tools_show_named_tables(shell: Lab) -> None:
    flows = signalbox("lab", "node", "node-1", "--", "ovs-ofctl", "--names", "dump-flows", "br-int")
    assert "table=Classify" in flows and "resubmit(,Track)" in flows
    plain = signalbox("lab", "node", "node-1", "--", "ovs-ofctl", "dump-flows", "br-int")
    assert "priority=" in plain
    assert "br-int" in signalbox("lab", "node", "node-1", "--", "ovs-vsctl", "show")
    assert "ovs-vswitchd" in signalbox("lab", "node", "node-1", "--", "ovs-appctl", "version")


def test_apply_and_delete_speak_as_kubectl_does(shell: Lab, tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "extra"},
        "spec": {"containers": [{"name": "c", "image": "c", "command": ["sh", "-c", "echo started; sleep 1000"]}]},
    }
    path.write_text(yaml.safe_dump(pod))
    assert signalbox("lab", "apply", "-f", str(path)) == "pod/extra created\n"
    assert signalbox("lab", "apply", "-f", str(path)) == "pod/extra unchanged\n"
    assert "extra" in signalbox(*("get", "pods"), *admin(shell))
    until(lambda: signalbox("lab", "logs", "extra") == "started\n", "its command runs")
    path.write_text(yaml.safe_dump(pod | {"metadata": {"name": "extra", "labels": {"a": "b"}}}))
    assert signalbox("lab", "apply", "-f", str(path)) == "pod/extra configured\n"
    assert signalbox("lab", "delete", "-f", str(path)) == "pod/extra deleted\n"
    assert "not found" in signalbox_output("lab", "delete", "-f", str(path), code=1)


def signalbox_output(*words: str, code: int) -> str:
    """Standard output of a command that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.command", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SIGNALBOX_LAB": NAME},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code
    return done.stdout


def test_a_pod_whose_node_doesn_t_take_it_yet_is_connected_as_soon_as_it_does(shell: Lab, tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(yaml.safe_dump(pod_on("late", "node-2")))
    shell.stop_agent("node-2")
    try:
        applying = begin("lab", "apply", "-f", str(path))
        until((shell.layout.pod("default", "late") / "pod.json").exists, "the pod is begun")
    finally:
        shell.start_agent("node-2")
    assert applying.communicate(timeout=60)[0] == "pod/late created\n" and applying.returncode == 0
    assert "1 received" in signalbox("lab", "exec", "web-0", "--", "ping", "-c", "1", address_of(shell, "late"))
    signalbox("lab", "delete", "-f", str(path))


def test_a_pod_that_came_to_nothing_is_begun_anew_by_the_next_apply(shell: Lab, tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(yaml.safe_dump(pod_on("lost", "node-2")))
    shell.stop_agent("node-2")
    try:
        answer = signalbox("lab", "apply", "-f", str(path), code=1)
        assert re.search(r"pod default/lost: CNI ADD: .* doesn't answer.*\(tried \d+ times in 2\d s\)$", answer, re.M)
    finally:
        shell.start_agent("node-2")
        shell.wait_for_agents()
    assert signalbox("lab", "apply", "-f", str(path)) == "pod/lost unchanged\n"
    assert "1 received" in signalbox("lab", "exec", "web-0", "--", "ping", "-c", "1", address_of(shell, "lost"))
    signalbox("lab", "delete", "-f", str(path))


def pod_on(name: str, node: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "c"}]},
    }


def address_of(shell: Lab, pod: str) -> str:
    return next(str(row["addresses"][0]) for row in shell.pods() if row["name"] == pod)


def begin(*words: str) -> subprocess.Popen[str]:
    """A command that goes on while something else is done."""
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.command", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SIGNALBOX_LAB": NAME},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_the_controller_knows_is_shown_in_every_form(shell: Lab) -> None:
    at = admin(shell)
    assert re.search(r"^node-1 +Synced ", signalbox("get", "nodes", *at), re.M)
    assert {row["name"] for row in json.loads(signalbox("get", "nodes", "-o", "json", *at))["items"]} == {
        "node-1",
        "node-2",
    }
    everywhere = signalbox("get", "pods", "-A", "-o", "wide", *at)
    assert "monitoring" in everywhere and "web-0" in everywhere
    assert "web-0" in signalbox("get", "pods", *at) and "monitoring" not in signalbox("get", "pods", *at)
    assert "overlay" in signalbox("get", "links", *at)
    (row,) = [row for row in shell.pods() if row["name"] == "web-0"]
    flows = signalbox("flows", row["node"], "--pod", "web-0", *at)
    assert "Pod default/web-0" in flows and row["addresses"][0] in flows and "Classify" in flows
    only = signalbox("flows", "node-1", "--table", "Route", "-o", "json", *at)
    assert {each["table"] for each in json.loads(only)["items"]} == {"Route"}
    assert "node-2" in signalbox("topology", *at)
    assert signalbox("topology", "-o", "dot", *at).startswith(("graph", "strict graph"))
    assert "<svg" in signalbox("topology", "-o", "svg", *at)


def test_logs_of_the_parts(shell: Lab) -> None:
    assert "is ready" in signalbox("lab", "logs", "node/node-1")
    assert "connected" in signalbox("lab", "logs", "controller")
    assert "ovs-vswitchd" in signalbox("lab", "logs", "switch/node-1")
    following = begin("lab", "logs", "-f", "controller")
    assert following.stdout is not None and "listening" in following.stdout.readline()
    following.terminate()
    following.communicate(timeout=10)


def test_labs_are_listed(shell: Lab) -> None:
    rows = json.loads(signalbox("lab", "list", "-o", "json"))
    rows = rows["items"] if isinstance(rows, dict) else rows
    assert {"name": NAME, "nodes": 2, "mode": "overlay", "encap": "geneve"} in rows


def test_two_labs_run_side_by_side(shell: Lab) -> None:
    other = f"{NAME}-b"
    signalbox("lab", "up", *OURS, "--name", other, "--nodes", "1", "--ip-family", "ipv4", "-q", "-f", str(EXAMPLES))
    try:
        web = signalbox("lab", "exec", "--name", other, "web-0", "--", "hostname", "-I")
        assert web and ":" not in web
        assert "1 of 1 nodes in sync" in signalbox("lab", "status", "--name", other)
        assert "2 of 2 nodes in sync" in signalbox("lab", "status")
    finally:
        signalbox("lab", "down", "--name", other)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lab", "up"), f"lab '{NAME}' is up already"),
        (("lab", "up", "--name", "Bad_Name"), "lower-case letters"),
        (("lab", "up", "--name", f"{NAME}x", "-f", "/nowhere.yaml"), "/nowhere.yaml: no such file"),
        (("lab", "status", "--name", "nobody"), "there is no lab 'nobody'; up are"),
        (("lab", "down", "--name", "nobody"), "there is no lab 'nobody'"),
        (("lab", "exec", "nobody", "--", "true"), "pod 'nobody' not found in namespace 'default'; there: client-"),
        (("lab", "node", "node-9", "--", "true"), "node 'node-9' not found; there: node-1, node-2"),
        (("lab", "logs", "nobody"), "pod 'nobody' not found"),
        (("lab", "apply", "-f", "/nowhere.yaml"), "/nowhere.yaml: no such file"),
        (("lab", "up", "--name", f"{NAME}x", "--owner", "999999999"), "--owner 999999999: there is no such process"),
        (("get", "nodes", "--socket", "/nowhere.sock"), "is the controller running?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_can_t_be_done_is_one_line(shell: Lab, words: tuple[str, ...], said: str) -> None:
    answer = signalbox(*words, code=1)
    assert said in answer
    assert len(answer.strip().splitlines()) == 1


def test_a_file_that_can_t_be_is_refused_whole_with_its_line(shell: Lab, tmp_path: Path) -> None:
    good = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fine"}, "spec": {"containers": []}}
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(good) + "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: Not_A_Name\nspec: {}\n")
    answer = signalbox("lab", "apply", "-f", str(path), code=1)
    assert re.search(rf"{re.escape(str(path))}:\d+: ", answer) and "Not_A_Name" in answer, answer
    assert "fine" not in {row["name"] for row in shell.pods()}


def test_root_is_asked_for_in_one_line(shell: Lab) -> None:
    # Python may be where only root can read it: so it becomes somebody else after it has been loaded.
    script = (
        "import os, deploy.command, deploy.lab.layout\n"
        f"os.setresuid({NOBODY}, {NOBODY}, {NOBODY})\n"
        "deploy.command.main(['lab', 'status'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "Error: labs are made of network namespaces, which takes root: use sudo\n"


def test_a_namespace_of_somebody_else_is_not_touched(shell: Lab) -> None:
    netns = f"sb-{NAME}y.mine"
    # A shell that waits on its input has it, and takes it away when these tests end, however they end.
    script = f"ip netns add {netns}; echo; read _; ip netns del {netns}"
    somebody = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert somebody.stdout is not None and somebody.stdout.readline()
        assert f"ip netns del {netns}" in signalbox("lab", "up", "--name", f"{NAME}y", code=1)
        assert netns in namespaces()
    finally:
        somebody.communicate()
    assert netns not in namespaces()
