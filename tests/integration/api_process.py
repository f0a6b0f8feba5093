"""The emulated API server, as a process in a network namespace, where it listens on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from deploy.lab.layout import netns_path

ROOT = Path(__file__).parents[2]


class Api:
    """It ends with `close`; what it is told is what tests/unit/api_server.py obeys."""

    def __init__(self, netns: str, directory: Path) -> None:
        self.kubeconfig = directory / "kubeconfig"
        argv = [sys.executable, str(ROOT / "tests/unit/api_server.py")]
        self._process = subprocess.Popen(
            ["nsenter", f"--net={netns_path(netns)}", "--", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self._process.stdout is not None
        self.kubeconfig.write_text(self._process.stdout.readline())

    def tell(self, *words: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
