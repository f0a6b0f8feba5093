"""What people are shown of the graph: nodes, networks, links with their state and load, ways. Rows of plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.fleet import Fleet
from controller.links import Links
from controller.port_loads import Load
from flows.compiler import Compiler
from topology.discovery import State
from topology.graph import COSTS, LinkKind, display_name, is_network
from topology.model import Pod
from topology.naming import TUNNEL_PORT
from topology.render import Drawing, DrawnLink, DrawnNode
from topology.ways import Hop, way

Row = dict[str, Any]
#: How much each port carries, by node and name.
Loads = Mapping[tuple[str, str], Load]


class NoWayError(LookupError):
    """There is no such end of a way, or none between the two; the text says which."""


def links(compiler: Compiler, fleet: Fleet, found: Links, loads: Loads | None = None) -> Iterator[Row]:
    """Every link: nodes on networks, then wires, of which there may be several between two nodes."""
    for link in compiler.topology.links():
        if link.kind is LinkKind.WIRE:
            continue
        node, network = (link.b, link.a) if is_network(link.a) else (link.a, link.b)
        state = State.UP if fleet.phase(node) is not None else State.UNCONFIRMED
        row = _link((node, ""), (display_name(network), ""), link.kind, link.cost, state)
        if loads is not None:
            # A tunnel's port has no speed of its own, so of how much that is all nothing is known.
            row |= _load_words(loads.get((node, TUNNEL_PORT)) if link.kind is LinkKind.OVERLAY else None)
        yield row
    for each in found.wires():
        row = _link((each.a, each.a_port), (each.b, each.b_port), LinkKind.WIRE, each.cost, found.state(each))
        if loads is not None:
            row |= _load_words(loads.get((each.a, each.a_port)) or _seen_from(loads.get((each.b, each.b_port))))
        yield row


def _link(one: tuple[str, str], other: tuple[str, str], kind: LinkKind, cost: int, state: State) -> Row:
    return {
        "from": one[0],
        "fromPort": one[1],
        "to": other[0],
        "toPort": other[1],
        "kind": kind.value,
        "cost": cost,
        "state": state.value,
    }


def _seen_from(load: Load | None) -> Load | None:
    """A load as the other end of the wire has it."""
    return None if load is None else Load(load.tx, load.rx, load.speed)


def _load_words(load: Load | None) -> Row:
    """A link's load, from its first end: what goes and comes, in bit/s, its speed, and the part of it that is used."""
    if load is None:
        return {"txBitsPerSecond": None, "rxBitsPerSecond": None, "speedBitsPerSecond": None, "load": None}
    part = load.part
    return {
        "txBitsPerSecond": round(load.tx),
        "rxBitsPerSecond": round(load.rx),
        "speedBitsPerSecond": load.speed or None,
        "load": None if part is None else round(part, 4),
    }


def nodes(compiler: Compiler, fleet: Fleet) -> Iterator[Row]:
    """Every node, as the graph's vertex."""
    for name, node in sorted(compiler.cluster.nodes.items()):
        phase = fleet.phase(name)
        yield {
            "name": name,
            "status": phase.value if phase is not None else "Disconnected",
            "addresses": [str(address) for address in node.addresses],
            "podCIDRs": [str(cidr) for cidr in node.pod_cidrs],
            "pods": _scheduled(compiler, name),
            "transit": node.is_transit,
            "labels": dict(node.labels),
        }


def _scheduled(compiler: Compiler, node: str) -> int:
    """The pods that are to be on a node's bridge. Which of them are attached takes long to say of all nodes at once."""
    cluster = compiler.cluster
    return sum(1 for key in cluster.pods_on.get(node, ()) if not cluster.pods[key].host_network)


def networks(compiler: Compiler) -> Iterator[Row]:
    """Every network that nodes are on."""
    members: dict[str, list[LinkKind]] = {}
    for link in compiler.topology.links():
        for end in (link.a, link.b):
            if is_network(end):
                members.setdefault(end, []).append(link.kind)
    for vertex, kinds in sorted(members.items()):
        cost = COSTS[kinds[0]]
        yield {"name": display_name(vertex), "kind": kinds[0].value, "cost": cost, "nodes": len(kinds)}


def drawing(compiler: Compiler, fleet: Fleet, found: Links, loads: Loads | None = None) -> Drawing:
    """What there is to draw."""
    drawn = tuple(
        DrawnNode(
            name=row["name"],
            lines=tuple(filter(None, (", ".join(row["addresses"]), ", ".join(row["podCIDRs"])))),
            remark=f"{row['status']}, {row['pods']} pod{'s' * (row['pods'] != 1)}",
            is_up=row["status"] != "Disconnected",
            is_transit=row["transit"],
        )
        for row in nodes(compiler, fleet)
    )
    names = {row["name"]: row["cost"] for row in networks(compiler)}
    edges = tuple(
        DrawnLink(
            a=row["from"],
            a_port=row["fromPort"],
            b=row["to"],
            b_port=row["toPort"],
            kind=row["kind"],
            cost=row["cost"],
            is_up=row["state"] == State.UP.value,
            load=row.get("load"),
        )
        for row in links(compiler, fleet, found, loads)
    )
    return Drawing(drawn, tuple(sorted(names.items())), edges)


# Ways -----------------------------------------------------------------------------------------------------------------


def path(compiler: Compiler, source: str, target: str) -> Row:
    """The way of packets from one pod or node to another, hop by hop. Raises NoWayError."""
    ends = [_end(compiler, text) for text in (source, target)]
    (first, first_pod), (last, last_pod) = ends
    answer: Row = {
        "from": _end_row(compiler, first, first_pod),
        "to": _end_row(compiler, last, last_pod),
        "cost": 0,
        "hops": [],
    }
    if first == last:
        return answer
    steps = way(compiler.fabric.used(), first, last)
    if steps is not None:
        answer["hops"] = [
            {**_hop(step.hop), "kind": LinkKind.WIRE.value, "endpoint": "", "others": list(map(_hop, step.others))}
            for step in steps
        ]
        answer["cost"] = sum(step.hop.cost for step in steps)
        return answer
    hops = compiler.topology.next_hops(first, last)
    if not hops:
        raise NoWayError(f"there is no way from node {first} to node {last}: they share no network, and no wires")
    hop = hops[0]
    cost = COSTS[hop.kind]
    answer["hops"] = [
        {
            "from": first,
            "fromPort": TUNNEL_PORT if hop.kind is LinkKind.OVERLAY else "",
            "to": hop.node,
            "toPort": TUNNEL_PORT if hop.kind is LinkKind.OVERLAY else "",
            "cost": cost,
            "kind": hop.kind.value,
            "endpoint": str(hop.endpoint) if hop.endpoint is not None else "",
            "others": [],
        }
    ]
    answer["cost"] = cost
    return answer


def _hop(hop: Hop) -> Row:
    return {"from": hop.node, "fromPort": hop.port, "to": hop.to, "toPort": hop.to_port, "cost": hop.cost}


def _end(compiler: Compiler, text: str) -> tuple[str, Pod | None]:
    """The node that is meant, and the pod on it if it is one: `node/NAME`, `[NAMESPACE/]POD`, or a node's name."""
    kind, slash, name = text.partition("/")
    cluster = compiler.cluster
    if slash and kind == "node":
        if name not in cluster.nodes:
            raise NoWayError(f"there is no node {name!r}")
        return name, None
    pod = cluster.pods.get((kind, name) if slash else ("default", text))
    if pod is None:
        if text in cluster.nodes:
            return text, None
        raise NoWayError(f"there is no pod {text!r}" + ("" if slash else " in namespace default, and no such node"))
    if not pod.node or pod.node not in cluster.nodes:
        raise NoWayError(f"pod {pod.namespace}/{pod.name} is on no node")
    return pod.node, pod


def _end_row(compiler: Compiler, node: str, pod: Pod | None) -> Row:
    if pod is None:
        return {"node": node, "pod": "", "port": ""}
    return {"node": node, "pod": f"{pod.namespace}/{pod.name}", "port": "" if pod.host_network else pod.port_name}
