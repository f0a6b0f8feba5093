"""Many flows into one ovs-vswitchd: the controller's bundle against `ovs-ofctl --bundle add-flows` of the same flows.

Both go into bridges of one ovs-vswitchd (dummy datapath), in turn. Ours is timed from the compiled change (flow values)
to the reply to the bundle's commit: digest, encoding, sockets and the switch. ovs-ofctl is timed from exec to exit.
"""

import asyncio
import statistics
import time
from pathlib import Path

import rig
from cluster_objects import FLOWS_A_NODE, node

from controller.app import Controller
from controller.channel import Channel
from controller.process import collect_seldom
from controller.sync import Phase, SwitchSync
from flows.text import flow_text
from flows.update import CLUSTER, Update
from flows.values import Flow
from topology.manifest_state import Snapshot

OURS, THEIRS = "br-ours", "br-ofctl"
SIZES, RUNS = (10_000, 50_000, 100_000), 5
QUICK_SIZES, QUICK_RUNS = (10_000,), 3
#: Nodes that are compiled before the switch is listened to again: few, since on a busy machine this takes long.
STEP = 100


async def landed(controller: Controller, sync: SwitchSync) -> None:
    def done() -> bool:
        if controller.fleet.syncs.get(sync.node) is not sync:
            raise RuntimeError("the connection was lost in the middle of a run")
        return sync.phase is Phase.SYNCED

    await rig.until(done, "the bundle's commit", pause=0.0005)


async def compiled(controller: Controller, nodes: range) -> tuple[list[Flow], float]:
    """The flows of these nodes, and the seconds for compiling them."""
    updates, took = [], 0.0
    for first in range(0, len(nodes), STEP):
        begun = time.perf_counter()
        for index in nodes[first : first + STEP]:
            updates += controller.compiler.put(node(index))
        took += time.perf_counter() - begun
        # The switch asks whether anybody is there; it must get an answer while this takes seconds.
        await asyncio.sleep(0)
    return [flow for update in updates if update.scope == CLUSTER for flow in update.added], took


def write_text(path: Path, flows: list[Flow]) -> None:
    path.write_text("".join(flow_text(flow) + "\n" for flow in flows))


def add_by_ofctl(path: str) -> float:
    begun = time.perf_counter()
    rig.run("ovs-ofctl", "-O", "OpenFlow15", "--bundle", "add-flows", THEIRS, path)
    return time.perf_counter() - begun


async def measure(sizes: tuple[int, ...], runs: int) -> list[list[str]]:
    rig.start_switch()
    collect_seldom()
    controller = Controller()
    home = node(0)
    controller.take(Snapshot({home.key: home}))
    channel = Channel(controller.fleet, time.monotonic)
    target = f"tcp:127.0.0.1:{rig.free_port()}"
    await channel.listen(target)
    await asyncio.to_thread(rig.add_bridges, {OURS: home.datapath_id}, target)
    await asyncio.to_thread(rig.add_bridges, {THEIRS: 1})
    await rig.until(lambda: controller.fleet.phase(home.name) is Phase.SYNCED, "the switch in sync")
    sync = controller.fleet.syncs[home.name]
    before = rig.flow_count(OURS)
    rows = []
    path, used = rig.RUN / "flows.txt", 1
    for size in sizes:
        ours, theirs, compiling = [], [], []
        for number in range(runs):
            rig.progress(f"{size} flows, run {number + 1} of {runs}")
            # New nodes each time: nothing is remembered of flows that were encoded before.
            nodes = range(used, used + size // FLOWS_A_NODE)
            used = nodes.stop
            flows, took = await compiled(controller, nodes)
            compiling.append(took)
            await asyncio.to_thread(write_text, path, flows)
            begun = time.perf_counter()
            controller.fleet.take([Update(CLUSTER, added=tuple(flows))], time.monotonic())
            await landed(controller, sync)
            ours.append(time.perf_counter() - begun)
            theirs.append(await asyncio.to_thread(add_by_ofctl, str(path)))
            await asyncio.to_thread(same_flows, before, len(flows), full=number == 0)
            controller.fleet.take([Update(CLUSTER, removed=tuple(flows))], time.monotonic())
            await landed(controller, sync)
            await asyncio.to_thread(rig.run, "ovs-ofctl", "-O", "OpenFlow15", "del-flows", THEIRS)
            for index in nodes:
                controller.compiler.remove(node(index).key)
        us, them = statistics.median(ours), statistics.median(theirs)
        for name, took in (
            (f"{size:,} flows: ovs-ofctl --bundle add-flows", them),
            ("  controller, compiled change to commit reply", us),
            ("  the same, and compiling before it", us + statistics.median(compiling)),
        ):
            rows.append([name, f"{took:.3f} s", f"{size / took:,.0f}", f"{took / them:.2f}"])
    await channel.close()
    rig.stop_switch()
    return rows


def same_flows(before: int, added: int, *, full: bool) -> None:
    """What was timed must have been done: both bridges hold the flows, the very same ones."""
    counts = rig.flow_count(OURS) - before, rig.flow_count(THEIRS)
    if counts != (added, added):
        raise RuntimeError(f"{added} flows were added, the bridges hold {counts}")
    if full:
        ours, theirs = (
            set(rig.run("ovs-ofctl", "-O", "OpenFlow15", "--no-stats", "dump-flows", bridge).splitlines())
            for bridge in (OURS, THEIRS)
        )
        if theirs - ours or len(theirs) < added:
            raise RuntimeError(f"ovs-ofctl's flows differ: {sorted(theirs - ours)[:3]}")


def main() -> None:
    sizes, runs = (QUICK_SIZES, QUICK_RUNS) if quick else (SIZES, RUNS)
    rows = asyncio.run(measure(sizes, runs))
    rig.table([f"name (median of {runs})", "median", "flows/s", "ratio to ovs-ofctl"], rows)


if __name__ == "__main__":
    quick = rig.arguments(__doc__ or "")
    rig.isolated(main)
