"""Pods whose interface is a virtual function of a NIC, by `deviceID`. Veth pairs stand in for NIC and functions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from callers import applied, service
from callers import row as row_of
from guests import NAMESPACE, Guest
from probes import (
    addresses,
    answers,
    echo,
    inside,
    node_addresses,
    ping_all,
    pings,
    pod_netns,
    until,
)
from stand_ins import PF, StandIns

from deploy.lab import substrate
from deploy.lab.cluster import Lab
from deploy.lab.kubelet import CniFailure
from deploy.lab.layout import WORLD
from node.cni.spec import Code
from topology.naming import PLACE_PORTS, pod_port_name

NODE = "node-2"


@pytest.fixture(scope="module")
def lab(offload_lab: Lab) -> Lab:
    return offload_lab


@pytest.fixture
def nic(lab: Lab) -> Iterator[StandIns]:
    here = StandIns(lab, NODE, 2)
    yield here
    here.remove()


@pytest.fixture
def pod(nic: StandIns, guest: Guest) -> Guest:
    guest.declare()
    return guest


def device(number: int, **more: object) -> dict[str, object]:
    return {"deviceID": StandIns.pci(number), **more}


def row(guest: Guest, column: str) -> str:
    words = ("get", "interface", pod_port_name(NAMESPACE, guest.name), column)
    return substrate.vsctl(guest.lab.layout, guest.node, *words).strip()


def link(netns: str, name: str) -> dict[str, Any]:
    (found,) = json.loads(inside(netns, ["ip", "-j", "link", "show", "dev", name]).stdout)
    return dict(found)


def rows(nic: StandIns) -> list[str]:
    return [each for each in substrate.vsctl(nic.lab.layout, nic.node, "list-ports", "br-int").split() if "pod" in each]


def test_a_pod_with_a_function_reaches_everything_and_is_reached(lab: Lab, nic: StandIns, pod: Guest) -> None:
    result = pod.add(runtimeConfig=device(0))
    port = pod_port_name(NAMESPACE, pod.name)
    assert nic.left() == ["rep1", "vf1"]
    assert port in nic.links()
    assert int(row(pod, "ofport")) in PLACE_PORTS
    assert result["interfaces"][0] == {"name": port}, "its MAC is its own"
    assert result["interfaces"][1]["pciID"] == StandIns.pci(0)
    assert [each["interface"] for each in result["ips"]] == [1, 1]
    pod.call("CHECK", prevResult=result, runtimeConfig=device(0))
    assert {link(pod.netns, "eth0")["mtu"], link(nic.netns, port)["mtu"]} == {1450}
    for other in ("a1", "b1", "c1"):
        ours, theirs = pod.addresses, addresses(lab, other)
        assert not ping_all([(pod.netns, each) for each in theirs])
        assert not ping_all([(pod_netns(lab, other), each) for each in ours])
        for told in echo(pod.netns, "tcp", theirs).values():
            assert told.get("peer") in ours, told
    for node in lab.nodes:
        assert not ping_all([(pod.netns, each) for each in node_addresses(lab, node)])
        assert not ping_all([(lab.layout.node_netns(node), each) for each in pod.addresses])
    with applied(lab, service("c1", selector={"app": "c1"})):
        for told in echo(pod.netns, "tcp", row_of(lab, "c1")["clusterIPs"], port=80).values():
            assert told.get("peer") in pod.addresses, told
    for each in WORLD:
        until(lambda each=each: pings(pod.netns, each) == 1, f"{each} answers")  # type: ignore[misc]
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed", "namespace": NAMESPACE},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    with applied(lab, policy):
        until(lambda: pings(pod_netns(lab, "a1"), pod.addresses[0], wait=0.2) == 0, "policies are about it, too")
    answers(pod_netns(lab, "a1"), pod.addresses[0])
    # As another than itself it says nothing.
    inside(pod.netns, ["ip", "link", "set", "eth0", "address", "0a:58:0a:f4:09:09"])
    assert not pings(pod.netns, addresses(lab, "a1")[0], wait=0.3)


def test_everything_is_given_back(lab: Lab, nic: StandIns, pod: Guest) -> None:
    before = {name: link(nic.netns, name)["address"] for name in nic.all()}
    others = rows(nic)
    for _ in range(2):
        pod.add(runtimeConfig=device(0))
        assert sorted(rows(nic)) != sorted(others)
    pod.add(runtimeConfig=device(1))
    assert nic.left() == ["rep0", "vf0"], "an ADD for a pod that has a function already gives that back"
    pod.call("DEL")
    assert nic.left() == nic.all()
    assert rows(nic) == others
    assert {name: link(nic.netns, name)["address"] for name in nic.all()} == before
    assert "signalbox" not in inside(nic.netns, ["ip", "link"]).stdout
    pod.call("DEL")
    pod.add()
    assert nic.left() == nic.all()
    answers(pod_netns(lab, "a1"), pod.addresses[0])


def test_the_device_is_where_multus_puts_it_and_is_written_down(nic: StandIns, pod: Guest, tmp_path: Path) -> None:
    info = tmp_path / "devinfo" / "pod.json"
    info.parent.mkdir()
    pod.add(deviceID=StandIns.pci(1), runtimeConfig={"CNIDeviceInfoFile": str(info)})
    assert nic.left() == ["rep0", "vf0"]
    told = json.loads(info.read_text())
    assert told["type"] == "pci"
    assert told["pci"] == {
        "pci-address": StandIns.pci(1),
        "representor-device": pod_port_name(NAMESPACE, pod.name),
    }


# Faults ---------------------------------------------------------------------------------------------------------------


def refused(pod: Guest, match: str, code: Code = Code.DEVICE, number: int = 0, **more: object) -> None:
    with pytest.raises(CniFailure, match=match) as failure:
        pod.add(runtimeConfig=device(number), **more)
    assert failure.value.code == code
    assert "eth0" not in inside(pod.netns, ["ip", "-br", "link"]).stdout


def test_a_function_that_a_pod_has_is_nobody_else_s(lab: Lab, nic: StandIns, pod: Guest) -> None:
    pod.add(runtimeConfig=device(0))
    other = Guest(lab, "other", NODE)
    try:
        other.declare()
        refused(other, f"deviceID 0000:03:00.2: pod {NAMESPACE}/{pod.name} has it")
        answers(pod_netns(lab, "a1"), pod.addresses[0])
    finally:
        other.leave()


def test_of_two_that_come_at_once_one_has_the_function(lab: Lab, nic: StandIns, pod: Guest) -> None:
    other = Guest(lab, "other", NODE)
    try:
        other.declare()

        def attach(guest: Guest) -> bool:
            try:
                guest.add(runtimeConfig=device(0))
            except CniFailure as failure:
                assert "has it" in str(failure) or "isn't on the host" in str(failure)
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(attach, (pod, other))) == [False, True]
        assert nic.left() == ["rep1", "vf1"]
    finally:
        other.leave()


def test_a_broken_tree_and_the_wrong_mode_are_said_and_leave_nothing(nic: StandIns, pod: Guest) -> None:
    refused(pod, "no such PCI device", number=5)
    switch = nic.device / "net/uplink0/phys_switch_id"
    told = switch.read_text()
    switch.unlink()
    refused(pod, f"NIC {PF} .mlx5_core. is in legacy mode.*devlink dev eswitch set")
    switch.write_text(told)
    (nic.device / "sriov_numvfs").write_text("?\n")
    refused(pod, "sriov_numvfs can't be read")
    (nic.device / "sriov_numvfs").write_text("2\n")
    (nic.device / "net/rep0/phys_port_name").write_text("pf0vf7\n")
    refused(pod, "has no representor of its virtual function 0")
    (nic.device / "net/rep0/phys_port_name").write_text("pf0vf0\n")
    assert nic.left() == nic.all()
    pod.add(runtimeConfig=device(0))


def test_what_fails_on_the_way_is_given_back(nic: StandIns, pod: Guest) -> None:
    inside(pod.netns, ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other"])
    with pytest.raises(CniFailure, match=r"function 0000:03:00\.2 to eth0"):
        pod.add(runtimeConfig=device(0))
    assert nic.left() == nic.all()
    inside(pod.netns, ["ip", "link", "del", "eth0"])
    # A program's function has its MAC from the NIC, which isn't there.
    (nic.root / "devices" / StandIns.pci(0) / "driver").unlink()
    (nic.root / "devices" / StandIns.pci(0) / "driver").symlink_to("../../bus/pci/drivers/vfio-pci")
    with pytest.raises(CniFailure, match=r"NIC 0000:03:00\.0 has no interface: is it being reset"):
        pod.add(runtimeConfig=device(0))
    assert nic.left() == nic.all()
    (nic.root / "devices" / StandIns.pci(0) / "driver").unlink()
    (nic.root / "devices" / StandIns.pci(0) / "driver").symlink_to("../../bus/pci/drivers/mlx5_core")
    # Nobody has heard of the pod: no flows come.
    for path in pod._written:
        path.unlink()
    pod.lab.wait_for_sync()
    with pytest.raises(CniFailure, match="no flows for pod"):
        pod.add(runtimeConfig=device(0))
    assert nic.left() == nic.all()


def test_an_agent_that_dies_leaves_nothing_that_cant_be_given_back(lab: Lab, nic: StandIns, pod: Guest) -> None:
    pod.add(runtimeConfig=device(0))
    # As it is where an agent dies before it writes the port's row: the two interfaces alone.
    substrate.vsctl(lab.layout, NODE, "del-port", "br-int", pod_port_name(NAMESPACE, pod.name))
    assert nic.left() == ["rep1", "vf1"]
    pod.call("DEL")
    lab.stop_agent(NODE)
    lab.start_agent(NODE)
    lab.wait_for_agents()
    assert nic.left() == nic.all()


def test_a_function_that_the_kernel_has_brought_back_gets_its_name_again(nic: StandIns, pod: Guest) -> None:
    pod.add(runtimeConfig=device(0))
    # What it does when a pod's namespace ends, under a name that is free.
    substrate.run(["ip", "-n", pod.netns, "link", "set", "eth0", "down", "name", "dev7"])
    substrate.run(["ip", "-n", pod.netns, "link", "set", "dev7", "netns", nic.netns])
    nets = nic.root / "devices" / StandIns.pci(0) / "net"
    (nets / "vf0").rename(nets / "dev7")
    pod.call("DEL")
    (nets / "dev7").rename(nets / "vf0")
    assert nic.left() == nic.all()
    assert "signalbox" not in inside(nic.netns, ["ip", "link"]).stdout


def test_a_nic_that_was_reset_is_told_of_and_the_pod_comes_back_by_another_add(
    lab: Lab, nic: StandIns, pod: Guest
) -> None:
    result = pod.add(runtimeConfig=device(0))
    nic.reset(0)

    def told() -> dict[str, Any]:
        return next(each for each in lab.ask("offload")["items"] if each["node"] == NODE)

    with pytest.raises(CniFailure, match=r"which is of 0000:03:00\.2: was its NIC reset\?") as failure:
        pod.call("CHECK", prevResult=result, runtimeConfig=device(0))
    assert failure.value.code == Code.IO
    lost = f"pod {NAMESPACE}/{pod.name} has lost its interface, of 0000:03:00.2: was the NIC reset? Delete the pod"
    until(lambda: told()["why"] == lost, "the node's report says it", timeout=30)
    reported = told()
    assert tuple(reported[each] for each in ("capable", "nics", "functionsUsed", "functions")) == (True, 1, 1, 2)
    # The lab's datapath is in userspace: nothing is in a NIC there.
    assert tuple(reported[each] for each in ("state", "enabled", "asked")) == ("Off", False, False)
    pod.add(runtimeConfig=device(0))
    answers(pod_netns(lab, "a1"), pod.addresses[0])
    nic.reset(0)
    pod.call("DEL")
    assert nic.left() == nic.all()


def test_a_pod_has_one_interface_on_the_network(lab: Lab, nic: StandIns, pod: Guest) -> None:
    pod.add(runtimeConfig=device(0))
    with pytest.raises(CniFailure, match="is on this network already, by eth0: a network besides has a bridge"):
        pod.call("ADD", {"CNI_IFNAME": "net1"}, runtimeConfig=device(1))
    assert nic.left() == ["rep1", "vf1"]
    answers(pod_netns(lab, "a1"), pod.addresses[0])


def test_a_socket_takes_dpdk(nic: StandIns, pod: Guest) -> None:
    with pytest.raises(CniFailure, match="vhostSocket: Open vSwitch has such ports with DPDK: --dpdk"):
        pod.add(vhostSocket="/run/vhost/pod.sock")
    with pytest.raises(CniFailure, match="vhostSocket: expected an absolute path"):
        pod.add(vhostSocket="pod.sock")
    with pytest.raises(CniFailure, match="deviceID: expected a string"):
        pod.add(deviceID=7)
