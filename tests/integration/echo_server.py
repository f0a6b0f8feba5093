"""Tells whoever asks, by TCP or UDP over either family, which address it is seen with.

TCP: reads until the other side has finished and answers with a line of JSON: the peer's address, how many bytes came,
their SHA-256. UDP: the same for one datagram.
"""

import hashlib
import json
import socket
import sys
import threading


def answer(address, data_size, digest):
    return json.dumps({"peer": address[0].removeprefix("::ffff:"), "bytes": data_size, "sha256": digest}).encode()


def serve_tcp(port):
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64) as server:
        while True:
            threading.Thread(target=serve_one, args=server.accept(), daemon=True).start()


def serve_one(connection, address):
    digest, size = hashlib.sha256(), 0
    with connection:
        while data := connection.recv(1 << 16):
            digest.update(data)
            size += len(data)
        connection.sendall(answer(address, size, digest.hexdigest()))


def serve_udp(port):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # A host has several addresses: the answer comes from the one that was asked.
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        server.bind(("::", port))
        while True:
            data, [(level, kind, asked)], _, address = server.recvmsg(1 << 16, 256)
            reply = answer(address, len(data), hashlib.sha256(data).hexdigest())
            server.sendmsg([reply], [(level, kind, asked[:16] + bytes(4))], 0, address)


if __name__ == "__main__":
    number = int(sys.argv[1])
    threading.Thread(target=serve_udp, args=(number,), daemon=True).start()
    serve_tcp(number)
