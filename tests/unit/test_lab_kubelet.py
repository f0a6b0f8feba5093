"""How a lab's pod is connected where the node's agent doesn't take it at first. With agents: test_lab_cli.py."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.lab import kubelet
from deploy.lab.kubelet import CniFailure, Running
from deploy.lab.layout import Layout
from node.cni.spec import Code

POD = Running(namespace="shop", name="web-0", node="node-1", container="c", host_network=False, argv=("true",))


class Plugin:
    """Answers ADD with these, one after another, and with the last for ever; and the time passes while it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: CniFailure | dict[str, Any]) -> None:
        self.calls: list[str] = []
        self.now = 0.0
        self.takes = 0.0
        self._answers = list(answers)
        monkeypatch.setattr(kubelet, "call_plugin", self._call)
        monkeypatch.setattr(kubelet.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(kubelet.time, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _call(self, layout: Layout, pod: Running, command: str) -> dict[str, Any]:
        self.calls.append(command)
        if command == "DEL":
            raise CniFailure(Code.TRY_LATER, "nor does it take anything away")
        self.now += self.takes
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, CniFailure):
            raise answer
        return answer


def connect() -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    return kubelet.connect(Layout("unit"), POD, said.append), said


def test_an_add_that_fails_is_made_again_until_it_doesn_t(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [CniFailure(code, f"no {code.name}") for code in (Code.TRY_LATER, Code.IO, Code.NO_ADDRESS)]
    plugin = Plugin(monkeypatch, *failures, {"ips": []})
    assert connect() == ({"ips": []}, ["pod shop/web-0: no TRY_LATER; it is tried again"])
    assert plugin.calls == ["ADD", "DEL", "ADD", "DEL", "ADD", "DEL", "ADD"]


@pytest.mark.parametrize("takes", [0.0, 10.0, 90.0])
def test_after_a_while_the_last_failure_is_what_is_wrong(monkeypatch: pytest.MonkeyPatch, takes: float) -> None:
    plugin = Plugin(monkeypatch, CniFailure(Code.TRY_LATER, "not yet"), CniFailure(Code.IO, "no flows"))
    plugin.takes = takes
    with pytest.raises(CniFailure, match=r"^no flows \(tried \d+ times in \d+ s\)$|^not yet$") as failure:
        connect()
    assert failure.value.code in (Code.IO, Code.TRY_LATER)
    assert 20 <= plugin.now <= 35 or plugin.calls == ["ADD"]
    assert plugin.calls.count("ADD") < 20


def test_an_add_that_can_t_ever_be_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Plugin(monkeypatch, CniFailure(Code.INVALID_CONFIG, "deviceID: expected a string"))
    with pytest.raises(CniFailure, match=r"^deviceID: expected a string$"):
        connect()
    assert plugin.calls == ["ADD"]
