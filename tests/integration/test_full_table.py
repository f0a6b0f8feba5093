"""A table of a switch that is full: what has no room is told of, all else goes on, and what gets room comes in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from probes import addresses, pings, pod_netns, until

from deploy.lab import substrate
from deploy.lab.cluster import Lab
from flows.pipeline import SERVICE

NODE, SERVICES = "node-2", 40


@pytest.fixture
def services(lab: Lab) -> Iterator[Path]:
    """Where Services are to be written, as `apply` does it, which would wait for all of it; they and the limit go."""
    path = lab.layout.manifests / "full-table.yaml"
    yield path
    limit(lab, None)
    path.unlink(missing_ok=True)
    lab.wait_for_manifests()
    lab.wait_for_sync()


def many() -> str:
    spec = {"selector": {"app": "nobody"}, "ports": [{"port": 80}]}
    names = ({"name": f"full-{number}"} for number in range(SERVICES))
    documents = ({"apiVersion": "v1", "kind": "Service", "metadata": each, "spec": spec} for each in names)
    return yaml.safe_dump_all(documents)


def limit(lab: Lab, flows: int | None) -> None:
    """How many flows the node's table Service may have."""
    table = substrate.vsctl(lab.layout, NODE, "--bare", "--columns=_uuid", "find", "Flow_Table", "name=Service").strip()
    what = (
        ["set", "Flow_Table", table, f"flow_limit={flows}"] if flows else ["clear", "Flow_Table", table, "flow_limit"]
    )
    # `refuse` is what Open vSwitch does where nothing is said.
    substrate.vsctl(lab.layout, NODE, *what)


def held(lab: Lab) -> int:
    """How many flows the table has."""
    return sum(flow["table"] == SERVICE.name for flow in lab.ask("nodes", NODE, "flows")["items"])


def row(lab: Lab) -> dict[str, object]:
    return next(each for each in lab.ask("nodes")["items"] if each["name"] == NODE)


def told(lab: Lab) -> list[str]:
    return [text for text in lab.ask("status")["problems"] if "table Service is full" in text]


def test_a_full_table_keeps_nothing_else_from_the_switch_and_is_tried_again_until_there_is_room(
    lab: Lab, services: Path
) -> None:
    log = lab.layout.directory / "controller.log"
    before, said = held(lab), len(log.read_text())
    repaired = row(lab)["repaired"]
    limit(lab, before + 10)
    services.write_text(many())
    lab.wait_for_manifests()
    assert held(lab) == before + 10 and row(lab)["status"] == "Synced"
    (line,) = told(lab)
    assert line.startswith(
        f"node {NODE}: refused with error FLOW_MOD_FAILED code 1 (table Service is full), for Service "
    )
    assert line.endswith(" more of table Service)")
    refused = row(lab)["refused"]
    assert isinstance(refused, int) and refused >= SERVICES - 10
    # Tried again and again, and the connection stays.
    bundles = row(lab)["bundlesSent"]
    assert isinstance(bundles, int)
    until(lambda: int(str(row(lab)["bundlesSent"])) >= bundles + 4, "it is tried again, and once more")
    assert (row(lab)["refused"], row(lab)["status"]) == (refused, "Synced")
    assert (
        f"node {NODE} closed" not in log.read_text()[said:] and f"node {NODE} connected" not in log.read_text()[said:]
    )
    # Everything else is followed and goes on.
    assert pings(pod_netns(lab, "a1"), addresses(lab, "b1")[0]) == 1
    # What there is room for comes in by itself; at first some of it.
    limit(lab, before + 20)
    until(lambda: held(lab) == before + 20, "some more are there", 70.0)
    assert told(lab)
    limit(lab, None)
    until(lambda: not told(lab), "all are there", 70.0)
    assert held(lab) - before >= SERVICES and row(lab)["refused"] == refused
    lab.audit()
    lab.wait_for_sync()
    assert row(lab)["repaired"] == repaired
