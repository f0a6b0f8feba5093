"""The fabric among the compiler's contributions: the ways over wires, as flows and groups of each switch.

    Wiring (wires that count) ──> links ──> Paths ──> exits of each node: a port, or a group of them ──> flows

A switch has a flow for each node that frames may be bound for, and none for pods. Flows that leave by the same ports
share a group, whose id is a hash of what it does. Nothing compiled is kept but how often each group is used; what a
change means is found by making the ways that it may touch, before and after.

Whether a node is wired decides on routes to it, which are the cluster's (`flows.compiler`). So that these can be made
before and after as well, it changes by `flip` alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TypeVar

import msgspec

from flows.cookies import Kind, Scope, cookie
from flows.state import Port
from flows.tables import fabric
from flows.update import Update
from flows.values import Flow, Group
from flows.wiring import Wiring
from topology.graph import Wire
from topology.model import Change, Cluster
from topology.naming import fabric_mac, object_id
from topology.paths import Edge, Mask, Paths

#: Ids of groups: above those of Services (`flows.numbers`), below OpenFlow's own.
_GROUPS, _GROUP_COUNT = 0xC000_0000, 0x3FFF_0000
#: Ports that one group spreads connections over at most. Open vSwitch has 256 values of its hash to give to buckets;
#: with more buckets than that it would look at every connection by itself.
_WIDEST = 64
#: Vertices without an edge that paths may keep; with more, they are made anew.
_IDLE_LIMIT = 100
_ALL: Mask = -1
Item = TypeVar("Item", Flow, Group)

_cookie_of = lru_cache(maxsize=1 << 14)(lambda name: cookie(Scope.NODE, Kind.NODE, object_id("Node", "", name)))
_mac_of = lru_cache(maxsize=1 << 14)(fabric_mac)


class FabricChange(msgspec.Struct, frozen=True):
    """What a change of wires, ports or nodes means: to nodes' own scopes, to the graph, and for routes to nodes."""

    updates: tuple[Update, ...] = ()
    #: Links that have come, with their cost, and those that are gone.
    links: tuple[tuple[Edge, int | None], ...] = ()
    #: Who is wired now and wasn't, or the other way round.
    flipped: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether it means anything."""
        return bool(self.updates or self.links or self.flipped)


class _Exit(msgspec.Struct, frozen=True, order=True):
    """By which ports frames leave: spread over all of them, or by the first that has a link."""

    ports: tuple[int, ...]
    spread: bool = True


#: What gives a node's exits their groups' ids.
_Number = Callable[[_Exit], int]


class _View(msgspec.Struct, frozen=True):
    """All that ways follow from: who reaches whom, by which ports; whom frames may be bound for, who listens where."""

    paths: Paths
    #: Node -> neighbour -> ports, sorted.
    out: Mapping[str, Mapping[str, tuple[int, ...]]]
    targets: frozenset[str]
    #: The targets as the paths have them.
    bound: Mask
    #: Node -> the ports at which wires end, and whether it is only in transit.
    entries: Mapping[str, tuple[frozenset[int], bool]]

    def exits(self, node: str, targets: Mask = _ALL) -> dict[str, _Exit]:
        """By which ports a node sends what is bound for each of the targets."""
        out = self.out.get(node)
        targets &= self.bound
        found: dict[str, _Exit] = {}
        if out and targets:
            for way in self.paths.ways(node, targets):
                ports = [port for hop in way.hops for port in out[hop]]
                if len(ports) == 1 and way.alternate:
                    each = _Exit((*ports, *out[way.alternate][:1]), spread=False)
                else:
                    each = _Exit(_some(node, ports))
                for name in self.paths.names(way.targets):
                    found[name] = each
        return found

    def entry_flows(self, node: str) -> list[Flow]:
        """What a node lets in by wires."""
        ports, transit = self.entries.get(node, (frozenset(), False))
        return [
            flow
            for port in sorted(ports)
            for flow in fabric.entry_flows(port, _mac_of(node), _cookie_of(node), transit_only=transit)
        ]


class FabricParts:
    """The wires of a cluster as contributions."""

    def __init__(self, cluster: Cluster, ports: Mapping[str, Mapping[str, Port]]) -> None:
        """`ports`: of each node, by name. Both are looked up in when something has changed."""
        self._cluster = cluster
        self._wiring = Wiring(cluster, ports)
        self._wired: set[str] = set()
        self._costs: dict[Edge, int] = {}
        self._view = _View(Paths(), {}, frozenset(), 0, {})
        #: Node -> exits by several ports -> how many targets are behind them.
        self._uses: dict[str, dict[_Exit, int]] = {}
        #: The hashes of these exits; and, of nodes where some meet, what numbers their groups.
        self._taken: dict[str, set[int]] = {}
        self._numbers: dict[str, _Number] = {}

    # What people and routes ask ---------------------------------------------------------------------------------

    def mac(self, node: str) -> int | None:
        """What frames are addressed to that are bound for a node; None where it has no wire."""
        return _mac_of(node) if node in self._wired else None

    def used(self) -> Iterator[Wire]:
        """The wires in use."""
        return self._wiring.used()

    def unused(self) -> Iterator[tuple[Wire, str]]:
        """Wires that carry nothing, and why."""
        return self._wiring.unused()

    @property
    def paths(self) -> Paths:
        """The ways over wires that are used."""
        return self._view.paths

    # Contributions ----------------------------------------------------------------------------------------------

    def flows(self, node: str) -> Iterator[Flow]:
        """Every flow of the fabric that a node's switch has."""
        yield from self._view.entry_flows(node)
        number = self._numbers.get(node, _first)
        for target, exit_by in sorted(self._view.exits(node).items()):
            yield _way_flow(target, exit_by, number)

    def groups(self, node: str) -> Iterator[Group]:
        """Every group of the fabric that a node's switch has."""
        number = self._numbers.get(node, _first)
        return (_group(node, number(each), each) for each in sorted(self._uses.get(node, ())))

    # What changes -----------------------------------------------------------------------------------------------

    def set_wires(self, wires: Iterable[Wire]) -> FabricChange:
        """The wires that there are now, all of them."""
        return self._follow(*self._wiring.set_wires(wires))

    def objects_changed(self, changes: Iterable[Change]) -> FabricChange:
        """Objects of the cluster have come, changed or gone."""
        return self._follow(*self._wiring.objects_changed(changes))

    def ports_changed(self, node: str, names: Iterable[str]) -> FabricChange:
        """Ports of a node have come, gone, or become others."""
        return self._follow(*self._wiring.ports_changed(node, names))

    def flip(self, names: Iterable[str]) -> None:
        """From now on these nodes are wired, if they weren't, or not, if they were."""
        self._wired.symmetric_difference_update(names)

    def _follow(self, names: set[str], pairs: set[Edge]) -> FabricChange:
        """`names` and `pairs` are to be looked at again."""
        if not names:
            return FabricChange()
        old = self._view
        out, touched, edges = self._outs(pairs)
        targets = frozenset(name for name in names if self._is_target(name)) | (old.targets - names)
        entries = dict(old.entries)
        for name in names:
            entries[name] = (self._wiring.entries(name), self._is_transit(name))
            if not entries[name][0]:
                del entries[name]
        paths, affected = self._new_paths(edges)
        for name in touched:
            affected[name] = _ALL
        # Who is no longer a target, or is one now, concerns everybody.
        others = targets ^ old.targets
        if others:
            mask = paths.mask(others)
            for name in out.keys() | old.out.keys():
                affected[name] = affected.get(name, 0) | mask
        self._view = _View(paths, out, targets, paths.mask(targets), entries)
        concerned = affected.keys() | {name for name in names if old.entries.get(name) != entries.get(name)}
        updates = [self._difference(name, affected.get(name, 0), old) for name in sorted(concerned)]
        flipped = sorted(name for name in names if self._wiring.is_wired(name) != (name in self._wired))
        return FabricChange(tuple(filter(None, updates)), tuple(sorted(edges.items())), tuple(flipped))

    def _is_transit(self, name: str) -> bool:
        node = self._cluster.nodes.get(name)
        return node is not None and node.is_transit

    def _is_target(self, name: str) -> bool:
        return self._wiring.is_wired(name) and not self._is_transit(name)

    def _outs(
        self, pairs: Iterable[Edge]
    ) -> tuple[dict[str, Mapping[str, tuple[int, ...]]], set[str], dict[Edge, int | None]]:
        """The ports to neighbours with what has changed between these pairs, for whom that is so, and new costs."""
        out = dict(self._view.out)
        touched: dict[str, dict[str, tuple[int, ...]]] = {}
        edges: dict[Edge, int | None] = {}
        for pair in sorted(pairs):
            bundle = self._wiring.bundle(pair)
            cost = bundle.cost if bundle is not None else None
            if cost != self._costs.get(pair):
                edges[pair] = cost
            for side, (name, neighbour) in enumerate((pair, pair[::-1])):
                ports = bundle.ports[side] if bundle is not None else ()
                if ports != out.get(name, {}).get(neighbour, ()):
                    if name not in touched:
                        out[name] = touched[name] = dict(out.get(name, {}))
                    touched[name][neighbour] = ports
                    if not ports:
                        del touched[name][neighbour]
        for name, ports_to in touched.items():
            if not ports_to:
                del out[name]
        return out, set(touched), edges

    def _new_paths(self, edges: Mapping[Edge, int | None]) -> tuple[Paths, dict[str, Mask]]:
        for pair, cost in edges.items():
            if cost is None:
                del self._costs[pair]
            else:
                self._costs[pair] = cost
        if not edges:
            return self._view.paths, {}
        paths, affected = self._view.paths.changed(edges)
        if paths.idle > max(_IDLE_LIMIT, paths.size // 2):
            paths, _ = Paths().changed(self._costs)
            # Sets of the one mean nothing to the other.
            affected = dict.fromkeys(affected.keys() | self._view.out.keys(), _ALL)
        return paths, affected

    def _difference(self, node: str, targets: Mask, old_view: _View) -> Update | None:
        """What is other for a node than it was, as far as it is about these targets."""
        old, new = old_view.exits(node, targets), self._view.exits(node, targets)
        differ = [target for target in sorted(old.keys() | new.keys()) if old.get(target) != new.get(target)]
        entries = old_view.entries.get(node), self._view.entries.get(node)
        if not differ and entries[0] == entries[1]:
            return None
        old_uses = self._uses.get(node, {})
        new_uses = _uses_after(
            old_uses,
            (old[target] for target in differ if target in old),
            (new[target] for target in differ if target in new),
        )
        gone, come = old_uses.keys() - new_uses.keys(), new_uses.keys() - old_uses.keys()
        before = self._numbers.get(node, _first)
        after = self._renumber(node, new_uses, gone, come)
        if (gone or come) and not before == after == _first:
            # Some have one hash: others than those that have come and gone may have other numbers now.
            old, new = old_view.exits(node), self._view.exits(node)
            differ = sorted(old.keys() | new.keys())
            gone, come = set(old_uses), set(new_uses)
        removed = [_way_flow(target, old[target], before) for target in differ if target in old]
        added = [_way_flow(target, new[target], after) for target in differ if target in new]
        if entries[0] != entries[1]:
            removed += old_view.entry_flows(node)
            added += self._view.entry_flows(node)
        old_groups = [_group(node, before(each), each) for each in sorted(gone)]
        new_groups = [_group(node, after(each), each) for each in sorted(come)]
        flows = _apart(removed, added, lambda flow: flow.key)
        groups = _apart(old_groups, new_groups, lambda group: group.group_id)
        return Update(node, *flows, *groups)

    def _renumber(self, node: str, uses: dict[_Exit, int], gone: set[_Exit], come: set[_Exit]) -> _Number:
        """What numbers a node's groups now that it uses these exits."""
        taken = self._taken.setdefault(node, set())
        taken -= set(map(_first, gone))
        taken |= set(map(_first, come))
        self._uses[node] = uses
        if node in self._numbers or len(taken) != len(uses):
            self._numbers[node] = _numbering(uses)
            self._taken[node] = set(map(_first, uses))
            if self._numbers[node] == _first:
                del self._numbers[node]
        if not uses:
            del self._uses[node], self._taken[node]
        return self._numbers.get(node, _first)


def _apart(
    removed: list[Item], added: list[Item], name: Callable[[Item], object]
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Without what is in both."""
    if not removed or not added:
        return tuple(removed), tuple(added)
    old, new = {name(each): each for each in removed}, {name(each): each for each in added}
    return (
        tuple(each for key, each in old.items() if new.get(key) != each),
        tuple(each for key, each in new.items() if old.get(key) != each),
    )


def _uses_after(uses: Mapping[_Exit, int], gone: Iterable[_Exit], come: Iterable[_Exit]) -> dict[_Exit, int]:
    """How often exits by groups are used, with these instead of those."""
    counted = dict(uses)
    for exits, step in ((come, 1), (gone, -1)):
        for each in exits:
            if len(each.ports) > 1:
                counted[each] = counted.get(each, 0) + step
                if not counted[each]:
                    del counted[each]
    return counted


def _numbering(uses: Mapping[_Exit, int]) -> _Number:
    """The ids of a node's groups: a hash of each; of those whose hashes meet, the first in order has it."""
    if len({_first(each) for each in uses}) == len(uses):
        return _first
    numbers: dict[int, _Exit] = {}
    for each in sorted(uses):
        salt = 0
        while _hashed(each, salt) in numbers:
            salt += 1
        numbers[_hashed(each, salt)] = each
    return {each: number for number, each in numbers.items()}.__getitem__


def _some(node: str, ports: list[int]) -> tuple[int, ...]:
    """As many ports as a group may have: other nodes take others, and one that comes or goes moves no more than one."""
    if len(ports) > _WIDEST:
        ports = sorted(ports, key=lambda port: _rank(node, port))[:_WIDEST]
    return tuple(sorted(ports))


@lru_cache(maxsize=1 << 17)
def _rank(node: str, port: int) -> bytes:
    return hashlib.blake2b(f"{node} {port}".encode(), digest_size=8).digest()


def _hashed(each: _Exit, salt: int) -> int:
    text = f"{salt} {each.spread} {each.ports}"
    return _GROUPS + int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % _GROUP_COUNT


@lru_cache(maxsize=1 << 16)
def _first(each: _Exit) -> int:
    return _hashed(each, 0)


def _way_flow(target: str, each: _Exit, number: _Number) -> Flow:
    program = fabric.by_port(each.ports[0]) if len(each.ports) == 1 else fabric.by_group(number(each))
    return fabric.way_flow(_mac_of(target), program, _cookie_of(target))


def _group(node: str, number: int, each: _Exit) -> Group:
    if each.spread:
        return fabric.spread(number, each.ports, _mac_of(node) & 0xFFFF_FFFF)
    return fabric.fallback(number, each.ports)
