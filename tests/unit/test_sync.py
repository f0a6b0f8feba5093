"""Controller and switches on a wire in memory: in the end every switch holds what it should, and no more is sent."""

from __future__ import annotations

import time
from ipaddress import ip_address, ip_network
from itertools import pairwise
from struct import unpack_from

import msgspec
import pytest
from fake_switch import FakeSwitch, Wire
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import flows.compiler
from controller import sync as syncs
from controller.app import Controller
from controller.batch import Xids
from controller.scopes import ClusterLog
from controller.sync import FAILURE_LIMIT, Phase
from flows.cookies import Kind, Scope
from flows.openflow import encode
from flows.openflow.wire import Multipart, Type
from flows.pipeline import INGRESS_POLICY, NODE_ADDRESS, ROUTE
from flows.state import Port
from flows.tables.digest import digest_flow
from flows.tables.policy import ISOLATED
from flows.update import CLUSTER
from flows.values import Flow, Group
from topology.manifest_state import Snapshot
from topology.model import (
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Node,
    Object,
    Pod,
    Service,
    ServicePort,
    Subset,
)
from topology.naming import (
    GATEWAY_MAC,
    GATEWAY_PORT,
    HOST_END_MAC_PREFIX,
    TUNNEL_PORT,
    mac_of,
    pod_port_name,
)
from topology.policies import PodSet, Policy

UPLINKS = (Port(1, GATEWAY_PORT, GATEWAY_MAC), Port(2, TUNNEL_PORT, 0x5B))


def node(number: int) -> Node:
    return Node(
        name=f"n{number}",
        addresses=(ip_address(f"172.30.0.{number}"),),
        pod_cidrs=(ip_network(f"10.244.{number}.0/24"), ip_network(f"fd00:10:244:{number}::/64")),
    )


def pod(name: str, number: int) -> Pod:
    return Pod(namespace="default", name=name, node=f"n{number}")


def pod_port(name: str, number: int, index: int = 10) -> Port:
    mac = mac_of(HOST_END_MAC_PREFIX, ip_address(f"10.244.{number}.{index}"))
    return Port(index, pod_port_name("default", name), mac)


def snapshot(*objects: Object) -> Snapshot:
    return Snapshot({each.key: each for each in objects})


def started(*objects: Object) -> Controller:
    controller = Controller()
    controller.take(snapshot(*objects))
    return controller


def connect(controller: Controller, switch: FakeSwitch, *, pump: bool = True) -> Wire:
    wire = Wire(controller, switch)
    if pump:
        wire.pump()
    return wire


def switch_of(number: int, *ports: Port) -> FakeSwitch:
    return FakeSwitch(node(number).datapath_id, (*UPLINKS, *ports))


def expected(controller: Controller, name: str) -> set[Flow]:
    return {*controller.compiler.flows(CLUSTER), *controller.compiler.flows(name)}


def in_order(group: Group) -> Group:
    """A group with its buckets as `FakeSwitch.balancers` has them."""
    return msgspec.structs.replace(group, buckets=tuple(sorted(group.buckets, key=lambda each: each.bucket_id)))


def assert_in_sync(controller: Controller, name: str, switch: FakeSwitch) -> None:
    sync = controller.fleet.syncs[name]
    assert sync.phase is Phase.SYNCED
    refused = {each.item for found in sync.refusals.values() for each in found.values()}
    assert switch.flows == expected(controller, name) - refused
    groups = [each for scope in (CLUSTER, name) for each in controller.compiler.groups(scope)]
    assert {each.group_id: each for each in switch.balancers} == {each.group_id: in_order(each) for each in groups}
    for scope, state in ((Scope.CLUSTER, controller.fleet.cluster.state), (Scope.NODE, controller.fleet.scope(name))):
        mine = [each.item for each in sync.refusals[scope].values()]
        digest = state.less(mine)
        assert switch.digests[digest_flow(scope, 0).match] == digest


def test_a_fresh_switch_gets_everything_in_one_bundle() -> None:
    controller = started(node(1), node(2), pod("a", 1))
    switch = switch_of(1, pod_port("a", 1))
    connect(controller, switch)
    assert_in_sync(controller, "n1", switch)
    assert controller.fleet.syncs["n1"].counters.bundles == 1


def test_a_switch_in_sync_is_sent_nothing_by_a_controller_that_starts_anew() -> None:
    objects = (node(1), node(2), pod("a", 1))
    switch = switch_of(1, pod_port("a", 1))
    wire = connect(started(*objects), switch)
    wire.cut()
    switch.count.clear()
    again = started(*objects)
    connect(again, switch)
    assert_in_sync(again, "n1", switch)
    assert not {Type.BUNDLE_CONTROL, Type.BUNDLE_ADD, Type.FLOW_MOD, Type.GROUP_MOD} & switch.count.keys()
    assert again.fleet.syncs["n1"].counters.flow_mods == 0


@pytest.mark.parametrize("scope", list(Scope))
def test_where_one_digest_differs_the_other_scope_is_left_alone(scope: Scope) -> None:
    objects = [node(1), node(2), pod("a", 1)]
    switch = switch_of(1, pod_port("a", 1))
    connect(started(*objects), switch).cut()
    before = switch.flows
    objects.append(node(3) if scope is Scope.CLUSTER else pod("b", 1))
    if scope is Scope.NODE:
        switch.set_ports([*UPLINKS, pod_port("a", 1), pod_port("b", 1, 11)])
    again = started(*objects)
    sent: list[Flow] = []
    switch.refuses = lambda mod: bool(sent.append(mod))  # type: ignore[arg-type,func-returns-value]
    connect(again, switch)
    assert_in_sync(again, "n1", switch)
    assert switch.flows > before
    touched = {unpack_from("!Q", mod, 8)[0] >> 55 & 1 for mod in sent if mod[24] != 70}
    assert touched == {scope.value}


def test_one_change_is_the_same_bytes_for_every_switch() -> None:
    controller = started(*map(node, range(1, 5)))
    switches = [switch_of(number) for number in range(1, 5)]
    wires = [connect(controller, switch) for switch in switches]
    controller.take(snapshot(*map(node, range(1, 6))))
    buffers = [[id(each) for each in wire.to_switch] for wire in wires]
    # Opening and committing are each switch's own; what is between is one object for all.
    assert len({tuple(each[1:-1]) for each in buffers}) == 1
    for number, (switch, wire) in enumerate(zip(switches, wires, strict=True), 1):
        wire.pump()
        assert_in_sync(controller, f"n{number}", switch)


def test_what_changes_while_a_bundle_is_in_flight_goes_out_in_the_next_one() -> None:
    controller = started(node(1))
    switch = switch_of(1)
    wire = connect(controller, switch)
    for count in range(2, 12):
        controller.take(snapshot(*map(node, range(1, count))))
    assert controller.fleet.syncs["n1"].phase is Phase.SYNCING
    wire.pump()
    assert_in_sync(controller, "n1", switch)
    assert controller.fleet.syncs["n1"].counters.bundles == 3


def test_many_changes_go_out_in_bundles_of_bounded_size_and_none_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = started(node(1))
    switch = switch_of(1)
    wire = connect(controller, switch)
    # A node is three routes, its address among those of nodes, a note, and a digest: two nodes reach the limit.
    monkeypatch.setattr(syncs, "BUNDLE_LIMIT", 12)
    monkeypatch.setattr(flows.compiler, "STEP", 1)
    controller.take(snapshot(*map(node, range(1, 11))))
    sizes = []
    while wire.step():
        sizes.append(switch.count.get(Type.BUNDLE_ADD, 0))
        assert controller.fleet.syncs["n1"].phase is Phase.SYNCING or switch.flows == expected(controller, "n1")
    added = [later - earlier for earlier, later in pairwise(sizes) if later > earlier]
    assert added == [12, 12, 12, 6]
    assert sizes[0] and controller.fleet.syncs["n1"].counters.bundles == 6
    assert_in_sync(controller, "n1", switch)


def test_a_switch_too_far_behind_gets_the_groups_of_what_it_missed_and_loses_those_that_went() -> None:
    def slice_of(name: str) -> EndpointSlice:
        subset = Subset((EndpointPort(port=8080),), (Endpoint(address=ip_address("10.244.1.10")),))
        return EndpointSlice(namespace="default", name=f"{name}-1", service=name, subsets=(subset,))

    def service(name: str, address: str) -> Service:
        ports = (ServicePort(port=80),)
        return Service(namespace="default", name=name, ports=ports, cluster_ips=(ip_address(address),))

    old, new = (service("old", "10.96.0.1"), slice_of("old")), (service("new", "10.96.0.2"), slice_of("new"))
    controller = started(node(1), *old)
    # Nothing is kept for switches that are behind: each change is one that they are too far behind for.
    controller.fleet.cluster = ClusterLog(controller.compiler, Xids(), limit=0)
    switch = switch_of(1)
    wire = connect(controller, switch)
    before = set(switch.groups)
    controller.take(snapshot(node(1), *new))
    wire.pump()
    assert_in_sync(controller, "n1", switch)
    assert set(switch.groups) == {group.group_id for group in controller.compiler.groups(CLUSTER)}
    assert len(before) == len(switch.groups) == 1 and not before & switch.groups.keys()


def test_a_pod_s_flows_follow_its_port() -> None:
    controller = started(node(1), pod("a", 1))
    switch = switch_of(1)
    wire = connect(controller, switch)
    without = switch.flows
    wire.tell(switch.set_ports([*UPLINKS, pod_port("a", 1)]))
    wire.pump()
    assert_in_sync(controller, "n1", switch)
    assert switch.flows > without
    wire.tell(switch.set_ports(UPLINKS))
    wire.pump()
    assert switch.flows == without


def test_a_refused_flow_is_set_aside_and_everything_else_is_there() -> None:
    controller = started(node(1), pod("a", 1))
    bad = next(iter(controller.compiler.flows(CLUSTER)))
    switch = switch_of(1, pod_port("a", 1))
    switch.refuses = lambda mod: mod[8:] == encode.flow_mod(bad)[8:]
    wire = connect(controller, switch)
    assert_in_sync(controller, "n1", switch)
    (refusal,) = controller.fleet.syncs["n1"].refusals[Scope.CLUSTER].values()
    assert refusal.item == bad and (refusal.error.type, refusal.error.code) == (5, 6)
    told = "node n1: refused with error FLOW_MOD_FAILED code 6, for Pipeline: "
    assert [trouble for trouble in controller.troubles() if trouble.startswith(told)]
    # Other changes go in; and a switch that comes to take it is in sync once it connects again.
    controller.take(snapshot(node(1), node(2), pod("a", 1)))
    wire.pump()
    assert_in_sync(controller, "n1", switch)
    wire.cut()
    switch.refuses = lambda mod: False
    connect(controller, switch)
    assert switch.flows == expected(controller, "n1")


def pass_time(controller: Controller, wire: Wire, seconds: float) -> None:
    """As the controller's clock does it, five times a second."""
    begun = wire.now or time.monotonic()
    for step in range(int(seconds * 5) + 1):
        wire.now = begun + step / 5
        controller.fleet.obey(wire.now)
        wire.pump()


def test_a_bundle_that_fails_is_tried_anew_and_later_each_time_but_on_the_same_connection() -> None:
    controller = started(node(1))
    switch = switch_of(1)
    switch.failing_commits = FAILURE_LIMIT - 1
    connect(controller, switch)
    assert_in_sync(controller, "n1", switch)
    assert controller.fleet.syncs["n1"].counters.failed_bundles == FAILURE_LIMIT - 1
    controller, hopeless = started(node(1)), switch_of(1)
    hopeless.failing_commits = 1000
    wire = connect(controller, hopeless)
    pass_time(controller, wire, 3600.0)
    assert not wire.closed
    tried = 1000 - hopeless.failing_commits
    assert 60 <= tried <= 80
    (told,) = [text for text in controller.troubles() if "bundles failed one after another" in text]
    assert told.startswith(f"node n1: {tried} bundles failed") and told.endswith("it is tried again, later each time")
    hopeless.failing_commits = 0
    pass_time(controller, wire, 61.0)
    assert_in_sync(controller, "n1", hopeless)
    assert not [text for text in controller.troubles() if "bundles failed" in text]


# Full tables ----------------------------------------------------------------------------------------------------------


def full(controller: Controller, name: str = "n1") -> dict[int, int]:
    """How many flows of each table the switch refuses."""
    found: dict[int, int] = {}
    for refused in controller.fleet.syncs[name].refusals.values():
        for each in refused.values():
            assert (each.error.type, each.error.code) == (5, 1) and isinstance(each.item, Flow)
            found[each.item.table] = found.get(each.item.table, 0) + 1
    return found


def in_table(controller: Controller, table: int, name: str = "n1") -> int:
    return sum(flow.table == table for flow in expected(controller, name))


def test_what_a_full_table_has_no_room_for_is_set_aside_at_once_and_all_else_is_there() -> None:
    controller = started(*map(node, range(1, 41)), pod("a", 1))
    switch = switch_of(1, pod_port("a", 1))
    switch.limits = {ROUTE.number: 30, NODE_ADDRESS.number: 10}
    wire = connect(controller, switch)
    assert_in_sync(controller, "n1", switch)
    assert full(controller) == {
        ROUTE.number: in_table(controller, ROUTE.number) - 30,
        NODE_ADDRESS.number: in_table(controller, NODE_ADDRESS.number) - 10,
    }
    # For each table that is full one bundle has failed, however many flows there is no room for.
    assert controller.fleet.syncs["n1"].counters.failed_bundles == 2 and not wire.closed
    told = [text for text in controller.troubles() if text.startswith("node n1: refused")]
    assert len(told) == 2
    assert told[1].startswith("node n1: refused with error FLOW_MOD_FAILED code 1 (table Route is full), for Node n")
    assert told[1].endswith(f"(and {full(controller)[ROUTE.number] - 1} more of table Route)")


def test_a_switch_with_a_full_table_follows_changes_and_what_there_is_room_for_by_then_comes_in() -> None:
    controller = started(*map(node, range(1, 11)))
    switch = switch_of(1)
    wire = connect(controller, switch)
    switch.limits = {ROUTE.number: in_table(controller, ROUTE.number)}
    before = switch.flows
    controller.take(snapshot(*map(node, range(1, 16)), pod("a", 1)))
    wire.tell(switch.set_ports([*UPLINKS, pod_port("a", 1)]))
    wire.pump()
    assert_in_sync(controller, "n1", switch)
    # Of five nodes and a pod; one bundle has failed for that, and of what was there nothing had to go.
    assert full(controller) == {ROUTE.number: 5 * 3 + 2}
    assert controller.fleet.syncs["n1"].counters.failed_bundles <= 2
    assert before <= switch.flows
    # What is refused isn't any more when it is gone.
    controller.take(snapshot(*map(node, range(1, 11)), pod("a", 1)))
    wire.pump()
    assert_in_sync(controller, "n1", switch)
    assert full(controller) == {ROUTE.number: 2}
    switch.limits = {}
    pass_time(controller, wire, 120.0)
    assert_in_sync(controller, "n1", switch)
    assert full(controller) == {} and switch.flows == expected(controller, "n1")


def test_full_tables_are_tried_again_with_pauses_that_grow_and_nothing_more_is_said_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    controller = started(*map(node, range(1, 41)))
    switch = switch_of(1)
    switch.limits = {ROUTE.number: 30, NODE_ADDRESS.number: 10}
    wire = connect(controller, switch)
    said, refused = len(caplog.records), controller.fleet.syncs["n1"].counters.refused
    assert said < 60
    bundles = controller.fleet.syncs["n1"].counters.bundles
    before = switch.flows
    pass_time(controller, wire, 3600.0)
    # Each time two fail and one goes in: after 1, 2, 4, ... 60 seconds, and then each minute.
    assert 3 * 60 <= controller.fleet.syncs["n1"].counters.bundles - bundles <= 3 * 70
    assert switch.flows == before and not wire.closed
    assert (len(caplog.records), controller.fleet.syncs["n1"].counters.refused) == (said, refused)
    assert_in_sync(controller, "n1", switch)
    # Room for some: these come in, whichever they are.
    switch.limits = {ROUTE.number: 50, NODE_ADDRESS.number: 1000}
    pass_time(controller, wire, 61.0)
    assert_in_sync(controller, "n1", switch)
    assert full(controller) == {ROUTE.number: in_table(controller, ROUTE.number) - 50}


def test_a_replacement_takes_what_was_refused_as_it_was_then_for_refused_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller = started(*map(node, range(1, 11)))
    switch = switch_of(1)
    switch.limits = {ROUTE.number: 5}
    wire = connect(controller, switch)
    assert full(controller)
    # Too far behind for single changes, and what was refused is gone by then.
    controller.fleet.cluster._limit = 0
    switch.limits = {}
    controller.take(snapshot(node(1)))
    wire.pump()
    assert_in_sync(controller, "n1", switch)
    stale = {each.item for found in controller.fleet.syncs["n1"].refusals.values() for each in found.values()}
    assert stale <= expected(controller, "n1")


def test_a_switch_whose_node_is_not_known_yet_waits_and_is_taken_when_it_is() -> None:
    controller = started(node(1))
    switch = switch_of(2)
    wire = connect(controller, switch)
    assert any("is of no known node" in trouble for trouble in controller.troubles())
    assert not switch.flows
    controller.take(snapshot(node(1), node(2)))
    wire.pump()
    assert_in_sync(controller, "n2", switch)


def test_a_switch_that_connects_anew_takes_the_place_of_its_old_connection() -> None:
    controller = started(node(1))
    switch = switch_of(1)
    old = connect(controller, switch)
    connect(controller, switch)
    assert old.closed
    assert_in_sync(controller, "n1", switch)


def drifted(switch: FakeSwitch) -> FakeSwitch:
    """One flow lost, one altered, one of a stranger."""
    keys = [key for key in switch.held if key[0] not in (70,)]
    del switch.held[keys[0]]
    altered = bytearray(switch.held[keys[1]])
    altered[15] ^= 1
    switch.held[keys[1]] = bytes(altered)
    switch.held[99, 1, encode.flow_mod(Flow(99, 1, (), (), 1))[48:52]] = encode.flow_mod(Flow(99, 1, (), (), 1))
    return switch


def test_an_audit_finds_and_repairs_what_somebody_has_changed() -> None:
    controller = started(node(1), pod("a", 1))
    switch = switch_of(1, pod_port("a", 1))
    wire = connect(controller, switch)
    drifted(switch)
    controller.audit(full=True)
    wire.pump()
    assert_in_sync(controller, "n1", switch)
    assert controller.fleet.syncs["n1"].counters.repaired == 3


def test_a_quick_audit_asks_for_flows_only_where_their_number_is_wrong() -> None:
    controller = started(node(1))
    switch = switch_of(1)
    wire = connect(controller, switch)
    asked = switch.count[Type.MULTIPART_REQUEST]
    controller.audit(full=False)
    wire.pump()
    assert switch.count[Type.MULTIPART_REQUEST] == asked + 1
    del switch.held[next(key for key in switch.held if key[0] != 70)]
    controller.audit(full=False)
    wire.pump()
    assert_in_sync(controller, "n1", switch)
    assert controller.fleet.syncs["n1"].counters.repaired == 1


def test_an_audit_that_a_change_overtakes_repairs_nothing_by_mistake() -> None:
    controller = started(node(1))
    switch = switch_of(1)
    wire = connect(controller, switch)
    controller.audit(full=True)
    controller.take(snapshot(node(1), node(2)))
    wire.pump()
    assert_in_sync(controller, "n1", switch)
    assert controller.fleet.syncs["n1"].counters.repaired == 0


def test_an_audit_that_a_switch_does_not_answer_takes_nothing_for_missing() -> None:
    controller = started(node(1))
    switch = switch_of(1)
    wire = connect(controller, switch)
    drifted(switch)
    switch.keeps_secret.add(Multipart.FLOW_DESC)
    bundles = controller.fleet.syncs["n1"].counters.bundles
    controller.audit(full=True)
    wire.pump()
    counters = controller.fleet.syncs["n1"].counters
    assert (counters.repaired, counters.bundles) == (0, bundles)
    switch.keeps_secret.clear()
    controller.audit(full=True)
    wire.pump()
    assert_in_sync(controller, "n1", switch)


class Outages(RuleBasedStateMachine):
    """Anything may happen in any order; whenever all is quiet and connected, all is in sync."""

    @initialize(limit=st.sampled_from([1, 5, 10_000]))
    def begin(self, limit: int) -> None:
        syncs.BUNDLE_LIMIT = limit
        self.objects: dict[object, Object] = {node(number).key: node(number) for number in (1, 2)}
        self.controller = started(*self.objects.values())
        self.switches = {number: switch_of(number) for number in (1, 2, 3)}
        self.wires: dict[int, Wire] = {}
        self.passed = 0.0

    numbers = st.sampled_from([1, 2, 3])
    names = st.sampled_from(["a", "b", "c"])

    @rule(number=numbers, there=st.booleans())
    def change_node(self, number: int, there: bool) -> None:
        self._change(node(number), there)

    @rule(number=numbers, name=names, there=st.booleans())
    def change_pod(self, number: int, name: str, there: bool) -> None:
        self._change(pod(name, number), there)

    def _change(self, item: Object, there: bool) -> None:
        if there:
            self.objects[item.key] = item
        else:
            self.objects.pop(item.key, None)
        self.controller.take(snapshot(*self.objects.values()))

    @rule(number=numbers, which=st.sets(names))
    def change_ports(self, number: int, which: set[str]) -> None:
        ports = [pod_port(name, number, 10 + index) for index, name in enumerate(sorted(which))]
        told = self.switches[number].set_ports([*UPLINKS, *ports])
        if number in self.wires:
            self.wires[number].tell(told)

    @rule(number=numbers)
    def connect(self, number: int) -> None:
        self.wires[number] = connect(self.controller, self.switches[number], pump=False)

    @rule(number=numbers)
    def cut(self, number: int) -> None:
        if number in self.wires:
            self.wires.pop(number).cut()

    @rule(number=numbers, steps=st.integers(1, 3))
    def some_steps(self, number: int, steps: int) -> None:
        if number in self.wires:
            for _ in range(steps):
                self.wires[number].step()

    @rule(number=numbers)
    def switch_starts_anew(self, number: int) -> None:
        self.cut(number)
        self.switches[number].forget()

    @rule(number=numbers, table=st.sampled_from([0, 35, None]))
    def switch_is_choosy(self, number: int, table: int | None) -> None:
        # It may come to refuse what it holds already only by forgetting it.
        self.switch_starts_anew(number)
        self.switches[number].refuses = lambda mod: mod[1] == Type.FLOW_MOD and mod[25] == 0 and mod[24] == table

    @rule(number=numbers, table=st.sampled_from([0, 35]), limit=st.sampled_from([0, 5, 20, 1000]))
    def table_has_room_for(self, number: int, table: int, limit: int) -> None:
        self.switches[number].limits[table] = limit

    @rule()
    def a_minute_passes(self) -> None:
        self.passed += 61.0
        self.controller.fleet.obey(time.monotonic() + self.passed)

    @rule()
    def controller_starts_anew(self) -> None:
        for wire in self.wires.values():
            wire.cut()
        self.wires.clear()
        self.controller = started(*self.objects.values())

    @rule()
    def audit(self) -> None:
        self.controller.audit(full=True)

    @rule()
    def quiet(self) -> None:
        for wire in self.wires.values():
            wire.pump()
        for number, wire in self.wires.items():
            # A connection that has taken another's place may still wait for its node while the other is not gone yet.
            if not wire.closed and self.controller.fleet.peers.get(f"n{number}") is wire.peer:
                assert_in_sync(self.controller, f"n{number}", self.switches[number])

    @invariant()
    def nobody_is_closed_without_reason(self) -> None:
        for wire in getattr(self, "wires", {}).values():
            assert wire.closed in ("", "cut", "the switch has connected anew"), wire.closed

    def teardown(self) -> None:
        if hasattr(self, "wires"):
            self.quiet()
        syncs.BUNDLE_LIMIT = 10_000


Outages.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
test_in_any_order_of_events_switches_end_up_in_sync = Outages.TestCase


@given(st.binary(max_size=100))
def test_a_switch_that_sends_rubbish_is_cut_off_and_the_others_are_not(rubbish: bytes) -> None:
    controller = started(node(1), node(2))
    good, bad = switch_of(1), switch_of(2)
    healthy, sick = connect(controller, good), connect(controller, bad)
    sick.tell(b"\x09\xff\x00\x04\x00\x00\x00\x00" + rubbish)
    sick.pump()
    assert "bad OpenFlow" in sick.closed
    controller.take(snapshot(node(1), node(2), node(3)))
    healthy.pump()
    assert_in_sync(controller, "n1", good)
    assert "n2" not in controller.fleet.syncs


def test_a_pod_never_comes_into_a_switch_before_what_the_cluster_says_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = started(node(1), pod("a", 1))
    switch = switch_of(1)
    wire = connect(controller, switch)
    monkeypatch.setattr(syncs, "BUNDLE_LIMIT", 10)
    monkeypatch.setattr(flows.compiler, "STEP", 1)
    # More of the cluster's than goes into one bundle, a policy for the pod the last of it; then the pod itself.
    policy = Policy(namespace="default", name="closed", subjects=PodSet(namespace="default"), ingress=())
    controller.take(snapshot(*map(node, range(1, 11)), pod("a", 1)))
    controller.take(snapshot(*map(node, range(1, 11)), pod("a", 1), policy))
    wire.tell(switch.set_ports([*UPLINKS, pod_port("a", 1)]))
    seen = False
    while wire.step():
        there = any(flow.cookie >> 48 & 0x7F == Kind.POD for flow in switch.flows)
        seen |= there
        isolated = any(flow.table == INGRESS_POLICY.number and flow.priority == ISOLATED for flow in switch.flows)
        assert isolated or not there, "a pod without its policy"
    assert seen
    assert_in_sync(controller, "n1", switch)
