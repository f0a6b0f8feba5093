"""Names, paths and addresses of a lab: pure functions of its name and settings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TypeVar

import msgspec

from topology.naming import Address, Network, format_mac, mac_of

ROOT = Path("/run/signalbox/lab")
#: Characters that the path of a Unix socket may have (unix(7)).
_SOCKET_PATH = 107
NETNS_DIR = Path("/run/netns")
#: A node's first octets of its underlay MAC; the rest is its IPv4 address.
UNDERLAY_MAC_PREFIX = 0x0A56
#: Where the controller of a lab with TLS listens.
OPENFLOW_PORT = 6653
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")
#: Addresses of "the world" that only the outside host has (RFC 5737, RFC 3849).
WORLD = ("192.0.2.1", "2001:db8::1")


class LabError(Exception):
    """What the user asked for can't be done; one line that says why and what to do."""


class LabSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a lab was brought up. `nodes` maps names to labels; `owner` is the process that it ends with, 0 for none.

    `ip_family` is "dual", "ipv4" or "ipv6", of nodes and of pods; `source_identity` is "tunnel-key" or "address".
    """

    name: str
    nodes: Mapping[str, Mapping[str, str]]
    mode: str = "overlay"
    encap: str = "vxlan"
    #: L2 segments of the underlay, joined by a router that knows every node's pod CIDRs in routed mode.
    segments: int = 1
    source_identity: str = "tunnel-key"
    ip_family: str = "dual"
    underlay: tuple[str, str] = ("172.30.0.0/24", "fd00:172:30::/64")
    pods: tuple[str, str] = ("10.244.0.0/16", "fd00:10:244::/48")
    services: tuple[str, str] = ("10.96.0.0/16", "fd00:10:96::/112")
    #: Where LoadBalancer addresses are from: the outside host looks for them on the underlay.
    load_balancers: tuple[str, str] = ("198.51.100.0/24", "2001:db8:1::/112")
    mtu: int = 1500
    #: Whether switches speak TLS with the controller, each with a certificate of its own.
    tls: bool = False
    controllers: int = 1
    #: Of several controllers' leases: duration, renewal's deadline, retry period, and when one joins (seconds).
    lease_times: tuple[float, float, float, float] = (6.0, 4.0, 1.0, 3.0)
    owner: int = 0
    owner_started: int = 0


class Layout:
    """Where everything of one lab is and what it is called."""

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise LabError(f"lab name {name!r}: use at most 20 lower-case letters, digits and dashes")
        self.name = name
        self.directory = ROOT / name
        self.settings = self.directory / "lab.json"
        self.lock = ROOT / f".{name}.lock"
        self.manifests = self.directory / "manifests"
        self.processes = self.directory / "processes"
        self.guardian = self.processes / "guardian.json"
        self.pods = self.directory / "pods"
        self.api = self.api_of(1)
        self.openflow = self.openflow_of(1)
        self.leases = self.directory / "leases"
        #: What people have said to a controller, which all of them know.
        self.state = self.directory / "state"
        self.pki = self.directory / "pki"
        self.bin = self.directory / "bin"
        self.prefix = f"sb-{name}"
        self.net = f"{self.prefix}_net"
        self.outside = f"{self.prefix}_outside"

    def api_of(self, controller: int) -> Path:
        """The admin socket of the controller with this number, from 1."""
        return self.directory / f"{controller_name(controller)}.sock"

    def openflow_of(self, controller: int) -> Path:
        """Where switches reach the controller with this number."""
        return self.directory / f"{controller_name(controller).replace('controller', 'openflow')}.sock"

    def log_of(self, controller: int) -> Path:
        """What the controller with this number has logged."""
        return self.directory / f"{controller_name(controller)}.log"

    def node_netns(self, node: str) -> str:
        return f"{self.prefix}.{node}"

    def pod_netns(self, namespace: str, pod: str) -> str:
        return f"{self.prefix}.{_file_name(namespace, pod)}"

    def pod(self, namespace: str, pod: str) -> Path:
        """The directory with what is known of a pod that was started."""
        return self.pods / _file_name(namespace, pod)

    def owns(self, netns: str) -> bool:
        """Whether a network namespace of this name is this lab's."""
        return netns.startswith((f"{self.prefix}.", f"{self.prefix}_"))

    def node(self, node: str) -> Path:
        """A node's run directory."""
        return self.directory / "nodes" / node

    def check_node(self, node: str, controllers: int = 1) -> None:
        """Raise LabError where a node's sockets would have paths that no socket may have."""
        longest = len(str(self.node(node) / f"{controller_name(controllers)}.sock"))
        if longest > _SOCKET_PATH:
            raise LabError(
                f"node {node}: the name is too long for a lab: use one that is {longest - _SOCKET_PATH} characters "
                "shorter, or a shorter name for the lab"
            )


def controller_name(controller: int) -> str:
    """What the controller with this number is called: the first one without it."""
    return "controller" if controller == 1 else f"controller-{controller}"


def _file_name(namespace: str, pod: str) -> str:
    """Readable where it fits: a file's name has 255 characters at most, a pod's and its namespace's together 316."""
    name = f"{namespace}.{pod}"
    return name if len(name) <= 200 else f"{name[:180]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def netns_path(netns: str) -> Path:
    """The file that stands for a network namespace."""
    return NETNS_DIR / netns


def networks(texts: Sequence[str], what: str) -> tuple[IPv4Network, IPv6Network]:
    """An IPv4 and an IPv6 network. Raises LabError."""
    try:
        parsed = tuple(map(ip_network, texts))
    except ValueError as error:
        raise LabError(f"{what}: {error}") from error
    match parsed:
        case (IPv4Network() as first, IPv6Network() as second):
            return first, second
    raise LabError(f"{what}: one IPv4 and one IPv6 network are needed")


Item = TypeVar("Item", Address, Network)
_FAMILIES = {"dual": (4, 6), "ipv4": (4,), "ipv6": (6,)}


def _in_use(settings: LabSettings, items: Sequence[Item]) -> tuple[Item, ...]:
    return tuple(each for each in items if each.version in _FAMILIES[settings.ip_family])


def node_addresses(settings: LabSettings, index: int) -> tuple[Address, ...]:
    """The underlay addresses of the node with this index (from 0)."""
    return _in_use(settings, [network[index + 1] for network in segment(settings, segment_of(settings, index))])


def segment_of(settings: LabSettings, index: int) -> int:
    """The L2 segment, from 0, of the node with this index: the first nodes are on the first."""
    return index * settings.segments // max(len(settings.nodes), 1)


def segment(settings: LabSettings, number: int) -> tuple[IPv4Network, IPv6Network]:
    """The networks of an L2 segment, from 0: the underlay's, and those that follow it."""
    v4, v6 = networks(settings.underlay, "underlay")
    return (
        IPv4Network((int(v4.network_address) + number * v4.num_addresses, v4.prefixlen)),
        IPv6Network((int(v6.network_address) + number * v6.num_addresses, v6.prefixlen)),
    )


def segment_networks(settings: LabSettings, number: int) -> tuple[Network, ...]:
    """The same, of the families in use."""
    return _in_use(settings, segment(settings, number))


def router_addresses(settings: LabSettings, number: int) -> tuple[Address, ...]:
    """The addresses on an L2 segment of the router that joins it to the others: the last but two."""
    v4, v6 = segment(settings, number)
    return _in_use(settings, [v4[-4], v6[v4.num_addresses - 4]])


def underlay_mac(address: Address) -> str:
    """The MAC of a NIC on the underlay, by the first address there."""
    return format_mac(mac_of(UNDERLAY_MAC_PREFIX, address))


def outside_addresses(settings: LabSettings) -> tuple[Address, ...]:
    """The outside host's addresses on the underlay: the last that IPv4 can have, the same place in IPv6."""
    v4, v6 = networks(settings.underlay, "underlay")
    return _in_use(settings, [v4[-2], v6[v4.num_addresses - 2]])


def controller_addresses(settings: LabSettings) -> tuple[Address, ...]:
    """Where the controllers of a lab with TLS listen: on the underlay, the last but one."""
    v4, v6 = networks(settings.underlay, "underlay")
    return _in_use(settings, [v4[-3], v6[v4.num_addresses - 3]])


def controller_target(settings: LabSettings, controller: int) -> str:
    """The same as Open vSwitch writes it, of the controller with this number: each has a port of its own."""
    address, port = controller_addresses(settings)[0], OPENFLOW_PORT + controller - 1
    return f"ssl:{address}:{port}" if address.version == 4 else f"ssl:[{address}]:{port}"


def cluster_cidrs(settings: LabSettings) -> tuple[Network, ...]:
    """What holds every node's pod CIDRs."""
    return _in_use(settings, networks(settings.pods, "pods"))


def service_cidrs(settings: LabSettings) -> tuple[Network, ...]:
    """Where Services' cluster addresses are from."""
    return _in_use(settings, networks(settings.services, "services"))


def load_balancer_pools(settings: LabSettings) -> tuple[Network, ...]:
    """Where LoadBalancer addresses are from."""
    return _in_use(settings, networks(settings.load_balancers, "load balancers"))


def pod_cidrs(settings: LabSettings, index: int) -> tuple[Network, ...]:
    """The pod CIDRs of the node with this index: a /24 and a /64 out of the lab's."""
    v4, v6 = networks(settings.pods, "pods")
    try:
        first = ip_network((int(v4.network_address) + ((index + 1) << 8), 24))
        second = ip_network((int(v6.network_address) + ((index + 1) << 64), 64))
    except ValueError as error:
        raise LabError(f"pods: no CIDRs for node {index + 1} in {v4} and {v6}") from error
    if not (v4.overlaps(first) and v6.overlaps(second)):
        raise LabError(f"pods: {v4} and {v6} are too small for {index + 1} nodes")
    return _in_use(settings, [first, second])


def node_manifest(settings: LabSettings, name: str, index: int) -> dict[str, object]:
    """A lab node as Kubernetes would describe it."""
    addresses = [{"type": "InternalIP", "address": str(each)} for each in node_addresses(settings, index)]
    labels = {"kubernetes.io/hostname": name, **settings.nodes[name]}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDRs": [str(each) for each in pod_cidrs(settings, index)]},
        "status": {"addresses": [*addresses, {"type": "Hostname", "address": name}]},
    }
