"""What is of kind Workload, from a YAML tree: hosts, virtual machines and containers on a port of a bridge.

    apiVersion: signalbox.io/v1alpha1
    kind: Workload
    metadata: {name: db, labels: {app: db}}
    spec: {node: node-1, port: vnet0, mac: "52:54:00:12:34:56", addresses: [192.0.2.10]}

Must not know other objects: whether a port or an address is free is `topology.manifest_state`'s business. Raises
FieldError. `topology.manifests` calls this for its kind, `topology.kubernetes.objects` for the custom resource.
"""

from __future__ import annotations

import re

from topology import manifest_fields as fields
from topology.model import ContainerPort, Pod, labels_of
from topology.naming import GATEWAY_MAC, ROUTER_MAC, Address, is_own_port, parse_mac
from topology.workloads import PortWorkload
from topology.yaml_tree import Tree

API = "signalbox.io/v1alpha1"
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
#: Linux's limit for the name of an interface.
_LONGEST_PORT = 15
_MULTICAST = 1 << 40
#: The least that every host of IPv4 takes (RFC 791), and what fits into every tunnel over a network of 1,500.
_LEAST_MTU, DEFAULT_MTU = 576, 1400


def port_workload(namespace: str, name: str, tree: Tree) -> PortWorkload:
    """A workload as it is declared."""
    spec = tree.require("spec", remedy="say where it is: its node, port, mac and addresses")
    fields.known(spec, "node", "port", "mac", "addresses", "ports", "dhcp", "mtu")
    addresses = _addresses(spec.require("addresses", remedy="list its addresses, as [192.0.2.10]"))
    dhcp = spec.get("dhcp")
    if dhcp is not None and dhcp.flag() and all(address.version == 6 for address in addresses):
        raise dhcp.error("is true, and DHCP tells IPv4 addresses; give it one in spec.addresses, or leave dhcp out")
    ports, mtu = spec.get("ports"), spec.get("mtu")
    pod = Pod(
        namespace=namespace,
        name=name,
        node=fields.name(spec.require("node", remedy="name the node whose bridge it is on"), 253),
        labels=labels_of(fields.labels(tree.get("metadata", "labels"))),
        addresses=addresses,
        ports=tuple(map(_port, ports.items())) if ports else (),
        port=_port_name(spec.require("port", remedy="name its port, as ovs-vsctl list-ports br-int does")),
        mac=_mac(spec.require("mac", remedy='give its MAC address, as "52:54:00:12:34:56"')),
        dhcp=dhcp.flag() if dhcp else False,
        mtu=mtu.number(_LEAST_MTU, 65535) if mtu else DEFAULT_MTU,
    )
    return PortWorkload(pod=pod)


def _addresses(tree: Tree) -> tuple[Address, ...]:
    found: list[Address] = []
    for item in tree.items():
        address = fields.address(item)
        if address in found:
            raise item.error(f"is {address} once more; list each address once")
        found.append(address)
    if not found:
        raise tree.error("is empty; list its addresses, as [192.0.2.10]")
    return tuple(found)


def _port_name(tree: Tree) -> str:
    name = tree.text()
    if not 0 < len(name) <= _LONGEST_PORT or re.search(r"[\s/\x00-\x1f]", name) or name in (".", ".."):
        raise tree.error(
            f"is {name!r}; the name of an interface has up to {_LONGEST_PORT} characters, no slash, no space"
        )
    if is_own_port(name):
        raise tree.error(f"is {name}, a port that the node's agent makes; name the one that the workload is on")
    return name


def _mac(tree: Tree) -> int:
    text = tree.text()
    if not _MAC.fullmatch(text):
        raise tree.error(f'is {text!r}; it must be a MAC address, as "52:54:00:12:34:56"')
    mac = parse_mac(text)
    if mac & _MULTICAST or mac in (0, ROUTER_MAC, GATEWAY_MAC):
        what = "a group's address" if mac & _MULTICAST else "no host's" if mac == 0 else "the bridge's own"
        raise tree.error(f"is {text}, {what}; give the address that the workload's interface has")
    return mac


def _port(tree: Tree) -> ContainerPort:
    fields.known(tree, "name", "port", "protocol")
    name = tree.get("name")
    return ContainerPort(
        port=fields.port_number(tree.require("port", remedy="give the port's number")),
        name=fields.port_name(name) if name else "",
        protocol=fields.protocol(tree.get("protocol")),
    )
