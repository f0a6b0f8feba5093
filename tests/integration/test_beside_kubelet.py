"""A node's agent beside kubelet and kube-proxy: what it installs for the runtime, and whose rules a packet meets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from probes import addresses, inside, node_addresses, pings, until

from deploy.lab import processes, substrate
from deploy.lab.cluster import Lab, owner, settings_for
from deploy.lab.processes import Process

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "deploy/lab/examples"
NODE = "node-1"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two nodes, and a Service `web` with a node port."""
    here = Lab(f"k{os.getpid()}")
    problems = here.up(settings_for(here.layout.name, 2, **owner(os.getpid())), [EXAMPLES])
    try:
        assert not problems
        yield here
    finally:
        here.down()


# What the runtime finds -----------------------------------------------------------------------------------------------


class Agent:
    """The agent of a node, started as beside a kubelet: with places for its plugin and its configuration."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.conf_dir, self.bin_dir = directory / "net.d", directory / "bin"
        before = processes.recorded(lab.layout.processes / f"agent-{NODE}.json")
        assert before is not None
        told = Path(f"/proc/{before.pid}/cmdline").read_text().rstrip("\0").split("\0")
        self.argv = [*told, "--cni-conf-dir", str(self.conf_dir), "--cni-bin-dir", str(self.bin_dir)]
        self.process = before

    @property
    def configuration(self) -> Path:
        return self.conf_dir / "10-signalbox.conflist"

    def start(self) -> None:
        layout = self.lab.layout
        log = layout.node(NODE) / "agent.log"
        netns = layout.node_netns(NODE)
        self.process: Process = processes.start(self.argv, log, netns=netns, env={"PYTHONPATH": str(ROOT)})
        processes.record(layout.processes / f"agent-{NODE}.json", self.process)

    def stop(self) -> None:
        self.lab.stop_agent(NODE)


@pytest.fixture
def agent(lab: Lab, tmp_path: Path) -> Iterator[Agent]:
    here = Agent(lab, tmp_path)
    here.stop()
    yield here
    here.stop()
    lab.start_agent(NODE)
    lab.wait_for_agents()


def call(agent: Agent, command: str, config: dict[str, Any], version: str) -> subprocess.CompletedProcess[str]:
    """The plugin as a runtime runs it: found by its type, with one entry of the list as its configuration."""
    (entry,) = config["plugins"]
    return subprocess.run(
        [agent.bin_dir / entry["type"]],
        input=json.dumps({**entry, "name": config["name"], "cniVersion": version}),
        env={"CNI_COMMAND": command, "CNI_PATH": str(agent.bin_dir)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def written(path: Path) -> tuple[int, int]:
    """Which file it is, and as of when. (When it was read, changes.)"""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def test_the_runtime_finds_the_plugin_and_its_configuration_once_the_node_is_ready(lab: Lab, agent: Agent) -> None:
    database = processes.of_pidfile(lab.layout.node(NODE) / "ovsdb.pid")
    assert database is not None
    os.kill(database.pid, signal.SIGSTOP)
    try:
        agent.start()
        until(lambda: (agent.bin_dir / "signalbox-cni").exists(), "the plugin is installed")
        assert not agent.configuration.exists()
    finally:
        os.kill(database.pid, signal.SIGCONT)
    until(agent.configuration.exists, "the configuration is written")
    config = json.loads(agent.configuration.read_text())
    assert config["cniVersion"] in config["cniVersions"] and "1.1.0" in config["cniVersions"]
    done = call(agent, "STATUS", config, "1.1.0")
    assert (done.returncode, done.stdout) == (0, "") or json.loads(done.stdout)["code"] == 51
    before = written(agent.configuration)
    agent.stop()
    assert agent.configuration.exists(), "running pods are still to be deleted by it"
    done = call(agent, "DEL", config, "1.0.0")
    assert json.loads(done.stdout)["code"] in (4, 11)
    agent.start()
    lab.wait_for_agents()
    assert written(agent.configuration) == before
    assert [each.name for each in agent.conf_dir.iterdir()] == [agent.configuration.name]


def test_a_directory_that_can_t_be_written_to_ends_the_agent_with_a_word(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "bin").write_text("not a directory")
    agent.start()
    until(lambda: not processes.is_alive(agent.process), "the agent ends")
    assert "--cni-bin-dir" in (agent.lab.layout.node(NODE) / "agent.log").read_text().splitlines()[-1]


# kube-proxy -----------------------------------------------------------------------------------------------------------


def kube_proxy(cluster_ip: str, endpoint: str, node_port: int, priority: int) -> str:
    """What kube-proxy of the nftables mode would have for one Service with one endpoint, with counters."""
    lands = f"ip daddr {cluster_ip} tcp dport 80"
    arrives = f"fib daddr type local tcp dport {node_port}"
    return f"""
        table ip kube-proxy {{
          counter pods {{ }}
          counter host {{ }}
          counter outside {{ }}
          chain marked {{ meta mark set meta mark or 0x4000; }}
          chain prerouting {{
            type nat hook prerouting priority {priority}; policy accept;
            {lands} counter name pods jump marked
            {lands} dnat to {endpoint}:8080
            {arrives} counter name outside jump marked
            {arrives} dnat to {endpoint}:8080
          }}
          chain output {{
            type nat hook output priority {priority}; policy accept;
            {lands} counter name host jump marked
            {lands} dnat to {endpoint}:8080
            {arrives} dnat to {endpoint}:8080
          }}
          chain postrouting {{
            type nat hook postrouting priority {priority + 200}; policy accept;
            meta mark and 0x4000 == 0 return
            meta mark set meta mark xor 0x4000
            masquerade fully-random
          }}
        }}
    """


@pytest.fixture(params=[-110, -90], ids=["before ours", "after ours"])
def proxied(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """A node with kube-proxy's rules, which send everything to one pod of the other node; that pod's name."""
    (web,) = (row for row in lab.ask("services")["items"] if row["name"] == "web")
    (cluster_ip,) = (each for each in web["clusterIPs"] if "." in each)
    netns = lab.layout.node_netns(NODE)
    name = next(
        row["name"] for row in lab.ask("pods")["items"] if row["name"].startswith("web-") and row["node"] != NODE
    )
    rules = kube_proxy(cluster_ip, addresses(lab, name)[0], 30080, request.param)
    substrate.run(["nft", "-f", "-"], netns=netns, text=rules)
    yield name
    substrate.run(["nft", "delete", "table", "ip", "kube-proxy"], netns=netns)


def counted(lab: Lab, name: str) -> int:
    told = substrate.run(["nft", "-j", "list", "counters"], netns=lab.layout.node_netns(NODE))
    return next(each["counter"]["packets"] for each in json.loads(told)["nftables"]
                if each.get("counter", {}).get("name") == name)  # fmt: skip


def answers(netns: str, address: str, port: int, count: int = 12) -> list[str]:
    """Who answered, and as whom it saw the client."""
    script = (
        "import sys, urllib.request\n"
        "for _ in range(int(sys.argv[2])):\n"
        "    print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode().strip())"
    )
    done = inside(netns, ["python3", "-Ic", script, f"http://{address}:{port}/", str(count)])
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def cluster_ip(lab: Lab) -> str:
    (web,) = (row for row in lab.ask("services")["items"] if row["name"] == "web")
    return str(next(each for each in web["clusterIPs"] if "." in each))


def test_what_pods_call_never_meets_kube_proxy(lab: Lab, proxied: str) -> None:
    client = next(row for row in lab.ask("pods")["items"] if row["name"].startswith("client-") and row["node"] == NODE)
    netns = lab.layout.pod_netns(client["namespace"], client["name"])
    told = answers(netns, cluster_ip(lab), 80, 40)
    assert len({each.split()[0] for each in told}) > 1, "the switch balances; these rules know one endpoint"
    assert {each.split()[-1] for each in told} == {addresses(lab, client["name"])[0]}, "nobody masquerades"
    assert answers(netns, node_addresses(lab, NODE)[0], 30080)
    assert counted(lab, "pods") == counted(lab, "outside") == 0


def test_what_the_host_calls_goes_by_kube_proxy_and_works(lab: Lab, proxied: str) -> None:
    netns = lab.layout.node_netns(NODE)
    told = answers(netns, cluster_ip(lab), 80)
    assert {each.split()[0] for each in told} == {proxied}
    assert counted(lab, "host") == len(told)
    assert answers(netns, node_addresses(lab, NODE)[0], 30080)
    assert pings(netns, addresses(lab, proxied)[0]) == 1


def test_node_ports_work_from_outside_whichever_of_the_two_is_first(lab: Lab, proxied: str) -> None:
    assert len(answers(lab.layout.outside, node_addresses(lab, NODE)[0], 30080)) == 12


def test_an_agent_that_starts_leaves_kube_proxy_s_rules_alone(lab: Lab, proxied: str) -> None:
    netns = lab.layout.node_netns(NODE)
    before = substrate.run(["nft", "-s", "list", "table", "ip", "kube-proxy"], netns=netns)
    lab.stop_agent(NODE)
    lab.start_agent(NODE)
    lab.wait_for_agents()
    assert substrate.run(["nft", "-s", "list", "table", "ip", "kube-proxy"], netns=netns) == before
    assert {each.split()[0] for each in answers(netns, cluster_ip(lab), 80)} == {proxied}
