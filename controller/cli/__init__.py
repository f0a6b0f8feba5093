"""The commands that ask a running controller, and the one that runs it. Each module is one group of questions."""

from __future__ import annotations

import click

from controller.cli.administration import drain, log_level, resync, undrain
from controller.cli.capture import capture
from controller.cli.console import console
from controller.cli.describe import describe
from controller.cli.events import events
from controller.cli.flow_export import flow_export
from controller.cli.flows import flows
from controller.cli.get import get
from controller.cli.graph import topology
from controller.cli.offload import offload
from controller.cli.policy import policy
from controller.cli.run import controller
from controller.cli.status import status
from controller.cli.support_bundle import support_bundle
from controller.cli.top import top
from controller.cli.trace import trace

commands: list[click.Command] = [
    *(controller, get, describe, events, flows, flow_export, policy, topology, top, trace, capture, offload, console),
    *(status, drain, undrain, resync, log_level, support_bundle),
]
