"""Lists that go on, over a lab: what is streamed while things happen comes to what a list has in the end."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
from guests import NAMESPACE, Guest
from probes import until

from controller.watching import RESTLESS
from deploy.lab.cluster import Lab

#: What tells rows of a kind apart.
IDENTITY = {
    "nodes": ("name",),
    "pods": ("namespace", "name"),
    "links": ("from", "fromPort", "to", "toPort"),
    "events": ("number",),
}


class Watcher:
    """Somebody who watches a kind, and has what was told replayed."""

    def __init__(self, lab: Lab, kind: str) -> None:
        self.kind = kind
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.is_synced = False
        self._lab = lab
        self._connection = HTTPConnection("controller", timeout=120.0)
        self._connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection.sock.connect(str(lab.layout.api_of(1)))
        self._connection.request("GET", f"/v1/{kind}?watch=1")
        self._response = self._connection.getresponse()
        assert self._response.headers["Content-Type"] == "text/event-stream"
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        event = ""
        with contextlib.suppress(OSError, ValueError):
            for line in self._response:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    event = value
                elif name == "data":
                    self._take(event, json.loads(value))

    def _take(self, event: str, row: dict[str, Any]) -> None:
        self.told.append((event, row))
        if event == "SYNC":
            self.is_synced = True
            return
        key = tuple(row[field] for field in IDENTITY[self.kind])
        self.rows.pop(key, None)
        if event != "DELETED":
            self.rows[key] = row

    def has_what_is_listed(self) -> bool:
        restless = RESTLESS.get(self.kind, frozenset())
        told, listed = (
            {
                tuple(row[field] for field in IDENTITY[self.kind]): {
                    name: value for name, value in row.items() if name not in restless
                }
                for row in rows
            }
            for rows in (list(self.rows.values()), self._lab.ask(self.kind)["items"])
        )
        return told == listed

    def statuses(self, name: str) -> list[tuple[str, str]]:
        """What an object of this name has gone through."""
        return [(event, row["status"]) for event, row in list(self.told) if row.get("name") == name]

    def close(self) -> None:
        sock = self._connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._reading.join(timeout=60.0)
        assert not self._reading.is_alive()
        self._connection.close()


@pytest.fixture
def watchers(lab: Lab) -> Iterator[dict[str, Watcher]]:
    lab.wait_for_sync()
    found = {kind: Watcher(lab, kind) for kind in IDENTITY}
    try:
        for each in found.values():
            until(lambda each=each: each.is_synced, f"all {each.kind} are told")  # type: ignore[misc]
        yield found
    finally:
        for each in found.values():
            each.close()


def test_what_is_streamed_comes_to_what_is_listed(lab: Lab, watchers: dict[str, Watcher], guest: Guest) -> None:
    pods, nodes, events, links = (watchers[kind] for kind in ("pods", "nodes", "events", "links"))
    before = len(events.told)
    guest.declare()
    until(lambda: ("ADDED", "Pending") in pods.statuses(guest.name), "the pod that is declared is told")
    guest.add()
    took = until(lambda: ("MODIFIED", "Ready") in pods.statuses(guest.name), "that it is ready is told")
    print(f"told that a pod is ready {took:.2f} s after it was")
    lab.stop_switch("node-2", signal.SIGKILL)
    until(lambda: ("MODIFIED", "Disconnected") in nodes.statuses("node-2"), "that its switch is gone is told")
    until(lambda: ("MODIFIED", "Disconnected") in pods.statuses(guest.name), "and of the pod, too")
    until(lambda: "Unconfirmed" in [row["state"] for _, row in links.told if row.get("from") == "node-2"], "and links")
    lab.start_switch("node-2")
    lab.wait_for_sync()
    until(lambda: nodes.statuses("node-2")[-1] == ("MODIFIED", "Synced"), "that it is back is told")
    guest.leave()
    until(lambda: pods.statuses(guest.name)[-1][0] == "DELETED", "that the pod is gone is told")
    for each in watchers.values():
        until(each.has_what_is_listed, f"what was told of {each.kind} is what is listed")
    assert (NAMESPACE, guest.name) not in pods.rows
    told = [row["reason"] for event, row in events.told[before:] if (event, row["node"]) == ("ADDED", "node-2")]
    assert told == ["SwitchDisconnected", "SwitchConnected", "InSync"]
    # Nothing has become of the others: they weren't told again.
    assert [event for event, row in nodes.told if row.get("name") == "node-1"] == ["ADDED"]
    assert [event for event, row in pods.told if row.get("name") == "a1"] == ["ADDED"]


def test_a_controller_that_ends_lets_go_of_who_watches(lab: Lab, watchers: dict[str, Watcher]) -> None:
    lab.stop_controller()
    lab.start_controller()
    for each in watchers.values():
        each.close()
    lab.wait_for_sync()
