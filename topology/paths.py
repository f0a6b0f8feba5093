"""Shortest paths between all vertices of a graph, as next hops, and what a change of its edges changes of them.

A set of destinations is one big integer, a bit for each vertex: all that have the same distance, or the same next hop,
are dealt with in one operation. For each vertex there are `levels` (distance -> the destinations exactly that far) and
`hops` (neighbour -> the destinations that it is a next hop to). They follow from those of the neighbours, distance by
distance: a neighbour `u` over an edge of cost `w` is a next hop of `v` to what is new at distance k at `v` and was at
k - w at `u`.

`Paths` is a value: `changed` makes another one, which shares all that hasn't changed, and says where to look. Nothing
depends on the order in which edges came: ties are broken by names. Pure; must not know of ports or flows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush

import msgspec

#: An edge: its two vertices, the smaller one first.
Edge = tuple[str, str]
#: A set of vertices: a bit for each (`Paths.names`).
Mask = int
#: What may arrive at a vertex: by distance and vertex, from which neighbour, and which destinations.
_Pending = dict[int, dict[int, list[tuple[int, Mask]]]]


class Way(msgspec.Struct, frozen=True):
    """How a vertex reaches some targets: by any of the `hops`, sorted, or by the `alternate` if the only one fails.

    An alternate is loop-free (RFC 5286, inequality 1): no shortest path from there comes back here. Empty if none is.
    """

    hops: tuple[str, ...]
    alternate: str
    targets: Mask


class Paths:
    """All shortest paths of one graph. Costs are whole numbers from 1 up, the same in both directions."""

    def __init__(self) -> None:
        """Of the empty graph."""
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._costs: list[dict[int, int]] = []
        self._levels: list[dict[int, Mask]] = []
        self._hops: list[dict[int, Mask]] = []
        #: Neighbours in the order of names, and in the order in which an alternate is looked for.
        self._by_name: list[tuple[int, ...]] = []
        self._by_cost: list[tuple[int, ...]] = []

    # What there is ----------------------------------------------------------------------------------------------

    def mask(self, vertices: Iterable[str]) -> Mask:
        """The set of these vertices; unknown ones are left out."""
        found = 0
        for name in vertices:
            number = self._numbers.get(name)
            if number is not None:
                found |= 1 << number
        return found

    def names(self, mask: Mask) -> Iterator[str]:
        """The vertices of a set."""
        while mask:
            low = mask & -mask
            mask ^= low
            yield self._names[low.bit_length() - 1]

    def distance(self, source: str, target: str) -> int | None:
        """The cost of a shortest path; None where there is no path."""
        ends = self._numbers.get(source), self._numbers.get(target)
        if ends[0] is None or ends[1] is None:
            return 0 if source == target else None
        return next((k for k, mask in self._levels[ends[0]].items() if mask >> ends[1] & 1), None)

    def next_hops(self, source: str, target: str) -> tuple[str, ...]:
        """The neighbours of a vertex that are first on a shortest path, sorted; none where there is no path."""
        number = self._numbers.get(source)
        wanted = self.mask((target,))
        if number is None:
            return ()
        return tuple(self._names[u] for u in self._by_name[number] if self._hops[number].get(u, 0) & wanted)

    def ways(self, source: str, targets: Mask = -1) -> Iterator[Way]:
        """How a vertex reaches those of the targets that it reaches: each of them is in one way."""
        number = self._numbers.get(source)
        if number is None:
            return
        hops = self._hops[number]
        once = several = 0
        for mask in hops.values():
            several |= once & mask
            once |= mask
        yield from self._single_ways(number, once & ~several & targets)
        several &= targets
        if not several:
            return
        classes: list[tuple[Mask, tuple[int, ...]]] = [(several, ())]
        for u in self._by_name[number]:
            mask = hops.get(u, 0) & several
            if mask:
                split = [(found & ~mask, before) for found, before in classes if found & ~mask]
                classes = split + [(found & mask, (*before, u)) for found, before in classes if found & mask]
        for found, by in classes:
            yield Way(tuple(self._names[u] for u in by), "", found)

    def _single_ways(self, number: int, targets: Mask) -> Iterator[Way]:
        if not targets:
            return
        hops = self._hops[number]
        alternates = list(self._alternates(number, targets))
        for u in self._by_name[number]:
            rest = hops.get(u, 0) & targets
            for other, mask in alternates:
                if rest & mask:
                    yield Way((self._names[u],), self._names[other], rest & mask)
                    rest &= ~mask
            if rest:
                yield Way((self._names[u],), "", rest)

    def _alternates(self, number: int, targets: Mask) -> Iterator[tuple[int, Mask]]:
        """The alternates of targets: of each the first neighbour, by cost and name, from which no path comes back."""
        levels = self._levels[number]
        steps = [(k, levels[k] & targets) for k in sorted(levels) if levels[k] & targets]
        for n in self._by_cost[number]:
            here = 1 << number
            back = next(k for k, mask in self._levels[n].items() if mask & here)
            theirs = sorted(self._levels[n].items(), reverse=True)
            within = found = 0
            for k, mask in steps:
                # dist(n, target) < dist(n, here) + dist(here, target)
                while theirs and theirs[-1][0] < back + k:
                    within |= theirs.pop()[1]
                found |= mask & within
            found &= targets & ~self._hops[number].get(n, 0)
            if found:
                yield n, found
                targets &= ~found
                steps = [(k, mask & targets) for k, mask in steps if mask & targets]
            if not targets:
                return

    @property
    def size(self) -> int:
        """How many vertices are known."""
        return len(self._names)

    @property
    def idle(self) -> int:
        """How many of them have no edge."""
        return sum(not costs for costs in self._costs)

    # What changes -----------------------------------------------------------------------------------------------

    def changed(self, edges: Mapping[Edge, int | None]) -> tuple[Paths, dict[str, Mask]]:
        """With other costs of edges, None for one that is gone; and, for each vertex, targets whose ways may be others.

        The masks are those of the new value. A vertex that isn't named has the same ways as before.
        """
        new = Paths()
        new._names, new._numbers = self._names, self._numbers
        known = {name for edge in edges for name in edge}
        if not known <= self._numbers.keys():
            new._names = [*self._names, *sorted(known - self._numbers.keys())]
            new._numbers = {name: number for number, name in enumerate(new._names)}
        size = len(new._names)
        grown = range(len(self._names), size)
        new._costs = [*self._costs, *({} for _ in grown)]
        new._levels = [*self._levels, *({0: 1 << number} for number in grown)]
        new._hops = [*self._hops, *({} for _ in grown)]
        new._by_name = [*self._by_name, *(() for _ in grown)]
        new._by_cost = [*self._by_cost, *(() for _ in grown)]
        change = _Change(new)
        for (a, b), cost in edges.items():
            change.set_cost(new._numbers[a], new._numbers[b], cost)
        change.carry_out()
        return new, {new._names[v]: mask for v, mask in sorted(change.affected().items())}


class _Change:
    """One change of a `Paths` in the making: first what gets farther, then what gets nearer."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._costs, self._levels, self._hops = paths._costs, paths._levels, paths._hops
        #: Directed edges that are gone or cost more now, and those that are new or cost less, with their cost.
        self._worse: list[tuple[int, int]] = []
        self._better: list[tuple[int, int, int]] = []
        self._touched: set[int] = set()
        #: Vertex -> targets to which its distance, or its next hops, are others.
        self._moved: dict[int, Mask] = {}
        self._rerouted: dict[int, Mask] = {}

    def set_cost(self, a: int, b: int, cost: int | None) -> None:
        for v, u in ((a, b), (b, a)):
            if v not in self._touched:
                self._touched.add(v)
                self._costs[v] = dict(self._costs[v])
            old = self._costs[v].pop(u, None)
            if cost is not None:
                self._costs[v][u] = cost
            if old is not None and (cost is None or cost > old):
                self._worse.append((v, u))
            if cost is not None and (old is None or cost < old):
                self._better.append((v, u, cost))

    def carry_out(self) -> None:
        names = self._paths._names
        for v in self._touched:
            by_name = sorted(self._costs[v], key=names.__getitem__)
            self._paths._by_name[v] = tuple(by_name)
            self._paths._by_cost[v] = tuple(sorted(by_name, key=self._costs[v].__getitem__))
        lost = self._lose()
        if lost:
            self._settle(self._seeds(lost))
        if self._better:
            pending: _Pending = {}
            for v, u, cost in self._better:
                for k, mask in self._levels[u].items():
                    pending.setdefault(k + cost, {}).setdefault(v, []).append((u, mask))
            self._settle(pending)

    def affected(self) -> dict[int, Mask]:
        """Vertex -> targets whose ways may be others: alternates also depend on how far it is from the neighbours."""
        found = dict(self._rerouted)
        for v in self._touched:
            found[v] = -1
        for n, mask in self._moved.items():
            found[n] = found.get(n, 0) | mask
            for v in self._costs[n]:
                # Where the neighbour's way back here is another, all may have other alternates.
                found[v] = -1 if mask >> v & 1 else found.get(v, 0) | mask
        return {v: mask for v, mask in found.items() if mask}

    def _own(self, v: int) -> dict[int, Mask]:
        """A vertex' hops, to be written to."""
        if v not in self._rerouted:
            self._rerouted[v] = 0
            self._hops[v] = dict(self._hops[v])
        return self._hops[v]

    def _lose(self) -> dict[int, Mask]:
        """Take away next hops that no longer are any, against the stream; returns to what each vertex has none left."""
        lost: dict[int, Mask] = {}
        waiting = [(v, u, self._hops[v].get(u, 0)) for v, u in self._worse]
        while waiting:
            v, u, mask = waiting.pop()
            mask &= self._hops[v].get(u, 0)
            if not mask:
                continue
            hops = self._own(v)
            self._rerouted[v] |= mask
            hops[u] &= ~mask
            if not hops[u]:
                del hops[u]
            for other in hops.values():
                mask &= ~other
            if mask:
                lost[v] = lost.get(v, 0) | mask
                waiting += [(n, v, mask) for n in self._costs[v]]
        for v, mask in lost.items():
            self._levels[v] = {k: kept for k, old in self._levels[v].items() if (kept := old & ~mask)}
            self._moved[v] = self._moved.get(v, 0) | mask
        return lost

    def _seeds(self, lost: Mapping[int, Mask]) -> _Pending:
        """What neighbours offer for what was lost, as far as they have it themselves."""
        better = {(v, u) for v, u, _ in self._better}
        pending: _Pending = {}
        for v, mask in lost.items():
            for u, cost in self._costs[v].items():
                if (v, u) not in better:
                    for k, level in self._levels[u].items():
                        if level & mask:
                            pending.setdefault(k + cost, {}).setdefault(v, []).append((u, level & mask))
        return pending

    def _settle(self, pending: _Pending) -> None:
        """Distance by distance, take what is nearer than what there is, or as near, and pass on what is nearer."""
        levels = self._levels
        #: Of each vertex: what has been taken, at which distance, and by whom.
        taken: dict[int, Mask] = {}
        taken_at: dict[int, dict[int, Mask]] = {}
        taken_by: dict[int, dict[int, Mask]] = {}
        #: Of each vertex: what is nearer than the distance at hand, and the levels that are yet to be counted in.
        nearer: dict[int, Mask] = {}
        ahead: dict[int, list[tuple[int, Mask]]] = {}
        distances = list(pending)
        distances.sort()
        while distances:
            k = heappop(distances)
            for v, offers in pending.pop(k).items():
                if v not in nearer:
                    nearer[v], taken[v], taken_at[v], taken_by[v] = 0, 0, {}, {}
                    ahead[v] = sorted(levels[v].items(), reverse=True)
                rest = ahead[v]
                while rest and rest[-1][0] < k:
                    nearer[v] |= rest.pop()[1]
                known = nearer[v] | taken[v]
                equal = rest[-1][1] & ~known if rest and rest[-1][0] == k else 0
                new = 0
                for u, mask in offers:
                    mask &= ~known
                    if mask:
                        taken_by[v][u] = taken_by[v].get(u, 0) | mask
                        new |= mask
                new &= ~equal
                if not new:
                    continue
                taken[v] |= new
                taken_at[v][k] = new
                for n, cost in self._costs[v].items():
                    if k + cost not in pending:
                        heappush(distances, k + cost)
                        pending[k + cost] = {}
                    pending[k + cost].setdefault(n, []).append((v, new))
        for v, by in taken_by.items():
            gone = taken[v]
            if not by:
                continue
            if gone:
                levels[v] = {j: kept for j, old in levels[v].items() if (kept := old & ~gone)}
                for k, new in taken_at[v].items():
                    levels[v][k] = levels[v].get(k, 0) | new
                self._moved[v] = self._moved.get(v, 0) | gone
            mine = self._own(v)
            if gone:
                for u in [u for u, mask in mine.items() if mask & gone]:
                    mine[u] &= ~gone
                    if not mine[u]:
                        del mine[u]
            for u, mask in by.items():
                mine[u] = mine.get(u, 0) | mask
                self._rerouted[v] |= mask
