"""Flow export: who is told of the packets that bridges see, and in which protocol. Words in, values or an error out.

One place says it for all nodes: the controller is told, each switch gets a note (flows/tables/host.py), and each node's
agent configures its Open vSwitch, which sends to the collectors itself. No record passes the controller.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from ipaddress import ip_address

import msgspec

#: Open vSwitch's own limit of IPFIX's timeout, in seconds.
MAX_INTERVAL = 4200
MAX_SAMPLING = 0xFFFF_FFFF
_OPTION = "--flow-export"


class FlowExportError(ValueError):
    """Options that can't be, with the option's name and what to give instead."""


class Protocol(StrEnum):
    """What a collector speaks. NetFlow is version 5: IPv4 only."""

    IPFIX = "ipfix"
    SFLOW = "sflow"
    NETFLOW = "netflow"


class FlowExport(msgspec.Struct, frozen=True, kw_only=True):
    """What each node sends. `collectors` are ADDRESS:PORT as Open vSwitch writes it, IPv6 in brackets.

    `sampling`: one packet of that many is looked at, where the protocol samples. `interval`: seconds after which a flow
    that goes on is reported (IPFIX, NetFlow), or ports' counters are (sFlow).
    """

    protocol: Protocol
    collectors: tuple[str, ...]
    sampling: int
    interval: int


def parse(words: Iterable[str], sampling: int, interval: int) -> tuple[FlowExport, ...]:
    """From a command line's words, `PROTOCOL:ADDRESS:PORT` each, one for each protocol. Raises FlowExportError."""
    collectors: dict[Protocol, list[str]] = {}
    for each in words:
        protocol, collector = _collector(each)
        there = collectors.setdefault(protocol, [])
        if collector in there:
            raise FlowExportError(f"{_OPTION} {each}: is there twice")
        there.append(collector)
    if not 1 <= sampling <= MAX_SAMPLING:
        raise FlowExportError(f"{_OPTION}-sampling {sampling}: give 1 (every packet) to {MAX_SAMPLING}")
    if not 1 <= interval <= MAX_INTERVAL:
        raise FlowExportError(f"{_OPTION}-interval {interval}: give 1 to {MAX_INTERVAL} seconds")
    return tuple(
        FlowExport(protocol=protocol, collectors=tuple(sorted(there)), sampling=sampling, interval=interval)
        for protocol, there in sorted(collectors.items())
    )


def _collector(words: str) -> tuple[Protocol, str]:
    name, _, target = words.partition(":")
    host, _, port = target.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        protocol, address, number = Protocol(name), ip_address(host[1:-1] if bracketed else host), int(port)
    except ValueError as error:
        raise FlowExportError(
            f"{_OPTION} {words}: give ipfix:ADDRESS:PORT, sflow:ADDRESS:PORT or netflow:ADDRESS:PORT, with an address "
            "and not a name, IPv6 in brackets"
        ) from error
    if bracketed != (address.version == 6) or not 1 <= number <= 65535:
        raise FlowExportError(f"{_OPTION} {words}: IPv6 addresses are in brackets, ports are 1 to 65535")
    return protocol, f"[{address}]:{number}" if bracketed else f"{address}:{number}"
