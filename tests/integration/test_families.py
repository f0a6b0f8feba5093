"""Clusters of one family alone: nothing needs the other one, neither among pods nor between nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from guests import Guest
from linting import Record, established
from probes import inside, node_addresses, ping_all, pings

from deploy.lab.cluster import Lab, owner, settings_for
from deploy.lab.layout import WORLD

#: The tunnel's headers with the outer IP header of the family that nodes have.
_OVERHEAD = {("ipv4", "geneve"): 50, ("ipv6", "vxlan"): 70, ("ipv6", "gre"): 62}


@pytest.fixture(params=[("ipv4", "geneve"), ("ipv6", "vxlan"), ("ipv6", "gre")], ids="-".join)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two nodes; replaces the lab that other tests share."""
    family, encap = request.param
    here = Lab(f"f{os.getpid()}")
    assert not here.up(settings_for(here.layout.name, 2, encap=encap, ip_family=family, **owner(os.getpid())))
    try:
        yield here
    finally:
        here.down()


def test_everything_reaches_everything_in_a_cluster_of_one_family(lab: Lab, offload_record: Record) -> None:
    family = lab.settings.ip_family
    version = {"ipv4": 4, "ipv6": 6}[family]
    guests = [Guest(lab, f"pod{number}", node) for number, node in enumerate(["node-1", "node-1", "node-2"])]
    for guest in guests:
        guest.declare()
        result = guest.add()
        assert len(result["ips"]) == len(result["routes"]) == 1
        guest.call("CHECK", prevResult=result)
    pods = [guest.addresses[0] for guest in guests]
    nodes = [address for node in lab.nodes for address in node_addresses(lab, node)]
    assert {ip_address(each).version for each in (*pods, *nodes)} == {version}
    pairs = [(guest.netns, address) for guest in guests for address in (*pods, *nodes, WORLD[version == 6])]
    pairs += [(lab.netns_of_node(node), address) for node in lab.nodes for address in pods]
    assert not ping_all(pairs)
    mtu = 1500 - _OVERHEAD[family, lab.settings.encap]
    headers = 28 if version == 4 else 48
    assert f" mtu {mtu} " in inside(guests[0].netns, ["ip", "link", "show", "eth0"]).stdout
    assert pings(guests[0].netns, pods[2], size=mtu - headers) == 1
    assert pings(guests[0].netns, pods[2], size=mtu - headers + 1, wait=0.3) == 0
    pinged = [(guest.netns, address) for guest in guests for address in pods if address not in guest.addresses]
    found = established(lab, [], [*pinged, (guests[0].netns, nodes[1]), (lab.netns_of_node("node-2"), pods[0])])
    offload_record(f"{family} alone, {lab.settings.encap}", found)
    assert found.failed == [] and len(found.judged) > 20
    for guest in guests:
        guest.leave()
