"""Host ports: who has one that several want, what the node's host is told, and that switches say the same."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

from fabric import Fabric, of_family

from flows import fields as f
from flows.host_ports import host_ports
from flows.pipeline import HOST, SERVICE
from flows.values import Flow, Note
from topology.model import ContainerPort, Pod
from topology.naming import ENTRY_ADDRESSES

ADDRESS, OTHER, LOOPBACK = "172.30.0.1", "172.30.0.9", "127.0.0.1"


def pod(name: str, place: int, *ports: ContainerPort, host_network: bool = False) -> Pod:
    addresses = (ip_address(f"10.244.1.{place}"), ip_address(f"fd00:10:244:1::{place:x}"))
    return Pod(namespace="default", name=name, node="n1", addresses=addresses, ports=ports, host_network=host_network)


def port(host_ip: str = "", protocol: str = "TCP", target: int = 80, number: int = 8080) -> ContainerPort:
    address = ip_address(host_ip) if host_ip else None
    return ContainerPort(port=target, protocol=protocol, host_port=number, host_ip=address)


def had(*pods: Pod) -> dict[tuple[str, str, str], str]:
    """Why each port isn't had, by pod, address and protocol."""
    return {
        (each.pod.name, str(each.port.host_ip or ""), each.port.protocol): each.refusal for each in host_ports(pods)
    }


def test_one_number_is_had_by_several_at_different_addresses_or_for_different_protocols() -> None:
    pods = [pod("a", 2, port(LOOPBACK)), pod("b", 3, port(ADDRESS)), pod("c", 4, port(ADDRESS, "UDP"))]
    assert set(had(*pods).values()) == {""}


def test_of_two_that_meet_the_first_by_name_has_it_whatever_the_order() -> None:
    pods = [pod("a", 2, port(ADDRESS)), pod("b", 3, port()), pod("c", 4, port(OTHER)), pod("d", 5, port(OTHER))]
    taken = "host port 8080/TCP{} is Pod default/{}'s already on node n1; choose another"
    wanted = {
        ("a", ADDRESS, "TCP"): "",
        ("b", "", "TCP"): taken.format("", "a"),
        # Who doesn't have it keeps nobody else from it.
        ("c", OTHER, "TCP"): "",
        ("d", OTHER, "TCP"): taken.format(f" of {OTHER}", "c"),
    }
    assert had(*pods) == had(*reversed(pods)) == wanted


def test_pods_of_the_host_s_network_want_none_and_ipv6_s_loopback_can_t_be_had() -> None:
    found = had(pod("a", 2, port(), host_network=True), pod("b", 3, port("::1")))
    assert list(found) == [("b", "::1", "TCP")] and "Linux leads nothing away from there" in found["b", "::1", "TCP"]


def notes(fabric: Fabric) -> list[dict[str, Any]]:
    found = []
    for flow in fabric.compiler.flows("n1"):
        if flow.table == HOST.number:
            (note,) = flow.program
            assert isinstance(note, Note)
            found.append(json.loads(note.data))
    return sorted(found, key=lambda note: str(sorted(note.items())))


def fronts(fabric: Fabric, version: int) -> set[int]:
    """The addresses at which the switch serves host ports."""
    field = f.IPV4_DST if version == 4 else f.IPV6_DST
    flows: list[Flow] = [flow for flow in fabric.compiler.flows("n1") if flow.table == SERVICE.number]
    return {
        term.value for flow in flows for term in flow.match if term.field is field and f.TCP_DST(8080) in flow.match
    }


def test_the_host_leads_what_is_of_one_address_to_the_pod_and_what_is_of_all_into_the_switch() -> None:
    fabric = Fabric(1, [], [pod("a", 2, port(LOOPBACK)), pod("b", 3, port(ADDRESS, target=81))])
    told = {"kind": "port", "protocol": "TCP", "port": 8080}
    assert notes(fabric) == [
        told | {"address": LOOPBACK, "to": "10.244.1.2", "toPort": 80},
        told | {"address": ADDRESS, "to": "10.244.1.3", "toPort": 81},
    ]
    # Pods are served by the switch, at the node's own addresses.
    assert fronts(fabric, 4) == {int(ip_address(ADDRESS))} and not fronts(fabric, 6)

    fabric = Fabric(1, [], [pod("a", 2, port())])
    assert notes(fabric) == [told]
    for version in (4, 6):
        own = of_family(fabric.node("n1").addresses, version)
        assert fronts(fabric, version) == {int(own), int(of_family(ENTRY_ADDRESSES, version))}


def test_who_goes_without_is_told_and_gets_it_when_the_owner_goes() -> None:
    fabric = Fabric(1, [], [pod("a", 2, port(ADDRESS)), pod("b", 3, port(ADDRESS))])
    compiler = fabric.compiler
    ((key, reason),) = compiler.host_port_refusals()
    assert key == ("Pod", "default", "b") and "is Pod default/a's already" in reason
    assert [note["to"] for note in notes(fabric)] == ["10.244.1.2"]
    updates = compiler.remove(("Pod", "default", "a"))
    assert any(flow.table == HOST.number for update in updates for flow in update.added)
    assert not list(compiler.host_port_refusals())
    assert [note["to"] for note in notes(fabric)] == ["10.244.1.3"]
    compiler.put(pod("b", 3))
    assert not compiler.cluster.host_ported and not notes(fabric)
