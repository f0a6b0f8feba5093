"""What a trace takes hosts to do: which packets they keep, send on by themselves, or hand to their switch."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from controller.trace.hosts import Bridged, Host, Kept, Sent, destination, told
from flows import fields as f
from flows import packets
from flows.tables import host as notes
from flows.values import Flow
from topology.model import Cluster, Node
from topology.naming import ENTRY_ADDRESSES, Address, gateway_addresses

SERVICES = [ip_network("10.96.0.0/16")]
NEAR, FAR = ip_network("172.30.0.0/24"), ip_network("172.30.1.0/24")
HERE, POD, WORLD = map(ip_address, ("172.30.0.1", "10.1.1.2", "192.0.2.1"))


def cluster() -> Cluster:
    found = Cluster()
    for number, address in enumerate(("172.30.0.1", "172.30.0.2", "172.30.1.3"), 1):
        found.put(
            Node(
                name=f"n{number}",
                addresses=(ip_address(address),),
                pod_cidrs=(ip_network(f"10.1.{number}.0/24"), ip_network(f"fd00:{number}::/64")),
            )
        )
    return found


def host(*flows: Flow) -> Host:
    return Host(cluster(), "n1", told(flows), SERVICES, range(30000, 32768))


def packet(target: Address, port: int = 80, source: Address = WORLD, make: Any = packets.tcp) -> dict[f.Field, int]:
    return dict(make(1, (1, 2), (source, 40000), (target, port)))


def entered(found: object) -> tuple[str, int]:
    """Where a packet is bound for that goes into the switch."""
    assert isinstance(found, Bridged), found
    return str(destination(found.packet)), found.packet.get(f.TCP_DST, found.packet.get(f.UDP_DST, 0))


def test_its_own_addresses_are_the_host_s_but_for_ports_that_lead_away() -> None:
    (entry, _) = ENTRY_ADDRESSES
    here = host(
        notes.port_flow("TCP", 8000, 0),
        notes.address_port_flow("TCP", 8001, HERE, (POD, 80), 0),
        notes.health_flow(32000, "default", "web", 1, 0),
    )
    assert here.way(packet(HERE)) == Kept()
    assert here.way(packet(gateway_addresses([ip_network("10.1.1.0/24")])[0])) == Kept()
    assert entered(here.way(packet(HERE, 31000))) == (str(entry), 31000)
    assert here.way(packet(HERE, 32000)) == Kept(), "a health check is the agent's to answer"
    assert entered(here.way(packet(HERE, 32000, make=packets.udp))) == (str(entry), 32000)
    assert entered(here.way(packet(HERE, 8000))) == (str(entry), 8000)
    assert entered(here.way(packet(HERE, 8001))) == (str(POD), 80)
    assert here.way(packet(HERE, 8000, make=packets.udp)) == Kept()


def test_what_it_asks_of_a_port_of_its_own_comes_from_the_gateway_s_address_and_others_keep_theirs() -> None:
    here = host(notes.port_flow("TCP", 8000, 0), notes.address_port_flow("TCP", 8001, HERE, (POD, 80), 0))
    gateway = ip_address("10.1.1.1")

    def seen(port: int, source: Address) -> Address:
        found = here.way(packet(HERE, port, source))
        assert isinstance(found, Bridged)
        return ip_address(found.packet[f.IPV4_SRC])

    assert [seen(port, HERE) for port in (31000, 8000)] == [gateway, gateway]
    assert [seen(port, source) for port in (31000, 8000) for source in (WORLD, FAR[3])] == [WORLD, FAR[3]] * 2
    # To the pod itself nothing stands between them.
    assert seen(8001, HERE) == HERE


def test_what_is_the_bridge_s_goes_there_and_other_nodes_and_the_world_do_not() -> None:
    lent = ip_address("198.51.100.7")
    here = host(notes.address_flow(lent, 0))
    for target in (POD, ip_address("10.1.3.9"), ip_address("fd00:2::9"), ip_address("10.96.0.1"), lent):
        assert entered(here.way(packet(target, source=HERE if target.version == 4 else ip_address("fd00::1")))) == (
            str(target),
            80,
        )
    other = packet(ip_address("172.30.1.3"), 31000)
    assert here.way(other) == Sent("n3", other)
    assert here.way(packet(WORLD)) == Sent("", packet(WORLD))


@pytest.mark.parametrize(("subnet", "routed"), [(None, True), (NEAR, True), (FAR, False)])
def test_pods_that_it_has_a_route_to_it_sends_to_their_node(subnet: Any, routed: bool) -> None:
    pods = ip_network("10.1.2.0/24")
    here = host(notes.route_flow(pods, ip_address("172.30.0.2"), subnet, 0))
    sent = packet(ip_address("10.1.2.9"))
    assert here.way(sent) == (Sent("n2", sent) if routed else Bridged(sent))
    assert here.way(packet(POD)) == Bridged(packet(POD))


def test_what_leaves_the_switch_for_another_node_is_masqueraded_unless_that_node_knows_pods() -> None:
    pods = ip_network("10.1.2.0/24")
    route = notes.route_flow(pods, ip_address("172.30.0.2"), None, 0)
    out = packet(ip_address("172.30.0.2"), source=POD)
    masked = host().beyond(out)
    assert masked is not None and masked.node == "n2" and masked.packet[f.IPV4_SRC] == int(HERE)
    assert host(route).beyond(out) == Sent("n2", out)
    assert host().beyond(packet(HERE, source=POD)) is None and host().beyond(packet(WORLD, source=POD)) is None
