"""What one change means for one scope: the flows and groups that go and those that come."""

from __future__ import annotations

import msgspec

from flows.values import Flow, Group

#: The scope key of the cluster scope; a node scope's key is the node's name.
CLUSTER = ""


class Update(msgspec.Struct, frozen=True):
    """A change to a scope.

    `removed` holds old values, also of flows that `added` replaces (the same key in both); so a scope's digest changes
    by the sum of the hashes of `added` less that of `removed`.
    """

    scope: str
    removed: tuple[Flow, ...] = ()
    added: tuple[Flow, ...] = ()
    groups_removed: tuple[Group, ...] = ()
    groups_added: tuple[Group, ...] = ()
