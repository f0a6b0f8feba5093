"""What network policies say of a connection, straight from the API texts: the oracle that tests hold the product to.

It reads Kubernetes objects as the dicts that YAML gives, imports nothing but the standard library, and takes no short
cut: each question walks through every policy. Objects are taken to be valid.

A question is about a connection as it is opened: the original source, and the destination once a Service's address has
been turned into an endpoint's. Replies to what was allowed, and ICMP errors about it, are allowed and not asked about.

How it is judged: egress for the pod that sends, ingress for the pod that receives, and both must allow. Each goes
through three tiers, and the first that decides has the last word:

1. Admin: rules of the cluster-wide policies in the order of precedence; the first that matches decides, or passes on.
2. NetworkPolicy: if any selects the pod for this direction, what none of them allows is refused.
3. Baseline: as Admin. Where nothing decided, all is allowed.

Where the API texts leave a choice, this is the one taken:

- Policies of one tier and priority: by kind, then by name. A BaselineAdminNetworkPolicy has priority 1000.
- A pod in the host's network is its node: no policy's subject, no selector's peer, no bearer of named ports. Addresses
  find it (`ipBlock`, `networks`, `nodes`).
- Its own node may always reach a pod, whatever a policy says. The other way a pod's node is judged as any address is:
  the reference of NetworkPolicy and the concept page's section on isolation exempt traffic *from* the node alone
  (though that page's opening says "to and from"), and `nodes` peers would else be of no use there.
- Addresses are matched by who has them now: an address of a pod or node is that pod or node, however it is asked about.
  A pod that has ended (Succeeded, Failed) has none.
- A name of a port is looked up on the destination pod, whichever peer of the rule matched, `ipBlock` too; on what is no
  pod it matches nothing. NetworkPolicy's entry has a protocol that the container's port must have as well; in the
  cluster-wide policies the container's port says the protocol. Sidecars (init containers that always restart) count.
- ICMP has no ports: rules without ports match it, rules with ports don't.
- A pod that reaches itself is judged as any two pods are. That is what the product does with a Service's traffic that
  comes back to its client; what a pod sends to its own address never leaves the pod, so nobody judges it.
- A rule with a peer or protocol that isn't known here fails closed: Accept matches nothing, Deny and Pass deny all.
  `domainNames` is such a peer, since nothing here knows which names an address has.
- `tcp: {}` in a ClusterNetworkPolicy is every TCP port (the overview says so; the type's validation forbids it).
- Every namespace has the label kubernetes.io/metadata.name, whether the object says so or not; a namespace that has no
  object has that label only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

Object = Mapping[str, Any]
Address = IPv4Address | IPv6Address

#: The API of each kind of policy: what has another is a slip in a test.
APIS = {
    "NetworkPolicy": "networking.k8s.io/v1",
    "ClusterNetworkPolicy": "policy.networking.k8s.io/v1alpha2",
    "AdminNetworkPolicy": "policy.networking.k8s.io/v1alpha1",
    "BaselineAdminNetworkPolicy": "policy.networking.k8s.io/v1alpha1",
}
PROTOCOLS = ("TCP", "UDP", "SCTP", "ICMP")
BASELINE_PRIORITY = 1000


@dataclass(frozen=True, order=True)
class Party:
    """One end of a connection, as a question names it: exactly one field is set. `pod` is `namespace/name`."""

    pod: str = ""
    node: str = ""
    address: str = ""

    def __str__(self) -> str:
        return f"pod {self.pod}" if self.pod else f"node {self.node}" if self.node else self.address


class Decision(NamedTuple):
    """What one direction came to, and what decided it: `ClusterNetworkPolicy web egress[2]`, `default`.

    `passed` are the rules that passed it on to the next tier before.
    """

    allowed: bool
    reason: str
    passed: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """Whether a connection is allowed. `direction` is the one that refuses, and `reason` says why.

    Each direction's own decision is None where no pod is there to be judged. Egress is named first if both refuse.
    """

    allowed: bool
    direction: str
    reason: str
    egress: Decision | None
    ingress: Decision | None


class End(NamedTuple):
    """One end of a connection, as policies see it. `pod` is one that has a network of its own.

    `node` is the node that a pod runs on, or that has the address; empty for what is outside.
    """

    address: Address
    pod: Object | None
    node: str


class Connection(NamedTuple):
    source: End
    destination: End
    protocol: str
    port: int


class World:
    """A cluster's objects, by kind."""

    def __init__(self, objects: Iterable[Object]) -> None:
        self.namespaces: dict[str, Mapping[str, str]] = {}
        self.nodes: dict[str, Object] = {}
        self.pods: dict[str, Object] = {}
        self.network_policies: list[Object] = []
        self.cluster_policies: list[Object] = []
        for each in objects:
            self._put(each)
        #: Who has each address now.
        self._ends: dict[Address, End] = {}
        for name, node in self.nodes.items():
            self._ends |= {address: End(address, None, name) for address in _node_addresses(node)}
        for pod in self.pods.values():
            if not _host_network(pod):
                node_name = pod["spec"].get("nodeName", "")
                self._ends |= {address: End(address, pod, node_name) for address in _pod_addresses(pod)}

    def _put(self, each: Object) -> None:
        kind = each["kind"]
        if kind in APIS and each["apiVersion"] != APIS[kind]:
            raise ValueError(f"{kind} of {each['apiVersion']}")
        if kind == "Namespace":
            self.namespaces[_name(each)] = _labels(each)
        elif kind == "Node":
            self.nodes[_name(each)] = each
        elif kind == "Pod":
            self.pods[f"{_namespace(each)}/{_name(each)}"] = each
        elif kind == "NetworkPolicy":
            self.network_policies.append(each)
        elif kind in APIS:
            self.cluster_policies.append(each)

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        return {**self.namespaces.get(name, {}), "kubernetes.io/metadata.name": name}

    def end(self, party: Party, version: int) -> End:
        """Who a party is: whoever has its address. LookupError if it has none of that version."""
        if party.pod:
            pod = self.pods[party.pod]
            if _host_network(pod):
                return self.end(Party(node=pod["spec"]["nodeName"]), version)
            addresses = _pod_addresses(pod)
        elif party.node:
            addresses = _node_addresses(self.nodes[party.node])
        else:
            addresses = [_address(party.address)]
        address = next((each for each in addresses if each.version == version), None)
        if address is None:
            raise LookupError(f"{party} has no IPv{version} address")
        return self._ends.get(address) or End(address, None, "")


def verdict(world: World, source: Party, destination: Party, protocol: str, port: int, version: int) -> Verdict:
    """Whether `source` may open a connection to a port of `destination` by IPv4 or IPv6. ICMP ignores the port."""
    if protocol not in PROTOCOLS:
        raise ValueError(protocol)
    connection = Connection(world.end(source, version), world.end(destination, version), protocol, port)
    egress = _judge(world, "egress", connection) if connection.source.pod is not None else None
    ingress = _judge(world, "ingress", connection) if connection.destination.pod is not None else None
    for direction, decision in (("egress", egress), ("ingress", ingress)):
        if decision is not None and not decision.allowed:
            return Verdict(False, direction, decision.reason, egress, ingress)
    reasons = [decision.reason for decision in (egress, ingress) if decision is not None]
    return Verdict(True, "", ", ".join(dict.fromkeys(reasons)) or "default", egress, ingress)


def _judge(world: World, direction: str, connection: Connection) -> Decision:
    """What the pod at one end has to say."""
    if direction == "ingress":
        subject, peer = connection.destination, connection.source
        if peer.pod is None and peer.node and peer.node == subject.node:
            return Decision(True, "own node")
    else:
        subject, peer = connection.source, connection.destination
    assert subject.pod is not None
    passed: list[str] = []
    decision = (
        _cluster_tier(world, "Admin", direction, subject.pod, peer, connection, passed)
        or _network_policies(world, direction, subject.pod, peer, connection)
        or _cluster_tier(world, "Baseline", direction, subject.pod, peer, connection, passed)
        or Decision(True, "default")
    )
    return decision._replace(passed=tuple(passed))


# Cluster-wide policies ----------------------------------------------------------------------------------------------


def _cluster_tier(
    world: World, tier: str, direction: str, subject: Object, peer: End, connection: Connection, passed: list[str]
) -> Decision | None:
    """What a tier of cluster-wide policies decides: None if no rule matches, or the first that does passes on.

    A rule that passes on is added to `passed`.
    """
    for policy in sorted(world.cluster_policies, key=_precedence):
        if _tier(policy) != tier or not _selects_pod(world, policy["spec"]["subject"], subject):
            continue
        for index, rule in enumerate(policy["spec"].get(direction) or ()):
            reason = f"{policy['kind']} {_name(policy)} {direction}[{index}]"
            accepts = rule["action"] in ("Accept", "Allow")
            peers = rule.get("from" if direction == "ingress" else "to") or ()
            if not _understood(direction, peers, rule):
                if accepts:
                    continue
                return Decision(False, reason)
            if not any(_is_cluster_peer(world, each, peer) for each in peers) or not _has_protocol(rule, connection):
                continue
            if rule["action"] != "Pass":
                return Decision(accepts, reason)
            passed.append(reason)
            return None
    return None


def _tier(policy: Object) -> str:
    if policy["kind"] == "ClusterNetworkPolicy":
        return str(policy["spec"]["tier"])
    return "Admin" if policy["kind"] == "AdminNetworkPolicy" else "Baseline"


def _precedence(policy: Object) -> tuple[int, str, str]:
    baseline = policy["kind"] == "BaselineAdminNetworkPolicy"
    return BASELINE_PRIORITY if baseline else policy["spec"]["priority"], policy["kind"], _name(policy)


def _understood(direction: str, peers: Sequence[Object], rule: Object) -> bool:
    """Whether every peer and protocol of a rule has the one field that says what it is. Sources are pods only."""
    kinds = ("namespaces", "pods") if direction == "ingress" else ("namespaces", "pods", "nodes", "networks")
    protocols = ("tcp", "udp", "sctp", "destinationNamedPort", "portNumber", "portRange", "namedPort")
    return all(_field(peer, *kinds) for peer in peers) and all(
        _field(each, *protocols) for each in rule.get("protocols") or rule.get("ports") or ()
    )


def _field(of: Object, *names: str) -> str:
    """Which of the fields is set: one that is there but empty is set."""
    return next((name for name in names if of.get(name) is not None), "")


def _selects_pod(world: World, selection: Object, pod: Object) -> bool:
    """Whether a subject, or a peer that is a selection of pods, has a pod."""
    labels = world.namespace_labels(_namespace(pod))
    if _field(selection, "namespaces", "pods") == "namespaces":
        return selects(selection["namespaces"], labels)
    pods = selection["pods"]
    return selects(pods.get("namespaceSelector"), labels) and selects(pods.get("podSelector"), _labels(pod))


def _is_cluster_peer(world: World, peer: Object, end: End) -> bool:
    match _field(peer, "namespaces", "pods", "nodes", "networks"):
        case "networks":
            return any(_contains(cidr, end.address) for cidr in peer["networks"])
        case "nodes":
            chosen = [node for node in world.nodes.values() if selects(peer["nodes"], _labels(node))]
            return any(end.address in _node_addresses(node) for node in chosen)
        case _:
            return end.pod is not None and _selects_pod(world, peer, end.pod)


def _has_protocol(rule: Object, connection: Connection) -> bool:
    """Whether a rule is for the connection's protocol and port: v1alpha2 lists `protocols`, v1alpha1 `ports`."""
    entries = rule.get("protocols") or rule.get("ports") or ()
    return not entries or any(_is_protocol(entry, connection) for entry in entries)


def _is_protocol(entry: Object, connection: Connection) -> bool:
    port = connection.port
    match _field(entry, "destinationNamedPort", "namedPort", "portNumber", "portRange", "tcp", "udp", "sctp"):
        case "destinationNamedPort" | "namedPort" as field:
            return (entry[field], connection.protocol, port) in _named_ports(connection.destination)
        case "portNumber":
            number = entry["portNumber"]
            return (number.get("protocol") or "TCP", number["port"]) == (connection.protocol, port)
        case "portRange":
            span = entry["portRange"]
            return (span.get("protocol") or "TCP") == connection.protocol and span["start"] <= port <= span["end"]
        case field:
            if field.upper() != connection.protocol:
                return False
            wanted = entry[field].get("destinationPort")
            if not wanted:
                return True
            if wanted.get("range"):
                return bool(wanted["range"]["start"] <= port <= wanted["range"]["end"])
            return bool(wanted["number"] == port)


# NetworkPolicy ------------------------------------------------------------------------------------------------------


def _network_policies(
    world: World, direction: str, subject: Object, peer: End, connection: Connection
) -> Decision | None:
    """What all NetworkPolicies together decide: None if none of them isolates the pod in this direction."""
    isolating = []
    for policy in sorted(world.network_policies, key=lambda each: (_namespace(each), _name(each))):
        spec = policy["spec"]
        if _namespace(policy) != _namespace(subject) or not selects(spec.get("podSelector"), _labels(subject)):
            continue
        if direction not in _policy_types(spec):
            continue
        isolating.append(policy)
        for index, rule in enumerate(spec.get(direction) or ()):
            if _rule_allows(world, policy, direction, rule, peer, connection):
                return Decision(True, f"NetworkPolicy {_namespace(policy)}/{_name(policy)} {direction}[{index}]")
    if not isolating:
        return None
    return Decision(False, f"isolated by NetworkPolicy {_namespace(subject)}/{','.join(map(_name, isolating))}")


def _policy_types(spec: Object) -> list[str]:
    """The directions in which a policy isolates. If it doesn't say: ingress, and egress if it has rules for that."""
    if spec.get("policyTypes"):
        return [each.lower() for each in spec["policyTypes"]]
    return ["ingress", "egress"] if spec.get("egress") else ["ingress"]


def _rule_allows(world: World, policy: Object, direction: str, rule: Object, peer: End, connection: Connection) -> bool:
    peers, ports = rule.get("from" if direction == "ingress" else "to") or (), rule.get("ports") or ()
    return (not peers or any(_is_peer(world, policy, each, peer) for each in peers)) and (
        not ports or any(_is_port(each, connection) for each in ports)
    )


def _is_peer(world: World, policy: Object, peer: Object, end: End) -> bool:
    if peer.get("ipBlock") is not None:
        block = peer["ipBlock"]
        return _contains(block["cidr"], end.address) and not any(
            _contains(cidr, end.address) for cidr in block.get("except") or ()
        )
    if end.pod is None:
        return False
    namespace = _namespace(end.pod)
    if peer.get("namespaceSelector") is None:
        if namespace != _namespace(policy):
            return False
    elif not selects(peer["namespaceSelector"], world.namespace_labels(namespace)):
        return False
    return selects(peer.get("podSelector"), _labels(end.pod))


def _is_port(entry: Object, connection: Connection) -> bool:
    protocol, port = entry.get("protocol") or "TCP", entry.get("port")
    if protocol != connection.protocol:
        return False
    if port is None:
        return True
    if isinstance(port, str):
        return (port, protocol, connection.port) in _named_ports(connection.destination)
    return bool(port <= connection.port <= (entry.get("endPort") or port))


# What both share ----------------------------------------------------------------------------------------------------


def selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects: all that it requires holds. One that is empty or left out requires nothing."""
    if selector is None:
        return True
    wanted = (selector.get("matchLabels") or {}).items()
    return all(key in labels and labels[key] == (value or "") for key, value in wanted) and all(
        _holds(expression, labels) for expression in selector.get("matchExpressions") or ()
    )


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise ValueError(expression["operator"])


def _contains(cidr: str, address: Address) -> bool:
    """Whether an address is in a block: one of the other version never is."""
    network = _network(cidr)
    return network.version == address.version and address in network


@cache
def _address(text: str) -> Address:
    return ip_address(text)


@cache
def _network(cidr: str) -> IPv4Network | IPv6Network:
    return ip_network(cidr, strict=False)


def _named_ports(end: End) -> Iterator[tuple[str, str, int]]:
    """Name, protocol and number of every port that containers of the pod at this end give a name."""
    if end.pod is None:
        return
    spec = end.pod["spec"]
    sidecars = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or ()), *sidecars]:
        for port in container.get("ports") or ():
            if port.get("name"):
                yield port["name"], port.get("protocol") or "TCP", port["containerPort"]


def _name(each: Object) -> str:
    return str(each["metadata"]["name"])


def _namespace(each: Object) -> str:
    return str(each["metadata"].get("namespace") or "default")


def _labels(each: Object) -> Mapping[str, str]:
    """An object's labels. A label that YAML gives no value (`key:`) has the empty one."""
    return {key: value or "" for key, value in (each["metadata"].get("labels") or {}).items()}


def _host_network(pod: Object) -> bool:
    return bool(pod["spec"].get("hostNetwork"))


def _pod_addresses(pod: Object) -> list[Address]:
    status = pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return []
    listed = status.get("podIPs") or ([{"ip": status["podIP"]}] if status.get("podIP") else [])
    return [_address(each["ip"]) for each in listed]


def _node_addresses(node: Object) -> list[Address]:
    """A node's addresses of any type that are IP addresses, internal ones first: as these it sends."""
    listed = (node.get("status") or {}).get("addresses") or ()
    kinds = ("InternalIP", "ExternalIP")
    return [_address(each["address"]) for kind in kinds for each in listed if each["type"] == kind]
