"""Services among the compiler's contributions: whose flows a change concerns, and what each of them contributes.

Owns who has what several want: numbers (`flows.numbers`), ways in to Services (an address and port, a node port) and
the addresses by which the world reaches Services. Of two Services that claim one way in, the one whose name sorts first
has it. Must not know ports of switches: a Service's flows are a function of objects alone, so that a controller that
has just started compiles, before it has heard any switch, what it compiled before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import TypeVar

import msgspec

from flows import services
from flows.cookies import Kind, Scope, cookie
from flows.numbers import Numbers
from flows.services import Claim, PortView
from flows.tables import host, service
from flows.update import CLUSTER, Forgotten
from flows.values import Flow, Group
from topology.announcements import Elections, elected
from topology.endpoints import ENDPOINT_LIMIT, Backend, on_nodes
from topology.identities import Identities
from topology.model import Change, Cluster, EndpointSlice, Key, Node, Object, Pod, Service
from topology.naming import Address, object_id

#: A contribution: the scope it is in, the kind of its maker, and the maker's name there.
Part = tuple[str, Kind, str]
#: A Service: its namespace and name.
Name = tuple[str, str]
#: Services whose ports are remembered at a time, as they are between two changes of the cluster.
_VIEWS_LIMIT = 5_000

Wanted = TypeVar("Wanted", Claim, Address, str)


class Wants(msgspec.Struct, frozen=True):
    """What one Service wants that others may want too, and on which nodes it has flows of its own."""

    titles: frozenset[str] = frozenset()
    claims: frozenset[Claim] = frozenset()
    addresses: frozenset[Address] = frozenset()
    nodes: frozenset[str] = frozenset()


_NOTHING = Wants()


class ServiceParts:
    """The Services of a cluster as contributions."""

    def __init__(self, cluster: Cluster, identities: Identities, *, identified: bool = False) -> None:
        """`identified`: it is always said who an endpoint is, and not only where the world is let in."""
        self._cluster = cluster
        self._identified = identified
        self._identities = identities
        self._numbers = Numbers()
        self._wants: dict[Name, Wants] = {}
        self._claimants: dict[Claim, set[Name]] = {}
        self._users: dict[Address, set[Name]] = {}
        self._on_nodes: dict[str, set[Name]] = {}
        self._views: dict[Name, tuple[PortView, ...]] = {}
        #: Who answers for which address; routers are told of the same.
        self.elections = Elections()
        self._down: frozenset[str] = frozenset()
        self._eligible: frozenset[str] | None = None
        #: The addresses that each node answers for: asked for by every switch that connects.
        self._answering: dict[str, list[Address]] | None = None

    @property
    def down(self) -> frozenset[str]:
        """Nodes that have been out of reach for long: they announce nothing."""
        return self._down

    @down.setter
    def down(self, nodes: frozenset[str]) -> None:
        self._down = nodes
        self._eligible = self._answering = None

    def cluster_changed(self) -> None:
        """Call when an object has come, changed or gone: what was remembered of Services no longer holds."""
        self._views.clear()
        self._eligible = self._answering = None

    def _views_of(self, found: Service) -> tuple[PortView, ...]:
        """A Service's ports. Between two changes they are asked for several times: whom it concerns, its flows, ..."""
        name = (found.namespace, found.name)
        made = self._views.get(name)
        if made is None:
            if len(self._views) >= _VIEWS_LIMIT:
                self._views.clear()
            made = self._views[name] = tuple(services.views(self._cluster, found))
        return made

    # Whom a change concerns ---------------------------------------------------------------------------------------

    def names(self, change: Change) -> set[Name]:
        """The Services whose flows an object has a part in, before or after it changed."""
        names: set[Name] = set()
        for version in (change.old, change.new):
            match version:
                case Service():
                    names.add((version.namespace, version.name))
                case EndpointSlice():
                    names.add((version.namespace, version.service))
                case Pod():
                    names |= self.of_pod(version)
                case Node():
                    for key in self._cluster.pods_on.get(version.name, ()):
                        found = self._cluster.selecting(self._cluster.pods[key])
                        names |= {(each.namespace, each.name) for each in found}
                    if _is_drained(change.old) != _is_drained(change.new):
                        for each in self._cluster.slices_on.get(version.name, ()):
                            names.add((each[1], self._cluster.slices[each].service))
        return names

    def of_pod(self, pod: Pod) -> set[Name]:
        """The Services that a pod is an endpoint of."""
        names = {(each.namespace, each.name) for each in self._cluster.selecting(pod)}
        slices = self._cluster.slices_with.get((pod.namespace, pod.name), ())
        return names | {(pod.namespace, self._cluster.slices[key].service) for key in slices}

    def parts(self, names: Iterable[Name], changes: Iterable[Change] = ()) -> set[Part]:
        """The contributions of Services as they are now, and the addresses that a Service to come will have."""
        parts: set[Part] = set()
        for name in names:
            found = self._cluster.services.get(name)
            if found is not None:
                title = "/".join(name)
                parts.add((CLUSTER, Kind.SERVICE, title))
                parts |= {(node, Kind.SERVICE, title) for node in services.nodes_of(self._views_of(found))}
                parts |= self._parts_of_addresses(found)
        for change in changes:
            if isinstance(change.new, Service):
                parts |= self._parts_of_addresses(change.new)
        return parts

    def _parts_of_addresses(self, each: Service) -> set[Part]:
        parts: set[Part] = set()
        for address in services.external_addresses(each):
            parts.add((CLUSTER, Kind.ADDRESS, str(address)))
            announcer = self.announcer(address)
            if announcer:
                parts.add((announcer, Kind.ADDRESS, str(address)))
        return parts

    def announced(self) -> set[Part]:
        """By which contributions nodes announce the addresses that Services have, as it is now."""
        return {
            (node, Kind.ADDRESS, str(address)) for node, addresses in self._by_node().items() for address in addresses
        }

    def _by_node(self) -> Mapping[str, list[Address]]:
        if self._answering is None:
            found: dict[str, list[Address]] = {}
            for address in self._users:
                if announcer := self.announcer(address):
                    found.setdefault(announcer, []).append(address)
            self._answering = found
        return self._answering

    def wanted(self, names: Iterable[Name]) -> dict[Name, Wants]:
        """What Services want as the cluster is now; of those that are none, nothing."""
        return {name: self._wanted(name) for name in names}

    def _wanted(self, name: Name) -> Wants:
        found = self._cluster.services.get(name)
        if found is None:
            return _NOTHING
        views = self._views_of(found)
        return Wants(
            frozenset(title for view in views for title in services.titles(view)),
            frozenset(services.claims(found)),
            frozenset(services.external_addresses(found)),
            frozenset(services.nodes_of(views)),
        )

    def announcements(self, parts: Iterable[Part]) -> set[Part]:
        """By which contributions nodes announce, as it is now, the addresses that are among these contributions."""
        found: set[Part] = set()
        for scope, kind, title in parts:
            if kind is Kind.ADDRESS and scope == CLUSTER:
                announcer = self.announcer(ip_address(title))
                if announcer:
                    found.add((announcer, kind, title))
        return found

    def rivals(self, wanted: Mapping[Name, Wants]) -> set[Name]:
        """Other Services that may win or lose a number or a way in when what these want counts."""
        rivals: set[Name] = set()
        for name, new in wanted.items():
            old = self._wants.get(name, _NOTHING)
            for claim in old.claims ^ new.claims:
                rivals |= self._claimants.get(claim, set())
            rivals |= {_owner(title) for title in self._numbers.rivals(old.titles ^ new.titles)}
        return rivals - wanted.keys()

    def settle(self, wanted: Mapping[Name, Wants]) -> None:
        """From now on this is what these Services want."""
        self._answering = None
        for name, new in wanted.items():
            old = self._wants.pop(name, _NOTHING)
            self._numbers.drop(old.titles - new.titles)
            self._numbers.take(new.titles - old.titles)
            _move(self._claimants, name, old.claims, new.claims)
            _move(self._users, name, old.addresses, new.addresses)
            _move(self._on_nodes, name, old.nodes, new.nodes)
            if new != _NOTHING:
                self._wants[name] = new

    def endpoints(self, names: Iterable[Name]) -> set[Forgotten]:
        """The endpoints that Services use, of the protocol that never says that a connection has ended."""
        used: set[Forgotten] = set()
        for name in names:
            found = self._cluster.services.get(name)
            if found is not None and any(port.protocol == "UDP" for port in found.ports):
                for view in self._views_of(found):
                    if view.port.protocol == "UDP":
                        there = (each for each in view.found if each.endpoint.ready or each.endpoint.serving)
                        used |= {Forgotten("UDP", each.address, each.port) for each in there}
        return used

    # What they contribute -------------------------------------------------------------------------------------------

    def all_parts(self, scope: str) -> Iterator[Part]:
        """Every contribution to a scope."""
        for name in self._cluster.services if scope == CLUSTER else sorted(self._on_nodes.get(scope, ())):
            yield (scope, Kind.SERVICE, "/".join(name))
        for address in self._users if scope == CLUSTER else self._by_node().get(scope, ()):
            yield (scope, Kind.ADDRESS, str(address))

    def contribution(self, part: Part) -> Iterator[Flow | Group]:
        """The flows and groups of a Service, or of an address that Services have."""
        scope, kind, title = part
        if kind is Kind.ADDRESS:
            yield from self._address_flows(scope, title)
            return
        namespace, _, name = title.partition("/")
        found = self._cluster.services.get((namespace, name))
        if found is None:
            return
        mark = cookie(Scope.NODE if scope else Scope.CLUSTER, Kind.SERVICE, object_id("Service", namespace, name))

        def wins(claim: Claim) -> bool:
            return self._has(claim, (namespace, name))

        def identity(backend: Backend) -> int:
            return self._identities.of_pod(namespace, backend.endpoint.pod)

        views = self._views_of(found)
        for view in views:
            if scope == CLUSTER:
                yield from services.cluster_items(
                    view, self._numbers, zone_number, wins, identity, self._identified, mark
                )
            else:
                yield from services.node_items(view, scope, self._numbers, wins, mark)
        yield from services.health_items(found, views, scope, wins, mark)

    def _address_flows(self, scope: str, text: str) -> Iterator[Flow]:
        address = ip_address(text)
        if address not in self._users:
            return
        if scope == CLUSTER:
            mark = cookie(Scope.CLUSTER, Kind.ADDRESS, object_id("Address", "", text))
            yield host.address_flow(address, mark)
            yield from service.refusal_flows([ip_network(address)], mark)
        elif scope == self.announcer(address):
            yield self.announcement(text)

    def announcement(self, text: str) -> Flow:
        """What the node that announces this address has of it, whichever node it is."""
        return host.announce_flow(ip_address(text), cookie(Scope.NODE, Kind.ADDRESS, object_id("Address", "", text)))

    def announcer(self, address: Address) -> str:
        """The node that answers for an address on its network: one of those that can serve it. Empty where none can."""
        users = sorted(self._users.get(address, ()))
        found = next((each for name in users if (each := self._cluster.services.get(name))), None)
        if found is None or address not in found.load_balancer_ips:
            return ""
        if self._eligible is None:
            self._eligible = frozenset(
                self._cluster.nodes.keys() - self._down - self._cluster.transit - self._cluster.drained
            )
        if found.external_local:
            serving: set[str] = set()
            for view in self._views_of(found):
                if view.version == address.version:
                    serving |= on_nodes(view.found).keys()
            if there := self._eligible & serving:
                return elected(address, there)
        return self.elections(address, self._eligible)

    def _has(self, claim: Claim, name: Name) -> bool:
        return min(self._claimants.get(claim, {name})) == name

    def labels(self) -> dict[int, int]:
        """Of each group's number, that of the Service's port that it chooses for."""
        labels: dict[int, int] = {}
        for found in self._cluster.services.values():
            for view in self._views_of(found):
                labels |= dict.fromkeys(map(self._numbers, services.titles(view)), self._numbers(view.title))
        return labels

    def owner(self, number: int) -> Service | None:
        """The Service that has a number for a port of its own, or for a group that chooses for one."""
        title = self._numbers.title(number)
        return self._cluster.services.get(_owner(title)) if title is not None else None

    def chosen_by(self, number: int, node: str) -> list[Backend]:
        """The endpoints that a group with this number chooses among in a node's switch."""
        title, found = self._numbers.title(number), self.owner(number)
        if title is None or found is None:
            return []
        here = (each for view in self._views_of(found) for each in services.groups(view, node))
        return next((chosen for of, chosen in here if of == title), [])

    def endpoints_of(self, found: Service) -> Iterator[tuple[PortView, Backend, tuple[int, int], bool]]:
        """Every endpoint of a Service: of which port, its numbers in counters, whether connections are sent there."""
        for view in self._views_of(found):
            used = {each.order for each in view.everybody()[:ENDPOINT_LIMIT]}
            used |= {each.order for local in view.nodes().values() for each in local}
            for each in view.found:
                yield view, each, (self._numbers(view.title), view.numbers[each.order]), each.order in used

    def strangers(self) -> Iterator[tuple[Key, str]]:
        """Endpoints that manifests name by addresses for pods which no pod has, and Services with too many of them."""
        cidrs = [(cidr, name) for name, node in self._cluster.nodes.items() for cidr in node.pod_cidrs]
        homes: dict[tuple[int, int, int], str] = {
            (cidr.version, int(cidr.netmask), int(cidr.network_address)): name for cidr, name in cidrs
        }
        masks = {(version, mask) for version, mask, _ in homes}
        taken: set[Address] | None = None
        for key, each in self._cluster.slices.items():
            for endpoint in (endpoint for subset in each.subsets for endpoint in subset.endpoints):
                home = _home(endpoint.address, homes, masks)
                if home is None:
                    continue
                if taken is None:
                    taken = {address for pod in self._cluster.pods.values() for address in pod.addresses}
                if endpoint.address not in taken:
                    yield key, f"endpoint {endpoint.address} is in the pod CIDR of node {home}, and no pod's"
        for found in self._cluster.services.values():
            for view in self._views_of(found):
                if len(view.everybody()) > ENDPOINT_LIMIT:
                    yield (
                        found.key,
                        f"port {view.port.title} has {len(view.everybody())} endpoints; "
                        f"the first {ENDPOINT_LIMIT} are used: split the Service",
                    )

    def clashes(self) -> Iterator[tuple[Service, str]]:
        """Services that want what another has, and what that is."""
        for claim, names in self._claimants.items():
            if len(names) > 1:
                what = _words(claim)
                winner = min(names)
                for name in sorted(names - {winner}):
                    yield (
                        self._cluster.services[name],
                        f"{what} is Service {'/'.join(winner)}'s already; choose another",
                    )


def _home(address: Address, homes: Mapping[tuple[int, int, int], str], masks: Iterable[tuple[int, int]]) -> str | None:
    """The node in one of whose CIDRs, by version, mask and address, this one is; of all CIDRs there are few masks."""
    number, of = int(address), address.version
    around = ((version, mask, number & mask) for version, mask in masks if version == of)
    return next((homes[each] for each in around if each in homes), None)


def _words(claim: Claim) -> str:
    address, protocol, port = claim
    if address is not None:
        return f"{address} port {port}/{protocol}"
    if protocol == "health":
        return f"health check node port {port}"
    return f"node port {port}/{protocol.partition('/')[0]}"


def zone_number(zone: str) -> int:
    """A topology zone's number: a hash of its name. A cluster has too few zones for two to meet."""
    return _hash(zone) >> 32 or 1


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _is_drained(version: Object | None) -> bool:
    return isinstance(version, Node) and version.drained


def _owner(title: str) -> Name:
    namespace, name, *_ = title.split("/")
    return namespace, name


def _move(index: dict[Wanted, set[Name]], name: Name, old: frozenset[Wanted], new: frozenset[Wanted]) -> None:
    for key in old - new:
        index[key].discard(name)
        if not index[key]:
            del index[key]
    for key in new - old:
        index.setdefault(key, set()).add(name)
