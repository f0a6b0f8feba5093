"""The cluster's state as Kubernetes' API server has it, followed: requests made, answers handed to the reflectors.

    API server ──bytes──> Client ──> Reflector (one for each kind) ──> KubernetesState ──Batch──> who follows

Owns the tasks, one for each kind, and the pace: nothing is handed out before every kind has been heard once; then the
first change goes out at once, and what comes within the next moments goes out together.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator

from topology.kubernetes.client import Client
from topology.kubernetes.follower import follow
from topology.kubernetes.objects import READERS
from topology.kubernetes.reflector import Found, Gone, Reflector
from topology.kubernetes.resources import RESOURCES
from topology.kubernetes.state import Batch, KubernetesState
from topology.services import ServiceRanges

log = logging.getLogger(__name__)

#: Seconds between two batches, at least.
PACE = 0.02
#: Seconds of waiting for the first lists after which, again and again, the log says what is missing.
_IMPATIENCE = 10.0


class KubernetesSource:
    """One API server."""

    def __init__(
        self,
        client: Client,
        ranges: ServiceRanges | None = None,
        *,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = KubernetesState(ranges)
        self.reflectors = [Reflector(each, READERS[each.kind], chance) for each in RESOURCES]
        self._client = client
        self._clock = clock
        self._news = asyncio.Event()
        self._batches = 0
        #: When the first event of the last batch was read; None of the first batch, which is all that there is.
        self.heard: float | None = None
        self._waiting_since: float | None = None

    @property
    def edition(self) -> str:
        """How many batches there have been."""
        return str(self._batches)

    @property
    def synced(self) -> bool:
        """Whether every kind has been heard once."""
        return all(each.synced for each in self.reflectors)

    def troubles(self) -> Iterator[str]:
        """What goes wrong between the server and us."""
        now = self._clock()
        for each in self.reflectors:
            if not each.synced:
                yield f"Kubernetes: waiting for {each.waiting()}"
            elif trouble := each.trouble(now):
                yield trouble

    def lead(self, leads: bool) -> None:
        """Say whether it is this process that gives addresses of load balancers; at first it is."""
        self.state.lead(leads)
        if self.state.pending:
            self._news.set()

    async def watch(self) -> AsyncIterator[Batch]:
        """What there is when everything has been heard once, then what changes; never ends."""
        tasks = [asyncio.create_task(self._follow(each)) for each in self.reflectors]
        for task in tasks:
            task.add_done_callback(lambda _: self._news.set())
        try:
            while True:
                await self._until_news()
                for task in tasks:
                    if task.done():
                        # Following never ends by itself: that it has is a fault to be seen.
                        task.result()
                if self.synced:
                    self._batches += 1
                    self.heard = self._waiting_since if self._batches > 1 else None
                    self._waiting_since = None
                    yield self.state.collect()
                    await asyncio.sleep(PACE)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _tell(self) -> None:
        """There is something to collect."""
        if self._waiting_since is None:
            self._waiting_since = self._clock()
        self._news.set()

    async def _until_news(self) -> None:
        while not self._news.is_set():
            try:
                async with asyncio.timeout(_IMPATIENCE):
                    await self._news.wait()
            except TimeoutError:
                for each in self.reflectors:
                    if not each.synced:
                        log.warning("Kubernetes: waiting for %s", each.waiting())
        self._news.clear()

    async def _follow(self, reflector: Reflector) -> None:
        before = reflector.synced

        def take(items: list[Found | Gone]) -> None:
            nonlocal before
            self.state.take(reflector.resource.kind, items)
            if self.state.pending or reflector.synced != before:
                before = reflector.synced
                self._tell()

        await follow(self._client, reflector, take, self._clock)
