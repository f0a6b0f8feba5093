"""What the switch's notes have a host do: they are read, understood and done, and done again where that failed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from ipaddress import ip_address, ip_network
from itertools import count
from pathlib import Path
from struct import pack, unpack
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_node_settings import GOOD

from flows import values
from flows.tables import host as host_table
from flows.values import Flow
from node import host as node_host
from node import interconnect as node_interconnect
from node import netlink, nftables, notes
from node.flow_export import Export
from node.host import Health, Host, Tasks, UnknownError, tasks_of
from node.interconnect import PeerNode, PeerRoute
from node.netlink import LinkError
from node.nftables import HostPort, NftError
from node.notes import HOST_TABLE, Note, NotesError, notes_of
from node.settings import Settings
from topology.flow_export import parse as parse_exports
from topology.graph import Encap, Interconnect, Mode
from topology.naming import BRIDGE, Address, gateway_addresses

FLOWS = [
    host_table.address_flow(ip_address("198.51.100.1"), 1),
    host_table.address_flow(ip_address("2001:db8:1::1"), 1),
    host_table.announce_flow(ip_address("198.51.100.1"), 1),
    host_table.port_flow("TCP", 8080, 1),
    host_table.address_port_flow("UDP", 53, ip_address("192.0.2.11"), (ip_address("10.244.1.2"), 5353), 1),
    host_table.health_flow(32000, "shop", "web", 0, 1),
    host_table.health_flow(32000, "shop", "web", 3, 1),
]
SEGMENT = ip_network("192.0.2.0/24")
WAYS = [
    host_table.network_flow(Interconnect(Mode.HYBRID, Encap.GRE, (SEGMENT,)), 1),
    host_table.route_flow(ip_network("10.244.2.0/24"), ip_address("192.0.2.12"), SEGMENT, 1),
    host_table.route_flow(ip_network("fd00:10:244:2::/64"), ip_address("2001:db8::12"), None, 1),
    host_table.node_flow(ip_address("192.0.2.12"), SEGMENT, 1),
]
TASKS = Tasks(
    addresses=frozenset({ip_address("198.51.100.1"), ip_address("2001:db8:1::1")}),
    announced=frozenset({ip_address("198.51.100.1")}),
    host_ports=frozenset({HostPort("TCP", 8080), HostPort("UDP", 53, "192.0.2.11", "10.244.1.2", 5353)}),
    health=((32000, Health("shop", "web", 3)),),
)


def note_in(flow: Flow) -> bytes:
    """A flow's note as the switch keeps it: the bytes, filled up."""
    (note,) = flow.program
    assert isinstance(note, values.Note)
    return note.data


def read(flow: Flow) -> Note:
    found: Note = json.loads(note_in(flow))
    return found


def action(data: bytes, vendor: int = 0x2320, subtype: int = 8) -> bytes:
    return pack("!HHIH", 0xFFFF, 10 + len(data), vendor, subtype) + data


def described(actions: bytes, instruction: int = 4, match: bytes = pack("!HH4x", 1, 4)) -> bytes:
    """A flow as OpenFlow 1.3 describes it."""
    rest = match + pack("!HH4x", instruction, 8 + len(actions)) + actions
    return pack("!HBxIIHHHH4xQQQ", 48 + len(rest), 71, 0, 0, 10, 0, 0, 0, 1, 0, 0) + rest


# Notes as tasks -------------------------------------------------------------------------------------------------------


def test_every_note_that_the_controller_writes_is_understood() -> None:
    assert tasks_of(map(read, FLOWS)) == TASKS


def test_of_two_notes_on_one_health_check_port_the_one_with_endpoints_counts_in_any_order() -> None:
    found = [read(flow) for flow in FLOWS[-2:]]
    assert tasks_of(found).health == tasks_of(found[::-1]).health == TASKS.health
    assert tasks_of(found[:1]).health == ((32000, Health("shop", "web", 0)),)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"kind": "address"},
        {"kind": "announce", "address": "nowhere"},
        {"kind": "port", "protocol": "TCP", "port": None},
        {"kind": "port", "protocol": "TCP", "port": 1, "address": "192.0.2.1", "to": "nowhere", "toPort": 1},
        {"kind": "health", "port": 1, "namespace": "a", "name": "b", "endpoints": "many"},
    ],
)
def test_a_note_that_makes_no_sense_is_logged_and_the_others_count(bad: Note, caplog: pytest.LogCaptureFixture) -> None:
    assert tasks_of([bad, *map(read, FLOWS)]) == TASKS
    assert "a note that makes no sense" in caplog.text


def test_a_kind_of_note_of_a_later_release_is_passed_over() -> None:
    assert tasks_of([{"kind": "later", "thing": 1}]) == Tasks()


def test_how_nodes_reach_one_another_is_understood_and_asks_for_the_note_that_says_it() -> None:
    routes = {
        PeerRoute(ip_network("10.244.2.0/24"), ip_address("192.0.2.12"), SEGMENT),
        PeerRoute(ip_network("fd00:10:244:2::/64"), ip_address("2001:db8::12")),
    }
    ways = tasks_of(map(read, WAYS)).interconnect
    assert ways == node_interconnect.Interconnect(
        "hybrid", "gre", frozenset(routes), frozenset({PeerNode(ip_address("192.0.2.12"), SEGMENT)})
    )
    assert tasks_of(map(read, WAYS[1:])).interconnect is None
    later = [{"kind": "network", "mode": "telepathy", "encap": "gre"}]
    assert tasks_of([*later, *map(read, WAYS[1:])]).interconnect is None


EXPORTS = parse_exports(["ipfix:192.0.2.9:4739", "sflow:[2001:db8::9]:6343", "netflow:192.0.2.9:2055"], 10, 60)


def test_whom_to_tell_of_packets_is_understood() -> None:
    wanted = {
        Export("ipfix", ("192.0.2.9:4739",), 10, 60),
        Export("sflow", ("[2001:db8::9]:6343",), 10, 60),
        Export("netflow", ("192.0.2.9:2055",), 10, 60),
    }
    written = [host_table.export_flow(each, 1) for each in EXPORTS]
    assert tasks_of(map(read, written)).exports == wanted
    assert len({(flow.priority, flow.match) for flow in written}) == len(EXPORTS)


def test_an_export_that_this_release_does_not_know_is_logged_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    later = {**read(host_table.export_flow(EXPORTS[0], 1)), "protocol": "telepathy"}
    assert tasks_of([later]).exports == frozenset()
    assert "this agent is older than its controller" in caplog.text


async def test_collectors_are_kept_while_the_switch_says_nothing_and_go_when_it_says_so(machine: Machine) -> None:
    machine.notes = [read(flow) for flow in (WAYS[0], host_table.export_flow(EXPORTS[0], 1))]
    async with following() as host:
        assert host.exports is None
        await machine.settle()
        assert host.exports is not None and {each.protocol for each in host.exports} == {"ipfix"}
        assert host.exports_changed.is_set()
        machine.notes = []
        await machine.settle()
        assert host.exports is not None and {each.protocol for each in host.exports} == {"ipfix"}
        host.exports_changed.clear()
        machine.notes = [read(WAYS[0])]
        await machine.settle()
        assert host.exports == frozenset() and host.exports_changed.is_set()


def test_a_host_routes_to_nodes_of_its_subnet_or_where_there_is_none_to_those_on_its_networks() -> None:
    ways = tasks_of(map(read, WAYS)).interconnect
    assert ways is not None
    first, second = ip_network("10.244.2.0/24"), ip_network("fd00:10:244:2::/64")
    near, far = ip_address("192.0.2.12"), ip_address("2001:db8::12")
    mine = [ip_address("192.0.2.11")]
    assert ways.peers(mine, [ip_network("2001:db8::/64")]) == {first: near, second: far}
    assert ways.peers(mine, [ip_network("192.0.2.0/24")]) == {first: near}
    assert ways.peers([ip_address("198.51.100.1")], []) == {}
    assert ways.routed_nodes(mine) == {near} and ways.routed_nodes([ip_address("198.51.100.1")]) == set()
    # The node itself doesn't.
    assert ways.peers([near, far], [ip_network("2001:db8::/64")]) == {}


# Notes out of flows ---------------------------------------------------------------------------------------------------


def test_notes_are_found_in_flows_whatever_they_match_and_other_actions_are_passed_over() -> None:
    long_match = pack("!HH", 1, 4 + 10) + bytes(10) + bytes(2)
    output = pack("!HHIH6x", 0, 16, 1, 0)
    flows = [
        described(action(note_in(FLOWS[0]))),
        described(action(note_in(FLOWS[3])), match=long_match),
        described(output + action(b'{"kind":"x"}', subtype=1) + action(b"{}", vendor=1) + output),
        described(output + action(note_in(FLOWS[5]) + b"\0\0")),
        described(b"", instruction=1),
        described(action(b"[1, 2]".ljust(14, b"\0"))),
    ]
    assert notes_of(b"".join(flows)) == [read(FLOWS[0]), read(FLOWS[3]), read(FLOWS[5])]


@given(st.binary(max_size=300))
def test_bytes_that_are_no_flows_are_an_error_or_nothing_and_never_an_endless_loop(data: bytes) -> None:
    for made in (data, described(action(note_in(FLOWS[0])))[:48] + data, described(data)):
        with contextlib.suppress(ValueError, OSError, EOFError):
            notes_of(made)


# Asking the switch ----------------------------------------------------------------------------------------------------

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def switch(rundir: Path, answer: Answer) -> AsyncIterator[None]:
    """A bridge's management socket that answers the question with `answer`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await reader.readexactly(16)
        asked = await reader.readexactly(8 + 8 + 40)
        assert hello[:2] == b"\x04\x00"
        assert unpack("!BBH", asked[:4]) == (4, 18, len(asked))
        assert asked[8:10] == b"\0\1" and asked[16] == 71
        await answer(reader, writer)
        writer.close()

    server = await asyncio.start_unix_server(serve, str(rundir / f"{BRIDGE}.mgmt"))
    try:
        yield
    finally:
        server.close()


def reply(flows: Iterable[Flow], *, more: bool = False) -> bytes:
    body = pack("!HH4x", 1, more) + b"".join(described(action(note_in(flow))) for flow in flows)
    return pack("!BBHI", 4, 19, 8 + len(body), 2) + body


async def test_notes_are_read_from_all_parts_of_the_switch_s_answer(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(pack("!BBHI", 4, 0, 8, 1) + pack("!BBHI", 4, 2, 12, 9) + b"ping")
        assert await reader.readexactly(12) == pack("!BBHI", 4, 3, 12, 9) + b"ping"
        writer.write(reply(FLOWS[:3], more=True) + reply(FLOWS[3:]))

    async with switch(tmp_path, answer):
        assert await notes.read(tmp_path, 71, 30.0) == [read(flow) for flow in FLOWS]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (pack("!BBHIHH", 4, 1, 12, 2, 1, 5), "answers with an error: 00010005"),
        (reply(FLOWS)[:100], "IncompleteReadError"),
        (pack("!BBHI", 4, 19, 16 + 56, 2) + pack("!HH4x", 1, 0) + bytes(56), "a flow of 0 bytes"),
    ],
)
async def test_a_switch_that_doesn_t_tell_its_notes_is_an_error_that_names_its_socket(
    said: bytes, why: str, tmp_path: Path
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    async with switch(tmp_path, answer):
        with pytest.raises(NotesError, match=why) as problem:
            await notes.read(tmp_path, 71, 30.0)
    assert str(tmp_path / "br-int.mgmt") in str(problem.value)


async def test_the_state_of_a_switch_is_the_cookies_of_its_digests(tmp_path: Path) -> None:
    flows = [bytearray(described(b"")) for _ in range(2)]
    for flow, cookie in zip(flows, (9, 7), strict=True):
        flow[24:32] = pack("!Q", cookie)
    body = pack("!HH4x", 1, 0) + b"".join(flows)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(pack("!BBHI", 4, 19, 8 + len(body), 2) + body)

    async with switch(tmp_path, answer):
        assert await notes.edition(tmp_path, 71, 30.0) == (7, 9)


async def test_a_switch_that_is_silent_or_away_is_an_error_after_a_while(tmp_path: Path) -> None:
    with pytest.raises(NotesError, match="FileNotFoundError"):
        await notes.read(tmp_path, 71, 30.0)
    silent = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()

    async with switch(tmp_path, answer):
        with pytest.raises(NotesError, match="TimeoutError"):
            await notes.read(tmp_path, 71, 0.05)
        silent.set()


# Doing what notes ask for ---------------------------------------------------------------------------------------------


class Machine:
    """A host on which everything that is done is written down instead; `fails` is raised by what it names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notes: list[Note] = []
        self.done: list[tuple[Any, ...]] = []
        self.fails: dict[str, Exception] = {}
        self.away = False
        self.looks = 0
        self._looked = asyncio.Event()
        self._answers: set[Address] = set()
        monkeypatch.setattr(node_host, "_INTERVAL", 0.001)
        # Nothing is compared again but where a test says so, however long it takes.
        monkeypatch.setattr(node_host, "_ROUTES_INTERVAL", 3600.0)
        monkeypatch.setattr(notes, "read", self._read)
        self.editions: Iterator[tuple[int, ...]] = ((number,) for number in count())
        monkeypatch.setattr(notes, "edition", self._edition)
        monkeypatch.setattr(nftables, "apply", lambda text: self._do("rules", text))
        monkeypatch.setattr(netlink, "set_service_routes", lambda *words: self._do("routes", *words))
        monkeypatch.setattr(netlink, "route_loopback", lambda name, wanted: None)
        monkeypatch.setattr(netlink, "interface_of", lambda address: f"the uplink of {address}")
        monkeypatch.setattr(netlink, "set_announced", self._set_announced)
        monkeypatch.setattr(netlink, "announce", lambda *words: self._do("tell", *words))
        monkeypatch.setattr(netlink, "connected", lambda but: [])
        monkeypatch.setattr(netlink, "set_ways", lambda *words: self._do("ways", *words))

    async def _read(self, rundir: Path, table: int, patience: float) -> list[Note]:
        assert table == 71
        self.looks += 1
        self._looked.set()
        if self.away:
            raise NotesError("no switch")
        return self.notes

    async def _edition(self, rundir: Path, table: int, patience: float) -> tuple[int, ...]:
        assert table == 70
        return next(self.editions)

    def _do(self, what: str, *words: Any) -> None:
        if what in self.fails:
            raise self.fails[what]
        self.done.append((what, *words))

    def _set_announced(self, name: str, addresses: frozenset[Address]) -> set[Address]:
        self._do("announce", name, addresses)
        fresh = addresses - self._answers
        self._answers = set(addresses)
        return set(fresh)

    async def settle(self) -> list[tuple[Any, ...]]:
        """What was done, when nothing more is to do: two whole looks on."""
        for _ in range(3):
            self._looked.clear()
            async with asyncio.timeout(60):
                await self._looked.wait()
        done, self.done = self.done, []
        return done


SETTINGS = Settings(**GOOD, tables=((70, "Digest"), (71, HOST_TABLE)))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@contextlib.asynccontextmanager
async def following(settings: Settings = SETTINGS, *, begun: bool = True) -> AsyncIterator[Host]:
    host = Host(settings)
    if begun:
        host.begin()
    task = asyncio.create_task(host.follow())
    try:
        yield host
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        host.close()


async def test_what_notes_ask_for_is_done_once_and_again_only_where_it_changes(machine: Machine) -> None:
    machine.notes = [read(flow) for flow in FLOWS[:5]]
    async with following() as host:
        rules, routes, announce, tell = await machine.settle()
        assert rules == ("rules", host.rules()) and "tcp . 8080" in host.rules()
        assert routes == ("routes", "sb-gw0", TASKS.addresses, gateway_addresses(SETTINGS.pod_cidrs))
        assert announce == ("announce", "the uplink of 192.0.2.11", TASKS.announced)
        assert tell == ("tell", "the uplink of 192.0.2.11", TASKS.announced)
        assert await machine.settle() == []
        machine.notes = machine.notes[1:]
        assert [each[:3] for each in await machine.settle()] == [
            ("routes", "sb-gw0", frozenset({ip_address("2001:db8:1::1")}))
        ]
        machine.notes = []
        assert {each[0]: each[2] for each in (await machine.settle())[1:3]} == {
            "routes": frozenset(),
            "announce": frozenset(),
        }


async def test_a_workload_on_a_node_that_the_host_sends_to_by_itself_is_not_behind_its_bridge(machine: Machine) -> None:
    machine.notes = [
        {"kind": "network", "mode": "routed", "encap": "vxlan"},
        {"kind": "address", "address": "198.51.100.7"},
        {"kind": "address", "address": "198.51.100.8"},
        {"kind": "route", "network": "198.51.100.7/32", "via": "192.0.2.12", "subnet": "192.0.2.0/24"},
        {"kind": "route", "network": "198.51.100.8/32", "via": "192.0.2.11", "subnet": "192.0.2.0/24"},
    ]
    async with following():
        done = {each[0]: each for each in await machine.settle()}
        assert done["routes"][2] == {ip_address("198.51.100.8")}
        assert done["ways"][4] == {ip_network("198.51.100.7/32"): ip_address("192.0.2.12")}
        machine.notes[3]["via"], machine.notes[4]["via"] = "192.0.2.11", "192.0.2.12"
        done = {each[0]: each for each in await machine.settle()}
        assert done["routes"][2] == {ip_address("198.51.100.7")}


async def test_a_host_that_has_to_forget_does_everything_again(machine: Machine) -> None:
    machine.notes = [read(FLOWS[0])]
    async with following() as host:
        await machine.settle()
        host.forget()
        assert [each[0] for each in await machine.settle()] == ["rules", "routes", "announce", "tell"]


async def test_a_host_whose_switch_was_away_is_compared_with_the_notes_anew(machine: Machine) -> None:
    machine.notes = [read(FLOWS[0])]
    async with following():
        await machine.settle()
        machine.away = True
        await machine.settle()
        machine.away = False
        assert [each[0] for each in await machine.settle()] == ["rules", "routes", "announce", "tell"]
        assert await machine.settle() == []


async def test_what_went_while_no_agent_was_there_is_taken_away_though_there_is_no_note_left(machine: Machine) -> None:
    async with following():
        done = await machine.settle()
    assert ("announce", "the uplink of 192.0.2.11", frozenset()) in done
    assert ("routes", "sb-gw0", frozenset(), gateway_addresses(SETTINGS.pod_cidrs)) in done


@pytest.mark.parametrize(
    ("what", "error"),
    [("rules", NftError("no nft")), ("routes", LinkError("no gateway")), ("tell", LinkError("no uplink"))],
)
async def test_what_fails_is_said_once_and_tried_again_until_it_is_done(
    machine: Machine, caplog: pytest.LogCaptureFixture, what: str, error: Exception
) -> None:
    caplog.set_level(logging.WARNING)
    machine.notes = [read(flow) for flow in FLOWS[:5]]
    machine.fails = {what: error}
    async with following():
        await machine.settle()
        await machine.settle()
        assert caplog.text.count(f"the host isn't as Services need it: {error}") == 1
        machine.fails = {}
        assert what in [each[0] for each in await machine.settle()]
        assert await machine.settle() == []


async def test_notes_are_read_again_only_when_the_switch_has_another_state_or_something_failed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.notes = [read(FLOWS[0])]
    reads = 0

    async def counted(*_: Any) -> list[Note]:
        nonlocal reads
        reads += 1
        return machine.notes

    monkeypatch.setattr(notes, "read", counted)
    looks, asked = asyncio.Queue[tuple[int, ...]](1), asyncio.Event()

    async def edition_of(*_: Any) -> tuple[int, ...]:
        asked.set()
        return await looks.get()

    monkeypatch.setattr(notes, "edition", edition_of)
    machine.fails = {"routes": LinkError("no gateway")}
    async with following():
        for edition, wanted in (((1, 2), 1), ((1, 2), 2), ((1, 2), 3), ((1, 2), 3), ((1, 3), 4), ((1, 3), 4)):
            async with asyncio.timeout(60):
                await asked.wait()
                asked.clear()
                await looks.put(edition)
                # All that follows from one is done when the next is asked for.
                await asked.wait()
            assert reads == wanted, (edition, wanted)
            if wanted == 2:
                machine.fails = {}


async def test_ways_to_other_nodes_are_made_once_and_kept_while_the_switch_says_nothing_of_them(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.notes = [read(flow) for flow in WAYS[:2]]
    async with following() as host:
        ways = [each for each in await machine.settle() if each[0] == "ways"]
        peers = {ip_network("10.244.2.0/24"): ip_address("192.0.2.12")}
        assert ways == [("ways", "sb-gw0", SETTINGS.cluster_cidrs, True, peers, gateway_addresses(SETTINGS.pod_cidrs))]
        assert await machine.settle() == []
        machine.notes = []
        assert await machine.settle() == []
        assert host.interconnect is not None and (await host.interconnected(30)).way == ("hybrid", "gre")
        machine.notes = [read(host_table.network_flow(Interconnect(Mode.ROUTED), 1))]
        assert ("ways", "sb-gw0", SETTINGS.cluster_cidrs, False, {}) in [each[:5] for each in await machine.settle()]
        # Its host's networks may become others.
        monkeypatch.setattr(node_host, "_ROUTES_INTERVAL", 0.0)
        assert {each[0] for each in await machine.settle()} == {"ways"}


async def test_a_switch_that_has_not_been_told_how_nodes_reach_one_another_is_waited_for(machine: Machine) -> None:
    async with following() as host:
        with pytest.raises(UnknownError, match="no controller has told this node's switch yet"):
            await host.interconnected(0.05)
        machine.notes = [read(WAYS[0])]
        assert (await host.interconnected(30)).encap == "gre"


async def test_before_there_is_a_gateway_nothing_is_asked_and_nothing_is_wrong(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    # As at a node's first start: there is no switch yet.
    caplog.set_level(logging.WARNING)
    machine.away = True
    async with following(begun=False) as host:
        for _ in range(10):
            await asyncio.sleep(0)
        assert machine.looks == 0
        machine.away = False
        host.begin()
        assert [each[0] for each in await machine.settle()] == ["rules", "routes", "announce", "tell"]
    assert not caplog.records


async def test_notes_are_followed_after_a_while_also_where_no_gateway_is_said_to_be_set_up(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As while the database is away: the switch may be there all the same.
    monkeypatch.setattr(node_host, "_PATIENCE", 0.01)
    async with following(begun=False):
        assert [each[0] for each in await machine.settle()] == ["rules", "routes", "announce", "tell"]


async def test_without_a_table_of_notes_nothing_is_followed(machine: Machine) -> None:
    host = Host(Settings(**GOOD))
    await host.follow()
    assert machine.done == []


# Health checks --------------------------------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, no two of them the same."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def health(port: int, endpoints: int) -> list[Note]:
    found = [read(host_table.health_flow(port, "shop", "web", 0, 1))]
    return found + [read(host_table.health_flow(port, "shop", "web", endpoints, 1))] * (endpoints > 0)


async def ask(
    address: str, port: int, question: bytes = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
) -> tuple[bytes, bytes]:
    """The head and the body of the answer."""
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(question)
    async with asyncio.timeout(60):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head, body


async def test_a_health_check_says_200_where_an_endpoint_is_and_503_where_none_is(machine: Machine) -> None:
    (port,) = free_ports(1)
    machine.notes = health(port, 2)
    async with following():
        await machine.settle()
        for address in ("127.0.0.1", "::1"):
            head, body = await ask(address, port)
            lines = head.decode().split("\r\n")
            assert lines[0] == "HTTP/1.1 200 OK" and f"Content-Length: {len(body)}" in lines
            assert "X-Load-Balancing-Endpoint-Weight: 2" in lines
            assert json.loads(body) == {
                "service": {"namespace": "shop", "name": "web"},
                "localEndpoints": 2,
                "serviceProxyHealthy": True,
            }
        machine.notes = health(port, 0)
        await machine.settle()
        head, body = await ask("127.0.0.1", port)
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n") and json.loads(body)["localEndpoints"] == 0


async def test_a_port_for_health_checks_is_closed_when_its_service_goes_and_its_rule_with_it(machine: Machine) -> None:
    first, second = free_ports(2)
    machine.notes = health(first, 1)
    async with following() as host:
        await machine.settle()
        assert f"tcp dport {{ {first} }} return" in host.rules()
        machine.notes = health(second, 1)
        await machine.settle()
        with pytest.raises(OSError, match="Connect call failed"):
            await ask("127.0.0.1", first)
        assert (await ask("127.0.0.1", second))[0].startswith(b"HTTP/1.1 200")
        assert str(first) not in host.rules()
    with pytest.raises(OSError, match="Connect call failed"):
        await ask("127.0.0.1", second)


async def test_a_port_that_another_program_has_is_taken_when_that_lets_it_go(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::", 0))
        other.listen()
        port = int(other.getsockname()[1])
        machine.notes = health(port, 1)
        async with following():
            await machine.settle()
            assert "address already in use" in caplog.text.lower()
            other.close()
            await machine.settle()
            assert (await ask("127.0.0.1", port))[0].startswith(b"HTTP/1.1 200")


async def test_rubbish_and_silence_keep_nobody_from_an_answer(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_host, "_CHECK_LIMIT", 1.0)
    (port,) = free_ports(1)
    machine.notes = health(port, 1)
    async with following():
        await machine.settle()
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(node_host._CHECKS)]
        # It may be hung up on before all of it is sent.
        with contextlib.suppress(ConnectionError):
            assert await ask("127.0.0.1", port, b"\xff" * (1 << 17)) == (b"", b"")
        # Those that are silent have their second, and who asks as one should has time.
        monkeypatch.setattr(node_host, "_CHECK_LIMIT", 60.0)
        assert (await ask("127.0.0.1", port))[0].startswith(b"HTTP/1.1 200")
        for reader, writer in silent:
            assert await reader.read() == b""
            writer.close()


# The rules ------------------------------------------------------------------------------------------------------------


def test_rules_that_stay_the_same_are_the_same_text_whatever_the_order_of_the_ports() -> None:
    ports = [HostPort("UDP", 53), HostPort("TCP", 80, "192.0.2.11"), HostPort("TCP", 443)]
    cidrs = GOOD["cluster_cidrs"]
    made = nftables.rules(cidrs, (30000, 32767), ports, [32001, 32000])
    assert made == nftables.rules(cidrs, (30000, 32767), ports[::-1], [32000, 32001])
    assert "tcp dport { 32000, 32001 } return" in made


def test_the_whole_table_is_replaced_at_once() -> None:
    alone = nftables.rules(GOOD["cluster_cidrs"][:1], (30000, 32767))
    assert alone == (
        "table inet signalbox {}\n"
        "delete table inet signalbox\n"
        "table inet signalbox {\n"
        "  chain entry {\n"
        "    ip daddr 127.0.0.0/8 return\n"
        "    ip6 daddr ::1 return\n"
        "    fib daddr type != local return\n"
        "    meta nfproto ipv4 meta l4proto { tcp, udp, sctp } th dport 30000-32767 dnat ip to 169.254.91.2\n"
        "    meta nfproto ipv6 meta l4proto { tcp, udp, sctp } th dport 30000-32767 dnat ip6 to fd5b:91::2\n"
        "  }\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat; policy accept;\n"
        '    oifname != "sb-gw0" ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 counter masquerade\n'
        '    oifname != "sb-gw0" ip saddr 169.254.91.1 counter masquerade\n'
        '    oifname != "sb-gw0" ip6 saddr fd5b:91::1 counter masquerade\n'
        '    oifname "sb-gw0" ip saddr 127.0.0.0/8 counter masquerade\n'
        '    oifname "sb-gw0" ip daddr 169.254.91.2 fib saddr type local counter masquerade\n'
        '    oifname "sb-gw0" ip6 daddr fd5b:91::2 fib saddr type local counter masquerade\n'
        "  }\n"
        "  chain prerouting {\n"
        "    type nat hook prerouting priority dstnat; policy accept;\n"
        '    iifname "sb-gw0" return\n'
        "    jump entry\n"
        "  }\n"
        "  chain output {\n"
        "    type nat hook output priority -100; policy accept;\n"
        "    jump entry\n"
        "  }\n"
        "  chain refuse {\n"
        "    type filter hook prerouting priority mangle; policy accept;\n"
        '    iifname != "sb-gw0" return\n'
        "    ip daddr 127.0.0.0/8 counter drop\n"
        '    fib daddr oifname != "sb-gw0" return\n'
        "    ip daddr 10.244.0.0/16 counter reject with icmpx host-unreachable\n"
        "    meta l4proto tcp counter reject with tcp reset\n"
        "    counter reject with icmpx port-unreachable\n"
        "  }\n"
        "}\n"
    )


def test_an_agent_s_first_rules_are_those_of_a_host_without_tasks() -> None:
    host = Host(SETTINGS)
    assert host.rules() == nftables.rules(SETTINGS.cluster_cidrs, SETTINGS.node_ports)
    assert msgspec.structs.replace(SETTINGS, node_ports=(1000, 2000)).node_ports == (1000, 2000)
    assert "th dport 1000-2000" in Host(msgspec.structs.replace(SETTINGS, node_ports=(1000, 2000))).rules()
