"""Which ports are wired to which: found out by asking. Sans-I/O; time is an argument, and so is what is heard.

    ports of a switch ──set_ports──┐                ┌─due──> frames to send, each by its port
    who speaks for it ──set_sender─┼─> Discovery ───┤
    frames heard ──────hear────────┘                └─wires─> both ends of each

Each port that is asked sends a frame every `interval` seconds, and at once when it comes up. Two ports are a wire while
each hears the other and nobody else. It is gone at once when either port goes down or vanishes, and after `MISSED`
intervals in which one of them hasn't heard the other.

Silence says something only where somebody speaks: while a switch is away from its controllers, or has no master, its
wires stay as they are, as its flows do. A controller that isn't the switch's master can't see whether the one who is
has stopped, and so waits longer: for a new master.

Every port has its own time within the interval, by a hash, so that a switch with many wires isn't told of all of them
at one moment. What is kept is bounded by the number of ports: of each port, a few of those that it has heard.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from enum import Enum

import msgspec

from topology import lldp
from topology.graph import Wire, wire
from topology.lldp import Announcement, LldpError
from topology.naming import datapath_id

#: Seconds between two frames of a port; and the intervals that may pass unheard.
INTERVAL, MISSED = 5.0, 3
#: How much longer one waits for a switch that another controller speaks for, which may be gone and yet to be replaced.
_PATIENCE = 3
#: A port that has just come up, and is of no wire yet, asks that many times more, each after one half to one second.
_EAGER = 3
#: Seconds between two frames of a port at the least.
_PAUSE = 0.2
#: Ports that are remembered of those that one port hears; one is what there should be.
_REMEMBERED = 4
#: Two that are heard within so many intervals are both there.
_TOGETHER = 1.5
#: Seconds between two looks at what hasn't been heard for long.
_LOOK = 1.0
#: Frames whose meaning is remembered: about those of all ports of a large fabric.
_FRAMES = 100_000

#: A node's name and a port's.
End = tuple[str, str]


class Plug(msgspec.Struct, frozen=True):
    """A port that is up and may have a wire: its name, its OpenFlow number, its MAC (48 bits)."""

    name: str
    number: int
    mac: int


class Sender(Enum):
    """Who sends frames by a switch's ports, and has it send what they hear."""

    #: This controller is its master.
    US = "us"
    #: Another one is.
    OTHERS = "others"
    #: The switch isn't connected, or nobody is its master.
    NOBODY = "nobody"


class Sending(msgspec.Struct, frozen=True):
    """A frame, and the port that is to send it."""

    node: str
    port: int
    frame: bytes


class State(Enum):
    """What is known of a wire, or of a port that hears something."""

    UP = "Up"
    #: It was heard on both sides; of late nobody is there to say whether it still is.
    UNCONFIRMED = "Unconfirmed"


class _Node(msgspec.Struct):
    plugs: dict[str, Plug] = {}
    names: dict[int, str] = {}
    sender: Sender = Sender.NOBODY
    #: When that was said: silence counts from then on.
    since: float = 0.0


class _Turn(msgspec.Struct):
    """When a port sends next; how many times yet it does so eagerly."""

    at: float
    eager: int
    sent: float = float("-inf")
    #: What it sends, always the same.
    sending: Sending | None = None


class Discovery:
    """What is known of all ports and wires."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self.interval = interval
        #: Another one after every change of the wires.
        self.version = 0
        self._nodes: dict[str, _Node] = {}
        self._by_datapath: dict[int, str] = {}
        #: Who hears whom, and when last.
        self._heard: dict[End, dict[End, float]] = {}
        self._hearers: dict[End, set[End]] = {}
        self._wires: dict[End, End] = {}
        self._turns: dict[End, _Turn] = {}
        self._queue: list[tuple[float, End]] = []
        self._looked = float("-inf")
        self._frames: dict[bytes, Announcement | None] = {}

    # Ports ------------------------------------------------------------------------------------------------------

    def set_ports(self, node: str, plugs: Iterable[Plug], now: float) -> None:
        """The ports of a node that are up and may have wires, all of them."""
        here = self._node(node)
        new = {plug.name: plug for plug in plugs}
        old = here.plugs
        if new == old:
            return
        here.plugs = new
        here.names = {plug.number: plug.name for plug in new.values()}
        for name in old:
            # One with another number or address is another port of the same name.
            if old[name] != new.get(name):
                self._forget((node, name))
        for name in new:
            if old.get(name) != new[name]:
                self._turns[node, name] = _Turn(now, _EAGER)
                self._push(now, (node, name))

    def set_sender(self, node: str, sender: Sender, now: float) -> None:
        """Who speaks for a node's switch from now on."""
        here = self._node(node)
        if here.sender is sender:
            return
        here.sender, here.since = sender, now
        if sender is Sender.US:
            for name in here.plugs:
                end = (node, name)
                turn = self._turns.setdefault(end, _Turn(now, 0))
                turn.eager = _EAGER
                turn.at = self._own_time(end, now) if end in self._wires else now
                self._push(turn.at, end)

    def remove(self, node: str) -> None:
        """A node that isn't any more."""
        if node in self._nodes:
            for name in list(self._nodes[node].plugs):
                self._forget((node, name))
            del self._nodes[node]
            self._by_datapath.pop(datapath_id(node), None)

    def _node(self, node: str) -> _Node:
        here = self._nodes.get(node)
        if here is None:
            here = self._nodes[node] = _Node()
            self._by_datapath[datapath_id(node)] = node
        return here

    def _forget(self, end: End) -> None:
        """A port is gone, or down: it hears nobody, and nobody has heard it."""
        self._turns.pop(end, None)
        for other in self._heard.pop(end, {}):
            self._unhear(end, other)
        hearers = self._hearers.pop(end, set())
        for other in hearers:
            del self._heard[other][end]
        self._settle(end, *hearers)

    def _unhear(self, end: End, other: End) -> None:
        hearers = self._hearers.get(other)
        if hearers is not None:
            hearers.discard(end)
            if not hearers:
                del self._hearers[other]

    # Sending ----------------------------------------------------------------------------------------------------

    def due(self, now: float) -> list[Sending]:
        """What is to be sent now. Also looks, once a second, for what hasn't been heard for long."""
        if now - self._looked >= _LOOK:
            self._looked = now
            self._expire(now)
        found = []
        while self._queue and self._queue[0][0] <= now:
            at, end = heapq.heappop(self._queue)
            turn = self._turns.get(end)
            if turn is None or turn.at != at:
                continue
            here = self._nodes[end[0]]
            if here.sender is not Sender.US:
                # When it is ours to speak for, it gets a turn.
                continue
            if turn.sending is None:
                turn.sending = self._sending(end, here.plugs[end[1]])
            found.append(turn.sending)
            turn.sent = now
            if turn.eager and end not in self._wires:
                turn.eager -= 1
                turn.at = now + (1 + _fraction(end)) / 2
            else:
                turn.eager = 0
                turn.at = self._own_time(end, now)
            self._push(turn.at, end)
        return found

    def _sending(self, end: End, plug: Plug) -> Sending:
        node, port = end
        announcement = Announcement(datapath_id(node), port, max(1, round(MISSED * self.interval)))
        return Sending(node, plug.number, lldp.frame(announcement, plug.mac, node))

    def _own_time(self, end: End, now: float) -> float:
        """The next of a port's own times."""
        offset = _fraction(end) * self.interval
        return (now - offset) // self.interval * self.interval + offset + self.interval

    def _push(self, at: float, end: End) -> None:
        heapq.heappush(self._queue, (at, end))
        if len(self._queue) > 4 * len(self._turns) + 64:
            # Turns that were moved have left their former times behind.
            self._queue = [(turn.at, each) for each, turn in self._turns.items()]
            heapq.heapify(self._queue)

    # Hearing ----------------------------------------------------------------------------------------------------

    def hear(self, node: str, number: int, frame: bytes, now: float) -> None:
        """A frame that came in by a port of a node. What isn't ours, or can't be, is passed over."""
        here = self._nodes.get(node)
        name = here.names.get(number) if here is not None else None
        said = self._read(frame)
        if name is None or said is None:
            return
        end, speaker = (node, name), self._by_datapath.get(said.datapath_id)
        # A port that isn't known, or is down, has sent that before.
        if speaker is None or said.port not in self._nodes[speaker].plugs:
            return
        other = (speaker, said.port)
        if not said.ttl:
            # It says that it is about to go.
            if self._heard.get(end, {}).pop(other, None) is not None:
                self._unhear(end, other)
                self._settle(end, other)
            return
        heard = self._heard.setdefault(end, {})
        news = other not in heard
        heard[other] = now
        if news:
            self._hearers.setdefault(other, set()).add(end)
            if len(heard) > _REMEMBERED:
                oldest = min(heard, key=lambda each: heard[each])
                del heard[oldest]
                self._unhear(end, oldest)
            self._answer(end, now)
        if news or len(heard) > 1:
            self._settle(end, *heard)

    def _read(self, frame: bytes) -> Announcement | None:
        found = self._frames.get(frame, self)
        if not isinstance(found, Discovery):
            return found
        try:
            announcement = lldp.read(frame)
        except LldpError:
            # Not remembered: what others send may be something new each time.
            return None
        if len(self._frames) >= _FRAMES:
            self._frames.clear()
        self._frames[frame] = announcement
        return announcement

    def _answer(self, end: End, now: float) -> None:
        """Somebody new is there, and should know as soon who is here."""
        turn = self._turns.get(end)
        if turn is not None:
            turn.at = min(turn.at, max(now, turn.sent + _PAUSE))
            self._push(turn.at, end)

    def _expire(self, now: float) -> None:
        for end, heard in list(self._heard.items()):
            gone = [other for other, at in heard.items() if self._is_silent(end, other, at, now)]
            for other in gone:
                del heard[other]
                self._unhear(end, other)
            if gone or len(heard) > 1:
                self._settle(end, *gone, *heard)
            if not heard:
                del self._heard[end]

    def _is_silent(self, end: End, other: End, at: float, now: float) -> bool:
        """Whether a port should have heard another one since, and hasn't."""
        here, there = self._nodes[end[0]], self._nodes[other[0]]
        if Sender.NOBODY in (here.sender, there.sender):
            return False
        limit = MISSED * self.interval * (1 if here.sender is there.sender is Sender.US else _PATIENCE)
        return now - max(at, here.since, there.since) > limit

    # Wires ------------------------------------------------------------------------------------------------------

    def wires(self) -> list[Wire]:
        """Every wire, sorted, at the cost that one has if nobody says otherwise."""
        return sorted(wire(end, other) for end, other in self._wires.items() if end < other)

    def state(self, found: Wire) -> State:
        """What is known of a wire."""
        senders = (self._nodes[found.a].sender, self._nodes[found.b].sender)
        return State.UNCONFIRMED if Sender.NOBODY in senders else State.UP

    @property
    def is_asking(self) -> bool:
        """Whether there is any port that may have a wire."""
        return bool(self._turns)

    def is_unanswered(self, now: float) -> bool:
        """Whether any port is of no wire and has yet to ask, or has just asked, or will do so again soon."""
        return any(
            end not in self._wires and (turn.eager or now - turn.sent < 1.0) for end, turn in self._turns.items()
        )

    def troubles(self) -> Iterator[str]:
        """Ports that hear what no wire explains, a line each."""
        for end, heard in sorted(self._heard.items()):
            node, port = end
            others = sorted(self._lately(heard))
            if len(others) > 1:
                words = " and ".join(f"{name} port {each}" for name, each in others)
                yield f"node {node}: port {port} hears {words}: what joins them is no wire, and isn't used as one"
            elif others and others[0][0] == node:
                yield f"node {node}: port {port} is wired to port {others[0][1]} of the same bridge, which is of no use"

    def _lately(self, heard: dict[End, float]) -> list[End]:
        """Whom a port hears: the last one that it has heard, and all who were heard at about the same time."""
        newest = max(heard.values(), default=0.0)
        return [other for other, at in heard.items() if newest - at < _TOGETHER * self.interval]

    def _one(self, end: End) -> End | None:
        """The only one that a port hears."""
        heard = self._heard.get(end)
        if not heard:
            return None
        others = self._lately(heard) if len(heard) > 1 else list(heard)
        return others[0] if len(others) == 1 and others[0][0] != end[0] else None

    def _settle(self, *ends: End) -> None:
        """Wires of ports, now that what they hear is something else."""
        waiting, done = list(ends), set()
        while waiting:
            end = waiting.pop()
            if end in done:
                continue
            done.add(end)
            other = self._one(end)
            partner = other if other is not None and self._one(other) == end else None
            former = self._wires.get(end)
            if former == partner:
                continue
            self.version += 1
            for each in (end, partner):
                left = self._wires.pop(each, None) if each is not None else None
                if left is not None:
                    self._wires.pop(left, None)
                    waiting.append(left)
            if partner is not None:
                self._wires[end], self._wires[partner] = partner, end


def _fraction(end: End) -> float:
    """A number from 0 up to 1 that is the port's own."""
    return int.from_bytes(hashlib.sha256("/".join(end).encode()).digest()[:4], "big") / 2**32
