"""Labs for benchmarks: of Services, two nodes with a client, a server on its node and one on the other; and others.

The lab ends with the benchmark, also where that is killed: the lab's guardian sees to it.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from deploy.lab.cluster import Lab, owner, settings_for
from deploy.lab.layout import LabError, netns_path
from topology.naming import Address

NAMESPACE, HERE, THERE = "bench", "node-1", "node-2"
CLIENT, NEAR, FAR = "client", "near", "far"
#: What Services lead to, and what is called directly: apart, so that no two connections have the same addresses.
PORT, DIRECT_PORT = 8080, 8090
PROGRAM = Path(__file__).resolve().parent / "pod_program.py"


def manifest(name: str, node: str, *command: object, app: str = "", ready: int = 0) -> str:
    """A pod that runs a command; `ready` is the port that listens once it is ready."""
    # A pod's network is its own, its files are the host's.
    words = ", ".join(f'"{word}"' for word in command)
    labels = f"{{app: {app or name}}}"
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {NAMESPACE}, labels: {labels}}}\n"
        f"spec: {{nodeName: {node}, containers: [{{name: main, image: none, command: [{words}]"
        + (f", readinessProbe: {{tcpSocket: {{port: {ready}}}}}" if ready else "")
        + "}]}\n---\n"
    )


def server(name: str, node: str, *ports: int, app: str = "") -> str:
    """A pod that says its name at these ports, and takes bytes at others."""
    return manifest(name, node, sys.executable, PROGRAM, "serve", name, *ports, app=app, ready=ports[-1])


@contextlib.contextmanager
def lab_with_servers(manifests: str = "") -> Iterator[Lab]:
    """The lab, up, with these manifests besides."""
    text = manifest(CLIENT, HERE, "sleep", "infinity")
    text += server(NEAR, HERE, PORT, DIRECT_PORT) + server(FAR, THERE, PORT, DIRECT_PORT)
    with lab_with(text + manifests, 2) as lab:
        yield lab


@contextlib.contextmanager
def lab_with(manifests: str, nodes: int, **settings: Any) -> Iterator[Lab]:
    """A lab of so many nodes, up, with the namespace and these manifests; `settings` are of `LabSettings`."""
    lab = Lab(f"bench{os.getpid()}")
    text = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n{manifests}"
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.yaml"
        path.write_text(text)
        try:
            problems = lab.up(settings_for(lab.layout.name, nodes, **settings, **owner(os.getpid())), [path])
            if problems:
                raise LabError("; ".join(problems))
            yield lab
        finally:
            if lab.is_up:
                lab.down()


def addresses(lab: Lab, name: str) -> tuple[Address, ...]:
    """A pod's addresses."""
    return tuple(ip_address(str(each["address"]).partition("/")[0]) for each in lab.pod(name, NAMESPACE).result["ips"])


def in_client(lab: Lab, *words: object) -> list[str]:
    """The command that runs the pods' program in the client's network."""
    return in_pod(lab, CLIENT, *words)


def in_pod(lab: Lab, name: str, *words: object) -> list[str]:
    """The command that runs the pods' program in a pod's network."""
    netns = netns_path(lab.layout.pod_netns(NAMESPACE, name))
    return ["nsenter", f"--net={netns}", "--", sys.executable, "-I", "-S", str(PROGRAM), *map(str, words)]
