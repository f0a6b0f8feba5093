"""Several controllers of the same switches, in memory: in any order of events there is one master, and all agree."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import pytest
from fake_switch import FakeSwitch, Wire
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from test_leases import Memory
from test_sync import UPLINKS, expected, in_order, node, pod, pod_port, snapshot

import topology.identities
from controller import app
from controller.app import IDENTITY_GRACE, Controller
from controller.leases import LeaseError, Leases, Record, Stored, Tenure, Times, shard_of
from controller.replica import Replica
from controller.sync import PATIENCE, Phase
from flows.openflow import encode
from flows.openflow.wire import Role, Type
from flows.pipeline import DIGEST
from flows.update import CLUSTER
from topology.model import Object, Pod
from topology.policies import Action, PodSet, Policy, Rule
from topology.selectors import Operator, Requirement

TIMES = Times(duration=15, deadline=10, retry=2, join=20)


class Clock:
    """What the controller's modules take for the time: that of whoever is acting."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    here = Clock()
    monkeypatch.setattr(app, "time", here)
    return here


# One switch, and what leases say decided by the test ------------------------------------------------------------------


class Decided:
    """A mastery."""

    def __init__(self, tenure: Tenure | None = None, epoch: int = 0) -> None:
        self.held, self.known = tenure, epoch

    def tenure(self, name: str) -> Tenure | None:
        return self.held

    def epoch(self, name: str) -> int:
        return self.known


def tenure(epoch: int, until: float = float("inf"), confirmed: float = 0.0) -> Tenure:
    return Tenure(epoch, confirmed, until)


class One:
    """A controller that is connected to a switch."""

    def __init__(
        self, switch: FakeSwitch, held: Tenure | None, epoch: int = 0, objects: tuple[Object, ...] = ()
    ) -> None:
        self.mastery = Decided(held, epoch)
        self.controller = Controller()
        self.controller.fleet._mastery = self.mastery
        self.higher: list[int] = []
        self.controller.fleet._events.outranked = lambda name, generation: self.higher.append(generation)
        self.controller.take(snapshot(*(objects or (node(1), node(2), pod("a", 1)))))
        self.switch = switch
        self.wire = Wire(self.controller, switch, 0.0)
        self.wire.pump()

    @property
    def sync(self) -> Any:
        return self.controller.fleet.syncs["n1"]

    @property
    def phase(self) -> Phase | None:
        return self.controller.fleet.phase("n1")

    def become(self, held: Tenure | None, now: float, epoch: int = 0) -> None:
        self.mastery.held, self.mastery.known = held, epoch
        self.controller.fleet.obey(now)


def switch_of(number: int) -> FakeSwitch:
    return FakeSwitch(node(number).datapath_id, (*UPLINKS, pod_port("a", number)))


def test_a_standby_knows_the_ports_and_sends_its_role_and_what_it_wants_to_hear_and_nothing_else() -> None:
    switch = switch_of(1)
    here = One(switch, None, epoch=5)
    assert here.phase is Phase.STANDBY and not switch.held
    assert switch.role is Role.SLAVE and switch.roles.generation == 5
    assert {pod.name for pod, _ in here.controller.compiler.local_pods("n1")} == {"a"}
    once = (Type.HELLO, Type.FEATURES_REQUEST, Type.MULTIPART_REQUEST, Type.ROLE_REQUEST, Type.SET_ASYNC)
    assert switch.count == dict.fromkeys(once, 1)
    here.controller.take(snapshot(node(1), node(2), node(3), pod("a", 1)))
    here.controller.audit(full=True)
    here.wire.pump()
    assert switch.count[Type.MULTIPART_REQUEST] == 1 and Type.BUNDLE_CONTROL not in switch.count


def test_failover_is_one_role_request_and_a_digest_read() -> None:
    switch = switch_of(1)
    first, second = One(switch, tenure(1)), One(switch.another(), None)
    first.wire.cut()
    second.become(tenure(2), 10.0)
    second.wire.now = 10.0
    sent = list(second.wire.to_switch)
    xids = [int.from_bytes(each[4:8], "big") for each in sent]
    assert sent == [encode.role_request(Role.MASTER, 2, xids[0]), encode.flow_stats_request(DIGEST.number, xid=xids[1])]
    second.wire.pump()
    assert second.phase is Phase.SYNCED and second.sync.counters.bundles == 0


def test_a_tenure_that_ends_stops_what_isn_t_sent_yet_by_the_clock_alone() -> None:
    switch = switch_of(1)
    here = One(switch, tenure(1, until=10.0))
    bundles = here.sync.counters.bundles
    here.controller.fleet.take(here.controller.compiler.put(node(3)), 9.9)
    here.wire.pump()
    assert here.sync.counters.bundles == bundles + 1
    here.controller.fleet.take(here.controller.compiler.put(node(4)), 10.0)
    assert here.sync.counters.bundles == bundles + 1 and not here.wire.to_switch
    here.become(None, 10.0, epoch=1)
    here.wire.pump()
    assert here.phase is Phase.STANDBY and switch.role is Role.SLAVE


def test_a_master_that_the_switch_says_is_none_any_more_stops_at_once() -> None:
    switch = switch_of(1)
    first, second = One(switch, tenure(1)), One(switch.another(), None)
    second.become(tenure(2), 0.0)
    second.wire.pump()
    first.wire.pump()
    assert first.phase is Phase.STANDBY and second.phase is Phase.SYNCED
    # It doesn't ask for its place back before its lease is confirmed anew, and then learns that it was another's.
    first.become(first.mastery.held, 1.0)
    assert not first.wire.to_switch
    first.mastery.held.confirmed = 2.0  # type: ignore[union-attr]
    first.become(first.mastery.held, 2.0)
    first.wire.pump()
    assert first.phase is Phase.STANDBY and first.higher == [2]


def test_a_bundle_of_a_former_master_is_refused_as_a_whole() -> None:
    switch = switch_of(1)
    first, second = One(switch, tenure(1)), One(switch.another(), None)
    first.controller.fleet.take(first.controller.compiler.put(node(9)), 0.0)
    second.become(tenure(2), 0.0)
    second.wire.pump()
    before = switch.flows
    first.wire.pump()
    assert switch.flows == before == expected(second.controller, "n1")
    assert first.phase is Phase.STANDBY
    assert switch.roles.commits == [1]


def test_a_new_master_sends_only_what_its_predecessor_had_not_sent_yet() -> None:
    switch = switch_of(1)
    first, second = One(switch, tenure(1)), One(switch.another(), None)
    first.wire.cut()
    for number in range(3, 30):
        second.controller.take(snapshot(*map(node, range(1, number)), pod("a", 1)))
    second.become(tenure(2), 0.0)
    second.wire.pump()
    assert second.phase is Phase.SYNCED and switch.flows == expected(second.controller, "n1")
    whole = len(list(second.controller.compiler.flows(CLUSTER)))
    assert 0 < second.sync.counters.flow_mods < whole
    assert Type.FLOW_MOD in switch.count


def test_a_new_master_waits_a_moment_for_news_that_its_predecessor_had_first() -> None:
    switch = switch_of(1)
    first, second, third = One(switch, tenure(1)), One(switch.another(), None), One(switch.another(), None)
    first.controller.take(snapshot(node(1), node(2), node(3), pod("a", 1)))
    first.wire.pump()
    later = switch.flows
    for number, each in enumerate((second, third), 2):
        each.become(tenure(number), 0.0)
        each.wire.pump()
        assert each.phase is Phase.READING and switch.flows == later
    # One hears of it in time; the other never does, and makes the switch what it knows.
    second.become(tenure(4), 0.0)
    second.wire.pump()
    second.controller.fleet.take(second.controller.compiler.put(node(3)), PATIENCE / 2)
    assert second.phase is Phase.SYNCED and second.sync.counters.bundles == 0
    third.become(tenure(5), 0.0)
    third.wire.pump()
    third.become(third.mastery.held, PATIENCE)
    third.wire.pump()
    assert third.phase is Phase.SYNCED and switch.flows == expected(third.controller, "n1") != later


# The same events, another order ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def crowded_numbers() -> Iterator[None]:
    """So few numbers that identities meet."""
    real = topology.identities._hash
    topology.identities._hash = lambda title, attempt: 256 + real(title, attempt) % 23
    try:
        yield
    finally:
        topology.identities._hash = real


def labelled(name: str, number: int, label: str) -> Pod:
    return Pod(namespace="default", name=name, node=f"n{number}", labels=(("app", label),))


def policy(name: str, label: str) -> Policy:
    who = PodSet(namespace="default", pods=(Requirement(key="app", operator=Operator.IN, values=(label,)),))
    return Policy(namespace="default", name=name, subjects=who, ingress=(Rule(Action.ACCEPT, peers=(who,)),))


LABELS = [f"label-{number}" for number in range(12)]
EVENTS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"]), st.sampled_from(LABELS), st.booleans()),
    min_size=1,
    max_size=30,
)


def digests(controller: Controller) -> tuple[int, ...]:
    scopes = [controller.fleet.scope(f"n{number}").digest for number in (1, 2)]
    return controller.fleet.cluster.state.digest, *scopes


@settings(max_examples=60, deadline=None)
@given(events=EVENTS, seed=st.integers(0, 2**16))
def test_replicas_agree_in_digests_whatever_they_heard_first(events: list[tuple[str, str, bool]], seed: int) -> None:
    chance = random.Random(seed)
    clock = Clock()
    former, app.time = app.time, clock  # type: ignore[assignment]
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, app, "time", former)
        stack.enter_context(crowded_numbers())
        fixed: list[Object] = [node(1), node(2), *(policy(each, each) for each in LABELS[:4])]
        ports = [pod_port(name, 1, 10 + index) for index, name in enumerate("abcdefgh")]
        # One hears of each event; one of few of them, in other steps; one is started at the end.
        busy, lazy = Controller(), Controller()
        for each in (busy, lazy):
            digests(each)
            each.fleet.take(each.compiler.set_ports("n1", ports), 0.0)
        objects: dict[object, Object] = {}
        for name, label, there in events:
            clock.now += chance.choice([0.0, 1.0, 40.0])
            if there:
                objects[name] = labelled(name, 1, label)
            else:
                objects.pop(name, None)
            taken = [*fixed, *objects.values()]
            busy.take(snapshot(*taken))
            busy.release_identities()
            if chance.random() < 0.4:
                chance.shuffle(taken)
                lazy.take(snapshot(*taken))
                lazy.release_identities()
        late = Controller()
        for each in (busy, lazy, late):
            taken = [*fixed, *objects.values()]
            chance.shuffle(taken)
            each.take(snapshot(*taken))
        late.fleet.take(late.compiler.set_ports("n1", reversed(ports)), 0.0)
        # Identities that nobody has any more are kept for a while; then all have released them.
        for _ in range(2):
            for each in (busy, lazy, late):
                each.release_identities()
            clock.now += IDENTITY_GRACE + 1
        assert digests(busy) == digests(lazy) == digests(late)
        for each in (busy, lazy):
            again = Controller()
            again.take(snapshot(*fixed, *objects.values()))
            again.fleet.take(again.compiler.set_ports("n1", ports), 0.0)
            for scope in (CLUSTER, "n1", "n2"):
                assert set(each.compiler.flows(scope)) == set(again.compiler.flows(scope))


def test_two_nodes_announcers_follow_what_each_one_s_master_says(clock: Clock) -> None:
    store = Memory()
    first, second = (Replica(Leases(name, TIMES), Store(store), clock.monotonic, clock.monotonic) for name in "ab")
    loop = asyncio.new_event_loop()
    try:
        for clock.now in (0.0, 2.0, 4.0):
            for each in (first, second):
                loop.run_until_complete(each._round(lambda: None))
        names = [f"node-{number}" for number in range(40)]
        of_first = {name for name in names if first.tenure(name) is not None}
        assert of_first and of_first < set(names)
        # The second reaches nobody, and is believed for its own nodes.
        first.agree(names, [])
        second.agree(names, names)
        for clock.now in (6.0, 8.0):
            for each in (first, second):
                loop.run_until_complete(each._round(lambda: None))
        assert set(first.agree(names, [])) == set(second.agree(names, names)) == set(names) - of_first
    finally:
        loop.close()


# Everything, in any order ---------------------------------------------------------------------------------------------


class Store:
    """A way to the store, which may be cut, or lose answers."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.cut = False
        self.deaf = False

    async def read(self) -> Mapping[str, Stored]:
        self._pass()
        return dict(self.memory.found)

    async def write(self, name: str, record: Record, version: str | None) -> Stored:
        self._pass()
        stored = self.memory.put(name, record, version)
        if self.deaf:
            raise LeaseError("the answer is lost")
        return stored

    async def delete(self, name: str, version: str) -> None:
        self._pass()
        self.memory.remove(name, version)

    def _pass(self) -> None:
        if self.cut:
            raise LeaseError("cut off")


class Member:
    """One controller of several: its own clock, its own way to the store, its own wires."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.store = Store(world.memory)
        self.ahead = 0.0
        self.stopped = False
        self.start()

    def start(self) -> None:
        wall = (float(each * 7919 % 1000) for each in count())
        self.replica = Replica(Leases(self.name, TIMES), self.store, self.clock, lambda: next(wall))
        self.controller = Controller(replica=self.replica)
        self.wires: dict[int, Wire] = {}
        self.due = 0.0

    def clock(self) -> float:
        return self.world.now + self.ahead

    def hear(self) -> None:
        with self.acting():
            self.controller.take(snapshot(*self.world.objects.values()))

    def acting(self) -> Any:
        self.world.clock.now = self.clock()
        for wire in self.wires.values():
            wire.now = self.clock()
        return contextlib.nullcontext()

    def round(self) -> None:
        with self.acting():
            pause = self.world.loop.run_until_complete(self.replica._round(self.controller.obey_leases))
            self.due = self.clock() + pause

    def obey(self) -> None:
        with self.acting():
            self.controller.obey_leases()

    def connect(self, number: int) -> None:
        if number in self.wires:
            self.wires.pop(number).cut()
        with self.acting():
            twin = self.world.switches[number].another()
            twin.refuses = self.world.switches[number].refuses
            self.wires[number] = Wire(self.controller, twin, self.clock())
            self.world.connections[number].append(twin)

    def holds(self, shard: int) -> bool:
        found = self.replica.leases.tenure(shard)
        return found is not None and self.clock() < found.until


class World(RuleBasedStateMachine):
    """Two or three controllers, three switches, a store; everything may be late, cut off, stopped or started anew."""

    @initialize(count=st.sampled_from([2, 3]))
    def begin(self, count: int) -> None:
        self.now = 0.0
        self.clock = Clock()
        self.former, app.time = app.time, self.clock  # type: ignore[assignment]
        self.loop = asyncio.new_event_loop()
        self.memory = Memory()
        self.objects: dict[object, Object] = {node(number).key: node(number) for number in (1, 2, 3)}
        self.switches = {number: FakeSwitch(node(number).datapath_id, UPLINKS) for number in (1, 2, 3)}
        self.connections: dict[int, list[FakeSwitch]] = {1: [], 2: [], 3: []}
        self.members = [Member(self, name) for name in "abc"[:count]]
        for member in self.members:
            member.hear()
            for number in self.switches:
                member.connect(number)

    who = st.integers(0, 2)
    numbers = st.sampled_from([1, 2, 3])

    def member(self, index: int) -> Member:
        return self.members[index % len(self.members)]

    @rule(number=st.integers(4, 9), there=st.booleans())
    def change(self, number: int, there: bool) -> None:
        if there:
            self.objects[node(number).key] = node(number)
        else:
            self.objects.pop(node(number).key, None)

    @rule(number=numbers, name=st.sampled_from("ab"), there=st.booleans())
    def change_pod(self, number: int, name: str, there: bool) -> None:
        item = pod(name, number)
        if there:
            self.objects[item.key] = item
        else:
            self.objects.pop(item.key, None)

    @rule(number=numbers, which=st.sets(st.sampled_from("ab")))
    def change_ports(self, number: int, which: set[str]) -> None:
        ports = [pod_port(name, number, 10 + index) for index, name in enumerate(sorted(which))]
        told = self.switches[number].set_ports([*UPLINKS, *ports])
        for member in self.members:
            if number in member.wires:
                member.wires[number].tell(told)

    @rule(index=who)
    def hear(self, index: int) -> None:
        if not self.member(index).stopped:
            self.member(index).hear()

    @rule(index=who)
    def look_at_leases(self, index: int) -> None:
        if not self.member(index).stopped:
            self.member(index).round()

    @rule(index=who)
    def look_at_the_clock(self, index: int) -> None:
        if not self.member(index).stopped:
            self.member(index).obey()

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 11.0, 16.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(steps=st.integers(1, 12))
    def all_is_well_for_a_while(self, steps: int) -> None:
        for _ in range(steps):
            self.now += 0.5
            for member in self.members:
                if not member.stopped:
                    if member.clock() >= member.due:
                        member.round()
                    member.obey()
                    self._move(member, 6)

    @rule(index=who, cut=st.booleans(), deaf=st.booleans())
    def the_way_to_the_store(self, index: int, cut: bool, deaf: bool) -> None:
        self.member(index).store.cut, self.member(index).store.deaf = cut, deaf

    @rule(index=who, stopped=st.booleans())
    def stop_or_continue(self, index: int, stopped: bool) -> None:
        self.member(index).stopped = stopped

    @rule(index=who, seconds=st.sampled_from([1.0, 30.0]))
    def a_clock_leaps(self, index: int, seconds: float) -> None:
        self.member(index).ahead += seconds

    @rule(index=who)
    def start_anew(self, index: int) -> None:
        member = self.member(index)
        for wire in member.wires.values():
            wire.cut()
        member.stopped = False
        member.start()
        member.hear()
        for number in self.switches:
            member.connect(number)

    @rule(index=who, number=numbers)
    def connect(self, index: int, number: int) -> None:
        self.member(index).connect(number)

    @rule(index=who, number=numbers)
    def cut(self, index: int, number: int) -> None:
        wires = self.member(index).wires
        if number in wires:
            wires.pop(number).cut()

    @rule(index=who, number=numbers, steps=st.integers(1, 4))
    def some_steps(self, index: int, number: int, steps: int) -> None:
        member = self.member(index)
        if not member.stopped and number in member.wires:
            with member.acting():
                for _ in range(steps):
                    member.wires[number].step()

    def _move(self, member: Member, steps: int) -> None:
        with member.acting():
            for wire in list(member.wires.values()):
                for _ in range(steps):
                    if wire.closed or not wire.step():
                        break

    @rule()
    def leases_are_lost(self) -> None:
        self.memory.found.clear()

    @invariant()
    def only_the_master_by_the_switch_has_written(self) -> None:
        for switch in getattr(self, "switches", {}).values():
            assert None not in switch.roles.commits
            assert switch.roles.commits == sorted(switch.roles.commits)

    @rule()
    def quiet(self) -> None:
        for member in self.members:
            member.stopped = False
            member.store.cut = member.store.deaf = False
            member.hear()
            for number in self.switches:
                wire = member.wires.get(number)
                if wire is None or wire.closed:
                    member.connect(number)
        self.all_is_well_for_a_while(140)
        self.assert_whole()

    def assert_whole(self) -> None:
        for number, switch in self.switches.items():
            name = f"n{number}"
            masters = [member for member in self.members if member.holds(shard_of(name))]
            assert len(masters) == 1
            phases = {member.name: member.controller.fleet.phase(name) for member in self.members}
            assert phases.pop(masters[0].name) is Phase.SYNCED, phases
            assert set(phases.values()) <= {Phase.STANDBY}
            for member in self.members:
                assert switch.flows == expected(member.controller, name)
            groups = [each for scope in (CLUSTER, name) for each in masters[0].controller.compiler.groups(scope)]
            assert {each.group_id: each for each in switch.balancers} == {
                each.group_id: in_order(each) for each in groups
            }
        everyone = {
            (member.controller.fleet.cluster.state.digest, member.controller.fleet.scope("n1").digest)
            for member in self.members
        }
        assert len(everyone) == 1

    def teardown(self) -> None:
        if hasattr(self, "members"):
            self.quiet()
            app.time = self.former
            self.loop.close()


World.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
test_in_any_order_of_events_one_master_is_left_and_every_switch_is_in_sync = World.TestCase


class Holder:
    """Leases alone: a replica with a clock of its own pace, which now and then stands still or is cut off."""

    def __init__(self, name: str, chance: random.Random, memory: Memory) -> None:
        self.name, self.chance, self.memory = name, chance, memory
        self.rate, self.ahead = chance.uniform(0.98, 1.02), chance.uniform(0, 100)
        self.leases = Leases(name, TIMES, shards=4)
        self.next = chance.uniform(0, 3)
        self.waiting: list[tuple[Any, float]] = []

    def clock(self, now: float) -> float:
        return now * self.rate + self.ahead

    def act(self, now: float) -> None:
        """Look, or carry out what the last look was about; some of it late, or not at all."""
        if now < self.next:
            return
        chance, mine = self.chance, self.clock(now)
        self.next = now + chance.choice([0.0, 0.2, 1.0])
        if self.waiting:
            waiting, self.waiting = self.waiting, []
            for write, sent in waiting:
                try:
                    stored = self.memory.put(write.name, write.record, write.version)
                except LeaseError:
                    self.leases.refused(write)
                    continue
                if chance.random() < 0.95:
                    self.leases.written(write, stored, sent, mine)
            self.next = now + (chance.uniform(3, 30) if chance.random() < 0.15 else 2.0)
        elif chance.random() < 0.02:
            self.leases = Leases(self.name, TIMES, shards=4)
        else:
            self.leases.read(dict(self.memory.found), mine)
            self.waiting = [(write, mine) for write in self.leases.plan(mine, 0.0) if chance.random() < 0.97]

    def holds(self, shard: int, now: float) -> bool:
        found = self.leases.tenure(shard)
        return found is not None and self.clock(now) < found.until


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_two_replicas_hold_a_shard_at_a_time_each_by_its_own_clock(seed: int) -> None:
    chance, memory, now, moves = random.Random(seed), Memory(), 0.0, set()
    holders = [Holder(name, chance, memory) for name in "abc"]
    while now < 300:
        now += 0.1
        for each in holders:
            each.act(now)
            for shard in range(4):
                names = [other.name for other in holders if other.holds(shard, now)]
                assert len(names) <= 1, f"shard {shard} at {now:.1f}: {names}"
                moves |= {(shard, name) for name in names}
    assert len(moves) > 4
