"""What an agent must know of its node that Kubernetes says, and a directory in which it is kept for starts without it.

The certificate's files are what `--tls-cert` and so on would name: whoever looks at them again finds them changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec

from node.credentials import TlsFiles
from node.files import place
from topology.naming import Address, Network

#: The data of a Secret of type kubernetes.io/tls: the key first, so that whoever sees the certificate finds its key.
TLS_NAMES = ("tls.key", "ca.crt", "tls.crt")


class NodeFacts(msgspec.Struct, frozen=True):
    """A node's pod CIDRs and addresses; the addresses of nodes that controllers run on, by their label; and what is in
    the node's Secret, in the order of `TLS_NAMES`, if it was asked for."""

    pod_cidrs: tuple[Network, ...]
    addresses: tuple[Address, ...]
    labelled: tuple[tuple[str, tuple[Address, ...]], ...] = ()
    tls: tuple[bytes, ...] = ()


class _File(msgspec.Struct, rename="camel"):
    pod_cidrs: list[str]
    addresses: list[str]
    labelled: dict[str, list[str]]


class Kept:
    """The directory."""

    def __init__(self, directory: Path) -> None:
        tls = directory / "tls"
        self.tls = TlsFiles(tls / "tls.crt", tls / "tls.key", tls / "ca.crt")
        self._tls = tls
        self._file = directory / "node.json"

    def read(self, *, tls: bool) -> NodeFacts | None:
        """What was kept last; None where there is nothing, or no certificate where one is asked for."""
        try:
            file = msgspec.json.decode(self._file.read_bytes(), type=_File)
            return NodeFacts(
                tuple(map(ip_network, file.pod_cidrs)),
                tuple(map(ip_address, file.addresses)),
                tuple((label, tuple(map(ip_address, each))) for label, each in file.labelled.items()),
                tuple((self._tls / each).read_bytes() for each in TLS_NAMES) if tls else (),
            )
        except (OSError, ValueError):
            return None

    def write(self, facts: NodeFacts) -> None:
        """Keep facts. What is there already is not written again."""
        if facts.tls:
            self._tls.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, data in zip(TLS_NAMES, facts.tls, strict=False):
            place(self._tls / name, data, 0o600)
        file = _File(
            [str(each) for each in facts.pod_cidrs],
            [str(each) for each in facts.addresses],
            {label: [str(each) for each in found] for label, found in facts.labelled},
        )
        place(self._file, msgspec.json.encode(file) + b"\n", 0o600)

    def remove(self) -> None:
        """Forget everything."""
        self._file.unlink(missing_ok=True)
        shutil.rmtree(self._tls, ignore_errors=True)


# Controllers ----------------------------------------------------------------------------------------------------------


def label_of(target: str) -> str:
    """The label of nodes that a controller's target has in the place of an address; empty where it has none."""
    kind, _, rest = target.partition(":")
    host = rest.rpartition(":")[0]
    if kind not in ("ssl", "tcp") or host.startswith("["):
        return ""
    try:
        ip_address(host)
    except ValueError:
        return host
    return ""


def targets(controllers: Sequence[str], facts: NodeFacts) -> tuple[str, ...]:
    """Controllers' targets, with the addresses of nodes in the places of their labels."""
    return tuple(dict.fromkeys(each for target in controllers for each in _with_addresses(target, facts)))


def _with_addresses(target: str, facts: NodeFacts) -> Iterator[str]:
    addresses = dict(facts.labelled).get(label_of(target))
    if addresses is None:
        yield target
        return
    kind, port = target.partition(":")[0], target.rpartition(":")[2]
    for address in addresses:
        yield f"{kind}:{f'[{address}]' if address.version == 6 else address}:{port}"
