"""Verdicts: the compiled flows and the model against an oracle that knows nothing of either."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from fabric import GATEWAY, OUT, WAYS, Fabric
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_oracle import Party as Asked
from policy_oracle import World, verdict
from policy_worlds import Case, Question, Raw, address_of, cases

from flows import fields as f
from flows import packets, pipeline
from flows.fields import Field
from flows.interpreter import Conntrack
from flows.update import CLUSTER
from topology import verdicts
from topology.manifest_state import ManifestState, Snapshot
from topology.model import Object
from topology.naming import GATEWAY_MAC, Address

_NUMBERS = {"TCP": f.PROTO_TCP, "UDP": f.PROTO_UDP, "SCTP": f.PROTO_SCTP}
_PORTS = {"TCP": (f.TCP_SRC, f.TCP_DST), "UDP": (f.UDP_SRC, f.UDP_DST), "SCTP": (f.SCTP_SRC, f.SCTP_DST)}


def snapshot(objects: Sequence[Raw]) -> Snapshot:
    """Objects as the controller reads them; a pod's status comes in a document of its own."""
    documents = []
    for each in objects:
        documents.append(each)
        if each["kind"] == "Pod":
            metadata = {key: each["metadata"][key] for key in ("name", "namespace")}
            documents.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": each["status"]})
            documents[-2] = {key: value for key, value in each.items() if key != "status"}
    text = "\n---\n".join(map(json.dumps, documents))
    found = ManifestState().update({"world.yaml": text.encode()})
    assert not found.problems
    return found


def ordered(found: Snapshot) -> list[Object]:
    """Nodes first, then pods, then what selects them."""
    order = {"Node": 0, "Namespace": 1, "Pod": 2}
    return sorted(found.objects.values(), key=lambda each: (order.get(each.key[0], 3), each.key))


def arrives(fabric: Fabric, objects: Sequence[Raw], question: Question) -> bool:
    """Whether a packet that opens a connection gets to where it is sent."""
    source, destination = (
        ip_address(address_of(objects, party, question.version)) for party in (question.source, question.destination)
    )
    node, in_port, mac = _sender(fabric, question.source, source)
    packet: dict[Field, int]
    if question.protocol == "ICMP":
        packet = packets.ping(in_port, (mac, OUT), source, destination)
    else:
        packet = packets.ip(in_port, (mac, OUT), source, destination, _NUMBERS[question.protocol])
        packet |= dict(zip(_PORTS[question.protocol], (40000, question.port), strict=True))
    for name in fabric.names:
        fabric.conntracks[name] = Conntrack()
    there = fabric.send(node, packet)
    if not there:
        return False
    ((place, port, _),) = there
    assert (place, port) == _receiver(fabric, question.destination, destination, node)
    return True


def _sender(fabric: Fabric, asked: Asked, address: Address) -> tuple[str, int, int]:
    for name in fabric.names:
        for _, local in fabric.compiler.local_pods(name):
            if address in local.addresses:
                return name, local.port, local.mac
    return asked.node or fabric.names[-1], GATEWAY, GATEWAY_MAC


def _receiver(fabric: Fabric, asked: Asked, address: Address, node: str) -> tuple[str, int]:
    for name in fabric.names:
        for _, local in fabric.compiler.local_pods(name):
            if address in local.addresses:
                return name, local.port
    return asked.node or node, GATEWAY


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(cases(), st.permutations(list(WAYS)))
def test_switches_and_the_model_say_what_the_policies_say(case: Case, ways: Sequence[str]) -> None:
    agree(case, ways[:2])


def agree(case: Case, ways: Iterable[str] = WAYS) -> None:
    """The oracle, the model, and switches say the same to every question, whichever way nodes reach one another."""
    world, found = World(case.objects), snapshot(case.objects)
    fabrics = [Fabric.of(ordered(found), way=way) for way in map(WAYS.__getitem__, ways)]
    for fabric in fabrics:
        for scope in (CLUSTER, *fabric.names):
            for flow in fabric.compiler.flows(scope):
                pipeline.check(flow)
    cluster = fabrics[0].compiler.cluster
    for question in case.questions:
        expected = verdict(world, *question)
        parties = [
            verdicts.party(cluster, ip_address(address_of(case.objects, party, question.version)))
            for party in (question.source, question.destination)
        ]
        said = verdicts.judge(cluster, verdicts.Question(*parties, question.protocol, question.port))
        assert said.allowed == expected.allowed, (question, expected, said)
        for fabric in fabrics:
            assert arrives(fabric, case.objects, question) == expected.allowed, (question, expected)
