"""Links, addresses, routes and sysctls, in this network namespace and in a pod's. pyroute2 is
imported here, in node/functions.py and in node/devlink.py alone.

Every function is synchronous and short; the agent calls them in threads. Raises LinkError.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
from pyroute2 import IPRoute
from pyroute2.ethtool.ethtool import Ethtool
from pyroute2.netlink.exceptions import NetlinkError

from node.limits import Limit
from topology.naming import Address, Network, format_mac

_CLONE_NEWNET = 0x4000_0000
_IFF_UP, _IFF_NOARP = 0x1, 0x80
_NODAD = 0x02
_NTF_PROXY = 0x08
#: rtnetlink(7): the header of each message, what neighbours are asked for with, and the kinds of answers.
_NLMSGHDR, _NDMSG = struct.Struct("=IHHII"), struct.Struct("=B3xiHBB")
_GET_NEIGHBOURS, _NEW_NEIGHBOUR, _NLMSG_ERROR, _NLMSG_DONE = 30, 28, 2, 3
_DUMP, _NDA_DST = 0x301, 1
#: Who made a route (rtnetlink(7), rtm_protocol): by these the agent knows its own again.
_OUR_ROUTES, _ADDRESS_ROUTES, _PEER_ROUTES = 0x5B, 0x5C, 0x5D
_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17
_SYSCTL = Path("/proc/sys/net")
_libc = ctypes.CDLL(None, use_errno=True)


class LinkError(Exception):
    """The kernel refuses; the text says what and why."""


class PodLink(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's pair of interfaces: `host_name` here, `name` in the namespace at `netns`."""

    host_name: str
    host_mac: int
    netns: Path
    name: str
    mac: int
    mtu: int
    addresses: tuple[Address, ...]
    pod_cidrs: tuple[Network, ...]
    gateways: tuple[Address, ...]
    #: The datapath runs in user space and takes packets from the host's end beside the kernel.
    userspace: bool
    #: An Ethernet network: the switch answers for nobody there. It has routes of its own, or none.
    plain: bool = False
    routes: tuple[tuple[Network, Address | None], ...] = ()
    #: What the pod may send: bits a second, and bits at once. The kernel's own datapath has the switch see to that.
    limit: Limit | None = None


@contextmanager
def kernel() -> Iterator[Any]:
    with IPRoute() as route:
        yield route


@contextmanager
def inside(netns: Path) -> Iterator[None]:
    """This thread in another network namespace."""
    with Path("/proc/thread-self/ns/net").open() as here, netns.open() as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(here.fileno())


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def index_in(route: Any, name: str) -> int | None:
    try:
        found = route.link_lookup(ifname=name)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise
    return found[0] if found else None


def make_pod_link(link: PodLink) -> None:
    """Make both ends, the pod's in its namespace with addresses and routes. Raises LinkError, and then undoes it."""
    try:
        with kernel() as route, link.netns.open() as netns:
            peer = {
                "ifname": link.name,
                "address": format_mac(link.mac),
                "net_ns_fd": netns.fileno(),
                "mtu": link.mtu,
            }
            route.link(
                "add",
                kind="veth",
                ifname=link.host_name,
                address=format_mac(link.host_mac),
                mtu=link.mtu,
                peer=peer,
            )
            quiet_host_end(route, link)
        with inside(link.netns), kernel() as route:
            set_up_pod_end(route, link)
    except (NetlinkError, OSError) as error:
        remove_links([link.host_name])
        raise LinkError(f"{link.host_name} to {link.name} in {link.netns}: {reason(error)}") from error


def quiet_host_end(route: Any, link: PodLink) -> None:
    """The host's end up, and deaf where the kernel would hear what the switch hears.

    A userspace datapath listens beside the kernel's stack, not before it: without this the host would answer ARP for
    its own addresses itself, and a pod could reach it past the switch.
    """
    index = index_in(route, link.host_name)
    _write(f"ipv6/conf/{link.host_name}/disable_ipv6", 1)
    if link.userspace:
        _write(f"ipv4/conf/{link.host_name}/rp_filter", 1)
        _write(f"ipv4/conf/{link.host_name}/arp_ignore", 8)
        route.link("set", index=index, flags=_IFF_NOARP | _IFF_UP, change=_IFF_NOARP | _IFF_UP)
    else:
        route.link("set", index=index, state="up")


def set_up_pod_end(route: Any, link: PodLink) -> None:
    index = index_in(route, link.name)
    # The switch answers for every address, so there is nobody to find a duplicate, and nobody advertises routes.
    if not link.plain:
        _write(f"ipv6/conf/{link.name}/accept_dad", 0)
        _write(f"ipv6/conf/{link.name}/accept_ra", 0)
    if link.userspace:
        _no_checksum_offload(link.name)
    route.link("set", index=index_in(route, "lo"), state="up")
    route.link("set", index=index, state="up")
    for address, cidr in zip(link.addresses, link.pod_cidrs, strict=True):
        flags = {"flags": _NODAD} if address.version == 6 and not link.plain else {}
        family = _family(address)
        route.addr("add", index=index, address=str(address), prefixlen=cidr.prefixlen, family=family, **flags)
    for network, gateway in (*((_everywhere(each), each) for each in link.gateways), *link.routes):
        via = {"gateway": str(gateway)} if gateway is not None else {}
        route.route("add", dst=str(network), oif=index, family=_family(network), **via)
    if link.limit is not None:
        # A token bucket; what has to wait longer than this, in seconds, is dropped.
        rate, burst = f"{link.limit.rate}bit", link.limit.burst // 8
        route.tc("add", "tbf", index=index, handle=0, rate=rate, burst=burst, latency="50ms")


def _everywhere(address: Address) -> Network:
    return ip_network("0.0.0.0/0" if address.version == 4 else "::/0")


def _family(of: Address | Network) -> int:
    return socket.AF_INET if of.version == 4 else socket.AF_INET6


def _no_checksum_offload(name: str) -> None:
    """Checksums are filled in by the sender: nobody behind a userspace datapath's socket would do it."""
    value = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP16x", name.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, request)


def check_pod_link(link: PodLink) -> str:
    """What is wrong with a pod's interfaces; empty where nothing is."""
    try:
        with kernel() as route:
            if index_in(route, link.host_name) is None:
                return f"the host has no interface {link.host_name}"
        with inside(link.netns), kernel() as route:
            index = index_in(route, link.name)
            if index is None:
                return f"the pod has no interface {link.name}"
            found = {each.get_attr("IFA_ADDRESS") for each in route.get_addr(index=index)}
            for address in link.addresses:
                if str(address) not in found:
                    return f"interface {link.name} lacks the address {address}"
            mtu = route.get_links(index)[0].get_attr("IFLA_MTU")
            if mtu != link.mtu:
                return f"interface {link.name} has an MTU of {mtu}, not {link.mtu}"
            queues = {each.get_attr("TCA_KIND") for each in route.get_qdiscs(index=index)}
            if link.limit is not None and "tbf" not in queues:
                return f"interface {link.name} sends without the limit of {link.limit.rate} bit/s"
            for gateway in link.gateways:
                family = socket.AF_INET if gateway.version == 4 else socket.AF_INET6
                routes = route.get_routes(family=family, oif=index)
                if not any(not each["dst_len"] and each.get_attr("RTA_GATEWAY") == str(gateway) for each in routes):
                    return f"the pod has no default route by {gateway}"
    except (NetlinkError, OSError) as error:
        return reason(error)
    return ""


def remove_links(names: Sequence[str]) -> None:
    """Delete interfaces (their peers go with them); those that aren't there are gone already. Raises LinkError."""
    with kernel() as route:
        for name in names:
            try:
                index = index_in(route, name)
                if index is not None:
                    route.link("del", index=index)
            except NetlinkError as error:
                if error.code != errno.ENODEV:
                    raise LinkError(f"{name} can't be deleted: {reason(error)}") from error


def veths(prefix: str) -> set[str]:
    """The interfaces of this namespace whose names begin so."""
    with kernel() as route:
        names = {str(each.get_attr("IFLA_IFNAME")) for each in route.get_links()}
    return {name for name in names if name.startswith(prefix)}


def keep_up(name: str) -> None:
    """Put an interface up again that somebody has put down. Raises LinkError."""
    try:
        with kernel() as route:
            index = index_in(route, name)
            if index is not None and not route.get_links(index)[0]["flags"] & _IFF_UP:
                route.link("set", index=index, state="up")
    except (NetlinkError, OSError) as error:
        raise LinkError(f"{name}: {reason(error)}") from error


def index_of(name: str) -> int:
    """The number of an interface; 0 where there is none of this name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def mtu_of(address: Address) -> int:
    """The MTU of the interface that has an address. Raises LinkError."""
    with kernel() as route:
        for each in route.get_addr():
            if each.get_attr("IFA_ADDRESS") == str(address) or each.get_attr("IFA_LOCAL") == str(address):
                (link,) = route.get_links(each["index"])
                return int(link.get_attr("IFLA_MTU"))
    raise LinkError(f"no interface has the node's address {address} (--node-ip)")


def set_pod_mtu(host_name: str, netns: Path, name: str, mtu: int) -> None:
    """Give both ends of a pod's pair another MTU, if it isn't theirs. Raises LinkError."""
    try:
        with kernel() as route:
            _set_mtu(route, host_name, mtu)
        with inside(netns), kernel() as route:
            _set_mtu(route, name, mtu)
    except (NetlinkError, OSError) as error:
        raise LinkError(f"{host_name} to {name} in {netns}: {reason(error)}") from error


def _set_mtu(route: Any, name: str, mtu: int) -> None:
    index = index_in(route, name)
    if index is not None and route.get_links(index)[0].get_attr("IFLA_MTU") != mtu:
        route.link("set", index=index, mtu=mtu)


def set_up_gateway(
    name: str, addresses: Sequence[Address], pod_cidrs: Sequence[Network], routed: Sequence[Network]
) -> None:
    """The host's way to its pods and to Services: addresses, routes, forwarding. Idempotent. Raises LinkError."""
    try:
        with kernel() as route:
            index = index_in(route, name)
            if index is None:
                raise LinkError(f"the host has no interface {name}: is ovs-vswitchd running?")
            _write(f"ipv6/conf/{name}/accept_dad", 0)
            _write(f"ipv6/conf/{name}/accept_ra", 0)
            (link,) = route.get_links(index)
            if not link["flags"] & _IFF_UP:
                route.link("set", index=index, state="up")
            wanted = {(str(a), cidr.prefixlen) for a, cidr in zip(addresses, pod_cidrs, strict=True)}
            found = {(each.get_attr("IFA_ADDRESS"), each["prefixlen"]) for each in route.get_addr(index=index)}
            for address, length in found - wanted:
                if not address.startswith("fe80:"):
                    route.addr("del", index=index, address=address, prefixlen=length)
            for address, length in sorted(wanted - found):
                flags = {"flags": _NODAD} if ":" in address else {}
                route.addr("add", index=index, address=address, prefixlen=length, **flags)
            for cidr in routed:
                _to_bridge(route, "replace", cidr, index, addresses)
    except (NetlinkError, OSError) as error:
        raise LinkError(f"{name}: {reason(error)}") from error
    _write("ipv4/ip_forward", 1)
    _write("ipv6/conf/all/forwarding", 1)


def route_loopback(name: str, wanted: bool) -> None:
    """Whether packets of IPv4's loopback addresses may go by an interface; of IPv6's none may. Raises LinkError."""
    try:
        _write(f"ipv4/conf/{name}/route_localnet", int(wanted))
    except OSError as error:
        raise LinkError(f"{name}: route_localnet: {reason(error)}") from error


def _to_bridge(route: Any, command: str, network: Network, index: int, sources: Sequence[Address]) -> None:
    source = next((str(each) for each in sources if each.version == network.version), None)
    if source is None:
        return  # a family that the cluster doesn't have
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    route.route(command, dst=str(network), oif=index, family=family, prefsrc=source, proto=_OUR_ROUTES)


def connected(but: str) -> list[Network]:
    """The networks that the host is on, not counting one interface's. Raises LinkError."""
    try:
        with kernel() as route:
            index = index_in(route, but)
            return [
                ip_network(
                    (each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS"), each["prefixlen"]), strict=False
                )
                for each in route.get_addr()
                if each["index"] != index
            ]
    except (NetlinkError, OSError) as error:
        raise LinkError(f"the host's addresses: {reason(error)}") from error


def set_ways(
    name: str,
    cluster_cidrs: Sequence[Network],
    by_bridge: bool,
    peers: Mapping[Network, Address],
    sources: Sequence[Address],
) -> None:
    """The host's ways to other nodes' pods: by `peers`, and for all the rest of the cluster by the bridge, or not.

    What is new comes before what is old goes, so that there is a way at any time. Raises LinkError.
    """
    try:
        with kernel() as route:
            index = index_in(route, name)
            if index is None:
                raise LinkError(f"the host has no interface {name}")
            for cidr in cluster_cidrs if by_bridge else ():
                _to_bridge(route, "replace", cidr, index, sources)
            found = _peer_routes(route)
            wanted = {str(network): str(via) for network, via in peers.items()}
            for dst, via in sorted(wanted.items() - found.items()):
                family = socket.AF_INET6 if ":" in dst else socket.AF_INET
                route.route("replace", dst=dst, gateway=via, family=family, proto=_PEER_ROUTES)
            _remove_peer_routes(route, found.keys() - wanted.keys())
    except (NetlinkError, OSError) as error:
        raise LinkError(f"ways to other nodes: {reason(error)}") from error
    if not by_bridge:
        remove_gateway_routes(cluster_cidrs, name)


def remove_peer_routes() -> None:
    """All that `set_ways` has made to other nodes. Raises LinkError."""
    try:
        with kernel() as route:
            _remove_peer_routes(route, _peer_routes(route))
    except (NetlinkError, OSError) as error:
        raise LinkError(f"ways to other nodes: {reason(error)}") from error


def _peer_routes(route: Any) -> dict[str, str]:
    found = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        for each in route.get_routes(family=family, proto=_PEER_ROUTES):
            found[f"{each.get_attr('RTA_DST')}/{each['dst_len']}"] = str(each.get_attr("RTA_GATEWAY"))
    return found


def _remove_peer_routes(route: Any, networks: Iterable[str]) -> None:
    for dst in sorted(networks):
        family = socket.AF_INET6 if ":" in dst else socket.AF_INET
        route.route("del", dst=dst, family=family, proto=_PEER_ROUTES)


def set_service_routes(name: str, addresses: Iterable[Address], sources: Sequence[Address]) -> None:
    """The host's way to addresses of Services, and to no others than these. Raises LinkError."""
    wanted = {str(each) for each in addresses}
    try:
        with kernel() as route:
            index = index_in(route, name)
            if index is None:
                raise LinkError(f"the host has no interface {name}")
            found = set()
            for family, whole in ((socket.AF_INET, 32), (socket.AF_INET6, 128)):
                for each in route.get_routes(family=family, oif=index, proto=_ADDRESS_ROUTES):
                    if each["dst_len"] == whole:
                        found.add(str(each.get_attr("RTA_DST")))
            for address in sorted(found - wanted):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                route.route("del", dst=str(ip_network(address)), oif=index, family=family, proto=_ADDRESS_ROUTES)
            for address in sorted(wanted - found):
                source = next((str(each) for each in sources if each.version == ip_address(address).version), None)
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                extra = {"prefsrc": source} if source is not None else {}
                dst = str(ip_network(address))
                route.route("replace", dst=dst, oif=index, family=family, proto=_ADDRESS_ROUTES, **extra)
    except (NetlinkError, OSError) as error:
        raise LinkError(f"{name}: {reason(error)}") from error


def interface_of(address: Address) -> str:
    """The name of the interface that has an address. Raises LinkError."""
    with kernel() as route:
        for each in route.get_addr():
            if str(address) in (each.get_attr("IFA_ADDRESS"), each.get_attr("IFA_LOCAL")):
                (link,) = route.get_links(each["index"])
                return str(link.get_attr("IFLA_IFNAME"))
    raise LinkError(f"no interface has the node's address {address} (--node-ip)")


def allow_tc_offload(name: str) -> str:
    """Have an interface take tc's flows into its hardware, if it doesn't yet. Why it can't, empty where it does."""
    ethtool = Ethtool()
    try:
        features = ethtool.get_features(name)
        feature = features.features.get("hw-tc-offload")
        if feature is None:
            return "there is no such feature"
        if not feature.enable:
            features.features["hw-tc-offload"].enable = True
            ethtool.set_features(name, features)
            if not ethtool.get_features(name).features["hw-tc-offload"].enable:
                return "it can't be put on"
    except Exception as error:
        # It raises kinds of its own, for whatever a driver doesn't know.
        return reason(error) or type(error).__name__
    finally:
        ethtool.close()
    return ""


def set_announced(name: str, addresses: Iterable[Address]) -> set[Address]:
    """Answer on an interface for addresses that are elsewhere, and for no others. Returns those that are new."""
    wanted = set(addresses)
    try:
        with kernel() as route:
            index = index_in(route, name)
            if index is None:
                raise LinkError(f"the host has no interface {name}")
            found = _proxied(index)
            for address in sorted(found - wanted, key=int):
                _proxy(route, "del", index, address)
            fresh = wanted - found
            if fresh:
                # At once, not after up to 0.8 s at random: nobody else answers.
                for version in (4, 6):
                    _write(f"ipv{version}/neigh/{name}/proxy_delay", 0)
                _write(f"ipv6/conf/{name}/proxy_ndp", 1)
            for address in sorted(fresh, key=int):
                _proxy(route, "add", index, address)
            return fresh
    except (NetlinkError, OSError) as error:
        raise LinkError(f"{name}: {reason(error)}") from error


def _proxied(index: int) -> set[Address]:
    """The addresses that an interface answers for though they are elsewhere.

    The kernel tells proxy entries only to who asks for proxy entries, which pyroute2 can't.
    """
    found: set[Address] = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(5)
        for family in (socket.AF_INET, socket.AF_INET6):
            request = _NDMSG.pack(family, 0, 0, _NTF_PROXY, 0)
            kernel.send(_NLMSGHDR.pack(_NLMSGHDR.size + len(request), _GET_NEIGHBOURS, _DUMP, 1, 0) + request)
            done = False
            while not done:
                data = kernel.recv(1 << 16)
                while data:
                    length, kind, _, _, _ = _NLMSGHDR.unpack_from(data)
                    done |= kind in (_NLMSG_DONE, _NLMSG_ERROR)
                    if kind == _NEW_NEIGHBOUR and _NDMSG.unpack_from(data, 16)[1] == index:
                        found |= set(_destinations(data[16 + _NDMSG.size : length]))
                    data = data[length + -length % 4 :]
    return found


def _destinations(attributes: bytes) -> Iterator[Address]:
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind == _NDA_DST:
            yield ip_address(attributes[4:length])
        attributes = attributes[max(length, 4) + -length % 4 :]


def _proxy(route: Any, command: str, index: int, address: Address) -> None:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    route.neigh(command, dst=str(address), ifindex=index, family=family, flags=_NTF_PROXY)


def announce(name: str, addresses: Iterable[Address]) -> None:
    """Tell the network that these addresses are here now: neighbours that have asked before ask again too late.

    A gratuitous ARP request (RFC 5227 section 2.3), an unsolicited neighbour advertisement (RFC 4861 section 7.2.6).
    """
    with kernel() as route:
        index = index_in(route, name)
        if index is None:
            raise LinkError(f"the host has no interface {name}")
        (link,) = route.get_links(index)
        mac = bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", ""))
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((name, 0))
            for address in addresses:
                sock.send(_announcement(mac, address))
    except OSError as error:
        raise LinkError(f"{name}: {reason(error)}") from error


def _announcement(mac: bytes, address: Address) -> bytes:
    if address.version == 4:
        ends = mac + address.packed + bytes(6) + address.packed
        return b"\xff" * 6 + mac + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + ends
    everybody = ip_address("ff02::1").packed
    # Override flag; a target link-layer option.
    body = struct.pack("!BBHI", 136, 0, 0, 0x2000_0000) + address.packed + struct.pack("!BB", 2, 1) + mac
    pseudo = address.packed + everybody + struct.pack("!I3xB", len(body), 58)
    body = body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + address.packed + everybody
    return bytes.fromhex("333300000001") + mac + struct.pack("!H", 0x86DD) + head + body


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def remove_gateway_routes(cluster_cidrs: Sequence[Network], name: str) -> None:
    """The routes that `set_up_gateway` made; the rest goes with the interface."""
    with kernel() as route:
        index = index_in(route, name)
        for cidr in cluster_cidrs if index is not None else ():
            family = socket.AF_INET if cidr.version == 4 else socket.AF_INET6
            try:
                route.route("del", dst=str(cidr), oif=index, family=family)
            except NetlinkError as error:
                if error.code != errno.ESRCH:
                    raise LinkError(f"route {cidr}: {reason(error)}") from error


def _write(name: str, value: int) -> None:
    # Of this thread's namespace: /proc/sys/net follows the opener.
    path = _SYSCTL / name
    try:
        if path.read_text().strip() != str(value):
            path.write_text(str(value))
    except FileNotFoundError:
        # A kernel without IPv6 has no such file, and nothing that would have to be set.
        if not name.startswith("ipv6/"):
            raise


def reason(error: Exception) -> str:
    if isinstance(error, NetlinkError):
        return os.strerror(error.code) if error.code > 0 else str(error)
    return str(error)
