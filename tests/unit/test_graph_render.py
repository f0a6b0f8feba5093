"""The topology as people see it, and as other programs read it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from xml.etree import ElementTree

import networkx as nx
import pytest

from topology.render import Drawing, DrawnLink, DrawnNode, dot, graphml, text
from topology.svg import svg

SVG = "{http://www.w3.org/2000/svg}"


def wire(one: str, other: str, **more: object) -> DrawnLink:
    (a, a_port), (b, b_port) = (each.split(":") for each in (one, other))
    return DrawnLink(a, a_port, b, b_port, "wire", **more)  # type: ignore[arg-type]


def on(name: str, network: str, kind: str = "overlay", cost: int = 10) -> DrawnLink:
    return DrawnLink(name, "", network, "", kind, cost)


@pytest.fixture
def cluster() -> Drawing:
    nodes = [
        DrawnNode(f"node-{i}", (f"192.0.2.{i}", f"10.244.{i}.0/24, fd00:10:244:{i}::/64"), "4 pods" if i == 2 else "")
        for i in (1, 2, 3)
    ]
    links = [on(node.name, "overlay") for node in nodes] + [on("node-1", "subnet:192.0.2.0/24", "subnet", 1)]
    links += [wire("node-2:x1", "node-3:x2"), wire("node-2:x3", "node-3:x4", cost=5, load=0.42, is_up=False)]
    networks = (("overlay", 10), ("subnet:192.0.2.0/24", 1))
    return Drawing((DrawnNode("new"), *nodes), networks, tuple(links))


def leaf_spine(leaves: int, spines: int) -> Drawing:
    nodes = [DrawnNode(f"leaf-{i}", (f"192.0.2.{i}",), "1 pod") for i in range(1, leaves + 1)]
    nodes += [DrawnNode(f"spine-{i}", is_transit=True) for i in range(1, spines + 1)]
    links = [
        wire(f"leaf-{i}:l{i}-{j}", f"spine-{j}:s{j}-{i}", load=0.1 * j)
        for i in range(1, leaves + 1)
        for j in range(1, spines + 1)
    ]
    return Drawing(tuple(sorted(nodes, key=lambda node: node.name)), (), tuple(sorted(links)))


def test_text_lists_each_networks_members_then_wires_then_who_is_left(cluster: Drawing) -> None:
    assert text(cluster) == (
        "overlay  (3 nodes, cost 10)\n"
        "├─ node-1  192.0.2.1  10.244.1.0/24, fd00:10:244:1::/64\n"
        "├─ node-2  192.0.2.2  10.244.2.0/24, fd00:10:244:2::/64  4 pods\n"
        "└─ node-3  192.0.2.3  10.244.3.0/24, fd00:10:244:3::/64\n"
        "subnet:192.0.2.0/24  (1 node, cost 1)\n"
        "└─ node-1  192.0.2.1  10.244.1.0/24, fd00:10:244:1::/64\n"
        "wires  (2)\n"
        "├─ node-2  x1  ──  node-3  x2  cost 1\n"
        "└─ node-2  x3  ──  node-3  x4  cost 5  42% used  unconfirmed\n"
        "on no network  (1 node)\n"
        "└─ new  no link: unreachable\n"
    )


def test_dot_has_a_vertex_for_everything_and_an_edge_for_every_link(cluster: Drawing) -> None:
    lines = dot(cluster).splitlines()
    assert lines[0] == "graph topology {"
    assert lines[-1] == "}"
    assert sum(" -- " in line for line in lines) == len(cluster.links)
    assert '  "node-2" -- "node-3" [color="#6c757d", label="1", taillabel="x1", headlabel="x2"];' in lines
    assert '  "node-1" [label="node-1\\n192.0.2.1\\n10.244.1.0/24, fd00:10:244:1::/64"];' in lines


def test_graphml_is_read_back_with_parallel_wires_and_all_that_is_known_of_them(cluster: Drawing) -> None:
    graph = nx.read_graphml(BytesIO(graphml(cluster).encode()))
    assert graph.number_of_edges("node-2", "node-3") == 2
    assert graph.number_of_edges() == len(cluster.links)
    found = {data["aPort"]: data for data in graph.get_edge_data("node-2", "node-3").values()}
    assert (found["x1"]["cost"], found["x1"]["state"]) == (1, "Up")
    assert (found["x3"]["cost"], found["x3"]["load"], found["x3"]["state"]) == (5, 0.42, "Unconfirmed")
    assert graph.nodes["network/overlay"]["kind"] == "network" and graph.nodes["new"]["kind"] == "node"


# The drawing ----------------------------------------------------------------------------------------------------------


def boxes(drawing: ElementTree.Element) -> dict[str, tuple[float, float, float, float]]:
    """Where each node's box is: left, top, width, height."""
    found = {}
    for group in drawing.iter(f"{SVG}g"):
        rectangle = group.find(f"{SVG}rect")
        title = group.find(f"{SVG}title")
        if rectangle is not None and title is not None:
            x, y = map(float, group.attrib["transform"].removeprefix("translate(").removesuffix(")").split())
            found[(title.text or "").partition("\n")[0]] = (
                x, y, float(rectangle.attrib["width"]), float(rectangle.attrib["height"]),
            )  # fmt: skip
    return found


def wires_of(drawing: ElementTree.Element) -> Iterator[ElementTree.Element]:
    for path in drawing.iter(f"{SVG}path"):
        if path.attrib["class"].startswith("wire") and path.find(f"{SVG}title") is not None:
            yield path


def drawn(drawing: Drawing) -> ElementTree.Element:
    return ElementTree.fromstring(svg(drawing))


def ring(count: int) -> Drawing:
    names = [f"s{i}" for i in range(count)]
    pairs = [*pairwise(names), (names[-1], names[0])]
    return Drawing(tuple(map(DrawnNode, names)), (), tuple(wire(f"{a}:p", f"{b}:q") for a, b in pairs))


def chain(count: int) -> Drawing:
    names = [f"s{i}" for i in range(count)]
    return Drawing(tuple(map(DrawnNode, names)), (), tuple(wire(f"{a}:p", f"{b}:q") for a, b in pairwise(names)))


@pytest.mark.parametrize("each", [leaf_spine(4, 2), leaf_spine(90, 3), ring(7), chain(5), ring(2), Drawing(())])
def test_boxes_are_inside_of_the_frame_and_never_upon_one_another(each: Drawing) -> None:
    whole = drawn(each)
    found = boxes(whole)
    assert found.keys() == {node.name for node in each.nodes}
    width, height = float(whole.attrib["width"]), float(whole.attrib["height"])
    places = list(found.values())
    for index, (x, y, wide, high) in enumerate(places):
        assert 0 <= x <= x + wide <= width and 0 <= y <= y + high <= height
        for other_x, other_y, other_wide, other_high in places[:index]:
            apart = x >= other_x + other_wide or other_x >= x + wide or y >= other_y + other_high or other_y >= y + high
            assert apart


def test_every_wire_is_drawn_with_all_that_is_known_in_its_title_and_a_class_of_its_load(cluster: Drawing) -> None:
    found = {path.findtext(f"{SVG}title"): path.attrib["class"] for path in wires_of(drawn(cluster))}
    assert found == {
        "node-2 x1 to node-3 x2, cost 1": "wire",
        "node-2 x3 to node-3 x4, cost 5, 42% used, unconfirmed": "wire unconfirmed some",
    }
    loads = (0.0, 0.29, 0.3, 0.7, 0.71, 1.2)
    links = tuple(wire(f"a:p{index}", f"b:p{index}", load=load) for index, load in enumerate(loads))
    parallel = drawn(Drawing((DrawnNode("a"), DrawnNode("b")), (), links))
    classes = [path.attrib["class"].split()[-1] for path in wires_of(parallel)]
    assert classes == ["low", "low", "some", "some", "high", "high"]
    # Each has its own way.
    assert len({path.attrib["d"] for path in wires_of(parallel)}) == len(loads)


def test_a_fabric_has_its_spines_above_its_leaves_which_are_in_the_order_in_which_people_count() -> None:
    found = boxes(drawn(leaf_spine(12, 2)))
    spines = {found[f"spine-{i}"][1] for i in (1, 2)}
    leaves = [found[f"leaf-{i}"] for i in range(1, 13)]
    assert len(spines) == 1
    assert max(spines) < min(place[1] for place in leaves)
    in_reading_order = sorted(leaves, key=lambda place: (place[1], place[0]))
    assert in_reading_order == leaves


def test_a_chain_is_a_row() -> None:
    found = boxes(drawn(chain(5)))
    assert len({place[1] for place in found.values()}) == 1
    assert [name for name, _ in sorted(found.items(), key=lambda each: each[1])] == ["s0", "s1", "s2", "s3", "s4"]


def test_nodes_without_wires_hang_on_their_networks_buses(cluster: Drawing) -> None:
    whole = drawn(cluster)
    words = {element.text for element in whole.iter(f"{SVG}text")}
    assert {"node-1", "node-2", "new", "overlay (cost 10)", "subnet:192.0.2.0/24 (cost 1)"} <= words
    titles = [path.findtext(f"{SVG}title") for path in whole.iter(f"{SVG}path") if "line" in path.attrib["class"]]
    assert titles == ["overlay (cost 10)", "subnet:192.0.2.0/24 (cost 1)"]


def test_the_drawing_has_colours_for_light_and_for_dark() -> None:
    style = drawn(leaf_spine(2, 1)).findtext(f"{SVG}style") or ""
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    for name in (".bg", ".box", ".name", ".dim", ".port", ".halo", ".wire", ".low", ".some", ".high", ".net3"):
        assert f"{name} {{" in light and f"{name} {{" in dark


def test_names_that_are_no_xml_do_no_harm() -> None:
    evil = Drawing((DrawnNode('<a href="x">&'), DrawnNode("b")), (("<&>", 1),), (wire('<a href="x">&:<p>', "b:&"),))
    assert '<a href="x">&' in boxes(drawn(evil))
    graphml(evil)


def test_a_thousand_nodes_are_drawn_soon() -> None:
    large = leaf_spine(968, 32)
    begun = time.process_time()
    svg(large)
    # It takes 1.5 s where nothing else runs.
    assert time.process_time() - begun < 15


def test_no_nodes_make_a_text_and_a_drawing_all_the_same() -> None:
    assert text(Drawing(())) == "no nodes\n"
    drawn(Drawing(()))
