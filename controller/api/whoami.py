"""Who asks, and what that one may do: a console shows no more than that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from controller.api.callers import CALLER, who
from controller.api.route import Route, answer

if TYPE_CHECKING:
    from controller.app import Controller

_TEXT = {"type": "string"}


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""

    async def tell(request: web.Request) -> web.Response:
        caller = request.get(CALLER)
        # Who may open the socket may ask everything.
        return answer({"name": who(request), "role": caller.role if caller is not None else "admin"})

    return [
        Route(
            path="/v1/whoami",
            about="Who asks, and the role that says what that one may do.",
            handler=tell,
            answer={
                "type": "object",
                "properties": {
                    "name": _TEXT,
                    "role": {
                        "type": "string",
                        "enum": ["read-only", "admin", ""],
                        "description": "Empty where Kubernetes is asked of each request.",
                    },
                },
                "required": ["name", "role"],
                "additionalProperties": False,
            },
        )
    ]
