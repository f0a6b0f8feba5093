"""signalbox get: lists of objects, as kubectl has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from controller.cli import completing, listing, watching
from controller.cli.kinds import Kind, title
from controller.cli.listing import CHUNK, Wanted
from controller.cli.printing import Column, Row, print_rows
from controller.cli.questions import dump, output_option, socket_options


@click.command()
@click.argument(
    "words",
    metavar="KIND[,KIND]... [NAME]... | KIND/NAME...",
    nargs=-1,
    required=True,
    shell_complete=completing.objects,
)
@listing.choosing
@click.option(
    "-l", "--selector", default="", metavar="LABELS", help="Only objects with such labels: a=b,c!=d,e in (f,g),!h."
)
@click.option(
    "--field-selector",
    default="",
    metavar="FIELDS",
    help="Only rows with such fields, as -o json has them: node=n1,status!=Ready.",
)
@click.option("--sort-by", metavar="FIELD", help="Sort by a field, as -o json has it.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N objects only.")
@click.option(
    "--chunk-size",
    type=click.IntRange(0),
    default=CHUNK,
    show_default=True,
    metavar="N",
    help="How many objects the controller is asked for at a time; 0: all at once.",
)
@click.option("-w", "--watch", is_flag=True, help="Go on with what becomes of them, a line each, until Ctrl-C.")
@click.option("--watch-only", is_flag=True, help="Only what becomes of them, not what they are.")
@click.option(
    "--output-watch-events", is_flag=True, help="With --watch: say of each whether it is ADDED, MODIFIED or DELETED."
)
@click.option("--counters", is_flag=True, help="What all switches together have counted for each.")
@output_option("table", "wide", "json", "yaml", "name")
@socket_options
def get(
    words: tuple[str, ...],
    namespace: str,
    all_namespaces: bool,
    selector: str,
    field_selector: str,
    sort_by: str | None,
    limit: int | None,
    chunk_size: int,
    watch: bool,
    watch_only: bool,
    output_watch_events: bool,
    counters: bool,
    output: str,
    socket_path: Path | None,
    lab: str | None,
) -> None:
    """List objects: all of a kind, those that are named, or several kinds after one another.

    The kinds are nodes, pods, workloads, services, endpoints, policies, identities, links, events, and bgp and routes:
    BGP's peers, and what they are told.
    """
    wanted = Wanted("" if all_namespaces else namespace, selector, field_selector, counters, chunk_size)
    targets = listing.targets(words)
    for target in targets:
        listing.check(target, wanted)
    if watch or watch_only:
        if len(targets) > 1 or sort_by or limit:
            raise click.UsageError("--watch is of one kind, and doesn't go with --sort-by and --limit")
        (target,) = targets
        watching.check(target, wanted)
        watching.show(
            socket_path, lab, target, wanted, columns(target.kind, wanted), output,
            only_changes=watch_only, with_events=output_watch_events,
        )  # fmt: skip
        return
    answers, complaints = [], []
    for target in targets:
        rows = listing.rows(socket_path, lab, target, wanted)
        if complaint := listing.missing(target, rows, wanted):
            complaints.append(complaint)
            if not rows:
                continue
        rows = _sorted(rows, sort_by) if sort_by else rows
        answers.append((target.kind, rows[:limit]))
    _tell_all(answers, wanted, output, is_one=len(targets) == 1)
    if complaints:
        raise click.ClickException("; ".join(complaints))


def _tell_all(answers: Sequence[tuple[Kind, Sequence[Row]]], wanted: Wanted, output: str, *, is_one: bool) -> None:
    """Print the rows of each kind; `is_one` where only one was asked for."""
    if not is_one and answers and output in ("json", "yaml"):
        dump({kind.name: {"items": list(rows)} for kind, rows in answers}, output)
        return
    for number, (kind, rows) in enumerate(answers):
        if number and output in ("table", "wide"):
            click.echo()
        _tell(kind, rows, wanted, output)


def _tell(kind: Kind, rows: Sequence[Row], wanted: Wanted, output: str) -> None:
    if output == "name":
        for row in rows:
            click.echo(f"{kind.singular}/{title(row)}")
    elif not rows and output in ("table", "wide"):
        here = kind.namespaced and wanted.namespace
        click.echo(f"No {kind.title} found{f' in {wanted.namespace} namespace' if here else ''}.", err=True)
    else:
        print_rows(rows, columns(kind, wanted), output)


def columns(kind: Kind, wanted: Wanted) -> tuple[Column, ...]:
    """The columns of a list: the namespace is told where there may be several."""
    there = kind.columns + (kind.counters if wanted.counters else ())
    return tuple(column for column in there if column.key != "namespace" or not wanted.namespace)


def _sorted(rows: list[Row], field: str) -> list[Row]:
    """By a field; rows without it come last. Raises click.ClickException."""
    key = field.lstrip(".")
    if rows and not any(key in row for row in rows):
        raise click.ClickException(f"--sort-by: there is no field {field!r}; there are {', '.join(rows[0])}")

    def place(row: Row) -> tuple[bool, Any]:
        value = row.get(key)
        if value is None:
            return True, ""
        return False, value if isinstance(value, int | float | str) else str(value)

    return sorted(rows, key=place)
