"""Switches whose flows are looked at, each of them: to be told of what differs, or to repair it.

    SwitchSync.suspected ──node──> waiting, each once ──one at a time──> dump ──> Comparison, step by step ──> repair
    people ──Controller.compare──> dump ─────────────────────────────────────────────▲

To make all of a switch's flows again takes a while: 67 ms of CPU for 15,112 flows. So it is gone through in steps,
between which everybody else has a turn, and by one comparison at a time: of many each would be one more step in every
round. Changes go on meanwhile; of what they change nothing is told (`controller.holdings.Comparison`).

What is suspected waits here as a name: a switch is asked for its flows when its turn has come, so the flows of one are
in memory at a time. Where nobody keeps this going, as in a test, a switch is looked at in one go when it has answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

from controller.fleet import Fleet
from controller.holdings import Comparison
from controller.sync import Phase, SwitchSync
from flows.openflow import encode
from flows.openflow.messages import FlowStats, FlowStatsReply, Message

#: Seconds that a switch has to tell its flows: less than the silence after which its connection is given up.
ANSWER_LIMIT = 10.0
#: How often a switch is looked at anew because what it holds was changed meanwhile.
TRIES = 5
#: Looks at whether nothing is on its way to a switch that is to be repaired, and seconds between them.
LOOKS, LOOK_INTERVAL = 100, 0.01


class Audits:
    """What is to be looked at."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._waiting: dict[str, None] = {}
        self._woken: asyncio.Event | None = None
        self._turn = asyncio.Lock()

    def suspect(self, node: str) -> None:
        """A node's switch may hold what it shouldn't, or lack something."""
        if self._woken is None:
            self._repair_at_once(self._fleet.syncs[node])
        else:
            self._waiting[node] = None
            self._woken.set()

    async def keep(self) -> None:
        """Look at who is suspected, until cancelled."""
        self._woken = asyncio.Event()
        try:
            while True:
                await self._woken.wait()
                self._woken.clear()
                while self._waiting:
                    node = next(iter(self._waiting))
                    del self._waiting[node]
                    await self._repair(node)
        finally:
            self._woken = None

    async def go_through(self, comparison: Comparison) -> None:
        """Have a comparison made, while others have their turns."""
        async with self._turn:
            for _ in comparison.steps():
                await asyncio.sleep(0)

    async def _repair(self, node: str) -> None:
        """Gives up where what the switch holds never stays the same for as long as it takes: there is a next audit."""
        for _ in range(TRIES):
            sync = self._fleet.syncs.get(node)
            if sync is None or sync.phase is not Phase.SYNCED:
                return
            before = sync.settled
            found = await _flows_of(sync)
            if found is None:
                return
            if sync.settled != before:
                continue
            comparison = sync.holdings.comparison(found)
            await self.go_through(comparison)
            await self._until_idle(sync)
            drift = comparison.drift() if comparison.is_of_node else None
            if drift is not None and self._fleet.syncs.get(node) is sync:
                sync.repair(drift, time.monotonic())
                return

    async def _until_idle(self, sync: SwitchSync) -> None:
        for _ in range(LOOKS):
            if sync.phase is Phase.SYNCED:
                return
            await asyncio.sleep(LOOK_INTERVAL)

    def _repair_at_once(self, sync: SwitchSync) -> None:
        before = sync.settled

        def take(found: Sequence[FlowStats] | None, now: float) -> None:
            if found is not None and sync.settled == before:
                comparison = sync.holdings.comparison(found)
                exhaust(comparison.steps())
                drift = comparison.drift()
                # Nothing has changed meanwhile.
                assert drift is not None
                sync.repair(drift, now)

        _ask_for_flows(sync, take)


def _ask_for_flows(sync: SwitchSync, then: Callable[[Sequence[FlowStats] | None, float], None]) -> None:
    """`then` hears of all flows and of when they came; None where the switch doesn't tell."""

    def take(message: Message, now: float) -> None:
        then(message.items if isinstance(message, FlowStatsReply) else None, now)

    sync.request(lambda xid: encode.flow_stats_request(xid=xid), take)


async def _flows_of(sync: SwitchSync) -> Sequence[FlowStats] | None:
    """All flows as the switch has them; None where it doesn't tell, or not in time."""
    answer: asyncio.Future[Sequence[FlowStats] | None] = asyncio.get_running_loop().create_future()
    _ask_for_flows(sync, lambda found, now: None if answer.done() else answer.set_result(found))
    try:
        async with asyncio.timeout(ANSWER_LIMIT):
            return await answer
    except TimeoutError:
        return None


def exhaust(steps: Iterable[None]) -> None:
    """Go through steps in one go."""
    for _ in steps:
        pass
