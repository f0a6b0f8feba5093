"""Where a packet goes: the answer of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from controller.api.route import FAMILY, PORT, ApiError, Parameter, Route, answer, arguments, flag
from controller.trace.compiled import Compiled
from controller.trace.errors import TraceError
from controller.trace.first_packet import Asked
from controller.trace.model import trace
from controller.trace.result import Trace

if TYPE_CHECKING:
    from controller.app import Controller


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""
    compiled = Compiled(
        controller.compiler,
        lambda: controller.fleet.cluster.version,
        keyed=controller.keyed,
        node_ports=controller.ranges.node_ports,
    )

    async def tell(request: web.Request) -> web.Response:
        said = arguments(request)
        port = said.get("port", 0)
        protocol = said.get("protocol", "TCP" if port else "ICMP").upper()
        asked = Asked(said["from"], said["to"], protocol, port, said.get("family", 0), said.get("endpoint", ""))
        try:
            if request.method == "POST":
                live = await controller.tracer.trace(compiled, asked, deliver=said.get("deliver", False))
                return answer({"model": row(live.model), "live": row(live.live), "differences": live.differences})
            found = trace(compiled, asked)
            return answer(row(found) | {"cautions": _cautions(controller, found)})
        except TraceError as error:
            raise ApiError(400, str(error)) from error

    parameters = (
        Parameter("from", "[NAMESPACE/]POD, node/NAME or an address.", required=True),
        Parameter("to", "[NAMESPACE/]POD, node/NAME, [NAMESPACE/]svc/NAME or an address.", required=True),
        Parameter("protocol", "TCP, UDP, SCTP or ICMP; TCP if a port is said, else ICMP."),
        PORT,
        FAMILY,
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
            parameters=(*parameters, flag("deliver", "Whether it arrives, rather than being held back at its end.")),
        ),
    ]


def _cautions(controller: Controller, found: Trace) -> list[str]:
    """Where the model is all that there is: what a switch that is away would really do isn't known."""
    nodes = dict.fromkeys(visit.node for visit in found.visits)
    away = (node for node in nodes if controller.fleet.phase(node) is None)
    return [f"node {node}: its switch isn't connected: what it does now isn't known" for node in away]


def row(found: Trace) -> dict[str, Any]:
    """A trace as JSON has it. Which flow a step met is told by its `ofctl` alone."""
    plain: dict[str, Any] = msgspec.to_builtins(_without_keys(found))
    return plain


def _without_keys(found: Trace) -> Trace:
    replace = msgspec.structs.replace
    visits = (replace(visit, steps=tuple(replace(step, flow=None) for step in visit.steps)) for visit in found.visits)
    return replace(found, visits=tuple(visits))
