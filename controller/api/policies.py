"""Questions about policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from controller import policy_views
from controller.api.route import FAMILY, PORT, ApiError, Parameter, Route, answer, arguments

if TYPE_CHECKING:
    from controller.app import Controller


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""
    compiler = controller.compiler

    async def policy_check(request: web.Request) -> web.Response:
        asked = arguments(request)
        protocol, port, family = asked.get("protocol", "TCP").upper(), asked.get("port", 0), asked.get("family", 0)
        try:
            return answer(policy_views.check(compiler, asked["from"], asked["to"], protocol, port, family))
        except policy_views.QuestionError as error:
            raise ApiError(400, str(error)) from error

    return [
        Route(
            path="/v1/policy-check",
            about="Whether one may reach another, and which rule says so.",
            handler=policy_check,
            parameters=(
                Parameter("from", "NAMESPACE/POD, node/NAME or an address.", required=True),
                Parameter("to", "NAMESPACE/POD, node/NAME or an address.", required=True),
                Parameter("protocol", "TCP, UDP, SCTP or ICMP; TCP if nothing is said."),
                PORT,
                FAMILY,
            ),
        ),
    ]
