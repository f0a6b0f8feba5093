"""Leases as files of a directory that all replicas share: on one machine, or on a network file system.

Each version of a lease is a file of its own, `NAME.VERSION`, and the highest there is counts. A new version is written
beside and linked into place, which fails where somebody else was first (link(2), atomic on NFS too). So there is no
lock that a replica which is stopped in the middle could keep from the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from controller.leases import ConflictError, LeaseError, Record, Stored

#: Attempts to read a directory in which files come and go.
_ATTEMPTS = 20

P = ParamSpec("P")
R = TypeVar("R")


class LeaseDirectory:
    """A `LeaseStore` in a directory, which is made where it isn't there. Raises LeaseError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unique = uuid.uuid4().hex
        # A thread of its own: a file system that hangs holds up this replica's leases, and nothing else of it.
        self._thread = ThreadPoolExecutor(1, "leases")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LeaseError(f"{path}: {error.strerror}") from error

    @contextlib.contextmanager
    def named(self, replica: str) -> Iterator[None]:
        """Be the only process of this machine with this name. Raises LeaseError. The kernel frees what dies."""
        descriptor = os.open(self._path / f".{replica}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise LeaseError(f"{self._path}: another controller is running as {replica!r}: use --replica-id") from error
        finally:
            os.close(descriptor)

    async def read(self) -> Mapping[str, Stored]:
        """Every lease by its name."""
        return await self._run(self._read)

    async def write(self, name: str, record: Record, version: str | None) -> Stored:
        """Make (`version` None) or replace a lease. Raises ConflictError."""
        return await self._run(self._write, name, record, version)

    async def delete(self, name: str, version: str) -> None:
        """Delete a lease. Raises ConflictError."""
        await self._run(self._delete, name, version)

    async def _run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        call = functools.partial(function, *args, **kwargs)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except OSError as error:
            raise LeaseError(f"{error.filename or self._path}: {error.strerror}") from error

    def _read(self) -> dict[str, Stored]:
        for _ in range(_ATTEMPTS):
            latest = self._latest()
            with contextlib.suppress(FileNotFoundError):
                return {name: self._load(name, version) for name, version in latest.items()}
        raise LeaseError(f"{self._path}: changes faster than it can be read")

    def _load(self, name: str, version: int) -> Stored:
        path = self._file(name, version)
        try:
            return Stored(msgspec.json.decode(path.read_bytes(), type=Record), str(version))
        except msgspec.MsgspecError as error:
            raise LeaseError(f"{path}: {error}; remove the file, no other") from error

    def _latest(self) -> dict[str, int]:
        latest: dict[str, int] = {}
        for entry in os.scandir(self._path):
            name, _, version = entry.name.rpartition(".")
            if name and not name.startswith(".") and version.isdigit():
                latest[name] = max(latest.get(name, 0), int(version))
        return latest

    def _write(self, name: str, record: Record, version: str | None) -> Stored:
        before = int(version or 0)
        temporary = self._path / f".{name}.{self._unique}"
        temporary.write_bytes(msgspec.json.encode(record))
        try:
            os.link(temporary, self._file(name, before + 1))
        except FileExistsError:
            raise ConflictError(f"{name}: somebody else was first") from None
        finally:
            temporary.unlink()
        if self._latest().get(name, 0) > before + 1:
            # The file that would have been in the way was gone already, because others have gone on since.
            self._file(name, before + 1).unlink(missing_ok=True)
            raise ConflictError(f"{name}: others have gone on")
        self._remove_before(name, before + 1)
        return Stored(record, str(before + 1))

    def _delete(self, name: str, version: str) -> None:
        if self._latest().get(name, 0) > int(version):
            raise ConflictError(f"{name}: somebody else was first")
        self._remove_before(name, int(version) + 1)

    def _remove_before(self, name: str, version: int) -> None:
        for entry in os.scandir(self._path):
            stem, _, number = entry.name.rpartition(".")
            if stem == name and number.isdigit() and int(number) < version:
                Path(entry.path).unlink(missing_ok=True)

    def _file(self, name: str, version: int) -> Path:
        return self._path / f"{name}.{version}"
