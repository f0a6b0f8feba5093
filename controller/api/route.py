"""What a route of the admin API is: its path, whom it is for, what may be asked, and what it answers.

The server makes itself of these declarations, and so does the OpenAPI description.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Parameter(msgspec.Struct, frozen=True):
    """Something that a caller may give in the query. `schema` is JSON Schema."""

    name: str
    about: str
    schema: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})
    required: bool = False


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path. Paths are aiohttp's: `/v1/nodes/{name}`. What changes something needs the role admin."""

    method: str = "GET"
    path: str
    about: str
    handler: Handler
    parameters: tuple[Parameter, ...] = ()


class ApiError(Exception):
    """The answer is an error: a status of 400 or above, and a text that says what would do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class UnknownNodeError(LookupError):
    """There is no such node, or its switch isn't connected; the text says which."""
