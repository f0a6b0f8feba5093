"""The node's Open vSwitch database: the bridge as it should be, pods' ports, and what vswitchd says of them.

The only import of python-ovs. Its IDL is synchronous, so it lives in a thread of its own: transactions are functions
that run there one after another, and `rows` is a snapshot of plain values, replaced as a whole when something changes.
The connection is made again whenever it is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec

with warnings.catch_warnings():
    # It looks for eventlet, which says on import that it is deprecated; nothing here uses it.
    warnings.simplefilter("ignore")
    import ovs.db.idl
    import ovs.poller

from node.credentials import Placed
from node.limits import Bandwidth, Limit
from node.settings import Settings
from topology import naming
from topology.naming import Address

_COLUMNS = {
    "Open_vSwitch": ["bridges", "other_config", "ssl", "dpdk_initialized"],
    "SSL": ["private_key", "certificate", "ca_cert", "bootstrap_ca_cert", "external_ids"],
    "Bridge": [
        "name", "ports", "controller", "fail_mode", "datapath_type", "other_config", "external_ids", "flow_tables",
        "ipfix", "sflow", "netflow",
    ],
    "Port": ["name", "interfaces", "external_ids", "qos", "tag"],
    "QoS": ["type", "queues", "other_config", "external_ids"],
    "Queue": ["other_config", "external_ids"],
    "Interface": [
        "name", "type", "options", "mac", "mtu_request", "ofport", "ofport_request", "error", "external_ids",
        "admin_state", "mtu", "ingress_policing_rate", "ingress_policing_burst",
    ],
    "Controller": [
        "target", "connection_mode", "max_backoff", "inactivity_probe", "is_connected",
        "controller_rate_limit", "controller_burst_limit",
    ],
    "Flow_Table": ["name"],
    "IPFIX": [
        "targets", "sampling", "obs_domain_id", "obs_point_id", "cache_active_timeout", "cache_max_flows",
        "other_config", "external_ids",
    ],
    "sFlow": ["targets", "sampling", "polling", "agent", "external_ids"],
    "NetFlow": ["targets", "engine_type", "engine_id", "active_timeout", "external_ids"],
}  # fmt: skip
_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
#: Milliseconds between attempts to reach a controller, at most; and of silence before one is probed.
_MAX_BACKOFF, _INACTIVITY_PROBE = 1000, 5000
#: Milliseconds within which the datapath has followed a change of flows. Clients that connect sooner than that after a
#: flow was learnt for them would be sent to another endpoint; with Open vSwitch's own 500 they are, under load.
_REVALIDATION = "200"
#: Packets a second that the controller is told of, the least that Open vSwitch takes, and how many at once.
_TOLD_PACKETS, _TOLD_BURST = 100, 128
#: The tables of what a bridge tells collectors; the bridge's columns are called the same, in small letters.
FLOW_EXPORT_TABLES = ("IPFIX", "sFlow", "NetFlow")
#: Attempts at a transaction that the database asks to try again.
_ATTEMPTS = 10
#: The key of the external_ids of what the agent makes beside ports.
_NODE = "signalbox/node"
#: Of the bridge's: the place in the pod CIDRs that was given last.
_LAST_PLACE = "signalbox/last-place"
#: Keys of a pod port's external_ids.
POD_NAMESPACE, POD_NAME = "signalbox/namespace", "signalbox/pod"
#: Of rows that belong to a port: its name.
_PORT = "signalbox/port"
#: Of the bridge's: the keys of Open vSwitch's other_config that the agent has put there; what the running ovs-vswitchd
#: has read of them.
_OPTIONS, _OFFLOAD_READ = "signalbox/options", "signalbox/offload-read"
#: Of a pod port that is a representor: the function's PCI address, and what its interfaces are called otherwise.
DEVICE, FUNCTION, REPRESENTOR = "signalbox/device", "signalbox/function", "signalbox/representor"
#: Of one that is a socket: its path.
SOCKET = "signalbox/socket"
CONTAINER, NETNS, IFNAME, PLACE = "signalbox/container", "signalbox/netns", "signalbox/ifname", "signalbox/place"


class DatabaseError(Exception):
    """The database can't be reached, or refuses a transaction; the text says which."""


class Interface(msgspec.Struct, frozen=True):
    """A port of br-int. `ofport` is 0 until vswitchd has given one; `error` is vswitchd's.

    `kind` is empty where the kernel has an interface of its name.
    """

    name: str
    ofport: int
    error: str
    external_ids: Mapping[str, str]
    kind: str = ""


class Rows(msgspec.Struct, frozen=True):
    """The database at one time. `last_place` is 0 until a pod has been given one.

    `options` is other_config of Open vSwitch, `description` the bridge's datapath description, `offload_read` what
    `remember_offload` was told last.
    """

    connected: bool = False
    interfaces: Mapping[str, Interface] = {}
    controller_connected: bool = False
    bridge: bool = False
    last_place: int = 0
    options: Mapping[str, str] = {}
    dpdk_initialized: bool = False
    description: str = ""
    offload_read: str = ""
    #: Pods' ports on other bridges than br-int, by name.
    besides: Mapping[str, Interface] = {}


class _Idl(ovs.db.idl.Idl):  # type: ignore[misc]
    """Knows the interfaces that are as they were: reading a row is slow, and a node has many."""

    def __init__(self, remote: str, helper: Any) -> None:
        self.known: dict[Any, Interface] = {}
        super().__init__(remote, helper)

    def notify(self, event: str, row: Any, updates: Any = None) -> None:
        """A row has come, changed or gone."""
        self.known.pop(row.uuid, None)


Change = Callable[[Any, "ovs.db.idl.Idl"], None]


class Database:
    """The connection. Start it in a running event loop; `changed` is called there after each change of `rows`."""

    def __init__(self, remote: str, schema: Path = _SCHEMA) -> None:
        self.rows = Rows()
        self._remote = remote
        self._schema = schema
        self._jobs: queue.SimpleQueue[tuple[Change, Future[None]]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="ovsdb", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Connect in the background."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """End the thread; the database keeps what it has."""
        self._stopping = True
        self._wake()
        await asyncio.to_thread(self._thread.join)
        os.close(self._wake_read)
        os.close(self._wake_write)

    async def until(self, condition: Callable[[Rows], bool], timeout: float) -> bool:
        """Wait until the rows meet a condition, for `timeout` seconds at most; whether they do."""
        try:
            async with asyncio.timeout(timeout):
                while not condition(self.rows):
                    if self._failure is not None:
                        raise DatabaseError(f"the database's thread has failed: {self._failure}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return condition(self.rows)
        return True

    async def transact(self, change: Change, timeout: float = 10.0) -> None:
        """Run `change(transaction, idl)` and commit what it did. Raises DatabaseError."""
        job: Future[None] = Future()
        self._jobs.put((change, job))
        self._wake()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wrap_future(job)
        except TimeoutError as error:
            raise DatabaseError(f"{self._remote} doesn't answer") from error

    # In the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._follow()
        except BaseException as error:
            self._failure = error
            self._publish(Rows())
            raise

    def _follow(self) -> None:
        helper = ovs.db.idl.SchemaHelper(str(self._schema))
        for table, columns in _COLUMNS.items():
            helper.register_columns(table, columns)
        idl = _Idl(self._remote, helper)
        seen = None
        while not self._stopping:
            idl.run()
            now = (idl.change_seqno, idl._session.is_connected())
            if now != seen:
                seen = now
                self._publish(_rows(idl) if idl.has_ever_connected() else Rows())
            if now[1] and idl.has_ever_connected():
                self._work(idl)
                if idl.change_seqno != now[0]:
                    continue
            poller = ovs.poller.Poller()
            idl.wait(poller)
            poller.fd_wait(self._wake_read, ovs.poller.POLLIN)
            poller.block()
            self._drain()
        idl.close()

    def _work(self, idl: Any) -> None:
        while not self._stopping:
            try:
                change, job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if not job.set_running_or_notify_cancel():
                continue
            try:
                _commit(idl, change)
                # What was written is shown before the writer goes on.
                self._publish(_rows(idl))
                job.set_result(None)
            except Exception as error:
                job.set_exception(error)

    def _publish(self, rows: Rows) -> None:
        self.rows = rows
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    def _wake(self) -> None:
        # A full pipe will wake it just as well.
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def _drain(self) -> None:
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass


def _commit(idl: Any, change: Change) -> None:
    for _ in range(_ATTEMPTS):
        transaction = ovs.db.idl.Transaction(idl)
        try:
            change(transaction, idl)
        except BaseException:
            # One that was begun and not ended would be in the way of all others.
            transaction.abort()
            raise
        status = transaction.commit_block()
        if status in (ovs.db.idl.Transaction.SUCCESS, ovs.db.idl.Transaction.UNCHANGED):
            return
        if status != ovs.db.idl.Transaction.TRY_AGAIN:
            raise DatabaseError(f"the database refuses: {transaction.get_error() or status}")
    raise DatabaseError(f"the database asked {_ATTEMPTS} times to try again")


def _rows(idl: Any) -> Rows:
    bridge = _bridge(idl)
    interfaces = {}
    for port in bridge.ports if bridge is not None else ():
        for row in port.interfaces:
            interface = idl.known.get(row.uuid)
            if interface is None:
                interface = idl.known[row.uuid] = _interface(row)
            interfaces[interface.name] = interface
    controllers = bridge.controller if bridge is not None else ()
    root = next(iter(idl.tables["Open_vSwitch"].rows.values()), None)
    ids = bridge.external_ids if bridge is not None else {}
    return Rows(
        connected=True,
        interfaces=interfaces,
        controller_connected=any(row.is_connected for row in controllers),
        bridge=bridge is not None,
        last_place=int(ids.get(_LAST_PLACE, 0)),
        options=dict(root.other_config) if root is not None else {},
        dpdk_initialized=root is not None and bool(root.dpdk_initialized),
        description=bridge.other_config.get("dp-desc", "") if bridge is not None else "",
        offload_read=ids.get(_OFFLOAD_READ, ""),
        besides=_besides(idl),
    )


def _besides(idl: Any) -> dict[str, Interface]:
    found = {}
    for bridge in idl.tables["Bridge"].rows.values():
        for port in bridge.ports if bridge.name != naming.BRIDGE else ():
            for row in port.interfaces:
                if CONTAINER in row.external_ids:
                    found[row.name] = _interface(row)
    return found


def _interface(row: Any) -> Interface:
    ofport = row.ofport[0] if row.ofport else 0
    error = row.error[0] if row.error else ""
    return Interface(row.name, max(ofport, 0), error, dict(row.external_ids), row.type)


def _bridge(idl: Any) -> Any:
    for row in idl.tables["Bridge"].rows.values():
        if row.name == naming.BRIDGE:
            return row
    return None


# Changes ------------------------------------------------------------------------------------------------------------


def set_up_bridge(settings: Settings, tls: Placed | None = None) -> Change:
    """The bridge with its gateway port; what is right already is not written again.

    One transaction: fail_mode and every controller must be there before the first flow, because adding the first
    controller to a bridge flushes its flows.
    """

    def change(transaction: Any, idl: Any) -> None:
        root = next(iter(idl.tables["Open_vSwitch"].rows.values()), None)
        if root is None:
            root = transaction.insert(idl.tables["Open_vSwitch"])
        if "max-revalidator" not in _get(root, "other_config", {}):
            _set_keys(root, "other_config", {"max-revalidator": _REVALIDATION})
        _set_tls(transaction, idl, root, settings.name, tls)
        bridge = _bridge(idl)
        if bridge is None:
            bridge = transaction.insert(idl.tables["Bridge"])
            bridge.name = naming.BRIDGE
            root.bridges = [*root.bridges, bridge]
        _set(bridge, "datapath_type", "" if settings.datapath_type == "system" else settings.datapath_type)
        _set(bridge, "fail_mode", ["secure"])
        _set_keys(bridge, "other_config", {"datapath-id": f"{naming.datapath_id(settings.name):016x}"})
        _set_keys(bridge, "external_ids", {_NODE: settings.name})
        _set_controllers(transaction, idl, bridge, settings)
        _set_table_names(transaction, idl, bridge, settings)
        _set_port(transaction, idl, bridge, naming.BRIDGE, "internal")
        gateway = _set_port(transaction, idl, bridge, naming.GATEWAY_PORT, "internal")
        _set(gateway, "mac", [naming.format_mac(naming.GATEWAY_MAC)])

    return change


def set_tunnel(kind: str, local_ip: Address, mtu: int) -> Change:
    """The tunnel port, of this kind or (empty) none, and the gateway's MTU."""

    def change(transaction: Any, idl: Any) -> None:
        bridge = _bridge(idl)
        if bridge is None:
            raise DatabaseError(f"there is no bridge {naming.BRIDGE}")
        gateway = _set_port(transaction, idl, bridge, naming.GATEWAY_PORT, "internal")
        _set(gateway, "mtu_request", [mtu])
        if kind:
            tunnel = _set_port(transaction, idl, bridge, naming.TUNNEL_PORT, kind)
            _set(tunnel, "options", {"key": "flow", "remote_ip": "flow", "local_ip": str(local_ip)})
        elif any(port.name == naming.TUNNEL_PORT for port in bridge.ports):
            bridge.ports = [port for port in bridge.ports if port.name != naming.TUNNEL_PORT]

    return change


def set_options(values: Mapping[str, str]) -> Change:
    """Keys of Open vSwitch's other_config. They go with the bridge, those that were there before excepted."""

    def change(transaction: Any, idl: Any) -> None:
        bridge = _bridge(idl)
        if bridge is None:
            raise DatabaseError(f"there is no bridge {naming.BRIDGE}")
        for root in idl.tables["Open_vSwitch"].rows.values():
            ours = set(bridge.external_ids.get(_OPTIONS, "").split()) | (values.keys() - root.other_config.keys())
            _set_keys(bridge, "external_ids", {_OPTIONS: " ".join(sorted(ours))})
            _set_keys(root, "other_config", values)

    return change


def remember_offload(text: str) -> Change:
    """What is to be known of the running ovs-vswitchd after a restart of the agent."""

    def change(transaction: Any, idl: Any) -> None:
        bridge = _bridge(idl)
        if bridge is not None:
            _set_keys(bridge, "external_ids", {_OFFLOAD_READ: text})

    return change


def describe(text: str) -> Change:
    """What OpenFlow says that the bridge's datapath is."""

    def change(transaction: Any, idl: Any) -> None:
        bridge = _bridge(idl)
        if bridge is not None:
            _set_keys(bridge, "other_config", {"dp-desc": text})

    return change


def set_flow_exports(node: str, wanted: Mapping[str, Mapping[str, Any]], foreign: Callable[[str], None]) -> Change:
    """The bridge's rows that tell collectors of its packets, by table; others of ours go.

    Somebody else's row stays: `foreign` is called with its table where a row of ours should be there.
    """

    def change(transaction: Any, idl: Any) -> None:
        bridge = _bridge(idl)
        if bridge is None:
            raise DatabaseError(f"there is no bridge {naming.BRIDGE}")
        for table in FLOW_EXPORT_TABLES:
            column = table.lower()
            row = next(iter(getattr(bridge, column)), None)
            if row is not None and _NODE not in row.external_ids:
                if table in wanted:
                    foreign(table)
            elif table in wanted:
                if row is None:
                    row = transaction.insert(idl.tables[table])
                    row.external_ids = {_NODE: node}
                    setattr(bridge, column, [row])
                for name, value in wanted[table].items():
                    _set(row, name, value)
            elif row is not None:
                setattr(bridge, column, [])

    return change


def set_tls(node: str, tls: Placed) -> Change:
    """The certificate that Open vSwitch shows; connections that there are go on."""

    def change(transaction: Any, idl: Any) -> None:
        for root in idl.tables["Open_vSwitch"].rows.values():
            _set_tls(transaction, idl, root, node, tls)

    return change


def _set_tls(transaction: Any, idl: Any, root: Any, node: str, tls: Placed | None) -> None:
    """There is one SSL row for all of Open vSwitch, its connections to managers included: somebody else's stays."""
    row = next(iter(_get(root, "ssl", ())), None)
    ours = row is not None and _NODE in row.external_ids
    if tls is None:
        if ours:
            root.ssl = []
        return
    if row is not None and not ours:
        raise DatabaseError(
            f"Open vSwitch has an SSL configuration already, which isn't ours (private_key={row.private_key}), and can "
            "have only one: leave --tls-cert, --tls-key and --tls-ca out to have it used, or 'ovs-vsctl del-ssl' it"
        )
    if row is None:
        row = transaction.insert(idl.tables["SSL"])
        root.ssl = [row]
    _set(row, "private_key", str(tls.key))
    _set(row, "certificate", str(tls.certificate))
    _set(row, "ca_cert", str(tls.ca))
    # It would believe whoever answers first.
    _set(row, "bootstrap_ca_cert", False)
    _set_keys(row, "external_ids", {_NODE: node})


def _set_controllers(transaction: Any, idl: Any, bridge: Any, settings: Settings) -> None:
    rows = {row.target: row for row in _get(bridge, "controller", ())}
    wanted = []
    for target in settings.controllers:
        row = rows.get(target)
        if row is None:
            row = transaction.insert(idl.tables["Controller"])
            row.target = target
        _set(row, "connection_mode", ["out-of-band"])
        _set(row, "max_backoff", [_MAX_BACKOFF])
        _set(row, "inactivity_probe", [_INACTIVITY_PROBE])
        # Logs of connections are a sample: what is above the limit isn't told. Of what waits, ports take turns, so that
        # a pod that floods one keeps none from being told what it is wired to; a burst is one of each of many ports.
        _set(row, "controller_rate_limit", [_TOLD_PACKETS])
        _set(row, "controller_burst_limit", [_TOLD_BURST])
        wanted.append(row)
    if set(rows) != set(settings.controllers):
        bridge.controller = wanted


def _set_table_names(transaction: Any, idl: Any, bridge: Any, settings: Settings) -> None:
    wanted = dict(settings.tables)
    found = {number: row.name[0] if row.name else "" for number, row in _get(bridge, "flow_tables", {}).items()}
    if found == wanted:
        return
    tables = {}
    for number, name in wanted.items():
        tables[number] = transaction.insert(idl.tables["Flow_Table"])
        tables[number].name = [name]
    bridge.flow_tables = tables


def _set_port(transaction: Any, idl: Any, bridge: Any, name: str, kind: str) -> Any:
    """The port of this name and its interface, which is returned."""
    for port in _get(bridge, "ports", ()):
        if port.name == name:
            interface = port.interfaces[0]
            _set(interface, "type", kind)
            return interface
    interface = transaction.insert(idl.tables["Interface"])
    interface.name = name
    interface.type = kind
    port = transaction.insert(idl.tables["Port"])
    port.name = name
    port.interfaces = [interface]
    bridge.ports = [*_get(bridge, "ports", ()), port]
    return interface


def add_pod_port(
    name: str,
    external_ids: Mapping[str, str],
    bandwidth: Bandwidth,
    last: int,
    number: int = 0,
    kind: str = "",
    options: Mapping[str, str] = {},
) -> Change:
    """A pod's port. Its row is what says that the address is taken; `last` is the place that was given last to any.

    `number` is the one that it must have, 0 for any; `kind` and `options` are what DPDK's ports have.
    """

    def change(transaction: Any, idl: Any) -> None:
        bridge = _bridge(idl)
        if bridge is None:
            raise DatabaseError(f"there is no bridge {naming.BRIDGE}")
        _set_keys(bridge, "external_ids", {_LAST_PLACE: str(last)})
        interface = _set_port(transaction, idl, bridge, name, kind)
        interface.external_ids = dict(external_ids)
        if options:
            interface.options = dict(options)
        if number:
            interface.ofport_request = [number]
        if bandwidth.egress is not None:
            # In kbit: what the pod sends comes in here.
            interface.ingress_policing_rate = bandwidth.egress.rate // 1000
            interface.ingress_policing_burst = bandwidth.egress.burst // 1000
        if bandwidth.ingress is not None:
            port = next(each for each in bridge.ports if each.name == name)
            port.qos = [_shaper(transaction, idl, name, bandwidth.ingress)]

    return change


def add_port_besides(bridge_name: str, name: str, external_ids: Mapping[str, str], vlan: int) -> Change:
    """A pod's port on another bridge, in a VLAN or (0) in all."""

    def change(transaction: Any, idl: Any) -> None:
        bridge = next((row for row in idl.tables["Bridge"].rows.values() if row.name == bridge_name), None)
        if bridge is None:
            raise DatabaseError(f"there is no bridge {bridge_name}")
        interface = _set_port(transaction, idl, bridge, name, "")
        interface.external_ids = dict(external_ids)
        if vlan:
            port = next(each for each in bridge.ports if each.name == name)
            port.tag = [vlan]

    return change


def remove_port_besides(name: str) -> Change:
    """A pod's port, whichever other bridge it is on."""

    def change(transaction: Any, idl: Any) -> None:
        for bridge in idl.tables["Bridge"].rows.values():
            if bridge.name != naming.BRIDGE and any(port.name == name for port in bridge.ports):
                bridge.ports = [port for port in bridge.ports if port.name != name]

    return change


def _shaper(transaction: Any, idl: Any, name: str, limit: Limit) -> Any:
    """What leaves a port waits for its turn: one queue, the default one, that has all there is."""
    values = {"max-rate": str(limit.rate), "burst": str(limit.burst)}
    queue = transaction.insert(idl.tables["Queue"])
    qos = transaction.insert(idl.tables["QoS"])
    queue.other_config = values
    qos.type = "linux-htb"
    qos.other_config = {"max-rate": str(limit.rate)}
    qos.queues = {0: queue}
    # These rows don't go with the port by themselves.
    queue.external_ids = qos.external_ids = {_PORT: name}
    return qos


def remove_ports(names: set[str]) -> Change:
    """Ports that are to go; those that aren't there are gone already. What limited ports that are gone goes too."""

    def change(transaction: Any, idl: Any) -> None:
        bridge = _bridge(idl)
        if bridge is not None:
            for port in bridge.ports:
                # A row that is referred to can't be deleted, not even together with what refers to it.
                if port.name in names:
                    _set(port, "qos", [])
            if any(port.name in names for port in bridge.ports):
                bridge.ports = [port for port in bridge.ports if port.name not in names]
            _remove_shapers(idl, {port.name for port in bridge.ports})

    return change


def _remove_shapers(idl: Any, but: set[str]) -> None:
    for table in ("QoS", "Queue"):
        for row in list(idl.tables[table].rows.values()):
            if _PORT in row.external_ids and row.external_ids[_PORT] not in but:
                row.delete()


def remove_bridge(transaction: Any, idl: Any) -> None:
    """The bridge and all of its ports, and what Open vSwitch showed to the controller."""
    bridge = _bridge(idl)
    for port in bridge.ports if bridge is not None else ():
        _set(port, "qos", [])
    _remove_shapers(idl, set())
    for root in idl.tables["Open_vSwitch"].rows.values():
        if any(_NODE in row.external_ids for row in root.ssl):
            root.ssl = []
        if bridge is not None:
            ours = bridge.external_ids.get(_OPTIONS, "").split()
            _set(root, "other_config", {key: value for key, value in root.other_config.items() if key not in ours})
            root.bridges = [row for row in root.bridges if row != bridge]


def _get(row: Any, column: str, nothing: Any) -> Any:
    # A row that this transaction inserts has only the columns that it has been given.
    return getattr(row, column, nothing)


def _set(row: Any, column: str, value: Any) -> None:
    # Writing what is there already would still count as a change to vswitchd.
    if _get(row, column, None) != value:
        setattr(row, column, value)


def _set_keys(row: Any, column: str, values: Mapping[str, str]) -> None:
    found = dict(_get(row, column, {}))
    if any(found.get(key) != value for key, value in values.items()):
        setattr(row, column, found | dict(values))
