"""What a set of manifest files declares together, and the last good state of what is broken in them.

Owns: comparing files with each other (one object declared twice, nodes or workloads that claim the same addresses), and
keeping in force what was there before something broke. Must not touch the file system: texts come from
`topology.manifest_source` or a test, snapshots go to whoever runs pods and makes flows.

    texts ──parse──> declared per file ──settle──> in force ──expand──> Snapshot
                          └ what broke keeps         └ of two that clash, the one in force before stays
                            what it was before

After any order of updates whose last one is whole and without clashes, the snapshot is that last one's alone.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from itertools import compress, count, islice
from operator import is_not

import msgspec

from topology.manifests import Declared, Note, Parsed, Problem, make_namespace, object_words, parse
from topology.model import Key, Node, Object, Pod
from topology.naming import Network, format_mac
from topology.services import ServiceRanges, ServiceSpec, allocate
from topology.workloads import PodSpec, PodStatus, PortWorkload, Template, Workload, expand


class Snapshot(msgspec.Struct, frozen=True):
    """Everything in force at one time, never changed afterwards. `pod_specs` says, by a pod's key, what to run in it.

    A pod without one is asked for by nothing: it runs, or ran a moment ago, and is to end.
    """

    objects: dict[Key, Object] = {}
    pod_specs: Mapping[Key, PodSpec] = {}
    problems: tuple[Problem, ...] = ()
    notes: tuple[Note, ...] = ()

    def nodes(self) -> list[Node]:
        return [value for value in self.objects.values() if isinstance(value, Node)]

    def pods(self) -> list[Pod]:
        return [value for value in self.objects.values() if isinstance(value, Pod)]


def difference(before: dict[Key, Object], now: dict[Key, Object]) -> tuple[list[Object], list[Key]]:
    """The objects that are new or others, equal ones too, and the keys of those that are gone.

    Two snapshots in a row are the same objects in the same order but for a few. What is alike at both ends is only
    walked over; looking up 100,000 keys would take ten times as long as making a Service's flows.
    """
    length = min(len(before), len(now))
    first = next(compress(count(), map(is_not, before.values(), now.values())), length)
    both_from_the_end = map(is_not, reversed(before.values()), reversed(now.values()))
    last = min(next(compress(count(), both_from_the_end), length), length - first)
    changed = [new for key, new in islice(now.items(), first, len(now) - last) if before.get(key) is not new]
    gone = [key for key in islice(before, first, len(before) - last) if key not in now]
    return changed, gone


class _File(msgspec.Struct, frozen=True):
    """A file's text, or why there is none; what it declares with what is kept of before; what is wrong with it."""

    text: bytes | Problem
    declared: tuple[Declared, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[Note, ...] = ()


class ManifestState:
    """The manifests as of the last `update`; `snapshot` is what they mean."""

    def __init__(self, ranges: ServiceRanges | None = None) -> None:
        self.snapshot = Snapshot()
        self._ranges = ranges or ServiceRanges()
        self._files: dict[str, _File] = {}
        self._in_force: dict[Key, Declared] = {}

    def update(self, files: Mapping[str, bytes | Problem]) -> Snapshot:
        """Take the texts of all files there are, by name; a Problem stands for a file that couldn't be read."""
        self._files = {name: _read(name, text, self._files.get(name)) for name, text in sorted(files.items())}
        declared = [item for file in self._files.values() for item in file.declared]
        self._in_force, clashes = settle(declared, self._in_force)
        objects, pod_specs, refused, notes = _expand(self._in_force, self._ranges)
        # What is as it was stays the same object: whoever takes snapshots needs to look at nothing else.
        former = self.snapshot.objects
        objects = {key: old if (old := former.get(key)) == new else new for key, new in objects.items()}
        problems = [problem for file in self._files.values() for problem in file.problems] + clashes + refused
        notes += [note for file in self._files.values() for note in file.notes]
        self.snapshot = Snapshot(objects, pod_specs, tuple(sorted(problems)), tuple(sorted(notes)))
        return self.snapshot

    @property
    def declared(self) -> Mapping[Key, Declared]:
        """The objects in force as files declare them, workloads as such."""
        return self._in_force


def _read(name: str, text: bytes | Problem, before: _File | None) -> _File:
    if before is not None and before.text == text:
        return before
    old = before.declared if before else ()
    if isinstance(text, Problem):
        return _File(text, old, (text,))
    parsed = parse(name, text)
    return _File(text, parsed.declared + _kept(parsed, old), parsed.problems, parsed.notes)


def _kept(parsed: Parsed, old: tuple[Declared, ...]) -> tuple[Declared, ...]:
    """What was declared before and is broken now, or perhaps is in what can't be read."""
    named = {item.key for item in parsed.declared}
    return tuple(item for item in old if item.key not in named and (parsed.unnamed or item.key in parsed.broken))


def settle(declared: Iterable[Declared], before: Mapping[Key, Declared]) -> tuple[dict[Key, Declared], list[Problem]]:
    """Choose, among objects that can't all be in force, by what was in force before and then by file and line."""

    def changed(item: Declared) -> bool:
        old = before.get(item.key)
        return old is None or (old.file, old.value) != (item.file, item.value)

    def order(item: Declared) -> tuple[bool, bool, str, int]:
        # A workload gives way to a node, wherever the two are declared.
        return changed(item), isinstance(item.value, PortWorkload), item.file, item.line

    in_force: dict[Key, Declared] = {}
    claims = _Claims()
    problems = []
    for item in sorted(declared, key=order):
        rival = in_force.get(item.key)
        if rival is not None:
            problems.append(_problem(item, f"is declared at {rival.place} too; remove one of them"))
            continue
        clash = claims.claim(item)
        if clash is not None:
            problems.append(_problem(item, clash))
            old = before.get(item.key)
            if old is None or old.file != item.file or claims.claim(old) is not None:
                continue
            item = old
        in_force[item.key] = item
    return in_force, problems


class _Claims:
    """What only one can have.

    Addresses, which nodes claim for themselves and their pods, and workloads for themselves: no two ranges may overlap.
    And workloads' MACs and ports.
    """

    def __init__(self) -> None:
        #: By family: (first, last, what it is, whose), sorted; since none overlap, the last addresses are sorted too.
        self._ranges: dict[int, list[tuple[int, int, str, Declared]]] = {4: [], 6: []}
        #: By field: what a workload has there, and which.
        self._taken: dict[tuple[str, object], Declared] = {}

    def claim(self, item: Declared) -> str | None:
        """Claim all that a node or a workload needs, or nothing and say why."""
        if isinstance(item.value, PortWorkload):
            return self._claim_for_workload(item, item.value.pod)
        if not isinstance(item.value, Node):
            return None
        mine = [(cidr, f"pod CIDR {cidr}") for cidr in item.value.pod_cidrs]
        mine += [(ip_network(address), f"address {address}") for address in item.value.addresses]
        for i, (network, words) in enumerate(mine):
            for other, other_words in mine[:i]:
                if network.version == other.version and network.overlaps(other):
                    return f"its {words} overlaps its own {other_words}; change one of them"
            found = self._overlapping(network)
            if found is not None:
                _, _, taken, owner = found
                return f"its {words} overlaps {taken} of {object_words(owner.key)} ({owner.place}); change one of them"
        for network, words in mine:
            self._add(network, words, item)
        return None

    def _claim_for_workload(self, item: Declared, pod: Pod) -> str | None:
        for address in pod.addresses:
            found = self._overlapping(ip_network(address))
            if found is not None:
                _, _, taken, owner = found
                whose = f"{taken} of {object_words(owner.key)} ({owner.place})"
                if taken.startswith("pod CIDR"):
                    return (
                        f"its spec.addresses has {address}, which is in {whose}, for its pods; take one outside of it"
                    )
                return f"its spec.addresses has {address}, which is {whose}; take one that nobody has"
        place = f"{pod.port} of node {pod.node}"
        for field, value, words in (("port", (pod.node, pod.port), place), ("mac", pod.mac, format_mac(pod.mac))):
            other = self._taken.get((field, value))
            if other is not None:
                remedy = "name the port that it is on" if field == "port" else "give each its own"
                return f"its spec.{field} is {words}, and {object_words(other.key)}'s too ({other.place}); {remedy}"
        self._taken["port", (pod.node, pod.port)] = self._taken["mac", pod.mac] = item
        for address in pod.addresses:
            self._add(ip_network(address), f"address {address}", item)
        return None

    def _add(self, network: Network, words: str, item: Declared) -> None:
        insort(
            self._ranges[network.version],
            (int(network.network_address), int(network.broadcast_address), words, item),
            key=lambda entry: entry[:2],
        )

    def _overlapping(self, network: Network) -> tuple[int, int, str, Declared] | None:
        ranges = self._ranges[network.version]
        at = bisect_left(ranges, int(network.network_address), key=lambda entry: entry[1])
        if at < len(ranges) and ranges[at][0] <= int(network.broadcast_address):
            return ranges[at]
        return None


def _problem(item: Declared, reason: str) -> Problem:
    return Problem(item.file, item.line, object_words(item.key), reason)


def _standing(status: PodStatus, template: Template) -> Pod:
    """A pod that nothing asks for any more: it is there until its status goes."""
    pod = Pod(
        namespace=status.namespace,
        name=status.name,
        node=template.node,
        labels=template.labels,
        host_network=template.host_network,
        ports=template.ports,
    )
    return _with_status(pod, status)


def _with_status(pod: Pod, status: object) -> Pod:
    if not isinstance(status, PodStatus):
        return pod
    return msgspec.structs.replace(pod, addresses=status.addresses, ready=status.ready, terminating=status.terminating)


def _expand(
    in_force: Mapping[Key, Declared], ranges: ServiceRanges
) -> tuple[dict[Key, Object], dict[Key, PodSpec], list[Problem], list[Note]]:
    """The objects that declarations stand for, with the namespaces that they imply."""
    objects: dict[Key, Object] = {}
    pod_specs: dict[Key, PodSpec] = {}
    problems: list[Problem] = []
    notes: list[Note] = []
    for key in sorted(in_force):
        value = in_force[key].value
        if not isinstance(value, Workload | PortWorkload | PodStatus | ServiceSpec):
            objects[key] = value
    specs = {key: item.value for key, item in in_force.items() if isinstance(item.value, ServiceSpec)}
    nodes = [value for value in objects.values() if isinstance(value, Node)]
    services, refused = allocate(specs, ranges, nodes)
    objects |= services
    problems += [_problem(in_force[key], reason) for key, reason in refused]
    # Pods declared as such come first: a workload's pod of the same name gives way.
    for key in sorted(in_force, key=lambda key: (key[0] != "Pod", key)):
        item = in_force[key]
        if not isinstance(item.value, Workload):
            continue
        template = item.value.template
        if template.node and ("Node", "", template.node) not in objects:
            text = f"{object_words(key)}: spec.nodeName is {template.node}, a node that is not declared: its pods wait"
            notes.append(Note(item.file, item.line, text))
        for pod in expand(item.value, nodes):
            if pod.key in objects:
                reason = f"its pod {pod.namespace}/{pod.name} has the name of another; rename one of the two objects"
                problems.append(_problem(item, reason))
                continue
            status = in_force.get(("PodStatus", pod.namespace, pod.name))
            objects[pod.key] = _with_status(pod, status.value if status is not None else None)
            pod_specs[pod.key] = template.run
    problems += _add_port_workloads(in_force, objects)
    for item in in_force.values():
        if isinstance(item.value, PodStatus) and item.value.template is not None:
            leaving = _standing(item.value, item.value.template)
            objects.setdefault(leaving.key, leaving)
    for name in sorted({"default"} | {key[1] for key in in_force if key[1]}):
        implied = make_namespace(name, {})
        objects.setdefault(implied.key, implied)
    return objects, pod_specs, problems, notes


def _add_port_workloads(in_force: Mapping[Key, Declared], objects: dict[Key, Object]) -> list[Problem]:
    """Add the pods that objects of kind Workload are; what keeps one from being there, or from being reached."""
    problems = []
    for item in in_force.values():
        if isinstance(item.value, PortWorkload):
            pod = item.value.pod
            if pod.key in objects:
                reason = (
                    f"has the name of {object_words(pod.key)}, and both are pods to Services and policies; rename one"
                )
                problems.append(_problem(item, reason))
                continue
            objects[pod.key] = pod
            if ("Node", "", pod.node) not in objects:
                reason = f"its spec.node is {pod.node}, a node that is not declared; declare it, or name one that is"
                problems.append(_problem(item, reason))
    return problems
