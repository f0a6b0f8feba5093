"""Lists that go on, as server-sent events: what `controller.watching` finds, written to whoever listens.

Nothing is made for who doesn't read: the next look is after the last one has been written. Who has gone, or reads
nothing for `WRITE_LIMIT` seconds, is let go of; so is who may no longer ask, and everybody when the controller ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from aiohttp import web

from controller.api.callers import STILL
from controller.api.route import ApiError
from controller.changes import TooManyError
from controller.lists import Choice, Kind
from controller.watching import Event, Watch

if TYPE_CHECKING:
    from controller.app import Controller

#: Seconds between two looks of one watch at least; between comments, that keep a connection which has nothing to say;
#: between looks whether the other side is there; for which it may read nothing; and between looks whether it may watch.
LOOK_INTERVAL, COMMENT_INTERVAL, GONE_INTERVAL, WRITE_LIMIT, ALLOWED_INTERVAL = 0.5, 15.0, 1.0, 30.0, 10.0
_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    # Proxies that gather answers are to let this one through as it comes.
    "X-Accel-Buffering": "no",
}


async def stream(request: web.Request, controller: Controller, kind: Kind, choice: Choice) -> web.StreamResponse:
    """Answer with the rows of a kind, and go on with what becomes of them. Raises ApiError."""
    heard = _Heard()
    try:
        watch = controller.watches.begin(kind, choice, heard.wake)
    except TooManyError as error:
        raise ApiError(429, str(error)) from error
    response = web.StreamResponse(headers=_HEADERS)
    try:
        await response.prepare(request)
        await _Stream(request, response, controller, watch, heard).run()
    except (ConnectionError, TimeoutError):
        # Gone, or as good as gone: what is still to be written is for nobody.
        if request.transport is not None:
            request.transport.abort()
    finally:
        controller.watches.end(kind, watch)
    return response


class _Heard:
    """That there is something to look at, and since when."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self._since: float | None = None

    def wake(self) -> None:
        """There is something, where there was nothing."""
        self._since = time.monotonic()
        self.woken.set()

    def take(self) -> float | None:
        """Since when, where nobody has asked since."""
        since, self._since = self._since, None
        return since


class _Stream:
    """One answer that goes on."""

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        controller: Controller,
        watch: Watch,
        heard: _Heard,
    ) -> None:
        self._request = request
        self._response = response
        self._controller = controller
        self._watch = watch
        self._heard = heard
        self._written = self._allowed = time.monotonic()

    async def run(self) -> None:
        """Until the other side is gone, or the controller ends."""
        # The first look is what a list is: it is worked off at once, and the others wait for theirs.
        await self._look(is_paced=False)
        looked = time.monotonic()
        while not self._watch.is_closed and not self._is_gone():
            self._heard.woken.clear()
            now = time.monotonic()
            wait = GONE_INTERVAL
            if self._watch.is_dirty:
                wait = min(wait, max(looked + LOOK_INTERVAL, self._controller.changes.free_at) - now)
            if wait <= 0:
                since = self._heard.take()
                if await self._look(is_paced=True) and since is not None:
                    self._controller.durations.watched(time.monotonic() - since)
                looked = time.monotonic()
                continue
            if now - self._allowed >= ALLOWED_INTERVAL:
                self._allowed = now
                if not await self._may_still():
                    return
            if now - self._written >= COMMENT_INTERVAL:
                await self._write(b":\n\n")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._heard.woken.wait(), wait)

    async def _may_still(self) -> bool:
        """Whether who watches may still do so; on this machine, for as long as the connection lasts."""
        still = self._request.get(STILL)
        return still is None or await still()

    def _is_gone(self) -> bool:
        return self._request.transport is None or self._request.transport.is_closing()

    async def _look(self, *, is_paced: bool) -> bool:
        """Whether there was anything to be told."""
        told = False
        parts = self._watch.look()
        while not self._watch.is_closed:
            began = time.monotonic()
            events = next(parts, None)
            text = b"".join(map(_text, events or ()))
            now = time.monotonic()
            if is_paced:
                self._controller.changes.spent(now - began, now)
            if events is None:
                break
            if text:
                told = True
                await self._write(text)
            await asyncio.sleep(max(0.0, self._controller.changes.free_at - now) if is_paced else 0)
        return told

    async def _write(self, text: bytes) -> None:
        async with asyncio.timeout(WRITE_LIMIT):
            await self._response.write(text)
        self._written = time.monotonic()


def _text(event: Event) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.type.encode(), event.text)
