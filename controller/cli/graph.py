"""signalbox topology: how nodes are connected, as a table, a drawing or a graph; and the way from one to another."""

from __future__ import annotations

import sys
from pathlib import Path
from time import sleep as pause
from typing import Any

import click

from controller.cli import kinds
from controller.cli.printing import Column, Row, bits, print_rows, table_of
from controller.cli.questions import ask, dump, output_option, socket_options

_COLUMNS = [
    Column("A", "from"),
    Column("PORT", "fromPort"),
    Column("B", "to"),
    Column("PORT", "toPort"),
    Column("KIND", "kind"),
    Column("COST", "cost"),
    Column("STATE", "state", state=True),
]
_LOAD_COLUMNS = [
    Column("USED", "used"),
    Column("A-TO-B", "there"),
    Column("B-TO-A", "back"),
    Column("SPEED", "speed"),
]
#: What the controller makes texts of.
_TEXTS = ("text", "dot", "svg", "graphml")
#: Seconds between two tables.
_INTERVAL = 2.0


@click.group(invoke_without_command=True)
@click.option("--load", is_flag=True, help="Also how much each link carries now; the first time that takes a second.")
@click.option("-w", "--watch", is_flag=True, help="Show the table every two seconds, with the load, until Ctrl-C.")
@output_option("table", "wide", "text", "svg", "dot", "graphml", "json", "yaml")
@socket_options
@click.pass_context
def topology(
    context: click.Context, load: bool, watch: bool, output: str, socket_path: Path | None, lab: str | None
) -> None:
    """Show how the nodes are connected: every link with its ports, cost and state.

    `wide` and `--watch` also say how much each link carries. `text` is a tree by networks, `svg` a drawing, `dot` is
    for Graphviz, and `graphml` for programs that know graphs.
    """
    if context.invoked_subcommand is not None:
        context.obj = (socket_path, lab)
        return
    if watch and output not in ("table", "wide"):
        raise click.UsageError("--watch goes with -o table and -o wide")
    query = {"load": "1"} if load or watch or output == "wide" else {}
    if output in _TEXTS:
        click.echo(ask(socket_path, lab, "topology", format=output, **query)["text"], nl=False)
        return
    try:
        while True:
            answer = ask(socket_path, lab, "topology", format="json", **query)
            if output in ("json", "yaml"):
                dump(answer, output)
                return
            text = _table(answer["links"], with_load=bool(query))
            if not watch:
                click.echo(text, err=not answer["links"])
                return
            # One write, so that a screen doesn't flicker.
            click.echo("\x1b[H\x1b[2J" + text if sys.stdout.isatty() else text + "\n")
            pause(_INTERVAL)
    except KeyboardInterrupt:
        return


def _table(rows: list[Row], *, with_load: bool) -> str:
    if not rows:
        return "No links found."
    columns = _COLUMNS + (_LOAD_COLUMNS if with_load else [])
    shown = [{**row, **_load_words(row)} for row in rows]
    return table_of(shown, columns)


def _load_words(row: Row) -> Row:
    load = row.get("load")
    return {
        "used": None if load is None else f"{load:.0%}",
        "there": bits(row.get("txBitsPerSecond")),
        "back": bits(row.get("rxBitsPerSecond")),
        "speed": bits(row.get("speedBitsPerSecond")),
    }


@topology.command()
@click.argument("source", metavar="A")
@click.argument("target", metavar="B")
@output_option("table", "json", "yaml")
@socket_options
@click.pass_obj
def path(
    around: tuple[Path | None, str | None],
    source: str,
    target: str,
    output: str,
    socket_path: Path | None,
    lab: str | None,
) -> None:
    """Show the way of packets from A to B, hop by hop, with the ports.

    Each is [NAMESPACE/]POD, pod/[NAMESPACE/]POD, a node's name, or node/NAME. Where several ways are as good,
    connections are spread over them: the first by name is shown, and of each hop what else there is.
    """
    outer_socket, outer_lab = around
    answer = ask(
        socket_path or outer_socket, lab or outer_lab, "path", **{"from": kinds.end(source), "to": kinds.end(target)}
    )
    if output != "table":
        dump(answer, output)
        return
    click.echo(f"from {_end(answer['from'])}")
    rows = [{**hop, "number": number, "or": _others(hop)} for number, hop in enumerate(answer["hops"], 1)]
    if rows:
        columns = [
            Column("HOP", "number"), Column("FROM", "from"), Column("PORT", "fromPort"), Column("TO", "to"),
            Column("PORT", "toPort"), Column("KIND", "kind"), Column("COST", "cost"), Column("OR", "or"),
        ]  # fmt: skip
        print_rows(rows, columns, "table")
    click.echo(
        f"to {_end(answer['to'])}, cost {answer['cost']}" if rows else f"to {_end(answer['to'])}: the same bridge"
    )


def _end(end: dict[str, Any]) -> str:
    if not end["pod"]:
        return f"node {end['node']}"
    return f"pod {end['pod']} on {end['node']}" + (f", port {end['port']}" if end["port"] else "")


def _others(hop: dict[str, Any]) -> list[str]:
    return [f"{each['fromPort']}>{each['to']}:{each['toPort']}" for each in hop["others"]]
