"""A trace by a marked packet that is really sent, and of which each switch tells in each table.

    first ──packet-out──> the switch where it enters ──> taps of all tables ──packet-ins──> Reports ──> Trace

Taps (`flows.taps`) tell of the packet with its registers, whatever the model thinks of it; which flow it met is looked
up in what the switch itself says that it holds. In the last table of the last switch it is told and held back, so that
no pod, host or anybody beyond gets it, unless it is to be delivered. One live trace at a time, for they all bear the
same mark.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from controller.trace import frames
from controller.trace.compiled import Compiled
from controller.trace.errors import NotMasterError, TraceError
from controller.trace.first_packet import SOURCE_PORT, Asked, First, first
from controller.trace.model import Met, trace, witnessed
from controller.trace.result import Place, Trace, differences
from flows import fields as f
from flows import taps
from flows.compiler import Compiler
from flows.cookies import is_tap
from flows.fields import Field
from flows.interpreter import Interpreter, InterpreterError, Step
from flows.openflow import encode
from flows.openflow.messages import FlowStats, PacketIn
from flows.pipeline import CLASSIFY, DIGEST, HOST, OUTPUT, TABLES
from flows.registers import EXIT, Exit
from flows.taps import Taps
from flows.values import Flow, Resubmit
from topology.naming import GATEWAY_PORT, TUNNEL_PORT

#: Seconds: for which taps stay if nobody deletes them, for which a switch that the way doesn't cross is waited for, and
#: until a datapath has looked at what it had cached before taps were there.
_LIFE, _MOMENT, _SETTLED = 20, 1.0, 0.1
#: Seconds without a word until it is taken that no more will come: where the packet has arrived, where it may have
#: ended, and where somebody must have got it next; and altogether.
_ARRIVED, _SILENCE, _ON_ITS_WAY, _LONGEST = 0.4, 0.8, 3.0, 6.0
#: Nodes that are tapped beside those that the model names, where there are no more than these.
_FEW = 20
_RATE = 80
#: A node, and what its switch told of one visit.
_Visit = tuple[str, list[PacketIn]]


class Answer(msgspec.Struct, frozen=True):
    """What the model says, what switches told, and what these have otherwise."""

    model: Trace
    live: Trace
    differences: tuple[str, ...]


class Tracer:
    """Live traces. `send` sends a switch messages, which it has when `reach` returns; `dump` says what one holds."""

    def __init__(
        self,
        compiler: Compiler,
        may_write: Callable[[str], bool],
        send: Callable[[str, list[bytes]], None],
        reach: Callable[[str], Awaitable[object]],
        dump: Callable[[str], Awaitable[list[FlowStats]]],
    ) -> None:
        self._compiler = compiler
        self._may_write = may_write
        self._send = send
        self._reach = reach
        self._dump = dump
        self._one = asyncio.Lock()
        self._number: int | None = None
        self._reports: list[tuple[str, PacketIn]] = []
        self._told = asyncio.Event()

    def take(self, node: str, packet: PacketIn) -> None:
        """A packet that a tap tells of, ours or another's."""
        if self._number is None or frames.number_of(packet.data) != self._number:
            return
        if len(self._reports) < 1000:
            self._reports.append((node, packet))
            self._told.set()

    async def trace(self, compiled: Compiled, asked: Asked, *, deliver: bool = False) -> Answer:
        """Send one, and compare; `deliver` lets whom it is bound for have it. Raises TraceError."""
        async with self._one:
            begun = _from_another_port(first(compiled, asked))
            if begun.question.protocol == "SCTP":
                raise TraceError("a live trace is of TCP, UDP or ICMP; SCTP is traced by the model alone")
            if begun.ends is not None:
                whose = "the pod" if begun.ends is Place.POD else f"the host of {begun.node}"
                raise TraceError(f"it never meets a switch: {whose} keeps it, or sends it on by itself")
            said = trace(compiled, asked)
            nodes = self._nodes(compiled, said, asked)
            for node in sorted(nodes):
                if not self._may_write(node):
                    raise NotMasterError(
                        f"the switch of node {node} isn't connected, or this controller is not its master now"
                    )
            await self._gather(begun, nodes, {visit.node for visit in said.visits}, deliver)
            met = [await self._met(node, reports) for node, reports in self._visits(begun)]
            if not met:
                raise TraceError(f"the switch of node {begun.node} told nothing of the packet")
            endpoint = _endpoint(begun, met)
            if endpoint and said.endpoint and endpoint != said.endpoint:
                # Which one is the switch's to choose.
                said = trace(compiled, msgspec.structs.replace(asked, endpoint=endpoint))
            seen = witnessed(compiled, begun, met, endpoint)
            return Answer(said, seen, tuple(differences(said, seen)))

    def _nodes(self, compiled: Compiled, said: Trace, asked: Asked) -> set[str]:
        nodes = {visit.node for visit in said.visits} | {hop.target for hop in said.hops}
        for each in said.endpoints[:_FEW]:
            other = trace(compiled, msgspec.structs.replace(asked, endpoint=each))
            nodes |= {visit.node for visit in other.visits}
        everybody = [node for node in self._compiler.cluster.nodes if self._may_write(node)]
        return nodes | set(everybody if len(everybody) <= _FEW else ())

    async def _gather(self, begun: First, nodes: Iterable[str], crossed: Iterable[str], deliver: bool) -> None:
        made = Taps(secrets.randbelow(taps.SESSIONS), taps.TRACE_SLOT, frames.LENGTH, _RATE, _LIFE)
        self._number, self._reports = secrets.randbits(63), []
        flows = list(_taps(made, begun.packet[f.ETH_TYPE], deliver=deliver))
        loop = asyncio.get_running_loop()
        try:
            for node in nodes:
                self._send(node, made.made(flows))
            await self._taken(nodes, crossed)
            await asyncio.sleep(_SETTLED)
            data = frames.frame(begun.packet, self._number)
            self._send(begun.node, [encode.packet_out(data, (Resubmit(CLASSIFY.number),), begun.packet[f.IN_PORT])])
            end = loop.time() + _LONGEST
            while (left := min(self._patience(begun), end - loop.time())) > 0:
                self._told.clear()
                try:
                    await asyncio.wait_for(self._told.wait(), left)
                except TimeoutError:
                    break
        finally:
            self._number = None
            for node in nodes:
                self._send(node, made.unmade())

    async def _taken(self, nodes: Iterable[str], crossed: Iterable[str]) -> None:
        """Return when switches have their taps: a packet that comes before them is told of by none, and held by none.

        Raises TimeoutError and UnknownNodeError, for those that it is to cross.
        """
        asked = {node: asyncio.ensure_future(self._reach(node)) for node in {*nodes, *crossed}}
        try:
            await asyncio.gather(*(asked[node] for node in crossed))
            await asyncio.wait(asked.values(), timeout=_MOMENT)
        finally:
            for each in asked.values():
                each.cancel()
            await asyncio.gather(*asked.values(), return_exceptions=True)

    def _patience(self, begun: First) -> float:
        """Seconds to wait for another word, after what has been told."""
        visits = self._visits(begun)
        if not visits:
            return _ON_ITS_WAY
        last = visits[-1][1][-1]
        if last.table != OUTPUT.number:
            return _SILENCE
        ends = {EXIT(Exit.PORT).value: _ARRIVED, EXIT(Exit.GATEWAY).value: _SILENCE}
        return ends.get(_value(last, EXIT.field, EXIT.mask), _ON_ITS_WAY)

    def _visits(self, begun: First) -> list[_Visit]:
        """What each switch told, visit by visit, in the order of the way: words of two switches may cross."""
        left: list[_Visit] = []
        for node, packet in self._reports:
            if _is_answer(begun, packet):
                continue
            there = next((each for name, each in reversed(left) if name == node), None)
            if packet.table == CLASSIFY.number or there is None:
                there = []
                left.append((node, there))
            there.append(packet)
        found: list[_Visit] = []
        while left:
            following = (each for each in left if self._follows(begun, found[-1] if found else None, each))
            found.append(next(following, left[0]))
            left.remove(found[-1])
        return found

    def _follows(self, begun: First, before: _Visit | None, visit: _Visit) -> bool:
        """Whether a visit may be the one after another."""
        entered = _value(visit[1][0], f.IN_PORT, f.IN_PORT.maximum)
        if before is None:
            return (visit[0], entered) == (begun.node, begun.packet[f.IN_PORT])
        name = next((port.name for port in self._compiler.ports(visit[0]) if port.number == entered), "")
        if name in (TUNNEL_PORT, GATEWAY_PORT):
            way = Exit.TUNNEL if name == TUNNEL_PORT else Exit.ROUTED
            return EXIT(way).value == _value(before[1][-1], EXIT.field, EXIT.mask)
        wires = (((wire.a, wire.a_port), (wire.b, wire.b_port)) for wire in self._compiler.fabric.used())
        return any((visit[0], name) in ends and before[0] in (ends[0][0], ends[1][0]) for ends in wires)

    async def _met(self, node: str, reports: Sequence[PacketIn]) -> Met:
        """What a switch did: in each table the flow that it holds for what the packet was by then."""
        held = [stats.flow for stats in await self._dump(node) if stats.flow is not None]
        flows = [flow for flow in held if flow.table not in (DIGEST.number, HOST.number) and not is_tap(flow.cookie)]
        interpreter = Interpreter(flows)
        steps: list[Step] = []
        packets = [_fields(each) for each in reports]
        for report, packet in zip(reports, packets, strict=True):
            try:
                steps.append(Step(report.table, interpreter.look_up(report.table, packet)))
            except InterpreterError as error:
                raise TraceError(f"node {node}: the switch's flows don't say what it met: {error}") from error
        return Met(node, packets[0], tuple(steps), packets[-1])


def _from_another_port(begun: First) -> First:
    """The same from a port that no trace was from lately: switches remember connections."""
    packet = dict(begun.packet)
    for field in (f.TCP_SRC, f.UDP_SRC):
        if field in packet:
            packet[field] = SOURCE_PORT + secrets.randbelow(0x10000 - SOURCE_PORT)
    return msgspec.structs.replace(begun, packet=packet)


def _is_answer(begun: First, report: PacketIn) -> bool:
    """Whether a packet is an answer to the one that was delivered: what repeats its payload has the mark, too."""
    sent, found = begun.packet, frames.fields_of(report.data) or {}
    if any(found.get(field) != sent.get(field) for field in (f.IP_PROTO, f.ICMPV4_TYPE, f.ICMPV6_TYPE)):
        return True
    ports = ((f.TCP_SRC, f.TCP_DST), (f.UDP_SRC, f.UDP_DST))
    return any(source in sent and found.get(target) == sent[source] for source, target in ports)


def _taps(made: Taps, ethertype: int, *, deliver: bool) -> Iterable[Flow]:
    about = (f.ETH_TYPE(ethertype), f.IP_DSCP(frames.DSCP))
    for table in TABLES:
        if table is OUTPUT:
            # What goes to another switch goes on; what would leave is held, if it isn't to arrive.
            for way in Exit:
                held = way in (Exit.PORT, Exit.GATEWAY) and not deliver
                yield made.flow(table, (*about, EXIT(way)), way, held=held)
        elif table not in (DIGEST, HOST):
            yield made.flow(table, about, 0)


def _value(report: PacketIn, field: Field, mask: int) -> int:
    return next((term.value & mask for term in report.match if term.field is field), 0)


def _fields(report: PacketIn) -> dict[Field, int]:
    found = frames.fields_of(report.data)
    if found is None:
        raise TraceError("a switch told of something that is no IP packet")
    return found | {term.field: term.value for term in report.match}


def _endpoint(begun: First, met: Sequence[Met]) -> str:
    """Where a Service's connection was sent, as `ADDRESS:PORT`; empty where nothing was translated."""
    return next((each.destination for each in met if each.destination != begun.destination), "")
