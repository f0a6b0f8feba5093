"""Lists that go on, and events, as the command line prints them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asked_controller import asked
from click.testing import CliRunner, Result
from msgspec import structs

from controller.cli import client
from deploy.command import main


def run(*words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--socket", "/s"])


class Told:
    """A controller that tells this of a list, and then people have seen enough."""

    def __init__(self, *events: tuple[str, dict[str, Any]]) -> None:
        self.events = events
        self.asked: list[tuple[str, dict[str, str]]] = []

    def watch(self, where: Path, resource: str, query: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
        self.asked.append((resource, query))
        yield from self.events
        raise KeyboardInterrupt


def pod(name: str, status: str) -> dict[str, Any]:
    return {"namespace": "default", "name": name, "status": status, "addresses": ["10.0.0.1"], "node": "n1"}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    here = Told(
        ("ADDED", pod("a", "Ready")),
        ("ADDED", pod("b", "Pending")),
        ("SYNC", {}),
        ("MODIFIED", pod("b", "Disconnected")),
        ("DELETED", pod("a", "Ready")),
    )
    monkeypatch.setattr(client, "watch", here.watch)
    return here


def test_what_there_is_is_a_table_and_each_change_a_line_of_it(told: Told) -> None:
    result = run("get", "pods", "-w", "-l", "app=web", "--field-selector", "node=n1")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "NAME   STATUS    ADDRESSES   NODE",
        "a      Ready     10.0.0.1    n1",
        "b      Pending   10.0.0.1    n1",
        "b      Disconnected   10.0.0.1    n1",
        "a      Ready          10.0.0.1    n1",
    ]
    asked = {"namespace": "default", "labelSelector": "app=web", "fieldSelector": "node=n1"}
    assert told.asked == [("pods", asked)]


def test_changes_alone_and_what_they_are(told: Told) -> None:
    lines = run("get", "po", "--watch-only", "--output-watch-events").output.splitlines()
    assert [line.split()[:2] for line in lines] == [["EVENT", "NAME"], ["MODIFIED", "b"], ["DELETED", "a"]]
    assert run("get", "po", "b", "-w", "-o", "name").output.split() == ["pod/b", "pod/b"]


def test_each_event_is_a_line_of_json(told: Told) -> None:
    lines = run("get", "po", "-w", "-o", "json").output.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["a", "b", "b", "a"]
    lines = run("get", "po", "-w", "-o", "json", "--output-watch-events").output.splitlines()
    assert json.loads(lines[-1]) == {"type": "DELETED", "object": pod("a", "Ready")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("routes",), "routes can't be watched; nodes, pods"),
        (("nodes,pods",), "--watch is of one kind"),
        (("nodes", "--sort-by", "name"), "doesn't go with --sort-by and --limit"),
        (("services", "--counters"), "doesn't go with --counters"),
    ],
)
def test_what_can_t_be_watched_is_said(words: tuple[str, ...], said: str) -> None:
    assert said in run("get", *words, "-w").output


async def test_a_controller_s_changes_come_as_they_are_made_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = client.watch
    seen = {each: threading.Event() for each in ("ADDED", "MODIFIED", "SYNC")}

    def noted(*words: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        for event, row in watch(*words):
            yield event, row
            seen[event].set()

    monkeypatch.setattr(client, "watch", noted)
    async with asked(tmp_path) as here:
        words = ("get", "pods", "-A", "-w", "-o", "json", "--output-watch-events")
        watching = asyncio.create_task(here.run(*words))
        assert await asyncio.to_thread(seen["SYNC"].wait, 60)
        cluster = here.controller.compiler.cluster
        changed = structs.replace(cluster.pods["other", "web-1"], labels=(("app", "db"),))
        here.controller.change([changed], [], ())
        assert await asyncio.to_thread(seen["MODIFIED"].wait, 60)
        await here.end()
        result = await watching
    assert result.exit_code == 1
    *lines, last = result.output.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["type"] for event in events] == ["ADDED", "ADDED", "ADDED", "MODIFIED"]
    assert events[-1]["object"]["labels"] == {"app": "db"}
    assert last == "Error: the controller has ended the watch"


async def test_events_are_those_of_an_object_a_node_or_a_type(tmp_path: Path) -> None:
    async with asked(tmp_path) as here:
        tell = here.controller.events.tell
        tell(1.0, "Warning", "Refused", object="NetworkPolicy default/clients", node="n1", message="table full")
        tell(2.0, "Warning", "ObjectRejected", object="Pod other/web-1", message="no")

        async def reasons(*words: str) -> list[str]:
            result = await here.run("events", "-o", "json", *words)
            assert result.exit_code == 0, result.output
            return [row["reason"] for row in json.loads(result.output)["items"]]

        assert (await reasons())[-2:] == ["Refused", "ObjectRejected"]
        assert await reasons("--for", "netpol/clients") == ["Refused"]
        assert await reasons("--for", "po/web-1", "-n", "other") == ["ObjectRejected"]
        assert await reasons("--for", "po/web-1") == []
        assert await reasons("--node", "n1", "--type", "warning") == ["Refused"]
        shown = (await here.run("events", "--type", "warning")).output.splitlines()
        assert shown[1].split() == ["1970-01-01T00:00:01Z", "1", "Warning", "Refused", "NetworkPolicy",
                                    "default/clients", "table", "full"]  # fmt: skip
        assert "say KIND/NAME" in (await here.run("events", "--for", "web-1")).output
        assert "of links there are no events" in (await here.run("events", "--for", "links/a")).output
