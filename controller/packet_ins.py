"""Packets that switches send here: which part of the controller each is for.

    SwitchSync ──told (of a master), overheard (of a standby)──> PacketIns ──by table and ethertype──> its consumer

A packet comes to the controller because a flow of ours says so; which one is told by its table and cookie. What a
standby hears is what its master is told of as well, and that one acts on it; only what all replicas must know is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import error, unpack_from

from flows.openflow.messages import PacketIn
from flows.pipeline import CLASSIFY
from topology.lldp import ETH_LLDP

#: Takes the node's name, the packet, and when it came.
Consumer = Callable[[str, PacketIn, float], None]


class PacketIns:
    """Who takes what. `links`: what ports say of themselves; `connections`: what policies want to be told of."""

    def __init__(self, *, links: Consumer, connections: Consumer) -> None:
        self._links = links
        self._connections = connections

    def told(self, node: str, packet: PacketIn, now: float) -> None:
        """A packet that a switch sends to its master."""
        if _is_lldp(packet):
            self._links(node, packet, now)
        else:
            self._connections(node, packet, now)

    def overheard(self, node: str, packet: PacketIn, now: float) -> None:
        """A packet that a switch sends to its master, and to this controller too."""
        if _is_lldp(packet):
            self._links(node, packet, now)


def _is_lldp(packet: PacketIn) -> bool:
    if packet.table != CLASSIFY.number:
        return False
    try:
        return bool(unpack_from("!H", packet.data, 12) == (ETH_LLDP,))
    except error:
        return False
