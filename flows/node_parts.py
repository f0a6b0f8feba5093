"""What nodes, pods and their ports contribute: ways to them, who they are, and their own switches' flows.

A contribution (`Part`: scope, kind, name) is a pure function of the current state. `affected` says which of them a
change may change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import starmap

from flows.cookies import Kind, Scope, cookie
from flows.fabric_parts import FabricParts
from flows.places import Places, alone, networks_of
from flows.registers import Identity
from flows.service_parts import Part, zone_number
from flows.state import LocalPod
from flows.tables import arp, classify, fabric, host, output, policy, route, service, track
from flows.update import CLUSTER
from flows.values import Flow
from topology.endpoints import zone_of
from topology.flow_export import FlowExport
from topology.graph import Interconnect, LinkKind, NextHop, Topology
from topology.identities import Identities
from topology.model import Change, Node, Pod
from topology.naming import (
    ENTRY_ADDRESSES,
    GATEWAY_PORT,
    TUNNEL_PORT,
    Network,
    gateway_addresses,
    object_id,
    translation_addresses,
)


class NodeParts:
    """The contributions of nodes and pods."""

    def __init__(
        self,
        places: Places,
        identities: Identities,
        topology: Topology,
        interconnect: Interconnect,
        fabric: FabricParts,
        *,
        keyed: bool,
        exports: Sequence[FlowExport] = (),
    ) -> None:
        self._places = places
        self._cluster = places.cluster
        self._identities = identities
        self._topology = topology
        self._interconnect = interconnect
        self._fabric = fabric
        self._keyed = keyed
        self._exports = tuple(exports)

    # What a change can affect -----------------------------------------------------------------------------------

    def affected(self, change: Change) -> set[Part]:
        """The parts that a change of an object may change."""
        parts: set[Part] = set()
        for version in (change.old, change.new):
            match version:
                case Node():
                    rivals = {
                        rival for network in networks_of(version) for rival in self._places.claims.get(network, ())
                    }
                    parts |= {(CLUSTER, Kind.NODE, name) for name in rivals | {version.name}}
                    parts.add((version.name, Kind.NODE, version.name))
                    parts |= {(version.name, Kind.POD, name) for name in self._places.ports.get(version.name, ())}
                    parts |= {part for name in rivals | {version.name} for part in self.of_identities(name)}
                    parts |= self._of_workloads(version)
                case Pod():
                    parts |= self.of_pod(version)
                    if any(port.host_port for port in version.ports):
                        parts |= {(version.node, Kind.POD, name) for name in self._places.ports.get(version.node, ())}
        return parts

    def of_pod(self, pod: Pod) -> set[Part]:
        if pod.port:
            rivals = {key for address in pod.addresses for key in self._places.workloads.get(address, ())}
            workloads = [pod, *(self._cluster.pods[key] for key in rivals)]
            return {part for each in workloads for part in self._of_workload(each)}
        parts = self.of_identity(pod)
        ports = self._places.ports.get(pod.node, {})
        port = ports.get(pod.port_name)
        if port is not None:
            said = self._places.announced(pod.node, port)
            for name, other in ports.items():
                if self._places.announced(pod.node, other) == said:
                    parts.add((pod.node, Kind.POD, name))
                    parts |= self.of_identity(self._cluster.pod_by_port.get((pod.node, name)))
        for key in self._places.rivals(pod):
            parts |= self.of_identity(self._cluster.pods[key])
        return parts

    def _of_workload(self, workload: Pod) -> set[Part]:
        title = "/".join((workload.namespace, workload.name))
        there = {(workload.node, Kind.POD, workload.port)} if workload.node else set()
        return {(CLUSTER, Kind.POD, title)} | there | self.of_identity(workload)

    def of_ways(self, node: str) -> set[Part]:
        """What depends on how a node is reached."""
        workloads = {name for name in self._cluster.pods_on.get(node, ()) if self._cluster.pods[name].port}
        return {(CLUSTER, Kind.NODE, node), *((CLUSTER, Kind.POD, "/".join(name)) for name in workloads)}

    def _of_workloads(self, node: Node) -> set[Part]:
        """Of the workloads on a node, and of those that lose an address to it, or get it back."""
        names = {name for name in self._cluster.pods_on.get(node.name, ()) if self._cluster.pods[name].port}
        for address, users in self._places.workloads.items():
            if address in node.addresses or any(address in cidr for cidr in node.pod_cidrs):
                names |= users
        return {part for name in names for part in self._of_workload(self._cluster.pods[name])}

    def of_identities(self, node: str) -> set[Part]:
        """Who each pod of a node is, for nodes that its packets reach without a key."""
        if not self._places.by_address:
            return set()
        return {
            part for key in self._cluster.pods_on.get(node, ()) for part in self.of_identity(self._cluster.pods[key])
        }

    def of_identity(self, pod: Pod | None) -> set[Part]:
        if not self._places.by_address or pod is None:
            return set()
        return {(CLUSTER, Kind.IDENTITY, "/".join((pod.namespace, pod.name)))}

    @staticmethod
    def of_port(node: str, port_name: str) -> list[Part]:
        if port_name in (GATEWAY_PORT, TUNNEL_PORT):
            return [(node, Kind.NODE, node)]
        return [(node, Kind.POD, port_name)]

    # What they are ----------------------------------------------------------------------------------------------

    def portions(self, scope: str) -> Iterator[Iterable[Flow]]:
        """Every flow of a scope that is of nodes and pods, or of the pipeline; see `Compiler.portions`."""
        if scope != CLUSTER:
            yield self._switch_flows(scope)
            workloads = (self._cluster.pods[name].port for name in self._cluster.pods_on.get(scope, ()))
            for name in dict.fromkeys((*self._places.ports.get(scope, ()), *filter(None, workloads))):
                yield self._port_flows(scope, name)
            return
        yield _pipeline_flows()
        yield from map(self._node_routes, list(self._cluster.nodes))
        yield from starmap(self._workload_routes, sorted(set().union(*self._places.workloads.values())))
        yield self._interconnect_flows()
        if self._places.by_address:
            yield classify.unkeyed_flows(cookie(Scope.CLUSTER, Kind.PIPELINE, 0))
            yield policy.unkeyed_flows(cookie(Scope.CLUSTER, Kind.PIPELINE, 0))
            yield from starmap(self._identity_flows, list(self._cluster.pods))

    def contribution(self, part: Part) -> Iterator[Flow]:
        """What a part is now."""
        scope, kind, name = part
        match kind:
            case Kind.NODE if scope == CLUSTER:
                return self._node_routes(name)
            case Kind.NODE:
                return self._switch_flows(name)
            case Kind.POD if scope == CLUSTER:
                return self._workload_routes(*name.split("/"))
            case Kind.POD:
                return self._port_flows(scope, name)
            case Kind.IDENTITY:
                return self._identity_flows(*name.split("/"))
        raise AssertionError(f"no contribution of kind {kind}")

    def _node_routes(self, name: str) -> Iterator[Flow]:
        """How every other node reaches this one, and who it is."""
        node = self._cluster.nodes.get(name)
        if node is None or node.is_transit:
            return
        networks = tuple(network for network in networks_of(node) if min(self._places.claims[network]) == name)
        mark = cookie(Scope.CLUSTER, Kind.NODE, object_id("Node", "", name))
        own = tuple(address for address in node.addresses if alone(address) in networks)
        yield from service.node_address_flows(own, mark)
        yield from self._senders(node, mark)
        yield from self._ways(node, networks, mark)
        near = self._interconnect.subnets_of(node)
        for address in own:
            yield host.node_flow(address, next((each for each in near if address in each), None), mark)

    def _ways(self, node: Node, networks: Sequence[Network], mark: int) -> Iterator[Flow]:
        """How every other node reaches these networks, which are on this one. The same on all of them.

        One hop by the host or a tunnel: nobody sends on what came by one. Wires are preferred to either.
        """
        mac, tunnel, by_host = self._fabric.mac(node.name), None, False
        for source in self._topology.ways_to(node.name):
            for hop in self._topology.next_hops(source, node.name):
                if hop.node != node.name:
                    continue
                if hop.kind is LinkKind.OVERLAY:
                    tunnel = tunnel or hop.endpoint
                elif hop.kind in (LinkKind.ROUTED, LinkKind.SUBNET) and mac is None:
                    by_host = by_host or hop.kind is LinkKind.ROUTED
                    yield from self._routed_flows(node, networks, hop, self._topology.cidr(source), mark)
        if not by_host:
            yield from route.elsewhere_flows(networks, route.node_program(tunnel, mac), mark)

    def _interconnect_flows(self) -> Iterator[Flow]:
        """What doesn't depend on which nodes there are."""
        mark = cookie(Scope.CLUSTER, Kind.PIPELINE, 0)
        yield host.network_flow(self._interconnect, mark)
        yield from (host.export_flow(each, mark) for each in self._exports)
        if self._interconnect.routes:
            yield from policy.routed_flows(mark)

    def _routed_flows(
        self, node: Node, networks: Sequence[Network], hop: NextHop, subnet: Network | None, mark: int
    ) -> Iterator[Flow]:
        """How a node is reached without a tunnel: by those on the same `subnet`, with that one's family, or by all."""
        mine = [each for each in networks if subnet is None or each.version == subnet.version]
        addresses = set(map(alone, node.addresses))
        pods = tuple(each for each in mine if each not in addresses)
        hosts = (each for each in mine if each in addresses)
        own = tuple(each for each in hosts if subnet is None or each.network_address in subnet)
        yield from route.routed_flows(pods, own, self._interconnect.number(subnet), mark)
        for network in pods:
            ends = (hop.endpoint, *node.addresses)
            via = next((each for each in ends if each is not None and each.version == network.version), None)
            if via is not None:
                yield host.route_flow(network, via, subnet, mark)

    def _workload_routes(self, namespace: str, name: str) -> Iterator[Flow]:
        """How every node, and its host, reaches a workload: its addresses are outside of what leads to its node."""
        workload = self._cluster.pods.get((namespace, name))
        if workload is None or not workload.port or self._places.misfit(workload):
            return
        mark = cookie(Scope.CLUSTER, Kind.POD, object_id("Pod", namespace, name))
        yield from self._ways(self._cluster.nodes[workload.node], tuple(map(alone, workload.addresses)), mark)
        for address in workload.addresses:
            yield host.workload_flow(address, mark)

    def _senders(self, node: Node, mark: int) -> Iterator[Flow]:
        """Who sends from a node's own addresses, where no tunnel's key tells it."""
        if not self._places.by_address or not node.pod_cidrs:
            return
        hosts = tuple(each for each in node.addresses if min(self._places.claims[alone(each)]) == node.name)
        if all(min(self._places.claims[cidr]) == node.name for cidr in node.pod_cidrs):
            # An address of no pod that is known is nobody's.
            yield from classify.stranger_flows(node.pod_cidrs, mark)
            hosts += gateway_addresses(node.pod_cidrs)
            yield from classify.identity_flows(translation_addresses(node.pod_cidrs), Identity.JUDGED, mark)
        yield from classify.host_flows(tuple(dict.fromkeys(hosts)), mark)

    def _identity_flows(self, namespace: str, name: str) -> Iterator[Flow]:
        """Whose a pod's addresses are, for nodes that its packets reach without a key."""
        pod = self._cluster.pods.get((namespace, name))
        addresses = self._places.addresses_of(pod) if pod is not None else ()
        if addresses:
            mark = cookie(Scope.CLUSTER, Kind.POD, object_id("Pod", namespace, name))
            identity = self._identities.of_pod(namespace, name)
            yield from classify.identity_flows(addresses, identity, mark)

    def _switch_flows(self, name: str) -> Iterator[Flow]:
        """A node's own gateway, tunnel and addresses."""
        node, ports = self._cluster.nodes.get(name), self._places.ports.get(name, {})
        if node is None or node.is_transit:
            return
        mark = cookie(Scope.NODE, Kind.NODE, object_id("Node", "", name))
        gateway, tunnel = ports.get(GATEWAY_PORT), ports.get(TUNNEL_PORT)
        zone = zone_of(node)
        if zone:
            yield service.locality_flow(zone_number(zone), mark)
        translations = translation_addresses(node.pod_cidrs) if node.pod_cidrs else ()
        yield from track.node_flows(translations, node.bridge_index, mark)
        if gateway is not None:
            own = tuple(dict.fromkeys(gateway_addresses(node.pod_cidrs) + node.addresses))
            yield from classify.gateway_flows(gateway.number, own, mark)
            yield from output.gateway_flows(gateway.number, mark)
            yield from route.host_flows(own, node.pod_cidrs, mark)
            if self._interconnect.routes:
                yield from classify.routed_flows(gateway.number, node.pod_cidrs, mark)
                yield from output.routed_flows(gateway.number, mark)
                yield from track.routed_flows(gateway.number, translations, node.bridge_index, mark)
        subnets = {each.version: self._interconnect.number(each) for each in self._interconnect.subnets_of(node)}
        for version in (4, 6):
            if version in subnets or node.bridge_index:
                yield track.own_flow(version, subnets.get(version, 0), node.bridge_index, mark)
        if tunnel is not None:
            yield from classify.tunnel_flows(tunnel.number, mark, keyed=self._keyed)
            yield from output.tunnel_flows(tunnel.number, mark)
            yield from fabric.tunnel_flows(tunnel.number, mark)

    def _port_flows(self, node: str, port_name: str) -> Iterator[Flow]:
        """A port on its own node: a pod's, or nobody's, which may have a wire."""
        port = self._places.ports.get(node, {}).get(port_name)
        if port is not None and self._places.is_open(node, port):
            yield classify.discovery_flow(port.number, cookie(Scope.NODE, Kind.NODE, object_id("Node", "", node)))
        else:
            yield from self._pod_flows(node, port_name)

    def _pod_flows(self, node: str, port_name: str) -> Iterator[Flow]:
        """A pod on its own node."""
        yield from self._awaited(node, port_name)
        found = self._places.find_pod(node, port_name)
        if isinstance(found, str):
            return
        pod, local = found
        mark = cookie(Scope.NODE, Kind.POD, object_id("Pod", pod.namespace, pod.name))
        yield from classify.pod_flows(local, mark)
        if pod.dhcp:
            yield from classify.dhcp_flows(local, mark)
        yield from route.pod_flows(local, mark)
        yield from track.pod_flows(local, mark)
        yield from self._host_port_flows(node, pod, local, mark)

    def _awaited(self, node: str, port_name: str) -> Iterator[Flow]:
        """Packets to workloads that are said to be on a port of this node, while they aren't: they go nowhere else."""
        for name in sorted(self._cluster.workloads_at.get((node, port_name), ())):
            workload = self._cluster.pods[name]
            if not self._places.misfit(workload):
                yield from route.nobody_flows(
                    map(alone, workload.addresses), cookie(Scope.NODE, Kind.POD, object_id("Pod", *name))
                )

    def _host_port_flows(self, node: str, pod: Pod, local: LocalPod, mark: int) -> Iterator[Flow]:
        """Ports of the node that lead to the pod.

        Those of all addresses enter by one that stands for the node, and are told apart by their number; those of one
        address are led to the pod by the host, since here that address would be lost.
        """
        if not any(port.host_port for port in pod.ports):
            return
        own = self._cluster.nodes[node].addresses
        for port in (each.port for each in self._places.host_ports(node) if each.pod == pod and not each.refusal):
            for address in local.addresses:
                target = (address, port.port)
                if port.host_ip is None:
                    entries = ENTRY_ADDRESSES + own
                else:
                    # From pods: they are served before any host.
                    entries = tuple(each for each in own if each == port.host_ip)
                    if port.host_ip.version == address.version:
                        yield host.address_port_flow(port.protocol, port.host_port, port.host_ip, target, mark)
                for entry in entries:
                    if entry.version == address.version:
                        yield service.host_port_flow(port.protocol, entry, port.host_port, target, mark)
            if port.host_ip is None:
                yield host.port_flow(port.protocol, port.host_port, mark)


def _pipeline_flows() -> Iterator[Flow]:
    mark = cookie(Scope.CLUSTER, Kind.PIPELINE, 0)
    for table in (classify, arp, track, service, route, policy, output):
        yield from table.pipeline_flows(mark)
