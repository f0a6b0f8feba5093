"""BGP's options, and the conversation with ExaBGP: its lines in, commands out. The engine itself: tests/integration."""

from __future__ import annotations

import asyncio
import json
import socket
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sync import node, snapshot, started

from controller.bgp import Speaker
from controller.bgp_sessions import Sessions
from controller.bgp_settings import BgpSettings, BgpSettingsError, Peer, check_listen
from topology.announcements import Route

ONE, SEVERAL = "192.0.2.1", "2001:db8::1"
BOTH = ["ipv4 unicast", "ipv6 unicast"]


def options(
    *peers: str,
    asn: int | None = 64512,
    router_id: str | None = "192.0.2.9",
    listen: tuple[str, ...] = (),
    time: int = 9,
) -> BgpSettings | None:
    return BgpSettings.parse(asn, peers, router_id, listen, time)


def sessions(*peers: str) -> Sessions:
    settings = options(*(f"{each}@64999" for each in peers or (ONE, SEVERAL)))
    assert settings is not None
    here = Sessions(settings)
    here.begin()
    return here


def hear(here: Sessions, peer: str, kind: str, **fields: Any) -> None:
    neighbor = {"address": {"local": "192.0.2.9", "peer": peer}, "asn": {"local": 64512, "peer": 64999}, **fields}
    here.heard(json.dumps({"exabgp": "5.0.0", "type": kind, "neighbor": neighbor}).encode() + b"\n", 5.0)


def come_up(here: Sessions, peer: str, several: bool = False, families: list[str] | None = None) -> None:
    families = BOTH if families is None else families
    terms = {"families": families, "add_path": {"send": families if several else [], "receive": []}}
    hear(here, peer, "negotiated", negotiated=terms)
    hear(here, peer, "state", state="up")


def go_down(here: Sessions, peer: str, reason: str = "closing connection") -> None:
    hear(here, peer, "state", state="down", reason=reason)


def route(prefix: str, *hops: str) -> Route:
    return Route(ip_network(prefix), tuple(map(ip_address, hops)), "Node/n")


POD, POD6 = route("10.244.1.0/24", "172.30.0.1"), route("fd00:1::/64", "fd00::1")
WEB = route("198.51.100.1/32", "172.30.0.2", "172.30.0.1", "172.30.0.3")


def test_peers_are_addresses_with_an_as_and_where_it_is_another_a_port() -> None:
    settings = options("192.0.2.1@64999", "2001:db8::1@4200000000:1790", listen=("[2001:db8::9]:1790",))
    assert settings is not None
    assert settings.peers == (
        Peer(ip_address("192.0.2.1"), 64999),
        Peer(ip_address("2001:db8::1"), 4200000000, 1790),
    )
    assert settings.listens(settings.peers[1]) == (ip_address("2001:db8::9"), 1790)
    assert settings.listens(settings.peers[0]) is None


def test_without_peers_there_is_no_bgp() -> None:
    assert options(asn=None, router_id=None) is None


def test_the_router_id_is_by_default_an_address_of_this_side() -> None:
    settings = options("2001:db8::1@64999", router_id=None, listen=("192.0.2.7:1790",))
    assert settings is not None
    assert str(settings.router_id) == "192.0.2.7"
    settings = options("127.0.0.2@64999", router_id=None)
    assert settings is not None
    assert str(settings.router_id) == "127.0.0.1"


@pytest.mark.parametrize(
    ("peers", "changes", "said"),
    [
        ((), {}, "--bgp-as, --bgp-router-id and --bgp-listen go with --bgp-peer: say who the routers are"),
        (("192.0.2.1@1",), {"asn": None}, "--bgp-peer goes with --bgp-as: say which AS this side is"),
        (("192.0.2.1",), {}, "--bgp-peer 192.0.2.1: give ADDRESS@AS"),
        (("router@1",), {}, "--bgp-peer router@1: 'router' isn't an address; give ADDRESS@AS"),
        (("192.0.2.1@x",), {}, "--bgp-peer 192.0.2.1@x: give ADDRESS@AS"),
        (("192.0.2.1@1:",), {}, "--bgp-peer 192.0.2.1@1:: give ADDRESS@AS"),
        (("192.0.2.1@1:70000",), {}, "--bgp-peer 192.0.2.1@1:70000: 70000 isn't a port"),
        (("192.0.2.1@0",), {}, "--bgp-peer 192.0.2.1@0: 0 is no AS"),
        (("192.0.2.1@23456",), {}, "private ones are 64512 to 65534"),
        (("192.0.2.1@1",), {"asn": 1 << 32}, "--bgp-as 4294967296: 4294967296 is no AS"),
        (("192.0.2.1@1", "192.0.2.1@2"), {}, "--bgp-peer: 192.0.2.1 is there twice"),
        (("192.0.2.1@1",), {"router_id": "fd00::1"}, "--bgp-router-id fd00::1: give four bytes"),
        (("192.0.2.1@1",), {"router_id": "0.0.0.0"}, "--bgp-router-id 0.0.0.0: it must not be 0"),
        (("fd00::1@1",), {"router_id": None}, "--bgp-router-id: there is no IPv4 address to take for it"),
        (("192.0.2.1@1",), {"listen": ("1790",)}, "--bgp-listen 1790: give ADDRESS:PORT"),
        (("192.0.2.1@1",), {"listen": ("192.0.2.9:0",)}, "--bgp-listen 192.0.2.9:0: '0' isn't a port"),
        (("192.0.2.1@1",), {"listen": ("0.0.0.0:179",)}, "give the address that routers know this machine by"),
        (("192.0.2.1@1",), {"listen": ("192.0.2.9:1", "192.0.2.8:1")}, "two IPv4 addresses; give one of each family"),
        (("192.0.2.1@1",), {"time": 0}, "--bgp-restart-time 0: give 1 to 4095 seconds"),
    ],
)
def test_an_option_that_can_t_be_is_named_with_what_to_do(
    peers: tuple[str, ...], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BgpSettingsError) as caught:
        options(*peers, **changes)
    assert said in str(caught.value)


def test_an_address_that_isn_t_this_machine_s_is_refused_before_anything_starts() -> None:
    settings = options("192.0.2.1@1", listen=("192.0.2.9:1790",))
    assert settings is not None
    with pytest.raises(BgpSettingsError, match=r"--bgp-listen 192\.0\.2\.9:1790: .*; give an address of this machine"):
        check_listen(settings)


def test_a_port_in_use_is_tried_later_and_not_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = options("192.0.2.1@1", listen=(f"127.0.0.1:{taken.getsockname()[1]}",))
        assert settings is not None
        check_listen(settings)


def test_a_peer_is_told_nothing_before_it_is_known_what_it_takes_and_then_all_before_end_of_rib() -> None:
    here = sessions(ONE)
    here.routes = (POD, POD6)
    assert here.commands() == []
    come_up(here, ONE)
    assert here.commands() == [
        f"neighbor {ONE} announce route 10.244.1.0/24 next-hop 172.30.0.1",
        f"neighbor {ONE} announce route fd00:1::/64 next-hop fd00::1",
        f"neighbor {ONE} announce eor ipv4 unicast",
        f"neighbor {ONE} announce eor ipv6 unicast",
    ]
    assert here.commands() == []


def test_what_is_the_same_for_several_peers_is_said_once() -> None:
    here = sessions()
    come_up(here, ONE)
    come_up(here, SEVERAL)
    here.routes = (POD,)
    first, *_ = here.commands()
    assert first == f"neighbor {ONE}, neighbor {SEVERAL} announce route 10.244.1.0/24 next-hop 172.30.0.1"


def test_several_next_hops_are_for_those_that_take_them_and_others_get_the_best() -> None:
    here = sessions()
    come_up(here, ONE)
    come_up(here, SEVERAL, several=True)
    here.routes = (WEB,)
    assert [each for each in here.commands() if "route" in each] == [
        f"neighbor {ONE} announce route 198.51.100.1/32 next-hop 172.30.0.2",
        f"neighbor {SEVERAL} announce route 198.51.100.1/32 next-hop 172.30.0.2 path-information 1",
        f"neighbor {SEVERAL} announce route 198.51.100.1/32 next-hop 172.30.0.1 path-information 2",
        f"neighbor {SEVERAL} announce route 198.51.100.1/32 next-hop 172.30.0.3 path-information 3",
    ]


def test_a_family_that_a_peer_doesn_t_take_isn_t_announced_to_it() -> None:
    here = sessions(ONE)
    come_up(here, ONE, families=["ipv4 unicast"])
    here.routes = (POD, POD6)
    assert not [each for each in here.commands() if "fd00" in each or "ipv6" in each]


def test_a_session_that_comes_back_is_told_end_of_rib_again_and_what_changed_meanwhile() -> None:
    here = sessions(ONE)
    come_up(here, ONE)
    here.routes = (POD, WEB)
    here.commands()
    go_down(here, ONE)
    here.routes = (WEB,)
    assert here.commands() == [f"neighbor {ONE} withdraw route 10.244.1.0/24 next-hop 172.30.0.1"]
    come_up(here, ONE)
    assert here.commands() == [f"neighbor {ONE} announce eor ipv{version} unicast" for version in (4, 6)]
    assert not here.spoilt


def test_a_router_that_now_takes_one_next_hop_makes_everything_begin_anew() -> None:
    here = sessions(ONE)
    come_up(here, ONE, several=True)
    here.routes = (WEB,)
    here.commands()
    go_down(here, ONE)
    come_up(here, ONE)
    assert here.spoilt
    here.begin()
    assert not here.spoilt
    assert here.commands() == []


def test_an_engine_that_begins_anew_is_told_everything_again() -> None:
    here = sessions(ONE)
    here.routes = (POD,)
    come_up(here, ONE)
    before = here.commands()
    here.begin()
    come_up(here, ONE)
    assert here.commands() == before


def test_a_fault_is_told_once_and_silence_after_it_is_no_other_fault() -> None:
    here = sessions(ONE)
    for _ in range(3):
        go_down(here, ONE, "notification received (2,2)")
        go_down(here, ONE)
    ((wrong, line, peer),) = here.news
    assert wrong and peer == str(ONE)
    assert line.startswith(f"peer {ONE} (AS 64999) is down: it ended with wrong AS")
    come_up(here, ONE)
    go_down(here, ONE)
    assert [each.wrong for each in here.news] == [True, False, True]


def test_what_isn_t_understood_of_the_engine_is_left_alone() -> None:
    here = sessions(ONE)
    for line in (b"done\n", b"{\n", b'{"type": "state"}\n', b'{"type": "state", "neighbor": {"address": 3}}\n'):
        here.heard(line, 0.0)
    hear(here, "192.0.2.200", "state", state="up")
    assert not here.news
    here.heard(b"error\n", 0.0)
    assert here.news[0][0]


def test_the_configuration_names_each_peer_and_lets_those_connect_that_may() -> None:
    settings = options("192.0.2.1@64999:1791", "2001:db8::1@65000", listen=("192.0.2.9:1790",), time=300)
    assert settings is not None
    text = Sessions(settings).configuration(["/bin/relay", "/run/s"])
    assert "neighbor 192.0.2.1 { inherit signalbox; peer-as 64999; local-address 192.0.2.9; " in text
    assert "connect 1791; listen 1790; }" in text
    assert "neighbor 2001:db8::1 { inherit signalbox; peer-as 65000; local-address auto; connect 179; }" in text
    assert "graceful-restart 300;" in text
    assert "run /bin/relay /run/s;" in text


async def test_of_several_controllers_only_the_master_of_the_first_shard_has_anything_to_announce(
    tmp_path: Path,
) -> None:
    controller = started(node(1))
    held: dict[int, object] = {1: "another shard"}
    replica: Any = SimpleNamespace(leases=SimpleNamespace(tenure=held.get))
    controller.replica = replica
    assert controller.routes() is None
    settings = options(f"{ONE}@64999")
    assert settings is not None
    speaker = Speaker(settings, tmp_path / "bgp")
    keeping = asyncio.create_task(speaker.keep(controller.routes))
    await asyncio.sleep(0)
    assert not speaker.speaks and not list(speaker.troubles()) and not (tmp_path / "bgp").exists()
    keeping.cancel()
    held[0] = "the first"
    assert [str(each.prefix) for each in controller.routes() or ()] == ["10.244.1.0/24"]


def test_whether_a_peer_is_up_is_told_to_who_wants_to_hear_it(tmp_path: Path) -> None:
    settings = options(f"{ONE}@64999")
    assert settings is not None
    speaker = Speaker(settings, tmp_path / "bgp")
    heard: list[tuple[str, bool]] = []
    speaker.told = lambda peer, line, is_up: heard.append((peer, is_up))
    come_up(speaker.sessions, ONE)
    go_down(speaker.sessions, ONE)
    speaker.sessions.heard(b"error\n", 0.0)
    speaker._tell_news()
    assert heard == [(str(ONE), True), (str(ONE), False)]


def test_routes_are_made_anew_only_when_something_has_changed() -> None:
    controller = started(node(1))
    before = controller.routes()
    assert controller.routes() is before
    controller.take(snapshot(node(1), node(2)))
    assert len(controller.routes() or ()) == 2


HOPS = st.lists(st.sampled_from(["172.30.0.1", "172.30.0.2", "172.30.0.3"]), min_size=1, unique=True)
TABLES = st.dictionaries(st.sampled_from(["10.0.0.0/24", "10.0.1.0/24", "198.51.100.1/32"]), HOPS)


@given(st.lists(TABLES, max_size=6), st.booleans())
def test_at_every_moment_a_router_knows_what_is_wanted_or_was_before(
    tables: list[dict[str, list[str]]], several: bool
) -> None:
    here = sessions(ONE)
    come_up(here, ONE, several=several)
    known: dict[str, dict[str, str]] = {}
    former: dict[str, list[str]] = {}
    for table in tables:
        here.routes = tuple(route(prefix, *hops) for prefix, hops in sorted(table.items()))
        for command in here.commands():
            words = command.split()
            if "eor" in words:
                continue
            prefix, hop = words[words.index("route") + 1], words[words.index("next-hop") + 1]
            path = words[-1] if several else ""
            if "announce" in words:
                known.setdefault(prefix, {})[path] = hop
            else:
                assert known[prefix].pop(path) == hop
            if several and prefix in table and prefix in former:
                assert set(table[prefix]) & set(former[prefix]) <= set(known[prefix].values())
        wanted = {prefix: set(hops if several else hops[:1]) for prefix, hops in table.items()}
        assert {prefix: set(hops.values()) for prefix, hops in known.items() if hops} == wanted
        former = table
