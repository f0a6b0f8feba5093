"""Kubernetes' word on who has a token and what that one may do, as its own aggregated servers ask for it.

TokenReview says who it is; SubjectAccessReview whether that one may: `get`, `post` or `put` on the nonResourceURL
/signalbox/v1/..., so that whoever administers the cluster grants it by a ClusterRole. Answers are remembered for ten
seconds, so a token that is withdrawn works for as long. Who guesses at tokens costs the API server little: as many
questions at once as `AT_ONCE`, no more. What can't be asked is nobody's: `ReviewError`.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

import msgspec

#: Seconds for which an answer is believed, and how many are remembered of each kind.
REMEMBERED, MOST = 10.0, 1_000
#: Questions under way at once, and seconds that one may take.
AT_ONCE, LIMIT = 16, 5.0
#: Characters of a token: those of service accounts have some 1,000.
LONGEST_TOKEN = 8_000
#: What stands before the paths of the admin API in nonResourceURLs: the API server has paths of its own.
PREFIX = "/signalbox"

_TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
_ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

Value = TypeVar("Value")


class ReviewError(Exception):
    """Kubernetes hasn't answered as it should; the text says what it was, and never a token."""


class Identity(msgspec.Struct, frozen=True):
    """As whom Kubernetes knows somebody. `extra` is of its authenticators, and passed on."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


class _User(msgspec.Struct, frozen=True):
    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] | None = None
    extra: dict[str, tuple[str, ...]] | None = None


class _TokenStatus(msgspec.Struct, frozen=True):
    authenticated: bool = False
    user: _User = _User()


class _TokenReview(msgspec.Struct, frozen=True):
    status: _TokenStatus


class _AccessStatus(msgspec.Struct, frozen=True):
    allowed: bool
    denied: bool = False


class _AccessReview(msgspec.Struct, frozen=True):
    status: _AccessStatus


#: Posts an object to a path, and gives the answer's status and body. Raises ReviewError.
Post = Callable[[str, dict[str, Any]], Awaitable[tuple[int, bytes]]]


class Reviews:
    """Questions to Kubernetes, and the answers of late."""

    def __init__(self, post: Post, clock: Callable[[], float] = time.monotonic) -> None:
        self._post = post
        self._identities: _Remembered[Identity | None] = _Remembered(clock)
        self._allowed: _Remembered[bool] = _Remembered(clock)

    async def identity(self, token: str) -> Identity | None:
        """Whose a token is; None where it is nobody's. Raises ReviewError."""
        if not token or len(token) > LONGEST_TOKEN or not (token.isascii() and token.isprintable()):
            return None

        async def ask() -> Identity | None:
            body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
            status = (await self._ask(_TOKENS, body, _TokenReview)).status
            user = status.user
            if not (status.authenticated and user.username):
                return None
            extra = tuple(sorted((user.extra or {}).items()))
            return Identity(user.username, user.uid, user.groups or (), extra)

        return await self._identities.get(hashlib.sha256(token.encode()).digest(), ask)

    async def allows(self, identity: Identity, verb: str, path: str) -> bool:
        """Whether somebody may do this with a path of the admin API. Raises ReviewError."""

        async def ask() -> bool:
            spec = {
                "user": identity.name,
                "uid": identity.uid,
                "groups": list(identity.groups),
                "extra": {key: list(values) for key, values in identity.extra},
                "nonResourceAttributes": {"path": PREFIX + path, "verb": verb},
            }
            body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
            status = (await self._ask(_ACCESS, body, _AccessReview)).status
            return status.allowed and not status.denied

        return await self._allowed.get((identity, verb, path), ask)

    async def _ask(self, path: str, body: dict[str, Any], kind: type[Value]) -> Value:
        try:
            async with asyncio.timeout(LIMIT):
                status, data = await self._post(path, body)
        except TimeoutError:
            raise ReviewError(f"Kubernetes: no answer to a {body['kind']} within {LIMIT:g} s") from None
        if status not in (200, 201):
            raise ReviewError(f"Kubernetes answers a {body['kind']} with {status}")
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError:
            raise ReviewError(f"Kubernetes answers a {body['kind']} with something else") from None


class _Remembered(Generic[Value]):
    """Answers of late, and questions under way: the same one is asked once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[Hashable, tuple[float, Value]] = {}
        self._asking: dict[Hashable, asyncio.Task[Value]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[Value]]) -> Value:
        """The answer, asked for if need be. Raises ReviewError."""
        known = self._known.get(key)
        if known is not None and self._clock() < known[0]:
            return known[1]
        task = self._asking.get(key)
        if task is None:
            if len(self._asking) >= AT_ONCE:
                raise ReviewError("too many tokens are being asked about at once")
            task = self._asking[key] = asyncio.create_task(self._ask(key, ask))
        # Who goes away doesn't take the answer from the others who wait for it.
        return await asyncio.shield(task)

    async def _ask(self, key: Hashable, ask: Callable[[], Awaitable[Value]]) -> Value:
        try:
            value = await ask()
        finally:
            del self._asking[key]
        self._known.pop(key, None)
        while len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[key] = (self._clock() + REMEMBERED, value)
        return value
