"""The admin API over its Unix socket: what it tells, and how it says no."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fake_switch import FakeSwitch, Wire
from test_sync import UPLINKS, node, pod, pod_port, snapshot, started

from controller import app, port_loads
from controller.api import serve, server
from controller.app import Controller
from controller.bgp import Speaker
from controller.bgp_settings import BgpSettings
from flows.openflow.wire import Type


class Client:
    """Asks, and keeps the switch's wire moving meanwhile."""

    def __init__(self, controller: Controller, session: aiohttp.ClientSession) -> None:
        self.controller = controller
        self.wire: Wire | None = None
        self._session = session

    async def get(self, path: str, status: int = 200) -> Any:
        async with self._session.get(f"http://controller{path}") as response:
            assert response.status == status, await response.text()
            return json.loads(await response.text())


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    controller = started(node(1), node(2), pod("a", 1), pod("b", 2))
    runner = await serve(controller, tmp_path / "api.sock")
    assert (tmp_path / "api.sock").stat().st_mode & 0o777 == 0o600
    connector = aiohttp.UnixConnector(str(tmp_path / "api.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        here = Client(controller, session)
        here.wire = Wire(controller, FakeSwitch(node(1).datapath_id, (*UPLINKS, pod_port("a", 1))))
        here.wire.pump()
        yield here
    await runner.cleanup()


async def test_nodes_tell_how_their_switches_are(client: Client) -> None:
    first, second = (await client.get("/v1/nodes"))["items"]
    assert (first["name"], first["status"], first["pods"]) == ("n1", "Synced", 1)
    assert first["datapathID"] == f"{node(1).datapath_id:016x}" and first["flowModsSent"] > 0
    assert (second["name"], second["status"]) == ("n2", "Disconnected")
    assert first["flows"] > 0 and second["flows"] is None


async def test_what_a_switch_that_is_away_carries_is_not_known(client: Client) -> None:
    looks = asyncio.ensure_future(client.get("/v1/top/nodes"))
    while not looks.done():
        assert client.wire is not None
        client.wire.pump()
        await asyncio.sleep(0.01)
    first, second = (await looks)["items"]
    assert (first["name"], second["name"]) == ("n1", "n2")
    assert first["rxBytesPerSecond"] >= 0 and second["rxBytesPerSecond"] is None
    assert (second["txDroppedPerSecond"], second["busiestPort"]) == (None, "")


def names(schema: Any) -> Iterator[str]:
    """The names of all properties and parameters that a description has."""
    if isinstance(schema, list):
        for each in schema:
            yield from names(each)
    elif isinstance(schema, dict):
        properties = schema.get("properties")
        yield from properties if isinstance(properties, dict) else ()
        if "in" in schema and isinstance(schema.get("name"), str):
            yield schema["name"]
        for each in schema.values():
            yield from names(each)


def test_every_name_of_the_api_is_in_camel_case(client: Client) -> None:
    found = set(names(server.description(client.controller)))
    assert {"podCIDRs", "enteredFrom", "fieldSelector", "policyDrops", "datapathID"} <= found
    assert not [name for name in found if not re.fullmatch(r"[a-z][a-zA-Z0-9]*", name)]


async def test_a_trace_is_told_as_it_is_described(client: Client) -> None:
    told = await client.get("/v1/trace?from=a&to=192.0.2.1&protocol=TCP&port=80")
    described = server.description(client.controller)["paths"]["/v1/trace"]["get"]["responses"]["200"]

    def keys(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            yield from part
        for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            yield from keys(each)

    assert told["visits"] and {"sourcePort", "enteredFrom"} <= set(keys(told)) <= set(names(described))


async def test_pods_tell_where_they_are_and_what_they_wait_for(client: Client) -> None:
    a, b = (await client.get("/v1/pods"))["items"]
    assert (a["status"], a["addresses"], a["portNumber"]) == ("Ready", ["10.244.1.10", "fd00:10:244:1::a"], 10)
    assert (b["status"], b["reason"]) == ("Pending", "the node's switch isn't connected")


async def test_links_and_the_topology_in_every_form(client: Client) -> None:
    links = (await client.get("/v1/links"))["items"]
    assert {(row["from"], row["to"], row["state"]) for row in links} == {
        ("n1", "overlay", "Up"),
        ("n2", "overlay", "Unconfirmed"),
    }
    for form, part in (("text", "n1"), ("dot", "graph"), ("svg", "<svg"), ("graphml", "<graphml")):
        assert part in (await client.get(f"/v1/topology?format={form}"))["text"]
    told = await client.get("/v1/topology")
    assert [row["name"] for row in told["nodes"]] == ["n1", "n2"]
    assert told["networks"] == [{"name": "overlay", "kind": "overlay", "cost": 10, "nodes": 2}]
    assert told["links"] == links
    said = (await client.get("/v1/topology?format=png", 400))["error"]
    assert "format is json, text, dot, svg or graphml, not 'png'" in said


async def test_the_way_from_a_pod_to_another_goes_by_the_tunnel_to_its_node(client: Client) -> None:
    told = await client.get("/v1/path?from=a&to=default/b")
    assert told["from"] == {"node": "n1", "pod": "default/a", "port": pod_port("a", 1).name}
    assert told["to"]["node"] == "n2" and told["cost"] == 10
    (hop,) = told["hops"]
    assert (hop["from"], hop["to"], hop["kind"], hop["endpoint"]) == ("n1", "n2", "overlay", "172.30.0.2")
    assert (await client.get("/v1/path?from=a&to=node/n1"))["hops"] == []


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("from=a", 400, "say 'to'"),
        ("from=a&to=x", 404, "there is no pod 'x' in namespace default, and no such node"),
        ("from=n1&to=other/x", 404, "there is no pod 'other/x'"),
        ("from=node/n7&to=a", 404, "there is no node 'n7'"),
    ],
)
async def test_a_way_that_isn_t_there_is_named(client: Client, query: str, status: int, said: str) -> None:
    assert said in (await client.get(f"/v1/path?{query}", status))["error"]


async def test_loads_are_of_two_looks_a_second_apart_and_then_of_one(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MEASURED", 0.01)
    monkeypatch.setattr(port_loads, "LEAST", 0.0)
    wire = client.wire
    assert wire is not None

    async def ask() -> Any:
        asking = asyncio.create_task(client.get("/v1/topology?load=1"))
        while not asking.done():
            await asyncio.sleep(0.005)
            wire.pump()
        return {row["from"]: row for row in (await asking)["links"]}

    asked = wire.switch.count.get(Type.MULTIPART_REQUEST, 0)
    wire.switch.carries = {2: (125_000, 250_000)}
    told = await ask()
    # A fake second for each look: a megabit one way, two the other; a tunnel has no speed.
    assert (told["n1"]["rxBitsPerSecond"], told["n1"]["txBitsPerSecond"]) == (1_000_000, 2_000_000)
    assert told["n1"]["load"] is None and told["n2"]["rxBitsPerSecond"] is None
    assert wire.switch.count[Type.MULTIPART_REQUEST] == asked + 4
    await ask()
    assert wire.switch.count[Type.MULTIPART_REQUEST] == asked + 6


async def test_status_is_healthy_only_when_every_switch_is_in_sync(client: Client) -> None:
    told = await client.get("/v1/status")
    assert not told["healthy"] and told["problems"] == ["node n2: its switch isn't connected"]
    client.controller.take(snapshot(node(1), pod("a", 1)))
    assert client.wire is not None
    client.wire.pump()
    told = await client.get("/v1/status")
    assert told["healthy"] and (told["nodes"], told["nodesInSync"], told["pods"]) == (1, 1, 1)


async def test_flows_are_those_of_the_switch_by_object_and_table(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = client.controller.dump

    async def answered(name: str) -> Any:
        wire = client.wire
        assert wire is not None
        asking = asyncio.create_task(dump(name))
        await asyncio.sleep(0)
        wire.pump()
        return await asking

    monkeypatch.setattr(client.controller, "dump", answered)
    everything = (await client.get("/v1/nodes/n1/flows"))["items"]
    of_pod = (await client.get("/v1/nodes/n1/flows?pod=default/a"))["items"]
    of_route = (await client.get("/v1/nodes/n1/flows?table=route"))["items"]
    assert len(everything) > len(of_pod) > 0
    assert {row["object"] for row in of_pod} == {"Pod default/a"}
    assert {row["table"] for row in of_route} == {"Route"}
    assert all(row["words"] and row["ofctl"] for row in everything)


async def test_bgp_is_there_where_it_is_asked_for(client: Client, tmp_path: Path) -> None:
    assert (await client.get("/v1/bgp")) == (await client.get("/v1/routes")) == {"items": []}
    assert "bgp" not in await client.get("/v1/status")
    settings = BgpSettings.parse(64512, ["192.0.2.1@64999"], "192.0.2.9", (), 120)
    assert settings is not None
    client.controller.bgp = Speaker(settings, tmp_path / "bgp")
    (peer,) = (await client.get("/v1/bgp"))["items"]
    assert (peer["name"], peer["as"], peer["state"]) == ("192.0.2.1", 64999, "Standby")
    client.controller.bgp.speaks = True
    client.controller.bgp.sessions.routes = client.controller.routes() or ()
    (peer,) = (await client.get("/v1/bgp"))["items"]
    assert (peer["state"], peer["reason"]) == ("Down", "not connected yet")
    assert "BGP peer 192.0.2.1 (AS 64999): not connected yet" in (await client.get("/v1/status"))["problems"]
    told = {each["name"]: each for each in (await client.get("/v1/routes"))["items"]}
    assert told["10.244.1.0/24"]["owner"] == "Node/n1"


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/v1/nodes/n9/flows", 404, "no node 'n9'"),
        ("/v1/nodes/n2/flows", 404, "the switch of node 'n2' isn't connected"),
        ("/v1/nodes/n1/flows?pod=default/x", 404, "no pod 'default/x'"),
        ("/v1/nodes/n1/flows?table=Nowhere", 404, "the tables are Classify, Arp"),
        ("/v1/nodes/n9/flows?diff=1", 404, "no node 'n9'"),
        ("/v1/nodes/n1/flows?rate=11", 400, "rate is a number from 1 to 10"),
        ("/v1/nodes/n1/flows?rate=1&diff=1", 400, "ask for diff or for rate"),
        ("/v2/nodes", 404, "GET /v2/nodes: Not Found"),
    ],
)
async def test_what_isn_t_there_is_named(client: Client, path: str, status: int, said: str) -> None:
    assert said in (await client.get(path, status))["error"]


async def test_a_switch_that_doesn_t_answer_is_named(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "DUMP_LIMIT", 0.05)
    assert "the switch of node 'n1' doesn't answer" in (await client.get("/v1/nodes/n1/flows", 504))["error"]
