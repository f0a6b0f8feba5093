"""signalbox get, flows, policy, status: read-only questions to a running controller."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from controller.cli.printing import Column, Row, print_rows
from controller.cli.questions import ask, dump, output_option, socket_options

NODE_COLUMNS = [
    Column("NAME", "name"),
    Column("STATUS", "status"),
    Column("ADDRESSES", "addresses"),
    Column("POD-CIDRS", "podCIDRs"),
    Column("PODS", "pods"),
    Column("FLOWS", "flows"),
    Column("DATAPATH-ID", "datapathID", wide=True),
    Column("DIGEST", "digest", wide=True),
    Column("FLOW-MODS-SENT", "flowModsSent", wide=True),
    Column("MASTER", "master", wide=True),
]
_POD_COLUMNS = [
    Column("NAMESPACE", "namespace"),
    Column("NAME", "name"),
    Column("STATUS", "status"),
    Column("ADDRESSES", "addresses"),
    Column("NODE", "node"),
    Column("KIND", "kind", wide=True),
    Column("PORT", "port", wide=True),
    Column("PORT-NUMBER", "portNumber", wide=True),
    Column("MAC", "mac", wide=True),
    Column("REASON", "reason", wide=True),
]
_WORKLOAD_COLUMNS = [
    Column("NAMESPACE", "namespace"),
    Column("NAME", "name"),
    Column("STATUS", "status"),
    Column("ADDRESSES", "addresses"),
    Column("NODE", "node"),
    Column("PORT", "port"),
    Column("MAC", "mac"),
    Column("PORT-NUMBER", "portNumber", wide=True),
    Column("REASON", "reason", wide=True),
]
SERVICE_COLUMNS = [
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
]
ENDPOINT_COLUMNS = [
    Column("NAMESPACE", "namespace"),
    Column("NAME", "name"),
    Column("PORT", "port"),
    Column("ADDRESS", "address"),
    Column("STATUS", "status"),
    Column("POD", "pod"),
    Column("NODE", "node"),
    Column("ZONE", "zone", wide=True),
    Column("USED", "used", wide=True),
]
_IDENTITY_COLUMNS = [
    Column("NAMESPACE", "namespace"),
    Column("IDENTITY", "number"),
    Column("LABELS", "labels"),
    Column("PORTS", "ports"),
    Column("PODS", "pods"),
    Column("STATUS", "status"),
    Column("POD-NAMES", "podNames", wide=True),
]
_POLICY_COLUMNS = [
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
]
_VERDICT_COLUMNS = [Column("ALLOWED", "allowed"), Column("DENIED", "denied")]
COUNTER_COLUMNS = [Column("CONNECTIONS", "connections"), Column("PACKETS", "packets"), Column("BYTES", "bytes")]
_LINK_COLUMNS = [
    Column("FROM", "from"),
    Column("PORT", "fromPort"),
    Column("TO", "to"),
    Column("PORT", "toPort"),
    Column("KIND", "kind"),
    Column("COST", "cost"),
    Column("STATE", "state"),
]
_BGP_COLUMNS = [
    Column("PEER", "name"),
    Column("AS", "as"),
    Column("STATE", "state"),
    Column("SECONDS", "seconds"),
    Column("ROUTES", "routes"),
    Column("ADD-PATH", "addPath", wide=True),
    Column("REASON", "reason"),
]
_ROUTE_COLUMNS = [Column("PREFIX", "name"), Column("NEXT-HOPS", "nextHops"), Column("FOR", "owner")]
_FLOW_COLUMNS = [
    Column("TABLE", "table"),
    Column("PRIORITY", "priority"),
    Column("PACKETS", "packets"),
    Column("OBJECT", "object"),
    Column("FLOW", "words"),
]
#: Singular and short forms, as kubectl has them.
_KINDS = {"nodes": "nodes", "node": "nodes", "no": "nodes", "pods": "pods", "pod": "pods", "po": "pods"}
_KINDS |= {"workloads": "workloads", "workload": "workloads"}
_KINDS |= {"links": "links", "link": "links"}
_KINDS |= {"services": "services", "service": "services", "svc": "services"}
_KINDS |= {"endpoints": "endpoints", "endpoint": "endpoints", "ep": "endpoints"}
_KINDS |= {"identities": "identities", "identity": "identities", "id": "identities"}
_KINDS |= {"policies": "policies", "policy": "policies"}
_KINDS |= dict.fromkeys(("networkpolicies", "networkpolicy", "netpol", "clusternetworkpolicies", "cnp"), "policies")
_KINDS |= {"bgp": "bgp", "routes": "routes", "route": "routes"}
#: Kinds whose objects are in namespaces.
_NAMESPACED = ("pods", "workloads", "services", "endpoints", "identities", "policies")
_SINGULAR = {"identities": "identity", "policies": "policy", "bgp": "bgp"}
#: What --counters adds.
_COUNTED = {"services": COUNTER_COLUMNS, "endpoints": COUNTER_COLUMNS, "policies": _VERDICT_COLUMNS}


@click.command()
@click.argument("kind", metavar="nodes|pods|services|endpoints|policies|identities|links|bgp|routes")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("-n", "--namespace", default="default", show_default=True, help="The objects' namespace.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of every namespace.")
@click.option("--counters", is_flag=True, help="What all switches together have counted for each.")
@output_option("table", "wide", "json", "yaml", "name")
@socket_options
def get(
    kind: str,
    names: tuple[str, ...],
    namespace: str,
    all_namespaces: bool,
    counters: bool,
    output: str,
    socket_path: Path | None,
    lab: str | None,
) -> None:
    """List nodes, pods, workloads, Services, endpoints, policies, identities, links, or BGP's peers and routes."""
    known = _KINDS.get(kind.lower())
    if known is None:
        raise click.ClickException(
            f"there is no kind {kind!r}; the kinds are {', '.join(dict.fromkeys(_KINDS.values()))}"
        )
    if counters and known not in _COUNTED:
        raise click.ClickException(f"--counters: {known} have none; services, endpoints and policies do")
    # Workloads are pods, to the controller too.
    asked = "pods" if known == "workloads" else known
    answer = ask(socket_path, lab, asked, **({"counters": "1"} if counters else {}))
    rows: list[Row] = answer["items"]
    if answer.get("missing"):
        click.echo(f"nothing is counted of {', '.join(answer['missing'])}: no answer in time", err=True)
    if known == "workloads":
        rows = [row for row in rows if row["kind"] == "Workload"]
    columns = {
        "nodes": NODE_COLUMNS,
        "pods": _POD_COLUMNS,
        "workloads": _WORKLOAD_COLUMNS,
        "services": SERVICE_COLUMNS,
        "endpoints": ENDPOINT_COLUMNS,
        "identities": _IDENTITY_COLUMNS,
        "policies": _POLICY_COLUMNS,
        "links": _LINK_COLUMNS,
        "bgp": _BGP_COLUMNS,
        "routes": _ROUTE_COLUMNS,
    }[known] + (_COUNTED[known] if counters else [])
    if known in _NAMESPACED and not all_namespaces:
        # Policies of the cluster are in no namespace, and concern all.
        rows = [row for row in rows if row["namespace"] in (namespace, "")]
        columns = [column for column in columns if column.key != "namespace"]
    if names:
        rows = [row for row in rows if row.get("name") in names]
        found = {row["name"] for row in rows}
        if missing := [repr(name) for name in names if name not in found]:
            where = f" in namespace {namespace}" if known in _NAMESPACED and not all_namespaces else ""
            raise click.ClickException(f"{known} {', '.join(missing)} not found{where}")
    if output == "name":
        for row in rows:
            click.echo(f"{_SINGULAR.get(known, known[:-1])}/{row.get('name') or row['from'] + '--' + row['to']}")
    elif not rows and output in ("table", "wide"):
        where = f" in {namespace} namespace" if known in _NAMESPACED and not all_namespaces else ""
        click.echo(f"No {known} found{where}.", err=True)
    else:
        print_rows(rows, columns, output)


@click.command()
@click.argument("node")
@click.option("--pod", metavar="[NAMESPACE/]NAME", help="Only flows made for this pod.")
@click.option("--service", metavar="[NAMESPACE/]NAME", help="Only flows made for this Service.")
@click.option(
    "--policy",
    metavar="[NAMESPACE/]NAME",
    help="Only flows made for this policy: of the cluster, or of namespace default where none is given.",
)
@click.option("--table", "table_name", metavar="NAME|NUMBER", help="Only flows of this table.")
@output_option("table", "ofctl", "json", "yaml")
@socket_options
def flows(
    node: str,
    pod: str | None,
    service: str | None,
    policy: str | None,
    table_name: str | None,
    output: str,
    socket_path: Path | None,
    lab: str | None,
) -> None:
    """Show a node's flows as its switch has them, in words: which object made each, what it matches and does."""
    query = {}
    if pod is not None:
        query["pod"] = pod if "/" in pod else f"default/{pod}"
    if service is not None:
        query["service"] = service if "/" in service else f"default/{service}"
    if policy is not None:
        query["policy"] = policy
    if table_name is not None:
        query["table"] = table_name
    rows: list[Row] = ask(socket_path, lab, "nodes", node, "flows", **query)["items"]
    if output == "ofctl":
        for row in rows:
            click.echo(row["ofctl"])
    else:
        print_rows(rows, _FLOW_COLUMNS, output)


@click.group()
def policy() -> None:
    """Questions about network policies."""


@policy.command()
@click.argument("source")
@click.argument("destination")
@click.option("--tcp", type=click.IntRange(1, 65535), metavar="PORT", help="A TCP connection to this port.")
@click.option("--udp", type=click.IntRange(1, 65535), metavar="PORT", help="UDP to this port.")
@click.option("--sctp", type=click.IntRange(1, 65535), metavar="PORT", help="SCTP to this port.")
@click.option("--icmp", is_flag=True, help="A ping.")
@click.option("-6", "ipv6", is_flag=True, help="Over IPv6.")
@output_option("text", "json", "yaml")
@socket_options
def check(
    source: str,
    destination: str,
    tcp: int | None,
    udp: int | None,
    sctp: int | None,
    icmp: bool,
    ipv6: bool,
    output: str,
    socket_path: Path | None,
    lab: str | None,
) -> None:
    """Say whether SOURCE may reach DESTINATION, and which rule says so; the exit code is 1 where it may not.

    Each is [NAMESPACE/]POD, node/NAME or an IP address.
    """
    asked = [(name, port) for name, port in (("TCP", tcp), ("UDP", udp), ("SCTP", sctp)) if port is not None]
    asked += [("ICMP", 0)] if icmp else []
    if len(asked) != 1:
        raise click.UsageError("give one of --tcp PORT, --udp PORT, --sctp PORT and --icmp")
    ((protocol, port),) = asked
    query = {"from": source, "to": destination, "protocol": protocol, "port": str(port)}
    answer = ask(socket_path, lab, "policy-check", **query, **({"family": "6"} if ipv6 else {}))
    if output != "text":
        dump(answer, output)
    else:
        way = protocol + (f" port {port}" if port else "")
        word = "ALLOWED" if answer["allowed"] else "DENIED"
        click.echo(f"{answer['source']} to {answer['destination']}, {way}: {word}")
        for step in answer["steps"]:
            click.echo(f"- {step}")
    if not answer["allowed"]:
        raise SystemExit(1)


@click.command()
@output_option("text", "json", "yaml")
@socket_options
def status(output: str, socket_path: Path | None, lab: str | None) -> None:
    """Say whether everything is in order; the exit code is 1 where something isn't."""
    answer = ask(socket_path, lab, "status")
    if output != "text":
        dump(answer, output)
    else:
        standby = answer.get("nodesInStandby", 0)
        others = f", {standby} of other replicas" if standby else ""
        click.echo(
            f"{answer['nodesInSync']} of {answer['nodes']} nodes in sync{others}, {answer['pods']} pods attached"
        )
        for line in _replica_lines(answer.get("replica")):
            click.echo(line)
        if bgp := answer.get("bgp"):
            told = f"{bgp['established']} of {bgp['peers']} peers up, {bgp['routes']} route{'s' * (bgp['routes'] != 1)}"
            click.echo(f"BGP: {told if bgp['announces'] else 'another replica announces'}")
        for problem in answer["problems"]:
            click.echo(f"- {problem}")
        for row in answer["refusedPeers"]:
            times = f"{row['count']} times, last " if row["count"] > 1 else ""
            click.echo(f"refused: {row['peer']}, {times}{row['secondsAgo']} s ago: {row['reason']}")
    if not answer["healthy"]:
        raise SystemExit(1)


def _replica_lines(replica: Any) -> Iterator[str]:
    """Who is master of what and since when, a line for each replica."""
    if replica is None:
        return
    yield f"this is {replica['name']}; replicas: {len(replica['replicas'])}"
    for each in replica["replicas"]:
        mine = [row for row in replica["shards"] if row["master"] == each["name"]]
        following = "" if each["ready"] else " (following, not given shards yet)"
        if not mine:
            yield f"{each['name']}: standby{following}"
            continue
        nodes = sum(row["nodes"] for row in mine)
        what = f"{nodes} node{'s' * (nodes != 1)}, shards {', '.join(str(row['shard']) for row in mine)}"
        since = max(row["since"] for row in mine)
        yield f"{each['name']}: master of {what}, the last of them since {since}{following}"
