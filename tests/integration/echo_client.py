"""Asks echo servers: echo_client.py PORT SIZE tcp|udp ADDRESS..., and prints their answers by address as JSON."""

import json
import os
import socket
import sys

#: As long as `probes.LONG`: every answer is one that must come.
TIMEOUT = 30.0


def ask(kind, address, port, payload):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT)
        client.connect((address, port))
        client.sendall(payload)
        if kind == "tcp":
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(1 << 16), b""))
        return client.recv(1 << 16)


if __name__ == "__main__":
    port, size, kind, *addresses = sys.argv[1:]
    answers = {}
    for each in addresses:
        try:
            answers[each] = json.loads(ask(kind, each, int(port), os.urandom(int(size))))
        except (OSError, ValueError) as error:
            answers[each] = {"error": str(error)}
    json.dump(answers, sys.stdout)
