"""Every flow that an established connection has in a datapath is one that TC takes, whatever the connection is for.

Other modules hold the same of policies and of what needs a lab of its own: modes and encapsulations, families, wired
bridges, machines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from callers import Call, applied, balanced, node_port, places, service, to, vips
from linting import Record, established
from probes import addresses, node_addresses, pod_netns

from deploy.lab.cluster import Lab
from deploy.lab.layout import WORLD

TCP = {"name": "tcp", "port": 80, "targetPort": 8080}
UDP = {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"}
SERVERS, KINDS = ("s1", "s2", "s3"), ("tcp", "udp")
#: Enough for each endpoint of a Service to have one of a client's.
SEVERAL = 4

Caller = tuple[str, Sequence[Call]]


def test_pods_nodes_and_the_world(service_lab: Lab, offload_record: Record) -> None:
    lab = service_lab
    pods = [to(address, 8080, kind) for pod in SERVERS for address in addresses(lab, pod) for kind in KINDS]
    hosts = [to(each, 7070, kind) for node in lab.nodes for each in node_addresses(lab, node) for kind in KINDS]
    callers = [(pod_netns(lab, pod), [*pods, *hosts]) for pod in ("c1", "c3")]
    pinged = [*WORLD, *addresses(lab, "s1"), *addresses(lab, "s2")]
    found = established(
        lab, [*callers, (lab.netns_of_node("node-2"), pods)], [(pod_netns(lab, "c1"), each) for each in pinged]
    )
    offload_record("pods, nodes and the world", found)
    assert found.failed == [] and len(found.judged) > 100


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("plain", {}),
        ("with affinity", {"sessionAffinity": "ClientIP"}),
        ("of endpoints nearby", {"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}),
        ("of hosts", {"selector": {"app": "host"}}),
    ],
)
def test_services_by_all_their_addresses(
    service_lab: Lab, kind: str, spec: dict[str, object], offload_record: Record
) -> None:
    lab = service_lab
    ports = [{**each, "targetPort": 7070} if "selector" in spec else each for each in (TCP, UDP)]
    with applied(lab, service("linted", *ports, type="LoadBalancer", **spec)):
        found = established(lab, list(_callers(lab, "linted")))
    offload_record(f"a Service, {kind}", found)
    assert found.failed == [] and len(found.judged) > 100


def _callers(lab: Lab, name: str) -> Iterator[Caller]:
    entries = balanced(lab, name)
    for place, netns in places(lab).items():
        calls = [to(each, 80, kind) for each in entries for kind in KINDS]
        if place != "outside":
            calls += [to(each, 80, kind) for each in vips(lab, name) for kind in KINDS]
        # Of a host's servers this host's own would answer itself, past its bridge.
        node = "node-3" if place != "pod c3" else "node-2"
        calls += [
            to(each, node_port(lab, name, index), kind)
            for index, kind in enumerate(KINDS)
            for each in node_addresses(lab, node)
        ]
        yield netns, calls * SEVERAL


def test_a_pod_that_calls_itself_and_host_ports(service_lab: Lab, offload_record: Record) -> None:
    lab = service_lab
    with applied(lab, service("itself", TCP, UDP, type="NodePort", selector={"who": "s1"})):
        calls = [to(each, 80, kind) for each in vips(lab, "itself") for kind in KINDS]
        calls += [to(each, node_port(lab, "itself")) for each in node_addresses(lab, "node-1")]
        found = established(lab, [(pod_netns(lab, "s1"), calls)])
    offload_record("a pod that calls itself", found)
    assert found.failed == [] and len(found.judged) > 8
    calls = [to(each, 9080) for each in node_addresses(lab, "node-1")]
    calls += [to(each, 9080, "udp") for each in node_addresses(lab, "node-2")]
    found = established(lab, [(netns, calls) for netns in places(lab).values()])
    offload_record("host ports", found)
    assert found.failed == [] and len(found.judged) > 30
