"""A restarted controller and 500 switches that are in sync: how soon it knows so, and that it sends them nothing.

The controller is killed and another started at once, which knows the same objects. Time until all are Synced is mostly
the switches' own pause between attempts to connect (max_backoff, 1 s, as node agents set it); so it is also told from
the first switch's connection on, and the controller's CPU beside it.
"""

import statistics
import sys
import time

import rig
from fan_out import settle
from many_switches import ControllerProcess, bridges

COUNTS, RUNS = (100, 500), 5
QUICK_COUNTS, QUICK_RUNS = (50,), 2


def measure(count: int, runs: int) -> list[list[str]]:
    port = rig.free_port()
    controller = ControllerProcess(port)
    controller.ask("listen")
    switch = rig.start_switch()
    rig.add_bridges(bridges(count), f"tcp:127.0.0.1:{port}")
    controller.ask("waiting", count)
    pushed = controller.ask("take", count)
    found = []
    for number in range(runs):
        rig.progress(f"{count} bridges, run {number + 1} of {runs}")
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

    def median(name: str) -> float:
        return statistics.median(each[name] for each in found)

    mods = sum(each["flow_mods"] for each in found)
    if mods:
        print(f"flow-mods were sent to switches in sync: {mods}", file=sys.stderr)
    first = pushed["seconds"]
    return [
        [f"{count} bridges: all flows anew, for comparison", f"{first:.2f} s", "1.00", "itself"],
        ["  controller killed until all are Synced", f"{median('whole'):.2f} s", f"{median('whole') / first:.2f}",
         "all flows anew"],
        ["  first switch heard until all are Synced", f"{median('after_first'):.2f} s",
         f"{median('after_first') / first:.2f}", "all flows anew"],
        ["  controller CPU from listening to all Synced", f"{median('cpu'):.3f} s",
         f"{median('cpu') / pushed['cpu']:.2f}", "all flows anew"],
        ["  vswitchd CPU", f"{median('switch_cpu'):.2f} s", "", ""],
        ["  controller peak memory", f"{median('memory'):.0f} MB", "", ""],
        ["  flow-mods sent, all runs together", str(mods), f"{mods / pushed['flow_mods']:.2f}", "all flows anew"],
    ]  # fmt: skip


def main() -> None:
    counts, runs = (QUICK_COUNTS, QUICK_RUNS) if quick else (COUNTS, RUNS)
    found = [row for count in counts for row in measure(count, runs)]
    rig.table([f"name (median of {runs})", "median", "ratio", "compared with"], found)


if __name__ == "__main__":
    quick = rig.arguments(__doc__ or "")
    rig.isolated(main)
