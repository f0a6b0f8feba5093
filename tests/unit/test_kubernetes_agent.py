"""How an agent begins with what Kubernetes says, goes on without it, and ends when it says otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from node import agent, kubernetes_agent
from node.agent import AgentError
from node.facts import Kept, NodeFacts, label_of, targets
from node.kubernetes_node import Wanted
from node.settings import Settings

LABEL = "node-role.kubernetes.io/control-plane"
WANTED = Wanted("n1", None, (LABEL,), "signalbox-nodes")
FACTS = NodeFacts(
    (ip_network("10.244.1.0/24"),),
    (ip_address("192.0.2.11"),),
    ((LABEL, (ip_address("192.0.2.1"),)),),
    (b"k", b"a", b"c"),
)
MOVED = NodeFacts(FACTS.pod_cidrs, (ip_address("192.0.2.99"),), FACTS.labelled, FACTS.tls)
RENEWED = NodeFacts(FACTS.pod_cidrs, FACTS.addresses, FACTS.labelled, (b"k", b"a", b"renewed"))


class Kubernetes:
    """Says what it is told to, when it is; and an agent that notes how it was started."""

    def __init__(self) -> None:
        self.says: asyncio.Queue[NodeFacts] = asyncio.Queue()
        self.started: list[Settings] = []
        self.cleaned: list[Settings] = []
        self.waits_for = "Secret signalbox-nodes/signalbox-node-n1 has no tls.key"

    async def facts(self) -> AsyncIterator[NodeFacts]:
        while True:
            yield await self.says.get()

    async def run(self, settings: Settings, outdated: Coroutine[Any, Any, str]) -> None:
        self.started.append(settings)
        raise AgentError(await outdated)

    async def clean(self, settings: Settings) -> None:
        self.cleaned.append(settings)


@pytest.fixture
def kubernetes(monkeypatch: pytest.MonkeyPatch) -> Kubernetes:
    here = Kubernetes()
    monkeypatch.setattr(kubernetes_agent, "_PATIENCE", 0.05)
    monkeypatch.setattr(kubernetes_agent, "Follower", lambda _: here)
    monkeypatch.setattr(agent, "run", here.run)
    monkeypatch.setattr(agent, "clean", here.clean)
    return here


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "state")


def settings(facts: NodeFacts) -> Settings:
    return Settings(
        name="n1",
        pod_cidrs=facts.pod_cidrs,
        cluster_cidrs=(ip_network("10.244.0.0/16"),),
        node_ips=facts.addresses,
        controllers=targets((f"ssl:{LABEL}:6653",), facts),
    )


def run(kept: Kept, address: str = "") -> asyncio.Task[None]:
    return asyncio.create_task(kubernetes_agent.run(WANTED, kept, settings, address))


async def ends(task: asyncio.Task[None]) -> str:
    with pytest.raises(AgentError) as problem:
        await asyncio.wait_for(task, 60)
    return str(problem.value)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what the agent does has no event
            await asyncio.sleep(0.005)


async def until_started(kubernetes: Kubernetes) -> Settings:
    await until(lambda: bool(kubernetes.started))
    return kubernetes.started[0]


async def test_an_agent_starts_with_what_is_said_and_ends_when_it_is_other(kubernetes: Kubernetes, kept: Kept) -> None:
    task = run(kept)
    kubernetes.says.put_nowait(FACTS)
    assert (await until_started(kubernetes)).controllers == ("ssl:192.0.2.1:6653",)
    kubernetes.says.put_nowait(MOVED)
    assert await ends(task) == "Kubernetes says other pod CIDRs, addresses or controllers of n1 than before"
    # So that the next start knows it, also without the API server.
    assert kept.read(tls=True) == MOVED


async def test_a_renewed_certificate_is_put_where_it_is_looked_for_and_ends_nothing(
    kubernetes: Kubernetes, kept: Kept
) -> None:
    task = run(kept)
    kubernetes.says.put_nowait(FACTS)
    await until_started(kubernetes)
    assert (kept.tls.certificate.read_bytes(), kept.tls.key.read_bytes(), kept.tls.ca.read_bytes()) == (
        b"c",
        b"k",
        b"a",
    )
    kubernetes.says.put_nowait(RENEWED)
    await until(lambda: kept.tls.certificate.read_bytes() == b"renewed")
    assert not task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_without_an_api_server_what_an_earlier_start_was_told_is_used_and_the_rest_follows(
    kubernetes: Kubernetes, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.write(FACTS)
    task = run(kept)
    assert (await until_started(kubernetes)).node_ips == FACTS.addresses
    assert "going on with what was found out at an earlier start" in caplog.text
    kubernetes.says.put_nowait(FACTS)
    kubernetes.says.put_nowait(MOVED)
    assert "other pod CIDRs, addresses or controllers" in await ends(task)


async def test_one_that_waits_for_its_first_start_is_alive_and_says_for_what(
    kubernetes: Kubernetes, kept: Kept
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    task = run(kept, address)
    answers: list[tuple[int, str]] = []
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while not answers:
            with contextlib.suppress(aiohttp.ClientConnectorError):
                for path in ("healthz", "readyz"):
                    async with session.get(f"http://{address}/{path}") as response:
                        answers.append((response.status, (await response.text()).strip()))
            await asyncio.sleep(0.005)
    assert answers == [(200, "ok"), (503, kubernetes.waits_for)]
    assert not kubernetes.started and not task.done()
    kubernetes.says.put_nowait(FACTS)
    await until_started(kubernetes)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", int(address.rpartition(":")[2])))
    kubernetes.says.put_nowait(MOVED)
    await ends(task)


async def test_a_node_is_cleaned_by_what_is_kept_of_it_and_that_goes_too(kubernetes: Kubernetes, kept: Kept) -> None:
    kept.write(FACTS)
    await kubernetes_agent.clean(WANTED, kept, settings)
    assert kubernetes.cleaned == [settings(FACTS)]
    assert kept.read(tls=False) is None and not kept.tls.key.exists()
    # Once more, as a pod that is started anew does it.
    kubernetes.says.put_nowait(FACTS)
    await kubernetes_agent.clean(WANTED, kept, settings)
    assert kubernetes.cleaned == [settings(FACTS)] * 2


# What is kept ---------------------------------------------------------------------------------------------------------


def test_facts_are_kept_as_they_are_and_the_key_is_nobody_else_s(kept: Kept, tmp_path: Path) -> None:
    assert kept.read(tls=False) is None
    kept.write(FACTS)
    assert kept.read(tls=True) == FACTS
    assert kept.tls.key.stat().st_mode & 0o777 == 0o600 and kept.tls.key.parent.stat().st_mode & 0o777 == 0o700
    # What is as it was is not written again: who watches it sees nothing.
    before = [path.stat().st_ino for path in sorted(tmp_path.rglob("*"))]
    kept.write(FACTS)
    assert [path.stat().st_ino for path in sorted(tmp_path.rglob("*"))] == before
    kept.write(RENEWED)
    assert kept.read(tls=True) == RENEWED


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"podCidrs":["x"],"addresses":[],"labelled":{}}'])
def test_a_file_that_can_t_be_read_is_none(kept: Kept, tmp_path: Path, text: str) -> None:
    kept.write(FACTS)
    (tmp_path / "state/node.json").write_text(text)
    assert kept.read(tls=False) is None


def test_what_was_kept_without_the_certificate_that_is_asked_for_is_none(kept: Kept) -> None:
    kept.write(NodeFacts(FACTS.pod_cidrs, FACTS.addresses))
    assert kept.read(tls=False) is not None and kept.read(tls=True) is None


async def test_a_directory_that_can_t_be_written_to_ends_the_agent_with_a_word(
    kubernetes: Kubernetes, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("no directory")
    task = run(Kept(tmp_path / "state"))
    kubernetes.says.put_nowait(FACTS)
    assert "--state-dir: " in await ends(task)


# Controllers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "label"),
    [
        ("ssl:node-role.kubernetes.io/control-plane:6653", LABEL),
        ("tcp:controllers:6653", "controllers"),
        ("ssl:192.0.2.1:6653", ""),
        ("ssl:[2001:db8::1]:6653", ""),
        ("unix:/run/a/b:c", ""),
    ],
)
def test_a_target_has_a_label_where_it_has_no_address(target: str, label: str) -> None:
    assert label_of(target) == label


def test_a_label_in_a_target_is_the_addresses_of_its_nodes() -> None:
    facts = NodeFacts((), (), (("a/b", (ip_address("192.0.2.1"), ip_address("2001:db8::1"))),))
    given = ("unix:/run/x", "ssl:a/b:7000", "ssl:192.0.2.1:7000", "ssl:other:1")
    assert targets(given, facts) == (
        "unix:/run/x", "ssl:192.0.2.1:7000", "ssl:[2001:db8::1]:7000", "ssl:other:1",
    )  # fmt: skip
