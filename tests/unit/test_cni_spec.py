"""CNI requests as they come in and results as they go out, by the specification's versions."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.cni.spec import Attachment, Besides, CniError, Code, PortMapping, device_info, error, parse, result
from node.limits import Bandwidth, Limit

ENV = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "abc123",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0",
}
CONFIG = {"cniVersion": "1.1.0", "name": "signalbox", "type": "signalbox-cni"}
MADE = Attachment(
    host_name="pod1",
    host_mac=0x0A590AF40107,
    ifname="eth0",
    mac=0x0A580AF40107,
    mtu=1450,
    netns=Path("/run/netns/x"),
    addresses=(ip_address("10.244.1.7"), ip_address("fd00:10:244:1::7")),
    pod_cidrs=(ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64")),
    gateways=(ip_address("10.244.1.1"), ip_address("fd00:10:244:1::1")),
)


def test_an_add_is_read_in_full() -> None:
    request = parse(ENV, CONFIG)
    assert (request.command, request.version, request.network) == ("ADD", "1.1.0", "signalbox")
    assert (request.container, request.netns, request.ifname) == ("abc123", Path("/run/netns/x"), "eth0")
    assert (request.namespace, request.pod) == ("shop", "web-0")


@pytest.mark.parametrize(
    ("env", "config", "code", "said"),
    [
        ({}, {"cniVersion": "0.3.1"}, Code.INCOMPATIBLE_VERSION, "supported are 0.4.0, 1.0.0, 1.1.0"),
        ({}, {"cniVersion": None}, Code.INCOMPATIBLE_VERSION, "supported are"),
        ({"CNI_COMMAND": "JUMP"}, {}, Code.INVALID_ENVIRONMENT, "CNI_COMMAND 'JUMP'"),
        ({"CNI_COMMAND": "GC"}, {"cniVersion": "1.0.0"}, Code.INVALID_ENVIRONMENT, "unknown in version 1.0.0"),
        ({"CNI_COMMAND": "STATUS"}, {"cniVersion": "0.4.0"}, Code.INVALID_ENVIRONMENT, "unknown in version 0.4.0"),
        ({"CNI_CONTAINERID": ""}, {}, Code.INVALID_ENVIRONMENT, "CNI_CONTAINERID: required for ADD"),
        ({"CNI_CONTAINERID": "../etc"}, {}, Code.INVALID_ENVIRONMENT, "not a container's id"),
        ({"CNI_IFNAME": "sixteen-letters-"}, {}, Code.INVALID_ENVIRONMENT, "not an interface's name"),
        ({"CNI_IFNAME": "a/b"}, {}, Code.INVALID_ENVIRONMENT, "not an interface's name"),
        ({"CNI_IFNAME": "lo"}, {}, Code.INVALID_ENVIRONMENT, "not an interface's name"),
        ({"CNI_ARGS": "rubbish"}, {}, Code.INVALID_ENVIRONMENT, "'rubbish' is not NAME=VALUE"),
        ({"CNI_ARGS": ""}, {}, Code.INVALID_ENVIRONMENT, "K8S_POD_NAMESPACE and K8S_POD_NAME"),
        ({}, {"name": ""}, Code.INVALID_CONFIG, "name: "),
        ({}, {"prevResult": "x"}, Code.INVALID_CONFIG, "prevResult: expected an object"),
        ({"CNI_COMMAND": "CHECK"}, {}, Code.INVALID_CONFIG, "prevResult: required for CHECK"),
        ({"CNI_COMMAND": "GC"}, {}, Code.INVALID_CONFIG, "cni.dev/valid-attachments: required for GC"),
        (
            {"CNI_COMMAND": "GC"},
            {"cni.dev/valid-attachments": [{"ifname": "eth0"}]},
            Code.INVALID_CONFIG,
            "containerID",
        ),
    ],
)
def test_what_is_wrong_with_a_request_is_named(
    env: dict[str, str], config: dict[str, Any], code: Code, said: str
) -> None:
    with pytest.raises(CniError) as problem:
        parse({**ENV, **env}, {**CONFIG, **config})
    assert problem.value.code == code
    assert said in problem.value.text


def test_a_configuration_that_is_no_object_can_t_be_decoded() -> None:
    with pytest.raises(CniError) as problem:
        parse(ENV, ["x"])
    assert problem.value.code == Code.DECODE


def test_a_del_needs_neither_namespace_nor_pod() -> None:
    request = parse({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "abc", "CNI_IFNAME": "eth0"}, CONFIG)
    assert request.netns is None and request.pod == ""


def test_gc_knows_what_is_to_stay() -> None:
    config = {**CONFIG, "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]}
    assert parse({"CNI_COMMAND": "GC"}, config).attachments == {("a", "eth0")}


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_a_result_has_its_version_s_shape(version: str) -> None:
    told = result(MADE, version)
    host, pod = told["interfaces"]
    assert host == {"name": "pod1", "mac": "0a:59:0a:f4:01:07"}
    assert (pod["name"], pod["mac"], pod["sandbox"]) == ("eth0", "0a:58:0a:f4:01:07", "/run/netns/x")
    assert pod.get("mtu") == (1450 if version == "1.1.0" else None)
    v4, v6 = told["ips"]
    assert (v4["address"], v4["gateway"], v4["interface"]) == ("10.244.1.7/24", "10.244.1.1", 1)
    assert (v6["address"], v6["gateway"]) == ("fd00:10:244:1::7/64", "fd00:10:244:1::1")
    assert (v4.get("version"), v6.get("version")) == (("4", "6") if version == "0.4.0" else (None, None))
    assert told["routes"] == [
        {"dst": "0.0.0.0/0", "gw": "10.244.1.1"},
        {"dst": "::/0", "gw": "fd00:10:244:1::1"},
    ]


def test_an_error_has_the_specification_s_keys() -> None:
    told = error(CniError(Code.TRY_LATER, "not yet", "because"), "1.0.0")
    assert told == {"cniVersion": "1.0.0", "code": 11, "msg": "not yet", "details": "because"}
    assert "details" not in error(CniError(Code.IO, "broken"), "1.1.0")


# Capabilities ---------------------------------------------------------------------------------------------------------

NO_BURST = 2**31 - 1


def told(**capabilities: Any) -> dict[str, Any]:
    return {**CONFIG, "runtimeConfig": capabilities}


@pytest.mark.parametrize(
    ("bandwidth", "expected"),
    [
        ({}, Bandwidth()),
        ({"ingressRate": 0, "ingressBurst": 0}, Bandwidth()),
        ({"ingressRate": 10**7, "ingressBurst": NO_BURST}, Bandwidth(ingress=Limit(10**7, 10**7))),
        ({"egressRate": 10**7}, Bandwidth(egress=Limit(10**7, 10**7))),
        ({"egressRate": 10**7, "egressBurst": 10**6}, Bandwidth(egress=Limit(10**7, 10**6))),
        ({"egressRate": 1000, "egressBurst": 1}, Bandwidth(egress=Limit(1000, 65536 * 8))),
    ],
)
def test_a_burst_is_a_second_at_most_and_one_large_packet_at_least(
    bandwidth: dict[str, int], expected: Bandwidth
) -> None:
    assert parse(ENV, told(bandwidth=bandwidth)).bandwidth == expected


def test_port_mappings_are_those_with_a_host_port() -> None:
    mappings = [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
        {"hostPort": 53, "containerPort": 53, "protocol": "UDP", "hostIP": "192.0.2.1"},
        {"hostPort": 81, "containerPort": 81, "hostIP": "::"},
        {"hostPort": 0, "containerPort": 82, "protocol": "tcp"},
    ]
    assert parse(ENV, told(portMappings=mappings)).port_mappings == (
        PortMapping("TCP", 8080, 80),
        PortMapping("UDP", 53, 53, "192.0.2.1"),
        PortMapping("TCP", 81, 81),
    )


@pytest.mark.parametrize(
    ("capabilities", "said"),
    [
        ({"bandwidth": 5}, "bandwidth: expected an object"),
        ({"bandwidth": {"ingressRate": -1}}, "bandwidth.ingressRate: expected a number"),
        ({"bandwidth": {"ingressRate": True}}, "bandwidth.ingressRate: expected a number"),
        ({"bandwidth": {"egressRate": 2**63}}, "bandwidth.egressRate: expected a number"),
        ({"bandwidth": {"egressRate": 999}}, "bandwidth.egressRate: at least 1000"),
        ({"bandwidth": {"egressBurst": 1}}, "bandwidth.egressBurst: there is no egressRate"),
        ({"portMappings": {}}, "portMappings: expected a list"),
        ({"portMappings": [5]}, "portMappings: expected a list of objects"),
        ({"portMappings": [{"hostPort": 65536}]}, "portMappings.hostPort: expected a number from 0 to 65535"),
        ({"portMappings": [{"hostPort": 1, "protocol": "icmp"}]}, "portMappings.protocol: 'ICMP'"),
        ({"portMappings": [{"hostPort": 1, "hostIP": "nowhere"}]}, "portMappings.hostIP"),
    ],
)
def test_a_capability_that_makes_no_sense_is_named_for_add_and_no_matter_for_del(
    capabilities: dict[str, Any], said: str
) -> None:
    with pytest.raises(CniError) as problem:
        parse(ENV, told(**capabilities))
    assert problem.value.code == Code.INVALID_CONFIG and said in problem.value.text
    assert parse({**ENV, "CNI_COMMAND": "DEL"}, told(**capabilities)).bandwidth == Bandwidth()


# Devices, and networks besides ----------------------------------------------------------------------------------------


def test_a_device_is_taken_from_either_place_and_is_no_matter_for_del() -> None:
    assert parse(ENV, {**CONFIG, "deviceID": "0000:03:00.2"}).device == "0000:03:00.2"
    assert parse(ENV, told(deviceID="0000:03:00.3") | {"deviceID": "0000:03:00.2"}).device == "0000:03:00.3"
    assert parse(ENV, {**CONFIG, "vhostSocket": "/run/x.sock"}).vhost_socket == "/run/x.sock"
    assert parse({**ENV, "CNI_COMMAND": "DEL"}, told(deviceID=7) | {"bridge": 5, "vhostSocket": 9}).device == ""


def test_a_network_besides_has_what_the_runtime_says_before_what_the_configuration_does() -> None:
    config = {
        **CONFIG,
        "bridge": "br-storage",
        "vlan": 100,
        "mtu": 9000,
        "ipam": {
            "type": "static",
            "addresses": [{"address": "192.168.50.1/24"}],
            "routes": [{"dst": "192.168.60.0/24", "gw": "192.168.50.9"}, {"dst": "fd60::/64"}],
        },
    }
    besides = parse(ENV, config).besides
    assert besides == Besides(
        bridge="br-storage",
        vlan=100,
        mtu=9000,
        addresses=((ip_address("192.168.50.1"), ip_network("192.168.50.0/24")),),
        routes=(
            (ip_network("192.168.60.0/24"), ip_address("192.168.50.9")),
            (ip_network("fd60::/64"), None),
        ),
    )
    said = {"ips": ["192.168.50.7/24", "fd50::7/64"], "mac": "02:00:5e:00:00:07"}
    besides = parse(ENV, {**config, "runtimeConfig": said}).besides
    assert besides is not None
    assert [str(address) for address, _ in besides.addresses] == ["192.168.50.7", "fd50::7"]
    assert besides.mac == 0x02_00_5E_00_00_07
    assert parse(ENV, CONFIG).besides is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["static", "10.0.0.1/8", "::/0"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["address", "dst", "gw", "type", "addresses", "routes"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["bridge", "vlan", "mtu", "ipam", "deviceID", "vhostSocket"]), _JSON),
    st.dictionaries(st.sampled_from(["ips", "mac", "deviceID", "CNIDeviceInfoFile"]), _JSON),
)
def test_whatever_a_network_attachment_says_is_understood_or_refused(
    config: dict[str, Any], said: dict[str, Any]
) -> None:
    with contextlib.suppress(CniError):
        parse(ENV, {**CONFIG, **config, "runtimeConfig": said})


def test_device_information_is_as_its_specification_has_it() -> None:
    attachment = msgspec.structs.replace(MADE, device="0000:03:00.2")
    assert device_info(attachment, "pod1") == {
        "type": "pci",
        "version": "1.1.0",
        "pci": {"pci-address": "0000:03:00.2", "representor-device": "pod1"},
    }
    socket = msgspec.structs.replace(MADE, vhost_socket="/run/x.sock")
    assert device_info(socket, "")["vhost-user"] == {"mode": "client", "path": "/run/x.sock"}
    assert result(attachment, "1.1.0")["interfaces"][1]["pciID"] == "0000:03:00.2"
    assert "pciID" not in result(attachment, "1.0.0")["interfaces"][1]
