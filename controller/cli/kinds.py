"""The kinds of objects that people ask for: what each is called, and which columns its rows are shown in."""

from __future__ import annotations

import click
import msgspec

from controller.cli.printing import Column, Row

NODE_COLUMNS = (
    Column("NAME", "name"),
    Column("STATUS", "status", state=True, marks={"drained": "Drained"}),
    Column("ADDRESSES", "addresses"),
    Column("POD-CIDRS", "podCIDRs"),
    Column("PODS", "pods"),
    Column("FLOWS", "flows", unknown="-"),
    Column("DATAPATH-ID", "datapathID", wide=True),
    Column("DIGEST", "digest", wide=True),
    Column("FLOW-MODS-SENT", "flowModsSent", wide=True),
    Column("MASTER", "master", wide=True),
    Column("AGENT", "agent", wide=True, state=True),
    Column("AGENT-VERSION", "agentVersion", wide=True),
)
_POD_COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("NAME", "name"),
    Column("STATUS", "status", state=True),
    Column("ADDRESSES", "addresses"),
    Column("NODE", "node"),
    Column("KIND", "kind", wide=True),
    Column("PORT", "port", wide=True),
    Column("PORT-NUMBER", "portNumber", wide=True),
    Column("MAC", "mac", wide=True),
    Column("REASON", "reason", wide=True),
)
_WORKLOAD_COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("NAME", "name"),
    Column("STATUS", "status", state=True),
    Column("ADDRESSES", "addresses"),
    Column("NODE", "node"),
    Column("PORT", "port"),
    Column("MAC", "mac"),
    Column("PORT-NUMBER", "portNumber", wide=True),
    Column("REASON", "reason", wide=True),
)
SERVICE_COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("NAME", "name"),
    Column("TYPE", "type"),
    Column("CLUSTER-IP", "clusterIPs"),
    Column("EXTERNAL-IP", "externalIPs"),
    Column("PORT(S)", "ports"),
    Column("ENDPOINTS", "endpoints"),
    Column("SELECTOR", "selector", wide=True),
    Column("ANNOUNCED-BY", "announcedBy", wide=True),
    Column("REASON", "reason", wide=True),
)
ENDPOINT_COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("NAME", "name"),
    Column("PORT", "port"),
    Column("ADDRESS", "address"),
    Column("STATUS", "status", state=True),
    Column("POD", "pod"),
    Column("NODE", "node"),
    Column("ZONE", "zone", wide=True),
    Column("USED", "used", wide=True),
)
_IDENTITY_COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("IDENTITY", "number"),
    Column("LABELS", "labels"),
    Column("PORTS", "ports"),
    Column("PODS", "pods"),
    Column("STATUS", "status", state=True),
    Column("POD-NAMES", "podNames", wide=True),
)
_POLICY_COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("KIND", "kind"),
    Column("NAME", "name"),
    Column("TIER", "tier", wide=True),
    Column("PRIORITY", "priority"),
    Column("SUBJECTS", "subjects"),
    Column("PODS", "pods"),
    Column("DIRECTIONS", "directions"),
    Column("RULES", "rules"),
    Column("FLOWS", "flows", wide=True),
    Column("INGRESS", "ingress", wide=True),
    Column("EGRESS", "egress", wide=True),
    Column("REASON", "reason", wide=True),
)
_VERDICT_COLUMNS = (Column("ALLOWED", "allowed"), Column("DENIED", "denied"))
COUNTER_COLUMNS = (Column("CONNECTIONS", "connections"), Column("PACKETS", "packets"), Column("BYTES", "bytes"))
_LINK_COLUMNS = (
    Column("FROM", "from"),
    Column("PORT", "fromPort"),
    Column("TO", "to"),
    Column("PORT", "toPort"),
    Column("KIND", "kind"),
    Column("COST", "cost"),
    Column("STATE", "state", state=True),
)
_BGP_COLUMNS = (
    Column("PEER", "name"),
    Column("AS", "as"),
    Column("STATE", "state", state=True),
    Column("SECONDS", "seconds"),
    Column("ROUTES", "routes"),
    Column("ADD-PATH", "addPath", wide=True),
    Column("REASON", "reason"),
)
_ROUTE_COLUMNS = (Column("PREFIX", "name"), Column("NEXT-HOPS", "nextHops"), Column("FOR", "owner"))

EVENT_COLUMNS = (
    Column("LAST-SEEN", "time"),
    Column("FIRST-SEEN", "firstTime", wide=True),
    Column("COUNT", "count"),
    Column("TYPE", "type", state=True),
    Column("REASON", "reason"),
    Column("OBJECT", "object"),
    Column("NODE", "node", wide=True),
    Column("MESSAGE", "message"),
)


class Kind(msgspec.Struct, frozen=True):
    """A kind: its name, other words for it as kubectl has them, the first of which is the singular, and its columns.

    `counters` are the columns that --counters adds, where its objects are counted.
    """

    name: str
    words: tuple[str, ...]
    columns: tuple[Column, ...]
    namespaced: bool = False
    counters: tuple[Column, ...] = ()
    #: Whether its objects have labels to select by.
    labelled: bool = False
    #: Whether a list of it can go on.
    watched: bool = False
    #: What its objects are, where its name doesn't say that.
    objects: str = ""

    @property
    def singular(self) -> str:
        return self.words[0] if self.words else self.name

    @property
    def title(self) -> str:
        """What its objects are, in a sentence."""
        return self.objects or self.name

    @property
    def asked(self) -> str:
        """What the controller calls it: workloads are pods, to the controller too."""
        return "pods" if self.name == "workloads" else self.name

    def has(self, row: Row) -> bool:
        """Whether a row of what is asked for is of this kind."""
        return self.name != "workloads" or row["kind"] == "Workload"


def end(text: str) -> str:
    """An end of a connection, as the controller is asked for it.

    KIND/NAME and KIND/NAMESPACE/NAME, with any word for pods, workloads, nodes or Services, are [NAMESPACE/]NAME,
    node/NAME and [NAMESPACE/]svc/NAME there; all else is as it was said.
    """
    found = _split(text)
    if found is None:
        return text
    kind, namespace, name = found
    return "/".join(filter(None, (namespace, _ENDS[kind], name)))


def pod_name(text: str) -> str:
    """A pod's or workload's NAMESPACE/NAME, of [KIND/][NAMESPACE/]NAME. Raises click.ClickException."""
    found = _split(text)
    if found is None:
        return text if "/" in text else f"default/{text}"
    kind, namespace, name = found
    if _ENDS[kind]:
        raise click.ClickException(f"{text}: a pod is asked for; say [NAMESPACE/]POD or pod/[NAMESPACE/]POD")
    return f"{namespace or 'default'}/{name}"


def node_name(text: str) -> str:
    """A node's name, of [node/]NAME."""
    found = _split(text)
    return found[2] if found is not None and found[0] == "nodes" and not found[1] else text


def _split(text: str) -> tuple[str, str, str] | None:
    """Kind, namespace and name of what can be an end; None where the text doesn't begin with such a kind."""
    word, _, rest = text.partition("/")
    known = BY_WORD.get(word.lower())
    namespace, _, name = rest.rpartition("/")
    return (known.name, namespace, name) if known is not None and known.name in _ENDS and name else None


def title(row: Row) -> str:
    """What an object is called: links, which have no name, by their ends, and events by their number."""
    return str(row.get("name") or row.get("number") or f"{row['from']}--{row['to']}")


KINDS = (
    Kind("nodes", ("node", "no"), NODE_COLUMNS, labelled=True, watched=True),
    Kind("pods", ("pod", "po"), _POD_COLUMNS, namespaced=True, labelled=True, watched=True),
    Kind("workloads", ("workload",), _WORKLOAD_COLUMNS, namespaced=True, labelled=True, watched=True),
    Kind("links", ("link",), _LINK_COLUMNS, watched=True),
    Kind("services", ("service", "svc"), SERVICE_COLUMNS, namespaced=True, counters=COUNTER_COLUMNS, watched=True),
    Kind("endpoints", ("endpoint", "ep"), ENDPOINT_COLUMNS, namespaced=True, counters=COUNTER_COLUMNS, watched=True),
    Kind("identities", ("identity", "id"), _IDENTITY_COLUMNS, namespaced=True),
    Kind(
        "policies",
        ("policy", "networkpolicies", "networkpolicy", "netpol", "clusternetworkpolicies", "cnp"),
        _POLICY_COLUMNS,
        namespaced=True,
        counters=_VERDICT_COLUMNS,
        watched=True,
    ),
    Kind("bgp", (), _BGP_COLUMNS, objects="BGP peers"),
    Kind("routes", ("route",), _ROUTE_COLUMNS),
    Kind("events", ("event", "ev"), EVENT_COLUMNS, watched=True),
)
#: By every word that there is for each.
BY_WORD = {word: kind for kind in KINDS for word in (kind.name, *kind.words)}
#: What ends of connections may be, and how the controller is told so.
_ENDS = {"pods": "", "workloads": "", "nodes": "node", "services": "svc"}
