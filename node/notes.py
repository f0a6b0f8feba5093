"""What the host must do, as the node's own switch tells it: the notes in the flows of one table.

Asked over the bridge's management socket, in OpenFlow 1.3: the flows of the table that settings name `Host`.
The controller writes those flows (flows/tables/host.py says what they mean), so the agent needs no word from it.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from struct import pack, unpack_from
from typing import Any

from topology.naming import BRIDGE

#: The names of the table, and of that whose flows' cookies say which state the switch has, in `Settings.tables`.
HOST_TABLE, DIGEST_TABLE = "Host", "Digest"
_VERSION = 4
_HELLO, _ERROR, _ECHO_REQUEST, _ECHO_REPLY, _MULTIPART_REQUEST, _MULTIPART_REPLY = 0, 1, 2, 3, 18, 19
_FLOW, _ANY, _MORE = 1, 0xFFFF_FFFF, 1
_APPLY_ACTIONS, _EXPERIMENTER, _NICIRA, _NOTE = 4, 0xFFFF, 0x2320, 8
#: Bytes of all notes: thousands of addresses. More is not ours.
_LIMIT = 16 << 20

Note = dict[str, Any]


class NotesError(Exception):
    """The switch can't be asked; the text says why."""


async def read(rundir: Path, table: int, timeout: float) -> list[Note]:
    """The notes that the switch has now. Raises NotesError."""
    try:
        return notes_of(await _flows(rundir, table, timeout))
    except ValueError as error:
        raise NotesError(f"{rundir / f'{BRIDGE}.mgmt'}: {error!r}") from error


async def edition(rundir: Path, table: int, timeout: float) -> tuple[int, ...]:
    """The cookies of a table's flows, sorted: of the digests', the state of all flows. Raises NotesError."""
    flows, cookies, offset = await _flows(rundir, table, timeout), [], 0
    while offset + 56 <= len(flows):
        (length,) = unpack_from("!H", flows, offset)
        cookies.append(int(unpack_from("!Q", flows, offset + 24)[0]))
        offset += max(length, 56)
    return tuple(sorted(cookies))


async def _flows(rundir: Path, table: int, timeout: float) -> bytes:
    path = rundir / f"{BRIDGE}.mgmt"
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                writer.write(pack("!BBHIHHI", _VERSION, _HELLO, 16, 1, 1, 8, 1 << _VERSION))
                match = pack("!HH4x", 1, 4)
                body = pack("!HH4xB3xII4xQQ", _FLOW, 0, table, _ANY, _ANY, 0, 0) + match
                writer.write(pack("!BBHI", _VERSION, _MULTIPART_REQUEST, 8 + len(body), 2) + body)
                return await _answer(reader, writer)
            finally:
                writer.close()
    except (OSError, EOFError, ValueError, TimeoutError) as error:
        raise NotesError(f"{path}: {error!r}") from error


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    found = bytearray()
    total = 0
    while True:
        _, kind, length, xid = unpack_from("!BBHI", await reader.readexactly(8))
        body = await reader.readexactly(max(length - 8, 0))
        total += length
        if total > _LIMIT:
            raise ValueError("more notes than there can be")
        if kind == _ECHO_REQUEST:
            writer.write(pack("!BBHI", _VERSION, _ECHO_REPLY, length, xid) + body)
        elif kind == _ERROR:
            raise ValueError(f"the switch answers with an error: {body[:4].hex()}")
        elif kind == _MULTIPART_REPLY:
            found += body[8:]
            if not unpack_from("!HH", body)[1] & _MORE:
                return bytes(found)


def notes_of(flows: bytes) -> list[Note]:
    """The notes in a run of flow descriptions (OpenFlow 1.3.5, 7.3.5.2). What is no note of ours is passed over."""
    notes = []
    offset = 0
    while offset + 56 <= len(flows):
        (length,) = unpack_from("!H", flows, offset)
        if length < 56:
            raise ValueError(f"a flow of {length} bytes")
        if offset + length > len(flows):
            raise ValueError(f"a flow of {length} bytes, of which {len(flows) - offset} are there")
        (match_length,) = unpack_from("!H", flows, offset + 50)
        at = offset + 48 + match_length + -match_length % 8
        while at + 8 <= offset + length:
            kind, size = unpack_from("!HH", flows, at)
            if size < 8:
                raise ValueError(f"an instruction of {size} bytes")
            if kind == _APPLY_ACTIONS:
                notes += _in_actions(flows[at + 8 : at + size])
            at += size
        offset += length
    return notes


def _in_actions(actions: bytes) -> list[Note]:
    notes = []
    at = 0
    while at + 10 <= len(actions):
        kind, size = unpack_from("!HH", actions, at)
        if size < 8:
            raise ValueError(f"an action of {size} bytes")
        if kind == _EXPERIMENTER and unpack_from("!IH", actions, at + 4) == (_NICIRA, _NOTE):
            note = json.loads(actions[at + 10 : at + size].rstrip(b"\0"))
            if isinstance(note, dict):
                notes.append(note)
        at += size
    return notes
