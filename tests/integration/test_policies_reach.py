"""NetworkPolicies hold packets: by TCP and UDP, over both families, on one node and across, in both directions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from callers import OUTSIDE, ip, put
from policing import (
    HOST_PORT,
    PORT,
    forget_flows,
    hold,
    hold_under,
    policed,
    policy,
    seen_from_afar,
    serving_outside,
    ways,
)
from probes import addresses, node_addresses

from deploy.lab.cluster import Lab
from deploy.lab.layout import pod_cidrs

WEBS = "red/web1 red/web2"
CLIENTS = "red/near red/far blue/near blue/far"
PODS = f"{WEBS} {CLIENTS}"
NODES = "node-1 node-2 node-3"


@pytest.fixture(scope="module")
def lab(policy_lab: Lab) -> Lab:
    return policy_lab


def test_without_policies_all_reach_all(lab: Lab) -> None:
    hold(lab, allowed=[*ways(PODS, PODS), *ways(NODES, PODS), *ways(PODS, NODES, HOST_PORT)])


# Who is selected, and for what ----------------------------------------------------------------------------------------


def test_a_policy_that_allows_nothing_isolates_the_pods_it_selects_and_no_others(lab: Lab) -> None:
    with policed(lab, policy("closed", {"app": "web"}, ingress=[])):
        hold(
            lab,
            # What they send themselves it says nothing about, and answers come back.
            allowed=[*ways(WEBS, CLIENTS), *ways("blue/far", "red/far blue/near"), *ways(WEBS, NODES, HOST_PORT)],
            denied=[*ways(CLIENTS, WEBS), *ways(WEBS, WEBS)],
        )
    hold(lab, allowed=ways(CLIENTS, WEBS))


def test_a_node_reaches_its_own_pods_whatever_their_policies_say_and_other_nodes_are_judged(lab: Lab) -> None:
    with policed(lab, policy("closed", ingress=[], egress=[], policyTypes=["Ingress", "Egress"])):
        hold(
            lab,
            allowed=[*ways("node-1", "red/web1 red/near"), *ways("node-2", "red/web2"), *ways("node-3", "red/far")],
            denied=[*ways("node-2 node-3", "red/web1"), *ways("node-1 node-3", "red/web2")],
        )
        third = seen_from_afar(lab, 2)
        peers = [{"ipBlock": {"cidr": f"{each}/{128 if ':' in each else 32}"}} for each in third]
        with policed(lab, policy("third", ingress=[{"from": peers}])):
            hold(lab, allowed=ways("node-3", WEBS), denied=ways("node-2", "red/web1"))


def test_a_policy_selects_pods_of_its_own_namespace_alone(lab: Lab) -> None:
    hold_under(
        lab,
        policy("closed", {"app": "client"}, ingress=[]),
        allowed=ways(WEBS, "blue/near blue/far"),
        denied=ways(WEBS, "red/near red/far"),
    )


def test_pods_of_the_host_s_network_are_nobody_s_subjects_and_no_selector_s_peers(lab: Lab) -> None:
    closed = policy("closed", ingress=[], egress=[], policyTypes=["Ingress", "Egress"])
    hold_under(
        lab,
        # The hosts' own servers bear the labels that are selected, and are what the pod selector might let in.
        closed,
        policy("webs", {"app": "web"}, ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]),
        allowed=[*ways("blue/near blue/far", NODES, HOST_PORT), *ways("node-1", "red/web1")],
        denied=[*ways("node-2", "red/web1"), *ways("node-3", WEBS)],
    )


SPECS: list[tuple[dict[str, object], str]] = [
    ({}, "in"),
    ({"ingress": []}, "in"),
    ({"egress": []}, "in"),
    ({"egress": [{"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}]}, "in out"),
    ({"policyTypes": []}, "in"),
    ({"policyTypes": ["Egress"]}, "out"),
    ({"policyTypes": ["Egress"], "ingress": [{}]}, "out"),
    ({"policyTypes": ["Ingress"]}, "in"),
    ({"policyTypes": ["Ingress"], "egress": [{}]}, "in"),
    ({"policyTypes": ["Ingress", "Egress"], "ingress": [{}]}, "out"),
    ({"policyTypes": ["Ingress", "Egress"], "egress": [{}]}, "in"),
    ({"policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}, ""),
]


@pytest.mark.parametrize("specs", [SPECS[:6], SPECS[6:]])
def test_a_policy_is_about_the_directions_that_it_names_or_else_those_of_its_rules(
    lab: Lab, specs: list[tuple[dict[str, object], str]]
) -> None:
    """Each pod has another; hosts of other nodes call it, and are called."""
    policies, allowed, denied = [], [], []
    for pod, (spec, closed) in zip(PODS.split(), specs, strict=True):
        namespace, name = pod.split("/")
        only = {"matchExpressions": [{"key": "who", "operator": "In", "values": [name]}]}
        policies.append(policy(name, only, namespace, **spec))
        into, out_of = ways("node-2" if "2" not in name else "node-1", pod), ways(pod, "node-2", HOST_PORT)
        (denied if "in" in closed.split() else allowed).extend(into)
        (denied if "out" in closed.split() else allowed).extend(out_of)
    hold_under(lab, *policies, allowed=allowed, denied=denied)


def test_a_pod_is_reached_if_any_of_its_policies_allows_it(lab: Lab) -> None:
    hold_under(
        lab,
        policy("none", {"app": "web"}, ingress=[]),
        policy(
            "near",
            {"tier": "front", "app": "web"},
            ingress=[{"from": [{"podSelector": {"matchLabels": {"tier": "front"}}}]}],
        ),
        policy(
            "back",
            {"app": "web"},
            ingress=[{"from": [{"podSelector": {"matchLabels": {"tier": "back", "app": "client"}}}]}],
        ),
        allowed=[*ways("red/near red/far", "red/web1"), *ways("red/far", "red/web2")],
        denied=[*ways("red/near", "red/web2"), *ways("blue/near blue/far", WEBS), *ways("red/web2", "red/web1")],
    )


def test_what_egress_forbids_is_forbidden_though_ingress_allows_it_and_the_other_way_round(lab: Lab) -> None:
    hold_under(
        lab,
        policy(
            "out",
            {"app": "client"},
            policyTypes=["Egress"],
            egress=[{"to": [{"podSelector": {"matchLabels": {"tier": "front"}}}]}],
        ),
        policy("in", {"app": "web"}, ingress=[{"from": [{"podSelector": {"matchLabels": {"tier": "back"}}}]}]),
        allowed=[*ways("red/far", "red/web1"), *ways("red/near", "red/near"), *ways("red/far", "red/near")],
        # By egress, by ingress, by both.
        denied=[*ways("red/far", "red/web2"), *ways("red/near", "red/web1"), *ways("red/near", "red/web2")],
    )


# Peers ----------------------------------------------------------------------------------------------------------------


def open_to(*peers: dict[str, object]) -> list[dict[str, object]]:
    """Policies by which the web servers are open to these peers alone, and clients of red may send there alone."""
    return [
        policy("in", {"app": "web"}, ingress=[{"from": list(peers)}]),
        policy("out", {"app": "client"}, policyTypes=["Egress"], egress=[{"to": list(peers)}]),
    ]


def test_a_pod_selector_means_pods_of_the_policy_s_namespace(lab: Lab) -> None:
    hold_under(
        lab,
        *open_to({"podSelector": {"matchLabels": {"tier": "front"}}}),
        allowed=[*ways("red/near", "red/web1"), *ways("red/web1", "red/web2"), *ways("red/far", "red/near")],
        denied=[*ways("red/far blue/near", WEBS), *ways("red/near", "red/web2 red/far blue/near")],
    )


def test_a_namespace_selector_means_all_pods_of_the_namespaces(lab: Lab) -> None:
    hold_under(
        lab,
        *open_to({"namespaceSelector": {"matchLabels": {"team": "b"}}}),
        allowed=[*ways("blue/near blue/far", WEBS), *ways("red/near red/far", "blue/near blue/far")],
        denied=[*ways("red/near red/far", WEBS), *ways("red/web1", "red/web2"), *ways("red/near", "red/far")],
    )


def test_both_selectors_of_one_peer_must_agree_and_two_peers_are_two_chances(lab: Lab) -> None:
    front, blue = {"matchLabels": {"tier": "front"}}, {"matchLabels": {"kubernetes.io/metadata.name": "blue"}}
    hold_under(
        lab,
        policy(
            "both",
            {"tier": "front", "app": "web"},
            ingress=[{"from": [{"podSelector": front, "namespaceSelector": blue}]}],
        ),
        policy(
            "either",
            {"tier": "back", "app": "web"},
            ingress=[{"from": [{"podSelector": front}, {"namespaceSelector": blue}]}],
        ),
        allowed=[*ways("blue/near", WEBS), *ways("blue/far red/near red/web1", "red/web2")],
        denied=[*ways("blue/far red/near red/far", "red/web1"), *ways("red/far", "red/web2")],
    )


def test_empty_selectors_mean_all_pods_and_an_empty_list_means_everybody(lab: Lab) -> None:
    hold_under(
        lab,
        policy("own", {"tier": "front", "app": "web"}, ingress=[{"from": [{"podSelector": {}}]}]),
        policy("all", {"tier": "back", "app": "web"}, ingress=[{"from": [{"namespaceSelector": {}}]}]),
        policy("everybody", {"app": "client"}, ingress=[{"from": []}]),
        allowed=[
            *ways("red/near red/far red/web2", "red/web1"),
            *ways(CLIENTS, "red/web2"),
            *ways("node-2", "red/near"),
        ],
        # Nodes are no pods.
        denied=[*ways("blue/near blue/far node-3", "red/web1"), *ways("node-1 node-3", "red/web2")],
    )


#: Expressions about labels, and which clients they select.
EXPRESSIONS: list[tuple[dict[str, object], str]] = [
    ({"key": "tier", "operator": "In", "values": ["front", "middle"]}, "red/near blue/near"),
    ({"key": "tier", "operator": "NotIn", "values": ["front"]}, "red/far blue/far"),
    ({"key": "app", "operator": "Exists"}, CLIENTS),
    ({"key": "app", "operator": "DoesNotExist"}, ""),
    ({"key": "version", "operator": "DoesNotExist"}, CLIENTS),
    ({"key": "version", "operator": "NotIn", "values": ["1"]}, CLIENTS),
]


def test_expressions_select_by_values_and_by_whether_there_is_one(lab: Lab) -> None:
    """Each pod is open to those whom another expression selects."""
    policies, allowed, denied = [], [], []
    for pod, (expression, clients) in zip(PODS.split(), EXPRESSIONS, strict=True):
        namespace, name = pod.split("/")
        subject = {"matchExpressions": [{"key": "who", "operator": "In", "values": [name, "nobody"]}]}
        peer = {"podSelector": {"matchExpressions": [expression]}, "namespaceSelector": {}}
        policies.append(policy(name, subject, namespace, ingress=[{"from": [peer]}]))
        allowed += ways(clients, pod)
        denied += ways(" ".join(each for each in CLIENTS.split() if each not in clients.split()), pod)
    hold_under(lab, *policies, allowed=allowed, denied=denied)


def test_namespaces_are_selected_by_expressions_too(lab: Lab) -> None:
    peer = {"namespaceSelector": {"matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["prod"]}]}}
    hold_under(
        lab,
        policy("in", {"app": "web"}, ingress=[{"from": [peer]}]),
        allowed=ways("blue/near blue/far", WEBS),
        denied=ways("red/near red/far", WEBS),
    )


def test_labels_of_a_namespace_that_change_change_who_is_meant(lab: Lab) -> None:
    path = lab.layout.manifests / "namespace..blue.yaml"
    good = path.read_text()
    peer = {"namespaceSelector": {"matchExpressions": [{"key": "env", "operator": "DoesNotExist"}]}}
    with policed(lab, policy("in", {"app": "web"}, ingress=[{"from": [peer]}])):
        hold(lab, denied=ways(CLIENTS, WEBS))
        try:
            put(path, good.replace("env: dev", "other: dev"))
            lab.wait_for_manifests()
            forget_flows(lab)
            hold(lab, allowed=ways("blue/near blue/far", WEBS), denied=ways("red/far", WEBS))
        finally:
            put(path, good)
            lab.wait_for_manifests()
            forget_flows(lab)
        hold(lab, denied=ways(CLIENTS, WEBS))


# Addresses ------------------------------------------------------------------------------------------------------------


def blocks(*networks: str, less: tuple[str, ...] = ()) -> list[dict[str, object]]:
    """Peers by their addresses."""
    found: list[dict[str, object]] = []
    for each in networks:
        excepted = [other for other in less if (":" in other) == (":" in each)]
        found.append({"ipBlock": {"cidr": each, **({"except": excepted} if excepted else {})}})
    return found


def alone(text: str) -> str:
    """The network of one address."""
    return f"{text}/{128 if ':' in text else 32}"


def test_an_ip_block_covers_pods_too_less_what_it_excepts(lab: Lab) -> None:
    third = [str(each) for each in pod_cidrs(lab.settings, 2)]
    far = addresses(lab, "far", "red")
    hold_under(
        lab,
        policy("in", {"app": "web"}, ingress=[{"from": blocks(*third, less=tuple(map(alone, far)))}]),
        allowed=[*ways("blue/far", WEBS), *ways("node-3", WEBS)],
        denied=ways("red/far red/near blue/near node-2", "red/web1"),
    )


def test_an_ip_block_of_one_family_says_nothing_of_the_other(lab: Lab) -> None:
    hold_under(
        lab,
        policy("in", {"app": "web"}, ingress=[{"from": blocks("0.0.0.0/0")}]),
        allowed=ways(CLIENTS, WEBS, versions=(4,)),
        denied=ways(CLIENTS, WEBS, versions=(6,)),
    )


@pytest.fixture
def outside(lab: Lab) -> Iterator[str]:
    """Somebody outside of the cluster who serves, and knows the way to the pods of each node."""
    routes = [
        (str(cidr), address)
        for index, node in enumerate(lab.nodes)
        for cidr, address in zip(pod_cidrs(lab.settings, index), node_addresses(lab, node), strict=True)
    ]
    with serving_outside(lab, PORT):
        for cidr, address in routes:
            ip(lab.layout.outside, "route", "add", cidr, "via", address)
        yield "outside"
        for cidr, _ in routes:
            ip(lab.layout.outside, "route", "del", cidr)


def test_what_comes_from_outside_is_judged_by_its_address(lab: Lab, outside: str) -> None:
    hold(lab, allowed=ways(outside, "red/web1 red/web2 blue/far"))
    peers = blocks("172.30.0.0/24", "fd00:172:30::/64")
    hold_under(
        lab,
        policy("let-in", {"app": "web", "tier": "front"}, ingress=[{"from": peers}]),
        policy(
            "but-that",
            {"app": "web", "tier": "back"},
            ingress=[{"from": blocks("172.30.0.0/24", "fd00:172:30::/64", less=tuple(map(alone, OUTSIDE)))}],
        ),
        policy("pods", ingress=[{"from": [{"podSelector": {}}]}], namespace="blue"),
        allowed=ways(outside, "red/web1"),
        denied=ways(outside, "red/web2 blue/far"),
    )


def test_what_goes_outside_is_judged_by_where_it_goes(lab: Lab, outside: str) -> None:
    hold(lab, allowed=ways(PODS, "outside world"))
    hold_under(
        lab,
        policy(
            "out",
            {"tier": "front"},
            policyTypes=["Egress"],
            egress=[{"to": blocks("0.0.0.0/0", "::/0", less=tuple(map(alone, OUTSIDE)))}],
        ),
        policy("pods", {"tier": "back"}, policyTypes=["Egress"], egress=[{"to": [{"namespaceSelector": {}}]}]),
        allowed=[
            *ways("red/near red/web1", "world red/far"),
            *ways("red/near", "node-1 node-2", HOST_PORT),
            *ways("red/far", "blue/near red/web1"),
        ],
        denied=[
            *ways("red/near red/web1 red/far", "outside"),
            *ways("red/far red/web2", "world"),
            *ways("red/far", "node-1 node-3", HOST_PORT),
        ],
    )


def test_nodes_are_allowed_by_their_addresses_their_own_and_others(lab: Lab) -> None:
    first, third = node_addresses(lab, "node-1"), node_addresses(lab, "node-3")
    hold_under(
        lab,
        policy("out", {"app": "client"}, policyTypes=["Egress"], egress=[{"to": blocks(*map(alone, first))}]),
        policy(
            "own",
            {"app": "client"},
            "blue",
            policyTypes=["Egress"],
            egress=[{"to": blocks(*map(alone, third)), "ports": [{"port": HOST_PORT}]}],
        ),
        allowed=[
            *ways("red/near red/far", "node-1", HOST_PORT),
            *ways("blue/near blue/far", "node-3", HOST_PORT, ("tcp",)),
        ],
        denied=[
            *ways("red/near red/far", "node-2 node-3", HOST_PORT),
            *ways("blue/near blue/far", "node-1 node-2", HOST_PORT),
            *ways("blue/near blue/far", "node-3", HOST_PORT, ("udp",)),
        ],
    )


# Ports ----------------------------------------------------------------------------------------------------------------


def test_ports_are_of_one_protocol_by_number_and_by_the_name_that_each_pod_gives(lab: Lab) -> None:
    tcp, udp = ("tcp",), ("udp",)
    ports = [{"port": "http"}, {"port": "dns", "protocol": "UDP"}, {"port": 8082, "protocol": "UDP"}, {"port": 8083}]
    hold_under(
        lab,
        policy("in", {"app": "web"}, ingress=[{"ports": ports}]),
        allowed=[
            *ways("red/near blue/far", "red/web1", 8080),
            *ways("red/near blue/far", "red/web2", 8081),
            *ways("red/near blue/far", WEBS, 8082, udp),
            *ways("red/near blue/far", WEBS, 8083, tcp),
        ],
        denied=[
            *ways("red/near blue/far", "red/web1", 8081),
            *ways("red/near blue/far", "red/web2", 8080),
            *ways("red/near blue/far", WEBS, 8082, tcp),
            *ways("red/near blue/far", WEBS, 8083, udp),
        ],
    )


def test_names_of_ports_in_egress_are_the_receiver_s(lab: Lab) -> None:
    to_pods = [{"namespaceSelector": {}}]
    hold_under(
        lab,
        policy("out", {"app": "client"}, policyTypes=["Egress"], egress=[{"to": to_pods, "ports": [{"port": "http"}]}]),
        allowed=[
            *ways("red/near red/far", "red/web1", 8080, ("tcp",)),
            *ways("red/near red/far", "red/web2", 8081, ("tcp",)),
        ],
        denied=[
            *ways("red/near red/far", "red/web1", 8081),
            *ways("red/near red/far", "red/web2", 8080),
            # It has no port of that name; and the name is one of TCP.
            *ways("red/near", "blue/far", 8080),
            *ways("red/far", "red/web1", 8080, ("udp",)),
        ],
    )


@pytest.mark.parametrize(
    "spans", [[(8081, 8082), (8080, 8081)], [(8082, 8082), (8083, 65535)], [(1, 65535), (1, 8080)]]
)
def test_a_range_of_ports_ends_where_it_says(lab: Lab, spans: list[tuple[int, int]]) -> None:
    """One for each web server, and both of them for what a client may send."""
    policies, allowed, denied, every = [], [], [], []
    for pod, (first, last) in zip(WEBS.split(), spans, strict=True):
        ports = [{"protocol": kind, "port": first, "endPort": last} for kind in ("TCP", "UDP")]
        policies.append(policy(pod[4:], {"who": pod[4:]}, ingress=[{"ports": ports}]))
        every.append(
            {"to": [{"podSelector": {"matchLabels": {"who": pod[4:]}}, "namespaceSelector": {}}], "ports": ports}
        )
        inside = [port for port in (8080, 8081, 8082, 8083) if first <= port <= last]
        allowed += ways("red/near blue/far", pod, inside)
        denied += ways("red/near blue/far", pod, [port for port in (8080, 8081, 8082, 8083) if port not in inside])
    # What comes to the pods is judged for the one, what the client sends for the other as well.
    policies.append(policy("out", {"who": "far"}, "blue", policyTypes=["Egress"], egress=every))
    hold_under(lab, *policies, allowed=allowed, denied=denied)


def test_peers_and_ports_of_a_rule_belong_together(lab: Lab) -> None:
    first = {"from": [{"podSelector": {"matchLabels": {"tier": "front"}}}], "ports": [{"port": 8080}, {"port": 8082}]}
    second = {
        "from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}],
        "ports": [{"port": 8081}, {"port": 8083}],
    }
    hold_under(
        lab,
        policy("in", {"app": "web"}, ingress=[first, second]),
        allowed=[
            *ways("red/near", WEBS, (8080, 8082), ("tcp",)),
            *ways("blue/near blue/far", WEBS, (8081, 8083), ("tcp",)),
        ],
        denied=[
            *ways("red/near", WEBS, (8081, 8083)),
            *ways("blue/near blue/far", WEBS, (8080, 8082)),
            *ways("red/far", WEBS, (8080, 8081)),
        ],
    )


def test_rules_of_many_alternatives_hold_as_those_of_few(lab: Lab) -> None:
    """Five ports and many networks: more combinations than are written out one by one."""
    ports = [{"port": port} for port in (8080, 8082, 9001, 9003, 9005)]
    networks = [f"198.18.{n}.0/24" for n in range(6)] + [f"2001:db8:{n:x}::/48" for n in range(16, 22)]
    near, far = addresses(lab, "near", "red"), addresses(lab, "far", "blue")
    both = blocks(*networks, *map(alone, near), *map(alone, far))
    selected = {"podSelector": {"matchLabels": {"app": "web"}}}
    hold_under(
        lab,
        policy("in", ingress=[{"from": [*both, selected], "ports": ports}]),
        allowed=[
            *ways("red/near blue/far", WEBS, (8080, 8082), ("tcp",)),
            *ways("red/web1", "red/web2", 8080, ("tcp",)),
        ],
        denied=[
            *ways("red/near blue/far", WEBS, (8081, 8083)),
            *ways("red/near blue/far", WEBS, 8080, ("udp",)),
            *ways("blue/near red/far", WEBS, 8080),
        ],
    )
