"""Packets that switches send here, and whom each of them is for.

A packet-in says which table sent it; together with what the packet is, that says why it was sent. Owns that decision,
and nothing else: what becomes of a packet is its taker's business. Switches limit the rate of them all together
(`node.ovsdb`), and send them to the master alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from struct import unpack_from

from flows import fields as f
from flows.openflow.messages import PacketIn
from flows.pipeline import CLASSIFY
from flows.tables.policy import direction_of

#: The node whose switch it comes from, the packet, and when it came.
Take = Callable[[str, PacketIn, float], None]
_ETHERTYPE_AT = 12


class Purpose(Enum):
    """Why a flow sends packets here."""

    #: A connection that a policy denies, or allows, and is to be logged.
    CONNECTION = "connection"
    #: A workload asks for its addresses.
    DHCP = "dhcp"
    #: A neighbour says who it is (IEEE 802.1AB).
    LLDP = "lldp"


_BY_ETHERTYPE = {f.ETH_IPV4: Purpose.DHCP, 0x88CC: Purpose.LLDP}


def purpose(packet: PacketIn) -> Purpose | None:
    """Why a packet was sent here; None where no flow of ours would have."""
    if direction_of(packet.table) is not None:
        return Purpose.CONNECTION
    if packet.table == CLASSIFY.number and len(packet.data) >= _ETHERTYPE_AT + 2:
        return _BY_ETHERTYPE.get(unpack_from("!H", packet.data, _ETHERTYPE_AT)[0])
    return None


def in_port(packet: PacketIn) -> int:
    """The number of the port by which a packet entered its switch; 0, which no port has, where that isn't said."""
    return next((term.value for term in packet.match if term.field is f.IN_PORT), 0)


class PacketIns:
    """Who takes which packets; what nobody takes is dropped."""

    def __init__(self, takers: Mapping[Purpose, Take]) -> None:
        self._takers = dict(takers)

    def take(self, node: str, packet: PacketIn, now: float) -> None:
        """A packet from a node's switch."""
        found = purpose(packet)
        taker = self._takers.get(found) if found is not None else None
        if taker is not None:
            taker(node, packet, now)
