"""Flow export: told to the controller, sent by every Open vSwitch, read by nfdump's collectors and one of ours."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import make_pod_lab
from linting import flows_of, kept
from probes import addresses, inside, pings, pod_netns, until

from deploy.lab.cluster import Lab
from deploy.lab.layout import netns_path, outside_addresses
from deploy.lab.substrate import switch_environment
from topology.naming import observation_domain, pod_port_name

HERE = Path(__file__).parent
IPFIX, SFLOW, NETFLOW = 4739, 6343, 2055
COUNT = 7

pytestmark = pytest.mark.skipif(
    not (shutil.which("nfcapd") and shutil.which("sfcapd")), reason="needs nfdump and nfdump-sflow"
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Pods as in pods.yaml; collectors are on the outside host."""
    yield from make_pod_lab("fe", tmp_path_factory.mktemp("flow-export"))


def collector(lab: Lab) -> str:
    return str(outside_addresses(lab.settings)[0])


def export(lab: Lab, *protocols: str) -> None:
    """Have a controller that tells of these collectors, and of every packet."""
    options = [word for each in protocols for word in ("--flow-export", each)]
    lab.stop_controller()
    lab.start_controller(options=[*options, "--flow-export-sampling", "1", "--flow-export-interval", "1"])
    lab.wait_for_sync()
    tables = {each.split(":")[0] for each in protocols}
    for node in lab.nodes:
        until(lambda node=node: configured(lab, node) == tables, f"{node} exports by {tables or 'nothing'}")  # type: ignore[misc]


def vsctl(lab: Lab, node: str, *words: str) -> str:
    done = subprocess.run(
        ["ovs-vsctl", f"--db=unix:{lab.layout.node(node) / 'db.sock'}", *words],
        env={**os.environ, **switch_environment(lab.layout, node)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def configured(lab: Lab, node: str) -> set[str]:
    """The columns of the bridge that have a row."""
    columns = ("ipfix", "sflow", "netflow")
    return {each for each in columns if vsctl(lab, node, "get", "Bridge", "br-int", each) != "[]"}


@contextmanager
def running(lab: Lab, argv: list[str], output: Path) -> Iterator[None]:
    """A collector on the outside host, listening."""
    with output.open("w") as log:
        process = subprocess.Popen(
            ["nsenter", f"--net={netns_path(lab.layout.outside)}", "--", *argv], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: any(word in output.read_text() for word in ("Startup", "listening")), f"{argv[0]} listens")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def nfdump(directory: Path) -> list[list[str]]:
    """What a collector of nfdump's has: source, its port, destination, its port, packets, bytes."""
    fields = "fmt:%sa,%sp,%da,%dp,%pkt,%byt,%pr"
    done = subprocess.run(
        ["nfdump", "-R", str(directory), "-q", "-6", "-N", "-o", fields], capture_output=True, text=True, check=False
    )
    return [[word.strip() for word in line.split(",")] for line in done.stdout.splitlines() if line.count(",") == 6]


def test_ipfix_says_of_each_packet_who_sent_it_to_whom_by_which_port_of_which_node(lab: Lab, tmp_path: Path) -> None:
    output = tmp_path / "records"
    a1, b1 = addresses(lab, "a1"), addresses(lab, "b1")
    with running(lab, [sys.executable, "-I", str(HERE / "ipfix_collector.py"), collector(lab), str(IPFIX)], output):
        export(lab, f"ipfix:{collector(lab)}:{IPFIX}")
        assert [pings(pod_netns(lab, "a1"), each, count=COUNT) for each in b1] == [COUNT] * 2

        def seen(**wanted: Any) -> int:
            found = map(json.loads, output.read_text().splitlines())
            return sum(
                each["packetDeltaCount"] for each in found if all(each.get(key) == wanted[key] for key in wanted)
            )

        for version, source, target in ((4, a1[0], b1[0]), (6, a1[1], b1[1])):
            ends = {f"sourceIPv{version}Address": source, f"destinationIPv{version}Address": target}
            ways = [("node-1", "a1", 0), ("node-2", "b1", 1)]
            for node, pod, direction in ways:
                record: dict[str, Any] = {
                    **ends,
                    "observationDomainId": observation_domain(node),
                    "virtualObsID": node,
                    "interfaceName": pod_port_name("default", pod),
                    "flowDirection": direction,
                }
                until(
                    lambda record=record: seen(**record) >= COUNT,  # type: ignore[misc]
                    f"{COUNT} packets of {record} in {output.read_text()[-2000:]}",
                )
                assert seen(**record) == COUNT
    rows = {row["address"]: row["name"] for row in lab.ask("flow-export", "names")["items"]}
    assert [rows[each] for each in (*a1, *b1)] == ["a1", "a1", "b1", "b1"]
    domains = {row["observationDomain"]: row["node"] for row in lab.ask("flow-export", "exporters")["items"]}
    assert domains == {observation_domain(node): node for node in lab.nodes}


@pytest.mark.parametrize(
    ("protocol", "port", "program", "target", "packets"),
    [
        # Whose counts nfdump takes for packets' are all that this exporter has seen: flow-export.md tells.
        ("ipfix", IPFIX, "nfcapd", "b1", None),
        # Both nodes count each packet.
        ("netflow", NETFLOW, "nfcapd", "b1", 2 * COUNT),
        # On one node: nfdump 1.7 loses datagrams with samples of what came out of a tunnel.
        ("sflow", SFLOW, "sfcapd", "a2", COUNT),
    ],
)
def test_nfdump_s_collectors_understand_it(
    lab: Lab, tmp_path: Path, protocol: str, port: int, program: str, target: str, packets: int | None
) -> None:
    stored, log = tmp_path / "stored", tmp_path / "log"
    stored.mkdir()
    source, end = addresses(lab, "a1")[0], addresses(lab, target)[0]
    # Templates of IPFIX are sent at the start, so the collector is there first.
    export(lab)
    with running(lab, [program, "-w", str(stored), "-p", str(port), "-b", collector(lab), "-t", "2"], log):
        export(lab, f"{protocol}:{collector(lab)}:{port}")
        assert pings(pod_netns(lab, "a1"), end, count=COUNT) == COUNT
        until(lambda: _packets(stored, source, end) >= (packets or 1), f"records of {protocol}")
    if packets is not None:
        assert _packets(stored, source, end) == packets


def _packets(stored: Path, source: str, target: str) -> int:
    return sum(int(row[4]) for row in nfdump(stored) if (row[0], row[2]) == (source, target))


def test_only_netflow_gives_each_connection_a_flow_of_its_own_in_the_datapath(lab: Lab) -> None:
    """The price of NetFlow, which flow-export.md names: it needs each connection told apart."""
    b1 = addresses(lab, "b1")[0]

    def cached() -> int:
        done = inside(pod_netns(lab, "a1"), ["python3", "-I", "-c", _CALLS, b1])
        assert done.returncode == 0, done.stderr
        dumped = subprocess.run(
            ["ovs-appctl", "-t", str(lab.layout.node("node-1") / "vswitchd.ctl"), "dpctl/dump-flows"],
            env={**os.environ, **switch_environment(lab.layout, "node-1")},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return sum(b1 in line for line in dumped.stdout.splitlines())

    found, offloadable = {}, {}
    for protocol, port in (("ipfix", IPFIX), ("sflow", SFLOW), ("netflow", NETFLOW)):
        export(lab, f"{protocol}:{collector(lab)}:{port}")
        with kept(lab):
            found[protocol] = cached()
            judged = [each for each in flows_of(lab, "node-1") if not each.occasion]
        offloadable[protocol] = all(each.offloadable for each in judged)
        why = {reason.why for each in judged for reason in each.reasons if reason.kind != "chain"}
        assert why <= {"the bridge samples packets for sFlow or IPFIX, whatever its flows are"}, (protocol, why)
    # And the price of the others: docs/offload.md.
    assert offloadable == {"ipfix": False, "sflow": False, "netflow": True}
    assert max(found["ipfix"], found["sflow"]) < 15 and found["netflow"] >= 30, found


_CALLS = """
import socket, sys
for source in range(40000, 40030):
    socket.create_connection((sys.argv[1], 8080), 30, ("", source)).close()
"""


def test_what_somebody_changes_is_put_right_and_what_is_somebody_s_own_stays(lab: Lab) -> None:
    export(lab, f"ipfix:{collector(lab)}:{IPFIX}")
    vsctl(lab, "node-1", "clear", "Bridge", "br-int", "ipfix")
    until(lambda: configured(lab, "node-1") == {"ipfix"}, "ipfix is back")
    vsctl(
        lab, "node-2", "--", "--id=@s", "create", "sFlow", 'targets="192.0.2.77:1"', "--", "set", "Bridge", "br-int",
        "sflow=@s",
    )  # fmt: skip
    log = lab.layout.node("node-2") / "agent.log"
    lab.stop_controller()
    lab.start_controller(options=["--flow-export", f"sflow:{collector(lab)}:{SFLOW}"])
    lab.wait_for_sync()
    until(lambda: configured(lab, "node-1") == {"sflow"}, "node-1 exports by sflow")
    until(lambda: "isn't ours, which stays" in log.read_text(), "the agent says whose it is")
    assert "192.0.2.77:1" in vsctl(lab, "node-2", "list", "sFlow")
    vsctl(lab, "node-2", "clear", "Bridge", "br-int", "sflow")
    until(lambda: collector(lab) in vsctl(lab, "node-2", "list", "sFlow"), "node-2 exports by sflow")


def test_it_goes_on_without_controller_and_agent_and_ends_when_a_controller_says_so(lab: Lab) -> None:
    export(lab, f"netflow:{collector(lab)}:{NETFLOW}")
    lab.stop_controller(signal.SIGKILL)
    lab.stop_agent("node-1", signal.SIGKILL)
    assert configured(lab, "node-1") == {"netflow"}
    lab.start_agent("node-1")
    lab.wait_for_agents()
    assert configured(lab, "node-1") == {"netflow"}
    lab.start_controller()
    lab.wait_for_sync()
    for node in lab.nodes:
        until(lambda node=node: not configured(lab, node), f"{node} exports nothing")  # type: ignore[misc]
