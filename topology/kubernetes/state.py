"""What is known of Kubernetes' objects, and what it means for the model: the changes since it was last asked.

    Found, Gone ──take──> readings by key ──collect──> Batch (changed, gone, problems)

Owns: keeping the last good reading of what can't be read, and what objects mean to each other - load balancers'
addresses, external addresses that would cut a node off, pods whose namespace isn't known, workloads that are pods, too.
The model is a function of what is known and of the addresses that were given, not of the order in which it came. Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

import msgspec

from topology.kubernetes.load_balancers import LoadBalancers
from topology.kubernetes.objects import About, Balanced, Reading, Unreadable
from topology.kubernetes.reflector import Found, Gone
from topology.manifests import Problem, object_words
from topology.model import Key, Node, Object, Service
from topology.naming import Address
from topology.services import ServiceRanges


class Batch(msgspec.Struct, frozen=True):
    """What has changed: objects made or replaced (some perhaps as they were), keys of those that are gone.

    `problems` are all that there are now.
    """

    changed: list[Object]
    gone: list[Key]
    problems: tuple[Problem, ...]


class KubernetesState:
    """All readings, and what they come to."""

    def __init__(self, ranges: ServiceRanges | None = None) -> None:
        self._ranges = ranges or ServiceRanges()
        self.load_balancers = LoadBalancers(self._ranges.load_balancer)
        #: What else is known of objects, for writing of them.
        self.about: dict[Key, About] = {}
        #: Services whose status doesn't say what they were given.
        self.owed: set[Key] = set()
        #: Objects that can't be read, and why.
        self.unreadable: dict[Key, str] = {}
        self._values: dict[Key, Object] = {}
        self._services: dict[Key, Balanced] = {}
        self._pods_in: dict[str, set[Key]] = {}
        self._dirty: set[Key] = set()
        self._nodes_changed = False
        #: What is wrong with objects by themselves, and with Services beside others.
        self._problems: dict[Key, tuple[str, ...]] = {}
        self._clashes: dict[Key, tuple[str, ...]] = {}
        self._shown: tuple[Problem, ...] | None = ()
        #: What nodes and their pods have: by family, (last, first, whose), sorted.
        self._of_nodes: dict[int, list[tuple[int, int, str]]] = {4: [], 6: []}

    @property
    def pending(self) -> bool:
        """Whether there is something to collect."""
        return bool(self._dirty) or self._shown is None

    # What comes ---------------------------------------------------------------------------------------------------

    def take(self, kind: str, items: Iterable[Found | Gone]) -> None:
        """What a list or a watch says, in its order."""
        for item in items:
            if isinstance(item, Gone):
                self._forget((kind, item.namespace, item.name))
            else:
                assert isinstance(item.value, Reading)
                self._put(item.value)

    def _put(self, reading: Reading) -> None:
        key = reading.key
        former = self.about.get(key)
        if reading.about is not None:
            self.about[key] = reading.about
        self.unreadable.pop(key, None)
        match reading.value:
            case Unreadable(reason):
                self.unreadable[key] = f"can't be read: {reason}; what it was before stays in force"
                self._report(key, (self.unreadable[key], *reading.problems))
                return
            case None:
                self._set(key, None)
            case Balanced() as service:
                # What its status says now is compared with what it should.
                if self._services.get(key) != service or reading.about != former:
                    self._services[key] = service
                    self._dirty.add(key)
            case value:
                self._set(key, value)
        self._report(key, reading.problems)

    def _forget(self, key: Key) -> None:
        self.about.pop(key, None)
        self.unreadable.pop(key, None)
        self._report(key, ())
        if key[0] == "Service":
            self._services.pop(key, None)
            self._dirty.add(key)
        else:
            self._set(key, None)

    def _set(self, key: Key, value: Object | None) -> None:
        former = self._values.get(key)
        if former == value:
            return
        if value is None:
            del self._values[key]
        else:
            self._values[key] = value
        kind, namespace, name = key
        # A workload is a pod: what there is of it has a pod's key.
        key = ("Pod", namespace, name) if kind == "Workload" else key
        self._dirty.add(key)
        if key[0] == "Pod" and (former is None or value is None):
            there = self._pods_in.setdefault(namespace, set())
            (there.discard if self._pod(namespace, name) is None else there.add)(key)
        elif kind == "Namespace" and (former is None or value is None):
            self._dirty |= self._pods_in.get(name, set())
        elif kind == "Node":
            self._nodes_changed = True

    def _report(self, key: Key, problems: tuple[str, ...]) -> None:
        if self._problems.get(key, ()) != problems:
            self._shown = None
            if problems:
                self._problems[key] = problems
            else:
                del self._problems[key]

    def lead(self, leads: bool) -> None:
        """Whether it is this process that gives addresses of load balancers; of several, one does."""
        if leads and not self.load_balancers.gives:
            self._dirty |= {key for key, each in self._services.items() if each.wants}
        self.load_balancers.gives = leads

    # What it comes to ---------------------------------------------------------------------------------------------

    def collect(self) -> Batch:
        """The changes since the last time."""
        dirty, self._dirty = self._dirty, set()
        services = {key for key in dirty if key[0] == "Service"}
        if self._nodes_changed:
            # Whether an address may be used depends on what nodes have.
            self._nodes_changed = False
            self._of_nodes = _ranges_of(each for each in self._values.values() if isinstance(each, Node))
            services |= {key for key, each in self._services.items() if _has_external(each)}
        if services:
            concerned = self.load_balancers.settle(services, self._services, self._unfit)
            dirty |= services | concerned
        changed: list[Object] = []
        gone: list[Key] = []
        for key in sorted(dirty):
            if key[0] == "Pod":
                self._look_for_namesake(key)
            found = self._service(key) if key[0] == "Service" else self._object(key)
            if found is None:
                gone.append(key)
            else:
                changed.append(found)
        return Batch(changed, gone, self.problems())

    def problems(self) -> tuple[Problem, ...]:
        """Everything that is wrong with objects now."""
        if self._shown is None:
            both = (self._problems, self._clashes)
            self._shown = tuple(
                sorted(
                    Problem("", 0, object_words(key), text)
                    for problems in both
                    for key, texts in problems.items()
                    for text in texts
                )
            )
        return self._shown

    def complaints(self) -> Iterator[tuple[Key, str]]:
        """The same, by object."""
        for problems in (self._problems, self._clashes):
            for key, texts in problems.items():
                yield key, "; ".join(texts)

    def _object(self, key: Key) -> Object | None:
        if key[0] != "Pod":
            return self._values.get(key)
        if ("Namespace", "", key[1]) not in self._values:
            # It comes a moment later, by another watch: until then policies can't know whom they are for.
            return None
        return self._pod(key[1], key[2])

    def _pod(self, namespace: str, name: str) -> Object | None:
        pod = self._values.get(("Pod", namespace, name))
        return pod if pod is not None else self._values.get(("Workload", namespace, name))

    def _look_for_namesake(self, key: Key) -> None:
        workload = ("Workload", *key[1:])
        text = f"has the name of {object_words(key)}, and both are pods to Services and policies; rename one"
        clashes = (text,) if key in self._values and workload in self._values else ()
        if self._clashes.get(workload, ()) != clashes:
            self._shown = None
            self._clashes[workload] = clashes
            if not clashes:
                del self._clashes[workload]

    def _service(self, key: Key) -> Service | None:
        balanced, problems = self._services.get(key), list[str]()
        found = balanced.service if balanced is not None else None
        given = self.load_balancers.given.get(key, ())
        if balanced is not None and found is not None:
            ours = bool(balanced.wants and self.load_balancers.pools)
            external = found.external_ips + (() if ours else balanced.status)
            refused = {each: reason for each in external if (reason := self._unfit(each))}
            problems += [f"external address {each} {reason}: left out" for each, reason in refused.items()]
            found = msgspec.structs.replace(
                found,
                external_ips=tuple(each for each in found.external_ips if each not in refused),
                load_balancer_ips=given if ours else tuple(each for each in balanced.status if each not in refused),
            )
        if key in self.load_balancers.wanting:
            problems.append(self.load_balancers.wanting[key])
        if self._clashes.get(key, ()) != tuple(problems):
            self._shown = None
            self._clashes[key] = tuple(problems)
            if not problems:
                del self._clashes[key]
        self._look_what_is_owed(key, given)
        return found

    def _look_what_is_owed(self, key: Key, given: tuple[Address, ...]) -> None:
        self.owed.discard(key)
        balanced, about = self._services.get(key), self.about.get(key)
        if balanced is None or about is None or not self.load_balancers.pools:
            return
        wanted = tuple(map(str, given))
        stale = bool(about.ingress) and all(map(self.load_balancers.is_ours, about.ingress))
        # A Service that was ours, and isn't any more, is not left with an address that others may have by now.
        if (balanced.wants and about.ingress != wanted) or (not balanced.wants and stale and not balanced.status):
            self.owed.add(key)

    def ingress(self, key: Key) -> tuple[Address, ...]:
        """What the status of a Service is to say."""
        return self.load_balancers.given.get(key, ())

    def _unfit(self, address: Address) -> str:
        """Every host hands external addresses to its bridge: none may be a node's, a pod's or a cluster address."""
        if any(address in cidr for cidr in self._ranges.cluster):
            return "is in the range of cluster addresses"
        found, value = self._of_nodes[address.version], int(address)
        at = bisect_left(found, (value, 0, ""))
        if at < len(found) and found[at][1] <= value:
            return f"is of node {found[at][2]} or of its pods"
        return ""

    # What people ask ----------------------------------------------------------------------------------------------

    def objects(self) -> dict[Key, Object]:
        """The whole model."""
        keys = {("Pod", *key[1:]) if key[0] == "Workload" else key for key in self._values}
        found = {key: self._object(key) for key in keys} | {key: self._service(key) for key in self._services}
        return {key: each for key, each in found.items() if each is not None}


def _has_external(balanced: Balanced) -> bool:
    found = balanced.service
    return found is not None and bool(found.external_ips or balanced.status or balanced.wants)


def _ranges_of(nodes: Iterable[Node]) -> dict[int, list[tuple[int, int, str]]]:
    found: dict[int, list[tuple[int, int, str]]] = {4: [], 6: []}
    for node in nodes:
        for cidr in node.pod_cidrs:
            found[cidr.version].append((int(cidr.broadcast_address), int(cidr.network_address), node.name))
        for address in node.addresses:
            found[address.version].append((int(address), int(address), node.name))
    for each in found.values():
        each.sort()
    return found
