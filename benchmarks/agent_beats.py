"""What it costs a node that its agent says every half minute that it is there, by the number of the bridge's ports.

Each beat is a write of the bridge's description, which has ovs-vswitchd look through the configuration of all ports.
These are veths on a bridge of the datapath in userspace, so that what the kernel is asked about them is counted, too.
"""

import statistics
import time
from pathlib import Path

import rig

from topology import offload
from topology.agent_report import BEAT, AgentReport, encode

PORTS, WRITES, RUNS = (0, 100, 250), 100, 3
QUICK_PORTS, QUICK_WRITES, QUICK_RUNS = (0, 100), 30, 1
#: Seconds between two writes: none is taken together with the next.
PAUSE = 0.1


def measured(ports: int, writes: int, runs: int) -> list[float]:
    """Seconds of CPU for one write, of each run."""
    switch = rig.start_switch(dummy=False)
    rig.run("ovs-vsctl", rig.DATABASE, "--timeout=300", "add-br", "br0", "--", "set", "bridge", "br0",
            "datapath_type=netdev", "fail_mode=secure")  # fmt: skip
    words: list[str] = []
    for number in range(ports):
        rig.run("ip", "link", "add", f"v{number}", "up", "type", "veth", "peer", "name", f"p{number}")
        rig.run("ip", "link", "set", f"p{number}", "up")
        words += ["--", "add-port", "br0", f"v{number}"]
    if words:
        rig.run("ovs-vsctl", rig.DATABASE, "--timeout=300", *words)
    time.sleep(2)
    found = []
    for run in range(runs):
        rig.progress(f"{ports} ports, run {run + 1} of {runs}")
        before, begun = _cpu(switch), time.monotonic()
        for number in range(writes):
            _write(run * writes + number)
            time.sleep(PAUSE)
        spent, took = _cpu(switch) - before, time.monotonic() - begun
        idle = _cpu(switch)
        time.sleep(took)
        found.append((spent - (_cpu(switch) - idle)) / writes)
    rig.stop_switch()
    for number in range(ports):
        rig.run("ip", "link", "del", f"v{number}")
    return found


def _write(beat: int) -> None:
    text = encode(AgentReport(version="0.1.0", beat=beat, offload=offload.Report(why="x" * 100)))
    rig.run("ovs-vsctl", rig.DATABASE, "--no-wait", "set", "bridge", "br0", f'other_config:dp-desc="{text}"')


def _cpu(pid: int) -> float:
    """CPU of all threads of a process: milliseconds are to be seen, and /proc/PID/stat counts in tens of them."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def main() -> None:
    quick = rig.arguments(__doc__)
    sizes, writes, runs = (QUICK_PORTS, QUICK_WRITES, QUICK_RUNS) if quick else (PORTS, WRITES, RUNS)
    rows = []
    for ports in sizes:
        cost = statistics.median(measured(ports, writes, runs))
        rows.append([f"{ports} ports", f"{cost * 1e3:.2f} ms", f"{cost / BEAT:.4%}"])
    rig.table([f"name (median of {runs})", "vswitchd CPU for a beat", f"of a core, at one in {BEAT} s"], rows)


if __name__ == "__main__":
    rig.isolated(main)
