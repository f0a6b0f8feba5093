"""What the kubelet asks, over plain HTTP: GET /healthz, whether the event loop turns; GET /readyz, whether switches
are heard.

It tells nothing of the cluster, and so may be listened for where the admin API may not.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from controller import plain_http


async def serve(address: str, not_ready: Callable[[], str]) -> web.AppRunner:
    """Serve on ADDRESS:PORT until the runner that is returned is cleaned up. Raises TargetError.

    `not_ready` says why there is nothing to be had yet; nothing when there is.
    """

    async def healthz(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        reason = not_ready()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    return await plain_http.serve("--health", address, [web.get("/healthz", healthz), web.get("/readyz", readyz)])
