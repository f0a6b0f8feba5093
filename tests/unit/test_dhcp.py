"""DHCP for workloads: what is asked is made, and what is answered is read, by os-ken's packet library."""

from __future__ import annotations

from ipaddress import ip_address
from struct import pack, unpack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.lib.packet import dhcp as os_dhcp
from os_ken.lib.packet import ethernet, ipv4, packet, udp

from controller import dhcp
from controller.dhcp import Kind, Option
from topology.model import Pod
from topology.naming import ROUTER_ADDRESS, ROUTER_MAC, format_mac

MAC = 0x5254_0000_0001
WORKLOAD = Pod(
    namespace="default",
    name="db",
    node="n1",
    addresses=(ip_address("2001:db8::7"), ip_address("192.0.2.7")),
    port="vnet0",
    mac=MAC,
    dhcp=True,
    mtu=1450,
)
OWN = ip_address("192.0.2.7").packed


def question(
    kind: int,
    *more: tuple[int, bytes],
    mac: int = MAC,
    current: str = "0.0.0.0",
    flags: int = 0,
    relay: str = "0.0.0.0",
) -> bytes:
    options = [os_dhcp.option(Option.KIND, bytes([kind])), *(os_dhcp.option(tag, value) for tag, value in more)]
    message = os_dhcp.dhcp(
        op=1,
        chaddr=format_mac(mac),
        options=os_dhcp.options(option_list=options),
        xid=0x1234_5678,
        ciaddr=current,
        giaddr=relay,
        flags=flags,
    )
    made = packet.Packet()
    for layer in (
        ethernet.ethernet(dst="ff:ff:ff:ff:ff:ff", src=format_mac(mac)),
        ipv4.ipv4(src=current, dst="255.255.255.255", proto=17),
        udp.udp(src_port=68, dst_port=67),
        message,
    ):
        made.add_protocol(layer)
    made.serialize()
    return bytes(made.data)


class Answer:
    """An answer, and its options by number."""

    def __init__(self, frame: bytes | None) -> None:
        assert frame is not None
        assert internet_sum(frame[14:34]) == 0xFFFF
        pseudo = frame[26:34] + pack("!HH", 17, len(frame) - 34)
        assert internet_sum(pseudo + frame[34:]) == 0xFFFF
        self.ethernet, self.ip, self.udp, self.dhcp = list(packet.Packet(frame))[:4]
        self.options: dict[int, Any] = {each.tag: each.value for each in self.dhcp.options.option_list}

    @property
    def kind(self) -> int:
        return int(self.options[Option.KIND][0])


def internet_sum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_a_workload_that_discovers_is_offered_what_is_declared_of_it() -> None:
    offer = Answer(dhcp.answer(question(Kind.DISCOVER), WORKLOAD))
    assert offer.kind == Kind.OFFER
    assert (offer.dhcp.op, offer.dhcp.xid, offer.dhcp.chaddr) == (2, 0x1234_5678, format_mac(MAC))
    assert offer.dhcp.yiaddr == "192.0.2.7"
    assert offer.options[Option.MASK] == bytes([255] * 4)
    assert offer.options[Option.ROUTER] == offer.options[Option.SERVER] == ROUTER_ADDRESS.packed
    assert offer.options[Option.MTU] == pack("!H", 1450)
    # 169.254.91.3/32 on the wire, then 0.0.0.0/0 by it (RFC 3442).
    assert offer.options[Option.ROUTES] == bytes([32, 169, 254, 91, 3, 0, 0, 0, 0, 0, 169, 254, 91, 3])
    seconds = [unpack("!I", offer.options[each])[0] for each in (Option.RENEWAL, Option.REBINDING, Option.LEASE)]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_an_answer_goes_by_unicast_unless_it_is_asked_otherwise() -> None:
    offer = Answer(dhcp.answer(question(Kind.DISCOVER), WORKLOAD))
    assert (offer.ethernet.dst, offer.ip.dst) == (format_mac(MAC), "192.0.2.7")
    assert (offer.ethernet.src, offer.ip.src) == (format_mac(ROUTER_MAC), str(ROUTER_ADDRESS))
    assert (offer.udp.src_port, offer.udp.dst_port) == (67, 68)
    to_all = Answer(dhcp.answer(question(Kind.DISCOVER, flags=0x8000), WORKLOAD))
    assert (to_all.ethernet.dst, to_all.ip.dst) == ("ff:ff:ff:ff:ff:ff", "255.255.255.255")
    renewed = Answer(dhcp.answer(question(Kind.REQUEST, current="192.0.2.7", flags=0x8000), WORKLOAD))
    assert (renewed.ethernet.dst, renewed.ip.dst) == (format_mac(MAC), "192.0.2.7")


def test_a_request_for_its_own_address_is_acknowledged() -> None:
    server = (Option.SERVER, ROUTER_ADDRESS.packed)
    for asked in (
        question(Kind.REQUEST, (Option.REQUESTED, OWN), server),
        # After a restart it knows its address and no server; to renew it says that it has it.
        question(Kind.REQUEST, (Option.REQUESTED, OWN)),
        question(Kind.REQUEST, current="192.0.2.7"),
    ):
        answer = Answer(dhcp.answer(asked, WORKLOAD))
        assert (answer.kind, answer.dhcp.yiaddr) == (Kind.ACK, "192.0.2.7")


def test_a_request_for_another_address_is_refused_so_that_it_asks_anew() -> None:
    for asked in (
        question(Kind.REQUEST, (Option.REQUESTED, ip_address("192.0.2.8").packed)),
        question(Kind.REQUEST, current="192.0.2.8"),
    ):
        answer = Answer(dhcp.answer(asked, WORKLOAD))
        assert (answer.kind, answer.dhcp.yiaddr, answer.dhcp.ciaddr) == (Kind.NAK, "0.0.0.0", "0.0.0.0")
        assert answer.ip.dst == "255.255.255.255"
        assert not answer.options.keys() & {Option.LEASE, Option.ROUTER, Option.MASK}


def test_who_asks_for_the_rest_only_is_given_no_address_and_no_lease() -> None:
    answer = Answer(dhcp.answer(question(Kind.INFORM, current="192.0.2.7"), WORKLOAD))
    assert (answer.kind, answer.dhcp.yiaddr) == (Kind.ACK, "0.0.0.0")
    assert Option.LEASE not in answer.options and Option.ROUTES in answer.options


def test_what_a_client_calls_itself_is_said_again() -> None:
    answer = Answer(dhcp.answer(question(Kind.DISCOVER, (Option.CLIENT, b"\x01me")), WORKLOAD))
    assert answer.options[Option.CLIENT] == b"\x01me"


@pytest.mark.parametrize(
    "frame",
    [
        question(Kind.REQUEST, (Option.REQUESTED, OWN), (Option.SERVER, ip_address("192.0.2.1").packed)),
        question(Kind.DISCOVER, mac=MAC + 1),
        question(Kind.DISCOVER, relay="192.0.2.1"),
        question(Kind.RELEASE, current="192.0.2.7"),
        question(Kind.DECLINE, (Option.REQUESTED, OWN)),
        question(Kind.OFFER),
        question(99),
        b"",
    ],
    ids=["of another server", "another MAC", "by a relay", "release", "decline", "offer", "unknown", "nothing"],
)
def test_what_is_not_for_this_server_is_not_answered(frame: bytes) -> None:
    assert dhcp.answer(frame, WORKLOAD) is None


def test_a_workload_without_an_ipv4_address_is_not_answered() -> None:
    alone = Pod(namespace="default", name="x", port="p", mac=MAC, dhcp=True, addresses=(ip_address("2001:db8::7"),))
    assert dhcp.answer(question(Kind.DISCOVER), alone) is None


@given(st.integers(0, 400), st.binary(max_size=80), st.sampled_from([Kind.DISCOVER, Kind.REQUEST, Kind.INFORM]))
def test_no_frame_of_a_guest_does_harm(cut: int, junk: bytes, kind: Kind) -> None:
    whole = question(kind)
    for frame in (whole[:cut], whole[:cut] + junk, junk):
        answer = dhcp.answer(frame, WORKLOAD)
        assert answer is None or Answer(answer).kind in (Kind.OFFER, Kind.ACK, Kind.NAK)
