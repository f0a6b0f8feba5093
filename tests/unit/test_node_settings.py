"""What a node is told, which address a pod gets, and the node's nftables rules."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import nftables
from node.interconnect import Interconnect
from node.nftables import HostPort
from node.places import ExhaustedError, next_place
from node.settings import Settings, SettingsError, port_range

V4, V6 = ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64")
GOOD: dict[str, Any] = {
    "name": "n1",
    "pod_cidrs": (V4, V6),
    "cluster_cidrs": (ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/48")),
    "node_ips": (ip_address("192.0.2.11"),),
    "controllers": ("tcp:192.0.2.1:6653",),
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pod_cidrs": ()}, "--pod-cidr: give one CIDR for each family in use, not none"),
        ({"pod_cidrs": (V4, ip_network("10.244.2.0/24"))}, "--pod-cidr: give one CIDR for each family"),
        ({"cluster_cidrs": (ip_network("10.244.0.0/16"),)}, "--pod-cidr fd00:10:244:1::/64 is in no --cluster-cidr"),
        ({"pod_cidrs": (ip_network("10.9.0.0/24"), V6)}, "--pod-cidr 10.9.0.0/24 is in no --cluster-cidr"),
        ({"node_ips": ()}, "--node-ip: at least one"),
        ({"controllers": ()}, "--controller: at least one"),
    ],
)
def test_a_setting_that_can_t_be_is_named_with_its_option(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as problem:
        Settings(**{**GOOD, **change})
    assert said in str(problem.value)


def test_pods_get_the_underlay_s_mtu_less_the_encapsulation_of_its_family() -> None:
    left = {
        (mode, encap, version): Settings(**GOOD).pod_mtu(1500, Interconnect(mode, encap).overhead(version))
        for mode, encap in (("overlay", "vxlan"), ("overlay", "geneve"), ("hybrid", "gre"), ("routed", "gre"))
        for version in (4, 6)
    }
    assert left == {
        ("overlay", "vxlan", 4): 1450,
        ("overlay", "vxlan", 6): 1430,
        ("overlay", "geneve", 4): 1450,
        ("overlay", "geneve", 6): 1430,
        ("hybrid", "gre", 4): 1458,
        ("hybrid", "gre", 6): 1438,
        ("routed", "gre", 4): 1500,
        ("routed", "gre", 6): 1500,
    }
    assert Settings(**GOOD, mtu=1400).pod_mtu(1500, 50) == 1400


def test_an_mtu_that_ipv6_can_t_live_with_is_refused_with_the_remedy() -> None:
    with pytest.raises(
        SettingsError, match=r"an MTU of 1250, and IPv6 needs 1280: raise the underlay's MTU \(it is 1300\)"
    ):
        Settings(**GOOD).pod_mtu(1300, 50)
    alone = {**GOOD, "pod_cidrs": (V4,)}
    assert Settings(**alone).pod_mtu(1300, 50) == 1250


def test_the_first_place_is_after_the_gateway_s() -> None:
    assert next_place((V4, V6), set(), 0) == 2


def test_places_go_round_before_one_is_given_again() -> None:
    small = (ip_network("10.0.0.0/29"),)
    last, given_out = 0, []
    for _ in range(8):
        last = next_place(small, set(), last)
        given_out.append(last)
    assert given_out == [2, 3, 4, 5, 2, 3, 4, 5]


@given(st.sets(st.integers(0, 20)), st.integers(0, 30))
def test_a_place_that_is_taken_is_never_given(taken: set[int], last: int) -> None:
    small = (ip_network("10.0.0.0/28"),)
    try:
        place = next_place(small, taken, last)
    except ExhaustedError as error:
        assert taken >= set(range(2, 14)) and "10.0.0.0/28: 12 pods" in str(error)
    else:
        assert place in range(2, 15) and place not in taken


RULES = nftables.rules(
    GOOD["cluster_cidrs"], (30000, 32767), [HostPort("TCP", 8443), HostPort("UDP", 53, "192.0.2.11")], [30100]
)


def test_only_what_leaves_the_cluster_and_what_a_node_asks_of_itself_is_masqueraded() -> None:
    assert [line.strip() for line in RULES.splitlines() if "masquerade" in line] == [
        'oifname != "sb-gw0" ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 counter masquerade',
        'oifname != "sb-gw0" ip6 saddr fd00:10:244::/48 ip6 daddr != fd00:10:244::/48 counter masquerade',
        'oifname != "sb-gw0" ip saddr 169.254.91.1 counter masquerade',
        'oifname != "sb-gw0" ip6 saddr fd5b:91::1 counter masquerade',
        'oifname "sb-gw0" ip saddr 127.0.0.0/8 counter masquerade',
        'oifname "sb-gw0" ip daddr 169.254.91.2 fib saddr type local counter masquerade',
        'oifname "sb-gw0" ip6 daddr fd5b:91::2 fib saddr type local counter masquerade',
    ]


def test_pods_are_known_by_their_own_addresses_to_nodes_that_they_reach_by_their_host() -> None:
    nodes = [ip_address(each) for each in ("192.0.2.12", "192.0.2.11", "2001:db8::11")]
    rules = nftables.rules(GOOD["cluster_cidrs"], (30000, 32767), nodes=nodes, routed=nodes[:2])
    four, six = (f'oifname != "sb-gw0" {pods}' for pods in ("ip saddr 10.244.0.0/16", "ip6 saddr fd00:10:244::/48"))
    among = "{ 192.0.2.11, 192.0.2.12 }"
    lines = [line.strip() for line in rules.splitlines()]
    assert [line for line in lines if line.startswith((four, six))] == [
        f"{four} ip daddr {among} tcp flags & (syn | ack) != syn return",
        f"{four} ip daddr != 10.244.0.0/16 ip daddr != {among} counter masquerade",
        f"{six} ip6 daddr {{ 2001:db8::11 }} tcp flags & (syn | ack) != syn return",
        f"{six} ip6 daddr != fd00:10:244::/48 counter masquerade",
    ]


def test_node_ports_and_host_ports_lead_into_the_switch_and_health_checks_don_t() -> None:
    lines = [line.strip() for line in RULES.splitlines() if "dnat" in line or "dport" in line]
    assert lines == [
        "tcp dport { 30100 } return",
        "meta nfproto ipv4 meta l4proto { tcp, udp, sctp } th dport 30000-32767 dnat ip to 169.254.91.2",
        "meta nfproto ipv4 meta l4proto . th dport { tcp . 8443 } dnat ip to 169.254.91.2",
        "ip daddr 192.0.2.11 udp dport 53 dnat ip to 169.254.91.2",
        "meta nfproto ipv6 meta l4proto { tcp, udp, sctp } th dport 30000-32767 dnat ip6 to fd5b:91::2",
        "meta nfproto ipv6 meta l4proto . th dport { tcp . 8443 } dnat ip6 to fd5b:91::2",
    ]


def test_host_ports_of_one_address_lead_to_the_pod_and_those_of_loopback_only_from_the_node_itself() -> None:
    ports = [
        HostPort("TCP", 30080, "192.0.2.11", "10.244.1.3", 80),
        HostPort("TCP", 30080, "127.0.0.1", "10.244.1.2", 80),
        HostPort("UDP", 53, "2001:db8::b", "fd00:10:244:1::2", 5353),
    ]
    chains = nftables.rules(GOOD["cluster_cidrs"], (30000, 32767), ports).split("  chain ")
    entry, output, refuse = (
        next(each.splitlines() for each in chains if each.startswith(name)) for name in ("entry", "output", "refuse")
    )
    assert [line.strip() for line in entry if "dnat" in line][:2] == [
        "ip daddr 192.0.2.11 tcp dport 30080 dnat ip to 10.244.1.3:80",
        "ip6 daddr 2001:db8::b udp dport 53 dnat ip6 to [fd00:10:244:1::2]:5353",
    ]
    assert [line.strip() for line in output[2:4]] == [
        "ip daddr 127.0.0.1 tcp dport 30080 dnat ip to 10.244.1.2:80",
        "jump entry",
    ]
    assert not any("127.0.0.1" in line for line in entry)
    assert "    ip daddr 127.0.0.0/8 counter drop" in refuse


@pytest.mark.parametrize("text", ["", "1", "5-4", "0-9", "a-b", "1-70000"])
def test_a_port_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="give two ports"):
        port_range("--service-node-port-range", text)
