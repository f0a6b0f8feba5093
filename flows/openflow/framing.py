"""Bytes of a stream to whole messages. Holds at most one message's worth of bytes between calls."""

from __future__ import annotations

from flows.openflow.wire import HEADER

#: The highest message type there is (OpenFlow 1.5.1, 7.1: OFPT_CONTROLLER_STATUS).
_LAST_TYPE = 35


class FramingError(ValueError):
    """The stream isn't OpenFlow: nothing that follows can be trusted."""


class Framer:
    """Cuts a byte stream into OpenFlow messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes, each with its header. Raises FramingError.

        A message is at most 64 KiB, the most that its length field can say, so that much is kept and no more.
        """
        data = self._rest + data if self._rest else bytes(data)
        messages = []
        start = 0
        while len(data) - start >= HEADER.size:
            length = data[start + 2] << 8 | data[start + 3]
            if data[start + 1] > _LAST_TYPE:
                # Found out at once, and not when as many bytes have come as it seems to announce.
                raise FramingError(f"there is no message type {data[start + 1]}")
            if length < HEADER.size:
                raise FramingError(f"a message says that it is {length} bytes long, less than its header")
            if len(data) - start < length:
                break
            messages.append(data[start : start + length])
            start += length
        self._rest = data[start:]
        return messages
