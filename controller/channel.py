"""Sockets: where switches connect. The only part of the OpenFlow side that does I/O.

A switch that doesn't read must cost neither memory nor others' time: what is to be written waits as views on buffers
that all switches share, and only a slice at a time is given to the transport, when it has room. Who hasn't said yet
which switch it is has little time and no more than a share of the places there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path

from controller import tls
from controller.fleet import Fleet, Peer
from controller.refusals import RefusedError, Why
from controller.tls import Credentials, TlsStream

log = logging.getLogger(__name__)

#: Bytes given to a transport at a time, and bytes that it may hold before it is full.
SLICE = 1 << 17
HIGH_WATER = 1 << 16
#: Buffers that may wait for one switch; a bundle of a whole scope is a few hundred.
QUEUE_LIMIT = 20_000
#: Seconds between looks at silent connections.
TICK = 1.0
BACKLOG = 4096
#: Connections that haven't said yet which switch they are, and seconds that their TLS may take.
GREETING_LIMIT = 2048
TLS_LIMIT = 10.0
#: Seconds that a connection that is closed from here may take to read what was sent before.
LAST_WORDS = 5.0


class TargetError(ValueError):
    """A --listen target that can't be listened on."""


class Greeting:
    """Connections that haven't said yet which switch they are.

    Where there are too many, one goes of the address that has most of them: whoever takes all places only ever pushes
    out itself.
    """

    def __init__(self) -> None:
        # Ordered: the oldest comes first.
        self._connections: dict[Connection, None] = {}
        self._of_address: Counter[str] = Counter()

    def add(self, connection: Connection) -> Connection | None:
        """One more; the one that must go for it, which may be itself."""
        self._connections[connection] = None
        self._of_address[connection.address] += 1
        if len(self._connections) <= GREETING_LIMIT:
            return None
        ((most, count),) = self._of_address.most_common(1)
        if self._of_address[connection.address] == count:
            return connection
        return next(each for each in self._connections if each.address == most)

    def remove(self, connection: Connection) -> None:
        """It has said which it is, or is gone."""
        if connection in self._connections:
            del self._connections[connection]
            self._of_address[connection.address] -= 1
            if not self._of_address[connection.address]:
                del self._of_address[connection.address]


class Connection(asyncio.Protocol):
    """One switch's stream. Implements `fleet.Link`."""

    def __init__(self, channel: Channel, credentials: Credentials | None) -> None:
        self.address = ""
        self._channel = channel
        self._credentials = credentials
        self._queue: deque[memoryview] = deque()
        self._full = False
        self._transport: asyncio.Transport | None = None
        self._tls: TlsStream | None = None
        self._peer: Peer | None = None
        self._opened = channel.clock()
        self._closed = 0.0
        self._heard = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        name = transport.get_extra_info("peername")
        self.address = name[0] if isinstance(name, tuple) else "a Unix socket"
        self._channel.connections.add(self)
        if self._credentials is None:
            self._meet("")
        pushed_out = self._channel.greeting.add(self)
        if pushed_out is not None:
            pushed_out.refuse(Why.CROWDED, "too many connections that haven't said which switch they are")

    def data_received(self, data: bytes) -> None:
        try:
            if not self._heard:
                self._heard = True
                self._check_first(data)
            if self._credentials is not None:
                data = self._decipher(data)
        except RefusedError as error:
            self._flush_tls()
            if self._peer is not None and self._peer.known:
                self._peer.close(str(error))
            else:
                self.refuse(error.why, str(error))
            return
        if self._peer is not None and data:
            self._peer.receive(data, self._channel.clock())
            if self._peer is not None and self._peer.known:
                self._channel.greeting.remove(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel.connections.discard(self)
        self._channel.greeting.remove(self)
        self._queue.clear()
        if self._peer is not None:
            if self._peer.sync is not None:
                log.info("switch of node %s disconnected", self._peer.sync.node)
            self._peer.lost()
        elif self._tls is not None and self._transport is not None and not self._closed:
            # One that only looks whether the port is open says nothing at all, and isn't told of.
            text = "it hung up in the middle of the TLS handshake: does it trust this controller's certificate?"
            self._channel.fleet.refuse(self.address, Why.HANDSHAKE, text, self._channel.clock())
        self._transport = self._peer = self._tls = None

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
        self._channel.greeting.remove(self)
        if self._transport is not None and not self._transport.is_closing():
            self._closed = self._channel.clock()
            if self._queue:
                self._transport.abort()
            else:
                if self._tls is not None and self._tls.established:
                    self._transport.write(self._tls.end())
                self._transport.close()

    def refuse(self, why: Why, text: str) -> None:
        """End the connection of a peer that isn't let in."""
        self._channel.fleet.refuse(self.address, why, text, self._channel.clock())
        self.close(text)
        if self._peer is not None:
            self._peer.lost()

    def tick(self) -> None:
        """Once a second."""
        now = self._channel.clock()
        if self._transport is not None and self._transport.is_closing():
            # A peer that doesn't read what was sent last would keep it for ever.
            if now - self._closed > LAST_WORDS:
                self._transport.abort()
        elif self._peer is not None:
            self._peer.tick(now)
        elif now - self._opened > TLS_LIMIT:
            self.refuse(Why.SLOW, f"no TLS handshake within {TLS_LIMIT:g} s")

    def _check_first(self, data: bytes) -> None:
        if self._credentials is not None:
            tls.check_first(data)
        elif data[0] == tls.HANDSHAKE_RECORD:
            raise RefusedError(
                Why.UNEXPECTED_TLS, "it speaks TLS, and this port plain OpenFlow: its controller must be tcp:..."
            )

    def _decipher(self, data: bytes) -> bytes:
        if self._tls is None:
            # Not before there is something: who connects and says nothing costs next to nothing.
            assert self._credentials is not None
            self._tls = TlsStream(self._credentials.context)
        before = self._tls.established
        said = self._tls.receive(data)
        self._flush_tls()
        if self._tls.established and not before:
            self._meet(self._tls.node)
        return said

    def _meet(self, certified: str) -> None:
        self._peer = Peer(self._channel.fleet, self, self.address, self._channel.clock(), certified)

    def _flush_tls(self) -> None:
        if self._tls is not None and self._transport is not None:
            output = self._tls.output()
            if output:
                self._transport.write(output)

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
            data = slices[0] if len(slices) == 1 else b"".join(slices)
            try:
                transport.write(data if self._tls is None else self._tls.seal(data))
            except RefusedError:
                # Whoever writes speaks to many switches, and must not hear of this one's fault.
                transport.abort()
                return


class Channel:
    """Every listening socket and every connection."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float]) -> None:
        self.fleet = fleet
        self.clock = clock
        self.connections: set[Connection] = set()
        self.greeting = Greeting()
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self._ticker: asyncio.Task[None] | None = None

    async def listen(self, target: str, credentials: Credentials | None = None) -> None:
        """Listen on `ssl:ADDRESS:PORT` with credentials, `tcp:ADDRESS:PORT` or `unix:PATH`. Raises TargetError."""
        loop = asyncio.get_running_loop()
        kind, _, rest = target.partition(":")
        try:
            if kind == "unix" and rest:
                server = await loop.create_unix_server(self._plain, unused(Path(rest)), backlog=BACKLOG)
                make_private(Path(rest))
                self._paths.append(Path(rest))
            elif kind in ("ssl", "tcp") and rest.rpartition(":")[0]:
                host, _, port = rest.rpartition(":")
                factory = self._plain
                if kind == "ssl":
                    if credentials is None:
                        raise TargetError(f"--listen {target}: takes --tls-cert, --tls-key and --tls-ca")
                    factory = functools.partial(Connection, self, credentials)
                server = await loop.create_server(
                    factory, host.strip("[]"), int(port), backlog=BACKLOG, reuse_address=True
                )
            else:
                raise TargetError(f"--listen {target}: expected ssl:ADDRESS:PORT, tcp:ADDRESS:PORT or unix:PATH")
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
        for connection in list(self.connections):
            connection.close("the controller stops")
        await asyncio.sleep(0)

    def _plain(self) -> Connection:
        return Connection(self, None)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            for connection in list(self.connections):
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
