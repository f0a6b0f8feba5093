"""Switches in transit: they get their own flows and nothing of the cluster's, and can become nodes like others."""

from __future__ import annotations

from fake_switch import FakeSwitch, Wire
from test_sync import UPLINKS, drifted, node, snapshot, started

from controller.app import Controller
from controller.sync import Phase
from flows.cookies import Scope
from flows.pipeline import DIGEST
from flows.state import Port
from flows.tables.digest import digest_flow
from flows.update import CLUSTER
from topology.graph import wire
from topology.model import TRANSIT, Node

WIRES = [wire(("n1", "to-2"), ("n2", "to-1")), wire(("n2", "to-3"), ("n3", "to-2"))]


def transit(number: int) -> Node:
    return Node(name=f"n{number}", addresses=(), pod_cidrs=(), labels=(TRANSIT,))


def begin(*nodes: Node) -> tuple[Controller, FakeSwitch, Wire]:
    """A controller, the second node's switch between the others', and its connection."""
    controller = started(*nodes)
    # These wires are given: nobody is asked for others.
    controller.links.discovery.interval = 0.0
    controller.compiler.set_links(WIRES)
    for name, port in (("n1", "to-2"), ("n3", "to-2")):
        controller.compiler.set_ports(name, [*UPLINKS, Port(7, port, 7)])
    switch = FakeSwitch(nodes[1].datapath_id, (Port(5, "to-1", 5), Port(6, "to-3", 6)))
    return controller, switch, connect(controller, switch)


def connect(controller: Controller, switch: FakeSwitch) -> Wire:
    connection = Wire(controller, switch)
    connection.pump()
    return connection


def assert_alone(controller: Controller, switch: FakeSwitch) -> None:
    """It has its own flows, and digests that say so."""
    assert controller.fleet.syncs["n2"].phase is Phase.SYNCED
    own = set(controller.compiler.flows("n2"))
    assert own and switch.flows == own
    assert switch.digests[digest_flow(Scope.NODE, 0).match] == controller.fleet.scope("n2").digest
    assert switch.digests[digest_flow(Scope.CLUSTER, 0).match] == controller.fleet.shared("n2").digest


def test_a_switch_in_transit_gets_its_own_flows_and_changes_of_them() -> None:
    nodes = node(1), transit(2), node(3)
    controller, switch, connection = begin(*nodes)
    assert_alone(controller, switch)
    bundles = controller.fleet.syncs["n2"].counters.bundles
    controller.take(snapshot(*nodes, node(4)))
    connection.pump()
    assert controller.fleet.syncs["n2"].counters.bundles == bundles
    connection.tell(switch.set_ports([Port(5, "to-1", 5), Port(6, "to-3", 6, up=False)]))
    connection.pump()
    assert [wire for wire, _ in controller.compiler.unused_wires()] == WIRES[1:]
    assert_alone(controller, switch)


def test_a_controller_that_starts_anew_sends_it_nothing() -> None:
    nodes = node(1), transit(2), node(3)
    _, switch, connection = begin(*nodes)
    connection.cut()
    again = started(*nodes)
    again.compiler.set_links(WIRES)
    for name, port in (("n1", "to-2"), ("n3", "to-2")):
        again.compiler.set_ports(name, [*UPLINKS, Port(7, port, 7)])
    connect(again, switch)
    assert_alone(again, switch)
    assert again.fleet.syncs["n2"].counters.flow_mods == 0


def test_an_audit_finds_nothing_wrong_with_it_and_mends_what_is() -> None:
    controller, switch, connection = begin(node(1), transit(2), node(3))
    controller.audit(full=True)
    connection.pump()
    assert controller.fleet.syncs["n2"].counters.repaired == 0
    drifted(switch)
    controller.audit(full=True)
    connection.pump()
    assert_alone(controller, switch)


def test_a_node_s_part_may_change_and_its_switch_with_it() -> None:
    nodes = node(1), transit(2), node(3)
    controller, switch, connection = begin(*nodes)
    for second in (node(2), transit(2)):
        controller.take(snapshot(nodes[0], second, nodes[2]))
        assert "n2" not in controller.fleet.syncs
        connection = connect(controller, switch)
        if second.is_transit:
            assert_alone(controller, switch)
        else:
            assert switch.flows == {*controller.compiler.flows(CLUSTER), *controller.compiler.flows("n2")}
    assert connection is not None and DIGEST.number not in {flow.table for flow in switch.flows}
