"""A switch in memory: it speaks OpenFlow 1.5 as bytes, keeps flows and groups, and does bundles as Open vSwitch does.

What it doesn't do: forward packets, check matches. Of roles it knows what several controllers need (`another`): one
master, by the highest generation, and slaves that may not write. An item that `refuses` names is answered with an
error and left out of its bundle, while the rest goes in: that is what Open vSwitch 3.1 does. A flow beyond its table's
limit fails the bundle as a whole when it is committed, and is the only one that is told of. A flow must find the group
that it names, and goes with it when that is deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from struct import pack, unpack_from

from msgspec import structs

from controller.app import Controller
from controller.fleet import Peer
from flows import fields as f
from flows.openflow import wire
from flows.openflow.decode import decode
from flows.openflow.framing import Framer
from flows.openflow.messages import FlowStatsReply, GroupDescReply
from flows.openflow.wire import BundleControl, FlowCommand, GroupCommand, Multipart, Role, Type
from flows.pipeline import DIGEST
from flows.state import Port
from flows.values import Flow, FlowKey, Group, ToGroup

#: Table, priority, encoded match.
_Key = tuple[int, int, bytes]


class FakeSwitch:
    """One switch. `receive` takes the controller's bytes and returns its answer."""

    def __init__(self, datapath_id: int, ports: Iterable[Port] = ()) -> None:
        self.datapath_id = datapath_id
        self.ports = {port.name: port for port in ports}
        self.held: dict[_Key, bytes] = {}
        self.groups: dict[int, bytes] = {}
        self.refuses: Callable[[bytes], bool] = lambda message: False
        #: Of tables that may be full: how many flows they take.
        self.limits: dict[int, int] = {}
        #: Kinds of questions that it answers with an error.
        self.keeps_secret: set[Multipart] = set()
        #: Whole bundles to fail at their commit.
        self.failing_commits = 0
        #: What its datapath is, as its node's agent says.
        self.description = ""
        #: What has been received, by type; and commits and what no bundle can hold, in order.
        self.count: dict[int, int] = {}
        self.unbundled: list[bytes] = []
        #: By port's number: bytes that it receives and sends between two looks, which are a second apart.
        self.carries: dict[int, tuple[int, int]] = {}
        self.looks = 0
        #: By flow: packets and bytes that it has met, and its age in seconds.
        self.met: dict[FlowKey, tuple[int, int, int]] = {}
        #: Packets that it was to send, by port.
        self.emitted: list[tuple[int, bytes]] = []
        self.roles = Roles()
        self.reset()

    def another(self) -> FakeSwitch:
        """The same switch, to be connected to one more controller."""
        twin = FakeSwitch(self.datapath_id)
        twin.ports, twin.held, twin.groups, twin.roles = self.ports, self.held, self.groups, self.roles
        return twin

    def reset(self) -> None:
        """A new connection; what the switch holds stays."""
        self._framer = Framer()
        self._bundle: list[bytes] | None = None
        self.role = Role.EQUAL
        #: Whether it is sent packets also as a slave.
        self.overhears = False
        self._told = b""

    def hello(self) -> bytes:
        return pack("!BBHIHHI", 6, Type.HELLO, 16, 1, 1, 8, 1 << 6)

    def receive(self, data: bytes) -> bytes:
        answer = b"".join(self._answer(message) for message in self._framer.feed(data))
        told, self._told = self._told, b""
        return told + answer

    @property
    def flows(self) -> set[Flow]:
        """Everything but the digests."""
        return {flow for flow in self._flows() if flow.table != DIGEST.number}

    @property
    def balancers(self) -> set[Group]:
        """Every group, decoded; its buckets in the order of their ids."""
        reply = decode(_reply(Multipart.GROUP_DESC, b"".join(map(_group_desc, self.groups.values())), 0))
        assert isinstance(reply, GroupDescReply)
        return {
            structs.replace(group, buckets=tuple(sorted(group.buckets, key=lambda each: each.bucket_id)))
            for group in reply.items
        }

    @property
    def digests(self) -> dict[tuple[object, ...], int]:
        return {flow.match: flow.cookie for flow in self._flows() if flow.table == DIGEST.number}

    def set_ports(self, ports: Iterable[Port]) -> bytes:
        """Other ports than before; the messages that say so."""
        new = {port.name: port for port in ports}
        told = b""
        for name in sorted(self.ports.keys() | new.keys()):
            if self.ports.get(name) != new.get(name):
                if name in self.ports:
                    told += _port_status(1, self.ports[name])
                if name in new:
                    told += _port_status(0, new[name])
        self.ports.clear()
        self.ports.update(new)
        return told

    def packet_in(self, port: int, data: bytes) -> bytes:
        """What it tells of a packet that comes in by a port, if one of its flows says so."""
        (ethertype,) = unpack_from("!H", data, 12)
        wanted = (f.IN_PORT(port), f.ETH_DST(int.from_bytes(data[:6], "big")), f.ETH_TYPE(ethertype))
        flow = next((each for each in self._flows() if each.table == 0 and each.match == wanted), None)
        if flow is None or (self.role is Role.SLAVE and not self.overhears):
            return b""
        match = pack("!HHI", 1, 12, 0x80000004) + pack("!I4x", port)
        body = pack("!IHBBQ", wire.NO_BUFFER, len(data), 1, flow.table, flow.cookie) + match + bytes(2) + data
        return pack("!BBHI", 6, Type.PACKET_IN, 8 + len(body), 0) + body

    def forget(self) -> None:
        """As a switch that was started again."""
        self.held.clear()
        self.groups.clear()
        self.roles.generation = None

    def _counted(self, mod: bytes) -> bytes:
        desc = _flow_desc(mod)
        if self.met:
            (flow,) = _decoded(desc)
            if flow.key in self.met:
                return _flow_desc(mod, *self.met[flow.key])
        return desc

    def _flows(self) -> list[Flow]:
        return _decoded(b"".join(map(_flow_desc, self.held.values())))

    def _answer(self, message: bytes) -> bytes:
        _, kind, _, xid = unpack_from("!BBHI", message)
        self.count[kind] = self.count.get(kind, 0) + 1
        if self.role is Role.SLAVE and kind in (Type.BUNDLE_CONTROL, Type.BUNDLE_ADD):
            return _error(1, 10, message, xid)
        match kind:
            case Type.ROLE_REQUEST:
                return self._change_role(message, xid)
            case Type.FEATURES_REQUEST:
                return pack("!BBHIQIBB2xII", 6, Type.FEATURES_REPLY, 32, xid, self.datapath_id, 0, 254, 0, 0, 0)
            case Type.ECHO_REQUEST:
                return pack("!BBHI", 6, Type.ECHO_REPLY, len(message), xid) + message[8:]
            case Type.MULTIPART_REQUEST:
                return self._multipart(message, xid)
            case Type.BUNDLE_CONTROL:
                return self._bundle_control(message, xid)
            case Type.BUNDLE_ADD:
                return self._bundle_add(message[16:], xid)
            case Type.EXPERIMENTER:
                self.unbundled.append(message)
            case Type.SET_ASYNC:
                self.overhears = True
            case Type.PACKET_OUT if self.role is Role.SLAVE:
                return _error(1, 10, message, xid)
            case Type.PACKET_OUT:
                # Its match is the port that it came in by; one action, to a port.
                (number,) = unpack_from("!I", message, 16 + 16 + 4)
                self.emitted.append((number, message[16 + 16 + 16 :]))
        return b""

    def _change_role(self, message: bytes, xid: int) -> bytes:
        role, generation = unpack_from("!I4xQ", message, 8)
        roles = self.roles
        if role in (Role.MASTER, Role.SLAVE):
            if roles.generation is not None and generation < roles.generation:
                return _error(11, 0, message, xid)
            roles.generation = generation
            if role == Role.MASTER and roles.master is not self:
                if roles.master is not None and roles.master.role is Role.MASTER:
                    roles.master.role = Role.SLAVE
                    told = pack("!BBHIIB3xQ", 6, Type.ROLE_STATUS, 24, 0, Role.SLAVE, 0, generation)
                    roles.master._told += told
                roles.master = self
            self.role = Role(role)
        return pack("!BBHII4xQ", 6, Type.ROLE_REPLY, 24, xid, self.role, roles.generation or 0)

    def _multipart(self, message: bytes, xid: int) -> bytes:
        (kind,) = unpack_from("!H", message, 8)
        if kind in self.keeps_secret:
            return _error(1, 12, message, xid)
        match kind:
            case Multipart.PORT_DESC:
                return _reply(kind, b"".join(map(_port, self.ports.values())), xid)
            case Multipart.PORT_STATS:
                self.looks += 1
                rows = [
                    pack("!H2xIIIQQQQQQQQ", 80, each.number, self.looks, 0, 0, 0, rx * self.looks, tx * self.looks,
                         0, 0, 0, 0)
                    for each in self.ports.values()
                    for rx, tx in (self.carries.get(each.number, (0, 0)),)
                ]  # fmt: skip
                return _reply(kind, b"".join(rows), xid)
            case Multipart.FLOW_DESC:
                table = message[16]
                found = [mod for key, mod in self.held.items() if table in (0xFF, key[0])]
                # In several parts, as a switch with many flows answers.
                half = len(found) // 2
                first, rest = (b"".join(map(self._counted, part)) for part in (found[:half], found[half:]))
                return _reply(kind, first, xid, more=True) + _reply(kind, rest, xid)
            case Multipart.DESC:
                return _reply(kind, bytes(800) + self.description.encode().ljust(256, b"\0"), xid)
            case Multipart.TABLE:
                counts: dict[int, int] = {}
                for table, _, _ in self.held:
                    counts[table] = counts.get(table, 0) + 1
                rows = [pack("!B3xIQQ", table, number, 0, 0) for table, number in counts.items()]
                return _reply(kind, b"".join(rows), xid)
            case Multipart.GROUP_DESC:
                return _reply(kind, b"".join(map(_group_desc, self.groups.values())), xid)
            case Multipart.GROUP:
                # It forwards nothing, so its groups have carried nothing.
                return _reply(kind, b"", xid)
        raise AssertionError(f"nobody asks for multipart {kind}")

    def _bundle_control(self, message: bytes, xid: int) -> bytes:
        bundle, step = unpack_from("!IH", message, 8)
        if step == BundleControl.OPEN_REQUEST:
            assert self._bundle is None, "a bundle is open already"
            self._bundle = []
        elif step == BundleControl.COMMIT_REQUEST:
            assert self._bundle is not None
            mods, self._bundle = self._bundle, None
            if self.failing_commits:
                self.failing_commits -= 1
                return _error(17, 15, message, xid)
            before = dict(self.held), dict(self.groups)
            for mod in mods:
                there = len(self.held)
                self._apply(mod)
                if len(self.held) > there and self._is_overfull(mod[24]):
                    # In place: a twin has the same.
                    for now, was in zip((self.held, self.groups), before, strict=True):
                        now.clear()
                        now.update(was)
                    return _error(5, 1, mod, unpack_from("!I", mod, 4)[0]) + _error(17, 13, message, xid)
            self.roles.commits.append(self.roles.generation if self.role is Role.MASTER else None)
            self.unbundled.append(message)
        return pack("!BBHIIHH", 6, Type.BUNDLE_CONTROL, 16, xid, bundle, step + 1, 3)

    def _is_overfull(self, table: int) -> bool:
        return table in self.limits and sum(key[0] == table for key in self.held) > self.limits[table]

    def _bundle_add(self, mod: bytes, xid: int) -> bytes:
        assert self._bundle is not None
        assert unpack_from("!I", mod, 4) == (xid,), "the inner message has another xid"
        if self.refuses(mod):
            return _error(5, 6, mod, xid)
        self._bundle.append(mod)
        return b""

    def _apply(self, mod: bytes) -> None:
        self.count[mod[1]] = self.count.get(mod[1], 0) + 1
        if mod[1] == Type.GROUP_MOD:
            command, number = unpack_from("!H2xI", mod, 8)
            if command == GroupCommand.DELETE:
                self.groups.pop(number, None)
                for key in [key for key, held in self.held.items() if _group_of(held[8:]) == number]:
                    del self.held[key]
            else:
                self.groups[number] = mod
            return
        cookie, mask, table, command = unpack_from("!QQBB", mod, 8)
        (priority,) = unpack_from("!H", mod, 30)
        key = (table, priority, _match(mod))
        if command == FlowCommand.ADD:
            group = _group_of(mod[8:])
            assert group is None or group in self.groups, f"a flow names group {group}, which isn't there"
            self.held[key] = mod
        elif command == FlowCommand.DELETE_STRICT:
            self.held.pop(key, None)
        else:
            assert command == FlowCommand.DELETE
            for other, each in list(self.held.items()):
                if other[0] == table and unpack_from("!Q", each, 8)[0] & mask == cookie & mask:
                    del self.held[other]


class Roles:
    """Who is master of a switch, among its connections, and the generation that it has last heard of."""

    def __init__(self) -> None:
        self.master: FakeSwitch | None = None
        self.generation: int | None = None
        #: For each bundle that went in, the master's generation; None where it had another role.
        self.commits: list[int | None] = []


@lru_cache(maxsize=10_000)
def _group_of(body: bytes) -> int | None:
    """The group that a flow-mod without its header names."""
    reply = decode(_reply(Multipart.FLOW_DESC, _flow_desc(bytes(8) + body), 0))
    assert isinstance(reply, FlowStatsReply)
    (stats,) = reply.items
    program = stats.flow.program if stats.flow is not None else ()
    return next((action.group_id for action in program if isinstance(action, ToGroup)), None)


def _match(mod: bytes) -> bytes:
    (length,) = unpack_from("!H", mod, 50)
    return mod[48 : 48 + length]


def _decoded(descs: bytes) -> list[Flow]:
    reply = decode(_reply(Multipart.FLOW_DESC, descs, 0))
    assert isinstance(reply, FlowStatsReply)
    assert all(stats.flow is not None for stats in reply.items)
    return [stats.flow for stats in reply.items if stats.flow is not None]


def _flow_desc(mod: bytes, packets: int = 0, octets: int = 0, age: int = 0) -> bytes:
    (cookie,) = unpack_from("!Q", mod, 8)
    match = _match(mod)
    padded = len(match) + -len(match) % 8
    # As Open vSwitch says it: how old it is, since when nothing has met it, packets and bytes.
    numbers = zip((0, 1, 4, 5), (age << 32, 0, packets, octets), strict=True)
    stats = b"".join(pack("!HBBQ", 0x8002, number << 1, 8, value) for number, value in numbers)
    body = mod[48 : 48 + padded] + pack("!HH", 0, 52) + stats + bytes(4) + mod[48 + padded :]
    return pack("!H2xBxHHHHHQ", 24 + len(body), mod[24], unpack_from("!H", mod, 30)[0], 0, 0, 0, 0, cookie) + body


def _group_desc(mod: bytes) -> bytes:
    kind, number, size = unpack_from("!BxIH", mod, 10)
    body = mod[24:]
    return pack("!HBxIH6x", 16 + len(body), kind, number, size) + body


def _port(port: Port) -> bytes:
    return pack("!IH2x6s2x16sII", port.number, 40, port.mac.to_bytes(6, "big"), port.name.encode(), 0, not port.up)


def _port_status(reason: int, port: Port) -> bytes:
    return pack("!BBHIB7x", 6, Type.PORT_STATUS, 56, 0, reason) + _port(port)


def _reply(kind: int, body: bytes, xid: int, more: bool = False) -> bytes:
    # A message of 64 KiB at most: tests are small.
    assert len(body) < wire.MAX_MESSAGE - 16
    return pack("!BBHIHH4x", 6, Type.MULTIPART_REPLY, 16 + len(body), xid, kind, more) + body


def _error(kind: int, code: int, message: bytes, xid: int) -> bytes:
    data = message[:64]
    return pack("!BBHIHH", 6, Type.ERROR, 12 + len(data), xid, kind, code) + data


class Wire:
    """The connection of a fake switch to a controller. Nothing moves until `pump`.

    Its clock is the one that the controller itself looks at: what a change begins goes on with a switch's answer. A
    test that has a clock of its own says what time it is by `now`.
    """

    def __init__(self, controller: Controller, switch: FakeSwitch, now: float | None = None) -> None:
        self.switch = switch
        self.now = now
        self.closed = ""
        self.to_switch: list[bytes] = []
        self._to_controller = switch.hello()
        switch.reset()
        self.peer = Peer(controller.fleet, self, "a fake", self._clock())

    def _clock(self) -> float:
        return time.monotonic() if self.now is None else self.now

    def write(self, buffers: Iterable[bytes]) -> None:
        self.to_switch += buffers

    def close(self, reason: str) -> None:
        self.closed = reason

    def tell(self, data: bytes) -> None:
        """Bytes of the switch that nobody asked for."""
        self._to_controller += data

    def step(self) -> bool:
        """Carry what there is once to either side; whether there was anything."""
        out, self.to_switch = b"".join(self.to_switch), []
        back, self._to_controller = self._to_controller + self.switch.receive(out), b""
        if back and not self.closed:
            self.peer.receive(back, self._clock())
        return bool(out or back)

    def pump(self) -> None:
        """Until nobody has anything to say."""
        for _ in range(200):
            if self.closed or not self.step():
                return
        raise AssertionError("the two never stop talking")

    def cut(self) -> None:
        """The connection is lost, with everything that was on its way."""
        self.closed = "cut"
        self.to_switch = []
        self.peer.lost()
