"""The topology as people see it."""

from ipaddress import ip_address, ip_network
from xml.etree import ElementTree

import pytest

from topology import render
from topology.graph import Topology
from topology.model import Node


@pytest.fixture
def cluster() -> Topology:
    made = Topology()
    for i in (1, 2, 3):
        made.put(
            Node(
                name=f"node-{i}",
                addresses=(ip_address(f"192.0.2.{i}"),),
                pod_cidrs=(ip_network(f"10.244.{i}.0/24"), ip_network(f"fd00:10:244:{i}::/64")),
            )
        )
    made.join("node-1", ip_network("192.0.2.0/24"))
    made.wire("node-2", "node-3")
    made.put(Node(name="new", addresses=(), pod_cidrs=()))
    return made


def test_text_lists_each_networks_members_then_wires_then_who_is_left(cluster: Topology) -> None:
    assert render.text(cluster.nodes(), cluster.links(), {"node-2": "4 pods"}) == (
        "overlay  (3 nodes, cost 10)\n"
        "├─ node-1  192.0.2.1  pods 10.244.1.0/24, fd00:10:244:1::/64\n"
        "├─ node-2  192.0.2.2  pods 10.244.2.0/24, fd00:10:244:2::/64  4 pods\n"
        "└─ node-3  192.0.2.3  pods 10.244.3.0/24, fd00:10:244:3::/64\n"
        "subnet:192.0.2.0/24  (1 node, cost 1)\n"
        "└─ node-1  192.0.2.1  pods 10.244.1.0/24, fd00:10:244:1::/64\n"
        "wires  (1)\n"
        "└─ node-2  ──  node-3  cost 1\n"
        "on no network  (1 node)\n"
        "└─ new  no link: unreachable\n"
    )


def test_dot_has_a_vertex_for_everything_and_an_edge_for_every_link(cluster: Topology) -> None:
    lines = render.dot(cluster.nodes(), cluster.links()).splitlines()
    assert lines[0] == "graph topology {"
    assert lines[-1] == "}"
    assert sum(" -- " in line for line in lines) == len(list(cluster.links()))
    assert '  "node-2" -- "node-3" [color="#6c757d", label="wire 1"];' in lines
    assert '  "node-1" [label="node-1\\n192.0.2.1\\npods 10.244.1.0/24, fd00:10:244:1::/64"];' in lines


def test_svg_is_xml_and_draws_every_node_and_network_inside_its_frame(cluster: Topology) -> None:
    drawing = ElementTree.fromstring(render.svg(cluster.nodes(), cluster.links()))
    words = {element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")}
    assert {"node-1", "node-2", "node-3", "new", "overlay (cost 10)", "subnet:192.0.2.0/24 (cost 1)"} <= words
    width, height = float(drawing.attrib["width"]), float(drawing.attrib["height"])
    for line in drawing.iter("{http://www.w3.org/2000/svg}line"):
        assert all(0 <= float(line.attrib[name]) <= width for name in ("x1", "x2"))
        assert all(0 <= float(line.attrib[name]) <= height for name in ("y1", "y2"))


def test_no_nodes_make_a_text_and_a_drawing_all_the_same() -> None:
    assert render.text([], []) == "no nodes\n"
    ElementTree.fromstring(render.svg([], []))
