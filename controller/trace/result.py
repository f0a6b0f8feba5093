"""What a trace is: the nodes that a packet crosses, the flows that it meets in each, and what becomes of it.

The same whether it comes from the model or from switches that report a marked packet: what both say must be equal
(`differences`). Words are for people and are never compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from flows.values import FlowKey


class Verdict(StrEnum):
    """What became of the packet."""

    DELIVERED = "Delivered"
    DROPPED = "Dropped"
    #: The host refuses it: no Service offers what it asks for, or nobody can be reached at that address.
    REJECTED = "Rejected"


class Place(StrEnum):
    """What kind of end a way has."""

    POD = "Pod"
    #: The node's own network stack.
    HOST = "Host"
    #: By the node's host to wherever it routes to.
    WORLD = "World"
    #: A switch: it was dropped there.
    SWITCH = "Switch"


class Question(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The first packet of a connection, as it leaves `source`. `port` is 0 for ICMP; `family` is 4 or 6."""

    source: str
    destination: str
    source_address: str
    destination_address: str
    protocol: str
    source_port: int
    port: int
    family: int


class Step(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One table crossed. Without a flow nothing matched there, which drops the packet."""

    table: str
    number: int
    #: Which flow it was, to be looked up in a dump; None for a miss.
    flow: FlowKey | None
    cookie: int = 0
    #: Who the flow was made for: `Pod default/web`.
    object: str = ""
    words: str = ""
    ofctl: str = ""


class Translation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """NAT that a node does: `end` is `source` or `destination`; addresses with ports, as people write them."""

    end: str
    before: str
    after: str


class Visit(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What one switch did with the packet. A packet that visits a switch twice has two visits."""

    node: str
    #: The name of the port by which it entered, and what is there.
    entered: str
    entered_from: str
    #: Its OpenFlow number.
    in_port: int
    steps: tuple[Step, ...]
    translations: tuple[Translation, ...] = ()
    #: The port by which it left; empty where it was dropped.
    left: str = ""
    out_port: int = 0
    #: What is at the port: `pod default/web`, `the tunnel to node-2 (172.30.0.2)`, `the host`.
    left_to: str = ""


class Hop(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """From one switch to the next: `how` is Tunnel, Routed or Wire."""

    source: str
    target: str
    how: str


class End(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where the way ends. `name` is the pod's `namespace/name` or the node's; `why` says why it wasn't delivered."""

    place: Place
    node: str
    name: str
    address: str = ""
    port: int = 0
    why: str = ""


class Judgement(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a policy table came to: `action` is Accept, Deny or Pass, `words` say which rule of which policy."""

    node: str
    table: str
    action: str
    object: str
    words: str


class Trace(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The whole way of one packet."""

    question: Question
    verdict: Verdict
    end: End
    visits: tuple[Visit, ...] = ()
    hops: tuple[Hop, ...] = ()
    #: The Service's port that it was bound for, the endpoint that was chosen, and all that may be: `address:port`.
    service: str = ""
    endpoint: str = ""
    endpoints: tuple[str, ...] = ()
    judgements: tuple[Judgement, ...] = ()


def differences(said: Trace, seen: Trace) -> Iterator[str]:
    """What a second trace of one question has otherwise than the first, in words; nothing where they agree.

    A Service's endpoint may be another one, which isn't the model's to say: have the model trace to the one that was
    chosen (`endpoint`) before they are compared.
    """
    if said.verdict is not seen.verdict:
        yield f"it should be {said.verdict}, and was {seen.verdict}"
    if (said.end.place, said.end.node, said.end.name) != (seen.end.place, seen.end.node, seen.end.name):
        yield f"it should end at {_end(said.end)}, and ended at {_end(seen.end)}"
    nodes = [visit.node for visit in said.visits], [visit.node for visit in seen.visits]
    if nodes[0] != nodes[1]:
        yield f"it should cross {_join(nodes[0])}, and crossed {_join(nodes[1])}"
        return
    for here, there in zip(said.visits, seen.visits, strict=True):
        yield from _visit_differences(here, there)


def _visit_differences(said: Visit, seen: Visit) -> Iterator[str]:
    for one, other in zip(said.steps, seen.steps, strict=False):
        if one.number != other.number:
            yield f"{said.node}: it should go on in {one.table}, and went on in {other.table}"
            return
        if one.flow != other.flow:
            yield f"{said.node}, {one.table}: it should meet {one.ofctl or 'no flow'}, and met {other.ofctl or 'none'}"
            return
    if len(said.steps) != len(seen.steps):
        longer = max(said.steps, seen.steps, key=len)[min(len(said.steps), len(seen.steps))]
        yield f"{said.node}: {'not' if longer in said.steps else 'also'} seen in {longer.table}"
    if said.out_port != seen.out_port:
        yield f"{said.node}: it should leave by {said.left or 'no port'}, and left by {seen.left or 'none'}"


def _end(end: End) -> str:
    return (
        f"{end.place.lower()} {end.name} on {end.node}" if end.name != end.node else f"{end.place.lower()} {end.node}"
    )


def _join(names: list[str]) -> str:
    return ", ".join(names) or "no switch"
