"""signalbox get: lists of objects, as kubectl has them."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli.kinds import BY_WORD, KINDS, Kind, title
from controller.cli.printing import Row, print_rows
from controller.cli.questions import ask, output_option, socket_options


@click.command()
@click.argument("kind", metavar="nodes|pods|services|endpoints|policies|identities|links|bgp|routes")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("-n", "--namespace", default="default", show_default=True, help="The objects' namespace.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of every namespace.")
@click.option("--counters", is_flag=True, help="What all switches together have counted for each.")
@output_option("table", "wide", "json", "yaml", "name")
@socket_options
def get(
    kind: str,
    names: tuple[str, ...],
    namespace: str,
    all_namespaces: bool,
    counters: bool,
    output: str,
    socket_path: Path | None,
    lab: str | None,
) -> None:
    """List nodes, pods, workloads, Services, endpoints, policies, identities, links, or BGP's peers and routes."""
    known = kind_of(kind)
    if counters and not known.counters:
        raise click.ClickException(f"--counters: {known.name} have none; services, endpoints and policies do")
    rows: list[Row] = ask(socket_path, lab, known.asked, **({"counters": "1"} if counters else {}))["items"]
    rows = [row for row in rows if known.has(row)]
    columns = known.columns + (known.counters if counters else ())
    here = known.namespaced and not all_namespaces
    if here:
        # Policies of the cluster are in no namespace, and concern all.
        rows = [row for row in rows if row["namespace"] in (namespace, "")]
        columns = tuple(column for column in columns if column.key != "namespace")
    if names:
        rows = _named(known, rows, names, f" in namespace {namespace}" if here else "")
    if output == "name":
        for row in rows:
            click.echo(f"{known.singular}/{title(row)}")
    elif not rows and output in ("table", "wide"):
        click.echo(f"No {known.name} found{f' in {namespace} namespace' if here else ''}.", err=True)
    else:
        print_rows(rows, columns, output)


def kind_of(word: str) -> Kind:
    """The kind that a word is for. Raises click.ClickException."""
    known = BY_WORD.get(word.lower())
    if known is None:
        raise click.ClickException(f"there is no kind {word!r}; the kinds are {', '.join(each.name for each in KINDS)}")
    return known


def _named(kind: Kind, rows: list[Row], names: tuple[str, ...], where: str) -> list[Row]:
    found = [row for row in rows if row.get("name") in names]
    if missing := [repr(name) for name in names if name not in {row["name"] for row in found}]:
        raise click.ClickException(f"{kind.name} {', '.join(missing)} not found{where}")
    return found
