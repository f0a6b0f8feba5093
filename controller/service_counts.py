"""What Services have carried, summed over all switches: packets and bytes of each endpoint, and its connections.

Pure: replies in, sums out. Packets and bytes, of both directions, are those of table ServiceStats. A connection is
counted where its Service is found, and once more where its endpoint is chosen: by a group's bucket, or by a flow of
table Endpoint where buckets only name it. A switch counts from when it got the flow or group: Open vSwitch begins the
count of a group's buckets anew when one comes or goes, so an endpoint's connections are those since the last such
change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from flows import fields as f
from flows.cookies import OBJECT_MASK
from flows.openflow.counted import MATCH_AT, BucketIds, FlowCount
from flows.openflow.messages import GroupStats
from flows.pipeline import ENDPOINT, SERVICE, SERVICE_STATS
from flows.registers import ENDPOINT as ENDPOINT_BITS
from flows.registers import SERVICE as SERVICE_BITS
from flows.tables.service import EVERYBODY, REFUSE
from flows.values import DROP


class Counts(msgspec.Struct):
    """Of one endpoint of one Service's port."""

    connections: int = 0
    packets: int = 0
    bytes: int = 0


class Sums(msgspec.Struct):
    """By the number of the Service's port and that of the endpoint; and connections by the Service's object id."""

    endpoints: dict[tuple[int, int], Counts] = {}
    connections: dict[int, int] = {}


def add_flows(sums: Sums, labels: Mapping[int, int], flows: Iterable[FlowCount]) -> None:
    """Add what one switch says of its flows. `labels` tells which Service's port a group is of."""
    for each in flows:
        if each.table == SERVICE_STATS.number:
            label = label_of(each)
            if label is not None:
                counts = _of(sums, label >> 32, label & 0xFFFF_FFFF)
                counts.packets += each.packets
                counts.bytes += each.bytes
        elif each.table == SERVICE.number:
            if is_connection(each):
                service = each.cookie & OBJECT_MASK
                sums.connections[service] = sums.connections.get(service, 0) + each.packets
        elif each.table == ENDPOINT.number:
            values = _values(each)
            if ENDPOINT_BITS.field in values:
                label = labels.get(values[SERVICE_BITS.field], 0)
                _of(sums, label, values[ENDPOINT_BITS.field]).connections += each.packets


def add_buckets(
    sums: Sums, labels: Mapping[int, int], buckets: Mapping[int, BucketIds], stats: Iterable[GroupStats]
) -> None:
    """Add what one switch says of its groups."""
    for each in stats:
        group = buckets.get(each.group_id)
        label = labels.get(each.group_id, 0)
        for number, packets in zip(group.ids if group else (), each.bucket_packets, strict=False):
            if number is not None and packets:
                _of(sums, label, number).connections += packets


def label_of(count: FlowCount) -> int | None:
    """The Service port's number and the endpoint's that a flow of table ServiceStats counts for."""
    start = MATCH_AT + len(f.CT_LABEL.header)
    if count.head[MATCH_AT:start] != f.CT_LABEL.header:
        return None
    return int.from_bytes(count.head[start : start + f.CT_LABEL.length], "big")


def is_connection(count: FlowCount) -> bool:
    """Whether what a flow of table Service has met are connections that were sent on."""
    try:
        return count.priority >= EVERYBODY and count.program() not in (DROP, REFUSE)
    except ValueError:
        return False


def _values(count: FlowCount) -> dict[f.Field, int]:
    try:
        return {term.field: term.value for term in count.match()}
    except ValueError:
        return {}


def _of(sums: Sums, label: int, number: int) -> Counts:
    return sums.endpoints.setdefault((label, number), Counts())
