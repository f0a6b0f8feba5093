"""What nodes' agents report of hardware offload, as part of what they say: rows, and what is wrong.

AgentReports ──> topology.offload.Report of each node ──> its words, its counts
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.agent_reports import AgentReports
from controller.fleet import Fleet
from flows.compiler import Compiler
from topology.offload import Report

Row = dict[str, Any]


class Offloads:
    """The reports of all nodes whose switches are connected."""

    def __init__(self, compiler: Compiler, fleet: Fleet, agents: AgentReports) -> None:
        self._compiler = compiler
        self._fleet = fleet
        self._agents = agents

    def report(self, node: str) -> Report | None:
        """A node's last report; None where its switch is away, or its agent has said nothing."""
        told = self._agents.report(node)
        return None if told is None else told.offload

    def reports(self) -> Mapping[str, Report]:
        """Every report that there is, by node."""
        told = self._agents.reports().items()
        return {node: report.offload for node, report in told if report.offload is not None}

    def rows(self) -> Iterator[Row]:
        """Every node, and how its offload is."""
        reports = self.reports()
        for node in sorted(self._compiler.cluster.nodes):
            yield row(node, reports.get(node), connected=node in self._fleet.syncs)

    def troubles(self) -> Iterator[str]:
        """Where offload was asked for and isn't in force."""
        for node, report in sorted(self.reports().items()):
            fault = fault_of(report)
            if fault:
                yield f"node {node}: {fault}"


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
