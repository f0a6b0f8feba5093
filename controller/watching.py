"""A list that goes on: the rows that there are, then what becomes of them. Sans-I/O.

    Changes ──touch──> Watch ──dirty keys──> Rows ──made anew──> compared with what was told ──> events

A watch keeps no queue: it knows which keys are dirty (or, beyond a bound, that all are) and what it has told, and a
look compares. So what changes ten times between two looks is told once, and who reads slowly is told less often, not
later and later. What is told are rows as text; those who watch the same kind share them, so that each is made once
after a change and kept once, however many watch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from controller.changes import Changes
from controller.lists import STRIDE, Choice, Key, Kind
from controller.sync import Phase

ADDED, MODIFIED, DELETED, SYNC = "ADDED", "MODIFIED", "DELETED", "SYNC"
#: Keys that a watch has to look at; with more it looks at all.
DIRTY_LIMIT = 10_000
#: Fields of rows that change all the time: alone they make no event.
RESTLESS: Mapping[str, frozenset[str]] = {
    "nodes": frozenset(("flows", "digest", "flowModsSent", "bundlesSent", "lastBundleSeconds"))
}
#: States that are over in a moment, whose end nobody tells of: such rows are looked at again.
_PASSING = (Phase.READING.value, Phase.SYNCING.value)


class Event(msgspec.Struct, frozen=True):
    """Something that became of a row; of SYNC, that all rows that there were have been told."""

    type: str
    text: bytes


class Shown(msgspec.Struct, frozen=True):
    """A row as it was made: what tells it from others, its text, and the part of that which makes an event."""

    identity: Key
    text: bytes
    essence: bytes
    is_passing: bool


class Rows:
    """The rows of a kind as they were made last, for all who watch it."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._restless = RESTLESS.get(kind.name, frozenset())
        #: By key, and for which keys that is as it is now.
        self._made: dict[Key, tuple[Shown, ...]] = {}
        self._valid: set[Key] = set()

    def touch(self, key: Key) -> None:
        self._valid.discard(key)

    def touch_all(self) -> None:
        self._valid.clear()

    def close(self) -> None:
        pass

    def of(self, keys: Sequence[Key]) -> Iterator[tuple[Key, tuple[Shown, ...]]]:
        """The rows of these keys; of those that are gone, none. What is as it was is the same object as before."""
        wanted = [key for key in keys if key not in self._valid]
        found = self._make(wanted)
        for key in wanted:
            rows = tuple(found.get(key, ()))
            if not rows:
                self._made.pop(key, None)
                continue
            if rows != self._made.get(key):
                self._made[key] = rows
            # What nobody tells of is made whenever it is asked for.
            if not self._restless and not any(each.is_passing for each in rows):
                self._valid.add(key)
        return ((key, self._made.get(key, ())) for key in keys)

    def _make(self, keys: Sequence[Key]) -> dict[Key, list[Shown]]:
        found: dict[Key, list[Shown]] = {}
        for row in self._kind.rows(keys, None) if keys else ():
            text = msgspec.json.encode(row)
            essence = text
            if self._restless:
                essence = msgspec.json.encode({name: row[name] for name in row if name not in self._restless})
            shown = Shown(self._kind.identify(row), text, essence, row.get("status") in _PASSING)
            found.setdefault(self._kind.key(row), []).append(shown)
        return found


class Watch:
    """Whoever watches a kind, or a choice of its rows. `wake` is called when there is something to look at again."""

    def __init__(self, rows: Rows, kind: Kind, choice: Choice, wake: Callable[[], None]) -> None:
        self.is_closed = False
        self._rows = rows
        self._kind = kind
        self._choice = choice
        self._wake = wake
        #: What has been told, and what it was chosen of.
        self._known: dict[Key, tuple[Shown, ...]] = {}
        self._seen = self._known if choice == Choice() else {}
        #: None stands for all keys.
        self._dirty: set[Key] | None = None
        self._begun = False

    # What may be others -------------------------------------------------------------------------------------------

    def touch(self, key: Key) -> None:
        if self._dirty is None:
            return
        was_clean = not self._dirty
        self._dirty.add(key)
        if was_clean:
            self._wake()
        elif len(self._dirty) > DIRTY_LIMIT:
            self._dirty = None

    def touch_all(self) -> None:
        was_clean = not self.is_dirty
        self._dirty = None
        if was_clean:
            self._wake()

    def close(self) -> None:
        self.is_closed = True
        self._wake()

    @property
    def is_dirty(self) -> bool:
        """Whether there is anything to look at."""
        return self._dirty is None or bool(self._dirty)

    # Looking ------------------------------------------------------------------------------------------------------

    def look(self) -> Iterator[list[Event]]:
        """What has become of rows since the last look, some at a time: between two of them others may have their turn.

        What is touched meanwhile is looked at by the next look.
        """
        for some in self._parts():
            events: list[Event] = []
            for key, rows in self._rows.of(some):
                if self._dirty is not None and any(each.is_passing for each in rows):
                    self._dirty.add(key)
                if rows is not self._seen.get(key, ()):
                    events += self._differences(key, rows)
            yield events
        if not self._begun:
            self._begun = True
            yield [Event(SYNC, b"{}")]

    def _parts(self) -> Iterator[Sequence[Key]]:
        dirty, self._dirty = self._dirty, set()
        if dirty is None:
            keys = list(self._kind.keys())
            keys += sorted(self._seen.keys() - set(keys))
        else:
            keys = sorted(dirty)
        for start in range(0, len(keys), STRIDE):
            yield keys[start : start + STRIDE]

    def _differences(self, key: Key, rows: tuple[Shown, ...]) -> Iterator[Event]:
        old = {each.identity: each for each in self._known.get(key, ())}
        _keep(self._seen, key, rows)
        chosen = self._chosen(key, rows)
        _keep(self._known, key, chosen)
        for identity, each in {each.identity: each for each in chosen}.items():
            former = old.pop(identity, None)
            if former is None:
                yield Event(ADDED, each.text)
            elif former.essence != each.essence:
                yield Event(MODIFIED, each.text)
        for each in old.values():
            yield Event(DELETED, each.text)

    def _chosen(self, key: Key, rows: tuple[Shown, ...]) -> tuple[Shown, ...]:
        if self._seen is self._known or not rows:
            return rows
        if not self._choice.admits(self._kind, key):
            return ()
        return tuple(each for each in rows if self._choice.holds(msgspec.json.decode(each.text)))


def _keep(rows: dict[Key, tuple[Shown, ...]], key: Key, of: tuple[Shown, ...]) -> None:
    if of:
        rows[key] = of
    else:
        rows.pop(key, None)


class Watches:
    """Who watches what, and the rows that they share."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._rows: dict[str, tuple[Rows, list[Watch]]] = {}

    def begin(self, kind: Kind, choice: Choice, wake: Callable[[], None]) -> Watch:
        """One more, until `end`. Raises TooManyError."""
        self._changes.admit()
        if kind.name not in self._rows:
            # Before those who look: by then they are out of date here, too.
            self._rows[kind.name] = Rows(kind), []
            self._changes.listen(kind.name, self._rows[kind.name][0])
        rows, watching = self._rows[kind.name]
        watch = Watch(rows, kind, choice, wake)
        watching.append(watch)
        self._changes.listen(kind.name, watch)
        return watch

    def end(self, kind: Kind, watch: Watch) -> None:
        """That one watches no more."""
        rows, watching = self._rows[kind.name]
        watching.remove(watch)
        self._changes.leave(kind.name, watch)
        self._changes.dismiss()
        if not watching:
            del self._rows[kind.name]
            self._changes.leave(kind.name, rows)
