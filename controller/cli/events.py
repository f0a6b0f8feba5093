"""signalbox events: what has happened of late, of all or of one object."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli import listing, watching
from controller.cli.kinds import BY_WORD, node_name
from controller.cli.listing import Target, Wanted
from controller.cli.printing import print_rows
from controller.cli.questions import ask, output_option, socket_options

_EVENTS = Target(BY_WORD["events"])
#: What events call objects of kinds that are what they are called.
_TITLES = {"nodes": "Node", "pods": "Pod", "workloads": "Workload", "services": "Service", "endpoints": "Service"}


@click.command()
@click.option("--for", "about", metavar="KIND/NAME", help="Only of this object.")
@click.option("-n", "--namespace", default="default", show_default=True, help="The namespace of the object of --for.")
@click.option("--node", metavar="NODE", help="Only what happened on this node.")
@click.option("--type", "kind", type=click.Choice(["Normal", "Warning"], case_sensitive=False), help="Only this type.")
@click.option("-w", "--watch", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@output_option("table", "wide", "json", "yaml")
@socket_options
def events(
    about: str | None,
    namespace: str,
    node: str | None,
    kind: str | None,
    watch: bool,
    output: str,
    socket_path: Path | None,
    lab: str | None,
) -> None:
    """Show what has happened of late, the newest last: switches that came and went, what was refused or repaired.

    The controller keeps the last thousand, and none over its own restart; its log has all.
    """
    conditions = {"node": node and node_name(node), "type": kind}
    if about is not None:
        conditions["object"] = _words(about, namespace, socket_path, lab)
    wanted = Wanted(fields=",".join(f"{field}={value}" for field, value in conditions.items() if value))
    if watch:
        watching.show(socket_path, lab, _EVENTS, wanted, _EVENTS.kind.columns, output)
        return
    rows = listing.rows(socket_path, lab, _EVENTS, wanted)
    if not rows and output in ("table", "wide"):
        click.echo("No events found.", err=True)
    else:
        print_rows(rows, _EVENTS.kind.columns, output)


def _words(about: str, namespace: str, socket_path: Path | None, lab: str | None) -> str:
    """What events call an object, which may be gone by now. Raises click.ClickException."""
    word, slash, name = about.partition("/")
    if not slash or not name:
        raise click.UsageError(f"--for {about}: say KIND/NAME")
    kind = listing.kind_of(word)
    title = _TITLES.get(kind.name)
    if title is None and kind.name == "policies":
        rows = ask(socket_path, lab, "policies", namespace=namespace, fieldSelector=f"name={name}")["items"]
        if not rows:
            raise click.ClickException(f"policies {name!r} not found in namespace {namespace}")
        title, namespace = rows[0]["kind"], rows[0]["namespace"]
    if title is None:
        raise click.ClickException(f"--for {about}: of {kind.name} there are no events")
    return f"{title} {namespace}/{name}" if kind.namespaced and namespace else f"{title} {name}"
