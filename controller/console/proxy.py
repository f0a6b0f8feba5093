"""What `signalbox console` serves: the console and what may be read of the admin API, on loopback, from a Unix socket.

Whoever can open a socket may ask everything, so here it takes a secret that is in the address, which only who started
the command has seen. Other users of the machine can connect, and so can pages of other sites that the browser shows:
neither knows the secret, and a name that leads to loopback (DNS rebinding) is refused by the Host header. Nothing can
be changed from here: all that is passed on besides GET is a live trace, and that only where the browser says that the
page itself asks for it.
"""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
from aiohttp import web
from yarl import URL

from controller.console.pages import PREFIX, answer, paths

#: Seconds for which nothing may come, as for the command line: what goes on says something more often than that.
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=30.0, sock_read=30.0)
#: What a browser on this machine calls it.
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PASSED = ("Content-Type", "Cache-Control")
_SESSION = web.AppKey("session", aiohttp.ClientSession)


@contextlib.asynccontextmanager
async def serve(socket: Path, host: str, port: int, secret: str) -> AsyncIterator[str]:
    """Serve there, and tell the address that a browser is given. Raises OSError where that can't be."""
    # A browser that leaves an answer which goes on is to be let go of by the controller, too.
    runner = web.AppRunner(make_app(socket, secret), access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{_authority(host, runner.addresses[0][1])}/{secret}{PREFIX}"
    finally:
        await runner.cleanup()


def make_app(socket: Path, secret: str) -> web.Application:
    """The proxy."""

    @web.middleware
    async def guarded(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if _name(request.host) not in _LOOPBACK:
            return _error(403, "this isn't the host that the console is for")
        given, _, _ = request.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(given.encode(errors="replace"), secret.encode()):
            return _error(403, "open the address that signalbox console has printed")
        if request.method not in ("GET", "HEAD") and not _is_own(request):
            return _error(403, "only the console itself may ask that")
        return await handler(request)

    async def page(request: web.Request) -> web.StreamResponse:
        return answer(request.path.removeprefix(f"/{secret}"))

    async def passed_on(request: web.Request) -> web.StreamResponse:
        # The path as it was written: a quoted slash is part of a name.
        path = request.rel_url.raw_path.removeprefix(f"/{secret}")
        url = "http://controller" + path + (f"?{request.rel_url.raw_query_string}" if request.query_string else "")
        response = web.StreamResponse()
        try:
            async with request.app[_SESSION].request(request.method, URL(url, encoded=True)) as told:
                response.set_status(told.status)
                response.headers.update({name: told.headers[name] for name in _PASSED if name in told.headers})
                # Piece by piece, since some answers go on for as long as somebody reads them.
                async for piece in told.content.iter_any():
                    if not response.prepared:
                        await response.prepare(request)
                    await response.write(piece)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            if response.prepared:
                # Half an answer must not look like a whole one.
                if request.transport is not None:
                    request.transport.abort()
            elif isinstance(error, TimeoutError):
                return _error(504, "the controller doesn't answer in time")
            else:
                return _error(502, f"the controller doesn't answer: {error}")
        return response

    app = web.Application(middlewares=[guarded])
    app.cleanup_ctx.append(lambda app: _session(app, socket))
    app.add_routes([web.get(f"/{secret}{path}", page) for path in paths()])
    app.add_routes([web.get(f"/{secret}/v1/{{rest:.*}}", passed_on), web.post(f"/{secret}/v1/trace", passed_on)])
    return app


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_own(request: web.Request) -> bool:
    """Whether it is a page of this server that asks, as browsers tell of whatever isn't a plain GET."""
    return (
        request.headers.get("Origin") == f"http://{request.host}"
        and request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    )


def _name(host: str) -> str | None:
    try:
        return URL(f"http://{host}").host
    except ValueError:
        return None


async def _session(app: web.Application, socket: Path) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=_TIMEOUT) as session:
        app[_SESSION] = session
        yield


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)
