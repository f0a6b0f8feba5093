"""What the controller is told of a Mininet network: a Node for each switch, a Workload for each interface of a host.

Pure: values in, documents out. What a person's own file says of a host (labels, a namespace, names of ports) is put
into the Workload that Mininet knows the rest of; all other objects of that file go to the controller as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from topology.model import BRIDGE_INDEX, TRANSIT
from topology.workload_manifests import API

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


class MininetError(Exception):
    """What can't be shown to the controller; the text names the object and says what to do."""


class Attachment(msgspec.Struct, frozen=True):
    """An interface of a host, and the switch's port it is joined to. `name` is the host's, or one of its own."""

    name: str
    port: str
    mac: str
    addresses: tuple[str, ...]


def read(path: Path) -> list[dict[str, Any]]:
    """The objects of a person's file. Raises MininetError."""
    try:
        found = list(yaml.safe_load_all(path.read_text()))
    except OSError as error:
        raise MininetError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MininetError(f"{path}: not YAML: {error}") from error
    for each in found:
        if each is not None and not (isinstance(each, dict) and isinstance(each.get("metadata"), dict)):
            raise MininetError(f"{path}: an object without metadata: {each!r:.60}")
    return [each for each in found if each is not None]


def split(documents: Iterable[dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """The Workloads, by name, which say something of hosts; and all else. Raises MininetError."""
    hosts: dict[str, dict[str, Any]] = {}
    rest = []
    for each in documents:
        if each.get("kind") != "Workload":
            rest.append(each)
            continue
        name = each["metadata"].get("name")
        if name in hosts:
            raise MininetError(f"Workload {name}: it is in the file twice; write one")
        hosts[name] = each
    return hosts, rest


def strangers(hosts: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """Complaints about Workloads that no host of the network has."""
    names = sorted(known)
    return [
        f"Workload {name}: the network has no host of this name ({', '.join(names) or 'it has none'})"
        for name in hosts
        if name not in names
    ]


def switch_documents(
    switch: str, attachments: Iterable[Attachment], hosts: Mapping[str, dict[str, Any]] | None = None, index: int = 0
) -> list[dict[str, Any]]:
    """A switch and the hosts on it. `index`: which one it is of those on the machine; they share a datapath.

    Raises MininetError for a name that Kubernetes couldn't have.
    """
    mine = list(attachments)
    for name in (switch, *(each.name for each in mine)):
        if not _NAME.fullmatch(name):
            raise MininetError(f"{name!r}: names have small letters, digits, dashes and dots only; call it otherwise")
    # Switches without hosts carry what others send, and need nothing else.
    labels = dict([] if mine else [TRANSIT])
    found: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": switch, "labels": labels, "annotations": {BRIDGE_INDEX: str(index)}},
        }
    ]
    for each in mine:
        said = (hosts or {}).get(each.name, {})
        spec = {"node": switch, "port": each.port, "mac": each.mac, "addresses": list(each.addresses)}
        found.append(
            {
                "apiVersion": API,
                "kind": "Workload",
                "metadata": {**said.get("metadata", {}), "name": each.name},
                "spec": {**said.get("spec", {}), **spec},
            }
        )
    return found


def write(path: Path, documents: Iterable[dict[str, Any]]) -> None:
    """One file with these objects, there as a whole or not at all. JSON is YAML too."""
    text = "\n---\n".join(json.dumps(each, indent=1) for each in documents) + "\n"
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    temporary.rename(path)
