"""Questions to one switch, where its answer isn't what was asked for."""

from __future__ import annotations

from struct import pack

from counts import answer
from fake_switch import FakeSwitch
from test_sync import UPLINKS, connect, node, started, switch_of

from controller import questions
from flows.openflow.counted import FlowCount
from flows.openflow.messages import FlowStats, PortDesc, PortStats
from flows.openflow.wire import Multipart
from topology.naming import datapath_id


class Rambling(FakeSwitch):
    """A switch that answers with half a flow where it is asked what flows have counted."""

    def _multipart(self, message: bytes, xid: int) -> bytes:
        if message[8:10] == pack("!H", Multipart.FLOW_DESC) and xid >> 30 == 3:
            return answer([bytes(12)], xid=xid)
        return super()._multipart(message, xid)


def test_a_switch_that_refuses_to_answer_is_as_one_that_has_nothing() -> None:
    controller = started(node(1))
    switch = switch_of(1)
    wire = connect(controller, switch)
    switch.keeps_secret.update(Multipart)
    sync, flows, ended = controller.fleet.syncs["n1"], list[list[FlowStats]](), list[str]()
    ports: list[tuple[list[PortDesc], list[PortStats]]] = []
    questions.dump(sync, flows.append)
    questions.count_flows(sync, (0, 30), lambda found: None, lambda: ended.append("flows"))
    questions.count_services(sync, lambda found: None, lambda buckets, stats: ended.append("services"))
    questions.count_ports(sync, lambda *found: ports.append(found))
    wire.pump()
    assert flows == [[]] and ports == [([], [])]
    assert ended == ["flows", "services"]
    assert not wire.closed


def test_an_answer_that_can_t_be_read_ends_the_connection_of_that_switch_alone() -> None:
    controller = started(node(1), node(2))
    rambling, other = connect(controller, Rambling(datapath_id("n1"), UPLINKS)), connect(controller, switch_of(2))
    met: list[FlowCount] = []
    ended: list[str] = []
    for name in ("n1", "n2"):
        questions.count_flows(controller.fleet.syncs[name], (0,), met.extend, lambda name=name: ended.append(name))  # type: ignore[misc]
    rambling.pump()
    other.pump()
    assert "flow counts of" in rambling.closed and not other.closed
    assert ended == ["n2"] and list(controller.fleet.syncs) == ["n2"]
