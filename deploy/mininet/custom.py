"""For `mn --custom`: what `--topo signalbox,...`, `--switch signalbox`, `--controller signalbox` stand for.

Loaded this way, switches and controller are ours also where the command line doesn't name them: mn takes every name of
this file for its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

# mn runs with the system's paths, and runs this file as text: `__file__` is mn's own.
_ROOT = Path(sys._getframe().f_code.co_filename).resolve().parents[2]
if _ROOT.joinpath("deploy").is_dir() and str(_ROOT) not in sys.path:
    sys.path.append(str(_ROOT))

from deploy.mininet import Signalbox, SignalboxHost, SignalboxSwitch, SignalboxTopo  # noqa: E402

topos = {"signalbox": SignalboxTopo}
switches = {"signalbox": SignalboxSwitch, "default": SignalboxSwitch}
controllers = {"signalbox": Signalbox}
hosts = {"signalbox": SignalboxHost}


def findController() -> type[Signalbox]:
    """What mn asks for the controller to use where none is named."""
    return Signalbox
