"""Which wires between bridges count: as they are told, against the nodes and ports that there are.

Owns what is there once: a port that two wires claim goes to the first of them, and a node's address in the fabric to
the first by name of the nodes with that hash. What can't be used is kept aside, and `unused` says why; it is looked at
again when the nodes and ports change that it is about. All is a function of what there is: in which order it came
doesn't show. Must not know of paths or flows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from flows.state import Port
from topology.graph import Wire
from topology.model import Change, Cluster, Node, Pod
from topology.naming import GATEWAY_PORT, TUNNEL_PORT, fabric_mac, is_pod_port
from topology.paths import Edge

#: Costs are whole numbers from 1 to this.
COST_LIMIT = 0xFFFF

#: A wire's end: a node and the name of its port.
End = tuple[str, str]
Index = TypeVar("Index")
Entry = TypeVar("Entry")


class Bundle(msgspec.Struct, frozen=True):
    """The wires between two nodes that are used, the cheapest ones: their cost, and the numbers of their ports at each
    end, sorted."""

    cost: int
    ports: tuple[tuple[int, ...], tuple[int, ...]]


class _Standing(msgspec.Struct, frozen=True):
    """Why a wire isn't in use, empty if it is; and whether nothing is wrong with it but for its ports."""

    fault: str = ""
    sound: bool = False


_UNKNOWN = _Standing()


class Wiring:
    """The wires of a cluster. What changes returns the nodes, and pairs of nodes, to look at again."""

    def __init__(self, cluster: Cluster, ports: Mapping[str, Mapping[str, Port]]) -> None:
        """`ports`: of each node, by name. Both are looked up in when something has changed."""
        self._cluster = cluster
        self._ports = ports
        self._wires: dict[Wire, _Standing] = {}
        self._at: dict[End, set[Wire]] = {}
        self._of: dict[str, set[Wire]] = {}
        self._between: dict[Edge, set[Wire]] = {}
        #: The known nodes that wires end at, by their address in the fabric.
        self._by_mac: dict[int, set[str]] = {}
        #: How many sound wires end at a node: who has one is wired.
        self._sound: dict[str, int] = {}

    # What there is ----------------------------------------------------------------------------------------------

    def is_wired(self, node: str) -> bool:
        """Whether frames can be bound for a node: it has a wire, even if that has no link just now."""
        return node in self._sound

    def used(self) -> Iterator[Wire]:
        """The wires in use."""
        return (wire for wire, standing in sorted(self._wires.items()) if not standing.fault)

    def unused(self) -> Iterator[tuple[Wire, str]]:
        """Wires that carry nothing, and why."""
        return ((wire, standing.fault) for wire, standing in sorted(self._wires.items()) if standing.fault)

    def entries(self, node: str) -> frozenset[int]:
        """The ports of a node that wires end at, with a link or without."""
        there = self._ports.get(node, {})
        found = set()
        for wire in self._of.get(node, ()):
            if self._wires[wire].sound:
                port = there.get(wire.a_port if wire.a == node else wire.b_port)
                if port is not None:
                    found.add(port.number)
        return frozenset(found)

    def bundle(self, pair: Edge) -> Bundle | None:
        """What joins two nodes."""
        wires = [wire for wire in self._between.get(pair, ()) if not self._wires[wire].fault]
        if not wires:
            return None
        cost = min(wire.cost for wire in wires)
        used = [wire for wire in wires if wire.cost == cost]
        near = (self._ports[wire.a][wire.a_port].number for wire in used)
        far = (self._ports[wire.b][wire.b_port].number for wire in used)
        return Bundle(cost, (tuple(sorted(near)), tuple(sorted(far))))

    # What changes -----------------------------------------------------------------------------------------------

    def set_wires(self, wires: Iterable[Wire]) -> tuple[set[str], set[Edge]]:
        """The wires that there are now, all of them."""
        new = frozenset(wires)
        gone, come = self._wires.keys() - new, new - self._wires.keys()
        for wire in gone:
            self._stand(wire, _UNKNOWN)
            del self._wires[wire]
            _take_out(self._between, (wire.a, wire.b), wire)
            for end in _ends(wire):
                _take_out(self._at, end, wire)
                _take_out(self._of, end[0], wire)
        for wire in come:
            self._wires[wire] = _UNKNOWN
            self._between.setdefault((wire.a, wire.b), set()).add(wire)
            for end in _ends(wire):
                self._at.setdefault(end, set()).add(wire)
                self._of.setdefault(end[0], set()).add(wire)
        changed = gone | come
        concerned = {other for wire in changed for end in _ends(wire) for other in self._at.get(end, ())}
        concerned |= self._admit({end[0] for wire in changed for end in _ends(wire)})
        self._look_at(concerned)
        return _ends_of(concerned | changed)

    def objects_changed(self, changes: Iterable[Change]) -> tuple[set[str], set[Edge]]:
        """Objects of the cluster have come, changed or gone: nodes, and pods whose ports wires may end at."""
        names: set[str] = set()
        concerned: set[Wire] = set()
        for change in changes:
            for version in (change.old, change.new):
                match version:
                    case Node(name=name) if name in self._of:
                        names.add(name)
                    case Pod(node=name) if name in self._of:
                        concerned |= self._at.get((name, version.port_name), set())
        concerned |= self._admit(names)
        self._look_at(concerned)
        nodes, pairs = _ends_of(concerned)
        return nodes | names, pairs

    def ports_changed(self, node: str, names: Iterable[str]) -> tuple[set[str], set[Edge]]:
        """Ports of a node have come, gone, or become others."""
        concerned = {wire for name in names for wire in self._at.get((node, name), ())}
        self._look_at(concerned)
        return _ends_of(concerned)

    def _admit(self, names: Iterable[str]) -> set[Wire]:
        """Keep account of who has, or wants, which address; returns the wires for which that may have changed."""
        found: set[Wire] = set()
        for name in names:
            mac = fabric_mac(name)
            wants = name in self._of and name in self._cluster.nodes
            if wants != (name in self._by_mac.get(mac, ())):
                if wants:
                    self._by_mac.setdefault(mac, set()).add(name)
                else:
                    _take_out(self._by_mac, mac, name)
                for each in {name, *self._by_mac.get(mac, ())}:
                    found |= self._of.get(each, set())
        return found

    def _look_at(self, wires: Iterable[Wire]) -> None:
        for wire in wires:
            self._stand(wire, self._standing(wire))

    def _stand(self, wire: Wire, new: _Standing) -> None:
        old = self._wires[wire]
        self._wires[wire] = new
        if old.sound != new.sound:
            for name in (wire.a, wire.b):
                self._sound[name] = self._sound.get(name, 0) + (1 if new.sound else -1)
                if not self._sound[name]:
                    del self._sound[name]

    def _standing(self, wire: Wire) -> _Standing:
        fault = self._wrong(wire)
        if fault:
            return _Standing(fault)
        for name, port in _ends(wire):
            found = self._ports.get(name, {}).get(port)
            if found is None:
                return _Standing(f"node {name} has no port {port}", sound=True)
            if not found.up:
                return _Standing(f"port {port} of node {name} has no link", sound=True)
        return _Standing(sound=True)

    def _wrong(self, wire: Wire) -> str:
        """What no port that comes can mend."""
        for name in (wire.a, wire.b):
            if name not in self._cluster.nodes:
                return f"there is no node {name}"
            first = min(self._by_mac[fabric_mac(name)])
            if first != name:
                return f"node {name} has the same address in the fabric as node {first}: rename one of them"
        if wire.a == wire.b:
            return "both ends are on one node"
        if not 1 <= wire.cost <= COST_LIMIT:
            return f"its cost is {wire.cost}, not one of 1 to {COST_LIMIT}"
        for name, port in _ends(wire):
            if port in (GATEWAY_PORT, TUNNEL_PORT) or is_pod_port(port) or (name, port) in self._cluster.pod_by_port:
                return f"port {port} of node {name} is there for something else"
            first_wire = min(self._at[name, port])
            if first_wire != wire:
                here = (name, port)
                other = next((end for end in _ends(first_wire) if end != here), here)
                return f"port {port} of node {name} is wired to port {other[1]} of node {other[0]}"
        return ""


def _ends(wire: Wire) -> tuple[End, End]:
    return (wire.a, wire.a_port), (wire.b, wire.b_port)


def _ends_of(wires: Iterable[Wire]) -> tuple[set[str], set[Edge]]:
    pairs = {(wire.a, wire.b) for wire in wires}
    return {name for pair in pairs for name in pair}, pairs


def _take_out(index: dict[Index, set[Entry]], key: Index, entry: Entry) -> None:
    there = index.get(key)
    if there is not None:
        there.discard(entry)
        if not there:
            del index[key]
