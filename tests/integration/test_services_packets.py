"""Packets that clients don't send themselves, through Services: ICMP errors find the client, SCTP finds an endpoint."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from callers import SERVERS, applied, balanced, groups, node_port, places, refused_at_once, service, to, vips
from probes import HERE, Ear, addresses, inside, node_addresses, pod_netns, until
from sctp import sctp_init

from deploy.lab.cluster import Lab
from deploy.lab.layout import netns_path
from topology.naming import ROUTER_MAC, parse_mac

PLACES = ("pod c1", "pod c3", "node-2", "outside")
#: Smaller than any link here has it, and as small as IPv6 allows.
SMALL_MTU = 1280


@pytest.fixture(scope="module")
def lab(service_lab: Lab) -> Iterator[Lab]:
    """With a Service of one endpoint, on node-1: port 80 is served, at 81 nobody listens in the pod."""
    ports = [
        {"name": "served", "port": 80, "targetPort": 8080, "protocol": "UDP"},
        {"name": "deaf", "port": 81, "targetPort": 9999, "protocol": "UDP"},
        {"name": "deaf-tcp", "port": 81, "targetPort": 9999},
    ]
    with applied(service_lab, service("errors", *ports, type="LoadBalancer", selector={"who": "s1"})):
        yield service_lab


def entries(lab: Lab, place: str) -> list[str]:
    """The Service's addresses as this place would use them, IPv4 first."""
    return balanced(lab, "errors") if place == "outside" else vips(lab, "errors")


@pytest.mark.parametrize("place", PLACES)
def test_an_endpoint_s_own_refusal_comes_back_to_the_caller(lab: Lab, place: str) -> None:
    calls = [to(address, 81, kind) for address in entries(lab, place) for kind in ("udp", "tcp")]
    calls += [to(address, node_port(lab, "errors", 1), "udp") for address in node_addresses(lab, "node-3")]
    refused_at_once(places(lab)[place], *calls)


@pytest.mark.parametrize("place", PLACES)
def test_a_client_hears_that_its_datagram_was_too_big_and_for_which_path_mtu(lab: Lab, place: str) -> None:
    for address, own in zip(entries(lab, place), addresses(lab, "s1"), strict=True):
        argv = ["python3", "-I", str(HERE / "datagram_client.py"), address, "80"]
        client = subprocess.Popen(
            ["nsenter", f"--net={netns_path(places(lab)[place])}", "--", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert client.stdin is not None and client.stdout is not None

        def ask(client: subprocess.Popen[str] = client) -> tuple[int, bool]:
            assert client.stdin is not None and client.stdout is not None
            client.stdin.write("\n")
            client.stdin.flush()
            answer = json.loads(client.stdout.readline())
            return answer["mtu"], answer["too_big"]

        try:
            seen = json.loads(client.stdout.readline())
            (before, _), heard = ask(), []
            assert before >= 1450
            told = [seen["peer"], str(seen["peer_port"]), own, "8080", str(SMALL_MTU)]
            done = inside(pod_netns(lab, "s1"), ["python3", "-I", str(HERE / "too_big.py"), *told])
            assert done.returncode == 0, done.stderr
            until(lambda heard=heard, ask=ask: heard.append(ask()) or heard[-1][1], "the client hears of it")  # type: ignore[misc]
            # IPv6's MTU itself is spoilt on the way: Open vSwitch 3.1's userspace conntrack, which gives the error the
            # Service's address for its source, takes two of the MTU's bytes for a UDP checksum and corrects it.
            if ":" not in address:
                assert ask()[0] == SMALL_MTU, (place, address, heard)
        finally:
            client.kill()
            client.communicate()


# SCTP -----------------------------------------------------------------------------------------------------------------


def test_sctp_associations_reach_an_endpoint(lab: Lab) -> None:
    """The userspace datapath tracks SCTP by addresses alone: one endpoint for each client, and no port is changed."""
    with applied(lab, service("sctp", {"port": 7000, "protocol": "SCTP"})):
        (client,) = [each for each in lab.ask("pods")["items"] if each["name"] == "c1"]
        macs = parse_mac(client["mac"]), ROUTER_MAC
        frames = [
            sctp_init(macs, own, vip, (5000 + number, 7000), f"assoc-{':' in vip:d}-{number} ".encode()).hex()
            for own, vip in zip(client["addresses"], vips(lab, "sctp"), strict=True)
            for number in range(3)
        ]
        ears = {pod: Ear(pod_netns(lab, pod), "assoc-") for pod in SERVERS}
        inside(pod_netns(lab, "c1"), ["python3", "-I", str(HERE / "frames.py"), "send", *frames])
        # Each once, at an endpoint of its family.
        wanted = {f"assoc-{family}-{number}" for family in (0, 1) for number in range(3)}
        until(lambda: set().union(*(ear.marks for ear in ears.values())) >= wanted, "all are heard")
        heard = {pod: ear.marks for pod, ear in ears.items()}
        for ear in ears.values():
            ear.close()
        assert sorted(mark for marks in heard.values() for mark in marks) == sorted(wanted), heard
        # What a kernel's datapath is told: the address and the port.
        nat = [each for each in groups(lab, "node-1").values() if f"nat(dst={addresses(lab, 's1')[0]}:7000)" in each]
        assert len(nat) == 1
