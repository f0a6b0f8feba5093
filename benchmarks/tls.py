"""1,000 switches that connect to a controller at once, over TLS and over plain TCP: until all are in sync, and memory.

The controller is killed and started again; all switches come back at once. They are in sync already (that is what most
storms are), so what is measured is connections: handshakes, digests, and what a connection costs while it is there.
Then they all get every flow anew, enciphered for each. Each side is a process of its own, and the machine has to do
the clients' half of the handshakes too.

Switches are dummy bridges of one ovs-vswitchd, which all show one certificate, since Open vSwitch has one for all:
the benchmark has the controller take it for any node's.
"""

import os
import statistics
import time

import many_switches
import rig
from fan_out import settle
from many_switches import ControllerProcess, bridges

from deploy import certificates

COUNT, RUNS = 1_000, 5
QUICK_COUNT, QUICK_RUNS = 100, 2
PKI = rig.RUN / "pki"


def measure(count: int, runs: int, kind: str) -> dict[str, float]:
    """Medians of all figures for one kind of connection."""
    port = rig.free_port()
    os.environ[many_switches.KIND] = kind
    os.environ[many_switches.PKI] = str(PKI)
    controller = ControllerProcess(port)
    controller.ask("listen")
    switch = rig.start_switch()
    if kind == "ssl":
        rig.run("ovs-vsctl", rig.DATABASE, "set-ssl", str(PKI / "nodes/any.key"), str(PKI / "nodes/any.crt"),
                str(PKI / "ca.crt"))  # fmt: skip
    rig.add_bridges(bridges(count), f"{kind}:127.0.0.1:{port}")
    controller.ask("waiting", count)
    pushed = controller.ask("take", count)
    found = []
    for number in range(runs):
        rig.progress(f"{kind}, {count} bridges, run {number + 1} of {runs}")
        settle(switch)
        before, begun = rig.cpu_seconds(switch), time.monotonic()
        controller.kill()
        controller = ControllerProcess(port)
        told = controller.ask("rejoin", count)
        told["whole"] = time.monotonic() - begun
        told["switch_cpu"] = rig.cpu_seconds(switch) - before
        found.append(told)
    controller.kill()
    rig.stop_switch()
    medians = {name: statistics.median(each[name] for each in found) for name in found[0]}
    return {**medians, "pushed": pushed["seconds"], "pushed_cpu": pushed["cpu"], "pushed_memory": pushed["memory"]}


def main() -> None:
    count, runs = (QUICK_COUNT, QUICK_RUNS) if quick else (COUNT, RUNS)
    certificates.make_ca(PKI)
    certificates.make_controller(PKI)
    certificates.make_node(PKI, "any")
    plain, secured = measure(count, runs, "tcp"), measure(count, runs, "ssl")
    rows = []
    for title, name, unit, factor in (
        ("controller killed until all are in sync", "whole", "s", 1.0),
        ("  first switch heard until all are in sync", "after_first", "s", 1.0),
        ("  controller CPU from listening to all in sync", "cpu", "s", 1.0),
        ("  ovs-vswitchd CPU", "switch_cpu", "s", 1.0),
        ("  controller memory more than before it listened, kB a switch", "grown", "kB", 1e3 / count),
        ("  controller peak memory", "memory", "MB", 1.0),
        (f"all of {many_switches.FLOWS:,} flows to each", "pushed", "s", 1.0),
        ("  controller CPU", "pushed_cpu", "s", 1.0),
        ("  controller peak memory", "pushed_memory", "MB", 1.0),
    ):
        first, second = plain[name] * factor, secured[name] * factor
        rows.append([title, f"{first:.2f} {unit}", f"{second:.2f} {unit}", f"{second / first:.2f}" if first else ""])
    rig.table([f"{count:,} switches, median of {runs}", "tcp", "ssl", "ratio"], rows)


if __name__ == "__main__":
    quick = rig.arguments(__doc__ or "")
    rig.isolated(main)
