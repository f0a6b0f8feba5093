"""What people are shown of a switch's flows: rows in words, how much each carries, and what isn't as it should be.

Where a flow is from - a switch, or the compiler - is all the same here: both are told as a switch tells them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import msgspec

from controller import policy_views, views
from controller.audit import Drift
from controller.views import Row
from flows.compiler import Compiler
from flows.cookies import OBJECT_MASK, is_learnt, is_ours, is_tap
from flows.openflow.messages import FlowStats
from flows.pipeline import BY_NUMBER
from flows.services import external_addresses
from flows.tables.digest import is_digest
from flows.taps import is_trace
from flows.text import flow_text
from flows.values import Flow, Group
from flows.words import Names, flow_words
from topology.manifests import object_words
from topology.naming import object_id


class Wanted(msgspec.Struct, frozen=True):
    """Which flows are asked for: all, or those of a table and those made for one of these.

    `pod` and `service` are namespace/name, `policy` is what `policy_views.named` takes. A flow that several policies
    share is each one's, though its cookie names the first.
    """

    pod: str = ""
    service: str = ""
    policy: str = ""
    table: str = ""


class Told:
    """The words for the flows of one node's switch."""

    def __init__(self, compiler: Compiler, node: str) -> None:
        self._names = views.object_names(compiler)
        self._services = compiler.services
        ports = {port.number: port.name for port in compiler.ports(node)}
        for local in compiler.local_pods(node):
            ports[local[1].port] = f"pod {local[0].namespace}/{local[0].name}"
        identities, rules = policy_views.identity_names(compiler), policy_views.rule_names(compiler)
        groups = partial(views.group_words, compiler, node)
        self._words = Names(ports, identities, rules, views.EndpointNames(compiler), groups)

    def row(self, stats: FlowStats) -> Row:
        """A flow as people and scripts are shown it."""
        return {
            "table": _table_name(stats.table),
            "tableNumber": stats.table,
            "priority": stats.priority,
            "cookie": f"{stats.cookie:#018x}",
            "object": self._object(stats),
            "packets": stats.packet_count,
            "bytes": stats.byte_count,
            "seconds": round(stats.duration, 3),
            "words": flow_words(stats.flow, self._words) if stats.flow is not None else f"not ours: {stats.why}",
            "ofctl": flow_text(stats.flow, names=True) if stats.flow is not None else None,
            "decoded": stats.flow is not None,
        }

    def _object(self, stats: FlowStats) -> str:
        """What a flow was made for; empty where it isn't ours, whoever it claims to be of by the end of its cookie."""
        # First of all: a digest may be any number, also one as the cookies of others are.
        if is_digest(stats.flow):
            return self._names[0]
        if is_tap(stats.cookie):
            return "Trace" if is_trace(stats.cookie) else "Capture"
        if is_learnt(stats.cookie):
            owner = self._services.owner(stats.cookie & OBJECT_MASK)
            return object_words(owner.key) if owner is not None else ""
        return self._names.get(stats.cookie & OBJECT_MASK, "") if is_ours(stats.cookie) else ""


def flows(compiler: Compiler, node: str, dump: Iterable[FlowStats], wanted: Wanted) -> Iterator[Row]:
    """Flows as a switch has them, in packet order, with what they mean."""
    told = Told(compiler, node)
    return map(told.row, sorted(filter(_chooser(compiler, wanted), dump), key=_order))


def rated(
    compiler: Compiler,
    node: str,
    first: Iterable[FlowStats],
    last: Iterable[FlowStats],
    seconds: float,
    wanted: Wanted,
) -> Iterator[Row]:
    """Flows with how much each carries, by two dumps that are so many seconds apart."""
    told = Told(compiler, node)
    before = {(each.table, each.priority, each.match): each for each in first}
    for stats in sorted(filter(_chooser(compiler, wanted), last), key=_order):
        former = before.get((stats.table, stats.priority, stats.match))
        packets, octets = (former.packet_count, former.byte_count) if former is not None else (0, 0)
        if stats.packet_count < packets:
            # Made anew meanwhile: all that it has counted is of now.
            packets, octets = 0, 0
        yield told.row(stats) | {
            "packetsPerSecond": round((stats.packet_count - packets) / seconds, 3),
            "bytesPerSecond": round((stats.byte_count - octets) / seconds, 3),
        }


def differences(compiler: Compiler, node: str, drift: Drift, wanted: Wanted) -> Iterator[Row]:
    """What a switch lacks, has otherwise and has too much, in packet order.

    A flow that is otherwise is told as it is, and what it should be in `shouldBe` and `shouldBeOfctl`.
    """
    if not drift:
        # Words for every object there is take a while to find.
        return
    told, is_chosen = Told(compiler, node), _chooser(compiler, wanted)
    found: list[tuple[str, FlowStats, FlowStats | None]] = [("missing", _unseen(flow), None) for flow in drift.missing]
    found += [("altered", stats, _unseen(flow)) for flow, stats in drift.altered]
    found += [("foreign", stats, None) for stats in drift.foreign]
    for state, stats, should_be in sorted(found, key=lambda each: _order(each[1])):
        if is_chosen(stats) or (should_be is not None and is_chosen(should_be)):
            row = {"state": state, **told.row(stats)}
            if should_be is not None:
                right = told.row(should_be)
                row |= {"object": right["object"], "shouldBe": right["words"], "shouldBeOfctl": right["ofctl"]}
            yield row


def group_row(group: Group) -> Row:
    """A group as people and scripts are shown it."""
    return {"groupID": group.group_id, "buckets": len(group.buckets), "ofctl": flow_text(group, names=True)}


def _unseen(flow: Flow) -> FlowStats:
    """A flow that should be there, as a switch would tell it that has just got it."""
    return FlowStats(flow.table, flow.priority, flow.cookie, flow, 0, 0, 0.0, b"")


def _order(stats: FlowStats) -> tuple[int, int]:
    return stats.table, -stats.priority


def _chooser(compiler: Compiler, wanted: Wanted) -> Callable[[FlowStats], bool]:
    ids = {object_id("Pod", *wanted.pod.split("/", 1))} if wanted.pod else set()
    if wanted.service:
        ids |= _ids_of_service(compiler, wanted.service)
    policies = policy_views.named(compiler, wanted.policy)
    shared = {flow.key for key in policies for flow in compiler.policies.flows_of(key)}
    by_object = bool(wanted.pod or wanted.service or wanted.policy)
    # Of every number that a table can have, since each flow is asked of.
    tables = {number for number in range(256) if wanted.table.lower() in (_table_name(number).lower(), str(number))}

    def is_chosen(stats: FlowStats) -> bool:
        if wanted.table and stats.table not in tables:
            return False
        is_shared = stats.flow is not None and stats.flow.key in shared
        return not by_object or stats.cookie & OBJECT_MASK in ids or is_shared

    return is_chosen


def _ids_of_service(compiler: Compiler, title: str) -> set[int]:
    namespace, _, name = title.partition("/")
    service = compiler.cluster.services.get((namespace, name))
    addresses = external_addresses(service) if service is not None else ()
    ids = {object_id("Service", namespace, name)}
    return ids | {object_id("Address", "", str(address)) for address in addresses}


def _table_name(number: int) -> str:
    declared = BY_NUMBER.get(number)
    return declared.name if declared is not None else str(number)


def table_names() -> list[str]:
    """The pipeline's tables, in packet order."""
    return [table.name for table in BY_NUMBER.values()]


def is_table(text: str) -> bool:
    """Whether a person's word names a table: by name, in any case, or by number."""
    return text.isdigit() or text.lower() in (name.lower() for name in table_names())
