"""Manifest files on disk: read once, or watched for changes.

Owns the file system's side: which files count, when a file that is being written is whole, when to look again. What the
texts mean is `topology.manifest_state`'s business. The controller follows `ManifestSource.watch`, the lab calls `load`.

Looking is polling: a scan of a hundred files takes about a millisecond, and works on every file system, which
change notification doesn't. A file counts as written when two scans in a row find it alike, so half of a text is never
taken for the whole unless its writer pauses in the middle; writing beside and renaming is safe in any case.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec

from topology.manifest_state import ManifestState, Snapshot
from topology.manifests import Problem
from topology.services import ServiceRanges

#: JSON is YAML, but for tabs between its words.
SUFFIXES = (".yaml", ".yml", ".json")
#: A manifest of 5,000 pods has about 1 MB.
MAX_BYTES = 32 << 20


class UnreadableError(Exception):
    """A manifest directory that can't be listed; the text says why."""


class Signature(msgspec.Struct, frozen=True):
    """What changes when a file's content does."""

    inode: int
    size: int
    modified_ns: int
    #: Also when who may read the file changes.
    changed_ns: int


def load(*paths: Path, ranges: ServiceRanges | None = None) -> Snapshot:
    """What files, and the manifest files of directories, declare now. What can't be read is among the problems."""
    return ManifestState(ranges).update(read(*paths))


def read(*paths: Path) -> dict[str, bytes | Problem]:
    """The texts of files, and of the manifest files in directories, by path."""
    texts: dict[str, bytes | Problem] = {}
    for path in paths:
        if not path.is_dir():
            texts[str(path)] = _read(path)[0]
            continue
        found, problem = scan(path)
        if problem is not None:
            texts[str(path)] = problem
        for name in found:
            texts[str(path / name)] = _read(path / name)[0]
    return texts


def scan(directory: Path) -> tuple[dict[str, Signature], Problem | None]:
    """The manifest files of a directory (not of those inside it), or why it can't be listed."""
    found: dict[str, Signature] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.endswith(SUFFIXES):
                    continue
                try:
                    status = entry.stat()
                except FileNotFoundError:  # deleted meanwhile, or a link to nothing
                    continue
                if stat.S_ISREG(status.st_mode):
                    found[entry.name] = _signature(status)
    except OSError as error:
        return {}, _unreadable(directory, error)
    return found, None


def edition(files: Mapping[str, Signature]) -> str:
    """What a scan has found, in a few letters: another where any file is another."""
    return hashlib.blake2b(repr(sorted(files.items())).encode(), digest_size=8).hexdigest()


def _read(path: Path) -> tuple[bytes | Problem, Signature | None]:
    """A file's text, and the signature of what was read."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(MAX_BYTES + 1) if status.st_size <= MAX_BYTES else b""
    except OSError as error:
        return _unreadable(path, error), None
    if max(status.st_size, len(data)) > MAX_BYTES:
        return Problem(str(path), 1, "", f"the file has more than {MAX_BYTES >> 20} MiB; split it"), None
    return data, _signature(status)


def _unreadable(path: Path, error: OSError) -> Problem:
    return Problem(str(path), 1, "", f"can't be read: {error.strerror}; check that it is there and who may read it")


def _signature(status: os.stat_result) -> Signature:
    return Signature(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Settling:
    """Which files have changed and are no longer changing. Pure: scans in, names out."""

    def __init__(self) -> None:
        self._last: Mapping[str, Signature] = {}
        self._taken: dict[str, Signature] = {}

    def settled(self, found: Mapping[str, Signature]) -> set[str]:
        """The files, among them those that are gone, that this scan and the last found alike and that aren't taken."""
        names = found.keys() | self._taken.keys()
        alike = {name for name in names if found.get(name) == self._last.get(name)}
        self._last = found
        return {name for name in alike if found.get(name) != self._taken.get(name)}

    def take(self, name: str, signature: Signature | None) -> None:
        """A file was read as of this signature, or is gone."""
        if signature is None:
            self._taken.pop(name, None)
        else:
            self._taken[name] = signature

    @property
    def taken(self) -> dict[str, Signature]:
        """The files as they were taken last."""
        return dict(self._taken)

    @property
    def pending(self) -> bool:
        """Whether the last scan found what isn't taken yet."""
        return self._last != self._taken


class ManifestSource:
    """A directory of manifests; it is looked at every `interval` seconds, and a file must be still for as long."""

    def __init__(self, directory: Path, *, ranges: ServiceRanges | None = None, interval: float = 0.05) -> None:
        self.directory = directory
        self._interval = interval
        self._settling = Settling()
        self._state = ManifestState(ranges)
        self._texts: dict[str, bytes | Problem] = {}
        self._problem: Problem | None = None
        self._synced = False
        #: The files that the last snapshot is of.
        self._shown: Mapping[str, Signature] = {}
        #: When the first of the files was changed that are new in the last snapshot, by the file system's clock, in
        #: seconds since 1970; None where that isn't known, as of files that are gone, or where all are new.
        self.changed: float | None = None
        self._earliest: int | None = None
        #: How long the last scan took, and the one before.
        self._scan_seconds = 0.0, 0.0

    @property
    def edition(self) -> str:
        """Which files the last snapshot is of, as `edition` of a scan tells it."""
        return edition(self._shown)

    async def watch(self) -> AsyncIterator[Snapshot]:
        """The snapshot when all files have been read, then each one that differs from the last; never ends.

        A consumer that is slow misses the snapshots in between, never the last one. Raises UnreadableError if the
        directory can't be listed before the first snapshot; later that is a problem like any other, and what was in
        force stays so.
        """
        while True:
            started = time.monotonic()
            before = self._state.snapshot if self._synced else None
            # In a thread: reading and expanding thousands of objects takes longer than a switch should wait.
            await asyncio.to_thread(self._look)
            elapsed = time.monotonic() - started
            # Here and not in the thread: what is yielded is in force before anybody else can ask.
            self._shown = self._settling.taken
            earliest, self._earliest = self._earliest, None
            self.changed = earliest / 1e9 if earliest is not None else None
            if self._synced and self._state.snapshot != before:
                yield self._state.snapshot
            # A large or slow directory is looked at less often: never more than a twentieth of the time. One scan that
            # was slow says nothing of it: the machine may have stood still. What a change costs beyond looking comes
            # with changes alone, and they don't wait twenty times as long for it.
            await asyncio.sleep(max(self._interval, 20 * min(self._scan_seconds), elapsed))

    def _look(self) -> None:
        """Scan once and take what there is to take."""
        started = time.monotonic()
        found, problem = scan(self.directory)
        self._scan_seconds = time.monotonic() - started, self._scan_seconds[0]
        if problem is not None and not self._synced:
            raise UnreadableError(str(problem))
        texts = self._texts if problem is not None else self._take(found)
        ready = self._synced or not self._settling.pending
        if ready and (not self._synced or (texts, problem) != (self._texts, self._problem)):
            self._state.update(texts if problem is None else texts | {problem.file: problem})
            self._synced = True
        self._texts, self._problem = texts, problem

    def _take(self, found: Mapping[str, Signature]) -> dict[str, bytes | Problem]:
        """The texts as they are now, as far as they have settled."""
        texts = dict(self._texts)
        unread = {name for name in found if isinstance(texts.get(str(self.directory / name)), Problem)}
        for name in self._settling.settled(found) | unread:
            path = self.directory / name
            signature = found.get(name)
            if signature is None:
                texts.pop(str(path), None)
            else:
                text, read_signature = _read(path)
                if read_signature not in (None, signature):
                    continue  # written to meanwhile: the next scan sees it
                texts[str(path)] = text
                if self._synced:
                    self._earliest = min(signature.changed_ns, self._earliest or signature.changed_ns)
            self._settling.take(name, signature)
        return texts
