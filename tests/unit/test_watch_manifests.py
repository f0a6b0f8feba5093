"""A directory of manifests, watched."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology import manifest_source
from topology.manifest_source import ManifestSource, Settling, Signature, UnreadableError, edition, load, read, scan
from topology.manifest_state import ManifestState, Snapshot
from topology.manifests import Problem

#: Nothing here waits as long as this, unless something is broken.
LIMIT = 60.0


def namespace(name: str) -> str:
    return f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n---\n"


def namespaces(snapshot: Snapshot) -> set[str]:
    return {key[2] for key in snapshot.objects} - {"default"}


def signature(version: int) -> Signature:
    return Signature(1, 2, version, version)


async def until(snapshots: AsyncIterator[Snapshot], names: set[str], problems: int = 0) -> Snapshot:
    async with asyncio.timeout(LIMIT):
        async for snapshot in snapshots:
            if namespaces(snapshot) == names and len(snapshot.problems) == problems:
                return snapshot
    raise AssertionError("watching never ends")


#: Seconds between two looks: more than a tick of any file system's clock, by which a file is another than before.
INTERVAL = 0.02


def watch(directory: Path) -> AsyncIterator[Snapshot]:
    return ManifestSource(directory, interval=INTERVAL).watch()


def test_a_file_is_settled_when_two_scans_find_it_alike_and_only_until_it_is_taken() -> None:
    settling = Settling()
    assert settling.settled({"a": signature(1)}) == set()
    assert settling.settled({"a": signature(2)}) == set()
    assert settling.settled({"a": signature(2)}) == {"a"}
    assert settling.pending
    settling.take("a", signature(2))
    assert not settling.pending
    assert settling.settled({"a": signature(2)}) == set()


def test_a_file_is_gone_when_two_scans_miss_it_so_that_replacing_it_loses_nothing() -> None:
    settling = Settling()
    settling.settled({"a": signature(1)})
    settling.take("a", signature(1))
    assert settling.settled({}) == set()
    assert settling.settled({"a": signature(2)}) == set()
    assert settling.settled({"a": signature(2)}) == {"a"}
    settling.take("a", signature(2))
    settling.settled({})
    assert settling.settled({}) == {"a"}
    settling.take("a", None)
    assert settling.settled({}) == set()


states = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2).map(signature))


@given(st.lists(states))
def test_whatever_happened_two_scans_alike_settle_everything(history: list[dict[str, Signature]]) -> None:
    settling, taken = Settling(), dict[str, Signature]()
    for found in [*history, *history[-1:]]:
        for name in settling.settled(found):
            settling.take(name, found.get(name))
            taken.pop(name, None)
            if name in found:
                taken[name] = found[name]
    assert taken == (history[-1] if history else {})
    assert not settling.pending


async def test_the_first_snapshot_has_every_file(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"{i}.yaml").write_text(namespace(f"n{i}"))
    async with asyncio.timeout(LIMIT):
        assert namespaces(await anext(watch(tmp_path))) == {f"n{i}" for i in range(20)}


async def test_an_empty_directory_is_a_snapshot_too(tmp_path: Path) -> None:
    async with asyncio.timeout(LIMIT):
        snapshot = await anext(watch(tmp_path))
    assert namespaces(snapshot) == set()
    assert snapshot.problems == ()


async def test_files_that_come_change_and_go_are_followed(tmp_path: Path) -> None:
    snapshots = watch(tmp_path)
    await until(snapshots, set())
    (tmp_path / "a.yaml").write_text(namespace("one"))
    await until(snapshots, {"one"})
    (tmp_path / "a.yaml").write_text(namespace("two"))
    (tmp_path / "b.yml").write_text(namespace("three"))
    await until(snapshots, {"two", "three"})
    (tmp_path / "a.yaml").unlink()
    await until(snapshots, {"three"})


async def test_work_that_a_change_makes_does_not_put_off_the_next_look_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, now, pauses = 0.1, 0.0, []
    update, pause = ManifestState.update, asyncio.sleep

    def slow(state: ManifestState, files: Mapping[str, bytes | Problem]) -> Snapshot:
        nonlocal now
        now += work
        return update(state, files)

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await pause(0)

    # By a clock of its own, on which nothing else takes any time.
    monkeypatch.setattr(manifest_source, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(ManifestState, "update", slow)
    snapshots = watch(tmp_path)
    await until(snapshots, set())
    monkeypatch.setattr(asyncio, "sleep", noted)
    (tmp_path / "a.yaml").write_text(namespace("one"))
    await until(snapshots, {"one"})
    # The first pause is that after the work for the first snapshot: it isn't forgotten, nor taken twenty times.
    assert pauses[0] == pytest.approx(work)


async def test_a_directory_that_is_slow_time_and_again_is_looked_at_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, pauses, seconds = 0.0, [], iter([3.0, 0.0, 2.0, 1.0, 4.0, 0.0, 0.0])

    def slow(directory: Path) -> tuple[dict[str, Signature], Problem | None]:
        nonlocal now
        now += next(seconds)
        return scan(directory)

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 6:
            raise RuntimeError("enough")

    monkeypatch.setattr(manifest_source, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(manifest_source, "scan", slow)
    monkeypatch.setattr(asyncio, "sleep", noted)
    with pytest.raises(RuntimeError, match="enough"):
        async for _ in watch(tmp_path):
            pass
    # Once is no reason: the machine may have stood still.
    assert pauses == [3.0, INTERVAL, 2.0, 20.0, 20.0, INTERVAL]


async def test_a_file_renamed_over_another_is_never_seen_missing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(namespace("n0"))
    snapshots = watch(tmp_path)
    await until(snapshots, {"n0"})
    for i in range(1, 6):
        (tmp_path / ".new").write_text(namespace(f"n{i}"))
        (tmp_path / ".new").rename(tmp_path / "a.yaml")
        async with asyncio.timeout(LIMIT):
            assert namespaces(await anext(snapshots)) == {f"n{i}"}


async def test_a_broken_file_is_told_and_keeps_its_objects_until_it_is_put_right(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(namespace("one"))
    snapshots = watch(tmp_path)
    await until(snapshots, {"one"})
    (tmp_path / "a.yaml").write_text("kind: [\n")
    broken = await until(snapshots, {"one"}, problems=1)
    assert str(broken.problems[0]).startswith(f"{tmp_path / 'a.yaml'}:2: the text is not YAML")
    (tmp_path / "a.yaml").write_text(namespace("two"))
    await until(snapshots, {"two"})


async def test_a_directory_that_goes_away_keeps_its_objects_and_is_followed_when_it_is_back(tmp_path: Path) -> None:
    directory = tmp_path / "manifests"
    directory.mkdir()
    (directory / "a.yaml").write_text(namespace("one"))
    snapshots = watch(directory)
    await until(snapshots, {"one"})
    directory.rename(tmp_path / "away")
    gone = await until(snapshots, {"one"}, problems=1)
    assert "can't be read: No such file or directory" in str(gone.problems[0])
    (tmp_path / "away").rename(directory)
    await until(snapshots, {"one"})


async def test_a_directory_that_was_never_there_is_an_error_and_not_an_empty_cluster(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="missing:1: can't be read: No such file"):
        await anext(watch(tmp_path / "missing"))


def test_only_manifest_files_of_the_directory_itself_count(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yml", "c.json", "d.txt", ".e.yaml", "f.yaml~"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "g.yaml").mkdir()
    (tmp_path / "h.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "i.yaml").symlink_to(tmp_path / "d.txt")
    os.mkfifo(tmp_path / "j.yaml")
    found, problem = scan(tmp_path)
    assert set(found) == {"a.yaml", "b.yml", "c.json", "i.yaml"}
    assert problem is None


def test_files_and_directories_are_loaded_together(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.yaml").write_text(namespace("one"))
    (tmp_path / "other.txt").write_text(namespace("two"))
    assert namespaces(load(tmp_path / "d", tmp_path / "other.txt")) == {"one", "two"}


def test_what_can_not_be_loaded_is_told(tmp_path: Path) -> None:
    (problem,) = load(tmp_path / "x.yaml").problems
    assert str(problem) == (
        f"{tmp_path / 'x.yaml'}:1: can't be read: No such file or directory; check that it is there and who may read it"
    )


def test_a_file_too_large_to_be_a_manifest_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with path.open("wb") as file:
        file.truncate(manifest_source.MAX_BYTES + 1)
    (text,) = read(path).values()
    assert text == Problem(str(path), 1, "", "the file has more than 32 MiB; split it")


async def test_whoever_wrote_a_file_learns_when_it_is_in_force(tmp_path: Path) -> None:
    source = ManifestSource(tmp_path, interval=INTERVAL)
    snapshots = source.watch()
    await until(snapshots, set())
    assert source.edition == edition(scan(tmp_path)[0])
    (tmp_path / "a.yaml").write_text(namespace("a"))
    assert source.edition != edition(scan(tmp_path)[0])
    await until(snapshots, {"a"})
    assert source.edition == edition(scan(tmp_path)[0])


async def test_a_snapshot_says_when_the_first_of_its_new_files_was_changed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(namespace("a"))
    source = ManifestSource(tmp_path, interval=INTERVAL)
    snapshots = source.watch()
    await until(snapshots, {"a"})
    # Of what was there at first nobody asks how long it took to be heard.
    assert source.changed is None
    before = time.time()
    (tmp_path / "b.yaml").write_text(namespace("b"))
    await until(snapshots, {"a", "b"})
    # File systems' clocks tick some hundred times a second.
    assert source.changed is not None and before - 0.1 <= source.changed <= time.time()
    (tmp_path / "b.yaml").unlink()
    await until(snapshots, {"a"})
    assert source.changed is None
