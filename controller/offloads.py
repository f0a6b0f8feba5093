"""What nodes' agents report of hardware offload: their switches are asked how their datapaths are described.

turn ──desc──> SwitchSync ──answer──> topology.offload.parse ──> a report for each node, its words, its counts

Asked when a switch connects, and once an interval; it costs a message each, so all replicas ask for themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from controller import questions
from controller.fleet import Fleet
from controller.sync import SwitchSync
from flows.compiler import Compiler
from topology.offload import Report, parse

#: Seconds between two questions to a switch, which is as often as agents report, and between looks at whose turn it is.
INTERVAL, LOOK_INTERVAL = 10.0, 0.5

Row = dict[str, Any]


class _Known(msgspec.Struct):
    sync: SwitchSync
    due: float
    report: Report | None = None


class Offloads:
    """The reports of all nodes whose switches are connected."""

    def __init__(self, compiler: Compiler, fleet: Fleet) -> None:
        self._compiler = compiler
        self._fleet = fleet
        self._known: dict[str, _Known] = {}

    async def keep(self) -> None:
        """Ask switches in turn, until cancelled."""
        while True:
            self.look(time.monotonic())
            await asyncio.sleep(LOOK_INTERVAL)

    def look(self, now: float) -> None:
        """Ask the switches whose turn it is, and forget those that are gone."""
        syncs = self._fleet.syncs
        self._known = {node: known for node, known in self._known.items() if node in syncs}
        for node, sync in syncs.items():
            known = self._known.get(node)
            if known is None or known.sync is not sync:
                known = self._known[node] = _Known(sync, now)
            if now >= known.due:
                known.due = now + INTERVAL
                questions.describe(sync, lambda text, known=known: _take(known, text))  # type: ignore[misc]

    def report(self, node: str) -> Report | None:
        """A node's last report; None where its switch is away, or its agent has said nothing."""
        known = self._known.get(node)
        return known.report if known is not None else None

    def reports(self) -> Mapping[str, Report]:
        """Every report that there is, by node."""
        return {node: known.report for node, known in self._known.items() if known.report is not None}

    def rows(self) -> Iterator[Row]:
        """Every node, and how its offload is."""
        for node in sorted(self._compiler.cluster.nodes):
            yield row(node, self.report(node), connected=node in self._fleet.syncs)

    def troubles(self) -> Iterator[str]:
        """Where offload was asked for and isn't in force."""
        for node, report in sorted(self.reports().items()):
            fault = fault_of(report)
            if fault:
                yield f"node {node}: {fault}"


def _take(known: _Known, text: str) -> None:
    known.report = parse(text)


def fault_of(report: Report | None) -> str:
    """What is wrong with a node's offload; empty where nothing is, or nobody asked for it."""
    if report is None or not report.asked or report.is_in_force:
        return ""
    return f"hardware offload was asked for and is not in force: {report.why or 'its agent gives no reason'}"


def row(node: str, report: Report | None, *, connected: bool = True) -> Row:
    """A node as lists show it. `state` is InForce, Off, Unavailable (asked for in vain) or Unknown."""
    if report is None:
        why = "its agent has reported nothing" if connected else "its switch isn't connected"
        return {
            "node": node, "state": "Unknown", "asked": None, "capable": None, "enabled": None, "nics": None,
            "functions": None, "functionsUsed": None, "flowsOffloaded": None, "flowsPartial": None,
            "flowsNotOffloaded": None, "bytesPercent": None, "why": why,
        }  # fmt: skip
    return {
        "node": node,
        "state": "InForce" if report.is_in_force else "Unavailable" if report.asked else "Off",
        "asked": report.asked,
        "capable": report.capable,
        "enabled": report.enabled,
        "nics": report.nics,
        "functions": report.functions,
        "functionsUsed": report.used_functions,
        "flowsOffloaded": report.offloaded,
        "flowsPartial": report.partial,
        "flowsNotOffloaded": report.not_offloaded,
        "bytesPercent": report.share,
        "why": report.why,
    }
