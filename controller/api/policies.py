"""Questions about policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from controller import policy_views
from controller.api.route import ApiError, Parameter, Route

if TYPE_CHECKING:
    from controller.app import Controller


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""
    compiler = controller.compiler

    async def policy_check(request: web.Request) -> web.Response:
        query = request.query
        for end in ("from", "to"):
            if end not in query:
                raise ApiError(400, f"say {end!r}: NAMESPACE/POD, node/NAME or an address")
        try:
            port, family = int(query.get("port", "0")), int(query.get("family", "0"))
        except ValueError:
            raise ApiError(400, "port and family are numbers") from None
        protocol = query.get("protocol", "TCP").upper()
        try:
            return web.json_response(policy_views.check(compiler, query["from"], query["to"], protocol, port, family))
        except policy_views.QuestionError as error:
            raise ApiError(400, str(error)) from error

    return [
        Route(
            path="/v1/policy-check",
            about="Whether one may reach another, and which rule says so.",
            handler=policy_check,
            parameters=(
                Parameter("from", "NAMESPACE/POD, node/NAME or an address.", required=True),
                Parameter("to", "The same.", required=True),
                Parameter("protocol", "TCP, UDP, SCTP or ICMP; TCP if nothing is said."),
                Parameter("port", "The destination port.", {"type": "integer"}),
                Parameter("family", "4 or 6.", {"type": "integer"}),
            ),
        ),
    ]
