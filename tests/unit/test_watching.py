"""Whoever watches has in the end what a list has, whatever changed and whenever they looked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from fake_switch import FakeSwitch, Wire
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from policy_objects import has
from test_sync import UPLINKS, node, pod, pod_port, started

from controller import app, watching
from controller.app import Controller
from controller.changes import LIMIT, SHARE, Changes, TooManyError
from controller.concerns import KINDS
from controller.kinds import kinds
from controller.lists import Choice, Field, Key, Kind, conditions
from controller.phases import Phases
from controller.sync import Counters, Phase
from controller.watching import ADDED, DELETED, MODIFIED, RESTLESS, SYNC, Event, Watch, Watches
from topology.model import Endpoint, EndpointPort, EndpointSlice, Object, Pod, Service, ServicePort, Subset
from topology.policies import PodSet, Policy

Row = dict[str, Any]
_TEXT = {"type": "string"}


class Replayed:
    """The rows that a watch has told. Refuses events that can't be."""

    def __init__(self, kind: Kind) -> None:
        self.rows: dict[Key, Row] = {}
        self.is_synced = False
        self._kind = kind

    def take(self, events: Sequence[Event]) -> list[str]:
        for event in events:
            row = msgspec.json.decode(event.text)
            if event.type == SYNC:
                assert not self.is_synced and row == {}
                self.is_synced = True
                continue
            key = self._kind.identify(row)
            assert (event.type == ADDED) is (key not in self.rows), (event, key)
            if event.type == DELETED:
                del self.rows[key]
            else:
                self.rows[key] = row
        return [event.type for event in events]


class Table:
    """A kind of rows: one or several of each name."""

    def __init__(self) -> None:
        self.held: dict[str, list[tuple[str, str]]] = {}
        self.made = 0
        self.kind = Kind(
            name="things",
            about="",
            fields=(Field("name", "", _TEXT), Field("part", "", _TEXT), Field("status", "", _TEXT)),
            identity=("name", "part"),
            by=1,
            keys=lambda: sorted((name,) for name in self.held),
            rows=self._rows,
        )

    def _rows(self, keys: Sequence[Key], counted: Any) -> Iterator[Row]:
        for (name,) in keys:
            for part, status in self.held.get(name, ()):
                self.made += 1
                yield {"name": name, "part": part, "status": status}

    def rows(self, choice: Choice) -> dict[Key, Row]:
        return {self.kind.identify(row): row for row in self._rows(self.kind.keys(), None) if choice.holds(row)}


def look(watch: Watch) -> list[Event]:
    return [event for some in watch.look() for event in some]


_PARTS = st.dictionaries(st.sampled_from("12"), st.sampled_from(["Ready", "Lost", "Syncing"])).map(
    lambda found: list(found.items())
)
_STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abcdef"), _PARTS, st.booleans()),
    st.tuples(st.just("look"), st.integers(0, 1), st.integers(0, 4)),
)


@given(st.lists(_STEPS, max_size=40), st.integers(1, 4), st.integers(1, 3))
def test_what_a_watch_tells_comes_to_what_a_list_has(steps: list[Any], dirty_limit: int, stride: int) -> None:
    """Looks may stop midway, and go on after more has changed."""
    bounds = watching.DIRTY_LIMIT, watching.STRIDE
    watching.DIRTY_LIMIT, watching.STRIDE = dirty_limit, stride
    try:
        table, hub = Table(), Changes()
        watches = Watches(hub)
        choices = (Choice(), Choice(conditions=conditions(table.kind, "status!=Lost")))
        here = [(watches.begin(table.kind, choice, lambda: None), Replayed(table.kind), choice) for choice in choices]
        under_way: list[Iterator[list[Event]]] = [iter(()), iter(())]
        for step in steps:
            if step[0] == "put":
                _, name, parts, all_of_them = step
                if parts:
                    table.held[name] = parts
                else:
                    table.held.pop(name, None)
                if all_of_them:
                    hub.touch_all("things")
                else:
                    hub.touch("things", (name,))
                continue
            _, who, length = step
            for _ in range(length):
                events = next(under_way[who], None)
                if events is None:
                    under_way[who] = here[who][0].look()
                    break
                here[who][1].take(events)
        for (watch, replayed, choice), left in zip(here, under_way, strict=True):
            for events in left:
                replayed.take(events)
            for _ in range(2):
                replayed.take(look(watch))
            assert replayed.is_synced and replayed.rows == table.rows(choice)
    finally:
        watching.DIRTY_LIMIT, watching.STRIDE = bounds


def test_what_changes_several_times_between_two_looks_is_told_once() -> None:
    table, hub = Table(), Changes()
    woken: list[int] = []
    watch = Watches(hub).begin(table.kind, Choice(), lambda: woken.append(1))
    assert look(watch) == [Event(SYNC, b"{}")] and not watch.is_dirty
    for status in ("Lost", "Ready"):
        table.held["a"] = [("1", status)]
        hub.touch("things", ("a",))
    # Awake already, it isn't woken again.
    assert len(woken) == 1
    assert [each.type for each in look(watch)] == [ADDED]
    hub.touch_all("things")
    assert look(watch) == []
    table.held["a"] = [("1", "Lost")]
    hub.touch("things", ("a",))
    assert [each.type for each in look(watch)] == [MODIFIED]
    del table.held["a"]
    hub.touch("things", ("a",))
    (gone,) = look(watch)
    assert gone.type == DELETED and msgspec.json.decode(gone.text) == {"name": "a", "part": "1", "status": "Lost"}


def test_a_row_is_made_once_for_all_who_watch() -> None:
    table, hub = Table(), Changes()
    watches = Watches(hub)
    table.held = {name: [("1", "Ready")] for name in "abc"}
    here = [watches.begin(table.kind, Choice(), lambda: None) for _ in range(10)]
    for watch in here:
        look(watch)
    assert table.made == 3
    hub.touch("things", ("b",))
    for watch in here:
        look(watch)
    assert table.made == 4
    hub.touch_all("things")
    for watch in here:
        assert look(watch) == []
    assert table.made == 7


def test_a_state_that_is_over_in_a_moment_is_looked_at_again() -> None:
    table, hub = Table(), Changes()
    watch = Watches(hub).begin(table.kind, Choice(), lambda: None)
    table.held["a"] = [("1", "Syncing")]
    look(watch)
    assert watch.is_dirty
    table.held["a"] = [("1", "Ready")]
    assert [each.type for each in look(watch)] == [MODIFIED] and not watch.is_dirty


def test_watches_are_bounded_and_leave_nothing_behind() -> None:
    table, hub = Table(), Changes()
    watches = Watches(hub)
    here = [watches.begin(table.kind, Choice(), lambda: None) for _ in range(LIMIT)]
    with pytest.raises(TooManyError, match="64 watches are open"):
        watches.begin(table.kind, Choice(), lambda: None)
    watches.end(table.kind, here.pop())
    here.append(watches.begin(table.kind, Choice(), lambda: None))
    hub.close()
    assert all(watch.is_closed for watch in here)
    for watch in here:
        watches.end(table.kind, watch)
    assert not hub.is_watched and not hub.watches("things")


def test_looking_leaves_most_of_the_time_to_others() -> None:
    hub = Changes()
    now = spent = 0.0
    while now < 100.0:
        now = max(now, hub.free_at) + 0.1
        spent += 0.1
        hub.spent(0.1, now)
    assert spent / now == pytest.approx(1 / SHARE, rel=0.01)


# The controller's own lists -----------------------------------------------------------------------------------------

_NAMES = st.sampled_from("ab")
_NUMBERS = st.integers(1, 2)


class WhoWatches(RuleBasedStateMachine):
    """A controller whose objects, ports and switches change; somebody watches every kind, and looks now and then."""

    @initialize()
    def begin(self) -> None:
        # Who is away when it is looked again is lost.
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr(app, "LOST_AFTER", 0.0)
        self.controller: Controller = started(node(1))
        self.wires: dict[int, Wire] = {}
        self.kinds = {name: kind for name, kind in kinds(self.controller).items() if name in KINDS}
        self.watching = [
            (kind, self.controller.watches.begin(kind, Choice(), lambda: None), Replayed(kind))
            for kind in self.kinds.values()
        ]

    def teardown(self) -> None:
        if hasattr(self, "patches"):
            self.patches.undo()

    def change(self, *changed: Object, gone: Sequence[Any] = ()) -> None:
        there = [key for key in gone if self.controller.compiler.cluster.get(key) is not None]
        self.controller.change(changed, there, ())

    @rule(number=_NUMBERS, zone=st.sampled_from(["", "east"]))
    def put_node(self, number: int, zone: str) -> None:
        labels = (("topology.kubernetes.io/zone", zone),) if zone else ()
        self.change(msgspec.structs.replace(node(number), labels=labels))

    @rule(number=_NUMBERS)
    def remove_node(self, number: int) -> None:
        self.change(gone=[node(number).key])

    @rule(name=_NAMES, number=_NUMBERS, app=st.sampled_from("xy"), host=st.booleans(), address=st.booleans())
    def put_pod(self, name: str, number: int, app: str, host: bool, address: bool) -> None:
        found = (ip_address(f"10.244.{number}.10"),) if address else ()
        self.change(
            Pod(
                namespace="default", name=name, node=f"n{number}", labels=(("app", app),), host_network=host,
                addresses=found,
            )
        )  # fmt: skip

    @rule(name=_NAMES, number=_NUMBERS, port=st.sampled_from(["eth1", "eth2"]))
    def put_workload(self, name: str, number: int, port: str) -> None:
        self.change(
            Pod(
                namespace="default", name=name, node=f"n{number}", port=port, mac=0x020000000001,
                addresses=(ip_address("192.0.2.1"),),
            )
        )  # fmt: skip

    @rule(name=_NAMES)
    def remove_pod(self, name: str) -> None:
        self.change(gone=[("Pod", "default", name)])

    @rule(name=st.sampled_from("st"), kind=st.sampled_from(["ClusterIP", "LoadBalancer"]), local=st.booleans())
    def put_service(self, name: str, kind: str, local: bool) -> None:
        outside = (ip_address("198.51.100.1"),) if kind == "LoadBalancer" else ()
        self.change(
            Service(
                namespace="default", name=name, type=kind, cluster_ips=(ip_address("10.96.0.10"),),
                ports=(ServicePort(port=80),), selector=(("app", "x"),), load_balancer_ips=outside,
                external_local=local,
            )
        )  # fmt: skip

    @rule(name=st.sampled_from("st"), pods=st.lists(_NAMES, unique=True, max_size=3), number=_NUMBERS)
    def put_slice(self, name: str, pods: list[str], number: int) -> None:
        ends = tuple(
            Endpoint(address=ip_address(f"10.244.{number}.{20 + ord(each)}"), pod=each, node=f"n{number}")
            for each in pods
        )
        self.change(
            EndpointSlice(
                namespace="default", name=f"{name}-1", service=name,
                subsets=(Subset(ports=(EndpointPort(port=8080),), endpoints=ends),),
            )
        )  # fmt: skip

    @rule(name=st.sampled_from("st"))
    def remove_service(self, name: str) -> None:
        self.change(gone=[("Service", "default", name), ("EndpointSlice", "default", f"{name}-1")])

    @rule(app=st.sampled_from("xy"))
    def put_policy(self, app: str) -> None:
        subjects = PodSet((has("app", app),), "default")
        self.change(Policy(namespace="default", name="p", subjects=subjects, ingress=()))

    @rule()
    def remove_policy(self) -> None:
        self.change(gone=[("NetworkPolicy", "default", "p")])

    @rule(number=_NUMBERS, names=st.lists(_NAMES, unique=True, max_size=3), twice=st.booleans())
    def connect(self, number: int, names: list[str], twice: bool) -> None:
        if number in self.wires or f"n{number}" not in self.controller.compiler.cluster.nodes:
            return
        ports = [pod_port(name, number, 10 if twice else 10 + at) for at, name in enumerate(names)]
        switch = FakeSwitch(node(number).datapath_id, (*UPLINKS, *ports))
        self.wires[number] = Wire(self.controller, switch)

    @rule(number=_NUMBERS, names=st.lists(_NAMES, unique=True, max_size=3))
    def change_ports(self, number: int, names: list[str]) -> None:
        wire = self.wires.get(number)
        if wire is not None:
            ports = [pod_port(name, number, 10 + at) for at, name in enumerate(names)]
            wire.tell(wire.switch.set_ports((*UPLINKS, *ports)))

    @rule(number=_NUMBERS)
    def cut(self, number: int) -> None:
        wire = self.wires.pop(number, None)
        if wire is not None:
            wire.cut()

    @rule()
    def pump(self) -> None:
        for wire in self.wires.values():
            wire.pump()

    @rule()
    def pass_time(self) -> None:
        self.controller.look_for_lost_nodes()
        self.controller.look_at_links()
        self.controller.look_at_phases()

    @rule(which=st.sampled_from(KINDS))
    def look(self, which: str) -> None:
        for kind, watch, replayed in self.watching:
            if kind.name == which:
                replayed.take(look(watch))

    @invariant()
    def at_rest_all_have_what_lists_have(self) -> None:
        """Looked at now and then only: otherwise there would never be much to look at."""
        if not hasattr(self, "controller") or self.controller.changes_taken % 2:
            return
        # The first look sees nodes as there, the second that their switches aren't, which has more sent.
        for _ in range(3):
            self.pump()
            self.pass_time()
            for _, watch, replayed in self.watching:
                replayed.take(look(watch))
        for kind, _, replayed in self.watching:
            restless = RESTLESS.get(kind.name, frozenset())
            fresh = {kind.identify(row): _less(row, restless) for row in kind.rows(kind.keys(), None)}
            assert {key: _less(row, restless) for key, row in replayed.rows.items()} == fresh, kind.name


def _less(row: Row, fields: frozenset[str]) -> Row:
    return {name: msgspec.to_builtins(value) for name, value in row.items() if name not in fields}


def test_services_that_share_an_address_are_told_of_together() -> None:
    outside = (ip_address("198.51.100.1"),)
    shared = [
        Service(
            namespace="default", name=name, type="LoadBalancer", cluster_ips=(ip_address(f"10.96.0.{number}"),),
            ports=(ServicePort(port=80 + number),), load_balancer_ips=outside, external_local=True,
        )
        for number, name in enumerate("st", 1)
    ]  # fmt: skip
    controller = started(node(1), node(2), *shared)
    kind = kinds(controller)["services"]
    watch, replayed = controller.watches.begin(kind, Choice(), lambda: None), Replayed(kind)
    for number in (1, 2, 1):
        end = Endpoint(address=ip_address(f"10.244.{number}.5"), pod="a", node=f"n{number}")
        slice_ = EndpointSlice(
            namespace="default", name="s-1", service="s", subsets=(Subset((EndpointPort(port=80),), (end,)),)
        )
        controller.change([slice_], (), ())
        replayed.take(look(watch))
        assert [row["announcedBy"] for row in replayed.rows.values()] == [[f"n{number}"], [f"n{number}"]]


class Looked:
    """A switch as `Phases` sees it."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.counters = Counters()


def test_a_switch_that_is_sent_something_is_what_it_was_unless_it_gets_no_further() -> None:
    phases, switch = Phases(), Looked(Phase.READING)

    def turns() -> list[tuple[Phase | None, bool]]:
        return [(each.phase, each.first) for each in phases.look({"n1": switch})]

    assert turns() == [(Phase.READING, False)] and turns() == []
    switch.phase = Phase.SYNCED
    assert turns() == [(Phase.SYNCED, True)]
    for _ in range(3):
        switch.phase = Phase.SYNCING
        switch.counters.bundles += 1
        assert turns() == []
    assert turns() == [(Phase.SYNCING, False)]
    switch.phase = Phase.SYNCED
    assert turns() == [(Phase.SYNCED, False)] and turns() == []
    assert [(each.node, each.phase) for each in phases.look({})] == [("n1", None)]
    switch = Looked(Phase.SYNCED)
    assert turns() == [(Phase.SYNCED, True)]


def test_a_switch_that_becomes_a_standby_is_told_of_with_its_pods() -> None:
    controller = started(node(1), pod("a", 1))
    wire = Wire(controller, FakeSwitch(node(1).datapath_id, (*UPLINKS, pod_port("a", 1))))
    wire.pump()
    controller.look_at_phases()
    here = [(kinds(controller)[name], Replayed(kinds(controller)[name])) for name in ("nodes", "pods")]
    watching_ = [controller.watches.begin(kind, Choice(), lambda: None) for kind, _ in here]
    for watch, (_, replayed) in zip(watching_, here, strict=True):
        replayed.take(look(watch))
    controller.fleet.syncs["n1"].obey(None, 1, 0.0)
    controller.look_at_phases()
    for watch, (_, replayed) in zip(watching_, here, strict=True):
        assert replayed.take(look(watch)) == [MODIFIED]
    assert [row["status"] for _, replayed in here for row in replayed.rows.values()] == ["Standby", "Syncing"]


TestWhoWatches = WhoWatches.TestCase
TestWhoWatches.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
