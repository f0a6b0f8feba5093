"""A lab's processes: started in a session and a network namespace of their own, known by pid and start time.

A pid alone may be another process's by now; with the time that it started it can't. Nothing is ever ended by name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from deploy.lab.layout import netns_path

#: Seconds that a process has to end by itself.
_PATIENCE = 5.0


class Process(msgspec.Struct, frozen=True):
    """A process: its pid, and its start in clock ticks since boot."""

    pid: int
    started: int


def started_at(pid: int) -> int | None:
    """When a process started (clock ticks since boot); None where there is none, or only its corpse."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def is_alive(process: Process) -> bool:
    """Whether this very process still runs."""
    return started_at(process.pid) == process.started


def start(
    argv: Sequence[str],
    log: Path,
    *,
    netns: str = "",
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> Process:
    """Start a process in the background, its output appended to `log`."""
    inside = ["nsenter", f"--net={netns_path(netns)}", "--"] if netns else []
    with log.open("ab") as output:
        child = subprocess.Popen(
            [*inside, *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
    started = started_at(child.pid)
    _adopted.append(child)
    return Process(child.pid, started or 0)


#: Children of this process, kept so that they are reaped when they end.
_adopted: list[subprocess.Popen[bytes]] = []


def reap() -> None:
    """Take leave of children that have ended."""
    _adopted[:] = [child for child in _adopted if child.poll() is None]


def record(path: Path, process: Process) -> None:
    """Write down a process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(process))


def recorded(path: Path) -> Process | None:
    """The process written down at `path`, if there is one and it still runs."""
    try:
        process = msgspec.json.decode(path.read_bytes(), type=Process)
    except (OSError, msgspec.DecodeError):
        return None
    return process if is_alive(process) else None


def of_pidfile(path: Path) -> Process | None:
    """The process whose pid a daemon has written to its pidfile."""
    try:
        pid = int(path.read_text())
    except (OSError, ValueError):
        return None
    started = started_at(pid)
    return None if started is None else Process(pid, started)


def inside(namespaces: Sequence[str]) -> list[Process]:
    """Every process that is in one of these network namespaces, whoever has started it."""
    wanted = set()
    for name in namespaces:
        with contextlib.suppress(OSError):
            wanted.add(netns_path(name).stat().st_ino)
    found = []
    for entry in Path("/proc").iterdir():
        # A process that ends meanwhile is no longer there to be read.
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "ns/net").stat().st_ino in wanted:
                started = started_at(int(entry.name))
                if started is not None:
                    found.append(Process(int(entry.name), started))
    return found


def stop(processes: Sequence[Process], *, number: int = signal.SIGTERM, group: bool = False) -> None:
    """End processes, by force after a while; with `group` also what they have started. Returns when they are gone."""
    for process in processes:
        _signal(process, number, group)
    deadline = time.monotonic() + _PATIENCE
    left = list(processes)
    while left:
        reap()
        left = [process for process in left if is_alive(process)]
        if left and time.monotonic() > deadline:
            for process in left:
                _signal(process, signal.SIGKILL, group)
            deadline = time.monotonic() + _PATIENCE
        if left:
            time.sleep(0.01)


def _signal(process: Process, number: int, group: bool) -> None:
    if is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            if group and os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, number)
            else:
                os.kill(process.pid, number)
