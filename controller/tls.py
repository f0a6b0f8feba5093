"""TLS: the controller's certificate and whom it trusts, and one connection's TLS without a socket.

Credentials are read from files and read again when these change: the next connection is greeted with the new ones, and
those that there are go on. `TlsStream` is OpenSSL between two buffers. asyncio's own TLS would say nothing of a
handshake that fails, and keeps 256 kB for each connection.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from controller.refusals import RefusedError, Why
from topology.naming import CERTIFICATE_URI_PREFIX

log = logging.getLogger(__name__)

#: Days before the end of the controller's own certificate from which on it is a problem.
RENEW_BEFORE = 7
#: The content type of a TLS handshake (RFC 8446 section 5.1), with which every connection begins.
HANDSHAKE_RECORD = 0x16
#: Versions of OpenFlow: the first byte of a plain connection.
_OPENFLOW_VERSIONS = range(1, 7)
#: Bytes that are deciphered at a time: more than the largest record.
_PIECE = 1 << 16

_UNTRUSTED = "its certificate is not one of --tls-ca"
#: OpenSSL's reasons, in words that say whose fault it is.
_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (Why.NO_CERTIFICATE, "it shows no certificate"),
    "HTTP_REQUEST": (Why.NOT_TLS, "it speaks plain HTTP"),
    "WRONG_VERSION_NUMBER": (Why.NOT_TLS, "it doesn't speak TLS"),
    "UNSUPPORTED_PROTOCOL": (Why.HANDSHAKE, "it speaks no TLS of version 1.2 or later"),
    "NO_SHARED_CIPHER": (Why.HANDSHAKE, "it knows none of the ciphers"),
    "TLSV1_ALERT_UNKNOWN_CA": (Why.DISTRUSTS, "it doesn't trust this controller's certificate: another CA"),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": (Why.DISTRUSTS, "it says that this controller's certificate has expired"),
    "SSLV3_ALERT_BAD_CERTIFICATE": (Why.DISTRUSTS, "it doesn't accept this controller's certificate"),
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": (Why.DISTRUSTS, "it says that this controller's certificate isn't one"),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": (Why.DISTRUSTS, "it doesn't accept this controller's certificate"),
}
#: OpenSSL's numbers of what is wrong with a certificate (X509_V_ERR_*).
_EXPIRED, _NOT_YET_VALID = 10, 9
_WRONG_PURPOSE = 26


class CredentialsError(Exception):
    """Certificate, key or CA can't be used; the text names the option and the file."""


class TlsFiles(msgspec.Struct, frozen=True):
    """PEM files: a certificate (with intermediate ones after it), its key, and the CAs that peers are of."""

    certificate: Path
    key: Path
    ca: Path


class Credentials:
    """What the files say; look with `refresh` now and then. Raises CredentialsError where they can't be used."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        #: Why the files as they are now are not in use; the former ones are.
        self.problem = ""
        self._read = self._contents()
        self.context = self._context()
        #: For clients of the admin API: they may show a certificate, or else a token.
        self.api = self._context(ssl.CERT_OPTIONAL)
        self.expires = _end_of(files.certificate)

    def refresh(self) -> bool:
        """Take files that have changed; whether there was something new."""
        try:
            now = self._contents()
            if now == self._read:
                # What was wrong has been taken back.
                self.problem = ""
                return False
            context, api = self._context(), self._context(ssl.CERT_OPTIONAL)
            expires = _end_of(self._files.certificate)
            if self._contents() != now:
                # Being written just now: the next look takes them.
                return False
        except CredentialsError as error:
            problem = f"{error}; the former ones are still in use"
            if problem != self.problem:
                log.error("%s", problem)
            self.problem = problem
            return False
        self._read, self.context, self.api, self.expires, self.problem = now, context, api, expires, ""
        log.info(
            "certificate, key and CA are taken anew from their files; the certificate ends %s", f"{expires:%F %R}Z"
        )
        return True

    def troubles(self, now: datetime) -> list[str]:
        """What somebody should do something about."""
        found = [self.problem] if self.problem else []
        left = (self.expires - now).total_seconds() / 86400
        if left < 0:
            found.append(f"--tls-cert {self._files.certificate}: it has expired, {self.expires:%F %R}Z")
        elif left < RENEW_BEFORE:
            found.append(f"--tls-cert {self._files.certificate}: it ends in {left:.1f} days, {self.expires:%F %R}Z")
        return found

    def _contents(self) -> tuple[bytes, bytes, bytes]:
        files = self._files
        return (
            _read("--tls-cert", files.certificate),
            _read("--tls-key", files.key),
            _read("--tls-ca", files.ca),
        )

    def _context(self, verify: ssl.VerifyMode = ssl.CERT_REQUIRED) -> ssl.SSLContext:
        files = self._files
        context = _server_context()
        context.verify_mode = verify
        try:
            context.load_cert_chain(files.certificate, files.key, _no_password)
        except (ssl.SSLError, ValueError) as error:
            what = _loading(error)
            raise CredentialsError(f"--tls-cert {files.certificate}, --tls-key {files.key}: {what}") from error
        try:
            context.load_verify_locations(files.ca)
        except ssl.SSLError as error:
            raise CredentialsError(f"--tls-ca {files.ca}: no certificates in it: {_loading(error)}") from error
        return context


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Switches connect seldom and for long: nothing is kept to resume a session, which would also skip the look at a
    # certificate that is no longer valid. Renegotiation would let a peer have us calculate on and on.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    return context


def _no_password() -> bytes:
    # OpenSSL would ask for it on the terminal.
    raise ValueError("the key is encrypted; it must be readable without a password")


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialsError(f"{option} {path}: {error.strerror}") from error


def _loading(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return "the key is not the certificate's"
    return str(reason).replace("_", " ").lower() if reason else str(error)


def _end_of(path: Path) -> datetime:
    """When a certificate stops to be valid."""
    # Imported here: plain installations need none of it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cryptography import x509

        try:
            return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
        except (OSError, ValueError) as error:
            raise CredentialsError(f"--tls-cert {path}: {error}") from error


class TlsStream:
    """The server's end of one connection: the network's bytes in, the peer's bytes out, and the other way round."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        #: Whether the peer has been let in; then whose certificate it has shown.
        self.established = False
        self.node = ""

    def receive(self, data: bytes) -> bytes:
        """The network's bytes; what the peer says. Raises RefusedError; `output` may hold a last word for it."""
        self._in.write(data)
        pieces: list[bytes] = []
        try:
            if not self.established:
                self._tls.do_handshake()
                self.node = node_of(self._tls.getpeercert() or {})
                self.established = True
            while piece := self._tls.read(_PIECE):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise refused(error) from error
        return b"".join(pieces)

    def seal(self, data: bytes | memoryview) -> bytes:
        """What goes over the network so that the peer is told `data`. Raises RefusedError."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view) :]
        except ssl.SSLError as error:
            raise refused(error) from error
        return self._out.read()

    def output(self) -> bytes:
        """What the handshake wants to have sent."""
        return self._out.read()

    def end(self) -> bytes:
        """The last word of a connection that ends as it should."""
        # The peer's own last word isn't waited for.
        with contextlib.suppress(ssl.SSLError, ValueError):
            self._tls.unwrap()
        return self._out.read()


def node_of(certificate: Mapping[str, object]) -> str:
    """The node that a certificate is of, as the ssl module tells certificates. Raises RefusedError."""
    names = certificate.get("subjectAltName", ())
    assert isinstance(names, tuple)
    nodes = {
        value.removeprefix(CERTIFICATE_URI_PREFIX)
        for kind, value in names
        if kind == "URI" and value.startswith(CERTIFICATE_URI_PREFIX)
    }
    if len(nodes) != 1 or "" in nodes:
        said = f"names {len(nodes)} nodes" if nodes else "names no node"
        raise RefusedError(
            Why.WRONG_NODE, f"its certificate {said}: it must have one URI {CERTIFICATE_URI_PREFIX}NAME as a SAN"
        )
    return str(nodes.pop())


def check_first(data: bytes) -> None:
    """Raise RefusedError where a connection's first bytes aren't those of TLS."""
    if data[0] in _OPENFLOW_VERSIONS:
        raise RefusedError(Why.NOT_TLS, "it speaks plain OpenFlow, and this port TLS: its controller must be ssl:...")
    if data[0] != HANDSHAKE_RECORD:
        raise RefusedError(Why.NOT_TLS, "it doesn't speak TLS")


def refused(error: ssl.SSLError) -> RefusedError:
    """A failed handshake, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == _EXPIRED:
            return RefusedError(Why.EXPIRED, "its certificate has expired")
        if error.verify_code == _NOT_YET_VALID:
            return RefusedError(Why.EXPIRED, "its certificate isn't valid yet: are the clocks right?")
        if error.verify_code == _WRONG_PURPOSE:
            return RefusedError(Why.UNTRUSTED, "its certificate isn't for clients")
        return RefusedError(Why.UNTRUSTED, f"{_UNTRUSTED}: {error.verify_message}")
    if isinstance(error, ssl.SSLZeroReturnError | ssl.SSLEOFError):
        return RefusedError(Why.HANDSHAKE, "it has hung up")
    reason = error.reason or ""
    why, text = _REASONS.get(reason, (Why.HANDSHAKE, f"TLS failed: {reason.replace('_', ' ').lower() or error}"))
    return RefusedError(why, text)
