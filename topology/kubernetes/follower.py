"""One kind of object, followed: what its reflector wants asked is asked, and what it makes of the answers handed on.

    API server ──bytes──> Client ──> Reflector ──found, gone──> take

Never ends. What a reflector doesn't say isn't done here: it knows what to ask next, and when.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from topology.kubernetes.client import Client, TransportError
from topology.kubernetes.reflector import IDLE_SECONDS, Found, Gone, Reflector, Request, Step, WatchError

log = logging.getLogger(__name__)

#: Has what came, in its order; nothing where an answer only changed what the reflector knows.
Take = Callable[[list[Found | Gone]], None]


async def follow(client: Client, reflector: Reflector, take: Take, clock: Callable[[], float]) -> None:
    """List and watch, over any outage."""
    while True:
        await asyncio.sleep(reflector.wait_until - clock())
        request = reflector.ask(clock())
        try:
            if request.step is Step.WATCH:
                await _stream(client, reflector, request, take, clock)
            else:
                answer = await client.ask("GET", request.path)
                take(reflector.answered(answer.status, answer.body, clock(), answer.retry_after))
        except TransportError as error:
            reflector.failed(f"{request.step.value}: {error}", clock())
            log.debug("%s: %s: %s", reflector.resource.plural, request.step.value, error)


async def _stream(
    client: Client, reflector: Reflector, request: Request, take: Take, clock: Callable[[], float]
) -> None:
    async with client.stream(request.path, IDLE_SECONDS) as stream:
        if stream.status != 200:
            take(reflector.answered(stream.status, stream.body, clock(), stream.retry_after))
            return
        reflector.opened()
        try:
            async for chunk in stream.chunks:
                take(reflector.received(chunk, clock()))
        except WatchError as error:
            take(error.found)
            return
        reflector.ended(clock())
