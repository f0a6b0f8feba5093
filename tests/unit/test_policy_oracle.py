"""The policy oracle on NetworkPolicy, selectors and nodes, against cases worked out by hand.

Each case shows a rule of the API reference or of the concept page, or a choice that the oracle's docstring lists.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import policy_oracle
import pytest
import yaml
from policy_oracle import Decision, Party, Verdict, World, selects, verdict
from policy_transcripts import OUT, OUT6, ask, says, world

# NetworkPolicy: isolation -------------------------------------------------------------------------------------------


def test_without_policies_everyone_reaches_everyone() -> None:
    """If no policies exist, all ingress and egress traffic is allowed to and from pods."""
    says(
        world(),
        f"""
        shop/web > shop/db TCP/5432 : allowed
        bank/web > shop/db UDP/1 : allowed
        shop/web > {OUT} SCTP/65535 : allowed
        {OUT6} > shop/web ICMP : allowed
        n2 > shop/web TCP/80 : allowed
        shop/web > n2 TCP/10250 : allowed
        """,
    )


DENY_INGRESS = """NetworkPolicy shop/deny
podSelector: {}
policyTypes: [Ingress]"""
DENY_EGRESS = """NetworkPolicy shop/deny
podSelector: {}
policyTypes: [Egress]"""


def test_default_deny_ingress_isolates_the_namespaces_pods_for_ingress_alone() -> None:
    """An isolated pod allows what a policy lists, here nothing; the other direction and other namespaces are free."""
    says(
        world(DENY_INGRESS),
        f"""
        bank/web > shop/web TCP/80 : ingress
        shop/db > shop/web TCP/80 : ingress
        shop/db > shop/web ICMP : ingress
        {OUT} > shop/db TCP/80 : ingress
        shop/web > bank/web TCP/80 : allowed
        shop/web > {OUT} TCP/80 : allowed
        """,
    )


def test_default_deny_egress_isolates_for_egress_alone() -> None:
    """Both ends must allow: what may not leave the source is refused although the destination takes all."""
    says(
        world(DENY_EGRESS),
        f"""
        shop/web > bank/web TCP/80 : egress
        shop/web > shop/db TCP/80 : egress
        shop/web > {OUT6} UDP/53 : egress
        bank/web > shop/web TCP/80 : allowed
        """,
    )


def test_one_empty_rule_allows_all() -> None:
    """A rule without peers and ports matches all traffic: `ingress: [{}]`; no rule at all matches none."""
    says(world("NetworkPolicy shop/all\npodSelector: {}\ningress: [{}]"), f"{OUT} > shop/web SCTP/1 : allowed")
    says(world("NetworkPolicy shop/none\npodSelector: {}\ningress: []"), f"{OUT} > shop/web SCTP/1 : ingress")
    says(
        world("NetworkPolicy shop/all\npodSelector: {}\ningress: [{from: [], ports: []}]"),
        "bank/web > shop/web ICMP : allowed",
    )


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ("podSelector: {}", True, False),
        ("podSelector: {}\npolicyTypes: []", True, False),
        ("podSelector: {}\negress: []", True, False),
        ("podSelector: {}\negress: [{to: [{ipBlock: {cidr: 203.0.113.0/24}}]}]", True, True),
        ("podSelector: {}\npolicyTypes: [Egress]", False, True),
        ("podSelector: {}\npolicyTypes: [Egress]\ningress: []", False, True),
        ("podSelector: {}\npolicyTypes: [Ingress]\negress: [{to: [{ipBlock: {cidr: 203.0.113.0/24}}]}]", True, False),
        ("podSelector: {}\npolicyTypes: [Ingress, Egress]", True, True),
        ("policyTypes: [Ingress]", True, False),
        ("podSelector:\npolicyTypes: [Ingress]", True, False),
    ],
)
def test_a_policy_isolates_for_the_types_it_names_else_for_ingress_and_for_egress_if_it_has_such_rules(
    spec: str, ingress: bool, egress: bool
) -> None:
    there = world(f"NetworkPolicy shop/some\n{spec}")
    says(there, f"{OUT} > shop/web TCP/80 : {'ingress' if ingress else 'allowed'}")
    says(there, f"shop/web > {OUT} TCP/80 : {'egress' if egress else 'allowed'}")


def test_rules_of_a_direction_that_the_types_leave_out_mean_nothing() -> None:
    """Only the types that are named have effect: rules of the other don't isolate, and don't open either."""
    open_ingress = "NetworkPolicy shop/open\npodSelector: {}\npolicyTypes: [Egress]\ningress: [{}]\negress: [{}]"
    says(world(DENY_INGRESS, open_ingress), "bank/web > shop/web TCP/80 : ingress")


def test_policies_add_up() -> None:
    """What policies allow is the union: order is of no meaning, and one can't take away what another gives."""
    front = """NetworkPolicy shop/front
podSelector: {matchLabels: {app: db}}
ingress: [{from: [{podSelector: {matchLabels: {tier: front}}}], ports: [{port: 5432}]}]"""
    watched = """NetworkPolicy shop/watched
podSelector: {}
ingress: [{from: [{namespaceSelector: {matchLabels: {team: ops}}}]}]"""
    lines = """
        shop/web > shop/db TCP/5432 : allowed
        shop/web > shop/db TCP/5433 : ingress
        watch/prom > shop/db TCP/5433 : allowed
        watch/prom > shop/web TCP/80 : allowed
        shop/db > shop/web TCP/80 : ingress
        bank/web > shop/db TCP/5432 : ingress
        """
    says(world(DENY_INGRESS, front, watched), lines)
    says(world(watched, front, DENY_INGRESS), lines)


def test_a_policy_selects_pods_of_its_own_namespace_only() -> None:
    says(
        world("NetworkPolicy shop/web\npodSelector: {matchLabels: {app: web}}"),
        """
        watch/prom > shop/web TCP/80 : ingress
        watch/prom > shop/db TCP/80 : allowed
        watch/prom > bank/web TCP/80 : allowed
        """,
    )


# NetworkPolicy: peers -----------------------------------------------------------------------------------------------


def ingress_to_db(peers: str, ports: str = "[]") -> World:
    rule = f"{{from: {peers}, ports: {ports}}}"
    return world(f"NetworkPolicy shop/db\npodSelector: {{matchLabels: {{app: db}}}}\ningress: [{rule}]")


def test_a_pod_selector_alone_selects_in_the_policys_namespace() -> None:
    says(
        ingress_to_db("[{podSelector: {matchLabels: {app: web}}}]"),
        """
        shop/web > shop/db TCP/5432 : allowed
        bank/web > shop/db TCP/5432 : ingress
        """,
    )


def test_a_namespace_selector_alone_selects_all_pods_there() -> None:
    says(
        ingress_to_db("[{namespaceSelector: {matchLabels: {env: prod}}}]"),
        """
        shop/web > shop/db TCP/5432 : allowed
        bank/web > shop/db TCP/5432 : allowed
        watch/prom > shop/db TCP/5432 : ingress
        kube-system/dns > shop/db TCP/5432 : ingress
        """,
    )


def test_both_selectors_in_one_peer_must_match_and_in_two_peers_either() -> None:
    """One item with both is pods with the label in namespaces with the label; two items are two ways in."""
    says(
        ingress_to_db("[{namespaceSelector: {matchLabels: {team: finance}}, podSelector: {matchLabels: {app: web}}}]"),
        """
        bank/web > shop/db TCP/5432 : allowed
        shop/web > shop/db TCP/5432 : ingress
        """,
    )
    says(
        ingress_to_db("[{namespaceSelector: {matchLabels: {team: ops}}}, {podSelector: {matchLabels: {app: web}}}]"),
        """
        bank/web > shop/db TCP/5432 : ingress
        shop/web > shop/db TCP/5432 : allowed
        watch/prom > shop/db TCP/5432 : allowed
        """,
    )
    says(
        ingress_to_db("[{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]"),
        """
        bank/web > shop/db TCP/5432 : allowed
        shop/web > shop/db TCP/5432 : allowed
        watch/prom > shop/db TCP/5432 : ingress
        kube-system/dns > shop/db TCP/5432 : ingress
        """,
    )


def test_empty_selectors_select_all_pods_and_no_one_else() -> None:
    """Present but empty selects all: of the own namespace, of all namespaces. Nodes and the outside are no pods."""
    says(
        ingress_to_db("[{podSelector: {}}]"),
        f"""
        shop/web > shop/db TCP/5432 : allowed
        bank/web > shop/db TCP/5432 : ingress
        {OUT} > shop/db TCP/5432 : ingress
        n1 > shop/db TCP/5432 : ingress
        """,
    )
    says(
        ingress_to_db("[{namespaceSelector: {}}]"),
        f"""
        bank/web > shop/db TCP/5432 : allowed
        kube-system/dns > shop/db ICMP : allowed
        {OUT} > shop/db TCP/5432 : ingress
        n1 > shop/db TCP/5432 : ingress
        """,
    )


def test_namespaces_are_found_by_name_by_the_label_that_each_has() -> None:
    """The control plane sets kubernetes.io/metadata.name on all namespaces; the files above don't say so."""
    says(
        ingress_to_db("[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: bank}}}]"),
        """
        bank/web > shop/db TCP/5432 : allowed
        shop/web > shop/db TCP/5432 : ingress
        """,
    )


def test_a_block_matches_whoever_has_the_address() -> None:
    """ipBlock is about addresses: pods and nodes have some too. An address of the other version is in no block."""
    there = ingress_to_db("[{ipBlock: {cidr: 10.244.1.0/24}}, {ipBlock: {cidr: 172.30.0.1/32}}]")
    says(
        there,
        f"""
        shop/web > shop/db TCP/5432 IPv4 : allowed
        10.244.1.2 > shop/db TCP/5432 : allowed
        watch/prom > shop/db TCP/5432 IPv4 : allowed
        shop/web > shop/db TCP/5432 IPv6 : ingress
        bank/web > shop/db TCP/5432 IPv4 : ingress
        n1 > shop/db TCP/5432 IPv4 : allowed
        n1 > shop/db TCP/5432 IPv6 : ingress
        203.0.113.1 > shop/db TCP/5432 : ingress
        {OUT} > shop/db TCP/5432 : ingress
        """,
    )


def test_exceptions_are_left_out_of_their_block_only() -> None:
    """`except` lists what the block doesn't include; another peer or policy may still allow it."""
    block = "{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/26, 192.0.2.7/32]}}"
    lines = """
        192.0.2.1 > shop/db TCP/5432 : allowed
        192.0.2.127 > shop/db TCP/5432 : allowed
        192.0.2.128 > shop/db TCP/5432 : ingress
        192.0.2.191 > shop/db TCP/5432 : ingress
        192.0.2.192 > shop/db TCP/5432 : allowed
        192.0.2.7 > shop/db TCP/5432 : {seven}
        192.0.3.1 > shop/db TCP/5432 : ingress
        """
    says(ingress_to_db(f"[{block}]"), lines.format(seven="ingress"))
    says(ingress_to_db(f"[{block}, {{ipBlock: {{cidr: 192.0.2.7/32}}}}]"), lines.format(seven="allowed"))


def test_exceptions_hold_for_pods_too_but_not_for_those_that_a_selector_finds() -> None:
    says(
        ingress_to_db("[{ipBlock: {cidr: '::/0', except: ['fd00:10:244:1::/64']}}]"),
        f"""
        bank/web > shop/db TCP/5432 IPv6 : allowed
        shop/web > shop/db TCP/5432 IPv6 : ingress
        bank/web > shop/db TCP/5432 IPv4 : ingress
        {OUT6} > shop/db TCP/5432 : allowed
        """,
    )
    says(
        ingress_to_db("[{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.0.0/16]}}, {podSelector: {}}]"),
        """
        shop/web > shop/db TCP/5432 : allowed
        bank/web > shop/db TCP/5432 : ingress
        """,
    )


def test_bits_beyond_the_prefix_of_a_block_mean_nothing() -> None:
    says(ingress_to_db("[{ipBlock: {cidr: 192.0.2.77/24}}]"), f"{OUT} > shop/db TCP/1 : allowed")


def test_the_documented_example() -> None:
    """The concept page's policy: block without a part of it, a namespace, pods beside, one port in and one out."""
    there = world(
        """NetworkPolicy shop/documented
podSelector: {matchLabels: {app: db}}
policyTypes: [Ingress, Egress]
ingress:
  - from:
      - ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}
      - namespaceSelector: {matchLabels: {team: ops}}
      - podSelector: {matchLabels: {tier: front}}
    ports: [{protocol: TCP, port: 6379}]
egress:
  - to: [{ipBlock: {cidr: 10.0.0.0/24}}]
    ports: [{protocol: TCP, port: 5978}]"""
    )
    says(
        there,
        """
        172.17.0.1 > shop/db TCP/6379 : allowed
        172.17.1.1 > shop/db TCP/6379 : ingress
        172.17.2.0 > shop/db TCP/6379 : allowed
        172.17.0.1 > shop/db UDP/6379 : ingress
        172.17.0.1 > shop/db TCP/6380 : ingress
        watch/prom > shop/db TCP/6379 : allowed
        shop/web > shop/db TCP/6379 : allowed
        bank/web > shop/db TCP/6379 : ingress
        shop/db > 10.0.0.9 TCP/5978 : allowed
        shop/db > 10.0.0.9 TCP/5979 : egress
        shop/db > 10.0.1.9 TCP/5978 : egress
        shop/db > shop/web TCP/5978 : egress
        shop/web > shop/web TCP/5978 : allowed
        """,
    )


# NetworkPolicy: ports -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ports", "open_", "closed"),
    [
        ("[]", ["TCP/1", "UDP/1", "SCTP/1", "ICMP"], []),
        ("[{port: 5432}]", ["TCP/5432"], ["TCP/5431", "TCP/5433", "UDP/5432", "SCTP/5432", "ICMP"]),
        ("[{protocol: UDP, port: 53}]", ["UDP/53"], ["TCP/53", "ICMP"]),
        ("[{protocol: SCTP}]", ["SCTP/1", "SCTP/65535"], ["TCP/1", "UDP/1", "ICMP"]),
        ("[{}]", ["TCP/1", "TCP/65535"], ["UDP/1", "SCTP/1", "ICMP"]),
        ("[{port: 80, endPort: 90}]", ["TCP/80", "TCP/85", "TCP/90"], ["TCP/79", "TCP/91", "UDP/85"]),
        ("[{port: 80, endPort: 80}]", ["TCP/80"], ["TCP/79", "TCP/81"]),
        ("[{protocol: UDP, port: 1, endPort: 65535}]", ["UDP/1", "UDP/65535"], ["TCP/1", "ICMP"]),
        ("[{port: 80}, {protocol: UDP, port: 53}]", ["TCP/80", "UDP/53"], ["UDP/80", "TCP/53"]),
    ],
)
def test_ports_by_number_range_and_protocol(ports: str, open_: list[str], closed: list[str]) -> None:
    """Protocol defaults to TCP; no port means all of the protocol; endPort is included; no ports means everything."""
    there = ingress_to_db("[{podSelector: {}}]", ports)
    for service in open_:
        says(there, f"shop/web > shop/db {service} : allowed")
    for service in closed:
        says(there, f"shop/web > shop/db {service} : ingress")


def test_peers_and_ports_of_a_rule_must_both_match_and_rules_are_alternatives() -> None:
    there = world(
        """NetworkPolicy shop/db
podSelector: {matchLabels: {app: db}}
ingress:
  - {from: [{podSelector: {}}], ports: [{port: 1}]}
  - {from: [{namespaceSelector: {matchLabels: {team: finance}}}], ports: [{port: 2}]}
  - {ports: [{port: 3}]}"""
    )
    says(
        there,
        f"""
        shop/web > shop/db TCP/1 : allowed
        shop/web > shop/db TCP/2 : ingress
        bank/web > shop/db TCP/1 : ingress
        bank/web > shop/db TCP/2 : allowed
        {OUT} > shop/db TCP/3 : allowed
        n1 > shop/db TCP/3 : allowed
        """,
    )


def test_a_name_of_a_port_is_each_destinations_own_port() -> None:
    """Named ports are the pod's: metrics is 9100 on web and 9187 on db, whether they are subjects or peers."""
    lines = """
        watch/prom > shop/web TCP/9100 : allowed
        watch/prom > shop/db TCP/9187 : allowed
        watch/prom > shop/web TCP/9187 : {0}
        watch/prom > shop/db TCP/9100 : {0}
        watch/prom > bank/web TCP/9100 : {1}
        """
    says(
        world("NetworkPolicy shop/metrics\npodSelector: {}\ningress: [{ports: [{port: metrics}]}]"),
        lines.format("ingress", "allowed"),
    )
    says(
        world(
            "NetworkPolicy watch/metrics\npodSelector: {}\npolicyTypes: [Egress]\negress: [{ports: [{port: metrics}]}]"
        ),
        lines.format("egress", "egress"),
    )


def test_a_named_port_needs_the_rules_protocol_too() -> None:
    """`probe` is a UDP port of web: an entry that says nothing means TCP, and there is no such TCP port."""
    says(
        world("NetworkPolicy shop/web\npodSelector: {}\ningress: [{ports: [{port: probe}]}]"),
        """
        bank/web > shop/web UDP/9000 : ingress
        bank/web > shop/web TCP/9000 : ingress
        """,
    )
    says(
        world("NetworkPolicy shop/web\npodSelector: {}\ningress: [{ports: [{port: probe, protocol: UDP}]}]"),
        """
        bank/web > shop/web UDP/9000 : allowed
        bank/web > shop/web TCP/9000 : ingress
        bank/web > shop/web ICMP : ingress
        """,
    )


def test_a_named_port_of_a_pod_that_a_block_finds_is_that_pods() -> None:
    """Our choice: who the destination is decides what the name means, not by which peer the rule found it."""
    egress = "policyTypes: [Egress]\negress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: http}]}]"
    says(
        world(f"NetworkPolicy watch/http\npodSelector: {{}}\n{egress}"),
        f"""
        watch/prom > bank/web TCP/80 IPv4 : allowed
        watch/prom > shop/web TCP/8080 IPv4 : allowed
        watch/prom > shop/web TCP/80 IPv4 : egress
        watch/prom > {OUT} TCP/80 : egress
        watch/prom > n2 TCP/8080 IPv4 : egress
        """,
    )


def test_containers_may_give_ports_of_two_protocols_one_name() -> None:
    """Names are unique within a container, not within a pod: all the ports of that name and protocol are meant."""
    pod = """
kind: Pod
apiVersion: v1
metadata: {name: names, namespace: bank}
spec:
  nodeName: n1
  containers:
    - {name: a, ports: [{name: dns, containerPort: 53, protocol: UDP}]}
    - {name: b, ports: [{name: dns, containerPort: 53}]}
    - {name: c, ports: [{name: dns, containerPort: 5353}]}
status: {podIP: 10.244.1.9}
"""
    rule = "NetworkPolicy bank/names\npodSelector: {}\ningress: [{ports: [{port: dns}]}]"
    says(
        world(rule, extra=pod),
        """
        shop/web > bank/names TCP/53 IPv4 : allowed
        shop/web > bank/names TCP/5353 IPv4 : allowed
        shop/web > bank/names UDP/53 IPv4 : ingress
        """,
    )


def test_ports_of_sidecars_have_names_as_those_of_containers_have() -> None:
    """A container that is started first and restarted always runs beside the others; one that ends first does not."""
    pod = """
kind: Pod
apiVersion: v1
metadata: {name: mesh, namespace: bank}
spec:
  nodeName: n1
  initContainers:
    - {name: proxy, restartPolicy: Always, ports: [{name: mesh, containerPort: 15001}]}
    - {name: setup, ports: [{name: setup, containerPort: 7}]}
  containers: [{name: main}]
status: {podIP: 10.244.1.9}
"""
    rule = "NetworkPolicy bank/mesh\npodSelector: {}\ningress: [{ports: [{port: mesh}, {port: setup}]}]"
    says(
        world(rule, extra=pod),
        """
        shop/web > bank/mesh TCP/15001 IPv4 : allowed
        shop/web > bank/mesh TCP/7 IPv4 : ingress
        """,
    )


# Selectors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ("{}", "abc"),
        ("{matchLabels: {}, matchExpressions: []}", "abc"),
        ("{matchLabels: {app: web}}", "a"),
        ("{matchLabels: {app: web, tier: back}}", ""),
        ("{matchLabels: {tier: }}", "b"),
        ("{matchExpressions: [{key: app, operator: In, values: [web, db]}]}", "ab"),
        ("{matchExpressions: [{key: app, operator: NotIn, values: [web]}]}", "bc"),
        ("{matchExpressions: [{key: app, operator: Exists}]}", "ab"),
        ("{matchExpressions: [{key: app, operator: DoesNotExist}]}", "c"),
        ("{matchExpressions: [{key: tier, operator: In, values: ['']}]}", "b"),
        ("{matchLabels: {app: web}, matchExpressions: [{key: tier, operator: NotIn, values: [front]}]}", ""),
        ("{matchExpressions: [{key: app, operator: Exists}, {key: tier, operator: NotIn, values: [front]}]}", "b"),
    ],
)
def test_selectors_require_all_that_they_say(selector: str, chosen: str) -> None:
    """Requirements are ANDed. NotIn selects what has no such label, too. A label with an empty value is a label."""
    labels = {"a": {"app": "web", "tier": "front"}, "b": {"app": "db", "tier": ""}, "c": {}}
    assert "".join(each for each in labels if selects(yaml.safe_load(selector), labels[each])) == chosen


def test_no_selector_requires_nothing() -> None:
    assert selects(None, {})


# Nodes, pods in the host's network, who has an address ----------------------------------------------------------------


def test_its_own_node_always_reaches_a_pod_and_other_nodes_are_addresses() -> None:
    """Allowed into an isolated pod are what rules allow and what comes from the pod's node."""
    says(
        world(DENY_INGRESS),
        """
        n1 > shop/web TCP/8080 : allowed
        n2 > shop/web TCP/8080 : ingress
        n2 > shop/db ICMP : allowed
        172.30.0.1 > shop/web TCP/8080 : allowed
        203.0.113.1 > shop/web TCP/8080 : allowed
        203.0.113.1 > shop/db TCP/8080 : ingress
        """,
    )


def test_a_pods_way_to_its_own_node_is_judged() -> None:
    """The reference exempts what comes from the node alone; a policy must be able to keep pods off the kubelet."""
    says(
        world(DENY_EGRESS),
        """
        shop/web > n1 TCP/10250 : egress
        shop/web > n2 TCP/10250 : egress
        """,
    )


def test_a_pod_in_the_hosts_network_is_its_node() -> None:
    """No selector finds it, as subject or as peer, and its node's address is its own."""
    says(
        world(DENY_INGRESS, DENY_EGRESS.replace("shop/", "bank/")),
        f"""
        {OUT} > shop/agent TCP/8080 : allowed
        shop/agent > {OUT} TCP/80 : allowed
        shop/agent > shop/db TCP/5432 : allowed
        shop/agent > shop/web TCP/8080 : ingress
        bank/web > shop/agent TCP/8080 : egress
        """,
    )
    says(
        ingress_to_db("[{podSelector: {matchLabels: {app: web}}}, {namespaceSelector: {}}]"),
        "shop/agent > shop/db TCP/5432 : allowed",  # its own node, whatever the rules
    )
    web = "NetworkPolicy shop/web\npodSelector: {{matchLabels: {{app: web}}}}\ningress: [{{from: [{}]}}]"
    says(world(web.format("{namespaceSelector: {}}")), "shop/agent > shop/web TCP/8080 : ingress")
    says(
        world(web.format("{ipBlock: {cidr: 172.30.0.2/32}}")),
        """
        shop/agent > shop/web TCP/8080 IPv4 : allowed
        n2 > shop/web TCP/8080 IPv4 : allowed
        172.30.0.2 > shop/web TCP/8080 : allowed
        """,
    )


def test_names_of_ports_mean_nothing_in_the_hosts_network() -> None:
    egress = "NetworkPolicy watch/http\npodSelector: {}\npolicyTypes: [Egress]\negress: [{ports: [{port: http}]}]"
    says(
        world(egress),
        """
        watch/prom > shop/web TCP/8080 : allowed
        watch/prom > shop/agent TCP/8080 : egress
        """,
    )


def test_a_namespace_without_an_object_has_the_label_that_each_has() -> None:
    """Our choice, for sets of files that don't declare their namespaces."""
    pod = """
kind: Pod
apiVersion: v1
metadata: {name: lone, namespace: nowhere}
spec: {nodeName: n1, containers: [{name: lone}]}
status: {podIP: 10.244.1.9}
"""
    rule = "NetworkPolicy shop/db\npodSelector: {{}}\ningress: [{{from: [{{namespaceSelector: {}}}]}}]"
    line = "nowhere/lone > shop/db TCP/80 IPv4 : "
    says(world(rule.format("{}"), extra=pod), line + "allowed")
    says(world(rule.format("{matchLabels: {kubernetes.io/metadata.name: nowhere}}"), extra=pod), line + "allowed")
    says(
        world(rule.format("{matchExpressions: [{key: env, operator: NotIn, values: [dev]}]}"), extra=pod),
        line + "allowed",
    )
    says(world(rule.format("{matchExpressions: [{key: env, operator: Exists}]}"), extra=pod), line + "ingress")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_an_address_is_whoever_has_it_now(phase: str) -> None:
    """A pod that has ended keeps its status but not its address: another may have got it."""
    ended = f"""
kind: Pod
apiVersion: v1
metadata: {{name: job, namespace: bank, labels: {{app: job}}}}
spec: {{nodeName: n1, containers: [{{name: job}}]}}
status: {{phase: {phase}, podIPs: [{{ip: 10.244.1.2}}, {{ip: "fd00:10:244:1::2"}}, {{ip: 10.244.1.9}}]}}
"""
    deny = "NetworkPolicy bank/job\npodSelector: {matchLabels: {app: job}}\npolicyTypes: [Ingress, Egress]"
    there = world(deny, extra=ended)
    says(
        there,
        """
        10.244.1.2 > shop/db TCP/80 : allowed
        shop/db > 10.244.1.2 TCP/80 : allowed
        10.244.1.9 > shop/db TCP/80 : allowed
        shop/db > 10.244.1.9 TCP/80 : allowed
        """,
    )
    with pytest.raises(LookupError, match="pod bank/job has no IPv4 address"):
        verdict(there, Party(pod="bank/job"), Party(pod="shop/db"), "TCP", 80, 4)


def test_a_pod_that_reaches_itself_is_judged_as_any_two() -> None:
    """As a Service's traffic that comes back to its client is: on its original source, in both directions."""
    says(world(DENY_INGRESS), "shop/web > shop/web TCP/8080 : ingress")
    says(world(DENY_EGRESS), "shop/web > shop/web TCP/8080 : egress")
    says(ingress_to_db("[{podSelector: {matchLabels: {app: db}}}]"), "shop/db > shop/db TCP/5432 : allowed")


# The oracle itself ----------------------------------------------------------------------------------------------------


def test_the_oracle_imports_the_standard_library_alone() -> None:
    tree = ast.parse(Path(policy_oracle.__file__).read_text())
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert names and names <= sys.stdlib_module_names


def test_policies_of_another_api_are_slips() -> None:
    with pytest.raises(ValueError, match="NetworkPolicy of v1"):
        World([{"apiVersion": "v1", "kind": "NetworkPolicy", "metadata": {"name": "x"}}])
    with pytest.raises(ValueError, match="tcp"):
        verdict(world(), Party(pod="shop/web"), Party(pod="shop/db"), "tcp", 80, 4)


def test_a_verdict_names_what_decided_each_direction() -> None:
    there = world(DENY_INGRESS, "NetworkPolicy shop/go\npodSelector: {}\npolicyTypes: [Egress]\negress: [{}]")
    ((_, answer), _) = ask(there, "shop/web > shop/db TCP/80")
    assert answer.egress == Decision(True, "NetworkPolicy shop/go egress[0]")
    assert answer.ingress == Decision(False, "isolated by NetworkPolicy shop/deny")
    assert (answer.direction, answer.reason) == ("ingress", "isolated by NetworkPolicy shop/deny")
    ((_, answer), _) = ask(there, "n1 > n2 TCP/80")
    assert answer == Verdict(True, "", "default", None, None)
