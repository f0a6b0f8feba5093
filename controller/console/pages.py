"""Serves the console's files beside the admin API, at /console/.

They hold no data, so they need no token: the page asks for one and sends it with each question. What a path may be is
what files there are, read once, so that no path leads elsewhere. The page finds the API at ../v1/ of where it is,
which is right behind a proxy that puts something before both, too.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from aiohttp import web

PREFIX = "/console/"
_FILES = Path(__file__).parent / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
#: Nothing but what this server has itself: no other host, no inline script, no frame around it, no form that is sent.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # The address may have a secret in it (`signalbox console`).
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # A page of the controller before an upgrade must not ask the one after it.
    "Cache-Control": "no-cache",
}


def routes() -> list[web.RouteDef]:
    """The page, at each of its paths. Not among the API's own routes: there is nothing to ask here."""
    return [web.get(path, _serve) for path in paths()]


def is_page(method: str, path: str) -> bool:
    """Whether this is a question for the page itself, which anybody may have."""
    return method in ("GET", "HEAD") and path in _pages()


def paths() -> list[str]:
    """Every path that there is."""
    return list(_pages())


async def _serve(request: web.Request) -> web.Response:
    return answer(request.path)


def answer(path: str) -> web.Response:
    """What is at one of `paths`."""
    kind, body = _pages()[path]
    return web.Response(body=body, content_type=kind, charset="utf-8", headers=_HEADERS)


@cache
def _pages() -> dict[str, tuple[str, bytes]]:
    """Every path, with the type and the text of what is there."""
    found = {
        PREFIX + path.name: (_TYPES[path.suffix], path.read_bytes())
        for path in sorted(_FILES.iterdir())
        if path.suffix in _TYPES
    }
    return {PREFIX: found[PREFIX + "index.html"], **found}
