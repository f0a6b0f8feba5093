"""What people are shown of the graph: nodes, networks, links with their state and load, ways. Rows of plain values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from controller.fleet import Fleet
from controller.links import Links
from flows.compiler import Compiler
from topology.discovery import State
from topology.graph import LinkKind, display_name, is_network

Row = dict[str, Any]


def links(compiler: Compiler, fleet: Fleet, found: Links) -> Iterator[Row]:
    """Every link: nodes on networks, then wires, of which there may be several between two nodes."""
    for link in compiler.topology.links():
        if link.kind is LinkKind.WIRE:
            continue
        node, network = (link.b, link.a) if is_network(link.a) else (link.a, link.b)
        state = State.UP if fleet.phase(node) is not None else State.UNCONFIRMED
        yield _link((node, ""), (display_name(network), ""), link.kind, link.cost, state)
    for each in found.wires():
        yield _link((each.a, each.a_port), (each.b, each.b_port), LinkKind.WIRE, each.cost, found.state(each))


def _link(one: tuple[str, str], other: tuple[str, str], kind: LinkKind, cost: int, state: State) -> Row:
    return {
        "from": one[0],
        "fromPort": one[1],
        "to": other[0],
        "toPort": other[1],
        "kind": kind.value,
        "cost": cost,
        "state": state.value,
    }
