"""Random clusters with random policies on real switches: packets, traces and `policy check` say what the oracle says.

The clusters are those of tests/unit/policy_worlds.py, the same ones in every run. A lab gives pods other addresses than
a world does: the objects that the oracle is asked about have the lab's. A trace of Open vSwitch is asked about all
questions, packets are sent for those about TCP and UDP.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from callers import ip
from policing import ask, forget_flows
from probes import HERE, until

from deploy.lab import processes
from deploy.lab.cluster import Lab, owner
from deploy.lab.layout import LabSettings, netns_path, node_manifest, pod_cidrs
from deploy.lab.substrate import appctl
from topology.naming import GATEWAY_MAC, ROUTER_MAC, format_mac

sys.path.insert(0, str(HERE.parent / "unit"))
from hypothesis import HealthCheck, Phase, given, seed, settings
from policy_oracle import Party, World, verdict
from policy_worlds import OUTSIDE, Case, Question, Raw, cases, interesting_ports

NODES = ("n1", "n2", "n3")
#: Of each world, so many questions.
MOST = 60
SEEDS = (1, 2, 3)
_TUNNELLED = re.compile(r"ipv4\(src=[0-9.]+,dst=172\.30\.0\.(\d+),.*vni=0x([0-9a-f]+)")


@functools.cache
def drawn(number: int) -> Case:
    """A world, and the questions about it that a lab can ask: all but those about load balancers' addresses."""
    found: list[Case] = []

    @seed(number)
    @settings(
        max_examples=12, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(cases(MOST))
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    # The first ones that hypothesis makes are simple; this is the one with most to say.
    case = max(found, key=lambda each: len(json.dumps(each.objects)))
    ours = {"198.51.100.7", "2001:db8:1::7"}
    kept = [each for each in case.questions if not {each.source.address, each.destination.address} & ours]
    return Case(case.objects, kept)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three nodes and nothing else; somebody outside has every address there that questions are about."""
    here = Lab(f"r{os.getpid()}")
    layout = here.layout
    names: Mapping[str, Mapping[str, str]] = {name: {} for name in NODES}
    here.up(LabSettings(name=layout.name, nodes=names, **owner(os.getpid())))
    try:
        present = ip(layout.outside, "addr", "show", "dev", "lo")
        for address in (*OUTSIDE[4], *OUTSIDE[6]):
            if f" {address}/" not in present:
                ip(layout.outside, "addr", "add", address, "dev", "lo")
        for index in range(len(NODES)):
            for cidr in pod_cidrs(here.settings, index):
                via = f"172.30.0.{index + 1}" if cidr.version == 4 else f"fd00:172:30::{index + 1:x}"
                ip(layout.outside, "route", "add", str(cidr), "via", via)
        yield here
    finally:
        here.down()


class Realised:
    """A world in a lab: its pods run, everybody serves, and its objects have the lab's addresses."""

    def __init__(self, lab: Lab, case: Case, directory: Path) -> None:
        self.lab = lab
        ports = sorted(
            {str(port) for _, port in interesting_ports(case.objects)}
            | {str(each.port) for each in case.questions if each.port}
        )
        self._serve = ["python3", "-I", str(HERE / "line_server.py"), *ports]
        self._pods = directory / "pods.yaml"
        self._policies = lab.layout.manifests / "world.yaml"
        self._servers = [
            processes.start(self._serve, lab.layout.directory / "servers.log", netns=netns)
            for netns in [lab.layout.outside, *map(lab.netns_of_node, NODES)]
        ]
        self._start(case, int(ports[-1]))
        self.objects = self._with_addresses(case.objects)
        self.world = World(self.objects)
        policies = [each for each in self.objects if each["kind"] not in ("Node", "Pod", "Namespace")]
        temporary = self._policies.with_name(".world.yaml")
        temporary.write_text("\n---\n".join(map(json.dumps, policies)))
        temporary.rename(self._policies)
        lab.wait_for_sync()
        forget_flows(lab)

    def _start(self, case: Case, ready: int) -> None:
        documents: list[Raw] = [each for each in case.objects if each["kind"] == "Namespace"]
        for each in case.objects:
            if each["kind"] == "Pod":
                spec = json.loads(json.dumps(each["spec"]))
                if not spec.get("hostNetwork"):
                    spec["containers"][0] |= {"command": self._serve, "readinessProbe": {"tcpSocket": {"port": ready}}}
                documents.append({**each, "spec": spec})
                del documents[-1]["status"]
        self._pods.write_text("\n---\n".join(map(json.dumps, documents)))
        found = {
            each["metadata"]["name"]: each["metadata"]["labels"] for each in case.objects if each["kind"] == "Node"
        }
        for index, name in enumerate(NODES):
            manifest: Any = node_manifest(self.lab.settings, name, index)
            manifest["metadata"]["labels"] |= found.get(name, {})
            path = self.lab.layout.manifests / f"node..{name}.yaml"
            path.with_name(".node").write_text(json.dumps(manifest))
            path.with_name(".node").rename(path)
        self.lab.apply([self._pods])

    def _with_addresses(self, objects: Sequence[Raw]) -> list[Raw]:
        rows = {(row["namespace"], row["name"]): row for row in self.lab.ask("pods")["items"]}
        self.rows = {f"{namespace}/{name}": row for (namespace, name), row in rows.items()}
        others: dict[str, str] = {}
        for each in objects:
            if each["kind"] == "Pod" and not each["spec"].get("hostNetwork"):
                own = self.rows[f"{each['metadata']['namespace']}/{each['metadata']['name']}"]["addresses"]
                others |= {ip["ip"]: address for ip, address in zip(each["status"]["podIPs"], own, strict=True)}
        # Longer ones first: none is taken for the beginning of another.
        pattern = re.compile(
            "|".join(rf"(?<![0-9a-f.:]){re.escape(each)}(?![0-9a-f:]|\.\d)" for each in others) or "(?!)"
        )
        text = pattern.sub(lambda found: others[found[0]], json.dumps(list(objects)))
        found: list[Raw] = json.loads(text)
        there = {each["metadata"]["name"] for each in found if each["kind"] == "Node"}
        extra: list[Any] = [
            node_manifest(self.lab.settings, name, index) for index, name in enumerate(NODES) if name not in there
        ]
        return [*found, *extra]

    def address(self, party: Party, version: int) -> str:
        if party.address:
            return party.address
        if party.node:
            number = NODES.index(party.node) + 1
            return f"172.30.0.{number}" if version == 4 else f"fd00:172:30::{number:x}"
        return next(each for each in self.rows[party.pod]["addresses"] if ip_address(each).version == version)

    def netns(self, party: Party) -> str:
        if party.pod:
            return self.lab.layout.pod_netns(*party.pod.split("/"))
        return self.lab.netns_of_node(party.node) if party.node else self.lab.layout.outside

    def end(self) -> None:
        self._policies.unlink(missing_ok=True)
        self.lab.delete([self._pods])
        processes.stop(self._servers)
        forget_flows(self.lab)

    # Answers --------------------------------------------------------------------------------------------------------

    def probe(self, asked: Sequence[Question], expected: Sequence[bool]) -> list[bool]:
        """Whether packets arrive: somebody answers, if only that nobody listens."""
        questions = [
            {
                "netns": str(netns_path(self.netns(each.source))),
                "kind": each.protocol.lower(),
                "from": self.address(each.source, each.version) if not each.source.pod else "",
                "address": self.address(each.destination, each.version),
                "port": each.port,
                "expected": wanted,
            }
            for each, wanted in zip(asked, expected, strict=True)
        ]
        return [bool(each) for each in ask(questions)]

    def check(self, each: Question) -> bool:
        ends = {"from": self.address(each.source, each.version), "to": self.address(each.destination, each.version)}
        return bool(self.lab.ask("policy-check", **ends, protocol=each.protocol, port=str(each.port))["allowed"])

    def trace(self, each: Question) -> bool:
        """Whether the switches let the first packet of a connection through, from port to port."""
        source, target = self.address(each.source, each.version), self.address(each.destination, each.version)
        if each.source.pod:
            row = self.rows[each.source.pod]
            node, port, mac = row["node"], row["port"], row["mac"]
        else:
            node = each.source.node or self.rows[each.destination.pod]["node"]
            port, mac = "sb-gw0", format_mac(GATEWAY_MAC)
        six = "6" if each.version == 6 else ""
        family = f"ipv6_src={source},ipv6_dst={target}" if six else f"nw_src={source},nw_dst={target}"
        # The protocol first: ofproto/trace wants to know it before it hears of its fields.
        if each.protocol == "ICMP":
            kind, rest = f"icmp{six}", "icmpv6_type=128,icmpv6_code=0" if six else "icmp_type=8,icmp_code=0"
        else:
            name = each.protocol.lower()
            kind, rest = f"{name}{six}", f"{name}_src=40000,{name}_dst={each.port}"
        words = f"{kind},dl_src={mac},dl_dst={format_mac(ROUTER_MAC)},{family},nw_ttl=64,{rest}"
        done = self._actions(node, f"in_port={port},{words}")
        tunnelled = _TUNNELLED.search(done)
        if tunnelled:
            done = self._actions(NODES[int(tunnelled[1]) - 1], f"in_port=sb-tun0,tun_id=0x{tunnelled[2]},{words}")
        return done != "drop"

    def _actions(self, node: str, flow: str) -> str:
        """What the datapath would do at last."""
        told = appctl(self.lab.layout, node, "ofproto/trace", "br-int", flow)
        return [line.partition(": ")[2] for line in told.splitlines() if line.startswith("Datapath actions: ")][-1]


@pytest.mark.parametrize("number", SEEDS)
def test_switches_do_what_the_policies_of_a_random_world_say(lab: Lab, tmp_path: Path, number: int) -> None:
    case = drawn(number)
    there = Realised(lab, case, tmp_path)
    try:
        expected = {each: verdict(there.world, *each) for each in case.questions}
        wrong = [
            f"{each}: {name} says {said}, but {expected[each]}"
            for each in case.questions
            for name, said in (("policy check", there.check(each)), ("ofproto/trace", there.trace(each)))
            if said != expected[each].allowed
        ]
        sent = [each for each in case.questions if each.protocol in ("TCP", "UDP")]
        wanted = [expected[each].allowed for each in sent]
        assert len(set(wanted)) == 2, "a world in which everything is as everything else tells little"
        forget_flows(lab)
        wrong += [
            f"{each}: packets say {said}, but {expected[each]}"
            for each, said in zip(sent, there.probe(sent, wanted), strict=True)
            if said != expected[each].allowed
        ]
        assert not wrong, "\n".join(wrong)
    finally:
        there.end()
        until(lambda: bool(lab.ask("status")["healthy"]), "the lab is as before")
