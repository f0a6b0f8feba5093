"""Locality, NodeAddress, Service, Affinity, Endpoint and ServiceStats: a new connection's way to an endpoint.

    Locality -> NodeAddress -> Service -> group -> ct(commit, nat) -> ServiceStats -> Route
                                  │         ▲ └-> Endpoint (many endpoints)  ▲
                                  └-> Affinity, Endpoint ┘───────────────────┘ (session affinity)

Packets of a connection that has an endpoint skip all but ServiceStats. What a Service's flows are made of is decided in
`flows.services`; this module knows how each looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network

import msgspec

from flows import fields as f
from flows.cookies import LEARNT_OWNER
from flows.fields import Match, Term
from flows.pipeline import (
    AFFINITY,
    ENDPOINT,
    LOCALITY,
    NODE_ADDRESS,
    ROUTE,
    SERVICE,
    SERVICE_STATS,
)
from flows.registers import (
    CT_ZONE,
    FROM_WORLD,
    MARK_SERVICE,
    MARK_WORLD,
    SOURCE,
    TO_NODE,
    ZONE,
    Source,
)
from flows.registers import (
    ENDPOINT as ENDPOINT_BITS,
)
from flows.registers import (
    SERVICE as SERVICE_BITS,
)
from flows.tables.route import TO_HOST, destination_pod
from flows.values import (
    DROP,
    Bucket,
    Ct,
    Flow,
    Goto,
    Group,
    GroupType,
    Learn,
    Move,
    Nat,
    Program,
    Resubmit,
    SetField,
    ToGroup,
    load,
)
from topology.naming import ENTRY_ADDRESSES, Address, Network

#: Of Service: who must stay on this node, clients of the world, who had better stay, a zone, everybody; then what no
#: Service offers.
HERE, OF_WORLD, NEAR, IN_ZONE, EVERYBODY, NOT_ALLOWED, REFUSED = 330, 320, 315, 310, 300, 290, 100
_PRIORITY, _OTHERWISE = 200, 0
#: A group must fit one message of 64 KiB: beyond this its buckets only name endpoints, which table Endpoint knows.
DIRECT_LIMIT = 400
#: Flows that a switch may learn for one Service's port: clients that are remembered; others are still hashed. Open
#: vSwitch counts those in the table with one cookie.
AFFINITY_LIMIT = 10_000
#: The longest idle timeout that a flow can have, in seconds.
LONGEST_AFFINITY = 0xFFFF
_LEARNT_COOKIE = LEARNT_OWNER << 56
#: One endpoint of many has no say in how much: all have this weight.
_WEIGHT = 100

_PROTOCOLS = {"TCP": f.PROTO_TCP, "UDP": f.PROTO_UDP, "SCTP": f.PROTO_SCTP}
_TARGETS = {"TCP": f.TCP_DST, "UDP": f.UDP_DST, "SCTP": f.SCTP_DST}
_ETHERTYPES = {4: f.ETH_TYPE(f.ETH_IPV4), 6: f.ETH_TYPE(f.ETH_IPV6)}
_SOURCES = {4: f.IPV4_SRC, 6: f.IPV6_SRC}
_DESTINATIONS = {4: f.IPV4_DST, 6: f.IPV6_DST}
_MARK = SetField(MARK_SERVICE.field, MARK_SERVICE.mask, MARK_SERVICE.mask)
_REMEMBER_WORLD = Move(FROM_WORLD, MARK_WORLD)

REFUSE: Program = TO_HOST


class Chosen(msgspec.Struct, frozen=True):
    """An endpoint as flows know it: its number among the Service port's, and where it is."""

    number: int
    address: Address
    port: int


class Balancer(msgspec.Struct, frozen=True):
    """A choice among endpoints. `number` is the group's; `label` the Service port's number that connections keep."""

    number: int
    label: int
    version: int
    chosen: tuple[Chosen, ...]
    affinity: int = 0

    @property
    def indirect(self) -> bool:
        """Whether buckets only name endpoints."""
        return bool(self.affinity) or len(self.chosen) > DIRECT_LIMIT

    @property
    def program(self) -> Program:
        """What sends a connection on: nothing of it can be chosen where there are no endpoints."""
        if not self.chosen:
            return REFUSE
        if self.affinity:
            return (load(SERVICE_BITS, self.number), Resubmit(AFFINITY.number), Goto(ENDPOINT.number))
        if self.indirect:
            return (load(SERVICE_BITS, self.number), ToGroup(self.number))
        return (ToGroup(self.number),)


def pipeline_flows(cookie: int) -> Iterator[Flow]:
    """What doesn't depend on any Service."""
    yield Flow(LOCALITY.number, _OTHERWISE, (), (Goto(NODE_ADDRESS.number),), cookie)
    for address in ENTRY_ADDRESSES:
        yield _node_address(address, cookie)
        # A port of a node's own to which nothing is bound: the host says so.
        yield Flow(SERVICE.number, REFUSED, _to(address), REFUSE, cookie)
    yield Flow(NODE_ADDRESS.number, _OTHERWISE, (), (Goto(SERVICE.number),), cookie)
    yield Flow(SERVICE.number, _OTHERWISE, (), (Goto(ROUTE.number),), cookie)
    yield Flow(SERVICE_STATS.number, _OTHERWISE, (), (Goto(ROUTE.number),), cookie)


def refusal_flows(networks: Sequence[Network], cookie: int) -> Iterator[Flow]:
    """Addresses of Services to which nothing else applies: the host refuses them, as the client's protocol does."""
    for network in networks:
        yield Flow(SERVICE.number, REFUSED, _within(network), REFUSE, cookie)


def node_address_flows(addresses: Sequence[Address], cookie: int) -> Iterator[Flow]:
    """A node's addresses, on every node: its NodePorts are served where the client is."""
    for address in addresses:
        yield _node_address(address, cookie)


def locality_flow(zone: int, cookie: int) -> Flow:
    """The topology zone of this node."""
    return Flow(LOCALITY.number, _PRIORITY, (), (load(ZONE, zone), Goto(NODE_ADDRESS.number)), cookie)


def host_port_flow(protocol: str, address: Address, host_port: int, target: tuple[Address, int], cookie: int) -> Flow:
    """A port of this node that leads to a pod on it."""
    match = f.match(*_to(address), f.IP_PROTO(_PROTOCOLS[protocol]), _TARGETS[protocol](host_port))
    return Flow(SERVICE.number, HERE, match, (_to_endpoint(target[0], target[1], 0),), cookie)


# What a Service's port is made of -------------------------------------------------------------------------------------


def address_front(address: Address, protocol: str, port: int) -> Match:
    """What is sent to a port of an address."""
    return f.match(*_to(address), f.IP_PROTO(_PROTOCOLS[protocol]), _TARGETS[protocol](port))


def node_port_front(version: int, protocol: str, port: int) -> Match:
    """What is sent to a port of any node."""
    return f.match(TO_NODE(1), _ETHERTYPES[version], f.IP_PROTO(_PROTOCOLS[protocol]), _TARGETS[protocol](port))


def front_flow(priority: int, front: Match, program: Program, cookie: int, *conditions: Term) -> Flow:
    """A Service's flow; `conditions` say for whom it is."""
    return Flow(SERVICE.number, priority, f.match(*front, *conditions), program, cookie)


def from_world() -> Term:
    """The condition that the client is outside of the cluster."""
    return SOURCE(Source.WORLD)


def in_zone(zone: int) -> Term:
    """The condition that the client is on a node of this zone."""
    return ZONE(zone)


def from_network(network: Network) -> Term:
    """The condition that the client's address is in a network."""
    mask = None if network.prefixlen == network.max_prefixlen else int(network.netmask)
    return _SOURCES[network.version](int(network.network_address), mask)


def drop_flow(priority: int, front: Match, cookie: int, *conditions: Term) -> Flow:
    """Clients that are to hear nothing."""
    return Flow(SERVICE.number, priority, f.match(*front, *conditions), DROP, cookie)


def balancer_items(balancer: Balancer, cookie: int) -> Iterator[Flow | Group]:
    """The group that chooses, and where its buckets only name endpoints, the flows that send there."""
    if not balancer.chosen:
        return
    fields = (_SOURCES[balancer.version],) if balancer.affinity else ()
    buckets = tuple(
        Bucket(each.number, _bucket(balancer, each), _WEIGHT)
        for each in sorted(balancer.chosen, key=lambda each: each.number)
    )
    # By name, which means all of a packet's addresses and ports: Open vSwitch's own choice leaves out those of UDP.
    yield Group(balancer.number, GroupType.SELECT, buckets, "hash" if fields else "dp_hash", 0, fields)
    if not balancer.indirect:
        return
    service, ethertype = SERVICE_BITS(balancer.number), _ETHERTYPES[balancer.version]
    for each in balancer.chosen:
        match = f.match(service, ENDPOINT_BITS(each.number), ethertype)
        send = _to_endpoint(each.address, each.port, balancer.label << 32 | each.number)
        yield Flow(ENDPOINT.number, _PRIORITY, match, (*_learning(balancer, each), send), cookie)
    if balancer.affinity:
        # No endpoint is remembered for this client, or the one that is has gone.
        yield Flow(ENDPOINT.number, _PRIORITY - 1, f.match(service), (ToGroup(balancer.number),), cookie)


def learnt_by_means_of(flow: Flow) -> int | None:
    """The cookie of what switches learn as long as this flow is there; None where they learn nothing by it.

    Each group that has its clients remembered has one such flow: the one for clients who aren't remembered.
    """
    if flow.table == ENDPOINT.number and [term.field for term in flow.match] == [SERVICE_BITS.field]:
        return _LEARNT_COOKIE | flow.match[0].value
    return None


def stats_flow(label: int, number: int, cookie: int, identity: int = 0) -> Flow:
    """Counts the packets of an endpoint's connections, in both directions; says the identity of a pod, where known."""
    match = (f.CT_LABEL(label << 32 | number),)
    whose = (destination_pod(identity),) if identity else ()
    return Flow(SERVICE_STATS.number, _PRIORITY, match, (*whose, Goto(ROUTE.number)), cookie)


def _bucket(balancer: Balancer, each: Chosen) -> Program:
    if balancer.indirect:
        return (load(ENDPOINT_BITS, each.number), Resubmit(ENDPOINT.number))
    return (_to_endpoint(each.address, each.port, balancer.label << 32 | each.number),)


def _to_endpoint(address: Address, port: int, label: int) -> Ct:
    nat = Nat("dst", address_min=int(address), ipv6=address.version == 6, port_min=port)
    remember = (SetField(f.CT_LABEL, label), _MARK, _REMEMBER_WORLD)
    return Ct(CT_ZONE, commit=True, table=SERVICE_STATS.number, nat=nat, execute=remember)


def _learning(balancer: Balancer, each: Chosen) -> Program:
    if not balancer.affinity:
        return ()
    return (
        Learn(
            AFFINITY.number,
            _PRIORITY,
            _LEARNT_COOKIE | balancer.number,
            balancer.affinity,
            AFFINITY_LIMIT,
            (SERVICE_BITS(balancer.number), _ETHERTYPES[balancer.version]),
            (_SOURCES[balancer.version],),
            (ENDPOINT_BITS(each.number),),
        ),
    )


def _node_address(address: Address, cookie: int) -> Flow:
    program = (load(TO_NODE, 1), Goto(SERVICE.number))
    return Flow(NODE_ADDRESS.number, _PRIORITY, _to(address), program, cookie)


def _to(address: Address) -> Match:
    return (_ETHERTYPES[address.version], _DESTINATIONS[address.version](int(address)))


def _within(network: IPv4Network | IPv6Network) -> Match:
    mask = None if network.prefixlen == network.max_prefixlen else int(network.netmask)
    return (_ETHERTYPES[network.version], _DESTINATIONS[network.version](int(network.network_address), mask))
