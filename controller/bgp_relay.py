"""What ExaBGP runs as its API process: joins its standard input and output to the controller's socket, and no more.

ExaBGP only takes commands from a program that it has started itself. When the controller is gone, however it went, the
socket ends, and so must ExaBGP: nobody would change what it announces any more. Run by path, alone: it imports nothing
of ours, and next to nothing of Python's.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time

#: Seconds that ExaBGP has to end.
PATIENCE = 3.0
CHUNK = 65536


def main(path: str) -> None:
    """Relay until either side ends."""
    engine = os.getppid()
    with socket.socket(socket.AF_UNIX) as controller:
        try:
            controller.connect(path)
            threading.Thread(target=tell, args=(controller,), daemon=True).start()
            while told := controller.recv(CHUNK):
                write(told)
        except OSError:
            pass
    end(engine)


def tell(controller: socket.socket) -> None:
    """What ExaBGP says, to the controller; its end is ours."""
    try:
        while said := os.read(0, CHUNK):
            controller.sendall(said)
    except OSError:
        pass
    os._exit(0)


def write(told: bytes) -> None:
    """All of it, to ExaBGP."""
    while told:
        told = told[os.write(1, told) :]


def end(engine: int) -> None:
    """End ExaBGP as its peers know it: without a word, so that they keep the routes for a restart (RFC 4724)."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    # The controller may have ended within a line.
    write(b"\nshutdown\n")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and os.getppid() == engine:
        time.sleep(0.05)
    if os.getppid() == engine:
        os.kill(engine, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
