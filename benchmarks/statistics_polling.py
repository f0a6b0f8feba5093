"""What it costs to ask a switch of about 20,000 flows what it carries, and to be scraped with 1,000 nodes known.

Nearly all of these flows are Services', which is what is asked for: a switch whose flows are of other kinds costs
less.
"""

import asyncio
import time

import rig
from cluster_objects import node, service, slice_of

from controller import metrics
from controller.app import Controller, collect_seldom
from controller.channel import Channel
from controller.statistics import INTERVAL
from controller.sync import Phase
from topology.manifest_state import Snapshot
from topology.model import Object

SERVICES, ENDPOINTS, NODES, LOOKS = 1_650, 10, 1_000, 20
QUICK_SERVICES, QUICK_NODES, QUICK_LOOKS = 200, 50, 5


def cluster(services: int, nodes: int) -> Controller:
    """A controller that knows these, each Service with endpoints on ten nodes."""
    objects: list[Object] = [node(index) for index in range(nodes)]
    for index in range(services):
        objects += [service(index), slice_of(index, ENDPOINTS, nodes)]
    controller = Controller()
    controller.take(Snapshot({each.key: each for each in objects}))
    return controller


async def polling(services: int, looks: int) -> list[list[str]]:
    controller = cluster(services, 10)
    channel = Channel(controller.fleet, time.monotonic)
    port = rig.free_port()
    await channel.listen(f"tcp:127.0.0.1:{port}", None)
    switch = rig.start_switch()
    rig.add_bridges({"br0": node(0).datapath_id}, f"tcp:127.0.0.1:{port}")
    await rig.until(lambda: controller.fleet.phase("node-0") is Phase.SYNCED, "the switch is in sync", pause=0.05)
    flows = rig.flow_count("br0")
    await asyncio.sleep(2.0)
    before, own = rig.cpu_seconds(switch), time.process_time()
    for _ in range(looks):
        answers = controller.statistics.answers
        controller.statistics.look(time.monotonic(), everyone=True)
        await rig.until(lambda known=answers: controller.statistics.answers >= known + 2, "the answers")  # type: ignore[misc]
    switch_cpu = (rig.cpu_seconds(switch) - before) / looks
    own_cpu = (time.process_time() - own) / looks
    await channel.close()
    rig.stop_switch()
    return [
        [f"{flows} flows: vswitchd CPU for one look", f"{switch_cpu * 1000:.0f} ms",
         f"{switch_cpu / INTERVAL:.2%} of a core at one look in {INTERVAL:g} s"],
        ["  controller CPU for one look", f"{own_cpu * 1000:.0f} ms", f"{own_cpu / INTERVAL:.2%}"],
    ]  # fmt: skip


def scraping(services: int, nodes: int) -> list[list[str]]:
    controller = cluster(services, nodes)
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        size = len(metrics.exposition(controller))
        taken.append(time.perf_counter() - begun)
    return [[f"{nodes} nodes, {services} Services: a scrape", f"{sorted(taken)[2] * 1000:.0f} ms", f"{size} bytes"]]


def main() -> None:
    collect_seldom()
    services, nodes, looks = (QUICK_SERVICES, QUICK_NODES, QUICK_LOOKS) if quick else (SERVICES, NODES, LOOKS)
    rows = asyncio.run(polling(services, looks)) + scraping(services, nodes)
    rig.table(["name", "measured", "which is"], rows)


if __name__ == "__main__":
    quick = rig.arguments(__doc__ or "")
    rig.isolated(main)
