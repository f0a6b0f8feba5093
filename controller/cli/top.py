"""signalbox top: who carries how much now."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli.printing import Column, Row, bits, print_rows
from controller.cli.questions import ask, output_option, socket_options

#: What a switch that is away carries, in kubectl's word.
_UNKNOWN = "<unknown>"
_COLUMNS = {
    "nodes": [
        Column("NAME", "name"),
        Column("RX", "rx", unknown=_UNKNOWN),
        Column("TX", "tx", unknown=_UNKNOWN),
        Column("RX-PACKETS/S", "rxPacketsPerSecond", unknown=_UNKNOWN),
        Column("TX-PACKETS/S", "txPacketsPerSecond", unknown=_UNKNOWN),
        Column("DROPPED/S", "dropped", unknown=_UNKNOWN),
        Column("BUSIEST-PORT", "busiestPort"),
    ],
    "services": [
        Column("NAMESPACE", "namespace"),
        Column("NAME", "name"),
        Column("CONNECTIONS/S", "connectionsPerSecond"),
        Column("PACKETS/S", "packetsPerSecond"),
        Column("RATE", "rate"),
    ],
    "policies": [
        Column("NAMESPACE", "namespace"),
        Column("KIND", "kind"),
        Column("NAME", "name"),
        Column("ALLOWED/S", "allowedPerSecond"),
        Column("DENIED/S", "deniedPerSecond"),
    ],
}
_KINDS = {"nodes": "nodes", "node": "nodes", "no": "nodes", "services": "services", "service": "services"}
_KINDS |= {"svc": "services", "policies": "policies", "policy": "policies", "netpol": "policies"}


@click.command()
@click.argument("kind", metavar="nodes|services|policies")
@click.option("-n", "--namespace", default="default", show_default=True, help="The objects' namespace.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of every namespace.")
@output_option("table", "json", "yaml")
@socket_options
def top(
    kind: str, namespace: str, all_namespaces: bool, output: str, socket_path: Path | None, lab: str | None
) -> None:
    """Show nodes, Services or policies by what they carry now, the busiest first. The first time that takes a second.

    Nodes whose switch is away come last: what they carry is <unknown>.
    Of policies it is packets that each allows and denies.
    """
    known = _KINDS.get(kind.lower())
    if known is None:
        raise click.ClickException(f"there is no kind {kind!r}; the kinds are {', '.join(_COLUMNS)}")
    rows: list[Row] = ask(socket_path, lab, "top", known)["items"]
    columns = _COLUMNS[known]
    if known != "nodes" and not all_namespaces:
        rows = [row for row in rows if row["namespace"] in (namespace, "")]
        columns = [column for column in columns if column.key != "namespace"]
    if not rows and output == "table":
        click.echo(f"No {known} found.", err=True)
        return
    shown = [_in_words(row) for row in rows] if output == "table" else rows
    print_rows(shown, columns, output)


def _in_words(row: Row) -> Row:
    """With rates as people say them."""
    told = {key: f"{value:.0f}" if isinstance(value, float) else value for key, value in row.items()}
    for name, key in (("rx", "rxBytesPerSecond"), ("tx", "txBytesPerSecond"), ("rate", "bytesPerSecond")):
        if row.get(key) is not None:
            told[name] = bits(row[key] * 8)
    if row.get("rxDroppedPerSecond") is not None:
        told["dropped"] = f"{row['rxDroppedPerSecond'] + row['txDroppedPerSecond']:.0f}"
    return told
