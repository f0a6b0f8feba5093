"""A cluster whose state comes from an API server (emulated, over HTTP), with real switches, agents and pods."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_process import ROOT, Api
from probes import PODS, pings, pod_netns, until

from deploy.lab import processes
from deploy.lab.cluster import Lab

#: Of the Service that the test makes.
VIP = "10.96.7.1"


def as_kubernetes_has_it(lab: Lab) -> Iterator[dict[str, Any]]:
    """What a lab's manifests come to, as an API server would have it: nodes, namespaces and running pods."""
    snapshot = lab.snapshot()
    for node in snapshot.nodes():
        addresses = [{"type": "InternalIP", "address": str(each)} for each in node.addresses]
        spec = {"podCIDRs": [str(each) for each in node.pod_cidrs]}
        yield {"kind": "Node", "metadata": {"name": node.name}, "spec": spec, "status": {"addresses": addresses}}
    rows = {(row["namespace"], row["name"]): row for row in lab.ask("pods")["items"]}
    for name in sorted({each.namespace for each in snapshot.pods()} | {"default", "kube-system"}):
        yield {"kind": "Namespace", "metadata": {"name": name}}
    for pod in snapshot.pods():
        ips = [{"ip": each} for each in rows[pod.namespace, pod.name]["addresses"]]
        yield {
            "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": dict(pod.labels)},
            "spec": {"nodeName": pod.node, "hostNetwork": pod.host_network, "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIPs": ips, "conditions": [{"type": "Ready", "status": "True"}]},
        }


@pytest.fixture
def api(lab: Lab, tmp_path: Path) -> Iterator[Api]:
    """The lab's controller replaced by one that is fed by an API server, for the length of a test."""
    here = Api(lab.layout.net, tmp_path)
    layout = lab.layout
    try:
        here.tell("define", yaml.safe_load((ROOT / "deploy/kubernetes/base/traceflows.yaml").read_text()))
        here.tell("put", *as_kubernetes_has_it(lab))
        argv = [
            sys.executable, "-m", "deploy.command", "controller", "--listen", f"unix:{layout.openflow}",
            "--kubernetes", "--kubeconfig", str(here.kubeconfig), "--context", "here", "--socket", str(layout.api),
        ]  # fmt: skip
        lab.stop_controller()
        log = layout.directory / "controller.log"
        process = processes.start(argv, log, netns=layout.net, env={"PYTHONPATH": str(ROOT)})
        try:
            until(lambda: in_sync(lab), "all switches in sync")
            yield here
        finally:
            processes.stop([process])
    finally:
        here.close()
        lab.start_controller()
        lab.wait_for_sync()


def status(lab: Lab) -> Any:
    with contextlib.suppress(Exception):
        return lab.ask("status")
    return {"nodes": 0, "nodesInSync": 0, "problems": []}


def in_sync(lab: Lab) -> bool:
    said = status(lab)
    return bool(said["nodes"] == len(lab.nodes) == said["nodesInSync"])


def test_the_same_state_is_the_same_flows_and_a_lost_server_takes_nothing_away(lab: Lab, api: Api) -> None:
    # Manifests or an API server: every switch holds what it should, so none was sent anything.
    assert status(lab)["flowModsSent"] == 0, status(lab)
    netns, there = pod_netns(lab, "a1"), address(lab, "b1")
    assert pings(netns, there)
    for name in lab.nodes:
        until(lambda name=name: reason(api, name) == "SignalboxReady", f"the condition of {name}")
    api.tell("stop")
    until(lambda: any("Kubernetes:" in each for each in status(lab)["problems"]), "the outage is told")
    assert in_sync(lab) and status(lab)["flowModsSent"] == 0
    assert pings(netns, there)
    api.tell("remove", "Pod", "default", "b1")
    api.tell("start")
    until(lambda: "b1" not in {row["name"] for row in lab.ask("pods")["items"]}, "the pod is gone")
    assert {row["name"] for row in lab.ask("pods")["items"]} >= set(PODS) - {"b1"}
    until(lambda: not pings(netns, there), "nobody reaches it")


def address(lab: Lab, name: str) -> str:
    (row,) = [row for row in lab.ask("pods")["items"] if row["name"] == name]
    return str(row["addresses"][0])


def reason(api: Api, node: str) -> str:
    found = api.tell("get", "Node", "", node) or {}
    conditions = found.get("status", {}).get("conditions", [])
    return "".join(each["reason"] for each in conditions if each["type"] == "NetworkUnavailable")


def test_traceflows_end_with_what_switches_did(lab: Lab, api: Api) -> None:
    port = {"protocol": "TCP", "port": 80}
    api.tell(
        "put",
        {
            "kind": "NetworkPolicy",
            "metadata": {"name": "closed"},
            "spec": {"podSelector": {"matchLabels": {"app": "c1"}}, "ingress": []},
        },
        {
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"type": "ClusterIP", "clusterIP": VIP, "clusterIPs": [VIP], "ports": [port]},
        },
        {
            "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address(lab, "b1")], "conditions": {"ready": True}}],
        },
    )
    until(lambda: {row["name"] for row in lab.ask("services")["items"]} == {"web"}, "the Service is there")
    until(lambda: {row["name"] for row in lab.ask("policies")["items"]} == {"closed"}, "the policy is there")
    until(lambda: in_sync(lab), "all switches in sync")
    source = {"pod": "a1"}
    for name, spec in {
        "denied": {"source": source, "destination": {"pod": "c1"}, "packet": port},
        "served": {"source": source, "destination": {"service": "web"}, "packet": port},
        "wrong": {"source": source, "destination": {"pod": "c1"}, "packet": {"protocol": "UDP"}},
    }.items():
        status, answer = api.tell(
            "create",
            {
                "apiVersion": "signalbox.io/v1alpha1",
                "kind": "Traceflow",
                "metadata": {"name": name},
                "spec": spec,
            },
        )
        assert status == 201, answer
    denied, served, wrong = (answer_to(api, name) for name in ("denied", "served", "wrong"))
    assert (denied["phase"], denied["verdict"], denied["live"]) == ("Succeeded", "Dropped", True), denied
    assert denied["differences"] == [] and any("default/closed" in each for each in denied["policies"]), denied
    assert (served["verdict"], served["differences"]) == ("Delivered", []), served
    assert served["end"].startswith("pod default/b1 on ")
    assert (served["service"], served["endpoint"]) == (f"{VIP}:80", f"{address(lab, 'b1')}:8080")
    assert any(
        f"becomes {served['endpoint']}" in each for hop in served["hops"] for each in hop.get("translations", ())
    )
    assert wrong["phase"] == "Failed" and wrong["message"].startswith("spec.packet.port: "), wrong


def answer_to(api: Api, name: str) -> dict[str, Any]:
    def status_of() -> dict[str, Any]:
        return dict(api.tell("get", "Traceflow", "", name)["status"])

    until(lambda: status_of()["phase"] in ("Succeeded", "Failed"), f"{name} is answered")
    return status_of()
