"""Kubernetes' API server as the controller's source, and as what is told how things are.

    KubernetesSource ──Batch──> Controller ──what is in sync, what can't be──> reports ──> WriteQueue ──> API server

Owns the tasks. What is written is looked up again and again, and compared with what the server has: nothing has to be
remembered over a restart, and a write that is lost is made again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from controller import kubernetes_reports as reports
from controller.app import Controller
from controller.drains import Drains
from controller.kubernetes_drains import KubernetesDrains
from controller.kubernetes_traces import KubernetesTraces
from controller.offloads import fault_of
from controller.replica import Replica
from controller.sync import Phase
from controller.write_queue import Write, WriteQueue
from topology.flow_export import FlowExport
from topology.graph import Interconnect
from topology.kubernetes.client import Client, TransportError
from topology.kubernetes.source import KubernetesSource
from topology.kubernetes.state import KubernetesState
from topology.model import Key
from topology.services import ServiceRanges

log = logging.getLogger(__name__)

#: Seconds between two looks at what is to be written: statuses, and complaints, which take longer to gather.
LOOK_INTERVAL, COMPLAINT_INTERVAL = 0.25, 2.0
#: Writes under way at once.
WRITERS = 4
_CROWDED = "too many rules of its priority take turns accepting and denying, so it denies all that it is about"


class KubernetesFeed:
    """One API server, followed and told."""

    def __init__(
        self,
        client: Client,
        ranges: ServiceRanges,
        *,
        keyed: bool,
        replica: Replica | None = None,
        interconnect: Interconnect | None = None,
        exports: Sequence[FlowExport] = (),
    ) -> None:
        self._client = client
        self._ranges, self._keyed, self._replica, self._interconnect = ranges, keyed, replica, interconnect
        self._exports = exports
        self._source = KubernetesSource(client, ranges)
        self._queue = WriteQueue(random.random)
        self._events = reports.Events(socket.gethostname())
        self._traces = KubernetesTraces(client)
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> Controller:
        await self._client.connect()
        controller = Controller(
            self._ranges,
            keyed=self._keyed,
            replica=self._replica,
            interconnect=self._interconnect,
            exports=self._exports,
        )
        controller.drains = Drains(KubernetesDrains(self._client))
        controller.edition = lambda: self._source.edition
        controller.source_troubles = self._troubles
        self._source.lead(controller.speaks)
        return controller

    async def steps(self, controller: Controller) -> AsyncIterator[None]:
        async for batch in self._source.watch():
            controller.change(batch.changed, batch.gone, batch.problems, self._source.heard)
            if not self._tasks:
                self._tasks = [asyncio.create_task(self._look(controller))]
                self._tasks += [asyncio.create_task(self._write()) for _ in range(WRITERS)]
                self._tasks.append(asyncio.create_task(self._traces.run(controller)))
            for task in self._tasks:
                if task.done():
                    # They never end by themselves: that one has is a fault to be seen.
                    task.result()
            yield

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    def _troubles(self) -> Iterator[str]:
        yield from self._source.troubles()
        yield from self._queue.troubles()
        yield from self._traces.troubles()

    # What is told ---------------------------------------------------------------------------------------------------

    async def _look(self, controller: Controller) -> None:
        complained = 0.0
        while True:
            now = time.monotonic()
            self._source.lead(controller.speaks)
            for write in _statuses(controller, self._source.state, reports.stamp(time.time())):
                self._queue.put(write, now)
            if controller.speaks and now - complained >= COMPLAINT_INTERVAL:
                complained = now
                found, wall = set(_complaints(controller, self._source.state)), time.time()
                for write in self._events.report(found, self._source.state.about, wall):
                    self._queue.put(write, now)
                for write in _of_services(found, self._source.state, reports.stamp(wall)):
                    self._queue.put(write, now)
            await asyncio.sleep(LOOK_INTERVAL)

    async def _write(self) -> None:
        while True:
            now = time.monotonic()
            write = self._queue.take(now)
            if write is None:
                await asyncio.sleep(min(LOOK_INTERVAL, self._queue.wait(now)))
                continue
            try:
                answer = await self._client.ask(write.method, write.path, write.body, write.content_type)
            except TransportError as error:
                log.debug("%s %s: %s", write.method, write.path, error)
                self._queue.failed(write, time.monotonic())
                continue
            words = answer.body[:300].decode(errors="replace").strip() if answer.status >= 300 else ""
            if words:
                log.warning("%s %s: %s %s", write.method, write.path, answer.status, words)
            self._queue.answered(write, answer.status, words, time.monotonic(), answer.retry_after)


def _statuses(controller: Controller, state: KubernetesState, now: str) -> Iterator[Write]:
    """Every status that isn't as it should be."""
    for name, sync in controller.fleet.syncs.items():
        about = state.about.get(("Node", "", name))
        if sync.phase is Phase.SYNCED and about is not None:
            write = reports.network_ready(name, about, now)
            if write is not None:
                yield write
            report = controller.offloads.report(name)
            write = reports.offload(name, about, fault_of(report), now) if report is not None else None
            if write is not None:
                yield write
    if not controller.speaks:
        return
    for _, namespace, name in state.owed:
        yield reports.balanced(namespace, name, state.ingress(("Service", namespace, name)))
    for key, policy in controller.compiler.cluster.policies.items():
        about = state.about.get(key)
        if about is not None and not policy.namespace:
            fault = state.unreadable.get(key) or policy.fault
            if not fault and key in controller.compiler.policies.crowded:
                fault = _CROWDED
            write = reports.realized(key, about, fault, now)
            if write is not None:
                yield write


def _of_services(complaints: Iterable[tuple[Key, str]], state: KubernetesState, now: str) -> Iterator[Write]:
    """The condition of each Service that something is wrong with, or was."""
    faults: dict[Key, list[str]] = {}
    for key, text in sorted(complaints):
        if key[0] == "Service":
            faults.setdefault(key, []).append(text)
    for key, about in state.about.items():
        if key in faults or (key[0] == "Service" and about.condition is not None):
            write = reports.service_realized(key, about, "; ".join(faults.get(key, ())), now)
            if write is not None:
                yield write


def _complaints(controller: Controller, state: KubernetesState) -> Iterator[tuple[Key, str]]:
    """What is wrong with objects, each with what it is about."""
    yield from state.complaints()
    for service, reason in controller.compiler.services.clashes():
        yield service.key, reason
    yield from controller.compiler.host_port_refusals()
    for workload, reason in controller.compiler.misfits():
        yield ("Workload", workload.namespace, workload.name), reason
    for key in controller.compiler.policies.crowded:
        yield key, _CROWDED
