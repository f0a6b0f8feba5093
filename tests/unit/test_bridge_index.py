"""Bridges of ours that share a datapath: they have conntrack zones of their own."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from flows.compiler import Compiler
from flows.registers import Zone, zone_of
from flows.values import Ct, SetField
from topology.manifests import parse
from topology.model import BRIDGES, Node


def zones(compiler: Compiler, node: str) -> set[int]:
    """The numbers of zones that a node's own flows name."""
    found: set[int] = set()
    for flow in compiler.flows(node):
        for action in flow.program:
            if isinstance(action, Ct) and isinstance(action.zone, int):
                found.add(int(action.zone))
            elif isinstance(action, SetField) and action.field.name == "reg8":
                found |= {action.value & 0xFFFF, action.value >> 16}
    return found


def test_two_bridges_of_one_datapath_have_no_zone_in_common() -> None:
    compiler = Compiler()
    for index in range(3):
        cidr = ip_network(f"10.244.{index}.0/24")
        compiler.put(Node(name=f"n{index}", addresses=(), pod_cidrs=(cidr,), bridge_index=index))
        compiler.set_ports(f"n{index}", [])
    own = [zones(compiler, f"n{index}") for index in (1, 2)]
    assert own[0] == {zone_of(zone, 1) for zone in Zone}
    assert own[1] == {zone_of(zone, 2) for zone in Zone}
    assert len({zone_of(zone, index) for zone in Zone for index in range(BRIDGES)}) == len(Zone) * BRIDGES
    assert zone_of(max(Zone), BRIDGES - 1) <= 0xFFFF


@pytest.mark.parametrize(("text", "index"), [('"0"', 0), ('"12"', 12)])
def test_a_node_says_which_bridge_of_its_datapath_is_its(text: str, index: int) -> None:
    (declared,) = parse("f.yaml", _manifest(text)).declared
    assert isinstance(declared.value, Node) and declared.value.bridge_index == index


@pytest.mark.parametrize("text", ['"-1"', '"1000"', '"two"', '""'])
def test_an_index_that_cannot_be_is_refused(text: str) -> None:
    (problem,) = parse("f.yaml", _manifest(text)).problems
    assert "whole number below 1000" in str(problem)


def _manifest(index: str) -> bytes:
    head = "apiVersion: v1\nkind: Node\nmetadata:\n  name: n\n"
    return f"{head}  annotations: {{signalbox.io/bridge-index: {index}}}\n".encode()
