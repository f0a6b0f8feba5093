"""Questions at random: the model's trace, the switches' own `ofproto/trace` and a real connection agree, every one."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any, NamedTuple

import pytest
from callers import OUTSIDE, Document, service
from policing import HOST_PORT, cluster_policy, pods_of, policed, policy
from probes import HERE, node_addresses, pod_netns
from test_trace import trace as traced

from deploy.lab.cluster import Lab
from deploy.lab.layout import netns_path, pod_cidrs
from flows import fields as f
from flows import packets
from flows.packets import Fields
from flows.pipeline import SERVICE_STATS
from flows.registers import Identity
from topology.naming import ENTRY_ADDRESSES, GATEWAY_MAC, GATEWAY_PORT, ROUTER_MAC, gateway_addresses, parse_mac

SEED, AT_A_TIME = 7, 125
#: How many questions of each kind there are.
KINDS = {"pod": 360, "node": 70, "from a node": 90, "Service": 180, "load balancer": 110, "node port": 190}
#: Datagrams without an answer that are sent again at a time, and how often.
FEW, AGAIN = 4, 10
#: Seconds that all of a batch may take, until those are asked again.
PATIENCE = "4"
PODS = ("red/web1", "red/web2", "red/near", "red/far", "blue/near", "blue/far")
PORTS = (8080, 8081, 8082, 8083, 9998, 9999)
#: What pods serve; the web servers more than the others.
SERVED = {each: {8080, 8081, 8082, 8083} if "web" in each else {8080, 8081} for each in PODS}


def in_red(document: Document) -> Document:
    return {**document, "metadata": {**document["metadata"], "namespace": "red"}}


def ports(target: int) -> list[Document]:
    """A Service's port 80 by TCP and by UDP."""
    return [{"name": each, "port": 80, "targetPort": target, "protocol": each.upper()} for each in ("tcp", "udp")]


DOCUMENTS = (
    in_red(service("web", *ports(8080), selector={"app": "web"}, type="LoadBalancer")),
    # These nobody isolates.
    in_red(service("clients", *ports(8080), selector={"app": "client"}, type="LoadBalancer")),
    in_red(service("local", *ports(8081), selector={"who": "far"}, type="LoadBalancer", externalTrafficPolicy="Local")),
    in_red(service("one", *ports(8081), selector={"who": "web1"})),
    in_red(service("empty", *ports(8080), selector={"app": "nothing"})),
    policy(
        "webs",
        {"app": "web"},
        ingress=[
            {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 8080}]},
            {"from": [{"podSelector": {"matchLabels": {"tier": "front"}}}]},
        ],
    ),
    cluster_policy(
        "no-8082",
        {"namespaces": {}},
        egress=[
            {
                "action": "Deny",
                "to": [pods_of("red", tier="front")],
                "protocols": [{"tcp": {"destinationPort": {"number": 8082}}}],
            }
        ],
    ),
)


@pytest.fixture(scope="module")
def lab(policy_lab: Lab) -> Lab:
    return policy_lab


class Question(NamedTuple):
    """One connection, or datagram, from a pod, a node's host or an address beyond; `kind` is what it is to."""

    source: str
    target: str
    protocol: str
    port: int
    family: int
    kind: str


def at_random(lab: Lab) -> list[Question]:
    """Questions that all differ: as many of a kind as `KINDS` says, the same in every run as far as addresses are."""
    found: dict[str, list[Question]] = {}
    for each in every(lab):
        if each.source != each.target:
            found.setdefault(each.kind, []).append(each)
    assert found.keys() == KINDS.keys()
    chance = random.Random(SEED)
    return [each for kind, count in KINDS.items() for each in chance.sample(found[kind], count)]


def every(lab: Lab) -> Iterator[Question]:
    """Whatever may be asked."""
    nodes = [f"node/{name}" for name in lab.nodes]
    services = {row["name"]: row for row in lab.ask("services")["items"]}
    for protocol, family in itertools.product(("TCP", "UDP"), (4, 6)):
        outside = OUTSIDE[family == 6]
        for source, target in itertools.product(PODS, PODS):
            for port in PORTS:
                yield Question(source, target, protocol, port, family, "pod")
        for source, target in itertools.product((*PODS, outside), nodes):
            for port in (HOST_PORT, 9999):
                yield Question(source, target, protocol, port, family, "node")
        for source, target in itertools.product(nodes, (*PODS, *nodes)):
            for port in (8080, 8083) if "node" not in target else (HOST_PORT, 9999):
                yield Question(source, target, protocol, port, family, "from a node")
        for source, name in itertools.product((*PODS, *nodes), services):
            yield Question(source, f"red/svc/{name}", protocol, 80, family, "Service")
            if name == "one":
                yield Question(source, f"red/svc/{name}", protocol, 81, family, "Service")
        for source, row in itertools.product((*PODS, *nodes, outside), services.values()):
            for address in row["externalIPs"]:
                if (":" in address) == (family == 6):
                    yield Question(source, address, protocol, 80, family, "load balancer")
            for port, node in itertools.product(row["ports"], lab.nodes):
                if match := re.fullmatch(rf"\d+:(\d+)/{protocol}", port):
                    address = node_addresses(lab, node)[family == 6]
                    yield Question(source, address, protocol, int(match[1]), family, "node port")


def by_model(lab: Lab, question: Question) -> list[dict[str, Any]]:
    """The model's trace, for each endpoint that may be chosen."""
    query = {
        "from": question.source, "to": question.target, "protocol": question.protocol,
        "port": str(question.port), "family": str(question.family),
    }  # fmt: skip
    first: dict[str, Any] = lab.ask("trace", **query)
    others = [each for each in first["endpoints"] if each != first["endpoint"]]
    return [first, *(lab.ask("trace", **query, endpoint=each) for each in others)]


def outcome(trace: dict[str, Any], port: int) -> str:
    """What a client sees: `answered`, `refused`, or silence."""
    if trace["verdict"] != "Delivered":
        return "refused" if trace["verdict"] == "Rejected" else ""
    end = trace["end"]
    reached = int(trace["endpoint"].rpartition(":")[2]) if trace["endpoint"] else port
    served = SERVED[end["name"]] if end["place"] == "Pod" else {HOST_PORT}
    return "answered" if reached in served else "refused"


def by_probe(lab: Lab, asked: list[Question], expected: list[bool], addresses: list[str]) -> list[str]:
    """What came of real ones, some at a time."""
    found: list[str] = []
    for start in range(0, len(asked), AT_A_TIME):
        batch = range(start, min(start + AT_A_TIME, len(asked)))
        questions = []
        for index in batch:
            questions.append(
                {
                    "netns": netns_path(place(lab, asked[index].source)), "kind": asked[index].protocol.lower(),
                    "address": addresses[index], "port": asked[index].port, "expected": expected[index],
                }
            )  # fmt: skip
        done = subprocess.run(
            [sys.executable, str(HERE / "ask_from.py"), PATIENCE],
            input=json.dumps(questions, default=str), capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        found += json.loads(done.stdout)
    return found


def place(lab: Lab, source: str) -> str:
    """The namespace that a question is asked from."""
    namespace, _, name = source.rpartition("/")
    if namespace == "node":
        return lab.netns_of_node(name)
    return pod_netns(lab, name, namespace) if namespace else lab.layout.outside


def ask_again(
    lab: Lab, asked: list[Question], outcomes: dict[Question, list[str]], addresses: list[str], probed: list[str]
) -> list[str]:
    """Ask once more, a few at a time, where a refusal of a datagram didn't come: kernels limit how many they send."""
    found = list(probed)
    for _ in range(AGAIN):
        lost = [
            index
            for index, each in enumerate(asked)
            if each.protocol == "UDP" and not found[index] and "" not in outcomes[each]
        ][:FEW]
        if not lost:
            break
        came = by_probe(lab, [asked[each] for each in lost], [True] * len(lost), [addresses[each] for each in lost])
        for index, each in zip(lost, came, strict=True):
            found[index] = each
    return found


class Switches:
    """Asks `ofproto/trace` what the model says of a visit."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._pods = {f"{row['namespace']}/{row['name']}": row for row in lab.ask("pods")["items"]}
        self._identities = {
            f"{each['namespace']}/{name}": each["number"]
            for each in lab.ask("identities")["items"]
            for name in each["podNames"]
        }

    def differences(self, question: Question, trace: dict[str, Any]) -> list[str]:
        """Where a switch says otherwise than the model."""
        found = []
        source, target = (trace["question"][f"{end}Address"] for end in ("source", "destination"))
        port = question.port
        for number, visit in enumerate(trace["visits"]):
            if ", which sends it to " in visit["enteredFrom"]:
                # A node port: its host gives it another destination, and to what it asks itself another source.
                target = str(next(each for each in ENTRY_ADDRESSES if each.version == question.family))
                if question.source == f"node/{visit['node']}":
                    own = pod_cidrs(self._lab.settings, self._lab.nodes.index(visit["node"]))
                    source = str(next(each for each in gateway_addresses(own) if each.version == question.family))
            packet = self._packet(question, trace, visit, (source, target, port), number)
            tables, ports, told = traced(self._lab, packet, visit["node"])
            ours = [step["number"] for step in visit["steps"]]
            out = [visit["outPort"]] if visit["outPort"] else []
            if any(each["end"] == "destination" for each in visit["translations"]):
                # `ofproto/trace` carries out no NAT: what it says from there on is of another packet.
                cut = ours.index(SERVICE_STATS.number)
                ours, tables, out, ports = ours[:cut], tables[:cut], [], []
                target, _, text = trace["endpoint"].rpartition(":")
                target, port = target.strip("[]"), int(text)
            if (ours, out) != (tables, ports):
                found.append(f"{visit['node']}: model {ours} to {out}, switch {tables} to {ports}\n{told}")
        return found

    def _packet(
        self, question: Question, trace: dict[str, Any], visit: dict[str, Any], ends: tuple[str, str, int], number: int
    ) -> Fields:
        make = packets.tcp if question.protocol == "TCP" else packets.udp
        told, macs, key = trace["question"], (1, 2), {}
        if visit["entered"] == GATEWAY_PORT:
            macs = (GATEWAY_MAC, ROUTER_MAC)
        elif number == 0:
            macs = (parse_mac(self._pods[question.source]["mac"]), ROUTER_MAC)
        else:
            key = {f.TUN_ID: self._sender(question, trace)}
        source, target, port = ends
        opener = (ip_address(source), told["sourcePort"])
        return make(visit["inPort"], macs, opener, (ip_address(target), port)) | key

    def _sender(self, question: Question, trace: dict[str, Any]) -> int:
        """What a tunnel says of who has sent it."""
        if question.source in self._identities:
            return self._identities[question.source]
        # At another node's port a node is of the world, whose packets to Services are judged where they come in.
        first = trace["visits"][0]["node"]
        return Identity.OTHER_NODE if question.source == f"node/{first}" else Identity.JUDGED


def test_the_model_the_switches_and_real_connections_agree_about_questions_at_random(lab: Lab) -> None:
    with policed(lab, *DOCUMENTS):
        asked = at_random(lab)
        assert len(set(asked)) == len(asked) == 1000
        models = {each: by_model(lab, each) for each in asked}
        outcomes = {each: [outcome(trace, each.port) for trace in models[each]] for each in models}
        addresses = [models[each][0]["question"]["destinationAddress"] for each in asked]
        probed = by_probe(lab, asked, [all(map(bool, outcomes[each])) for each in asked], addresses)
        probed = ask_again(lab, asked, outcomes, addresses, probed)
        switches = Switches(lab)
        with ThreadPoolExecutor(4) as pool:
            told = dict(
                zip(models, pool.map(lambda each: switches.differences(each, models[each][0]), models), strict=True)
            )
    faults, table = [], Counter[tuple[str, str, str]]()
    for question, seen in zip(asked, probed, strict=True):
        came = seen if seen in ("", "refused") else "answered"
        table[question.kind, question.protocol, came or "silence"] += 1
        reached = {
            each["end"]["name"].rpartition("/")[2]
            for each, told_of in zip(models[question], outcomes[question], strict=True)
            if told_of == "answered" and each["end"]["place"] == "Pod"
        }
        # Who answers says so by its name: it is where the model ends.
        if came not in outcomes[question] or (came == "answered" and reached and seen not in reached):
            faults.append(f"{question}: the model says {outcomes[question]}, a probe {seen!r}")
    faults += [f"{question}: {each}" for question, found in told.items() for each in found]
    print(f"\n{len(asked)} different questions, {len(faults)} faults")
    for (kind, protocol, came), count in sorted(table.items()):
        print(f"  {kind:13} {protocol:4} {came:9} {count:5}")
    assert not faults, "\n".join(faults[:20])
    # All that can come of a question has come of some.
    assert {came for _, _, came in table} == {"answered", "refused", "silence"}
    for kind in ("Service", "load balancer", "node port"):
        assert sum(count for key, count in table.items() if (key[0], key[2]) == (kind, "answered")) >= KINDS[kind] / 3
