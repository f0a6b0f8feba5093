"""The commands that ask a running controller, and the one that runs it. Each module is one group of questions."""

from __future__ import annotations

import click

from controller.cli.administration import drain, log_level, resync, undrain
from controller.cli.ask import flows, get, policy, status
from controller.cli.capture import capture
from controller.cli.console import console
from controller.cli.flow_export import flow_export
from controller.cli.graph import topology
from controller.cli.run import controller
from controller.cli.top import top
from controller.cli.trace import trace

commands: list[click.Command] = [
    *(controller, get, flows, flow_export, policy, topology, top, trace, capture, console, status),
    *(drain, undrain, resync, log_level),
]
