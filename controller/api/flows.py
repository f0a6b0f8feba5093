"""Flows of a switch, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from controller import policy_views, views
from controller.api.route import ITEMS, ApiError, Parameter, Route, answer, arguments

if TYPE_CHECKING:
    from controller.app import Controller


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""
    compiler = controller.compiler

    async def flows(request: web.Request) -> web.Response:
        node = request.match_info["name"]
        asked = arguments(request)
        pod, table, service, policy = (asked.get(name, "") for name in ("pod", "table", "service", "policy"))
        if policy and not policy_views.named(compiler, policy):
            raise ApiError(404, f"no policy {policy!r}")
        if service and tuple(service.partition("/")[::2]) not in compiler.cluster.services:
            raise ApiError(404, f"no Service {service!r}")
        if pod and tuple(pod.partition("/")[::2]) not in compiler.cluster.pods:
            raise ApiError(404, f"no pod {pod!r}")
        if table and not views.is_table(table):
            raise ApiError(404, f"no table {table!r}; the tables are {', '.join(views.table_names())}")
        dump = await controller.dump(node)
        return answer({"items": list(views.flows(compiler, node, dump, pod, table, service, policy))})

    return [
        Route(
            path="/v1/nodes/{name}/flows",
            about="A node's flows as its switch has them, in words.",
            handler=flows,
            parameters=(
                Parameter("pod", "NAMESPACE/NAME: only flows made for it."),
                Parameter("service", "NAMESPACE/NAME: only flows made for it."),
                Parameter("policy", "[NAMESPACE/]NAME: only flows made for it."),
                Parameter("table", "A table by name or number."),
            ),
            answer=ITEMS,
        ),
    ]
