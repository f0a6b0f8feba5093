"""Rows as people and scripts want them: kubectl-like tables, JSON, YAML.

States are coloured. `click.echo` takes colours out again where the output is no terminal, or where none are wanted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click
import yaml

Row = dict[str, Any]

_GOOD = ("Ok", "Ready", "Synced", "Up", "Established", "Delivered", "Accept", "InForce")
_WORRYING = (
    *("Pending", "Reading", "Syncing", "Unconfirmed", "NotReady", "Serving", "Terminating"),
    *("Degraded", "Drained", "Warning", "altered", "foreign"),
)
_BAD = ("Failed", "Disconnected", "Refused", "Down", "Unavailable", "Dropped", "Rejected", "Deny", "missing")
#: The worst first: of several words in a cell the worst has its way.
_COLOURS = (("red", frozenset(_BAD)), ("yellow", frozenset(_WORRYING)), ("green", frozenset(_GOOD)))


class Column:
    """A column: its heading, the row's key that it shows, and whether only -o wide shows it.

    One that holds a state is coloured.
    """

    def __init__(self, heading: str, key: str, *, wide: bool = False, state: bool = False) -> None:
        self.heading = heading
        self.key = key
        self.wide = wide
        self.state = state

    def text(self, row: Row) -> str:
        value = row.get(self.key)
        if value is None or value == "" or value == []:
            return "<none>"
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
    lines = [list(headings), *map(list, rows)]
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
