"""From cluster state to flows, one object at a time.

    objects ──put, remove──┐
                           ├─> affected contributions, before and after ──> Update for each scope
    ports of a switch ─────┘

Each object *contributes* flows to a scope, and a contribution is a pure function of the current state. A change names
the contributions that it can affect; these are made before and after it, and the difference is the update. Nothing
compiled is kept: `flows(scope)` makes all of a scope again, and must equal what the updates have added up to.

Two objects never make the same match: what two nodes claim (an address, a CIDR) goes to the one whose name comes
first, and two ports of one pod's MAC likewise; the other waits its turn and is reported by `refusals`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TypeVar

import msgspec

from flows.cookies import Kind, Scope, cookie
from flows.fabric_parts import FabricChange, FabricParts
from flows.policy_parts import PolicyParts
from flows.registers import Identity
from flows.service_parts import Part, ServiceParts, zone_number
from flows.state import LocalPod, Port
from flows.tables import arp, classify, fabric, host, output, policy, route, service, track
from flows.update import CLUSTER, Forgotten, Update
from flows.values import Flow, FlowKey, Group
from topology.endpoints import zone_of
from topology.graph import OVERLAY, Topology, Wire
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
Entry = TypeVar("Entry")
#: Objects and endpoints that one step of many changes takes, about: their flows should fit one bundle.
STEP = 4_000


class Compiler:
    """The current state, and the updates that changes to it mean."""

    def __init__(self, service_cidrs: Iterable[Network] = (), *, keyed: bool = True) -> None:
        """`keyed`: tunnels carry the sender's identity; where they don't, it is told by its address."""
        self.cluster = Cluster()
        self.policies = PolicyParts(self.cluster)
        self.services = ServiceParts(self.cluster, self.policies.identities)
        self._keyed = keyed
        self._service_cidrs = tuple(service_cidrs)
        self.topology = Topology()
        self._ports: dict[str, dict[str, Port]] = {}
        self.fabric = FabricParts(self.cluster, self._ports)
        #: Node -> MAC -> the first by name of its pod ports that announce it: the one that is believed.
        self._first_with_mac: dict[str, dict[int, str]] = {}
        self._claims: dict[Network, set[str]] = {}
        #: Node and address -> the pods there whose status says that they have it. Only where there are no keys.
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
        parts: set[Part] = {(CLUSTER, Kind.NODE, name) for name in change.flipped}
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
        if not self._keyed:
            for version in (change.old, change.new):
                if isinstance(version, Pod) and not version.host_network:
                    for address in version.addresses:
                        said = self._said.setdefault((version.node, address), set())
                        (said.add if version is change.new else said.discard)((version.namespace, version.name))
                        if not said:
                            del self._said[version.node, address]
        if isinstance(change.old, Node):
            for network in _networks(change.old):
                self._claims[network].discard(change.old.name)
                if not self._claims[network]:
                    del self._claims[network]
        if isinstance(change.new, Node):
            for network in _networks(change.new):
                self._claims.setdefault(network, set()).add(change.new.name)

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
                case Pod():
                    parts |= self._parts_of_pod(version)
                    if any(port.host_port for port in version.ports):
                        parts |= {(version.node, Kind.POD, name) for name in self._ports.get(version.node, ())}
        return parts

    def _parts_of_pod(self, pod: Pod) -> set[Part]:
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

    def _rivals(self, pod: Pod) -> set[tuple[str, str]]:
        """The pods of its node that say, in their status, that they have an address that it says it has."""
        return {key for address in pod.addresses for key in self._said.get((pod.node, address), ())}

    def _identity_parts(self, node: str) -> set[Part]:
        """Who each pod of a node is, for nodes that its packets reach without a key."""
        if self._keyed:
            return set()
        return {
            part for key in self.cluster.pods_on.get(node, ()) for part in self._identity_part(self.cluster.pods[key])
        }

    def _identity_part(self, pod: Pod | None) -> set[Part]:
        if self._keyed or pod is None:
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
            yield from self.policies.flows()
            if not self._keyed:
                yield from classify.unkeyed_flows(cookie(Scope.CLUSTER, Kind.PIPELINE, 0))
                yield from policy.unkeyed_flows(cookie(Scope.CLUSTER, Kind.PIPELINE, 0))
                for pod in self.cluster.pods.values():
                    yield from self._identity_flows(pod.namespace, pod.name)
        else:
            yield from self._switch_flows(scope)
            yield from self.fabric.flows(scope)
            for name in self._ports.get(scope, ()):
                yield from self._pod_flows(scope, name)
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
            case Kind.POD:
                return self._pod_flows(scope, name)
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
        yield from self._ways(name, networks, mark)

    def _ways(self, name: str, networks: Iterable[Network], mark: int) -> Iterator[Flow]:
        """How every other node reaches these networks, which are on the node of this name. The same on all of them."""
        # A member of the overlay is one hop away; nobody sends on what came by tunnel.
        hops = self.topology.next_hops(OVERLAY, name) if self.cluster.nodes[name].addresses else ()
        tunnels = [hop.endpoint for hop in hops if hop.node == name]
        program = route.node_program(next(iter(tunnels), None), self.fabric.mac(name))
        yield from route.elsewhere_flows(networks, program, mark)

    def _senders(self, node: Node, mark: int) -> Iterator[Flow]:
        """Who sends from a node's own addresses, where no tunnel's key tells it."""
        if self._keyed or not node.pod_cidrs:
            return
        hosts = tuple(each for each in node.addresses if min(self._claims[_alone(each)]) == node.name)
        if all(min(self._claims[cidr]) == node.name for cidr in node.pod_cidrs):
            # An address of no pod that is known is nobody's.
            yield from classify.stranger_flows(node.pod_cidrs, mark)
            hosts += gateway_addresses(node.pod_cidrs)
            yield from classify.identity_flows(translation_addresses(node.pod_cidrs), Identity.JUDGED, mark)
        yield from classify.identity_flows(tuple(dict.fromkeys(hosts)), Identity.OTHER_NODE, mark)

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
        yield from track.node_flows(translation_addresses(node.pod_cidrs) if node.pod_cidrs else (), mark)
        if gateway is not None:
            own = tuple(dict.fromkeys(gateway_addresses(node.pod_cidrs) + node.addresses))
            yield from classify.gateway_flows(gateway.number, own, mark)
            yield from output.gateway_flows(gateway.number, mark)
            yield from route.host_flows(own, node.pod_cidrs, mark)
        if tunnel is not None:
            yield from classify.tunnel_flows(tunnel.number, mark, keyed=self._keyed)
            yield from output.tunnel_flows(tunnel.number, mark)
            yield from fabric.tunnel_flows(tunnel.number, mark)

    def _pod_flows(self, node: str, port_name: str) -> Iterator[Flow]:
        """A pod on its own node."""
        found = self._find_pod(node, port_name)
        if isinstance(found, str):
            return
        pod, local = found
        mark = cookie(Scope.NODE, Kind.POD, object_id("Pod", pod.namespace, pod.name))
        yield from classify.pod_flows(local, mark)
        yield from route.pod_flows(local, mark)
        yield from track.pod_flows(local, mark)
        yield from self._host_port_flows(node, pod, local, mark)

    def _host_port_flows(self, node: str, pod: Pod, local: LocalPod, mark: int) -> Iterator[Flow]:
        """Ports of the node that lead to the pod, unless another pod of the node, first by name, has them."""
        own = self.cluster.nodes[node].addresses
        for port in pod.ports:
            if not port.host_port or self._host_port_owner(node, port.protocol, port.host_port) != pod:
                continue
            yield host.port_flow(port.protocol, port.host_port, port.host_ip, mark)
            entries = ENTRY_ADDRESSES + tuple(each for each in own if port.host_ip in (None, each))
            for address in local.addresses:
                for entry in entries:
                    if entry.version == address.version:
                        target = (address, port.port)
                        yield service.host_port_flow(port.protocol, entry, port.host_port, target, mark)

    def _host_port_owner(self, node: str, protocol: str, number: int) -> Pod | None:
        for key in sorted(self.cluster.pods_on.get(node, ())):
            pod = self.cluster.pods[key]
            if not pod.host_network and any(
                (each.protocol, each.host_port) == (protocol, number) for each in pod.ports
            ):
                return pod
        return None

    def _find_pod(self, node_name: str, port_name: str) -> tuple[Pod, LocalPod] | str:
        """The pod behind a port, or why there is none."""
        ports = self._ports.get(node_name, {})
        port = ports.get(port_name)
        if port is None or not is_pod_port(port_name):
            return "not a pod's port"
        pod = self.cluster.pod_by_port.get((node_name, port_name))
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

    def refusals(self, node: str) -> Iterator[tuple[Port, str]]:
        """Pod ports of a node that get no flows, and why."""
        for name, port in self._ports.get(node, {}).items():
            if is_pod_port(name):
                found = self._find_pod(node, name)
                if isinstance(found, str):
                    yield port, found

    @property
    def transit(self) -> Collection[str]:
        """The nodes whose switches have nothing of the cluster's scope."""
        return self.cluster.transit

    def unused_wires(self) -> Iterator[tuple[Wire, str]]:
        """Wires that carry nothing, and why."""
        return self.fabric.unused()

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


def _join(addresses: Iterable[object]) -> str:
    return ", ".join(str(address) for address in addresses)
