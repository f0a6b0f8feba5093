"""The policy oracle on cluster-wide policies, against cases worked out by hand.

Each case shows a rule of the API's types, of its user stories and conformance cases, or a choice that the oracle's
docstring lists.
"""

from __future__ import annotations

import pytest
from policy_oracle import Decision, World
from policy_transcripts import OUT, OUT6, ask, says, world

DENY_EGRESS = "NetworkPolicy shop/deny\npodSelector: {}\npolicyTypes: [Egress]"
SALES_TO_BANK = """NetworkPolicy bank/web
podSelector: {}
ingress: [{from: [{namespaceSelector: {matchLabels: {team: sales}}}]}]"""
DENY_INGRESS = "NetworkPolicy shop/deny\npodSelector: {}\npolicyTypes: [Ingress]"


# The user stories ---------------------------------------------------------------------------------------------------


def cluster_policy(name: str, tier: str, priority: int, spec: str, subject: str = "{namespaces: {}}") -> str:
    return f"ClusterNetworkPolicy {name}\ntier: {tier}\npriority: {priority}\nsubject: {subject}\n{spec}"


BANK = "{namespaces: {matchLabels: {team: finance}}}"


def test_story_1_deny_into_a_namespace_whatever_its_owner_allows() -> None:
    """Admin rules can't be overridden. Sources are pods: the outside and nodes are not denied by `namespaces: {}`."""
    sensitive = cluster_policy("sensitive", "Admin", 10, "ingress: [{action: Deny, from: [{namespaces: {}}]}]", BANK)
    says(
        world(sensitive, "NetworkPolicy bank/open\npodSelector: {}\ningress: [{}]"),
        f"""
        shop/web > bank/web TCP/80 : ingress
        shop/web > bank/web ICMP : ingress
        bank/web > shop/web TCP/80 : allowed
        {OUT} > bank/web TCP/80 : allowed
        n1 > bank/web TCP/80 : allowed
        """,
    )


def test_story_2_monitoring_and_name_resolution_work_although_owners_deny() -> None:
    """Accept in the Admin tier is final for its direction, and for that alone: the other end has its own say."""
    always = cluster_policy(
        "always",
        "Admin",
        30,
        """ingress: [{action: Accept, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: watch}}}]}]
egress:
  - action: Accept
    to:
      - pods:
          namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
          podSelector: {matchLabels: {k8s-app: kube-dns}}""",
    )
    deny = "NetworkPolicy {}/deny\npodSelector: {{}}\npolicyTypes: [Ingress, Egress]"
    says(
        world(always, deny.format("shop")),
        """
        watch/prom > shop/web TCP/9100 : allowed
        shop/web > kube-system/dns UDP/53 : allowed
        bank/web > shop/web TCP/9100 : ingress
        shop/web > bank/web TCP/80 : egress
        """,
    )
    says(
        world(always, deny.format("shop"), deny.format("watch"), deny.format("kube-system")),
        """
        watch/prom > shop/web TCP/9100 : egress
        shop/web > kube-system/dns UDP/53 : ingress
        """,
    )


def test_story_3_delegated_traffic_skips_the_rest_of_the_tier() -> None:
    """Pass goes on to NetworkPolicy, which may refuse; where no NetworkPolicy selects, the traffic is allowed."""
    delegate = cluster_policy(
        "delegate",
        "Admin",
        20,
        """egress:
  - action: Pass
    to: [{pods: {namespaceSelector: {matchLabels: {team: finance}}, podSelector: {matchLabels: {app: web}}}}]
    protocols:
      - {tcp: {destinationPort: {number: 8080}}}
      - {destinationNamedPort: http}
      - {udp: {destinationPort: {number: 53}}}""",
    )
    deny = cluster_policy("deny", "Admin", 21, "egress: [{action: Deny, to: [{namespaces: {}}]}]")
    says(
        world(delegate, deny),
        """
        shop/web > bank/web TCP/8080 : allowed
        shop/web > bank/web TCP/80 : allowed
        shop/web > bank/web UDP/53 : allowed
        shop/web > bank/web UDP/80 : egress
        shop/web > bank/web TCP/53 : egress
        shop/web > bank/web ICMP : egress
        shop/web > kube-system/dns UDP/53 : egress
        """,
    )
    says(world(delegate, deny, DENY_EGRESS), "shop/web > bank/web TCP/8080 : egress")


def test_story_5_the_default_is_denied_until_owners_allow() -> None:
    """Baseline comes last: it holds for pods that no NetworkPolicy selects in this direction, and for no others."""
    default = cluster_policy("default", "Baseline", 10, "ingress: [{action: Deny, from: [{namespaces: {}}]}]")
    egress_only = "NetworkPolicy shop/out\npodSelector: {}\npolicyTypes: [Egress]\negress: [{}]"
    says(
        world(default, SALES_TO_BANK, egress_only),
        f"""
        shop/web > bank/web TCP/80 : allowed
        watch/prom > bank/web TCP/80 : ingress
        bank/web > shop/web TCP/80 : ingress
        {OUT} > shop/web TCP/80 : allowed
        """,
    )


# Precedence ---------------------------------------------------------------------------------------------------------


def admin(name: str, priority: int, action: str, kind: str = "ClusterNetworkPolicy") -> str:
    """A policy that does one thing with all that shop's pods send to pods."""
    tier = "tier: Admin\n" if kind == "ClusterNetworkPolicy" else ""
    return (
        f"{kind} {name}\n{tier}priority: {priority}\nsubject: {{namespaces: {{matchLabels: {{team: sales}}}}}}\n"
        f"egress: [{{action: {action}, to: [{{namespaces: {{}}}}]}}]"
    )


def reason(there: World, line: str) -> str:
    answers = {answer.egress.reason for _, answer in ask(there, line) if answer.egress}
    (only,) = answers
    return only


def test_the_first_rule_that_matches_decides() -> None:
    """Rules of one policy in the order in which they are written: Accept, then Deny, then Pass of the same traffic."""
    rules = [f"{{action: {action}, to: [{{namespaces: {{}}}}]}}" for action in ("Accept", "Deny", "Pass")]
    spec = "egress: [{}, {}, {}]"
    there = world(cluster_policy("first", "Admin", 1, spec.format(*rules)))
    says(there, "shop/web > bank/web TCP/80 : allowed")
    assert reason(there, "shop/web > bank/web TCP/80") == "ClusterNetworkPolicy first egress[0]"
    there = world(cluster_policy("first", "Admin", 1, spec.format(*reversed(rules))), DENY_EGRESS)
    says(there, "shop/web > bank/web TCP/80 : egress")
    assert reason(there, "shop/web > bank/web TCP/80") == "isolated by NetworkPolicy shop/deny"


def test_rules_that_do_not_match_are_passed_over() -> None:
    spec = """egress:
  - {action: Deny, to: [{namespaces: {matchLabels: {team: ops}}}]}
  - {action: Deny, to: [{namespaces: {}}], protocols: [{udp: {destinationPort: {number: 53}}}]}
  - {action: Accept, to: [{namespaces: {}}]}"""
    says(
        world(cluster_policy("some", "Admin", 1, spec), DENY_EGRESS),
        f"""
        shop/web > watch/prom TCP/80 : egress
        shop/web > bank/web UDP/53 : egress
        shop/web > bank/web TCP/53 : allowed
        shop/web > {OUT} TCP/53 : egress
        """,
    )


def test_the_lower_priority_number_goes_first_whatever_the_order_of_the_objects() -> None:
    for one, other in ((40, 50), (50, 40)):
        expected = "egress" if one < other else "allowed"
        policies = [admin("a", one, "Deny"), admin("b", other, "Accept")]
        says(world(*policies), f"shop/web > bank/web TCP/80 : {expected}")
        says(world(*reversed(policies)), f"shop/web > bank/web TCP/80 : {expected}")


def test_both_kinds_share_the_admin_tier_by_priority() -> None:
    old = admin("old", 10, "Deny", "AdminNetworkPolicy")
    says(world(old, admin("new", 9, "Accept")), "shop/web > bank/web TCP/80 : allowed")
    says(world(old, admin("new", 11, "Accept")), "shop/web > bank/web TCP/80 : egress")


def test_equal_priorities_go_by_kind_and_then_by_name() -> None:
    """The API leaves it open; this is our choice: AdminNetworkPolicy z, then ClusterNetworkPolicy a, then b."""
    a, b = admin("a", 10, "Accept"), admin("b", 10, "Deny")
    says(world(b, a), "shop/web > bank/web TCP/80 : allowed")
    z = admin("z", 10, "Deny", "AdminNetworkPolicy")
    says(world(a, z), "shop/web > bank/web TCP/80 : egress")
    says(world(a, z.replace("priority: 10", "priority: 11")), "shop/web > bank/web TCP/80 : allowed")


def test_a_policy_for_others_does_not_decide_although_it_goes_first() -> None:
    ops = cluster_policy(
        "ops",
        "Admin",
        0,
        "egress: [{action: Deny, to: [{namespaces: {}}]}]",
        "{namespaces: {matchLabels: {team: ops}}}",
    )
    says(
        world(ops, admin("sales", 1, "Accept")),
        """
        shop/web > bank/web TCP/80 : allowed
        watch/prom > bank/web TCP/80 : egress
        """,
    )


def test_pass_ends_the_tier_for_every_policy_in_it_and_for_that_tier_only() -> None:
    """After Admin's Pass, a Deny further down the tier is not looked at; the Baseline tier is."""
    baseline = cluster_policy("base", "Baseline", 0, "egress: [{action: Deny, to: [{namespaces: {}}]}]")
    pass_, deny = admin("pass", 1, "Pass"), admin("deny", 2, "Deny")
    says(world(pass_, deny), "shop/web > bank/web TCP/80 : allowed")
    there = world(pass_, deny, baseline)
    says(there, "shop/web > bank/web TCP/80 : egress")
    (_, answer), _ = ask(there, "shop/web > bank/web TCP/80")
    assert answer.egress == Decision(
        False, "ClusterNetworkPolicy base egress[0]", ("ClusterNetworkPolicy pass egress[0]",)
    )
    says(
        world(pass_, deny, baseline, DENY_EGRESS.replace("Egress]", "Egress]\negress: [{}]")),
        "shop/web > bank/web TCP/80 : allowed",
    )


def test_pass_in_the_baseline_tier_leads_to_the_default() -> None:
    rules = """egress:
  - {action: Pass, to: [{namespaces: {matchLabels: {team: finance}}}]}
  - {action: Deny, to: [{namespaces: {}}]}"""
    later = cluster_policy("later", "Baseline", 2, "egress: [{action: Deny, to: [{namespaces: {}}]}]")
    says(
        world(cluster_policy("base", "Baseline", 1, rules), later),
        """
        shop/web > bank/web TCP/80 : allowed
        shop/web > watch/prom TCP/80 : egress
        """,
    )


def test_pass_for_one_direction_says_nothing_about_the_other() -> None:
    into_bank = cluster_policy("into", "Admin", 5, "ingress: [{action: Deny, from: [{namespaces: {}}]}]", BANK)
    says(world(admin("pass", 1, "Pass"), into_bank), "shop/web > bank/web TCP/80 : ingress")


def test_a_policy_without_rules_of_a_direction_does_not_isolate() -> None:
    """CNPs with no ingress rules do not affect ingress, and rules are read as they are: no implicit denial."""
    only = cluster_policy(
        "only", "Admin", 1, "egress: [{action: Accept, to: [{namespaces: {matchLabels: {team: ops}}}]}]"
    )
    says(
        world(only),
        """
        shop/web > bank/web TCP/80 : allowed
        bank/web > shop/web TCP/80 : allowed
        """,
    )


def test_network_policy_has_the_last_word_on_pods_it_selects() -> None:
    """Baseline is not asked about a pod that a NetworkPolicy isolates in this direction, to deny or to accept."""
    accept = cluster_policy("base", "Baseline", 1, "ingress: [{action: Accept, from: [{namespaces: {}}]}]")
    says(world(accept, DENY_INGRESS), "bank/web > shop/web TCP/80 : ingress")
    deny = accept.replace("Accept", "Deny")
    says(
        world(deny, "NetworkPolicy shop/web\npodSelector: {matchLabels: {app: web}}\ningress: [{ports: [{port: 80}]}]"),
        """
        bank/web > shop/web TCP/80 : allowed
        bank/web > shop/web TCP/81 : ingress
        bank/web > shop/db TCP/80 : ingress
        """,
    )


def test_the_baseline_of_v1alpha1_is_the_last_of_its_tier() -> None:
    """Our choice: BaselineAdminNetworkPolicy has priority 1000, and its kind sorts before ClusterNetworkPolicy."""
    old = """BaselineAdminNetworkPolicy default
subject: {namespaces: {}}
egress: [{action: Deny, to: [{namespaces: {}}]}]"""
    rule = "egress: [{action: Accept, to: [{namespaces: {}}]}]"
    says(world(old), "shop/web > bank/web TCP/80 : egress")
    says(world(old, cluster_policy("new", "Baseline", 999, rule)), "shop/web > bank/web TCP/80 : allowed")
    says(world(old, cluster_policy("new", "Baseline", 1000, rule)), "shop/web > bank/web TCP/80 : egress")
    says(world(old, admin("admin", 1000, "Allow", "AdminNetworkPolicy")), "shop/web > bank/web TCP/80 : allowed")


def test_tenants_as_in_the_guide_to_v1alpha1() -> None:
    """Names resolve, monitoring reaches all, tenants are apart: until an owner lets one in, and so all others out."""
    basic = """AdminNetworkPolicy basic
priority: 5
subject: {namespaces: {}}
ingress: [{action: Allow, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: watch}}}]}]
egress:
  - action: Allow
    to: [{pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}},
                 podSelector: {matchLabels: {k8s-app: kube-dns}}}}]"""
    default = """BaselineAdminNetworkPolicy default
subject:
  namespaces:
    matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, watch]}]
ingress: [{action: Deny, from: [{namespaces: {}}]}]"""
    says(
        world(basic, default),
        """
        shop/web > kube-system/dns UDP/53 : allowed
        watch/prom > bank/web TCP/80 : allowed
        shop/web > bank/web TCP/80 : ingress
        shop/web > watch/prom TCP/80 : allowed
        """,
    )
    says(
        world(
            basic,
            default,
            SALES_TO_BANK,
        ),
        """
        shop/web > bank/web TCP/80 : allowed
        watch/prom > bank/web TCP/80 : allowed
        kube-system/dns > bank/web TCP/80 : ingress
        """,
    )


def test_a_pod_that_reaches_itself_by_a_service_is_judged_by_cluster_wide_policies() -> None:
    """The overview: what comes back by a Service is subject to them; what it sends to its own address is not."""
    says(
        world(cluster_policy("all", "Admin", 1, "ingress: [{action: Deny, from: [{namespaces: {}}]}]")),
        "shop/web > shop/web TCP/8080 : ingress",
    )


# Subjects, peers, ports ---------------------------------------------------------------------------------------------


def test_subjects_by_namespace_and_by_pods_in_namespaces() -> None:
    """`pods` wants both selectors, and an empty one is all. Pods in the host's network are never subjects."""
    rule = "ingress: [{action: Deny, from: [{namespaces: {}}]}]"
    pods = "{pods: {namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {app: web}}}}"
    says(
        world(cluster_policy("web", "Admin", 1, rule, pods)),
        """
        watch/prom > shop/web TCP/80 : ingress
        watch/prom > bank/web TCP/80 : ingress
        watch/prom > shop/db TCP/80 : allowed
        watch/prom > shop/agent TCP/80 : allowed
        shop/web > watch/prom TCP/80 : allowed
        """,
    )
    bank = pods.replace("env: prod", "team: finance")
    says(world(cluster_policy("web", "Admin", 1, rule, bank)), "watch/prom > shop/web TCP/80 : allowed")
    all_pods = "{pods: {podSelector: {}}}"
    says(world(cluster_policy("all", "Admin", 1, rule, all_pods)), "watch/prom > kube-system/dns TCP/80 : ingress")


def test_pods_in_the_hosts_network_are_no_peers() -> None:
    deny = cluster_policy(
        "deny",
        "Admin",
        1,
        "ingress: [{action: Deny, from: [{namespaces: {}}]}]\negress: [{action: Deny, to: [{namespaces: {}}]}]",
    )
    says(
        world(deny),
        """
        shop/agent > shop/web TCP/80 : allowed
        shop/web > shop/agent TCP/80 : allowed
        shop/db > shop/web TCP/80 : egress
        """,
    )


def test_networks_match_pods_and_nodes_as_well_as_the_outside_but_one_version() -> None:
    """Traffic inside of the cluster is checked against `networks` too: 0.0.0.0/0 denies all of IPv4, ICMP included."""
    deny = cluster_policy("deny", "Admin", 9, "egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]")
    lines = f"""
        shop/web > {OUT} TCP/80 : egress
        shop/web > {OUT} ICMP : egress
        shop/web > {OUT6} TCP/80 : allowed
        shop/web > n2 TCP/80 IPv4 : egress
        shop/web > bank/web TCP/80 IPv6 : allowed
        """
    says(world(deny), lines + "\nshop/web > bank/web TCP/80 IPv4 : egress")
    # "If you don't want that, add a rule that passes all pod traffic before": so it is with pods, and no one else.
    before = cluster_policy("pods", "Admin", 8, "egress: [{action: Pass, to: [{namespaces: {}}]}]")
    says(world(deny, before), lines + "\nshop/web > bank/web TCP/80 IPv4 : allowed")


def test_networks_of_single_pods() -> None:
    """A conformance case: two pods' addresses are accepted, and then the whole world, pods too, is denied."""
    rules = """egress:
  - {action: Accept, to: [{networks: [10.244.2.3/32, 'fd00:10:244:2::3/128']}]}
  - {action: Deny, to: [{networks: [0.0.0.0/0, '::/0']}]}"""
    says(
        world(cluster_policy("some", "Admin", 85, rules)),
        f"""
        shop/web > bank/web TCP/80 : allowed
        shop/web > shop/db TCP/80 : egress
        shop/web > {OUT6} TCP/80 : egress
        """,
    )


def test_nodes_are_matched_by_any_of_their_addresses() -> None:
    """`nodes` selects by labels, and matches all IPs of status.addresses: also of pods in the host's network."""
    rule = (
        "egress: [{{action: Deny, to: [{{nodes: {}}}], protocols: [{{tcp: {{destinationPort: {{number: 6443}}}}}}]}}]"
    )
    control_plane = "{matchLabels: {node-role.kubernetes.io/control-plane: }}"
    says(
        world(cluster_policy("api", "Admin", 55, rule.format(control_plane))),
        f"""
        shop/web > n1 TCP/6443 : egress
        bank/web > n1 TCP/6443 : egress
        shop/web > 203.0.113.1 TCP/6443 : egress
        shop/web > n1 TCP/443 : allowed
        shop/web > n1 UDP/6443 : allowed
        shop/web > n2 TCP/6443 : allowed
        shop/web > {OUT} TCP/6443 : allowed
        shop/web > shop/db TCP/6443 : allowed
        """,
    )
    says(
        world(cluster_policy("api", "Admin", 55, rule.format("{}"))),
        """
        shop/web > n2 TCP/6443 : egress
        shop/web > shop/agent TCP/6443 : egress
        shop/web > shop/db TCP/6443 : allowed
        """,
    )


@pytest.mark.parametrize(
    ("entries", "denied", "free"),
    [
        ("[{tcp: {destinationPort: {number: 80}}}]", ["TCP/80"], ["TCP/79", "TCP/81", "UDP/80", "SCTP/80", "ICMP"]),
        (
            "[{udp: {destinationPort: {range: {start: 53, end: 54}}}}]",
            ["UDP/53", "UDP/54"],
            ["UDP/52", "UDP/55", "TCP/53"],
        ),
        ("[{sctp: {destinationPort: {range: {start: 1, end: 65535}}}}]", ["SCTP/1", "SCTP/65535"], ["TCP/1", "ICMP"]),
        ("[{tcp: {}}]", ["TCP/1", "TCP/65535"], ["UDP/1", "ICMP"]),
        (
            "[{udp: {destinationPort: {number: 1}}}, {tcp: {destinationPort: {number: 2}}}]",
            ["UDP/1", "TCP/2"],
            ["TCP/1"],
        ),
        ("[{destinationNamedPort: probe}]", ["UDP/9000"], ["TCP/9000", "SCTP/9000", "ICMP"]),
        ("[{destinationNamedPort: metrics}]", ["TCP/9100"], ["UDP/9100", "TCP/9187"]),
        ("[{destinationNamedPort: nobody}]", [], ["TCP/9100", "ICMP"]),
    ],
)
def test_protocols_of_v1alpha2(entries: str, denied: list[str], free: list[str]) -> None:
    """Ranges include both ends; a named port brings its container's protocol; rules with protocols leave ICMP alone."""
    spec = f"ingress: [{{action: Deny, from: [{{namespaces: {{}}}}], protocols: {entries}}}]"
    there = world(cluster_policy("some", "Admin", 1, spec))
    for service in denied:
        says(there, f"bank/web > shop/web {service} : ingress")
    for service in free:
        says(there, f"bank/web > shop/web {service} : allowed")


@pytest.mark.parametrize(
    ("entries", "denied", "free"),
    [
        ("[{portNumber: {port: 80}}]", ["TCP/80"], ["UDP/80", "TCP/81", "ICMP"]),
        ("[{portNumber: {protocol: UDP, port: 80}}]", ["UDP/80"], ["TCP/80"]),
        ("[{portRange: {start: 80, end: 90}}]", ["TCP/80", "TCP/90"], ["TCP/79", "TCP/91", "UDP/80"]),
        ("[{portRange: {protocol: SCTP, start: 80, end: 90}}]", ["SCTP/80", "SCTP/90"], ["TCP/80"]),
        ("[{namedPort: probe}, {namedPort: metrics}]", ["UDP/9000", "TCP/9100"], ["TCP/9000", "UDP/9100"]),
    ],
)
def test_ports_of_v1alpha1(entries: str, denied: list[str], free: list[str]) -> None:
    """Protocol defaults to TCP for numbers and ranges; a named port has none to say, so its container's counts."""
    there = world(
        "AdminNetworkPolicy some\npriority: 1\nsubject: {namespaces: {}}\n"
        f"ingress: [{{action: Deny, from: [{{namespaces: {{}}}}], ports: {entries}}}]"
    )
    for service in denied:
        says(there, f"bank/web > shop/web {service} : ingress")
    for service in free:
        says(there, f"bank/web > shop/web {service} : allowed")


def test_a_destinations_named_port_is_looked_up_on_each_peer() -> None:
    spec = """egress:
  - {action: Accept, to: [{namespaces: {}}], protocols: [{destinationNamedPort: http}]}
  - {action: Deny, to: [{namespaces: {}}]}"""
    says(
        world(cluster_policy("http", "Admin", 1, spec)),
        """
        watch/prom > shop/web TCP/8080 : allowed
        watch/prom > bank/web TCP/80 : allowed
        watch/prom > shop/web TCP/80 : egress
        watch/prom > bank/web TCP/8080 : egress
        watch/prom > shop/db TCP/80 : egress
        """,
    )


def test_rules_that_are_not_understood_fail_closed() -> None:
    """A peer with no known field: Accept matches no traffic, even by its other peers; Deny and Pass deny all."""
    accept, deny, pass_ = (
        cluster_policy("new", "Admin", 1, f"egress: [{{action: {action}, to: [{{namespaces: {{}}}}, {{}}]}}]")
        for action in ("Accept", "Deny", "Pass")
    )
    says(world(accept, DENY_EGRESS), f"shop/web > bank/web TCP/80 : egress\nshop/web > {OUT} TCP/80 : egress")
    says(world(accept), f"shop/web > bank/web TCP/80 : allowed\nshop/web > {OUT} TCP/80 : allowed")
    for each in (deny, pass_):
        says(world(each), f"shop/web > bank/web TCP/80 : egress\nshop/web > {OUT} ICMP : egress")
    names = cluster_policy("names", "Admin", 1, "egress: [{action: Accept, to: [{domainNames: ['*.kubernetes.io']}]}]")
    says(world(names, DENY_EGRESS), f"shop/web > {OUT} TCP/443 : egress\nshop/web > bank/web TCP/443 : egress")
    sources = cluster_policy("sources", "Admin", 1, "ingress: [{action: Deny, from: [{networks: [192.0.2.0/24]}]}]")
    says(world(sources), f"bank/web > shop/web TCP/80 : ingress\n{OUT6} > shop/web ICMP : ingress")
    says(world(sources), "n1 > shop/web TCP/80 : allowed")  # its own node, whatever a policy says
