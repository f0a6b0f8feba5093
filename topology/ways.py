"""The way from one node to another over wires, port by port, for people: which the compiler's flows take. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

import msgspec

from topology.graph import Wire


class Hop(msgspec.Struct, frozen=True, order=True):
    """One step of a way: out by a port, in by the next node's."""

    node: str
    port: str
    to: str
    to_port: str
    cost: int


class Step(msgspec.Struct, frozen=True):
    """A hop, and those that are as good: connections are spread over all of them."""

    hop: Hop
    others: tuple[Hop, ...]


def way(wires: Iterable[Wire], source: str, target: str) -> tuple[Step, ...] | None:
    """A shortest way, of those that there are the first by name; None where there is none."""
    leaving: dict[str, list[Hop]] = {}
    for each in wires:
        leaving.setdefault(each.a, []).append(Hop(each.a, each.a_port, each.b, each.b_port, each.cost))
        leaving.setdefault(each.b, []).append(Hop(each.b, each.b_port, each.a, each.a_port, each.cost))
    costs = _costs(leaving, target)
    if source not in costs:
        return None
    steps, at = [], source
    while at != target:
        best = sorted(hop for hop in leaving[at] if costs.get(hop.to) == costs[at] - hop.cost)
        steps.append(Step(best[0], tuple(best[1:])))
        at = best[0].to
    return tuple(steps)


def _costs(leaving: dict[str, list[Hop]], target: str) -> dict[str, int]:
    """What it costs to get to the target, from everywhere that it is reached from."""
    costs: dict[str, int] = {}
    waiting = [(0, target)]
    while waiting:
        cost, node = heappop(waiting)
        if node not in costs:
            costs[node] = cost
            for hop in leaving.get(node, ()):
                if hop.to not in costs:
                    heappush(waiting, (cost + hop.cost, hop.to))
    return costs
