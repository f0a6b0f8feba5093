"""What one change means for one scope: the flows and groups that go and those that come."""

from __future__ import annotations

import msgspec

from flows.values import Flow, Group
from topology.naming import Address

#: The scope key of the cluster scope; a node scope's key is the node's name.
CLUSTER = ""


class Forgotten(msgspec.Struct, frozen=True):
    """Connections that no longer lead anywhere: those whose answers came from this address and port (0: from any)."""

    protocol: str
    address: Address
    port: int = 0

    @property
    def order(self) -> tuple[str, int, int, int]:
        """Something to sort by: addresses of two families have no order."""
        return self.protocol, self.address.version, int(self.address), self.port


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
    #: What switches are to forget of connections once the change is in, on every node.
    forgotten: tuple[Forgotten, ...] = ()

    def __bool__(self) -> bool:
        """Whether it says anything."""
        return bool(self.removed or self.added or self.groups_removed or self.groups_added or self.forgotten)
