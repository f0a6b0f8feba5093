"""Compiles the CNI plugin: one static executable, where there is a C compiler. Standard library only, and no import of
ours: setup.py runs this file before anything is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("plugin.c")
_OPTIONS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-static", "-s")
#: Seconds that a compiler may take.
_PATIENCE = 120.0


class BuildError(Exception):
    """The plugin can't be compiled; the text says why."""


def compile_plugin(target: Path, options: Sequence[str] = ()) -> None:
    """Compile the plugin to `target`, which is whole or not there. Raises BuildError."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise BuildError("there is no C compiler: install gcc and libc6-dev, or set CC")
    # Beside and renamed: nobody runs half of it.
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        done = subprocess.run(
            [compiler, *_OPTIONS, *options, "-o", str(temporary), str(SOURCE)],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode:
            raise BuildError(f"{compiler}: {done.stderr.strip()}")
        temporary.rename(target)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{compiler}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
