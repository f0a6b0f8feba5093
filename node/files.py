"""Files that others read at any moment: whole, or as they were."""

from __future__ import annotations

import os
from pathlib import Path


def place(path: Path, data: bytes, mode: int) -> None:
    """Have a file with this content and mode; one that is so already is not touched. Raises OSError."""
    try:
        if path.read_bytes() == data and path.stat().st_mode & 0o777 == mode:
            return
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, and not a name that a container runtime takes for a configuration's.
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
