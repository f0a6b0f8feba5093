"""The demo: a three-node cluster on this machine, what it does, and how long it took; then it is taken down again.

The lab belongs to this process, so it goes with it: also after Ctrl-C, also when this process is killed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

import click

from controller.cli.kinds import COUNTER_COLUMNS, ENDPOINT_COLUMNS, NODE_COLUMNS, SERVICE_COLUMNS
from controller.cli.printing import Column, print_rows, table
from deploy.lab.cluster import Lab, owner, settings_for
from deploy.lab.layout import WORLD, LabError, netns_path

_PINGS_AT_A_TIME = 8
_ROUND_TRIP = re.compile(r"time=([\d.]+) ms")
_POD_COLUMNS = [Column(each.upper(), each) for each in ("namespace", "name", "status", "network", "addresses", "node")]


#: Calls of one client to one address of a Service.
_CALLS = 6
_CALL = """
import http.client, sys, time
for _ in range(int(sys.argv[2])):
    begun = time.perf_counter()
    try:
        connection = http.client.HTTPConnection(sys.argv[1], timeout=3)
        connection.request("GET", "/")
        answer = connection.getresponse().read().decode().strip()
        connection.close()
    except OSError as error:
        continue
    print(f"{(time.perf_counter() - begun) * 1000:.3f} {answer}")
"""


class Source:
    """Somewhere to ping from, with what it is called and its own addresses, IPv4 first."""

    def __init__(self, title: str, netns: str, addresses: Sequence[str]) -> None:
        self.title = title
        self.netns = netns
        self.addresses = addresses


@click.command()
@click.option("--nodes", type=click.IntRange(1, 20), default=3, show_default=True, help="How many nodes.")
@click.option("--encap", type=click.Choice(["vxlan", "geneve"]), default="vxlan", show_default=True)
@click.option("--name", default="demo", show_default=True, help="The lab's name.")
def main(nodes: int, encap: str, name: str) -> None:
    """Show a cluster on this machine."""
    try:
        failures = show(Lab(name, _progress), nodes, encap)
    except LabError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; the lab is down") from None
    if failures:
        raise click.ClickException(f"{failures} pings or calls were not answered")


def show(here: Lab, nodes: int, encap: str) -> int:
    """Bring the lab up, show it, take it down. Returns how many pings and calls weren't answered. Raises LabError."""
    begun = time.monotonic()
    timings: list[tuple[str, str]] = []
    _title("Bringing up a cluster: a network namespace, an ovs-vswitchd and an agent for each node")
    examples = Path(str(resources.files("deploy.lab") / "examples"))
    settings = settings_for(here.layout.name, nodes, [examples], encap=encap, **owner(os.getpid()))
    problems = here.up(settings, [examples])
    try:
        if problems:
            raise LabError("\n".join(problems))
        timings.append((f"{nodes} nodes and {len(here.pods())} pods up", f"{time.monotonic() - begun:.2f} s"))
        _title("Nodes")
        print_rows(here.ask("nodes")["items"], NODE_COLUMNS, "table")
        _title("Pods")
        print_rows(here.pods(), _POD_COLUMNS, "table")
        failures = _reachability(here, timings)
        failures += _services(here, timings)
        _flows(here)
        _restart(here, timings)
        _title("Timings")
        click.echo(table(("WHAT", "MEASURED"), timings))
        return failures
    finally:
        _title("Taking it down")
        begun = time.monotonic()
        here.down()
        click.echo(f"no namespace, process or file is left ({time.monotonic() - begun:.2f} s)")


def _reachability(here: Lab, timings: list[tuple[str, str]]) -> int:
    _title("Who reaches whom: one ping for each pair, from the row to the column")
    pods = [
        Source(row["name"], here.layout.pod_netns(row["namespace"], row["name"]), row["addresses"])
        for row in here.pods()
    ]
    nodes = [
        Source(row["name"], here.netns_of_node(row["name"]), row["addresses"]) for row in here.ask("nodes")["items"]
    ]
    world = Source("world", "", WORLD)
    short = [f"p{number}" for number in range(1, len(pods) + 1)] + [node.title for node in nodes] + ["world"]
    targets = [*pods, *nodes, world]
    failures, times = 0, []
    for family, index in (("IPv4", 0), ("IPv6", 1)):
        answers = _ping_all([(source, target, index) for source in [*pods, *nodes] for target in targets])
        rows = []
        for source, label in zip([*pods, *nodes], short, strict=False):
            cells = []
            for target in targets:
                answer = next(answers)
                mark = "-" if answer is None and source is target else "ok" if answer is not None else "FAIL"
                failures += mark == "FAIL"
                times += [answer] if answer is not None and source is not target else []
                cells.append("." if source is target else mark)
            rows.append([label, source.title if label != source.title else "", *cells])
        click.echo(table((family, "", *short), rows) + "\n")
    timings.append((f"round trip, median of {len(times)} first pings", f"{median(times):.2f} ms"))
    return failures


def _ping_all(pairs: Iterable[tuple[Source, Source, int]]) -> Iterator[float | None]:
    def ping(pair: tuple[Source, Source, int]) -> float | None:
        source, target, index = pair
        if source is target:
            return None
        done = subprocess.run(
            ["nsenter", f"--net={netns_path(source.netns)}", "--", "ping", "-n", "-c1", "-W2", target.addresses[index]],
            capture_output=True,
            text=True,
            check=False,
        )
        found = _ROUND_TRIP.search(done.stdout)
        return float(found[1]) if found else None

    with ThreadPoolExecutor(_PINGS_AT_A_TIME) as pool:
        return iter(list(pool.map(ping, list(pairs))))


def _services(here: Lab, timings: list[tuple[str, str]]) -> int:
    """A Service, called by each of its addresses from everywhere. Returns how many calls were not answered."""
    _title("Services")
    print_rows(here.ask("services")["items"], SERVICE_COLUMNS, "table")
    (web,) = (row for row in here.ask("services")["items"] if row["name"] == "web")
    node_port = web["ports"][0].partition(":")[2].partition("/")[0]
    nodes = {row["name"]: row["addresses"] for row in here.ask("nodes")["items"]}
    clients = {
        f"pod {row['name']}": here.layout.pod_netns(row["namespace"], row["name"])
        for row in here.pods()
        if row["name"].startswith(("client", "web-0"))
    }
    clients |= {f"node {here.nodes[0]}": here.netns_of_node(here.nodes[0]), "the world": here.layout.outside}
    rows, failures, times = [], 0, []
    for title, netns in clients.items():
        for index, family in enumerate(("IPv4", "IPv6")):
            ways = {
                "cluster address": f"{_host(web['clusterIPs'][index])}:80",
                f"port of {here.nodes[-1]}": f"{_host(nodes[here.nodes[-1]][index])}:{node_port}",
                "load balancer": f"{_host(web['externalIPs'][index])}:80",
            }
            for way, target in ways.items():
                if (title, way) == ("the world", "cluster address"):
                    continue
                answers, took = _call(netns, target)
                failures += _CALLS - sum(answers.values())
                times += took
                rows.append((title, family, way, target, ", ".join(sorted(answers)) or "FAIL"))
    _title(f"Who answers, and as whom it sees the client: {_CALLS} calls each")
    click.echo(table(("FROM", "FAMILY", "BY", "ADDRESS", "ANSWERS"), rows))
    _title("What the switches have counted")
    print_rows(here.ask("endpoints", counters="1")["items"], ENDPOINT_COLUMNS[1:] + COUNTER_COLUMNS, "table")
    timings.append(
        (f"a call of the Service: connect, request, answer; median of {len(times)}", f"{median(times):.2f} ms")
    )
    return failures


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _call(netns: str, target: str) -> tuple[dict[str, int], list[float]]:
    """Answers and how often each came, and how long each call took in milliseconds."""
    argv = [sys.executable, "-IS", "-c", _CALL, target, str(_CALLS)]
    done = subprocess.run(
        ["nsenter", f"--net={netns_path(netns)}", "--", *argv], capture_output=True, text=True, check=False, timeout=60
    )
    answers: dict[str, int] = {}
    times = []
    for line in done.stdout.splitlines():
        took, _, answer = line.partition(" ")
        answers[answer] = answers.get(answer, 0) + 1
        times.append(float(took))
    return answers, times


def _flows(here: Lab) -> None:
    node = here.nodes[0]
    pod = next(row for row in here.pods() if row["node"] == node)
    _title(f"What {node}'s switch was told for pod {pod['namespace']}/{pod['name']}, and for the other nodes")
    of_pod = here.ask("nodes", node, "flows", pod=f"{pod['namespace']}/{pod['name']}")["items"]
    routes = here.ask("nodes", node, "flows", table="Route")["items"]
    rows = of_pod + [row for row in routes if row["object"].startswith("Node ") and "tunnel to" in row["words"]]
    columns = [Column("TABLE", "table"), Column("PACKETS", "packets"), Column("FLOW", "words")]
    print_rows(rows, columns, "table")


def _restart(here: Lab, timings: list[tuple[str, str]]) -> None:
    _title("The controller is killed and started again")
    before = here.ask("status")["flowModsSent"]
    here.stop_controller(9)
    begun = time.monotonic()
    here.start_controller()
    here.wait_for_sync()
    answer: dict[str, Any] = here.ask("status")
    took = time.monotonic() - begun
    click.echo(f"flow-mods sent to bring the cluster up: {before}; after the restart: {answer['flowModsSent']}")
    timings.append(("controller started until every switch is known to be in sync", f"{took:.2f} s"))


def _title(text: str) -> None:
    click.secho(f"\n{text}\n", bold=True)


def _progress(text: str) -> None:
    click.echo(f"  {text}")


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    main()
