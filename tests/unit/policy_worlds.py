"""Hypothesis strategies for small clusters with policies of every kind, as raw objects, and questions about them.

Objects are what an API server would give: valid, with the defaults that it sets at times left out. Selectors and CIDRs
are made around pods that are there, so that most of them hit something and many miss something. Addresses are those of
`fabric`: node n is 172.30.0.n, and its pods have the places from 2 up in the order in which they are listed.

Of what the API texts leave open the worlds have: equal priorities, ports' names on peers that are addresses, pods in
the host's network. They don't have fields that nobody knows, pods that have ended, sidecars, or `domainNames`.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import chain, islice, zip_longest
from typing import Any, NamedTuple, TypeVar

from hypothesis import strategies as st
from policy_oracle import Party, World, verdict

Raw = dict[str, Any]
Network = IPv4Network | IPv6Network

#: Addresses outside of the cluster, around the edges of the blocks below.
OUTSIDE = {
    4: ("192.0.2.1", "192.0.2.127", "192.0.2.128", "192.0.2.200", "198.51.100.7"),
    6: ("2001:db8::1", "2001:db8::7fff", "2001:db8::8000", "2001:db8::1:0", "2001:db8:1::7"),
}
_NAMESPACES = ("red", "green", "blue")
_PORTS = (53, 80, 81, 443, 8080, 8081, 9000)
_PROTOCOLS = ("TCP", "UDP", "SCTP")
#: Every label that a pod, a namespace or a node can have, with its values.
_POD_LABELS = {"app": ("web", "db", "cache"), "tier": ("front", "back")}
_NAMESPACE_LABELS = {"team": ("a", "b"), "env": ("prod", "dev")}
_NODE_LABELS = {"zone": ("east", "west")}
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
HASH, POD_NAME = "pod-template-hash", "statefulset.kubernetes.io/pod-name"


_T = TypeVar("_T")


class Question(NamedTuple):
    """What to ask the oracle, and the product: in the order of `verdict`'s arguments. ICMP's port is 0."""

    source: Party
    destination: Party
    protocol: str
    port: int
    version: int


class Case(NamedTuple):
    """A cluster's objects, and a choice of the questions about it."""

    objects: list[Raw]
    questions: list[Question]


@st.composite
def cases(draw: st.DrawFn, most: int = 40) -> Case:
    """A world with at most so many questions, chosen so that as many rules as possible decide one. All: `questions`."""
    objects = draw(worlds())
    return Case(objects, _choice(objects, draw(st.integers(0, 2**32 - 1)), most))


def _choice(objects: list[Raw], seed: int, most: int) -> list[Question]:
    """Some questions by chance, then of those in turn one for each answer that the oracle gives."""
    everything = questions(objects)
    chance = random.Random(seed)
    answers: defaultdict[object, list[Question]] = defaultdict(list)
    world = World(objects)
    for question in chance.sample(everything, min(len(everything), 8 * most)):
        answer = verdict(world, *question)
        answers[answer.egress, answer.ingress].append(question)
    in_turn = chain.from_iterable(zip_longest(*answers.values()))
    return list(islice((each for each in in_turn if each is not None), most))


@st.composite
def worlds(draw: st.DrawFn) -> list[Raw]:
    """Namespaces, nodes, pods, and policies of every kind: the objects of one cluster."""
    namespaces = draw(st.lists(_namespace_labels, min_size=2, max_size=3))
    nodes = [
        _node(number, labels) for number, labels in enumerate(draw(st.lists(_node_labels, min_size=2, max_size=3)))
    ]
    named = list(zip(_NAMESPACES, namespaces, strict=False))
    made = [_namespace(name, labels, draw(st.booleans())) for name, labels in named]
    cluster = Cluster(made, nodes, draw(_pods(_NAMESPACES[: len(made)], len(nodes))))
    network_policies = draw(_sized(_network_policies(cluster), 0, 1, 2, 3, 4, 5, 2, 3, 4, 5))
    cluster_policies = _singletons(draw(_sized(_cluster_policies(cluster), 0, 1, 2, 3, 4, 2, 3, 4, 4)))
    for number, policy in enumerate([*network_policies, *cluster_policies]):
        if policy["kind"] != "BaselineAdminNetworkPolicy":
            # Names that run against the order of the list: what sorts first is not what was seen first.
            policy["metadata"]["name"] = f"policy-{9 - number}"
    return [*made, *nodes, *cluster.pods, *network_policies, *cluster_policies]


def _sized(elements: st.SearchStrategy[_T], *sizes: int) -> st.SearchStrategy[list[_T]]:
    """Lists of these sizes, as often as each is named: hypothesis' own would mostly be short, and little happen."""
    return st.sampled_from(sizes).flatmap(lambda size: st.lists(elements, min_size=size, max_size=size))


def _singletons(policies: list[Raw]) -> list[Raw]:
    """BaselineAdminNetworkPolicy `default` is the only one of its kind: any more are left out."""
    single = [each for each in policies if each["kind"] == "BaselineAdminNetworkPolicy"]
    return [each for each in policies if each not in single[1:]]


class Cluster(NamedTuple):
    """What policies can speak of."""

    namespaces: list[Raw]
    nodes: list[Raw]
    pods: list[Raw]

    def labels(self, namespace: str) -> Mapping[str, str]:
        """A namespace's labels, with the one that all have."""
        found = next(each for each in self.namespaces if each["metadata"]["name"] == namespace)
        return {"kubernetes.io/metadata.name": namespace, **found["metadata"]["labels"]}


# Namespaces, nodes and pods -----------------------------------------------------------------------------------------


def _some(labels: Mapping[str, Sequence[str]]) -> st.SearchStrategy[dict[str, str]]:
    """Some of the labels, with some of their values."""
    return st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in labels.items()})


_namespace_labels = _some(_NAMESPACE_LABELS)
_node_labels = _some({**_NODE_LABELS, CONTROL_PLANE: ("",)})


def _namespace(name: str, labels: Mapping[str, str], defaulted: bool) -> Raw:
    """A namespace. The API server adds a label with its name; a file need not have it."""
    own = {"kubernetes.io/metadata.name": name} if defaulted else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**labels, **own}}}


def _node(index: int, labels: Mapping[str, str]) -> Raw:
    number = index + 1
    name = f"n{number}"
    cidrs = [f"10.244.{number}.0/24", f"fd00:10:244:{number:x}::/64"]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": name},
                *({"type": "InternalIP", "address": address} for address in _node_addresses(number)),
            ]
        },
    }


def _node_addresses(number: int) -> list[str]:
    return [f"172.30.0.{number}", f"fd00:172:30::{number:x}"]


@st.composite
def _pods(draw: st.DrawFn, namespaces: Sequence[str], nodes: int) -> list[Raw]:
    pods: list[Raw] = []
    taken = dict.fromkeys(range(1, nodes + 1), 2)
    hosted = draw(st.sampled_from([None, None, 0, 3]))
    for index in range(draw(st.integers(4, 8))):
        number = draw(st.integers(1, nodes))
        if index == hosted:
            addresses = _node_addresses(number)
        else:
            addresses = [f"10.244.{number}.{taken[number]}", f"fd00:10:244:{number:x}::{taken[number]:x}"]
            taken[number] += 1
        name = f"p{index}"
        labels = draw(_some({**_POD_LABELS, HASH: ("5c6f7", "7d9b8"), POD_NAME: (name,)}))
        spec: Raw = {"nodeName": f"n{number}", "containers": draw(_containers())}
        if index == hosted:
            spec["hostNetwork"] = True
        pods.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": draw(st.sampled_from(namespaces)), "labels": labels},
                "spec": spec,
                "status": {
                    "phase": "Running",
                    "hostIP": _node_addresses(number)[0],
                    "podIP": addresses[0],
                    "podIPs": [{"ip": address} for address in addresses],
                },
            }
        )
    return pods


#: What the ports of containers are called, and which they can be: names mean other ports on other pods.
_NAMED = {
    "http": [("TCP", 80), ("TCP", 8080)],
    "dns": [("UDP", 53), ("TCP", 53)],
    "signal": [("SCTP", 9000), ("TCP", 81)],
}


@st.composite
def _containers(draw: st.DrawFn) -> list[Raw]:
    containers: list[Raw] = [{"name": "main", "image": "main"}, {"name": "second", "image": "second"}]
    for name in draw(st.lists(st.sampled_from(sorted(_NAMED)), max_size=3, unique=True)):
        protocol, number = draw(st.sampled_from(_NAMED[name]))
        port: Raw = {"name": name, "containerPort": number}
        if protocol != "TCP" or draw(st.booleans()):
            port["protocol"] = protocol
        draw(st.sampled_from(containers)).setdefault("ports", []).append(port)
    return containers


# Selectors and CIDRs ------------------------------------------------------------------------------------------------


@st.composite
def _selectors(draw: st.DrawFn, labels: Mapping[str, str], others: Mapping[str, Sequence[str]]) -> Raw:
    """A selector that mostly selects what has these labels. `others` are those that it could have."""
    selector: Raw = {}
    kinds = draw(st.sampled_from(["", "", "labels", "labels", "labels", "expressions", "expressions", "both"]))
    if kinds in ("labels", "both") and labels:
        keys = draw(st.lists(st.sampled_from(sorted(labels)), min_size=1, max_size=2, unique=True))
        selector["matchLabels"] = {key: labels[key] for key in keys}
    if kinds in ("expressions", "both"):
        listed = st.lists(_expressions(labels, others), min_size=1, max_size=2)
        selector["matchExpressions"] = draw(listed)
    return selector


@st.composite
def _expressions(draw: st.DrawFn, labels: Mapping[str, str], others: Mapping[str, Sequence[str]]) -> Raw:
    key = draw(st.sampled_from(sorted({*labels, *others})))
    values = others.get(key, (labels.get(key, ""),))
    if draw(st.integers(0, 4)) == 0:
        operator = draw(st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]))
    else:
        operator = draw(st.sampled_from(["In", "Exists"] if key in labels else ["NotIn", "DoesNotExist"]))
    if operator in ("Exists", "DoesNotExist"):
        return {"key": key, "operator": operator}
    listed = draw(st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True))
    if operator == "In" and key in labels and labels[key] not in listed:
        listed.append(labels[key])
    return {"key": key, "operator": operator, "values": listed}


def _blocks(cluster: Cluster) -> list[Network]:
    """Blocks that have an edge between parties: all pods, one node's, one pod, nodes, the outside, everything."""
    texts = [
        *("0.0.0.0/0", "10.244.0.0/16", "172.30.0.0/24", "192.0.2.0/24", "192.0.2.0/25", "192.0.2.128/26"),
        *("::/0", "fd00:10:244::/48", "fd00:172:30::/64", "2001:db8::/32", "2001:db8::/112", "2001:db8::8000/113"),
    ]
    for number, node in enumerate(cluster.nodes, 1):
        texts += [*node["spec"]["podCIDRs"], *_node_addresses(number)]
        # Half of the first pods of a node.
        texts += [f"10.244.{number}.0/30", f"fd00:10:244:{number:x}::/126"]
    texts += [each["ip"] for pod in cluster.pods for each in pod["status"]["podIPs"]]
    return [ip_network(text) for text in dict.fromkeys(texts)]


@st.composite
def _ip_blocks(draw: st.DrawFn, cluster: Cluster) -> Raw:
    blocks = _blocks(cluster)
    block = draw(st.sampled_from(blocks))
    inside = [str(each) for each in blocks if each != block and _within(each, block)]
    if not inside or draw(st.booleans()):
        return {"cidr": str(block)}
    return {"cidr": str(block), "except": draw(st.lists(st.sampled_from(inside), min_size=1, max_size=2, unique=True))}


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


@st.composite
def _pod_selectors(draw: st.DrawFn, pod: Raw) -> Raw:
    labels = pod["metadata"]["labels"]
    name = pod["metadata"]["name"]
    return draw(_selectors(labels, {**_POD_LABELS, HASH: ("5c6f7", "7d9b8"), POD_NAME: (name,)}))


@st.composite
def _namespace_selectors(draw: st.DrawFn, cluster: Cluster, pod: Raw) -> Raw:
    labels = cluster.labels(pod["metadata"]["namespace"])
    names = tuple(each["metadata"]["name"] for each in cluster.namespaces)
    return draw(_selectors(labels, {**_NAMESPACE_LABELS, "kubernetes.io/metadata.name": names}))


# NetworkPolicy ------------------------------------------------------------------------------------------------------


@st.composite
def _network_policies(draw: st.DrawFn, cluster: Cluster) -> Raw:
    pod = draw(st.sampled_from(cluster.pods))
    spec: Raw = {"podSelector": draw(_pod_selectors(pod))}
    namespace = pod["metadata"]["namespace"]
    types = draw(st.sampled_from([None, None, ["Ingress"], ["Egress"], ["Ingress", "Egress"], []]))
    if types is not None:
        spec["policyTypes"] = types
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        if draw(st.integers(0, 3)) > 0:
            spec[direction] = draw(_sized(_network_policy_rules(cluster, namespace, peers), 0, 1, 1, 2))
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "", "namespace": namespace},
        "spec": spec,
    }


@st.composite
def _network_policy_rules(draw: st.DrawFn, cluster: Cluster, namespace: str, field: str) -> Raw:
    rule: Raw = {}
    peers = draw(_sized(_network_policy_peers(cluster, namespace), 0, 1, 1, 2))
    ports = draw(_sized(_network_policy_ports, 0, 0, 1, 2))
    # An empty list says what a missing one says.
    if draw(st.booleans()) or peers:
        rule[field] = peers
    if draw(st.booleans()) or ports:
        rule["ports"] = ports
    return rule


@st.composite
def _network_policy_peers(draw: st.DrawFn, cluster: Cluster, namespace: str) -> Raw:
    kind = draw(st.sampled_from(["pods", "pods", "namespaces", "both", "block", "block"]))
    if kind == "block":
        return {"ipBlock": draw(_ip_blocks(cluster))}
    neighbours = [pod for pod in cluster.pods if pod["metadata"]["namespace"] == namespace]
    pod = draw(st.sampled_from(neighbours if kind == "pods" else cluster.pods))
    peer: Raw = {}
    if kind != "namespaces":
        peer["podSelector"] = draw(_pod_selectors(pod))
    if kind != "pods":
        peer["namespaceSelector"] = draw(_namespace_selectors(cluster, pod))
    return peer


@st.composite
def _spans(draw: st.DrawFn) -> tuple[int, int]:
    """Two ports, the second one higher: often all of them, or two neighbours."""
    start = draw(st.sampled_from([1, 53, 80, 8000, 65534]))
    return start, draw(st.sampled_from([end for end in (54, 81, 8080, 9000, 65535) if end > start]))


@st.composite
def _network_policy_port(draw: st.DrawFn) -> Raw:
    entry: Raw = {}
    protocol = draw(st.sampled_from([None, *_PROTOCOLS]))
    if protocol is not None:
        entry["protocol"] = protocol
    kind = draw(st.sampled_from(["any", "number", "number", "name", "name", "range"]))
    if kind == "number":
        entry["port"] = draw(st.sampled_from(_PORTS))
    elif kind == "name":
        entry["port"] = draw(st.sampled_from(sorted(_NAMED)))
    elif kind == "range":
        entry["port"], entry["endPort"] = draw(_spans())
        if draw(st.integers(0, 3)) == 0:
            entry["endPort"] = entry["port"]
    return entry


_network_policy_ports = _network_policy_port()


# Cluster-wide policies ----------------------------------------------------------------------------------------------

_KINDS = (
    ("ClusterNetworkPolicy", "Admin"),
    ("ClusterNetworkPolicy", "Admin"),
    ("ClusterNetworkPolicy", "Baseline"),
    ("ClusterNetworkPolicy", "Baseline"),
    ("AdminNetworkPolicy", "Admin"),
    ("AdminNetworkPolicy", "Admin"),
    ("BaselineAdminNetworkPolicy", "Baseline"),
    ("BaselineAdminNetworkPolicy", "Baseline"),
)


@st.composite
def _cluster_policies(draw: st.DrawFn, cluster: Cluster) -> Raw:
    kind, tier = draw(st.sampled_from(_KINDS))
    spec: Raw = {"subject": draw(_selections(cluster))}
    if kind == "ClusterNetworkPolicy":
        spec["tier"] = tier
    if kind != "BaselineAdminNetworkPolicy":
        # Few, so that some are equal.
        spec["priority"] = draw(st.sampled_from([0, 10, 10, 20, 1000]))
    for direction in draw(st.sampled_from([("ingress",), ("egress",), ("ingress", "egress")])):
        spec[direction] = draw(_sized(_cluster_rules(cluster, kind, direction), 1, 2, 3))
    version = "v1alpha2" if kind == "ClusterNetworkPolicy" else "v1alpha1"
    return {
        "apiVersion": f"policy.networking.k8s.io/{version}",
        "kind": kind,
        "metadata": {"name": "default"},
        "spec": spec,
    }


@st.composite
def _selections(draw: st.DrawFn, cluster: Cluster) -> Raw:
    """A subject, or a peer that is pods."""
    pod = draw(st.sampled_from(cluster.pods))
    namespaces = draw(_namespace_selectors(cluster, pod))
    if draw(st.booleans()):
        return {"namespaces": namespaces}
    return {"pods": {"namespaceSelector": namespaces, "podSelector": draw(_pod_selectors(pod))}}


@st.composite
def _cluster_rules(draw: st.DrawFn, cluster: Cluster, kind: str, direction: str) -> Raw:
    allow = "Accept" if kind == "ClusterNetworkPolicy" else "Allow"
    actions = [allow, "Deny"] if kind == "BaselineAdminNetworkPolicy" else [allow, "Deny", "Pass"]
    rule: Raw = {"action": draw(st.sampled_from(actions))}
    if draw(st.booleans()):
        rule["name"] = "rule"
    peer = _egress_peers(cluster) if direction == "egress" else _selections(cluster)
    peers = draw(_sized(peer, 1, 1, 2))
    rule["from" if direction == "ingress" else "to"] = peers
    # Names of ports don't go with peers that are addresses: validation refuses it.
    names = all(not each.keys() & {"nodes", "networks"} for each in peers)
    entry = _protocol_entries(names) if kind == "ClusterNetworkPolicy" else _port_entries(names)
    if draw(st.booleans()):
        listed = draw(_sized(entry, 1, 2))
        rule["protocols" if kind == "ClusterNetworkPolicy" else "ports"] = listed
    return rule


@st.composite
def _egress_peers(draw: st.DrawFn, cluster: Cluster) -> Raw:
    kind = draw(st.sampled_from(["pods", "pods", "nodes", "networks"]))
    if kind == "pods":
        return draw(_selections(cluster))
    if kind == "networks":
        listed = st.lists(st.sampled_from(_blocks(cluster)).map(str), min_size=1, max_size=3, unique=True)
        return {"networks": draw(listed)}
    node = draw(st.sampled_from(cluster.nodes))
    others = {**_NODE_LABELS, CONTROL_PLANE: ("",), "kubernetes.io/hostname": ("n1", "n2", "n3")}
    return {"nodes": draw(_selectors(node["metadata"]["labels"], others))}


@st.composite
def _protocol_entries(draw: st.DrawFn, names: bool) -> Raw:
    """An entry of v1alpha2's `protocols`."""
    kind = draw(st.sampled_from(["number", "number", "range", *(["name", "name"] if names else [])]))
    if kind == "name":
        return {"destinationNamedPort": draw(st.sampled_from(sorted(_NAMED)))}
    if kind == "number":
        port: Raw = {"number": draw(st.sampled_from(_PORTS))}
    else:
        start, end = draw(_spans())
        port = {"range": {"start": start, "end": end}}
    return {draw(st.sampled_from(_PROTOCOLS)).lower(): {"destinationPort": port}}


@st.composite
def _port_entries(draw: st.DrawFn, names: bool) -> Raw:
    """An entry of v1alpha1's `ports`."""
    kind = draw(st.sampled_from(["portNumber", "portNumber", "portRange", *(["namedPort"] * 2 if names else [])]))
    if kind == "namedPort":
        return {"namedPort": draw(st.sampled_from(sorted(_NAMED)))}
    protocol = draw(st.sampled_from([None, *_PROTOCOLS]))
    port: Raw = {} if protocol is None else {"protocol": protocol}
    if kind == "portNumber":
        return {kind: {**port, "port": draw(st.sampled_from(_PORTS))}}
    start, end = draw(_spans())
    return {kind: {**port, "start": start, "end": end}}


# Questions ----------------------------------------------------------------------------------------------------------


def questions(objects: Iterable[Mapping[str, Any]]) -> list[Question]:
    """Every question worth asking: any two parties of which one is a pod, on the ports around which policies turn.

    A pod in the host's network is asked about as its node. A pod isn't asked about itself: `policy_oracle` says why.
    """
    listed = list(objects)
    pods = [each for each in listed if each["kind"] == "Pod" and not each["spec"].get("hostNetwork")]
    nodes = [Party(node=each["metadata"]["name"]) for each in listed if each["kind"] == "Node"]
    inner = [Party(pod=f"{each['metadata']['namespace']}/{each['metadata']['name']}") for each in pods]
    found: list[Question] = []
    for version in (4, 6):
        outer = [*nodes, *(Party(address=address) for address in OUTSIDE[version])]
        pairs = [
            *((source, destination) for source in inner for destination in inner if source != destination),
            *((source, destination) for source in inner for destination in outer),
            *((source, destination) for source in outer for destination in inner),
        ]
        asked = [*interesting_ports(listed), ("ICMP", 0)]
        found += [Question(*pair, protocol, port, version) for pair in pairs for protocol, port in asked]
    return found


def interesting_ports(objects: Iterable[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Ports that policies and containers name, edges of ranges and what lies beyond, each with every protocol."""
    edges = {80}
    for each in objects:
        _collect(each.get("spec", {}), edges)
    return [(protocol, port) for port in sorted(edges) if 1 <= port <= 65535 for protocol in _PROTOCOLS]


def _collect(value: object, edges: set[int]) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, int) and key in ("port", "number", "containerPort"):
                edges.add(inner)
            if isinstance(inner, int) and key in ("start", "end", "endPort"):
                edges.update((inner - 1, inner, inner + 1))
            _collect(inner, edges)
        if "endPort" in value:
            edges.add(value["port"] - 1)
    elif isinstance(value, list):
        for inner in value:
            _collect(inner, edges)


def address_of(objects: Iterable[Mapping[str, Any]], party: Party, version: int) -> str:
    """The address that a party has in these worlds, for those who send packets."""
    if party.address:
        return party.address
    for each in objects:
        metadata = each["metadata"]
        if each["kind"] == "Pod" and party.pod == f"{metadata.get('namespace', '')}/{metadata['name']}":
            listed: list[str] = [item["ip"] for item in each["status"]["podIPs"]]
        elif each["kind"] == "Node" and party.node == metadata["name"]:
            listed = [item["address"] for item in each["status"]["addresses"] if item["type"] == "InternalIP"]
        else:
            continue
        return next(text for text in listed if ip_address(text).version == version)
    raise LookupError(str(party))
