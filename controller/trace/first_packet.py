"""The packet that a question is about: who sends it to whom, where it enters a switch, and what hosts do before that.

It is made of the cluster's state as the compiler has it. What switches do with it is `model`'s to say.
"""

from __future__ import annotations

from ipaddress import ip_address

import msgspec

from controller import policy_views
from controller.trace import hosts
from controller.trace.compiled import Compiled
from controller.trace.errors import NotYetError, TraceError
from controller.trace.result import Hop, Place, Question
from controller.trace.sockets import socket, socket_of
from flows import fields as f
from flows import packets
from flows.compiler import Compiler
from flows.fields import Field
from topology.model import Pod, Service
from topology.naming import GATEWAY_MAC, GATEWAY_PORT, ROUTER_MAC, Address
from topology.verdicts import Party

#: The port that a connection is opened from, where there are ports.
SOURCE_PORT = 40_000
_PROTOCOLS = {
    "TCP": (f.PROTO_TCP, f.TCP_SRC, f.TCP_DST),
    "UDP": (f.PROTO_UDP, f.UDP_SRC, f.UDP_DST),
    "SCTP": (f.PROTO_SCTP, f.SCTP_SRC, f.SCTP_DST),
}


class Asked(msgspec.Struct, frozen=True):
    """A question as people put it. Ends are said as `policy_views.check` takes them; the latter may be `svc/NAME` too.

    `family` 0: the first that both have. `endpoint` is the one that a Service is to choose; "": its first.
    """

    source: str
    destination: str
    protocol: str = "TCP"
    port: int = 0
    family: int = 0
    endpoint: str = ""


class First(msgspec.Struct, frozen=True):
    """The first packet of a connection, as it enters the switch of `node`, and what hosts have done before.

    Where it never meets a switch, `ends` says where it is: the host of `node` keeps it, or sends it to the world; or a
    pod there has sent it to itself.
    """

    node: str
    packet: dict[Field, int]
    question: Question
    hops: tuple[Hop, ...] = ()
    ends: Place | None = None

    @property
    def destination(self) -> str:
        return socket_of(self.packet, "destination")

    @property
    def asked(self) -> str:
        """Where it was bound for, before a host gave it another destination."""
        return socket(ip_address(self.question.destination_address), self.question.port)


class _Start(msgspec.Struct, frozen=True):
    """Where a packet enters: a port of a node's switch, with these MACs."""

    node: str
    port: int
    mac: int


def first(compiled: Compiled, asked: Asked) -> First:
    """The packet that a question is about, and where it enters. Raises TraceError."""
    compiler, protocol, port = compiled.compiler, asked.protocol, asked.port
    if protocol != "ICMP" and protocol not in _PROTOCOLS:
        raise TraceError(f"no protocol {protocol!r}; the protocols are {', '.join(_PROTOCOLS)}, ICMP")
    if protocol != "ICMP" and not 1 <= port <= 65535:
        raise TraceError(f"{protocol} goes to a port from 1 to 65535")
    sender, target = _pair(compiler, asked.source, asked.destination, asked.family)
    start = _start(compiler, sender, target)
    question = Question(
        source=asked.source,
        destination=asked.destination,
        source_address=str(sender.address),
        destination_address=str(target),
        protocol=protocol,
        source_port=0 if protocol == "ICMP" else SOURCE_PORT,
        port=0 if protocol == "ICMP" else port,
        family=target.version,
    )
    packet = _packet(start, sender.address, target, question)
    if sender.pod is not None and target in _own_addresses(compiler, sender.pod):
        return First(start.node, packet, question, ends=Place.POD)
    if start.mac == GATEWAY_MAC:
        return by_hosts(compiled, start.node, packet, question)
    return First(start.node, packet, question)


def _own_addresses(compiler: Compiler, pod: Pod) -> tuple[Address, ...]:
    return next((local.addresses for each, local in compiler.local_pods(pod.node) if each.key == pod.key), ())


def by_hosts(compiled: Compiled, node: str, packet: dict[Field, int], question: Question) -> First:
    """The same for a packet that is at a node's host, be it the host's own or the world's."""
    hops: list[Hop] = []
    while len(hops) < 3:
        match compiled.host(node).way(packet):
            case hosts.Kept():
                return First(node, packet, question, tuple(hops), Place.HOST)
            case hosts.Sent("", _):
                return First(node, packet, question, tuple(hops), Place.WORLD)
            case hosts.Sent(other, _):
                hops.append(Hop(source=node, target=other, how="Routed"))
                node = other
            case hosts.Bridged(changed):
                port = port_of(compiled.compiler, node, GATEWAY_PORT)
                return First(node, changed | {f.IN_PORT: port}, question, tuple(hops))
    raise TraceError(f"hosts send the packet round: {', '.join(hop.target for hop in hops)}")


def port_of(compiler: Compiler, node: str, name: str) -> int:
    """The number of a port of a node's switch. Raises NotYetError."""
    number = next((port.number for port in compiler.ports(node) if port.name == name), None)
    if number is None:
        raise NotYetError(f"the switch of node {node} isn't known to have the port {name}")
    return number


def _pair(compiler: Compiler, source: str, destination: str, family: int) -> tuple[Party, Address]:
    """The two ends, of one family."""
    try:
        sources = policy_views.parties(compiler, source)
        service = service_of(compiler, destination)
        if service is not None:
            targets = list(service.cluster_ips)
        else:
            targets = [each.address for each in policy_views.parties(compiler, destination)]
    except policy_views.QuestionError as error:
        raise TraceError(str(error)) from error
    for first in sources:
        for target in targets:
            if first.address.version == target.version and family in (0, target.version):
                return first, target
    raise TraceError(f"{source} and {destination} have no {f'IPv{family}' if family else 'family'} in common")


def service_of(compiler: Compiler, text: str) -> Service | None:
    """The Service that `[NAMESPACE/]svc/NAME` is; None where the text is of another form. Raises TraceError."""
    *namespace, kind, name = ["", *text.split("/")]
    if kind not in ("svc", "service"):
        return None
    found = compiler.cluster.services.get((namespace[-1] or "default", name))
    if found is None:
        raise TraceError(f"no Service {namespace[-1] or 'default'}/{name}")
    if not found.cluster_ips:
        raise TraceError(f"Service {found.namespace}/{name} is headless: it has no address of its own")
    return found


def packet_to(compiler: Compiler, destination: str, protocol: str, port: int) -> tuple[str, int]:
    """Protocol and port that are meant where one of them wasn't said ("" and 0): a Service's, if it has only one.

    To all else it is a TCP packet where there is a port, and a ping where there is none. Raises TraceError.
    """
    service = service_of(compiler, destination) if not port and protocol in ("", *_PROTOCOLS) else None
    if service is None:
        return protocol or ("TCP" if port else "ICMP"), port
    ports = [each for each in service.ports if protocol in ("", each.protocol)]
    if len(ports) == 1:
        return ports[0].protocol, ports[0].port
    if not ports:
        raise TraceError(f"{destination} has no port{f' of {protocol}' if protocol else ''}")
    words = ", ".join(f"{each.name} {each.port}/{each.protocol}".strip() for each in ports)
    raise TraceError(f"{destination} has ports {words}; say one by its port (--{ports[0].protocol.lower()} PORT)")


def _start(compiler: Compiler, source: Party, target: Address) -> _Start:
    """Where the packets of a sender enter."""
    if source.pod is not None:
        for pod, local in compiler.local_pods(source.pod.node):
            if pod.key == source.pod.key:
                return _Start(pod.node, local.port, local.mac)
        raise NotYetError(f"pod {source.pod.namespace}/{source.pod.name} is on no port of a switch that is known")
    node = source.node.name if source.node is not None else _entry(compiler, target)
    gateway = next((port.number for port in compiler.ports(node) if port.name == GATEWAY_PORT), None)
    if gateway is None:
        raise NotYetError(f"the switch of node {node} isn't known: it hasn't said which ports it has")
    return _Start(node, gateway, GATEWAY_MAC)


def _entry(compiler: Compiler, target: Address) -> str:
    """The node at which the world's packets to an address come in: its own, or the first by name."""
    nodes = sorted(compiler.cluster.nodes.values(), key=lambda node: node.name)
    owners = [each for each in nodes if target in each.addresses or any(target in cidr for cidr in each.pod_cidrs)]
    found = [each.name for each in (*owners, *nodes) if not each.is_transit]
    if not found:
        raise TraceError("there is no node by which packets of the world could come in")
    return compiler.services.announcer(target) or found[0]


def _packet(start: _Start, source: Address, target: Address, question: Question) -> dict[Field, int]:
    macs = (start.mac, ROUTER_MAC)
    if question.protocol == "ICMP":
        return packets.ping(start.port, macs, source, target)
    number, source_port, target_port = _PROTOCOLS[question.protocol]
    packet = packets.ip(start.port, macs, source, target, number)
    return packet | {source_port: question.source_port, target_port: question.port}
