"""Pings without a pause and says what was lost: pinger.py ADDRESS SECONDS, until its input ends. Prints JSON.

A ping every SECONDS, but never more than WINDOW that aren't answered yet: where the machine stands still for a while,
nobody's queue overflows. It ends when all are answered, or have been waited for as long as nothing comes.
"""

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time

WINDOW, PATIENCE = 32, 5.0


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def main():
    address, interval = sys.argv[1], float(sys.argv[2])
    v6 = ":" in address
    kind, answer = (128, 129) if v6 else (8, 0)
    with socket.socket(
        socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    ) as link:
        link.connect((address, 0))
        link.setblocking(False)
        mine, sent, missing, ended = os.getpid() & 0xFFFF, 0, set(), False
        begun = heard = time.monotonic()
        print("begun", flush=True)
        while not ended or (missing and time.monotonic() < heard + PATIENCE):
            due = begun + sent * interval
            may = not ended and len(missing) < WINDOW
            wait = max(0.0, due - time.monotonic()) if may else 0.1
            ready, _, _ = select.select([link] if ended else [link, sys.stdin], [], [], wait)
            if sys.stdin in ready:
                ended, heard = True, time.monotonic()
            while link in ready:
                try:
                    data = link.recv(2048)
                except OSError:
                    break
                data = data if v6 else data[(data[0] & 15) * 4 :]
                if data[0] == answer and len(data) >= 16 and struct.unpack_from("!H", data, 4)[0] == mine:
                    missing.discard(struct.unpack_from("!Q", data, 8)[0])
                    heard = time.monotonic()
            if may and not ended and time.monotonic() >= due:
                body = struct.pack("!HHQ", mine, sent & 0xFFFF, sent) + bytes(40)
                head = struct.pack("!BBH", kind, 0, 0 if v6 else checksum(struct.pack("!BBH", kind, 0, 0) + body))
                missing.add(sent)
                sent += 1
                # What can't be sent is lost.
                with contextlib.suppress(OSError):
                    link.send(head + body)
    json.dump({"sent": sent, "lost": len(missing)}, sys.stdout)


if __name__ == "__main__":
    main()
