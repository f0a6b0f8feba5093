"""Networks besides the cluster's, as Multus asks for them: a bridge of the node's own, VLANs, and a NIC's functions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from guests import Guest
from probes import addresses, answers, inside, pings, until
from stand_ins import StandIns

from deploy.lab import substrate
from deploy.lab.cluster import Lab
from deploy.lab.kubelet import CniFailure
from node.cni.spec import Code
from topology.naming import network_port_name

NODE = "node-3"
BRIDGE = "br-storage"


@pytest.fixture(scope="module")
def lab(offload_lab: Lab) -> Lab:
    return offload_lab


@pytest.fixture
def nic(lab: Lab) -> Iterator[StandIns]:
    words = ("add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev")
    substrate.vsctl(lab.layout, NODE, *words)
    here = StandIns(lab, NODE, 1)
    yield here
    here.remove()
    substrate.vsctl(lab.layout, NODE, "del-br", BRIDGE)


@pytest.fixture
def pods(lab: Lab) -> Iterator[list[Guest]]:
    here = [Guest(lab, f"storage-{number}", NODE) for number in range(3)]
    for each in here:
        each.declare()
        each.add()
    yield here
    for each in here:
        each.call("DEL", {"CNI_IFNAME": "net1"})
        each.leave()


def besides(address: str = "", vlan: int = 0, **more: Any) -> dict[str, Any]:
    ipam = {"ipam": {"type": "static", "addresses": [{"address": address}]}} if address else {}
    return {"name": "storage", "bridge": BRIDGE, "vlan": vlan, **ipam, **more}


def attach(pod: Guest, **config: Any) -> dict[str, Any]:
    return pod.call("ADD", {"CNI_IFNAME": "net1"}, **config)


def ports(pod: Guest) -> list[str]:
    return substrate.vsctl(pod.lab.layout, NODE, "list-ports", BRIDGE).split()


def link(netns: str, name: str) -> dict[str, Any]:
    (found,) = json.loads(inside(netns, ["ip", "-j", "link", "show", "dev", name]).stdout)
    return dict(found)


def test_pods_are_on_a_network_besides_with_mac_mtu_and_vlan(lab: Lab, nic: StandIns, pods: list[Guest]) -> None:
    first, second, third = pods
    mac = "02:00:5e:00:00:07"
    config = besides(
        "192.168.50.1/24",
        100,
        mtu=1400,
        deviceID=nic.pci(0),
        runtimeConfig={"mac": mac},
    )
    config["ipam"]["routes"] = [{"dst": "192.168.60.0/24", "gw": "192.168.50.9"}]
    result = attach(first, **config)
    assert result["interfaces"][1]["mac"] == mac and result["interfaces"][1]["pciID"] == nic.pci(0)
    assert result["ips"] == [{"interface": 1, "address": "192.168.50.1/24"}]
    assert result["routes"] == [{"dst": "192.168.60.0/24", "gw": "192.168.50.9"}]
    assert nic.left() == []
    assert (link(first.netns, "net1")["address"], link(first.netns, "net1")["mtu"]) == (mac, 1400)
    attach(second, **besides(vlan=100, runtimeConfig={"ips": ["192.168.50.2/24", "fd50::2/64"]}))
    attach(third, **besides("192.168.50.3/24", 200))
    until(lambda: pings(first.netns, "192.168.50.2") == 1, "they are in one VLAN")
    assert not pings(first.netns, "192.168.50.3", wait=0.3), "and the third in another"
    port = network_port_name(first.container, "net1")
    assert substrate.vsctl(lab.layout, NODE, "get", "port", port, "tag").strip() == "100"
    first.call("CHECK", {"CNI_IFNAME": "net1"}, prevResult=result, **config)
    # Neither is in the way of the other.
    answers(first.netns, addresses(lab, "a1")[0])
    first.call("CHECK", prevResult={"ips": [{"address": each} for each in first.addresses]})
    # Each of the two goes by itself.
    first.call("DEL", {"CNI_IFNAME": "net1"})
    assert nic.left() == nic.all()
    assert len(ports(first)) == 2
    answers(first.netns, addresses(lab, "a1")[0])
    second.call("DEL")
    assert len(ports(first)) == 2
    assert link(second.netns, "net1")["ifname"] == "net1"


def test_what_cant_be_attached_besides_is_said_and_leaves_nothing(lab: Lab, nic: StandIns, pods: list[Guest]) -> None:
    first, second, _ = pods

    def refused(code: Code, match: str, **config: Any) -> None:
        with pytest.raises(CniFailure, match=match) as failure:
            attach(first, **config)
        assert failure.value.code == code
        assert "net1" not in inside(first.netns, ["ip", "-br", "link"]).stdout
        assert nic.left() == nic.all()

    refused(Code.TRY_LATER, "there is no bridge br-nowhere", **besides(deviceID=nic.pci(0)) | {"bridge": "br-nowhere"})
    refused(Code.INVALID_CONFIG, "br-int is the cluster's own", **besides() | {"bridge": "br-int"})
    refused(Code.INVALID_CONFIG, "ipam.type: static, or no ipam; not 'dhcp'", **besides(), ipam={"type": "dhcp"})
    refused(Code.INVALID_CONFIG, "network.vlan: expected a number from 0 to 4094", **besides(vlan=4095))
    refused(Code.INVALID_CONFIG, "ipam, ips or mac", **besides("nowhere"))
    second.call("DEL")
    second.add(deviceID=nic.pci(0))
    with pytest.raises(CniFailure, match=f"pod guests/{second.name} has it"):
        attach(first, **besides(deviceID=nic.pci(0)))


def test_gc_and_an_agent_that_starts_clear_up_besides_too(lab: Lab, nic: StandIns, pods: list[Guest]) -> None:
    first, second, _ = pods
    attach(first, **besides("192.168.50.1/24", deviceID=nic.pci(0)))
    attach(second, **besides("192.168.50.2/24"))
    substrate.vsctl(lab.layout, NODE, "del-port", BRIDGE, network_port_name(first.container, "net1"))
    lab.stop_agent(NODE)
    lab.start_agent(NODE)
    lab.wait_for_agents()
    assert len(ports(first)) == 1
    first.call("DEL", {"CNI_IFNAME": "net1"})
    assert nic.left() == nic.all()
    known = json.loads(substrate.vsctl(lab.layout, NODE, "-f", "json", "--columns=external_ids", "list", "interface"))
    ids = [dict(row[0][1]) for row in known["data"]]
    valid = [
        {"containerID": each["signalbox/container"], "ifname": "eth0"} for each in ids if "signalbox/container" in each
    ]
    second.call("GC", dict.fromkeys(second.variables(), ""), **{"cni.dev/valid-attachments": valid})
    assert ports(second) == []
    assert "net1" not in inside(second.netns, ["ip", "-br", "link"]).stdout
