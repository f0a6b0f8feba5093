"""Says of a datagram that it was too big, as a router or its receiver would: too_big.py FROM PORT TO PORT MTU.

FROM and TO are the datagram's as they are seen here; the ICMP error goes back to FROM, from this host.
"""

import socket
import struct
import sys


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def main():
    source, source_port, target, target_port, mtu = sys.argv[1:]
    datagram = struct.pack("!HHHH", int(source_port), int(target_port), 1400, 0)
    if ":" in source:
        ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
        quoted = struct.pack("!IHBB", 6 << 28, 1400, socket.IPPROTO_UDP, 63) + ends + datagram + bytes(64)
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as link:
            link.sendto(struct.pack("!BBHI", 2, 0, 0, int(mtu)) + quoted, (source, 0))
        return
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 1420, 1, 0x4000, 63, socket.IPPROTO_UDP, 0) + ends
    quoted = head[:10] + struct.pack("!H", checksum(head)) + head[12:] + datagram
    message = struct.pack("!BBHHH", 3, 4, 0, 0, int(mtu)) + quoted
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as link:
        link.sendto(message, (source, 0))


if __name__ == "__main__":
    main()
