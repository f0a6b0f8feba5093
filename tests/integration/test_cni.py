"""The CNI plugin as a container runtime meets it: specification 1.1, and 0.4.0 and 1.0.0 as they were."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest
from guests import NAMESPACE, Guest
from probes import addresses, inside, ping_all, pings, pod_netns

from deploy.lab import kubelet, substrate
from deploy.lab.cluster import Lab
from deploy.lab.kubelet import CniFailure
from node.cni.spec import Code


@pytest.fixture
def pod(guest: Guest) -> Iterator[Guest]:
    """A guest that the controller knows."""
    guest.declare()
    return guest


def code_of(call: Any, *args: Any, **kwargs: Any) -> int:
    with pytest.raises(CniFailure) as failure:
        call(*args, **kwargs)
    return failure.value.code


def links(guest: Guest) -> str:
    return substrate.run(["ip", "-n", guest.lab.layout.node_netns(guest.node), "-o", "link", "show", "type", "veth"])


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_add_answers_in_the_version_that_was_asked_for(lab: Lab, pod: Guest, version: str) -> None:
    result = pod.add(cniVersion=version)
    assert result["cniVersion"] == version
    assert [each.get("version") for each in result["ips"]] == (["4", "6"] if version == "0.4.0" else [None, None])
    assert ("mtu" in result["interfaces"][1]) == (version == "1.1.0")
    shown = inside(pod.netns, ["ip", "-o", "addr", "show", "dev", "eth0", "scope", "global"]).stdout
    for each in result["ips"]:
        assert each["address"] in shown
        assert ip_interface(each["address"]).network.prefixlen in (24, 64)
        assert pings(pod_netns(lab, "a1"), each["address"].partition("/")[0]) == 1
    assert {each["dst"] for each in result["routes"]} == {"0.0.0.0/0", "::/0"}


def test_version_lists_what_is_spoken(pod: Guest) -> None:
    assert pod.call("VERSION")["supportedVersions"] == ["0.4.0", "1.0.0", "1.1.0"]


def test_a_pod_can_talk_the_moment_add_returns(lab: Lab, pod: Guest) -> None:
    for _ in range(5):
        pod.add()
        assert pings(pod.netns, addresses(lab, "b1")[0]) == 1
        pod.call("DEL")


def test_add_again_for_the_same_pod_replaces_its_interface(lab: Lab, pod: Guest) -> None:
    first = pod.add()
    before = len(links(pod).splitlines())
    again = pod.add()
    assert len(links(pod).splitlines()) == before
    assert again["interfaces"][0]["name"] == first["interfaces"][0]["name"]
    assert pings(pod_netns(lab, "a1"), pod.addresses[0]) == 1


def test_check_passes_while_the_pod_is_whole_and_says_what_is_missing(pod: Guest) -> None:
    result = pod.add()
    assert pod.call("CHECK", prevResult=result) == {}
    other = {**result, "ips": [{**result["ips"][0], "address": "10.244.2.250/24"}, result["ips"][1]]}
    assert code_of(pod.call, "CHECK", prevResult=other) == Code.IO
    gateway = result["ips"][1]["gateway"]
    for break_it, mend_it, said in (
        ("link set eth0 mtu 1300", "link set eth0 mtu 1450", "MTU of 1300, not 1450"),
        ("-6 route del default", f"-6 route add default via {gateway} dev eth0", f"no default route by {gateway}"),
    ):
        inside(pod.netns, ["ip", *break_it.split()])
        with pytest.raises(CniFailure, match=said):
            pod.call("CHECK", prevResult=result)
        inside(pod.netns, ["ip", *mend_it.split()])
        pod.call("CHECK", prevResult=result)
    inside(pod.netns, ["ip", "addr", "del", result["ips"][0]["address"], "dev", "eth0"])
    with pytest.raises(CniFailure, match=pod.addresses[0]):
        pod.call("CHECK", prevResult=result)
    pod.call("DEL")
    assert code_of(pod.call, "CHECK", prevResult=result) == Code.UNKNOWN_CONTAINER
    assert code_of(pod.call, "CHECK") == Code.INVALID_CONFIG


def test_del_is_idempotent_also_without_a_namespace_and_for_the_unknown(lab: Lab, pod: Guest) -> None:
    pod.add()
    port = lab.layout.pod_netns(NAMESPACE, pod.name)
    assert port == pod.netns
    substrate.remove_namespace(pod.netns)
    for _ in range(2):
        assert pod.call("DEL", {"CNI_NETNS": ""}) == {}
    assert pod.call("DEL", {"CNI_CONTAINERID": "never-heard-of"}) == {}
    assert pings(pod_netns(lab, "a1"), pod.addresses[0], wait=0.3) == 0


def test_del_of_another_container_leaves_the_pod_that_is_there(lab: Lab, pod: Guest) -> None:
    """A runtime that makes a pod's sandbox anew deletes the old one late."""
    pod.add()
    pod.call("DEL", {"CNI_CONTAINERID": "the-sandbox-before"})
    assert pings(pod_netns(lab, "a1"), pod.addresses[0]) == 1


def test_gc_removes_what_is_not_listed_and_nothing_else(lab: Lab, pod: Guest) -> None:
    pod.add()
    stays = [each for each in kubelet.running(lab.layout).values() if each.node == pod.node and not each.host_network]
    valid = [{"containerID": each.container, "ifname": "eth0"} for each in stays]
    mine = {"containerID": pod.container, "ifname": "eth0"}
    variables = {"CNI_CONTAINERID": "", "CNI_NETNS": "", "CNI_IFNAME": "", "CNI_ARGS": ""}
    pod.call("GC", variables, **{"cni.dev/valid-attachments": [*valid, mine]})
    assert pings(pod_netns(lab, "a1"), pod.addresses[0]) == 1
    pod.call("GC", variables, **{"cni.dev/valid-attachments": valid})
    assert pings(pod_netns(lab, "a1"), pod.addresses[0], wait=0.3) == 0
    assert pings(pod_netns(lab, "a1"), addresses(lab, "b1")[0]) == 1
    assert code_of(pod.call, "GC", variables) == Code.INVALID_CONFIG


def test_a_pod_that_nobody_declared_is_refused_after_a_bounded_wait_and_leaves_nothing(guest: Guest) -> None:
    before = links(guest)
    with pytest.raises(CniFailure, match=f"{NAMESPACE}/{guest.name}.*does it know the pod") as failure:
        guest.add()
    assert failure.value.code == Code.TRY_LATER
    assert links(guest) == before
    assert "eth0" not in inside(guest.netns, ["ip", "-o", "link"]).stdout


@pytest.mark.parametrize(
    ("variables", "config", "code", "said"),
    [
        ({}, {"cniVersion": "2.0.0"}, Code.INCOMPATIBLE_VERSION, "0.4.0, 1.0.0, 1.1.0"),
        ({"CNI_NETNS": "/run/netns/sb-nowhere"}, {}, Code.UNKNOWN_CONTAINER, "no such network namespace"),
        ({"CNI_NETNS": ""}, {}, Code.INVALID_ENVIRONMENT, "CNI_NETNS"),
        ({"CNI_IFNAME": "much-too-long-a-name"}, {}, Code.INVALID_ENVIRONMENT, "CNI_IFNAME"),
        ({"CNI_ARGS": "K8S_POD_NAME=x"}, {}, Code.INVALID_ENVIRONMENT, "K8S_POD_NAMESPACE"),
        ({}, {"socket": "/run/signalbox/nobody.sock"}, Code.TRY_LATER, "doesn't answer"),
    ],
)
def test_a_request_that_can_t_be_carried_out_says_why(
    guest: Guest, variables: dict[str, str], config: dict[str, Any], code: int, said: str
) -> None:
    with pytest.raises(CniFailure) as failure:
        guest.call("ADD", variables, **config)
    assert failure.value.code == code
    assert said in str(failure.value)


def test_status_says_whether_pods_can_be_added(lab: Lab, guest: Guest) -> None:
    kubelet.run_plugin(lab.layout, guest.node, "STATUS", {})
    lab.stop_agent(guest.node)
    try:
        assert code_of(kubelet.run_plugin, lab.layout, guest.node, "STATUS", {}) == Code.NOT_AVAILABLE
    finally:
        lab.start_agent(guest.node)
    lab.wait_for_agents()


def test_an_interface_that_is_there_already_is_not_touched_and_nothing_is_left(pod: Guest) -> None:
    inside(pod.netns, ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other"])
    before = links(pod)
    with pytest.raises(CniFailure, match="eth0"):
        pod.add()
    assert links(pod) == before
    assert "eth0@other" in inside(pod.netns, ["ip", "link"]).stdout
    inside(pod.netns, ["ip", "link", "del", "eth0"])
    pod.add()


def test_a_path_that_is_no_network_namespace_is_named(pod: Guest, tmp_path: Path) -> None:
    before = links(pod)
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(CniFailure, match=str(path)):
        pod.call("ADD", {"CNI_NETNS": str(path)})
    assert links(pod) == before


def test_a_switch_that_doesn_t_answer_fails_add_after_a_bounded_wait_and_leaves_nothing(lab: Lab, pod: Guest) -> None:
    before = links(pod)
    process = lab.switch_process(pod.node)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(CniFailure, match="ovs-vswitchd doesn't answer") as failure:
            pod.add()
        assert failure.value.code == Code.TRY_LATER
        assert links(pod) == before
    finally:
        os.kill(process.pid, signal.SIGCONT)
    lab.wait_for_sync()
    pod.add()
    assert pings(pod_netns(lab, "a1"), pod.addresses[0]) == 1


def test_many_adds_at_a_time_are_all_served_with_addresses_of_their_own(lab: Lab) -> None:
    crowd = [Guest(lab, f"crowd{number}", "node-2") for number in range(12)]
    try:
        for each in crowd:
            each.declare()
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(Guest.add, crowd))
        known = [address for each in crowd for address in each.addresses]
        assert len(set(known)) == len(known) == 24
        assert not ping_all((pod_netns(lab, "a1"), address) for address in known)
    finally:
        for each in crowd:
            each.leave()
