"""Flows of a switch, in words: as it has them, what each carries, and what is otherwise than it should be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from aiohttp import web

from controller import flow_views, policy_views
from controller.api.route import ITEMS, ApiError, Parameter, Route, answer, arguments, flag, number
from controller.flow_views import Wanted
from controller.views import Row

if TYPE_CHECKING:
    from controller.app import Controller

#: Seconds between the two looks that rates are of, at least and at most.
RATE = (1, 10)
#: Rows that are made at a time, between which others have their turn.
STRIDE = 100


async def _made(rows: Iterator[Row]) -> list[Row]:
    """All rows. To say a flow in words takes a tenth of a millisecond, so others have their turn meanwhile."""
    found: list[Row] = []
    for row in rows:
        found.append(row)
        if len(found) % STRIDE == 0:
            await asyncio.sleep(0)
    return found


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""
    compiler = controller.compiler

    async def flows(request: web.Request) -> web.Response:
        node, asked = request.match_info["name"], arguments(request)
        wanted = Wanted(*(asked.get(each, "") for each in ("pod", "service", "policy", "table")))
        _check(wanted)
        seconds = asked.get("rate")
        if asked.get("diff"):
            if seconds:
                raise ApiError(400, "ask for diff or for rate: a flow that is missing carries nothing")
            drift, compared, is_settled = await controller.compare(node)
            rows = await _made(flow_views.differences(compiler, node, drift, wanted))
            return answer({"items": rows, "compared": compared, "settled": is_settled})
        if seconds:
            return answer({"items": await _made(await rated(node, seconds, wanted))})
        return answer({"items": await _made(flow_views.flows(compiler, node, await controller.dump(node), wanted))})

    async def groups(request: web.Request) -> web.Response:
        found = await controller.groups(request.match_info["name"])
        rows = map(flow_views.group_row, sorted(found, key=lambda each: each.group_id))
        return answer({"items": await _made(rows)})

    async def rated(node: str, seconds: int, wanted: Wanted) -> Iterator[Row]:
        first, begun = await controller.dump(node), time.monotonic()
        await asyncio.sleep(seconds)
        last = await controller.dump(node)
        return flow_views.rated(compiler, node, first, last, time.monotonic() - begun, wanted)

    def _check(wanted: Wanted) -> None:
        if wanted.policy and not policy_views.named(compiler, wanted.policy):
            raise ApiError(404, f"no policy {wanted.policy!r}")
        if wanted.service and tuple(wanted.service.partition("/")[::2]) not in compiler.cluster.services:
            raise ApiError(404, f"no Service {wanted.service!r}")
        if wanted.pod and tuple(wanted.pod.partition("/")[::2]) not in compiler.cluster.pods:
            raise ApiError(404, f"no pod {wanted.pod!r}")
        if wanted.table and not flow_views.is_table(wanted.table):
            raise ApiError(404, f"no table {wanted.table!r}; the tables are {', '.join(flow_views.table_names())}")

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
                flag(
                    "diff",
                    "Only what is missing, altered or foreign, of all that is compared. `settled` is false where the "
                    "switch was being changed meanwhile: then what was on its way is told too.",
                ),
                number("rate", "Also what each carries, by two looks that are so many seconds apart.", *RATE),
            ),
            answer=ITEMS,
        ),
        Route(
            path="/v1/nodes/{name}/groups",
            about="A node's groups as its switch has them: how Services' connections are spread, and equal ways.",
            handler=groups,
            answer=ITEMS,
        ),
    ]
