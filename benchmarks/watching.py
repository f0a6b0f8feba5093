"""What it costs that lists are watched: 1,000 nodes with 100 pods each, all of whose pods are watched by one and by 64.

The same process watches, so that its share of the CPU is in what is said of many.
"""

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path

import msgspec
import rig
from cluster_objects import node, pod

from controller.api import serve
from controller.app import Controller
from controller.concerns import Concerns
from controller.process import collect_seldom
from topology.model import Object, Pod

NODES, PODS, WATCHES, CHANGES = 1_000, 100, 64, 20
QUICK_NODES, QUICK_WATCHES, QUICK_CHANGES = 50, 8, 5


class Reader:
    """Somebody who watches all pods."""

    def __init__(self) -> None:
        self.synced, self.told = asyncio.Event(), asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def begin(self, path: Path) -> float:
        """Watch, and tell how many seconds it took until all pods were told."""
        begun = time.perf_counter()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /v1/pods?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        self._reading = asyncio.create_task(self._read(reader, writer))
        await self.synced.wait()
        return time.perf_counter() - begun

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while data := await reader.read(1 << 16):
                if b"event: SYNC" in data:
                    self.synced.set()
                if b"event: MODIFIED" in data:
                    self.told.set()

    def end(self) -> None:
        if self._reading is not None:
            self._reading.cancel()


def versions(nodes: int) -> list[Pod]:
    """A pod as it is in turn."""
    one = pod(node(nodes // 2), 1)
    return [msgspec.structs.replace(one, labels=(("app", f"version-{number}"),)) for number in range(2)]


def changing(controller: Controller, nodes: int) -> str:
    """The CPU of a pod's change."""
    begun = time.process_time()
    for number in range(200):
        controller.change([versions(nodes)[number % 2]], (), ())
    return f"{(time.process_time() - begun) / 200 * 1e6:.0f} us"


def asking_in_vain(controller: Controller, nodes: int) -> str:
    """Of it, what it takes to find that nobody watches."""
    concerns, changed = Concerns(controller.compiler, controller.changes), versions(nodes)[:1]
    begun = time.process_time()
    for _ in range(100_000):
        concerns.objects(changed, ())
    return f"{(time.process_time() - begun) * 10:.2f} us"


async def latency(controller: Controller, readers: list[Reader], nodes: int, changes: int) -> str:
    """From a pod's change until the last has been told, where none was told anything in the half second before."""
    taken = []
    for number in range(changes):
        await asyncio.sleep(0.7)
        for each in readers:
            each.told.clear()
        begun = time.perf_counter()
        controller.change([versions(nodes)[number % 2]], (), ())
        for each in readers:
            await each.told.wait()
        taken.append(time.perf_counter() - begun)
    return rig.milliseconds(taken)


async def looking(controller: Controller) -> str:
    """The CPU of all looks at all pods, of which none has changed."""
    begun = time.process_time()
    controller.changes.touch_all("pods")
    free_at = -1.0
    while controller.changes.free_at != free_at:
        free_at = controller.changes.free_at
        await asyncio.sleep(2.0)
    return f"{time.process_time() - begun:.2f} s"


async def measure(nodes: int, watches: int, changes: int) -> list[list[str]]:
    controller = Controller()
    objects: list[Object] = [node(index) for index in range(nodes)]
    objects += [pod(each, index) for each in map(node, range(nodes)) for index in range(PODS)]
    controller.change(objects, (), ())
    changing(controller, nodes)
    rows = [
        ["nobody watches: CPU of a pod's change", changing(controller, nodes)],
        ["  of that, to see that nobody does", asking_in_vain(controller, nodes)],
    ]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "api.sock"
        runner = await serve(controller, path)
        readers: list[Reader] = []
        for count in (1, watches):
            memory, taken = rig.memory(), []
            while len(readers) < count:
                readers.append(Reader())
                taken.append(await readers[-1].begin(path))
            grown = (rig.memory() - memory) / len(taken)
            rows += [
                [f"{count} watch {nodes * PODS} pods: until all are told, each", rig.seconds(taken)],
                ["  memory for each", f"{grown:.1f} MB"],
                ["  from a pod's change to the last of them", await latency(controller, readers, nodes, changes)],
                ["  CPU of a pod's change", changing(controller, nodes)],
                ["  CPU of looking at all pods for all of them", await looking(controller)],
            ]
        for each in readers:
            each.end()
        await runner.cleanup()
    return rows


def main() -> None:
    collect_seldom()
    sizes = (QUICK_NODES, QUICK_WATCHES, QUICK_CHANGES) if quick else (NODES, WATCHES, CHANGES)
    rig.table(["name", "measured"], asyncio.run(measure(*sizes)))


if __name__ == "__main__":
    quick = rig.arguments(__doc__ or "")
    rig.isolated(main)
