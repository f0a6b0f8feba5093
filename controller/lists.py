"""Lists of the admin API: which kinds there are to be, how a part of a list is chosen, and how it goes on.

A list is made of keys, which are cheap, and rows, which aren't: a page makes the rows that it shows and no others, so
that one of a hundred thousand pods is as quick as one of ten.
"""

from __future__ import annotations

import base64
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from controller.counting import Counted
from topology.metadata import Labels
from topology.selectors import Selector, selects

Row = dict[str, Any]
#: What rows are made by: a pod's (namespace, name). Where rows aren't made one by one, there is one key: ().
Key = tuple[Any, ...]

#: Keys whose rows are made at a time, between which others have their turn.
STRIDE = 100


class ListError(ValueError):
    """A list can't be asked for so; the text says why."""


class Field(msgspec.Struct, frozen=True):
    """A column of rows: its name, what it is, and its JSON Schema."""

    name: str
    about: str
    schema: Mapping[str, Any]


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of rows: of which keys they are made, how, and what is in them.

    `keys` gives them sorted; `rows` makes the rows of some keys, in their order, with what was counted if it was, and
    leaves out what is gone. The first `by` fields of `identity`, which tells rows apart, are a row's key. `known` has
    fields of a key that are found without making its row, and `labels` its labels.
    """

    name: str
    about: str
    fields: tuple[Field, ...]
    identity: tuple[str, ...]
    by: int
    keys: Callable[[], Sequence[Key]]
    rows: Callable[[Sequence[Key], Any], Iterator[Row]]
    known: Callable[[Key], Mapping[str, str]] | None = None
    #: The same rows without the names of pods, where these may be many.
    nameless: Callable[[Sequence[Key], Any], Iterator[Row]] | None = None
    labels: Callable[[Key], Labels] | None = None
    #: Asks all switches what they have counted, for the fields `counted`.
    count: Callable[[], Awaitable[Counted[Any]]] | None = None
    counted: tuple[Field, ...] = ()

    @property
    def is_namespaced(self) -> bool:
        """Whether its objects are in namespaces."""
        return any(each.name == "namespace" for each in self.fields)

    def key(self, row: Row) -> Key:
        """What a row was made by."""
        return tuple(row[field] for field in self.identity[: self.by])

    def identify(self, row: Row) -> Key:
        """What tells a row from others."""
        return tuple(row[field] for field in self.identity)


class Condition(msgspec.Struct, frozen=True):
    """What a row's field is to be, or not to be. A field with several values is what any of them is."""

    field: str
    value: str
    equal: bool

    def holds(self, found: Any) -> bool:
        """Whether a field's value is right."""
        values = map(_text, found) if isinstance(found, list | tuple) else (_text(found),)
        return (self.value in values) is self.equal


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows of a kind are wanted."""

    namespace: str = ""
    labels: Selector = ()
    conditions: tuple[Condition, ...] = ()

    def admits(self, kind: Kind, key: Key) -> bool:
        """Whether what is known of a key without its row is right."""
        if self.labels and (kind.labels is None or not selects(self.labels, kind.labels(key))):
            return False
        if kind.known is not None and (self.namespace or self.conditions):
            known = kind.known(key)
            if self.namespace and known.get("namespace") not in (self.namespace, "", None):
                return False
            return all(each.field not in known or each.holds(known[each.field]) for each in self.conditions)
        return True

    def holds(self, row: Row) -> bool:
        """Whether a row is right; `admits` has looked at its labels. What is in no namespace concerns all."""
        if self.namespace and row["namespace"] not in (self.namespace, ""):
            return False
        return all(each.holds(row[each.field]) for each in self.conditions)


#: A place in a list: a key, and behind how many of its rows.
Place = tuple[Key, int]


class Page(msgspec.Struct, frozen=True):
    """A part of a list, where it goes on, and how many rows there are still, if that is known without making them."""

    rows: list[Row]
    next: Place | None = None
    remaining: int | None = None


def page(kind: Kind, choice: Choice, limit: int, start: Place | None, counted: Any) -> Iterator[Page | None]:
    """The page behind `start`, of at most `limit` rows, or all if that is 0.

    Before it comes None now and then: a moment to let others have their turn. What is in the list all the while is
    told once, whatever comes and goes meanwhile.
    """
    keys = kind.keys()
    found: list[Row] = []
    last = start
    for each in _placed(kind, choice, keys, start, counted):
        if each is None:
            yield None
            continue
        if limit and len(found) == limit:
            assert last is not None
            is_counted = choice == Choice() and kind.by == len(kind.identity)
            yield Page(found, last, len(keys) - bisect_right(keys, last[0]) if is_counted else None)
            return
        last, row = each
        found.append(row)
    yield Page(found)


def _placed(
    kind: Kind, choice: Choice, keys: Sequence[Key], start: Place | None, counted: Any
) -> Iterator[tuple[Place, Row] | None]:
    """The rows that are chosen, each with its place, behind `start`."""
    first = 0 if start is None else bisect_left(keys, start[0])
    for index in range(first, len(keys), STRIDE):
        some = [key for key in keys[index : index + STRIDE] if choice.admits(kind, key)]
        before: Place | None = None
        for row in kind.rows(some, counted):
            key = kind.key(row)
            place = before = (key, before[1] + 1 if before is not None and before[0] == key else 1)
            if (start is None or place > start) and choice.holds(row):
                yield place, row
        yield None


def token(place: Place) -> str:
    """A place as callers have it, to come back with."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place_of(kind: Kind, text: str) -> Place:
    """The place of a token. Raises ListError."""
    try:
        key, number = msgspec.json.decode(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
        place = (tuple(key), number)
        example = kind.keys()
        fits = len(place[0]) == kind.by and isinstance(number, int) and number >= 0
        if fits and (not example or all(type(a) is type(b) for a, b in zip(place[0], example[0], strict=True))):
            return place
    except (ValueError, TypeError, msgspec.DecodeError):
        pass
    raise ListError(f"continue is what an answer of {kind.name} had as its continue, not {text[:40]!r}")


def conditions(kind: Kind, text: str) -> tuple[Condition, ...]:
    """What `field=value,field!=value` means. Raises ListError."""
    names = [each.name for each in kind.fields]
    found = []
    for part in filter(None, text.split(",")):
        field, operator, value = _split(part)
        if field not in names:
            raise ListError(f"{kind.name} have no field {field[:40]!r}; their fields are {', '.join(names)}")
        found.append(Condition(field, value, operator != "!="))
    return tuple(found)


def _split(part: str) -> tuple[str, str, str]:
    for operator in ("!=", "==", "="):
        field, there, value = part.partition(operator)
        if there:
            return field.strip(), operator, value.strip()
    raise ListError(f"expected FIELD=VALUE or FIELD!=VALUE, not {part[:40]!r}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
