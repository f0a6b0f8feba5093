"""Captures on real switches: what they show, and that nobody but who asked notices them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from callers import taps
from policing import cluster_policy, labelled, pods_of, policed, policy
from probes import addresses, inside, pings, pod_netns, until

from controller.cli import client
from deploy.lab.cluster import Lab


def begun(lab: Lab, *words: str, nodes: int = 1) -> subprocess.Popen[bytes]:
    """A capture that has its taps by now, on so many nodes."""
    command = [sys.executable, "-c", "from controller.cli.capture import capture; capture()"]
    process = subprocess.Popen([*command, *words, "--lab", lab.layout.name], stderr=subprocess.PIPE)

    def has_taps() -> bool:
        return sum(bool(taps(lab, node)) for node in lab.nodes) == nodes or process.poll() is not None

    until(has_taps, "the taps are there")
    return process


def shown(file: Path) -> list[str]:
    done = subprocess.run(["tcpdump", "-nn", "-r", str(file)], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.splitlines()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    # tcpdump reads as somebody else.
    tmp_path.chmod(0o755)
    yield tmp_path / "capture.pcapng"


def test_a_pods_packets_are_captured_both_ways_and_its_traffic_goes_on(lab: Lab, file: Path) -> None:
    ours, theirs = addresses(lab, "a1")[0], addresses(lab, "b1")[0]
    # Whatever they must ask for by ARP they know by now.
    assert pings(pod_netns(lab, "a1"), theirs) == 1
    process = begun(lab, "a1", "-w", str(file), "--count", "6")
    assert pings(pod_netns(lab, "a1"), theirs, count=3) == 3
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    lines = shown(file)
    assert sum(f"{ours} > {theirs}: ICMP echo request" in line for line in lines) == 3, lines
    assert sum(f"{theirs} > {ours}: ICMP echo reply" in line for line in lines) == 3, lines
    assert errors == b"6 packets captured\n"
    until(lambda: not any(taps(lab, node) for node in lab.nodes), "the taps are gone")


def test_a_pair_is_captured_at_both_ends_and_others_are_not(lab: Lab, file: Path) -> None:
    process = begun(lab, "--from", "a1", "--to", "b1", "--direction", "sent", "-w", str(file), "--count", "2", nodes=2)
    ours, other, theirs = addresses(lab, "a1")[0], addresses(lab, "c1")[0], addresses(lab, "b1")[0]
    assert pings(pod_netns(lab, "a1"), other, count=3) == 3
    assert pings(pod_netns(lab, "a1"), theirs) == 1
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    lines = shown(file)
    assert len(lines) == 2 and all(f"{ours} > {theirs}: ICMP echo request" in line for line in lines), lines


def test_a_switch_tells_no_more_than_the_rate_and_forwards_all_the_same(lab: Lab, file: Path) -> None:
    target = addresses(lab, "b1")[0]
    process = begun(lab, "a1", "--direction", "sent", "-w", str(file), "--duration", "5", "--rate", "5")
    # Within half a second or so: a burst of five, and five a second after that.
    assert pings(pod_netns(lab, "a1"), target, count=50) == 50
    process.communicate(timeout=20)
    assert 5 <= sum("echo request" in line for line in shown(file)) <= 15


def test_a_size_is_not_exceeded(lab: Lab, file: Path) -> None:
    process = begun(lab, "a1", "-w", str(file), "--size", "2000")
    assert pings(pod_netns(lab, "a1"), addresses(lab, "b1")[0], count=20) == 20
    process.communicate(timeout=20)
    assert 1500 < file.stat().st_size <= 2000
    assert shown(file)


def test_a_capture_ends_with_its_caller(lab: Lab, file: Path) -> None:
    process = begun(lab, "a1", "-w", str(file), "--duration", "60")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    until(lambda: not any(taps(lab, node) for node in lab.nodes), "the taps are gone", timeout=10)


def test_ctrl_c_is_an_end_like_any_other(lab: Lab, file: Path) -> None:
    process = begun(lab, "a1", "-w", str(file), "--direction", "sent", "--duration", "60")
    target = addresses(lab, "b1")[0]
    assert pings(pod_netns(lab, "a1"), target) == 1
    until(lambda: any(f"> {target}: ICMP" in line for line in shown(file)), "it is written")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert errors.decode().startswith(f"{len(shown(file))} packet") and b"captured" in errors
    until(lambda: not any(taps(lab, node) for node in lab.nodes), "the taps are gone", timeout=10)


def test_a_file_that_can_t_be_written_is_named(lab: Lab, file: Path) -> None:
    process = begun(lab, "a1", "-w", str(file.parent / "nowhere" / "a.pcapng"))
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 1 and errors.decode().endswith("nowhere/a.pcapng: No such file or directory\n")
    assert len(errors.splitlines()) == 1
    until(lambda: not any(taps(lab, node) for node in lab.nodes), "the taps are gone", timeout=10)


def test_taps_go_by_themselves_when_the_controller_is_killed(lab: Lab, file: Path) -> None:
    target = addresses(lab, "b1")[0]
    process = begun(lab, "a1", "-w", str(file), "--duration", "1")
    lab.stop_controller(signal.SIGKILL)
    try:
        assert any(taps(lab, node) for node in lab.nodes)
        until(lambda: not any(taps(lab, node) for node in lab.nodes), "the taps are gone", timeout=10)
        assert pings(pod_netns(lab, "a1"), target) == 1
    finally:
        lab.start_controller()
        lab.wait_for_sync()
    process.communicate(timeout=20)


def test_an_audit_leaves_taps_alone_and_digests_know_nothing_of_them(lab: Lab, file: Path) -> None:
    before = [(row["digest"], row["flowModsSent"], row["repaired"]) for row in lab.ask("nodes")["items"]]
    process = begun(lab, "a1", "-w", str(file), "--duration", "60")
    lab.audit()
    rows = [row for node in lab.nodes for row in lab.ask("nodes", node, "flows")["items"]]
    tapped = [row for row in rows if row["object"] == "Capture"]
    assert {row["table"] for row in tapped} == {"Classify", "Output"}
    assert all("tell the controller" in row["words"] for row in tapped), tapped
    assert any(taps(lab, node) for node in lab.nodes)
    after = [(row["digest"], row["flowModsSent"], row["repaired"]) for row in lab.ask("nodes")["items"]]
    assert after == before
    process.kill()
    process.communicate(timeout=10)


def datagrams(lab: Lab, pod: str, address: str, *ports: int) -> None:
    code = (
        "import socket, sys\n"
        "for port in sys.argv[2:]: socket.socket(type=socket.SOCK_DGRAM).sendto(b'one', (sys.argv[1], int(port)))\n"
    )
    done = inside(pod_netns(lab, pod), ["python3", "-Ic", code, address, *map(str, ports)])
    assert done.returncode == 0, done.stderr


_B1 = pods_of("default", app="b1")
_PORTS = [{"udp": {"destinationPort": {"number": 9000 + 2 * n}}} for n in range(20)]
#: A way to drop what a2 sends to port 9002 of b1, and what it is called.
DROPS = {
    "isolation, with a rule that allows another": (
        policy("p", {"app": "b1"}, "default", ingress=[{"from": [{"podSelector": labelled({"app": "a1"})}]}]),
        "NetworkPolicy default/p",
    ),
    "a rule of the Admin tier, by a conjunction": (
        cluster_policy("p", _B1, ingress=[
            {"action": "Deny", "from": [pods_of("default", app=each) for each in ("a2", "c1")], "protocols": _PORTS},
        ]),
        "ClusterNetworkPolicy p",
    ),
    "the Baseline tier, by egress": (
        cluster_policy("p", pods_of("default", app="a2"), "Baseline", egress=[{"action": "Deny", "to": [_B1]}]),
        "ClusterNetworkPolicy p",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", DROPS)
def test_what_a_policy_drops_is_captured_where_it_is_dropped_and_nothing_else(lab: Lab, file: Path, way: str) -> None:
    document, title = DROPS[way]
    others, theirs = addresses(lab, "a2")[0], addresses(lab, "b1")[0]
    with policed(lab, document):
        words = ("--policy-drops", "p", "-w", str(file), "--count", "2", "--duration", "20")
        process = begun(lab, *words, nodes=len(lab.nodes))
        datagrams(lab, "a1", theirs, 9002)
        datagrams(lab, "a2", theirs, 9002, 9002)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    lines = shown(file)
    assert len(lines) == 2 and all(f"{others}." in line and f"> {theirs}.9002: UDP" in line for line in lines), lines
    direction = "egress" if "egress" in way else "ingress"
    assert f"dropped by {title} ({direction}) on node node-2".encode() in file.read_bytes()
    until(lambda: not any(taps(lab, node) for node in lab.nodes), "the taps are gone")


def test_two_captures_and_a_live_trace_of_the_same_pod_have_the_same_packets(lab: Lab, file: Path) -> None:
    second = file.with_name("second.pcapng")
    words = ("a1", "--direction", "sent", "--count", "3")
    processes = [begun(lab, *words, "-w", str(file)), begun(lab, *words, "-w", str(second))]
    until(lambda: len(taps(lab, "node-1")) == 2, "each of them has its tap")
    ours, theirs = addresses(lab, "a1")[0], addresses(lab, "b1")[0]
    query = {"from": "default/a1", "to": "default/b1", "protocol": "TCP", "port": "8080"}
    traced = client.ask(client.socket_of_lab(lab.layout.name), ["trace"], query, method="POST")
    assert (traced["live"]["verdict"], traced["differences"]) == ("Delivered", [])
    assert pings(pod_netns(lab, "a1"), theirs, count=2) == 2
    for process in processes:
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
    for each in (file, second):
        syn, *rest = shown(each)
        assert f"> {theirs}.8080: Flags [S]" in syn, syn
        assert all(f"{ours} > {theirs}: ICMP echo request" in line for line in rest), rest


def test_what_cannot_be_captured_is_said_and_leaves_no_file(lab: Lab, file: Path) -> None:
    for words, text in ((("nobody",), "no pod"), (("a1", "--rate", "5000"), "rate"), (("--from", "a1"), "name a pod")):
        process = begun(lab, *words, "-w", str(file))
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 1
        assert text in errors.decode()
        assert not file.exists()
