"""Every kind of the admin API's lists, with all that its rows have in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from controller import policy_views, topology_views, views
from controller.agent_reports import State as AgentState
from controller.lists import Field, Key, Kind, Row
from topology.discovery import State
from topology.graph import LinkKind
from topology.metadata import Labels
from topology.model import Cluster

if TYPE_CHECKING:
    from controller.app import Controller

_TEXT = {"type": "string"}
_NUMBER = {"type": "integer"}
_TEXTS = {"type": "array", "items": _TEXT}
_FLAG = {"type": "boolean"}
_LABELS = {"type": "object", "additionalProperties": _TEXT}
_SECONDS = {"type": ["number", "null"]}


def _maybe(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


_NODE = (
    Field("name", "The node.", _TEXT),
    Field("status", "How its switch is: Synced, Syncing, Reading, Standby or Disconnected.", _TEXT),
    Field("addresses", "Its addresses.", _TEXTS),
    Field("podCIDRs", "The CIDRs of its pods.", _TEXTS),
    Field("pods", "How many pods are attached to its bridge.", _NUMBER),
    Field("flows", "How many flows its switch is to have; null while it isn't connected.", _maybe(_NUMBER)),
    Field("datapathID", "Its bridge's datapath id, in hexadecimal.", _TEXT),
    Field("digest", "Digests of the flows of all nodes and of its own that it is to have.", _TEXT),
    Field("flowModsSent", "Flow and group changes that it was sent since it connected.", _NUMBER),
    Field("bundlesSent", "Bundles that it was sent since then.", _NUMBER),
    Field("refused", "Flows and groups that it refused since then.", _NUMBER),
    Field("repaired", "Flows that were found to be others than they should, and mended, since then.", _NUMBER),
    Field("lastBundleSeconds", "How long the last bundle took.", _SECONDS),
    Field("labels", "Its labels.", _LABELS),
    Field("drained", "Whether it gets no new work.", _FLAG),
    Field("master", "The replica that is its switch's master, where there are several.", _TEXT),
    Field("masterSince", "Since when.", _TEXT),
    Field(
        "agent",
        "How its agent is: Alive, Lost (it has said nothing for long), None (nobody has described its bridge), or "
        "Unknown (its switch isn't connected).",
        {"type": "string", "enum": [each.value for each in AgentState]},
    ),
    Field("agentVersion", "Its agent's version; empty where it isn't known.", _TEXT),
)
_POD = (
    Field("namespace", "Its namespace.", _TEXT),
    Field("name", "Its name.", _TEXT),
    Field("kind", "Pod or Workload.", _TEXT),
    Field(
        "status", "Ready, Syncing, Pending, Refused, Disconnected, Standby or HostNetwork: how its flows are.", _TEXT
    ),
    Field("addresses", "Its addresses.", _TEXTS),
    Field("node", "Its node.", _TEXT),
    Field("port", "Its port on the node's bridge.", _TEXT),
    Field("portNumber", "That port's OpenFlow number.", _maybe(_NUMBER)),
    Field("mac", "Its MAC address.", _maybe(_TEXT)),
    Field("reason", "Why it isn't as it should be.", _TEXT),
    Field("labels", "Its labels.", _LABELS),
)
_CARRIED = (
    Field("connections", "Connections that all switches have counted.", _NUMBER),
    Field("packets", "Packets.", _NUMBER),
    Field("bytes", "Bytes.", _NUMBER),
)
_SERVICE = (
    Field("namespace", "Its namespace.", _TEXT),
    Field("name", "Its name.", _TEXT),
    Field("type", "ClusterIP, NodePort, LoadBalancer or ExternalName.", _TEXT),
    Field("clusterIPs", "Its cluster addresses.", _TEXTS),
    Field("externalIPs", "Its load balancer's and external addresses.", _TEXTS),
    Field("announcedBy", "The nodes that answer for its load balancer's addresses.", _TEXTS),
    Field("ports", "PORT[:NODE-PORT]/PROTOCOL.", _TEXTS),
    Field("selector", "The labels of its pods, KEY=VALUE.", _TEXTS),
    Field("endpoints", "How many endpoints connections are sent to.", _NUMBER),
    Field("reason", "Why it doesn't have all that it is to have.", _TEXT),
)
_ENDPOINT = (
    Field("namespace", "The Service's namespace.", _TEXT),
    Field("name", "The Service's name.", _TEXT),
    Field("port", "Of which of its ports.", _TEXT),
    Field("address", "ADDRESS:PORT.", _TEXT),
    Field("status", "Ready, Serving, NotReady or Drained, and whether it is terminating.", _TEXT),
    Field("used", "Whether connections are sent there.", _FLAG),
    Field("pod", "Its pod.", _TEXT),
    Field("node", "Its node.", _TEXT),
    Field("zone", "Its zone.", _TEXT),
)
_IDENTITY = (
    Field("number", "What tunnels and flows know it by.", _NUMBER),
    Field("name", "The same as text.", _TEXT),
    Field("namespace", "Its pods' namespace.", _TEXT),
    Field("labels", "Their labels, KEY=VALUE.", _TEXTS),
    Field("ports", "Their named ports, NAME=PORT/PROTOCOL.", _TEXTS),
    Field("pods", "How many there are.", _NUMBER),
    Field("podNames", "Which.", _TEXTS),
    Field("status", "InUse or Idle.", _TEXT),
)
_POLICY = (
    Field("kind", "NetworkPolicy, AdminNetworkPolicy and so on.", _TEXT),
    Field("namespace", "Its namespace; empty if it is the cluster's.", _TEXT),
    Field("name", "Its name.", _TEXT),
    Field("tier", "Admin, NetworkPolicy or Baseline.", _TEXT),
    Field("priority", "Its priority within its tier.", _maybe(_NUMBER)),
    Field("subjects", "Whom it selects, in words.", _TEXT),
    Field("pods", "How many pods that are.", _NUMBER),
    Field("podNames", "Which, NAMESPACE/NAME.", _TEXTS),
    Field("directions", "Ingress, Egress or both.", _TEXTS),
    Field("ingress", "Its rules for what comes in, in words.", _TEXTS),
    Field("egress", "Its rules for what goes out, in words.", _TEXTS),
    Field("rules", "How many rules it has.", _NUMBER),
    Field("flows", "How many flows it has on each switch.", _NUMBER),
    Field("reason", "Why it isn't in force as it is written.", _TEXT),
)
_JUDGED = (
    *(
        Field(f"{direction}{what}", f"Packets that it has {done} there, on all switches.", _NUMBER)
        for direction in ("ingress", "egress")
        for what, done in (("Allowed", "let through"), ("Denied", "dropped"), ("Passed", "passed on to the next tier"))
    ),
    Field("allowed", "Packets that it has let through both ways.", _NUMBER),
    Field("denied", "Packets that it has dropped both ways.", _NUMBER),
)
_LINK = (
    Field("from", "A node.", _TEXT),
    Field("fromPort", "Its port.", _TEXT),
    Field("to", "Another node, or a network.", _TEXT),
    Field("toPort", "Its port.", _TEXT),
    Field("kind", f"{', '.join(each.value for each in LinkKind)}.", _TEXT),
    Field("cost", "What it costs to go there.", _NUMBER),
    Field("state", f"{', '.join(each.value for each in State)}.", _TEXT),
)
_PEER = (
    Field("name", "The peer's address.", _TEXT),
    Field("as", "Its autonomous system.", _NUMBER),
    Field("port", "Its TCP port.", _NUMBER),
    Field("state", "Established, Down or Standby.", _TEXT),
    Field("seconds", "For how long it has been established.", _maybe(_NUMBER)),
    Field("routes", "How many prefixes it was told.", _NUMBER),
    Field("addPath", "Whether it takes several next hops of a prefix.", _maybe(_FLAG)),
    Field("reason", "Why it isn't established.", _TEXT),
)
_OFFLOAD = (
    Field("node", "The node's name.", _TEXT),
    Field(
        "state",
        "InForce, Unavailable (asked for and not in force), Off or Unknown.",
        {"type": "string", "enum": ["InForce", "Unavailable", "Off", "Unknown"]},
    ),
    Field("asked", "Whether its agent was told --hw-offload on.", _maybe(_FLAG)),
    Field("capable", "Whether a NIC of it takes flows.", _maybe(_FLAG)),
    Field("enabled", "Whether Open vSwitch gives flows to NICs.", _maybe(_FLAG)),
    Field("nics", "NICs that take flows.", _maybe(_NUMBER)),
    Field("functions", "Their virtual functions.", _maybe(_NUMBER)),
    Field("functionsUsed", "Those that pods have.", _maybe(_NUMBER)),
    Field("flowsOffloaded", "Datapath flows that are in a NIC.", _maybe(_NUMBER)),
    Field("flowsPartial", "Those that are in part.", _maybe(_NUMBER)),
    Field("flowsNotOffloaded", "All others.", _maybe(_NUMBER)),
    Field("bytesPercent", "The share of bytes that went by flows in a NIC.", _maybe(_NUMBER)),
    Field("why", "The first thing in the way of more; empty where there is none.", _TEXT),
)
_ROUTE = (
    Field("name", "The prefix.", _TEXT),
    Field("nextHops", "Where it is reached.", _TEXTS),
    Field("owner", "What it is for.", _TEXT),
)
_EVENT = (
    Field(
        "number",
        "Another one for each event, and each time that one is counted up: the newest has the highest.",
        _NUMBER,
    ),
    Field("time", "When it happened last, in UTC.", _TEXT),
    Field("firstTime", "When it happened first.", _TEXT),
    Field("type", "Normal or Warning.", _TEXT),
    Field("reason", "What has happened, in one word.", _TEXT),
    Field("object", "What it is about: Pod default/web-0.", _TEXT),
    Field("node", "The node where it happened, if it was on one.", _TEXT),
    Field("message", "What has happened, in words.", _TEXT),
    Field("count", "How often.", _NUMBER),
)


class _Sorted:
    """The keys of a table in order, made anew after objects have changed."""

    def __init__(self, table: Mapping[Any, Any], change: Callable[[], int]) -> None:
        self._table, self._change = table, change
        self._of, self._keys = -1, list[Key]()

    def __call__(self) -> list[Key]:
        if (now := self._change()) != self._of:
            self._keys = sorted(key if isinstance(key, tuple) else (key,) for key in self._table)
            self._of = now
        return self._keys


def kinds(controller: Controller) -> dict[str, Kind]:
    """Every kind, by its name."""
    compiler, fleet, cluster = controller.compiler, controller.fleet, controller.compiler.cluster

    def change() -> int:
        return controller.changes_taken

    def names(keys: Sequence[Key]) -> Iterator[str]:
        return (name for (name,) in keys)

    def pod(key: Key) -> Mapping[str, str]:
        found = cluster.pods.get((key[0], key[1]))
        return {"namespace": key[0], "name": key[1]} | ({"node": found.node} if found is not None else {})

    def at_once(rows: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """Few rows, which are made together."""
        return {"by": 0, "keys": lambda: [()], "rows": lambda keys, counted: iter(rows() if keys else ())}

    all_kinds = (
        Kind(
            name="nodes",
            about="Every node, and how its switch and its agent are.",
            fields=_NODE,
            identity=("name",),
            by=1,
            keys=_Sorted(cluster.nodes, change),
            rows=lambda keys, _: views.nodes(compiler, fleet, controller.agents, controller.replica, names(keys)),
            labels=_labels(cluster, "Node"),
        ),
        Kind(
            name="pods",
            about="Every pod and workload, and whether its flows are in its switch.",
            fields=_POD,
            identity=("namespace", "name"),
            by=2,
            keys=_Sorted(cluster.pods, change),
            rows=lambda keys, _: views.pods(compiler, fleet, controller.replica, keys),
            known=pod,
            labels=_labels(cluster, "Pod"),
        ),
        Kind(
            name="services",
            about="Every Service.",
            fields=_SERVICE,
            identity=("namespace", "name"),
            by=2,
            keys=_Sorted(cluster.services, change),
            rows=lambda keys, counted: views.services(compiler, counted, keys),
            known=_names_of_service,
            count=controller.counting.services,
            counted=_CARRIED,
        ),
        Kind(
            name="endpoints",
            about="Every endpoint of every Service, for each of its ports.",
            fields=_ENDPOINT,
            identity=("namespace", "name", "port", "address"),
            by=2,
            keys=_Sorted(cluster.services, change),
            rows=lambda keys, counted: views.endpoints(compiler, counted, keys),
            known=_names_of_service,
            count=controller.counting.services,
            counted=_CARRIED,
        ),
        Kind(
            name="identities",
            about="Every identity, and whose it is.",
            fields=_IDENTITY,
            identity=("number",),
            by=1,
            keys=lambda: sorted((number,) for number in compiler.policies.identities),
            rows=lambda keys, _: policy_views.identities(compiler, (number for (number,) in keys)),
        ),
        Kind(
            name="policies",
            about="Every policy, its rules and whom it selects.",
            fields=_POLICY,
            identity=("kind", "namespace", "name"),
            by=3,
            keys=_Sorted(cluster.policies, change),
            rows=lambda keys, counted: policy_views.policies(compiler, counted, keys),
            nameless=lambda keys, counted: policy_views.policies(compiler, counted, keys, names=False),
            known=lambda key: dict(zip(("kind", "namespace", "name"), key, strict=True)),
            count=controller.counting.policies,
            counted=_JUDGED,
        ),
        Kind(
            name="links",
            about="Every link between nodes and networks.",
            fields=_LINK,
            identity=("from", "fromPort", "to", "toPort"),
            **at_once(lambda: topology_views.links(compiler, fleet, controller.links)),
        ),
        Kind(
            name="bgp",
            about="Every BGP peer.",
            fields=_PEER,
            identity=("name",),
            **at_once(lambda: controller.bgp.rows() if controller.bgp is not None else ()),
        ),
        Kind(
            name="routes",
            about="Every route that BGP peers are told.",
            fields=_ROUTE,
            identity=("name",),
            **at_once(lambda: controller.bgp.routes() if controller.bgp is not None else ()),
        ),
        Kind(
            name="offload",
            about="Every node: whether its NICs take flows, how many they have, and why not all of them.",
            fields=_OFFLOAD,
            identity=("node",),
            **at_once(controller.offloads.rows),
        ),
        Kind(
            name="events",
            about="What has happened of late, the newest last.",
            fields=_EVENT,
            identity=("number",),
            by=1,
            keys=lambda: [(number,) for number in controller.events.numbers()],
            rows=lambda keys, _: controller.events.rows(number for (number,) in keys),
        ),
    )
    return {each.name: each for each in all_kinds}


def _names_of_service(key: Key) -> Mapping[str, str]:
    return {"namespace": key[0], "name": key[1]}


def _labels(cluster: Cluster, kind: str) -> Callable[[Key], Labels]:
    def labels(key: Key) -> Labels:
        found = cluster.get((kind, *key) if len(key) == 2 else (kind, "", *key))
        return getattr(found, "labels", ())

    return labels
