"""What Prometheus asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from controller import metrics
from controller.api.route import Route

if TYPE_CHECKING:
    from controller.app import Controller


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""

    async def scrape(request: web.Request) -> web.Response:
        return await metrics.answer(controller)

    return [
        Route(
            path="/metrics",
            about="Every metric, in Prometheus' text format.",
            handler=scrape,
            answer={"type": "string"},
            media="text/plain",
        )
    ]
