"""A policy as flows: its rules, with the identities that its selectors mean now, as matches and verdicts.

Pure: a policy and a `Directory` in, `Block`s and their `Piece`s out. A piece is what one policy wants of one flow;
where several want the same flow, `flows.policy_parts` joins them. How flows look is `flows.tables.policy`'s to know.

    rule -> block of dimensions (subjects, peers, ports) -> every combination, where those are few
                                                         -> a conjunction, one flow for each alternative, where many

A block of many alternatives can be asked for the pieces of some identities alone: `pieces_about`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
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
#: What a conjunction is called that a block may need, to the number that it has.
Numbering = Callable[[str], int]


class Directory(Protocol):
    """Who is meant by what a policy says."""

    def members(self, pods: PodSet) -> Set[int]:
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


class Dimension(msgspec.Struct):
    """The alternatives of one dimension: matches, and identities with how they are matched (None: never any)."""

    others: tuple[Match, ...]
    identities: Set[int] = frozenset()
    match: Callable[[int], Match] | None = None

    def __len__(self) -> int:
        return len(self.others) + len(self.identities)

    def matches(self) -> list[Match]:
        """All of them."""
        return [*self.others, *self.of(self.identities)]

    def of(self, identities: Iterable[int]) -> Iterator[Match]:
        """Those of identities."""
        if self.match is not None:
            for identity in sorted(identities):
                yield self.match(identity)


class Block(msgspec.Struct):
    """Flows of one verdict: whoever meets one alternative of each dimension gets `program`.

    `priority` is that of combinations that are written out, `conjunctions` gives that of a conjunction by its number.
    """

    title: str
    stage: int
    priority: int
    conjunctions: Callable[[int], int]
    program: Program
    dimensions: tuple[Dimension, ...]
    #: Whether it denies, if the controller is to be told of what it decides; None where it isn't.
    told_denies: bool | None = None

    def verdict(self, key: FlowKey) -> Iterator[Piece]:
        """What a packet that meets this flow gets."""
        if self.told_denies is None:
            yield Piece(key, self.program)
        else:
            for each, program in table.logged(key, self.program, denies=self.told_denies):
                yield Piece(each, program)


def blocks(policy: Policy, ranks: dict[Direction, tuple[int, ...]], directory: Directory) -> Iterator[Block]:
    """Everything that a policy wants. `ranks` has one for each rule of its tier."""
    plain = policy.tier is Tier.NETWORK_POLICY
    for direction in Direction:
        rules = policy.rules(direction)
        if rules is None:
            continue
        stage = table.table_of(direction, policy.tier).number
        title = f"{policy.kind}/{policy.namespace}/{policy.name}/{direction}"
        subjects = _subjects(policy, direction, directory)
        if plain:
            told = _told(policy, Action.DENY)
            yield Block(title, stage, table.ISOLATED, table.conjunction_priority, DROP, (subjects,), told)
        for index, rule in enumerate(rules):
            program = table.verdict(direction, policy.tier, rule.action)
            priority = table.ALLOWED if plain else table.rank_priority(policy.priority, ranks[direction][index])
            conjunctions = table.conjunction_priority if plain else _one_below(priority)
            for part, dimensions in enumerate(_parts(policy, rule, direction, directory, subjects)):
                chosen, told = tuple(dimensions), _told(policy, rule.action)
                yield Block(f"{title}/{index}/{part}", stage, priority, conjunctions, program, chosen, told)


def _told(policy: Policy, action: Action) -> bool | None:
    asked = {Action.DENY: policy.log_denied, Action.ACCEPT: policy.log_allowed, Action.PASS: False}
    return action is Action.DENY if asked[action] else None


def _one_below(priority: int) -> Callable[[int], int]:
    return lambda number: priority - 1


def pieces(block: Block, number: Numbering) -> Iterator[Piece]:
    """All of a block."""
    if all(block.dimensions):
        yield from _combined(block, [each.matches() for each in block.dimensions], number)


def _combined(block: Block, chosen: Sequence[Sequence[Match]], number: Numbering) -> Iterator[Piece]:
    """What there is of a block for these alternatives, of each dimension; all are chosen of one that has only one."""
    if _is_written_out(block):
        for matches in product(*chosen):
            match = table.joined(matches)
            if match is not None:
                yield from block.verdict((block.stage, block.priority, match))
        return
    conjunction = number(block.title)
    priority = block.conjunctions(conjunction)
    # A dimension of one alternative is none: it goes into the flow that the conjunction ends in, and into each part,
    # so that parts are shared, and looked at, as little as can be.
    fixed = [mine[0] for each, mine in zip(block.dimensions, chosen, strict=True) if len(each) == 1]
    open_ones = [mine for each, mine in zip(block.dimensions, chosen, strict=True) if len(each) > 1]
    for clause, dimension in enumerate(open_ones, 1):
        for match in dimension:
            part = table.joined((*fixed, match))
            if part is not None:
                yield Piece((block.stage, priority, part), (Conjunction(conjunction, clause, len(open_ones)),))
    yield from block.verdict((block.stage, priority, (f.CONJ_ID(conjunction),)))


def _is_written_out(block: Block) -> bool:
    sizes = [len(each) for each in block.dimensions]
    return prod(sizes) <= max(_FEW, sum(sizes))


# Some of a block's identities --------------------------------------------------------------------------------------

#: Whether a block is written out, and of its dimensions the alternatives of those that aren't looked at one by one.
Shape = tuple[str, int, bool, tuple[tuple[Match, ...] | None, ...]]


def shape(block: Block) -> Shape:
    """What must be the same before and after for `pieces_about` to tell the whole difference."""
    whole = _taken_whole(block)
    alternatives = (tuple(each.matches()) if any(each is one for one in whole) else None for each in block.dimensions)
    return (block.title, block.priority, _is_written_out(block), tuple(alternatives))


def pieces_about(
    block: Block, identities: Set[int], number: Numbering, *, former: bool = False
) -> Iterator[Piece] | None:
    """The pieces that there are because these identities are in a dimension of many; `former`: or might have been.

    None where more than these may be different.
    """
    if not all(block.dimensions):
        return iter(())
    whole = _taken_whole(block)
    # Flows of the same match may come of other blocks, where these identities are looked at one by one.
    if any(not each.identities.isdisjoint(identities) for each in whole):
        return None
    if len(whole) == len(block.dimensions):
        return iter(())
    chosen = [
        each.matches() if len(each) == 1 else list(each.of(identities if former else each.identities & identities))
        for each in block.dimensions
    ]
    return _combined(block, chosen, number)


def _taken_whole(block: Block) -> list[Dimension]:
    """The dimensions whose alternatives are not looked at one by one."""
    fixed = [each for each in block.dimensions if len(each) == 1]
    several = len(block.dimensions) - len(fixed) > 1
    if not all(block.dimensions) or (several and _is_written_out(block)):
        return list(block.dimensions)
    return fixed


# What rules are made of ---------------------------------------------------------------------------------------------


def _parts(
    policy: Policy, rule: Rule, direction: Direction, directory: Directory, subjects: Dimension
) -> Iterator[list[Dimension]]:
    """A rule as dimensions; with ports by name as several, one for each number that the name stands for."""
    numbers = [each for each in rule.ports or () if isinstance(each.port, int)]
    names = [each for each in rule.ports or () if not isinstance(each.port, int)]
    peers = None if rule.peers is None else _peers(rule.peers, direction, directory)
    if rule.ports is None:
        yield _dimensions(subjects, peers, None)
    if numbers:
        yield _dimensions(subjects, peers, _ports((each.protocol, *_range(each)) for each in numbers))
    if not names:
        return
    everybody = frozenset(each for port in names for each in directory.having(str(port.port)))
    if direction is Direction.INGRESS:
        members = everybody if policy.subjects.everybody else everybody & directory.members(policy.subjects)
        for ports, identities in _by_ports(names, members, directory):
            yield _dimensions(Dimension((), identities, table.subject_match(direction)), peers, ports)
        return
    # The name is the receiver's: the pod at the other end, however the rule has found it.
    sets = None if rule.peers is None else [each for each in rule.peers if isinstance(each, PodSet)]
    chosen = everybody
    if sets is not None and not any(each.everybody for each in sets):
        chosen &= frozenset(each for pods in sets for each in directory.members(pods))
    for ports, identities in _by_ports(names, chosen, directory):
        yield _dimensions(subjects, Dimension((), identities, table.peer_match(direction)), ports)
    blocks = [each for each in rule.peers or () if not isinstance(each, PodSet)]
    if blocks:
        addresses = _peers(blocks, direction, directory)
        for ports, identities in _by_ports(names, everybody, directory):
            receivers = Dimension((), identities, table.peer_match(direction))
            yield [*_dimensions(subjects, addresses, ports), receivers]


def _dimensions(subjects: Dimension, peers: Dimension | None, ports: Dimension | None) -> list[Dimension]:
    return [each for each in (subjects, peers, ports) if each is not None]


def _subjects(policy: Policy, direction: Direction, directory: Directory) -> Dimension:
    if policy.subjects.everybody:
        return Dimension((table.any_subject(direction),))
    return Dimension((), directory.members(policy.subjects), table.subject_match(direction))


def _peers(peers: Iterable[PodSet | IpBlock | NodeSet], direction: Direction, directory: Directory) -> Dimension:
    """Each alternative once."""
    others: dict[Match, None] = {}
    sets = []
    for peer in peers:
        match peer:
            case PodSet() if peer.everybody:
                others[table.any_peer(direction)] = None
            case PodSet():
                sets.append(directory.members(peer))
            case IpBlock(network, excepted):
                for part in without(network, excepted):
                    others[table.address_match(direction, part)] = None
            case NodeSet(nodes):
                for address in directory.addresses_of(nodes):
                    others[table.address_match(direction, ip_network(address))] = None
    identities = sets[0] if len(sets) == 1 else frozenset().union(*sets)
    return Dimension(tuple(others), identities, table.peer_match(direction))


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


def _range(port: PolicyPort) -> tuple[int, int]:
    assert isinstance(port.port, int)
    return (port.port, port.end or port.port) if port.port else (0, 0xFFFF)


def _ports(ranges: Iterable[tuple[str, int, int]]) -> Dimension:
    return Dimension(tuple(match for each in ranges for match in table.port_matches(*each)))


def _by_ports(
    names: Sequence[PolicyPort], identities: Iterable[int], directory: Directory
) -> Iterator[tuple[Dimension, Set[int]]]:
    """Identities by what the names stand for with them, those for which they stand for nothing left out."""
    groups: dict[tuple[tuple[str, int], ...], set[int]] = {}
    wanted = {(each.port, each.protocol) for each in names}
    for identity in identities:
        found = {
            (protocol, number)
            for name, protocol, number in directory.named_ports(identity)
            if (name, protocol) in wanted or (name, "") in wanted
        }
        if found:
            groups.setdefault(tuple(sorted(found)), set()).add(identity)
    for ports, members in sorted(groups.items(), key=lambda group: group[0]):
        yield _ports((protocol, number, number) for protocol, number in ports), members


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
