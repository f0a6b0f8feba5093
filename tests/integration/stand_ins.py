"""A NIC with virtual functions that isn't there: veth pairs stand in for functions and representors, and a tree in the
place of sysfs says that they are of a NIC in switchdev mode."""

from __future__ import annotations

import shutil
from pathlib import Path

from probes import inside

from deploy.lab import substrate
from deploy.lab.cluster import Lab

PF, SWITCH = "0000:03:00.0", "9c06d80003a1420c"


class StandIns:
    """A NIC of one node of a lab, with so many functions: `vf0` and on, and `rep0` and on."""

    def __init__(self, lab: Lab, node: str, count: int) -> None:
        self.lab = lab
        self.node = node
        self.count = count
        self.netns = lab.layout.node_netns(node)
        self.root: Path = lab.layout.node(node) / "sys"
        self.device = self.root / "devices" / PF
        self._write()
        for number in range(count):
            self.make(number)

    @staticmethod
    def pci(number: int) -> str:
        """What a `deviceID` names."""
        return f"0000:03:00.{number + 2}"

    def make(self, number: int) -> None:
        """The interfaces of a function, as its driver makes them."""
        substrate.run(
            ["ip", "-n", self.netns, "link", "add", f"rep{number}", "type", "veth", "peer", "name", f"vf{number}"]
        )

    def reset(self, number: int) -> None:
        """What a reset of the NIC does: interfaces go, wherever they are, and come anew under their own names."""
        port = next(name for name in self.links() if name == f"rep{number}" or self._alias(name, f"rep{number}"))
        substrate.run(["ip", "-n", self.netns, "link", "del", port])
        self.make(number)

    def _alias(self, name: str, known: str) -> bool:
        return f"signalbox {known} " in inside(self.netns, ["ip", "link", "show", "dev", name]).stdout

    def links(self) -> list[str]:
        """The interfaces of the node."""
        told = inside(self.netns, ["ip", "-br", "link"]).stdout
        return sorted(line.split()[0].partition("@")[0] for line in told.splitlines())

    def left(self) -> list[str]:
        """What of the functions' interfaces is on the node under its own name."""
        return [name for name in self.links() if name.startswith(("rep", "vf"))]

    def all(self) -> list[str]:
        return sorted(f"{kind}{number}" for kind in ("rep", "vf") for number in range(self.count))

    def remove(self) -> None:
        """No trace of it."""
        for name in self.left():
            inside(self.netns, ["ip", "link", "del", name])
        shutil.rmtree(self.root)

    def _write(self) -> None:
        pci, nets = self.root / "bus/pci/devices", self.root / "class/net"
        for directory in (pci, nets, self.root / "bus/pci/drivers/mlx5_core", self.root / "bus/pci/drivers/vfio-pci"):
            directory.mkdir(parents=True)
        self._function(PF)
        (self.device / "sriov_numvfs").write_text(f"{self.count}\n")
        self._netdev("uplink0", "p0")
        for number in range(self.count):
            self._netdev(f"rep{number}", f"pf0vf{number}")
            function = self._function(self.pci(number))
            (function / "physfn").symlink_to(f"../{PF}")
            (function / "net" / f"vf{number}").mkdir(parents=True)
            (self.device / f"virtfn{number}").symlink_to(f"../{self.pci(number)}")

    def _function(self, pci: str) -> Path:
        device = self.root / "devices" / pci
        device.mkdir(parents=True)
        (device / "driver").symlink_to("../../bus/pci/drivers/mlx5_core")
        (self.root / "bus/pci/devices" / pci).symlink_to(f"../../../devices/{pci}")
        return device

    def _netdev(self, name: str, port: str) -> None:
        netdev = self.device / "net" / name
        netdev.mkdir(parents=True)
        (netdev / "device").symlink_to(f"../../../{PF}")
        (netdev / "phys_switch_id").write_text(f"{SWITCH}\n")
        (netdev / "phys_port_name").write_text(f"{port}\n")
        (self.root / "class/net" / name).symlink_to(f"../../devices/{PF}/net/{name}")
