"""Classify and SourceIdentity: who sent this packet? Decided by its port, and by what only this sender may use.

A pod may send with its own MAC and its own addresses, ask by ARP for its own IPv4 address, and solicit neighbours
from its own IPv6 or link-local address. Everything else that enters by its port is dropped by the table's miss.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from flows import fields as f
from flows.fields import Term
from flows.pipeline import ARP, CLASSIFY, SOURCE_IDENTITY, UNSNAT
from flows.registers import BY_ADDRESS, SOURCE, TUNNEL_KEY, Identity, Source
from flows.registers import SOURCE_IDENTITY as IDENTITY
from flows.state import LocalPod
from flows.values import DROP, PORT_CONTROLLER, Flow, Goto, Move, Output, Program, load
from topology.lldp import ETH_LLDP, LONGEST, NEAREST_BRIDGE
from topology.naming import GATEWAY_MAC, ROUTER_ADDRESS, Address, Network, link_local

#: Neighbour solicitations are admitted above the rule that drops all neighbour discovery, packets below it.
SOLICITATION, NO_DISCOVERY, DHCP, PACKET, OWN_POD, WORLD = 220, 210, 205, 200, 195, 190
_OTHERWISE = 0
_EVERYBODY = IPv4Address("255.255.255.255")
#: Router solicitation to redirect (RFC 4861 section 4): the switch is every neighbour, so no host may play one.
_DISCOVERY_TYPES = (133, 134, 135, 136, 137)
_SOLICITATION_TYPE = 135

#: Longer than any message of DHCP that one packet carries.
_TO_CONTROLLER = (Output(PORT_CONTROLLER, 2048),)
_TO_ARP = (Goto(ARP.number),)
_FROM_TUNNEL = (load(SOURCE, Source.TUNNEL), Move(TUNNEL_KEY, IDENTITY), Goto(UNSNAT.number))
_FROM_OTHER_NODE = (load(SOURCE, Source.TUNNEL), load(IDENTITY, Identity.OTHER_NODE), Goto(UNSNAT.number))
_FROM_TUNNEL_WITHOUT_KEY = (load(SOURCE, Source.TUNNEL), load(BY_ADDRESS, 1), Goto(SOURCE_IDENTITY.number))
_FROM_GATEWAY = (load(SOURCE, Source.GATEWAY), load(IDENTITY, Identity.THIS_HOST), Goto(UNSNAT.number))
_FROM_WORLD = (load(SOURCE, Source.WORLD), load(IDENTITY, Identity.WORLD), Goto(UNSNAT.number))
#: Another node, or the world: SourceIdentity finds out.
_BY_THE_HOST = (load(SOURCE, Source.WORLD), Goto(SOURCE_IDENTITY.number))

_TO_CONTROLLER = (Output(PORT_CONTROLLER, LONGEST),)

_IPV4, _IPV6, _ARP = f.ETH_TYPE(f.ETH_IPV4), f.ETH_TYPE(f.ETH_IPV6), f.ETH_TYPE(f.ETH_ARP)
_ICMPV6 = f.IP_PROTO(f.PROTO_ICMPV6)
_SOLICITS = f.ICMPV6_TYPE(_SOLICITATION_TYPE)
_CODE_0 = f.ICMPV6_CODE(0)
_ASKS = f.ARP_OP(1)


def pipeline_flows(cookie: int) -> Iterator[Flow]:
    """Neighbour discovery that no sender's own rule admits is dropped, whoever sends it."""
    for kind in _DISCOVERY_TYPES:
        yield Flow(CLASSIFY.number, NO_DISCOVERY, (_IPV6, _ICMPV6, f.ICMPV6_TYPE(kind)), DROP, cookie)


def pod_flows(pod: LocalPod, cookie: int) -> Iterator[Flow]:
    """What a pod may send."""
    port, source = f.IN_PORT(pod.port), f.ETH_SRC(pod.mac)
    admitted = (load(SOURCE, Source.POD), load(IDENTITY, pod.identity), Goto(UNSNAT.number))
    table = CLASSIFY.number
    for address in pod.addresses:
        if address.version == 4:
            value = int(address)
            # IPv4 packets with the pod's own MAC and address.
            yield Flow(table, PACKET, (port, source, _IPV4, f.IPV4_SRC(value)), admitted, cookie)
            # ARP requests that say truly who asks. Answers and announcements are nobody's business: nothing floods.
            asks = (port, source, _ARP, _ASKS, f.ARP_SPA(value), f.ARP_SHA(pod.mac))
            yield Flow(table, PACKET, asks, _TO_ARP, cookie)
        else:
            # IPv6 packets with the pod's own MAC and address.
            yield Flow(table, PACKET, (port, source, _IPV6, f.IPV6_SRC(int(address))), admitted, cookie)
            # Neighbour solicitations from that address or the link-local one; never from ::, so that duplicate
            # address detection finds nobody.
            for sender in (address, link_local(pod.mac)):
                asks_v6 = (port, source, _IPV6, _ICMPV6, f.IPV6_SRC(int(sender)), _SOLICITS, _CODE_0, f.ND_SLL(pod.mac))
                yield Flow(table, SOLICITATION, asks_v6, _TO_ARP, cookie)


def dhcp_flows(pod: LocalPod, cookie: int) -> Iterator[Flow]:
    """Questions of DHCP, to everybody or to the bridge that was the server before: the controller answers them."""
    for server in (_EVERYBODY, ROUTER_ADDRESS):
        asks = (f.IN_PORT(pod.port), f.ETH_SRC(pod.mac), _IPV4, f.IPV4_DST(int(server)), f.IP_PROTO(f.PROTO_UDP))
        yield Flow(CLASSIFY.number, DHCP, f.match(*asks, f.UDP_SRC(68), f.UDP_DST(67)), _TO_CONTROLLER, cookie)


def gateway_flows(port: int, addresses: tuple[Address, ...], cookie: int) -> Iterator[Flow]:
    """What the host may send: as itself, from its own `addresses`, and from all others for the world behind it."""
    entry, source = f.IN_PORT(port), f.ETH_SRC(GATEWAY_MAC)
    table = CLASSIFY.number
    for address in addresses:
        own = (_IPV4, f.IPV4_SRC(int(address))) if address.version == 4 else (_IPV6, f.IPV6_SRC(int(address)))
        yield Flow(table, PACKET, (entry, source, *own), _FROM_GATEWAY, cookie)
    yield Flow(table, WORLD, (entry, source, _IPV4), _FROM_WORLD, cookie)
    yield Flow(table, WORLD, (entry, source, _IPV6), _FROM_WORLD, cookie)
    yield Flow(table, PACKET, (entry, source, _ARP, _ASKS), _TO_ARP, cookie)
    match = (entry, source, _IPV6, _ICMPV6, _SOLICITS, _CODE_0, f.ND_SLL(GATEWAY_MAC))
    yield Flow(table, SOLICITATION, match, _TO_ARP, cookie)


def routed_flows(port: int, pod_cidrs: tuple[Network, ...], cookie: int) -> Iterator[Flow]:
    """What other nodes send without a tunnel comes from the host too: by its address, but for this node's own pods'.

    Those never come in here, so who claims to be one of them is of the world. Above the flows of `gateway_flows` that
    take all others for the world.
    """
    entry, source = f.IN_PORT(port), f.ETH_SRC(GATEWAY_MAC)
    for cidr in pod_cidrs:
        yield Flow(CLASSIFY.number, OWN_POD, (entry, source, *_within(cidr)), _FROM_WORLD, cookie)
    for family in (_IPV4, _IPV6):
        yield Flow(CLASSIFY.number, OWN_POD - 1, (entry, source, family), _BY_THE_HOST, cookie)


def tunnel_flows(port: int, cookie: int, *, keyed: bool) -> Iterator[Flow]:
    """Packets from other nodes: their Classify has judged the sender. ARP and ND never cross a tunnel.

    The tunnel's key tells who it is; where it is not `keyed`, SourceIdentity looks for the address.
    """
    entry = f.IN_PORT(port)
    for family in (_IPV4, _IPV6):
        program = _FROM_TUNNEL if keyed else _FROM_TUNNEL_WITHOUT_KEY
        yield Flow(CLASSIFY.number, PACKET, (entry, family), program, cookie)
        if keyed:
            # "This host" to itself, it is another node to us.
            other = f.match(entry, f.TUN_ID(Identity.THIS_HOST), family)
            yield Flow(CLASSIFY.number, PACKET + 1, other, _FROM_OTHER_NODE, cookie)


def discovery_flow(port: int, cookie: int) -> Flow:
    """What a port that is nobody's says of itself by LLDP: the controller finds out what is wired to what."""
    match = (f.IN_PORT(port), f.ETH_DST(NEAREST_BRIDGE), f.ETH_TYPE(ETH_LLDP))
    return Flow(CLASSIFY.number, PACKET, match, _TO_CONTROLLER, cookie)


def unkeyed_flows(cookie: int) -> Iterator[Flow]:
    """Whom no address in SourceIdentity tells is of the world."""
    yield Flow(SOURCE_IDENTITY.number, _OTHERWISE, (), (load(IDENTITY, Identity.WORLD), Goto(UNSNAT.number)), cookie)


def stranger_flows(pod_cidrs: tuple[Network, ...], cookie: int) -> Iterator[Flow]:
    """Addresses for pods that no pod has: nobody's."""
    for cidr in pod_cidrs:
        yield Flow(SOURCE_IDENTITY.number, WORLD, _within(cidr), _of_another_node(Identity.NONE), cookie)


def identity_flows(addresses: tuple[Address, ...], identity: int, cookie: int) -> Iterator[Flow]:
    """Whose these addresses of pods are, wherever they are: for ways here without a key."""
    yield from _sender_flows(addresses, _of_another_node(identity), cookie)


def host_flows(addresses: tuple[Address, ...], cookie: int) -> Iterator[Flow]:
    """Other nodes themselves. Without a tunnel they are clients like those of the world: what they ask is sent on."""
    yield from _sender_flows(addresses, (load(IDENTITY, Identity.OTHER_NODE), Goto(UNSNAT.number)), cookie)


def _of_another_node(identity: int) -> Program:
    return (load(SOURCE, Source.TUNNEL), load(BY_ADDRESS, 1), load(IDENTITY, identity), Goto(UNSNAT.number))


def _sender_flows(addresses: tuple[Address, ...], program: Program, cookie: int) -> Iterator[Flow]:
    for address in addresses:
        own = (_IPV4, f.IPV4_SRC(int(address))) if address.version == 4 else (_IPV6, f.IPV6_SRC(int(address)))
        yield Flow(SOURCE_IDENTITY.number, PACKET, own, program, cookie)


def _within(network: Network) -> tuple[Term, ...]:
    mask = None if network.prefixlen == network.max_prefixlen else int(network.netmask)
    ethertype, field = (_IPV4, f.IPV4_SRC) if network.version == 4 else (_IPV6, f.IPV6_SRC)
    return (ethertype, field(int(network.network_address), mask))
