"""Runs in a box (`mininet_box`): brings a network up, cuts and mends links, and prints what it saw as JSON.

mininet_driver.py KIND [NUMBER...] [--links N] [--manifests FILE]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

from mininet.log import setLogLevel
from mininet.net import Mininet

from deploy.mininet import Signalbox, SignalboxSwitch, SignalboxTopo

#: Seconds between the pings that tell how long a host wasn't reached.
_INTERVAL = 0.01
#: Seconds within which a network that has lost a link must have found other ways.
_PATIENCE = 10.0


def unreached(net: Any) -> list[str]:
    """The pairs of hosts of which one doesn't answer the other; all hosts ask at once."""
    asking = []
    for host in net.hosts:
        others = [each.IP() for each in net.hosts if each is not host]
        # One answer is enough, and a busy machine may be late with it.
        script = "; ".join(f"ping -n -q -c1 -w30 {each} >/dev/null || echo {each}" for each in others)
        asking.append((host, host.popen(["sh", "-c", script], text=True, stdout=subprocess.PIPE)))
    return [f"{host.name} > {line}" for host, process in asking for line in process.communicate()[0].split()]


def wires(net: Any) -> list[tuple[Any, Any]]:
    """Links between switches."""
    return [
        (link.intf1, link.intf2)
        for link in net.links
        if all(isinstance(each.node, SignalboxSwitch) for each in (link.intf1, link.intf2))
    ]


def carried(net: Any) -> int:
    """Packets that all ports of switches have sent."""
    ports = {intf.name for switch in net.switches for intf in switch.intfList()} - {"lo"}
    counters = (line.split(":") for line in Path("/proc/net/dev").read_text().splitlines() if ":" in line)
    # The tenth column: packets sent.
    return sum(int(values.split()[9]) for name, values in counters if name.strip() in ports)


def outage(net: Any, source: Any, target: Any, act: Any) -> float:
    """Seconds for which `target` didn't answer `source`, around an act."""
    process = source.popen(
        ["ping", "-n", "-D", "-i", str(_INTERVAL), "-w", str(int(_PATIENCE)), target.IP()],
        text=True,
        stdout=subprocess.PIPE,
    )
    time.sleep(0.3)
    act()
    time.sleep(1.7)
    process.send_signal(2)
    seen = [int(found) for found in re.findall(r"icmp_seq=(\d+)", process.communicate()[0])]
    gaps = [later - earlier - 1 for earlier, later in pairwise(seen)]
    return max(gaps, default=0) * _INTERVAL


def cut_and_mend(net: Any, number: int) -> Iterator[dict[str, Any]]:
    """Each of some links down and up again."""
    found = wires(net)
    step = max(len(found) // number, 1) if number else 1
    for one, other in found[::step][: number or None]:
        a, b = one.node, other.node
        near = next((host for host in net.hosts if host.connectionsTo(a)), net.hosts[0])
        far = next((host for host in reversed(net.hosts) if host.connectionsTo(b)), net.hosts[-1])
        if near is far:
            far = net.hosts[-1] if near is not net.hosts[-1] else net.hosts[0]
        result = {"link": f"{one.name} {other.name}", "pair": f"{near.name} {far.name}"}
        result["down"] = outage(net, near, far, lambda a=a, b=b: net.configLinkStatus(a.name, b.name, "down"))
        result["unreached_down"] = unreached(net)
        result["up"] = outage(net, near, far, lambda a=a, b=b: net.configLinkStatus(a.name, b.name, "up"))
        net.controllers[0].wait(net.switches)
        result["unreached_up"] = unreached(net)
        yield result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("values", nargs="*")
    parser.add_argument("--links", type=int, default=0, help="how many links to cut and mend")
    parser.add_argument("--manifests")
    parser.add_argument("--iperf", action="store_true")
    arguments = parser.parse_args()
    setLogLevel("warning")
    values = [int(each) if each.isdecimal() else each for each in arguments.values]
    controller = Signalbox("c0", manifests=arguments.manifests)
    net = Mininet(topo=SignalboxTopo(arguments.kind, *values), switch=SignalboxSwitch, controller=controller)
    told: dict[str, Any] = {}
    try:
        begun = time.monotonic()
        net.start()
        told["seconds"] = time.monotonic() - begun
        told["switches"], told["hosts"], told["wires"] = len(net.switches), len(net.hosts), len(wires(net))
        before = carried(net)
        told["dropped"] = net.pingAll()
        told["pings"] = len(list(permutations(net.hosts, 2)))
        told["carried"] = carried(net) - before
        told["cuts"] = list(cut_and_mend(net, arguments.links)) if arguments.links else []
        if arguments.iperf:
            told["iperf"] = net.iperf(seconds=1)
        told["nodes"] = controller.ask("/v1/nodes")["items"]
        told["links"] = controller.ask("/v1/links")["items"]
        told["log"] = [line for line in controller.log.read_text().splitlines() if " INFO " not in line]
    finally:
        net.stop()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
