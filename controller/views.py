"""What people are shown of the state: rows of plain values. The API serves them, the CLI prints them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from controller import policy_views
from controller.agent_reports import AgentReports
from controller.fleet import Fleet
from controller.refusals import Why
from controller.replica import Replica
from controller.service_counts import Counts, Sums
from controller.sync import Phase
from flows.compiler import Compiler
from flows.cookies import KIND_NAMES, KIND_SHIFT, OBJECT_MASK, Kind
from flows.services import external_addresses
from flows.state import LocalPod
from flows.values import Flow, Group
from topology.endpoints import Backend
from topology.manifests import object_words
from topology.model import Key, Pod, Service
from topology.naming import format_mac, is_pod_port, object_id
from topology.policies import Policy

Row = dict[str, Any]
#: Endpoints of a group that are told.
_FEW = 3


def nodes(
    compiler: Compiler,
    fleet: Fleet,
    agents: AgentReports,
    replica: Replica | None = None,
    only: Iterable[str] | None = None,
) -> Iterator[Row]:
    """Every node, or only some, and how its switch and its agent are."""
    for name in sorted(compiler.cluster.nodes) if only is None else only:
        node = compiler.cluster.nodes.get(name)
        if node is None:
            continue
        phase = fleet.phase(name)
        sync = fleet.syncs.get(name)
        shared, scope = fleet.shared(name), fleet.scope(name)
        master, since = replica.master(name) if replica is not None else ("", "")
        yield {
            "name": name,
            "status": phase.value if phase is not None else "Disconnected",
            "addresses": [str(address) for address in node.addresses],
            "podCIDRs": [str(cidr) for cidr in node.pod_cidrs],
            "pods": sum(1 for _ in compiler.local_pods(name)),
            "flows": sum(shared.counts.values()) + sum(scope.counts.values()) if sync is not None else None,
            "datapathID": f"{node.datapath_id:016x}",
            "digest": f"{shared.digest:016x}/{scope.digest:016x}",
            "flowModsSent": sync.counters.flow_mods if sync is not None else 0,
            "bundlesSent": sync.counters.bundles if sync is not None else 0,
            "refused": sync.counters.refused if sync is not None else 0,
            "repaired": sync.counters.repaired if sync is not None else 0,
            "lastBundleSeconds": round(sync.counters.latency, 6) if sync is not None else None,
            "labels": dict(node.labels),
            "drained": node.drained,
            "master": master,
            "masterSince": since,
            "agent": agents.state(name).value,
            "agentVersion": agents.version(name),
        }


def pods(
    compiler: Compiler, fleet: Fleet, replica: Replica | None = None, only: Iterable[tuple[str, str]] | None = None
) -> Iterator[Row]:
    """Every pod and workload, or only some, where each is and whether its flows are in its switch."""
    misfits = {workload.key: reason for workload, reason in compiler.misfits()}
    for key in sorted(compiler.cluster.pods) if only is None else only:
        pod = compiler.cluster.pods.get(key)
        if pod is None:
            continue
        place = compiler.place_of(pod)
        local = None if isinstance(place, str) else place
        node = compiler.cluster.nodes.get(pod.node)
        status, reason = _pod_status(compiler, fleet, replica, pod, place, misfits.get(pod.key, ""))
        found = local if status not in ("HostNetwork", "Refused") else None
        addresses = pod.addresses if found is None else found.addresses
        if pod.host_network:
            addresses = node.addresses if node is not None else ()
        yield {
            "namespace": pod.namespace,
            "name": pod.name,
            "kind": "Workload" if pod.port else "Pod",
            "status": status,
            "addresses": [str(address) for address in addresses],
            "node": pod.node,
            "port": "" if pod.host_network else pod.port_name,
            "portNumber": local.port if local is not None else None,
            "mac": format_mac(local.mac if local is not None else pod.mac) if local is not None or pod.port else None,
            "reason": reason,
            "labels": dict(pod.labels),
        }


def _pod_status(
    compiler: Compiler, fleet: Fleet, replica: Replica | None, pod: Pod, place: LocalPod | str, misfit: str
) -> tuple[str, str]:
    """How a pod is, and why so if it isn't as it should be."""
    phase = fleet.phase(pod.node)
    if pod.host_network:
        return "HostNetwork", ""
    if misfit:
        return "Refused", misfit
    if not isinstance(place, str):
        if phase is Phase.STANDBY and replica is not None:
            return "Standby", f"its flows are the business of {replica.master(pod.node)[0] or 'nobody now'}"
        return "Ready" if phase is Phase.SYNCED else "Syncing" if phase is not None else "Disconnected", ""
    if not pod.node:
        return "Pending", "not scheduled to a node"
    if pod.node not in compiler.cluster.nodes:
        return "Pending", f"there is no node {pod.node}"
    if phase is None:
        return "Pending", "the node's switch isn't connected"
    if is_pod_port(pod.port_name) and any(port.name == pod.port_name for port in compiler.ports(pod.node)):
        return "Refused", place
    return "Pending", f"the node's bridge has no port {pod.port_name}"


def services(
    compiler: Compiler, sums: Sums | None = None, only: Iterable[tuple[str, str]] | None = None
) -> Iterator[Row]:
    """Every Service, or only some, with what its endpoints have carried where that is asked for."""
    clashes = {service.key: reason for service, reason in compiler.services.clashes()}
    for key in sorted(compiler.cluster.services) if only is None else only:
        service = compiler.cluster.services.get(key)
        if service is None:
            continue
        ends = list(compiler.services.endpoints_of(service))
        external = [*service.load_balancer_ips, *service.external_ips]
        row: Row = {
            "namespace": service.namespace,
            "name": service.name,
            "type": service.type,
            "clusterIPs": [str(each) for each in service.cluster_ips] or ["None"],
            "externalIPs": [str(each) for each in external],
            "announcedBy": sorted({compiler.services.announcer(each) for each in service.load_balancer_ips} - {""}),
            "ports": [_port_words(port.port, port.node_port, port.protocol) for port in service.ports],
            "selector": [f"{key}={value}" for key, value in service.selector or ()],
            "endpoints": len({each.order for _, each, _, used in ends if used}),
            "reason": clashes.get(service.key, ""),
        }
        if row["type"] == "LoadBalancer" and not service.load_balancer_ips:
            row["externalIPs"] = ["<pending>", *row["externalIPs"]]
        if sums is not None:
            row |= _total(sums.endpoints.get(numbers) for _, _, numbers, _ in ends)
            row["connections"] = sums.connections.get(object_id(*service.key), 0)
        yield row


def endpoints(
    compiler: Compiler, sums: Sums | None = None, only: Iterable[tuple[str, str]] | None = None
) -> Iterator[Row]:
    """Every endpoint of every Service, or of only some, a row for each port of the Service."""
    for key in sorted(compiler.cluster.services) if only is None else only:
        service = compiler.cluster.services.get(key)
        if service is None:
            continue
        for view, each, numbers, used in compiler.services.endpoints_of(service):
            end = each.endpoint
            state = "Ready" if end.ready else "Serving" if end.serving else "NotReady"
            if end.node in compiler.cluster.drained and not end.ready:
                state = "Drained"
            row: Row = {
                "namespace": service.namespace,
                "name": service.name,
                "port": view.port.title,
                "address": _address(each),
                "status": f"{state},Terminating" if end.terminating else state,
                "used": used,
                "pod": end.pod,
                "node": end.node,
                "zone": end.zone,
            }
            if sums is not None:
                row |= _total([sums.endpoints.get(numbers)])
            yield row


class EndpointNames:
    """Services' endpoints by what their connections keep of them (`flows.registers.LABEL_SERVICE`).

    Those of a Service are found, all at once, when one of them is first asked for: a cluster has many more than a
    question is about. They are remembered as they were then, so this is made anew for each question or state.
    """

    def __init__(self, compiler: Compiler) -> None:
        self._services = compiler.services
        self._known: set[Key] = set()
        self._names: dict[int, str] = {}

    def __call__(self, label: int) -> str | None:
        """An endpoint's address and pod; None where no Service has it."""
        service = self._services.owner(label >> 32)
        if service is not None and service.key not in self._known:
            self._known.add(service.key)
            for _, each, (port, number), _ in self._services.endpoints_of(service):
                self._names[port << 32 | number] = _endpoint_words(service, each)
        return self._names.get(label)


def group_words(compiler: Compiler, node: str, number: int) -> str:
    """A few of the endpoints that a group of a node's switch is to choose among; empty where it is no Service's."""
    service, chosen = compiler.services.owner(number), compiler.services.chosen_by(number, node)
    if service is None or not chosen:
        return ""
    more = f" (and {len(chosen) - _FEW} more)" if len(chosen) > _FEW else ""
    return " or ".join(_endpoint_words(service, each) for each in chosen[:_FEW]) + more


def _endpoint_words(service: Service, backend: Backend) -> str:
    pod = f" (pod {service.namespace}/{backend.endpoint.pod})" if backend.endpoint.pod else ""
    return _address(backend) + pod


def _address(backend: Backend) -> str:
    address = str(backend.address) if backend.address.version == 4 else f"[{backend.address}]"
    return f"{address}:{backend.port}"


def _port_words(port: int, node_port: int, protocol: str) -> str:
    return f"{port}:{node_port}/{protocol}" if node_port else f"{port}/{protocol}"


def _total(counts: Iterable[Counts | None]) -> Row:
    found = [each for each in counts if each is not None]
    return {
        "connections": sum(each.connections for each in found),
        "packets": sum(each.packets for each in found),
        "bytes": sum(each.bytes for each in found),
    }


def object_names(compiler: Compiler, *, with_pods: bool = True) -> Mapping[int, str]:
    """What each object id in a cookie stands for."""
    seen = (each for each in compiler.cluster.objects() if with_pods or not isinstance(each, Pod))
    found = names_of(each.key for each in seen if not _unseen(each))
    for service in compiler.cluster.services.values():
        for address in external_addresses(service):
            found[object_id("Address", "", str(address))] = f"Address {address}"
    found |= {number: f"Identity {words}" for number, words in policy_views.identity_names(compiler).items()}
    return {0: "Pipeline", **found}


def names_of(keys: Iterable[Key]) -> dict[int, str]:
    """What people call objects, by the ids that cookies have of them."""
    return {object_id(*key): object_words(key) for key in keys}


def maker(compiler: Compiler, cookie: int) -> str:
    """The object that a flow with this cookie was made for, as people call it."""
    wanted = cookie & OBJECT_MASK
    kind = KIND_NAMES.get(Kind(cookie >> KIND_SHIFT & 0x7F), "")
    for each in compiler.cluster.objects():
        here = KIND_NAMES[Kind.POLICY] if isinstance(each, Policy) else each.kind
        if here == kind and object_id(*each.key) == wanted:
            return object_words(each.key)
    return kind


def maker_of(compiler: Compiler, item: Flow | Group) -> str:
    """The object that a flow was made for; groups are told by their number."""
    return maker(compiler, item.cookie) if isinstance(item, Flow) else f"group {item.group_id}"


def _unseen(each: object) -> bool:
    return isinstance(each, Pod) and each.host_network


def status(compiler: Compiler, fleet: Fleet, troubles: Iterable[str], edition: str, now: float) -> Row:
    """The whole in a few numbers, and which state of the source (its `edition`) they are of.

    Connections that are refused are shown beside the problems: anybody who reaches the port can cause them.
    """
    total = len(compiler.cluster.nodes)
    phases = [fleet.phase(name) for name in compiler.cluster.nodes]
    synced, standby = phases.count(Phase.SYNCED), phases.count(Phase.STANDBY)
    problems = list(troubles)
    return {
        "healthy": synced + standby == total and not problems,
        "nodes": total,
        "nodesInSync": synced,
        "nodesInStandby": standby,
        "pods": sum(1 for name in compiler.cluster.nodes for _ in compiler.local_pods(name)),
        "clusterVersion": fleet.cluster.version,
        "edition": edition,
        "flowModsSent": sum(sync.counters.flow_mods for sync in fleet.syncs.values()),
        "problems": problems,
        "refusedConnections": {why.value: count for why, count in sorted(fleet.refusals.totals.items(), key=_kind)},
        "refusedPeers": list(fleet.refusals.rows(now)),
    }


def _kind(item: tuple[Why, int]) -> str:
    return item[0].value
