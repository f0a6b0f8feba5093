"""What there is: lists of every kind of object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from controller import policy_views, topology_views, views
from controller.api.route import Parameter, Route

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
        sums = await controller.count_services() if request.query.get("counters") else None
        return web.json_response({"items": list(views.services(compiler, sums))})

    async def endpoints(request: web.Request) -> web.Response:
        sums = await controller.count_services() if request.query.get("counters") else None
        return web.json_response({"items": list(views.endpoints(compiler, sums))})

    async def identities(request: web.Request) -> web.Response:
        return web.json_response({"items": list(policy_views.identities(compiler))})

    async def policies(request: web.Request) -> web.Response:
        counts = await controller.count_policies() if request.query.get("counters") else None
        return web.json_response({"items": list(policy_views.policies(compiler, counts))})

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
