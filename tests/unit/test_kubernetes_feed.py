"""The controller on an API server, whole: its state in, conditions, addresses and events out, and the rights for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from api_server import ApiServer, Request, serving
from fake_switch import FakeSwitch
from kubernetes_objects import cluster_policy, namespace, network_policy, node, pod, service, workload
from test_channel import play
from test_kubernetes_source import until

from controller import agent_reports, drains
from controller import kubernetes_feed as feeds
from controller.cli.run import reviews_by
from controller.kubernetes_access import Identity
from controller.kubernetes_feed import KubernetesFeed
from controller.kubernetes_leases import KubernetesLeases
from controller.leases import Leases, Times
from controller.process import Options, run
from controller.replica import Replica
from flows.state import Port
from topology.agent_report import AgentReport, encode
from topology.kubernetes import reflector as reflectors
from topology.kubernetes.client import Client, TransportError
from topology.kubernetes.resources import RESOURCES, TRACEFLOWS
from topology.naming import GATEWAY_MAC, GATEWAY_PORT, TUNNEL_PORT, datapath_id
from topology.offload import Report
from topology.services import ServiceRanges

RBAC = Path(__file__).parents[2] / "deploy/kubernetes/base/rbac.yaml"
#: Lost only by who stands still longer than a test takes. A look has a second, as all is renewed by each: with less,
#: a machine that others use too comes to nothing else.
TIMES = Times(300.0, 200.0, 1.0, 0.2)
UPLINKS = (Port(1, GATEWAY_PORT, GATEWAY_MAC), Port(2, TUNNEL_PORT, 0x0A57_0000_0003))


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflectors, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(reflectors, "PROBE_INTERVAL", 0.1)
    monkeypatch.setattr(feeds, "LOOK_INTERVAL", 0.02)
    monkeypatch.setattr(feeds, "COMPLAINT_INTERVAL", 0.02)


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with serving() as here:
        here.settings.optional = {each.kind for each in (*RESOURCES, TRACEFLOWS) if each.optional}
        here.put(namespace("default"), namespace("signalbox"), node("n1", 1), node("n2", 2))
        yield here


class Running:
    """A controller's whole life, in this process."""

    def __init__(self, server: ApiServer, directory: Path, replica_id: str = "") -> None:
        """With `replica_id` it is one of several, which settle by Lease objects who does what."""
        self.directory = directory
        (directory / "kubeconfig").write_text(server.kubeconfig())
        ranges = ServiceRanges.parse(["10.96.0.0/16"], ["203.0.113.0/28"], "30000-32767")
        client = Client(directory / "kubeconfig")
        store = KubernetesLeases(client, "signalbox", (TransportError,))
        replica = Replica(Leases(replica_id, TIMES), store) if replica_id else None
        self.feed = KubernetesFeed(client, ranges, keyed=True, replica=replica)
        options = Options(listen=[f"unix:{directory / 'of'}"], socket_path=directory / "api", audit_interval=60.0)
        self.task = asyncio.create_task(run(self.feed, options))
        self.switches: list[asyncio.Task[None]] = []

    async def ask(self, path: str, method: str = "GET") -> Any:
        connector = aiohttp.UnixConnector(str(self.directory / "api"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://c{path}") as response,
        ):
            return json.loads(await response.text())

    async def until_status(self, words: str) -> None:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                problems = (await self.ask("/v1/status"))["problems"]
                if any(words in each for each in problems):
                    return
            assert time.monotonic() < deadline, f"{words}: not said"
            await asyncio.sleep(0.02)

    async def until_drained(self, name: str, wanted: bool) -> None:
        deadline = time.monotonic() + 60
        while True:
            if (await self.ask(f"/v1/nodes/{name}"))["drained"] is wanted:
                return
            assert time.monotonic() < deadline, f"{name}: drained is not {wanted}"
            await asyncio.sleep(0.02)

    async def until_no_complaint(self) -> None:
        """Until it was seen that nothing is wrong with any object: what is wrong later is wrong again."""
        await until(lambda: not self.feed._events._current, "nothing is wrong")

    def connect(self, name: str, description: str = "") -> FakeSwitch:
        switch = FakeSwitch(datapath_id(name), UPLINKS)
        switch.description = description
        self.switches.append(asyncio.create_task(play(self.directory / "of", switch)))
        return switch

    async def end(self) -> None:
        assert not self.task.done(), self.task.exception()
        self.task.cancel()
        for task in self.switches:
            task.cancel()
        await asyncio.gather(self.task, *self.switches, return_exceptions=True)


@pytest.fixture
async def running(server: ApiServer, tmp_path: Path) -> AsyncIterator[Running]:
    here = Running(server, tmp_path)
    await until((tmp_path / "of").exists, "the controller listens")
    yield here
    await here.end()


def condition(server: ApiServer, kind: str, name: str, of: str, namespace: str = "") -> dict[str, Any]:
    found = server.get(kind, namespace, name) or {}
    return next((each for each in found.get("status", {}).get("conditions", []) if each["type"] == of), {})


async def test_a_node_whose_offload_is_wanting_says_so_until_it_isnt(
    server: ApiServer, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_reports, "INTERVAL", 0.2)
    server.put(node("n1", 1, conditions=[{"type": "Ready", "status": "True"}]))
    wanting = Report(asked=True, enabled=True, why="no NIC of this node takes flows")
    switch = running.connect("n1", encode(AgentReport(version="1.0", beat=1, offload=wanting)))

    def told() -> dict[str, Any]:
        return condition(server, "Node", "n1", "SignalboxOffloadUnavailable")

    await until(lambda: told().get("status") == "True", "the condition")
    assert "asked for and is not in force: no NIC of this node takes flows" in told()["message"]
    assert condition(server, "Node", "n1", "Ready")["status"] == "True"
    in_force = Report(asked=True, enabled=True, capable=True)
    switch.description = encode(AgentReport(version="1.0", beat=1, offload=in_force))
    await until(lambda: told().get("status") == "False", "it is over")


async def test_a_nodes_network_is_there_when_its_bridge_is_in_sync(server: ApiServer, running: Running) -> None:
    server.put(
        node(
            "n1",
            1,
            conditions=[
                {"type": "Ready", "status": "True"},
                {"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"},
            ],
        )
    )
    running.connect("n1")
    await until(
        lambda: condition(server, "Node", "n1", "NetworkUnavailable").get("reason") == "SignalboxReady", "the condition"
    )
    assert condition(server, "Node", "n1", "NetworkUnavailable")["status"] == "False"
    assert condition(server, "Node", "n1", "Ready")["status"] == "True"
    assert condition(server, "Node", "n2", "NetworkUnavailable") == {}
    written = len(writes(server))
    await asyncio.sleep(0.3)
    assert len(writes(server)) == written == 1


def writes(server: ApiServer) -> list[Request]:
    return [each for each in server.requests if each.method != "GET"]


async def test_a_load_balancers_address_is_written_and_taken_back(server: ApiServer, running: Running) -> None:
    server.put(service("default", "lb", "10.96.0.9", type="LoadBalancer"))

    def ingress() -> Any:
        return (server.get("Service", "default", "lb") or {})["status"].get("loadBalancer", {}).get("ingress")

    await until(lambda: bool(ingress()), "an address")
    (row,) = (await running.ask("/v1/services"))["items"]
    assert [row["externalIPs"][0]] == [each["ip"] for each in ingress()]
    assert ingress()[0]["ipMode"] == "VIP"
    server.put(service("default", "lb", "10.96.0.9", status={"loadBalancer": {"ingress": ingress()}}))
    await until(lambda: not ingress(), "no address")


REALIZED = "signalbox.io/Realized"


async def test_a_service_that_cant_have_what_it_asks_for_says_so_until_it_can(
    server: ApiServer, running: Running
) -> None:
    others = {"type": "example.com/Theirs", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "t"}

    def of(name: str) -> dict[str, Any]:
        return condition(server, "Service", name, REALIZED, "default")

    # A pool of /28 has fourteen addresses.
    for number in range(14):
        server.put(service("default", f"lb-{number:02}", f"10.96.1.{number}", type="LoadBalancer"))
    late = service("default", "lb-late", "10.96.2.1", type="LoadBalancer", status={"conditions": [others]})
    await until(lambda: len(writes(server)) == 14, "all have addresses")
    server.put(late)
    await until(lambda: of("lb-late").get("status") == "False", "it goes without")
    assert of("lb-late")["reason"] == "NotRealized"
    assert of("lb-late")["message"] == "no load balancer's address is free in 203.0.113.0/28; add a pool"
    assert condition(server, "Service", "lb-late", "example.com/Theirs", "default") == others

    def told() -> list[str]:
        return [each["regarding"]["name"] for each in server.objects("Event")]

    # Conditions, addresses and events are written by themselves, in no order.
    await until(lambda: told() == ["lb-late"], "an event says so")
    server.remove("Service", "default", "lb-00")
    await until(lambda: of("lb-late").get("status") == "True", "it has one")

    def ingress() -> Any:
        return (server.get("Service", "default", "lb-late") or {})["status"].get("loadBalancer", {}).get("ingress")

    await until(lambda: bool(ingress()), "its status says which")
    assert condition(server, "Service", "lb-late", "example.com/Theirs", "default") == others
    assert of("lb-01") == {}
    written = len(writes(server))
    await asyncio.sleep(0.3)
    assert len(writes(server)) == written and told() == ["lb-late"]


async def test_a_service_whose_port_or_address_is_anothers_says_whose(server: ApiServer, running: Running) -> None:
    server.put(
        service("default", "a", "10.96.0.1", externalIPs=["198.51.100.77"]),
        service("default", "b", "10.96.0.2", externalIPs=["198.51.100.77", "192.0.2.1"]),
    )

    def of(name: str) -> dict[str, Any]:
        return condition(server, "Service", name, REALIZED, "default")

    def says(*words: str) -> bool:
        return all(each in of("b").get("message", "") for each in words)

    taken = "198.51.100.77 port 80/TCP is Service default/a's already"
    await until(lambda: says(taken, "external address 192.0.2.1 is of node n1"), "both are said")
    assert of("b")["status"] == "False" and of("a") == {}
    server.put(service("default", "b", "10.96.0.2", externalIPs=["198.51.100.77"], status={"conditions": [of("b")]}))
    await until(lambda: says(taken) and not says("192.0.2.1"), "one is left")
    server.remove("Service", "default", "a")
    await until(lambda: of("b").get("status") == "True", "nothing is left")


async def test_a_policy_of_the_cluster_says_whether_it_is_in_force(server: ApiServer, running: Running) -> None:
    server.put(cluster_policy("c", ingress=[{"action": "Deny", "from": [{"namespaces": {}}]}]))
    of = REALIZED
    await until(lambda: condition(server, "ClusterNetworkPolicy", "c", of).get("status") == "True", "it is in force")
    server.put(cluster_policy("c", egress=[{"action": "Accept", "to": [{"domainNames": ["example.com"]}]}]))
    await until(lambda: condition(server, "ClusterNetworkPolicy", "c", of).get("status") == "False", "it isn't whole")
    assert "example.com" in condition(server, "ClusterNetworkPolicy", "c", of)["message"]


async def test_what_cant_be_done_is_an_event_of_its_object_and_repetitions_are_counted(
    server: ApiServer, running: Running
) -> None:
    bad = network_policy("default", "p", ingress=[{"fromm": []}])
    server.put(bad)
    await until(lambda: len(server.objects("Event")) == 1, "an event")
    (event,) = server.objects("Event")
    assert event["regarding"] == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "namespace": "default",
        "name": "p",
        "uid": "uid-NetworkPolicy-default-p",
    }
    assert "fromm" in event["note"] and event["type"] == "Warning"
    await running.until_status("NetworkPolicy default/p: spec.ingress[0].fromm")
    server.put(network_policy("default", "p", ingress=[]))
    await running.until_no_complaint()
    server.put(bad)
    await until(lambda: server.objects("Event")[0].get("series", {}).get("count") == 2, "the count")
    assert len(server.objects("Event")) == 1


async def test_a_pod_that_goes_without_its_host_port_has_an_event(server: ApiServer, running: Running) -> None:
    ports = [{"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1", "protocol": "TCP"}]
    spec = {"containers": [{"name": "c", "image": "i", "ports": ports}]}
    server.put(*(pod("default", name, "n1", spec=spec) for name in ("first", "second")))
    await until(lambda: len(server.objects("Event")) == 1, "an event")
    (event,) = server.objects("Event")
    assert (event["regarding"]["kind"], event["regarding"]["name"]) == ("Pod", "second")
    assert event["note"].startswith("host port 8080/TCP of 127.0.0.1 is Pod default/first's already on node n1")


async def test_a_workload_that_wants_what_another_has_is_told_by_an_event(server: ApiServer, running: Running) -> None:
    server.put(workload("default", "a"), workload("default", "b", port="vnet1", mac="52:54:00:00:00:02"))
    await until(lambda: len(server.objects("Event")) == 1, "an event")
    (event,) = server.objects("Event")
    regarding = event["regarding"]
    assert (regarding["apiVersion"], regarding["kind"], regarding["name"]) == ("signalbox.io/v1alpha1", "Workload", "b")
    said = "its address 203.0.113.7 is that of Workload default/a; give it another"
    assert event["note"] == said
    await running.until_status(f"Workload default/b: {said}")


async def test_a_node_is_drained_by_its_annotation_for_all_controllers(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drains, "HEARD", 60.0)
    ones = []
    for name in "ab":
        (tmp_path / name).mkdir()
        ones.append(Running(server, tmp_path / name, name))
    for here in ones:
        await until((here.directory / "of").exists, "the controller listens")
    server.put(node("n1", 1) | {"metadata": {"name": "n1", "annotations": {"other": "kept"}}})

    told = await ones[0].ask("/v1/nodes/n1/drain", "POST")
    assert (told["changed"], told["kept"], told["note"]) == (True, "Kubernetes", "")
    written = server.get("Node", "", "n1")
    assert written is not None
    assert written["metadata"]["annotations"] == {"other": "kept", "signalbox.io/drained": "true"}
    assert written["status"] == node("n1", 1)["status"]
    await asyncio.gather(*(here.until_drained("n1", True) for here in ones))
    # By whichever of them it is said.
    assert (await ones[1].ask("/v1/nodes/n1/undrain", "POST"))["changed"]
    await asyncio.gather(*(here.until_drained("n1", False) for here in ones))
    # Its answer means that it is so, at that controller.
    for act, drained in (("drain", True), ("undrain", False), ("undrain", False), ("drain", True)):
        told = await ones[0].ask(f"/v1/nodes/n1/{act}", "POST")
        assert (await ones[0].ask("/v1/nodes/n1"))["drained"] is drained
    assert told["changed"]
    server.settings.refuse["nodes"] = 403
    assert "PATCH /api/v1/nodes/n1/status: 403" in (await ones[1].ask("/v1/nodes/n1/drain", "POST"))["error"]
    for here in ones:
        await here.end()


async def test_an_outage_is_told_and_takes_nothing_from_the_switches(
    server: ApiServer, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflectors, "PATIENCE", 0.1)
    server.put(pod("default", "p", "n1", ["10.244.1.2"]))
    running.connect("n1")
    await until(lambda: len(writes(server)) == 1, "the node is in sync")
    before = await running.ask("/v1/status")
    await server.stop()
    await running.until_status("Kubernetes: nodes: watch:")
    during = await running.ask("/v1/status")
    assert (during["nodes"], during["nodesInSync"]) == (2, 1)
    await server.start()
    await until(lambda: any("watch" in each.query for each in server.requests[-9:]), "the watches go on")
    after = await running.ask("/v1/status")
    assert after["flowModsSent"] == before["flowModsSent"]


async def test_until_the_server_answers_the_status_says_what_is_waited_for(server: ApiServer, tmp_path: Path) -> None:
    server.settings.refuse = {"pods": 403}
    here = Running(server, tmp_path)
    await here.until_status("Kubernetes: waiting for pods: list: 403 told to refuse")
    assert not (tmp_path / "of").exists()
    server.settings.refuse = {}
    await until((tmp_path / "of").exists, "the controller listens")
    await here.end()


async def test_of_several_controllers_one_tells_of_what_is_no_node_s(server: ApiServer, tmp_path: Path) -> None:
    names = ("a", "b")
    for name in names:
        (tmp_path / name).mkdir()
    both = [Running(server, tmp_path / name, name) for name in names]

    def masters() -> set[str]:
        leases = (each for each in server.objects("Lease") if "shard" in each["metadata"]["name"])
        return {each["spec"].get("holderIdentity", "") for each in leases}

    await until(lambda: masters() == set(names), "both are masters")
    server.put(service("default", "lb", "10.96.0.9", type="LoadBalancer"))
    path = "/api/v1/namespaces/default/services/lb/status"
    await until(lambda: any(each.path == path for each in server.requests), "the Service's address is told")
    for _ in range(3):
        before = len(server.requests)
        await until(lambda before=before: len(server.requests) > before, "leases are renewed")  # type: ignore[misc]
    assert sum(each.path == path for each in server.requests) == 1
    for each in both:
        await each.end()


# Rights ---------------------------------------------------------------------------------------------------------------

Right = tuple[str, str, str]


def rights_of(requests: list[Request]) -> Iterator[Right]:
    """API group, resource and verb of each request. Asking which APIs there are is everybody's right."""
    for each in requests:
        words = each.path.strip("/").split("/")
        group, rest = ("", words[2:]) if words[0] == "api" else (words[1], words[3:])
        if not rest:
            continue
        if rest[0] == "namespaces" and len(rest) > 2:
            rest = rest[2:]
        resource = rest[0] + (f"/{rest[2]}" if len(rest) > 2 else "")
        verb = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}.get(each.method, "")
        verb = verb or ("get" if len(rest) > 1 else "list")
        yield group, resource, "watch" if each.query.get("watch") else verb
        if each.query.get("fieldManager") and "status" not in rest:
            # Applied where it isn't there, it is made.
            yield group, resource, "create"


def granted() -> Iterator[Right]:
    for document in yaml.safe_load_all(RBAC.read_text()):
        if document["metadata"]["name"] != "signalbox-controller":
            continue
        for rule in document.get("rules", ()):
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        yield group, resource, verb


async def test_the_rights_that_are_granted_are_those_that_are_used(server: ApiServer, tmp_path: Path) -> None:
    admin = {"subject": {"namespaces": {}}}
    server.put(
        *(pod("default", f"p{i}", "n1", labels={"app": str(i)}) for i in range(2)),
        service("default", "lb", "10.96.0.9", type="LoadBalancer"),
        cluster_policy("c"),
        {"kind": "AdminNetworkPolicy", "metadata": {"name": "a"}, "spec": {**admin, "priority": 1}},
        {"kind": "BaselineAdminNetworkPolicy", "metadata": {"name": "default"}, "spec": admin},
        network_policy("default", "p", ingress=[{"fromm": []}]),
        {
            "kind": "Traceflow",
            "metadata": {"name": "t"},
            "spec": {"source": {}, "destination": {}, "ttlSecondsAfterFinished": 0},
        },
    )
    here = Running(server, tmp_path, "a")
    await until((tmp_path / "of").exists, "the controller listens")
    here.connect("n1")
    await until(lambda: bool(server.objects("Event")), "an event")
    server.put(network_policy("default", "p"))
    await here.until_no_complaint()
    server.put(network_policy("default", "p", ingress=[{"fromm": []}]))
    asking = Client(tmp_path / "kubeconfig")
    await asking.connect()
    reviews = reviews_by(asking)
    assert await reviews.identity("a token") is None and not await reviews.allows(
        Identity("somebody"), "get", "/v1/nodes"
    )
    await asking.close()
    wanted, given_up = set(granted()), {("coordination.k8s.io", "leases", "delete")}
    await until(lambda: set(rights_of(server.requests)) == wanted - given_up, "every right is used")
    await here.end()
    assert set(rights_of(server.requests)) == wanted
