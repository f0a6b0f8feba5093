"""The node's certificate, key and CA, as Open vSwitch is to use them for `ssl:` controllers.

ovs-vswitchd looks whether its files have changed, but takes key and certificate anew only where it finds the key and,
right then, the certificate changed (tried with 3.1.0): a certificate renewed for the same key it never takes, nor one
that is written a moment after its key. So it is given copies, in a directory whose name is a hash of what is in them:
new contents have new paths, written to the database in one transaction, and are a pair that has been tried before.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import ssl
from pathlib import Path

import msgspec

from topology.naming import CERTIFICATE_URI_PREFIX, certificate_uri

log = logging.getLogger(__name__)


class TlsFiles(msgspec.Struct, frozen=True):
    """PEM files that somebody else writes: the node's certificate, its key, and the CA that the controller is of."""

    certificate: Path
    key: Path
    ca: Path


class Placed(msgspec.Struct, frozen=True):
    """Copies for Open vSwitch."""

    certificate: Path
    key: Path
    ca: Path


class CredentialsError(Exception):
    """The files can't be used; the text names the option and the file."""


class Credentials:
    """What is in the files, and where its copies are."""

    def __init__(self, node: str, files: TlsFiles, directory: Path) -> None:
        self._node = node
        self._files = files
        self._directory = directory
        self._complaint = ""
        self._contents: tuple[bytes, ...] = ()
        self._placed: Placed | None = None

    def place(self) -> Placed:
        """Copies of the files as they are now. Raises CredentialsError."""
        contents = self._read()
        if contents == self._contents and self._placed is not None and self._placed.key.exists():
            return self._placed
        name = hashlib.sha256(b"\0".join(contents)).hexdigest()[:16]
        place = self._directory / name
        placed = Placed(place / "certificate.pem", place / "key.pem", place / "ca.pem")
        if not place.exists():
            self._copy(contents, place)
        former, self._contents, self._placed = self._placed, contents, placed
        self._clear({name, former.key.parent.name if former is not None else name})
        return placed

    def renewed(self) -> Placed | None:
        """New copies where the files have changed and can be used."""
        before = self._placed
        try:
            placed = self.place()
        except CredentialsError as error:
            if str(error) != self._complaint:
                log.error("%s; the former ones are still in use", error)
            self._complaint = str(error)
            return None
        self._complaint = ""
        return placed if placed != before else None

    def _read(self) -> tuple[bytes, ...]:
        found = []
        for option, path in (
            ("--tls-cert", self._files.certificate),
            ("--tls-key", self._files.key),
            ("--tls-ca", self._files.ca),
        ):
            try:
                found.append(path.read_bytes())
            except OSError as error:
                raise CredentialsError(f"{option} {path}: {error.strerror}") from error
        return tuple(found)

    def _copy(self, contents: tuple[bytes, ...], place: Path) -> None:
        beside = place.with_name(f".{place.name}")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            # Open vSwitch may run as a user of its own: what that one may read of the files, it may of the copies.
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o711)
            beside.mkdir(mode=0o711)
            copies = [beside / each for each in ("certificate.pem", "key.pem", "ca.pem")]
            originals = (self._files.certificate, self._files.key, self._files.ca)
            for copy, original, data in zip(copies, originals, contents, strict=True):
                _copy_with_owner(copy, original, data)
            self._check(*copies)
            beside.rename(place)
        except OSError as error:
            raise CredentialsError(f"{error.filename}: {error.strerror}") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _check(self, certificate: Path, key: Path, ca: Path) -> None:
        """Whether Open vSwitch could use them, and the controller would take them."""
        files = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_cert_chain(certificate, key, _no_password)
        except (ssl.SSLError, ValueError) as error:
            what = getattr(error, "reason", None) or str(error)
            what = "not a pair" if what == "KEY_VALUES_MISMATCH" else what
            raise CredentialsError(f"--tls-cert {files.certificate}, --tls-key {files.key}: {what}") from error
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError as error:
            raise CredentialsError(f"--tls-ca {files.ca}: no certificates in it") from error
        names = _names(certificate.read_bytes())
        wanted = certificate_uri(self._node)
        if names != [wanted]:
            said = ", ".join(names) or f"no URI {CERTIFICATE_URI_PREFIX}NAME"
            raise CredentialsError(f"--tls-cert {files.certificate}: it says {said}, and must say {wanted}")

    def _clear(self, kept: set[str]) -> None:
        # The former copies stay: Open vSwitch may look at them once more.
        for entry in self._directory.iterdir():
            if entry.name not in kept:
                shutil.rmtree(entry, ignore_errors=True)


def remove_copies(directory: Path) -> None:
    """Take all copies away."""
    shutil.rmtree(directory, ignore_errors=True)


def _copy_with_owner(copy: Path, original: Path, data: bytes) -> None:
    about = original.stat()
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fchown(descriptor, about.st_uid, about.st_gid)
        os.fchmod(descriptor, about.st_mode & 0o777)


def _names(certificate: bytes) -> list[str]:
    # Imported here: without TLS the agent needs none of it.
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return []
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return [each for each in uris if each.startswith(CERTIFICATE_URI_PREFIX)]


def _no_password() -> bytes:
    # OpenSSL would ask for it on the terminal.
    raise ValueError("the key is encrypted; Open vSwitch needs one that isn't")
