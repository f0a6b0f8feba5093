"""What happens, in words for the ring of events (`controller.events`).

    Controller, Fleet, Links, Speaker ──what happens──> Chronicle ──tell──> EventLog

It is the log's news, short, for who looks a while later. What is logged where it happens is only told here; all else
is logged here, too, so that the log has everything when the ring has gone with its controller.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from controller.audit import Drift
from controller.events import NORMAL, WARNING, EventLog
from controller.structured_log import about
from topology.graph import Wire
from topology.manifests import Problem
from topology.model import Node, Object

log = logging.getLogger(__name__)

#: Seconds from the first wire that is found for which it is no news that there are wires.
FINDING = 10.0


class Chronicle:
    """Tells of what happens. `clock` is seconds since 1970."""

    def __init__(self, events: EventLog, clock: Callable[[], float] = time.time) -> None:
        self._events = events
        self._clock = clock
        self._down: frozenset[str] = frozenset()
        self._masters: dict[int, str] = {}
        self._found_until: float | None = None

    def _tell(self, type: str, reason: str, *, object: str = "", node: str = "", message: str) -> None:
        self._events.tell(self._clock(), type, reason, object=object, node=node, message=message)

    def _log(self, type: str, reason: str, *, object: str = "", node: str = "", message: str) -> None:
        """Tell, and log."""
        level = logging.WARNING if type == WARNING else logging.INFO
        log.log(level, "%s", f"{object}: {message}" if object else message, extra=about(node=node, object=object))
        self._tell(type, reason, object=object, node=node, message=message)

    # Switches -----------------------------------------------------------------------------------------------------

    def connected(self, node: str) -> None:
        self._tell(NORMAL, "SwitchConnected", object=f"Node {node}", node=node, message="its switch has connected")

    def disconnected(self, node: str, reason: str) -> None:
        self._tell(WARNING, "SwitchDisconnected", object=f"Node {node}", node=node, message=reason)

    def in_sync(self, node: str) -> None:
        self._log(NORMAL, "InSync", object=f"Node {node}", node=node, message="its switch holds all that it should")

    def refused(self, node: str, maker: str, error: str, text: str) -> None:
        self._tell(WARNING, "Refused", object=maker, node=node, message=f"{error}: {text}")

    def drifted(self, node: str, drift: Drift) -> None:
        kinds = ("missing", drift.missing), ("altered", drift.altered), ("foreign", drift.foreign)
        words = ", ".join(f"{len(flows)} {kind}" for kind, flows in kinds if flows)
        total = sum(len(flows) for _, flows in kinds)
        was, were = ("a flow wasn't as it", "was") if total == 1 else ("flows weren't as they", "were")
        text = f"{was} should be and {were} repaired: {words}"
        self._tell(WARNING, "DriftRepaired", object=f"Node {node}", node=node, message=text)

    def lost(self, down: frozenset[str], nodes: Collection[str]) -> bool:
        """The nodes that are lost now, of all that there are. Whether they are others than before."""
        if down == self._down:
            return False
        for node in sorted(down - self._down):
            text = "its switch has been away for long: others announce its addresses of load balancers"
            self._log(WARNING, "NodeLost", object=f"Node {node}", node=node, message=text)
        for node in sorted((self._down - down).intersection(nodes)):
            self._log(NORMAL, "NodeBack", object=f"Node {node}", node=node, message="its switch is back")
        self._down = down
        return True

    def agent_lost(self, node: str, silence: str) -> None:
        text = f"its agent {silence}: pods there can't be added or removed"
        self._log(WARNING, "AgentLost", object=f"Node {node}", node=node, message=text)

    def agent_back(self, node: str) -> None:
        self._log(NORMAL, "AgentBack", object=f"Node {node}", node=node, message="its agent is back")

    # The source ---------------------------------------------------------------------------------------------------

    def problems(self, before: Iterable[Problem], now: Iterable[Problem]) -> None:
        """What was wrong with objects, and what is."""
        old, new = set(before), set(now)
        for each in sorted(new - old):
            place = f"{each.file}:{each.line}: " if each.file else ""
            self._tell(WARNING, "ObjectRejected", object=each.object, message=place + each.reason)
        # Where it can't be told what object it is, it is known by its file.
        whats = [{(each.object, "" if each.object else each.file) for each in found} for found in (old, new)]
        for object, file in sorted(whats[0] - whats[1]):
            place = f"{file}: " if file else ""
            self._log(NORMAL, "ObjectAccepted", object=object, message=f"{place}nothing is wrong with it any more")

    def drained(self, before: Mapping[str, Node], changed: Iterable[Object]) -> None:
        """Nodes as they were, and objects that are others now."""
        for new in changed:
            old = before.get(new.name) if isinstance(new, Node) else None
            if old is None or not isinstance(new, Node) or old.drained == new.drained:
                continue
            if new.drained:
                text = "it gets no new connections of Services and answers for no addresses"
                self._log(NORMAL, "Drained", object=f"Node {new.name}", node=new.name, message=text)
            else:
                self._log(NORMAL, "Undrained", object=f"Node {new.name}", node=new.name, message="it gets work again")

    # Wires, replicas, routers -------------------------------------------------------------------------------------

    def rewired(self, before: Collection[Wire], now: Collection[Wire]) -> None:
        """The wires that there were, and that there are."""
        old, new = ({(each.a, each.a_port, each.b, each.b_port) for each in wires} for wires in (before, now))
        if self._found_until is None:
            self._found_until = self._clock() + FINDING
        for ends in sorted(old - new):
            self._link(WARNING, "LinkDown", ends, "nothing comes over this wire any more")
        # When a controller starts it finds those that there have always been.
        for ends in sorted(new - old) if self._clock() >= self._found_until else ():
            self._link(NORMAL, "LinkUp", ends, "the two ports hear each other")

    def _link(self, type: str, reason: str, ends: tuple[str, str, str, str], text: str) -> None:
        a, a_port, b, b_port = ends
        self._log(type, reason, object=f"Link {a}:{a_port} - {b}:{b_port}", node=a, message=text)

    def masters(self, masters: Mapping[int, str]) -> bool:
        """Who is master of which shard now, empty for nobody. Whether that is otherwise than before."""
        changed = {shard: name for shard, name in masters.items() if self._masters.get(shard, "") != name}
        self._masters = dict(masters)
        of: dict[str, list[int]] = {}
        for shard, name in sorted(changed.items()):
            of.setdefault(name, []).append(shard)
        for name, shards in sorted(of.items()):
            words = f"shard{'s' * (len(shards) > 1)} {', '.join(map(str, shards))}"
            if name:
                self._log(NORMAL, "MasterChanged", object=f"Replica {name}", message=f"it is master of {words} now")
            else:
                self._log(WARNING, "MasterChanged", message=f"nobody is master of {words}: switches go on as they are")
        return bool(changed)

    def router(self, peer: str, line: str, is_up: bool) -> None:
        """A BGP peer's session has begun, or ended, or isn't to be had."""
        type, reason = (NORMAL, "BgpPeerUp") if is_up else (WARNING, "BgpPeerDown")
        self._tell(type, reason, object=f"BGP peer {peer}", message=line)
