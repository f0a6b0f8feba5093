"""A collector of IPFIX that takes records at their word: `ipfix_collector.py ADDRESS PORT` prints each as JSON.

nfcapd sums up, and knows only some of the elements that Open vSwitch sends. Written from RFC 7011, sections 3 and 7.
"""

from __future__ import annotations

import json
import socket
import sys
from ipaddress import ip_address
from struct import unpack_from
from typing import Any

#: IANA's and VMware's (6876) elements that are told; what isn't here goes by its number.
ELEMENTS = {
    (0, 1): "octetDeltaCount", (0, 2): "packetDeltaCount", (0, 4): "protocolIdentifier",
    (0, 7): "sourceTransportPort", (0, 8): "sourceIPv4Address", (0, 10): "ingressInterface",
    (0, 11): "destinationTransportPort", (0, 12): "destinationIPv4Address", (0, 14): "egressInterface",
    (0, 27): "sourceIPv6Address", (0, 28): "destinationIPv6Address", (0, 61): "flowDirection",
    (0, 82): "interfaceName", (0, 85): "octetTotalCount", (0, 86): "packetTotalCount", (0, 130): "exporterIPv4Address",
    (0, 136): "flowEndReason", (0, 138): "observationPointId", (0, 158): "flowStartDeltaMicroseconds",
    (0, 159): "flowEndDeltaMicroseconds", (6876, 898): "virtualObsID",
}  # fmt: skip
_ADDRESSES = {"sourceIPv4Address", "destinationIPv4Address", "sourceIPv6Address", "destinationIPv6Address"}
_TEXTS = {"interfaceName", "virtualObsID"}
_VARIABLE = 0xFFFF

#: (enterprise, element, bytes) of each field, by observation domain and template.
Templates = dict[tuple[int, int], list[tuple[int, int, int]]]


def records(message: bytes, templates: Templates) -> list[dict[str, Any]]:
    """The data records of a message; its templates are remembered. Raises ValueError for a record without template."""
    version, length, _, _, domain = unpack_from("!HHIII", message)
    if version != 10 or length != len(message):
        raise ValueError(f"not a message of IPFIX: version {version}, {length} of {len(message)} bytes")
    found, at = [], 16
    while at + 4 <= length:
        kind, size = unpack_from("!HH", message, at)
        body = message[at + 4 : at + size]
        if kind == 2:
            _learn(body, domain, templates)
        elif kind >= 256:
            found += _data(body, domain, templates[domain, kind])
        at += size
    return found


def _learn(body: bytes, domain: int, templates: Templates) -> None:
    at = 0
    while at + 4 <= len(body):
        number, count = unpack_from("!HH", body, at)
        at += 4
        fields = []
        for _ in range(count):
            element, size = unpack_from("!HH", body, at)
            at += 4
            enterprise = 0
            if element & 0x8000:
                (enterprise,) = unpack_from("!I", body, at)
                at += 4
            fields.append((enterprise, element & 0x7FFF, size))
        templates[domain, number] = fields


def _data(body: bytes, domain: int, fields: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    found, at = [], 0
    least = sum(1 if size == _VARIABLE else size for _, _, size in fields)
    while len(body) - at >= least:
        record: dict[str, Any] = {"observationDomainId": domain}
        for enterprise, element, size in fields:
            if size == _VARIABLE:
                size, at = body[at], at + 1
                if size == 255:
                    (size,), at = unpack_from("!H", body, at), at + 2
            name = ELEMENTS.get((enterprise, element), f"{enterprise}/{element}")
            record[name] = _value(name, body[at : at + size])
            at += size
        found.append(record)
    return found


def _value(name: str, data: bytes) -> Any:
    if name in _ADDRESSES:
        return str(ip_address(data))
    return data.rstrip(b"\0").decode() if name in _TEXTS else int.from_bytes(data, "big")


def main(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as here:
        here.bind((address, port))
        print(json.dumps({"listening": port}), flush=True)
        templates: Templates = {}
        while True:
            message = here.recv(65536)
            try:
                found = records(message, templates)
            except KeyError:
                # Templates are sent again every ten minutes, and at the start: this was sent before we were there.
                continue
            for record in found:
                print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
