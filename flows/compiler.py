"""From cluster state to flows, one object at a time.

    objects ──put, remove──┐
                           ├─> affected contributions, before and after ──> Update for each scope
    ports of a switch ─────┘

Each object *contributes* flows to a scope, and a contribution is a pure function of the current state. A change names
the contributions that it can affect; these are made before and after it, and the difference is the update. Nothing
compiled is kept: `flows(scope)` makes all of a scope again, and must equal what the updates have added up to.

Two objects never make the same match: what two nodes claim (an address, a CIDR) goes to the one whose name comes
first, and two ports of one pod's MAC likewise; the other waits its turn and is reported by `refusals`. Nodes come
before workloads, and of two workloads the first by name has the address, or the port: `misfits` tells of the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TypeVar

import msgspec

from flows.cookies import Kind, Scope, cookie
from flows.fabric_parts import FabricChange, FabricParts
from flows.host_ports import HostPort, host_ports
from flows.policy_parts import PolicyParts
from flows.registers import Identity
from flows.service_parts import Part, ServiceParts, zone_number
from flows.state import LocalPod, Port
from flows.tables import arp, classify, fabric, host, output, policy, route, service, track
from flows.update import CLUSTER, Forgotten, Update
from flows.values import PORT_LOCAL, Flow, FlowKey, Group
from topology.endpoints import zone_of
from topology.graph import Interconnect, LinkKind, NextHop, Topology, Wire
from topology.model import Change, Cluster, EndpointSlice, Key, Node, Object, Pod, Service
from topology.naming import (
    ENTRY_ADDRESSES,
    GATEWAY_PORT,
    POD_MAC_PREFIX,
    TUNNEL_PORT,
    Address,
    NamingError,
    Network,
    format_mac,
    gateway_addresses,
    is_pod_port,
    mac_of,
    object_id,
    pod_addresses_of_mac,
    translation_addresses,
)
from topology.policies import Policy

Item = Flow | Group
Index = TypeVar("Index")
Entry = TypeVar("Entry")
#: Objects and endpoints that one step of many changes takes, about: their flows should fit one bundle.
STEP = 4_000


class Compiler:
    """The current state, and the updates that changes to it mean."""

    def __init__(
        self,
        service_cidrs: Iterable[Network] = (),
        *,
        keyed: bool = True,
        interconnect: Interconnect | None = None,
    ) -> None:
        """`keyed`: tunnels carry the sender's identity; where they don't, it is told by its address."""
        self.interconnect = interconnect or Interconnect()
        self.cluster = Cluster()
        self.policies = PolicyParts(self.cluster, keyed=keyed)
        self.services = ServiceParts(self.cluster, self.policies.identities, identified=self.interconnect.routes)
        self._keyed = keyed
        #: Whether packets come from other nodes on any way that has no key.
        self._by_address = not keyed or self.interconnect.routes
        self._service_cidrs = tuple(service_cidrs)
        self.topology = Topology(self.interconnect)
        self._ports: dict[str, dict[str, Port]] = {}
        self.fabric = FabricParts(self.cluster, self._ports)
        #: Node -> MAC -> the first by name of its pod ports that announce it: the one that is believed.
        self._first_with_mac: dict[str, dict[int, str]] = {}
        self._claims: dict[Network, set[str]] = {}
        #: (version, prefix length) -> how many claimed networks have it.
        self._lengths: Counter[tuple[int, int]] = Counter()
        #: Address -> the workloads that say it is theirs.
        self._workloads: dict[Address, set[tuple[str, str]]] = {}
        #: Node and address -> the pods there whose status says that they have it. Only where a way has no keys.
        self._said: dict[tuple[str, Address], set[tuple[str, str]]] = {}

    # What changes -----------------------------------------------------------------------------------------------

    def put(self, new: Object) -> list[Update]:
        """Make or replace an object."""
        change = Change(self.cluster.get(new.key), new)
        return [] if change.old == new else self._apply([change]) + self._settle_identities()

    def remove(self, key: Key) -> list[Update]:
        """Delete an object."""
        old = self.cluster.get(key)
        return [] if old is None else self._apply([Change(old, None)]) + self._settle_identities()

    def take(self, new: Iterable[Object], gone: Iterable[Key] = ()) -> Iterator[list[Update]]:
        """Many objects at once: made or replaced, and deleted. The updates come, as they are made, step by step.

        What several of them have a part in, as pods have in a Service, is made once for all of a step.
        """
        changes = [Change(self.cluster.get(key), None) for key in gone]
        changes += [Change(self.cluster.get(each.key), each) for each in new]
        changes = [change for change in changes if change.old != change.new]
        if len(changes) > 1:
            # Those of one Service together; of new Services and new pods the pods first, which then concern nobody.
            changes.sort(key=self._order)
            yield from self._expect(changes)
        for step in _steps(changes, _size):
            yield self._apply(step)
        settled = self._settle_identities()
        if settled:
            yield settled

    def _expect(self, changes: Sequence[Change]) -> Iterator[list[Update]]:
        """Have the identities of pods that come before policies that come with them."""
        asked_for = self.policies.asked_for_after(changes)
        pods = [change.new for change in changes if isinstance(change.new, Pod)]
        for step in _steps(pods, lambda pod: 1):
            updates = self._updates(set(), {}, judged=self.policies.expect(step, asked_for))
            if updates:
                yield updates

    def _order(self, change: Change) -> tuple[int, str, str]:
        version = change.old if change.new is None else change.new
        match version:
            case Policy():
                return (1, "", "")
            case Pod():
                return (2, *min(self.services.names(change), default=("", "")))
            case Service():
                return (3, version.namespace, version.name)
            case EndpointSlice():
                return (3, version.namespace, version.service)
        return (0, "", "")

    def set_ports(self, node: str, ports: Iterable[Port]) -> list[Update]:
        """The ports that a node's switch has now, all of them."""
        new = {port.name: port for port in ports}
        old = self._ports.get(node, {})
        names = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        if not names and node in self._ports:
            return []
        changed = names
        parts = {part for name in names for part in self._parts_of_port(node, name)}
        # Ports that share a MAC with one that changed may win or lose it.
        macs = {ports[name].mac for ports in (old, new) for name in names if name in ports}
        names = names | {name for ports in (old, new) for name, port in ports.items() if port.mac in macs}
        parts |= {(node, Kind.POD, name) for name in names}
        if node not in self._ports:
            parts |= self._identity_parts(node)
        else:
            parts |= {
                part for name in names for part in self._identity_part(self.cluster.pod_by_port.get((node, name)))
            }
        before = self._contributions(parts)
        self._ports[node] = new
        self._first_with_mac[node] = {new[name].mac: name for name in sorted(new, reverse=True) if is_pod_port(name)}
        return self._updates(parts, before) + self._follow(self.fabric.ports_changed(node, changed))

    def set_links(self, wires: Iterable[Wire]) -> list[Update]:
        """The wires between bridges that there are now, all of them. Those that can't be used wait (`unused_wires`)."""
        return self._follow(self.fabric.set_wires(wires))

    def _follow(self, change: FabricChange) -> list[Update]:
        """What a change of the fabric means: the nodes' own part is there, routes to nodes may be others too."""
        if not change:
            return []
        for (a, b), cost in change.links:
            if cost is None:
                self.topology.cut(a, b)
            else:
                self.topology.wire(a, b, cost)
        parts = {part for name in change.flipped for part in self._ways_parts(name)}
        before = self._contributions(parts)
        self.fabric.flip(change.flipped)
        return [*self._updates(parts, before), *change.updates]

    def _apply(self, changes: Sequence[Change]) -> list[Update]:
        names = {name for change in changes for name in self.services.names(change)}
        parts: set[Part] = set()
        for change in changes:
            parts |= self._affected(change)
            for pod in self._reidentified(change):
                names |= self.services.of_pod(pod)
                parts |= self._parts_of_pod(pod)
        parts |= self.services.parts(names, changes)
        before = self._contributions(parts)
        used = self.services.endpoints(names)
        forgotten: set[Forgotten] = set()
        for change in changes:
            self._carry_out(change)
            forgotten |= _of_gone_pod(change)
        judged = self.policies.take(changes)
        self.services.cluster_changed()
        # What a rival has now it may lose when numbers and ways in are given out anew; nothing else of it has changed.
        wanted = self.services.wanted(names)
        rivals = self.services.rivals(wanted)
        for part in self.services.parts(rivals):
            # Who announces an address is decided by all its Services, so the addresses above are all that may change.
            if part[1] is Kind.SERVICE:
                before.setdefault(part, list(self._contribution(part)))
        self.services.settle(wanted)
        parts |= before.keys() | self.services.parts(names) | self.services.announcements(before)
        forgotten |= used - self.services.endpoints(names)
        updates = self._updates(parts, before, tuple(sorted(forgotten, key=lambda each: each.order)), judged)
        return updates + self._follow(self.fabric.objects_changed(changes))

    def _carry_out(self, change: Change) -> None:
        if change.new is None:
            self.cluster.remove(change.key)
        else:
            self.cluster.put(change.new)
        match change.old, change.new:
            case Node() as old, None:
                self.topology.remove(old.name)
            case _, Node() as new:
                self.topology.put(new)
        self._claim(change)

    def _reidentified(self, change: Change) -> list[Pod]:
        """The pods whose identity this change may be about."""
        names = self.policies.reidentified(change)
        return [pod for name in names if (pod := self.cluster.pods.get(name)) is not None]

    def release(self, identities: Iterable[int]) -> list[Update]:
        """Identities that no pod has had for long are given up."""
        return self._updates(set(), {}, judged=self.policies.release(identities))

    def _settle_identities(self) -> list[Update]:
        """Give identities whose hashes meet the numbers that they are to have, whichever of them came first.

        This may concern any flow, and happens to one in thousands of identities: everything is made before and after.
        """
        identities = self.policies.identities
        moves = identities.unsettled()
        if not moves:
            return []
        pods = (self.cluster.pods[name] for profile in moves for name in identities.pods(identities.number_of(profile)))
        scopes = [CLUSTER, *sorted({pod.node for pod in pods if pod.node})]
        before = {scope: self._everything(scope) for scope in scopes}
        self.policies.renumber(moves)
        self.services.cluster_changed()
        updates = (_difference(scope, before[scope], self._everything(scope), ()) for scope in scopes)
        return [update for update in updates if update]

    def _everything(self, scope: str) -> dict[FlowKey | int, Item]:
        items: list[Item] = [*self.flows(scope), *self.groups(scope)]
        return {_name(item): item for item in items}

    def set_down(self, nodes: Iterable[str]) -> list[Update]:
        """The nodes whose switches have been out of reach for long: others announce Services' addresses instead."""
        down = frozenset(nodes)
        if down == self.services.down:
            return []
        exposed = self.services.exposed()
        parts = self.services.parts(exposed)
        before = self._contributions(parts)
        self.services.down = down
        return self._updates(parts | self.services.parts(exposed), before)

    def _claim(self, change: Change) -> None:
        for version in (change.old, change.new):
            if isinstance(version, Pod) and not version.host_network:
                name, there = (version.namespace, version.name), version is change.new
                for address in version.addresses:
                    if version.port:
                        _index(self._workloads, address, name, there=there)
                    elif self._by_address:
                        _index(self._said, (version.node, address), name, there=there)
            elif isinstance(version, Node):
                for network in _networks(version):
                    had = network in self._claims
                    _index(self._claims, network, version.name, there=version is change.new)
                    self._lengths[network.version, network.prefixlen] += (network in self._claims) - had

    # What a change can affect -----------------------------------------------------------------------------------

    def _affected(self, change: Change) -> set[Part]:
        parts: set[Part] = set()
        for version in (change.old, change.new):
            match version:
                case Node():
                    rivals = {rival for network in _networks(version) for rival in self._claims.get(network, ())}
                    parts |= {(CLUSTER, Kind.NODE, name) for name in rivals | {version.name}}
                    parts.add((version.name, Kind.NODE, version.name))
                    parts |= {(version.name, Kind.POD, name) for name in self._ports.get(version.name, ())}
                    parts |= {part for name in rivals | {version.name} for part in self._identity_parts(name)}
                    parts |= self._parts_of_workloads(version)
                case Pod():
                    parts |= self._parts_of_pod(version)
                    if any(port.host_port for port in version.ports):
                        parts |= {(version.node, Kind.POD, name) for name in self._ports.get(version.node, ())}
        return parts

    def _parts_of_pod(self, pod: Pod) -> set[Part]:
        if pod.port:
            rivals = {key for address in pod.addresses for key in self._workloads.get(address, ())}
            workloads = [pod, *(self.cluster.pods[key] for key in rivals)]
            return {part for each in workloads for part in self._parts_of_workload(each)}
        parts = self._identity_part(pod)
        ports = self._ports.get(pod.node, {})
        port = ports.get(pod.port_name)
        if port is not None:
            for name, other in ports.items():
                if other.mac == port.mac:
                    parts.add((pod.node, Kind.POD, name))
                    parts |= self._identity_part(self.cluster.pod_by_port.get((pod.node, name)))
        for key in self._rivals(pod):
            parts |= self._identity_part(self.cluster.pods[key])
        return parts

    def _parts_of_workload(self, workload: Pod) -> set[Part]:
        title = "/".join((workload.namespace, workload.name))
        there = {(workload.node, Kind.POD, workload.port)} if workload.node else set()
        return {(CLUSTER, Kind.POD, title)} | there | self._identity_part(workload)

    def _ways_parts(self, node: str) -> set[Part]:
        """What depends on how a node is reached."""
        workloads = {name for name in self.cluster.pods_on.get(node, ()) if self.cluster.pods[name].port}
        return {(CLUSTER, Kind.NODE, node), *((CLUSTER, Kind.POD, "/".join(name)) for name in workloads)}

    def _parts_of_workloads(self, node: Node) -> set[Part]:
        """Of the workloads on a node, and of those that lose an address to it, or get it back."""
        names = {name for name in self.cluster.pods_on.get(node.name, ()) if self.cluster.pods[name].port}
        for address, users in self._workloads.items():
            if address in node.addresses or any(address in cidr for cidr in node.pod_cidrs):
                names |= users
        return {part for name in names for part in self._parts_of_workload(self.cluster.pods[name])}

    def _rivals(self, pod: Pod) -> set[tuple[str, str]]:
        """The pods of its node that say, in their status, that they have an address that it says it has."""
        return {key for address in pod.addresses for key in self._said.get((pod.node, address), ())}

    def _identity_parts(self, node: str) -> set[Part]:
        """Who each pod of a node is, for nodes that its packets reach without a key."""
        if not self._by_address:
            return set()
        return {
            part for key in self.cluster.pods_on.get(node, ()) for part in self._identity_part(self.cluster.pods[key])
        }

    def _identity_part(self, pod: Pod | None) -> set[Part]:
        if not self._by_address or pod is None:
            return set()
        return {(CLUSTER, Kind.IDENTITY, "/".join((pod.namespace, pod.name)))}

    @staticmethod
    def _parts_of_port(node: str, port_name: str) -> list[Part]:
        if port_name in (GATEWAY_PORT, TUNNEL_PORT):
            return [(node, Kind.NODE, node)]
        return [(node, Kind.POD, port_name)]

    # What objects contribute ------------------------------------------------------------------------------------

    def flows(self, scope: str) -> Iterator[Flow]:
        """Every flow of a scope, made from the current state alone."""
        if scope == CLUSTER:
            yield from _pipeline_flows()
            yield from service.refusal_flows(self._service_cidrs, cookie(Scope.CLUSTER, Kind.PIPELINE, 0))
            for name in self.cluster.nodes:
                yield from self._node_routes(name)
            for each in sorted(set().union(*self._workloads.values())):
                yield from self._workload_routes(*each)
            yield from self.policies.flows()
            yield from self.policies.senders.flows()
            yield from self._interconnect_flows()
            if self._by_address:
                yield from classify.unkeyed_flows(cookie(Scope.CLUSTER, Kind.PIPELINE, 0))
                yield from policy.unkeyed_flows(cookie(Scope.CLUSTER, Kind.PIPELINE, 0))
                for pod in self.cluster.pods.values():
                    yield from self._identity_flows(pod.namespace, pod.name)
        else:
            yield from self._switch_flows(scope)
            yield from self.fabric.flows(scope)
            workloads = (self.cluster.pods[name].port for name in self.cluster.pods_on.get(scope, ()))
            for name in dict.fromkeys((*self._ports.get(scope, ()), *filter(None, workloads))):
                yield from self._port_flows(scope, name)
        for part in self.services.all_parts(scope):
            for item in self.services.contribution(part):
                if isinstance(item, Flow):
                    yield item

    def groups(self, scope: str) -> Iterator[Group]:
        """Every group of a scope."""
        if scope != CLUSTER:
            yield from self.fabric.groups(scope)
        for part in self.services.all_parts(scope):
            for item in self.services.contribution(part):
                if isinstance(item, Group):
                    yield item

    def _contributions(self, parts: set[Part]) -> dict[Part, list[Item]]:
        return {part: list(self._contribution(part)) for part in parts}

    def _contribution(self, part: Part) -> Iterator[Item]:
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
            case Kind.SERVICE | Kind.ADDRESS:
                return self.services.contribution(part)
        raise AssertionError(f"no contribution of kind {kind}")

    def _node_routes(self, name: str) -> Iterator[Flow]:
        """How every other node reaches this one, and who it is."""
        node = self.cluster.nodes.get(name)
        if node is None or node.is_transit:
            return
        networks = tuple(network for network in _networks(node) if min(self._claims[network]) == name)
        mark = cookie(Scope.CLUSTER, Kind.NODE, object_id("Node", "", name))
        own = tuple(address for address in node.addresses if _alone(address) in networks)
        yield from service.node_address_flows(own, mark)
        yield from self._senders(node, mark)
        yield from self._ways(node, networks, mark)
        near = self.interconnect.subnets_of(node)
        for address in own:
            yield host.node_flow(address, next((each for each in near if address in each), None), mark)

    def _ways(self, node: Node, networks: Sequence[Network], mark: int) -> Iterator[Flow]:
        """How every other node reaches these networks, which are on this one. The same on all of them.

        One hop by the host or a tunnel: nobody sends on what came by one. Wires are preferred to either.
        """
        mac, tunnel, by_host = self.fabric.mac(node.name), None, False
        for source in self.topology.ways_to(node.name):
            for hop in self.topology.next_hops(source, node.name):
                if hop.node != node.name:
                    continue
                if hop.kind is LinkKind.OVERLAY:
                    tunnel = tunnel or hop.endpoint
                elif hop.kind in (LinkKind.ROUTED, LinkKind.SUBNET) and mac is None:
                    by_host = by_host or hop.kind is LinkKind.ROUTED
                    yield from self._routed_flows(node, networks, hop, self.topology.cidr(source), mark)
        if not by_host:
            yield from route.elsewhere_flows(networks, route.node_program(tunnel, mac), mark)

    def _interconnect_flows(self) -> Iterator[Flow]:
        """What doesn't depend on which nodes there are."""
        mark = cookie(Scope.CLUSTER, Kind.PIPELINE, 0)
        yield host.network_flow(self.interconnect, mark)
        if self.interconnect.routes:
            yield from policy.routed_flows(mark)

    def _routed_flows(
        self, node: Node, networks: Sequence[Network], hop: NextHop, subnet: Network | None, mark: int
    ) -> Iterator[Flow]:
        """How a node is reached without a tunnel: by those on the same `subnet`, with that one's family, or by all."""
        mine = [each for each in networks if subnet is None or each.version == subnet.version]
        addresses = set(map(_alone, node.addresses))
        pods = tuple(each for each in mine if each not in addresses)
        hosts = (each for each in mine if each in addresses)
        own = tuple(each for each in hosts if subnet is None or each.network_address in subnet)
        yield from route.routed_flows(pods, own, self.interconnect.number(subnet), mark)
        for network in pods:
            ends = (hop.endpoint, *node.addresses)
            via = next((each for each in ends if each is not None and each.version == network.version), None)
            if via is not None:
                yield host.route_flow(network, via, subnet, mark)

    def _workload_routes(self, namespace: str, name: str) -> Iterator[Flow]:
        """How every node, and its host, reaches a workload: its addresses are outside of what leads to its node."""
        workload = self.cluster.pods.get((namespace, name))
        if workload is None or not workload.port or self._misfit(workload):
            return
        mark = cookie(Scope.CLUSTER, Kind.POD, object_id("Pod", namespace, name))
        yield from self._ways(self.cluster.nodes[workload.node], tuple(map(_alone, workload.addresses)), mark)
        for address in workload.addresses:
            yield host.workload_flow(address, mark)

    def _misfit(self, workload: Pod) -> str:
        """Why a workload gets no flows, whatever its node's ports; empty where it may get them."""
        if workload.node not in self.cluster.nodes:
            return f"there is no node {workload.node}"
        for address in workload.addresses:
            for version, length in self._lengths:
                claimants = self._claims.get(_around(address, length)) if version == address.version else None
                if claimants:
                    return f"its address {address} is node {min(claimants)}'s, or for its pods; give it another"
            first = min(self._workloads[address])
            if first != (workload.namespace, workload.name):
                return f"its address {address} is that of Workload {'/'.join(first)}; give it another"
        return ""

    def _senders(self, node: Node, mark: int) -> Iterator[Flow]:
        """Who sends from a node's own addresses, where no tunnel's key tells it."""
        if not self._by_address or not node.pod_cidrs:
            return
        hosts = tuple(each for each in node.addresses if min(self._claims[_alone(each)]) == node.name)
        if all(min(self._claims[cidr]) == node.name for cidr in node.pod_cidrs):
            # An address of no pod that is known is nobody's.
            yield from classify.stranger_flows(node.pod_cidrs, mark)
            hosts += gateway_addresses(node.pod_cidrs)
            yield from classify.identity_flows(translation_addresses(node.pod_cidrs), Identity.JUDGED, mark)
        yield from classify.host_flows(tuple(dict.fromkeys(hosts)), mark)

    def _identity_flows(self, namespace: str, name: str) -> Iterator[Flow]:
        """Whose a pod's addresses are, for nodes that its packets reach without a key."""
        pod = self.cluster.pods.get((namespace, name))
        addresses = self._addresses_of(pod) if pod is not None else ()
        if addresses:
            mark = cookie(Scope.CLUSTER, Kind.POD, object_id("Pod", namespace, name))
            identity = self.policies.identities.of_pod(namespace, name)
            yield from classify.identity_flows(addresses, identity, mark)

    def _addresses_of(self, pod: Pod) -> tuple[Address, ...]:
        """A pod's addresses as its port announces them; until its node's switch has been heard, as its status does.

        None where another node claims the node's CIDRs and has them: they lead there.
        So a controller that starts has the same flows for all switches before it has heard the last one of them.
        """
        if pod.port:
            return () if self._misfit(pod) else pod.addresses
        node = self.cluster.nodes.get(pod.node)
        if node is None or any(min(self._claims[cidr]) != node.name for cidr in node.pod_cidrs):
            return ()
        if pod.node in self._ports:
            found = self._find_pod(pod.node, pod.port_name)
            return () if isinstance(found, str) else found[1].addresses
        if pod.host_network or not pod.addresses:
            return ()
        inside = all(any(each in cidr for cidr in node.pod_cidrs) for each in pod.addresses)
        return pod.addresses if inside and min(self._rivals(pod)) == (pod.namespace, pod.name) else ()

    def _switch_flows(self, name: str) -> Iterator[Flow]:
        """A node's own gateway, tunnel and addresses."""
        node, ports = self.cluster.nodes.get(name), self._ports.get(name, {})
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
            if self.interconnect.routes:
                yield from classify.routed_flows(gateway.number, node.pod_cidrs, mark)
                yield from output.routed_flows(gateway.number, mark)
                yield from track.routed_flows(gateway.number, translations, node.bridge_index, mark)
        subnets = {each.version: self.interconnect.number(each) for each in self.interconnect.subnets_of(node)}
        for version in (4, 6):
            if version in subnets or node.bridge_index:
                yield track.own_flow(version, subnets.get(version, 0), node.bridge_index, mark)
        if tunnel is not None:
            yield from classify.tunnel_flows(tunnel.number, mark, keyed=self._keyed)
            yield from output.tunnel_flows(tunnel.number, mark)
            yield from fabric.tunnel_flows(tunnel.number, mark)

    def _port_flows(self, node: str, port_name: str) -> Iterator[Flow]:
        """A port on its own node: a pod's, or nobody's, which may have a wire."""
        port = self._ports.get(node, {}).get(port_name)
        if port is not None and self._is_open(node, port):
            yield classify.discovery_flow(port.number, cookie(Scope.NODE, Kind.NODE, object_id("Node", "", node)))
        else:
            yield from self._pod_flows(node, port_name)

    def _is_open(self, node: str, port: Port) -> bool:
        """Whether a port is nobody's, as far as is known."""
        return (
            node in self.cluster.nodes
            and port.number != PORT_LOCAL
            and port.name not in (GATEWAY_PORT, TUNNEL_PORT)
            and not is_pod_port(port.name)
            and (node, port.name) not in self.cluster.pod_by_port
        )

    def _pod_flows(self, node: str, port_name: str) -> Iterator[Flow]:
        """A pod on its own node."""
        yield from self._awaited(node, port_name)
        found = self._find_pod(node, port_name)
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
        for name in sorted(self.cluster.workloads_at.get((node, port_name), ())):
            workload = self.cluster.pods[name]
            if not self._misfit(workload):
                yield from route.nobody_flows(
                    map(_alone, workload.addresses), cookie(Scope.NODE, Kind.POD, object_id("Pod", *name))
                )

    def _host_port_flows(self, node: str, pod: Pod, local: LocalPod, mark: int) -> Iterator[Flow]:
        """Ports of the node that lead to the pod.

        Those of all addresses enter by one that stands for the node, and are told apart by their number; those of one
        address are led to the pod by the host, since here that address would be lost.
        """
        if not any(port.host_port for port in pod.ports):
            return
        own = self.cluster.nodes[node].addresses
        for port in (each.port for each in self._host_ports(node) if each.pod == pod and not each.refusal):
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

    def _host_ports(self, node: str) -> Iterator[HostPort]:
        there = self.cluster.pods_on.get(node, set()) & self.cluster.host_ported
        return host_ports(self.cluster.pods[key] for key in there)

    def _find_pod(self, node_name: str, port_name: str) -> tuple[Pod, LocalPod] | str:
        """The pod behind a port, or why there is none."""
        ports = self._ports.get(node_name, {})
        port = ports.get(port_name)
        pod = self.cluster.pod_by_port.get((node_name, port_name))
        if port is not None and pod is not None and pod.port:
            identity = self.policies.identities.of_pod(pod.namespace, pod.name)
            return self._misfit(pod) or (pod, LocalPod(port.number, pod.mac, pod.addresses, identity))
        if port is None or not is_pod_port(port_name):
            return "not a pod's port"
        node = self.cluster.nodes.get(node_name)
        if pod is None or node is None:
            return "no pod that is scheduled to this node has a port of this name"
        if node.is_transit:
            return "its node is a switch in transit, which has no pods"
        if self._first_with_mac[node_name][port.mac] != port_name:
            return f"another port announces the same address, {format_mac(port.mac)}"
        try:
            addresses = pod_addresses_of_mac(port.mac, node.pod_cidrs)
        except NamingError as error:
            return str(error)
        if pod.addresses and not set(pod.addresses) <= set(addresses):
            return f"the pod's addresses are {_join(pod.addresses)}, the port announces {_join(addresses)}"
        identity = self.policies.identities.of_pod(pod.namespace, pod.name)
        return pod, LocalPod(port.number, mac_of(POD_MAC_PREFIX, addresses[0]), addresses, identity)

    # What people ask --------------------------------------------------------------------------------------------

    def local_pods(self, node: str) -> Iterator[tuple[Pod, LocalPod]]:
        """The pods whose flows a node's switch has or is getting."""
        for name in self._ports.get(node, ()):
            found = self._find_pod(node, name)
            if not isinstance(found, str):
                yield found

    def pod_at(self, node: str, number: int) -> tuple[Pod, LocalPod] | None:
        """The pod behind the port of this number, if there is one."""
        name = next((port.name for port in self._ports.get(node, {}).values() if port.number == number), "")
        found = self._find_pod(node, name)
        return None if isinstance(found, str) else found

    def refusals(self, node: str) -> Iterator[tuple[Port, str]]:
        """Pod ports of a node that get no flows, and why."""
        for name, port in self._ports.get(node, {}).items():
            if is_pod_port(name):
                found = self._find_pod(node, name)
                if isinstance(found, str):
                    yield port, found

    def host_port_refusals(self) -> Iterator[tuple[Key, str]]:
        """Pods that don't have a host port that they want, and why."""
        for node in sorted({self.cluster.pods[key].node for key in self.cluster.host_ported} - {""}):
            for each in self._host_ports(node):
                if each.refusal:
                    yield each.pod.key, each.refusal

    def open_ports(self, node: str) -> Iterator[Port]:
        """A node's ports that are nobody's: they may have wires."""
        for port in self._ports.get(node, {}).values():
            if self._is_open(node, port):
                yield port

    def bridge_index(self, node: str) -> int:
        """A node's number among those whose bridges share its datapath."""
        found = self.cluster.nodes.get(node)
        return found.bridge_index if found is not None else 0

    @property
    def transit(self) -> Collection[str]:
        """The nodes whose switches have nothing of the cluster's scope."""
        return self.cluster.transit

    def unused_wires(self) -> Iterator[tuple[Wire, str]]:
        """Wires that carry nothing, and why."""
        return self.fabric.unused()

    def misfits(self) -> Iterator[tuple[Pod, str]]:
        """Workloads that get no flows for what they are said to be, and why."""
        for place, names in sorted(self.cluster.workloads_at.items()):
            for name in sorted(names):
                workload, first = self.cluster.pods[name], min(names)
                reason = self._misfit(workload)
                if not reason and name != first:
                    reason = f"its port {place[1]} is that of Workload {'/'.join(first)}; give it another"
                if reason:
                    yield workload, reason

    def ports(self, node: str) -> tuple[Port, ...]:
        """A node's ports as its switch last announced them."""
        return tuple(self._ports.get(node, {}).values())

    # The difference ---------------------------------------------------------------------------------------------

    def _updates(
        self,
        parts: set[Part],
        before: dict[Part, list[Item]],
        forgotten: tuple[Forgotten, ...] = (),
        judged: Iterable[tuple[Flow | None, Flow | None]] = (),
    ) -> list[Update]:
        after = self._contributions(parts)
        # The cluster's scope sorts first, and the order of sets must not show in what is sent.
        scopes: dict[str, list[Part]] = {CLUSTER: []}
        for part in sorted(parts):
            scopes.setdefault(part[0], []).append(part)
        updates = []
        for scope, mine in scopes.items():
            update = _difference(
                scope,
                {_name(item): item for part in mine for item in before.get(part, ())},
                {_name(item): item for part in mine for item in after[part]},
                forgotten if scope == CLUSTER else (),
            )
            if scope == CLUSTER:
                update = _with_judged(update, judged)
            if update:
                updates.append(update)
        return updates


def _difference(
    scope: str, old: dict[FlowKey | int, Item], new: dict[FlowKey | int, Item], forgotten: tuple[Forgotten, ...]
) -> Update:
    removed = [item for name, item in old.items() if new.get(name) != item]
    added = [item for name, item in new.items() if old.get(name) != item]
    return Update(
        scope,
        tuple(item for item in removed if isinstance(item, Flow)),
        tuple(item for item in added if isinstance(item, Flow)),
        tuple(item for item in removed if isinstance(item, Group)),
        tuple(item for item in added if isinstance(item, Group)),
        forgotten,
    )


def _with_judged(update: Update, judged: Iterable[tuple[Flow | None, Flow | None]]) -> Update:
    """With policies' flows, before and after: what several want together is nobody's part alone."""
    judged = list(judged)
    if not judged:
        return update
    removed = (*update.removed, *(old for old, _ in judged if old is not None))
    added = (*update.added, *(new for _, new in judged if new is not None))
    return msgspec.structs.replace(update, removed=removed, added=added)


def _steps(all_of: Iterable[Entry], size: Callable[[Entry], int]) -> Iterator[list[Entry]]:
    """Runs of about `STEP` in size."""
    step: list[Entry] = []
    total = 0
    for each in all_of:
        step.append(each)
        total += size(each)
        if total >= STEP:
            yield step
            step, total = [], 0
    if step:
        yield step


def _size(change: Change) -> int:
    """About how many flows a change is."""
    size = 1
    for version in (change.old, change.new):
        match version:
            case EndpointSlice():
                size += sum(len(subset.ports) * len(subset.endpoints) for subset in version.subsets)
            case Policy():
                rules = (*(version.ingress or ()), *(version.egress or ()))
                # Of each port as of each address there are two, one for each family.
                size += sum(2 * (len(rule.peers or ()) + len(rule.ports or ())) for rule in rules)
    return size


def _name(item: Item) -> FlowKey | int:
    return item.key if isinstance(item, Flow) else item.group_id


def _of_gone_pod(change: Change) -> set[Forgotten]:
    """Every connection to a pod that is gone: nobody will end them."""
    old, new = change.old, change.new
    if not isinstance(old, Pod) or old.host_network:
        return set()
    kept = new.addresses if isinstance(new, Pod) and not new.host_network else ()
    return {
        Forgotten(protocol, address)
        for address in old.addresses
        if address not in kept
        for protocol in ("TCP", "UDP", "SCTP")
    }


def _pipeline_flows() -> Iterator[Flow]:
    mark = cookie(Scope.CLUSTER, Kind.PIPELINE, 0)
    for table in (classify, arp, track, service, route, policy, output):
        yield from table.pipeline_flows(mark)


def _networks(node: Node) -> tuple[Network, ...]:
    """What is reached at a node: its pods and itself."""
    own = tuple(_alone(address) for address in node.addresses)
    return tuple(dict.fromkeys(node.pod_cidrs + own))


def _alone(address: Address) -> Network:
    """The network of one address. From numbers: `ip_network` of an address goes by way of its text, which is slow."""
    if address.version == 4:
        return IPv4Network((int(address), 32))
    return IPv6Network((int(address), 128))


def _around(address: Address, length: int) -> Network:
    """The network of this prefix length that an address is in."""
    if address.version == 4:
        return IPv4Network((int(address) >> 32 - length << 32 - length, length))
    return IPv6Network((int(address) >> 128 - length << 128 - length, length))


def _index(index: dict[Index, set[Entry]], key: Index, entry: Entry, *, there: bool) -> None:
    """Have an entry under a key, or not."""
    if there:
        index.setdefault(key, set()).add(entry)
        return
    index[key].discard(entry)
    if not index[key]:
        del index[key]


def _join(addresses: Iterable[object]) -> str:
    return ", ".join(str(address) for address in addresses)
