"""How nodes reach one another, as the controller says it by notes, and what that means on this host. Pure.

    overlay   all pods of the cluster are behind the bridge, which has a tunnel to every node
    routed    no tunnel: other nodes' pods are behind those nodes, or wherever the network's own routing leads
    hybrid    as overlay, but pods of nodes on this node's subnets are behind those nodes

`topology.graph` has the controller's side of it; table Host's flows (flows/tables/host.py) are between the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec

from topology.naming import Address, Network

_MODES = ("overlay", "routed", "hybrid")
#: Bytes that an encapsulated packet has more than the pod's, without the outer IP header: outer Ethernet is not part of
#: the MTU, the inner one is; UDP 8, VXLAN or Geneve (without options) 8; GRE 4, its key 4 (RFC 2890).
_TUNNEL_HEADERS = {"vxlan": 14 + 8 + 8, "geneve": 14 + 8 + 8, "gre": 14 + 4 + 4}
_IP_HEADERS = {4: 20, 6: 40}


class PeerRoute(msgspec.Struct, frozen=True):
    """Pods of `network` are at the node with the address `via`; `subnet`: for nodes on it alone."""

    network: Network
    via: Address
    subnet: Network | None = None


class PeerNode(msgspec.Struct, frozen=True):
    """A node's own address; `subnet`: the one that it is in."""

    address: Address
    subnet: Network | None = None


class Interconnect(msgspec.Struct, frozen=True):
    """All that the notes say of it."""

    mode: str
    encap: str
    routes: frozenset[PeerRoute] = frozenset()
    nodes: frozenset[PeerNode] = frozenset()

    @property
    def tunnel(self) -> str:
        """The kind of the tunnel port; empty where there is none."""
        return "" if self.mode == "routed" else self.encap

    @property
    def way(self) -> tuple[str, str]:
        """What it is apart from who is there."""
        return self.mode, self.tunnel

    @property
    def by_bridge(self) -> bool:
        """Whether the host finds other nodes' pods behind the bridge, where it knows no better way."""
        return self.mode != "routed"

    def overhead(self, version: int) -> int:
        """Bytes of a packet that a tunnel over this family takes from pods."""
        return _TUNNEL_HEADERS[self.encap] + _IP_HEADERS[version] if self.tunnel else 0

    def peers(self, own: Iterable[Address], connected: Iterable[Network]) -> Mapping[Network, Address]:
        """The nodes that a host with these addresses, on these networks, sends to by itself: their pods' networks."""
        mine, near = set(own), list(connected)
        found: dict[Network, Address] = {}
        for each in self.routes:
            if each.subnet is None:
                reached = any(each.via in network for network in near)
            else:
                reached = any(address in each.subnet for address in mine)
            if reached and each.via not in mine:
                found[each.network] = each.via
        return found

    def routed_nodes(self, own: Iterable[Address]) -> frozenset[Address]:
        """The nodes' addresses to which a host with these addresses sends its pods' packets by itself."""
        if self.mode == "routed":
            return frozenset(each.address for each in self.nodes)
        mine = list(own)
        subnets = {each.subnet for each in self.nodes if each.subnet is not None}
        near = {subnet for subnet in subnets if any(address in subnet for address in mine)}
        return frozenset(each.address for each in self.nodes if each.subnet in near)


def interconnect_of(network: Mapping[str, Any], routes: Iterable[PeerRoute], nodes: Iterable[PeerNode]) -> Interconnect:
    """Out of a note of kind "network" and what others say. Raises KeyError or ValueError."""
    mode, encap = network["mode"], network["encap"]
    if mode not in _MODES or encap not in _TUNNEL_HEADERS:
        raise ValueError(f"{mode} by {encap}: this agent is older than its controller")
    return Interconnect(mode, encap, frozenset(routes), frozenset(nodes))


def route_of(note: Mapping[str, Any]) -> PeerRoute:
    """Out of a note of kind "route". Raises KeyError or ValueError."""
    return PeerRoute(ip_network(note["network"]), ip_address(note["via"]), _subnet(note))


def node_of(note: Mapping[str, Any]) -> PeerNode:
    """Out of a note of kind "node". Raises KeyError or ValueError."""
    return PeerNode(ip_address(note["address"]), _subnet(note))


def _subnet(note: Mapping[str, Any]) -> Network | None:
    return ip_network(note["subnet"]) if "subnet" in note else None
