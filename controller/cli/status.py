"""signalbox status: how each part is, and whether everything is in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from controller.cli.printing import Column, print_rows, printable
from controller.cli.questions import ask, dump, output_option, socket_options

_COLUMNS = [Column("PART", "name"), Column("STATE", "state", state=True), Column("MESSAGE", "message")]
_DEGRADED = 1


class _NoAnswer(click.ClickException):
    exit_code = 2


@click.command()
@output_option("text", "json", "yaml")
@socket_options
def status(output: str, socket_path: Path | None, lab: str | None) -> None:
    """Say how each part is, and everything that is wrong.

    The exit code is 0 where all is well, 1 where something isn't, and 2 where the controller doesn't answer.
    """
    try:
        answer = ask(socket_path, lab, "status")
    except click.ClickException as error:
        raise _NoAnswer(error.message) from error
    if output != "text":
        dump(answer, output)
    else:
        _tell(answer)
    if not answer["healthy"] or any(part["state"] != "Ok" for part in answer["parts"]):
        raise SystemExit(_DEGRADED)


def _tell(answer: dict[str, Any]) -> None:
    standby = answer.get("nodesInStandby", 0)
    others = f", {standby} of other replicas" if standby else ""
    click.echo(f"{answer['nodesInSync']} of {answer['nodes']} nodes in sync{others}, {answer['pods']} pods attached")
    for line in _replica_lines(answer.get("replica")):
        click.echo(line)
    click.echo()
    print_rows(answer["parts"], _COLUMNS, "table")
    if answer["problems"]:
        click.echo()
    for problem in answer["problems"]:
        click.echo(f"- {printable(problem)}")
    for row in answer["refusedPeers"]:
        times = f"{row['count']} times, last " if row["count"] > 1 else ""
        click.echo(f"refused: {row['peer']}, {times}{row['secondsAgo']} s ago: {printable(row['reason'])}")


def _replica_lines(replica: Any) -> Iterator[str]:
    """Who is master of what and since when, a line for each replica."""
    if replica is None:
        return
    yield f"this is {replica['name']}; replicas: {len(replica['replicas'])}"
    for each in replica["replicas"]:
        mine = [row for row in replica["shards"] if row["master"] == each["name"]]
        following = "" if each["ready"] else " (following, not given shards yet)"
        if not mine:
            yield f"{each['name']}: standby{following}"
            continue
        nodes = sum(row["nodes"] for row in mine)
        what = f"{nodes} node{'s' * (nodes != 1)}, shards {', '.join(str(row['shard']) for row in mine)}"
        since = max(row["since"] for row in mine)
        yield f"{each['name']}: master of {what}, the last of them since {since}{following}"
