"""Digest: no packet comes here. The cookie of a scope's flow is the digest of what the switch holds of that scope."""

from __future__ import annotations

from flows.cookies import Scope
from flows.pipeline import DIGEST
from flows.registers import SOURCE
from flows.values import DROP, Flow

_PRIORITY = 1


def digest_flow(scope: Scope, digest: int) -> Flow:
    """The flow that stores a scope's digest (64 bits) in the switch."""
    return Flow(DIGEST.number, _PRIORITY, (SOURCE(scope + 1),), DROP, digest)


def is_digest(flow: Flow | None) -> bool:
    """Whether a flow is one that stores a digest, whichever."""
    return flow is not None and any(flow.key == digest_flow(scope, 0).key for scope in Scope)
