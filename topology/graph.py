"""The cluster as a graph: nodes and *networks* are vertices, links are edges with a kind and a cost.

A network is a vertex, never a full mesh: 1,000 nodes on the overlay are 1,000 edges. How packets go from one node to
another is a shortest path here and nothing else; encapsulated, routed and wired fabrics are different edges, not
different code. Pure: `put` and `remove` change the graph, `next_hops` asks it.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import msgspec
import networkx as nx

from topology.model import Node
from topology.naming import Address

#: The network that every node with an address is on: any member reaches any other by tunnel.
OVERLAY = "network/overlay"


class LinkKind(StrEnum):
    """What a link is, and with it how a packet crosses it."""

    OVERLAY = "overlay"
    SUBNET = "subnet"
    WIRE = "wire"


#: Cost of one crossing (into a network and out of it again): a tunnel is taken where nothing better is there.
COSTS = {LinkKind.OVERLAY: 10, LinkKind.SUBNET: 1, LinkKind.WIRE: 1}


class Link(msgspec.Struct, frozen=True):
    """An edge between two vertices (node names, or networks' as `OVERLAY`)."""

    a: str
    b: str
    kind: LinkKind
    cost: int


class NextHop(msgspec.Struct, frozen=True):
    """How a packet leaves a vertex: over a link of `kind` to `node`; by tunnel or subnet that is `endpoint` there."""

    kind: LinkKind
    node: str
    endpoint: Address | None = None


class Topology:
    """The graph of the current nodes."""

    def __init__(self) -> None:
        self.graph: nx.Graph[str] = nx.Graph()
        self._nodes: dict[str, Node] = {}

    def put(self, node: Node) -> None:
        """Add a node or replace it, with the links that follow from its addresses."""
        self.remove(node.name)
        self._nodes[node.name] = node
        self.graph.add_node(node.name)
        if node.addresses:
            self._join(node.name, OVERLAY, LinkKind.OVERLAY)

    def remove(self, name: str) -> None:
        """Take a node and its links away, if it is there."""
        if self._nodes.pop(name, None) is not None:
            self.graph.remove_node(name)

    def _join(self, a: str, b: str, kind: LinkKind) -> None:
        # Half the cost on each side of a network: crossing it costs COSTS[kind] once.
        cost = COSTS[kind] if kind is LinkKind.WIRE else COSTS[kind] / 2
        self.graph.add_edge(a, b, kind=kind, cost=cost)

    def links(self) -> Iterator[Link]:
        """Every link, sorted, each once."""
        edges: list[tuple[str, str, dict[str, Any]]] = list(self.graph.edges(data=True))
        for a, b, data in sorted((min(a, b), max(a, b), data) for a, b, data in edges):
            yield Link(a, b, data["kind"], COSTS[data["kind"]])

    def next_hops(self, source: str, target: str) -> tuple[NextHop, ...]:
        """The first steps of every shortest path from a vertex to a node, sorted; empty where there is none.

        `source` may be a network: then the answer is what every member of it does that has no better way.
        """
        graph = self.graph
        if source not in graph or target not in graph or source == target:
            return ()
        if graph.has_edge(source, target) and _is_network(source):
            return (self._hop(source, target),)
        try:
            paths = list(nx.all_shortest_paths(graph, source, target, weight="cost"))
        except nx.NetworkXNoPath:
            return ()
        hops = set()
        for path in paths:
            first = path[1]
            # A network isn't a place to stop at: the hop is the member beyond it.
            hops.add(self._hop(first, path[2]) if _is_network(first) else self._hop(source, first))
        return tuple(sorted(hops, key=lambda hop: (hop.kind, hop.node)))

    def _hop(self, via: str, member: str) -> NextHop:
        kind: LinkKind = self.graph.edges[via, member]["kind"]
        endpoint = None if kind is LinkKind.WIRE else self._nodes[member].addresses[0]
        return NextHop(kind, member, endpoint)


def _is_network(vertex: str) -> bool:
    # Node names can't hold a slash (RFC 1123), so no node is ever taken for a network.
    return vertex.startswith("network/")
