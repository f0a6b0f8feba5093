"""The topology for people and for other programs: text, DOT for Graphviz, GraphML. Pure: values in, text out.

Owns words. Must not know where nodes and links come from nor where the text goes. The drawing in SVG, which is laid out
too, is `topology.svg`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO

import msgspec
import networkx as nx

from topology.graph import LinkKind

COLOURS = {
    LinkKind.OVERLAY.value: "#2a6f97",
    LinkKind.ROUTED.value: "#588157",
    LinkKind.SUBNET.value: "#588157",
    LinkKind.WIRE.value: "#6c757d",
}


class DrawnNode(msgspec.Struct, frozen=True):
    """A node: its name, lines about it (addresses, pod CIDRs), a remark on how it is, whether that is well."""

    name: str
    lines: tuple[str, ...] = ()
    remark: str = ""
    is_up: bool = True
    #: Whether it is a switch between others only.
    is_transit: bool = False


class DrawnLink(msgspec.Struct, frozen=True, order=True):
    """A link from a node to a network (`b`, without ports), or between two nodes' ports.

    `load` is the part of its speed that is used, 0 to 1; None where that isn't known, or not asked for.
    """

    a: str
    a_port: str
    b: str
    b_port: str
    kind: str
    cost: int = 1
    is_up: bool = True
    load: float | None = None

    @property
    def is_wire(self) -> bool:
        return self.kind == LinkKind.WIRE.value

    @property
    def words(self) -> str:
        """All of it, in a line."""
        ends = f"{self.a} {self.a_port} to {self.b} {self.b_port}" if self.is_wire else f"{self.a} on {self.b}"
        load = f", {self.load:.0%} used" if self.load is not None else ""
        return f"{ends}, cost {self.cost}{load}" + ("" if self.is_up else ", unconfirmed")


class Drawing(msgspec.Struct, frozen=True):
    """Everything: nodes, networks as (name, cost), links. All sorted by name."""

    nodes: tuple[DrawnNode, ...]
    networks: tuple[tuple[str, int], ...] = ()
    links: tuple[DrawnLink, ...] = ()

    def members(self, network: str) -> list[DrawnLink]:
        """The links of a network, sorted."""
        return sorted(link for link in self.links if not link.is_wire and link.b == network)

    @property
    def wires(self) -> list[DrawnLink]:
        """The links between two nodes, sorted."""
        return sorted(link for link in self.links if link.is_wire)


# Text -----------------------------------------------------------------------------------------------------------------


def text(drawing: Drawing) -> str:
    """Each network with its members, then each wire, then the nodes without a link. Ends with a newline."""
    by_name = {node.name: node for node in drawing.nodes}
    shown: set[str] = set()
    lines: list[str] = []
    for network, cost in drawing.networks:
        joined = drawing.members(network)
        lines.append(f"{network}  ({len(joined)} {_plural(joined, 'node')}, cost {cost})")
        lines += _tree(_table([_row(by_name[link.a]) for link in joined if link.a in by_name]))
        shown |= {link.a for link in joined}
    wires = drawing.wires
    if wires:
        lines.append(f"wires  ({len(wires)})")
        lines += _tree(_table([_wire_row(link) for link in wires]))
    wired = {end for link in wires for end in (link.a, link.b)}
    alone = [node for node in drawing.nodes if node.name not in shown]
    if alone:
        lines.append(f"on no network  ({len(alone)} {_plural(alone, 'node')})")
        rows = [[*_row(node), "" if node.name in wired else "no link: unreachable"] for node in alone]
        lines += _tree(_table(rows))
    return "".join(f"{line}\n" for line in lines or ["no nodes"])


def _wire_row(link: DrawnLink) -> list[str]:
    load = f"{link.load:.0%} used" if link.load is not None else ""
    state = "" if link.is_up else "unconfirmed"
    return [link.a, link.a_port, "──", link.b, link.b_port, f"cost {link.cost}", load, state]


def _row(node: DrawnNode) -> list[str]:
    return [node.name, *(*node.lines, "", "")[:2], node.remark]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width).rstrip() for row in rows
    ]


def _tree(lines: Sequence[str]) -> list[str]:
    return [("└─ " if i == len(lines) - 1 else "├─ ") + line for i, line in enumerate(lines)]


def _plural(things: Sequence[object], word: str) -> str:
    return word if len(things) == 1 else f"{word}s"


# For other programs ---------------------------------------------------------------------------------------------------


def dot(drawing: Drawing) -> str:
    """The graph in Graphviz's language."""
    lines = ["graph topology {", "  overlap=false;", "  node [shape=box, style=rounded];"]
    for node in drawing.nodes:
        lines.append(f"  {_quote(node.name)} [label={_quote(chr(10).join([node.name, *node.lines]))}];")
    lines += list(_dot_links(drawing))
    return "\n".join([*lines, "}"]) + "\n"


def _dot_links(drawing: Drawing) -> Iterator[str]:
    for network, _ in drawing.networks:
        joined = drawing.members(network)
        colour = COLOURS.get(joined[0].kind, "black") if joined else "black"
        vertex = _quote(f"network/{network}")
        yield f"  {vertex} [label={_quote(network)}, shape=ellipse, color={_quote(colour)}];"
        # On a network the cost is the network's, and a label on each of its edges would hide it.
        for link in joined:
            yield f"  {_quote(link.a)} -- {vertex} [color={_quote(colour)}];"
    for link in drawing.wires:
        words = {
            "color": COLOURS[link.kind],
            "label": str(link.cost),
            "taillabel": link.a_port,
            "headlabel": link.b_port,
            **({} if link.is_up else {"style": "dashed"}),
        }
        attributes = ", ".join(f"{key}={_quote(value)}" for key, value in words.items() if value)
        yield f"  {_quote(link.a)} -- {_quote(link.b)} [{attributes}];"


def _quote(words: str) -> str:
    escaped = words.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def graphml(drawing: Drawing) -> str:
    """The graph in GraphML, with parallel edges: what Gephi, yEd, igraph and networkx read."""
    graph: nx.MultiGraph[str] = nx.MultiGraph()
    for node in drawing.nodes:
        graph.add_node(node.name, kind="node", remark=node.remark, transit=node.is_transit)
    for network, cost in drawing.networks:
        graph.add_node(f"network/{network}", kind="network", cost=cost)
    for link in sorted(drawing.links):
        state = "Up" if link.is_up else "Unconfirmed"
        more = {"aPort": link.a_port, "bPort": link.b_port} if link.is_wire else {}
        more_still = {"load": link.load} if link.load is not None else {}
        end = link.b if link.is_wire else f"network/{link.b}"
        graph.add_edge(link.a, end, kind=link.kind, cost=link.cost, state=state, **more, **more_still)
    written = BytesIO()
    nx.write_graphml_xml(graph, written)
    return written.getvalue().decode() + "\n"
