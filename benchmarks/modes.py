"""What it costs to get from node to node: routed, by each kind of tunnel, and past all of it by plain NORMAL bridging.

A lab of two nodes on Open vSwitch's userspace datapath, with a pod on each; and on each a namespace whose interface is
a port of the bridge that holds the node's NIC, which does what switches do (action NORMAL) and nothing else. All modes
are measured in turn, in one lab that goes from one to the next, so that what else the machine does meets all: bytes a
second of one TCP connection, and the time until a ping is answered. The MTU is what each mode leaves of 1,500.
"""

import re
import signal
import statistics
import subprocess
import sys
import time

import rig
from lab_pods import DIRECT_PORT, FAR, HERE, PROGRAM, THERE, addresses, in_client, lab_with_servers
from pod_program import SINK

from deploy.lab import processes
from deploy.lab.cluster import Lab
from deploy.lab.layout import LabError, netns_path
from deploy.lab.substrate import appctl, make_namespace, run, vsctl

RUNS, SECONDS, PINGS = 7, 2.0, 200
QUICK_RUNS, QUICK_SECONDS, QUICK_PINGS = 1, 1.0, 50
PLAIN = "NORMAL bridging"
WAYS = {
    PLAIN: ("", ""),
    "routed": ("routed", "vxlan"),
    "overlay, VXLAN": ("overlay", "vxlan"),
    "overlay, Geneve": ("overlay", "geneve"),
    "overlay, GRE": ("overlay", "gre"),
}
#: Addresses of the two namespaces on the underlay, beyond those of nodes.
_ADDRESSES = {HERE: "172.30.0.201", THERE: "172.30.0.202"}


def netns_of(lab: Lab, node: str) -> str:
    return f"{lab.layout.prefix}.plain-{node}"


def make_plain(lab: Lab, node: str) -> None:
    """A namespace on the bridge of a node's NIC, past br-int. It goes with the lab."""
    netns = netns_of(lab, node)
    make_namespace(netns)
    host = lab.netns_of_node(node)
    run(["ip", "-n", host, "link", "add", "plain", "type", "veth", "peer", "name", "eth0", "netns", netns])
    run(["ip", "-n", host, "link", "set", "plain", "up"])
    run(["ethtool", "-K", "eth0", "tx", "off"], netns=netns)
    run(["ip", "-n", netns, "addr", "add", f"{_ADDRESSES[node]}/24", "dev", "eth0"])
    run(["ip", "-n", netns, "link", "set", "eth0", "up"])
    vsctl(lab.layout, node, "add-port", "br-phy", "plain")


def change(lab: Lab, mode: str, encap: str) -> None:
    """Have nodes reach one another so; returns when packets of the new MTU do."""
    lab.stop_controller()
    lab.start_controller(mode=mode, encap=encap)
    lab.wait_for_sync()
    target = str(addresses(lab, FAR)[0])
    deadline = time.monotonic() + 30
    # Agents follow within a tenth of a second or so.
    time.sleep(1)
    while subprocess.run(client(lab, "ping", "-c", "3", "-i", "0.2", "-q", target), capture_output=True).returncode:
        # What came by a tunnel before its port was there may stay cached as nobody's (Open vSwitch 3.1.0).
        for node in lab.nodes:
            appctl(lab.layout, node, "revalidator/purge")
        if time.monotonic() > deadline:
            raise LabError(f"{mode} by {encap}: {target} doesn't answer")


def client(lab: Lab, *words: str) -> list[str]:
    return [*in_client(lab)[:3], *words]


def inside(lab: Lab, way: str) -> tuple[list[str], str]:
    """How a command is run at this end, and where the other end is."""
    if way == PLAIN:
        return ["nsenter", f"--net={netns_path(netns_of(lab, HERE))}", "--"], _ADDRESSES[THERE]
    return client(lab), str(addresses(lab, FAR)[0])


def wait_for_server(lab: Lab) -> None:
    """Until the one beside the pods takes connections."""
    prefix, target = inside(lab, PLAIN)
    argv = [*prefix, sys.executable, "-I", "-S", str(PROGRAM), "ask", target, str(DIRECT_PORT), "1"]
    deadline = time.monotonic() + 10
    while finished(argv, 5).strip() != "1":
        if time.monotonic() > deadline:
            raise LabError(f"{target} doesn't answer by plain bridging")
        time.sleep(0.1)


def finished(argv: list[str], seconds: float) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=seconds + 60)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def measure(lab: Lab, runs: int, seconds: float, pings: int) -> list[list[str]]:
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    delays: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(runs):
        for way, (mode, encap) in WAYS.items():
            rig.progress(f"{way}, run {number + 1} of {runs}")
            if mode:
                change(lab, mode, encap)
            prefix, target = inside(lab, way)
            send = [*prefix, sys.executable, "-I", "-S", str(PROGRAM), "send", target, str(DIRECT_PORT + SINK)]
            # Once beforehand, for what is only slow at first.
            finished([*send, "0.2"], 0.2)
            rates[way].append(float(finished([*send, str(seconds)], seconds)) * 8e-6)
            said = finished([*prefix, "ping", "-n", "-i", "0.01", "-c", str(pings), target], pings / 100)
            delays[way].append(statistics.median(float(each) * 1000 for each in re.findall(r"time=([\d.]+) ms", said)))
    return [
        [f"{unit}: {way}" if way == PLAIN else f"  {way}", *figures(found[way], found[PLAIN])]
        for unit, found in (("Mbit/s", rates), ("microseconds of a ping", delays))
        for way in WAYS
    ]


def figures(found: list[float], plain: list[float]) -> list[str]:
    middle = statistics.median(found)
    ratio = middle / statistics.median(plain)
    return [f"{middle:,.0f}", f"{min(found):,.0f}", f"{max(found):,.0f}", f"{ratio:.2f}"]


def main() -> None:
    quick = rig.arguments(__doc__ or "")
    rig.need("ovs-vswitchd", "ovsdb-server", "nft", "ethtool", "nsenter", "ping")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    runs, seconds, pings = (QUICK_RUNS, QUICK_SECONDS, QUICK_PINGS) if quick else (RUNS, SECONDS, PINGS)
    try:
        with lab_with_servers() as lab:
            for node in (HERE, THERE):
                make_plain(lab, node)
            argv = [sys.executable, "-I", "-S", str(PROGRAM), "serve", "plain", str(DIRECT_PORT)]
            processes.start(argv, lab.layout.directory / "plain.log", netns=netns_of(lab, THERE), env={})
            wait_for_server(lab)
            rows = measure(lab, runs, seconds, pings)
    except LabError as error:
        sys.exit(f"the lab: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    rig.table([f"name (median of {runs} of {seconds:g} s)", "median", "least", "most", "ratio to NORMAL"], rows)


if __name__ == "__main__":
    main()
