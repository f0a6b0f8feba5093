"""What policies cost the traffic that they allow: the same pods without policies, with 10, and with 1,000, in turn.

A lab of three nodes on Open vSwitch's userspace datapath, with eight pods of four apps on each. Every pod is isolated
by some policy once there are any, and what is measured is allowed by others. A client calls a pod on its own node and
one on another, over IPv4: connections (connect, request, answer, close; one after another) a second, and bytes a
second of one connection. The policies are changed for each measurement, so that what else the machine does meets all.

Then all pods call three pods, one on each node, from several source ports each, and the flows of the datapath are
counted on the node that has most: policies must not make more of them than there are pairs of apps, and clients' source
ports must not count.
"""

import json
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import rig
from lab_pods import DIRECT_PORT, HERE, NAMESPACE, addresses, in_pod, lab_with, server
from pod_program import SINK

from deploy.lab.cluster import Lab
from deploy.lab.layout import LabError
from deploy.lab.substrate import appctl, switch_environment
from topology.naming import BRIDGE

RUNS, SECONDS, QUICK_RUNS, QUICK_SECONDS = 7, 2.0, 1, 1.0
NODES, PODS, APPS, POLICIES = 3, 8, 4, (0, 10, 1_000)
#: How often each pod asks each of the three, each time from another source port.
PORTS, QUICK_PORTS = (5, 50), (5,)
_FILE = "bench-policies.yaml"


def name_of(node: int, index: int) -> str:
    return f"pod-{node}-{index}"


def pods() -> str:
    """The manifests of all pods: they serve, and call one another."""
    return "".join(
        server(name_of(node, index), f"node-{node + 1}", DIRECT_PORT, app=f"app-{index % APPS}")
        for node in range(NODES)
        for index in range(PODS)
    )


# Policies -------------------------------------------------------------------------------------------------------------


def policies(number: int) -> Iterator[dict[str, Any]]:
    """So many policies. The first four allow what is measured; the others are about other ports, and addresses."""
    for index in range(number):
        app = f"app-{index % APPS}"
        if index < APPS:
            peers = [{"podSelector": {"matchLabels": {"app": f"app-{each}"}}} for each in range(APPS)]
            yield _policy(index, app, ingress=_rule("from", peers, DIRECT_PORT, DIRECT_PORT + SINK))
            continue
        outside = {"ipBlock": {"cidr": f"198.18.{index % 256}.0/24", "except": [f"198.18.{index % 256}.16/28"]}}
        other = {"podSelector": {"matchLabels": {"app": f"app-{index // APPS % APPS}"}}}
        everybody = {"namespaceSelector": {}}
        match index // APPS % 4:
            case 0:
                yield _policy(index, app, ingress=_rule("from", [other], 10_000 + index))
            case 1:
                yield _policy(index, app, ingress=_rule("from", [outside], 443))
            case 2:
                yield _policy(index, app, egress=_rule("to", [outside, other, everybody], 443, DIRECT_PORT,
                              DIRECT_PORT + SINK))  # fmt: skip
            case _:
                yield _policy(index, app, ingress=_rule("from", [everybody], 20_000 + index, 30_000 + index))


def _rule(side: str, peers: list[dict[str, Any]], *ports: int) -> dict[str, Any]:
    return {side: peers, "ports": [{"port": port} for port in ports]}


def _policy(index: int, app: str, **directions: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"policy-{index}", "namespace": NAMESPACE},
        "spec": {
            "podSelector": {"matchLabels": {"app": app}},
            "policyTypes": [each.capitalize() for each in directions],
            **{each: [rule] for each, rule in directions.items()},
        },
    }


def put_in_force(lab: Lab, number: int) -> None:
    """Have so many policies in every switch, and no others."""
    path = lab.layout.manifests / _FILE
    path.unlink(missing_ok=True)
    if number:
        temporary = path.with_name(f".{_FILE}")
        temporary.write_text("\n---\n".join(map(json.dumps, policies(number))))
        temporary.rename(path)
    lab.wait_for_sync()


# Measuring ------------------------------------------------------------------------------------------------------------


def traffic(lab: Lab, runs: int, seconds: float) -> list[list[str]]:
    rows = []
    for what, unit, scale, port in (
        ("connect", "connections/s", 1.0, DIRECT_PORT),
        ("send", "Mbit/s", 8e-6, DIRECT_PORT + SINK),
    ):
        for node, where in ((0, "same node"), (1, "across nodes")):
            target = addresses(lab, name_of(node, 1))[0]
            found: dict[int, list[float]] = {number: [] for number in POLICIES}
            for run in range(runs):
                for number in POLICIES:
                    rig.progress(f"{what} {where}, {number} policies, run {run + 1} of {runs}")
                    put_in_force(lab, number)
                    # Once beforehand, for what is only slow at first.
                    for length in (0.2, seconds):
                        argv = in_pod(lab, name_of(0, 0), what, target, port, length)
                        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=length + 60)
                    found[number].append(float(done.stdout) * scale)
            base = statistics.median(found[0])
            for number, figures in found.items():
                middle = statistics.median(figures)
                words = f"  {number:,} policies" if number else f"{unit}, {where}: no policies"
                rows.append([words, f"{middle:,.0f}", f"{min(figures):,.0f}", f"{max(figures):,.0f}",
                             f"{middle / base:.2f}"])  # fmt: skip
    return rows


def datapath_flows(lab: Lab, ports: int, runs: int) -> list[list[str]]:
    rows = []
    clients = [name_of(node, index) for node in range(NODES) for index in range(PODS)]
    targets = [addresses(lab, name_of(node, 0))[0] for node in range(NODES)]
    base = 0.0
    for number in POLICIES:
        put_in_force(lab, number)
        counts = []
        for run in range(runs):
            rig.progress(f"{ports} source ports, {number} policies, run {run + 1} of {runs}")
            for node in lab.nodes:
                appctl(lab.layout, node, "dpctl/del-flows")
            for target in targets:
                running = [
                    subprocess.Popen(in_pod(lab, name, "ask", target, DIRECT_PORT, ports), stdout=subprocess.PIPE)
                    for name in clients
                ]
                answered = sum(int(each.communicate()[0]) for each in running)
                if answered != len(clients) * ports:
                    raise RuntimeError(f"of {len(clients) * ports} connections {answered} were answered")
            counts.append(max(len(appctl(lab.layout, node, "dpctl/dump-flows").splitlines()) for node in lab.nodes))
        middle = statistics.median(counts)
        base = base or middle
        calls = len(clients) * len(targets) * ports
        words = f"  {number:,} policies" if number else f"flows of a datapath, {calls:,} connections: no policies"
        rows.append([words, f"{middle:,.0f}", f"{min(counts):,.0f}", f"{max(counts):,.0f}", f"{middle / base:.2f}"])
    return rows


def measure(lab: Lab, runs: int, seconds: float, ports: tuple[int, ...]) -> list[list[str]]:
    switches = [lab.switch_process(node) for node in lab.nodes]
    rows = []
    for number in POLICIES[1:]:
        put_in_force(lab, number)
        path = switch_environment(lab.layout, HERE)["OVS_RUNDIR"]
        flows = rig.flow_count(f"unix:{path}/{BRIDGE}.mgmt")
        rows.append([f"flows of a bridge with {number:,} policies", f"{flows:,}", "", "", ""])
    rows += traffic(lab, runs, seconds)
    for each in ports:
        rows += datapath_flows(lab, each, runs)
    if [lab.switch_process(node) for node in lab.nodes] != switches:
        raise RuntimeError("an ovs-vswitchd has died and was started again meanwhile")
    return rows


def main() -> None:
    quick = rig.arguments(__doc__ or "")
    rig.need("ovs-vswitchd", "ovsdb-server", "nft", "ethtool", "nsenter")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    runs, seconds, ports = (QUICK_RUNS, QUICK_SECONDS, QUICK_PORTS) if quick else (RUNS, SECONDS, PORTS)
    try:
        with lab_with(pods(), NODES) as lab:
            rows = measure(lab, runs, seconds, ports)
    except LabError as error:
        sys.exit(f"the lab: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    rig.table([f"name (median of {runs} of {seconds:g} s)", "median", "least", "most", "ratio to none"], rows)


if __name__ == "__main__":
    main()
