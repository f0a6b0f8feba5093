"""signalbox capture: packets of a pod, between two, or that policies drop, to a file or to Wireshark."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import click

from controller.cli import kinds
from controller.cli.printing import printable
from controller.cli.questions import controller_meant, socket_options

#: Seconds beyond a capture's own that its answer may take.
_PATIENCE = 15.0
_UNITS = {"": 1, "s": 1, "m": 60}


def _seconds(context: click.Context, parameter: click.Parameter, value: str) -> int:
    found = re.fullmatch(r"(\d+)([sm]?)", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no duration; write 30s or 2m")
    return int(found[1]) * _UNITS[found[2]]


@click.command()
@click.argument("pod", metavar="[NAMESPACE/]POD", required=False)
@click.option("--from", "source", metavar="[NAMESPACE/]POD", help="With --to: only what these two send each other.")
@click.option("--to", "target", metavar="[NAMESPACE/]POD", help="The other of the two.")
@click.option(
    "--policy-drops",
    "drops",
    metavar="[NAMESPACE/]POLICY|all",
    help="Instead of a pod's: what a policy drops, or all of them do, on any node.",
)
@click.option(
    "--direction",
    type=click.Choice(["both", "sent", "received"]),
    default="both",
    show_default=True,
    help="What the pod (or --from) sends, what it is sent, or both.",
)
@click.option("-w", "--write", "target_file", metavar="FILE|-", required=True, help="A pcapng file; - is the output.")
@click.option(
    "--duration",
    callback=_seconds,
    default="10s",
    show_default=True,
    metavar="DURATION",
    help="As 30s or 2m; 5m at most.",
)
@click.option("--count", type=int, default=10_000, show_default=True, help="Packets; then it ends.")
@click.option("--rate", type=int, default=50, show_default=True, help="Packets a second of each switch; 80 at most.")
@click.option("--snaplen", type=int, default=256, show_default=True, help="Bytes of each packet.")
@click.option("--size", type=int, default=10 << 20, show_default=True, help="Bytes of the file.")
@socket_options
def capture(
    pod: str | None,
    source: str | None,
    target: str | None,
    drops: str | None,
    direction: str,
    target_file: str,
    duration: int,
    count: int,
    rate: int,
    snaplen: int,
    size: int,
    lab: str | None,
    socket_path: Path | None,
) -> None:
    """Capture the packets of a pod, those between two (--from, --to), or those that a policy drops, as pcapng.

    What pods send is captured as they send it, whether or not a policy then drops it; what they are sent, as it leaves
    the switch; what a policy drops, where it is dropped. pod/[NAMESPACE/]POD is a pod, too. Pipe it into Wireshark
    with: signalbox capture web/front-1 -w - | wireshark -k -i -
    """
    from controller.cli import client

    names = {"pod": pod, "from": source, "to": target}
    wanted: dict[str, str | int] = {key: kinds.pod_name(name) for key, name in names.items() if name}
    wanted |= {"policyDrops": drops} if drops else {}
    wanted |= {"direction": direction, "duration": duration, "count": count}
    wanted |= {"rate": rate, "snaplen": snaplen, "size": size}
    where = controller_meant(socket_path, lab)
    pieces = client.stream(where, ["captures"], wanted, duration + _PATIENCE)
    # Asked before the file is made: what is refused leaves none.
    first = next(pieces, b"")
    everything = chain((first,), pieces)
    if target_file == "-":
        _write(everything, sys.stdout.buffer)
        return
    try:
        with Path(target_file).open("wb") as file:
            _write(everything, file)
    except OSError as error:
        raise click.ClickException(f"{target_file}: {error.strerror}") from error


def _write(pieces: Iterable[bytes], file: BinaryIO) -> None:
    """Write what comes, and say how many packets it was, as tcpdump does; Ctrl-C is an end like any other."""
    from controller import pcapng

    packets, rest, has_begun = 0, b"", False
    with contextlib.suppress(KeyboardInterrupt):
        for piece in pieces:
            data = rest + piece
            more, rest = pcapng.counted(data)
            # Whole packets only, so that one can read it whenever it ends.
            whole = data[: len(data) - len(rest)]
            file.write(whole)
            file.flush()
            packets += more
            if whole and not has_begun:
                has_begun = True
                if comment := pcapng.comment_of(whole):
                    click.echo(f"Note: {printable(comment)}", err=True)
    click.echo(f"{packets} packet{'' if packets == 1 else 's'} captured", err=True)
