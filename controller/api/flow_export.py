"""Flow export: which nodes tell which collectors, and who is meant by the numbers in their records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from controller import export_names
from controller.api.route import ITEMS, Route, answer

if TYPE_CHECKING:
    from controller.app import Controller


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""
    compiler = controller.compiler

    async def exporters(request: web.Request) -> web.Response:
        return answer({"items": list(export_names.exporters(compiler))})

    async def names(request: web.Request) -> web.Response:
        return answer({"items": list(export_names.names(compiler))})

    return [
        Route(
            path="/v1/flow-export/exporters",
            about="Every node as flow records name it, and which collectors it tells.",
            handler=exporters,
            answer=ITEMS,
        ),
        Route(
            path="/v1/flow-export/names",
            about="Every address that may be in flow records, and whose it is.",
            handler=names,
            answer=ITEMS,
        ),
    ]
