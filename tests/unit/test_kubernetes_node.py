"""An agent's own Node object: read when there is something to read, watched, and asked for again whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from node import kubernetes_node
from node.kubernetes_node import NodeFacts, follow

CIDRS = ["10.244.1.0/24", "fd00:10:244:1::/64"]


def node(cidrs: list[str], *addresses: str) -> dict[str, Any]:
    listed = [{"type": "InternalIP", "address": each} for each in addresses]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "node-1", "resourceVersion": "7"},
        "spec": {"podCIDRs": cidrs, "podCIDR": cidrs[0]} if cidrs else {},
        "status": {"addresses": [*listed, {"type": "Hostname", "address": "node-1"}]},
    }


class ApiServer:
    """Answers watches of Nodes: each connection is told what `say` is given while it lasts."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.watches: list[asyncio.Queue[dict[str, Any] | None]] = []
        self.refusal = 0
        self.before: list[dict[str, Any]] = []

    async def nodes(self, request: web.Request) -> web.StreamResponse:
        self.asked.append({**request.query, "authorization": request.headers.get("Authorization", "")})
        if self.refusal:
            return web.json_response({"kind": "Status", "message": "nodes is forbidden"}, status=self.refusal)
        response = web.StreamResponse()
        await response.prepare(request)
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        for each in self.before:
            events.put_nowait(each)
        self.watches.append(events)
        # The one who asked may have gone meanwhile.
        with contextlib.suppress(ConnectionError):
            while (event := await events.get()) is not None:
                await response.write(json.dumps(event).encode() + b"\n")
        return response

    def is_now(self, kind: str, thing: dict[str, Any]) -> None:
        event = {"type": kind, "object": thing}
        self.before = [{"type": "ADDED", "object": thing}] if kind in ("ADDED", "MODIFIED") else []
        for each in self.watches:
            each.put_nowait(event)

    def hang_up(self) -> None:
        for each in self.watches:
            each.put_nowait(None)
        self.watches.clear()


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[ApiServer, Path]]:
    monkeypatch.setattr(kubernetes_node, "_RETRY", 0.02)
    here = ApiServer()
    application = web.Application()
    application.router.add_get("/api/v1/nodes", here.nodes)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {"token": "secret"}}],
            }
        )
    )
    yield here, kubeconfig
    here.hang_up()
    await runner.cleanup()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what others do has no event
            await asyncio.sleep(0.01)


async def soon(facts: AsyncIterator[NodeFacts]) -> NodeFacts:
    return await asyncio.wait_for(anext(facts), 5)


async def test_the_facts_are_the_node_s_pod_cidrs_and_internal_addresses(server: tuple[ApiServer, Path]) -> None:
    api, kubeconfig = server
    api.is_now("ADDED", node(CIDRS, "192.0.2.1", "2001:db8::1"))
    told = await soon(follow("node-1", kubeconfig))
    assert told.pod_cidrs == tuple(map(ip_network, CIDRS))
    assert told.addresses == (ip_address("192.0.2.1"), ip_address("2001:db8::1"))
    (asked,) = api.asked
    assert asked["fieldSelector"] == "metadata.name=node-1" and asked["watch"] == "true"
    assert asked["authorization"] == "Bearer secret"


async def test_a_node_without_cidrs_is_waited_for(
    server: tuple[ApiServer, Path], caplog: pytest.LogCaptureFixture
) -> None:
    api, kubeconfig = server
    api.is_now("ADDED", node([], "192.0.2.1"))
    waiting = asyncio.ensure_future(soon(follow("node-1", kubeconfig)))
    await until(lambda: bool(caplog.records))
    assert "no spec.podCIDRs" in caplog.text
    api.is_now("MODIFIED", node(CIDRS[:1], "192.0.2.1"))
    assert (await waiting).pod_cidrs == (ip_network(CIDRS[0]),)
    assert len(caplog.records) == 1, "it is said once"


async def test_only_changes_that_concern_the_agent_are_told(server: tuple[ApiServer, Path]) -> None:
    api, kubeconfig = server
    first = node(CIDRS, "192.0.2.1")
    api.is_now("ADDED", first)
    facts = follow("node-1", kubeconfig)
    await soon(facts)
    changed = asyncio.ensure_future(soon(facts))
    api.is_now("MODIFIED", {**first, "metadata": {"name": "node-1", "labels": {"a": "b"}}})
    api.is_now("DELETED", first)
    api.is_now("ADDED", first)
    api.hang_up()
    await until(lambda: len(api.asked) >= 2)
    assert not changed.done()
    api.is_now("MODIFIED", node(CIDRS, "192.0.2.2"))
    assert (await changed).addresses == (ip_address("192.0.2.2"),)


@pytest.mark.parametrize("refusal", [401, 403, 500])
async def test_a_server_that_refuses_is_asked_again(
    server: tuple[ApiServer, Path], caplog: pytest.LogCaptureFixture, refusal: int
) -> None:
    api, kubeconfig = server
    api.refusal = refusal
    waiting = asyncio.ensure_future(soon(follow("node-1", kubeconfig)))
    await until(lambda: len(api.asked) >= 3)
    assert f"answers {refusal}: nodes is forbidden" in caplog.text
    assert len(caplog.records) == 1
    api.refusal = 0
    api.is_now("ADDED", node(CIDRS, "192.0.2.1"))
    assert (await waiting).pod_cidrs


async def test_an_error_in_the_watch_begins_it_anew(server: tuple[ApiServer, Path]) -> None:
    api, kubeconfig = server
    waiting = asyncio.ensure_future(soon(follow("node-1", kubeconfig)))
    await until(lambda: bool(api.watches))
    api.is_now("ERROR", {"kind": "Status", "message": "too old", "code": 410})
    await until(lambda: len(api.asked) >= 2)
    api.is_now("ADDED", node(CIDRS, "192.0.2.1"))
    assert (await waiting).pod_cidrs


@pytest.mark.parametrize("text", ["", "[]", "a: b", "{", "clusters: 5"])
async def test_a_kubeconfig_that_is_none_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    waiting = asyncio.ensure_future(anext(follow("node-1", path)))
    await until(lambda: bool(caplog.records) or waiting.done())
    waiting.cancel()
    assert str(path) in caplog.text
