"""signalbox config: looks at configuration files, and at what a command would make of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import yaml
from click.core import ParameterSource

from controller.cli.printing import Column, print_rows
from deploy import config


@click.group(name="config")
def commands() -> None:
    """The configuration file of controller and node."""


@commands.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
def check(files: tuple[Path, ...]) -> None:
    """Say everything that is wrong with configuration files, with line and remedy; the exit status is 1 if anything is.

    Whether paths in them exist is not looked at: they are of the machines that the files are for.
    """
    problems = [problem for path in files for problem in config.check(path)]
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        raise SystemExit(1)
    for path in files:
        click.echo(f"{path}: nothing is wrong")


@commands.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", type=click.Choice(list(config.SECTIONS)))
@click.option("--config", "files", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="A file.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml", "file"]),
    default="table",
    show_default=True,
    help="Output format; 'file' is a configuration file that says the same.",
)
@click.argument("words", nargs=-1, metavar="[OPTION...]")
def show(command: str, files: tuple[Path, ...], output: str, words: tuple[str, ...]) -> None:
    """What a command would run with, and where each value is from: its options, the environment, a file, the default.

    Options of the command that are given here count as given to it.
    """
    try:
        settings = config.load(command, files, here=False)
    except config.ConfigError as error:
        raise click.ClickException(str(error)) from error
    context = _context(command, settings, words)
    rows = []
    for key, option in config.keys(command).items():
        value, origin = _plain(context.params.get(str(option.name))), _origin(command, option, context, settings)
        rows.append({"key": key, "value": value, "from": origin})
    if output == "file":
        given = {row["key"]: row["value"] for row in rows if row["value"] not in (None, [])}
        text = {"apiVersion": config.API_VERSION, "kind": config.KIND, command: given}
        click.echo(yaml.safe_dump(text, sort_keys=False), nl=False)
        return
    print_rows(rows, [Column("KEY", "key"), Column("FROM", "from"), Column("VALUE", "value")], output)


def _context(command: str, settings: dict[str, config.Setting], words: Sequence[str]) -> click.Context:
    """The command's parameters as it would have them, but that what is missing is no error."""
    lenient = copy.copy(config.SECTIONS[command])
    lenient.params = [_lenient(each) for each in lenient.params if each.name not in ("config", "help")]
    context = click.Context(lenient, info_name=command)
    config.use(context, settings)
    with context:
        lenient.parse_args(context, list(words))
    return context


def _lenient(parameter: click.Parameter) -> click.Parameter:
    found = copy.copy(parameter)
    found.required = False
    if isinstance(found.type, click.Path):
        # Of another machine, perhaps.
        found.type = click.Path()
    return found


def _plain(value: Any) -> Any:
    """A value as YAML has it."""
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _origin(section: str, option: click.Option, context: click.Context, settings: dict[str, config.Setting]) -> str:
    match context.get_parameter_source(str(option.name)):
        case ParameterSource.COMMANDLINE:
            return "command line"
        case ParameterSource.ENVIRONMENT:
            return config.environment_name(section, option)
        case ParameterSource.DEFAULT_MAP:
            return settings[str(option.name)].place
    if option.required:
        return "nowhere: it must be given"
    return "default"
