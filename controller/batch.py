"""Changes of a scope as bytes: encoded once, ready to be written to any number of switches.

A batch is a run of bundle-add messages. Only one bundle is open on a connection at a time, so all of them have one id,
and the bytes don't depend on the switch. Each message has an xid of its own by which an error finds its flow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from struct import unpack_from

import msgspec

from flows.cookies import Scope, scope_match
from flows.fields import PROTO_SCTP, PROTO_TCP, PROTO_UDP
from flows.openflow import encode
from flows.openflow.digest import flow_hash, group_hash, message_hash
from flows.openflow.wire import FlowCommand, GroupCommand, Type
from flows.pipeline import AFFINITY, DIGEST, LEARNT, TABLES
from flows.registers import Zone, zone_of
from flows.tables.digest import digest_flow
from flows.tables.service import learnt_by_means_of
from flows.update import Forgotten, Update
from flows.values import Flow, FlowKey, Group

BUNDLE_ID = 1
#: Batches take their xids from 1 up to here, a switch's own requests from here up.
OWN_XIDS = 1 << 31
_WHOLE_COOKIE = (1 << 64) - 1
#: Bytes of one buffer, about: what is handed to a socket at a time.
BUFFER_SIZE = 1 << 17

#: Where the message that a bundle-add holds begins, and in a flow-mod its command.
_INNER, _COMMAND = 16, 25

#: IP protocol numbers of what Services speak.
PROTOCOLS = {"TCP": PROTO_TCP, "UDP": PROTO_UDP, "SCTP": PROTO_SCTP}

#: What a message of a batch is about; None where it is about no object (a digest, a deletion by cookie).
Item = Flow | Group | None


class Batch(msgspec.Struct, frozen=True):
    """Messages of one step of one scope. The message with xid `first_xid + n` is about `items[n]`."""

    buffers: tuple[bytes, ...]
    first_xid: int
    items: tuple[Item, ...]
    #: How many of the messages are flow-mods.
    flow_mods: int
    #: Messages that no bundle can hold: they go out right behind it.
    after: tuple[bytes, ...] = ()
    #: Flows that are there already and become others.
    altered: frozenset[FlowKey] = frozenset()

    @property
    def size(self) -> int:
        """Bytes of all buffers."""
        return sum(map(len, self.buffers)) + sum(map(len, self.after))

    def item(self, xid: int) -> tuple[bool, Item]:
        """Whether the message with this xid is in the batch, and what it is about."""
        index = xid - self.first_xid
        if 0 <= index < len(self.items):
            return True, self.items[index]
        return False, None

    def additions(self, missing: Collection[FlowKey | int]) -> Iterator[tuple[int, Flow]]:
        """The messages that make a flow which isn't there, by their xids, in order, and that flow.

        `missing`: of the flows that are altered, those that a switch hasn't got.
        """
        for xid, message in chain.from_iterable(map(_messages, self.buffers)):
            item = self.items[xid - self.first_xid]
            if isinstance(item, Flow) and _adds(message) and (item.key not in self.altered or item.key in missing):
                yield xid, item

    def about(self, names: Collection[FlowKey | int]) -> Iterator[tuple[FlowKey | int, int]]:
        """The messages that are about some flows and groups, by their xids, in order."""
        for xid, item in enumerate(self.items, self.first_xid):
            if item is not None and name_of(item) in names:
                yield name_of(item), xid

    def without(self, xids: Collection[int]) -> Batch:
        """The batch less some messages; the others are the same bytes, under the same xids."""
        if not any(self.item(xid)[0] for xid in xids):
            return self
        buffers = tuple(b"".join(each for xid, each in _messages(buffer) if xid not in xids) for buffer in self.buffers)
        return msgspec.structs.replace(self, buffers=tuple(filter(None, buffers)))


def name_of(item: Flow | Group) -> FlowKey | int:
    """What a flow or group is told apart by."""
    return item.key if isinstance(item, Flow) else item.group_id


def _adds(message: bytes) -> bool:
    """Whether what a bundle is to hold makes a flow."""
    return message[_INNER + 1] == Type.FLOW_MOD and message[_INNER + _COMMAND] == FlowCommand.ADD


def _messages(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    """The messages in a buffer, each with its xid."""
    offset = 0
    while offset < len(buffer):
        length, xid = unpack_from("!HI", buffer, offset + 2)
        yield xid, buffer[offset : offset + length]
        offset += length


class Xids:
    """Transaction ids for batches, in runs; they wrap around long before they could meet one in flight."""

    def __init__(self) -> None:
        self._next = 1

    def take(self, count: int) -> int:
        """The first of `count` ids in a row."""
        if self._next + count >= OWN_XIDS:
            self._next = 1
        first = self._next
        self._next += count
        return first


#: A message without its xid: how it is encoded, and what it is about.
Step = tuple[bytes, Item]


class Encoded(msgspec.Struct, frozen=True):
    """An update as messages, in order: groups, flows, groups that go. `difference` is what it adds to the digest."""

    steps: list[Step]
    difference: int


def encoded(update: Update) -> Encoded:
    """Encode an update. What comes is encoded once, for its hash and for the switch."""
    groups = [encode.group_mod(group) for group in update.groups_added]
    flows = [encode.flow_mod(flow) for flow in update.added]
    difference = sum(map(message_hash, groups)) + sum(map(message_hash, flows))
    difference -= sum(map(group_hash, update.groups_removed)) + sum(map(flow_hash, update.removed))
    # Whole groups, never bucket by bucket: Open vSwitch 3.1 spreads connections over the inserted bucket alone.
    steps: list[Step] = list(zip(groups, update.groups_added, strict=True))
    new = {flow.key for flow in update.added} if update.removed else ()
    gone = [flow for flow in update.removed if flow.key not in new]
    steps += [(encode.flow_delete_strict(flow), flow) for flow in gone]
    # The clients of a Service that has gone, or remembers no clients any more. No digest knows of them.
    learnt = (cookie for flow in gone if (cookie := learnt_by_means_of(flow)) is not None)
    steps += [(encode.flow_delete(AFFINITY.number, cookie, _WHOLE_COOKIE), None) for cookie in learnt]
    steps += zip(flows, update.added, strict=True)
    kept = {group.group_id for group in update.groups_added}
    steps += [
        (encode.group_mod(group, GroupCommand.DELETE), group)
        for group in update.groups_removed
        if group.group_id not in kept
    ]
    return Encoded(steps, difference)


def flushes(forgotten: Iterable[Forgotten]) -> tuple[bytes, ...]:
    """The messages that have a switch forget connections, in each zone of their family."""
    messages = []
    for each in forgotten:
        version = each.address.version
        source = int(each.address) | (0xFFFF << 32 if version == 4 else 0)
        zones = (Zone.IPV4, Zone.SNAT_IPV4) if version == 4 else (Zone.IPV6, Zone.SNAT_IPV6)
        messages += [encode.ct_flush(zone, PROTOCOLS[each.protocol], source, each.port) for zone in zones]
    return tuple(messages)


def on_bridge(messages: Iterable[bytes], bridge_index: int) -> Iterable[bytes]:
    """What `flushes` made, for a bridge with zones of its own: a message ends with the zone and two bytes."""
    if not bridge_index:
        return messages
    zones = {zone: zone_of(zone, bridge_index) for zone in Zone}
    return [
        each[:-4] + zones[Zone(int.from_bytes(each[-4:-2], "big"))].to_bytes(2, "big") + each[-2:] for each in messages
    ]


def change(update: Update, scope: Scope, digest: int) -> list[Step]:
    """What an update means, in order, the scope's new digest last."""
    return [*encoded(update).steps, digest_step(scope, digest)]


def replacement(flows: Iterable[Flow], scope: Scope, digest: int) -> Iterator[Step]:
    """All of a scope anew: what has its cookie goes, then everything comes, atomically."""
    cookie, mask = scope_match(scope)
    for table in TABLES:
        # Table Digest holds digests where others have cookies, so a deletion by cookie could hit one.
        if table is not DIGEST and table.number not in LEARNT:
            yield encode.flow_delete(table.number, cookie, mask), None
    for flow in flows:
        yield encode.flow_mod(flow), flow
    yield digest_step(scope, digest)


def digest_step(scope: Scope, digest: int) -> Step:
    """The message that stores a scope's digest."""
    return encode.flow_mod(digest_flow(scope, digest)), None


def batch(steps: Iterable[Step], xids: Xids, after: tuple[bytes, ...] = (), altered: Iterable[FlowKey] = ()) -> Batch:
    """Messages with their xids, wrapped for the bundle."""
    taken = list(steps)
    first = xids.take(len(taken))
    buffers, run, size = [], [], 0
    for xid, (message, _) in enumerate(taken, first):
        wrapped = encode.bundle_add(BUNDLE_ID, message, xid)
        run.append(wrapped)
        size += len(wrapped)
        if size >= BUFFER_SIZE:
            buffers.append(b"".join(run))
            run, size = [], 0
    if run:
        buffers.append(b"".join(run))
    flow_mods = sum(message[1] == Type.FLOW_MOD for message, _ in taken)
    return Batch(tuple(buffers), first, tuple(item for _, item in taken), flow_mods, after, frozenset(altered))
