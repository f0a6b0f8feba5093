"""What Kubernetes is told, as writes: conditions, load balancers' addresses and events.

Pure: what is so in, `Write`s out; times are given as text. What is so is looked at by `controller.kubernetes_feed`, how
writes get there is `controller.write_queue`'s business. `deploy/kubernetes/base/rbac.yaml` grants what these ask for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from controller.write_queue import APPLY, MERGE, PLAIN, STRATEGIC, Write
from topology.kubernetes.objects import NETWORK_UNAVAILABLE, OFFLOAD_UNAVAILABLE, REALIZED, About
from topology.kubernetes.resources import BY_KIND, NODES, SERVICES
from topology.model import Key
from topology.naming import Address

#: Who we are in managed fields, and in events.
MANAGER = "signalbox"
READY = "SignalboxReady"
#: Seconds within which the same complaint counts as a repetition of the one before.
SERIES_SECONDS = 600.0
#: Complaints that are remembered, and letters of a note, as Kubernetes has it.
_MOST_SERIES, _LONGEST_NOTE = 5_000, 1_000


def stamp(seconds: float) -> str:
    """A time since 1970 as Kubernetes writes it, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_stamp(seconds: float) -> str:
    """The same, to the microsecond."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def network_ready(node: str, about: About, time: str) -> Write | None:
    """That a node's network is there, unless it says so already: schedulers wait for it."""
    there = about.condition
    if there is not None and (there.status, there.reason) == ("False", READY):
        return None
    condition = {
        "type": NETWORK_UNAVAILABLE,
        "status": "False",
        "reason": READY,
        "message": "the node's bridge has all its flows",
        "lastHeartbeatTime": time,
        "lastTransitionTime": time,
    }
    body = {"status": {"conditions": [condition]}}
    path = NODES.path_of("", node, status=True)
    return Write(f"Node {node}", "PATCH", path, body, STRATEGIC, READY)


def offload(node: str, about: About, fault: str, time: str) -> Write | None:
    """That a node's hardware offload was asked for and isn't in force, and that it is again, unless it says so already.

    Of a node that always was as it should be nothing is said.
    """
    there = about.offload
    status, reason = ("True", "NotInForce") if fault else ("False", "NothingWanting")
    message = fault[:_LONGEST_NOTE] or "hardware offload is as it was asked for"
    if there is None and not fault:
        return None
    if there is not None and (there.status, there.message) == (status, message):
        return None
    condition = {
        "type": OFFLOAD_UNAVAILABLE,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": time,
        "lastTransitionTime": time,
    }
    body = {"status": {"conditions": [condition]}}
    path = NODES.path_of("", node, status=True)
    return Write(f"Node {node} offload", "PATCH", path, body, STRATEGIC, f"{status} {message}")


def balanced(namespace: str, name: str, addresses: Iterable[Address]) -> Write:
    """Which addresses of load balancers a Service has."""
    ingress = [{"ip": str(each), "ipMode": "VIP"} for each in addresses]
    body = {"status": {"loadBalancer": {"ingress": ingress or None}}}
    path = SERVICES.path_of(namespace, name, status=True)
    return Write(f"Service {namespace}/{name}", "PATCH", path, body, MERGE, str(ingress))


def realized(key: Key, about: About, fault: str, time: str) -> Write | None:
    """Whether a policy of the cluster is in force as it is written, unless its status says so already."""
    kind, _, name = key
    condition = _realized(about, fault, time)
    if condition is None:
        return None
    resource = BY_KIND[kind]
    # Applied, so that conditions of others stay.
    body = {
        "apiVersion": resource.api,
        "kind": kind,
        "metadata": {"name": name},
        "status": {"conditions": [condition]},
    }
    path = resource.path_of("", name, status=True) + f"?fieldManager={MANAGER}&force=true"
    return Write(f"{kind} {name}", "PATCH", path, body, APPLY, _same(condition))


def service_realized(key: Key, about: About, fault: str, time: str) -> Write | None:
    """That a Service isn't served as it asks for, and that it is again, unless its status says so already.

    Of a Service that always was as it should be nothing is said: there are thousands of them.
    """
    _, namespace, name = key
    there = about.condition
    condition = _realized(about, fault, time)
    if condition is None or (there is None and not fault):
        return None
    path = SERVICES.path_of(namespace, name, status=True)
    # Merged by type, so that conditions of others stay. Its addresses are another write, which may wait beside it.
    body = {"status": {"conditions": [condition]}}
    return Write(f"Service {namespace}/{name} condition", "PATCH", path, body, STRATEGIC, _same(condition))


def _realized(about: About, fault: str, time: str) -> dict[str, Any] | None:
    """The condition, unless the object has it already."""
    status, reason = ("False", "NotRealized") if fault else ("True", "Realized")
    message = fault[: 8 * _LONGEST_NOTE] or "in force on every node that is in sync"
    there = about.condition
    if there is not None and (there.status, there.message, there.observed_generation) == (
        status,
        message,
        about.generation,
    ):
        return None
    return {
        "type": REALIZED,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": about.generation,
        "lastTransitionTime": time,
    }


def _same(condition: Mapping[str, Any]) -> str:
    return f"{condition['status']} {condition['message']} {condition['observedGeneration']}"


# Events ---------------------------------------------------------------------------------------------------------------


class _Series(msgspec.Struct):
    path: str
    count: int
    last: float


class Events:
    """Complaints about objects, as events of theirs: one when a complaint begins, and a count when it does so again."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._current: set[tuple[Key, str]] = set()
        self._series: dict[tuple[Key, str], _Series] = {}

    def report(
        self, complaints: Iterable[tuple[Key, str]], about: Mapping[Key, About], seconds: float
    ) -> Iterator[Write]:
        """All complaints that there are; the writes are for those that weren't there the last time."""
        current = set(complaints)
        for key, text in sorted(current - self._current):
            series = self._series.get((key, text))
            if series is not None and seconds - series.last < SERIES_SECONDS:
                series.count += 1
                series.last = seconds
                yield self._again(series, seconds)
            else:
                yield self._new(key, text, about.get(key, About()), seconds)
        self._current = current
        if len(self._series) > _MOST_SERIES:
            self._series = {
                each: series for each, series in self._series.items() if seconds - series.last < SERIES_SECONDS
            }

    def _new(self, key: Key, text: str, about: About, seconds: float) -> Write:
        kind, namespace, name = key
        home = namespace or "default"
        digest = hashlib.blake2b(f"{key}/{text}/{seconds}".encode(), digest_size=8).hexdigest()
        event = f"{name[:230]}.{digest}"
        root = f"/apis/events.k8s.io/v1/namespaces/{home}/events"
        regarding: dict[str, Any] = {"apiVersion": BY_KIND[kind].api, "kind": kind, "name": name}
        regarding |= {field: value for field, value in (("namespace", namespace), ("uid", about.uid)) if value}
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": event, "namespace": home},
            "eventTime": micro_stamp(seconds),
            "reportingController": "signalbox.io/controller",
            "reportingInstance": self._instance,
            "action": "Realize",
            "reason": "NotRealized",
            "regarding": regarding,
            "note": text[:_LONGEST_NOTE],
            "type": "Warning",
        }
        self._series[key, text] = _Series(f"{root}/{event}", 1, seconds)
        return Write(f"Event {home}/{event}", "POST", root, body, PLAIN, event)

    def _again(self, series: _Series, seconds: float) -> Write:
        body = {"series": {"count": series.count, "lastObservedTime": micro_stamp(seconds)}}
        return Write(f"{series.path} series", "PATCH", series.path, body, MERGE, str(series.count))
