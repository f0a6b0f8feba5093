"""The topology for people: as text, as DOT for Graphviz, as a drawing in SVG. Pure: values in, text out.

Owns layout and words. Must not know where nodes and links come from nor where the text goes; `Topology.nodes` and
`Topology.links` give both, and so does whatever stored them. The SVG is laid out here and needs no Graphviz: a cluster
is nodes on a few shared networks, which general layouts draw as a star too large to read and a bus draws well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from xml.sax.saxutils import escape

from topology.graph import Link, LinkKind, display_name, is_network
from topology.model import Node

_STYLES = {
    LinkKind.OVERLAY: "#2a6f97",
    LinkKind.ROUTED: "#588157",
    LinkKind.SUBNET: "#588157",
    LinkKind.WIRE: "#6c757d",
}
#: The drawing's measures, in pixels: a node's box, the gaps around it, the space of a bus, and nodes in a row.
_WIDTH, _HEIGHT, _GAP, _BUS, _COLUMNS = 220, 66, 30, 26, 5


def text(nodes: Iterable[Node], links: Iterable[Link], remarks: Mapping[str, str] | None = None) -> str:
    """Each network with its members, then each wire, then the nodes without a link.

    `remarks` are shown behind the nodes of their names. Ends with a newline.
    """
    by_name = {node.name: node for node in nodes}
    members, wires = _split(links)
    shown: set[str] = set()
    lines: list[str] = []
    for network, joined in sorted(members.items()):
        cost = joined[0].cost
        lines.append(f"{display_name(network)}  ({len(joined)} {_plural(joined, 'node')}, cost {cost})")
        rows = [_row(by_name[link.a], remarks) for link in joined if link.a in by_name]
        lines += _tree(_table(rows))
        shown |= {link.a for link in joined}
    if wires:
        lines.append(f"wires  ({len(wires)})")
        lines += _tree(_table([[link.a, "──", link.b, f"cost {link.cost}"] for link in wires]))
    alone = [node for name, node in sorted(by_name.items()) if name not in shown]
    wired = {end for link in wires for end in (link.a, link.b)}
    if alone:
        lines.append(f"on no network  ({len(alone)} {_plural(alone, 'node')})")
        lines += _tree(
            _table([[*_row(node, remarks), "" if node.name in wired else "no link: unreachable"] for node in alone])
        )
    return "".join(f"{line}\n" for line in lines or ["no nodes"])


def dot(nodes: Iterable[Node], links: Iterable[Link]) -> str:
    """The graph in Graphviz's language."""
    lines = ["graph topology {", "  overlap=false;", "  node [shape=box, style=rounded];"]
    members, wires = _split(links)
    for node in sorted(nodes, key=lambda node: node.name):
        label = "\n".join([node.name, *_words(node)])
        lines.append(f"  {_quote(node.name)} [label={_quote(label)}];")
    for network, joined in sorted(members.items()):
        colour = _STYLES[joined[0].kind]
        lines.append(
            f"  {_quote(network)} [label={_quote(display_name(network))}, shape=ellipse, color={_quote(colour)}];"
        )
    for link in [link for _, joined in sorted(members.items()) for link in joined] + wires:
        label = f"{link.kind} {link.cost}"
        # On a network the cost is the network's, and a label on each of its edges would hide it.
        named = f", label={_quote(label)}" if link.kind is LinkKind.WIRE else ""
        lines.append(f"  {_quote(link.a)} -- {_quote(link.b)} [color={_quote(_STYLES[link.kind])}{named}];")
    return "\n".join([*lines, "}"]) + "\n"


def svg(nodes: Iterable[Node], links: Iterable[Link]) -> str:
    """A drawing: rows of nodes, each hanging on the buses of its networks; wires as arcs below the boxes."""
    ordered = sorted(nodes, key=lambda node: node.name)
    members, wires = _split(links)
    networks = sorted(members)
    columns = max(1, min(_COLUMNS, len(ordered)))
    # At least one row, so that a drawing of nothing is a drawing.
    rows = max(1, -(-len(ordered) // columns))
    row_height = len(networks) * _BUS + _HEIGHT + 2 * _GAP
    width, height = columns * (_WIDTH + _GAP) + 2 * _GAP, rows * row_height + _GAP
    places = {
        node.name: (2 * _GAP + i % columns * (_WIDTH + _GAP), i // columns * row_height + len(networks) * _BUS + _GAP)
        for i, node in enumerate(ordered)
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i, network in enumerate(networks):
        buses = [row * row_height + _BUS + i * _BUS for row in range(rows)]
        parts += _bus(network, members[network], i, buses, width, places)
    for link in wires:
        if link.a in places and link.b in places:
            parts.append(_wire(link, places[link.a], places[link.b]))
    for node in ordered:
        parts += _box(node, *places[node.name])
    return "\n".join([*parts, "</svg>"]) + "\n"


# What all three share -----------------------------------------------------------------------------------------------


def _split(links: Iterable[Link]) -> tuple[dict[str, list[Link]], list[Link]]:
    """The links of each network, with the node as `a`, and those between nodes."""
    members: dict[str, list[Link]] = {}
    wires = []
    for link in sorted(links):
        if is_network(link.a):
            members.setdefault(link.a, []).append(Link(link.b, link.a, link.kind, link.cost))
        elif is_network(link.b):
            members.setdefault(link.b, []).append(link)
        else:
            wires.append(link)
    for joined in members.values():
        joined.sort()
    return members, wires


def _words(node: Node) -> list[str]:
    """A node's addresses and pod CIDRs, a line of each that there are."""
    addresses = ", ".join(map(str, node.addresses))
    cidrs = ", ".join(map(str, node.pod_cidrs))
    return [line for line in (addresses, f"pods {cidrs}" if cidrs else "") if line]


# Text ---------------------------------------------------------------------------------------------------------------


def _row(node: Node, remarks: Mapping[str, str] | None) -> list[str]:
    cidrs = ", ".join(map(str, node.pod_cidrs))
    return [
        node.name,
        ", ".join(map(str, node.addresses)),
        f"pods {cidrs}" if cidrs else "",
        (remarks or {}).get(node.name, ""),
    ]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width).rstrip() for row in rows
    ]


def _tree(lines: Sequence[str]) -> list[str]:
    return [("└─ " if i == len(lines) - 1 else "├─ ") + line for i, line in enumerate(lines)]


def _plural(things: Sequence[object], word: str) -> str:
    return word if len(things) == 1 else f"{word}s"


# DOT ----------------------------------------------------------------------------------------------------------------


def _quote(words: str) -> str:
    escaped = words.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


# SVG ----------------------------------------------------------------------------------------------------------------


def _bus(
    network: str,
    joined: Sequence[Link],
    index: int,
    buses: Sequence[int],
    width: int,
    places: Mapping[str, tuple[int, int]],
) -> list[str]:
    """A network: a line above each row of nodes, one line on the left that joins these, and one down to each member."""
    colour = _STYLES[joined[0].kind]
    left = _GAP // 2 + 6 * index
    parts = [f'<g stroke="{colour}" stroke-width="2">']
    parts.append(f'<line x1="{left}" y1="{buses[0]}" x2="{left}" y2="{buses[-1]}"/>')
    parts += [f'<line x1="{left}" y1="{y}" x2="{width - _GAP}" y2="{y}"/>' for y in buses]
    for link in joined:
        if link.a in places:
            x, top = places[link.a]
            x += _WIDTH // 2 + 12 * index
            bus = max(y for y in buses if y < top)
            parts.append(f'<line x1="{x}" y1="{bus}" x2="{x}" y2="{top}"/>')
    words = escape(f"{display_name(network)} (cost {joined[0].cost})")
    parts.append("</g>")
    parts.append(f'<text x="{2 * _GAP}" y="{buses[0] - 5}" fill="{colour}">{words}</text>')
    return parts


def _wire(link: Link, start: tuple[int, int], end: tuple[int, int]) -> str:
    (ax, ay), (bx, by) = start, end
    ax, bx, ay, by = ax + _WIDTH // 2, bx + _WIDTH // 2, ay + _HEIGHT, by + _HEIGHT
    words = escape(f"{link.a} to {link.b}, cost {link.cost}")
    return (
        f'<path d="M {ax} {ay} Q {(ax + bx) // 2} {max(ay, by) + 2 * _GAP} {bx} {by}" fill="none" '
        f'stroke="{_STYLES[link.kind]}" stroke-width="2"><title>{words}</title></path>'
    )


def _box(node: Node, x: int, y: int) -> list[str]:
    lines = [node.name, *_words(node)]
    parts = [
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="#f8f9fa" stroke="#343a40"/>',
    ]
    for i, line in enumerate(lines):
        weight = ' font-weight="bold"' if i == 0 else ' font-size="10"'
        # A long line is squeezed into its box; all of it is in the title.
        squeeze = f' textLength="{_WIDTH - 16}" lengthAdjust="spacingAndGlyphs"' if len(line) > 42 else ""
        parts.append(
            f'<text x="{x + 8}" y="{y + 20 + 18 * i}"{weight}{squeeze}>{escape(line)}'
            f"<title>{escape(line)}</title></text>"
        )
    return parts
