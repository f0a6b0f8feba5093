"""Questions to the running ovs-vswitchd, as ovs-appctl asks them: JSON-RPC over its control socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from node.settings import Settings

#: Seconds for an answer, and bytes of one: a hundred thousand datapath flows.
_PATIENCE, _LIMIT = 10.0, 64 << 20


class ControlError(Exception):
    """ovs-vswitchd can't be asked, or refuses; the text says why."""


def socket_of(settings: Settings) -> Path:
    """Where ovs-vswitchd listens. Without `--ovs-control`: beside its pidfile, by its pid, or as our image has it."""
    if settings.ovs_control is not None:
        return settings.ovs_control
    pidfile = settings.ovs_rundir / "ovs-vswitchd.pid"
    with contextlib.suppress(OSError, ValueError):
        path = settings.ovs_rundir / f"ovs-vswitchd.{int(pidfile.read_text())}.ctl"
        if path.exists():
            return path
    return settings.ovs_rundir / "ovs-vswitchd.ctl"


def identity(path: Path) -> str:
    """Something that is another after each start of ovs-vswitchd: it makes its socket anew. Empty where it has none."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_ino}.{status.st_ctime_ns}"


async def ask(path: Path, command: str, *arguments: str) -> str:
    """What ovs-vswitchd answers to a command. Raises ControlError."""
    question = json.dumps({"id": 0, "method": command, "params": arguments}).encode()
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                writer.write(question)
                answer = await _one_object(reader)
            finally:
                writer.close()
    except (OSError, EOFError, ValueError, TimeoutError) as error:
        raise ControlError(f"{path}: {command}: {error!r}") from error
    if answer.get("error") is not None:
        raise ControlError(f"{command}: {str(answer['error']).strip()}")
    return str(answer.get("result") or "")


async def _one_object(reader: asyncio.StreamReader) -> dict[str, Any]:
    received = bytearray()
    while data := await reader.read(1 << 20):
        received += data
        if len(received) > _LIMIT:
            raise ValueError(f"an answer of more than {_LIMIT >> 20} MiB")
        # Whole answers end so, and most that aren't whole don't.
        if received.rstrip().endswith(b"}"):
            with contextlib.suppress(ValueError):
                answer: dict[str, Any] = json.loads(received)
                return answer
    raise EOFError("it hung up in the middle of an answer")
