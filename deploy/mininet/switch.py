"""A switch for `switch=SignalboxSwitch`: Open vSwitch as Mininet has it, set up for Signalbox's flows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from mininet.node import OVSSwitch
from mininet.util import errRun, quietRun

from deploy.mininet.controller import Signalbox
from deploy.mininet.manifests import Attachment
from topology.naming import datapath_id

End = tuple[str, str]


class SignalboxSwitch(OVSSwitch):  # type: ignore[misc]
    """An Open vSwitch bridge that is a node of Signalbox's. A `dpid` is taken no notice of: its name tells it.

    datapath: `kernel` or `user`; without it, the kernel's where its module is loaded.
    """

    def __init__(self, name: str, datapath: str | None = None, **params: Any) -> None:
        params.pop("dpid", None)
        params.setdefault("protocols", "OpenFlow15")
        #: The controllers that know of it.
        self.told: list[Signalbox] = []
        super().__init__(
            name,
            dpid=f"{datapath_id(name):016x}",
            datapath=datapath or _datapath(),
            **params,
        )

    # What Mininet calls -----------------------------------------------------------------------------------------

    def start(self, controllers: list[Any]) -> None:
        """Make the bridge, and tell the controllers of it and of the hosts on it."""
        self.told = [each for each in controllers if isinstance(each, Signalbox)]
        self._tell()
        super().start(controllers)
        if not self.batch:
            self._after_start()
            for each in self.told:
                each.wait([self])

    @classmethod
    def batchStartup(cls, switches: Any, run: Any = errRun) -> Any:
        """Start many, and come back when all of them forward."""
        done = super().batchStartup(switches, run=run)
        for switch in done:
            switch._after_start()
        for controller, mine in groupby(
            sorted(((each, switch) for switch in done for each in switch.told), key=lambda pair: pair[0].name),
            key=lambda pair: pair[0],
        ):
            controller.wait([switch for _, switch in mine])
        return done

    def attach(self, intf: Any) -> None:
        """Another port."""
        super().attach(intf)
        self._after_start()
        self._tell()

    def detach(self, intf: Any) -> None:
        """A port less."""
        super().detach(intf)
        self._tell()

    def stop(self, deleteIntfs: bool = True) -> None:
        """Remove the bridge."""
        for each in self.told:
            each.forget(self.name)
        super().stop(deleteIntfs)

    # What it knows ----------------------------------------------------------------------------------------------

    def wires(self) -> Iterator[tuple[End, End]]:
        """Its links to other switches of Signalbox's that are up: this end, the other end."""
        for mine, other in self._ends():
            if isinstance(other.node, SignalboxSwitch) and mine.isUp() and other.isUp():
                yield (self.name, mine.name), (other.node.name, other.name)

    def attachments(self) -> Iterator[Attachment]:
        """The interfaces of hosts that are on it."""
        for mine, other in self._ends():
            host = other.node
            if isinstance(host, OVSSwitch) or not other.MAC():
                continue
            name = host.name if other is host.defaultIntf() else other.name
            addresses = [other.IP(), *host.params.get("addresses", ())] if name == host.name else [other.IP()]
            yield Attachment(name.lower(), mine.name, other.MAC(), tuple(each for each in addresses if each))

    def _ends(self) -> Iterator[tuple[Any, Any]]:
        for mine in self.intfList():
            if mine.link:
                yield mine, mine.link.intf2 if mine.link.intf1 is mine else mine.link.intf1

    def _tell(self) -> None:
        for each in self.told:
            each.declare(self.name, self.attachments())

    def _after_start(self) -> None:
        if self.datapath != "user":
            return
        # The datapath in userspace takes checksums as it finds them, and a port that is used again at once for a broken
        # sender.
        quietRun("ovs-appctl dpctl/ct-disable-tcp-seq-chk")
        for _, other in self._ends():
            if not isinstance(other.node, OVSSwitch):
                other.node.cmd(f"ethtool -K {other.name} tx off")


def _datapath() -> str:
    return "kernel" if Path("/sys/module/openvswitch").exists() else "user"
