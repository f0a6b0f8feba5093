"""The `signalbox` command: every part's commands, joined. Nothing heavy is imported before a command is chosen."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Any

import click
from click.shell_completion import get_completion_class

from controller.cli import commands
from deploy import config, config_command
from deploy.kubernetes.cli import kubernetes
from deploy.lab.cli import lab
from deploy.pki import pki
from node.cli import node


class _Command(click.Group):
    """A group that says in a line that what is printed can't be written, where a disk is full."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            # An error of a file that was named says which. A broken pipe is click's: who reads has had enough.
            if error.errno != errno.ENOSPC or error.filename is not None:
                raise
            with contextlib.suppress(OSError):
                # What is left unprinted isn't tried again at the end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.ClickException(f"what is printed can't be written: {error.strerror}") from error


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
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
