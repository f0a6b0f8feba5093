"""The pipeline's flows, table by table, as text that people review: one file for each table in tests/golden.

`UPDATE_GOLDENS=1 tox` (or pytest) writes them anew; the diff is then the review.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from fabric import WAYS, Fabric
from wired import Wired, join

from flows.pipeline import DIGEST, FABRIC, SOURCE_IDENTITY, TABLES, Table
from flows.text import flow_text
from flows.update import CLUSTER
from flows.values import Flow
from flows.words import Names, flow_words
from topology.model import Endpoint, EndpointPort, EndpointSlice, Object, Service, ServicePort, Subset
from topology.policies import Action, IpBlock, NodeSet, PodSet, Policy, PolicyPort, Rule, Tier
from topology.selectors import Operator, Requirement

GOLDEN = Path(__file__).parents[1] / "golden"


def flows(way: str = "by key") -> list[Flow]:
    """Node n1 of two, a zone and a pod each, and between the pods Services, and policies of every tier."""
    compiler = Fabric(2, [(1, "web"), (2, "client")], objects(), {1: "east", 2: "west"}, way=WAYS[way]).compiler
    return [*compiler.flows(CLUSTER), *compiler.flows("n1")]


def objects() -> Iterator[Object]:
    """What there is beside nodes and pods."""
    web, client = (PodSet((Requirement("name", Operator.IN, (name,)),), "default") for name in ("web", "client"))
    for number, affinity in enumerate((0, 60), 1):
        name = ("plain", "sticky")[number - 1]
        yield Service(
            namespace="default",
            name=name,
            type="LoadBalancer",
            ports=(ServicePort(port=80, target=8080, node_port=30080 + number),),
            cluster_ips=(ip_address(f"10.96.0.{number}"), ip_address(f"fd00:10:96::{number}")),
            load_balancer_ips=(ip_address(f"192.0.2.{number}"),),
            external_local=not affinity,
            health_check_node_port=0 if affinity else 32000,
            affinity_seconds=affinity,
        )
        endpoint = Endpoint(address=ip_address("10.244.1.2"), node="n1", pod="web")
        subset = Subset((EndpointPort(port=8080),), (endpoint,))
        yield EndpointSlice(namespace="default", name=f"{name}-1", service=name, subsets=(subset,))
    block = IpBlock(ip_network("192.0.2.0/24"), (ip_network("192.0.2.128/25"),))
    yield Policy(
        namespace="default",
        name="web",
        subjects=web,
        ingress=(Rule(peers=(client, block), ports=(PolicyPort("TCP", 8080),)),),
        egress=(Rule(peers=(PodSet(),)),),
    )
    dns = PolicyPort("UDP", 53)
    yield Policy(
        kind="ClusterNetworkPolicy",
        name="guard",
        tier=Tier.ADMIN,
        priority=10,
        subjects=PodSet(),
        ingress=(Rule(Action.ACCEPT, peers=(NodeSet(),)), Rule(Action.DENY, peers=(block,))),
        egress=(
            Rule(Action.PASS, ports=(dns,)),
            Rule(Action.DENY, peers=(client, block), ports=(dns, PolicyPort("TCP", 1024, 65535))),
        ),
    )
    yield Policy(
        kind="BaselineAdminNetworkPolicy",
        name="default",
        tier=Tier.BASELINE,
        priority=1000,
        subjects=client,
        ingress=(Rule(Action.DENY),),
        egress=(Rule(Action.ACCEPT, peers=(web,)), Rule(Action.DENY, peers=(PodSet(),))),
    )


def wired_flows() -> list[Flow]:
    """Node a of five: to d there are two ways, to b and c one and an alternate, to e the tunnel."""
    wires = [join("a", "b"), join("a", "c"), join("b", "c"), join("b", "d"), join("c", "d")]
    return list(Wired(wires, tunnels="ae").compiler.flows("a"))


def golden(table: Table) -> str:
    # Where tunnels have keys, no flow asks whose an address is.
    ways = "by address" if table is SOURCE_IDENTITY else "by key"
    found = wired_flows() if table is FABRIC else flows(ways)
    mine = sorted((flow for flow in found if flow.table == table.number), key=lambda flow: -flow.priority)
    return "".join(f"{flow_text(flow, names=True)}\n" for flow in mine)


@pytest.mark.parametrize("table", [table for table in TABLES if table is not DIGEST], ids=lambda table: table.name)
def test_the_flows_of_a_table_are_those_that_were_reviewed(table: Table) -> None:
    compare(GOLDEN / f"{table.name}.txt", golden(table))


def test_words_for_flows_say_no_register_and_no_mark() -> None:
    """Who reads them knows networks, not what this pipeline keeps where."""
    every = {flow for way in WAYS for flow in flows(way)} | set(wired_flows())
    words = {flow_words(flow, Names()) for flow in every}
    assert [each for each in words if re.search(r"\breg\d|ct_mark|ct_label|set_field|learn\(", each)] == []


def compare(path: Path, text: str) -> None:
    if os.environ.get("UPDATE_GOLDENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    known = path.read_text() if path.exists() else ""
    if text != known:
        diff = difflib.unified_diff(known.splitlines(), text.splitlines(), "reviewed", "compiled", lineterm="")
        pytest.fail("\n".join([*diff, "", "if that is meant: UPDATE_GOLDENS=1 pytest, and look at the diff"]))


@pytest.mark.parametrize("mode", ["routed", "hybrid"])
def test_the_flows_that_a_mode_has_besides_are_those_that_were_reviewed(mode: str) -> None:
    others = set(flows())
    mine = sorted(
        (flow for flow in set(flows(mode)) - others), key=lambda flow: (flow.table, -flow.priority, str(flow))
    )
    compare(GOLDEN / "modes" / f"{mode}.txt", "".join(f"{flow_text(flow, names=True)}\n" for flow in mine))


def test_no_golden_is_of_a_table_that_is_gone() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {table.name for table in TABLES if table is not DIGEST}
