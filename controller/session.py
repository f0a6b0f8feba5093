"""One OpenFlow 1.5 connection, from hello on: bytes in, messages out. No socket, no clock: time is an argument.

    opened ──hello──> GREETING ──their hello──> ASKING ──features──> OPEN
                          └───── any violation, silence ────┴──> SessionError: the connection is closed

It answers echo requests, asks for echoes when the switch is silent, and puts multipart replies together.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from flows.openflow import encode, wire
from flows.openflow.decode import DecodeError, decode
from flows.openflow.framing import Framer, FramingError
from flows.openflow.messages import (
    EchoReply,
    EchoRequest,
    FeaturesReply,
    Hello,
    Message,
    MultipartReply,
    PortStatus,
)

#: Seconds of silence after which an echo is asked for, and after which the connection is given up.
PROBE_AFTER = 5.0
GIVE_UP_AFTER = 15.0
#: Seconds that a connection may take to say which switch it is.
HANDSHAKE_LIMIT = 10.0
#: Items of one multipart reply that are put together: well over OVS's flows on one bridge.
MULTIPART_LIMIT = 2_000_000
#: Multipart replies that may be unfinished at a time.
PARTIAL_LIMIT = 64

_HELLO_FAILED, _INCOMPATIBLE = 0, 0


class SessionError(Exception):
    """The peer doesn't speak as it should, or not at all; the text says how."""


class State(Enum):
    GREETING = "greeting"
    ASKING = "asking"
    OPEN = "open"


class Session:
    """The state of one connection. `output` collects what is to be sent; take it after every call."""

    def __init__(self, now: float) -> None:
        self.state = State.GREETING
        self.features: FeaturesReply | None = None
        self.output: list[bytes] = [encode.hello()]
        self._framer = Framer()
        self._opened = now
        self._heard = now
        self._probed = False
        self._partial: dict[int, list[MultipartReply]] = {}

    def receive(self, data: bytes, now: float) -> list[Message]:
        """Messages for whoever keeps the switch in sync, the FeaturesReply first. Raises SessionError."""
        self._heard = now
        self._probed = False
        found: list[Message] = []
        try:
            for frame in self._framer.feed(data):
                message = self._take(decode(frame))
                if message is not None:
                    found.append(message)
        except (FramingError, DecodeError) as error:
            raise SessionError(f"bad OpenFlow: {error}") from error
        return found

    def tick(self, now: float) -> None:
        """Once a second or so. Raises SessionError when the peer has been silent for too long."""
        if self.state is not State.OPEN and now - self._opened > HANDSHAKE_LIMIT:
            raise SessionError(f"no handshake within {HANDSHAKE_LIMIT:g} s")
        silence = now - self._heard
        if silence > GIVE_UP_AFTER:
            raise SessionError(f"silent for {silence:.0f} s")
        if silence > PROBE_AFTER and not self._probed and self.state is State.OPEN:
            self._probed = True
            self.output.append(encode.echo_request())

    def _take(self, message: Message) -> Message | None:
        match message:
            case EchoRequest():
                self.output.append(encode.echo_reply(message.data, message.xid))
                return None
            case EchoReply():
                return None
            case Hello():
                self._greet(message)
                return None
            case FeaturesReply() if self.state is State.ASKING:
                self.state = State.OPEN
                self.features = message
                return message
        if self.state is not State.OPEN:
            if isinstance(message, PortStatus):
                # Nobody asked for it yet; all ports are asked for once it is known whose they are.
                return None
            raise SessionError(f"{type(message).__name__} before the handshake was done")
        if isinstance(message, MultipartReply):
            return self._assemble(message)
        return message

    def _greet(self, message: Hello) -> None:
        if self.state is not State.GREETING:
            raise SessionError("a second hello")
        if wire.VERSION not in message.versions:
            self.output.append(encode.error(_HELLO_FAILED, _INCOMPATIBLE, b"OpenFlow 1.5 is needed"))
            spoken = ", ".join(f"{version:#x}" for version in sorted(message.versions))
            raise SessionError(f"the switch speaks OpenFlow {spoken}; enable OpenFlow15 on the bridge")
        self.state = State.ASKING
        self.output.append(encode.features_request())

    def _assemble(self, message: MultipartReply) -> MultipartReply | None:
        parts = self._partial.setdefault(message.xid, [])
        parts.append(message)
        if len(self._partial) > PARTIAL_LIMIT or sum(len(part.items) for part in parts) > MULTIPART_LIMIT:
            raise SessionError("multipart replies without end")
        if message.more:
            return None
        del self._partial[message.xid]
        if len(parts) == 1:
            return message
        items = tuple(item for part in parts for item in part.items)
        return msgspec.structs.replace(message, items=items)
