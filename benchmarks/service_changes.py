"""From applying a Service, or a change of its endpoints, to the first right answer, with 10 to 10,000 Services there.

A lab of two nodes with a real controller (controller.app.Controller and its Channel) in this process instead of the
lab's, so that it is known when it was given what. A client pod asks a Service's address over and over, each time by a
new connection, before there is the Service: until then it is refused. Timed: from the controller's being given the
objects, one of them changed, to the right pod's answer, read by the client. The endpoint's change is one from a pod to
another: what is right is the other's answer. All other Services have ten endpoints each, which nobody calls.

Then the same from files: a directory of manifests with all these Services is followed as the controller follows it, and
timed is from the renaming of a file to its name. What a file takes longer is polling (the file must be found, and be
found again as it was) and reading, comparing and allocating all there is.
"""

import asyncio
import dataclasses
import json
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import rig
from cluster_objects import service, slice_of
from lab_pods import FAR, NAMESPACE, NEAR, PORT, addresses, in_client, lab_with_servers

from controller.app import Controller
from controller.channel import Channel
from controller.process import collect_seldom
from controller.sync import Phase
from deploy.lab.cluster import Lab
from deploy.lab.layout import LabError, load_balancer_pools, service_cidrs
from flows.update import CLUSTER
from topology.manifest_source import ManifestSource
from topology.manifest_state import Snapshot
from topology.model import Endpoint, EndpointPort, EndpointSlice, Key, Object, Service, Subset
from topology.naming import Address
from topology.services import ServiceRanges

SIZES, CHANGES, FILE_CHANGES = (10, 1_000, 10_000), 200, 10
QUICK_SIZES, QUICK_CHANGES, QUICK_FILE_CHANGES = (10, 1_000), 10, 3
ENDPOINTS, NODES, AIM = 10, 1_000, 0.015
#: Services of one manifest file.
_TOGETHER = 250


@dataclasses.dataclass
class Watcher:
    """The client: told what to ask and whose answer is right, it tells when that came."""

    process: asyncio.subprocess.Process

    async def right_answer(self, address: Address, name: str, apply: Callable[[], Awaitable[float] | float]) -> float:
        """Seconds from the time that `apply` tells until `name` answers at the address."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{address} {PORT} {name}\n".encode())
        first = await self.process.stdout.readline()
        if first != b"wait\n":
            raise RuntimeError(f"{address} answers before there is anything: {first!r}")
        given = apply()
        begun = given if isinstance(given, float) else await given
        async with asyncio.timeout(300):
            answered, _ = (await self.process.stdout.readline()).split()
        return float(answered) - begun


class Bench:
    """The controller in the lab, and what it was given."""

    def __init__(self, lab: Lab, watcher: Watcher) -> None:
        self.lab = lab
        self.ranges = ServiceRanges(
            cluster=service_cidrs(lab.settings), load_balancer=load_balancer_pools(lab.settings)
        )
        self.controller = Controller(self.ranges)
        self.channel = Channel(self.controller.fleet, time.monotonic)
        self.objects: dict[Key, Object] = lab.snapshot().objects
        self.watcher = watcher

    async def listen(self) -> None:
        self.controller.take(Snapshot(self.objects))
        await self.channel.listen(f"unix:{self.lab.layout.openflow}")
        await self.synced()

    async def synced(self) -> None:
        def true() -> bool:
            syncs = self.controller.fleet.syncs
            return len(syncs) == len(self.lab.nodes) and all(each.phase is Phase.SYNCED for each in syncs.values())

        await rig.until(true, "switches in sync")

    def take(self, changed: dict[Key, Object]) -> float:
        """Give the controller these objects; when that was."""
        snapshot = Snapshot(changed)
        begun = time.monotonic()
        self.controller.take(snapshot)
        self.took = time.monotonic() - begun
        self.objects = changed
        return begun

    @property
    def sent(self) -> int:
        """Bytes that one switch has been sent; all are sent the same here."""
        return self.controller.fleet.syncs[self.lab.nodes[0]].counters.sent_bytes

    @property
    def commit(self) -> float:
        """Seconds from the start of its last bundle to the reply, of the switch that took longest."""
        return max(sync.counters.latency for sync in self.controller.fleet.syncs.values())


def slice_to(index: int, address: Address, node: str) -> EndpointSlice:
    subset = Subset((EndpointPort(port=PORT),), (Endpoint(address=address, node=node),))
    return EndpointSlice(namespace=NAMESPACE, name=f"service-{index}-1", service=f"service-{index}", subsets=(subset,))


def called(index: int) -> Service:
    """A Service that is called, at the port at which its endpoints listen."""
    return service(index, port=PORT)


async def from_objects(bench: Bench, size: int, changes: int) -> dict[str, list[float]]:
    """Services and endpoints come and change as objects."""
    made: list[Object] = [service(index) for index in range(size)]
    made += [slice_of(index, ENDPOINTS, NODES) for index in range(size)]
    base = bench.lab.snapshot().objects | {each.key: each for each in made}
    begun = bench.take(base)
    await bench.synced()
    found: dict[str, list[float]] = {"all": [time.monotonic() - begun]}
    near, far = (addresses(bench.lab, name)[0] for name in (NEAR, FAR))
    for number in range(changes):
        rig.progress(f"{size} Services, change {number + 1} of {changes}")
        new = called(size + number)
        (address,) = new.cluster_ips
        first, second = slice_to(size + number, near, "node-1"), slice_to(size + number, far, "node-2")
        bench.take(base | {first.key: first})
        await bench.synced()
        for what, name, objects in (
            ("Service", NEAR, base | {first.key: first, new.key: new}),
            ("endpoint", FAR, base | {second.key: second, new.key: new}),
        ):
            sent = bench.sent
            took = await bench.watcher.right_answer(address, name, lambda objects=objects: bench.take(objects))  # type: ignore[misc]
            await bench.synced()
            found.setdefault(what, []).append(took)
            found.setdefault(f"{what}, take", []).append(bench.took)
            found.setdefault(f"{what}, commit", []).append(bench.commit)
            found.setdefault(f"{what}, bytes", []).append(bench.sent - sent)
        bench.take(base)
        await bench.synced()
    state = bench.controller.fleet.cluster.state
    node = bench.controller.fleet.scope(bench.lab.nodes[0])
    found["flows"] = [sum(state.counts.values()) + sum(node.counts.values()) + 2]
    found["groups"] = [sum(1 for _ in bench.controller.compiler.groups(CLUSTER))]
    return found


# From files -----------------------------------------------------------------------------------------------------------


def _service_text(each: Service) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": each.name, "namespace": each.namespace},
            "spec": {
                "clusterIP": str(each.cluster_ips[0]),
                "ports": [{"port": port.port, "targetPort": port.target} for port in each.ports],
            },
        }
    )


def _slice_text(each: EndpointSlice) -> str:
    (subset,) = each.subsets
    return json.dumps(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": each.name,
                "namespace": each.namespace,
                "labels": {"kubernetes.io/service-name": each.service},
            },
            "addressType": "IPv4",
            "ports": [{"port": port.port} for port in subset.ports],
            "endpoints": [{"addresses": [str(of.address)], "nodeName": of.node} for of in subset.endpoints],
        }
    )


def _write(path: Path, *texts: str) -> float:
    """Write a file whole, beside and renamed; when it had its name."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text("\n---\n".join(texts))
    temporary.rename(path)
    return time.monotonic()


async def from_files(bench: Bench, size: int, changes: int) -> dict[str, list[float]]:
    """The same by way of manifests."""
    directory = bench.lab.layout.manifests
    paths = []
    for first in range(0, size, _TOGETHER):
        numbers = range(first, min(size, first + _TOGETHER))
        texts = [_service_text(service(index)) for index in numbers]
        texts += [_slice_text(slice_of(index, ENDPOINTS, NODES)) for index in numbers]
        paths.append(directory / f"all-{first}.yaml")
        _write(paths[-1], *texts)
    begun = time.monotonic()
    snapshots = ManifestSource(directory, ranges=bench.ranges).watch()
    taken = 0

    async def follow() -> None:
        nonlocal taken
        async for snapshot in snapshots:
            if snapshot.problems:
                raise RuntimeError(str(snapshot.problems[0]))
            bench.controller.take(snapshot)
            taken += 1

    following = asyncio.create_task(follow())

    async def seen(before: int) -> None:
        await rig.until(lambda: taken > before or following.done(), "the files", pause=0.005)
        if following.done():
            following.result()
        await bench.synced()

    try:
        await seen(0)
        found: dict[str, list[float]] = {"all": [time.monotonic() - begun]}
        near, far = (addresses(bench.lab, name)[0] for name in (NEAR, FAR))
        paths += [directory / "bench-service.yaml", directory / "bench-slice.yaml"]
        for number in range(changes):
            rig.progress(f"{size} Services in files, change {number + 1} of {changes}")
            new = called(size + number)
            (address,) = new.cluster_ips
            for what, name, path, text in (
                ("", "", paths[-1], _slice_text(slice_to(size + number, near, "node-1"))),
                ("Service", NEAR, paths[-2], _service_text(new)),
                ("endpoint", FAR, paths[-1], _slice_text(slice_to(size + number, far, "node-2"))),
            ):
                before = taken
                if name:
                    write = lambda path=path, text=text: _write(path, text)  # noqa: E731
                    found.setdefault(what, []).append(await bench.watcher.right_answer(address, name, write))
                else:
                    _write(path, text)
                await seen(before)
            before = taken
            for path in paths[-2:]:
                path.unlink()
            await seen(before)
        return found
    finally:
        following.cancel()
        await asyncio.wait([following])
        for path in paths:
            path.unlink(missing_ok=True)


# The table ------------------------------------------------------------------------------------------------------------


def rows(size: int, found: dict[str, list[float]], files: dict[str, list[float]]) -> list[list[str]]:
    def line(words: str, values: list[float], to: float, of: str) -> list[str]:
        middle = statistics.median(values)
        return [words, f"{middle * 1e3:.1f} ms", f"{rig.percentile(values, 0.99) * 1e3:.1f} ms", f"{middle / to:.2f}",
                of]  # fmt: skip

    table = [
        [f"{size:,} Services x {ENDPOINTS} endpoints, from object to all in sync", f"{found['all'][0]:.2f} s", "", "",
         ""],
        [f"  on each node flows: {found['flows'][0]:,.0f}; groups: {found['groups'][0]:,.0f}", "", "", "", ""],
    ]  # fmt: skip
    for what, words in (("Service", "Service applied"), ("endpoint", "endpoint changed")):
        middle, size_sent = statistics.median(found[what]), statistics.median(found[f"{what}, bytes"])
        table += [
            line(f"  {words}, from object to right answer", found[what], AIM, f"aim, {AIM * 1e3:g} ms"),
            line("    of that, the controller's take", found[f"{what}, take"], middle, "all"),
            line("    of that, bundle's start to commit reply", found[f"{what}, commit"], middle, "all"),
            [f"    bytes sent to a switch: {size_sent:,.0f}", "", "", "", ""],
            line("    from file to right answer", files[what], middle, "from object"),
        ]
    return table


async def measure(lab: Lab, sizes: tuple[int, ...], changes: int, file_changes: int) -> list[list[str]]:
    lab.stop_controller()
    process = await asyncio.create_subprocess_exec(
        *in_client(lab, "watch"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    bench = Bench(lab, Watcher(process))
    await bench.listen()
    table: list[list[str]] = []
    for size in sizes:
        found = await from_objects(bench, size, changes)
        files = await from_files(bench, size, file_changes)
        table += rows(size, found, files)
    await bench.channel.close()
    process.kill()
    await process.wait()
    return table


def main() -> None:
    quick = rig.arguments(__doc__ or "")
    rig.need("ovs-vswitchd", "ovsdb-server", "nft", "ethtool", "nsenter")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    collect_seldom()
    sizes, changes, file_changes = (
        (QUICK_SIZES, QUICK_CHANGES, QUICK_FILE_CHANGES) if quick else (SIZES, CHANGES, FILE_CHANGES)
    )
    try:
        with lab_with_servers() as lab:
            table = asyncio.run(measure(lab, sizes, changes, file_changes))
    except LabError as error:
        sys.exit(f"the lab: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    rig.table([f"name ({changes} changes, {file_changes} of files)", "median", "p99", "ratio", "compared with"], table)


if __name__ == "__main__":
    main()
