"""Policies among the compiler's contributions: what a change touches, and that changes add up to a fresh start."""

from __future__ import annotations

from ipaddress import ip_address
from random import Random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_objects import (
    NAMESPACES,
    cluster_policies,
    has,
    namespaces,
    network_policies,
    nodes,
    pod,
    pod_names,
    pods,
    policies,
    policy,
    policy_keys,
)
from test_compiler import UPLINKS, Step, Switches, assert_same_as_afresh, node, pod_port

import flows.compiler
import flows.policies
from flows import fields as f
from flows import numbers as flow_numbers
from flows.compiler import Compiler
from flows.cookies import Kind, Scope, cookie
from flows.fields import Term
from flows.registers import DESTINATION_IDENTITY, FROM_POD, SOURCE_IDENTITY, TO_POD
from flows.tables import policy as table
from flows.update import CLUSTER, Update
from flows.values import DROP, Conjunction, Flow, SetField
from topology.model import (
    ContainerPort,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Namespace,
    Object,
    Pod,
    Service,
    ServicePort,
    Subset,
)
from topology.naming import object_id
from topology.policies import Action, Direction, NodeSet, PodSet, Policy, PolicyPort, Rule, Tier, closed

SCOPES = (CLUSTER, "n1", "n2")


def put(new: Object) -> Step:
    return lambda compiler: compiler.put(new)


def release(compiler: Compiler) -> list[Update]:
    return compiler.release(sorted(compiler.policies.identities.idle))


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """One event: an object comes, changes or goes; a switch announces its ports; idle identities are given up."""
    match draw(st.sampled_from(["put"] * 12 + ["service", "ports", "ports", "remove", "remove", "release"])):
        case "put":
            return put(draw(st.one_of(policies, policies, pods, pods, namespaces, nodes)))
        case "service":
            return put(draw(services | slices))
        case "remove":
            key = draw(
                policy_keys
                | st.tuples(st.just("Pod"), pod_names).map(lambda found: (found[0], *found[1]))
                | st.tuples(st.just("Namespace"), st.just(""), st.sampled_from(NAMESPACES))
                | st.tuples(st.just("Node"), st.just(""), st.sampled_from(["n1", "n2"]))
            )
            return lambda compiler: compiler.remove(key)
        case "release":
            return release
    number = draw(st.integers(1, 2))
    there = sorted(draw(st.sets(pod_names, max_size=3)))
    ports = [pod_port(10 + place, *name, 2 + place, number) for place, name in enumerate(there)]
    return lambda compiler: compiler.set_ports(f"n{number}", [*UPLINKS, *ports])


#: Services count the packets to their endpoints, and tell the endpoint's identity.
services = st.builds(
    lambda app: Service(
        namespace="a",
        name="s",
        ports=(ServicePort(port=80),),
        selector=(("app", app),),
        cluster_ips=(ip_address("10.96.0.1"),),
    ),
    st.sampled_from("xy"),
)
slices = st.builds(
    lambda pod: EndpointSlice(
        namespace="a",
        name="s-1",
        service="s",
        subsets=(Subset((EndpointPort(port=80),), (Endpoint(address=ip_address("10.244.1.2"), pod=pod),)),),
    ),
    st.sampled_from(["one", "two"]),
)


def _some_pods() -> list[Step]:
    """Pods of many identities: rules have several alternatives in each dimension."""
    labels = [(("app", app), ("pod-template-hash", number)) for app in "xyz" for number in "12"]
    made = [Pod(namespace=namespace, name=f"p{index}", labels=each) for namespace in NAMESPACES
            for index, each in enumerate(labels)]  # fmt: skip
    return [put(each) for each in made]


def _pods_on_nodes() -> list[Step]:
    """Pods that switches know, and that only an unimportant label tells apart: some policies ask for it."""
    made = []
    for number in (1, 2):
        made += [put(node(number)), put(_on_node(number, "one", "1")), put(_on_node(number, "two", "2"))]
        ports = [pod_port(10 + place, NAMESPACES[number - 1], name, 2 + place, number)
                 for place, name in enumerate(("one", "two"))]  # fmt: skip
        made.append(lambda compiler, number=number, ports=ports: compiler.set_ports(f"n{number}", [*UPLINKS, *ports]))
    return made


def _on_node(number: int, name: str, hashed: str) -> Pod:
    labels = {"app": "x", "pod-template-hash": hashed}
    return msgspec.structs.replace(pod(name, NAMESPACES[number - 1], **labels), node=f"n{number}")


def state(compiler: Compiler) -> dict[str, set[Flow]]:
    return {scope: set(compiler.flows(scope)) for scope in SCOPES}


def afresh(compiler: Compiler, random: Random, *, keyed: bool) -> Compiler:
    """Another compiler that hears of what there is now, in an order of its own."""
    other = Compiler(keyed=keyed)
    left: list[Step] = [put(each) for each in compiler.cluster.objects()]
    left += [_announce(name, compiler) for name in ("n1", "n2")]
    random.shuffle(left)
    for step in left:
        step(other)
    release(other)
    return other


def _announce(name: str, compiler: Compiler) -> Step:
    ports = compiler.ports(name)
    return lambda other: other.set_ports(name, ports)


def add_up(events: list[Step], random: Random, *, keyed: bool) -> Compiler:
    """Updates one after another come to what there is, and that is what a fresh start comes to."""
    compiler = Compiler(keyed=keyed)
    switches = Switches(compiler)
    for event in events:
        switches.take(event(compiler))
    assert_same_as_afresh(compiler, switches)
    switches.take(release(compiler))
    assert_same_as_afresh(compiler, switches)
    other = afresh(compiler, random, keyed=keyed)
    assert state(compiler) == state(other)
    assert compiler.policies.crowded == other.policies.crowded
    return compiler


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps(), max_size=25), st.randoms(use_true_random=False), st.booleans(), st.sampled_from([0, 16]))
def test_updates_in_any_order_add_up_to_what_a_fresh_compilation_makes(
    events: list[Step], random: Random, keyed: bool, few: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows.policies, "_FEW", few)
        add_up([*_pods_on_nodes(), *events], random, keyed=keyed)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps(), max_size=15), st.lists(steps(), max_size=20), st.sampled_from([1, 3, 1000]), st.booleans())
def test_many_changes_at_once_end_up_where_one_after_another_do(
    first: list[Step], then: list[Step], size: int, keyed: bool
) -> None:
    compiler, goal = Compiler(keyed=keyed), Compiler(keyed=keyed)
    for event in first:
        event(compiler)
        event(goal)
    for event in then:
        event(goal)
    release(goal)
    switches = Switches(compiler)
    for scope in SCOPES[1:]:
        switches.take([Update(scope, (), tuple(compiler.flows(scope)))])
    switches.take([Update(CLUSTER, groups_added=tuple(compiler.groups(CLUSTER)))])
    for name in ("n1", "n2"):
        switches.take(compiler.set_ports(name, goal.ports(name)))
    wanted = {each.key: each for each in goal.cluster.objects()}
    gone = [each.key for each in compiler.cluster.objects() if each.key not in wanted]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows.compiler, "STEP", size)
        for updates in compiler.take(wanted.values(), gone):
            switches.take(updates)
    assert_same_as_afresh(compiler, switches)
    switches.take(release(compiler))
    assert_same_as_afresh(compiler, switches)
    assert state(compiler) == state(goal)
    assert compiler.policies.crowded == goal.policies.crowded


def test_updates_add_up_where_the_numbers_of_conjunctions_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    first = flow_numbers._first
    monkeypatch.setattr(flow_numbers, "_first", lambda title: 1 + first(title) % 3)
    monkeypatch.setattr(flows.policies, "_FEW", 0)

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(network_policies.map(put) | cluster_policies.map(put) | steps(), max_size=20), st.randoms())
    def holds(events: list[Step], random: Random) -> None:
        compiler = add_up([*_some_pods(), *events], random, keyed=True)
        ends: dict[int, set[int]] = {}
        for flow in compiler.flows(CLUSTER):
            for each in flow.program:
                if isinstance(each, Conjunction):
                    ends.setdefault(each.id, set()).add(each.clauses)
        # A number is one rule's: it has so many dimensions and no others.
        assert all(len(each) == 1 for each in ends.values())

    holds()


# What a change touches ----------------------------------------------------------------------------------------------


def cookie_of(each: Policy) -> int:
    return cookie(Scope.CLUSTER, Kind.POLICY, object_id(*each.key))


def judged(compiler: Compiler) -> set[Flow]:
    """The flows that policies have asked for."""
    return set(compiler.policies.flows())


def compiled(*objects: Object) -> Compiler:
    compiler = Compiler()
    for each in objects:
        compiler.put(each)
    return compiler


def touched(updates: list[Update]) -> set[int]:
    """The cookies of policies' flows that updates are about."""
    changed = (flow for each in updates if each.scope == CLUSTER for flow in (*each.removed, *each.added))
    return {flow.cookie for flow in changed if flow.cookie >> 48 & 0x7F == Kind.POLICY}


ALLOW_Y = Rule(peers=(PodSet((has("app", "y"),), "a"),), ports=(PolicyPort("TCP", 80),))
ALLOW_Z = Rule(peers=(PodSet((has("app", "z"),), "a"),))


def test_a_change_of_one_policy_touches_its_own_flows_only() -> None:
    others = [policy(name, ingress=(ALLOW_Y,)) for name in ("q", "r")]
    mine = policy("p", subjects=PodSet((has("app", "z"),), "a"), egress=(ALLOW_Y,))
    compiler = compiled(pod("one", app="x"), pod("two", app="y"), pod("three", app="z"), *others)
    for change in (mine, msgspec.structs.replace(mine, egress=())):
        assert touched(compiler.put(change)) == {cookie_of(mine)}
    assert touched(compiler.remove(mine.key)) == {cookie_of(mine)}


def test_pods_of_known_labels_come_and_go_and_no_flow_of_the_cluster_changes() -> None:
    known = pod("first", app="x", **{"pod-template-hash": "0"})
    compiler = compiled(known, pod("other", app="y"), policy(ingress=(ALLOW_Y,)), node(1))
    compiler.set_ports("n1", UPLINKS)
    before = judged(compiler)
    for number in range(1000):
        new = msgspec.structs.replace(
            pod(f"new-{number}", app="x", **{"pod-template-hash": str(number)}), node="n1"
        )  # fmt: skip
        ports = [*UPLINKS, pod_port(10, "a", new.name, 2)]
        assert compiler.put(new) == []
        assert [each.scope for each in compiler.set_ports("n1", ports)] == ["n1"]
        assert [each.scope for each in compiler.remove(new.key)] == ["n1"]
        assert compiler.set_ports("n1", UPLINKS) == []
    assert judged(compiler) == before and not compiler.policies.identities.idle


@pytest.mark.parametrize("keyed", [True, False])
def test_a_policy_that_asks_for_an_unimportant_label_gives_pods_other_identities_on_their_nodes(keyed: bool) -> None:
    compiler = Compiler(keyed=keyed)
    for step in _pods_on_nodes():
        step(compiler)
    before = state(compiler)
    (known,) = {compiler.policies.identities.of_pod("a", name) for name in ("one", "two")}
    asking = policy(ingress=(Rule(peers=(PodSet((has("pod-template-hash", "1"),), "a"),)),))
    updates = compiler.put(asking)
    now = {compiler.policies.identities.of_pod("a", name) for name in ("one", "two")}
    assert len(now) == 2 and known not in now
    # Both nodes: labels matter in every namespace.
    assert {each.scope for each in updates} == {CLUSTER, "n1", "n2"}
    sent = {term for each in updates if each.scope == "n1" for flow in each.added for term in _loads(flow)}
    assert sent == now
    compiler.remove(asking.key)
    release(compiler)
    assert state(compiler) == before


def _loads(flow: Flow) -> set[int]:
    """The identities that a flow says a sender has."""
    return {each.value for each in flow.program if isinstance(each, SetField) and each.field is SOURCE_IDENTITY.field}


def test_a_pod_of_a_new_identity_concerns_only_the_policies_that_select_it() -> None:
    subject, peer = policy("subject", ingress=(ALLOW_Z,)), policy("peer", subjects=PodSet((), "b"), egress=(ALLOW_Y,))
    compiler = compiled(pod("one", app="x"), pod("b", "b"), pod("z", app="z"), subject, peer)
    assert touched(compiler.put(pod("new", app="x", tier="front"))) == {cookie_of(subject)}
    assert touched(compiler.put(pod("new", app="y"))) == {cookie_of(peer)}
    assert touched(compiler.put(pod("new", app="w"))) == set()
    assert touched(compiler.put(pod("new", "c", app="x"))) == set()


def test_policies_that_allow_everybody_don_t_change_with_the_pods_there_are() -> None:
    everybody = PodSet()
    allow = Policy(
        kind="ClusterNetworkPolicy",
        name="all",
        tier=Tier.ADMIN,
        subjects=everybody,
        ingress=(Rule(Action.ACCEPT, peers=(everybody,)),),
    )
    compiler = compiled(allow)
    assert len(judged(compiler)) == 1
    assert touched(compiler.put(pod("one", app="x"))) == set()


def test_an_identity_that_nobody_has_keeps_its_flows_until_it_is_released() -> None:
    mine = policy(ingress=(ALLOW_Y,))
    compiler = compiled(pod("one", app="x"), pod("two", app="y"), mine)
    before = judged(compiler)
    (number,) = compiler.policies.identities.of_namespace("a") - {compiler.policies.identities.of_pod("a", "one")}
    assert touched(compiler.remove(("Pod", "a", "two"))) == set()
    assert compiler.policies.identities.idle == {number} and judged(compiler) == before
    assert touched(compiler.release([number])) == {cookie_of(mine)}
    assert judged(compiler) == judged(compiled(pod("one", app="x"), mine))


def test_labels_of_a_namespace_move_its_pods_in_and_out_of_selections_of_the_cluster() -> None:
    red = PodSet((), "", (has("team", "red"),))
    mine = policy(ingress=(Rule(peers=(red,)),))
    compiler = compiled(pod("one", app="x"), pod("far", "b"), mine, policy("other", ingress=()))
    before = judged(compiler)
    assert touched(compiler.put(Namespace(name="b", labels=(("team", "red"),)))) == {cookie_of(mine)}
    assert len(judged(compiler)) == len(before) + 1
    compiler.put(Namespace(name="b", labels=(("team", "blue"),)))
    assert judged(compiler) == before


def test_a_namespace_that_nobody_has_declared_is_selected_by_its_name() -> None:
    named = PodSet((), "", (has("kubernetes.io/metadata.name", "b"),))
    compiler = compiled(pod("one", app="x"), pod("far", "b"), policy(ingress=(Rule(peers=(named,)),)))
    number = compiler.policies.identities.of_pod("b", "far")
    assert any(SOURCE_IDENTITY(number) in merged(flow) for flow in judged(compiler))


def merged(flow: Flow) -> tuple[Term, ...]:
    """A flow's match with the parts of its registers told apart."""
    return tuple(
        bits(term.value >> bits.start & (1 << bits.width) - 1)
        for term in flow.match
        for bits in (SOURCE_IDENTITY, FROM_POD, DESTINATION_IDENTITY, TO_POD)
        if term.field is bits.field and term.mask is not None and term.mask & bits.mask == bits.mask
    )


def test_a_node_s_labels_and_addresses_concern_policies_that_speak_of_nodes() -> None:
    mine = policy(egress=(Rule(peers=(NodeSet((has("zone", "east"),)),)),))
    compiler = compiled(pod("one", app="x"), mine, policy("other", ingress=(ALLOW_Y,)))
    east = msgspec.structs.replace(node(1), labels=(("zone", "east"),))
    mark = cookie_of(mine)
    assert mark in touched(compiler.put(east))
    assert mark in touched(compiler.put(msgspec.structs.replace(east, addresses=(ip_address("172.30.0.9"),))))
    assert mark in touched(compiler.put(node(1)))
    assert touched(compiler.put(msgspec.structs.replace(node(1), labels=(("zone", "west"),)))) == set()


def test_a_name_of_a_port_concerns_policies_that_use_it() -> None:
    by_name = policy(ingress=(Rule(ports=(PolicyPort("TCP", "http"),)),))
    compiler = compiled(pod("one", app="x"), by_name)
    web = (ContainerPort(port=8080, name="http"),)
    assert touched(compiler.put(pod("two", ports=web, app="x"))) == {cookie_of(by_name)}
    assert any(f.TCP_DST(8080) in flow.match for flow in judged(compiler))
    assert touched(compiler.put(pod("three", ports=(ContainerPort(port=1, name="ftp"),), app="y"))) == set()


# What policies have together ----------------------------------------------------------------------------------------


def test_a_flow_that_two_policies_want_stays_when_one_of_them_goes_in_the_name_of_the_other() -> None:
    first, second = policy("first", ingress=(ALLOW_Y,)), policy("second", ingress=(ALLOW_Y,))
    compiler = compiled(pod("one", app="x"), pod("two", app="y"), second)
    keys = {flow.key for flow in judged(compiler)}
    assert {flow.cookie for flow in judged(compiler)} == {cookie_of(second)}
    (update,) = compiler.put(first)
    assert {flow.key for flow in judged(compiler)} == keys
    assert {flow.cookie for flow in update.added} == {flow.cookie for flow in judged(compiler)} == {cookie_of(first)}
    assert compiler.remove(second.key) == []
    compiler.put(second)
    compiler.remove(first.key)
    assert {flow.key for flow in judged(compiler)} == keys
    assert {flow.cookie for flow in judged(compiler)} == {cookie_of(second)}
    assert compiler.policies.size(first.key) == 0 and compiler.policies.size(second.key) == len(keys)


def crowd(*, app: str, count: int) -> list[Pod]:
    return [pod(f"{app}{index}", app=app, number=str(index)) for index in range(count)]


def test_a_part_that_two_conjunctions_share_is_one_flow_of_both() -> None:
    """In one priority of the Admin tier; those of NetworkPolicies are spread over many."""
    compiler = compiled(*crowd(app="x", count=5), *crowd(app="y", count=5), *crowd(app="z", count=5))
    of_x, peers = PodSet((has("app", "x"),), "a"), [PodSet((has("app", app),), "a") for app in "yz"]
    both = [
        Policy(
            kind="ClusterNetworkPolicy", name=name, tier=Tier.ADMIN, subjects=of_x, ingress=(Rule(peers=(peer,)),)
        )
        for name, peer in zip(("first", "second"), peers, strict=True)
    ]  # fmt: skip
    for each in both:
        compiler.put(each)
    shared = [flow for flow in judged(compiler) if len(flow.program) == 2]
    assert len(shared) == 5 and {flow.cookie for flow in shared} == {cookie_of(both[0])}
    assert all({type(part) for part in flow.program} == {Conjunction} for flow in shared)
    assert len(judged(compiler)) == 5 + 5 + 5 + 2
    compiler.remove(both[0].key)
    assert judged(compiler) == judged(
        compiled(*crowd(app="x", count=5), *crowd(app="y", count=5), *crowd(app="z", count=5), both[1])
    )


def test_conjunctions_whose_numbers_meet_have_numbers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the policies' names sort otherwise than the titles: p before p-1, p-1/... before p/..."""
    monkeypatch.setattr(flow_numbers, "_first", lambda title: 1)
    rules = (
        Rule(peers=(PodSet((has("app", "y"),), "a"),)),
        Rule(peers=(PodSet((has("app", "z"),), "a"),)),
    )
    pods = [*crowd(app="x", count=5), *crowd(app="y", count=5), *crowd(app="z", count=5)]
    both = [policy("p", ingress=rules), policy("p-1", ingress=rules)]
    compiler = compiled(*pods, *both)
    # A new identity makes both anew at once.
    compiler.put(pod("x6", app="x", number="6"))
    ends = [term.value for flow in judged(compiler) for term in flow.match if term.field is f.CONJ_ID]
    assert len(ends) == len(set(ends)) == 4
    compiler.remove(both[1].key)
    assert judged(compiler) == judged(compiled(*pods, pod("x6", app="x", number="6"), both[0]))


def test_the_number_of_a_conjunction_says_which_rule_it_is() -> None:
    mine = policy(ingress=(Rule(peers=(PodSet((has("app", "y"),), "a"),)),))
    compiler = compiled(*crowd(app="x", count=5), *crowd(app="y", count=5), mine)
    (number,) = {part.id for flow in judged(compiler) for part in flow.program if isinstance(part, Conjunction)}
    assert compiler.policies.conjunctions() == {number: (mine.key, Direction.INGRESS, 0)}


# Priorities ---------------------------------------------------------------------------------------------------------


def turns(name: str, count: int, kind: str = "ClusterNetworkPolicy", priority: int = 5) -> Policy:
    """A policy of the Admin tier whose rules take turns denying and accepting."""
    rules = tuple(
        Rule((Action.DENY, Action.ACCEPT)[index % 2], ports=(PolicyPort("TCP", 1 + index),)) for index in range(count)
    )
    return Policy(kind=kind, name=name, tier=Tier.ADMIN, priority=priority, subjects=PodSet(), ingress=rules)


def test_a_policy_without_room_at_its_priority_denies_after_the_others_and_is_named() -> None:
    one, two, elsewhere = turns("one", table.RANKS - 1), turns("two", 2), turns("three", 2, priority=6)
    compiler = compiled(one, two, elsewhere)
    assert compiler.policies.crowded == {two.key}
    mine = [flow for flow in judged(compiler) if flow.cookie == cookie_of(two)]
    assert [flow.program for flow in mine] == [DROP]
    lowest = min(flow.priority for flow in judged(compiler) if flow.cookie == cookie_of(one))
    highest = max(flow.priority for flow in judged(compiler) if flow.cookie == cookie_of(elsewhere))
    assert lowest > mine[0].priority > highest
    compiler.put(msgspec.structs.replace(one, ingress=one.ingress[:5] if one.ingress else None))
    assert not compiler.policies.crowded
    assert judged(compiler) == judged(
        compiled(msgspec.structs.replace(one, ingress=one.ingress[:5] if one.ingress else None), two, elsewhere)
    )


def test_of_equal_priorities_the_kind_comes_first_and_then_the_name() -> None:
    allow, deny = Rule(Action.ACCEPT, ports=(PolicyPort("TCP", 80),)), Rule(Action.DENY, ports=(PolicyPort("TCP", 80),))

    def made(kind: str, name: str, rule: Rule) -> Policy:
        return Policy(kind=kind, name=name, tier=Tier.ADMIN, priority=5, subjects=PodSet(), ingress=(rule,))

    in_order = [
        made("AdminNetworkPolicy", "b", deny),
        made("ClusterNetworkPolicy", "a", allow),
        made("ClusterNetworkPolicy", "b", deny),
    ]
    compiler = compiled(*reversed(in_order))
    priorities = [
        {flow.priority for flow in judged(compiler) if flow.cookie == cookie_of(each)} for each in in_order
    ]  # fmt: skip
    assert [len(each) for each in priorities] == [1, 1, 1]
    assert sorted(priorities, key=max, reverse=True) == priorities


def test_closed_policies_deny_in_the_directions_that_they_are_about() -> None:
    both = closed(policy(ingress=(ALLOW_Y,), egress=()))
    (rule,) = both.ingress or ()
    assert both.ingress == both.egress
    assert (rule.action, rule.peers, rule.ports) == (Action.DENY, None, None)
    assert closed(policy(ingress=(ALLOW_Y,))).egress is None
