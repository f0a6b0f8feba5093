"""What `top` is answered, against traffic that is really there."""

from __future__ import annotations

import subprocess

from click.testing import CliRunner
from guests import Guest
from probes import addresses, pod_netns, until

from deploy.command import main
from deploy.lab.cluster import Lab


def test_a_node_that_carries_traffic_is_first(lab: Lab) -> None:
    source, destination = pod_netns(lab, "a1"), addresses(lab, "b1")[0]
    command = ["ip", "netns", "exec", source, "ping", "-q", "-i", "0.01", "-s", "1000", "-w", "120", str(destination)]
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


def test_a_scrape_of_a_lab_tells_each_switch_and_how_long_changes_took(lab: Lab, guest: Guest) -> None:
    before = installed(scrape(lab))
    # Whatever there was before: a pod comes, as an object and as a port, whichever is heard of first.
    guest.declare()
    guest.add()
    until(lambda: installed(scrape(lab)) > before, "the change is seen to be installed")
    assert [line for line in scrape(lab).splitlines() if line.startswith("signalbox_switch_connected{")] == [
        f'signalbox_switch_connected{{node="{node}"}} 1.0' for node in sorted(lab.nodes)
    ]


def installed(text: str) -> float:
    """How many changes have been installed, of objects and of ports."""
    start = "signalbox_change_installed_seconds_count{"
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(start))


def test_the_log_is_quiet_when_nothing_happens(lab: Lab) -> None:
    lab.wait_for_sync()
    log = lab.layout.directory / "controller.log"
    looked = carried_looks(lab)
    size = log.stat().st_size
    # Until switches have been asked for statistics again, and more: the looks of once a second are in that time.
    until(lambda: carried_looks(lab) > looked, "one more look at what ports carry", timeout=40.0)
    assert log.read_text()[size:] == ""


def scrape(lab: Lab) -> str:
    command = ["curl", "-sf", "--unix-socket", str(lab.layout.api_of(lab.controllers[0])), "http://controller/metrics"]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout


def carried_looks(lab: Lab) -> float:
    """Something that changes with every look at the switches."""
    lines = [line for line in scrape(lab).splitlines() if line.startswith("signalbox_looks_total")]
    return float(lines[0].split()[-1])


def test_signalbox_top_is_a_table_of_rates_in_words(lab: Lab) -> None:
    told = CliRunner().invoke(main, ["top", "nodes", "--lab", lab.layout.name])
    assert told.exit_code == 0, told.output
    heading, *lines = told.output.splitlines()
    assert heading.split() == ["NAME", "RX", "TX", "RX-PACKETS/S", "TX-PACKETS/S", "DROPPED/S", "BUSIEST-PORT"]
    assert sorted(line.split()[0] for line in lines) == sorted(lab.nodes)
    assert all(line.split()[1].endswith("b/s") for line in lines)
    refused = CliRunner().invoke(main, ["top", "pods", "--lab", lab.layout.name])
    assert refused.exit_code == 1 and "the kinds are nodes, services, policies" in refused.output
