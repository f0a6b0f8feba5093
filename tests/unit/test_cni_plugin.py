"""The CNI plugin's two forms, the compiled one and the script, against an agent that a test plays."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.cni import build, installation, plugin

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
ENV = {"CNI_CONTAINERID": "abc", "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0", "CNI_ARGS": 'A=1;B="2\\3"\t\u00e9'}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "signalbox-cni"
    build.compile_plugin(path, ["-Wconversion", "-Werror"])
    return path


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with limits of less than a second, for tests of those alone: a machine may stand still for longer."""
    path = tmp_path_factory.mktemp("impatient") / "signalbox-cni"
    build.compile_plugin(path, ["-DINPUT_WAIT=300", "-DWHOLE_WAIT=600"])
    return path


@pytest.fixture(params=[pytest.param("compiled", marks=needs_compiler), "script"])
def program(request: pytest.FixtureRequest) -> Path:
    if request.param == "compiled":
        return Path(request.getfixturevalue("compiled"))
    path = Path(request.getfixturevalue("tmp_path")) / "signalbox-cni"
    shutil.copy(plugin.__file__, path)
    path.chmod(0o755)
    return path


def run(
    program: Path, command: str, config: bytes | dict[str, Any], env: dict[str, str] = ENV
) -> tuple[int, dict[str, Any]]:
    """Exit status and answer."""
    data = config if isinstance(config, bytes) else json.dumps(config, indent=2).encode()
    variables = {"CNI_COMMAND": command, **env} if command else env
    done = subprocess.run([program], input=data, capture_output=True, env=variables, timeout=20, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def run_impatient(impatient: Path, directory: Path, socket: Path) -> tuple[int, dict[str, Any]]:
    """An ADD whose input is there before it begins."""
    (directory / "input").write_text(json.dumps({"socket": str(socket)}))
    with (directory / "input").open("rb") as given:
        done = subprocess.run(
            [impatient], stdin=given, capture_output=True, env={"CNI_COMMAND": "ADD"}, timeout=20, check=False
        )
    return done.returncode, json.loads(done.stdout)


@contextlib.contextmanager
def agent(path: Path, answer: bytes | None) -> Iterator[list[dict[str, Any]]]:
    """An agent that gives everybody this answer, or none; what it was asked."""
    asked: list[dict[str, Any]] = []
    kept: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    kept.append(connection)
                    with connection.makefile("rb") as lines:
                        # One that gives up before it has asked says nothing.
                        if line := lines.readline():
                            asked.append(json.loads(line))
                    if answer is not None:
                        connection.sendall(answer)
                        connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for each in kept:
                each.close()


def test_a_request_goes_to_the_agent_and_its_answer_comes_back(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    config = {"cniVersion": "1.1.0", "name": "n", "socket": str(path), "x": {"y": [1, -2.5e3, None, True, "\u00e9\n"]}}
    with agent(path, b'0 9\n{"ips":0}') as asked:
        assert run(program, "ADD", config) == (0, {"ips": 0})
    assert asked == [{"env": {"CNI_COMMAND": "ADD", **ENV}, "config": config}]


def test_an_answer_may_be_empty_or_an_error(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with agent(path, b"0 0\n"):
        assert run(program, "DEL", {"socket": str(path)}) == (0, {})
    path.unlink()
    with agent(path, b'1 10\n{"code":5}'):
        assert run(program, "CHECK", {"socket": str(path)}) == (1, {"code": 5})


@pytest.mark.parametrize("answer", [b"", b"0", b"0 9\n{", b"2 0\nx", b"nonsense\n", b"0 -1\n"])
def test_an_answer_that_is_not_whole_is_no_answer(program: Path, tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "s"
    with agent(path, answer):
        status, told = run(program, "ADD", {"cniVersion": "1.0.0", "socket": str(path)})
    assert (status, told["code"], told["cniVersion"]) == (1, 11, "1.0.0")
    assert f"the node agent at {path} doesn't answer" in told["msg"]


@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("DEL", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)])
def test_without_an_agent_the_runtime_is_told_to_try_again(program: Path, command: str, code: int) -> None:
    status, told = run(program, command, {"cniVersion": "1.1.0", "socket": "/run/signalbox/nobody.sock"})
    assert (status, told["code"], told["cniVersion"]) == (1, code, "1.1.0")
    assert "No such file or directory" in told["msg"]


@pytest.mark.parametrize("config", [b"", b"{}", b'{"cniVersion": "1.0.0", "socket": "/nowhere"}'])
def test_version_needs_no_agent(program: Path, config: bytes) -> None:
    version = "1.0.0" if b"1.0.0" in config else "0.4.0"
    supported = ["0.4.0", "1.0.0", "1.1.0"]
    assert run(program, "VERSION", config, {}) == (0, {"cniVersion": version, "supportedVersions": supported})


@pytest.mark.parametrize(
    ("command", "config", "env", "code", "said"),
    [
        ("", b"{}", {}, 4, "CNI_COMMAND is not set"),
        ("ADD", b"", {}, 6, "not a JSON object"),
        ("ADD", b"[]", {}, 6, "not a JSON object"),
        ("ADD", b'{"a": 1,}', {}, 6, "not a JSON object"),
        ("ADD", b'{"a": "\x01"}', {}, 6, "not a JSON object"),
        ("ADD", b"{} {}", {}, 6, "not a JSON object"),
        ("ADD", b'{"a":' * 100_000, {}, 6, "not a JSON object"),
        ("ADD", b'{"a":"' + b"x" * (1 << 20) + b'"}', {}, 6, "longer than 1 MiB"),
        ("ADD", b'{"socket": 5}', {}, 7, "socket: expected an absolute path"),
        ("ADD", b'{"socket": "relative"}', {}, 7, "socket: expected an absolute path"),
        ("ADD", b'{"socket": "/' + b"x" * 107 + b'"}', {}, 7, "socket: a path of at most 107 bytes"),
        ("ADD", b"{}", {"CNI_ARGS": "x" * 65537}, 4, "CNI_ARGS is longer than 65536 bytes"),
    ],
)
def test_bad_input_is_refused_and_named(
    program: Path, command: str, config: bytes, env: dict[str, str], code: int, said: str
) -> None:
    status, told = run(program, command, config, env)
    assert (status, told["code"]) == (1, code)
    assert said in told["msg"]


@needs_compiler
def test_an_agent_that_never_answers_is_given_up(impatient: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with agent(path, None) as asked:
        for _ in range(20):
            begun = time.monotonic()
            status, told = run_impatient(impatient, tmp_path, path)
            assert (status, told["code"]) == (1, 11)
            assert "timed out" in told["msg"] and time.monotonic() - begun > 0.5
            # On a machine that stands still its time may be over before it has asked.
            if asked:
                break
    assert asked


@needs_compiler
def test_an_agent_that_takes_nobody_is_given_up(impatient: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(str(path))
        server.listen(0)
        first.connect(str(path))
        status, told = run_impatient(impatient, tmp_path, path)
    assert (status, told["code"]) == (1, 11) and "timed out" in told["msg"]


@needs_compiler
def test_input_that_doesn_t_end_is_given_up(impatient: Path) -> None:
    reading, writing = os.pipe()
    try:
        env = {"CNI_COMMAND": "ADD"}
        done = subprocess.run([impatient], stdin=reading, capture_output=True, env=env, timeout=20, check=False)
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 1 and json.loads(done.stdout)["code"] == 5


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def is_object(text: str) -> bool:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        return isinstance(json.loads(text, parse_constant=refuse), dict)
    except ValueError:
        return False


@needs_compiler
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=st.dictionaries(st.text(max_size=5), VALUES, max_size=4),
    ascii_only=st.booleans(),
    edits=st.lists(
        st.tuples(st.integers(0, 10**6), st.sampled_from(['"', "\\", ",", "{", "]", "0", "-", "e", "\n", "u", "."]))
    ),
)
def test_the_compiled_plugin_takes_for_json_what_json_is(
    compiled: Path, document: dict[str, Any], ascii_only: bool, edits: list[tuple[int, str]]
) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only)
    for at, what in edits:
        at %= len(text)
        text = text[:at] + what + text[at + 1 :]
    data = text.encode("utf-8", "surrogatepass")
    done = subprocess.run([compiled], input=data, capture_output=True, env={"CNI_COMMAND": "VERSION"}, check=False)
    assert (done.returncode == 0) == is_object(text), text


# Where a runtime looks for it ---------------------------------------------------------------------------------------


def test_the_configuration_declares_what_is_served() -> None:
    (only,) = json.loads(installation.configuration(Path("/run/x.sock")))["plugins"]
    assert only == {
        "type": "signalbox-cni",
        "socket": "/run/x.sock",
        "capabilities": {"portMappings": True, "bandwidth": True, "deviceID": True, "CNIDeviceInfoFile": True},
    }


def test_a_plugin_is_installed_whole_and_only_if_it_differs(tmp_path: Path) -> None:
    directory = tmp_path / "opt/cni/bin"
    installation.install_plugin(directory)
    (path,) = directory.iterdir()
    assert path.name == "signalbox-cni" and os.access(path, os.X_OK)
    before = path.stat()
    installation.install_plugin(directory)
    assert path.stat().st_ino == before.st_ino and path.stat().st_mtime_ns == before.st_mtime_ns
    path.write_bytes(b"of another version")
    with path.open("rb") as running:
        installation.install_plugin(directory)
        assert running.read() == b"of another version", "what runs is not written to"
    assert path.stat().st_size == before.st_size
    assert [each.name for each in directory.iterdir()] == ["signalbox-cni"]
