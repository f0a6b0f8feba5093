"""A lab's pods: what kubelet and a container runtime do on a real node, as far as a network needs it.

A pod is a network namespace, connected by the real CNI plugin as a runtime would call it, in which the command of its
first container runs on the host's file system. What should run is a function of the manifests; `reconcile` makes it so.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from deploy.lab import processes, substrate
from deploy.lab.layout import LabError, Layout, netns_path
from deploy.lab.processes import Process
from node.cni import installation
from node.cni.build import BuildError, compile_plugin
from node.cni.spec import Code
from topology.manifest_state import Snapshot
from topology.model import ContainerPort, Pod
from topology.workloads import PodSpec

#: What a pod runs that names no command.
_PAUSE = ["sleep", "infinity"]
#: Pods that are started or ended at a time: more than the cores, because most of it is waiting.
_AT_A_TIME = 6
#: Seconds before the first and between the last attempts at a CNI ADD, and after which no more is begun: kubelet tries
#: for ever, a lab says what is wrong.
_ADD_PAUSE, _LONGEST_ADD_PAUSE, _ADD_LIMIT = 0.1, 2.0, 20.0
#: Errors of a CNI request that would be no other when it is made again.
_LASTING = frozenset(
    (
        Code.INCOMPATIBLE_VERSION,
        Code.UNSUPPORTED_FIELD,
        Code.UNKNOWN_CONTAINER,
        Code.INVALID_ENVIRONMENT,
        Code.DECODE,
        Code.INVALID_CONFIG,
    )
)
#: Seconds that a CNI request may take; the agent bounds its own waits below that.
_CNI_LIMIT = 90.0
#: Seconds that a pod still runs when no Service sends anything there: what was begun before comes to its end.
_DRAIN = 0.1
#: Seconds that a pod with a readiness probe may take, and between two probes.
_READY_WAIT, _PROBE_PAUSE = 30.0, 0.05
#: A connection to a port of the pod's own; with a path an answer from 200 to 399 as well.
_TRY = r"""
import socket, sys
port, path = int(sys.argv[1]), sys.argv[2]
for host in ("127.0.0.1", "::1"):
    try:
        sock = socket.create_connection((host, port), 1)
        break
    except OSError:
        pass
else:
    sys.exit("nobody listens")
if path:
    sock.sendall(f"GET {path} HTTP/1.0\r\nHost: probe\r\n\r\n".encode())
    code = sock.recv(4096).split()[1]
    sys.exit(0 if b"200" <= code < b"400" else f"answer {code}")
"""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A pod as it was started."""

    namespace: str
    name: str
    node: str
    container: str
    host_network: bool
    argv: tuple[str, ...]
    env: Mapping[str, str] = {}
    working_dir: str = ""
    labels: Mapping[str, str] = {}
    #: Of its containers, as a Pod document has them.
    ports: tuple[Mapping[str, Any], ...] = ()
    #: What CNI ADD said; empty for a pod of the host's network.
    result: Mapping[str, Any] = {}

    @property
    def title(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def is_whole(self) -> bool:
        """Whether it came to be a pod. One that couldn't be connected, nor taken away again, is written down too."""
        return self.host_network or bool(self.result)


def install_plugin(layout: Layout) -> None:
    """The CNI plugin where the lab's runtime looks for it: the compiled one, or compiled now, or else the script."""
    layout.bin.mkdir(parents=True, exist_ok=True)
    if not installation.is_compiled():
        with contextlib.suppress(BuildError):
            compile_plugin(layout.bin / installation.PLUGIN)
            return
    installation.install_plugin(layout.bin)


def running(layout: Layout) -> dict[tuple[str, str], Running]:
    """The pods that were started, by namespace and name."""
    found = {}
    for path in layout.pods.glob("*/pod.json"):
        pod = msgspec.json.decode(path.read_bytes(), type=Running)
        found[pod.namespace, pod.name] = pod
    return found


def process_of(layout: Layout, pod: Running) -> Process | None:
    """A pod's process, if it still runs."""
    return processes.recorded(_directory(layout, pod) / "process.json")


def exit_code(layout: Layout, pod: Running) -> int | None:
    """What a pod's command has ended with; None while it runs, or if it was killed."""
    try:
        return int((_directory(layout, pod) / "exit").read_text())
    except (OSError, ValueError):
        return None


def log_of(layout: Layout, namespace: str, name: str) -> Path:
    """Where a pod's output goes."""
    return layout.pod(namespace, name) / "log"


def reconcile(
    layout: Layout,
    snapshot: Snapshot,
    nodes: Iterable[str],
    say: Callable[[str], None],
    settle: Callable[[], None] = lambda: None,
) -> list[str]:
    """Start the pods that should run, and end the others when those are ready. Returns what went wrong, a line each.

    `settle` returns when every switch has what has been written. A pod that ends says so first, and its command ends
    when no Service sends connections there any more. Pods that are replaced under their own names are so one by one.
    """
    layout.pods.mkdir(parents=True, exist_ok=True)
    here = set(nodes)
    desired = {
        (pod.namespace, pod.name): pod for pod in snapshot.pods() if pod.node in here and _is_wanted(pod, snapshot)
    }
    there = running(layout)
    current = {key: pod for key, pod in there.items() if pod.is_whole or key not in desired}
    problems: list[str] = []
    leaving = [pod for key, pod in sorted(current.items()) if key not in desired]
    arriving = [pod for key, pod in sorted(desired.items()) if key not in current]
    changing = [key for key, pod in sorted(current.items()) if key in desired and _differs(pod, desired[key], snapshot)]

    def stop(pod: Running) -> None:
        try:
            remove(layout, pod)
            say(f"pod {pod.title} ended")
        except LabError as error:
            problems.append(f"pod {pod.title}: {error}")

    def begin(pod: Pod) -> None:
        former = there.get((pod.namespace, pod.name))
        try:
            if former is not None and not former.is_whole:
                remove(layout, former)
            started = add(layout, pod, snapshot.pod_specs.get(pod.key), say)
            say(f"pod {started.title} runs on {started.node}")
            _wait_until_ready(layout, started, snapshot.pod_specs.get(pod.key))
        except LabError as error:
            problems.append(f"pod {pod.namespace}/{pod.name}: {error}")

    def take_leave(pods: Sequence[Running]) -> None:
        for pod in pods:
            if process_of(layout, pod) is not None:
                write_status(layout, pod, ready=_was_ready(layout, pod), terminating=True)
        if pods:
            settle()
            time.sleep(_DRAIN)

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        list(pool.map(begin, arriving))
        if arriving and leaving:
            settle()
        take_leave(leaving)
        list(pool.map(stop, leaving))
    for key in reversed(changing):
        take_leave([current[key]])
        stop(current[key])
        begin(desired[key])
        settle()
    return problems


def _is_wanted(pod: Pod, snapshot: Snapshot) -> bool:
    return pod.key in snapshot.pod_specs


def _differs(pod: Running, wanted: Pod, snapshot: Snapshot) -> bool:
    spec = snapshot.pod_specs.get(wanted.key)
    argv, env, working_dir = _command(spec)
    return (pod.node, pod.host_network, pod.argv, dict(pod.env), pod.working_dir) != (
        wanted.node,
        wanted.host_network,
        argv,
        env,
        working_dir,
    )


def _command(spec: PodSpec | None) -> tuple[tuple[str, ...], dict[str, str], str]:
    if spec is None:
        return tuple(_PAUSE), {}, ""
    return (*spec.command, *spec.args) or tuple(_PAUSE), dict(spec.env), spec.working_dir or ""


def add(layout: Layout, pod: Pod, spec: PodSpec | None, say: Callable[[str], None]) -> Running:
    """Start a pod. Raises LabError, and then nothing of it is left but what the node's agent didn't take away."""
    argv, env, working_dir = _command(spec)
    started = Running(
        namespace=pod.namespace,
        name=pod.name,
        node=pod.node,
        container=f"{layout.name}-{pod.namespace}-{pod.name}-{os.urandom(4).hex()}",
        host_network=pod.host_network,
        argv=argv,
        env=env,
        working_dir=working_dir,
        labels=dict(pod.labels),
        ports=tuple(map(_port_document, pod.ports)),
    )
    directory = _directory(layout, started)
    directory.mkdir(parents=True, exist_ok=True)
    netns = layout.node_netns(pod.node)
    try:
        if not pod.host_network:
            netns = layout.pod_netns(pod.namespace, pod.name)
            substrate.make_namespace(netns)
            # Written down before the plugin is called: whatever happens then, `remove` finds it.
            _write(directory, started)
            started = msgspec.structs.replace(started, result=connect(layout, started, say))
        _write(directory, started)
        (directory / "exit").unlink(missing_ok=True)
        variables = {"HOSTNAME": pod.name, **env}
        # The shell stays to write down how the command ended.
        script = ["sh", "-c", '"$@"; echo $? > "$0"', str(directory / "exit"), *argv]
        process = processes.start(script, directory / "log", netns=netns, env=variables, cwd=working_dir or None)
        processes.record(directory / "process.json", process)
        write_status(layout, started, ready=spec is None or spec.readiness is None)
    except (LabError, OSError) as error:
        # What was wrong first is what is said.
        with contextlib.suppress(LabError):
            remove(layout, started)
        raise LabError(str(error)) from error
    return started


def _status_path(layout: Layout, pod: Running) -> Path:
    return layout.manifests / f"podstatus.{pod.namespace}.{pod.name}.yaml"


def write_status(layout: Layout, pod: Running, *, ready: bool, terminating: bool = False) -> None:
    """Tell the controller of a pod's addresses and state, as kubelet tells Kubernetes' API server of a mirror pod.

    It is the node's: so the pod is there until the document goes, also when nothing asks for it any more.
    """
    addresses = [str(each["address"]).partition("/")[0] for each in pod.result.get("ips", [])]
    metadata = {
        "name": pod.name,
        "namespace": pod.namespace,
        "labels": dict(pod.labels),
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": pod.node}],
    }
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata | ({"deletionTimestamp": "2000-01-01T00:00:00Z"} if terminating else {}),
        "spec": {
            "nodeName": pod.node,
            "hostNetwork": pod.host_network,
            "containers": [{"name": "main", "ports": list(pod.ports)}],
        },
        "status": {
            "podIPs": [{"ip": address} for address in addresses],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }
    path = _status_path(layout, pod)
    # Beside and renamed: the controller never reads half of it.
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(document))
    temporary.rename(path)


def _port_document(port: ContainerPort) -> dict[str, Any]:
    document: dict[str, Any] = {"containerPort": port.port, "protocol": port.protocol, "name": port.name}
    if port.host_port:
        document |= {"hostPort": port.host_port, "hostIP": str(port.host_ip) if port.host_ip is not None else ""}
    return document


def _was_ready(layout: Layout, pod: Running) -> bool:
    """Whether a pod's last status says that it is ready."""
    try:
        (condition,) = json.loads(_status_path(layout, pod).read_text())["status"]["conditions"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(condition["status"] == "True")


def _wait_until_ready(layout: Layout, pod: Running, spec: PodSpec | None) -> None:
    """Probe a pod until it is ready, and say so. Raises LabError after a while."""
    probe = spec.readiness if spec is not None else None
    if probe is None:
        return
    netns = layout.node_netns(pod.node) if pod.host_network else layout.pod_netns(pod.namespace, pod.name)
    argv = list(probe.command) or [sys.executable, "-I", "-S", "-c", _TRY, str(probe.port), probe.path]
    deadline = time.monotonic() + _READY_WAIT
    while True:
        try:
            substrate.run(argv, netns=netns)
            break
        except (LabError, subprocess.TimeoutExpired) as error:
            if time.monotonic() > deadline:
                why = str(error).strip().splitlines()[-1]
                raise LabError(f"it isn't ready after {_READY_WAIT:g} s, its readiness probe says: {why}") from error
            time.sleep(_PROBE_PAUSE)
    write_status(layout, pod, ready=True)


def connect(layout: Layout, pod: Running, say: Callable[[str], None]) -> dict[str, Any]:
    """CNI ADD, and again where it fails, as kubelet does. Raises CniFailure after a while, or where that is no use."""
    begun = time.monotonic()
    for attempt in count(1):
        try:
            return call_plugin(layout, pod, "ADD")
        except CniFailure as failure:
            passed = time.monotonic() - begun
            if failure.code in _LASTING or passed > _ADD_LIMIT:
                tried = f" (tried {attempt} times in {passed:.0f} s)" if attempt > 1 else ""
                raise CniFailure(failure.code, f"{failure}{tried}") from failure
            if attempt == 1:
                say(f"pod {pod.title}: {failure}; it is tried again")
        with contextlib.suppress(CniFailure):
            call_plugin(layout, pod, "DEL")
        time.sleep(min(_ADD_PAUSE * 2 ** (attempt - 1), _LONGEST_ADD_PAUSE))
    raise AssertionError("unreachable")


def remove(layout: Layout, pod: Running) -> None:
    """End a pod and remove all that is of it. What is gone already is no matter."""
    directory = _directory(layout, pod)
    process = process_of(layout, pod)
    if process is not None:
        processes.stop([process], group=True)
    if not pod.host_network:
        call_plugin(layout, pod, "DEL")
        substrate.remove_namespace(layout.pod_netns(pod.namespace, pod.name))
    _status_path(layout, pod).unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


class CniFailure(LabError):
    """The plugin answered with an error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def call_plugin(layout: Layout, pod: Running, command: str, **extra: Any) -> dict[str, Any]:
    """Run the CNI plugin for a pod as a container runtime does. Raises CniFailure."""
    netns = netns_path(layout.pod_netns(pod.namespace, pod.name))
    variables = {
        "CNI_CONTAINERID": pod.container,
        "CNI_NETNS": str(netns) if netns.exists() else "",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={pod.namespace};K8S_POD_NAME={pod.name}",
    }
    return run_plugin(layout, pod.node, command, variables, **extra)


def is_ready(layout: Layout, node: str) -> bool:
    """Whether a node's agent takes pods. That its switch is connected it learns late, and ADD waits for it."""
    try:
        run_plugin(layout, node, "STATUS")
    except CniFailure as failure:
        return failure.code == Code.LIMITED
    return True


def run_plugin(
    layout: Layout, node: str, command: str, variables: Mapping[str, str] | None = None, **extra: Any
) -> dict[str, Any]:
    """Run the CNI plugin on a node, with these CNI_ variables and configuration keys. Raises CniFailure."""
    config = {
        "cniVersion": "1.1.0",
        "name": "signalbox",
        "type": "signalbox-cni",
        "socket": str(layout.node(node) / "node.sock"),
        **extra,
    }
    environment = {
        "CNI_COMMAND": command,
        "CNI_PATH": str(layout.bin),
        "PATH": os.environ.get("PATH", ""),
        **(variables or {}),
    }
    try:
        done = subprocess.run(
            [str(layout.bin / "signalbox-cni")],
            input=json.dumps(config),
            capture_output=True,
            text=True,
            env=environment,
            timeout=_CNI_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CniFailure(Code.TRY_LATER, f"CNI {command}: no answer within {_CNI_LIMIT:g} s") from error
    answer: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
    if done.returncode:
        raise CniFailure(int(answer.get("code", 0)), f"CNI {command}: {answer.get('msg', done.stderr.strip())}")
    return answer


def _directory(layout: Layout, pod: Running) -> Path:
    return layout.pod(pod.namespace, pod.name)


def _write(directory: Path, pod: Running) -> None:
    (directory / "pod.json").write_bytes(msgspec.json.encode(pod))
