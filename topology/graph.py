"""The cluster as a graph: nodes and *networks* are vertices, links are edges with a kind and a cost.

A network is a vertex, never a full mesh: 1,000 nodes on the overlay are 1,000 edges. How packets go from one node to
another is a shortest path here and nothing else; encapsulated, routed and wired fabrics are different edges, not
different code.

    a ──5── overlay ──5── b        a tunnel from a to b costs 10: half on each side of the network
    │                     │
   0.5    subnet:CIDR    0.5       the same L2 segment costs 1, so a and b route
    └──────────┴──────────┘

Which networks a node is on is the `Interconnect`'s to say: on the overlay; or on the one network that routes every
node's pod CIDRs; or on the overlay and on its own subnets, which cost less.

Owns the graph and its questions. Must not know ports, flows or where links were found. Nodes come from the cluster's
objects, other links from whoever finds them; the flow compiler asks `next_hops` and nothing else. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from ipaddress import ip_network

import msgspec
import networkx as nx

from topology.model import Node
from topology.naming import Address, Network

_NETWORK = "network/"
#: The network that every node with an address is on: any member reaches any other by tunnel.
OVERLAY = _NETWORK + "overlay"
#: The network that every node with an address is on where nothing is encapsulated: it, or the hosts, route pod CIDRs.
ROUTED = _NETWORK + "routed"


class LinkKind(StrEnum):
    """What a link is, and with it how a packet crosses it."""

    OVERLAY = "overlay"
    ROUTED = "routed"
    SUBNET = "subnet"
    WIRE = "wire"


#: Cost of one crossing (into a network and out of it again): a tunnel is taken where nothing better is there.
COSTS = {LinkKind.OVERLAY: 10, LinkKind.ROUTED: 1, LinkKind.SUBNET: 1, LinkKind.WIRE: 1}


class TopologyError(ValueError):
    """A link that can't be: the text says which, and why."""


class Mode(StrEnum):
    """How nodes reach one another: all by tunnel, all by routing, or by routing on a subnet and by tunnel beyond."""

    OVERLAY = "overlay"
    ROUTED = "routed"
    HYBRID = "hybrid"


class Encap(StrEnum):
    """What a tunnel is."""

    VXLAN = "vxlan"
    GENEVE = "geneve"
    GRE = "gre"


class Interconnect(msgspec.Struct, frozen=True):
    """How the nodes of a cluster are joined; `subnets` are its L2 segments, of which hybrid mode knows."""

    mode: Mode = Mode.OVERLAY
    encap: Encap = Encap.VXLAN
    subnets: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, mode: str, encap: str, subnets: Iterable[str] = ()) -> Interconnect:
        """As options say it. Raises TopologyError."""
        try:
            networks = tuple(sorted(map(ip_network, subnets), key=lambda each: (each.version, each)))
        except ValueError as error:
            raise TopologyError(f"--subnet: {error}") from error
        for number, one in enumerate(networks):
            for other in networks[:number]:
                if one.version == other.version and one.overlaps(other):
                    raise TopologyError(f"--subnet: {other} and {one} overlap")
        if bool(networks) != (mode == Mode.HYBRID):
            raise TopologyError(
                "--subnet and --mode hybrid go together: inside of a subnet nodes route, beyond they tunnel"
            )
        return cls(Mode(mode), Encap(encap), networks)

    @property
    def routes(self) -> bool:
        """Whether packets go from node to node without a tunnel, anywhere."""
        return self.mode is not Mode.OVERLAY

    def number(self, subnet: Network | None) -> int:
        """A subnet's number, from 1; 0 stands for none."""
        return 0 if subnet is None else self.subnets.index(subnet) + 1

    def subnets_of(self, node: Node) -> tuple[Network, ...]:
        """The subnets that a node is on: the first of each family that it has an address in."""
        found: dict[int, Network] = {}
        for each in self.subnets:
            if each.version not in found and any(address in each for address in node.addresses):
                found[each.version] = each
        return tuple(found.values())


class Link(msgspec.Struct, frozen=True, order=True):
    """An edge between two vertices: names of nodes or of networks (`OVERLAY`, `subnet(cidr)`), smaller one first.

    `cost` is that of one crossing, so for a link to a network what it costs to go in here and out anywhere.
    """

    a: str
    b: str
    kind: LinkKind
    cost: int


class Wire(msgspec.Struct, frozen=True, order=True):
    """Two bridges' ports that are joined, each a node's name and its port's; the smaller end first (`wire`)."""

    a: str
    a_port: str
    b: str
    b_port: str
    cost: int = 1


def wire(one: tuple[str, str], other: tuple[str, str], cost: int = 1) -> Wire:
    """The wire between two ends, whichever is named first."""
    (a, a_port), (b, b_port) = sorted((one, other))
    return Wire(a, a_port, b, b_port, cost)


class NextHop(msgspec.Struct, frozen=True, order=True):
    """How a packet leaves a vertex: over a link of `kind` to `node`; by tunnel or subnet that is `endpoint` there."""

    kind: LinkKind
    node: str
    endpoint: Address | None = None


def subnet(cidr: Network) -> str:
    """The vertex of an L2 segment."""
    return f"{_NETWORK}subnet:{cidr}"


def is_network(vertex: str) -> bool:
    """Whether a vertex is a network. Node names can't hold a slash (RFC 1123), so no node is taken for one."""
    return vertex.startswith(_NETWORK)


def display_name(vertex: str) -> str:
    """A vertex as people call it: `overlay`, `subnet:192.0.2.0/24`, or the node's name."""
    return vertex.removeprefix(_NETWORK)


class Topology:
    """The graph of the current nodes."""

    def __init__(self, interconnect: Interconnect | None = None) -> None:
        self._interconnect = interconnect or Interconnect()
        #: The network that every node with an address is on.
        self._everywhere = ROUTED if self._interconnect.mode is Mode.ROUTED else OVERLAY
        self.graph: nx.Graph[str] = nx.Graph()
        self._nodes: dict[str, Node] = {}

    # What changes -----------------------------------------------------------------------------------------------

    def put(self, node: Node) -> None:
        """Add a node, or replace it. Its addresses put it on networks, and it stays on subnets it has one of."""
        self._nodes[node.name] = node
        self.graph.add_node(node.name)
        if node.addresses:
            routed = self._everywhere == ROUTED
            self._add_edge(node.name, self._everywhere, LinkKind.ROUTED if routed else LinkKind.OVERLAY)
        for cidr in self._interconnect.subnets_of(node):
            self.join(node.name, cidr)
        for network in [vertex for vertex in self.graph[node.name] if is_network(vertex)]:
            if self._endpoint(network, network, node.name) is None:
                self._remove_edge(node.name, network)

    def remove(self, name: str) -> None:
        """Take a node and its links away, if it is there."""
        if self._nodes.pop(name, None) is None:
            return
        for vertex in list(self.graph[name]):
            self._remove_edge(name, vertex)
        self.graph.remove_node(name)

    def join(self, name: str, cidr: Network) -> None:
        """Put a node on an L2 segment, where it is reached by its addresses inside `cidr`. Raises TopologyError."""
        node = self._node(name)
        if not any(address in cidr for address in node.addresses):
            raise TopologyError(f"node {name} has no address in {cidr}")
        self.graph.add_node(subnet(cidr), cidr=cidr)
        self._add_edge(name, subnet(cidr), LinkKind.SUBNET)

    def wire(self, a: str, b: str, cost: int = COSTS[LinkKind.WIRE]) -> None:
        """Join two nodes' bridges port to port. Raises TopologyError."""
        if self._node(a) == self._node(b):
            raise TopologyError(f"node {a} can't be wired to itself")
        self._add_edge(a, b, LinkKind.WIRE, cost)

    def cut(self, a: str, b: str) -> None:
        """Take a link away, if it is there: the wire between two nodes, or a node's place on a network."""
        if self.graph.has_edge(a, b):
            self._remove_edge(a, b)

    def _node(self, name: str) -> Node:
        if name not in self._nodes:
            raise TopologyError(f"there is no node {name}")
        return self._nodes[name]

    def _add_edge(self, a: str, b: str, kind: LinkKind, cost: int | None = None) -> None:
        cost = COSTS[kind] if cost is None else cost
        # Half the cost on each side of a network: crossing it costs `cost` once. Halves are exact in binary.
        weight = cost if kind is LinkKind.WIRE else cost / 2
        self.graph.add_edge(a, b, kind=kind, cost=cost, weight=weight)

    def _remove_edge(self, a: str, b: str) -> None:
        self.graph.remove_edge(a, b)
        for vertex in (a, b):
            if is_network(vertex) and not self.graph[vertex]:
                self.graph.remove_node(vertex)

    # What there is ----------------------------------------------------------------------------------------------

    def nodes(self) -> list[Node]:
        """Every node, by name."""
        return [self._nodes[name] for name in sorted(self._nodes)]

    def links(self) -> Iterator[Link]:
        """Every link, sorted, each once."""
        for a, b in sorted((min(edge), max(edge)) for edge in self.graph.edges):
            yield Link(a, b, self._kind(a, b), self.graph.edges[a, b]["cost"])

    def _kind(self, a: str, b: str) -> LinkKind:
        kind: LinkKind = self.graph.edges[a, b]["kind"]
        return kind

    # Ways -------------------------------------------------------------------------------------------------------

    def ways_to(self, name: str) -> list[str]:
        """The networks whose members reach a node each in their own way, sorted: that of all nodes, and its own."""
        return sorted({self._everywhere, *filter(is_network, self.graph[name])}) if name in self._nodes else []

    def cidr(self, network: str) -> Network | None:
        """What a network's members have their addresses in, where that is what makes them members."""
        cidr: Network | None = self.graph.nodes[network].get("cidr")
        return cidr

    def next_hops(self, source: str, target: str) -> tuple[NextHop, ...]:
        """The first steps of every shortest path from a vertex to a node, sorted; empty where there is none.

        `source` may be a network: then the answer is what every member of it does that has no better way.
        """
        graph = self.graph
        if source == target or source not in graph or target not in self._nodes:
            return ()
        if is_network(source) and graph.has_edge(source, target):
            # The shortest there can be, and found without looking at the other members.
            return self._hop(source, source, target)
        costs: dict[str, float] = nx.single_source_dijkstra_path_length(graph, target)
        if source not in costs:
            return ()
        hops: set[NextHop] = set()
        for first in self._towards(source, costs):
            # A network isn't a place to stop at: the hop is the member beyond it.
            for member in self._towards(first, costs) if is_network(first) else (first,):
                hops.update(self._hop(source, first if is_network(first) else source, member))
        return tuple(sorted(hops, key=lambda hop: (hop.kind, hop.node)))

    def _towards(self, vertex: str, costs: dict[str, float]) -> Iterator[str]:
        """The neighbours of a vertex that are on a shortest path to where `costs` (to there, of each vertex) says."""
        for neighbour, edge in self.graph[vertex].items():
            if costs[neighbour] + edge["weight"] == costs[vertex]:
                yield neighbour

    def _hop(self, source: str, via: str, member: str) -> tuple[NextHop, ...]:
        """The hop to a member of the network `via`, or over the wire from the node `via`; none without an endpoint."""
        kind = self._kind(via, member)
        if kind is LinkKind.WIRE:
            return (NextHop(kind, member),)
        endpoint = self._endpoint(source, via, member)
        return () if endpoint is None else (NextHop(kind, member, endpoint),)

    def _endpoint(self, source: str, network: str, member: str) -> Address | None:
        """The member's first address that the source can send to: on that subnet, or of a family it has itself."""
        addresses = self._nodes[member].addresses
        if network not in (OVERLAY, ROUTED):
            cidr = self.graph.nodes[network]["cidr"]
            return next((address for address in addresses if address in cidr), None)
        if is_network(source):
            return next(iter(addresses), None)
        families = {address.version for address in self._nodes[source].addresses}
        return next((address for address in addresses if address.version in families), None)
