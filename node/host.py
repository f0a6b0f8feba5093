"""What the host does besides forwarding: follow the switch's notes, and make the host so.

switch ──notes──> Host ──> routes (addresses that belong to the bridge; other nodes' pods), proxy neighbours (addresses
                    │      that this node announces), nftables (host ports, whom not to masquerade), health checks (an
                    │      HTTP server for each)
                    └── nothing is kept: after a restart the notes are read again, and the host compared with them
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Iterable
from ipaddress import ip_address

import msgspec

from node import netlink, nftables, notes
from node.flow_export import Export, export_of
from node.interconnect import Interconnect, interconnect_of, node_of, route_of
from node.netlink import LinkError
from node.nftables import HostPort, NftError
from node.notes import DIGEST_TABLE, HOST_TABLE, Note, NotesError
from node.settings import Settings
from topology.naming import GATEWAY_PORT, Address

log = logging.getLogger(__name__)

#: Seconds between two looks at the notes, and that the switch may take to tell them.
_INTERVAL, _PATIENCE = 0.1, 5.0
#: Seconds between two comparisons of routes to other nodes with what there is: the host's networks may have changed.
_ROUTES_INTERVAL = 5.0
#: Seconds that one health check may take, and checks that are answered at a time.
_CHECK_LIMIT, _CHECKS = 5.0, 64


class UnknownError(Exception):
    """The switch hasn't told what this node must know; the text says what."""


class Health(msgspec.Struct, frozen=True):
    """What a health check port says."""

    namespace: str
    name: str
    endpoints: int


class Tasks(msgspec.Struct, frozen=True):
    """All that the notes ask for."""

    addresses: frozenset[Address] = frozenset()
    announced: frozenset[Address] = frozenset()
    host_ports: frozenset[HostPort] = frozenset()
    #: By port, sorted.
    health: tuple[tuple[int, Health], ...] = ()
    #: None where the switch doesn't say: it has no flows.
    interconnect: Interconnect | None = None
    #: Whom Open vSwitch is to tell of packets.
    exports: frozenset[Export] = frozenset()

    @property
    def by_loopback(self) -> bool:
        """Whether a loopback address of the node leads to a pod."""
        return any(each.by_loopback for each in self.host_ports)


def tasks_of(found: Iterable[Note]) -> Tasks:
    """Notes as tasks; a note that is not understood is left out, with a line in the log."""
    addresses, announced, ports, nodes, routes = set(), set(), set(), set(), set()
    networks: list[Note] = []
    exports: set[Export] = set()
    health: dict[int, Health] = {}
    for note in found:
        try:
            match note["kind"]:
                case "address":
                    addresses.add(ip_address(note["address"]))
                case "announce":
                    announced.add(ip_address(note["address"]))
                case "node":
                    nodes.add(node_of(note))
                case "route":
                    routes.add(route_of(note))
                case "network":
                    interconnect_of(note, (), ())
                    networks.append(note)
                case "export":
                    exports.add(export_of(note))
                case "port":
                    ports.add(_host_port(note))
                case "health":
                    found_health = Health(note["namespace"], note["name"], int(note["endpoints"]))
                    # All nodes have a note without endpoints; those that have some have another as well.
                    if found_health.endpoints or int(note["port"]) not in health:
                        health[int(note["port"])] = found_health
        except (KeyError, ValueError, TypeError) as error:
            log.warning("a note that makes no sense, %s: %r", note, error)
    interconnect = interconnect_of(networks[0], routes, nodes) if networks else None
    return Tasks(
        frozenset(addresses),
        frozenset(announced),
        frozenset(ports),
        tuple(sorted(health.items())),
        interconnect,
        frozenset(exports),
    )


def _host_port(note: Note) -> HostPort:
    address, to = (str(ip_address(note[name])) if name in note else "" for name in ("address", "to"))
    return HostPort(str(note["protocol"]), int(note["port"]), address, to, int(note["toPort"]) if to else 0)


class Host:
    """The host as the notes want it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        tables = {name: number for number, name in settings.tables}
        self._table, self._digests = tables.get(HOST_TABLE), tables.get(DIGEST_TABLE)
        #: Which state of the switch was followed last.
        self._edition: tuple[int, ...] | None = None
        self._done = Tasks()
        self._compared = 0.0
        #: Set when nodes reach one another in another way than before.
        self.changed = asyncio.Event()
        #: Set when others are to be told of packets than before.
        self.exports_changed = asyncio.Event()
        #: Whether the host may be other than what was done: everything is to be compared with it.
        self._unsure = True
        #: Set when there is a gateway.
        self._begun = asyncio.Event()
        #: Addresses behind the bridge, and those that are behind other nodes.
        self._bridged: frozenset[Address] = frozenset()
        self._elsewhere: frozenset[Address] = frozenset()
        self._health: dict[int, Health] = {}
        self._servers: dict[int, asyncio.Server] = {}
        self._checks = asyncio.Semaphore(_CHECKS)

    async def follow(self) -> None:
        """Make the host what the notes say, for ever; what can't be done is tried again.

        It begins with the gateway: before that, of a node's first start, there is no switch to ask and nothing to make.
        Where the gateway doesn't come, because the database is away, the switch may be there all the same.
        """
        if self._table is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._begun.wait()
        complaint = ""
        while True:
            try:
                await self._look(self._table)
                complaint = ""
            except NotesError as error:
                # A switch that comes back may have made interfaces anew, and what was set on them is gone.
                self.forget()
                if str(error) != complaint:
                    log.warning("the host may not be as pods and Services need it: %s", error)
                complaint = str(error)
            except (LinkError, NftError, OSError) as error:
                if str(error) != complaint:
                    log.warning("the host isn't as Services need it: %s", error)
                complaint = str(error)
            await asyncio.sleep(_INTERVAL)

    async def _look(self, table: int) -> None:
        """Read the notes, if any flow is another than before, and do what is new in them."""
        rundir = self._settings.ovs_rundir
        # Asked first: what comes between the two questions is seen at the next look.
        edition = None if self._digests is None else await notes.edition(rundir, self._digests, _PATIENCE)
        if edition is None or edition != self._edition or self._unsure:
            found = tasks_of(await notes.read(rundir, table, _PATIENCE))
            if found.interconnect is None:
                # A switch that has yet to be filled: the ways there were are as good as any, and so are collectors.
                found = msgspec.structs.replace(found, interconnect=self.interconnect, exports=self._done.exports)
            if found != self._done or self._unsure:
                await self._make(found)
            self._edition = edition
        if time.monotonic() - self._compared > _ROUTES_INTERVAL:
            await self._set_ways(self.interconnect)

    @property
    def interconnect(self) -> Interconnect | None:
        """How nodes reach one another, as last heard and done; None before that."""
        return self._done.interconnect

    @property
    def exports(self) -> frozenset[Export] | None:
        """Whom Open vSwitch is to tell of packets; None where the switch hasn't said anything yet."""
        return self._done.exports if self.interconnect is not None else None

    async def interconnected(self, timeout: float) -> Interconnect:
        """The same, when it is known. Raises UnknownError."""
        try:
            async with asyncio.timeout(timeout):
                while self.interconnect is None:
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError as error:
            raise UnknownError(
                "no controller has told this node's switch yet how nodes reach one another: is one running, and "
                "is the switch connected to it?"
            ) from error
        return self.interconnect

    def begin(self) -> None:
        """The gateway is set up; routes went with the one before, if it is another."""
        self.forget()
        self._begun.set()

    def forget(self) -> None:
        """What was made may be gone: everything is to be made again."""
        self._unsure = True

    def rules(self, tasks: Tasks | None = None) -> str:
        """The nftables rules with what the notes ask for."""
        tasks = tasks or self._done
        settings = self._settings
        health = (port for port, _ in tasks.health)
        ways = tasks.interconnect
        nodes = [each.address for each in ways.nodes] if ways is not None else []
        routed = ways.routed_nodes(settings.node_ips) if ways is not None else ()
        return nftables.rules(settings.cluster_cidrs, settings.node_ports, tasks.host_ports, health, nodes, routed)

    async def _make(self, wanted: Tasks) -> None:
        # What is said to be forgotten meanwhile is made once more.
        unsure, self._unsure = self._unsure, False
        settings = self._settings
        try:
            if unsure or self.rules(wanted) != self.rules():
                await asyncio.to_thread(nftables.apply, self.rules(wanted))
            if unsure or wanted.by_loopback != self._done.by_loopback:
                # After the rules: they keep pods from loopback addresses.
                await asyncio.to_thread(netlink.route_loopback, GATEWAY_PORT, wanted.by_loopback)
            if unsure or wanted.interconnect != self._done.interconnect:
                await self._set_ways(wanted.interconnect)
            if unsure or (wanted.addresses, wanted.interconnect) != (self._done.addresses, self._done.interconnect):
                # Workloads that are on nodes to which this host sends by itself aren't behind its bridge.
                bridged = wanted.addresses - self._elsewhere
                if unsure or bridged != self._bridged:
                    await asyncio.to_thread(netlink.set_service_routes, GATEWAY_PORT, bridged, settings.gateways)
                self._bridged = bridged
            if unsure or wanted.announced != self._done.announced:
                uplink = await asyncio.to_thread(netlink.interface_of, settings.node_ips[0])
                fresh = await asyncio.to_thread(netlink.set_announced, uplink, wanted.announced)
                await asyncio.to_thread(netlink.announce, uplink, fresh)
            await self._serve_health(dict(wanted.health))
        except BaseException:
            self._unsure = True
            raise
        before, self._done = self._done, wanted
        if before.interconnect != wanted.interconnect:
            self.changed.set()
        if before.exports != wanted.exports or before.interconnect is None:
            self.exports_changed.set()

    async def _set_ways(self, interconnect: Interconnect | None) -> None:
        """The host's ways to other nodes' pods."""
        if interconnect is None:
            return
        settings = self._settings
        near = await asyncio.to_thread(netlink.connected, GATEWAY_PORT) if interconnect.routes else []
        peers = interconnect.peers(settings.node_ips, near)
        self._elsewhere = frozenset(each.network_address for each in peers if each.num_addresses == 1)
        await asyncio.to_thread(
            netlink.set_ways, GATEWAY_PORT, settings.cluster_cidrs, interconnect.by_bridge, peers, settings.gateways
        )
        self._compared = time.monotonic()

    async def _serve_health(self, wanted: dict[int, Health]) -> None:
        self._health = wanted
        for port in self._servers.keys() - wanted.keys():
            self._servers.pop(port).close()
        for port in wanted.keys() - self._servers.keys():
            self._servers[port] = await asyncio.start_server(
                lambda reader, writer, port=port: self._check(port, reader, writer),  # type: ignore[misc]
                port=port,
                reuse_address=True,
            )

    async def _check(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One question of a load balancer, answered as kube-proxy does: 200 where an endpoint is here, else 503."""
        with contextlib.suppress(OSError, EOFError, ValueError, TimeoutError):
            async with self._checks, asyncio.timeout(_CHECK_LIMIT):
                while (await reader.readline()).strip():
                    pass
                health = self._health.get(port, Health("", "", 0))
                body = json.dumps(
                    {
                        "service": {"namespace": health.namespace, "name": health.name},
                        "localEndpoints": health.endpoints,
                        "serviceProxyHealthy": True,
                    }
                )
                status = "200 OK" if health.endpoints else "503 Service Unavailable"
                head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
                head += f"X-Load-Balancing-Endpoint-Weight: {health.endpoints}\r\n"
                writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
                await writer.drain()
        writer.close()

    def close(self) -> None:
        """Stop answering health checks; everything else stays as it is."""
        for server in self._servers.values():
            server.close()
