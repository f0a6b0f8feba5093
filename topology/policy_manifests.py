"""Policies from YAML trees: which kinds there are, NetworkPolicy, and how policies that are wrong are closed.

A policy that isn't described well *fails closed*: where its subjects can be told, it is there, with `fault` set and
nothing allowed, and what is wrong with it is reported. FieldError is raised only where they can't. For the same reason
fields of unknown names are refused: they may be a misspelt `from`, without which a rule is for every peer.

Must not know other objects. `topology.manifests` calls `policy`; the rules of the cluster's kinds are read by
`topology.cluster_policy_manifests`. Source: NetworkPolicy as kubernetes.io documents and its API server checks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network

import msgspec

from topology import cluster_policy_manifests as cluster
from topology import manifest_fields as fields
from topology.metadata import Key
from topology.naming import Network
from topology.policies import Direction, IpBlock, Peer, PodSet, Policy, PolicyPort, Rule
from topology.yaml_tree import FieldError, Tree

#: The API, with the version, that each kind is read as.
APIS = {
    "NetworkPolicy": "networking.k8s.io/v1",
    "ClusterNetworkPolicy": "policy.networking.k8s.io/v1alpha2",
    "AdminNetworkPolicy": "policy.networking.k8s.io/v1alpha1",
    "BaselineAdminNetworkPolicy": "policy.networking.k8s.io/v1alpha1",
}
_LOG = {"deny": (True, False), "allow": (False, True), "all": (True, True), "none": (False, False)}


def is_policy(api: str, kind: str) -> bool:
    """Whether `policy` is for it. Of these kinds, it is for every version, and every API of Kubernetes itself."""
    group = api.rpartition("/")[0]
    return kind in APIS and ("." not in group or group.endswith(".k8s.io"))


def policy(key: Key, tree: Tree, remarks: fields.Remarks) -> Policy:
    """A policy of any kind, closed where it is not described well. Raises FieldError where its subjects are not."""
    kind, namespace, name = key
    other_version = _other_version(kind, tree)
    try:
        subjects = _subjects(key, tree, other_version)
    except FieldError as error:
        raise (other_version or error) from None
    denied, allowed = logged(tree, remarks)
    bare = Policy(kind=kind, namespace=namespace, name=name, subjects=subjects, log_denied=denied, log_allowed=allowed)
    described, closed = (_described, _closed) if kind == "NetworkPolicy" else (cluster.described, cluster.closed)
    try:
        if other_version is not None:
            raise other_version
        return described(bare, tree, remarks)
    except FieldError as error:
        remarks.report(error)
        return msgspec.structs.replace(closed(bare, tree), fault=str(error))


def _other_version(kind: str, tree: Tree) -> FieldError | None:
    api = tree.require("apiVersion", remedy=f"write {APIS[kind]}")
    if api.text() == APIS[kind]:
        return None
    return api.error(f"is {api.text()}, in which {kind} is not read; write it as {APIS[kind]}")


def _subjects(key: Key, tree: Tree, other_version: FieldError | None) -> PodSet:
    kind, namespace, _ = key
    if kind != "NetworkPolicy":
        return cluster.subjects(kind, tree)
    spec = tree.get("spec")
    selector = spec.field("podSelector") if spec else None
    if selector is None and other_version is not None:
        # That it stands for all pods is what v1 says; another version might say who they are in other words.
        raise other_version
    return PodSet(fields.selector(selector), namespace)


def logged(tree: Tree, remarks: fields.Remarks) -> tuple[bool, bool]:
    """What an annotation asks to be logged: what is denied, what is allowed. A mistake is told, and nothing logged."""
    try:
        return _LOG[fields.one_of(tree.get("metadata", "annotations", "signalbox.io/log"), tuple(_LOG), "none")]
    except FieldError as error:
        remarks.report(error)
        return _LOG["none"]


# NetworkPolicy --------------------------------------------------------------------------------------------------------


def _described(bare: Policy, tree: Tree, remarks: fields.Remarks) -> Policy:
    spec = tree.require("spec", remedy="say which pods the policy is for, and what it allows: podSelector, ingress")
    about = _policy_types(spec)
    rules: dict[Direction, tuple[Rule, ...]] = {}
    for direction in Direction:
        listed = spec.get(direction)
        rules[direction] = tuple(
            _network_rule(item, direction, bare.namespace, remarks) for item in (listed.items() if listed else [])
        )
        if listed and direction not in about:
            remarks.note(listed, f"has no effect: policyTypes doesn't have {direction.capitalize()}")
    return _about(bare, {direction: rules[direction] for direction in about})


def _closed(bare: Policy, tree: Tree) -> Policy:
    """It allows nothing in the directions it is about; where that can't be told either, in both."""
    spec = tree.get("spec")
    try:
        about = _policy_types(spec) if spec else set(Direction)
    except FieldError:
        about = set(Direction)
    return _about(bare, dict.fromkeys(about, ()))


def _about(bare: Policy, rules: Mapping[Direction, tuple[Rule, ...]]) -> Policy:
    return msgspec.structs.replace(bare, ingress=rules.get(Direction.INGRESS), egress=rules.get(Direction.EGRESS))


def _policy_types(spec: Tree) -> set[Direction]:
    """The directions that a NetworkPolicy is about: if it doesn't say, ingress, and egress if it has rules for that."""
    fields.known(spec, "podSelector", "policyTypes", "ingress", "egress")
    types, egress = spec.get("policyTypes"), spec.get("egress")
    named = types.items() if types else []
    if named:
        return {Direction(fields.one_of(each, ("Ingress", "Egress"), "").lower()) for each in named}
    return {Direction.INGRESS, Direction.EGRESS} if egress and egress.items() else {Direction.INGRESS}


def _network_rule(tree: Tree, direction: Direction, namespace: str, remarks: fields.Remarks) -> Rule:
    fields.known(tree, cluster.PEERS[direction], "ports")
    peers, ports = tree.get(cluster.PEERS[direction]), tree.get("ports")
    # A list that is empty is as good as none.
    return Rule(
        peers=tuple(_network_peer(each, namespace, remarks) for each in peers.items()) or None if peers else None,
        ports=tuple(map(_network_port, ports.items())) or None if ports else None,
    )


def _network_peer(tree: Tree, namespace: str, remarks: fields.Remarks) -> Peer:
    fields.known(tree, "podSelector", "namespaceSelector", "ipBlock")
    pods, namespaces, block = tree.get("podSelector"), tree.get("namespaceSelector"), tree.get("ipBlock")
    if block:
        if pods or namespaces:
            raise block.error("stands beside a selector, but a peer is one of them; make two peers of it")
        return _ip_block(block, remarks)
    if namespaces:
        return PodSet(fields.selector(pods), namespaces=fields.selector(namespaces))
    if pods:
        return PodSet(fields.selector(pods), namespace)
    raise tree.error("has no podSelector, namespaceSelector or ipBlock; give one ({} selects all)")


def _ip_block(tree: Tree, remarks: fields.Remarks) -> IpBlock:
    fields.known(tree, "cidr", "except")
    network = fields.network_around(tree.require("cidr", remedy="give the addresses, as cidr: 192.0.2.0/24"), remarks)
    excepted = tree.get("except")
    found = []
    for item in excepted.items() if excepted else []:
        other = fields.network_around(item, remarks)
        if not _is_part(other, network):
            raise item.error(f"is {other}, which is not a part of the block's {network}; take it out, or correct it")
        found.append(other)
    return IpBlock(network, tuple(found))


def _is_part(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner != outer and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner != outer and inner.subnet_of(outer)


def _network_port(tree: Tree) -> PolicyPort:
    fields.known(tree, "protocol", "port", "endPort")
    protocol, port, end = fields.protocol(tree.get("protocol")), tree.get("port"), tree.get("endPort")
    if port is None:
        if end:
            raise end.error("is given without a port; give the first port of the range, as port: 8000")
        return PolicyPort(protocol)
    if port.is_text:
        if end:
            raise end.error(f"is given, but port is the name {port.text()!r}; give the first port by its number")
        return PolicyPort(protocol, fields.port_name(port))
    first = fields.port_number(port)
    last = fields.port_number(end) if end else 0
    if end and last < first:
        raise end.error(f"is {last}, below port, which is {first}; give the last port of the range")
    return PolicyPort(protocol, first, last)
