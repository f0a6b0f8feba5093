"""One of several controllers: keeps its leases, and says of which switches it is master. Implements `fleet.Mastery`.

    LeaseStore ──read──> Leases ──plan──> `changed` (stop what is given up) ──write──> LeaseStore ──> `changed` (begin)

What is decided is decided by `controller.leases`; here are only the calls, one round of them after another, each with
a time limit. What fails is tried again in the next round; if that doesn't help for long, tenures end by the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from controller.leases import ConflictError, Deed, LeaseError, Leases, LeaseStore, Tenure, Write, shard_of

log = logging.getLogger(__name__)

#: Seconds between looks at the clock: a tenure that ends is noticed at the next write in any case.
CLOCK_INTERVAL = 0.2


class Replica:
    """This controller among several. `clock` only goes forward; `wall` is seconds since 1970, for people."""

    def __init__(
        self,
        leases: Leases,
        store: LeaseStore,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.leases = leases
        #: Why leases can't be kept, if they can't.
        self.complaint = ""
        self._store = store
        self._clock = clock
        self._wall = wall
        self._woken = asyncio.Event()
        self._held: frozenset[int] = frozenset()

    # What switches are told -------------------------------------------------------------------------------------

    def tenure(self, node: str) -> Tenure | None:
        """That this controller is master of a node's switch, if it is."""
        return self.leases.tenure(self.shard(node))

    def epoch(self, node: str) -> int:
        """The highest epoch known of the switch's masters."""
        return self.leases.record(self.shard(node)).epoch

    def shard(self, node: str) -> int:
        """The shard that a node is of."""
        return shard_of(node, self.leases.shards)

    def outranked(self, node: str, generation: int) -> None:
        """A node's switch knows of a later master than the lease does: one of leases that were lost since."""
        log.warning("the switch of node %s has had a master of generation %d; ours is to be higher", node, generation)
        self.leases.outranked(self.shard(node), generation)
        self._woken.set()

    def expire(self) -> None:
        """Look at the clock: tenures that couldn't be renewed end."""
        self.leases.expire(self._clock())

    def agree(self, nodes: Iterable[str], lost: Iterable[str]) -> list[str]:
        """Which nodes are lost: what each one's own master says. `lost` are those that this replica doesn't reach."""
        mine = set(lost)
        told: dict[int, list[str]] = {}
        agreed = []
        for node in sorted(nodes):
            shard = self.shard(node)
            if self.leases.tenure(shard) is None:
                is_lost = node in self.leases.record(shard).lost
            else:
                is_lost = node in mine
                told.setdefault(shard, []).extend([node] if is_lost else [])
            if is_lost:
                agreed.append(node)
        self.leases.lost = {shard: tuple(names) for shard, names in told.items()}
        return agreed

    # Rounds -----------------------------------------------------------------------------------------------------

    async def keep(self, changed: Callable[[], None]) -> None:
        """Keep leases, for ever. `changed` is called whenever tenures may have begun or ended."""
        while True:
            pause = await self._round(changed)
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), pause)

    async def leave(self, changed: Callable[[], None]) -> None:
        """Give everything up: others go on at once, and needn't wait until it expires."""
        writes = self.leases.leave()
        changed()
        await asyncio.gather(*map(self._carry_out, writes))

    async def _round(self, changed: Callable[[], None]) -> float:
        """One look, and what follows from it; the seconds until the next."""
        try:
            async with asyncio.timeout(self.leases.times.retry):
                found = await self._store.read()
        except (LeaseError, TimeoutError) as error:
            self._complain(error)
            self.expire()
            changed()
            return self.leases.times.retry / 2
        self.leases.read(found, self._clock())
        writes = self.leases.plan(self._clock(), self._wall())
        changed()
        if all(await asyncio.gather(*map(self._carry_out, writes))):
            self._content()
        changed()
        self._tell()
        now = self._clock()
        return max(0.01, self.leases.next_look(now) - now)

    async def _carry_out(self, write: Write) -> bool:
        """Whether the store has answered, be it with a no."""
        sent = self._clock()
        try:
            async with asyncio.timeout(self.leases.times.retry):
                if write.deed is Deed.CLEAR:
                    await self._store.delete(write.name, write.version or "")
                else:
                    stored = await self._store.write(write.name, write.record, write.version)
                    self.leases.written(write, stored, sent, self._clock())
        except ConflictError:
            self.leases.refused(write)
        except (LeaseError, TimeoutError) as error:
            self._complain(error)
            return False
        return True

    def _complain(self, error: Exception) -> None:
        text = f"leases can't be kept: {str(error) or 'no answer in time'}"
        if text != self.complaint:
            log.warning("%s", text)
        self.complaint = text

    def _content(self) -> None:
        if self.complaint:
            log.info("leases can be kept again")
        self.complaint = ""

    def _tell(self) -> None:
        held = frozenset(shard for shard in range(self.leases.shards) if self.leases.tenure(shard) is not None)
        if held != self._held:
            log.info("%s is master of %s", self.leases.replica, _words(held))
        self._held = held

    # What people ask --------------------------------------------------------------------------------------------

    def master(self, node: str) -> tuple[str, str]:
        """Who is master of a node's switch, and since when; empty where nobody is."""
        return self._master(self.shard(node))

    def masters(self) -> dict[int, str]:
        """Who is master of each shard; empty where nobody is."""
        now = self._clock()
        return {shard: self.leases.master(shard, now) for shard in range(self.leases.shards)}

    def _master(self, shard: int) -> tuple[str, str]:
        name = self.leases.master(shard, self._clock())
        return name, _time(self.leases.record(shard).since) if name else ""

    def status(self, nodes: Iterable[str]) -> dict[str, Any]:
        """This replica, the others, and who is master of what."""
        counts: dict[int, int] = {}
        for node in nodes:
            counts[self.shard(node)] = counts.get(self.shard(node), 0) + 1
        shards = []
        for shard in range(self.leases.shards):
            name, since = self._master(shard)
            epoch = self.leases.record(shard).epoch
            row = {"shard": shard, "master": name, "since": since, "epoch": epoch, "nodes": counts.get(shard, 0)}
            shards.append(row)
        members = self.leases.members(self._clock())
        replicas = [{"name": name, "ready": record.ready} for name, record in members.items()]
        return {"name": self.leases.replica, "replicas": replicas, "shards": shards}

    def troubles(self, nodes: Iterable[str]) -> Iterable[str]:
        """What isn't as it should be."""
        if self.complaint:
            yield self.complaint
        for shard in sorted({self.shard(node) for node in nodes}):
            if not self._master(shard)[0]:
                yield f"shard {shard} has no master: its nodes' switches go on as they are"


def _words(shards: Iterable[int]) -> str:
    text = ", ".join(map(str, sorted(shards)))
    return f"shards {text}" if text else "no shard"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
