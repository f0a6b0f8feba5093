"""How much ports carry now: two looks at what they have carried, and the time between them. Asked for, never polled.

What was found at the last look is kept, so that who asks again and again, as a screen does, never waits for a second
one. Switches say themselves for how long they have counted, so that it doesn't matter when they answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from flows.openflow.messages import PortDesc, PortStats

#: Seconds between two looks: fewer say too little, and more are of another time.
LEAST, MOST = 0.5, 30.0
#: What a switch says of what it doesn't count.
_UNCOUNTED = 2**64 - 1

#: A node's name and a port's.
Port = tuple[str, str]


class Load(msgspec.Struct, frozen=True):
    """What a port receives and sends, and its speed, in bit/s; a speed of 0 isn't known."""

    rx: float
    tx: float
    speed: int

    @property
    def part(self) -> float | None:
        """How much of what it can is used, in the direction that is used more: 1 is all; None without a speed."""
        return max(self.rx, self.tx) / self.speed if self.speed else None


class Look(msgspec.Struct, frozen=True):
    """What a node's ports had carried at one time, and when that was by the controller's clock."""

    at: float
    counts: Mapping[str, PortStats]
    speeds: Mapping[str, int]


class PortLoads:
    """The last look at each node's ports, and what follows from it and the one before."""

    def __init__(self) -> None:
        self._looks: dict[str, Look] = {}

    def is_fresh(self, node: str, now: float) -> bool:
        """Whether one more look, now, will say how much a node's ports carry."""
        last = self._looks.get(node)
        return last is not None and LEAST <= now - last.at <= MOST

    def take(self, node: str, ports: Iterable[PortDesc], counts: Iterable[PortStats], now: float) -> dict[Port, Load]:
        """A look at a node's ports: how much they have carried since the one before, if that wasn't long ago."""
        described = {port.number: port for port in ports}
        found = {described[each.number].name: each for each in counts if each.number in described}
        speeds = {port.name: port.speed * 1000 for port in described.values()}
        last = self._looks.get(node)
        self._looks[node] = Look(now, found, speeds)
        if last is None or now - last.at > MOST:
            return {}
        return {
            (node, name): load
            for name, new in found.items()
            if name in last.counts and (load := _load(last.counts[name], new, speeds[name])) is not None
        }

    def keep_only(self, nodes: Iterable[str]) -> None:
        """Forget other nodes' ports."""
        kept = set(nodes)
        self._looks = {node: look for node, look in self._looks.items() if node in kept}


def _load(old: PortStats, new: PortStats, speed: int) -> Load | None:
    seconds = new.duration - old.duration
    # A port that was made anew counts from zero.
    if seconds <= 0 or new.rx_bytes < old.rx_bytes or new.tx_bytes < old.tx_bytes:
        return None
    if _UNCOUNTED in (new.rx_bytes, new.tx_bytes):
        return None
    return Load((new.rx_bytes - old.rx_bytes) * 8 / seconds, (new.tx_bytes - old.tx_bytes) * 8 / seconds, speed)
