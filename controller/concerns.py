"""Which rows an event is about: what of the cluster and of switches shows in which lists.

Where it would take long to find out, all rows of a kind are touched: they are compared before anything is sent. A test
holds that nothing is missed: whatever changes, who watches has in the end what a list has.
"""

from __future__ import annotations

from collections.abc import Collection

from controller.changes import Changes
from flows.compiler import Compiler
from topology.model import EndpointSlice, Key, Namespace, Node, Object, Pod, Service
from topology.policies import Policy

#: The kinds whose rows are touched: what can be watched.
KINDS = ("nodes", "pods", "services", "endpoints", "policies", "links", "events")
#: Objects at a time beyond which it isn't looked at each of them.
MANY = 1_000


class Concerns:
    """Touches rows. Costs nothing while nobody watches."""

    def __init__(self, compiler: Compiler, changes: Changes) -> None:
        self._compiler = compiler
        self._changes = changes

    def objects(self, changed: Collection[Object], gone: Collection[Key]) -> None:
        """Objects are about to be put in and taken out: call before the compiler is told."""
        if not self._changes.is_watched:
            return
        if len(changed) + len(gone) > MANY:
            self._changes.touch_all(*KINDS)
            return
        get = self._compiler.cluster.get
        for new in changed:
            old = get(new.key)
            if old != new:
                self._object(old)
                self._object(new)
        for key in gone:
            self._object(get(key))

    def _object(self, version: Object | None) -> None:
        """An object as it was, or as it will be."""
        changes = self._changes
        match version:
            case Node():
                # Whose addresses and networks are whose is decided among all nodes.
                changes.touch_all("nodes", "pods", "services", "endpoints", "links")
            case Pod():
                changes.touch("pods", (version.namespace, version.name))
                if version.port:
                    # Of workloads with one address or port, the first by name has it.
                    changes.touch_all("pods")
                changes.touch("nodes", (version.node,))
                for namespace, name in self._compiler.services.of_pod(version):
                    self._service(namespace, name)
                changes.touch_all("policies")
            case Service():
                # What several of them want is the first one's.
                changes.touch_all("services")
                changes.touch("endpoints", (version.namespace, version.name))
            case EndpointSlice():
                self._service(version.namespace, version.service)
            case Namespace() | Policy():
                changes.touch_all("policies")

    def _service(self, namespace: str, name: str) -> None:
        """A Service has other endpoints."""
        found = self._compiler.cluster.services.get((namespace, name))
        if found is not None and found.load_balancer_ips:
            # Who announces an address may be decided by endpoints, for all Services that share it.
            self._changes.touch_all("services")
        self._changes.touch("services", (namespace, name))
        self._changes.touch("endpoints", (namespace, name))

    def switch(self, node: str) -> None:
        """A node's switch is in another phase, or has other ports."""
        if not self._changes.is_watched:
            return
        self._changes.touch("nodes", (node,))
        if self._changes.watches("pods"):
            for key in self._compiler.cluster.pods_on.get(node, ()):
                self._changes.touch("pods", key)
        self._changes.touch_all("links")

    def agent(self, node: str) -> None:
        """A node's agent is in another state, or of another version."""
        self._changes.touch("nodes", (node,))

    def masters(self) -> None:
        """Other replicas are masters of switches."""
        self._changes.touch_all("nodes", "pods", "links")

    def announcers(self) -> None:
        """Other nodes announce Services' addresses."""
        self._changes.touch_all("services")

    def identities(self) -> None:
        """Identities that no pod has are given up, and policies' flows for them."""
        self._changes.touch_all("policies")

    def links(self) -> None:
        """There are other wires, or they cost another amount."""
        self._changes.touch_all("links")

    def event(self, number: int) -> None:
        """An event has been told, or forgotten."""
        self._changes.touch("events", (number,))
