"""Policies as everything about them changes: what is made of the difference is what a fresh compilation makes.

Worlds begin with pods, so that what comes then has something to select.
"""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flows.compiler
import flows.policy_parts
from flows.compiler import Compiler
from flows.update import CLUSTER, Update
from flows.values import Flow, FlowKey
from topology.model import ContainerPort, Namespace, Node, Object, Pod
from topology.policies import Action, Direction, IpBlock, NodeSet, PodSet, Policy, PolicyPort, Rule, Tier
from topology.selectors import Operator, Requirement, Selector

SPACES, NAMES = ["a", "b", "c"], ["x", "y", "z"]
values = st.sampled_from(["0", "1", "2"])
flags = st.booleans()


@st.composite
def selectors(draw: st.DrawFn, key: str) -> Selector:
    """Selectors of one or two requirements, or none; few on a label that matters only where a policy asks."""
    found = []
    for each in draw(st.lists(st.sampled_from([key, key, key, "job-name"]), max_size=2)):
        operator = draw(st.sampled_from([Operator.IN, *Operator]))
        listed = operator in (Operator.IN, Operator.NOT_IN)
        found.append(Requirement(each, operator, tuple(draw(st.sets(values, min_size=1))) if listed else ()))
    return tuple(found)


named = st.sampled_from(SPACES).map(
    lambda name: (Requirement("kubernetes.io/metadata.name", Operator.IN, (name,)),),
)


@st.composite
def pod_sets(draw: st.DrawFn, own: str = "") -> PodSet:
    namespace = own or draw(st.sampled_from(["", "", "", *SPACES]))
    return PodSet(draw(selectors("app")), namespace, () if namespace else draw(st.one_of(selectors("team"), named)))


@st.composite
def rules(draw: st.DrawFn, tier: Tier, direction: Direction) -> Rule:
    others = [pod_sets(), pod_sets(), pod_sets()]
    block = IpBlock(ip_network("198.51.100.0/24"), (ip_network("198.51.100.0/25"),))
    if tier is Tier.NETWORK_POLICY or direction is Direction.EGRESS:
        others += [st.just(block)]  # type: ignore[list-item]
    if tier is not Tier.NETWORK_POLICY and direction is Direction.EGRESS:
        others += [st.just(NodeSet(()))]  # type: ignore[list-item]
    ports = st.sampled_from([PolicyPort("TCP", 80), PolicyPort("UDP", 100, 102), PolicyPort("TCP", "web")])
    return Rule(
        Action.ACCEPT if tier is Tier.NETWORK_POLICY else draw(st.sampled_from(list(Action))),
        draw(st.none() | st.lists(st.one_of(others), max_size=3).map(tuple)),
        draw(st.none() | st.lists(ports, min_size=1, max_size=2).map(tuple)),
    )


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    tier = draw(st.sampled_from([Tier.NETWORK_POLICY, *Tier]))
    namespace = draw(st.sampled_from(SPACES)) if tier is Tier.NETWORK_POLICY else ""
    directions = {
        each.value: draw(st.none() | st.lists(rules(tier, each), max_size=2).map(tuple)) for each in Direction
    }
    return Policy(
        kind="NetworkPolicy" if namespace else "ClusterNetworkPolicy",
        namespace=namespace,
        name=draw(st.sampled_from(NAMES)),
        tier=tier,
        priority=draw(st.sampled_from([0, 1])) if not namespace else 0,
        subjects=draw(pod_sets(namespace)),
        **directions,
    )


@st.composite
def pods(draw: st.DrawFn) -> Pod:
    labels = {"app": draw(values), "team": draw(values)} | ({"job-name": draw(values)} if draw(flags) else {})
    port = ContainerPort(port=draw(st.sampled_from([80, 81])), name="web")
    return Pod(
        namespace=draw(st.sampled_from(SPACES)),
        name=draw(st.sampled_from([f"p{each}" for each in range(6)])),
        node="n1",
        labels=tuple(sorted(labels.items())),
        ports=(port,) if draw(flags) else (),
        host_network=draw(st.sampled_from([False, False, False, True])),
    )


@st.composite
def namespaces(draw: st.DrawFn) -> Namespace:
    name = draw(st.sampled_from(SPACES))
    return Namespace(name=name, labels=(("kubernetes.io/metadata.name", name), ("team", draw(values))))


nodes = st.sampled_from([1, 2]).map(
    lambda each: Node(name=f"n{each}", addresses=(ip_network(f"172.30.0.{each}").network_address,), pod_cidrs=())
)
objects: st.SearchStrategy[Object] = st.one_of(policies(), pods(), namespaces(), nodes)
first = st.tuples(
    st.lists(st.one_of(pods(), pods(), namespaces()), min_size=10, max_size=20),
    st.lists(policies(), min_size=2, max_size=6),
)
#: Objects that come or change, and of those that are there, by their place, which go; None: what is idle is released.
steps = st.lists(st.one_of(st.lists(objects, min_size=1, max_size=6), st.integers(0, 20), st.none()), max_size=12)


class Table:
    """The cluster's flows by the updates."""

    def __init__(self, compiler: Compiler) -> None:
        self.flows: dict[FlowKey, Flow] = {flow.key: flow for flow in compiler.flows(CLUSTER)}

    def take(self, updates: list[Update]) -> None:
        for update in updates:
            if update.scope != CLUSTER:
                continue
            for flow in update.removed:
                assert self.flows.pop(flow.key) == flow
            for flow in update.added:
                assert flow.key not in self.flows
                self.flows[flow.key] = flow


def assert_members_are_those_that_selectors_select(compiler: Compiler) -> None:
    parts = compiler.policies
    for policy in compiler.cluster.policies.values():
        for pods in {policy.subjects, *_pod_sets(policy)}:
            if pods.everybody:
                continue
            selected = set()
            for number in parts.identities:
                profile = parts.identities[number]
                space = compiler.cluster.namespaces.get(profile.namespace)
                labels = space.labels if space else (("kubernetes.io/metadata.name", profile.namespace),)
                if pods.has(profile.namespace, labels, profile.labels):
                    selected.add(number)
            assert parts.members(pods) == selected


def _pod_sets(policy: Policy) -> set[PodSet]:
    rules = (*(policy.ingress or ()), *(policy.egress or ()))
    return {peer for rule in rules for peer in rule.peers or () if isinstance(peer, PodSet)}


@pytest.mark.parametrize("large", [1, 10**9])
@pytest.mark.parametrize("step", [1, 1000])
def test_changes_of_any_size_add_up_to_what_a_fresh_compilation_makes(
    large: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.policy_parts, "LARGE", large)
    monkeypatch.setattr(flows.compiler, "STEP", step)

    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(first, steps)
    def holds(begin: tuple[list[Object], list[Object]], events: list[list[Object] | int | None]) -> None:
        compiler = Compiler()
        table = Table(compiler)
        for event in (*begin, *events):
            there = [each.key for each in compiler.cluster.objects()]
            match event:
                case None:
                    table.take(compiler.release(compiler.policies.identities.idle))
                case int():
                    for key in there[event : event + 1]:
                        table.take(compiler.remove(key))
                case _:
                    come = {each.key: each for each in event}
                    for updates in compiler.take(come.values(), set(there[::7]) - come.keys()):
                        table.take(updates)
            assert set(table.flows.values()) == set(compiler.flows(CLUSTER))
            assert_members_are_those_that_selectors_select(compiler)
        table.take(compiler.release(compiler.policies.identities.idle))
        afresh = Compiler()
        for each in compiler.cluster.objects():
            afresh.put(each)
        afresh.release(afresh.policies.identities.idle)
        assert set(table.flows.values()) == set(afresh.flows(CLUSTER))
        assert sorted(compiler.policies.identities) == sorted(afresh.policies.identities)

    holds()


def test_a_flow_that_another_rule_still_wants_stays_when_its_identity_leaves_a_large_rule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One rule has the pod as its only peer, the other as one of several: then its namespace is another team's."""
    monkeypatch.setattr(flows.policy_parts, "LARGE", 1)
    app, team = (Requirement(key, Operator.IN, ("1",)) for key in ("app", "team"))
    policy = Policy(
        namespace="a",
        name="x",
        subjects=PodSet((Requirement("app", Operator.IN, ("0",)),), "a"),
        ingress=(Rule(peers=(PodSet((app,), "b"),)), Rule(peers=(PodSet(namespaces=(team,)),))),
    )
    compiler = Compiler()
    for namespace in ("b", "c"):
        compiler.put(Namespace(name=namespace, labels=(("team", "1"),)))
    compiler.put(Pod(namespace="a", name="p", labels=(("app", "0"),)))
    for namespace, label in (("b", "1"), ("c", "1"), ("c", "2"), ("c", "3")):
        compiler.put(Pod(namespace=namespace, name=f"p{label}", labels=(("app", label),)))
    compiler.put(policy)
    table = Table(compiler)
    table.take(compiler.put(Namespace(name="b", labels=(("team", "2"),))))
    afresh = Compiler()
    for each in compiler.cluster.objects():
        afresh.put(each)
    assert set(table.flows.values()) == set(afresh.flows(CLUSTER))


def test_a_policy_that_comes_with_its_pods_is_in_force_before_they_are_and_made_once() -> None:
    compiler = Compiler()
    there = [Pod(namespace="a", name=f"p{each}", labels=(("app", str(each)),)) for each in range(30)]
    policy = Policy(namespace="a", name="x", subjects=PodSet((), "a"), ingress=(Rule(peers=(PodSet((), "a"),)),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows.compiler, "STEP", 10)
        updates = [update for step in compiler.take([*there, policy]) for update in step]
    assert len(updates) == 1
    assert set(updates[0].added) == set(compiler.policies.flows())
    assert not compiler.policies.identities.idle
