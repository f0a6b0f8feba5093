"""Parts die and come back: traffic goes on, nothing is sent twice, nothing is given twice."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator

import click
import msgspec
import pytest
from click.testing import CliRunner, Result
from guests import Guest
from probes import (
    HERE,
    LONG,
    PODS,
    addresses,
    answers,
    flows_of,
    node_addresses,
    pairs_between,
    ping_all,
    pod_netns,
    until,
)

from deploy.command import main
from deploy.lab import substrate
from deploy.lab.cluster import Lab
from deploy.lab.kubelet import CniFailure
from deploy.lab.layout import netns_path
from node.cni.spec import Code
from topology.agent_report import encode, parse

_INTERVAL = 0.01


class Pinging:
    """Pings until the end of the block; then `lost` says how many weren't answered, and `sent` how many there were."""

    def __init__(self, netns: str, address: str, interval: float) -> None:
        self.title = f"{netns} -> {address}"
        self.sent = self.lost = 0
        argv = ["python3", "-I", "-S", str(HERE / "pinger.py"), address, str(interval)]
        self._process = subprocess.Popen(
            ["nsenter", f"--net={netns_path(netns)}", "--", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None and self._process.stdout.readline() == "begun\n"

    def finish(self) -> None:
        told = json.loads(self._process.communicate(timeout=2 * LONG)[0])
        self.sent, self.lost = told["sent"], told["lost"]


@contextlib.contextmanager
def pinging(pairs: list[tuple[str, str]], interval: float = _INTERVAL) -> Iterator[list[Pinging]]:
    running = [Pinging(*pair, interval) for pair in pairs]
    try:
        yield running
    finally:
        for each in running:
            each.finish()


def crossing(lab: Lab) -> list[tuple[str, str]]:
    """Pairs on one node, across nodes, from a node, over both families."""
    pairs = [(pod_netns(lab, "a1"), address) for pod in ("a2", "b1") for address in addresses(lab, pod)]
    return pairs + [(lab.netns_of_node("node-3"), address) for address in addresses(lab, "b1")]


def test_a_controller_that_is_killed_and_comes_back_sends_nothing_and_loses_no_ping(lab: Lab) -> None:
    lab.wait_for_sync()
    with pinging(crossing(lab)) as running:
        time.sleep(0.3)
        lab.stop_controller(signal.SIGKILL)
        time.sleep(0.5)
        lab.start_controller()
        lab.wait_for_sync()
        sent = {row["name"]: (row["flowModsSent"], row["bundlesSent"]) for row in lab.ask("nodes")["items"]}
        time.sleep(0.3)
    assert sent == dict.fromkeys(lab.nodes, (0, 0))
    assert [each.sent > 50 for each in running] == [True] * len(running)
    assert {each.title: each.lost for each in running} == {each.title: 0 for each in running}


def test_a_controller_that_is_told_to_stop_leaves_no_socket(lab: Lab) -> None:
    sockets = (lab.layout.api, lab.layout.openflow)
    assert all(path.is_socket() for path in sockets)
    lab.stop_controller()
    try:
        assert not any(path.exists() for path in sockets)
    finally:
        lab.start_controller()
    lab.wait_for_sync()


def test_what_changed_while_the_controller_was_away_is_made_up_for(lab: Lab, guest: Guest) -> None:
    lab.stop_controller(signal.SIGKILL)
    try:
        guest.declare()
    finally:
        lab.start_controller()
    assert guest.add()["ips"]
    answers(pod_netns(lab, "a1"), guest.addresses[0])


@pytest.mark.parametrize("how", ["killed and started", "crashed"])
def test_a_switch_that_dies_has_full_connectivity_again(lab: Lab, how: str) -> None:
    pairs = pairs_between(lab, ["b1"], [*PODS]) + pairs_between(lab, ["a1", "c1"], ["b1"])
    pairs += [(lab.netns_of_node("node-2"), address) for pod in PODS for address in addresses(lab, pod)]
    pairs += [(pod_netns(lab, pod), address) for pod in PODS for address in node_addresses(lab, "node-2")]
    assert not ping_all(pairs)
    former = lab.switch_process("node-2")
    if how == "crashed":
        # ovs-vswitchd's own monitor starts it anew after a fault, and nobody else does a thing.
        begun = time.monotonic()
        lab.stop_switch("node-2", signal.SIGSEGV)
    else:
        lab.stop_switch("node-2", signal.SIGKILL)
        begun = time.monotonic()
        substrate.start_switch(lab.layout, "node-2")
    until(lambda: not ping_all(pairs, wait=0.2), "every pair that crosses the node answers")
    assert lab.switch_process("node-2") != former
    print(f"ovs-vswitchd {how}: full connectivity after {time.monotonic() - begun:.2f} s")
    lab.wait_for_sync()
    index = lab.nodes.index("node-2")
    substrate.prepare_switch(lab.layout, lab.settings, "node-2", index)


def places(lab: Lab, node: str) -> Counter[str]:
    """How often each place in the node's CIDRs is taken."""
    text = substrate.vsctl(lab.layout, node, "--bare", "--columns=external_ids", "list", "Interface")
    return Counter(word for word in text.split() if word.startswith("signalbox/place="))


def pod_links(lab: Lab, node: str) -> set[str]:
    text = substrate.run(["ip", "-n", lab.layout.node_netns(node), "-o", "link", "show", "type", "veth"])
    return {name for name in (line.split(": ")[1].split("@")[0] for line in text.splitlines()) if name != "eth0"}


def pod_ports(lab: Lab, node: str) -> set[str]:
    return set(substrate.vsctl(lab.layout, node, "list-ports", "br-int").split()) - {"sb-gw0", "sb-tun0"}


def test_an_agent_killed_while_add_waits_for_flows_serves_the_next_add(lab: Lab, guest: Guest) -> None:
    before = pod_ports(lab, guest.node)
    guest.declare()
    lab.stop_controller()
    try:
        adding = guest.begin("ADD")
        until(lambda: pod_ports(lab, guest.node) > before, "the port is there")
        lab.stop_agent(guest.node, signal.SIGKILL)
        code, answer = guest.finish(adding)
        assert code == 1 and answer["code"] == Code.TRY_LATER and "doesn't answer" in answer["msg"]
    finally:
        lab.start_agent(guest.node)
        lab.start_controller()
    lab.wait_for_agents()
    guest.add()
    answers(pod_netns(lab, "a1"), guest.addresses[0])
    assert set(places(lab, guest.node).values()) == {1}
    assert pod_links(lab, guest.node) == pod_ports(lab, guest.node)


def test_an_agent_killed_at_any_moment_of_add_or_del_leaks_nothing_and_gives_nothing_twice(
    lab: Lab, guest: Guest
) -> None:
    guest.declare()
    moments = random.Random(1)
    for command in ["ADD", "ADD", "ADD", "DEL", "ADD", "ADD", "DEL"]:
        running = guest.begin(command)
        time.sleep(moments.uniform(0, 0.04))
        lab.stop_agent(guest.node, signal.SIGKILL)
        guest.finish(running)
        lab.start_agent(guest.node)
        lab.wait_for_agents()
        guest.add()
        assert max(places(lab, guest.node).values()) == 1
        assert pod_links(lab, guest.node) == pod_ports(lab, guest.node)
        answers(pod_netns(lab, "a1"), guest.addresses[0])


def test_an_agent_that_is_killed_is_missed_and_one_that_is_started_is_heard(lab: Lab) -> None:
    def agent(node: str) -> str:
        (row,) = [row for row in lab.ask("nodes")["items"] if row["name"] == node]
        return str(row["agent"])

    def status() -> Result:
        return CliRunner().invoke(main, ["status", "--socket", str(lab.layout.api)])

    until(lambda: all(agent(node) == "Alive" for node in lab.nodes), "all agents are heard")
    assert (status().exit_code, "3 of 3 alive" in status().output) == (0, True)
    lab.stop_agent("node-2", signal.SIGKILL)
    try:
        # What it has said last, as if it were to beat every second: two minutes are long for a test.
        said = parse(
            json.loads(substrate.vsctl(lab.layout, "node-2", "get", "bridge", "br-int", "other_config:dp-desc"))
        )
        assert said is not None and said.beat is not None
        hasty = encode(msgspec.structs.replace(said, beat=said.beat + 1, every=1))
        substrate.vsctl(lab.layout, "node-2", "set", "bridge", "br-int", f'other_config:dp-desc="{hasty}"')
        until(lambda: agent("node-2") == "Lost", "the agent is missed", timeout=60)
        told = status()
        assert told.exit_code == 1 and "2 of 3 alive" in told.output
        assert re.search(
            r"- node node-2: its agent has said nothing for \d+ s: pods there can't be added or removed", told.output
        )
        assert not ping_all(pairs_between(lab, ["a1"], ["b1"])), "what there is goes on"
    finally:
        lab.start_agent("node-2")
        lab.wait_for_agents()
    until(lambda: agent("node-2") == "Alive", "the agent is back", timeout=40)
    until(lambda: status().exit_code == 0, "all is well", timeout=40)
    reasons = [row["reason"] for row in lab.ask("events")["items"] if row["object"] == "Node node-2"]
    assert [each for each in reasons if each.startswith("Agent")][-2:] == ["AgentLost", "AgentBack"]


def test_a_switch_that_is_stopped_does_not_delay_the_others_and_catches_up(lab: Lab, guest: Guest) -> None:
    stalled = "node-3"
    assert guest.node != stalled
    process = lab.switch_process(stalled)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        guest.declare()
        # The pod concerns its own node, the new node all of them.
        stranger = guest.declare_node("stranger", "10.244.77.0/24", "172.30.0.77")
        guest.add()
        answers(pod_netns(lab, "a1"), guest.addresses[0])
        for node in set(lab.nodes) - {stalled}:
            until(functools.partial(flows_of, lab, node, "10.244.77.0/24"), f"{node} has the route")
        (row,) = [row for row in lab.ask("nodes")["items"] if row["name"] == stalled]
        assert row["status"] == "Syncing"
    finally:
        os.kill(process.pid, signal.SIGCONT)
    until(functools.partial(flows_of, lab, stalled, "10.244.77.0/24"), f"{stalled} has the route")
    stranger.unlink()
    lab.wait_for_sync()
    assert not any(flows_of(lab, node, "10.244.77.0/24") for node in lab.nodes)


def test_a_switch_that_stays_silent_is_given_up_and_taken_back(lab: Lab) -> None:
    process = lab.switch_process("node-3")
    os.kill(process.pid, signal.SIGSTOP)
    try:

        def given_up() -> bool:
            return any("node-3" in problem for problem in lab.ask("status")["problems"])

        with pytest.raises(click.ClickException, match="'node-3' doesn't answer within"):
            lab.ask("nodes", "node-3", "flows")
        until(given_up, "the silent switch is noticed")
        (row,) = [row for row in lab.ask("nodes")["items"] if row["name"] == "node-3"]
        assert row["status"] == "Disconnected"
    finally:
        os.kill(process.pid, signal.SIGCONT)
    until(lambda: bool(lab.ask("status")["healthy"]), "the switch is back")
    assert not ping_all(pairs_between(lab, ["a1"], ["c1"]))
    (row,) = [row for row in lab.ask("nodes")["items"] if row["name"] == "node-3"]
    assert row["flowModsSent"] == 0


def test_an_add_without_a_controller_fails_after_a_bounded_wait_and_leaves_nothing(lab: Lab, guest: Guest) -> None:
    before = pod_ports(lab, guest.node)
    guest.declare()
    lab.stop_controller()
    try:
        begun = time.monotonic()
        with pytest.raises(CniFailure, match="is the controller running") as failure:
            guest.add()
        assert failure.value.code == Code.TRY_LATER
        assert time.monotonic() - begun < 30
        assert pod_ports(lab, guest.node) == pod_links(lab, guest.node) == before
    finally:
        lab.start_controller()
    guest.add()
