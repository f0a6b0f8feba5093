"""Policies from YAML trees: NetworkPolicy, and the kinds of the whole cluster. `topology.manifests` calls `policy`.

A policy that isn't described well *fails closed*: where its subjects can be told, it is there, with `fault` set and
nothing allowed, and what is wrong with it is reported. FieldError is raised only where they can't. For the same reason
fields of unknown names are refused: they may be a misspelt `from`, without which a rule is for every peer.

Must not know other objects. Sources: NetworkPolicy as kubernetes.io documents and the API server checks it;
ClusterNetworkPolicy and its forerunners as the types of sigs.k8s.io/network-policy-api say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import TypeVar

import msgspec

from topology import manifest_fields as fields
from topology.metadata import Key
from topology.naming import Network
from topology.policies import Action, Direction, IpBlock, NodeSet, Peer, PodSet, Policy, PolicyPort, Rule, Tier
from topology.yaml_tree import FieldError, Tree

#: The API, with the version, that each kind is read as.
_APIS = {
    "NetworkPolicy": "networking.k8s.io/v1",
    "ClusterNetworkPolicy": "policy.networking.k8s.io/v1alpha2",
    "AdminNetworkPolicy": "policy.networking.k8s.io/v1alpha1",
    "BaselineAdminNetworkPolicy": "policy.networking.k8s.io/v1alpha1",
}
#: Where a direction's rules list their peers.
_PEERS = {Direction.INGRESS: "from", Direction.EGRESS: "to"}
_LOG = {"deny": (True, False), "allow": (False, True), "all": (True, True), "none": (False, False)}
_LOWEST_PRIORITY = 1000
#: Of networks, or names of domains, in one peer.
_MOST_NETWORKS = 25
_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")

Value = TypeVar("Value")


class Remarks(msgspec.Struct, frozen=True):
    """Where to say what is wrong with a policy that is there all the same, and of a field what is as well to know."""

    report: Callable[[FieldError], None]
    note: Callable[[Tree, str], None]


def is_policy(api: str, kind: str) -> bool:
    """Whether `policy` is for it. Of these kinds, it is for every version, and every API of Kubernetes itself."""
    group = api.rpartition("/")[0]
    return kind in _APIS and ("." not in group or group.endswith(".k8s.io"))


def policy(key: Key, tree: Tree, remarks: Remarks) -> Policy:
    """A policy of any kind, closed where it is not described well. Raises FieldError where its subjects are not."""
    kind = key[0]
    try:
        _check_version(kind, tree)
        return _network_policy(key, tree, remarks) if kind == "NetworkPolicy" else _cluster_policy(key, tree, remarks)
    except FieldError as error:
        try:
            closed = _closed(key, tree, error, remarks)
        except FieldError:
            raise error from None
        remarks.report(error)
        return closed


def _check_version(kind: str, tree: Tree) -> None:
    version = tree.require("apiVersion", remedy=f"write {_APIS[kind]}")
    if version.text() != _APIS[kind]:
        raise version.error(f"is {version.text()}, in which {kind} is not read; write it as {_APIS[kind]}")


def _closed(key: Key, tree: Tree, error: FieldError, remarks: Remarks) -> Policy:
    """What denies all that a policy might have been about. Raises FieldError where its subjects can't be told."""
    kind, subjects = key[0], _subjects(key, tree)
    closed = _named(key, tree, remarks, subjects=subjects, fault=str(error))
    if kind == "NetworkPolicy":
        spec = tree.get("spec")
        about = _or_else(lambda: _policy_types(spec) if spec else set(Direction), set(Direction))
        rules: tuple[Rule, ...] = ()
    else:
        dialect, spec = _DIALECTS[kind], tree.require("spec", remedy="")
        # Where it can't be told, it is the place in which a denial counts most.
        tier, priority = _or_else(lambda: dialect.tier(spec), Tier.ADMIN), _or_else(lambda: dialect.priority(spec), 0)
        closed = msgspec.structs.replace(closed, tier=tier, priority=priority)
        about = _or_else(lambda: _directions_with_rules(spec, dialect), set(Direction))
        rules = (Rule(Action.DENY),)
    return msgspec.structs.replace(
        closed,
        ingress=rules if Direction.INGRESS in about else None,
        egress=rules if Direction.EGRESS in about else None,
    )


def _or_else(read: Callable[[], Value], otherwise: Value) -> Value:
    try:
        return read()
    except FieldError:
        return otherwise


def _named(key: Key, tree: Tree, remarks: Remarks, *, subjects: PodSet, fault: str = "") -> Policy:
    """A policy without rules, with what any of any kind has."""
    kind, namespace, name = key
    log_denied, log_allowed = _logged(tree, remarks)
    return Policy(
        kind=kind,
        namespace=namespace,
        name=name,
        subjects=subjects,
        log_denied=log_denied,
        log_allowed=log_allowed,
        fault=fault,
    )


def _logged(tree: Tree, remarks: Remarks) -> tuple[bool, bool]:
    """Whether to log what is denied, and what is allowed. A mistake here is told, and nothing is logged."""
    try:
        return _LOG[fields.one_of(tree.get("metadata", "annotations", "signalbox.io/log"), tuple(_LOG), "none")]
    except FieldError as error:
        remarks.report(error)
        return _LOG["none"]


def _subjects(key: Key, tree: Tree) -> PodSet:
    kind, namespace, _ = key
    if kind != "NetworkPolicy":
        spec = tree.require("spec", remedy="say which pods the policy is for, and its rules")
        subject = spec.field("subject")
        if subject is None:
            raise spec.error("has no subject; say which pods the policy is for, as subject: {namespaces: {}}")
        return _pods(*_one_of_fields(subject, "namespaces", "pods"), _DIALECTS[kind])
    described = tree.get("spec")
    selector = described.field("podSelector") if described else None
    if selector is None and tree.require("apiVersion", remedy="").text() != _APIS[kind]:
        # That it stands for all pods is what v1 says; another version might say who they are in other words.
        raise tree.error("has no spec.podSelector")
    return PodSet(fields.selector(selector), namespace)


# NetworkPolicy --------------------------------------------------------------------------------------------------------


def _network_policy(key: Key, tree: Tree, remarks: Remarks) -> Policy:
    subjects = _subjects(key, tree)
    spec = tree.require("spec", remedy="say which pods the policy is for, and what it allows: podSelector, ingress")
    about = _policy_types(spec)
    rules: dict[Direction, tuple[Rule, ...]] = {}
    for direction in Direction:
        listed = spec.get(direction)
        rules[direction] = tuple(
            _network_rule(item, direction, key[1], remarks) for item in (listed.items() if listed else [])
        )
        if listed and direction not in about:
            remarks.note(listed, f"has no effect: policyTypes doesn't have {direction.capitalize()}")
    return msgspec.structs.replace(
        _named(key, tree, remarks, subjects=subjects),
        ingress=rules[Direction.INGRESS] if Direction.INGRESS in about else None,
        egress=rules[Direction.EGRESS] if Direction.EGRESS in about else None,
    )


def _policy_types(spec: Tree) -> set[Direction]:
    """The directions that a NetworkPolicy is about: if it doesn't say, ingress, and egress if it has rules for that."""
    fields.known(spec, "podSelector", "policyTypes", "ingress", "egress")
    types, egress = spec.get("policyTypes"), spec.get("egress")
    named = types.items() if types else []
    if named:
        return {Direction(fields.one_of(each, ("Ingress", "Egress"), "").lower()) for each in named}
    return {Direction.INGRESS, Direction.EGRESS} if egress and egress.items() else {Direction.INGRESS}


def _network_rule(tree: Tree, direction: Direction, namespace: str, remarks: Remarks) -> Rule:
    fields.known(tree, _PEERS[direction], "ports")
    peers, ports = tree.get(_PEERS[direction]), tree.get("ports")
    # A list that is empty is as good as none.
    return Rule(
        peers=tuple(_network_peer(each, namespace, remarks) for each in peers.items()) or None if peers else None,
        ports=tuple(map(_network_port, ports.items())) or None if ports else None,
    )


def _network_peer(tree: Tree, namespace: str, remarks: Remarks) -> Peer:
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


def _ip_block(tree: Tree, remarks: Remarks) -> IpBlock:
    fields.known(tree, "cidr", "except")
    network = _network(tree.require("cidr", remedy="give the addresses, as cidr: 192.0.2.0/24"), remarks)
    excepted = tree.get("except")
    found = []
    for item in excepted.items() if excepted else []:
        other = _network(item, remarks)
        if not _is_part(other, network):
            raise item.error(f"is {other}, which is not a part of the block's {network}; take it out, or correct it")
        found.append(other)
    return IpBlock(network, tuple(found))


def _is_part(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner != outer and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner != outer and inner.subnet_of(outer)


def _network(tree: Tree, remarks: Remarks) -> Network:
    network = fields.network_around(tree)
    if tree.text().partition("/")[0] != str(network.network_address):
        remarks.note(tree, f"is {tree.text()}: read as {network}, as Kubernetes does")
    return network


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
        return PolicyPort(protocol, _port_name(port))
    first = _port_number(port)
    last = _port_number(end) if end else 0
    if end and last < first:
        raise end.error(f"is {last}, below port, which is {first}; give the last port of the range")
    return PolicyPort(protocol, first, last)


def _port_number(tree: Tree) -> int:
    return tree.number(1, 65535)


def _port_name(tree: Tree) -> str:
    if not _PORT_NAME.fullmatch(tree.text()):
        raise tree.error(
            f"is {tree.text()!r}; the name of a port has up to 15 lower-case letters, digits and single hyphens, a letter "
            "among them, and no hyphen at an end (a number is written without quotes)"
        )
    return tree.text()


# ClusterNetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy -------------------------------------------------


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


class _Rules(msgspec.Struct, frozen=True):
    """What is needed to read the rules of one direction; `left_out` collects what they say and can't be done."""

    direction: Direction
    dialect: _Dialect
    remarks: Remarks
    left_out: list[FieldError]


def _cluster_policy(key: Key, tree: Tree, remarks: Remarks) -> Policy:
    kind, _, name = key
    dialect, subjects = _DIALECTS[kind], _subjects(key, tree)
    if kind == "BaselineAdminNetworkPolicy" and name != "default":
        raise tree.require("metadata", "name", remedy="").error(
            f"is {name!r}, but a cluster has one {kind}, which is called default; rename it, or merge it into that one"
        )
    spec = tree.require("spec", remedy="")
    fields.known(spec, *dialect.spec)
    tier, priority = dialect.tier(spec), dialect.priority(spec)
    left_out: list[FieldError] = []
    ingress, egress = (
        _cluster_rules(spec.get(direction), _Rules(direction, dialect, remarks, left_out)) for direction in Direction
    )
    for each in left_out:
        remarks.report(each)
    return msgspec.structs.replace(
        _named(key, tree, remarks, subjects=subjects, fault="; ".join(map(str, left_out))),
        tier=tier,
        priority=priority,
        ingress=ingress,
        egress=egress,
    )


def _directions_with_rules(spec: Tree, dialect: _Dialect) -> set[Direction]:
    fields.known(spec, *dialect.spec)
    lists = {direction: listed for direction in Direction if (listed := spec.get(direction))}
    return {direction for direction, listed in lists.items() if _or_else(listed.items, [listed])}


def _cluster_rules(tree: Tree | None, rules: _Rules) -> tuple[Rule, ...] | None:
    if tree is None or not tree.items():
        return None
    return tuple(_cluster_rule(item, rules) for item in _some(tree, rules.dialect.limit, ""))


def _cluster_rule(tree: Tree, rules: _Rules) -> Rule:
    dialect, side = rules.dialect, _PEERS[rules.direction]
    fields.known(tree, "name", "action", side, dialect.ports)
    name = tree.get("name")
    if name and len(name.text()) > 100:
        raise name.error(f"has {len(name.text())} characters; give it at most 100")
    words = tuple(dialect.actions)
    action = fields.one_of(tree.require("action", remedy=f"say what the rule does: {', '.join(words)}"), words, "")
    listed = _some(
        tree.require(side, remedy="list at least one peer ({namespaces: {}} is every pod)"),
        dialect.limit,
        "list at least one peer ({namespaces: {}} is every pod)",
    )
    peers = tuple(peer for item in listed for peer in _cluster_peers(item, dialect.actions[action], rules))
    written = tree.get(dialect.ports)
    ports = _cluster_ports(written, listed, dialect) if written else None
    return Rule(dialect.actions[action], peers, ports, name.text() if name else "")


def _cluster_ports(tree: Tree, peers: list[Tree], dialect: _Dialect) -> tuple[PolicyPort, ...]:
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


def _cluster_peers(tree: Tree, action: Action, rules: _Rules) -> list[Peer]:
    choices = rules.dialect.destinations if rules.direction is Direction.EGRESS else ("namespaces", "pods")
    name, given = _one_of_fields(tree, *choices)
    match name:
        case "nodes":
            return [NodeSet(fields.selector(given))]
        case "networks":
            networks = _some(given, _MOST_NETWORKS, "list at least one, as [192.0.2.0/24]")
            return [IpBlock(_network(each, rules.remarks)) for each in networks]
        case "domainNames":
            names = [each.text() for each in _some(given, _MOST_NETWORKS, "list at least one")]
            if action is not Action.ACCEPT:
                raise given.error(
                    "is given in a rule that doesn't accept, where names of domains can't be; use networks"
                )
            rules.left_out.append(
                given.error(
                    f"names {', '.join(names)}, but this controller doesn't know the addresses of domains: the rule "
                    "does not accept them; list them as networks"
                )
            )
            return []
    return [_pods(name, given, rules.dialect)]


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
        return PolicyPort("", _port_name(given))
    fields.known(given, "destinationPort")
    port = given.require("destinationPort", remedy="give the port, as destinationPort: {number: 80}")
    kind, value = _one_of_fields(port, "number", "range")
    if kind == "number":
        return PolicyPort(name.upper(), _port_number(value))
    fields.known(value, "start", "end")
    return PolicyPort(name.upper(), *_range(value))


def _admin_port(tree: Tree) -> PolicyPort:
    """An entry of `ports` (v1alpha1)."""
    name, given = _one_of_fields(tree, "portNumber", "namedPort", "portRange")
    if name == "namedPort":
        return PolicyPort("", _port_name(given))
    if name == "portNumber":
        fields.known(given, "protocol", "port")
        number = _port_number(given.require("port", remedy="give the port's number"))
        return PolicyPort(fields.protocol(given.get("protocol")), number)
    fields.known(given, "protocol", "start", "end")
    return PolicyPort(fields.protocol(given.get("protocol")), *_range(given))


def _range(tree: Tree) -> tuple[int, int]:
    start = _port_number(tree.require("start", remedy="give the first port"))
    end = tree.require("end", remedy="give the last port")
    if _port_number(end) <= start:
        raise end.error(f"is {_port_number(end)}, not above start, which is {start}; give the last port of the range")
    return start, _port_number(end)


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
