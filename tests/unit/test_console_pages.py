"""The console's files and its proxy: what they say to whom, and whom they refuse."""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from test_api_remote import Remote, remote  # noqa: F401 - a fixture
from test_sync import node, started

from controller import console
from controller.api import serve
from controller.console import pages, proxy

SECRET = secrets.token_urlsafe(24)


async def test_the_page_needs_no_token_and_all_else_does(remote: Remote) -> None:  # noqa: F811
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:
        for path in pages.paths():
            async with session.get(remote.url + path) as response:
                assert response.status == 200 and response.headers["Content-Security-Policy"] == pages.POLICY
                assert "n1" not in await response.text()
    for path in ("/console", "/console/none", "/console/../v1/nodes", "/console/%2e%2e/v1/nodes", "/v1/nodes"):
        assert (await remote.ask(None, path))[0] == 401
    assert (await remote.ask(None, "/console/", "POST"))[0] == 401


def test_the_files_name_no_other_host_and_have_nothing_inline() -> None:
    for path in pages.paths():
        text = (pages.answer(path).text or "").replace('"http://www.w3.org/2000/svg"', "")
        assert not re.search(r"\w+://|innerHTML|insertAdjacentHTML|\beval\b|\sstyle=|\son\w+=", text), path
    assert console.is_page("GET", "/console/") and not console.is_page("DELETE", "/console/")


@pytest.fixture
async def proxied(tmp_path: Path) -> AsyncIterator[str]:
    """The address that `signalbox console` prints."""
    runner = await serve(started(node(1)), tmp_path / "api.sock")
    async with proxy.serve(tmp_path / "api.sock", "127.0.0.1", 0, SECRET) as url:
        yield url
    await runner.cleanup()


async def asked(url: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as response:
        return response.status, await response.text()


async def test_the_proxy_shows_the_page_and_what_may_be_read(proxied: str) -> None:
    assert proxied.endswith(f"/{SECRET}/console/")
    status, text = await asked(proxied)
    assert status == 200 and "console.js" in text
    status, text = await asked(proxied.replace("/console/", "/v1/nodes"))
    assert status == 200 and '"n1"' in text
    status, text = await asked(proxied.replace("/console/", "/v1/nodes/none/flows"))
    assert status == 404 and "none" in text


@pytest.mark.parametrize("start", ["/", "/v1/nodes", "/console/", f"/{SECRET[:-1]}/v1/nodes", f"/{SECRET}x/console/"])
async def test_who_does_not_know_the_secret_learns_nothing(proxied: str, start: str) -> None:
    status, text = await asked(proxied.replace(f"/{SECRET}/console/", start))
    assert status == 403 and SECRET not in text and "n1" not in text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::1", ""])
async def test_a_name_that_leads_to_loopback_is_refused(proxied: str, host: str) -> None:
    status, text = await asked(proxied.replace("/console/", "/v1/nodes"), Host=host)
    assert status in (400, 403) and "n1" not in text


async def test_nothing_can_be_changed_through_the_proxy(proxied: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await asked(proxied.replace("/console/", "/v1/audit"), method))[0] == 403


async def test_a_live_trace_is_passed_on_to_the_page_itself_alone(proxied: str) -> None:
    own = f"http://{urlsplit(proxied).netloc}"
    ask = functools.partial(asked, proxied.replace("/console/", "/v1/trace?from=node/n1&to=10.0.0.1"), "POST")
    status, text = await ask(Origin=own)
    assert status not in (403, 405) and "only the console itself" not in text
    for headers in (
        {},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": own.replace("http:", "https:")},
        {"Origin": own, "Sec-Fetch-Site": "same-site"},
        {"Origin": own, "Sec-Fetch-Site": "cross-site"},
    ):
        assert (await ask(**headers))[0] == 403
    assert (await asked(proxied.replace("/console/", "/v1/audit"), "POST", Origin=own))[0] == 405


async def test_a_controller_that_is_gone_is_told_of(tmp_path: Path) -> None:
    async with proxy.serve(tmp_path / "none.sock", "127.0.0.1", 0, SECRET) as url:
        status, text = await asked(url.replace("/console/", "/v1/nodes"))
    assert status == 502 and "the controller doesn't answer" in text
