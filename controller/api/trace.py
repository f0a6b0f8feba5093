"""Where a packet goes: the answer of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from controller.api.route import FAMILY, ApiError, Parameter, Route, answer, arguments, flag, number
from controller.trace.compiled import Compiled
from controller.trace.errors import TraceError
from controller.trace.first_packet import Asked, packet_to
from controller.trace.model import trace
from controller.trace.result import Trace

if TYPE_CHECKING:
    from controller.app import Controller


_PORT = number("port", "The destination port; a Service's if it has only one and nothing is said.", 0, 65535)


_ABOUT = {
    "question": "The packet, as it leaves whoever sends it.",
    "verdict": "What became of it.",
    "end": "Where its way ends, and why it wasn't delivered.",
    "visits": "What each switch did with it: the ports, the flows that it met, NAT.",
    "hops": "From one switch to the next: how.",
    "service": "The Service's ADDRESS:PORT that it was bound for; empty where it wasn't for one.",
    "endpoint": "The endpoint that was chosen.",
    "endpoints": "All that may be.",
    "judgements": "What each table of policies came to, by which rule.",
}


def _schema() -> dict[str, Any]:
    """What a trace is, in one piece: `row` tells no step's flow."""
    _, parts = msgspec.json.schema_components((Trace,), schema_hook=lambda _: {"type": "null"}, ref_template="{name}")
    parts["Step"]["properties"]["flow"] = {"type": "null"}

    def whole(part: Any) -> Any:
        match part:
            case {"$ref": str(name)}:
                return whole(parts[name])
            case dict():
                return {key: whole(each) for key, each in part.items() if key != "title"}
            case list():
                return list(map(whole, part))
        return part

    found: dict[str, Any] = whole(parts["Trace"])
    for name, about in _ABOUT.items():
        found["properties"][name]["description"] = about
    del found["description"]
    return found


_TRACE = _schema()
_TEXTS = {"type": "array", "items": {"type": "string"}}
_CAUTIONS = _TEXTS | {"description": "Where it isn't known what a switch does now, because it is away."}
_DIFFERENCES = _TEXTS | {"description": "What switches did otherwise than the model says."}


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
        try:
            packet = packet_to(compiled.compiler, said["to"], said.get("protocol", "").upper(), said.get("port", 0))
            asked = Asked(said["from"], said["to"], *packet, said.get("family", 0), said.get("endpoint", ""))
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
        Parameter("protocol", "TCP, UDP, SCTP or ICMP; TCP if a port is said, else ICMP, or a Service's."),
        _PORT,
        FAMILY,
        Parameter("endpoint", "ADDRESS:PORT that a Service is to choose; the first if nothing is said."),
    )
    return [
        Route(
            path="/v1/trace",
            about="The way of a connection's first packet by the model: switches, flows, NAT, verdict.",
            handler=tell,
            parameters=parameters,
            answer=_TRACE
            | {
                "properties": _TRACE["properties"] | {"cautions": _CAUTIONS},
                "required": [*_TRACE["required"], "cautions"],
            },
        ),
        Route(
            method="POST",
            path="/v1/trace",
            about="The same by a marked packet that is really sent and held back at its end, and what is otherwise.",
            handler=tell,
            parameters=(*parameters, flag("deliver", "Whether it arrives, rather than being held back at its end.")),
            answer={
                "type": "object",
                "properties": {
                    "model": _TRACE | {"description": "The trace by the model."},
                    "live": _TRACE | {"description": "The trace that switches told."},
                    "differences": _DIFFERENCES,
                },
                "required": ["model", "live", "differences"],
                "additionalProperties": False,
            },
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
