"""Wires as a controller, and a standby, learn of them from switches in memory."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec
import pytest
from fake_switch import FakeSwitch, Wire
from test_replicas import Clock, Decided, tenure
from test_sync import UPLINKS, assert_in_sync, node, pod, pod_port, snapshot

from controller import app
from controller.app import Controller
from controller.links import SETTLED_AFTER
from controller.sync import PATIENCE, Phase
from flows import fields as f
from flows.openflow.messages import PacketIn
from flows.state import Port
from flows.values import PORT_LOCAL
from topology.discovery import INTERVAL, MISSED
from topology.graph import Wire as Link
from topology.model import Object, Pod

#: Two nodes and what is wired between their bridges.
THERE = Link("n1", "x1", "n2", "x2")
#: Two ports that are nobody's.
X1, X2 = Port(51, "x1", 0x0A00_0000_0001), Port(52, "x2", 0x0A00_0000_0002)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    here = Clock()
    here.now = 1000.0
    monkeypatch.setattr(app, "time", here)
    return here


class Cluster:
    """Switches that are wired, and controllers that are connected to all of them."""

    def __init__(self, clock: Clock, *objects: Object, standby: bool = False) -> None:
        self.clock = clock
        self.objects = {each.key: each for each in objects or (node(1), node(2), pod("a", 1))}
        ports = {1: (X1, pod_port("a", 1)), 2: (X2,)}
        first = {number: FakeSwitch(node(number).datapath_id, (*UPLINKS, *ports[number])) for number in ports}
        self.cable = {(1, X1.number): (2, X2.number), (2, X2.number): (1, X1.number)}
        self.members: list[tuple[Controller, Decided | None, dict[int, FakeSwitch], dict[int, Wire]]] = []
        self.join(first, Decided(tenure(1)) if standby else None)
        if standby:
            self.join({number: switch.another() for number, switch in first.items()}, Decided(None, epoch=1))

    def join(self, switches: dict[int, FakeSwitch], mastery: Decided | None) -> None:
        controller = Controller()
        if mastery is not None:
            controller.fleet._mastery = mastery
        controller.take(snapshot(*self.objects.values()))
        wires: dict[int, Wire] = {}
        self.members.append((controller, mastery, switches, wires))
        for number, switch in switches.items():
            wires[number] = Wire(controller, switch, self.clock.now)
            self.pump()

    def connect(self, number: int) -> None:
        controller, _, switches, wires = self.members[0]
        switch = switches.setdefault(number, FakeSwitch(node(number).datapath_id, UPLINKS))
        wires[number] = Wire(controller, switch, self.clock.now)
        self.pump()

    def restart(self, mastery: Decided | None = None) -> None:
        """Another controller, which knows nothing of the first, and is connected to nobody yet."""
        _, _, switches, wires = self.members[0]
        for wire in wires.values():
            wire.cut()
        for switch in switches.values():
            switch.reset()
        controller = Controller()
        if mastery is not None:
            controller.fleet._mastery = mastery
        controller.take(snapshot(*self.objects.values()))
        self.members[0] = (controller, mastery, switches, {})

    @property
    def controller(self) -> Controller:
        return self.members[0][0]

    def links(self, member: int = 0) -> list[Link]:
        return list(self.members[member][0].links.wires())

    def pump(self) -> None:
        """Carry messages, and packets from port to port, until there are none."""
        moved = True
        while moved:
            moved = False
            for _, _, switches, wires in self.members:
                for number, wire in wires.items():
                    wire.now = self.clock.now
                    moved |= wire.step()
                    emitted, switches[number].emitted = switches[number].emitted, []
                    for port, data in emitted:
                        self.arrive(self.cable.get((number, port)), data)

    def arrive(self, where: tuple[int, int] | None, data: bytes) -> None:
        if where is None:
            return
        for _, _, switches, wires in self.members:
            if where[0] in wires and not wires[where[0]].closed:
                wires[where[0]].tell(switches[where[0]].packet_in(where[1], data))

    def run(self, seconds: float) -> None:
        until = self.clock.now + seconds
        while self.clock.now < until:
            for controller, *_ in self.members:
                controller.look_at_links()
                controller.obey_leases()
                controller.ask_ports()
            self.pump()
            self.clock.now += 0.1

    def set_ports(self, number: int, *ports: Port) -> None:
        told = self.members[0][2][number].set_ports([*UPLINKS, *ports])
        for _, _, _, wires in self.members:
            wires[number].tell(told)
        self.pump()

    def put(self, *objects: Object) -> None:
        self.objects |= {each.key: each for each in objects}
        self.take()

    def take(self) -> None:
        for controller, *_ in self.members:
            controller.take(snapshot(*self.objects.values()))
        self.pump()


def used(here: Cluster) -> list[Link]:
    """The wires that flows are made for."""
    return list(here.controller.compiler.fabric.used())


def test_a_wire_is_found_and_given_to_the_compiler(clock: Clock) -> None:
    here = Cluster(clock)
    here.run(1)
    assert here.links() == [THERE]
    assert used(here) == [THERE]
    for number in (1, 2):
        assert_in_sync(here.controller, f"n{number}", here.members[0][2][number])


def test_a_wire_goes_with_its_port_at_once(clock: Clock) -> None:
    here = Cluster(clock)
    here.run(1)
    here.set_ports(1, pod_port("a", 1), msgspec.structs.replace(X1, up=False))
    assert here.links() == [] and used(here) == []
    here.set_ports(1, pod_port("a", 1), X1)
    here.run(1)
    assert here.links() == [THERE]
    here.set_ports(2)
    assert here.links() == []


def test_ports_of_pods_of_the_host_and_of_tunnels_are_never_asked(clock: Clock) -> None:
    here = Cluster(clock)
    here.set_ports(1, X1, pod_port("a", 1), Port(PORT_LOCAL, "br-int", 7))
    asked: set[int] = set()
    here.cable = {}
    switch = here.members[0][2][1]
    for _ in range(100):
        here.controller.ask_ports()
        here.members[0][3][1].step()
        asked |= {port for port, _ in switch.emitted}
        clock.now += 0.1
    assert asked == {X1.number}
    told = [flow for flow in switch.flows if any(term.value == 0x88CC for term in flow.match)]
    assert [flow.match[0] for flow in told] == [f.IN_PORT(X1.number)]


def test_a_port_that_a_workload_claims_has_no_wire_until_it_is_gone(clock: Clock) -> None:
    here = Cluster(clock)
    here.run(1)
    claim = Pod(namespace="default", name="vm", node="n1", port="x1", mac=0x52, addresses=(ip_address("10.244.1.99"),))
    here.put(claim)
    here.run(1)
    assert here.links() == []
    assert not [flow for flow in here.members[0][2][1].flows if any(term == f.ETH_TYPE(0x88CC) for term in flow.match)]
    del here.objects[claim.key]
    here.take()
    here.run(1)
    assert here.links() == [THERE]
    here.put(claim)
    assert here.links() == []
    # It moves to another port, and to another node.
    here.put(msgspec.structs.replace(claim, port="x9"))
    here.run(1)
    assert here.links() == [THERE]
    here.put(msgspec.structs.replace(claim, port="x2", node="n2"))
    assert here.links() == []


def test_a_wire_costs_what_the_end_with_the_higher_cost_says(clock: Clock) -> None:
    here = Cluster(clock)
    here.run(1)
    for costs, cost in (((("x1", 7), ("x9", 70)), 7), ((), 1), ((("x1", 3),), 3)):
        here.put(msgspec.structs.replace(node(1), link_costs=costs))
        assert used(here) == [msgspec.structs.replace(THERE, cost=cost)]
    here.put(msgspec.structs.replace(node(2), link_costs=(("x2", 10),)))
    assert used(here) == [msgspec.structs.replace(THERE, cost=10)]


def test_a_node_that_is_deleted_and_made_again_loses_its_wires_and_gets_them_back(clock: Clock) -> None:
    here = Cluster(clock)
    here.run(1)
    gone = here.objects.pop(node(2).key)
    here.take()
    assert here.links() == [] and used(here) == []
    here.put(gone)
    here.run(1)
    assert here.links() == [THERE]


def test_a_standby_knows_the_same_wires_and_sends_nothing(clock: Clock) -> None:
    here = Cluster(clock, standby=True)
    here.run(INTERVAL)
    assert here.links(0) == here.links(1) == [THERE]
    standby, mastery, switches, _ = here.members[1]
    assert standby.fleet.phase("n1") is Phase.STANDBY
    assert all(switch.count.get(13, 0) == 0 for switch in switches.values())
    # It takes over, and goes on asking: what is cut is noticed.
    for wire in here.members[0][3].values():
        wire.cut()
    assert mastery is not None
    mastery.held = tenure(2)
    standby.fleet.obey(clock.now)
    here.members.pop(0)
    here.run(3 * INTERVAL)
    assert here.links() == [THERE]
    assert all(sync.counters.bundles == 0 for sync in standby.fleet.syncs.values())
    here.cable = {}
    here.run((MISSED + 1) * INTERVAL)
    assert here.links() == []


def test_a_switch_that_is_away_for_a_while_keeps_its_wires(clock: Clock) -> None:
    here = Cluster(clock)
    here.run(1)
    here.members[0][3][2].cut()
    here.run(60)
    assert here.links() == [THERE]
    controller, _, switches, wires = here.members[0]
    wires[2] = Wire(controller, switches[2], clock.now)
    version = controller.links.discovery.version
    here.run(10)
    assert here.links() == [THERE] and controller.links.discovery.version == version


def test_a_controller_that_starts_anew_sends_nothing_where_the_wires_are_what_they_were(clock: Clock) -> None:
    here = Cluster(clock, node(1), node(2), node(3), pod("a", 1))
    here.connect(3)
    here.run(1)
    assert used(here) == [THERE]
    here.restart()
    # One after the other, and the last one late.
    for number in (3, 1, 2):
        here.connect(number)
        here.run(1.5)
    here.run(SETTLED_AFTER)
    assert used(here) == [THERE]
    for number in (1, 2):
        assert here.controller.fleet.syncs[f"n{number}"].counters.flow_mods == 0, number
    for number, switch in here.members[0][2].items():
        assert_in_sync(here.controller, f"n{number}", switch)


def test_one_of_several_that_starts_anew_sends_nothing_however_long_it_waits_for_its_leases(clock: Clock) -> None:
    here = Cluster(clock)
    here.run(1)
    here.restart(Decided(None, epoch=1))
    for number in (1, 2):
        here.connect(number)
    here.run(2 * SETTLED_AFTER)
    assert here.links() == []
    # It becomes master of one switch after the other: what it looks at less often than that is not yet looked at.
    controller, mastery, switches, _ = here.members[0]
    assert mastery is not None
    mastery.held = tenure(2)
    controller.fleet.obey(clock.now)
    here.pump()
    clock.now += PATIENCE + 0.01
    controller.obey_leases()
    here.pump()
    here.run(5)
    assert used(here) == [THERE]
    for number, switch in switches.items():
        assert controller.fleet.syncs[f"n{number}"].counters.flow_mods == 0, number
        assert_in_sync(controller, f"n{number}", switch)


def test_a_standby_that_takes_over_doesn_t_wait(clock: Clock) -> None:
    here = Cluster(clock, standby=True)
    here.run(2 * SETTLED_AFTER)
    standby, mastery, switches, _ = here.members[1]
    # A node whose switch never comes, and one that only the former master has heard of.
    here.put(node(3))
    here.controller.take(snapshot(*here.objects.values(), node(4)))
    here.pump()
    for wire in here.members.pop(0)[3].values():
        wire.cut()
    assert mastery is not None
    mastery.held = tenure(2)
    standby.fleet.obey(clock.now)
    here.pump()
    clock.now += PATIENCE + 0.01
    standby.fleet.obey(clock.now)
    here.pump()
    for number, switch in switches.items():
        assert_in_sync(standby, f"n{number}", switch)


def test_a_controller_that_starts_anew_doesn_t_wait_long_for_wires_that_are_gone(clock: Clock) -> None:
    here = Cluster(clock)
    here.run(1)
    here.restart()
    here.cable = {}
    for number in (1, 2):
        here.connect(number)
    held = [switch.flows for switch in here.members[0][2].values()]
    here.run(1)
    assert [switch.flows for switch in here.members[0][2].values()] == held
    here.run(4)
    for number, switch in here.members[0][2].items():
        assert_in_sync(here.controller, f"n{number}", switch)
        assert switch.flows != held[number - 1]


def test_a_switch_that_never_comes_doesn_t_hold_the_others_up_for_good(clock: Clock) -> None:
    here = Cluster(clock)
    here.run(1)
    here.restart()
    here.connect(1)
    here.run(SETTLED_AFTER - 1)
    assert here.controller.fleet.phase("n1") is Phase.READING
    here.run(2)
    assert_in_sync(here.controller, "n1", here.members[0][2][1])


def test_where_no_interval_is_given_nobody_is_asked(clock: Clock) -> None:
    here = Cluster(clock)
    again = Controller()
    again.links.discovery.interval = 0.0
    again.take(snapshot(*here.objects.values()))
    here.members[0] = (again, None, here.members[0][2], {})
    for number, switch in here.members[0][2].items():
        switch.count.clear()
        here.members[0][3][number] = Wire(again, switch, clock.now)
    here.run(2 * INTERVAL)
    assert here.links() == []
    assert all(13 not in switch.count for switch in here.members[0][2].values())


def packet(table: int, data: bytes) -> PacketIn:
    return PacketIn(0, table, 0, (), data)


LLDP = bytes(12) + b"\x88\xcc" + bytes(46)
