"""What all questions to a controller share: where it is, and in which form the answer is wanted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

if TYPE_CHECKING:
    from controller.cli import client


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    # A command within another one has the other's, unless it says something else.
    if value is not None or f"{__name__}.{parameter.name}" not in context.meta:
        context.meta[f"{__name__}.{parameter.name}"] = value


#: Where the controller is, if not on this machine. Every question has these; none is interested in them but `ask`.
_REMOTE_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("--ca", {"type": click.Path(path_type=Path), "help": "The CA of that controller's certificate."}),
    ("--key", {"type": click.Path(path_type=Path), "help": "The key of --cert."}),
    (
        "--cert",
        {"type": click.Path(path_type=Path), "help": "A person's certificate for --server, instead of a token."},
    ),
    ("--token-file", {"type": click.Path(path_type=Path), "help": "A file with a token for --server."}),
    ("--token", {"help": "A token for --server; others on the machine see it here, but not in the environment."}),
    ("--server", {"metavar": "https://HOST:PORT", "help": "Ask a controller there, over TLS."}),
]


def socket_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, more in _REMOTE_OPTIONS:
        variable = "SIGNALBOX_" + name.strip("-").replace("-", "_").upper()
        command = click.option(name, envvar=variable, expose_value=False, callback=_remember, **more)(command)
    command = click.option(
        "--socket", "socket_path", type=click.Path(path_type=Path), help="The controller's admin socket."
    )(command)
    return click.option("--lab", metavar="NAME", envvar="SIGNALBOX_LAB", help="Ask the controller of this lab.")(
        command
    )


def controller_meant(socket_path: Path | None, lab: str | None) -> Path | client.Remote:
    """Where the controller is that the options mean."""
    # Imported late: `signalbox --help` shouldn't pay for an HTTP client.
    from controller.cli import client

    context = click.get_current_context()
    server, token, token_file, cert, key, ca = (
        context.meta.get(f"{__name__}.{name}") for name in ("server", "token", "token_file", "cert", "key", "ca")
    )
    around = [context, *([context.parent] if context.parent is not None else [])]
    given = click.core.ParameterSource.COMMANDLINE
    named_lab = any(each.get_parameter_source("lab") is given for each in around)
    if server and socket_path is None and not named_lab:
        return client.remote(server, token, token_file, ca, cert, key)
    return socket_path or (client.socket_of_lab(lab) if lab else client.find_socket())


def ask(socket_path: Path | None, lab: str | None, *resource: str, **query: str) -> Any:
    from controller.cli import client

    return client.ask(controller_meant(socket_path, lab), list(resource), query)


def order(socket_path: Path | None, lab: str | None, *resource: str, **query: str) -> Any:
    """Have something done, and give the answer."""
    from controller.cli import client

    return client.ask(controller_meant(socket_path, lab), list(resource), query, method="POST")


def put(socket_path: Path | None, lab: str | None, body: Any, *resource: str) -> Any:
    """Have something set, and give what it is then."""
    from controller.cli import client

    return client.ask(controller_meant(socket_path, lab), list(resource), method="PUT", body=body)


def output_option(*choices: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "-o", "--output", type=click.Choice(choices), default=choices[0], show_default=True, help="Output format."
    )


def dump(answer: Any, output: str) -> None:
    """Print an answer as it is, as JSON or YAML."""
    click.echo(json.dumps(answer, indent=2) if output == "json" else yaml.safe_dump(answer, sort_keys=False))
