"""Who may ask the admin API over TLS: people by certificates and by Kubernetes' word, and nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from api_server import ApiServer, serving
from click.testing import CliRunner
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from test_api_remote import ADMIN, READER, Remote
from test_channel_tls import files, made

from controller import console, kubernetes_access
from controller.access import Access, Caller, Tokens, of_certificate
from controller.api import authorization
from controller.api.route import Route
from controller.api.server import routes
from controller.cli.run import reviews_by
from controller.kubernetes_access import AT_ONCE, MOST, ReviewError, Reviews
from controller.tls import Credentials
from deploy import certificates
from deploy.certificates import Made
from deploy.command import main
from topology.kubernetes.client import Client
from topology.naming import certificate_uri

Answer = tuple[int, Any, dict[str, str]]


class Served(Remote):
    """The same with requests as they may come."""

    async def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, shown: Made | None = None
    ) -> Answer:
        context = ssl.create_default_context(cafile=self.pki / "ca.crt")
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.key)
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, ssl=context, headers=headers, allow_redirects=False) as response,
        ):
            text = await response.text()
            return response.status, json.loads(text) if text else None, dict(response.headers)

    async def status(self, path: str = "/v1/nodes", method: str = "GET", **more: Any) -> int:
        return (await self.request(method, path, **more))[0]

    def kinds(self) -> set[str]:
        """For what kinds of reasons somebody was refused."""
        return set(self.refused())


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    here = Served(tmp_path)
    runner = await here.serve()
    yield here
    await runner.cleanup()


# Certificates ---------------------------------------------------------------------------------------------------------


async def test_a_person_s_certificate_says_who_it_is_and_what_that_one_may(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    admin = certificates.make_user(served.pki, "alice@example.org", "admin")
    reader = certificates.make_user(served.pki, "bob", "read-only")
    assert await served.status(shown=admin) == await served.status(shown=reader) == 200
    assert await served.status("/v1/audit", "POST", shown=admin) == 202
    status, told, _ = await served.request("POST", "/v1/audit", shown=reader)
    assert (status, told["error"]) == (403, "bob may only read: POST needs the role admin")
    assert "alice@example.org: POST /v1/audit: 202" in caplog.text
    # Whoever shows a token is who the token says, and nobody if it says nothing.
    assert await served.status("/v1/audit", "POST", shown=admin, headers={"Authorization": f"Bearer {READER}"}) == 403
    assert await served.status(shown=admin, headers={"Authorization": "Bearer a-token-that-is-nobody-s"}) == 401


async def test_certificates_of_others_are_no_person_s(served: Served, tmp_path: Path) -> None:
    assert await served.status(shown=certificates.make_node(served.pki, "n1")) == 401
    # One that somebody was talked into making.
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "signalbox:admin"),
            x509.NameAttribute(NameOID.COMMON_NAME, "n1"),
        ]
    )
    paths = tmp_path / "both.crt", tmp_path / "both.key"
    names = [x509.UniformResourceIdentifier(certificate_uri("n1"))]
    both = certificates._make(served.pki, paths, subject, names, ExtendedKeyUsageOID.CLIENT_AUTH, 9, True)
    assert await served.status(shown=both) == 401
    for shown in (
        certificates.make_controller(served.pki),
        certificates.make_user(made(tmp_path / "other"), "alice", "admin"),
        certificates.make_user(served.pki, "late", "admin", days=0),
    ):
        with pytest.raises((aiohttp.ClientError, OSError)):
            await served.status(shown=shown)
    assert {"no valid token", "untrusted certificate", "expired certificate"} <= served.kinds()


async def test_a_connection_is_good_for_no_longer_than_its_certificate(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = certificates.make_user(served.pki, "alice", "admin", days=1)
    now = time.time()
    monkeypatch.setattr(authorization.time, "time", lambda: now + 2 * 86400)
    assert await served.status(shown=admin) == 401


async def test_a_ca_that_is_no_longer_trusted_makes_nobody(served: Served, tmp_path: Path) -> None:
    admin = certificates.make_user(served.pki, "alice", "admin")
    (served.pki / "ca.crt").rename(served.pki / "old.crt")
    (served.pki / "ca.key").unlink()
    certificates.make_ca(served.pki)
    certificates.make_controller(served.pki, ["127.0.0.1"], anew=True)
    served.access.refresh()
    with pytest.raises((aiohttp.ClientError, OSError)):
        await served.status(shown=admin)
    assert await served.status(shown=certificates.make_user(served.pki, "alice", "admin", anew=True)) == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 401),
        ({"Sec-Fetch-Site": "same-site"}, 401),
        ({"Origin": "https://elsewhere.example"}, 401),
        ({"Origin": "null"}, 401),
        ({"Sec-Fetch-Site": "same-origin"}, 202),
        ({"Sec-Fetch-Site": "none"}, 202),
    ],
)
async def test_a_page_of_another_site_can_t_use_a_browser_s_certificate(
    served: Served, headers: dict[str, str], status: int
) -> None:
    admin = certificates.make_user(served.pki, "alice", "admin")
    assert await served.status("/v1/audit", "POST", shown=admin, headers=headers) == status
    own = {"Origin": served.url}
    assert await served.status("/v1/audit", "POST", shown=admin, headers=own) == 202


BOTH = [("organizationName", "signalbox:view"), ("organizationName", "signalbox:admin")]


@pytest.mark.parametrize(
    ("subject", "caller"),
    [
        ([("commonName", "a"), ("organizationName", "signalbox:view")], Caller("a", "read-only")),
        ([("commonName", "a"), *BOTH], Caller("a", "admin")),
        ([("commonName", "a"), ("organizationName", "system:masters")], None),
        ([("commonName", "a"), ("organizationalUnitName", "signalbox:admin")], None),
        ([("commonName", "a"), ("organizationName", "signalbox:Admin")], None),
        ([("organizationName", "signalbox:admin")], None),
        ([("commonName", "a"), ("commonName", "b"), ("organizationName", "signalbox:admin")], None),
        ([("commonName", "signalbox:admin")], None),
    ],
)  # fmt: skip
def test_only_an_organization_of_ours_is_a_role(subject: list[tuple[str, str]], caller: Caller | None) -> None:
    assert of_certificate({"subject": tuple((each,) for each in subject)}) == caller
    # However its names are put together.
    assert of_certificate({"subject": (tuple(subject),)}) == caller


async def test_the_command_line_shows_a_certificate(served: Served, tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["pki", "user", "carol", "--role", "admin", "-d", str(served.pki)])
    assert told.output == f"{served.pki}/users/carol.crt created\n{served.pki}/users/carol.key created\n"
    env = {
        "SIGNALBOX_SERVER": served.url,
        "SIGNALBOX_CA": str(served.pki / "ca.crt"),
        "SIGNALBOX_CERT": str(served.pki / "users/carol.crt"),
        "SIGNALBOX_KEY": str(served.pki / "users/carol.key"),
    }

    async def asked(**change: str | None) -> str:
        wanted = {name: value for name, value in {**env, **change}.items() if value is not None}
        result = await asyncio.to_thread(CliRunner().invoke, main, ["drain", "n1"], env=wanted)
        return result.output

    assert (await asked()).startswith("node/n1 drained\n")
    assert "--cert and --key go together" in await asked(SIGNALBOX_KEY=None)
    assert "--cert /none, --key" in await asked(SIGNALBOX_CERT="/none")
    assert "key values mismatch" in await asked(SIGNALBOX_KEY=str(served.pki / "controller.key"))
    assert "or --cert and --key" in await asked(SIGNALBOX_KEY=None, SIGNALBOX_CERT=None)


def test_a_person_s_certificate_is_kept_as_long_as_it_says_what_is_asked_for(tmp_path: Path) -> None:
    certificates.make_ca(tmp_path)
    assert certificates.make_user(tmp_path, "alice", "read-only").new
    assert not certificates.make_user(tmp_path, "alice", "read-only").new
    assert certificates.make_user(tmp_path, "alice", "admin").new
    shown = CliRunner().invoke(main, ["pki", "show", str(tmp_path / "users/alice.crt")]).output
    assert "CN=alice,O=signalbox:admin" in shown and "for:     clients\n" in shown and "names:   none\n" in shown
    for name in ("", "a/b", "../a", "a b", "-a", "a" * 65, "ä"):
        with pytest.raises(certificates.PkiError, match="a name has at most 64"):
            certificates.make_user(tmp_path, name, "admin")


# Kubernetes -----------------------------------------------------------------------------------------------------------

VIEWER, OPERATOR, STRANGER = "token-of-viewer", "token-of-operator", "token-of-stranger"


class Kubernetes(Served):
    """A controller beside an API server that knows some people."""

    def __init__(self, directory: Path, server: ApiServer) -> None:
        super().__init__(directory)
        (directory / "kubeconfig").write_text(server.kubeconfig())
        self.server = server
        self.client = Client(directory / "kubeconfig")
        self.now = 0.0
        self.reviews = reviews_by(self.client)
        for remembered in (self.reviews._identities, self.reviews._allowed):
            remembered._clock = lambda: self.now
        self.access = Access(Credentials(files(self.pki)), (), Tokens(self.file), self.reviews)
        server.people = {
            VIEWER: {"username": "vera", "groups": ["viewers", "system:authenticated"]},
            OPERATOR: {"username": "otto", "uid": "7", "groups": ["operators"], "extra": {"k": ["v"]}},
            STRANGER: {"username": "sam"},
        }
        server.rules = {
            ("viewers", "get", "/signalbox/v1/*"),
            ("operators", "get", "/signalbox/v1/*"),
            ("otto", "post", "/signalbox/v1/nodes/*"),
        }

    async def as_(self, token: str, path: str = "/v1/nodes", method: str = "GET") -> int:
        return await self.status(path, method, headers={"Authorization": f"Bearer {token}"})

    def asked(self, what: str) -> list[dict[str, Any]]:
        return [each.body["spec"] for each in self.server.requests if each.path.endswith(what)]


@pytest.fixture
async def kubernetes(tmp_path: Path) -> AsyncIterator[Kubernetes]:
    async with serving() as server:
        here = Kubernetes(tmp_path, server)
        await here.client.connect()
        runner = await here.serve()
        yield here
        await runner.cleanup()
        await here.client.close()


async def test_kubernetes_says_whose_a_token_is_and_what_that_one_may(
    kubernetes: Kubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert [await kubernetes.as_(token) for token in (VIEWER, OPERATOR, STRANGER, "nobody-s")] == [200, 200, 403, 401]
    drain = ("/v1/nodes/n1/drain", "POST")
    assert [await kubernetes.as_(token, *drain) for token in (VIEWER, OPERATOR, STRANGER)] == [403, 200, 403]
    assert await kubernetes.as_(OPERATOR, "/v1/audit", "POST") == 403
    # What isn't there is not there for those who may see that.
    assert [await kubernetes.as_(token, "/v1/none") for token in (VIEWER, STRANGER)] == [404, 403]
    assert await kubernetes.as_(VIEWER, "/metrics") == 403
    assert await kubernetes.status(method="HEAD", headers={"Authorization": f"Bearer {VIEWER}"}) == 200
    assert "otto: POST /v1/nodes/n1/drain: 200" in caplog.text and VIEWER not in caplog.text
    assert {
        "user": "otto",
        "uid": "7",
        "groups": ["operators"],
        "extra": {"k": ["v"]},
        "nonResourceAttributes": {"path": "/signalbox/v1/nodes/n1/drain", "verb": "post"},
    } in kubernetes.asked("subjectaccessreviews")
    # Tokens of the file are none of Kubernetes' business.
    assert await kubernetes.as_(ADMIN, "/v1/audit", "POST") == 202
    assert not {ADMIN, READER} & {each["token"] for each in kubernetes.asked("tokenreviews")}


async def test_answers_are_believed_for_ten_seconds(kubernetes: Kubernetes) -> None:
    for _ in range(3):
        assert await kubernetes.as_(VIEWER) == 200 and await kubernetes.as_("nobody-s") == 401
    assert len(kubernetes.asked("tokenreviews")) == 2 and len(kubernetes.asked("subjectaccessreviews")) == 1
    kubernetes.server.people.clear()
    kubernetes.now = 9.9
    assert await kubernetes.as_(VIEWER) == 200
    kubernetes.now = 10.1
    assert await kubernetes.as_(VIEWER) == 401


async def test_when_kubernetes_can_t_be_asked_nobody_is_let_in_by_its_word(
    kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for plural in ("tokenreviews", "subjectaccessreviews"):
        for refused in (403, 500):
            kubernetes.now += 100
            kubernetes.server.settings.refuse = {plural: refused}
            answers = [
                await kubernetes.request("GET", path, {"Authorization": f"Bearer {VIEWER}"})
                for path in ("/v1/nodes", "/v1/none")
            ]
            assert [status for status, _, _ in answers] == [503, 503] and answers[0][1] == answers[1][1]
            assert "can't be asked" in answers[0][1]["error"] and answers[0][2]["Retry-After"] == "5"
    kubernetes.server.settings.refuse = {}
    kubernetes.server.settings.hang = True
    monkeypatch.setattr(kubernetes_access, "LIMIT", 0.2)
    kubernetes.now += 100
    assert await kubernetes.as_(VIEWER) == 503
    await kubernetes.server.stop()
    assert await kubernetes.as_(OPERATOR) == 503
    assert await kubernetes.as_(READER) == 200


async def test_what_can_be_no_token_is_not_asked_about(kubernetes: Kubernetes) -> None:
    for header in ("", "Bearer", "Bearer ", "Bearer a b\u00e9", "Bearer " + "x" * 8001, f"Basic {VIEWER}", VIEWER):
        assert await kubernetes.status(headers={"Authorization": header}) == 401, header
    assert kubernetes.asked("tokenreviews") == []


async def test_who_guesses_costs_kubernetes_only_so_many_questions_at_once() -> None:
    going = asyncio.Event()
    asked: list[str] = []

    async def post(path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        asked.append(body["spec"]["token"])
        await going.wait()
        return 201, b'{"status": {"error": "no"}}'

    reviews = Reviews(post)
    crowd = [asyncio.create_task(reviews.identity(f"guess-{number}")) for number in range(AT_ONCE)]
    again = [asyncio.create_task(reviews.identity("guess-0")) for _ in range(50)]
    await asyncio.sleep(0)
    with pytest.raises(ReviewError, match="too many"):
        await reviews.identity("one-more")
    # Who has hung up takes no answer from others.
    again[0].cancel()
    going.set()
    assert set(await asyncio.gather(*crowd, *again[1:])) == {None}
    assert len(asked) == AT_ONCE
    for number in range(2 * MOST):
        await reviews.identity(f"later-{number}")
    assert len(reviews._identities._known) == MOST and not reviews._identities._asking


async def test_an_answer_that_is_none_lets_nobody_in() -> None:
    for answer in (b"", b"{}", b"[]", b'{"status": {"authenticated": "yes"}}'):

        async def post(path: str, body: dict[str, Any], answer: bytes = answer) -> tuple[int, bytes]:
            return 200, answer

        with pytest.raises(ReviewError, match="something else"):
            await Reviews(post).identity("a-token")


# Nothing leaks --------------------------------------------------------------------------------------------------------

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
NOWHERE = (
    *("/", "/v1", "/v1/", "/v2/nodes", "/v1/none", "/v1/nodes/n1/none", "/metrics/", "/console", "/console/none"),
    *("/console/../v1/nodes", "//v1/nodes", "/v1/nodes/%2e%2e/nodes", "/v1/nodes?watch=1", "/v1/nodes?limit=x"),
)


def paths_of(route: Route) -> Iterator[str]:
    """A route's path, for what there is and for what there isn't."""
    for name in ("n1", "none"):
        yield re.sub(r"\{\w+\}", name, route.path)


def without_chance(headers: dict[str, str]) -> dict[str, str]:
    """Headers but for those that say when, and how long a body is."""
    return {name: value for name, value in headers.items() if name not in ("Date",)}


@pytest.mark.parametrize(
    "header", [None, "Bearer x", f"Bearer {ADMIN[:-1]}", "Bearer " + "x" * 7000, "Basic \u00fc", ""]
)
async def test_without_a_token_every_answer_is_the_same(served: Served, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    every = {path for route in routes(served.controller) for path in paths_of(route)}
    assert {"/v1/nodes", "/v1/nodes/n1/drain", "/v1/openapi.json", "/metrics"} <= every
    wanted = await served.request("GET", "/v1/nodes", headers)
    assert wanted[0] == 401
    assert {*without_chance(wanted[2])} == {"WWW-Authenticate", "Content-Type", "Content-Length", "Server"}
    assert wanted[2]["Server"] == "signalbox"
    # One connection: more than a thousand handshakes would be asked for otherwise.
    context = ssl.create_default_context(cafile=served.pki / "ca.crt")
    async with aiohttp.ClientSession() as session:
        for path in (*sorted(every), *NOWHERE):
            for method in METHODS:
                url = aiohttp.client.URL(served.url + path, encoded=True)
                async with session.request(method, url, ssl=context, headers=headers) as response:
                    body = await response.read()
                    told = (response.status, json.loads(body) if method != "HEAD" else wanted[1])
                    assert (*told, without_chance(dict(response.headers))) == (
                        *wanted[:2],
                        without_chance(wanted[2]),
                    ), (method, path)
    assert served.kinds() == {"no valid token"}


async def test_who_may_read_changes_nothing_by_any_method(served: Served) -> None:
    context = ssl.create_default_context(cafile=served.pki / "ca.crt")
    headers = {"Authorization": f"Bearer {READER}"}
    every = {path for route in routes(served.controller) for path in paths_of(route)}
    async with aiohttp.ClientSession(headers=headers) as session:
        for path in (*sorted(every), *NOWHERE):
            for method in METHODS:
                if method in ("GET", "HEAD"):
                    continue
                async with session.request(method, served.url + path, ssl=context, json={}) as response:
                    assert response.status == 403 and "Allow" not in response.headers, (method, path)
                    assert "may only read" in await response.text()
    assert served.controller.compiler.cluster.drained == set()


async def test_every_route_that_changes_something_is_no_get(served: Served) -> None:
    """What is asked by GET is for readers: a new route that has something done must not be among them."""
    changing = {(each.method, each.path) for each in routes(served.controller) if each.method != "GET"}
    assert {method for method, _ in changing} <= {"POST", "PUT"}
    assert {
        ("POST", "/v1/audit"),
        ("POST", "/v1/captures"),
        ("POST", "/v1/nodes/{name}/drain"),
        ("PUT", "/v1/log-level"),
    } <= changing


async def test_who_may_ask_hears_which_methods_there_are(served: Served) -> None:
    status, told, headers = await served.request("DELETE", "/v1/nodes", {"Authorization": f"Bearer {ADMIN}"})
    assert (status, told["error"]) == (405, "DELETE /v1/nodes: Method Not Allowed")
    assert set(headers["Allow"].split(",")) == {"GET", "HEAD"}


async def test_the_console_s_own_files_are_all_that_anybody_may_have(served: Served) -> None:
    context = ssl.create_default_context(cafile=served.pki / "ca.crt")
    async with aiohttp.ClientSession() as session:
        for path in (each.path for each in console.routes()):
            for method, wanted in (("GET", 200), ("POST", 401)):
                async with session.request(method, served.url + path, ssl=context) as response:
                    assert response.status == wanted, (method, path)


def faults_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged with a traceback. asyncio may yet complain of what another test has left."""
    return [each for each in caplog.records if each.exc_info and each.name != "asyncio"]


@pytest.mark.parametrize(
    "said",
    [
        b"rubbish\r\n\r\n",
        b"GET /v1/nodes HTTP/9\r\n\r\n",
        b"GET /v1/nodes HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/nodes HTTP/1.1\r\nAuthorization: Bearer " + b"x" * 9000 + b"\r\n\r\n",
        b"GET /v1/nodes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\x00b\r\n\r\n",
        b"GET http://elsewhere/v1/nodes HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/captures HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    ],
)
async def test_what_is_malformed_is_refused_and_fills_no_log(
    served: Served, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.create_default_context(cafile=served.pki / "ca.crt")
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=context)
    writer.write(said)
    heard = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            while b"\r\n\r\n" not in heard or b" 100 " in heard.split(b"\r\n\r\n")[-2]:
                piece = await reader.read(1 << 16)
                if not piece:
                    break
                heard += piece
    writer.close()
    status = heard.split(b"\r\n\r\n")[-2].split()[1]
    assert status in (b"400", b"401"), heard
    assert b"aiohttp" not in heard and b"n1" not in heard and b"Python" not in heard
    assert faults_in(caplog) == []


async def test_a_fault_of_the_controller_is_said_without_its_words_and_logged_with_them(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of the controller")

    monkeypatch.setattr(served.controller.fleet.refusals, "rows", broken)
    status, told, _ = await served.request("GET", "/v1/status", {"Authorization": f"Bearer {READER}"})
    assert status == 500 and "secret" not in json.dumps(told)
    (record,) = faults_in(caplog)
    assert record.message == "GET /v1/status has failed" and "the secret of the controller" in caplog.text
