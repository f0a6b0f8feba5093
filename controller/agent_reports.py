"""What nodes' agents say, and whether they still say anything: switches are asked how their datapaths are described.

    turn ──desc──> SwitchSync ──answer──> topology.agent_report.parse ──> each agent's state, and what it said

Asked when a switch connects, and once an interval; it costs a message each, so all replicas ask for themselves.

An agent is lost when one answer after another has the same beat. That is measured from question to question by this
controller's own clock, so neither a node's clock nor a pause of this process makes an agent lost.

On a connection that is new, an agent counts as heard with the first answer: nobody knows how long its beat was the same
before. One that was lost is lost until its beat is another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum

import msgspec

from controller import questions
from controller.chronicle import Chronicle
from controller.fleet import Fleet
from controller.sync import SwitchSync
from flows.compiler import Compiler
from topology.agent_report import AgentReport, parse

#: Seconds between two questions to a switch, and between looks at whose turn it is.
INTERVAL, LOOK_INTERVAL = 10.0, 0.5
#: Beats that an agent may miss.
MISSED = 3


class State(StrEnum):
    ALIVE = "Alive"
    #: It has missed too many beats.
    LOST = "Lost"
    #: The switch is connected, and no agent has described it.
    NONE = "None"
    #: The switch isn't connected or hasn't answered yet, or the agent is of a version that has no beat.
    UNKNOWN = "Unknown"


class _Node(msgspec.Struct):
    """What is known of a node's agent by a connection of its switch.

    `heard` is when the question was asked that was the first to be answered with this beat; `silent` are the seconds
    from then to the last.
    """

    sync: SwitchSync
    due: float
    has_answered: bool = False
    report: AgentReport | None = None
    beat: int | None = None
    heard: float = 0.0
    silent: float = 0.0
    is_lost: bool = False

    @property
    def state(self) -> State:
        if not self.has_answered:
            return State.UNKNOWN
        if self.report is None:
            return State.NONE
        if self.report.beat is None:
            return State.UNKNOWN
        return State.LOST if self.is_lost else State.ALIVE

    @property
    def version(self) -> str:
        return self.report.version if self.report is not None else ""

    def take(self, text: str, asked: float) -> None:
        """The answer to a question that was asked then."""
        self.has_answered, self.report = True, parse(text)
        beat = self.report.beat if self.report is not None else None
        if self.report is None or beat is None or beat != self.beat:
            self.beat, self.heard, self.is_lost = beat, asked, False
        elif asked - self.heard >= MISSED * self.report.every + INTERVAL:
            self.is_lost = True
        self.silent = asked - self.heard


class AgentReports:
    """The agents of all nodes. `changed` is called with a node whose agent's state or version is another."""

    def __init__(self, compiler: Compiler, fleet: Fleet, chronicle: Chronicle, changed: Callable[[str], None]) -> None:
        self._compiler = compiler
        self._fleet = fleet
        self._chronicle = chronicle
        self._changed = changed
        self._nodes: dict[str, _Node] = {}

    async def keep(self) -> None:
        """Ask switches in turn, until cancelled."""
        while True:
            self.look(time.monotonic())
            await asyncio.sleep(LOOK_INTERVAL)

    def look(self, now: float) -> None:
        """Ask the switches whose turn it is, and forget nodes that are gone."""
        names, syncs = self._compiler.cluster.nodes, self._fleet.syncs
        self._nodes = {name: node for name, node in self._nodes.items() if name in names}
        for name, sync in syncs.items():
            if name not in names:
                continue
            node = self._nodes.get(name)
            if node is None or node.sync is not sync:
                node = self._nodes[name] = _on(sync, now, node)
            if now >= node.due:
                node.due = now + INTERVAL
                questions.describe(sync, lambda text, name=name, node=node: self._take(name, node, text, now))  # type: ignore[misc]

    def _take(self, name: str, node: _Node, text: str, asked: float) -> None:
        was_lost, before = node.is_lost, (node.state, node.version)
        node.take(text, asked)
        if node.is_lost and not was_lost:
            self._chronicle.agent_lost(name, _silence(node))
        elif was_lost and node.state is State.ALIVE:
            self._chronicle.agent_back(name)
        if (node.state, node.version) != before:
            self._changed(name)

    def _known(self, name: str) -> _Node | None:
        """What is known of a node's agent by the connection that its switch has now."""
        node = self._nodes.get(name)
        return node if node is not None and node.sync is self._fleet.syncs.get(name) else None

    def state(self, name: str) -> State:
        """How a node's agent is."""
        node = self._known(name)
        return State.UNKNOWN if node is None else node.state

    def version(self, name: str) -> str:
        """The version of a node's agent; empty where it isn't known."""
        node = self._known(name)
        return "" if node is None else node.version

    def report(self, name: str) -> AgentReport | None:
        """What a node's agent has said last; None where its switch is away, or it has said nothing."""
        node = self._known(name)
        return None if node is None else node.report

    def reports(self) -> Mapping[str, AgentReport]:
        """What agents have said last, by node. Of one that is lost it is old."""
        found = ((name, self.report(name)) for name in self._nodes)
        return {name: report for name, report in found if report is not None}

    def states(self) -> Mapping[str, State]:
        """How the agent of every node is."""
        return {name: self.state(name) for name in sorted(self._compiler.cluster.nodes)}

    def troubles(self) -> Iterator[str]:
        """Nodes whose agents are lost."""
        for name, node in sorted(self._nodes.items()):
            if self.state(name) is State.LOST:
                yield f"node {name}: its agent {_silence(node)}: pods there can't be added or removed"


def _on(sync: SwitchSync, now: float, before: _Node | None) -> _Node:
    """A node on a new connection."""
    if before is None or not before.is_lost:
        return _Node(sync, now)
    return _Node(sync, now, beat=before.beat, heard=before.heard, is_lost=True)


def _silence(node: _Node) -> str:
    return f"has said nothing for {node.silent:.0f} s"
