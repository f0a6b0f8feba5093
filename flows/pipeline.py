"""The pipeline: every table, in the order packets traverse them, and what each may do.

Nothing else writes a table's number. docs/pipeline.md, the names in ovs-ofctl, the CLI and the tests read this
declaration. `check` refuses a flow that its table doesn't allow.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from flows import registers
from flows.fields import Field
from flows.registers import REGISTERS, Bits
from flows.values import Ct, Flow, Goto, Learn, Move, OutputBits, Resubmit, SetField


class Table(msgspec.Struct, frozen=True):
    """A table: which register bits its flows may read and write, and where they may send a packet next."""

    number: int
    name: str
    purpose: str
    next: tuple[int, ...] = ()
    reads: tuple[Bits, ...] = ()
    writes: tuple[Bits, ...] = ()


class PipelineError(ValueError):
    """A flow does what its table's declaration doesn't allow."""


_CLASSIFY, _ARP, _ND_REPLY, _SOURCE_IDENTITY, _UNSNAT, _TRACK, _TRACK_STATE = 0, 5, 6, 10, 12, 15, 20
_LOCALITY, _NODE_ADDRESS, _SERVICE, _AFFINITY, _ENDPOINT, _SERVICE_STATS = 24, 25, 30, 31, 32, 33
_ROUTE, _POLICY = 35, 38
_EGRESS_ADMIN, _EGRESS_POLICY, _EGRESS_BASELINE = 40, 41, 42
_INGRESS_ADMIN, _INGRESS_POLICY, _INGRESS_BASELINE = 50, 51, 52
_COMMIT, _OUTPUT, _FABRIC, _DIGEST, _HOST = 60, 65, 66, 70, 71

CLASSIFY = Table(
    _CLASSIFY,
    "Classify",
    "admits packets by the port they enter: a pod's with its own MAC and addresses, the tunnel's, wires', the host's",
    next=(_ARP, _SOURCE_IDENTITY, _UNSNAT, _FABRIC),
    reads=(registers.TUNNEL_KEY,),
    writes=(registers.SOURCE, registers.SOURCE_IDENTITY, registers.BY_ADDRESS),
)
ARP = Table(
    _ARP,
    "Arp",
    "answers every ARP request and turns every neighbour solicitation into its answer; nothing floods",
    next=(_ND_REPLY,),
    reads=(registers.SCRATCH,),
    writes=(registers.SCRATCH,),
)
ND_REPLY = Table(
    _ND_REPLY,
    "NdReply",
    "finishes a neighbour advertisement: its option can be set only once the packet is one",
)
SOURCE_IDENTITY = Table(
    _SOURCE_IDENTITY,
    "SourceIdentity",
    "finds the sender's identity by its address, where the way here has no key that tells it",
    next=(_UNSNAT,),
    writes=(registers.SOURCE, registers.SOURCE_IDENTITY, registers.BY_ADDRESS),
)
UNSNAT = Table(
    _UNSNAT,
    "UnSNAT",
    "gives answers to a source that Commit put in the place of another their true destination back",
    next=(_TRACK,),
    writes=(registers.HAIRPIN,),
)
TRACK = Table(
    _TRACK,
    "Track",
    "sends IPv4 and IPv6 through conntrack, a zone for each; says on which L2 segment this node is",
    next=(_TRACK_STATE,),
    reads=(registers.CT_ZONE,),
    writes=(registers.SUBNET, registers.CT_ZONE, registers.SNAT_ZONE),
)
TRACK_STATE = Table(
    _TRACK_STATE,
    "TrackState",
    "drops packets that belong to no connection and can't open one; only new connections look for a Service",
    next=(_LOCALITY, _SERVICE_STATS, _ROUTE),
)
LOCALITY = Table(
    _LOCALITY,
    "Locality",
    "says in which topology zone this node is",
    next=(_NODE_ADDRESS,),
    writes=(registers.ZONE,),
)
NODE_ADDRESS = Table(
    _NODE_ADDRESS,
    "NodeAddress",
    "marks what is bound for a node's own address: NodePorts apply",
    next=(_SERVICE,),
    writes=(registers.TO_NODE,),
)
SERVICE = Table(
    _SERVICE,
    "Service",
    "finds the Service by address and port, and has its group choose an endpoint; refuses what no Service offers",
    next=(_AFFINITY, _ENDPOINT, _SERVICE_STATS, _ROUTE, _COMMIT),
    reads=(registers.SOURCE, registers.TO_NODE, registers.ZONE, registers.CT_ZONE),
    writes=(registers.SERVICE, registers.EXIT),
)
AFFINITY = Table(
    _AFFINITY,
    "Affinity",
    "remembers the endpoint of each client of a Service with session affinity: flows that the switch learns",
    reads=(registers.SERVICE,),
    writes=(registers.ENDPOINT,),
)
ENDPOINT = Table(
    _ENDPOINT,
    "Endpoint",
    "sends a new connection to the endpoint in the register, or has the Service's group choose one",
    next=(_SERVICE_STATS,),
    reads=(registers.SERVICE, registers.ENDPOINT, registers.SOURCE, registers.CT_ZONE),
)
SERVICE_STATS = Table(
    _SERVICE_STATS,
    "ServiceStats",
    "counts the packets of Services, for each endpoint, and says who the endpoint is",
    next=(_ROUTE,),
    writes=(registers.DESTINATION_IDENTITY, registers.TO_POD),
)
ROUTE = Table(
    _ROUTE,
    "Route",
    "finds the exit by destination: a pod here, another node, the host, the world outside",
    next=(_POLICY, _COMMIT),
    reads=(registers.SOURCE, registers.SUBNET),
    writes=(registers.EXIT, registers.EXIT_PORT, registers.DESTINATION_IDENTITY, registers.TO_POD),
)
POLICY = Table(
    _POLICY,
    "Policy",
    "finds out whether this node is to judge the packet: replies are not judged, and who isn't known is dropped",
    next=(_EGRESS_ADMIN, _INGRESS_ADMIN, _COMMIT),
    reads=(
        registers.SOURCE,
        registers.BY_ADDRESS,
        registers.EXIT,
        registers.SOURCE_IDENTITY,
        registers.DESTINATION_IDENTITY,
        registers.TO_POD,
    ),
    writes=(registers.SOURCE_IDENTITY, registers.FROM_POD),
)
_IDENTITIES = (registers.SOURCE_IDENTITY, registers.FROM_POD, registers.DESTINATION_IDENTITY, registers.TO_POD)
EGRESS_ADMIN = Table(
    _EGRESS_ADMIN,
    "EgressAdmin",
    "the sender's policies of the Admin tier: accept, deny, or leave it to the next tier",
    next=(_EGRESS_POLICY, _INGRESS_ADMIN),
    reads=_IDENTITIES,
    writes=(registers.SCRATCH,),
)
EGRESS_POLICY = Table(
    _EGRESS_POLICY,
    "EgressPolicy",
    "the sender's NetworkPolicies: what none of them allows is dropped, if there is one",
    next=(_EGRESS_BASELINE, _INGRESS_ADMIN),
    reads=_IDENTITIES,
    writes=(registers.SCRATCH,),
)
EGRESS_BASELINE = Table(
    _EGRESS_BASELINE,
    "EgressBaseline",
    "the sender's policies of the Baseline tier",
    next=(_INGRESS_ADMIN,),
    reads=_IDENTITIES,
    writes=(registers.SCRATCH,),
)
INGRESS_ADMIN = Table(
    _INGRESS_ADMIN,
    "IngressAdmin",
    "the receiver's policies of the Admin tier",
    next=(_INGRESS_POLICY, _COMMIT),
    reads=_IDENTITIES,
    writes=(registers.SCRATCH,),
)
INGRESS_POLICY = Table(
    _INGRESS_POLICY,
    "IngressPolicy",
    "the receiver's NetworkPolicies",
    next=(_INGRESS_BASELINE, _COMMIT),
    reads=_IDENTITIES,
    writes=(registers.SCRATCH,),
)
INGRESS_BASELINE = Table(
    _INGRESS_BASELINE,
    "IngressBaseline",
    "the receiver's policies of the Baseline tier",
    next=(_COMMIT,),
    reads=_IDENTITIES,
    writes=(registers.SCRATCH,),
)
COMMIT = Table(
    _COMMIT,
    "Commit",
    "commits new connections, and gives them another source where answers would else miss this bridge",
    next=(_OUTPUT,),
    reads=(registers.SOURCE, registers.EXIT, registers.TO_POD, registers.CT_ZONE, registers.SNAT_ZONE),
    writes=(registers.HAIRPIN, registers.SOURCE_IDENTITY),
)
OUTPUT = Table(
    _OUTPUT,
    "Output",
    "sends the packet to the exit that Route chose",
    next=(_FABRIC,),
    reads=(registers.EXIT, registers.EXIT_PORT, registers.HAIRPIN, registers.SOURCE_IDENTITY),
)
FABRIC = Table(
    _FABRIC,
    "Fabric",
    "finds the next wire of the way to another node, from here or in transit",
    reads=(registers.EXIT, registers.SOURCE_IDENTITY),
)
DIGEST = Table(
    _DIGEST,
    "Digest",
    "sees no packet; the cookies of its two flows are the digests of the two scopes",
    reads=(registers.SOURCE,),
)

HOST = Table(
    _HOST,
    "Host",
    "sees no packet; the notes in its flows tell the node's agent what the host must do",
    reads=(registers.SOURCE,),
)

TABLES: tuple[Table, ...] = (
    *(CLASSIFY, ARP, ND_REPLY, SOURCE_IDENTITY, UNSNAT, TRACK, TRACK_STATE),
    *(LOCALITY, NODE_ADDRESS, SERVICE, AFFINITY, ENDPOINT, SERVICE_STATS),
    *(ROUTE, POLICY, EGRESS_ADMIN, EGRESS_POLICY, EGRESS_BASELINE),
    *(INGRESS_ADMIN, INGRESS_POLICY, INGRESS_BASELINE, COMMIT, OUTPUT, FABRIC, DIGEST, HOST),
)
#: Tables whose flows the switch makes itself: they are nobody's state.
LEARNT: frozenset[int] = frozenset({_AFFINITY})
BY_NUMBER: dict[int, Table] = {table.number: table for table in TABLES}
BY_NAME: dict[str, Table] = {table.name: table for table in TABLES}
#: What OVSDB's Bridge.flow_tables is set to, so that `ovs-ofctl --names` shows names.
TABLE_NAMES: dict[int, str] = {table.number: table.name for table in TABLES}

_REGISTER_FIELDS: frozenset[Field] = frozenset(bits.field for bits in REGISTERS)


def check(flow: Flow) -> None:
    """Raise PipelineError where a flow goes beyond what its table declares."""
    table = BY_NUMBER.get(flow.table)
    if table is None:
        raise PipelineError(f"no table {flow.table} in the pipeline")
    if [term.field.index for term in flow.match] != sorted({term.field.index for term in flow.match}):
        raise PipelineError(f"{table.name}: terms of the match are not in order")
    for field, mask in _read(flow):
        if mask & ~_mask(table.reads, field):
            raise PipelineError(f"{table.name} may not read bits {mask:#x} of {field}")
    for field, mask in _written(flow):
        if mask & ~_mask(table.writes, field):
            raise PipelineError(f"{table.name} may not write bits {mask:#x} of {field}")
    for action in flow.program:
        if isinstance(action, Learn) and action.table not in LEARNT:
            raise PipelineError(f"{table.name} may not have flows learnt in table {action.table}")
        target = action.table if isinstance(action, Goto | Ct | Resubmit) else None
        if target is not None and target not in table.next:
            raise PipelineError(f"{table.name} may not send packets to table {target}")


def _read(flow: Flow) -> Iterator[tuple[Field, int]]:
    for term in flow.match:
        if term.field in _REGISTER_FIELDS:
            yield term.field, term.field.maximum if term.mask is None else term.mask
    for action in flow.program:
        if isinstance(action, OutputBits):
            yield action.bits.field, action.bits.mask
        elif isinstance(action, Move) and action.source.field in _REGISTER_FIELDS:
            yield action.source.field, action.source.mask
        elif isinstance(action, Ct) and not isinstance(action.zone, int):
            yield action.zone.field, action.zone.mask


def _written(flow: Flow) -> Iterator[tuple[Field, int]]:
    for action in flow.program:
        if isinstance(action, SetField) and action.field in _REGISTER_FIELDS:
            yield action.field, action.field.maximum if action.mask is None else action.mask
        elif isinstance(action, Move) and action.target.field in _REGISTER_FIELDS:
            yield action.target.field, action.target.mask


def _mask(bits: tuple[Bits, ...], field: Field) -> int:
    total = 0
    for each in bits:
        if each.field is field:
            total |= each.mask
    return total
