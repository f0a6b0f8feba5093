"""signalbox trace: where a packet goes, switch by switch and table by table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from controller.cli import kinds
from controller.cli.connection import connection_options
from controller.cli.printing import Column, in_colour, table_of
from controller.cli.questions import ask, dump, order, output_option, socket_options

_COLUMNS = [Column("TABLE", "table"), Column("OBJECT", "object"), Column("FLOW", "words")]
_WIDE_COLUMNS = [*_COLUMNS, Column("OFCTL", "ofctl")]


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@connection_options
@click.option("--endpoint", metavar="ADDRESS:PORT", help="The endpoint that a Service is to choose.")
@click.option("--live", is_flag=True, help="Really send a marked packet, have each switch tell of it, and compare.")
@click.option("--deliver", is_flag=True, help="Let whom the packet of --live is bound for have it.")
@output_option("text", "wide", "json", "yaml")
@socket_options
def trace(
    source: str,
    destination: str,
    connection: dict[str, str],
    endpoint: str | None,
    live: bool,
    deliver: bool,
    output: str,
    socket_path: Path | None,
    lab: str | None,
) -> None:
    """Show where the first packet of a connection from SRC to DST goes, by what the controller has compiled.

    Each is [NAMESPACE/]POD, pod/[NAMESPACE/]POD, node/NAME or an address; DST may be svc/[NAMESPACE/]NAME, whose port
    is taken where it has but one and none is said. No packet is sent; with --live one is, which is held back in the
    last switch unless you say --deliver. The exit code is 1 where switches did otherwise than they should.
    """
    if deliver and not live:
        raise click.UsageError("--deliver is of --live: else no packet is sent")
    query = {"from": kinds.end(source), "to": kinds.end(destination), **connection}
    query |= {"endpoint": endpoint} if endpoint else {}
    query |= {"deliver": "1"} if deliver else {}
    answer = (order if live else ask)(socket_path, lab, "trace", **query)
    if output in ("json", "yaml"):
        dump(answer, output)
        return
    asked = (answer["model"] if live else answer)["question"]
    if not connection.get("protocol") and asked["port"]:
        click.echo(f"To {asked['port']}/{asked['protocol']}, the only port of {destination}.")
    columns = _WIDE_COLUMNS if output == "wide" else _COLUMNS
    click.echo(_text(answer["live"] if live else answer, columns))
    if live:
        _tell_differences(answer["differences"])


def _tell_differences(differences: list[str]) -> None:
    if not differences:
        click.echo("The switches did what the model says.")
        return
    click.secho("THE SWITCHES DID OTHERWISE than the model says:", fg="red", bold=True)
    for each in differences:
        click.echo(f"- {each}")
    raise SystemExit(1)


def _text(answer: dict[str, Any], columns: list[Column]) -> str:
    lines: list[str] = [] if answer["visits"] else ["No switch meets it."]
    for visit in answer["visits"]:
        lines.append(f"{visit['node']}: from {visit['enteredFrom']}")
        lines += ["  " + line for line in table_of(visit["steps"], columns).splitlines()]
        lines += [f"  {each['end']} {each['before']} becomes {each['after']}" for each in visit["translations"]]
        lines += [f"  to {visit['leftTo']}"] if visit["leftTo"] else []
    lines += [
        f"{in_colour(each['action'])} by {each['object']} on {each['node']}: {each['words']}"
        for each in answer["judgements"]
    ]
    lines += [click.style(f"CAUTION: {each}", fg="yellow") for each in answer.get("cautions", ())]
    end = answer["end"]
    lines.append(f"{in_colour(answer['verdict'])}: {_end(end)}" + (f": {end['why']}" if end["why"] else ""))
    return "\n".join(lines)


def _end(end: dict[str, Any]) -> str:
    if end["place"] == "Switch":
        return f"on {end['node']}"
    if end["place"] == "World":
        return f"to the world, by the host of {end['node']}"
    return f"{end['place'].lower()} {end['name']}" + ("" if end["name"] == end["node"] else f" on {end['node']}")
