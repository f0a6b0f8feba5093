"""The compiler and the controller's own work at 1,000 nodes x 100 pods, without sockets: time, memory, CPU per change.

Cold: all objects are put into the compiler and every node's ports told, so that every flow of every scope is made once.
Each run is a process of its own, so that its peak memory is its own. Then, in the same process, every switch is
connected (its own side is played here), and pods come and go one by one: CPU from the switch's PortStatus to the
bundle's bytes, and to the taking of its reply.

--measure NODES CHANGES PODS does one run of another size and prints its figures as JSON.
"""

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from random import Random
from typing import Any

import rig
from cluster_objects import node, node_ports, pod, pod_port

from controller.app import Controller
from controller.process import collect_seldom
from controller.sync import SwitchSync
from flows.openflow.messages import (
    BundleReply,
    FlowStatsReply,
    GroupDescReply,
    PortDesc,
    PortDescReply,
    PortStatus,
)
from flows.openflow.wire import HEADER, BundleControl, Multipart, Type
from flows.state import Port
from topology.manifest_state import Snapshot
from topology.model import Key, Node, Object

NODES, PODS, RUNS, CHANGES = 1_000, 100, 3, 2_000
QUICK_NODES, QUICK_RUNS, QUICK_CHANGES = 100, 1, 500


class FakeSwitch:
    """A switch's side of a connection, as far as SwitchSync needs it. Implements what Fleet asks of a Peer."""

    def __init__(self, ports: Iterable[Port]) -> None:
        self.name = "a fake switch"
        self.certified = ""
        self.sync: SwitchSync | None = None
        self.sent = 0
        self._ports = tuple(map(described, ports))
        self._questions: list[bytes] = []

    def write(self, buffers: Iterable[bytes]) -> None:
        """Keep what asks for an answer: it is never in a buffer with anything else."""
        for buffer in buffers:
            self.sent += len(buffer)
            if buffer[1] in (Type.MULTIPART_REQUEST, Type.BUNDLE_CONTROL):
                self._questions.append(buffer)

    def close(self, reason: str) -> None:
        raise RuntimeError(f"the controller closes: {reason}")

    def answer(self) -> None:
        """Answer what has been asked, until there are no more questions."""
        assert self.sync is not None
        while self._questions:
            question = self._questions.pop(0)
            xid = HEADER.unpack_from(question)[3]
            reply: Any
            if question[1] == Type.BUNDLE_CONTROL:
                step = int.from_bytes(question[12:14], "big")
                if step != BundleControl.COMMIT_REQUEST:
                    continue
                reply = BundleReply(xid, 1, BundleControl.COMMIT_REPLY)
            elif int.from_bytes(question[8:10], "big") == Multipart.PORT_DESC:
                reply = PortDescReply(xid, False, self._ports)
            elif int.from_bytes(question[8:10], "big") == Multipart.GROUP_DESC:
                reply = GroupDescReply(xid, False, ())
            else:
                reply = FlowStatsReply(xid, False, ())
            self.sync.receive(reply, time.monotonic())


def described(port: Port) -> PortDesc:
    """A port as a switch describes it."""
    return PortDesc(port.number, port.name, port.mac, True)


def measure(nodes: int, changes: int, per_node: int = PODS) -> dict[str, Any]:
    """One run, all of it."""
    # As the controller does when it starts.
    collect_seldom()
    cluster = [node(index) for index in range(nodes)]
    pods = {each.name: [pod(each, index) for index in range(per_node)] for each in cluster}
    objects: dict[Key, Object] = {each.key: each for each in cluster}
    objects.update((each.key, each) for of in pods.values() for each in of)
    ports = {each.name: _ports(each, pods[each.name]) for each in cluster}
    inputs = rig.peak_memory()

    controller = Controller()
    cpu, begun = time.process_time(), time.perf_counter()
    updates = [update for each in objects.values() for update in controller.compiler.put(each)]
    flows = sum(len(update.added) for update in updates)
    del updates
    for name, of in ports.items():
        flows += sum(len(update.added) for update in controller.compiler.set_ports(name, of))
    told: dict[str, Any] = {
        "cold": time.perf_counter() - begun,
        "cold_cpu": time.process_time() - cpu,
        "inputs": inputs,
        "memory": rig.peak_memory(),
        "flows": flows,
    }
    told.update(_connected(cluster, objects, ports, changes, per_node))
    return told


def _ports(of: Node, pods: Iterable[Any]) -> list[Port]:
    return node_ports() + [pod_port(of, each, index) for index, each in enumerate(pods)]


def _connected(
    cluster: list[Node], objects: dict[Key, Object], ports: dict[str, list[Port]], changes: int, per_node: int
) -> dict[str, Any]:
    controller = Controller()
    begun = time.perf_counter()
    controller.take(Snapshot(objects))
    switches = {}
    for each in cluster:
        switch = switches[each.name] = FakeSwitch(ports[each.name])
        controller.fleet.identified(switch, each.datapath_id, time.monotonic())  # type: ignore[arg-type]
        switch.answer()
    connected = time.perf_counter() - begun
    sent = sum(switch.sent for switch in switches.values())
    # As a process would be that has been running for a while.
    gc.collect()
    random = Random(1)
    came, went = [], []
    for number in range(changes):
        home = cluster[random.randrange(len(cluster))]
        switch = switches[home.name]
        new = pod(home, per_node + number % 50)
        port = described(pod_port(home, new, per_node + number % 50))
        controller.fleet.take(controller.compiler.put(new), time.monotonic())
        came.append(_cpu(switch, PortStatus(0, 0, port)))
        went.append(_cpu(switch, PortStatus(0, 1, port)))
        controller.fleet.take(controller.compiler.remove(new.key), time.monotonic())
    return {"connected": connected, "sent": sent, "peak": rig.peak_memory(), "came": came, "went": went}


def _cpu(switch: FakeSwitch, status: PortStatus) -> float:
    assert switch.sync is not None
    bundles = switch.sync.counters.bundles
    begun = time.process_time_ns()
    switch.sync.receive(status, time.monotonic())
    switch.answer()
    took = (time.process_time_ns() - begun) / 1e9
    if switch.sync.counters.bundles != bundles + 1:
        raise RuntimeError("a pod's port didn't make one bundle")
    return took


def rows(nodes: int, found: list[dict[str, Any]]) -> list[list[str]]:
    def median(name: str) -> float:
        return statistics.median(each[name] for each in found)

    cold = median("cold")
    came = [each for run in found for each in run["came"]]
    went = [each for run in found for each in run["went"]]
    middle = statistics.median(came)
    return [
        [f"{nodes:,} nodes x {PODS} pods, {found[0]['flows']:,} flows: cold compile", f"{cold:.2f} s",
         f"{cold / 5:.2f}", "aim, 5 s"],
        ["  its CPU", f"{median('cold_cpu'):.2f} s", f"{median('cold_cpu') / cold:.2f}", "its time"],
        ["  peak memory of it, objects and ports included", f"{median('memory'):.0f} MB",
         f"{median('memory') / 1000:.2f}", "aim, 1 GB"],
        ["  of that, objects and ports", f"{median('inputs'):.0f} MB", f"{median('inputs') / median('memory'):.2f}",
         "all of it"],
        ["  compile, then digest and encode all for every switch", f"{median('connected'):.2f} s",
         f"{median('connected') / cold:.2f}", "cold compile"],
        ["  peak memory with every switch connected", f"{median('peak'):.0f} MB", f"{median('peak') / 1000:.2f}",
         "aim, 1 GB"],
        ["CPU of a pod that comes, PortStatus to bundle: median", f"{middle * 1e3:.3f} ms", f"{middle * 1e3:.2f}",
         "aim, 1 ms"],
        ["  99 of 100", f"{rig.percentile(came, 0.99) * 1e3:.3f} ms", f"{rig.percentile(came, 0.99) / middle:.2f}",
         "its median"],
        ["CPU of a pod that goes: median", f"{rig.milliseconds(went)}", f"{statistics.median(went) / middle:.2f}",
         "one that comes"],
        ["  99 of 100", f"{rig.percentile(went, 0.99) * 1e3:.3f} ms",
         f"{rig.percentile(went, 0.99) / statistics.median(went):.2f}", "its median"],
    ]  # fmt: skip


def main() -> None:
    nodes, runs, changes = (QUICK_NODES, QUICK_RUNS, QUICK_CHANGES) if quick else (NODES, RUNS, CHANGES)
    found = []
    for number in range(runs):
        rig.progress(f"{nodes} nodes, run {number + 1} of {runs}")
        argv = [sys.executable, __file__, "--measure", str(nodes), str(changes)]
        done = subprocess.run(argv, stdout=subprocess.PIPE, check=True)
        found.append(json.loads(done.stdout))
    rig.table([f"name (median of {runs})", "median", "ratio", "compared with"], rows(nodes, found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        json.dump(measure(*map(int, sys.argv[2:5])), sys.stdout)
    else:
        quick = rig.arguments(__doc__ or "")
        main()
