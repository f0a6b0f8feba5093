"""Packets that switches send here, and whom each of them is for.

    SwitchSync ──told (of a master), overheard (of a standby)──> PacketIns ──by purpose──> its taker

A packet-in says which table sent it; together with what the packet is, that says why it was sent. Owns that decision,
and nothing else: what becomes of a packet is its taker's business. What a standby hears its master is told of as well,
and that one acts on it; only what all replicas must know is taken. Switches limit the rate of them all together
(`node.ovsdb`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from struct import unpack_from

from flows import fields as f
from flows.cookies import is_tap
from flows.openflow.messages import PacketIn
from flows.pipeline import CLASSIFY
from flows.tables.policy import direction_of
from topology.lldp import ETH_LLDP

#: The node whose switch it comes from, the packet, and when it came.
Take = Callable[[str, PacketIn, float], None]
_ETHERTYPE_AT = 12


class Purpose(Enum):
    """Why a flow sends packets here."""

    #: A connection that a policy denies, or allows, and is to be logged.
    CONNECTION = "connection"
    #: A workload asks for its addresses.
    DHCP = "dhcp"
    #: Somebody looks at packets (`flows.taps`), in whichever table.
    TAP = "tap"
    #: A neighbour says who it is (IEEE 802.1AB).
    LLDP = "lldp"


_BY_ETHERTYPE = {f.ETH_IPV4: Purpose.DHCP, ETH_LLDP: Purpose.LLDP}
#: What a standby must know as its master does.
_OF_ALL = frozenset({Purpose.LLDP})


def purpose(packet: PacketIn) -> Purpose | None:
    """Why a packet was sent here; None where no flow of ours would have."""
    if is_tap(packet.cookie):
        return Purpose.TAP
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

    def told(self, node: str, packet: PacketIn, now: float) -> None:
        """A packet that a switch sends to its master."""
        self._hand_on(purpose(packet), node, packet, now)

    def overheard(self, node: str, packet: PacketIn, now: float) -> None:
        """A packet that a switch sends to its master, and to this controller too."""
        found = purpose(packet)
        if found in _OF_ALL:
            self._hand_on(found, node, packet, now)

    def _hand_on(self, found: Purpose | None, node: str, packet: PacketIn, now: float) -> None:
        taker = self._takers.get(found) if found is not None else None
        if taker is not None:
            taker(node, packet, now)
