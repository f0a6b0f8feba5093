"""What connections live through: endpoints that come and go, replacement of all of them, restarts; what is wrong."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from callers import (
    SERVERS,
    Held,
    applied,
    balanced,
    call,
    conntrack,
    endpoint_slice,
    endpoints,
    names,
    node_port,
    places,
    put,
    refused_at_once,
    service,
    steadily,
    to,
    unlink,
    vips,
    write,
)
from probes import HERE, addresses, node_addresses, pod_netns, until

from deploy.lab import substrate
from deploy.lab.cluster import Lab
from deploy.lab.layout import LabError

TCP = {"name": "tcp", "port": 80, "targetPort": 8080}
UDP = {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"}


@pytest.fixture(scope="module")
def lab(service_lab: Lab) -> Lab:
    return service_lab


def slices(lab: Lab, name: str, *pods: str) -> list[dict[str, Any]]:
    """Slices with these pods; without any they have none."""
    ports = [{"name": "tcp", "port": 8080}, {"name": "udp", "port": 8080, "protocol": "UDP"}]
    found = []
    for index, version in enumerate(("IPv4", "IPv6")):
        each = endpoint_slice(name, version.lower(), [{"address": addresses(lab, pod)[index]} for pod in pods], ports)
        each["addressType"] = version
        found.append(each)
    return found


# Connections ----------------------------------------------------------------------------------------------------------


def test_endpoints_that_come_and_go_disturb_no_connection_of_another(lab: Lab) -> None:
    with applied(lab, service("held", TCP, UDP, type="NodePort", selector=None), *slices(lab, "held", "s1", "s2")):
        ways = [(address, 80) for address in vips(lab, "held")]
        clients = dict.fromkeys(("pod c1", "pod c3", "node-2"), ways)
        clients["outside"] = [(each, node_port(lab, "held")) for each in node_addresses(lab, "node-3")]
        with contextlib.ExitStack() as stack:
            held = {
                place: stack.enter_context(Held(places(lab)[place], *(to(*way) for way in each * 8)))
                for place, each in clients.items()
            }
            before = {place: [(each["name"], each["peer_port"]) for each in one.ask()] for place, one in held.items()}
            assert {name for each in before.values() for name, _ in each} == {"s1", "s2"}
            for pods in (("s1", "s2", "s3"), ("s2", "s3"), ("s3",), ("s1", "s3")):
                write(lab, *slices(lab, "held", *pods))
                for place, one in held.items():
                    # TCP connections to an endpoint that is taken away go on too: its pod is still there.
                    now = [(each.get("name", each.get("error")), each.get("peer_port")) for each in one.ask()]
                    assert now == before[place], (pods, place)
            # New ones are another matter.
            found = call(pod_netns(lab, "c1"), *(to(*way, count=10) for way in ways))
            assert set(names(chain(*found))) == {"s1", "s3"}


def test_udp_clients_of_an_endpoint_that_is_gone_are_served_by_another_at_once(lab: Lab) -> None:
    with applied(lab, service("flushed", TCP, UDP, type="NodePort", selector=None), *slices(lab, "flushed", "s1")):
        calls = {
            "pod c1": [to(address, 80, "udp") for address in vips(lab, "flushed")],
            "pod c3": [to(address, 80, "udp") for address in vips(lab, "flushed")],
            "node-2": [to(address, 80, "udp") for address in vips(lab, "flushed")],
            "outside": [to(each, node_port(lab, "flushed", 1), "udp") for each in node_addresses(lab, "node-2")],
        }
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(Held(places(lab)[place], *each)) for place, each in calls.items()]
            for one in held:
                # Twice from one port, so that the connections count as answered.
                for _ in range(2):
                    assert [each.get("name") for each in one.ask()] == ["s1", "s1"]
            gone = [f"src={address}," for address in addresses(lab, "s1")]

            def entries(node: str) -> list[str]:
                return [
                    line for each in gone for line in conntrack(lab, node, each)
                    if line.startswith("udp") and ",reply=(" + each in line and ",zone=233" in line
                ]  # fmt: skip

            assert all(entries(node) for node in lab.nodes)
            write(lab, *slices(lab, "flushed", "s2"))
            assert {node: entries(node) for node in lab.nodes} == {node: [] for node in lab.nodes}
            for one in held:
                found = one.ask()
                # Each has asked once: whoever answers has done so at once.
                assert [each.get("name") for each in found] == ["s2", "s2"], found


def test_connections_to_a_pod_that_is_gone_are_forgotten(lab: Lab, tmp_path: Path) -> None:
    manifest = workload("gone", "Pod", 1)
    path = tmp_path / "gone.yaml"
    path.write_text(yaml.safe_dump(manifest))
    lab.apply([path])
    with applied(lab, service("gone", TCP, UDP, selector={"app": "gone"})):
        ways = [to(address, 80, kind) for address in vips(lab, "gone") for kind in ("tcp", "udp")]
        with Held(pod_netns(lab, "c1"), *ways) as held:
            assert {each.get("name") for each in held.ask()} == {"gone"}
            gone = addresses(lab, "gone")
            assert all(conntrack(lab, "node-1", f"reply=(src={address},") for address in gone)
            lab.delete([path])
            for node in lab.nodes:
                assert not [line for address in gone for line in conntrack(lab, node, f"reply=(src={address},")]
        refused_at_once(pod_netns(lab, "c1"), *ways)


# Replacement ----------------------------------------------------------------------------------------------------------


def workload(name: str, kind: str, version: int, replicas: int = 3) -> dict[str, Any]:
    """Servers of one name; another version replaces all of them."""
    server = {
        "name": "server",
        "command": ["python3", "-I", str(HERE / "line_server.py"), "8080"],
        "env": [{"name": "VERSION", "value": str(version)}],
        "ports": [{"name": "lines", "containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": "lines"}},
    }
    pod = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [server]}}
    if kind == "Pod":
        metadata = {"name": name, "namespace": "default", "labels": {"app": name}}
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": pod["spec"]}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": pod},
    }


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_no_request_fails_while_all_endpoints_are_replaced(lab: Lab, tmp_path: Path, kind: str) -> None:
    name = f"rolling-{kind.lower()}"
    path = tmp_path / "rolling.yaml"

    def apply(version: int) -> set[str]:
        path.write_text(yaml.safe_dump(workload(name, kind, version)))
        lab.apply([path])
        return {each["address"] for each in endpoints(lab, name) if each["used"]}

    ports = {**TCP, "targetPort": "lines"}, {**UDP, "targetPort": 8080}
    with applied(lab, service(name, *ports, type="LoadBalancer", selector={"app": name})):
        try:
            first = apply(1)
            assert len(first) == 6
            inner = [to(address, 80) for address in vips(lab, name)]
            outer = [to(address, 80) for address in balanced(lab, name)]
            outer += [to(address, node_port(lab, name)) for address in node_addresses(lab, "node-1")]
            clients = [
                (pod_netns(lab, "c1"), inner),
                (lab.netns_of_node("node-2"), inner),
                (lab.layout.outside, outer),
            ]
            with steadily(*clients) as running:
                second = apply(2)
            assert len(second) == 6
            if kind == "Deployment":
                assert not first & second
            for each in running:
                outcomes = each.finish()
                # As many as the machine has had time for: new pods take over within half a second where it is quick.
                assert len(outcomes) >= 5
                assert not [outcome for outcome in outcomes if "error" in outcome]
            served = set(names(chain(*(each.finish() for each in running))))
            # One of three that is never chosen: once in 12 billion.
            anew = [to(address, 80, count=30) for address in vips(lab, name)]
            now = set(names(chain(*call(pod_netns(lab, "c1"), *anew))))
            assert len(now) == 3, now
            assert served - now if kind == "Deployment" else served <= now, served
        finally:
            lab.delete([path])


# Restarts -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def restarted(lab: Lab) -> Iterator[list[tuple[str, list[dict[str, Any]]]]]:
    """A Service of every way in, and calls of it from everywhere."""
    with applied(
        lab,
        service("restarts", TCP, UDP, type="LoadBalancer", sessionAffinity="None"),
        service("sticks", sessionAffinity="ClientIP"),
    ):
        inner = [to(each, 80, kind, 3) for each in vips(lab, "restarts") for kind in ("tcp", "udp")]
        inner += [to(each, 80, count=3) for each in vips(lab, "sticks")]
        outer = [to(each, 80, kind, 3) for each in balanced(lab, "restarts") for kind in ("tcp", "udp")]
        outer += [to(each, node_port(lab, "restarts"), count=3) for each in node_addresses(lab, "node-2")]
        yield [
            (pod_netns(lab, "c2"), inner + outer),
            (lab.netns_of_node("node-2"), inner + outer),
            (pod_netns(lab, "c1"), inner + outer),
            (lab.layout.outside, outer),
        ]


def all_answer(calls: list[tuple[str, list[dict[str, Any]]]], timeout: float = 3.0) -> bool:
    for netns, each in calls:
        found = names(chain(*call(netns, *({**one, "timeout": timeout} for one in each))))
        if not set(found) <= set(SERVERS):
            return False
    return True


@pytest.mark.parametrize("how", ["killed and started", "crashed"])
def test_services_work_again_after_a_switch_has_died(
    lab: Lab, restarted: list[tuple[str, list[dict[str, Any]]]], how: str
) -> None:
    assert all_answer(restarted)
    former = lab.switch_process("node-2")
    if how == "crashed":
        lab.stop_switch("node-2", signal.SIGSEGV)
        until(lambda: _restarted(lab, former), "ovs-vswitchd's monitor starts it anew")
        substrate.prepare_switch(lab.layout, lab.settings, "node-2", 1)
    else:
        lab.stop_switch("node-2", signal.SIGKILL)
        lab.start_switch("node-2")
    until(lambda: all_answer(restarted, 0.3), "Services answer from everywhere")
    lab.wait_for_sync()


def _restarted(lab: Lab, former: object) -> bool:
    with contextlib.suppress(LabError):
        return lab.switch_process("node-2") != former
    return False


def test_a_controller_that_starts_again_sends_nothing_and_no_call_fails(
    lab: Lab, restarted: list[tuple[str, list[dict[str, Any]]]]
) -> None:
    lab.wait_for_sync()
    with steadily(*((netns, calls) for netns, calls in restarted[:2])) as running:
        lab.stop_controller(signal.SIGKILL)
        lab.start_controller()
        lab.wait_for_sync()
        sent = {each["name"]: (each["flowModsSent"], each["bundlesSent"]) for each in lab.ask("nodes")["items"]}
    assert sent == dict.fromkeys(lab.nodes, (0, 0))
    for each in running:
        outcomes = each.finish()
        assert len(outcomes) >= 5 and not [one for one in outcomes if "error" in one]


def test_what_changes_while_the_controller_is_away_is_made_up_for(lab: Lab) -> None:
    late = service("late")
    lab.stop_controller(signal.SIGKILL)
    path = lab.layout.manifests / "service.default.late.yaml"
    put(path, yaml.safe_dump(late))
    lab.start_controller()
    lab.wait_for_sync()
    try:
        assert set(names(chain(*call(pod_netns(lab, "c1"), *(to(each, 80) for each in vips(lab, "late")))))) <= set(
            SERVERS
        )
    finally:
        unlink(lab, late)


# What is wrong --------------------------------------------------------------------------------------------------------


def problems(lab: Lab, text: str) -> list[str]:
    return [line for line in lab.ask("status")["problems"] if text in line]


def test_what_is_wrong_is_told_and_everything_else_works(lab: Lab) -> None:
    def broken(name: str, **spec: Any) -> dict[str, Any]:
        return service(name, **{"ipFamilyPolicy": "SingleStack", **spec})

    port_0 = broken("port-zero")
    port_0["spec"]["ports"] = [{"port": 0}]
    bad = [
        broken("outside-range", clusterIP="192.0.2.77"),
        broken("first-of-two", clusterIP="10.96.7.7"),
        broken("second-of-two", clusterIP="10.96.7.7"),
        port_0,
        broken("port-taken-a", type="NodePort"),
        broken("port-taken-b", type="NodePort"),
        service("nobodys", TCP, selector=None),
        endpoint_slice("nobodys", "x", [{"address": "10.244.1.200"}], [{"name": "tcp", "port": 8080}]),
    ]
    for each in bad[4:6]:
        each["spec"]["ports"] = [{"port": 80, "targetPort": 8080, "nodePort": 31999}]
    with applied(lab, service("good"), *bad):
        for words in (
            ("Service default/outside-range", "not in the range"),
            ("Service default/second-of-two", "10.96.7.7", "already"),
            ("Service default/port-zero", "port"),
            ("Service default/port-taken-b", "31999", "already"),
            ("EndpointSlice default/nobodys-x", "10.244.1.200", "no pod's"),
        ):
            (line,) = problems(lab, words[0])
            assert all(word in line for word in words), line
        assert len(lab.ask("status")["problems"]) == 5
        listed = {each["name"] for each in lab.ask("services")["items"]}
        assert {"good", "first-of-two", "port-taken-a"} <= listed
        calls = [to(each, 80, count=3) for each in (*vips(lab, "good"), "10.96.7.7")]
        calls += [to(node_addresses(lab, "node-3")[0], 31999, count=3)]
        assert set(names(chain(*call(pod_netns(lab, "c1"), *calls)))) <= set(SERVERS)
    assert lab.ask("status")["healthy"]


def test_a_service_that_breaks_keeps_its_last_good_state(lab: Lab) -> None:
    with applied(lab, service("breaks")):
        before = vips(lab, "breaks")
        worse = service("breaks")
        worse["spec"]["ports"] = [{"port": 70000}]
        write(lab, worse)
        assert problems(lab, "Service default/breaks")
        assert vips(lab, "breaks") == before
        assert set(names(chain(*call(pod_netns(lab, "c1"), *(to(each, 80) for each in before))))) <= set(SERVERS)
        write(lab, service("breaks"))
        assert not problems(lab, "Service default/breaks")
