"""What a flow's cookie says: who made it, in which scope, for which object.

63..56 owner, 55 scope, 54..48 kind, 47..40 zero, 39..0 object id (`topology.naming.object_id`).
`ovs-ofctl dump-flows br-int cookie=VALUE/MASK` selects with these masks. The two flows of table Digest are the
exception: their cookie is the digest itself.
"""

from __future__ import annotations

from enum import IntEnum

from topology.naming import OBJECT_ID_BITS

OWNER = 0x5B
#: Of what switches learn: the replacement of a scope leaves it. The rest is the number of the Service's port.
LEARNT_OWNER = 0x5C
#: Of flows that pass: taps. They are in no scope, no digest and no replacement, and audits leave them alone.
TAP_OWNER = 0x5D
OWNER_MASK = 0xFF << 56
SCOPE_BIT = 1 << 55
OBJECT_MASK = (1 << OBJECT_ID_BITS) - 1
KIND_SHIFT = 48
KIND_MASK = 0x7F << KIND_SHIFT


class Scope(IntEnum):
    """`CLUSTER` flows are the same bytes on every node, `NODE` flows are one node's own."""

    CLUSTER = 0
    NODE = 1


class Kind(IntEnum):
    """The kind of object that a flow was made for."""

    PIPELINE = 1
    NODE = 2
    POD = 3
    SERVICE = 4
    ADDRESS = 5
    POLICY = 6
    IDENTITY = 7


#: A Kind in the words of the model.
KIND_NAMES = {
    Kind.PIPELINE: "Pipeline",
    Kind.NODE: "Node",
    Kind.POD: "Pod",
    Kind.SERVICE: "Service",
    Kind.ADDRESS: "Address",
    Kind.POLICY: "Policy",
    Kind.IDENTITY: "Identity",
}


def cookie(scope: Scope, kind: Kind, object_id: int) -> int:
    """The cookie of a flow that was made for an object."""
    return OWNER << 56 | scope << 55 | kind << KIND_SHIFT | object_id


def is_ours(cookie: int) -> bool:
    """Whether a flow with this cookie is of a scope."""
    return cookie & OWNER_MASK == OWNER << 56


def is_learnt(cookie: int) -> bool:
    """Whether a flow with this cookie is what a switch has learnt."""
    return cookie & OWNER_MASK == LEARNT_OWNER << 56


def is_tap(cookie: int) -> bool:
    """Whether a flow with this cookie is a tap's."""
    return cookie & OWNER_MASK == TAP_OWNER << 56


def scope_match(scope: Scope) -> tuple[int, int]:
    """Cookie and mask that select every flow of a scope (table Digest aside)."""
    return OWNER << 56 | scope << 55, OWNER_MASK | SCOPE_BIT
