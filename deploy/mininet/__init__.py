"""Signalbox under Mininet: hosts are workloads, switches are nodes.

    net = Mininet(topo=TorusTopo(3, 3), controller=Signalbox, switch=SignalboxSwitch)

or `mn --custom FILE --topo signalbox,fat-tree,4`, where `python -m deploy.mininet` prints the FILE. Mininet itself is
no dependency: whoever has a script for it has it. So it is imported when something of it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy.mininet.controller import Signalbox
    from deploy.mininet.host import SignalboxHost
    from deploy.mininet.switch import SignalboxSwitch
    from deploy.mininet.topologies import FatTree, GraphTopo, LeafSpine, SignalboxTopo

__all__ = ["FatTree", "GraphTopo", "LeafSpine", "Signalbox", "SignalboxHost", "SignalboxSwitch", "SignalboxTopo"]
_HOMES = {"Signalbox": "controller", "SignalboxHost": "host", "SignalboxSwitch": "switch"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'topologies')}"), name)
