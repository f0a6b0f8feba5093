"""BGP at the edge: runs ExaBGP as a child process, feeds it, hears it, and starts it anew when it has died.

    Controller.routes ──wanted──> Sessions ──commands──> socket ──> bgp_relay ──stdin──> ExaBGP ──BGP──> routers
                                     ▲                     │
                                     └───────events────────┘

What is to be said is decided by `controller.bgp_sessions`; here are processes, sockets and pauses. docs/bgp.md says why
it is ExaBGP, and why beside us and not in this process.

ExaBGP ends without a word to its peers, killed or told to: so they keep what they know for the restart time (RFC 4724),
and a controller that comes back in that time withdraws nothing. This is so too where another replica takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from controller.bgp_sessions import Sessions, relay_command
from controller.bgp_settings import BgpSettings, BgpSettingsError
from topology.announcements import Route

log = logging.getLogger(__name__)

#: Seconds between looks at what is to be announced.
LOOK_INTERVAL = 0.2
#: Looking takes a tenth of the time at most: with thousands of routes, and pods that come and go, it isn't for free.
LOOK_SHARE = 10
#: Seconds before ExaBGP is started again: the first time, and at most. One that has run for long starts afresh.
FIRST_PAUSE, LONGEST_PAUSE, LONG = 0.5, 30.0, 60.0
#: Seconds that ExaBGP has to start, and to take what it is told.
START_LIMIT, WRITE_LIMIT = 20.0, 60.0
#: Commands between two looks at whether they are taken. A line of ExaBGP's is never longer than this.
BATCH, LINE_LIMIT = 200, 1 << 20
#: ExaBGP's own settings: nobody but us speaks to it, and what it logs comes to us.
_ENVIRONMENT = {
    "exabgp_api_cli": "false",
    "exabgp_api_respawn": "false",
    "exabgp_daemon_daemonize": "false",
    "exabgp_daemon_drop": "false",
    "exabgp_log_destination": "stderr",
    "exabgp_log_level": "WARNING",
    "exabgp_log_short": "true",
}


class EngineError(Exception):
    """ExaBGP has ended, or doesn't do what it is to do."""


class Speaker:
    """Our side of BGP. `directory` is for ExaBGP's configuration and socket; `clock` only goes forward."""

    def __init__(self, settings: BgpSettings, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        if importlib.util.find_spec("exabgp") is None:
            raise BgpSettingsError("--bgp-peer takes ExaBGP, which isn't installed: pip install 'exabgp>=5.0.15'")
        self.sessions = Sessions(settings)
        #: Whether it is this controller that announces, and why it can't, if so.
        self.speaks = False
        self.complaint = ""
        #: Hears of a peer, in words, and whether it is up.
        self.told: Callable[[str, str, bool], None] = lambda peer, line, is_up: None
        self._directory = directory
        self._clock = clock
        self._woken = asyncio.Event()
        self._wanted: tuple[Route, ...] | None = None
        self._next_look = 0.0
        #: ExaBGP's last words: why it has died, if it has.
        self._words: deque[str] = deque(maxlen=4)

    async def keep(self, wanted: Callable[[], tuple[Route, ...] | None]) -> None:
        """Announce what is wanted, for ever; None is wanted where another controller announces."""
        pause = FIRST_PAUSE
        while True:
            routes = self._look(wanted)
            self.speaks = routes is not None
            if routes is None:
                self.complaint = ""
                await asyncio.sleep(LOOK_INTERVAL)
                continue
            self.sessions.routes = routes
            began = self._clock()
            try:
                await self._run(wanted)
            except (EngineError, OSError, TimeoutError) as error:
                if self._clock() - began > LONG:
                    pause = FIRST_PAUSE
                self.complaint = f"{error or 'ExaBGP takes no commands'}; it is started again"
                log.warning("%s in %g s", self.complaint, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _look(self, wanted: Callable[[], tuple[Route, ...] | None]) -> tuple[Route, ...] | None:
        now = self._clock()
        if now >= self._next_look:
            self._wanted = wanted()
            self._next_look = now + LOOK_SHARE * (self._clock() - now)
        return self._wanted

    async def _run(self, wanted: Callable[[], tuple[Route, ...] | None]) -> None:
        """One ExaBGP's life: until it isn't wanted any more, or must begin anew. Raises where it ends by itself."""
        self.sessions.begin()
        self._tell_news()
        self._words.clear()
        async with contextlib.AsyncExitStack() as held:
            # Always the same: one that was killed leaves it behind.
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            held.callback(shutil.rmtree, self._directory, ignore_errors=True)
            joined: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
            joined = asyncio.get_running_loop().create_future()

            async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                if joined.done():
                    writer.close()
                else:
                    joined.set_result((reader, writer))

            path = self._directory / "api"
            path.unlink(missing_ok=True)
            server = await asyncio.start_unix_server(join, path, limit=LINE_LIMIT)
            held.callback(server.close)
            process = await self._start(path)
            held.push_async_callback(_end, process)
            reading = asyncio.create_task(self._listen_to_log(process))
            held.callback(reading.cancel)
            ended = asyncio.create_task(process.wait())
            held.callback(ended.cancel)
            await asyncio.wait((joined, ended), timeout=START_LIMIT, return_when=asyncio.FIRST_COMPLETED)
            if not joined.done():
                raise EngineError(self._last_words(process))
            reader, writer = joined.result()
            held.callback(writer.close)
            hearing = asyncio.create_task(self._hear(reader))
            held.callback(hearing.cancel)
            while (routes := self._look(wanted)) is not None and not self.sessions.spoilt:
                self.sessions.routes = routes
                await self._say(writer)
                self._tell_news()
                self._woken.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), LOOK_INTERVAL)
                if hearing.done() or ended.done():
                    await asyncio.wait((ended, reading), timeout=1.0)
                    raise EngineError(self._last_words(process))
                self.complaint = ""

    async def _start(self, path: Path) -> asyncio.subprocess.Process:
        configuration = path.with_name("exabgp.conf")
        configuration.write_text(self.sessions.configuration(relay_command(sys.executable, path)))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("exabgp")}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "exabgp", "server", str(configuration),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment | _ENVIRONMENT,
            # A terminal's Ctrl-C is for us alone: we end it.
            start_new_session=True,
        )  # fmt: skip

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self.sessions.heard(line, self._clock())
            self._woken.set()
        self._woken.set()

    async def _say(self, writer: asyncio.StreamWriter) -> None:
        commands = self.sessions.commands()
        for start in range(0, len(commands), BATCH):
            writer.write("".join(f"{each}\n" for each in commands[start : start + BATCH]).encode())
            async with asyncio.timeout(WRITE_LIMIT):
                await writer.drain()

    async def _listen_to_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            text = " ".join(line.decode(errors="replace").split())
            if text:
                self._words.append(text)
                log.debug("ExaBGP: %s", text)

    def _tell_news(self) -> None:
        news, self.sessions.news = self.sessions.news, []
        for wrong, line, peer in news:
            log.log(logging.WARNING if wrong else logging.INFO, "BGP %s", line)
            if peer:
                self.told(peer, line, not wrong)

    def _last_words(self, process: asyncio.subprocess.Process) -> str:
        how = "doesn't start" if process.returncode is None else f"ended with status {process.returncode}"
        return f"BGP: ExaBGP {how}: {' / '.join(dict.fromkeys(self._words)) or 'it said nothing'}"

    # What people ask --------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Our side in a few numbers."""
        sessions = self.sessions.sessions.values()
        return {
            "as": self.sessions.settings.asn,
            "routerID": str(self.sessions.settings.router_id),
            "announces": self.speaks,
            "peers": len(sessions),
            "established": sum(session.up for session in sessions),
            "routes": len(self.sessions.routes) if self.speaks else 0,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Every peer, and how its session is."""
        rows = list(self.sessions.rows(self._clock()))
        return (
            rows if self.speaks else [row | {"state": "Standby", "reason": "another replica announces"} for row in rows]
        )

    def routes(self) -> list[dict[str, Any]]:
        """Everything that is announced."""
        return [
            {"name": str(route.prefix), "nextHops": [str(each) for each in route.next_hops], "owner": route.owner}
            for route in (self.sessions.routes if self.speaks else ())
        ]

    def troubles(self) -> Iterator[str]:
        """What isn't as it should be."""
        if not self.speaks:
            return
        if self.complaint:
            yield self.complaint
        for address, session in self.sessions.sessions.items():
            if not session.up:
                yield f"BGP peer {address} (AS {session.peer.asn}): {session.reason}"


async def _end(process: asyncio.subprocess.Process) -> None:
    """Without a word to its peers, who so keep what they know for a while. The relay ends when it sees it gone."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
