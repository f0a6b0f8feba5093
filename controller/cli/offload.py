"""signalbox offload: what of the datapaths' work a NIC may do."""

from __future__ import annotations

import click

from controller.cli.offload_lint import lint


@click.group()
def offload() -> None:
    """What of the datapaths' work a NIC may do, and why it doesn't."""


offload.add_command(lint)
