"""A directory of manifests as the controller's source.

    ManifestSource ──Snapshot, whole──> Controller

Owns how a controller is made for manifests and when it is told of them. Knows nothing of switches, sockets and signals:
`controller.process` follows it. Kubernetes' API server as the source is `controller.kubernetes_feed`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from controller.app import Controller
from controller.drains import Drains, StateDirectory
from controller.replica import Replica
from topology.flow_export import FlowExport
from topology.graph import Interconnect
from topology.manifest_source import ManifestSource
from topology.services import ServiceRanges


class ManifestFeed:
    """A directory of manifests."""

    def __init__(
        self,
        manifests: Path,
        ranges: ServiceRanges,
        *,
        keyed: bool,
        replica: Replica | None = None,
        interconnect: Interconnect | None = None,
        exports: Sequence[FlowExport] = (),
        drained: StateDirectory | None = None,
    ) -> None:
        self._source = ManifestSource(manifests, ranges=ranges)
        self._ranges, self._keyed, self._replica, self._interconnect = ranges, keyed, replica, interconnect
        self._exports, self._drained = exports, drained

    async def begin(self) -> Controller:
        controller = Controller(
            self._ranges,
            keyed=self._keyed,
            replica=self._replica,
            interconnect=self._interconnect,
            exports=self._exports,
        )
        controller.drains = Drains(self._drained)
        controller.edition = lambda: self._source.edition
        controller.source_troubles = lambda: ("the manifests haven't been read yet",)
        return controller

    async def steps(self, controller: Controller) -> AsyncIterator[None]:
        async for snapshot in self._source.watch():
            changed = self._source.changed
            controller.take(snapshot, time.monotonic() - (time.time() - changed) if changed is not None else None)
            controller.source_troubles = tuple
            yield

    async def end(self) -> None:
        pass
