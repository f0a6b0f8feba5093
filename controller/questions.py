"""Questions to one switch: what it holds and what it has counted, for whoever wants to know. Sans-I/O.

    who asks ──question──> Switch (a SwitchSync) ──request──> switch ──answer──> `then`, with values

Owns how each question is asked and what its answers come to. Knows nothing of what a switch should hold, nor of whether
it is in sync: any connected switch may be asked, by whichever controller. Who asks must not count on an answer: `then`
is never called where the connection is lost before, and a switch that refuses to answer is as one that has nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from flows.openflow import encode
from flows.openflow.counted import BucketIds, FlowCount, bucket_ids, flow_counts
from flows.openflow.messages import (
    DescReply,
    FlowStats,
    FlowStatsReply,
    GroupDescReply,
    GroupStats,
    GroupStatsReply,
    Message,
    PortDesc,
    PortDescReply,
    PortStats,
    PortStatsReply,
    UnreadReply,
)
from flows.pipeline import ENDPOINT, SERVICE, SERVICE_STATS
from flows.values import Group

#: Takes flows that have met packets, as they come.
TakeCounts = Callable[[Iterator[FlowCount]], None]


class Switch(Protocol):
    """A connected switch, as a question sees it. It answers in the order in which it is asked."""

    def request(self, make: Callable[[int], bytes], then: Callable[[Message, float], None]) -> None:
        """Send what is made of an xid, and hear the answer, which may be an error."""

    def request_counts(
        self, make: Callable[[int], bytes], take: Callable[[UnreadReply], None], then: Callable[[], None]
    ) -> None:
        """The same, but `take` hears of each part of the answer, unread, and `then` of its end.

        `take` may raise DecodeError, which ends the connection.
        """


def dump(switch: Switch, then: Callable[[list[FlowStats]], None]) -> None:
    """Ask for flows as the switch has them, with counters."""

    def take(message: Message, now: float) -> None:
        then(list(message.items) if isinstance(message, FlowStatsReply) else [])

    switch.request(lambda xid: encode.flow_stats_request(xid=xid), take)


def groups(switch: Switch, then: Callable[[list[Group]], None]) -> None:
    """Ask for groups as the switch has them."""

    def take(message: Message, now: float) -> None:
        then(list(message.items) if isinstance(message, GroupDescReply) else [])

    switch.request(encode.group_desc_request, take)


def describe(switch: Switch, then: Callable[[str], None]) -> None:
    """Ask how the switch's datapath is described; who isn't its master may ask, too."""

    def take(message: Message, now: float) -> None:
        then(message.datapath if isinstance(message, DescReply) else "")

    switch.request(encode.desc_request, take)


def count_flows(switch: Switch, tables: Iterable[int], take: TakeCounts, then: Callable[[], None]) -> None:
    """Ask what the flows of tables have met. `take` hears of each part of the answers, `then` of their end."""
    asked = list(tables)
    for table in asked:
        is_last = table == asked[-1]
        switch.request_counts(
            lambda xid, table=table: encode.flow_stats_request(table, xid=xid),  # type: ignore[misc]
            lambda reply: take(flow_counts(reply.message)),
            then if is_last else lambda: None,
        )


def count_services(
    switch: Switch, take: TakeCounts, then: Callable[[Mapping[int, BucketIds], Sequence[GroupStats]], None]
) -> None:
    """Ask what Services have carried here: flows that count, and at the end buckets of groups and their counts."""
    buckets: dict[int, BucketIds] = {}
    counted: dict[int, GroupStats] = {}

    def take_stats(message: Message, now: float) -> None:
        items = message.items if isinstance(message, GroupStatsReply) else ()
        counted.update((each.group_id, each) for each in items if any(each.bucket_packets))

    def take_groups(reply: UnreadReply) -> None:
        buckets.update((each.group_id, each) for each in bucket_ids(reply.message, counted))

    count_flows(switch, (SERVICE.number, ENDPOINT.number, SERVICE_STATS.number), take, lambda: None)
    # Before what the groups are, of which then only those are read that have met packets.
    switch.request(encode.group_stats_request, take_stats)
    # Answered in the order asked: with the last everything is there.
    switch.request_counts(encode.group_desc_request, take_groups, lambda: then(buckets, list(counted.values())))


def count_ports(switch: Switch, then: Callable[[list[PortDesc], list[PortStats]], None]) -> None:
    """Ask what the ports are and what they have carried."""
    ports: list[PortDesc] = []

    def take_ports(message: Message, now: float) -> None:
        if isinstance(message, PortDescReply):
            ports.extend(message.items)

    def take_stats(message: Message, now: float) -> None:
        then(ports, list(message.items) if isinstance(message, PortStatsReply) else [])

    switch.request(encode.port_desc_request, take_ports)
    switch.request(encode.port_stats_request, take_stats)
