"""What Kubernetes says of an agent's node: told when it is complete, followed, asked for again whatever happens."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import ApiServer, serving
from kubernetes.aio.config import incluster_config

from deploy import certificates
from node import kubernetes_node
from node.facts import NodeFacts
from node.kubernetes_node import Follower, Wanted

CIDRS = ["10.244.1.0/24", "fd00:10:244:1::/64"]
LABEL = "node-role.kubernetes.io/control-plane"
RBAC = Path(__file__).parents[2] / "deploy/kubernetes/base/rbac.yaml"


def node(name: str, cidrs: list[str], *addresses: str, labels: tuple[str, ...] = ()) -> dict[str, Any]:
    listed = [{"type": "InternalIP", "address": each} for each in addresses]
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": dict.fromkeys(labels, "")},
        "spec": {"podCIDRs": cidrs, "podCIDR": cidrs[0]} if cidrs else {},
        "status": {"addresses": [*listed, {"type": "Hostname", "address": name}]},
    }


def secret(**data: bytes) -> dict[str, Any]:
    encoded = {name.replace("_", "."): base64.b64encode(value).decode() for name, value in data.items()}
    return {
        "kind": "Secret",
        "metadata": {"name": "signalbox-node-n1", "namespace": "signalbox-nodes"},
        "data": encoded,
    }


WHOLE = {"tls_crt": b"c", "tls_key": b"k", "ca_crt": b"a"}


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiServer]:
    monkeypatch.setattr(kubernetes_node, "_RETRY", 0.02)
    async with serving() as here:
        here.put(
            node("n1", CIDRS, "192.0.2.11", "2001:db8::11"),
            node("n2", [], "192.0.2.12"),
            node("c2", [], "192.0.2.2", "2001:db8::2", labels=(LABEL,)),
            node("c1", [], "192.0.2.1", labels=(LABEL,)),
        )
        yield here


@pytest.fixture
def wanted(server: ApiServer, tmp_path: Path) -> Wanted:
    (tmp_path / "kubeconfig").write_text(server.kubeconfig())
    return Wanted("n1", tmp_path / "kubeconfig")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what others do has no event
            await asyncio.sleep(0.01)


def said_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the agent has logged, and nobody else: asyncio may yet complain of what another test has left."""
    return [record.getMessage() for record in caplog.records if record.name == kubernetes_node.__name__]


def watched(server: ApiServer) -> bool:
    return any("watch" in each.query for each in server.requests)


async def soon(facts: AsyncIterator[NodeFacts]) -> NodeFacts:
    return await asyncio.wait_for(anext(facts), 60)


async def first(wanted: Wanted) -> NodeFacts:
    async with aclosing(Follower(wanted).facts()) as facts:
        return await soon(facts)


async def test_a_node_learns_its_cidrs_and_addresses(wanted: Wanted) -> None:
    assert await first(wanted) == NodeFacts(
        tuple(map(ip_network, CIDRS)), (ip_address("192.0.2.11"), ip_address("2001:db8::11"))
    )


async def test_controllers_are_where_nodes_have_the_label_in_the_family_of_the_node(
    server: ApiServer, wanted: Wanted
) -> None:
    wanted = Wanted(wanted.name, wanted.kubeconfig, (LABEL,))
    assert (await first(wanted)).labelled == ((LABEL, (ip_address("192.0.2.1"), ip_address("192.0.2.2"))),)
    server.put(node("n1", CIDRS, "2001:db8::11"))
    assert (await first(wanted)).labelled == ((LABEL, (ip_address("2001:db8::2"),)),)


async def test_the_certificate_is_the_node_s_own_secret(server: ApiServer, wanted: Wanted) -> None:
    wanted = Wanted(wanted.name, wanted.kubeconfig, secrets="signalbox-nodes")
    server.put(secret(**WHOLE))
    async with aclosing(Follower(wanted).facts()) as facts:
        assert (await soon(facts)).tls == (b"k", b"a", b"c")
        server.put(secret(**{**WHOLE, "tls_crt": b"renewed"}))
        assert (await soon(facts)).tls == (b"k", b"a", b"renewed")


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"node": None}, "there is no Node n1: the kubelet makes it, under this name"),
        ({"node": node("n1", [], "192.0.2.11")}, "node n1 has no pod CIDR: the controller manager gives it with"),
        ({"node": node("n1", CIDRS)}, "node n1 has no address of type InternalIP"),
        ({"controller": node("c", [], "2001:db8::2", labels=(LABEL,))}, f"no node with label {LABEL} has an IPv4"),
        ({"secret": None}, "Secret signalbox-nodes/signalbox-node-n1 has no ca.crt, tls.crt, tls.key: make it with"),
        ({"secret": secret(tls_crt=b"c", ca_crt=b"a")}, "Secret signalbox-nodes/signalbox-node-n1 has no tls.key:"),
    ],
)
async def test_what_isn_t_there_yet_is_waited_for_and_named_once_with_who_makes_it(
    server: ApiServer, wanted: Wanted, caplog: pytest.LogCaptureFixture, there: dict[str, Any], said: str
) -> None:
    wanted = Wanted(wanted.name, wanted.kubeconfig, (LABEL,), "signalbox-nodes")
    whole = {
        "node": node("n1", CIDRS, "192.0.2.11"),
        "controller": node("c", [], "192.0.2.1", labels=(LABEL,)),
        "secret": secret(**WHOLE),
    }
    for name in ("n1", "c1", "c2"):
        server.remove("Node", "", name)
    server.put(*filter(None, {**whole, **there}.values()))
    follower = Follower(wanted)
    async with aclosing(follower.facts()) as facts:
        waiting = asyncio.ensure_future(soon(facts))
        await until(lambda: said in follower.waits_for)
        server.put(node("n2", [], "192.0.2.13"))
        server.put(*whole.values())
        assert (await waiting).tls and follower.waits_for == ""
    assert [message.count(said) for message in said_in(caplog)] == [1], "it is said once"


async def test_only_changes_that_concern_the_agent_are_told(server: ApiServer, wanted: Wanted) -> None:
    async with aclosing(Follower(wanted).facts()) as facts:
        await soon(facts)
        changed = asyncio.ensure_future(soon(facts))
        await until(lambda: watched(server))
        server.put(node("n1", CIDRS, "192.0.2.11", "2001:db8::11", labels=("a",)))
        server.remove("Node", "", "n1")
        server.put(node("n1", CIDRS, "192.0.2.11", "2001:db8::11"), node("n2", CIDRS, "192.0.2.12"))
        asked = len(server.requests)
        server.cut()
        await until(lambda: len(server.requests) >= asked + 2)
        assert not changed.done()
        server.put(node("n1", CIDRS, "192.0.2.99"))
        assert (await changed).addresses == (ip_address("192.0.2.99"),)


async def test_a_node_that_begins_or_ceases_to_have_the_label_is_told(server: ApiServer, wanted: Wanted) -> None:
    async with aclosing(Follower(Wanted("n1", wanted.kubeconfig, (LABEL,))).facts()) as facts:
        await soon(facts)
        server.put(node("c2", [], "192.0.2.2"))
        assert (await soon(facts)).labelled == ((LABEL, (ip_address("192.0.2.1"),)),)
        server.put(node("n2", [], "192.0.2.12", labels=(LABEL,)))
        assert (await soon(facts)).labelled == ((LABEL, (ip_address("192.0.2.1"), ip_address("192.0.2.12"))),)


@pytest.mark.parametrize("refusal", [401, 403, 500])
async def test_a_server_that_refuses_is_asked_again(
    server: ApiServer, wanted: Wanted, caplog: pytest.LogCaptureFixture, refusal: int
) -> None:
    server.settings.refuse = {"nodes": refusal}
    async with aclosing(Follower(wanted).facts()) as facts:
        waiting = asyncio.ensure_future(soon(facts))
        await until(lambda: len(server.requests) >= 3)
        await until(lambda: bool(said_in(caplog)))
        assert f"answers {refusal}: told to refuse" in caplog.text and len(said_in(caplog)) == 1
        server.settings.refuse = {}
        assert (await waiting).pod_cidrs


async def test_versions_that_the_server_has_forgotten_are_listed_anew(server: ApiServer, wanted: Wanted) -> None:
    async with aclosing(Follower(wanted).facts()) as facts:
        await soon(facts)
        changed = asyncio.ensure_future(soon(facts))
        await until(lambda: watched(server))
        server.put(node("n1", CIDRS, "192.0.2.11", "2001:db8::11", labels=("a",)))
        server.forget()
        server.put(node("n1", CIDRS, "192.0.2.99"))
        assert (await changed).addresses == (ip_address("192.0.2.99"),)


async def test_a_server_that_goes_and_comes_back_takes_nothing_away(server: ApiServer, wanted: Wanted) -> None:
    async with aclosing(Follower(wanted).facts()) as facts:
        await soon(facts)
        changed = asyncio.ensure_future(soon(facts))
        await server.stop()
        server.put(node("n1", CIDRS, "192.0.2.99"))
        await server.start()
        assert (await changed).addresses == (ip_address("192.0.2.99"),)


async def test_in_a_pod_the_service_account_says_who_asks_and_its_token_may_change(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates.make_ca(tmp_path)
    made = certificates.make_controller(tmp_path, ["127.0.0.1"])
    await server.stop()
    server.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.tls.load_cert_chain(made.certificate, made.key)
    await server.start()
    (tmp_path / "token").write_text(server.token)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    async with aclosing(Follower(Wanted("n1")).facts()) as facts:
        await soon(facts)
        changed = asyncio.ensure_future(soon(facts))
        server.token = "another"
        (tmp_path / "token").write_text(server.token)
        server.cut()
        server.put(node("n1", CIDRS, "192.0.2.99"))
        assert (await changed).addresses == (ip_address("192.0.2.99"),)


@pytest.mark.parametrize("text", ["", "[]", "a: b", "{", "clusters: 5"])
async def test_a_kubeconfig_that_is_none_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    waiting = asyncio.ensure_future(anext(Follower(Wanted("n1", path)).facts()))
    await until(lambda: bool(said_in(caplog)) or waiting.done())
    waiting.cancel()
    assert str(path) in caplog.text


def granted() -> Iterator[tuple[str, str]]:
    for document in yaml.safe_load_all(RBAC.read_text()):
        if document["metadata"]["name"] == "signalbox-node":
            for rule in document.get("rules", ()):
                assert rule["apiGroups"] == [""]
                yield from ((resource, verb) for resource in rule["resources"] for verb in rule["verbs"])


async def test_the_rights_that_are_granted_are_those_that_are_used(server: ApiServer, wanted: Wanted) -> None:
    server.put(secret(**WHOLE))
    everything = Wanted(wanted.name, wanted.kubeconfig, (LABEL,), "signalbox-nodes")

    def used() -> set[tuple[str, str]]:
        return {
            (each.path.rpartition("/")[2], "watch" if "watch" in each.query else "list") for each in server.requests
        }

    async with aclosing(Follower(everything).facts()) as facts:
        await soon(facts)
        await until(lambda: used() == set(granted()))
