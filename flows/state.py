"""What the compiler knows beside the cluster: ports as switches announce them, and the pods found behind them."""

from __future__ import annotations

import msgspec

from topology.naming import Address


class Port(msgspec.Struct, frozen=True):
    """A port of a switch: its OpenFlow number, its name, its hardware address (48 bits), whether its link is up."""

    number: int
    name: str
    mac: int
    up: bool = True


class LocalPod(msgspec.Struct, frozen=True):
    """A pod on the switch: the number of its port, its own MAC (not the port's), its addresses, its identity."""

    port: int
    mac: int
    addresses: tuple[Address, ...]
    identity: int = 0
