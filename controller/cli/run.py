"""signalbox controller: runs the central process in the foreground."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--listen",
    "listen",
    multiple=True,
    metavar="TARGET",
    required=True,
    help="Where switches connect: tcp:ADDRESS:PORT or unix:PATH.",
)
@click.option(
    "--manifests",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Directory of Kubernetes YAML files, watched: the cluster's state.",
)
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path),
    default=Path("/run/signalbox/controller.sock"),
    show_default=True,
    help="Unix socket of the admin API.",
)
@click.option(
    "--audit-interval", default=60.0, show_default=True, metavar="SECONDS", help="How often flows are audited."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What is logged, on standard error.",
)
def controller(
    listen: tuple[str, ...], manifests: Path, socket_path: Path, audit_interval: float, log_level: str
) -> None:
    """Run the controller: compile the cluster's state and keep every switch in sync with it."""
    import asyncio
    import logging

    from controller.app import run
    from controller.channel import TargetError
    from topology.manifest_source import UnreadableError

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(run(listen, manifests, socket_path, audit_interval))
    except (TargetError, UnreadableError) as error:
        raise click.ClickException(str(error)) from error
