"""Captures: what taps are, what a file of packets is, and what is refused."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from policy_objects import has, pod, policy
from test_compiler import node
from test_policy_parts import compiled

from controller import capture_points, pcapng
from controller.capture import Capture, Captures
from controller.capture_points import CaptureError, Request, check
from flows import fields as f
from flows import taps
from flows.cookies import Scope, is_tap, scope_match
from flows.fields import Term
from flows.interpreter import Interpreter
from flows.openflow.decode import decode
from flows.openflow.messages import PacketIn
from flows.pipeline import CLASSIFY, INGRESS_ADMIN, INGRESS_POLICY, OUTPUT, TABLES, Table
from flows.registers import DESTINATION_IDENTITY, FROM_POD, SOURCE_IDENTITY, TO_POD
from flows.taps import Taps
from flows.text import flow_text
from flows.update import CLUSTER
from flows.values import DROP, Flow, SetField
from topology.model import Namespace
from topology.policies import Action, PodSet, Policy, PolicyPort, Rule, Tier

_TRACE = Taps(session=1, slot=taps.TRACE_SLOT, snaplen=96, rate=20, seconds=15)
_TAPS = Taps(session=0x2BCDEF, slot=2, snaplen=96, rate=20, seconds=15)


def test_a_tap_reads_as_a_person_would_write_it() -> None:
    flow = _TAPS.flow(CLASSIFY, f.match(f.IN_PORT(7)), 3)
    assert flow_text(flow, names=True) == (
        "cookie=0x5d00002bcdef0003,table=Classify,priority=65534,in_port=7,reg9=0/0x4000001"
        " actions=set_field:0x1/0x1->reg9,controller(max_len=96,meter_id=23298),resubmit(,Classify)"
    ).replace("reg9=0/", "reg9=0x0/")


def test_taps_are_in_no_scope_and_say_which_they_are() -> None:
    cookie = _TAPS.flow(OUTPUT, (), 0xFFFF).cookie
    assert is_tap(cookie)
    assert taps.told_by(cookie) == (0x2BCDEF, 0xFFFF)
    for scope in Scope:
        value, mask = scope_match(scope)
        assert cookie & mask != value


def test_every_table_that_packets_cross_has_a_bit_of_its_own() -> None:
    bits = [_TRACE.flow(table, (), 0).match[0].mask for table in TABLES[:-2]]
    assert len(set(bits)) == len(bits)
    assert all(bit is not None and bit.bit_count() == 1 for bit in bits)


def test_taps_of_two_captures_for_the_same_packets_are_two_flows_and_no_packet_tells_them_apart() -> None:
    both = [structs.replace(_TAPS, slot=slot).flow(CLASSIFY, f.match(f.IN_PORT(7)), 0) for slot in range(taps.CAPTURES)]
    assert len({each.key for each in both}) == taps.CAPTURES
    written = {action.mask for table in TABLES[:-2] for action in _TAPS.flow(table, (), 0).program
               if isinstance(action, SetField)}  # fmt: skip
    asked = [each.match[-1].mask for each in both]
    assert all(mask is not None and sum(bool(mask & bits) for bits in written if bits) == 1 for mask in asked)


def test_a_trace_is_told_before_any_capture_so_that_its_packet_is_held_back() -> None:
    trace, capture = (made.flow(OUTPUT, (), 0) for made in (_TRACE, _TAPS))
    assert trace.priority > capture.priority
    assert taps.is_trace(trace.cookie) and not taps.is_trace(capture.cookie)


def test_who_is_between_two_is_matched_by_family() -> None:
    both = (ip_address("10.0.0.1"), ip_address("fd00::1"))
    found = list(taps.sent(4, both))
    assert [table for table, _ in found] == [CLASSIFY, CLASSIFY]
    assert [match[1].value for _, match in found] == [f.ETH_IPV4, f.ETH_IPV6]
    assert [len(list(taps.delivered(4, peers))) for peers in ((), both)] == [1, 2]


def test_messages_of_taps_have_openflows_lengths() -> None:
    for message in [*_TAPS.made([_TAPS.flow(OUTPUT, (), 0)]), *_TAPS.unmade()]:
        assert int.from_bytes(message[2:4], "big") == len(message)
        assert len(message) % 8 == 0
        decode(message)


def test_tcpdump_reads_what_is_written(tmp_path: Path) -> None:
    frame = bytes.fromhex("0a570000000102020202020208060001080006040001020202020202") + bytes(14)
    file = tmp_path / "some.pcapng"
    head = pcapng.section("test") + pcapng.interface("n1:a/b", "sent by pod a/b", 96)
    file.write_bytes(head + pcapng.packet(0, 1_700_000_000_123_456_789, frame, 60, pcapng.OUTBOUND, "here"))
    with file.open("rb") as given:
        done = subprocess.run(
            ["tcpdump", "-tt", "-e", "-nn", "-r", "-"], stdin=given, capture_output=True, text=True, check=True
        )
    assert done.stdout.startswith("1700000000.123456 02:02:02:02:02:02 > 0a:57:00:00:00:01, ethertype ARP")
    assert "length 60" in done.stdout


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_packets_are_counted_in_whatever_pieces_they_come(step: int) -> None:
    packets = [pcapng.packet(0, 1, bytes(size), size, pcapng.INBOUND, "here") for size in (14, 60, 61, 900)]
    data = b"".join([pcapng.section("test"), pcapng.interface("n1", "", 96), *packets])
    count, rest = 0, b""
    for start in range(0, len(data), step):
        more, rest = pcapng.counted(rest + data[start : start + step])
        count += more
    assert (count, rest) == (4, b"")


def test_what_a_file_says_of_itself_is_read_back() -> None:
    assert pcapng.comment_of(pcapng.section("test", "not of nodes n1, n2")) == "not of nodes n1, n2"
    assert pcapng.comment_of(pcapng.section("test") + pcapng.interface("n1", "", 96)) == ""


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (Request(), "name a pod"),
        (Request(pod="a/b", source="a/c", target="a/d"), "name a pod"),
        (Request(source="a/b"), "name a pod"),
        (Request(pod="a/b", drops="a/c"), "name a pod"),
        (Request(drops="a/c", direction="sent"), "direction"),
        (Request(pod="a/b", direction="up"), "direction"),
        (Request(pod="a/b", duration=301), "duration"),
        (Request(pod="a/b", rate=0), "rate"),
        (Request(pod="a/b", snaplen=1 << 16), "snaplen"),
        (Request(pod="a/b", size=1 << 40), "size"),
        (Request(pod="a/b", count=0), "count"),
    ],
)
def test_what_is_out_of_bounds_is_refused(wanted: Request, text: str) -> None:
    with pytest.raises(CaptureError, match=text):
        check(wanted)


# What policies drop ---------------------------------------------------------------------------------------------------

OF_DB, OF_CLIENT = (PodSet((has("app", app),), "a") for app in ("db", "client"))
DB = policy("db", subjects=OF_DB, ingress=(Rule(peers=(OF_CLIENT,), ports=(PolicyPort("TCP", 5432),)),))
SAME = policy("same", subjects=OF_DB, ingress=())
#: Denies much, one rank below what allows much: both by conjunctions, and one that is a flow by itself between them.
GUARD = Policy(
    kind="ClusterNetworkPolicy",
    name="guard",
    tier=Tier.ADMIN,
    priority=5,
    subjects=PodSet((), namespaces=(has("team", "a"),)),
    ingress=(
        Rule(Action.ACCEPT, peers=(OF_CLIENT,), ports=tuple(PolicyPort("TCP", port) for port in range(9000, 9060, 2))),
        Rule(Action.DENY, ports=(PolicyPort("TCP", 9002),)),
        Rule(Action.DENY, peers=(OF_CLIENT,), ports=tuple(PolicyPort("UDP", port) for port in range(9000, 9060, 2))),
    ),
)
PODS = [pod(f"{app}{copy}", app=app, copy=str(copy)) for app in ("db", "client", "other") for copy in range(3)]


class Site:
    """Captures of a cluster, and packets that come to its tables of policies."""

    def __init__(self, *policies: Policy, masters: tuple[str, ...] = ("n1", "n2")) -> None:
        self.compiler = compiled(node(1), node(2), *PODS, Namespace(name="a", labels=(("team", "a"),)), *policies)
        self.captures = Captures(self.compiler, lambda node: node in masters, lambda node, messages: None)
        self.begun: list[Capture] = []
        self.teller = 0

    def begin(self, **wanted: Any) -> Capture:
        self.begun.append(self.captures.begin(Request(**wanted)))
        return self.begun[-1]

    def send(self, table: Table, source: str, target: str, protocol: int, port: int) -> Flow | None:
        """A packet from a pod to another on node n1. What it meets in a table without taps."""
        packet = {f.ETH_TYPE: f.ETH_IPV4, f.IP_PROTO: protocol, _PORTS[protocol]: port, f.REG9: 0}
        of = self.compiler.policies.identities.of_pod
        for term in (SOURCE_IDENTITY(of("a", source)), DESTINATION_IDENTITY(of("a", target)), FROM_POD(1), TO_POD(1)):
            packet[term.field] = packet.get(term.field, 0) | term.value
        # Of two taps at one priority a switch takes either: whose it is is up to the test.
        there = [tap for point in self.begun[self.teller].points for tap in point.taps]
        met = Interpreter([*self.compiler.flows(CLUSTER), *there]).look_up(table.number, packet)
        if met is not None and is_tap(met.cookie):
            (told,) = (each for each in met.program if isinstance(each, SetField))
            packet[f.REG9] |= told.value
            terms = tuple(Term(field, value, None) for field, value in packet.items())
            self.captures.take("n1", PacketIn(0, table.number, met.cookie, terms, b"", 60))
        return Interpreter(self.compiler.flows(CLUSTER)).look_up(table.number, packet)


_PORTS = {f.PROTO_TCP: f.TCP_DST, f.PROTO_UDP: f.UDP_DST}


def heard(capture: Capture) -> list[str]:
    """What a capture has to say of the packets that it has, without the file around them."""
    found = []
    while not capture._queue.empty():
        node, point, _, _ = capture._queue.get_nowait()
        found.append(f"{point.description} on {node}")
    return found


def test_what_meets_the_isolation_of_a_policy_is_captured_and_what_a_rule_allows_is_not() -> None:
    site = Site(DB)
    capture = site.begin(drops="a/db")
    assert site.send(INGRESS_POLICY, "client0", "db0", f.PROTO_TCP, 5432).program != DROP  # type: ignore[union-attr]
    assert heard(capture) == []
    assert site.send(INGRESS_POLICY, "other0", "db0", f.PROTO_TCP, 5432).program == DROP  # type: ignore[union-attr]
    assert heard(capture) == ["dropped by NetworkPolicy a/db (ingress) on n1"]


@pytest.mark.parametrize("teller", [0, 1])
def test_a_drop_that_policies_share_is_captured_once_for_all_of_them_and_by_each_capture(teller: int) -> None:
    site = Site(DB, SAME)
    one, every = site.begin(drops="a/same"), site.begin(drops="all")
    site.teller = teller
    site.send(INGRESS_POLICY, "other0", "db0", f.PROTO_TCP, 5432)
    text = ["dropped by NetworkPolicy a/db or NetworkPolicy a/same (ingress) on n1"]
    # One of the two has told.
    assert (heard(one), heard(every)) == (text, text)


@pytest.mark.parametrize(
    ("source", "protocol", "port", "dropped"),
    [
        ("client0", f.PROTO_TCP, 9002, False),
        ("other0", f.PROTO_TCP, 9002, True),
        ("client0", f.PROTO_UDP, 9002, True),
        ("other0", f.PROTO_UDP, 9002, False),
    ],
)
def test_what_a_rank_above_allows_is_not_captured_whatever_the_flows_are_made_as(
    source: str, protocol: int, port: int, dropped: bool
) -> None:
    site = Site(GUARD)
    capture = site.begin(drops="guard")
    met = site.send(INGRESS_ADMIN, source, "db0", protocol, port)
    assert (met is not None and met.program == DROP) is dropped
    assert heard(capture) == ["dropped by ClusterNetworkPolicy guard (ingress) on n1"] * dropped


def test_a_capture_of_drops_says_which_switches_are_not_asked() -> None:
    capture = Site(DB, masters=("n2",)).begin(drops="all")
    assert b"not of nodes n1" in capture.head and b"n2:dropped" in capture.head and b"n1:dropped" not in capture.head


@pytest.mark.parametrize(
    ("policies", "wanted", "masters", "text"),
    [
        ((), "all", ("n1",), "there are no policies"),
        ((DB,), "a/none", ("n1",), "no policy 'a/none'"),
        ((DB,), "a/db", (), "not the master of any switch"),
        ((policy("open", subjects=OF_DB, tier=Tier.BASELINE, kind="ClusterNetworkPolicy", namespace="",
                 ingress=(Rule(Action.ACCEPT),)),), "open", ("n1",), "nothing that"),
    ],
)  # fmt: skip
def test_drops_that_can_t_be_captured_are_refused(
    policies: tuple[Policy, ...], wanted: str, masters: tuple[str, ...], text: str
) -> None:
    with pytest.raises(CaptureError, match=text):
        Site(*policies, masters=masters).begin(drops=wanted)


def test_more_flows_than_switches_should_be_given_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_points, "FLOWS", 1)
    with pytest.raises(CaptureError, match="too much to capture"):
        Site(DB, GUARD).begin(drops="all")
