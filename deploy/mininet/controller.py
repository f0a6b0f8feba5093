"""The controller as Mininet's: `controller=Signalbox`, or `mn --controller signalbox,manifests=FILE`."""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mininet.log import error, info, warn
from mininet.node import Controller

from deploy.mininet import manifests
from deploy.mininet.manifests import Attachment, MininetError

if TYPE_CHECKING:
    from deploy.mininet.switch import SignalboxSwitch

#: Seconds that the controller has to start, and the network to be as it should after it has started or changed.
_START, _SETTLE = 15.0, 60.0
_PAUSE = 0.02
_PR_SET_PDEATHSIG = 1


class Signalbox(Controller):  # type: ignore[misc]
    """Runs `signalbox controller` and tells it of switches and hosts.

    manifests: a file of Kubernetes objects (Services, NetworkPolicies, Namespaces) and Workloads, which say labels and
        namespaces of hosts of the same name. Without it the file beside the script that has its name and ends in
        `.yaml`, if there is one.
    options: more words for `signalbox controller`.
    """

    def __init__(
        self, name: str, manifests: str | None = None, options: Sequence[str] = (), port: int = 6653, **params: Any
    ) -> None:
        self.options = list(options)
        self.manifests = Path(manifests) if manifests else _beside_script()
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._hosts: dict[str, dict[str, Any]] = {}
        self._declared: set[str] = set()
        #: Switches by the order in which they came.
        self._indices: dict[str, int] = {}
        super().__init__(name, port=port, **params)

    # What Mininet calls -----------------------------------------------------------------------------------------

    def checkListening(self) -> None:
        """Raise where another controller has the port."""
        with socket.socket() as probe:
            if probe.connect_ex((self.ip, self.port)) == 0:
                raise MininetError(
                    f"controller {self.name}: something listens on {self.ip}:{self.port}; end it, or give port=..."
                )

    def start(self) -> None:
        """Start the controller and wait until it listens."""
        self._directory = directory = Path(tempfile.mkdtemp(prefix="signalbox-mininet-"))
        folder = directory / "manifests"
        folder.mkdir()
        if self.manifests is not None:
            self._hosts, rest = manifests.split(manifests.read(self.manifests))
            manifests.write(folder / "own.yaml", rest)
        argv = [*_command(), "controller", "--listen", f"tcp:{self.ip}:{self.port}", "--insecure"]
        argv += ["--manifests", str(folder), "--socket", str(directory / "api.sock"), *self.options]
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # It ends with Mininet, also where that is killed; Ctrl-C in Mininet's prompt is for Mininet alone.
                preexec_fn=_end_with_parent,
                start_new_session=True,
            )
        if not _until(lambda: self._process is None or self._process.poll() is not None or self._answers(), _START):
            raise MininetError(f"controller {self.name} doesn't start within {_START:g} s; see {self.log}")
        if self._process.poll() is not None:
            raise MininetError(f"controller {self.name} has ended: {self.log.read_text()[-400:].strip()}")

    def stop(self, *args: Any, **kwargs: Any) -> None:
        """End the controller; switches are Mininet's to remove."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        super(Controller, self).stop(*args, **kwargs)

    @classmethod
    def isAvailable(cls) -> bool:
        """Whether it can be run here."""
        return True

    # What switches call -----------------------------------------------------------------------------------------

    @property
    def log(self) -> Path:
        """Where what the controller logs is written, as Mininet's controllers do it."""
        return Path(tempfile.gettempdir(), f"{self.name}.log")

    @property
    def api(self) -> Path:
        """The socket of the admin API: `signalbox --socket ... get nodes`."""
        assert self._directory is not None
        return self._directory / "api.sock"

    def declare(self, switch: str, attachments: Iterable[Attachment]) -> None:
        """Tell of a switch and the hosts on it, anew where it has been told of already."""
        assert self._directory is not None
        mine = list(attachments)
        self._declared.update(each.name for each in mine)
        index = self._indices.setdefault(switch, len(self._indices))
        documents = manifests.switch_documents(switch, mine, self._hosts, index)
        manifests.write(self._directory / "manifests" / f"switch-{switch}.yaml", documents)

    def forget(self, switch: str) -> None:
        """A switch that is no more."""
        if self._directory is not None:
            (self._directory / "manifests" / f"switch-{switch}.yaml").unlink(missing_ok=True)

    def wait(self, switches: Iterable[SignalboxSwitch], timeout: float = _SETTLE) -> bool:
        """Wait until these switches have their flows and all wires between them are known; says what is missing."""
        for complaint in manifests.strangers(self._hosts, self._declared):
            error(f"*** {self.manifests}: {complaint}\n")
        wanted = list(switches)
        missing: list[str] = []

        def settled() -> bool:
            missing[:] = self._missing(wanted)
            return not missing

        if _until(settled, timeout):
            return True
        warn(f"*** not ready after {timeout:g} s: {', '.join(missing[:10])}; see {self.log}\n")
        return False

    def ask(self, path: str) -> Any:
        """What the admin API answers. Raises OSError where it doesn't."""
        connection = _UnixConnection(self.api)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def _answers(self) -> bool:
        try:
            self.ask("/v1/status")
        except OSError:
            return False
        return True

    def _missing(self, switches: Iterable[SignalboxSwitch]) -> list[str]:
        """Switches that aren't in sync, wires that haven't been found."""
        try:
            nodes = {row["name"]: row["status"] for row in self.ask("/v1/nodes")["items"]}
            wires = [row for row in self.ask("/v1/links")["items"] if row["kind"] == "wire"]
        except OSError as failure:
            return [f"the controller's answer ({failure})"]
        known = {frozenset([(row["from"], row["fromPort"]), (row["to"], row["toPort"])]) for row in wires}
        missing = []
        for switch in switches:
            if nodes.get(switch.name) != "Synced":
                missing.append(f"switch {switch.name}")
            missing += [
                f"wire {port} - {other_port}"
                for (name, port), (other, other_port) in switch.wires()
                if frozenset([(name, port), (other, other_port)]) not in known
            ]
        return missing


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _command() -> list[str]:
    """How the controller is started: as the environment says, as it is installed, or from where this file is."""
    said = os.environ.get("SIGNALBOX")
    if said:
        return said.split()
    beside = Path(sys.executable).with_name("signalbox")
    found = str(beside) if beside.exists() else shutil.which("signalbox")
    if found:
        return [found]
    raise MininetError("there is no program signalbox: install it, or say in SIGNALBOX how it is started")


def _beside_script() -> Path | None:
    script = Path(sys.argv[0]) if sys.argv and sys.argv[0] else None
    if script is None or script.suffix != ".py":
        return None
    path = script.with_suffix(".yaml")
    if path.exists():
        info(f"*** Objects are read from {path}\n")
        return path
    return None


def _until(condition: Callable[[], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
