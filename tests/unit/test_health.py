"""What the kubelet hears of controller and agent."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controller import health as controller_health
from controller.channel import TargetError
from controller.manifest_feed import ManifestFeed
from controller.process import Options, allow_connections, run
from node import health as node_health
from node.settings import SettingsError
from topology.services import ServiceRanges

Serve = Callable[[str, Callable[[], str]], Awaitable[Any]]
both = pytest.mark.parametrize("serve", [controller_health.serve, node_health.serve], ids=["controller", "node"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def close(server: Any) -> None:
    if isinstance(server, asyncio.Server):
        server.close()
    else:
        await server.cleanup()


@both
async def test_who_isn_t_ready_says_why_and_is_alive_all_the_same(serve: Serve) -> None:
    port, reasons = free_port(), ["the switch sleeps"]
    server = await serve(f"127.0.0.1:{port}", lambda: reasons[0])
    assert await get(port, "/healthz") == (200, "ok\n")
    assert await get(port, "/readyz") == (503, "the switch sleeps\n")
    reasons[0] = ""
    assert await get(port, "/readyz?verbose") == (200, "ok\n")
    assert (await get(port, "/metrics"))[0] == 404
    await close(server)


@both
async def test_a_place_that_can_t_be_listened_on_is_named_with_its_option(serve: Serve) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for address in (f"127.0.0.1:{taken.getsockname()[1]}", "127.0.0.1:http"):
            with pytest.raises((TargetError, SettingsError), match=f"--health {address}: .*; give an address"):
                await serve(address, str)


async def test_a_peer_that_says_nothing_doesn_t_keep_others_from_asking_the_agent() -> None:
    port = free_port()
    server = await node_health.serve(f"127.0.0.1:{port}", str)
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
    assert await get(port, "/healthz") == (200, "ok\n")
    for _, writer in silent:
        writer.close()
    await close(server)


def test_a_controller_may_have_more_switches_than_a_shell_s_limit_of_open_files() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[1]), before[1]))
    try:
        allow_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_controller_is_ready_when_it_has_read_its_state_and_listens(tmp_path: Path) -> None:
    port = free_port()
    options = Options(
        listen=[f"unix:{tmp_path}/of"],
        socket_path=tmp_path / "api",
        audit_interval=60.0,
        health_address=f"127.0.0.1:{port}",
    )
    task = asyncio.create_task(run(ManifestFeed(tmp_path, ServiceRanges(), keyed=True), options))
    statuses = []
    async with asyncio.timeout(60):
        while statuses[-1:] != [200]:
            assert not task.done() or task.result()
            with contextlib.suppress(aiohttp.ClientConnectorError):
                statuses.append((await get(port, "/readyz"))[0])
            await asyncio.sleep(0)
    assert (tmp_path / "of").is_socket() and (tmp_path / "api").is_socket()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
