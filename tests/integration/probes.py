"""Questions that tests ask from inside a namespace: ping, echo, frames made by hand."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deploy.lab.cluster import Lab
from deploy.lab.layout import netns_path

HERE = Path(__file__).parent
PORT = 8080
PODS = ("a1", "a2", "b1", "c1")
#: Seconds that whatever must come may take on however busy a machine. Where all is well nobody waits for it.
LONG = 30.0


def inside(netns: str, argv: Sequence[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command in a namespace."""
    return subprocess.run(
        ["nsenter", f"--net={netns_path(netns)}", "--", *argv],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def pod_netns(lab: Lab, pod: str, namespace: str = "default") -> str:
    return lab.layout.pod_netns(namespace, pod)


def addresses(lab: Lab, pod: str, namespace: str = "default") -> list[str]:
    """A pod's addresses, IPv4 first, as the controller knows them."""
    for row in lab.ask("pods")["items"]:
        if (row["namespace"], row["name"]) == (namespace, pod):
            return list(row["addresses"])
    raise AssertionError(f"no pod {namespace}/{pod}")


def node_addresses(lab: Lab, node: str) -> list[str]:
    (row,) = [row for row in lab.ask("nodes")["items"] if row["name"] == node]
    return list(row["addresses"])


def flows_of(lab: Lab, node: str, text: str) -> list[str]:
    """The flows of a node's switch, as ovs-ofctl would show them, that `text` is in."""
    return [row["ofctl"] for row in lab.ask("nodes", node, "flows")["items"] if text in (row["ofctl"] or "")]


def pings(netns: str, address: str, *, count: int = 1, size: int = 56, wait: float = LONG) -> int:
    """How many of `count` pings, which must not be fragmented, are answered within `wait` seconds."""
    done = inside(
        netns,
        ["ping", "-n", "-q", "-M", "do", "-i", "0.01", "-c", str(count), "-s", str(size), "-W", str(wait), address],
    )
    for line in done.stdout.splitlines():
        if " received" in line:
            return int(line.split(",")[1].split()[0])
    return 0


def answers(netns: str, address: str) -> None:
    """Wait until a ping is answered, where the address may have been another pod's, or nobody's, a moment ago.

    A datapath that has seen packets to it goes on with what it cached until it has looked at its flows again, which
    takes Open vSwitch some milliseconds after they changed.
    """
    until(lambda: pings(netns, address, wait=0.2) == 1, f"{address} answers {netns}", timeout=LONG)


def pairs_between(lab: Lab, sources: Iterable[str], targets: Iterable[str]) -> list[tuple[str, str]]:
    """(namespace, address) from every pod of `sources` to every other pod's addresses."""
    known = {pod: addresses(lab, pod) for pod in targets}
    return [(pod_netns(lab, pod), each) for pod in sources for other in known if other != pod for each in known[other]]


def ping_all(pairs: Iterable[tuple[str, str]], wait: float = LONG) -> list[tuple[str, str]]:
    """The pairs of (namespace, address) that don't answer."""
    with ThreadPoolExecutor(8) as pool:
        wanted = list(pairs)
        answered = list(pool.map(lambda pair: pings(*pair, wait=wait), wanted))
    return [pair for pair, received in zip(wanted, answered, strict=True) if not received]


def echo(netns: str, kind: str, targets: Sequence[str], size: int = 100, port: int = PORT) -> dict[str, Any]:
    """What the echo servers at these addresses answer."""
    done = inside(
        netns, ["python3", "-I", str(HERE / "echo_client.py"), str(port), str(size), kind, *targets], timeout=120
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


class Ear:
    """Hears marks that come to a namespace's eth0, however long that takes, from its making to its end."""

    def __init__(self, netns: str, start: str) -> None:
        argv = ["nsenter", f"--net={netns_path(netns)}", "--", "python3", "-I", str(HERE / "frames.py"), "hear", start]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._text = b""
        assert self._process.stdout is not None and self._process.stdout.readline() == b"listening\n"
        os.set_blocking(self._process.stdout.fileno(), False)

    @property
    def marks(self) -> set[str]:
        """Those that it has heard by now, each of `start` and what follows it up to a space."""
        assert self._process.stdout is not None
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._process.stdout.fileno(), 1 << 16):
                self._text += more
        return set(self._text.decode().rpartition("\n")[0].split())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def serves(netns: str) -> bool:
    """Whether the server of this namespace takes connections yet."""
    return "error" not in echo(netns, "tcp", ["127.0.0.1"])["127.0.0.1"]


def until(condition: Callable[[], bool], what: str, timeout: float = 2 * LONG) -> float:
    """Wait for something to become true; the seconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < timeout, f"{what}: not within {timeout:g} s"
        time.sleep(0.02)
    return time.monotonic() - begun
