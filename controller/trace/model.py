"""A trace from the model: the flows that are compiled, walked by the reference interpreter, switch after switch.

    question ──first_packet──> packet, first switch ──> flows of each switch and its host (compiled) ──> trace (result)

Nothing is asked of any switch. Every question is about the first packet of a connection. What switches have told of a
packet is brought into the same form.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address

import msgspec

from controller import policy_views, views
from controller.trace.compiled import Compiled
from controller.trace.errors import TraceError
from controller.trace.first_packet import Asked, First, by_hosts, first, port_of
from controller.trace.result import (
    End,
    Hop,
    Judgement,
    Place,
    Step,
    Trace,
    Translation,
    Verdict,
    Visit,
)
from controller.trace.sockets import address_of, endpoint_of, port_at, socket_of, translations
from flows import fields as f
from flows.cookies import OBJECT_MASK
from flows.fields import Field
from flows.interpreter import Conntrack, Emission, InterpreterError, Packet, Walk
from flows.interpreter import Step as Looked
from flows.pipeline import BY_NUMBER, SERVICE, TABLE_NAMES
from flows.tables.policy import table_of
from flows.tables.service import REFUSE
from flows.text import flow_text
from flows.values import PORT_CONTROLLER, PORT_IN_PORT, Bucket, Flow, Group, Output, OutputBits, Program, ToGroup
from flows.words import Names, flow_words
from topology.naming import (
    GATEWAY_MAC,
    GATEWAY_PORT,
    ROUTER_MAC,
    TUNNEL_PORT,
    Address,
    gateway_addresses,
)
from topology.policies import Direction, Tier

#: Switches that one packet may cross before it is taken to go round.
_LONGEST = 64
#: What a packet takes along from one switch to the next.
_CARRIED = frozenset(
    {
        *(f.ETH_SRC, f.ETH_DST, f.ETH_TYPE, f.IP_PROTO, f.IP_TTL, f.IPV4_SRC, f.IPV4_DST, f.IPV6_SRC, f.IPV6_DST),
        *(f.TCP_SRC, f.TCP_DST, f.UDP_SRC, f.UDP_DST, f.SCTP_SRC, f.SCTP_DST),
        *(f.ICMPV4_TYPE, f.ICMPV4_CODE, f.ICMPV6_TYPE, f.ICMPV6_CODE),
    }
)


class Met(msgspec.Struct, frozen=True):
    """What one switch did with a packet: as it came, the flows that it met, as it was in the last table."""

    node: str
    packet: Packet
    steps: tuple[Looked, ...]
    last: Packet

    @property
    def destination(self) -> str:
        return socket_of(self.last, "destination")


def trace(compiled: Compiled, asked: Asked) -> Trace:
    """Where the first packet of a connection goes. Raises TraceError."""
    begun = first(compiled, asked)
    try:
        return _Way(compiled, begun, asked.endpoint).walk()
    except InterpreterError as error:
        raise TraceError(f"the model has no answer: {error}") from error


def witnessed(compiled: Compiled, begun: First, met: Sequence[Met], endpoint: str) -> Trace:
    """A trace of what switches told, in their order. Raises TraceError where that makes no sense."""
    return _Way(compiled, begun, endpoint).witnessed(met)


class _Way:
    """One packet's way, as far as it has come."""

    def __init__(self, compiled: Compiled, begun: First, endpoint: str) -> None:
        self._compiled = compiled
        self._compiler = compiled.compiler
        self._begun = begun
        self._wanted = endpoint
        self._objects = dict(compiled.names())
        self._names = Names(
            identities=policy_views.identity_names(self._compiler),
            rules=policy_views.rule_names(self._compiler),
            endpoints=self._compiled.endpoints(),
        )
        self._visits: list[Visit] = []
        self._hops: list[Hop] = list(begun.hops)
        self._judgements: list[Judgement] = []
        self._service = ""
        self._endpoint = ""
        self._endpoints: tuple[str, ...] = ()
        #: What the group did that was asked last, by this switch.
        self._chosen: Program = ()

    def walk(self) -> Trace:
        """From the first switch to the end."""
        begun = self._begun
        if begun.ends is Place.POD:
            # It speaks to itself, without its switch.
            return self._at_pod(begun.node, begun.packet[f.IN_PORT])
        if begun.ends is not None:
            return self._end(Verdict.DELIVERED, _at(begun.ends, begun.node, begun.packet))
        return self._go(begun.node, begun.packet)

    def witnessed(self, met: Sequence[Met]) -> Trace:
        """From what switches told."""
        walk = Walk((), ())
        if self._wanted:
            self._service, self._endpoint = self._begun.asked, self._wanted
        for index, each in enumerate(met):
            pods = (self._compiler.cluster.pods[key].key for key in self._compiler.cluster.pods_on.get(each.node, ()))
            self._objects |= views.names_of(pods)
            following = met[index + 1] if index + 1 < len(met) else None
            port = self._left_by(each, following)
            emission = Emission(port, each.last) if port else None
            walk = Walk(each.steps, (emission,) if emission is not None else ())
            self._visit(each.node, each.packet, walk, emission)
            if following is not None:
                how = {TUNNEL_PORT: "Tunnel", GATEWAY_PORT: "Routed"}.get(self._visits[-1].left, "Wire")
                self._hops.append(Hop(source=each.node, target=following.node, how=how))
        end = met[-1]
        left = self._visits[-1]
        if not left.out_port:
            return self._dropped(end.node, walk)
        if left.left == GATEWAY_PORT:
            # It is held there: what hosts would do with it is the model's to say.
            return self._out_of(end.node, walk, end.last)
        if left.left == TUNNEL_PORT or self._wire(end.node, left.left) is not None:
            why = f"it left by {left.left}, and no switch told of it after that"
            return self._end(Verdict.DROPPED, End(place=Place.SWITCH, node=end.node, name=end.node, why=why))
        return self._at_pod(end.node, left.out_port)

    def _left_by(self, met: Met, following: Met | None) -> int:
        """The port by which a packet left; 0 where it was dropped."""
        flow = met.steps[-1].flow
        for action in flow.program if flow is not None else ():
            match action:
                case Output(port):
                    return met.packet[f.IN_PORT] if port == PORT_IN_PORT else port
                case OutputBits(bits):
                    return (met.last.get(bits.field, 0) & bits.mask) >> bits.start
                case ToGroup() if following is not None:
                    name = self._port_name(following.node, following.packet[f.IN_PORT])
                    wired = self._wire(following.node, name)
                    if wired is not None:
                        return next(
                            (port.number for port in self._compiler.ports(met.node) if port.name == wired[1]), 0
                        )
        return 0

    def _go(self, node: str, packet: Packet) -> Trace:
        while len(self._visits) < _LONGEST:
            pods = (self._compiler.cluster.pods[key].key for key in self._compiler.cluster.pods_on.get(node, ()))
            self._objects |= views.names_of(pods)
            self._chosen = ()
            walk = self._compiled.interpreter(node).walk(packet, Conntrack(), self._choose)
            out = [each for each in walk.emissions if each.port != PORT_CONTROLLER]
            if len(out) > 1:
                raise TraceError(f"on node {node} the packet leaves by {len(out)} ports")
            emission = out[0] if out else None
            self._visit(node, packet, walk, emission)
            if emission is None:
                return self._dropped(node, walk)
            number = packet[f.IN_PORT] if emission.port == PORT_IN_PORT else emission.port
            name = self._port_name(node, number)
            if name == GATEWAY_PORT:
                return self._out_of(node, walk, emission.packet)
            if name == TUNNEL_PORT:
                node, packet = self._through_tunnel(node, emission.packet)
                continue
            wired = self._wire(node, name)
            if wired is None:
                return self._at_pod(node, number)
            self._hops.append(Hop(source=node, target=wired[0], how="Wire"))
            node, packet = wired[0], self._entering(*wired, emission.packet)
        raise TraceError(f"the packet is still on its way after {_LONGEST} switches")

    def _out_of(self, node: str, walk: Walk, packet: Packet) -> Trace:
        """From where a switch hands a packet to its host."""
        sent = self._compiled.host(node).beyond(packet)
        if sent is None:
            return self._at_host(node, walk, packet)
        carried = {field: value for field, value in sent.packet.items() if field in _CARRIED}
        brought = by_hosts(self._compiled, sent.node, carried, self._begun.question)
        self._hops += [Hop(source=node, target=sent.node, how="Routed"), *brought.hops]
        if brought.ends is not None:
            return self._end(Verdict.DELIVERED, _at(brought.ends, brought.node, brought.packet))
        return self._go(brought.node, brought.packet | {f.ETH_SRC: GATEWAY_MAC, f.ETH_DST: ROUTER_MAC})

    def _through_tunnel(self, node: str, packet: Packet) -> tuple[str, Packet]:
        value = packet.get(f.TUN_DST)
        end: Address = IPv4Address(value) if value else IPv6Address(packet[f.TUN_IPV6_DST])
        far = next((each.name for each in self._compiler.cluster.nodes.values() if end in each.addresses), None)
        if far is None:
            raise TraceError(f"node {node} sends the packet by tunnel to {end}, which is no node's")
        self._hops.append(Hop(source=node, target=far, how="Tunnel"))
        key = {f.TUN_ID: packet.get(f.TUN_ID, 0)} if self._compiled.keyed else {}
        return far, self._entering(far, TUNNEL_PORT, packet) | key

    def _entering(self, node: str, port: str, packet: Packet) -> dict[Field, int]:
        """A packet as the next switch gets it: without what the one before knew of it."""
        number = port_of(self._compiler, node, port)
        return {field: value for field, value in packet.items() if field in _CARRIED} | {f.IN_PORT: number}

    def _wire(self, node: str, port: str) -> tuple[str, str] | None:
        """The other end of the wire at a port: node and port."""
        for wire in self._compiler.fabric.used():
            ends = (wire.a, wire.a_port), (wire.b, wire.b_port)
            for here, there in (ends, ends[::-1]):
                if here == (node, port):
                    return there
        return None

    # Endpoints --------------------------------------------------------------------------------------------------

    def _choose(self, group: Group) -> Bucket:
        ends = [endpoint_of(bucket.program) for bucket in group.buckets]
        if any(ends):
            self._endpoints = tuple(ends)
        if self._wanted and any(ends):
            if self._wanted not in ends:
                raise TraceError(f"no endpoint {self._wanted}; the endpoints are {', '.join(ends)}")
            self._chosen = group.buckets[ends.index(self._wanted)].program
        else:
            self._chosen = group.buckets[0].program
        return next(bucket for bucket in group.buckets if bucket.program == self._chosen)

    def _sent_to(self, walk: Walk) -> str:
        """The endpoint to which this switch has sent the connection; empty where it has had nothing to choose."""
        programs = (self._chosen, *(step.flow.program for step in walk.steps if step.flow is not None))
        return next(filter(None, map(endpoint_of, programs)), "")

    # What is told -----------------------------------------------------------------------------------------------

    def _visit(self, node: str, packet: Packet, walk: Walk, emission: Emission | None) -> None:
        steps = tuple(self._step(node, each.table, each.flow) for each in walk.steps)
        entry = packet[f.IN_PORT]
        number = 0 if emission is None else entry if emission.port == PORT_IN_PORT else emission.port
        changes = list(translations(packet, emission.packet)) if emission is not None else []
        endpoint = self._sent_to(walk)
        if endpoint:
            self._service, self._endpoint = self._begun.asked, endpoint
            if emission is None:
                # It was dropped with the endpoint's address.
                before = socket_of(packet, "destination")
                changes.append(Translation(end="destination", before=before, after=endpoint))
        self._visits.append(
            Visit(
                node=node,
                entered=self._port_name(node, entry),
                entered_from=self._entered_from(node, packet),
                in_port=entry,
                steps=steps,
                translations=tuple(changes),
                left=self._port_name(node, number) if number else "",
                out_port=number,
                left_to=self._behind(node, number) if number else "",
            )
        )

    def _step(self, node: str, table: int, flow: Flow | None) -> Step:
        name = TABLE_NAMES.get(table, str(table))
        if flow is None:
            return Step(table=name, number=table, flow=None, words="no flow matches: drop")
        names = msgspec.structs.replace(
            self._names,
            ports={port.number: port.name for port in self._compiler.ports(node)},
            groups=partial(views.group_words, self._compiler, node),
        )
        step = Step(
            table=name,
            number=table,
            flow=flow.key,
            cookie=flow.cookie,
            object=self._objects.get(flow.cookie & OBJECT_MASK, ""),
            words=flow_words(flow, names),
            ofctl=flow_text(flow, names=True),
        )
        for direction in Direction:
            for tier in Tier:
                # Without a policy's cookie it is the flow for those about whom no policy says anything.
                if table_of(direction, tier).number == table and step.object != self._objects[0]:
                    action = self._compiler.policies.action_of(flow, direction, tier)
                    self._judgements.append(
                        Judgement(node=node, table=name, action=str(action or ""), object=step.object, words=step.words)
                    )
        return step

    def _port_name(self, node: str, number: int) -> str:
        return next((port.name for port in self._compiler.ports(node) if port.number == number), str(number))

    def _behind(self, node: str, number: int) -> str:
        name = self._port_name(node, number)
        if name in (GATEWAY_PORT, TUNNEL_PORT):
            return "the host" if name == GATEWAY_PORT else "the tunnel"
        found = self._compiler.pod_at(node, number)
        return f"pod {found[0].namespace}/{found[0].name}" if found is not None else f"port {name}"

    def _entered_from(self, node: str, packet: Packet) -> str:
        found = self._behind(node, packet[f.IN_PORT])
        bound_for = socket_of(packet, "destination")
        if self._port_name(node, packet[f.IN_PORT]) == GATEWAY_PORT and bound_for not in (
            self._begun.asked,
            self._endpoint,
        ):
            # Its own address means nothing in the switch: ports of it that lead to others go by another.
            found += f", which sends it to {bound_for}"
        return found

    # Ends -------------------------------------------------------------------------------------------------------

    def _dropped(self, node: str, walk: Walk) -> Trace:
        last = self._visits[-1].steps[-1]
        declared = BY_NUMBER.get(last.number)
        what = f"{last.object}: {last.words}" if last.flow is not None else "no flow matches there"
        why = f"dropped in {last.table} ({declared.purpose if declared else ''}): {what}"
        return self._end(Verdict.DROPPED, End(place=Place.SWITCH, node=node, name=node, why=why))

    def _at_host(self, node: str, walk: Walk, packet: Packet) -> Trace:
        refused = next(
            (
                step.flow
                for step in walk.steps
                if step.table == SERVICE.number and step.flow is not None and step.flow.program == REFUSE
            ),
            None,
        )
        if refused is not None and not self._is_own(node, packet):
            why = "no endpoint or no Service is there: the host refuses it"
            return self._end(Verdict.REJECTED, _at(Place.HOST, node, packet, why))
        place = Place.HOST if self._is_own(node, packet) else Place.WORLD
        return self._end(Verdict.DELIVERED, _at(place, node, packet))

    def _at_pod(self, node: str, number: int) -> Trace:
        found = self._compiler.pod_at(node, number)
        if found is None:
            raise TraceError(f"on node {node} the packet leaves by port {number}, where nobody is known to be")
        pod = found[0]
        return self._end(Verdict.DELIVERED, End(place=Place.POD, node=node, name=f"{pod.namespace}/{pod.name}"))

    def _is_own(self, node: str, packet: Packet) -> bool:
        here = self._compiler.cluster.nodes[node]
        own: Iterable[Address] = (*here.addresses, *gateway_addresses(here.pod_cidrs))
        return address_of(packet, "destination") in own

    def _end(self, verdict: Verdict, end: End) -> Trace:
        return Trace(
            question=self._begun.question,
            verdict=verdict,
            end=end,
            visits=tuple(self._visits),
            hops=tuple(self._hops),
            service=self._service,
            endpoint=self._endpoint,
            endpoints=self._endpoints,
            judgements=tuple(self._judgements),
        )


def _at(place: Place, node: str, packet: Packet, why: str = "") -> End:
    """The end at a node's host, or in the world behind it."""
    address, port = str(address_of(packet, "destination")), port_at(packet, "destination")
    return End(place=place, node=node, name=node, address=address, port=port, why=why)
