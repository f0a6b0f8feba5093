"""Questions about policies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from controller import policy_matrix, policy_views
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

    async def matrix(request: web.Request) -> web.Response:
        asked = arguments(request)
        namespaces = [each for each in asked.get("namespace", "").split(",") if each]
        protocol, port, family = asked.get("protocol", "TCP").upper(), asked.get("port", 0), asked.get("family", 0)
        try:
            for found in policy_matrix.matrix(compiler, namespaces, protocol, port, family):
                if found is not None:
                    return answer(found)
                await asyncio.sleep(0)
        except policy_views.QuestionError as error:
            raise ApiError(400, str(error)) from error
        raise AssertionError("a matrix comes last")

    return [
        Route(
            path="/v1/matrix",
            about="Who may reach whom by policies, of the identities of some namespaces or of all.",
            handler=matrix,
            parameters=(
                Parameter("namespace", "A namespace, or several with commas between; all if nothing is said."),
                Parameter("protocol", "TCP, UDP, SCTP or ICMP; TCP if nothing is said."),
                PORT,
                FAMILY,
            ),
        ),
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
