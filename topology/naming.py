"""Names and numbers that every part derives alike, so that no part has to be told them.

Owns: pod -> port name, node -> datapath id, address <-> MAC, object -> 40-bit id, and the fixed names on a node.
Knows nothing of the cluster's state. `node` may import this module and `offload`, and no other of `topology`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: The bridge of a node that holds its pods; the ports beside them on it.
BRIDGE = "br-int"
GATEWAY_PORT = "sb-gw0"
TUNNEL_PORT = "sb-tun0"

#: What the switch answers ARP and neighbour solicitations with, whoever asks for whatever: it routes everything.
ROUTER_MAC = 0x0A57_0000_0001
#: The gateway port's own address, the same on every node: the segments never meet.
GATEWAY_MAC = 0x0A57_0000_0002

#: What a client is seen as by itself, through a Service: a pod that calls its own Service, a host that calls itself.
HAIRPIN_ADDRESSES: tuple[Address, ...] = (IPv4Address("169.254.91.1"), IPv6Address("fd5b:91::1"))
#: The gateway of what DHCP configures, and the server of DHCP: the bridge is both, for whoever is on it.
ROUTER_ADDRESS = IPv4Address("169.254.91.3")
#: Where a host's kernel sends what comes for its NodePorts and host ports; the switch knows it as "this node".
ENTRY_ADDRESSES: tuple[Address, ...] = (IPv4Address("169.254.91.2"), IPv6Address("fd5b:91::2"))

#: A MAC's first 16 bits say what it is, its last 32 are the pod's address (see `mac_of`).
POD_MAC_PREFIX = 0x0A58
HOST_END_MAC_PREFIX = 0x0A59

#: On a wire between two bridges a frame is bound for a node (`fabric_mac`), and its sender's MAC ends in an identity.
FABRIC_MAC_PREFIX = 0x0A5C
FABRIC_SENDER_PREFIX = 0x0A5D

POD_PORT_PREFIX = "pod"
NETWORK_PORT_PREFIX = "sbn"
#: A pod's port whose hardware address isn't ours to choose (a NIC's representor of a virtual function, a socket's) has
#: instead a number that says the pod's place, from this one up; OpenFlow's own numbers begin above the last.
PLACE_PORTS = range(0x8000, 0xFF00)
CERTIFICATE_URI_PREFIX = "signalbox:node:"
#: What the name of the Secret begins with that has a node's certificate.
NODE_SECRET_PREFIX = "signalbox-node-"
#: The object id is the low 40 bits of a flow's cookie; `flows.cookies` says what the other bits are.
OBJECT_ID_BITS = 40


class NamingError(ValueError):
    """An address, MAC or name that the rules of this module don't cover; the text says which and why."""


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def pod_port_name(namespace: str, name: str) -> str:
    """The name of a pod's port on its bridge: 15 characters, Linux's limit, of which 12 are a hash (48 bits)."""
    return POD_PORT_PREFIX + _hash(f"{namespace}/{name}")[:6].hex()


def network_port_name(container: str, interface: str) -> str:
    """The name of a pod's port on another network's bridge, which no controller looks at: 15 characters as well."""
    return NETWORK_PORT_PREFIX + _hash(f"{container}/{interface}")[:6].hex()


def is_pod_port(port_name: str) -> bool:
    """Whether a port's name has the form that `pod_port_name` gives."""
    return len(port_name) == 15 and port_name.startswith(POD_PORT_PREFIX)


def is_network_port(port_name: str) -> bool:
    """Whether a port's name has the form that `network_port_name` gives."""
    return len(port_name) == 15 and port_name.startswith(NETWORK_PORT_PREFIX)


def datapath_id(node: str) -> int:
    """The 64-bit OpenFlow datapath id of a node's bridge (never zero)."""
    return int.from_bytes(_hash(f"node/{node}")[:8], "big") or 1


def observation_domain(node: str) -> int:
    """What flow exports name a node's bridge by, in 32 bits (RFC 7011's observation domain; never zero)."""
    return int.from_bytes(_hash(f"export/{node}")[:4], "big") or 1


def fabric_mac(node: str) -> int:
    """What a frame on a wire is addressed to that is bound for a node, wherever in the fabric it is: 32 bits a hash."""
    return FABRIC_MAC_PREFIX << 32 | int.from_bytes(_hash(f"fabric/{node}")[:4], "big")


def object_id(kind: str, namespace: str, name: str) -> int:
    """The 40-bit id of an object, `namespace` empty for what has none; see `OBJECT_ID_BITS`."""
    return int.from_bytes(_hash(f"{kind}/{namespace}/{name}")[:5], "big")


def mac_of(prefix: int, address: Address) -> int:
    """The 48-bit MAC of an address: `prefix` (16 bits), then the low 32 bits of the address."""
    return prefix << 32 | int(address) & 0xFFFF_FFFF


def format_mac(mac: int) -> str:
    """A 48-bit number as `0a:58:0a:f4:00:05`."""
    return mac.to_bytes(6, "big").hex(":")


def parse_mac(text: str) -> int:
    """The inverse of `format_mac`. Raises NamingError."""
    try:
        octets = [int(octet, 16) for octet in text.split(":")]
        return int.from_bytes(bytes(octets), "big") if len(octets) == 6 else _refuse(text)
    except ValueError as error:
        raise NamingError(f"not a MAC address: {text!r}") from error


def is_own_port(port_name: str) -> bool:
    """Whether a port's name is one that only a node's agent gives: no workload can be there."""
    return port_name in (BRIDGE, GATEWAY_PORT, TUNNEL_PORT) or is_pod_port(port_name)


def _refuse(text: str) -> int:
    raise ValueError(text)


def pod_addresses(index: int, pod_cidrs: Sequence[Network]) -> tuple[Address, ...]:
    """The addresses of the pod that holds place `index` of its node: the same place in each family's CIDR.

    Place 0 is the network itself, place 1 the gateway; a pod may have 2 and up, in IPv4 below the broadcast address.
    Raises NamingError when the place is outside one of the CIDRs.
    """
    addresses: list[Address] = []
    for cidr in pod_cidrs:
        if not 0 <= index < _size(cidr):
            raise NamingError(f"place {index} is outside pod CIDR {cidr}")
        addresses.append(cidr.network_address + index)
    return tuple(addresses)


def _size(cidr: Network) -> int:
    """How many addresses it has. Its own property makes two of them for that, and this is asked for every pod."""
    return 1 << cidr.max_prefixlen - cidr.prefixlen


def gateway_addresses(pod_cidrs: Sequence[Network]) -> tuple[Address, ...]:
    """The addresses of a node's gateway port, one for each of its pod CIDRs."""
    return pod_addresses(1, pod_cidrs)


def places(pod_cidrs: Sequence[Network]) -> range:
    """The places that a node can give to pods: every CIDR has room for each of them, at most 2**16 are used.

    The last place that an address could have is kept for `translation_addresses`.
    """
    last = min(_size(cidr) - (1 if cidr.version == 4 else 0) for cidr in pod_cidrs)
    return range(2, min(last, 1 << 16) - 1)


def translation_addresses(pod_cidrs: Sequence[Network]) -> tuple[Address, ...]:
    """What another node's endpoint sees a client as that came from the world by this node, for each family.

    An address of the bridge alone: neither a pod nor the host has it.
    """
    return pod_addresses(places(pod_cidrs).stop, pod_cidrs)


def pod_addresses_of_mac(mac: int, pod_cidrs: Sequence[Network]) -> tuple[Address, ...]:
    """The pod's addresses as its port's hardware address and its node's CIDRs tell them, one for each CIDR.

    The MAC's low 32 bits are those of the address in the first CIDR. `mac` may have either prefix.
    Raises NamingError when it has neither, or when the address is outside the node's CIDR or not a pod's place.
    """
    if mac >> 32 not in (POD_MAC_PREFIX, HOST_END_MAC_PREFIX):
        raise NamingError(f"{format_mac(mac)} is not the address of a pod's port")
    if not pod_cidrs:
        raise NamingError(f"the node of {format_mac(mac)} has no pod CIDR")
    first = pod_cidrs[0]
    base = int(first.network_address)
    index = (mac & 0xFFFF_FFFF) - (base & 0xFFFF_FFFF)
    if index not in places(pod_cidrs):
        raise NamingError(f"{format_mac(mac)} stands for an address outside its node's pod CIDR {first}")
    return pod_addresses(index, pod_cidrs)


def port_of_place(place: int) -> int:
    """The number of the port of the pod that holds a place, where its hardware address can't say it.

    Raises NamingError where a place is too high to be told so: in pod CIDRs of more than 2**15 addresses.
    """
    if place not in range(len(PLACE_PORTS)):
        raise NamingError(
            f"no port's number can say place {place} of a pod CIDR: the highest is {len(PLACE_PORTS) - 1}"
        )
    return PLACE_PORTS[place]


def announces_by_mac(mac: int) -> bool:
    """Whether a pod port's hardware address says the pod's; otherwise its number does."""
    return mac >> 32 in (POD_MAC_PREFIX, HOST_END_MAC_PREFIX)


def pod_addresses_of_port(number: int, mac: int, pod_cidrs: Sequence[Network]) -> tuple[Address, ...]:
    """The pod's addresses as its port announces them: by its hardware address, or else by its number.

    Raises NamingError where neither says any.
    """
    if announces_by_mac(mac) or number not in PLACE_PORTS:
        return pod_addresses_of_mac(mac, pod_cidrs)
    place = number - PLACE_PORTS.start
    if place not in places(pod_cidrs):
        raise NamingError(f"port {number} stands for place {place}, which no pod of its node's pod CIDRs can have")
    return pod_addresses(place, pod_cidrs)


def link_local(mac: int) -> IPv6Address:
    """The link-local address that Linux derives from a MAC (EUI-64, RFC 4291 appendix A)."""
    eui = (mac >> 24 ^ 0x02_0000) << 40 | 0xFFFE << 24 | mac & 0xFF_FFFF
    return IPv6Address(0xFE80 << 112 | eui)


def certificate_uri(node: str) -> str:
    """What a node's certificate says it is: a URI among its subject's alternative names.

    Not the common name, which holds 64 characters where a node's name may have 253, and not a DNS name, which a
    certificate may have for quite other reasons.
    """
    return CERTIFICATE_URI_PREFIX + node


def node_secret(node: str) -> str:
    """The name of the Secret that has a node's certificate."""
    return NODE_SECRET_PREFIX + node
