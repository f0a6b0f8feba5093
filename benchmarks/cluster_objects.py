"""Clusters of any size as the objects that the controller would have read."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from flows.state import Port
from topology.model import Node, Pod
from topology.naming import GATEWAY_MAC, GATEWAY_PORT, HOST_END_MAC_PREFIX, TUNNEL_PORT, mac_of, pod_addresses

#: Cluster-scope flows that a node makes: its two pod CIDRs and its two addresses.
FLOWS_A_NODE = 4


def node(index: int, moved: int = 0) -> Node:
    """A node with pod CIDRs and addresses of both families. `moved` gives it other addresses."""
    place = index + moved
    return Node(
        name=f"node-{index}",
        addresses=(IPv4Address(0xAC10_0001 + place), IPv6Address((0xFD00_0172 << 96) + 1 + place)),
        pod_cidrs=(
            IPv4Network((0x0A00_0000 + (index << 8), 24)),
            IPv6Network(((0xFD00_0010 << 96) + (index << 64), 64)),
        ),
    )


def pod(of: Node, index: int) -> Pod:
    """A pod on a node."""
    labels = (("app", f"app-{index % 10}"), ("pod-template-hash", f"{index:08x}"))
    return Pod(namespace=f"team-{index % 20}", name=f"{of.name}-pod-{index}", node=of.name, labels=labels)


def pod_port(of: Node, each: Pod, index: int) -> Port:
    """The port that a pod has, as the node's switch would announce it: place 2 and port 10 are the first."""
    return Port(10 + index, each.port_name, mac_of(HOST_END_MAC_PREFIX, pod_addresses(2 + index, of.pod_cidrs)[0]))


def node_ports() -> list[Port]:
    """What every node's switch has beside its pods."""
    return [Port(1, GATEWAY_PORT, GATEWAY_MAC), Port(2, TUNNEL_PORT, 0x0A57_0000_0003)]
