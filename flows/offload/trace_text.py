"""What `ofproto/trace` prints: the OpenFlow flows that a packet met, and the datapath flows that it would make. Pure.

The latter are in OpenFlow's words (`nw_dst=10.0.0.0/8`), and become those of a datapath's dump, so that the linter's
rules are written once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from flows.offload.datapath import DatapathFlow, Matched, is_nothing, read_parts
from flows.offload.rules import Reason

_STEP = re.compile(r"^ *(?P<table>\d+|[A-Za-z]\w*)\. (?P<flow>.*?priority \d+.*)$")
_BRIDGE = re.compile(r'^bridge\("(?P<bridge>.*)"\)$')
_FLOW, _MEGAFLOW, _ACTIONS = "Flow: ", "Megaflow: ", "Datapath actions: "
_SLOW = "This flow is handled by the userspace slow path because it"

#: The protocols that a flow's text begins with: layer, protocol, the header's name.
_PROTOCOLS = {
    "ip": ("ipv4", "", ""),
    "ipv6": ("ipv6", "", ""),
    "tcp": ("ipv4", "6", "tcp"),
    "udp": ("ipv4", "17", "udp"),
    "sctp": ("ipv4", "132", "sctp"),
    "icmp": ("ipv4", "1", "icmp"),
    "tcp6": ("ipv6", "6", "tcp"),
    "udp6": ("ipv6", "17", "udp"),
    "sctp6": ("ipv6", "132", "sctp"),
    "icmp6": ("ipv6", "58", "icmpv6"),
    "arp": ("arp", "", ""),
    "rarp": ("arp", "", ""),
}
_NAMES = {
    "dl_src": "eth.src",
    "dl_dst": "eth.dst",
    "dl_type": "eth_type",
    "dl_vlan": "vlan.vid",
    "dl_vlan_pcp": "vlan.pcp",
    "vlan_tci": "vlan.tci",
    "ipv6_src": "ipv6.src",
    "ipv6_dst": "ipv6.dst",
    "ipv6_label": "ipv6.label",
    "arp_spa": "arp.sip",
    "arp_tpa": "arp.tip",
    "arp_op": "arp.op",
    "arp_sha": "arp.sha",
    "arp_tha": "arp.tha",
    "nd_target": "nd.target",
    "nd_sll": "nd.sll",
    "nd_tll": "nd.tll",
    "nd_options_type": "nd_ext.options_type",
    "nd_reserved": "nd_ext.reserved",
    "pkt_mark": "skb_mark",
    "mpls_label": "mpls.label",
    "mpls_tc": "mpls.tc",
    "mpls_ttl": "mpls.ttl",
    "mpls_bos": "mpls.bos",
    "tun_id": "tunnel.tun_id",
    "tun_src": "tunnel.src",
    "tun_dst": "tunnel.dst",
    "tun_ipv6_src": "tunnel.ipv6_src",
    "tun_ipv6_dst": "tunnel.ipv6_dst",
    "tun_tos": "tunnel.tos",
    "tun_ttl": "tunnel.ttl",
    "tun_flags": "tunnel.flags",
    "tun_gbp_id": "tunnel.vxlan.gbp",
    "tun_gbp_flags": "tunnel.vxlan.gbp",
}
#: By what a field's name begins with.
_PREFIXES = {
    "tun_metadata": "tunnel.geneve",
    "tun_erspan": "tunnel.erspan",
    "gtpu": "tunnel.gtpu",
    "ct_nw_": "ct_tuple4",
    "ct_tp_": "ct_tuple4",
    "ct_ipv6_": "ct_tuple6",
    "nsh": "nsh",
}
#: By the layer that the flow's protocol says.
_OF_LAYER = {"nw_src": "src", "nw_dst": "dst", "nw_proto": "proto", "nw_ttl": "ttl", "nw_frag": "frag"}
_TOS = ("nw_tos", "nw_ecn")


class Step(msgspec.Struct, frozen=True):
    """An OpenFlow flow that the packet met."""

    bridge: str
    #: A number, or a name where the bridge's tables have names.
    table: str
    #: Its match, priority and cookie.
    flow: str
    actions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.bridge} table={self.table} {self.flow}"


class Traced(msgspec.Struct, frozen=True):
    """What a trace says."""

    steps: tuple[Step, ...]
    flows: tuple[DatapathFlow, ...]


def question(flow: DatapathFlow) -> str:
    """The flow as `ofproto/trace` takes it, behind a datapath's name.

    Open vSwitch 3.1 doesn't read an original tuple of IPv6 as it writes it; a trace doesn't need it.
    """
    return re.sub(r"ct_tuple[46]\([^)]*\),?", "", flow.match)


def is_trace(text: str) -> bool:
    """Whether a text is what `ofproto/trace` prints, and no dump of flows."""
    return any(line.startswith(_MEGAFLOW) for line in text.splitlines())


def read_trace(text: str) -> Traced:
    """A trace's steps and datapath flows, in their order. Raises DatapathTextError."""
    return Traced(tuple(_steps(text)), tuple(_flows(text)))


def blame(reason: Reason, steps: Iterable[Step], flows: Iterable[str] = ()) -> list[str]:
    """The OpenFlow flows that brought a reason in: those that a packet met and that have a word of it.

    If none has, a flow of a table that it passed may be it, though it met another there: Open vSwitch matches all that
    told the two apart. `flows` are a bridge's, as `bridge/dump-flows` prints them.
    """
    met = list(steps)
    by_cookie = [
        str(each) for each in met if any(word.startswith("cookie ") and word in each.flow for word in reason.words)
    ]
    if by_cookie:
        return by_cookie
    by_match = [str(each) for each in met if _has(each.flow, reason.words)]
    by_actions = [f"{each} {'; '.join(each.actions)}" for each in met if _has(" ".join(each.actions), reason.words)]
    found = by_match if reason.kind == "match" else by_actions
    if found or reason.kind != "match":
        return found
    if by_actions:
        return by_actions
    passed = {each.table for each in met}
    return [
        each.strip()
        for each in flows
        if _table_of(each) in passed and _has(each.partition("actions=")[0], reason.words)
    ]


def _table_of(flow: str) -> str:
    # bridge/dump-flows says it of all but the first.
    table = re.search(r"\btable(?:_id)?=(\w+)", flow)
    return table[1] if table else "0"


def _has(text: str, words: tuple[str, ...]) -> bool:
    # Also as NXM_NX_PKT_MARK, which `move` and `load` have.
    return any(each.lower() in text.lower() for each in words)


def _steps(text: str) -> Iterator[Step]:
    bridge = ""
    begun: tuple[str, str, str] | None = None
    actions: list[str] = []
    for line in (*text.splitlines(), ""):
        step = _STEP.match(line)
        if begun is not None and (step or not line.startswith(" ")):
            yield Step(*begun, tuple(actions))
            begun = None
        if named := _BRIDGE.match(line):
            bridge = named["bridge"]
        elif step:
            begun, actions = (bridge, step["table"], step["flow"]), []
        elif begun is not None and not line.strip().startswith("->"):
            actions.append(line.strip())


def _flows(text: str) -> Iterator[DatapathFlow]:
    packet = match = ""
    waiting: tuple[str, str, str] | None = None
    slow = False
    for line in text.splitlines():
        if line.startswith(_FLOW):
            if waiting is not None:
                yield _flow(*waiting, slow=slow)
            packet, waiting, slow = line[len(_FLOW) :], None, False
        elif line.startswith(_MEGAFLOW):
            match = line[len(_MEGAFLOW) :]
        elif line.startswith(_ACTIONS):
            waiting = (packet, match, line[len(_ACTIONS) :])
        elif line.startswith(_SLOW):
            slow = True
    if waiting is not None:
        yield _flow(*waiting, slow=slow)


def _flow(packet: str, match: str, actions: str, *, slow: bool) -> DatapathFlow:
    matched = tuple(_match(match))
    known = {each.field for each in matched}
    unmatched = tuple(each for each in _match(packet) if each.field not in known)
    if slow:
        actions += ",userspace(slow_path)"
    return DatapathFlow(
        match=match,
        matched=tuple(each for each in matched if not is_nothing(each.mask)),
        unmatched=(*(each for each in matched if is_nothing(each.mask)), *unmatched),
        actions=read_parts(actions),
    )


def _match(text: str) -> Iterator[Matched]:
    words = [each.partition("=") for each in text.split(",")]
    layer, protocol, header = next((_PROTOCOLS[each[0]] for each in words if each[0] in _PROTOCOLS), ("ipv4", "", ""))
    if any(each[0] in _PROTOCOLS for each in words):
        yield Matched("eth_type", {"ipv4": "0x0800", "ipv6": "0x86dd", "arp": "0x0806"}[layer])
    if protocol:
        yield Matched(f"{layer}.proto", protocol)
    for name, equals, said in words:
        if not equals:
            continue
        value, slash, mask = said.partition("/")
        yield Matched(_datapath_name(name, layer, header), value, mask if slash else None)


def _datapath_name(name: str, layer: str, header: str) -> str:
    if name in _OF_LAYER:
        return f"{layer}.{_OF_LAYER[name]}"
    if name in _TOS:
        return f"{layer}.{'tclass' if layer == 'ipv6' else 'tos'}"
    if name in ("tp_src", "tp_dst"):
        return f"{header or 'tcp'}.{name[3:]}"
    if name in ("icmp_type", "icmp_code"):
        return f"{header or 'icmp'}.{name[5:]}"
    found = next((known for prefix, known in _PREFIXES.items() if name.startswith(prefix)), None)
    return _NAMES.get(name, found or name)
