"""Dashboard and alert rules ask for metrics and labels that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from controller.metrics import DECLARED

HERE = Path(__file__).parents[2] / "deploy" / "monitoring"
ALERTS = HERE / "alerts.yaml"
_SELECTED = re.compile(r"\b(signalbox_\w+)(?:\{([^}]*)\})?")


def alerts() -> list[str]:
    return [rule["expr"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[str]:
    found = json.loads((HERE / "dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in found for target in panel["targets"]]


@pytest.mark.parametrize("expression", [*alerts(), *panels()])
def test_an_expression_asks_for_what_there_is(expression: str) -> None:
    labels = {each.name: {*each.labels, "le"} for each in DECLARED}
    selected = _SELECTED.findall(expression)
    assert selected
    for name, matchers in selected:
        known = labels[name.removesuffix("_bucket")]
        assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= known
        for by in re.findall(r"by \(([^)]*)\)", expression):
            assert {each.strip() for each in by.split(",")} <= known


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
def test_prometheus_takes_the_rules_and_the_dashboard_s_questions(tmp_path: Path) -> None:
    # With what Grafana puts in for its variable.
    asked = [each.replace("$__rate_interval", "5m") for each in panels()]
    rows = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(asked)]
    dashboard = tmp_path / "dashboard.yaml"
    dashboard.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rows}]}))
    for rules in (ALERTS, dashboard):
        done = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr
