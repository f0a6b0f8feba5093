"""Who may ask over the network: bearer tokens from a file, read again when it changes; certificates of people.

A line for each token, as kube-apiserver's static token file has them: TOKEN,NAME,ROLE. Roles are admin, and read-only,
which may not change anything. Empty lines and those that begin with # are nothing.

A person's certificate is of the CA that nodes' are of; as with Kubernetes its common name is who it is, and its
organization what that one may do. The word of Kubernetes on tokens is `controller.kubernetes_access`'s business.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from controller.kubernetes_access import Reviews
from controller.tls import Credentials
from topology.naming import CERTIFICATE_URI_PREFIX

log = logging.getLogger(__name__)

ROLES = ("admin", "read-only")
#: The organizations that stand for roles in a certificate.
ORGANIZATIONS = {"signalbox:admin": "admin", "signalbox:view": "read-only"}
#: Characters of a token at least: what a person would make up is guessed.
SHORTEST = 16


class TokensError(Exception):
    """The file of tokens can't be used; the text names the line, and never what is in it."""


class Caller(msgspec.Struct, frozen=True):
    """Whose a token is, and what that one may do."""

    name: str
    role: str


class Tokens:
    """The tokens of a file. Raises TokensError where it can't be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        #: Why the file as it is now is not in use; the former one is.
        self.problem = ""
        self._text = self._contents()
        self._callers = self._parse(self._text)

    def refresh(self) -> None:
        """Take the file anew if it has changed."""
        try:
            text = self._contents()
            callers = self._parse(text) if text != self._text else self._callers
        except TokensError as error:
            problem = f"{error}; the former tokens are still valid"
            if problem != self.problem:
                log.error("%s", problem)
            self.problem = problem
            return
        if text != self._text:
            log.info("%d tokens are taken anew from %s", len(callers), self._path)
        self._text, self._callers, self.problem = text, callers, ""

    def caller(self, authorization: str) -> Caller | None:
        """Whose request it is, by its Authorization header; None where nobody's.

        Always the same work, whether a token is known, nearly known or not: hashes are compared, in constant time, and
        all of them.
        """
        scheme, _, token = authorization.partition(" ")
        digest = _digest(token.strip())
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        return found if scheme.lower() == "bearer" else None

    def _contents(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise TokensError(f"--api-tokens {self._path}: {error.strerror}") from error

    def _parse(self, text: bytes) -> list[tuple[bytes, Caller]]:
        found: dict[bytes, Caller] = {}
        for number, line in enumerate(text.decode(errors="replace").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            where = f"--api-tokens {self._path}: line {number}"
            words = [word.strip() for word in line.split(",")]
            if len(words) != 3 or not all(words):
                raise TokensError(f"{where}: expected TOKEN,NAME,ROLE")
            token, name, role = words
            if role not in ROLES:
                raise TokensError(f"{where}: the role of {name} must be {' or '.join(ROLES)}")
            if len(token) < SHORTEST:
                raise TokensError(f"{where}: the token of {name} has fewer than {SHORTEST} characters")
            if _digest(token) in found:
                raise TokensError(f"{where}: the token of {name} is another line's too")
            found[_digest(token)] = Caller(name, role)
        if not found:
            raise TokensError(f"--api-tokens {self._path}: no tokens in it")
        return list(found.items())


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def of_certificate(shown: Mapping[str, Any]) -> Caller | None:
    """Whose a certificate is, as the ssl module tells certificates that it has verified; None if it is no person's.

    A node's is none, whatever else it says: who is on the node has it.
    """
    if any(
        kind == "URI" and value.startswith(CERTIFICATE_URI_PREFIX) for kind, value in shown.get("subjectAltName", ())
    ):
        return None
    said = [field for part in shown.get("subject", ()) for field in part]
    names = [value for key, value in said if key == "commonName"]
    roles = {ORGANIZATIONS[value] for key, value in said if key == "organizationName" and value in ORGANIZATIONS}
    if len(names) != 1 or not names[0].strip() or not roles:
        return None
    return Caller(names[0], "admin" if "admin" in roles else "read-only")


class Access(msgspec.Struct, frozen=True):
    """All that is needed to be asked and to be connected to over a network; nothing of it where nobody is."""

    credentials: Credentials | None = None
    #: Where the admin API is served over TLS: ADDRESS:PORT. Takes credentials.
    api_listen: tuple[str, ...] = ()
    tokens: Tokens | None = None
    #: Kubernetes' word on tokens that aren't among these, where there is one.
    reviews: Reviews | None = None

    def refresh(self) -> None:
        """Take certificates and tokens anew from files that have changed."""
        if self.credentials is not None:
            self.credentials.refresh()
        if self.tokens is not None:
            self.tokens.refresh()

    def troubles(self, now: datetime) -> Iterator[str]:
        """What somebody should do something about."""
        if self.credentials is not None:
            yield from self.credentials.troubles(now)
        if self.tokens is not None and self.tokens.problem:
            yield self.tokens.problem
