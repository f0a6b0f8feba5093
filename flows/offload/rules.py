"""What TC takes of a datapath flow, match by match and action by action: Open vSwitch's own rules, written down again.

They are those of lib/netdev-offload-tc.c and lib/tc.c of Open vSwitch 3.1, the oldest one that we support, and what
Linux' flower says of ct_state; where later ones differ, the comment says which. Flower can match little that isn't
named here, so whatever isn't is refused, as Open vSwitch does it. Which of it a NIC then takes is its driver's to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import msgspec

from flows.offload.datapath import DatapathFlow, Matched, Part, is_nothing

OVS_VERSION = "3.1"
#: Of one flow (TCA_ACT_MAX_NUM).
MOST_ACTIONS = 16
#: Of an IP packet whose addresses, TTL or TOS are rewritten: its checksums are made anew (tc.c, csum_update_flag).
_CHECKSUMMED = {"1": "icmp", "6": "tcp", "17": "udp", "58": "icmpv6"}


class Reason(msgspec.Struct, frozen=True):
    """Why TC doesn't take a flow."""

    #: match, action or chain.
    kind: str
    #: The match or action, as the datapath spells it.
    what: str
    why: str
    #: Words of which one is in the OpenFlow flow that brought it in, as ovs-ofctl and ofproto/trace write them.
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.what}: {self.why}"


Check = Callable[[Matched, DatapathFlow], str | None]
_Known = TypeVar("_Known")


# Matches --------------------------------------------------------------------------------------------------------------


def _taken(_matched: Matched, _flow: DatapathFlow) -> None:
    return None


def _refused(why: str) -> Check:
    return lambda _matched, _flow: why


#: The bits of ct_state by their names, in the order in which Open vSwitch numbers them.
_CT_BITS = ("new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat")
_CT_TAKEN = frozenset(_CT_BITS[:6])
_CT_NAMES = {"src_nat": "snat", "dst_nat": "dnat"}


def _ct_state(matched: Matched, _flow: DatapathFlow) -> str | None:
    on, off = ct_bits(matched)
    if foreign := sorted((on | off) - _CT_TAKEN):
        return f"flower knows new, est, rel, rpl, inv and trk alone, not {', '.join(foreign)}"
    # net/sched/cls_flower.c, fl_validate_ct_state. Open vSwitch takes +new away from +est and adds +trk itself.
    if "inv" in on and on - {"inv", "trk"}:
        return "flower takes +inv with +trk alone"
    if {"new", "rpl"} <= on and "est" not in on:
        return "flower takes no +new with +rpl"
    return None


def ct_bits(matched: Matched) -> tuple[set[str], set[str]]:
    """The bits of ct_state that must be set and those that must not, of +new-est or of numbers."""
    if re.match("[+-]", matched.value):
        found = [(sign, _CT_NAMES.get(name, name)) for sign, name in re.findall(r"([+-])(\w+)", matched.value)]
        return {name for sign, name in found if sign == "+"}, {name for sign, name in found if sign == "-"}
    # Kernels' dumps of a whole value name what is set: ct_state(est|trk).
    if re.match("[a-z]", matched.value):
        named = {_CT_NAMES.get(name, name) for name in matched.value.split("|")}
        return named, set(_CT_BITS) - named
    value, mask = int(matched.value, 0), int(matched.mask or "0xff", 0)
    on = {name for index, name in enumerate(_CT_BITS) if value & mask & 1 << index}
    return on, {name for index, name in enumerate(_CT_BITS) if mask & 1 << index} - on


def _skb_mark(matched: Matched, _flow: DatapathFlow) -> str | None:
    exact = matched.mask is None or int(matched.mask, 0) == 0xFFFF_FFFF
    return None if exact and int(matched.value, 0) == 0 else "flower matches no packet mark, and no part of one"


def _packet_type(matched: Matched, _flow: DatapathFlow) -> str | None:
    return None if int(matched.value, 0) == 0 else "only Ethernet frames are offloaded"


def _eth(matched: Matched, _flow: DatapathFlow) -> str | None:
    return None if matched.value == "" else "unknown to flower"


def _fragment(matched: Matched, flow: DatapathFlow) -> str | None:
    if matched.field == "ipv6.frag" and matched.value not in ("no", "0"):
        return "fragments of IPv6 are not offloaded"
    return None


def _whole(bits: int) -> Check:
    def check(matched: Matched, _flow: DatapathFlow) -> str | None:
        whole = matched.mask is None or int(matched.mask, 0) == (1 << bits) - 1
        return None if whole else "flower matches all of a VLAN's number or priority, or nothing of it"

    return check


def _vlan_tci(matched: Matched, _flow: DatapathFlow) -> str | None:
    # A whole tag of zeros: there is none.
    exact = matched.mask is None or int(matched.mask, 0) == 0xFFFF
    return None if exact and int(matched.value, 0) == 0 else "flower matches no part of a VLAN's tag"


def _vlan_cfi(matched: Matched, _flow: DatapathFlow) -> str | None:
    return None if int(matched.value, 0) == 1 else "flower matches no tag without its CFI bit"


#: 3.1 ignores df and csum and refuses oam; Open vSwitch 3.5 matches them all where the kernel's flower can.
_TUNNEL_FLAGS_TAKEN = frozenset({"df", "csum", "key"})


def _tunnel_flags(matched: Matched, _flow: DatapathFlow) -> str | None:
    named = set(re.findall(r"\w+", matched.value)) - {"0"}
    if foreign := sorted(named - _TUNNEL_FLAGS_TAKEN):
        return f"flower matches the tunnel's flags df, csum and key alone, not {', '.join(foreign)}"
    return None


#: What a match may be, by its name; the longest beginning that is here counts.
MATCHES: dict[str, Check] = {
    **dict.fromkeys(("recirc_id", "in_port", "eth_type", "eth.src", "eth.dst"), _taken),
    "eth": _eth,
    "packet_type": _packet_type,
    "vlan.vid": _whole(12),
    "vlan.pcp": _whole(3),
    "vlan.tci": _vlan_tci,
    "vlan.cfi": _vlan_cfi,
    "vlan.tpid": _taken,
    **dict.fromkeys(("mpls.label", "mpls.tc", "mpls.ttl", "mpls.bos", "mpls.lse0"), _taken),
    "mpls": _refused("flower matches one MPLS label alone"),
    **{f"ipv4.{each}": _taken for each in ("src", "dst", "proto", "tos", "ttl")},
    **{f"ipv6.{each}": _taken for each in ("src", "dst", "proto", "tclass", "hlimit")},
    "ipv4.frag": _fragment,
    "ipv6.frag": _fragment,
    "ipv6.label": _refused("flower matches no IPv6 flow label"),
    **{f"{layer}.{each}": _taken for layer in ("tcp", "udp", "sctp") for each in ("src", "dst")},
    "tcp_flags": _taken,
    **{f"{layer}.{each}": _taken for layer in ("icmp", "icmpv6") for each in ("type", "code")},
    **{f"arp.{each}": _taken for each in ("sip", "tip", "op", "sha", "tha")},
    "nd": _refused("flower matches nothing inside of neighbour discovery"),
    "nd_ext": _refused("flower matches nothing inside of neighbour discovery"),
    "ct_state": _ct_state,
    **dict.fromkeys(("ct_zone", "ct_mark", "ct_label"), _taken),
    "ct_tuple4": _refused("flower matches no original tuple of a connection"),
    "ct_tuple6": _refused("flower matches no original tuple of a connection"),
    **{
        f"tunnel.{each}": _taken
        for each in ("tun_id", "src", "dst", "ipv6_src", "ipv6_dst", "tos", "ttl", "tp_src", "tp_dst", "geneve")
    },
    "tunnel.flags": _tunnel_flags,
    "tunnel.vxlan": _refused("a VXLAN's group policy is offloaded from Open vSwitch 3.2 on"),
    "skb_mark": _skb_mark,
    "skb_priority": _refused("flower matches no packet priority"),
    "dp_hash": _refused("flower matches no hash of the datapath: a group has chosen by it"),
    "nsh": _refused("flower matches no NSH"),
}

#: The OpenFlow words for a match whose name isn't one of them; else the last part of its name.
_WORDS = {
    "ct_state": ("ct_state=",),
    "dp_hash": ("group:", "multipath(", "bundle("),
    "skb_mark": ("pkt_mark",),
    "skb_priority": ("set_queue", "skb_priority", "enqueue"),
    "nd": ("nd_target", "nd_sll", "nd_tll"),
    "nd_ext": ("nd_options_type", "nd_reserved"),
    "ct_tuple4": ("ct_nw_", "ct_tp_"),
    "ct_tuple6": ("ct_ipv6_", "ct_tp_", "ct_nw_proto"),
    "ipv6.label": ("ipv6_label",),
    "vlan": ("vlan",),
    "mpls": ("mpls",),
    "tunnel.flags": ("tun_flags",),
    "tunnel.vxlan": ("tun_gbp",),
    "packet_type": ("packet_type",),
    "nsh": ("nsh",),
}


def of_match(flow: DatapathFlow) -> Iterator[Reason]:
    """What of a flow's match TC doesn't take."""
    told: set[tuple[str, str]] = set()
    through_tunnel = any(flow.value(f"tunnel.{each}") for each in ("src", "dst", "ipv6_src", "ipv6_dst"))
    for matched in flow.matched:
        # Without a tunnel's ends its match is an artefact, which Open vSwitch clears.
        if matched.field.startswith("tunnel.") and not through_tunnel:
            continue
        check = _longest(MATCHES, matched.field) or _refused("unknown to flower")
        why = check(matched, flow)
        # Of several parts of one thing the first is enough.
        thing = matched.field.partition(".")[0]
        if why is not None and (thing, why) not in told:
            told.add((thing, why))
            words = _longest(_WORDS, matched.field) or (matched.field.rpartition(".")[2],)
            yield Reason("match", str(matched), why, words)


def _longest(known: Mapping[str, _Known], field: str) -> _Known | None:
    while field:
        if field in known:
            return known[field]
        field = field.rpartition(".")[0]
    return None


# Actions --------------------------------------------------------------------------------------------------------------

#: Actions that TC has, less those that have a rule of their own below.
_ACTIONS = frozenset(
    {"push_vlan", "pop_vlan", "push_mpls", "pop_mpls", "ct_clear", "recirc", "drop", "meter", "set", "ct"}
    | {"check_pkt_len", "tnl_push", "tnl_pop", "clone"}
)
_NO_TC = "TC has no such action"
_FOREIGN = {
    "userspace": "the packet is told to ovs-vswitchd",
    "sample": "TC takes no samples",
    "psample": "TC takes no samples",
    "hash": "TC can't hash: a group chooses by it",
    "clone": "TC has no clone",
    "trunc": "TC can't cut packets",
    "push_eth": _NO_TC,
    "pop_eth": _NO_TC,
    "push_nsh": _NO_TC,
    "pop_nsh": _NO_TC,
    "encap_nsh": _NO_TC,
    "add_mpls": _NO_TC,
    "dec_ttl": _NO_TC,
    "lb_output": "TC can't choose a bond's member",
}
#: What tells ovs-vswitchd of samples that no flow asks for.
_SAMPLERS = ("sFlow", "ipfix")
#: What of a header `set` may change.
_SETTABLE: dict[str, set[str] | None] = {
    "eth": {"src", "dst"},
    "eth_type": None,
    "ipv4": {"src", "dst", "tos", "ttl"},
    "ipv6": {"src", "dst", "tclass", "hlimit"},
    "tcp": {"src", "dst"},
    "udp": {"src", "dst"},
    "mpls": None,
    "tunnel": {"tun_id", "src", "dst", "ipv6_src", "ipv6_dst", "tos", "ttl", "tp_src", "tp_dst", "flags", "geneve"},
}
_ACTION_WORDS = {
    "userspace": ("CONTROLLER", "controller", "sample(", "learn(", "nd_", "arp_", "icmpv6_type", "icmp_type"),
    "sample": ("sample(",),
    "hash": ("group:", "multipath(", "bundle("),
    "clone": ("clone(",),
    "trunc": ("max_len=", "truncate"),
    "lb_output": ("NORMAL",),
    "dec_ttl": ("dec_ttl",),
    "meter": ("meter:",),
}
_SET_WORDS = {
    "ipv4": ("dec_ttl", "mod_nw_", "ip_src", "ip_dst", "nw_t", "ip_dscp"),
    "ipv6": ("dec_ttl", "ipv6_", "nw_t", "ip_dscp"),
    "skb_mark": ("pkt_mark",),
    "skb_priority": ("set_queue", "enqueue"),
    "nd": ("nd_",),
    "nd_ext": ("nd_",),
    "arp": ("arp_",),
    "icmp": ("icmp_",),
    "icmpv6": ("icmp",),
    "sctp": ("sctp", "tp_"),
    "tunnel": ("tun_",),
}


def of_actions(flow: DatapathFlow) -> Iterator[Reason]:
    """What of a flow's actions TC doesn't take."""
    yield from _of_list(flow.actions, flow)
    number = sum(map(_weight, flow.actions))
    if number > MOST_ACTIONS:
        yield Reason("action", f"{number} actions", f"TC takes {MOST_ACTIONS} at most")
    if flow.value("tunnel.dst") or flow.value("tunnel.ipv6_dst"):
        yield from _after_release(flow.actions)


def _of_list(actions: tuple[Part, ...], flow: DatapathFlow) -> Iterator[Reason]:
    for each in actions:
        if each.name in _FOREIGN and not _to_tunnel(each):
            if any(f"{sampler}(" in each.text for sampler in _SAMPLERS):
                yield Reason(
                    "action", each.text, "the bridge samples packets for sFlow or IPFIX, whatever its flows are"
                )
                continue
            if "controller(" in each.text:
                # It says by which flow.
                cookie = re.search(r"rule_cookie=(0x[0-9a-f]+)", each.text)
                words = (f"cookie {cookie[1]}",) if cookie and int(cookie[1], 0) else _ACTION_WORDS["userspace"]
                yield Reason("action", each.text, "the packet is told to the controller", words)
                continue
            told = f": {each.parts[-1].text}" if each.name == "userspace" and len(each.parts) > 1 else ""
            yield Reason("action", each.text, _FOREIGN[each.name] + told, _ACTION_WORDS.get(each.name, (each.name,)))
        elif each.name == "set":
            yield from _of_set(each, flow)
        elif each.name == "ct":
            if (helper := each.find("helper")) is not None:
                yield Reason("action", helper.text, "TC's conntrack knows no helpers", ("alg=",))
        elif each.name == "check_pkt_len":
            for branch in each.parts:
                if branch.name in ("gt", "le"):
                    yield from _of_list(branch.parts, flow)
        elif each.name not in _ACTIONS and "(" in each.text:
            yield Reason("action", each.text, _NO_TC, (each.name,))


def _of_set(action: Part, flow: DatapathFlow) -> Iterator[Reason]:
    for header in action.parts:
        words = _SET_WORDS.get(header.name, (header.name,))
        if header.name not in _SETTABLE:
            yield Reason("action", action.text, f"TC rewrites no {header.name}", words)
            continue
        taken = _SETTABLE[header.name]
        changed = [each for each in header.parts if not is_nothing(_mask_of(each))]
        foreign = [each.name for each in changed if taken is not None and each.name not in taken]
        flags = next((each for each in changed if each.name == "flags"), None)
        if flags is not None and (unknown := set(re.findall(r"\w+", flags.value)) - _TUNNEL_FLAGS_TAKEN):
            foreign += sorted(unknown)
        if foreign:
            yield Reason("action", action.text, f"TC doesn't rewrite {header.name}'s {', '.join(foreign)}", words)
        protocol = _protocol(flow, header.name)
        if header.name in ("ipv4", "ipv6") and protocol and protocol not in _CHECKSUMMED:
            why = f"TC rewrites the IP header of TCP, UDP and ICMP alone, and this is protocol {protocol}"
            yield Reason("action", action.text, why, words)


def _protocol(flow: DatapathFlow, layer: str) -> str:
    """The protocol of the packet that made the flow, whether the flow matches it or not; empty if nobody knows.

    Kernels forget what a flow doesn't match, and write 0.
    """
    field = f"{layer}.proto"
    told = flow.value(field)
    return "" if told == "0" and any(each.field == field for each in flow.unmatched) else told


def _mask_of(part: Part) -> str | None:
    mask = part.value.partition("/")
    return mask[2] if mask[1] else None


def _to_tunnel(action: Part) -> bool:
    """Whether it is the userspace datapath's way to send a copy by tunnel: kernels set the tunnel and put it out."""
    return action.name == "clone" and bool(action.parts) and action.parts[0].name == "tnl_push"


def _weight(action: Part) -> int:
    """The number of TC's actions that it is."""
    if action.name == "check_pkt_len":
        return 1 + sum(_weight(each) for branch in action.parts for each in branch.parts)
    if action.name == "set":
        return len(action.parts)
    return 2 if _to_tunnel(action) else 1


def _after_release(actions: tuple[Part, ...]) -> Iterator[Reason]:
    # tc.c, nl_msg_put_flower_acts: once a copy has left, the tunnel's metadata that the next chain matches is gone.
    released = None
    for each in actions:
        if each.name == "recirc" and released is not None:
            why = f"what came by a tunnel can't go on to another chain once it went out: {released}"
            yield Reason("action", each.text, why, ("output", "mirror"))
        elif is_output(each) or (each.name == "set" and each.find("tunnel")) or each.name in ("tnl_push", "clone"):
            released = each.text


def is_output(action: Part) -> bool:
    """Whether it sends the packet out by a port: a number or a name alone."""
    return "(" not in action.text and "{" not in action.text and action.name not in _ACTIONS | _FOREIGN.keys()
