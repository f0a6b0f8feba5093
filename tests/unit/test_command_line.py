"""The command line without a controller or a lab: help, and one line for what can't be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
    # What whoever runs the tests wants of colours is not what they are about.
    for name in ("NO_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("words", [("get", "pods"), ("status",), ("topology",), ("flows", "n1")])
def test_without_a_controller_the_remedy_is_said(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == (2 if words == ("status",) else 1)
    assert result.output.startswith("Error: no controller: ") and "signalbox lab up" in result.output
    assert len(result.output.splitlines()) == 1


def test_a_socket_that_is_named_is_the_one_that_is_asked(tmp_path: Path) -> None:
    named = str(tmp_path / "other.sock")
    for result in (run("status", "--socket", named), run("status", SIGNALBOX_SOCKET=named)):
        assert result.exit_code == 2 and f"{named}: no such socket" in result.output


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
            "there is no kind 'widgets'; the kinds are nodes, pods, workloads, links, services, endpoints, "
            "identities, policies, bgp, routes",
        ),
        (("get", "pods", "--counters"), "--counters: pods have none; services, endpoints and policies do"),
        (("get", "links", "-l", "a=b"), "--selector: links have no labels to select by; nodes, pods and workloads do"),
        (("get", "pods", "-o", "xml"), "'xml' is not one of"),
        (("topology", "-w", "-o", "json"), "--watch goes with -o table and -o wide"),
        (("topology", "path", "a"), "Missing argument 'B'"),
        (("controller", "--listen", "tcp:127.0.0.1:0", "--manifests", "/nowhere"), "'/nowhere' does not exist"),
        ((*CONTROLLER, "tcp:127.0.0.1:6653"), "listen on ssl:127.0.0.1:6653"),
        ((*CONTROLLER, "tcp:127.0.0.1:6653"), "or add --insecure"),
        ((*CONTROLLER, "ssl:127.0.0.1:6653"), "--listen ssl:... takes --tls-cert, --tls-key and --tls-ca"),
        ((*CONTROLLER, "ssl:127.0.0.1:6653", "--tls-cert", "/c"), "--tls-cert, --tls-key and --tls-ca go together"),
        ((*CONTROLLER, "ssl:127.0.0.1:6653", *FILES), "--tls-cert /c: No such file"),
        ((*CONTROLLER, "unix:/s", "--api-listen", "127.0.0.1:1"), "--api-listen takes --tls-cert"),
        ((*CONTROLLER, "unix:/s", "--api-tokens", "/t"), "--api-tokens goes with --api-listen"),
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


LINK = {
    "from": "n1", "fromPort": "x1", "to": "n2", "toPort": "x2", "kind": "wire", "cost": 1, "state": "Up",
    "txBitsPerSecond": 9_996_000_000, "rxBitsPerSecond": 999, "speedBitsPerSecond": 10_000_000_000, "load": 0.9996,
}  # fmt: skip
HOP = {key: LINK[key] for key in ("from", "fromPort", "to", "toPort", "cost", "kind")}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[list[str], dict[str, str]]]:
    """What a controller is asked that has one wire."""
    found: list[tuple[list[str], dict[str, str]]] = []

    def answer(where: Path, resource: list[str], query: dict[str, str]) -> object:
        found.append((resource, query))
        end = {"node": "n1", "pod": "default/a", "port": "pod1"}
        if resource == ["path"]:
            others = [{**HOP, "fromPort": "x5", "to": "n3", "toPort": "x6"}]
            return {"from": end, "to": {**end, "pod": "", "node": "n2"}, "cost": 1, "hops": [{**HOP, "others": others}]}
        return {"nodes": [], "networks": [], "links": [LINK]}

    monkeypatch.setattr(client, "ask", answer)
    return found


def test_topology_is_a_table_of_links_and_with_their_load_if_that_is_wanted(
    asked: list[tuple[list[str], dict[str, str]]],
) -> None:
    at = ("--socket", "/s")
    assert run("topology", *at).output.splitlines() == [
        "A    PORT   B    PORT   KIND   COST   STATE",
        "n1   x1     n2   x2     wire   1      Up",
    ]
    assert asked == [(["topology"], {"format": "json"})]
    _, line = run("topology", "--load", *at).output.splitlines()
    assert line.split()[7:] == ["100%", "10Gb/s", "999b/s", "10Gb/s"]
    assert asked[-1] == (["topology"], {"format": "json", "load": "1"})


def test_topology_is_shown_again_and_again_until_somebody_has_seen_enough(
    asked: list[tuple[list[str], dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pause(seconds: float) -> None:
        if len(asked) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("controller.cli.graph.pause", pause)
    result = run("topology", "-w", "--socket", "/s")
    assert result.exit_code == 0
    assert result.output.count("n1   x1     n2   x2") == 3


def test_a_way_is_a_line_for_each_hop_with_what_is_as_good(asked: list[tuple[list[str], dict[str, str]]]) -> None:
    expected = [
        "from pod default/a on n1, port pod1",
        "HOP   FROM   PORT   TO   PORT   KIND   COST   OR",
        "1     n1     x1     n2   x2     wire   1      x5>n3:x6",
        "to node n2, cost 1",
    ]
    # Where the controller is may be said before or behind.
    for words in (("topology", "path", "a", "n2", "--socket", "/s"), ("topology", "--socket", "/s", "path", "a", "n2")):
        assert run(*words).output.splitlines() == expected
    assert asked == [(["path"], {"from": "a", "to": "n2"})] * 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(shell: str) -> None:
    told = CliRunner().invoke(main, ["completion", shell])
    assert told.exit_code == 0 and f"_SIGNALBOX_COMPLETE={shell}_complete" in told.output


def test_words_are_completed() -> None:
    env = {**os.environ, "_SIGNALBOX_COMPLETE": "bash_complete", "COMP_WORDS": "signalbox tra", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "from deploy.command import main; main(prog_name='signalbox')"],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["plain,trace"], done.stderr


def test_get_shows_each_object_that_is_named_and_names_those_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ask", lambda *_: {"items": [{"name": name} for name in ("n1", "n2", "n3")]})
    at = ("-o", "name", "--socket", "/s")
    assert run("get", "nodes", "n3", "n1", *at).output == "node/n1\nnode/n3\n"
    result = run("get", "nodes", "n1", "n8", "n9", *at)
    assert result.exit_code == 1 and result.stdout == "node/n1\n"
    assert result.stderr == "Error: nodes 'n8', 'n9' not found\n"
    result = run("get", "node/n2", "svc/n8", *at)
    assert result.exit_code == 1 and result.stdout == "node/n2\n"
    assert result.stderr == "Error: services 'n8' not found in namespace default\n"
    result = run("get", "nodes", "n8", "--socket", "/s")
    assert result.exit_code == 1 and result.output == "Error: nodes 'n8' not found\n"


@pytest.mark.parametrize("words", [("get", "pods"), ("describe", "pod"), ("get", "pods", "-w"), ("flows",), ("drain",)])
@pytest.mark.parametrize(
    ("name", "said"),
    [("a\udcff", "\\xff' is not text in UTF-8"), ("a" * 9000, "is too long: 90")],
    ids=["bytes", "long"],
)
def test_a_name_that_can_t_be_asked_for_is_an_error_in_a_line(words: tuple[str, ...], name: str, said: str) -> None:
    result = run(*words, "--socket", "/s", *(["--field-selector", f"name={name}"] if "-w" in words else [name]))
    assert result.exit_code == 1 and result.output.startswith("Error: ") and said in result.output
    assert len(result.output.splitlines()) == 1


def test_a_full_disk_is_said_in_a_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "deploy.command", "completion", "bash"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "Error: what is printed can't be written: No space left on device\n"


def test_who_has_read_enough_is_told_no_more() -> None:
    command = [sys.executable, "-m", "deploy.command", "completion", "bash"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


class Pages:
    """A controller that lists rows by pages, by what it is asked."""

    def __init__(self, rows: list[dict[str, object]]) -> None:
        self.rows = rows
        self.queries: list[tuple[str, dict[str, str]]] = []

    def ask(self, where: Path, resource: list[str], query: dict[str, str]) -> object:
        self.queries.append((resource[0], dict(query)))
        start, size = int(query.get("continue", 0)), int(query.get("limit", len(self.rows)))
        more = {"continue": str(start + size)} if start + size < len(self.rows) else {}
        return {"items": self.rows[start : start + size], **more}


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Pages:
    rows = [{"namespace": "default", "name": f"p{number}", "node": f"n{-number % 3}"} for number in range(5)]
    here = Pages([*rows, {"namespace": "default", "name": "unscheduled", "node": None}])
    monkeypatch.setattr(client, "ask", here.ask)
    return here


def test_a_list_is_asked_for_by_pages_and_by_what_is_wanted(pages: Pages) -> None:
    words = ("get", "po", "--chunk-size", "4", "-l", "app=web", "--field-selector", "node!=n9", "--socket", "/s")
    assert len(run(*words, "-o", "name").output.split()) == 6
    asked = {"namespace": "default", "labelSelector": "app=web", "fieldSelector": "node!=n9", "limit": "4"}
    assert pages.queries == [("pods", asked), ("pods", asked | {"continue": "4"})]
    pages.queries.clear()
    run("get", "po", "p3", "-A", "--chunk-size", "0", "--socket", "/s")
    run("get", "svc", "--counters", "--socket", "/s")
    assert pages.queries == [
        ("pods", {"fieldSelector": "name=p3"}),
        # All switches count for each page, so there is one.
        ("services", {"namespace": "default", "counters": "1"}),
    ]


def test_a_list_is_sorted_by_a_field_before_it_is_cut(pages: Pages) -> None:
    def names(*words: str) -> list[str]:
        return [line.split("/")[1] for line in run("get", "po", *words, "-o", "name", "--socket", "/s").output.split()]

    assert names("--sort-by", "node") == ["p0", "p3", "p2", "p1", "p4", "unscheduled"]
    assert names("--sort-by", ".node", "--limit", "3") == ["p0", "p3", "p2"]
    assert "there is no field 'colour'" in run("get", "po", "--sort-by", "colour", "--socket", "/s").output


def test_several_kinds_and_objects_of_several_kinds_are_shown_after_one_another(pages: Pages) -> None:
    told = run("get", "nodes,pods", "--socket", "/s").output.split("\n\n")
    assert [part.split()[0:2] for part in told] == [["NAME", "STATUS"], ["NAME", "STATUS"]]
    assert "POD-CIDRS" in told[0] and "POD-CIDRS" not in told[1]
    told = run("get", "pod/p1", "po/p2", "svc/p3", "-o", "name", "--socket", "/s").output.split()
    assert told == ["pod/p1", "pod/p2", "service/p3"]
    assert list(json.loads(run("get", "no,po", "-o", "json", "--socket", "/s").output)) == ["nodes", "pods"]
    assert "say KIND/NAME here too" in run("get", "pod/p1", "p2", "--socket", "/s").output


FLOW = {
    "table": "Route", "priority": 100, "packets": 7, "object": "Pod default/a", "words": "to a: drop", "ofctl": "a=b",
}  # fmt: skip


def answering(monkeypatch: pytest.MonkeyPatch, answer: object) -> list[dict[str, str]]:
    """Let a controller answer so to every question; what each one says."""
    queries: list[dict[str, str]] = []

    def ask(where: Path, resource: list[str], query: dict[str, str]) -> object:
        queries.append(query)
        return answer

    monkeypatch.setattr(client, "ask", ask)
    return queries


def test_differences_are_told_as_they_are_and_should_be_and_by_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    items: list[dict[str, object]] = []
    queries = answering(monkeypatch, {"items": items, "compared": 9, "settled": True})
    words = ("flows", "n1", "--diff", "--socket", "/s")
    result = run(*words)
    assert (result.exit_code, result.output) == (0, "No differences: 9 flows are as they should be.\n")
    assert queries == [{"diff": "1"}]
    items += [
        {**FLOW, "state": "missing", "ofctl": "m"},
        {**FLOW, "state": "altered", "ofctl": "is", "shouldBe": "to a: send it on", "shouldBeOfctl": "should"},
        {**FLOW, "state": "foreign", "ofctl": "f", "object": ""},
    ]
    result = run(*words)
    assert result.exit_code == 1
    assert [line.split("   ")[0].strip() for line in result.output.splitlines()] == [
        "STATE", "missing", "altered", "should be", "foreign",
    ]  # fmt: skip
    assert result.output.splitlines()[3].endswith("to a: send it on")
    wide = run(*words, "-o", "wide").output.splitlines()
    assert [line.split()[-1] for line in wide] == ["OFCTL", "m", "is", "should", "f"]
    result = run(*words, "-o", "ofctl")
    assert (result.exit_code, result.output.split()) == (1, ["-m", "-should", "+is", "+f"])


def test_rates_of_flows_are_as_people_say_them(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {**FLOW, "packetsPerSecond": 1234.4, "bytesPerSecond": 125_000}
    queries = answering(monkeypatch, {"items": [row]})
    heading, line = run("flows", "n1", "--rate", "2", "--socket", "/s").output.splitlines()
    assert "PACKETS/S   RATE" in heading and "1234        1Mb/s" in line
    assert queries == [{"rate": "2"}]
    assert "say --diff or --rate" in run("flows", "n1", "--rate", "2", "--diff", "--socket", "/s").output


STATUS = {
    "healthy": True, "nodes": 2, "nodesInSync": 2, "pods": 5, "problems": [], "refusedPeers": [],
    "parts": [{"name": "source", "state": "Ok", "message": "read"}, {"name": "bgp", "state": "Ok", "message": "up"}],
}  # fmt: skip


@pytest.mark.parametrize(("healthy", "state", "code"), [(True, "Ok", 0), (True, "Degraded", 1), (False, "Ok", 1)])
def test_the_exit_code_of_status_says_whether_all_is_well(
    monkeypatch: pytest.MonkeyPatch, healthy: bool, state: str, code: int
) -> None:
    part = {"name": "bgp", "state": state, "message": "1 of 2 peers up"}
    problems = [] if healthy else ["node n1: its switch isn't connected"]
    answering(monkeypatch, STATUS | {"healthy": healthy, "problems": problems, "parts": [part]})
    result = run("status", "--socket", "/s")
    assert result.exit_code == code
    lines = result.output.splitlines()
    assert lines[0] == "2 of 2 nodes in sync, 5 pods attached"
    assert lines[3].split(maxsplit=2) == ["bgp", state, "1 of 2 peers up"]
    assert lines[4:] == ([] if healthy else ["", "- node n1: its switch isn't connected"])
    for form in ("json", "yaml"):
        told = run("status", "--socket", "/s", "-o", form)
        assert told.exit_code == code and "1 of 2 peers up" in told.output


def test_states_are_coloured_on_a_terminal_or_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [{"name": "n1", "status": "Synced"}, {"name": "n2", "status": "Disconnected"}]
    answering(monkeypatch, {"items": items})
    words = ("get", "nodes", "--socket", "/s")
    plain = run(*words).output
    assert "\x1b" not in plain
    for forced in (run("--color", "always", *words), run(*words, CLICOLOR_FORCE="1")):
        assert "\x1b[32mSynced\x1b[0m" in forced.output and "\x1b[31mDisconnected\x1b[0m" in forced.output
        # Columns stay where they were.
        assert click.unstyle(forced.output) == plain
    on_terminal = CliRunner().invoke(main, words, color=True)
    assert "\x1b[32mSynced" in on_terminal.output
    for env in ({"NO_COLOR": "1"}, {"NO_COLOR": "1", "CLICOLOR_FORCE": "1"}):
        assert "\x1b" not in CliRunner().invoke(main, words, color=True, env=env).output
    assert "\x1b" not in run("--color", "always", *words, "-o", "json").output


def test_what_a_terminal_would_obey_is_not_printed_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {"items": [{"namespace": "default", "name": "a", "reason": "port \x1b[2Jx\n is refused"}]})
    told = run("--color", "always", "get", "pods", "-o", "wide", "--socket", "/s").output.splitlines()
    assert len(told) == 2 and told[1].endswith("port \\x1b[2Jx\\n is refused")
    answering(monkeypatch, STATUS | {"problems": ["node n1: port \x1b]0;x\x07"]})
    assert "- node n1: port \\x1b]0;x\\x07\n" in run("--color", "always", "status", "--socket", "/s").output
