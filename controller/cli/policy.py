"""signalbox policy: questions about network policies."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli import kinds
from controller.cli.connection import connection_options
from controller.cli.questions import ask, dump, output_option, socket_options


@click.group()
def policy() -> None:
    """Questions about network policies."""


@policy.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@connection_options
@output_option("text", "json", "yaml")
@socket_options
def check(
    source: str,
    destination: str,
    connection: dict[str, str],
    output: str,
    socket_path: Path | None,
    lab: str | None,
) -> None:
    """Say whether SRC may reach DST, and which rule says so; the exit code is 1 where it may not.

    Each is [NAMESPACE/]POD, pod/[NAMESPACE/]POD, node/NAME or an address.
    """
    query = {"from": kinds.end(source), "to": kinds.end(destination)}
    # Policies say something of pings too: that is what is asked about if nothing else is said.
    answer = ask(socket_path, lab, "policy-check", **query, **{"protocol": "ICMP", "port": "0", **connection})
    if output != "text":
        dump(answer, output)
    else:
        way = answer["protocol"] + (f" port {answer['port']}" if answer["port"] else "")
        word = click.style("ALLOWED", fg="green") if answer["allowed"] else click.style("DENIED", fg="red")
        click.echo(f"{answer['source']} to {answer['destination']}, {way}: {word}")
        for step in answer["steps"]:
            click.echo(f"- {step}")
    if not answer["allowed"]:
        raise SystemExit(1)
