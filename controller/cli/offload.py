"""signalbox offload: what NICs do of the forwarding, node by node, and why not more."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli.offload_lint import lint
from controller.cli.printing import Column, Row, print_rows
from controller.cli.questions import ask, output_option, socket_options

_COLUMNS = [
    Column("NODE", "node"),
    Column("STATE", "state", state=True),
    Column("CAPABLE", "capable"),
    Column("ENABLED", "enabled"),
    Column("ASKED", "asked", wide=True),
    Column("NICS", "nics", wide=True),
    Column("FUNCTIONS", "functions", wide=True),
    Column("FLOWS", "flows"),
    Column("BYTES", "bytes"),
    Column("WHY", "why"),
]


@click.group(invoke_without_command=True)
@output_option("table", "wide", "json", "yaml")
@socket_options
@click.pass_context
def offload(context: click.Context, output: str, socket_path: Path | None, lab: str | None) -> None:
    """Show what NICs do of the forwarding: of each node whether they can, how much they do, and why not more.

    FLOWS are datapath flows that are in a NIC, in part, and not; BYTES is the share that went by those in a NIC. `wide`
    adds whether it was asked for, NICs that take flows, and virtual functions in use and in all.
    """
    if context.invoked_subcommand is not None:
        return
    rows: list[Row] = ask(socket_path, lab, "offload")["items"]
    if not rows and output in ("table", "wide"):
        click.echo("No nodes found.", err=True)
        return
    print_rows([_in_words(row) for row in rows] if output in ("table", "wide") else rows, _COLUMNS, output)


def _in_words(row: Row) -> Row:
    """With yes and no, and numbers that belong together in one cell."""
    told = {key: {True: "yes", False: "no"}[value] if isinstance(value, bool) else value for key, value in row.items()}
    if row["state"] != "Unknown":
        told["functions"] = f"{row['functionsUsed']}/{row['functions']}"
    if row["enabled"]:
        told["flows"] = "/".join(str(row[key]) for key in ("flowsOffloaded", "flowsPartial", "flowsNotOffloaded"))
        told["bytes"] = f"{row['bytesPercent']}%"
    return told


offload.add_command(lint)
