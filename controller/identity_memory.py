"""The identities whose hashes met, kept in a file over a restart, so that they have the numbers that they had.

All others follow from what pods are. The file is small and seldom written; it is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec


class MemoryFileError(Exception):
    """The file can't be read or written; the text names it."""


class Memory(Protocol):
    """Where identities are kept whose hashes met."""

    def read(self) -> dict[str, int]: ...

    def write(self, collided: Mapping[str, int]) -> None: ...


class IdentityMemory:
    """A file, or where `path` is None, nothing that lasts."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._written: dict[str, int] = {}

    def read(self) -> dict[str, int]:
        """Identities' titles and numbers. Raises MemoryFileError."""
        if self._path is None:
            return {}
        try:
            self._written = msgspec.json.decode(self._path.read_bytes(), type=dict[str, int])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            raise MemoryFileError(f"{self._path}: {error}; remove the file to begin anew") from error
        return dict(self._written)

    def write(self, collided: Mapping[str, int]) -> None:
        """Keep these and no others. Raises MemoryFileError."""
        if self._path is None or collided == self._written:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_name(f".{self._path.name}")
            temporary.write_bytes(msgspec.json.encode(dict(collided)))
            temporary.rename(self._path)
        except OSError as error:
            raise MemoryFileError(f"{self._path}: {error}") from error
        self._written = dict(collided)
