"""What it costs to ask a switch of about 20,000 flows what it carries, and to be scraped with 1,000 nodes known.

Nearly all of these flows are Services', which is what is asked for: a switch whose flows are of other kinds costs
less.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from struct import pack

import rig
from cluster_objects import node, service, slice_of

from controller import metrics
from controller.app import Controller
from controller.channel import Channel
from controller.fleet import Peer
from controller.process import collect_seldom
from controller.statistics import INTERVAL
from controller.sync import Phase
from flows.openflow import encode
from flows.openflow.messages import UnreadReply
from flows.update import CLUSTER
from flows.values import Flow
from topology.manifest_state import Snapshot
from topology.model import Object
from topology.naming import object_id

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


class Busy:
    """A switch all of whose flows meet packets between any two looks."""

    def __init__(self, controller: Controller) -> None:
        self._flows = list(controller.compiler.flows(CLUSTER))
        self.packets = 0
        self.spent = 0.0

    def request(self, make: object, then: object) -> None:
        pass

    def request_counts(
        self, make: Callable[[int], bytes], take: Callable[[UnreadReply], None], then: Callable[[], None]
    ) -> None:
        self.packets += 1
        table = make(0)[16]
        entries = [_entry(each, self.packets) for each in self._flows if each.table == table]
        for begin in range(0, len(entries), 400):
            message = UnreadReply(0, True, bytes(16) + b"".join(entries[begin : begin + 400]))
            begun = time.process_time()
            take(message)
            self.spent += time.process_time() - begun
        then()


def _entry(flow: Flow, packets: int) -> bytes:
    """A flow of an answer, as Open vSwitch writes it."""
    mod = encode.flow_mod(flow)
    size = 48 + (int.from_bytes(mod[50:52], "big") + 7 & ~7)
    counts = zip((0, 1, 4, 5), (1 << 42, 0, packets, packets * 100), strict=True)
    stats = pack("!HH", 0, 52) + b"".join(pack("!HBBQ", 0x8002, number << 1, 8, each) for number, each in counts)
    body = mod[48:size] + stats + bytes(4) + mod[size:]
    return pack("!H2xBxH8xQ", 24 + len(body), flow.table, flow.priority, flow.cookie) + body


def reading(services: int, looks: int) -> list[list[str]]:
    controller = cluster(services, 10)
    busy = Busy(controller)
    controller.fleet.syncs["node-0"] = busy  # type: ignore[assignment]
    for _ in range(looks):
        controller.statistics.look(time.monotonic(), everyone=True)
    taken = busy.spent / looks
    return [["  the same, if all of them have met packets", f"{taken * 1000:.0f} ms", f"{taken / INTERVAL:.2%}"]]


class Nowhere:
    """A connection whose other end says nothing."""

    def write(self, buffers: Iterable[bytes]) -> None:
        pass

    def close(self, reason: str) -> None:
        pass


def scraping(services: int, nodes: int) -> list[list[str]]:
    controller = cluster(services, nodes)
    for each in controller.compiler.cluster.nodes.values():
        Peer(controller.fleet, Nowhere(), each.name, 0.0).identify(each.datapath_id, 0.0)
    numbers = [object_id(*each.key) for each in controller.compiler.cluster.services.values()]
    controller.statistics.services_carried.add(dict.fromkeys(numbers, (1, 10, 1000)))
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        size = len(metrics.exposition(controller))
        taken.append(time.perf_counter() - begun)
    return [[f"{nodes} switches, {services} Services: a scrape", f"{sorted(taken)[2] * 1000:.0f} ms", f"{size} bytes"]]


def main() -> None:
    collect_seldom()
    services, nodes, looks = (QUICK_SERVICES, QUICK_NODES, QUICK_LOOKS) if quick else (SERVICES, NODES, LOOKS)
    rows = asyncio.run(polling(services, looks)) + reading(services, looks) + scraping(services, nodes)
    rig.table(["name", "measured", "which is"], rows)


if __name__ == "__main__":
    quick = rig.arguments(__doc__ or "")
    rig.isolated(main)
