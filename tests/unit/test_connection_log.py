"""Connections that policies deny or allow, where they ask for it: flows that tell of them, and the lines of the log."""

from __future__ import annotations

from ipaddress import ip_address
from struct import pack

import msgspec
import pytest
from fabric import FIRST_POD, OUT, Fabric, of_family
from hypothesis import given
from hypothesis import strategies as st

from controller.connection_log import WINDOW, ConnectionLog, headers
from flows import fields as f
from flows import packets
from flows.interpreter import Walk
from flows.openflow.decode import decode
from flows.openflow.messages import PacketIn
from flows.pipeline import EGRESS_POLICY, INGRESS_POLICY
from flows.registers import DESTINATION_IDENTITY, SCRATCH, SOURCE_IDENTITY
from flows.values import PORT_CONTROLLER
from topology.model import Namespace
from topology.policies import PodSet, Policy, PolicyPort, Rule
from topology.selectors import Operator, Requirement

FAMILIES = pytest.mark.parametrize("version", [4, 6])


def named(name: str) -> PodSet:
    return PodSet((Requirement("name", Operator.IN, (name,)),), "default")


def policy(**changes: object) -> Policy:
    """b is reached by a, at port 80, and by nobody else."""
    rule = Rule(peers=(named("a"),), ports=(PolicyPort("TCP", 80),))
    plain = Policy(namespace="default", name="guard", subjects=named("b"), ingress=(rule,))
    return msgspec.structs.replace(plain, **changes)


def fabric(*objects: Policy | Namespace) -> Fabric:
    return Fabric(1, [(1, "a"), (1, "b"), (1, "c")], objects)


def call(here: Fabric, source: str, port: int, version: int) -> Walk:
    """What becomes of the first packet of a connection to b."""
    _, pod = here.pod(source)
    _, target = here.pod("b")
    ends = of_family(pod.addresses, version), of_family(target.addresses, version)
    return here.walk("n1", packets.tcp(pod.port, (pod.mac, OUT), (ends[0], 1234), (ends[1], port)))


def outcome(walk: Walk) -> tuple[bool, list[int]]:
    """Whether it arrives, and what the controller is told: 1 of what is allowed, 0 of what is denied."""
    told = [each.packet.get(SCRATCH.field, 0) for each in walk.emissions if each.port == PORT_CONTROLLER]
    return any(each.port == FIRST_POD + 1 for each in walk.emissions), told


@FAMILIES
def test_what_a_policy_denies_is_told_of_if_it_asks_for_that_and_dropped_all_the_same(version: int) -> None:
    for logs, told in ((False, []), (True, [0])):
        here = fabric(policy(log_denied=logs))
        assert outcome(call(here, "c", 80, version)) == (False, told)
        assert outcome(call(here, "a", 80, version)) == (True, [])


@FAMILIES
def test_of_what_a_policy_allows_only_the_connection_s_beginning_is_told(version: int) -> None:
    here = fabric(policy(log_allowed=True))
    assert outcome(call(here, "a", 80, version)) == (True, [1])
    (_, pod), (_, target) = here.pod("a"), here.pod("b")
    ends = of_family(pod.addresses, version), of_family(target.addresses, version)
    here.walk("n1", packets.tcp(target.port, (target.mac, OUT), (ends[1], 80), (ends[0], 1234)))
    assert outcome(call(here, "a", 80, version)) == (True, [])
    assert outcome(call(here, "c", 80, version)) == (False, [])


def test_a_namespace_asks_for_all_its_policies_and_they_stop_when_it_does_no_more() -> None:
    here = fabric(Namespace(name="default", log_denied=True), policy())
    assert outcome(call(here, "c", 80, 4)) == (False, [0])
    here.compiler.put(Namespace(name="default"))
    here.interpret()
    assert outcome(call(here, "c", 80, 4)) == (False, [])


def test_a_flow_that_two_policies_want_is_told_of_if_one_of_them_asks() -> None:
    here = fabric(policy(), policy(name="another", log_denied=True, ingress=()))
    assert outcome(call(here, "c", 80, 4)) == (False, [0])


def frame(source: str, destination: str, *, sport: int = 1234, dport: int = 80) -> bytes:
    ends = ip_address(source), ip_address(destination)
    if ends[0].version == 4:
        head = pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + ends[0].packed + ends[1].packed
        return bytes(12) + b"\x08\x00" + head + pack("!HH", sport, dport) + bytes(16)
    head = pack("!IHBB", 6 << 28, 20, 6, 64) + ends[0].packed + ends[1].packed
    return bytes(12) + b"\x86\xdd" + head + pack("!HH", sport, dport) + bytes(16)


def test_headers_are_read_from_the_first_bytes_and_what_is_no_ip_is_none() -> None:
    for ends in (("10.244.1.2", "10.244.1.3"), ("fd00::2", "fd00::3")):
        found = headers(frame(*ends))
        assert found is not None
        assert (str(found.source), str(found.destination)) == ends
        assert (found.protocol, found.source_port, found.destination_port) == ("TCP", 1234, 80)
    assert headers(bytes(12) + b"\x08\x06" + bytes(28)) is None


@given(st.binary(max_size=80))
def test_whatever_a_pod_sends_is_read_or_not_and_never_an_error(data: bytes) -> None:
    headers(data)
    headers(frame("10.0.0.1", "10.0.0.2")[:14] + data)
    headers(frame("fd00::1", "fd00::2")[:14] + data)


def packet_in(here: Fabric, data: bytes, *, allowed: bool = False) -> PacketIn:
    identities = here.compiler.policies.identities
    (flow,) = [flow for flow in here.compiler.policies.flows_of(policy().key) if not flow.program or allowed][:1]
    match = [
        SOURCE_IDENTITY.field(identities.of_pod("default", "c")),
        DESTINATION_IDENTITY.field(identities.of_pod("default", "b") | 1 << 24),
    ]
    match += [SCRATCH.field(1)] if allowed else []
    return PacketIn(0, INGRESS_POLICY.number, flow.cookie, tuple(match), data)


def test_a_line_says_who_denied_what_and_repetitions_are_counted() -> None:
    here = fabric(policy())
    log = ConnectionLog(here.compiler)
    packet = packet_in(here, frame("10.244.1.4", "10.244.1.3"))
    (line,) = log.take("n1", packet, 0.0)
    assert line == (
        "denied ingress by NetworkPolicy default/guard on n1: TCP 10.244.1.4:1234 (default[name=c]) -> "
        "10.244.1.3:80 (default[name=b])"
    )
    assert not list(log.take("n1", packet, 1.0)) and not list(log.take("n1", packet, 2.0))
    assert not list(log.repeated(WINDOW / 2))
    (again,) = log.repeated(WINDOW)
    assert again == f"{line}, again 2 times within 10 s"
    assert list(log.take("n1", packet, WINDOW + 1)) == [line]
    # Told once, and never again: nothing more to say.
    assert not list(log.repeated(2 * WINDOW + 2))


def test_a_line_says_that_it_was_allowed_and_a_policy_may_be_gone_meanwhile() -> None:
    here = fabric(policy())
    log = ConnectionLog(here.compiler)
    packet = packet_in(here, frame("fd00:10:244:1::4", "fd00:10:244:1::3"), allowed=True)
    here.compiler.remove(policy().key)
    (line,) = log.take("n1", packet, 0.0)
    assert line.startswith("allowed ingress by a policy that is gone on n1: TCP [fd00:10:244:1::4]:1234")


def test_packets_of_other_tables_and_of_no_ip_are_passed_over() -> None:
    here = fabric(policy())
    log = ConnectionLog(here.compiler)
    packet = packet_in(here, frame("10.244.1.4", "10.244.1.3"))
    assert not list(log.take("n1", msgspec.structs.replace(packet, table=0), 0.0))
    assert not list(log.take("n1", msgspec.structs.replace(packet, data=b"short"), 0.0))
    assert list(log.take("n1", msgspec.structs.replace(packet, table=EGRESS_POLICY.number), 0.0))


def test_a_packet_in_is_decoded_and_fields_that_nobody_knows_are_passed_over() -> None:
    known = f.IN_PORT(7)
    match = known.field.header + (7).to_bytes(4, "big") + b"\x80\x00\xfe\x04" + bytes(4)
    length = 4 + len(match)
    body = pack("!IHBBQ", 0xFFFF_FFFF, 60, 1, 51, 0x5B06) + pack("!HH", 1, length) + match + bytes(-length % 8 + 2)
    message = pack("!BBHI", 6, 10, 8 + len(body) + 3, 0) + body + b"abc"
    assert decode(message) == PacketIn(0, 51, 0x5B06, (known,), b"abc", length=60)
