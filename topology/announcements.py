"""What routers outside are told: which prefixes are here, and by which nodes they are reached.

Owns the choice of the node that answers for an address. Pure: a function of the cluster's objects and of which nodes
are out of reach. Knows nothing of how routers are told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from ipaddress import ip_network

import msgspec

from topology.endpoints import backends, on_nodes
from topology.model import Cluster, Node, Service
from topology.naming import Address, Network

#: Which of these nodes answers for an address; empty where there is none.
Elect = Callable[[Address, frozenset[str]], str]


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
    text = f"{address}/"
    return max(nodes, key=lambda node: _hash(text + node), default="")


class Elections:
    """`elected`, remembered: it asks every node for every address, and a node more or less changes few answers."""

    def __init__(self) -> None:
        self._nodes: frozenset[str] = frozenset()
        self._winners: dict[Address, str] = {}

    def __call__(self, address: Address, nodes: frozenset[str]) -> str:
        if nodes is not self._nodes:
            self._turn_to(nodes)
        winner = self._winners.get(address)
        if winner is None:
            winner = self._winners[address] = elected(address, nodes)
        return winner

    def _turn_to(self, nodes: frozenset[str]) -> None:
        """Forget who has gone; those who are new stand against who won before."""
        new = nodes - self._nodes
        remaining = ((address, winner) for address, winner in self._winners.items() if winner in nodes)
        self._winners = {address: elected(address, {winner, *new}) if new else winner for address, winner in remaining}
        self._nodes = nodes


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


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
