"""Machines that somebody else puts on a node's bridge: objects of kind Workload, in a lab of three nodes."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from attribution import orphans, owners
from callers import AT_ONCE, OUTSIDE, applied, call, ip, names, service, signalbox, to, vips
from linting import Record, established
from machines import Machine
from policing import policed, policy
from probes import HERE, addresses, answers, inside, node_addresses, pings, pod_netns, until

from deploy.lab.cluster import Lab
from deploy.lab.layout import netns_path

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
PORT = 8080


@pytest.fixture(scope="module")
def lab(service_lab: Lab) -> Lab:
    return service_lab


@pytest.fixture(scope="module")
def machines(lab: Lab) -> Iterator[tuple[Machine, Machine]]:
    """m1 on node-1 and m2 on node-2, with addresses of networks that the cluster knows nothing of; m1 serves."""
    made = (
        Machine(lab, "m1", "node-1", "52:54:00:00:00:01", ("203.0.113.65", "2001:db8:2::1")),
        Machine(lab, "m2", "node-2", "52:54:00:00:00:02", ("203.0.113.130", "2001:db8:3::2")),
    )
    for each in made:
        each.configure()
        each.plug()
    m1 = made[0]
    server = subprocess.Popen(
        ["nsenter", f"--net={netns_path(m1.netns)}", "--", "python3", "-I", str(HERE / "line_server.py"), str(PORT)],
        env={"HOSTNAME": "m1", "PATH": "/usr/bin:/bin"},
    )
    try:
        with applied(lab, *(each.document() for each in made)):
            for each in made:
                until(functools.partial(ready, lab, each.name), f"{each.name} is ready")
                each.known_to_hosts()
            until(lambda: bool(served(m1.netns, m1.addresses[0])), "m1 serves")
            yield made
    finally:
        server.kill()
        server.wait()
        for each in made:
            each.leave()


def ready(lab: Lab, name: str) -> bool:
    return any((row["name"], row["status"]) == (name, "Ready") for row in lab.ask("pods")["items"])


def served(netns: str, address: str, port: int = PORT) -> list[str]:
    """Who answers, of one call."""
    (outcomes,) = call(netns, to(address, port))
    return [each["name"] for each in outcomes if "name" in each]


@FAMILIES
def test_machines_and_pods_on_all_nodes_reach_each_other(
    lab: Lab, machines: tuple[Machine, Machine], family: int
) -> None:
    m1, m2 = machines
    answers(m1.netns, m2.addresses[family])
    for pod in ("c1", "c2", "c3"):
        answers(m1.netns, addresses(lab, pod)[family])
        answers(pod_netns(lab, pod), m1.addresses[family])
        answers(pod_netns(lab, pod), m2.addresses[family])


def test_established_connections_of_machines_are_of_flows_that_tc_takes(
    lab: Lab, machines: tuple[Machine, Machine], offload_record: Record
) -> None:
    m1, m2 = machines
    calls = [to(address, PORT) for address in m1.addresses]
    places = [m2.netns, pod_netns(lab, "c1"), pod_netns(lab, "c3"), lab.netns_of_node("node-2")]
    callers = [(netns, calls) for netns in places]
    callers.append((m1.netns, [to(address, 8080) for pod in ("s1", "s2") for address in addresses(lab, pod)]))
    found = established(lab, callers, [(m1.netns, address) for address in m2.addresses])
    offload_record("machines", found)
    assert found.failed == [] and len(found.judged) > 40


@FAMILIES
def test_every_node_reaches_a_machine_and_a_machine_every_node(
    lab: Lab, machines: tuple[Machine, Machine], family: int
) -> None:
    for node in lab.nodes:
        answers(lab.netns_of_node(node), machines[0].addresses[family])
        answers(machines[0].netns, node_addresses(lab, node)[family])


@FAMILIES
def test_a_machine_that_speaks_to_the_world_is_seen_as_itself(
    lab: Lab, machines: tuple[Machine, Machine], family: int
) -> None:
    """The world has a way back to its network by its node; so nothing masquerades it."""
    m1 = machines[0]
    ip(lab.layout.outside, "route", "add", m1.addresses[family], "via", node_addresses(lab, "node-1")[family])
    try:
        answers(m1.netns, OUTSIDE[family])
        answers(lab.layout.outside, m1.addresses[family])
        assert served(lab.layout.outside, m1.addresses[family]) == ["m1"]
    finally:
        ip(lab.layout.outside, "route", "del", m1.addresses[family])


@FAMILIES
def test_a_machine_is_a_client_and_an_endpoint_of_services(
    lab: Lab, machines: tuple[Machine, Machine], family: int
) -> None:
    m1, m2 = machines
    with applied(lab, service("pods"), service("machine", selector={"machine": "m1"})):
        (outcomes,) = call(m2.netns, to(vips(lab, "pods")[family], 80, count=20))
        assert set(names(outcomes)) <= {"s1", "s2", "s3"} and sum(names(outcomes).values()) == 20
        vip = vips(lab, "machine")[family]
        for netns in (m1.netns, m2.netns, pod_netns(lab, "c1"), pod_netns(lab, "c3"), lab.netns_of_node("node-3")):
            assert served(netns, vip, 80) == ["m1"]


@FAMILIES
def test_policies_know_a_machine_by_its_labels(lab: Lab, machines: tuple[Machine, Machine], family: int) -> None:
    m1, m2 = machines
    peers = [{"podSelector": {"matchLabels": {"machine": "m2"}}}]
    guarded = policy("guarded", {"machine": "m1"}, namespace="default", ingress=[{"from": peers}])
    servers = policy("servers", {"app": "server"}, namespace="default", ingress=[{"from": peers}])
    pod = addresses(lab, "s1")[family]
    with policed(lab, guarded, servers):
        assert served(m2.netns, m1.addresses[family]) == ["m1"]
        assert served(m2.netns, pod) == ["s1"]
        assert orphans(lab) == []
        assert {"Pod default/m1", "Pod default/m2"} <= owners(lab)
        for netns in (pod_netns(lab, "c1"), pod_netns(lab, "c3")):
            (outcomes,) = call(netns, to(m1.addresses[family], PORT, timeout=AT_ONCE))
            assert set(names(outcomes)) == {"ETIMEDOUT"}
        (outcomes,) = call(m1.netns, to(pod, PORT, timeout=AT_ONCE))
        assert set(names(outcomes)) == {"ETIMEDOUT"}
    assert served(pod_netns(lab, "c3"), m1.addresses[family]) == ["m1"]


def test_a_machine_cannot_speak_as_another(lab: Lab, machines: tuple[Machine, Machine]) -> None:
    m1, m2 = machines
    ip(m1.netns, "address", "add", f"{m2.addresses[0]}/32", "dev", "eth0")
    try:
        target = addresses(lab, "c1")[0]
        argv = ["ping", "-n", "-q", "-c", "1", "-W", "0.3", target]
        assert inside(m1.netns, [*argv, "-I", m1.addresses[0]]).returncode == 0
        assert inside(m1.netns, [*argv, "-I", m2.addresses[0]]).returncode != 0
    finally:
        ip(m1.netns, "address", "del", f"{m2.addresses[0]}/32", "dev", "eth0")


def test_a_port_that_is_plugged_in_after_its_workload_was_declared_works_and_stops_when_it_is_pulled(lab: Lab) -> None:
    late = Machine(lab, "late", "node-3", "52:54:00:00:00:03", ("203.0.113.67", "2001:db8:2::3"))
    try:
        late.configure()
        with applied(lab, late.document()):
            (row,) = [row for row in lab.ask("pods")["items"] if row["name"] == "late"]
            assert (row["status"], row["reason"]) == ("Pending", "the node's bridge has no port late-eth0")
            late.plug()
            until(functools.partial(ready, lab, "late"), "late is ready")
            answers(pod_netns(lab, "c1"), late.addresses[0])
        assert not pings(pod_netns(lab, "c1"), late.addresses[0], wait=0.3)
    finally:
        late.leave()


def test_a_machine_that_asks_by_dhcp_is_told_what_is_declared_of_it(lab: Lab, tmp_path: Path) -> None:
    asking = Machine(lab, "asking", "node-3", "52:54:00:00:00:04", ("203.0.113.68", "2001:db8:2::4"))
    told = tmp_path / "told"
    argv = ["udhcpc", "-f", "-q", "-n", "-t", "5", "-T", "1", "-i", "eth0", "-s", str(HERE / "udhcpc.sh")]
    argv += ["-O", "mtu", "-O", "staticroutes"]
    try:
        asking.plug()
        with applied(lab, asking.document(dhcp=True, mtu=1350)):
            until(functools.partial(ready, lab, "asking"), "asking is ready")
            assert orphans(lab) == []
            done = inside(asking.netns, ["env", f"TOLD={told}", *argv])
            assert done.returncode == 0, done.stderr
            _, bound = told.read_text().splitlines()
            assert bound == (
                "bound ip=203.0.113.68 mask=32 mtu=1350 router=169.254.91.3 "
                "routes=169.254.91.3/32 0.0.0.0 0.0.0.0/0 169.254.91.3 lease=604800 server=169.254.91.3"
            )
            answers(asking.netns, addresses(lab, "c1")[0])
            answers(asking.netns, addresses(lab, "c3")[0])
            # It asks for another, and is refused; so it asks anew, and has its own in the end.
            done = inside(asking.netns, ["env", f"TOLD={told}", *argv, "-r", "203.0.113.99"])
            assert done.returncode == 0, done.stderr
            assert told.read_text().splitlines()[-1] == bound
        # Nobody answers whose workload doesn't say that it asks.
        with applied(lab, asking.document()):
            until(functools.partial(ready, lab, "asking"), "asking is ready")
            assert inside(asking.netns, ["env", f"TOLD={told}", *argv, "-t", "1"]).returncode != 0
    finally:
        asking.leave()


def test_machines_are_listed_among_pods_and_by_themselves(lab: Lab, machines: tuple[Machine, Machine]) -> None:
    header, *rows = [line.split() for line in signalbox(lab, "get", "workloads").splitlines()]
    assert header == ["NAME", "STATUS", "ADDRESSES", "NODE", "PORT", "MAC"]
    assert [row[0] for row in rows] == ["m1", "m2"]
    assert rows[0][1:] == ["Ready", "203.0.113.65,2001:db8:2::1", "node-1", "m1-eth0", "52:54:00:00:00:01"]
    assert {"m1", "m2", "c1", "s1"} <= {line.split()[0] for line in signalbox(lab, "get", "pods").splitlines()}
