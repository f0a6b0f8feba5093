"""What `signalbox trace`, `policy check` and `capture` are asked with, and what they say where a switch is away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from asked_controller import asked
from test_sync import connect, pod_port, switch_of

ON_N2 = "10.244.2.10"
AWAY = "node n2: its switch isn't connected: what it does now isn't known"


async def test_a_way_over_a_switch_that_is_away_has_a_caution(tmp_path: Path) -> None:
    async with asked(tmp_path) as here:
        connect(here.controller, switch_of(2, pod_port("web-2", 2))).cut()
        over = await here.run("trace", "web-1", ON_N2, "--tcp", "8080")
        data = await here.run("trace", "web-1", ON_N2, "--tcp", "8080", "-o", "json")
        local = await here.run("trace", "web-1", "192.0.2.1")
    assert over.exit_code == 0 and f"CAUTION: {AWAY}" in over.output.splitlines()
    assert json.loads(data.output)["cautions"] == [AWAY]
    assert local.exit_code == 0 and "CAUTION" not in local.output


async def test_what_asks_a_switch_that_is_away_says_that_it_may_be(tmp_path: Path) -> None:
    async with asked(tmp_path) as here:
        connect(here.controller, switch_of(2, pod_port("web-2", 2))).cut()
        live = await here.run("trace", "web-1", ON_N2, "--tcp", "8080", "--live")
        capture = await here.run("capture", "web-2", "-w", str(tmp_path / "a.pcapng"))
    assert live.exit_code == capture.exit_code == 1
    assert "the switch of node n2 isn't connected, or" in live.output
    assert "on node 'n2', whose switch isn't connected, or" in capture.output


async def test_ends_are_taken_in_kubectl_s_words(tmp_path: Path) -> None:
    ends = {
        "web-1": ("pod/web-1", "pods/web-1", "po/web-1", "pod/default/web-1"),
        "other/web-1": ("pod/other/web-1", "Pod/other/web-1"),
        "node/n1": ("no/n1", "nodes/n1"),
    }
    async with asked(tmp_path) as here:
        for plain, words in ends.items():
            for command in (("trace",), ("policy", "check")):
                wanted = await here.run(*command, plain, "192.0.2.1", "--tcp", "80")
                # The other namespace's pod has no address, and a policy check of a node has no more to say.
                assert "other/web-1" in wanted.output or wanted.exit_code == 0
                for word in words:
                    told = await here.run(*command, word, "192.0.2.1", "--tcp", "80")
                    assert (told.exit_code, told.output) == (wanted.exit_code, wanted.output)


async def test_a_service_s_only_port_is_taken_where_none_is_said_and_told(tmp_path: Path) -> None:
    async with asked(tmp_path) as here:
        wanted = await here.run("trace", "web-1", "svc/web", "--tcp", "80")
        for word in ("svc/web", "service/web", "services/default/web", "default/svc/web"):
            told = await here.run("trace", "pod/web-1", word)
            assert told.output == f"To 80/TCP, the only port of {word}.\n{wanted.output}"
        asked_for = json.loads((await here.run("trace", "web-1", "svc/web", "-o", "json")).output)["question"]
        pinged = await here.run("trace", "web-1", "svc/web", "--icmp")
    assert (asked_for["protocol"], asked_for["port"]) == ("TCP", 80)
    assert "only port" not in pinged.output and pinged.output.splitlines()[-1].startswith("Rejected")


@pytest.mark.parametrize("word", ["svc/web", "services/web", "service/default/web", "default/svc/web"])
async def test_policies_are_asked_of_pods_and_no_service(tmp_path: Path, word: str) -> None:
    async with asked(tmp_path) as here:
        told = await here.run("policy", "check", "web-1", word, "--tcp", "80")
    assert told.exit_code == 1 and "policies judge endpoints, not Services; ask of a pod of it" in told.output


async def test_packets_are_captured_of_pods_whatever_word_there_is_for_them(tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    async with asked(tmp_path) as here:
        for word in ("web-3", "pod/web-3", "po/default/web-3"):
            told = await here.run("capture", word, "-w", str(file))
            assert told.exit_code == 1 and "no pod 'default/web-3'" in told.output
        told = await here.run("capture", "svc/web", "-w", str(file))
    assert told.exit_code == 1 and "svc/web: a pod is asked for" in told.output
    assert not file.exists()


async def test_a_capture_of_drops_says_at_once_of_which_nodes_it_is_not(tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    async with asked(tmp_path) as here:
        partly = await here.run("capture", "--policy-drops", "all", "-w", str(file), "--duration", "1s")
        connect(here.controller, switch_of(2, pod_port("web-2", 2)))
        wholly = await here.run("capture", "--policy-drops", "all", "-w", str(file), "--duration", "1s")
    assert partly.exit_code == wholly.exit_code == 0
    why = "their switches aren't connected, or have another master than this controller"
    assert partly.stderr.splitlines()[0] == f"Note: not of nodes n2: {why}"
    assert "Note" not in wholly.stderr
