"""Route: the exit, by destination.

Priorities, from the top: answers to the world, by the host it came from; what is on this node; what would be on this
node if it were anywhere; whatever else came by tunnel (it is never sent on); the other nodes, longest prefix first,
those of this node's L2 segment before others; what must not be routed; the world outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network

from flows import fields as f
from flows.fields import Term
from flows.pipeline import COMMIT, POLICY, ROUTE
from flows.registers import (
    DESTINATION_IDENTITY,
    EXIT,
    EXIT_PORT,
    MARK_SERVICE,
    MARK_WORLD,
    SOURCE,
    SUBNET,
    TO_POD,
    Exit,
    Identity,
    Source,
)
from flows.state import LocalPod
from flows.values import DROP, Action, Flow, Goto, Program, SetField, load
from topology.naming import GATEWAY_MAC, ROUTER_MAC, Address, Network

ANSWER, HERE, NOBODY_HERE, STRAYED, ELSEWHERE, NOT_ROUTED, OUTSIDE = 2300, 2200, 2100, 2000, 1000, 500, 100
#: Above ELSEWHERE and every length of a prefix.
NEARBY = 1200
#: Neither multicast nor link-local addresses leave a node by the host. 169.254.0.0/16 does: metadata services and
#: node-local DNS caches live there.
_NEVER_ROUTED = tuple(ip_network(text) for text in ("224.0.0.0/4", "255.255.255.255/32", "ff00::/8", "fe80::/10"))

_FROM_ROUTER = SetField(f.ETH_SRC, ROUTER_MAC)
_TO_POLICY = Goto(POLICY.number)
_TO_GATEWAY = (_FROM_ROUTER, SetField(f.ETH_DST, GATEWAY_MAC))
_BY_HOST = (*_TO_GATEWAY, load(EXIT, Exit.GATEWAY))
_ROUTED = (*_TO_GATEWAY, load(EXIT, Exit.ROUTED))
#: To the host, and no policy has a say in it: answers, and what the host is to refuse.
TO_HOST: Program = (*_BY_HOST, Goto(COMMIT.number))
_BY_HOST_IF_ALLOWED: Program = (*_BY_HOST, _TO_POLICY)
_IPV4, _IPV6 = f.ETH_TYPE(f.ETH_IPV4), f.ETH_TYPE(f.ETH_IPV6)


def pipeline_flows(cookie: int) -> Iterator[Flow]:
    """What is the same wherever the packet is."""
    table = ROUTE.number
    # Answers go back by the host through which the connection came, whoever its client is: another node, say.
    answers = (f.CT_STATE(f.CT_RPL | f.CT_TRK, f.CT_RPL | f.CT_TRK), MARK_WORLD(1))
    yield Flow(table, ANSWER, answers, TO_HOST, cookie)
    yield Flow(table, STRAYED, (SOURCE(Source.TUNNEL),), DROP, cookie)
    for network in _NEVER_ROUTED:
        yield Flow(table, NOT_ROUTED, _to(network), DROP, cookie)
    # What a pod sends to no address of the cluster leaves by its node. What came from the host doesn't go back there,
    # unless it was for a Service, whose endpoint is out there.
    yield Flow(table, OUTSIDE, (SOURCE(Source.POD),), _BY_HOST_IF_ALLOWED, cookie)
    for source in (Source.GATEWAY, Source.WORLD):
        yield Flow(table, OUTSIDE, f.match(SOURCE(source), MARK_SERVICE(1)), _BY_HOST_IF_ALLOWED, cookie)


def pod_flows(pod: LocalPod, cookie: int) -> Iterator[Flow]:
    """To a pod on this node."""
    program = (
        _FROM_ROUTER,
        SetField(f.ETH_DST, pod.mac),
        load(EXIT, Exit.PORT),
        SetField(EXIT_PORT.field, pod.port),
        destination_pod(pod.identity),
        _TO_POLICY,
    )
    for address in pod.addresses:
        yield Flow(ROUTE.number, HERE, _to_address(address), program, cookie)


def host_flows(addresses: tuple[Address, ...], pod_cidrs: tuple[Network, ...], cookie: int) -> Iterator[Flow]:
    """To the node itself, and to addresses of its pod CIDRs that no pod has."""
    for address in addresses:
        yield Flow(ROUTE.number, HERE, _to_address(address), _BY_HOST_IF_ALLOWED, cookie)
    yield from nobody_flows(pod_cidrs, cookie)


def nobody_flows(networks: Iterable[Network], cookie: int) -> Iterator[Flow]:
    """To what is on this node if it is anywhere."""
    for network in networks:
        yield Flow(ROUTE.number, NOBODY_HERE, _to(network), DROP, cookie)


def node_program(endpoint: Address | None, fabric_mac: int | None) -> Program:
    """To another node: by wire where it has a `fabric_mac`, by a tunnel that ends at `endpoint` else.

    What goes by wire knows the tunnel too: it is taken from where no wire leads there. Without either it is dropped: it
    is none of the world's.
    """
    if endpoint is None and fabric_mac is None:
        return DROP
    program: list[Action] = []
    if endpoint is not None:
        program.append(SetField(f.TUN_DST if endpoint.version == 4 else f.TUN_IPV6_DST, int(endpoint)))
    if fabric_mac is not None:
        program.append(SetField(f.ETH_DST, fabric_mac))
    exit_by = Exit.TUNNEL if fabric_mac is None else Exit.FABRIC
    return (*program, load(EXIT, exit_by), _TO_POLICY)


def elsewhere_flows(networks: Iterable[Network], program: Program, cookie: int) -> Iterator[Flow]:
    """To what is on another node, the way that leads there. The same on every node."""
    for network in networks:
        yield Flow(ROUTE.number, ELSEWHERE + network.prefixlen, _to(network), program, cookie)


def routed_flows(pod_cidrs: tuple[Network, ...], own: tuple[Network, ...], subnet: int, cookie: int) -> Iterator[Flow]:
    """To another node's pods, and to it by its `own` addresses, by this node's host: it knows the way, or its network.

    `subnet`: only from nodes of this L2 segment; 0 from all. The same on every node. What is bound for the node itself
    doesn't meet its bridge, so Policy must know.
    """
    for networks, whose in ((pod_cidrs, ()), (own, (load(DESTINATION_IDENTITY, Identity.OTHER_NODE),))):
        for network in networks:
            near = (SUBNET(subnet),) if subnet else ()
            priority = (NEARBY if subnet else ELSEWHERE) + network.prefixlen
            yield Flow(ROUTE.number, priority, f.match(*_to(network), *near), (*_ROUTED, *whose, _TO_POLICY), cookie)


def destination_pod(identity: int) -> SetField:
    """The receiver is a pod of this identity."""
    mask = DESTINATION_IDENTITY.mask | TO_POD.mask
    return SetField(TO_POD.field, identity | TO_POD.mask, mask)


def _to_address(address: Address) -> tuple[Term, ...]:
    if address.version == 4:
        return (_IPV4, f.IPV4_DST(int(address)))
    return (_IPV6, f.IPV6_DST(int(address)))


def _to(network: IPv4Network | IPv6Network) -> tuple[Term, ...]:
    mask = None if network.prefixlen == network.max_prefixlen else int(network.netmask)
    if network.version == 4:
        return (_IPV4, f.IPV4_DST(int(network.network_address), mask))
    return (_IPV6, f.IPV6_DST(int(network.network_address), mask))
