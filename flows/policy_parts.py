"""Policies and identities among the compiler's contributions: whose flows a change concerns, and what they are now.

Owns the identities, and for each flow of the policy tables who wants what of it. Several policies may want one flow -
allow the same, isolate the same pods, share part of a conjunction -, so a flow is made of what all of them want
together. Who is a member of which selection is `topology.selections`' to know.

    pod ──> Identities ──new, released──> Selections ──changed──> policies that use them ──pieces──> flows
    policy ──────────────────────────────────────────────────────────▲

A policy is made anew as a whole where it is small. Of a large one only the pieces of the identities are that have come
to its selections or left them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from heapq import heapify, heappop, heappush
from itertools import chain

import msgspec

from flows.cookies import Kind, Scope, cookie
from flows.numbers import Numbers
from flows.policies import Block, Piece, Shape, blocks, pieces, pieces_about, ranks, shape
from flows.senders import PORTION, Senders
from flows.tables import policy as table
from flows.values import Conjunction, Flow, FlowKey, Program
from topology.identities import UNIMPORTANT, Identities, NamedPort, Profile
from topology.model import Change, Cluster, Key, Labels, Namespace, Node, Pod
from topology.naming import Address, object_id
from topology.policies import Action, Direction, NodeSet, PodSet, Policy, Rule, Tier, closed
from topology.selections import NAME_LABEL, Selections
from topology.selectors import Selector, selects

#: Pieces from which on a policy is large.
LARGE = 64


class _Record(msgspec.Struct):
    """What a policy has in force: its pieces by flow, the titles of its conjunctions, and of a large one its shape."""

    pieces: dict[FlowKey, Program]
    titles: list[str]
    shape: list[Shape]
    #: The cookie of its flows.
    mark: int


class _Touched:
    """Policies to be made anew: as a whole, or for the identities that have come or gone."""

    def __init__(self) -> None:
        self.wholly: set[Key] = set()
        self.about: dict[Key, set[int]] = {}
        #: Identities that have appeared or vanished, whether or not a policy uses them.
        self.identities: set[int] = set()

    def by(self, number: int, policies: Iterable[Key]) -> None:
        """An identity has come to selections of these policies, or left them."""
        for each in policies:
            self.about.setdefault(each, set()).add(number)


class PolicyParts:
    """The policies of a cluster as contributions to its scope."""

    def __init__(self, cluster: Cluster, *, keyed: bool = True) -> None:
        self._cluster = cluster
        self.identities = Identities()
        self.senders = Senders(self.identities, keyed=keyed)
        self._selections = Selections(self.identities, self._namespace_labels)
        self._numbers = Numbers()
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
        return names | self._with_label(_keys(change.old) ^ _keys(change.new))

    def _with_label(self, keys: Iterable[str]) -> set[tuple[str, str]]:
        wanted = set(keys)
        if not wanted:
            return set()
        pods = self._cluster.pods.items()
        return {name for name, pod in pods if any(key in wanted for key, _ in pod.labels)}

    def take(self, changes: Iterable[Change]) -> list[tuple[Flow | None, Flow | None]]:
        """Follow changes that the cluster has made already. Returns the flows that changed, before and after."""
        touched = _Touched()
        for change in changes:
            match change.new if change.new is not None else change.old:
                case Policy():
                    self._take_policy(change.old, change.new, touched)
                case Namespace(name=name):
                    self._take_namespace(name, change.old, touched)
                    if _logs(change.old) != _logs(change.new):
                        touched.wholly |= {key for key in self._policies if key[1] == name}
                case Node():
                    touched.wholly |= self._node_users
                case Pod(namespace=namespace, name=name):
                    self._take_pod(namespace, name, touched)
        return self._remake(touched)

    def asked_for_after(self, changes: Iterable[Change]) -> frozenset[str]:
        """The label keys that policies will ask for after these changes, of those that else don't matter."""
        changes = list(changes)
        return self.identities.asked_for_after(
            (key for change in changes for key in _keys(change.old)),
            (key for change in changes for key in _keys(change.new)),
        )

    def expect(self, pods: Iterable[Pod], asked_for: Set[str]) -> list[tuple[Flow | None, Flow | None]]:
        """Pods will come when these keys are asked for: have their identities there already, though nobody's yet.

        Policies that come before them are then made once for all of them, and are in force before they are known.
        """
        touched = _Touched()
        for pod in pods:
            number = self.identities.expect(pod, asked_for)
            if number is not None:
                self._appear(number, touched)
        return self._remake(touched)

    def release(self, numbers: Iterable[int]) -> list[tuple[Flow | None, Flow | None]]:
        """Identities that no pod has had for long are given up."""
        touched = _Touched()
        self._release(numbers, touched)
        return self._remake(touched)

    def _release(self, numbers: Iterable[int], touched: _Touched) -> None:
        for number in numbers:
            self._disappear(number, touched)
            self.identities.release(number)

    def renumber(self, moves: Mapping[Profile, int]) -> None:
        """Identities get other numbers, all at once."""
        touched = _Touched()
        self._release(self.identities.squatters(moves), touched)
        for profile in moves:
            self._disappear(self.identities.number_of(profile), touched)
        self.identities.move(moves)
        for number in moves.values():
            self._appear(number, touched)
        # A number may be another identity's now: what was wanted for it before is not to be taken for the same.
        touched.wholly |= touched.about.keys()
        self._remake(touched)

    def _take_pod(self, namespace: str, name: str, touched: _Touched) -> None:
        pod = self._cluster.pods.get((namespace, name))
        if pod is None:
            self.identities.remove(namespace, name)
            return
        number = self.identities.put(pod)
        if number is not None:
            self._appear(number, touched)

    def _appear(self, number: int, touched: _Touched) -> None:
        """A new identity: into every selection that it belongs to."""
        touched.identities.add(number)
        touched.by(number, self._selections.appear(number))
        for name, _, _ in self.identities[number].ports:
            self._having.setdefault(name, set()).add(number)
            touched.by(number, self._port_users.get(name, ()))

    def _disappear(self, number: int, touched: _Touched) -> None:
        """The opposite of `_appear`."""
        touched.identities.add(number)
        touched.by(number, self._selections.vanish(number))
        for name, _, _ in self.identities[number].ports:
            self._having[name].discard(number)
            touched.by(number, self._port_users.get(name, ()))

    def _take_namespace(self, name: str, old: object, touched: _Touched) -> None:
        """A namespace's labels: who is in selections of several namespaces."""
        before = old.labels if isinstance(old, Namespace) else _default_labels(name)
        for number, users in self._selections.relabel(name, before, self._namespace_labels(name)):
            touched.by(number, users)

    def _take_policy(self, old: object, new: object, touched: _Touched) -> None:
        changed_keys: set[str] = set()
        if isinstance(old, Policy):
            changed_keys |= self.identities.ask_no_more(_keys(old))
            self._unregister(old)
            touched.wholly |= self._rivals(old) | {old.key}
        if isinstance(new, Policy):
            changed_keys ^= self.identities.ask_for(_keys(new))
            self._register(new)
            touched.wholly |= self._rivals(new) | {new.key}
        for namespace, name in self._with_label(changed_keys):
            self._take_pod(namespace, name, touched)

    def _rivals(self, policy: Policy) -> set[Key]:
        if policy.tier is Tier.NETWORK_POLICY:
            return set()
        return set(self._same_priority.get((policy.tier, policy.priority), ()))

    def _register(self, policy: Policy) -> None:
        self._policies[policy.key] = policy
        self.senders.put(policy)
        if policy.tier is not Tier.NETWORK_POLICY:
            self._same_priority.setdefault((policy.tier, policy.priority), set()).add(policy.key)
        for pods in set(_pod_sets(policy)):
            self._selections.use(pods, policy.key)
        for name in _port_names(policy):
            self._port_users.setdefault(name, set()).add(policy.key)
        if any(isinstance(peer, NodeSet) for rule in _rules(policy) for peer in rule.peers or ()):
            self._node_users.add(policy.key)

    def _unregister(self, policy: Policy) -> None:
        del self._policies[policy.key]
        self.senders.remove(policy.key)
        self._node_users.discard(policy.key)
        if policy.tier is not Tier.NETWORK_POLICY:
            self._same_priority[policy.tier, policy.priority].discard(policy.key)
        for name in _port_names(policy):
            self._port_users[name].discard(policy.key)
        for pods in set(_pod_sets(policy)):
            self._selections.leave(pods, policy.key)

    # Who is meant -----------------------------------------------------------------------------------------------

    def _namespace_labels(self, name: str) -> Labels:
        found = self._cluster.namespaces.get(name)
        return found.labels if found is not None else _default_labels(name)

    def members(self, pods: PodSet) -> Set[int]:
        """The identities of a set of pods that a policy uses."""
        return self._selections.members(pods)

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

    def _remake(self, touched: _Touched) -> list[tuple[Flow | None, Flow | None]]:
        """Bring what these policies want up to date. Returns the flows that changed, before and after."""
        before: dict[FlowKey, Flow | None] = {}
        # In the order of titles: who gives way in a clash of numbers comes after who keeps the number.
        waiting = [(_title(key), key) for key in touched.wholly | touched.about.keys()]
        wholly, done = set(touched.wholly), set()
        heapify(waiting)
        while waiting:
            _, key = heappop(waiting)
            if key in done:
                continue
            done.add(key)
            if key not in wholly and self._remake_about(key, touched.about[key], before):
                continue
            # Who has to give way in a clash of numbers is made anew with the other number.
            for rival in self._remake_one(key, before) - done:
                wholly.add(rival)
                heappush(waiting, (_title(rival), rival))
        after = ((key, self.flow(key)) for key in before)
        changed = [(before[key], flow) for key, flow in after if before[key] != flow]
        return [*changed, *self.senders.follow(touched.identities)]

    def _remake_one(self, key: Key, before: dict[FlowKey, Flow | None]) -> set[Key]:
        """Bring one policy up to date. Returns those that have other numbers than before because of it."""
        old = self._records.get(key) or _Record({}, [], [], _mark(key))
        self._numbers.drop(old.titles)
        self.crowded.discard(key)
        new = _Record({}, [], [], old.mark)
        policy = self._policies.get(key)
        if policy is not None:

            def number(title: str) -> int:
                self._numbers.take((title,))
                new.titles.append(title)
                return self._numbers(title)

            made = self._blocks(policy)
            for block in made:
                _join(new.pieces, pieces(block, number))
            if self._numbers.rivals(new.titles):
                # A title may give way to one of the same policy that has come after it: now all are known.
                new.pieces.clear()
                for block in made:
                    _join(new.pieces, pieces(block, self._numbers))
            if len(new.pieces) >= LARGE:
                new.shape = [shape(block) for block in made]
        # Lists, since the order of sets must not show in what is sent.
        gone = [each for each in old.pieces if each not in new.pieces]
        come = list(new.pieces)
        if old.pieces:
            come = [each for each, program in new.pieces.items() if old.pieces.get(each) != program]
        self._remember(gone, before)
        self._remember(come, before)
        if policy is None:
            self._records.pop(key, None)
        else:
            self._records[key] = new
        self._settle(key, gone, come)
        return {_owner(title) for title in self._numbers.rivals([*old.titles, *new.titles])} - {key}

    def _remake_about(self, key: Key, identities: Set[int], before: dict[FlowKey, Flow | None]) -> bool:
        """Bring the pieces of these identities up to date; whether these were all that may have changed."""
        record, policy = self._records.get(key), self._policies.get(key)
        if record is None or policy is None or not record.shape:
            return False
        made = self._blocks(policy)
        if [shape(block) for block in made] != record.shape:
            return False
        found: dict[FlowKey, Program] = {}
        candidates: dict[FlowKey, None] = {}
        for block in made:
            now = pieces_about(block, identities, self._numbers)
            ever = pieces_about(block, identities, self._numbers, former=True)
            if now is None or ever is None:
                return False
            _join(found, now)
            candidates |= dict.fromkeys(piece.key for piece in ever)
        gone = [each for each in candidates if each in record.pieces and each not in found]
        come = [each for each, program in found.items() if record.pieces.get(each) != program]
        self._remember((*gone, *come), before)
        for each in gone:
            del record.pieces[each]
        record.pieces.update(found)
        self._settle(key, gone, come)
        return True

    def _remember(self, changing: Iterable[FlowKey], before: dict[FlowKey, Flow | None]) -> None:
        for each in changing:
            if each not in before:
                before[each] = self.flow(each)

    def _settle(self, policy: Key, gone: Iterable[FlowKey], come: Iterable[FlowKey]) -> None:
        for each in gone:
            self._unwant(each, policy)
        for each in come:
            self._want(each, policy)

    def _blocks(self, policy: Policy) -> list[Block]:
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
        return list(blocks(self._with_logs(policy), given, self))

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

    def owners(self, key: FlowKey) -> list[Key]:
        """The policies that have a part in a flow."""
        there = self._wanted.get(key)
        return sorted(there) if isinstance(there, set) else [there] if there is not None else []

    def flow(self, key: FlowKey) -> Flow | None:
        """A flow as all that want it want it; its cookie is that of the first by name."""
        there = self._wanted.get(key)
        if there is None:
            return None
        if isinstance(there, set):
            first, *others = (self._records[owner] for owner in sorted(there))
        else:
            first, others = self._records[there], []
        # Where one of them asks for more than the verdict, to tell of it, that is done for all.
        program = max((record.pieces[key] for record in (first, *others)), key=len) if others else first.pieces[key]
        if (others or len(program) > 1) and program and isinstance(program[0], Conjunction):
            together = (each for record in (first, *others) for each in record.pieces[key])
            parts = sorted({each for each in together if isinstance(each, Conjunction)}, key=_by_number)
            program = tuple(parts)
        number, priority, match = key
        return Flow(number, priority, match, program, first.mark)

    def flows(self) -> Iterator[Flow]:
        """Every flow of the policy tables that policies have asked for."""
        return chain.from_iterable(self.portions())

    def portions(self) -> Iterator[Iterable[Flow]]:
        """The same, some at a time; see `Compiler.portions`."""
        keys = list(self._wanted)
        for start in range(0, len(keys), PORTION):
            yield filter(None, map(self.flow, keys[start : start + PORTION]))

    def flows_at(self, places: Set[tuple[int, int]]) -> Iterator[Flow]:
        """The flows of some tables and priorities."""
        for key in self._wanted:
            if key[:2] in places:
                flow = self.flow(key)
                if flow is not None:
                    yield flow

    def size(self, policy: Key) -> int:
        """How many flows a policy has a part in."""
        record = self._records.get(policy)
        return len(record.pieces) if record is not None else 0

    def subjects(self, policy: Policy) -> Set[int]:
        """The identities of the pods that a policy selects."""
        return frozenset(self.identities) if policy.subjects.everybody else self.members(policy.subjects)

    def action_of(self, flow: Flow, direction: Direction, tier: Tier) -> Action | None:
        """What a flow of a tier's table says of packets; None for a part of a conjunction."""
        program = table.untold(flow.program)
        found = (each for each in Action if table.verdict(direction, tier, each) == program)
        return next(found, None)

    def conjunctions(self) -> dict[int, tuple[Key, Direction, int]]:
        """By the number of each conjunction the rule that it is of: its policy, direction and place, from 0."""
        found = {}
        for record in self._records.values():
            for title in record.titles:
                direction, index, _ = title.split("/")[3:]
                found[self._numbers(title)] = (_owner(title), Direction(direction), int(index))
        return found

    def flows_of(self, policy: Key) -> Iterator[Flow]:
        """The flows that a policy has a part in."""
        record = self._records.get(policy)
        for key in record.pieces if record is not None else ():
            flow = self.flow(key)
            if flow is not None:
                yield flow


def _join(wanted: dict[FlowKey, Program], found: Iterable[Piece]) -> None:
    for piece in found:
        there = wanted.get(piece.key)
        if there is not None and piece.program and isinstance(piece.program[0], Conjunction):
            wanted[piece.key] = (*there, *(each for each in piece.program if each not in there))
        else:
            wanted[piece.key] = piece.program


def _default_labels(namespace: str) -> Labels:
    """The labels of a namespace that no object describes."""
    return ((NAME_LABEL, namespace),)


def _by_number(part: Conjunction) -> tuple[int, int]:
    return part.id, part.clause


def _mark(policy: Key) -> int:
    """The cookie of a policy's flows."""
    return cookie(Scope.CLUSTER, Kind.POLICY, object_id(*policy))


def _logs(namespace: object) -> tuple[bool, bool]:
    if not isinstance(namespace, Namespace):
        return False, False
    return namespace.log_denied, namespace.log_allowed


def _title(policy: Key) -> str:
    """What the titles of its conjunctions begin with."""
    return "/".join((*policy, ""))


def _owner(title: str) -> Key:
    kind, namespace, name, *_ = title.split("/")
    return kind, namespace, name


def _rules(policy: Policy) -> Iterator[Rule]:
    yield from policy.ingress or ()
    yield from policy.egress or ()


def _pod_sets(policy: Policy) -> list[PodSet]:
    """Whom a policy names, some perhaps more than once."""
    return [
        policy.subjects,
        *(peer for rule in _rules(policy) for peer in rule.peers or () if isinstance(peer, PodSet)),
    ]


def _port_names(policy: Policy) -> set[str]:
    return {port.port for rule in _rules(policy) for port in rule.ports or () if isinstance(port.port, str)}


def _keys(policy: object) -> set[str]:
    """The label keys of pods that a policy asks for, of those that else don't matter."""
    if not isinstance(policy, Policy):
        return set()
    asked_for = {requirement.key for pods in _pod_sets(policy) for requirement in pods.pods}
    return asked_for & UNIMPORTANT
