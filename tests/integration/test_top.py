"""What `top` is answered, against traffic that is really there."""

from __future__ import annotations

import subprocess

from probes import addresses, pod_netns, until

from deploy.lab.cluster import Lab


def test_a_node_that_carries_traffic_is_first(lab: Lab) -> None:
    source, destination = pod_netns(lab, "a1"), addresses(lab, "b1")[0]
    command = ["ip", "netns", "exec", source, "ping", "-q", "-i", "0.01", "-s", "1000", "-w", "60", str(destination)]
    pinging = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:

        def carries() -> bool:
            rows = {row["name"]: row for row in lab.ask("top", "nodes")["items"]}
            return all(rows.get(node, {}).get("rxBytesPerSecond", 0) > 50_000 for node in ("node-1", "node-2"))

        until(carries, "both nodes are seen to carry the pings", timeout=40.0)
        (first,) = lab.ask("top", "nodes", limit="1")["items"]
        assert first["name"] in ("node-1", "node-2") and first["busiestPort"]
    finally:
        pinging.terminate()
        pinging.wait()


def test_services_and_policies_have_a_row_each(lab: Lab) -> None:
    for kind in ("services", "policies"):
        items = lab.ask("top", kind)["items"]
        assert len(items) == len(lab.ask(kind)["items"])
