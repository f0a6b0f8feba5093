"""A live trace: a marked packet is really sent, switches tell of it, and the model agrees; it reaches nobody."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO, Any

import pytest
from callers import OUTSIDE, ofctl, service, taps
from click.testing import CliRunner
from policing import policed
from probes import addresses, inside, pings, pod_netns, until
from test_link_discovery import everywhere, wired
from test_trace_agreement import DOCUMENTS, in_red

from controller.cli import client
from deploy.command import main
from deploy.lab.cluster import Lab
from deploy.lab.layout import netns_path

QUESTIONS = {
    "a pod on another node": ("red/near", "red/web1", "TCP", 8080, "Delivered"),
    "a pod on its own node": ("red/web1", "red/near", "UDP", 9, "Delivered"),
    "one whose policy denies it": ("blue/far", "red/web1", "TCP", 8081, "Dropped"),
    "a Service": ("red/near", "red/svc/one", "TCP", 80, "Delivered"),
    "a Service of several": ("red/far", "red/svc/web", "TCP", 80, "Delivered"),
    "a Service without endpoints": ("red/far", "red/svc/empty", "TCP", 80, "Rejected"),
    "a node": ("red/web1", "node/node-1", "UDP", 53, "Delivered"),
    "another node": ("red/web1", "node/node-2", "UDP", 53, "Delivered"),
    "a pod, from a node": ("node/node-3", "red/web1", "TCP", 8080, "Dropped"),
    "a Service, from a node": ("node/node-3", "red/svc/clients", "TCP", 80, "Delivered"),
    "a Service, from beyond": ("OUTSIDE", "LOAD BALANCER", "TCP", 80, "Delivered"),
    "the world": ("red/web1", "192.0.2.77", "ICMP", 0, "Delivered"),
}


@pytest.fixture(scope="module")
def lab(policy_lab: Lab) -> Lab:
    return policy_lab


def live(
    lab: Lab, source: str, target: str, protocol: str, port: int, family: int, *, deliver: bool = False
) -> dict[str, Any]:
    query = {"from": source, "to": target, "protocol": protocol, "port": str(port), "family": str(family)}
    query |= {"deliver": "1"} if deliver else {}
    found: dict[str, Any] = client.ask(client.socket_of_lab(lab.layout.name), ["trace"], query, method="POST")
    return found


@pytest.mark.parametrize("family", [4, 6])
def test_switches_do_what_the_model_says_of_every_kind_of_way(lab: Lab, family: int) -> None:
    with policed(lab, *DOCUMENTS):
        lab.wait_for_sync()
        (row,) = (row for row in lab.ask("services")["items"] if row["name"] == "clients")
        addresses = {
            "OUTSIDE": OUTSIDE[family == 6],
            "LOAD BALANCER": next(each for each in row["externalIPs"] if (":" in each) == (family == 6)),
            "192.0.2.77": "192.0.2.77" if family == 4 else "2001:db8::77",
        }
        for title, (source, target, protocol, port, verdict) in QUESTIONS.items():
            source, target = addresses.get(source, source), addresses.get(target, target)
            found = live(lab, source, target, protocol, port, family)
            assert found["differences"] == [], (title, found["differences"])
            assert found["live"]["verdict"] == verdict == found["model"]["verdict"], title
            assert found["live"]["visits"][0]["steps"], title
            assert found["live"]["service"] == found["model"]["service"], title
            assert found["live"]["endpoint"] == found["model"]["endpoint"], title


def test_a_packet_to_a_service_s_only_port_is_sent_where_none_is_said(lab: Lab) -> None:
    only = in_red(service("only", {"port": 80, "targetPort": 8081}, selector={"who": "web1"}))
    with policed(lab, *DOCUMENTS, only):
        lab.wait_for_sync()
        words = ("trace", "pod/red/near", "svc/red/only", "--live", "--lab", lab.layout.name)
        told = CliRunner().invoke(main, words)
        asked = CliRunner().invoke(main, [*words, "--tcp", "80"])
    assert told.exit_code == asked.exit_code == 0, told.output
    assert told.output.splitlines()[0] == "To 80/TCP, the only port of svc/red/only."
    assert told.output.splitlines()[-1] == "The switches did what the model says."
    assert told.output.splitlines()[1:-1] == asked.output.splitlines()[:-1]


def test_a_flow_that_somebody_put_there_is_shouted(lab: Lab) -> None:
    lab.wait_for_sync()
    asked = ("red/near", "red/web1", "TCP", 8080, 4)
    ofctl(lab, "node-1", "add-flow", "br-int", "table=Track,priority=9999,tcp,tp_dst=8080,actions=drop")
    try:
        found = live(lab, *asked)
    finally:
        ofctl(lab, "node-1", "--strict", "del-flows", "br-int", "table=Track,priority=9999,tcp,tp_dst=8080")
    assert found["model"]["verdict"] == "Delivered"
    assert any("tp_dst=8080" in each or "tcp_dst=8080" in each for each in found["differences"]), found["differences"]
    until(lambda: live(lab, *asked)["differences"] == [], "it is as it should be again")


def test_nobody_gets_the_packet_and_nothing_is_left_of_it(lab: Lab) -> None:
    lab.wait_for_sync()
    before = lab.ask("nodes")["items"]
    (port,) = {row["port"] for row in lab.ask("pods")["items"] if (row["namespace"], row["name"]) == ("red", "web1")}
    node = next(row["node"] for row in lab.ask("pods")["items"] if row["name"] == "web1")

    def sent() -> int:
        (line,) = [line for line in ofctl(lab, node, "dump-ports", "br-int", port) if "tx pkts" in line]
        return int(line.split("pkts=")[1].split(",")[0])

    count = sent()
    assert live(lab, "red/near", "red/web1", "UDP", 8080, 4)["live"]["end"]["name"] == "red/web1"
    assert sent() == count
    assert not any(taps(lab, node) for node in lab.nodes)
    lab.wait_for_sync()
    after = lab.ask("nodes")["items"]
    assert [row["digest"] for row in before] == [row["digest"] for row in after]


@contextlib.contextmanager
def listening(netns: str, port: int) -> Iterator[IO[str]]:
    """A line of hexadecimal digits for each datagram that comes to a UDP port meanwhile."""
    program = (
        "import socket\n"
        f"link = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\nlink.bind(('::', {port}))\nprint(flush=True)\n"
        "while True: print(link.recv(1000).hex(), flush=True)\n"
    )
    argv = ["nsenter", f"--net={netns_path(netns)}", "--", sys.executable, "-I", "-c", program]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "\n"
            yield process.stdout
        finally:
            process.kill()


#: A datagram of one's own.
LAST = (
    "import socket, sys; family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET\n"
    "socket.socket(family, socket.SOCK_DGRAM).sendto(b'last', (sys.argv[1], int(sys.argv[2])))"
)


@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_that_is_to_be_delivered_arrives_and_another_doesn_t(lab: Lab, family: int) -> None:
    lab.wait_for_sync()
    asked = ("red/near", "red/far", "UDP", 7777, family)
    with listening(pod_netns(lab, "far", "red"), 7777) as got:
        held = live(lab, *asked)
        delivered = live(lab, *asked, deliver=True)
        first = bytes.fromhex(got.readline())
        target = addresses(lab, "far", "red")[family == 6]
        inside(pod_netns(lab, "near", "red"), ["python3", "-Ic", LAST, target, "7777"])
        second = bytes.fromhex(got.readline())
    assert held["differences"] == delivered["differences"] == []
    assert held["live"]["end"] == delivered["live"]["end"] and delivered["live"]["end"]["name"] == "red/far"
    assert (first[:16], second) == (b"signalbox trace ", b"last")


#: Datagrams that come before, so that the datapath has their way in its cache, for some seconds.
BEFORE = (
    "import socket, sys, time; link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); end = time.monotonic() + 2\n"
    "while time.monotonic() < end: link.sendto(b'before', (sys.argv[1], int(sys.argv[2]))); time.sleep(0.01)\n"
)


@pytest.mark.parametrize("attempt", range(3))
def test_a_switch_that_is_slow_to_take_its_taps_is_waited_for(lab: Lab, attempt: int) -> None:
    """More than once: which of what waits for it a switch takes first is by chance."""
    lab.wait_for_sync()
    target, netns = addresses(lab, "far", "red")[0], pod_netns(lab, "near", "red")
    argv = ["nsenter", f"--net={netns_path(netns)}", "--", "python3", "-Ic", BEFORE, target, "7777"]
    with listening(pod_netns(lab, "far", "red"), 7777) as got, subprocess.Popen(argv):
        assert bytes.fromhex(got.readline()) == b"before"
        process = lab.switch_process("node-3")
        os.kill(process.pid, signal.SIGSTOP)
        timer = threading.Timer(0.5, os.kill, (process.pid, signal.SIGCONT))
        timer.start()
        found = live(lab, "red/near", "red/far", "UDP", 7777, 4)
        timer.join()
        inside(netns, ["python3", "-Ic", LAST, target, "7777"])
        heard = set()
        while b"last" not in heard:
            heard.add(bytes.fromhex(got.readline()))
    assert found["differences"] == [] and found["live"]["verdict"] == "Delivered"
    assert heard == {b"before", b"last"}


@pytest.mark.parametrize("target", ["red/far", "node/node-1"])
def test_an_answer_to_what_was_delivered_is_no_part_of_its_way(lab: Lab, target: str) -> None:
    lab.wait_for_sync()
    # An echo bears the mark of the ping, and the number in it; which switch is heard first is by chance.
    for protocol, port in (*[("ICMP", 0)] * 4, ("TCP", 8080), ("UDP", 8080)):
        found = live(lab, "red/near", target, protocol, port, 4, deliver=True)
        assert found["differences"] == [], (protocol, found["differences"])


def test_over_wires_a_packet_goes_from_bridge_to_bridge_as_the_model_says(lab: Lab) -> None:
    first, second = (("node-1", "w12"), ("node-2", "w21")), (("node-2", "w23"), ("node-3", "w32"))
    with wired(lab, first, second):
        until(lambda: everywhere(lab, [first, second]), "the wires are found")
        lab.wait_for_sync()
        for source, target, nodes in (
            ("red/near", "red/far", ["node-1", "node-2", "node-3"]),
            ("red/far", "red/web2", ["node-3", "node-2"]),
            ("red/far", "node/node-1", ["node-3", "node-2", "node-1"]),
        ):
            for family in (4, 6):
                found = live(lab, source, target, "UDP", 8080, family)
                assert found["differences"] == [] and found["live"]["verdict"] == "Delivered", found["differences"]
                assert [visit["node"] for visit in found["live"]["visits"]] == nodes
                assert {hop["how"] for hop in found["live"]["hops"]} == {"Wire"}
        assert pings(pod_netns(lab, "near", "red"), address_of(lab, "red", "far"))
    until(lambda: everywhere(lab, []), "the wires are lost")
    lab.wait_for_sync()


def address_of(lab: Lab, namespace: str, name: str) -> str:
    rows = {(row["namespace"], row["name"]): row for row in lab.ask("pods")["items"]}
    return str(rows[namespace, name]["addresses"][0])
