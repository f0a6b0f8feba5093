"""What a Service becomes: for all switches alike, and, where a policy keeps clients on their node, for one node.

Pure: a Service and the cluster in, flows and groups out. Which endpoints there are and who may use them is
`topology.endpoints`' business, how flows look `flows.tables.service`'s; here the two meet.

    for everybody         cluster scope: one group of all endpoints
    for a zone            cluster scope: a group for each zone that has its own, matched by the node's zone
    for one node          node scope: a group of what is on the node, where the policy is Local
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from zlib import crc32

import msgspec

from flows.fields import Match, Term
from flows.tables import service as table
from flows.tables.host import health_flow
from flows.tables.service import Balancer, Chosen
from flows.values import Flow, Group
from topology.endpoints import ENDPOINT_LIMIT, Backend, backends, in_zones, on_nodes, usable
from topology.model import Cluster, Service, ServicePort
from topology.naming import Address, Network

#: What a frontend claims: an address (None for every node's), protocol and port. Two Services can't both have it.
Claim = tuple[Address | None, str, int]
#: The number, unique in the cluster, of what has this title.
Number = Callable[[str], int]
#: Endpoint numbers are bucket ids as well; those from 0xffffff00 up have meanings of their own.
_ENDPOINT_BITS = (1 << 30) - 1


class Front(msgspec.Struct, frozen=True):
    """One way in to a Service's port."""

    claim: Claim
    match: Match
    #: From outside of the cluster too: `externalTrafficPolicy` applies.
    external: bool
    #: Clients who may use it; empty means all of them.
    ranges: tuple[Network, ...] = ()


class PortView(msgspec.Struct, frozen=True):
    """A port of a Service in one family: its ways in and its endpoints, numbered."""

    service: Service
    port: ServicePort
    version: int
    title: str
    fronts: tuple[Front, ...]
    found: tuple[Backend, ...]
    numbers: dict[tuple[int, int], int]

    def everybody(self) -> list[Backend]:
        """The endpoints that a client is sent to unless a policy says otherwise."""
        return usable(self.found)

    def zones(self) -> dict[str, list[Backend]]:
        """The endpoints of clients in a zone, where it has its own."""
        return in_zones(self.everybody())

    def nodes(self) -> dict[str, list[Backend]]:
        """The endpoints of clients that stay on a node, where it has any."""
        if self.service.internal_local or self.service.external_local:
            return on_nodes(self.found)
        return {}

    def near(self) -> dict[str, list[Backend]]:
        """The endpoints of clients on a node that has some, where the Service prefers that."""
        return on_nodes(self.everybody()) if self.service.distribution == "PreferSameNode" else {}

    def balancer(self, number: Number, title: str, chosen: Sequence[Backend]) -> Balancer:
        """A choice among some of the endpoints."""
        picked = tuple(Chosen(self.numbers[each.order], each.address, each.port) for each in chosen[:ENDPOINT_LIMIT])
        affinity = min(self.service.affinity_seconds, table.LONGEST_AFFINITY)
        return Balancer(number(title), number(self.title), self.version, picked, affinity)


def families(service: Service) -> list[int]:
    """The families in which a Service has an address or a node port."""
    return [version for version in (4, 6) if any(each.version == version for each in service.cluster_ips)]


def views(cluster: Cluster, service: Service) -> Iterator[PortView]:
    """Every port of a Service, in each of its families."""
    for port in service.ports:
        for version in families(service):
            found = tuple(backends(cluster, service, port, version))
            title = f"{service.namespace}/{service.name}/{port.title}/{version}"
            fronts = tuple(_fronts(service, port, version))
            yield PortView(service, port, version, title, fronts, found, _numbers(found))


def titles(view: PortView) -> Iterator[str]:
    """What needs a number in the cluster for this port."""
    yield view.title
    if view.nodes():
        yield _on_node(view)
    if view.near():
        yield _near(view)
    for zone in view.zones():
        yield _in_zone(view, zone)


def groups(view: PortView, node: str) -> Iterator[tuple[str, list[Backend]]]:
    """The groups that a node's switch may have for this port: the title of each, and what it chooses among."""
    yield view.title, view.everybody()[:ENDPOINT_LIMIT]
    yield _on_node(view), view.nodes().get(node, [])[:ENDPOINT_LIMIT]
    yield _near(view), view.near().get(node, [])[:ENDPOINT_LIMIT]
    for zone, chosen in view.zones().items():
        yield _in_zone(view, zone), chosen[:ENDPOINT_LIMIT]


def nodes_of(of_service: Iterable[PortView]) -> set[str]:
    """The nodes that have flows of their own for a Service, by its ports."""
    return {name for view in of_service for name in (*view.nodes(), *view.near())}


def external_addresses(service: Service) -> tuple[Address, ...]:
    """Addresses of a Service that hosts must bring into the bridge."""
    return tuple(dict.fromkeys(service.external_ips + service.load_balancer_ips)) if service.cluster_ips else ()


def claims(service: Service) -> Iterator[Claim]:
    """Every way in that a Service would have."""
    for version in families(service):
        for port in service.ports:
            for front in _fronts(service, port, version):
                yield front.claim
    if service.health_check_node_port:
        yield health_claim(service)


def health_claim(service: Service) -> Claim:
    """The claim to the port at which load balancers ask for a Service's health."""
    return (None, "health", service.health_check_node_port)


def _fronts(service: Service, port: ServicePort, version: int) -> Iterator[Front]:
    protocol, number = port.protocol, port.port
    seen: set[Address] = set()
    for addresses, external, ranges in (
        (service.cluster_ips, False, ()),
        (service.external_ips, True, ()),
        (service.load_balancer_ips, True, tuple(each for each in service.source_ranges)),
    ):
        for address in addresses:
            if address.version == version and address not in seen:
                seen.add(address)
                front = table.address_front(address, protocol, number)
                yield Front((address, protocol, number), front, external, ranges)
    if port.node_port:
        front = table.node_port_front(version, protocol, port.node_port)
        # Of each family a node port is one claim: the node's addresses stand for one another.
        yield Front((None, f"{protocol}/{version}", port.node_port), front, True)


def _numbers(found: Sequence[Backend]) -> dict[tuple[int, int], int]:
    """A number for each endpoint, a hash of where it is; of two that would have the same, the second takes the next."""
    taken: dict[int, tuple[int, int]] = {}
    for each in found:
        number = crc32(each.address.packed + each.port.to_bytes(2, "big")) & _ENDPOINT_BITS or 1
        while number in taken:
            number = number % _ENDPOINT_BITS + 1
        taken[number] = each.order
    return {order: number for number, order in taken.items()}


def cluster_items(
    view: PortView,
    number: Number,
    zone: Callable[[str], int],
    wins: Callable[[Claim], bool],
    identity: Callable[[Backend], int],
    identified: bool,
    cookie: int,
) -> Iterator[Flow | Group]:
    """What all switches have of a Service's port."""
    here = view.service
    balancer = view.balancer(number, view.title, view.everybody())
    zones = {zone(name): view.balancer(number, _in_zone(view, name), chosen) for name, chosen in view.zones().items()}
    for each in (balancer, *zones.values()):
        yield from table.balancer_items(each, cookie)
    for front in view.fronts:
        if not wins(front.claim):
            continue
        for conditions in _allowed(front, view.version):
            local = here.external_local if front.external else here.internal_local
            if local and front.external and balancer.chosen:
                # Nodes without an endpoint drop it: load balancers try another node.
                yield table.drop_flow(table.OF_WORLD, front.match, cookie, *conditions, table.from_world())
            if local and not front.external:
                yield table.front_flow(table.EVERYBODY, front.match, table.REFUSE, cookie, *conditions)
                continue
            yield table.front_flow(table.EVERYBODY, front.match, balancer.program, cookie, *conditions)
            for number_of_zone, of_zone in zones.items():
                condition = table.in_zone(number_of_zone)
                yield table.front_flow(table.IN_ZONE, front.match, of_zone.program, cookie, *conditions, condition)
        if front.ranges:
            yield table.drop_flow(table.NOT_ALLOWED, front.match, cookie)
    label = number(view.title)
    for backend in view.found:
        if backend.endpoint.ready or backend.endpoint.serving:
            # Who comes from the world is judged where it comes in, so there it must be known who the endpoint is. Where
            # hosts route, so is the host itself: `identified`.
            whose = identity(backend) if identified or any(front.external for front in view.fronts) else 0
            yield table.stats_flow(label, view.numbers[backend.order], cookie, whose)


def node_items(
    view: PortView, node: str, number: Number, wins: Callable[[Claim], bool], cookie: int
) -> Iterator[Flow | Group]:
    """What one node's switch has besides: its own endpoints, for those who must stay on it or had better."""
    here = view.service
    local, near = view.nodes().get(node, []), view.near().get(node, [])
    must = view.balancer(number, _on_node(view), local) if local else None
    may = view.balancer(number, _near(view), near) if near else None
    for balancer in (must, may):
        if balancer is not None:
            yield from table.balancer_items(balancer, cookie)
    for front in view.fronts:
        if not wins(front.claim):
            continue
        for conditions in _allowed(front, view.version):
            if must is not None and front.external and here.external_local:
                world = table.from_world()
                yield table.front_flow(table.HERE, front.match, must.program, cookie, *conditions, world)
            if must is not None and not front.external and here.internal_local:
                yield table.front_flow(table.HERE, front.match, must.program, cookie, *conditions)
            elif may is not None:
                yield table.front_flow(table.NEAR, front.match, may.program, cookie, *conditions)


def health_items(
    service: Service, of_service: Iterable[PortView], node: str, wins: Callable[[Claim], bool], cookie: int
) -> Iterator[Flow]:
    """How many endpoints that are ready a node has, for load balancers that ask it; on all others (node "") none."""
    if not service.health_check_node_port or not wins(health_claim(service)):
        return
    # Only who is to keep to a node's own endpoints has flows there (`nodes_of`).
    if node and not service.external_local:
        return
    here = {
        each.address
        for view in of_service
        for each in view.found
        if node and each.endpoint.ready and each.endpoint.node == node
    }
    pods = max(sum(each.version == version for each in here) for version in (4, 6))
    if pods or not node:
        yield health_flow(service.health_check_node_port, service.namespace, service.name, pods, cookie)


def _allowed(front: Front, version: int) -> Iterator[tuple[Term, ...]]:
    if not front.ranges:
        yield ()
    for network in front.ranges:
        if network.version == version:
            yield (table.from_network(network),)


def _on_node(view: PortView) -> str:
    return f"{view.title}/node"


def _near(view: PortView) -> str:
    return f"{view.title}/near"


def _in_zone(view: PortView, zone: str) -> str:
    return f"{view.title}/zone/{zone}"
