"""The cluster as values: what sources produce and the compiler consumes.

Every object is frozen and compares by value. `Cluster` is the one mutable thing: the current objects by key, changed
only by `apply`, which says what the change was. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import msgspec

from topology.naming import Address, Network, datapath_id, pod_port_name

#: Sorted (key, value) pairs: hashable, and equal when the labels are.
Labels = tuple[tuple[str, str], ...]
#: Kind, namespace (empty where there is none) and name: what identifies an object.
Key = tuple[str, str, str]


def labels_of(mapping: Mapping[str, str]) -> Labels:
    """A mapping of labels in the form that objects hold."""
    return tuple(sorted(mapping.items()))


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A machine with a bridge. `addresses`: its own, on the underlay. `pod_cidrs`: at most one for each family."""

    kind: ClassVar[str] = "Node"
    name: str
    addresses: tuple[Address, ...]
    pod_cidrs: tuple[Network, ...]
    labels: Labels = ()

    @property
    def key(self) -> Key:
        return ("Node", "", self.name)

    @property
    def datapath_id(self) -> int:
        return datapath_id(self.name)


class Namespace(msgspec.Struct, frozen=True, kw_only=True):
    """A Kubernetes namespace."""

    kind: ClassVar[str] = "Namespace"
    name: str
    labels: Labels = ()

    @property
    def key(self) -> Key:
        return ("Namespace", "", self.name)


class ContainerPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port that a pod's specification names. `protocol` is TCP, UDP or SCTP."""

    port: int
    name: str = ""
    protocol: str = "TCP"


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod. `node` is empty until it is scheduled; `addresses` until something says what they are.

    A pod with `host_network` has its node's addresses and no port.
    """

    kind: ClassVar[str] = "Pod"
    namespace: str
    name: str
    node: str = ""
    labels: Labels = ()
    host_network: bool = False
    addresses: tuple[Address, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    #: `["Deployment", "web"]` where a workload made the pod.
    owner: tuple[str, str] | None = None

    @property
    def key(self) -> Key:
        return ("Pod", self.namespace, self.name)

    @property
    def port_name(self) -> str:
        return pod_port_name(self.namespace, self.name)


Object = Node | Namespace | Pod


class Change(msgspec.Struct, frozen=True):
    """One object before and after; None before it was made and after it is deleted."""

    old: Object | None
    new: Object | None

    @property
    def key(self) -> Key:
        present = self.new if self.new is not None else self.old
        assert present is not None
        return present.key


class Cluster:
    """The current objects. `put` and `remove` say what changed, None where nothing did."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.namespaces: dict[str, Namespace] = {}
        self.pods: dict[tuple[str, str], Pod] = {}
        #: Which pod a port's name belongs to, by (node, port name): what a PortStatus is looked up in.
        self.pod_by_port: dict[tuple[str, str], Pod] = {}
        self.node_by_datapath: dict[int, str] = {}

    def objects(self) -> Iterator[Object]:
        yield from self.nodes.values()
        yield from self.namespaces.values()
        yield from self.pods.values()

    def get(self, key: Key) -> Object | None:
        kind, namespace, name = key
        match kind:
            case "Node":
                return self.nodes.get(name)
            case "Namespace":
                return self.namespaces.get(name)
            case "Pod":
                return self.pods.get((namespace, name))
        raise KeyError(f"no such kind: {kind}")

    def put(self, new: Object) -> Change | None:
        """Make or replace an object."""
        old = self.get(new.key)
        if old == new:
            return None
        match new:
            case Node():
                self.nodes[new.name] = new
                self.node_by_datapath[new.datapath_id] = new.name
            case Namespace():
                self.namespaces[new.name] = new
            case Pod():
                if isinstance(old, Pod):
                    self._forget_port(old)
                self.pods[new.namespace, new.name] = new
                if new.node and not new.host_network:
                    self.pod_by_port[new.node, new.port_name] = new
        return Change(old, new)

    def remove(self, key: Key) -> Change | None:
        """Delete an object."""
        old = self.get(key)
        match old:
            case None:
                return None
            case Node():
                del self.nodes[old.name]
                self.node_by_datapath.pop(old.datapath_id, None)
            case Namespace():
                del self.namespaces[old.name]
            case Pod():
                del self.pods[old.namespace, old.name]
                self._forget_port(old)
        return Change(old, None)

    def _forget_port(self, pod: Pod) -> None:
        self.pod_by_port.pop((pod.node, pod.port_name), None)
