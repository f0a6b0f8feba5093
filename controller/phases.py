"""What becomes of switches' phases, by looking at them every half second or so.

A switch that is sent something is in phase Syncing for some milliseconds, and in a busy cluster all of them are so
again and again: nobody needs to be told. So what is in the middle of a bundle counts as what it was before, unless it
gets no further with it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import msgspec

from controller.sync import Counters, Phase


class Switch(Protocol):
    """A switch as it is looked at."""

    @property
    def phase(self) -> Phase: ...

    @property
    def counters(self) -> Counters: ...


class _Seen(msgspec.Struct):
    #: Who was looked at: after it has connected anew, it is another.
    switch: object
    #: As it was told; None before the first time.
    phase: Phase | None = None
    bundles: int = -1
    was_in_sync: bool = False


class Turn(msgspec.Struct, frozen=True):
    """A node's switch is in another phase than before; `first` where that is the first time in sync since it came."""

    node: str
    phase: Phase | None
    first: bool = False


class Phases:
    """What was told of each switch."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def look(self, switches: Mapping[str, Switch]) -> Iterator[Turn]:
        """What is otherwise than at the last look."""
        for node in [node for node in self._seen if node not in switches]:
            del self._seen[node]
            yield Turn(node, None)
        for node, switch in switches.items():
            seen = self._seen.get(node)
            if seen is None or seen.switch is not switch:
                seen = self._seen[node] = _Seen(switch)
            phase, bundles = switch.phase, switch.counters.bundles
            is_on_its_way = phase is Phase.SYNCING and bundles != seen.bundles
            seen.bundles = bundles
            if phase is seen.phase or is_on_its_way:
                continue
            seen.phase = phase
            first = phase is Phase.SYNCED and not seen.was_in_sync
            seen.was_in_sync |= first
            yield Turn(node, phase, first)
