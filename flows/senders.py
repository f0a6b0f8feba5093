"""Which senders a node knows: whoever a tunnel's key tells, and this node has not heard of, is not let in.

A policy that restricts what a pod sends is enforced where the packet arrives, and selects pods by their identities. A
node that lags behind, or has lost its controller, may be sent packets of an identity that is new to the cluster: it has
no flow that denies them anything. So while there are policies to which that makes a difference, each identity has a
flow that lets its packets on to be judged, and who has none is dropped. It comes in one bundle with what policies say
of the identity.

Where tunnels have no keys this isn't needed: who sends is then told by flows that are as old as the policies'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flows.cookies import Kind, Scope, cookie
from flows.tables import policy as table
from flows.values import Flow
from topology.identities import Identities
from topology.metadata import Key
from topology.policies import Action, PodSet, Policy

#: Flows that are made at a time, where no object bounds them.
PORTION = 200
_NOBODY_S = cookie(Scope.CLUSTER, Kind.PIPELINE, 0)


class Senders:
    """The identities that are let on, all of them or none: none where no policy needs it."""

    def __init__(self, identities: Identities, *, keyed: bool) -> None:
        self._identities = identities
        self._keyed = keyed
        #: The policies to which it makes a difference.
        self._minding: set[Key] = set()
        #: Whether there were any when flows were last brought up to date, and whom they let on since.
        self._minded = False
        self._known: set[int] = set()

    def put(self, policy: Policy) -> None:
        """A policy as it is now."""
        if self._keyed and _minds(policy):
            self._minding.add(policy.key)

    def remove(self, policy: Key) -> None:
        """A policy is gone."""
        self._minding.discard(policy)

    def follow(self, numbers: Iterable[int]) -> Iterator[tuple[Flow | None, Flow | None]]:
        """Identities have come or gone, or policies. Yields the flows that changed, before and after."""
        if self._minded != bool(self._minding):
            self._minded = not self._minded
            numbers = self._known.union(self._identities)
            stranger = table.stranger_flow(_NOBODY_S)
            yield (None, stranger) if self._minded else (stranger, None)
        # Sorted, since the order of sets must not show in what is sent.
        for number in sorted(numbers):
            if (number in self._known) == (self._minded and number in self._identities):
                continue
            self._known ^= {number}
            flow = _known_flow(number)
            yield (None, flow) if number in self._known else (flow, None)

    def portions(self) -> Iterator[Iterable[Flow]]:
        """Every flow, as the policies and identities are now; see `Compiler.portions`."""
        if self._minding:
            numbers = list(self._identities)
            yield (table.stranger_flow(_NOBODY_S),)
            for start in range(0, len(numbers), PORTION):
                yield map(_known_flow, numbers[start : start + PORTION])


def _minds(policy: Policy) -> bool:
    """Whether a packet might get by a policy because nobody knows who sends it.

    That no rule which accepts is met does no harm, nor do policies that are for every pod.
    """
    if policy.egress is not None and not policy.subjects.everybody:
        return True
    denying = (rule for rule in policy.ingress or () if rule.action is not Action.ACCEPT)
    return any(isinstance(peer, PodSet) and not peer.everybody for rule in denying for peer in rule.peers or ())


def _known_flow(number: int) -> Flow:
    return table.known_sender_flow(number, cookie(Scope.CLUSTER, Kind.IDENTITY, number))
