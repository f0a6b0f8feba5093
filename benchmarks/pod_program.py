"""What runs in the pods of benchmarks: servers that say who they are, and clients that time them.

    serve NAME PORT...          answers each request with NAME, one connection after another; PORT + 1000 takes bytes
    connect ADDRESS PORT SECONDS    connects, asks, hears and closes, one after another: prints how many a second
    send ADDRESS PORT SECONDS       sends as much as goes: prints bytes a second
    ask ADDRESS PORT COUNT      the same COUNT times, each from a source port of its own: prints how many were answered
    watch                       for each line "ADDRESS PORT NAME": asks until NAME answers, prints when that was

`watch` answers each line with a line "wait" when it has asked in vain for the first time, then with the time (of the
monotonic clock, which all processes share) at which NAME's answer was read, and how often it asked until then.
"""

import socket
import sys
import threading
import time

SINK = 1000
#: Seconds between two questions, and until one is given up.
_PAUSE, _PATIENCE = 0.0002, 0.2
_CHUNK = bytes(1 << 18)


def serve(name: str, ports: list[int]) -> None:
    for port in ports:
        threading.Thread(target=_answer, args=(name.encode(), port)).start()
        threading.Thread(target=_swallow, args=(port + SINK,)).start()


def _listening(port: int) -> socket.socket:
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)


def _answer(name: bytes, port: int) -> None:
    with _listening(port) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(1.0)
                try:
                    connection.recv(64)
                    connection.sendall(name)
                    # The client closes first.
                    connection.recv(64)
                except OSError:
                    continue


def _swallow(port: int) -> None:
    with _listening(port) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                buffer, size = bytearray(1 << 20), 0
                while got := connection.recv_into(buffer):
                    size += got
                connection.sendall(str(size).encode())


def ask(address: str, port: int, patience: float) -> str:
    """One connection: who has answered. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(patience)
        client.connect((address, port))
        client.sendall(b"who?")
        return client.recv(64).decode()


def connect(address: str, port: int, seconds: float) -> None:
    count, begun = 0, time.monotonic()
    while time.monotonic() - begun < seconds:
        ask(address, port, 5.0)
        count += 1
    print(count / (time.monotonic() - begun))


def ask_often(address: str, port: int, count: int) -> None:
    answered = 0
    for _ in range(count):
        try:
            answered += bool(ask(address, port, 5.0))
        except OSError:
            continue
    print(answered)


def send(address: str, port: int, seconds: float) -> None:
    with socket.create_connection((address, port), 5.0) as client:
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            client.sendall(_CHUNK)
        client.shutdown(socket.SHUT_WR)
        size = int(client.recv(64))
        print(size / (time.monotonic() - begun))


def watch() -> None:
    for line in sys.stdin:
        address, port, name = line.split()
        tries = 0
        while True:
            tries += 1
            try:
                said = ask(address, int(port), _PATIENCE)
            except OSError:
                said = ""
            now = time.monotonic()
            if said == name:
                break
            if tries == 1:
                print("wait", flush=True)
            time.sleep(_PAUSE)
        print(now, tries, flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", name, *ports]:
            serve(name, list(map(int, ports)))
        case ["connect", address, port, seconds]:
            connect(address, int(port), float(seconds))
        case ["send", address, port, seconds]:
            send(address, int(port), float(seconds))
        case ["ask", address, port, count]:
            ask_often(address, int(port), int(count))
        case ["watch"]:
            watch()
