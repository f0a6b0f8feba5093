"""Identities: one number of 24 bits for all pods of a namespace whose labels, as far as they matter, are the same.

Owns the numbers: who has which, which label keys matter, and when a number may be given away. Must not know policies or
switches. Pods come in by `put` and `remove`; time stays outside: who calls says when an idle number is `release`d.

A number is a hash of what it stands for, and which number each identity has follows from the identities that pods have
now, in whatever order they came: so every process that sees the same pods comes to the same numbers, with nothing to be
remembered. Where hashes meet, none of them has the number: each takes another of its own hashes that is nobody's first.
While they move, what carries the former number is nobody's; it is never taken for another's. Who `put`s and `remove`s
asks afterwards for those that are `unsettled`, and moves them.

A number that no pod has any more stays as it is until it is released, or another identity needs it: packets on their
way still carry it, and pods that come back soon change nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping

import msgspec

from topology.model import Labels, Pod

#: Numbers below are reserved (`flows.registers.Identity`); a tunnel's key has 24 bits.
FIRST_IDENTITY, IDENTITY_BITS = 256, 24
_SIZE = (1 << IDENTITY_BITS) - FIRST_IDENTITY

#: Labels that a controller makes, another for each pod or each version of it. They matter only where a policy asks.
UNIMPORTANT = frozenset(
    {
        "apps.kubernetes.io/pod-index",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-completion-index",
        "batch.kubernetes.io/job-name",
        "controller-revision-hash",
        "controller-uid",
        "job-name",
        "pod-template-generation",
        "pod-template-hash",
        "statefulset.kubernetes.io/pod-name",
    }
)

#: A named port of a pod: its name, protocol and number.
NamedPort = tuple[str, str, int]


class Profile(msgspec.Struct, frozen=True):
    """What pods of one identity have in common: namespace, labels that matter, ports that have names."""

    namespace: str
    labels: Labels
    ports: tuple[NamedPort, ...] = ()

    @property
    def title(self) -> str:
        """The text that is hashed: no two profiles have the same."""
        return msgspec.json.encode(self).decode()


class _Held(msgspec.Struct):
    number: int
    first: int
    pods: set[tuple[str, str]]


class Identities:
    """All identities that are in use, or were until lately."""

    def __init__(self) -> None:
        self._held: dict[Profile, _Held] = {}
        self._profiles: dict[int, Profile] = {}
        self._of_pod: dict[tuple[str, str], Profile] = {}
        self._by_namespace: dict[str, set[int]] = {}
        self._asked_for: dict[str, int] = {}
        self._idle: set[int] = set()
        #: First hash -> the identities that pods have and that have it. Where there are several, it is contested.
        self._claims: dict[int, set[Profile]] = {}
        self._contested: set[int] = set()
        #: Identities that pods have whose number isn't their first hash.
        self._displaced: set[Profile] = set()

    # Which labels matter ----------------------------------------------------------------------------------------

    def ask_for(self, keys: Iterable[str]) -> set[str]:
        """Policies ask for these label keys, once more each; returns those that matter only now."""
        fresh = set()
        for key in UNIMPORTANT.intersection(keys):
            self._asked_for[key] = self._asked_for.get(key, 0) + 1
            if self._asked_for[key] == 1:
                fresh.add(key)
        return fresh

    def ask_no_more(self, keys: Iterable[str]) -> set[str]:
        """The opposite; returns those that matter no more."""
        stale = set()
        for key in UNIMPORTANT.intersection(keys):
            self._asked_for[key] -= 1
            if not self._asked_for[key]:
                del self._asked_for[key]
                stale.add(key)
        return stale

    def asked_for_after(self, no_more: Iterable[str], fresh: Iterable[str]) -> frozenset[str]:
        """The keys that will be asked for once these have been given up and asked for, as often as they are named."""
        counts = Counter(self._asked_for)
        counts.subtract(key for key in no_more if key in UNIMPORTANT)
        counts.update(key for key in fresh if key in UNIMPORTANT)
        return frozenset(key for key, count in counts.items() if count > 0)

    def profile(self, pod: Pod, asked_for: Container[str] | None = None) -> Profile:
        """What a pod is to policies; `asked_for`: where other keys than now are asked for."""
        wanted = self._asked_for if asked_for is None else asked_for
        labels = tuple(each for each in pod.labels if each[0] not in UNIMPORTANT or each[0] in wanted)
        ports = sorted((port.name, port.protocol, port.port) for port in pod.ports if port.name)
        return Profile(pod.namespace, labels, tuple(dict.fromkeys(ports)))

    # Pods come and go -------------------------------------------------------------------------------------------

    def put(self, pod: Pod) -> int | None:
        """A pod as it is now; one of the host's network has no identity. Returns a number that is new, if one is."""
        name = (pod.namespace, pod.name)
        profile = None if pod.host_network else self.profile(pod)
        before = self._of_pod.get(name)
        if before == profile:
            return None
        if before is not None:
            self._leave(name, before)
        if profile is None:
            return None
        self._of_pod[name] = profile
        held, fresh = self._hold(profile)
        if not held.pods:
            self._claim(profile, held)
        held.pods.add(name)
        self._idle.discard(held.number)
        return held.number if fresh else None

    def expect(self, pod: Pod, asked_for: Container[str]) -> int | None:
        """A pod will come when these keys are asked for: its number is there, and idle. Returns it if it is new."""
        if pod.host_network:
            return None
        held, fresh = self._hold(self.profile(pod, asked_for))
        if not fresh:
            return None
        self._idle.add(held.number)
        return held.number

    def _hold(self, profile: Profile) -> tuple[_Held, bool]:
        """What is held for a profile, and whether that is new."""
        held = self._held.get(profile)
        if held is not None:
            return held, False
        title = profile.title
        number = first = _hash(title, 0)
        attempt = 0
        while number in self._profiles:
            # For now: which number it is to have is settled once all changes of the moment are made.
            attempt += 1
            number = _hash(title, attempt)
        held = self._held[profile] = _Held(number, first, set())
        self._profiles[number] = profile
        self._by_namespace.setdefault(profile.namespace, set()).add(number)
        return held, True

    def remove(self, namespace: str, name: str) -> None:
        """A pod is gone."""
        profile = self._of_pod.get((namespace, name))
        if profile is not None:
            self._leave((namespace, name), profile)

    def _leave(self, name: tuple[str, str], profile: Profile) -> None:
        del self._of_pod[name]
        held = self._held[profile]
        held.pods.discard(name)
        if not held.pods:
            self._idle.add(held.number)
            self._disclaim(profile, held)

    def _claim(self, profile: Profile, held: _Held) -> None:
        claims = self._claims.setdefault(held.first, set())
        claims.add(profile)
        if len(claims) > 1:
            self._contested.add(held.first)
        if held.number != held.first:
            self._displaced.add(profile)

    def _disclaim(self, profile: Profile, held: _Held) -> None:
        claims = self._claims[held.first]
        claims.discard(profile)
        if len(claims) < 2:
            self._contested.discard(held.first)
        if not claims:
            del self._claims[held.first]
        self._displaced.discard(profile)

    # Numbers ----------------------------------------------------------------------------------------------------

    def unsettled(self) -> dict[Profile, int]:
        """Identities that are to have another number than they have, and which: seldom any."""
        if not self._contested and not self._displaced:
            return {}
        wanted = {profile: self._held[profile].first for profile in self._displaced}
        taken: set[int] = set()
        rivals = {profile for first in self._contested for profile in self._claims[first]}
        for title, profile in sorted(((profile.title, profile) for profile in rivals), key=lambda each: each[0]):
            attempt = 1
            while (number := _hash(title, attempt)) in taken or number in self._claims:
                attempt += 1
            taken.add(number)
            wanted[profile] = number
        return {profile: number for profile, number in wanted.items() if self._held[profile].number != number}

    def squatters(self, moves: Mapping[Profile, int]) -> list[int]:
        """Idle numbers that stand in the way of moves: to be released before."""
        there = (number for number in moves.values() if number in self._idle)
        return sorted(there)

    def move(self, moves: Mapping[Profile, int]) -> None:
        """Give identities other numbers, all at once."""
        for profile in moves:
            number = self._held[profile].number
            del self._profiles[number]
            self._by_namespace[profile.namespace].discard(number)
        for profile, number in moves.items():
            assert number not in self._profiles, f"{number} is {self._profiles[number].title}'s"
            held = self._held[profile]
            held.number = number
            self._profiles[number] = profile
            self._by_namespace[profile.namespace].add(number)
            if number == held.first:
                self._displaced.discard(profile)
            else:
                self._displaced.add(profile)

    @property
    def idle(self) -> frozenset[int]:
        """Numbers that no pod has."""
        return frozenset(self._idle)

    def release(self, number: int) -> None:
        """An idle number stands for nothing any more, and may be given to others."""
        self._idle.remove(number)
        profile = self._profiles.pop(number)
        del self._held[profile]
        there = self._by_namespace[profile.namespace]
        there.discard(number)
        if not there:
            del self._by_namespace[profile.namespace]

    # What people and policies ask -------------------------------------------------------------------------------

    def of_pod(self, namespace: str, name: str) -> int:
        """A pod's number; 0 where it has none."""
        profile = self._of_pod.get((namespace, name))
        return 0 if profile is None else self._held[profile].number

    def number_of(self, profile: Profile) -> int:
        """An identity's number."""
        return self._held[profile].number

    def __getitem__(self, number: int) -> Profile:
        return self._profiles[number]

    def __contains__(self, number: int) -> bool:
        return number in self._profiles

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._profiles))

    def namespaces(self) -> list[str]:
        """The namespaces that have identities."""
        return sorted(self._by_namespace)

    def of_namespace(self, namespace: str) -> frozenset[int]:
        """The numbers of a namespace."""
        return frozenset(self._by_namespace.get(namespace, ()))

    @property
    def total(self) -> int:
        """How many pods have one."""
        return len(self._of_pod)

    def count(self, number: int) -> int:
        """How many pods have a number."""
        return len(self._held[self._profiles[number]].pods)

    def pods(self, number: int) -> frozenset[tuple[str, str]]:
        """The pods that have a number, by namespace and name."""
        return frozenset(self._held[self._profiles[number]].pods)


def _hash(title: str, attempt: int) -> int:
    data = title.encode() + attempt.to_bytes(2, "big")
    return FIRST_IDENTITY + int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") % _SIZE
