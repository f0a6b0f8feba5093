"""1,000 switches that connect to a controller at once, over TLS and over plain TCP: until all are in sync, and memory.

The controller is killed and started again; all switches come back at once. They are in sync already (that is what most
storms are), so what is measured is connections: handshakes, digests, and what a connection costs while it is there.
Then 5,000 flows go to each of 100 switches, enciphered for each.

Switches are dummy bridges of one ovs-vswitchd, which all show one certificate, since Open vSwitch has one for all: the
benchmark has the controller check it and take it for any node's. One process has to do all of the switches' halves of
the handshakes, on the same machine.
"""

import os
import statistics
import time

import many_switches
import rig
from fan_out import settle
from many_switches import ControllerProcess, bridges

from deploy import certificates

COUNT, FLOWS_COUNT, RUNS = 1_000, 100, 5
QUICK_COUNT, QUICK_FLOWS_COUNT, QUICK_RUNS = 100, 20, 2
PKI = rig.RUN / "pki"


def began(count: int, kind: str, *, bare: bool) -> tuple[ControllerProcess, int, int, dict[str, float]]:
    """Switches connected to a controller and in sync: it, its port, vswitchd's pid, and what their flows took."""
    port = rig.free_port()
    os.environ[many_switches.KIND] = kind
    os.environ[many_switches.PKI] = str(PKI)
    os.environ[many_switches.BARE] = str(count if bare else 0)
    controller = ControllerProcess(port)
    controller.ask("listen")
    switch = rig.start_switch()
    if kind == "ssl":
        rig.run("ovs-vsctl", rig.DATABASE, "set-ssl", str(PKI / "nodes/any.key"), str(PKI / "nodes/any.crt"),
                str(PKI / "ca.crt"))  # fmt: skip
    rig.add_bridges(bridges(count), f"{kind}:127.0.0.1:{port}")
    controller.ask("waiting", count)
    return controller, port, switch, controller.ask("take", count)


def storm(count: int, runs: int, kind: str) -> dict[str, float]:
    """Medians of all that is told of controllers that are started anew."""
    controller, port, switch, _ = began(count, kind, bare=True)
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
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def flows(count: int, runs: int, kind: str) -> dict[str, float]:
    """Medians of all that is told of flows that go to switches which have none."""
    found = []
    for number in range(runs):
        rig.progress(f"{kind}, flows to {count} bridges, run {number + 1} of {runs}")
        controller, _, _, told = began(count, kind, bare=False)
        controller.kill()
        rig.stop_switch()
        found.append(told)
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def main() -> None:
    count, flows_count, runs = (QUICK_COUNT, QUICK_FLOWS_COUNT, QUICK_RUNS) if quick else (COUNT, FLOWS_COUNT, RUNS)
    certificates.make_ca(PKI)
    certificates.make_controller(PKI)
    certificates.make_node(PKI, "any")
    plain, secured = storm(count, runs, "tcp"), storm(count, runs, "ssl")
    titles = [
        (f"{count:,} switches: controller killed until all are in sync", "whole", "s", 1.0),
        ("  first switch heard until all are in sync", "after_first", "s", 1.0),
        ("  controller CPU from listening to all in sync", "cpu", "s", 1.0),
        ("  ovs-vswitchd CPU", "switch_cpu", "s", 1.0),
        ("  controller memory for a connection", "grown", "kB", 1e3 / count),
        ("  controller peak memory", "memory", "MB", 1.0),
    ]
    rows = compared(titles, plain, secured)
    plain, secured = flows(flows_count, runs, "tcp"), flows(flows_count, runs, "ssl")
    titles = [
        (f"{many_switches.FLOWS:,} flows to each of {flows_count} switches", "seconds", "s", 1.0),
        ("  controller CPU", "cpu", "s", 1.0),
        ("  controller peak memory", "memory", "MB", 1.0),
    ]
    rows += compared(titles, plain, secured)
    rig.table([f"name (median of {runs})", "tcp", "ssl", "ratio"], rows)


def compared(
    titles: list[tuple[str, str, str, float]], plain: dict[str, float], secured: dict[str, float]
) -> list[list[str]]:
    rows = []
    for title, name, unit, factor in titles:
        first, second = plain[name] * factor, secured[name] * factor
        rows.append([title, f"{first:.2f} {unit}", f"{second:.2f} {unit}", f"{second / first:.2f}" if first else ""])
    return rows


if __name__ == "__main__":
    quick = rig.arguments(__doc__ or "")
    rig.isolated(main)
