"""The sockets: a peer that speaks rubbish, or says nothing, or doesn't read, costs nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from fake_switch import FakeSwitch
from test_sync import UPLINKS, assert_in_sync, node, snapshot, started

from controller import channel as channels
from controller import questions
from controller import session as sessions
from controller.app import Controller
from controller.channel import Channel, TargetError
from controller.sync import Phase

MANY = 60


async def until(condition: Callable[[], bool], what: str, limit: float = 60.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {limit:g} s"
        await asyncio.sleep(0.005)


class Served:
    """A controller that listens on a Unix socket."""

    def __init__(self, directory: Path) -> None:
        self.controller: Controller = started(*map(node, range(1, 4)))
        self.channel = Channel(self.controller.fleet, time.monotonic)
        self.path = directory / "of.sock"

    def phase(self, name: str) -> Phase | None:
        return self.controller.fleet.phase(name)


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(channels, "TICK", 0.02)
    # However long the machine takes, nobody is given up for it but where a test says so.
    monkeypatch.setattr(sessions, "HANDSHAKE_LIMIT", 3600.0)
    monkeypatch.setattr(sessions, "GIVE_UP_AFTER", 3600.0)
    here = Served(tmp_path)
    await here.channel.listen(f"unix:{here.path}")
    yield here
    await here.channel.close()


async def play(path: Path, switch: FakeSwitch, running: asyncio.Event | None = None) -> None:
    """Be a switch until the controller hangs up; while `running` is there but not set, don't read."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 12)
    switch.reset()
    writer.write(switch.hello())
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(switch.receive(data))
            if running is not None:
                await running.wait()
    writer.close()


def set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def switch_of(number: int) -> FakeSwitch:
    return FakeSwitch(node(number).datapath_id, UPLINKS)


async def test_switches_come_into_sync_over_a_real_socket(served: Served) -> None:
    switches = {f"n{number}": switch_of(number) for number in (1, 2, 3)}
    players = [asyncio.create_task(play(served.path, switch)) for switch in switches.values()]
    for name, switch in switches.items():
        await until(lambda name=name: served.phase(name) is Phase.SYNCED, f"{name} is in sync")  # type: ignore[misc]
        assert_in_sync(served.controller, name, switch)
    await served.channel.close()
    await asyncio.wait_for(asyncio.gather(*players), 60)
    assert not served.path.exists()


@pytest.mark.parametrize("rubbish", [b"GET / HTTP/1.0\r\n\r\n", b"\x06\x00\x00\x02aaaa", bytes(4096)])
async def test_rubbish_ends_its_own_connection_and_no_other(served: Served, rubbish: bytes) -> None:
    switch = switch_of(1)
    player = asyncio.create_task(play(served.path, switch))
    await until(lambda: served.phase("n1") is Phase.SYNCED, "n1 is in sync")
    reader, writer = await asyncio.open_unix_connection(str(served.path))
    writer.write(rubbish)
    # It may get an error and a hello; then the end.
    await asyncio.wait_for(reader.read(), 60)
    writer.close()
    served.controller.take(snapshot(*map(node, range(1, 6))))
    await until(lambda: served.phase("n1") is Phase.SYNCED, "n1 is in sync again")
    assert_in_sync(served.controller, "n1", switch)
    assert not player.done()
    player.cancel()


async def test_a_peer_that_says_nothing_is_hung_up_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "HANDSHAKE_LIMIT", 0.05)
    reader, writer = await asyncio.open_unix_connection(str(served.path))
    await asyncio.wait_for(reader.read(), 60)
    writer.close()


async def test_a_switch_that_doesn_t_read_delays_nobody_and_is_owed_little(served: Served) -> None:
    good, slow, running = switch_of(1), switch_of(2), set_event()
    players = [asyncio.create_task(play(served.path, good))]
    players.append(asyncio.create_task(play(served.path, slow, running)))
    for name in ("n1", "n2"):
        await until(lambda name=name: served.phase(name) is Phase.SYNCED, f"{name} is in sync")  # type: ignore[misc]
    running.clear()
    # Far more than a socket holds, in many changes.
    for count in range(4, 4 + MANY):
        served.controller.take(snapshot(*map(node, range(1, count))))
        await until(lambda: served.phase("n1") is Phase.SYNCED, "the other one is in sync at once")
    waiting = sum(len(each._queue) for each in served.channel.connections)
    assert served.phase("n2") is Phase.SYNCING
    # One bundle in flight; what came after it is in the log, which all share.
    assert waiting <= 10
    assert served.controller.fleet.syncs["n2"].counters.bundles <= 3
    running.set()
    await until(lambda: served.phase("n2") is Phase.SYNCED, "the slow one has caught up")
    assert_in_sync(served.controller, "n2", slow)
    for player in players:
        player.cancel()


async def test_a_switch_that_would_be_owed_too_much_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "QUEUE_LIMIT", 5)
    running = set_event()
    player = asyncio.create_task(play(served.path, switch_of(2), running))
    await until(lambda: served.phase("n2") is Phase.SYNCED, "n2 is in sync")
    running.clear()
    sync = served.controller.fleet.syncs["n2"]

    def ask_on_and_on() -> bool:
        for _ in range(1000):
            questions.dump(sync, lambda found: None)
        return served.phase("n2") is None

    await until(ask_on_and_on, "it is cut off")
    running.set()
    await asyncio.wait_for(player, 60)


@pytest.mark.parametrize("target", ["tcp:127.0.0.1", "udp:127.0.0.1:6653", "unix:", "6653", "tcp:127.0.0.1:port"])
async def test_a_target_that_can_t_be_is_refused_by_name(served: Served, target: str) -> None:
    with pytest.raises(TargetError, match=f"--listen {target}: "):
        await served.channel.listen(target)


async def test_a_socket_in_use_is_not_taken_away_and_a_dead_one_is(served: Served, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="another process"):
        await served.channel.listen(f"unix:{served.path}")
    dead = tmp_path / "dead.sock"
    (await asyncio.start_unix_server(lambda reader, writer: None, str(dead))).close()
    if not dead.exists():
        os.mknod(dead, 0o140600)
    await served.channel.listen(f"unix:{dead}")
    assert dead.stat().st_mode & 0o777 == 0o600


async def test_tcp_is_listened_on_for_both_families(served: Served) -> None:
    for host in ("127.0.0.1", "[::1]"):
        await served.channel.listen(f"tcp:{host}:0")
        address = served.channel._servers[-1].sockets[0].getsockname()
        _, writer = await asyncio.open_connection(address[0], address[1])
        writer.close()
