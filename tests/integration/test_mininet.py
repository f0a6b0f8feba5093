"""Mininet networks of Signalbox switches: everything reaches everything, over loops, and again after a link is cut."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import mininet_box
import networkx as nx
import pytest

pytestmark = pytest.mark.skipif(
    not mininet_box.mininet_package().is_dir() or shutil.which("mnexec") is None,
    reason="needs Mininet: apt-get install mininet",
)

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: Seconds without an answer that are far too many, on however busy a machine; benchmarks/mininet_links.py has figures.
_FAR_TOO_LONG = 1.5


def drive(directory: Path, *words: str) -> dict[str, Any]:
    done = mininet_box.run([sys.executable, str(HERE / "mininet_driver.py"), *words], directory, timeout=170)
    assert done.returncode == 0, done.stdout[-5000:]
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def check(told: dict[str, Any]) -> None:
    assert told["dropped"] == 0
    for cut in told["cuts"]:
        assert not cut["unreached_down"] and not cut["unreached_up"], cut
        assert cut["down"] < _FAR_TOO_LONG and cut["up"] < _FAR_TOO_LONG, cut
    # A packet that went round would be sent again and again: there are no more than pings, answers and frames of LLDP.
    longest = told["switches"] + 1
    asked = 10 * 2 * told["wires"] + 20 * told["hosts"]
    assert told["carried"] < 2 * told["pings"] * longest + asked
    # Wires that were cut are told of, and nothing else.
    assert not [line for line in told["log"] if not ("controller.chronicle: Link " in line and told["cuts"])]


@pytest.mark.parametrize(("words", "links"), [("linear 5", 0), ("tree 3 2", 0), ("torus 3 3", 3), ("fat-tree 4", 2)])
def test_all_hosts_reach_each_other_and_do_so_after_a_link_is_cut_and_when_it_is_back(
    tmp_path: Path, words: str, links: int
) -> None:
    told = drive(tmp_path, *words.split(), "--links", str(links))
    check(told)
    assert len(told["cuts"]) == links


def test_a_graph_out_of_a_file_is_a_network(tmp_path: Path) -> None:
    graph = nx.connected_watts_strogatz_graph(22, 4, 0.3, seed=7)
    nx.write_graphml(nx.relabel_nodes(graph, lambda number: f"Town {number}"), tmp_path / "towns.graphml")
    told = drive(tmp_path, "graphml", str(tmp_path / "towns.graphml"), "--links", "2")
    check(told)
    assert (told["switches"], told["wires"]) == (22, graph.number_of_edges())


def test_switches_without_hosts_know_of_nodes_only(tmp_path: Path) -> None:
    told = drive(tmp_path, "fat-tree", "4")
    flows = {row["name"]: row["flows"] for row in told["nodes"]}
    core, edge = flows["core1"], flows["edge1x1"]
    assert core < 40 < edge


_SHOP = """
apiVersion: signalbox.io/v1alpha1
kind: Workload
metadata: {name: h1, labels: {app: web}}
---
apiVersion: signalbox.io/v1alpha1
kind: Workload
metadata: {name: h2, labels: {app: web}}
---
apiVersion: signalbox.io/v1alpha1
kind: Workload
metadata: {name: h3, labels: {app: client}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.10, selector: {app: web}, ports: [{port: 80, targetPort: 8000}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]
"""
_SCRIPT = """
from mininet.net import Mininet
from mininet.topo import LinearTopo
from deploy.mininet import Signalbox, SignalboxSwitch

net = Mininet(topo=LinearTopo(4), controller=Signalbox, switch=SignalboxSwitch)
net.start()
for name in ("h1", "h2"):
    host = net.get(name)
    host.cmd(f"mkdir -p {name} && echo {name} > {name}/name")
    host.cmd(f"(cd {name}; python3 -m http.server 8000 >/dev/null 2>&1 &)")
    while "200" not in host.cmd("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8000/name"):
        pass
ask = "curl -s -m {} http://10.96.0.10/name"
print("CLIENT", sorted({net.get("h3").cmd(ask.format(30)).strip() for _ in range(20)}))
print("OTHER", repr(net.get("h4").cmd(ask.format(2)).strip()))
net.get("h4").cmd("iperf -s >/dev/null 2>&1 &")
while ":5001" not in net.get("h4").cmd("ss -tln"):
    pass
print("IPERF", net.get("h3").cmd("iperf -t 1 -c 10.0.0.4").splitlines()[-1])
net.configLinkStatus("s2", "s3", "down")
print("CUT", repr(net.get("h3").cmd("ping -c1 -W1 10.0.0.1 >/dev/null && echo yes").strip()))
net.configLinkStatus("s2", "s3", "up")
net.controllers[0].wait(net.switches)
print("MENDED", repr(net.get("h3").cmd("ping -c1 -w30 10.0.0.1 >/dev/null && echo yes").strip()))
net.stop()
"""


def test_services_and_policies_are_read_from_the_file_beside_the_script(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(_SCRIPT)
    (tmp_path / "shop.yaml").write_text(_SHOP)
    done = mininet_box.run([sys.executable, str(tmp_path / "shop.py")], tmp_path)
    assert done.returncode == 0, done.stdout[-5000:]
    lines = done.stdout.splitlines()
    assert "CLIENT ['h1', 'h2']" in lines
    assert "OTHER ''" in lines
    assert "CUT ''" in lines and "MENDED 'yes'" in lines
    assert any(line.startswith("IPERF") and line.endswith("bits/sec") for line in lines)


def test_mininets_own_command_line_takes_topologies_of_signalboxs(tmp_path: Path) -> None:
    words = ["--custom", str(ROOT / "deploy/mininet/custom.py"), "--topo", "signalbox,leaf-spine,2,2,1"]
    done = mininet_box.run([sys.executable, shutil.which("mn") or "mn", *words, "--test", "pingall"], tmp_path)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "Results: 0% dropped (2/2 received)" in done.stdout


@pytest.mark.parametrize(
    ("topology", "said"),
    [
        ("signalbox,graphml,none.graphml", "none.graphml: No such file or directory"),
        ("signalbox,graphml,mninet.txt", "mninet.txt: not GraphML"),
        ("signalbox,fat-tree,3", "fat-tree 3: the number of a switch's ports is even, as 4"),
        ("signalbox,ring,3", "there are fat-tree, leaf-spine, graphml, single, linear, tree, torus"),
    ],
)
def test_a_topology_that_cannot_be_is_refused_with_what_is_wrong(tmp_path: Path, topology: str, said: str) -> None:
    (tmp_path / "mninet.txt").write_text("no graph")
    words = ["--custom", str(ROOT / "deploy/mininet/custom.py"), "--topo", topology, "--test", "none"]
    done = mininet_box.run([sys.executable, shutil.which("mn") or "mn", *words], tmp_path)
    assert said in done.stdout
