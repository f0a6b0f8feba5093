"""The commands that ask a running controller, and the one that runs it. Each module is one group of questions."""

from __future__ import annotations

import click

from controller.cli.ask import flows, get, policy, status
from controller.cli.capture import capture
from controller.cli.graph import topology
from controller.cli.run import controller

commands: list[click.Command] = [controller, get, flows, policy, topology, capture, status]
