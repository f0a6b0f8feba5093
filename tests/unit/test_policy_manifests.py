"""What policies in manifests say, and how those that are wrong are closed and told."""

import re
from ipaddress import ip_network
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.manifest_state import ManifestState
from topology.manifests import Parsed, parse
from topology.policies import Action, Direction, IpBlock, NodeSet, PodSet, Policy, PolicyPort, Rule, Tier
from topology.selectors import Operator, Requirement, Selector

NETWORK_POLICY = """\
    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata:
      name: db
      namespace: shop
    spec:
      podSelector:
        matchLabels: {app: db}
      policyTypes: [Ingress, Egress]
      ingress:
      - from:
        - podSelector: {matchLabels: {app: web}}
        - namespaceSelector: {matchLabels: {team: ops}}
        - {namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [a, b]}]}}
        - ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}
        ports:
        - {port: 5432}
        - {protocol: UDP, port: dns}
        - {protocol: SCTP, port: 8000, endPort: 8010}
        - {protocol: UDP}
      egress:
      - to: [{ipBlock: {cidr: "2001:db8::/32"}}]
"""

CLUSTER = """\
    apiVersion: policy.networking.k8s.io/v1alpha2
    kind: ClusterNetworkPolicy
    metadata:
      name: guard
    spec:
      tier: Admin
      priority: 7
      subject:
        pods: {podSelector: {matchLabels: {app: db}}}
      ingress:
      - name: ops
        action: Accept
        from:
        - namespaces: {matchLabels: {team: ops}}
        - pods: {namespaceSelector: {matchLabels: {team: web}}, podSelector: {matchLabels: {app: web}}}
        protocols:
        - tcp: {destinationPort: {number: 5432}}
        - udp: {destinationPort: {range: {start: 8000, end: 8010}}}
        - sctp: {destinationPort: {number: 9}}
        - destinationNamedPort: metrics
      - {action: Pass, from: [{namespaces: {}}]}
      egress:
      - action: Deny
        to:
        - nodes: {matchLabels: {zone: west}}
        - networks: [192.0.2.0/24, "2001:db8::/32"]
        - namespaces: {}
        protocols: [{tcp: {destinationPort: {number: 22}}}]
"""

ADMIN = """\
    apiVersion: policy.networking.k8s.io/v1alpha1
    kind: AdminNetworkPolicy
    metadata:
      name: guard
    spec:
      priority: 30
      subject:
        namespaces: {matchLabels: {team: web}}
      ingress:
      - {name: first, action: Pass, from: [{namespaces: {}}]}
      - action: Allow
        from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]
        ports:
        - portNumber: {port: 80}
        - portNumber: {protocol: UDP, port: 53}
        - portRange: {start: 1, end: 1024}
        - portRange: {protocol: SCTP, start: 8000, end: 8010}
        - namedPort: metrics
      egress:
      - {action: Deny, to: [{nodes: {}}, {networks: [192.0.2.0/24]}]}
"""

BASELINE = """\
    apiVersion: policy.networking.k8s.io/v1alpha1
    kind: BaselineAdminNetworkPolicy
    metadata:
      name: default
    spec:
      subject: {namespaces: {}}
      ingress:
      - {action: Deny, from: [{namespaces: {}}]}
      egress:
      - {action: Allow, to: [{networks: [192.0.2.0/24]}]}
"""

NP = "NetworkPolicy shop/db: "
FROM = f"{NP}spec.ingress[0].from"
PORTS = f"{NP}spec.ingress[0].ports"
CNP = "ClusterNetworkPolicy guard: "
IN = f"{CNP}spec.ingress[0]"
OUT = f"{CNP}spec.egress[0]"
ANP = "AdminNetworkPolicy guard: "
BANP = "BaselineAdminNetworkPolicy default: "
DENY_ALL = (Rule(Action.DENY),)


def label(key: str, *values: str) -> Selector:
    return (Requirement(key, Operator.IN, values),)


DB = PodSet(label("app", "db"), "shop")
EVERYBODY = PodSet()


def read(text: str) -> Parsed:
    return parse("file.yaml", dedent(text).encode())


def only(text: str) -> Policy:
    """The policy of a text in which nothing is wrong."""
    parsed = read(text)
    assert parsed.problems == ()
    return the_policy(parsed)


def the_policy(parsed: Parsed) -> Policy:
    (declared,) = parsed.declared
    assert isinstance(declared.value, Policy)
    assert declared.key == declared.value.key
    return declared.value


def changed(text: str, was: str, becomes: str) -> str:
    assert was in text
    return text.replace(was, becomes, 1)


def network_policy(spec: str) -> str:
    return (
        f"{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: db, namespace: shop}}, "
        f"spec: {{{spec}}}}}"
    )


def cluster_policy(spec: str, version: str = "v1alpha2", kind: str = "ClusterNetworkPolicy", name: str = "x") -> str:
    return (
        f"{{apiVersion: policy.networking.k8s.io/{version}, kind: {kind}, metadata: {{name: {name}}}, "
        f"spec: {{subject: {{namespaces: {{}}}}, {spec}}}}}"
    )


def rule(field: str, text: str) -> Rule:
    """The one rule of a NetworkPolicy in one direction."""
    policy = only(network_policy(f"podSelector: {{}}, policyTypes: [Ingress, Egress], {field}: [{text}]"))
    (found,) = (policy.ingress if field == "ingress" else policy.egress) or ()
    return found


# What is said -----------------------------------------------------------------------------------------------------


def test_a_network_policy_has_peers_and_ports_of_every_form() -> None:
    assert only(NETWORK_POLICY) == Policy(
        namespace="shop",
        name="db",
        subjects=DB,
        ingress=(
            Rule(
                peers=(
                    PodSet(label("app", "web"), "shop"),
                    PodSet(namespaces=label("team", "ops")),
                    PodSet(label("app", "a", "b")),
                    IpBlock(ip_network("192.0.2.0/24"), (ip_network("192.0.2.128/25"),)),
                ),
                ports=(
                    PolicyPort("TCP", 5432),
                    PolicyPort("UDP", "dns"),
                    PolicyPort("SCTP", 8000, 8010),
                    PolicyPort("UDP"),
                ),
            ),
        ),
        egress=(Rule(peers=(IpBlock(ip_network("2001:db8::/32")),)),),
    )


def test_a_cluster_network_policy_has_peers_and_protocols_of_every_form() -> None:
    assert only(CLUSTER) == Policy(
        kind="ClusterNetworkPolicy",
        name="guard",
        tier=Tier.ADMIN,
        priority=7,
        subjects=PodSet(label("app", "db")),
        ingress=(
            Rule(
                Action.ACCEPT,
                (PodSet(namespaces=label("team", "ops")), PodSet(label("app", "web"), "", label("team", "web"))),
                (
                    PolicyPort("TCP", 5432),
                    PolicyPort("UDP", 8000, 8010),
                    PolicyPort("SCTP", 9),
                    PolicyPort("", "metrics"),
                ),
                "ops",
            ),
            Rule(Action.PASS, (EVERYBODY,)),
        ),
        egress=(
            Rule(
                Action.DENY,
                (
                    NodeSet(label("zone", "west")),
                    IpBlock(ip_network("192.0.2.0/24")),
                    IpBlock(ip_network("2001:db8::/32")),
                    EVERYBODY,
                ),
                (PolicyPort("TCP", 22),),
            ),
        ),
    )


def test_an_admin_network_policy_says_the_same_in_its_own_words() -> None:
    assert only(ADMIN) == Policy(
        kind="AdminNetworkPolicy",
        name="guard",
        tier=Tier.ADMIN,
        priority=30,
        subjects=PodSet(namespaces=label("team", "web")),
        ingress=(
            Rule(Action.PASS, (EVERYBODY,), name="first"),
            Rule(
                Action.ACCEPT,
                (PodSet(label("app", "web")),),
                (
                    PolicyPort("TCP", 80),
                    PolicyPort("UDP", 53),
                    PolicyPort("TCP", 1, 1024),
                    PolicyPort("SCTP", 8000, 8010),
                    PolicyPort("", "metrics"),
                ),
            ),
        ),
        egress=(Rule(Action.DENY, (NodeSet(), IpBlock(ip_network("192.0.2.0/24")))),),
    )


def test_the_baseline_comes_after_every_other_policy_of_its_tier() -> None:
    assert only(BASELINE) == Policy(
        kind="BaselineAdminNetworkPolicy",
        name="default",
        tier=Tier.BASELINE,
        priority=1000,
        subjects=EVERYBODY,
        ingress=(Rule(Action.DENY, (EVERYBODY,)),),
        egress=(Rule(Action.ACCEPT, (IpBlock(ip_network("192.0.2.0/24")),)),),
    )


def test_a_cluster_network_policy_can_be_of_the_baseline() -> None:
    policy = only(changed(changed(CLUSTER, "Admin", "Baseline"), "priority: 7", "priority: 1000"))
    assert (policy.tier, policy.priority) == (Tier.BASELINE, 1000)


@pytest.mark.parametrize("text", ["podSelector: {}", "podSelector: null", "policyTypes: [Ingress]"])
def test_a_pod_selector_that_is_empty_or_left_out_selects_every_pod_of_the_namespace(text: str) -> None:
    assert only(network_policy(text)).subjects == PodSet(namespace="shop")


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ("podSelector: {}", True, False),
        ("ingress: [{}]", True, False),
        ("egress: [{}]", True, True),
        # As the API server has it: only rules make it a policy about egress, a list without any doesn't.
        ("egress: []", True, False),
        ("policyTypes: []", True, False),
        ("policyTypes: [], egress: [{}]", True, True),
        ("policyTypes: [Ingress]", True, False),
        ("policyTypes: [Egress]", False, True),
        ("policyTypes: [Egress, Ingress]", True, True),
        ("policyTypes: [Egress], ingress: [{}]", False, True),
        ("policyTypes: [Ingress], egress: [{}]", True, False),
    ],
)
def test_a_network_policy_is_about_the_directions_that_kubernetes_takes_it_to_be(
    spec: str, ingress: bool, egress: bool
) -> None:
    policy = only(network_policy(spec))
    assert (policy.ingress is not None, policy.egress is not None) == (ingress, egress)


def test_rules_that_policy_types_leave_without_effect_are_noted() -> None:
    (note,) = read(network_policy("policyTypes: [Ingress], egress: [{}]")).notes
    assert str(note) == (
        "file.yaml:1: NetworkPolicy shop/db: spec.egress has no effect: policyTypes doesn't have Egress"
    )


@pytest.mark.parametrize("field", ["ingress", "egress"])
def test_no_rule_allows_nothing_and_an_empty_rule_everything(field: str) -> None:
    types = f"policyTypes: [{field.capitalize()}]"
    for text in (types, f"{types}, {field}: []", f"{types}, {field}: null"):
        assert only(network_policy(text)).rules(Direction(field)) == ()
    assert rule(field, "{}") == Rule()


@pytest.mark.parametrize(
    ("field", "text"),
    [("ingress", "{from: [], ports: []}"), ("ingress", "{from: , ports: }"), ("egress", "{to: [], ports: []}")],
)
def test_peers_and_ports_that_are_empty_or_null_stand_for_all(field: str, text: str) -> None:
    assert rule(field, text) == Rule(peers=None, ports=None)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("podSelector: {}", PodSet(namespace="shop")),
        ("namespaceSelector: {}", EVERYBODY),
        ("namespaceSelector: {}, podSelector: {}", EVERYBODY),
        ("namespaceSelector: {matchLabels: {a: b}}, podSelector: {matchLabels: {c: d}}",
         PodSet(label("c", "d"), "", label("a", "b"))),
        ("podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [b]}, {key: c, operator: Exists}, "
         "{key: d, operator: DoesNotExist}], matchLabels: {e: f}}",
         PodSet(
             (
                 *label("e", "f"),
                 Requirement("a", Operator.NOT_IN, ("b",)),
                 Requirement("c", Operator.EXISTS),
                 Requirement("d", Operator.DOES_NOT_EXIST),
             ),
             "shop",
         )),
        ("ipBlock: {cidr: 0.0.0.0/0, except: []}", IpBlock(ip_network("0.0.0.0/0"))),
        ('ipBlock: {cidr: "::/0", except: ["fd00::/8"]}', IpBlock(ip_network("::/0"), (ip_network("fd00::/8"),))),
        ("ipBlock: {cidr: 192.0.2.1/32}", IpBlock(ip_network("192.0.2.1/32"))),
    ],
)  # fmt: skip
def test_peers_mean_what_they_mean_in_kubernetes(peer: str, expected: PodSet | IpBlock) -> None:
    assert rule("ingress", f"{{from: [{{{peer}}}]}}").peers == (expected,)


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ("", PolicyPort("TCP")),
        ("protocol: SCTP", PolicyPort("SCTP")),
        ("port: 1", PolicyPort("TCP", 1)),
        ("port: http-2", PolicyPort("TCP", "http-2")),
        ("port: 80, endPort: 80", PolicyPort("TCP", 80, 80)),
        ("port: 1, endPort: 65535", PolicyPort("TCP", 1, 65535)),
    ],
)
def test_ports_mean_what_they_mean_in_kubernetes(port: str, expected: PolicyPort) -> None:
    assert rule("egress", f"{{ports: [{{{port}}}]}}").ports == (expected,)


def test_a_block_given_by_an_address_in_it_is_read_as_kubernetes_does_and_noted() -> None:
    parsed = read(NETWORK_POLICY.replace("192.0.2.0/24", "192.0.2.7/24"))
    assert the_policy(parsed) == only(NETWORK_POLICY)
    assert [str(note) for note in parsed.notes] == [
        "file.yaml:15: NetworkPolicy shop/db: spec.ingress[0].from[3].ipBlock.cidr is 192.0.2.7/24: "
        "read as 192.0.2.0/24, as Kubernetes does"
    ]


@pytest.mark.parametrize("text", ["priority: 0, tier: Admin", "priority: 0, tier: Admin, ingress: [], egress: "])
def test_a_cluster_policy_without_rules_is_about_nothing(text: str) -> None:
    policy = only(cluster_policy(text))
    assert (policy.ingress, policy.egress) == (None, None)


def test_the_api_takes_as_many_entries_as_it_says() -> None:
    entry = "{action: Deny, from: [{namespaces: {}}]}"
    for limit, head, version, kind in [
        (25, "tier: Admin, priority: 1", "v1alpha2", "ClusterNetworkPolicy"),
        (100, "priority: 1", "v1alpha1", "AdminNetworkPolicy"),
    ]:
        text = cluster_policy(f"{head}, ingress: [{', '.join([entry] * limit)}]", version, kind)
        assert len(only(text).ingress or ()) == limit


@pytest.mark.parametrize(
    ("value", "denied", "allowed"),
    [("deny", True, False), ("allow", False, True), ("all", True, True), ("none", False, False)],
)
@pytest.mark.parametrize("text", [NETWORK_POLICY, CLUSTER, ADMIN, BASELINE])
def test_an_annotation_says_what_is_logged(text: str, value: str, denied: bool, allowed: bool) -> None:
    annotated = text.replace("metadata:\n", f"metadata:\n      annotations: {{signalbox.io/log: {value}}}\n", 1)
    policy = only(annotated)
    assert (policy.log_denied, policy.log_allowed) == (denied, allowed)
    broken = the_policy(read(annotated.replace("      ingress:\n", "      ingres: []\n      ingress:\n")))
    assert broken.fault
    assert (broken.log_denied, broken.log_allowed) == (denied, allowed)


@pytest.mark.parametrize(
    ("annotations", "problem"),
    [
        ("{signalbox.io/log: some}", ".signalbox.io/log is 'some'; it must be one of deny, allow, all, none"),
        ("{signalbox.io/log: yes}", ".signalbox.io/log is yes (true or false); it must be a string: write it in quote"),
        ("[log]", " is a list; it must be a mapping of names to values"),
    ],
)
def test_a_wrong_annotation_is_told_and_closes_nothing(annotations: str, problem: str) -> None:
    parsed = read(NETWORK_POLICY.replace("metadata:\n", f"metadata:\n      annotations: {annotations}\n"))
    assert the_policy(parsed) == only(NETWORK_POLICY)
    (told,) = parsed.problems
    assert str(told).startswith(f"file.yaml:4: {NP}metadata.annotations{problem}")


# What is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "was", "becomes", "line", "problem"),
    [
        # NetworkPolicy: the policy itself
        (NETWORK_POLICY, "Egress]", "Outgress]", 9, f"{NP}spec.policyTypes[1] is 'Outgress'; it must be one of Ingres"),
        (NETWORK_POLICY, "[Ingress, Egress]", "Ingress", 9, f"{NP}spec.policyTypes is 'Ingress'; it must be a list"),
        (NETWORK_POLICY, "egress:", "egres:", 22, f"{NP}spec.egres is not a field that is known here; it must be one "),
        (NETWORK_POLICY, "egress:", "ingress:", 21, f"{NP}spec.ingress is given twice; keep one of them"),
        (NETWORK_POLICY, "- from:", "- form:", 12, f"{NP}spec.ingress[0].form is not a field that is known here; it m"),
        (NETWORK_POLICY, "- to:", "- from:", 22, f"{NP}spec.egress[0].from is not a field that is known here; it mus"),
        (NETWORK_POLICY, "- to:", "-\n      - to:", 22, f"{NP}spec.egress[0] is empty; it must be a mapping of name"),
        # NetworkPolicy: peers
        (NETWORK_POLICY, "- podSelector: {matchLabels: {app: web}}", "- {}", 12,
         f"{FROM}[0] has no podSelector, namespaceSelector or ipBlock; give one ({{}} selects all)"),
        (NETWORK_POLICY, "podSelector: {matchLabels: {app: web}}", "podSelector:", 12,
         f"{FROM}[0] has no podSelector, namespaceSelector or ipBlock; give one"),
        (NETWORK_POLICY, "- podSelector", "- pods", 12, f"{FROM}[0].pods is not a field that is known here; it must "),
        (NETWORK_POLICY, "{matchLabels: {app: web}", "{matchLabel: {app: web}", 12,
         f"{FROM}[0].podSelector.matchLabel is not a field that is known here; it must be one of matchLabels, match"),
        (NETWORK_POLICY, "{matchLabels: {app: web}", "{matchLabels: {app: 1}", 12,
         f"{FROM}[0].podSelector.matchLabels.app is 1 (a number); it must be a string: write it in quotes"),
        (NETWORK_POLICY, "operator: In,", "operator: Is,", 14,
         f"{FROM}[2].podSelector.matchExpressions[0].operator is 'Is'; it must be one of In, NotIn, Exists, DoesNot"),
        (NETWORK_POLICY, "operator: In, values: [a, b]", "operator: In", 14,
         f"{FROM}[2].podSelector.matchExpressions[0] has no values; list the values to compare with"),
        (NETWORK_POLICY, "values: [a, b]", "values: [a, b!]", 14,
         f"{FROM}[2].podSelector.matchExpressions[0].values[1] is 'b!'; a label's value has up to 63 letters"),
        (NETWORK_POLICY, "operator: In, values", "operator: In, value", 14,
         f"{FROM}[2].podSelector.matchExpressions[0].value is not a field that is known here; it must be one of key"),
        (NETWORK_POLICY, "- ipBlock: {", "- podSelector: {}\n          ipBlock: {", 16,
         f"{FROM}[3].ipBlock stands beside a selector, but a peer is one of them; make two peers of it"),
        (NETWORK_POLICY, "- ipBlock: {", "- namespaceSelector: {}\n          ipBlock: {", 16,
         f"{FROM}[3].ipBlock stands beside a selector, but a peer is one of them; make two peers of it"),
        (NETWORK_POLICY, "cidr: 192.0.2.0/24, ", "", 15, f"{FROM}[3].ipBlock.cidr is missing; give the addresses, as"),
        (NETWORK_POLICY, "192.0.2.0/24", "192.0.2.0", 15, f"{FROM}[3].ipBlock.cidr is 192.0.2.0, which is no network'"),
        (NETWORK_POLICY, "192.0.2.0/24", "192.0.2/24", 15, f"{FROM}[3].ipBlock.cidr is '192.0.2/24'; it must be a CID"),
        (NETWORK_POLICY, "192.0.2.0/24", "192.0.2.0/33", 15, f"{FROM}[3].ipBlock.cidr is '192.0.2.0/33'; it must be "),
        (NETWORK_POLICY, "192.0.2.0/24", "192.0.2.0/255.255.255.0", 15,
         f"{FROM}[3].ipBlock.cidr is '192.0.2.0/255.255.255.0'; it must be a CIDR, as 192.0.2.0/24"),
        (NETWORK_POLICY, "192.0.2.0/24", '"fe80::1%eth0/64"', 15, f"{FROM}[3].ipBlock.cidr is 'fe80::1%eth0/64'; it m"),
        (NETWORK_POLICY, "192.0.2.0/24", '"::ffff:192.0.2.0/120"', 15,
         f"{FROM}[3].ipBlock.cidr is ::ffff:192.0.2.0/120, IPv4 addresses in the form of IPv6; write them as IPv4"),
        (NETWORK_POLICY, "[192.0.2.128/25]", "[192.0.3.0/25]", 15,
         f"{FROM}[3].ipBlock.except[0] is 192.0.3.0/25, which is not a part of the block's 192.0.2.0/24; take it out"),
        (NETWORK_POLICY, "[192.0.2.128/25]", "[192.0.2.0/24]", 15,
         f"{FROM}[3].ipBlock.except[0] is 192.0.2.0/24, which is not a part of the block's 192.0.2.0/24; take it out"),
        (NETWORK_POLICY, "[192.0.2.128/25]", "[192.0.0.0/16]", 15, f"{FROM}[3].ipBlock.except[0] is 192.0.0.0/16, whi"),
        (NETWORK_POLICY, "[192.0.2.128/25]", '["2001:db8::/64"]', 15,
         f"{FROM}[3].ipBlock.except[0] is 2001:db8::/64, which is not a part of the block's 192.0.2.0/24; take it"),
        (NETWORK_POLICY, "[192.0.2.128/25]", "[x]", 15, f"{FROM}[3].ipBlock.except[0] is 'x'; it must be a CIDR, as "),
        (NETWORK_POLICY, "except:", "excepts:", 15, f"{FROM}[3].ipBlock.excepts is not a field that is known here; i"),
        # NetworkPolicy: ports
        (NETWORK_POLICY, "UDP", "udp", 18, f"{PORTS}[1].protocol is 'udp'; it must be one of TCP, UDP, SCTP"),
        (NETWORK_POLICY, "{port: 5432}", "{port: 0}", 17, f"{PORTS}[0].port is 0 (a number); it must be a whole numbe"),
        (NETWORK_POLICY, "{port: 5432}", '{port: "5432"}', 17, f"{PORTS}[0].port is '5432'; the name of a port has up"),
        (NETWORK_POLICY, "port: dns", "port: DNS", 18, f"{PORTS}[1].port is 'DNS'; the name of a port has up to 15 lo"),
        (NETWORK_POLICY, "port: dns", "port: a--b", 18, f"{PORTS}[1].port is 'a--b'; the name of a port has up to 15 "),
        (NETWORK_POLICY, "port: dns", "port: abcdefghijklmnop", 18, f"{PORTS}[1].port is 'abcdefghijklmnop'; the name"),
        (NETWORK_POLICY, "port: dns", "ports: dns", 18, f"{PORTS}[1].ports is not a field that is known here; it mus"),
        (NETWORK_POLICY, "port: dns", "port: dns, endPort: 54", 18,
         f"{PORTS}[1].endPort is given, but port is the name 'dns'; give the first port by its number"),
        (NETWORK_POLICY, "endPort: 8010", "endPort: 7999", 19,
         f"{PORTS}[2].endPort is 7999, below port, which is 8000; give the last port of the range"),
        (NETWORK_POLICY, "endPort: 8010", "endPort: 65536", 19, f"{PORTS}[2].endPort is 65536 (a number); it must be "),
        (NETWORK_POLICY, "port: 8000, ", "", 19, f"{PORTS}[2].endPort is given without a port; give the first port of"),
        # The cluster's kinds: the policy itself
        (CLUSTER, "tier: Admin", "tier: Root", 6, f"{CNP}spec.tier is 'Root'; it must be one of Admin, Baseline"),
        (CLUSTER, "tier: Admin", "", 7, f"{CNP}spec.tier is missing; say Admin or Baseline"),
        (CLUSTER, "priority: 7", "priority: 1001", 7, f"{CNP}spec.priority is 1001 (a number); it must be a whole num"),
        (CLUSTER, "priority: 7", "priority: -1", 7, f"{CNP}spec.priority is -1 (a number); it must be a whole number"),
        (CLUSTER, "priority: 7", "", 6, f"{CNP}spec.priority is missing; give a number from 0, which is asked first,"),
        (ADMIN, "priority: 30", "priority: high", 6, f"{ANP}spec.priority is 'high'; it must be a whole number from 0"),
        (ADMIN, "priority: 30", "priority: 30\n      tier: Admin", 7, f"{ANP}spec.tier is not a field that is known"),
        (BASELINE, "name: default", "name: mine", 4,
         "BaselineAdminNetworkPolicy mine: metadata.name is 'mine', but a cluster has one BaselineAdminNetworkPolicy, "
         "called default; rename it"),
        (BASELINE, "subject:", "priority: 1\n      subject:", 6, f"{BANP}spec.priority is not a field that is known"),
        # The cluster's kinds: rules
        (CLUSTER, "action: Accept", "action: Allow", 12, f"{IN}.action is 'Allow'; it must be one of Accept, Deny, Pa"),
        (ADMIN, "action: Allow", "action: Accept", 11, f"{ANP}spec.ingress[1].action is 'Accept'; it must be one of A"),
        (BASELINE, "action: Deny", "action: Pass", 8, f"{BANP}spec.ingress[0].action is 'Pass'; it must be one of All"),
        (CLUSTER, "        action: Accept\n", "", 11, f"{IN}.action is missing; say what the rule does: Accept, Deny,"),
        (CLUSTER, "name: ops", f"name: {'x' * 101}", 11, f"{IN}.name has 101 characters; give it at most 100"),
        (CLUSTER, "from: [{namespaces: {}}]", "from: []", 21, f"{CNP}spec.ingress[1].from is empty; list at least one"),
        (CLUSTER, ", from: [{namespaces: {}}]", "", 21, f"{CNP}spec.ingress[1].from is missing; list at least one pee"),
        (ADMIN, ", to: [{nodes: {}}, {networks: [192.0.2.0/24]}]", "", 20, f"{ANP}spec.egress[0].to is missing; list "),
        (CLUSTER, "protocols:", "ports:", 17, f"{IN}.ports is not a field that is known here; it must be one of name,"),
        (CLUSTER, "protocols: [{tcp: {destinationPort: {number: 22}}}]", "protocols: []", 28,
         f"{OUT}.protocols is empty; list at least one, or leave the field out for every protocol and port"),
        # The cluster's kinds: peers
        (CLUSTER, "- namespaces: {matchLabels: {team: ops}}", "- {}", 14, f"{IN}.from[0] has nothing; give exactly on"),
        (CLUSTER, "- namespaces: {matchLabels: {team: ops}}", "- {namespaces: {}, pods: {podSelector: {}}}", 14,
         f"{IN}.from[0] has namespaces and pods; give exactly one of namespaces, pods"),
        (CLUSTER, "- namespaces: {matchLabels: {team: ops}}", "- nodes: {}", 14,
         f"{IN}.from[0].nodes is not a field that is known here; it must be one of namespaces, pods"),
        (CLUSTER, ", podSelector: {matchLabels: {app: web}}", "", 15, f"{IN}.from[1].pods.podSelector is missing; sel"),
        (ADMIN, "namespaceSelector: {}, ", "", 12, f"{ANP}spec.ingress[1].from[0].pods.namespaceSelector is missing;"),
        (CLUSTER, "[192.0.2.0/24,", "[192.0.2.0,", 26, f"{OUT}.to[1].networks[0] is 192.0.2.0, which is no network's"),
        (CLUSTER, '[192.0.2.0/24, "2001:db8::/32"]', "[]", 26, f"{OUT}.to[1].networks is empty; list at least one, as"),
        (BASELINE, "networks: [192.0.2.0/24]", "domainNames: [example.com]", 10,
         f"{BANP}spec.egress[0].to[0].domainNames is not a field that is known here; it must be one of namespaces, po"),
        (CLUSTER, "networks: [192.0.2.0/24, \"2001:db8::/32\"]", "domainNames: [example.com]", 26,
         f"{OUT}.to[1].domainNames is given in a rule that doesn't accept, where names of domains can't be; use netw"),
        # The cluster's kinds: ports
        (CLUSTER, "- sctp:", "- icmp:", 19, f"{IN}.protocols[2].icmp is not a field that is known here; it must be on"),
        (CLUSTER, "- sctp: {destinationPort: {number: 9}}", "- {}", 19, f"{IN}.protocols[2] has nothing; give exactly"),
        (CLUSTER, "- sctp: {destinationPort: {number: 9}}", "- sctp: {}", 19,
         f"{IN}.protocols[2].sctp.destinationPort is missing; give the port, as destinationPort: {{number: 80}}"),
        (CLUSTER, "{number: 9}", "{}", 19, f"{IN}.protocols[2].sctp.destinationPort has nothing; give exactly one of "),
        (CLUSTER, "{number: 9}", "{number: 0}", 19, f"{IN}.protocols[2].sctp.destinationPort.number is 0 (a number); "),
        (CLUSTER, "end: 8010", "end: 8000", 18, f"{IN}.protocols[1].udp.destinationPort.range.end is 8000, not above "),
        (CLUSTER, "start: 8000, ", "", 18, f"{IN}.protocols[1].udp.destinationPort.range.start is missing; give the f"),
        (CLUSTER, ", end: 8010", "", 18, f"{IN}.protocols[1].udp.destinationPort.range.end is missing; give the last "),
        (CLUSTER, "Port: metrics", "Port: Metrics", 20, f"{IN}.protocols[3].destinationNamedPort is 'Metrics'; the na"),
        (CLUSTER, "[{tcp: {destinationPort: {number: 22}}}]", "[{destinationNamedPort: ssh}]", 28,
         f"{OUT}.protocols[0] names the port 'ssh', but spec.egress[0].to[0] is not of pods, and only they name"),
        (ADMIN, "portNumber: {port: 80}", "portNumber: {}", 14, f"{ANP}spec.ingress[1].ports[0].portNumber.port is mi"),
        (ADMIN, "protocol: UDP", "protocol: X", 15, f"{ANP}spec.ingress[1].ports[1].portNumber.protocol is 'X'; it mu"),
        (ADMIN, "end: 1024", "end: 1", 16, f"{ANP}spec.ingress[1].ports[2].portRange.end is 1, not above start, which"),
        (ADMIN, "namedPort: metrics", "portName: metrics", 18, f"{ANP}spec.ingress[1].ports[4].portName is not a fiel"),
        # Versions
        (NETWORK_POLICY, "k8s.io/v1", "k8s.io/v1beta1", 1,
         f"{NP}apiVersion is networking.k8s.io/v1beta1, in which NetworkPolicy is not read; write it as networking.k8"),
        (NETWORK_POLICY, "networking.k8s.io/v1", "v1", 1, f"{NP}apiVersion is v1, in which NetworkPolicy is not read;"),
        (NETWORK_POLICY, "networking.k8s.io/v1", "extensions/v1beta1", 1, f"{NP}apiVersion is extensions/v1beta1, in "),
        (CLUSTER, "v1alpha2", "v1beta1", 1,
         f"{CNP}apiVersion is policy.networking.k8s.io/v1beta1, in which ClusterNetworkPolicy is not read; write it as "
         "policy.networking.k8s.io/v1alpha2"),
        (ADMIN, "v1alpha1", "v1alpha2", 1,
         f"{ANP}apiVersion is policy.networking.k8s.io/v1alpha2, in which AdminNetworkPolicy is not read; write it as "
         "policy.networking.k8s.io/v1alpha1"),
        (BASELINE, "v1alpha1", "v1", 1, f"{BANP}apiVersion is policy.networking.k8s.io/v1, in which BaselineAdminNetw"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_line_field_and_remedy_and_leaves_nothing_allowed(
    text: str, was: str, becomes: str, line: int, problem: str
) -> None:
    parsed = read(changed(text, was, becomes))
    (told,) = parsed.problems
    assert str(told).startswith(f"file.yaml:{line}: {problem}")
    policy = the_policy(parsed)
    assert policy.subjects == only(text).subjects
    assert policy.fault == told.reason
    closed = () if text == NETWORK_POLICY else DENY_ALL
    assert (policy.ingress, policy.egress) == (closed, closed)
    assert parsed.broken == frozenset()


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ("ingress: [{x: y}]", (), None),
        ("policyTypes: [Ingress], ingress: [{x: y}]", (), None),
        ("policyTypes: [Egress], egress: [{x: y}]", None, ()),
        # A rule without effect counts as far as the policy is refused, as the API server refuses it.
        ("policyTypes: [Egress], ingress: [{x: y}]", None, ()),
        ("egress: [{x: y}]", (), ()),
        ("egress: {x: y}", (), ()),
        ("policyTypes: [x]", (), ()),
        ("policyType: [Ingress]", (), ()),
    ],
)
def test_a_broken_network_policy_is_closed_in_the_directions_that_it_is_about(
    spec: str, ingress: tuple[Rule, ...] | None, egress: tuple[Rule, ...] | None
) -> None:
    policy = the_policy(read(network_policy(spec)))
    assert policy.fault
    assert (policy.ingress, policy.egress) == (ingress, egress)


def test_a_network_policy_without_a_spec_isolates_its_namespace() -> None:
    parsed = read("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x}}")
    (told,) = parsed.problems
    assert str(told).startswith("file.yaml:1: NetworkPolicy default/x: spec is missing; say which pods the policy is f")
    policy = the_policy(parsed)
    assert (policy.subjects, policy.ingress, policy.egress) == (PodSet(namespace="default"), (), ())


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ("ingress: [{}]", DENY_ALL, None),
        ("egress: [{}], ingress: []", None, DENY_ALL),
        ("egress: {}", None, DENY_ALL),
        ("egress: x, ingress: [{}]", DENY_ALL, DENY_ALL),
        ("rules: []", DENY_ALL, DENY_ALL),
    ],
)
@pytest.mark.parametrize(
    ("head", "version", "kind", "name"),
    [
        ("tier: Admin, priority: 5,", "v1alpha2", "ClusterNetworkPolicy", "x"),
        ("priority: 5,", "v1alpha1", "AdminNetworkPolicy", "x"),
        ("", "v1alpha1", "BaselineAdminNetworkPolicy", "default"),
    ],
)
def test_a_broken_cluster_policy_denies_in_its_place_in_the_directions_that_it_has_rules_for(
    head: str, version: str, kind: str, name: str,
    spec: str, ingress: tuple[Rule, ...] | None, egress: tuple[Rule, ...] | None,
) -> None:  # fmt: skip
    policy = the_policy(read(cluster_policy(f"{head} {spec}", version, kind, name)))
    assert policy.fault
    assert (policy.ingress, policy.egress) == (ingress, egress)
    place = (Tier.BASELINE, 1000) if name == "default" else (Tier.ADMIN, 5)
    assert (policy.tier, policy.priority) == place


@pytest.mark.parametrize(
    ("head", "tier", "priority"),
    [
        ("tier: Baseline, priority: 1001", Tier.BASELINE, 0),
        ("tier: Baseline", Tier.BASELINE, 0),
        ("tier: Lowest, priority: 9", Tier.ADMIN, 9),
        ("priority: 9", Tier.ADMIN, 9),
    ],
)
def test_a_cluster_policy_whose_place_can_not_be_told_denies_in_the_first(head: str, tier: Tier, priority: int) -> None:
    policy = the_policy(read(cluster_policy(f"{head}, ingress: [{{action: Accept, from: [{{namespaces: {{}}}}]}}]")))
    assert (policy.tier, policy.priority, policy.ingress, policy.egress) == (tier, priority, DENY_ALL, None)


@pytest.mark.parametrize(
    ("text", "was", "becomes", "line", "problem"),
    [
        (NETWORK_POLICY, "matchLabels: {app: db}", "matchLabels: [app]", 8, f"{NP}spec.podSelector.matchLabels is a l"),
        (NETWORK_POLICY, "matchLabels: {app: db}", "labels: {app: db}", 8, f"{NP}spec.podSelector.labels is not a fie"),
        (NETWORK_POLICY, "policyTypes:", "podSelector: {}\n      policyTypes:", 9, f"{NP}spec.podSelector is given tw"),
        (NETWORK_POLICY, "policyTypes: [Ingress, Egress]", "<<: {}", 9, f"{NP}spec.<< merges another mapping, which i"),
        (CLUSTER, "subject:", "subjects:", 6, f"{CNP}spec has no subject; say which pods the policy is for, as subjec"),
        (CLUSTER, "pods: {podSelector: {matchLabels: {app: db}}}", "{}", 9, f"{CNP}spec.subject has nothing; give exa"),
        (CLUSTER, "pods: {podSelector: {matchLabels: {app: db}}}", "nodes: {}", 9, f"{CNP}spec.subject.nodes is not a"),
        (CLUSTER, "pods: {podSelector: {matchLabels: {app: db}}}", "pods: {}", 9, f"{CNP}spec.subject.pods.podSelecto"),
        (CLUSTER, "spec:", "specs:", 1, f"{CNP}spec is missing; say which pods the policy is for, and its rules"),
        (ADMIN, "namespaces: {matchLabels: {team: web}}", "pods: {podSelector: {}}", 8,
         f"{ANP}spec.subject.pods.namespaceSelector is missing; select the namespaces"),
        (CLUSTER.replace("v1alpha2", "v1"), "subject:", "target:", 1, f"{CNP}apiVersion is policy.networking.k8s.io/v"),
        (NETWORK_POLICY.replace("k8s.io/v1", "k8s.io/v2"), "podSelector", "target", 1,
         f"{NP}apiVersion is networking.k8s.io/v2, in which NetworkPolicy is not read; write it as networking.k8s.io/"),
    ],
)  # fmt: skip
def test_a_policy_that_does_not_say_for_which_pods_it_is_is_broken_like_any_object(
    text: str, was: str, becomes: str, line: int, problem: str
) -> None:
    parsed = read(changed(text, was, becomes))
    (told,) = parsed.problems
    assert str(told).startswith(f"file.yaml:{line}: {problem}")
    assert parsed.declared == ()
    assert len(parsed.broken) == 1


@pytest.mark.parametrize(
    ("limit", "head", "version", "kind"),
    [
        (25, "tier: Admin, priority: 1", "v1alpha2", "ClusterNetworkPolicy"),
        (100, "priority: 1", "v1alpha1", "AdminNetworkPolicy"),
    ],
)
def test_more_entries_than_the_api_takes_are_refused(limit: int, head: str, version: str, kind: str) -> None:
    def told(spec: str) -> str:
        parsed = read(cluster_policy(f"{head}, {spec}", version, kind))
        assert the_policy(parsed).fault
        return parsed.problems[0].reason

    def many(entry: str, count: int) -> str:
        return f"[{', '.join([entry] * count)}]"

    rules = many("{action: Deny, from: [{namespaces: {}}]}", limit + 1)
    assert told(f"ingress: {rules}") == (f"spec.ingress has {limit + 1} entries; the API allows {limit}: divide them")
    peers = many("{namespaces: {}}", limit + 1)
    assert told(f"egress: [{{action: Deny, to: {peers}}}]").startswith(f"spec.egress[0].to has {limit + 1} entries")
    field, port = (
        ("protocols", "{destinationNamedPort: a}") if kind == "ClusterNetworkPolicy" else ("ports", "{namedPort: a}")
    )
    ports = many(port, limit + 1)
    assert told(f"ingress: [{{action: Deny, from: [{{namespaces: {{}}}}], {field}: {ports}}}]").startswith(
        f"spec.ingress[0].{field} has {limit + 1} entries"
    )
    for peer, entry in (("networks", "192.0.2.0/24"), ("domainNames", "example.com")):
        accept = "Accept" if kind == "ClusterNetworkPolicy" else "Allow"
        assert told(f"egress: [{{action: {accept}, to: [{{{peer}: {many(entry, 26)}}}]}}]") == (
            f"spec.egress[0].to[0].{peer} has 26 entries; the API allows 25: divide them"
        )


def test_names_of_domains_are_told_and_left_out_while_the_other_peers_count() -> None:
    rules = (
        "[{action: Accept, to: [{domainNames: [example.com, '*.example.org']}, {networks: [192.0.2.0/24]}]},"
        " {action: Accept, to: [{domainNames: [example.net]}]}, {action: Deny, to: [{networks: [0.0.0.0/0]}]}]"
    )
    parsed = read(cluster_policy(f"tier: Admin, priority: 1, egress: {rules}"))
    ending = (
        "but this controller doesn't know the addresses of domains: the rule does not accept them; list them as netw"
    )
    told = [problem.reason for problem in parsed.problems]
    assert [reason[: len(reason) - len("orks")] for reason in told] == [
        f"spec.egress[0].to[0].domainNames names example.com, *.example.org, {ending}",
        f"spec.egress[1].to[0].domainNames names example.net, {ending}",
    ]
    policy = the_policy(parsed)
    assert policy.fault == "; ".join(told)
    assert policy.egress == (
        Rule(Action.ACCEPT, (IpBlock(ip_network("192.0.2.0/24")),)),
        Rule(Action.ACCEPT, ()),
        Rule(Action.DENY, (IpBlock(ip_network("0.0.0.0/0")),)),
    )


def test_other_projects_kinds_of_the_same_name_are_passed_over() -> None:
    parsed = read("{apiVersion: crd.projectcalico.org/v1, kind: NetworkPolicy, metadata: {name: x}}")
    assert (parsed.declared, parsed.problems) == ((), ())
    assert "is not a kind that is read here: passed over" in str(parsed.notes[0])


# One after the other ----------------------------------------------------------------------------------------------


def in_force(state: ManifestState, text: str) -> tuple[Policy | None, list[str]]:
    """The one policy there is once a file has this text, and what is wrong with it."""
    snapshot = state.update({"file.yaml": dedent(text).encode()})
    policies = [value for value in snapshot.objects.values() if isinstance(value, Policy)]
    assert len(policies) <= 1
    return (policies[0] if policies else None), [problem.reason for problem in snapshot.problems]


@pytest.mark.parametrize(
    ("text", "was", "becomes"),
    [
        (NETWORK_POLICY, "port: 5432", "port: 70000"),
        (CLUSTER, "action: Accept", "action: Allow"),
        (ADMIN, "action: Allow", "action: Accept"),
        (BASELINE, "action: Allow", "action: Pass"),
    ],
)
def test_a_policy_that_breaks_is_closed_until_it_is_put_right(text: str, was: str, becomes: str) -> None:
    state = ManifestState()
    good = only(text)
    assert in_force(state, text) == (good, [])
    broken, problems = in_force(state, changed(text, was, becomes))
    assert broken is not None
    assert problems == [broken.fault]
    assert broken.subjects == good.subjects
    assert broken.ingress == broken.egress == (() if text == NETWORK_POLICY else DENY_ALL)
    assert in_force(state, text) == (good, [])
    # At the controller's start, too.
    assert in_force(ManifestState(), changed(text, was, becomes)) == (broken, problems)


def test_a_policy_whose_subjects_break_stays_as_it_was_and_is_absent_if_it_never_was() -> None:
    state = ManifestState()
    broken = changed(NETWORK_POLICY, "matchLabels: {app: db}", "matchLabels: 1")
    assert in_force(state, NETWORK_POLICY) == (only(NETWORK_POLICY), [])
    policy, problems = in_force(state, broken)
    assert policy == only(NETWORK_POLICY)
    assert len(problems) == 1
    policy, problems = in_force(ManifestState(), broken)
    assert policy is None
    assert len(problems) == 1


def test_a_policy_that_is_deleted_is_gone_and_one_declared_twice_is_told() -> None:
    state = ManifestState()
    in_force(state, NETWORK_POLICY)
    policy, problems = in_force(state, NETWORK_POLICY + "    ---\n" + NETWORK_POLICY)
    assert policy == only(NETWORK_POLICY)
    assert problems == ["is declared at file.yaml:1 too; remove one of them"]
    assert in_force(state, "") == (None, [])


def test_the_namespace_of_a_policy_is_there() -> None:
    assert ("Namespace", "", "shop") in ManifestState().update({"f": dedent(NETWORK_POLICY).encode()}).objects


@given(
    st.sampled_from([NETWORK_POLICY, CLUSTER, ADMIN, BASELINE]),
    st.integers(0, 1200),
    st.integers(0, 40),
    st.text(alphabet=st.characters(codec="utf-8"), max_size=5),
)
def test_a_damaged_policy_is_read_or_told_and_what_is_told_leaves_nothing_allowed(
    text: str, at: int, length: int, instead: str
) -> None:
    plain = dedent(text)
    damaged = plain[:at] + instead + plain[at + length :]
    parsed = parse("x", damaged.encode())
    assert parsed.declared or parsed.problems or parsed.notes or not damaged.strip("-. \n")
    for item in parsed.declared:
        if isinstance(item.value, Policy) and item.value.fault:
            assert item.value.fault in {problem.reason for problem in parsed.problems}
            allowing = (item.value.ingress or ()) + (item.value.egress or ())
            assert all(rule == Rule(Action.DENY) for rule in allowing)


def test_the_documented_problem_is_the_one_that_is_told() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "manifests.md").read_text()
    (line,) = re.findall(r"^deny\.yaml:\d+: NetworkPolicy shop/db: (.*)$", docs, re.MULTILINE)
    (told,) = read(changed(NETWORK_POLICY, "- from:", "- form:")).problems
    assert told.reason == line
