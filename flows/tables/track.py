"""UnSNAT, Track, TrackState and Commit: connections. One recirculation for each packet; only new ones are committed.

A connection is in its family's zone as its client sees it, with a Service's endpoint for its destination. Where the
answer would miss this bridge - the client is the endpoint itself, or the host, or the endpoint is on another node and
the client in the world - Commit also gives it another source, in a zone of its own, after everything that looks at the
true one; UnSNAT undoes that first of all.
"""

from __future__ import annotations

from collections.abc import Iterator

from flows import fields as f
from flows.fields import Term
from flows.pipeline import COMMIT, LOCALITY, OUTPUT, ROUTE, SERVICE_STATS, TRACK, TRACK_STATE, UNSNAT
from flows.registers import (
    CT_ZONE,
    EXIT,
    FROM_WORLD,
    HAIRPIN,
    MARK_SERVICE,
    MARK_WORLD,
    SNAT_ZONE,
    SOURCE,
    SOURCE_IDENTITY,
    SUBNET,
    TO_OTHER_NODES,
    TO_POD,
    Exit,
    Identity,
    Source,
    Zone,
    zone_of,
)
from flows.state import LocalPod
from flows.values import DROP, Ct, Flow, Goto, Move, Nat, Program, SetField, load
from topology.naming import HAIRPIN_ADDRESSES, Address

#: Of Commit: what gets another source comes before what is committed as it is.
_ERROR, _RESOURCE, _COMMITTED, _OF_WORLD = 240, 230, 220, 210
#: Of TrackState.
_INVALID_FIRST, _OF_SERVICE = 220, 210
_PRIORITY, _OTHERWISE = 200, 0
_SNAT_ZONES = {4: Zone.SNAT_IPV4, 6: Zone.SNAT_IPV6}
_ETHERTYPES = {4: f.ETH_TYPE(f.ETH_IPV4), 6: f.ETH_TYPE(f.ETH_IPV6)}
_ZONES = {4: Zone.IPV4, 6: Zone.IPV6}
_INVALID = f.CT_STATE(f.CT_INV | f.CT_TRK, f.CT_INV | f.CT_TRK)
_NEW = f.CT_STATE(f.CT_NEW | f.CT_TRK, f.CT_NEW | f.CT_TRK)
_RELATED = f.CT_STATE(f.CT_REL | f.CT_TRK, f.CT_REL | f.CT_TRK)
_FORWARD = f.CT_STATE(f.CT_TRK, f.CT_RPL | f.CT_TRK)
_FROM_WORLD = Move(FROM_WORLD, MARK_WORLD)


def pipeline_flows(cookie: int) -> Iterator[Flow]:
    """What doesn't depend on the node."""
    for hairpin in HAIRPIN_ADDRESSES:
        # An answer to the address that stands for the asker itself: it goes back by the port by which it came.
        yield _unsnat(hairpin, cookie, hairpin=True)
    yield Flow(UNSNAT.number, _OTHERWISE, (), (Goto(TRACK.number),), cookie)

    for version in (4, 6):
        yield Flow(TRACK.number, _PRIORITY, (_ETHERTYPES[version],), _track(version), cookie)

    # A packet of no connection that can't open one either: a late segment, an answer that nobody asked for.
    yield Flow(TRACK_STATE.number, _INVALID_FIRST, (_INVALID,), DROP, cookie)
    # Its endpoint was chosen when its connection began: it is only counted.
    yield Flow(TRACK_STATE.number, _OF_SERVICE, (MARK_SERVICE(1),), (Goto(SERVICE_STATS.number),), cookie)
    yield Flow(TRACK_STATE.number, _PRIORITY, (_NEW,), (Goto(LOCALITY.number),), cookie)
    yield Flow(TRACK_STATE.number, _OTHERWISE, (), (Goto(ROUTE.number),), cookie)

    for version, hairpin in zip((4, 6), HAIRPIN_ADDRESSES, strict=True):
        family = _ETHERTYPES[version]
        # From the host to the host: for its own packets it would take answers to itself for nobody's.
        for source in (Source.GATEWAY, Source.WORLD):
            match = f.match(SOURCE(source), EXIT(Exit.GATEWAY), _FORWARD, family)
            yield Flow(COMMIT.number, _RESOURCE, match, _back_to_host(hairpin), cookie)
        # The first packets of a connection, until it has been answered. Both nodes of a path commit: so both know
        # replies. What has an endpoint was committed with it.
        yield Flow(COMMIT.number, _COMMITTED, f.match(_NEW, MARK_SERVICE(1), family), (Goto(OUTPUT.number),), cookie)
        commit = (Ct(CT_ZONE, commit=True, execute=(_FROM_WORLD,)), Goto(OUTPUT.number))
        yield Flow(COMMIT.number, _OF_WORLD, f.match(SOURCE(Source.WORLD), _NEW, family), commit, cookie)
        commit = (Ct(CT_ZONE, commit=True), Goto(OUTPUT.number))
        yield Flow(COMMIT.number, _PRIORITY, f.match(_NEW, family), commit, cookie)
    yield Flow(COMMIT.number, _OTHERWISE, (), (Goto(OUTPUT.number),), cookie)


def pod_flows(pod: LocalPod, cookie: int) -> Iterator[Flow]:
    """A pod that a Service sends to itself sees itself as the hairpin address: to its own it would not answer."""
    for address in pod.addresses:
        # In the order that f.match would give them: there are as many of these as pods.
        match = (_FORWARD, _ETHERTYPES[address.version], _from(address), _to(address))
        yield Flow(COMMIT.number, _RESOURCE, match, _TO_ITSELF[address.version], cookie)


def node_flows(translations: tuple[Address, ...], bridge_index: int, cookie: int) -> Iterator[Flow]:
    """What the world sends to a Service on another node gets this node's own source: so answers come back here.

    The same address stands for the host where it refuses what came by itself: Linux takes no IPv4 packet for true that
    claims to be from one of its own addresses, and ICMP errors do.
    """
    if bridge_index:
        for hairpin in HAIRPIN_ADDRESSES:
            yield _unsnat(hairpin, cookie, hairpin=True, bridge_index=bridge_index)
    for address in translations:
        yield _unsnat(address, cookie, hairpin=False, bridge_index=bridge_index)
        ethertype = _ETHERTYPES[address.version]
        for way in TO_OTHER_NODES:
            match = f.match(SOURCE(Source.WORLD), EXIT(way), _FORWARD, MARK_SERVICE(1), ethertype)
            yield Flow(COMMIT.number, _RESOURCE, match, (_snat(address),), cookie)
            # Judged here, by its true source; where the endpoint's identity isn't known, it is judged there.
            judged = (load(SOURCE_IDENTITY, Identity.JUDGED), _snat(address))
            yield Flow(COMMIT.number, _RESOURCE + 1, f.match(*match, TO_POD(1)), judged, cookie)
        if address.version == 4:
            refusals = f.match(
                SOURCE(Source.GATEWAY), EXIT(Exit.GATEWAY), _RELATED, ethertype, f.IP_PROTO(f.PROTO_ICMP)
            )
            program = (SetField(f.IPV4_SRC, int(address)), Goto(OUTPUT.number))
            yield Flow(COMMIT.number, _ERROR, refusals, program, cookie)


def routed_flows(gateway: int, translations: tuple[Address, ...], bridge_index: int, cookie: int) -> Iterator[Flow]:
    """What came from the host and goes back there.

    What the world, or the host itself, sends to a Service on another node gets this node's own source, and the answers
    come the same way. What another node's pod sends to a port of this node is for the host, or to be refused by it.
    """
    for version, hairpin in zip((4, 6), HAIRPIN_ADDRESSES, strict=True):
        match = f.match(f.IN_PORT(gateway), SOURCE(Source.TUNNEL), EXIT(Exit.GATEWAY), _FORWARD, _ETHERTYPES[version])
        yield Flow(COMMIT.number, _RESOURCE, match, _back_to_host(hairpin), cookie)
    for address in translations:
        ethertype = _ETHERTYPES[address.version]
        for source in (Source.GATEWAY, Source.WORLD):
            match = f.match(SOURCE(source), EXIT(Exit.ROUTED), _FORWARD, MARK_SERVICE(1), ethertype)
            yield Flow(COMMIT.number, _RESOURCE, match, (load(HAIRPIN, 1), _snat(address)), cookie)
        yield _unsnat(address, cookie, hairpin=True, port=gateway, bridge_index=bridge_index)


def own_flow(version: int, subnet: int, bridge_index: int, cookie: int) -> Flow:
    """What is this node's own about one family: its zones on a datapath that it shares, and its L2 segment, 0 for none.

    What is of that family may stay on the segment.
    """
    own = (load(SUBNET, subnet),) if subnet else ()
    return Flow(TRACK.number, _PRIORITY + 1, (_ETHERTYPES[version],), (*own, *_track(version, bridge_index)), cookie)


def _track(version: int, bridge_index: int = 0) -> Program:
    zones = zone_of(_SNAT_ZONES[version], bridge_index) << SNAT_ZONE.start | zone_of(_ZONES[version], bridge_index)
    return (SetField(CT_ZONE.field, zones), Ct(CT_ZONE, table=TRACK_STATE.number, nat=Nat()))


def _back_to_host(hairpin: Address) -> Program:
    return (Ct(CT_ZONE, commit=True, execute=(_FROM_WORLD,)), load(HAIRPIN, 1), _snat(hairpin))


def _snat(address: Address) -> Ct:
    nat = Nat("src", address_min=int(address), ipv6=address.version == 6)
    return Ct(SNAT_ZONE, commit=True, table=OUTPUT.number, nat=nat)


def _unsnat(address: Address, cookie: int, *, hairpin: bool, port: int = 0, bridge_index: int = 0) -> Flow:
    # Before Track, which says what the zones are.
    undo = Ct(zone_of(_SNAT_ZONES[address.version], bridge_index), table=TRACK.number, nat=Nat())
    program = (load(HAIRPIN, 1), undo) if hairpin else (undo,)
    entry = (f.IN_PORT(port),) if port else ()
    match = (*entry, _ETHERTYPES[address.version], _to(address))
    return Flow(UNSNAT.number, _PRIORITY + bool(port) + bool(bridge_index), match, program, cookie)


def _from(address: Address) -> Term:
    return (f.IPV4_SRC if address.version == 4 else f.IPV6_SRC)(int(address))


def _to(address: Address) -> Term:
    return (f.IPV4_DST if address.version == 4 else f.IPV6_DST)(int(address))


#: By family: what a pod sends to itself by a Service.
_TO_ITSELF: dict[int, Program] = {each.version: (load(HAIRPIN, 1), _snat(each)) for each in HAIRPIN_ADDRESSES}
