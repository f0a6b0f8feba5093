"""Who is where: which pod is behind a port, whose an address is, and why some get nothing.

Ports say where pods are, objects who they are; each is believed only as far as the other agrees. What two nodes claim
(an address, a CIDR) is the one's whose name comes first, and of two ports that announce one address likewise. Nodes
come before workloads, and of two workloads the first by name has the address, or the port.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import TypeVar

from flows.host_ports import HostPort, host_ports
from flows.state import LocalPod, Port
from flows.values import PORT_LOCAL
from topology.identities import Identities
from topology.model import Change, Cluster, Key, Node, Pod
from topology.naming import (
    GATEWAY_PORT,
    PLACE_PORTS,
    POD_MAC_PREFIX,
    TUNNEL_PORT,
    Address,
    NamingError,
    Network,
    announces_by_mac,
    is_pod_port,
    mac_of,
    pod_addresses_of_port,
)

Index = TypeVar("Index")
Entry = TypeVar("Entry")


class Places:
    """Ports and addresses, and what is believed of them. `by_address`: some way from other nodes has no keys."""

    def __init__(self, cluster: Cluster, identities: Identities, *, by_address: bool) -> None:
        self.cluster = cluster
        self.by_address = by_address
        self._identities = identities
        #: Node -> the ports of its switch by name.
        self.ports: dict[str, dict[str, Port]] = {}
        #: Node -> its pod CIDRs, and by what is announced the first by name of its pod ports: the one that is believed.
        self._first: dict[str, tuple[tuple[Network, ...], dict[int, str]]] = {}
        #: Network -> the nodes that say it is theirs.
        self.claims: dict[Network, set[str]] = {}
        #: (version, prefix length) -> how many claimed networks have it.
        self._lengths: Counter[tuple[int, int]] = Counter()
        #: Address -> the workloads that say it is theirs.
        self.workloads: dict[Address, set[tuple[str, str]]] = {}
        #: Node and address -> the pods there whose status says that they have it. Only where a way has no keys.
        self._said: dict[tuple[str, Address], set[tuple[str, str]]] = {}

    def set_ports(self, node: str, ports: dict[str, Port]) -> None:
        """The ports that a node's switch has now, all of them, by name."""
        self.ports[node] = ports
        self._first.pop(node, None)

    def announced(self, node_name: str, port: Port) -> int:
        """What a pod's port says of an address, in either of the two ways: the same is said by one port at most."""
        if announces_by_mac(port.mac) or port.number not in PLACE_PORTS:
            return port.mac & 0xFFFF_FFFF
        node = self.cluster.nodes.get(node_name)
        base = int(node.pod_cidrs[0].network_address) if node is not None and node.pod_cidrs else 0
        return (base + port.number - PLACE_PORTS.start) & 0xFFFF_FFFF

    def _is_first(self, node: Node, port: Port) -> bool:
        cidrs, first = self._first.get(node.name, ((), {}))
        if cidrs != node.pod_cidrs or not first:
            ports = self.ports.get(node.name, {})
            names = (name for name in sorted(ports, reverse=True) if is_pod_port(name))
            first = {self.announced(node.name, ports[name]): name for name in names}
            self._first[node.name] = (node.pod_cidrs, first)
        return first[self.announced(node.name, port)] == port.name

    def claim(self, change: Change) -> None:
        """Take in what an object says of addresses, or doesn't any more."""
        for version in (change.old, change.new):
            if isinstance(version, Pod) and not version.host_network:
                name, there = (version.namespace, version.name), version is change.new
                for address in version.addresses:
                    if version.port:
                        _index(self.workloads, address, name, there=there)
                    elif self.by_address:
                        _index(self._said, (version.node, address), name, there=there)
            elif isinstance(version, Node):
                for network in networks_of(version):
                    had = network in self.claims
                    _index(self.claims, network, version.name, there=version is change.new)
                    self._lengths[network.version, network.prefixlen] += (network in self.claims) - had

    def misfit(self, workload: Pod) -> str:
        """Why a workload gets no flows, whatever its node's ports; empty where it may get them."""
        if workload.node not in self.cluster.nodes:
            return f"there is no node {workload.node}"
        for address in workload.addresses:
            for version, length in self._lengths:
                claimants = self.claims.get(_around(address, length)) if version == address.version else None
                if claimants:
                    return f"its address {address} is node {min(claimants)}'s, or for its pods; give it another"
            first = min(self.workloads[address])
            if first != (workload.namespace, workload.name):
                return f"its address {address} is that of Workload {'/'.join(first)}; give it another"
        return ""

    def rivals(self, pod: Pod) -> set[tuple[str, str]]:
        """The pods of its node that say, in their status, that they have an address that it says it has."""
        return {key for address in pod.addresses for key in self._said.get((pod.node, address), ())}

    def addresses_of(self, pod: Pod) -> tuple[Address, ...]:
        """A pod's addresses as its port announces them; until its node's switch has been heard, as its status does.

        None where another node claims the node's CIDRs and has them: they lead there.
        So a controller that starts has the same flows for all switches before it has heard the last one of them.
        """
        if pod.port:
            return () if self.misfit(pod) else pod.addresses
        node = self.cluster.nodes.get(pod.node)
        if node is None or any(min(self.claims[cidr]) != node.name for cidr in node.pod_cidrs):
            return ()
        if pod.node in self.ports:
            found = self.find_pod(pod.node, pod.port_name)
            return () if isinstance(found, str) else found[1].addresses
        if pod.host_network or not pod.addresses:
            return ()
        inside = all(any(each in cidr for cidr in node.pod_cidrs) for each in pod.addresses)
        return pod.addresses if inside and min(self.rivals(pod)) == (pod.namespace, pod.name) else ()

    def find_pod(self, node_name: str, port_name: str) -> tuple[Pod, LocalPod] | str:
        """The pod behind a port, or why there is none."""
        ports = self.ports.get(node_name, {})
        port = ports.get(port_name)
        pod = self.cluster.pod_by_port.get((node_name, port_name))
        if port is not None and pod is not None and pod.port:
            identity = self._identities.of_pod(pod.namespace, pod.name)
            return self.misfit(pod) or (pod, LocalPod(port.number, pod.mac, pod.addresses, identity))
        if port is None or not is_pod_port(port_name):
            return "not a pod's port"
        node = self.cluster.nodes.get(node_name)
        if pod is None or node is None:
            return "no pod that is scheduled to this node has a port of this name"
        if node.is_transit:
            return "its node is a switch in transit, which has no pods"
        try:
            addresses = pod_addresses_of_port(port.number, port.mac, node.pod_cidrs)
        except NamingError as error:
            return str(error)
        if not self._is_first(node, port):
            return f"another port announces the same address, {addresses[0]}"
        if pod.addresses and not set(pod.addresses) <= set(addresses):
            return f"the pod's addresses are {_join(pod.addresses)}, the port announces {_join(addresses)}"
        identity = self._identities.of_pod(pod.namespace, pod.name)
        return pod, LocalPod(port.number, mac_of(POD_MAC_PREFIX, addresses[0]), addresses, identity)

    def is_open(self, node: str, port: Port) -> bool:
        """Whether a port is nobody's, as far as is known."""
        return (
            node in self.cluster.nodes
            and port.number != PORT_LOCAL
            and port.name not in (GATEWAY_PORT, TUNNEL_PORT)
            and not is_pod_port(port.name)
            and (node, port.name) not in self.cluster.pod_by_port
        )

    def host_ports(self, node: str) -> Iterator[HostPort]:
        there = self.cluster.pods_on.get(node, set()) & self.cluster.host_ported
        return host_ports(self.cluster.pods[key] for key in there)

    def local_pods(self, node: str) -> Iterator[tuple[Pod, LocalPod]]:
        """The pods whose flows a node's switch has or is getting."""
        for name in self.ports.get(node, ()):
            found = self.find_pod(node, name)
            if not isinstance(found, str):
                yield found

    def pod_at(self, node: str, number: int) -> tuple[Pod, LocalPod] | None:
        """The pod behind the port of this number, if there is one."""
        name = next((port.name for port in self.ports.get(node, {}).values() if port.number == number), "")
        found = self.find_pod(node, name)
        return None if isinstance(found, str) else found

    def refusals(self, node: str) -> Iterator[tuple[Port, str]]:
        """Pod ports of a node that get no flows, and why."""
        for name, port in self.ports.get(node, {}).items():
            if is_pod_port(name):
                found = self.find_pod(node, name)
                if isinstance(found, str):
                    yield port, found

    def host_port_refusals(self) -> Iterator[tuple[Key, str]]:
        """Pods that don't have a host port that they want, and why."""
        for node in sorted({self.cluster.pods[key].node for key in self.cluster.host_ported} - {""}):
            for each in self.host_ports(node):
                if each.refusal:
                    yield each.pod.key, each.refusal

    def open_ports(self, node: str) -> Iterator[Port]:
        """A node's ports that are nobody's: they may have wires."""
        for port in self.ports.get(node, {}).values():
            if self.is_open(node, port):
                yield port

    def misfits(self) -> Iterator[tuple[Pod, str]]:
        """Workloads that get no flows for what they are said to be, and why."""
        for place, names in sorted(self.cluster.workloads_at.items()):
            for name in sorted(names):
                workload, first = self.cluster.pods[name], min(names)
                reason = self.misfit(workload)
                if not reason and name != first:
                    reason = f"its port {place[1]} is that of Workload {'/'.join(first)}; give it another"
                if reason:
                    yield workload, reason


def networks_of(node: Node) -> tuple[Network, ...]:
    """What is reached at a node: its pods and itself."""
    own = tuple(alone(address) for address in node.addresses)
    return tuple(dict.fromkeys(node.pod_cidrs + own))


def alone(address: Address) -> Network:
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
