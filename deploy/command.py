"""The `signalbox` command: every part's commands, joined. Nothing heavy is imported before a command is chosen."""

from __future__ import annotations

import click

from controller.cli import commands
from deploy.lab.cli import lab
from node.cli import node


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="signalbox-sdn", prog_name="signalbox")
def main() -> None:
    """Signalbox: a central OpenFlow controller for Open vSwitch clusters."""


for command in (*commands, node, lab):
    main.add_command(command)

if __name__ == "__main__":
    main()
