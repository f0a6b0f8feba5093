"""What is in a support bundle, and what never is."""

from __future__ import annotations

import errno
import io
import json
import tarfile
import time
from datetime import datetime
from pathlib import Path

import pytest
from asked_controller import asked

from controller.cli import client
from controller.cli.client import Remote
from controller.cli.support_bundle import Bundle, Item, without_secrets

HERE = Path("/s")


def files(path: Path) -> dict[str, str]:
    """The files of an archive, without the folder that all are in."""
    with tarfile.open(path) as archive:
        found = {each.name: archive.extractfile(each) for each in archive.getmembers()}
        return {name.partition("/")[2]: file.read().decode() for name, file in found.items() if file is not None}


async def test_a_bundle_has_all_there_is_to_ask_and_says_what_it_lacks(tmp_path: Path) -> None:
    target, log = tmp_path / "bundle.tar.gz", tmp_path / "controller.log"
    log.write_text("began\npassword=hunter2\n")
    async with asked(tmp_path) as here:
        here.controller.settings = {"mode": "overlay", "tls-key": "/etc/signalbox/tls.key"}
        result = await here.run("support-bundle", "-o", str(target))
        again = await here.run("support-bundle", "-o", str(target))
    assert result.exit_code == 0, result.output
    assert again.exit_code == 1 and "there is such a file already" in again.output
    assert target.stat().st_mode & 0o777 == 0o600
    found = files(target)
    whole = {name: json.loads(text) for name, text in found.items() if name.endswith(".json")}
    assert {row["name"] for row in whole["nodes.json"]["items"]} == {"n1", "n2"}
    assert whole["status.json"]["problems"] and whole["policies.json"]["items"] and whole["topology.json"]["links"]
    assert whole["settings.json"]["settings"] == here.controller.settings
    assert whole["nodes/n1/flows.json"]["items"] and whole["nodes/n1/differences.json"]["items"] == []
    assert "nodes/n1/groups.json" in found and "signalbox_switch_connected" in found["metrics.txt"]
    assert found["logs/controller.log"] == "began\npassword=<taken out>\n"
    lacking = "nodes/n2/flows.json: /v1/nodes/n2/flows: the switch of node 'n2' isn't connected"
    assert lacking in found["LEFT-OUT.txt"].splitlines() and f"not in it: {lacking}" in result.output


async def test_flows_are_of_the_nodes_that_are_named_or_of_those_that_are_not_well(tmp_path: Path) -> None:
    async with asked(tmp_path) as here:
        named = await here.run("support-bundle", "-o", str(tmp_path / "a.tar.gz"), "--node", "n1")
        worst = await here.run("support-bundle", "-o", str(tmp_path / "b.tar.gz"), "--max-nodes", "1")
    assert {name.split("/")[1] for name in files(tmp_path / "a.tar.gz") if name.startswith("nodes/")} == {"n1"}
    assert "not in it: nodes/n2" not in named.output and "not in it: nodes/n2" in worst.output
    assert "not in it: flows of 1 nodes" in worst.output


async def test_without_a_controller_there_is_no_bundle(tmp_path: Path) -> None:
    async with asked(tmp_path) as here:
        pass
    result = await here.run("support-bundle", "-o", str(tmp_path / "none.tar.gz"))
    assert result.exit_code == 1 and not (tmp_path / "none.tar.gz").exists()


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=["interrupted", "disk full"]
)
async def test_half_a_bundle_is_not_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException) -> None:
    def fail(bundle: Bundle, began: datetime) -> None:
        raise error

    monkeypatch.setattr(Bundle, "finish", fail)
    async with asked(tmp_path) as here:
        result = await here.run("support-bundle", "-o", str(tmp_path / "half.tar.gz"))
    assert result.exit_code == 1 and result.output.strip().splitlines()[-1] in (
        "Aborted!",
        f"Error: {tmp_path}/half.tar.gz: No space left on device",
    )
    assert not (tmp_path / "half.tar.gz").exists()


@pytest.mark.parametrize(
    ("until", "size", "said"),
    [(-1.0, 100, "the time is over (--timeout)"), (60.0, 5, "it is large enough (--max-size)")],
)
def test_a_bundle_is_bounded_in_time_and_size(
    monkeypatch: pytest.MonkeyPatch, until: float, size: int, said: str
) -> None:
    monkeypatch.setattr(client, "fetch", lambda where, path, query, timeout, limit: b"01234")
    with tarfile.open(fileobj=io.BytesIO(), mode="w") as archive:
        bundle = Bundle(archive, "title", HERE, time.monotonic() + until, size)
        for number in range(2):
            bundle.try_item(Item(f"{number}.txt", "/x"))
    assert bundle.left_out[-1] == f"1.txt: {said}"
    assert bundle.files == (1 if size == 5 else 0)


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE KEY-----\nSECRET\nSECRET\n-----END RSA PRIVATE KEY-----",
        "x -----BEGIN PRIVATE KEY-----\nSECRET and cut off here",
        "GET /v1/nodes Authorization: Bearer SECRET",
        "password=SECRET",
        "--api-token SECRET --x" .replace(" SECRET", "=SECRET"),
        "dbPassword: 'SECRET'",
        '{"password": "SECRET", "n": 1}',
        '{"clientSecret":"SECRET"}',
        '{"tokens": ["SECRET"]}',
        '["label", "token=SECRET"]',
        "https://user:SECRET@example.org/x",
        "a eyJSECRET.eyJSECRET.SECRET b",
        "our own S-E-C is nowhere",
    ],
)  # fmt: skip
def test_secrets_are_taken_out(text: str) -> None:
    clean = without_secrets(text.encode(), Remote("https://x:1", "S-E-C")).decode()
    assert "SECRET" not in clean and "S-E-C" not in clean and "<taken out>" in clean
    if text.startswith(("{", "[")):
        json.loads(clean)


@pytest.mark.parametrize(
    "text",
    [
        '{"tls-key": "/etc/x.key", "api-tokens": "/etc/tokens", "token": 3, "tokens": null, "password": {}}',
        "the tunnel's key says who sends, no valid token",
        'signalbox_refused_connections{why="token"} 3',
        "table=Classify,priority=200 actions=set_field:0x1->tun_id",
        "--api-tokens /etc/tokens: line 3: expected TOKEN,NAME,ROLE",
        "http://[fd00::1]:8080/x @",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text.encode(), HERE).decode() == text
