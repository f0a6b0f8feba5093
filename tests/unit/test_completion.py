"""What Tab offers: kinds, and names of what the controller has; nothing where there is none."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from asked_controller import asked
from click.shell_completion import ShellComplete

from deploy.command import main


def offered(*words: str) -> list[str]:
    """What may stand for the last word."""
    completions = ShellComplete(main, {}, "signalbox", "_SIGNALBOX_COMPLETE").get_completions(
        list(words[:-1]), words[-1]
    )
    return [each.value for each in completions]


@pytest.mark.parametrize("command", ["get", "describe"])
def test_kinds_are_offered_and_their_other_words_where_only_these_fit(command: str) -> None:
    assert offered(command, "p") == ["pods", "policies"]
    assert offered(command, "sv") == ["svc"]
    assert {"nodes", "services", "endpoints", "identities"} <= set(offered(command, ""))


async def test_names_are_those_of_the_controller_that_is_meant(tmp_path: Path) -> None:
    socket = str(tmp_path / "api.sock")

    async def names(command: str, *words: str) -> list[str]:
        return await asyncio.to_thread(offered, command, "--socket", socket, *words)

    async with asked(tmp_path):
        assert await names("get", "pods", "") == ["web-1", "web-2"]
        assert await names("get", "-n", "other", "po", "web") == ["web-1"]
        assert await names("describe", "svc/w") == ["svc/web"]
        assert await names("describe", "policy", "") == ["clients"]
        for command in ("flows", "drain", "undrain", "resync"):
            assert await names(command, "n") == ["n1", "n2"]
        assert await names("get", "widgets", "") == await names("get", "pods", "x") == []


def test_without_a_controller_nothing_is_offered(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert offered("get", "--socket", str(tmp_path / "none.sock"), "pods", "") == []
    assert offered("flows", "--server", "http://nowhere", "n") == []
    assert capfd.readouterr() == ("", "")
