"""Every flow that an established connection has in a datapath is one that TC takes, whatever the connection is for.

Other modules hold the same of policies and of what needs a lab of its own: modes and encapsulations, families, wired
bridges, machines.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest
from callers import Call, Held, applied, balanced, ip, node_port, ofctl, places, service, steadily, to, vips
from linting import Record, established, everything, flows_of, kept
from probes import HERE, addresses, node_addresses, pod_netns, until

from deploy.lab.cluster import Lab
from deploy.lab.layout import WORLD
from deploy.lab.substrate import appctl
from flows.offload.lint import FIRST_PACKETS, lint
from flows.offload.trace_text import read_trace
from topology.naming import ROUTER_MAC, format_mac, pod_port_name

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


# What isn't ----------------------------------------------------------------------------------------------------------


def test_first_packets_are_no_nic_s_to_forward(service_lab: Lab, offload_record: Record) -> None:
    lab = service_lab
    with applied(lab, service("begun", TCP), service("kept", TCP, sessionAffinity="ClientIP")):
        calls = [to(each, 80) for name in ("begun", "kept") for each in vips(lab, name)]
        with steadily((pod_netns(lab, "c1"), calls)) as (steady,):
            until(lambda: any(each.occasion == FIRST_PACKETS for each in flows_of(lab, "node-1")), "new connections")
            found = everything(lab)
    assert not [each for each in steady.outcomes if "error" in each]
    offload_record("new connections to Services", found)
    assert all(each.offloadable for _, each in found.judged), found.failed
    refused = [each for _, each in found.verdicts if each.occasion == FIRST_PACKETS and not each.offloadable]
    assert {reason.kind for each in refused for reason in each.reasons} == {"match", "action", "chain"}


@pytest.mark.parametrize(
    ("flow", "reason", "brought_in"),
    [
        # No packet has the mark: the flow is met by none, and all are asked for it.
        ("table=UnSNAT,priority=9999,pkt_mark=1/1,actions=drop", "match skb_mark(0/0x1)", "pkt_mark=0x1/0x1"),
        (
            "table=UnSNAT,priority=9999,ip,actions=set_field:1->pkt_mark,goto_table:Track",
            "action set(skb_mark(0x1))",
            "pkt_mark",
        ),
    ],
    ids=["match", "action"],
)
def test_what_tc_does_not_take_is_found_with_the_flow_that_brought_it_in(
    service_lab: Lab, flow: str, reason: str, brought_in: str
) -> None:
    lab = service_lab
    # Of this node: Open vSwitch routes what goes by tunnel by its mark too.
    calls = [to(addresses(lab, "s1")[0], 8080)]
    ofctl(lab, "node-1", "--names", "add-flow", "br-int", flow)
    try:
        found = established(lab, [(pod_netns(lab, "c1"), calls)])
        assert any(reason in each for each in found.failed), found.failed
        with kept(lab), Held(pod_netns(lab, "c1"), *calls) as held:
            held.ask()
            code, text = offload_lint(lab, "node-1")
    finally:
        ofctl(lab, "node-1", "--names", "--strict", "del-flows", "br-int", flow.partition(",actions=")[0])
        appctl(lab.layout, "node-1", "revalidator/purge")
    assert code == 1
    lines = text.splitlines()
    index = next(number for number, line in enumerate(lines) if reason in line)
    assert brought_in in lines[index + 1].lower() and "9999" in lines[index + 1], text
    with kept(lab), Held(pod_netns(lab, "c1"), *calls) as held:
        held.ask()
        code, text = offload_lint(lab, "node-1")
    assert code == 0 and "100% of the bytes" in text, text


def test_what_a_trace_would_make_is_judged_as_what_there_is(service_lab: Lab) -> None:
    lab = service_lab
    port = pod_port_name("default", "c1")
    for version, (source, target) in enumerate(zip(addresses(lab, "c1"), addresses(lab, "s2"), strict=True)):
        words = f"in_port={port},dl_src={mac_in(pod_netns(lab, 'c1'))},dl_dst={format_mac(ROUTER_MAC)}"
        family = f"tcp,nw_src={source},nw_dst={target}" if not version else f"tcp6,ipv6_src={source},ipv6_dst={target}"
        asked = f"{family},{words},tp_src=40000,tp_dst=8080,nw_ttl=64"
        text = appctl(lab.layout, "node-1", "ofproto/trace", "br-int", asked, "--ct-next", "trk,est")
        verdicts = lint(read_trace(text).flows)
        assert [each.reasons for each in verdicts] == [(), ()], text
        assert [(each.dangling, each.occasion) for each in verdicts] == [(False, "")] * 2, text


def mac_in(netns: str) -> str:
    return str(json.loads(ip(netns, "-j", "link", "show", "dev", "eth0"))[0]["address"])


def offload_lint(lab: Lab, node: str) -> tuple[int, str]:
    """`signalbox offload lint` of a node."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.command", "offload", "lint", "--lab", lab.layout.name, "--node", node],
        capture_output=True, text=True, timeout=60, check=False, cwd=HERE.parent.parent,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout
