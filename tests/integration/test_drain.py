"""A node of a lab is drained: new connections go elsewhere and old ones go on, also when the controller starts anew."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import chain

import pytest
from callers import (
    Held,
    applied,
    balanced,
    call,
    endpoints,
    names,
    node_port,
    places,
    row,
    service,
    signalbox,
    to,
    vips,
)
from probes import inside, node_addresses, pod_netns, until

from deploy.lab.cluster import Lab

TCP = {"name": "tcp", "port": 80, "targetPort": 8080}
UDP = {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"}


@pytest.fixture(scope="module")
def lab(service_lab: Lab) -> Lab:
    return service_lab


@contextlib.contextmanager
def drained(lab: Lab, node: str) -> Iterator[None]:
    assert signalbox(lab, "drain", node) == f"node/{node} drained\n"
    try:
        lab.wait_for_sync()
        yield
    finally:
        signalbox(lab, "undrain", node)
        lab.wait_for_sync()


def servers(lab: Lab, name: str) -> set[str]:
    """Who answers new connections to a Service, from everywhere and by all of its ways in."""
    ways = [to(address, 80, kind, count=12) for address in vips(lab, name) for kind in ("tcp", "udp")]
    found = [each for place in ("pod c1", "pod c3", "node-2") for each in call(places(lab)[place], *ways)]
    outside = [to(each, node_port(lab, name), count=12) for each in node_addresses(lab, "node-1")]
    found += call(lab.layout.outside, *outside, *(to(each, 80, count=12) for each in balanced(lab, name)))
    return set(names(chain(*found)))


def test_new_connections_go_elsewhere_and_old_ones_go_on_also_over_a_restart(lab: Lab) -> None:
    with applied(lab, service("work", TCP, UDP, type="LoadBalancer")):
        assert servers(lab, "work") == {"s1", "s2", "s3"}
        ways = [to(address, 80, kind) for address in vips(lab, "work") for kind in ("tcp", "udp")] * 9
        with Held(pod_netns(lab, "c3"), *ways) as held:
            before = [(each["name"], each["peer_port"]) for each in held.ask()]
            assert "s1" in {name for name, _ in before}
            with drained(lab, "node-1"):
                assert servers(lab, "work") == {"s2", "s3"}
                assert [(each["name"], each["peer_port"]) for each in held.ask()] == before
                states = {each["node"]: each["status"] for each in endpoints(lab, "work")}
                assert states == {"node-1": "Drained", "node-2": "Ready", "node-3": "Ready"}
                assert {each["name"]: each["drained"] for each in lab.ask("nodes")["items"]}["node-1"]
                assert "node-1" not in row(lab, "work")["announcedBy"]
                lab.stop_controller()
                lab.start_controller()
                lab.wait_for_sync()
                # It comes to the same flows, so it has sent none.
                assert lab.ask("status")["flowModsSent"] == 0
                assert servers(lab, "work") == {"s2", "s3"}
                assert [(each["name"], each["peer_port"]) for each in held.ask()] == before
            assert servers(lab, "work") == {"s1", "s2", "s3"}
            assert [(each["name"], each["peer_port"]) for each in held.ask()] == before
    log = lab.layout.log_of(1).read_text()
    assert "root of this machine: POST /v1/nodes/node-1/drain: 200" in log


def test_another_node_answers_for_the_addresses_of_one_that_is_drained(lab: Lab) -> None:
    with applied(lab, service("moved", TCP, type="LoadBalancer")):
        address = balanced(lab, "moved")[0]
        until(lambda: len(answering(lab, address)) == 1, "a node answers for it")
        (before,) = answering(lab, address)
        with drained(lab, before):
            until(lambda: len(answering(lab, address) - {before}) == 1, "another node answers for it")
            until(lambda: before not in answering(lab, address), "the drained one doesn't")
            assert set(names(chain(*call(lab.layout.outside, to(address, 80, count=12))))) <= {"s1", "s2", "s3"}
        until(lambda: answering(lab, address) == {before}, "the first one answers again")


def answering(lab: Lab, address: str) -> set[str]:
    """The nodes that answer ARP for an address which isn't theirs."""
    asked = {node: inside(lab.netns_of_node(node), ["ip", "neigh", "show", "proxy"]).stdout for node in lab.nodes}
    return {node for node, told in asked.items() if f"{address} " in told}
