"""Policies as values: NetworkPolicy, ClusterNetworkPolicy and its forerunners in one form, and what they select.

Owns: the form that every kind of policy is brought into, and which pods a selector means. Must not know YAML, numbers
or switches: `topology.policy_manifests` makes these, `flows.policies` compiles them. Pure.

A policy has *subjects* (pods), and for each direction an ordered list of rules, or none. Tiers are asked in their
order (`Tier`). In Admin and Baseline the first rule that matches decides. In the NetworkPolicy tier rules only allow:
whatever no rule of any policy allows to a subject is denied in the directions that one of its policies is about.
Sources: NetworkPolicy v1 (kubernetes.io, "Network Policies"), policy.networking.k8s.io/v1alpha2 and v1alpha1.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec

from topology.metadata import Key, Labels
from topology.naming import Network
from topology.selectors import Selector, selects


class Tier(IntEnum):
    """Asked in this order."""

    ADMIN = 0
    NETWORK_POLICY = 1
    BASELINE = 2


class Action(StrEnum):
    """What a rule says of what it matches. `PASS` leaves the tier; NetworkPolicies only accept."""

    ACCEPT = "Accept"
    DENY = "Deny"
    PASS = "Pass"


class Direction(StrEnum):
    INGRESS = "ingress"
    EGRESS = "egress"


class PodSet(msgspec.Struct, frozen=True):
    """Pods by labels: of the namespace `namespace`, or where that is empty, of all that `namespaces` selects.

    Pods of the host's network are never among them.
    """

    pods: Selector = ()
    namespace: str = ""
    namespaces: Selector = ()

    @property
    def everybody(self) -> bool:
        """Whether it is every pod of the cluster."""
        return not (self.pods or self.namespace or self.namespaces)

    def has(self, namespace: str, namespace_labels: Labels, labels: Labels) -> bool:
        """Whether a pod of these labels, in this namespace, is one of them."""
        if self.namespace:
            return self.namespace == namespace and selects(self.pods, labels)
        return selects(self.namespaces, namespace_labels) and selects(self.pods, labels)


class IpBlock(msgspec.Struct, frozen=True):
    """Addresses: a network less others inside it. Of pods, too, where it covers them."""

    network: Network
    excepted: tuple[Network, ...] = ()


class NodeSet(msgspec.Struct, frozen=True):
    """The addresses of nodes, by their labels."""

    nodes: Selector = ()


Peer = PodSet | IpBlock | NodeSet


class PolicyPort(msgspec.Struct, frozen=True):
    """Destination ports. `port` is a number, or the name that the destination pod gives to one; 0 stands for all.

    `protocol` is TCP, UDP or SCTP; empty only with a name, which then may be of any. With `end`, all from `port` to it.
    """

    protocol: str
    port: int | str = 0
    end: int = 0


class Rule(msgspec.Struct, frozen=True):
    """One rule of one direction. None stands for every peer, for every protocol and port; () for nothing at all."""

    action: Action = Action.ACCEPT
    peers: tuple[Peer, ...] | None = None
    ports: tuple[PolicyPort, ...] | None = None
    name: str = ""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy of any kind. `namespace` is empty for those of the cluster.

    A direction that is None the policy says nothing about; () is for a NetworkPolicy that allows nothing. `priority`
    orders policies of the Admin and Baseline tiers, the lowest first. `fault` says why a policy is not as it was
    written: its rules, as they are here, then deny all that it might have been about, or lack what they can't allow.
    """

    kind: str = "NetworkPolicy"
    namespace: str = ""
    name: str
    tier: Tier = Tier.NETWORK_POLICY
    priority: int = 0
    subjects: PodSet
    ingress: tuple[Rule, ...] | None = None
    egress: tuple[Rule, ...] | None = None
    #: Whether denied and allowed connections are logged (annotation `signalbox.io/log`: deny, allow, all or none).
    log_denied: bool = False
    log_allowed: bool = False
    fault: str = ""

    @property
    def key(self) -> Key:
        return (self.kind, self.namespace, self.name)

    def rules(self, direction: Direction) -> tuple[Rule, ...] | None:
        """The rules of one direction."""
        return self.ingress if direction is Direction.INGRESS else self.egress


def closed(policy: Policy) -> Policy:
    """A policy for whose rules there is no room: it denies what it may have been about."""
    deny = (Rule(Action.DENY, name="closed: no room at its priority"),)
    return msgspec.structs.replace(
        policy,
        ingress=deny if policy.ingress is not None else None,
        egress=deny if policy.egress is not None else None,
    )
