"""Asks a controller's admin API over its Unix socket or TLS, and says plainly why there is no answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import click
import msgspec

DEFAULT_SOCKET = Path("/run/signalbox/controller.sock")
LABS = Path("/run/signalbox/lab")
#: Seconds. A dump of a large table takes its time; a controller that is stopped must not hold the caller for ever.
TIMEOUT = 30.0
#: Characters of a question, in its request's first line: controllers hear no more than some 8,190.
LONGEST = 8_000
#: Seconds after which who is watched is taken for gone: of what goes on something is heard every 15.
SILENCE = 45.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP to a Unix socket."""

    def __init__(self, path: Path, timeout: float = TIMEOUT) -> None:
        super().__init__("controller", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def find_socket() -> Path:
    """The socket of the controller that is meant: the named one, the node's own, or that of the only lab."""
    named = os.environ.get("SIGNALBOX_SOCKET")
    if named:
        return Path(named)
    if DEFAULT_SOCKET.exists():
        return DEFAULT_SOCKET
    labs = sorted({path.parent.name for path in LABS.glob("*/controller*.sock")})
    if len(labs) == 1:
        return socket_of_lab(labs[0])
    if labs:
        names = ", ".join(labs)
        raise click.ClickException(f"several labs are up ({names}): say which with --lab NAME")
    raise click.ClickException(
        f"no controller: there is no {DEFAULT_SOCKET} and no lab is up; "
        "start one with 'signalbox lab up', or name its socket with --socket or SIGNALBOX_SOCKET"
    )


def socket_of_lab(name: str) -> Path:
    """The socket of a lab's controller; of several, of the first that takes connections."""
    paths = sorted((LABS / name).glob("controller*.sock"), key=lambda path: (len(path.name), path.name))
    for path in paths if len(paths) > 1 else ():
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return path
    return paths[0] if paths else LABS / name / "controller.sock"


class Remote(msgspec.Struct, frozen=True):
    """An admin API that is served over TLS: `https://HOST:PORT`, a token for it, and the CA of its certificate.

    Without a CA, those that this machine trusts. Instead of a token there may be a person's certificate, and its key.
    """

    server: str
    token: str = ""
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __str__(self) -> str:
        return self.server


def remote(
    server: str,
    token: str | None,
    token_file: Path | None,
    ca: Path | None,
    cert: Path | None = None,
    key: Path | None = None,
) -> Remote:
    """What the options say. Raises click.ClickException where they can't be."""
    parts = urlsplit(server)
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/"):
        raise click.ClickException(f"--server {server}: expected https://HOST:PORT; a token is never sent in the clear")
    if (cert is None) != (key is None):
        raise click.ClickException("--cert and --key go together")
    if token is None and token_file is None:
        if cert is not None:
            return Remote(server, "", ca, cert, key)
        raise click.ClickException(f"{server}: give a token by --token-file or SIGNALBOX_TOKEN, or --cert and --key")
    if token is None:
        assert token_file is not None
        try:
            token = token_file.read_text().strip()
        except OSError as error:
            raise click.ClickException(f"--token-file {token_file}: {error.strerror}") from error
    if not token or not token.isprintable() or not token.isascii():
        raise click.ClickException("the token is empty or not one line of plain characters")
    return Remote(server, token, ca, cert, key)


def ask(
    where: Path | Remote,
    resource: list[str],
    query: dict[str, str] | None = None,
    timeout: float = TIMEOUT,
    method: str = "GET",
    body: Any = None,
) -> Any:
    """GET /v1/<resource>, POST or PUT, decoded. Raises click.ClickException with one line that says what to do."""
    url, target = _target(resource), _target(resource, query)
    connection, headers = _connection(where, timeout)
    with _plainly(where), contextlib.closing(connection):
        said = None if body is None else json.dumps(body)
        connection.request(method, target, said, headers)
        response = connection.getresponse()
        text = response.read()
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise click.ClickException(f"{where}: not a controller's answer to {url}: {text[:80]!r}") from error
    if response.status >= 300:
        raise click.ClickException(answer.get("error", f"{url}: {response.status} {response.reason}"))
    return answer


def _target(resource: list[str], query: dict[str, str] | None = None) -> str:
    """/v1/<resource>, with what is asked of it. Raises click.ClickException where that can't be."""
    try:
        target = "/v1/" + "/".join(quote(part, safe="") for part in resource)
        target += f"?{urlencode(query)}" if query else ""
    except UnicodeEncodeError as error:
        # What bytes on the command line become that are no UTF-8.
        words = error.object.encode(errors="surrogateescape")
        raise click.ClickException(f"{words!r} is not text in UTF-8") from error
    if len(target) > LONGEST:
        raise click.ClickException(f"what is asked for is too long: {len(target)} characters, of {LONGEST} at most")
    return target


def fetch(where: Path | Remote, path: str, query: dict[str, str], timeout: float, limit: int) -> bytes:
    """GET a path as it is answered, at most `limit` bytes of it. Raises click.ClickException."""
    connection, headers = _connection(where, timeout)
    with _plainly(where), contextlib.closing(connection):
        connection.request("GET", path + (f"?{urlencode(query)}" if query else ""), headers=headers)
        response = connection.getresponse()
        body = response.read(limit + 1)
    if response.status != 200:
        raise click.ClickException(f"{path}: {_error_of(body, response)}")
    if len(body) > limit:
        raise click.ClickException(f"{path}: more than {limit} bytes")
    return body


def _error_of(body: bytes, response: http.client.HTTPResponse) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"{response.status} {response.reason}"


def stream(where: Path | Remote, resource: list[str], body: Any, timeout: float) -> Iterator[bytes]:
    """POST /v1/<resource>, and what is answered as it comes. Raises click.ClickException."""
    return _pieces(where, "POST", _target(resource), json.dumps(body), timeout)


def watch(where: Path | Remote, resource: str, query: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a list has, and then what becomes of it: ADDED, MODIFIED or DELETED with a row, SYNC after the first ones.

    Ends when the controller does. Raises click.ClickException.
    """
    path = _target([resource], query | {"watch": "1"})
    rest = b""
    for piece in _pieces(where, "GET", path, None, SILENCE):
        *events, rest = (rest + piece).split(b"\n\n")
        for event in events:
            fields = dict(line.split(b": ", 1) for line in event.split(b"\n") if b": " in line)
            if b"event" in fields:
                yield fields[b"event"].decode(), json.loads(fields.get(b"data", b"{}"))


def _pieces(where: Path | Remote, method: str, path: str, body: str | None, timeout: float) -> Iterator[bytes]:
    """An answer as it comes."""
    connection, headers = _connection(where, timeout)
    with _plainly(where), contextlib.closing(connection):
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        if response.status != 200:
            raise click.ClickException(_error_of(response.read(), response))
        while piece := response.read1(1 << 16):
            yield piece


@contextlib.contextmanager
def _plainly(where: Path | Remote) -> Iterator[None]:
    """Say in a line why there is no answer."""
    try:
        yield
    except PermissionError as error:
        raise click.ClickException(f"{where}: permission denied (the socket is root's: use sudo)") from error
    except FileNotFoundError as error:
        raise click.ClickException(f"{where}: no such socket: is the controller running?") from error
    except ssl.SSLCertVerificationError as error:
        raise click.ClickException(
            f"{where}: its certificate can't be trusted: {error.verify_message}; name its CA with --ca"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise click.ClickException(f"{where}: the controller doesn't answer: {error}") from error


def _connection(where: Path | Remote, timeout: float) -> tuple[http.client.HTTPConnection, dict[str, str]]:
    if isinstance(where, Path):
        return UnixConnection(where, timeout), {}
    parts = urlsplit(where.server)
    try:
        context = ssl.create_default_context(cafile=where.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if where.cert is not None:
            _load(context, where.cert, where.key)
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout, context=context)
    except (OSError, ValueError) as error:
        what = f"--ca {where.ca}" if isinstance(error, OSError) else f"--server {where.server}"
        raise click.ClickException(f"{what}: {error}") from error
    return connection, {"Authorization": f"Bearer {where.token}"} if where.token else {}


def _load(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    try:
        # A key with a password would be asked for on the terminal, which scripts have none of.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise click.ClickException(f"--cert {cert}, --key {key}: {reason.replace('_', ' ').lower()}") from error
