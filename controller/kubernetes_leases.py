"""Leases as `coordination.k8s.io/v1` Lease objects of one namespace, as `kubectl get leases` shows them.

Needs list, create, update and delete on leases there. What an API server compares (`resourceVersion`) decides
between two that write at once. How requests reach the server, and as whom, is the `Http`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol, TypeVar
from urllib.parse import quote

import msgspec

from controller.leases import ConflictError, LeaseError, Record, Stored

#: Which Lease objects are ours.
LABELS = {"app.kubernetes.io/part-of": "signalbox", "app.kubernetes.io/component": "controller-lease"}
_READY, _LOST = "signalbox/ready", "signalbox/lost-nodes"
_PATH = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"


class Answer(Protocol):
    """What an API server said."""

    @property
    def status(self) -> int: ...

    @property
    def body(self) -> bytes: ...


class Http(Protocol):
    """A way to an API server."""

    async def ask(self, method: str, path: str, body: object = None) -> Answer:
        """Its answer to a request; `body` is what JSON is to be made of."""


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Lease(msgspec.Struct, frozen=True):
    metadata: _Metadata
    spec: _Spec = _Spec()


class _List(msgspec.Struct):
    items: list[_Lease] = []


class KubernetesLeases:
    """A `LeaseStore` in a namespace. `failures` is what `http` raises where there is no answer."""

    def __init__(
        self, http: Http, namespace: str, failures: tuple[type[Exception], ...] = (OSError, TimeoutError)
    ) -> None:
        self._http = http
        self._failures = failures
        self._path = _PATH.format(quote(namespace, safe=""))

    async def read(self) -> Mapping[str, Stored]:
        """Every lease by its name."""
        selector = quote(",".join(f"{key}={value}" for key, value in LABELS.items()))
        body = await self._request("GET", f"{self._path}?labelSelector={selector}")
        return {lease.metadata.name: _stored(lease) for lease in _decode(body, _List).items}

    async def write(self, name: str, record: Record, version: str | None) -> Stored:
        """Make (`version` None) or replace a lease. Raises ConflictError."""
        body = _encode(name, record, version)
        if version is None:
            answer = await self._request("POST", self._path, body)
        else:
            answer = await self._request("PUT", f"{self._path}/{quote(name)}", body)
        # What others will read is what counts, down to its rounding.
        return _stored(_decode(answer, _Lease))

    async def delete(self, name: str, version: str) -> None:
        """Delete a lease. Raises ConflictError."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": version}}
        await self._request("DELETE", f"{self._path}/{quote(name)}", options)

    async def _request(self, method: str, path: str, body: object = None) -> bytes:
        try:
            answer = await self._http.ask(method, path, body)
        except self._failures as error:
            raise LeaseError(f"leases: {method} {path}: {str(error) or 'no answer in time'}") from error
        status = answer.status
        # To write to what is gone, or make what is there: somebody else was first as well.
        if status == 409 or (status == 404 and method in ("PUT", "DELETE")):
            raise ConflictError(f"leases: {method} {path}: somebody else was first")
        if status >= 300:
            raise LeaseError(f"leases: {method} {path}: {status} {answer.body[:200].decode(errors='replace')}")
        return answer.body


T = TypeVar("T")


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise LeaseError(f"leases: not an API server's answer: {error}") from error


def _encode(name: str, record: Record, version: str | None) -> dict[str, object]:
    metadata: dict[str, object] = {
        "name": name,
        "labels": LABELS,
        "annotations": {_READY: "true" if record.ready else "false", _LOST: ",".join(record.lost)},
    }
    if version is not None:
        metadata["resourceVersion"] = version
    spec: dict[str, object] = {
        "holderIdentity": record.holder,
        "leaseDurationSeconds": max(1, math.ceil(record.duration)),
        "leaseTransitions": record.epoch,
        "renewTime": _time(record.renewed),
    }
    if record.since:
        spec["acquireTime"] = _time(record.since)
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _stored(lease: _Lease) -> Stored:
    annotations, spec = lease.metadata.annotations or {}, lease.spec
    record = Record(
        holder=spec.holder_identity or "",
        epoch=spec.lease_transitions or 0,
        since=_seconds(spec.acquire_time),
        renewed=_seconds(spec.renew_time),
        duration=float(spec.lease_duration_seconds or 0),
        ready=annotations.get(_READY) == "true",
        lost=tuple(filter(None, annotations.get(_LOST, "").split(","))),
    )
    return Stored(record, lease.metadata.resource_version)


def _time(seconds: float) -> str:
    """A MicroTime, as Kubernetes has it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _seconds(text: str | None) -> float:
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0
