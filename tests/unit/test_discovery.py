"""Wires are found by what ports hear: at once, of nothing but real ones, and lost as soon as they are."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from topology import lldp
from topology.discovery import INTERVAL, MISSED, Discovery, End, Plug, Sender, Sending, State
from topology.graph import Wire, wire
from topology.lldp import Announcement
from topology.naming import datapath_id

#: Seconds between two looks of the controller.
STEP = 0.1


def plug(name: str) -> Plug:
    number = int(name[1:])
    return Plug(name, number, 0x0A00_0000_0000 + number)


class World:
    """Switches, cables between their ports, and controllers that ask; the first is master of all if not said."""

    def __init__(self, *cables: tuple[str, str], controllers: int = 1) -> None:
        self.now = 100.0
        self.controllers = [Discovery() for _ in range(controllers)]
        #: Where what an end sends comes out: with a hub, at several.
        self.leads: dict[End, set[End]] = {}
        self.ports: dict[str, set[str]] = {}
        self.masters: dict[str, int | None] = {}
        #: What each switch has sent on, by node.
        self.told: dict[str, int] = {}
        self.deaf: set[End] = set()
        for one, other in cables:
            self.join(one, other)

    @property
    def wires(self) -> list[Wire]:
        return self.controllers[0].wires()

    def add(self, node: str, *ports: str, master: int | None = 0) -> None:
        self.ports[node] = set(ports)
        self.tell_ports(node)
        self.appoint(node, master)

    def appoint(self, node: str, master: int | None, gone: frozenset[int] = frozenset()) -> None:
        self.masters[node] = master
        for number, each in enumerate(self.controllers):
            if number not in gone:
                said = Sender.NOBODY if master is None else Sender.US if master == number else Sender.OTHERS
                each.set_sender(node, said, self.now)

    def join(self, one: str, other: str) -> None:
        ends = [end_of(one), end_of(other)]
        for end in ends:
            self.leads.setdefault(end, set()).update(each for each in ends if each != end or one == other)
            if end[0] not in self.ports:
                self.add(end[0])
            self.ports[end[0]].add(end[1])
            self.tell_ports(end[0])

    def down(self, *names: str) -> None:
        for node, port in map(end_of, names):
            self.ports[node].discard(port)
            self.tell_ports(node)

    def up(self, *names: str) -> None:
        for node, port in map(end_of, names):
            self.ports[node].add(port)
            self.tell_ports(node)

    def tell_ports(self, node: str) -> None:
        for each in self.controllers:
            each.set_ports(node, map(plug, sorted(self.ports[node])), self.now)

    def run(self, seconds: float, stopped: frozenset[int] = frozenset()) -> int:
        """Let time pass; the number of frames sent."""
        sent, until = 0, self.now + seconds
        while self.now < until:
            for number, each in enumerate(self.controllers):
                if number not in stopped:
                    for sending in each.due(self.now):
                        assert self.masters[sending.node] == number
                        self.carry(sending)
                        sent += 1
            self.now = round(self.now + STEP, 3)
        return sent

    def carry(self, sending: Sending) -> None:
        """A frame to wherever its port leads; every controller that there is hears of it."""
        (port,) = [name for name in self.ports[sending.node] if plug(name).number == sending.port]
        for node, name in self.leads.get((sending.node, port), ()):
            if name in self.ports[node] and self.masters[node] is not None and (node, name) not in self.deaf:
                self.told[node] = self.told.get(node, 0) + 1
                for each in self.controllers:
                    each.hear(node, plug(name).number, sending.frame, self.now)


def end_of(text: str) -> End:
    node, _, port = text.partition(":")
    return node, port


def between(*cables: tuple[str, str]) -> list[Wire]:
    return sorted(wire(end_of(one), end_of(other)) for one, other in cables)


RING = (("a:p1", "b:p1"), ("b:p2", "c:p1"), ("c:p2", "a:p2"))


def test_wires_are_found_at_once() -> None:
    world = World(*RING, ("a:p3", "b:p3"))
    world.run(2 * STEP)
    assert world.wires == between(*RING, ("a:p3", "b:p3"))
    assert {world.controllers[0].state(each) for each in world.wires} == {State.UP}


def test_a_wire_goes_with_either_end_and_comes_back_with_it() -> None:
    world = World(*RING)
    world.run(1)
    for name in ("b:p1", "a:p1"):
        world.down(name)
        assert world.wires == between(*RING[1:])
        world.run(1)
        world.up(name)
        assert world.wires == between(*RING[1:])
        world.run(2 * STEP)
        assert world.wires == between(*RING)


def test_a_wire_that_carries_nothing_any_more_is_gone_after_three_intervals() -> None:
    world = World(*RING)
    world.run(2 * INTERVAL)
    world.leads[end_of("a:p1")] = set()
    world.run(MISSED * INTERVAL - INTERVAL - 1)
    assert world.wires == between(*RING)
    world.run(INTERVAL + 3)
    assert world.wires == between(*RING[1:])


def test_what_only_one_side_hears_is_no_wire() -> None:
    world = World(*RING)
    world.deaf.add(end_of("a:p1"))
    world.down("a:p1")
    world.up("a:p1")
    world.run(30)
    assert world.wires == between(*RING[1:])
    world.deaf.clear()
    world.run(INTERVAL + STEP)
    assert world.wires == between(*RING)


def test_ports_are_asked_once_in_an_interval_and_no_more_often() -> None:
    world = World(*RING)
    world.run(INTERVAL)
    assert world.run(10 * INTERVAL) == 10 * 6


def test_a_port_that_nobody_answers_is_asked_eagerly_at_first_and_then_as_any_other() -> None:
    world = World()
    world.add("a", "p1")
    assert world.run(INTERVAL) <= 6
    assert world.run(10 * INTERVAL) == 10


def test_silence_of_a_switch_that_is_away_takes_no_wire_away() -> None:
    world = World(*RING)
    world.run(1)
    world.appoint("b", None)
    world.run(100)
    assert world.wires == between(*RING)
    states = {(each.a, each.b): world.controllers[0].state(each) for each in world.wires}
    assert states == {("a", "b"): State.UNCONFIRMED, ("b", "c"): State.UNCONFIRMED, ("a", "c"): State.UP}
    # When it is back, silence counts from then on.
    world.leads[end_of("b:p1")] = set()
    world.appoint("b", 0)
    world.run(MISSED * INTERVAL - 1)
    assert world.wires == between(*RING)
    world.run(3)
    assert world.wires == between(*RING[1:])


def test_a_port_that_hears_several_has_no_wire_and_is_told_of() -> None:
    world = World(*RING)
    world.run(1)
    for name in ("d:p1", "e:p1"):
        world.join("a:p1", name)
    world.run(1)
    assert world.wires == between(*RING[1:])
    (said,) = [each for each in world.controllers[0].troubles() if each.startswith("node a:")]
    assert "port p1 hears b port p1 and d port p1 and e port p1" in said
    # What was between them is taken away again, and no port has noticed.
    for name in ("d:p1", "e:p1"):
        world.leads[end_of(name)] = set()
    world.leads[end_of("a:p1")] = {end_of("b:p1")}
    world.run(3 * INTERVAL)
    assert world.wires == between(*RING)
    assert not [each for each in world.controllers[0].troubles() if each.startswith("node a:")]


def test_a_bridge_wired_to_itself_has_no_wire_and_is_told_of() -> None:
    world = World(("a:p1", "a:p2"))
    world.join("b:p1", "b:p1")
    world.run(1)
    assert world.wires == []
    told = list(world.controllers[0].troubles())
    assert [each.partition(":")[0] for each in told] == ["node a", "node a", "node b"]
    assert all("of the same bridge" in each for each in told)


def test_a_cable_that_is_moved_without_any_port_noticing_is_found_where_it_is() -> None:
    world = World(*RING)
    world.add("d", "p1")
    world.run(2 * INTERVAL)
    world.leads[end_of("a:p1")], world.leads[end_of("d:p1")] = {end_of("d:p1")}, {end_of("a:p1")}
    world.leads[end_of("b:p1")] = set()
    world.run(3 * INTERVAL)
    assert world.wires == between(*RING[1:], ("a:p1", "d:p1"))


def test_a_port_of_another_number_or_address_is_another_port() -> None:
    world = World(*RING)
    world.run(1)
    for changed in (Plug("p1", 7, 1), Plug("p1", 7, 2)):
        here = world.controllers[0]
        here.set_ports("a", [changed, plug("p2")], world.now)
        assert world.wires == between(*RING[1:])


def test_a_node_that_is_removed_takes_its_wires_along() -> None:
    world = World(*RING)
    world.run(1)
    here = world.controllers[0]
    here.remove("b")
    here.remove("nobody")
    assert world.wires == between(RING[2])
    # Frames of its that were on their way mean nothing.
    here.hear("a", 1, lldp.frame(Announcement(datapath_id("b"), "p1", 15), 1), world.now)
    assert world.wires == between(RING[2])


def test_a_goodbye_is_believed_at_once() -> None:
    world = World(*RING)
    world.run(1)
    for _ in range(2):
        world.controllers[0].hear("a", 1, lldp.frame(Announcement(datapath_id("b"), "p1", 0), 1), world.now)
        assert world.wires == between(*RING[1:])


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        lldp.frame(Announcement(datapath_id("unknown"), "p1", 15), 1),
        lldp.frame(Announcement(datapath_id("b"), "p9", 15), 1),
        lldp.frame(Announcement(datapath_id("b"), "p1", 15), 1)[:30],
    ],
)
def test_what_can_t_be_is_passed_over(frame: bytes) -> None:
    world = World(*RING)
    world.run(1)
    world.down("b:p1")
    here = world.controllers[0]
    before = here.version
    for number in (1, 99):
        here.hear("a", number, frame, world.now)
    here.hear("nobody", 1, frame, world.now)
    assert here.version == before


def test_a_wire_of_64_at_one_switch_doesn_t_have_all_of_them_told_at_one_moment() -> None:
    cables = [(f"spine:p{number}", f"leaf{number}:p1") for number in range(1, 65)]
    world = World(*cables)
    world.run(1)
    assert world.wires == between(*cables)
    world.run(INTERVAL)
    busiest = 0
    for _ in range(round(10 * INTERVAL / STEP)):
        world.told.clear()
        world.run(STEP)
        busiest = max(busiest, world.told.get("spine", 0))
    # On average 1.3 in a tenth of a second; 25 and more would be dropped by the switch.
    assert busiest <= 10


def test_a_standby_has_the_same_wires_and_takes_over_without_losing_any() -> None:
    world = World(controllers=2)
    for name in "abc":
        world.add(name)
    for cable in RING:
        world.join(*cable)
    world.run(INTERVAL)
    standby = world.controllers[1]
    assert standby.wires() == world.wires == between(*RING)
    # The master is gone; after 17 seconds its lease is another's. Nobody has spoken meanwhile.
    world.run(17, stopped=frozenset({0}))
    assert standby.wires() == between(*RING)
    before = standby.version
    for name in "abc":
        world.appoint(name, 1)
    world.run(3 * INTERVAL, stopped=frozenset({0}))
    assert standby.wires() == between(*RING) and standby.version == before
    world.leads[end_of("a:p1")] = set()
    world.run(4 * INTERVAL, stopped=frozenset({0}))
    assert standby.wires() == between(*RING[1:])


def test_wires_end_with_a_hundred_thousand_frames_of_strangers_and_little_is_kept() -> None:
    world = World(*RING)
    world.run(1)
    here = world.controllers[0]
    for number in range(200):
        world.add(f"x{number}", "p1")
        here.hear("a", 1, lldp.frame(Announcement(datapath_id(f"x{number}"), "p1", 15), 1), world.now)
    assert max(map(len, here._heard.values())) <= 4
    assert sum(map(len, here._hearers.values())) == sum(map(len, here._heard.values()))


class Cabling(RuleBasedStateMachine):
    """Cables are drawn and moved, ports and switches come and go, frames are lost: in the end all is known."""

    NODES, PORTS = "abcd", ("p1", "p2", "p3")

    @initialize(controllers=st.integers(1, 2))
    def begin(self, controllers: int) -> None:
        self.world = World(controllers=controllers)
        for name in self.NODES:
            self.world.add(name, *self.PORTS)
        self.peers: dict[End, End] = {}

    @property
    def ends(self) -> list[End]:
        return [(node, port) for node in self.NODES for port in self.PORTS]

    @rule(one=st.integers(0, 11), other=st.integers(0, 11))
    def draw_a_cable(self, one: int, other: int) -> None:
        ends = [self.ends[one], self.ends[other]]
        if ends[0] == ends[1]:
            return
        for end in ends:
            former = self.peers.pop(end, None)
            if former is not None:
                self.peers.pop(former, None)
                self.world.leads[former] = set()
        self.peers[ends[0]], self.peers[ends[1]] = ends[1], ends[0]
        self.world.leads |= {end: {self.peers[end]} for end in ends}

    @rule(end=st.integers(0, 11), up=st.booleans())
    def a_port_changes(self, end: int, up: bool) -> None:
        (self.world.up if up else self.world.down)(":".join(self.ends[end]))

    @rule(node=st.integers(0, 3), master=st.sampled_from([None, 0, 1]))
    def a_switch_has_another_master(self, node: int, master: int | None) -> None:
        if master is None or master < len(self.world.controllers):
            self.world.appoint(self.NODES[node], master)

    @rule(end=st.integers(0, 11), deaf=st.booleans())
    def frames_are_lost(self, end: int, deaf: bool) -> None:
        (self.world.deaf.add if deaf else self.world.deaf.discard)(self.ends[end])

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule()
    def all_is_well_for_a_while(self) -> None:
        world = self.world
        world.deaf.clear()
        for node in self.NODES:
            if world.masters[node] is None:
                world.appoint(node, 0)
        # Of several controllers each waits for the others' masters to come back.
        world.run(3 * MISSED * INTERVAL + INTERVAL + 2)
        there = [
            (":".join(end), ":".join(peer))
            for end, peer in self.peers.items()
            if end < peer and end[0] != peer[0] and all(port in world.ports[node] for node, port in (end, peer))
        ]
        for each in world.controllers:
            assert each.wires() == between(*there)

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def a_port_has_one_wire_at_most_and_is_up(self) -> None:
        for each in self.world.controllers:
            ends = [end for found in each.wires() for end in ((found.a, found.a_port), (found.b, found.b_port))]
            assert len(ends) == len(set(ends))
            assert all(port in self.world.ports[node] for node, port in ends)
            assert all(found == msgspec.structs.replace(found, cost=1) for found in each.wires())


Cabling.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestCabling = Cabling.TestCase
