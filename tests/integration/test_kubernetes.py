"""A cluster whose state comes from an API server (emulated, over HTTP), with real switches, agents and pods."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_process import ROOT, Api
from probes import PODS, pings, pod_netns, until

from deploy.lab import processes
from deploy.lab.cluster import Lab


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
