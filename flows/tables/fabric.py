"""Fabric: bridges that are wired port to port, and the frames that go from one to the next until they are there.

On a wire a frame is bound for a node, and its source says who sends: FABRIC_MAC_PREFIX and a hash of the node's name,
FABRIC_SENDER_PREFIX and the sender's identity. So a bridge between matches nodes and never pods, policies work as by
tunnel, and no MTU is lost. What a wire brings is for this node, or goes on by the next wire with one hop less to go:
while ways change a packet may go round, and that ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from flows import fields as f
from flows.fields import Match
from flows.pipeline import CLASSIFY, FABRIC, UNSNAT
from flows.registers import EXIT, SOURCE, SOURCE_IDENTITY, TUNNEL_KEY, WIRE_KEY, Exit, Identity, Source
from flows.tables.classify import PACKET
from flows.values import DROP, Bucket, DecTtl, Flow, Goto, Group, GroupType, Move, Output, Program, ToGroup, load
from topology.naming import FABRIC_MAC_PREFIX, FABRIC_SENDER_PREFIX

#: Of Classify: for this node, from its own kind of sender; in transit.
_OURS, _HOST, _TRANSIT = PACKET, PACKET + 1, PACKET - 10
#: Of Fabric.
_WAY, _NO_TUNNEL, _BY_TUNNEL = 200, 110, 100
_FAMILIES = (f.ETH_TYPE(f.ETH_IPV4), f.ETH_TYPE(f.ETH_IPV6))
#: The sender is who the frame says; "this host" to itself is another node to us.
_KNOWN: Program = (load(SOURCE, Source.TUNNEL), Move(WIRE_KEY, SOURCE_IDENTITY), Goto(UNSNAT.number))
_OTHER_HOST: Program = (load(SOURCE, Source.TUNNEL), load(SOURCE_IDENTITY, Identity.OTHER_NODE), Goto(UNSNAT.number))
_ON: Program = (DecTtl(), Goto(FABRIC.number))
#: A sender's MAC but for the identity; a node's but for the hash.
_FROM_NODE = f.ETH_SRC(FABRIC_SENDER_PREFIX << 32, 0xFFFF_FF00_0000)
_FROM_HOST = f.ETH_SRC(FABRIC_SENDER_PREFIX << 32 | Identity.THIS_HOST)
_FOR_NODE = f.ETH_DST(FABRIC_MAC_PREFIX << 32, 0xFFFF_0000_0000)


def entry_flows(port: int, mac: int, cookie: int, *, transit_only: bool) -> Iterator[Flow]:
    """What may enter by a wire: what is bound for this node, whose address in the fabric is `mac`, or for another."""
    entry, ours = f.IN_PORT(port), f.ETH_DST(mac)
    table = CLASSIFY.number
    for family in _FAMILIES:
        if not transit_only:
            # For this node. Neighbour discovery never crosses a wire: Classify drops it above this.
            yield Flow(table, _OURS, (entry, ours, _FROM_NODE, family), _KNOWN, cookie)
            yield Flow(table, _HOST, (entry, ours, _FROM_HOST, family), _OTHER_HOST, cookie)
        # For another node.
        yield Flow(table, _TRANSIT, (entry, _FOR_NODE, _FROM_NODE, family), _ON, cookie)


def way_flow(mac: int, program: Program, cookie: int) -> Flow:
    """On the way to the node with this address in the fabric."""
    return Flow(FABRIC.number, _WAY, _bound_for(mac), program, cookie)


# The same on all switches: made once, it is in memory once.
@lru_cache(maxsize=1 << 14)
def _bound_for(mac: int) -> Match:
    return (f.ETH_DST(mac),)


def tunnel_flows(port: int, cookie: int) -> Iterator[Flow]:
    """Where no wire leads to the node, what comes from here goes by tunnel, if Route knew where that ends."""
    unknown = f.match(EXIT(Exit.FABRIC), f.TUN_DST(0), f.TUN_IPV6_DST(0))
    yield Flow(FABRIC.number, _NO_TUNNEL, unknown, DROP, cookie)
    program = (Move(SOURCE_IDENTITY, TUNNEL_KEY), Output(port))
    yield Flow(FABRIC.number, _BY_TUNNEL, (EXIT(Exit.FABRIC),), program, cookie)


@lru_cache(maxsize=1 << 12)
def by_port(port: int) -> Program:
    """The only wire there is."""
    return (Output(port),)


@lru_cache(maxsize=1 << 14)
def by_group(number: int) -> Program:
    """One of several wires."""
    return (ToGroup(number),)


def spread(number: int, ports: tuple[int, ...], basis: int) -> Group:
    """Connections spread evenly over all wires that have a link.

    The switch hashes addresses and ports, from a `basis` of its own (32 bits): the same hash at two switches in a row
    would send all that the first one has sent to the second the same way again.
    """
    return Group(number, GroupType.SELECT, _buckets(ports), "dp_hash", basis)


def fallback(number: int, ports: tuple[int, ...]) -> Group:
    """The first wire that has a link."""
    return Group(number, GroupType.FAST_FAILOVER, _buckets(ports))


def _buckets(ports: tuple[int, ...]) -> tuple[Bucket, ...]:
    return tuple(_bucket(index, port) for index, port in enumerate(ports))


# Thousands of groups share it.
@lru_cache(maxsize=1 << 16)
def _bucket(index: int, port: int) -> Bucket:
    return Bucket(index, by_port(port), watch_port=port)
