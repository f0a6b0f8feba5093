"""What the controller is told of a Mininet network, and what is said of files that can't be used."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deploy.mininet.manifests import Attachment, MininetError, read, split, strangers, switch_documents, write

H1 = Attachment("h1", "s1-eth1", "5e:00:00:00:00:01", ("10.0.0.1",))


def test_a_switch_with_hosts_is_a_node_with_workloads() -> None:
    node, workload = switch_documents("s1", [H1])
    assert node["kind"] == "Node"
    assert node["metadata"] == {"name": "s1", "labels": {}, "annotations": {"signalbox.io/bridge-index": "0"}}
    assert (workload["kind"], workload["metadata"]) == ("Workload", {"name": "h1"})
    assert workload["spec"] == {
        "node": "s1",
        "port": "s1-eth1",
        "mac": "5e:00:00:00:00:01",
        "addresses": ["10.0.0.1"],
    }


def test_a_switch_without_hosts_only_carries_what_others_send() -> None:
    (node,) = switch_documents("s9", [])
    assert node["metadata"]["labels"] == {"signalbox.io/role": "transit"}


def test_a_persons_file_says_labels_and_ports_of_hosts_and_not_where_they_are() -> None:
    text = """
kind: Workload
metadata: {name: h1, namespace: shop, labels: {app: web}}
spec: {port: elsewhere, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: web}
---
"""
    hosts, rest = split([each for each in yaml.safe_load_all(text) if each])
    assert [each["kind"] for each in rest] == ["Service"]
    _, workload = switch_documents("s1", [H1], hosts)
    assert workload["metadata"] == {"name": "h1", "namespace": "shop", "labels": {"app": "web"}}
    assert workload["spec"]["port"] == "s1-eth1"
    assert workload["spec"]["ports"] == [{"name": "http", "port": 80}]


def test_a_workload_without_a_host_is_told_by_name() -> None:
    assert strangers({"h1": {}, "h7": {}}, ["h1", "h2"]) == [
        "Workload h7: the network has no host of this name (h1, h2)"
    ]


def test_a_workload_that_is_there_twice_is_refused() -> None:
    twice = [{"kind": "Workload", "metadata": {"name": "h1"}}] * 2
    with pytest.raises(MininetError, match="Workload h1: it is in the file twice"):
        split(twice)


@pytest.mark.parametrize("name", ["S1", "h_1", "-h", ""])
def test_a_name_that_kubernetes_could_not_have_is_refused(name: str) -> None:
    with pytest.raises(MininetError, match="names have small letters"):
        switch_documents("s1", [Attachment(name, "s1-eth1", "5e:00:00:00:00:01", ())])


@pytest.mark.parametrize(
    ("text", "said"), [("a: [", "not YAML"), ("- 1\n", "without metadata"), (None, "No such file")]
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "net.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(MininetError, match=f"net.yaml.*{said}"):
        read(path)


def test_what_is_written_is_read_the_same(tmp_path: Path) -> None:
    documents = switch_documents("s1", [H1])
    write(tmp_path / "s1.yaml", documents)
    assert read(tmp_path / "s1.yaml") == documents
