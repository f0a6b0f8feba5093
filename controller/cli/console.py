"""signalbox console: the web page, for this machine's browser, from a controller's socket."""

from __future__ import annotations

import asyncio
import secrets
import signal
from pathlib import Path

import click

from controller.cli.questions import controller_meant, socket_options


@click.command()
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where the browser finds it: an address of loopback; port 0 takes a free one.",
)
@socket_options
def console(listen: str, socket_path: Path | None, lab: str | None) -> None:
    """Serve the console to a browser on this machine, until interrupted, and print its address.

    The address has a secret in it: who knows it may read all that the controller tells, as long as this command runs.
    Nothing can be changed by it, but a packet can be traced live. A controller that is served over TLS has the console
    itself, at https://HOST:PORT/console/.
    """
    where = controller_meant(socket_path, lab)
    if not isinstance(where, Path):
        raise click.ClickException(f"{where} has the console itself: open {where}/console/ and give it the token")
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if host not in ("127.0.0.1", "::1", "localhost") or not port.isdecimal():
        raise click.ClickException(f"--listen {listen}: expected 127.0.0.1:PORT, [::1]:PORT or localhost:PORT")
    if not where.exists():
        raise click.ClickException(f"{where}: no such socket: is the controller running?")
    try:
        asyncio.run(_serve(where, host, int(port)))
    except (OSError, OverflowError) as error:
        raise click.ClickException(f"--listen {listen}: {error}") from error


async def _serve(path: Path, host: str, port: int) -> None:
    # Imported late: `signalbox --help` shouldn't pay for an HTTP server.
    from controller.console.proxy import serve

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve(path, host, port, secrets.token_urlsafe(24)) as url:
        click.echo(f"The console is at {url}")
        await stop.wait()
