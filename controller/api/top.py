"""Who carries most now: nodes, Services and policies by rate."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING

from aiohttp import web

from controller.api.route import ITEMS, Route, answer, arguments, number
from controller.statistics import Row

if TYPE_CHECKING:
    from controller.app import Controller

#: What rows are sorted by, the greatest first.
_ORDER = {
    "nodes": ("rxBytesPerSecond", "txBytesPerSecond"),
    "services": ("bytesPerSecond", "connectionsPerSecond"),
    "policies": ("deniedPerSecond", "allowedPerSecond"),
}


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""
    statistics = controller.statistics
    ask = {"nodes": statistics.nodes, "services": statistics.services, "policies": statistics.policies}

    async def top(request: web.Request) -> web.Response:
        kind = request.path.rpartition("/")[2]
        await statistics.measure(policies=kind == "policies")
        rows = _sorted(kind, ask[kind]())
        return answer({"items": rows[: arguments(request).get("limit")]})

    about = {
        "nodes": "What the ports of each node's bridge carry now, the busiest first; null of a switch that is away.",
        "services": "What each Service carries now, the busiest first.",
        "policies": "The packets that each policy drops and lets through now, who drops most first.",
    }
    limit = number("limit", "How many rows at most; all if nothing is said.", 0, 1_000_000)
    return [
        Route(path=f"/v1/top/{kind}", about=text, handler=top, parameters=(limit,), answer=ITEMS)
        for kind, text in about.items()
    ]


def _sorted(kind: str, rows: Iterable[Row]) -> list[Row]:
    """What isn't known of comes last."""
    return sorted(rows, key=lambda row: [-row[each] if row[each] is not None else inf for each in _ORDER[kind]])
