"""Networks besides the cluster's: a pod's further interface, on an Ethernet bridge of Open vSwitch that the node has.

Multus asks for it, once for each network-attachment-definition whose configuration names a `bridge`. The port is in a
VLAN, or in all; addresses are those that the configuration or the runtime says, or none. The controller has no part in
it: what such a bridge forwards is its owner's business, and so is who may speak there. With a `deviceID` the interface
is a virtual function of a NIC, as a pod's first one may be.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from node import functions, netlink, nics, ovsdb
from node.cni.spec import Attachment, Besides, CniError, Code, Request, result
from node.netlink import PodLink
from node.nics import Function
from node.ovsdb import Database, Interface
from node.settings import Settings
from topology import naming

log = logging.getLogger(__name__)

_PORT_WAIT = 10.0


class Lender(Protocol):
    """Who knows which virtual functions are free."""

    def lending(self, request: Request, port: str) -> AbstractAsyncContextManager[Function | None]: ...


async def add(settings: Settings, database: Database, lender: Lender, request: Request) -> dict[str, Any]:
    """A pod's interface on another network. Raises CniError, DatabaseError and LinkError, and then undoes it."""
    besides = request.besides
    assert besides is not None
    if besides.bridge == naming.BRIDGE:
        raise CniError(Code.INVALID_CONFIG, f"bridge: {naming.BRIDGE} is the cluster's own; leave bridge out for that")
    port = naming.network_port_name(request.container, request.ifname)
    await remove(settings, database, port)
    link = _link(settings, request, besides, port)
    async with lender.lending(request, port) as function:
        if function is not None and not function.representor:
            raise CniError(
                Code.INVALID_CONFIG, f"deviceID {request.device}: where DPDK has the NIC, it is for br-int only"
            )
        ids = _external_ids(request, link, function)
        if function is None:
            await asyncio.to_thread(netlink.make_pod_link, link)
        else:
            await asyncio.to_thread(functions.lend, link, function)
        try:
            await database.transact(ovsdb.add_port_besides(besides.bridge, port, ids, besides.vlan))
            await _numbered(database, port)
            await asyncio.to_thread(netlink.keep_up, port)
        except BaseException:
            await asyncio.shield(_undo(settings, database, port, Interface(port, 0, "", ids)))
            raise
    log.info("pod %s/%s added to bridge %s by %s", request.namespace, request.pod, besides.bridge, request.ifname)
    return result(_attachment(request, link), request.version)


async def remove(settings: Settings, database: Database, port: str) -> None:
    """Take a port away, whatever there is of it."""
    await _undo(settings, database, port, database.rows.besides.get(port))


async def check(settings: Settings, row: Interface, request: Request) -> None:
    """Raises CniError where something isn't as it was made."""
    besides = request.besides
    assert besides is not None
    problem = await asyncio.to_thread(netlink.check_pod_link, _link(settings, request, besides, row.name))
    if not problem and not row.ofport:
        problem = f"port {row.name} has no number: {row.error or 'ovs-vswitchd does not answer'}"
    if problem:
        raise CniError(Code.IO, f"pod {request.namespace}/{request.pod}: {problem}")


async def take_back(settings: Settings, row: Interface) -> None:
    """A virtual function that a pod has, or had: the kernel brings it to the host when the pod's namespace ends."""
    ids = row.external_ids
    if ids.get(ovsdb.FUNCTION):
        await asyncio.to_thread(functions.give_back, Path(ids[ovsdb.NETNS]), ids[ovsdb.IFNAME])
        there = await asyncio.to_thread(nics.netdev_of, settings.sysfs, ids[ovsdb.DEVICE])
        if there:
            await asyncio.to_thread(functions.rename_back, there)


async def _undo(settings: Settings, database: Database, port: str, row: Interface | None) -> None:
    if port in database.rows.besides:
        await database.transact(ovsdb.remove_port_besides(port))
    if row is not None:
        await take_back(settings, row)
    await asyncio.to_thread(functions.release, [port])


async def _numbered(database: Database, port: str) -> None:
    def numbered(rows: ovsdb.Rows) -> bool:
        return port in rows.besides and rows.besides[port].ofport > 0

    if not await database.until(numbered, _PORT_WAIT):
        row = database.rows.besides.get(port)
        reason = (row.error if row is not None else "") or "ovs-vswitchd doesn't answer"
        raise CniError(Code.TRY_LATER, f"port {port} got no number within {_PORT_WAIT:g} s: {reason}")


def _link(settings: Settings, request: Request, besides: Besides, port: str) -> PodLink:
    assert request.netns is not None
    return PodLink(
        host_name=port,
        host_mac=_made_up("host", request),
        netns=request.netns,
        name=request.ifname,
        mac=besides.mac or _made_up("pod", request),
        mtu=besides.mtu or 1500,
        addresses=tuple(address for address, _ in besides.addresses),
        pod_cidrs=tuple(network for _, network in besides.addresses),
        gateways=(),
        userspace=settings.datapath_type == "netdev",
        plain=True,
        routes=besides.routes,
    )


def _made_up(what: str, request: Request) -> int:
    """A MAC, locally administered, that is the same whenever it is asked for and nobody else's."""
    digest = hashlib.sha256(f"{what}/{request.container}/{request.ifname}".encode()).digest()
    return 0x02 << 40 | int.from_bytes(digest[:5], "big")


def _attachment(request: Request, link: PodLink) -> Attachment:
    return Attachment(
        host_name=link.host_name,
        host_mac=0 if request.device else link.host_mac,
        ifname=link.name,
        mac=link.mac,
        mtu=link.mtu,
        netns=link.netns,
        addresses=link.addresses,
        pod_cidrs=link.pod_cidrs,
        gateways=(),
        device=request.device,
        routes=link.routes,
    )


def _external_ids(request: Request, link: PodLink, function: Function | None) -> Mapping[str, str]:
    ids = {
        ovsdb.POD_NAMESPACE: request.namespace,
        ovsdb.POD_NAME: request.pod,
        ovsdb.CONTAINER: request.container,
        ovsdb.NETNS: str(request.netns),
        ovsdb.IFNAME: request.ifname,
        "attached-mac": naming.format_mac(link.mac),
    }
    if function is not None:
        ids |= {
            ovsdb.DEVICE: function.pci,
            ovsdb.FUNCTION: function.netdev,
            ovsdb.REPRESENTOR: function.representor,
        }
    return ids
