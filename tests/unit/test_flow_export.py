"""Flow export: options as values, values as flows, notes as rows of Open vSwitch, and names for what is in records."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from test_node_settings import GOOD
from test_sync import UPLINKS, node, pod, pod_port, started

from controller import export_names
from controller.cli.flow_export import named
from flows.compiler import Compiler
from flows.pipeline import HOST
from flows.update import CLUSTER
from node.flow_export import Export, rows
from node.settings import Settings
from topology.flow_export import FlowExport, FlowExportError, Protocol, parse
from topology.model import Service, ServicePort
from topology.naming import observation_domain

# Options --------------------------------------------------------------------------------------------------------------


def test_collectors_of_one_protocol_are_one_export_in_any_order() -> None:
    words = ["sflow:192.0.2.9:6343", "ipfix:[2001:DB8::9]:4739", "ipfix:192.0.2.9:4739"]
    both = FlowExport(
        protocol=Protocol.IPFIX, collectors=("192.0.2.9:4739", "[2001:db8::9]:4739"), sampling=64, interval=30
    )
    sflow = FlowExport(protocol=Protocol.SFLOW, collectors=("192.0.2.9:6343",), sampling=64, interval=30)
    assert parse(words, 64, 30) == parse(words[::-1], 64, 30) == (both, sflow)
    assert parse([], 64, 30) == ()


@pytest.mark.parametrize(
    ("words", "sampling", "interval", "said"),
    [
        (["192.0.2.9:4739"], 1, 1, "give ipfix:ADDRESS:PORT"),
        (["ipfix:collector.example:4739"], 1, 1, "with an address and not a name"),
        (["ipfix:192.0.2.9"], 1, 1, "give ipfix:ADDRESS:PORT"),
        (["ipfix:192.0.2.9:0"], 1, 1, "ports are 1 to 65535"),
        (["ipfix:2001:db8::9:4739"], 1, 1, "IPv6 addresses are in brackets"),
        (["ipfix:[192.0.2.9]:4739"], 1, 1, "IPv6 addresses are in brackets"),
        (["ipfix:192.0.2.9:1", "ipfix:192.0.2.9:1"], 1, 1, "is there twice"),
        ([], 0, 1, "--flow-export-sampling 0: give 1"),
        ([], 1, 4201, "--flow-export-interval 4201: give 1 to 4200 seconds"),
    ],
)
def test_what_can_t_be_is_refused_with_what_would_do(words: list[str], sampling: int, interval: int, said: str) -> None:
    with pytest.raises(FlowExportError, match=said.replace("[", r"\[")):
        parse(words, sampling, interval)


# Flows ----------------------------------------------------------------------------------------------------------------


def test_every_node_is_told_of_collectors_by_flows_that_are_the_same_everywhere() -> None:
    exports = parse(["ipfix:192.0.2.9:4739", "netflow:192.0.2.9:2055"], 64, 30)
    told, silent = Compiler(exports=exports), Compiler()
    more = set(told.flows(CLUSTER)) - set(silent.flows(CLUSTER))
    assert [flow.table for flow in more] == [HOST.number] * len(exports)


# Rows -----------------------------------------------------------------------------------------------------------------

SETTINGS = Settings(**GOOD)


def test_a_node_names_itself_in_each_protocol_as_the_controller_s_table_does() -> None:
    exports = [Export(protocol, ("192.0.2.9:1",), 64, 30) for protocol in ("ipfix", "sflow", "netflow")]
    made = rows(SETTINGS, exports)
    domain = observation_domain(SETTINGS.name)
    assert made["IPFIX"]["obs_domain_id"] == made["IPFIX"]["obs_point_id"] == [domain]
    assert made["IPFIX"]["other_config"] == {"virtual_obs_id": SETTINGS.name}
    assert made["sFlow"]["agent"] == [str(SETTINGS.node_ips[0])]
    assert made["NetFlow"]["engine_type"] + made["NetFlow"]["engine_id"] == [domain >> 8 & 255, domain & 255]
    assert made["IPFIX"]["sampling"] == made["sFlow"]["sampling"] == [64] and "sampling" not in made["NetFlow"]
    assert rows(SETTINGS, []) == {}


def test_observation_domains_of_a_thousand_nodes_differ() -> None:
    assert len({observation_domain(f"node-{number}") for number in range(1000)}) == 1000


# Names ----------------------------------------------------------------------------------------------------------------


def test_names_are_there_for_nodes_pods_and_services_and_their_ports() -> None:
    web = Service(
        namespace="default", name="web", cluster_ips=(ip_address("10.96.0.7"),),
        external_ips=(ip_address("198.51.100.7"),), ports=(ServicePort(port=80),),
    )  # fmt: skip
    compiler = started(node(1), pod("a", 1), web).compiler
    compiler.set_ports("n1", [*UPLINKS, pod_port("a", 1)])
    found = {row["address"]: row for row in export_names.names(compiler)}
    assert (found["10.244.1.10"]["kind"], found["10.244.1.10"]["name"], found["10.244.1.10"]["portNumber"]) == (
        "Pod",
        "a",
        10,
    )
    assert found["10.244.1.10"]["port"] == pod_port("a", 1).name
    assert {found[each]["name"] for each in ("10.96.0.7", "198.51.100.7")} == {"web"}
    assert {found[str(each)]["kind"] for each in node(1).addresses} == {"Node"} == {found["10.244.1.1"]["kind"]}
    (exporter,) = export_names.exporters(compiler)
    assert (exporter["node"], exporter["observationDomain"]) == ("n1", observation_domain("n1"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("TCP 10.244.1.10:40123 -> 10.96.0.7:80", "TCP default/a:40123 -> svc/default/web:80"),
        ("fd00:10:244:1::a.8080 ->", "default/a.8080 ->"),
        ("FD00:10:244:1::A,10.244.1.10,", "default/a,default/a,"),
        ('{"src4_addr": "10.244.1.10"}', '{"src4_addr": "default/a"}'),
        ("10.244.1.100 110.244.1.10 10.244.1.10.5", "10.244.1.100 110.244.1.10 default/a.5"),
        ("2026-11-25 08:00:00.123 192.0.2.1", "2026-11-25 08:00:00.123 192.0.2.1"),
    ],
)
def test_names_take_the_place_of_whole_addresses_and_of_nothing_else(text: str, shown: str) -> None:
    known = {"10.244.1.10": "default/a", "fd00:10:244:1::a": "default/a", "10.96.0.7": "svc/default/web"}
    assert named(text, known) == shown
