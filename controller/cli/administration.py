"""signalbox drain, undrain, resync, log-level: the few things that people change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from controller.cli import completing, kinds
from controller.cli.questions import ask, order, put, socket_options

_LEVELS = ("debug", "info", "warning", "error")


@click.command()
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True, shell_complete=completing.nodes)
@socket_options
def drain(nodes: Sequence[str], socket_path: Path | None, lab: str | None) -> None:
    """Give nodes no new work, as before maintenance.

    Their switches go on forwarding, and connections that there are go on. New connections of Services go to endpoints
    on other nodes, and other nodes answer for load balancers' addresses. It stays so until 'signalbox undrain'.
    """
    _work(nodes, "drain", "drained", socket_path, lab)


@click.command()
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True, shell_complete=completing.nodes)
@socket_options
def undrain(nodes: Sequence[str], socket_path: Path | None, lab: str | None) -> None:
    """Give nodes work again."""
    _work(nodes, "undrain", "undrained", socket_path, lab)


@click.command()
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True, shell_complete=completing.nodes)
@socket_options
def resync(nodes: Sequence[str], socket_path: Path | None, lab: str | None) -> None:
    """Compare every flow of nodes' switches with what it should be, and repair what differs.

    That is done now and then anyway. What is repaired is in the controller's log, and counted: 'signalbox get nodes -o
    yaml', repaired.
    """
    for node in _names(nodes):
        order(socket_path, lab, "nodes", node, "resync")
        click.echo(f"node/{node} resync begun")


@click.command("log-level")
@click.argument("level", type=click.Choice([*_LEVELS, "default"], case_sensitive=False), required=False)
@click.option(
    "--logger", default="", metavar="NAME", help="Of a part of the controller, as controller.sync.  [default: all]"
)
@socket_options
def log_level(level: str | None, logger: str, socket_path: Path | None, lab: str | None) -> None:
    """Say from which level on the controller logs, or set it until the controller ends.

    With --logger, LEVEL default stands for that of the rest again.
    """
    if level is None:
        told = ask(socket_path, lab, "log-level", **({"logger": logger} if logger else {}))
    elif level == "default" and not logger:
        raise click.UsageError("default is for a --logger that has had a level of its own")
    else:
        wanted = "" if level == "default" else level.upper()
        told = put(socket_path, lab, {"level": wanted, "logger": logger}, "log-level")
    click.echo(told["level"].lower())


def _work(nodes: Sequence[str], act: str, done: str, socket_path: Path | None, lab: str | None) -> None:
    for node in _names(nodes):
        told = order(socket_path, lab, "nodes", node, act)
        click.echo(f"node/{node} {done}" if told["changed"] else f"node/{node} already {done}")
        if told["drained"] and told["kept"] == "Memory":
            click.echo(f"Note: {told['note']}", err=True)


def _names(nodes: Sequence[str]) -> list[str]:
    """As people name nodes: n1 or node/n1."""
    return list(map(kinds.node_name, nodes))
