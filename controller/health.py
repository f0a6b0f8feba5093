"""What the kubelet asks, over plain HTTP: GET /healthz, whether the event loop turns; GET /readyz, whether switches
are heard.

It tells nothing of the cluster, and so may be listened for where the admin API may not.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from controller.channel import TargetError


async def serve(address: str, not_ready: Callable[[], str]) -> web.AppRunner:
    """Serve on ADDRESS:PORT until the runner that is returned is cleaned up. Raises TargetError.

    `not_ready` says why there is nothing to be had yet; nothing when there is.
    """

    async def healthz(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        reason = not_ready()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    host, _, port = address.rpartition(":")
    try:
        await web.TCPSite(runner, host.strip("[]") or None, int(port), reuse_address=True).start()
    except (OSError, ValueError) as error:
        await runner.cleanup()
        raise TargetError(f"--health {address}: {error}; give an address of this machine and a free port") from error
    return runner
