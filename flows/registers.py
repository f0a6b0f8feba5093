"""Every bit that flows keep between tables: registers, conntrack zones. Nothing else names a register.

`Bits` are checked for overlap when this module is imported; docs/pipeline.md lists them.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from flows import fields
from flows.fields import Field, Term


class Bits(msgspec.Struct, frozen=True):
    """`width` bits of a field from bit `start` up, with the name that people see and what they are for."""

    name: str
    field: Field
    start: int
    width: int
    purpose: str = ""

    @property
    def mask(self) -> int:
        return (1 << self.width) - 1 << self.start

    def __call__(self, value: int) -> Term:
        """The match term for these bits."""
        if self.width == self.field.bits:
            return Term(self.field, value, None)
        return Term(self.field, value << self.start, self.mask)


def whole(field: Field) -> Bits:
    """All bits of a field."""
    return Bits(field.name, field, 0, field.bits)


class Source(IntEnum):
    """Where a packet entered the bridge. 0 is never set: a packet without a source was not classified.

    TUNNEL stands for every way from another node: by a wire too the sender's node says who sends.
    """

    POD = 1
    TUNNEL = 2
    GATEWAY = 3
    WORLD = 4


class Identity(IntEnum):
    """Identities that are nobody's alone; those of pods begin at `FIRST_IDENTITY` (`topology.identities`)."""

    NONE = 0
    THIS_HOST = 1
    OTHER_NODE = 2
    WORLD = 3
    #: Judged already by the node that sends it: what is of the world and came in there, and answers.
    JUDGED = 4


class Exit(IntEnum):
    """How a packet leaves the bridge, decided by Route and carried out by Output."""

    PORT = 1
    TUNNEL = 2
    GATEWAY = 3
    FABRIC = 4
    ROUTED = 5


#: The exits to other nodes where a packet leaves as the pods' network has it.
TO_OTHER_NODES = (Exit.TUNNEL, Exit.FABRIC)

SOURCE = Bits(
    "source",
    fields.REG0,
    0,
    4,
    "where the packet entered: 1 pod, 2 another node's tunnel or wire, 3 the host itself, 4 the world by the host",
)
#: The bit of `source` that only the world has.
FROM_WORLD = Bits("from_world", fields.REG0, 2, 1)
EXIT = Bits(
    "exit",
    fields.REG0,
    4,
    4,
    "how it leaves: 1 the port in exit_port, 2 tunnel, 3 gateway, 4 wire, 5 another node by the host",
)
HAIRPIN = Bits("hairpin", fields.REG0, 8, 1, "it leaves by the port by which it entered")
TO_NODE = Bits("to_node", fields.REG0, 9, 1, "it is bound for an address of a node: NodePorts apply")
BY_ADDRESS = Bits("by_address", fields.REG0, 10, 1, "it is from another node, and only its address says whose it is")
SUBNET = Bits("subnet", fields.REG0, 16, 16, "the L2 segment of this node, for the packet's family; 0 none")
EXIT_PORT = Bits("exit_port", fields.REG1, 0, 32, "OpenFlow port number of the exit, where exit is 1")
ENDPOINT = Bits("endpoint", fields.REG2, 0, 32, "the Service's endpoint that was chosen; 0 none yet")
SERVICE = Bits("service", fields.REG3, 0, 32, "the Service's port, where endpoints are looked up by it")
ZONE = Bits("zone", fields.REG4, 0, 32, "the topology zone of this node, a hash of its name; 0 none")
SOURCE_IDENTITY = Bits("source_identity", fields.REG5, 0, 24, "the sender's identity")
FROM_POD = Bits("from_pod", fields.REG5, 24, 1, "the sender is a pod")
DESTINATION_IDENTITY = Bits(
    "destination_identity", fields.REG6, 0, 24, "the receiver's identity, as far as it is known"
)
TO_POD = Bits("to_pod", fields.REG6, 24, 1, "the receiver is a pod, and its identity is known")
#: Scratch space inside one action list, meaningless between tables.
SCRATCH = Bits("scratch", fields.REG7, 0, 32, "scratch of the ARP responder; 1 where a policy tells of what it allows")

CT_ZONE = Bits("ct_zone", fields.REG8, 0, 16, "the conntrack zone of connections as clients see them")
SNAT_ZONE = Bits("snat_zone", fields.REG8, 16, 16, "the conntrack zone of those that are given another source")

#: No flow of a scope reads or writes it (`flows.taps`).
TAPPED = Bits("tapped", fields.REG9, 0, 32, "a bit for each table whose tap has told of the packet; 0 without taps")

REGISTERS: tuple[Bits, ...] = (
    *(SOURCE, EXIT, HAIRPIN, TO_NODE, BY_ADDRESS, SUBNET, EXIT_PORT, ENDPOINT, SERVICE, ZONE),
    *(SOURCE_IDENTITY, FROM_POD, DESTINATION_IDENTITY, TO_POD, SCRATCH, CT_ZONE, SNAT_ZONE, TAPPED),
)
#: The part of a tunnel's key that is the sender's identity.
TUNNEL_KEY = Bits("tunnel_key", fields.TUN_ID, 0, 24)
#: On a wire it is the end of the frame's source address.
WIRE_KEY = Bits("wire_key", fields.ETH_SRC, 0, 24)
#: Names for parts of registers.
PARTS: tuple[Bits, ...] = (FROM_WORLD, TUNNEL_KEY, WIRE_KEY)

#: What a connection keeps (zones IPV4 and IPV6).
MARK_SERVICE = Bits("is_service", fields.CT_MARK, 0, 1, "a Service's endpoint was chosen for the connection")
MARK_WORLD = Bits("of_world", fields.CT_MARK, 1, 1, "the connection came from the world by the host: answers go there")
LABEL_ENDPOINT = Bits("endpoint_label", fields.CT_LABEL, 0, 32, "the endpoint, as in the register")
LABEL_SERVICE = Bits("service_label", fields.CT_LABEL, 32, 32, "the Service's port, as in the register")
MARKS: tuple[Bits, ...] = (MARK_SERVICE, MARK_WORLD, LABEL_ENDPOINT, LABEL_SERVICE)


class Zone(IntEnum):
    """Conntrack zones. Each family has two: connections as their clients see them, and those given another source.

    These are what a bridge uses that is the only one of ours on its datapath. Bridges share their datapath's zones, so
    others have zones of their own (`zone_of`).
    """

    IPV4 = 0x5B04
    IPV6 = 0x5B06
    SNAT_IPV4 = 0x5B14
    SNAT_IPV6 = 0x5B16


#: How far apart the zones are of bridges that share a datapath.
_ZONE_STEP = 0x20


def zone_of(zone: Zone, bridge_index: int) -> int:
    """The number of a zone on a bridge with this index among ours on its datapath, from 0."""
    return zone + _ZONE_STEP * bridge_index


def _check_overlap() -> None:
    taken: dict[Field, int] = {}
    for bits in REGISTERS + MARKS:
        if taken.get(bits.field, 0) & bits.mask:
            raise AssertionError(f"register bits of {bits.name} overlap others of {bits.field}")
        taken[bits.field] = taken.get(bits.field, 0) | bits.mask


_check_overlap()
