"""Packet capture: taps on switches, and what they tell as pcapng. Bounded in time, rate, number and size.

    Request ─plan─> points (where, of what) ──> taps on switches
    packet-in ─by cookie, or by what taps are about─> Capture: a bounded queue ──> pcapng, as it comes

`controller.packet_ins` hands in what taps tell; `controller.api.captures` streams what comes out. When the caller goes,
the taps are deleted; when the controller goes, they end by themselves. Several may want the same packet, of which a
table tells once: whoever's tap has told, the others find it by what they are about.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence

from controller import pcapng
from controller.capture_points import CaptureError, Planner, Point, Request
from controller.trace import frames
from flows import taps
from flows.compiler import Compiler
from flows.openflow.messages import PacketIn
from flows.taps import CAPTURES, Taps
from flows.values import Flow

#: Packets of a capture that wait to be written; what comes while there are so many is left out.
WAITING = 1000
#: Seconds for which taps outlive their capture if nobody deletes them.
_SLACK = 5
#: Seconds between looks at whether anybody is there to read.
_LOOK = 0.5


class Capture:
    """One capture under way. `comment` is what its reader should know of it."""

    def __init__(self, request: Request, made: Taps, points: Sequence[Point], comment: str = "") -> None:
        self.request = request
        self.taps = made
        self.points = points
        self.left_out = 0
        #: By a node, a name and a direction: the number of the interface in the file.
        self._interfaces: dict[tuple[str, str, int], int] = {}
        self.head = pcapng.section("signalbox capture", comment)
        for point in points:
            for node in point.nodes:
                if (node, point.name, point.direction) not in self._interfaces:
                    self._interfaces[node, point.name, point.direction] = len(self._interfaces)
                    about = "dropped by policies" if point.direction == pcapng.DROPPED else point.description
                    self.head += pcapng.interface(f"{node}:{point.name}", f"{about} on node {node}", request.snaplen)
        self._queue: asyncio.Queue[tuple[str, Point, PacketIn, int]] = asyncio.Queue(WAITING)

    def take(self, node: str, point: Point, packet: PacketIn) -> None:
        """A packet that a tap has told of."""
        try:
            self._queue.put_nowait((node, point, packet, time.time_ns()))
        except asyncio.QueueFull:
            self.left_out += 1

    async def pcapng(self, is_heard: Callable[[], bool]) -> AsyncIterator[bytes]:
        """The file, in pieces as they come, until a bound is reached or nobody hears."""
        request = self.request
        yield self.head
        size, count, end = len(self.head), 0, time.monotonic() + request.duration
        while count < request.count and is_heard():
            left = end - time.monotonic()
            if left <= 0:
                return
            try:
                node, point, packet, when = await asyncio.wait_for(self._queue.get(), min(left, _LOOK))
            except TimeoutError:
                continue
            number, data = self._interfaces[node, point.name, point.direction], packet.data[: request.snaplen]
            comment = f"{point.description} on node {node}"
            piece = pcapng.packet(number, when, data, packet.length, point.direction, comment)
            size += len(piece)
            if size > request.size:
                return
            count += 1
            yield piece


class Captures:
    """All captures under way."""

    def __init__(self, compiler: Compiler, is_master: Callable[[str], bool], send: Send) -> None:
        self._planner = Planner(compiler, is_master)
        self._send = send
        self._running: dict[int, Capture] = {}

    def take(self, node: str, packet: PacketIn) -> None:
        """A packet that a tap has told of, of a capture or of a trace."""
        session, number = taps.told_by(packet.cookie)
        teller = None if taps.is_trace(packet.cookie) else self._running.get(session)
        told = teller.points[number] if teller is not None and number < len(teller.points) else None
        if teller is not None and told is not None and len(self._running) == 1 and not told.rivals:
            teller.take(node, told, packet)
            return
        fields = (frames.fields_of(packet.data) or {}) | {term.field: term.value for term in packet.match}
        if told is not None and told.loses(packet.table, fields):
            return
        priority = told.taps[0].priority if told is not None else taps.PRIORITY
        for capture in self._running.values():
            for point in capture.points:
                if point is told or (node in point.nodes and point.sees(packet.table, priority, fields)):
                    capture.take(node, point, packet)
                    break

    def begin(self, request: Request) -> Capture:
        """Set the taps. Raises CaptureError."""
        slots = set(range(CAPTURES)) - {each.taps.slot for each in self._running.values()}
        if not slots:
            raise CaptureError(f"{CAPTURES} captures are under way; wait until one ends")
        session = secrets.randbelow(taps.SESSIONS)
        seconds = request.duration + _SLACK
        made = Taps(session, min(slots), request.snaplen, request.rate, seconds)
        points = self._planner.plan(request, made)
        unheard = ", ".join(self._planner.unheard()) if request.drops else ""
        why = "their switches aren't connected, or have another master than this controller"
        capture = Capture(request, made, points, f"not of nodes {unheard}: {why}" if unheard else "")
        if len(capture.head) > request.size:
            raise CaptureError(f"size: what the file begins with takes {len(capture.head)} bytes")
        self._running[session] = capture
        for node, flows in _by_node(capture).items():
            self._send(node, made.made(flows))
        return capture

    def end(self, capture: Capture) -> None:
        """Take the taps away."""
        if self._running.pop(capture.taps.session, None) is not None:
            for node in _by_node(capture):
                self._send(node, capture.taps.unmade())


#: Sends messages to a node's switch.
Send = Callable[[str, list[bytes]], None]


def _by_node(capture: Capture) -> dict[str, list[Flow]]:
    found: dict[str, list[Flow]] = {}
    for point in capture.points:
        for node in point.nodes:
            found.setdefault(node, []).extend(point.taps)
    return found
