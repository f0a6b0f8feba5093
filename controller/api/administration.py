"""The few things that people change: a node's work, a switch's flows, what is logged. All need the role admin."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from aiohttp import web

from controller import structured_log
from controller.api.callers import DETAIL
from controller.api.route import ApiError, Parameter, Route, UnknownNodeError, answer, arguments, body
from controller.drains import DrainError, SourceSaysError
from controller.sync import Phase

if TYPE_CHECKING:
    from controller.app import Controller

#: Seconds for which a change that is just being made is waited for, and between looks.
IN_FLIGHT, LOOK = 5.0, 0.02

_TEXT = {"type": "string"}
_DRAINED = {
    "type": "object",
    "properties": {
        "node": _TEXT,
        "drained": {"type": "boolean"},
        "changed": {"type": "boolean", "description": "Whether it wasn't so before."},
        "kept": {"type": "string", "enum": ["Kubernetes", "StateDirectory", "Memory"]},
        "note": {"type": "string", "description": "For how long, and whether other controllers know."},
    },
    "required": ["node", "drained", "changed", "kept", "note"],
    "additionalProperties": False,
}
_LEVEL = {
    "type": "object",
    "properties": {"logger": _TEXT, "level": _TEXT},
    "required": ["logger", "level"],
    "additionalProperties": False,
}
_RESYNC = {
    "type": "object",
    "properties": {"node": _TEXT},
    "required": ["node"],
    "additionalProperties": False,
}


class LogLevel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From which level on a logger's lines are written; the empty level stands for that of the logger above it."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", ""]
    #: Empty for all loggers that have no level of their own.
    logger: str = ""


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""

    async def drain(request: web.Request) -> web.Response:
        return answer(await _put(controller, request, drained=True))

    async def undrain(request: web.Request) -> web.Response:
        return answer(await _put(controller, request, drained=False))

    async def resync(request: web.Request) -> web.Response:
        name = _node(controller, request)
        deadline = time.monotonic() + IN_FLIGHT
        while True:
            sync = controller.fleet.syncs.get(name)
            if sync is None:
                raise UnknownNodeError(f"the switch of node {name!r} isn't connected")
            if sync.phase is Phase.SYNCED:
                sync.audit(full=True)
                return answer({"node": name}, status=202)
            if sync.phase is Phase.STANDBY and controller.replica is not None:
                master = controller.replica.master(name)[0] or "nobody now"
                raise ApiError(409, f"the master of the switch of node {name!r} is {master}: ask that controller")
            if time.monotonic() > deadline:
                raise ApiError(409, f"the switch of node {name!r} is being brought in sync ({sync.phase.value})")
            await asyncio.sleep(LOOK)

    async def level(request: web.Request) -> web.Response:
        return answer(_level(arguments(request).get("logger", "")))

    async def set_level(request: web.Request) -> web.Response:
        wanted = await body(request, LogLevel)
        if not wanted.level and not wanted.logger:
            raise ApiError(400, "say a level: DEBUG, INFO, WARNING or ERROR; there is no logger above this one")
        _known(wanted.logger)
        request[DETAIL] = f"({wanted.logger or 'all'}: {wanted.level or 'as the rest'})"
        structured_log.set_level(wanted.logger, wanted.level)
        return answer(_level(wanted.logger))

    return [
        Route(
            method="POST",
            path="/v1/nodes/{name}/drain",
            about="Give a node no new work: no new connections of Services, and no addresses to answer for.",
            handler=drain,
            answer=_DRAINED,
        ),
        Route(
            method="POST",
            path="/v1/nodes/{name}/undrain",
            about="Give a node work again.",
            handler=undrain,
            answer=_DRAINED,
        ),
        Route(
            method="POST",
            path="/v1/nodes/{name}/resync",
            about="Compare every flow of a node's switch with what it should be, now, and repair what differs.",
            handler=resync,
            answer=_RESYNC,
            status=202,
        ),
        Route(
            path="/v1/log-level",
            about="From which level on is logged.",
            handler=level,
            parameters=(Parameter("logger", "A part of the controller, as controller.sync; empty: all."),),
            answer=_LEVEL,
        ),
        Route(
            method="PUT",
            path="/v1/log-level",
            about="Log from another level on, until the controller ends.",
            handler=set_level,
            body=LogLevel,
            answer=_LEVEL,
        ),
    ]


async def _put(controller: Controller, request: web.Request, *, drained: bool) -> dict[str, Any]:
    name = _node(controller, request)
    try:
        changed = await controller.drain(name, drained=drained)
    except SourceSaysError as error:
        raise ApiError(409, str(error)) from error
    except DrainError as error:
        raise ApiError(503, f"nothing has changed, since it can't be kept: {error}") from error
    store = controller.drains.store
    return {"node": name, "drained": drained, "changed": changed, "kept": store.kind, "note": store.note}


def _node(controller: Controller, request: web.Request) -> str:
    name = request.match_info["name"]
    if name not in controller.compiler.cluster.nodes:
        raise UnknownNodeError(f"no node {name!r}")
    return name


def _level(logger: str) -> dict[str, str]:
    _known(logger)
    return {"logger": logger, "level": structured_log.level(logger)}


def _known(logger: str) -> None:
    if not structured_log.is_ours(logger):
        raise ApiError(404, f"no logger {logger[:60]!r}: they are called as modules are, as controller.sync")
