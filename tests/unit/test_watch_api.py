"""Lists that go on, over the admin API: what is written, to how many, and what ends it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from fake_switch import FakeSwitch, Wire
from test_api_remote import READER, TOKENS, Remote, remote  # noqa: F401 - a fixture
from test_channel import until
from test_sync import UPLINKS, node, pod, pod_port, snapshot, started

from controller.api import serve, server, watches
from controller.app import Controller
from controller.changes import LIMIT
from controller.console import proxy

Told = tuple[str, dict[str, Any]]


class Here:
    """A controller and its API."""

    def __init__(self, controller: Controller, session: aiohttp.ClientSession, socket: Path) -> None:
        self.controller = controller
        self.session = session
        self.socket = socket
        self.objects = {each.key: each for each in (node(1), node(2), pod("a", 1))}

    def put(self, *objects: Any) -> None:
        self.objects |= {each.key: each for each in objects}
        self.controller.take(snapshot(*self.objects.values()))

    @asynccontextmanager
    async def watch(self, path: str, base: str = "http://controller") -> AsyncIterator[AsyncIterator[Told]]:
        async with self.session.get(base + path) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"
            yield events(response)


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[Told]:
    """What is told, without comments."""
    event = ""
    async for line in response.content:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            event = value
        elif name == "data":
            yield event, json.loads(value)


async def take(told: AsyncIterator[Told], count: int) -> list[Told]:
    async with asyncio.timeout(60.0):
        return [await anext(told) for _ in range(count)]


def names(found: list[Told]) -> list[tuple[str, str]]:
    return [(event, row.get("name", "")) for event, row in found]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    controller = started(node(1), node(2), pod("a", 1))
    runner = await serve(controller, tmp_path / "api.sock")
    connector = aiohttp.UnixConnector(str(tmp_path / "api.sock"), limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Here(controller, session, tmp_path / "api.sock")
    await runner.cleanup()


async def test_rows_are_told_then_that_these_are_all_then_what_becomes_of_them(here: Here) -> None:
    async with here.watch("/v1/nodes?watch=1") as told:
        assert names(await take(told, 3)) == [("ADDED", "n1"), ("ADDED", "n2"), ("SYNC", "")]
        wire = Wire(here.controller, FakeSwitch(node(1).datapath_id, (*UPLINKS, pod_port("a", 1))))
        wire.pump()
        ((event, row),) = await take(told, 1)
        assert (event, row["name"], row["status"], row["pods"]) == ("MODIFIED", "n1", "Synced", 1)
        here.put(node(3))
        wire.pump()
        assert names(await take(told, 1)) == [("ADDED", "n3")]
        del here.objects[node(3).key]
        here.put()
        wire.pump()
        assert names(await take(told, 1)) == [("DELETED", "n3")]


async def test_only_what_is_chosen_is_told_and_what_is_chosen_no_more_is_deleted(here: Here) -> None:
    async with here.watch("/v1/pods?watch=1&fieldSelector=node%3Dn1&namespace=default") as told:
        assert names(await take(told, 2)) == [("ADDED", "a"), ("SYNC", "")]
        here.put(pod("b", 2), pod("c", 1))
        assert names(await take(told, 1)) == [("ADDED", "c")]
        here.put(pod("a", 2))
        ((event, row),) = await take(told, 1)
        assert (event, row["name"], row["node"]) == ("DELETED", "a", "n1")


async def test_events_are_told_as_they_happen_and_listed_the_newest_last(here: Here) -> None:
    async with here.watch("/v1/events?watch=1") as told:
        assert names(await take(told, 1)) == [("SYNC", "")]
        wire = Wire(here.controller, FakeSwitch(node(1).datapath_id, (*UPLINKS, pod_port("a", 1))))
        wire.pump()
        here.controller.look_at_phases()
        assert [row["reason"] for _, row in await take(told, 2)] == ["SwitchConnected", "InSync"]
        wire.cut()
        ((event, row),) = await take(told, 1)
        assert (event, row["type"], row["reason"], row["node"]) == ("ADDED", "Warning", "SwitchDisconnected", "n1")
    async with here.session.get("http://controller/v1/events?fieldSelector=type%3DNormal") as response:
        listed = (await response.json())["items"]
    assert [row["reason"] for row in listed] == ["SwitchConnected", "InSync"]


async def test_a_change_is_told_at_once_and_the_next_half_a_second_later(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By a clock that the test sets: who waited for anything would wait for ever.
    now = 100.0
    monkeypatch.setattr(watches, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(watches, "GONE_INTERVAL", 3600.0)
    async with here.watch("/v1/pods?watch=1") as told:
        await take(told, 2)
        now += watches.LOOK_INTERVAL
        here.put(pod("b", 2))
        assert names(await take(told, 1)) == [("ADDED", "b")]
        now += watches.LOOK_INTERVAL - 0.1
        here.put(pod("c", 2))
        next_one = asyncio.create_task(take(told, 1))
        await asyncio.sleep(0.2)
        assert not next_one.done()
        now += 0.2
        assert names(await next_one) == [("ADDED", "c")]


async def test_so_many_watch_and_the_next_is_told_that_there_is_no_room(here: Here) -> None:
    responses = [await here.session.get("http://controller/v1/nodes?watch=1") for _ in range(LIMIT)]
    async with here.session.get("http://controller/v1/nodes?watch=1") as response:
        assert response.status == 429 and "no more are served" in (await response.json())["error"]
    async with here.session.get("http://controller/v1/nodes") as response:
        assert response.status == 200
    for response in responses:
        response.close()

    # Who has gone leaves the room to others, without anything being written.
    status = 429
    async with asyncio.timeout(60):
        while status == 429:
            async with here.session.get("http://controller/v1/nodes?watch=1") as response:
                status = response.status


async def test_who_has_nothing_to_be_told_is_sent_comments(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "COMMENT_INTERVAL", 0.05)
    monkeypatch.setattr(watches, "GONE_INTERVAL", 0.05)
    async with here.session.get("http://controller/v1/links?watch=1") as response, asyncio.timeout(60.0):
        async for line in response.content:
            if line == b":\n":
                break


async def test_who_does_not_read_is_let_go_of(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "WRITE_LIMIT", 0.2)
    here.put(*(node(number) for number in range(3, 250)))
    _, writer = await asyncio.open_unix_connection(str(here.socket), limit=1)
    writer.write(b"GET /v1/nodes?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: here.controller.changes.is_watched, "it watches")

    async def is_let_go() -> None:
        number = 0
        while here.controller.changes.is_watched:
            number += 1
            here.controller.changes.touch_all("nodes")
            labels = (("turn", str(number) * 1000),)
            here.put(*(type(each)(**{**_fields(each), "labels": labels}) for each in map(node, range(1, 250))))
            await asyncio.sleep(0.05)

    await asyncio.wait_for(is_let_go(), 60.0)
    writer.close()


def _fields(each: Any) -> dict[str, Any]:
    return {name: getattr(each, name) for name in each.__struct_fields__}


async def test_the_end_of_the_controller_waits_for_nobody_who_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who had to be waited for would be for so long.
    monkeypatch.setattr(server, "SHUTDOWN_LIMIT", 60.0)
    runner = await serve(started(node(1)), tmp_path / "api.sock")
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "api.sock"))) as session,
        session.get("http://controller/v1/nodes?watch=1") as response,
    ):
        assert await response.content.readline() == b"event: ADDED\n"
        await asyncio.wait_for(runner.cleanup(), 20.0)
        assert (await response.content.read()).endswith(b"event: SYNC\ndata: {}\n\n")


async def test_a_watch_passes_through_the_console_s_proxy(here: Here) -> None:
    async with (
        proxy.serve(here.socket, "127.0.0.1", 0, "secret") as url,
        aiohttp.ClientSession() as session,
        session.get(url.replace("/console/", "/v1/nodes?watch=1")) as response,
    ):
        assert response.content_type == "text/event-stream"
        told = events(response)
        await take(told, 3)
        here.put(node(3))
        assert names(await take(told, 1)) == [("ADDED", "n3")]


async def test_who_may_no_longer_ask_watches_no_longer(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(watches, "ALLOWED_INTERVAL", 0.0)
    monkeypatch.setattr(watches, "GONE_INTERVAL", 0.05)
    context = ssl.create_default_context(cafile=remote.pki / "ca.crt")
    headers = {"Authorization": f"Bearer {READER}"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{remote.url}/v1/nodes?watch=1", ssl=context, headers=headers) as response,
    ):
        told = events(response)
        await take(told, 2)
        remote.controller.change([node(2)], (), ())
        assert names(await take(told, 1)) == [("ADDED", "n2")]
        remote.file.write_text(TOKENS.replace(READER, "another-token-of-bob"))
        remote.access.refresh()
        with pytest.raises(StopAsyncIteration):
            await take(told, 1)


@pytest.mark.parametrize("query", ["limit=1", "counters=1", "continue=x"])
async def test_what_does_not_go_with_a_watch_is_refused(here: Here, query: str) -> None:
    async with here.session.get(f"http://controller/v1/services?watch=1&{query}") as response:
        assert response.status == 400


async def test_what_can_t_be_watched_says_so(here: Here) -> None:
    async with here.session.get("http://controller/v1/identities?watch=1") as response:
        assert response.status == 400 and "no parameter 'watch'" in (await response.json())["error"]
