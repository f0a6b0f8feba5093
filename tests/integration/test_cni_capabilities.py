"""What a runtime may ask for beside an address: limits of bandwidth, and host ports."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from guests import NAMESPACE, Guest
from probes import addresses, inside, node_addresses, pod_netns, until

from deploy.lab import substrate
from deploy.lab.cluster import Lab
from deploy.lab.kubelet import CniFailure
from deploy.lab.layout import netns_path
from node.cni.spec import Code
from node.limits import Bandwidth, Limit
from node.ovsdb import Database, add_pod_port, remove_ports
from topology.naming import pod_port_name

POUR = str(Path(__file__).with_name("pour.py"))
PORT = 7777
#: Bits a second: far from what a pod gets without a limit on a machine at leisure; enough for TCP to be steady.
RATE = 20_000_000


@pytest.fixture
def pod(guest: Guest) -> Iterator[Guest]:
    guest.declare()
    return guest


def rate(source: str, sink: str, address: str, seconds: float = 1.5, by: tuple[str, int] | None = None) -> float:
    """Bits a second that a TCP connection carries from one namespace to an address in another, or `by` another way."""
    server = subprocess.Popen(
        ["nsenter", f"--net={netns_path(sink)}", "--", "python3", "-IS", POUR, "serve", address, str(PORT)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        done = inside(source, ["python3", "-IS", POUR, "send", *map(str, by or (address, PORT)), str(seconds)])
        assert done.returncode == 0, done.stderr
        told = json.loads(server.stdout.readline())
        return float(told["bytes"] * 8 / told["seconds"])
    finally:
        server.kill()
        server.communicate()


def shapers(lab: Lab, node: str) -> int:
    rows = [json.loads(substrate.vsctl(lab.layout, node, "-f", "json", "list", table)) for table in ("qos", "queue")]
    return sum(len(each["data"]) for each in rows)


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_what_a_pod_gets_and_sends_is_limited_as_asked(lab: Lab, pod: Guest, family: int) -> None:
    here, there = pod_netns(lab, "b1"), addresses(lab, "b1")[family]
    pod.add()

    def gets(seconds: float = 1.5) -> float:
        return rate(here, pod.netns, pod.addresses[family], seconds)

    def sends(seconds: float = 1.5) -> float:
        return rate(pod.netns, here, there, seconds)

    # So that the limit is far below what the machine has to give just now, and a moment of less is waited for.
    limit = min(RATE, int(min(gets(), sends()) / 8))
    pod.add(runtimeConfig={"bandwidth": {"ingressRate": limit, "ingressBurst": 2**31 - 1}})
    until(lambda: 0.8 * limit < gets(4) < 1.4 * limit, "it gets as much as it may")
    until(lambda: sends() > 3 * limit, "it sends as much as ever")
    pod.add(runtimeConfig={"bandwidth": {"egressRate": limit, "egressBurst": 2**31 - 1}})
    until(lambda: 0.8 * limit < sends(4) < 1.4 * limit, "it sends as much as it may")
    until(lambda: gets() > 3 * limit, "it gets as much as ever")


def test_limits_go_with_the_pod(lab: Lab, pod: Guest) -> None:
    limits = {"bandwidth": {"ingressRate": RATE, "egressRate": RATE}}
    for _ in range(2):
        result = pod.add(runtimeConfig=limits)
        assert shapers(lab, pod.node) == 2
    pod.call("CHECK", prevResult=result, runtimeConfig=limits)
    inside(pod.netns, ["tc", "qdisc", "del", "dev", "eth0", "root"])
    with pytest.raises(CniFailure, match="eth0 sends without the limit"):
        pod.call("CHECK", prevResult=result, runtimeConfig=limits)
    pod.call("DEL", runtimeConfig=limits)
    assert shapers(lab, pod.node) == 0


def test_limits_of_a_port_that_somebody_else_removed_go_when_the_agent_starts(lab: Lab, pod: Guest) -> None:
    pod.add(runtimeConfig={"bandwidth": {"ingressRate": RATE}})
    substrate.vsctl(lab.layout, pod.node, "del-port", "br-int", pod_port_name(NAMESPACE, pod.name))
    assert shapers(lab, pod.node) == 2
    lab.stop_agent(pod.node)
    lab.start_agent(pod.node)
    lab.wait_for_agents()
    assert shapers(lab, pod.node) == 0


def test_limits_survive_a_restart_of_the_switch(lab: Lab, pod: Guest) -> None:
    pod.add(runtimeConfig={"bandwidth": {"ingressRate": RATE}})
    lab.stop_switch(pod.node)
    lab.start_switch(pod.node)
    lab.wait_for_sync()
    assert rate(pod_netns(lab, "b1"), pod.netns, pod.addresses[0], 4) < 1.4 * RATE


def test_a_limit_that_makes_no_sense_is_refused_and_doesn_t_keep_del_from_working(pod: Guest) -> None:
    wrong = {"bandwidth": {"ingressRate": "fast"}}
    with pytest.raises(CniFailure, match=r"bandwidth\.ingressRate: expected a number") as failure:
        pod.add(runtimeConfig=wrong)
    assert failure.value.code == Code.INVALID_CONFIG
    pod.add()
    pod.call("DEL", runtimeConfig=wrong)


async def test_beside_the_kernel_s_datapath_the_switch_is_told_both_limits(lab: Lab) -> None:
    """No such datapath is needed to see what the database would have."""
    database = Database(f"unix:{lab.layout.node('node-3') / 'db.sock'}")
    database.start()
    try:
        assert await database.until(lambda rows: rows.bridge, 10)
        limits = Bandwidth(Limit(30_000_000, 20_000_000), Limit(5_000_000, 4_000_000))
        await database.transact(add_pod_port("limited", {}, limits, database.rows.last_place))
        columns = ("ingress_policing_rate", "ingress_policing_burst")
        assert substrate.vsctl(lab.layout, "node-3", "get", "interface", "limited", *columns).split() == [
            "5000",
            "4000",
        ]
        assert len(substrate.vsctl(lab.layout, "node-3", "get", "port", "limited", "qos").strip()) == 36
        told = substrate.vsctl(lab.layout, "node-3", "list", "qos", "--", "list", "queue")
        assert "linux-htb" in told and told.count('max-rate="30000000"') == 2 and 'burst="20000000"' in told
        await database.transact(remove_ports({"limited"}))
        assert shapers(lab, "node-3") == 0
    finally:
        await database.stop()


def warnings(lab: Lab, node: str) -> list[str]:
    log = (lab.layout.node(node) / "agent.log").read_text()
    return [line.partition("node.cni.service: ")[2] for line in log.splitlines() if "host port" in line]


def test_host_ports_are_the_pod_s_and_what_a_runtime_says_besides_is_told_and_ignored(lab: Lab, guest: Guest) -> None:
    guest.declare(ports=[{"containerPort": PORT, "hostPort": 18080}])
    told = {"hostPort": 18080, "containerPort": PORT, "protocol": "tcp", "hostIP": ""}
    before = warnings(lab, guest.node)
    guest.add(runtimeConfig={"portMappings": [told, {"hostPort": 0, "containerPort": 9, "protocol": "udp"}]})
    assert warnings(lab, guest.node) == before
    guest.add(runtimeConfig={"portMappings": [told, {**told, "hostPort": 18081}, {**told, "protocol": "udp"}]})
    said = "pod guests/{}: the runtime asks for host port {}, the cluster gives it to no pod of this node: ignored"
    fresh = warnings(lab, guest.node)[len(before) :]
    assert fresh == [said.format(guest.name, "TCP 18081"), said.format(guest.name, "UDP 18080")]
    by = (node_addresses(lab, guest.node)[0], 18080)
    node = lab.netns_of_node(guest.node)
    until(
        lambda: "18080" in inside(node, ["nft", "list", "table", "inet", "signalbox"]).stdout, "the host has the port"
    )
    assert rate(lab.layout.outside, guest.netns, guest.addresses[0], 0.2, by) > 0
