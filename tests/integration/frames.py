"""Frames made by hand, sent and heard on a pod's interface: run inside the pod's namespace, prints JSON.

frames.py send HEX...             sends each frame
frames.py listen SECONDS MARK     prints which marks (MARK and what follows it up to a space) came in UDP payloads
frames.py hear MARK               prints each mark on a line when it comes for the first time, until its input ends
frames.py ask SECONDS HEX         sends a frame and prints the frames that come back meanwhile, as hex
"""

import json
import re
import select
import socket
import sys
import time


def marks_in(frame, start):
    return {match.decode() for match in re.findall(re.escape(start.encode()) + rb"[a-z0-9-]+", frame)}


def hear(link, start):
    found = set()
    while sys.stdin not in select.select([link, sys.stdin], [], [])[0]:
        frame, address = link.recvfrom(1 << 16)
        for mark in marks_in(frame, start) - found if address[2] != socket.PACKET_OUTGOING else ():
            found.add(mark)
            print(mark, flush=True)


def heard(link, seconds):
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([link], [], [], left)[0]:
            frame, address = link.recvfrom(1 << 16)
            if address[2] != socket.PACKET_OUTGOING:
                yield frame


def main():
    command, *rest = sys.argv[1:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as link:
        link.bind(("eth0", 3))
        if command == "send":
            for text in rest:
                link.send(bytes.fromhex(text))
        elif command == "listen":
            print("listening", flush=True)
            found = set()
            for frame in heard(link, float(rest[0])):
                found |= marks_in(frame, rest[1])
            json.dump(sorted(found), sys.stdout)
        elif command == "hear":
            print("listening", flush=True)
            hear(link, rest[0])
        else:
            link.send(bytes.fromhex(rest[1]))
            json.dump([frame.hex() for frame in heard(link, float(rest[0]))], sys.stdout)


if __name__ == "__main__":
    main()
