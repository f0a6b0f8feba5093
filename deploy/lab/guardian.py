"""Takes a lab down when the process that it belongs to ends, however it ends: also killed.

A process of its own, in a session of its own, so that neither Ctrl-C nor the end of a terminal reaches it. It waits on
a pidfd, which means the very process and not whoever gets its number next.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time

from deploy.lab import processes
from deploy.lab.cluster import Lab
from deploy.lab.layout import LabError
from deploy.lab.processes import Process

#: Seconds between attempts while another command, perhaps killed this moment, still holds the lab.
_PAUSE = 0.2
_ATTEMPTS = 300


def main(name: str) -> None:
    """Wait for the owner of a lab to end, then take the lab down."""
    lab = Lab(name)
    settings = lab.settings
    wait(Process(settings.owner, settings.owner_started))
    for _ in range(_ATTEMPTS):
        try:
            lab.down()
            return
        except LabError:
            if not lab.is_up:
                return
            time.sleep(_PAUSE)


def wait(process: Process) -> None:
    """Until a process has ended."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process.pid)
        # Only now is it certain which process the descriptor means.
        if processes.is_alive(process):
            select.select([descriptor], [], [])


if __name__ == "__main__":
    main(sys.argv[1])
