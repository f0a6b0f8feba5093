"""Every mode from end to end, in one lab that is taken from one to the next while it carries traffic.

Two L2 segments with a router between them: node-1 and node-2 are on the first, node-3 on the second.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from attribution import orphans
from callers import SERVERS, Held, applied, call, endpoints, names, node_port, service, to, vips
from conftest import make_service_lab
from linting import Record, established
from policing import forget_flows, policy
from probes import LONG, addresses, inside, node_addresses, ping_all, pings, pod_netns, until

from deploy.lab.cluster import Lab
from deploy.lab.layout import WORLD, netns_path, pod_cidrs
from deploy.lab.layout import node_addresses as underlay

#: In the order in which the lab goes through them, with what pods' MTU must be: the underlay's is 1500.
WAYS = [("routed", "vxlan", 1500), ("hybrid", "geneve", 1450), ("overlay", "gre", 1458)]
CHANGES = [
    ("routed", "vxlan", 1500), ("overlay", "vxlan", 1450), ("hybrid", "vxlan", 1450), ("routed", "vxlan", 1500),
    ("hybrid", "geneve", 1450), ("overlay", "geneve", 1450), ("overlay", "gre", 1458),
]  # fmt: skip
PODS = ("s1", "s2", "s3", "c1", "c2", "c3")
#: Seconds without an answer that a change may mean: see docs/topology.md, where what was measured is.
INTERRUPTION = 3.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    yield from make_service_lab("o", tmp_path_factory.mktemp("modes"), segments=2)


@pytest.fixture
def way(request: pytest.FixtureRequest, mtu: int) -> str:
    """The mode's name."""
    return "-".join(request.node.callspec.params["mtu"][:2])


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: "-".join(way[:2]))
def mtu(request: pytest.FixtureRequest, lab: Lab) -> int:
    """The lab in this mode, and the MTU that pods have then."""
    mode, encap, left = request.param
    change_wholly(lab, mode, encap, left)
    return int(left)


def change_wholly(lab: Lab, mode: str, encap: str, mtu: int) -> None:
    """The same, and wait until agents are done with it.

    What came by a tunnel before its port was there may be cached as nobody's, and stay: see `forget_flows`.
    """
    change(lab, mode, encap)
    until(lambda: all(mtu_in(pod_netns(lab, pod)) == mtu for pod in PODS), f"{mode} by {encap}: pods' MTU of {mtu}")
    forget_flows(lab)


def change(lab: Lab, mode: str, encap: str) -> None:
    """Start the controller anew, in another mode."""
    lab.stop_controller()
    lab.start_controller(mode=mode, encap=encap)
    if mode == "routed":
        # As a network does that routes pods' networks, which the lab's router knows of in this mode alone.
        for index in range(len(lab.nodes)):
            for cidr, address in zip(pod_cidrs(lab.settings, index), underlay(lab.settings, index), strict=True):
                inside(lab.layout.net, ["ip", "route", "replace", str(cidr), "via", str(address)])
    lab.wait_for_sync()


def mtu_in(netns: str) -> int:
    words = inside(netns, ["ip", "link", "show", "dev", "eth0"]).stdout.split()
    return int(words[words.index("mtu") + 1])


def test_everything_reaches_everything_un_natted(lab: Lab, mtu: int) -> None:
    nodes = [address for node in lab.nodes for address in node_addresses(lab, node)]
    pods = [address for pod in PODS for address in addresses(lab, pod)]
    pairs = [(pod_netns(lab, pod), address) for pod in PODS for address in (*pods, *nodes, *WORLD)]
    pairs += [(lab.netns_of_node(node), address) for node in lab.nodes for address in pods]
    assert not ping_all(pairs)
    # The servers on the nodes see pods as pods do.
    for pod in ("c1", "c3"):
        calls = [to(address, 7070, kind) for address in nodes for kind in ("tcp", "udp")]
        for each, (outcome,) in zip(calls, call(pod_netns(lab, pod), *calls), strict=True):
            assert outcome.get("peer") in addresses(lab, pod), (pod, each, outcome)


def test_a_packet_of_the_mtu_crosses_and_a_larger_one_is_refused_at_its_source(lab: Lab, mtu: int) -> None:
    for target, headers in zip(addresses(lab, "s3"), (28, 48), strict=True):
        assert pings(pod_netns(lab, "c1"), target, size=mtu - headers) == 1
        assert pings(pod_netns(lab, "c1"), target, size=mtu - headers + 1, wait=0.2) == 0


def test_services_are_reached_by_their_addresses_and_node_ports(lab: Lab, mtu: int) -> None:
    tcp = {"name": "tcp", "port": 80, "targetPort": 8080}
    udp = {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"}
    host = {"port": 80, "targetPort": 7070}
    everybody = service("everybody", tcp, udp, type="NodePort")
    hosts = service("hosts", host, type="NodePort", selector={"app": "host"})
    nobody = service("nobody", type="NodePort", selector={"app": "nobody"})
    with applied(lab, everybody, hosts, nobody):
        assert orphans(lab) == []
        nodes = [address for node in lab.nodes for address in node_addresses(lab, node)]
        ports = {name: node_port(lab, name) for name in ("everybody", "hosts", "nobody")}
        there = {each["pod"] for each in endpoints(lab, "hosts")}
        places = {pod: pod_netns(lab, pod) for pod in ("c1", "c3")}
        places |= {node: lab.netns_of_node(node) for node in ("node-2", "node-3")} | {"outside": lab.layout.outside}
        for place, netns in places.items():
            calls = [to(address, port, count=8) for port in ports.values() for address in nodes]
            if place != "outside":
                calls += [to(address, 80, kind, 8) for address in vips(lab, "everybody") for kind in ("tcp", "udp")]
                calls += [to(address, 80, count=8) for address in vips(lab, "hosts")]
            for each, outcomes in zip(calls, call(netns, *calls), strict=True):
                found = set(names(outcomes))
                if each["port"] == ports["nobody"]:
                    assert found == {"ECONNREFUSED"}, (place, each, found)
                elif each["port"] == ports["hosts"] or each["address"] in vips(lab, "hosts"):
                    assert found <= there, (place, each, found)
                else:
                    assert found <= set(SERVERS), (place, each, found)


def test_established_connections_are_of_flows_that_tc_takes(lab: Lab, way: str, offload_record: Record) -> None:
    forget_flows(lab)
    with applied(lab, service("linted", type="NodePort")):
        calls = [
            to(address, 8080, kind) for pod in SERVERS for address in addresses(lab, pod) for kind in ("tcp", "udp")
        ]
        calls += [to(address, 7070) for node in lab.nodes for address in node_addresses(lab, node)]
        services = [to(address, 80) for address in vips(lab, "linted")] * 4
        services += [to(address, node_port(lab, "linted")) for address in node_addresses(lab, "node-2")] * 4
        callers = [(pod_netns(lab, pod), [*calls, *services]) for pod in ("c1", "c3")]
        callers += [(lab.netns_of_node("node-1"), services), (lab.layout.outside, services[-8:])]
        found = established(lab, callers)
    offload_record(f"between nodes, {way}", found)
    assert found.failed == [] and len(found.judged) > 100


def test_policies_know_senders_on_other_nodes(lab: Lab, mtu: int) -> None:
    third = {"podSelector": {"matchLabels": {"who": "s3"}}}
    closed = policy("closed", {"who": "s1"}, namespace="default", ingress=[{"from": [third]}])
    pods = {"podSelector": {}}
    away = policy("away", {"who": "s2"}, namespace="default", egress=[{"to": [pods]}], policyTypes=["Egress"])
    forget_flows(lab)
    with applied(lab, closed, away):
        forget_flows(lab)
        first = addresses(lab, "s1")
        assert not ping_all([(pod_netns(lab, "s3"), address) for address in first])
        for stranger in ("s2", "c1", "c3"):
            refused = [(pod_netns(lab, stranger), address) for address in first]
            assert ping_all(refused, wait=0.3) == refused
        # Another node is no pod, by whichever way it is reached.
        nodes = [address for node in ("node-1", "node-3") for address in node_addresses(lab, node)]
        refused = [(pod_netns(lab, "s2"), address) for address in nodes]
        assert ping_all(refused, wait=0.3) == refused
        assert not ping_all([(pod_netns(lab, "s2"), address) for address in addresses(lab, "c3")])
    forget_flows(lab)


def test_a_live_cluster_changes_its_mode_and_connections_live_on(lab: Lab) -> None:
    change_wholly(lab, "overlay", "vxlan", 1450)
    # On c1's own segment, and on the other.
    targets = [address for pod in ("s2", "s3") for address in addresses(lab, pod)]
    for mode, encap, mtu in CHANGES:
        with Held(pod_netns(lab, "c1"), *(to(address, 8080) for address in targets)) as held:
            held.ask()
            asked = [pinging(pod_netns(lab, "c1"), address) for address in targets]
            begun = time.monotonic()
            change_wholly(lab, mode, encap, mtu)
            # Where the machine is busy, all of a change takes longer.
            limit = max(INTERRUPTION, time.monotonic() - begun)
            silences = {target: longest_silence(process) for target, process in zip(targets, asked, strict=True)}
            print(f"to {mode} by {encap}: no answer for", *(f"{each:.2f}" for each in silences.values()), "s")
            assert max(silences.values()) < limit, (mode, encap, silences)
            assert {each["name"] for each in held.ask()} == {"s2", "s3"}


def pinging(netns: str, address: str) -> subprocess.Popen[str]:
    """Pings a hundred times a second, until it is interrupted; each answer is a line with its time."""
    argv = ["nsenter", f"--net={netns_path(netns)}", "--", "ping", "-n", "-D", "-i", "0.01", address]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def longest_silence(process: subprocess.Popen[str]) -> float:
    """The longest time between two answers. It ends with one that comes from now on: somebody is there."""
    assert process.stdout is not None
    begun, times = time.time(), []
    timer = threading.Timer(LONG, process.kill)
    timer.start()
    for line in process.stdout:
        if line.startswith("["):
            times.append(float(line[1 : line.index("]")]))
            if times[-1] > begun:
                break
    timer.cancel()
    process.kill()
    process.communicate()
    assert times[-1] > begun, "no answer any more"
    return max(later - earlier for earlier, later in pairwise(times))
