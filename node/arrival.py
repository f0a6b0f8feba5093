"""Have a pod's flows arrived? Asked of the node's own switch, over the bridge's management socket.

One OpenFlow 1.3 aggregate-statistics request: how many flows of the first table are for this port and have this pod's
cookie. The controller sends a pod's flows in one atomic bundle, so one flow stands for all of them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from struct import pack, unpack_from

from topology.naming import BRIDGE, OBJECT_ID_BITS, object_id

_VERSION = 4
_HELLO, _ERROR, _ECHO_REQUEST, _ECHO_REPLY, _MULTIPART_REQUEST, _MULTIPART_REPLY = 0, 1, 2, 3, 18, 19
_AGGREGATE, _ANY = 2, 0xFFFF_FFFF
_OXM_IN_PORT = 0x8000_0004
#: Seconds between two questions: short at first, because most answers take a few milliseconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


class NotArrivedError(Exception):
    """The flows didn't come in time, or the switch can't be asked; the text says which."""


async def wait_for_flows(rundir: Path, namespace: str, pod: str, port: int, timeout: float) -> None:
    """Return when the switch has the pod's flows for its port. Raises NotArrivedError after `timeout` seconds."""
    path = rundir / f"{BRIDGE}.mgmt"
    cookie = object_id("Pod", namespace, pod)
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                await _until_there(reader, writer, cookie, port)
            finally:
                writer.close()
    except TimeoutError as error:
        raise NotArrivedError(
            f"no flows for pod {namespace}/{pod} on port {port} after {timeout:g} s: "
            "is the controller running, and does it know the pod?"
        ) from error
    except (OSError, EOFError, ValueError) as error:
        raise NotArrivedError(f"{path}: {error}") from error


async def _until_there(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cookie: int, port: int) -> None:
    writer.write(pack("!BBHIHHI", _VERSION, _HELLO, 16, 1, 1, 8, 1 << _VERSION))
    pause = _FIRST_PAUSE
    while True:
        writer.write(_question(cookie, port))
        if await _answer(reader, writer):
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _question(cookie: int, port: int) -> bytes:
    match = pack("!HHII4x", 1, 12, _OXM_IN_PORT, port)
    body = pack("!HH4xB3xII4xQQ", _AGGREGATE, 0, 0, _ANY, _ANY, cookie, (1 << OBJECT_ID_BITS) - 1) + match
    return pack("!BBHI", _VERSION, _MULTIPART_REQUEST, 8 + len(body), 2) + body


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """The number of flows that the next answer tells."""
    while True:
        header = await reader.readexactly(8)
        version, kind, length, xid = unpack_from("!BBHI", header)
        body = await reader.readexactly(max(length - 8, 0))
        if kind == _MULTIPART_REPLY and len(body) >= 32:
            return int(unpack_from("!I", body, 24)[0])
        if kind == _ECHO_REQUEST:
            writer.write(pack("!BBHI", _VERSION, _ECHO_REPLY, length, xid) + body)
        elif kind == _ERROR:
            raise ValueError(
                f"the switch answers with an error (its OpenFlow version is {version:#x}): {body[:4].hex()}"
            )
