"""What `signalbox describe` says of objects, by what a controller answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from asked_controller import Asked, asked


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Asked]:
    async with asked(tmp_path) as here:
        yield here


async def described(cluster: Asked, *words: str, code: int = 0) -> str:
    result = await cluster.run("describe", *words)
    assert result.exit_code == code, result.output
    return result.output


def below(text: str, heading: str) -> list[list[str]]:
    """The words of the lines of a table."""
    lines = text.splitlines()
    rest = lines[lines.index(f"{heading}:") + 1 :]
    end = next((number for number, line in enumerate(rest) if not line.startswith("  ")), len(rest))
    return [line.split() for line in rest[:end]]


def beside(text: str, heading: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{heading}:")]
    return line.partition(":")[2].strip()


async def test_a_pod_is_told_with_its_services_policies_identity_and_flows(cluster: Asked) -> None:
    text = await described(cluster, "pod", "web-1")
    assert beside(text, "Status") == "Ready" and beside(text, "Labels") == "app=web"
    assert beside(text, "Identity").endswith("(default[app=web])")
    assert below(text, "Services") == [
        ["NAME", "PORT", "ADDRESS", "STATUS"],
        ["web", "http", "10.244.1.10:8080", "Ready"],
    ]
    assert [line[1:3] for line in below(text, "Policies")] == [["KIND", "NAME"], ["NetworkPolicy", "clients"]]
    counts = {table: int(flows) for table, flows, _ in below(text, "Flows on n1")[1:]}
    assert counts["Classify"] > 0 and counts["Route"] > 0


async def test_what_of_a_pod_isn_t_known_is_said_so(cluster: Asked) -> None:
    text = await described(cluster, "pod", "web-2")
    assert beside(text, "Status") == "Pending" and beside(text, "Reason") == "the node's switch isn't connected"
    assert beside(text, "Flows on n2") == "not known: the switch of node 'n2' isn't connected"


async def test_a_node_is_told_with_its_conditions_pods_links_and_problems(cluster: Asked) -> None:
    text = await described(cluster, "node", "n1")
    assert [line[:2] for line in below(text, "Conditions")[1:3]] == [["Connected", "True"], ["InSync", "True"]]
    assert [line[:3] for line in below(text, "Pods")[1:]] == [
        ["default", "web-1", "Ready"],
        ["other", "web-1", "Pending"],
    ]
    assert below(text, "Links")[1][2] == "overlay" and beside(text, "Problems") == "<none>"
    away = await described(cluster, "nodes", "n2")
    assert below(away, "Conditions")[1] == ["Connected", "False", "its", "switch", "isn't", "connected"]
    assert beside(away, "Problems") == "node n2: its switch isn't connected"
    assert below(text, "Events")[1][3] == "SwitchConnected"
    assert beside(away, "Events") == "<none>"


async def test_a_service_is_told_with_its_endpoints(cluster: Asked) -> None:
    text = await described(cluster, "svc/web")
    assert (beside(text, "Cluster IPs"), beside(text, "Ports")) == ("10.96.0.7", "80/TCP")
    assert [line[1] for line in below(text, "Endpoints (2 used)")[1:]] == ["10.244.1.10:8080", "10.244.2.10:8080"]
    assert len(below(await described(cluster, "endpoints", "web"), "Endpoints")) == 3


async def test_a_policy_is_told_with_its_rules_and_whom_it_selects(cluster: Asked) -> None:
    text = await described(cluster, "netpol", "clients")
    assert beside(text, "Ingress") == "0: Accept from pods app=client in namespace default on 8080/TCP"
    assert beside(text, "Pods (2)") == "default/web-1" and "default/web-2" in text


async def test_an_identity_is_told_with_its_pods_and_policies(cluster: Asked) -> None:
    text = await described(cluster, "identity", "-n", "default")
    assert beside(text, "Labels") == "app=web" and beside(text, "Pods (2)") == "web-1"
    assert below(text, "Policies")[1][2] == "clients"


async def test_several_objects_are_told_and_those_that_are_missing_named(cluster: Asked) -> None:
    text = await described(cluster, "pods", "web-1", "web-9", "-A", code=1)
    assert text.count("\nNamespace: ") == 2 and text.endswith("Error: pods 'web-9' not found\n")
    text = await described(cluster, "pods", "-l", "app=db", code=1)
    assert text == "Error: no pods found\n"
    text = await described(cluster, "links", "-A")
    assert text.count("Name: ") == 2
