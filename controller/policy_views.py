"""What people are shown of identities and policies: rows of plain values, and answers to "may A reach B?"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from flows.compiler import Compiler
from flows.openflow.counted import FlowCount
from flows.pipeline import (
    EGRESS_ADMIN,
    EGRESS_BASELINE,
    EGRESS_POLICY,
    INGRESS_ADMIN,
    INGRESS_BASELINE,
    INGRESS_POLICY,
)
from flows.tables.policy import place_of, table_of
from flows.values import FlowKey
from topology.identities import Profile
from topology.manifests import object_words
from topology.metadata import Key
from topology.model import Pod
from topology.naming import Address
from topology.policies import Action, Direction, IpBlock, Peer, PodSet, PolicyPort, Rule, Tier
from topology.selectors import Selector
from topology.verdicts import Party, Question, Step, Verdict, judge, party

TABLES = tuple(
    each.number
    for each in (EGRESS_ADMIN, EGRESS_POLICY, EGRESS_BASELINE, INGRESS_ADMIN, INGRESS_POLICY, INGRESS_BASELINE)
)
_TIERS = {Tier.ADMIN: "Admin", Tier.NETWORK_POLICY: "NetworkPolicy", Tier.BASELINE: "Baseline"}
_PROTOCOLS = ("TCP", "UDP", "SCTP", "ICMP")
Row = dict[str, Any]
#: Packets by flow, over all switches.
Counts = dict[FlowKey, int]


class QuestionError(ValueError):
    """A question that makes no sense; the text says what does."""


def identities(compiler: Compiler, only: Iterable[int] | None = None) -> Iterator[Row]:
    """Every identity, or only some: its number, what its pods have in common, and which they are."""
    known = compiler.policies.identities
    for number in known if only is None else only:
        if number not in known:
            continue
        profile, pods = known[number], sorted(known.pods(number))
        yield {
            "number": number,
            "name": str(number),
            "namespace": profile.namespace,
            "labels": [f"{key}={value}" for key, value in profile.labels],
            "ports": [f"{name}={port}/{protocol}" for name, protocol, port in profile.ports],
            "pods": len(pods),
            "podNames": [name for _, name in pods],
            "status": "Idle" if number in known.idle else "InUse",
        }


def identity_words(profile: Profile) -> str:
    """An identity in few words: its namespace and labels."""
    labels = ",".join(f"{key}={value}" for key, value in profile.labels)
    return f"{profile.namespace}[{labels}]"


def identity_names(compiler: Compiler) -> dict[int, str]:
    """Every identity in few words, by its number."""
    known = compiler.policies.identities
    return {number: identity_words(known[number]) for number in known}


def rule_names(compiler: Compiler) -> dict[int, str]:
    """What rule each conjunction is, by its number."""
    return {
        number: f"{direction} rule {index} of {object_words(policy)}"
        for number, (policy, direction, index) in compiler.policies.conjunctions().items()
    }


def named(compiler: Compiler, text: str) -> list[Key]:
    """The policies that `NAMESPACE/NAME` is, or `NAME`: of the cluster, or of namespace default."""
    namespace, slash, name = text.rpartition("/")
    where = (namespace,) if slash else ("", "default")
    return sorted(key for key in compiler.cluster.policies if key[2] == name and key[1] in where)


def policies(
    compiler: Compiler, counts: Counts | None = None, only: Iterable[Key] | None = None, *, names: bool = True
) -> Iterator[Row]:
    """Every policy, or only some: its rules, the pods that it selects and what they came to, in packets.

    Without `names` it isn't told which pods these are: of a policy of the cluster that may be all of them.
    """
    parts = compiler.policies
    for key in sorted(compiler.cluster.policies) if only is None else only:
        policy = compiler.cluster.policies.get(key)
        if policy is None:
            continue
        known, identities = parts.identities, parts.subjects(policy)
        pods = known.total if policy.subjects.everybody else sum(map(known.count, identities))
        listed = ("/".join(pod) for number in identities for pod in known.pods(number)) if names else ()
        row: Row = {
            "kind": policy.kind,
            "namespace": policy.namespace,
            "name": policy.name,
            "tier": _TIERS[policy.tier],
            "priority": policy.priority if policy.tier is not Tier.NETWORK_POLICY else None,
            "subjects": _pods_words(policy.subjects),
            "pods": pods,
            "podNames": sorted(listed),
            "directions": [each.value for each in Direction if policy.rules(each) is not None],
            "ingress": [_rule_words(rule, "from") for rule in policy.ingress or ()],
            "egress": [_rule_words(rule, "to") for rule in policy.egress or ()],
            "rules": len(policy.ingress or ()) + len(policy.egress or ()),
            "flows": parts.size(key),
            "reason": policy.fault or ("no room at its priority: it denies" if key in parts.crowded else ""),
        }
        if counts is not None:
            row |= counted(compiler, key, counts)
        yield row


def judged(compiler: Compiler, flow: FlowKey) -> Iterator[tuple[Key, str]]:
    """Whose a flow of the policy tables is, and whether it says `allowed` or `denied`; nothing where neither."""
    place = place_of(flow[0])
    owners = compiler.policies.owners(flow)
    found = compiler.policies.flow(flow) if owners and place is not None else None
    if found is not None and place is not None:
        verdict = _VERDICTS.get(compiler.policies.action_of(found, *place))
        if verdict is not None:
            for owner in owners:
                yield owner, verdict


def counted(compiler: Compiler, key: Key, counts: Mapping[FlowKey, float]) -> Row:
    """What a policy came to, of what each flow has met: packets, or packets per second."""
    row: Row = {f"{direction}{what}": 0 for direction in Direction for what in ("Allowed", "Denied", "Passed")}
    for flow in compiler.policies.flows_of(key):
        packets = counts.get(flow.key, 0)
        for direction in Direction:
            for tier in Tier:
                if table_of(direction, tier).number == flow.table:
                    action = compiler.policies.action_of(flow, direction, tier)
                    if action is not None:
                        row[f"{direction}{_PAST[action]}"] += packets
    row["allowed"] = row["ingressAllowed"] + row["egressAllowed"]
    row["denied"] = row["ingressDenied"] + row["egressDenied"]
    return row


_VERDICTS: Mapping[Action | None, str] = {Action.ACCEPT: "allowed", Action.DENY: "denied"}
_PAST = {Action.ACCEPT: "Allowed", Action.DENY: "Denied", Action.PASS: "Passed"}


def add_counts(counts: Counts, flows: Iterable[FlowCount]) -> None:
    """Add what one switch says of the flows of the policy tables."""
    for each in flows:
        try:
            key = each.key()
        except ValueError:
            # Somebody's own.
            continue
        if each.table in TABLES:
            counts[key] = counts.get(key, 0) + each.packets


# Words --------------------------------------------------------------------------------------------------------------


def _selector_words(selector: Selector) -> str:
    return ",".join(map(str, selector))


def _pods_words(pods: PodSet) -> str:
    if pods.everybody:
        return "all pods"
    words = []
    if pods.pods:
        words.append(f"pods {_selector_words(pods.pods)}")
    if pods.namespace:
        words.append(f"namespace {pods.namespace}")
    elif pods.namespaces:
        words.append(f"namespaces {_selector_words(pods.namespaces)}")
    return " in ".join(words)


def _peer_words(peer: Peer) -> str:
    match peer:
        case PodSet():
            return _pods_words(peer)
        case IpBlock(network, excepted):
            return str(network) + (f" except {', '.join(map(str, excepted))}" if excepted else "")
    return f"nodes {_selector_words(peer.nodes)}" if peer.nodes else "all nodes"


def _port_words(port: PolicyPort) -> str:
    number = f"{port.port}-{port.end}" if port.end else str(port.port) if port.port else ""
    return "/".join(filter(None, (number, port.protocol)))


def _rule_words(rule: Rule, preposition: str) -> str:
    peers = "anywhere" if rule.peers is None else " or ".join(map(_peer_words, rule.peers)) or "nobody"
    ports = "" if rule.ports is None else " on " + (", ".join(map(_port_words, rule.ports)) or "no port")
    name = f" ({rule.name})" if rule.name else ""
    return f"{rule.action} {preposition} {peers}{ports}{name}"


# May A reach B? -----------------------------------------------------------------------------------------------------


def checked_port(protocol: str, port: int) -> int:
    """The port that is meant: none for ICMP. Raises QuestionError."""
    if protocol not in _PROTOCOLS:
        raise QuestionError(f"no protocol {protocol!r}; the protocols are {', '.join(_PROTOCOLS)}")
    if protocol == "ICMP":
        return 0
    if not 1 <= port <= 65535:
        raise QuestionError(f"{protocol} goes to a port from 1 to 65535")
    return port


def check(compiler: Compiler, source: str, destination: str, protocol: str, port: int, family: int) -> Row:
    """The verdict on a connection, and which rule says so. Raises QuestionError."""
    port = checked_port(protocol, port)
    if {"svc", "service"} & set(destination.split("/")[:-1]):
        raise QuestionError(f"{destination}: policies judge endpoints, not Services; ask of a pod of it, and its port")
    ends = parties(compiler, source), parties(compiler, destination)
    versions = sorted({each.address.version for each in ends[0]} & {each.address.version for each in ends[1]})
    if (family and family not in versions) or not versions:
        what = f"IPv{family}" if family else "family"
        raise QuestionError(f"{source} and {destination} have no {what} in common")
    version = family or versions[0]
    first, second = (next(each for each in end if each.address.version == version) for end in ends)
    verdict = judge(compiler.cluster, Question(first, second, protocol, port), compiler.policies.crowded)
    return {
        "source": _party_words(first),
        "destination": _party_words(second),
        "protocol": protocol,
        "port": port,
        "allowed": verdict.allowed,
        "reason": reason(verdict),
        "steps": [_step_words(step) for step in verdict.steps],
    }


def reason(verdict: Verdict) -> str:
    """The step that decided, in words."""
    if not verdict.steps:
        return "no policy is asked: neither end is a pod, or a node talks to its own pod"
    decisive = [step for step in verdict.steps if step.action in (Action.ACCEPT, Action.DENY)]
    return "; ".join(map(_step_words, decisive)) if decisive else "no policy says anything of it"


def _step_words(step: Step) -> str:
    where = f"{step.direction}, {_TIERS[step.tier]} tier"
    if step.policy is not None:
        rule = f"rule {step.rule}" + (f" ({step.name})" if step.name else "")
        return f"{where}: {step.action} by {rule} of {object_words(step.policy)}"
    if step.action is Action.DENY:
        return f"{where}: Deny, no rule of {_all_words(step.isolated_by)} allows it"
    return f"{where}: nothing"


def _all_words(keys: Sequence[Key]) -> str:
    return " or ".join(map(object_words, keys))


def _party_words(end: Party) -> str:
    if end.pod is not None:
        return f"{object_words(end.pod.key)} ({end.address})"
    return f"{object_words(end.node.key)} ({end.address})" if end.node is not None else str(end.address)


def parties(compiler: Compiler, text: str) -> list[Party]:
    """Who `NAMESPACE/POD`, `POD`, `node/NAME` or an address is, by each of its addresses."""
    try:
        return [_owner(compiler, ip_address(text))]
    except ValueError:
        pass
    namespace, _, name = text.rpartition("/")
    if namespace == "node":
        if name not in compiler.cluster.nodes:
            raise QuestionError(f"no node {name!r}")
        return _of_node(compiler, name)
    pod = compiler.cluster.pods.get((namespace or "default", name))
    if pod is None:
        raise QuestionError(f"no pod {namespace or 'default'}/{name}; say NAMESPACE/POD, node/NAME or an address")
    if pod.host_network:
        return _of_node(compiler, pod.node)
    addresses = pod.addresses or _announced(compiler, pod)
    if not addresses:
        raise QuestionError(f"pod {namespace or 'default'}/{name} has no address yet")
    return [Party(address, pod=pod) for address in addresses]


def _of_node(compiler: Compiler, name: str) -> list[Party]:
    node = compiler.cluster.nodes.get(name)
    return [Party(address, node=node) for address in node.addresses] if node is not None else []


def _owner(compiler: Compiler, address: Address) -> Party:
    found = party(compiler.cluster, address)
    if found.pod is None and found.node is None:
        for name in compiler.cluster.nodes:
            for pod, local in compiler.local_pods(name):
                if address in local.addresses:
                    return Party(address, pod=pod)
    return found


def _announced(compiler: Compiler, pod: Pod) -> tuple[Address, ...]:
    """A pod's addresses as its port has told them, where its status doesn't."""
    return next((local.addresses for each, local in compiler.local_pods(pod.node) if each.key == pod.key), ())
