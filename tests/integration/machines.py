"""Machines that a test puts on a port of a node's bridge by hand: what objects of kind Workload are about."""

from __future__ import annotations

from typing import Any

from callers import Document, ip
from probes import inside, until

from deploy.lab import substrate
from deploy.lab.cluster import Lab
from deploy.lab.substrate import vsctl
from topology.naming import BRIDGE, GATEWAY_PORT


class Machine:
    """A namespace with an eth0 whose other end is a port of the bridge of `node`; `addresses` are of both families."""

    def __init__(self, lab: Lab, name: str, node: str, mac: str, addresses: tuple[str, str]) -> None:
        self.lab, self.name, self.node, self.mac, self.addresses = lab, name, node, mac, addresses
        self.port = f"{name}-eth0"
        self.netns = lab.layout.pod_netns("machines", name)
        substrate.make_namespace(self.netns)
        there = lab.netns_of_node(node)
        ends = f"link add {self.port} type veth peer name eth0 address {mac} netns {self.netns}"
        ip(there, *ends.split())
        ip(there, "link", "set", self.port, "up")
        inside(self.netns, ["ethtool", "-K", "eth0", "tx", "off"])
        ip(self.netns, "link", "set", "eth0", "mtu", "1400", "up")

    def configure(self) -> None:
        """Give it its addresses by hand: everything is behind the gateway, and that is on the wire."""
        for address, gateway, whole in zip(self.addresses, ("203.0.113.254", "fe80::1"), ("32", "128"), strict=True):
            family = "-6" if ":" in address else "-4"
            ip(
                self.netns,
                family,
                "address",
                "add",
                f"{address}/{whole}",
                "dev",
                "eth0",
                *(["nodad"] * (":" in address)),
            )
            ip(self.netns, family, "route", "add", "default", "via", gateway, "dev", "eth0", "onlink")

    def plug(self) -> None:
        """Put it on the bridge."""
        vsctl(self.lab.layout, self.node, "add-port", BRIDGE, self.port)

    def document(self, **spec: Any) -> Document:
        """The object that says so."""
        return {
            "apiVersion": "signalbox.io/v1alpha1",
            "kind": "Workload",
            "metadata": {"name": self.name, "namespace": "default", "labels": {"machine": self.name}},
            "spec": {
                "node": self.node,
                "port": self.port,
                "mac": self.mac,
                "addresses": list(self.addresses),
                **spec,
            },
        }

    def known_to_hosts(self) -> None:
        """Wait until every node's host sends what is for it into its bridge."""
        for netns in map(self.lab.netns_of_node, self.lab.nodes):
            for address in self.addresses:
                argv = ["ip", "route", "get", address]
                until(lambda netns=netns, argv=argv: GATEWAY_PORT in inside(netns, argv).stdout, f"{netns}: {address}")  # type: ignore[misc]

    def leave(self) -> None:
        """Nothing of it stays."""
        vsctl(self.lab.layout, self.node, "--if-exists", "del-port", BRIDGE, self.port)
        substrate.remove_namespace(self.netns)
