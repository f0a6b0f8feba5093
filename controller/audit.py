"""Drift: what a switch holds against what it should hold. Pure; `controller.holdings` knows what it should."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from flows.openflow.messages import FlowStats
from flows.values import Flow


class Drift(msgspec.Struct, frozen=True):
    """The difference. `altered` are flows that are there with another program or cookie: as they should be, and are."""

    missing: tuple[Flow, ...] = ()
    altered: tuple[tuple[Flow, FlowStats], ...] = ()
    foreign: tuple[FlowStats, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.altered or self.foreign)


def compare(expected: Iterable[Flow], found: Iterable[FlowStats]) -> Drift:
    """What is missing, altered or nobody's among the flows found."""
    wanted = {flow.key: flow for flow in expected}
    altered, foreign = [], []
    for stats in found:
        flow = wanted.pop(stats.flow.key, None) if stats.flow is not None else None
        if flow is None:
            foreign.append(stats)
        elif flow != stats.flow:
            altered.append((flow, stats))
    return Drift(tuple(wanted.values()), tuple(altered), tuple(foreign))
