"""What there is: lists of every kind of object, page by page, and single objects."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from controller import lists
from controller.api import watches
from controller.api.route import ApiError, Parameter, Route, answer, arguments, flag, number
from controller.concerns import KINDS
from controller.kinds import kinds
from controller.lists import Choice, Kind, ListError, Row
from topology import selectors

if TYPE_CHECKING:
    from controller.app import Controller

#: Kinds whose objects may be asked for one by one, and what people call one.
_SINGLE = {"nodes": "node", "pods": "pod", "services": "Service"}
_LIMIT = 1_000_000


def routes(controller: Controller) -> list[Route]:
    """The routes of this module."""
    there = kinds(controller)
    return [
        *(_list(controller, kind) for kind in there.values()),
        *(_single(there[name], title) for name, title in _SINGLE.items()),
    ]


def _list(controller: Controller, kind: Kind) -> Route:
    async def handle(request: web.Request) -> web.StreamResponse:
        asked = arguments(request)
        try:
            choice = _choice(kind, asked)
            start = lists.place_of(kind, asked["continue"]) if asked.get("continue") else None
        except ListError as error:
            raise ApiError(400, str(error)) from error
        if asked.get("watch"):
            for word in ("limit", "continue", "counters", "names"):
                # Of names it is said that they are to be left out.
                if word in asked and (asked[word] or word == "names"):
                    raise ApiError(400, f"watch doesn't go with {word}: it tells all rows, and what becomes of them")
            return await watches.stream(request, controller, kind, choice)
        counted = await kind.count() if kind.count is not None and asked.get("counters") else None
        counts = counted.counts if counted is not None else None
        told_of = kind
        if kind.nameless is not None and not asked.get("names", True):
            told_of = msgspec.structs.replace(kind, rows=kind.nameless)
        for page in lists.page(told_of, choice, asked.get("limit", 0), start, counts):
            if page is None:
                # Whose turn it is: a list of all pods takes longer than a switch should wait.
                await asyncio.sleep(0)
                continue
            told: dict[str, Any] = {"items": page.rows}
            if page.next is not None:
                told["continue"] = lists.token(page.next)
            if page.remaining is not None:
                told["remaining"] = page.remaining
            if counted is not None:
                told["missing"] = list(counted.missing)
            return answer(told)
        raise AssertionError("a list ends with a page")

    parameters = [
        number("limit", "How many rows at most; all if nothing is said.", 1, _LIMIT),
        Parameter("continue", "Where the last answer says that the list goes on."),
        Parameter("fieldSelector", "Only rows of which this is true: FIELD=VALUE or FIELD!=VALUE, comma-separated."),
    ]
    if kind.nameless is not None:
        parameters.append(flag("names", "0: with podNames left empty, which may be all pods of the cluster."))
    if kind.is_namespaced:
        parameters.append(Parameter("namespace", "Only what is in this namespace, and what is in none."))
    if kind.labels is not None:
        parameters.append(Parameter("labelSelector", "Only objects with such labels, as kubectl's --selector."))
    if kind.count is not None:
        parameters.append(flag("counters", "Also what all switches together have counted."))
    if kind.name in KINDS:
        parameters.append(flag("watch", "Also what becomes of the rows, as server-sent events (text/event-stream)."))
    missing = {
        "type": "array",
        "items": {"type": "string"},
        "description": "With counters: nodes whose switches haven't answered in time; nothing of theirs is in.",
    }
    return Route(
        path=f"/v1/{kind.name}",
        about=kind.about,
        handler=handle,
        parameters=tuple(parameters),
        streams=kind.name in KINDS,
        answer={
            "type": "object",
            "properties": {
                "items": {"type": "array", "items": _schema(kind)},
                "continue": {"type": "string", "description": "Where the list goes on, if it does."},
                "remaining": {"type": "integer", "description": "How many rows there are still, where that is known."},
                **({"missing": missing} if kind.count is not None else {}),
            },
            "required": ["items"],
            "additionalProperties": False,
        },
    )


def _choice(kind: Kind, asked: Mapping[str, Any]) -> Choice:
    try:
        labels = selectors.parse(asked.get("labelSelector", ""))
    except ValueError as error:
        raise ListError(f"labelSelector: {error}") from error
    conditions = lists.conditions(kind, asked.get("fieldSelector", ""))
    return Choice(namespace=asked.get("namespace", ""), labels=labels, conditions=conditions)


def _single(kind: Kind, title: str) -> Route:
    async def handle(request: web.Request) -> web.Response:
        key = tuple(request.match_info[field] for field in kind.identity)
        row: Row | None = next(kind.rows([key], None), None)
        if row is None:
            raise ApiError(404, f"no {title} {'/'.join(key)!r}")
        return answer(row)

    path = "/".join(f"{{{field}}}" for field in kind.identity)
    return Route(path=f"/v1/{kind.name}/{path}", about=f"One {title}: its row.", handler=handle, answer=_schema(kind))


def _schema(kind: Kind) -> dict[str, Any]:
    """What a row of a kind is. What is counted is there if it was asked for."""
    fields = (*kind.fields, *kind.counted)
    return {
        "type": "object",
        "properties": {each.name: {**each.schema, "description": each.about} for each in fields},
        "required": [each.name for each in kind.fields],
        "additionalProperties": False,
    }
