"""Ways over wires: paths among 1,000 nodes, cold and after a link event, against networkx; flows that switches hold.

Three graphs: leaf-spine with 40 spines, and two in which each node is wired to 6 or 24 others by chance. `paths` is
topology.paths: all distances, and all next hops of all pairs. networkx is given the same graph in the same run, and has
to find as much by Dijkstra's algorithm (each search finds how all others reach one node), from 20 of the nodes, which
is told for all of them; after a link event it would have to start anew. Its breadth-first search, for which all costs
are equal, as they are here, finds distances only. Link events take a wire out or put it back, at any place. Times are
of CPU.

Then the compiler, on two of the graphs: a cold start, and link events as a switch announces them, with the digests and
bytes of what is sent; and how many flows a switch has with few and many nodes and pods.
"""

import statistics
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from random import Random

import networkx as nx
import rig
from cluster_objects import node, pod, pod_port

from controller.batch import encoded
from controller.process import collect_seldom
from flows.compiler import Compiler
from flows.state import Port
from flows.update import CLUSTER
from topology.graph import Wire, wire
from topology.model import TRANSIT, Node
from topology.naming import GATEWAY_MAC, GATEWAY_PORT
from topology.paths import Edge, Paths

NODES, SPINES, EVENTS, SEARCHES = 1_000, 40, 40, 20
QUICK_NODES, QUICK_EVENTS = 100, 20
_SEED = 7


def leaf_spine(nodes: int) -> list[Edge]:
    """All leaves wired to all spines."""
    spines = min(SPINES, nodes // 10)
    return [(f"leaf-{leaf:04}", f"spine-{spine:02}") for leaf in range(nodes - spines) for spine in range(spines)]


def by_chance(nodes: int, degree: int) -> list[Edge]:
    """Each wired to so many others."""
    graph = nx.random_regular_graph(degree, nodes, seed=_SEED)
    ends = ((f"node-{min(edge):04}", f"node-{max(edge):04}") for edge in graph.edges)
    return sorted(ends)


def timed(act: Callable[[], object]) -> float:
    """Seconds of CPU that something takes; it is one thread."""
    started = time.process_time()
    act()
    return time.process_time() - started


# Paths ----------------------------------------------------------------------------------------------------------------


def of_paths(title: str, edges: list[Edge], events: int) -> list[list[str]]:
    """Our paths and networkx's."""
    made = Paths()

    def cold() -> None:
        nonlocal made
        made, _ = Paths().changed(dict.fromkeys(edges, 1))

    ours = [timed(cold) for _ in range(3)]
    chance = Random(_SEED)
    gone, back = [], []
    for edge in chance.sample(edges, events):
        for cost, times in ((None, gone), (1, back)):
            started = time.process_time()
            made, _ = made.changed({edge: cost})
            times.append(time.process_time() - started)
    graph = nx.Graph(edges)
    nx.set_edge_attributes(graph, 1, "weight")
    some = chance.sample(sorted(graph), SEARCHES)
    theirs = timed(lambda: [nx.dijkstra_predecessor_and_distance(graph, each) for each in some])
    theirs *= len(graph) / len(some)
    distances = timed(lambda: [dict(nx.single_source_shortest_path_length(graph, each)) for each in graph])
    mine, both = statistics.median(ours), gone + back
    return [
        [f"{title}: {len(graph):,} nodes, {len(edges):,} wires: networkx", f"{theirs:.2f} s", "1.00", "itself"],
        ["  its breadth-first search, distances only", f"{distances:.2f} s", f"{distances / theirs:.2f}", "networkx"],
        ["  paths, distances and next hops, cold", f"{mine:.3f} s", f"1/{theirs / mine:,.0f}", "networkx"],
        ["  a wire goes", rig.milliseconds(gone), f"1/{theirs / statistics.median(gone):,.0f}", "networkx"],
        ["  a wire comes", rig.milliseconds(back), f"1/{theirs / statistics.median(back):,.0f}", "networkx"],
        ["  the slowest of them", rig.milliseconds([max(both)]), f"{max(both) / 0.1:.2f}", "aim, 100 ms"],
    ]  # fmt: skip


# The compiler ---------------------------------------------------------------------------------------------------------


class Site:
    """A compiler that knows nodes, ports and wires; spines are in transit."""

    def __init__(self, edges: Iterable[Edge], pods: int = 0) -> None:
        self.compiler = Compiler()
        self.wires: list[Wire] = [wire((a, f"to-{b}"), (b, f"to-{a}")) for a, b in edges]
        self.names = sorted({name for each in self.wires for name in (each.a, each.b)})
        self.ports: dict[str, dict[str, Port]] = {}
        for index, name in enumerate(self.names):
            self.compiler.put(self._node(index, name))
            self.ports[name] = {GATEWAY_PORT: Port(1, GATEWAY_PORT, GATEWAY_MAC)}
        for each in self.wires:
            for name, port in ((each.a, each.a_port), (each.b, each.b_port)):
                self.ports[name][port] = Port(100 + len(self.ports[name]), port, 0)
        for index in range(pods):
            self._add_pod(self.names[index % len(self.names)], index)
        for name in self.names:
            self.compiler.set_ports(name, self.ports[name].values())

    def _node(self, index: int, name: str) -> Node:
        transit = name.startswith("spine")
        cidrs = node(index).pod_cidrs
        return Node(name=name, addresses=(), pod_cidrs=() if transit else cidrs, labels=(TRANSIT,) if transit else ())

    def _add_pod(self, name: str, index: int) -> None:
        where = self.compiler.cluster.nodes[name]
        if where.pod_cidrs:
            each = pod(where, index)
            self.compiler.put(each)
            self.ports[name][each.port_name] = pod_port(where, each, index // len(self.names))

    def start(self) -> int:
        """All wires at once; how many flows of all switches that makes."""
        updates = self.compiler.set_links(self.wires)
        return sum(len(update.added) for update in updates)

    def fail(self, each: Wire, *, up: bool) -> tuple[int, int, int]:
        """A wire's link goes, or comes: flows, bytes, and switches that are sent some."""
        flows = sent = 0
        switches = set()
        for name, port in ((each.a, each.a_port), (each.b, each.b_port)):
            old = self.ports[name][port]
            self.ports[name][port] = Port(old.number, old.name, old.mac, up)
            for update in self.compiler.set_ports(name, self.ports[name].values()):
                messages = encoded(update).steps
                flows += len(messages)
                sent += sum(len(message) for message, _ in messages)
                switches.add(update.scope)
        return flows, sent, len(switches)


def of_compiler(title: str, edges: list[Edge], events: int) -> list[list[str]]:
    """What the compiler makes of the graph and of link events."""
    site = Site(edges)
    flows = 0

    def cold() -> None:
        nonlocal flows
        flows = site.start()

    started = timed(cold)
    times, mods, sizes, switches = [], [], [], []
    for each in Random(_SEED).sample(site.wires, events):
        for up in (False, True):
            begun = time.process_time()
            found = site.fail(each, up=up)
            times.append(time.process_time() - begun)
            for kept, number in zip((mods, sizes, switches), found, strict=True):
                kept.append(number)
    return [
        [f"{title}: all {flows:,} flows of the fabric, cold compile", f"{started:.2f} s", "", ""],
        ["  a link goes or comes: compiled and encoded for all", rig.milliseconds(times),
         f"1/{started / statistics.median(times):.0f}", "cold compile"],
        ["  of that, for each switch that is sent some",
         rig.milliseconds([taken / max(count, 1) for taken, count in zip(times, switches, strict=True)]), "", ""],
        ["  the slowest of them", rig.milliseconds([max(times)]), f"{max(times) / statistics.median(times):.2f}",
         "its median"],
        ["  flows and groups sent", f"{statistics.median(mods):,.0f}", f"1/{flows / statistics.median(mods):,.0f}",
         "all flows"],
        ["  bytes", f"{statistics.median(sizes):,.0f}", "", ""],
        ["  switches that are sent some", f"{statistics.median(switches):,.0f}",
         f"{statistics.median(switches) / len(site.names):.2f}", "all switches"],
    ]  # fmt: skip


def of_sizes(nodes: int) -> list[list[str]]:
    """How many flows switches have: with few nodes and many, with few pods and many."""
    sizes = []
    for count, pods in ((nodes // 10, 0), (nodes, 0), (nodes, 10 * nodes)):
        site = Site(leaf_spine(count), pods)
        site.start()
        leaf, spine = (next(name for name in site.names if name.startswith(kind)) for kind in ("leaf", "spine"))
        shared = sum(1 for _ in site.compiler.flows(CLUSTER))
        own = sum(1 for _ in site.compiler.local_pods(leaf))
        held = sum(1 for _ in site.compiler.flows(leaf))
        sizes.append((count, pods, sum(1 for _ in site.compiler.flows(spine)), shared, held, own))
    rows = []
    for (_, _, *before), (count, pods, spine, shared, held, own) in pairwise([sizes[0], *sizes]):
        title = f"{count:,} nodes, {pods:,} pods: flows of a spine"
        rows += [
            [title, f"{spine:,}", f"{spine / before[0]:.2f}", "the row above"],
            ["  the same on all leaves", f"{shared:,}", f"{shared / before[1]:.2f}", "the row above"],
            [f"  a leaf's own, with {own} pods", f"{held:,}", f"{held / before[2]:.2f}", "the row above"],
        ]
    return rows


def main() -> None:
    nodes, events = (QUICK_NODES, QUICK_EVENTS) if quick else (NODES, EVENTS)
    graphs = {
        "leaf-spine": leaf_spine(nodes),
        "6 wires each": by_chance(nodes, 6),
        "24 wires each": by_chance(nodes, 24),
    }
    # As the controller does: the state is large and lives long.
    collect_seldom()
    rows = []
    for title, edges in graphs.items():
        rig.progress(f"{title}: paths")
        rows += of_paths(title, edges, events)
    for title, edges in list(graphs.items())[:2]:
        rig.progress(f"{title}: compiler")
        rows += of_compiler(title, edges, events)
    rig.progress("sizes of tables")
    rows += of_sizes(nodes)
    rig.table([f"name (median of {2 * events} events)", "CPU, or number", "ratio", "compared with"], rows)


if __name__ == "__main__":
    quick = rig.arguments(__doc__ or "")
    main()
