"""Hardware offload, node by node, as agents report it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from controller.api.route import ITEMS, Route, answer

if TYPE_CHECKING:
    from controller.app import Controller


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""

    async def offload(request: web.Request) -> web.Response:
        return answer({"items": list(controller.offloads.rows())})

    return [
        Route(
            path="/v1/offload",
            about="Every node: whether its NICs take flows, how many they have, and why not all of them.",
            handler=offload,
            answer=ITEMS,
        ),
    ]
