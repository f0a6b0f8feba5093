"""Nodes that people have drained, kept where the Node is: as its annotation, which every controller reads."""

from __future__ import annotations

from controller.drains import DrainError
from controller.write_queue import MERGE
from topology.drained import ANNOTATION
from topology.kubernetes.client import Client, TransportError
from topology.kubernetes.resources import NODES


class KubernetesDrains:
    """The Nodes' annotations. A `drains.Store` that says nothing itself: the source does."""

    kind = "Kubernetes"
    note = ""
    tells_source = True
    names: frozenset[str] = frozenset()

    def __init__(self, client: Client) -> None:
        self._client = client

    async def put(self, node: str, *, drained: bool) -> None:
        """Patch the annotation, and nothing else. Raises DrainError."""
        body = {"metadata": {"annotations": {ANNOTATION: "true" if drained else None}}}
        # Of a Node the status may be written with its annotations, as kubelets do: so the right to change nodes
        # themselves, their taints and labels, isn't needed.
        path = NODES.path_of("", node, status=True)
        try:
            answer = await self._client.ask("PATCH", path, body, MERGE)
        except TransportError as error:
            raise DrainError(f"Kubernetes: {error}") from error
        if answer.status >= 300:
            words = answer.body[:300].decode(errors="replace").strip()
            raise DrainError(f"Kubernetes: PATCH {path}: {answer.status} {words}")

    def refresh(self) -> None:
        """Nothing: the source tells."""
