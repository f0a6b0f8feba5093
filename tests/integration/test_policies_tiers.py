"""Policies of the cluster on real switches: the Admin tier before NetworkPolicies, the Baseline tier after them."""

from __future__ import annotations

import pytest
from callers import Document
from policing import (
    HOST_PORT,
    cluster_policy,
    hold,
    hold_under,
    labelled,
    pods_of,
    policed,
    policy,
    ways,
)
from probes import node_addresses

from deploy.lab.cluster import Lab

WEBS = "red/web1 red/web2"
RED, BLUE = "red/near red/far", "blue/near blue/far"


@pytest.fixture(scope="module")
def lab(policy_lab: Lab) -> Lab:
    return policy_lab


def named(namespace: str) -> Document:
    """A peer, or a subject: all pods of a namespace."""
    return {"namespaces": labelled({"kubernetes.io/metadata.name": namespace})}


def rule(action: str, *peers: Document, direction: str = "from", **rest: object) -> Document:
    return {"action": action, direction: list(peers), **rest}


def tcp(*ports: int) -> list[Document]:
    return [{"tcp": {"destinationPort": {"number": port}}} for port in ports]


def test_the_admin_tier_has_the_last_word_before_network_policies(lab: Lab) -> None:
    webs = pods_of("red", app="web")
    hold_under(
        lab,
        policy("closed", {"app": "web"}, ingress=[{"from": [{"podSelector": {}}]}]),
        cluster_policy(
            "admin",
            webs,
            ingress=[rule("Accept", pods_of("blue", tier="front")), rule("Deny", pods_of("red", tier="back"))],
        ),
        # Accepted though no NetworkPolicy allows it; denied though one does; the others left to it.
        allowed=ways("blue/near red/near", WEBS),
        denied=ways("red/far blue/far", WEBS),
    )


def test_a_rule_that_passes_leaves_it_to_network_policies_and_rules_below_are_not_asked(lab: Lab) -> None:
    hold_under(
        lab,
        policy("open", {"app": "web", "tier": "front"}, ingress=[{}]),
        policy("closed", {"app": "web", "tier": "back"}, ingress=[]),
        cluster_policy(
            "admin",
            pods_of("red", app="web"),
            ingress=[rule("Pass", named("blue")), rule("Deny", {"namespaces": {}})],
        ),
        allowed=ways(BLUE, "red/web1"),
        denied=[*ways(BLUE, "red/web2"), *ways(RED, WEBS)],
    )


def test_the_first_rule_that_matches_decides_by_priority_then_by_place(lab: Lab) -> None:
    webs = pods_of("red", app="web")
    first = cluster_policy("z-first", webs, priority=1, ingress=[rule("Accept", pods_of("blue", tier="front"))])
    second = cluster_policy(
        "a-second", webs, priority=2, ingress=[rule("Deny", named("blue")), rule("Accept", named("blue"))]
    )
    third = cluster_policy(
        "m-third", webs, priority=3, ingress=[rule("Accept", {"namespaces": {}}), rule("Deny", named("red"))]
    )
    with policed(lab, first, second, third):
        hold(lab, allowed=ways(f"blue/near {RED}", WEBS), denied=ways("blue/far", WEBS))
        with policed(lab, cluster_policy("z-first", webs, priority=4, ingress=first["spec"]["ingress"])):
            hold(lab, denied=ways(BLUE, WEBS), allowed=ways(RED, WEBS))


def test_the_baseline_tier_is_for_those_whom_no_network_policy_isolates(lab: Lab) -> None:
    webs = pods_of("red", app="web")
    hold_under(
        lab,
        policy("own", {"app": "web", "tier": "front"}, ingress=[{"from": [{"podSelector": {}}]}]),
        cluster_policy(
            "below",
            webs,
            "Baseline",
            ingress=[rule("Accept", pods_of("blue", tier="front")), rule("Deny", {"namespaces": {}})],
        ),
        # web1 is as its NetworkPolicy says, web2 as the baseline.
        allowed=[*ways(RED, "red/web1"), *ways("blue/near", "red/web2"), *ways(WEBS, BLUE)],
        denied=[*ways(BLUE, "red/web1"), *ways(f"{RED} blue/far", "red/web2")],
    )


def test_egress_rules_reach_pods_nodes_and_networks(lab: Lab) -> None:
    first = [f"{each}/{128 if ':' in each else 32}" for each in node_addresses(lab, "node-1")]
    nodes = {"nodes": {"matchLabels": {"zone": "west"}}}
    admin = cluster_policy(
        "out",
        named("red"),
        egress=[
            rule("Accept", nodes, direction="to", protocols=tcp(HOST_PORT)),
            rule("Deny", {"nodes": {}}, direction="to"),
            rule("Deny", {"networks": ["192.0.2.0/24", "2001:db8::/48"]}, pods_of("blue", tier="back"), direction="to"),
        ],
    )
    with policed(lab, admin):
        hold(
            lab,
            allowed=[
                *ways(RED, "node-3", HOST_PORT, ("tcp",)),
                *ways(RED, "blue/near red/web1"),
                *ways(BLUE, "node-1", HOST_PORT),
            ],
            denied=[
                *ways(RED, "node-3", HOST_PORT, ("udp",)),
                *ways(RED, "node-1 node-2", HOST_PORT),
                *ways(RED, "blue/far world"),
            ],
        )
        with policed(
            lab,
            cluster_policy(
                "before", named("red"), priority=0, egress=[rule("Accept", {"networks": first}, direction="to")]
            ),
        ):
            hold(lab, allowed=ways(RED, "node-1", HOST_PORT), denied=ways(RED, "node-2", HOST_PORT))


def test_protocols_ranges_and_names_of_ports(lab: Lab) -> None:
    protocols = [
        {"destinationNamedPort": "http"},
        {"tcp": {"destinationPort": {"range": {"start": 8082, "end": 8083}}}},
        {"udp": {"destinationPort": {"number": 8083}}},
    ]
    hold_under(
        lab,
        cluster_policy(
            "admin",
            pods_of("red", app="web"),
            ingress=[rule("Accept", named("blue"), protocols=protocols), rule("Deny", named("blue"))],
        ),
        allowed=[
            *ways(BLUE, "red/web1", (8080, 8082, 8083), ("tcp",)),
            *ways(BLUE, "red/web2", (8081, 8082, 8083), ("tcp",)),
            *ways(BLUE, WEBS, 8083, ("udp",)),
        ],
        denied=[
            *ways(BLUE, "red/web1", 8081),
            *ways(BLUE, "red/web2", 8080),
            *ways(BLUE, WEBS, (8080, 8082), ("udp",)),
        ],
    )


def test_admin_and_baseline_policies_of_v1alpha1_are_of_their_tiers(lab: Lab) -> None:
    api = "policy.networking.k8s.io/v1alpha1"
    webs = pods_of("red", app="web")
    admin = {
        "apiVersion": api,
        "kind": "AdminNetworkPolicy",
        "metadata": {"name": "admin"},
        "spec": {
            "priority": 5,
            "subject": webs,
            "ingress": [
                rule("Allow", pods_of("blue", tier="front"), ports=[{"portNumber": {"protocol": "TCP", "port": 8080}}]),
                rule(
                    "Pass",
                    pods_of("blue", tier="front"),
                    ports=[{"portRange": {"protocol": "TCP", "start": 8081, "end": 8082}}],
                ),
                rule("Deny", pods_of("blue", tier="front")),
            ],
        },
    }
    baseline = {
        "apiVersion": api,
        "kind": "BaselineAdminNetworkPolicy",
        "metadata": {"name": "default"},
        "spec": {"subject": webs, "ingress": [rule("Deny", named("blue"))]},
    }
    closed = policy("some", {"app": "web", "tier": "front"}, ingress=[{"ports": [{"port": 8081}]}])
    hold_under(
        lab,
        admin,
        baseline,
        closed,
        allowed=[
            *ways("blue/near", WEBS, 8080, ("tcp",)),
            *ways("blue/near", "red/web1", 8081, ("tcp",)),
            *ways(RED, "red/web2"),
        ],
        denied=[
            *ways("blue/near", WEBS, 8083),
            *ways("blue/near", WEBS, 8080, ("udp",)),
            *ways("blue/near", "red/web1", 8082),
            # To the baseline, as no NetworkPolicy is for it.
            *ways("blue/near", "red/web2", (8081, 8082), ("tcp",)),
            *ways("blue/far", "red/web2"),
        ],
    )


def test_policies_of_the_cluster_say_nothing_to_a_node_about_its_own_pods(lab: Lab) -> None:
    hold_under(
        lab,
        cluster_policy("all", {"namespaces": {}}, priority=0, ingress=[rule("Deny", {"namespaces": {}})]),
        allowed=[*ways("node-1", "red/web1 blue/near"), *ways("node-3", "red/far"), *ways("node-2", "red/web1")],
        denied=[*ways(RED, BLUE), *ways(BLUE, WEBS)],
    )
