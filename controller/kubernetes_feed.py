"""Kubernetes' API server as the controller's source: what it says goes into the controller."""

from __future__ import annotations

from collections.abc import AsyncIterator

from controller.app import Controller
from topology.kubernetes.client import Client
from topology.kubernetes.source import KubernetesSource
from topology.services import ServiceRanges


class KubernetesFeed:
    """One API server, followed."""

    def __init__(self, client: Client, ranges: ServiceRanges, *, keyed: bool, namespace: str) -> None:
        self._client = client
        self._ranges, self._keyed = ranges, keyed
        self._source = KubernetesSource(client, ranges)

    async def begin(self) -> Controller:
        await self._client.connect()
        controller = Controller(self._ranges, keyed=self._keyed)
        controller.edition = lambda: self._source.edition
        controller.source_troubles = self._source.troubles
        return controller

    async def steps(self, controller: Controller) -> AsyncIterator[None]:
        async for batch in self._source.watch():
            controller.change(batch.changed, batch.gone, batch.problems)
            yield

    async def end(self) -> None:
        await self._client.close()
