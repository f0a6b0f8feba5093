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
from flows.values import Ct, Flow, Goto, Move, OutputBits, SetField


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


_CLASSIFY, _ARP, _ND_REPLY, _TRACK, _TRACK_STATE, _ROUTE, _COMMIT, _OUTPUT, _DIGEST = 0, 5, 6, 15, 20, 35, 60, 65, 70

CLASSIFY = Table(
    _CLASSIFY,
    "Classify",
    "admits packets by the port they enter: a pod's with its own MAC and addresses, the tunnel's, the host's",
    next=(_ARP, _TRACK),
    writes=(registers.SOURCE,),
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
TRACK = Table(_TRACK, "Track", "sends IPv4 and IPv6 through conntrack, a zone for each", next=(_TRACK_STATE,))
TRACK_STATE = Table(
    _TRACK_STATE, "TrackState", "drops packets that belong to no connection and can't open one", next=(_ROUTE,)
)
ROUTE = Table(
    _ROUTE,
    "Route",
    "finds the exit by destination: a pod here, another node, the host, the world outside",
    next=(_COMMIT,),
    reads=(registers.SOURCE,),
    writes=(registers.EXIT, registers.EXIT_PORT),
)
COMMIT = Table(_COMMIT, "Commit", "commits new connections", next=(_OUTPUT,))
OUTPUT = Table(
    _OUTPUT,
    "Output",
    "sends the packet to the exit that Route chose",
    reads=(registers.EXIT, registers.EXIT_PORT),
)
DIGEST = Table(
    _DIGEST,
    "Digest",
    "sees no packet; the cookies of its two flows are the digests of the two scopes",
    reads=(registers.SOURCE,),
)

TABLES: tuple[Table, ...] = (CLASSIFY, ARP, ND_REPLY, TRACK, TRACK_STATE, ROUTE, COMMIT, OUTPUT, DIGEST)
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
        target = action.table if isinstance(action, Goto | Ct) else None
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
