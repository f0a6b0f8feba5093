"""Rows as people and scripts want them: kubectl-like tables, JSON, YAML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click
import yaml

Row = dict[str, Any]


class Column:
    """A column: its heading, the row's key that it shows, and whether only -o wide shows it."""

    def __init__(self, heading: str, key: str, *, wide: bool = False) -> None:
        self.heading = heading
        self.key = key
        self.wide = wide

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
        shown = [column for column in columns if output == "wide" or not column.wide]
        click.echo(table([column.heading for column in shown], [[c.text(row) for c in shown] for row in rows]))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, three spaces apart, none after the last."""
    lines = [list(headings), *map(list, rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(headings))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def bits(rate: float | None) -> str | None:
    """Bits a second as people say them, with three digits at most."""
    if rate is None:
        return None
    for unit, size in (("Gb/s", 1e9), ("Mb/s", 1e6), ("kb/s", 1e3)):
        if rate >= size * 0.9995:
            return f"{rate / size:.3g}{unit}"
    return f"{rate:.0f}b/s"
