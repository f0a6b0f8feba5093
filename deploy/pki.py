"""signalbox pki: certificates for the lab and for small installations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from deploy.certificates import Made

_directory = click.option(
    "-d",
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The CA's directory, as 'pki init' made it.",
)
_anew = click.option("--renew", is_flag=True, help="Make it anew, also where the one that is there is good.")


def _days(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--days", type=click.IntRange(1, 36500), default=default, show_default=True, help="How long it is valid."
    )


@click.group()
def pki() -> None:
    """Certificates for TLS between switches, controller and people: a small CA in a directory."""


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """One line for what can't be done. Imports are late: --help shouldn't pay for them."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        from deploy.certificates import PkiError

        try:
            function(*args, **kwargs)
        except PkiError as error:
            raise click.ClickException(str(error)) from error

    return wrapped


@pki.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@_days(3650)
@_command
def init(directory: Path, days: int) -> None:
    """Make a CA in DIRECTORY; one that is there is kept."""
    from deploy.certificates import make_ca

    _say(make_ca(directory, days))


@pki.command()
@click.argument("name")
@_directory
@_days(365)
@_anew
@_command
def node(name: str, directory: Path, days: int, renew: bool) -> None:
    """Make the certificate of node NAME; one that is good for another third of its life is kept."""
    from deploy.certificates import make_node

    _say(make_node(directory, name, days, anew=renew))


@pki.command()
@_directory
@click.option(
    "--address", "addresses", multiple=True, metavar="IP|NAME", help="By which the admin API is asked over TLS."
)
@_days(365)
@_anew
@_command
def controller(directory: Path, addresses: tuple[str, ...], days: int, renew: bool) -> None:
    """Make the controller's certificate; one that is good for another third of its life is kept."""
    from deploy.certificates import make_controller

    _say(make_controller(directory, addresses, days, anew=renew))


@pki.command()
@click.argument("name")
@_directory
@click.option(
    "--role",
    type=click.Choice(["admin", "read-only"]),
    default="read-only",
    show_default=True,
    help="What that one may do with the admin API.",
)
@_days(365)
@_anew
@_command
def user(name: str, directory: Path, role: str, days: int, renew: bool) -> None:
    """Make the certificate of a person, who asks the admin API over TLS with it and needs no token.

    One that is good for another third of its life is kept, unless its role was another.
    """
    from deploy.certificates import make_user

    _say(make_user(directory, name, role, days, anew=renew))


@pki.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_command
def show(file: Path) -> None:
    """Say what the certificates in FILE say of themselves."""
    from deploy.certificates import describe

    for number, rows in enumerate(describe(file)):
        if number:
            click.echo()
        for name, value in rows.items():
            click.echo(f"{name + ':':<9}{value}")


def _say(made: Made) -> None:
    click.echo(f"{made.certificate} {'created' if made.new else 'unchanged'}")
    click.echo(f"{made.key} {'created' if made.new else 'unchanged'}")
