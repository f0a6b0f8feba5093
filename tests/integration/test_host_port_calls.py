"""One host port of several pods of a node, at different addresses and for different protocols; and who goes without."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest
from attribution import orphans
from callers import OUTSIDE, Outcome, call, names, to
from guests import Guest
from probes import HERE, PORT, addresses, inside, node_addresses, pod_netns, until
from test_spoofing import FRAMES, udp

from deploy.lab.cluster import Lab
from deploy.lab.layout import netns_path, pod_cidrs
from topology.naming import POD_MAC_PREFIX, gateway_addresses, mac_of

NODE, NUMBER = "node-2", 18090
#: A process that sends from an address of its choice, and one that waits for a datagram.
CALL = (
    "import socket, sys; link = socket.create_connection((sys.argv[2], int(sys.argv[3])), 3, (sys.argv[1], 0));"
    "link.sendall(b'hello\\n'); print(link.makefile().readline())"
)
LISTEN = (
    "import socket; link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); link.bind(('127.0.0.1', 4242));"
    "print('listening', flush=True); print(link.recv(99).decode(), flush=True)"
)
SEND = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'ours', ('127.0.0.1', 4242))"

Serve = Callable[..., Guest]


@pytest.fixture
def serve(lab: Lab) -> Iterator[Serve]:
    """Makes pods on node-2 that want a host port, and serve at the port that it leads to."""
    with contextlib.ExitStack() as stack:

        def make(name: str, host_ip: str = "", protocol: str = "TCP") -> Guest:
            guest = Guest(lab, name, NODE)
            stack.callback(guest.leave)
            guest.declare(ports=[{"containerPort": PORT, "hostPort": NUMBER, "hostIP": host_ip, "protocol": protocol}])
            guest.add()
            server = subprocess.Popen(
                ["nsenter", f"--net={netns_path(guest.netns)}", "--", "python3", "-I", "-S",
                 str(HERE / "line_server.py"), str(PORT)],
                env={**os.environ, "HOSTNAME": name},
            )  # fmt: skip
            stack.callback(server.wait)
            stack.callback(server.kill)
            return guest

        yield make


def rules(lab: Lab) -> str:
    return inside(lab.netns_of_node(NODE), ["nft", "list", "table", "inet", "signalbox"]).stdout


def reached(netns: str, address: str, kind: str = "tcp") -> Outcome:
    """The first answer, where the host and the server may only just have come."""
    found: list[Outcome] = []

    def done() -> bool:
        ((outcome,),) = call(netns, to(address, NUMBER, kind, timeout=0.5))
        found.append(outcome)
        return "name" in outcome

    until(done, f"{kind} {address}:{NUMBER} answers {netns}")
    return found[-1]


def test_one_number_is_had_by_a_pod_each_at_loopback_at_an_address_and_for_another_protocol(
    lab: Lab, serve: Serve
) -> None:
    own, own6 = node_addresses(lab, NODE)
    # As the conformance tests of Kubernetes have it, and one more.
    serve("by-loopback", "127.0.0.1")
    serve("by-address", own)
    serve("by-udp", own, "UDP")
    serve("by-ipv6", own6)
    lab.wait_for_sync()
    assert orphans(lab) == []
    node = lab.netns_of_node(NODE)
    ways = {"by-address": (own, "tcp"), "by-udp": (own, "udp"), "by-ipv6": (own6, "tcp")}

    # From the node itself: by loopback, from whichever address.
    gateway = gateway_addresses(pod_cidrs(lab.settings, lab.nodes.index(NODE)))[0]
    outcome = reached(node, "127.0.0.1")
    assert (outcome["name"], outcome["peer"]) == ("by-loopback", str(gateway))
    done = inside(node, ["python3", "-I", "-S", "-c", CALL, own, "127.0.0.1", str(NUMBER)])
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["name"], answer["peer"]) == ("by-loopback", own)

    # From everywhere: at the node's addresses, and who calls is seen.
    places = [node, lab.netns_of_node("node-1"), lab.layout.outside, pod_netns(lab, "a1"), pod_netns(lab, "b1")]
    for netns in places:
        for name, (address, kind) in ways.items():
            assert reached(netns, address, kind)["name"] == name
            ((*outcomes,),) = call(netns, to(address, NUMBER, kind, 3))
            assert names(outcomes) == {name: 3}, (netns, outcomes)
    for name, (address, kind) in ways.items():
        family = ":" in address
        assert reached(lab.layout.outside, address, kind)["peer"] == OUTSIDE[family], name
        assert reached(pod_netns(lab, "a1"), address, kind)["peer"] == addresses(lab, "a1")[family], name

    # Nowhere else.
    ((refused,),) = call(lab.netns_of_node("node-1"), to("127.0.0.1", NUMBER))
    assert refused.get("error") == "ECONNREFUSED"
    ((refused,),) = call(lab.layout.outside, to(own6, NUMBER, "udp", timeout=1))
    assert "error" in refused


def test_pods_get_nowhere_by_a_loopback_address_of_their_node(lab: Lab, serve: Serve) -> None:
    serve("by-loopback", "127.0.0.1")
    node = lab.netns_of_node(NODE)
    reached(node, "127.0.0.1")
    assert inside(node, ["sysctl", "-n", "net.ipv4.conf.sb-gw0.route_localnet"]).stdout.strip() == "1"
    listening = subprocess.Popen(
        ["nsenter", f"--net={netns_path(node)}", "--", "python3", "-I", "-S", "-c", LISTEN],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert listening.stdout is not None and listening.stdout.readline() == "listening\n"
        (source, _) = addresses(lab, "b1")
        mac = mac_of(POD_MAC_PREFIX, ip_address(source))
        frame = udp(mac, source, "127.0.0.1", "forbidden").hex()
        before = dropped(lab)
        assert not inside(pod_netns(lab, "b1"), ["python3", "-I", "-S", FRAMES, "send", frame]).returncode
        until(lambda: dropped(lab) > before, "the host has dropped it")
        inside(node, ["python3", "-I", "-S", "-c", SEND])
        assert listening.stdout.readline() == "ours\n"
    finally:
        listening.kill()
        listening.communicate()


def dropped(lab: Lab) -> int:
    """Packets for loopback addresses that the host has had from its switch."""
    (line,) = [line for line in rules(lab).splitlines() if "ip daddr 127.0.0.0/8" in line and "drop" in line]
    return int(line.split("packets ")[1].split()[0])


def test_who_comes_second_is_told_so_and_has_it_when_the_first_has_gone(lab: Lab, serve: Serve) -> None:
    (own, _) = node_addresses(lab, NODE)
    first = serve("first", own)
    serve("second")
    node = lab.netns_of_node(NODE)
    assert reached(lab.layout.outside, own)["name"] == "first"
    said = f"Pod guests/second: host port {NUMBER}/TCP is Pod guests/first's already on node {NODE}; choose another"
    until(lambda: said in lab.ask("status")["problems"], "it is told")
    first.leave()
    assert said not in lab.ask("status")["problems"]
    until(lambda: reached(lab.layout.outside, own)["name"] == "second", "the second has it")
    assert reached(node, own)["name"] == "second"
