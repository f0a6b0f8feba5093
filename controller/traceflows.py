"""Which Traceflows wait to be answered, which are overdue, and what an answer says. Pure; times are seconds since 1970.

Each is run once at most, for a live one sends a packet: it is claimed first, by a status that says Running and that
the API server takes from one claimer alone. One that says Running and isn't run here was begun by a controller that is
gone; when its time is over it has failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from controller import policy_views
from controller.trace.errors import TraceError
from controller.trace.first_packet import Asked, packet_to, service_of
from controller.trace.live import Answer
from controller.trace.result import End, Place, Trace, Visit
from flows.compiler import Compiler
from topology.kubernetes.reflector import Found, Gone
from topology.kubernetes.traceflows import (
    FAILED,
    PENDING,
    RUNNING,
    SCTP_LIVE,
    SUCCEEDED,
    TIMEOUT,
    Spec,
    SpecError,
    Traceflow,
    asked,
)

#: Seconds beyond its timeout after which nobody is taken to run it any more.
GRACE = 5.0
Status = dict[str, Any]


class Traceflows:
    """All that there are, by name; those that are through and stay are passed over."""

    def __init__(self) -> None:
        self._open: dict[str, Traceflow] = {}
        self._expiring: dict[str, Traceflow] = {}
        #: Uids of those that were claimed here.
        self._claimed: set[str] = set()

    def take(self, items: Iterable[Found | Gone]) -> None:
        """What a list or a watch says, in its order."""
        for item in items:
            former = self._open.pop(item.name, None) or self._expiring.pop(item.name, None)
            if isinstance(item, Gone):
                if former is not None:
                    self._claimed.discard(former.uid)
                continue
            value = item.value
            assert isinstance(value, Traceflow)
            if value.phase in (PENDING, RUNNING):
                self._open[value.name] = value
            else:
                self._claimed.discard(value.uid)
                if isinstance(value.spec, Spec) and value.spec.ttl_seconds_after_finished is not None:
                    self._expiring[value.name] = value

    def claim(self, each: Traceflow) -> None:
        """One is run here from now on."""
        self._claimed.add(each.uid)

    def waiting(self) -> list[Traceflow]:
        """Those that nobody has begun, the oldest first."""
        found = (each for each in self._open.values() if each.phase == PENDING and each.uid not in self._claimed)
        return sorted(found, key=lambda each: (each.created, each.name))

    def abandoned(self, now: float) -> Iterator[Traceflow]:
        """Those whose runner is gone."""
        for each in self._open.values():
            if each.phase == RUNNING and each.uid not in self._claimed:
                timeout = each.spec.timeout if isinstance(each.spec, Spec) else TIMEOUT
                if seconds(each.started) + timeout + GRACE <= now:
                    yield each

    def expired(self, now: float) -> Iterator[Traceflow]:
        """Those that are to be deleted."""
        for each in self._expiring.values():
            assert isinstance(each.spec, Spec) and each.spec.ttl_seconds_after_finished is not None
            if seconds(each.completed) + each.spec.ttl_seconds_after_finished <= now:
                yield each


def seconds(text: str) -> float:
    """A time as Kubernetes writes it; 0 where it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


# The question ---------------------------------------------------------------------------------------------------------


def question(compiler: Compiler, spec: Spec) -> Asked:
    """What is to be traced. Raises SpecError where a field names what isn't there."""
    said = asked(spec)
    families: list[set[int]] = []
    for field, text in (("source", said.source), ("destination", said.destination)):
        end = getattr(spec, field)
        what = next(kind for kind in ("pod", "node", "service", "ip") if getattr(end, kind))
        try:
            service = service_of(compiler, text)
            if service is not None:
                families.append({each.version for each in service.cluster_ips})
            else:
                families.append({each.address.version for each in policy_views.parties(compiler, text)})
        except policy_views.QuestionError as error:
            raise SpecError(f"spec.{field}.{what}: {str(error).partition(';')[0]}") from error
        except TraceError as error:
            raise SpecError(f"spec.{field}.{what}: {error}") from error
    both = families[0] & families[1]
    if not both:
        raise SpecError("spec.destination: it has no address of a family that the source has")
    if said.family and said.family not in both:
        raise SpecError(f"spec.packet.family: source and destination have no IPv{said.family} in common")
    try:
        protocol, port = packet_to(compiler, said.destination, said.protocol, said.port)
    except TraceError as error:
        what, several, _ = str(error).partition(";")
        raise SpecError(f"spec.packet.port: {what}{'; say one' if several else ''}") from error
    if protocol == "SCTP" and spec.live:
        raise SpecError(SCTP_LIVE)
    return Asked(said.source, said.destination, protocol, port, said.family)


# The answer -----------------------------------------------------------------------------------------------------------


def failed(message: str, now: str) -> Status:
    """It had no answer, and why."""
    return {"phase": FAILED, "message": message, "completionTime": now}


def by_model(found: Trace, message: str, now: str) -> Status:
    """What becomes of the packet, in words; `message` says why it is the model's answer, if it wasn't to be."""
    return {"phase": SUCCEEDED, "completionTime": now, "live": False} | _way(found) | _if_any(message=message)


def live(answer: Answer, now: str) -> Status:
    """What became of the packet as switches told, and what they did otherwise than the model says."""
    told = {"phase": SUCCEEDED, "completionTime": now, "live": True} | _way(answer.live)
    return told | {"differences": list(answer.differences)}


def _way(found: Trace) -> Status:
    judged = [
        f"{each.action or 'Nothing said'} by {each.object} on {each.node}: {each.words}" for each in found.judgements
    ]
    told = _if_any(reason=found.end.why, service=found.service, endpoint=found.endpoint)
    return {
        "verdict": found.verdict.value,
        "end": _end(found.end),
        "hops": [_hop(visit) for visit in found.visits],
        "policies": judged,
    } | told


def _if_any(**texts: str) -> Status:
    return {key: text for key, text in texts.items() if text}


def _hop(visit: Visit) -> Status:
    steps = [f"{each.table}: {each.words}" + (f" ({each.object})" if each.object else "") for each in visit.steps]
    changed = [f"{each.end} {each.before} becomes {each.after}" for each in visit.translations]
    hop: Status = {"node": visit.node, "from": visit.entered_from, "steps": steps}
    return hop | ({"translations": changed} if changed else {}) | _if_any(to=visit.left_to)


def _end(end: End) -> str:
    match end.place:
        case Place.SWITCH:
            return f"the switch of {end.node}"
        case Place.WORLD:
            return f"the world, by the host of {end.node}"
        case Place.HOST:
            return f"the host of {end.node}"
    return f"pod {end.name} on {end.node}"
