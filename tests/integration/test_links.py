"""Wires between real switches: found by LLDP, lost with their ports, and shown."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
from probes import until

from deploy.lab import substrate
from deploy.lab.cluster import Lab, owner, settings_for


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three nodes and no pods."""
    here = Lab(f"w{os.getpid()}")
    problems = here.up(settings_for(here.layout.name, 3, **owner(os.getpid())))
    try:
        assert not problems
        yield here
    finally:
        here.down()


def vsctl(lab: Lab, node: str, *words: str) -> str:
    return substrate.run(
        ["ovs-vsctl", f"--db=unix:{lab.layout.node(node) / 'db.sock'}", *words],
        env=switch_environment(lab, node),
    )


def switch_environment(lab: Lab, node: str) -> dict[str, str]:
    return dict(substrate.switch_environment(lab.layout, node))


@contextlib.contextmanager
def wired(lab: Lab, one: tuple[str, str], other: tuple[str, str]) -> Iterator[None]:
    """A veth pair from one node's bridge to another's, each end a (node, port)."""
    namespaces = [lab.layout.node_netns(node) for node, _ in (one, other)]
    substrate.run(
        ["ip", "link", "add", one[1], "netns", namespaces[0], "type", "veth",
         "peer", "name", other[1], "netns", namespaces[1]]
    )  # fmt: skip
    try:
        for (node, port), netns in zip((one, other), namespaces, strict=True):
            substrate.run(["ip", "-n", netns, "link", "set", port, "up"])
            vsctl(lab, node, "add-port", "br-int", port)
        yield
    finally:
        for node, port in (one, other):
            vsctl(lab, node, "--if-exists", "del-port", "br-int", port)
        substrate.run(["ip", "-n", namespaces[0], "link", "del", one[1]])


def set_link(lab: Lab, node: str, port: str, state: str) -> None:
    substrate.run(["ip", "-n", lab.layout.node_netns(node), "link", "set", port, state])


def wires(lab: Lab) -> list[tuple[str, str, str, str]]:
    rows: list[dict[str, Any]] = lab.ask("topology", format="json")["links"]
    return [(row["from"], row["fromPort"], row["to"], row["toPort"]) for row in rows if row["kind"] == "wire"]


def test_a_wire_appears_goes_with_its_link_and_comes_back(lab: Lab) -> None:
    there = [("node-1", "w12", "node-2", "w21")]
    assert wires(lab) == []
    with wired(lab, ("node-1", "w12"), ("node-2", "w21")):
        until(lambda: wires(lab) == there, "the wire is found", timeout=5)
        for node, port in (("node-1", "w12"), ("node-2", "w21")):
            set_link(lab, node, port, "down")
            until(lambda: wires(lab) == [], "the wire is lost", timeout=1)
            set_link(lab, node, port, "up")
            until(lambda: wires(lab) == there, "the wire is found again", timeout=5)
        vsctl(lab, "node-2", "del-port", "br-int", "w21")
        until(lambda: wires(lab) == [], "the wire is lost", timeout=1)
