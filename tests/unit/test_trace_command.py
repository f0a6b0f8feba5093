"""What `signalbox trace` and `capture` say where a switch isn't connected: nobody takes the model for what is there."""

from __future__ import annotations

import json
from pathlib import Path

from asked_controller import asked
from test_sync import connect, pod_port, switch_of

ON_N2 = "10.244.2.10"
AWAY = "node n2: its switch isn't connected: what it does now isn't known"


async def test_a_way_over_a_switch_that_is_away_has_a_caution(tmp_path: Path) -> None:
    async with asked(tmp_path) as here:
        connect(here.controller, switch_of(2, pod_port("web-2", 2))).cut()
        over = await here.run("trace", "web-1", ON_N2, "--tcp", "8080")
        data = await here.run("trace", "web-1", ON_N2, "--tcp", "8080", "-o", "json")
        local = await here.run("trace", "web-1", "192.0.2.1")
    assert over.exit_code == 0 and f"CAUTION: {AWAY}" in over.output.splitlines()
    assert json.loads(data.output)["cautions"] == [AWAY]
    assert local.exit_code == 0 and "CAUTION" not in local.output


async def test_what_asks_a_switch_that_is_away_says_that_it_may_be(tmp_path: Path) -> None:
    async with asked(tmp_path) as here:
        connect(here.controller, switch_of(2, pod_port("web-2", 2))).cut()
        live = await here.run("trace", "web-1", ON_N2, "--tcp", "8080", "--live")
        capture = await here.run("capture", "web-2", "-w", str(tmp_path / "a.pcapng"))
    assert live.exit_code == capture.exit_code == 1
    assert "the switch of node n2 isn't connected, or" in live.output
    assert "on node 'n2', whose switch isn't connected, or" in capture.output
