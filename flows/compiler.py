"""From cluster state to flows, one object at a time.

    objects ──put, remove──┐
                           ├─> affected contributions, before and after ──> Update for each scope
    ports of a switch ─────┘

Each object *contributes* flows to a scope, and a contribution is a pure function of the current state. A change names
the contributions that it can affect; these are made before and after it, and the difference is the update. Nothing
compiled is kept: `flows(scope)` makes all of a scope again, and must equal what the updates have added up to.

Two objects never make the same match: where two want the same, `places` says whose it is, and the other waits its turn.
What nodes and pods contribute is in `node_parts`, what Services do in `service_parts`; policies' flows, of which
several may have a part, are in `policy_parts`, and wires' in `fabric_parts`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from itertools import chain
from typing import TypeVar

import msgspec

from flows.cookies import Kind, Scope, cookie
from flows.fabric_parts import FabricChange, FabricParts
from flows.node_parts import NodeParts
from flows.places import Places
from flows.policy_parts import PolicyParts
from flows.service_parts import Part, ServiceParts
from flows.state import LocalPod, Port
from flows.tables import service
from flows.update import CLUSTER, Forgotten, Update
from flows.values import Flow, FlowKey, Group
from topology.flow_export import FlowExport
from topology.graph import Interconnect, Topology, Wire
from topology.model import Change, Cluster, EndpointSlice, Key, Node, Object, Pod, Service
from topology.naming import (
    Network,
)
from topology.policies import Policy

Item = Flow | Group
Entry = TypeVar("Entry")
#: Objects and endpoints that one step of many changes takes, about: their flows should fit one bundle.
STEP = 4_000


class Compiler:
    """The current state, and the updates that changes to it mean."""

    def __init__(
        self,
        service_cidrs: Iterable[Network] = (),
        *,
        keyed: bool = True,
        interconnect: Interconnect | None = None,
        exports: Sequence[FlowExport] = (),
    ) -> None:
        """`keyed`: tunnels carry the sender's identity; where they don't, it is told by its address."""
        self.interconnect = interconnect or Interconnect()
        self.exports = tuple(exports)
        self.cluster = Cluster()
        self.policies = PolicyParts(self.cluster, keyed=keyed)
        identities = self.policies.identities
        self.services = ServiceParts(self.cluster, identities, identified=self.interconnect.routes)
        self.service_cidrs = tuple(service_cidrs)
        self.topology = Topology(self.interconnect)
        self._places = Places(self.cluster, identities, by_address=not keyed or self.interconnect.routes)
        self.fabric = FabricParts(self.cluster, self._places.ports)
        self._nodes = NodeParts(
            self._places, identities, self.topology, self.interconnect, self.fabric, keyed=keyed, exports=self.exports
        )

    # What changes -----------------------------------------------------------------------------------------------

    def put(self, new: Object) -> list[Update]:
        """Make or replace an object."""
        change = Change(self.cluster.get(new.key), new)
        return [] if change.old == new else self._apply([change]) + self._settle_identities()

    def remove(self, key: Key) -> list[Update]:
        """Delete an object."""
        old = self.cluster.get(key)
        return [] if old is None else self._apply([Change(old, None)]) + self._settle_identities()

    def take(self, new: Iterable[Object], gone: Iterable[Key] = ()) -> Iterator[list[Update]]:
        """Many objects at once: made or replaced, and deleted. The updates come, as they are made, step by step.

        What several of them have a part in, as pods have in a Service, is made once for all of a step.
        """
        changes = [Change(self.cluster.get(key), None) for key in gone]
        changes += [Change(self.cluster.get(each.key), each) for each in new]
        changes = [change for change in changes if change.old != change.new]
        if len(changes) > 1:
            # Those of one Service together; of new Services and new pods the pods first, which then concern nobody.
            changes.sort(key=self._order)
            yield from self._expect(changes)
        for step in _steps(changes, _size):
            yield self._apply(step)
        settled = self._settle_identities()
        if settled:
            yield settled

    def _expect(self, changes: Sequence[Change]) -> Iterator[list[Update]]:
        """Have the identities of pods that come before policies that come with them."""
        asked_for = self.policies.asked_for_after(changes)
        pods = [change.new for change in changes if isinstance(change.new, Pod)]
        for step in _steps(pods, lambda pod: 1):
            updates = self._updates(set(), {}, judged=self.policies.expect(step, asked_for))
            if updates:
                yield updates

    def _order(self, change: Change) -> tuple[int, str, str]:
        version = change.old if change.new is None else change.new
        match version:
            case Policy():
                return (1, "", "")
            case Pod():
                return (2, *min(self.services.names(change), default=("", "")))
            case Service():
                return (3, version.namespace, version.name)
            case EndpointSlice():
                return (3, version.namespace, version.service)
        return (0, "", "")

    def set_ports(self, node: str, ports: Iterable[Port]) -> list[Update]:
        """The ports that a node's switch has now, all of them."""
        new = {port.name: port for port in ports}
        old = self._places.ports.get(node, {})
        names = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        if not names and node in self._places.ports:
            return []
        changed = names
        parts = {part for name in names for part in self._nodes.of_port(node, name)}
        # Ports that announce the same as one that changed may win or lose it.
        announced = functools.partial(self._places.announced, node)
        said = {announced(ports[name]) for ports in (old, new) for name in names if name in ports}
        names = names | {name for ports in (old, new) for name, port in ports.items() if announced(port) in said}
        parts |= {(node, Kind.POD, name) for name in names}
        if node not in self._places.ports:
            parts |= self._nodes.of_identities(node)
        else:
            parts |= {
                part for name in names for part in self._nodes.of_identity(self.cluster.pod_by_port.get((node, name)))
            }
        before = self._contributions(parts)
        self._places.set_ports(node, new)
        return self._updates(parts, before) + self._follow(self.fabric.ports_changed(node, changed))

    def set_links(self, wires: Iterable[Wire]) -> list[Update]:
        """The wires between bridges that there are now, all of them. Those that can't be used wait (`unused_wires`)."""
        return self._follow(self.fabric.set_wires(wires))

    def _follow(self, change: FabricChange) -> list[Update]:
        """What a change of the fabric means: the nodes' own part is there, routes to nodes may be others too."""
        if not change:
            return []
        for (a, b), cost in change.links:
            if cost is None:
                self.topology.cut(a, b)
            else:
                self.topology.wire(a, b, cost)
        parts = {part for name in change.flipped for part in self._nodes.of_ways(name)}
        before = self._contributions(parts)
        self.fabric.flip(change.flipped)
        return [*self._updates(parts, before), *change.updates]

    def _apply(self, changes: Sequence[Change]) -> list[Update]:
        names = {name for change in changes for name in self.services.names(change)}
        parts: set[Part] = set()
        for change in changes:
            parts |= self._nodes.affected(change)
            for pod in self._reidentified(change):
                names |= self.services.of_pod(pod)
                parts |= self._nodes.of_pod(pod)
        parts |= self.services.parts(names, changes)
        before = self._contributions(parts)
        # Any node may be the one that announces an address, and that is all that a Service has of most of them.
        is_of_nodes = any(change.key[0] == Node.kind for change in changes)
        announced = self.services.announced() if is_of_nodes else set()
        used = self.services.endpoints(names)
        forgotten: set[Forgotten] = set()
        for change in changes:
            self._carry_out(change)
            forgotten |= _of_gone_pod(change)
        judged = self.policies.take(changes)
        self.services.cluster_changed()
        # What a rival has now it may lose when numbers and ways in are given out anew; nothing else of it has changed.
        wanted = self.services.wanted(names)
        rivals = self.services.rivals(wanted)
        for part in self.services.parts(rivals):
            # Who announces an address is decided by all its Services, so the addresses above are all that may change.
            if part[1] is Kind.SERVICE:
                before.setdefault(part, list(self._contribution(part)))
        self.services.settle(wanted)
        parts |= before.keys() | self.services.parts(names) | self.services.announcements(before)
        if is_of_nodes:
            parts |= self._turns(announced, before)
        forgotten |= used - self.services.endpoints(names)
        updates = self._updates(parts, before, tuple(sorted(forgotten, key=lambda each: each.order)), judged)
        return updates + self._follow(self.fabric.objects_changed(changes))

    def _carry_out(self, change: Change) -> None:
        if change.new is None:
            self.cluster.remove(change.key)
        else:
            self.cluster.put(change.new)
        match change.old, change.new:
            case Node() as old, None:
                self.topology.remove(old.name)
                self.services.elections.forget(old.name)
            case _, Node() as new:
                self.topology.put(new)
        self._places.claim(change)

    def _reidentified(self, change: Change) -> list[Pod]:
        """The pods whose identity this change may be about."""
        names = self.policies.reidentified(change)
        return [pod for name in names if (pod := self.cluster.pods.get(name)) is not None]

    def release(self, identities: Iterable[int]) -> list[Update]:
        """Identities that no pod has had for long are given up."""
        return self._updates(set(), {}, judged=self.policies.release(identities))

    def _settle_identities(self) -> list[Update]:
        """Give identities whose hashes meet the numbers that they are to have, whichever of them came first.

        This may concern any flow, and happens to one in thousands of identities: everything is made before and after.
        """
        identities = self.policies.identities
        moves = identities.unsettled()
        if not moves:
            return []
        pods = (self.cluster.pods[name] for profile in moves for name in identities.pods(identities.number_of(profile)))
        scopes = [CLUSTER, *sorted({pod.node for pod in pods if pod.node})]
        before = {scope: self._everything(scope) for scope in scopes}
        self.policies.renumber(moves)
        self.services.cluster_changed()
        updates = (_difference(scope, before[scope], self._everything(scope), ()) for scope in scopes)
        return [update for update in updates if update]

    def _everything(self, scope: str) -> dict[FlowKey | int, Item]:
        items: list[Item] = [*self.flows(scope), *self.groups(scope)]
        return {_name(item): item for item in items}

    def set_down(self, nodes: Iterable[str]) -> list[Update]:
        """The nodes whose switches have been out of reach for long: others announce Services' addresses instead."""
        down = frozenset(nodes)
        if down == self.services.down:
            return []
        announced = self.services.announced()
        self.services.down = down
        before: dict[Part, list[Item]] = {}
        return self._updates(self._turns(announced, before), before)

    def _turns(self, announced: Set[Part], before: dict[Part, list[Item]]) -> set[Part]:
        """The addresses that others announce than `announced` them; what those had of them is noted in `before`."""
        now = self.services.announced()
        for part in announced - now:
            before.setdefault(part, [self.services.announcement(part[2])])
        return now ^ announced

    # What objects contribute ------------------------------------------------------------------------------------

    def flows(self, scope: str) -> Iterator[Flow]:
        """Every flow of a scope, made from the current state alone."""
        return chain.from_iterable(self.portions(scope))

    def portions(self, scope: str) -> Iterator[Iterable[Flow]]:
        """The same, some at a time, each to be gone through before the next.

        The state may change between two. A flow that no update tells of meanwhile is there as it was all the time;
        others may be as they were before or after, or missing.
        """
        yield from self._nodes.portions(scope)
        if scope == CLUSTER:
            yield service.refusal_flows(self.service_cidrs, cookie(Scope.CLUSTER, Kind.PIPELINE, 0))
            yield from self.policies.portions()
            yield from self.policies.senders.portions()
        else:
            yield self.fabric.flows(scope)
        for part in list(self.services.all_parts(scope)):
            yield (item for item in self.services.contribution(part) if isinstance(item, Flow))

    def groups(self, scope: str) -> Iterator[Group]:
        """Every group of a scope."""
        if scope != CLUSTER:
            yield from self.fabric.groups(scope)
        for part in self.services.all_parts(scope):
            for item in self.services.contribution(part):
                if isinstance(item, Group):
                    yield item

    def _contributions(self, parts: set[Part]) -> dict[Part, list[Item]]:
        return {part: list(self._contribution(part)) for part in parts}

    def _contribution(self, part: Part) -> Iterator[Item]:
        return (self.services if part[1] in (Kind.SERVICE, Kind.ADDRESS) else self._nodes).contribution(part)

    # What people ask --------------------------------------------------------------------------------------------

    def local_pods(self, node: str) -> Iterator[tuple[Pod, LocalPod]]:
        """The pods whose flows a node's switch has or is getting."""
        return self._places.local_pods(node)

    def place_of(self, pod: Pod) -> LocalPod | str:
        """Where on its node's switch a pod is, or why it is nowhere."""
        found = self._places.find_pod(pod.node, pod.port_name)
        if isinstance(found, str):
            return found
        return found[1] if found[0] is pod else f"its port is that of {found[0].namespace}/{found[0].name}"

    def pod_at(self, node: str, number: int) -> tuple[Pod, LocalPod] | None:
        """The pod behind the port of this number, if there is one."""
        return self._places.pod_at(node, number)

    def refusals(self, node: str) -> Iterator[tuple[Port, str]]:
        """Pod ports of a node that get no flows, and why."""
        return self._places.refusals(node)

    def host_port_refusals(self) -> Iterator[tuple[Key, str]]:
        """Pods that don't have a host port that they want, and why."""
        return self._places.host_port_refusals()

    def open_ports(self, node: str) -> Iterator[Port]:
        """A node's ports that are nobody's: they may have wires."""
        return self._places.open_ports(node)

    def misfits(self) -> Iterator[tuple[Pod, str]]:
        """Workloads that get no flows for what they are said to be, and why."""
        return self._places.misfits()

    def bridge_index(self, node: str) -> int:
        """A node's number among those whose bridges share its datapath."""
        found = self.cluster.nodes.get(node)
        return found.bridge_index if found is not None else 0

    @property
    def transit(self) -> Collection[str]:
        """The nodes whose switches have nothing of the cluster's scope."""
        return self.cluster.transit

    def unused_wires(self) -> Iterator[tuple[Wire, str]]:
        """Wires that carry nothing, and why."""
        return self.fabric.unused()

    def ports(self, node: str) -> tuple[Port, ...]:
        """A node's ports as its switch last announced them."""
        return tuple(self._places.ports.get(node, {}).values())

    # The difference ---------------------------------------------------------------------------------------------

    def _updates(
        self,
        parts: set[Part],
        before: dict[Part, list[Item]],
        forgotten: tuple[Forgotten, ...] = (),
        judged: Iterable[tuple[Flow | None, Flow | None]] = (),
    ) -> list[Update]:
        after = self._contributions(parts)
        # The cluster's scope sorts first, and the order of sets must not show in what is sent.
        scopes: dict[str, list[Part]] = {CLUSTER: []}
        for part in sorted(parts):
            scopes.setdefault(part[0], []).append(part)
        updates = []
        for scope, mine in scopes.items():
            update = _difference(
                scope,
                {_name(item): item for part in mine for item in before.get(part, ())},
                {_name(item): item for part in mine for item in after[part]},
                forgotten if scope == CLUSTER else (),
            )
            if scope == CLUSTER:
                update = _with_judged(update, judged)
            if update:
                updates.append(update)
        return updates


def _difference(
    scope: str, old: dict[FlowKey | int, Item], new: dict[FlowKey | int, Item], forgotten: tuple[Forgotten, ...]
) -> Update:
    removed = [item for name, item in old.items() if new.get(name) != item]
    added = [item for name, item in new.items() if old.get(name) != item]
    return Update(
        scope,
        tuple(item for item in removed if isinstance(item, Flow)),
        tuple(item for item in added if isinstance(item, Flow)),
        tuple(item for item in removed if isinstance(item, Group)),
        tuple(item for item in added if isinstance(item, Group)),
        forgotten,
    )


def _with_judged(update: Update, judged: Iterable[tuple[Flow | None, Flow | None]]) -> Update:
    """With policies' flows, before and after: what several want together is nobody's part alone."""
    judged = list(judged)
    if not judged:
        return update
    removed = (*update.removed, *(old for old, _ in judged if old is not None))
    added = (*update.added, *(new for _, new in judged if new is not None))
    return msgspec.structs.replace(update, removed=removed, added=added)


def _steps(all_of: Iterable[Entry], size: Callable[[Entry], int]) -> Iterator[list[Entry]]:
    """Runs of about `STEP` in size."""
    step: list[Entry] = []
    total = 0
    for each in all_of:
        step.append(each)
        total += size(each)
        if total >= STEP:
            yield step
            step, total = [], 0
    if step:
        yield step


def _size(change: Change) -> int:
    """About how many flows a change is."""
    size = 1
    for version in (change.old, change.new):
        match version:
            case EndpointSlice():
                size += sum(len(subset.ports) * len(subset.endpoints) for subset in version.subsets)
            case Policy():
                rules = (*(version.ingress or ()), *(version.egress or ()))
                # Of each port as of each address there are two, one for each family.
                size += sum(2 * (len(rule.peers or ()) + len(rule.ports or ())) for rule in rules)
    return size


def _name(item: Item) -> FlowKey | int:
    return item.key if isinstance(item, Flow) else item.group_id


def _of_gone_pod(change: Change) -> set[Forgotten]:
    """Every connection to a pod that is gone: nobody will end them."""
    old, new = change.old, change.new
    if not isinstance(old, Pod) or old.host_network:
        return set()
    kept = new.addresses if isinstance(new, Pod) and not new.host_network else ()
    return {
        Forgotten(protocol, address)
        for address in old.addresses
        if address not in kept
        for protocol in ("TCP", "UDP", "SCTP")
    }
