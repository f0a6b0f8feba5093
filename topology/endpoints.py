"""Which endpoints a Service's port has, and which of them a client is sent to: Kubernetes' rules, and nothing else.

Pure: a Service, the cluster and its nodes' labels in, endpoints out. What becomes of them in a switch is
`flows.services`' business. The rules are those of kube-proxy (Kubernetes documentation, "Virtual IPs and Service
Proxies", "Service Internal Traffic Policy", "Topology Aware Routing").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from topology.model import Cluster, Endpoint, Node, Pod, Service, ServicePort
from topology.naming import Address

ZONE_LABEL = "topology.kubernetes.io/zone"
#: Endpoints that one port of a Service uses, as Kubernetes has it for an Endpoints object; more are left out.
ENDPOINT_LIMIT = 1000


class Backend(msgspec.Struct, frozen=True):
    """An endpoint of one port: where a connection is sent to."""

    address: Address
    port: int
    endpoint: Endpoint

    @property
    def order(self) -> tuple[int, int]:
        return int(self.address), self.port


def zone_of(node: Node | None) -> str:
    """A node's topology zone; empty where it has none."""
    return dict(node.labels).get(ZONE_LABEL, "") if node is not None else ""


def backends(cluster: Cluster, service: Service, port: ServicePort, version: int) -> list[Backend]:
    """Every endpoint of a Service's port in one family, ready or not, in the order of their addresses."""
    slices = cluster.slices_of.get((service.namespace, service.name))
    found = _declared(cluster, sorted(slices), port) if slices else _selected(cluster, service, port)
    by_place = {each.order: each for each in found if each.address.version == version}
    if cluster.drained and not service.publish_not_ready:
        by_place = {order: _unless_drained(cluster, each) for order, each in by_place.items()}
    return [by_place[order] for order in sorted(by_place)]


def _unless_drained(cluster: Cluster, backend: Backend) -> Backend:
    """On a drained node an endpoint isn't ready, nor of those that serve while they end: what it has goes on."""
    end = backend.endpoint
    if end.node not in cluster.drained:
        return backend
    end = msgspec.structs.replace(end, ready=False, serving=end.ready or end.serving, terminating=False)
    return msgspec.structs.replace(backend, endpoint=end)


def _declared(cluster: Cluster, slices: Iterable[tuple[str, str, str]], port: ServicePort) -> Iterator[Backend]:
    for key in slices:
        for subset in cluster.slices[key].subsets:
            for each in subset.ports:
                if (each.name, each.protocol) == (port.name, port.protocol):
                    for endpoint in subset.endpoints:
                        yield Backend(endpoint.address, each.port, endpoint)


def _selected(cluster: Cluster, service: Service, port: ServicePort) -> Iterator[Backend]:
    """What Kubernetes' own controllers would write into EndpointSlices for a selector."""
    for pod in cluster.selected(service):
        number = target_port(pod, port)
        node = cluster.nodes.get(pod.node)
        if not number:
            continue
        zone = zone_of(node)
        ready = pod.ready or service.publish_not_ready
        for address in addresses_of(pod, node):
            endpoint = Endpoint(
                address=address,
                node=pod.node,
                zone=zone,
                pod=pod.name,
                ready=ready and (not pod.terminating or service.publish_not_ready),
                serving=ready,
                terminating=pod.terminating,
                zones=(zone,) if service.distribution and zone else (),
            )
            yield Backend(address, number, endpoint)


def addresses_of(pod: Pod, node: Node | None) -> tuple[Address, ...]:
    """Where a pod is reached."""
    if pod.host_network and not pod.addresses:
        return node.addresses if node is not None else ()
    return pod.addresses


def target_port(pod: Pod, port: ServicePort) -> int:
    """The number of a pod's port behind a Service's; 0 where the pod has none of that name."""
    if isinstance(port.target, int):
        return port.target or port.port
    named = (each.port for each in pod.ports if (each.name, each.protocol) == (port.target, port.protocol))
    return next(named, 0)


def usable(found: Sequence[Backend]) -> list[Backend]:
    """Those that are ready; where none is, those that still serve while they terminate."""
    ready = [each for each in found if each.endpoint.ready]
    return ready or [each for each in found if each.endpoint.serving and each.endpoint.terminating]


def in_zones(found: Sequence[Backend]) -> dict[str, list[Backend]]:
    """By zone, the endpoints that hints reserve for it: empty unless every one of them has a hint."""
    zones: dict[str, list[Backend]] = {}
    for each in found:
        if not each.endpoint.zones:
            return {}
        for zone in each.endpoint.zones:
            zones.setdefault(zone, []).append(each)
    return zones


def on_nodes(found: Sequence[Backend]) -> dict[str, list[Backend]]:
    """By node, the endpoints that a client who must stay on it is sent to."""
    nodes: dict[str, list[Backend]] = {}
    for each in found:
        if each.endpoint.node:
            nodes.setdefault(each.endpoint.node, []).append(each)
    there = ((node, usable(local)) for node, local in nodes.items())
    return {node: local for node, local in there if local}
