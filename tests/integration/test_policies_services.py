"""Policies and Services: the endpoint is judged and not the Service's address, and the client as who it really is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from callers import OUTSIDE, Document, balanced, node_port, service, unlink, vips, write
from policing import BOTH, Addresses, Way, forget_flows, hold, hold_under, outcomes, policed, policy, ways
from probes import addresses, node_addresses, until

from deploy.lab.cluster import Lab
from deploy.lab.layout import pod_cidrs

KINDS = [
    {"name": f"{kind}-{port}", "port": port, "targetPort": 8000 + port, "protocol": kind.upper()}
    for kind in BOTH
    for port in (80, 81)
]


def of_red(name: str, **spec: Any) -> Document:
    found = service(name, *KINDS, **spec)
    found["metadata"]["namespace"] = "red"
    return found


@contextlib.contextmanager
def with_services(lab: Lab) -> Iterator[Lab]:
    """With Services of web1 (on node-1) and of both web servers: port 80 is 8080 in the pods, 81 is 8081."""
    both = [of_red("one", selector={"who": "web1"}, type="LoadBalancer"), of_red("web", selector={"part": "web"})]
    write(lab, *both)
    yield lab
    unlink(lab, *both)


@pytest.fixture(scope="module")
def lab(policy_lab: Lab) -> Iterator[Lab]:
    with with_services(policy_lab) as here:
        yield here


def vip(lab: Lab, name: str = "one") -> Addresses:
    first, second = vips(lab, name)
    return first, second


def alone(*listed: str) -> list[Document]:
    return [{"ipBlock": {"cidr": f"{each}/{128 if ':' in each else 32}"}} for each in listed]


def labels(**wanted: str) -> list[Document]:
    return [{"podSelector": {"matchLabels": wanted}}]


def entries(lab: Lab, source: str, *nodes: str) -> list[Way]:
    """By the node ports of nodes, and by the load balancer's address."""
    v4, v6 = balanced(lab, "one")
    found = ways(source, (v4, v6), 80)
    for node in nodes:
        v4, v6 = node_addresses(lab, node)
        # The ports of a Service are shown in the order in which it has them.
        found += ways(source, (v4, v6), node_port(lab, "one", 0), ("tcp",))
        found += ways(source, (v4, v6), node_port(lab, "one", 2), ("udp",))
    return found


def test_a_service_s_endpoint_is_judged_with_its_own_port(lab: Lab) -> None:
    ports = [{"port": 8080}, {"port": 8080, "protocol": "UDP"}]
    hold_under(
        lab,
        policy("in", {"app": "web"}, ingress=[{"from": labels(app="client"), "ports": ports}]),
        allowed=[*ways("red/near red/far", vip(lab), 80), *ways("node-1", vip(lab), 80)],
        denied=[*ways("red/near red/far", vip(lab), 81), *ways("blue/near blue/far node-2", vip(lab), 80)],
    )


def test_what_a_client_may_send_through_a_service_is_told_by_the_endpoint_too(lab: Lab) -> None:
    to_webs = policy("out", {"app": "client"}, policyTypes=["Egress"], egress=[{"to": labels(app="web", tier="front")}])
    to_address = policy("out", {"app": "client"}, "blue", policyTypes=["Egress"], egress=[{"to": alone(*vip(lab))}])
    hold_under(
        lab,
        to_webs,
        to_address,
        allowed=[*ways("red/near red/far", vip(lab), 80), *ways("red/web2", vip(lab), 80)],
        # That the Service's address is allowed is of no use.
        denied=ways("blue/near blue/far", vip(lab), 80),
    )


def test_of_several_endpoints_only_those_that_allow_it_answer(lab: Lab) -> None:
    with policed(lab, policy("closed", {"app": "web", "tier": "back"}, ingress=[])):
        hold(lab, allowed=ways("red/near blue/far", "red/web1"), denied=ways("red/near blue/far", "red/web2"))
        many = ways("red/near blue/far", vip(lab, "web"), 80) * 10
        found: set[str] = set()

        def some_answer() -> bool:
            found.update(outcomes(lab, many, [False] * len(many)))
            return "web1" in found

        until(some_answer, "web1 answers")
        # Of ten that go to one of two, all to the same: once in five hundred; of eighty, never.
        assert found == {"web1", ""}


def test_a_pod_that_calls_itself_through_its_service_is_judged_as_who_it_is(lab: Lab) -> None:
    """And not as the address that it sees itself with, which every policy would have to know."""
    itself = ways("red/web1", vip(lab), 80)
    hold(lab, allowed=itself)
    hold_under(lab, policy("in", {"app": "web"}, ingress=[{"from": labels(app="client")}]), denied=itself)
    hold_under(lab, policy("in", {"app": "web"}, ingress=[{"from": labels(tier="front")}]), allowed=itself)
    egress = policy("out", {"app": "web"}, policyTypes=["Egress"], egress=[{"to": labels(app="client")}])
    hold_under(lab, egress, denied=itself)
    own = policy("in", {"app": "web"}, ingress=[{"from": alone(*addresses(lab, "web1", "red"))}])
    hold_under(lab, own, allowed=itself, denied=ways("red/near", vip(lab), 80))


def test_clients_outside_are_judged_by_their_address_whichever_node_they_enter_by(lab: Lab) -> None:
    everywhere = entries(lab, "outside", *lab.nodes)
    hold(lab, allowed=everywhere)
    web = {"app": "web"}
    hold_under(lab, policy("in", web, ingress=[{"from": alone(*OUTSIDE)}]), allowed=everywhere)
    # All of the underlay but that one: the nodes by which they come, too.
    less = [
        {"ipBlock": {"cidr": "172.30.0.0/24", "except": [f"{OUTSIDE[0]}/32"]}},
        {"ipBlock": {"cidr": "fd00:172:30::/64", "except": [f"{OUTSIDE[1]}/128"]}},
        {"namespaceSelector": {}},
    ]
    hold_under(
        lab, policy("in", web, ingress=[{"from": less}]), denied=everywhere, allowed=ways("blue/far", vip(lab), 80)
    )
    gateways = [str(cidr[1]) for index in range(3) for cidr in pod_cidrs(lab.settings, index)]
    hold_under(lab, policy("in", web, ingress=[{"from": alone(*gateways)}]), denied=everywhere)


def test_ports_of_the_pod_hold_for_clients_outside(lab: Lab) -> None:
    first = {"ports": [{"port": 8080}]}
    everywhere = entries(lab, "outside", *lab.nodes)
    hold_under(
        lab,
        policy("in", {"app": "web"}, ingress=[{**first, "from": alone(*OUTSIDE)}]),
        allowed=[each for each in everywhere if each.kind == "tcp"],
        denied=[each for each in everywhere if each.kind == "udp"],
    )


def test_pods_and_nodes_that_use_a_node_s_port_are_judged_as_themselves(lab: Lab) -> None:
    # A node calls pods and Services from its end of the pods' network, and another node's ports from its own address.
    second = [*(str(cidr[1]) for cidr in pod_cidrs(lab.settings, 1)), *node_addresses(lab, "node-2")]
    peers = [*labels(tier="back"), *alone(*second)]
    hold_under(
        lab,
        policy("in", {"app": "web"}, ingress=[{"from": peers}]),
        allowed=[
            *entries(lab, "red/far", "node-2"),
            *entries(lab, "red/web2", "node-1", "node-3"),
            *entries(lab, "node-2", "node-3"),
        ],
        denied=[
            *entries(lab, "red/near", "node-2", "node-1"),
            *entries(lab, "blue/far", "node-3"),
            *entries(lab, "node-3", "node-2"),
        ],
    )


def test_a_service_that_keeps_to_the_node_judges_its_clients_there(lab: Lab) -> None:
    local = of_red("kept", selector={"who": "web2"}, type="NodePort", externalTrafficPolicy="Local")
    with policed(lab, local):
        v4, v6 = node_addresses(lab, "node-2")
        there = ways("outside", (v4, v6), node_port(lab, "kept", 0), ("tcp",))
        hold(lab, allowed=there)
        hold_under(lab, policy("in", {"app": "web"}, ingress=[{"from": alone(*OUTSIDE)}]), allowed=there)
        hold_under(lab, policy("in", {"app": "web"}, ingress=[{"from": [{"namespaceSelector": {}}]}]), denied=there)
    forget_flows(lab)
