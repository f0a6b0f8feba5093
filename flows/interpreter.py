"""The reference interpreter: what a switch does with one packet, by the book and without any cleverness.

Tests walk packets through compiled flows with it, and compare it with `ofproto/trace` of a real Open vSwitch. It is
pure but for the `Conntrack` that it is given, which learns connections as a switch's would.

What it leaves out: fragments, TCP flags and ICMP errors (every packet of TCP opens a connection, and no packet is
`rel` or `inv`), that learnt flows expire, the ranges of NAT (the first address and port are taken), and what comes
after output: tunnel headers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from flows import fields as f
from flows.fields import Field, Match, Term
from flows.pipeline import TABLE_NAMES
from flows.registers import Bits
from flows.text import flow_text
from flows.values import (
    PORT_IN_PORT,
    Action,
    Bucket,
    Conjunction,
    Ct,
    DecTtl,
    Flow,
    Goto,
    Group,
    GroupType,
    Learn,
    Move,
    Nat,
    Note,
    Output,
    OutputBits,
    Program,
    Resubmit,
    SetField,
    ToGroup,
)

#: Fields of a packet and its metadata. One that is absent the packet doesn't have; metadata that is absent is zero.
Packet = Mapping[Field, int]
Chooser = Callable[[Group], Bucket]

_CONNECTION = frozenset({f.CT_STATE, f.CT_ZONE, f.CT_MARK, f.CT_LABEL})
_METADATA = _CONNECTION | {
    *(f.REG0, f.REG1, f.REG2, f.REG3, f.REG4, f.REG5, f.REG6, f.REG7),
    *(f.TUN_ID, f.TUN_SRC, f.TUN_DST, f.TUN_IPV6_SRC, f.TUN_IPV6_DST),
}
#: Lookups that one packet may cause; a pipeline that only goes forward needs far fewer.
_LOOKUP_LIMIT = 1000
_TARGET_LINK_LAYER = 2


class InterpreterError(Exception):
    """The flows say nothing definite for this packet, or something that no switch would do; the text says what."""


class Step(msgspec.Struct, frozen=True):
    """One lookup: the table, and the flow that was found; None is a miss, which drops the packet."""

    table: int
    flow: Flow | None


class Emission(msgspec.Struct, frozen=True):
    """A packet that leaves by a port."""

    port: int
    packet: Packet


class Walk(msgspec.Struct, frozen=True):
    """Everything that became of one packet. Without emissions it was dropped."""

    steps: tuple[Step, ...]
    emissions: tuple[Emission, ...]

    @property
    def tables(self) -> list[int]:
        """The tables that were looked up, in order."""
        return [step.table for step in self.steps]

    def __str__(self) -> str:
        lines = [
            f"{TABLE_NAMES.get(step.table, step.table)}: "
            + (flow_text(step.flow, names=True) if step.flow is not None else "no match, drop")
            for step in self.steps
        ]
        return "\n".join(lines + [f"out by port {each.port}" for each in self.emissions])


class _Entry(msgspec.Struct):
    """A connection: its ends as they opened it and as NAT shows them; whether it was answered."""

    original: _Ends
    translated: _Ends
    answered: bool = False
    mark: int = 0
    label: int = 0


class _Ends(msgspec.Struct, frozen=True):
    version: int
    protocol: int
    source: int
    source_port: int
    destination: int
    destination_port: int

    def reversed(self) -> _Ends:
        return _Ends(
            self.version, self.protocol, self.destination, self.destination_port, self.source, self.source_port
        )


_ADDRESSES = {4: (f.IPV4_SRC, f.IPV4_DST), 6: (f.IPV6_SRC, f.IPV6_DST)}
_PORTS = {
    f.PROTO_TCP: (f.TCP_SRC, f.TCP_DST),
    f.PROTO_UDP: (f.UDP_SRC, f.UDP_DST),
    f.PROTO_SCTP: (f.SCTP_SRC, f.SCTP_DST),
}


class Conntrack:
    """What a switch remembers of packets: the connections that it knows, in their zones, and flows it has learnt."""

    def __init__(self) -> None:
        self._zones: dict[int, list[_Entry]] = {}
        #: By table and match; that they expire is left to who calls.
        self.learnt: dict[tuple[int, Match], Flow] = {}

    def forget(self, protocol: int, source: int, port: int) -> None:
        """Forget connections of every zone whose answers come from this address and port."""

        def is_it(ends: _Ends) -> bool:
            return (ends.protocol, ends.destination) == (protocol, source) and port in (0, ends.destination_port)

        for zone, entries in self._zones.items():
            self._zones[zone] = [entry for entry in entries if not is_it(entry.translated)]

    def track(self, packet: dict[Field, int], ct: Ct) -> None:
        """Carry out a ct action on a packet: its ct_* fields are set, NAT is done, a connection may be committed."""
        ends = _ends(packet)
        zone = ct.zone if isinstance(ct.zone, int) else _read(packet, ct.zone)
        entry, reply = self._find(zone, ends)
        state = f.CT_TRK
        if entry is None:
            state |= f.CT_NEW
        elif reply:
            entry.answered = True
            state |= f.CT_EST | f.CT_RPL
        else:
            state |= f.CT_EST if entry.answered else f.CT_NEW
        if ct.commit and entry is None:
            entry = _Entry(ends, _translated(ends, ct.nat))
            self._zones.setdefault(zone, []).append(entry)
        if ct.nat is not None and entry is not None:
            _rewrite(packet, entry.original.reversed() if reply else entry.translated)
        if ct.commit and entry is not None:
            _execute(entry, packet, ct.execute)
        packet[f.CT_STATE], packet[f.CT_ZONE] = state, zone
        packet[f.CT_MARK], packet[f.CT_LABEL] = (entry.mark, entry.label) if entry is not None else (0, 0)

    def _find(self, zone: int, ends: _Ends) -> tuple[_Entry | None, bool]:
        for entry in self._zones.get(zone, ()):
            if ends in (entry.original, entry.translated):
                return entry, False
            if ends == entry.translated.reversed():
                return entry, True
        return None, False


def _ends(packet: Packet) -> _Ends:
    version = 6 if packet.get(f.ETH_TYPE) == f.ETH_IPV6 else 4
    source, destination = _ADDRESSES[version]
    if source not in packet:
        raise InterpreterError("conntrack takes IPv4 and IPv6 packets only")
    protocol = packet.get(f.IP_PROTO, 0)
    ports = _PORTS.get(protocol)
    numbers = (packet.get(ports[0], 0), packet.get(ports[1], 0)) if ports is not None else (0, 0)
    return _Ends(version, protocol, packet[source], numbers[0], packet[destination], numbers[1])


def _translated(ends: _Ends, nat: Nat | None) -> _Ends:
    if nat is None or not nat.kind:
        return ends
    address, port = ("source", "source_port") if nat.kind == "src" else ("destination", "destination_port")
    changes = {name: value for name, value in ((address, nat.address_min), (port, nat.port_min)) if value is not None}
    return msgspec.structs.replace(ends, **changes)


def _rewrite(packet: dict[Field, int], ends: _Ends) -> None:
    source, destination = _ADDRESSES[ends.version]
    packet[source], packet[destination] = ends.source, ends.destination
    ports = _PORTS.get(ends.protocol)
    if ports is not None:
        packet[ports[0]], packet[ports[1]] = ends.source_port, ends.destination_port


def _execute(entry: _Entry, packet: Packet, program: Iterable[SetField | Move]) -> None:
    kept = {**packet, f.CT_MARK: entry.mark, f.CT_LABEL: entry.label}
    for action in program:
        _change(kept, action)
    entry.mark, entry.label = kept[f.CT_MARK], kept[f.CT_LABEL]


class Interpreter:
    """The flows and groups of one switch. `down` are its ports without a link: buckets that watch them are skipped."""

    def __init__(self, flows: Iterable[Flow], groups: Iterable[Group] = (), down: Collection[int] = ()) -> None:
        self.down = frozenset(down)
        self._tables: dict[int, list[Flow]] = {}
        for flow in flows:
            self._tables.setdefault(flow.table, []).append(flow)
        self._groups = {group.group_id: group for group in groups}

    def walk(self, packet: Packet, conntrack: Conntrack, choose: Chooser | None = None) -> Walk:
        """What becomes of a packet; `choose` picks the bucket of a select group. Raises InterpreterError."""
        run = _Run(self, conntrack, choose or (lambda group: group.buckets[0]))
        run.waiting.append((0, dict(packet)))
        while run.waiting:
            run.process(*run.waiting.popleft())
        return Walk(tuple(run.steps), tuple(run.emissions))

    def look_up(self, table: int, packet: Packet, learnt: Iterable[Flow] = ()) -> Flow | None:
        """The flow of a table that a packet meets. Raises InterpreterError where two are as good."""
        flows = [*self._tables.get(table, ()), *(flow for flow in learnt if flow.table == table)]
        found = [flow for flow in flows if matches(flow, packet)]
        parts = [flow for flow in found if _is_part(flow)]
        hard = _best([flow for flow in found if not _is_part(flow)])
        for priority in sorted({flow.priority for flow in parts}, reverse=True):
            if hard is not None and hard.priority >= priority:
                break
            met = _conjunctions(flow for flow in parts if flow.priority == priority)
            whole = [each for number in met for each in flows if matches(each, {**packet, f.CONJ_ID: number})]
            best = _best([flow for flow in whole if not _is_part(flow)]) if met else None
            if best is not None:
                return best
        return hard

    def group(self, number: int) -> Group:
        """A group by its id. Raises InterpreterError."""
        if number not in self._groups:
            raise InterpreterError(f"there is no group {number}")
        return self._groups[number]


def _is_part(flow: Flow) -> bool:
    """Whether the flow is part of conjunctions: met alone it does nothing."""
    return bool(flow.program) and isinstance(flow.program[0], Conjunction)


def _conjunctions(parts: Iterable[Flow]) -> list[int]:
    """The conjunctions that are met in all their dimensions. Raises InterpreterError.

    Open vSwitch takes no conjunction for whole that has more dimensions than flows were met (find_conjunctive_match in
    its lib/classifier.c), so a flow that is two of its parts may or may not count as both.
    """
    met: dict[int, set[int]] = {}
    sizes: dict[int, int] = {}
    for flow in parts:
        numbers = [action.id for action in flow.program if isinstance(action, Conjunction)]
        if len(set(numbers)) < len(numbers):
            raise InterpreterError(f"two parts of one conjunction: {flow_text(flow, names=True)}")
        for action in flow.program:
            if isinstance(action, Conjunction):
                met.setdefault(action.id, set()).add(action.clause)
                sizes[action.id] = action.clauses
    return [number for number, clauses in met.items() if len(clauses) == sizes[number]]


def _best(found: Sequence[Flow]) -> Flow | None:
    """The flow of the highest priority. Raises InterpreterError where two are as good and differ in what they do."""
    if not found:
        return None
    highest = max(flow.priority for flow in found)
    best = [flow for flow in found if flow.priority == highest]
    if len({flow.program for flow in best}) > 1:
        raise InterpreterError("overlap: " + " and ".join(flow_text(flow, names=True) for flow in best))
    return best[0]


def matches(flow: Flow, packet: Packet) -> bool:
    """Whether a flow catches a packet."""
    return agrees(flow.match, packet)


def agrees(match: Match, packet: Packet) -> bool:
    """Whether a match is true of a packet."""
    # In one loop, and each field looked for once: a trace asks this of every flow of every table that it enters.
    for term in match:
        field = term.field
        value = packet.get(field)
        if value is None:
            if field not in _METADATA:
                return False
            value = 0
        if (value ^ term.value) & (field.maximum if term.mask is None else term.mask):
            return False
    return True


class _Run:
    """One walk. `waiting` holds packets that are to start at a table: the first one, and those conntrack gives back."""

    def __init__(self, interpreter: Interpreter, conntrack: Conntrack, choose: Chooser) -> None:
        self.steps: list[Step] = []
        self.emissions: list[Emission] = []
        self.waiting: deque[tuple[int, dict[Field, int]]] = deque()
        self._interpreter = interpreter
        self._conntrack = conntrack
        self._choose = choose

    def process(self, table: int, packet: dict[Field, int]) -> None:
        following: int | None = table
        while following is not None:
            if len(self.steps) == _LOOKUP_LIMIT:
                raise InterpreterError(f"the packet is still on its way after {_LOOKUP_LIMIT} lookups")
            flow = self._interpreter.look_up(following, packet, self._conntrack.learnt.values())
            self.steps.append(Step(following, flow))
            following = None if flow is None else self._apply(flow.program, packet)

    def _apply(self, program: Program, packet: dict[Field, int]) -> int | None:
        """Carry out actions; the table to go on in, if any."""
        for action in program:
            match action:
                case Goto(table):
                    return table
                case Output(port):
                    self._emit(port, packet)
                case OutputBits(bits):
                    self._emit(_read(packet, bits), packet)
                case Ct(table=following):
                    copy = dict(packet)
                    self._conntrack.track(copy, action)
                    if following is not None:
                        self.waiting.append((following, copy))
                    # What goes on here is untracked (ovs-actions(7)): only the copy knows its connection.
                    for field in _CONNECTION:
                        packet.pop(field, None)
                case DecTtl():
                    if f.IP_TTL not in packet:
                        raise InterpreterError("the packet has no TTL")
                    if packet[f.IP_TTL] <= 1:
                        return None
                    packet[f.IP_TTL] -= 1
                case ToGroup(number):
                    self._to_group(self._interpreter.group(number), packet)
                case Resubmit(other):
                    # What is done there stays done: the same packet comes back.
                    self.process(other, packet)
                case Learn():
                    self._learn(action, packet)
                case Note():
                    pass
                case _:
                    _change(packet, action)
        return None

    def _emit(self, port: int, packet: dict[Field, int]) -> None:
        entered = packet.get(f.IN_PORT, 0)
        # A switch doesn't send a packet back where it came from, unless it is told so in these words.
        if port == PORT_IN_PORT:
            self.emissions.append(Emission(entered, dict(packet)))
        elif port != entered:
            self.emissions.append(Emission(port, dict(packet)))

    def _learn(self, learn: Learn, packet: dict[Field, int]) -> None:
        copied = tuple(Term(field, packet[field], None) for field in learn.copied)
        match = tuple(sorted((*learn.terms, *copied), key=lambda term: term.field.index))
        program = tuple(SetField(term.field, term.value) for term in learn.loads)
        flow = Flow(learn.table, learn.priority, match, program, learn.cookie)
        self._conntrack.learnt[learn.table, match] = flow

    def _to_group(self, group: Group, packet: dict[Field, int]) -> None:
        buckets = tuple(each for each in group.buckets if each.watch_port not in self._interpreter.down)
        if group.type is GroupType.SELECT and buckets:
            buckets = (self._choose(msgspec.structs.replace(group, buckets=buckets)),)
        elif group.type is not GroupType.ALL:
            buckets = buckets[:1]
        for bucket in buckets:
            # What a bucket does to the packet stays in the bucket.
            self._apply(bucket.program, dict(packet))


def _change(packet: dict[Field, int], action: Action) -> None:
    match action:
        case SetField(field, value, mask):
            mask = field.maximum if mask is None else mask
            if field is f.ND_OPTIONS_TYPE and value == _TARGET_LINK_LAYER:
                # The option stays the one it was, under its new name.
                packet[f.ND_TLL] = packet.pop(f.ND_SLL, 0)
            packet[field] = packet.get(field, 0) & ~mask | value & mask
        case Move(source, target):
            kept = packet.get(target.field, 0) & ~target.mask
            packet[target.field] = kept | _read(packet, source) << target.start
        case _:
            raise InterpreterError(f"{type(action).__name__} can't be done here")


def _read(packet: Packet, bits: Bits) -> int:
    if bits.field not in packet and bits.field not in _METADATA:
        raise InterpreterError(f"the packet has no {bits.field}")
    return (packet.get(bits.field, 0) & bits.mask) >> bits.start
