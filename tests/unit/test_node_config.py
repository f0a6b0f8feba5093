"""What a node's pod finds out before the agent starts, from an API server that is one in memory."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import config
from deploy.kubernetes.node_config import Api, ApiError, NotYetError, certificate, find_out, write

LABEL = "node-role.kubernetes.io/control-plane"
CONFIG = """
apiVersion: signalbox.io/v1alpha1
kind: Configuration
controller: {listen: ["ssl:0.0.0.0:7000"]}
"""


def node(cidrs: list[str], *addresses: str) -> Any:
    told = [{"type": "Hostname", "address": "n"}, *({"type": "InternalIP", "address": each} for each in addresses)]
    return {"spec": {"podCIDRs": cidrs} if cidrs else {}, "status": {"addresses": told}}


class Server:
    """Answers GETs out of `objects`, by path; remembers the tokens that it was shown."""

    def __init__(self, account: Path) -> None:
        self.objects: dict[str, Any] = {}
        self.tokens: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.tokens.append(self.headers["Authorization"])
                found = server.objects.get(self.path)
                body = json.dumps(found).encode()
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.api = Api("127.0.0.1", self._server.server_port, account)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "token").write_text("first\n")
    found = Server(tmp_path)
    found.objects["/api/v1/nodes/n1"] = node(["10.244.1.0/24", "fd00:1::/64"], "192.0.2.11", "2001:db8::11")
    found.objects["/api/v1/nodes?labelSelector=node-role.kubernetes.io%2Fcontrol-plane"] = {
        "items": [node([], "192.0.2.2", "2001:db8::2"), node([], "192.0.2.1")]
    }
    yield found
    found.stop()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def secret(server: Server, **data: bytes) -> None:
    server.objects["/api/v1/namespaces/signalbox-nodes/secrets/signalbox-node-n1"] = {
        "data": {name.replace("_", "."): base64.b64encode(value).decode() for name, value in data.items()}
    }


def test_a_node_learns_its_cidrs_addresses_and_controllers(server: Server, file: Path) -> None:
    assert find_out(server.api, "n1", LABEL, [file]) == {
        "name": "n1",
        "podCidr": ["10.244.1.0/24", "fd00:1::/64"],
        "nodeIp": ["192.0.2.11", "2001:db8::11"],
        "controller": ["ssl:192.0.2.1:7000", "ssl:192.0.2.2:7000"],
    }
    server.objects["/api/v1/nodes/n1"] = node(["fd00:1::/64"], "2001:db8::11")
    assert find_out(server.api, "n1", LABEL, [])["controller"] == ["ssl:[2001:db8::2]:6653"]


def test_controllers_that_the_configuration_names_aren_t_looked_for(server: Server, file: Path) -> None:
    file.write_text(CONFIG + 'node: {controller: ["tcp:192.0.2.9:6653"]}\n')
    del server.objects["/api/v1/nodes?labelSelector=node-role.kubernetes.io%2Fcontrol-plane"]
    assert "controller" not in find_out(server.api, "n1", LABEL, [file])


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (node([], "192.0.2.11"), "node n1 has no pod CIDR: the controller manager gives it with --allocate-node-cidrs"),
        (node(["10.244.1.0/24"]), "node n1 has no address of type InternalIP"),
        (node(["10.244.1.0/24"], "192.0.2.11"), f"no node with label {LABEL} has an IPv4 address"),
    ],
)
def test_what_isn_t_there_yet_is_named_with_who_makes_it(server: Server, found: Any, said: str) -> None:
    server.objects["/api/v1/nodes/n1"] = found
    server.objects["/api/v1/nodes?labelSelector=node-role.kubernetes.io%2Fcontrol-plane"] = {"items": []}
    with pytest.raises(NotYetError) as problem:
        find_out(server.api, "n1", LABEL, [])
    assert said in str(problem.value)


def test_a_certificate_that_isn_t_whole_is_waited_for(server: Server) -> None:
    for given, missing in (({}, "tls.crt, tls.key, ca.crt"), ({"tls_crt": b"c", "ca_crt": b"a"}, "tls.key")):
        secret(server, **given)
        with pytest.raises(NotYetError, match=f"Secret signalbox-nodes/signalbox-node-n1 has no {missing}: make it"):
            certificate(server.api, "n1")
    secret(server, tls_crt=b"c", tls_key=b"k", ca_crt=b"a")
    assert certificate(server.api, "n1") == {"tls.crt": b"c", "tls.key": b"k", "ca.crt": b"a"}


def test_the_token_is_read_for_each_question(server: Server, tmp_path: Path) -> None:
    server.api.get("/api/v1/nodes/n1")
    (tmp_path / "token").write_text("second")
    server.api.get("/api/v1/nodes/n1")
    assert server.tokens == ["Bearer first", "Bearer second"]


def test_files_are_written_for_the_agent_and_private(server: Server, file: Path, tmp_path: Path) -> None:
    there = tmp_path / "signalbox"
    file.write_text(CONFIG + f"node: {{tlsCert: {there}/tls/tls.crt}}\n")
    secret(server, tls_crt=b"c", tls_key=b"k", ca_crt=b"a")
    write(lambda: server.api, "n1", there, [file], label=LABEL, patience=0)
    assert config.check(there / "node.yaml") == []
    assert yaml.safe_load((there / "node.yaml").read_text())["node"]["nodeIp"] == ["192.0.2.11", "2001:db8::11"]
    assert (there / "tls/tls.key").read_bytes() == b"k" and (there / "tls/tls.key").stat().st_mode & 0o777 == 0o600
    assert (there / "tls").stat().st_mode & 0o777 == 0o700
    # What is as it was is not written again: who watches it sees nothing.
    before = (there / "tls/tls.key").stat().st_ino, (there / "node.yaml").stat().st_ino
    write(lambda: server.api, "n1", there, [file], label=LABEL, patience=0)
    assert ((there / "tls/tls.key").stat().st_ino, (there / "node.yaml").stat().st_ino) == before
    assert {path.name for path in there.rglob("*")} == {"node.yaml", "tls", "tls.crt", "tls.key", "ca.crt"}


def test_without_an_api_server_what_an_earlier_start_found_is_kept(
    server: Server, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = tmp_path / "signalbox"
    write(lambda: server.api, "n1", there, [file], label=LABEL, patience=0)
    before = (there / "node.yaml").read_text()
    server.stop()
    write(lambda: server.api, "n1", there, [file], label=LABEL, patience=0.05, pause=0.01)
    assert (there / "node.yaml").read_text() == before
    assert "can't be asked" in caplog.text and "going on with what was found out at an earlier start" in caplog.text


def test_a_first_start_waits_and_says_once_for_what(
    server: Server, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def api() -> Api:
        asked.append(1)
        if len(asked) == 3:
            server.objects["/api/v1/nodes/n1"] = node(["10.244.1.0/24"], "192.0.2.11")
        return server.api

    server.objects["/api/v1/nodes/n1"] = node([], "192.0.2.11")
    with caplog.at_level(logging.WARNING):
        write(api, "n1", tmp_path / "signalbox", [file], label=LABEL, patience=0, pause=0.01)
    assert len(asked) == 3 and caplog.text.count("waiting: node n1 has no pod CIDR") == 1
    assert (tmp_path / "signalbox/node.yaml").exists()


def test_outside_of_a_pod_that_is_said() -> None:
    with pytest.raises(ApiError, match="this is no pod with a service account"):
        Api.of_pod({})
