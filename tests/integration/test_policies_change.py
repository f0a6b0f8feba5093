"""Verdicts are always current: policies, pods, controllers and switches come and go, and no packet slips by."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from callers import Document, Held, ofctl, put, to, unlink, write
from guests import Guest
from policing import PORT, Directory, forget_flows, hold, policed, policy, silent, ways
from probes import HERE, LONG, Ear, addresses, inside, pod_netns, until

from deploy.lab import substrate
from deploy.lab.cluster import Lab
from deploy.lab.layout import netns_path

#: What is forbidden isn't waited for longer.
NO_ANSWER = 0.7
WEBS = "red/web1 red/web2"


@pytest.fixture(scope="module")
def lab(policy_lab: Lab) -> Lab:
    return policy_lab


@pytest.fixture(autouse=True)
def afresh(lab: Lab) -> None:
    """No verdict of an earlier test is in a cache."""
    forget_flows(lab)


def only_ports(*ports: int) -> Document:
    """The web servers are open at these ports alone."""
    listed = [{"port": port, "protocol": protocol} for port in ports for protocol in ("TCP", "UDP")]
    return policy("ports", {"app": "web"}, ingress=[{"ports": listed}])


class Answered:
    """Connections that are held open to ports, by the pod that has opened them."""

    def __init__(self, held: Mapping[str, Held]) -> None:
        self._held = held

    def hold(self, *answered: tuple[str, int]) -> None:
        """Of these pods and ports all connections are answered, of all others none."""
        for source, held in self._held.items():
            ports = [each["port"] for each in held.calls]
            seconds = [LONG if (source, port) in answered else NO_ANSWER for port in ports]
            for call, outcome in zip(held.calls, held.ask(*seconds), strict=True):
                assert ("error" not in outcome) == ((source, call["port"]) in answered), (source, call, outcome)


@contextlib.contextmanager
def held(lab: Lab, sources: str, *ports: int) -> Iterator[Answered]:
    """Open connections from these pods to both web servers' ports, by both protocols and families."""
    with contextlib.ExitStack() as stack:
        there = [each for web in ("web1", "web2") for each in addresses(lab, web, "red")]
        calls = [to(each, port, kind) for each in there for port in ports for kind in ("tcp", "udp")]
        found = {}
        for source in sources.split():
            namespace, pod = source.split("/")
            found[source] = stack.enter_context(Held(pod_netns(lab, pod, namespace), *calls))
        yield Answered(found)


# Policies change ------------------------------------------------------------------------------------------------------


def test_a_policy_that_comes_cuts_what_it_forbids_and_nothing_else(lab: Lab) -> None:
    both = "red/near blue/far"
    with held(lab, both, 8080, 8081) as connections:
        every = {(source, port) for source in both.split() for port in (8080, 8081)}
        connections.hold(*every)
        rule = only_ports(8081)
        try:
            write(lab, rule)
            connections.hold(*(way for way in every if way[1] == 8081))
        finally:
            unlink(lab, rule)


def test_a_policy_that_is_narrowed_cuts_and_one_that_is_widened_lets_through_at_once(lab: Lab) -> None:
    wide, narrow = only_ports(8080, 8081), only_ports(8080)
    with policed(lab, wide), held(lab, "red/near", 8080, 8081) as connections:
        connections.hold(("red/near", 8080), ("red/near", 8081))
        write(lab, narrow)
        connections.hold(("red/near", 8080))
        hold(lab, denied=ways("red/near", WEBS, 8081))
        forget_flows(lab)
        write(lab, wide)
        hold(lab, allowed=ways("red/near", WEBS, (8080, 8081)))


def test_what_a_server_sends_ends_too_when_its_client_may_no_more(lab: Lab) -> None:
    loads = []
    for namespace, pod, port in (("red", "near", 8080), ("red", "near", 8081), ("blue", "far", 8080)):
        address = addresses(lab, "web1", "red")[port == 8081]
        argv = ["python3", "-I", str(HERE / "download.py"), address, str(port)]
        process = subprocess.Popen(
            ["nsenter", f"--net={netns_path(pod_netns(lab, pod, namespace))}", "--", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        loads.append(process)
    rule = only_ports(8081)
    try:
        for each in loads:
            assert each.stdout is not None and each.stdout.readline() == "begun\n"
        write(lab, rule)
        for each in loads:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        received = [int(each.stdout.readline()) for each in loads if each.stdout is not None]
        assert [size > 0 for size in received] == [False, True, False], received
    finally:
        for each in loads:
            each.kill()
            each.communicate()
        unlink(lab, rule)


def test_answers_of_what_is_allowed_pass_though_the_way_back_is_forbidden(lab: Lab) -> None:
    mute = policy("mute", {"app": "web"}, policyTypes=["Egress"], egress=[])
    deaf = policy("deaf", {"app": "client"}, ingress=[])
    with held(lab, "red/near", 8080) as connections, policed(lab, mute, deaf):
        hold(lab, allowed=ways("red/near red/far blue/far", WEBS), denied=ways(WEBS, "red/near red/far blue/near"))
        connections.hold(("red/near", 8080))


def test_a_pod_whose_labels_change_is_judged_as_who_it_is_now(lab: Lab) -> None:
    back = [{"podSelector": {"matchLabels": {"app": "client", "tier": "back"}}}]
    path = lab.layout.manifests / "pod.red.near.yaml"
    before = path.read_text()
    with policed(
        lab,
        policy("in", {"app": "web"}, ingress=[{"from": back}]),
        policy("near", {"tier": "back", "app": "client"}, ingress=[]),
    ):
        hold(lab, denied=ways("red/near", WEBS), allowed=ways("red/web1 blue/far", "red/near"))
        try:
            document = yaml.safe_load(before)
            document["metadata"]["labels"]["tier"] = "back"
            put(path, yaml.safe_dump(document))
            lab.wait_for_manifests()
            forget_flows(lab)
            hold(lab, allowed=ways("red/near", WEBS), denied=ways("red/web1 blue/far", "red/near"))
        finally:
            put(path, before)
            lab.wait_for_manifests()
    hold(lab, allowed=ways("red/web1", "red/near"))


# Pods come ------------------------------------------------------------------------------------------------------------

#: From its first instant on, to everybody and over both families. Of bash's, because that starts in no time.
_SHOUT = 'while :; do for each in "$@"; do echo -n "MARK " > /dev/udp/$each/9; done; done 2>/dev/null'


@contextlib.contextmanager
def listening(lab: Lab, expected: Mapping[str, set[str]], seconds: float) -> Iterator[None]:
    """Within the block, so long at least and until it has all come: shouts that pods hear are these and no others."""
    directory, begun = Directory(lab), time.monotonic()
    with contextlib.ExitStack() as stack:
        ears = {pod: Ear(directory.netns(pod), "shout-") for pod in expected}
        for each in ears.values():
            stack.callback(each.close)
        yield
        until(lambda: all(ears[pod].marks >= wanted for pod, wanted in expected.items()), f"heard is {expected}")
        # What isn't to come could have by then.
        time.sleep(max(NO_ANSWER, begun + seconds - time.monotonic()))
        assert {pod: each.marks for pod, each in ears.items()} == expected


def shouter(lab: Lab, name: str, node: str, labels: dict[str, str]) -> Document:
    """A pod that shouts its name to the web servers."""
    there = [each for web in ("web1", "web2") for each in addresses(lab, web, "red")]
    command = ["bash", "-c", _SHOUT.replace("MARK", f"shout-{name}"), "bash", *there]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "red", "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "shouter", "command": command}]},
    }


#: What the web servers hear where one pod may shout and others may not.
FREE = {"red/web1": {"shout-free"}, "red/web2": {"shout-free"}}
#: As many as are read while some pods come; a lab waits for the last one.
_CHANGES = 30


@contextlib.contextmanager
def churn(lab: Lab) -> Iterator[None]:
    """Many changes of the cluster, one upon the other, from before the block on for some seconds."""
    ended = threading.Event()
    path = lab.layout.manifests / "churn.yaml"

    def change(number: int) -> str:
        # Of many alternatives, and another each time: thousands of flows for every switch.
        blocks = [{"ipBlock": {"cidr": f"198.18.{number % 200}.{n}/32"}} for n in range(100)]
        ports = [{"port": 10000 + 2 * n} for n in range(10)]
        many = [
            policy(
                f"churn-{n}",
                {"who": f"web{n % 2 + 1}"},
                policyTypes=["Egress"],
                egress=[{}, {"to": blocks, "ports": ports}],
            )
            for n in range(20)
        ]
        return "\n---\n".join(map(json.dumps, many))

    def go_on() -> None:
        for number in range(_CHANGES):
            path.with_name(".churn.yaml").write_text(change(number))
            path.with_name(".churn.yaml").rename(path)
            if ended.wait(0.05):
                return

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)
        lab.wait_for_manifests()


def test_a_pod_that_is_isolated_never_gets_a_packet_through(lab: Lab, tmp_path: Path) -> None:
    """Though it begins at once. Each has labels of its own: identities that no switch has heard of before."""
    closed, pods, path = late_pods(lab, tmp_path, "calm")
    with policed(lab, closed), started_and_ended(lab, path), listening(lab, FREE, seconds=1.5):
        lab.apply([path])
        assert pods <= {row["name"] for row in lab.pods() if row["status"] == "Running"}


def test_a_pod_that_is_isolated_never_gets_a_packet_through_while_much_else_changes(lab: Lab, tmp_path: Path) -> None:
    closed, pods, path = late_pods(lab, tmp_path, "busy")
    with policed(lab, closed), started_and_ended(lab, path), listening(lab, FREE, seconds=5), churn(lab):
        lab.apply([path])
        assert pods <= {row["name"] for row in lab.pods() if row["status"] == "Running"}


def late_pods(lab: Lab, directory: Path, own: str) -> tuple[Document, set[str], Path]:
    """A policy by which some pods may send nothing, who they are, and a file with them and one that may."""
    labels = [{"loud": "no", "own": f"{own}{index}"} for index in range(6)]
    pods = [shouter(lab, f"late{index}", lab.nodes[index % 3], each) for index, each in enumerate(labels)]
    free = shouter(lab, "free", "node-3", {"loud": "yes"})
    path = directory / "pods.yaml"
    path.write_text("\n---\n".join(map(json.dumps, [*pods, free])))
    closed = policy("closed", {"loud": "no"}, policyTypes=["Egress"], egress=[])
    return closed, {each["metadata"]["name"] for each in pods}, path


@contextlib.contextmanager
def started_and_ended(lab: Lab, path: Path) -> Iterator[None]:
    """Whatever happens, the pods of a file are ended before their policies go."""
    try:
        yield
    finally:
        lab.delete([path])


def test_a_pod_that_is_isolated_is_never_reached(lab: Lab, tmp_path: Path) -> None:
    """Others shout at its address, which is known beforehand, since before it came."""
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "quiet", "namespace": "red", "labels": {"loud": "no"}},
        "spec": {
            "nodeName": "node-2",
            "containers": [
                {"name": "ear", "command": ["python3", "-I", str(HERE / "frames.py"), "listen", "2", "shout-"]}
            ],
        },
    }
    path = tmp_path / "quiet.yaml"
    path.write_text(json.dumps(document))
    places = [f"10.244.2.{n}" for n in range(2, 40)] + [f"fd00:10:244:2::{n:x}" for n in range(2, 40)]
    argv = ["bash", "-c", _SHOUT.replace("MARK", "shout-x"), "bash", *places]
    with policed(lab, policy("closed", {"loud": "no"}, ingress=[])):
        loud = [
            subprocess.Popen(["nsenter", f"--net={netns_path(Directory(lab).netns(pod))}", "--", *argv])
            for pod in ("red/web2", "blue/far", "node-1")
        ]
        try:
            lab.apply([path])
            log = lab.layout.pod("red", "quiet") / "log"
            until(lambda: log.read_text().endswith("]"), "it has listened")
            assert log.read_text() == "listening\n[]"
            lab.delete([path])
        finally:
            for each in loud:
                each.kill()
                each.wait()


def test_a_pod_without_a_flow_that_says_who_it_is_neither_sends_nor_answers(lab: Lab) -> None:
    from_pod, to_pod = ways("red/near", "red/web1 blue/near red/far"), ways("red/web1 red/far", "red/near")
    hold(lab, allowed=[*from_pod, *to_pod])
    (port,) = [row["port"] for row in lab.ask("pods")["items"] if (row["namespace"], row["name"]) == ("red", "near")]
    ofctl(lab, "node-1", "del-flows", "br-int", f"table=0,in_port={port}")
    forget_flows(lab)
    try:
        silent(lab, [*from_pod, *to_pod])
    finally:
        lab.audit()
        lab.wait_for_sync()
        until(
            lambda: bool(ofctl(lab, "node-1", "dump-flows", "br-int", f"table=0,in_port={port}")[1:]), "it is repaired"
        )
    hold(lab, allowed=[*from_pod, *to_pod])


@pytest.fixture
def guest(lab: Lab) -> Iterator[Guest]:
    here = Guest(lab, "stranger", "node-2")
    yield here
    here.leave()


def test_a_port_of_a_pod_that_nobody_knows_carries_nothing(lab: Lab, guest: Guest) -> None:
    adding = guest.begin("ADD")
    text = ""

    def address() -> str:
        nonlocal text
        found = inside(guest.netns, ["ip", "-j", "-4", "addr", "show", "dev", "eth0"]).stdout
        listed = [each["local"] for row in json.loads(found or "[]") for each in row.get("addr_info", [])]
        text = listed[0] if listed else ""
        return text

    until(lambda: bool(address()), "it has an address")
    argv = ["bash", "-c", _SHOUT.replace("MARK", "shout-stranger"), "bash", *addresses(lab, "web2", "red")]
    loud = subprocess.Popen(["nsenter", f"--net={netns_path(guest.netns)}", "--", *argv])
    try:
        with listening(lab, {"red/web2": set()}, seconds=1):
            silent(lab, ways("red/web2 red/near node-2", (text, "fd00:10:244:2::ffff"), PORT, versions=(4,)))
        # And when it is known, it is as any other.
        guest.declare()
        code, answer = guest.finish(adding)
        assert code == 0, answer
        with listening(lab, {"red/web2": {"shout-stranger"}}, seconds=0):
            pass
    finally:
        loud.kill()
        loud.wait()


# Controllers and switches go ------------------------------------------------------------------------------------------


def test_a_controller_that_comes_back_sends_nothing_and_cuts_nothing(lab: Lab) -> None:
    into = [{"podSelector": {"matchLabels": {"tier": "front"}}}, {"ipBlock": {"cidr": "10.244.3.0/24"}}]
    rules = [
        policy("in", {"app": "web"}, ingress=[{"from": into}, {"ports": [{"port": "http"}]}]),
        policy("out", {"app": "client"}, policyTypes=["Egress"], egress=[{"to": [{"namespaceSelector": {}}]}]),
    ]
    with policed(lab, *rules), held(lab, "red/near", 8080) as connections:
        # What identities of pods that have just gone mean is kept for a minute, but not over a restart.
        lab.stop_controller()
        lab.start_controller()
        lab.wait_for_sync()
        directory = Directory(lab)
        lab.stop_controller(signal.SIGKILL)
        try:
            connections.hold(("red/near", 8080))
            denied = ways("blue/far", "red/web1", 8082, versions=(6,))
            silent(lab, denied, directory)
        finally:
            lab.start_controller()
        lab.wait_for_sync()
        sent = {row["name"]: (row["flowModsSent"], row["bundlesSent"]) for row in lab.ask("nodes")["items"]}
        assert sent == dict.fromkeys(lab.nodes, (0, 0))
        connections.hold(("red/near", 8080))
        hold(lab, allowed=ways("red/near", WEBS, 8082), denied=denied)


@contextlib.contextmanager
def cut_off(lab: Lab, node: str) -> Iterator[None]:
    """A node whose switch goes on without its controller, which looks for it elsewhere."""
    rows = substrate.vsctl(lab.layout, node, "get", "bridge", "br-int", "controller").strip().strip("[]")
    target = substrate.vsctl(lab.layout, node, "get", "controller", rows, "target").strip().strip('"')

    def status() -> str:
        (row,) = [row for row in lab.ask("nodes")["items"] if row["name"] == node]
        return str(row["status"])

    substrate.vsctl(lab.layout, node, "set", "controller", rows, f'target="{target}.elsewhere"')
    try:
        until(lambda: status() == "Disconnected", f"{node} is cut off")
        yield
        assert status() == "Disconnected"
    finally:
        substrate.vsctl(lab.layout, node, "set", "controller", rows, f'target="{target}"')
        lab.wait_for_sync()


def test_a_node_without_its_controller_lets_no_pod_in_that_it_has_not_heard_of(lab: Lab) -> None:
    newcomer, near = Guest(lab, "newcomer", "node-1"), "red/near"
    one_port = [{"ports": [{"port": 8080, "protocol": protocol} for protocol in ("TCP", "UDP")]}]
    rule = policy("one-port", {"is": "new"}, "guests", policyTypes=["Egress"], egress=one_port)
    into, beyond = (ways("guests/newcomer", "red/web2", port) for port in (8080, 8081))
    into_near, beyond_near = (ways("guests/newcomer", "red/web1", port) for port in (8080, 8081))
    try:
        with policed(lab, rule):
            with cut_off(lab, "node-2"):
                newcomer.declare({"is": "new"})
                newcomer.add()
                silent(lab, [*into, *beyond])
                hold(lab, allowed=[*into_near, *ways(near, "red/web2", 8081)], denied=beyond_near)
            forget_flows(lab)
            hold(lab, allowed=into, denied=beyond)
    finally:
        newcomer.leave()


def test_a_switch_that_dies_and_comes_back_is_never_open(lab: Lab) -> None:
    mute = policy("mute", {"who": "near"}, policyTypes=["Egress"], egress=[])
    closed = policy("closed", {"who": "web1"}, ingress=[])
    there = addresses(lab, "web1", "red")
    with policed(lab, mute, closed), contextlib.ExitStack() as stack:
        for pod in ("red/near", "red/far", "blue/near"):
            targets = there if pod != "red/near" else [*there, *addresses(lab, "web2", "red")]
            argv = ["bash", "-c", _SHOUT.replace("MARK", f"shout-{pod.replace('/', '-')}"), "bash", *targets]
            loud = subprocess.Popen(["nsenter", f"--net={netns_path(Directory(lab).netns(pod))}", "--", *argv])
            stack.callback(loud.wait)
            stack.callback(loud.kill)
        with listening(lab, {"red/web1": set(), "red/web2": set()}, seconds=5):
            for node in ("node-1", "node-2"):
                lab.stop_switch(node, signal.SIGKILL)
                substrate.start_switch(lab.layout, node)
            lab.wait_for_sync()
            for node in ("node-1", "node-2"):
                substrate.prepare_switch(lab.layout, lab.settings, node, lab.nodes.index(node))
    hold(lab, allowed=ways("red/near red/far", WEBS))
