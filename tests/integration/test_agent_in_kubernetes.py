"""An agent that Kubernetes tells everything that differs from node to node, beside a real switch and controller."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_process import ROOT, Api
from conftest import make_pod_lab
from probes import PODS, pairs_between, ping_all, until
from test_tls import TAKEN, in_use

from deploy import certificates
from deploy.lab import processes
from deploy.lab.cluster import Lab
from deploy.lab.layout import cluster_cidrs, controller_target, node_manifest, service_cidrs
from deploy.lab.processes import Process

HERE = Path(__file__).parent
NODE = "node-2"
LABEL = "node-role.kubernetes.io/control-plane"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three nodes over TLS, with the pods that the lab of all tests has."""
    yield from make_pod_lab("ka", tmp_path_factory.mktemp("manifests"), tls=True)


class Agent:
    """The agent of NODE, which is told on its command line no more than the manifests' ConfigMap says."""

    def __init__(self, lab: Lab, api: Api, directory: Path) -> None:
        self.lab, self.state = lab, directory / "state"
        self.log = directory / "agent.log"
        place = lab.layout.node(NODE)
        port = controller_target(lab.settings, 1).rpartition(":")[2]
        self._argv = [
            sys.executable, "-m", "deploy.command", "node", "--name", NODE, "--datapath-type", "netdev",
            "--ovsdb", f"unix:{place / 'db.sock'}", "--ovs-rundir", str(place), "--socket", str(place / "node.sock"),
            "--kubeconfig", str(api.kubeconfig), "--state-dir", str(self.state),
            "--controller", f"ssl:{LABEL}:{port}", "--tls-secrets", "signalbox-nodes",
            *(word for cidr in cluster_cidrs(lab.settings) for word in ("--cluster-cidr", str(cidr))),
            *(word for cidr in service_cidrs(lab.settings) for word in ("--service-cidr", str(cidr))),
        ]  # fmt: skip

    def start(self) -> Process:
        layout = self.lab.layout
        process = processes.start(self._argv, self.log, netns=layout.node_netns(NODE), env={"PYTHONPATH": str(ROOT)})
        processes.record(layout.processes / f"agent-{NODE}.json", process)
        return process


def node_object(lab: Lab) -> Any:
    return node_manifest(lab.settings, NODE, lab.nodes.index(NODE))


def controller_object(lab: Lab) -> dict[str, Any]:
    address = controller_target(lab.settings, 1).removeprefix("ssl:").rpartition(":")[0]
    return {
        "kind": "Node",
        "metadata": {"name": "controller", "labels": {LABEL: ""}},
        "status": {"addresses": [{"type": "InternalIP", "address": address.strip("[]")}]},
    }


def secret_object(lab: Lab) -> dict[str, Any]:
    pki = lab.layout.pki
    files = {"tls.crt": pki / f"nodes/{NODE}.crt", "tls.key": pki / f"nodes/{NODE}.key", "ca.crt": pki / "ca.crt"}
    return {
        "kind": "Secret",
        "metadata": {"name": f"signalbox-node-{NODE}", "namespace": "signalbox-nodes"},
        "data": {name: base64.b64encode(path.read_bytes()).decode() for name, path in files.items()},
    }


def test_an_agent_is_told_everything_by_kubernetes_and_goes_on_without_it(lab: Lab, tmp_path: Path) -> None:
    api = Api(lab.layout.node_netns(NODE), tmp_path)
    agent = Agent(lab, api, tmp_path)
    lab.stop_agent(NODE)
    try:
        # What isn't there yet is waited for; in the end it is as it was with everything on the command line.
        process = agent.start()
        until(lambda: f"there is no Node {NODE}" in agent.log.read_text(), "it waits for the node")
        api.tell("put", node_object(lab), controller_object(lab))
        until(lambda: f"signalbox-node-{NODE} has no ca.crt" in agent.log.read_text(), "it waits for the Secret")
        api.tell("put", secret_object(lab))
        until(lambda: f"node {NODE} is ready" in agent.log.read_text(), "the node is ready")
        lab.wait_for_sync()
        assert not ping_all(pairs_between(lab, PODS, PODS))

        made = certificates.make_node(lab.layout.pki, NODE, anew=True)
        api.tell("put", secret_object(lab))
        until(lambda: in_use(lab, NODE, "certificate") == made.certificate.read_bytes(), "it is handed on", TAKEN)
        assert processes.is_alive(process)

        api.tell("stop")
        lab.stop_agent(NODE)
        agent.log.unlink()
        process = agent.start()
        until(lambda: f"node {NODE} is ready" in agent.log.read_text(), "it does without the API server", 40.0)
        assert "going on with what was found out at an earlier start" in agent.log.read_text()
        assert in_use(lab, NODE, "certificate") == made.certificate.read_bytes()

        moved = node_object(lab)
        moved["status"]["addresses"].pop(1)
        api.tell("put", moved)
        api.tell("start")
        until(lambda: not processes.is_alive(process), "the agent ends, since its node has other addresses")
        assert agent.log.read_text().splitlines()[-1] == (
            f"Error: Kubernetes says other pod CIDRs, addresses or controllers of {NODE} than before: "
            "the agent ends, to be started anew"
        )
    finally:
        api.close()
        lab.stop_agent(NODE)
        lab.start_agent(NODE)
        lab.wait_for_agents()
