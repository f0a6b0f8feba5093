"""Loads from a line server, slowly, for half a minute: download.py ADDRESS PORT.

Prints "begun" when data comes. For each line of input it waits a second, in which what is on its way may still come,
and prints how many bytes come in the half second after that.
"""

import select
import socket
import sys
import time

GRACE, WHILE, PAUSE = 1.0, 0.5, 0.005


def main():
    address, port = sys.argv[1], int(sys.argv[2])
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as link:
        # Little is to be left in between.
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
        link.connect((address, port))
        link.sendall(b"size 100000000\n")
        link.recv(1 << 14)
        link.setblocking(False)
        print("begun", flush=True)
        asked = None
        while True:
            if select.select([sys.stdin], [], [], PAUSE)[0]:
                if not sys.stdin.readline():
                    return
                asked, received = time.monotonic(), 0
            try:
                size = len(link.recv(1 << 14))
            except BlockingIOError:
                size = 0
            if asked is not None:
                gone = time.monotonic() - asked
                received += size if gone > GRACE else 0
                if gone > GRACE + WHILE:
                    print(received, flush=True)
                    asked = None


if __name__ == "__main__":
    main()
