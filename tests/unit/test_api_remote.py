"""The admin API over TLS: who has no token learns nothing, who may read can't change, and people ask there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from test_channel import until
from test_channel_tls import files, made
from test_sync import node, started

from controller import access, fleet, tls_server
from controller.access import Access, Tokens, TokensError
from controller.api import API_CONNECTIONS, serve_remote
from controller.app import Controller
from controller.channel import TargetError
from controller.tls import Credentials
from deploy import certificates
from deploy.command import main

ADMIN, READER = "a-token-that-may-do-all", "a-token-that-may-only-read"
TOKENS = f"# people\n{ADMIN},alice,admin\n\n{READER}, bob , read-only\n"


class Remote:
    """A controller whose admin API is served over TLS."""

    def __init__(self, directory: Path) -> None:
        self.pki = made(directory / "pki")
        self.file = directory / "tokens"
        self.file.write_text(TOKENS)
        self.access = Access(Credentials(files(self.pki)), ("127.0.0.1:0",), Tokens(self.file))
        self.controller: Controller = started(node(1))
        self.url = ""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def serve(self) -> web.AppRunner:
        """Serve at a port that the kernel chooses."""
        listen = tls_server.listen

        def noted(host: str, port: int) -> socket.socket:
            listening = listen(host, port)
            self.url = f"https://{host}:{listening.getsockname()[1]}"
            return listening

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tls_server, "listen", noted)
            return await serve_remote(self.controller, "127.0.0.1:0", self.access)

    def refused(self) -> list[str]:
        """For what kinds of reasons somebody was refused."""
        return [row["kind"] for row in self.controller.fleet.refusals.rows(time.monotonic())]

    async def ask(self, token: str | None, path: str = "/v1/nodes", method: str = "GET") -> tuple[int, Any]:
        context = ssl.create_default_context(cafile=self.pki / "ca.crt")
        headers = {} if token is None else {"Authorization": token}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, ssl=context, headers=headers) as response,
        ):
            return response.status, json.loads(await response.text())


@pytest.fixture
async def remote(tmp_path: Path) -> AsyncIterator[Remote]:
    here = Remote(tmp_path)
    runner = await here.serve()
    yield here
    await runner.cleanup()


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", f"Bearer {ADMIN[:-1]}", f"Bearer {ADMIN}x", f"Basic {ADMIN}", ADMIN]
)
async def test_without_a_valid_token_nothing_is_told(remote: Remote, header: str | None) -> None:
    for path in ("/v1/nodes", "/v1/none", "/"):
        status, answer = await remote.ask(header, path)
        assert status == 401 and list(answer) == ["error"]
        assert "n1" not in answer["error"] and path not in answer["error"] and ADMIN not in answer["error"]


async def test_readers_read_and_admins_change_too(remote: Remote) -> None:
    for token in (READER, ADMIN):
        status, answer = await remote.ask(f"Bearer {token}")
        assert status == 200 and [row["name"] for row in answer["items"]] == ["n1"]
    assert (await remote.ask(f"Bearer {ADMIN}", "/v1/audit", "POST"))[0] == 202
    status, answer = await remote.ask(f"Bearer {READER}", "/v1/audit", "POST")
    assert status == 403 and answer == {"error": "bob may only read: POST needs the role admin"}
    assert (await remote.ask(f"Bearer {READER}", "/v1/none"))[0] == 404


async def test_who_is_refused_is_told_of_without_the_token(remote: Remote, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        await remote.ask(f"Bearer {ADMIN}x")
    await remote.ask(f"Bearer {READER}", "/v1/audit", "POST")
    assert [record.message for record in caplog.records if record.name == fleet.__name__] == [
        "127.0.0.1 is refused: the admin API: no valid token",
        "127.0.0.1 is refused: the admin API: bob may only read",
    ]


async def test_changed_tokens_are_taken_and_broken_ones_are_not(remote: Remote) -> None:
    remote.file.write_text("another-token-for-alice,alice,admin\n")
    remote.access.refresh()
    assert (await remote.ask(f"Bearer {ADMIN}"))[0] == 401
    assert (await remote.ask("Bearer another-token-for-alice"))[0] == 200
    remote.file.write_text("rubbish\n")
    remote.access.refresh()
    assert (await remote.ask("Bearer another-token-for-alice"))[0] == 200
    assert remote.access.tokens is not None and "line 1: expected TOKEN,NAME,ROLE" in remote.access.tokens.problem


async def test_a_new_certificate_is_shown(remote: Remote) -> None:
    certificates.make_controller(remote.pki, ["127.0.0.1"], anew=True)
    wanted = ssl.PEM_cert_to_DER_cert((remote.pki / "controller.crt").read_text())
    remote.access.refresh()
    context = ssl.create_default_context(cafile=remote.pki / "ca.crt")
    _, writer = await asyncio.open_connection("127.0.0.1", remote.port, ssl=context)
    assert writer.get_extra_info("ssl_object").getpeercert(binary_form=True) == wanted
    writer.close()


async def test_who_takes_too_long_for_the_handshake_is_hung_up_on(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_server, "HANDSHAKE_LIMIT", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", remote.port)
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 60)
    writer.close()
    await until(lambda: remote.refused() == ["too slow"], "it is told of")


async def test_plain_http_is_refused(remote: Remote) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", remote.port)
    writer.write(f"GET /v1/nodes HTTP/1.1\r\nAuthorization: Bearer {ADMIN}\r\n\r\n".encode())
    with contextlib.suppress(ConnectionError):
        assert b"n1" not in await asyncio.wait_for(reader.read(), 60)
    writer.close()
    await until(lambda: remote.refused() == ["plain text where TLS is spoken"], "it is told of")


async def test_more_connections_than_are_good_are_hung_up_on(remote: Remote) -> None:
    context = ssl.create_default_context(cafile=remote.pki / "ca.crt")
    crowd = [await asyncio.open_connection("127.0.0.1", remote.port, ssl=context) for _ in range(API_CONNECTIONS)]
    with pytest.raises((ConnectionError, ssl.SSLError)):
        reader, _ = await asyncio.open_connection("127.0.0.1", remote.port, ssl=context)
        raise ConnectionError if await reader.read() == b"" else AssertionError
    for _, writer in crowd:
        writer.close()


class Speaking(asyncio.Protocol):
    """What speaks over a connection; it notes how many there are when its own is open."""

    def __init__(self, noted: dict[asyncio.BaseProtocol, int]) -> None:
        self.noted = noted
        self.server: tls_server.TlsServer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.noted[self] = 0
        assert self.server is not None
        self.noted[self] = self.server.taken


async def test_a_connection_is_one_also_while_the_task_of_its_handshake_ends(tmp_path: Path) -> None:
    pki, noted = made(tmp_path), dict[asyncio.BaseProtocol, int]()
    credentials = Credentials(files(pki))

    def speak() -> Speaking:
        speaking = Speaking(noted)
        speaking.server = server
        return speaking

    listening = tls_server.listen("127.0.0.1", 0)
    server = tls_server.TlsServer(listening, lambda: credentials.api, speak, lambda: noted, 3, lambda *_: None)
    context = ssl.create_default_context(cafile=pki / "ca.crt")
    writers = [(await asyncio.open_connection(*listening.getsockname(), ssl=context))[1] for _ in range(3)]
    await until(lambda: len(noted) == 3, "all are let in")
    assert [*noted.values()] == [1, 2, 3]
    for writer in writers:
        writer.close()
    await server.close()


@pytest.mark.parametrize("target", ["6653", "127.0.0.1:port", "127.0.0.1:", "192.0.2.1:1"])
async def test_an_address_that_can_t_be_is_named(remote: Remote, target: str) -> None:
    with pytest.raises(TargetError, match=f"--api-listen {target}: "):
        await serve_remote(remote.controller, target, remote.access)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no tokens in it"),
        ("a-token-that-is-long,alice\n", "line 1: expected TOKEN,NAME,ROLE"),
        ("a-token-that-is-long,alice,root\n", "line 1: the role of alice must be admin or read-only"),
        ("short,alice,admin\n", "line 1: the token of alice has fewer than 16"),
        (f"{ADMIN},alice,admin\n{ADMIN},bob,admin\n", "line 2: the token of bob is another line's too"),
    ],
)
def test_a_file_of_tokens_that_can_t_be_is_refused_without_saying_a_token(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(TokensError, match=said) as problem:
        Tokens(tmp_path / "tokens")
    assert "token-that" not in str(problem.value) and "short," not in str(problem.value)


# From the command line ----------------------------------------------------------------------------------------------


async def signalbox(*words: str, env: dict[str, str]) -> Result:
    """A command, run beside the controller that it asks."""
    return await asyncio.to_thread(CliRunner().invoke, main, list(words), env=env)


async def test_the_command_line_asks_over_tls(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{READER}\n")
    words = ("--server", remote.url, "--token-file", str(tmp_path / "token"), "--ca", str(remote.pki / "ca.crt"))
    result = await signalbox("get", "nodes", "-o", "name", *words, env={})
    assert (result.exit_code, result.output) == (0, "node/n1\n")
    env = {"SIGNALBOX_SERVER": remote.url, "SIGNALBOX_TOKEN": READER, "SIGNALBOX_CA": str(remote.pki / "ca.crt")}
    assert (await signalbox("get", "nodes", "-o", "name", env=env)).output == "node/n1\n"
    status = await signalbox("status", env=env)
    assert status.exit_code == 1 and "node n1: its switch isn't connected" in status.output
    # A socket or lab that is named on the command line is meant.
    assert "no such socket" in (await signalbox("status", "--socket", "/none", env=env)).output


async def test_the_command_line_says_what_is_wrong(remote: Remote, tmp_path: Path) -> None:
    ca = str(remote.pki / "ca.crt")
    other = str(made(tmp_path / "other") / "ca.crt")
    good = {"SIGNALBOX_SERVER": remote.url, "SIGNALBOX_TOKEN": READER, "SIGNALBOX_CA": ca}
    for change, said in [
        ({"SIGNALBOX_TOKEN": "wrong"}, "a valid token is needed"),
        ({"SIGNALBOX_TOKEN": "two\nlines"}, "the token is empty or not one line"),
        ({"SIGNALBOX_TOKEN": None}, "give a token by --token-file or SIGNALBOX_TOKEN"),
        ({"SIGNALBOX_CA": other}, "its certificate can't be trusted"),
        ({"SIGNALBOX_CA": None}, "name its CA with --ca"),
        ({"SIGNALBOX_CA": "/none"}, "--ca /none: "),
        ({"SIGNALBOX_SERVER": remote.url.replace("https", "http")}, "a token is never sent in the clear"),
        ({"SIGNALBOX_SERVER": "https://127.0.0.1:port"}, "--server https://127.0.0.1:port: "),
        ({"SIGNALBOX_SERVER": remote.url.replace("127.0.0.1", "127.0.0.2")}, "the controller doesn't answer"),
    ]:
        env = {name: value for name, value in {**good, **change}.items() if value is not None}
        result = await signalbox("status", env=env)
        assert result.exit_code == 2 and said in result.output, result.output
        assert len(result.output.splitlines()) == 1 and READER not in result.output


def test_a_wrong_token_takes_the_same_work_as_a_right_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokens").write_text("".join(f"{number:032d},u{number},read-only\n" for number in range(200)))
    tokens = Tokens(tmp_path / "tokens")
    lengths: list[tuple[int, int]] = []

    def compared(one: bytes, other: bytes) -> bool:
        lengths.append((len(one), len(other)))
        return compare(one, other)

    compare = access.hmac.compare_digest
    monkeypatch.setattr(access.hmac, "compare_digest", compared)
    works = []
    # The first of the list, the last, and none, of another length too.
    for token in (f"{0:032d}", f"{199:032d}", f"{500:032d}", "x"):
        assert (tokens.caller(f"Bearer {token}") is not None) == (token not in (f"{500:032d}", "x"))
        works.append(lengths.copy())
        lengths.clear()
    assert all(work == works[0] and len(work) == 200 for work in works)


async def test_callers_are_told_who_they_are_and_what_they_may_do(remote: Remote) -> None:
    for token, name, role in ((READER, "bob", "read-only"), (ADMIN, "alice", "admin")):
        assert await remote.ask(f"Bearer {token}", "/v1/whoami") == (200, {"name": name, "role": role})
