"""The admin API: HTTP and JSON on a Unix socket that only its owner can open. Read-only, versioned in the path.

It may be served over TLS too; there every request needs a token (`controller.access`).

GET /v1/nodes, /v1/pods, /v1/links: {"items": [...]}; /v1/services and /v1/endpoints, with ?counters=1 what they have
carried; /v1/identities; /v1/policies, with ?counters=1 the packets that they allowed and denied;
/v1/policy-check?from=&to=&protocol=&port=&family=;
/v1/nodes/NAME/flows?pod=NAMESPACE/NAME&service=NAMESPACE/NAME&policy=[NAMESPACE/]NAME&table=NAME;
/v1/topology?format=json|text|dot|svg|graphml, with ?load=1 how much each link carries; /v1/path?from=&to=;
/v1/status. POST /v1/audit compares every flow of every switch now.
Errors are {"error": "..."} with a status of 400 or above.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from controller import policy_views, tls_server, topology_views, views
from controller.access import Access
from controller.channel import TargetError, make_private, unused
from controller.refusals import Why
from controller.tls_server import TlsServer
from topology import render
from topology.svg import svg

if TYPE_CHECKING:
    from controller.app import Controller


#: Connections over TLS at a time.
API_CONNECTIONS = 256


class UnknownNodeError(LookupError):
    """There is no such node, or its switch isn't connected; the text says which."""


async def serve(controller: Controller, path: Path) -> web.AppRunner:
    """Serve on `path` until the runner that is returned is cleaned up."""
    app = web.Application(middlewares=[_errors])
    app.add_routes(_routes(controller))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.UnixSite(runner, unused(path)).start()
    make_private(path)
    return runner


async def serve_remote(controller: Controller, target: str, access: Access) -> web.AppRunner:
    """Serve over TLS at `ADDRESS:PORT`, to who shows a token, until the runner is cleaned up. Raises TargetError."""
    credentials, tokens = access.credentials, access.tokens
    assert credentials is not None and tokens is not None
    host, _, port = target.rpartition(":")

    @web.middleware
    async def authorized(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        # Before a path is looked up: who has no token learns nothing, not even which paths there are.
        caller = tokens.caller(request.headers.get("Authorization", ""))
        if caller is None:
            _refuse(request, Why.TOKEN, "the admin API: no valid token")
            response = _error(401, "a valid token is needed: Authorization: Bearer TOKEN")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        if request.method not in ("GET", "HEAD") and caller.role != "admin":
            _refuse(request, Why.ROLE, f"the admin API: {caller.name} may only read")
            return _error(403, f"{caller.name} may only read: {request.method} needs the role admin")
        return await handler(request)

    def _refuse(request: web.Request, why: Why, text: str) -> None:
        controller.fleet.refuse(request.remote or "somebody", why, text, time.monotonic())

    app = web.Application(middlewares=[_errors, authorized])
    app.add_routes(_routes(controller))
    servers: list[TlsServer] = []

    async def close(app: web.Application) -> None:
        for server in servers:
            await server.close()

    app.on_shutdown.append(close)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    http = runner.server
    assert http is not None

    def refuse(address: str, why: Why, text: str) -> None:
        controller.fleet.refuse(address, why, text, time.monotonic())

    try:
        if not host:
            raise ValueError("expected ADDRESS:PORT")
        listening = tls_server.listen(host.strip("[]"), int(port))
    except (OSError, ValueError) as error:
        await runner.cleanup()
        raise TargetError(f"--api-listen {target}: {error}") from error
    made = TlsServer(listening, credentials.api(), http, lambda: len(http.connections), API_CONNECTIONS, refuse)
    servers.append(made)
    return runner


def _routes(controller: Controller) -> list[web.RouteDef]:
    compiler, fleet = controller.compiler, controller.fleet

    async def nodes(request: web.Request) -> web.Response:
        return web.json_response({"items": list(views.nodes(compiler, fleet, controller.replica))})

    async def pods(request: web.Request) -> web.Response:
        return web.json_response({"items": list(views.pods(compiler, fleet, controller.replica))})

    async def services(request: web.Request) -> web.Response:
        sums = await controller.count_services() if request.query.get("counters") else None
        return web.json_response({"items": list(views.services(compiler, sums))})

    async def endpoints(request: web.Request) -> web.Response:
        sums = await controller.count_services() if request.query.get("counters") else None
        return web.json_response({"items": list(views.endpoints(compiler, sums))})

    async def identities(request: web.Request) -> web.Response:
        return web.json_response({"items": list(policy_views.identities(compiler))})

    async def policies(request: web.Request) -> web.Response:
        counts = await controller.count_policies() if request.query.get("counters") else None
        return web.json_response({"items": list(policy_views.policies(compiler, counts))})

    async def policy_check(request: web.Request) -> web.Response:
        query = request.query
        for end in ("from", "to"):
            if end not in query:
                return _error(400, f"say {end!r}: NAMESPACE/POD, node/NAME or an address")
        try:
            port, family = int(query.get("port", "0")), int(query.get("family", "0"))
        except ValueError:
            return _error(400, "port and family are numbers")
        protocol = query.get("protocol", "TCP").upper()
        try:
            return web.json_response(policy_views.check(compiler, query["from"], query["to"], protocol, port, family))
        except policy_views.QuestionError as error:
            return _error(400, str(error))

    async def links(request: web.Request) -> web.Response:
        return web.json_response({"items": list(topology_views.links(compiler, fleet, controller.links))})

    async def bgp(request: web.Request) -> web.Response:
        return web.json_response({"items": controller.bgp.rows() if controller.bgp is not None else []})

    async def routes(request: web.Request) -> web.Response:
        return web.json_response({"items": controller.bgp.routes() if controller.bgp is not None else []})

    async def flows(request: web.Request) -> web.Response:
        node = request.match_info["name"]
        pod, table = request.query.get("pod", ""), request.query.get("table", "")
        service, policy = request.query.get("service", ""), request.query.get("policy", "")
        if policy and not policy_views.named(compiler, policy):
            return _error(404, f"no policy {policy!r}")
        if service and tuple(service.partition("/")[::2]) not in compiler.cluster.services:
            return _error(404, f"no Service {service!r}")
        if pod and tuple(pod.partition("/")[::2]) not in compiler.cluster.pods:
            return _error(404, f"no pod {pod!r}")
        if table and not views.is_table(table):
            return _error(404, f"no table {table!r}; the tables are {', '.join(views.table_names())}")
        dump = await controller.dump(node)
        return web.json_response({"items": list(views.flows(compiler, node, dump, pod, table, service, policy))})

    async def topology(request: web.Request) -> web.Response:
        form = request.query.get("format", "json")
        drawings = {"text": render.text, "dot": render.dot, "svg": svg, "graphml": render.graphml}
        if form != "json" and form not in drawings:
            return _error(400, f"no format {form!r}; the formats are json, text, dot, svg and graphml")
        loads = await controller.measure_ports() if request.query.get("load") else None
        if form != "json":
            drawing = topology_views.drawing(compiler, fleet, controller.links, loads)
            # A large one takes a second or so, for which switches needn't wait.
            return web.json_response({"text": await asyncio.to_thread(drawings[form], drawing)})
        return web.json_response(
            {
                "nodes": list(topology_views.nodes(compiler, fleet)),
                "networks": list(topology_views.networks(compiler)),
                "links": list(topology_views.links(compiler, fleet, controller.links, loads)),
            }
        )

    async def path(request: web.Request) -> web.Response:
        query = request.query
        for end in ("from", "to"):
            if end not in query:
                return _error(400, f"say {end!r}: [NAMESPACE/]POD or node/NAME")
        try:
            return web.json_response(topology_views.path(compiler, query["from"], query["to"]))
        except topology_views.NoWayError as error:
            return _error(404, str(error))

    async def status(request: web.Request) -> web.Response:
        told = views.status(compiler, fleet, controller.troubles(), controller.edition(), time.monotonic())
        if controller.replica is not None:
            told["replica"] = controller.replica.status(compiler.cluster.nodes)
        if controller.bgp is not None:
            told["bgp"] = controller.bgp.status()
        return web.json_response(told)

    async def audit(request: web.Request) -> web.Response:
        controller.audit(full=True)
        return web.json_response({"switches": len(fleet.syncs)}, status=202)

    return [
        web.get("/v1/nodes", nodes),
        web.get("/v1/nodes/{name}/flows", flows),
        web.get("/v1/pods", pods),
        web.get("/v1/services", services),
        web.get("/v1/endpoints", endpoints),
        web.get("/v1/identities", identities),
        web.get("/v1/policies", policies),
        web.get("/v1/policy-check", policy_check),
        web.get("/v1/links", links),
        web.get("/v1/bgp", bgp),
        web.get("/v1/routes", routes),
        web.get("/v1/topology", topology),
        web.get("/v1/path", path),
        web.get("/v1/status", status),
        web.post("/v1/audit", audit),
    ]


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except UnknownNodeError as error:
        return _error(404, str(error))
    except TimeoutError as error:
        return _error(504, str(error))
    except web.HTTPException as error:
        return _error(error.status, f"{request.method} {request.path}: {error.reason}")
