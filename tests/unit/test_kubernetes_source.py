"""The API server over real HTTP: whatever happens to it, the model ends as it is, and outages take nothing away."""

from __future__ import annotations

import asyncio
import random
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from api_server import ApiServer, serving
from kubernetes_objects import cluster_policy, endpoint_slice, namespace, network_policy, node, pod, service

from topology.kubernetes import client as clients
from topology.kubernetes import follower as followers
from topology.kubernetes import reflector as reflectors
from topology.kubernetes.client import Client, KubeconfigError
from topology.kubernetes.source import KubernetesSource
from topology.kubernetes.state import Batch
from topology.model import Key, Object


async def until(condition: Callable[[], bool], what: str, limit: float = 60.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {limit:g} s"
        await asyncio.sleep(0.005)


class Follower:
    """A source, and the model that its batches come to."""

    def __init__(self, client: Client) -> None:
        self.source = KubernetesSource(client, chance=random.Random(1).random)
        self.model: dict[Key, Object] = {}
        self.batches: list[Batch] = []
        self._client = client
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for batch in self.source.watch():
            self.batches.append(batch)
            for key in batch.gone:
                self.model.pop(key, None)
            self.model |= {each.key: each for each in batch.changed}

    @property
    def gone(self) -> list[Key]:
        return [key for batch in self.batches for key in batch.gone]

    def names(self, kind: str) -> set[str]:
        return {key[2] for key in self.model if key[0] == kind}

    async def close(self) -> None:
        assert not self._task.done(), self._task.exception()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._client.close()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """All pauses are short."""
    monkeypatch.setattr(reflectors, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(reflectors, "LONGEST_DELAY", 0.1)
    monkeypatch.setattr(reflectors, "PROBE_INTERVAL", 0.1)
    monkeypatch.setattr(reflectors, "PAGE", 3)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is given up soon: for tests of that alone, since a machine may stand still for as long."""
    monkeypatch.setattr(followers, "IDLE_SECONDS", 0.5)
    monkeypatch.setattr(clients, "SILENCE", 0.5)


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with serving(random.Random(7)) as here:
        here.put(namespace("default"), node("n1", 1), node("n2", 2))
        here.put(*(pod("default", f"p{i}", "n1", [f"10.244.1.{i + 2}"]) for i in range(10)))
        here.put(service("default", "s", "10.96.0.1"), endpoint_slice("default", "s-1", "s", "10.244.1.2"))
        here.put(network_policy("default", "closed"))
        yield here


async def connected(server: ApiServer, tmp_path: Path) -> Client:
    path = tmp_path / "kubeconfig"
    path.write_text(server.kubeconfig())
    client = Client(path, "here")
    await client.connect()
    return client


@pytest.fixture
async def follower(server: ApiServer, tmp_path: Path) -> AsyncIterator[Follower]:
    here = Follower(await connected(server, tmp_path))
    await until(lambda: bool(here.batches), "the first batch")
    yield here
    await here.close()


async def test_everything_is_there_at_once_and_changes_follow(server: ApiServer, follower: Follower) -> None:
    assert len(follower.batches[0].changed) == 1 + 2 + 10 + 1 + 1 + 1
    server.put(pod("default", "new", "n2", ["10.244.2.2"]))
    server.remove("Pod", "default", "p3")
    await until(lambda: "new" in follower.names("Pod") and "p3" not in follower.names("Pod"), "a change")
    assert follower.gone == [("Pod", "default", "p3")]
    lists = [each for each in server.requests if each.path.endswith("/pods") and "limit" in each.query]
    assert len(lists) == 4


async def test_many_changes_make_few_batches(server: ApiServer, follower: Follower) -> None:
    before = len(follower.batches)
    server.put(*(pod("default", f"many-{i}", "n2") for i in range(1000)))
    await until(lambda: len(follower.names("Pod")) == 1010, "a thousand pods")
    assert len(follower.batches) - before < 50


async def test_nothing_is_handed_out_before_every_kind_has_been_heard(server: ApiServer, tmp_path: Path) -> None:
    server.settings.refuse = {"networkpolicies": 403}
    here = Follower(await connected(server, tmp_path))
    others = [each for each in here.source.reflectors if each.resource.kind != "NetworkPolicy"]
    await until(lambda: all(each.synced for each in others), "all but one")
    assert here.batches == []
    await until(lambda: "403" in "".join(here.source.troubles()), "the reason")
    assert list(here.source.troubles()) == ["Kubernetes: waiting for networkpolicies: list: 403 told to refuse"]
    server.settings.refuse = {}
    await until(lambda: bool(here.batches), "the first batch")
    assert here.names("NetworkPolicy") == {"closed"} and list(here.source.troubles()) == []
    await here.close()


async def test_a_server_that_is_away_takes_nothing_away(server: ApiServer, follower: Follower) -> None:
    before = dict(follower.model)
    await server.stop()
    await asyncio.sleep(0.5)
    assert follower.model == before and follower.gone == []
    server.remove("Pod", "default", "p0")
    server.put(pod("default", "meanwhile", "n2"))
    await server.start()
    await until(lambda: "meanwhile" in follower.names("Pod") and "p0" not in follower.names("Pod"), "what was missed")
    assert follower.gone == [("Pod", "default", "p0")]


async def test_a_server_that_has_forgotten_is_listed_anew(server: ApiServer, follower: Follower) -> None:
    await server.stop()
    server.remove("Service", "default", "s")
    server.put(node("n3", 3))
    server.forget()
    await server.start()
    await until(lambda: "n3" in follower.names("Node") and not follower.names("Service"), "what was missed")
    assert follower.gone == [("Service", "default", "s")]


async def test_a_watch_that_is_told_410_in_its_middle_begins_anew(server: ApiServer, follower: Follower) -> None:
    server.put(pod("default", "lost"))
    server.forget()
    await until(lambda: "lost" in follower.names("Pod"), "a pod whose event was lost")


async def test_a_server_that_says_nothing_any_more_is_given_up(
    server: ApiServer, impatient: None, follower: Follower
) -> None:
    """As a half-open connection: it stays, but nothing comes."""
    server.settings.hang = True
    await asyncio.sleep(0)
    server.put(pod("default", "quiet", "n2"))
    asked = len(server.requests)
    await until(lambda: len(server.requests) > asked + 6, "everybody asks again")
    assert follower.gone == []
    server.settings.hang = False
    await until(lambda: "quiet" in follower.names("Pod"), "what was missed")


async def test_a_slow_server_is_borne(server: ApiServer, tmp_path: Path) -> None:
    server.settings.delay = 0.2
    here = Follower(await connected(server, tmp_path))
    await until(lambda: bool(here.batches), "the first batch")
    assert len(here.names("Pod")) == 10
    await here.close()


@pytest.mark.parametrize("status", [403, 429, 500, 503])
async def test_one_kind_that_is_refused_holds_up_no_other(
    server: ApiServer, follower: Follower, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflectors, "PATIENCE", 0.1)
    server.settings.refuse = {"pods": status}
    server.cut()
    server.put(pod("default", "late"), node("n3", 3))
    await until(lambda: "n3" in follower.names("Node"), "another kind")
    await until(lambda: f": {status} told to refuse" in "".join(follower.source.troubles()), "the trouble")
    assert len(follower.names("Pod")) == 10
    server.settings.refuse = {}
    await until(lambda: "late" in follower.names("Pod"), "what was missed")
    await until(lambda: list(follower.source.troubles()) == [], "no trouble")


async def test_bookmarks_keep_a_quiet_watch_alive(server: ApiServer, tmp_path: Path, impatient: None) -> None:
    server.settings.bookmarks = 0.1
    here = Follower(await connected(server, tmp_path))

    def watches() -> int:
        return sum("watch" in each.query for each in server.requests)

    await until(lambda: watches() >= 6, "all watches")
    async with asyncio.timeout(60):
        # Without bookmarks no watch would last this long. One may end where the machine stands still meanwhile.
        before = 0
        while before != watches():
            before = watches()
            await asyncio.sleep(2 * followers.IDLE_SECONDS)
    await here.close()


async def test_an_optional_kind_is_followed_when_it_appears(server: ApiServer, follower: Follower) -> None:
    server.settings.optional = {"ClusterNetworkPolicy"}
    server.put(cluster_policy("c", ingress=[{"action": "Deny", "from": [{"namespaces": {}}]}]))
    await until(lambda: follower.names("ClusterNetworkPolicy") == {"c"}, "the policy")
    server.settings.optional = set()
    server.cut()
    await until(lambda: follower.names("ClusterNetworkPolicy") == set(), "no policy")


async def test_credentials_that_the_server_knows_no_more_are_read_again(
    server: ApiServer, follower: Follower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "other"
    server.cut()
    server.put(pod("default", "late"))
    asked = len(server.requests)
    await until(lambda: len(server.requests) > asked + 6, "everybody is refused")
    assert "late" not in follower.names("Pod")
    monkeypatch.setattr(clients, "RENEWAL", 0.05)
    (tmp_path / "kubeconfig").write_text(server.kubeconfig())
    await until(lambda: "late" in follower.names("Pod"), "what was missed")


async def test_credentials_are_read_once_for_all_that_was_asked_with_the_former_ones(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "RENEWAL", -1.0)
    client = await connected(server, tmp_path)
    server.token, server.settings.delay = "other", 0.1
    (tmp_path / "kubeconfig").write_text(server.kubeconfig())
    read: list[Client] = []
    connect = Client.connect

    async def counted(self: Client) -> None:
        read.append(self)
        await connect(self)

    monkeypatch.setattr(Client, "connect", counted)
    asked = [client.ask("GET", "/api/v1/pods") for _ in range(5)]
    assert [each.status for each in await asyncio.gather(*asked)] == [401] * 5
    assert len(read) == 1
    assert (await client.ask("GET", "/api/v1/pods")).status == 200
    await client.close()


async def test_rough_weather_ends_with_the_servers_state(server: ApiServer, follower: Follower) -> None:
    """Restarts, lost history, cut watches, repeated, old and swapped events, and errors, under steady change."""
    chance = random.Random(3)
    server.settings.repeated = server.settings.outdated = server.settings.swapped = 20
    for _ in range(120):
        name = f"p{chance.randrange(20)}"
        if chance.random() < 0.4:
            server.remove("Pod", "default", name)
        else:
            server.put(pod("default", name, f"n{chance.randrange(1, 3)}", [f"10.244.1.{chance.randrange(2, 200)}"]))
        match chance.randrange(25):
            case 0:
                await server.stop()
                await asyncio.sleep(0.02)
                await server.start()
            case 1:
                server.forget()
            case 2 | 3:
                server.cut()
            case 4:
                server.settings.refuse = {"*": chance.choice([410, 429, 500, 503])}
            case 5 | 6:
                server.settings.refuse = {}
        await asyncio.sleep(chance.choice([0, 0, 0.005, 0.02]))
    server.settings.refuse = {}
    there = {each["metadata"]["name"]: each["spec"]["nodeName"] for each in server.objects("Pod")}

    def same() -> bool:
        return {key[2]: getattr(each, "node", "") for key, each in follower.model.items() if key[0] == "Pod"} == there

    await until(same, "the server's pods")
    for kind, names in (("Node", {"n1", "n2"}), ("Namespace", {"default"}), ("NetworkPolicy", {"closed"})):
        assert follower.names(kind) == names
    assert {key[0] for key in follower.gone} <= {"Pod"}


# Where the server is --------------------------------------------------------------------------------------------------


async def test_a_kubeconfig_that_cant_be_is_said_in_a_line(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kubeconfig"
    with pytest.raises(KubeconfigError, match="no such file"):
        await Client(path).connect()
    path.write_text(server.kubeconfig())
    with pytest.raises(KubeconfigError, match="Expected object with name elsewhere"):
        await Client(path, "elsewhere").connect()
    for text in ("- no\n- kubeconfig\n", "half: {of", ""):
        path.write_text(text)
        with pytest.raises(KubeconfigError, match=str(path)):
            await Client(path).connect()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(KubeconfigError, match="outside of a pod, say --kubeconfig FILE"):
        await Client().connect()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of 127.0.0.1 that vouches for itself, and a server's context with it."""
    cert, key = tmp_path / "ca.crt", tmp_path / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=kubernetes", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1",
         "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return cert, context


async def test_in_a_pod_the_service_account_says_who_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    from kubernetes.aio.config import incluster_config

    server = ApiServer()
    server.put(node("n1", 1))
    server.tls = certificate[1]
    await server.start()
    (tmp_path / "token").write_text("secret")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(certificate[0]))
    client = Client()
    await client.connect()
    here = Follower(client)
    await until(lambda: here.names("Node") == {"n1"}, "the node, over HTTPS")
    await here.close()
    await server.stop()


async def test_a_server_that_cant_prove_who_it_is_is_told_nothing(
    tmp_path: Path, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    server = ApiServer()
    server.tls = certificate[1]
    await server.start()
    (tmp_path / "kubeconfig").write_text(server.kubeconfig().replace("http:", "https:"))
    client = Client(tmp_path / "kubeconfig")
    await client.connect()
    here = Follower(client)
    await until(lambda: "certificate verify failed" in "".join(here.source.troubles()), "the reason")
    assert server.requests == [] and here.batches == []
    await here.close()
    await server.stop()


async def test_a_batch_says_when_the_first_of_its_events_was_read(server: ApiServer, tmp_path: Path) -> None:
    follower = Follower(await connected(server, tmp_path))
    try:
        await until(lambda: len(follower.names("Pod")) == 10, "everything is known")
        before = time.monotonic()
        server.put(pod("default", "late", "n1", ["10.244.1.99"]))
        await until(lambda: "late" in follower.names("Pod"), "the pod is known")
        assert follower.source.heard is not None and before <= follower.source.heard <= time.monotonic()
    finally:
        await follower.close()
