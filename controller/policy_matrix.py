"""Who may reach whom by policies: a matrix of identities, for one protocol and port. Pure.

Pods of one identity are alike to every policy but one that names addresses. So it is judged once for each two
identities, by one pod of each; where policies that concern them name addresses, by one pod of each identity in each of
the ranges that these divide all addresses into. A verdict is `policy_views.check`'s, which tests hold it against.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from controller.policy_views import QuestionError, checked_port, identity_words
from flows.compiler import Compiler
from topology.model import Pod
from topology.naming import Address
from topology.policies import Direction, IpBlock, Policy, Tier
from topology.verdicts import Party, Question, in_order, judge

Row = dict[str, Any]
#: Identities in a matrix; and kinds of pods, where addresses tell pods of one identity apart.
MOST, MOST_KINDS = 100, 200
#: Pods that are looked at, and cells that are judged, before others have their turn.
_STRIDE, _CELLS = 2000, 25


class _Kind(msgspec.Struct, frozen=True):
    """Pods of an identity that no policy tells apart: one of them, by its addresses."""

    pod: Pod
    parties: Mapping[int, Party]


class _Subject(msgspec.Struct, frozen=True):
    number: int
    kinds: Sequence[_Kind]


def matrix(
    compiler: Compiler, namespaces: Sequence[str], protocol: str, port: int, family: int = 0
) -> Iterator[Row | None]:
    """Who may reach whom of the identities of some namespaces; without any, of all.

    The last that it gives is the matrix, before which comes None now and then, so that others have their turn. Each of
    its rows is right for a moment. `family` is 4, 6, or 0 for what two have in common. Raises QuestionError.
    """
    port = checked_port(protocol, port)
    numbers = _numbers(compiler, namespaces)
    applied = _Applied(compiler, numbers)
    subjects = []
    for each in _subjects(compiler, numbers, _Ranges(applied.blocks())):
        if each is None:
            yield None
        else:
            applied.learn(each)
            subjects.append(each)
    kinds = sum(len(each.kinds) for each in subjects)
    if kinds > MOST_KINDS:
        raise QuestionError(
            f"policies name so many addresses that there are {kinds} kinds of pods here, more than {MOST_KINDS}; "
            f"say one namespace, or one with fewer"
        )
    cells: list[list[str]] = []
    for source in subjects:
        line = []
        for place, destination in enumerate(subjects):
            line.append(_cell(compiler, applied, source, destination, protocol, port, family))
            if place % _CELLS == 0:
                yield None
        cells.append(line)
    yield {
        "protocol": protocol,
        "port": port,
        "namespaces": compiler.policies.identities.namespaces(),
        "subjects": [_subject_row(compiler, each) for each in subjects],
        "cells": cells,
    }


def _numbers(compiler: Compiler, namespaces: Sequence[str]) -> list[int]:
    known = compiler.policies.identities
    wanted = set().union(*map(known.of_namespace, namespaces)) if namespaces else set(known)
    wanted -= known.idle
    if len(wanted) > MOST:
        where = f"in {' and '.join(namespaces)}" if namespaces else "in all"
        raise QuestionError(f"there are {len(wanted)} identities {where}, more than {MOST}; say one namespace")
    return sorted(wanted, key=lambda number: (known[number].namespace, identity_words(known[number]), number))


def _subject_row(compiler: Compiler, subject: _Subject) -> Row:
    known = compiler.policies.identities
    example = subject.kinds[0].pod
    pods = len(known.pods(subject.number)) if subject.number in known else 0
    return {
        "name": identity_words(known.profile(example)),
        "namespace": example.namespace,
        "identity": subject.number,
        "pods": pods,
        "example": f"{example.namespace}/{example.name}",
    }


def _subjects(compiler: Compiler, numbers: Iterable[int], ranges: _Ranges) -> Iterator[_Subject | None]:
    """Each identity that has a pod with an address."""
    announced = _Announced(compiler)
    looked = 0
    for number in numbers:
        kinds: dict[tuple[tuple[int, int], ...], _Kind] = {}
        for key in sorted(compiler.policies.identities.pods(number)):
            looked += 1
            if looked % _STRIDE == 0:
                yield None
            pod = compiler.cluster.pods.get(key)
            addresses = announced.of(pod) if pod is not None else ()
            if pod is None or not addresses:
                continue
            parties: dict[int, Party] = {each.version: Party(each, pod=pod) for each in reversed(addresses)}
            place = tuple(sorted((version, ranges.place(each.address)) for version, each in parties.items()))
            kinds.setdefault(place, _Kind(pod, parties))
        if kinds:
            yield _Subject(number, list(kinds.values()))


class _Announced:
    """Pods' addresses: what their status says, or else what their ports have told."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._of_node: dict[str, dict[tuple[str, str, str], tuple[Address, ...]]] = {}

    def of(self, pod: Pod) -> tuple[Address, ...]:
        if pod.addresses:
            return pod.addresses
        if pod.node not in self._of_node:
            local = self._compiler.local_pods(pod.node)
            self._of_node[pod.node] = {each.key: found.addresses for each, found in local}
        return self._of_node[pod.node].get(pod.key, ())


class _Ranges:
    """What some blocks divide all addresses into: those in one range are in the same of them."""

    def __init__(self, blocks: Iterable[IpBlock]) -> None:
        edges: dict[int, set[int]] = {4: set(), 6: set()}
        for block in blocks:
            for network in (block.network, *block.excepted):
                edges[network.version] |= {int(network[0]), int(network[-1]) + 1}
        self._edges = {version: sorted(each) for version, each in edges.items()}

    def place(self, address: Address) -> int:
        return bisect_right(self._edges[address.version], int(address))


class _Applied:
    """The policies that some identities are subjects of."""

    def __init__(self, compiler: Compiler, numbers: Iterable[int]) -> None:
        parts = compiler.policies
        #: Numbers of pods as they were at first: an identity may get another meanwhile.
        self._numbers: dict[tuple[str, str, str], int] = {}
        wanted = frozenset(numbers)
        found: dict[tuple[int, Direction, Tier], list[Policy]] = {}
        for policy in compiler.cluster.policies.values():
            there = wanted if policy.subjects.everybody else wanted & parts.subjects(policy)
            for direction in Direction:
                if policy.rules(direction) is not None:
                    for number in there:
                        found.setdefault((number, direction, policy.tier), []).append(policy)
        self._found = {key: in_order(policies, parts.crowded) for key, policies in found.items()}

    def learn(self, subject: _Subject) -> None:
        """Pods that will be asked about."""
        self._numbers |= {kind.pod.key: subject.number for kind in subject.kinds}

    def __call__(self, pod: Pod, direction: Direction, tier: Tier) -> Sequence[Policy]:
        return self._found.get((self._numbers[pod.key], direction, tier), ())

    def blocks(self) -> Iterator[IpBlock]:
        for (_, direction, _), policies in self._found.items():
            for policy in policies:
                for rule in policy.rules(direction) or ():
                    yield from (peer for peer in rule.peers or () if isinstance(peer, IpBlock))


def _cell(
    compiler: Compiler,
    applied: _Applied,
    source: _Subject,
    destination: _Subject,
    protocol: str,
    port: int,
    family: int,
) -> str:
    """Allow or Deny; Mixed where pods of one identity differ; None where they have no family in common."""
    verdicts = set()
    for one in source.kinds:
        for other in destination.kinds:
            versions = sorted(set(one.parties) & set(other.parties) & ({family} if family else {4, 6}))
            if versions:
                asked = Question(one.parties[versions[0]], other.parties[versions[0]], protocol, port)
                verdicts.add(judge(compiler.cluster, asked, compiler.policies.crowded, applied).allowed)
    if len(verdicts) == 2:
        return "Mixed"
    return "None" if not verdicts else "Allow" if verdicts == {True} else "Deny"
