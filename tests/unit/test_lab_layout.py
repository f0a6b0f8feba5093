"""A lab's names and addresses, and what can't be one."""

from __future__ import annotations

import shutil
from ipaddress import ip_address, ip_network

import pytest

from deploy.lab import substrate
from deploy.lab.layout import (
    LabError,
    LabSettings,
    Layout,
    controller_addresses,
    node_addresses,
    node_manifest,
    outside_addresses,
    pod_cidrs,
    router_addresses,
    segment_networks,
    segment_of,
)

SETTINGS = LabSettings(name="lab", nodes={"node-1": {}, "node-2": {"zone": "a"}})


@pytest.mark.parametrize("name", ["", "Lab", "a_b", "-a", "a-", "a" * 21, "a/b", "..", "a b"])
def test_a_name_that_can_t_be_a_lab_s_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="lower-case letters, digits and dashes"):
        Layout(name)


def test_labs_whose_names_begin_alike_don_t_own_each_other_s_namespaces() -> None:
    one, other = Layout("lab"), Layout("lab-2")
    for netns in (other.net, other.outside, other.node_netns("n"), other.pod_netns("default", "p")):
        assert other.owns(netns) and not one.owns(netns)


def test_a_pod_s_namespace_has_a_name_that_a_file_can_have() -> None:
    layout = Layout("a" * 20)
    long, other = layout.pod_netns("n" * 63, "p" * 253), layout.pod_netns("n" * 63, "p" * 252 + "q")
    assert max(len(long), len(other)) <= 255 and long != other
    assert layout.pod_netns("default", "web-0").endswith(".default.web-0")


def test_a_node_s_name_leaves_room_for_its_sockets() -> None:
    Layout("lab").check_node("ip-10-0-0-1.eu-central-1.compute.internal")
    with pytest.raises(LabError, match=r"is too long for a lab: use one that is \d+ characters shorter"):
        Layout("lab").check_node("n" * 100)


def test_nodes_and_pods_have_addresses_by_the_node_s_place() -> None:
    assert node_addresses(SETTINGS, 1) == (ip_address("172.30.0.2"), ip_address("fd00:172:30::2"))
    assert outside_addresses(SETTINGS) == (ip_address("172.30.0.254"), ip_address("fd00:172:30::fe"))
    assert pod_cidrs(SETTINGS, 0) == (ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64"))
    assert pod_cidrs(SETTINGS, 15)[1] == ip_network("fd00:10:244:10::/64")


def test_pod_networks_that_are_too_small_are_refused() -> None:
    small = LabSettings(name="lab", nodes={}, pods=("10.244.0.0/23", "fd00:10:244::/48"))
    assert pod_cidrs(small, 0)
    with pytest.raises(LabError, match="too small for 2 nodes"):
        pod_cidrs(small, 1)


def test_a_node_is_described_as_kubernetes_would() -> None:
    manifest = node_manifest(SETTINGS, "node-2", 1)
    assert manifest["metadata"] == {
        "name": "node-2",
        "labels": {"kubernetes.io/hostname": "node-2", "zone": "a"},
    }
    assert manifest["spec"] == {"podCIDRs": ["10.244.2.0/24", "fd00:10:244:2::/64"]}


def test_missing_programs_are_named_by_the_packages_that_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"ip", "nsenter", "ovs-vsctl"}
    monkeypatch.setattr(substrate.os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda program: f"/bin/{program}" if program in there else None)
    with pytest.raises(LabError) as problem:
        substrate.check_machine()
    assert str(problem.value) == (
        "missing programs: apt-get install ethtool nftables openvswitch-common openvswitch-switch"
    )


def test_ovs_appctl_is_told_where_the_node_s_switch_is_unless_it_has_been() -> None:
    there = "--target=/run/signalbox/lab/lab/nodes/node-1/vswitchd.ctl"

    def directed(*words: str) -> list[str]:
        return substrate.directed(Layout("lab"), "node-1", words)

    assert directed("ovs-appctl", "version") == ["ovs-appctl", there, "version"]
    assert directed("ovs-appctl", "-t", "ovsdb-server", "version") == ["ovs-appctl", "-t", "ovsdb-server", "version"]
    assert directed("ovs-ofctl", "-t", "x") == ["ovs-ofctl", "-t", "x"]


def test_nodes_on_several_segments_have_addresses_of_theirs_and_a_router_that_no_node_is() -> None:
    settings = LabSettings(name="lab", nodes={f"node-{number}": {} for number in range(1, 6)}, segments=2)
    assert [segment_of(settings, index) for index in range(5)] == [0, 0, 0, 1, 1]
    assert [str(node_addresses(settings, index)[0]) for index in range(5)] == [
        "172.30.0.1", "172.30.0.2", "172.30.0.3", "172.30.1.4", "172.30.1.5",
    ]  # fmt: skip
    for number in range(2):
        networks = segment_networks(settings, number)
        for address, network in zip(router_addresses(settings, number), networks, strict=True):
            assert address in network
    taken = [*outside_addresses(settings), *controller_addresses(settings), *router_addresses(settings, 0)]
    assert len(set(taken)) == len(taken)
