"""The match fields that Signalbox uses, each declared once: its name in ovs-ofctl, its OXM or NXM header, its width.

A field called with a value is one term of a match: `IN_PORT(3)`, `IPV4_DST(0x0AF40000, 0xFFFF0000)`. The order of the
declarations is the order of terms in a match; prerequisites come first, as OpenFlow 1.5 section 7.2.3.6 demands.
Numbers: OpenFlow 1.5.1 section 7.2.3.7; NXM and other extension fields from ovs-fields(7).
"""

from __future__ import annotations

from typing import NamedTuple

#: OXM classes.
NXM_0 = 0x0000
NXM_1 = 0x0001
OPENFLOW_BASIC = 0x8000
PACKET_REGS = 0x8001
#: Ericsson's, which OVS uses for fields of neighbour discovery (`ERICOXM_OF` in its meta-flow.h).
ERICSSON = 0x1000


class Field:
    """A field of a packet or of its metadata; identity is equality.

    `header` and `masked_header` are the 4 bytes that precede a value on the wire.
    """

    __slots__ = ("bits", "header", "index", "length", "masked_header", "maximum", "name", "number", "oxm_class")

    def __init__(self, index: int, name: str, oxm_class: int, number: int, bits: int) -> None:
        self.index = index
        self.name = name
        self.oxm_class = oxm_class
        self.number = number
        self.bits = bits
        #: Bytes that the value takes on the wire.
        self.length = (bits + 7) // 8
        self.maximum = (1 << bits) - 1
        self.header = (oxm_class << 16 | number << 9 | self.length).to_bytes(4, "big")
        self.masked_header = (oxm_class << 16 | number << 9 | 1 << 8 | 2 * self.length).to_bytes(4, "big")

    def __call__(self, value: int, mask: int | None = None) -> Term:
        """One term of a match. `mask` None matches every bit."""
        return Term(self, value, mask)

    def __repr__(self) -> str:
        return self.name


class Term(NamedTuple):
    """A field must have `value` in the bits of `mask` (all of them when it is None)."""

    field: Field
    value: int
    mask: int | None


#: Terms in the order of their fields' declaration, each field at most once.
Match = tuple[Term, ...]

_declared: list[Field] = []


def _field(name: str, oxm_class: int, number: int, bits: int) -> Field:
    field = Field(len(_declared), name, oxm_class, number, bits)
    _declared.append(field)
    return field


IN_PORT = _field("in_port", OPENFLOW_BASIC, 0, 32)
TUN_ID = _field("tun_id", OPENFLOW_BASIC, 38, 64)
TUN_SRC = _field("tun_src", NXM_1, 31, 32)
TUN_DST = _field("tun_dst", NXM_1, 32, 32)
TUN_IPV6_SRC = _field("tun_ipv6_src", NXM_1, 109, 128)
TUN_IPV6_DST = _field("tun_ipv6_dst", NXM_1, 110, 128)
REG0, REG1, REG2, REG3, REG4, REG5, REG6, REG7, REG8, REG9 = (_field(f"reg{n}", NXM_1, n, 32) for n in range(10))
CT_STATE = _field("ct_state", NXM_1, 105, 32)
CT_ZONE = _field("ct_zone", NXM_1, 106, 16)
CT_MARK = _field("ct_mark", NXM_1, 107, 32)
CT_LABEL = _field("ct_label", NXM_1, 108, 128)
#: Which conjunction a packet has met in all its dimensions (ovs-fields(7), "Conjunctive Match Fields").
CONJ_ID = _field("conj_id", NXM_1, 37, 32)
ETH_DST = _field("eth_dst", OPENFLOW_BASIC, 3, 48)
ETH_SRC = _field("eth_src", OPENFLOW_BASIC, 4, 48)
ETH_TYPE = _field("eth_type", OPENFLOW_BASIC, 5, 16)
VLAN_VID = _field("vlan_vid", OPENFLOW_BASIC, 6, 13)
IP_PROTO = _field("ip_proto", OPENFLOW_BASIC, 10, 8)
IP_DSCP = _field("ip_dscp", OPENFLOW_BASIC, 8, 6)
IP_TTL = _field("nw_ttl", NXM_1, 29, 8)
IPV4_SRC = _field("nw_src", OPENFLOW_BASIC, 11, 32)
IPV4_DST = _field("nw_dst", OPENFLOW_BASIC, 12, 32)
IPV6_SRC = _field("ipv6_src", OPENFLOW_BASIC, 26, 128)
IPV6_DST = _field("ipv6_dst", OPENFLOW_BASIC, 27, 128)
TCP_SRC = _field("tcp_src", OPENFLOW_BASIC, 13, 16)
TCP_DST = _field("tcp_dst", OPENFLOW_BASIC, 14, 16)
UDP_SRC = _field("udp_src", OPENFLOW_BASIC, 15, 16)
UDP_DST = _field("udp_dst", OPENFLOW_BASIC, 16, 16)
SCTP_SRC = _field("sctp_src", OPENFLOW_BASIC, 17, 16)
SCTP_DST = _field("sctp_dst", OPENFLOW_BASIC, 18, 16)
ICMPV4_TYPE = _field("icmp_type", OPENFLOW_BASIC, 19, 8)
ICMPV4_CODE = _field("icmp_code", OPENFLOW_BASIC, 20, 8)
ARP_OP = _field("arp_op", OPENFLOW_BASIC, 21, 16)
ARP_SPA = _field("arp_spa", OPENFLOW_BASIC, 22, 32)
ARP_TPA = _field("arp_tpa", OPENFLOW_BASIC, 23, 32)
ARP_SHA = _field("arp_sha", OPENFLOW_BASIC, 24, 48)
ARP_THA = _field("arp_tha", OPENFLOW_BASIC, 25, 48)
ICMPV6_TYPE = _field("icmpv6_type", OPENFLOW_BASIC, 29, 8)
ICMPV6_CODE = _field("icmpv6_code", OPENFLOW_BASIC, 30, 8)
ND_TARGET = _field("nd_target", OPENFLOW_BASIC, 31, 128)
ND_SLL = _field("nd_sll", OPENFLOW_BASIC, 32, 48)
ND_TLL = _field("nd_tll", OPENFLOW_BASIC, 33, 48)
ND_RESERVED = _field("nd_reserved", ERICSSON, 1, 32)
ND_OPTIONS_TYPE = _field("nd_options_type", ERICSSON, 2, 8)

FIELDS: tuple[Field, ...] = tuple(_declared)

#: EtherTypes and IP protocol numbers that flows name.
ETH_IPV4, ETH_ARP, ETH_IPV6 = 0x0800, 0x0806, 0x86DD
PROTO_ICMP, PROTO_TCP, PROTO_UDP, PROTO_ICMPV6, PROTO_SCTP = 1, 6, 17, 58, 132

#: Bits of ct_state (ovs-fields(7)).
CT_NEW, CT_EST, CT_REL, CT_RPL, CT_INV, CT_TRK = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


def match(*terms: Term) -> Match:
    """A match of these terms, in canonical order. Terms on different bits of one field become one."""
    found: dict[Field, Term] = {}
    for term in terms:
        other = found.get(term.field)
        if other is None:
            found[term.field] = term
        else:
            assert term.mask is not None and other.mask is not None and not term.mask & other.mask
            found[term.field] = Term(term.field, term.value | other.value, term.mask | other.mask)
    return tuple(sorted(found.values(), key=_index))


def _index(term: Term) -> int:
    return term.field.index
