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
from flows.openflow.messages import FlowStats, GroupStats
from flows.pipeline import ENDPOINT, SERVICE, SERVICE_STATS
from flows.registers import ENDPOINT as ENDPOINT_BITS
from flows.registers import SERVICE as SERVICE_BITS
from flows.tables.service import EVERYBODY, REFUSE
from flows.values import DROP, Ct, Group


class Counts(msgspec.Struct):
    """Of one endpoint of one Service's port."""

    connections: int = 0
    packets: int = 0
    bytes: int = 0


class Sums(msgspec.Struct):
    """By the number of the Service's port and that of the endpoint; and connections by the Service's object id."""

    endpoints: dict[tuple[int, int], Counts] = {}
    connections: dict[int, int] = {}


def add(
    sums: Sums,
    labels: Mapping[int, int],
    flows: Iterable[FlowStats],
    groups: Mapping[int, Group],
    stats: Iterable[GroupStats],
) -> None:
    """Add what one switch says. `labels` tells which Service's port a group is of."""
    for each in flows:
        if each.flow is None:
            continue
        values = {term.field: term.value for term in each.flow.match}
        if each.table == SERVICE.number and each.priority >= EVERYBODY and each.flow.program not in (DROP, REFUSE):
            service = each.cookie & OBJECT_MASK
            sums.connections[service] = sums.connections.get(service, 0) + each.packet_count
        elif each.table == SERVICE_STATS.number and f.CT_LABEL in values:
            label = values[f.CT_LABEL]
            counts = _of(sums, label >> 32, label & 0xFFFF_FFFF)
            counts.packets += each.packet_count
            counts.bytes += each.byte_count
        elif each.table == ENDPOINT.number and ENDPOINT_BITS.field in values:
            label = labels.get(values[SERVICE_BITS.field], 0)
            _of(sums, label, values[ENDPOINT_BITS.field]).connections += each.packet_count
    for group_stats in stats:
        group = groups.get(group_stats.group_id)
        label = labels.get(group_stats.group_id, 0)
        for bucket, packets in zip(group.buckets if group else (), group_stats.bucket_packets, strict=False):
            if isinstance(bucket.program[0], Ct):
                _of(sums, label, bucket.bucket_id).connections += packets


def _of(sums: Sums, label: int, number: int) -> Counts:
    return sums.endpoints.setdefault((label, number), Counts())
