"""The host follows its switch: what is new is done once, and everything anew where it may be gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from node import host as host_module
from node.host import Host
from node.notes import Note, NotesError
from node.settings import Settings

ADDRESS = "198.51.100.7"


class Kernel:
    """What was asked of it; and the notes that the switch has, or that it doesn't answer."""

    def __init__(self) -> None:
        self.notes: list[Note] | None = []
        self.looks = 0
        self.done: list[tuple[str, Any]] = []

    async def read(self, *_: Any) -> list[Note]:
        self.looks += 1
        if self.notes is None:
            raise NotesError("no switch")
        return self.notes

    def note(self, name: str) -> Any:
        def called(*arguments: Any) -> Any:
            self.done.append((name, arguments))
            return set()

        return called


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    here = Kernel()
    monkeypatch.setattr(host_module, "_INTERVAL", 0.001)
    monkeypatch.setattr(host_module.notes, "read", here.read)
    monkeypatch.setattr(host_module.nftables, "apply", here.note("rules"))
    for name in ("route_loopback", "set_service_routes", "interface_of", "set_announced", "announce"):
        monkeypatch.setattr(host_module.netlink, name, here.note(name))
    yield here


async def looked(kernel: Kernel, times: int = 3) -> list[str]:
    """What has been done by the time that the notes have been read a few times more."""
    kernel.done.clear()
    wanted = kernel.looks + times
    async with asyncio.timeout(60):
        while True:
            await asyncio.sleep(0.001)
            if kernel.looks >= wanted:
                return [name for name, _ in kernel.done]


async def test_the_host_is_compared_at_first_and_again_when_the_switch_was_away(kernel: Kernel) -> None:
    settings = Settings(
        name="n",
        node_ips=(ip_address("192.0.2.1"),),
        pod_cidrs=(ip_network("10.244.1.0/24"),),
        cluster_cidrs=(ip_network("10.244.0.0/16"),),
        controllers=("tcp:192.0.2.2:6653",),
        tables=((71, "Host"),),
    )
    here = Host(settings)
    here.begin()
    following = asyncio.create_task(here.follow())
    everything = ["rules", "route_loopback", "set_service_routes", "interface_of", "set_announced", "announce"]
    assert await looked(kernel) == everything
    assert await looked(kernel) == []
    kernel.notes = [{"kind": "announce", "address": ADDRESS}]
    assert await looked(kernel) == ["interface_of", "set_announced", "announce"]
    there = {"kind": "port", "protocol": "TCP", "port": 80, "address": "127.0.0.1", "to": "10.244.1.2", "toPort": 8080}
    kernel.notes.append(there)
    assert await looked(kernel) == ["rules", "route_loopback"]
    kernel.notes = [there]
    assert await looked(kernel) == ["interface_of", "set_announced", "announce"]
    kernel.notes = [{"kind": "announce", "address": ADDRESS}]
    assert await looked(kernel) == ["rules", "route_loopback", "interface_of", "set_announced", "announce"]
    kernel.notes = None
    assert await looked(kernel) == []
    kernel.notes = [{"kind": "announce", "address": ADDRESS}]
    assert await looked(kernel) == everything
    here.forget()
    assert await looked(kernel) == everything
    assert await looked(kernel) == []
    following.cancel()
