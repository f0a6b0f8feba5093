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

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network

from flows.cookies import Kind, Scope, cookie
from flows.state import LocalPod, Port
from flows.tables import arp, classify, output, route, track
from flows.update import CLUSTER, Update
from flows.values import Flow, FlowKey, Group
from topology.graph import OVERLAY, Topology
from topology.model import Change, Cluster, Key, Node, Object, Pod
from topology.naming import (
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
)

#: A contribution: the scope it is in, the kind of its maker, and the maker's name there (for a pod its port's name).
Part = tuple[str, Kind, str]


class Compiler:
    """The current state, and the updates that changes to it mean."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.topology = Topology()
        self._ports: dict[str, dict[str, Port]] = {}
        #: Node -> MAC -> the first by name of its pod ports that announce it: the one that is believed.
        self._first_with_mac: dict[str, dict[int, str]] = {}
        self._claims: dict[Network, set[str]] = {}

    # What changes -----------------------------------------------------------------------------------------------

    def put(self, new: Object) -> list[Update]:
        """Make or replace an object."""
        change = Change(self.cluster.get(new.key), new)
        return [] if change.old == new else self._apply(change)

    def remove(self, key: Key) -> list[Update]:
        """Delete an object."""
        old = self.cluster.get(key)
        return [] if old is None else self._apply(Change(old, None))

    def set_ports(self, node: str, ports: Iterable[Port]) -> list[Update]:
        """The ports that a node's switch has now, all of them."""
        new = {port.name: port for port in ports}
        old = self._ports.get(node, {})
        names = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        if not names:
            return []
        parts = {part for name in names for part in self._parts_of_port(node, name)}
        # Ports that share a MAC with one that changed may win or lose it.
        macs = {ports[name].mac for ports in (old, new) for name in names if name in ports}
        parts |= {(node, Kind.POD, name) for ports in (old, new) for name, port in ports.items() if port.mac in macs}
        before = self._contributions(parts)
        self._ports[node] = new
        self._first_with_mac[node] = {new[name].mac: name for name in sorted(new, reverse=True) if is_pod_port(name)}
        return self._updates(parts, before)

    def _apply(self, change: Change) -> list[Update]:
        parts = self._affected(change)
        before = self._contributions(parts)
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
        return self._updates(parts, before)

    def _claim(self, change: Change) -> None:
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
                case Pod():
                    parts |= self._parts_of_pod(version)
        return parts

    def _parts_of_pod(self, pod: Pod) -> set[Part]:
        ports = self._ports.get(pod.node, {})
        port = ports.get(pod.port_name)
        if port is None:
            return set()
        return {(pod.node, Kind.POD, name) for name, other in ports.items() if other.mac == port.mac}

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
            for name in self.cluster.nodes:
                yield from self._contribution((CLUSTER, Kind.NODE, name))
        else:
            yield from self._contribution((scope, Kind.NODE, scope))
            for name in self._ports.get(scope, ()):
                yield from self._contribution((scope, Kind.POD, name))

    def groups(self, scope: str) -> Iterator[Group]:
        """Every group of a scope. Nothing that is compiled now needs one."""
        return iter(())

    def _contributions(self, parts: set[Part]) -> dict[Part, list[Flow]]:
        return {part: list(self._contribution(part)) for part in parts}

    def _contribution(self, part: Part) -> Iterator[Flow]:
        scope, kind, name = part
        match kind:
            case Kind.NODE if scope == CLUSTER:
                return self._node_routes(name)
            case Kind.NODE:
                return self._switch_flows(name)
            case Kind.POD:
                return self._pod_flows(scope, name)
        raise AssertionError(f"no contribution of kind {kind}")

    def _node_routes(self, name: str) -> Iterator[Flow]:
        """How every node of the overlay reaches this one."""
        node = self.cluster.nodes.get(name)
        if node is None:
            return
        networks = tuple(network for network in _networks(node) if min(self._claims[network]) == name)
        for hop in self.topology.next_hops(OVERLAY, name):
            if hop.endpoint is not None:
                mark = cookie(Scope.CLUSTER, Kind.NODE, object_id("Node", "", name))
                yield from route.tunnel_flows(networks, hop.endpoint, mark)

    def _switch_flows(self, name: str) -> Iterator[Flow]:
        """A node's own gateway, tunnel and addresses."""
        node, ports = self.cluster.nodes.get(name), self._ports.get(name, {})
        if node is None:
            return
        mark = cookie(Scope.NODE, Kind.NODE, object_id("Node", "", name))
        gateway, tunnel = ports.get(GATEWAY_PORT), ports.get(TUNNEL_PORT)
        if gateway is not None:
            yield from classify.gateway_flows(gateway.number, mark)
            yield from output.gateway_flows(gateway.number, mark)
            own = tuple(dict.fromkeys(gateway_addresses(node.pod_cidrs) + node.addresses))
            yield from route.host_flows(own, node.pod_cidrs, mark)
        if tunnel is not None:
            yield from classify.tunnel_flows(tunnel.number, mark)
            yield from output.tunnel_flows(tunnel.number, mark)

    def _pod_flows(self, node: str, port_name: str) -> Iterator[Flow]:
        """A pod on its own node."""
        found = self._find_pod(node, port_name)
        if isinstance(found, str):
            return
        pod, local = found
        mark = cookie(Scope.NODE, Kind.POD, object_id("Pod", pod.namespace, pod.name))
        yield from classify.pod_flows(local, mark)
        yield from route.pod_flows(local, mark)

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
        if self._first_with_mac[node_name][port.mac] != port_name:
            return f"another port announces the same address, {format_mac(port.mac)}"
        try:
            addresses = pod_addresses_of_mac(port.mac, node.pod_cidrs)
        except NamingError as error:
            return str(error)
        if pod.addresses and not set(pod.addresses) <= set(addresses):
            return f"the pod's addresses are {_join(pod.addresses)}, the port announces {_join(addresses)}"
        return pod, LocalPod(port.number, mac_of(POD_MAC_PREFIX, addresses[0]), addresses)

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

    def ports(self, node: str) -> tuple[Port, ...]:
        """A node's ports as its switch last announced them."""
        return tuple(self._ports.get(node, {}).values())

    # The difference ---------------------------------------------------------------------------------------------

    def _updates(self, parts: set[Part], before: dict[Part, list[Flow]]) -> list[Update]:
        after = self._contributions(parts)
        updates = []
        # The cluster's scope sorts first, and the order of sets must not show in what is sent.
        for scope in sorted({part[0] for part in parts}):
            mine = sorted(part for part in parts if part[0] == scope)
            old = {flow.key: flow for part in mine for flow in before[part]}
            new = {flow.key: flow for part in mine for flow in after[part]}
            removed, added = _difference(old, new)
            if removed or added:
                updates.append(Update(scope, removed, added))
        return updates


def _difference(old: dict[FlowKey, Flow], new: dict[FlowKey, Flow]) -> tuple[tuple[Flow, ...], tuple[Flow, ...]]:
    removed = tuple(flow for key, flow in old.items() if new.get(key) != flow)
    added = tuple(flow for key, flow in new.items() if old.get(key) != flow)
    return removed, added


def _pipeline_flows() -> Iterator[Flow]:
    mark = cookie(Scope.CLUSTER, Kind.PIPELINE, 0)
    for table in (classify, arp, track, route, output):
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
