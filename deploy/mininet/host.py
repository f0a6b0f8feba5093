"""A host that has more than Mininet gives it: further addresses, a way to all that its own network doesn't hold."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_interface
from typing import Any

from mininet.node import Host


class SignalboxHost(Host):  # type: ignore[misc]
    """A workload. `addresses`: besides `ip`, each with its prefix's length as `2001:db8::1/64`; the first is `ip`.

    Its default route leads into the switch, which answers for every address.
    """

    def __init__(self, name: str, addresses: Sequence[str] = (), **params: Any) -> None:
        self._more = [ip_interface(each) for each in addresses]
        super().__init__(name, addresses=[str(each.ip) for each in self._more], **params)

    def config(self, **params: Any) -> Any:
        """Addresses and routes."""
        done = super().config(**params)
        device = self.defaultIntf()
        for each in self._more:
            self.cmd(f"ip addr add {each} dev {device}" + (" nodad" if each.version == 6 else ""))
        families = {4, *(each.version for each in self._more)}
        for version in sorted(families):
            self.cmd(f"ip -{version} route replace default dev {device}")
        return done
