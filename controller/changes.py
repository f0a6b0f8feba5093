"""Who is to look again, and at what: told of rows that may be others now, it tells whoever watches them.

    Controller, Concerns ──touch(kind, key)──> Changes ──touch──> each Watch of the kind (`controller.watching`)

A touch says "may be": rows are compared before anything is sent. Nothing is kept of it but a key in a set of each
watch, and nothing at all where nobody watches. Also owns how many may watch, and how much of the controller's time they
may have together. Sans-I/O; time is an argument.
"""

from __future__ import annotations

from typing import Protocol

from controller.lists import Key

#: Watches at a time.
LIMIT = 64
#: Looking takes one part in this many of the controller's time.
SHARE = 4


class TooManyError(Exception):
    """There are as many watches as there may be."""

    def __init__(self) -> None:
        super().__init__(f"{LIMIT} watches are open, and no more are served: end one, or ask for the list")


class Listener(Protocol):
    """Somebody who has rows of a kind, and is told which of them are out of date."""

    def touch(self, key: Key) -> None:
        """The rows of one key may be others, or gone."""

    def touch_all(self) -> None:
        """Any row may be."""

    def close(self) -> None:
        """There will be no more."""


class Changes:
    """Every listener, by the kind of rows."""

    def __init__(self) -> None:
        self.is_closed = False
        #: When there is time for the next look.
        self.free_at = float("-inf")
        self._listeners: dict[str, list[Listener]] = {}
        #: How many watch.
        self.watched = 0

    @property
    def is_watched(self) -> bool:
        """Whether anybody watches anything: if not, there is no need to find out what to touch."""
        return bool(self._listeners)

    def watches(self, kind: str) -> bool:
        """Whether anybody watches rows of a kind."""
        return kind in self._listeners

    def touch(self, kind: str, key: Key) -> None:
        """The rows of one key may be others now, or gone."""
        for each in self._listeners.get(kind, ()):
            each.touch(key)

    def touch_all(self, *kinds: str) -> None:
        """Any row of these kinds may be another now."""
        for kind in kinds:
            for each in self._listeners.get(kind, ()):
                each.touch_all()

    def listen(self, kind: str, listener: Listener) -> None:
        """Tell a listener from now on. The one that listens first is told first."""
        self._listeners.setdefault(kind, []).append(listener)
        if self.is_closed:
            listener.close()

    def leave(self, kind: str, listener: Listener) -> None:
        """Tell it no more."""
        self._listeners[kind].remove(listener)
        if not self._listeners[kind]:
            del self._listeners[kind]

    def admit(self) -> None:
        """One more watch, until `dismiss`. Raises TooManyError."""
        if self.watched >= LIMIT:
            raise TooManyError
        self.watched += 1

    def dismiss(self) -> None:
        """One watch less."""
        self.watched -= 1

    def spent(self, seconds: float, now: float) -> None:
        """A look has taken this long: the next one is not before the others have had their share."""
        self.free_at = max(self.free_at, now) + seconds * (SHARE - 1)

    def close(self) -> None:
        """The controller ends: nobody is to wait for more."""
        self.is_closed = True
        for listeners in self._listeners.values():
            for each in listeners:
                each.close()
