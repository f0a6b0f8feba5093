"""Links, addresses, routes and sysctls, in this network namespace and in a pod's. The only import of pyroute2.

Every function is synchronous and short; the agent calls them in threads. Raises LinkError.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from topology.naming import Address, Network, format_mac

_CLONE_NEWNET = 0x4000_0000
_IFF_UP, _IFF_NOARP = 0x1, 0x80
_NODAD = 0x02
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


@contextmanager
def _route() -> Iterator[Any]:
    with IPRoute() as route:
        yield route


@contextmanager
def _inside(netns: Path) -> Iterator[None]:
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


def _index(route: Any, name: str) -> int | None:
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
        with _route() as route, link.netns.open() as netns:
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
            _quiet_host_end(route, link)
        with _inside(link.netns), _route() as route:
            _set_up_pod_end(route, link)
    except (NetlinkError, OSError) as error:
        remove_links([link.host_name])
        raise LinkError(f"{link.host_name} to {link.name} in {link.netns}: {_reason(error)}") from error


def _quiet_host_end(route: Any, link: PodLink) -> None:
    """The host's end up, and deaf where the kernel would hear what the switch hears.

    A userspace datapath listens beside the kernel's stack, not before it: without this the host would answer ARP for
    its own addresses itself, and a pod could reach it past the switch.
    """
    index = _index(route, link.host_name)
    _write(f"ipv6/conf/{link.host_name}/disable_ipv6", 1)
    if link.userspace:
        _write(f"ipv4/conf/{link.host_name}/rp_filter", 1)
        _write(f"ipv4/conf/{link.host_name}/arp_ignore", 8)
        route.link("set", index=index, flags=_IFF_NOARP | _IFF_UP, change=_IFF_NOARP | _IFF_UP)
    else:
        route.link("set", index=index, state="up")


def _set_up_pod_end(route: Any, link: PodLink) -> None:
    index = _index(route, link.name)
    # The switch answers for every address, so there is nobody to find a duplicate, and nobody advertises routes.
    _write(f"ipv6/conf/{link.name}/accept_dad", 0)
    _write(f"ipv6/conf/{link.name}/accept_ra", 0)
    if link.userspace:
        _no_checksum_offload(link.name)
    route.link("set", index=_index(route, "lo"), state="up")
    route.link("set", index=index, state="up")
    for address, cidr, gateway in zip(link.addresses, link.pod_cidrs, link.gateways, strict=True):
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        flags = {} if address.version == 4 else {"flags": _NODAD}
        route.addr("add", index=index, address=str(address), prefixlen=cidr.prefixlen, family=family, **flags)
        everywhere = "0.0.0.0/0" if address.version == 4 else "::/0"
        route.route("add", dst=everywhere, gateway=str(gateway), oif=index, family=family)


def _no_checksum_offload(name: str) -> None:
    """Checksums are filled in by the sender: nobody behind a userspace datapath's socket would do it."""
    value = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP16x", name.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, request)


def check_pod_link(link: PodLink) -> str:
    """What is wrong with a pod's interfaces; empty where nothing is."""
    try:
        with _route() as route:
            if _index(route, link.host_name) is None:
                return f"the host has no interface {link.host_name}"
        with _inside(link.netns), _route() as route:
            index = _index(route, link.name)
            if index is None:
                return f"the pod has no interface {link.name}"
            found = {each.get_attr("IFA_ADDRESS") for each in route.get_addr(index=index)}
            for address in link.addresses:
                if str(address) not in found:
                    return f"interface {link.name} lacks the address {address}"
            mtu = route.get_links(index)[0].get_attr("IFLA_MTU")
            if mtu != link.mtu:
                return f"interface {link.name} has an MTU of {mtu}, not {link.mtu}"
            for gateway in link.gateways:
                family = socket.AF_INET if gateway.version == 4 else socket.AF_INET6
                routes = route.get_routes(family=family, oif=index)
                if not any(not each["dst_len"] and each.get_attr("RTA_GATEWAY") == str(gateway) for each in routes):
                    return f"the pod has no default route by {gateway}"
    except (NetlinkError, OSError) as error:
        return _reason(error)
    return ""


def remove_links(names: Sequence[str]) -> None:
    """Delete interfaces (their peers go with them); those that aren't there are gone already. Raises LinkError."""
    with _route() as route:
        for name in names:
            try:
                index = _index(route, name)
                if index is not None:
                    route.link("del", index=index)
            except NetlinkError as error:
                if error.code != errno.ENODEV:
                    raise LinkError(f"{name} can't be deleted: {_reason(error)}") from error


def veths(prefix: str) -> set[str]:
    """The interfaces of this namespace whose names begin so."""
    with _route() as route:
        names = {str(each.get_attr("IFLA_IFNAME")) for each in route.get_links()}
    return {name for name in names if name.startswith(prefix)}


def index_of(name: str) -> int:
    """The number of an interface; 0 where there is none of this name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def mtu_of(address: Address) -> int:
    """The MTU of the interface that has an address. Raises LinkError."""
    with _route() as route:
        for each in route.get_addr():
            if each.get_attr("IFA_ADDRESS") == str(address) or each.get_attr("IFA_LOCAL") == str(address):
                (link,) = route.get_links(each["index"])
                return int(link.get_attr("IFLA_MTU"))
    raise LinkError(f"no interface has the node's address {address} (--node-ip)")


def set_up_gateway(
    name: str, addresses: Sequence[Address], pod_cidrs: Sequence[Network], cluster_cidrs: Sequence[Network]
) -> None:
    """The host's way to all pods: addresses, routes to the whole cluster, forwarding. Idempotent. Raises LinkError."""
    try:
        with _route() as route:
            index = _index(route, name)
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
            for cidr in cluster_cidrs:
                source = next((str(a) for a in addresses if a.version == cidr.version), None)
                family = socket.AF_INET if cidr.version == 4 else socket.AF_INET6
                extra = {"prefsrc": source} if source is not None else {}
                route.route("replace", dst=str(cidr), oif=index, family=family, **extra)
    except (NetlinkError, OSError) as error:
        raise LinkError(f"{name}: {_reason(error)}") from error
    _write("ipv4/ip_forward", 1)
    _write("ipv6/conf/all/forwarding", 1)


def remove_gateway_routes(cluster_cidrs: Sequence[Network], name: str) -> None:
    """The routes that `set_up_gateway` made; the rest goes with the interface."""
    with _route() as route:
        index = _index(route, name)
        for cidr in cluster_cidrs if index is not None else ():
            family = socket.AF_INET if cidr.version == 4 else socket.AF_INET6
            try:
                route.route("del", dst=str(cidr), oif=index, family=family)
            except NetlinkError as error:
                if error.code != errno.ESRCH:
                    raise LinkError(f"route {cidr}: {_reason(error)}") from error


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


def _reason(error: Exception) -> str:
    if isinstance(error, NetlinkError):
        return os.strerror(error.code) if error.code > 0 else str(error)
    return str(error)
