"""Wires between real switches: found by LLDP, lost with their ports, the same to all controllers, and shown."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from attribution import orphans, owners
from probes import until

from controller.cli import client
from deploy.lab import substrate
from deploy.lab.cluster import Lab, owner, settings_for
from deploy.lab.layout import netns_path
from topology.discovery import INTERVAL, MISSED

End = tuple[str, str]
#: Duration, deadline, retry period, when one joins.
TIMES = (3.0, 2.0, 0.5, 2.0)
#: Far less than the time after which one is given up of which nothing is heard.
AT_ONCE = 0.7 * MISSED * INTERVAL
HERE, THERE = ("node-1", "w12"), ("node-2", "w21")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three nodes and no pods, and two controllers."""
    here = Lab(f"w{os.getpid()}")
    settings = settings_for(here.layout.name, 3, controllers=2, lease_times=TIMES, **owner(os.getpid()))
    problems = here.up(settings)
    try:
        assert not problems
        yield here
    finally:
        here.down()


def vsctl(lab: Lab, node: str, *words: str) -> str:
    database = f"--db=unix:{lab.layout.node(node) / 'db.sock'}"
    return substrate.run(["ovs-vsctl", database, *words], env=substrate.switch_environment(lab.layout, node))


@contextlib.contextmanager
def wired(lab: Lab, *pairs: tuple[End, End]) -> Iterator[None]:
    """Veths from one node's bridge to another's, each end a (node, port); all ports of a bridge come at once."""
    ports: dict[str, list[str]] = {}
    for one, other in pairs:
        first, second = lab.layout.node_netns(one[0]), lab.layout.node_netns(other[0])
        ends = ["name", one[1], "netns", first, "type", "veth", "peer", "name", other[1], "netns", second]
        substrate.run(["ip", "link", "add", *ends])
        for node, port in (one, other):
            ports.setdefault(node, []).append(port)
    try:
        for node, names in ports.items():
            batch = "".join(f"link set {name} up\n" for name in names)
            substrate.run(["ip", "-n", lab.layout.node_netns(node), "-batch", "-"], text=batch)
            words = [word for name in names for word in ("--", "add-port", "br-int", name)]
            vsctl(lab, node, *words[1:])
        yield
    finally:
        for node, names in ports.items():
            words = [word for name in names for word in ("--", "--if-exists", "del-port", "br-int", name)]
            vsctl(lab, node, *words[1:])
        for one, _ in pairs:
            substrate.run(["ip", "-n", lab.layout.node_netns(one[0]), "link", "del", one[1]])


def set_link(lab: Lab, end: End, state: str) -> None:
    substrate.run(["ip", "-n", lab.layout.node_netns(end[0]), "link", "set", end[1], state])


def wires(lab: Lab, controller: int = 1) -> list[tuple[str, str, str, str]]:
    """Wires as a controller knows them."""
    rows: list[dict[str, Any]] = client.ask(lab.layout.api_of(controller), ["topology"])["links"]
    return [(row["from"], row["fromPort"], row["to"], row["toPort"]) for row in rows if row["kind"] == "wire"]


def everywhere(lab: Lab, expected: Sequence[tuple[End, End]]) -> bool:
    """Whether all controllers know these wires and no others."""
    wanted = sorted((*one, *other) for one, other in expected)
    return all(wires(lab, number) == wanted for number in lab.controllers)


def signalbox(lab: Lab, *words: str) -> str:
    argv = [sys.executable, "-m", "deploy.command", *words, "--socket", str(lab.layout.api_of(1))]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout


def test_a_wire_appears_goes_with_its_link_and_comes_back(lab: Lab) -> None:
    there = [(HERE, THERE)]
    assert everywhere(lab, [])
    with wired(lab, *there):
        took = until(lambda: everywhere(lab, there), "the wire is found")
        print(f"found within {took:.2f} s")
        for end in (HERE, THERE):
            set_link(lab, end, "down")
            until(lambda: everywhere(lab, []), "the wire is lost", AT_ONCE)
            set_link(lab, end, "up")
            took = until(lambda: everywhere(lab, there), "the wire is found again")
            print(f"found again within {took:.2f} s")
        vsctl(lab, "node-2", "del-port", "br-int", "w21")
        until(lambda: everywhere(lab, []), "the wire is lost", AT_ONCE)


def test_all_of_many_wires_that_come_at_once_are_found(lab: Lab) -> None:
    many = [(("node-1", f"m{number}"), ("node-3", f"n{number}")) for number in range(64)]
    with wired(lab, *many):
        took = until(lambda: everywhere(lab, many), "all wires are found")
        print(f"64 found within {took:.2f} s")
        assert orphans(lab) == []
        assert {f"Node {name}" for name in lab.nodes} <= owners(lab)
    until(lambda: everywhere(lab, []), "the wires are lost", AT_ONCE)


#: Sends one frame again and again by a link, for some seconds, and says how many there were.
FLOOD = """
import socket, sys, time
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind((sys.argv[1], 0))
end, count = time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < end:
    link.send(bytes.fromhex(sys.argv[3]))
    count += 1
print(count)
"""


def test_a_port_that_is_flooded_takes_no_wire_of_others_away(lab: Lab) -> None:
    many = [(("node-1", f"m{number}"), ("node-3", f"n{number}")) for number in range(16)]
    netns = lab.layout.node_netns("node-1")
    substrate.run(["ip", "-n", netns, "link", "add", "fl1", "type", "veth", "peer", "name", "fl2"])
    for name in ("fl1", "fl2"):
        substrate.run(["ip", "-n", netns, "link", "set", name, "up"])
    try:
        with wired(lab, *many):
            vsctl(lab, "node-1", "add-port", "br-int", "fl1")
            until(lambda: everywhere(lab, many), "all wires are found")
            # Another device's LLDP, and more of it than a switch may send on.
            other = "0180c200000e0200000000ff88cc" + "0207040200000000ff" + "040403666c32" + "06020078" + "0000"
            seconds = MISSED * INTERVAL + 3
            with subprocess.Popen(
                ["nsenter", f"--net={netns_path(netns)}", "--", "python3", "-c", FLOOD, "fl2", str(seconds), other],
                stdout=subprocess.PIPE, text=True,
            ) as flood:  # fmt: skip
                while flood.poll() is None:
                    assert everywhere(lab, many)
                    time.sleep(0.2)
                assert flood.stdout is not None
                assert int(flood.stdout.read()) > 1000 * seconds
            assert everywhere(lab, many)
    finally:
        vsctl(lab, "node-1", "--if-exists", "del-port", "br-int", "fl1")
        substrate.run(["ip", "-n", netns, "link", "del", "fl1"])


def test_a_wire_outlives_controllers_that_go_and_come_and_they_send_nothing(lab: Lab) -> None:
    there = [(HERE, THERE), (("node-2", "w23"), ("node-3", "w32"))]
    with wired(lab, *there):
        until(lambda: everywhere(lab, there), "the wires are found")
        lab.wait_for_sync()
        for number in lab.controllers:
            lab.stop_controller(controller=number)
            until(lambda number=number: mastered(lab, 3 - number), "the other is master")  # type: ignore[misc]
            assert sorted(wires(lab, 3 - number)) == sorted((*one, *other) for one, other in there)
            lab.start_controller(number)
            until(lambda: everywhere(lab, there), "the wires are found again")
            lab.wait_for_sync()
        # Both stop, and one that knows nothing starts.
        for number in lab.controllers:
            lab.stop_controller(controller=number)
        lab.start_controller(1)
        until(lambda: mastered(lab, 1), "it is master")
        until(lambda: sorted(wires(lab)) == sorted((*one, *other) for one, other in there), "the wires are found")
        until(lambda: all(row["status"] == "Synced" for row in nodes(lab, 1)), "all is in sync")
        assert [row["flowModsSent"] for row in nodes(lab, 1)] == [0, 0, 0]
        lab.start_controller(2)
        until(lambda: everywhere(lab, there), "the wires are found")
    lab.wait_for_sync()


def nodes(lab: Lab, controller: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.ask(lab.layout.api_of(controller), ["nodes"])["items"]
    return rows


def mastered(lab: Lab, controller: int) -> bool:
    """Whether a controller is master of all switches."""
    return all(row["status"] in ("Synced", "Syncing") for row in nodes(lab, controller))


def test_the_command_line_shows_links_loads_drawings_and_ways(lab: Lab) -> None:
    there = [(HERE, THERE), (("node-2", "w23"), ("node-3", "w32"))]
    with wired(lab, *there):
        until(lambda: everywhere(lab, there), "the wires are found")
        lines = signalbox(lab, "topology", "-o", "wide").splitlines()
        assert lines[0].split() == [
            "A",
            "PORT",
            "B",
            "PORT",
            "KIND",
            "COST",
            "STATE",
            "USED",
            "A-TO-B",
            "B-TO-A",
            "SPEED",
        ]
        (wire,) = [line.split() for line in lines if line.startswith("node-1   w12")]
        assert wire[:7] == ["node-1", "w12", "node-2", "w21", "wire", "1", "Up"]
        assert wire[7] == "0%" and wire[10] == "10Gb/s"
        way = signalbox(lab, "topology", "path", "node-1", "node/node-3").splitlines()
        assert [line.split()[1:5] for line in way[2:4]] == [
            ["node-1", "w12", "node-2", "w21"],
            ["node-2", "w23", "node-3", "w32"],
        ]
        assert way[4] == "to node node-3, cost 2"
        assert "node-2" in signalbox(lab, "topology", "-o", "text")
        assert "<svg" in signalbox(lab, "topology", "--load", "-o", "svg")
        assert "<graphml" in signalbox(lab, "topology", "-o", "graphml")
        told = json.loads(signalbox(lab, "topology", "-o", "json"))
        assert [row["name"] for row in told["nodes"]] == ["node-1", "node-2", "node-3"]
