"""What a node's host does with a packet that is not yet in its switch: from a process of its own, or from its network.

Its own addresses it keeps, but for ports that lead to Services and pods; other nodes it reaches by itself; what belongs
to its bridge goes there; all else it sends to the world. Which is which it is told by its switch: the notes of table
Host (`flows.tables.host`), as the node's agent obeys them. What agents know from their command line (ranges of pods, of
Services and of node ports) is taken to be what the controller knows. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import msgspec

from flows import fields as f
from flows.fields import Field
from flows.interpreter import Packet
from flows.pipeline import HOST
from flows.values import Flow, Note
from topology.model import Cluster
from topology.naming import ENTRY_ADDRESSES, Address, Network, gateway_addresses

_PORTS: Mapping[int, tuple[str, Field]] = {
    f.PROTO_TCP: ("TCP", f.TCP_DST),
    f.PROTO_UDP: ("UDP", f.UDP_DST),
    f.PROTO_SCTP: ("SCTP", f.SCTP_DST),
}
Told = Mapping[str, Any]


class Kept(msgspec.Struct, frozen=True):
    """It is for the host itself."""


class Sent(msgspec.Struct, frozen=True):
    """The host sends it on by its own network: to another node, or to the world (empty)."""

    node: str
    packet: dict[Field, int]


class Bridged(msgspec.Struct, frozen=True):
    """It goes into the host's switch, perhaps for another destination than it had."""

    packet: dict[Field, int]


def told(flows: Iterable[Flow]) -> Iterator[Told]:
    """What flows of table Host tell agents."""
    for flow in flows:
        for action in flow.program if flow.table == HOST.number else ():
            if isinstance(action, Note):
                yield json.loads(action.data)


class Host:
    """The host of one node. `notes` are those of its switch."""

    def __init__(
        self, cluster: Cluster, node: str, notes: Iterable[Told], services: Iterable[Network], node_ports: range
    ) -> None:
        self._cluster, self._name = cluster, node
        self._notes = list(notes)
        self._services, self._node_ports = tuple(services), node_ports
        here = cluster.nodes[node]
        self._here = here
        self._own = {*here.addresses, *gateway_addresses(here.pod_cidrs)}

    def way(self, packet: Packet) -> Kept | Sent | Bridged:
        """What becomes of a packet."""
        target = destination(packet)
        if target in self._own:
            return self._at_own_port(packet, target)
        routed = self._routed_to(target)
        if routed:
            return Sent(routed, dict(packet))
        return Bridged(dict(packet)) if self._is_bridged(target) else Sent("", dict(packet))

    def beyond(self, packet: Packet) -> Sent | None:
        """To which other node the host sends what came out of its switch; None: it stays, or goes to the world."""
        target = destination(packet)
        routed = self._routed_to(target) if target not in self._own else ""
        return Sent(routed, self._masqueraded(packet, routed)) if routed else None

    def _masqueraded(self, packet: Packet, node: str) -> dict[Field, int]:
        """A packet as the other node gets it: pods are known there by their own addresses if it routes to them."""
        target = destination(packet)
        to_pods = any(target in cidr for each in self._cluster.nodes.values() for cidr in each.pod_cidrs)
        ends = self._cluster.nodes[node].addresses
        routes = any(
            each["kind"] == "route" and ip_address(each["via"]) in ends and self._is_near(each) for each in self._notes
        )
        mine = next((each for each in self._here.addresses if each.version == target.version), None)
        if to_pods or routes or mine is None:
            return dict(packet)
        return {**packet, f.IPV4_SRC if mine.version == 4 else f.IPV6_SRC: int(mine)}

    def _is_near(self, way: Told) -> bool:
        """Whether a route is for this node."""
        return "subnet" not in way or any(mine in ip_network(way["subnet"]) for mine in self._here.addresses)

    def _at_own_port(self, packet: Packet, target: Address) -> Kept | Bridged:
        protocol, field = _PORTS.get(packet[f.IP_PROTO], ("", None))
        if field is None:
            return Kept()
        port = packet[field]
        ports = [each for each in self._notes if each["kind"] == "port" and each["port"] == port]
        if protocol == "TCP" and any(each["kind"] == "health" and each["port"] == port for each in self._notes):
            return Kept()
        for each in ports:
            if each["protocol"] == protocol and each.get("address") == str(target):
                return Bridged(_bound_for(packet, ip_address(each["to"])) | {field: each["toPort"]})
        everywhere = any(each["protocol"] == protocol and "address" not in each for each in ports)
        if everywhere or port in self._node_ports:
            entry = next(each for each in ENTRY_ADDRESSES if each.version == target.version)
            return Bridged(self._by_the_gateway(_bound_for(packet, entry)))
        return Kept()

    def _by_the_gateway(self, packet: dict[Field, int]) -> dict[Field, int]:
        """What the host asks of a port of its own comes from the gateway's address; others keep theirs."""
        field = f.IPV4_SRC if f.IPV4_SRC in packet else f.IPV6_SRC
        version = 4 if field is f.IPV4_SRC else 6
        gateway = next((int(each) for each in gateway_addresses(self._here.pod_cidrs) if each.version == version), None)
        is_own = any(each.version == version and int(each) == packet[field] for each in self._own)
        return {**packet, field: gateway} if is_own and gateway is not None else packet

    def _routed_to(self, target: Address) -> str:
        """The other node to which the host sends by itself; empty if none."""
        for name, node in self._cluster.nodes.items():
            if name != self._name and target in node.addresses:
                return name
        ways = [each for each in self._notes if each["kind"] == "route" and target in ip_network(each["network"])]
        for each in sorted(ways, key=lambda way: -ip_network(way["network"]).prefixlen):
            via = ip_address(each["via"])
            if self._is_near(each) and via not in self._here.addresses:
                return next((name for name, node in self._cluster.nodes.items() if via in node.addresses), "")
        return ""

    def _is_bridged(self, target: Address) -> bool:
        if target in ENTRY_ADDRESSES or any(target in cidr for cidr in self._services):
            return True
        if any(target in cidr for node in self._cluster.nodes.values() for cidr in node.pod_cidrs):
            return True
        if any(target in service.cluster_ips for service in self._cluster.services.values()):
            return True
        return any(each["kind"] == "address" and each["address"] == str(target) for each in self._notes)


def destination(packet: Packet) -> Address:
    """A packet's destination."""
    return IPv4Address(packet[f.IPV4_DST]) if f.IPV4_DST in packet else IPv6Address(packet[f.IPV6_DST])


def _bound_for(packet: Packet, address: Address) -> dict[Field, int]:
    return {**packet, f.IPV4_DST if address.version == 4 else f.IPV6_DST: int(address)}
