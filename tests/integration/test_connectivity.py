"""Everything reaches everything, un-NATed, over both families."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from probes import PODS, addresses, echo, node_addresses, ping_all, pings, pod_netns, serves, until

from deploy.lab import processes
from deploy.lab.cluster import Lab
from deploy.lab.layout import WORLD
from deploy.lab.substrate import switch_environment

MTU = 1500 - 50
HEADERS = {4: 28, 6: 48}


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_every_pod_reaches_every_pod_and_is_seen_with_its_own_address(lab: Lab, kind: str) -> None:
    known = {pod: addresses(lab, pod) for pod in PODS}
    for source in PODS:
        answers = echo(pod_netns(lab, source), kind, [each for pod in PODS for each in known[pod]])
        for pod in PODS:
            for own, target in zip(known[source], known[pod], strict=True):
                assert answers[target].get("peer") == own, f"{source} to {pod} at {target}: {answers[target]}"


def test_every_pod_answers_every_pod_s_ping(lab: Lab) -> None:
    known = [address for pod in PODS for address in addresses(lab, pod)]
    assert not ping_all((pod_netns(lab, pod), address) for pod in PODS for address in known)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_every_node_reaches_every_pod_without_nat(lab: Lab, kind: str) -> None:
    known = [address for pod in PODS for address in addresses(lab, pod)]
    for index, node in enumerate(lab.nodes, 1):
        gateways = {f"10.244.{index}.1", f"fd00:10:244:{index}::1"}
        for target, answer in echo(lab.netns_of_node(node), kind, known).items():
            assert answer.get("peer") in gateways, f"{node} to {target}: {answer}"


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_every_pod_reaches_every_node_without_nat(lab: Lab, kind: str) -> None:
    for pod in PODS:
        own = addresses(lab, pod)
        for node in lab.nodes:
            targets = node_addresses(lab, node)
            answers = echo(pod_netns(lab, pod), kind, targets)
            for mine, target in zip(own, targets, strict=True):
                assert answers[target].get("peer") == mine, f"{pod} to {node} at {target}: {answers[target]}"


def test_nodes_and_pods_answer_each_other_s_ping(lab: Lab) -> None:
    pods = [address for pod in PODS for address in addresses(lab, pod)]
    nodes = [address for node in lab.nodes for address in node_addresses(lab, node)]
    pairs = [(lab.netns_of_node(node), address) for node in lab.nodes for address in pods]
    pairs += [(pod_netns(lab, pod), address) for pod in PODS for address in nodes]
    assert not ping_all(pairs)


def test_the_outside_sees_a_pod_with_its_node_s_address(lab: Lab) -> None:
    script = str(Path(__file__).parent / "echo_server.py")
    server = processes.start(
        ["python3", "-I", script, "8080"], lab.layout.directory / "outside.log", netns=lab.layout.outside
    )
    try:
        until(lambda: serves(lab.layout.outside), "the server outside")
        assert pings(pod_netns(lab, "a1"), WORLD[0]) and pings(pod_netns(lab, "c1"), WORLD[1])
        for pod, node in (("a1", "node-1"), ("b1", "node-2")):
            for kind in ("tcp", "udp"):
                answers = echo(pod_netns(lab, pod), kind, WORLD)
                assert [answers[each].get("peer") for each in WORLD] == node_addresses(lab, node), answers
    finally:
        processes.stop([server])


@pytest.mark.parametrize("target", ["a2", "b1"])
def test_ten_megabytes_arrive_whole(lab: Lab, target: str) -> None:
    for address in addresses(lab, target):
        (answer,) = echo(pod_netns(lab, "a1"), "tcp", [address], size=10_000_000).values()
        assert answer.get("bytes") == 10_000_000, answer


def test_a_packet_of_the_pods_mtu_crosses_nodes_whole_and_a_larger_one_is_refused_at_its_source(lab: Lab) -> None:
    for address, version in zip(addresses(lab, "c1"), (4, 6), strict=True):
        assert pings(pod_netns(lab, "a1"), address, count=3, size=MTU - HEADERS[version]) == 3
        assert pings(pod_netns(lab, "a1"), address, size=MTU - HEADERS[version] + 1, wait=0.3) == 0


def test_ovs_ofctl_shows_the_names_of_tables(lab: Lab) -> None:
    done = subprocess.run(
        ["ovs-ofctl", "--names", "dump-flows", "br-int"],
        env={**os.environ, **switch_environment(lab.layout, "node-1")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for word in ("table=Classify", "table=Route", "resubmit(,Commit)", "table=Output"):
        assert word in done.stdout
