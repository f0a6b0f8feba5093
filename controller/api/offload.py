"""Hardware offload, node by node, as agents report it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from controller.api.route import Route, answer

if TYPE_CHECKING:
    from controller.app import Controller

_MAYBE_FLAG, _MAYBE_NUMBER = {"type": ["boolean", "null"]}, {"type": ["integer", "null"]}
_FIELDS = {
    "node": {"type": "string", "description": "The node's name."},
    "state": {
        "type": "string",
        "enum": ["InForce", "Unavailable", "Off", "Unknown"],
        "description": "Unavailable is what was asked for and isn't in force.",
    },
    "asked": _MAYBE_FLAG | {"description": "Whether its agent was told --hw-offload on."},
    "capable": _MAYBE_FLAG | {"description": "Whether a NIC of it takes flows."},
    "enabled": _MAYBE_FLAG | {"description": "Whether Open vSwitch gives flows to NICs."},
    "nics": _MAYBE_NUMBER | {"description": "NICs that take flows."},
    "functions": _MAYBE_NUMBER | {"description": "Their virtual functions."},
    "functionsUsed": _MAYBE_NUMBER | {"description": "Those that pods have."},
    "flowsOffloaded": _MAYBE_NUMBER | {"description": "Datapath flows that are in a NIC."},
    "flowsPartial": _MAYBE_NUMBER | {"description": "Those that are in part."},
    "flowsNotOffloaded": _MAYBE_NUMBER | {"description": "All others."},
    "bytesPercent": _MAYBE_NUMBER | {"description": "The share of bytes that went by flows in a NIC."},
    "why": {"type": "string", "description": "The first thing in the way of more; empty where there is none."},
}
_ITEMS = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": _FIELDS,
                "required": list(_FIELDS),
                "additionalProperties": False,
            },
        },
    },
    "required": ["items"],
    "additionalProperties": False,
}


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""

    async def offload(request: web.Request) -> web.Response:
        return answer({"items": list(controller.offloads.rows())})

    return [
        Route(
            path="/v1/offload",
            about="Every node: whether its NICs take flows, how many they have, and why not all of them.",
            handler=offload,
            answer=_ITEMS,
        ),
    ]
