"""What `signalbox controller` is told about BGP: its own side, and its peers. Words in, values or an error out."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address

import msgspec

from topology.naming import Address

#: RFC 4271 section 10 suggests 90 seconds of silence; RFC 4724 has 12 bits for the seconds of a restart.
HOLD_TIME, MAX_RESTART_TIME = 90, 4095
_PORT = 179


class BgpSettingsError(Exception):
    """Options that can't be, with the option's name and what to give instead."""


class Peer(msgspec.Struct, frozen=True):
    """A router: where it is, and its AS."""

    address: Address
    asn: int
    port: int = _PORT


class BgpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Our side of BGP. `listen`: where peers of each family may connect to; empty where only we connect."""

    asn: int
    router_id: IPv4Address
    peers: tuple[Peer, ...]
    listen: tuple[tuple[Address, int], ...] = ()
    restart_time: int = 120

    @classmethod
    def parse(
        cls, asn: int | None, peers: Iterable[str], router_id: str | None, listen: Iterable[str], restart_time: int
    ) -> BgpSettings | None:
        """From a command line's words; None where BGP isn't asked for. Raises BgpSettingsError."""
        known = tuple(_peer(each) for each in peers)
        listening = tuple(_listen(each) for each in listen)
        if not known:
            if asn is not None or router_id is not None or listening:
                raise BgpSettingsError(
                    "--bgp-as, --bgp-router-id and --bgp-listen go with --bgp-peer: say who the routers are"
                )
            return None
        if asn is None:
            raise BgpSettingsError("--bgp-peer goes with --bgp-as: say which AS this side is, as 64512")
        _check_as("--bgp-as", str(asn), asn)
        if not 1 <= restart_time <= MAX_RESTART_TIME:
            raise BgpSettingsError(f"--bgp-restart-time {restart_time}: give 1 to {MAX_RESTART_TIME} seconds")
        for address in {each.address for each in known}:
            if sum(each.address == address for each in known) > 1:
                raise BgpSettingsError(f"--bgp-peer: {address} is there twice; a router is one peer, once")
        for version in (4, 6):
            if sum(address.version == version for address, _ in listening) > 1:
                raise BgpSettingsError(f"--bgp-listen: two IPv{version} addresses; give one of each family at most")
        own = _router_id(router_id, known, listening)
        return cls(asn=asn, router_id=own, peers=known, listen=listening, restart_time=restart_time)

    def listens(self, peer: Peer) -> tuple[Address, int] | None:
        """Where a peer can connect to."""
        return next((each for each in self.listen if each[0].version == peer.address.version), None)


def check_listen(settings: BgpSettings) -> None:
    """Whether this process may listen where it is to. Raises BgpSettingsError."""
    for address, port in settings.listen:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((str(address), port))
            except OSError as error:
                remedy = {
                    errno.EACCES: "choose a port above 1023 and tell the routers, or give CAP_NET_BIND_SERVICE",
                    errno.EADDRNOTAVAIL: "give an address of this machine",
                }.get(error.errno or 0)
                # One that is in use may be that of the controller before us, which is about to end: tried again later.
                if remedy is not None:
                    text = f"--bgp-listen {_words(address, port)}: {error.strerror}; {remedy}"
                    raise BgpSettingsError(text) from error


def _peer(text: str) -> Peer:
    hint = "give ADDRESS@AS or ADDRESS@AS:PORT, as 192.0.2.1@64512"
    address, at, rest = text.partition("@")
    asn, colon, port = rest.partition(":")
    if not at or not asn.isdecimal() or (colon and not port.isdecimal()):
        raise BgpSettingsError(f"--bgp-peer {text}: {hint}")
    try:
        found = ip_address(address)
    except ValueError as error:
        raise BgpSettingsError(f"--bgp-peer {text}: {address!r} isn't an address; {hint}") from error
    _check_as("--bgp-peer", text, int(asn))
    number = int(port) if colon else _PORT
    if not 1 <= number <= 65535:
        raise BgpSettingsError(f"--bgp-peer {text}: {number} isn't a port; {hint}")
    return Peer(found, int(asn), number)


def _check_as(option: str, text: str, asn: int) -> None:
    if not 1 <= asn <= 0xFFFF_FFFE or asn == 23456:
        raise BgpSettingsError(
            f"{option} {text}: {asn} is no AS that a router can have; private ones are 64512 to 65534 and "
            "4200000000 to 4294967294"
        )


def _listen(text: str) -> tuple[Address, int]:
    host, _, port = text.rpartition(":")
    try:
        address = ip_address(host.strip("[]"))
    except ValueError as error:
        raise BgpSettingsError(f"--bgp-listen {text}: give ADDRESS:PORT, as 192.0.2.5:179") from error
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise BgpSettingsError(f"--bgp-listen {text}: {port!r} isn't a port; give ADDRESS:PORT, as 192.0.2.5:179")
    if address.is_unspecified:
        raise BgpSettingsError(
            f"--bgp-listen {text}: give the address that routers know this machine by; sessions are from it too"
        )
    return address, int(port)


def _router_id(text: str | None, peers: Iterable[Peer], listening: Iterable[tuple[Address, int]]) -> IPv4Address:
    if text is not None:
        try:
            found = IPv4Address(text)
        except ValueError as error:
            raise BgpSettingsError(f"--bgp-router-id {text}: give four bytes, as 192.0.2.5") from error
        if not int(found):
            raise BgpSettingsError(f"--bgp-router-id {text}: it must not be 0; give an address of this machine")
        return found
    own = next((address for address, _ in listening if isinstance(address, IPv4Address)), None)
    own = own or next((each for peer in peers if (each := _address_towards(peer))), None)
    if own is None:
        raise BgpSettingsError(
            "--bgp-router-id: there is no IPv4 address to take for it; give four bytes of which no other router has "
            "the same, as 192.0.2.5"
        )
    return own


def _address_towards(peer: Peer) -> IPv4Address | None:
    """This machine's address on the way to an IPv4 peer; nothing is sent."""
    if peer.address.version != 4:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(peer.address), peer.port))
            return IPv4Address(probe.getsockname()[0])
        except OSError:
            return None


def _words(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
