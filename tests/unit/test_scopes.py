"""The cluster's log of changes, and scopes in numbers."""

from __future__ import annotations

import msgspec
from test_services import VIPS, both, service, slice_of

from controller.batch import BUNDLE_ID, OWN_XIDS, Xids, batch, encoded, replacement
from controller.scopes import ClusterLog, ScopeState
from flows import fields as f
from flows.compiler import Compiler
from flows.cookies import Kind, Scope, cookie
from flows.openflow import encode
from flows.openflow.digest import digest
from flows.pipeline import AFFINITY
from flows.update import CLUSTER, Update
from flows.values import DROP, Flow, Group, GroupType


def flow(number: int, table: int = 35) -> Flow:
    return Flow(table, number, (f.IN_PORT(number),), DROP, cookie(Scope.CLUSTER, Kind.NODE, number))


class Source:
    """A scope that is just a list."""

    def __init__(self) -> None:
        self.held: list[Flow] = []

    def flows(self, scope: str) -> list[Flow]:
        return self.held if scope == CLUSTER else []

    def groups(self, scope: str) -> list[Group]:
        return []

    def add(self, log: ClusterLog, *new: Flow) -> None:
        self.held += new
        log.take(Update(CLUSTER, added=new))


def test_a_cursor_gets_the_changes_after_it_and_no_more() -> None:
    source = Source()
    log = ClusterLog(source, Xids())
    for number in range(1, 5):
        source.add(log, flow(number))
    assert log.version == 4
    behind = log.since(2)
    assert behind is not None
    assert [batch.items[0] for batch in behind] == [flow(3), flow(4)]
    assert log.since(4) == []


def test_a_change_is_encoded_once_for_everybody_who_asks() -> None:
    source = Source()
    log = ClusterLog(source, Xids())
    source.add(log, flow(1))
    first, second = log.since(0), log.since(0)
    assert first is not None and second is not None
    assert first[0].buffers is second[0].buffers
    assert log.whole() is log.whole()


def test_the_log_is_bounded_and_who_is_further_behind_gets_the_whole() -> None:
    source = Source()
    log = ClusterLog(source, Xids(), limit=1000)
    for number in range(1, 50):
        source.add(log, flow(number))
    assert log.since(0) is None
    recent = log.since(log.version - 2)
    assert recent is not None and len(recent) == 2
    assert log._size <= 1000
    assert [item for item in log.whole().items if item is not None] == source.held


def test_one_change_larger_than_the_log_leaves_nobody_without_it() -> None:
    source = Source()
    log = ClusterLog(source, Xids(), limit=100)
    source.add(log, *map(flow, range(1, 20)))
    assert log.since(0) is None and log.since(1) == []


def test_the_digest_and_the_counts_follow_every_change() -> None:
    state = ScopeState([flow(1), flow(2, 0)])
    state.take(Update(CLUSTER, removed=(flow(1),), added=(flow(3), flow(4))))
    left = [flow(2, 0), flow(3), flow(4)]
    assert state.digest == digest(left) and state.counts == {35: 2, 0: 1}
    assert state.less([flow(4)]) == digest(left[:2])
    group = Group(1, GroupType.ALL, ())
    state.take(Update(CLUSTER, groups_added=(group,)))
    assert state.digest == digest(left, [group]) == ScopeState(left, [group]).digest


def test_what_switches_have_learnt_is_deleted_with_the_flow_by_means_of_which_they_have() -> None:
    affine = service(cluster_ips=VIPS[:1], external_ips=(), load_balancer_ips=(), affinity_seconds=60)
    compiler = Compiler()
    for each in (affine, slice_of(*both("a1", "b1"))):
        compiler.put(each)
    (group,) = compiler.groups(CLUSTER)
    deletion = encode.flow_delete(AFFINITY.number, 0x5C << 56 | group.group_id, (1 << 64) - 1), None
    # An endpoint that goes has flows that say so themselves.
    (fewer,) = compiler.put(slice_of(*both("a1")))
    assert fewer.removed and deletion not in encoded(fewer).steps
    (forgetful,) = compiler.put(msgspec.structs.replace(affine, affinity_seconds=0))
    assert encoded(forgetful).steps.count(deletion) == 1
    compiler.put(affine)
    (gone,) = compiler.remove(affine.key)
    assert encoded(gone).steps.count(deletion) == 1


def test_an_error_finds_its_flow_by_the_message_s_xid() -> None:
    made = batch(replacement([flow(1), flow(2)], Scope.CLUSTER, 77), Xids())
    found = [made.item(xid)[1] for xid in range(made.first_xid, made.first_xid + len(made.items))]
    assert [each for each in found if each is not None] == [flow(1), flow(2)]
    assert made.item(made.first_xid + len(made.items)) == (False, None)
    assert made.flow_mods == len(made.items)


def test_a_batch_s_bytes_are_bundle_messages_with_their_own_xids() -> None:
    made = batch(replacement(map(flow, range(1, 2000)), Scope.CLUSTER, 77), Xids())
    assert len(made.buffers) > 1
    stream, xids = b"".join(made.buffers), []
    assert made.size == len(stream)
    while stream:
        size = int.from_bytes(stream[2:4], "big")
        assert int.from_bytes(stream[8:12], "big") == BUNDLE_ID
        assert stream[4:8] == stream[20:24]
        xids.append(int.from_bytes(stream[4:8], "big"))
        stream = stream[size:]
    assert xids == list(range(made.first_xid, made.first_xid + len(made.items)))


def test_xids_wrap_below_those_of_a_switch_s_own_requests() -> None:
    xids = Xids()
    assert xids.take(OWN_XIDS - 10) == 1
    assert xids.take(5) == OWN_XIDS - 9
    assert xids.take(20) == 1
