"""How each part of the whole is, and everything that is wrong, each by the part that it troubles.

source        the cluster's state: manifests, or Kubernetes
objects       what the state holds that can't be as it says
switches      connections, and flows that they refuse
agents        what adds pods to nodes and removes them
pods          ports that aren't believed
links         wires between bridges
replica       leases, where there are several controllers
bgp           routers
certificates  this controller's own
api           who may ask
statistics    what switches count
export        collectors that are told of packets
offload       NICs that take flows
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from controller import agent_reports, views
from controller.holdings import Refusal, error_text
from controller.sync import Phase
from flows.compiler import Compiler
from flows.pipeline import TABLE_NAMES
from flows.text import flow_text
from flows.values import FlowKey
from topology.manifests import object_words
from topology.version import version

if TYPE_CHECKING:
    from controller.app import Controller


class State(StrEnum):
    OK = "Ok"
    DEGRADED = "Degraded"
    FAILED = "Failed"


class Part(msgspec.Struct, frozen=True):
    """A part, how it is, and in a line what there is to say of it."""

    name: str
    state: State
    message: str


def parts(controller: Controller, found: Iterable[tuple[str, str]], now: datetime, clock: float) -> Iterator[Part]:
    """Every part that there is, and how it is, by the troubles `found` (`troubles_by_part`).

    `now` is what the time is, `clock` what the monotonic clock says.
    """
    troubles: dict[str, list[str]] = {}
    for name, text in found:
        troubles.setdefault(name, []).append(text)
    for name, look in _LOOKS.items():
        seen = look(controller, now, clock)
        if seen is None:
            continue
        state, message = seen
        if mine := troubles.get(name):
            state = State.FAILED if state is State.FAILED else State.DEGRADED
            more = f" (and {len(mine) - 1} more)" if len(mine) > 1 else ""
            message = f"{message}; {mine[0]}{more}" if message else f"{mine[0]}{more}"
        yield Part(name, state, message)


# What is wrong ------------------------------------------------------------------------------------------------------


def troubles(controller: Controller, now: datetime) -> Iterator[str]:
    """Everything that isn't as it should be, a line each."""
    return (text for _, text in troubles_by_part(controller, now))


def troubles_by_part(controller: Controller, now: datetime) -> Iterator[tuple[str, str]]:
    """Everything that isn't as it should be, each with the part that it troubles."""
    compiler, fleet = controller.compiler, controller.fleet
    yield from (("source", text) for text in controller.source_troubles())
    yield from (("objects", str(problem)) for problem in controller.problems)
    yield from _of_access(controller, now)
    if controller.replica is not None:
        yield from (("replica", text) for text in controller.replica.troubles(compiler.cluster.nodes))
    if controller.bgp is not None:
        yield from (("bgp", text) for text in controller.bgp.troubles())
    for name in sorted(compiler.cluster.nodes):
        if name not in fleet.syncs:
            yield "switches", f"node {name}: its switch isn't connected"
        for port, reason in compiler.refusals(name):
            yield "pods", f"node {name}: port {port.name} is refused: {reason}"
    told = {problem.object for problem in controller.problems}
    for workload, reason in compiler.misfits():
        words = f"Workload {workload.namespace}/{workload.name}"
        if words not in told:
            yield "pods", f"{words}: {reason}"
    for name, sync in fleet.syncs.items():
        if sync.setback:
            yield "switches", f"node {name}: {sync.setback}; it is tried again, later each time"
        yield from (("switches", f"node {name}: {text}") for text in _refused(compiler, sync.refusals.values()))
    for service, reason in compiler.services.clashes():
        yield "objects", f"Service {service.namespace}/{service.name}: {reason}"
    for key, reason in compiler.host_port_refusals():
        yield "objects", f"Pod {key[1]}/{key[2]}: {reason}"
    for key, reason in controller.strange_endpoints():
        yield "objects", f"{key[0]} {key[1]}/{key[2]}: {reason}"
    for key in sorted(compiler.policies.crowded):
        yield (
            "objects",
            f"{object_words(key)}: too many rules of its priority take turns accepting and denying, so it denies "
            "all that it is about; give it a priority of its own",
        )
    yield from (("links", text) for text in controller.links.troubles())
    yield from (("agents", text) for text in controller.agents.troubles())
    yield from (("offload", text) for text in controller.offloads.troubles())
    for datapath_id in fleet.unknown:
        yield "switches", f"switch {datapath_id:016x} is of no known node"


def _refused(compiler: Compiler, refusals: Iterable[Mapping[FlowKey | int, Refusal]]) -> Iterator[str]:
    """What a switch refuses: a line for each full table, however many flows it has no room for, and for all else."""
    no_room: dict[int, list[Refusal]] = {}
    for refusal in (each for refused in refusals for each in refused.values()):
        if refusal.full_table is None:
            yield _refusal_words(compiler, refusal)
        else:
            no_room.setdefault(refusal.full_table, []).append(refusal)
    for table, found in sorted(no_room.items()):
        more = f" (and {len(found) - 1} more of table {TABLE_NAMES.get(table, table)})" if len(found) > 1 else ""
        yield f"{_refusal_words(compiler, found[0])}{more}"


def _refusal_words(compiler: Compiler, refusal: Refusal) -> str:
    maker = views.maker_of(compiler, refusal.item)
    return f"refused with {error_text(refusal)}, for {maker}: {flow_text(refusal.item, names=True)}"


def _of_access(controller: Controller, now: datetime) -> Iterator[tuple[str, str]]:
    access = controller.access
    certificates = access.credentials.troubles(now) if access.credentials is not None else []
    for text in access.troubles(now):
        yield "certificates" if text in certificates else "api", text


# How each is --------------------------------------------------------------------------------------------------------

_Seen = tuple[State, str] | None
_Look = Callable[["Controller", datetime, float], _Seen]


def _source(controller: Controller, now: datetime, clock: float) -> _Seen:
    if controller.not_ready:
        return State.FAILED, controller.not_ready
    return State.OK, f"in force: {controller.edition() or 'what was read last'}"


def _objects(controller: Controller, now: datetime, clock: float) -> _Seen:
    cluster = controller.compiler.cluster
    return State.OK, (
        f"nodes: {len(cluster.nodes)}, pods: {len(cluster.pods)}, Services: {len(cluster.services)}, "
        f"policies: {len(cluster.policies)}"
    )


def _switches(controller: Controller, now: datetime, clock: float) -> _Seen:
    names, fleet = controller.compiler.cluster.nodes, controller.fleet
    phases = [fleet.phase(name) for name in names]
    synced, standby = phases.count(Phase.SYNCED), phases.count(Phase.STANDBY)
    drained = sorted(name for name, node in names.items() if node.drained)
    message = f"{synced} of {len(phases)} in sync" + (f", {standby} of other replicas" if standby else "")
    message += f", drained: {drained[0]}{' and others' if len(drained) > 1 else ''}" if drained else ""
    if phases and all(each is None for each in phases):
        return State.FAILED, f"none of {len(phases)} is connected"
    return State.OK if synced + standby == len(phases) else State.DEGRADED, message


def _agents(controller: Controller, now: datetime, clock: float) -> _Seen:
    agents = controller.agents
    states = list(agents.states().values())
    alive, lost = states.count(agent_reports.State.ALIVE), states.count(agent_reports.State.LOST)
    if not alive and not lost:
        # Mininet, say: nobody has agents.
        return None
    message = f"{alive} of {alive + lost} alive"
    others = sorted((name, its) for name in agents.states() if (its := agents.version(name)) not in ("", version()))
    if others:
        first, more = "{} ({})".format(*others[0]), " and others" if len(others) > 1 else ""
        message += f", of another version than the controller ({version()}): {first}{more}"
    return State.OK if alive else State.FAILED, message


def _pods(controller: Controller, now: datetime, clock: float) -> _Seen:
    compiler = controller.compiler
    attached = sum(1 for name in compiler.cluster.nodes for _ in compiler.local_pods(name))
    return State.OK, f"{attached} attached"


def _links(controller: Controller, now: datetime, clock: float) -> _Seen:
    wires = sum(1 for _ in controller.links.wires())
    return State.OK, f"wires between bridges: {wires}"


def _replica(controller: Controller, now: datetime, clock: float) -> _Seen:
    if controller.replica is None:
        return None
    told = controller.replica.status(controller.compiler.cluster.nodes)
    mine = sum(row["master"] == told["name"] for row in told["shards"])
    return State.OK, f"{told['name']} of {len(told['replicas'])}, master of {mine} of {len(told['shards'])} shards"


def _bgp(controller: Controller, now: datetime, clock: float) -> _Seen:
    if controller.bgp is None:
        return None
    told = controller.bgp.status()
    if not told["announces"]:
        return State.OK, "another replica announces"
    up, peers = told["established"], told["peers"]
    state = State.OK if up == peers else State.DEGRADED if up else State.FAILED
    return state, f"{up} of {peers} peers up, {told['routes']} routes"


def _certificates(controller: Controller, now: datetime, clock: float) -> _Seen:
    credentials = controller.access.credentials
    if credentials is None:
        return None
    state = State.FAILED if credentials.expires < now else State.OK
    return state, f"the controller's ends {credentials.expires:%F %R}Z"


def _api(controller: Controller, now: datetime, clock: float) -> _Seen:
    places = controller.access.api_listen
    return State.OK, f"served at {', '.join(places)}" if places else "served on this machine only"


def _statistics(controller: Controller, now: datetime, clock: float) -> _Seen:
    statistics = controller.statistics
    if statistics.interval <= 0:
        return State.OK, "switches are asked only when somebody wants to know"
    late = statistics.overdue(clock)
    message = f"every {statistics.interval:g} s"
    if late:
        return State.DEGRADED, f"{message}; no answer from {late[0]}" + (
            f" (and {len(late) - 1} more)" if len(late) > 1 else ""
        )
    return State.OK, message


def _offload(controller: Controller, now: datetime, clock: float) -> _Seen:
    reports = controller.offloads.reports().values()
    if not any(report.asked or report.capable for report in reports):
        return None
    return State.OK, f"NICs forward on {sum(report.is_in_force for report in reports)} of {len(reports)} nodes"


def _export(controller: Controller, now: datetime, clock: float) -> _Seen:
    exports = controller.compiler.exports
    if not exports:
        return None
    return State.OK, "switches tell " + ", ".join(
        f"{each.protocol.value}:{collector}" for each in exports for collector in each.collectors
    )


_LOOKS: dict[str, _Look] = {
    "source": _source,
    "objects": _objects,
    "switches": _switches,
    "agents": _agents,
    "pods": _pods,
    "links": _links,
    "replica": _replica,
    "bgp": _bgp,
    "certificates": _certificates,
    "api": _api,
    "statistics": _statistics,
    "export": _export,
    "offload": _offload,
}
