"""Pours data over TCP: `serve ADDRESS PORT` says how fast one connection came, `send ADDRESS PORT SECONDS` fills it."""

import json
import socket
import sys
import time


def serve(address: str, port: int) -> None:
    with socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
        print("listening", flush=True)
        connection, _ = server.accept()
        total, begun = 0, time.monotonic()
        last = begun
        while data := connection.recv(1 << 16):
            total += len(data)
            last = time.monotonic()
        print(json.dumps({"bytes": total, "seconds": last - begun}), flush=True)


def send(address: str, port: int, seconds: float) -> None:
    with socket.create_connection((address, port), 30) as connection:
        # What has been taken but not sent when the time is over would still have to go.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        data = bytes(1 << 14)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            connection.sendall(data)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        send(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
