"""The `signalbox` command: every part's commands, joined. Nothing heavy is imported before a command is chosen."""

from __future__ import annotations

import os

import click
from click.shell_completion import get_completion_class

from controller.cli import commands
from deploy import config, config_command
from deploy.kubernetes.cli import kubernetes
from deploy.lab.cli import lab
from deploy.pki import pki
from node.cli import node


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="signalbox-sdn", prog_name="signalbox")
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours: on a terminal only, or as is said. In the environment NO_COLOR=1 is never, CLICOLOR_FORCE=1 always.",
)
@click.pass_context
def main(context: click.Context, color: str) -> None:
    """Signalbox: a central OpenFlow controller for Open vSwitch clusters."""
    # What click goes by; None is: if the output is a terminal.
    context.color = {"always": True, "never": False}.get(color, _color_of_environment())


def _color_of_environment() -> bool | None:
    if os.environ.get("NO_COLOR"):
        return False
    return True if os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0") else None


def _table_names() -> list[str]:
    from flows.pipeline import TABLE_NAMES

    return [f"{number}={name}" for number, name in TABLE_NAMES.items()]


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete this command's words: source <(signalbox completion bash)."""
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(main, {}, "signalbox", "_SIGNALBOX_COMPLETE").source())


for command in (*commands, node, lab, pki, kubernetes, config_command.commands):
    main.add_command(command)
# The agent doesn't know the pipeline; it is told here what its tables are called.
next(option for option in node.params if option.name == "tables").default = _table_names
for section in config.SECTIONS:
    config.attach(section)

if __name__ == "__main__":
    main()
