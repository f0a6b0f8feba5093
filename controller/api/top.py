"""Who carries most now: nodes, Services and policies by rate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from controller.api.route import ApiError, Parameter, Route
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
        limit = request.query.get("limit", "")
        if limit and not (limit.isascii() and limit.isdigit() and len(limit) < 10):
            raise ApiError(400, f"limit is a number from 0 up, not {limit!r}")
        await statistics.measure(policies=kind == "policies")
        rows = _sorted(kind, ask[kind]())
        return web.json_response({"items": rows[: int(limit)] if limit else rows})

    about = {
        "nodes": "What the ports of each node's bridge carry now, the busiest node first.",
        "services": "What each Service carries now, the busiest first.",
        "policies": "The packets that each policy drops and lets through now, who drops most first.",
    }
    limit = Parameter("limit", "How many rows; all if nothing is said.", {"type": "integer", "minimum": 0})
    return [Route(path=f"/v1/top/{kind}", about=text, handler=top, parameters=(limit,)) for kind, text in about.items()]


def _sorted(kind: str, rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: [-row[column] for column in _ORDER[kind]])
