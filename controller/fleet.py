"""All switches: which connection is which node's, and every update to every switch that it concerns.

    connection ── Peer ── Session (bytes to messages) ── SwitchSync (messages to bundles)
                   │
                 Fleet ── ClusterLog, a ScopeState for each node

Sans-I/O: a connection gives a Peer its bytes and a function to write with. Time is an argument.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from controller.batch import Xids
from controller.leases import Tenure
from controller.refusals import Refusals, RefusedError, Why
from controller.scopes import ClusterLog, OwnOnly, ScopeState, Source
from controller.session import Session, SessionError
from controller.structured_log import about
from controller.sync import ALONE, Events, Phase, SwitchSync, SyncError
from flows.openflow.messages import FeaturesReply
from flows.update import CLUSTER, Update
from topology import naming

log = logging.getLogger(__name__)

#: Connections of switches that no node is known for. They are held, idle, because their node may be about to appear.
UNKNOWN_LIMIT = 10_000


class Link(Protocol):
    """A connection as a Peer sees it: somewhere to write, and a way to end it."""

    def write(self, buffers: Iterable[bytes]) -> None: ...

    def close(self, reason: str) -> None: ...


class Whole(Source, Protocol):
    """What makes every scope, and knows which switches have nothing of the cluster's."""

    @property
    def transit(self) -> Collection[str]: ...


class Mastery(Protocol):
    """Which switches are this controller's to write to."""

    def tenure(self, node: str) -> Tenure | None:
        """That this controller is master of a node's switch, if it is."""

    def epoch(self, node: str) -> int:
        """The highest epoch known of the switch's masters."""


class Alone:
    """The mastery of the only controller: of everything, for good."""

    def tenure(self, node: str) -> Tenure | None:
        return ALONE

    def epoch(self, node: str) -> int:
        return 0


class Fleet:
    """Every switch, and what each scope should hold."""

    def __init__(
        self,
        source: Whole,
        events: Events,
        node_of: Callable[[int], str | None],
        mastery: Mastery | None = None,
    ) -> None:
        self.syncs: dict[str, SwitchSync] = {}
        self.peers: dict[str, Peer] = {}
        self.unknown: dict[int, Peer] = {}
        self.refusals = Refusals()
        self._source = source
        self._events = events
        self._node_of = node_of
        self._mastery = mastery or Alone()
        self._xids = Xids()
        self.cluster = ClusterLog(source, self._xids)
        #: Switches in transit have a log in which nothing ever happens. Who is connected as one.
        self._own_only = OwnOnly(source)
        self._no_cluster = ClusterLog(self._own_only, self._xids)
        self._in_transit: set[str] = set()
        self._scopes: dict[str, ScopeState] = {}

    def scope(self, node: str) -> ScopeState:
        """What a node's own scope should hold."""
        state = self._scopes.get(node)
        if state is None:
            state = self._scopes[node] = ScopeState(self._source.flows(node), self._source.groups(node))
        return state

    def take(self, updates: Iterable[Update], now: float) -> None:
        """Changes that the compiler has made already; they go out at once to every switch that is ready."""
        self.flush(self.follow(updates), now)

    def follow(self, updates: Iterable[Update]) -> list[str]:
        """Take changes in, which may take a while where they are yet to be made. Returns whose switches to `flush`."""
        everyone = False
        concerned = []
        for update in updates:
            if update.scope == CLUSTER:
                self.cluster.take(update)
                everyone = True
                continue
            if update.scope in self._scopes:
                self._scopes[update.scope].take(update)
            sync = self.syncs.get(update.scope)
            if sync is not None:
                sync.queue(update)
                concerned.append(update.scope)
        return list(self.syncs) if everyone else concerned

    def flush(self, nodes: Iterable[str], now: float) -> None:
        """Send what has gathered for these nodes' switches."""
        for node in nodes:
            self.syncs[node].flush(now)

    def send(self, node: str, messages: Iterable[bytes], now: float) -> None:
        """Send a node's switch what is in no state of its, if this controller is its master."""
        sync = self.syncs.get(node)
        if sync is not None:
            sync.send(messages, now)

    def admit(self, now: float) -> None:
        """Look again at switches that were unknown, or are of another kind now: call when nodes have changed."""
        for node in self._in_transit.symmetric_difference(self._source.transit):
            if node in self.peers:
                # What it has of the cluster's scope, or lacks, its digest says when it connects anew.
                self.peers[node].close(
                    "it is in transit now" if node in self._source.transit else "it isn't in transit"
                )
        for datapath_id, peer in list(self.unknown.items()):
            if self._node_of(datapath_id) is not None:
                del self.unknown[datapath_id]
                peer.identify(datapath_id, now)

    def identified(self, peer: Peer, datapath_id: int, now: float) -> None:
        """A connection has said which switch it is. Raises RefusedError where its certificate is another node's."""
        node = self._node_of(datapath_id)
        certified = peer.certified
        if certified and (naming.datapath_id(certified) != datapath_id or node not in (None, certified)):
            of = f"node {node}" if node is not None else "no known node"
            raise RefusedError(
                Why.WRONG_NODE, f"its certificate is node {certified}'s, its datapath id {datapath_id:016x} is of {of}"
            )
        if node is None:
            former = self.unknown.get(datapath_id)
            if former is not None:
                former.close("the switch has connected anew")
            elif len(self.unknown) >= UNKNOWN_LIMIT:
                raise SessionError("too many switches that no node is known for")
            log.warning("switch %016x is of no known node; it waits", datapath_id)
            self.unknown[datapath_id] = peer
            return
        if node in self.peers:
            self.peers[node].close("the switch has connected anew")
        # Made before the ports are told: what they change is counted in.
        scope = self.scope(node)
        source, cluster = self._shared_with(node)
        sync = SwitchSync(node, source, cluster, scope, self._xids, peer.write, self._events)
        self.peers[node] = peer
        self.syncs[node] = sync
        peer.sync = sync
        log.info("switch of node %s connected", node, extra=about(node=node))
        self._events.connected(node)
        sync.begin(now, self._mastery.tenure(node), self._mastery.epoch(node))

    def _shared_with(self, node: str) -> tuple[Source, ClusterLog]:
        """What makes the flows of a node's switch, and the log of the cluster's scope as it is for it."""
        if node in self._source.transit:
            self._in_transit.add(node)
            return self._own_only, self._no_cluster
        return self._source, self.cluster

    def shared(self, node: str) -> ScopeState:
        """What a node's switch should hold of the cluster's scope."""
        return (self._no_cluster if node in self._source.transit else self.cluster).state

    def obey(self, now: float) -> None:
        """Be to each switch what the leases say by now, and look whether what waits has waited long enough."""
        for node, sync in list(self.syncs.items()):
            sync.obey(self._mastery.tenure(node), self._mastery.epoch(node), now)

    def refuse(self, address: str, why: Why, text: str, now: float) -> None:
        """A peer isn't let in: count it, and log it where that is due."""
        line = self.refusals.add(address, why, text, now)
        if line is not None:
            log.warning("%s", line)

    def left(self, peer: Peer, reason: str) -> None:
        """A connection has ended."""
        for datapath_id, each in list(self.unknown.items()):
            if each is peer:
                del self.unknown[datapath_id]
        for node, each in list(self.peers.items()):
            if each is peer:
                del self.peers[node]
                del self.syncs[node]
                self._in_transit.discard(node)
                self._events.disconnected(node, reason)

    def phase(self, node: str) -> Phase | None:
        """How far a node's switch is; None where it isn't connected."""
        sync = self.syncs.get(node)
        return None if sync is None else sync.phase


class Peer:
    """One connection: its session, and once it is known whose it is, its sync.

    `name` is its address; `certified` the node that its certificate is of, empty where it has shown none.
    """

    def __init__(self, fleet: Fleet, link: Link, name: str, now: float, certified: str = "") -> None:
        self.name = name
        self.certified = certified
        self.sync: SwitchSync | None = None
        #: Whether it has said which switch it is.
        self.known = False
        self._fleet = fleet
        self._link = link
        self._session = Session(now)
        self._closed = False
        self._send_session()

    def write(self, buffers: Iterable[bytes]) -> None:
        """Send to the switch, in order."""
        if not self._closed:
            self._link.write(buffers)

    def receive(self, data: bytes, now: float) -> None:
        """Bytes from the switch. Whatever is wrong with them ends this connection and nothing else."""
        try:
            messages = self._session.receive(data, now)
            self._send_session()
            for message in messages:
                if isinstance(message, FeaturesReply):
                    self.identify(message.datapath_id, now)
                elif self.sync is not None:
                    self.sync.receive(message, now)
        except (SessionError, SyncError, RefusedError) as error:
            self._send_session()
            self._end(error, Why.PROTOCOL, now)

    def identify(self, datapath_id: int, now: float) -> None:
        """Take the place of the switch with this id."""
        try:
            self._fleet.identified(self, datapath_id, now)
            self.known = True
        except (RefusedError, SessionError) as error:
            self._end(error, Why.CROWDED, now)

    def tick(self, now: float) -> None:
        """Once a second or so."""
        try:
            self._session.tick(now)
            self._send_session()
        except SessionError as error:
            self._end(error, Why.SLOW, now)

    def close(self, reason: str) -> None:
        """End the connection from this side."""
        if not self._closed:
            who = self.name if self.sync is None else f"node {self.sync.node}"
            node = self.sync.node if self.sync is not None else ""
            log.warning("connection of %s closed: %s", who, reason, extra=about(node=node))
            self._hang_up(reason)

    def _end(self, error: Exception, why: Why, now: float) -> None:
        """Whoever has been let in is told of as a node; all others are refused."""
        if self.known:
            self.close(str(error))
        elif not self._closed:
            if isinstance(error, RefusedError):
                why = error.why
            self._fleet.refuse(self.name, why, str(error), now)
            self._hang_up(str(error))

    def _hang_up(self, reason: str) -> None:
        self._link.close(reason)
        self.lost(reason)

    def lost(self, reason: str = "its switch has hung up, or the connection broke") -> None:
        """The connection has ended."""
        if not self._closed:
            self._closed = True
            self._fleet.left(self, reason)

    def _send_session(self) -> None:
        if self._session.output:
            self.write(self._session.output)
            self._session.output = []
