"""NICs that have a switch of their own, their virtual functions, and the interfaces that stand for these: representors.

Read from sysfs, and from devlink where there is one; nothing is changed. Layouts, as the kernel's drivers make them:

    bus/pci/devices/PF/    driver, sriov_numvfs, virtfnN -> ../VF, net/ (the uplink; representors, of some drivers)
    bus/pci/devices/VF/    driver, physfn -> ../PF, net/ (empty while the interface is in a pod)
    class/net/NAME/        phys_switch_id (the same for all ports of a switch), phys_port_name (p0; pf0vf3)

A representor is found by its switch, and by the number of its function in the port's name: mlx5_core says `pf0vf3` (and
`3` before Linux 5.1), ice `pf0vf3` (and `pf0vfr3` before 5.18), bnxt_en `pf0vf3`, whose representors have no `device`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from node.devlink import Devlink

#: Drivers that can be asked for switchdev mode, whose switch takes flows from tc.
_DRIVERS = {"mlx5_core", "ice", "bnxt_en", "nfp", "sfc", "octeon_ep", "rvu_nicpf", "ionic"}
#: Drivers that keep a function from the kernel: it has no interface, and whoever opens it drives it.
_USERSPACE_DRIVERS = {"vfio-pci", "uio_pci_generic", "igb_uio"}
_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
#: `c1` and so on are hosts that a SmartNIC serves: not this one.
_REPRESENTOR = re.compile(r"(?:c0)?pf(\d+)vfr?(\d+)|(\d+)")
SWITCHDEV, LEGACY = "switchdev", "legacy"


class NicError(Exception):
    """A device isn't what it should be; the text says which, why, and what would help."""


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """A physical function. `mode` is that of its switch, empty where it has none; `representors` are by VF's number."""

    pci: str
    driver: str
    uplink: str
    mode: str
    switch: str
    vfs: int
    representors: Mapping[int, str]

    @property
    def offloads(self) -> bool:
        """Whether it takes flows as it is."""
        return self.mode == SWITCHDEV and bool(self.uplink)


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual function: its own interface (empty where it has none), and the one that stands for it."""

    pci: str
    nic: Nic
    number: int
    driver: str
    netdev: str
    representor: str

    @property
    def is_userspace(self) -> bool:
        """Whether a program drives it, not the kernel."""
        return self.driver in _USERSPACE_DRIVERS


class Survey(msgspec.Struct, frozen=True):
    """The NICs of a node that have, or could have, a switch; and what could not be read."""

    nics: tuple[Nic, ...] = ()
    problems: tuple[str, ...] = ()


def survey(sysfs: Path, devlink: Devlink) -> Survey:
    """All NICs that could take flows. What can't be read of one is a problem, and doesn't hide the others."""
    problems: list[str] = []
    nics = []
    root = sysfs / "bus/pci/devices"
    try:
        entries = sorted(entry.name for entry in root.iterdir())
    except FileNotFoundError:
        entries = []
    except OSError as error:
        return Survey((), (f"{root}: {error.strerror}",))
    for pci in entries:
        try:
            if (root / pci / "physfn").is_symlink() or not _may_switch(root / pci, devlink):
                continue
            nics.append(nic_at(sysfs, pci, devlink))
        except (OSError, NicError, ValueError) as error:
            problems.append(f"NIC {pci}: {error}")
    return Survey(tuple(nics), tuple(problems))


def _may_switch(device: Path, devlink: Devlink) -> bool:
    return device.name in devlink.modes or _driver(device) in _DRIVERS


def nic_at(sysfs: Path, pci: str, devlink: Devlink) -> Nic:
    """A physical function by its PCI address. Raises NicError."""
    device = sysfs / "bus/pci/devices" / pci
    if not device.exists():
        raise NicError(f"there is no PCI device {pci}")
    there = {name: _read(sysfs, name, "phys_port_name") for name in _netdevs(device)}
    uplinks = sorted(name for name, port in there.items() if not _REPRESENTOR.fullmatch(port))
    uplink = uplinks[0] if uplinks else ""
    switch = _read(sysfs, uplink, "phys_switch_id") if uplink else ""
    mode = devlink.modes.get(pci, "") or (SWITCHDEV if switch else LEGACY)
    numvfs = device / "sriov_numvfs"
    try:
        vfs = int(numvfs.read_text()) if numvfs.exists() else 0
    except (OSError, ValueError) as error:
        raise NicError(f"{numvfs} can't be read: {error}") from error
    return Nic(
        pci=pci,
        driver=_driver(device),
        uplink=uplink,
        mode=mode,
        switch=switch,
        vfs=vfs,
        representors=_representors(sysfs, pci, uplink, switch, devlink) if mode == SWITCHDEV else {},
    )


def _representors(sysfs: Path, pci: str, uplink: str, switch: str, devlink: Devlink) -> dict[int, str]:
    """By number of the virtual function. What devlink says counts more than names of ports."""
    function = int(pci.rpartition(".")[2])
    found: dict[int, str] = {}
    for name in _all_netdevs(sysfs) if switch else ():
        if name == uplink or _read(sysfs, name, "phys_switch_id") != switch:
            continue
        match = _REPRESENTOR.fullmatch(_read(sysfs, name, "phys_port_name"))
        if match is None:
            continue
        device = sysfs / "class/net" / name / "device"
        # Two functions may share a switch. Who has no `device` says by the number in the port's name whose it is.
        parent = device.resolve().name if device.is_symlink() else ""
        is_ours = parent == pci if _PCI.fullmatch(parent) else match[1] is None or int(match[1]) == function
        if is_ours:
            found[int(match[2] or match[3])] = name
    found.update({port.vf: port.netdev for port in devlink.ports if port.pci == pci})
    return found


def find(sysfs: Path, device_id: str, devlink: Devlink, *, by_dpdk: bool = False) -> Function:
    """The virtual function that a `deviceID` names, with its representor. Raises NicError.

    Where DPDK drives the NIC, it makes representors itself, and the kernel needs to have none.
    """
    if not _PCI.fullmatch(device_id):
        raise NicError(f"deviceID {device_id!r}: not a PCI address, as 0000:03:00.2")
    device = sysfs / "bus/pci/devices" / device_id
    if not device.exists():
        raise NicError(f"deviceID {device_id}: there is no such PCI device on this node")
    physfn = device / "physfn"
    if not physfn.is_symlink():
        raise NicError(f"deviceID {device_id}: not a virtual function")
    pf = physfn.readlink().name
    try:
        nic = nic_at(sysfs, pf, devlink)
        number = _number(device.parent / pf, device_id)
        driver, names = _driver(device), _netdevs(device)
    except (OSError, ValueError) as error:
        raise NicError(f"deviceID {device_id}: {error}") from error
    if nic.mode != SWITCHDEV and not by_dpdk:
        raise NicError(
            f"deviceID {device_id}: its NIC {pf} ({nic.driver}) is in {nic.mode} mode, in which functions have no "
            f"representors: 'devlink dev eswitch set pci/{pf} mode switchdev', while no function is in use"
        )
    if number not in nic.representors and not by_dpdk:
        raise NicError(f"deviceID {device_id}: NIC {pf} has no representor of its virtual function {number}")
    if driver not in _USERSPACE_DRIVERS and not names:
        raise NicError(
            f"deviceID {device_id}: its interface isn't on the host: it is in a pod already, or its driver "
            f"({driver or 'none'}) has made none"
        )
    return Function(
        pci=device_id,
        nic=nic,
        number=number,
        driver=driver,
        netdev=names[0] if names else "",
        representor="" if by_dpdk else nic.representors[number],
    )


def netdev_of(sysfs: Path, device_id: str) -> str:
    """The interface of a function, if it is on the host; else nothing."""
    try:
        return next(iter(_netdevs(sysfs / "bus/pci/devices" / device_id)), "")
    except OSError:
        return ""


def _number(pf: Path, vf: str) -> int:
    for link in _entries(pf):
        if link.name.startswith("virtfn") and link.is_symlink() and link.readlink().name == vf:
            return int(link.name.removeprefix("virtfn"))
    raise NicError(f"{pf}: none of its virtual functions is {vf}")


def _driver(device: Path) -> str:
    link = device / "driver"
    return link.readlink().name if link.is_symlink() else ""


def _netdevs(device: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(device / "net"))


def _all_netdevs(sysfs: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(sysfs / "class/net"))


def _entries(directory: Path) -> Iterator[Path]:
    if directory.is_dir():
        yield from directory.iterdir()


def _read(sysfs: Path, netdev: str, attribute: str) -> str:
    """An attribute of an interface. Empty where there is none: the kernel answers EOPNOTSUPP then."""
    try:
        return (sysfs / "class/net" / netdev / attribute).read_text().strip()
    except OSError:
        return ""


def unplaced_reason(sysfs: Path, nics: tuple[Nic, ...], netdev: str) -> str:
    """Why flows of tunnels that end on this interface wouldn't be taken; empty where they would."""
    ours = {nic.uplink for nic in nics if nic.offloads}
    if not ours or ours & _with_lower(sysfs, netdev):
        return ""
    return (
        f"tunnels end on {netdev}, which is no uplink of a NIC that takes flows ({', '.join(sorted(ours))}): give that "
        "the node's address"
    )


def _with_lower(sysfs: Path, netdev: str) -> set[str]:
    """An interface and those under it: the members of a bond, what a VLAN is on."""
    found, left = set(), [netdev]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            there = _entries(sysfs / "class/net" / name)
            left += [each.name.removeprefix("lower_") for each in there if each.name.startswith("lower_")]
    return found
