"""What we encode, as a real ovs-vswitchd holds it: read back it is the same value, and it prints it as we do.

The switch runs dummy datapaths only, in a network namespace of its own.
"""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec
import pytest

from controller.batch import BUNDLE_ID
from controller.session import Session
from flows import fields as f
from flows import packets
from flows.compiler import Compiler
from flows.fields import Field, Term
from flows.interpreter import Interpreter, InterpreterError
from flows.openflow import encode
from flows.openflow.messages import (
    BarrierReply,
    BundleReply,
    Error,
    FlowStatsReply,
    GroupDescReply,
    Message,
    PacketIn,
    PortStatsReply,
    RoleReply,
)
from flows.openflow.wire import BundleControl, Role
from flows.pipeline import (
    EGRESS_ADMIN,
    EGRESS_BASELINE,
    EGRESS_POLICY,
    INGRESS_ADMIN,
    INGRESS_BASELINE,
    INGRESS_POLICY,
    TABLES,
)
from flows.registers import EXIT, EXIT_PORT, SCRATCH, SOURCE, Bits, whole
from flows.state import Port
from flows.text import flow_text, group_text
from flows.update import CLUSTER
from flows.values import (
    PORT_CONTROLLER,
    PORT_IN_PORT,
    PORT_LOCAL,
    Action,
    Bucket,
    Conjunction,
    Ct,
    DecTtl,
    Flow,
    Goto,
    Group,
    GroupType,
    Move,
    Nat,
    Output,
    OutputBits,
    SetField,
    ToGroup,
    load,
)
from topology.graph import wire
from topology.model import ContainerPort, Endpoint, EndpointPort, EndpointSlice, Node, Pod, Service, ServicePort, Subset
from topology.naming import GATEWAY_MAC, GATEWAY_PORT, HOST_END_MAC_PREFIX, TUNNEL_PORT, mac_of
from topology.policies import Action as Says
from topology.policies import IpBlock, NodeSet, PodSet, Policy, PolicyPort, Rule, Tier
from topology.selectors import Operator, Requirement

_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
_SEED = 20240601


class Switch:
    """One bridge, spoken to over its management socket."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._environment = {**os.environ, **{f"OVS_{name}DIR": str(directory) for name in ("RUN", "DB", "LOG")}}
        self._control = str(directory / "control.sock")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(str(directory / "br0.mgmt"))
        self._session = Session(time.monotonic())
        self._flush()
        while self._session.features is None:
            self._session.receive(self._socket.recv(65536), time.monotonic())
            self._flush()

    def _flush(self) -> None:
        self._socket.sendall(b"".join(self._session.output))
        self._session.output = []

    def exchange(self, last: type[Message], *messages: bytes) -> list[Message]:
        """Send messages; what comes back, up to the first of a kind."""
        self._socket.sendall(b"".join(messages))
        found: list[Message] = []
        while not any(isinstance(each, last) for each in found):
            found += self._session.receive(self._socket.recv(65536), time.monotonic())
            self._flush()
        return found

    def push(self, *messages: bytes) -> list[Error]:
        """Messages in one bundle; the switch's errors."""
        opened = self.exchange(BundleReply, encode.bundle_control(BundleControl.OPEN_REQUEST, BUNDLE_ID))
        wrapped = [encode.bundle_add(BUNDLE_ID, each, int.from_bytes(each[4:8], "big")) for each in messages]
        told = opened + self.exchange(
            BundleReply, *wrapped, encode.bundle_control(BundleControl.COMMIT_REQUEST, BUNDLE_ID)
        )
        return [each for each in told if isinstance(each, Error)]

    def flows(self) -> dict[int, Flow | str]:
        """The switch's flows by cookie; where one can't be read, why."""
        (reply,) = self.exchange(FlowStatsReply, encode.flow_stats_request())
        assert isinstance(reply, FlowStatsReply)
        return {stats.cookie: stats.flow if stats.flow is not None else stats.why for stats in reply.items}

    def flows_of_all(self) -> list[Flow | str]:
        """Every flow, where `flows` knows them by their cookies' numbers."""
        (reply,) = self.exchange(FlowStatsReply, encode.flow_stats_request())
        assert isinstance(reply, FlowStatsReply)
        return [stats.flow or stats.why for stats in reply.items]

    def groups(self) -> dict[int, Group]:
        (reply,) = self.exchange(GroupDescReply, encode.group_desc_request())
        assert isinstance(reply, GroupDescReply) and not reply.unknown
        return {group.group_id: group for group in reply.items}

    def ofctl(self, *words: str, text: str | None = None) -> str:
        done = subprocess.run(
            ["ovs-ofctl", "-O", "OpenFlow15", *words],
            env=self._environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def trace(self, packet: str) -> str:
        """What the switch says that it would do with a packet."""
        argv = ["ovs-appctl", "-t", self._control, "ofproto/trace", "br0", packet]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def receive(self, port: str, frame: bytes) -> None:
        """Have a frame come in by a port."""
        argv = ["ovs-appctl", "-t", self._control, "netdev-dummy/receive", port, frame.hex()]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        self._socket.close()

    def clear(self) -> None:
        self.ofctl("del-flows", "br0")
        self.ofctl("del-groups", "br0")


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    # A Unix socket's path has 107 characters at most.
    directory = tmp_path_factory.mktemp("ovs")
    environment = {**os.environ, **{f"OVS_{name}DIR": str(directory) for name in ("RUN", "DB", "LOG")}}
    database = f"unix:{directory / 'db.sock'}"
    # Each ends with this process, however it ends, and neither sees the machine's own network.
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--"]
    started = []

    def start(*argv: str) -> None:
        with (directory / f"{argv[0]}.log").open("wb") as log:
            started.append(subprocess.Popen([*alone, *argv], env=environment, stdout=log, stderr=log))

    def run(*argv: str) -> None:
        subprocess.run(argv, env=environment, check=True, timeout=20)

    try:
        run("ovsdb-tool", "create", str(directory / "conf.db"), _SCHEMA)
        start("ovsdb-server", str(directory / "conf.db"), f"--remote=p{database}", "--unixctl=none")
        run("ovs-vsctl", f"--db={database}", "--retry", "--timeout=10", "--no-wait", "init")
        control = f"--unixctl={directory / 'control.sock'}"
        start("ovs-vswitchd", database, "--disable-system", "--enable-dummy=override", control)
        run(
            "ovs-vsctl", f"--db={database}", "--timeout=10",
            "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail_mode=secure",
        )  # fmt: skip
        here = Switch(directory)
        yield here
        here.close()
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.fixture(autouse=True)
def empty(switch: Switch) -> None:
    switch.clear()


# Flows that a switch takes ----------------------------------------------------------------------------------------

_IPV4, _IPV6, _ARP = f.ETH_TYPE(f.ETH_IPV4), f.ETH_TYPE(f.ETH_IPV6), f.ETH_TYPE(f.ETH_ARP)
_L4 = {
    f.PROTO_TCP: (f.TCP_SRC, f.TCP_DST),
    f.PROTO_UDP: (f.UDP_SRC, f.UDP_DST),
    f.PROTO_SCTP: (f.SCTP_SRC, f.SCTP_DST),
}
_ANYWHERE = (f.REG0, f.REG3, f.REG7, f.TUN_ID, f.ETH_SRC, f.ETH_DST, f.CT_MARK, f.CT_LABEL, f.TUN_SRC, f.TUN_DST)


class Maker:
    """Valid flows by chance, but the same ones at each run."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def term(self, field: Field) -> Term:
        value = self.chance.randrange(1, field.maximum + 1)
        if field.bits > 1 and self.chance.random() < 0.4:
            # A prefix: some fields take no other mask.
            mask = field.maximum & ~((1 << self.chance.randrange(1, field.bits)) - 1)
            return Term(field, value & mask, mask)
        return Term(field, value, None)

    def exact(self, field: Field) -> Term:
        return Term(field, self.chance.randrange(1, field.maximum + 1), None)

    def flow(self, number: int) -> Flow:
        kind = self.chance.choice(["any", "arp", "ipv4", "ipv6", "icmp", "nd"])
        chosen = [self.term(field) for field in self.chance.sample(_ANYWHERE, self.chance.randrange(4))]
        if self.chance.random() < 0.5:
            chosen.append(f.IN_PORT(self.chance.choice([1, 70, PORT_LOCAL])))
        if self.chance.random() < 0.3:
            # What isn't tracked has no other state; and what is +inv may not be committed.
            other = self.chance.choice([f.CT_NEW, f.CT_EST, f.CT_EST | f.CT_RPL])
            chosen.append(f.CT_STATE(f.CT_TRK | other, f.CT_TRK | other | self.chance.choice([0, f.CT_REL])))
        settable: list[Field] = [f.REG1, f.ETH_SRC, f.ETH_DST, f.TUN_ID, f.TUN_DST, f.TUN_IPV6_DST]
        match kind:
            case "arp":
                chosen += [_ARP, f.ARP_OP(1), self.term(f.ARP_SPA), self.term(f.ARP_SHA)]
                settable += [f.ARP_SPA, f.ARP_TPA, f.ARP_SHA, f.ARP_THA]
            case "ipv4" | "ipv6":
                addresses = (f.IPV4_SRC, f.IPV4_DST) if kind == "ipv4" else (f.IPV6_SRC, f.IPV6_DST)
                chosen += [_IPV4 if kind == "ipv4" else _IPV6, *map(self.term, addresses)]
                settable += addresses
                if self.chance.random() < 0.7:
                    protocol = self.chance.choice(list(_L4))
                    chosen += [f.IP_PROTO(protocol), *map(self.term, _L4[protocol])]
                    settable += _L4[protocol]
            case "icmp":
                chosen += [_IPV4, f.IP_PROTO(f.PROTO_ICMP), f.ICMPV4_TYPE(3), f.ICMPV4_CODE(4)]
            case "nd":
                chosen += [_IPV6, f.IP_PROTO(f.PROTO_ICMPV6), f.ICMPV6_TYPE(135), f.ICMPV6_CODE(0)]
                chosen += [self.term(f.ND_TARGET), self.term(f.ND_SLL)]
                settable += [f.ND_TARGET, f.ND_SLL, f.ND_RESERVED, f.ND_OPTIONS_TYPE, f.IPV6_SRC]
        program = [self.action(settable, kind) for _ in range(self.chance.randrange(5))]
        table = self.chance.choice(TABLES)
        if table.next and self.chance.random() < 0.5:
            program.append(Goto(self.chance.choice(table.next)))
        return Flow(table.number, number + 1, f.match(*chosen), tuple(program), (0x5B << 56) | number)

    def action(self, settable: Sequence[Field], kind: str) -> Action:
        match self.chance.randrange(6):
            case 0:
                return Output(self.chance.choice([1, 2, 70, PORT_IN_PORT, PORT_LOCAL]))
            case 1:
                return OutputBits(EXIT_PORT)
            case 2:
                return load(self.chance.choice([SOURCE, EXIT]), self.chance.randrange(1, 16))
            case 3:
                return self.chance.choice([Move(SCRATCH, whole(f.REG5)), Move(whole(f.ETH_SRC), whole(f.ETH_DST))])
            case 4 if kind in ("ipv4", "ipv6"):
                return self.ct(kind == "ipv6")
        term = self.exact(self.chance.choice(settable))
        return SetField(term.field, term.value)

    def ct(self, ipv6: bool) -> Ct:
        if self.chance.random() < 0.4:
            return Ct(7, table=20, nat=self.chance.choice([None, Nat()]))
        low = int(ip_address("fd00::1" if ipv6 else "10.0.0.1"))
        nat = self.chance.choice(
            [
                None,
                Nat("dst", low, ipv6=ipv6),
                Nat("src", low, low + 5, ipv6=ipv6),
                Nat("dst", low, None, ipv6, 80),
                Nat("src", low, None, ipv6, 1000, 2000),
            ]
        )
        execute = self.chance.choice([(), (SetField(f.CT_MARK, 5),), (SetField(f.CT_LABEL, 1, 0xFF),)])
        return Ct(9, commit=True, force=self.chance.random() < 0.2, nat=nat, execute=execute)


@pytest.fixture(scope="module")
def some_flows() -> list[Flow]:
    maker = Maker(_SEED)
    return [maker.flow(number) for number in range(400)]


def test_every_flow_is_taken_and_read_back_as_it_was(switch: Switch, some_flows: list[Flow]) -> None:
    errors = switch.push(*(encode.flow_mod(flow, number) for number, flow in enumerate(some_flows, 1)))
    refused = [f"{each.type}/{each.code}: {flow_text(some_flows[each.xid - 1])}" for each in errors]
    assert not refused, "\n".join(refused)
    held = switch.flows()
    for flow in some_flows:
        assert held[flow.cookie] == flow
    # No kind of field or action is left out by chance.
    assert {term.field for flow in some_flows for term in flow.match} >= {f.ND_SLL, f.ARP_SHA, f.CT_LABEL, f.SCTP_DST}
    assert {type(action) for flow in some_flows for action in flow.program} >= {Ct, Move, OutputBits, SetField, Goto}


def test_every_flow_is_printed_as_ovs_ofctl_prints_it(switch: Switch, some_flows: list[Flow]) -> None:
    """ovs-ofctl reads our text, and the switch then holds the same as when it was sent our bytes."""
    switch.push(*(encode.flow_mod(flow, number) for number, flow in enumerate(some_flows, 1)))
    by_bytes = switch.ofctl("--no-stats", "dump-flows", "br0")
    switch.clear()
    switch.ofctl("add-flows", "br0", "-", text="".join(f"{flow_text(flow)}\n" for flow in some_flows))
    by_text = switch.ofctl("--no-stats", "dump-flows", "br0")
    assert by_text.splitlines() == by_bytes.splitlines()
    assert len(by_text.splitlines()) == len(some_flows)


def test_the_text_of_plain_flows_is_ovs_ofctl_s_to_the_letter(switch: Switch) -> None:
    """Beside the order of terms, and of what it has an older name for."""
    for number, flow in enumerate(
        [
            Flow(5, 10, (f.ETH_TYPE(f.ETH_IPV4), f.IPV4_DST(0x0A000000, 0xFF000000)), (Output(3),), 1),
            Flow(5, 11, f.match(_IPV6, f.IP_PROTO(6), f.TCP_DST(80)), (ToGroup(5), Output(1)), 2),
            Flow(5, 12, (_ARP, f.ARP_OP(1)), (SetField(f.ARP_SHA, 0x0A5700000001), Output(PORT_IN_PORT)), 3),
            Flow(5, 13, (f.CT_STATE(0x21, 0x21), _IPV4), (Ct(23300, commit=True), Output(2)), 4),
            Flow(5, 14, (), (), 5),
            Flow(5, 20, (_IPV4,), (DecTtl(), Goto(66)), 11),
            Flow(5, 15, (SOURCE(1),), (OutputBits(EXIT_PORT),), 6),
            Flow(5, 16, (), (Output(PORT_CONTROLLER, 128),), 7),
            Flow(5, 17, (), (Output(PORT_CONTROLLER, 0xFFFF),), 8),
            Flow(5, 18, (f.REG5(0x12C, 0xFFFFFF),), (Conjunction(7, 1, 2), Conjunction(0x8000_0001, 3, 3)), 9),
            Flow(5, 19, (f.CONJ_ID(0x8000_0001),), (Goto(51),), 10),
        ],
        1,
    ):
        switch.clear()
        group = Group(5, GroupType.ALL, (Bucket(1, (Output(1),)),))
        assert not switch.push(encode.group_mod(group, xid=99), encode.flow_mod(flow, number))
        printed = switch.ofctl("--no-stats", "dump-flows", "br0").strip()
        assert _ordered(printed) == _ordered(flow_text(flow).replace("tcp_dst", "tp_dst"))


def _ordered(line: str) -> list[str]:
    return sorted(re.split(r",\s*|\s+(?=actions=)", line.strip()))


def test_the_flows_of_services_are_taken_and_read_back_as_they_were(switch: Switch) -> None:
    """Of every shape: endpoints few and many, with affinity and zones, policies, ranges, and notes for the host."""
    compiler = cluster_with_services()
    groups = [*compiler.groups(CLUSTER), *compiler.groups("n1")]
    flows = [*compiler.flows(CLUSTER), *compiler.flows("n1")]
    assert {len(group.buckets) for group in groups} >= {1, 3, 1000}
    assert not switch.push(*map(encode.group_mod, groups), *map(encode.flow_mod, flows))
    assert switch.groups() == {group.group_id: group for group in groups}
    found = [each for each in switch.flows_of_all() if not isinstance(each, str)]
    assert sorted(map(flow_text, found)) == sorted(map(flow_text, flows))
    assert set(found) == set(flows)


def test_the_flows_of_policies_are_taken_and_read_back_as_they_were(switch: Switch) -> None:
    """Single flows and conjunctions, shared parts, ranges, names of ports, blocks with exceptions, both families."""
    flows = [flow for flow in cluster_with_policies().flows(CLUSTER) if flow.table in _POLICY_TABLES]
    parts = [flow for flow in flows if any(isinstance(action, Conjunction) for action in flow.program)]
    assert len({len(flow.program) for flow in parts}) > 1 and len(parts) < len(flows)
    assert not switch.push(*map(encode.flow_mod, flows))
    found = [each for each in switch.flows_of_all() if not isinstance(each, str)]
    assert sorted(map(flow_text, found)) == sorted(map(flow_text, flows))
    assert set(found) == set(flows)
    by_bytes = switch.ofctl("--no-stats", "dump-flows", "br0")
    switch.clear()
    switch.ofctl("add-flows", "br0", "-", text="".join(f"{flow_text(flow)}\n" for flow in flows))
    assert sorted(switch.ofctl("--no-stats", "dump-flows", "br0").splitlines()) == sorted(by_bytes.splitlines())


_POLICY_TABLES = {
    table.number
    for table in (EGRESS_ADMIN, EGRESS_POLICY, EGRESS_BASELINE, INGRESS_ADMIN, INGRESS_POLICY, INGRESS_BASELINE)
}


def cluster_with_policies() -> Compiler:
    compiler = Compiler()
    compiler.put(Node(name="n1", addresses=(ip_address("172.30.0.1"), ip_address("fd00:172:30::1")), pod_cidrs=()))
    port = ContainerPort(port=8080, name="http")
    for index in range(20):
        labels = (("app", "xyz"[index % 3]), ("number", str(index)))
        compiler.put(Pod(namespace="d", name=f"p{index}", labels=labels, ports=(port,) if index % 2 else ()))
    of = {app: PodSet((Requirement("app", Operator.IN, (app,)),), "d") for app in "xyz"}
    block = IpBlock(ip_network("10.0.0.0/8"), (ip_network("10.244.0.0/16"),))
    ports = (PolicyPort("TCP", 1000, 2999), PolicyPort("UDP", 53), PolicyPort("SCTP"), PolicyPort("", "http"))
    rules = (
        Rule(peers=(of["y"], block, IpBlock(ip_network("2001:db8::/32"))), ports=ports),
        Rule(peers=(of["z"], PodSet(), NodeSet())),
    )
    compiler.put(Policy(namespace="d", name="plain", subjects=of["x"], ingress=rules, egress=rules))
    for name, peer in (("one", "y"), ("two", "z")):
        denied = (Rule(Says.DENY, peers=(of[peer],)), Rule(Says.PASS))
        for tier in (Tier.ADMIN, Tier.BASELINE):
            compiler.put(
                Policy(kind="ClusterNetworkPolicy", name=f"{name}-{tier}", tier=tier, priority=7,
                       subjects=of["x"], ingress=denied, egress=denied)
            )  # fmt: skip
    return compiler


# Conjunctions -------------------------------------------------------------------------------------------------------

_ENDS: list[f.Match] = [
    (_IPV4,),
    (_IPV4, f.IPV4_SRC(int(ip_address("10.0.0.1")))),
    (_IPV4, f.IPV4_SRC(int(ip_address("10.0.0.2")))),
    (_IPV4, f.IPV4_DST(int(ip_address("10.0.0.9")))),
    (_IPV4, f.IP_PROTO(f.PROTO_TCP)),
    (_IPV4, f.IP_PROTO(f.PROTO_UDP)),
    (_IPV4, f.IP_PROTO(f.PROTO_TCP), f.TCP_DST(80)),
    (_IPV4, f.IP_PROTO(f.PROTO_TCP), f.TCP_DST(64, 0xFFC0)),
]
_HIT = re.compile(r"^ ?0\. .*cookie (0x[0-9a-f]+)$", re.MULTILINE)


def some_conjunctions(chance: random.Random) -> list[Flow]:
    """A table of plain flows and conjunctions that share parts and priorities."""
    found: dict[tuple[int, f.Match], list[Action]] = {}
    plain: dict[tuple[int, f.Match], list[Action]] = {}
    for number in range(1, 1 + chance.randrange(1, 4)):
        priority, clauses = chance.randrange(1, 4), chance.randrange(2, 4)
        for index, match in enumerate(chance.sample(_ENDS, chance.randrange(clauses, len(_ENDS)))):
            part = Conjunction(number, 1 + index % clauses, clauses)
            found.setdefault((priority, match), []).append(part)
        plain[priority, f.match(f.CONJ_ID(number), *chance.choice([(), (), (), _ENDS[4]]))] = [Output(number)]
    for port, match in enumerate(chance.sample(_ENDS, chance.randrange(3)), 20):
        key = chance.randrange(1, 4), match
        if key not in found:
            plain[key] = [Output(port)]
    return [
        Flow(0, priority, match, tuple(program), cookie)
        for cookie, ((priority, match), program) in enumerate([*found.items(), *plain.items()], 1)
    ]


def test_the_interpreter_meets_conjunctions_as_the_switch_does(switch: Switch) -> None:
    chance = random.Random(_SEED)
    outcomes: dict[str, int] = {}
    for _ in range(150):
        flows = some_conjunctions(chance)
        source, destination = (ip_address(f"10.0.0.{chance.choice([1, 2, 9])}") for _ in range(2))
        port = chance.choice([80, 443, 70])
        packet = packets.tcp(1, (1, 2), (source, 1234), (destination, port))
        try:
            met = Interpreter(flows).look_up(0, packet)
        except InterpreterError:
            # Two of one priority that differ, or one flow that is two parts: there is no telling.
            outcomes["open"] = outcomes.get("open", 0) + 1
            continue
        switch.clear()
        assert not switch.push(*map(encode.flow_mod, flows))
        told = switch.trace(f"in_port=1,tcp,nw_src={source},nw_dst={destination},tcp_src=1234,tcp_dst={port}")
        hit = _HIT.search(told)
        said = int(hit[1], 16) if hit is not None else 0
        lines = "\n".join(map(flow_text, flows))
        assert said == (met.cookie if met is not None else 0), f"{lines}\n\n{packet}\n{met}\n\n{told}"
        whole = met is not None and any(term.field is f.CONJ_ID for term in met.match)
        kind = "nothing" if met is None else "whole" if whole else "plain"
        outcomes[kind] = outcomes.get(kind, 0) + 1
    # Not one kind many times.
    assert all(outcomes.get(kind, 0) >= 10 for kind in ("nothing", "whole", "plain")), outcomes


def cluster_with_services() -> Compiler:
    compiler = Compiler([ip_network("10.96.0.0/16")])
    for number in range(1, 4):
        zone = (("topology.kubernetes.io/zone", f"z{number % 2}"),)
        addresses = (ip_address(f"172.30.0.{number}"),)
        cidrs = (ip_network(f"10.244.{number}.0/24"),)
        compiler.put(Node(name=f"n{number}", addresses=addresses, pod_cidrs=cidrs, labels=zone))
    plain = Service(namespace="d", name="plain", ports=(ServicePort(port=80, target=8080, node_port=30080),))
    addresses = map(ip_address, ("10.96.0.1", "10.96.0.2", "10.96.0.3"))
    services = [
        msgspec.structs.replace(
            plain,
            cluster_ips=(next(addresses),),
            load_balancer_ips=(ip_address("192.0.2.5"),),
            source_ranges=(ip_network("198.51.100.0/24"),),
            external_local=True,
            health_check_node_port=32000,
        ),
        Service(
            namespace="d",
            name="sticky",
            ports=(ServicePort(port=53, protocol="UDP"),),
            cluster_ips=(next(addresses),),
            affinity_seconds=10800,
            internal_local=True,
        ),
        Service(
            namespace="d", name="many", ports=(ServicePort(port=9, protocol="SCTP"),), cluster_ips=(next(addresses),)
        ),
    ]
    counts = (3, 3, 1000)
    for service, count in zip(services, counts, strict=True):
        (port,) = service.ports
        endpoints = tuple(
            Endpoint(
                address=ip_address("10.245.0.0") + index,
                node=f"n{index % 3 + 1}",
                zones=(f"z{index % 2}",) if count > 3 else (),
            )
            for index in range(count)
        )
        subset = Subset((EndpointPort(port=port.target or port.port, protocol=port.protocol),), endpoints)
        compiler.put(service)
        compiler.put(EndpointSlice(namespace="d", name=service.name, service=service.name, subsets=(subset,)))
    pod = Pod(namespace="d", name="p", node="n1", ports=(ContainerPort(port=8080, host_port=8081),))
    compiler.put(pod)
    mac = mac_of(HOST_END_MAC_PREFIX, ip_address("10.244.1.9"))
    compiler.set_ports(
        "n1", [Port(1, GATEWAY_PORT, GATEWAY_MAC), Port(2, TUNNEL_PORT, 0x5B), Port(70, pod.port_name, mac)]
    )
    return compiler


def test_the_flows_and_groups_of_a_fabric_are_taken_and_read_back_as_they_were(switch: Switch) -> None:
    """Next hops of every kind, transit, and the tunnel where no wire leads."""
    compiler = Compiler()
    for number in range(1, 5):
        cidrs = (ip_network(f"10.244.{number}.0/24"), ip_network(f"fd00:10:244:{number}::/64"))
        compiler.put(Node(name=f"n{number}", addresses=(ip_address(f"172.30.0.{number}"),), pod_cidrs=cidrs))
    pairs = [(1, 2), (1, 3), (2, 3), (2, 4), (3, 4)]
    for number in range(1, 5):
        ports = [Port(10 + other, f"to-{other}", other) for other in range(1, 5)]
        compiler.set_ports(f"n{number}", [Port(2, TUNNEL_PORT, 0x5B), *ports])
    compiler.set_links(wire((f"n{a}", f"to-{b}"), (f"n{b}", f"to-{a}")) for a, b in pairs)
    groups = list(compiler.groups("n1"))
    assert {group.type for group in groups} == {GroupType.SELECT, GroupType.FAST_FAILOVER}
    assert not switch.push(*(encode.group_mod(group, xid=number) for number, group in enumerate(groups, 1)))
    assert switch.groups() == {group.group_id: group for group in groups}
    made = [*compiler.flows(CLUSTER), *compiler.flows("n1")]
    assert not switch.push(*(encode.flow_mod(flow, number) for number, flow in enumerate(made, 1)))
    assert set(switch.flows_of_all()) == set(made)


def test_groups_are_taken_changed_and_read_back_as_they_were(switch: Switch) -> None:
    select = Group(
        7,
        GroupType.SELECT,
        (Bucket(1, (Output(1),), 10), Bucket(2, (Ct(9, commit=True, nat=Nat("dst", 0x0A000001, port_min=80)),), 30)),
        "hash",
        0,
        (f.IPV4_SRC, f.IPV4_DST),
    )
    groups = [
        Group(5, GroupType.ALL, (Bucket(1, (Output(1),)), Bucket(2, (Output(2),)))),
        Group(6, GroupType.INDIRECT, (Bucket(0, (SetField(f.ETH_DST, 5), Output(3))),)),
        select,
        Group(8, GroupType.FAST_FAILOVER, (Bucket(1, (Output(1),), watch_port=1),)),
        Group(9, GroupType.SELECT, (Bucket(3, (Output(1),)),), "dp_hash", 0),
        Group(10, GroupType.SELECT, (Bucket(0, (Output(1),), watch_port=1),), "dp_hash", 0xFFFF_FFFF),
    ]
    assert not switch.push(*(encode.group_mod(group, xid=number) for number, group in enumerate(groups, 1)))
    assert switch.groups() == {group.group_id: group for group in groups}
    smaller = Group(7, GroupType.SELECT, select.buckets[1:], "hash", 0, (f.IPV4_SRC,))
    assert not switch.push(encode.group_mod(smaller, xid=1))
    assert switch.groups()[7] == smaller
    printed = switch.ofctl("dump-groups", "br0")
    assert "group_id=7" in printed and group_text(groups[0]) in printed


def test_ports_are_counted_as_ovs_ofctl_counts_them(switch: Switch) -> None:
    frame = bytes.fromhex("0180c200000e 0a0000000001 88cc".replace(" ", "")) + bytes(46)
    switch.exchange(BarrierReply, *[encode.packet_out(frame, (Output(PORT_LOCAL),), PORT_CONTROLLER)] * 3,
                    encode.barrier_request())  # fmt: skip
    (reply,) = switch.exchange(PortStatsReply, encode.port_stats_request())
    assert isinstance(reply, PortStatsReply)
    (local,) = [each for each in reply.items if each.number == PORT_LOCAL]
    assert (local.tx_packets, local.tx_bytes) == (3, 180)
    assert local.duration > 0
    told = switch.ofctl("dump-ports", "br0")
    assert "tx pkts=3, bytes=180" in told


def test_a_slave_is_sent_what_flows_send_to_the_controller_if_it_wants_to_hear_that(switch: Switch) -> None:
    switch.clear()
    tells = Flow(0, 9, (f.ETH_TYPE(0x88CC),), (Output(PORT_CONTROLLER, 600),), 7)
    assert not switch.push(encode.flow_mod(tells))
    frame = bytes.fromhex("0180c200000e 0a0000000001 88cc".replace(" ", "")) + bytes(46)
    switch.exchange(RoleReply, encode.role_request(Role.SLAVE, 1))
    other = Switch(switch.directory)
    try:
        # Connections to the management socket, which are no controllers', are sent no packets until they say of which
        # length.
        for each in (switch, other):
            each.exchange(BarrierReply, encode.set_config(600), encode.barrier_request())
        switch.receive("br0", frame)
        other.exchange(PacketIn)
        assert not [
            each for each in switch.exchange(BarrierReply, encode.barrier_request()) if isinstance(each, PacketIn)
        ]
        switch.exchange(BarrierReply, encode.hear_packets_as_slave(), encode.barrier_request())
        switch.receive("br0", frame)
        (packet,) = [each for each in switch.exchange(PacketIn) if isinstance(each, PacketIn)]
        assert (packet.table, packet.cookie, packet.data) == (0, 7, frame)
        assert f.IN_PORT(PORT_LOCAL) in packet.match
    finally:
        other.close()
        switch.exchange(RoleReply, encode.role_request(Role.EQUAL))
        switch.clear()


def test_a_flow_that_the_switch_can_t_take_is_refused_alone_by_its_xid(switch: Switch) -> None:
    good = [Flow(0, number, (f.IN_PORT(number),), (Output(1),), number) for number in (1, 2)]
    bad = Flow(0, 9, (f.TCP_DST(80),), (Output(1),), 9)
    errors = switch.push(encode.flow_mod(good[0], 11), encode.flow_mod(bad, 12), encode.flow_mod(good[1], 13))
    assert [each.xid for each in errors] == [12]
    assert set(switch.flows()) == {1, 2}


def test_a_strict_deletion_takes_one_flow_and_one_by_cookie_takes_many(switch: Switch) -> None:
    flows = [Flow(0, number, (f.IN_PORT(7),), (Output(1),), 0x5B00 | number) for number in (1, 2, 3)]
    other = Flow(0, 4, (f.IN_PORT(7),), (Output(1),), 0x1100)
    assert not switch.push(*(encode.flow_mod(flow, flow.priority) for flow in (*flows, other)))
    assert not switch.push(encode.flow_delete_strict(flows[0], 5))
    assert set(switch.flows()) == {0x5B02, 0x5B03, 0x1100}
    assert not switch.push(encode.flow_delete(0, 0x5B00, 0xFF00, 6))
    assert set(switch.flows()) == {0x1100}


def test_bits_of_a_field_keep_their_place(switch: Switch) -> None:
    low, high = Bits("reg5[0..7]", f.REG5, 0, 8), Bits("reg5[8..15]", f.REG5, 8, 8)
    flow = Flow(0, 1, (), (Move(low, high), OutputBits(whole(f.REG5))), 1)
    assert not switch.push(encode.flow_mod(flow, 1))
    assert switch.flows()[1] == flow
