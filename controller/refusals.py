"""Connections that were refused: counted, shown, and logged once for each peer and kind of reason.

A switch with a wrong certificate tries again every second, and a scanner of ports has many addresses: neither may fill
the log or memory. Knows nothing of sockets or TLS. Time is an argument.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from enum import Enum
from typing import Any

#: Seconds after which a peer that is refused on and on is logged again, and after which one is no longer shown.
LOG_AGAIN, SHOWN_FOR = 600.0, 600.0
#: Peers that are remembered; lines that are logged of all of them together in LINES_WITHIN seconds.
REMEMBERED = 1_000
LINES, LINES_WITHIN = 50, 60.0


class Why(Enum):
    """The kinds of reasons there are."""

    NO_CERTIFICATE = "no certificate"
    UNTRUSTED = "untrusted certificate"
    EXPIRED = "expired certificate"
    WRONG_NODE = "wrong node"
    DISTRUSTS = "doesn't trust this controller"
    NOT_TLS = "plain text where TLS is spoken"
    UNEXPECTED_TLS = "TLS where plain text is spoken"
    HANDSHAKE = "TLS handshake failed"
    PROTOCOL = "not OpenFlow as it should be"
    SLOW = "too slow"
    CROWDED = "too many connections"
    TOKEN = "no valid token"
    ROLE = "role not sufficient"


class RefusedError(Exception):
    """A peer is not let in; the text says why, and what would be right."""

    def __init__(self, why: Why, text: str) -> None:
        super().__init__(text)
        self.why = why


class _Refused:
    """One peer, refused for one kind of reason."""

    def __init__(self, now: float) -> None:
        self.count = self.unlogged = 0
        self.logged = float("-inf")
        self.last = now
        self.text = ""


class Refusals:
    """Every refusal of late, and how many there have been of each kind."""

    def __init__(self) -> None:
        self.totals: Counter[Why] = Counter()
        #: The one that was refused last comes last.
        self._of: dict[tuple[str, Why], _Refused] = {}
        self._lines: list[float] = []

    def add(self, address: str, why: Why, text: str, now: float) -> str | None:
        """One more; the line to be logged, where one is due."""
        self.totals[why] += 1
        entry = self._of.pop((address, why), None) or _Refused(now)
        self._of[address, why] = entry
        if len(self._of) > REMEMBERED:
            del self._of[next(iter(self._of))]
        entry.count += 1
        entry.last, entry.text = now, text
        if now - entry.logged < LOG_AGAIN:
            entry.unlogged += 1
            return None
        return self._line(address, entry, now)

    def rows(self, now: float) -> Iterator[dict[str, Any]]:
        """Those of late, the latest first."""
        for (address, why), entry in reversed(self._of.items()):
            if now - entry.last <= SHOWN_FOR:
                yield {
                    "peer": address,
                    "kind": why.value,
                    "reason": entry.text,
                    "count": entry.count,
                    "secondsAgo": round(now - entry.last),
                }

    def _line(self, address: str, entry: _Refused, now: float) -> str | None:
        self._lines = [each for each in self._lines if now - each < LINES_WITHIN]
        if len(self._lines) > LINES:
            entry.unlogged += 1
            return None
        self._lines.append(now)
        if len(self._lines) > LINES:
            return "many peers are refused; no more is logged for a while, 'signalbox status' shows them"
        more = f" ({entry.unlogged} times more since this was last said)" if entry.unlogged else ""
        entry.logged, entry.unlogged = now, 0
        return f"{address} is refused: {entry.text}{more}"
