"""Captures on real switches: what they show, and that nobody but who asked notices them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from callers import taps
from policing import cluster_policy, labelled, pods_of, policed, policy
from probes import addresses, answers, inside, pings, pod_netns, until

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
    done = subprocess.run(["tcpdump", "-nn", "-r", str(file)], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def about(file: Path, *texts: str) -> list[str]:
    """What is shown by now with one of these texts: a pod's kernel says something of its own now and then."""
    argv = ["tcpdump", "-nn", "-r", str(file)]
    # The last packet may have been written in part.
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return [line for line in done.stdout.splitlines() if any(text in line for text in texts)]


@pytest.fixture
def file(lab: Lab, tmp_path: Path) -> Iterator[Path]:
    # tcpdump reads as somebody else.
    tmp_path.chmod(0o755)
    yield tmp_path / "capture.pcapng"
    # Else the next capture would be taken to have begun.
    until(lambda: not any(taps(lab, node) for node in lab.nodes), "the taps are gone")


def test_a_pods_packets_are_captured_both_ways_and_its_traffic_goes_on(lab: Lab, file: Path) -> None:
    ours, theirs = addresses(lab, "a1")[0], addresses(lab, "b1")[0]
    asked, answered = f"{ours} > {theirs}: ICMP echo request", f"{theirs} > {ours}: ICMP echo reply"
    process = begun(lab, "a1", "-w", str(file), "--duration", "60")
    assert pings(pod_netns(lab, "a1"), theirs, count=3) == 3
    until(lambda: len(about(file, asked)) == len(about(file, answered)) == 3, "each is there once")
    process.kill()
    process.communicate(timeout=60)
    until(lambda: not any(taps(lab, node) for node in lab.nodes), "the taps are gone")


def test_a_pair_is_captured_at_both_ends_and_others_are_not(lab: Lab, file: Path) -> None:
    process = begun(
        lab, "--from", "a1", "--to", "b1", "--direction", "sent", "-w", str(file), "--count", "2",
        "--duration", "60", nodes=2,
    )  # fmt: skip
    ours, other, theirs = addresses(lab, "a1")[0], addresses(lab, "c1")[0], addresses(lab, "b1")[0]
    assert pings(pod_netns(lab, "a1"), other, count=3) == 3
    assert pings(pod_netns(lab, "a1"), theirs) == 1
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    lines = shown(file)
    assert len(lines) == 2 and all(f"{ours} > {theirs}: ICMP echo request" in line for line in lines), lines


def test_a_switch_tells_no_more_than_the_rate_and_forwards_all_the_same(lab: Lab, file: Path) -> None:
    target = addresses(lab, "b1")[0]
    process = begun(lab, "a1", "--direction", "sent", "-w", str(file), "--duration", "60", "--rate", "5")
    start = time.monotonic()
    # Within half a second, or however long the machine takes: a burst of five, and five a second after that.
    assert pings(pod_netns(lab, "a1"), target, count=50) == 50
    seconds = time.monotonic() - start
    until(lambda: len(about(file, "echo request")) >= 5, "the burst is there")
    process.kill()
    process.communicate(timeout=60)
    assert len(about(file, "echo request")) <= 10 + 5 * seconds
    # Else the next capture would be taken to have its own.
    until(lambda: not any(taps(lab, node) for node in lab.nodes), "the taps are gone")


def test_a_size_is_not_exceeded(lab: Lab, file: Path) -> None:
    process = begun(lab, "a1", "-w", str(file), "--size", "2000", "--duration", "60")
    assert pings(pod_netns(lab, "a1"), addresses(lab, "b1")[0], count=20) == 20
    process.communicate(timeout=60)
    assert 1500 < file.stat().st_size <= 2000
    assert shown(file)


def test_a_capture_ends_with_its_caller(lab: Lab, file: Path) -> None:
    process = begun(lab, "a1", "-w", str(file), "--duration", "300")
    process.kill()
    process.communicate(timeout=60)
    until(lambda: not any(taps(lab, node) for node in lab.nodes), "the taps are gone")


def test_ctrl_c_is_an_end_like_any_other(lab: Lab, file: Path) -> None:
    process = begun(lab, "a1", "-w", str(file), "--duration", "300")
    target = addresses(lab, "b1")[0]
    answers(pod_netns(lab, "a1"), target)
    until(lambda: bool(about(file, f"> {target}: ICMP")), "it is written")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors.decode() == f"{len(shown(file))} packets captured\n"
    until(lambda: not any(taps(lab, node) for node in lab.nodes), "the taps are gone")


def test_a_file_that_can_t_be_written_is_named(lab: Lab, file: Path) -> None:
    process = begun(lab, "a1", "-w", str(file.parent / "nowhere" / "a.pcapng"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and errors.decode().endswith("nowhere/a.pcapng: No such file or directory\n")
    assert len(errors.splitlines()) == 1
    until(lambda: not any(taps(lab, node) for node in lab.nodes), "the taps are gone")


def test_taps_go_by_themselves_when_the_controller_is_killed(lab: Lab, file: Path) -> None:
    target = addresses(lab, "b1")[0]
    # Long enough for the machine that this is to kill it in that time.
    for seconds in (1, 4, 16):
        process = begun(lab, "a1", "-w", str(file), "--duration", str(seconds))
        lab.stop_controller(signal.SIGKILL)
        try:
            there = any(taps(lab, node) for node in lab.nodes)
            until(lambda: not any(taps(lab, node) for node in lab.nodes), "the taps are gone")
            answers(pod_netns(lab, "a1"), target)
        finally:
            lab.start_controller()
            lab.wait_for_sync()
        process.communicate(timeout=60)
        if there:
            return
    pytest.fail("no tap was left when the controller had gone")


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
    process.communicate(timeout=60)


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
        words = ("--policy-drops", "p", "-w", str(file), "--count", "2", "--duration", "60")
        process = begun(lab, *words, nodes=len(lab.nodes))
        datagrams(lab, "a1", theirs, 9002)
        datagrams(lab, "a2", theirs, 9002, 9002)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    lines = shown(file)
    assert len(lines) == 2 and all(f"{others}." in line and f"> {theirs}.9002: UDP" in line for line in lines), lines
    direction = "egress" if "egress" in way else "ingress"
    assert f"dropped by {title} ({direction}) on node node-2".encode() in file.read_bytes()
    until(lambda: not any(taps(lab, node) for node in lab.nodes), "the taps are gone")


def test_two_captures_and_a_live_trace_of_the_same_pod_have_the_same_packets(lab: Lab, file: Path) -> None:
    second = file.with_name("second.pcapng")
    words = ("a1", "--direction", "sent", "--duration", "60")
    processes = [begun(lab, *words, "-w", str(file)), begun(lab, *words, "-w", str(second))]
    until(lambda: len(taps(lab, "node-1")) == 2, "each of them has its tap")
    ours, theirs = addresses(lab, "a1")[0], addresses(lab, "b1")[0]
    query = {"from": "default/a1", "to": "default/b1", "protocol": "TCP", "port": "8080"}
    traced = client.ask(client.socket_of_lab(lab.layout.name), ["trace"], query, method="POST")
    assert (traced["live"]["verdict"], traced["differences"]) == ("Delivered", [])
    assert pings(pod_netns(lab, "a1"), theirs, count=2) == 2
    syn, asked = f"> {theirs}.8080: Flags [S]", f"{ours} > {theirs}: ICMP echo request"
    for each in (file, second):
        until(lambda each=each: len(about(each, syn, asked)) == 3, "all are there")  # type: ignore[misc]
        first, *rest = about(each, syn, asked)
        assert syn in first and all(asked in line for line in rest), (first, rest)
    for process in processes:
        process.kill()
        process.communicate(timeout=60)
    until(lambda: not any(taps(lab, node) for node in lab.nodes), "the taps are gone")


def test_what_cannot_be_captured_is_said_and_leaves_no_file(lab: Lab, file: Path) -> None:
    for words, text in ((("nobody",), "no pod"), (("a1", "--rate", "5000"), "rate"), (("--from", "a1"), "name a pod")):
        process = begun(lab, *words, "-w", str(file))
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert text in errors.decode()
        assert not file.exists()
