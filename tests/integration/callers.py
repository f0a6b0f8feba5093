"""Services for tests and calls of them: from pods, from nodes and from outside of the cluster."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from probes import HERE, LONG, inside, pod_netns, until

from deploy.lab.cluster import Lab
from deploy.lab.layout import netns_path
from deploy.lab.substrate import appctl, run, switch_environment
from flows.cookies import Kind, Scope, cookie
from flows.pipeline import DIGEST
from topology.naming import GATEWAY_PORT, HAIRPIN_ADDRESSES, object_id

Document = dict[str, Any]
Call = dict[str, Any]
Outcome = dict[str, Any]

HAIRPIN = tuple(map(str, HAIRPIN_ADDRESSES))
#: The lab's host outside, as nodes see it.
OUTSIDE = ("172.30.0.254", "fd00:172:30::fe")
SERVERS = ("s1", "s2", "s3")
#: What is refused is refused in far less time than it would take to give up.
AT_ONCE = 0.5


# Objects --------------------------------------------------------------------------------------------------------------


def service(name: str, *ports: Mapping[str, Any], **spec: Any) -> Document:
    """A Service of both families; by default for all servers, port 80 by TCP."""
    spec.setdefault("ipFamilyPolicy", "PreferDualStack")
    spec.setdefault("selector", {"app": "server"})
    listed = [dict(each) for each in ports] or [{"port": 80, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {**{key: value for key, value in spec.items() if value is not None}, "ports": listed},
    }


def endpoint_slice(
    service: str, part: str, endpoints: Iterable[Mapping[str, Any]], ports: Iterable[Mapping[str, Any]]
) -> Document:
    """A slice of a Service's endpoints. They say their address as `address`, and what else a slice's endpoint says."""
    found = [{**each, "addresses": [each["address"]]} for each in endpoints]
    for each in found:
        del each["address"]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-{part}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv6" if found and ":" in found[0]["addresses"][0] else "IPv4",
        "endpoints": found,
        "ports": [dict(each) for each in ports],
    }


def path_of(lab: Lab, document: Document) -> Path:
    metadata = document["metadata"]
    return lab.layout.manifests / f"{document['kind'].lower()}.{metadata.get('namespace', '')}.{metadata['name']}.yaml"


def put(path: Path, text: str) -> None:
    """Write a manifest that nobody reads half of."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    temporary.rename(path)


def write(lab: Lab, *documents: Document) -> None:
    """Put objects among the lab's manifests, as they are; returns when every switch has what they mean."""
    for each in documents:
        # JSON is YAML, and made in no time also where there are a thousand endpoints.
        put(path_of(lab, each), json.dumps(each))
    lab.wait_for_manifests()


def unlink(lab: Lab, *documents: Document) -> None:
    """Take objects away again."""
    for each in documents:
        path_of(lab, each).unlink(missing_ok=True)
    lab.wait_for_manifests()


@contextlib.contextmanager
def applied(lab: Lab, *documents: Document) -> Iterator[None]:
    """Objects that are there within a block."""
    write(lab, *documents)
    try:
        yield
    finally:
        unlink(lab, *documents)


def row(lab: Lab, name: str, **query: str) -> dict[str, Any]:
    """What `signalbox get services` tells of a Service."""
    found: dict[str, Any]
    (found,) = [each for each in lab.ask("services", **query)["items"] if each["name"] == name]
    return found


def endpoints(lab: Lab, name: str, **query: str) -> list[dict[str, Any]]:
    """What `signalbox get endpoints` tells of a Service's."""
    return [each for each in lab.ask("endpoints", **query)["items"] if each["name"] == name]


def vips(lab: Lab, name: str) -> list[str]:
    """A Service's cluster addresses, IPv4 first."""
    return sorted(row(lab, name)["clusterIPs"], key=lambda each: ":" in each)


def balanced(lab: Lab, name: str) -> list[str]:
    """Its external addresses, IPv4 first, once every host brings them into its bridge: agents look now and then."""
    found = sorted(row(lab, name)["externalIPs"], key=lambda each: ":" in each)
    for netns in map(lab.netns_of_node, lab.nodes):
        for each in found:
            argv = ["ip", "route", "get", each]
            until(lambda netns=netns, argv=argv: GATEWAY_PORT in inside(netns, argv).stdout, f"{netns}: {each}")  # type: ignore[misc]
    return found


def node_port(lab: Lab, name: str, index: int = 0) -> int:
    return int(row(lab, name)["ports"][index].partition(":")[2].partition("/")[0])


# Calls ----------------------------------------------------------------------------------------------------------------


def places(lab: Lab) -> dict[str, str]:
    """Namespaces to call from: a pod on s1's node, a pod on another, a node, outside of the cluster."""
    return {
        "pod c1": pod_netns(lab, "c1"),
        "pod c3": pod_netns(lab, "c3"),
        "node-2": lab.netns_of_node("node-2"),
        "outside": lab.layout.outside,
    }


def to(address: str, port: int, kind: str = "tcp", count: int = 1, **rest: Any) -> Call:
    return {"kind": kind, "address": address, "port": port, "count": count, **rest}


def client(netns: str, mode: str, calls: Sequence[Call]) -> list[str]:
    return [
        "nsenter", f"--net={netns_path(netns)}", "--", "python3", "-I", "-S", str(HERE / "call_client.py"), mode,
        json.dumps(list(calls)),
    ]  # fmt: skip


def call(netns: str, *calls: Call) -> list[list[Outcome]]:
    """Make all calls, and for each give the outcomes."""
    done = subprocess.run(client(netns, "once", calls), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found: list[list[Outcome]] = json.loads(done.stdout)
    return found


def refused_at_once(netns: str, *calls: Call) -> None:
    """Every call is refused, and each at once, if perhaps not the first time: the machine may be busy with others."""
    slow = list(calls)

    def done() -> bool:
        for each, (outcome,) in zip(list(slow), call(netns, *slow), strict=True):
            assert outcome.get("error") == "ECONNREFUSED", (each, outcome)
            if outcome["seconds"] < AT_ONCE:
                slow.remove(each)
        return not slow

    until(done, f"refused at once are {slow}")


def names(outcomes: Iterable[Outcome]) -> Counter[str]:
    """Who has answered how often, or which errors there were."""
    return Counter(each.get("name") or each["error"] for each in outcomes)


class Held:
    """Connections that are open from the beginning to the end of a block."""

    def __init__(self, netns: str, *calls: Call) -> None:
        self.calls = calls
        self._process = subprocess.Popen(
            client(netns, "hold", calls), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, *seconds: float) -> list[Outcome]:
        """One more question on each connection. So many seconds the answers may take; if nothing is said, very long."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(seconds or [LONG] * len(self.calls)) + "\n")
        self._process.stdin.flush()
        found: list[Outcome] = json.loads(self._process.stdout.readline())
        return found


class Steady:
    """Calls one after another, each a new connection, until `finish`."""

    def __init__(self, netns: str, *calls: Call) -> None:
        self.outcomes: list[Outcome] = []
        self._process = subprocess.Popen(
            client(netns, "steady", calls), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "begun\n"

    def finish(self) -> list[Outcome]:
        if not self.outcomes:
            output, _ = self._process.communicate(timeout=120)
            self.outcomes = json.loads(output)
        return self.outcomes


@contextlib.contextmanager
def steadily(*clients: tuple[str, Sequence[Call]]) -> Iterator[list[Steady]]:
    running = [Steady(netns, *calls) for netns, calls in clients]
    try:
        yield running
    finally:
        for each in running:
            each.finish()


# Switches -------------------------------------------------------------------------------------------------------------


def ofctl(lab: Lab, node: str, *words: str) -> list[str]:
    """The lines that ovs-ofctl prints for a node's bridge."""
    return run(["ovs-ofctl", *words], env=switch_environment(lab.layout, node)).splitlines()


def taps(lab: Lab, node: str) -> list[str]:
    """The taps of captures and live traces. A digest's cookie may be any number, one of theirs too."""
    found = ofctl(lab, node, "--no-names", "dump-flows", "br-int", "cookie=0x5d00000000000000/0xff00000000000000")
    return [line for line in found if "cookie=" in line and f"table={DIGEST.number}," not in line]


def flows_of_service(lab: Lab, node: str, name: str, scope: Scope = Scope.CLUSTER) -> list[str]:
    """The flows with the cookie of a Service, of the cluster's scope or the node's, without counters."""
    mark = cookie(scope, Kind.SERVICE, object_id("Service", "default", name))
    lines = ofctl(lab, node, "-O", "OpenFlow15", "--no-stats", "dump-flows", "br-int", f"cookie={mark:#x}/-1")
    return sorted(line.strip() for line in lines if "cookie=" in line)


def groups(lab: Lab, node: str) -> dict[str, str]:
    """A switch's groups by their number."""
    lines = ofctl(lab, node, "-O", "OpenFlow15", "dump-groups", "br-int")
    found = [line.strip() for line in lines if "group_id=" in line]
    return {line.partition("group_id=")[2].partition(",")[0]: line for line in found}


def conntrack(lab: Lab, node: str, text: str) -> list[str]:
    """A node's tracked connections that a text is in."""
    return [line for line in appctl(lab.layout, node, "dpctl/dump-conntrack").splitlines() if text in line]


def signalbox(lab: Lab, *words: str) -> str:
    """What the command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.command", *words, "--lab", lab.layout.name],
        capture_output=True, text=True, timeout=60, check=False, cwd=HERE.parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def ip(netns: str, *words: str) -> str:
    done = inside(netns, ["ip", *words])
    assert done.returncode == 0, done.stderr
    return done.stdout
