"""Host ports: which of those that a node's pods want they have.

Pure. Two pods of a node may have the same number for different protocols, or at different addresses of the node; one
that names no address has it at all of them. Of two that can't both have it, the first by namespace and name does.
Kubernetes' scheduler puts no such two on one node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from topology.model import ContainerPort, Pod
from topology.naming import Address


class HostPort(msgspec.Struct, frozen=True):
    """One that a pod wants; `refusal` says why it doesn't get it, and is empty where it does."""

    pod: Pod
    port: ContainerPort
    refusal: str = ""


def host_ports(pods: Iterable[Pod]) -> Iterator[HostPort]:
    """All host ports that pods of one node want."""
    taken: dict[tuple[str, int], list[tuple[Address | None, Pod]]] = {}
    for pod in sorted(pods, key=lambda pod: (pod.namespace, pod.name)):
        # Who is on the host's network listens there by himself.
        for port in () if pod.host_network else pod.ports:
            if not port.host_port:
                continue
            there = taken.setdefault((port.protocol, port.host_port), [])
            owner = next((each for address, each in there if _meet(address, port.host_ip)), None)
            if owner is not None:
                whose = f"Pod {owner.namespace}/{owner.name}'s"
                yield HostPort(pod, port, f"{_words(port)} is {whose} already on node {pod.node}; choose another")
            elif port.host_ip is not None and port.host_ip.version == 6 and port.host_ip.is_loopback:
                yield HostPort(pod, port, f"{_words(port)}: Linux leads nothing away from there; use 127.0.0.1")
            else:
                there.append((port.host_ip, pod))
                yield HostPort(pod, port)


def _meet(first: Address | None, second: Address | None) -> bool:
    return first is None or second is None or first == second


def _words(port: ContainerPort) -> str:
    of = "" if port.host_ip is None else f" of {port.host_ip}"
    return f"host port {port.host_port}/{port.protocol}{of}"
