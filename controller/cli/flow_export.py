"""signalbox flow-export: who tells which collector, and whose the addresses in flow records are."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from controller.cli.printing import Column, Row, print_rows
from controller.cli.questions import ask, output_option, socket_options

_EXPORTER_COLUMNS = [
    Column("NODE", "node"),
    Column("DOMAIN", "observationDomain"),
    Column("ENGINE", "engine"),
    Column("ADDRESSES", "addresses"),
    Column("TELLS", "tells"),
]
_NAME_COLUMNS = [
    Column("ADDRESS", "address"),
    Column("KIND", "kind"),
    Column("NAMESPACE", "namespace"),
    Column("NAME", "name"),
    Column("NODE", "node"),
    Column("PORT", "port", wide=True),
    Column("NUMBER", "portNumber", wide=True),
]
#: What may be an address: looked up as it stands, so that what only looks like one is left as it is.
_ADDRESS = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7})(?![\w])")


@click.group("flow-export")
def flow_export() -> None:
    """Say who tells which collector of packets (IPFIX, sFlow, NetFlow), and whose the addresses in records are."""


@flow_export.command()
@output_option("table", "json", "yaml")
@socket_options
def exporters(output: str, socket_path: Path | None, lab: str | None) -> None:
    """Show every node as flow records name it, and the collectors that it tells."""
    rows = ask(socket_path, lab, "flow-export", "exporters")["items"]
    if output == "table":
        rows = [
            {**row, "tells": [f"{e['protocol']}:{c}" for e in row["exports"] for c in e["collectors"]]} for row in rows
        ]
    print_rows(rows, _EXPORTER_COLUMNS, output)


@flow_export.command()
@output_option("table", "wide", "json", "yaml")
@socket_options
def names(output: str, socket_path: Path | None, lab: str | None) -> None:
    """Show whose every address is that may be in flow records. `wide` adds the port of the bridge."""
    print_rows(ask(socket_path, lab, "flow-export", "names")["items"], _NAME_COLUMNS, output)


@flow_export.command()
@socket_options
def resolve(socket_path: Path | None, lab: str | None) -> None:
    """Copy standard input and write names for the cluster's addresses in it, as of now.

    Whatever a collector's own tools print: a pod is NAMESPACE/NAME, a Service svc/NAMESPACE/NAME, a node node/NAME.
    """
    known = {row["address"]: _title(row) for row in ask(socket_path, lab, "flow-export", "names")["items"]}
    for line in sys.stdin:
        click.echo(named(line, known), nl=False)


def named(text: str, known: dict[str, str]) -> str:
    """The text with names for the addresses that are known; a port after IPv4's colon stays what it is."""
    return _ADDRESS.sub(lambda found: known.get(found[0].lower(), found[0]), text)


def _title(row: Row) -> str:
    if row["kind"] == "Node":
        return f"node/{row['name']}"
    prefix = "svc/" if row["kind"] == "Service" else ""
    return f"{prefix}{row['namespace']}/{row['name']}"
