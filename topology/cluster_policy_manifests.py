"""ClusterNetworkPolicy, and AdminNetworkPolicy and BaselineAdminNetworkPolicy before it, from YAML trees.

The three say the same in different words: a `_Dialect` for each. Must not know other objects, nor when a policy is
closed: that is `topology.policy_manifests`' business. Raises FieldError. Source: the types, and what is said of their
fields, in sigs.k8s.io/network-policy-api, v1alpha2 and v1alpha1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from topology import manifest_fields as fields
from topology.policies import Action, Direction, IpBlock, NodeSet, Peer, PodSet, Policy, PolicyPort, Rule, Tier
from topology.yaml_tree import FieldError, Tree

#: Where the rules of a direction list their peers.
PEERS = {Direction.INGRESS: "from", Direction.EGRESS: "to"}
_LOWEST_PRIORITY = 1000
#: Of networks, or names of domains, in one peer.
_MOST_NETWORKS = 25

Value = TypeVar("Value")


class _Dialect(msgspec.Struct, frozen=True):
    """How one of the cluster's kinds says what all of them say."""

    #: Fields of `spec`, and those of a `to` peer.
    spec: tuple[str, ...]
    destinations: tuple[str, ...]
    actions: Mapping[str, Action]
    tier: Callable[[Tree], Tier]
    priority: Callable[[Tree], int]
    #: The field of a rule that lists ports, and what reads one of them.
    ports: str
    port: Callable[[Tree], PolicyPort]
    #: The most rules for a direction, and peers or ports in one rule.
    limit: int
    #: Whether a peer's or subject's `pods` must have a namespaceSelector.
    namespace_required: bool


class _Side(msgspec.Struct, frozen=True):
    """What is needed to read the rules of one direction; `left_out` collects what they say and can't be done."""

    direction: Direction
    dialect: _Dialect
    remarks: fields.Remarks
    left_out: list[FieldError]


def subjects(kind: str, tree: Tree) -> PodSet:
    """The pods that a policy is for."""
    spec = tree.require("spec", remedy="say which pods the policy is for, and its rules")
    subject = spec.field("subject")
    if subject is None:
        raise spec.error("has no subject; say which pods the policy is for, as subject: {namespaces: {}}")
    return _pods(*_one_of_fields(subject, "namespaces", "pods"), _DIALECTS[kind])


def described(bare: Policy, tree: Tree, remarks: fields.Remarks) -> Policy:
    """A policy with its place and rules. What can't be done of them is reported, and is the policy's fault."""
    dialect, spec = _DIALECTS[bare.kind], tree.require("spec", remedy="give the policy's rules")
    if bare.kind == "BaselineAdminNetworkPolicy" and bare.name != "default":
        raise tree.require("metadata", "name", remedy="").error(
            f"is {bare.name!r}, but a cluster has one {bare.kind}, called default; rename it, or merge it into that one"
        )
    fields.known(spec, *dialect.spec)
    left_out: list[FieldError] = []
    ingress, egress = (_rules(spec, _Side(direction, dialect, remarks, left_out)) for direction in Direction)
    found = msgspec.structs.replace(
        bare,
        tier=dialect.tier(spec),
        priority=dialect.priority(spec),
        ingress=ingress,
        egress=egress,
        fault="; ".join(map(str, left_out)),
    )
    for each in left_out:
        remarks.report(each)
    return found


def closed(bare: Policy, tree: Tree) -> Policy:
    """It denies everything in each direction that it has rules for, and where that can't be told, in both."""
    dialect, spec = _DIALECTS[bare.kind], tree.require("spec", remedy="give the policy's rules")
    about = _or_else(lambda: _has_rules(spec, dialect), dict.fromkeys(Direction, True))
    deny = (Rule(Action.DENY),)
    # Of tier and priority, if they can't be told, those that are asked first.
    return msgspec.structs.replace(
        bare,
        tier=_or_else(lambda: dialect.tier(spec), Tier.ADMIN),
        priority=_or_else(lambda: dialect.priority(spec), 0),
        ingress=deny if about[Direction.INGRESS] else None,
        egress=deny if about[Direction.EGRESS] else None,
    )


def _has_rules(spec: Tree, dialect: _Dialect) -> dict[Direction, bool]:
    fields.known(spec, *dialect.spec)
    listed = {direction: spec.get(direction) for direction in Direction}
    # What isn't even a list was meant to be one.
    return {direction: tree is not None and bool(_or_else(tree.items, [tree])) for direction, tree in listed.items()}


def _or_else(read: Callable[[], Value], otherwise: Value) -> Value:
    try:
        return read()
    except FieldError:
        return otherwise


def _rules(spec: Tree, side: _Side) -> tuple[Rule, ...] | None:
    listed = spec.get(side.direction)
    if listed is None or not listed.items():
        # Unlike in a NetworkPolicy, a list without rules is as good as none.
        return None
    return tuple(_rule(item, side) for item in _some(listed, side.dialect.limit, ""))


def _rule(tree: Tree, side: _Side) -> Rule:
    dialect, field = side.dialect, PEERS[side.direction]
    fields.known(tree, "name", "action", field, dialect.ports)
    name = tree.get("name")
    if name and len(name.text()) > 100:
        raise name.error(f"has {len(name.text())} characters; give it at most 100")
    words = tuple(dialect.actions)
    written = tree.require("action", remedy=f"say what the rule does: {', '.join(words)}")
    action = dialect.actions[fields.one_of(written, words, "")]
    remedy = "list at least one peer ({namespaces: {}} is every pod)"
    listed = _some(tree.require(field, remedy=remedy), dialect.limit, remedy)
    peers = tuple(peer for item in listed for peer in _peers(item, action, side))
    ports = _ports(limited, listed, dialect) if (limited := tree.get(dialect.ports)) else None
    return Rule(action, peers, ports, name.text() if name else "")


def _ports(tree: Tree, peers: list[Tree], dialect: _Dialect) -> tuple[PolicyPort, ...]:
    items = _some(tree, dialect.limit, "list at least one, or leave the field out for every protocol and port")
    ports = tuple(map(dialect.port, items))
    for item, port in zip(items, ports, strict=True):
        for peer in peers:
            if isinstance(port.port, str) and not (peer.get("namespaces") or peer.get("pods")):
                raise item.error(
                    f"names the port {port.port!r}, but {peer.path} is not of pods, and only they name their ports; "
                    "give the number, or make two rules of it"
                )
    return ports


def _peers(tree: Tree, action: Action, side: _Side) -> list[Peer]:
    choices = side.dialect.destinations if side.direction is Direction.EGRESS else ("namespaces", "pods")
    name, given = _one_of_fields(tree, *choices)
    match name:
        case "nodes":
            return [NodeSet(fields.selector(given))]
        case "networks":
            networks = _some(given, _MOST_NETWORKS, "list at least one, as [192.0.2.0/24]")
            return [IpBlock(fields.network_around(each, side.remarks)) for each in networks]
        case "domainNames":
            names = [each.text() for each in _some(given, _MOST_NETWORKS, "list at least one")]
            if action is not Action.ACCEPT:
                raise given.error(
                    "is given in a rule that doesn't accept, where names of domains can't be; use networks"
                )
            side.left_out.append(
                given.error(
                    f"names {', '.join(names)}, but this controller doesn't know the addresses of domains: the rule "
                    "does not accept them; list them as networks"
                )
            )
            return []
    return [_pods(name, given, side.dialect)]


def _pods(name: str, tree: Tree, dialect: _Dialect) -> PodSet:
    """A subject or peer: all pods of some namespaces, or some pods of them."""
    if name == "namespaces":
        return PodSet(namespaces=fields.selector(tree))
    fields.known(tree, "namespaceSelector", "podSelector")
    pods = tree.require("podSelector", remedy="select the pods ({} selects all)")
    if dialect.namespace_required:
        tree.require("namespaceSelector", remedy="select the namespaces ({} selects all)")
    return PodSet(fields.selector(pods), namespaces=fields.selector(tree.get("namespaceSelector")))


def _one_of_fields(tree: Tree, *names: str) -> tuple[str, Tree]:
    """The one field of a mapping that must have exactly one."""
    fields.known(tree, *names)
    given = [(name, value) for name, value in tree.fields().items() if value]
    if len(given) != 1:
        words = " and ".join(name for name, _ in given) or "nothing"
        raise tree.error(f"has {words}; give exactly one of {', '.join(names)}")
    return given[0]


def _some(tree: Tree, most: int, remedy: str) -> list[Tree]:
    """The values of a list that isn't empty."""
    items = tree.items()
    if not items:
        raise tree.error(f"is empty; {remedy}")
    if len(items) > most:
        raise tree.error(f"has {len(items)} entries; the API allows {most}: divide them")
    return items


def _tier(spec: Tree) -> Tier:
    tier = spec.require("tier", remedy="say Admin or Baseline")
    return Tier[fields.one_of(tier, ("Admin", "Baseline"), "").upper()]


def _priority(spec: Tree) -> int:
    remedy = f"give a number from 0, which is asked first, to {_LOWEST_PRIORITY}"
    return spec.require("priority", remedy=remedy).number(0, _LOWEST_PRIORITY)


def _protocol(tree: Tree) -> PolicyPort:
    """An entry of `protocols` (v1alpha2)."""
    name, given = _one_of_fields(tree, "tcp", "udp", "sctp", "destinationNamedPort")
    if name == "destinationNamedPort":
        return PolicyPort("", fields.port_name(given))
    fields.known(given, "destinationPort")
    port = given.require("destinationPort", remedy="give the port, as destinationPort: {number: 80}")
    kind, value = _one_of_fields(port, "number", "range")
    if kind == "number":
        return PolicyPort(name.upper(), fields.port_number(value))
    fields.known(value, "start", "end")
    return PolicyPort(name.upper(), *_range(value))


def _admin_port(tree: Tree) -> PolicyPort:
    """An entry of `ports` (v1alpha1)."""
    name, given = _one_of_fields(tree, "portNumber", "namedPort", "portRange")
    if name == "namedPort":
        return PolicyPort("", fields.port_name(given))
    if name == "portNumber":
        fields.known(given, "protocol", "port")
        number = fields.port_number(given.require("port", remedy="give the port's number"))
        return PolicyPort(fields.protocol(given.get("protocol")), number)
    fields.known(given, "protocol", "start", "end")
    return PolicyPort(fields.protocol(given.get("protocol")), *_range(given))


def _range(tree: Tree) -> tuple[int, int]:
    start = fields.port_number(tree.require("start", remedy="give the first port"))
    end = tree.require("end", remedy="give the last port")
    if fields.port_number(end) <= start:
        raise end.error(
            f"is {fields.port_number(end)}, not above start, which is {start}; give the last port of the range"
        )
    return start, fields.port_number(end)


_ADMIN = _Dialect(
    spec=("priority", "subject", "ingress", "egress"),
    destinations=("namespaces", "pods", "nodes", "networks", "domainNames"),
    actions={"Allow": Action.ACCEPT, "Deny": Action.DENY, "Pass": Action.PASS},
    tier=lambda _: Tier.ADMIN,
    priority=_priority,
    ports="ports",
    port=_admin_port,
    limit=100,
    namespace_required=True,
)
_DIALECTS = {
    "ClusterNetworkPolicy": _Dialect(
        spec=("tier", "priority", "subject", "ingress", "egress"),
        destinations=("namespaces", "pods", "nodes", "networks", "domainNames"),
        actions={action.value: action for action in Action},
        tier=_tier,
        priority=_priority,
        ports="protocols",
        port=_protocol,
        limit=25,
        namespace_required=False,
    ),
    "AdminNetworkPolicy": _ADMIN,
    "BaselineAdminNetworkPolicy": msgspec.structs.replace(
        _ADMIN,
        spec=("subject", "ingress", "egress"),
        destinations=("namespaces", "pods", "nodes", "networks"),
        actions={"Allow": Action.ACCEPT, "Deny": Action.DENY},
        tier=lambda _: Tier.BASELINE,
        # After every ClusterNetworkPolicy of that tier.
        priority=lambda _: _LOWEST_PRIORITY,
    ),
}
