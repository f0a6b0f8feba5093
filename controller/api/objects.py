"""What there is: lists of every kind of object."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from controller import policy_views, topology_views, views
from controller.api.route import Parameter, Route
from controller.counting import Counted

if TYPE_CHECKING:
    from controller.app import Controller


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""
    compiler, fleet = controller.compiler, controller.fleet

    async def nodes(request: web.Request) -> web.Response:
        return web.json_response({"items": list(views.nodes(compiler, fleet, controller.replica))})

    async def pods(request: web.Request) -> web.Response:
        return web.json_response({"items": list(views.pods(compiler, fleet, controller.replica))})

    async def services(request: web.Request) -> web.Response:
        counted = await controller.counting.services() if request.query.get("counters") else None
        return _answer(views.services(compiler, counted.counts if counted else None), counted)

    async def endpoints(request: web.Request) -> web.Response:
        counted = await controller.counting.services() if request.query.get("counters") else None
        return _answer(views.endpoints(compiler, counted.counts if counted else None), counted)

    async def identities(request: web.Request) -> web.Response:
        return web.json_response({"items": list(policy_views.identities(compiler))})

    async def policies(request: web.Request) -> web.Response:
        counted = await controller.counting.policies() if request.query.get("counters") else None
        return _answer(policy_views.policies(compiler, counted.counts if counted else None), counted)

    async def links(request: web.Request) -> web.Response:
        return web.json_response({"items": list(topology_views.links(compiler, fleet, controller.links))})

    async def bgp(request: web.Request) -> web.Response:
        return web.json_response({"items": controller.bgp.rows() if controller.bgp is not None else []})

    async def routes_told(request: web.Request) -> web.Response:
        return web.json_response({"items": controller.bgp.routes() if controller.bgp is not None else []})

    return [
        Route(path="/v1/nodes", about="Every node, and how its switch is.", handler=nodes),
        Route(path="/v1/pods", about="Every pod and workload, and whether its flows are in its switch.", handler=pods),
        Route(
            path="/v1/services",
            about="Every Service.",
            handler=services,
            parameters=(
                Parameter(
                    "counters", "1: also what all switches together have counted.", {"type": "string", "enum": ["1"]}
                ),
            ),
        ),
        Route(
            path="/v1/endpoints",
            about="Every endpoint of every Service, for each of its ports.",
            handler=endpoints,
            parameters=(
                Parameter(
                    "counters", "1: also what all switches together have counted.", {"type": "string", "enum": ["1"]}
                ),
            ),
        ),
        Route(path="/v1/identities", about="Every identity, and whose it is.", handler=identities),
        Route(
            path="/v1/policies",
            about="Every policy, its rules and whom it selects.",
            handler=policies,
            parameters=(
                Parameter(
                    "counters", "1: also what all switches together have counted.", {"type": "string", "enum": ["1"]}
                ),
            ),
        ),
        Route(path="/v1/links", about="Every link between nodes and networks.", handler=links),
        Route(path="/v1/bgp", about="Every BGP peer.", handler=bgp),
        Route(path="/v1/routes", about="Every route that BGP peers are told.", handler=routes_told),
    ]


def _answer(rows: Iterable[dict[str, Any]], counted: Counted[Any] | None) -> web.Response:
    """Rows, and of which nodes' switches nothing is counted."""
    missing = {"missing": list(counted.missing)} if counted is not None else {}
    return web.json_response({"items": list(rows), **missing})
