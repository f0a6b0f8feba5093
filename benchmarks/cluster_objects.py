"""Clusters of any size as the objects that the controller would have read."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from flows.state import Port
from topology.model import Endpoint, EndpointPort, EndpointSlice, Node, Pod, Service, ServicePort, Subset
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


# Services: number `index` of them, each of one port -------------------------------------------------------------------

#: Where Services' addresses are from: 65,000 of them, apart from those that a lab or a controller gives by itself.
_FIRST_VIP = 0x0A60_0000


def service(index: int, *, port: int = 80, selecting: bool = False) -> Service:
    """A Service of one IPv4 address and one port, whose endpoints are its slice's or, `selecting`, its pods."""
    return Service(
        namespace="bench",
        name=f"service-{index}",
        ports=(ServicePort(port=port, target=8080),),
        selector=(("app", f"app-{index}"),) if selecting else None,
        cluster_ips=(IPv4Address(_FIRST_VIP + 256 + index),),
    )


def slice_of(index: int, endpoints: int, nodes: int, first: int = 0) -> EndpointSlice:
    """A Service's slice: so many endpoints, each a pod of another node; `first` is the place of the first of them."""
    there = (_place(index * endpoints + first + each, nodes) for each in range(endpoints))
    subset = Subset((EndpointPort(port=8080),), tuple(Endpoint(address=of, node=name) for name, of in there))
    return EndpointSlice(namespace="bench", name=f"service-{index}-1", service=f"service-{index}", subsets=(subset,))


def endpoint_pods(index: int, endpoints: int, nodes: int) -> list[Pod]:
    """The pods that a Service selects, each on another node."""
    pods = []
    for each in range(endpoints):
        home, address = _place(index * endpoints + each, nodes)
        pods.append(
            Pod(
                namespace="bench",
                name=f"service-{index}-pod-{each}",
                node=home,
                labels=(("app", f"app-{index}"), ("pod-template-hash", f"{index:08x}")),
                addresses=(address,),
            )
        )
    return pods


def _place(number: int, nodes: int) -> tuple[str, IPv4Address]:
    """The node and the address of the pod with this number."""
    home = number % nodes
    return f"node-{home}", IPv4Address(0x0A00_0000 + (home << 8) + 2 + number // nodes % 250)
