"""signalbox support-bundle: everything that an engineer would ask for next, in one archive.

What matters most is read first: there are bounds of time and size, and what they, or errors, leave out is told in the
archive and to who made it. Nothing that looks like a secret goes in, wherever it stands.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import re
import tarfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click
import msgspec

from controller.cli.kinds import KINDS, node_name
from controller.cli.listing import CHUNK
from controller.cli.questions import controller_meant, socket_options
from topology.version import version

if TYPE_CHECKING:
    from controller.cli import client

#: Seconds that one answer may take, and bytes of the end of a log.
_PATIENCE, _LOG = 30.0, 8 << 20
#: What tells a secret, of which group 1 is taken out; each is looked for only where one of its words is. Files' paths
#: tell nothing, and what JSON has that is no text isn't one.
_NAMED = rb"(?:token|password|passwd|passphrase|secret)"
_WORDS = (b"token", b"passw", b"passphrase", b"secret")
_SECRETS = (
    (
        (b"private key",),
        re.compile(rb"(-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z))", re.S),
    ),
    ((b"bearer",), re.compile(rb"bearer\s+([^\s\"',]+)", re.I)),
    ((b"eyj",), re.compile(rb"\b(eyJ[\w-]+\.[\w-]+\.[\w-]*)")),
    ((b"://",), re.compile(rb"://[^/\s:@\"]*:([^@\s/\"]+)@")),
    # "KEY": "VALUE" and "KEY": ["VALUE"]; KEY=VALUE and KEY: VALUE.
    (_WORDS, re.compile(rb"\"[^\"\n]{0,99}" + _NAMED + rb"[^\"\n]{0,99}\"\s*:\s*\"(?!/)((?:[^\"\\]|\\.)+)\"", re.I)),
    (_WORDS, re.compile(rb"\"[^\"\n]{0,99}" + _NAMED + rb"[^\"\n]{0,99}\"\s*:\s*\[\s*\"(?!/)([^\]]+)\"\s*\]", re.I)),
    (
        _WORDS,
        re.compile(
            rb"(?<![\w./-])[\w.-]{0,99}" + _NAMED + rb"[\w.-]{0,99}\s*[=:]\s*[\"']?(?![/\"'])([^\s\"',}\]]+)", re.I
        ),
    ),
)
_TAKEN_OUT = b"<taken out>"


class Item(msgspec.Struct, frozen=True):
    """A file of the archive, and what is asked for it."""

    name: str
    path: str
    query: dict[str, str] = {}
    #: It is a list, whose pages are asked for one by one.
    paged: bool = False


class LeftOutError(Exception):
    """Something isn't in the archive; the text says why."""


@click.command("support-bundle")
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.tar.gz",
    help="Where to write it.  [default: signalbox-support-TIME.tar.gz]",
)
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="NODE",
    help="A node whose flows are to be in it.  [default: those that aren't well first, up to --max-nodes]",
)
@click.option(
    "--max-nodes",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    metavar="N",
    help="Of how many nodes the flows are in it at most, where no --node is given.",
)
@click.option(
    "--log",
    "logs",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="A log whose last 8 MiB are to be in it. A lab's controllers' are found.",
)
@click.option(
    "--timeout",
    type=click.IntRange(1),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="How long to go on reading.",
)
@click.option(
    "--max-size",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    metavar="MIB",
    help="How much to read at most, before it is compressed.",
)
@socket_options
def support_bundle(
    target: Path | None,
    nodes: tuple[str, ...],
    max_nodes: int,
    logs: tuple[Path, ...],
    timeout: int,
    max_size: int,
    socket_path: Path | None,
    lab: str | None,
) -> None:
    """Write everything that an engineer would ask for into one archive: state, lists, flows, metrics, logs.

    Tokens, passwords and private keys are taken out. What could not be read is told on standard error, and by
    LEFT-OUT.txt in the archive; the exit code is 1 if there is no answer at all.
    """
    where = controller_meant(socket_path, lab)
    began = datetime.now(UTC)
    title = f"signalbox-support-{began:%Y%m%dT%H%M%SZ}"
    target = target or Path(f"{title}.tar.gz")
    try:
        with open(target, "xb", opener=_private) as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            bundle = Bundle(archive, title, where, time.monotonic() + timeout, max_size << 20)
            _fill(bundle, tuple(map(node_name, nodes)), max_nodes, (*logs, *_known_logs(where)))
            bundle.finish(began)
    except FileExistsError:
        raise click.ClickException(f"{target}: there is such a file already") from None
    except BaseException as error:
        # Also of an interrupted one: half of it would look like all there is.
        with contextlib.suppress(OSError):
            target.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise click.ClickException(f"{target}: {error.strerror}") from error
        raise
    for line in bundle.left_out:
        click.echo(f"not in it: {line}", err=True)
    click.echo(f"{target}: {bundle.files} files, {target.stat().st_size / 1024:.0f} KiB")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _known_logs(where: Path | client.Remote) -> list[Path]:
    """A lab's controllers write their logs beside their sockets."""
    return sorted(where.parent.glob("controller*.log")) if isinstance(where, Path) else []


def _fill(bundle: Bundle, nodes: tuple[str, ...], max_nodes: int, logs: tuple[Path, ...]) -> None:
    # Without this there is nothing to be had: an error here is the command's.
    bundle.add("status.json", bundle.read("/v1/status", {}))
    listed = json.loads(bundle.try_item(Item("nodes.json", "/v1/nodes", paged=True)) or b'{"items": []}')["items"]
    bundle.try_item(Item("settings.json", "/v1/settings"))
    bundle.try_item(Item("events.json", "/v1/events", paged=True))
    for log in logs:
        bundle.try_log(log)
    bundle.try_item(Item("metrics.txt", "/metrics"))
    for item in _lists():
        bundle.try_item(item)
    unwell = sorted(listed, key=lambda row: (row["status"] == "Synced" and not row["refused"], row["name"]))
    chosen = list(nodes or [row["name"] for row in unwell][:max_nodes])
    for item in (item for node in chosen for item in _of_node(node)):
        bundle.try_item(item)
    if not nodes and len(listed) > max_nodes:
        bundle.left_out.append(f"flows of {len(listed) - max_nodes} nodes: say which with --node, or --max-nodes")


def _lists() -> Iterator[Item]:
    """Everything that there is a list of, and what is told of the whole."""
    for kind in KINDS:
        if kind.name not in ("nodes", "workloads", "events"):
            yield Item(f"{kind.name}.json", f"/v1/{kind.name}", paged=True)
    yield Item("topology.json", "/v1/topology")
    yield Item("topology.txt", "/v1/topology", {"format": "text"})
    for name in ("nodes", "services", "policies"):
        yield Item(f"top-{name}.json", f"/v1/top/{name}")
    yield Item("flow-export.json", "/v1/flow-export/exporters")
    yield Item("offload.json", "/v1/offload")


def _of_node(node: str) -> Iterator[Item]:
    path, folder = f"/v1/nodes/{quote(node, safe='')}", "nodes/" + re.sub(r"[^\w.-]", "_", node)
    yield Item(f"{folder}/differences.json", f"{path}/flows", {"diff": "1"})
    yield Item(f"{folder}/flows.json", f"{path}/flows")
    yield Item(f"{folder}/groups.json", f"{path}/groups")


class Bundle:
    """The archive that is being written, and what is left of time and size."""

    def __init__(
        self, archive: tarfile.TarFile, title: str, where: Path | client.Remote, until: float, size: int
    ) -> None:
        self.left_out: list[str] = []
        self.files = 0
        self._archive = archive
        self._title = title
        self._where = where
        self._until = until
        self._left = size

    def read(self, path: str, query: dict[str, str]) -> bytes:
        """What is answered. Raises click.ClickException, and LeftOutError where time or size is used up."""
        from controller.cli import client

        remaining = self._until - time.monotonic()
        if remaining <= 0:
            raise LeftOutError("the time is over (--timeout)")
        if self._left <= 0:
            raise LeftOutError("it is large enough (--max-size)")
        return client.fetch(self._where, path, query, min(_PATIENCE, remaining), self._left)

    def try_item(self, item: Item) -> bytes | None:
        """Read and add an item, or note why not."""
        try:
            data = self._pages(item) if item.paged else self.read(item.path, item.query)
        except LeftOutError as error:
            self.left_out.append(f"{item.name}: {error}")
        except click.ClickException as error:
            self.left_out.append(f"{item.name}: {error.message}")
        else:
            return self.add(item.name, data)
        return None

    def _pages(self, item: Item) -> bytes:
        """A whole list as one, asked for page by page."""
        rows, query = [], {**item.query, "limit": str(CHUNK)}
        while True:
            answer = json.loads(self.read(item.path, query))
            rows += answer["items"]
            if "continue" not in answer:
                return json.dumps({"items": rows}, indent=1).encode()
            query["continue"] = answer["continue"]

    def try_log(self, path: Path) -> None:
        """Add the end of a log, from the beginning of a line."""
        try:
            with path.open("rb") as file:
                size = file.seek(0, io.SEEK_END)
                file.seek(max(0, size - _LOG))
                data = file.read(_LOG)
        except OSError as error:
            self.left_out.append(f"{path}: {error.strerror}")
            return
        self.add(f"logs/{path.name}", data if size <= _LOG else data.partition(b"\n")[2])

    def add(self, name: str, data: bytes) -> bytes:
        """Write a file; nothing that looks like a secret is in it. Returns what was written."""
        clean = without_secrets(data, self._where)
        info = tarfile.TarInfo(f"{self._title}/{name}")
        info.size, info.mtime, info.mode = len(clean), int(time.time()), 0o600
        self._archive.addfile(info, io.BytesIO(clean))
        self.files += 1
        self._left -= len(clean)
        return clean

    def finish(self, began: datetime) -> None:
        """Say what it is, and what isn't in it."""
        if self.left_out:
            self.add("LEFT-OUT.txt", "".join(f"{line}\n" for line in self.left_out).encode())
        about = f"Signalbox support bundle of {began:%Y-%m-%d %H:%M:%S}Z, asked of {self._where}\n"
        about += f"made by signalbox {version()}, Python {platform.python_version()}, on {platform.platform()}\n"
        self.add("ABOUT.txt", about.encode())


def without_secrets(data: bytes, where: Path | client.Remote) -> bytes:
    """The same without private keys, and without what is called a token, password or secret, ours above all."""
    own = getattr(where, "token", "")
    if own:
        data = data.replace(own.encode(), _TAKEN_OUT)
    lower = data.lower()
    for words, pattern in _SECRETS:
        if any(word in lower for word in words):
            data = pattern.sub(_taken_out, data)
    return data


def _taken_out(found: re.Match[bytes]) -> bytes:
    begin, end = (place - found.start() for place in found.span(1))
    return found[0][:begin] + _TAKEN_OUT + found[0][end:]
