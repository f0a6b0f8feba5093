"""Services reached by all their addresses, from everywhere; refused where nobody serves; spread; counted."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from callers import (
    HAIRPIN,
    OUTSIDE,
    SERVERS,
    Held,
    applied,
    balanced,
    call,
    endpoint_slice,
    endpoints,
    flows_of_service,
    groups,
    ip,
    names,
    node_port,
    ofctl,
    places,
    refused_at_once,
    row,
    service,
    signalbox,
    to,
    unlink,
    vips,
    write,
)
from probes import addresses, node_addresses, pod_netns, until

from deploy.lab import processes
from deploy.lab.cluster import Lab

#: An external address that no pool holds: the host outside has a route to it, as a router of the site would.
EXTERNAL = ("203.0.113.7", "2001:db8:7::7")
MANY = 1000
#: What node-2's own processes are to pods.
GATEWAYS = ("10.244.2.1", "fd00:10:244:2::1")


@pytest.fixture(scope="module")
def lab(service_lab: Lab) -> Iterator[Lab]:
    """With a Service of every kind of address, for TCP and UDP."""
    tcp = {"name": "tcp", "port": 80, "targetPort": 8080}
    udp = {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"}
    everything = service("all", tcp, udp, type="LoadBalancer", externalIPs=list(EXTERNAL))
    write(service_lab, everything)
    for address, node in zip(EXTERNAL, node_addresses(service_lab, "node-2"), strict=True):
        ip(service_lab.layout.outside, "route", "add", address, "via", node)
    yield service_lab
    unlink(service_lab, everything)
    for address in EXTERNAL:
        ip(service_lab.layout.outside, "route", "del", address)


@pytest.mark.parametrize("place", ["pod c1", "pod c3", "node-2", "outside"])
def test_a_service_answers_by_all_its_addresses_over_tcp_and_udp_and_both_families(lab: Lab, place: str) -> None:
    wanted = [(address, 80) for address in (*balanced(lab, "all"), *EXTERNAL)]
    if place != "outside":
        wanted += [(address, 80) for address in vips(lab, "all")]
    ports = {kind: node_port(lab, "all", index) for index, kind in enumerate(("tcp", "udp"))}
    calls = [to(*each, kind, 16) for each in wanted for kind in ("tcp", "udp")]
    calls += [
        to(address, ports[kind], kind, 16)
        for node in lab.nodes
        for address in node_addresses(lab, node)
        for kind in ("tcp", "udp")
    ]
    for each, outcomes in zip(calls, call(places(lab)[place], *calls), strict=True):
        found = names(outcomes)
        assert set(found) <= set(SERVERS), (each, found)
        # Sixteen that go to one of three alone: once in 14 million, and there are a hundred.
        assert len(found) > 1, (each, found)


def test_clients_within_the_cluster_are_seen_with_their_own_addresses(lab: Lab) -> None:
    ways = [*vips(lab, "all"), *balanced(lab, "all")]
    for pod in ("c1", "c3"):
        own = addresses(lab, pod)
        for kind in ("tcp", "udp"):
            answers = call(pod_netns(lab, pod), *(to(address, 80, kind, 6) for address in ways))
            for address, outcomes in zip(ways, answers, strict=True):
                assert {each.get("peer") for each in outcomes} == {own[":" in address]}, (pod, address, outcomes)
    for address, outcomes in zip(
        ways, call(places(lab)["node-2"], *(to(each, 80, count=6) for each in ways)), strict=True
    ):
        assert {each.get("peer") for each in outcomes} == {GATEWAYS[":" in address]}, (address, outcomes)


def test_a_process_that_calls_a_port_of_its_own_node_is_seen_as_the_node_s_gateway(lab: Lab) -> None:
    netns, (number, datagrams) = places(lab)["node-2"], (node_port(lab, "all", index) for index in range(2))
    for address, gateway in zip(node_addresses(lab, "node-2"), GATEWAYS, strict=True):
        ways = [(address, number, "tcp"), (address, datagrams, "udp"), (address, 9080, "udp")]
        for way, outcomes in zip(ways, call(netns, *(to(*way, 12) for way in ways)), strict=True):
            assert {each.get("peer") for each in outcomes} == {gateway}, (way, outcomes)


def test_a_process_is_answered_by_another_node_s_server_over_a_port_of_its_own_node(lab: Lab) -> None:
    ports = [{"name": each, "port": 80, "protocol": each.upper()} for each in ("tcp", "udp")]
    theirs = [{**each, "port": 7070} for each in ports]
    slices = [
        endpoint_slice("away", str(index), [{"address": address}], theirs)
        for index, address in enumerate(node_addresses(lab, "node-3"))
    ]
    with applied(lab, service("away", *ports, type="NodePort", selector=None), *slices):
        for index, kind in enumerate(("tcp", "udp")):
            calls = [to(each, node_port(lab, "away", index), kind, 3) for each in node_addresses(lab, "node-2")]
            for outcomes, gateway in zip(call(places(lab)["node-2"], *calls), GATEWAYS, strict=True):
                assert {each.get("peer") for each in outcomes} == {gateway}, (kind, outcomes)


def test_connections_of_one_source_port_over_ports_of_several_nodes_are_several_to_the_endpoint(lab: Lab) -> None:
    with applied(lab, service("first", type="NodePort", selector={"who": "s1"})):
        number = node_port(lab, "first")
        for family, cluster_ip in enumerate(vips(lab, "first")):
            ways = [(node_addresses(lab, node)[family], number) for node in lab.nodes] + [(cluster_ip, 80)]
            with Held(places(lab)["node-2"], *(to(*way, **{"from": 19999}) for way in ways)) as held:
                outcomes = held.ask()
            assert names(outcomes) == {"s1": 4}, outcomes
            assert len({(each["peer"], each["peer_port"]) for each in outcomes}) == 4, outcomes


def test_a_process_is_refused_at_once_at_a_port_of_its_own_node_that_nobody_serves(lab: Lab) -> None:
    ports = [{"name": "tcp", "port": 80}, {"name": "udp", "port": 80, "protocol": "UDP"}]
    with applied(lab, service("nobody", *ports, type="NodePort", selector={"app": "nobody"})):
        numbers = {kind: node_port(lab, "nobody", index) for index, kind in enumerate(("tcp", "udp"))}
        calls = [to(each, number, kind) for each in node_addresses(lab, "node-2") for kind, number in numbers.items()]
        refused_at_once(places(lab)["node-2"], *calls)


def test_a_service_has_the_families_that_it_asks_for(lab: Lab) -> None:
    single = service("single", ipFamilyPolicy="SingleStack")
    sixth = service("sixth", ipFamilyPolicy="SingleStack", ipFamilies=["IPv6"])
    both = service("both", ipFamilyPolicy="RequireDualStack", ipFamilies=["IPv6", "IPv4"])
    with applied(lab, single, sixth, both):
        found = {name: row(lab, name)["clusterIPs"] for name in ("single", "sixth", "both")}
        assert [[":" in each for each in found[name]] for name in found] == [[False], [True], [True, False]]
        calls = [to(address, 80, count=2) for each in found.values() for address in each]
        assert set(names(chain(*call(pod_netns(lab, "c1"), *calls)))) <= set(SERVERS)


def test_named_target_ports_and_several_ports_lead_each_to_its_own(lab: Lab) -> None:
    ports = [
        {"name": "by-name", "port": 1, "targetPort": "named"},
        {"name": "by-number", "port": 2, "targetPort": 8082},
        {"name": "same", "port": 8083},
        {"name": "datagrams", "port": 2, "targetPort": 8081, "protocol": "UDP"},
    ]
    with applied(lab, service("ports", *ports)):
        for address in vips(lab, "ports"):
            # One of three that is never chosen: once in ten billion.
            calls = [to(address, 1, count=60), to(address, 2, count=3), to(address, 8083), to(address, 2, "udp", 3)]
            named, number, same, datagrams = call(pod_netns(lab, "c1"), *calls)
            assert {(each["name"], each["port"]) for each in named} == {("s1", 8081), ("s2", 8082), ("s3", 8083)}
            assert {each["port"] for each in number} == {8082}
            assert {each["port"] for each in same} == {8083}
            assert {each["port"] for each in datagrams} == {8081}


def test_a_headless_service_has_no_flows(lab: Lab) -> None:
    before = {node: ofctl(lab, node, "--no-stats", "dump-flows", "br-int", "table=30") for node in lab.nodes}
    with applied(lab, service("headless", clusterIP="None")):
        assert row(lab, "headless")["clusterIPs"] == ["None"]
        assert {
            node: ofctl(lab, node, "--no-stats", "dump-flows", "br-int", "table=30") for node in lab.nodes
        } == before


@pytest.mark.parametrize("place", ["pod c1", "node-2", "outside"])
def test_what_nobody_serves_is_refused_at_once(lab: Lab, place: str) -> None:
    ports = [{"name": "tcp", "port": 80}, {"name": "udp", "port": 80, "protocol": "UDP"}]
    with applied(lab, service("nobody", *ports, type="LoadBalancer", selector={"app": "nobody"})):
        # Without endpoints, a port that no Service has, an address that none has. Few by UDP: a kernel sends no more
        # than six ICMP errors at a time to one host (icmp(7), icmp_ratelimit).
        ways = [(address, port) for address in balanced(lab, "nobody") for port in (80, 81)]
        if place != "outside":
            ways = [(address, 80) for address in balanced(lab, "nobody")]
            ways += [(address, port) for address in vips(lab, "nobody") for port in (80, 81)]
        calls = [to(*each, kind) for each in ways for kind in ("tcp", "udp")]
        calls += [to("10.96.255.254", 80), to("fd00:10:96::fffe", 80)] if place != "outside" else []
        for index, kind in enumerate(("tcp", "udp")):
            number = node_port(lab, "nobody", index)
            calls += [to(address, number, kind) for address in node_addresses(lab, "node-3")]
        refused_at_once(places(lab)[place], *calls)


def test_a_pod_that_calls_its_own_service_is_seen_as_the_hairpin_address(lab: Lab) -> None:
    tcp = {"name": "tcp", "port": 80, "targetPort": 8080}
    udp = {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"}
    with applied(lab, service("itself", tcp, udp, type="NodePort", selector={"who": "s1"})):
        for address, node, hairpin in zip(vips(lab, "itself"), node_addresses(lab, "node-1"), HAIRPIN, strict=True):
            calls = [to(address, 80, kind, 3) for kind in ("tcp", "udp")]
            calls += [to(node, node_port(lab, "itself", index), kind, 3) for index, kind in enumerate(("tcp", "udp"))]
            for outcomes in call(pod_netns(lab, "s1"), *calls):
                assert {(each.get("name"), each.get("peer")) for each in outcomes} == {("s1", hairpin)}, outcomes


def test_host_ports_lead_to_the_pod_on_this_node(lab: Lab) -> None:
    for place, netns in places(lab).items():
        for node, kind, server in (("node-1", "tcp", "s1"), ("node-2", "udp", "s2")):
            calls = [to(address, 9080, kind, 2) for address in node_addresses(lab, node)]
            for outcomes in call(netns, *calls):
                assert names(outcomes) == {server: 2}, (place, node, outcomes)
    # Of one protocol alone, and on no other node.
    refused = [to(address, 9080, "udp") for address in node_addresses(lab, "node-1")]
    refused += [to(address, 9080) for address in node_addresses(lab, "node-3")]
    for (outcome,) in call(pod_netns(lab, "c2"), *refused):
        assert outcome.get("error") == "ECONNREFUSED", outcome
    seen = call(lab.layout.outside, *(to(address, 9080) for address in node_addresses(lab, "node-1")))
    assert [outcome["peer"] for (outcome,) in seen] == list(OUTSIDE)


def test_pods_of_the_host_s_network_are_endpoints(lab: Lab) -> None:
    tcp = {"name": "tcp", "port": 80, "targetPort": 7070}
    udp = {"name": "udp", "port": 80, "targetPort": 7070, "protocol": "UDP"}
    with applied(lab, service("hosts", tcp, udp, type="LoadBalancer", selector={"app": "host"})):
        (own,) = {each["pod"] for each in endpoints(lab, "hosts") if each["node"] == "node-2"}
        for place, netns in places(lab).items():
            ways = [(address, 80, kind) for address in balanced(lab, "hosts") for kind in ("tcp", "udp")]
            if place != "outside":
                ways += [(address, 80, kind) for address in vips(lab, "hosts") for kind in ("tcp", "udp")]
            for index, kind in enumerate(("tcp", "udp")):
                for node in ("node-2", "node-3"):
                    ways += [(each, node_port(lab, "hosts", index), kind) for each in node_addresses(lab, node)]
            for way, outcomes in zip(ways, call(netns, *(to(*way, 60) for way in ways)), strict=True):
                found = names(outcomes)
                assert len(found) == 3 and all(each.startswith("host-") for each in found), (place, way, found)
                if place == "node-2":
                    assert found[own]


def test_connections_are_spread_evenly(lab: Lab) -> None:
    for address in vips(lab, "all"):
        for kind in ("tcp", "udp"):
            ((*outcomes,),) = call(pod_netns(lab, "c2"), to(address, 80, kind, 300))
            found = names(outcomes)
            # Chi-square with two degrees of freedom: above 27.6 once in a million.
            assert sum((found[each] - 100) ** 2 / 100 for each in SERVERS) < 27.6, found
            assert sum(found.values()) == 300 and set(found) == set(SERVERS), found


@pytest.fixture
def world(lab: Lab) -> Iterator[dict[str, str]]:
    """A server outside of the cluster that has every address of two networks; the networks."""
    netns, nets = lab.layout.outside, {"4": "198.18.0.0/22", "6": "2001:db8:8::/64"}
    for net in nets.values():
        ip(netns, "route", "add", "local", net, "dev", "lo")
    # By IPv6 Linux lets nobody choose an address for a datagram's source that is only routed to it.
    ip(netns, "address", "add", "2001:db8:8::1/128", "dev", "lo", "nodad")
    argv = ["python3", "-I", str(Path(__file__).with_name("line_server.py")), "8080"]
    server = processes.start(argv, lab.layout.directory / "outside.log", netns=netns)
    until(lambda: "error" not in call(netns, to("127.0.0.1", 8080))[0][0], "the server outside")
    yield nets
    processes.stop([server])
    ip(netns, "address", "del", "2001:db8:8::1/128", "dev", "lo")
    for net in nets.values():
        ip(netns, "route", "del", "local", net, "dev", "lo")


def test_a_service_may_have_a_thousand_endpoints_outside_of_the_cluster(lab: Lab, world: dict[str, str]) -> None:
    many = {
        "4": [f"198.18.{n // 256}.{n % 256}" for n in range(MANY)],
        "6": [f"2001:db8:8::{n + 1:x}" for n in range(MANY)],
    }
    slices = []
    for version, all_of in many.items():
        for start in range(0, MANY, 100):
            hundred = [{"address": each} for each in all_of[start : start + 100]]
            slices.append(endpoint_slice("many", f"{version}-{start}", hundred, [{"port": 8080}]))

    def asked(version: str, address: str) -> set[str]:
        ((*outcomes,),) = call(pod_netns(lab, "c1"), to(address, 80, count=200))
        found = {each.get("here", each.get("error")) for each in outcomes}
        assert found <= set(many[version]), found
        return found

    with applied(lab, service("many", selector=None), *slices):
        assert row(lab, "many")["endpoints"] == 2 * MANY
        # Of a thousand, two hundred choices meet about 181.
        ways = list(zip(world, vips(lab, "many"), strict=True))
        assert all(len(asked(*way)) > 150 for way in ways)
        write(lab, service("many", selector=None, sessionAffinity="ClientIP"))
        assert all(len(asked(*way)) == 1 for way in ways)


def test_endpoints_outside_of_the_cluster_answer_nodes_and_the_world_as_they_answer_pods(
    lab: Lab, world: dict[str, str]
) -> None:
    ports = [{"name": each, "port": 80, "protocol": each.upper()} for each in ("tcp", "udp")]
    theirs = [{**each, "port": 8080} for each in ports]
    servers = ("198.18.0.1", "2001:db8:8::1")
    slices = [endpoint_slice("out", str(index), [{"address": each}], theirs) for index, each in enumerate(servers)]
    nodes = {address for node in lab.nodes for address in node_addresses(lab, node)}
    with applied(lab, service("out", *ports, type="NodePort", selector=None), *slices):
        for index, kind in enumerate(("tcp", "udp")):
            number = node_port(lab, "out", index)
            for family, cluster_ip in enumerate(vips(lab, "out")):
                by_ports = [to(node_addresses(lab, node)[family], number, kind, 3) for node in lab.nodes]
                for place in ("pod c1", "node-2", "outside"):
                    ways = by_ports if place == "outside" else [to(cluster_ip, 80, kind, 3), *by_ports]
                    for way, outcomes in zip(ways, call(places(lab)[place], *ways), strict=True):
                        assert {each.get("port") for each in outcomes} == {8080}, (place, way, outcomes)
                        # Of datagrams a server isn't told where they were sent.
                        assert {each["here"] for each in outcomes} <= {servers[family], ""}
                        assert {each["peer"] for each in outcomes} <= nodes, (place, way, outcomes)


def test_endpoints_that_an_endpoints_object_names_are_served(lab: Lab) -> None:
    one, two = addresses(lab, "s1"), addresses(lab, "s2")
    subsets = [
        {"addresses": [{"ip": each} for each in one], "notReadyAddresses": [{"ip": each} for each in two]}
        | {"ports": [{"name": "http", "port": 8081}]},
        {"addresses": [{"ip": each} for each in two], "ports": [{"name": "other", "port": 8082}]},
    ]
    by_hand = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "by-hand", "namespace": "default"},
        "subsets": subsets,
    }
    ports = [{"name": "http", "port": 80}, {"name": "other", "port": 81}]
    with applied(lab, service("by-hand", *ports, selector=None), by_hand):
        for address in vips(lab, "by-hand"):
            first, second = call(pod_netns(lab, "c3"), to(address, 80, count=5), to(address, 81, count=5))
            assert {(each["name"], each["port"]) for each in first} == {("s1", 8081)}
            assert {(each["name"], each["port"]) for each in second} == {("s2", 8082)}


def test_the_port_of_a_slice_may_differ_from_slice_to_slice(lab: Lab) -> None:
    slices = [
        endpoint_slice("slices", f"{pod}-{index}", [{"address": address}], [{"name": "", "port": port}])
        for pod, port in (("s1", 8081), ("s2", 8082))
        for index, address in enumerate(addresses(lab, pod))
    ]
    with applied(lab, service("slices", selector=None), *slices):
        for address in vips(lab, "slices"):
            ((*outcomes,),) = call(pod_netns(lab, "c3"), to(address, 80, count=20))
            assert {(each["name"], each["port"]) for each in outcomes} == {("s1", 8081), ("s2", 8082)}


def test_a_service_s_flows_and_groups_are_the_same_on_all_nodes(lab: Lab) -> None:
    dumps = [flows_of_service(lab, node, "all") for node in lab.nodes]
    assert len(dumps[0]) > 10
    assert dumps[0] == dumps[1] == dumps[2]
    numbers = {number for line in dumps[0] for number in re.findall(r"group:(\d+)", line)}
    # A group for each port and family.
    assert len(numbers) == 4
    first, *others = ({number: groups(lab, node)[number] for number in numbers} for node in lab.nodes)
    assert all(each == first for each in others)


def test_a_change_of_one_service_changes_its_flows_alone(lab: Lab) -> None:
    def everything(node: str) -> set[str]:
        return set(ofctl(lab, node, "--no-stats", "dump-flows", "br-int")) | set(groups(lab, node).values())

    with applied(lab, service("changes")):
        before = {node: everything(node) for node in lab.nodes}
        sent = {each["name"]: each["flowModsSent"] for each in lab.ask("nodes")["items"]}
        write(lab, service("changes", {"port": 81, "targetPort": 8081}))
        after = {each["name"]: each["flowModsSent"] for each in lab.ask("nodes")["items"]}
        for node in lab.nodes:
            differs = before[node] ^ everything(node)
            of_service = set(flows_of_service(lab, node, "changes"))
            mark = next(iter(of_service)).partition(",")[0]
            flows = [line for line in differs if "group_id=" not in line and "table=70," not in line]
            # Its own flows and its two groups, which are made anew under new numbers.
            assert flows and {line.strip().partition(",")[0] for line in flows} == {mark}
            assert sum("group_id=" in line for line in differs) == 4
            assert 0 < after[node] - sent[node] < 30


def test_the_counters_are_those_of_what_has_passed(lab: Lab) -> None:
    tcp = {"name": "tcp", "port": 80, "targetPort": 8080}
    udp = {"name": "udp", "port": 81, "targetPort": 8080, "protocol": "UDP"}
    with applied(lab, service("counted", tcp, udp)):
        assert (row(lab, "counted", counters="1")["connections"], row(lab, "counted", counters="1")["packets"]) == (
            0,
            0,
        )
        found: Counter[tuple[str, str]] = Counter()
        for pod in ("c1", "c2"):
            for address in vips(lab, "counted"):
                calls = [to(address, 80, "tcp", 10), to(address, 81, "udp", 15)]
                for kind, outcomes in zip(("tcp", "udp"), call(pod_netns(lab, pod), *calls), strict=True):
                    found += Counter({(kind, name): number for name, number in names(outcomes).items()})
        assert sum(found.values()) == 100

        def counted() -> bool:
            total = row(lab, "counted", counters="1")
            return bool(total["connections"] == 100 and total["packets"] > 0)

        # Open vSwitch reports what its datapath has counted when it next looks at it.
        until(counted, "all connections are counted")
        mine = endpoints(lab, "counted", counters="1")
        connections: Counter[tuple[str, str]] = Counter()
        for each in mine:
            connections[each["port"], each["pod"]] += each["connections"]
        assert connections == found
        nodes = {pod: f"node-{pod[1]}" for pod in SERVERS}
        assert {each["pod"]: each["node"] for each in mine} == nodes

        def carried(what: str) -> dict[str, int]:
            ends = endpoints(lab, "counted", counters="1")
            return {kind: sum(each[what] for each in ends if each["port"] == kind) for kind in ("tcp", "udp")}

        # A datagram each way; of a TCP connection at least eight segments.
        until(lambda: carried("packets")["udp"] == 120 and carried("packets")["tcp"] >= 40 * 8, "packets")
        # Their headers alone have 42 bytes and 54.
        assert carried("bytes")["udp"] > 120 * 42 and carried("bytes")["tcp"] > 320 * 54
        assert row(lab, "counted", counters="1")["packets"] == sum(carried("packets").values())
        printed = json.loads(signalbox(lab, "get", "services", "--counters", "-o", "json"))
        assert [each["connections"] for each in printed["items"] if each["name"] == "counted"] == [100]
        assert "CONNECTIONS" in signalbox(lab, "get", "endpoints", "--counters")


def test_flows_of_a_service_are_shown_with_its_name(lab: Lab) -> None:
    text = signalbox(lab, "flows", "node-1", "--service", "all")
    assert "Service default/all" in text
    shown = json.loads(signalbox(lab, "flows", "node-3", "--service", "all", "-o", "json"))["items"]
    objects = {each["object"] for each in shown}
    assert objects == {"Service default/all", *(f"Address {each}" for each in (*balanced(lab, "all"),))}
    of_service = [each for each in shown if each["object"].startswith("Service")]
    assert len(of_service) == len(flows_of_service(lab, "node-3", "all"))
