"""Bytes that are no OpenFlow: nothing hangs, nothing grows, and only the errors that are declared come out."""

from __future__ import annotations

import contextlib
from struct import pack

import pytest
from counts import answer, entry
from hypothesis import given, settings
from hypothesis import strategies as st
from random_flows import flows, groups

from controller.session import Session, SessionError
from flows.openflow import encode, wire
from flows.openflow.counted import bucket_ids, flow_counts
from flows.openflow.decode import DecodeError, decode
from flows.openflow.framing import Framer, FramingError
from flows.values import Flow, Group

KINDS = st.integers(0, 35)
#: A message is at most what its length can say; a chunk comes on top.
LIMIT = 1 << 16


def message(kind: int, body: bytes, version: int = 6) -> bytes:
    return pack("!BBHI", version, kind, 8 + len(body), 1) + body


def try_to_decode(data: bytes) -> None:
    try:
        decode(data)
    except DecodeError as error:
        assert str(error)


@settings(max_examples=500, deadline=None)
@given(KINDS, st.binary(max_size=300))
def test_random_bodies_are_values_or_decode_errors(kind: int, body: bytes) -> None:
    try_to_decode(message(kind, body))


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(wire.Multipart), st.binary(max_size=400))
def test_random_multipart_replies_are_values_or_decode_errors(kind: int, body: bytes) -> None:
    try_to_decode(message(wire.Type.MULTIPART_REPLY, pack("!HH4x", kind, 0) + body))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300))
def test_random_counts_are_read_or_are_decode_errors(body: bytes) -> None:
    for read in (flow_counts, lambda message: bucket_ids(message, range(1 << 32))):
        try:
            for each in read(bytes(16) + body):
                assert each
        except DecodeError as error:
            assert str(error)


@settings(max_examples=300, deadline=None)
@given(flows, st.integers(0, 9), st.data())
def test_counts_cut_short_or_with_bits_flipped_are_read_or_are_decode_errors(
    flow: Flow, packets: int, data: st.DataObject
) -> None:
    whole = bytearray(answer([entry(flow, packets, 7)]))
    whole[data.draw(st.integers(16, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(DecodeError):
        list(flow_counts(bytes(whole[: data.draw(st.integers(16, len(whole)))])))


@settings(max_examples=300, deadline=None)
@given(st.data(), flows, groups())
def test_messages_with_bits_flipped_or_cut_short_are_values_or_decode_errors(
    data: st.DataObject, flow: Flow, group: Group
) -> None:
    mod = encode.flow_mod(flow)
    item = pack("!H2xBxHHHHHQ", 24 + len(mod) - 40, flow.table, flow.priority, 0, 0, 0, 0, flow.cookie) + mod[48:]
    whole = data.draw(
        st.sampled_from(
            [
                message(wire.Type.MULTIPART_REPLY, pack("!HH4x", wire.Multipart.FLOW_DESC, 0) + item),
                message(wire.Type.MULTIPART_REPLY, pack("!HH4x", 7, 0) + encode.group_mod(group)[8:]),
                message(wire.Type.MULTIPART_REPLY, pack("!HH4x", 13, 0) + bytes(80)),
                encode.hello(),
                message(wire.Type.PORT_STATUS, bytes(48)),
            ]
        )
    )
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 4))):
        broken[data.draw(st.integers(8, len(broken) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try_to_decode(bytes(broken[: data.draw(st.integers(8, len(broken)))]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(KINDS, st.binary(max_size=50)), max_size=8), st.data())
def test_a_stream_is_cut_into_the_same_messages_however_it_arrives(
    sent: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    messages = [message(*each) for each in sent]
    stream = b"".join(messages)
    framer, found = Framer(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += framer.feed(stream[:size])
        stream = stream[size:]
    assert found == messages


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=5000), max_size=40))
def test_a_framer_keeps_no_more_than_one_message(chunks: list[bytes]) -> None:
    framer = Framer()
    try:
        for chunk in chunks:
            framer.feed(chunk)
            assert len(framer._rest) < LIMIT
    except FramingError:
        pass


def test_the_largest_message_is_taken_and_a_length_below_the_header_s_is_not() -> None:
    largest = pack("!BBHI", 6, wire.Type.ECHO_REQUEST, 0xFFFF, 1) + bytes(0xFFFF - 8)
    assert Framer().feed(largest + largest[:100]) == [largest]
    for length in range(8):
        with pytest.raises(FramingError, match=f"{length} bytes long"):
            Framer().feed(pack("!BBHI", 6, 0, length, 1))
    with pytest.raises(FramingError, match="no message type 69"):
        Framer().feed(b"GET / HTTP/1.1")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=200) | st.builds(message, KINDS, st.binary(max_size=60)), max_size=20))
def test_a_session_fed_with_anything_ends_with_its_own_error_or_waits(chunks: list[bytes]) -> None:
    session = Session(0.0)
    try:
        for now, chunk in enumerate([encode.hello(), *chunks]):
            session.receive(chunk, float(now))
    except SessionError as error:
        assert str(error)
