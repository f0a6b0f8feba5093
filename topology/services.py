"""Services as they are asked for, and what they are given: cluster addresses, node ports, load balancers' addresses.

With Kubernetes' API server it is the server that gives; where there is none, it is done here. Pure, and a function of
what is asked for alone: every process that reads the same manifests comes to the same addresses, after a restart too.
What a Service asks for by number goes before what it leaves open; there the first by name goes first, at a place that
is a hash of its name, so that Services that come and go move nobody else, but for the rare two whose places meet.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network

import msgspec

from topology.model import Key, Labels, Node, Service, ServicePort
from topology.naming import Address, Network

#: The loadBalancerClass that stands for us; Services without a class are ours too.
LOAD_BALANCER_CLASS = "signalbox.io/load-balancer"


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A Service as its manifest asks for it; what it leaves open is empty or 0."""

    namespace: str
    name: str
    type: str = "ClusterIP"
    headless: bool = False
    cluster_ips: tuple[Address, ...] = ()
    families: tuple[int, ...] = ()
    family_policy: str = ""
    ports: tuple[ServicePort, ...] = ()
    selector: Labels | None = None
    external_ips: tuple[Address, ...] = ()
    load_balancer_ip: Address | None = None
    load_balancer_class: str = ""
    load_balancer_status: tuple[Address, ...] = ()
    source_ranges: tuple[Network, ...] = ()
    allocate_node_ports: bool = True
    external_local: bool = False
    internal_local: bool = False
    health_check_node_port: int = 0
    affinity_seconds: int = 0
    publish_not_ready: bool = False
    distribution: str = ""

    @property
    def key(self) -> Key:
        return ("Service", self.namespace, self.name)


class ServiceRanges(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to give: one CIDR of each family for cluster addresses, the primary family's first."""

    cluster: tuple[Network, ...] = (ip_network("10.96.0.0/16"), ip_network("fd00:10:96::/112"))
    load_balancer: tuple[Network, ...] = ()
    node_ports: tuple[int, int] = (30000, 32767)

    @classmethod
    def parse(cls, cluster: Iterable[str], load_balancer: Iterable[str], node_ports: str) -> ServiceRanges:
        """From a command line's words. Raises RangeError."""
        cidrs = _networks("--service-cidr", cluster)
        if len({each.version for each in cidrs}) != len(cidrs):
            raise RangeError(f"--service-cidr: give one for each family, not {_words(cidrs)}")
        low, _, high = node_ports.partition("-")
        if not (low.isdecimal() and high.isdecimal() and 1 <= int(low) <= int(high) <= 65535):
            raise RangeError(f"--service-node-port-range {node_ports}: give two ports, the lower first: 30000-32767")
        pools = _networks("--load-balancer-pool", load_balancer)
        return cls(cluster=cidrs, load_balancer=pools, node_ports=(int(low), int(high)))


def _networks(option: str, texts: Iterable[str]) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as error:
        raise RangeError(f"{option}: {error}") from error


class RangeError(ValueError):
    """Ranges that can't be; the text names the option."""


class AllocationError(ValueError):
    """A Service can't have what it asks for; the text names the field and says what to do."""


class _Taken:
    """What has been given, and to whom; and what nodes have, for themselves and their pods."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.addresses: dict[Address, tuple[str, set[tuple[str, int]]]] = {}
        self.node_ports: dict[tuple[str, int], str] = {}
        #: By family: (last, first, whose), sorted; no two nodes in force overlap.
        self._of_nodes: dict[int, list[tuple[int, int, str]]] = {4: [], 6: []}
        for node in nodes:
            for each in node.pod_cidrs:
                last, first = int(each.broadcast_address), int(each.network_address)
                self._of_nodes[each.version].append((last, first, node.name))
            for address in node.addresses:
                self._of_nodes[address.version].append((int(address), int(address), node.name))
        for found in self._of_nodes.values():
            found.sort()
        self.nodes = sum(map(len, self._of_nodes.values()))

    def node_of(self, address: Address) -> str:
        """The node that has an address, or pods at such addresses; empty where none has."""
        found, value = self._of_nodes[address.version], int(address)
        at = bisect_left(found, (value, 0, ""))
        return found[at][2] if at < len(found) and found[at][1] <= value else ""


def allocate(
    specs: Mapping[Key, ServiceSpec], ranges: ServiceRanges, nodes: Iterable[Node] = ()
) -> tuple[dict[Key, Service], list[tuple[Key, str]]]:
    """Every Service with what it is given, and what some don't get, with the reason.

    Who can't have all else gets nothing; without a load balancer's address the rest of a Service is of use.
    """
    taken = _Taken(nodes)
    found: dict[Key, Service] = {}
    problems: list[tuple[Key, str]] = []
    asked: list[Key] = []
    # What is asked for by number first, of all of them; then what is left open.
    for key in sorted(specs):
        try:
            _reserve(specs[key], ranges, taken)
            asked.append(key)
        except AllocationError as error:
            problems.append((key, str(error)))
    for key in asked:
        try:
            found[key] = _give(specs[key], ranges, taken)
            found[key] = _balance(found[key], specs[key], ranges, taken)
        except AllocationError as error:
            problems.append((key, str(error)))
    return found, problems


def _title(spec: ServiceSpec) -> str:
    return f"Service {spec.namespace}/{spec.name}"


def _reserve(spec: ServiceSpec, ranges: ServiceRanges, taken: _Taken) -> None:
    mine, ports = _title(spec), {(port.protocol, port.port) for port in spec.ports}
    for address in spec.cluster_ips:
        if not any(address in cidr for cidr in ranges.cluster):
            raise AllocationError(
                f"spec.clusterIP {address} is not in the range of Services, {_words(ranges.cluster)}; "
                "choose another, or leave it out"
            )
        _check_free(address, "spec.clusterIP", taken)
    for address in spec.external_ips:
        if any(address in cidr for cidr in ranges.cluster):
            raise AllocationError(f"spec.externalIPs: {address} is in the range of cluster addresses; choose another")
        _check_of_no_node(address, "spec.externalIPs:", taken)
        _check_shared(address, "spec.externalIPs", ports, taken)
    balanced = _asked_of_load_balancer(spec)
    for address in balanced:
        if spec.load_balancer_ip is not None and not any(address in pool for pool in ranges.load_balancer):
            raise AllocationError(
                f"spec.loadBalancerIP {address} is in no pool ({_words(ranges.load_balancer)}); choose another"
            )
        _check_of_no_node(address, "spec.loadBalancerIP", taken)
        _check_shared(address, "spec.loadBalancerIP", ports, taken)
    numbers = [("nodePort", port.protocol, port.node_port) for port in spec.ports if port.node_port]
    if spec.health_check_node_port and _checks_health(spec):
        numbers.append(("healthCheckNodePort", "TCP", spec.health_check_node_port))
    low, high = ranges.node_ports
    given: set[tuple[str, int]] = set()
    for field, protocol, number in numbers:
        if not low <= number <= high:
            raise AllocationError(f"spec: {field} {number} is not in the range of node ports, {low}-{high}")
        owner = taken.node_ports.get((protocol, number))
        if owner is not None:
            raise AllocationError(f"spec: {field} {number} is {owner}'s already; choose another, or leave it out")
        if (protocol, number) in given:
            raise AllocationError(f"spec: {field} {number} is given twice; choose another for one of them")
        given.add((protocol, number))
    for address in spec.cluster_ips:
        taken.addresses[address] = (mine, set())
    for address in (*spec.external_ips, *balanced):
        taken.addresses.setdefault(address, (mine, set()))[1].update(ports)
    for _, protocol, number in numbers:
        taken.node_ports[protocol, number] = mine


def _check_free(address: Address, field: str, taken: _Taken) -> None:
    if address in taken.addresses:
        raise AllocationError(f"{field} {address} is {taken.addresses[address][0]}'s already; choose another")


def _check_of_no_node(address: Address, field: str, taken: _Taken) -> None:
    """What every host hands to its bridge must not be what nodes and pods are reached by."""
    node = taken.node_of(address)
    if node:
        raise AllocationError(f"{field} {address} is of node {node} or of its pods; choose another")


def _check_shared(address: Address, field: str, ports: set[tuple[str, int]], taken: _Taken) -> None:
    """Services may share an address that is outside of the cluster's range, if no port is wanted twice."""
    owner, used = taken.addresses.get(address, ("", set()))
    both = sorted(used & ports)
    if both:
        protocol, number = both[0]
        raise AllocationError(f"{field}: {address} port {number}/{protocol} is {owner}'s already; choose another")


def _asked_of_load_balancer(spec: ServiceSpec) -> tuple[Address, ...]:
    if spec.type != "LoadBalancer":
        return ()
    if spec.load_balancer_ip is not None:
        return (spec.load_balancer_ip,)
    return spec.load_balancer_status


def _checks_health(spec: ServiceSpec) -> bool:
    return spec.type == "LoadBalancer" and spec.external_local


def _give(spec: ServiceSpec, ranges: ServiceRanges, taken: _Taken) -> Service:
    mine = _title(spec)
    programmed = not spec.headless and spec.type != "ExternalName"
    cluster_ips = _cluster_ips(spec, ranges, taken) if programmed else ()
    exposed = programmed and spec.type in ("NodePort", "LoadBalancer")
    ports = spec.ports
    if exposed and (spec.type == "NodePort" or spec.allocate_node_ports):
        ports = tuple(
            port
            if port.node_port
            else msgspec.structs.replace(
                port, node_port=_node_port(f"{mine}/{port.title}", port.protocol, ranges, taken)
            )
            for port in ports
        )
    health = 0
    if _checks_health(spec):
        health = spec.health_check_node_port or _node_port(f"{mine}/health", "TCP", ranges, taken)
    return Service(
        namespace=spec.namespace,
        name=spec.name,
        type=spec.type,
        ports=ports,
        selector=spec.selector,
        cluster_ips=cluster_ips,
        external_ips=spec.external_ips,
        load_balancer_ips=_asked_of_load_balancer(spec),
        source_ranges=spec.source_ranges if spec.type == "LoadBalancer" else (),
        # Policies of a kind of traffic that the Service doesn't get mean nothing.
        external_local=spec.external_local and (exposed or bool(spec.external_ips)),
        internal_local=spec.internal_local,
        health_check_node_port=health,
        affinity_seconds=spec.affinity_seconds,
        publish_not_ready=spec.publish_not_ready,
        distribution=spec.distribution,
    )


def _balance(service: Service, spec: ServiceSpec, ranges: ServiceRanges, taken: _Taken) -> Service:
    """The Service with load balancers' addresses, one of each of its families that there is a pool for."""
    ours = spec.load_balancer_class in ("", LOAD_BALANCER_CLASS)
    if spec.type != "LoadBalancer" or service.load_balancer_ips or not ours:
        return service
    mine = f"{_title(spec)}/load-balancer"
    pools = {
        each.version: [pool for pool in ranges.load_balancer if pool.version == each.version]
        for each in service.cluster_ips
    }
    addresses = tuple(_address(mine, found, taken) for found in pools.values() if found)
    return msgspec.structs.replace(service, load_balancer_ips=addresses)


def _cluster_ips(spec: ServiceSpec, ranges: ServiceRanges, taken: _Taken) -> tuple[Address, ...]:
    """One address of each family that the Service is to have, the first family's first."""
    there: list[int] = [cidr.version for cidr in ranges.cluster]
    given: dict[int, Address] = {address.version: address for address in spec.cluster_ips}
    wanted: list[int] = list(dict.fromkeys((*given, *spec.families)))
    for version in wanted:
        if version not in there:
            raise AllocationError(f"spec.ipFamilies: the cluster has no IPv{version} range of Services; leave it out")
    wanted = wanted or there[:1]
    if spec.family_policy in ("PreferDualStack", "RequireDualStack"):
        wanted += [version for version in there if version not in wanted]
        if len(wanted) < 2 and spec.family_policy == "RequireDualStack":
            raise AllocationError(
                "spec.ipFamilyPolicy: the cluster has one family only; PreferDualStack takes what is there"
            )
    elif not given and spec.family_policy == "SingleStack":
        wanted = wanted[:1]
    return tuple(
        given.get(version)
        or _address(_title(spec), [cidr for cidr in ranges.cluster if cidr.version == version], taken)
        for version in wanted
    )


def _address(title: str, pools: Iterable[Network], taken: _Taken) -> Address:
    """A free address: in the first pool that has one, from the place of the title's hash on."""
    pools = list(pools)
    for pool in pools:
        # That many can't all be taken: a pool that has all of a node's pods in it is given up before.
        for address in hash_place(title, pool, len(taken.addresses) + taken.nodes + 1):
            if address not in taken.addresses and not taken.node_of(address):
                taken.addresses[address] = (title.partition("/load-balancer")[0], set())
                return address
    raise AllocationError(f"no address is free in {_words(pools)}; make the range larger")


def hash_place(title: str, pool: Network, limit: int) -> Iterator[Address]:
    """A pool's addresses, at most `limit` of them, from the place of a title's hash on, and round."""
    # Neither the network's own address nor, in IPv4, the one for all.
    first, last = int(pool.network_address), int(pool.broadcast_address)
    if pool.num_addresses > 2:
        first, last = first + 1, last - (pool.version == 4)
    size = last - first + 1
    start = _hash(title) % size
    for step in range(min(size, limit)):
        yield pool[first + (start + step) % size - int(pool.network_address)]


def _node_port(title: str, protocol: str, ranges: ServiceRanges, taken: _Taken) -> int:
    low, high = ranges.node_ports
    size = high - low + 1
    start = _hash(f"{title}/{protocol}") % size
    for step in range(size):
        number = low + (start + step) % size
        if (protocol, number) not in taken.node_ports:
            taken.node_ports[protocol, number] = title
            return number
    raise AllocationError(f"no node port is free in {low}-{high}; make the range larger")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _words(things: Iterable[object]) -> str:
    return ", ".join(map(str, things)) or "none"
