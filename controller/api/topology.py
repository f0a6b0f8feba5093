"""How nodes are connected, and the way from one to another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from controller import topology_views
from controller.api.route import ApiError, Parameter, Route, answer, arguments, choice, flag
from topology import render
from topology.svg import svg

if TYPE_CHECKING:
    from controller.app import Controller

_DRAWINGS = {"text": render.text, "dot": render.dot, "svg": svg, "graphml": render.graphml}


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""
    compiler, fleet = controller.compiler, controller.fleet

    async def topology(request: web.Request) -> web.Response:
        asked = arguments(request)
        form = asked.get("format", "json")
        loads = await controller.measure_ports() if asked.get("load") else None
        if form != "json":
            drawing = topology_views.drawing(compiler, fleet, controller.links, loads)
            # A large one takes a second or so, for which switches needn't wait.
            return answer({"text": await asyncio.to_thread(_DRAWINGS[form], drawing)})
        return answer(
            {
                "nodes": list(topology_views.nodes(compiler, fleet)),
                "networks": list(topology_views.networks(compiler)),
                "links": list(topology_views.links(compiler, fleet, controller.links, loads)),
            }
        )

    async def path(request: web.Request) -> web.Response:
        asked = arguments(request)
        try:
            return answer(topology_views.path(compiler, asked["from"], asked["to"]))
        except topology_views.NoWayError as error:
            raise ApiError(404, str(error)) from error

    return [
        Route(
            path="/v1/topology",
            about="How nodes are connected.",
            handler=topology,
            parameters=(
                choice("format", "How it is told.", ("json", *_DRAWINGS)),
                flag("load", "Also how much each link carries."),
            ),
        ),
        Route(
            path="/v1/path",
            about="The way of packets from one to another, hop by hop.",
            handler=path,
            parameters=(
                Parameter("from", "[NAMESPACE/]POD or node/NAME.", required=True),
                Parameter("to", "[NAMESPACE/]POD or node/NAME.", required=True),
            ),
        ),
    ]
