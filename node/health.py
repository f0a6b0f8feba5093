"""What Kubernetes' kubelet asks, over plain HTTP: GET /healthz, whether the event loop turns; GET /readyz, whether the
node is set up, so that pods can be attached.

controller/health.py does the same for the controller: neither of the two parts may import the other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from node.settings import SettingsError

#: Seconds that one question may take, and questions that are answered at a time.
_LIMIT, _QUESTIONS = 5.0, 16


async def serve(address: str, not_ready: Callable[[], str]) -> asyncio.Server:
    """Serve on ADDRESS:PORT until the server that is returned is closed. Raises SettingsError."""
    turns = asyncio.Semaphore(_QUESTIONS)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError, TimeoutError):
            async with turns, asyncio.timeout(_LIMIT):
                asked = (await reader.readline()).split()
                while (await reader.readline()).strip():
                    pass
                status, text = _answer(asked[1] if len(asked) > 1 else b"", not_ready)
                body = f"{text}\n".encode()
                head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
                writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
                await writer.drain()
        writer.close()

    host, _, port = address.rpartition(":")
    try:
        return await asyncio.start_server(answer, host.strip("[]") or None, int(port), reuse_address=True)
    except (OSError, ValueError) as error:
        raise SettingsError(f"--health {address}: {error}; give an address of this node and a free port") from error


def _answer(path: bytes, not_ready: Callable[[], str]) -> tuple[str, str]:
    match path.partition(b"?")[0]:
        case b"/healthz":
            return "200 OK", "ok"
        case b"/readyz":
            reason = not_ready()
            return ("503 Service Unavailable", reason) if reason else ("200 OK", "ok")
    return "404 Not Found", "there are /healthz and /readyz"
