"""Whether all is well, and what makes it so again."""

from __future__ import annotations

import platform
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiohttp import web

from controller import parts, views
from controller.api.route import Route, answer
from topology.version import version

if TYPE_CHECKING:
    from controller.app import Controller


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""
    compiler, fleet = controller.compiler, controller.fleet

    async def status(request: web.Request) -> web.Response:
        now, clock = datetime.now(UTC), time.monotonic()
        # Once, for both: it is looked at every pod.
        found = list(parts.troubles_by_part(controller, now))
        told = views.status(compiler, fleet, (text for _, text in found), controller.edition(), clock)
        told["parts"] = list(parts.parts(controller, found, now, clock))
        if controller.replica is not None:
            told["replica"] = controller.replica.status(compiler.cluster.nodes)
        if controller.bgp is not None:
            told["bgp"] = controller.bgp.status()
        return answer(told)

    async def audit(request: web.Request) -> web.Response:
        controller.audit(full=True)
        return answer({"switches": len(fleet.syncs)}, 202)

    async def settings(request: web.Request) -> web.Response:
        return answer(
            {
                "version": version(),
                "python": platform.python_version(),
                "platform": platform.platform(),
                "settings": controller.settings,
            }
        )

    return [
        Route(
            path="/v1/settings",
            about="Which controller this is, and what it was started with. Nothing of it is a secret.",
            handler=settings,
        ),
        Route(path="/v1/status", about="The whole in a few numbers, and everything that is wrong.", handler=status),
        Route(
            method="POST",
            path="/v1/audit",
            about="Compare every flow of every switch with what it should be, now.",
            handler=audit,
            status=202,
        ),
    ]
