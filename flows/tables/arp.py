"""Arp and NdReply: every question for a neighbour is answered on the spot, with the router's MAC.

The bridge routes all that it forwards, so whatever is asked for is behind the router: the gateway, pods here and
elsewhere, the world. Nothing is flooded and no answer is learnt from the network.
"""

from __future__ import annotations

from collections.abc import Iterator

from flows import fields as f
from flows.pipeline import ARP, ND_REPLY
from flows.registers import SCRATCH, whole
from flows.values import PORT_IN_PORT, Flow, Goto, Move, Output, SetField
from topology.naming import ROUTER_MAC

_PRIORITY = 200
_ADVERTISEMENT = 136
#: Router, solicited and override flags (RFC 4861 section 4.4).
_RSO_FLAGS = 0xE000_0000
_TARGET_LINK_LAYER = 2

_ANSWER_ARP = (
    Move(whole(f.ETH_SRC), whole(f.ETH_DST)),
    SetField(f.ETH_SRC, ROUTER_MAC),
    SetField(f.ARP_OP, 2),
    Move(whole(f.ARP_SHA), whole(f.ARP_THA)),
    SetField(f.ARP_SHA, ROUTER_MAC),
    # Sender and target protocol address change places.
    Move(whole(f.ARP_TPA), SCRATCH),
    Move(whole(f.ARP_SPA), whole(f.ARP_TPA)),
    Move(SCRATCH, whole(f.ARP_SPA)),
    Output(PORT_IN_PORT),
)

_BEGIN_ADVERTISEMENT = (
    Move(whole(f.ETH_SRC), whole(f.ETH_DST)),
    SetField(f.ETH_SRC, ROUTER_MAC),
    Move(whole(f.IPV6_SRC), whole(f.IPV6_DST)),
    Move(whole(f.ND_TARGET), whole(f.IPV6_SRC)),
    SetField(f.ND_OPTIONS_TYPE, _TARGET_LINK_LAYER),
    SetField(f.ND_RESERVED, _RSO_FLAGS),
    SetField(f.ICMPV6_TYPE, _ADVERTISEMENT),
    Goto(ND_REPLY.number),
)

_ETH_IPV6, _ICMPV6, _CODE_0 = f.ETH_TYPE(f.ETH_IPV6), f.IP_PROTO(f.PROTO_ICMPV6), f.ICMPV6_CODE(0)


def pipeline_flows(cookie: int) -> Iterator[Flow]:
    """The answers; Classify has let only true questions in."""
    yield Flow(ARP.number, _PRIORITY, (f.ETH_TYPE(f.ETH_ARP), f.ARP_OP(1)), _ANSWER_ARP, cookie)
    # OVS accepts a target link-layer option only on what is an advertisement already: hence two tables.
    solicitation = (_ETH_IPV6, _ICMPV6, f.ICMPV6_TYPE(135), _CODE_0)
    yield Flow(ARP.number, _PRIORITY, solicitation, _BEGIN_ADVERTISEMENT, cookie)
    advertisement = (_ETH_IPV6, _ICMPV6, f.ICMPV6_TYPE(_ADVERTISEMENT), _CODE_0)
    finish = (SetField(f.ND_TLL, ROUTER_MAC), Output(PORT_IN_PORT))
    yield Flow(ND_REPLY.number, _PRIORITY, advertisement, finish, cookie)
