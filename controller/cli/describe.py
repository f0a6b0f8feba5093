"""signalbox describe: all that is to be said of an object: what it is, who has to do with it, what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from controller.cli import completing, listing
from controller.cli.kinds import EVENT_COLUMNS, KINDS, title
from controller.cli.listing import Target, Wanted
from controller.cli.printing import Column, Row, in_colour, printable, table_of
from controller.cli.questions import ask, socket_options

#: A heading with a line, several lines, or a table of rows.
Value = str | list[str] | tuple[Sequence[Row], Sequence[Column]]
Part = tuple[str, Value]

_BY_NAME = {kind.name: kind for kind in KINDS}
#: The newest events that are shown.
_EVENTS = 20


class Asking:
    """Rows that are asked for once, however many objects they are told with."""

    def __init__(self, socket_path: Path | None, lab: str | None) -> None:
        self._socket_path, self._lab = socket_path, lab
        self._known: dict[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], Any] = {}

    def answer(self, *resource: str, **query: str) -> Any:
        """What the controller answers. Raises click.ClickException."""
        key = resource, tuple(sorted(query.items()))
        if key not in self._known:
            self._known[key] = ask(self._socket_path, self._lab, *resource, **query)
        return self._known[key]

    def rows(self, *resource: str, **query: str) -> list[Row]:
        """The rows of a list."""
        found: list[Row] = self.answer(*resource, **query)["items"]
        return found


@click.command()
@click.argument(
    "words", metavar="KIND [NAME]... | KIND/NAME...", nargs=-1, required=True, shell_complete=completing.objects
)
@listing.choosing
@click.option("-l", "--selector", default="", metavar="LABELS", help="Only objects with such labels.")
@socket_options
def describe(
    words: tuple[str, ...],
    namespace: str,
    all_namespaces: bool,
    selector: str,
    socket_path: Path | None,
    lab: str | None,
) -> None:
    """Show all that there is to say of objects: what each is, who has to do with it, and what happened to it of late.

    Of a pod also the Services that it is an endpoint of, the policies that select it and its flows; of a node its pods
    and links, and what is wrong with it; of a Service its endpoints.
    """
    wanted = Wanted("" if all_namespaces else namespace, selector)
    asking, complaints, number = Asking(socket_path, lab), [], 0
    for target in listing.targets(words):
        listing.check(target, wanted)
        rows = listing.rows(socket_path, lab, target, wanted)
        for each in _objects(target, rows):
            if number:
                click.echo("\n")
            number += 1
            click.echo("\n".join(_text(list(_DESCRIBED.get(target.kind.name, _plain)(each, asking)))))
        if complaint := listing.missing(target, rows, wanted):
            complaints.append(complaint)
        elif not rows:
            complaints.append(f"no {target.kind.name} found")
    if complaints:
        raise click.ClickException("; ".join(complaints))


def _objects(target: Target, rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows of each object: endpoints have several, which are of one Service."""
    if target.kind.name != "endpoints":
        yield from ([row] for row in rows)
        return
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["namespace"], row["name"]), []).append(row)
    yield from found.values()


# Kinds --------------------------------------------------------------------------------------------------------------


def _node(rows: list[Row], asking: Asking) -> Iterator[Part]:
    (row,) = rows
    name = row["name"]
    yield from _fields(row, Name="name", Status="status", Labels="labels", Addresses="addresses")
    yield from _fields(row, **{"Pod CIDRs": "podCIDRs", "Datapath ID": "datapathID", "Digest": "digest"})
    if row.get("master"):
        yield "Master", f"{row['master']}, since {row['masterSince']}"
    yield from _fields(row, **{"Agent Version": "agentVersion"})
    yield "Conditions", (list(_conditions(row)), _CONDITION_COLUMNS)
    took = "" if not row["bundlesSent"] else f", the last in {row['lastBundleSeconds'] * 1000:.1f} ms"
    yield "Flows", "unknown" if row["flows"] is None else f"{row['flows']} it should have"
    yield "Sent", f"{row['flowModsSent']} changes in {row['bundlesSent']} bundles since it connected{took}"
    yield "Refused", str(row["refused"])
    yield "Repaired", str(row["repaired"])
    yield "Pods", _table(asking.rows("pods", fieldSelector=f"node={name}"), "pods", without=("node",))
    links = [*asking.rows("links", fieldSelector=f"from={name}"), *asking.rows("links", fieldSelector=f"to={name}")]
    yield "Links", _table(links, "links")
    problems = [text for text in asking.answer("status")["problems"] if text.startswith(f"node {name}:")]
    yield "Problems", _words(problems)
    yield _events(asking, f"node={name}")


_CONDITION_COLUMNS = (Column("TYPE", "type"), Column("STATUS", "status"), Column("REASON", "reason"))

#: What there is to say of an agent that isn't simply alive.
_AGENTS = {
    "Alive": "",
    "Lost": "it says nothing any more: pods can't be added or removed",
    "None": "nobody has described the bridge: it has no agent",
    "Unknown": "nothing is known of it",
}


def _conditions(row: Row) -> Iterator[Row]:
    """What is true of a node's switch and agent, and why something isn't."""
    status = row["status"]
    connected = status != "Disconnected"
    yield _condition("Connected", connected, "" if connected else "its switch isn't connected")
    reasons = {
        "Synced": "",
        "Standby": f"replica {row.get('master') or 'nobody'} sees to it",
        "Disconnected": "what it holds isn't known",
    }
    yield _condition("InSync", status == "Synced", reasons.get(status, "changes are on their way"))
    yield _condition("NothingRefused", not row["refused"], f"refused: {row['refused']}" if row["refused"] else "")
    if "agent" in row:
        agent = row["agent"]
        yield _condition("AgentAlive", agent == "Alive" if agent in ("Alive", "Lost") else None, _AGENTS.get(agent, ""))
    if "drained" in row:
        yield _condition("Drained", row["drained"], "it gets no new work" if row["drained"] else "")


def _condition(kind: str, holds: bool | None, reason: str) -> Row:
    """A condition; None where it isn't known whether it holds."""
    return {"type": kind, "status": "Unknown" if holds is None else str(holds), "reason": reason}


def _pod(rows: list[Row], asking: Asking) -> Iterator[Part]:
    (row,) = rows
    namespace, name, node = row["namespace"], row["name"], row["node"]
    yield from _fields(row, Name="name", Namespace="namespace", Kind="kind", Status="status", Reason="reason")
    yield from _fields(row, Labels="labels", Addresses="addresses", Node="node", Port="port")
    yield from _fields(row, **{"Port Number": "portNumber", "MAC": "mac"})
    identities = [each for each in asking.rows("identities", namespace=namespace) if name in each["podNames"]]
    yield "Identity", ", ".join(f"{each['number']} ({_identity_words(each)})" for each in identities)
    backed = [each for each in asking.rows("endpoints", namespace=namespace) if each["pod"] == name]
    yield "Services", _table(backed, "endpoints", without=("pod", "node", "namespace"))
    yield "Policies", _policies_of(asking, namespace, {f"{namespace}/{name}"})
    if node:
        yield f"Flows on {node}", _flow_counts(asking, node, f"{namespace}/{name}")
    yield _events(asking, f"object={row['kind']} {namespace}/{name}")


def _flow_counts(asking: Asking, node: str, pod: str) -> Value:
    """How many flows each table has for a pod, and what they have met."""
    try:
        flows = asking.rows("nodes", node, "flows", pod=pod)
    except click.ClickException as error:
        return f"not known: {error.message}"
    tables: dict[str, list[int]] = {}
    for flow in flows:
        count = tables.setdefault(flow["table"], [0, 0])
        count[0], count[1] = count[0] + 1, count[1] + flow["packets"]
    counts = [{"table": name, "flows": count, "packets": packets} for name, (count, packets) in tables.items()]
    return counts, (Column("TABLE", "table"), Column("FLOWS", "flows"), Column("PACKETS", "packets"))


def _policies_of(asking: Asking, namespace: str, pods: set[str]) -> Value:
    """The policies that select some of these pods, and in which directions they judge."""
    found = [each for each in asking.rows("policies", namespace=namespace) if pods.intersection(each["podNames"])]
    kept = ("namespace", "kind", "name", "tier", "directions", "rules", "reason")
    return found, [column for column in _BY_NAME["policies"].columns if column.key in kept]


def _service(rows: list[Row], asking: Asking) -> Iterator[Part]:
    (row,) = rows
    namespace, name = row["namespace"], row["name"]
    yield from _fields(row, Name="name", Namespace="namespace", Labels="labels", Type="type", Selector="selector")
    yield from _fields(row, **{"Cluster IPs": "clusterIPs", "External IPs": "externalIPs", "Ports": "ports"})
    yield from _fields(row, **{"Announced By": "announcedBy", "Reason": "reason"})
    ends = asking.rows("endpoints", namespace=namespace, fieldSelector=f"name={name}")
    yield f"Endpoints ({row['endpoints']} used)", _table(ends, "endpoints", without=("namespace", "name"), wide=True)
    yield _events(asking, f"object=Service {namespace}/{name}")


def _policy(rows: list[Row], asking: Asking) -> Iterator[Part]:
    (row,) = rows
    namespace = row["namespace"]
    yield from _fields(row, Name="name", Namespace="namespace", Kind="kind", Tier="tier", Priority="priority")
    yield from _fields(row, Reason="reason", Subjects="subjects", Directions="directions")
    for direction in ("ingress", "egress"):
        if direction in row["directions"]:
            yield (
                direction.capitalize(),
                [f"{number}: {rule}" for number, rule in enumerate(row[direction])] or "nothing",
            )
    yield "Flows", f"{row['flows']} on each switch"
    yield f"Pods ({row['pods']})", list(row["podNames"])
    words = f"{row['kind']} {namespace}/{row['name']}" if namespace else f"{row['kind']} {row['name']}"
    yield _events(asking, f"object={words}")


def _endpoint(rows: list[Row], asking: Asking) -> Iterator[Part]:
    yield from _fields(rows[0], Name="name", Namespace="namespace")
    yield "Endpoints", _table(rows, "endpoints", without=("namespace", "name"), wide=True)
    yield _events(asking, f"object=Service {rows[0]['namespace']}/{rows[0]['name']}")


def _identity(rows: list[Row], asking: Asking) -> Iterator[Part]:
    (row,) = rows
    namespace = row["namespace"]
    yield from _fields(row, Number="number", Namespace="namespace", Status="status", Labels="labels", Ports="ports")
    yield f"Pods ({row['pods']})", list(row["podNames"])
    yield "Policies", _policies_of(asking, namespace, {f"{namespace}/{name}" for name in row["podNames"]})


def _identity_words(row: Row) -> str:
    return f"{row['namespace']}[{','.join(row['labels'])}]"


def _plain(rows: list[Row], asking: Asking) -> Iterator[Part]:
    """Whatever there is of an object of which nobody has more to say."""
    (row,) = rows
    yield "Name", title(row)
    yield from ((key, _words(value)) for key, value in row.items() if key != "name")


_DESCRIBED: Mapping[str, Callable[[list[Row], Asking], Iterator[Part]]] = {
    "nodes": _node,
    "pods": _pod,
    "workloads": _pod,
    "services": _service,
    "policies": _policy,
    "endpoints": _endpoint,
    "identities": _identity,
}


def _events(asking: Asking, selector: str) -> Part:
    """What has happened of late."""
    try:
        found = asking.rows("events", fieldSelector=selector)[-_EVENTS:]
    except click.ClickException as error:
        return "Events", f"not known: {error.message}"
    return "Events", (found, [column for column in EVENT_COLUMNS if not column.wide])


# Words --------------------------------------------------------------------------------------------------------------


def _fields(row: Row, **headings: str) -> Iterator[Part]:
    """Fields of a row, by their headings; those that the row doesn't have are left out."""
    for heading, key in headings.items():
        if key in row:
            value = _words(row[key])
            yield heading, in_colour(value) if key == "status" and isinstance(value, str) else value


def _words(value: Any) -> str | list[str]:
    if isinstance(value, dict):
        return [printable(f"{key}={each}") for key, each in value.items()]
    if isinstance(value, list):
        return [printable(str(each)) for each in value]
    return "" if value is None else printable(str(value))


def _table(rows: Sequence[Row], kind: str, *, without: Sequence[str] = (), wide: bool = False) -> Value:
    columns = _BY_NAME[kind].columns
    return rows, [each for each in columns if each.key not in without and (wide or not each.wide)]


def _text(parts: Sequence[Part]) -> list[str]:
    """Headings with what is said below or beside them, aligned."""
    width = max(len(heading) for heading, value in parts if not isinstance(value, tuple)) + 3
    lines = []
    for heading, value in parts:
        if isinstance(value, tuple) and value[0]:
            lines.append(f"{heading}:")
            lines += [f"  {line}" for line in table_of(*value).splitlines()]
            continue
        said = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        first, *rest = [each for each in said if each] or ["<none>"]
        lines.append(f"{heading + ':':{width}}{first}")
        lines += [" " * width + each for each in rest]
    return lines
