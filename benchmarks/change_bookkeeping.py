"""What it costs to know how long changes take: the controller's own CPU, for changes to 1,000 switches in its memory.

The switches are no more than connections that confirm every bundle, so all that is measured is the controller: making
and queueing a change that every switch gets, and taking in what they answer. Without the bookkeeping, with it, with
traces (a collector that takes everything), and where one switch doesn't answer while 900 changes go by.
"""

import logging
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from struct import pack, unpack_from

import rig
from cluster_objects import node
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from controller.app import Controller
from controller.change_traces import ChangeTraces
from controller.fleet import Peer
from controller.process import collect_seldom
from controller.propagation import Moments, Propagation
from flows.openflow.framing import Framer
from flows.openflow.wire import Type
from topology.manifest_state import Snapshot

SWITCHES, CHANGES, STUCK = 1_000, 20, 900
QUICK_SWITCHES, QUICK_CHANGES = 100, 5


class Link:
    """A switch that holds nothing and confirms everything."""

    def __init__(self, datapath_id: int) -> None:
        self._datapath_id = datapath_id
        self._framer = Framer()
        self._written: list[bytes] = []

    def write(self, buffers: Iterable[bytes]) -> None:
        self._written += buffers

    def close(self, reason: str) -> None:
        raise RuntimeError(reason)

    def answers(self) -> bytes:
        data, self._written = b"".join(self._written), []
        return b"".join(map(self._answer, self._framer.feed(data)))

    def _answer(self, message: bytes) -> bytes:
        _, kind, _, xid = unpack_from("!BBHI", message)
        match kind:
            case Type.FEATURES_REQUEST:
                return pack("!BBHIQIBB2xII", 6, Type.FEATURES_REPLY, 32, xid, self._datapath_id, 0, 254, 0, 0, 0)
            case Type.MULTIPART_REQUEST:
                return pack("!BBHIHH4x", 6, Type.MULTIPART_REPLY, 16, xid, *unpack_from("!H", message, 8), 0)
            case Type.BUNDLE_CONTROL:
                bundle, step = unpack_from("!IH", message, 8)
                return pack("!BBHIIHH", 6, Type.BUNDLE_CONTROL, 16, xid, bundle, step + 1, 3)
        return b""


class Everything(SpanExporter):
    """A collector that takes what it is sent."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def measure(switches: int, changes: int, prepare: Callable[[Controller], None]) -> tuple[float, float]:
    """Seconds of CPU to make and queue one change, and to take in one switch's answer to it."""
    objects = {each.key: each for each in map(node, range(switches))}
    controller = Controller()
    controller.take(Snapshot(objects))
    prepare(controller)
    links = [Link(each.datapath_id) for each in objects.values()]
    peers = [Peer(controller.fleet, link, "memory", time.monotonic()) for link in links]
    hello = pack("!BBHIHHI", 6, Type.HELLO, 16, 1, 1, 8, 1 << 6)

    def settle(waiting: dict[int, bytes]) -> float:
        spent = 0.0
        while waiting:
            begun = time.thread_time()
            for number, data in waiting.items():
                peers[number].receive(data, time.monotonic())
            spent += time.thread_time() - begun
            waiting = {number: data for number, link in enumerate(links) if (data := link.answers())}
        return spent

    settle(dict.fromkeys(range(switches), hello))
    taken, answered = [], []
    for moved in range(changes):
        begun = time.thread_time()
        last = node(switches, 100_000 + moved)
        controller.take(Snapshot({**objects, last.key: last}))
        taken.append(time.thread_time() - begun)
        answered.append(settle({0: b""}))
    controller.traces.close()
    return statistics.median(taken), statistics.median(answered) / switches


def without(controller: Controller) -> None:
    nothing = Propagation(lambda done: None)
    nothing.begin = nothing.installed = lambda *words: None  # type: ignore[assignment,method-assign]
    controller.propagation = nothing
    controller.fleet._events.installed = nothing.installed


def with_traces(controller: Controller) -> None:
    controller.tell_traces(ChangeTraces(Everything(), {}))


def with_one_stuck(controller: Controller) -> None:
    for _ in range(STUCK):
        now = time.monotonic()
        controller.propagation.begin("object", ["away"], 0, Moments(now, now, now))


def main() -> None:
    logging.disable(logging.WARNING)
    collect_seldom()
    switches, changes = (QUICK_SWITCHES, QUICK_CHANGES) if quick else (SWITCHES, CHANGES)
    ways: dict[str, Callable[[Controller], None]] = {
        "without": without,
        "with": lambda controller: None,
        "with traces": with_traces,
        f"with {STUCK} changes that wait for one switch": with_one_stuck,
    }
    rows, first = [], (1.0, 1.0)
    for name, prepare in ways.items():
        rig.progress(name)
        found = measure(switches, changes, prepare)
        first = found if prepare is without else first
        rows.append(
            [name, f"{found[0] * 1e3:.1f} ms", f"{found[0] / first[0]:.2f}",
             f"{found[1] * 1e6:.1f} us", f"{found[1] / first[1]:.2f}"]
        )  # fmt: skip
    rig.table([f"bookkeeping, {switches} switches", "a change", "ratio", "a bundle's reply", "ratio"], rows)


if __name__ == "__main__":
    quick = rig.arguments(__doc__ or "")
    main()
