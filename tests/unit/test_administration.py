"""What people change: nodes that are drained, one switch brought in sync, what is logged; and who it was."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pwd
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from click.testing import CliRunner, Result
from fake_switch import FakeSwitch, Wire
from test_sync import UPLINKS, assert_in_sync, drifted, node, pod, pod_port, snapshot, started

from controller.api import administration, serve
from controller.app import Controller
from controller.drains import DrainError, Drains, StateDirectory
from controller.sync import Phase
from deploy.command import main


class Api:
    """A controller of two nodes, one of them connected, and its Unix socket."""

    def __init__(self, directory: Path) -> None:
        self.controller: Controller = started(node(1), node(2), pod("a", 1))
        self.switch = FakeSwitch(node(1).datapath_id, (*UPLINKS, pod_port("a", 1)))
        self.wire = Wire(self.controller, self.switch)
        self.wire.pump()
        self.socket = directory / "api.sock"

    async def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        connector = aiohttp.UnixConnector(str(self.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://c/v1/{path}", json=body) as response,
        ):
            assert response.status == status, await response.text()
            return json.loads(await response.text())

    async def drained(self) -> set[str]:
        return {row["name"] for row in (await self.ask("GET", "nodes"))["items"] if row["drained"]}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    here = Api(tmp_path)
    runner = await serve(here.controller, here.socket)
    yield here
    await runner.cleanup()


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    """Levels as they were."""
    loggers = [logging.getLogger(name) for name in (None, "controller", "controller.sync")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


# Drain ----------------------------------------------------------------------------------------------------------------


async def test_a_node_is_drained_and_undrained_and_says_so(api: Api) -> None:
    told = await api.ask("POST", "nodes/n1/drain")
    assert (told["node"], told["drained"], told["changed"], told["kept"]) == ("n1", True, True, "Memory")
    assert "--state-dir" in told["note"]
    assert await api.drained() == {"n1"} and api.controller.compiler.cluster.drained == {"n1"}
    assert not (await api.ask("POST", "nodes/n1/drain"))["changed"]
    told = (await api.ask("GET", "events?fieldSelector=reason=Drained"))["items"]
    assert [(each["object"], each["node"]) for each in told] == [("Node n1", "n1")]
    # What the source says of it otherwise leaves it drained.
    more = msgspec.structs.replace(node(1), labels=(("a", "b"),))
    api.controller.take(snapshot(more, node(2), pod("a", 1)))
    assert await api.drained() == {"n1"} and api.controller.compiler.cluster.nodes["n1"].labels == more.labels
    assert (await api.ask("POST", "nodes/n1/undrain"))["changed"]
    assert await api.drained() == set()
    assert api.controller.compiler.cluster.nodes["n1"] == more


async def test_what_can_t_be_is_said_and_changes_nothing(api: Api, tmp_path: Path) -> None:
    assert "no node 'n9'" in (await api.ask("POST", "nodes/n9/drain", status=404))["error"]
    api.controller.take(snapshot(node(1), msgspec.structs.replace(node(2), drained=True), pod("a", 1)))
    assert await api.drained() == {"n2"}
    assert "by its manifest" in (await api.ask("POST", "nodes/n2/undrain", status=409))["error"]
    assert not (await api.ask("POST", "nodes/n2/drain"))["changed"]
    api.controller.drains.store = StateDirectory(tmp_path)
    (tmp_path / "drained").rmdir()
    assert "nothing has changed" in (await api.ask("POST", "nodes/n1/drain", status=503))["error"]
    assert await api.drained() == {"n2"}


async def test_a_state_directory_outlives_the_controller_and_may_be_shared(tmp_path: Path) -> None:
    first, second = Controller(), Controller()
    for each in (first, second):
        each.drains = Drains(StateDirectory(tmp_path / "state"))
        each.take(snapshot(node(1), node(2)))
    assert await first.drain("n1", drained=True)
    for each in (first, second):
        each.drains.store.refresh()
        each.follow_drains()
        assert each.compiler.cluster.drained == {"n1"}
    later = Controller()
    later.drains = Drains(StateDirectory(tmp_path / "state"))
    later.take(snapshot(node(1), node(2)))
    assert later.compiler.cluster.drained == {"n1"}
    await second.drain("n1", drained=False)
    later.drains.store.refresh()
    later.follow_drains()
    assert later.compiler.cluster.drained == set()
    (tmp_path / "file").touch()
    with pytest.raises(DrainError, match=r"--state-dir .*/file: Not a directory"):
        StateDirectory(tmp_path / "file")


# Resync ---------------------------------------------------------------------------------------------------------------


async def test_one_switch_is_compared_and_repaired(api: Api) -> None:
    drifted(api.switch)
    assert await api.ask("POST", "nodes/n1/resync", status=202) == {"node": "n1"}
    api.wire.pump()
    assert_in_sync(api.controller, "n1", api.switch)
    assert api.controller.fleet.syncs["n1"].counters.repaired == 3
    assert "isn't connected" in (await api.ask("POST", "nodes/n2/resync", status=404))["error"]


async def test_a_change_that_is_just_being_made_is_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = api.controller.fleet.syncs["n1"]
    api.controller.change([node(3)], [], ())
    assert sync.phase is Phase.SYNCING
    asked = asyncio.create_task(api.ask("POST", "nodes/n1/resync", status=202))
    await asyncio.sleep(0.1)
    assert not asked.done() and sync.counters.audits == 0
    api.wire.pump()
    await asked
    assert sync.counters.audits == 1
    monkeypatch.setattr(administration, "IN_FLIGHT", 0.0)
    api.controller.change([node(4)], [], ())
    assert "(Syncing)" in (await api.ask("POST", "nodes/n1/resync", status=409))["error"]


# What is logged -------------------------------------------------------------------------------------------------------


async def test_levels_are_told_and_set(api: Api) -> None:
    logging.getLogger().setLevel("WARNING")
    assert await api.ask("GET", "log-level") == {"logger": "", "level": "WARNING"}
    assert (await api.ask("PUT", "log-level", {"level": "DEBUG", "logger": "controller.sync"}))["level"] == "DEBUG"
    assert (await api.ask("GET", "log-level?logger=controller.sync"))["level"] == "DEBUG"
    assert (await api.ask("GET", "log-level?logger=controller"))["level"] == "WARNING"
    await api.ask("PUT", "log-level", {"level": "ERROR"})
    assert logging.getLogger("aiohttp").getEffectiveLevel() == logging.ERROR
    assert (await api.ask("PUT", "log-level", {"level": "", "logger": "controller.sync"}))["level"] == "ERROR"
    for body, status in (
        ({"level": ""}, 400),
        ({"level": "LOUD"}, 400),
        ({"level": "INFO", "logger": "aiohttp"}, 404),
        ({"level": "INFO", "logger": "controller.nothing"}, 404),
        ({"logger": "controller"}, 400),
    ):
        await api.ask("PUT", "log-level", body, status)
    assert "controller.nothing" not in logging.root.manager.loggerDict


async def test_every_write_is_a_line_with_who_did_it(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await api.ask("GET", "nodes")
    await api.ask("POST", "nodes/n1/drain")
    await api.ask("POST", "nodes/n9/drain", status=404)
    await api.ask("PUT", "log-level", {"level": "LOUD"}, 400)
    # Whatever is logged otherwise, this is.
    await api.ask("PUT", "log-level", {"level": "ERROR"})
    await api.ask("PUT", "log-level", {"level": "ERROR", "logger": "signalbox.writes"}, 404)
    lines = [record for record in caplog.records if record.name == "signalbox.writes"]
    me = f"{pwd.getpwuid(os.geteuid()).pw_name} of this machine"
    assert [line.message.partition(": ")[0] for line in lines] == [me] * 5
    assert lines[0].message == f"{me}: POST /v1/nodes/n1/drain: 200" and lines[0].__dict__["node"] == "n1"
    assert lines[1].message.endswith("failed: no node 'n9'") and "the body: " in lines[2].message
    assert lines[3].message == f"{me}: PUT /v1/log-level (all: ERROR): 200"


# From the command line ------------------------------------------------------------------------------------------------


async def signalbox(api: Api, *words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, [*words, "--socket", str(api.socket)])


async def test_the_command_line_says_what_it_has_done(api: Api) -> None:
    drained = await signalbox(api, "drain", "n1", "node/n2")
    assert drained.stdout == "node/n1 drained\nnode/n2 drained\n" and drained.stderr.count("Note: it ends with") == 2
    assert (await signalbox(api, "drain", "n1")).stdout == "node/n1 already drained\n"
    assert (await signalbox(api, "undrain", "n1")).output == "node/n1 undrained\n"
    assert (await signalbox(api, "resync", "n1")).output == "node/n1 resync begun\n"
    unknown = await signalbox(api, "resync", "n1", "n9")
    assert (unknown.exit_code, unknown.stderr) == (1, "Error: no node 'n9'\n")
    logging.getLogger().setLevel("INFO")
    assert (await signalbox(api, "log-level")).output == "info\n"
    assert (await signalbox(api, "log-level", "DEBUG", "--logger", "controller.sync")).output == "debug\n"
    assert (await signalbox(api, "log-level", "--logger", "controller.sync")).output == "debug\n"
    assert (await signalbox(api, "log-level", "default", "--logger", "controller.sync")).output == "info\n"
    assert (await signalbox(api, "log-level", "default")).exit_code == 2
