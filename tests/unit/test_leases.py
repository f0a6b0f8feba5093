"""Leases: who may take which and when, who gives up what, and stores that keep them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from api_server import ApiServer, serving

from controller.kubernetes_leases import LABELS, KubernetesLeases
from controller.lease_directory import LeaseDirectory
from controller.leases import (
    SHARDS,
    ConflictError,
    Deed,
    LeaseError,
    Leases,
    LeaseStore,
    Record,
    Stored,
    Times,
    TimesError,
    shard_of,
    spread,
)
from topology.kubernetes.client import Client, TransportError

TIMES = Times(duration=15, deadline=10, retry=2, join=30)


class Memory:
    """A store in memory."""

    def __init__(self) -> None:
        self.found: dict[str, Stored] = {}
        self._count = 0

    def put(self, name: str, record: Record, version: str | None) -> Stored:
        there = self.found.get(name)
        if (there.version if there is not None else None) != version:
            raise ConflictError(name)
        self._count += 1
        self.found[name] = Stored(record, str(self._count))
        return self.found[name]

    def remove(self, name: str, version: str) -> None:
        if name not in self.found or self.found[name].version != version:
            raise ConflictError(name)
        del self.found[name]


def round_of(leases: Leases, store: Memory, now: float) -> list[Deed]:
    """A look and what follows; what was done with shards."""
    leases.read(dict(store.found), now)
    deeds = []
    for write in leases.plan(now, 1e9 + now):
        try:
            if write.deed is Deed.CLEAR:
                store.remove(write.name, write.version or "")
            else:
                leases.written(write, store.put(write.name, write.record, write.version), now, now)
                deeds += [write.deed] if write.shard is not None else []
        except ConflictError:
            leases.refused(write)
    return deeds


def held(leases: Leases) -> set[int]:
    return {shard for shard in range(SHARDS) if leases.tenure(shard) is not None}


def test_replicas_that_start_together_spread_the_shards_evenly() -> None:
    store, all_of = Memory(), [Leases(name, TIMES) for name in ("a", "b", "c")]
    for now in (0.0, 2.0):
        for leases in all_of:
            round_of(leases, store, now)
    assert sorted(len(held(leases)) for leases in all_of) == [5, 5, 6]
    assert set().union(*map(held, all_of)) == set(range(SHARDS))


@pytest.mark.parametrize("count", range(1, 9))
def test_shares_differ_by_one_at_most(count: int) -> None:
    counts = Counter(spread(SHARDS, [f"replica-{number}" for number in range(count)]).values())
    assert sum(counts.values()) == SHARDS and max(counts.values()) - min(counts.values()) <= 1


def test_nodes_are_spread_over_all_shards() -> None:
    counts = Counter(shard_of(f"node-{number}") for number in range(1600))
    assert set(counts) == set(range(SHARDS)) and min(counts.values()) > 60


def test_a_tenure_ends_well_before_the_lease_can_be_another_s() -> None:
    store, first, second = Memory(), Leases("a", TIMES), Leases("b", TIMES)
    for now in (0.0, 2.0):
        round_of(first, store, now)
    # The second has seen the last renewal as late as can be, and the first is silent from then on.
    begun, now = 2.0, 2.0
    while not held(second):
        now += 0.25
        first.expire(now)
        if held(first):
            assert now < begun + TIMES.deadline
        round_of(second, store, now)
    assert begun + TIMES.duration <= now <= begun + TIMES.duration + 0.5
    assert not held(first)


def test_each_holder_has_a_higher_epoch_than_the_one_before() -> None:
    store, epochs = Memory(), []
    for number in range(4):
        leases = Leases(f"r{number}", TIMES)
        for step in range(12):
            round_of(leases, store, number * 100 + step * 2.0)
        tenure = leases.tenure(3)
        assert tenure is not None
        epochs.append(tenure.epoch)
    assert epochs == [1, 2, 3, 4]


def test_one_that_is_started_anew_takes_its_own_leases_at_once_with_a_new_epoch() -> None:
    store = Memory()
    for now in (0.0, 2.0):
        round_of(Leases("a", TIMES) if not now else (first := Leases("a", TIMES)), store, now)
    round_of(first, store, 4.0)
    assert held(first) == set(range(SHARDS))
    again = Leases("a", TIMES)
    assert round_of(again, store, 5.0) == [Deed.TAKE] * SHARDS
    assert again.tenure(0).epoch == first.tenure(0).epoch + 1  # type: ignore[union-attr]
    # The former process hears of it from the store.
    first.read(dict(store.found), 5.0)
    assert not held(first)


def test_one_that_joins_is_given_its_share_once_it_has_followed_for_a_while() -> None:
    store, first = Memory(), Leases("a", TIMES)
    for now in (0.0, 2.0):
        round_of(first, store, now)
    second, now, given_up = Leases("b", TIMES), 4.0, 0.0
    while not given_up:
        now += 1.0
        round_of(second, store, now)
        given_up = now if Deed.GIVE_UP in round_of(first, store, now) else 0.0
        assert now < 60
    assert given_up >= 4.0 + TIMES.join
    round_of(second, store, now + 0.5)
    assert len(held(first)) == len(held(second)) == SHARDS // 2
    assert not held(first) & held(second)


def test_a_lease_that_was_lost_from_the_store_is_given_up_and_its_epoch_catches_up_with_the_switch() -> None:
    store, leases = Memory(), Leases("a", TIMES)
    for now in (0.0, 2.0):
        round_of(leases, store, now)
    store.found.clear()
    leases.read(dict(store.found), 4.0)
    assert not held(leases)
    for now in (6.0, 8.0, 10.0):
        round_of(leases, store, now)
    assert held(leases)
    leases.outranked(5, 40)
    assert 5 not in held(leases) and leases.next_look(10.0) < 12.0
    round_of(leases, store, 10.2)
    tenure = leases.tenure(5)
    assert tenure is not None and tenure.epoch == 41


def test_one_that_leaves_lets_others_go_on_at_once() -> None:
    store, first, second = Memory(), Leases("a", TIMES), Leases("b", TIMES)
    for now in (0.0, 2.0):
        round_of(first, store, now)
        round_of(second, store, now)
    for write in first.leave():
        if write.deed is Deed.CLEAR:
            store.remove(write.name, write.version or "")
        else:
            store.put(write.name, write.record, write.version)
    assert not held(first)
    round_of(second, store, 2.5)
    assert held(second) == set(range(SHARDS))


def test_a_renewal_whose_answer_was_lost_is_no_reason_to_stop() -> None:
    store, leases = Memory(), Leases("a", TIMES)
    for now in (0.0, 2.0):
        round_of(leases, store, now)
    leases.read(dict(store.found), 4.0)
    for write in leases.plan(4.0, 0.0):
        store.put(write.name, write.record, write.version)
    round_of(leases, store, 6.0)
    assert held(leases) == set(range(SHARDS)) and leases.tenure(0).until == 16.0  # type: ignore[union-attr]


def test_what_a_replica_that_is_gone_has_left_is_cleared_away() -> None:
    store, first, second = Memory(), Leases("a", TIMES), Leases("b", TIMES)
    round_of(first, store, 0.0)
    for step in range(400):
        round_of(second, store, step * 2.0)
    assert [name for name in store.found if "replica" in name] == ["signalbox-replica-b"]


@pytest.mark.parametrize("wrong", [(15, 15, 2), (10, 15, 2), (15, 10, 6), (15, 10, 0)])
def test_durations_that_leave_no_room_are_refused(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(TimesError, match="--lease-duration"):
        Times(*wrong)


# Stores ---------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def kubernetes(server: ApiServer, directory: Path) -> AsyncIterator[KubernetesLeases]:
    """A store in an API server."""
    (directory / "kubeconfig").write_text(server.kubeconfig())
    client = Client(directory / "kubeconfig")
    await client.connect()
    yield KubernetesLeases(client, "signalbox", (TransportError,))
    await client.close()


@pytest.fixture(params=["directory", "kubernetes"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LeaseStore]:
    if request.param == "directory":
        yield LeaseDirectory(tmp_path)
        return
    async with serving() as server, kubernetes(server, tmp_path) as leases:
        yield leases


RECORD = Record("a", 3, 1.75e9, 1.75e9 + 0.25, 15.0, ready=True, lost=("n1", "n2"))


async def test_a_store_gives_back_what_it_was_given(store: LeaseStore) -> None:
    assert await store.read() == {}
    stored = await store.write("signalbox-shard-1", RECORD, None)
    assert stored.record == RECORD
    assert await store.read() == {"signalbox-shard-1": stored}
    free = await store.write("signalbox-shard-1", Record(duration=15.0, epoch=3), stored.version)
    assert free.version != stored.version and not free.record.holder
    await store.delete("signalbox-shard-1", free.version)
    assert await store.read() == {}


async def test_of_two_that_write_at_once_one_is_refused(store: LeaseStore) -> None:
    first = await store.write("signalbox-shard-1", RECORD, None)
    with pytest.raises(ConflictError):
        await store.write("signalbox-shard-1", RECORD, None)
    second = await store.write("signalbox-shard-1", RECORD, first.version)
    third = await store.write("signalbox-shard-1", RECORD, second.version)
    for stale in (first, second):
        with pytest.raises(ConflictError):
            await store.write("signalbox-shard-1", Record("b"), stale.version)
        with pytest.raises(ConflictError):
            await store.delete("signalbox-shard-1", stale.version)
    assert await store.read() == {"signalbox-shard-1": third}


async def test_of_many_that_write_at_once_each_time_one_comes_through(tmp_path: Path) -> None:
    stores = [LeaseDirectory(tmp_path) for _ in range(4)]
    won: list[str] = []

    async def contend(store: LeaseStore, name: str) -> None:
        while len(won) < 40:
            found: Mapping[str, Stored] = await store.read()
            version = found["x"].version if "x" in found else None
            try:
                won.append((await store.write("x", Record(name), version)).version)
            except ConflictError:
                await asyncio.sleep(0)

    await asyncio.gather(*(contend(store, str(number)) for number, store in enumerate(stores)))
    # No version was written twice. One may be missing: its writer was told that others had gone on since.
    assert len(won) == len(set(won)) and max(map(int, won)) < 2 * len(won)


async def test_a_store_that_doesn_t_answer_says_so(tmp_path: Path) -> None:
    async with serving() as server, kubernetes(server, tmp_path) as leases:
        await server.stop()
        with pytest.raises(LeaseError, match="leases: GET /apis/coordination"):
            await leases.read()
    directory = LeaseDirectory(tmp_path / "leases")
    (tmp_path / "leases").rmdir()
    with pytest.raises(LeaseError, match="No such file"):
        await directory.read()
    (tmp_path / "file").touch()
    with pytest.raises(LeaseError):
        LeaseDirectory(tmp_path / "file" / "leases")


async def test_kubernetes_shows_who_holds_a_lease(tmp_path: Path) -> None:
    async with serving() as server, kubernetes(server, tmp_path) as leases:
        await leases.write("signalbox-shard-1", RECORD, None)
    (lease,) = server.objects("Lease")
    assert server.requests[-1].body["kind"] == "Lease" and lease["metadata"]["labels"] == LABELS
    assert lease["spec"] == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "leaseTransitions": 3,
        "acquireTime": "2025-06-15T15:06:40.000000Z",
        "renewTime": "2025-06-15T15:06:40.250000Z",
    }


def test_two_controllers_of_one_machine_can_t_have_one_name(tmp_path: Path) -> None:
    directory = LeaseDirectory(tmp_path)
    with (
        directory.named("a"),
        pytest.raises(LeaseError, match="another controller is running as 'a'"),
        directory.named("a"),
    ):
        pass
    with directory.named("a"):
        assert time.monotonic() > 0
