"""What differs on a switch from what it should hold, and what its flows carry: asked, and nothing is repaired."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from fake_switch import Wire
from msgspec import structs
from test_sync import connect, node, pod, pod_port, started, switch_of

from controller import flow_views
from controller.app import Controller
from controller.flow_views import Wanted
from controller.holdings import Holdings
from flows.cookies import LEARNT_OWNER, OWNER, TAP_OWNER, Scope
from flows.openflow import encode
from flows.openflow.messages import FlowStats
from flows.openflow.wire import Type
from flows.pipeline import DIGEST, OUTPUT, ROUTE
from flows.tables.digest import digest_flow
from flows.values import DROP, Flow


@pytest.fixture
def controller() -> Controller:
    return started(node(1), node(2), pod("a", 1))


@pytest.fixture
def wire(controller: Controller) -> Wire:
    return connect(controller, switch_of(1, pod_port("a", 1)))


def tamper(wire: Wire, *flows: Flow) -> None:
    """Flows that somebody adds by hand, or has do something else."""
    for flow in flows:
        wire.switch._apply(encode.flow_mod(flow))


def lose(wire: Wire, table: int) -> int:
    keys = [key for key in wire.switch.held if key[0] == table]
    for key in keys:
        del wire.switch.held[key]
    return len(keys)


async def differences(controller: Controller, wire: Wire, wanted: Wanted | None = None) -> list[dict[str, Any]]:
    asking = asyncio.create_task(controller.compare("n1"))
    while not asking.done():
        await asyncio.sleep(0)
        wire.step()
    drift, compared, is_settled = await asking
    assert is_settled and compared == len(wire.switch.held)
    return list(flow_views.differences(controller.compiler, "n1", drift, wanted or Wanted()))


async def test_a_switch_in_order_has_no_differences(controller: Controller, wire: Wire) -> None:
    assert await differences(controller, wire) == []


@pytest.mark.parametrize("owner", [OWNER, LEARNT_OWNER, TAP_OWNER])
async def test_a_digest_that_looks_like_somebody_s_cookie_is_a_digest(
    controller: Controller, wire: Wire, owner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Holdings, "digest", lambda _self, scope: owner << 56 | scope)
    tamper(wire, *(digest_flow(scope, owner << 56 | scope) for scope in Scope))
    assert await differences(controller, wire) == []
    dump = [
        FlowStats(each.table, each.priority, each.cookie, each, 0, 0, 0.0, b"")
        for each in (digest_flow(scope, owner << 56 | scope) for scope in Scope)
    ]
    rows = list(flow_views.flows(controller.compiler, "n1", dump, Wanted()))
    ordinary = FlowStats(DIGEST.number, 1, 0, digest_flow(Scope.NODE, 0), 0, 0, 0.0, b"")
    (wanted,) = flow_views.flows(controller.compiler, "n1", [ordinary], Wanted())
    assert {each["object"] for each in rows} == {wanted["object"]}


async def test_what_is_missing_altered_and_foreign_is_told_and_left_as_it_is(
    controller: Controller, wire: Wire
) -> None:
    altered = next(flow for flow in wire.switch.flows if flow.table == OUTPUT.number and flow.program != DROP)
    tamper(wire, structs.replace(altered, program=DROP), Flow(0, 9000, (), DROP, 0))
    missing = lose(wire, ROUTE.number)
    bundles = controller.fleet.syncs["n1"].counters.bundles
    rows = await differences(controller, wire)
    told = {state: [row for row in rows if row["state"] == state] for state in ("missing", "altered", "foreign")}
    assert {row["table"] for row in told["missing"]} == {"Route"} and len(told["missing"]) == missing
    assert all(row["words"] and row["object"] for row in told["missing"])
    ((row,), (foreign,)) = told["altered"], told["foreign"]
    assert row["words"].endswith(": drop") and not row["shouldBe"].endswith(": drop") and row["object"]
    assert (foreign["table"], foreign["priority"], foreign["object"]) == ("Classify", 9000, "")
    assert [row["tableNumber"] for row in rows] == sorted(row["tableNumber"] for row in rows)
    assert len(rows) == missing + 2
    wire.pump()
    assert controller.fleet.syncs["n1"].counters.bundles == bundles


async def test_differences_may_be_asked_for_of_one_object(controller: Controller, wire: Wire) -> None:
    lose(wire, ROUTE.number)
    rows = await differences(controller, wire, Wanted(pod="default/a"))
    assert rows and {row["object"] for row in rows} == {"Pod default/a"}


async def test_while_a_switch_is_being_changed_it_is_said_so(controller: Controller, wire: Wire) -> None:
    controller.change([pod("b", 2), node(3)], [], ())
    asking = asyncio.create_task(controller.compare("n1"))
    while not asking.done():
        await asyncio.sleep(0)
        # Questions are answered, and the bundle stays on its way.
        questions = [message for message in wire.to_switch if message[1] == Type.MULTIPART_REQUEST]
        wire.to_switch = [message for message in wire.to_switch if message not in questions]
        wire.peer.receive(wire.switch.receive(b"".join(questions)), time.monotonic())
    _, _, is_settled = await asking
    assert not is_settled


def stats(flow: Flow, packets: int, octets: int) -> FlowStats:
    return FlowStats(flow.table, flow.priority, flow.cookie, flow, packets, octets, 10.0, encode.flow_mod(flow)[48:])


def test_rates_are_what_came_between_two_looks(controller: Controller) -> None:
    first, second, third = sorted(controller.compiler.flows("n1"), key=lambda flow: (flow.table, -flow.priority))[:3]
    before = [stats(first, 10, 1000), stats(second, 10, 1000)]
    # The second was made anew meanwhile, and the third is new.
    after = [stats(first, 30, 5000), stats(second, 4, 400), stats(third, 2, 200)]
    rows = flow_views.rated(controller.compiler, "n1", before, after, 2.0, Wanted())
    assert [(row["packetsPerSecond"], row["bytesPerSecond"]) for row in rows] == [(10, 2000), (2, 200), (1, 100)]
