"""Topologies that Mininet hasn't: fat trees, leaf-spine, and whatever graph a person has.

`mn --topo signalbox,fat-tree,4`, `signalbox,leaf-spine,2,4,2`, `signalbox,graphml,FILE`; and four of Mininet's own, as
`signalbox,linear,5`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
from mininet.topo import LinearTopo, SingleSwitchTopo, Topo
from mininet.topolib import TorusTopo, TreeTopo

from deploy.mininet.manifests import MininetError


class FatTree(Topo):  # type: ignore[misc]
    """A k-ary fat tree: k pods of k/2 edge and k/2 aggregation switches, (k/2)^2 core switches, k^3/4 hosts."""

    def build(self, k: int = 4) -> None:
        """k: ports of each switch, even."""
        if not isinstance(k, int) or k < 2 or k % 2:
            raise MininetError(f"fat-tree {k}: the number of a switch's ports is even, as 4")
        half = k // 2
        core = [self.addSwitch(f"core{number + 1}") for number in range(half * half)]
        hosts = 0
        for pod in range(k):
            above = [self.addSwitch(f"agg{pod + 1}x{number + 1}") for number in range(half)]
            for number, switch in enumerate(above):
                for each in core[number * half : (number + 1) * half]:
                    self.addLink(switch, each)
            for number in range(half):
                edge = self.addSwitch(f"edge{pod + 1}x{number + 1}")
                for each in above:
                    self.addLink(edge, each)
                for _ in range(half):
                    hosts += 1
                    self.addLink(self.addHost(f"h{hosts}"), edge)


class LeafSpine(Topo):  # type: ignore[misc]
    """Every leaf wired to every spine."""

    def build(self, spines: int = 2, leaves: int = 4, hosts: int = 1) -> None:
        """hosts: on each leaf."""
        tops = [self.addSwitch(f"spine{number + 1}") for number in range(spines)]
        for number in range(leaves):
            leaf = self.addSwitch(f"leaf{number + 1}")
            for top in tops:
                self.addLink(leaf, top)
            for index in range(hosts):
                self.addLink(self.addHost(f"h{number * hosts + index + 1}"), leaf)


class GraphTopo(Topo):  # type: ignore[misc]
    """A networkx graph, or the path of a GraphML file (Topology Zoo has hundreds): each vertex a switch with a host.

    Switches are s1, s2, ... in the graph's order, and `switch_of` tells which is whose; so are hosts. Loops of a vertex
    to itself are left out.
    """

    def build(self, graph: Any = None, hosts: int = 1) -> None:
        """graph: a graph or a path; hosts: on each switch."""
        if graph is None:
            raise MininetError("graphml: which file? Give it as signalbox,graphml,FILE")
        found = read_graph(Path(graph)) if isinstance(graph, str | Path) else graph
        self.switch_of = {vertex: f"s{number}" for number, vertex in enumerate(found, 1)}
        for number, name in enumerate(self.switch_of.values()):
            self.addSwitch(name)
            for index in range(hosts):
                self.addLink(self.addHost(f"h{number * hosts + index + 1}"), name)
        for a, b in found.edges():
            if a != b:
                self.addLink(self.switch_of[a], self.switch_of[b])


def read_graph(path: Path) -> Any:
    """A GraphML file. Raises MininetError that says what is wrong with it."""
    try:
        found = nx.read_graphml(path)
    except OSError as error:
        raise MininetError(f"{path}: {error.strerror}") from error
    # What networkx raises for files that are no GraphML is of many kinds.
    except Exception as error:
        raise MininetError(f"{path}: not GraphML: {error}") from error
    if not found:
        raise MininetError(f"{path}: the graph has no vertex")
    return found.to_undirected() if found.is_directed() else found


_KINDS: dict[str, Callable[..., Topo]] = {
    "fat-tree": FatTree,
    "leaf-spine": LeafSpine,
    "graphml": GraphTopo,
    "single": SingleSwitchTopo,
    "linear": LinearTopo,
    "tree": TreeTopo,
    "torus": TorusTopo,
}


def SignalboxTopo(kind: str = "single", *args: Any, **params: Any) -> Topo:
    """A topology by its name, for Mininet's command line."""
    if kind not in _KINDS:
        raise MininetError(f"--topo signalbox,{kind}: there are {', '.join(_KINDS)}")
    return _KINDS[kind](*args, **params)
