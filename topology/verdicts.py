"""May A reach B? Answered from the objects alone, with the rule that says so.

Pure, and slow: it goes through every policy, one question at a time. It follows the tiers as switches do
(`flows.policies`), and tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import msgspec

from topology.metadata import Key
from topology.model import Cluster, Node, Pod
from topology.naming import Address
from topology.policies import Action, Direction, IpBlock, NodeSet, Peer, PodSet, Policy, PolicyPort, Rule, Tier, closed
from topology.selectors import selects


class Party(msgspec.Struct, frozen=True):
    """One end of a connection: an address, and the pod (not of the host's network) or the node that has it, if any."""

    address: Address
    pod: Pod | None = None
    node: Node | None = None


class Question(msgspec.Struct, frozen=True):
    """`protocol` is TCP, UDP, SCTP or another's name; `port` is the destination's, 0 where there is none."""

    source: Party
    destination: Party
    protocol: str = "TCP"
    port: int = 0


class Step(msgspec.Struct, frozen=True):
    """What one tier said in one direction. `action` is None where none of its rules matched and none had to.

    `policy` and `rule` (the place in its list, from 0, and its name) are absent where a tier denies for want of a rule.
    """

    direction: Direction
    tier: Tier
    action: Action | None
    policy: Key | None = None
    rule: int | None = None
    name: str = ""
    #: The NetworkPolicies that isolate the pod, where they are what denies.
    isolated_by: tuple[Key, ...] = ()


class Verdict(msgspec.Struct, frozen=True):
    """Whether a connection is let through, and what each tier said on the way."""

    allowed: bool
    steps: tuple[Step, ...]


#: The policies of a tier that a pod is a subject of, in one direction, from the first to the last.
Applied = Callable[[Pod, Direction, Tier], Sequence[Policy]]


def party(cluster: Cluster, address: Address) -> Party:
    """Who has an address."""
    for pod in cluster.pods.values():
        if address in pod.addresses and not pod.host_network:
            return Party(address, pod=pod)
    for node in cluster.nodes.values():
        own = address in node.addresses or any(address == cidr[1] for cidr in node.pod_cidrs)
        if own:
            return Party(address, node=node)
    return Party(address)


def judge(
    cluster: Cluster, question: Question, crowded: Collection[Key] = (), applied: Applied | None = None
) -> Verdict:
    """Go through the tiers: for the sender what it may send, for the receiver what it may get.

    `crowded` are the policies for whose rules switches have no room: they deny, after the others of their priority.
    Who asks many questions may know which policies are `applied`, as `in_order` has them; else they are looked for.
    """
    steps: list[Step] = []
    source, destination = question.source, question.destination
    here = source.node is not None and destination.pod is not None and destination.pod.node == source.node.name
    for direction, subject in ((Direction.EGRESS, source), (Direction.INGRESS, destination)):
        # A host reaches its own pods, whatever their policies say.
        if subject.pod is None or (here and direction is Direction.INGRESS):
            continue
        for tier in Tier:
            if applied is not None:
                policies = applied(subject.pod, direction, tier)
            else:
                policies = in_order(_subject_to(cluster, direction, subject.pod, tier), crowded)
            step = _ask(cluster, question, direction, tier, policies)
            steps.append(step)
            if step.action is Action.DENY:
                return Verdict(False, tuple(steps))
            if step.action is Action.ACCEPT:
                break
    return Verdict(True, tuple(steps))


def in_order(policies: Iterable[Policy], crowded: Collection[Key] = ()) -> list[Policy]:
    """Policies of one tier as they are asked, the `crowded` as they are then."""
    found = (closed(each) if each.key in crowded else each for each in policies)
    return sorted(found, key=lambda each: (each.priority, each.key in crowded, each.key))


def _subject_to(cluster: Cluster, direction: Direction, pod: Pod, tier: Tier) -> Iterator[Policy]:
    for each in cluster.policies.values():
        if each.tier is tier and each.rules(direction) is not None and _is_in(cluster, each.subjects, pod):
            yield each


def _ask(cluster: Cluster, question: Question, direction: Direction, tier: Tier, policies: Sequence[Policy]) -> Step:
    for policy, index, rule in _rules(policies, direction):
        if _matches(cluster, question, direction, rule):
            return Step(direction, tier, rule.action, policy.key, index, rule.name)
    if tier is Tier.NETWORK_POLICY and policies:
        return Step(direction, tier, Action.DENY, isolated_by=tuple(each.key for each in policies))
    return Step(direction, tier, None)


def _rules(policies: Sequence[Policy], direction: Direction) -> Iterator[tuple[Policy, int, Rule]]:
    for policy in policies:
        for index, rule in enumerate(policy.rules(direction) or ()):
            yield policy, index, rule


def _is_in(cluster: Cluster, pods: PodSet, pod: Pod) -> bool:
    namespace = cluster.namespaces.get(pod.namespace)
    labels = namespace.labels if namespace is not None else (("kubernetes.io/metadata.name", pod.namespace),)
    return pods.has(pod.namespace, labels, pod.labels)


def _matches(cluster: Cluster, question: Question, direction: Direction, rule: Rule) -> bool:
    other = question.source if direction is Direction.INGRESS else question.destination
    if rule.peers is not None and not any(_is_peer(cluster, peer, other) for peer in rule.peers):
        return False
    return rule.ports is None or any(_is_port(question, port) for port in rule.ports)


def _is_peer(cluster: Cluster, peer: Peer, other: Party) -> bool:
    match peer:
        case PodSet():
            return other.pod is not None and _is_in(cluster, peer, other.pod)
        case IpBlock(network, excepted):
            return other.address in network and not any(other.address in each for each in excepted)
        case NodeSet(nodes):
            found = (node for node in cluster.nodes.values() if selects(nodes, node.labels))
            return any(other.address in node.addresses for node in found)


def _is_port(question: Question, port: PolicyPort) -> bool:
    if isinstance(port.port, int):
        last = port.end or port.port or 0xFFFF
        return question.protocol == port.protocol and port.port <= question.port <= last
    pod = question.destination.pod
    return pod is not None and any(
        (each.name, each.port, each.protocol) == (port.port, question.port, question.protocol)
        and port.protocol in ("", each.protocol)
        for each in pod.ports
    )
