"""How each part of the whole is said to be."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_switch import Wire
from test_channel_tls import files, made
from test_sync import connect, node, pod, pod_port, started, switch_of

from controller import parts
from controller.access import Access
from controller.app import Controller
from controller.bgp import Speaker
from controller.bgp_settings import BgpSettings
from controller.parts import State
from controller.tls import Credentials
from flows.openflow import encode
from flows.update import CLUSTER
from topology.manifests import Problem


def told(controller: Controller, now: datetime | None = None, clock: float | None = None) -> dict[str, parts.Part]:
    now, clock = now or datetime.now(UTC), clock if clock is not None else time.monotonic()
    found = parts.parts(controller, parts.troubles_by_part(controller, now), now, clock)
    return {part.name: part for part in found}


@pytest.fixture
def controller() -> Controller:
    here = started(node(1), pod("a", 1))
    here.not_ready = ""
    return here


@pytest.fixture
def wire(controller: Controller) -> Wire:
    return connect(controller, switch_of(1, pod_port("a", 1)))


def test_where_all_is_well_every_part_is_ok_and_only_what_there_is_is_a_part(
    controller: Controller, wire: Wire
) -> None:
    found = told(controller)
    assert {part.state for part in found.values()} == {State.OK}
    assert list(found) == ["source", "objects", "switches", "pods", "links", "api", "statistics"]
    assert found["switches"].message == "1 of 1 in sync" and found["pods"].message == "1 attached"


def test_no_switch_at_all_is_a_failure_and_one_that_is_away_is_less(controller: Controller) -> None:
    away = told(controller)["switches"]
    assert (away.state, away.message) == (
        State.FAILED,
        "none of 1 is connected; node n1: its switch isn't connected",
    )
    controller.change([node(2)], [], ())
    connect(controller, switch_of(1))
    away = told(controller)["switches"]
    assert away.state is State.DEGRADED and away.message.startswith("1 of 2 in sync; node n2: ")


def test_a_refused_flow_is_the_switch_s_trouble(controller: Controller) -> None:
    bad = next(iter(controller.compiler.flows(CLUSTER)))
    switch = switch_of(1)
    switch.refuses = lambda mod: mod[8:] == encode.flow_mod(bad)[8:]
    connect(controller, switch)
    found = told(controller)["switches"]
    assert found.state is State.DEGRADED and "refused with error FLOW_MOD_FAILED" in found.message


def test_what_is_wrong_with_objects_is_counted(controller: Controller, wire: Wire) -> None:
    controller.change([], [], (Problem("a.yaml", 1, "", "no kind"), Problem("b.yaml", 2, "", "no name")))
    found = told(controller)["objects"]
    assert found.state is State.DEGRADED and found.message.endswith("a.yaml:1: no kind (and 1 more)")
    assert [part.name for part in told(controller).values() if part.state is not State.OK] == ["objects"]
    assert len(list(controller.troubles())) == 2


def test_a_source_that_has_not_been_read_has_failed_and_one_that_is_cut_off_is_degraded(
    controller: Controller, wire: Wire
) -> None:
    controller.source_troubles = lambda: ("Kubernetes: no answer",)
    assert told(controller)["source"].state is State.DEGRADED
    controller.not_ready = "the cluster's state hasn't been read yet"
    assert told(controller)["source"].state is State.FAILED


def test_routers_that_are_all_away_are_a_failure(controller: Controller, wire: Wire, tmp_path: Path) -> None:
    settings = BgpSettings.parse(64512, ["192.0.2.1@64999"], "192.0.2.9", (), 120)
    assert settings is not None
    controller.bgp = Speaker(settings, tmp_path / "bgp")
    assert told(controller)["bgp"].state is State.OK
    controller.bgp.speaks = True
    found = told(controller)["bgp"]
    assert found.state is State.FAILED and found.message.startswith("0 of 1 peers up")


def test_a_certificate_is_told_of_before_it_ends(controller: Controller, wire: Wire, tmp_path: Path) -> None:
    credentials = Credentials(files(made(tmp_path)))
    controller.access = Access(credentials)
    states = [
        told(controller, credentials.expires + timedelta(days=days))["certificates"].state for days in (-300, -1, 1)
    ]
    assert states == [State.OK, State.DEGRADED, State.FAILED]


def test_a_switch_that_does_not_tell_what_it_has_counted_is_named(controller: Controller, wire: Wire) -> None:
    now = time.monotonic()
    controller.statistics.look(now)
    wire.pump()
    assert told(controller, clock=now + controller.statistics.interval)["statistics"].state is State.OK
    late = told(controller, clock=now + 10 * controller.statistics.interval)["statistics"]
    assert late.state is State.DEGRADED and "no answer from n1" in late.message
