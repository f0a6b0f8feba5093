"""What routers outside are told: which prefixes are here, and by which nodes they are reached.

Owns the choice of the node that answers for an address. Pure: a function of the cluster's objects and of which nodes
are out of reach. Knows nothing of how routers are told.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Set
from ipaddress import ip_network

import msgspec

from topology.endpoints import backends, on_nodes
from topology.model import Cluster, Node, Service
from topology.naming import Address, Network

#: Which of these nodes answers for an address; empty where there is none.
Elect = Callable[[Address, frozenset[str]], str]
#: Nodes that are remembered for an address. That as many are all out of reach is rare, and then they are asked anew.
LINE = 8


class Route(msgspec.Struct, frozen=True):
    """A prefix, and the addresses of the nodes that take packets to it: the one that is best first, never none."""

    prefix: Network
    next_hops: tuple[Address, ...]
    #: What it is for, as `Node/node-1` or `Service/default/web`.
    owner: str


def elected(address: Address, nodes: Collection[str]) -> str:
    """The node that answers for an address.

    The one with the highest hash: a node that comes or goes moves no address but those that are its own.
    """
    return max(nodes, key=standing_for(address), default="")


class Elections:
    """`elected`, remembered: it asks every node for every address, and nodes that come or go change few answers.

    Of each address the nodes that are first in line are kept. Who is out of reach for a while is passed over and costs
    nothing when it is back; whoever is new is put in line; who is gone for good is to be forgotten.
    """

    def __init__(self) -> None:
        #: Of these the lines are. Who has been asked about last: usually the very same are asked about again.
        self._known: set[str] = set()
        self._asked: frozenset[str] = frozenset()
        #: By address: the highest hashes among those who are known, the highest first.
        self._lines: dict[Address, list[tuple[bytes, str]]] = {}

    def __call__(self, address: Address, nodes: frozenset[str]) -> str:
        if nodes is not self._asked:
            self._meet(nodes - self._known)
            self._asked = nodes
        found = _first(self._lines.get(address, ()), nodes)
        if not found and nodes:
            # Never asked about, or all who were first in line are gone.
            self._lines[address] = _line(address, self._known)
            found = _first(self._lines[address], nodes) or elected(address, nodes)
        return found

    def forget(self, node: str) -> None:
        """A node is gone for good."""
        self._known.discard(node)
        self._asked = frozenset()
        self._lines = {
            address: [each for each in line if each[1] != node] for address, line in self._lines.items() if line
        }

    def _meet(self, new: Set[str]) -> None:
        """Whoever isn't as high as the last of a line, of whose lower places nobody knows, isn't put in it."""
        if not new:
            return
        self._known |= new
        for address, line in self._lines.items():
            standing = standing_for(address)
            higher = [each for name in new if line and (each := (standing(name), name)) > line[-1]]
            if higher:
                self._lines[address] = sorted((*line, *higher), reverse=True)[:LINE]


def _first(line: Iterable[tuple[bytes, str]], nodes: Container[str]) -> str:
    return next((name for _, name in line if name in nodes), "")


def _line(address: Address, nodes: Iterable[str]) -> list[tuple[bytes, str]]:
    standing = standing_for(address)
    return heapq.nlargest(LINE, ((standing(name), name) for name in nodes))


def standing_for(address: Address) -> Callable[[str], bytes]:
    """How high a node stands among those who would answer for an address: the hash of both."""
    # What all of them begin with is hashed once: half of the time, where there are a thousand.
    begun = hashlib.blake2b(f"{address}/".encode(), digest_size=8)

    def standing(node: str) -> bytes:
        each = begun.copy()
        each.update(node.encode())
        return each.digest()

    return standing


def routes(cluster: Cluster, lost: Collection[str] = (), elect: Elect = elected) -> tuple[Route, ...]:
    """All that routers are to be told, in the order of names; `lost` are nodes that have been away for long.

    Where all are lost it is more likely us who are: bridges forward without a controller, so nothing is withdrawn then.
    A drained node answers for no load balancer's address; the way to its pods is still by itself. Nor does a switch in
    transit, which knows no Services.
    """
    names = frozenset(cluster.nodes.keys() - frozenset(lost) or cluster.nodes.keys())
    nodes = {name: cluster.nodes[name] for name in sorted(names)}
    takers = {name: node for name, node in nodes.items() if not node.drained and not node.is_transit}
    candidates = frozenset(takers)
    found: dict[Network, Route] = {}
    # Two nodes with one pod CIDR: the first by name has it, as everywhere. That holds while the first is lost, too.
    owners: dict[Network, str] = {}
    for name in sorted(cluster.nodes):
        for cidr in cluster.nodes[name].pod_cidrs:
            owners.setdefault(cidr, name)
    for cidr, name in owners.items():
        if name in nodes and (hops := _addresses([nodes[name]], cidr.version)):
            found[cidr] = Route(cidr, hops, f"Node/{name}")
    for address, service in _balanced(cluster).items():
        chosen = _takers(cluster, service, address, takers, lambda each: elect(each, candidates))
        hops = _addresses(chosen, address.version)
        if hops:
            prefix = ip_network((int(address), address.max_prefixlen))
            found.setdefault(prefix, Route(prefix, hops, f"Service/{service.namespace}/{service.name}"))
    return tuple(found.values())


def _balanced(cluster: Cluster) -> dict[Address, Service]:
    """Every load balancer's address; of the Services that share one, the first by name decides who answers for it."""
    found: dict[Address, Service] = {}
    for _, service in sorted(cluster.services.items()):
        if service.cluster_ips:
            for address in service.load_balancer_ips:
                found.setdefault(address, service)
    return found


def _takers(
    cluster: Cluster, service: Service, address: Address, nodes: Mapping[str, Node], elect: Callable[[Address], str]
) -> Iterator[Node]:
    """The nodes that take packets to a Service's address: the one that answers for it, or all that have endpoints.

    The latter where packets are to stay on the node that they come to. There none is better than nodes without any.
    """
    if not service.external_local:
        winner = elect(address)
        if winner:
            yield nodes[winner]
        return
    serving: set[str] = set()
    for port in service.ports:
        serving |= on_nodes(backends(cluster, service, port, address.version)).keys()
    serving &= nodes.keys()
    # Routers that take one next hop only get the first: another one for each address, so that they share the work.
    best = elected(address, serving)
    yield from (nodes[name] for name in sorted(serving, key=lambda name: (name != best, name)))


def _addresses(nodes: Iterable[Node], version: int) -> tuple[Address, ...]:
    """Each node's first address of a family."""
    first = (next((each for each in node.addresses if each.version == version), None) for node in nodes)
    return tuple(dict.fromkeys(each for each in first if each is not None))
