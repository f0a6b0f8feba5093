"""The reference interpreter against `ofproto/trace` of a real switch: packet by packet the same tables and ports."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from probes import node_addresses

from controller.session import Session
from deploy.lab import substrate
from deploy.lab.cluster import Lab
from deploy.lab.layout import WORLD
from flows import fields as f
from flows import packets
from flows.fields import Term
from flows.interpreter import Conntrack, Interpreter
from flows.openflow import encode
from flows.openflow.messages import FlowStats, FlowStatsReply
from flows.packets import Fields
from flows.pipeline import BY_NUMBER, DIGEST
from flows.registers import Identity
from flows.text import match_text
from flows.values import Conjunction
from topology.naming import GATEWAY_MAC, GATEWAY_PORT, ROUTER_MAC, TUNNEL_PORT, link_local, parse_mac

NODE = "node-1"
POLICIES = Path(__file__).parent / "trace_policies.yaml"
#: Parts of an option that ovs-appctl doesn't let one name.
_UNSPOKEN = {f.ND_RESERVED, f.ND_OPTIONS_TYPE}
_TABLE = re.compile(r"^ ?(\d+)\. ")
_OUTPUT = re.compile(r"^\s+(?:output:(\d+)|-> output port is (\d+)|(IN_PORT))$")


def read_flows(lab: Lab, node: str) -> list[FlowStats]:
    """A switch's flows, read over its management socket with our own session and decoder."""
    session = Session(time.monotonic())
    with socket.socket(socket.AF_UNIX) as switch:
        switch.settimeout(60)
        switch.connect(str(lab.layout.node(node) / "br-int.mgmt"))
        asked = False
        while True:
            for output in session.output:
                switch.sendall(output)
            session.output = []
            if session.features is not None and not asked:
                switch.sendall(encode.flow_stats_request(xid=77))
                asked = True
            for message in session.receive(switch.recv(65536), time.monotonic()):
                if isinstance(message, FlowStatsReply):
                    return list(message.items)


def trace(lab: Lab, packet: Fields, node: str = NODE) -> tuple[list[int], list[int], str]:
    """The tables and ports of the switch's own trace, and its text."""
    terms = f.match(*(Term(field, value, None) for field, value in packet.items() if field not in _UNSPOKEN))
    text = ",".join(match_text(terms))
    if packet.get(f.IP_PROTO) == f.PROTO_ICMPV6:
        text = text.replace("icmp_type", "icmpv6_type").replace("icmp_code", "icmpv6_code")
    told = substrate.appctl(lab.layout, node, "ofproto/trace", "br-int", text)
    tables, ports = [], []
    here = False
    for line in told.splitlines():
        if line.startswith("bridge("):
            here = line == 'bridge("br-int")'
        elif here and (table := _TABLE.match(line)):
            tables.append(int(table[1]))
        elif here and (output := _OUTPUT.match(line)):
            ports.append(packet[f.IN_PORT] if output[3] else int(output[1] or output[2]))
    return tables, ports, told


def cases(lab: Lab) -> dict[str, Fields]:
    """One of each kind of packet that a switch meets."""
    rows = {row["name"]: row for row in lab.ask("pods")["items"]}
    port, mac = rows["a1"]["portNumber"], parse_mac(rows["a1"]["mac"])
    own, here, there = ([ip_address(each) for each in rows[name]["addresses"]] for name in ("a1", "a2", "b1"))
    node = [ip_address(each) for each in node_addresses(lab, "node-2")]
    world = [ip_address(each) for each in WORLD]
    numbers = {name: int(_interface(lab, name)) for name in (GATEWAY_PORT, TUNNEL_PORT)}
    found: dict[str, Fields] = {}
    for index, family in enumerate(("IPv4", "IPv6")):
        targets = {"a pod here": here, "a pod there": there, "another node": node, "the world": world}
        for title, addresses in targets.items():
            found[f"{family} to {title}"] = packets.ping(port, (mac, ROUTER_MAC), own[index], addresses[index])
        found[f"{family} TCP"] = packets.tcp(port, (mac, ROUTER_MAC), (own[index], 1234), (here[index], 80))
        found[f"{family} UDP"] = packets.udp(port, (mac, ROUTER_MAC), (own[index], 1234), (there[index], 53))
        found[f"{family} spoofed"] = packets.ping(port, (mac, ROUTER_MAC), here[index], there[index])
        found[f"{family} from the host"] = packets.ping(
            numbers[GATEWAY_PORT], (GATEWAY_MAC, ROUTER_MAC), world[index], own[index]
        )
        found[f"{family} from a tunnel"] = packets.ping(numbers[TUNNEL_PORT], (1, 2), there[index], own[index])
        found[f"{family} stray from a tunnel"] = packets.ping(numbers[TUNNEL_PORT], (1, 2), there[index], world[index])
    found["ARP request"] = packets.arp(port, mac, (mac, own[0]), there[0])
    found["ARP answer"] = packets.arp(port, mac, (mac, own[0]), there[0], operation=2)
    found["ARP lie"] = packets.arp(port, mac, (mac, here[0]), there[0])
    found["solicitation"] = packets.solicitation(port, mac, (mac, link_local(mac)), there[1])
    found["solicitation lie"] = packets.solicitation(port, mac, (mac, here[1]), there[1])
    found["IPv6 to multicast"] = packets.ping(port, (mac, ROUTER_MAC), own[1], ip_address("ff02::fb"))
    return found


def _interface(lab: Lab, name: str) -> str:
    return substrate.vsctl(lab.layout, NODE, "get", "Interface", name, "ofport").strip()


def agree(lab: Lab, found: dict[str, Fields]) -> set[tuple[tuple[int, ...], bool]]:
    """Compare what becomes of packets; returns by which tables, and whether they left."""
    stats = read_flows(lab, NODE)
    assert all(each.flow is not None for each in stats)
    interpreter = Interpreter(each.flow for each in stats if each.flow is not None and each.table != DIGEST.number)
    ends = set()
    for title, packet in found.items():
        walk = interpreter.walk(packet, Conntrack())
        tables, ports, told = trace(lab, packet)
        ours = walk.tables, [each.port for each in walk.emissions]
        if ours != (tables, ports):
            pytest.fail(f"{title}: the interpreter says {ours}, the switch {(tables, ports)}\n{walk}\n\n{told}")
        ends.add((tuple(tables), bool(ports)))
    return ends


def test_the_interpreter_agrees_with_the_switch_s_own_trace(lab: Lab) -> None:
    lab.wait_for_sync()
    # The cases are of many kinds, not one kind many times.
    assert len(agree(lab, cases(lab))) >= 5


@pytest.fixture
def policies(lab: Lab) -> Iterator[None]:
    lab.apply([POLICIES])
    lab.wait_for_sync()
    yield
    lab.delete([POLICIES])
    lab.wait_for_sync()


def judged_cases(lab: Lab) -> dict[str, Fields]:
    """Packets about which policies have something to say: from each kind of sender, to ports in and out of ranges."""
    rows = {row["name"]: row for row in lab.ask("pods")["items"]}
    identities = {name: each["number"] for each in lab.ask("identities")["items"] for name in each["podNames"]}
    port, mac = rows["a1"]["portNumber"], parse_mac(rows["a1"]["mac"])
    addresses = {name: [ip_address(each) for each in rows[name]["addresses"]] for name in ("a1", "a2", "b1", "c1")}
    tunnel, gateway = (int(_interface(lab, name)) for name in (TUNNEL_PORT, GATEWAY_PORT))
    worlds = {"allowed": ("192.0.2.1", "2001:db8::1"), "others": ("192.0.2.200", "fd99::1")}
    found: dict[str, Fields] = {}
    for index, family in enumerate(("IPv4", "IPv6")):
        for number in (23, 80, 999, 1000, 2047, 2999, 3000):
            for target in ("a2", "b1", "c1"):
                ends = (addresses["a1"][index], 1234), (addresses[target][index], number)
                found[f"{family} a1 to {target}:{number}"] = packets.tcp(port, (mac, ROUTER_MAC), *ends)
            for name, world in worlds.items():
                there = (ip_address(world[index]), 1234)
                ends = (addresses["a1"][index], 1234), (there[0], number)
                found[f"{family} a1 to the {name} of the world:{number}"] = packets.tcp(port, (mac, ROUTER_MAC), *ends)
                ends = there, (addresses["a2"][index], number)
                macs = (GATEWAY_MAC, ROUTER_MAC)
                found[f"{family} {name} of the world to a2:{number}"] = packets.tcp(gateway, macs, *ends)
            for sender in ("b1", "c1"):
                for target in ("a1", "a2"):
                    ends = (addresses[sender][index], 1234), (addresses[target][index], number)
                    packet = packets.tcp(tunnel, (1, 2), *ends) | {f.TUN_ID: identities[sender]}
                    found[f"{family} {sender} to {target}:{number}"] = packet
        ends = (addresses["b1"][index], 1234), (addresses["a2"][index], 53)
        found[f"{family} UDP"] = packets.udp(tunnel, (1, 2), *ends) | {f.TUN_ID: identities["b1"]}
        for key in (*Identity, 0xABCDEF):
            ends = (addresses["b1"][index], 1234), (addresses["a2"][index], 80)
            found[f"{family} key {key:d}"] = packets.tcp(tunnel, (1, 2), *ends) | {f.TUN_ID: int(key)}
    return found


@pytest.mark.usefixtures("policies")
def test_the_interpreter_agrees_with_the_switch_about_policies(lab: Lab) -> None:
    stats = read_flows(lab, NODE)
    assert any(isinstance(action, Conjunction) for each in stats if each.flow for action in each.flow.program)
    ends = agree(lab, judged_cases(lab))
    # Some are let through by, and some end in, most tables of the tiers.
    last = {BY_NUMBER[tables[-1]].name for tables, left in ends if not left}
    assert last >= {"Policy", "EgressAdmin", "EgressPolicy", "IngressPolicy"} and any(left for _, left in ends)
