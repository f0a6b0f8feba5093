"""The cluster as values: what sources produce and the compiler consumes.

Every object is frozen and compares by value. `Cluster` is the one mutable thing: the current objects by key, changed
only by `apply`, which says what the change was. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, TypeVar

import msgspec

from topology.metadata import Key as Key
from topology.metadata import Labels as Labels
from topology.metadata import labels_of as labels_of
from topology.naming import Address, Network, datapath_id, pod_port_name
from topology.policies import Policy

#: The annotation that tells nodes apart whose bridges share a datapath, and how many there may be on one.
BRIDGE_INDEX, BRIDGES = "signalbox.io/bridge-index", 1000
#: The label of a node that is a switch between others.
TRANSIT = ("signalbox.io/role", "transit")


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A machine with a bridge. `addresses`: its own, on the underlay. `pod_cidrs`: at most one for each family."""

    kind: ClassVar[str] = "Node"
    name: str
    addresses: tuple[Address, ...]
    pod_cidrs: tuple[Network, ...]
    labels: Labels = ()
    #: What wires at ports of its bridge cost, by the ports' names; those that aren't named cost 1.
    link_costs: tuple[tuple[str, int], ...] = ()
    #: Its number among the bridges of ours on one datapath, from 0: they share connections but for their zones.
    bridge_index: int = 0
    #: Whether it gets no new work: no Service's connections, and no addresses to answer for. It forwards all the same.
    drained: bool = False

    @property
    def key(self) -> Key:
        return ("Node", "", self.name)

    @property
    def is_transit(self) -> bool:
        """Whether it is a switch that only passes on what others send: without pods, Services and policies."""
        return TRANSIT in self.labels

    @property
    def datapath_id(self) -> int:
        return datapath_id(self.name)


class Namespace(msgspec.Struct, frozen=True, kw_only=True):
    """A Kubernetes namespace."""

    kind: ClassVar[str] = "Namespace"
    name: str
    labels: Labels = ()
    #: Whether connections that its policies deny, or allow, are logged, as if each of them asked for it.
    log_denied: bool = False
    log_allowed: bool = False

    @property
    def key(self) -> Key:
        return ("Namespace", "", self.name)


class ContainerPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port that a pod's specification names. `protocol` is TCP, UDP or SCTP."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    #: The port of its node that leads here; 0 for none. `host_ip` None stands for every address of the node.
    host_port: int = 0
    host_ip: Address | None = None


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod. `node` is empty until it is scheduled; `addresses` (its status' podIPs) until its status says them.

    A pod with `host_network` has its node's addresses and no port. `ready` and `terminating` are as its status says.
    One with a `port` is a Workload: a host, virtual machine or container that somebody else has put on that port of
    its node's bridge, with `addresses` (any number) and a `mac` (48 bits) of its own, and without ports of the host.
    With `dhcp` it asks for its addresses, and is told `mtu`.
    """

    kind: ClassVar[str] = "Pod"
    namespace: str
    name: str
    node: str = ""
    labels: Labels = ()
    host_network: bool = False
    addresses: tuple[Address, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    ready: bool = True
    terminating: bool = False
    #: `["Deployment", "web"]` where a workload made the pod.
    owner: tuple[str, str] | None = None
    port: str = ""
    mac: int = 0
    dhcp: bool = False
    mtu: int = 0

    @property
    def key(self) -> Key:
        return ("Pod", self.namespace, self.name)

    @property
    def port_name(self) -> str:
        return self.port or pod_port_name(self.namespace, self.name)


class ServicePort(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a Service. `target` is a number, or the name of a container's port; 0 stands for `port` itself."""

    port: int
    protocol: str = "TCP"
    name: str = ""
    target: int | str = 0
    node_port: int = 0

    @property
    def title(self) -> str:
        """What tells it from the Service's other ports: its name, or number and protocol."""
        return self.name or f"{self.port}/{self.protocol}"


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A Service as it is in force: with the addresses and node ports that were allocated to it.

    Without `cluster_ips` it is headless, and nothing is programmed for it. `selector` None: its endpoints are only what
    EndpointSlices say. `affinity_seconds` is 0 without session affinity. `distribution` is "", "PreferSameZone" or
    "PreferSameNode". `external` are the addresses of LoadBalancers and `spec.externalIPs`.
    """

    kind: ClassVar[str] = "Service"
    namespace: str
    name: str
    type: str = "ClusterIP"
    ports: tuple[ServicePort, ...] = ()
    selector: Labels | None = None
    cluster_ips: tuple[Address, ...] = ()
    external_ips: tuple[Address, ...] = ()
    load_balancer_ips: tuple[Address, ...] = ()
    source_ranges: tuple[Network, ...] = ()
    external_local: bool = False
    internal_local: bool = False
    health_check_node_port: int = 0
    affinity_seconds: int = 0
    publish_not_ready: bool = False
    distribution: str = ""

    @property
    def key(self) -> Key:
        return ("Service", self.namespace, self.name)


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One address of an EndpointSlice, or what a Pod is as one. `zones` are the zones that hints say it is for."""

    address: Address
    node: str = ""
    zone: str = ""
    pod: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zones: tuple[str, ...] = ()


class EndpointPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port of all endpoints of a subset; `name` is that of the Service's port."""

    port: int
    protocol: str = "TCP"
    name: str = ""


class Subset(msgspec.Struct, frozen=True):
    """Endpoints that have the same ports."""

    ports: tuple[EndpointPort, ...]
    endpoints: tuple[Endpoint, ...]


class EndpointSlice(msgspec.Struct, frozen=True, kw_only=True):
    """Endpoints of a Service: an EndpointSlice (one subset), or an Endpoints object (`kind` says which)."""

    kind: str = "EndpointSlice"
    namespace: str
    name: str
    service: str
    subsets: tuple[Subset, ...] = ()

    @property
    def key(self) -> Key:
        return (self.kind, self.namespace, self.name)

    def pods(self) -> set[str]:
        """The names of the pods that are endpoints."""
        return {endpoint.pod for subset in self.subsets for endpoint in subset.endpoints if endpoint.pod}

    def nodes(self) -> set[str]:
        """The names of the nodes that have endpoints."""
        return {endpoint.node for subset in self.subsets for endpoint in subset.endpoints if endpoint.node}


Object = Node | Namespace | Pod | Service | EndpointSlice | Policy


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
        #: The workloads that are said to be on a port, by (node, port name): the first by name has it.
        self.workloads_at: dict[tuple[str, str], set[tuple[str, str]]] = {}
        self.node_by_datapath: dict[int, str] = {}
        #: The nodes that are switches in transit.
        self.transit: set[str] = set()
        #: The nodes that get no new work.
        self.drained: set[str] = set()
        self.services: dict[tuple[str, str], Service] = {}
        self.slices: dict[Key, EndpointSlice] = {}
        #: The slices of a Service, by its namespace and name.
        self.slices_of: dict[tuple[str, str], set[Key]] = {}
        #: The slices that have a pod as endpoint, by its namespace and name.
        self.slices_with: dict[tuple[str, str], set[Key]] = {}
        #: The slices that have an endpoint on a node, by its name.
        self.slices_on: dict[str, set[Key]] = {}
        #: Policies of all kinds.
        self.policies: dict[Key, Policy] = {}
        #: Pods by namespace and one label, Services by namespace and the first label of their selector.
        self._pods_by_label: dict[tuple[str, str, str], set[str]] = {}
        self._services_by_label: dict[tuple[str, str, str], set[str]] = {}
        self.pods_on: dict[str, set[tuple[str, str]]] = {}
        #: Those that want ports of their nodes.
        self.host_ported: set[tuple[str, str]] = set()

    def objects(self) -> Iterator[Object]:
        yield from self.nodes.values()
        yield from self.namespaces.values()
        yield from self.pods.values()
        yield from self.services.values()
        yield from self.slices.values()
        yield from self.policies.values()

    def get(self, key: Key) -> Object | None:
        kind, namespace, name = key
        match kind:
            case "Node":
                return self.nodes.get(name)
            case "Namespace":
                return self.namespaces.get(name)
            case "Pod":
                return self.pods.get((namespace, name))
            case "Service":
                return self.services.get((namespace, name))
            case "EndpointSlice" | "Endpoints":
                return self.slices.get(key)
            case "NetworkPolicy" | "ClusterNetworkPolicy" | "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy":
                return self.policies.get(key)
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
                (self.transit.add if new.is_transit else self.transit.discard)(new.name)
                (self.drained.add if new.drained else self.drained.discard)(new.name)
            case Namespace():
                self.namespaces[new.name] = new
            case Pod():
                if isinstance(old, Pod):
                    self._forget_pod(old)
                self.pods[new.namespace, new.name] = new
                for label in new.labels:
                    self._pods_by_label.setdefault((new.namespace, *label), set()).add(new.name)
                if new.node:
                    self.pods_on.setdefault(new.node, set()).add((new.namespace, new.name))
                if new.node and not new.host_network:
                    self._give_port(new)
                if any(port.host_port for port in new.ports):
                    self.host_ported.add((new.namespace, new.name))
            case Service():
                if isinstance(old, Service):
                    self._forget_service(old)
                self.services[new.namespace, new.name] = new
                if new.selector:
                    anchor = (new.namespace, *new.selector[0])
                    self._services_by_label.setdefault(anchor, set()).add(new.name)
            case EndpointSlice():
                if isinstance(old, EndpointSlice):
                    self._forget_slice(old)
                self.slices[new.key] = new
                self.slices_of.setdefault((new.namespace, new.service), set()).add(new.key)
                for pod in new.pods():
                    self.slices_with.setdefault((new.namespace, pod), set()).add(new.key)
                for node in new.nodes():
                    self.slices_on.setdefault(node, set()).add(new.key)
            case Policy():
                self.policies[new.key] = new
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
                self.transit.discard(old.name)
                self.drained.discard(old.name)
            case Namespace():
                del self.namespaces[old.name]
            case Pod():
                del self.pods[old.namespace, old.name]
                self._forget_pod(old)
            case Service():
                del self.services[old.namespace, old.name]
                self._forget_service(old)
            case EndpointSlice():
                del self.slices[old.key]
                self._forget_slice(old)
            case Policy():
                del self.policies[old.key]
        return Change(old, None)

    def _give_port(self, pod: Pod) -> None:
        place = (pod.node, pod.port_name)
        if pod.port:
            there = self.workloads_at.setdefault(place, set())
            there.add((pod.namespace, pod.name))
            pod = self.pods[min(there)]
        self.pod_by_port[place] = pod

    def _forget_pod(self, pod: Pod) -> None:
        self.host_ported.discard((pod.namespace, pod.name))
        place = (pod.node, pod.port_name)
        self.pod_by_port.pop(place, None)
        if pod.port:
            _take_out(self.workloads_at, place, (pod.namespace, pod.name))
            if place in self.workloads_at:
                self.pod_by_port[place] = self.pods[min(self.workloads_at[place])]
        for label in pod.labels:
            _take_out(self._pods_by_label, (pod.namespace, *label), pod.name)
        _take_out(self.pods_on, pod.node, (pod.namespace, pod.name))

    def _forget_service(self, service: Service) -> None:
        if service.selector:
            _take_out(self._services_by_label, (service.namespace, *service.selector[0]), service.name)

    def _forget_slice(self, each: EndpointSlice) -> None:
        _take_out(self.slices_of, (each.namespace, each.service), each.key)
        for pod in each.pods():
            _take_out(self.slices_with, (each.namespace, pod), each.key)
        for node in each.nodes():
            _take_out(self.slices_on, node, each.key)

    def selected(self, service: Service) -> Iterator[Pod]:
        """The pods that a Service's selector selects, in the order of their names."""
        if service.selector:
            wanted = set(service.selector)
            rarest = min(
                (self._pods_by_label.get((service.namespace, *label), set()) for label in service.selector), key=len
            )
            for name in sorted(rarest):
                pod = self.pods[service.namespace, name]
                if wanted <= set(pod.labels):
                    yield pod

    def selecting(self, pod: Pod) -> Iterator[Service]:
        """The Services whose selectors select a pod."""
        labels = set(pod.labels)
        for label in pod.labels:
            for name in self._services_by_label.get((pod.namespace, *label), ()):
                service = self.services[pod.namespace, name]
                if service.selector and labels.issuperset(service.selector):
                    yield service


Index = TypeVar("Index")
Entry = TypeVar("Entry")


def _take_out(index: dict[Index, set[Entry]], key: Index, entry: Entry) -> None:
    there = index.get(key)
    if there is not None:
        there.discard(entry)
        if not there:
            del index[key]
