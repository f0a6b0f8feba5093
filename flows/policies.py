"""A policy as flows: its rules, with the identities that its selectors mean now, as matches and verdicts.

Pure: a policy and a `Directory` in, `Piece`s out. A piece is what one policy wants of one flow; where several want the
same flow, `flows.policy_parts` joins them. How flows look is `flows.tables.policy`'s to know.

    rule -> dimensions (subjects, peers, ports) -> every combination, where those are few
                                                -> a conjunction, one flow for each alternative, where they are many
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_network
from itertools import product
from math import prod
from typing import Protocol

import msgspec

from flows import fields as f
from flows.fields import Match
from flows.tables import policy as table
from flows.values import DROP, Conjunction, FlowKey, Program
from topology.identities import NamedPort
from topology.naming import Address, Network
from topology.policies import Action, Direction, IpBlock, NodeSet, PodSet, Policy, PolicyPort, Rule, Tier
from topology.selectors import Selector

#: So many combinations are always written out: a conjunction would not be much smaller, and is harder to read.
_FEW = 16
#: Alternatives of one dimension.
Dimension = list[Match]


class Directory(Protocol):
    """Who is meant by what a policy says."""

    def members(self, pods: PodSet) -> frozenset[int]:
        """The identities of a set of pods."""

    def addresses_of(self, nodes: Selector) -> tuple[Address, ...]:
        """The addresses of some nodes."""

    def named_ports(self, identity: int) -> tuple[NamedPort, ...]:
        """The ports of an identity that have names."""

    def having(self, port_name: str) -> frozenset[int]:
        """The identities that have a port of this name."""


class Piece(msgspec.Struct, frozen=True):
    """What a policy wants of the flow of this key: its program, or to be part of a conjunction (and no more)."""

    key: FlowKey
    program: Program


def pieces(
    policy: Policy, ranks: dict[Direction, tuple[int, ...]], directory: Directory, number: Callable[[str], int]
) -> Iterator[Piece]:
    """Everything that a policy wants. `ranks` has one for each rule of its tier, `number` numbers conjunctions."""
    for action, piece in _verdicts(policy, ranks, directory, number):
        denies = action is Action.DENY
        if action is None or not (policy.log_denied if denies else policy.log_allowed):
            yield piece
        else:
            for key, program in table.logged(piece.key, piece.program, denies=denies):
                yield Piece(key, program)


def _verdicts(
    policy: Policy, ranks: dict[Direction, tuple[int, ...]], directory: Directory, number: Callable[[str], int]
) -> Iterator[tuple[Action | None, Piece]]:
    """Pieces, with the verdict that each is; None for parts of conjunctions."""
    for direction in Direction:
        rules = policy.rules(direction)
        if rules is None:
            continue
        if policy.tier is Tier.NETWORK_POLICY:
            for identity in sorted(directory.members(policy.subjects)):
                stage = table.table_of(direction, policy.tier).number
                isolated = (stage, table.ISOLATED, table.subject_match(direction, identity))
                yield Action.DENY, Piece(isolated, DROP)
        for index, rule in enumerate(rules):
            rank = ranks[direction][index] if policy.tier is not Tier.NETWORK_POLICY else 0
            for part, dimensions in enumerate(_parts(policy, rule, direction, directory)):
                title = f"{policy.kind}/{policy.namespace}/{policy.name}/{direction}/{index}/{part}"
                yield from _flows(policy, rule, direction, rank, dimensions, lambda title=title: number(title))  # type: ignore[misc]


def _flows(
    policy: Policy, rule: Rule, direction: Direction, rank: int, dimensions: list[Dimension], number: Callable[[], int]
) -> Iterator[tuple[Action | None, Piece]]:
    stage = table.table_of(direction, policy.tier).number
    program = table.verdict(direction, policy.tier, rule.action)
    plain = policy.tier is Tier.NETWORK_POLICY
    priority = table.ALLOWED if plain else table.rank_priority(policy.priority, rank)
    if not all(dimensions):
        return
    sizes = [len(each) for each in dimensions]
    if prod(sizes) <= max(_FEW, sum(sizes)):
        for matches in product(*dimensions):
            match = table.joined(matches)
            if match is not None:
                yield rule.action, Piece((stage, priority, match), program)
        return
    conjunction = number()
    priority = table.conjunction_priority(conjunction) if plain else priority - 1
    # A dimension of one alternative is none: it goes into the flow that the conjunction ends in, and into each part,
    # so that parts are shared, and looked at, as little as can be.
    fixed = [each[0] for each in dimensions if len(each) == 1]
    open_ones = [each for each in dimensions if len(each) > 1]
    for clause, dimension in enumerate(open_ones, 1):
        for match in dimension:
            part = table.joined((*fixed, match))
            if part is not None:
                program_of_part = (Conjunction(conjunction, clause, len(open_ones)),)
                yield None, Piece((stage, priority, part), program_of_part)
    yield rule.action, Piece((stage, priority, (f.CONJ_ID(conjunction),)), program)


def _parts(policy: Policy, rule: Rule, direction: Direction, directory: Directory) -> Iterator[list[Dimension]]:
    """A rule as dimensions; with ports by name as several, one for each number that the name stands for."""
    numbers = [each for each in rule.ports or () if isinstance(each.port, int)]
    names = [each for each in rule.ports or () if not isinstance(each.port, int)]
    subjects = _subjects(policy, direction, directory)
    peers = None if rule.peers is None else list(_peers(rule.peers, direction, directory))
    if rule.ports is None:
        yield _dimensions(subjects, peers, None)
    if numbers:
        yield _dimensions(subjects, peers, [match for each in numbers for match in _numbered(each)])
    if not names:
        return
    everybody = frozenset(each for port in names for each in directory.having(str(port.port)))
    if direction is Direction.INGRESS:
        members = everybody if policy.subjects.everybody else everybody & directory.members(policy.subjects)
        for ports, identities in _by_ports(names, members, directory):
            chosen = [table.subject_match(direction, each) for each in identities]
            yield _dimensions(chosen, peers, ports)
        return
    # The name is the receiver's: the pod at the other end, however the rule has found it.
    sets = None if rule.peers is None else [each for each in rule.peers if isinstance(each, PodSet)]
    chosen_pods = everybody
    if sets is not None and not any(each.everybody for each in sets):
        chosen_pods &= frozenset(each for pods in sets for each in directory.members(pods))
    for ports, identities in _by_ports(names, chosen_pods, directory):
        chosen = [table.peer_match(direction, each) for each in identities]
        yield _dimensions(subjects, chosen, ports)
    blocks = [each for each in rule.peers or () if not isinstance(each, PodSet)]
    if blocks:
        addresses = list(_peers(blocks, direction, directory))
        for ports, identities in _by_ports(names, everybody, directory):
            chosen = [table.peer_match(direction, each) for each in identities]
            yield [*_dimensions(subjects, addresses, ports), chosen]


def _dimensions(subjects: Dimension, peers: Dimension | None, ports: Dimension | None) -> list[Dimension]:
    return [each for each in (subjects, peers, ports) if each is not None]


def _subjects(policy: Policy, direction: Direction, directory: Directory) -> Dimension:
    if policy.subjects.everybody:
        return [table.any_subject(direction)]
    return [table.subject_match(direction, each) for each in sorted(directory.members(policy.subjects))]


def _peers(peers: Iterable[PodSet | IpBlock | NodeSet], direction: Direction, directory: Directory) -> Iterator[Match]:
    """Each alternative once."""
    found: dict[Match, None] = {}
    for peer in peers:
        match peer:
            case PodSet() if peer.everybody:
                found[table.any_peer(direction)] = None
            case PodSet():
                for identity in sorted(directory.members(peer)):
                    found[table.peer_match(direction, identity)] = None
            case IpBlock(network, excepted):
                for part in without(network, excepted):
                    found[table.address_match(direction, part)] = None
            case NodeSet(nodes):
                for address in directory.addresses_of(nodes):
                    found[table.address_match(direction, ip_network(address))] = None
    return iter(found)


def without(network: Network, excepted: Sequence[Network]) -> list[Network]:
    """A network less others inside it, as few networks as can be."""
    left: list[Network] = [network]
    for each in excepted:
        parts: list[Network] = []
        for part in left:
            if part.version != each.version or not part.overlaps(each):
                parts.append(part)
            elif part.prefixlen < each.prefixlen:
                parts.extend(part.address_exclude(each))  # type: ignore[arg-type]
        left = parts
    return sorted(left, key=lambda part: (int(part.network_address), part.prefixlen))


def _numbered(port: PolicyPort) -> Iterator[Match]:
    assert isinstance(port.port, int)
    if not port.port:
        yield from table.port_matches(port.protocol, 0, 0xFFFF)
    else:
        yield from table.port_matches(port.protocol, port.port, port.end or port.port)


def _by_ports(
    names: Sequence[PolicyPort], identities: Iterable[int], directory: Directory
) -> Iterator[tuple[Dimension, list[int]]]:
    """Identities by what the names stand for with them, those for which they stand for nothing left out."""
    groups: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for identity in sorted(identities):
        wanted = {(each.port, each.protocol) for each in names}
        found = {
            (protocol, number)
            for name, protocol, number in directory.named_ports(identity)
            if (name, protocol) in wanted or (name, "") in wanted
        }
        if found:
            groups.setdefault(tuple(sorted(found)), []).append(identity)
    for ports, members in sorted(groups.items()):
        matches = [match for protocol, number in ports for match in table.port_matches(protocol, number, number)]
        yield matches, members


def ranks(policies: Sequence[Policy], direction: Direction) -> tuple[dict[Policy, tuple[int, ...]], list[Policy]]:
    """The rank of each rule of the policies of one tier and priority, in their order; and who finds no room.

    Rules one after another that say the same may have the same rank: which of them is met makes no difference.
    The last rank is kept for those that found no room, and are to deny everything.
    """
    given: dict[Policy, tuple[int, ...]] = {}
    crowded: list[Policy] = []
    rank, last = 0, None
    for each in policies:
        mine = []
        here, before = rank, last
        for rule in each.rules(direction) or ():
            if before is not None and rule.action is not before:
                here += 1
            before = rule.action
            mine.append(here)
        if here >= table.RANKS - 1:
            crowded.append(each)
            continue
        rank, last = here, before
        given[each] = tuple(mine)
    return given, crowded
