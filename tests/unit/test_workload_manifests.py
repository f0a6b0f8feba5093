"""Objects of kind Workload: how they are read, and what is said of those that can't be."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from textwrap import dedent

import pytest

from topology.manifest_state import ManifestState, Snapshot
from topology.manifests import parse
from topology.model import ContainerPort, Pod
from topology.workloads import PortWorkload


def node(name: str, number: int) -> str:
    return dedent(f"""\
        apiVersion: v1
        kind: Node
        metadata: {{name: {name}}}
        spec: {{podCIDR: 10.244.{number}.0/24}}
        status: {{addresses: [{{type: InternalIP, address: 172.30.0.{number}}}]}}
        ---
        """)


def workload(name: str, **spec: str) -> str:
    fields = {"node": "n1", "port": "vnet0", "mac": '"52:54:00:00:00:01"', "addresses": "[192.0.2.1]"} | spec
    lines = "".join(f"  {key}: {value}\n" for key, value in fields.items() if value)
    return (
        "apiVersion: signalbox.io/v1alpha1\nkind: Workload\n"
        f"metadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n{lines}---\n"
    )


def second(name: str = "w2", **spec: str) -> str:
    fields = {"port": "vnet1", "mac": '"52:54:00:00:00:02"', "addresses": "[192.0.2.2]"} | spec
    return workload(name, **fields)


def pods(snapshot: Snapshot) -> list[str]:
    return sorted(pod.name for pod in snapshot.pods())


def problems(*texts: str) -> list[str]:
    state = ManifestState()
    snapshot = state.update({f"{index}.yaml": text.encode() for index, text in enumerate(texts)})
    return [str(problem) for problem in snapshot.problems]


def test_a_workload_is_a_pod_with_a_port_a_mac_and_addresses() -> None:
    text = workload(
        "db",
        addresses='[192.0.2.1, "2001:db8::1"]',
        ports="[{name: sql, port: 5432}, {port: 53, protocol: UDP}]",
        dhcp="true",
        mtu="9000",
    )
    (declared,) = parse("f.yaml", text.encode()).declared
    assert declared.key == ("Workload", "default", "db")
    assert isinstance(declared.value, PortWorkload)
    assert declared.value.pod == Pod(
        namespace="default",
        name="db",
        node="n1",
        labels=(("app", "db"),),
        addresses=(ip_address("192.0.2.1"), ip_address("2001:db8::1")),
        ports=(ContainerPort(port=5432, name="sql"), ContainerPort(port=53, protocol="UDP")),
        port="vnet0",
        mac=0x5254_0000_0001,
        dhcp=True,
        mtu=9000,
    )
    assert declared.value.pod.port_name == "vnet0"


def test_the_example_of_the_docs_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs/workloads.md").read_text().split("```yaml\n")[1].split("```")[0]
    parsed = parse("f.yaml", text.encode())
    assert [each.key for each in parsed.declared] == [("Workload", "shop", "db")] and not parsed.problems


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("node", "", "spec.node is missing; name the node whose bridge it is on"),
        ("port", "", "spec.port is missing; name its port, as ovs-vsctl list-ports br-int does"),
        ("mac", "", 'spec.mac is missing; give its MAC address, as "52:54:00:12:34:56"'),
        ("addresses", "", "spec.addresses is missing; list its addresses, as [192.0.2.10]"),
        ("addresses", "[]", "spec.addresses is empty; list its addresses, as [192.0.2.10]"),
        ("addresses", "[192.0.2.1, 192.0.2.1]", "spec.addresses[1] is 192.0.2.1 once more; list each address once"),
        ("addresses", "[192.0.2.1/24]", "spec.addresses[0] is '192.0.2.1/24'; it must be an IPv4 or IPv6 address"),
        ("port", "a-very-long-name-of-a-port", "the name of an interface has up to 15 characters"),
        ("port", "sb-gw0", "spec.port is sb-gw0, a port that the node's agent makes"),
        ("port", "pod0123456789ab", "spec.port is pod0123456789ab, a port that the node's agent makes"),
        ("mac", "52:54:00", "spec.mac is"),
        ("mac", '"01:00:5e:00:00:01"', "spec.mac is 01:00:5e:00:00:01, a group's address; give the address that"),
        ("mac", '"0a:57:00:00:00:01"', "spec.mac is 0a:57:00:00:00:01, the bridge's own; give the address that"),
        ("mtu", "100", "it must be a whole number from 576 to 65535"),
        ("vlan", "7", "spec.vlan is not a field that is known here; it must be one of node, port, mac, addresses"),
        ("ports", "[{name: sql}]", "spec.ports[0].port is missing; give the port's number"),
    ],
)
def test_what_is_not_as_it_must_be_is_said_with_line_field_and_remedy(field: str, value: str, said: str) -> None:
    parsed = parse("f.yaml", workload("db", **{field: value}).encode())
    (problem,) = parsed.problems
    assert str(problem).startswith("f.yaml:") and "Workload default/db: " in str(problem)
    assert said in problem.reason
    assert not parsed.declared and parsed.broken == {("Workload", "default", "db")}


def test_dhcp_needs_an_ipv4_address_to_tell() -> None:
    (problem,) = problems(node("n1", 1), workload("db", addresses='["2001:db8::1"]', dhcp="true"))
    assert "spec.dhcp is true, and DHCP tells IPv4 addresses; give it one in spec.addresses" in problem


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"port": "vnet0"},
            "its spec.port is vnet0 of node n1, and Workload default/w1's too (1.yaml:1); name the port that it is on",
        ),
        (
            {"mac": '"52:54:00:00:00:01"'},
            "its spec.mac is 52:54:00:00:00:01, and Workload default/w1's too (1.yaml:1); give each its own",
        ),
        (
            {"addresses": "[192.0.2.9, 192.0.2.1]"},
            "its spec.addresses has 192.0.2.1, which is address 192.0.2.1 of Workload default/w1 (1.yaml:1); take one",
        ),
        (
            {"addresses": "[10.244.1.9]"},
            "its spec.addresses has 10.244.1.9, which is in pod CIDR 10.244.1.0/24 of Node n1 (0.yaml:1), for its pods",
        ),
        (
            {"addresses": "[172.30.0.1]"},
            "its spec.addresses has 172.30.0.1, which is address 172.30.0.1 of Node n1 (0.yaml:1); take one that",
        ),
    ],
)
def test_of_two_that_want_the_same_the_first_has_it_and_the_other_is_told(other: dict[str, str], said: str) -> None:
    state = ManifestState()
    files = {"0.yaml": node("n1", 1).encode(), "1.yaml": workload("w1").encode(), "2.yaml": second(**other).encode()}
    snapshot = state.update(files)
    (problem,) = snapshot.problems
    assert str(problem).startswith("2.yaml:1: Workload default/w2: ")
    assert said in str(problem)
    assert pods(snapshot) == ["w1"]
    # It has its turn when what it wants is free.
    files["0.yaml"], files["1.yaml"] = node("n1", 2).encode(), b""
    after = state.update(files)
    assert pods(after) == ["w2"] and not after.problems


def test_the_same_port_name_on_two_nodes_is_two_ports() -> None:
    assert not problems(node("n1", 1), node("n2", 2), workload("w1"), second(port="vnet0", node="n2"))


def test_a_workload_gives_way_to_a_node_wherever_the_two_are_declared() -> None:
    (problem,) = problems(workload("w1", addresses="[10.244.1.9]"), node("n1", 1))
    assert problem.startswith("0.yaml:1: Workload default/w1: its spec.addresses has 10.244.1.9")


def test_a_node_that_is_not_declared_is_said_and_the_workload_waits_for_it() -> None:
    state = ManifestState()
    snapshot = state.update({"w.yaml": workload("w1").encode()})
    (problem,) = snapshot.problems
    said = "its spec.node is n1, a node that is not declared; declare it, or name one that is"
    assert str(problem) == f"w.yaml:1: Workload default/w1: {said}"
    assert pods(snapshot) == ["w1"]
    assert not state.update({"w.yaml": workload("w1").encode(), "n.yaml": node("n1", 1).encode()}).problems


def test_a_pod_and_a_workload_cannot_have_one_name() -> None:
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: w1}\nspec: {containers: [{name: c}]}\n---\n"
    (problem,) = problems(node("n1", 1), pod, workload("w1"))
    assert "Workload default/w1: has the name of Pod default/w1, and both are pods to Services and policies" in problem


def test_a_workload_that_is_broken_stays_what_it_was() -> None:
    state = ManifestState()
    files = {"n.yaml": node("n1", 1).encode(), "w.yaml": workload("w1").encode()}
    before = state.update(files)
    after = state.update(files | {"w.yaml": workload("w1", mac="nonsense").encode()})
    assert after.problems and after.objects == before.objects


def test_a_node_needs_neither_addresses_nor_pod_cidrs() -> None:
    bare = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n---\n"
    assert not problems(bare, workload("w1"))
