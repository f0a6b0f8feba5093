"""Wired bridges on a real Open vSwitch: packets cross them, spread over equal ways, and go round a link that fails."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from bridges import Bridges, join
from linting import Linted, Record
from probes import until

from flows.offload.datapath import read_dump
from flows.offload.lint import lint
from flows.offload.trace_text import blame, question, read_trace
from flows.pipeline import FABRIC
from topology.graph import Wire


@pytest.fixture(scope="module")
def diamond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridges]:
    """Pods on a and d, and between them b and c, which are only in transit."""
    wires = [join("a", "b"), join("a", "c"), join("b", "d"), join("c", "d")]
    bridges = Bridges(tmp_path_factory.mktemp("d"), wires, ["a", "d"], transit=["b", "c"])
    yield bridges
    bridges.close()


@pytest.fixture(scope="module")
def triangle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridges]:
    """Pods on each of three: any two are neighbours, and the third is the alternate."""
    wires = [join("a", "b"), join("a", "c"), join("b", "c")]
    bridges = Bridges(tmp_path_factory.mktemp("t"), wires, ["a", "b", "c"])
    yield bridges
    bridges.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Bridges]:
    """Two with pods, and two wires between them."""
    bridges = Bridges(tmp_path, [join("a", "b", 1), join("a", "b", 2)], ["a", "b"])
    yield bridges
    bridges.close()


def answers(bridges: Bridges, source: str, target: str, version: int = 4) -> None:
    """Wait until a pod answers another."""
    until(lambda: bridges.ping(source, target, "-c1", "-W0.3", version=version) == 1, f"{target} answers {source}")


def call(bridges: Bridges, source: str, target: str, connections: int) -> None:
    """Datagrams of many connections, one each; nobody listens."""
    address = bridges.address(target)
    script = f"for port in $(seq 1000 {999 + connections}); do echo x > /dev/udp/{address}/$port; done"
    bridges.pods[source].run("bash", "-c", script)


def carried(bridges: Bridges, target: str, connections: int) -> Mapping[Wire, int]:
    """How many more packets wires have carried when these connections were begun from a."""
    before = bridges.carried()

    def more() -> dict[Wire, int]:
        return {wire: number - before[wire] for wire, number in bridges.carried().items()}

    call(bridges, "a", target, connections)
    # A switch that is busy loses some.
    until(lambda: sum(more().values()) >= connections // 2, f"packets of {connections} connections")
    return more()


def test_pods_reach_each_other_over_a_bridge_in_transit(diamond: Bridges) -> None:
    for version in (4, 6):
        answers(diamond, "a", "d", version)
        assert diamond.ping("a", "d", "-i0.01", "-c20", "-W30", version=version) == 20


def test_a_bridge_between_counts_as_a_hop(diamond: Bridges, triangle: Bridges) -> None:
    for version in (4, 6):
        assert diamond.ping("a", "d", "-c1", "-W1", "-t1", version=version) == 0
        answers(diamond, "a", "d", version)
        assert diamond.ping("a", "d", "-c1", "-W30", "-t2", version=version) == 1
        answers(triangle, "a", "b", version)
        assert triangle.ping("a", "b", "-c1", "-W30", "-t1", version=version) == 1


def test_connections_are_spread_over_equal_ways(diamond: Bridges) -> None:
    answers(diamond, "a", "d")
    told = carried(diamond, "d", 200)
    shares = [told[wire] for wire in diamond.wires if "a" in (wire.a, wire.b)]
    assert sum(shares) >= 100 and min(shares) > 0.25 * sum(shares), told


def test_established_connections_of_one_way_are_of_flows_that_tc_takes(
    triangle: Bridges, offload_record: Record
) -> None:
    found = linted(triangle, "a", "b")
    offload_record("wires, one way", found)
    assert found.failed == [] and len(found.judged) > 8


def test_only_the_choice_between_equal_ways_is_not_tc_s_to_make(diamond: Bridges, offload_record: Record) -> None:
    found = linted(diamond, "a", "d")
    offload_record("wires, two equal ways", found)
    refused = [each for _, each in found.judged if not each.offloadable]
    reasons = {(reason.kind, reason.what.partition("(")[0]) for each in refused for reason in each.reasons}
    assert {("action", "hash"), ("match", "dp_hash")} <= reasons <= {*HASHED}, reasons
    # The group of table Fabric: in transit as at the source.
    for each in refused:
        asked = [reason for reason in each.reasons if reason.kind != "chain"]
        steps = read_trace(diamond.appctl("ofproto/trace", "ovs-netdev", question(each.flow))).steps
        for flow in (line for reason in asked for line in blame(reason, steps)):
            assert f"table={FABRIC.number} " in flow and "group:" in flow, flow


#: What a choice by hash is made of.
HASHED = (("action", "hash"), ("match", "dp_hash"), ("chain", "recirc_id"))


def linted(bridges: Bridges, source: str, target: str) -> Linted:
    """What the linter says of pings that were answered before."""
    for version in (4, 6):
        answers(bridges, source, target, version)
    bridges.appctl("revalidator/purge")
    for version in (4, 6):
        assert bridges.ping(source, target, "-i0.02", "-c5", "-W30", version=version) == 5
    return Linted(tuple(("", each) for each in lint(read_dump(bridges.appctl("dpctl/dump-flows", "-m")))))


def test_where_two_switches_in_a_row_choose_the_second_spreads_what_the_first_sent_it(tmp_path: Path) -> None:
    wires = [join("a", "b"), join("a", "c"), join("b", "d"), join("b", "e"), join("c", "d"), join("c", "e")]
    wires += [join("d", "f"), join("e", "f")]
    bridges = Bridges(tmp_path, wires, ["a", "f"], transit=["b", "c", "d", "e"])
    try:
        answers(bridges, "a", "f")
        told = carried(bridges, "f", 400)
        shares = [told[wire] for wire in wires if wire.a in ("b", "c")]
        # A quarter each; a switch that is busy may lose some.
        assert sum(shares) >= 100 and min(shares) > 0.1 * sum(shares), told
    finally:
        bridges.close()


def lost(bridges: Bridges, source: str, target: str, wire: Wire) -> tuple[int, int]:
    """Pings lost of those sent, 5 ms apart, while a wire loses its link: nobody tells the compiler.

    The switch hears of the link from the kernel, in some milliseconds where it has time. Did it not, nothing would come
    any more.
    """
    argv = bridges.pods[source].argv("ping", "-n", "-i0.005", "-c400", "-W1", bridges.address(target))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as pinging:
        assert pinging.stdout is not None
        for line in pinging.stdout:
            if "icmp_seq=100 " in line:
                bridges.set_link(wire, "down")
            found = re.search(r"(\d+) packets transmitted, (\d+) received", line)
            if found is not None:
                return int(found[1]) - int(found[2]), int(found[1])
    raise AssertionError("ping said nothing")


def test_a_wire_without_a_link_is_skipped_before_the_controller_knows(pair: Bridges) -> None:
    for wire in pair.wires:
        try:
            missing, sent = lost(pair, "a", "b", wire)
            print(f"one of two wires: {missing} of {sent} lost")
            assert missing < sent / 4
            told = carried(pair, "b", 50)
            assert told[wire] == 0 and max(told.values()) >= 20
        finally:
            pair.set_link(wire, "up")
        answers(pair, "a", "b")


def test_where_a_link_farther_on_fails_the_controller_leads_round_it(diamond: Bridges) -> None:
    wire = diamond.wires[0]
    diamond.set_link(wire, "down")
    try:
        for name, port in ((wire.a, wire.a_port), (wire.b, wire.b_port)):
            diamond.take(diamond.compiler.set_ports(name, diamond.ports(name, [port])))
        answers(diamond, "a", "d")
        assert diamond.ping("a", "d", "-i0.01", "-c20", "-W30") == 20
        told = carried(diamond, "d", 50)
        assert [told[each] for each in diamond.wires if "b" in (each.a, each.b)] == [0, 0]
    finally:
        diamond.set_link(wire, "up")
        for name in (wire.a, wire.b):
            diamond.take(diamond.compiler.set_ports(name, diamond.ports(name)))
    answers(diamond, "a", "d")


def test_the_alternate_is_taken_before_the_controller_knows(triangle: Bridges) -> None:
    direct, round_about = triangle.wires[0], triangle.wires[1]
    before = triangle.carried()
    try:
        missing, sent = lost(triangle, "a", "b", direct)
        print(f"the alternate: {missing} of {sent} lost")
        assert missing < sent / 4
        assert triangle.carried()[round_about] - before[round_about] >= 200
    finally:
        triangle.set_link(direct, "up")


def test_a_wire_that_is_taken_out_carries_nothing_more_and_comes_back(triangle: Bridges) -> None:
    wire = triangle.wires[0]
    argv = triangle.pods["a"].argv("ping", "-n", "-q", "-i0.005", "-c200", "-W1", triangle.address("b"))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as pinging:
        for wires in (triangle.wires[1:], triangle.wires, triangle.wires[1:]):
            triangle.take(triangle.compiler.set_links(wires))
        told = pinging.communicate()[0]
    # One after another the bridges hear of it: a packet may meet one that has heard and one that hasn't.
    found = re.search(r" (\d+) received", told)
    assert found is not None and int(found[1]) >= 150, told
    before = triangle.carried()[wire]
    assert triangle.ping("a", "b", "-i0.01", "-c10", "-W30") == 10
    assert triangle.carried()[wire] == before
    triangle.take(triangle.compiler.set_links(triangle.wires))
    # What the datapath has cached it goes on with until it has looked at its flows again.
    answers(triangle, "a", "b")
    assert triangle.ping("a", "b", "-i0.01", "-c10", "-W30") == 10
    assert triangle.carried()[wire] >= before + 20
