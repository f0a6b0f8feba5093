"""A lab of two nodes for benchmarks of Services: a client, a server on its node and one on the other.

The lab ends with the benchmark, also where that is killed: the lab's guardian sees to it.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from deploy.lab.cluster import Lab, owner, settings_for
from deploy.lab.layout import LabError, netns_path
from topology.naming import Address

NAMESPACE, HERE, THERE = "bench", "node-1", "node-2"
CLIENT, NEAR, FAR = "client", "near", "far"
#: What Services lead to, and what is called directly: apart, so that no two connections have the same addresses.
PORT, DIRECT_PORT = 8080, 8090
PROGRAM = Path(__file__).resolve().parent / "pod_program.py"


def _manifest(name: str, node: str, *command: object) -> str:
    # A pod's network is its own, its files are the host's.
    words = ", ".join(f'"{word}"' for word in command)
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {NAMESPACE}, labels: {{app: {name}}}}}\n"
        f"spec: {{nodeName: {node}, containers: [{{name: main, image: none, command: [{words}]"
        + (f", readinessProbe: {{tcpSocket: {{port: {DIRECT_PORT}}}}}" if name != CLIENT else "")
        + "}]}\n---\n"
    )


@contextlib.contextmanager
def lab_with_servers(manifests: str = "") -> Iterator[Lab]:
    """The lab, up, with these manifests besides."""
    lab = Lab(f"bench{os.getpid()}")
    text = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n"
    text += _manifest(CLIENT, HERE, "sleep", "infinity")
    for name, node in ((NEAR, HERE), (FAR, THERE)):
        text += _manifest(name, node, sys.executable, PROGRAM, "serve", name, PORT, DIRECT_PORT)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.yaml"
        path.write_text(text + manifests)
        try:
            problems = lab.up(settings_for(lab.layout.name, 2, **owner(os.getpid())), [path])
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
    netns = netns_path(lab.layout.pod_netns(NAMESPACE, CLIENT))
    return ["nsenter", f"--net={netns}", "--", sys.executable, "-I", "-S", str(PROGRAM), *map(str, words)]
