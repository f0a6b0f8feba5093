"""Runs all tests, in two lanes beside one another: integration tests mostly wait for what they have set going.

The second lane has the unit tests, and then those integration tests that it doesn't matter to how fast things are. What
it says is printed when both have ended. With arguments it is pytest, and nothing else.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
PYTEST = [sys.executable, "-m", "pytest"]
INTEGRATION = HERE / "integration"
#: Integration tests that ask and look, and break nothing under traffic.
PATIENT = [
    INTEGRATION / f"test_{name}.py"
    for name in (
        *("api_fuzz", "attribution", "bgp_routers", "capture", "codec_against_ovs", "console", "flow_export"),
        *("inspection", "lab_cli", "live_trace", "mininet", "offload_dummy", "offload_functions", "offload_lint"),
        *("offload_policies", "trace_agreement", "watch"),
    )
]


class Lane:
    """Runs of pytest one after another, while others go on."""

    def __init__(self, runs: list[list[str]], told: IO[bytes]) -> None:
        self.codes: list[int] = []
        self._runs, self._told = runs, told
        self._running: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._runs:
                    return
                # No cache: the other lane has it.
                command = [*PYTEST, "-p", "no:cacheprovider", *self._runs.pop(0)]
                self._running = running = subprocess.Popen(command, stdout=self._told, stderr=subprocess.STDOUT)
            self.codes.append(running.wait())

    def wait(self) -> list[int]:
        """The exit codes of all."""
        self._thread.join()
        return self.codes

    def end(self) -> None:
        """Have it end, wherever it is. Labs of a test that is killed take themselves down."""
        with self._lock:
            self._runs.clear()
            if self._running is not None:
                self._running.kill()
        self._thread.join()


def main(arguments: list[str]) -> int:
    if arguments:
        return subprocess.run([*PYTEST, *arguments], check=False).returncode
    patient = [str(path) for path in PATIENT]
    rest = [str(INTEGRATION), *(f"--ignore={path}" for path in patient)]
    with tempfile.TemporaryFile() as told:
        beside = Lane([[str(HERE / "unit")], patient], told)
        try:
            codes = [subprocess.run([*PYTEST, *rest], check=False).returncode, *beside.wait()]
        finally:
            beside.end()
            told.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(told.read())
            sys.stdout.flush()
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
