"""The lab as a whole: up, down, apply, delete, and a hand on each of its parts for tests."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import yaml

from controller.cli import client
from deploy import certificates
from deploy.lab import kubelet, processes, substrate
from deploy.lab.layout import (
    ROOT,
    LabError,
    LabSettings,
    Layout,
    cluster_cidrs,
    controller_name,
    controller_target,
    load_balancer_pools,
    networks,
    node_addresses,
    node_manifest,
    pod_cidrs,
    segment,
    segment_networks,
    service_cidrs,
)
from deploy.lab.processes import Process
from topology.manifest_source import edition, load, read, scan
from topology.manifest_state import ManifestState, Snapshot
from topology.model import Pod
from topology.services import ServiceRanges

Say = Callable[[str], None]

#: Seconds that a lab may take until every switch has all its flows.
_SYNC_WAIT = 60.0
_NODE_LIMIT = 200
#: Seconds that one of several controllers has to answer before the next is asked.
_ANSWER_WAIT = 3.0


def _silent(text: str) -> None:
    pass


class Lab:
    """One lab, by name; it may or may not be up."""

    def __init__(self, name: str = "lab", say: Say = _silent) -> None:
        self.layout = Layout(name)
        self._say = say

    # The whole --------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether there is a lab of this name, whole or not."""
        return self.layout.settings.exists()

    @property
    def settings(self) -> LabSettings:
        """How the lab was brought up. Raises LabError where there is none."""
        try:
            return msgspec.json.decode(self.layout.settings.read_bytes(), type=LabSettings)
        except FileNotFoundError:
            raise LabError(_no_lab(self.layout.name)) from None

    @property
    def nodes(self) -> list[str]:
        """The names of its nodes, in order."""
        return list(self.settings.nodes)

    @property
    def controllers(self) -> range:
        """The numbers of its controllers, from 1."""
        return range(1, self.settings.controllers + 1)

    def up(self, settings: LabSettings, files: Sequence[Path] = ()) -> list[str]:
        """Bring the lab up with the objects in `files`. Returns pods' problems. Raises LabError and leaves nothing."""
        substrate.check_machine()
        if len(settings.nodes) > _NODE_LIMIT:
            raise LabError(f"--nodes: at most {_NODE_LIMIT} fit one machine")
        sweep(self._say)
        with self._locked():
            if self.is_up:
                raise LabError(f"lab {self.layout.name!r} is up already: 'signalbox lab down' it first, or use --name")
            clash = sorted(filter(self.layout.owns, substrate.namespaces()))
            if clash:
                raise LabError(f"network namespace {clash[0]} is there already, of no lab: ip netns del {clash[0]}")
            for node in settings.nodes:
                self.layout.check_node(node, settings.controllers)
            _check_networks(settings)
            documents = _documents(files)
            try:
                return self._build(settings, documents)
            except BaseException:
                self._tear_down()
                raise

    def _build(self, settings: LabSettings, documents: list[dict[str, Any]]) -> list[str]:
        layout = self.layout
        layout.manifests.mkdir(parents=True)
        layout.settings.write_bytes(msgspec.json.encode(settings))
        if settings.owner:
            self._watch_owner(settings)
        self._say("underlay")
        substrate.make_underlay(layout, settings)
        for index, name in enumerate(settings.nodes):
            _write_manifest(layout, node_manifest(settings, name, index))
        for document in documents:
            if document["kind"] != "Node":
                _write_manifest(layout, document)
        kubelet.install_plugin(layout)
        if settings.tls:
            self._say("certificates")
            certificates.make_ca(layout.pki)
            certificates.make_controller(layout.pki)
            for name in settings.nodes:
                certificates.make_node(layout.pki, name)
        for number in self.controllers:
            self.start_controller(number)
        for index, name in enumerate(settings.nodes):
            substrate.make_node(layout, settings, name, index)
            self.start_agent(name)
            self._say(f"node {name}: Open vSwitch and agent started")
        self.wait_for_agents()
        problems = self._run_pods(settings)
        if not problems:
            self.wait_for_sync()
        return problems

    def down(self) -> None:
        """Take the lab down, whatever is left of it. Raises LabError where there is nothing."""
        with self._locked():
            if not self.is_up and not self._namespaces():
                raise LabError(_no_lab(self.layout.name))
            guardian = processes.recorded(self.layout.guardian)
            if guardian is not None and guardian.pid != os.getpid():
                processes.stop([guardian], number=signal.SIGKILL)
            self._tear_down()

    def _tear_down(self) -> None:
        # Everything of a lab runs in its namespaces, so that nothing has to be remembered to be found again.
        while doomed := processes.inside(self._namespaces()):
            processes.stop(doomed, number=signal.SIGKILL)
        for netns in self._namespaces():
            substrate.remove_namespace(netns)
        shutil.rmtree(self.layout.directory, ignore_errors=True)

    def _namespaces(self) -> list[str]:
        return sorted(filter(self.layout.owns, substrate.namespaces()))

    def _watch_owner(self, settings: LabSettings) -> None:
        argv = [sys.executable, "-m", "deploy.lab.guardian", settings.name]
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        guardian = processes.start(argv, self.layout.directory / "guardian.log", env=environment)
        processes.record(self.layout.guardian, guardian)

    # Objects ----------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """What the lab's manifests declare."""
        ranges = ServiceRanges(cluster=service_cidrs(self.settings), load_balancer=load_balancer_pools(self.settings))
        return load(self.layout.manifests, ranges=ranges)

    def apply(self, files: Sequence[Path]) -> list[tuple[str, str]]:
        """Make or change the objects in files. Returns (kind/name, what happened) for each. Raises LabError."""
        with self._locked():
            settings = self.settings
            documents = _documents(files)
            for document in documents:
                if document["kind"] == "Node":
                    raise LabError(f"node {document['metadata']['name']}: a lab's nodes are made by 'lab up'")
            before = read(self.layout.manifests)
            done = [(_title(document), _write_manifest(self.layout, document)) for document in documents]
            clashes = self.snapshot().problems
            if clashes:
                _restore(self.layout, before)
                raise LabError("\n".join(str(problem) for problem in clashes))
            self._reconcile(settings)
        return done

    def delete(self, files: Sequence[Path]) -> list[tuple[str, str]]:
        """Delete the objects that files name. Returns (kind/name, what happened) for each. Raises LabError."""
        with self._locked():
            settings = self.settings
            done = []
            for document in _documents(files):
                if document["kind"] == "Node":
                    raise LabError(f"node {document['metadata']['name']}: a lab's nodes go with 'lab down'")
                path = _manifest_path(self.layout, document)
                done.append((_title(document), "deleted" if path.exists() else "not found"))
                path.unlink(missing_ok=True)
            self._reconcile(settings)
        return done

    def _reconcile(self, settings: LabSettings) -> None:
        problems = self._run_pods(settings)
        if problems:
            raise LabError("\n".join(problems))
        self.wait_for_sync()

    def _run_pods(self, settings: LabSettings) -> list[str]:
        return kubelet.reconcile(self.layout, self.snapshot(), settings.nodes, self._say, self.wait_for_manifests)

    # Parts ------------------------------------------------------------------------------------------------------

    def start_controller(
        self, number: int = 1, *, mode: str = "", encap: str = "", options: Sequence[str] = ()
    ) -> None:
        """Start the controller, or one of several, and wait until it answers; in another mode than the lab began in."""
        layout, settings = self.layout, self.settings
        name, log = controller_name(number), layout.log_of(number)
        argv = [
            sys.executable, "-m", "deploy.command", "controller",
            "--listen", controller_target(settings, number) if settings.tls else f"unix:{layout.openflow_of(number)}",
            "--manifests", str(layout.manifests), "--socket", str(layout.api_of(number)),
            "--state-dir", str(layout.state),
            "--source-identity", settings.source_identity, "--mode", mode or settings.mode,
            "--encap", encap or settings.encap,
        ]  # fmt: skip
        for each in range(settings.segments) if (mode or settings.mode) == "hybrid" else ():
            for subnet in segment_networks(settings, each):
                argv += ["--subnet", str(subnet)]
        if settings.tls:
            argv += _tls_options(layout, "controller")
        if len(self.controllers) > 1:
            duration, deadline, retry, join = map(str, settings.lease_times)
            argv += [
                "--replica-id", name, "--leases", str(layout.leases), "--lease-duration", duration,
                "--renew-deadline", deadline, "--retry-period", retry, "--join-after", join,
            ]  # fmt: skip
        for cidr in service_cidrs(self.settings):
            argv += ["--service-cidr", str(cidr)]
        for pool in load_balancer_pools(self.settings):
            argv += ["--load-balancer-pool", str(pool)]
        process = processes.start([*argv, *options], log, netns=layout.net, env=_python_path())
        processes.record(layout.processes / f"{name}.json", process)
        self._until(lambda: self._answers(number), process, log)

    def stop_controller(self, number: int = signal.SIGTERM, controller: int = 1) -> None:
        """End the controller, or one of several."""
        self._stop(controller_name(controller), number)

    def controller_process(self, number: int = 1) -> Process:
        """A controller. Raises LabError."""
        process = processes.recorded(self.layout.processes / f"{controller_name(number)}.json")
        if process is None:
            raise LabError(f"{controller_name(number)} doesn't run")
        return process

    def start_agent(self, node: str) -> None:
        """Start a node's agent; `wait_for_agents` waits for it."""
        layout, settings = self.layout, self.settings
        directory = layout.node(node)
        index = self.nodes.index(node)
        argv = [
            sys.executable, "-m", "deploy.command", "node", "--name", node,
            "--datapath-type", "netdev", "--ovsdb", f"unix:{directory / 'db.sock'}", "--ovs-rundir", str(directory),
            "--socket", str(directory / "node.sock"), "--ovs-control", str(directory / "vswitchd.ctl"),
            # The machine's NICs are none of a lab's.
            "--sysfs", str(directory / "sys"),
        ]  # fmt: skip
        for number in self.controllers:
            path = directory / f"{controller_name(number)}.sock"
            argv += ["--controller", controller_target(settings, number) if settings.tls else f"unix:{path}"]
        if settings.tls:
            argv += _tls_options(layout, f"nodes/{node}")
        for cidr in pod_cidrs(settings, index):
            argv += ["--pod-cidr", str(cidr)]
        for cidr in cluster_cidrs(settings):
            argv += ["--cluster-cidr", str(cidr)]
        for cidr in service_cidrs(settings):
            argv += ["--service-cidr", str(cidr)]
        for address in node_addresses(settings, index):
            argv += ["--node-ip", str(address)]
        log = directory / "agent.log"
        process = processes.start(argv, log, netns=layout.node_netns(node), env=_python_path())
        processes.record(layout.processes / f"agent-{node}.json", process)

    def stop_agent(self, node: str, number: int = signal.SIGTERM) -> None:
        """End a node's agent."""
        self._stop(f"agent-{node}", number)

    def stop_switch(self, node: str, number: int = signal.SIGTERM) -> None:
        """End a node's ovs-vswitchd."""
        substrate.stop_switch(self.layout, node, number)

    def start_switch(self, node: str) -> None:
        """Start a node's ovs-vswitchd again."""
        settings = self.settings
        substrate.start_switch(self.layout, node)
        substrate.prepare_switch(self.layout, settings, node, self.nodes.index(node))

    def switch_process(self, node: str) -> Process:
        """A node's ovs-vswitchd. Raises LabError."""
        process = processes.of_pidfile(self.layout.node(node) / "vswitchd.pid")
        if process is None:
            raise LabError(f"node {node}: ovs-vswitchd doesn't run")
        return process

    def _stop(self, name: str, number: int) -> None:
        process = processes.recorded(self.layout.processes / f"{name}.json")
        if process is not None:
            processes.stop([process], number=number)

    # Waiting ----------------------------------------------------------------------------------------------------

    def ask(self, *resource: str, **query: str) -> Any:
        """The controller's answer to GET /v1/<resource>; of several, that of the first that answers."""
        *others, last = self.controllers
        for number in others:
            with contextlib.suppress(click.ClickException):
                return client.ask(self.layout.api_of(number), list(resource), query, _ANSWER_WAIT)
        return client.ask(self.layout.api_of(last), list(resource), query)

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """Nodes or pods, each as its switch's master sees it."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for answer in self._answers_of_all(kind):
            for row in answer["items"]:
                key = (row.get("namespace", ""), row["name"])
                if key not in found or found[key]["status"] == "Standby":
                    found[key] = row
        return list(found.values())

    def status(self) -> dict[str, Any]:
        """What all controllers that answer say together."""
        first, *others = told = self._answers_of_all("status")
        if not others:
            return dict(first)
        synced = sum(each["nodesInSync"] for each in told)
        return {
            **first,
            "nodesInSync": synced,
            "healthy": synced == first["nodes"] and all(each["healthy"] for each in told),
            "problems": sorted({problem for each in told for problem in each["problems"]}),
            # Where they aren't of one mind yet, it is no state of the manifests.
            "edition": first["edition"] if len({each["edition"] for each in told}) == 1 else "",
        }

    def _answers_of_all(self, *resource: str) -> list[dict[str, Any]]:
        if len(self.controllers) == 1:
            return [self.ask(*resource)]
        answers = []
        for number in self.controllers:
            with contextlib.suppress(click.ClickException):
                answers.append(client.ask(self.layout.api_of(number), list(resource), {}, _ANSWER_WAIT))
        return answers or [self.ask(*resource)]

    def audit(self) -> None:
        """Have the controller compare every flow of every switch."""
        for number in self.controllers:
            connection = client.UnixConnection(self.layout.api_of(number))
            with contextlib.suppress(OSError) if len(self.controllers) > 1 else contextlib.nullcontext():
                connection.request("POST", "/v1/audit")
                connection.getresponse().read()
            connection.close()

    def wait_for_sync(self, timeout: float = _SYNC_WAIT) -> None:
        """Until the manifests as they are now are in every switch, without problems. Raises LabError with what is."""
        self._wait_for(lambda status: bool(status["healthy"]), timeout)

    def wait_for_manifests(self, timeout: float = _SYNC_WAIT) -> None:
        """Until the manifests as they are now are in every switch that is there, problems or not."""
        away = "its switch isn't connected"

        def done(status: Any) -> bool:
            gone = sum(away in problem for problem in status["problems"])
            return bool(status["nodesInSync"] + gone == status["nodes"])

        self._wait_for(done, timeout)

    def _wait_for(self, done: Callable[[Any], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            status = self.status()
            if status["edition"] == edition(scan(self.layout.manifests)[0]) and done(status):
                return
            if time.monotonic() > deadline:
                raise LabError("the cluster is not in sync: " + "; ".join(status["problems"] or [str(status)]))
            time.sleep(0.02)

    def _answers(self, number: int) -> bool:
        try:
            client.ask(self.layout.api_of(number), ["status"])
        except click.ClickException:
            return False
        return True

    def wait_for_agents(self) -> None:
        """Until every node's agent says that it can attach pods. Raises LabError."""
        for node in self.nodes:
            process = processes.recorded(self.layout.processes / f"agent-{node}.json")
            log = self.layout.node(node) / "agent.log"
            self._until(lambda node=node: kubelet.is_ready(self.layout, node), process, log)  # type: ignore[misc]

    def _until(self, condition: Callable[[], bool], process: Process | None, log: Path) -> None:
        deadline = time.monotonic() + _SYNC_WAIT
        while not condition():
            if process is None or not processes.is_alive(process) or time.monotonic() > deadline:
                tail = log.read_text().strip().splitlines()[-3:] if log.exists() else []
                raise LabError(f"{log.name.removesuffix('.log')} doesn't come up: {' / '.join(tail) or 'no output'}")
            processes.reap()
            time.sleep(0.02)

    # Inside -----------------------------------------------------------------------------------------------------

    def pod(self, name: str, namespace: str = "default") -> kubelet.Running:
        """A pod that was started. Raises LabError with those there are."""
        self.settings  # noqa: B018 - raises where there is no lab
        found = kubelet.running(self.layout)
        if (namespace, name) not in found:
            there = ", ".join(sorted(each for space, each in found if space == namespace)) or "none"
            raise LabError(f"pod {name!r} not found in namespace {namespace!r}; there: {there}")
        return found[namespace, name]

    def netns_of(self, pod: kubelet.Running) -> str:
        """The network namespace that a pod runs in."""
        layout = self.layout
        return layout.node_netns(pod.node) if pod.host_network else layout.pod_netns(pod.namespace, pod.name)

    def netns_of_node(self, node: str) -> str:
        """A node's network namespace. Raises LabError."""
        if node not in self.nodes:
            raise LabError(f"node {node!r} not found; there: {', '.join(self.nodes)}")
        return self.layout.node_netns(node)

    def pods(self) -> list[dict[str, Any]]:
        """Every pod: what the manifests want, what runs, what the controller knows."""
        layout, current = self.layout, kubelet.running(self.layout)
        known = {(row["namespace"], row["name"]): row for row in self.rows("pods")}
        rows = []
        for pod in sorted(self.snapshot().pods(), key=_pod_key):
            started, row = current.get(_pod_key(pod)), known.get(_pod_key(pod), {})
            code = kubelet.exit_code(layout, started) if started is not None else None
            if pod.port:
                # Whoever put it on its port runs it.
                state = "Workload"
            elif started is None:
                state = "Pending"
            elif kubelet.process_of(layout, started) is not None:
                state = "Running" if not pod.terminating else "Terminating"
            else:
                state = "Completed" if code == 0 else f"Error ({'killed' if code is None else code})"
            rows.append(
                {
                    "namespace": pod.namespace,
                    "name": pod.name,
                    "status": state,
                    "network": row.get("status", ""),
                    "addresses": row.get("addresses", []),
                    "node": pod.node,
                }
            )
        return rows

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        busy = LabError(f"lab {self.layout.name!r} is being changed by another command")
        ROOT.mkdir(parents=True, exist_ok=True)
        with self.layout.lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy from None
            # The one who had it takes the file away; a lock on a file that is gone keeps nobody out.
            if not self.layout.lock.exists() or self.layout.lock.stat().st_ino != os.fstat(lock.fileno()).st_ino:
                raise busy
            try:
                yield
            finally:
                self.layout.lock.unlink(missing_ok=True)
                for directory in (ROOT, ROOT.parent):
                    with contextlib.suppress(OSError):
                        directory.rmdir()


def labs() -> list[str]:
    """The names of the labs that are up."""
    return sorted(path.parent.name for path in ROOT.glob("*/lab.json"))


def sweep(say: Say = _silent) -> None:
    """Take down labs whose owner died together with their guardian."""
    for name in labs():
        lab = Lab(name)
        with contextlib.suppress(LabError):
            settings = lab.settings
            owned = Process(settings.owner, settings.owner_started)
            guarded = processes.recorded(lab.layout.guardian) is not None
            if settings.owner and not guarded and not processes.is_alive(owned):
                say(f"lab {name}: its owner is gone; taking it down")
                lab.down()


def owner(pid: int) -> dict[str, int]:
    """The settings that tie a lab to a process. Raises LabError where there is none."""
    started = processes.started_at(pid)
    if started is None:
        raise LabError(f"--owner {pid}: there is no such process")
    return {"owner": pid, "owner_started": started}


def settings_for(name: str, count: int | None, files: Sequence[Path] = (), **extra: Any) -> LabSettings:
    """A new lab's settings: its nodes are those that the files declare, or `count` (3) named node-1 and so on."""
    declared = {
        document["metadata"]["name"]: document["metadata"].get("labels", {})
        for document in _documents(files)
        if document["kind"] == "Node"
    }
    if declared and count not in (None, len(declared)):
        raise LabError(f"--nodes {count}: the files declare {len(declared)} nodes; leave one of the two out")
    nodes: Mapping[str, Mapping[str, str]] = declared or {f"node-{number + 1}": {} for number in range(count or 3)}
    return LabSettings(name=name, nodes=nodes, **extra)


def _documents(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The objects of files and directories, Lists taken apart. Raises LabError with every problem."""
    for path in files:
        if not path.exists():
            raise LabError(f"{path}: no such file or directory")
    texts = read(*files)
    # A lab gives nodes their addresses, so their own are not asked for here.
    problems = [each for each in ManifestState().update(texts).problems if not each.object.startswith("Node ")]
    if problems:
        raise LabError("\n".join(str(problem) for problem in problems))
    documents = []
    for text in texts.values():
        assert isinstance(text, bytes)
        for document in yaml.safe_load_all(text):
            items = document.get("items", []) if document and document.get("kind", "").endswith("List") else [document]
            documents += [item for item in items if item]
    return documents


def _title(document: Mapping[str, Any]) -> str:
    group = document.get("apiVersion", "v1").rpartition("/")[0]
    kind = document["kind"].lower() + (f".{group}" if group else "")
    return f"{kind}/{document['metadata']['name']}"


def _manifest_path(layout: Layout, document: Mapping[str, Any]) -> Path:
    metadata = document["metadata"]
    namespace = "" if document["kind"] in ("Node", "Namespace") else metadata.get("namespace", "default")
    return layout.manifests / f"{document['kind'].lower()}.{namespace}.{metadata['name']}.yaml"


def _write_manifest(layout: Layout, document: Mapping[str, Any]) -> str:
    path = _manifest_path(layout, document)
    text = yaml.safe_dump(dict(document), sort_keys=False)
    before = path.read_text() if path.exists() else None
    if before == text:
        return "unchanged"
    # Beside and renamed: the controller never reads half of it.
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    temporary.rename(path)
    return "created" if before is None else "configured"


def _restore(layout: Layout, before: Mapping[str, Any]) -> None:
    for path in layout.manifests.glob("*.yaml"):
        text = before.get(str(path))
        if isinstance(text, bytes):
            path.write_bytes(text)
        else:
            path.unlink()


def _check_networks(settings: LabSettings) -> None:
    last = len(settings.nodes) - 1
    pod_cidrs(settings, last)
    v4, v6 = networks(settings.underlay, "underlay")
    if len(settings.nodes) + 4 >= min(v4.num_addresses, v6.num_addresses) - 1:
        raise LabError(f"underlay: {v4} and {v6} are too small for {len(settings.nodes)} nodes")
    pods = networks(settings.pods, "pods")
    if settings.segments > len(settings.nodes):
        raise LabError(f"--segments {settings.segments}: there are only {len(settings.nodes)} nodes to be on them")
    segments = [segment(settings, number) for number in range(settings.segments)]
    if any(one.overlaps(pods[0]) or other.overlaps(pods[1]) for one, other in segments):
        raise LabError(f"underlay {v4}, {v6} and pods {pods[0]}, {pods[1]} overlap")


def _pod_key(pod: Pod) -> tuple[str, str]:
    return pod.namespace, pod.name


def _tls_options(layout: Layout, whose: str) -> list[str]:
    pki = layout.pki
    return ["--tls-cert", f"{pki / whose}.crt", "--tls-key", f"{pki / whose}.key", "--tls-ca", str(pki / "ca.crt")]


def _no_lab(name: str) -> str:
    there = labs()
    return f"there is no lab {name!r}" + (f"; up are {', '.join(there)}" if there else ": bring one up with 'lab up'")


def _python_path() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
