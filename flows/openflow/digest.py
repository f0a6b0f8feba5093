"""Digests: what tells two states of a scope apart without reading either.

A scope's digest is the sum, modulo 2**64, of the hashes of its flows and groups: no order matters, and a change adds
and subtracts just what it changes. The hash is over the encoded bytes, so a flow that is encoded otherwise, by another
release, counts as another flow.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from flows.openflow.encode import flow_mod, group_mod
from flows.values import Flow, Group

_MODULUS = 1 << 64


def message_hash(message: bytes) -> int:
    """64 bits of the message that adds a flow or group, encoded with xid 0."""
    return int.from_bytes(blake2b(message, digest_size=8).digest(), "big")


def flow_hash(flow: Flow) -> int:
    """64 bits of a flow's identity, program and cookie."""
    return message_hash(flow_mod(flow))


def group_hash(group: Group) -> int:
    """64 bits of a group."""
    return message_hash(group_mod(group))


def digest(flows: Iterable[Flow], groups: Iterable[Group] = ()) -> int:
    """The digest of a whole scope."""
    return (sum(map(flow_hash, flows)) + sum(map(group_hash, groups))) % _MODULUS


def changed(before: int, removed: Iterable[Flow], added: Iterable[Flow]) -> int:
    """A scope's digest after flows went and came."""
    return (before + sum(map(flow_hash, added)) - sum(map(flow_hash, removed))) % _MODULUS
