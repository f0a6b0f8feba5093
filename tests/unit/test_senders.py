"""Who sends from another node must be known where it arrives, as long as a policy may be about it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from fabric import FIRST_POD, OUT, WAYS, Fabric, Way, of_family
from test_compiler import Step, Switches, assert_same_as_afresh, put
from test_policy_walks import FAMILIES, OF_WORLD, PODS, WAY, address, call, named, policy

from flows import packets
from flows.compiler import Compiler
from flows.pipeline import POLICY
from flows.registers import SOURCE, SOURCE_IDENTITY, Source
from flows.state import Port
from flows.update import CLUSTER, Update
from flows.values import Flow
from topology.model import Pod
from topology.naming import HOST_END_MAC_PREFIX, mac_of, pod_port_name
from topology.policies import Action, PodSet, Policy, PolicyPort, Rule, Tier

EVERYBODY = PodSet()
#: The new pod may call port 80 alone.
ONE_PORT = policy("new", egress=(Rule(ports=(PolicyPort("TCP", 80),)),))


def pod(name: str, place: int = 9) -> Pod:
    addresses = (ip_address(f"10.244.1.{place}"), ip_address(f"fd00:10:244:1::{place}"))
    return Pod(namespace="default", name=name, node="n1", labels=(("name", name),), addresses=addresses)


def guard(subjects: PodSet, **rules: tuple[Rule, ...]) -> Policy:
    return Policy(kind="ClusterNetworkPolicy", name="guard", tier=Tier.ADMIN, priority=10, subjects=subjects, **rules)


def with_a_new_pod(*policies: Policy, way: Way = WAYS["by key"]) -> Fabric:
    """A pod of a new identity has come to n1; n2 has the policies but hasn't heard of it."""
    made = Fabric(2, PODS, policies, way=way)
    new = pod("new")
    made.compiler.put(new)
    port = Port(FIRST_POD + 9, pod_port_name("default", "new"), mac_of(HOST_END_MAC_PREFIX, new.addresses[0]))
    made.compiler.set_ports("n1", [*made.compiler.ports("n1"), port])
    made.interpret(lagging=("n2",))
    return made


def arrives(made: Fabric, source: str, version: int, port: int = 80, target: str = "b1") -> bool:
    """Whether a packet to a pod, or to a node, gets there."""
    at_node = target in made.names
    there = of_family(made.node(target).addresses, version) if at_node else address(made, target, version)
    return bool(made.send(*call(made, source, there, port)))


@FAMILIES
@WAY
def test_a_node_that_lags_behind_lets_nobody_in_whom_it_has_not_heard_of(way: Way, version: int) -> None:
    made = with_a_new_pod(ONE_PORT, way=way)
    assert not any(arrives(made, "new", version, port, "b1") for port in (80, 81))
    # What is for a node itself and goes there by hosts is judged where it leaves, by a node that knows its pod.
    judged_there = not way.interconnect.routes
    assert not any(arrives(made, "new", version, port, "n2") for port in ((80, 81) if judged_there else (81,)))
    for target in ("b1", "n2"):
        assert arrives(made, "a1", version, 81, target)
    # On its own node, which never lags behind what it knows of its own pods, it is judged.
    assert arrives(made, "new", version, 80, "a1") and not arrives(made, "new", version, 81, "a1")
    made.interpret()
    for target in ("b1", "n2"):
        assert arrives(made, "new", version, 80, target) and not arrives(made, "new", version, 81, target)


@FAMILIES
def test_answers_of_a_pod_that_nobody_has_heard_of_come_through(version: int) -> None:
    made = with_a_new_pod(ONE_PORT)
    assert arrives(made, "b1", version, 80, "new")
    node, new = made.pod("new")
    ends = (of_family(new.addresses, version), 80), (address(made, "b1", version), 40000)
    assert made.send(node, packets.tcp(new.port, (new.mac, OUT), *ends))


@FAMILIES
@pytest.mark.parametrize("action", [Action.DENY, Action.PASS])
def test_a_rule_that_keeps_pods_out_keeps_out_those_that_nobody_has_heard_of(action: Action, version: int) -> None:
    kept_out = (Rule(action, peers=(named("new"),)), Rule(Action.ACCEPT, peers=(EVERYBODY,)))
    made = with_a_new_pod(guard(named("b1"), ingress=kept_out), policy("b1", ingress=()))
    assert not arrives(made, "new", version) and arrives(made, "a1", version)
    made.interpret()
    assert not arrives(made, "new", version) and arrives(made, "a1", version)


#: Policies past which no unknown sender gets that a known one wouldn't.
HARMLESS = {
    "none": (),
    "of another receiver": (policy("a1", ingress=()),),
    "that accept": (policy("b1", ingress=(Rule(peers=(EVERYBODY,)),)),),
    "for every pod": (guard(EVERYBODY, egress=(Rule(Action.DENY, peers=(named("a1"),)),)),),
    "about addresses": (guard(named("b1"), ingress=(Rule(Action.DENY, peers=OF_WORLD),)),),
}


@FAMILIES
@pytest.mark.parametrize("policies", HARMLESS.values(), ids=HARMLESS)
def test_where_policies_say_the_same_of_everybody_a_new_pod_waits_for_nobody(
    policies: tuple[Policy, ...], version: int
) -> None:
    assert arrives(with_a_new_pod(*policies), "new", version)


# As flows -------------------------------------------------------------------------------------------------------------


def senders(compiler: Compiler) -> set[Flow]:
    """The flows of table Policy that ask who it is that comes by a tunnel."""
    from_tunnel = SOURCE(Source.TUNNEL)
    return {
        flow for flow in compiler.flows(CLUSTER) if flow.table == POLICY.number and flow.match[:1] == (from_tunnel,)
    }


def test_every_identity_has_one_flow_as_soon_as_the_first_policy_needs_it_and_until_the_last_one_goes() -> None:
    compiler = Compiler()
    switches = Switches(compiler)
    for each in (pod("a", 2), pod("b", 3), policy("a", ingress=())):
        switches.take(compiler.put(each))
    assert not senders(compiler)
    other = policy("b", egress=())
    changes: list[Step] = [put(ONE_PORT), put(other), lambda compiler: compiler.remove(ONE_PORT.key)]
    for change in changes:
        switches.take(change(compiler))
        assert_same_as_afresh(compiler, switches)
        # One for each identity, one for all others; the second policy adds none, and keeps them all.
        assert len(senders(compiler)) == 3
    switches.take(compiler.put(policy("b", ingress=())))
    assert not senders(compiler)
    assert_same_as_afresh(compiler, switches)


def test_a_new_identity_is_one_flow_more_and_further_pods_of_it_none() -> None:
    compiler = Compiler()
    compiler.put(ONE_PORT)
    (update,) = compiler.put(pod("a", 2))
    number = compiler.policies.identities.of_pod("default", "a")
    (flow,) = update.added
    assert SOURCE_IDENTITY(number) in flow.match[1:] and not update.removed
    second = Pod(namespace="default", name="another", node="n1", labels=(("name", "a"),))
    assert compiler.put(second) == compiler.remove(second.key) == []
    compiler.remove(("Pod", "default", "a"))
    (update,) = compiler.release([number])
    assert update == Update(CLUSTER, removed=(flow,))


def test_without_keys_nobody_is_asked_who_it_is() -> None:
    compiler = Compiler(keyed=False)
    before = set(compiler.flows(CLUSTER))
    compiler.put(ONE_PORT)
    assert set(compiler.flows(CLUSTER)) == before
