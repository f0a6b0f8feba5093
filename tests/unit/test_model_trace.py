"""A trace from the model: over Services and policies, in every mode, without any switch."""

from __future__ import annotations

import sys
from ipaddress import ip_address

import msgspec
import pytest
from click.testing import CliRunner
from fabric import WAYS, Fabric

from controller.api.trace import row
from controller.cli.trace import trace as command
from controller.trace.compiled import Compiled
from controller.trace.errors import TraceError
from controller.trace.first_packet import Asked, packet_to
from controller.trace.model import trace
from controller.trace.result import Place, Trace, Verdict, differences
from topology.model import Object, Service, ServicePort
from topology.policies import PodSet, Policy, Tier
from topology.selectors import Operator, Requirement

SERVICE = Service(
    namespace="default",
    name="web",
    ports=(ServicePort(port=80, target=8080),),
    selector=(("name", "b1"),),
    cluster_ips=(ip_address("10.96.0.10"), ip_address("fd00:10:96::10")),
)
EMPTY = msgspec.structs.replace(
    SERVICE, name="empty", selector=(("name", "nobody"),), cluster_ips=(ip_address("10.96.0.11"),)
)


@pytest.fixture(params=WAYS)
def fabric(request: pytest.FixtureRequest) -> Fabric:
    objects: list[Object] = [SERVICE, EMPTY]
    return Fabric(3, [(1, "a1"), (1, "a2"), (2, "b1")], objects, way=WAYS[request.param])


def compiled(fabric: Fabric) -> Compiled:
    return Compiled(fabric.compiler, lambda: 0, keyed=fabric.way.keyed)


def ask(fabric: Fabric, source: str, target: str, port: int = 8080, family: int = 4) -> Trace:
    return trace(compiled(fabric), Asked(source, target, "TCP", port, family))


@pytest.mark.parametrize("family", [4, 6])
def test_a_way_to_another_node_s_pod_is_told_hop_by_hop(fabric: Fabric, family: int) -> None:
    found = ask(fabric, "a1", "b1", family=family)
    assert (found.verdict, found.end.place, found.end.name) == (Verdict.DELIVERED, Place.POD, "default/b1")
    assert [(hop.source, hop.target) for hop in found.hops] == [("n1", "n2")]
    assert [visit.node for visit in found.visits] == ["n1", "n2"]
    assert found.visits[0].steps[0].object == "Pod default/a1" and found.visits[1].left_to == "pod default/b1"


def test_a_pod_on_the_same_node_is_one_switch_away(fabric: Fabric) -> None:
    found = ask(fabric, "a1", "a2")
    assert found.verdict is Verdict.DELIVERED and not found.hops and len(found.visits) == 1


@pytest.mark.parametrize("family", [4, 6])
def test_a_service_s_endpoint_is_told(fabric: Fabric, family: int) -> None:
    found = ask(fabric, "a1", "svc/web", 80, family)
    assert (found.verdict, found.end.name) == (Verdict.DELIVERED, "default/b1")
    assert found.endpoint == found.endpoints[0] and found.endpoint.endswith(":8080")
    assert found.service.endswith(":80")


def test_what_no_service_offers_is_rejected(fabric: Fabric) -> None:
    for target, port in (("svc/empty", 80), ("svc/web", 81)):
        assert ask(fabric, "a1", target, port).verdict is Verdict.REJECTED


def test_a_service_s_only_port_is_meant_where_none_is_said() -> None:
    ports = tuple(
        ServicePort(port=port, protocol=protocol, name=name)
        for name, port, protocol in (("http", 80, "TCP"), ("https", 443, "TCP"), ("dns", 53, "UDP"))
    )
    several = msgspec.structs.replace(SERVICE, name="several", ports=ports)
    compiler = Fabric(2, [(1, "a1")], [SERVICE, several]).compiler
    assert packet_to(compiler, "svc/web", "", 0) == packet_to(compiler, "svc/web", "TCP", 0) == ("TCP", 80)
    assert packet_to(compiler, "svc/several", "UDP", 0) == ("UDP", 53)
    assert packet_to(compiler, "svc/several", "", 8080) == ("TCP", 8080)
    assert packet_to(compiler, "svc/web", "ICMP", 0) == packet_to(compiler, "a1", "", 0) == ("ICMP", 0)
    said = "svc/several has ports http 80/TCP, https 443/TCP, dns 53/UDP; say one by its port .--tcp PORT"
    with pytest.raises(TraceError, match=said):
        packet_to(compiler, "svc/several", "", 0)
    with pytest.raises(TraceError, match="svc/several has ports http 80/TCP, https 443/TCP; say one"):
        packet_to(compiler, "svc/several", "TCP", 0)
    with pytest.raises(TraceError, match="svc/web has no port of SCTP"):
        packet_to(compiler, "svc/web", "SCTP", 0)


def test_hosts_and_the_world_are_ends(fabric: Fabric) -> None:
    assert ask(fabric, "a1", "node/n2").end.place is Place.HOST
    assert ask(fabric, "a1", "192.0.2.1").end.place is Place.WORLD
    assert ask(fabric, "node/n1", "b1").end.name == "default/b1"
    assert ask(fabric, "192.0.2.1", "b1").end.name == "default/b1"


def test_a_drop_says_which_policy(fabric: Fabric) -> None:
    subjects = PodSet(namespace="default", pods=(Requirement("name", Operator.IN, ("b1",)),))
    fabric.compiler.put(
        Policy(kind="NetworkPolicy", namespace="default", name="closed", tier=Tier.NETWORK_POLICY, subjects=subjects,
               ingress=())
    )  # fmt: skip
    found = ask(fabric, "a1", "b1")
    assert (found.verdict, found.end.place, found.end.node) == (Verdict.DROPPED, Place.SWITCH, "n2")
    assert ask(fabric, "a1", "a2").verdict is Verdict.DELIVERED
    # By a Service it is as closed, and the endpoint is told although nothing arrives there.
    assert ask(fabric, "b1", "svc/web", 80).endpoint == ask(fabric, "a1", "svc/web", 80).endpoint != ""
    assert ask(fabric, "a1", "svc/web", 80).verdict is Verdict.DROPPED
    assert found.judgements[-1].table == "IngressPolicy" and found.judgements[-1].action == "Deny"
    assert "IngressPolicy" in found.end.why


@pytest.mark.parametrize("question", [("nobody", "b1"), ("a1", "svc/nobody"), ("a1", "node/nobody")])
def test_who_is_nobody_is_an_error_that_says_so(fabric: Fabric, question: tuple[str, str]) -> None:
    with pytest.raises(TraceError, match="nobody"):
        ask(fabric, *question)


def test_an_endpoint_that_is_none_is_refused(fabric: Fabric) -> None:
    with pytest.raises(TraceError, match="no endpoint"):
        trace(compiled(fabric), Asked("a1", "svc/web", "TCP", 80, 4, "10.244.9.9:1"))


def test_traces_differ_where_they_end_elsewhere(fabric: Fabric) -> None:
    one, other = ask(fabric, "a1", "a2"), ask(fabric, "a1", "b1")
    assert not list(differences(one, one)) and list(differences(one, other))


def test_a_trace_is_plain_json(fabric: Fabric) -> None:
    told = row(ask(fabric, "a1", "svc/web", 80))
    assert told["verdict"] == "Delivered" and told["visits"][0]["steps"][0]["table"] == "Classify"


def test_the_command_tells_switches_tables_nat_and_the_end(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_: object, __: object, resource: str, **query: str) -> object:
        assert resource == "trace"
        return row(trace(compiled(fabric), Asked(query["from"], query["to"], query["protocol"], int(query["port"]))))

    monkeypatch.setattr(sys.modules["controller.cli.trace"], "ask", answer)
    told = CliRunner().invoke(command, ["a1", "svc/web", "--tcp", "80"])
    assert told.exit_code == 0, told.output
    for words in ("n1: from pod default/a1", "Classify", "10.96.0.10:80 becomes 10.244.2.2:8080", "Pod default/a1"):
        assert words in told.output
    assert told.output.endswith("Delivered: pod default/b1 on n2\n")
    assert CliRunner().invoke(command, ["a1", "b1", "--tcp", "80", "--icmp"]).exit_code == 2
