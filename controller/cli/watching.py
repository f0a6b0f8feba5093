"""Lists that go on: the table, and then a line for whatever becomes of an object, until Ctrl-C."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import yaml

from controller.cli.kinds import KINDS, Kind, title
from controller.cli.listing import Target, Wanted
from controller.cli.printing import Column, Lines, Row
from controller.cli.questions import controller_meant

_EVENT = Column("EVENT", "event")


def check(target: Target, wanted: Wanted) -> None:
    """Say what can't be watched before anything is asked. Raises click.ClickException."""
    if not target.kind.watched:
        there = ", ".join(each.name for each in KINDS if each.watched)
        raise click.ClickException(f"--watch: {target.kind.name} can't be watched; {there} can")
    if wanted.counters:
        raise click.UsageError("--watch doesn't go with --counters: counters change all the time")


def show(
    socket_path: Path | None,
    lab: str | None,
    target: Target,
    wanted: Wanted,
    columns: Sequence[Column],
    output: str,
    *,
    only_changes: bool = False,
    with_events: bool = False,
) -> None:
    """Print what there is, unless only changes are wanted, and then each change, until Ctrl-C.

    Raises click.ClickException where the controller ends it.
    """
    shown = [column for column in columns if output == "wide" or not column.wide]
    lines = Lines([_EVENT, *shown] if with_events else shown)
    first: list[Row] = []
    is_first = True
    try:
        for event, row in _events(socket_path, lab, target, wanted):
            if event == "SYNC":
                is_first = False
                if not only_changes:
                    _tell_all(target.kind, first, lines, output, with_events)
                first = []
            elif is_first:
                first.append(row)
            else:
                _tell_all(target.kind, [{**row, "event": event}], lines, output, with_events)
    except KeyboardInterrupt:
        return
    raise click.ClickException("the controller has ended the watch")


def _events(socket_path: Path | None, lab: str | None, target: Target, wanted: Wanted) -> Iterator[tuple[str, Row]]:
    from controller.cli import client

    query = wanted.query(target.kind, target.names)
    for event, row in client.watch(controller_meant(socket_path, lab), target.kind.asked, query):
        if event == "SYNC" or not target.names or row.get("name") in target.names:
            yield event, row


def _tell_all(kind: Kind, rows: Sequence[Row], lines: Lines, output: str, with_events: bool) -> None:
    """Print rows: those that there are at first, or one that has changed."""
    if output in ("table", "wide"):
        for line in lines.add([{"event": "ADDED", **row} for row in rows]):
            click.echo(line)
        return
    for row in rows:
        event, plain = row.get("event", "ADDED"), {key: value for key, value in row.items() if key != "event"}
        told = {"type": event, "object": plain} if with_events else plain
        if output == "name":
            click.echo(f"{kind.singular}/{title(row)}")
        elif output == "json":
            click.echo(json.dumps(told))
        else:
            click.echo("---\n" + yaml.safe_dump(told, sort_keys=False), nl=False)
