"""Carries out CNI requests: pods' interfaces, addresses and ports.

ADD:  an address is set aside -> veth pair, both ends (or a NIC's virtual function and its representor) -> port row
      -> port number -> flows -> result. The row is what says that the address is taken; until it is written the address
      is held in memory only, so an agent that dies leaves at most an interface without a row, which the next start (or
      ADD of the same pod) removes, or gives back.
DEL:  the row goes first, and with it flows and address; then the interface. It always succeeds in the end.

Requests for one pod go one after another, all others side by side; nobody waits for another pod's flows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from node import devlink, functions, netlink, nics, notes, ovsdb
from node.arrival import NotArrivedError, wait_for_flows
from node.cni import besides
from node.cni.spec import Attachment, CniError, Code, Request, device_info, result
from node.files import place as put
from node.host import tasks_of
from node.limits import Bandwidth
from node.netlink import LinkError, PodLink
from node.nics import Function, NicError
from node.notes import HOST_TABLE, NotesError
from node.ovsdb import Database, DatabaseError, Interface
from node.places import ExhaustedError, next_place
from node.settings import Settings
from topology import naming
from topology.naming import NamingError

log = logging.getLogger(__name__)

#: Seconds that vswitchd may take to give a port its number.
_PORT_WAIT = 10.0
#: Seconds that the switch may take to tell its notes, and that CHECK waits for flows that should be there.
_NOTES_WAIT, _CHECK_WAIT = 2.0, 0.5


class Service:
    """The pods of this node."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.mtu = 0
        #: Why ADD can't be served yet; empty when it can.
        self.not_ready = "the agent is starting"
        self._database = database
        self._held: set[int] = set()
        self._last = 0
        #: By port, with how many hold it or wait for it.
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        #: The ports of ADDs that are under way, by container and interface.
        self._coming: dict[tuple[str, str], str] = {}
        #: Devices of ADDs that are under way, and whose port they are becoming.
        self._lending: dict[str, str] = {}

    async def serve(self, request: Request) -> dict[str, Any] | None:
        """The result of a request, None where it has none. Raises CniError."""
        try:
            match request.command:
                case "ADD":
                    return await self._add(request)
                case "DEL":
                    await self._delete(request)
                case "CHECK":
                    await self._check(request)
                case "GC":
                    await self._collect(request)
                case "STATUS":
                    self._status()
        except (DatabaseError, LinkError) as error:
            raise CniError(Code.TRY_LATER, str(error)) from error
        return None

    def pods(self) -> dict[str, Interface]:
        """The pod ports there are, by name."""
        return {
            name: row for name, row in self._database.rows.interfaces.items() if ovsdb.CONTAINER in row.external_ids
        }

    def attached(self) -> dict[str, Interface]:
        """Those, and pods' ports on other networks' bridges."""
        return self.pods() | dict(self._database.rows.besides)

    async def clear_up(self) -> None:
        """Remove what an agent that died has left: interfaces without a row, rows whose interface is gone."""
        links = await asyncio.to_thread(netlink.veths, naming.POD_PORT_PREFIX)
        links |= await asyncio.to_thread(netlink.veths, naming.NETWORK_PORT_PREFIX)
        rows = self.attached()
        # What is being made at this moment is whole soon.
        busy = self._locks.keys()
        ours = {name for name in links if naming.is_pod_port(name) or naming.is_network_port(name)}
        orphans = ours - rows.keys() - busy
        if orphans:
            log.warning("removing interfaces without a port: %s", ", ".join(sorted(orphans)))
            await asyncio.to_thread(functions.release, sorted(orphans))
        # Of DPDK's the kernel knows nothing.
        stale = {name for name, row in rows.items() if not row.kind} - links - busy
        if stale:
            log.warning("removing ports whose interface is gone: %s", ", ".join(sorted(stale)))
        for name in sorted(stale):
            await self._remove(name)
        # With them goes what limited ports that somebody else has removed.
        await self._database.transact(ovsdb.remove_ports(set()))

    async def resize(self, mtu: int) -> None:
        """Pods that come have this MTU from now on, and so have those that there are."""
        self.mtu = mtu
        # Last those that are on their way: planned with another, maybe, they have a row when their lock is free.
        coming = set(self._coming.values())
        for name in sorted({*self.pods(), *coming}, key=lambda port: (port in coming, port)):
            async with self._locked(name):
                row = self.pods().get(name)
                if row is None:
                    continue
                netns, ifname = Path(row.external_ids[ovsdb.NETNS]), row.external_ids[ovsdb.IFNAME]
                try:
                    await asyncio.to_thread(netlink.set_pod_mtu, name, netns, ifname, mtu)
                except LinkError as error:
                    log.warning("pod %s keeps its MTU: %s", _pod(row), error)

    async def give_back_all(self) -> None:
        """Bring all virtual functions of NICs back from the pods that have them, and take them off other networks."""
        for name, row in sorted(self.attached().items()):
            try:
                if name in self._database.rows.besides:
                    await self._remove(name)
                else:
                    await besides.take_back(self.settings, row)
            except LinkError as error:
                log.warning("port %s: %s", name, error)

    # Requests ---------------------------------------------------------------------------------------------------

    async def _add(self, request: Request) -> dict[str, Any]:
        if self.not_ready:
            raise CniError(Code.TRY_LATER, self.not_ready)
        assert request.netns is not None
        if not request.netns.exists():
            raise CniError(Code.UNKNOWN_CONTAINER, f"CNI_NETNS {request.netns}: no such network namespace")
        if request.besides is not None:
            port = naming.network_port_name(request.container, request.ifname)
            async with self._under_way(request, port), self._locked(port):
                return await besides.add(self.settings, self._database, self, request)
        port = naming.pod_port_name(request.namespace, request.pod)
        key = (request.container, request.ifname)
        there = self.pods().get(port)
        if there is not None and _attachment_of(there)[0] == key[0] and _attachment_of(there) != key:
            raise CniError(
                Code.INVALID_CONFIG,
                f"pod {_pod(there)} is on this network already, by {_attachment_of(there)[1]}: a network besides has a "
                "bridge of its own (bridge: NAME)",
            )
        async with self._under_way(request, port), self._locked(port):
            return await self._attach(request, port)

    @contextlib.asynccontextmanager
    async def _under_way(self, request: Request, port: str) -> AsyncIterator[None]:
        """An ADD: a DEL that comes meanwhile knows of its port."""
        key = (request.container, request.ifname)
        self._coming[key] = port
        try:
            yield
        finally:
            if self._coming.get(key) == port:
                del self._coming[key]

    async def _attach(self, request: Request, port: str) -> dict[str, Any]:
        await self._remove(port)
        place = self._hold()
        try:
            link, attachment = self._plan(request, port, place)
            async with self.lending(request, port) as function:
                number = _number(request, place)
                if function is not None:
                    await asyncio.to_thread(functions.lend, link, function)
                elif not request.vhost_socket:
                    await asyncio.to_thread(netlink.make_pod_link, link)
                row = _external_ids(request, place, link, function)
                try:
                    # Not `place`: one that was given later may have been written first.
                    await self._database.transact(
                        ovsdb.add_pod_port(
                            port, row, self._limits(request), self._last, number, *self._kind(request, function)
                        )
                    )
                    await self._arrived(request, port, number)
                    await self._compare(request)
                    await self._tell_device(request, attachment, function)
                except BaseException:
                    await asyncio.shield(self._undo(port, Interface(port, 0, "", row)))
                    raise
        finally:
            self._held.discard(place)
        by = f" by {request.device or request.vhost_socket}" if number else ""
        log.info("pod %s/%s added as %s%s", request.namespace, request.pod, " ".join(map(str, link.addresses)), by)
        return result(attachment, request.version)

    @contextlib.asynccontextmanager
    async def lending(self, request: Request, port: str) -> AsyncIterator[Function | None]:
        """The virtual function that a pod is to have, for nobody else meanwhile. Raises CniError."""
        device = request.device
        if request.vhost_socket and not self.settings.dpdk:
            raise CniError(Code.INVALID_CONFIG, "vhostSocket: Open vSwitch has such ports with DPDK: --dpdk")
        if request.vhost_socket and device:
            raise CniError(Code.INVALID_CONFIG, "vhostSocket and deviceID: a pod has one of the two")
        if not device:
            yield None
            return
        others = [name for name, row in self.attached().items() if row.external_ids.get(ovsdb.DEVICE) == device]
        others += [self._lending[device]] if device in self._lending else []
        if others:
            row = self.attached().get(others[0])
            whose = _pod(row) if row is not None else "another one that is being added"
            raise CniError(Code.DEVICE, f"deviceID {device}: pod {whose} has it")
        self._lending[device] = port
        try:
            yield await asyncio.to_thread(self._find, device)
        finally:
            del self._lending[device]

    def _find(self, device: str) -> Function:
        try:
            return nics.find(self.settings.sysfs, device, devlink.read(), by_dpdk=self.settings.dpdk)
        except NicError as error:
            raise CniError(Code.DEVICE, str(error)) from error

    def _kind(self, request: Request, function: Function | None) -> tuple[str, dict[str, str]]:
        """Type and options of a port that is DPDK's."""
        if request.vhost_socket:
            return "dpdkvhostuserclient", {"vhost-server-path": request.vhost_socket}
        if function is not None and self.settings.dpdk:
            return "dpdk", {"dpdk-devargs": f"{function.nic.pci},representor=[{function.number}]"}
        return "", {}

    async def _tell_device(self, request: Request, attachment: Attachment, function: Function | None) -> None:
        """Write the device down where the runtime wants it."""
        path = request.device_info
        if path is None or not (function or request.vhost_socket):
            return
        representor = attachment.host_name if function is not None and function.representor else ""
        document = json.dumps(device_info(attachment, representor)).encode()
        try:
            await asyncio.to_thread(put, path, document, 0o644)
        except OSError as error:
            raise CniError(Code.IO, f"CNIDeviceInfoFile {path}: {error}") from error

    def _hold(self) -> int:
        taken = self._held | {int(row.external_ids.get(ovsdb.PLACE, 0)) for row in self.pods().values()}
        try:
            place = next_place(self.settings.pod_cidrs, taken, self._last or self._database.rows.last_place)
        except ExhaustedError as error:
            raise CniError(Code.NO_ADDRESS, str(error)) from error
        self._last = place
        self._held.add(place)
        return place

    def _plan(self, request: Request, port: str, place: int) -> tuple[PodLink, Attachment]:
        settings = self.settings
        assert request.netns is not None
        addresses = naming.pod_addresses(place, settings.pod_cidrs)
        mac = naming.mac_of(naming.POD_MAC_PREFIX, addresses[0])
        host_mac = naming.mac_of(naming.HOST_END_MAC_PREFIX, addresses[0])
        gateways = naming.gateway_addresses(settings.pod_cidrs)
        link = PodLink(
            host_name=port,
            host_mac=host_mac,
            netns=request.netns,
            name=request.ifname,
            mac=mac,
            mtu=self.mtu,
            addresses=addresses,
            pod_cidrs=settings.pod_cidrs,
            gateways=gateways,
            userspace=settings.datapath_type == "netdev",
            limit=request.bandwidth.egress if settings.datapath_type == "netdev" else None,
        )
        attachment = Attachment(
            host_name=port,
            host_mac=0 if request.device or request.vhost_socket else host_mac,
            ifname=request.ifname,
            mac=mac,
            mtu=self.mtu,
            netns=request.netns,
            addresses=addresses,
            pod_cidrs=settings.pod_cidrs,
            gateways=gateways,
            device=request.device,
            vhost_socket=request.vhost_socket,
        )
        return link, attachment

    async def _arrived(self, request: Request, port: str, wanted: int) -> None:
        rows = self._database.rows

        def numbered(now: ovsdb.Rows) -> bool:
            row = now.interfaces.get(port)
            return row is not None and row.ofport > 0

        if not await self._database.until(numbered, _PORT_WAIT):
            row = rows.interfaces.get(port)
            reason = (row.error if row is not None else "") or "ovs-vswitchd doesn't answer"
            raise CniError(Code.TRY_LATER, f"port {port} got no number within {_PORT_WAIT:g} s: {reason}")
        number = self._database.rows.interfaces[port].ofport
        if not self._database.rows.interfaces[port].kind:
            # Where there was a port of this name whose interface had gone, Open vSwitch takes that one's flags back
            # from this one: it remembers them by name.
            await asyncio.to_thread(netlink.keep_up, port)
        if wanted and number != wanted:
            raise CniError(Code.TRY_LATER, f"port {port} got number {number}, and {wanted} is what says its address")
        settings = self.settings
        try:
            await wait_for_flows(settings.ovs_rundir, request.namespace, request.pod, number, settings.flow_wait)
        except NotArrivedError as error:
            raise CniError(Code.TRY_LATER, str(error)) from error

    def _limits(self, request: Request) -> Bandwidth:
        """What the switch limits: a datapath in userspace takes packets before the kernel could police them."""
        if self.settings.datapath_type == "netdev":
            return Bandwidth(ingress=request.bandwidth.ingress)
        return request.bandwidth

    async def _compare(self, request: Request) -> None:
        """Host ports are the pod's, and come with its flows; what the runtime says besides is only looked at."""
        table = next((number for number, name in self.settings.tables if name == HOST_TABLE), None)
        if not request.port_mappings or table is None:
            return
        try:
            found = tasks_of(await notes.read(self.settings.ovs_rundir, table, _NOTES_WAIT)).host_ports
            there = {(port.protocol, port.port, port.address) for port in found}
        except NotesError as error:
            log.warning("pod %s/%s: its host ports can't be looked at: %s", request.namespace, request.pod, error)
            return
        for each in request.port_mappings:
            if (each.protocol, each.host_port, each.address) not in there:
                log.warning(
                    "pod %s/%s: the runtime asks for host port %s %d%s, the cluster gives it to no pod of this node: "
                    "ignored",
                    request.namespace,
                    request.pod,
                    each.protocol,
                    each.host_port,
                    f" of {each.address}" if each.address else "",
                )

    async def _delete(self, request: Request) -> None:
        key = (request.container, request.ifname)
        names = {name for name, row in self.attached().items() if _attachment_of(row) == key}
        # A runtime that gave up waiting for ADD deletes what ADD is still about to make.
        if key in self._coming:
            names.add(self._coming[key])
        if not names and request.netns is not None:
            # An agent that died before it wrote the port down.
            await asyncio.to_thread(functions.give_back, request.netns, request.ifname)
        for name in sorted(names):
            async with self._locked(name):
                # It may have become another container's meanwhile.
                row = self.attached().get(name)
                if row is not None and _attachment_of(row) == key:
                    await self._remove(name)
                    log.info("pod %s deleted", _pod(row))

    async def _check(self, request: Request) -> None:
        for row in self._database.rows.besides.values():
            if _attachment_of(row) == (request.container, request.ifname) and request.besides is not None:
                await besides.check(self.settings, row, request)
                return
        for name, row in self.pods().items():
            if row.external_ids[ovsdb.CONTAINER] == request.container:
                assert request.netns is not None
                place = int(row.external_ids[ovsdb.PLACE])
                link, _ = self._plan(request, name, place)
                problem = await asyncio.to_thread(self._check_link, link, row) or await self._check_port(row)
                told = {str(ip.get("address", "")).split("/")[0] for ip in (request.previous or {}).get("ips", ())}
                if not problem and told != set(map(str, link.addresses)):
                    problem = f"prevResult has {', '.join(sorted(told))}, the pod {', '.join(map(str, link.addresses))}"
                if problem:
                    raise CniError(Code.IO, f"pod {_pod(row)}: {problem}")
                return
        raise CniError(Code.UNKNOWN_CONTAINER, f"container {request.container} has no port on this node")

    def _check_link(self, link: PodLink, row: Interface) -> str:
        """What is wrong with a pod's interfaces, where the kernel has them."""
        device = row.external_ids.get(ovsdb.DEVICE)
        if ovsdb.SOCKET in row.external_ids or (device and not row.external_ids.get(ovsdb.FUNCTION)):
            return ""
        problem = netlink.check_pod_link(link)
        return f"{problem}, which is of {device}: was its NIC reset?" if problem and device else problem

    async def _check_port(self, row: Interface) -> str:
        """What is wrong with a pod's port in the switch; empty where nothing is."""
        if not row.ofport:
            return f"port {row.name} has no number: {row.error or 'ovs-vswitchd does not answer'}"
        namespace, pod = row.external_ids[ovsdb.POD_NAMESPACE], row.external_ids[ovsdb.POD_NAME]
        try:
            await wait_for_flows(self.settings.ovs_rundir, namespace, pod, row.ofport, _CHECK_WAIT)
        except NotArrivedError as error:
            return str(error)
        return ""

    async def _collect(self, request: Request) -> None:
        assert request.attachments is not None
        for name, row in self.attached().items():
            if _attachment_of(row) not in request.attachments:
                async with self._locked(name):
                    current = self.attached().get(name)
                    if current is not None and _attachment_of(current) not in request.attachments:
                        await self._remove(name)
                        log.info("pod %s collected", _pod(row))
        await self.clear_up()

    def _status(self) -> None:
        if self.not_ready:
            raise CniError(Code.NOT_AVAILABLE, self.not_ready)
        rows = self._database.rows
        if not rows.connected or not rows.bridge:
            raise CniError(Code.NOT_AVAILABLE, f"there is no connection to {self.settings.ovsdb}")
        if not rows.controller_connected:
            raise CniError(Code.LIMITED, "the switch is not connected to a controller: no new pod gets its flows")

    # Steps ------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _locked(self, port: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(port, (asyncio.Lock(), 0))
        self._locks[port] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(port)
            # A lock that nobody holds or waits for need not be kept.
            if users > 1:
                self._locks[port] = (lock, users - 1)

    async def _remove(self, port: str) -> None:
        if naming.is_network_port(port):
            await besides.remove(self.settings, self._database, port)
            return
        await self._undo(port, self._database.rows.interfaces.get(port))

    async def _undo(self, port: str, row: Interface | None) -> None:
        """Take a pod's port away, if it has a row yet, and what it was made of."""
        if port in self._database.rows.interfaces:
            await self._database.transact(ovsdb.remove_ports({port}))
        if row is not None:
            await besides.take_back(self.settings, row)
        await asyncio.to_thread(functions.release, [port])


def _number(request: Request, place: int) -> int:
    """What a port's number must be: any (0) where its hardware address says whose it is. Raises CniError."""
    if not (request.device or request.vhost_socket):
        return 0
    try:
        return naming.port_of_place(place)
    except NamingError as error:
        raise CniError(Code.NO_ADDRESS, str(error)) from error


def _external_ids(request: Request, place: int, link: PodLink, function: Function | None) -> Mapping[str, str]:
    ids = {ovsdb.SOCKET: request.vhost_socket} if request.vhost_socket else {}
    if function is not None:
        ids = {
            ovsdb.DEVICE: function.pci,
            ovsdb.FUNCTION: function.netdev,
            ovsdb.REPRESENTOR: function.representor,
        }
    return ids | {
        ovsdb.POD_NAMESPACE: request.namespace,
        ovsdb.POD_NAME: request.pod,
        ovsdb.CONTAINER: request.container,
        ovsdb.NETNS: str(request.netns),
        ovsdb.IFNAME: request.ifname,
        ovsdb.PLACE: str(place),
        # What other tools look for.
        "iface-id": f"{request.namespace}_{request.pod}",
        "attached-mac": naming.format_mac(link.mac),
    }


def _attachment_of(row: Interface) -> tuple[str, str]:
    return row.external_ids[ovsdb.CONTAINER], row.external_ids.get(ovsdb.IFNAME, "")


def _pod(row: Interface) -> str:
    return f"{row.external_ids.get(ovsdb.POD_NAMESPACE)}/{row.external_ids.get(ovsdb.POD_NAME)}"
