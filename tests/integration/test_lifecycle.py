"""Pods come and go, files break and are mended."""

from __future__ import annotations

import signal
from ipaddress import ip_address
from pathlib import Path

import yaml
from callers import put
from probes import addresses, echo, ping_all, pings, pod_netns, until

from deploy.lab import kubelet, substrate
from deploy.lab.cluster import Lab
from topology.naming import object_id


def pod_file(directory: Path, name: str, node: str) -> Path:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "pause", "image": "pause"}]},
    }
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(pod))
    return path


def flows_of(lab: Lab, node: str, pod: str) -> int:
    return len(lab.ask("nodes", node, "flows", pod=f"default/{pod}")["items"])


def test_a_pod_that_leaves_is_unreachable_and_leaves_no_flow(lab: Lab, tmp_path: Path) -> None:
    path = pod_file(tmp_path, "guest", "node-2")
    lab.apply([path])
    known = addresses(lab, "guest")
    pairs = [(pod_netns(lab, pod), address) for pod in ("a1", "b1") for address in known]
    assert not ping_all(pairs)
    assert flows_of(lab, "node-2", "guest") > 0
    lab.delete([path])
    assert not [pair for pair in pairs if pings(*pair, wait=0.3)]
    row = [
        row
        for row in lab.ask("nodes", "node-2", "flows")["items"]
        if f"{object_id('Pod', 'default', 'guest'):x}" in row["ofctl"]
    ]
    assert not row


def test_an_agent_that_starts_anew_gives_the_next_address_and_none_that_was_given_back(
    lab: Lab, tmp_path: Path
) -> None:
    first, second = (pod_file(tmp_path, name, "node-3") for name in ("first", "second"))
    lab.apply([first])
    former = addresses(lab, "first")
    lab.delete([first])
    lab.stop_agent("node-3", signal.SIGKILL)
    lab.start_agent("node-3")
    lab.wait_for_agents()
    lab.apply([second])
    try:
        assert addresses(lab, "second") == [str(ip_address(each) + 1) for each in former]
    finally:
        lab.delete([second])


def test_an_address_that_was_given_back_is_given_again_and_works(lab: Lab, tmp_path: Path) -> None:
    first, second = (pod_file(tmp_path, name, "node-3") for name in ("first", "second"))
    lab.apply([first])
    former = addresses(lab, "first")
    lab.delete([first])
    lab.stop_agent("node-3")
    # As if all others had been given meanwhile.
    place = int(ip_address(former[0])) & 0xFF
    substrate.vsctl(lab.layout, "node-3", "set", "Bridge", "br-int", f"external_ids:signalbox/last-place={place - 1}")
    lab.start_agent("node-3")
    lab.wait_for_agents()
    lab.apply([second])
    try:
        assert addresses(lab, "second") == former
        pairs = [(pod_netns(lab, pod), address) for pod in ("a1", "c1") for address in former]
        until(lambda: not ping_all(pairs, wait=0.2), "the pod that has the address now answers")
    finally:
        lab.delete([second])


def test_pods_come_and_go_while_others_talk(lab: Lab, tmp_path: Path) -> None:
    files = [pod_file(tmp_path, f"crowd-{number}", f"node-{number % 3 + 1}") for number in range(9)]
    lab.apply([tmp_path])
    rows = [row for row in lab.ask("pods")["items"] if row["name"].startswith("crowd-")]
    known = [address for row in rows for address in row["addresses"]]
    assert len(known) == len(set(known)) == 2 * len(files)
    assert not ping_all((pod_netns(lab, "a1"), address) for address in known)
    lab.delete([tmp_path])
    assert not [row for row in lab.ask("pods")["items"] if row["name"].startswith("crowd-")]
    answers = echo(pod_netns(lab, "a1"), "tcp", addresses(lab, "c1"))
    assert all("peer" in answer for answer in answers.values())


def test_a_broken_file_is_reported_with_its_line_and_the_last_good_state_stays(lab: Lab) -> None:
    path = lab.layout.manifests / "pod.default.b1.yaml"
    good = path.read_text()
    sent = {row["name"]: row["flowModsSent"] for row in lab.ask("nodes")["items"]}
    try:
        put(path, good + "\n  bad: [unclosed\n")
        until(lambda: not lab.ask("status")["healthy"], "the broken file is noticed")
        (problem,) = lab.ask("status")["problems"]
        assert problem.startswith(f"{path}:") and problem.removeprefix(f"{path}:")[0].isdigit(), problem
        assert not ping_all((pod_netns(lab, "a1"), address) for address in addresses(lab, "b1"))
    finally:
        put(path, good)
    until(lambda: bool(lab.ask("status")["healthy"]), "the file is good again")
    assert {row["name"]: row["flowModsSent"] for row in lab.ask("nodes")["items"]} == sent


def test_a_pod_s_command_runs_in_its_namespace_and_its_end_is_told(lab: Lab, tmp_path: Path) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "once"},
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "c", "image": "sh", "env": [{"name": "WORD", "value": "hello"}],
                            "command": ["sh", "-c", "echo $WORD; ip -4 addr show eth0; exit 3"]}],
        },
    }  # fmt: skip
    path = tmp_path / "once.yaml"
    path.write_text(yaml.safe_dump(pod))
    lab.apply([path])
    try:

        def state() -> str:
            (row,) = [row for row in lab.pods() if row["name"] == "once"]
            return str(row["status"])

        until(lambda: state() == "Error (3)", "the command ends")
        log = kubelet.log_of(lab.layout, "default", "once").read_text()
        assert log.startswith("hello\n") and addresses(lab, "once")[0] in log
    finally:
        lab.delete([path])


def test_the_datapath_follows_learnt_flows_soon_unless_somebody_has_said_otherwise(lab: Lab) -> None:
    def said() -> str:
        return substrate.vsctl(lab.layout, "node-3", "get", "Open_vSwitch", ".", "other_config:max-revalidator").strip()

    assert said() == '"200"'
    substrate.vsctl(lab.layout, "node-3", "set", "Open_vSwitch", ".", "other_config:max-revalidator=300")
    lab.stop_agent("node-3")
    lab.start_agent("node-3")
    lab.wait_for_agents()
    assert said() == '"300"'
    substrate.vsctl(lab.layout, "node-3", "set", "Open_vSwitch", ".", "other_config:max-revalidator=200")
