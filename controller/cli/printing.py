"""Rows as people and scripts want them: kubectl-like tables, JSON, YAML.

States are coloured. `click.echo` takes colours out again where the output is no terminal, or where none are wanted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click
import yaml

Row = dict[str, Any]

_GOOD = ("Ok", "Ready", "Synced", "Up", "Established", "Delivered", "Accept", "InForce", "Alive")
_WORRYING = (
    *("Pending", "Reading", "Syncing", "Unconfirmed", "NotReady", "Serving", "Terminating"),
    *("Degraded", "Drained", "Warning", "altered", "foreign"),
)
_BAD = ("Failed", "Disconnected", "Refused", "Down", "Unavailable", "Dropped", "Rejected", "Deny", "missing", "Lost")
#: The worst first: of several words in a cell the worst has its way.
_COLOURS = (("red", frozenset(_BAD)), ("yellow", frozenset(_WORRYING)), ("green", frozenset(_GOOD)))


class Column:
    """A column: its heading, the row's key that it shows, and whether only -o wide shows it.

    One that holds a state is coloured. `marks` are words that are added where another key of the row is true, `unknown`
    is shown where the row says nothing.
    """

    def __init__(
        self,
        heading: str,
        key: str,
        *,
        wide: bool = False,
        state: bool = False,
        marks: Mapping[str, str] | None = None,
        unknown: str = "<none>",
    ) -> None:
        self.heading = heading
        self.key = key
        self.wide = wide
        self.state = state
        self._unknown = unknown
        self._marks = marks or {}

    def text(self, row: Row) -> str:
        value = row.get(self.key)
        if added := [word for key, word in self._marks.items() if row.get(key)]:
            value = [value, *added]
        if value is None or value == "" or value == []:
            return self._unknown
        return ",".join(str(each) for each in value) if isinstance(value, list) else str(value)


def print_rows(rows: Sequence[Row], columns: Sequence[Column], output: str) -> None:
    """Print rows in the form that `output` names: table, wide, name, json or yaml."""
    if output == "json":
        click.echo(json.dumps({"items": list(rows)}, indent=2))
    elif output == "yaml":
        click.echo(yaml.safe_dump({"items": list(rows)}, sort_keys=False), nl=False)
    else:
        click.echo(table_of(rows, [column for column in columns if output == "wide" or not column.wide]))


def table_of(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Rows as a table of these columns."""
    cells = [[column.text(row) for column in columns] for row in rows]
    return table([column.heading for column in columns], cells, [column.state for column in columns])


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], states: Sequence[bool] = ()) -> str:
    """Columns as wide as their widest cell, three spaces apart, none after the last. Those of states are coloured."""
    lines = [list(headings), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(headings))]
    coloured = [index for index, is_state in enumerate(states) if is_state]
    made = []
    for number, line in enumerate(lines):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        cells[-1] = cells[-1].rstrip()
        for index in coloured if number else ():
            cells[index] = cells[index].replace(line[index], in_colour(line[index]), 1)
        made.append("   ".join(cells).rstrip())
    return "\n".join(made)


def printable(text: str) -> str:
    """The text without what a terminal would obey: names of ports, say, are what a node says they are."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class Lines:
    """A table that is made line by line: columns get wider, never narrower."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._widths: list[int] = []

    def add(self, rows: Sequence[Row]) -> list[str]:
        """The lines of some more rows; before the first ones, the headings."""
        headings = [column.heading for column in self._columns]
        cells = [[column.text(row) for column in self._columns] for row in rows]
        is_first = not self._widths
        widest = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
        self._widths = widest if is_first else list(map(max, widest, self._widths))
        # A line of nothing as wide as all before keeps the columns where they were.
        ruler = [" " * width for width in self._widths]
        made = table(headings, [ruler, *cells], [column.state for column in self._columns]).splitlines()
        return made[:1] * is_first + made[2:]


def in_colour(state: str) -> str:
    """A state in its colour: green where all is well, yellow where something may become of it, red where it fails."""
    words = set(state.split(","))
    for colour, known in _COLOURS:
        if words & known:
            return click.style(state, fg=colour)
    return state


def bits(rate: float | None) -> str | None:
    """Bits a second as people say them, with three digits at most."""
    if rate is None:
        return None
    for unit, size in (("Gb/s", 1e9), ("Mb/s", 1e6), ("kb/s", 1e3)):
        if rate >= size * 0.9995:
            return f"{rate / size:.3g}{unit}"
    return f"{rate:.0f}b/s"
