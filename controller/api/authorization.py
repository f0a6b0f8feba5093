"""Who may ask what over a network, decided before anything else is: not even which paths there are is told before.

console's page ─────────────────────────────────────────────────────────────────────> handler
Authorization: Bearer ──file of tokens──> Caller ──role────────────────────────────> handler
                      └─else TokenReview─> Identity ──SubjectAccessReview──────────> handler
no Authorization ──client certificate──> Caller ──role─────────────────────────────> handler
else 401, the same whatever is asked; what one may not do 403; who can't be asked about now 503
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from controller import console
from controller.access import Access, Caller, of_certificate
from controller.api.callers import CALLER, STILL, Still, reads
from controller.api.route import Handler
from controller.kubernetes_access import Identity, ReviewError
from controller.refusals import Why

#: How a caller is told of: its address, the kind of reason, and the reason in words.
Refuse = Callable[[str, Why, str], None]

_NOBODY = "a valid token is needed: Authorization: Bearer TOKEN; or a certificate of a person"


def authorization(access: Access, refuse: Refuse) -> Middleware:
    """What lets those through who may."""

    def told(request: web.Request, why: Why, text: str) -> None:
        refuse(request.remote or "somebody", why, f"the admin API: {text}")

    @web.middleware
    async def authorized(request: web.Request, handler: Handler) -> web.StreamResponse:
        if console.is_page(request.method, request.path):
            return await handler(request)
        try:
            caller, identity = await _who(request, access)
            if caller is None:
                told(request, Why.TOKEN, "no valid token")
                return _error(401, _NOBODY, {"WWW-Authenticate": "Bearer"})
            request[CALLER] = caller
            allowed = await _may(request, caller, identity, access)
        except ReviewError as error:
            told(request, Why.TOKEN, str(error))
            return _error(503, "Kubernetes can't be asked about your token just now", {"Retry-After": "5"})
        if not allowed and identity is not None:
            told(request, Why.ROLE, f"Kubernetes doesn't allow {caller.name} this")
            return _error(403, f"Kubernetes doesn't allow {caller.name} this: it takes a role with nonResourceURLs")
        if not allowed:
            told(request, Why.ROLE, f"{caller.name} may only read")
            return _error(403, f"{caller.name} may only read: {request.method} needs the role admin")
        request[STILL] = may_still(request)
        return await handler(request)

    def may_still(request: web.Request) -> Still:
        async def ask() -> bool:
            try:
                caller, identity = await _who(request, access)
                return caller is not None and await _may(request, caller, identity, access)
            except ReviewError:
                return False

        return Still(ask)

    return authorized


async def _may(request: web.Request, caller: Caller, identity: Identity | None, access: Access) -> bool:
    """Whether one may do this. Raises ReviewError."""
    if identity is None:
        return reads(request) or caller.role == "admin"
    assert access.reviews is not None
    # As Kubernetes itself names what is no object: the method in lower case, and the path.
    verb = "get" if reads(request) else request.method.lower()
    return await access.reviews.allows(identity, verb, request.rel_url.raw_path)


async def _who(request: web.Request, access: Access) -> tuple[Caller | None, Identity | None]:
    """Who asks; and as whom Kubernetes knows that one, where it is Kubernetes that does. Raises ReviewError."""
    header = request.headers.get("Authorization")
    if header is None:
        return _by_certificate(request), None
    caller = access.tokens.caller(header) if access.tokens is not None else None
    if caller is not None or access.reviews is None:
        return caller, None
    scheme, _, token = header.partition(" ")
    identity = await access.reviews.identity(token.strip()) if scheme.lower() == "bearer" else None
    return (None, None) if identity is None else (Caller(identity.name, ""), identity)


def _by_certificate(request: web.Request) -> Caller | None:
    shown = request.transport.get_extra_info("peercert") if request.transport is not None else None
    # Looked at for each request: a connection may be older than its certificate.
    if not shown or ssl.cert_time_to_seconds(shown["notAfter"]) < time.time() or _is_of_another_site(request):
        return None
    return of_certificate(shown)


def _is_of_another_site(request: web.Request) -> bool:
    """Whether a browser has been told to ask this by a page of somebody else's.

    It shows its certificate all the same, which it wouldn't do with a token. Pages of others can't read the answer; so
    that they can't have anything done either, they are nobody.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return True
    origin = request.headers.get("Origin")
    return origin is not None and origin != f"https://{request.host}"


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": text}, status=status, headers=headers)
