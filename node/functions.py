"""Virtual functions of NICs in pods: the interface goes into the pod, its representor becomes the pod's port.

    host   enp3s0f0npf0vf0 ── renamed ──> pod0123456789ab, a port of the bridge; MTU as the pod's, its own MAC stays
    host   enp3s0f0v0 ── MAC, MTU, moved ──> eth0 in the pod, with addresses and routes

Neither is ever deleted: both are given back, and have a note (their alias) of what they are called on the host, so that
an agent that died leaves nothing that can't be put right. The kernel brings a function's interface back to the host by
itself when the pod's namespace ends, with the note on it. No driver lets a representor's MAC be set (mlx5_core, ice,
bnxt_en): the port's number tells the controller the pod's place instead (topology/naming.py).
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from node.netlink import (
    LinkError,
    PodLink,
    allow_tc_offload,
    index_in,
    inside,
    kernel,
    quiet_host_end,
    reason,
    remove_links,
    set_up_pod_end,
)
from node.nics import Function
from topology.naming import HOST_END_MAC_PREFIX, POD_MAC_PREFIX, format_mac, parse_mac

_NOTE = "signalbox"


def lend(link: PodLink, function: Function) -> None:
    """Make the function's interface the pod's, and the representor its port. Raises LinkError, and then undoes it."""
    what = f"function {function.pci} to {link.name} in {link.netns}"
    try:
        with kernel() as route:
            if function.representor:
                _take_representor(route, function.representor, link)
                quiet_host_end(route, link)
                # Before the switch has it. Where it can't be, the node's report says what is offloaded.
                allow_tc_offload(link.host_name)
            if function.is_userspace:
                _set_administratively(route, function, link.mac)
            else:
                _move_in(route, function, link)
        if not function.is_userspace:
            with inside(link.netns), kernel() as route:
                set_up_pod_end(route, link)
    except (NetlinkError, OSError, LinkError) as error:
        with contextlib.suppress(LinkError):
            give_back(link.netns, link.name, function.netdev)
        with contextlib.suppress(LinkError):
            return_representor(link.host_name)
        raise LinkError(f"{what}: {reason(error)}") from error


def _take_representor(route: Any, name: str, link: PodLink) -> None:
    index = index_in(route, name)
    if index is None:
        raise LinkError(f"there is no interface {name}, which stands for it: is the NIC being reset?")
    mac = parse_mac(route.get_links(index)[0].get_attr("IFLA_ADDRESS"))
    if mac >> 32 in (POD_MAC_PREFIX, HOST_END_MAC_PREFIX):
        raise LinkError(f"{name} has {format_mac(mac)}, which the controller would take for another pod's: change it")
    _note(route, index, name, mac)
    route.link("set", index=index, state="down")
    route.link("set", index=index, ifname=link.host_name)
    route.link("set", index=index, mtu=link.mtu)


def _move_in(route: Any, function: Function, link: PodLink) -> None:
    index = index_in(route, function.netdev)
    if index is None:
        raise LinkError(f"its interface {function.netdev} isn't on the host: another pod has it")
    mac = parse_mac(route.get_links(index)[0].get_attr("IFLA_ADDRESS"))
    _note(route, index, function.netdev, mac)
    route.link("set", index=index, state="down")
    try:
        route.link("set", index=index, address=format_mac(link.mac))
    except NetlinkError:
        # A function that isn't trusted may only have the MAC that its NIC gives it.
        _set_administratively(route, function, link.mac)
    route.link("set", index=index, mtu=link.mtu)
    with link.netns.open() as netns:
        route.link("set", index=index, net_ns_fd=netns.fileno(), ifname=link.name)


def _set_administratively(route: Any, function: Function, mac: int) -> None:
    uplink = index_in(route, function.nic.uplink)
    if uplink is None:
        raise LinkError(f"NIC {function.nic.pci} has no interface: is it being reset?")
    route.link("set", index=uplink, vf={"vf": function.number, "mac": format_mac(mac)})


def give_back(netns: Path, name: str, known: str = "") -> bool:
    """Bring a function's interface from a pod back to the host, as it was. Whether there was one. Raises LinkError.

    It is called `name` there; or, where another was in the way of that, still what it is `known` as on the host.
    """
    try:
        with Path("/proc/thread-self/ns/net").open() as home, inside(netns), kernel() as route:
            places = (index_in(route, each) for each in (name, known) if each)
            index, found = next(((each, note) for each in places if (note := _noted(route, each))), (None, None))
            if index is None or found is None:
                return False
            known, mac = found
            route.link("set", index=index, state="down")
            with contextlib.suppress(NetlinkError):
                route.link("set", index=index, address=mac)
            try:
                route.link("set", index=index, net_ns_fd=home.fileno(), ifname=known)
            except NetlinkError as error:
                # Somebody else is called so: it has come home all the same, and keeps its name.
                if error.code != errno.EEXIST:
                    raise
        with kernel() as route:
            back = index_in(route, known)
            if _noted(route, back):
                _forget(route, back)
    except (NetlinkError, OSError) as error:
        # A namespace that has ended: nothing is there, or what it was bound to.
        if getattr(error, "errno", None) in (errno.ENOENT, errno.EINVAL) and not isinstance(error, NetlinkError):
            return False
        raise LinkError(f"{name} in {netns} can't be given back: {reason(error)}") from error
    return True


def rename_back(name: str) -> None:
    """Call a function's interface what it was called, that the kernel has brought back. Raises LinkError."""
    with _telling(name), kernel() as route:
        index = index_in(route, name)
        found = _noted(route, index)
        if found is not None:
            known, mac = found
            route.link("set", index=index, state="down")
            with contextlib.suppress(NetlinkError):
                route.link("set", index=index, address=mac)
            if known != name:
                route.link("set", index=index, ifname=known)
            _forget(route, index)


def return_representor(name: str) -> bool:
    """Call a representor what it was called before it was a pod's port. Whether this was one. Raises LinkError."""
    with _telling(name), kernel() as route:
        index = index_in(route, name)
        found = _noted(route, index)
        if found is None:
            return False
        route.link("set", index=index, state="down")
        route.link("set", index=index, ifname=found[0])
        _forget(route, index)
    return True


def release(names: Sequence[str]) -> None:
    """Pods' ports on the host: representors are given back, all others deleted. Raises LinkError."""
    remove_links([name for name in names if not return_representor(name)])


@contextlib.contextmanager
def _telling(name: str) -> Iterator[None]:
    try:
        yield
    except (NetlinkError, OSError) as error:
        if getattr(error, "code", None) != errno.ENODEV:
            raise LinkError(f"{name} can't be given back: {reason(error)}") from error


def _note(route: Any, index: int, name: str, mac: int) -> None:
    route.link("set", index=index, ifalias=f"{_NOTE} {name} {format_mac(mac)}")


def _noted(route: Any, index: int | None) -> tuple[str, str] | None:
    """What an interface was called, and its MAC, if it has a note of ours."""
    if index is None:
        return None
    words = (route.get_links(index)[0].get_attr("IFLA_IFALIAS") or "").split()
    return (words[1], words[2]) if len(words) == 3 and words[0] == _NOTE else None


def _forget(route: Any, index: int | None) -> None:
    if index is not None:
        route.link("set", index=index, ifalias="")
