"""What a route of the admin API is: its path, whom it is for, what may be asked, and what it answers.

The server makes itself of these declarations, checks by them what callers say, and describes itself by them in OpenAPI.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = TypeVar("Body")

#: A list whose rows are told in docs/api.md.
ITEMS = {"type": "object", "properties": {"items": {"type": "array"}}, "required": ["items"]}
#: The greatest body of a request, in bytes.
BODY_LIMIT = 1 << 16
_DIGITS = 10
_ARGUMENTS = web.RequestKey("arguments", dict)
_YES, _NO = ("1", "true"), ("0", "false")


class Parameter(msgspec.Struct, frozen=True):
    """Something that a caller may give in the query. `schema` is JSON Schema: text, one of several, or a number."""

    name: str
    about: str
    schema: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})
    required: bool = False

    def value(self, text: str) -> Any:
        """What a caller's word means. Raises ApiError."""
        if self.schema["type"] == "integer":
            least, most = self.schema.get("minimum", 0), self.schema.get("maximum", 10**_DIGITS - 1)
            if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and least <= int(text) <= most):
                raise ApiError(400, f"{self.name} is a number from {least} to {most}, not {text[:40]!r}")
            found: int | str = int(text)
        else:
            found = text
        allowed = self.schema.get("enum")
        if allowed == [*_YES, *_NO]:
            if text not in allowed:
                raise ApiError(400, f"{self.name} is 1 or 0, not {text[:40]!r}")
            return text in _YES
        if allowed is not None and found not in allowed:
            raise ApiError(400, f"{self.name} is {_listed(map(str, allowed), 'or')}, not {text[:40]!r}")
        return found


def flag(name: str, about: str) -> Parameter:
    """A parameter that is 1 or true for yes, 0 or false for no."""
    return Parameter(name, about, {"type": "string", "enum": [*_YES, *_NO]})


def number(name: str, about: str, least: int, most: int) -> Parameter:
    """A parameter that is a whole number within bounds."""
    return Parameter(name, about, {"type": "integer", "minimum": least, "maximum": most})


def choice(name: str, about: str, words: Iterable[str]) -> Parameter:
    """A parameter that is one of some words."""
    return Parameter(name, about, {"type": "string", "enum": list(words)})


PORT = number("port", "The destination port.", 0, 65535)
FAMILY = Parameter("family", "4 or 6; 0: what both have.", {"type": "integer", "enum": [0, 4, 6]})


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path. Paths are aiohttp's: `/v1/nodes/{name}`. What changes something needs the role admin."""

    method: str = "GET"
    path: str
    about: str
    handler: Handler
    parameters: tuple[Parameter, ...] = ()
    #: What a request's body is, as JSON; None where there is none.
    body: Any = None
    #: What the answer is, as JSON Schema, its status, and its media type.
    answer: Mapping[str, Any] = msgspec.field(default_factory=lambda: {"type": "object"})
    status: int = 200
    media: str = "application/json"
    #: Whether it may be asked to go on, as server-sent events.
    streams: bool = False

    def checked(self) -> Handler:
        """The handler, asked only what it can be asked. Raises ApiError."""

        async def handle(request: web.Request) -> web.StreamResponse:
            request[_ARGUMENTS] = self._arguments(request)
            return await self.handler(request)

        return handle

    def _arguments(self, request: web.Request) -> dict[str, Any]:
        known = {each.name: each for each in self.parameters}
        found: dict[str, Any] = {}
        for name, text in request.query.items():
            parameter = known.get(name)
            if parameter is None:
                there = f"the parameters are {_listed(known)}" if known else "there are no parameters"
                raise ApiError(400, f"no parameter {name[:40]!r} of {self.method} {self.path}; {there}")
            if name in found:
                raise ApiError(400, f"{name} is given twice")
            found[name] = parameter.value(text)
        for each in self.parameters:
            if each.required and not found.get(each.name):
                raise ApiError(400, f"say {each.name!r}: {each.about.rstrip('.')}")
        return found


class ApiError(Exception):
    """The answer is an error: a status of 400 or above, and a text that says what would do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class UnknownNodeError(LookupError):
    """There is no such node, or its switch isn't connected; the text says which."""


def arguments(request: web.Request) -> dict[str, Any]:
    """What the caller said in the query, by the route's parameters: text, int or bool. What isn't said isn't there."""
    return request[_ARGUMENTS]


async def body(request: web.Request, kind: type[Body]) -> Body:
    """The request's body, decoded from JSON. Raises ApiError that names the field."""
    if (request.content_length or 0) > BODY_LIMIT:
        raise ApiError(413, f"the body has more than {BODY_LIMIT} bytes")
    text = await request.content.read(BODY_LIMIT + 1)
    while len(text) <= BODY_LIMIT and (more := await request.content.read(BODY_LIMIT + 1 - len(text))):
        text += more
    if len(text) > BODY_LIMIT:
        raise ApiError(413, f"the body has more than {BODY_LIMIT} bytes")
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the body: {error}") from error


def answer(value: Any, status: int = 200) -> web.Response:
    """A value as JSON."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _listed(words: Iterable[str], before_last: str = "and") -> str:
    *first, last = words
    return f"{', '.join(first)} {before_last} {last}" if first else last
