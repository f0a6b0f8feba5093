"""Host: what the node's agent must do on the host, told by the switch itself.

No packet ever comes here. Each flow holds a note, a JSON object, that the agent reads from its own bridge: so what a
host must do arrives in the same bundle as the flows that count on it, survives the controller, and needs no second
channel. The match only keeps the flows apart.

    {"kind": "address", "address": A}                         packets for A that reach this host belong to the bridge:
                                                              Services' addresses, workloads'
    {"kind": "announce", "address": A}                        this node answers for A on its network (ARP, ND)
    {"kind": "port", "protocol": "TCP", "port": N, "address": A}   a host port; without address on all of the node's
    {"kind": "health", "port": N, "namespace": S, "name": M, "endpoints": C}   answer load balancers' health checks
                                                                              (of several with one port, the most)
"""

from __future__ import annotations

import json
from typing import Any

from flows import fields as f
from flows.fields import Match
from flows.pipeline import HOST
from flows.values import Flow, Note
from topology.naming import Address

_PROTOCOLS = {"TCP": (f.PROTO_TCP, f.TCP_DST), "UDP": (f.PROTO_UDP, f.UDP_DST), "SCTP": (f.PROTO_SCTP, f.SCTP_DST)}
_ADDRESS, _WORKLOAD, _ANNOUNCE, _PORT, _NOT_HEALTHY, _HEALTH = 10, 15, 20, 30, 40, 50


def address_flow(address: Address, cookie: int) -> Flow:
    """An address of Services outside of their range, on every node."""
    return Flow(HOST.number, _ADDRESS, _to(address), _note("address", address=str(address)), cookie)


def workload_flow(address: Address, cookie: int) -> Flow:
    """A workload's address, on every node; apart from a Service's, which may be the same one."""
    return Flow(HOST.number, _WORKLOAD, _to(address), _note("address", address=str(address)), cookie)


def announce_flow(address: Address, cookie: int) -> Flow:
    """The same, on the one node that answers for it."""
    return Flow(HOST.number, _ANNOUNCE, _to(address), _note("announce", address=str(address)), cookie)


def port_flow(protocol: str, port: int, address: Address | None, cookie: int) -> Flow:
    """A host port of a pod on this node."""
    number, field = _PROTOCOLS[protocol]
    where = _to(address) if address is not None else (f.ETH_TYPE(f.ETH_IPV4),)
    rest = {} if address is None else {"address": str(address)}
    match = f.match(*where, f.IP_PROTO(number), field(port))
    return Flow(HOST.number, _PORT, match, _note("port", protocol=protocol, port=port, **rest), cookie)


def health_flow(port: int, namespace: str, name: str, endpoints: int, cookie: int) -> Flow:
    """A Service's health check port."""
    match = (f.ETH_TYPE(f.ETH_IPV4), f.IP_PROTO(f.PROTO_TCP), f.TCP_DST(port))
    note = _note("health", port=port, namespace=namespace, name=name, endpoints=endpoints)
    return Flow(HOST.number, _HEALTH if endpoints else _NOT_HEALTHY, match, note, cookie)


def _to(address: Address) -> Match:
    if address.version == 4:
        return (f.ETH_TYPE(f.ETH_IPV4), f.IPV4_DST(int(address)))
    return (f.ETH_TYPE(f.ETH_IPV6), f.IPV6_DST(int(address)))


def _note(kind: str, **values: Any) -> tuple[Note]:
    data = json.dumps({"kind": kind, **values}, separators=(",", ":")).encode()
    # Filled up as the switch gives it back: what is read equals what was sent.
    return (Note(data + b" " * (-(10 + len(data)) % 8)),)
