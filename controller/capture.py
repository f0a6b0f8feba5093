"""Packet capture: taps on switches, and what they tell as pcapng. Bounded in time, rate, number and size.

    Request ─plan─> points (node, pod, direction) ──> taps on each node's switch
    packet-in ─by cookie─> Capture: a bounded queue ──> pcapng, as it comes

`controller.packet_ins` hands in what taps tell; `controller.api.captures` streams what comes out. When the caller goes,
the taps are deleted; when the controller goes, they end by themselves.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable

import msgspec

from controller import pcapng
from flows import taps
from flows.compiler import Compiler
from flows.openflow.messages import PacketIn
from flows.state import LocalPod
from flows.taps import Taps
from flows.values import Flow
from topology.model import Pod
from topology.naming import Address

#: Captures at a time, and packets of one that wait to be written; what comes while there are so many is left out.
CAPTURES, WAITING = 8, 1000
#: Seconds for which taps outlive their capture if nobody deletes them.
_SLACK = 5
#: Seconds between looks at whether anybody is there to read.
_LOOK = 0.5


class CaptureError(Exception):
    """This can't be captured; the text says why."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from", "target": "to"}):
    """What to capture: one pod's packets, or those between two, and how much. Pods are NAMESPACE/NAME.

    `direction`: what the pod (or `from`) sends, what it is sent, or both. Rates are each switch's: more than this and
    its other words to the controller would suffer.
    """

    pod: str = ""
    source: str = ""
    target: str = ""
    direction: str = "both"
    duration: int = 10
    count: int = 10_000
    rate: int = 50
    snaplen: int = 256
    size: int = 10 << 20


#: The bounds of what numbers a request may have.
BOUNDS = {
    "duration": (1, 300),
    "count": (1, 1_000_000),
    "rate": (1, 80),
    "snaplen": (64, 65_535),
    "size": (1_024, 100 << 20),
}
DIRECTIONS = ("both", "sent", "received")


class Point(msgspec.Struct, frozen=True):
    """A place where packets are seen: a pod's port, one way."""

    node: str
    pod: str
    sends: bool
    flows: tuple[Flow, ...]

    @property
    def description(self) -> str:
        way = "sent by" if self.sends else "delivered to"
        return f"{way} pod {self.pod} on node {self.node}"


class Capture:
    """One capture under way."""

    def __init__(self, request: Request, made: Taps, points: list[Point]) -> None:
        self.request = request
        self.taps = made
        self.points = points
        self.left_out = 0
        self._queue: asyncio.Queue[tuple[Point, PacketIn, int]] = asyncio.Queue(WAITING)

    def take(self, node: str, point: int, packet: PacketIn) -> None:
        """A packet that a tap has told of."""
        if point < len(self.points) and self.points[point].node == node:
            try:
                self._queue.put_nowait((self.points[point], packet, time.time_ns()))
            except asyncio.QueueFull:
                self.left_out += 1

    async def pcapng(self, is_heard: Callable[[], bool]) -> AsyncIterator[bytes]:
        """The file, in pieces as they come, until a bound is reached or nobody hears."""
        request = self.request
        head = pcapng.section("signalbox capture")
        for each in self.points:
            head += pcapng.interface(f"{each.node}:{each.pod}", each.description, request.snaplen)
        yield head
        size, count, end = len(head), 0, time.monotonic() + request.duration
        while count < request.count and is_heard():
            left = end - time.monotonic()
            if left <= 0:
                return
            try:
                point, packet, when = await asyncio.wait_for(self._queue.get(), min(left, _LOOK))
            except TimeoutError:
                continue
            direction = pcapng.OUTBOUND if point.sends else pcapng.INBOUND
            number, data = self.points.index(point), packet.data[: request.snaplen]
            piece = pcapng.packet(number, when, data, packet.length, direction, point.description)
            size += len(piece)
            if size > request.size:
                return
            count += 1
            yield piece


class Captures:
    """All captures under way."""

    def __init__(self, compiler: Compiler, is_master: Callable[[str], bool], send: Send) -> None:
        self._compiler = compiler
        self._is_master = is_master
        self._send = send
        self._running: dict[int, Capture] = {}

    def take(self, node: str, packet: PacketIn, now: float) -> None:
        """A packet that a tap of some session has told of."""
        session, point = taps.told_by(packet.cookie)
        found = self._running.get(session)
        if found is not None:
            found.take(node, point, packet)

    def begin(self, request: Request) -> Capture:
        """Set the taps. Raises CaptureError."""
        slots = set(range(CAPTURES)) - {each.taps.slot for each in self._running.values()}
        if not slots:
            raise CaptureError(f"{CAPTURES} captures are under way; wait until one ends")
        session = secrets.randbelow(taps.SESSIONS)
        seconds = request.duration + _SLACK
        made = Taps(session, min(slots), request.snaplen, request.rate, seconds)
        capture = Capture(request, made, self._plan(request, made))
        self._running[session] = capture
        for node, flows in _by_node(capture).items():
            self._send(node, made.made(flows))
        return capture

    def end(self, capture: Capture) -> None:
        """Take the taps away."""
        if self._running.pop(capture.taps.session, None) is not None:
            for node in _by_node(capture):
                self._send(node, capture.taps.unmade())

    def _plan(self, request: Request, made: Taps) -> list[Point]:
        nobody: tuple[Address, ...] = ()
        sends, receives = request.direction != "received", request.direction != "sent"
        if request.pod:
            pod, local = self._find(request.pod)
            wanted = [(pod, local, True, nobody)] * sends + [(pod, local, False, nobody)] * receives
        else:
            (pod, local), (other, others) = self._find(request.source), self._find(request.target)
            there, back = others.addresses, local.addresses
            # Both ends: what was sent and doesn't arrive, and what arrives with a Service's address translated.
            wanted = [(pod, local, True, there), (other, others, False, back)] * sends
            wanted += [(other, others, True, back), (pod, local, False, there)] * receives
        points: list[Point] = []
        for pod, local, is_sender, peer in wanted:
            about = taps.sent(local.port, peer) if is_sender else taps.delivered(local.port, peer)
            flows = tuple(made.flow(table, match, len(points)) for table, match in about)
            points.append(Point(pod.node, f"{pod.namespace}/{pod.name}", is_sender, flows))
        return points

    def _find(self, name: str) -> tuple[Pod, LocalPod]:
        namespace, _, short = name.partition("/")
        pod = self._compiler.cluster.pods.get((namespace, short))
        if pod is None:
            raise CaptureError(f"no pod {name!r}")
        if not pod.node or not self._is_master(pod.node):
            where = f"the switch of node {pod.node!r}" if pod.node else "no node"
            raise CaptureError(f"pod {name} is on {where}, of which this controller is not the master now")
        for each, local in self._compiler.local_pods(pod.node):
            if each.key == pod.key:
                return pod, local
        raise CaptureError(f"pod {name} has no port on node {pod.node!r}")


#: Sends messages to a node's switch.
Send = Callable[[str, list[bytes]], None]


def check(request: Request) -> None:
    """Raise CaptureError where a request is out of bounds or says not what to capture."""
    if bool(request.pod) == bool(request.source or request.target) or bool(request.source) != bool(request.target):
        raise CaptureError("name a pod, or from and to")
    if request.direction not in DIRECTIONS:
        raise CaptureError(f"direction: one of {', '.join(DIRECTIONS)}")
    for name, (least, most) in BOUNDS.items():
        if not least <= getattr(request, name) <= most:
            raise CaptureError(f"{name}: from {least} to {most}")


def _by_node(capture: Capture) -> dict[str, list[Flow]]:
    found: dict[str, list[Flow]] = {}
    for point in capture.points:
        found.setdefault(point.node, []).extend(point.flows)
    return found
