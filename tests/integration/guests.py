"""A pod that a test attaches by hand: it plays the container runtime and calls the CNI plugin itself."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.lab import kubelet, substrate
from deploy.lab.cluster import Lab
from deploy.lab.layout import netns_path

NAMESPACE = "guests"


class Guest:
    """A pod on `node` with a network namespace of its own; until `declare` the controller has never heard of it."""

    def __init__(self, lab: Lab, name: str, node: str) -> None:
        self.lab = lab
        self.name = name
        self.node = node
        self.container = f"guest-{name}"
        self.netns = lab.layout.pod_netns(NAMESPACE, name)
        self.addresses: list[str] = []
        self._written: list[Path] = []
        substrate.make_namespace(self.netns)

    def declare(self, labels: Mapping[str, str] | None = None, **container: Any) -> Path:
        """Tell the controller of the pod. The lab itself doesn't start it: that takes `lab apply`."""
        spec = {"nodeName": self.node, "containers": [{"name": "c", "image": "c", **container}]}
        return self._write("Pod", {"name": self.name, "namespace": NAMESPACE, "labels": dict(labels or {})}, spec=spec)

    def declare_node(self, name: str, cidr: str, address: str) -> Path:
        """A node that nobody has: every other node gets a route to it."""
        status = {"addresses": [{"type": "InternalIP", "address": address}]}
        return self._write("Node", {"name": name}, spec={"podCIDRs": [cidr]}, status=status)

    def _write(self, kind: str, metadata: dict[str, Any], **rest: Any) -> Path:
        path = self.lab.layout.manifests / f"{kind.lower()}.guest.{metadata['name']}.yaml"
        document = {"apiVersion": "v1", "kind": kind, "metadata": metadata, **rest}
        temporary = path.with_name(f".{path.name}")
        temporary.write_text(yaml.safe_dump(document))
        temporary.rename(path)
        self._written.append(path)
        return path

    def variables(self) -> dict[str, str]:
        return {
            "CNI_CONTAINERID": self.container,
            "CNI_NETNS": str(netns_path(self.netns)),
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={self.name}",
        }

    def call(self, command: str, variables: dict[str, str] | None = None, **config: Any) -> dict[str, Any]:
        """The plugin's answer. Raises kubelet.CniFailure."""
        return kubelet.run_plugin(
            self.lab.layout, self.node, command, {**self.variables(), **(variables or {})}, **config
        )

    def add(self, **config: Any) -> dict[str, Any]:
        result = self.call("ADD", **config)
        self.addresses = [each["address"].partition("/")[0] for each in result["ips"]]
        return result

    def begin(self, command: str) -> subprocess.Popen[str]:
        """Start a call and don't wait for its end."""
        layout = self.lab.layout
        config = {
            "cniVersion": "1.1.0",
            "name": "signalbox",
            "type": "signalbox-cni",
            "socket": str(layout.node(self.node) / "node.sock"),
        }
        process = subprocess.Popen(
            [str(layout.bin / "signalbox-cni")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "CNI_COMMAND": command, "CNI_PATH": str(layout.bin), **self.variables()},
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(config))
        process.stdin.close()
        process.stdin = None
        return process

    def finish(self, process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
        """Exit status and answer of a call."""
        output, _ = process.communicate(timeout=90)
        return process.returncode, json.loads(output) if output.strip() else {}

    def leave(self) -> None:
        """Nothing of the guest stays."""
        self.call("DEL")
        substrate.remove_namespace(self.netns)
        for path in self._written:
            path.unlink(missing_ok=True)
        self.lab.wait_for_sync()
