"""Switches whose flows are looked at one by one: what is found while the state changes, and whose turn it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from itertools import count
from struct import pack
from unittest.mock import patch

import pytest
from fake_switch import Wire
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from policy_objects import has
from test_compiler import Step, steps
from test_compiler import node as node_of
from test_sync import connect, node, pod, pod_port, started, switch_of

from controller import audits, holdings
from controller.app import Controller
from controller.audit import Drift
from controller.batch import Xids
from controller.holdings import Comparison, Holdings
from controller.scopes import ClusterLog, ScopeState
from controller.sync import Phase
from flows.compiler import Compiler
from flows.cookies import Scope
from flows.openflow import encode
from flows.openflow.messages import FlowStats
from flows.openflow.wire import Multipart, Type
from flows.pipeline import ROUTE
from flows.tables.digest import digest_flow
from flows.update import CLUSTER, Update
from flows.values import DROP, Flow
from topology.policies import Action, PodSet, Policy, PolicyPort, Rule

FOREIGN = Flow(0, 9000, (), DROP, 0)

# What is found --------------------------------------------------------------------------------------------------------


class Known:
    """What node n1 should hold, as a compiler says, and the log of that."""

    def __init__(self, events: list[Step]) -> None:
        self.compiler = Compiler()
        for event in [lambda compiler: compiler.put(node_of(1)), *events]:
            event(self.compiler)
        self._log = ClusterLog(self.compiler, Xids())
        self._own = ScopeState(self.compiler.flows("n1"), self.compiler.groups("n1"))
        self.holdings = Holdings("n1", self.compiler, self._log, self._own)

    def flows(self) -> dict[object, Flow]:
        found = (flow for scope in (CLUSTER, "n1") for flow in self.compiler.flows(scope))
        return {flow.key: flow for flow in found}

    def tampered(self) -> list[FlowStats]:
        """What a switch says where flows are lost, do something else, and are too many."""
        flows = [*self.flows().values()]
        lost, others = flows[::5], flows[1::5]
        kept = [flow for flow in flows if flow not in lost and flow not in others]
        digests = [digest_flow(scope, self.holdings.digest(scope)) for scope in Scope]
        altered = [structs.replace(flow, cookie=flow.cookie ^ 1) for flow in others]
        return [
            FlowStats(each.table, each.priority, each.cookie, each, 0, 0, 0.0, b"")
            for each in (*kept, *altered, *digests, FOREIGN)
        ]

    def happen(self, event: Step) -> None:
        for update in event(self.compiler):
            self._take(update)

    def _take(self, update: Update) -> None:
        if update.scope == CLUSTER:
            self._log.take(update)
        elif update.scope == "n1":
            self._own.take(update)


def told(comparison: Comparison) -> Drift:
    drift = comparison.drift()
    assert drift is not None
    return drift


@st.composite
def policies(draw: st.DrawFn) -> Step:
    name, port = draw(st.sampled_from("ab")), draw(st.integers(80, 82))
    clients = PodSet((has("app", draw(st.sampled_from(["web", "db"]))),), "default")
    rule = Rule(Action.ACCEPT, (clients,), (PolicyPort("TCP", port),))
    made = Policy(namespace="default", name=name, subjects=PodSet((), "default"), ingress=(rule,))
    gone = draw(st.booleans())
    return lambda compiler: compiler.remove(made.key) if gone else compiler.put(made)


events = st.one_of(steps(), steps(), policies())


@settings(max_examples=60, deadline=None)
@given(st.lists(events, max_size=20), st.lists(events, min_size=1, max_size=8), st.integers(1, 40))
def test_of_what_changes_while_it_is_compared_nothing_is_told_and_all_else_is_as_it_was(
    before: list[Step], meanwhile: list[Step], stride: int
) -> None:
    known = Known(before)
    found = known.tampered()
    at_once = known.holdings.comparison(found)
    audits.exhaust(at_once.steps())
    whole, states = told(at_once), [known.flows()]
    assert whole.foreign and whole.missing and whole.altered
    with patch.object(holdings, "STRIDE", stride):
        comparison = known.holdings.comparison(found)
        left = iter(meanwhile)
        for _ in comparison.steps():
            if (event := next(left, None)) is not None:
                known.happen(event)
                states.append(known.flows())
    drift = told(comparison)
    first = states[0]
    own = {flow.key for flow in first.values() if flow.cookie >> 55 & 1 == Scope.NODE}
    keys = {key for state in states for key in state} - own
    changed = {key for key in keys if any(state.get(key) != first.get(key) for state in states)}
    # Some have changed and are again what they were: of those nothing is told either.
    silent = {flow.key for flow in whole.missing} - {flow.key for flow in drift.missing}
    silent |= {flow.key for flow, _ in whole.altered} - {flow.key for flow, _ in drift.altered}
    assert set(drift.missing) <= set(whole.missing) and set(drift.altered) <= set(whole.altered)
    assert drift.foreign == whole.foreign
    assert not changed & {flow.key for flow in (*drift.missing, *(flow for flow, _ in drift.altered))}
    assert not silent & own
    if len(states) == 1:
        assert drift == whole


def test_of_flows_that_nothing_is_told_of_all_have_changed() -> None:
    known = Known([])
    comparison = known.holdings.comparison(known.tampered())
    for index, _ in enumerate(comparison.steps()):
        if index == 0:
            known.happen(lambda compiler: compiler.put(node_of(2)))
            known.happen(lambda compiler: compiler.put(node_of(3)))
            known.happen(lambda compiler: compiler.remove(("Node", "", "n2")))
    at_once = known.holdings.comparison([])
    audits.exhaust(at_once.steps())
    # Neither the node that has come nor the one that has come and gone, and the rest as if nothing had been.
    new = {flow.key for flow in node_flows(3)}
    everything = {flow.key for flow in told(at_once).missing} - new
    drift = told(comparison)
    assert len(drift.missing) == -(-len(everything - digests()) // 5)


def digests() -> set[object]:
    return {digest_flow(scope, 0).key for scope in Scope}


def node_flows(number: int) -> set[Flow]:
    compiler = Compiler()
    before = set(compiler.flows(CLUSTER))
    compiler.put(node_of(number))
    return set(compiler.flows(CLUSTER)) - before


# Whose turn it is -----------------------------------------------------------------------------------------------------


@pytest.fixture
def controller() -> Controller:
    return started(node(1), node(2), node(3), pod("a", 1))


@pytest.fixture
def wires(controller: Controller) -> list[Wire]:
    return [connect(controller, switch_of(number, pod_port("a", number))) for number in (1, 2, 3)]


@contextlib.asynccontextmanager
async def kept(controller: Controller) -> AsyncIterator[None]:
    task = asyncio.create_task(controller.audits.keep())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(
    condition: Callable[[], bool], wires: list[Wire], each: Callable[[int], None] = lambda turn: None
) -> int:
    """Have everybody go on, turn by turn; how many turns it took."""
    async with asyncio.timeout(20):
        for turn in count():
            if condition():
                return turn
            each(turn)
            for wire in wires:
                wire.step()
            await asyncio.sleep(0)
    raise AssertionError


def spoil(wire: Wire) -> None:
    for key in [key for key in wire.switch.held if key[0] == ROUTE.number]:
        del wire.switch.held[key]
    wire.switch._apply(encode.flow_mod(FOREIGN))


def is_right(controller: Controller, wire: Wire, name: str) -> bool:
    if any(key[:2] == FOREIGN.key[:2] for key in wire.switch.held):
        return False
    return wire.switch.flows == {
        *controller.compiler.flows(CLUSTER),
        *controller.compiler.flows(name),
        *(flow for flow in wire.switch.flows if flow.key in digests()),
    }


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "STRIDE", 1)


def is_asked_for_flows(wire: Wire) -> bool:
    requests = (message for message in wire.to_switch if message[1] == Type.MULTIPART_REQUEST)
    return any(message[8:10] == pack("!H", Multipart.FLOW_DESC) and message[16] == 0xFF for message in requests)


async def test_while_one_switch_is_looked_at_everybody_has_a_turn_and_no_other_is_asked(
    controller: Controller, wires: list[Wire], small_steps: None
) -> None:
    for wire in wires:
        spoil(wire)
    asked: list[int] = []

    # Each that is found is looked at in a step of its own.
    flows = sum(len(wire.switch.held) for wire in wires)

    def are_right() -> bool:
        return all(is_right(controller, wire, f"n{number}") for number, wire in reversed([*enumerate(wires, 1)]))

    async with kept(controller):
        controller.audit(full=True)
        turns = await until(are_right, wires, lambda turn: asked.append(sum(map(is_asked_for_flows, wires))))
    assert max(asked) == 1 and sum(asked) == len(wires)
    assert turns > flows


#: At first its flows are counted: a change then leaves it to the next audit.
@pytest.mark.parametrize("late", range(3, 100, 9))
async def test_what_changes_while_a_switch_is_looked_at_is_not_undone(
    controller: Controller, wires: list[Wire], small_steps: None, late: int
) -> None:
    spoil(wires[0])

    def change(turn: int) -> None:
        if turn == late:
            # Of the cluster, and of the node itself.
            controller.change([node(4), pod("b", 1)], [("Node", "", "n3")], ())
            wires[0].tell(wires[0].switch.set_ports([pod_port("a", 1), pod_port("b", 1, 11)]))

    async with kept(controller):
        controller.audit(full=True)
        await until(
            lambda: "n4" in controller.compiler.cluster.nodes and is_right(controller, wires[0], "n1"), wires, change
        )
        # Nothing is left that would be sent later.
        await until(lambda: not any(wire.to_switch for wire in wires), wires)
    assert is_right(controller, wires[0], "n1") and controller.fleet.phase("n1") is Phase.SYNCED


async def test_a_switch_that_hangs_up_while_it_is_looked_at_holds_up_nobody(
    controller: Controller, wires: list[Wire], small_steps: None
) -> None:
    spoil(wires[0])
    spoil(wires[1])

    def hang_up(turn: int) -> None:
        if turn == 8:
            wires[0].cut()

    async with kept(controller):
        controller.audit(full=True)
        await until(lambda: is_right(controller, wires[1], "n2"), wires, hang_up)
    assert "n1" not in controller.fleet.syncs


async def test_what_is_asked_for_is_told_of_the_state_that_the_switch_was_asked_in(
    controller: Controller, wires: list[Wire], small_steps: None
) -> None:
    tampered = wires[0].switch
    tampered._apply(encode.flow_mod(FOREIGN))
    flows = len(tampered.held)
    asking = asyncio.create_task(controller.compare("n1"))

    def change(turn: int) -> None:
        if turn == 20:
            controller.change([node(4), pod("b", 1)], [("Node", "", "n3")], ())
            wires[0].tell(tampered.set_ports([pod_port("a", 1), pod_port("b", 1, 11)]))

    assert await until(asking.done, wires[:1], change) > flows
    drift, compared, is_settled = await asking
    assert compared == flows != len(tampered.held) and is_settled
    assert [stats.flow for stats in drift.foreign] == [FOREIGN] and not drift.missing and not drift.altered


async def test_where_more_changes_each_time_than_is_remembered_it_is_compared_in_one_go(
    controller: Controller, wires: list[Wire], small_steps: None
) -> None:
    spoil(wires[0])
    controller.fleet.cluster._limit = 0
    asking = asyncio.create_task(controller.compare("n1"))

    def change(turn: int) -> None:
        if turn % 60 == 30:
            controller.change([node(10 + turn // 60)], [("Node", "", f"n{9 + turn // 60}")], ())

    await until(asking.done, wires, change)
    drift, _, is_settled = await asking
    assert not is_settled and drift.missing and FOREIGN in [stats.flow for stats in drift.foreign]
