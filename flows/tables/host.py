"""Host: what the node's agent must do on the host, told by the switch itself.

No packet ever comes here. Each flow holds a note, a JSON object, that the agent reads from its own bridge: so what a
host must do arrives in the same bundle as the flows that count on it, survives the controller, and needs no second
channel. The match only keeps the flows apart.

    {"kind": "network", "mode": "routed", "encap": "vxlan"}   how nodes reach one another (topology.graph: Mode, Encap)
    {"kind": "export", "protocol": "ipfix", "collectors": [T], "sampling": N, "interval": S}   whom to tell of packets
                                                              (topology.flow_export: FlowExport)
    {"kind": "route", "network": N, "via": A}                 pods of N are at the node with address A, without tunnel;
                                                              with "subnet": S, for nodes with an address in S alone
    {"kind": "node", "address": A}                            a node's own address, "subnet": S if A is in one
    {"kind": "address", "address": A}                         packets for A that reach this host belong to the bridge:
                                                              Services' addresses, workloads'
    {"kind": "announce", "address": A}                        this node answers for A on its network (ARP, ND)
    {"kind": "port", "protocol": "TCP", "port": N}            a host port at all of the node's addresses
    {"kind": "port", ..., "address": A, "to": P, "toPort": M}   one at this address alone, and where it leads
    {"kind": "health", "port": N, "namespace": S, "name": M, "endpoints": C}   answer load balancers' health checks
                                                                              (of several with one port, the most)
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from flows import fields as f
from flows.fields import Match
from flows.pipeline import HOST
from flows.values import Flow, Note
from topology.flow_export import FlowExport, Protocol
from topology.graph import Interconnect
from topology.naming import Address, Network

_PROTOCOLS = {"TCP": (f.PROTO_TCP, f.TCP_DST), "UDP": (f.PROTO_UDP, f.UDP_DST), "SCTP": (f.PROTO_SCTP, f.SCTP_DST)}
_ADDRESS, _WORKLOAD, _ANNOUNCE, _PORT, _NOT_HEALTHY, _HEALTH, _ROUTE, _NODE, _NETWORK = (
    10,
    15,
    20,
    30,
    40,
    50,
    60,
    70,
    80,
)
_EXPORTS = {Protocol.IPFIX: 90, Protocol.SFLOW: 91, Protocol.NETFLOW: 92}


def network_flow(interconnect: Interconnect, cookie: int) -> Flow:
    """How nodes reach one another: what tunnels are, if there are any, and what the host has to route."""
    note = _note("network", mode=interconnect.mode.value, encap=interconnect.encap.value)
    return Flow(HOST.number, _NETWORK, (), note, cookie)


def export_flow(export: FlowExport, cookie: int) -> Flow:
    """Whom every node is to tell of the packets that its bridge sees, in one protocol."""
    note = _note("export", **msgspec.structs.asdict(export))
    return Flow(HOST.number, _EXPORTS[export.protocol], (), note, cookie)


def route_flow(network: Network, via: Address, subnet: Network | None, cookie: int) -> Flow:
    """Where a node's pods are, for hosts that reach its address themselves; where `subnet` is given, for its nodes."""
    mask = None if network.prefixlen == network.max_prefixlen else int(network.netmask)
    ethertype, field = (f.ETH_IPV4, f.IPV4_DST) if network.version == 4 else (f.ETH_IPV6, f.IPV6_DST)
    match = (f.ETH_TYPE(ethertype), field(int(network.network_address), mask))
    rest = {} if subnet is None else {"subnet": str(subnet)}
    return Flow(HOST.number, _ROUTE, match, _note("route", network=str(network), via=str(via), **rest), cookie)


def node_flow(address: Address, subnet: Network | None, cookie: int) -> Flow:
    """A node's own address: pods whose host sends them there itself keep their own."""
    rest = {} if subnet is None else {"subnet": str(subnet)}
    return Flow(HOST.number, _NODE, _to(address), _note("node", address=str(address), **rest), cookie)


def address_flow(address: Address, cookie: int) -> Flow:
    """An address of Services outside of their range, on every node."""
    return Flow(HOST.number, _ADDRESS, _to(address), _note("address", address=str(address)), cookie)


def workload_flow(address: Address, cookie: int) -> Flow:
    """A workload's address, on every node; apart from a Service's, which may be the same one."""
    return Flow(HOST.number, _WORKLOAD, _to(address), _note("address", address=str(address)), cookie)


def announce_flow(address: Address, cookie: int) -> Flow:
    """The same, on the one node that answers for it."""
    return Flow(HOST.number, _ANNOUNCE, _to(address), _note("announce", address=str(address)), cookie)


def port_flow(protocol: str, port: int, cookie: int) -> Flow:
    """A host port at all of this node's addresses."""
    number, field = _PROTOCOLS[protocol]
    match = f.match(f.ETH_TYPE(f.ETH_IPV4), f.IP_PROTO(number), field(port))
    return Flow(HOST.number, _PORT, match, _note("port", protocol=protocol, port=port), cookie)


def address_port_flow(protocol: str, port: int, address: Address, target: tuple[Address, int], cookie: int) -> Flow:
    """A host port at one address of this node, and the pod's address and port to which it leads."""
    number, field = _PROTOCOLS[protocol]
    match = f.match(*_to(address), f.IP_PROTO(number), field(port))
    where = {"address": str(address), "to": str(target[0]), "toPort": target[1]}
    return Flow(HOST.number, _PORT, match, _note("port", protocol=protocol, port=port, **where), cookie)


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
