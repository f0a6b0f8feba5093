"""Objects of Kubernetes' API, as JSON, to objects of the model.

Owns: which fields are looked at. Those that come by the thousand are decoded into structs that name just these fields,
some microseconds each; policies go through the readers of manifests, word for word, since they must mean the same.
What the API server has checked isn't checked again, but nothing that it lets through may end the source: an object
that can't be read is `Unreadable`, and what there was of it before stays in force. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec

from topology import drained, link_costs
from topology import manifest_fields as fields
from topology.kubernetes.reflector import Found, Read
from topology.kubernetes.resources import RESOURCES
from topology.manifests import make_namespace
from topology.model import (
    ContainerPort,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Key,
    Namespace,
    Node,
    Object,
    Pod,
    Service,
    ServicePort,
    Subset,
    labels_of,
)
from topology.naming import Address, Network, places
from topology.policies import Policy
from topology.policy_manifests import APIS, logged, policy
from topology.service_manifests import DEFAULT_AFFINITY, DISTRIBUTIONS, SERVICE_NAME
from topology.services import LOAD_BALANCER_CLASS
from topology.workload_manifests import port_workload
from topology.yaml_tree import FieldError, Tree, tree_of

#: The condition that tells schedulers whether a node's network is there, and the one of ours on policies and Services.
NETWORK_UNAVAILABLE = "NetworkUnavailable"
OFFLOAD_UNAVAILABLE = "SignalboxOffloadUnavailable"
REALIZED = "signalbox.io/Realized"
_EVERY_ADDRESS = ("", "0.0.0.0", "::")
#: The annotations of nodes that are read.
_OF_NODES = frozenset((drained.ANNOTATION, link_costs.ANNOTATION))


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """One condition of an object's status."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    observed_generation: int = 0


class About(msgspec.Struct, frozen=True):
    """What is to be known of an object to write of it, beside what it means."""

    uid: str = ""
    generation: int = 0
    #: The one condition of its status that is ours to set.
    condition: Condition | None = None
    #: The addresses and names that its status has for load balancers.
    ingress: tuple[str, ...] = ()
    #: Of a Node, a second condition that is ours: of hardware offload.
    offload: Condition | None = None


class Balanced(msgspec.Struct, frozen=True):
    """A Service as the API server has it, before it is known what it gets from a load balancer.

    `service` is None for what is not programmed. `wants` are the families that are to have an address of ours, `asked`
    is the address that it asks for, and `status` has those that it was given, by us or by others.
    """

    service: Service | None
    wants: tuple[int, ...] = ()
    asked: Address | None = None
    status: tuple[Address, ...] = ()


class Unreadable(msgspec.Struct, frozen=True):
    """An object that can't be read; what there was of it before stays in force."""

    reason: str


#: None is for what is there and means nothing: a pod that has ended.
Value = Object | Balanced | Unreadable | None


class Reading(msgspec.Struct, frozen=True):
    """What was read of one object, and what is wrong with it although it could be read."""

    key: Key
    value: Value
    #: None for kinds that nothing is written of.
    about: About | None = None
    problems: tuple[str, ...] = ()


# What is decoded ------------------------------------------------------------------------------------------------------

_Strings = dict[str, str] | None


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: _Strings = None
    annotations: _Strings = None
    deletion_timestamp: str | None = None


class _Ip(msgspec.Struct, frozen=True):
    ip: str = ""


class _NodeAddress(msgspec.Struct, frozen=True):
    type: str
    address: str


class _NodeSpec(msgspec.Struct, frozen=True):
    podCIDR: str = ""
    podCIDRs: list[str] | None = None


class _NodeStatus(msgspec.Struct, frozen=True):
    addresses: list[_NodeAddress] | None = None
    conditions: list[Condition] | None = None


class _Node(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _NodeSpec = _NodeSpec()
    status: _NodeStatus = _NodeStatus()


class _Namespace(msgspec.Struct, frozen=True):
    metadata: _Meta


class _Port(msgspec.Struct, frozen=True):
    containerPort: int
    name: str = ""
    protocol: str = "TCP"
    hostPort: int = 0
    hostIP: str = ""


class _Container(msgspec.Struct, frozen=True, rename="camel"):
    ports: list[_Port] | None = None
    restart_policy: str = ""


class _PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    node_name: str = ""
    host_network: bool = False
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None


class _PodStatus(msgspec.Struct, frozen=True):
    phase: str = ""
    podIP: str = ""
    podIPs: list[_Ip] | None = None
    conditions: list[Condition] | None = None


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()


class _ServicePort(msgspec.Struct, frozen=True, rename="camel"):
    port: int
    protocol: str = "TCP"
    name: str = ""
    target_port: int | str = 0
    node_port: int = 0


class _ClientIp(msgspec.Struct, frozen=True, rename="camel"):
    timeout_seconds: int | None = None


class _Affinity(msgspec.Struct, frozen=True):
    clientIP: _ClientIp | None = None


class _ServiceSpec(msgspec.Struct, frozen=True, rename="camel"):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: list[str] | None = msgspec.field(name="clusterIPs", default=None)
    external_ips: list[str] | None = msgspec.field(name="externalIPs", default=None)
    ports: list[_ServicePort] | None = None
    load_balancer_ip: str = msgspec.field(name="loadBalancerIP", default="")
    load_balancer_class: str | None = None
    load_balancer_source_ranges: list[str] | None = None
    external_traffic_policy: str = ""
    internal_traffic_policy: str | None = None
    health_check_node_port: int = 0
    session_affinity: str = ""
    session_affinity_config: _Affinity | None = None
    publish_not_ready_addresses: bool = False
    traffic_distribution: str | None = None


class _Ingress(msgspec.Struct, frozen=True):
    ip: str = ""
    hostname: str = ""
    #: "Proxy": whoever has this address does not keep it as the destination, so it is not ours to translate.
    ipMode: str | None = None


class _Ingresses(msgspec.Struct, frozen=True):
    ingress: list[_Ingress] | None = None


class _ServiceStatus(msgspec.Struct, frozen=True, rename="camel"):
    load_balancer: _Ingresses = _Ingresses()
    conditions: list[Condition] | None = None


class _Service(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _ServiceSpec = _ServiceSpec()
    status: _ServiceStatus = _ServiceStatus()


class _Conditions(msgspec.Struct, frozen=True):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class _Name(msgspec.Struct, frozen=True):
    name: str = ""


class _Target(msgspec.Struct, frozen=True):
    kind: str = ""
    name: str = ""


class _Hints(msgspec.Struct, frozen=True, rename="camel"):
    for_zones: list[_Name] | None = None


class _Endpoint(msgspec.Struct, frozen=True, rename="camel"):
    addresses: list[str] | None = None
    conditions: _Conditions = _Conditions()
    node_name: str | None = None
    zone: str | None = None
    target_ref: _Target | None = None
    hints: _Hints | None = None


class _EndpointPort(msgspec.Struct, frozen=True):
    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class _Slice(msgspec.Struct, frozen=True, rename="camel"):
    metadata: _Meta
    address_type: str = ""
    endpoints: list[_Endpoint] | None = None
    ports: list[_EndpointPort] | None = None


class _PolicyStatus(msgspec.Struct, frozen=True):
    conditions: list[Condition] | None = None


class _Policy(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: Any = None
    status: _PolicyStatus = _PolicyStatus()


class _Workload(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: Any = None


class _Any(msgspec.Struct, frozen=True):
    metadata: _Meta


# Nodes and namespaces -------------------------------------------------------------------------------------------------


def _node(kind: str, node: _Node) -> Reading:
    meta, problems = node.metadata, list[str]()
    listed = node.status.addresses or []
    # A node that has no internal address is reached by those that it has.
    texts = [each.address for each in listed if each.type == "InternalIP"] or [
        each.address for each in listed if each.type == "ExternalIP"
    ]
    cidrs = node.spec.podCIDRs or ([node.spec.podCIDR] if node.spec.podCIDR else [])
    value = Node(
        name=meta.name,
        addresses=_addresses(texts, "status.addresses", problems),
        pod_cidrs=_pod_cidrs(cidrs, problems),
        labels=labels_of({"kubernetes.io/hostname": meta.name} | (meta.labels or {})),
    )
    if meta.annotations and not _OF_NODES.isdisjoint(meta.annotations):
        tree, remarks = tree_of({"metadata": {"annotations": meta.annotations}}), _remarks(problems)
        value = msgspec.structs.replace(
            value, link_costs=link_costs.link_costs(tree, remarks), drained=drained.drained(tree, remarks)
        )
    about = msgspec.structs.replace(
        _about(meta, node.status.conditions, NETWORK_UNAVAILABLE),
        offload=_about(meta, node.status.conditions, OFFLOAD_UNAVAILABLE).condition,
    )
    return Reading((kind, "", meta.name), value, about, tuple(problems))


def _pod_cidrs(texts: Iterable[str], problems: list[str]) -> tuple[Network, ...]:
    found: dict[int, Network] = {}
    for text in texts:
        try:
            network = ip_network(text)
        except ValueError as error:
            problems.append(f"spec.podCIDRs: {error}")
            continue
        if network.version in found:
            problems.append(f"spec.podCIDRs: {network} is a second one of its family, and left out")
        elif not places([network]):
            problems.append(f"spec.podCIDRs: {network} has no room for a pod, and is left out")
        else:
            found[network.version] = network
    return tuple(found.values())


def _namespace(kind: str, namespace: _Namespace) -> Reading:
    meta, problems = namespace.metadata, list[str]()
    value: Namespace = make_namespace(meta.name, meta.labels or {})
    if meta.annotations:
        tree = tree_of({"metadata": {"annotations": meta.annotations}})
        denied, allowed = logged(tree, _remarks(problems))
        value = msgspec.structs.replace(value, log_denied=denied, log_allowed=allowed)
    return Reading((kind, "", meta.name), value, _about(meta), tuple(problems))


# Pods -----------------------------------------------------------------------------------------------------------------


def _pod(kind: str, pod: _Pod) -> Reading:
    meta, spec, status = pod.metadata, pod.spec, pod.status
    key = (kind, meta.namespace, meta.name)
    if status.phase in ("Succeeded", "Failed"):
        # It will never run again: its address is free for others.
        return Reading(key, None)
    problems: list[str] = []
    containers = list(spec.containers or ())
    # Those that go on running beside the others.
    containers += [each for each in spec.init_containers or () if each.restart_policy == "Always"]
    texts = [each.ip for each in status.podIPs or ()] or [status.podIP]
    value = Pod(
        namespace=meta.namespace,
        name=meta.name,
        node=spec.node_name,
        labels=tuple(sorted(meta.labels.items())) if meta.labels else (),
        host_network=spec.host_network,
        addresses=_addresses(texts, "status.podIPs", problems),
        ports=tuple(_container_port(port) for each in containers for port in each.ports or ()),
        ready=any(each.type == "Ready" and each.status == "True" for each in status.conditions or ()),
        terminating=meta.deletion_timestamp is not None,
    )
    return Reading(key, value, problems=tuple(problems))


def _container_port(port: _Port) -> ContainerPort:
    return ContainerPort(
        port=port.containerPort,
        name=port.name,
        protocol=port.protocol,
        host_port=port.hostPort,
        host_ip=None if port.hostIP in _EVERY_ADDRESS else ip_address(port.hostIP),
    )


def _workload(kind: str, each: _Workload) -> Reading:
    """What the custom resource's schema lets through may still be none."""
    meta = each.metadata
    tree = tree_of({"metadata": {"labels": meta.labels}, "spec": each.spec})
    value: Pod | Unreadable
    try:
        value = port_workload(meta.namespace, meta.name, tree).pod
    except FieldError as error:
        value = Unreadable(str(error))
    return Reading((kind, meta.namespace, meta.name), value)


# Services and endpoints -----------------------------------------------------------------------------------------------


def _service(kind: str, service: _Service) -> Reading:
    meta, spec, problems = service.metadata, service.spec, list[str]()
    key = (kind, meta.namespace, meta.name)
    ingress = service.status.load_balancer.ingress or []
    about = _about(meta, service.status.conditions, REALIZED, tuple(each.ip or each.hostname for each in ingress))
    texts = spec.cluster_ips or [spec.cluster_ip]
    if spec.type == "ExternalName" or "None" in texts or texts == [""]:
        return Reading(key, Balanced(None), about)
    cluster_ips = _addresses(texts, "spec.clusterIPs", problems)
    external = _addresses(spec.external_ips or (), "spec.externalIPs", problems)
    balanced, exposed = spec.type == "LoadBalancer", spec.type in ("NodePort", "LoadBalancer")
    affinity = spec.session_affinity_config.clientIP if spec.session_affinity_config else None
    value = Service(
        namespace=meta.namespace,
        name=meta.name,
        type=spec.type,
        ports=tuple(
            ServicePort(
                port=each.port,
                protocol=each.protocol,
                name=each.name,
                target=each.target_port,
                node_port=each.node_port if exposed else 0,
            )
            for each in spec.ports or ()
        ),
        # Its endpoints are what EndpointSlices say, which Kubernetes writes for what the selector selects.
        selector=None,
        cluster_ips=cluster_ips,
        external_ips=external,
        source_ranges=_source_ranges(spec) if balanced else (),
        external_local=spec.external_traffic_policy == "Local" and (exposed or bool(external)),
        internal_local=spec.internal_traffic_policy == "Local",
        health_check_node_port=spec.health_check_node_port
        if balanced and spec.external_traffic_policy == "Local"
        else 0,
        affinity_seconds=0
        if spec.session_affinity != "ClientIP"
        else affinity.timeout_seconds or DEFAULT_AFFINITY
        if affinity
        else DEFAULT_AFFINITY,
        publish_not_ready=spec.publish_not_ready_addresses,
        distribution=DISTRIBUTIONS.get(spec.traffic_distribution or "", spec.traffic_distribution or ""),
    )
    ours = balanced and (spec.load_balancer_class or "") in ("", LOAD_BALANCER_CLASS)
    asked = _addresses([spec.load_balancer_ip], "spec.loadBalancerIP", problems)
    status = [each.ip for each in ingress if each.ipMode in (None, "VIP")] if balanced else []
    found = Balanced(
        service=value,
        wants=tuple(each.version for each in cluster_ips) if ours else (),
        asked=asked[0] if asked and ours else None,
        status=_addresses(status, "status.loadBalancer.ingress", problems),
    )
    return Reading(key, found, about, tuple(problems))


def _source_ranges(spec: _ServiceSpec) -> tuple[Network, ...]:
    # One that isn't a range would open the Service to all if it were passed over: the Service is unreadable then.
    return tuple(ip_network(each.strip(), strict=False) for each in spec.load_balancer_source_ranges or ())


def _slice(kind: str, each: _Slice) -> Reading:
    meta, problems = each.metadata, list[str]()
    key = (kind, meta.namespace, meta.name)
    service = (meta.labels or {}).get(SERVICE_NAME, "")
    if not service or each.address_type not in ("IPv4", "IPv6"):
        return Reading(key, None)
    ports = tuple(
        EndpointPort(port=port.port, protocol=port.protocol or "TCP", name=port.name or "")
        for port in each.ports or ()
        if port.port is not None
    )
    endpoints = tuple(found for listed in each.endpoints or () for found in _endpoints(listed, problems))
    value = EndpointSlice(
        namespace=meta.namespace, name=meta.name, service=service, subsets=(Subset(ports, endpoints),)
    )
    return Reading(key, value, problems=tuple(problems))


def _endpoints(listed: _Endpoint, problems: list[str]) -> list[Endpoint]:
    ready = listed.conditions.ready is not False
    target = listed.target_ref
    return [
        Endpoint(
            address=address,
            node=listed.node_name or "",
            zone=listed.zone or "",
            pod=target.name if target is not None and target.kind in ("Pod", "Workload") else "",
            ready=ready,
            serving=ready if listed.conditions.serving is None else listed.conditions.serving,
            terminating=bool(listed.conditions.terminating),
            zones=tuple(each.name for each in listed.hints.for_zones or ()) if listed.hints else (),
        )
        for address in _addresses(listed.addresses or (), "endpoints", problems)
    ]


# Policies -------------------------------------------------------------------------------------------------------------


def _policy(kind: str, each: _Policy) -> Reading:
    meta, problems = each.metadata, list[str]()
    key = (kind, meta.namespace, meta.name)
    written = {"name": meta.name, "annotations": meta.annotations}
    tree = tree_of({"apiVersion": APIS[kind], "kind": kind, "metadata": written, "spec": each.spec})
    about = _about(meta, each.status.conditions, REALIZED)
    try:
        value: Policy | Unreadable = policy(key, tree, _remarks(problems))
    except FieldError as error:
        value = Unreadable(str(error))
    return Reading(key, value, about, tuple(problems))


def _remarks(problems: list[str]) -> fields.Remarks:
    def report(error: FieldError) -> None:
        problems.append(str(error))

    def note(tree: Tree, text: str) -> None:
        """What was passed over does no harm, and nobody asked for it here."""

    return fields.Remarks(report, note)


# All of them ----------------------------------------------------------------------------------------------------------


def _about(
    meta: _Meta, conditions: Iterable[Condition] | None = None, ours: str = "", ingress: tuple[str, ...] = ()
) -> About:
    condition = next((each for each in conditions or () if each.type == ours), None)
    return About(meta.uid, meta.generation, condition, ingress)


def _addresses(texts: Iterable[str], field: str, problems: list[str]) -> tuple[Address, ...]:
    """The addresses that others can send to; the API server lets through some that aren't."""
    found: list[Address] = []
    for text in texts:
        if not text:
            continue
        try:
            address = ip_address(text)
        except ValueError as error:
            problems.append(f"{field}: {error}")
            continue
        if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
            problems.append(f"{field}: {address} is an address that no other node can send to: left out")
        elif address not in found:
            found.append(address)
    return tuple(found)


def _reader(kind: str, decoder: msgspec.json.Decoder[Any], build: Callable[[str, Any], Reading]) -> Read:
    def read(raw: msgspec.Raw) -> Found:
        try:
            decoded = decoder.decode(raw)
        except msgspec.MsgspecError as error:
            # What hasn't even a name is no object, and raises here.
            meta = _ANY.decode(raw).metadata
            reading = Reading((kind, meta.namespace, meta.name), Unreadable(str(error)))
            return Found(meta.namespace, meta.name, meta.resource_version, reading)
        meta = decoded.metadata
        try:
            reading = build(kind, decoded)
        except ValueError as error:
            reading = Reading((kind, meta.namespace, meta.name), Unreadable(str(error)))
        return Found(meta.namespace, meta.name, meta.resource_version, reading)

    return read


_ANY = msgspec.json.Decoder(_Any)
_STRUCTS: Mapping[str, tuple[Any, Callable[[str, Any], Reading]]] = {
    "Node": (_Node, _node),
    "Namespace": (_Namespace, _namespace),
    "Pod": (_Pod, _pod),
    "Service": (_Service, _service),
    "EndpointSlice": (_Slice, _slice),
    "Workload": (_Workload, _workload),
    **dict.fromkeys(APIS, (_Policy, _policy)),
}
READERS: Mapping[str, Read] = {
    each.kind: _reader(each.kind, msgspec.json.Decoder(_STRUCTS[each.kind][0]), partial(_STRUCTS[each.kind][1]))
    for each in RESOURCES
}
