"""signalbox status: whether everything is in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from controller.cli.questions import ask, dump, output_option, socket_options


@click.command()
@output_option("text", "json", "yaml")
@socket_options
def status(output: str, socket_path: Path | None, lab: str | None) -> None:
    """Say whether everything is in order; the exit code is 1 where something isn't."""
    answer = ask(socket_path, lab, "status")
    if output != "text":
        dump(answer, output)
    else:
        standby = answer.get("nodesInStandby", 0)
        others = f", {standby} of other replicas" if standby else ""
        click.echo(
            f"{answer['nodesInSync']} of {answer['nodes']} nodes in sync{others}, {answer['pods']} pods attached"
        )
        for line in _replica_lines(answer.get("replica")):
            click.echo(line)
        if bgp := answer.get("bgp"):
            told = f"{bgp['established']} of {bgp['peers']} peers up, {bgp['routes']} route{'s' * (bgp['routes'] != 1)}"
            click.echo(f"BGP: {told if bgp['announces'] else 'another replica announces'}")
        for problem in answer["problems"]:
            click.echo(f"- {problem}")
        for row in answer["refusedPeers"]:
            times = f"{row['count']} times, last " if row["count"] > 1 else ""
            click.echo(f"refused: {row['peer']}, {times}{row['secondsAgo']} s ago: {row['reason']}")
    if not answer["healthy"]:
        raise SystemExit(1)


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
