"""A cluster of interpreted switches that are joined by wires, and packets that walk over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import NamedTuple

from fabric import GATEWAY, OUT, TUNNEL, of_family

from flows import fields as f
from flows import packets
from flows.compiler import Compiler
from flows.fields import Field
from flows.interpreter import Chooser, Conntrack, Interpreter, Packet, Walk
from flows.state import LocalPod, Port
from flows.update import CLUSTER
from topology.graph import Wire, wire
from topology.model import TRANSIT, Node, Object, Pod
from topology.naming import GATEWAY_MAC, GATEWAY_PORT, HOST_END_MAC_PREFIX, TUNNEL_PORT, mac_of, pod_port_name

POD, FIRST_WIRE = 10, 100
#: What a packet keeps on a wire: its headers, and nothing that a switch noted of it.
_HEADERS = frozenset(
    {
        *(f.ETH_DST, f.ETH_SRC, f.ETH_TYPE, f.IP_PROTO, f.IP_TTL, f.IPV4_SRC, f.IPV4_DST, f.IPV6_SRC, f.IPV6_DST),
        *(f.TCP_SRC, f.TCP_DST, f.UDP_SRC, f.UDP_DST, f.ICMPV4_TYPE, f.ICMPV4_CODE, f.ICMPV6_TYPE, f.ICMPV6_CODE),
    }
)


class Arrival(NamedTuple):
    """A packet that left the bridges: by which of them it came, by which port it left, and how."""

    way: list[str]
    port: int
    packet: Packet


def line(*names: str) -> list[Wire]:
    """Each joined to the next."""
    return [join(a, b) for a, b in pairwise(names)]


def join(a: str, b: str, cost: int = 1, number: int = 0) -> Wire:
    """A wire between two nodes, whose ports are called after the other end; `number` tells parallel ones apart."""
    suffix = f"-{number}" if number else ""
    return wire((a, f"to-{b}{suffix}"), (b, f"to-{a}{suffix}"), cost)


def node(name: str, number: int, *, transit: bool = False, addresses: bool = False) -> Node:
    """The number-th node."""
    return Node(
        name=name,
        addresses=(ip_address(f"172.30.{number >> 8}.{number & 255}"),) if addresses else (),
        pod_cidrs=()
        if transit
        else (
            ip_network(f"10.{number >> 8}.{number & 255}.0/24"),
            ip_network(f"fd00:10:244:{number:x}::/64"),
        ),
        labels=(TRANSIT,) if transit else (),
    )


class Wired:
    """Nodes as the wires name them, and `pods`, one on each of these nodes and called after it."""

    def __init__(
        self,
        wires: Iterable[Wire],
        pods: Iterable[str] = (),
        *,
        transit: Iterable[str] = (),
        tunnels: Iterable[str] = (),
        objects: Iterable[Object] = (),
    ) -> None:
        self.wires = list(wires)
        self.compiler = Compiler()
        transit, tunnels = set(transit), set(tunnels)
        self.names = sorted({name for each in self.wires for name in (each.a, each.b)} | transit | tunnels | {*pods})
        for number, name in enumerate(self.names, 1):
            self.compiler.put(node(name, number, transit=name in transit, addresses=name in tunnels))
        for name in pods:
            cidrs = self.compiler.cluster.nodes[name].pod_cidrs
            addresses = tuple(cidr[2] for cidr in cidrs)
            self.compiler.put(
                Pod(namespace="default", name=name, node=name, labels=(("name", name),), addresses=addresses)
            )
        for each in objects:
            self.compiler.put(each)
        self._pods = set(pods)
        self._tunnels = tunnels
        #: Ends of wires: by node and port number where the wire goes, and numbers by node and name.
        self.numbers: dict[tuple[str, str], int] = {}
        self.far: dict[tuple[str, int], tuple[str, int]] = {}
        for each in self.wires:
            for end in ((each.a, each.a_port), (each.b, each.b_port)):
                self.numbers.setdefault(end, FIRST_WIRE + len(self.numbers))
            ends = [(name, self.numbers[name, port]) for name, port in ((each.a, each.a_port), (each.b, each.b_port))]
            self.far[ends[0]], self.far[ends[1]] = ends[1], ends[0]
        self.conntracks = {name: Conntrack() for name in self.names}
        for name in self.names:
            self.compiler.set_ports(name, self.ports(name))
        self.compiler.set_links(self.wires)
        self.interpret()

    def ports(self, name: str, down: Iterable[str] = ()) -> list[Port]:
        """A node's ports, with those of wires that are `down`, by name."""
        ports = [Port(GATEWAY, GATEWAY_PORT, GATEWAY_MAC)]
        if name in self._tunnels:
            ports.append(Port(TUNNEL, TUNNEL_PORT, 0x5B))
        if name in self._pods:
            address = self.compiler.cluster.nodes[name].pod_cidrs[0][2]
            ports.append(Port(POD, pod_port_name("default", name), mac_of(HOST_END_MAC_PREFIX, address)))
        ports += [
            Port(number, port, number, up=port not in down)
            for (where, port), number in self.numbers.items()
            if where == name
        ]
        return ports

    def interpret(self, down: Mapping[str, Iterable[int]] = {}) -> None:
        """Switches that have what the compiler makes now; `down` are ports without a link of which it doesn't know."""
        cluster = list(self.compiler.flows(CLUSTER))
        groups = list(self.compiler.groups(CLUSTER))
        self.switches = {}
        for name in self.names:
            everywhere = self.compiler.cluster.nodes[name].is_transit
            self.switches[name] = Interpreter(
                [*(() if everywhere else cluster), *self.compiler.flows(name)],
                [*(() if everywhere else groups), *self.compiler.groups(name)],
                down.get(name, ()),
            )

    def pod(self, name: str) -> LocalPod:
        ((_, local),) = self.compiler.local_pods(name)
        return local

    def walk(self, name: str, packet: Packet, choose: Chooser | None = None) -> Walk:
        """What one switch does with a packet."""
        return self.switches[name].walk(packet, self.conntracks[name], choose)

    def send(self, name: str, packet: Packet, choose: Chooser | None = None, limit: int = 300) -> list[Arrival]:
        """Where a packet ends up, over wires that have a link."""
        waiting: list[tuple[list[str], Packet]] = [([name], packet)]
        arrivals = []
        while waiting:
            way, current = waiting.pop(0)
            assert len(way) <= limit, f"still on its way: {way}"
            for each in self.walk(way[-1], current, choose).emissions:
                end = (way[-1], each.port)
                far = self.far.get(end)
                if far is None:
                    arrivals.append(Arrival(way, each.port, each.packet))
                elif each.port not in self.switches[way[-1]].down:
                    waiting.append(([*way, far[0]], crossed(each.packet, far[1])))
        return arrivals

    def request(self, source: str, target: str, version: int = 4, *, reply: bool = False) -> dict[Field, int]:
        """A ping of one pod to another, as the pod sends it."""
        pod, other = self.pod(source), self.pod(target)
        ends = of_family(pod.addresses, version), of_family(other.addresses, version)
        return packets.ping(pod.port, (pod.mac, OUT), *ends, reply=reply)

    def ping(self, source: str, target: str, version: int = 4, *, reply: bool = False) -> Arrival:
        """What comes of a ping: it arrives once."""
        (arrival,) = self.send(source, self.request(source, target, version, reply=reply))
        assert (arrival.way[-1], arrival.port) == (target, POD)
        return arrival


def crossed(packet: Packet, port: int) -> dict[Field, int]:
    """A packet as it comes out of a wire's other end."""
    return {field: value for field, value in packet.items() if field in _HEADERS} | {f.IN_PORT: port}
