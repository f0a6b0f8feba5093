"""The compiler's and the controller's work for 75,000 policies, 100,000 pods and 10,000 namespaces; what switches get.

The cluster is that of `cluster_policies`. Cold: all objects are put into a compiler at once, and into a controller as
one snapshot; each run is a process of its own, so that its peak memory is its own. Then one switch is connected (its
own side is played here), and policies, pods and namespaces come, change and go one by one: CPU from the object to the
bundle's bytes and the taking of its reply, and how many flows and bytes one switch is sent.

Churn: pods come and go, each with its port on its node; counted are changes of policies' flows anywhere, and bundles.

Policies' flows are the same for all switches. What that costs a switch is measured with a real ovs-vswitchd, which is
sent all of them; what a switch would need if it were sent only what concerns its pods is counted beside it.
"""

import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import rig
from cluster_objects import node, node_ports, pod_port
from cluster_policies import PODS, allow, everything, labelled, name_of, namespace, pod, policies_of, port
from compile import FakeSwitch, described

from controller.app import Controller
from controller.channel import Channel
from controller.process import collect_seldom
from controller.sync import Phase
from flows.compiler import Compiler
from flows.openflow.encode import bundle_add, flow_mod
from flows.openflow.messages import PortStatus
from flows.pipeline import (
    EGRESS_ADMIN,
    EGRESS_BASELINE,
    EGRESS_POLICY,
    INGRESS_ADMIN,
    INGRESS_BASELINE,
    INGRESS_POLICY,
)
from flows.registers import DESTINATION_IDENTITY, SOURCE_IDENTITY, Bits
from flows.tables.policy import ISOLATED
from flows.update import CLUSTER, Update
from flows.values import Flow, FlowKey
from topology.manifest_state import Snapshot
from topology.model import Key, Node, Object
from topology.policies import PodSet

SIZES, NODES, RUNS, CHANGES, CHURN = (1_000, 10_000), 1_000, 3, 100, 1_000
QUICK_SIZES, QUICK_RUNS, QUICK_CHANGES, QUICK_CHURN = (1_000,), 1, 20, 200
INGRESS = {each.number for each in (INGRESS_ADMIN, INGRESS_POLICY, INGRESS_BASELINE)}
JUDGING = INGRESS | {each.number for each in (EGRESS_ADMIN, EGRESS_POLICY, EGRESS_BASELINE)}
BRIDGE = "br-bench"


def measure(spaces: int, changes: int, churn: int, *, once: bool) -> dict[str, Any]:
    """One run, all of it; with `once` also what is the same or much the same in every run."""
    collect_seldom()
    nodes = [node(index) for index in range(spaces * NODES // SIZES[-1])]
    objects: dict[Key, Object] = {each.key: each for each in everything(spaces, nodes)}
    told: dict[str, Any] = {"inputs": rig.peak_memory()}
    controller = Controller()
    begun, cpu = time.perf_counter(), time.process_time()
    flows = sum(
        len(update.added) - len(update.removed)
        for updates in controller.compiler.take(objects.values())
        for update in updates
        if update.scope == CLUSTER
    )
    told |= {"cold": time.perf_counter() - begun, "cold_cpu": time.process_time() - cpu}
    told |= {"flows": flows, "memory": rig.peak_memory()}
    if once:
        told |= _by_node(controller.compiler, [each.name for each in nodes])
    del controller
    gc.collect()

    controller = Controller()
    begun = time.process_time()
    controller.take(Snapshot(objects))
    told["taken"] = time.process_time() - begun
    fake = FakeSwitch(node_ports())
    controller.fleet.identified(fake, nodes[0].datapath_id, time.monotonic())  # type: ignore[arg-type]
    fake.answer()
    told["connected"] = time.process_time() - begun
    told["sent"] = fake.sent
    told["peak"] = rig.peak_memory()
    # As a process would be that has been running for a while.
    gc.collect()
    told["changes"] = Changes(controller, fake, spaces).all(changes)
    told |= _churn(controller, fake, spaces, churn)
    if once:
        controller.fleet.left(fake)  # type: ignore[arg-type]
        told |= asyncio.run(_real_switch(controller, nodes[0]))
    return told


# One change at a time -------------------------------------------------------------------------------------------------


class Changes:
    """Makes changes, each undone before the next, and keeps what each has cost."""

    def __init__(self, controller: Controller, switch: FakeSwitch, spaces: int) -> None:
        self.controller, self.switch, self.spaces = controller, switch, spaces
        self.found: dict[str, dict[str, list[float]]] = {}

    def all(self, changes: int) -> dict[str, dict[str, list[float]]]:
        for number in range(changes):
            index = number * 37 % self.spaces
            space = name_of(index)
            workers = [PodSet(labelled("app", "worker"), space)]
            new = allow(space, "another", ("db",), workers, port(5432))
            self.note("policy comes", new)
            self.note("policy changes", allow(space, "another", ("db", "api"), workers, port(5432)))
            self.note("policy goes", new.key)
            broad = policies_of(index)[6]
            self.note("broad policy goes", broad.key)
            self.note("broad policy comes", broad)
            known = pod(space, "web", 100, number % 10)
            self.note("known pod comes", known)
            self.note("known pod goes", known.key)
            other = pod(space, "web", 101, number % 10, version=f"v{number + 2}")
            self.note("new pod comes", other)
            self.put(other.key)
            self.note("its identity is released", self.controller.compiler.policies.identities.idle)
            # A namespace of another stage, prod or not.
            self.note("namespace changes", namespace(space, stage="stage" if index % 3 != 1 else "prod"))
            self.put(namespace(space))
        return self.found

    def put(self, change: Object | Key | frozenset[int]) -> list[Update]:
        compiler = self.controller.compiler
        match change:
            case frozenset():
                updates = compiler.release(change)
            case tuple():
                updates = compiler.remove(change)
            case _:
                updates = compiler.put(change)
        self.controller.fleet.take(updates, time.monotonic())
        self.switch.answer()
        return updates

    def note(self, what: str, change: Object | Key | frozenset[int]) -> None:
        assert self.switch.sync is not None
        counters = self.switch.sync.counters
        sent, mods = counters.sent_bytes, counters.flow_mods
        begun = time.process_time_ns()
        updates = self.put(change)
        took = (time.process_time_ns() - begun) / 1e9
        found = self.found.setdefault(what, {"cpu": [], "bytes": [], "mods": [], "judging": []})
        found["cpu"].append(took)
        found["bytes"].append(counters.sent_bytes - sent)
        found["mods"].append(counters.flow_mods - mods)
        found["judging"].append(_judging(updates))


def _judging(updates: list[Update]) -> int:
    """Changes of policies' flows."""
    return sum(flow.table in JUDGING for update in updates for flow in (*update.added, *update.removed))


def _churn(controller: Controller, switch: FakeSwitch, spaces: int, churn: int) -> dict[str, Any]:
    """Pods with labels that are known come and go, each with its port on the node of the switch."""
    assert switch.sync is not None
    home = node(0)
    counters = switch.sync.counters
    judging, others, before, took = 0, 0, counters.bundles, []
    for number in range(churn):
        place = number % 200
        new = pod(name_of(number * 37 % spaces), ("web", "api", "worker")[number % 3], 200 + number, 0)
        port = described(pod_port(home, new, place))
        version = controller.fleet.cluster.version
        begun = time.process_time_ns()
        updates = controller.compiler.put(new)
        controller.fleet.take(updates, time.monotonic())
        for reason in (0, 1):
            switch.sync.receive(PortStatus(0, reason, port), time.monotonic())
            switch.answer()
        gone = controller.compiler.remove(new.key)
        controller.fleet.take(gone, time.monotonic())
        switch.answer()
        judging += _judging([*updates, *gone])
        took.append((time.process_time_ns() - begun) / 1e9)
        others += controller.fleet.cluster.version - version
    return {"churned": churn, "churn_judging": judging, "churn_cluster": others,
            "churn_bundles": counters.bundles - before, "churn_cpu": took}  # fmt: skip


# What a switch gets ---------------------------------------------------------------------------------------------------


def _by_node(compiler: Compiler, nodes: list[str]) -> dict[str, Any]:
    """How many of policies' flows there are, and how many concern a node: the median of five."""
    identities = compiler.policies.identities
    here: list[set[int]] = []
    for name in (nodes[index * len(nodes) // 5] for index in range(5)):
        pods = compiler.cluster.pods_on[name]
        here.append({identities.of_pod(*each) for each in pods})
    found: list[dict[FlowKey, Flow]] = [{} for _ in here]
    for policy in compiler.cluster.policies.values():
        subjects = compiler.policies.subjects(policy)
        mine = [index for index, there in enumerate(here) if not subjects.isdisjoint(there)]
        for flow in compiler.policies.flows_of(policy.key):
            for index, there in enumerate(here):
                if _concerns(flow, there, subject=index in mine):
                    found[index][flow.key] = flow
    sizes = [sum(_size(flow) for flow in flows.values()) for flows in found]
    judging = [flow for flow in compiler.flows(CLUSTER) if flow.table in JUDGING]
    return {
        "judging": len(judging),
        "judging_bytes": sum(_size(flow) for flow in judging),
        "node_flows": statistics.median(map(len, found)),
        "node_bytes": statistics.median(sizes),
    }


def _size(flow: Flow) -> int:
    """Bytes of the message that adds a flow."""
    return len(bundle_add(1, flow_mod(flow), 1))


def _concerns(flow: Flow, here: set[int], *, subject: bool) -> bool:
    """Whether packets that are judged where these identities are may meet a flow of a policy.

    Pod to pod is judged where the receiver is: what names another receiver is of no use. `subject`: whether the policy
    selects one of them.
    """
    receiver, sender = _named(flow, DESTINATION_IDENTITY), _named(flow, SOURCE_IDENTITY)
    if receiver is not None:
        return receiver in here
    if flow.table in INGRESS:
        return subject
    # Who is isolated may send to any node; what leaves the pods' network is judged where the sender is.
    return flow.priority == ISOLATED or sender is None or sender in here


def _named(flow: Flow, bits: Bits) -> int | None:
    for term in flow.match:
        if term.field == bits.field and (term.mask is None or term.mask & bits.mask):
            return term.value & bits.mask
    return None


async def _real_switch(controller: Controller, home: Node) -> dict[str, Any]:
    """All flows of the cluster into a bridge of the ovs-vswitchd that runs."""
    pid = rig.switch_pid()
    channel = Channel(controller.fleet, time.monotonic)
    target = f"tcp:127.0.0.1:{rig.free_port()}"
    await channel.listen(target)
    empty, cpu = rig.memory(pid), rig.cpu_seconds(pid)
    begun = time.monotonic()
    await asyncio.to_thread(rig.add_bridges, {BRIDGE: home.datapath_id}, target)
    await rig.until(lambda: controller.fleet.phase(home.name) is Phase.SYNCED, "the switch in sync", pause=0.01)
    told = {"real_seconds": time.monotonic() - begun, "real_cpu": rig.cpu_seconds(pid) - cpu}
    told |= {"real_memory": rig.memory(pid) - empty, "real_peak": rig.peak_memory(pid) - empty}
    told["real_flows"] = await asyncio.to_thread(rig.flow_count, BRIDGE)
    told["real_bytes"] = controller.fleet.syncs[home.name].counters.sent_bytes
    await channel.close()
    return told


# The table ------------------------------------------------------------------------------------------------------------


def rows(spaces: int, found: list[dict[str, Any]]) -> list[list[str]]:
    def median(name: str) -> float:
        return statistics.median(each[name] for each in found if name in each)

    def times(what: str, name: str) -> list[float]:
        return [each for run in found for each in run["changes"][what][name]]

    def change(what: str, words: str, aim: float) -> list[str]:
        cpu, size, mods, judging = (
            statistics.median(times(what, each)) for each in ("cpu", "bytes", "mods", "judging")
        )
        words = f"  {words} ({judging:,.0f} policy flows; {mods:,.0f} flow-mods, {size:,.0f} bytes sent)"
        return [words, f"{cpu * 1e3:.2f} ms", f"{cpu / aim:.2f}", f"{aim * 1e3:g} ms"]

    cold, memory, known = median("cold"), median("memory"), times("known pod comes", "cpu")
    most = max(times("known pod comes", "judging") + times("known pod goes", "judging"))
    if most or any(each["churn_judging"] or each["churn_cluster"] for each in found):
        raise RuntimeError("a pod of known labels has changed flows of policies")
    churn = [each for run in found for each in run["churn_cpu"]]
    bundles = median("churn_bundles") / found[0]["churned"]
    table = [
        [f"{spaces * PODS:,} pods, {spaces:,} namespaces, {spaces * 75 // 10:,} policies: cold compile",
         f"{cold:.2f} s", f"{cold / 10:.2f}", "aim, 10 s"],
        ["  its CPU", f"{median('cold_cpu'):.2f} s", f"{median('cold_cpu') / cold:.2f}", "its time"],
        [f"  cluster's flows: {found[0]['flows']:,}; peak memory, objects included", f"{memory:.0f} MB",
         f"{memory / 2000:.2f}", "aim, 2 GB"],
        ["  of that, objects", f"{median('inputs'):.0f} MB", f"{median('inputs') / memory:.2f}", "all of it"],
        ["  CPU of a controller that takes all: compiled, encoded", f"{median('taken'):.2f} s",
         f"{median('taken') / median('cold_cpu'):.2f}", "the compiler's"],
        ["  the same, and all written to a first switch", f"{median('connected'):.2f} s",
         f"{median('connected') / median('cold_cpu'):.2f}", "the compiler's"],
        ["  peak memory of the controller, with the switch", f"{median('peak'):.0f} MB",
         f"{median('peak') / memory:.2f}", "the compiler's"],
        change("policy comes", "CPU of a policy that comes", 0.005),
        change("policy changes", "of one that changes", 0.005),
        change("policy goes", "of one that goes", 0.005),
        change("broad policy comes", "of one for 20 namespaces that comes", 0.005),
        change("broad policy goes", "of one for 20 namespaces that goes", 0.005),
        change("known pod comes", "of a pod of known labels that comes", 0.001),
        change("known pod goes", "of one that goes", 0.001),
        change("new pod comes", "of a pod of new labels", 0.005),
        change("its identity is released", "of the end of its identity", 0.005),
        change("namespace changes", "of a namespace's labels", 0.005),
        [f"  {found[0]['churned']:,} pods come, are attached, and go: changes of policy flows anywhere", "0", "0.00",
         "a pod"],
        ["    of the cluster's flows", "0", "0.00", "a pod"],
        ["    bundles to the pod's node, a pod", f"{bundles:.0f}", "", ""],
        ["    CPU, a pod", f"{statistics.median(churn) * 1e3:.2f} ms",
         f"{statistics.median(churn) / statistics.median(known):.2f}", "its coming"],
        [f"  policy flows that each switch is sent, all: {found[0]['judging']:,}",
         f"{median('judging_bytes') / 1e6:.1f} MB", "1.00", "all"],
        [f"    that concern a node's pods: {median('node_flows'):,.0f}", f"{median('node_bytes') / 1e6:.1f} MB",
         f"{median('node_bytes') / median('judging_bytes'):.3f}", "all"],
    ]  # fmt: skip
    real = next(each for each in found if "real_cpu" in each)
    table += [
        [f"  all {real['real_flows']:,} flows to a real ovs-vswitchd: until in sync", f"{real['real_seconds']:.2f} s",
         f"{real['real_flows'] / real['real_seconds']:,.0f}", "flows/s"],
        ["    its CPU", f"{real['real_cpu']:.2f} s", f"{real['real_cpu'] / real['real_seconds']:.2f}", "the time"],
        ["    its memory afterwards, beyond what it has without", f"{real['real_memory']:.0f} MB",
         f"{real['real_memory'] * 1e6 / real['real_flows']:,.0f}", "bytes a flow"],
        ["    the most that it had meanwhile", f"{real['real_peak']:.0f} MB",
         f"{real['real_peak'] / real['real_memory']:.2f}", "afterwards"],
    ]  # fmt: skip
    return table


def main() -> None:
    sizes, runs, changes, churn = (
        (QUICK_SIZES, QUICK_RUNS, QUICK_CHANGES, QUICK_CHURN) if quick else (SIZES, RUNS, CHANGES, CHURN)
    )
    table = []
    for spaces in sizes:
        found = []
        for number in range(runs):
            rig.progress(f"{spaces} namespaces, run {number + 1} of {runs}")
            argv = [sys.executable, __file__, "--measure", str(spaces), str(changes), str(churn), str(number)]
            rig.start_switch()
            done = subprocess.run(argv, stdout=subprocess.PIPE, check=True)
            rig.stop_switch()
            found.append(json.loads(done.stdout))
        table += rows(spaces, found)
    rig.table([f"name (median of {runs})", "median", "ratio", "compared with"], table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        spaces, changes, churn, number = map(int, sys.argv[2:])
        json.dump(measure(spaces, changes, churn, once=number == 0), sys.stdout)
    else:
        quick = rig.arguments(__doc__ or "")
        rig.isolated(main)
