"""Sockets: where switches connect. The only part of the OpenFlow side that does I/O.

A switch that doesn't read must cost neither memory nor others' time: what is to be written waits as views on buffers
that all switches share, and only a slice at a time is given to the transport, when it has room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from controller.fleet import Fleet, Peer

log = logging.getLogger(__name__)

#: Bytes given to a transport at a time, and bytes that it may hold before it is full.
SLICE = 1 << 17
HIGH_WATER = 1 << 16
#: Buffers that may wait for one switch; a bundle of a whole scope is a few hundred.
QUEUE_LIMIT = 20_000
#: Seconds between looks at silent connections.
TICK = 1.0
BACKLOG = 4096


class TargetError(ValueError):
    """A --listen target that can't be listened on."""


class Connection(asyncio.Protocol):
    """One switch's stream. Implements `fleet.Link`."""

    def __init__(self, fleet: Fleet, connections: set[Connection], clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._connections = connections
        self._clock = clock
        self._queue: deque[memoryview] = deque()
        self._full = False
        self._transport: asyncio.Transport | None = None
        self._peer: Peer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        name = transport.get_extra_info("peername") or "a Unix socket"
        self._connections.add(self)
        self._peer = Peer(self._fleet, self, str(name), self._clock())

    def data_received(self, data: bytes) -> None:
        if self._peer is not None:
            self._peer.receive(data, self._clock())

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._queue.clear()
        if self._peer is not None:
            if self._peer.sync is not None:
                log.info("switch of node %s disconnected", self._peer.sync.node)
            self._peer.lost()
        self._transport = self._peer = None

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._pump()

    def write(self, buffers: Iterable[bytes]) -> None:
        """Send buffers in order, as fast as the switch reads."""
        self._queue.extend(map(memoryview, buffers))
        if len(self._queue) > QUEUE_LIMIT:
            self.close("the switch doesn't read what it is sent")
            return
        self._pump()

    def close(self, reason: str) -> None:
        """End the connection at once if data waits, after it is sent if it is little."""
        if self._transport is not None:
            if self._queue:
                self._transport.abort()
            else:
                self._transport.close()

    def tick(self) -> None:
        """Once a second."""
        if self._peer is not None:
            self._peer.tick(self._clock())

    def _pump(self) -> None:
        queue, transport = self._queue, self._transport
        while queue and not self._full and transport is not None:
            slices, size = [], 0
            while queue and size < SLICE:
                view = queue.popleft()
                if len(view) > SLICE:
                    queue.appendleft(view[SLICE:])
                    view = view[:SLICE]
                slices.append(view)
                size += len(view)
            transport.write(slices[0] if len(slices) == 1 else b"".join(slices))


class Channel:
    """Every listening socket and every connection."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._clock = clock
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self._ticker: asyncio.Task[None] | None = None

    async def listen(self, target: str, tls: ssl.SSLContext | None = None) -> None:
        """Listen on `tcp:ADDRESS:PORT` or `unix:PATH`. Raises TargetError."""
        loop = asyncio.get_running_loop()
        kind, _, rest = target.partition(":")
        try:
            if kind == "unix" and rest:
                server = await loop.create_unix_server(self._connection, unused(Path(rest)), ssl=tls, backlog=BACKLOG)
                make_private(Path(rest))
                self._paths.append(Path(rest))
            elif kind == "tcp" and rest.rpartition(":")[0]:
                host, _, port = rest.rpartition(":")
                server = await loop.create_server(
                    self._connection, host.strip("[]"), int(port), ssl=tls, backlog=BACKLOG, reuse_address=True
                )
            else:
                raise TargetError(f"--listen {target}: expected tcp:ADDRESS:PORT or unix:PATH")
        except (OSError, ValueError) as error:
            if isinstance(error, TargetError):
                raise
            raise TargetError(f"--listen {target}: {error}") from error
        self._servers.append(server)
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._tick())

    async def close(self) -> None:
        """Stop listening and end every connection; the switches keep what they have."""
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
        for server in self._servers:
            server.close()
        for path in self._paths:
            remove(path)
        for connection in list(self._connections):
            connection.close("the controller stops")
        await asyncio.sleep(0)

    def _connection(self) -> Connection:
        return Connection(self._fleet, self._connections, self._clock)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            for connection in list(self._connections):
                connection.tick()


def unused(path: Path) -> str:
    """A path where a socket can be made: one that a former process left behind is removed. Raises TargetError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink()
            else:
                raise TargetError(f"{path}: another process (a controller?) listens there")
    return os.fspath(path)


def make_private(path: Path) -> None:
    """Nobody but the owner may connect to a socket."""
    path.chmod(0o600)


def remove(path: Path) -> None:
    """Take a socket away that nobody listens on any more."""
    path.unlink(missing_ok=True)
