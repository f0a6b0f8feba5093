"""Ways over wires: shortest ones, port by port, and what is as good."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from topology.graph import Wire, wire
from topology.ways import Hop, way

NAMES = "abcdef"
wires = st.lists(
    st.builds(
        lambda one, other, cost: wire((one, f"{one}-{other}-{cost}"), (other, f"{other}-{one}-{cost}"), cost),
        st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(1, 4),
    ).filter(lambda each: each.a != each.b),
    unique=True,
)  # fmt: skip


def diamond() -> list[Wire]:
    return [
        wire(("a", "a1"), ("b", "b1")), wire(("a", "a2"), ("c", "c1")),
        wire(("b", "b2"), ("d", "d1")), wire(("c", "c2"), ("d", "d2")),
    ]  # fmt: skip


def test_of_ways_that_are_as_good_the_first_by_name_is_shown_and_the_others_named() -> None:
    found = way(diamond(), "a", "d")
    assert found is not None
    assert [step.hop for step in found] == [Hop("a", "a1", "b", "b1", 1), Hop("b", "b2", "d", "d1", 1)]
    assert [step.others for step in found] == [(Hop("a", "a2", "c", "c1", 1),), ()]


def test_costs_decide() -> None:
    dear = [*diamond()[1:], wire(("a", "a1"), ("b", "b1"), 10)]
    found = way(dear, "a", "d")
    assert found is not None and [step.hop.to for step in found] == ["c", "d"]
    assert all(not step.others for step in found)


def test_there_is_none_where_nothing_leads() -> None:
    assert way(diamond(), "a", "z") is None
    assert way(diamond(), "z", "a") is None
    assert way([], "a", "b") is None


def test_nowhere_is_near() -> None:
    assert way(diamond(), "a", "a") == ()


@given(wires, st.sampled_from(NAMES), st.sampled_from(NAMES))
def test_no_way_is_shorter(some: list[Wire], source: str, target: str) -> None:
    graph: nx.MultiGraph[str] = nx.MultiGraph()
    graph.add_nodes_from(NAMES)
    for each in some:
        graph.add_edge(each.a, each.b, weight=each.cost)
    found = way(some, source, target)
    try:
        cost = nx.shortest_path_length(graph, source, target, weight="weight")
    except nx.NetworkXNoPath:
        assert found is None
        return
    if source == target:
        assert not found
        return
    assert found is not None and sum(step.hop.cost for step in found) == cost
    assert (found[0].hop.node, found[-1].hop.to) == (source, target)
    for step, following in pairwise(found):
        assert step.hop.to == following.hop.node
    ends = {(each.a, each.a_port, each.b, each.b_port) for each in some}
    for step in found:
        for hop in (step.hop, *step.others):
            assert {(hop.node, hop.port, hop.to, hop.to_port), (hop.to, hop.to_port, hop.node, hop.port)} & ends
