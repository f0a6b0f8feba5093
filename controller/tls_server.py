"""Accepts connections for the admin API over TLS: a bounded number, each with little time to shake hands.

asyncio's own server would take as many half-open connections as there are files, with 256 kB of buffer each, and say
nothing of those that fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable

from controller import tls
from controller.refusals import Why

#: Seconds that a handshake may take, and until it is tried again to accept where the machine has no file left.
HANDSHAKE_LIMIT, AGAIN = 5.0, 1.0

Refuse = Callable[[str, Why, str], None]


class TlsServer:
    """One listening socket. `protocol` makes what speaks over a connection; those that do are `open_now()`.

    `context` gives that of the next connection: certificates change.
    """

    def __init__(
        self,
        listening: socket.socket,
        context: Callable[[], ssl.SSLContext],
        protocol: Callable[[], asyncio.BaseProtocol],
        open_now: Callable[[], Iterable[asyncio.BaseProtocol]],
        limit: int,
        refuse: Refuse,
    ) -> None:
        self._listening = listening
        self._context = context
        self._protocol = protocol
        self._open_now = open_now
        self._limit = limit
        self._refuse = refuse
        #: Handshakes under way, and what will speak then.
        self._greeting: dict[asyncio.Task[None], asyncio.BaseProtocol] = {}
        self._accepting = asyncio.create_task(self._accept())

    @property
    def taken(self) -> int:
        """How many connections there are. One that is open, and whose handshake's task is yet to end, is one."""
        return len({*self._open_now(), *self._greeting.values()})

    async def close(self) -> None:
        """Stop listening, and let go of connections that aren't whole yet."""
        tasks = [self._accepting, *self._greeting]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._listening.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listening)
            except OSError:
                await asyncio.sleep(AGAIN)
                continue
            if self.taken >= self._limit:
                connection.close()
                self._refuse(address[0], Why.CROWDED, "the admin API: too many connections")
                continue
            protocol = self._protocol()
            task = asyncio.create_task(self._greet(connection, address[0], protocol))
            self._greeting[task] = protocol
            task.add_done_callback(self._greeting.pop)

    async def _greet(self, connection: socket.socket, address: str, protocol: asyncio.BaseProtocol) -> None:
        loop = asyncio.get_running_loop()
        try:
            # One that hangs up in between has done nothing that is to be told of.
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                await loop.connect_accepted_socket(
                    lambda: protocol, connection, ssl=self._context(), ssl_handshake_timeout=HANDSHAKE_LIMIT
                )
        except ssl.SSLError as error:
            refused = tls.refused(error)
            self._refuse(address, refused.why, f"the admin API: {refused}")
        except ConnectionAbortedError:
            self._refuse(address, Why.SLOW, f"the admin API: no TLS handshake within {HANDSHAKE_LIMIT:g} s")
        except asyncio.CancelledError:
            connection.close()
            raise


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError and ValueError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=256)
    listening.setblocking(False)
    return listening
