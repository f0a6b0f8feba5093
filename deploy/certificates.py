"""A CA and certificates for the lab and for small installations, as files of one directory.

    ca.crt, ca.key                      made by `make_ca`; the key is needed for making certificates only
    controller.crt, controller.key      may be shown by servers only
    nodes/NAME.crt, nodes/NAME.key      may be shown by clients only, and name the node (naming.certificate_uri)
    users/NAME.crt, users/NAME.key      may be shown by clients only, and say what a person may ask (organization)

Open vSwitch takes any certificate of its CA for the controller's if it may be a server's at all: so no node's may.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controller.access import ORGANIZATIONS
from topology import naming

CA_DAYS, DAYS = 3650, 365
#: How far clocks may be behind.
_SKEW = timedelta(minutes=5)
#: A certificate is made anew when less than this share of its life is left.
_RENEW_SHARE = 1 / 3
#: What Kubernetes allows as the name of a node (RFC 1123 subdomain).
_NODE_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
_CN_LENGTH = 64
#: What people are called in logs: as they are called elsewhere, also by their mail address.
_USER_NAME = re.compile(r"[A-Za-z0-9]([-.@_A-Za-z0-9]{0,62}[A-Za-z0-9])?")


class PkiError(Exception):
    """What was asked for can't be done; one line that says why."""


class Made(msgspec.Struct, frozen=True):
    """A certificate and its key as files; `new` where they were made just now."""

    certificate: Path
    key: Path
    new: bool


def make_ca(directory: Path, days: int = CA_DAYS) -> Made:
    """The CA of a directory, which may be there already. Raises PkiError."""
    certificate, key = directory / "ca.crt", directory / "ca.key"
    if certificate.exists() and key.exists():
        _ca(directory)
        return Made(certificate, key, False)
    for path in (certificate, key):
        if path.exists():
            other = key if path == certificate else certificate
            raise PkiError(f"{path} is there, {other} isn't: restore it, or take both away for a new CA")
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Signalbox CA")])
    now = datetime.now(UTC)
    usage = _key_usage(sign_certificates=True)
    made = (
        _builder(name, name, private.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    _make_directory(directory)
    _write_pair(certificate, key, made, private)
    return Made(certificate, key, True)


def make_node(directory: Path, node: str, days: int = DAYS, *, anew: bool = False) -> Made:
    """A node's certificate; one that is there is kept while it is good, unless it is wanted anew. Raises PkiError."""
    if not _NODE_NAME.fullmatch(node):
        raise PkiError(f"node {node!r}: a node's name has lower-case letters, digits, dashes and dots only")
    names = [x509.UniformResourceIdentifier(naming.certificate_uri(node))]
    paths = directory / "nodes" / f"{node}.crt", directory / "nodes" / f"{node}.key"
    return _make(directory, paths, _subject(node), names, ExtendedKeyUsageOID.CLIENT_AUTH, days, anew)


def make_user(directory: Path, user: str, role: str, days: int = DAYS, *, anew: bool = False) -> Made:
    """The certificate of a person who asks the admin API; `role` is one of `access.ROLES`. Raises PkiError."""
    if not _USER_NAME.fullmatch(user):
        raise PkiError(f"user {user!r}: a name has at most 64 letters, digits and -._@ only")
    organization = next(name for name, of in ORGANIZATIONS.items() if of == role)
    paths = directory / "users" / f"{user}.crt", directory / "users" / f"{user}.key"
    subject = _subject(user, organization)
    return _make(directory, paths, subject, (), ExtendedKeyUsageOID.CLIENT_AUTH, days, anew)


def make_controller(directory: Path, addresses: Sequence[str] = (), days: int = DAYS, *, anew: bool = False) -> Made:
    """The controller's certificate, with the addresses and DNS names that clients of its admin API ask by."""
    names: list[x509.GeneralName] = [x509.DNSName("signalbox-controller")]
    for address in addresses:
        try:
            names.append(x509.IPAddress(ip_address(address)))
        except ValueError:
            try:
                names.append(x509.DNSName(address))
            except ValueError as error:
                raise PkiError(f"--address {address}: neither an address nor a DNS name") from error
    paths = directory / "controller.crt", directory / "controller.key"
    return _make(directory, paths, _subject("signalbox-controller"), names, ExtendedKeyUsageOID.SERVER_AUTH, days, anew)


def describe(path: Path) -> Iterator[dict[str, str]]:
    """What certificates of a file say of themselves. Raises PkiError."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise PkiError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise PkiError(f"{path}: no certificate in PEM form") from error
    now = datetime.now(UTC)
    for each in found:
        begins, ends = each.not_valid_before_utc, each.not_valid_after_utc
        state = "not yet" if now < begins else "expired" if now > ends else f"{(ends - now).days} days left"
        yield {
            "subject": each.subject.rfc4514_string(),
            "issuer": each.issuer.rfc4514_string(),
            "names": ", ".join(_names(each)) or "none",
            "for": ", ".join(_purposes(each)) or "anything",
            "valid": f"{begins:%F %R}Z to {ends:%F %R}Z ({state})",
            "sha256": each.fingerprint(hashes.SHA256()).hex(":"),
        }


def _make(
    directory: Path,
    paths: tuple[Path, Path],
    subject: x509.Name,
    names: Sequence[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    days: int,
    anew: bool,
) -> Made:
    ca, ca_key = _ca(directory)
    certificate, key = paths
    if not anew and _is_good(certificate, key, ca, subject, names, purpose):
        return Made(certificate, key, False)
    private = ec.generate_private_key(ec.SECP256R1())
    identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(subject, ca.subject, private.public_key(), datetime.now(UTC), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    _make_directory(certificate.parent)
    _write_pair(certificate, key, builder.sign(ca_key, hashes.SHA256()), private)
    return Made(certificate, key, True)


def _subject(common_name: str, organization: str = "") -> x509.Name:
    fields = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*fields, x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_CN_LENGTH])])


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _ca(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    path = directory / "ca.crt"
    if not path.exists() and not (directory / "ca.key").exists():
        raise PkiError(f"{directory}: there is no CA in it; make one with 'signalbox pki init {directory}'")
    ca, key = _load(path, directory / "ca.key")
    if ca.not_valid_after_utc < datetime.now(UTC):
        raise PkiError(f"{path}: the CA has expired, {ca.not_valid_after_utc:%F %R}Z")
    return ca, key


def _load(certificate: Path, key: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate and its key, which must be a pair. Raises PkiError."""
    try:
        loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), None)
    except OSError as error:
        raise PkiError(f"{error.filename}: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        raise PkiError(f"{certificate}, {key}: not a certificate and its key in PEM form") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or loaded.public_key() != private.public_key():
        raise PkiError(f"{key}: not the key of {certificate}")
    return loaded, private


def _is_good(
    certificate: Path,
    key: Path,
    ca: x509.Certificate,
    subject: x509.Name,
    names: Sequence[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
) -> bool:
    try:
        found, _ = _load(certificate, key)
        found.verify_directly_issued_by(ca)
        said = [
            name
            for each in found.extensions
            if isinstance(each.value, x509.SubjectAlternativeName)
            for name in each.value
        ]
        purposes = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (PkiError, InvalidSignature, TypeError, ValueError, x509.ExtensionNotFound):
        return False
    life = found.not_valid_after_utc - found.not_valid_before_utc
    left = found.not_valid_after_utc - datetime.now(UTC)
    is_as_asked = found.subject == subject and said == list(names) and list(purposes) == [purpose]
    return is_as_asked and left > life * _RENEW_SHARE


def _names(certificate: x509.Certificate) -> Iterator[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    for each in names:
        yield str(each.value)


def _purposes(certificate: x509.Certificate) -> Iterator[str]:
    words = {ExtendedKeyUsageOID.CLIENT_AUTH: "clients", ExtendedKeyUsageOID.SERVER_AUTH: "servers"}
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        if constraints.ca:
            yield "making certificates"
        for each in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value:
            yield words.get(each, each.dotted_string)
    except x509.ExtensionNotFound:
        return


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise PkiError(f"{directory}: {error.strerror}") from error


def _write_pair(certificate: Path, key: Path, made: x509.Certificate, private: ec.EllipticCurvePrivateKey) -> None:
    pem = serialization.Encoding.PEM
    text = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        _write(key, text, 0o600)
        _write(certificate, made.public_bytes(pem), 0o644)
    except OSError as error:
        raise PkiError(f"{error.filename}: {error.strerror}") from error


def _write(path: Path, data: bytes, mode: int) -> None:
    """Beside and renamed: nobody reads half of it, or while it isn't private yet."""
    temporary = path.with_name(f".{os.getpid()}{path.suffix}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
    temporary.rename(path)
