"""Track, TrackState and Commit: connections. One recirculation for each packet; only new connections are committed."""

from __future__ import annotations

from collections.abc import Iterator

from flows import fields as f
from flows.pipeline import COMMIT, OUTPUT, ROUTE, TRACK, TRACK_STATE
from flows.registers import Zone
from flows.values import DROP, Ct, Flow, Goto, Nat

_PRIORITY, _OTHERWISE = 200, 0
_FAMILIES = ((f.ETH_IPV4, Zone.IPV4), (f.ETH_IPV6, Zone.IPV6))
_INVALID = f.CT_STATE(f.CT_INV | f.CT_TRK, f.CT_INV | f.CT_TRK)
_NEW = f.CT_STATE(f.CT_NEW | f.CT_TRK, f.CT_NEW | f.CT_TRK)


def pipeline_flows(cookie: int) -> Iterator[Flow]:
    """The three tables; none depends on the node."""
    for ethertype, zone in _FAMILIES:
        track = (Ct(zone, table=TRACK_STATE.number, nat=Nat()),)
        yield Flow(TRACK.number, _PRIORITY, (f.ETH_TYPE(ethertype),), track, cookie)

    # A packet of no connection that can't open one either: a late segment, an answer that nobody asked for.
    yield Flow(TRACK_STATE.number, _PRIORITY, (_INVALID,), DROP, cookie)
    yield Flow(TRACK_STATE.number, _OTHERWISE, (), (Goto(ROUTE.number),), cookie)

    # The first packets of a connection, until it has been answered. Both nodes of a path commit: so both know replies.
    for ethertype, zone in _FAMILIES:
        commit = (Ct(zone, commit=True), Goto(OUTPUT.number))
        yield Flow(COMMIT.number, _PRIORITY, (_NEW, f.ETH_TYPE(ethertype)), commit, cookie)
    yield Flow(COMMIT.number, _OTHERWISE, (), (Goto(OUTPUT.number),), cookie)
