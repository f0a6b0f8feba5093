"""Which endpoints a client is sent to: policies, zones, readiness, affinity; who may call, and which node answers."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator

import pytest
from callers import (
    OUTSIDE,
    SERVERS,
    applied,
    balanced,
    call,
    endpoint_slice,
    endpoints,
    ip,
    names,
    node_port,
    ofctl,
    places,
    row,
    service,
    to,
    unlink,
    vips,
    write,
)
from probes import LONG, addresses, inside, node_addresses, pod_netns, until

from deploy.lab import kubelet
from deploy.lab.cluster import Lab
from deploy.lab.substrate import appctl

#: Packets that are dropped are waited for no longer than this.
NO_ANSWER = 0.4
CLIENTS = ("c1", "c2", "c3")


@pytest.fixture(scope="module")
def lab(service_lab: Lab) -> Lab:
    return service_lab


@contextlib.contextmanager
def status_of(lab: Lab, pod: str, *, ready: bool, terminating: bool = False) -> Iterator[None]:
    """A pod that says within a block that it is so."""
    kubelet.write_status(lab.layout, lab.pod(pod), ready=ready, terminating=terminating)
    lab.wait_for_manifests()
    try:
        yield
    finally:
        kubelet.write_status(lab.layout, lab.pod(pod), ready=True)
        lab.wait_for_manifests()


def answers(lab: Lab, netns: str, *ways: tuple[str, int], count: int = 12, wait: float = LONG) -> Counter[str]:
    """Who answers to calls, of all ways together."""
    found = call(netns, *(to(*way, count=count, timeout=wait) for way in ways))
    return sum((names(each) for each in found), Counter())


# Where clients of the world are sent ----------------------------------------------------------------------------------


def test_external_traffic_policy_local_keeps_the_client_s_address_and_the_node(lab: Lab) -> None:
    kinds = [
        {"name": kind, "port": 80, "targetPort": 8080, "protocol": kind.upper()} for kind in ("tcp", "udp")
    ]  # fmt: skip
    with applied(
        lab, service("local", *kinds, type="LoadBalancer", externalTrafficPolicy="Local", selector={"who": "s2"})
    ):
        ports = [node_port(lab, "local", index) for index in range(2)]
        there = [(kind, address, port) for kind, port in zip(("tcp", "udp"), ports, strict=True)
                 for address in node_addresses(lab, "node-2")]  # fmt: skip
        there += [(kind, address, 80) for kind in ("tcp", "udp") for address in balanced(lab, "local")]
        for way, outcomes in zip(there, call(lab.layout.outside, *(to(a, p, k, 4) for k, a, p in there)), strict=True):
            seen = {(each.get("name"), each.get("peer")) for each in outcomes}
            assert seen == {("s2", OUTSIDE[":" in way[1]])}, (way, outcomes)
        # A node without an endpoint drops it: a load balancer tries another.
        elsewhere = [(kind, address, port) for kind, port in zip(("tcp", "udp"), ports, strict=True)
                     for address in node_addresses(lab, "node-1")]  # fmt: skip
        for (outcome,) in call(lab.layout.outside, *(to(a, p, k, timeout=NO_ANSWER) for k, a, p in elsewhere)):
            assert outcome.get("error") == "ETIMEDOUT", outcome
        # The cluster's own clients reach it from everywhere, by all addresses.
        ways = [(address, 80) for address in (*vips(lab, "local"), *balanced(lab, "local"))]
        for pod in CLIENTS:
            assert set(answers(lab, pod_netns(lab, pod), *ways, count=2)) == {"s2"}
        assert set(answers(lab, lab.netns_of_node("node-1"), *ways, count=2)) == {"s2"}
        assert row(lab, "local")["announcedBy"] == ["node-2"]


def test_health_checks_are_answered_as_kube_proxy_does(lab: Lab) -> None:
    def health(node: str) -> tuple[int, dict[str, object]]:
        found = set()
        for address in node_addresses(lab, node):
            host = f"[{address}]" if ":" in address else address
            text = inside(lab.layout.outside, ["python3", "-Ic", _ASK, f"http://{host}:{port}/healthz"]).stdout
            found.add(text)
        if len(found) > 1:
            return 0, {}  # It has changed between the two.
        (text,) = found
        status, _, body = text.partition(" ")
        return int(status), json.loads(body)

    with applied(lab, service("checked", type="LoadBalancer", externalTrafficPolicy="Local", selector={"who": "s2"})):
        port = _health_port(lab)
        name = {"namespace": "default", "name": "checked"}
        until(lambda: _listens(lab, "node-2", port), "health checks are answered")
        until(lambda: health("node-2")[0] == 200, "the endpoint is known")
        assert health("node-2")[1] == {"service": name, "localEndpoints": 1, "serviceProxyHealthy": True}
        for node in ("node-1", "node-3"):
            until(lambda node=node: _listens(lab, node, port), "health checks are answered")  # type: ignore[misc]
            assert health(node) == (503, {"service": name, "localEndpoints": 0, "serviceProxyHealthy": True})
        with status_of(lab, "s2", ready=False):
            until(lambda: health("node-2")[0] == 503, "the endpoint that isn't ready is told of")
    until(lambda: not _listens(lab, "node-2", port), "nobody answers for a Service that is gone")


_ASK = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=30)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
"""


def _health_port(lab: Lab) -> str:
    (found,) = [each for each in lab.snapshot().objects.values() if getattr(each, "health_check_node_port", 0)]
    return str(found.health_check_node_port)  # type: ignore[union-attr]


def _listens(lab: Lab, node: str, port: str) -> bool:
    return f":{port} " in inside(lab.netns_of_node(node), ["ss", "-Hltn"]).stdout


def test_a_load_balancer_s_source_ranges_let_nobody_else_in(lab: Lab) -> None:
    ranges = [f"{OUTSIDE[0]}/32", f"{addresses(lab, 'c3')[1]}/128"]
    with applied(lab, service("guarded", type="LoadBalancer", loadBalancerSourceRanges=ranges)):
        both = balanced(lab, "guarded")
        allowed = {("outside", 4), ("pod c3", 6)}
        found = {}
        for place, netns in places(lab).items():
            waits = [LONG if (place, version) in allowed else NO_ANSWER for version in (4, 6)]
            calls = [to(address, 80, timeout=wait) for address, wait in zip(both, waits, strict=True)]
            for version, (outcome,) in zip((4, 6), call(netns, *calls), strict=True):
                found[place, version] = outcome.get("name", outcome.get("error"))
        assert {each for each, who in found.items() if who in SERVERS} == allowed
        assert all(found[each] == "ETIMEDOUT" for each in found.keys() - allowed), found
        # They are for the load balancer's address alone.
        ways = [(address, 80) for address in vips(lab, "guarded")]
        ways += [(address, node_port(lab, "guarded")) for address in node_addresses(lab, "node-1")]
        assert set(answers(lab, pod_netns(lab, "c1"), *ways, count=2)) <= set(SERVERS)


# Where clients of the cluster are sent --------------------------------------------------------------------------------


def test_internal_traffic_policy_local_never_leaves_the_node(lab: Lab) -> None:
    with applied(lab, service("inner", internalTrafficPolicy="Local", selector={"who": "s2"})):
        ways = [(address, 80) for address in vips(lab, "inner")]
        assert answers(lab, pod_netns(lab, "c2"), *ways) == {"s2": 24}
        assert answers(lab, lab.netns_of_node("node-2"), *ways) == {"s2": 24}
        for netns in (pod_netns(lab, "c1"), pod_netns(lab, "c3"), lab.netns_of_node("node-1")):
            assert set(answers(lab, netns, *ways, count=1, wait=NO_ANSWER)) <= {"ECONNREFUSED", "ETIMEDOUT"}


@pytest.mark.parametrize(
    ("distribution", "wanted"),
    [
        pytest.param("PreferClose", {"c1": {"s1", "s2"}, "c2": {"s1", "s2"}, "c3": {"s3"}}, id="zone"),
        pytest.param("PreferSameNode", {"c1": {"s1"}, "c2": {"s2"}, "c3": {"s3"}}, id="node"),
    ],
)
def test_traffic_is_kept_near_as_far_as_there_are_endpoints(
    lab: Lab, distribution: str, wanted: dict[str, set[str]]
) -> None:
    with applied(lab, service("near", trafficDistribution=distribution)):
        ways = [(address, 80) for address in vips(lab, "near")]
        for pod, who in wanted.items():
            assert set(answers(lab, pod_netns(lab, pod), *ways, count=20)) == who, pod
        with status_of(lab, "s3", ready=False):
            # West has none: its clients use the others'.
            assert set(answers(lab, pod_netns(lab, "c3"), *ways, count=20)) == {"s1", "s2"}


def test_hints_of_slices_say_for_which_zone_an_endpoint_is(lab: Lab) -> None:
    hints = {"s1": "west", "s2": "west", "s3": "east"}
    slices = [
        endpoint_slice(
            "hinted",
            str(index),
            [
                {
                    "address": addresses(lab, pod)[index],
                    "hints": {"forZones": [{"name": zone}]},
                    "nodeName": f"node-{pod[1]}",
                }
                for pod, zone in hints.items()
            ],
            [{"port": 8080}],
        )
        for index in range(2)
    ]
    with applied(lab, service("hinted", selector=None), *slices):
        ways = [(address, 80) for address in vips(lab, "hinted")]
        assert set(answers(lab, pod_netns(lab, "c1"), *ways, count=20)) == {"s3"}
        assert set(answers(lab, pod_netns(lab, "c3"), *ways, count=20)) == {"s1", "s2"}
        del slices[0]["endpoints"][0]["hints"]
        write(lab, *slices)
        # One without a hint: hints are not followed.
        assert set(answers(lab, pod_netns(lab, "c1"), ways[0], count=30)) == set(SERVERS)
        assert set(answers(lab, pod_netns(lab, "c1"), ways[1], count=20)) == {"s3"}


# Readiness ------------------------------------------------------------------------------------------------------------


def test_endpoints_that_are_not_ready_get_no_connections_unless_they_are_published(lab: Lab) -> None:
    with (
        applied(lab, service("ready"), service("published", publishNotReadyAddresses=True)),
        status_of(lab, "s1", ready=False),
    ):
        for name, who in (("ready", {"s2", "s3"}), ("published", set(SERVERS))):
            ways = [(address, 80) for address in vips(lab, name)]
            assert set(answers(lab, pod_netns(lab, "c1"), *ways, count=20)) == who, name
        states = {each["pod"]: (each["status"], each["used"]) for each in endpoints(lab, "ready")}
        assert states == {"s1": ("NotReady", False), "s2": ("Ready", True), "s3": ("Ready", True)}


def test_terminating_endpoints_are_used_only_where_no_other_is_left(lab: Lab) -> None:
    with applied(lab, service("leaving", selector={"app": "server"})):
        ways = [(address, 80) for address in vips(lab, "leaving")]
        with contextlib.ExitStack() as stack:
            stack.enter_context(status_of(lab, "s1", ready=True, terminating=True))
            assert set(answers(lab, pod_netns(lab, "c1"), *ways, count=20)) == {"s2", "s3"}
            stack.enter_context(status_of(lab, "s2", ready=True, terminating=True))
            stack.enter_context(status_of(lab, "s3", ready=False, terminating=True))
            # None is ready; two still serve while they end, one doesn't.
            assert set(answers(lab, pod_netns(lab, "c1"), *ways, count=20)) == {"s1", "s2"}


# Affinity -------------------------------------------------------------------------------------------------------------


def slices_of(lab: Lab, name: str, *pods: str) -> list[dict[str, object]]:
    return [
        endpoint_slice(name, str(index), [{"address": addresses(lab, pod)[index]} for pod in pods], [{"port": 8080}])
        for index in range(2)
    ]


def sticky(lab: Lab, name: str) -> dict[tuple[str, str], set[str]]:
    """Who answers each client by each family."""
    both = vips(lab, name)
    found = {pod: call(pod_netns(lab, pod), *(to(address, 80, count=6) for address in both)) for pod in CLIENTS}
    return {
        (pod, address): set(names(each))
        for pod, outcomes in found.items()
        for address, each in zip(both, outcomes, strict=True)
    }


def learnt(lab: Lab) -> int:
    """How many clients all switches remember."""
    return sum(
        "priority=" in line for node in lab.nodes for line in ofctl(lab, node, "dump-flows", "br-int", "table=31")
    )


def test_a_client_keeps_its_endpoint_while_others_come_and_go_and_until_it_goes(lab: Lab) -> None:
    asked = service("sticky", selector=None, sessionAffinity="ClientIP")
    with applied(lab, asked, *slices_of(lab, "sticky", "s1")):
        assert list(sticky(lab, "sticky").values()) == [{"s1"}] * 6
        write(lab, *slices_of(lab, "sticky", "s1", "s2", "s3"))
        # Chosen anew, six clients would all meet s1 once in 729.
        assert list(sticky(lab, "sticky").values()) == [{"s1"}] * 6
        write(lab, *slices_of(lab, "sticky", "s2", "s3"))
        chosen = sticky(lab, "sticky")
        assert all(len(each) == 1 and each < {"s2", "s3"} for each in chosen.values()), chosen
        write(lab, *slices_of(lab, "sticky", "s1", "s2", "s3"))
        assert sticky(lab, "sticky") == chosen


def test_a_client_is_forgotten_after_the_timeout_of_its_service(lab: Lab) -> None:
    before = learnt(lab)
    # Long enough for the machine that this is to see that all of them are remembered.
    for seconds in (1, 4, 16):
        config = {"clientIP": {"timeoutSeconds": seconds}}
        asked = service("short", selector=None, sessionAffinity="ClientIP", sessionAffinityConfig=config)
        with applied(lab, asked, *slices_of(lab, "short", "s1")):
            sticky(lab, "short")
            if learnt(lab) < before + 6 and seconds < 16:
                continue
            assert learnt(lab) == before + 6
            write(lab, *slices_of(lab, "short", "s1", "s2", "s3"))

            def chosen_anew() -> bool:
                until(lambda: learnt(lab) <= before, "the clients are forgotten")
                return any(each - {"s1"} for each in sticky(lab, "short").values())

            # Six that are chosen anew are all sent to s1 again once in 729.
            until(chosen_anew, "not all have s1 again")
            return


def test_the_clients_of_a_service_are_forgotten_when_it_goes_or_keeps_them_no_longer(lab: Lab) -> None:
    before = learnt(lab)
    others = before + 6
    with applied(lab, service("kept", sessionAffinity="ClientIP")):
        sticky(lab, "kept")
        assert learnt(lab) == others
        # By a group that all nodes have, and by one of each node's own.
        for policy in ("Cluster", "Local"):
            asked = service("brief", sessionAffinity="ClientIP", internalTrafficPolicy=policy)
            for end in (service("brief", internalTrafficPolicy=policy), None):
                write(lab, asked)
                sticky(lab, "brief")
                assert learnt(lab) == others + 6
                # A datapath flow whose packets are yet to be counted has its client remembered once more when they are.
                for node in lab.nodes:
                    appctl(lab.layout, node, "revalidator/wait")
                write(lab, end) if end is not None else unlink(lab, asked)
                assert learnt(lab) == others, (policy, end)
    assert learnt(lab) == before


# Who answers for an address -------------------------------------------------------------------------------------------


def announcers(lab: Lab, address: str) -> list[str]:
    """The nodes whose hosts answer for an address on the underlay."""
    return [
        node
        for node in lab.nodes
        if f"{address} " in inside(lab.netns_of_node(node), ["ip", "neigh", "show", "proxy"]).stdout
    ]


def neighbour(lab: Lab, address: str) -> str:
    """The MAC that the host outside knows for an address."""
    words = ip(lab.layout.outside, "neigh", "show", address).split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


def test_one_node_announces_an_address_and_another_does_when_its_switch_is_lost(lab: Lab) -> None:
    with applied(lab, service("announced", type="LoadBalancer")):
        both = balanced(lab, "announced")
        for address in both:
            until(lambda address=address: len(announcers(lab, address)) == 1, "it is announced")  # type: ignore[misc]
        before = {address: announcers(lab, address)[0] for address in both}
        assert row(lab, "announced")["announcedBy"] == sorted(set(before.values()))
        assert set(answers(lab, lab.layout.outside, *((each, 80) for each in both))) <= set(SERVERS)
        macs = {address: neighbour(lab, address) for address in both}
        lost = before[both[0]]
        moved = [address for address in both if before[address] == lost]
        lab.stop_switch(lost)
        try:

            def elsewhere() -> bool:
                others = set(lab.nodes) - {lost}
                return all(len(others & set(announcers(lab, address))) == 1 for address in moved)

            until(elsewhere, "another node announces what the lost one did")
            # The neighbours were told, not asked: a stale entry would outlast this.
            until(lambda: all(neighbour(lab, each) != macs[each] for each in moved), "neighbours know")
            rest = set(SERVERS) - {f"s{lost[-1]}"}
            found = answers(lab, lab.layout.outside, *((each, 80) for each in both), wait=NO_ANSWER)
            assert set(found) & rest, found
        finally:
            lab.start_switch(lost)
            lab.wait_for_sync()
        until(
            lambda: [announcers(lab, each) for each in both] == [[before[each]] for each in both],
            "it is back",
            timeout=60,
        )
        ways = [(each, 80) for each in both]
        until(lambda: set(answers(lab, lab.layout.outside, *ways, wait=2)) <= set(SERVERS), "all answer")
