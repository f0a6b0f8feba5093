"""signalbox flows: what a switch has been told, in words, what each flow carries, and what is otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from controller.cli import completing, kinds
from controller.cli.printing import Column, Row, bits, print_rows
from controller.cli.questions import ask, dump, output_option, socket_options

_COLUMNS = [
    Column("TABLE", "table"),
    Column("PRIORITY", "priority"),
    Column("PACKETS", "packets"),
    Column("OBJECT", "object"),
    Column("FLOW", "words"),
    Column("OFCTL", "ofctl", wide=True),
]
_RATE_COLUMNS = [*_COLUMNS[:3], Column("PACKETS/S", "packetRate"), Column("RATE", "rate"), *_COLUMNS[3:]]
_DIFFERENCE_COLUMNS = [Column("STATE", "state", state=True), *_COLUMNS]


@click.command()
@click.argument("node", shell_complete=completing.nodes)
@click.option("--pod", metavar="[NAMESPACE/]NAME", help="Only flows made for this pod.")
@click.option("--service", metavar="[NAMESPACE/]NAME", help="Only flows made for this Service.")
@click.option(
    "--policy",
    metavar="[NAMESPACE/]NAME",
    help="Only flows made for this policy: of the cluster, or of namespace default where none is given.",
)
@click.option("--table", "table_name", metavar="NAME|NUMBER", help="Only flows of this table.")
@click.option("--diff", "wants_differences", is_flag=True, help="Only what isn't as it should be; nothing is repaired.")
@click.option(
    "--rate",
    "seconds",
    type=click.IntRange(1, 10),
    metavar="SECONDS",
    help="Also what each flow carries, measured for so long.",
)
@output_option("table", "wide", "ofctl", "json", "yaml")
@socket_options
def flows(
    node: str,
    pod: str | None,
    service: str | None,
    policy: str | None,
    table_name: str | None,
    wants_differences: bool,
    seconds: int | None,
    output: str,
    socket_path: Path | None,
    lab: str | None,
) -> None:
    """Show a node's flows as its switch has them, in words: which object made each, what it matches and does.

    With --diff: what is missing, altered or foreign (nobody's), of all flows; the exit code is 1 if anything is. In
    `ofctl` a line then begins with - where the flow should be there, and with + where it is.
    """
    node, query = kinds.node_name(node), {}
    if pod is not None:
        query["pod"] = kinds.pod_name(pod)
    if service is not None:
        query["service"] = service if "/" in service else f"default/{service}"
    if policy is not None:
        query["policy"] = policy
    if table_name is not None:
        query["table"] = table_name
    if wants_differences:
        if seconds is not None:
            raise click.UsageError("say --diff or --rate: a flow that is missing carries nothing")
        _tell_differences(ask(socket_path, lab, "nodes", node, "flows", diff="1", **query), output)
        return
    if seconds is not None:
        query["rate"] = str(seconds)
    rows: list[Row] = ask(socket_path, lab, "nodes", node, "flows", **query)["items"]
    if output == "ofctl":
        for row in rows:
            click.echo(row["ofctl"])
    elif output in ("table", "wide") and seconds is not None:
        print_rows([{**row, **_rate_words(row)} for row in rows], _RATE_COLUMNS, output)
    else:
        print_rows(rows, _COLUMNS, output)


def _rate_words(row: Row) -> Row:
    return {"packetRate": f"{row['packetsPerSecond']:.0f}", "rate": bits(row["bytesPerSecond"] * 8)}


def _tell_differences(answer: dict[str, Any], output: str) -> None:
    rows: list[Row] = answer["items"]
    if output in ("json", "yaml"):
        dump(answer, output)
    elif output == "ofctl":
        for row in rows:
            for line in _signed(row):
                click.echo(line)
    elif rows:
        shown = [line for row in rows for line in _lines(row)]
        print_rows(shown, _DIFFERENCE_COLUMNS, output)
    else:
        click.echo(f"No differences: {answer['compared']} flows are as they should be.")
    if not answer["settled"]:
        click.echo("The switch is being changed just now: what is on its way is told as a difference.", err=True)
    if rows:
        raise SystemExit(1)


def _lines(row: Row) -> Iterator[Row]:
    """A flow as it is, and one that is altered as it should be, in a line below."""
    yield row
    if "shouldBe" in row:
        yield {**row, "state": "should be", "packets": "-", "words": row["shouldBe"], "ofctl": row["shouldBeOfctl"]}


def _signed(row: Row) -> Iterator[str]:
    if row["state"] == "missing":
        yield f"-{row['ofctl']}"
        return
    if "shouldBeOfctl" in row:
        yield f"-{row['shouldBeOfctl']}"
    yield f"+{row['ofctl'] or row['words']}"
