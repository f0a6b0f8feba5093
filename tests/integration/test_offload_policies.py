"""Connections that policies of every kind let through are of flows that TC takes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from callers import Call, to
from linting import Record, established
from policing import Directory, Way, cluster_policy, labelled, pods_of, policed, policy, ways
from probes import addresses

from deploy.lab.cluster import Lab


@pytest.fixture(scope="module")
def lab(policy_lab: Lab) -> Lab:
    return policy_lab


def test_connections_that_policies_let_through_are_of_flows_that_tc_takes(lab: Lab, offload_record: Record) -> None:
    directory = Directory(lab)
    far = [f"{each}/{128 if ':' in each else 32}" for each in addresses(lab, "far", "blue")]
    networks = [*far, *(f"198.18.{n}.0/24" for n in range(6)), *(f"2001:db8:{n:x}::/48" for n in range(16, 22))]
    clients = {"namespaceSelector": {}, "podSelector": labelled({"tier": "front"})}
    documents = [
        # By identity; by address and of many ports; out of the sender's namespace; told of, to the controller.
        policy("in", {"app": "web"}, ingress=[{"from": [clients]}]),
        policy(
            "blocks",
            {"tier": "front"},
            ingress=[
                {
                    "from": [{"ipBlock": {"cidr": each}} for each in networks],
                    "ports": [{"port": port} for port in (8080, 9001, 9003, 9005)],
                }
            ],
        ),
        policy("out", policyTypes=["Egress"], egress=[{"to": [{"namespaceSelector": {}}]}], namespace="blue"),
        policy("out", policyTypes=["Egress"], egress=[{"to": [{"namespaceSelector": {}}]}]),
        cluster_policy(
            "admin",
            pods_of("red", app="web"),
            ingress=[{"action": "Accept", "from": [pods_of("red", tier="back")]}],
        ),
        cluster_policy(
            "baseline",
            pods_of("blue", tier="back"),
            "Baseline",
            ingress=[
                {"action": "Accept", "from": [{"namespaces": {}}]},
                {"action": "Deny", "from": [{"namespaces": {}}]},
            ],
        ),
    ]
    documents[0]["metadata"]["annotations"] = {"signalbox.io/log": "all"}
    through = [
        *ways("red/near blue/near", "red/web1 red/web2"),
        *ways("blue/far", "red/web1", kinds=["tcp"]),
        *ways("red/far", "red/web1 red/web2 blue/far"),
        *ways("node-1", "red/web1"),
    ]
    with policed(lab, *documents):
        found = established(lab, _by_source(through, directory))
    offload_record(f"policies, {lab.settings.encap}, senders by {lab.settings.source_identity}", found)
    assert found.failed == [] and len(found.judged) > 60


def _by_source(through: Sequence[Way], directory: Directory) -> list[tuple[str, list[Call]]]:
    found: dict[str, list[Call]] = {}
    for each in through:
        calls = found.setdefault(directory.netns(each.source), [])
        calls.append(to(directory.address(each.target, each.version), each.port, each.kind))
    return list(found.items())
