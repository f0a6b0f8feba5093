"""Flows of a switch, in words: as it has them, what each carries, and what is otherwise than it should be."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiohttp import web

from controller import flow_views, policy_views
from controller.api.route import ApiError, Parameter, Route
from controller.flow_views import Wanted

if TYPE_CHECKING:
    from controller.app import Controller

#: Seconds between the two looks that rates are of, at least and at most.
RATE = (1, 10)


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""
    compiler = controller.compiler

    async def flows(request: web.Request) -> web.Response:
        node, query = request.match_info["name"], request.query
        wanted = Wanted(*(query.get(each, "") for each in ("pod", "service", "policy", "table")))
        if wanted.policy and not policy_views.named(compiler, wanted.policy):
            raise ApiError(404, f"no policy {wanted.policy!r}")
        if wanted.service and tuple(wanted.service.partition("/")[::2]) not in compiler.cluster.services:
            raise ApiError(404, f"no Service {wanted.service!r}")
        if wanted.pod and tuple(wanted.pod.partition("/")[::2]) not in compiler.cluster.pods:
            raise ApiError(404, f"no pod {wanted.pod!r}")
        if wanted.table and not flow_views.is_table(wanted.table):
            raise ApiError(404, f"no table {wanted.table!r}; the tables are {', '.join(flow_views.table_names())}")
        rate = query.get("rate", "")
        if query.get("diff"):
            if rate:
                raise ApiError(400, "ask for diff or for rate: a flow that is missing carries nothing")
            return await differences(node, wanted)
        if not rate:
            return web.json_response(
                {"items": list(flow_views.flows(compiler, node, await controller.dump(node), wanted))}
            )
        least, most = RATE
        if not (rate.isascii() and rate.isdigit() and least <= int(rate) <= most):
            raise ApiError(400, f"rate is a number of seconds from {least} to {most}, not {rate!r}")
        first, begun = await controller.dump(node), time.monotonic()
        await asyncio.sleep(int(rate))
        last = await controller.dump(node)
        rows = flow_views.rated(compiler, node, first, last, time.monotonic() - begun, wanted)
        return web.json_response({"items": list(rows)})

    async def differences(node: str, wanted: Wanted) -> web.Response:
        drift, compared, is_settled = await controller.compare(node)
        rows = list(flow_views.differences(compiler, node, drift, wanted))
        return web.json_response({"items": rows, "compared": compared, "settled": is_settled})

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
                Parameter(
                    "diff",
                    "1: only what is missing, altered or foreign, of all that is compared. `settled` is false where "
                    "the switch was being changed meanwhile: then what was on its way is told too.",
                    {"type": "string", "enum": ["1"]},
                ),
                Parameter(
                    "rate",
                    "Also packets and bytes per second, by two looks that are so many seconds apart.",
                    {"type": "integer", "minimum": RATE[0], "maximum": RATE[1]},
                ),
            ),
        ),
    ]
