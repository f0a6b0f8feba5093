"""The linter: each flow of a dump is offloadable, or there are reasons why not. Pure.

A flow that isn't the first to see its packets is in a *chain*, which a flow before it goes on to by `recirc`. TC finds
it only if one of those is in TC too: Open vSwitch from 3.6 on refuses it else, older ones keep it in vain. Chains are
each device's own, so only flows of the same port lead to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from flows.offload.datapath import DatapathFlow, Matched
from flows.offload.rules import Reason, ct_bits, of_actions, of_match

#: A port and a chain.
_Place = tuple[str, int]


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of a flow."""

    flow: DatapathFlow
    reasons: tuple[Reason, ...]
    #: The flow is in a chain to which no flow of this dump goes on: so it hangs on one that isn't here.
    dangling: bool = False
    #: What it is for, where it isn't one that an established connection has: such needn't be offloadable.
    occasion: str = ""

    @property
    def offloadable(self) -> bool:
        return not self.reasons


def lint(flows: Sequence[DatapathFlow]) -> list[Verdict]:
    """A verdict for each flow, in their order."""
    own = [(*of_match(flow), *of_actions(flow)) for flow in flows]
    leading: dict[_Place, list[int]] = defaultdict(list)
    for index, flow in enumerate(flows):
        for chain in flow.goes_on_to:
            leading[flow.in_port, chain].append(index)
    taken = _taken(flows, own, leading)
    occasions = _occasions(flows, leading)

    made = []
    for index, flow in enumerate(flows):
        reasons, before = own[index], leading.get((flow.in_port, flow.recirculation), [])
        if not reasons and index not in taken:
            why = "no flow that goes on to this chain is offloadable"
            reasons = (Reason("chain", f"recirc_id({flow.recirculation:#x})", why),)
        made.append(Verdict(flow, reasons, flow.recirculation != 0 and not before, occasions[index]))
    return made


def _taken(
    flows: Sequence[DatapathFlow], own: Sequence[tuple[Reason, ...]], leading: Mapping[_Place, list[int]]
) -> set[int]:
    """The flows without reasons of their own that packets get to in TC: from the first ones on, step by step."""
    taken = {
        index
        for index, flow in enumerate(flows)
        if not own[index] and (flow.recirculation == 0 or (flow.in_port, flow.recirculation) not in leading)
    }
    waiting = [(flows[index].in_port, chain) for index in taken for chain in flows[index].goes_on_to]
    reached = set(waiting)
    members: dict[_Place, list[int]] = defaultdict(list)
    for index, flow in enumerate(flows):
        members[flow.in_port, flow.recirculation].append(index)
    while waiting:
        for index in members[waiting.pop()]:
            if own[index]:
                continue
            taken.add(index)
            further = {(flows[index].in_port, chain) for chain in flows[index].goes_on_to} - reached
            reached |= further
            waiting.extend(further)
    return taken


FIRST_PACKETS = "first packets"
_BY_ETHERTYPE = {"0x0806": "ARP", "0x88cc": "LLDP"}
_DISCOVERY = ("133", "134", "135", "136", "137")
_DHCP = ("67", "68")


def _occasions(flows: Sequence[DatapathFlow], leading: Mapping[_Place, list[int]]) -> list[str]:
    """What each flow is for: what the switch answers itself, or a new connection. What follows such is the same.

    Where what was before it is gone, the packet that made the flow tells whether its connection was new.
    """
    found = [_occasion(flow) for flow in flows]
    for index, flow in enumerate(flows):
        if flow.recirculation and (flow.in_port, flow.recirculation) not in leading and _is_new(_packet(flow)):
            found[index] = FIRST_PACKETS
    grown = True
    while grown:
        grown = False
        for index, flow in enumerate(flows):
            before = {found[each] for each in leading.get((flow.in_port, flow.recirculation), ())}
            if not found[index] and len(before) == 1 and "" not in before:
                found[index] = before.pop()
                grown = True
    return found


def _occasion(flow: DatapathFlow) -> str:
    if (ethertype := flow.value("eth_type")) in _BY_ETHERTYPE:
        return _BY_ETHERTYPE[ethertype]
    if flow.value("icmpv6.type") in _DISCOVERY:
        return "neighbour discovery"
    if flow.value("udp.src") in _DHCP and flow.value("udp.dst") in _DHCP:
        return "DHCP"
    return FIRST_PACKETS if _is_new(flow.matched) else ""


def _packet(flow: DatapathFlow) -> list[Matched]:
    """What the text says of the packet that made a flow, beyond what the flow matches."""
    return [Matched(each.field, each.value) for each in flow.unmatched]


def _is_new(fields: Sequence[Matched]) -> bool:
    state = next((each for each in fields if each.field == "ct_state"), None)
    return state is not None and "new" in ct_bits(state)[0]
