"""BIRD as a router beside a lab: what it learns, when it forgets, and whether packets come the way it was told.

The router is the lab's host outside. Its session over IPv4 it opens itself and takes several next hops for a prefix;
the one over IPv6 the controller opens, and at first each side has another idea of which AS the controller is of. A
third router isn't there at all.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attribution import orphans
from callers import SERVERS, applied, balanced, call, names, path_of, row, service, to, unlink, write
from probes import addresses, inside, node_addresses, pings, until

from controller.cli import client
from deploy.lab import processes, substrate
from deploy.lab.cluster import Lab, owner, settings_for

HERE = Path(__file__).parent
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
BIRD, BIRDC = shutil.which("bird", path=PATH), shutil.which("birdc", path=PATH)
pytestmark = pytest.mark.skipif(BIRD is None, reason="needs bird2")

ROUTER, CONTROLLER = ("172.30.0.254", "fd00:172:30::fe"), ("172.30.0.253", "fd00:172:30::fd")
NOBODY = "172.30.0.77"
OPTIONS = {
    "BGP_AS": "64512",
    # Nobody listens on port 1999: that session is there only if the router can open it.
    "BGP_PEER": f"{ROUTER[0]}@64999:1999 {ROUTER[1]}@64999 {NOBODY}@64999",
    "BGP_LISTEN": f"{CONTROLLER[0]}:1790",
    "BGP_RESTART_TIME": "60",
}
CONFIGURATION = """
log "LOG" all;
router id 172.30.0.254;
protocol device {}
protocol direct { ipv4; ipv6; }
protocol kernel { ipv4 { export where source = RTS_BGP; }; metric 10; }
protocol kernel { ipv6 { export where source = RTS_BGP; }; metric 10; }
template bgp controller {
  local as 64999;
  connect delay time 1; connect retry time 1; error wait time 1,2;
}
protocol bgp several from controller {
  neighbor 172.30.0.253 port 1790 as 64512;
  ipv4 { import all; export none; add paths rx; };
  ipv6 { import all; export none; add paths rx; };
}
protocol bgp one from controller {
  neighbor fd00:172:30::fd as AS;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
"""
_ROUTE = re.compile(r"^(\S+)?\s+unicast \[(\w+) (\S+)")


class Router:
    """BIRD in the lab's namespace outside."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab, self._directory = lab, directory
        self._configure("65000")
        argv = [str(BIRD), "-f", "-c", str(directory / "bird.conf"), "-s", str(directory / "bird.ctl")]
        argv += ["-P", str(directory / "bird.pid")]
        self._process = processes.start(argv, directory / "bird.out", netns=lab.layout.outside)
        until(lambda: (directory / "bird.ctl").exists(), "BIRD's socket")

    def _configure(self, asn: str) -> None:
        text = CONFIGURATION.replace("AS;", f"{asn};").replace("LOG", str(self._directory / "bird.log"))
        (self._directory / "bird.conf").write_text(text)

    def expect(self, asn: str) -> None:
        """Have it expect this AS at the end of the session over IPv6."""
        self._configure(asn)
        self.ask("configure")

    def ask(self, *words: str) -> str:
        argv = [str(BIRDC), "-s", str(self._directory / "bird.ctl"), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=10).stdout

    def is_up(self, protocol: str) -> bool:
        return "Established" in self.ask("show", "protocols", protocol)

    def routes(self, protocol: str = "several") -> dict[str, list[str]]:
        """What it has learnt by a session: next hops by prefix."""
        found: dict[str, list[str]] = {}
        prefix = ""
        for line in self.ask("show", "route", "protocol", protocol).splitlines():
            if match := _ROUTE.match(line):
                prefix = match[1] or prefix
            elif line.startswith("\tvia "):
                found.setdefault(prefix, []).append(line.split()[1])
        return {prefix: sorted(hops) for prefix, hops in found.items()}

    def stop(self) -> None:
        processes.stop([self._process])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three nodes, servers and clients; the controller has an address on the underlay, since it speaks TLS there."""
    text = (HERE / "services.yaml").read_text().replace("SERVER", str(HERE / "line_server.py"))
    manifests = tmp_path_factory.mktemp("services") / "services.yaml"
    manifests.write_text(text)
    here = Lab(f"b{os.getpid()}")
    settings = settings_for(here.layout.name, None, [manifests], tls=True, **owner(os.getpid()))
    problems = here.up(settings, [manifests])
    try:
        assert not problems
        # It looks for load balancers on its own network as a rule: here only where BGP says they are.
        for version, cidr in zip("46", settings.load_balancers, strict=True):
            inside(here.layout.outside, ["ip", f"-{version}", "route", "del", cidr])
        with pytest.MonkeyPatch.context() as patch:
            for name, value in OPTIONS.items():
                patch.setenv(f"SIGNALBOX_CONTROLLER_{name}", value)
            here.stop_controller()
            here.start_controller()
            in_sync(here)
            yield here
    finally:
        here.down()


@pytest.fixture(scope="module")
def router(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    here = Router(lab, tmp_path_factory.mktemp("bird"))
    try:
        until(lambda: here.is_up("several"), "the session that the router opens")
        until(lambda: len(here.routes()) >= 6, "three nodes' pod CIDRs")
        yield here
    finally:
        here.stop()


def in_sync(lab: Lab) -> None:
    """Wait for all switches. The lab as a whole is never in order: a router is missing."""
    until(lambda: lab.ask("status")["nodesInSync"] == 3, "three nodes in sync", timeout=30)


def log_of(lab: Lab) -> str:
    return (lab.layout.directory / "controller.log").read_text()


def peers(lab: Lab) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in lab.ask("bgp")["items"]}


def host(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def pod_routes(lab: Lab) -> dict[str, list[str]]:
    """What routers should know of pods: each CIDR by its node's address of the same family."""
    return {
        cidr: [next(each for each in node["addresses"] if (":" in each) == (":" in cidr))]
        for node in lab.ask("nodes")["items"]
        for cidr in node["podCIDRs"]
    }


def kernel(lab: Lab) -> str:
    """The routes by which the router forwards."""
    return "".join(inside(lab.layout.outside, ["ip", f"-{version}", "route"]).stdout for version in "46")


def announced(lab: Lab, name: str, *nodes: str) -> dict[str, list[str]]:
    """What routers should know of a Service's addresses, by these nodes."""
    return {
        host(address): sorted(
            next(each for each in node_addresses(lab, node) if (":" in each) == (":" in address)) for node in nodes
        )
        for address in row(lab, name)["externalIPs"]
    }


def test_a_router_with_another_as_in_mind_is_told_once_and_the_others_work(lab: Lab, router: Router) -> None:
    until(lambda: "wrong AS" in peers(lab)[ROUTER[1]]["reason"], "the controller knows why")
    until(lambda: "BGP Error: Bad peer AS" in router.ask("show", "protocols", "one"), "the router does, too")
    time.sleep(5)  # Some more attempts: there is nothing to be awaited but that nothing more is said.
    status = lab.ask("status")
    assert not status["healthy"]
    problems = "\n".join(status["problems"])
    assert f"BGP peer {ROUTER[1]} (AS 64999): it ended with wrong AS" in problems
    assert f"BGP peer {NOBODY} (AS 64999): no connection with port 179" in problems
    assert log_of(lab).count(f"peer {ROUTER[1]} (AS 64999) is down: it ended with wrong AS") == 1
    assert log_of(lab).count(f"peer {NOBODY} (AS 64999) is down") == 1
    assert router.is_up("several")
    router.expect("64512")
    until(lambda: router.is_up("one"), "the session when both mean the same AS")
    until(lambda: router.routes("one") == pod_routes(lab), "pods' CIDRs over IPv6")
    assert peers(lab)[ROUTER[1]]["state"] == "Established"
    assert status["bgp"]["peers"] == 3


def test_the_router_knows_each_node_s_pods_by_that_node_s_address(lab: Lab, router: Router) -> None:
    until(lambda: router.routes() == pod_routes(lab), "exactly the nodes' pod CIDRs")
    assert len(pod_routes(lab)) == 6
    until(lambda: all(cidr in kernel(lab) for cidr in pod_routes(lab)), "the router's kernel knows")
    for pod in ("s1", "s3"):
        for address in addresses(lab, pod):
            assert pings(lab.layout.outside, address, count=2) == 2


def test_a_load_balancer_s_address_leads_to_the_node_that_answers_for_it(lab: Lab, router: Router) -> None:
    web = service("web", type="LoadBalancer")
    with applied(lab, web):
        # Both families' addresses have a node each, which may not be the same; the one that answers ARP for it, too.
        answering = row(lab, "web")["announcedBy"]
        found = announced(lab, "web", *answering)
        until(lambda: router.routes().keys() == pod_routes(lab).keys() | found.keys(), "both families' addresses")
        learnt = router.routes()
        assert all(len(learnt[prefix]) == 1 and set(learnt[prefix]) <= set(hops) for prefix, hops in found.items())
        assert {row["owner"] for row in lab.ask("routes")["items"] if row["name"] in found} == {"Service/default/web"}
        until(lambda: all(address in kernel(lab) for address in balanced(lab, "web")), "the router's kernel knows")
        for address in balanced(lab, "web"):
            assert set(names(call(lab.layout.outside, to(address, 80))[0])) <= set(SERVERS)
        assert orphans(lab) == []
        unlink(lab, web)
        gone = until(lambda: router.routes() == pod_routes(lab), "the Service's addresses are withdrawn")
        print(f"withdrawn after {gone:.2f} s")


def test_addresses_that_stay_on_their_node_lead_to_all_that_have_endpoints(lab: Lab, router: Router) -> None:
    web = service("near", type="LoadBalancer", externalTrafficPolicy="Local", selector={"app": "server"})
    until(lambda: router.is_up("one"), "the router's other session")
    with applied(lab, web):
        found = announced(lab, "near", "node-1", "node-2", "node-3")
        until(lambda: router.routes() == {**pod_routes(lab), **found}, "all three nodes")
        # Who takes one next hop for a prefix gets one of them.
        assert all(len(router.routes("one")[prefix]) == 1 for prefix in found)
        write(lab, service("near", type="LoadBalancer", externalTrafficPolicy="Local", selector={"who": "s2"}))
        found = announced(lab, "near", "node-2")
        until(lambda: router.routes() == {**pod_routes(lab), **found}, "the one node that has an endpoint")
        until(lambda: router.routes("one") == {**pod_routes(lab), **found}, "the same where one is taken")
        write(lab, service("near", type="LoadBalancer", externalTrafficPolicy="Local", selector={"who": "nobody"}))
        until(lambda: router.routes() == pod_routes(lab), "nobody takes packets without endpoints")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_controller_that_comes_back_has_withdrawn_nothing(lab: Lab, router: Router, number: int) -> None:
    until(lambda: router.is_up("one"), "the router's other session")
    stays, goes = service("stays", type="LoadBalancer"), service("goes", type="LoadBalancer")
    with applied(lab, stays, goes):
        until(lambda: len(router.routes()) == 10, "both Services")
        before = router.routes()
        leaving = {host(each) for each in row(lab, "goes")["externalIPs"]}
        remaining = {prefix: hops for prefix, hops in before.items() if prefix not in leaving}
        lab.stop_controller(number)
        until(lambda: not router.is_up("several") and not router.is_up("one"), "the router notices")
        assert router.routes() == before
        path_of(lab, goes).unlink()
        begun = time.monotonic()
        lab.start_controller()
        while not router.is_up("several") or set(router.routes()) & leaving:
            assert remaining.items() <= router.routes().items()
            assert time.monotonic() - begun < 30
            time.sleep(0.05)
        print(f"what has gone meanwhile is withdrawn {time.monotonic() - begun:.2f} s after the start")
        assert router.routes() == remaining
        in_sync(lab)


def test_an_engine_that_dies_is_started_again_and_nothing_is_withdrawn(lab: Lab, router: Router) -> None:
    until(lambda: router.routes() == pod_routes(lab), "nothing of other tests is left")
    before = router.routes()
    former = engines(lab)
    assert len(former) == 1
    os.kill(former[0], signal.SIGKILL)
    until(lambda: not router.is_up("several"), "the router notices")
    until(lambda: bool(engines(lab)) and engines(lab) != former, "another one")
    until(lambda: router.is_up("several"), "its session")
    assert router.routes() == before
    assert "ExaBGP ended with status -9" in log_of(lab)


def test_a_node_that_is_lost_takes_no_packets_until_it_is_back(lab: Lab, router: Router) -> None:
    gone = {prefix for prefix, hops in pod_routes(lab).items() if set(hops) & set(node_addresses(lab, "node-3"))}
    lab.stop_switch("node-3", signal.SIGKILL)
    try:
        until(lambda: not gone & set(router.routes()), "its pods' CIDRs are withdrawn")
        assert len(router.routes()) == 4
    finally:
        substrate.start_switch(lab.layout, "node-3")
        in_sync(lab)
        substrate.prepare_switch(lab.layout, lab.settings, "node-3", lab.nodes.index("node-3"))
    until(lambda: router.routes() == pod_routes(lab), "it is announced again")


def test_nothing_is_left_running_when_the_controller_is_gone(lab: Lab) -> None:
    assert engines(lab)
    lab.stop_controller(signal.SIGKILL)
    try:
        until(lambda: not engines(lab), "ExaBGP and what joins it to the controller have ended")
    finally:
        lab.start_controller()
        in_sync(lab)


def test_of_two_controllers_one_announces_and_the_other_takes_over_without_a_gap(tmp_path: Path) -> None:
    here = Lab(f"bb{os.getpid()}")
    settings = settings_for(here.layout.name, 2, tls=True, controllers=2, **owner(os.getpid()))
    with pytest.MonkeyPatch.context() as patch:
        # What the other lab's controllers are told.
        for name in OPTIONS:
            patch.delenv(f"SIGNALBOX_CONTROLLER_{name}", raising=False)
        assert not here.up(settings)
        try:
            patch.setenv("SIGNALBOX_CONTROLLER_BGP_AS", "64512")
            patch.setenv("SIGNALBOX_CONTROLLER_BGP_ROUTER_ID", CONTROLLER[0])
            patch.setenv("SIGNALBOX_CONTROLLER_BGP_PEER", f"{ROUTER[1]}@64999")
            for number in here.controllers:
                here.stop_controller(controller=number)
                here.start_controller(number)
            router = Router(here, tmp_path)
            router.expect("64512")
            try:
                until(lambda: router.routes("one") == pod_routes(here), "the pods' CIDRs")
                (engine,) = engines(here)
                master = speaking(here)
                here.stop_controller(signal.SIGKILL, controller=master)
                until(lambda: not router.is_up("one"), "the router notices")
                begun = time.monotonic()
                while engine in engines(here) or not router.is_up("one"):
                    assert len(router.routes("one")) == 4
                    assert time.monotonic() - begun < 30
                    time.sleep(0.05)
                print(f"another announces {time.monotonic() - begun:.2f} s later")
                assert len(engines(here)) == 1
            finally:
                router.stop()
        finally:
            here.down()


def speaking(lab: Lab) -> int:
    """The controller that announces."""
    (found,) = [
        number
        for number in lab.controllers
        if client.ask(lab.layout.api_of(number), ["status"], {})["bgp"]["announces"]
    ]
    return found


def engines(lab: Lab) -> list[int]:
    """The processes of ExaBGP in the lab: by the configuration that is the lab's own."""
    mark = str(lab.layout.directory).encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if mark in words and b"exabgp.conf" in words:
            found.append(int(path.parent.name))
    return sorted(found)
