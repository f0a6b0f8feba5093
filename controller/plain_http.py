"""A few paths over plain HTTP, for whoever can't show a token: what the kubelet and Prometheus ask."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from controller.channel import TargetError


async def serve(option: str, address: str, routes: Sequence[web.RouteDef]) -> web.AppRunner:
    """Serve on ADDRESS:PORT, which `option` says, until the runner is cleaned up. Raises TargetError."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    host, _, port = address.rpartition(":")
    try:
        await web.TCPSite(runner, host.strip("[]") or None, int(port), reuse_address=True).start()
    except (OSError, ValueError) as error:
        await runner.cleanup()
        raise TargetError(f"{option} {address}: {error}; give an address of this machine and a free port") from error
    return runner
