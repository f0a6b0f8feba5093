"""How much a pod may send and get: the values, which netlink, OVSDB and CNI have in common. Pure."""

from __future__ import annotations

import msgspec

#: Bits a second: Open vSwitch's unit. Bits at once: one packet as the kernel passes it on before it is cut up.
LEAST_RATE, LEAST_BURST = 1000, 65536 * 8


class Limit(msgspec.Struct, frozen=True):
    """How much may pass: bits a second, and how many bits at once after a pause."""

    rate: int
    burst: int


class Bandwidth(msgspec.Struct, frozen=True):
    """What a pod gets (ingress) and what it sends (egress); None where nothing is limited."""

    ingress: Limit | None = None
    egress: Limit | None = None
