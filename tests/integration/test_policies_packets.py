"""Policies and packets that no client here sends by itself: SCTP associations, pings and ICMP errors."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from callers import Document, call, ofctl, to
from policing import Directory, forget_flows, policed, policy
from probes import HERE, Ear, addresses, inside, ping_all, pings, pod_netns, until
from sctp import sctp_init

from deploy.lab.cluster import Lab
from topology.naming import ROUTER_MAC, parse_mac

#: Seconds that what is forbidden is waited for at least.
NO_ANSWER = 0.5
WEBS, SENDERS = ("red/web1", "red/web2"), ("red/near", "red/far", "blue/far")


@pytest.fixture(scope="module")
def lab(policy_lab: Lab) -> Iterator[Lab]:
    yield policy_lab
    forget_flows(policy_lab)


def hold_for_sctp(lab: Lab, ports: tuple[int, ...], expected: set[tuple[str, str, int, int]]) -> None:
    """These first packets of associations arrive: from whom, to whom, to which port and by which family."""
    directory = Directory(lab)
    macs = {f"{row['namespace']}/{row['name']}": row.get("mac") for row in lab.ask("pods")["items"]}
    frames = {
        sender: [
            sctp_init(
                (parse_mac(macs[sender]), ROUTER_MAC),
                directory.address(sender, version),
                directory.address(web, version),
                (5000 + number, port),
                f"assoc-{number}-{port}-{version} ".encode(),
            ).hex()
            for web in WEBS
            for port in ports
            for version in (4, 6)
        ]
        for number, sender in enumerate(SENDERS)
    }
    with contextlib.ExitStack() as stack:
        ears = {web: stack.enter_context(contextlib.closing(Ear(directory.netns(web), "assoc-"))) for web in WEBS}

        def heard() -> set[tuple[str, str, int, int]]:
            marks = [(web, *map(int, mark.split("-")[1:])) for web, ear in ears.items() for mark in ear.marks]
            return {(SENDERS[number], web, port, version) for web, number, port, version in marks}

        with ThreadPoolExecutor(len(SENDERS)) as pool:
            for sender in SENDERS:
                argv = ["python3", "-I", str(HERE / "frames.py"), "send", *frames[sender]]
                pool.submit(inside, directory.netns(sender), argv)
        took = until(lambda: heard() >= expected, "all that may come is heard")
        # What may not could have come just as well by then.
        time.sleep(max(NO_ANSWER, took))
        assert heard() == expected


def every(senders: tuple[str, ...], ports: tuple[int, ...]) -> set[tuple[str, str, int, int]]:
    return {(sender, web, port, version) for sender in senders for web in WEBS for port in ports for version in (4, 6)}


def test_sctp_is_judged_by_its_ports_in_both_directions(lab: Lab) -> None:
    ports = (6999, 7000, 7003, 7004)
    span = [{"protocol": "SCTP", "port": 7000, "endPort": 7003}, {"port": 6999}, {"protocol": "UDP"}]
    hold_for_sctp(lab, ports, every(SENDERS, ports))
    with policed(lab, policy("in", {"app": "web"}, ingress=[{"ports": span}])):
        hold_for_sctp(lab, ports, every(SENDERS, ports[1:3]))
    egress = policy("out", {"app": "client"}, policyTypes=["Egress"], egress=[{"ports": span}])
    with policed(lab, egress):
        hold_for_sctp(lab, ports, every(SENDERS[:2], ports[1:3]) | every(SENDERS[2:], ports))


def allowed_by(rule: Document) -> Document:
    return policy(
        "in", {"app": "web"}, ingress=[{"from": [{"podSelector": {"matchLabels": {"tier": "front"}}}], **rule}]
    )


def test_pings_are_of_rules_without_ports_alone(lab: Lab) -> None:
    there = [each for web in ("web1", "web2") for each in addresses(lab, web, "red")]
    near, far = ([(pod_netns(lab, pod, "red"), each) for each in there] for pod in ("near", "far"))
    assert not ping_all([*near, *far])
    with policed(lab, allowed_by({})):
        assert not ping_all(near)
        assert len(ping_all(far, wait=0.3)) == len(far)
    with policed(lab, allowed_by({"ports": [{"protocol": "TCP"}, {"protocol": "UDP"}, {"protocol": "SCTP"}]})):
        assert len(ping_all([*near, *far], wait=0.3)) == len(near) + len(far)


def test_a_host_pings_its_pods_and_no_others(lab: Lab) -> None:
    with policed(lab, policy("closed", ingress=[])):
        for pod, node, other in (("web1", "node-1", "node-2"), ("far", "node-3", "node-1")):
            for each in addresses(lab, pod, "red"):
                assert pings(lab.netns_of_node(node), each) == 1
                assert pings(lab.netns_of_node(other), each, wait=0.3) == 0


def test_errors_about_what_was_allowed_come_back(lab: Lab) -> None:
    """Nobody listens at the port: the pod says so though it may send nothing, and its client may get nothing."""
    mute = policy("mute", {"app": "web"}, policyTypes=["Egress"], egress=[])
    deaf = policy("deaf", {"app": "client"}, ingress=[])
    with policed(lab, mute, deaf):
        for pod in ("near", "far"):
            calls = [to(each, 9999, kind) for each in addresses(lab, "web1", "red") for kind in ("udp", "tcp")]
            for each, (outcome,) in zip(calls, call(pod_netns(lab, pod, "red"), *calls), strict=True):
                assert outcome.get("error") == "ECONNREFUSED", (each, outcome)


def test_policies_flows_are_the_same_on_all_nodes(lab: Lab) -> None:
    blocks = [{"ipBlock": {"cidr": f"198.18.{n}.0/24"}} for n in range(20)]
    ports = [{"port": 9000 + 2 * n} for n in range(8)]
    with policed(
        lab, policy("many", {"app": "web"}, ingress=[{"from": blocks, "ports": ports}]), policy("closed", {}, "blue")
    ):
        first, *others = (
            sorted(
                line.partition("table=")[2]
                for line in ofctl(
                    lab,
                    node,
                    "-O",
                    "OpenFlow15",
                    "--no-stats",
                    "dump-flows",
                    "br-int",
                    "cookie=0x5b06000000000000/0xffff000000000000",
                )
                if "table=" in line
            )
            for node in lab.nodes
        )
        assert len(first) > len(blocks) + len(ports)
        assert all(each == first for each in others)
