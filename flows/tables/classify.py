"""Classify: who sent this packet? Decided by the port it enters by, and by addresses that only this sender may use.

A pod may send with its own MAC and its own addresses, ask by ARP for its own IPv4 address, and solicit neighbours
from its own IPv6 or link-local address. Everything else that enters by its port is dropped by the table's miss.
"""

from __future__ import annotations

from collections.abc import Iterator

from flows import fields as f
from flows.pipeline import ARP, CLASSIFY, UNSNAT
from flows.registers import SOURCE, Source
from flows.state import LocalPod
from flows.values import DROP, Flow, Goto, load
from topology.naming import GATEWAY_MAC, Address, link_local

#: Neighbour solicitations are admitted above the rule that drops all neighbour discovery, packets below it.
SOLICITATION, NO_DISCOVERY, PACKET, WORLD = 220, 210, 200, 190
#: Router solicitation to redirect (RFC 4861 section 4): the switch is every neighbour, so no host may play one.
_DISCOVERY_TYPES = (133, 134, 135, 136, 137)
_SOLICITATION_TYPE = 135

_TO_ARP = (Goto(ARP.number),)
_FROM_POD = (load(SOURCE, Source.POD), Goto(UNSNAT.number))
_FROM_TUNNEL = (load(SOURCE, Source.TUNNEL), Goto(UNSNAT.number))
_FROM_GATEWAY = (load(SOURCE, Source.GATEWAY), Goto(UNSNAT.number))
_FROM_WORLD = (load(SOURCE, Source.WORLD), Goto(UNSNAT.number))

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
    table = CLASSIFY.number
    for address in pod.addresses:
        if address.version == 4:
            value = int(address)
            # IPv4 packets with the pod's own MAC and address.
            yield Flow(table, PACKET, (port, source, _IPV4, f.IPV4_SRC(value)), _FROM_POD, cookie)
            # ARP requests that say truly who asks. Answers and announcements are nobody's business: nothing floods.
            asks = (port, source, _ARP, _ASKS, f.ARP_SPA(value), f.ARP_SHA(pod.mac))
            yield Flow(table, PACKET, asks, _TO_ARP, cookie)
        else:
            # IPv6 packets with the pod's own MAC and address.
            yield Flow(table, PACKET, (port, source, _IPV6, f.IPV6_SRC(int(address))), _FROM_POD, cookie)
            # Neighbour solicitations from that address or the link-local one; never from ::, so that duplicate
            # address detection finds nobody.
            for sender in (address, link_local(pod.mac)):
                asks_v6 = (port, source, _IPV6, _ICMPV6, f.IPV6_SRC(int(sender)), _SOLICITS, _CODE_0, f.ND_SLL(pod.mac))
                yield Flow(table, SOLICITATION, asks_v6, _TO_ARP, cookie)


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


def tunnel_flows(port: int, cookie: int) -> Iterator[Flow]:
    """Packets from other nodes: their Classify has judged the sender. ARP and ND never cross a tunnel."""
    entry = f.IN_PORT(port)
    yield Flow(CLASSIFY.number, PACKET, (entry, _IPV4), _FROM_TUNNEL, cookie)
    yield Flow(CLASSIFY.number, PACKET, (entry, _IPV6), _FROM_TUNNEL, cookie)
