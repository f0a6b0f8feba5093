"""What devlink says of NICs: the mode of each one's switch, and whose interface each port of it is.

This and node/netlink.py are the only imports of pyroute2. A kernel without devlink, or a NIC that has none, says
nothing: then sysfs alone tells (node/nics.py).
"""

from __future__ import annotations

from typing import Any

import msgspec
from pyroute2.devlink import DL
from pyroute2.netlink import NLM_F_REQUEST
from pyroute2.netlink.devlink import DEVLINK_NAMES, devlinkcmd
from pyroute2.netlink.exceptions import NetlinkError

#: linux/devlink.h: devlink_eswitch_mode, and the flavour of a port that stands for a virtual function.
_MODES = {0: "legacy", 1: "switchdev", 2: "switchdev_inactive"}
_PCI_VF = 4


class VfPort(msgspec.Struct, frozen=True):
    """The port of a NIC's switch that stands for a virtual function: the NIC's address, the number, the interface."""

    pci: str
    vf: int
    netdev: str


class Devlink(msgspec.Struct, frozen=True):
    """All of it: modes by PCI address, and ports."""

    modes: dict[str, str] = {}
    ports: tuple[VfPort, ...] = ()


def read() -> Devlink:
    """What this kernel says now; nothing where it has no devlink."""
    try:
        with DL() as devlink:
            names = [name for each in devlink.get_dump() if (name := _pci(each))]
            modes = {name: mode for name in names if (mode := _mode(devlink, name))}
            return Devlink(modes, ports_of(devlink.get_port_dump()))
    except (NetlinkError, OSError):
        return Devlink()


def ports_of(messages: Any) -> tuple[VfPort, ...]:
    """The ports of virtual functions in answers to DEVLINK_CMD_PORT_GET."""
    found = []
    for each in messages:
        number, name = each.get_attr("DEVLINK_ATTR_PORT_PCI_VF_NUMBER"), each.get_attr("DEVLINK_ATTR_PORT_NETDEV_NAME")
        if each.get_attr("DEVLINK_ATTR_PORT_FLAVOUR") == _PCI_VF and name and number is not None:
            found.append(VfPort(_pci(each), number, name))
    return tuple(found)


def _pci(message: Any) -> str:
    """The PCI address of what a message is about; empty where it isn't on that bus."""
    if message.get_attr("DEVLINK_ATTR_BUS_NAME") != "pci":
        return ""
    return str(message.get_attr("DEVLINK_ATTR_DEV_NAME"))


def _mode(devlink: Any, pci: str) -> str:
    message = devlinkcmd()
    message["cmd"] = DEVLINK_NAMES["DEVLINK_CMD_ESWITCH_GET"]
    message["attrs"] = [("DEVLINK_ATTR_BUS_NAME", "pci"), ("DEVLINK_ATTR_DEV_NAME", pci)]
    try:
        answers = devlink.nlm_request(message, msg_type=devlink.prid, msg_flags=NLM_F_REQUEST)
    except NetlinkError:
        return ""  # a NIC that has no switch
    return next((_MODES.get(each.get_attr("DEVLINK_ATTR_ESWITCH_MODE"), "") for each in answers), "")
