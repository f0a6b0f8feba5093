"""The topology as a drawing in SVG. Laid out here, without Graphviz: rows of boxes, from the edge of a fabric inward.

    ┌ spine-1 ┐  ┌ spine-2 ┐      wired nodes: each row is one step farther from the edge
         │  ┼  │  ┼                chains are rows and rings are rings, as people draw them
    ┌ leaf-1 ┐ ┌ leaf-2 ┐
    ══════════════════ overlay    nodes without wires hang on the buses of their networks
    ┌ node-1 ┐ ┌ node-2 ┐

The edge is where traffic comes from: nodes that aren't in transit, or if nobody says which are, those with the fewest
wires. Colours are classes of a style sheet that has light and dark (`prefers-color-scheme`). Linear in nodes and links,
but for sorting. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import ceil, cos, hypot, pi, sin, sqrt
from xml.sax.saxutils import escape, quoteattr

import msgspec

from topology.render import Drawing, DrawnLink, DrawnNode

#: More nodes than that are small boxes with their names alone; with more wires than that, ends have no labels.
_LARGE, _LABELLED = 60, 60
_MARGIN, _BUS, _SWEEPS = 32, 24, 4
#: Pixels of a character, about: of text, and of the names of ports.
_CHARACTER, _LABEL_CHARACTER = 6.6, 5.4

_STYLE = """
svg { background: #ffffff; font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
.bg { fill: #ffffff; } .box { fill: #f6f8fa; stroke: #57606a; stroke-width: 1.2; }
.transit { fill: #eaf1fb; } .away { stroke: #c62828; stroke-dasharray: 5 3; }
.name { fill: #1f2328; font-weight: 600; } .dim { fill: #57606a; }
.port { fill: #424a53; } .halo { fill: none; stroke: #ffffff; stroke-width: 3px; stroke-linejoin: round; }
.wire { fill: none; stroke: #7d8794; } .unconfirmed { stroke-dasharray: 6 4; opacity: 0.65; }
.low { stroke: #2e8b57; } .some { stroke: #d29100; } .high { stroke: #d1242f; }
.net0 { stroke: #2a6f97; fill: #2a6f97; } .net1 { stroke: #8250df; fill: #8250df; }
.net2 { stroke: #1a7f37; fill: #1a7f37; } .net3 { stroke: #bc4c00; fill: #bc4c00; } .line { fill: none; }
.word { stroke: none; }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117; } .bg { fill: #0d1117; } .box { fill: #161b22; stroke: #8b949e; }
.transit { fill: #17253a; } .away { stroke: #ff7b72; } .name { fill: #e6edf3; } .dim { fill: #9198a1; }
.port { fill: #c5ccd4; } .halo { stroke: #0d1117; } .wire { stroke: #6e7681; }
.low { stroke: #3fb950; } .some { stroke: #e3b341; } .high { stroke: #ff6a69; }
.net0 { stroke: #58a6ff; fill: #58a6ff; } .net1 { stroke: #bc8cff; fill: #bc8cff; }
.net2 { stroke: #56d364; fill: #56d364; } .net3 { stroke: #ffa657; fill: #ffa657; } .line { fill: none; }
.word { stroke: none; }
}
"""
_NETWORK_COLOURS = 4
_DIGITS = re.compile(r"(\d+)")

Point = tuple[float, float]


class _Size(msgspec.Struct, frozen=True):
    """A node's box, and the space between two in a row and between two rows."""

    width: float
    height: float
    gap: float
    rise: float


class _Part(msgspec.Struct):
    """A part of the drawing: where its boxes are (their left upper corners), and how large it is."""

    places: dict[str, Point]
    width: float
    height: float


def svg(drawing: Drawing) -> str:
    """The drawing, as a document of its own."""
    wires = [link for link in drawing.wires if link.a != link.b]
    by_name = {node.name: node for node in drawing.nodes}
    wires = [link for link in wires if link.a in by_name and link.b in by_name]
    size = _size(drawing)
    wired = {end for link in wires for end in (link.a, link.b)}
    parts = [_component(names, wires, by_name, size) for names, wires in _components(wires)]
    colours = {name: index % _NETWORK_COLOURS for index, (name, _) in enumerate(drawing.networks)}
    legend = _legend(drawing, colours)
    top = _MARGIN + 24 * len(legend)
    width, bottom = _arrange(parts, top)
    places = {name: place for part in parts for name, place in part.places.items()}
    # Wires around boxes may go beyond all of these.
    reach = [_on_curve(*_curve(link, number, of, places, size), 0.5)[1] for link, number, of in _numbered(wires)]
    above = max(0.0, top - min(reach, default=top))
    for part in parts:
        _shift(part, places, 0, above)
    bottom = max(bottom, *reach, 0) + above
    grid = _Grid(drawing, [node for node in drawing.nodes if node.name not in wired], size, colours, bottom)
    places |= grid.places
    width, height = ceil(max(width, grid.width, 420)), ceil(max(grid.bottom, bottom) + _MARGIN / 2)
    if len(parts) == 1:
        _shift(parts[0], places, (width - parts[0].width) / 2 - _MARGIN, 0)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" '
        f'height="{_n(height)}" font-size="12"><title>Topology</title><style>{_STYLE}</style>',
        f'<rect class="bg" width="{_n(width)}" height="{_n(height)}"/>',
    ]
    lines += [
        f'<g transform="translate({_MARGIN} {_MARGIN + 24 * row})">{words}</g>' for row, words in enumerate(legend)
    ]
    lines += grid.buses()
    lines += _wires(wires, places, size)
    networks: dict[str, list[str]] = {}
    for link in drawing.links:
        if not link.is_wire:
            networks.setdefault(link.a, []).append(link.b)
    for node in drawing.nodes:
        chips = [colours[each] for each in networks.get(node.name, ()) if each in colours]
        lines.append(_box(node, places[node.name], size, chips if node.name in wired else []))
    lines += _labels(wires, places, size) if len(wires) <= _LABELLED else []
    return "\n".join([*lines, "</svg>"]) + "\n"


def _size(drawing: Drawing) -> _Size:
    longest = max((len(node.name) for node in drawing.nodes), default=0)
    if len(drawing.nodes) > _LARGE:
        return _Size(max(64, min(longest, 18) * _CHARACTER + 28), 24, 12, 70)
    words = [line for node in drawing.nodes for line in (*node.lines, node.remark)]
    widest = max((len(word) * _CHARACTER * 0.84 for word in words), default=0)
    rows = max((len([*node.lines, *filter(None, [node.remark])]) for node in drawing.nodes), default=0)
    return _Size(max(110, min(max(widest, longest * _CHARACTER * 1.12) + 24, 300)), 28 + 15 * rows, 36, 96)


def _n(value: float) -> str:
    """A coordinate, in as few characters as say it."""
    return f"{value:.1f}".removesuffix(".0")


# Layout ---------------------------------------------------------------------------------------------------------------


def _components(wires: Sequence[DrawnLink]) -> Iterator[tuple[list[str], list[DrawnLink]]]:
    """The nodes that are joined by wires, with these; the largest first."""
    neighbours: dict[str, set[str]] = {}
    for link in wires:
        neighbours.setdefault(link.a, set()).add(link.b)
        neighbours.setdefault(link.b, set()).add(link.a)
    found: list[tuple[list[str], list[DrawnLink]]] = []
    where: dict[str, int] = {}
    for start in sorted(neighbours):
        if start not in where:
            waiting, names = [start], []
            where[start] = len(found)
            while waiting:
                name = waiting.pop()
                names.append(name)
                for other in neighbours[name]:
                    if other not in where:
                        where[other] = len(found)
                        waiting.append(other)
            found.append((sorted(names), []))
    for link in wires:
        found[where[link.a]][1].append(link)
    yield from sorted(found, key=lambda each: (-len(each[0]), each[0]))


def _component(
    names: Sequence[str], wires: Sequence[DrawnLink], by_name: Mapping[str, DrawnNode], size: _Size
) -> _Part:
    neighbours: dict[str, set[str]] = {name: set() for name in names}
    for link in wires:
        neighbours[link.a].add(link.b)
        neighbours[link.b].add(link.a)
    most = max(map(len, neighbours.values()))
    ends = [name for name in names if len(neighbours[name]) == 1]
    longest = max(len(port) for link in wires for port in (link.a_port, link.b_port))
    if most <= 2 and ends and len(names) <= 12:
        # With room for both ports' names between two boxes.
        wide = msgspec.structs.replace(size, gap=max(size.gap, 2 * longest * _LABEL_CHARACTER + 20))
        return _rows([[_walk(ends[0], neighbours)]], wide)
    edge = [name for name in names if not by_name[name].is_transit]
    if len(edge) in (0, len(names)):
        fewest = min(map(len, neighbours.values()))
        edge = [name for name in names if len(neighbours[name]) == fewest]
    if len(edge) == len(names):
        # A ring, or a mesh in which all are alike.
        return _ring(_walk(names[0], neighbours), size)
    layers = _layers(edge, neighbours)
    _order(layers, neighbours)
    across = max(8, ceil(sqrt(2.2 * len(names))))
    return _rows([[layer[at : at + across] for at in range(0, len(layer), across)] for layer in layers], size)


def _walk(start: str, neighbours: Mapping[str, set[str]]) -> list[str]:
    """All of a component, from neighbour to neighbour as long as there is one."""
    found: list[str] = []
    seen, waiting = {start}, [start]
    while waiting:
        name = waiting.pop()
        found.append(name)
        for other in sorted(neighbours[name] - seen, key=_natural, reverse=True):
            seen.add(other)
            waiting.append(other)
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """Where a name stands among others, as people count: leaf-2 before leaf-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(name) if part]


def _layers(edge: Sequence[str], neighbours: Mapping[str, set[str]]) -> list[list[str]]:
    """Nodes by how far they are from the edge; the farthest first."""
    layers, seen = [sorted(edge, key=_natural)], set(edge)
    while True:
        following = sorted({other for name in layers[-1] for other in neighbours[name]} - seen, key=_natural)
        if not following:
            return layers[::-1]
        seen.update(following)
        layers.append(following)


def _order(layers: list[list[str]], neighbours: Mapping[str, set[str]]) -> None:
    """Have neighbours near to one another: each node to the middle of its neighbours in the next row, to and fro."""
    for sweep in range(_SWEEPS):
        way = range(1, len(layers)) if sweep % 2 == 0 else range(len(layers) - 2, -1, -1)
        for index in way:
            other = layers[index - 1 if sweep % 2 == 0 else index + 1]
            places = {name: (place + 0.5) / len(other) for place, name in enumerate(other)}
            own = {name: (place + 0.5) / len(layers[index]) for place, name in enumerate(layers[index])}

            def middle(name: str, places: Mapping[str, float] = places, own: Mapping[str, float] = own) -> float:
                found = [places[each] for each in neighbours[name] if each in places]
                return sum(found) / len(found) if found else own[name]

            layers[index].sort(key=lambda name: (round(middle(name), 6), _natural(name)))


def _rows(layers: Sequence[Sequence[Sequence[str]]], size: _Size) -> _Part:
    """Rows of boxes, each in the middle; a layer may be of several rows, which are nearer to one another."""
    longest = max(len(row) for layer in layers for row in layer)
    width = longest * (size.width + size.gap) - size.gap
    places: dict[str, Point] = {}
    y = 0.0
    for layer in layers:
        for index, row in enumerate(layer):
            step = (width + size.gap) / len(row) if len(row) > 1 else 0.0
            # Spread over the whole width, unless that is too far.
            step = min(step, 2.2 * (size.width + size.gap))
            left = (width - step * (len(row) - 1) - size.width) / 2
            places |= {name: (left + step * place, y) for place, name in enumerate(row)}
            y += size.height + (size.rise if index == len(layer) - 1 else 2 * size.gap)
    return _Part(places, width, y - size.rise)


def _ring(names: Sequence[str], size: _Size) -> _Part:
    count = len(names)
    across = max(1.8 * size.width, count * (size.width + size.gap) / 3.4)
    high = max(1.6 * (size.height + size.gap), across * 0.6)
    places = {}
    for index, name in enumerate(names):
        angle = 2 * pi * (index + 0.5) / count - pi / 2 - pi / count
        places[name] = (across * (1 + sin(angle + pi / 2)), high * (1 - cos(angle + pi / 2)))
    return _Part(places, 2 * across + size.width, 2 * high + size.height)


def _arrange(parts: Sequence[_Part], top: float) -> tuple[float, float]:
    """Parts beside one another as long as there is room, then below; the width and the bottom of all."""
    if not parts:
        return 0.0, top
    room = max(max(part.width for part in parts), 1.5 * sqrt(sum(part.width * part.height for part in parts)))
    x = y = tallest = widest = 0.0
    for part in parts:
        if x and x + part.width > room:
            x, y, tallest = 0.0, y + tallest + 2 * _MARGIN, 0.0
        _shift(part, None, _MARGIN + x, top + y)
        x += part.width + 2 * _MARGIN
        widest, tallest = max(widest, x - 2 * _MARGIN), max(tallest, part.height)
    return widest + 2 * _MARGIN, top + y + tallest + _MARGIN


def _shift(part: _Part, places: dict[str, Point] | None, right: float, down: float) -> None:
    part.places = {name: (x + right, y + down) for name, (x, y) in part.places.items()}
    if places is not None:
        places.update(part.places)


class _Grid:
    """Nodes without wires, in rows, each row below the buses of the networks that they are on."""

    def __init__(
        self, drawing: Drawing, nodes: Sequence[DrawnNode], size: _Size, colours: Mapping[str, int], top: float
    ) -> None:
        here = {node.name for node in nodes}
        self._members = {
            name: [link.a for link in drawing.members(name) if link.a in here] for name, _ in drawing.networks
        }
        self._networks = [name for name, _ in drawing.networks if self._members[name]]
        self._costs, self._colours, self._size = dict(drawing.networks), colours, size
        across = max(1, min(len(nodes), 5 if len(drawing.nodes) <= _LARGE else ceil(sqrt(2.2 * len(nodes)))))
        self._rows = [nodes[at : at + across] for at in range(0, len(nodes), across)]
        self._head = _BUS * len(self._networks) + 10
        step = self._head + size.height + size.gap / 2
        self._tops = [top + 14 + step * row for row in range(len(self._rows))]
        self.places: dict[str, Point] = {
            node.name: (_MARGIN * 1.5 + place * (size.width + size.gap), self._tops[row] + self._head)
            for row, each in enumerate(self._rows)
            for place, node in enumerate(each)
        }
        self.width = across * (size.width + size.gap) + 2 * _MARGIN if nodes else 0.0
        self.bottom = self._tops[-1] + self._head + size.height if nodes else top

    def buses(self) -> Iterator[str]:
        """A line above each row of nodes, one on the left that joins these, and one down to each member."""
        for index, network in enumerate(self._networks):
            left, right = 10 + 7 * index, self.width - _MARGIN
            levels = [top + _BUS * index for top in self._tops]
            path = [f"M{left} {_n(levels[0])}V{_n(levels[-1])}"]
            path += [f"M{left} {_n(level)}H{_n(right)}" for level in levels]
            for name in self._members[network]:
                x, y = self.places[name]
                x += self._size.width / 2 + 14 * (index - (len(self._networks) - 1) / 2)
                level = max(each for each in levels if each < y)
                path.append(f"M{_n(x)} {_n(level)}V{_n(y)}")
            words = escape(f"{network} (cost {self._costs[network]})")
            colour = f"net{self._colours[network]}"
            yield f'<path class="{colour} line" stroke-width="2" d="{"".join(path)}"><title>{words}</title></path>'
        for index, network in enumerate(self._networks):
            words, y = escape(f"{network} (cost {self._costs[network]})"), self._tops[0] + _BUS * index - 5
            for kind in ("halo", f"net{self._colours[network]} word"):
                yield f'<text class="{kind}" x="{_n(_MARGIN * 1.5)}" y="{_n(y)}">{words}</text>'


# Pieces ---------------------------------------------------------------------------------------------------------------


def _legend(drawing: Drawing, colours: Mapping[str, int]) -> list[str]:
    """Rows of what colours mean, as far as they are there."""
    wires = drawing.wires
    rows = []
    if wires:
        words = [("wire", "wire")]
        if any(link.load is not None for link in wires):
            words = [("wire", "load not known")] if any(link.load is None for link in wires) else []
            words += [("wire low", "under 30 % used"), ("wire some", "30 to 70 %"), ("wire high", "over 70 %")]
        if any(not link.is_up for link in wires):
            words.append(("wire unconfirmed", "unconfirmed: a switch is away"))
        x, parts = 0.0, []
        for kind, word in words:
            parts.append(f'<path class="{kind}" stroke-width="3" d="M{_n(x)} -4h26"/>')
            parts.append(f'<text class="dim" x="{_n(x + 32)}" y="0">{word}</text>')
            x += 52 + len(word) * _CHARACTER
        rows.append("".join(parts))
        wired = {end for link in wires for end in (link.a, link.b)}
        x, parts = 0.0, []
        for network, cost in drawing.networks:
            count = sum(link.a in wired for link in drawing.members(network))
            if count:
                word = f"{network} (cost {cost})"
                parts.append(f'<circle class="net{colours[network]} word" cx="{_n(x + 6)}" cy="-4" r="5"/>')
                parts.append(f'<text class="dim" x="{_n(x + 18)}" y="0">{escape(word)}</text>')
                x += 40 + len(word) * _CHARACTER
        if parts:
            rows.append("".join(parts))
    return rows


def _curve(
    link: DrawnLink, number: int, of: int, places: Mapping[str, Point], size: _Size
) -> tuple[Point, Point, Point]:
    """Where a wire begins, is drawn to, and ends. Of several between two nodes each has its own way."""
    (ax, ay), (bx, by) = ((x + size.width / 2, y + size.height / 2) for x, y in (places[link.a], places[link.b]))
    dx, dy = bx - ax, by - ay
    length = hypot(dx, dy) or 1.0
    bend = (number - (of - 1) / 2) * 26.0
    apart = abs(dx) / (size.width + size.gap)
    if abs(dy) < size.height and apart > 1.6:
        # Along a row, around the boxes between.
        bend += (size.height / 2 + 26 + 8 * min(apart, 8)) * (1 if dx < 0 else -1)
    return (ax, ay), ((ax + bx) / 2 - dy / length * bend * 2, (ay + by) / 2 + dx / length * bend * 2), (bx, by)


def _numbered(wires: Sequence[DrawnLink]) -> Iterator[tuple[DrawnLink, int, int]]:
    """Each wire, the how manieth it is between its two nodes, and of how many."""
    total: dict[tuple[str, str], int] = {}
    for link in wires:
        total[link.a, link.b] = total.get((link.a, link.b), 0) + 1
    seen: dict[tuple[str, str], int] = {}
    for link in wires:
        number = seen.get((link.a, link.b), 0)
        seen[link.a, link.b] = number + 1
        yield link, number, total[link.a, link.b]


def _wires(wires: Sequence[DrawnLink], places: Mapping[str, Point], size: _Size) -> Iterator[str]:
    for link, number, of in _numbered(wires):
        (ax, ay), (cx, cy), (bx, by) = _curve(link, number, of, places, size)
        kind = "wire" + ("" if link.is_up else " unconfirmed") + _load_class(link.load)
        width = 1.6 if link.load is None else 1.6 + 3 * min(link.load, 1.0)
        bent = abs((ax + bx) / 2 - cx) + abs((ay + by) / 2 - cy) > 1
        line = f"Q{_n(cx)} {_n(cy)} {_n(bx)} {_n(by)}" if bent else f"L{_n(bx)} {_n(by)}"
        yield (
            f'<path class="{kind}" stroke-width="{_n(width)}" d="M{_n(ax)} {_n(ay)}{line}">'
            f"<title>{escape(link.words)}</title></path>"
        )


def _load_class(load: float | None) -> str:
    if load is None:
        return ""
    return " low" if load < 0.3 else " some" if load <= 0.7 else " high"


def _labels(wires: Sequence[DrawnLink], places: Mapping[str, Point], size: _Size) -> Iterator[str]:
    """The names of the ports, just outside of the boxes; between them what is used, where there is room for it."""
    taken: list[tuple[float, float, float]] = []
    curves = [(link, *_curve(link, number, of, places, size)) for link, number, of in _numbered(wires)]
    for link, start, control, end in curves:
        for words, first, last, box in (
            (link.a_port, start, end, places[link.a]),
            (link.b_port, end, start, places[link.b]),
        ):
            width = len(words) * _LABEL_CHARACTER
            x, y = _outside(first, control, last, box, size, width)
            taken.append((x, y, width))
            yield _label(words, 9.5, x, y)
    for link, start, control, end in curves:
        about = [] if link.cost == 1 else [f"cost {link.cost}"]
        about += [] if link.load is None else [f"{link.load:.0%}"]
        if about:
            words = ", ".join(about)
            width = len(words) * _LABEL_CHARACTER * 1.1
            tried = [_on_curve(start, control, end, at / 100) for at in (42, 55, 33, 64, 48, 27, 70)]
            x, y = next((place for place in tried if _is_free(place, width, taken)), tried[0])
            taken.append((x, y, width))
            yield _label(words, 10.5, x, y)


def _is_free(place: Point, width: float, taken: Sequence[tuple[float, float, float]]) -> bool:
    return all(abs(place[0] - x) > (width + other) / 2 + 2 or abs(place[1] - y) > 12 for x, y, other in taken)


def _label(words: str, font: float, x: float, y: float) -> str:
    """Words on top of lines, which don't shine through: not by `paint-order`, which not every renderer knows."""
    at = f'font-size="{_n(font)}" text-anchor="middle" x="{_n(x)}" y="{_n(y + font / 3)}"'
    return f'<text class="halo" {at}>{escape(words)}</text><text class="port" {at}>{escape(words)}</text>'


def _on_curve(start: Point, control: Point, end: Point, at: float) -> Point:
    """A point of a quadratic curve, from its start (0) to its end (1)."""
    a, b, c = (1 - at) ** 2, 2 * at * (1 - at), at**2
    return a * start[0] + b * control[0] + c * end[0], a * start[1] + b * control[1] + c * end[1]


def _outside(start: Point, control: Point, end: Point, box: Point, size: _Size, width: float) -> Point:
    """The first point of a curve where words of this width are outside of the box that it starts in."""
    apart = width / 2 + 4
    for step in range(1, 50):
        x, y = _on_curve(start, control, end, step / 100)
        beside = x < box[0] - apart or x > box[0] + size.width + apart
        if beside or y < box[1] - 10 or y > box[1] + size.height + 10:
            return x, y
    return _on_curve(start, control, end, 0.3)


def _box(node: DrawnNode, place: Point, size: _Size, chips: Sequence[int]) -> str:
    x, y = place
    kind = "box" + (" transit" if node.is_transit else "") + ("" if node.is_up else " away")
    words = "\n".join(filter(None, [node.name, *node.lines, node.remark]))
    parts = [
        f'<g transform="translate({_n(x)} {_n(y)})"><title>{escape(words)}</title>'
        f'<rect class="{kind}" width="{_n(size.width)}" height="{_n(size.height)}" rx="6"/>'
    ]
    for index, colour in enumerate(chips):
        parts.append(f'<circle class="net{colour} word" cx="{_n(size.width - 10 - 12 * index)}" cy="10" r="4"/>')
    small = size.height < 28
    room = size.width - 16 - 12 * len(chips)
    parts.append(_words(node.name, "name", 16 if small else 19, 11 if small else 12.5, room))
    if not small:
        for row, line in enumerate(filter(None, (*node.lines, node.remark))):
            parts.append(_words(line, "dim", 35 + 15 * row, 10, size.width - 16))
    return "".join([*parts, "</g>"])


def _words(words: str, kind: str, y: float, font: float, room: float) -> str:
    """A line in a box; one that is too long is squeezed into it, and all of it is in the title."""
    needed = len(words) * _CHARACTER * font / 12
    squeeze = f' textLength={quoteattr(_n(room))} lengthAdjust="spacingAndGlyphs"' if needed > room else ""
    return f'<text class="{kind}" font-size="{_n(font)}" x="8" y="{_n(y)}"{squeeze}>{escape(words)}</text>'
