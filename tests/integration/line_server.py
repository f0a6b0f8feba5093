"""Tells whoever asks, on several ports, who has answered: line_server.py PORT...

TCP and UDP, over either family: each line (or datagram) is answered with a line of JSON - the server's name, the port,
the client's address and port, and the line. A line "size N" is answered with N bytes instead, and then the end.
At SIGTERM it ends what has been begun: established connections have a moment to go on.
"""

import json
import os
import selectors
import signal
import socket
import sys
import threading

NAME = os.environ.get("HOSTNAME") or socket.gethostname()
MOMENT = 0.3


def answer(port, client, line, here=""):
    words = {
        "name": NAME,
        "port": port,
        "peer": client[0].removeprefix("::ffff:"),
        "peer_port": client[1],
        "here": here,
    }
    return json.dumps(words | {"line": line.decode(errors="replace").strip()}).encode() + b"\n"


def serve_one(connection, port, client):
    with connection, connection.makefile("rb") as lines:
        for line in lines:
            if line.startswith(b"size "):
                connection.sendall(b"x" * int(line.split()[1]))
                return
            here = connection.getsockname()[0].removeprefix("::ffff:")
            connection.sendall(answer(port, client, line, here))


def serve_tcp(server):
    connection, client = server.accept()
    port = server.getsockname()[1]
    threading.Thread(target=lambda: suppressed(serve_one, connection, port, client), daemon=True).start()


def serve_udp(server):
    data, ancillary, _, client = server.recvmsg(1 << 16, 256)
    level, kind, asked = ancillary[0]
    # A host has several addresses: the answer comes from the one that was asked.
    reply = answer(server.getsockname()[1], client, data)
    suppressed(server.sendmsg, [reply], [(level, kind, asked[:16] + bytes(4))], 0, client)


def suppressed(function, *arguments):
    try:
        return function(*arguments)
    except OSError:
        return None


def main():
    doors = selectors.DefaultSelector()
    for text in sys.argv[1:]:
        port = int(text)
        tcp = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256)
        doors.register(tcp, selectors.EVENT_READ, serve_tcp)
        udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        udp.bind(("::", port))
        doors.register(udp, selectors.EVENT_READ, serve_udp)
    signal.signal(signal.SIGTERM, lambda *_: threading.Timer(MOMENT, os._exit, [0]).start())
    while True:
        for key, _ in doors.select():
            suppressed(key.data, key.fileobj)


if __name__ == "__main__":
    main()
