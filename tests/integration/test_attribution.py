"""Every flow of a switch is some object's, and `signalbox flows` says whose."""

from __future__ import annotations

import re
from typing import Any

import pytest
from attribution import orphans
from callers import call, ofctl, service, to, vips
from policing import policed
from probes import pod_netns, until
from test_trace_agreement import DOCUMENTS, in_red

from deploy.lab.cluster import Lab
from flows.pipeline import AFFINITY, DIGEST, SERVICE_STATS

#: A Service whose clients are remembered: flows that the switch makes itself.
STICKY = in_red(
    service("sticky", {"port": 80, "targetPort": 8080}, selector={"app": "web"}, sessionAffinity="ClientIP")
)


@pytest.fixture(scope="module")
def lab(policy_lab: Lab) -> Lab:
    return policy_lab


def rows(lab: Lab, node: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.ask("nodes", node, "flows")["items"]
    return found


def test_no_flow_is_without_an_object_and_all_is_said_in_words(lab: Lab) -> None:
    with policed(lab, *DOCUMENTS, STICKY):
        lab.wait_for_sync()
        for vip in vips(lab, "sticky"):
            call(pod_netns(lab, "near", "red"), to(vip, 80))
        dumps = {node: rows(lab, node) for node in lab.nodes}
        for node, found in dumps.items():
            assert len(found) == len([line for line in ofctl(lab, node, "dump-flows", "br-int") if "priority=" in line])
        assert orphans(lab) == []
        found = [row for each in dumps.values() for row in each]
        assert [row["words"] for row in found if re.search(r"\breg\d|ct_mark|ct_label", row["words"])] == []
        ends = {row["words"].partition(" (pod ")[0] for row in found if row["table"] == SERVICE_STATS.name}
        assert "of a connection to an endpoint" not in " ".join(ends)
        kinds = {row["object"].split()[0] for row in found}
        assert kinds >= {"Pipeline", "Node", "Pod", "Service", "NetworkPolicy", "ClusterNetworkPolicy"}
        learnt = {row["object"] for row in found if row["table"] == AFFINITY.name and row["priority"] > 0}
        assert "Service red/sticky" in learnt
        assert {row["object"] for row in found if row["table"] == DIGEST.name} == {"Pipeline"}


def test_a_flow_of_somebody_else_is_nobody_s(lab: Lab) -> None:
    ofctl(lab, "node-2", "add-flow", "br-int", "table=Route,priority=77,ip,nw_dst=192.0.2.99,actions=drop")
    try:
        until(lambda: any(row["priority"] == 77 for row in rows(lab, "node-2")), "it is there")
        (row,) = [row for row in rows(lab, "node-2") if row["priority"] == 77]
        assert row["object"] == "" and row["packets"] == 0
    finally:
        ofctl(lab, "node-2", "del-flows", "br-int", "table=Route,ip,nw_dst=192.0.2.99")
