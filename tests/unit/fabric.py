"""A cluster of interpreted switches: packets walk from pod to pod, as the compiled flows send them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple

from flows import fields as f
from flows.compiler import Compiler
from flows.fields import Field
from flows.interpreter import Chooser, Conntrack, Interpreter, Packet, Walk
from flows.state import LocalPod, Port
from flows.update import CLUSTER
from topology.endpoints import ZONE_LABEL
from topology.graph import Interconnect, Mode
from topology.model import Node, Object, Pod
from topology.naming import (
    GATEWAY_MAC,
    GATEWAY_PORT,
    HOST_END_MAC_PREFIX,
    ROUTER_MAC,
    TUNNEL_PORT,
    Address,
    gateway_addresses,
    mac_of,
)

GATEWAY, TUNNEL, FIRST_POD = 1, 2, 10
SERVICE_CIDRS = (ip_network("10.96.0.0/16"), ip_network("fd00:10:96::/112"))
#: To whom pods and nodes send what is bound for elsewhere.
OUT = ROUTER_MAC


class Way(NamedTuple):
    """How packets go from node to node: whether tunnels carry identities, and where there are tunnels at all."""

    keyed: bool = True
    interconnect: Interconnect = Interconnect()


#: In hybrid mode n1, n2 and n3 share a segment for IPv4, and n2 and n3 one for IPv6.
WAYS = {
    "by key": Way(),
    "by address": Way(keyed=False),
    "routed": Way(interconnect=Interconnect(Mode.ROUTED)),
    "hybrid": Way(interconnect=Interconnect.parse("hybrid", "gre", ["172.30.0.0/30", "fd00:172:30::2/127"])),
}


class Arrival(NamedTuple):
    """A packet that left the cluster's bridges: where, by which port, and how."""

    node: str
    port: int
    packet: Packet


class Fabric:
    """Nodes n1, n2, ... with pods; `pods` are (node, name), and pods of a node have the places from 2 up.

    Pods have the label name, nodes the zone that `zones` says; `objects` are what there is besides.
    """

    def __init__(
        self,
        nodes: int,
        pods: Iterable[tuple[int, str]],
        objects: Iterable[Object] = (),
        zones: Mapping[int, str] = {},
        *,
        way: Way = WAYS["by key"],
    ) -> None:
        made: list[Object] = [_node(number, zones.get(number, "")) for number in range(1, nodes + 1)]
        places = dict.fromkeys(range(1, nodes + 1), 2)
        for number, name in pods:
            made.append(_pod(number, name, places[number]))
            places[number] += 1
        self._build([*made, *objects], way)

    @classmethod
    def of(cls, objects: Iterable[Object], *, way: Way = WAYS["by key"]) -> Fabric:
        """The nodes and pods, and whatever else, that these objects are."""
        fabric = cls.__new__(cls)
        fabric._build(list(objects), way)
        return fabric

    def _build(self, objects: Sequence[Object], way: Way) -> None:
        self.compiler = Compiler(SERVICE_CIDRS, keyed=way.keyed, interconnect=way.interconnect)
        self.way = way
        self.names = [each.name for each in objects if isinstance(each, Node)]
        ports = {
            name: [Port(GATEWAY, GATEWAY_PORT, GATEWAY_MAC), Port(TUNNEL, TUNNEL_PORT, 0x5B)] for name in self.names
        }
        for each in objects:
            self.compiler.put(each)
            if isinstance(each, Pod) and not each.host_network:
                there = ports[each.node]
                # A workload's port has whatever MAC it has: nobody asks.
                mac = 0x5A if each.port else mac_of(HOST_END_MAC_PREFIX, each.addresses[0])
                there.append(Port(FIRST_POD + len(there) - 2, each.port_name, mac))
        for name in self.names:
            self.compiler.set_ports(name, ports[name])
        self.conntracks = {name: Conntrack() for name in self.names}
        self._interpreters: dict[str, Interpreter] = {}
        self.interpret()
        self._ends: dict[int, str] = {
            int(address): node.name for node in self.compiler.cluster.nodes.values() for address in node.addresses
        }

    def interpret(self, lagging: Container[str] = ()) -> None:
        """Switches that have what the compiler makes now, but for those that lag; what they remember stays."""
        self._interpreters |= {
            name: Interpreter(
                [*self.compiler.flows(CLUSTER), *self.compiler.flows(name)],
                [*self.compiler.groups(CLUSTER), *self.compiler.groups(name)],
            )
            for name in self.names
            if name not in lagging
        }

    def pod(self, name: str) -> tuple[str, LocalPod]:
        """The node of a pod, and where it is there."""
        for node in self.names:
            for pod, local in self.compiler.local_pods(node):
                if pod.name == name:
                    return node, local
        raise KeyError(name)

    def node(self, name: str) -> Node:
        return self.compiler.cluster.nodes[name]

    def walk(self, node: str, packet: Packet, choose: Chooser | None = None) -> Walk:
        """What one switch does with a packet."""
        return self._interpreters[node].walk(packet, self.conntracks[node], choose)

    def send(self, node: str, packet: Packet, choose: Chooser | None = None) -> list[Arrival]:
        """Where a packet ends up, across tunnels and routing hosts. More than two switches on the way are a fault.

        What enters by a host's port that this host would send on by itself begins its way in another switch.
        """
        arrivals: list[Arrival] = []
        first = self.routed_to(node, packet) if packet[f.IN_PORT] == GATEWAY else None
        if first is not None:
            return self._brought(first, packet)
        for each in self.walk(node, packet, choose).emissions:
            routed = self.routed_to(node, each.packet) if each.port == GATEWAY else None
            if routed is not None:
                arrivals += self._brought(routed, each.packet)
                continue
            if each.port != TUNNEL:
                arrivals.append(Arrival(node, each.port, each.packet))
                continue
            inner = tunnelled(each.packet, keyed=self.way.keyed)
            far = self._ends[each.packet.get(f.TUN_DST) or each.packet[f.TUN_IPV6_DST]]
            assert far != node, "a switch sends to itself"
            for last in self.walk(far, inner).emissions:
                assert last.port != TUNNEL, "a packet from a tunnel goes into a tunnel"
                arrivals.append(Arrival(far, last.port, last.packet))
        return arrivals

    def way_out(self, node: str, packet: Packet) -> int:
        """The port by which a switch sends a packet that is for another node."""
        return TUNNEL if self.routed_to(node, packet) is None else GATEWAY

    def routed_to(self, node: str, packet: Packet) -> str | None:
        """The other node that a node's host sends a packet to without a tunnel, by its destination; None if none."""
        interconnect, target = self.way.interconnect, _destination(packet)
        for other in self.compiler.cluster.nodes.values():
            there = target in other.addresses or any(target in cidr for cidr in other.pod_cidrs)
            if there and other.name != node:
                near = set(interconnect.subnets_of(other)) & set(interconnect.subnets_of(self.node(node)))
                routed = interconnect.mode is Mode.ROUTED or any(each.version == target.version for each in near)
                return other.name if routed else None
        return None

    def _brought(self, node: str, packet: Packet) -> list[Arrival]:
        """Where a packet ends up that a host gets from another one: at itself, or at pods behind its switch."""
        here = self.node(node)
        if _destination(packet) in here.addresses + gateway_addresses(here.pod_cidrs):
            return [Arrival(node, GATEWAY, packet)]
        inner = {**tunnelled(packet, keyed=False), f.IN_PORT: GATEWAY, f.ETH_SRC: GATEWAY_MAC, f.ETH_DST: ROUTER_MAC}
        arrivals = []
        for last in self.walk(node, inner).emissions:
            assert last.port != TUNNEL, "a packet from another node goes into a tunnel"
            assert last.port != GATEWAY or self.routed_to(node, last.packet) is None, "it goes on to another node"
            arrivals.append(Arrival(node, last.port, last.packet))
        return arrivals


def _destination(packet: Packet) -> Address:
    return ip_address(packet[f.IPV4_DST]) if f.IPV4_DST in packet else IPv6Address(packet[f.IPV6_DST])


def _node(number: int, zone: str) -> Node:
    return Node(
        name=f"n{number}",
        addresses=(ip_address(f"172.30.0.{number}"), ip_address(f"fd00:172:30::{number:x}")),
        pod_cidrs=(ip_network(f"10.244.{number}.0/24"), ip_network(f"fd00:10:244:{number:x}::/64")),
        labels=((ZONE_LABEL, zone),) if zone else (),
    )


def _pod(number: int, name: str, place: int) -> Pod:
    return Pod(
        namespace="default",
        name=name,
        node=f"n{number}",
        labels=(("name", name),),
        addresses=(ip_address(f"10.244.{number}.{place}"), ip_address(f"fd00:10:244:{number:x}::{place:x}")),
    )


def tunnelled(packet: Packet, *, keyed: bool = True) -> Mapping[Field, int]:
    """A packet as it comes out of a tunnel's other end: with the key, and none of the first switch's metadata."""
    metadata = {
        f.REG0,
        f.REG1,
        f.REG2,
        f.REG3,
        f.REG4,
        f.REG5,
        f.REG6,
        f.REG7,
        f.CT_STATE,
        f.CT_ZONE,
        f.CT_MARK,
        f.CT_LABEL,
        f.TUN_DST,
        f.TUN_IPV6_DST,
    }
    if not keyed:
        metadata.add(f.TUN_ID)
    return {field: value for field, value in packet.items() if field not in metadata} | {f.IN_PORT: TUNNEL}


def of_family(addresses: Iterable[Address], version: int) -> Address:
    return next(address for address in addresses if address.version == version)


def gateway_address(node: Node, version: int) -> Address:
    return of_family(gateway_addresses(node.pod_cidrs), version)
