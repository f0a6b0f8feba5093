"""A cluster full of policies, as the objects that the controller would have read: a mix as one might meet it.

Ten pods of four workloads in each namespace, twenty namespaces of a team. Per ten namespaces 75 policies: all pods are
isolated, and then one or two workloads at a time are allowed what they need - from another workload of the namespace,
from pods of the team's other namespaces, from the ingress controller and from monitoring, to addresses outside, to DNS.
Above and below these a few policies of the cluster.
"""

from collections.abc import Iterator
from ipaddress import IPv4Network

from topology.model import Namespace, Node, Object, Pod, labels_of
from topology.naming import Network
from topology.policies import Action, IpBlock, Peer, PodSet, Policy, PolicyPort, Rule, Tier
from topology.selectors import Operator, Requirement, Selector

#: Pods of each workload of a namespace: ten in all.
WORKLOADS = {"web": 3, "api": 3, "db": 1, "worker": 3}
PODS = sum(WORKLOADS.values())
TEAM = 20
#: Namespaces that all others have to do with, and the one workload in each.
SHARED = {"kube-system": "kube-dns", "ingress": "gateway", "monitoring": "prometheus"}
_STAGES = ("prod", "stage", "dev")
_TCP, _UDP = "TCP", "UDP"


def namespaces(number: int) -> list[Namespace]:
    """The shared ones, and so many of teams."""
    return [namespace(name) for name in (*SHARED, *map(name_of, range(number)))]


def name_of(index: int) -> str:
    return f"space-{index}"


def namespace(name: str, *, stage: str = "") -> Namespace:
    """A namespace by its name; `stage` in the place of the one that it has by its number."""
    labels = {"kubernetes.io/metadata.name": name}
    if name not in SHARED:
        index = int(name.rpartition("-")[2])
        labels |= {"team": f"team-{index // TEAM}", "stage": stage or _STAGES[index % len(_STAGES)]}
    return Namespace(name=name, labels=labels_of(labels))


def pods(number: int, nodes: int) -> Iterator[Pod]:
    """The pods of so many namespaces, over the nodes in turn."""
    place = 0
    for space, name in SHARED.items():
        for replica in range(3):
            yield pod(space, name, replica, place % nodes)
            place += 1
    for index in range(number):
        for name, replicas in WORKLOADS.items():
            for replica in range(replicas):
                yield pod(name_of(index), name, replica, place % nodes)
                place += 1


def pod(space: str, workload: str, replica: int, home: int, *, version: str = "v1") -> Pod:
    """A pod of a workload, as a Deployment would have made it."""
    labels = {"app": workload, "version": version, "pod-template-hash": f"{hash_of(space, workload):08x}"}
    return Pod(namespace=space, name=f"{workload}-{replica}", node=f"node-{home}", labels=labels_of(labels))


def hash_of(*words: str) -> int:
    """A number for words that is the same in every process."""
    return int.from_bytes("/".join(words).encode(), "big") % 0xFFFF_FFFB


# Policies -------------------------------------------------------------------------------------------------------------


def policies(number: int) -> list[Policy]:
    """All policies of so many namespaces and of the cluster: 75 for each ten namespaces."""
    of_cluster = cluster_policies(number)
    mine = [each for index in range(number) for each in policies_of(index)]
    return mine[: number * 75 // 10 - len(of_cluster)] + of_cluster


def labelled(key: str, *values: str) -> Selector:
    """Who has one of these values of a label."""
    return (Requirement(key, Operator.IN, values),)


def in_space(space: str) -> Selector:
    """The namespace of this name."""
    return labelled("kubernetes.io/metadata.name", space)


def port(number: int, protocol: str = _TCP) -> PolicyPort:
    """One port."""
    return PolicyPort(protocol, number)


def policies_of(index: int) -> list[Policy]:
    """Eight for a namespace of an even number, seven for others."""
    space = name_of(index)
    team = labelled("team", f"team-{index // TEAM}")
    outside: Network = IPv4Network((0xC633_0000 + (index % 256 << 8), 24))
    part = IPv4Network((int(outside.network_address) + 16, 28))
    found = [
        Policy(namespace=space, name="isolated", subjects=PodSet((), space), ingress=()),
        allow(space, "web-from-ingress", ("web",), [PodSet(namespaces=in_space("ingress"))], port(8080)),
        allow(space, "api-from-web", ("api",), [PodSet(labelled("app", "web"), space)], port(8080)),
        allow(space, "db-from-api", ("db",), [PodSet(labelled("app", "api"), space)], port(5432)),
        allow(space, "metrics", ("api", "web"), [PodSet(namespaces=in_space("monitoring"))], port(9090)),
        allow(space, "worker-outside", ("worker",), [IpBlock(outside, (part,))], port(443), egress=True),
        allow(
            space, "api-from-team", ("api",), [PodSet(labelled("app", "web"), namespaces=team)], port(8080), port(8443)
        ),
    ]
    if index % 2 == 0:
        dns = PodSet(labelled("app", SHARED["kube-system"]), namespaces=in_space("kube-system"))
        found.append(allow(space, "worker-dns", ("worker",), [dns], port(53), port(53, _UDP), egress=True))
    return found


def allow(
    space: str, name: str, workloads: tuple[str, ...], peers: list[Peer], *ports: PolicyPort, egress: bool = False
) -> Policy:
    """A NetworkPolicy of one rule."""
    rules = (Rule(peers=tuple(peers), ports=ports),)
    return Policy(
        namespace=space,
        name=name,
        subjects=PodSet(labelled("app", *workloads), space),
        ingress=None if egress else rules,
        egress=rules if egress else None,
    )


def cluster_policies(number: int) -> list[Policy]:
    """Twenty of the cluster: what administrators decide for all, and what holds where nobody says anything."""
    everybody = PodSet()
    dns = PodSet(labelled("app", SHARED["kube-system"]), namespaces=in_space("kube-system"))
    prod, dev = PodSet(namespaces=labelled("stage", "prod")), PodSet(namespaces=labelled("stage", "dev"))
    cloud = IpBlock(IPv4Network("169.254.169.254/32"))
    found = [
        _of_cluster("metrics", 10, everybody, ingress=Rule(peers=(PodSet(namespaces=in_space("monitoring")),),
                    ports=(port(9090),))),
        _of_cluster("dns", 11, everybody, egress=Rule(peers=(dns,), ports=(port(53, _UDP), port(53)))),
        _of_cluster("no-cloud-metadata", 12, everybody, egress=Rule(Action.DENY, (cloud,))),
        _of_cluster("no-dev-in-prod", 20, prod, ingress=Rule(Action.DENY, (dev,))),
        _of_cluster("prod-is-closed", 10, prod, ingress=Rule(Action.DENY, (everybody,)), tier=Tier.BASELINE),
    ]  # fmt: skip
    for each in range(20 - len(found)):
        theirs, others = (labelled("team", f"team-{(each * 7 + of) % max(1, number // TEAM)}") for of in (0, 1))
        rule = Rule(Action.DENY, (PodSet(namespaces=others),), (port(5432),))
        found.append(_of_cluster(f"apart-{each}", 30 + each, PodSet(namespaces=theirs), ingress=rule))
    return found


def _of_cluster(
    name: str,
    priority: int,
    subjects: PodSet,
    *,
    ingress: Rule | None = None,
    egress: Rule | None = None,
    tier: Tier = Tier.ADMIN,
) -> Policy:
    return Policy(
        kind="ClusterNetworkPolicy",
        name=name,
        tier=tier,
        priority=priority,
        subjects=subjects,
        ingress=None if ingress is None else (ingress,),
        egress=None if egress is None else (egress,),
    )


def everything(spaces: int, nodes: list[Node]) -> list[Object]:
    """All objects: nodes, namespaces, pods, policies."""
    return [*nodes, *namespaces(spaces), *pods(spaces, len(nodes)), *policies(spaces)]
