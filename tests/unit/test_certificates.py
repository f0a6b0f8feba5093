"""signalbox pki: what it makes, what it keeps, and how it says no."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy import certificates
from deploy.command import main


def pki(*words: object, code: int = 0) -> str:
    result: Result = CliRunner().invoke(main, ["pki", *map(str, words)])
    assert result.exit_code == code, result.output
    return result.output


def test_a_ca_and_certificates_are_made_once_and_kept(tmp_path: Path) -> None:
    here = tmp_path / "pki"
    for done in ("created", "unchanged"):
        assert pki("init", here) == f"{here}/ca.crt {done}\n{here}/ca.key {done}\n"
        assert pki("node", "n1.example", "-d", here).splitlines()[0] == f"{here}/nodes/n1.example.crt {done}"
        said = pki("controller", "-d", here, "--address", "192.0.2.1", "--address", "box.example")
        assert said.splitlines()[0] == f"{here}/controller.crt {done}"
    keys = sorted(here.rglob("*.key"))
    assert len(keys) == 3 and {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    assert not [path for path in here.rglob("*") if path.name.startswith(".")]


def test_what_would_not_be_as_asked_for_is_made_anew(tmp_path: Path) -> None:
    certificates.make_ca(tmp_path)
    assert certificates.make_controller(tmp_path, ["192.0.2.1"]).new
    assert certificates.make_controller(tmp_path, ["192.0.2.2"]).new
    assert certificates.make_node(tmp_path, "n1", days=0).new
    # Less than a third of its life is left.
    made = certificates.make_node(tmp_path, "n1")
    assert made.new and not certificates.make_node(tmp_path, "n1").new
    made.key.write_bytes((tmp_path / "ca.key").read_bytes())
    assert certificates.make_node(tmp_path, "n1").new
    before = made.certificate.read_bytes()
    pki("node", "n1", "-d", tmp_path, "--renew")
    assert made.certificate.read_bytes() != before


def test_a_node_s_certificate_is_for_clients_and_the_controller_s_for_servers(tmp_path: Path) -> None:
    pki("init", tmp_path)
    pki("node", "n1", "-d", tmp_path)
    pki("controller", "-d", tmp_path, "--address", "2001:db8::1")
    node = pki("show", tmp_path / "nodes/n1.crt")
    assert "names:   signalbox:node:n1\n" in node and "for:     clients\n" in node and "364 days left" in node
    controller = pki("show", tmp_path / "controller.crt")
    assert "signalbox-controller, 2001:db8::1\n" in controller and "for:     servers\n" in controller
    assert "for:     making certificates\n" in pki("show", tmp_path / "ca.crt")


def test_a_node_s_name_may_be_longer_than_a_common_name(tmp_path: Path) -> None:
    name = ".".join(["a" * 62] * 4)
    certificates.make_ca(tmp_path)
    made = certificates.make_node(tmp_path, name)
    ssl.create_default_context(cafile=tmp_path / "ca.crt").load_cert_chain(made.certificate, made.key)
    assert f"signalbox:node:{name}" in pki("show", made.certificate)


def test_what_can_t_be_is_said_in_a_line(tmp_path: Path) -> None:
    here = tmp_path / "pki"
    for words, said in [
        (("node", "n1", "-d", here), f"there is no CA in it; make one with 'signalbox pki init {here}'"),
        (("node", "../n1", "-d", here), "a node's name has lower-case letters"),
        (("show", here / "none.crt"), "No such file"),
    ]:
        output = pki(*words, code=1)
        assert said in output and len(output.splitlines()) == 1
    pki("init", here)
    assert "no certificate in PEM form" in pki("show", here / "ca.key", code=1)
    assert "neither an address nor a DNS name" in pki("controller", "-d", here, "--address", "bäh", code=1)
    (here / "ca.key").unlink()
    assert "ca.crt is there, " in pki("init", here, code=1)
    (here / "ca.key").write_text("nothing")
    assert "not a certificate and its key" in pki("node", "n1", "-d", here, code=1)


def test_a_certificate_and_key_that_are_no_pair_make_no_ca(tmp_path: Path) -> None:
    certificates.make_ca(tmp_path / "a")
    certificates.make_ca(tmp_path / "b")
    (tmp_path / "a/ca.key").write_bytes((tmp_path / "b/ca.key").read_bytes())
    with pytest.raises(certificates.PkiError, match="not the key of"):
        certificates.make_node(tmp_path / "a", "n1")
