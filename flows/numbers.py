"""Numbers of 32 bits for titles: a function of the titles that there are, not of the order in which they came.

A number is a hash of its title. Of titles whose hashes meet, the first by name has it; the others have a second hash,
out of a range that no first one is in. Groups are numbered so, whose ids must be the same after every restart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_FIRST = (1 << 31) - 1
#: Numbers from 0xc0000000 up are the fabric's groups (`flows.fabric_parts`), and from 0xffffff00 up OpenFlow's own.
_SECOND_BASE, _SECOND_SIZE = 1 << 31, 1 << 30


class NumberError(ValueError):
    """Two titles can't be told apart by either hash: rename one of the objects."""


class Numbers:
    """The titles that are in use. `take` and `drop` count: a title may be taken once."""

    def __init__(self) -> None:
        self._first: dict[int, set[str]] = {}
        #: First hashes that several titles have: of a hundred thousand titles a few.
        self._met: set[int] = set()

    def take(self, titles: Iterable[str]) -> None:
        """Titles come into use."""
        for title in titles:
            there = self._first.setdefault(_first(title), set())
            there.add(title)
            if len(there) > 1:
                self._met.add(_first(title))

    def drop(self, titles: Iterable[str]) -> None:
        """Titles go out of use."""
        for title in titles:
            there = self._first.get(_first(title))
            if there is not None:
                there.discard(title)
                if len(there) < 2:
                    self._met.discard(_first(title))
                if not there:
                    del self._first[_first(title)]

    def rivals(self, titles: Iterable[str]) -> set[str]:
        """Titles in use whose numbers may change when these come or go."""
        found: set[str] = set()
        for title in titles:
            there = self._first.get(_first(title))
            if there is not None and len(there) > (title in there):
                found |= there
        return found

    def __call__(self, title: str) -> int:
        """A title's number. Raises NumberError."""
        number = _first(title)
        there = self._first.get(number)
        if there is None or len(there) == 1 or min(there) == title:
            return number
        seconds = [_second(other) for other in there if other != min(there)]
        if seconds.count(_second(title)) > 1:
            raise NumberError(f"{title}: its number is that of another; rename it")
        return _second(title)

    def title(self, number: int) -> str | None:
        """The title in use that has a number; None where none has."""
        if there := self._first.get(number):
            return min(there)
        others = (title for first in self._met for title in sorted(self._first[first])[1:])
        return next((title for title in others if _second(title) == number), None)


def _hash(title: str) -> int:
    return int.from_bytes(hashlib.blake2b(title.encode(), digest_size=8).digest(), "big")


def _first(title: str) -> int:
    return (_hash(title) & _FIRST) or 1


def _second(title: str) -> int:
    return _SECOND_BASE + (_hash(title) >> 32) % _SECOND_SIZE
