"""signalbox flows: what a switch has been told, in words."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli.printing import Column, Row, print_rows
from controller.cli.questions import ask, output_option, socket_options

_COLUMNS = [
    Column("TABLE", "table"),
    Column("PRIORITY", "priority"),
    Column("PACKETS", "packets"),
    Column("OBJECT", "object"),
    Column("FLOW", "words"),
]


@click.command()
@click.argument("node")
@click.option("--pod", metavar="[NAMESPACE/]NAME", help="Only flows made for this pod.")
@click.option("--service", metavar="[NAMESPACE/]NAME", help="Only flows made for this Service.")
@click.option(
    "--policy",
    metavar="[NAMESPACE/]NAME",
    help="Only flows made for this policy: of the cluster, or of namespace default where none is given.",
)
@click.option("--table", "table_name", metavar="NAME|NUMBER", help="Only flows of this table.")
@output_option("table", "ofctl", "json", "yaml")
@socket_options
def flows(
    node: str,
    pod: str | None,
    service: str | None,
    policy: str | None,
    table_name: str | None,
    output: str,
    socket_path: Path | None,
    lab: str | None,
) -> None:
    """Show a node's flows as its switch has them, in words: which object made each, what it matches and does."""
    query = {}
    if pod is not None:
        query["pod"] = pod if "/" in pod else f"default/{pod}"
    if service is not None:
        query["service"] = service if "/" in service else f"default/{service}"
    if policy is not None:
        query["policy"] = policy
    if table_name is not None:
        query["table"] = table_name
    rows: list[Row] = ask(socket_path, lab, "nodes", node, "flows", **query)["items"]
    if output == "ofctl":
        for row in rows:
            click.echo(row["ofctl"])
    else:
        print_rows(rows, _COLUMNS, output)
