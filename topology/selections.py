"""Which identities each set of pods has, for the sets that policies use.

Owns membership: kept in step with identities that appear and vanish, and with the labels of namespaces. A set is worked
out once for all that use it. Must not know what a policy is: its users are keys. Pure.

So that nobody has to ask every set of the cluster about a new identity, a set is filed under a label that its members,
or their namespaces, must have (its *anchors*, one for each value), and found again by the labels of the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set

import msgspec

from topology.identities import Identities, Profile
from topology.metadata import Key, Labels
from topology.policies import PodSet
from topology.selectors import Operator, selects

#: The label that every namespace has, whether or not there is an object that says so.
NAME_LABEL = "kubernetes.io/metadata.name"
#: Scopes of anchors that are no namespace's name: labels of pods anywhere, and labels of namespaces.
_ANYWHERE, _NAMESPACES = "*", "@"
#: Scope, label's key and value; without a label, whoever is in the scope.
_Anchor = tuple[str, str, str]


class _Selection(msgspec.Struct):
    members: set[int]
    users: set[Key]


class Selections:
    """The sets of pods that are in use, and their members."""

    def __init__(self, identities: Identities, labels_of: Callable[[str], Labels]) -> None:
        """`labels_of` tells the labels of a namespace as they are now."""
        self._identities = identities
        self._labels_of = labels_of
        self._all: dict[PodSet, _Selection] = {}
        self._filed: dict[_Anchor, set[PodSet]] = {}
        #: Namespaces by each of their labels.
        self._namespaces: dict[tuple[str, str], set[str]] = {}

    def members(self, pods: PodSet) -> Set[int]:
        """The identities of a set that is in use. Not of everybody: whoever is a pod has a bit of a register set."""
        return self._all[pods].members

    # Who uses them ----------------------------------------------------------------------------------------------

    def use(self, pods: PodSet, user: Key) -> None:
        """A set comes into use, perhaps once more."""
        found = self._all.get(pods)
        if found is None:
            found = self._all[pods] = _Selection(set(self._find(pods)), set())
            for anchor in _anchors(pods):
                self._filed.setdefault(anchor, set()).add(pods)
        found.users.add(user)

    def leave(self, pods: PodSet, user: Key) -> None:
        """The opposite."""
        found = self._all[pods]
        found.users.discard(user)
        if found.users:
            return
        del self._all[pods]
        for anchor in _anchors(pods):
            self._filed[anchor].discard(pods)
            if not self._filed[anchor]:
                del self._filed[anchor]

    def _find(self, pods: PodSet) -> Iterator[int]:
        if pods.everybody:
            return
        for namespace in self._places(pods):
            if pods.namespace or selects(pods.namespaces, self._labels_of(namespace)):
                for number in self._identities.of_namespace(namespace):
                    if selects(pods.pods, self._identities[number].labels):
                        yield number

    def _places(self, pods: PodSet) -> Iterable[str]:
        """The namespaces that a set's members may be in."""
        if pods.namespace:
            return (pods.namespace,)
        anchors = _anchors(pods)
        if any(scope != _NAMESPACES for scope, _, _ in anchors):
            return self._identities.namespaces()
        names = {name for _, *label in anchors for name in self._namespaces.get((label[0], label[1]), ())}
        return names | {value for _, key, value in anchors if key == NAME_LABEL}

    # What changes -----------------------------------------------------------------------------------------------

    def appear(self, number: int) -> set[Key]:
        """A new identity: into every set that it belongs to. Returns the users of these."""
        users: set[Key] = set()
        profile = self._identities[number]
        labels = self._labels_of(profile.namespace)
        for pods in self._candidates(profile, labels):
            if pods.has(profile.namespace, labels, profile.labels):
                selection = self._all[pods]
                selection.members.add(number)
                users |= selection.users
        return users

    def vanish(self, number: int) -> set[Key]:
        """An identity that is about to be released: out of every set. Returns the users of these."""
        users: set[Key] = set()
        profile = self._identities[number]
        for pods in self._candidates(profile, self._labels_of(profile.namespace)):
            selection = self._all[pods]
            if number in selection.members:
                selection.members.discard(number)
                users |= selection.users
        return users

    def relabel(self, namespace: str, old: Labels, new: Labels) -> Iterator[tuple[int, set[Key]]]:
        """Another state of a namespace's labels. Yields identities with the users of sets that they enter or leave."""
        for label in old:
            there = self._namespaces.get(label, set())
            there.discard(namespace)
            if not there:
                self._namespaces.pop(label, None)
        for label in new:
            self._namespaces.setdefault(label, set()).add(namespace)
        for number in self._identities.of_namespace(namespace):
            profile = self._identities[number]
            users: set[Key] = set()
            for pods in self._candidates(profile, old) | self._candidates(profile, new):
                selection = self._all[pods]
                if pods.has(namespace, new, profile.labels) != (number in selection.members):
                    selection.members ^= {number}
                    users |= selection.users
            if users:
                yield number, users

    def _candidates(self, profile: Profile, labels: Labels) -> set[PodSet]:
        """The sets that such pods may be in, with these labels of their namespace."""
        found: set[PodSet] = set()
        for scope in (profile.namespace, _ANYWHERE):
            found |= self._filed.get((scope, "", ""), frozenset())
            for key, value in profile.labels:
                found |= self._filed.get((scope, key, value), frozenset())
        for key, value in labels:
            found |= self._filed.get((_NAMESPACES, key, value), frozenset())
        return found


def _anchors(pods: PodSet) -> list[_Anchor]:
    """Of these an identity has at least one if it is in the set. Everybody has none: nobody needs to look for it."""
    if pods.everybody:
        return []
    if pods.namespace:
        places = [(pods.namespace, pods.pods)]
    else:
        places = [(_NAMESPACES, pods.namespaces), (_ANYWHERE, pods.pods)]
    for scope, selector in places:
        for requirement in selector:
            if requirement.operator is Operator.IN:
                return [(scope, requirement.key, value) for value in set(requirement.values)]
    return [(pods.namespace or _ANYWHERE, "", "")]
