"""What a Service's address costs its clients: the same pod by the VIP and directly, in one run, in turn.

A lab of two nodes on Open vSwitch's userspace datapath. A client calls a pod on its own node and one on the other,
over both families, once by a Service whose only endpoint that pod is and once by the pod's own address: connections
(connect, request, answer, close; one after another) a second, and bytes a second of one connection.
"""

import signal
import statistics
import subprocess
import sys

import rig
from lab_pods import DIRECT_PORT, FAR, NAMESPACE, NEAR, PORT, addresses, in_client, lab_with_servers
from pod_program import SINK

from deploy.lab.cluster import Lab
from deploy.lab.layout import LabError

RUNS, SECONDS, QUICK_RUNS, QUICK_SECONDS = 7, 2.0, 1, 1.0
#: The Service's ports: to the pod's port that answers, and to the one that takes bytes.
ASK, TAKE = 80, 81


def _service(name: str) -> str:
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\n"
        f"spec: {{selector: {{app: {name}}}, ipFamilyPolicy: RequireDualStack, ports: "
        f"[{{name: ask, port: {ASK}, targetPort: {PORT}}}, {{name: take, port: {TAKE}, targetPort: {PORT + SINK}}}]}}"
        "\n---\n"
    )


def one(lab: Lab, what: str, address: str, port: int, seconds: float) -> float:
    argv = in_client(lab, what, address, port, seconds)
    return float(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout)


def measure(lab: Lab, runs: int, seconds: float) -> list[list[str]]:
    vips = {row["name"]: row["clusterIPs"] for row in lab.ask("services")["items"]}
    rows = []
    switches = [lab.switch_process(node) for node in lab.nodes]
    for what, unit, scale, vip_port, direct_port in (
        ("connect", "connections/s", 1.0, ASK, DIRECT_PORT),
        ("send", "Mbit/s", 8e-6, TAKE, DIRECT_PORT + SINK),
    ):
        for name, where in ((NEAR, "same node"), (FAR, "across nodes")):
            for family, direct, vip in zip(("IPv4", "IPv6"), map(str, addresses(lab, name)), vips[name], strict=True):
                ways = {"direct": (direct, direct_port), "by the VIP": (vip, vip_port)}
                found: dict[str, list[float]] = {way: [] for way in ways}
                for number in range(runs + 1):
                    rig.progress(f"{what} {where} {family}, run {number} of {runs}")
                    for way, (address, port) in ways.items():
                        figure = one(lab, what, address, port, seconds if number else 0.2) * scale
                        if number:
                            found[way].append(figure)
                base = statistics.median(found["direct"])
                for way, figures in found.items():
                    middle = statistics.median(figures)
                    rows.append(
                        [f"{unit}, {where}, {family}: direct" if way == "direct" else f"  {way}", f"{middle:,.0f}",
                         f"{min(figures):,.0f}", f"{max(figures):,.0f}", f"{middle / base:.2f}"]
                    )  # fmt: skip
    if [lab.switch_process(node) for node in lab.nodes] != switches:
        raise RuntimeError("an ovs-vswitchd has died and was started again meanwhile")
    return rows


def main() -> None:
    quick = rig.arguments(__doc__ or "")
    rig.need("ovs-vswitchd", "ovsdb-server", "nft", "ethtool", "nsenter")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    runs, seconds = (QUICK_RUNS, QUICK_SECONDS) if quick else (RUNS, SECONDS)
    try:
        with lab_with_servers(_service(NEAR) + _service(FAR)) as lab:
            rows = measure(lab, runs, seconds)
    except LabError as error:
        sys.exit(f"the lab: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    rig.table([f"name (median of {runs} of {seconds:g} s)", "median", "least", "most", "ratio to direct"], rows)


if __name__ == "__main__":
    main()
