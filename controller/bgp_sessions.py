"""The sessions with BGP's peers, sans I/O: what ExaBGP says comes in, commands for it come out.

Owns what each peer has been told, and what it is to be told yet. There is no queue: a command is a difference between
the two, so what changes twice before it is said is said once, and there are never more commands than routes.

A peer is told nothing before its first session is up: only then is it known whether it takes several next hops for one
prefix (ADD-PATH, RFC 7911) and which families. Later ExaBGP tells it again what it has been told, by itself. End-of-RIB
(RFC 4724) is sent after everything else, at each session's start: what a peer had kept from before and wasn't told
again is withdrawn then, and not a moment earlier.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from controller.bgp_settings import HOLD_TIME, BgpSettings, Peer
from topology.announcements import Route
from topology.naming import Address, Network

#: What routers mean by the codes of a NOTIFICATION (RFC 4271 section 6, RFC 4486), where there is something to do.
_CODES = {
    "2,2": "wrong AS: what --bgp-as and --bgp-peer say isn't what the router's configuration says",
    "2,3": "bad router id: --bgp-router-id is the router's own, or another peer's",
    "2,6": "the hold time isn't accepted",
    "4,0": "nothing was heard for the hold time",
    "6,2": "the router's side is shut down",
    "6,3": "the router doesn't know this peer: look at the address that the session is from",
    "6,5": "the router rejects the connection",
    "6,7": "both sides connected at once; the other connection goes on",
}
_UNSPECIFIC = "closing connection"


class Place(NamedTuple):
    """Where a peer keeps a next hop: `path` is 0 where it takes one for each prefix."""

    prefix: Network
    path: int


class News(NamedTuple):
    """A line for the log, whether something is wrong, and the peer that it is about, if it is about one."""

    wrong: bool
    line: str
    peer: str = ""


class _Event(msgspec.Struct):
    """The part of ExaBGP's JSON that is used."""

    type: str
    neighbor: dict[str, Any] = {}


class Session:
    """One peer."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.up = False
        #: When it came up, in the clock's time.
        self.since = 0.0
        #: Why it isn't up, as far as that is known.
        self.reason = "not connected yet"
        #: The families that it takes, and of which of them several next hops; None before it was heard.
        self.terms: tuple[frozenset[int], frozenset[int]] | None = None
        self.told: dict[Place, Address] = {}
        #: The routes that it has been told, while nothing has changed.
        self.settled: tuple[Route, ...] | None = None
        #: Whether it waits for End-of-RIB.
        self.waits = False

    def wanted(self, routes: Iterable[Route]) -> dict[Place, Address]:
        """What it is to be told, given what it takes."""
        families, several = self.terms or (frozenset(), frozenset())
        kept: dict[Network, dict[Address, int]] = {}
        for place, hop in self.told.items():
            kept.setdefault(place.prefix, {})[hop] = place.path
        wanted: dict[Place, Address] = {}
        for route in routes:
            version = route.prefix.version
            if version in several:
                numbers = _numbers(route.next_hops, kept.get(route.prefix, {}))
                wanted |= {Place(route.prefix, path): hop for hop, path in numbers.items()}
            elif version in families:
                wanted[Place(route.prefix, 0)] = route.next_hops[0]
        return wanted


def _numbers(hops: Iterable[Address], kept: Mapping[Address, int]) -> dict[Address, int]:
    """A number for each next hop of a prefix: what it has already, so that those which stay aren't touched."""
    numbers = {hop: kept[hop] for hop in hops if hop in kept}
    free = (path for path in count(1) if path not in numbers.values())
    for hop in hops:
        if hop not in numbers:
            numbers[hop] = next(free)
    return numbers


class Sessions:
    """All peers."""

    def __init__(self, settings: BgpSettings) -> None:
        self.settings = settings
        self.sessions = {each.address: Session(each) for each in settings.peers}
        self.routes: tuple[Route, ...] = ()
        #: What is to be told.
        self.news: list[News] = []
        #: Set when what a peer was told can't be made to fit but by starting ExaBGP anew.
        self.spoilt = False

    def begin(self) -> None:
        """ExaBGP starts: nobody has been told anything by it."""
        self.spoilt = False
        for session in self.sessions.values():
            self._down(session, session.reason if not session.up else "BGP's engine has ended")
            session.told, session.settled, session.terms, session.waits = {}, None, None, False

    # ExaBGP speaks ------------------------------------------------------------------------------------------------

    def heard(self, line: bytes, now: float) -> None:
        """A line of ExaBGP's: an event as JSON, or an answer to a command."""
        if not line.startswith(b"{"):
            if line.strip() == b"error":
                self.news.append(News(True, "engine: ExaBGP hasn't understood a command; its own log says which"))
            return
        try:
            event = msgspec.json.decode(line, type=_Event)
            session = self.sessions[ip_address(event.neighbor["address"]["peer"])]
        except (msgspec.DecodeError, KeyError, TypeError, ValueError):
            # Of no peer, or of something that later versions tell.
            return
        match event.type:
            case "negotiated":
                self._negotiated(session, event.neighbor.get("negotiated", {}))
            case "state":
                self._state(session, event.neighbor, now)

    def _negotiated(self, session: Session, found: dict[str, Any]) -> None:
        terms = _versions(found.get("families", ())), _versions(found.get("add_path", {}).get("send", ()))
        # A router that was configured anew: ExaBGP would tell it again what it can't take, or take amiss.
        self.spoilt |= bool(session.told) and terms != session.terms
        session.terms, session.settled = terms, None

    def _state(self, session: Session, neighbor: dict[str, Any], now: float) -> None:
        match neighbor.get("state"):
            case "up":
                session.up, session.since, session.waits = True, now, True
                session.reason = ""
                several = "several next hops" if session.terms and session.terms[1] else "one next hop for each prefix"
                self._tell(False, session, f"is up, takes {several}")
            case "down":
                self._down(session, _reason(str(neighbor.get("reason", "")), session.peer))

    def _down(self, session: Session, reason: str) -> None:
        """A session has ended, or wasn't to be had: told once, unless it is for another reason."""
        # Between two refusals there are connections that just end: that is no other reason.
        known = session.reason.startswith("it ended with") and reason.startswith("no connection")
        if session.up or (reason != session.reason and not known):
            self._tell(True, session, f"is down: {reason}")
            session.reason = reason
        session.up, session.waits = False, False

    def _tell(self, wrong: bool, session: Session, what: str) -> None:
        peer = session.peer
        self.news.append(News(wrong, f"peer {peer.address} (AS {peer.asn}) {what}", str(peer.address)))

    # It is spoken to ----------------------------------------------------------------------------------------------

    def commands(self) -> list[str]:
        """What is to be said now, given what was said: one line for all peers that it is for."""
        lines: dict[str, list[Address]] = {}
        for address, session in self.sessions.items():
            if session.terms is not None and session.settled is not self.routes:
                wanted = session.wanted(self.routes)
                for line in _differences(session.told, wanted):
                    lines.setdefault(line, []).append(address)
                session.told, session.settled = wanted, self.routes
        for address, session in self.sessions.items():
            if session.waits and session.terms is not None:
                session.waits = False
                for version in sorted(session.terms[0]):
                    lines.setdefault(f"announce eor ipv{version} unicast", []).append(address)
        return [f"{', '.join(f'neighbor {each}' for each in who)} {line}" for line, who in lines.items()]

    def configuration(self, api: list[str]) -> str:
        """ExaBGP's configuration; `api` is the program that joins it to us."""
        own, peers = self.settings, []
        for peer in own.peers:
            listens = own.listens(peer)
            local = str(listens[0]) if listens else "auto"
            # It connects to the port that is the peer's, and listens where the peer connects to.
            ports = f"connect {peer.port};" + (f" listen {listens[1]};" if listens else "")
            peers.append(
                f"neighbor {peer.address} {{ inherit signalbox; peer-as {peer.asn}; local-address {local}; {ports} }}"
            )
        families = "ipv4 unicast; ipv6 unicast;"
        return "\n".join([
            f"process signalbox {{ run {' '.join(api)}; encoder json; respawn false; }}",
            "template { neighbor signalbox {",
            f"  local-as {own.asn}; router-id {own.router_id}; hold-time {HOLD_TIME};",
            "  manual-eor true; adj-rib-in false; group-updates true;",
            f"  capability {{ graceful-restart {own.restart_time}; add-path send; asn4 enable; }}",
            f"  family {{ {families} }}",
            f"  add-path {{ {families} }}",
            "  api { processes [ signalbox ]; neighbor-changes; negotiated; }",
            "} }",
            *peers,
            "",
        ])  # fmt: skip

    # People ask ---------------------------------------------------------------------------------------------------

    def rows(self, now: float) -> Iterator[dict[str, Any]]:
        """Every peer, and how its session is."""
        for address, session in self.sessions.items():
            yield {
                "name": str(address),
                "as": session.peer.asn,
                "port": session.peer.port,
                "state": "Established" if session.up else "Down",
                "seconds": round(now - session.since) if session.up else None,
                "routes": len({place.prefix for place in session.told}) if session.up else 0,
                "addPath": bool(session.terms and session.terms[1]) if session.up else None,
                "reason": session.reason,
            }


def _differences(told: dict[Place, Address], wanted: dict[Place, Address]) -> Iterator[str]:
    """New ones first: a prefix that goes over to another place is never without a next hop."""
    if told == wanted:
        return
    for place, hop in wanted.items():
        if told.get(place) != hop:
            yield f"announce {_words(place, hop)}"
    for place, hop in told.items():
        if place not in wanted:
            yield f"withdraw {_words(place, hop)}"


def _words(place: Place, hop: Address) -> str:
    path = f" path-information {place.path}" if place.path else ""
    return f"route {place.prefix} next-hop {hop}{path}"


def _versions(families: Iterable[str]) -> frozenset[int]:
    return frozenset(version for version in (4, 6) if f"ipv{version} unicast" in families)


def _reason(text: str, peer: Peer) -> str:
    """What ExaBGP gives for a reason, in a person's words."""
    if not text or text == _UNSPECIFIC:
        return f"no connection with port {peer.port} of {peer.address}, or it was closed without a reason"
    for code, meaning in _CODES.items():
        if f"({code})" in text:
            return f"it ended with {meaning}"
    return f"it ended with {text}"


def relay_command(python: str, socket_path: Path) -> list[str]:
    """The program that ExaBGP runs: Python without anything installed, which is light."""
    return [python, "-I", "-S", str(Path(__file__).with_name("bgp_relay.py")), str(socket_path)]
