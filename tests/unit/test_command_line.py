"""The command line without a controller or a lab: help, and one line for what can't be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from controller.cli import client
from deploy.command import main


def run(*words: str, **env: str) -> Result:
    return CliRunner().invoke(main, list(words), env=env)


def every_command(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from every_command((*path, name), each)


@pytest.mark.parametrize("path", list(every_command((), main)), ids=" ".join)
def test_every_command_says_what_it_does_and_what_each_option_is_for(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0, result.output
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert command.help
    assert [each.name for each in command.params if isinstance(each, click.Option) and not each.help] == []


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client, "DEFAULT_SOCKET", tmp_path / "controller.sock")
    monkeypatch.setattr(client, "LABS", tmp_path / "labs")


@pytest.mark.parametrize("words", [("get", "pods"), ("status",), ("topology",), ("flows", "n1")])
def test_without_a_controller_the_remedy_is_said(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert result.output.startswith("Error: no controller: ") and "signalbox lab up" in result.output
    assert len(result.output.splitlines()) == 1


def test_a_socket_that_is_named_is_the_one_that_is_asked(tmp_path: Path) -> None:
    named = str(tmp_path / "other.sock")
    for result in (run("status", "--socket", named), run("status", SIGNALBOX_SOCKET=named)):
        assert result.exit_code == 1 and f"{named}: no such socket" in result.output


def test_with_several_labs_one_must_be_said(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "labs" / name).mkdir(parents=True)
        (tmp_path / "labs" / name / "controller.sock").touch()
    assert "several labs are up (a, b): say which with --lab NAME" in run("status").output
    assert f"{tmp_path}/labs/b/controller.sock" in run("status", "--lab", "b").output


CONTROLLER = ("controller", "--manifests", "/tmp", "--listen")
FILES = ("--tls-cert", "/c", "--tls-key", "/k", "--tls-ca", "/a")
NODE = ("--name", "n", "--pod-cidr", "10.0.0.0/24", "--cluster-cidr", "10.0.0.0/8", "--node-ip", "192.0.2.1",
        "--controller")  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("get", "widgets"),
            "there is no kind 'widgets'; the kinds are nodes, pods, links, services, endpoints, identities, policies, "
            "bgp, routes",
        ),
        (("get", "pods", "--counters"), "--counters: pods have none; services, endpoints and policies do"),
        (("get", "pods", "-o", "xml"), "'xml' is not one of"),
        (("controller", "--listen", "tcp:127.0.0.1:0", "--manifests", "/nowhere"), "'/nowhere' does not exist"),
        ((*CONTROLLER, "tcp:127.0.0.1:6653"), "listen on ssl:127.0.0.1:6653"),
        ((*CONTROLLER, "tcp:127.0.0.1:6653"), "or add --insecure"),
        ((*CONTROLLER, "ssl:127.0.0.1:6653"), "--listen ssl:... takes --tls-cert, --tls-key and --tls-ca"),
        ((*CONTROLLER, "ssl:127.0.0.1:6653", "--tls-cert", "/c"), "--tls-cert, --tls-key and --tls-ca go together"),
        ((*CONTROLLER, "ssl:127.0.0.1:6653", *FILES), "--tls-cert /c: No such file"),
        ((*CONTROLLER, "unix:/s", "--api-listen", "127.0.0.1:1"), "--api-listen takes --tls-cert"),
        ((*CONTROLLER, "unix:/s", *FILES, "--api-listen", "127.0.0.1:1"), "nobody is let in without a token"),
        (("node", *NODE, "ssl:192.0.2.1:6653", "--tls-cert", "/c"), "--tls-cert, --tls-key and --tls-ca go together"),
        (("node", *NODE, "tcp:192.0.2.1:6653", *FILES), "no --controller is ssl:IP:PORT"),
        (("controller", "--listen", "unix:/s"), "--manifests DIRECTORY or --kubernetes, not both"),
        (
            ("controller", "--listen", "unix:/s", "--manifests", "/", "--kubernetes"),
            "--manifests DIRECTORY or --kubernetes, not both",
        ),
        (
            ("controller", "--listen", "unix:/s", "--manifests", "/", "--kubeconfig", "f"),
            "--kubeconfig and --context go with --kubernetes",
        ),
        (("controller", "--listen", "unix:/s", "--kubernetes", "--context", "c"), "say --kubeconfig FILE"),
        ((*CONTROLLER, "unix:/s", "--leases", "kubernetes:ns"), "--leases kubernetes:ns goes with --kubernetes"),
        (
            ("controller", "--listen", "unix:/s", "--kubernetes", "--kubeconfig", "/nowhere"),
            "/nowhere: no such file",
        ),
        ((*CONTROLLER, "unix:/s", "--bgp-peer", "192.0.2.1"), "--bgp-peer 192.0.2.1: give ADDRESS@AS"),
        ((*CONTROLLER, "unix:/s", "--bgp-as", "64512"), "go with --bgp-peer: say who the routers are"),
        (("node", "--name", "n"), "Missing option"),
        (
            ("node", "--name", "n", "--pod-cidr", "10.0.0.1/24", "--cluster-cidr", "10.0.0.0/8",
             "--node-ip", "192.0.2.1", "--controller", "unix:/x"),
            "10.0.0.1/24 has host bits set",
        ),
    ],
)  # fmt: skip
def test_a_word_that_can_t_be_is_named(words: tuple[str, ...], said: str) -> None:
    result = run(*words)
    assert result.exit_code != 0
    assert said in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
