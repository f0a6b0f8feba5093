"""From workloads to pods: which there are, what they are called, and which node each is on.

Owns expansion and placement. Must not know files or YAML. Workloads and nodes come from manifests; the pods go to
whoever runs them and to whoever makes flows for them. Both call `expand` and must agree, so it is a pure function of
its arguments, the same in every process: no clock, no randomness, no memory of what was before.
"""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections.abc import Collection, Iterator, Sequence

import msgspec

from topology.model import ContainerPort, Key, Labels, Node, Pod, labels_of
from topology.naming import Address

#: Kubernetes' alphabet for generated names: no vowels, so no words; nothing that looks like something else.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
#: Kubernetes cuts what comes before a generated suffix to this, so that the name fits a DNS label.
_MAX_GENERATED_PREFIX = 58


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """How to see whether a container is ready: a command, or a port that takes connections (with a path: answers)."""

    command: tuple[str, ...] = ()
    port: int = 0
    path: str = ""


class PodSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run in a pod: its first container. Empty `command` and `args` leave it to who runs it."""

    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    readiness: Probe | None = None


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """What the pods of a workload have in common."""

    labels: Labels = ()
    node: str = ""
    node_selector: Labels = ()
    host_network: bool = False
    ports: tuple[ContainerPort, ...] = ()
    run: PodSpec = PodSpec()


class PodStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a pod that runs: its addresses, whether it is ready, whether it is ending."""

    namespace: str
    name: str
    addresses: tuple[Address, ...] = ()
    ready: bool = True
    terminating: bool = False
    #: What the pod is where nothing else declares it; None: then there is no such pod.
    template: Template | None = None

    @property
    def key(self) -> Key:
        return ("PodStatus", self.namespace, self.name)


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A Deployment, ReplicaSet, StatefulSet or DaemonSet (which has no `replicas`), or a Pod as the set of itself."""

    kind: str
    namespace: str
    name: str
    template: Template
    replicas: int = 1
    first_ordinal: int = 0

    @property
    def key(self) -> Key:
        return (self.kind, self.namespace, self.name)


class PortWorkload(msgspec.Struct, frozen=True, kw_only=True):
    """What is of kind Workload: a host, virtual machine or container on a port of a bridge, and the pod that it is."""

    pod: Pod

    @property
    def key(self) -> Key:
        return ("Workload", self.pod.namespace, self.pod.name)


def expand(workload: Workload, nodes: Collection[Node]) -> Iterator[Pod]:
    """The pods of a workload on these nodes, in the order of their replicas (a DaemonSet's: of its nodes' names)."""
    template = workload.template
    wanted = set(template.node_selector)
    eligible = [node.name for node in nodes if wanted <= set(node.labels)] if wanted else [n.name for n in nodes]
    if workload.kind == "DaemonSet":
        eligible = [name for name in eligible if template.node in ("", name)]
        yield from _daemon_pods(workload, sorted(eligible))
        return
    spread = place(workload.key, workload.replicas, eligible) if not template.node else []
    revision = _template_hash(template)
    taken: set[str] = set()
    for replica in range(workload.replicas):
        name, labels = _identity(workload, replica, revision, taken)
        taken.add(name)
        node = template.node or (spread[replica] if spread else "")
        yield _pod(workload, name, node, labels)


def place(owner: Key, replicas: int, nodes: Collection[str]) -> list[str]:
    """The node of each replica; empty without nodes.

    Every node gets as many replicas as any other, give or take one. A node that joins or leaves moves few replicas
    but its own: each workload has the nodes on a ring of its own, in places that are hashes, and each replica, placed
    by its hash too, takes the next node on the ring that has the fewest replicas so far.
    """
    if not nodes:
        return []
    ring = sorted((_hash("node", *owner, name), name) for name in nodes)
    free: list[tuple[int, str]] = []
    placed = []
    for replica in range(replicas):
        if not free:
            free = ring.copy()
        # Past the last node comes the first: it is a ring.
        _, name = free.pop(bisect(free, (_hash("replica", *owner, str(replica)), "")) % len(free))
        placed.append(name)
    return placed


def _hash(*words: str) -> int:
    return int.from_bytes(hashlib.blake2b("/".join(words).encode(), digest_size=8).digest(), "big")


def _identity(workload: Workload, replica: int, revision: str, taken: Collection[str]) -> tuple[str, dict[str, str]]:
    """A replica's name, and the labels that Kubernetes adds to its template's."""
    match workload.kind:
        case "Pod":
            return workload.name, {}
        case "StatefulSet":
            ordinal = workload.first_ordinal + replica
            name = f"{workload.name}-{ordinal}"
            return name, {
                "apps.kubernetes.io/pod-index": str(ordinal),
                "controller-revision-hash": f"{workload.name}-{revision}",
                "statefulset.kubernetes.io/pod-name": name,
            }
        case "Deployment":
            prefix = f"{workload.name}-{revision}"
            return _generated(prefix, str(replica), taken), {"pod-template-hash": revision}
        case "ReplicaSet":
            return _generated(workload.name, str(replica), taken), {}
    raise AssertionError(f"no replicas of kind {workload.kind}")


def _daemon_pods(workload: Workload, nodes: Sequence[str]) -> Iterator[Pod]:
    labels = {"controller-revision-hash": _template_hash(workload.template)}
    taken: set[str] = set()
    for node in nodes:
        # Named after its node, so that a node that joins or leaves renames no other pod.
        name = _generated(workload.name, node, taken)
        taken.add(name)
        yield _pod(workload, name, node, labels)


def _pod(workload: Workload, name: str, node: str, labels: dict[str, str]) -> Pod:
    template = workload.template
    return Pod(
        namespace=workload.namespace,
        name=name,
        node=node,
        labels=labels_of(dict(template.labels) | labels) if labels else template.labels,
        host_network=template.host_network,
        ports=template.ports,
        owner=None if workload.kind == "Pod" else (workload.kind, workload.name),
    )


def _generated(prefix: str, what: str, taken: Collection[str]) -> str:
    """`prefix-x2k8p`: the suffix is a hash of both, and of how often another replica had that name already."""
    attempt = 0
    while True:
        suffix = _letters(_hash("pod", prefix, what, str(attempt)), 5)
        name = f"{prefix[: _MAX_GENERATED_PREFIX - 1]}-{suffix}"
        if name not in taken:
            return name
        attempt += 1


def _template_hash(template: Template) -> str:
    """Another for another template, as Kubernetes': pods of a changed Deployment are other pods."""
    # Of what is in it, only addresses have no form of their own in JSON.
    text = msgspec.json.encode(template, enc_hook=str).decode()
    return _letters(_hash("template", text), 10)


def _letters(number: int, length: int) -> str:
    letters = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return "".join(letters)
