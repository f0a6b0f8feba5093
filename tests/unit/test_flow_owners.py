"""Every flow that is compiled is some object's by its cookie, and can be said in words: in every mode, and by wires."""

from __future__ import annotations

import pytest
from fabric import WAYS, Fabric
from test_goldens import objects
from wired import Wired, join

from controller.flow_views import Told
from flows.compiler import Compiler
from flows.openflow.messages import FlowStats
from flows.update import CLUSTER


def orphans(compiler: Compiler) -> list[str]:
    found = []
    for node in compiler.cluster.nodes:
        told = Told(compiler, node)
        for flow in (*compiler.flows(CLUSTER), *compiler.flows(node)):
            row = told.row(FlowStats(flow.table, flow.priority, flow.cookie, flow, 0, 0, 0.0, b""))
            if not row["object"] or not row["words"]:
                found.append(f"{node}: {row['ofctl']}")
    return found


@pytest.mark.parametrize("way", WAYS)
def test_no_flow_is_without_an_object_in_any_mode(way: str) -> None:
    pods = [(1, "web"), (2, "client")]
    assert orphans(Fabric(2, pods, objects(), {1: "east", 2: "west"}, way=WAYS[way]).compiler) == []


def test_no_flow_is_without_an_object_over_wires() -> None:
    wires = [join("n1", "t1"), join("n1", "t2"), join("t1", "n2"), join("t2", "n2"), join("n1", "n2", 7)]
    wired = Wired(wires, ["n1", "n2"], transit=["t1", "t2"], tunnels=["n3", "n1"], objects=objects())
    assert orphans(wired.compiler) == []
    # A pod that has gone leaves its identity, for a while.
    wired.compiler.remove(("Pod", "default", "n2"))
    assert orphans(wired.compiler) == []
