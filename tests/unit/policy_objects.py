"""Hypothesis strategies for policies as values, and for the pods, namespaces and nodes that they may be about.

Few names and labels, so that policies want the same flows, selections change, and numbers and priorities meet.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import strategies as st

from topology.model import ContainerPort, Namespace, Node, Pod
from topology.policies import (
    Action,
    IpBlock,
    NodeSet,
    Peer,
    PodSet,
    Policy,
    PolicyPort,
    Rule,
    Tier,
)
from topology.selectors import Operator, Requirement, Selector

#: One is the beginning of another: keys and titles of policies sort in different ways.
NAMESPACES, NAMES = ("a", "a-b"), ("p", "p-1", "q")
HASH = "pod-template-hash"

flags = st.booleans()


def has(key: str, *values: str) -> Requirement:
    return Requirement(key, Operator.IN, values)


_POD_SELECTORS: list[Selector] = [
    (),
    (has("app", "x"),),
    (has("app", "y", "z"),),
    (Requirement("app", Operator.NOT_IN, ("x",)),),
    (has(HASH, "1"),),
    (Requirement(HASH, Operator.DOES_NOT_EXIST), has("app", "x")),
]
_NAMESPACE_SELECTORS: list[Selector] = [(), (has("team", "red"),), (Requirement("team", Operator.EXISTS),)]

pod_selectors = st.sampled_from(_POD_SELECTORS)
of_namespace = st.builds(PodSet, pod_selectors, st.sampled_from(NAMESPACES))
of_cluster = st.builds(PodSet, pod_selectors, st.just(""), st.sampled_from(_NAMESPACE_SELECTORS))
blocks = st.sampled_from(
    [
        IpBlock(ip_network("0.0.0.0/0")),
        IpBlock(ip_network("::/0"), (ip_network("2001:db8::/32"),)),
        IpBlock(ip_network("10.0.0.0/8"), (ip_network("10.244.0.0/16"), ip_network("10.96.0.0/12"))),
        IpBlock(ip_network("192.0.2.0/24")),
        IpBlock(ip_network("192.0.2.7/32")),
    ]
)
node_sets = st.builds(NodeSet, st.sampled_from([(), (has("zone", "east"),)]))
peers: st.SearchStrategy[Peer] = of_namespace | of_cluster | blocks | node_sets
ports = st.sampled_from(
    [
        PolicyPort("TCP", 80),
        PolicyPort("UDP"),
        PolicyPort("TCP", 1000, 2999),
        PolicyPort("SCTP", 9, 9),
        PolicyPort("TCP", "http"),
        PolicyPort("", "http"),
        PolicyPort("UDP", "dns"),
    ]
)


def _up_to(elements: st.SearchStrategy[object], most: int) -> st.SearchStrategy[object]:
    return st.none() | st.lists(elements, max_size=most, unique=True).map(tuple)


def rules(actions: st.SearchStrategy[Action]) -> st.SearchStrategy[tuple[Rule, ...] | None]:
    one = st.builds(Rule, actions, _up_to(peers, 3), _up_to(ports, 2))
    return st.none() | st.lists(one, max_size=3).map(tuple)


network_policies = st.builds(
    lambda namespace, name, pods, ingress, egress: Policy(
        namespace=namespace, name=name, subjects=PodSet(pods, namespace), ingress=ingress, egress=egress
    ),
    st.sampled_from(NAMESPACES),
    st.sampled_from(NAMES),
    pod_selectors,
    rules(st.just(Action.ACCEPT)),
    rules(st.just(Action.ACCEPT)),
)
cluster_policies = st.builds(
    lambda kind, name, tier, priority, pods, ingress, egress: Policy(
        kind=kind, name=name, tier=tier, priority=priority, subjects=pods, ingress=ingress, egress=egress
    ),
    st.sampled_from(["AdminNetworkPolicy", "ClusterNetworkPolicy"]),
    st.sampled_from(NAMES),
    st.sampled_from([Tier.ADMIN, Tier.ADMIN, Tier.BASELINE]),
    st.sampled_from([0, 7, 1000]),
    of_cluster,
    rules(st.sampled_from(Action)),
    rules(st.sampled_from(Action)),
)
policies = network_policies | cluster_policies
policy_keys = st.tuples(st.just("NetworkPolicy"), st.sampled_from(NAMESPACES), st.sampled_from(NAMES)) | st.tuples(
    st.sampled_from(["AdminNetworkPolicy", "ClusterNetworkPolicy"]), st.just(""), st.sampled_from(NAMES)
)

pods = st.builds(
    lambda namespace, name, node, labels, ports, host_network: Pod(
        namespace=namespace, name=name, node=node, labels=tuple(sorted(labels.items())), ports=ports,
        host_network=host_network,
    ),
    st.sampled_from(NAMESPACES),
    st.sampled_from(["one", "two", "three", "four"]),
    st.sampled_from(["", "n1", "n2"]),
    st.fixed_dictionaries({}, optional={"app": st.sampled_from(["x", "y", "z"]), HASH: st.sampled_from(["1", "2"])}),
    st.sampled_from(
        [
            (),
            (ContainerPort(port=80, name="http"),),
            (ContainerPort(port=8080, name="http"), ContainerPort(port=53, name="dns", protocol="UDP")),
        ]
    ),
    st.sampled_from([False] * 7 + [True]),
)  # fmt: skip
pod_names = st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(["one", "two", "three", "four"]))
namespaces = st.builds(
    lambda name, labels: Namespace(name=name, labels=labels),
    st.sampled_from(NAMESPACES),
    st.sampled_from([(), (("team", "blue"),), (("team", "red"),)]),
)


def _node(number: int, zone: str, address: int) -> Node:
    return Node(
        name=f"n{number}",
        addresses=(ip_address(f"172.30.0.{address}"),),
        pod_cidrs=(ip_network(f"10.244.{number}.0/24"),),
        labels=(("zone", zone),) if zone else (),
    )


nodes = st.builds(_node, st.integers(1, 2), st.sampled_from(["", "east", "west"]), st.integers(1, 3))


def policy(name: str = "p", **changes: object) -> Policy:
    """A NetworkPolicy of namespace a that selects app=x, unless said otherwise."""
    given = {"namespace": "a", "subjects": PodSet((has("app", "x"),), "a"), **changes}
    return Policy(name=name, **given)  # type: ignore[arg-type]


def pod(name: str, namespace: str = "a", ports: tuple[ContainerPort, ...] = (), **labels: str) -> Pod:
    return Pod(namespace=namespace, name=name, labels=tuple(sorted(labels.items())), ports=ports)
