"""Services on a switch's wire: groups come before the flows that name them and go after; connections are forgotten."""

from __future__ import annotations

from ipaddress import ip_address
from struct import pack

import msgspec
import pytest
from fake_switch import FakeSwitch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from test_sync import Outages, assert_in_sync, connect, node, pod, pod_port, snapshot, started, switch_of

from controller import sync as syncs
from controller.batch import flushes, on_bridge
from flows.openflow import encode
from flows.openflow.wire import CT_TUPLE_SOURCE_PORT, Type
from flows.registers import Zone
from flows.update import Forgotten
from flows.values import Group
from topology.model import Endpoint, EndpointPort, EndpointSlice, Object, Service, ServicePort, Subset


def service(name: str, address: int = 1, protocol: str = "UDP", **changes: object) -> Service:
    """A Service at port 53 of one address, whose endpoints an EndpointSlice says."""
    plain = Service(
        namespace="default",
        name=name,
        ports=(ServicePort(port=53, protocol=protocol),),
        cluster_ips=(ip_address("10.96.0.0") + address,),
    )
    return msgspec.structs.replace(plain, **changes)


def endpoints(name: str, *places: int, node: str = "", protocol: str = "UDP") -> EndpointSlice:
    """Endpoints of a Service: those with these numbers in a network that is no node's."""
    found = tuple(Endpoint(address=ip_address("10.250.0.0") + place, node=node) for place in places)
    subset = Subset((EndpointPort(port=5353, protocol=protocol),), found)
    return EndpointSlice(namespace="default", name=f"{name}-1", service=name, subsets=(subset,))


def flushed(switch: FakeSwitch) -> set[bytes]:
    """The connections that a switch was told to forget, each as the message without its xid."""
    return {each[8:] for each in switch.unbundled if each[1] == Type.EXPERIMENTER}


def flush_of(place: int) -> set[bytes]:
    """What tells a switch to forget the connections to an endpoint of `endpoints`."""
    return {each[8:] for each in flushes([Forgotten("UDP", ip_address("10.250.0.0") + place, 5353)])}


def test_connections_to_a_udp_endpoint_that_goes_are_forgotten_on_every_switch_once_the_change_is_in() -> None:
    objects = (node(1), node(2), service("dns"))
    controller = started(*objects, endpoints("dns", 1, 2))
    switches = [switch_of(number) for number in (1, 2)]
    wires = [connect(controller, switch) for switch in switches]
    assert not any(map(flushed, switches))
    controller.take(snapshot(*objects, endpoints("dns", 2)))
    for wire, switch in zip(wires, switches, strict=True):
        switch.unbundled.clear()
        wire.pump()
        assert flushed(switch) == flush_of(1)
        assert [each[1] for each in switch.unbundled] == [Type.BUNDLE_CONTROL, Type.EXPERIMENTER, Type.EXPERIMENTER]


def test_a_tcp_endpoint_that_goes_is_not_forgotten_its_connections_end_by_themselves() -> None:
    objects = (node(1), service("web", protocol="TCP"))
    controller = started(*objects, endpoints("web", 1, 2, protocol="TCP"))
    switch = switch_of(1)
    wire = connect(controller, switch)
    controller.take(snapshot(*objects, endpoints("web", 2, protocol="TCP")))
    wire.pump()
    assert_in_sync(controller, "n1", switch)
    assert not flushed(switch)


def test_every_connection_to_a_pod_that_goes_is_forgotten() -> None:
    there = msgspec.structs.replace(pod("a", 1), addresses=(ip_address("10.244.1.10"),))
    controller = started(node(1), there)
    switch = switch_of(1, pod_port("a", 1))
    wire = connect(controller, switch)
    controller.take(snapshot(node(1)))
    wire.pump()
    gone = [Forgotten(protocol, ip_address("10.244.1.10")) for protocol in ("TCP", "UDP", "SCTP")]
    assert flushed(switch) == {each[8:] for each in flushes(gone)}


@pytest.mark.parametrize("restarted", [False, True])
def test_a_switch_that_was_away_while_an_endpoint_went_forgets_its_connections_when_it_is_back(
    restarted: bool,
) -> None:
    objects = (node(1), service("dns"))
    controller = started(*objects, endpoints("dns", 1, 2))
    switch = switch_of(1)
    connect(controller, switch).cut()
    after = (*objects, endpoints("dns", 2, 3))
    if restarted:
        controller = started(*after)
    else:
        controller.take(snapshot(*after))
    connect(controller, switch)
    assert_in_sync(controller, "n1", switch)
    assert flushed(switch) == flush_of(1)


def test_a_group_that_somebody_has_changed_meanwhile_is_put_right_when_its_scope_is_replaced() -> None:
    controller = started(node(1), service("dns"), endpoints("dns", 1, 2))
    switch = switch_of(1)
    connect(controller, switch).cut()
    (number,) = switch.groups
    other = Group(number, next(iter(switch.balancers)).type, ())
    switch.groups = {number: encode.group_mod(other), 77: encode.group_mod(Group(77, other.type, ()))}
    controller.take(snapshot(node(1), node(2), service("dns"), endpoints("dns", 1, 2)))
    connect(controller, switch)
    assert_in_sync(controller, "n1", switch)


def test_a_group_goes_after_the_flows_that_lead_to_it_and_comes_before_them() -> None:
    controller = started(node(1), service("dns"), endpoints("dns", 1))
    switch = switch_of(1)
    wire = connect(controller, switch)
    kinds: list[int] = []

    def see(mod: bytes) -> bool:
        kinds.append(mod[1])
        return False

    switch.refuses = see
    controller.take(snapshot(node(1), endpoints("dns", 1)))
    wire.pump()
    *before, last, the_digest = kinds
    assert (last, the_digest) == (Type.GROUP_MOD, Type.FLOW_MOD) and set(before) == {Type.FLOW_MOD}
    kinds.clear()
    controller.take(snapshot(node(1), service("dns"), endpoints("dns", 1)))
    wire.pump()
    first, *after = kinds
    assert first == Type.GROUP_MOD and set(after) == {Type.FLOW_MOD}
    assert_in_sync(controller, "n1", switch)


def test_a_switch_that_is_too_far_behind_the_log_gets_groups_too(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = started(node(1), service("old", 1), endpoints("old", 1))
    switch = switch_of(1)
    wire = connect(controller, switch)
    monkeypatch.setattr(controller.fleet.cluster, "_limit", 100)
    # The first goes out at once; of the rest nothing is kept when its turn comes.
    for count in range(2, 6):
        new = (each for number in range(2, count + 1) for each in _numbered(number))
        controller.take(snapshot(node(1), *new))
    wire.pump()
    assert_in_sync(controller, "n1", switch)
    assert flush_of(1) <= flushed(switch)


def _numbered(number: int) -> tuple[Object, Object]:
    return service(f"s{number}", number), endpoints(f"s{number}", number)


def test_a_node_with_too_much_pending_gets_its_groups_with_the_whole_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    local = service("dns", internal_local=True)
    objects = (node(1), local)
    controller = started(*objects, endpoints("dns", 1, node="n1"))
    switch = switch_of(1)
    connect(controller, switch).cut()
    wire = connect(controller, switch)
    monkeypatch.setattr(syncs, "PENDING_SLACK", -1_000)
    controller.take(snapshot(node(1)))
    wire.pump()
    assert_in_sync(controller, "n1", switch)


class OutagesWithServices(Outages):
    """The same, with Services, switches that fall far behind, and more pending for a node than is kept."""

    @initialize(limit=st.sampled_from([1, 5, 10_000]), slack=st.sampled_from([-1_000, 10_000]))
    def begin(self, limit: int, slack: int) -> None:
        syncs.PENDING_SLACK = slack
        super().begin(limit)

    @rule(name=Outages.names, number=Outages.numbers, local=st.booleans(), there=st.booleans())
    def change_service(self, name: str, number: int, local: bool, there: bool) -> None:
        self._change(service(name, number, internal_local=local), there)

    @rule(name=Outages.names, places=st.sets(Outages.numbers), number=Outages.numbers, there=st.booleans())
    def change_endpoints(self, name: str, places: set[int], number: int, there: bool) -> None:
        self._change(endpoints(name, *sorted(places), node=f"n{number}"), there)

    @rule(limit=st.sampled_from([0, 1_000, 16 << 20]))
    def log_is_short(self, limit: int) -> None:
        self.controller.fleet.cluster._limit = limit

    def teardown(self) -> None:
        super().teardown()
        syncs.PENDING_SLACK = 10_000


OutagesWithServices.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
test_in_any_order_of_events_switches_with_services_end_up_in_sync = OutagesWithServices.TestCase


@pytest.mark.parametrize(
    ("gone", "zones", "address"),
    [
        (Forgotten("UDP", ip_address("10.244.1.2"), 53), (Zone.IPV4, Zone.SNAT_IPV4), "::ffff:10.244.1.2"),
        (Forgotten("TCP", ip_address("fd00::2")), (Zone.IPV6, Zone.SNAT_IPV6), "fd00::2"),
        (Forgotten("SCTP", ip_address("fd00::2"), 9), (Zone.IPV6, Zone.SNAT_IPV6), "fd00::2"),
    ],
)
def test_connections_are_forgotten_by_where_their_answers_come_from_in_both_zones_of_the_family(
    gone: Forgotten, zones: tuple[Zone, Zone], address: str
) -> None:
    messages = flushes([gone])
    for message, zone in zip(messages, zones, strict=True):
        assert message[1] == Type.EXPERIMENTER and int.from_bytes(message[2:4], "big") == len(message)
        assert message[16] == {"TCP": 6, "UDP": 17, "SCTP": 132}[gone.protocol]
        assert ip_address(address).packed in message
        assert message.endswith(zone.to_bytes(2, "big") + bytes(2))
        # A port of 0 stands for all: it is left out.
        assert (pack("!HHH2x", CT_TUPLE_SOURCE_PORT, 8, gone.port) in message) == bool(gone.port)


def test_a_bridge_that_shares_a_datapath_forgets_connections_in_zones_of_its_own() -> None:
    messages = flushes([Forgotten("UDP", ip_address("10.250.0.1"), 5353), Forgotten("TCP", ip_address("fd00::1"))])
    assert list(on_bridge(messages, 0)) == list(messages)
    zones = [int.from_bytes(each[-4:-2], "big") for each in on_bridge(messages, 3)]
    assert zones == [zone + 0x60 for zone in (Zone.IPV4, Zone.SNAT_IPV4, Zone.IPV6, Zone.SNAT_IPV6)]
    assert [each[:-4] for each in on_bridge(messages, 3)] == [each[:-4] for each in messages]
