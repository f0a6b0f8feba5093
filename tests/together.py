"""Runs all tests, the unit tests beside the integration tests: the latter mostly wait for what they have set going.

What the unit tests say is printed when both have ended. With arguments it is pytest, and nothing else.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PYTEST = [sys.executable, "-m", "pytest"]


def main(arguments: list[str]) -> int:
    if arguments:
        return subprocess.run([*PYTEST, *arguments], check=False).returncode
    with tempfile.TemporaryFile() as told:
        unit = subprocess.Popen(
            [*PYTEST, "-p", "no:cacheprovider", str(HERE / "unit")], stdout=told, stderr=subprocess.STDOUT
        )
        try:
            codes = [subprocess.run([*PYTEST, str(HERE / "integration")], check=False).returncode, unit.wait()]
        finally:
            unit.kill()
            unit.wait()
            told.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(told.read())
            sys.stdout.flush()
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
