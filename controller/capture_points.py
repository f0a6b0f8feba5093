"""What is captured: requests, and the points on switches that they come to.

A point is what is seen of one thing in one way - a pod's packets as it sends them, those that a policy's flow drops -,
with the taps for it and the nodes that these go to. Plans are made of the cluster's state at the time: a pod that moves
or policies that change take no tap along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from controller import pcapng, policy_views
from flows import taps
from flows.compiler import Compiler
from flows.fields import Field
from flows.interpreter import Interpreter, InterpreterError, agrees
from flows.state import LocalPod
from flows.tables.policy import direction_of, place_of
from flows.taps import Taps
from flows.values import Flow, FlowKey
from topology.manifests import object_words
from topology.metadata import Key
from topology.model import Pod
from topology.naming import Address
from topology.policies import Action

#: Flows whose drops are captured, of one switch and of all.
FLOWS, ALL_FLOWS = 1_000, 50_000
#: The word for all policies.
ALL = "all"
_RENAMED = {"source": "from", "target": "to", "drops": "policyDrops"}


class CaptureError(Exception):
    """This can't be captured; the text says why."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename=_RENAMED):
    """What to capture: one pod's packets, those between two, or what a policy drops, and how much.

    Pods are NAMESPACE/NAME; `drops` is a policy, as `policy_views.named` takes it, or `all`. `direction`: what the pod
    (or `from`) sends, what it is sent, or both. Rates are each switch's: more than this and its other words to the
    controller would suffer.
    """

    pod: str = ""
    source: str = ""
    target: str = ""
    drops: str = ""
    direction: str = "both"
    duration: int = 10
    count: int = 10_000
    rate: int = 50
    snaplen: int = 256
    size: int = 10 << 20


#: The bounds of what numbers a request may have.
BOUNDS = {
    "duration": (1, 300),
    "count": (1, 1_000_000),
    "rate": (1, 80),
    "snaplen": (64, 65_535),
    "size": (1_024, 100 << 20),
}
DIRECTIONS = ("both", "sent", "received")


class Point(msgspec.Struct, frozen=True):
    """What packets are seen at a place: `name` and `direction` say what of, `taps` are there on each of `nodes`.

    Of a flow that drops, `rivals` are flows at its tap's priority: what meets one of them it doesn't come to.
    """

    nodes: tuple[str, ...]
    name: str
    description: str
    direction: int
    taps: tuple[Flow, ...]
    rivals: tuple[Flow, ...] = ()

    def sees(self, table: int, priority: int, packet: dict[Field, int]) -> bool:
        """Whether a packet of which another's tap of this table and priority has told is for this one too."""
        return any(
            (tap.table, tap.priority) == (table, priority) and agrees(taps.about(tap), packet) for tap in self.taps
        )

    def loses(self, table: int, packet: dict[Field, int]) -> bool:
        """Whether a rival has the packet."""
        try:
            return bool(self.rivals) and Interpreter(self.rivals).look_up(table, packet) is not None
        except InterpreterError:
            return False


class Planner:
    """Makes plans. `is_master`: whether this controller may write to a node's switch."""

    def __init__(self, compiler: Compiler, is_master: Callable[[str], bool]) -> None:
        self._compiler = compiler
        self._is_master = is_master

    def plan(self, request: Request, made: Taps) -> list[Point]:
        """The points of a request. Raises CaptureError."""
        return list(self._drops(request.drops, made) if request.drops else self._pods(request, made))

    def unheard(self) -> list[str]:
        """Nodes whose switches aren't this controller's to ask."""
        return [node for node in sorted(self._compiler.cluster.nodes) if not self._is_master(node)]

    # Packets of pods --------------------------------------------------------------------------------------------

    def _pods(self, request: Request, made: Taps) -> Iterator[Point]:
        nobody: tuple[Address, ...] = ()
        sends, receives = request.direction != "received", request.direction != "sent"
        if request.pod:
            pod, local = self._find(request.pod)
            wanted = [(pod, local, True, nobody)] * sends + [(pod, local, False, nobody)] * receives
        else:
            (pod, local), (other, others) = self._find(request.source), self._find(request.target)
            there, back = others.addresses, local.addresses
            # Both ends: what was sent and doesn't arrive, and what arrives with a Service's address translated.
            wanted = [(pod, local, True, there), (other, others, False, back)] * sends
            wanted += [(other, others, True, back), (pod, local, False, there)] * receives
        for number, (pod, local, is_sender, peer) in enumerate(wanted):
            about = taps.sent(local.port, peer) if is_sender else taps.delivered(local.port, peer)
            flows = tuple(made.flow(table, match, number) for table, match in about)
            way, direction = ("sent by", pcapng.OUTBOUND) if is_sender else ("delivered to", pcapng.INBOUND)
            name = f"{pod.namespace}/{pod.name}"
            yield Point((pod.node,), name, f"{way} pod {name}", direction, flows)

    def _find(self, name: str) -> tuple[Pod, LocalPod]:
        namespace, _, short = name.partition("/")
        pod = self._compiler.cluster.pods.get((namespace, short))
        if pod is None:
            raise CaptureError(f"no pod {name!r}")
        if not pod.node:
            raise CaptureError(f"pod {name} is on no node yet")
        if not self._is_master(pod.node):
            why = "whose switch isn't connected, or has another master than this controller now"
            raise CaptureError(f"pod {name} is on node {pod.node!r}, {why}")
        for each, local in self._compiler.local_pods(pod.node):
            if each.key == pod.key:
                return pod, local
        raise CaptureError(f"pod {name} has no port on node {pod.node!r}")

    # Packets that policies drop ---------------------------------------------------------------------------------

    def _drops(self, words: str, made: Taps) -> Iterator[Point]:
        policies = self._compiler.cluster.policies
        keys = sorted(policies) if words == ALL else policy_views.named(self._compiler, words)
        if not keys:
            raise CaptureError("there are no policies" if words == ALL else f"no policy {words!r}")
        flows = self._dropping(keys)
        nodes = tuple(node for node in self._compiler.cluster.nodes if self._is_master(node))
        if not flows:
            raise CaptureError(f"nothing that {_words(keys)} says drops packets")
        if not nodes:
            raise CaptureError("no switch is connected, or this controller is not the master of any switch now")
        if len(flows) > FLOWS or len(flows) * len(nodes) > ALL_FLOWS:
            raise CaptureError(
                f"{_words(keys)}: {len(flows)} flows drop packets on each of {len(nodes)} nodes, which is too much to "
                f"capture ({FLOWS} of a node, {ALL_FLOWS} of all); name one policy, or capture what a pod sends"
            )
        above = {(flow.table, flow.priority + 1) for flow in flows}
        rivals: dict[tuple[int, int], list[Flow]] = {}
        for rival in self._compiler.policies.flows_at(above):
            rivals.setdefault((rival.table, rival.priority), []).append(rival)
        for number, flow in enumerate(flows):
            owners = " or ".join(map(object_words, self._compiler.policies.owners(flow.key)))
            description = f"dropped by {owners} ({direction_of(flow.table)})"
            tap = made.before(flow, number)
            there = tuple(rivals.get((tap.table, tap.priority), ()))
            yield Point(nodes, "dropped", description, pcapng.DROPPED, (tap,), there)

    def _dropping(self, keys: Iterable[Key]) -> list[Flow]:
        """The flows that drop packets for policies."""
        parts = self._compiler.policies
        found: dict[FlowKey, Flow] = {}
        for key in keys:
            for flow in parts.flows_of(key):
                place = place_of(flow.table)
                if place is not None and parts.action_of(flow, *place) is Action.DENY:
                    found[flow.key] = flow
        return list(found.values())


def _words(keys: Sequence[Key]) -> str:
    return object_words(keys[0]) if len(keys) == 1 else f"{len(keys)} policies"


def check(request: Request) -> None:
    """Raise CaptureError where a request is out of bounds or says not what to capture."""
    said = [bool(request.pod), bool(request.source or request.target), bool(request.drops)]
    if sum(said) != 1 or bool(request.source) != bool(request.target):
        raise CaptureError("name a pod, or from and to, or policyDrops")
    if request.drops and request.direction != "both":
        raise CaptureError("direction: what policies drop has none; a policy's are ingress and egress")
    if request.direction not in DIRECTIONS:
        raise CaptureError(f"direction: one of {', '.join(DIRECTIONS)}")
    for name, (least, most) in BOUNDS.items():
        if not least <= getattr(request, name) <= most:
            raise CaptureError(f"{name}: from {least} to {most}")
