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
    """Where a packet entered the bridge. 0 is never set: a packet without a source was not classified."""

    POD = 1
    TUNNEL = 2
    GATEWAY = 3


class Exit(IntEnum):
    """How a packet leaves the bridge, decided by Route and carried out by Output."""

    PORT = 1
    TUNNEL = 2
    GATEWAY = 3


SOURCE = Bits("source", fields.REG0, 0, 4, "where the packet entered: 1 pod, 2 tunnel, 3 gateway")
EXIT = Bits("exit", fields.REG0, 4, 4, "how it leaves: 1 the port in exit_port, 2 tunnel, 3 gateway")
EXIT_PORT = Bits("exit_port", fields.REG1, 0, 32, "OpenFlow port number of the exit, where exit is 1")
#: Scratch space inside one action list, meaningless between tables.
SCRATCH = Bits("scratch", fields.REG7, 0, 32, "scratch of the ARP responder")

REGISTERS: tuple[Bits, ...] = (SOURCE, EXIT, EXIT_PORT, SCRATCH)


class Zone(IntEnum):
    """Conntrack zones. IPv4 and IPv6 have one each for the whole bridge."""

    IPV4 = 0x5B04
    IPV6 = 0x5B06


def _check_overlap() -> None:
    taken: dict[Field, int] = {}
    for bits in REGISTERS:
        if taken.get(bits.field, 0) & bits.mask:
            raise AssertionError(f"register bits of {bits.name} overlap others of {bits.field}")
        taken[bits.field] = taken.get(bits.field, 0) | bits.mask


_check_overlap()
