"""Captured packets, as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from controller.api.route import ApiError, Route, body
from controller.capture_points import CaptureError, Request, check

if TYPE_CHECKING:
    from controller.app import Controller


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""

    async def capture(request: web.Request) -> web.StreamResponse:
        try:
            wanted = await body(request, Request)
            check(wanted)
            begun = controller.captures.begin(wanted)
        except CaptureError as error:
            raise ApiError(400, str(error)) from error

        def is_heard() -> bool:
            return request.transport is not None and not request.transport.is_closing()

        try:
            response = web.StreamResponse(headers={"Content-Type": "application/x-pcapng"})
            await response.prepare(request)
            async for piece in begun.pcapng(is_heard):
                await response.write(piece)
            await response.write_eof()
        finally:
            controller.captures.end(begun)
        return response

    return [
        Route(
            method="POST",
            path="/v1/captures",
            about="Packets of a pod, between two, or that policies drop, as pcapng while they come.",
            handler=capture,
            body=Request,
            answer={"type": "string", "format": "binary"},
            media="application/x-pcapng",
        ),
    ]
