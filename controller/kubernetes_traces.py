"""Traceflows answered: those of Kubernetes' API server, by the controller that speaks for what is no node's.

    API server ──watch──> Traceflows ──claim: Running──> trace ──status──> API server

Owns the tasks: one that follows, and one for each that is answered, a few at a time. Nothing has to be remembered over
a restart: statuses say what was begun. How a packet's way is found is `controller.trace`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterator

from controller import traceflows
from controller.app import Controller
from controller.kubernetes_reports import stamp
from controller.trace.compiled import Compiled
from controller.trace.errors import NotMasterError, NotYetError, TraceError
from controller.trace.model import trace
from controller.traceflows import Status, Traceflows
from controller.write_queue import MERGE
from topology.kubernetes.client import Answer, Client, TransportError
from topology.kubernetes.follower import follow
from topology.kubernetes.reflector import Found, Gone, Reflector, Step
from topology.kubernetes.resources import TRACEFLOWS
from topology.kubernetes.traceflows import RUNNING, Spec, SpecError, Traceflow, read

log = logging.getLogger(__name__)

#: How many are answered at a time.
MOST = 4
#: Seconds between two looks at what is due; before what failed is tried again, at first and at most.
LOOK_INTERVAL, RETRY, LONGEST_RETRY = 0.5, 1.0, 15.0
_ABANDONED = "the controller that ran it went away before it had an answer; make another one"


class KubernetesTraces:
    """The Traceflows of one API server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known = Traceflows()
        self._reflector: Reflector | None = None
        #: What is being done about which, by name.
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._answering: set[str] = set()
        #: Until when some are left alone, by the monotonic clock: what was tried had no success.
        self._resting: dict[str, float] = {}
        self._told = False

    def troubles(self) -> Iterator[str]:
        """What goes wrong between the server and us."""
        trouble = self._reflector.trouble(time.monotonic()) if self._reflector is not None else ""
        if trouble:
            yield trouble

    async def run(self, controller: Controller) -> None:
        """Answer them for as long as it is this controller that speaks; never ends."""
        compiled = Compiled(
            controller.compiler,
            lambda: controller.fleet.cluster.version,
            keyed=controller.keyed,
            node_ports=controller.ranges.node_ports,
        )
        try:
            while True:
                if controller.speaks:
                    await self._lead(controller, compiled)
                await asyncio.sleep(LOOK_INTERVAL)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _lead(self, controller: Controller, compiled: Compiled) -> None:
        self._known, self._reflector = Traceflows(), Reflector(TRACEFLOWS, read, random.random)
        news = asyncio.Event()

        def take(items: list[Found | Gone]) -> None:
            self._known.take(items)
            news.set()

        following = asyncio.create_task(follow(self._client, self._reflector, take, time.monotonic))
        following.add_done_callback(lambda _: news.set())
        try:
            while controller.speaks:
                for name, task in list(self._tasks.items()):
                    if task.done():
                        # Whatever may fail is caught where it does: what comes out is a fault to be seen.
                        self._tasks.pop(name).result()
                if following.done():
                    following.result()
                self._tell_if_there_are_none(self._reflector)
                news.clear()
                self._look(controller, compiled)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_INTERVAL):
                        await news.wait()
        finally:
            # What is being answered may go on: nobody else will begin it again.
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            self._reflector = None

    def _tell_if_there_are_none(self, reflector: Reflector) -> None:
        missing = reflector.synced and reflector.step is Step.PROBE
        if missing and not self._told:
            log.info("Kubernetes has no %s in %s: nobody asks for traces there", TRACEFLOWS.plural, TRACEFLOWS.api)
        self._told = missing or (self._told and not reflector.synced)

    def _look(self, controller: Controller, compiled: Compiled) -> None:
        """Begin whatever is due."""
        now, wall = time.monotonic(), time.time()
        self._resting = {name: until for name, until in self._resting.items() if until > now}
        for each in self._known.waiting():
            if len(self._answering) >= MOST:
                break
            if self._is_free(each):
                self._answering.add(each.name)
                self._tasks[each.name] = asyncio.create_task(self._answer(each, controller, compiled))
        for each in list(self._known.abandoned(wall)):
            if self._is_free(each):
                self._tasks[each.name] = asyncio.create_task(self._give_up(each))
        for each in list(self._known.expired(wall)):
            if self._is_free(each):
                self._tasks[each.name] = asyncio.create_task(self._delete(each))

    def _is_free(self, each: Traceflow) -> bool:
        return each.name not in self._tasks and each.name not in self._resting and len(self._tasks) < 4 * MOST

    # One of them ------------------------------------------------------------------------------------------------------

    async def _answer(self, each: Traceflow, controller: Controller, compiled: Compiled) -> None:
        try:
            begun = {"phase": RUNNING, "startTime": stamp(time.time())}
            if await self._try(each, begun):
                self._known.claim(each)
                await self._tell(each, await _answered(each, controller, compiled))
        finally:
            self._answering.discard(each.name)

    async def _give_up(self, each: Traceflow) -> None:
        await self._try(each, traceflows.failed(_ABANDONED, stamp(time.time())))

    async def _try(self, each: Traceflow, status: Status) -> bool:
        """Write a status, unless the object has changed since; whether that is done."""
        rest = RETRY
        try:
            answer = await self._patch(each, status, each.version)
        except TransportError as error:
            log.debug("Traceflow %s: %s", each.name, error)
        else:
            if answer.status < 300:
                return True
            # Somebody else was first, or it is gone: the watch says so.
            if answer.status not in (404, 409):
                log.warning("Traceflow %s: %s %s", each.name, answer.status, answer.body[:300].decode(errors="replace"))
                rest = LONGEST_RETRY
        self._resting[each.name] = time.monotonic() + rest
        return False

    async def _tell(self, each: Traceflow, status: Status) -> None:
        """Write an answer, over any outage."""
        delay = RETRY
        while True:
            words = ""
            try:
                answer = await self._patch(each, status, "")
                if answer.status < 300 or answer.status in (404, 409):
                    return
                words = f"{answer.status} {answer.body[:300].decode(errors='replace')}"
                if answer.status in (400, 403, 413, 422):
                    log.warning("Traceflow %s: its answer can't be told: %s", each.name, words)
                    return
            except TransportError as error:
                words = str(error)
            log.debug("Traceflow %s: %s", each.name, words)
            await asyncio.sleep(delay * (1 - random.random() / 2))
            delay = min(2 * delay, LONGEST_RETRY)

    async def _patch(self, each: Traceflow, status: Status, version: str) -> Answer:
        # With its uid, so that one that has its name by now has nothing of it.
        meta = {"uid": each.uid} | ({"resourceVersion": version} if version else {})
        path = TRACEFLOWS.path_of("", each.name, status=True)
        return await self._client.ask("PATCH", path, {"metadata": meta, "status": status}, MERGE)

    async def _delete(self, each: Traceflow) -> None:
        conditions = {"uid": each.uid, "resourceVersion": each.version}
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": conditions}
        try:
            answer = await self._client.ask("DELETE", TRACEFLOWS.path_of("", each.name), body)
        except TransportError as error:
            log.debug("Traceflow %s: %s", each.name, error)
        else:
            if answer.status >= 300 and answer.status not in (404, 409):
                log.warning("Traceflow %s: %s %s", each.name, answer.status, answer.body[:300].decode(errors="replace"))
        self._resting[each.name] = time.monotonic() + LONGEST_RETRY


async def _answered(each: Traceflow, controller: Controller, compiled: Compiled) -> Status:
    """What was found, or why nothing was. What isn't there yet is waited for until its time is over."""
    if not isinstance(each.spec, Spec):
        return traceflows.failed(each.spec, stamp(time.time()))
    reason = "it took longer"
    try:
        async with asyncio.timeout(each.spec.timeout):
            while True:
                try:
                    return await _traced(each.spec, controller, compiled)
                except NotYetError as error:
                    reason = str(error)
                    await asyncio.sleep(RETRY)
    except (SpecError, TraceError) as error:
        return traceflows.failed(str(error), stamp(time.time()))
    except TimeoutError:
        return traceflows.failed(f"no answer within {each.spec.timeout} s: {reason}", stamp(time.time()))
    except Exception:
        # A fault of ours, which a question mustn't end the controller with.
        log.exception("Traceflow %s", each.name)
        return traceflows.failed("a fault of the controller's: its log says more", stamp(time.time()))


async def _traced(spec: Spec, controller: Controller, compiled: Compiled) -> Status:
    asked = traceflows.question(controller.compiler, spec)
    if not spec.live:
        return traceflows.by_model(trace(compiled, asked), "", stamp(time.time()))
    try:
        answer = await controller.tracer.trace(compiled, asked)
    except NotMasterError as error:
        # With several controllers there may be none that is: better half an answer than none.
        message = f"by the model alone, no packet was sent: {error}"
        return traceflows.by_model(trace(compiled, asked), message, stamp(time.time()))
    return traceflows.live(answer, stamp(time.time()))
