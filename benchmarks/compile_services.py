"""The compiler's and the controller's work for 10,000 Services of 10 endpoints each, without sockets.

Twice: with the endpoints in EndpointSlices, as an API server gives them, and with pods that selectors select, as
manifests have them. Cold: all objects are put into a compiler at once, and into a controller as one snapshot. Each run
is a process of its own, so that its peak memory is its own. Then one switch is connected (its own side is played here)
and Services and endpoints come, change and go one by one: CPU from the object to the bundle's bytes and the taking of
its reply. That once with the object alone, and once with a snapshot of all objects of which one has changed, which is
what a source gives.
"""

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network
from typing import Any

import msgspec
import rig
from cluster_objects import endpoint_pods, node, node_ports, service, slice_of
from compile import FakeSwitch

from controller.app import Controller
from controller.process import collect_seldom
from topology.manifest_state import Snapshot
from topology.model import EndpointSlice, Key, Object, Pod
from topology.services import ServiceRanges

SERVICES, ENDPOINTS, NODES, RUNS, CHANGES = (1_000, 10_000), 10, 1_000, 3, 200
QUICK_SERVICES, QUICK_RUNS, QUICK_CHANGES = (1_000,), 1, 50
SHAPES = ("slices", "pods")
RANGES = ServiceRanges(cluster=(IPv4Network("10.96.0.0/16"),))


def of_service(shape: str, index: int) -> list[Object]:
    """A Service with its endpoints, the Service last."""
    if shape == "slices":
        return [slice_of(index, ENDPOINTS, NODES), service(index)]
    return [*endpoint_pods(index, ENDPOINTS, NODES), service(index, selecting=True)]


def everything(shape: str, services: int) -> dict[Key, Object]:
    """All objects, in the order in which manifests' snapshots have them: slices, nodes, Services, pods."""
    made = [each for index in range(services) for each in of_service(shape, index)]
    made += [node(index) for index in range(NODES)]
    order = ("EndpointSlice", "Node", "Service", "Pod")
    return {each.key: each for each in sorted(made, key=lambda each: order.index(each.kind))}


def measure(shape: str, services: int, changes: int) -> dict[str, Any]:
    """One run, all of it."""
    collect_seldom()
    objects = everything(shape, services)
    told: dict[str, Any] = {"inputs": rig.peak_memory()}
    controller = Controller(RANGES)
    begun, cpu = time.perf_counter(), time.process_time()
    flows = groups = 0
    for updates in controller.compiler.take(objects.values()):
        for update in updates:
            flows += len(update.added) - len(update.removed)
            groups += len(update.groups_added) - len(update.groups_removed)
    told |= {"cold": time.perf_counter() - begun, "cold_cpu": time.process_time() - cpu}
    told |= {"flows": flows, "groups": groups, "memory": rig.peak_memory()}

    controller = Controller(RANGES)
    begun = time.process_time()
    controller.take(Snapshot(objects))
    told["taken"] = time.process_time() - begun
    switch = FakeSwitch(node_ports())
    controller.fleet.identified(switch, node(0).datapath_id, time.monotonic())  # type: ignore[arg-type]
    switch.answer()
    told["connected"] = time.process_time() - begun
    begun = time.process_time()
    second = FakeSwitch(node_ports())
    controller.fleet.identified(second, node(1).datapath_id, time.monotonic())  # type: ignore[arg-type]
    second.answer()
    told["second"] = time.process_time() - begun
    told["peak"] = rig.peak_memory()
    # One switch is enough for what follows.
    controller.fleet.left(second)  # type: ignore[arg-type]
    # As a process would be that has been running for a while.
    gc.collect()
    told |= _changes(controller, switch, objects, shape, changes)
    return told


def _changes(
    controller: Controller, switch: FakeSwitch, objects: dict[Key, Object], shape: str, changes: int
) -> dict[str, list[float]]:
    """The CPU of each change, and the bytes that it has sent, by what has changed."""
    found: dict[str, list[float]] = {}

    def note(what: str, change: Callable[[], None]) -> None:
        assert switch.sync is not None
        counters = switch.sync.counters
        bundles, sent = counters.bundles, counters.sent_bytes
        begun = time.process_time_ns()
        change()
        switch.answer()
        took = (time.process_time_ns() - begun) / 1e9
        if counters.bundles == bundles:
            raise RuntimeError(f"{what}: nothing was sent")
        found.setdefault(what, []).append(took)
        found.setdefault(f"{what}, bytes", []).append(counters.sent_bytes - sent)

    def put(each: Object) -> None:
        controller.fleet.take(controller.compiler.put(each), time.monotonic())

    def take(changed: dict[Key, Object]) -> Callable[[], None]:
        snapshot = Snapshot(changed)
        return lambda: controller.take(snapshot)

    total = sum(key[0] == "Service" for key in objects)
    for number in range(changes):
        # Its endpoints are there already, as pods are when a Service for them comes.
        new = total + number % 50
        *ends, made = of_service(shape, new)
        for each in ends:
            put(each)
        note("Service comes", lambda made=made: put(made))  # type: ignore[misc]
        moved = msgspec.structs.replace(made, ports=service(new, port=81).ports)
        note("Service changes", lambda moved=moved: put(moved))  # type: ignore[misc]
        for each in (made, *ends):
            controller.fleet.take(controller.compiler.remove(each.key), time.monotonic())
        switch.answer()
        index = number * 37 % total
        old, changed = _other_endpoint(shape, index)
        note("endpoint changes", lambda changed=changed: put(changed))  # type: ignore[misc]
        put(old)
        switch.answer()
        if number < changes // 5:
            note("endpoint, snapshot", take({**objects, changed.key: changed}))
            before = objects | {each.key: each for each in ends}
            controller.take(Snapshot(before))
            switch.answer()
            note("Service, snapshot", take({**before, made.key: made}))
            controller.take(Snapshot(objects))
            switch.answer()
    return found


def _other_endpoint(shape: str, index: int) -> tuple[Object, Object]:
    """An object of a Service's endpoints, and the same with one of them no longer ready."""
    first = of_service(shape, index)[0]
    if isinstance(first, Pod):
        return first, msgspec.structs.replace(first, ready=False)
    assert isinstance(first, EndpointSlice)
    (subset,) = first.subsets
    gone = msgspec.structs.replace(subset.endpoints[0], ready=False, serving=False)
    subset = msgspec.structs.replace(subset, endpoints=(gone, *subset.endpoints[1:]))
    return first, msgspec.structs.replace(first, subsets=(subset,))


def rows(shape: str, services: int, found: list[dict[str, Any]]) -> list[list[str]]:
    def median(name: str) -> float:
        return statistics.median(each[name] for each in found)

    def all_of(name: str) -> list[float]:
        return [each for run in found for each in run[name]]

    def change(what: str, words: str, to: float, of: str) -> list[str]:
        middle = statistics.median(all_of(what))
        size = statistics.median(all_of(f"{what}, bytes"))
        return [f"{words} ({size:,.0f} bytes sent)", f"{middle * 1e3:.2f} ms", f"{middle / to:.2f}", of]

    cold = median("cold")
    aim = 5.0
    first = f"{services:,} Services x {ENDPOINTS} endpoints, {shape}: cold compile"
    comes, moves = statistics.median(all_of("Service comes")), statistics.median(all_of("endpoint changes"))
    return [
        [first, f"{cold:.2f} s", f"{cold / aim:.2f}", f"aim, {aim:g} s"],
        ["  its CPU", f"{median('cold_cpu'):.2f} s", f"{median('cold_cpu') / cold:.2f}", "its time"],
        [f"  flows: {found[0]['flows']:,}; groups: {found[0]['groups']:,}; peak memory, objects included",
         f"{median('memory'):.0f} MB", f"{median('inputs') / median('memory'):.2f}", "objects alone to it"],
        ["  CPU of a controller that takes all: compiled, encoded", f"{median('taken'):.2f} s",
         f"{median('taken') / median('cold_cpu'):.2f}", "the compiler's"],
        ["  the same, and all written to a first switch", f"{median('connected'):.2f} s",
         f"{median('connected') / median('cold_cpu'):.2f}", "the compiler's"],
        ["  all written to a second switch", f"{median('second') * 1e3:.0f} ms",
         f"{median('second') / median('connected'):.3f}", "the first"],
        ["  peak memory of both controllers", f"{median('peak'):.0f} MB", f"{median('peak') / median('memory'):.2f}",
         "one compiler's"],
        change("Service comes", "  CPU of one Service that comes", 0.001, "1 ms"),
        change("Service changes", "  CPU of one that changes", 0.001, "1 ms"),
        change("endpoint changes", "  CPU of one endpoint's change", 0.001, "1 ms"),
        change("Service, snapshot", "  as a snapshot: CPU of one that comes", comes, "object alone"),
        change("endpoint, snapshot", "  as a snapshot: CPU of one endpoint's change", moves, "object alone"),
    ]  # fmt: skip


def one_run(argv: Iterable[object]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, "--measure", *map(str, argv)], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    sizes, runs, changes = (QUICK_SERVICES, QUICK_RUNS, QUICK_CHANGES) if quick else (SERVICES, RUNS, CHANGES)
    table = []
    for shape in SHAPES:
        for services in sizes:
            found = []
            for number in range(runs):
                rig.progress(f"{services} Services with {shape}, run {number + 1} of {runs}")
                found.append(one_run((shape, services, changes)))
            table += rows(shape, services, found)
    rig.table([f"name (median of {runs})", "median", "ratio", "compared with"], table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        json.dump(measure(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])), sys.stdout)
    else:
        quick = rig.arguments(__doc__ or "")
        main()
