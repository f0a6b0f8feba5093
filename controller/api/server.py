"""The admin API: HTTP and JSON on a Unix socket that only its owner can open, versioned in the path.

It may be served over TLS too; there every request is of somebody who may ask (`controller.api.authorization`).

What there is to ask is in the modules beside this one, each with its `routes`. Lists are {"items": [...]}; errors are
{"error": "..."} with a status of 400 or above.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web, web_response

from controller import console, tls_server
from controller.access import Access
from controller.api import (
    administration,
    captures,
    flow_export,
    flows,
    health,
    metrics,
    objects,
    openapi,
    policies,
    top,
    topology,
    trace,
    whoami,
)
from controller.api.authorization import authorization
from controller.api.callers import logged
from controller.api.route import ApiError, Route, UnknownNodeError, answer
from controller.channel import TargetError, make_private, unused
from controller.refusals import Why
from controller.tls_server import TlsServer

if TYPE_CHECKING:
    from controller.app import Controller


log = logging.getLogger(__name__)

# What it is made of is nobody's business who may not ask, and aiohttp has no setting for it.
web_response.SERVER_SOFTWARE = "signalbox"  # type: ignore[attr-defined]
#: What aiohttp would say of every malformed request, with a traceback: anybody could fill the log with it.
_UNHEARD = logging.Logger("unheard", logging.CRITICAL + 1)
#: Connections over TLS at a time.
API_CONNECTIONS = 256
#: Seconds that answers under way have when the controller ends.
SHUTDOWN_LIMIT = 1.0


async def serve(controller: Controller, path: Path) -> web.AppRunner:
    """Serve on `path` until the runner that is returned is cleaned up."""
    app = web.Application(middlewares=[_errors, logged])
    app.add_routes(_paths(controller))
    app.on_shutdown.append(_let_go(controller))
    runner = web.AppRunner(app, access_log=None, logger=_UNHEARD, shutdown_timeout=SHUTDOWN_LIMIT)
    await runner.setup()
    await web.UnixSite(runner, unused(path)).start()
    make_private(path)
    return runner


async def serve_remote(controller: Controller, target: str, access: Access) -> web.AppRunner:
    """Serve over TLS at `ADDRESS:PORT`, to who may ask, until the runner is cleaned up. Raises TargetError."""
    credentials = access.credentials
    assert credentials is not None
    host, _, port = target.rpartition(":")

    def refuse(address: str, why: Why, text: str) -> None:
        controller.fleet.refuse(address, why, text, time.monotonic())

    app = web.Application(middlewares=[_errors, authorization(access, refuse), logged])
    app.add_routes(_paths(controller))
    servers: list[TlsServer] = []

    async def close(app: web.Application) -> None:
        for server in servers:
            await server.close()

    app.on_shutdown.extend((close, _let_go(controller)))
    runner = web.AppRunner(app, access_log=None, logger=_UNHEARD, shutdown_timeout=SHUTDOWN_LIMIT)
    await runner.setup()
    http = runner.server
    assert http is not None

    try:
        if not host:
            raise ValueError("expected ADDRESS:PORT")
        listening = tls_server.listen(host.strip("[]"), int(port))
    except (OSError, ValueError) as error:
        await runner.cleanup()
        raise TargetError(f"--api-listen {target}: {error}") from error
    made = TlsServer(listening, lambda: credentials.api, http, lambda: http.connections, API_CONNECTIONS, refuse)
    servers.append(made)
    return runner


_MODULES = (
    *(objects, flows, policies, topology, trace, captures, top, health, metrics, flow_export),
    *(administration, whoami),
)


def routes(controller: Controller) -> list[Route]:
    """Everything that may be asked."""
    found = [route for module in _MODULES for route in module.routes(controller)]

    async def handle(request: web.Request) -> web.Response:
        return answer(openapi.describe(found))

    found.append(Route(path="/v1/openapi.json", about="This description, in OpenAPI 3.1.", handler=handle))
    return found


def description(controller: Controller) -> dict[str, Any]:
    """Everything that may be asked, in OpenAPI 3.1."""
    return openapi.describe(routes(controller))


def _paths(controller: Controller) -> list[web.AbstractRouteDef]:
    return [*(web.route(each.method, each.path, each.checked()) for each in routes(controller)), *console.routes()]


def _let_go(controller: Controller) -> Callable[[web.Application], Awaitable[None]]:
    """Have those who watch go: otherwise they would be waited for."""

    async def let_go(app: web.Application) -> None:
        controller.changes.close()

    return let_go


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return _error(error.status, str(error))
    except UnknownNodeError as error:
        return _error(404, str(error))
    except TimeoutError as error:
        return _error(504, str(error))
    except web.HTTPException as error:
        response = _error(error.status, f"{request.method} {request.path}: {error.reason}")
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except Exception as error:
        if request.writer.output_size:
            # Too late to say anything else. A client that has gone away is no fault.
            if not isinstance(error, ConnectionError):
                log.exception("%s %s has failed in the middle of its answer", request.method, _named(request))
            raise
        log.exception("%s %s has failed", request.method, _named(request))
        return _error(500, "the controller has failed at this, which is a fault of its own; its log says more")


def _named(request: web.Request) -> str:
    """The route that a request is for: callers' own words belong in no log."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "?"
