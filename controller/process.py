"""The controller's process: what goes on from its start until it is told to stop.

    the feed begins ──> probes, metrics, admin API ──> all of the source's state ──> switches are heard
                                                                                            │ ready
    the last begun ends first <── a signal, or a fault <── changes and tasks, side by side <──┘

Owns in which order things begin and end, and how often what is done again and again is done. What that is, the
Controller knows (`controller.app`), and where the state is from its feed (`controller.manifest_feed`,
`controller.kubernetes_feed`); nothing of either is known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import resource
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from controller import health, metrics
from controller.access import Access
from controller.api import serve, serve_remote
from controller.app import Controller
from controller.bgp import Speaker
from controller.change_traces import NoTraces
from controller.channel import Channel, remove
from controller.replica import CLOCK_INTERVAL
from controller.statistics import INTERVAL as STATS_INTERVAL
from controller.statistics import OBJECTS
from topology.discovery import INTERVAL as LLDP_INTERVAL

log = logging.getLogger(__name__)

#: Seconds between two looks at which nodes are lost, and at what else changes with time.
LOOK_INTERVAL = 0.5
#: Seconds between looks at whose turn it is to say what it is wired to.
ASKING_INTERVAL = 0.1
#: Seconds between looks at the files of certificates and tokens, and at who is drained.
REFRESH = 2.0

#: The controller, from when all is known and switches are heard.
Ready = asyncio.Future[Controller]


class Feed(Protocol):
    """A source, as the controller follows it."""

    async def begin(self) -> Controller:
        """Make the controller, which knows nothing yet."""

    def steps(self, controller: Controller) -> AsyncIterator[None]:
        """Give the controller the first whole state and come back; then each change."""

    async def end(self) -> None:
        """Let go of everything."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is started with, beside the feed. Intervals are in seconds."""

    #: Where switches connect.
    listen: Sequence[str]
    #: The admin API's Unix socket.
    socket_path: Path
    audit_interval: float
    access: Access = msgspec.field(default_factory=Access)
    health_address: str | None = None
    metrics_address: str | None = None
    bgp: Speaker | None = None
    lldp_interval: float = LLDP_INTERVAL
    stats_interval: float = STATS_INTERVAL
    #: All that was asked for, by the names of the command's options: to be shown.
    settings: Mapping[str, Any] = {}
    #: How many objects of a kind have metrics of their own.
    metrics_objects: int = OBJECTS
    #: Who is told what became of changes.
    traces: NoTraces | None = None


async def run(feed: Feed, options: Options) -> None:
    """The controller's life: hear all of the source, then hear switches, until SIGTERM or SIGINT."""
    collect_seldom()
    allow_connections()
    stop = _told_to_stop()
    ready: Ready = asyncio.get_running_loop().create_future()
    closing = contextlib.AsyncExitStack()
    begin = asyncio.create_task
    tasks: list[asyncio.Task[Any]] = [
        begin(stop.wait()),
        begin(_follow(feed, options, closing, ready)),
        begin(_refresh(options.access, ready)),
    ]
    audit = functools.partial(_audit, options.audit_interval)
    once_ready = (
        audit,
        _look,
        _ask_ports,
        _keep_leases,
        _look_at_the_clock,
        _announce,
        _count,
        _ask_of_agents,
        _look_at_suspects,
    )
    tasks += [begin(_once_ready(ready, each)) for each in once_ready]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if ready.done():
            await _leave(ready.result())
        await closing.aclose()
    for task in done:
        # Nothing but the wait for a signal ends by itself: that something else has is a fault to be seen.
        task.result()


def _told_to_stop() -> asyncio.Event:
    """What a signal sets that asks the process to end."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _leave(controller: Controller) -> None:
    """Other controllers go on at once."""
    if controller.replica is not None:
        await controller.replica.leave(controller.obey_leases)


# The source, and what is served ---------------------------------------------------------------------------------------


async def _follow(feed: Feed, options: Options, closing: contextlib.AsyncExitStack, ready: Ready) -> None:
    """Begin everything, in an order in which no switch is sent half of a state; then take changes as they come."""
    closing.push_async_callback(feed.end)
    controller = await feed.begin()
    await _serve_probes(controller, options, closing)
    steps = feed.steps(controller)
    closing.push_async_callback(_close, steps)
    _furnish(controller, options)
    if options.traces is not None:
        closing.push_async_callback(asyncio.to_thread, options.traces.close)
    await _serve_people(controller, options, closing)
    # Before a switch is heard, all state is known: nothing is deleted for want of having been read.
    await anext(steps)
    await _hear_switches(controller, options, closing)
    controller.not_ready = ""
    ready.set_result(controller)
    async for _ in steps:
        pass


async def _serve_probes(controller: Controller, options: Options, closing: contextlib.AsyncExitStack) -> None:
    """Whoever watches the process may ask from the first, while the state is being read."""
    if options.health_address:
        probes = await health.serve(options.health_address, lambda: controller.not_ready)
        closing.push_async_callback(probes.cleanup)
    if options.metrics_address:
        scrapes = await metrics.serve(options.metrics_address, controller)
        closing.push_async_callback(scrapes.cleanup)


def _furnish(controller: Controller, options: Options) -> None:
    """Tell the controller what it was started with."""
    controller.access, controller.bgp = options.access, options.bgp
    controller.settings = options.settings
    if options.bgp is not None:
        options.bgp.told = controller.chronicle.router
    controller.links.discovery.interval = options.lldp_interval
    controller.statistics.interval = options.stats_interval
    controller.statistics.tell_apart(options.metrics_objects)
    if options.traces is not None:
        controller.tell_traces(options.traces)


async def _serve_people(controller: Controller, options: Options, closing: contextlib.AsyncExitStack) -> None:
    api = await serve(controller, options.socket_path)
    closing.push_async_callback(api.cleanup)
    closing.callback(remove, options.socket_path)
    for target in options.access.api_listen:
        remote = await serve_remote(controller, target, options.access)
        closing.push_async_callback(remote.cleanup)


async def _hear_switches(controller: Controller, options: Options, closing: contextlib.AsyncExitStack) -> None:
    channel = Channel(controller.fleet, time.monotonic)
    closing.push_async_callback(channel.close)
    for target in options.listen:
        await channel.listen(target, options.access.credentials)
    log.info("listening on %s", ", ".join(options.listen))


async def _close(steps: AsyncIterator[None]) -> None:
    """End a generator, wherever it is."""
    if isinstance(steps, AsyncGenerator):
        await steps.aclose()


# Tasks ----------------------------------------------------------------------------------------------------------------


async def _refresh(access: Access, ready: Ready) -> None:
    """What is in files may be other by now; certificates and tokens count from the first."""
    while True:
        await asyncio.sleep(REFRESH)
        access.refresh()
        if ready.done():
            controller = ready.result()
            controller.drains.store.refresh()
            controller.follow_drains()


async def _once_ready(ready: Ready, task: Callable[[Controller], Coroutine[Any, Any, None]]) -> None:
    """Do a task from when all is known. One that comes to its end had nothing to do, which is no reason to stop."""
    # Shielded, since all tasks wait for the same and each is cancelled by itself.
    await task(await asyncio.shield(ready))
    await asyncio.Event().wait()


async def _every(seconds: float, *steps: Callable[[], object]) -> None:
    """Take steps in order, again and again, at first after a while."""
    while True:
        await asyncio.sleep(seconds)
        for step in steps:
            step()


async def _audit(interval: float, controller: Controller) -> None:
    await _every(interval, functools.partial(controller.audit, full=False))


async def _look(controller: Controller) -> None:
    """Not before all is known: what seems to be of no use is given up here."""
    await _every(
        LOOK_INTERVAL,
        controller.look_for_lost_nodes,
        controller.release_identities,
        controller.look_at_links,
        controller.tell_connections,
        # After it is known who speaks for which switch: links say so.
        controller.look_at_phases,
    )


async def _ask_ports(controller: Controller) -> None:
    await _every(ASKING_INTERVAL, controller.ask_ports)


async def _keep_leases(controller: Controller) -> None:
    """Not before all is known: who is master of a switch can go on with it."""
    if controller.replica is not None:
        await controller.replica.keep(controller.obey_leases)


async def _look_at_the_clock(controller: Controller) -> None:
    await _every(CLOCK_INTERVAL, controller.obey_leases)


async def _announce(controller: Controller) -> None:
    """Not before all is known: what isn't announced again is withdrawn."""
    if controller.bgp is not None:
        await controller.bgp.keep(controller.routes)


async def _count(controller: Controller) -> None:
    await controller.statistics.keep()


async def _ask_of_agents(controller: Controller) -> None:
    await controller.agents.keep()


async def _look_at_suspects(controller: Controller) -> None:
    await controller.audits.keep()


# Limits ---------------------------------------------------------------------------------------------------------------


def collect_seldom() -> None:
    """Have Python's cycle collector run less often: the state is large, long-lived, and has no cycles.

    At its default it looks at every object that there is for each few thousand new flows, which is half of the time
    that a large change takes. It is the older ones that it is to look at seldom: for the newest it is quick where they
    are few, and each time nothing else has its turn.
    """
    gc.set_threshold(10_000, 500, 100)


def allow_connections() -> None:
    """Have room for every switch: the usual soft limit is 1,024 files, and each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
