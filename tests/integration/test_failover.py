"""Several controllers on real switches: a master dies, or stands still and comes back, under traffic and changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from probes import LONG, addresses, pod_netns, until
from test_outage import Pinging, pinging

from controller.app import Controller
from controller.channel import Channel
from controller.cli import client
from controller.lease_directory import LeaseDirectory
from controller.leases import Tenure
from controller.sync import Phase
from deploy.lab import substrate
from deploy.lab.cluster import Lab, owner, settings_for
from flows.cookies import Scope
from flows.openflow import encode
from flows.openflow.wire import Role
from flows.pipeline import DIGEST
from flows.tables.digest import digest_flow
from topology.manifest_state import Snapshot
from topology.model import Node

HERE = Path(__file__).parent
#: Duration, deadline, retry period, when one joins.
TIMES = (3.0, 2.0, 0.5, 2.0)
#: Seconds within which somebody else is master, on a machine that is busy too; benchmarks/failover.py has figures.
SOON = 5 * TIMES[0]
#: Seconds between two pings of each of the four pairs, and between two changes: a thousand and a hundred a second, as
#: far as the machine keeps up.
PING_INTERVAL, CHANGE_INTERVAL = 0.004, 0.01
#: The objects that are changed in turn: so many that each file is still for long enough to be read between its changes.
OBJECTS = 64


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three nodes and three controllers; the pods of `pods.yaml`."""
    text = (HERE / "pods.yaml").read_text().replace("SERVER", str(HERE / "echo_server.py"))
    manifests = tmp_path_factory.mktemp("manifests") / "pods.yaml"
    manifests.write_text(text)
    here = Lab(f"r{os.getpid()}")
    settings = settings_for(here.layout.name, 3, controllers=3, lease_times=TIMES, **owner(os.getpid()))
    problems = here.up(settings, [manifests])
    try:
        assert not problems
        yield here
    finally:
        here.down()


class Changing:
    """Services whose ports are changed in turn, until the end of the block."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.made = 0
        self.ports: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Changing:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._stop.wait(max(0.0, begun + self.made * CHANGE_INTERVAL - time.monotonic())):
            index = self.made % OBJECTS
            self.ports[index] = 1000 + self.made
            self.made += 1
            ports = [{"port": self.ports[index], "targetPort": 8080}]
            spec = {"clusterIP": f"10.96.77.{index + 1}", "selector": {"app": "echo"}, "ports": ports}
            document = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"busy-{index}"}, "spec": spec}
            path = self.path(index)
            temporary = path.with_name(f".{path.name}")
            temporary.write_text(yaml.safe_dump(document))
            temporary.rename(path)

    def path(self, index: int) -> Path:
        return self.lab.layout.manifests / f"service.busy.{index}.yaml"

    def missing(self) -> list[str]:
        """What the switches lack of the last of all changes, and what they have of others."""
        wanted = {f"nw_dst=10.96.77.{index + 1},tp_dst={port}" for index, port in self.ports.items()}
        faults = []
        for name in self.lab.nodes:
            text = dump(self.lab, name)
            faults += [f"{name} lacks {each}" for each in wanted if each not in text]
            count = text.count("nw_dst=10.96.77.") - sum(text.count(each) for each in wanted)
            there = [line for line in text.splitlines() if "tp_dst=" in line and "nw_dst=10.96.77." in line]
            stale = [line for line in there if not any(each in line for each in wanted)]
            faults += [f"{name} still has {line} ({count})" for line in stale]
        return faults

    def clear(self) -> None:
        for index in self.ports:
            self.path(index).unlink(missing_ok=True)


def dump(lab: Lab, name: str) -> str:
    argv = ["ovs-ofctl", "-O", "OpenFlow15", "--names", "dump-flows", "br-int"]
    return substrate.run(argv, env=substrate.switch_environment(lab.layout, name))


def crossing(lab: Lab) -> list[tuple[str, str]]:
    """Pairs on one node and across nodes, over both families."""
    return [(pod_netns(lab, "a1"), address) for pod in ("a2", "b1") for address in addresses(lab, pod)]


def rows_of(lab: Lab, controllers: Iterable[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every controller's view of every node."""
    for number in controllers:
        for row in client.ask(lab.layout.api_of(number), ["nodes"])["items"]:
            yield number, row


def masters(lab: Lab, controllers: Iterable[int] | None = None) -> dict[str, str]:
    """Who is master of each node, says whoever is; once it is in force."""
    rows = rows_of(lab, lab.controllers if controllers is None else controllers)
    return {row["name"]: row["master"] for _, row in rows if row["status"] in ("Synced", "Syncing")}


def victim(lab: Lab) -> int:
    """The controller that is master of most nodes."""
    until(lambda: set(masters(lab)) == set(lab.nodes), "every node has a master")
    of = list(masters(lab).values())
    name = max(sorted(set(of)), key=of.count)
    return 1 if name == "controller" else int(name.rpartition("-")[2])


def name_of(controller: int) -> str:
    return "controller" if controller == 1 else f"controller-{controller}"


def others(lab: Lab, controller: int) -> list[int]:
    return [number for number in lab.controllers if number != controller]


def until_taken_over(lab: Lab, gone: int) -> float:
    def done() -> bool:
        found = masters(lab, others(lab, gone))
        return set(found) == set(lab.nodes) and name_of(gone) not in found.values()

    return until(done, "every node has a new master")


def sent(lab: Lab, controllers: Iterable[int]) -> dict[tuple[int, str], int]:
    """Flow-mods that each controller has sent to each node."""
    return {(number, row["name"]): row["flowModsSent"] for number, row in rows_of(lab, controllers)}


def log_of(lab: Lab, controller: int) -> str:
    return lab.layout.log_of(controller).read_text()


def lost(running: list[Pinging]) -> dict[str, int]:
    return {each.title: each.lost for each in running if each.lost}


def settled(lab: Lab) -> None:
    """Every controller is there and has its share."""

    def done() -> bool:
        told = lab.ask("status").get("replica", {})
        counts = [sum(row["master"] == each["name"] for row in told["shards"]) for each in told["replicas"]]
        return sorted(counts) == [5, 5, 6] and all(each["ready"] for each in told["replicas"])

    until(done, "shards are spread")
    lab.wait_for_sync()


def assert_whole(lab: Lab) -> None:
    """Nothing that a full audit would find."""
    lab.wait_for_sync()
    before = {number: log_of(lab, number).count("drifted") for number in lab.controllers}
    lab.audit()
    time.sleep(0.5)
    lab.wait_for_sync()
    assert {number: log_of(lab, number).count("drifted") for number in lab.controllers} == before
    digests: dict[str, set[str]] = {name: set() for name in lab.nodes}
    for _, row in rows_of(lab, lab.controllers):
        digests[row["name"]].add(row["digest"])
    assert {name: len(each) for name, each in digests.items()} == dict.fromkeys(lab.nodes, 1)


def test_shards_are_spread_and_every_switch_has_one_master(lab: Lab) -> None:
    settled(lab)
    by_node: dict[str, list[str]] = {name: [] for name in lab.nodes}
    for _, row in rows_of(lab, lab.controllers):
        by_node[row["name"]].append(row["status"])
    assert [sorted(each) for each in by_node.values()] == [["Standby", "Standby", "Synced"]] * len(lab.nodes)
    assert_whole(lab)


def test_a_takeover_of_a_quiet_cluster_sends_no_flow(lab: Lab) -> None:
    settled(lab)
    gone = victim(lab)
    before = sent(lab, others(lab, gone))
    with pinging(crossing(lab), PING_INTERVAL) as running:
        lab.stop_controller(signal.SIGKILL, gone)
        until_taken_over(lab, gone)
    try:
        assert sent(lab, others(lab, gone)) == before
        assert not lost(running)
    finally:
        lab.start_controller(gone)
    settled(lab)


def test_a_master_that_is_killed_under_traffic_and_changes_loses_neither(lab: Lab) -> None:
    settled(lab)
    gone = victim(lab)
    with pinging(crossing(lab), PING_INTERVAL) as running, Changing(lab) as changing:
        time.sleep(1)
        lab.stop_controller(signal.SIGKILL, gone)
        took = until_taken_over(lab, gone)
        time.sleep(1)
    try:
        until(lambda: not changing.missing(), "the last change of every object is in every switch")
        count = sum(each.sent for each in running)
        print(f"killed: a new master after {took:.2f} s; {count} pings, {changing.made} changes")
        assert not lost(running)
        assert took < SOON
    finally:
        lab.start_controller(gone)
    settled(lab)
    assert_whole(lab)
    changing.clear()
    lab.wait_for_sync()


def test_a_master_that_is_stopped_and_continued_finds_others_in_its_place(lab: Lab) -> None:
    settled(lab)
    gone = victim(lab)
    process = lab.controller_process(gone)
    before = log_of(lab, gone)
    with pinging(crossing(lab), PING_INTERVAL) as running, Changing(lab) as changing:
        time.sleep(1)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            took = until_taken_over(lab, gone)
            time.sleep(1)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        time.sleep(2)
    until(lambda: not changing.missing(), "the last change of every object is in every switch")
    print(
        f"stopped: a new master after {took:.2f} s; {sum(each.sent for each in running)} pings, {changing.made} changes"
    )
    assert not lost(running)
    assert took < SOON
    assert "is master of no shard" in log_of(lab, gone)[len(before) :]
    settled(lab)
    assert_whole(lab)
    changing.clear()
    lab.wait_for_sync()


def test_a_controller_that_ends_hands_over_at_once(lab: Lab) -> None:
    settled(lab)
    gone = victim(lab)
    with pinging(crossing(lab), PING_INTERVAL) as running, Changing(lab) as changing:
        time.sleep(0.5)
        lab.stop_controller(signal.SIGTERM, gone)
        # Nobody has to wait until its leases run out.
        leases = asyncio.run(LeaseDirectory(lab.layout.leases).read())
        assert name_of(gone) not in {each.record.holder for each in leases.values()}
        took = until_taken_over(lab, gone)
    try:
        until(lambda: not changing.missing(), "the last change of every object is in every switch")
        print(f"ended: a new master after {took:.2f} s")
        assert not lost(running)
    finally:
        lab.start_controller(gone)
    settled(lab)
    changing.clear()
    lab.wait_for_sync()


# One real switch, two controllers in this process ---------------------------------------------------------------------


def node(number: int) -> Node:
    addresses, cidrs = (ip_address(f"172.30.0.{number}"),), (ip_network(f"10.244.{number}.0/24"),)
    return Node(name=f"n{number}", addresses=addresses, pod_cidrs=cidrs)


def snapshot(*numbers: int) -> Snapshot:
    return Snapshot({each.key: each for each in map(node, numbers)})


class Chosen:
    """A mastery that the test decides on."""

    def __init__(self) -> None:
        self.held: Tenure | None = None
        self.known = 0
        self.higher: list[int] = []

    def tenure(self, node: str) -> Tenure | None:
        return self.held

    def epoch(self, node: str) -> int:
        return self.known


class One:
    """A controller that listens on a Unix socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.chosen = Chosen()
        self.controller = Controller(replica=None)
        self.fleet = self.controller.fleet
        self.fleet._mastery = self.chosen
        self.fleet._events.outranked = lambda node, generation: self.chosen.higher.append(generation)
        self.controller.take(snapshot(1, 2))
        self.channel = Channel(self.fleet, time.monotonic)

    def become(self, epoch: int | None, known: int = 0) -> None:
        now = time.monotonic()
        self.chosen.held = None if epoch is None else Tenure(epoch, now, now + 1000)
        self.chosen.known = known or epoch or 0
        self.fleet.obey(now)

    @property
    def phase(self) -> Phase | None:
        return self.fleet.phase("n1")


async def soon(condition: Any, what: str) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


BRIDGE = "br-roles"


@pytest.fixture
async def two(lab: Lab) -> AsyncIterator[tuple[One, One]]:
    directory = lab.layout.node("node-1")
    both = One(directory / "one.sock"), One(directory / "two.sock")
    for each in both:
        await each.channel.listen(f"unix:{each.path}")
    words = ["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev", "fail_mode=secure"]
    words += ["protocols=OpenFlow15", f"other_config:datapath-id={node(1).datapath_id:016x}", "--"]
    words += ["set-controller", BRIDGE, *(f"unix:{each.path}" for each in both)]
    await asyncio.to_thread(substrate.vsctl, lab.layout, "node-1", *words)
    try:
        yield both
    finally:
        await asyncio.to_thread(substrate.vsctl, lab.layout, "node-1", "del-br", BRIDGE)
        for each in both:
            await each.channel.close()


def cluster_digest(lab: Lab) -> str:
    argv = ["ovs-ofctl", "-O", "OpenFlow15", "--no-stats", "dump-flows", BRIDGE, f"table={DIGEST.number}"]
    return substrate.run(argv, env=substrate.switch_environment(lab.layout, "node-1"))


async def test_open_vswitch_refuses_a_former_master(lab: Lab, two: tuple[One, One]) -> None:
    first, second = two
    first.become(1)
    second.become(None, known=1)
    await soon(lambda: first.phase is Phase.SYNCED and second.phase is Phase.STANDBY, "one is master")
    assert first.fleet.syncs["n1"].counters.flow_mods and not second.fleet.syncs["n1"].counters.flow_mods
    # The second takes over, and the first hears of it from the switch alone.
    second.become(2)
    await soon(lambda: second.phase is Phase.SYNCED, "the other one is master")
    await soon(lambda: first.phase is Phase.STANDBY, "the switch has told the first one")
    assert not second.fleet.syncs["n1"].counters.flow_mods
    before = cluster_digest(lab)
    # What it writes all the same, as one does that was stopped between looking at its clock and writing:
    sync = first.fleet.syncs["n1"]
    sync._standby, sync._granted = False, True
    first.controller.take(snapshot(1, 2, 3))
    assert sync.phase is Phase.SYNCING
    await soon(lambda: first.phase is Phase.STANDBY, "the switch has refused its bundle")
    first.fleet.peers["n1"].write([encode.flow_mod(digest_flow(Scope.CLUSTER, 77))])
    assert sync.counters.sent_bytes
    # It can't have its former place back either.
    assert not first.chosen.higher
    first.become(1)
    await soon(lambda: first.chosen.higher, "the switch knows of a later master")
    assert first.chosen.higher == [2]
    assert first.phase is Phase.STANDBY
    assert cluster_digest(lab) == before
    # And the second still writes.
    second.controller.take(snapshot(1, 2, 3, 4))
    await soon(lambda: second.phase is Phase.SYNCED, "the master is in sync")
    assert f"{second.fleet.cluster.state.digest:#x}" in cluster_digest(lab)


async def test_a_master_follows_on_where_the_former_one_has_got_to(lab: Lab, two: tuple[One, One]) -> None:
    first, second = two
    first.become(1)
    second.become(None)
    await soon(lambda: first.phase is Phase.SYNCED and second.phase is Phase.STANDBY, "one is master")
    # The former master is behind: of the scope only what it lacks is sent.
    first.become(None, known=1)
    second.controller.take(snapshot(1, 2, 3))
    second.become(2)
    await soon(lambda: second.phase is Phase.SYNCED, "the other one is master")
    assert 0 < second.fleet.syncs["n1"].counters.flow_mods < 10
    # The former master is ahead: what the new one doesn't know yet is left alone for a moment.
    second.controller.take(snapshot(1, 2, 3, 4))
    await soon(lambda: second.phase is Phase.SYNCED, "the master is in sync")
    second.become(None, known=2)
    first.controller.take(snapshot(1, 2, 3))
    first.become(3)
    await soon(lambda: first.phase is Phase.READING, "it asks")
    await asyncio.sleep(0.1)
    assert first.phase is Phase.READING
    sent = first.fleet.syncs["n1"].counters.flow_mods
    first.controller.take(snapshot(1, 2, 3, 4))
    await soon(lambda: first.phase is Phase.SYNCED, "it has come to know")
    assert first.fleet.syncs["n1"].counters.flow_mods == sent


async def test_a_takeover_is_a_role_request_and_a_read_of_digests(lab: Lab, two: tuple[One, One]) -> None:
    first, second = two
    first.become(1)
    second.become(None)
    await soon(lambda: first.phase is Phase.SYNCED and second.phase is Phase.STANDBY, "one is master")
    peer, written = second.fleet.peers["n1"], []
    with contextlib.ExitStack() as stack:
        link = peer._link
        stack.callback(setattr, peer, "_link", link)

        class Spy:
            def write(self, buffers: Any) -> None:
                taken = list(buffers)
                written.extend(taken)
                link.write(taken)

            def close(self, reason: str) -> None:
                link.close(reason)

        peer._link = Spy()
        second.become(2)
        await soon(lambda: second.phase is Phase.SYNCED, "the other one is master")
    own = 1 << 31
    xids = [int.from_bytes(each[4:8], "big") for each in written]
    assert all(xid >= own for xid in xids)
    assert written == [
        encode.role_request(Role.MASTER, 2, xids[0]),
        encode.flow_stats_request(DIGEST.number, xid=xids[1]),
    ]
