"""How nodes are connected, and the way from one to another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from controller import topology_views
from controller.api.route import ApiError, Parameter, Route
from topology import render
from topology.svg import svg

if TYPE_CHECKING:
    from controller.app import Controller


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""
    compiler, fleet = controller.compiler, controller.fleet

    async def topology(request: web.Request) -> web.Response:
        form = request.query.get("format", "json")
        drawings = {"text": render.text, "dot": render.dot, "svg": svg, "graphml": render.graphml}
        if form != "json" and form not in drawings:
            raise ApiError(400, f"no format {form!r}; the formats are json, text, dot, svg and graphml")
        loads = await controller.measure_ports() if request.query.get("load") else None
        if form != "json":
            drawing = topology_views.drawing(compiler, fleet, controller.links, loads)
            # A large one takes a second or so, for which switches needn't wait.
            return web.json_response({"text": await asyncio.to_thread(drawings[form], drawing)})
        return web.json_response(
            {
                "nodes": list(topology_views.nodes(compiler, fleet)),
                "networks": list(topology_views.networks(compiler)),
                "links": list(topology_views.links(compiler, fleet, controller.links, loads)),
            }
        )

    async def path(request: web.Request) -> web.Response:
        query = request.query
        for end in ("from", "to"):
            if end not in query:
                raise ApiError(400, f"say {end!r}: [NAMESPACE/]POD or node/NAME")
        try:
            return web.json_response(topology_views.path(compiler, query["from"], query["to"]))
        except topology_views.NoWayError as error:
            raise ApiError(404, str(error)) from error

    return [
        Route(
            path="/v1/topology",
            about="How nodes are connected.",
            handler=topology,
            parameters=(
                Parameter(
                    "format", "How it is told.", {"type": "string", "enum": ["json", "text", "dot", "svg", "graphml"]}
                ),
                Parameter("load", "1: also how much each link carries.", {"type": "string", "enum": ["1"]}),
            ),
        ),
        Route(
            path="/v1/path",
            about="The way of packets from one to another, hop by hop.",
            handler=path,
            parameters=(
                Parameter("from", "[NAMESPACE/]POD or node/NAME.", required=True),
                Parameter("to", "The same.", required=True),
            ),
        ),
    ]
