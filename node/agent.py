"""The node agent: makes the node what it should be, and serves the CNI plugin.

    Settings ──> bridge, gateway, controllers (OVSDB) ──> gateway's addresses (netlink) ──> masquerade (nftables)
    the switch's notes ──> tunnel port, MTU, routes to other nodes ──> ready: CNI requests are served

Everything is compared with what is there before it is changed, so a restart disturbs nothing. The agent keeps nothing
in memory that a restart would miss; pods are rows of the database. When the database or vswitchd comes back after a
loss, the same steps are gone through again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
from collections.abc import Coroutine, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from node import flow_export, functions, health, netlink, nftables, ovsdb
from node.agent_report import Reporter
from node.cni import installation, spec
from node.cni.service import Service
from node.cni.spec import CniError, Code
from node.credentials import Credentials, CredentialsError, remove_copies
from node.host import Host, UnknownError
from node.interconnect import Interconnect
from node.netlink import LinkError
from node.nftables import NftError
from node.offload import Offload
from node.ovsdb import Database, DatabaseError
from node.settings import Settings, SettingsError
from topology import naming
from topology.naming import ENTRY_ADDRESSES, HAIRPIN_ADDRESSES

log = logging.getLogger(__name__)

#: Seconds between attempts to set the node up, that the database and vswitchd may take for a step of it, and between
#: looks at whether it still is.
_RETRY = 0.5
_STEP = 5.0
_LOOK = 0.2
#: Seconds between looks at the files of certificate and key.
_REFRESH = 2.0
#: Bytes of a CNI request, and requests that are worked on at a time; more wait.
_REQUEST_LIMIT = 4 << 20
_REQUESTS = 64


class AgentError(Exception):
    """The agent can't start; the text says why."""


async def run(settings: Settings, outdated: Coroutine[Any, Any, str] | None = None) -> None:
    """The agent's life, until SIGTERM or SIGINT. Raises AgentError.

    `outdated` returns when the settings are no longer right, and says why: then the agent ends, to be started anew.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    settings.socket.parent.mkdir(parents=True, exist_ok=True)
    with _alone(settings.socket):
        if settings.cni_bin_dir is not None:
            try:
                await asyncio.to_thread(installation.install_plugin, settings.cni_bin_dir)
            except OSError as error:
                raise AgentError(f"--cni-bin-dir: {error}") from error
        database = Database(settings.ovsdb)
        database.start()
        service = Service(settings, database)
        limit = asyncio.Semaphore(_REQUESTS)
        probes = await health.serve(settings.health, lambda: service.not_ready) if settings.health else None

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with limit:
                await _answer(service, reader, writer)

        settings.socket.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(connected, str(settings.socket), limit=_REQUEST_LIMIT, backlog=256)
        settings.socket.chmod(0o600)
        host = Host(settings)
        credentials = Credentials(settings.name, settings.tls, settings.tls_copies) if settings.tls else None
        keeper = asyncio.create_task(_keep(settings, database, service, host, credentials))
        stopped = asyncio.create_task(stop.wait())
        follower = asyncio.create_task(host.follow())
        watcher = asyncio.create_task(outdated if outdated is not None else _never())
        renewer = asyncio.create_task(_renew(settings.name, database, credentials))
        exporter = asyncio.create_task(flow_export.keep(settings, database, host))
        reporter = Reporter(database)
        beater = asyncio.create_task(reporter.keep())
        offloader = asyncio.create_task(Offload(settings, database, reporter).keep())
        tasks = [keeper, stopped, follower, watcher, renewer, exporter, beater, offloader]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        reason = watcher.result() if watcher.done() else ""
        server.close()
        stopped.cancel()
        for task in (keeper, follower, watcher, renewer, exporter, beater, offloader):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        host.close()
        if probes is not None:
            probes.close()
        await database.stop()
        settings.socket.unlink(missing_ok=True)
        if reason:
            raise AgentError(f"{reason}: the agent ends, to be started anew")


async def _never() -> str:
    await asyncio.Event().wait()
    return ""


async def clean(settings: Settings) -> None:
    """Take away everything that an agent with these settings has made on the node."""
    with _alone(settings.socket):
        database = Database(settings.ovsdb)
        database.start()
        if not await database.until(lambda rows: rows.connected, 10.0):
            raise AgentError(f"{settings.ovsdb} doesn't answer")
        await Service(settings, database).give_back_all()
        cidrs = [*settings.cluster_cidrs, *settings.service_cidrs]
        await asyncio.to_thread(netlink.remove_gateway_routes, cidrs, naming.GATEWAY_PORT)
        await asyncio.to_thread(netlink.remove_peer_routes)
        await database.transact(ovsdb.remove_bridge)
        await database.stop()
        await asyncio.to_thread(_clean_host, settings)


def _clean_host(settings: Settings) -> None:
    """What doesn't go with the bridge's ports."""
    functions.release(sorted(filter(naming.is_pod_port, netlink.veths(naming.POD_PORT_PREFIX))))
    netlink.set_announced(netlink.interface_of(settings.node_ips[0]), ())
    nftables.remove()
    installation.remove(settings)
    remove_copies(settings.tls_copies)


@contextlib.contextmanager
def _alone(socket: Path) -> Iterator[None]:
    """One agent only: two would give one address twice. The kernel frees the lock of one that dies."""
    path = socket.with_suffix(".lock")
    socket.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise AgentError(f"{path}: another node agent is running here") from error
    finally:
        os.close(descriptor)


async def _keep(
    settings: Settings, database: Database, service: Service, host: Host, credentials: Credentials | None
) -> None:
    """Set the node up, and again whenever something of it is gone."""
    complaint = ""
    while True:
        try:
            await _set_up(settings, database, service, host, credentials)
            if service.not_ready:
                # The runtime takes the configuration for a promise that pods can be added.
                await asyncio.to_thread(installation.install_configuration, settings)
                log.info("node %s is ready, pods have an MTU of %d", settings.name, service.mtu)
            service.not_ready = complaint = ""
            await _until_lost(database, host)
        except (CredentialsError, DatabaseError, LinkError, NftError, SettingsError, UnknownError, OSError) as error:
            service.not_ready = f"node {settings.name} is not ready: {error}"
            if str(error) != complaint:
                log.warning("%s", service.not_ready)
            complaint = str(error)
            await asyncio.sleep(_RETRY)


async def _until_lost(database: Database, host: Host) -> None:
    """Until nodes reach one another in another way, or the gateway is another interface than it was.

    A vswitchd that starts anew may make that anew.
    """
    index = netlink.index_of(naming.GATEWAY_PORT)
    joined = host.interconnect
    assert joined is not None

    def whole(rows: ovsdb.Rows) -> bool:
        return _has_ports(rows, joined)

    while whole(database.rows) and netlink.index_of(naming.GATEWAY_PORT) == index:
        host.changed.clear()
        if host.interconnect is None or host.interconnect.way != joined.way:
            return
        waits = [
            asyncio.create_task(database.until(lambda rows: not whole(rows), _LOOK)),
            asyncio.create_task(host.changed.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if waits[0].done():
                waits[0].result()
        finally:
            for each in waits:
                each.cancel()


async def _renew(node: str, database: Database, credentials: Credentials | None) -> None:
    """Hand new certificates on. It ends only when it is cancelled."""
    waiting = None
    while True:
        await asyncio.sleep(_REFRESH)
        waiting = (credentials.renewed() if credentials is not None else None) or waiting
        if waiting is not None and database.rows.bridge:
            # Where it fails, what sets the node up when the database is back does it.
            with contextlib.suppress(DatabaseError):
                await database.transact(ovsdb.set_tls(node, waiting))
                log.info("Open vSwitch has the new certificate: %s", waiting.certificate)
                waiting = None


async def _set_up(
    settings: Settings, database: Database, service: Service, host: Host, credentials: Credentials | None
) -> None:
    if not await database.until(lambda rows: rows.connected, _STEP):
        raise DatabaseError(f"{settings.ovsdb} doesn't answer: is ovsdb-server running?")
    tls = credentials.place() if credentials is not None else None
    await database.transact(ovsdb.set_up_bridge(settings, tls))
    if not await database.until(_has_ports, _STEP):
        raise DatabaseError(f"ovs-vswitchd hasn't made {naming.GATEWAY_PORT}: is it running?")
    await asyncio.to_thread(
        netlink.set_up_gateway,
        naming.GATEWAY_PORT,
        naming.gateway_addresses(settings.pod_cidrs),
        settings.pod_cidrs,
        [*settings.service_cidrs, *map(ip_network, HAIRPIN_ADDRESSES + ENTRY_ADDRESSES)],
    )
    host.begin()
    await _join(settings, database, service, await host.interconnected(_STEP))
    if service.not_ready:
        await asyncio.to_thread(nftables.apply, host.rules())
        await service.clear_up()


async def _join(settings: Settings, database: Database, service: Service, interconnect: Interconnect) -> None:
    """The node's part in how nodes reach one another: its tunnel port, and the MTU that is left for pods."""
    first = settings.node_ips[0]
    underlay = await asyncio.to_thread(netlink.mtu_of, first)
    mtu = settings.pod_mtu(underlay, interconnect.overhead(first.version))
    await database.transact(ovsdb.set_tunnel(interconnect.tunnel, first, mtu))
    if not await database.until(lambda rows: _has_ports(rows, interconnect), _STEP):
        raise DatabaseError(
            f"ovs-vswitchd hasn't made {naming.TUNNEL_PORT}: does it know {interconnect.encap} tunnels?"
        )
    if mtu != service.mtu:
        await service.resize(mtu)
        log.info("%s: pods have an MTU of %d", "nodes route" if not interconnect.tunnel else interconnect.tunnel, mtu)


def _has_ports(rows: ovsdb.Rows, interconnect: Interconnect | None = None) -> bool:
    """Whether vswitchd has made the gateway, and where there are tunnels their port."""
    tunnel = (naming.TUNNEL_PORT,) if interconnect is not None and interconnect.tunnel else ()
    ports = (rows.interfaces.get(name) for name in (naming.GATEWAY_PORT, *tunnel))
    return rows.connected and all(port is not None and port.ofport > 0 for port in ports)


async def _answer(service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    version = "1.1.0"
    answer: dict[str, Any] | None
    try:
        try:
            asked = json.loads(await reader.readline())
            env, config = asked["env"], asked["config"]
        except (ValueError, KeyError, TypeError) as error:
            raise CniError(Code.DECODE, f"not a request of signalbox-cni: {error}") from error
        if isinstance(config, dict) and config.get("cniVersion") in spec.VERSIONS:
            version = config["cniVersion"]
        answer, failed = await service.serve(spec.parse(env, config)), False
    except CniError as error:
        # Runtimes ask for STATUS every few seconds, and hear the answer themselves.
        level = logging.DEBUG if error.code in (Code.NOT_AVAILABLE, Code.LIMITED) else logging.WARNING
        log.log(level, "CNI request refused (code %d): %s", error.code, error.text)
        answer, failed = spec.error(error, version), True
    except Exception as error:
        log.exception("CNI request failed")
        answer, failed = spec.error(CniError(Code.IO, f"the agent failed: {error!r}"), version), True
    output = b"" if answer is None else json.dumps(answer).encode()
    with contextlib.suppress(ConnectionError):
        # The plugin's exit status, and how long what it prints is: so it knows an answer that was cut off.
        writer.write(b"%d %d\n" % (failed, len(output)) + output)
        await writer.drain()
    writer.close()
