"""One kind of object, listed and then watched, over any outage. Sans-I/O: answers in, objects out; time is an argument.

    PROBE ──the API is there──> LIST ──last page──> WATCH ──ends, breaks: again from the version that was reached──┐
      ▲  (optional kinds only)   ▲                    │  ▲                                                        │
      └──────404─────────────────┴──410, refused──────┘  └────────────────────────────────────────────────────────┘

Who runs it does what `ask` says, not before `wait_until`, and tells what came of it. Objects are handed out as they
come, also from the pages of a list; that one is gone is known from an event, or from a list that is complete, and from
nothing else: no outage, however long, deletes anything. Where a server has forgotten the version that was reached
(410), everything is listed anew and compared.

Events that come twice or late change nothing: the resourceVersion of each object is kept, and versions of one kind can
be compared (Kubernetes KEP-5504). A list counts whatever its versions are: a restored server may have begun anew.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import msgspec

from topology.kubernetes.resources import PAGE, Resource

#: Seconds before an attempt is repeated: the first time, and at most.
FIRST_DELAY, LONGEST_DELAY = 0.2, 15.0
#: Seconds between two looks for an optional kind that isn't there.
PROBE_INTERVAL = 30.0
#: Seconds after which a server ends a watch, at least; up to twice as many, so that not all end at once.
WATCH_SECONDS = 300
#: Seconds after which a watch that has said nothing is given up: a server sends a bookmark each minute.
IDLE_SECONDS = 90.0
#: A watch that has lasted as long has been a success, whatever ended it.
_LONG_ENOUGH = 5.0
#: Seconds for which something may go wrong before people are told.
PATIENCE = 5.0


class Gone(msgspec.Struct, frozen=True):
    """An object that is no longer there."""

    namespace: str
    name: str


class Found(msgspec.Struct, frozen=True):
    """An object that is there. `value` is what its reader made of it."""

    namespace: str
    name: str
    version: str
    value: object


#: Makes a `Found` of an object's JSON. Raises msgspec.MsgspecError only where the object isn't one.
Read = Callable[[msgspec.Raw], Found]


class Step(StrEnum):
    PROBE = "probe"
    LIST = "list"
    WATCH = "watch"


class Request(msgspec.Struct, frozen=True):
    """What to ask for."""

    step: Step
    path: str


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    #: Without one it is no list of the server's: whatever else it may be, it mustn't count as one that is empty.
    resource_version: Annotated[str, msgspec.Meta(min_length=1)]
    #: The token of the next page.
    token: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct, frozen=True):
    """Kubernetes' words for what went wrong."""

    code: int = 0
    message: str = ""
    reason: str = ""


class _Bookmark(msgspec.Struct, frozen=True):
    metadata: _ListMeta


class _Api(msgspec.Struct, frozen=True):
    name: str


class _Apis(msgspec.Struct, frozen=True):
    resources: list[_Api] = []


_LIST = msgspec.json.Decoder(_List)
_EVENT = msgspec.json.Decoder(_Event)
_STATUS = msgspec.json.Decoder(_Status)
_BOOKMARK = msgspec.json.Decoder(_Bookmark)
_APIS = msgspec.json.Decoder(_Apis)


class Reflector:
    """The state of one kind's list and watch. `random` gives numbers from 0 to 1."""

    def __init__(self, resource: Resource, read: Read, random: Callable[[], float]) -> None:
        self.resource = resource
        #: Not to be asked before.
        self.wait_until = 0.0
        #: Whether everything has been heard once; a kind that isn't there has nothing to say.
        self.synced = False
        self.step = Step.PROBE if resource.optional else Step.LIST
        self._read = read
        self._random = random
        self._failures = 0
        self._failing_since: float | None = None
        self._reason = ""
        #: The version of each object, by namespace and name.
        self._versions: dict[tuple[str, str], int] = {}
        #: The same for objects that went since the last bookmark: late events of theirs mean nothing.
        self._tombs: dict[tuple[str, str], int] = {}
        self._reached = ""
        # A list under way: its next page, what it has had so far, whether it goes by pages at all.
        self._token = ""
        self._listed: set[tuple[str, str]] = set()
        self._paged = True
        # A watch under way.
        self._tail = b""
        self._opened = 0.0
        #: When an optional kind that has objects was first found missing.
        self._missing_since: float | None = None

    def trouble(self, now: float) -> str:
        """What goes wrong, if it has for a while."""
        if self._failing_since is None or (self.synced and now - self._failing_since < PATIENCE):
            return ""
        return f"Kubernetes: {self.resource.plural}: {self._reason}"

    def waiting(self) -> str:
        """What the start waits for."""
        return f"{self.resource.plural}: {self._reason or 'not listed yet'}"

    # What to ask ------------------------------------------------------------------------------------------------

    def ask(self, now: float) -> Request:
        """What is to be asked next."""
        resource = self.resource
        if self.step is Step.PROBE:
            return Request(self.step, resource.root)
        if self.step is Step.LIST:
            limit = PAGE if self._paged else 0
            return Request(self.step, resource.list_path(limit=limit, token=self._token))
        self._tail, self._opened = b"", now
        seconds = int(WATCH_SECONDS * (1 + self._random()))
        return Request(self.step, resource.watch_path(since=self._reached, seconds=seconds))

    # What came of it --------------------------------------------------------------------------------------------

    def answered(self, status: int, body: bytes, now: float, retry_after: float = 0.0) -> list[Found | Gone]:
        """The answer to a probe or a list, whole, or a watch's that isn't 200."""
        if status != 200:
            return self._refused(status, body, now, retry_after)
        try:
            if self.step is Step.PROBE:
                return self._probed(_APIS.decode(body), now)
            return self._page(_LIST.decode(body), now)
        except msgspec.MsgspecError as error:
            self._begin_list()
            self.failed(f"{self.step.value}: the answer isn't what it must be: {error}", now)
            return []

    def opened(self) -> None:
        """A watch's answer has begun well."""
        self._failing_since, self._reason = None, ""

    def received(self, data: bytes, now: float) -> list[Found | Gone]:
        """Bytes of a watch. Raises WatchError where the watch is of no more use: end it, and ask again."""
        lines = (self._tail + data).split(b"\n")
        self._tail = lines.pop()
        found: list[Found | Gone] = []
        try:
            for line in lines:
                if line:
                    self._event(_EVENT.decode(line), found)
        except msgspec.MsgspecError as error:
            self._begin_list()
            self.failed(f"watch: an event isn't what it must be: {error}", now)
            raise WatchError(found) from error
        except _OutdatedError as error:
            self._outdated(str(error), now)
            raise WatchError(found) from error
        if lines:
            self._succeeded()
        return found

    def ended(self, now: float) -> None:
        """A watch has ended as it should: the server ends each after some minutes."""
        if now - self._opened >= _LONG_ENOUGH:
            self._succeeded()
            self.wait_until = now
        else:
            self._delay(now)

    def failed(self, reason: str, now: float, retry_after: float = 0.0) -> None:
        """A request has failed, or a watch broke."""
        if self.step is Step.WATCH and now - self._opened >= _LONG_ENOUGH:
            # Long after it was opened: the server goes away for the first time.
            self._failures = 0
        self._reason = reason
        self._failing_since = now if self._failing_since is None else self._failing_since
        self._delay(now, retry_after)

    def _refused(self, status: int, body: bytes, now: float, retry_after: float) -> list[Found | Gone]:
        reason = f"{self.step.value}: {status} {_words(body)}".rstrip()
        if status == 404 and self.resource.optional:
            return self._not_there(now) if self.step is Step.PROBE else self._probe_again(now)
        if status == 410 and self.step is Step.LIST:
            # A page's token has expired: the next attempt asks for all at once, which can't.
            self._paged = not self._token
            self._begin_list()
        elif status == 410:
            self._outdated(reason, now)
            return []
        elif self.step is Step.WATCH and status not in (401, 403, 429, 503):
            # Whatever it is, perhaps a version that the server doesn't know yet: a list can do without.
            self._begin_list()
        self.failed(reason, now, retry_after)
        return []

    # Probes -----------------------------------------------------------------------------------------------------

    def _probed(self, apis: _Apis, now: float) -> list[Found | Gone]:
        if not any(each.name == self.resource.plural for each in apis.resources):
            return self._not_there(now)
        self._missing_since = None
        self._begin_list()
        self.wait_until = now
        return []

    def _probe_again(self, now: float) -> list[Found | Gone]:
        self.step = Step.PROBE
        self._delay(now)
        return []

    def _not_there(self, now: float) -> list[Found | Gone]:
        """The server says that it has no such kind: at a second look, objects that it had are gone with it."""
        self._succeeded()
        self.synced = True
        self.wait_until = now + PROBE_INTERVAL * (1 + self._random() / 10)
        self._missing_since = now if self._missing_since is None else self._missing_since
        if now - self._missing_since < PROBE_INTERVAL:
            return []
        gone: list[Found | Gone] = [Gone(*name) for name in self._versions]
        self._versions.clear()
        return gone

    # Lists ------------------------------------------------------------------------------------------------------

    def _begin_list(self) -> None:
        self.step = Step.LIST
        self._token = ""
        self._listed = set()

    def _page(self, page: _List, now: float) -> list[Found | Gone]:
        found: list[Found | Gone] = []
        for raw in page.items or ():
            each = self._read(raw)
            self._listed.add((each.namespace, each.name))
            self._versions[each.namespace, each.name] = _number(each.version)
            found.append(each)
        self._token = page.metadata.token
        self.wait_until = now
        if self._token:
            return found
        for name in self._versions.keys() - self._listed:
            del self._versions[name]
            found.append(Gone(*name))
        self._tombs.clear()
        self._reached = page.metadata.resource_version
        self._listed, self._paged = set(), True
        self.step, self.synced = Step.WATCH, True
        self._failing_since, self._reason = None, ""
        return found

    # Watches ----------------------------------------------------------------------------------------------------

    def _event(self, event: _Event, found: list[Found | Gone]) -> None:
        match event.type:
            case "ADDED" | "MODIFIED" | "DELETED":
                each = self._read(event.object)
                name, version = (each.namespace, each.name), _number(each.version)
                if version and version <= max(self._versions.get(name, 0), self._tombs.get(name, 0)):
                    return
                self._reached = each.version
                if event.type != "DELETED":
                    self._versions[name] = version
                    self._tombs.pop(name, None)
                    found.append(each)
                else:
                    self._tombs[name] = version
                    if self._versions.pop(name, None) is not None:
                        found.append(Gone(*name))
            case "BOOKMARK":
                self._reached = _BOOKMARK.decode(event.object).metadata.resource_version
                self._tombs.clear()
            case "ERROR":
                status = _STATUS.decode(event.object)
                raise _OutdatedError(f"watch: {status.code} {status.message}")

    def _outdated(self, reason: str, now: float) -> None:
        """The server can't go on from the version that was reached."""
        self._begin_list()
        # A watch that got somewhere is no failure; but one list after another is to be had seldom.
        self._reason = reason
        self._delay(now)

    def _succeeded(self) -> None:
        self._failures = 0
        self._failing_since, self._reason = None, ""

    def _delay(self, now: float, retry_after: float = 0.0) -> None:
        """Wait twice as long as the last time, and by chance up to half of it less: not all clients come at once."""
        delay = min(FIRST_DELAY * 2.0**self._failures, LONGEST_DELAY)
        self._failures = min(self._failures + 1, 30)
        self.wait_until = now + max(delay * (1 - self._random() / 2), retry_after)


class _OutdatedError(Exception):
    """The server can't go on with a watch."""


class WatchError(Exception):
    """A watch that is to be ended; `found` is what came before that was clear."""

    def __init__(self, found: list[Found | Gone]) -> None:
        super().__init__("the watch is of no more use")
        self.found = found


def _number(version: str) -> int:
    """A resourceVersion to compare with; 0 where it is of another form, and can't be."""
    return int(version) if version.isdecimal() else 0


def _words(body: bytes) -> str:
    """What a Status object says, or else the beginning of what came."""
    try:
        return _STATUS.decode(body).message[:200]
    except msgspec.MsgspecError:
        return body[:100].decode(errors="replace").strip()
