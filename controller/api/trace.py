"""Where a packet goes: the answer of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from controller.api.route import ApiError, Parameter, Route
from controller.trace.model import Asked, Compiled, TraceError, trace
from controller.trace.result import Trace

if TYPE_CHECKING:
    from controller.app import Controller

_FLAG = {"type": "string", "enum": ["0", "1"]}


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""
    compiled = Compiled(controller.compiler, lambda: controller.fleet.cluster.version, keyed=controller.keyed)

    async def tell(request: web.Request) -> web.Response:
        query = request.query
        for end in ("from", "to"):
            if end not in query:
                raise ApiError(400, f"say {end!r}: [NAMESPACE/]POD, node/NAME, [NAMESPACE/]svc/NAME or an address")
        live, deliver = request.method == "POST", query.get("deliver", "0")
        if deliver not in ("0", "1") or (deliver == "1" and not live):
            raise ApiError(400, "deliver is 0 or 1, and of a POST: only what is sent can be delivered")
        try:
            port, family = int(query.get("port", "0")), int(query.get("family", "0"))
        except ValueError:
            raise ApiError(400, "port and family are numbers") from None
        protocol = query.get("protocol", "TCP" if port else "ICMP").upper()
        try:
            asked = Asked(query["from"], query["to"], protocol, port, family, query.get("endpoint", ""))
            if live:
                answer = await controller.tracer.trace(compiled, asked, deliver=deliver == "1")
                told = {"model": row(answer.model), "live": row(answer.live), "differences": list(answer.differences)}
                return web.json_response(told)
            found = trace(compiled, asked)
        except TraceError as error:
            raise ApiError(400, str(error)) from error
        return web.json_response(row(found))

    parameters = (
        Parameter("from", "[NAMESPACE/]POD, node/NAME or an address.", required=True),
        Parameter("to", "The same, or [NAMESPACE/]svc/NAME.", required=True),
        Parameter("protocol", "TCP, UDP, SCTP or ICMP; TCP if a port is said, else ICMP."),
        Parameter("port", "The destination port.", {"type": "integer"}),
        Parameter("family", "4 or 6.", {"type": "integer"}),
        Parameter("endpoint", "ADDRESS:PORT that a Service is to choose; the first if nothing is said."),
    )
    return [
        Route(
            path="/v1/trace",
            about="The way of a connection's first packet by the model: switches, flows, NAT, verdict.",
            handler=tell,
            parameters=parameters,
        ),
        Route(
            method="POST",
            path="/v1/trace",
            about="The same by a marked packet that is really sent and held back at its end, and what is otherwise.",
            handler=tell,
            parameters=(*parameters, Parameter("deliver", "1: it isn't held back, but arrives.", _FLAG)),
        ),
    ]


def row(found: Trace) -> dict[str, Any]:
    """A trace as JSON has it. Which flow a step met is told by its `ofctl` alone."""
    plain: dict[str, Any] = msgspec.to_builtins(_without_keys(found))
    return plain


def _without_keys(found: Trace) -> Trace:
    replace = msgspec.structs.replace
    visits = (replace(visit, steps=tuple(replace(step, flow=None) for step in visit.steps)) for visit in found.visits)
    return replace(found, visits=tuple(visits))
