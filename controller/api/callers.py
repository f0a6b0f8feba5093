"""Who asks: by a token or certificate over a network, or as whom a process on this machine runs."""

from __future__ import annotations

import logging
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import web

from controller.access import Caller
from controller.api.route import ApiError, Handler, UnknownNodeError
from controller.structured_log import WRITES, about

#: What people have had done: a logger of its own, to be kept apart, and written whatever else is.
log = logging.getLogger(WRITES)
log.setLevel(logging.INFO)


class Still:
    """Asks whether a caller may still have what was asked for: an answer may outlast a token."""

    def __init__(self, ask: Callable[[], Awaitable[bool]]) -> None:
        self._ask = ask

    async def __call__(self) -> bool:
        return await self._ask()


CALLER = web.RequestKey("caller", Caller)
STILL = web.RequestKey("still", Still)
#: What a request was about, where its path doesn't say so.
DETAIL = web.RequestKey("detail", str)
#: Process, user and group of who is at the other end of a Unix socket (unix(7), SO_PEERCRED).
_CREDENTIALS = struct.Struct("iII")
#: Letters of a path that are logged.
_LONGEST = 200


def reads(request: web.Request) -> bool:
    """Whether a request changes nothing."""
    return request.method in ("GET", "HEAD")


def who(request: web.Request) -> str:
    """Who asks, as the log says it."""
    caller = request.get(CALLER)
    if caller is not None:
        return str(caller.name)
    connection = request.transport.get_extra_info("socket") if request.transport is not None else None
    if connection is None or connection.family != socket.AF_UNIX:
        return "somebody"
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(told)
    try:
        return f"{pwd.getpwuid(user).pw_name} of this machine"
    except KeyError:
        return f"user {user} of this machine"


@web.middleware
async def logged(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever may change something is a line in the log, with who asked for it and what became of it."""
    if reads(request):
        return await handler(request)
    outcome = "cut off"
    try:
        response = await handler(request)
        outcome = str(response.status)
        return response
    except web.HTTPException as error:
        outcome = str(error.status)
        raise
    except (ApiError, UnknownNodeError, TimeoutError) as error:
        outcome = f"failed: {error}"
        raise
    except Exception:
        outcome = "failed"
        raise
    finally:
        path = request.rel_url.raw_path[:_LONGEST]
        node = request.match_info.get("name", "") if path.startswith("/v1/nodes/") else ""
        what = " ".join((request.method, path, *filter(None, (request.get(DETAIL),))))
        log.info("%s: %s: %s", who(request), what, outcome, extra=about(node=node))
