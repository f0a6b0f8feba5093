"""One cluster to many switches: 5,000 cluster-scope flows to 100 and to 500 bridges, encoded once, written to all.

All bridges are in one ovs-vswitchd (dummy datapath) and connected to one controller in a process of its own before the
controller knows any node. Timed: from the objects' being handed to the controller (compiling included) until every
switch has confirmed its bundle. Then one node's addresses change: the same for that small change to all.
"""

import statistics
import time
from typing import Any

import rig
from many_switches import ControllerProcess, bridges

COUNTS, RUNS, CHANGES = (100, 500), 3, 10
QUICK_COUNTS, QUICK_RUNS, QUICK_CHANGES = (50,), 1, 3


def measure(count: int, runs: int, changes: int) -> list[list[str]]:
    whole: list[dict[str, Any]] = []
    small: list[dict[str, Any]] = []
    for number in range(runs):
        rig.progress(f"{count} bridges, run {number + 1} of {runs}")
        port = rig.free_port()
        controller = ControllerProcess(port)
        controller.ask("listen")
        switch = rig.start_switch()
        rig.add_bridges(bridges(count), f"tcp:127.0.0.1:{port}")
        controller.ask("waiting", count)
        settle(switch)
        before = rig.cpu_seconds(switch)
        told = controller.ask("take", count)
        told["switch_cpu"] = rig.cpu_seconds(switch) - before
        whole.append(told)
        held = rig.flow_count(f"br{count - 1}")
        expected = told["flows"] + told["own_flows"]
        if held != expected + 2:
            raise RuntimeError(f"a bridge holds {held} flows, expected {expected} and two digests")
        settle(switch)
        for moved in range(changes):
            small.append(controller.ask("change", count, 100_000 + moved))
        controller.kill()
        rig.stop_switch()
    return rows(count, whole, small)


def settle(pid: int) -> None:
    """Until a process has nothing more to do."""
    before = -1.0
    while (now := rig.cpu_seconds(pid)) - before > 0.02:
        before = now
        time.sleep(0.5)


def rows(count: int, whole: list[dict[str, Any]], small: list[dict[str, Any]]) -> list[list[str]]:
    def median(name: str, of: list[dict[str, Any]] = whole) -> float:
        return statistics.median(each[name] for each in of)

    total, switch, cpu = median("seconds"), median("switch_cpu"), median("cpu")
    flows, encoded, sent = int(median("flows")), median("encoded", small), median("sent", small)
    return [
        [f"{count} bridges x {flows:,} flows: vswitchd CPU", f"{switch:.2f} s", "", ""],
        ["  until all are in sync", f"{total:.2f} s", f"{total / switch:.2f}", "vswitchd CPU"],
        ["  controller CPU, all of it", f"{cpu:.3f} s", f"{cpu / switch:.1%}", "vswitchd CPU"],
        ["  of that, compiling and queueing", f"{median('take_cpu'):.3f} s", f"{median('take_cpu') / cpu:.1%}",
         "controller CPU"],
        ["  connections lost meanwhile, all runs together", str(sum(each["lost"] for each in whole + small)), "", ""],
        ["  controller peak memory", f"{median('memory'):.0f} MB", "", ""],
        ["  one node changed: until all are in sync", f"{median('seconds', small) * 1e3:.0f} ms",
         f"{median('seconds', small) / total:.1%}", "all flows"],
        ["  one node changed: controller CPU", f"{median('cpu', small) * 1e3:.0f} ms",
         f"{median('cpu', small) / cpu:.1%}", "all flows"],
        ["  one node changed: bytes encoded", f"{encoded:,.0f}", f"1/{sent / encoded:,.0f}", "bytes written"],
    ]  # fmt: skip


def main() -> None:
    counts, runs, changes = (QUICK_COUNTS, QUICK_RUNS, QUICK_CHANGES) if quick else (COUNTS, RUNS, CHANGES)
    found = [row for count in counts for row in measure(count, runs, changes)]
    rig.table([f"name (median of {runs}; changes of {runs * changes})", "median", "ratio", "compared with"], found)


if __name__ == "__main__":
    quick = rig.arguments(__doc__ or "")
    rig.isolated(main)
