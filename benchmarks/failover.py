"""A master that goes under traffic and changes: pings and changes that are lost, and the time until there is the next.

A lab of three nodes and three controllers. Pods ping one another, on one node and across nodes, over both families; at
the same time Services in the lab's manifests get one port more, one after another. In the middle of it that controller
is killed, or stopped and continued later, which is master of most nodes. Timed: from the signal until another one says
of each node that it is its master, and in force. Nobody can be master before the lease of the dead one is over, so what
is told besides is the time beyond the lease's duration.

Each change is a port of its own, and all of them are looked for in every switch when the controllers say that they are
in sync: one that isn't there is lost. A ping is lost when it isn't answered while the others go on; of each ping
program the last one may have been under way when it was ended.
"""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import rig
from lab_pods import NAMESPACE, addresses, lab_with, manifest

from controller.cli import client
from deploy.lab import substrate
from deploy.lab.cluster import Lab
from deploy.lab.layout import LabError, controller_name, netns_path

RUNS, QUICK_RUNS, CONTROLLERS, NODES = 5, 1, 3, 3
#: Leases' duration, renewal's deadline, retry period, and when one joins: the tests', and the command line's.
SHORT, USUAL = (3.0, 2.0, 0.5, 2.0), (15.0, 10.0, 2.0, 4.0)
#: Seconds between two pings of each of the pairs, and between two changes.
PING_INTERVAL, CHANGE_INTERVAL = 0.007, 0.01
#: Services that are changed in turn: a file must be still for a moment before it is read.
SERVICES, FIRST_PORT, NETWORK = 100, 1000, "10.96.77"
#: Seconds of traffic and changes before the signal, and after there is a new master.
BEFORE, AFTER = 2.0, 2.0
#: Who pings whom; all of them over both families: eight programs.
PAIRS = (("a1", "a2"), ("a1", "b1"), ("b1", "c1"), ("c1", "a2"))
PODS = {"a1": "node-1", "a2": "node-1", "b1": "node-2", "c1": "node-3"}


# Traffic and changes --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def pinging(lab: Lab, found: dict[str, float]) -> Iterator[None]:
    """Pings all the time; afterwards how many were sent a second, and lost."""
    running = [
        subprocess.Popen(
            ["nsenter", f"--net={netns_path(lab.layout.pod_netns(NAMESPACE, source))}", "--", "ping", "-n", "-q",
             "-i", str(PING_INTERVAL), str(address)],
            stdout=subprocess.PIPE, text=True,
        )
        for source, target in PAIRS
        for address in addresses(lab, target)
    ]  # fmt: skip
    begun = time.monotonic()
    try:
        yield
    finally:
        seconds = time.monotonic() - begun
        for each in running:
            each.send_signal(signal.SIGINT)
        counts = [_counts(each.communicate(timeout=30)[0]) for each in running]
        found["pings"] = sum(sent for sent, _ in counts)
        found["pings a second"] = found["pings"] / seconds
        found["pings lost"] = sum(max(0, sent - answered - 1) for sent, answered in counts)


def _counts(output: str) -> tuple[int, int]:
    """Of ping's last words: sent, and answered."""
    (line,) = [line for line in output.splitlines() if " transmitted" in line]
    return int(line.split()[0]), int(line.split(", ")[1].split()[0])


class Changing:
    """Services that get ports, one after another, until the end of the block."""

    def __init__(self, lab: Lab) -> None:
        self._directory = lab.layout.manifests
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.ports: list[list[int]] = [[] for _ in range(SERVICES)]
        self.made, self.seconds = 0, 0.0

    def __enter__(self) -> "Changing":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._stop.wait(max(0.0, begun + self.made * CHANGE_INTERVAL - time.monotonic())):
            index = self.made % SERVICES
            self.ports[index].append(FIRST_PORT + self.made)
            self.made += 1
            self._write(index)
        self.seconds = time.monotonic() - begun

    def _write(self, index: int) -> None:
        ports = [{"name": f"p{port}", "port": port, "targetPort": 8080} for port in self.ports[index]]
        metadata = {"name": f"busy-{index}", "namespace": NAMESPACE}
        spec = {"clusterIP": f"{NETWORK}.{index + 1}", "selector": {"app": "b1"}, "ports": ports}
        document = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
        path = self._directory / f"service.{NAMESPACE}.busy-{index}.yaml"
        temporary = path.with_name(f".{path.name}")
        temporary.write_text(json.dumps(document))
        temporary.rename(path)

    def lost(self, lab: Lab) -> int:
        """Changes that some switch doesn't have."""
        wanted = {(f"{NETWORK}.{index + 1}", port) for index, ports in enumerate(self.ports) for port in ports}
        return len(set().union(*(wanted - _ports_of(lab, name) for name in lab.nodes)))

    def clear(self) -> None:
        for path in self._directory.glob(f"service.{NAMESPACE}.busy-*.yaml"):
            path.unlink()


def _ports_of(lab: Lab, node: str) -> set[tuple[str, int]]:
    """Addresses and ports of Services in a node's switch."""
    argv = ["ovs-ofctl", "-O", "OpenFlow15", "--names", "--no-stats", "dump-flows", "br-int", "table=Service"]
    found = set()
    for line in substrate.run(argv, env=substrate.switch_environment(lab.layout, node)).splitlines():
        fields = dict(each.split("=", 1) for each in line.split(" actions=")[0].split(",") if "=" in each)
        if fields.get("nw_dst", "").startswith(f"{NETWORK}."):
            found.add((fields["nw_dst"], int(fields["tp_dst"])))
    return found


# Controllers ----------------------------------------------------------------------------------------------------------


def masters(lab: Lab, controllers: list[int]) -> dict[str, str]:
    """Who is master of each node, and in force, by what these controllers say of themselves."""
    found = {}
    for number in controllers:
        for row in client.ask(lab.layout.api_of(number), ["nodes"])["items"]:
            if row["status"] in ("Synced", "Syncing"):
                found[row["name"]] = row["master"]
    return found


def until_spread(lab: Lab) -> None:
    """Wait until every controller is there and has its share."""
    deadline = time.monotonic() + 60
    while True:
        told = lab.ask("status")["replica"]
        counts = sorted(sum(row["master"] == each["name"] for row in told["shards"]) for each in told["replicas"])
        if len(counts) == CONTROLLERS and counts[-1] - counts[0] <= 1:
            lab.wait_for_sync()
            return
        if time.monotonic() > deadline:
            raise LabError(f"shards are not spread: {counts}")
        time.sleep(0.05)


def one(lab: Lab, stopped: bool, lease: float) -> dict[str, float]:
    """One master that goes; everything is as before afterwards."""
    until_spread(lab)
    of = list(masters(lab, list(lab.controllers)).values())
    name = max(sorted(set(of)), key=of.count)
    gone = next(number for number in lab.controllers if controller_name(number) == name)
    others = [number for number in lab.controllers if number != gone]
    process = lab.controller_process(gone)
    found: dict[str, float] = {}
    with pinging(lab, found), Changing(lab) as changing:
        time.sleep(BEFORE)
        begun = time.monotonic()
        os.kill(process.pid, signal.SIGSTOP if stopped else signal.SIGKILL)
        try:
            while True:
                now = masters(lab, others)
                if set(now) == set(lab.nodes) and name not in now.values():
                    break
                if time.monotonic() - begun > 90:
                    raise LabError(f"there is no new master: {now}")
                time.sleep(0.01)
            found["seconds"] = time.monotonic() - begun
            time.sleep(AFTER / 2)
        finally:
            if stopped:
                os.kill(process.pid, signal.SIGCONT)
        time.sleep(AFTER / 2)
    if not stopped:
        lab.stop_controller(signal.SIGKILL, gone)
        lab.start_controller(gone)
    lab.wait_for_sync()
    found["beyond"] = found["seconds"] - lease
    found["changes"] = changing.made
    found["changes a second"] = changing.made / changing.seconds
    found["changes lost"] = changing.lost(lab)
    changing.clear()
    lab.wait_for_sync()
    return found


# The table ------------------------------------------------------------------------------------------------------------


def rows(words: str, found: list[dict[str, float]]) -> list[list[str]]:
    def line(title: str, name: str, form: str = ",.0f", unit: str = "") -> list[str]:
        values = [each[name] for each in found]
        return [title, *(f"{each:{form}}{unit}" for each in (statistics.median(values), min(values), max(values)))]

    def total(title: str, name: str, of: str) -> list[str]:
        return [title, f"{sum(each[name] for each in found):,.0f}", "", f"of {sum(each[of] for each in found):,.0f}"]

    return [
        line(f"{words}: pings/s", "pings a second"),
        total("  pings lost, all runs together", "pings lost", "pings"),
        line("  changes/s", "changes a second"),
        total("  changes lost, all runs together", "changes lost", "changes"),
        line("  until the next master of every node", "seconds", ".2f", " s"),
        line("  the same, less the lease's duration", "beyond", ".2f", " s"),
    ]


def main() -> None:
    quick = rig.arguments(__doc__ or "")
    rig.need("ovs-vswitchd", "ovsdb-server", "nft", "ethtool", "nsenter", "ping")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    runs = QUICK_RUNS if quick else RUNS
    table = []
    pods = "".join(manifest(name, node, "sleep", "infinity") for name, node in PODS.items())
    try:
        for times in (SHORT,) if quick else (SHORT, USUAL):
            with lab_with(pods, NODES, controllers=CONTROLLERS, lease_times=times) as lab:
                for stopped, what in ((False, "killed"), (True, "stopped, and continued later")):
                    found = []
                    for number in range(runs):
                        rig.progress(f"lease of {times[0]:g} s, {what}, run {number + 1} of {runs}")
                        found.append(one(lab, stopped, times[0]))
                    table += rows(f"lease of {times[0]:g} s, {what}", found)
    except LabError as error:
        sys.exit(f"the lab: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    rig.table([f"name (median of {runs})", "median", "least", "most"], table)


if __name__ == "__main__":
    main()
