"""When something that has failed is tried again: later each time, up to a bound. Pure: time is an argument."""

from __future__ import annotations


class Pause:
    """A pause that is twice as long each time, until it is known that there is no need for one."""

    def __init__(self, first: float, longest: float) -> None:
        """`first` and `longest`: seconds."""
        self._first, self._longest = first, longest
        self._next = first
        self._until: float | None = None

    @property
    def begun(self) -> bool:
        """Whether there is a pause, be it on or over."""
        return self._until is not None

    def begin(self, now: float) -> None:
        """One more, twice as long as the last one."""
        self._until = now + self._next
        self._next = min(2 * self._next, self._longest)

    def is_on(self, now: float) -> bool:
        """Whether to wait."""
        return self._until is not None and now < self._until

    def is_over(self, now: float) -> bool:
        """Whether it is time to try again."""
        return self._until is not None and now >= self._until

    def end(self) -> None:
        """All is well: the next one is as short as the first."""
        self._until, self._next = None, self._first
