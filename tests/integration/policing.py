"""Policies for tests, and who gets through to whom: each question asked by real packets and of `policy check`."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple

from callers import OUTSIDE, Document, unlink, write
from probes import HERE, until

from deploy.lab import processes
from deploy.lab.cluster import Lab
from deploy.lab.layout import WORLD, netns_path, node_addresses, pod_cidrs
from deploy.lab.substrate import appctl

#: The first port that each pod serves, and what the nodes' own servers do.
PORT, HOST_PORT = 8080, 7070
BOTH = ("tcp", "udp")


# Policies -------------------------------------------------------------------------------------------------------------


def policy(
    name: str, pods: Mapping[str, str] | Document | None = None, namespace: str = "red", **spec: Any
) -> Document:
    """A NetworkPolicy for pods of these labels (or selector); the rest is the spec's."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": labelled(pods or {}), **spec},
    }


def labelled(labels: Mapping[str, Any]) -> Document:
    """A selector from labels; one that is a selector already stays."""
    if not labels or labels.keys() & {"matchLabels", "matchExpressions"}:
        return dict(labels)
    return {"matchLabels": dict(labels)}


def cluster_policy(name: str, subject: Document, tier: str = "Admin", priority: int = 10, **rules: Any) -> Document:
    """A ClusterNetworkPolicy."""
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"tier": tier, "priority": priority, "subject": subject, **rules},
    }


def pods_of(namespace: str, **labels: str) -> Document:
    """A peer, or a subject: pods of a namespace, by labels."""
    return {
        "pods": {
            "namespaceSelector": labelled({"kubernetes.io/metadata.name": namespace}),
            "podSelector": labelled(labels),
        }
    }


def forget_flows(lab: Lab) -> None:
    """Empty the flow caches of all switches.

    Open vSwitch's userspace datapath before 3.0.5, 3.1.3 and 3.2.1 may give a change of verdict to the wrong one of two
    cached flows that overlap ("dpif-netdev: Fix dpif_netdev_flow_put", 21410ff800cc), and the other goes on with the
    old one for as long as packets meet it. Tests change policies so fast that it would happen to them often.
    """
    for node in lab.nodes:
        appctl(lab.layout, node, "revalidator/purge")


@contextlib.contextmanager
def policed(lab: Lab, *documents: Document) -> Iterator[None]:
    """Objects that are there within a block, with no verdict of before in any cache."""
    forget_flows(lab)
    write(lab, *documents)
    forget_flows(lab)
    try:
        yield
    finally:
        unlink(lab, *documents)
        forget_flows(lab)


# Ways -----------------------------------------------------------------------------------------------------------------

#: An address of each family.
Addresses = tuple[str, str]


def seen_from_afar(lab: Lab, index: int) -> list[str]:
    """The addresses by which other nodes' pods know a host: by a tunnel it comes from its end of the pods' network."""
    routed = lab.settings.mode == "routed"
    own = node_addresses(lab.settings, index) if routed else [cidr[1] for cidr in pod_cidrs(lab.settings, index)]
    return list(map(str, own))


class Way(NamedTuple):
    """From whom to whom: names of pods, as `red/web1`, of nodes, `outside`, or (to) a pair of addresses."""

    source: str
    target: str | Addresses
    port: int
    kind: str
    version: int


def ways(
    sources: str,
    targets: str | Addresses,
    ports: int | Sequence[int] = PORT,
    kinds: Sequence[str] = BOTH,
    versions: Sequence[int] = (4, 6),
) -> list[Way]:
    """Every way between these, by every protocol and family. Names stand side by side, with blanks between them."""
    listed = [ports] if isinstance(ports, int) else ports
    there: Iterable[str | Addresses] = targets.split() if isinstance(targets, str) else [targets]
    return [
        Way(source, target, port, kind, version)
        for source in sources.split()
        for target in there
        for port in listed
        for kind in kinds
        for version in versions
        if source != target
    ]


class Directory:
    """Where everybody of a lab is."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._known: dict[str, list[str]] = {"outside": list(OUTSIDE), "world": list(WORLD)}
        self._seen = dict(self._known)
        for row in lab.ask("pods")["items"]:
            if row["status"] != "HostNetwork":
                self._known[f"{row['namespace']}/{row['name']}"] = row["addresses"]
        self._seen |= self._known
        for index, row in enumerate(lab.ask("nodes")["items"]):
            self._known[row["name"]] = row["addresses"]
            self._seen[row["name"]] = seen_from_afar(lab, index)

    def netns(self, name: str) -> str:
        if name == "outside":
            return self._lab.layout.outside
        namespace, _, pod = name.rpartition("/")
        return self._lab.layout.pod_netns(namespace, pod) if namespace else self._lab.netns_of_node(name)

    def address(self, target: str | Addresses, version: int) -> str:
        listed = self._known[target] if isinstance(target, str) else target
        return next(each for each in listed if ip_address(each).version == version)

    def seen_as(self, source: str, version: int) -> str:
        """The address that a pod sees somebody with."""
        return next(each for each in self._seen[source] if ip_address(each).version == version)


def silent(lab: Lab, asked: Sequence[Way], directory: Directory | None = None) -> None:
    """Nothing at all comes of these ways."""
    found = outcomes(lab, asked, [False] * len(asked), directory)
    assert not any(found), [way for way, said in zip(asked, found, strict=True) if said]


def outcomes(lab: Lab, asked: Sequence[Way], expected: Sequence[bool], directory: Directory | None = None) -> list[str]:
    """What comes of all ways, asked at once: see ask_from.py."""
    directory = directory or Directory(lab)
    questions = [
        {
            "netns": str(netns_path(directory.netns(way.source))),
            "kind": way.kind,
            "address": directory.address(way.target, way.version),
            "port": way.port,
            "expected": wanted,
        }
        for way, wanted in zip(asked, expected, strict=True)
    ]
    return ask(questions)


def ask(questions: Sequence[Mapping[str, Any]]) -> list[str]:
    """What comes of questions as ask_from.py takes them."""
    done = subprocess.run(
        [sys.executable, "-I", str(HERE / "ask_from.py")],
        input=json.dumps(list(questions)), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def hold(lab: Lab, *, allowed: Sequence[Way] = (), denied: Sequence[Way] = ()) -> None:
    """What is allowed is answered, what is denied is met with silence, and `policy check` says the same of it."""
    asked = [*allowed, *denied]
    expected = [True] * len(allowed) + [False] * len(denied)
    answers = zip(asked, expected, outcomes(lab, asked, expected), strict=True)
    wrong = [
        f"{way}: {said or 'silence'}"
        for way, wanted, said in answers
        if _answered(way, said) != wanted or (said and not wanted)
    ]
    directory = Directory(lab)
    for way, wanted in zip(asked, expected, strict=True):
        # What stands behind an address is a Service's to say.
        if isinstance(way.target, str):
            said = check(lab, way, directory)
            if said["allowed"] != wanted:
                wrong.append(f"{way}: policy check says {said['reason']}")
    assert not wrong, "\n".join(["not as expected:", *wrong])


def _answered(way: Way, said: str) -> bool:
    """Whether it is a server that has spoken: a pod with its own name."""
    if isinstance(way.target, str) and "/" in way.target:
        return said == way.target.rpartition("/")[2]
    return said not in ("", "refused", "closed") and not said.isupper()


def check(lab: Lab, way: Way, directory: Directory) -> dict[str, Any]:
    """What `signalbox policy check` says of a way."""
    ends = {"from": directory.seen_as(way.source, way.version), "to": directory.address(way.target, way.version)}
    found: dict[str, Any] = lab.ask("policy-check", **ends, protocol=way.kind.upper(), port=str(way.port))
    return found


def hold_under(lab: Lab, *documents: Document, allowed: Sequence[Way] = (), denied: Sequence[Way] = ()) -> None:
    """The same while these policies are there."""
    with policed(lab, *documents):
        problems = lab.ask("status")["problems"]
        assert not problems, problems
        hold(lab, allowed=allowed, denied=denied)


@contextlib.contextmanager
def serving_outside(lab: Lab, *ports: int) -> Iterator[None]:
    """Within the block somebody outside of the cluster serves these ports, and knows the way to pods."""
    server = processes.start(
        ["python3", "-I", str(HERE / "line_server.py"), *map(str, ports)],
        lab.layout.directory / "outside.log", netns=lab.layout.outside, env={"HOSTNAME": "outside"},
    )  # fmt: skip
    try:
        own = ways("outside", ("127.0.0.1", "::1"), ports)
        until(lambda: "refused" not in outcomes(lab, own, [True] * len(own)), "the server outside")
        yield
    finally:
        processes.stop([server])
