"""Traceflows: what their definition lets in, what they ask, and that each is answered once, by one controller."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from api_server import ApiServer, serving
from custom_resources import structural_faults
from kubernetes_objects import endpoint_slice, namespace, node, service
from test_kubernetes_feed import Running
from test_kubernetes_source import until

from controller import kubernetes_traces as answering
from controller.traceflows import GRACE, Traceflows
from topology.kubernetes import reflector as reflectors
from topology.kubernetes import traceflows
from topology.kubernetes.reflector import Gone
from topology.kubernetes.resources import TRACEFLOWS
from topology.kubernetes.traceflows import PENDING, RUNNING, SUCCEEDED, End, Packet, Spec, SpecError, Traceflow, asked

ROOT = Path(__file__).parents[2]
DEFINITION: dict[str, Any] = yaml.safe_load((ROOT / "deploy/kubernetes/base/traceflows.yaml").read_text())
SCHEMA: dict[str, Any] = DEFINITION["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
#: The hosts of two nodes: no pod has to be there.
NODES = {"source": {"node": "n1"}, "destination": {"node": "n2"}, "live": False}


def traceflow(name: str, **spec: object) -> dict[str, Any]:
    return {"apiVersion": TRACEFLOWS.api, "kind": "Traceflow", "metadata": {"name": name}, "spec": spec}


# The definition -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["traceflows", "workloads"])
def test_a_definition_s_schema_is_structural(name: str) -> None:
    definition = yaml.safe_load((ROOT / f"deploy/kubernetes/base/{name}.yaml").read_text())
    for version in definition["spec"]["versions"]:
        assert list(structural_faults(version["schema"]["openAPIV3Schema"])) == []


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "object", "properties": {"a": {}}}, "$.a: it has no type"),
        ({"type": "array"}, "an array has items"),
        ({"type": "string", "items": {"type": "string"}}, "nothing else has"),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}},
            "exclude each other",
        ),
        ({"type": "object", "required": ["a"]}, "required a isn't declared"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "oneOf": [{"required": ["b"]}]}, "outside"),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "oneOf": [{"type": "object"}]},
            "type can't stand there",
        ),
        ({"type": "object", "properties": {"a": {"type": "integer", "default": "1"}}}, "must be of type integer"),
        ({"type": "object", "properties": {"metadata": {"type": "object"}}}, "metadata is the server's"),
        ({"type": "object", "$ref": "#/x"}, "not known here"),
    ],
)
def test_what_is_not_structural_is_found(schema: dict[str, Any], said: str) -> None:
    assert said in "; ".join(structural_faults(schema))


def test_the_definition_has_the_fields_that_are_read_and_the_same_bounds() -> None:
    def fields(kind: type[msgspec.Struct]) -> set[str]:
        return set(kind.__struct_encode_fields__)

    spec = SCHEMA["properties"]["spec"]["properties"]
    assert spec.keys() == fields(Spec)
    assert spec["packet"]["properties"].keys() == fields(Packet)
    assert spec["destination"]["properties"].keys() == fields(End)
    assert spec["source"]["properties"].keys() == fields(End) - {"service"}
    info = msgspec.inspect.type_info(Packet)
    assert isinstance(info, msgspec.inspect.StructType)
    for field in info.fields:
        if isinstance(field.type, msgspec.inspect.LiteralType):
            assert {*spec["packet"]["properties"][field.name]["enum"], ""} == set(field.type.values)
    assert spec["timeout"]["default"] == traceflows.TIMEOUT and spec["live"]["default"] is True


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"destination": {"pod": "b"}}, ".spec.source: Required value"),
        ({"source": {"namespace": "x"}, "destination": {"pod": "b"}}, ".spec.source: must validate one and only one"),
        ({"source": {"service": "x"}, "destination": {"pod": "b"}}, ".spec.source: must validate one and only one"),
        ({"source": {"pod": "a"}, "destination": {"pod": "b", "ip": "192.0.2.1"}}, ".spec.destination: must validate"),
        (NODES | {"packet": {"protocol": "GRE"}}, ".spec.packet.protocol: Unsupported value"),
        (NODES | {"packet": {"port": 70000}}, ".spec.packet.port: should be at most 65535"),
        (NODES | {"timeout": 0}, ".spec.timeout: should be at least 1"),
    ],
)
def test_what_can_t_be_is_refused_when_it_is_made(spec: dict[str, Any], said: str) -> None:
    server = ApiServer()
    server.define(DEFINITION)
    status, answer = server.create(traceflow("a", **spec))
    assert status == 422 and said in answer["message"]


def test_the_examples_that_people_are_shown_are_taken() -> None:
    server = ApiServer()
    server.define(DEFINITION)
    blocks = (ROOT / "docs/trace.md").read_text().split("```yaml\n")[1:]
    shown = [each for block in blocks for each in yaml.safe_load_all(block.partition("```")[0])]
    assert shown
    for each in shown:
        status, answer = server.create(each)
        assert status == 201, answer
        assert answer["spec"].items() >= {key: each["spec"][key] for key in ("source", "destination")}.items()
        assert answer["status"] == {"phase": "Pending"}


# What is asked --------------------------------------------------------------------------------------------------------


def test_ends_and_packets_are_asked_as_everywhere_else() -> None:
    spec = Spec(End(pod="a"), End(service="s", namespace="x"), Packet(port=80, family="IPv6"))
    assert tuple(msgspec.structs.astuple(asked(spec))) == ("default/a", "x/svc/s", "TCP", 80, 6)
    spec = Spec(End(ip="2001:DB8::1"), End(node="n1"))
    assert tuple(msgspec.structs.astuple(asked(spec))) == ("2001:db8::1", "node/n1", "ICMP", 0, 0)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (Spec(End(), End(pod="b")), "spec.source: say one of pod, node, ip; none is there"),
        (Spec(End(service="s"), End(pod="b")), "spec.source: say one of pod, node, ip; not service"),
        (Spec(End(pod="a"), End(pod="b", ip="192.0.2.1")), "spec.destination: say one of .*; not pod and ip"),
        (Spec(End(node="a", namespace="x"), End(pod="b")), "spec.source.namespace: a node is in none"),
        (Spec(End(pod="a"), End(ip="192.0.2")), "spec.destination.ip: '192.0.2' does not appear to be"),
        (Spec(End(pod="a"), End(pod="b"), Packet("UDP")), "spec.packet.port: UDP goes to a port"),
        (Spec(End(pod="a"), End(pod="b"), Packet("ICMP", 80)), "spec.packet.port: ICMP has no ports"),
        (Spec(End(pod="a"), End(pod="b"), Packet("SCTP", 80)), "spec.live: SCTP is traced by the model alone"),
    ],
)
def test_what_the_definition_lets_through_and_can_t_be_is_told_by_its_field(spec: Spec, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        asked(spec)


# Which are due --------------------------------------------------------------------------------------------------------


def known(name: str, phase: str = PENDING, **more: Any) -> reflectors.Found:
    spec = Spec(End(pod="a"), End(pod="b"), timeout=10, ttl_seconds_after_finished=more.pop("ttl", None))
    value = Traceflow(name=name, uid=f"u-{name}", version="1", spec=spec, phase=phase, **{"created": "", **more})
    return reflectors.Found("", name, "1", value)


def test_the_oldest_is_begun_first_and_none_twice() -> None:
    flows = Traceflows()
    flows.take([known("b", created="2026-01-01T00:00:02Z"), known("a", created="2026-01-01T00:00:03Z")])
    flows.take([known("c", created="2026-01-01T00:00:01Z"), known("d", RUNNING), known("e", SUCCEEDED)])
    assert [each.name for each in flows.waiting()] == ["c", "b", "a"]
    flows.claim(flows.waiting()[0])
    # The watch may yet say what it was before it was claimed.
    flows.take([known("c", created="2026-01-01T00:00:01Z")])
    assert [each.name for each in flows.waiting()] == ["b", "a"]
    flows.take([Gone("", "b")])
    assert [each.name for each in flows.waiting()] == ["a"]


def test_one_whose_runner_is_gone_is_given_up_when_its_time_is_over_and_never_begun_again() -> None:
    flows, began = Traceflows(), 1_767_225_600.0
    flows.take([known("a", RUNNING, started="2026-01-01T00:00:00Z")])
    assert flows.waiting() == [] and list(flows.abandoned(began + 10)) == []
    assert [each.name for each in flows.abandoned(began + 10 + GRACE)] == ["a"]
    flows.claim(next(flows.abandoned(began + 60)))
    assert list(flows.abandoned(began + 60)) == []


def test_one_is_deleted_as_long_after_its_end_as_it_says() -> None:
    flows, ended = Traceflows(), 1_767_225_600.0
    flows.take(
        [known(name, SUCCEEDED, completed="2026-01-01T00:00:00Z", ttl=ttl) for name, ttl in (("a", 60), ("b", None))]
    )
    assert list(flows.expired(ended + 59)) == []
    assert [each.name for each in flows.expired(ended + 60)] == ["a"]


# The whole ------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflectors, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(reflectors, "PROBE_INTERVAL", 0.1)
    monkeypatch.setattr(answering, "LOOK_INTERVAL", 0.02)
    monkeypatch.setattr(answering, "RETRY", 0.05)


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with serving() as here:
        here.put(namespace("default"), node("n1", 1), node("n2", 2))
        yield here


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged, heard from the first: to be asked for before the controller, which speaks as soon as it runs."""
    caplog.set_level(logging.INFO, "controller.kubernetes_traces")
    return caplog


@pytest.fixture
async def running(server: ApiServer, tmp_path: Path) -> AsyncIterator[Running]:
    here = Running(server, tmp_path)
    await until((tmp_path / "of").exists, "the controller listens")
    yield here
    await here.end()


def status_of(server: ApiServer, name: str) -> dict[str, Any]:
    return dict((server.get("Traceflow", "", name) or {}).get("status", {}))


def phase_of(server: ApiServer, name: str) -> str:
    return str(status_of(server, name).get("phase", ""))


async def until_phase(server: ApiServer, name: str, phase: str) -> dict[str, Any]:
    await until(lambda: phase_of(server, name) == phase, f"{name} is {phase}: {status_of(server, name)}")
    return status_of(server, name)


async def test_traceflows_are_answered_when_their_definition_comes_and_what_can_t_be_says_why(
    server: ApiServer, logged: pytest.LogCaptureFixture, running: Running
) -> None:
    running.connect("n1")
    running.connect("n2")

    def looks() -> int:
        return sum(each.path == TRACEFLOWS.root for each in server.requests)

    def said() -> int:
        # What was said while the controller was made is among the fixtures' records, and not among the test's.
        records = (*logged.get_records("setup"), *logged.get_records("call"))
        return len([each for each in records if "nobody asks for traces" in each.message])

    await until(lambda: looks() > 6 and said() > 0, "it is looked for again and again")
    assert said() == 1
    server.put(service("default", "empty", "10.96.0.9"), service("default", "web", "10.96.0.8"))
    server.put(endpoint_slice("default", "web-1", "web", "192.0.2.2"))
    server.define(DEFINITION)
    server.create(traceflow("nodes", **NODES))
    server.create(traceflow("served", **NODES | {"destination": {"service": "web"}, "packet": {"port": 80}}))
    server.create(traceflow("refused", **NODES | {"destination": {"service": "empty"}, "packet": {"port": 80}}))
    server.create(traceflow("nobody", **NODES | {"source": {"pod": "nobody"}}))
    server.create(traceflow("family", **NODES | {"packet": {"family": "IPv6"}}))
    found = await until_phase(server, "nodes", SUCCEEDED)
    assert (found["verdict"], found["end"]) == ("Delivered", "the host of n2")
    assert "message" not in found and found["startTime"] <= found["completionTime"]
    # Hosts reach each other without their switches.
    assert found["hops"] == [] and not found["live"] and "differences" not in found
    found = await until_phase(server, "served", SUCCEEDED)
    assert (found["verdict"], found["end"]) == ("Delivered", "the host of n2")
    assert [hop["node"] for hop in found["hops"]] == ["n1", "n2"]
    assert found["hops"][0]["steps"][0].startswith("Classify: ") and found["hops"][0]["to"] == "the tunnel"
    assert (found["service"], found["endpoint"]) == ("10.96.0.8:80", "192.0.2.2:8080")
    assert found["hops"][0]["translations"] == ["destination 10.96.0.8:80 becomes 192.0.2.2:8080"]
    found = await until_phase(server, "refused", SUCCEEDED)
    assert found["verdict"] == "Rejected" and "no endpoint" in found["reason"]
    assert [hop["node"] for hop in found["hops"]] == ["n1"] and found["hops"][0]["steps"][0].startswith("Classify: ")
    found = await until_phase(server, "nobody", "Failed")
    assert found["message"] == "spec.source.pod: no pod default/nobody"
    found = await until_phase(server, "family", "Failed")
    assert found["message"] == "spec.packet.family: source and destination have no IPv6 in common"


async def test_what_is_not_there_yet_is_waited_for_and_failed_in_time(server: ApiServer, running: Running) -> None:
    server.define(DEFINITION)
    server.create(traceflow("soon", **NODES))
    server.create(traceflow("late", **NODES | {"timeout": 1, "source": {"node": "n2"}}))
    found = await until_phase(server, "late", "Failed")
    assert found["message"].startswith("no answer within 1 s: the switch of node n2 isn't known")
    assert phase_of(server, "soon") == RUNNING
    running.connect("n1")
    running.connect("n2")
    await until_phase(server, "soon", SUCCEEDED)


async def test_one_that_was_begun_before_a_restart_is_not_run_again(server: ApiServer, running: Running) -> None:
    server.define(DEFINITION)
    began = {"phase": RUNNING, "startTime": "2026-01-01T00:00:00Z"}
    server.put(traceflow("old", **NODES) | {"status": began})
    running.connect("n1")
    found = await until_phase(server, "old", "Failed")
    assert "went away" in found["message"] and "verdict" not in found
    patches = [each.body for each in server.requests if each.method == "PATCH" and "traceflows" in each.path]
    assert [each["status"]["phase"] for each in patches] == ["Failed"]


async def test_an_answer_is_told_over_an_outage_and_to_nobody_else_of_that_name(
    server: ApiServer, running: Running
) -> None:
    server.define(DEFINITION)

    def answers(name: str) -> list[str]:
        path = TRACEFLOWS.path_of("", name, status=True)
        phases = [each.body["status"]["phase"] for each in server.requests if each.path == path]
        return [each for each in phases if each != RUNNING]

    server.create(traceflow("a", **NODES | {"timeout": 1}))
    await until_phase(server, "a", RUNNING)
    # Another object has its name by the time that there is an answer.
    server.remove("Traceflow", "", "a")
    server.create(traceflow("a", **NODES | {"timeout": 60}))
    await until(lambda: answers("a") == ["Failed"], "the answer of the former one is told")
    # It has its own answer or none.
    await until_phase(server, "a", RUNNING)
    assert answers("a") == ["Failed"]
    server.create(traceflow("b", **NODES | {"timeout": 1}))
    await until_phase(server, "b", RUNNING)
    server.settings.refuse["traceflows"] = 503
    await until(lambda: len(answers("b")) > 1, "its answer is told again and again")
    assert phase_of(server, "b") == RUNNING
    server.settings.refuse.clear()
    await until_phase(server, "b", "Failed")


async def test_one_that_has_served_its_time_is_deleted(server: ApiServer, running: Running) -> None:
    server.define(DEFINITION)
    server.create(traceflow("stays", **NODES | {"timeout": 1}))
    server.create(traceflow("goes", **NODES | {"timeout": 1, "ttlSecondsAfterFinished": 1}))
    await until_phase(server, "goes", "Failed")
    await until(lambda: server.get("Traceflow", "", "goes") is None, "it is deleted")
    assert phase_of(server, "stays") == "Failed"


async def test_of_several_controllers_one_answers(server: ApiServer, tmp_path: Path) -> None:
    server.put(namespace("signalbox"))
    server.define(DEFINITION)
    both = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        both.append(Running(server, tmp_path / name, name))
    for name in ("one", "two"):
        server.create(traceflow(name, **NODES | {"source": {"pod": "nobody"}}))
        await until_phase(server, name, "Failed")
    for each in both:
        await each.end()
    patches = [each.body["status"]["phase"] for each in server.requests if "traceflows" in each.path and each.body]
    assert sorted(patches) == ["Failed", "Failed", RUNNING, RUNNING]
    assert sum(each.path == TRACEFLOWS.path and bool(each.query.get("watch")) for each in server.requests) == 1
