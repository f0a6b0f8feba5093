"""A datagram client that stays: datagram_client.py ADDRESS PORT. Prints lines of JSON.

First the server's answer. Then, for each line of input, it asks once more and prints {"mtu": N, "too_big": B}: the path
MTU that its kernel has for the server by then, and whether it has heard that a datagram was too big. (Linux looks its
IPv6 route up anew only when something is sent.)
"""

import errno
import json
import socket
import sys

IP_MTU, IPV6_MTU = 14, 24


def ask(link):
    """The server's answer, and whether the kernel has told, once and as an error, that a datagram was too big."""
    too_big = False
    while True:
        try:
            link.send(b"hello")
            return link.recv(4096).decode(), too_big
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            too_big = True


def main():
    address, port = sys.argv[1], int(sys.argv[2])
    v6 = ":" in address
    with socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(30)
        link.connect((address, port))
        print(ask(link)[0], end="", flush=True)
        for _ in sys.stdin:
            _, too_big = ask(link)
            mtu = link.getsockopt(socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP, IPV6_MTU if v6 else IP_MTU)
            print(json.dumps({"mtu": mtu, "too_big": too_big}), flush=True)


if __name__ == "__main__":
    main()
