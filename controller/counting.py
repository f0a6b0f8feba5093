"""What Services and policies have come to, asked of all switches at once: a few at a time, until a deadline.

Each switch has a while to answer, and counts only if it has answered in full; whoever hasn't is named. Who asks while
the same is being asked already gets that answer: however many ask, switches are asked once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from controller import policy_views, questions, service_counts
from controller.fleet import Fleet
from controller.service_counts import Sums
from controller.sync import SwitchSync
from flows.compiler import Compiler
from flows.openflow.counted import BucketIds, FlowCount
from flows.openflow.messages import GroupStats

#: Switches that are asked at a time.
AT_A_TIME = 16
#: Seconds that a switch has, and all of them together.
PATIENCE, DEADLINE = 5.0, 10.0

T = TypeVar("T")
#: Takes what a switch has answered in full: how it is added, which is done unless it is too late.
Answered = Callable[[Callable[[], None]], None]
#: Asks a switch.
Ask = Callable[[SwitchSync, Answered], None]


class Counted(msgspec.Struct, Generic[T]):
    """What was counted, and the nodes whose switches haven't answered in time."""

    counts: T
    missing: tuple[str, ...]


class Counting:
    """Questions to all switches."""

    def __init__(self, compiler: Compiler, fleet: Fleet) -> None:
        self._compiler = compiler
        self._fleet = fleet
        self._running: dict[str, asyncio.Future[Any]] = {}

    async def services(self) -> Counted[Sums]:
        """What Services have carried."""
        return await self._shared("services", self._services)

    async def policies(self) -> Counted[policy_views.Counts]:
        """The packets that each flow of the policy tables has met."""
        return await self._shared("policies", self._policies)

    async def _shared(self, what: str, ask: Callable[[], Awaitable[Counted[T]]]) -> Counted[T]:
        running = self._running.get(what)
        if running is None:
            running = self._running[what] = asyncio.ensure_future(ask())
            running.add_done_callback(lambda _: self._running.pop(what))
        # One who asked may go; the others still want to know.
        found: Counted[T] = await asyncio.shield(running)
        return found

    async def _services(self) -> Counted[Sums]:
        sums, labels = Sums(), self._compiler.services.labels()

        def ask(sync: SwitchSync, answered: Answered) -> None:
            flows: list[FlowCount] = []

            def take(found: Iterator[FlowCount]) -> None:
                flows.extend(found)

            def end(buckets: Mapping[int, BucketIds], stats: Sequence[GroupStats]) -> None:
                def add() -> None:
                    service_counts.add_flows(sums, labels, flows)
                    service_counts.add_buckets(sums, labels, buckets, stats)

                answered(add)

            questions.count_services(sync, take, end)

        return Counted(sums, await ask_all(self._fleet.syncs, ask))

    async def _policies(self) -> Counted[policy_views.Counts]:
        counts: policy_views.Counts = {}

        def ask(sync: SwitchSync, answered: Answered) -> None:
            flows: list[FlowCount] = []

            def take(found: Iterator[FlowCount]) -> None:
                flows.extend(found)

            def end() -> None:
                answered(lambda: policy_views.add_counts(counts, flows))

            questions.count_flows(sync, policy_views.TABLES, take, end)

        return Counted(counts, await ask_all(self._fleet.syncs, ask))


async def ask_all(syncs: Mapping[str, SwitchSync], ask: Ask, deadline: float = DEADLINE) -> tuple[str, ...]:
    """Ask every switch, a few at a time. Returns the nodes whose switches haven't answered."""
    missing = dict.fromkeys(syncs)
    gate, loop = asyncio.Semaphore(AT_A_TIME), asyncio.get_running_loop()

    async def one(node: str, sync: SwitchSync) -> None:
        async with gate:
            answer: asyncio.Future[None] = loop.create_future()

            def answered(add: Callable[[], None]) -> None:
                if not answer.done():
                    add()
                    answer.set_result(None)

            ask(sync, answered)
            async with asyncio.timeout(PATIENCE):
                await answer
            del missing[node]

    tasks = [asyncio.create_task(one(node, sync)) for node, sync in syncs.items()]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=deadline)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return tuple(missing)
