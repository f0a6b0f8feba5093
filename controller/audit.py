"""Drift: what a switch holds against what it should hold. Pure; `controller.holdings` finds it."""

from __future__ import annotations

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
