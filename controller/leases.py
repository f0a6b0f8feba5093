"""Who is master of which switches: leases on shards of nodes, and what a replica does about them. Sans-I/O.

    read(everything in the store) ──> plan ──> writes ──> written, or refused
                                        └──> tenures: the shards that are this replica's, and until when

Nodes are spread over a fixed number of shards by a hash of their names. Each shard has a lease, and whoever holds it is
master of the shard's switches; each replica has one too, which says that it is there. A lease that is held is renewed;
one that hasn't changed for its whole duration, as seen by one's own clock, is free. Its epoch grows with each holder,
and is the generation by which a switch tells a former master from the present one.

Clocks are never compared: time is an argument, from the replica's own clock that only goes forward. A tenure ends,
by that clock, well before anybody else may take the lease: counted from when its last renewal was *sent*, and
`Times.deadline` is less than `Times.duration`, which others count from when they have *seen* that renewal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import Protocol

import msgspec

#: Shards that nodes are spread over. All replicas must have the same number.
SHARDS = 16
_SHARD, _REPLICA = "signalbox-shard-", "signalbox-replica-"
#: Durations after which what a replica has left behind is cleared away.
_CLEARED_AFTER = 40


class LeaseError(Exception):
    """The store can't be asked, or doesn't answer; the text says why."""


class ConflictError(LeaseError):
    """Somebody else has changed the lease meanwhile."""


class Record(msgspec.Struct, frozen=True):
    """A lease as it is stored. `since` and `renewed` are seconds since 1970, for people: nobody reckons with them."""

    holder: str = ""
    epoch: int = 0
    since: float = 0.0
    renewed: float = 0.0
    #: Seconds.
    duration: float = 0.0
    #: Of a replica: that it has followed for long enough to be given shards.
    ready: bool = False
    #: Of a shard: its nodes whose switches its master hasn't reached for long.
    lost: tuple[str, ...] = ()


class Stored(msgspec.Struct, frozen=True):
    """A record and its version, which is another after every write."""

    record: Record
    version: str


class LeaseStore(Protocol):
    """Where leases are kept. Every write names the version that it replaces; all raise LeaseError."""

    async def read(self) -> Mapping[str, Stored]:
        """Every lease by its name."""

    async def write(self, name: str, record: Record, version: str | None) -> Stored:
        """Make (`version` None) or replace a lease. Raises ConflictError where it isn't as it was any more."""

    async def delete(self, name: str, version: str) -> None:
        """Delete a lease. Raises ConflictError where it isn't as it was any more."""


class TimesError(ValueError):
    """Durations that leave no room for one another; the text says which."""


class Times(msgspec.Struct, frozen=True):
    """Seconds. `retry` is how often leases are looked at, `join` how long one follows before it is given shards."""

    duration: float = 15.0
    deadline: float = 10.0
    retry: float = 2.0
    join: float = 70.0

    def __post_init__(self) -> None:
        if not 0 < 2 * self.retry <= self.deadline or not self.deadline < self.duration:
            raise TimesError(
                f"--lease-duration {self.duration:g} must be more than --renew-deadline {self.deadline:g}, and that "
                f"at least twice --retry-period {self.retry:g}"
            )


class Tenure(msgspec.Struct, eq=False):
    """That this replica is master of a shard, in one piece; a new one has a new object. Renewals move `until`.

    `confirmed` is when the last renewal was sent, `until` when writes must stop; both by this replica's clock.
    """

    epoch: int
    confirmed: float
    until: float
    #: Seconds since 1970.
    since: float = 0.0


class Deed(Enum):
    TAKE = "take"
    RENEW = "renew"
    GIVE_UP = "give up"
    CLEAR = "clear"


class Write(msgspec.Struct, frozen=True):
    """What is to be written. `shard` is None where the lease is a replica's."""

    deed: Deed
    name: str
    shard: int | None
    record: Record
    version: str | None


class _Seen(msgspec.Struct):
    stored: Stored
    at: float


def shard_of(node: str, shards: int = SHARDS) -> int:
    """The shard that a node is of."""
    return _hash(node) % shards


def spread(shards: int, replicas: Collection[str]) -> dict[int, str]:
    """Whose each shard should be: even numbers for all, and as few moves as can be when one comes or goes.

    Of all pairs the one with the highest hash first, until a replica has its share.
    """
    owners: dict[int, str] = {}
    if not replicas:
        return owners
    least = shards // len(replicas)
    pairs = sorted(
        ((shard, replica) for shard in range(shards) for replica in replicas),
        key=lambda pair: _hash(f"{pair[0]}/{pair[1]}"),
        reverse=True,
    )
    given = dict.fromkeys(replicas, 0)
    for share in (least, least + 1):
        for shard, replica in pairs:
            if shard not in owners and given[replica] < share:
                owners[shard] = replica
                given[replica] += 1
    return owners


class Leases:
    """One replica's view of all leases."""

    def __init__(self, replica: str, times: Times | None = None, shards: int = SHARDS) -> None:
        self.replica = replica
        self.times = times or Times()
        self.shards = shards
        #: What this replica says of the shards that it is master of: nodes that it doesn't reach.
        self.lost: dict[int, tuple[str, ...]] = {}
        self._held: dict[int, Tenure] = {}
        self._seen: dict[str, _Seen] = {}
        self._begun: float | None = None
        self._ready = False
        self._planned = float("-inf")
        self._hurry = False
        #: The highest generation that a switch of a shard was found to have.
        self._floor: dict[int, int] = {}

    # What is so -------------------------------------------------------------------------------------------------

    def tenure(self, shard: int) -> Tenure | None:
        """That a shard is this replica's, if it is. Call `expire` before."""
        return self._held.get(shard)

    def record(self, shard: int) -> Record:
        """A shard's lease as it was last seen."""
        seen = self._seen.get(f"{_SHARD}{shard}")
        return seen.stored.record if seen is not None else Record()

    def master(self, shard: int, now: float) -> str:
        """Who is master of a shard, as far as is known; empty where nobody is."""
        if shard in self._held:
            return self.replica
        holder = self._holder(f"{_SHARD}{shard}", now)
        # Its own lease that it doesn't hold is one that it held before it was started anew, or couldn't renew.
        return holder if holder != self.replica else ""

    def members(self, now: float) -> dict[str, Record]:
        """The replicas that are there."""
        names = [name for name in self._seen if name.startswith(_REPLICA) and self._holder(name, now)]
        return {name.removeprefix(_REPLICA): self._seen[name].stored.record for name in sorted(names)}

    def _holder(self, name: str, now: float) -> str:
        """Who holds a lease; empty where nobody does, or it has expired."""
        seen = self._seen.get(name)
        if seen is None or now >= self._expires(seen):
            return ""
        return seen.stored.record.holder

    def _expires(self, seen: _Seen) -> float:
        # Its holder knows what it counts on; who has been told to wait longer waits longer.
        return seen.at + max(self.times.duration, seen.stored.record.duration)

    # What happens -----------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Tenures that couldn't be renewed in time end."""
        for shard, tenure in list(self._held.items()):
            if now >= tenure.until:
                del self._held[shard]

    def read(self, found: Mapping[str, Stored], now: float) -> None:
        """Everything in the store, as it has just been read."""
        if self._begun is None:
            self._begun = now
            # Where nobody else has a shard, there is nothing to be learnt by following.
            holders = {each.record.holder for name, each in found.items() if name.startswith(_SHARD)}
            self._ready = holders <= {"", self.replica}
        self._ready = self._ready or now - self._begun >= self.times.join
        for name in self._seen.keys() - found.keys():
            del self._seen[name]
        for name, stored in found.items():
            before = self._seen.get(name)
            if before is None or before.stored != stored:
                self._seen[name] = _Seen(stored, now)
        for shard, tenure in list(self._held.items()):
            record = self.record(shard)
            if (record.holder, record.epoch) != (self.replica, tenure.epoch):
                del self._held[shard]
        self.expire(now)

    def plan(self, now: float, wall: float) -> list[Write]:
        """What to write now. Shards that are given up are no longer held when this returns: stop, then write."""
        self.expire(now)
        self._planned, self._hurry = now, False
        me = Record(self.replica, 1, renewed=wall, duration=self.times.duration, ready=self._ready)
        writes = [self._write(Deed.RENEW, f"{_REPLICA}{self.replica}", None, me)]
        owners = spread(self.shards, self._candidates(now))
        for shard in range(self.shards):
            tenure, old = self._held.get(shard), self.record(shard)
            lost = self.lost.get(shard, old.lost)
            record = Record(self.replica, old.epoch, old.since, wall, self.times.duration, lost=lost)
            if tenure is not None and owners.get(shard, self.replica) != self.replica:
                del self._held[shard]
                writes.append(self._given_up(shard))
            elif tenure is not None:
                writes.append(self._write(Deed.RENEW, f"{_SHARD}{shard}", shard, record))
            elif self._may_take(shard, owners.get(shard) == self.replica, now):
                epoch = max(old.epoch, self._floor.get(shard, 0)) + 1
                taken = msgspec.structs.replace(record, epoch=epoch, since=wall)
                writes.append(self._write(Deed.TAKE, f"{_SHARD}{shard}", shard, taken))
        return writes + list(self._cleared(now))

    def _candidates(self, now: float) -> Collection[str]:
        """Who should have shards: the replicas that are ready; where none is, all."""
        members = self.members(now) | {self.replica: Record(self.replica, ready=self._ready)}
        return [name for name, record in members.items() if record.ready] or list(members)

    def _may_take(self, shard: int, mine: bool, now: float) -> bool:
        assert self._begun is not None, "nothing has been read yet"
        seen = self._seen.get(f"{_SHARD}{shard}")
        if seen is None:
            free_since = self._begun
        elif seen.stored.record.holder == self.replica:
            # Held before a restart, or before a renewal that came too late: nobody else's.
            return True
        else:
            free_since = seen.at if not seen.stored.record.holder else self._expires(seen)
        if mine:
            # At first others may be about to say that they are there.
            return now >= free_since and now >= self._begun + self.times.retry
        # Somebody must: whose it should be hasn't taken it.
        return now >= free_since + 2 * self.times.retry

    def _cleared(self, now: float) -> Iterable[Write]:
        for name, seen in self._seen.items():
            old = now - seen.at > _CLEARED_AFTER * self.times.duration
            if old and name.startswith(_REPLICA) and name != f"{_REPLICA}{self.replica}":
                yield Write(Deed.CLEAR, name, None, seen.stored.record, seen.stored.version)

    def leave(self) -> list[Write]:
        """Give everything up, in order to end. Stop, then write."""
        shards = list(self._held)
        self._held.clear()
        writes = [self._given_up(shard) for shard in shards]
        mine = self._seen.get(f"{_REPLICA}{self.replica}")
        if mine is not None:
            name = f"{_REPLICA}{self.replica}"
            writes.append(Write(Deed.CLEAR, name, None, mine.stored.record, mine.stored.version))
        return writes

    def _given_up(self, shard: int) -> Write:
        free = msgspec.structs.replace(self.record(shard), holder="", lost=self.lost.get(shard, ()))
        return self._write(Deed.GIVE_UP, f"{_SHARD}{shard}", shard, free)

    def _write(self, deed: Deed, name: str, shard: int | None, record: Record) -> Write:
        seen = self._seen.get(name)
        return Write(deed, name, shard, record, seen.stored.version if seen is not None else None)

    def written(self, write: Write, stored: Stored, sent: float, now: float) -> None:
        """A write that was begun at `sent` is done."""
        self._seen[write.name] = _Seen(stored, now)
        if write.shard is None or write.deed is Deed.GIVE_UP:
            return
        until = sent + self.times.deadline
        if write.deed is Deed.TAKE:
            self._held[write.shard] = Tenure(write.record.epoch, sent, until, write.record.since)
        else:
            tenure = self._held.get(write.shard)
            if tenure is not None and tenure.epoch == write.record.epoch:
                tenure.confirmed, tenure.until = sent, until
        self.expire(now)

    def refused(self, write: Write) -> None:
        """Somebody else was first, or an earlier write of our own, thought lost, was done: look again soon."""
        self._hurry = True

    def outranked(self, shard: int, generation: int) -> None:
        """A switch has a generation above the epoch of a tenure: of leases that were lost, say, or other shards."""
        tenure = self._held.get(shard)
        if tenure is not None and tenure.epoch < generation:
            self._floor[shard] = max(generation, self._floor.get(shard, 0))
            del self._held[shard]
            self._hurry = True

    def next_look(self, now: float) -> float:
        """When to read and plan again: at the retry period, and at once when something of others expires."""
        # A refusal that comes again and again must not make for a busy loop.
        regular = self._planned + (self.times.retry / 10 if self._hurry else self.times.retry)
        others = (seen for seen in self._seen.values() if seen.stored.record.holder not in ("", self.replica))
        expiries = [when for when in map(self._expires, others) if now < when < regular]
        return min([regular, *expiries])


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
