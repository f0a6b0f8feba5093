"""Policies and identities among the compiler's contributions: whose flows a change concerns, and what they are now.

Owns the identities, who is a member of which selection, and for each flow of the policy tables who wants what of it.
Several policies may want one flow - allow the same, isolate the same pods, share part of a conjunction -, so a flow is
made of what all of them want together. A selection is shared, too: it is worked out once for all policies that use it.

    pod ──> Identities ──new, released──> selections ──changed──> policies that use them ──pieces──> flows
    policy ──────────────────────────────────────────────────────────▲
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from flows.cookies import Kind, Scope, cookie
from flows.numbers import Numbers
from flows.policies import Piece, pieces, ranks
from flows.tables import policy as table
from flows.values import Conjunction, Flow, FlowKey, Program
from topology.identities import UNIMPORTANT, Identities, NamedPort, Profile
from topology.model import Change, Cluster, Key, Namespace, Node, Pod
from topology.naming import Address, object_id
from topology.policies import Action, Direction, NodeSet, PodSet, Policy, Rule, Tier
from topology.selectors import Selector, selects

#: Conjunctions that one flow may be part of: its message has 64 KiB, each takes 16 bytes.
SHARE_LIMIT = 3_000


class _Selection(msgspec.Struct):
    members: set[int]
    users: set[Key] = set()


class _Record(msgspec.Struct):
    """What a policy has in force: its pieces by flow, and the titles of its conjunctions."""

    pieces: dict[FlowKey, Program]
    titles: list[str]


class PolicyParts:
    """The policies of a cluster as contributions to its scope."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.identities = Identities()
        self._numbers = Numbers()
        self._selections: dict[PodSet, _Selection] = {}
        #: Selections by their namespace; under "" those of several namespaces.
        self._by_namespace: dict[str, set[PodSet]] = {}
        self._node_users: set[Key] = set()
        self._port_users: dict[str, set[Key]] = {}
        self._having: dict[str, set[int]] = {}
        self._same_priority: dict[tuple[Tier, int], set[Key]] = {}
        self._records: dict[Key, _Record] = {}
        self._policies: dict[Key, Policy] = {}
        #: For each flow what each policy wants of it; the policy alone where it is the only one.
        self._wanted: dict[FlowKey, Key | set[Key]] = {}
        #: Policies for whose rules the tables have no room.
        self.crowded: set[Key] = set()

    # Changes ----------------------------------------------------------------------------------------------------

    def reidentified(self, change: Change) -> set[tuple[str, str]]:
        """Pods, by namespace and name, that may get another identity by this change."""
        names: set[tuple[str, str]] = set()
        for version in (change.old, change.new):
            if isinstance(version, Pod):
                names.add((version.namespace, version.name))
        return names | self._with_label(UNIMPORTANT.intersection(_keys(change.old) ^ _keys(change.new)))

    def _with_label(self, keys: Iterable[str]) -> set[tuple[str, str]]:
        wanted = set(keys)
        if not wanted:
            return set()
        pods = self._cluster.pods.items()
        return {name for name, pod in pods if any(key in wanted for key, _ in pod.labels)}

    def take(self, changes: Iterable[Change]) -> list[tuple[Flow | None, Flow | None]]:
        """Follow changes that the cluster has made already. Returns the flows that changed, before and after."""
        touched: set[Key] = set()
        for change in changes:
            match change.new if change.new is not None else change.old:
                case Policy():
                    touched |= self._take_policy(change.old, change.new)
                case Namespace(name=name):
                    touched |= self._take_namespace(name)
                    if _logs(change.old) != _logs(change.new):
                        touched |= {key for key in self._policies if key[1] == name}
                case Node():
                    touched |= self._node_users
                case Pod(namespace=namespace, name=name):
                    touched |= self._take_pod(namespace, name)
        return self._remake(touched)

    def release(self, numbers: Iterable[int]) -> list[tuple[Flow | None, Flow | None]]:
        """Identities that no pod has had for long are given up."""
        return self._remake(self._release(numbers))

    def _release(self, numbers: Iterable[int]) -> set[Key]:
        touched: set[Key] = set()
        for number in numbers:
            touched |= self._disappear(number)
            self.identities.release(number)
        return touched

    def renumber(self, moves: Mapping[Profile, int]) -> None:
        """Identities get other numbers, all at once."""
        touched = self._release(self.identities.squatters(moves))
        for profile in moves:
            touched |= self._disappear(self.identities.number_of(profile))
        self.identities.move(moves)
        for number in moves.values():
            touched |= self._appear(number)
        self._remake(touched)

    def _take_pod(self, namespace: str, name: str) -> set[Key]:
        pod = self._cluster.pods.get((namespace, name))
        if pod is None:
            self.identities.remove(namespace, name)
            return set()
        number = self.identities.put(pod)
        return set() if number is None else self._appear(number)

    def _appear(self, number: int) -> set[Key]:
        """A new identity: into every selection that it belongs to."""
        touched: set[Key] = set()
        profile = self.identities[number]
        labels = self._namespace_labels(profile.namespace)
        for pods in self._candidates(profile.namespace):
            if pods.has(profile.namespace, labels, profile.labels):
                selection = self._selections[pods]
                selection.members.add(number)
                touched |= selection.users
        for name, _, _ in profile.ports:
            self._having.setdefault(name, set()).add(number)
            touched |= self._port_users.get(name, set())
        return touched

    def _disappear(self, number: int) -> set[Key]:
        """The opposite of `_appear`."""
        touched: set[Key] = set()
        profile = self.identities[number]
        for pods in self._candidates(profile.namespace):
            selection = self._selections[pods]
            if number in selection.members:
                selection.members.discard(number)
                touched |= selection.users
        for name, _, _ in profile.ports:
            self._having[name].discard(number)
            touched |= self._port_users.get(name, set())
        return touched

    def _take_namespace(self, name: str) -> set[Key]:
        """A namespace's labels: who is in selections of several namespaces."""
        touched: set[Key] = set()
        labels = self._namespace_labels(name)
        for pods in self._by_namespace.get("", ()):
            selection = self._selections[pods]
            for number in self.identities.of_namespace(name):
                profile = self.identities[number]
                if pods.has(name, labels, profile.labels) != (number in selection.members):
                    selection.members ^= {number}
                    touched |= selection.users
        return touched

    def _take_policy(self, old: object, new: object) -> set[Key]:
        touched: set[Key] = set()
        changed_keys: set[str] = set()
        if isinstance(old, Policy):
            changed_keys |= self.identities.ask_no_more(_keys(old))
            self._unregister(old)
            touched |= self._rivals(old) | {old.key}
        if isinstance(new, Policy):
            changed_keys ^= self.identities.ask_for(_keys(new))
            self._register(new)
            touched |= self._rivals(new) | {new.key}
        for namespace, name in self._with_label(changed_keys):
            touched |= self._take_pod(namespace, name)
        return touched

    def _rivals(self, policy: Policy) -> set[Key]:
        if policy.tier is Tier.NETWORK_POLICY:
            return set()
        return set(self._same_priority.get((policy.tier, policy.priority), ()))

    def _register(self, policy: Policy) -> None:
        self._policies[policy.key] = policy
        if policy.tier is not Tier.NETWORK_POLICY:
            self._same_priority.setdefault((policy.tier, policy.priority), set()).add(policy.key)
        for pods in _pod_sets(policy):
            self._select(pods).users.add(policy.key)
        for name in _port_names(policy):
            self._port_users.setdefault(name, set()).add(policy.key)
        if any(isinstance(peer, NodeSet) for rule in _rules(policy) for peer in rule.peers or ()):
            self._node_users.add(policy.key)

    def _unregister(self, policy: Policy) -> None:
        del self._policies[policy.key]
        self._node_users.discard(policy.key)
        if policy.tier is not Tier.NETWORK_POLICY:
            self._same_priority[policy.tier, policy.priority].discard(policy.key)
        for name in _port_names(policy):
            self._port_users[name].discard(policy.key)
        for pods in _pod_sets(policy):
            selection = self._selections[pods]
            selection.users.discard(policy.key)
            if not selection.users:
                del self._selections[pods]
                self._by_namespace[pods.namespace].discard(pods)

    # Selections -------------------------------------------------------------------------------------------------

    def _select(self, pods: PodSet) -> _Selection:
        found = self._selections.get(pods)
        if found is None:
            found = self._selections[pods] = _Selection(set(self._find(pods)), set())
            self._by_namespace.setdefault(pods.namespace, set()).add(pods)
        return found

    def _find(self, pods: PodSet) -> Iterator[int]:
        if pods.everybody:
            return
        for namespace in [pods.namespace] if pods.namespace else self.identities.namespaces():
            labels = self._namespace_labels(namespace)
            if pods.namespace or selects(pods.namespaces, labels):
                for number in self.identities.of_namespace(namespace):
                    if selects(pods.pods, self.identities[number].labels):
                        yield number

    def _candidates(self, namespace: str) -> list[PodSet]:
        found = [*self._by_namespace.get(namespace, ()), *self._by_namespace.get("", ())]
        # Everybody is told by a bit of a register, not by a list.
        return [each for each in found if not each.everybody]

    def _namespace_labels(self, name: str) -> tuple[tuple[str, str], ...]:
        found = self._cluster.namespaces.get(name)
        return found.labels if found is not None else (("kubernetes.io/metadata.name", name),)

    def members(self, pods: PodSet) -> frozenset[int]:
        """The identities of a set of pods that a policy uses."""
        return frozenset(self._selections[pods].members)

    def addresses_of(self, nodes: Selector) -> tuple[Address, ...]:
        """The addresses of nodes, by their labels."""
        found = (node for node in self._cluster.nodes.values() if selects(nodes, node.labels))
        return tuple(address for node in sorted(found, key=lambda node: node.name) for address in node.addresses)

    def named_ports(self, identity: int) -> tuple[NamedPort, ...]:
        """The ports of an identity that have names."""
        return self.identities[identity].ports

    def having(self, port_name: str) -> frozenset[int]:
        """The identities that have a port of this name."""
        return frozenset(self._having.get(port_name, ()))

    # Flows ------------------------------------------------------------------------------------------------------

    def _remake(self, touched: set[Key]) -> list[tuple[Flow | None, Flow | None]]:
        """Bring what these policies want up to date. Returns the flows that changed, before and after."""
        before: dict[FlowKey, Flow | None] = {}
        waiting, done = set(touched), set()
        while waiting:
            key = min(waiting)
            waiting.discard(key)
            done.add(key)
            # Who has to give way in a clash of numbers is made anew with the other number.
            waiting |= self._remake_one(key, before) - done
        after = ((key, self._flow(key)) for key in before)
        return [(before[key], flow) for key, flow in after if before[key] != flow]

    def _remake_one(self, key: Key, before: dict[FlowKey, Flow | None]) -> set[Key]:
        """Bring one policy up to date. Returns those that have other numbers than before because of it."""
        old = self._records.get(key, _Record({}, []))
        self._numbers.drop(old.titles)
        self.crowded.discard(key)
        new = _Record({}, [])
        policy = self._policies.get(key)
        if policy is not None:

            def number(title: str) -> int:
                self._numbers.take((title,))
                new.titles.append(title)
                return self._numbers(title)

            for piece in self._pieces(policy, number):
                _join(new.pieces, piece)
        gone = old.pieces.keys() - new.pieces.keys()
        come = {each for each, program in new.pieces.items() if old.pieces.get(each) != program}
        for each in gone | come:
            if each not in before:
                before[each] = self._flow(each)
        if policy is None:
            self._records.pop(key, None)
        else:
            self._records[key] = new
        for each in gone:
            self._unwant(each, key)
        for each in come:
            self._want(each, key)
        return {_owner(title) for title in self._numbers.rivals([*old.titles, *new.titles])} - {key}

    def _pieces(self, policy: Policy, number: Callable[[str], int]) -> Iterator[Piece]:
        given: dict[Direction, tuple[int, ...]] = {}
        if policy.tier is not Tier.NETWORK_POLICY:
            neighbours = sorted(self._same_priority[policy.tier, policy.priority])
            ordered = sorted((self._policies[key] for key in neighbours), key=lambda each: (each.kind, each.name))
            for direction in Direction:
                placed, _ = ranks(ordered, direction)
                if policy not in placed:
                    self.crowded.add(policy.key)
                    policy = closed(policy)
                    given = dict.fromkeys(Direction, (table.RANKS - 1,))
                    break
                given[direction] = placed[policy]
        return pieces(self._with_logs(policy), given, self, number)

    def _with_logs(self, policy: Policy) -> Policy:
        """A policy with what its namespace asks to be logged."""
        namespace = self._cluster.namespaces.get(policy.namespace)
        if namespace is None or not (namespace.log_denied or namespace.log_allowed):
            return policy
        denied, allowed = policy.log_denied or namespace.log_denied, policy.log_allowed or namespace.log_allowed
        return msgspec.structs.replace(policy, log_denied=denied, log_allowed=allowed)

    def _want(self, key: FlowKey, policy: Key) -> None:
        there = self._wanted.get(key)
        if there is None:
            self._wanted[key] = policy
        elif isinstance(there, set):
            there.add(policy)
        elif there != policy:
            self._wanted[key] = {there, policy}

    def _unwant(self, key: FlowKey, policy: Key) -> None:
        there = self._wanted.get(key)
        if not isinstance(there, set):
            self._wanted.pop(key, None)
            return
        there.discard(policy)
        if len(there) == 1:
            (self._wanted[key],) = there

    def _flow(self, key: FlowKey) -> Flow | None:
        """A flow as all that want it want it; its cookie is that of the first by name."""
        there = self._wanted.get(key)
        if there is None:
            return None
        owners = sorted(there) if isinstance(there, set) else [there]
        programs = [program for owner in owners if (program := self._program(owner, key)) is not None]
        if not programs:
            return None
        # Where one of them asks for more than the verdict, to tell of it, that is done for all.
        program = max(programs, key=len)
        if program and isinstance(program[0], Conjunction):
            parts = {each for program in programs for each in program if isinstance(each, Conjunction)}
            program = tuple(sorted(parts, key=lambda each: (each.id, each.clause)))
        kind, namespace, name = owners[0]
        mark = cookie(Scope.CLUSTER, Kind.POLICY, object_id(kind, namespace, name))
        number, priority, match = key
        return Flow(number, priority, match, program, mark)

    def _program(self, owner: Key, key: FlowKey) -> Program | None:
        record = self._records.get(owner)
        return record.pieces.get(key) if record is not None else None

    def flows(self) -> Iterator[Flow]:
        """Every flow of the policy tables that policies have asked for."""
        for key in self._wanted:
            flow = self._flow(key)
            if flow is not None:
                yield flow

    def size(self, policy: Key) -> int:
        """How many flows a policy has a part in."""
        record = self._records.get(policy)
        return len(record.pieces) if record is not None else 0

    def subjects(self, policy: Policy) -> frozenset[int]:
        """The identities of the pods that a policy selects."""
        return frozenset(self.identities) if policy.subjects.everybody else self.members(policy.subjects)

    def action_of(self, flow: Flow, direction: Direction, tier: Tier) -> Action | None:
        """What a flow of a tier's table says of packets; None for a part of a conjunction."""
        program = table.untold(flow.program)
        found = (each for each in Action if table.verdict(direction, tier, each) == program)
        return next(found, None)

    def flows_of(self, policy: Key) -> Iterator[Flow]:
        """The flows that a policy has a part in."""
        record = self._records.get(policy)
        for key in record.pieces if record is not None else ():
            flow = self._flow(key)
            if flow is not None:
                yield flow


def closed(policy: Policy) -> Policy:
    """A policy that can't be carried out as it is written: it denies what it may have been about."""
    deny = (Rule(Action.DENY),)
    return msgspec.structs.replace(
        policy,
        ingress=deny if policy.ingress is not None else None,
        egress=deny if policy.egress is not None else None,
    )


def _join(wanted: dict[FlowKey, Program], piece: Piece) -> None:
    there = wanted.get(piece.key)
    if there is not None and piece.program and isinstance(piece.program[0], Conjunction):
        wanted[piece.key] = (*there, *(each for each in piece.program if each not in there))
    else:
        wanted[piece.key] = piece.program


def _logs(namespace: object) -> tuple[bool, bool]:
    if not isinstance(namespace, Namespace):
        return False, False
    return namespace.log_denied, namespace.log_allowed


def _owner(title: str) -> Key:
    kind, namespace, name, *_ = title.split("/")
    return kind, namespace, name


def _rules(policy: Policy) -> Iterator[Rule]:
    yield from policy.ingress or ()
    yield from policy.egress or ()


def _pod_sets(policy: Policy) -> set[PodSet]:
    peers = {peer for rule in _rules(policy) for peer in rule.peers or () if isinstance(peer, PodSet)}
    return peers | {policy.subjects}


def _port_names(policy: Policy) -> set[str]:
    return {port.port for rule in _rules(policy) for port in rule.ports or () if isinstance(port.port, str)}


def _keys(policy: object) -> set[str]:
    """The label keys of pods that a policy asks for."""
    if not isinstance(policy, Policy):
        return set()
    return {requirement.key for pods in _pod_sets(policy) for requirement in pods.pods}
