"""One OpenFlow connection as bytes and time: handshake, echoes, replies in parts, and what ends it."""

from __future__ import annotations

from struct import pack

import pytest

from controller import session as limits
from controller.session import Session, SessionError, State
from flows.openflow import encode, wire
from flows.openflow.decode import decode
from flows.openflow.messages import (
    BarrierReply,
    EchoReply,
    EchoRequest,
    Error,
    FeaturesReply,
    Message,
    PortDescReply,
    TableStatsReply,
    Unknown,
)
from flows.openflow.wire import Multipart, Type

FEATURES = pack("!BBHIQIBB2xII", 6, Type.FEATURES_REPLY, 32, 1, 0xABC, 0, 254, 0, 0, 0)


def said(session: Session) -> list[Message]:
    """What the session wants to send, taken from it."""
    messages = [decode(each) for each in session.output]
    session.output = []
    return messages


def opened(now: float = 0.0) -> Session:
    session = Session(now)
    session.receive(encode.hello(), now)
    session.receive(FEATURES, now)
    session.output = []
    return session


def test_the_handshake_is_hello_then_the_features() -> None:
    session = Session(0.0)
    assert [wire.Type(each[1]) for each in session.output] == [Type.HELLO]
    session.output = []
    assert session.receive(encode.hello(), 0.1) == []
    assert [wire.Type(each[1]) for each in session.output] == [Type.FEATURES_REQUEST]
    (features,) = session.receive(FEATURES, 0.2)
    assert isinstance(features, FeaturesReply) and features.datapath_id == 0xABC
    assert session.state is State.OPEN and session.features == features


def test_a_hello_without_a_bitmap_says_its_highest_version() -> None:
    session = Session(0.0)
    session.receive(pack("!BBHI", 6, Type.HELLO, 8, 0), 0.0)
    assert session.state is State.ASKING


@pytest.mark.parametrize("hello", [pack("!BBHI", 4, 0, 8, 0), pack("!BBHIHHI", 6, 0, 16, 0, 1, 8, 1 << 4 | 1 << 1)])
def test_a_switch_without_openflow_1_5_is_told_and_refused_with_the_remedy(hello: bytes) -> None:
    session = Session(0.0)
    session.output = []
    with pytest.raises(SessionError, match=r"speaks OpenFlow 0x1.*; enable OpenFlow15 on the bridge"):
        session.receive(hello, 0.0)
    (error,) = said(session)
    assert isinstance(error, Error) and (error.type, error.code) == (0, 0)


def test_a_second_hello_ends_the_connection() -> None:
    with pytest.raises(SessionError, match="second hello"):
        opened().receive(encode.hello(), 1.0)


def test_nothing_but_ports_may_be_said_before_the_handshake_is_done() -> None:
    session = Session(0.0)
    port = pack("!BBHIB7x", 6, Type.PORT_STATUS, 56, 0, 0) + pack("!IH2x6s2x16sII", 1, 40, b"123456", b"p", 0, 0)
    assert session.receive(port, 0.0) == []
    with pytest.raises(SessionError, match="BarrierReply before the handshake"):
        session.receive(pack("!BBHI", 6, Type.BARRIER_REPLY, 8, 1), 0.0)


def test_an_echo_is_answered_with_its_data() -> None:
    session = opened()
    assert session.receive(encode.echo_request(b"abc", 7), 1.0) == []
    assert said(session) == [EchoReply(7, b"abc")]


def test_a_silent_switch_is_asked_once_and_then_given_up() -> None:
    session = opened(100.0)
    session.tick(100.0 + limits.PROBE_AFTER)
    assert not session.output
    for seconds in (0.5, 1.5):
        session.tick(100.0 + limits.PROBE_AFTER + seconds)
    (echo,) = said(session)
    assert isinstance(echo, EchoRequest)
    with pytest.raises(SessionError, match="silent for 16 s"):
        session.tick(100.0 + limits.GIVE_UP_AFTER + 1)


def test_whatever_is_heard_counts_as_a_sign_of_life() -> None:
    session = opened(0.0)
    for now in range(1, 60):
        session.receive(pack("!BBHI", 6, Type.BARRIER_REPLY, 8, 1), float(now))
        session.tick(now + 0.5)
    assert not session.output


def test_half_a_message_is_no_handshake() -> None:
    session = Session(0.0)
    session.receive(encode.hello()[:5], 1.0)
    with pytest.raises(SessionError, match="no handshake within"):
        session.tick(limits.HANDSHAKE_LIMIT + 0.1)


def part(kind: int, xid: int, body: bytes, more: bool) -> bytes:
    return pack("!BBHIHH4x", 6, Type.MULTIPART_REPLY, 16 + len(body), xid, kind, more) + body


def test_a_reply_in_parts_is_one_also_when_two_come_in_turns() -> None:
    session = opened()
    row = pack("!B3xIQQ", 1, 2, 3, 4)
    assert not session.receive(part(Multipart.TABLE, 1, row, True), 0.0)
    assert not session.receive(part(Multipart.TABLE, 2, row, True), 0.0)
    (first,) = session.receive(part(Multipart.TABLE, 1, row * 2, False), 0.0)
    (second,) = session.receive(part(Multipart.TABLE, 2, b"", False), 0.0)
    assert isinstance(first, TableStatsReply) and isinstance(second, TableStatsReply)
    assert (first.xid, len(first.items), second.xid, len(second.items)) == (1, 3, 2, 1)


def test_replies_without_end_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened()
    with pytest.raises(SessionError, match="without end"):
        for xid in range(limits.PARTIAL_LIMIT + 1):
            session.receive(part(Multipart.TABLE, xid, b"", True), 0.0)
    monkeypatch.setattr(limits, "MULTIPART_LIMIT", 10)
    session = opened()
    with pytest.raises(SessionError, match="without end"):
        for _ in range(11):
            session.receive(part(Multipart.TABLE, 1, pack("!B3xIQQ", 1, 2, 3, 4), True), 0.0)


def test_messages_are_given_on_in_order_and_unknown_ones_as_such() -> None:
    stream = pack("!BBHI", 6, Type.BARRIER_REPLY, 8, 5) + pack("!BBHI", 6, Type.FLOW_REMOVED, 8, 6)
    stream += part(Multipart.PORT_DESC, 7, b"", False)
    assert opened().receive(stream, 0.0) == [
        BarrierReply(5),
        Unknown(6, Type.FLOW_REMOVED),
        PortDescReply(7, False, ()),
    ]


def test_bytes_that_are_no_openflow_end_the_connection() -> None:
    with pytest.raises(SessionError, match="bad OpenFlow"):
        opened().receive(b"GET / HTTP/1.1\r\n\r\n", 0.0)
