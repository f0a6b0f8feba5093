"""Traceflows: questions where a packet goes, put as objects of Kubernetes' API.

Owns: what such an object says, and which question it is. `deploy/kubernetes/base/traceflows.yaml` defines the kind;
what its schema lets through, and can't be, is told here with the name of the field. Whether there is such a pod or
Service is not known here. Pure.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal

import msgspec

from topology.kubernetes.reflector import Found

PENDING, RUNNING, SUCCEEDED, FAILED = "Pending", "Running", "Succeeded", "Failed"
#: Seconds for which one may take where it doesn't say.
TIMEOUT = 20
_KINDS = ("pod", "node", "service", "ip")


SCTP_LIVE = "spec.live: SCTP is traced by the model alone; say live: false"


class SpecError(ValueError):
    """A spec that makes no sense; the text names the field."""


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Source or destination: one of its fields but `namespace`, which is of a pod or a Service."""

    namespace: str = ""
    pod: str = ""
    node: str = ""
    service: str = ""
    ip: str = ""


class Packet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is sent. Without a protocol: TCP where there is a port, else ICMP."""

    protocol: Literal["TCP", "UDP", "SCTP", "ICMP", ""] = ""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    family: Literal["IPv4", "IPv6", ""] = ""


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What is asked."""

    source: End
    destination: End
    packet: Packet = Packet()
    live: bool = True
    timeout: Annotated[int, msgspec.Meta(ge=1, le=300)] = TIMEOUT
    ttl_seconds_after_finished: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Traceflow(msgspec.Struct, frozen=True, kw_only=True):
    """One object. `created`, `started` and `completed` are times as Kubernetes writes them, empty where it has none."""

    name: str
    uid: str
    version: str
    created: str
    #: What is asked; or why it can't be read.
    spec: Spec | str
    phase: str = PENDING
    started: str = ""
    completed: str = ""


class Asked(msgspec.Struct, frozen=True):
    """The question, as traces are asked everywhere else; `family` is 4, 6 or 0.

    To a Service without a port `port` is 0, and `protocol` is empty where none is said: which is its only one isn't
    known here.
    """

    source: str
    destination: str
    protocol: str
    port: int
    family: int


def asked(spec: Spec) -> Asked:
    """The question that a spec is. Raises SpecError."""
    source, destination = _end("source", spec.source), _end("destination", spec.destination)
    packet = spec.packet
    protocol = packet.protocol or ("TCP" if packet.port else "" if spec.destination.service else "ICMP")
    if protocol == "ICMP" and packet.port:
        raise SpecError("spec.packet.port: ICMP has no ports; leave it out, or say another protocol")
    if protocol != "ICMP" and not packet.port and not spec.destination.service:
        raise SpecError(f"spec.packet.port: {protocol} goes to a port from 1 to 65535")
    if protocol == "SCTP" and spec.live:
        raise SpecError(SCTP_LIVE)
    return Asked(source, destination, protocol, packet.port, {"IPv4": 4, "IPv6": 6}.get(packet.family, 0))


def _end(field: str, end: End) -> str:
    said = [kind for kind in _KINDS if getattr(end, kind)]
    allowed = _KINDS if field == "destination" else tuple(each for each in _KINDS if each != "service")
    if len(said) != 1 or said[0] not in allowed:
        what = f"not {' and '.join(said)}" if said else "none is there"
        raise SpecError(f"spec.{field}: say one of {', '.join(allowed)}; {what}")
    (kind,) = said
    if end.namespace and kind not in ("pod", "service"):
        raise SpecError(f"spec.{field}.namespace: a {kind} is in none; leave it out")
    namespace = end.namespace or "default"
    match kind:
        case "pod":
            return f"{namespace}/{end.pod}"
        case "service":
            return f"{namespace}/svc/{end.service}"
        case "node":
            return f"node/{end.node}"
    try:
        return str(ip_address(end.ip))
    except ValueError as error:
        raise SpecError(f"spec.{field}.ip: {error}") from error


# What is decoded ------------------------------------------------------------------------------------------------------


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    phase: str = ""
    start_time: str = ""
    completion_time: str = ""


class _Traceflow(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: msgspec.Raw = msgspec.Raw(b"null")
    status: msgspec.Raw = msgspec.Raw(b"{}")


_OBJECT = msgspec.json.Decoder(_Traceflow)
_SPEC = msgspec.json.Decoder(Spec)
_STATUS = msgspec.json.Decoder(_Status)


def read(raw: msgspec.Raw) -> Found:
    """An object's JSON. Raises msgspec.MsgspecError only where it isn't one."""
    each = _OBJECT.decode(raw)
    spec: Spec | str
    try:
        spec = _SPEC.decode(each.spec)
    except msgspec.MsgspecError as error:
        # "Expected `int`, got `str` - at `$.packet.port`"
        what, _, where = str(error).partition(" - at `$")
        spec = f"spec{where.rstrip('`')}: {what[:1].lower()}{what[1:]}"
    try:
        status = _STATUS.decode(each.status)
    except msgspec.MsgspecError:
        # Written by somebody else: it isn't ours to answer.
        status = _Status(FAILED)
    meta = each.metadata
    value = Traceflow(
        name=meta.name,
        uid=meta.uid,
        version=meta.resource_version,
        created=meta.creation_timestamp or "",
        spec=spec,
        phase=status.phase or PENDING,
        started=status.start_time,
        completed=status.completion_time,
    )
    return Found("", meta.name, meta.resource_version, value)
