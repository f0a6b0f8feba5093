"""Wires between switches: has their ports ask one another, and tells the compiler what is found.

    Fleet ──ports, packet-ins──> Links ──> Discovery ──frames──> packet-outs ──> Fleet
                                   └──────────wires, at their costs──────> Compiler ──updates──> Fleet

Every port is asked that is nobody's: no pod's, no workload's, not the host's, not the tunnel's. Nodes say what their
wires cost (annotation `signalbox.io/link-costs`); where the two ends say different, the higher cost counts. Time is an
argument.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from typing import Protocol

import msgspec

from flows.compiler import Compiler
from flows.fields import IN_PORT
from flows.openflow import encode
from flows.openflow.messages import PacketIn
from flows.state import Port
from flows.update import Update
from flows.values import PORT_CONTROLLER, Output
from topology.discovery import Discovery, Plug, Sender, State
from topology.graph import Wire
from topology.model import Key, Node, Object, Pod

#: Seconds from when it first speaks for a switch for which a controller may be in want of wires that there are.
SETTLED_AFTER = 10.0


#: A port sends the same again and again.
_packet_out = lru_cache(maxsize=1 << 17)(lambda frame, port: encode.packet_out(frame, (Output(port),), PORT_CONTROLLER))


class Switches(Protocol):
    """The switches, as links need them."""

    def take(self, updates: Iterable[Update], now: float) -> None:
        """Send changes to whom they concern."""

    def send(self, node: str, messages: list[bytes], now: float) -> None:
        """Send messages to a node's switch, if this controller is its master."""


class Links:
    """Every wire. `sender` says who speaks for a node's switch; `rewired` hears of them before and after a change."""

    def __init__(
        self,
        compiler: Compiler,
        switches: Switches,
        sender: Callable[[str], Sender],
        rewired: Callable[[Collection[Wire], Collection[Wire]], None] = lambda before, now: None,
    ) -> None:
        self.discovery = Discovery()
        self._compiler = compiler
        self._switches = switches
        self._sender = sender
        self._rewired = rewired
        self._version = 0
        #: What the compiler has been told.
        self._wires: list[Wire] = []
        #: When this controller first spoke for a switch, and first heard what another one had a switch's ports say.
        self._spoke: float | None = None
        self._followed: float | None = None
        self._unsettled, self._looked_again = False, float("-inf")
        #: The nodes with ports that are asked.
        self._asked: set[str] = set()
        #: Pods on ports that they name, and the nodes that they are on.
        self._workloads: dict[Key, str] = {}

    @property
    def interval(self) -> float:
        """Seconds between two frames of a port; 0 where no port is asked."""
        return self.discovery.interval

    # What changes -----------------------------------------------------------------------------------------------

    def set_ports(self, node: str, now: float) -> None:
        """A node's switch has other ports than before: the compiler knows them already."""
        self._looked_again = float("-inf")
        self._look_at_ports(node, now)
        self._follow(now)

    def objects_changed(self, changed: Iterable[Object], gone: Iterable[Key], now: float) -> None:
        """Objects that may have ports that were nobody's, or whose links have another cost now."""
        concerned, costs = set(), False
        for each in changed:
            if isinstance(each, Node):
                concerned.add(each.name)
                costs = True
            elif isinstance(each, Pod) and (each.port or each.key in self._workloads):
                concerned |= {each.node, self._workloads.pop(each.key, each.node)}
                if each.port:
                    self._workloads[each.key] = each.node
        for key in gone:
            if key[0] == "Node":
                concerned.add(key[2])
            elif key in self._workloads:
                concerned.add(self._workloads.pop(key))
        for node in sorted(concerned):
            self._look_at_ports(node, now)
        if concerned or costs:
            self._follow(now, anew=costs)

    def are_unsettled(self, connected: Collection[str], now: float) -> bool:
        """Whether this controller has just begun, and there may be wires that it has yet to find.

        Its switches hold what follows from those that it knew before it was started anew, and go on with that. Who has
        followed another controller for a while, and takes over from it, knows all wires.
        """
        # Every switch that waits asks this, again and again.
        if now >= self._looked_again:
            self._looked_again = now + 0.1
            self._take_senders(now)
            self._unsettled = self._is_beginning(now) and (
                not all(name in connected for name in self._compiler.cluster.nodes) or self.discovery.is_unanswered(now)
            )
        return self._unsettled

    def _is_beginning(self, now: float) -> bool:
        if self._spoke is None or not self.discovery.is_asking or now - self._spoke > SETTLED_AFTER:
            return False
        return self._followed is None or self._spoke - self._followed < SETTLED_AFTER

    def look(self, now: float) -> None:
        """What the clock demands: call it several times a second."""
        self._follow(now)

    def look_at_senders(self, now: float) -> None:
        """Who speaks for which switch may have changed."""
        self._take_senders(now)
        self._follow(now)

    def _take_senders(self, now: float) -> None:
        for node in self._asked:
            self._take_sender(node, now)

    def _take_sender(self, node: str, now: float) -> None:
        sender = self._sender(node)
        if sender is Sender.US and self._spoke is None:
            self._spoke = now
        self.discovery.set_sender(node, sender, now)

    def hear(self, node: str, packet: PacketIn, now: float) -> None:
        """A frame that a port has heard."""
        number = next((term.value for term in packet.match if term.field is IN_PORT), None)
        if number is not None and self.interval:
            if self._followed is None and self._sender(node) is not Sender.US:
                self._followed = now
            self.discovery.hear(node, number, packet.data, now)
            self._follow(now)

    def _look_at_ports(self, node: str, now: float) -> None:
        plugs = [Plug(port.name, port.number, port.mac) for port in self._open_ports(node) if port.up]
        if plugs or node in self._asked:
            if node not in self._compiler.cluster.nodes:
                self.discovery.remove(node)
                self._asked.discard(node)
                return
            self._asked.add(node)
            self._take_sender(node, now)
            self.discovery.set_ports(node, plugs, now)

    def _open_ports(self, node: str) -> Iterator[Port]:
        if self.interval:
            yield from self._compiler.open_ports(node)

    def _follow(self, now: float, *, anew: bool = False) -> None:
        """Send what is to be sent, and tell the compiler where something has changed."""
        messages: dict[str, list[bytes]] = {}
        for each in self.discovery.due(now) if self.interval else ():
            messages.setdefault(each.node, []).append(_packet_out(each.frame, each.port))
        for node, batch in messages.items():
            self._switches.send(node, batch, now)
        if anew or self.discovery.version != self._version:
            self._version = self.discovery.version
            wires = list(self.wires())
            if wires != self._wires:
                before, self._wires = self._wires, wires
                self._switches.take(self._compiler.set_links(wires), now)
                self._rewired(before, wires)

    # What people ask --------------------------------------------------------------------------------------------

    def wires(self) -> Iterator[Wire]:
        """Every wire at its cost, sorted."""
        nodes = self._compiler.cluster.nodes
        for each in self.discovery.wires():
            ends = ((each.a, each.a_port), (each.b, each.b_port))
            costs = [dict(nodes[name].link_costs).get(port, 1) for name, port in ends if name in nodes]
            yield msgspec.structs.replace(each, cost=max(costs, default=1))

    def state(self, found: Wire) -> State:
        """What is known of a wire."""
        return self.discovery.state(found)

    def troubles(self) -> Iterator[str]:
        """Ports that hear what no wire explains, and wires that can't be used."""
        yield from self.discovery.troubles()
        for each, reason in self._compiler.unused_wires():
            yield f"wire {each.a} port {each.a_port} to {each.b} port {each.b_port} isn't used: {reason}"
