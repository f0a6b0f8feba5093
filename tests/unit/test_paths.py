"""Shortest paths: held against networkx, and what changes of edges leave behind against starting afresh."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology.paths import Edge, Paths

NAMES = [f"n{number}" for number in range(8)]
EDGES = list(combinations(NAMES, 2))
#: Few costs, so that many paths are equally long.
costs = st.sampled_from([1, 1, 2, 3, 1000])
changes = st.dictionaries(st.sampled_from(EDGES), costs | st.none(), min_size=1, max_size=12)


def paths_of(edges: Mapping[Edge, int]) -> Paths:
    return Paths().changed(edges)[0]


def graph_of(edges: Mapping[Edge, int]) -> nx.Graph[str]:
    graph: nx.Graph[str] = nx.Graph()
    graph.add_nodes_from(NAMES)
    graph.add_weighted_edges_from((a, b, cost) for (a, b), cost in edges.items())
    return graph


def applied(edges: Mapping[Edge, int], change: Mapping[Edge, int | None]) -> dict[Edge, int]:
    after = {**edges, **change}
    return {edge: cost for edge, cost in after.items() if cost is not None}


def ways(paths: Paths) -> dict[tuple[str, str], tuple[tuple[str, ...], str]]:
    """Hops and alternate, by source and target; each target is in one way."""
    found = {}
    for source in NAMES:
        for way in paths.ways(source):
            for target in paths.names(way.targets):
                assert (source, target) not in found
                found[source, target] = (way.hops, way.alternate)
    return found


def test_next_hops_are_all_neighbours_on_a_shortest_path() -> None:
    paths = paths_of({("a", "b"): 1, ("a", "c"): 1, ("b", "d"): 1, ("c", "d"): 1, ("a", "d"): 3})
    assert paths.next_hops("a", "d") == ("b", "c")
    assert paths.distance("a", "d") == 2
    assert paths.next_hops("b", "c") == ("a", "d")


def test_there_is_no_way_to_oneself_to_what_is_not_there_or_across_a_gap() -> None:
    paths = paths_of({("a", "b"): 1, ("c", "d"): 1})
    assert paths.next_hops("a", "a") == paths.next_hops("a", "c") == paths.next_hops("a", "x") == ()
    assert paths.next_hops("x", "a") == ()
    assert paths.distance("a", "c") is None
    assert (paths.distance("x", "x"), paths.distance("x", "a")) == (0, None)


def test_an_alternate_is_a_neighbour_from_which_no_path_comes_back() -> None:
    triangle = paths_of({("a", "b"): 1, ("a", "c"): 1, ("b", "c"): 1})
    way, other = triangle.ways("a")
    assert {(way.hops, way.alternate), (other.hops, other.alternate)} == {(("b",), "c"), (("c",), "b")}
    # From c the shortest path to b is by a: it would come back.
    dear = paths_of({("a", "b"): 1, ("a", "c"): 1, ("b", "c"): 9})
    assert {way.alternate for way in dear.ways("a")} == {""}


@settings(max_examples=150, deadline=None)
@given(st.lists(changes, min_size=1, max_size=6))
def test_changes_in_any_order_end_where_a_fresh_computation_does(steps: list[dict[Edge, int | None]]) -> None:
    edges: dict[Edge, int] = {}
    paths = Paths()
    for step in steps:
        before, old = ways(paths), paths
        edges = applied(edges, step)
        paths, affected = paths.changed(step)
        now = ways(paths)
        assert now == ways(paths_of(edges))
        # A value: what was made before stays as it was. And who isn't told of has the same ways.
        assert ways(old) == before
        for source, target in before.keys() | now.keys():
            if before.get((source, target)) != now.get((source, target)):
                assert affected.get(source, 0) & paths.mask([target])


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(EDGES), costs, max_size=20))
def test_paths_are_those_that_networkx_finds(edges: dict[Edge, int]) -> None:
    paths, graph = paths_of(edges), graph_of(edges)
    lengths = {source: nx.single_source_dijkstra_path_length(graph, source) for source in NAMES}
    for source in NAMES:
        for target in NAMES:
            assert paths.distance(source, target) == lengths[source].get(target)
            hops = () if source == target else tuple(
                neighbour
                for neighbour in sorted(graph[source])
                if target in lengths[neighbour]
                and graph[source][neighbour]["weight"] + lengths[neighbour][target] == lengths[source][target]
            )  # fmt: skip
            assert paths.next_hops(source, target) == hops


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(EDGES), costs, max_size=20))
def test_who_has_a_loop_free_alternate_gets_one(edges: dict[Edge, int]) -> None:
    graph = graph_of(edges)
    lengths = {source: nx.single_source_dijkstra_path_length(graph, source) for source in NAMES}
    for (source, target), (hops, alternate) in ways(paths_of(edges)).items():
        free = {
            neighbour
            for neighbour in graph[source]
            if neighbour not in hops
            and lengths[neighbour].get(target, 1e9) < lengths[neighbour][source] + lengths[source][target]
        }
        assert alternate in free if free and len(hops) == 1 else not alternate


@pytest.mark.parametrize("length", [2, 40])
def test_a_ring_is_crossed_both_ways_round(length: int) -> None:
    names = [f"r{number:02}" for number in range(2 * length)]
    ring = {tuple(sorted((name, names[index - 1]))): 1 for index, name in enumerate(names)}
    paths = paths_of(ring)  # type: ignore[arg-type]
    assert paths.distance(names[0], names[length]) == length
    assert paths.next_hops(names[0], names[length]) == tuple(sorted((names[1], names[-1])))
    cut, _ = paths.changed({(names[0], names[1]): None})
    assert cut.distance(names[0], names[1]) == 2 * length - 1
    assert cut.next_hops(names[0], names[1]) == (names[-1],)
