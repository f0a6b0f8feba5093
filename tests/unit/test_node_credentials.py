"""The agent's copies of certificate and key: new paths for new contents, and only for what can be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import certificates
from node import credentials
from node.credentials import Credentials, CredentialsError, TlsFiles


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    certificates.make_ca(tmp_path / "pki")
    certificates.make_node(tmp_path / "pki", "n1")
    return tmp_path / "pki"


def files(pki: Path, node: str = "n1") -> TlsFiles:
    return TlsFiles(pki / f"nodes/{node}.crt", pki / f"nodes/{node}.key", pki / "ca.crt")


def test_copies_are_as_private_as_the_files_and_stay_where_they_are(pki: Path, tmp_path: Path) -> None:
    placed = Credentials("n1", files(pki), tmp_path / "tls").place()
    assert placed.key.read_bytes() == (pki / "nodes/n1.key").read_bytes()
    assert placed.key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o711
    # Another agent, after a restart, hands the same paths on.
    assert Credentials("n1", files(pki), tmp_path / "tls").place() == placed


def test_new_contents_have_new_paths_and_the_former_ones_stay_for_a_while(pki: Path, tmp_path: Path) -> None:
    here = Credentials("n1", files(pki), tmp_path / "tls")
    seen = [here.place()]
    assert here.renewed() is None
    for _ in range(3):
        certificates.make_node(pki, "n1", anew=True)
        placed = here.renewed()
        assert placed is not None and placed not in seen
        seen.append(placed)
    assert sorted(path.name for path in (tmp_path / "tls").iterdir()) == sorted(
        each.key.parent.name for each in seen[-2:]
    )


def test_half_of_a_renewal_changes_nothing_and_the_whole_is_taken(
    pki: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = Credentials("n1", files(pki), tmp_path / "tls")
    placed = here.place()
    certificate = (pki / "nodes/n1.crt").read_bytes()
    certificates.make_node(pki, "n1", anew=True)
    new = (pki / "nodes/n1.crt").read_bytes()
    (pki / "nodes/n1.crt").write_bytes(certificate)
    assert here.renewed() is None and here.renewed() is None
    assert placed.certificate.read_bytes() == certificate
    said = [record.message for record in caplog.records if record.name == credentials.__name__]
    assert [message.count("not a pair") for message in said] == [1]
    (pki / "nodes/n1.crt").write_bytes(new)
    renewed = here.renewed()
    assert renewed is not None and renewed.certificate.read_bytes() == new


def test_copies_that_somebody_took_away_are_made_again(pki: Path, tmp_path: Path) -> None:
    here = Credentials("n1", files(pki), tmp_path / "tls")
    placed = here.place()
    for path in placed.key.parent.iterdir():
        path.unlink()
    placed.key.parent.rmdir()
    assert here.renewed() is None and placed.key.exists()


def test_what_can_t_be_used_is_said(pki: Path, tmp_path: Path) -> None:
    certificates.make_node(pki, "n2")
    for node, tls, said in [
        ("n1", files(pki, "n2"), "it says signalbox:node:n2, and must say signalbox:node:n1"),
        ("n1", TlsFiles(pki / "ca.crt", pki / "ca.key", pki / "ca.crt"), "it says no URI signalbox:node:NAME"),
        ("n1", TlsFiles(pki / "nodes/n1.crt", pki / "ca.key", pki / "ca.crt"), "not a pair"),
        ("n1", TlsFiles(pki / "nodes/n1.crt", pki / "nodes/n1.key", pki / "ca.key"), "--tls-ca .*: no certificates"),
        ("n1", TlsFiles(pki / "nodes/n1.crt", pki / "nodes/n1.key", pki / "none"), "--tls-ca .*: No such file"),
    ]:
        with pytest.raises(CredentialsError, match=said):
            Credentials(node, tls, tmp_path / "tls").place()
    assert not (tmp_path / "tls").exists() or not list((tmp_path / "tls").iterdir())
