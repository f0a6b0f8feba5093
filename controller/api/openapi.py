"""The admin API's description of itself, in OpenAPI 3.1, made of its routes.

https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from controller.api.route import Route
from controller.watching import ADDED, DELETED, MODIFIED, SYNC

_ERROR = {
    "description": "What is wrong, and what would do.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}

#: An event of a list that goes on: what became of a row, and the row as JSON.
_EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string", "enum": [ADDED, MODIFIED, DELETED, SYNC]}, "data": {"type": "string"}},
    "required": ["event", "data"],
}


def describe(routes: Iterable[Route]) -> dict[str, Any]:
    """All routes as one document."""
    found = list(routes)
    bodies = [route.body for route in found if route.body is not None]
    schemas, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    by_body = dict(zip(map(id, bodies), schemas, strict=True))
    paths: dict[str, Any] = {}
    for route in found:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_body)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Signalbox",
            "version": "v1",
            "description": "Administration of an Open vSwitch network from one place.",
        },
        "paths": paths,
        "security": [{}, {"token": []}, {"certificate": []}],
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Over TLS; on the Unix socket none is needed.",
                },
                "certificate": {"type": "mutualTLS", "description": "A person's, over TLS and instead of a token."},
            },
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}},
                    "required": ["error"],
                    "additionalProperties": False,
                },
                **components,
            },
        },
    }


def _content(route: Route) -> dict[str, Any]:
    content: dict[str, Any] = {route.media: {"schema": dict(route.answer)}}
    if route.streams:
        content["text/event-stream"] = {"schema": _EVENT}
    return content


def _operation(route: Route, bodies: dict[int, Any]) -> dict[str, Any]:
    words = [word for word in re.split(r"\W+", route.path.removeprefix("/v1")) if word]
    told: dict[str, Any] = {
        "operationId": "".join([route.method.lower(), *(word[0].upper() + word[1:] for word in words)]),
        "summary": route.about,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
                for name in re.findall(r"\{(\w+)\}", route.path)
            ),
            *(
                {
                    "name": each.name,
                    "in": "query",
                    "required": each.required,
                    "description": each.about,
                    "schema": each.schema | ({"minLength": 1} if each.required else {}),
                }
                for each in route.parameters
            ),
        ],
        "responses": {
            str(route.status): {"description": route.about, "content": _content(route)},
            "default": _ERROR,
        },
    }
    if route.body is not None:
        schema = bodies[id(route.body)]
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if not told["parameters"]:
        del told["parameters"]
    return told
