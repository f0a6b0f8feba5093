"""Policy and the tables of the three tiers, of egress and of ingress: may this packet go on?

    Route -> Policy -> EgressAdmin -> EgressPolicy -> EgressBaseline -> IngressAdmin -> IngressPolicy -> IngressBaseline
                │            └──────────────┴── accepted ────▲  └───────────────┴── accepted ──────┐         │
                └── replies, and what another node judges ──────────────────────────────────────> Commit <───┘

Every packet of a connection's forward direction is judged, the first like the last, so that a verdict is always the
current one; replies are not, and go through tunnels as what was judged already. Pod to pod is judged where the receiver
is, in both directions; what leaves the pods' network is judged where it leaves, what comes in from the world where it
comes in. How flows of the tiers look is known here; what they are made of is `flows.policies`' business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from flows import fields as f
from flows.fields import Match, Term
from flows.pipeline import (
    COMMIT,
    EGRESS_ADMIN,
    EGRESS_BASELINE,
    EGRESS_POLICY,
    INGRESS_ADMIN,
    INGRESS_BASELINE,
    INGRESS_POLICY,
    POLICY,
    Table,
)
from flows.registers import (
    BY_ADDRESS,
    DESTINATION_IDENTITY,
    EXIT,
    FROM_POD,
    SCRATCH,
    SOURCE,
    SOURCE_IDENTITY,
    TO_OTHER_NODES,
    TO_POD,
    Exit,
    Identity,
    Source,
)
from flows.values import DROP, PORT_CONTROLLER, Flow, FlowKey, Goto, Output, Program, load
from topology.naming import Network
from topology.policies import Action, Direction, Tier

#: Of Policy.
_REPLY, _SPECIAL, _NEAR, _KNOWN, _STRANGER, _OTHERS, _OTHERWISE = 400, 300, 200, 150, 140, 100, 0

#: Of the NetworkPolicy tier: allowed by one flow; allowed by a conjunction, in one of many priorities (see
#: `conjunction_priority`); isolated.
ALLOWED, ISOLATED = 900, 100
_CONJUNCTIONS, CONJUNCTION_PRIORITIES = 800, 64
#: Of the Admin and Baseline tiers: ranks of one policy priority, the first above the next, each with two priorities:
#: one for single flows and one below for conjunctions, so that no flow is of both kinds.
RANKS = 32
_LOWEST_RANK = 100

_STAGES: dict[Direction, tuple[Table, Table, Table]] = {
    Direction.EGRESS: (EGRESS_ADMIN, EGRESS_POLICY, EGRESS_BASELINE),
    Direction.INGRESS: (INGRESS_ADMIN, INGRESS_POLICY, INGRESS_BASELINE),
}
_PLACES = {
    stage.number: (direction, tier)
    for direction, stages in _STAGES.items()
    for tier, stage in zip(Tier, stages, strict=True)
}
_AFTER = {Direction.EGRESS: INGRESS_ADMIN, Direction.INGRESS: COMMIT}
#: Of a packet that the controller is told of: enough for every header that is looked at.
TOLD_BYTES = 128
_TOLD = Output(PORT_CONTROLLER, TOLD_BYTES)
#: The one thing of a packet that says which it was.
_TELL_DENIED: Program = (_TOLD,)
_TELL_ALLOWED: Program = (load(SCRATCH, 1), _TOLD)
_NEW = f.CT_STATE(f.CT_NEW | f.CT_TRK, f.CT_NEW | f.CT_TRK)
_NOT_NEW = f.CT_STATE(f.CT_TRK, f.CT_NEW | f.CT_TRK)
_PROTOCOLS = {"TCP": (f.PROTO_TCP, f.TCP_DST), "UDP": (f.PROTO_UDP, f.UDP_DST), "SCTP": (f.PROTO_SCTP, f.SCTP_DST)}
FAMILIES: tuple[Term, ...] = (f.ETH_TYPE(f.ETH_IPV4), f.ETH_TYPE(f.ETH_IPV6))
_FIELDS = {
    (Direction.INGRESS, 4): f.IPV4_SRC,
    (Direction.INGRESS, 6): f.IPV6_SRC,
    (Direction.EGRESS, 4): f.IPV4_DST,
    (Direction.EGRESS, 6): f.IPV6_DST,
}

#: Fields of which several parts have meanings of their own.
_BITWISE = frozenset({SOURCE_IDENTITY.field, DESTINATION_IDENTITY.field})


def table_of(direction: Direction, tier: Tier) -> Table:
    """The table of a tier."""
    return _STAGES[direction][tier]


def _after_tier(direction: Direction, tier: Tier) -> Table:
    stages = _STAGES[direction]
    return stages[tier + 1] if tier + 1 < len(stages) else _AFTER[direction]


def verdict(direction: Direction, tier: Tier, action: Action) -> Program:
    """What becomes of a packet that a rule is about."""
    match action:
        case Action.ACCEPT:
            return (Goto(_AFTER[direction].number),)
        case Action.PASS:
            return (Goto(_after_tier(direction, tier).number),)
        case Action.DENY:
            return DROP


def logged(piece: FlowKey, program: Program, *, denies: bool) -> Iterator[tuple[FlowKey, Program]]:
    """A flow of a verdict as one that tells the controller of what it denies, or of each new connection that it allows.

    What isn't new has a flow of its own then, so that the fast path doesn't know of it. How much is told is up to the
    switch: its rate is limited (`node.ovsdb`).
    """
    if denies:
        yield piece, (*_TELL_DENIED, *program)
        return
    number, priority, match = piece
    for state, tell in ((_NEW, _TELL_ALLOWED), (_NOT_NEW, ())):
        yield (number, priority, f.match(*match, state)), (*tell, *program)


def untold(program: Program) -> Program:
    """A verdict without what tells the controller of it."""
    for tell in (_TELL_DENIED, _TELL_ALLOWED):
        if program[: len(tell)] == tell:
            return program[len(tell) :]
    return program


def direction_of(number: int) -> Direction | None:
    """The direction that a table is about."""
    found = (direction for direction, stages in _STAGES.items() if number in [stage.number for stage in stages])
    return next(found, None)


def place_of(number: int) -> tuple[Direction, Tier] | None:
    """The direction and the tier that a table is of."""
    return _PLACES.get(number)


def rank_priority(priority: int, rank: int) -> int:
    """The flow priority of the `rank`-th run of rules, from 0, of policies of this priority (0 to 1000).

    That of single flows; conjunctions have the one below.
    """
    return _LOWEST_RANK + 2 * ((1000 - priority) * RANKS + (RANKS - 1 - rank)) + 1


def conjunction_priority(number: int) -> int:
    """The priority of a NetworkPolicy's conjunction.

    All of them allow, so that it doesn't matter which is met first; they are spread out so that a flow that many of
    them share doesn't outgrow a message.
    """
    return _CONJUNCTIONS + number % CONJUNCTION_PRIORITIES


def pipeline_flows(cookie: int) -> Iterator[Flow]:
    """Who is judged here, and what becomes of those about whom no policy says anything."""
    table = POLICY.number
    to_commit, egress, ingress = (Goto(each.number) for each in (COMMIT, EGRESS_ADMIN, INGRESS_ADMIN))
    # What belongs to a connection that was let through once: answers, and errors about it. By a tunnel they say so, if
    # the node that let the connection through says so: here one may be known that was denied there.
    for source in (Source.POD, Source.GATEWAY, Source.WORLD):
        yield from _reply_flows(SOURCE(source), (load(SOURCE_IDENTITY, Identity.JUDGED), to_commit), cookie)
    # A host reaches its own pods: kubelet probes them. What came in from the world was judged there.
    for identity in (Identity.THIS_HOST, Identity.JUDGED):
        yield Flow(table, _SPECIAL, (SOURCE_IDENTITY(identity),), (to_commit,), cookie)
    # From nobody, or to a pod that is nobody: a pod whose identity isn't here yet.
    yield Flow(table, _SPECIAL, (SOURCE_IDENTITY(Identity.NONE),), DROP, cookie)
    nobody = f.match(EXIT(Exit.PORT), DESTINATION_IDENTITY(Identity.NONE))
    yield Flow(table, _SPECIAL + 1, nobody, DROP, cookie)
    # To a pod here, from a pod anywhere: both have a say. From others only the receiver has.
    for identity in (Identity.OTHER_NODE, Identity.WORLD):
        match = f.match(EXIT(Exit.PORT), SOURCE_IDENTITY(identity))
        yield Flow(table, _NEAR, match, (ingress,), cookie)
    of_pod = (load(FROM_POD, 1), egress)
    yield Flow(table, _OTHERS, (EXIT(Exit.PORT),), of_pod, cookie)
    # To the host and the world behind it, and from another node to this host: what a pod may send is judged where it
    # leaves the pods' network. What hosts send to hosts is none of ours.
    for identity in (Identity.OTHER_NODE, Identity.WORLD):
        match = f.match(EXIT(Exit.GATEWAY), SOURCE_IDENTITY(identity))
        yield Flow(table, _NEAR, match, (to_commit,), cookie)
    yield Flow(table, _OTHERS, (EXIT(Exit.GATEWAY),), of_pod, cookie)
    # From the world, and it is about to get another source: the last place that knows the true one.
    for way in TO_OTHER_NODES:
        yield Flow(table, _OTHERS, f.match(SOURCE(Source.WORLD), EXIT(way), TO_POD(1)), (ingress,), cookie)
    yield Flow(table, _OTHERWISE, (), (to_commit,), cookie)
    for direction, stages in _STAGES.items():
        for tier, stage in zip(Tier, stages, strict=True):
            yield Flow(stage.number, _OTHERWISE, (), (Goto(_after_tier(direction, tier).number),), cookie)


def unkeyed_flows(cookie: int) -> Iterator[Flow]:
    """Where there are no keys, nothing tells whose answers are true: what looks like one is one."""
    yield from _reply_flows(BY_ADDRESS(1), (Goto(COMMIT.number),), cookie)


def known_sender_flow(identity: int, cookie: int) -> Flow:
    """From a pod on another node whose identity is known here: what its policies say of it is known too."""
    match = f.match(SOURCE(Source.TUNNEL), SOURCE_IDENTITY(identity))
    return Flow(POLICY.number, _KNOWN, match, (load(FROM_POD, 1), Goto(EGRESS_ADMIN.number)), cookie)


def stranger_flow(cookie: int) -> Flow:
    """From a pod on another node that nobody here has heard of, while there are policies that may be about it."""
    return Flow(POLICY.number, _STRANGER, (SOURCE(Source.TUNNEL),), DROP, cookie)


def routed_flows(cookie: int) -> Iterator[Flow]:
    """What goes to other nodes by the host, where the way there is not a tunnel.

    To their pods it is judged there. What goes to nodes themselves never meets their bridges, and what this host or the
    world behind it sends to a Service's endpoint gets another source: both are judged here.
    """
    table, egress, ingress = POLICY.number, Goto(EGRESS_ADMIN.number), Goto(INGRESS_ADMIN.number)
    node = f.match(SOURCE(Source.POD), EXIT(Exit.ROUTED), DESTINATION_IDENTITY(Identity.OTHER_NODE))
    yield Flow(table, _OTHERS, node, (load(FROM_POD, 1), egress), cookie)
    endpoint = (EXIT(Exit.ROUTED), TO_POD(1))
    yield Flow(table, _OTHERS, f.match(SOURCE(Source.WORLD), *endpoint), (ingress,), cookie)
    # It is not the endpoint's host.
    as_another = (load(SOURCE_IDENTITY, Identity.OTHER_NODE), ingress)
    yield Flow(table, _SPECIAL + 1, f.match(SOURCE(Source.GATEWAY), *endpoint), as_another, cookie)


def _reply_flows(sender: Term, program: Program, cookie: int) -> Iterator[Flow]:
    for state in (f.CT_RPL, f.CT_REL):
        match = f.match(sender, f.CT_STATE(state | f.CT_TRK, state | f.CT_TRK))
        yield Flow(POLICY.number, _REPLY, match, program, cookie)


# What a rule's flows match ------------------------------------------------------------------------------------------


def subject_match(direction: Direction) -> Callable[[int], Match]:
    """How the pod is matched whose policy it is, by its identity."""
    return _by_destination if direction is Direction.INGRESS else _by_source


def peer_match(direction: Direction) -> Callable[[int], Match]:
    """How the pod at the other end is matched."""
    return _by_source if direction is Direction.INGRESS else _by_destination


# Thousands of flows share a match; made once, they share its memory too.
@lru_cache(maxsize=1 << 16)
def _by_source(identity: int) -> Match:
    return (SOURCE_IDENTITY(identity),)


@lru_cache(maxsize=1 << 16)
def _by_destination(identity: int) -> Match:
    return (DESTINATION_IDENTITY(identity),)


def any_subject(direction: Direction) -> Match:
    """Any pod as the one whose policy it is."""
    return (TO_POD(1),) if direction is Direction.INGRESS else (FROM_POD(1),)


def any_peer(direction: Direction) -> Match:
    """Any pod at the other end."""
    return (FROM_POD(1),) if direction is Direction.INGRESS else (TO_POD(1),)


def address_match(direction: Direction, network: Network) -> Match:
    """The other end by its address."""
    ethertype = FAMILIES[network.version == 6]
    if not network.prefixlen:
        return (ethertype,)
    mask = None if network.prefixlen == network.max_prefixlen else int(network.netmask)
    return (ethertype, _FIELDS[direction, network.version](int(network.network_address), mask))


@lru_cache(maxsize=1 << 12)
def port_matches(protocol: str, first: int, last: int) -> tuple[Match, ...]:
    """Destination ports from `first` to `last`, as values and masks, in both families; 0 to 65535 is any."""
    number, field = _PROTOCOLS[protocol]
    found: list[Match] = []
    for family in FAMILIES:
        for value, mask in port_masks(first, last):
            if not mask:
                found.append((family, f.IP_PROTO(number)))
            else:
                found.append((family, f.IP_PROTO(number), field(value, None if mask == 0xFFFF else mask)))
    return tuple(found)


def port_masks(first: int, last: int) -> Iterator[tuple[int, int]]:
    """The fewest values with masks that stand for all numbers of 16 bits from `first` to `last`."""
    while first <= last:
        # The largest power of two that starts here and stays inside.
        size = first & -first if first else 1 << 16
        while size > last - first + 1:
            size >>= 1
        yield first, 0xFFFF & ~(size - 1)
        first += size


def joined(matches: Sequence[Match]) -> Match | None:
    """A match of several; None where they exclude one another (families, or two protocols)."""
    if len(matches) == 1:
        return matches[0]
    terms: dict[f.Field, Term] = {}
    for match in matches:
        for term in match:
            other = terms.get(term.field)
            if other is not None and other != term:
                if term.field in _BITWISE and other.mask and term.mask and not other.mask & term.mask:
                    term = Term(term.field, term.value | other.value, term.mask | other.mask)
                else:
                    return None
            terms[term.field] = term
    return tuple(sorted(terms.values(), key=lambda term: term.field.index))
