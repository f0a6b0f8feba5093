"""Flow export on this node: what the switch's notes ask for, as rows of Open vSwitch's database. It sends by itself.

IPFIX    one packet of `sampling` of those that come in, and of those that leave by another port than the tunnel's; the
         observation domain is a function of the node's name
sFlow    the same, with ports' counters; the agent's address is the node's
NetFlow  every packet; the engine's id and type are the last two bytes of the observation domain
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from node import ovsdb
from node.ovsdb import Database, DatabaseError
from node.settings import Settings
from topology import naming

if TYPE_CHECKING:
    from node.host import Host

log = logging.getLogger(__name__)

#: Seconds after which the rows are compared with what they should be, whatever was heard: somebody may change them.
_INTERVAL = 5.0
#: Flows that IPFIX sums up at a time; what is more is reported early.
_CACHED_FLOWS = 65_536
_TABLES = {"ipfix": "IPFIX", "sflow": "sFlow", "netflow": "NetFlow"}


class Export(msgspec.Struct, frozen=True):
    """A note of kind "export": topology.flow_export has the controller's side of it."""

    protocol: str
    collectors: tuple[str, ...]
    sampling: int
    interval: int


def export_of(note: Mapping[str, Any]) -> Export:
    """Out of a note. Raises KeyError, ValueError or TypeError."""
    if note["protocol"] not in _TABLES:
        raise ValueError(f"{note['protocol']}: this agent is older than its controller")
    return Export(note["protocol"], tuple(map(str, note["collectors"])), int(note["sampling"]), int(note["interval"]))


def rows(settings: Settings, exports: Iterable[Export]) -> dict[str, dict[str, Any]]:
    """What the rows of Open vSwitch's tables are to be on this node."""
    return {_TABLES[each.protocol]: _row(settings, each) for each in exports}


def _row(settings: Settings, export: Export) -> dict[str, Any]:
    domain = naming.observation_domain(settings.name)
    targets = sorted(export.collectors)
    match export.protocol:
        case "ipfix":
            return {
                "targets": targets,
                "sampling": [export.sampling],
                "obs_domain_id": [domain],
                "obs_point_id": [domain],
                "cache_active_timeout": [export.interval],
                "cache_max_flows": [_CACHED_FLOWS],
                # Open vSwitch 3.1 samples what leaves whether enable-output-sampling is false or not: records say their
                # direction instead.
                "other_config": {"virtual_obs_id": settings.name},
            }
        case "sflow":
            agent = [str(settings.node_ips[0])]
            return {"targets": targets, "sampling": [export.sampling], "polling": [export.interval], "agent": agent}
        case _:
            engine = {"engine_type": [domain >> 8 & 0xFF], "engine_id": [domain & 0xFF]}
            return {"targets": targets, "active_timeout": export.interval, **engine}


async def keep(settings: Settings, database: Database, host: Host) -> None:
    """Have Open vSwitch tell whom the notes say, and nobody else of ours, until cancelled."""
    complaint, told = "", frozenset[Export]()
    while True:
        host.exports_changed.clear()
        exports = host.exports
        if exports is not None and database.rows.bridge:
            foreign: set[str] = set()
            try:
                change = ovsdb.set_flow_exports(settings.name, rows(settings, exports), foreign.add)
                await database.transact(change)
                found = _words(foreign)
                if exports != told:
                    log.info("flow export: %s", _collectors(exports))
                told = exports
            except DatabaseError as error:
                found = f"flow export isn't as it should be: {error}"
            if found and found != complaint:
                log.warning("%s", found)
            complaint = found
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_INTERVAL):
                await host.exports_changed.wait()


def _words(foreign: set[str]) -> str:
    if not foreign:
        return ""
    names, columns = " and ".join(sorted(foreign)), " ".join(sorted(foreign)).lower()
    return (
        f"{naming.BRIDGE} has a configuration of {names} that isn't ours, which stays, and can have only one: "
        f"'ovs-vsctl clear Bridge {naming.BRIDGE} {columns}' it to have the controller's used"
    )


def _collectors(exports: Iterable[Export]) -> str:
    return ", ".join(sorted(f"{each.protocol} to {' and '.join(each.collectors)}" for each in exports)) or "to nobody"
