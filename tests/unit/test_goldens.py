"""The pipeline's flows, table by table, as text that people review: one file for each table in tests/golden.

`UPDATE_GOLDENS=1 tox` (or pytest) writes them anew; the diff is then the review.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest
from fabric import Fabric

from flows.pipeline import DIGEST, TABLES, Table
from flows.text import flow_text
from flows.update import CLUSTER
from flows.values import Flow

GOLDEN = Path(__file__).parents[1] / "golden"


def flows() -> list[Flow]:
    """Node n1 of two: one pod on each."""
    compiler = Fabric(2, [(1, "web"), (2, "client")]).compiler
    return [*compiler.flows(CLUSTER), *compiler.flows("n1")]


def golden(table: Table) -> str:
    mine = sorted((flow for flow in flows() if flow.table == table.number), key=lambda flow: -flow.priority)
    return "".join(f"{flow_text(flow, names=True)}\n" for flow in mine)


@pytest.mark.parametrize("table", [table for table in TABLES if table is not DIGEST], ids=lambda table: table.name)
def test_the_flows_of_a_table_are_those_that_were_reviewed(table: Table) -> None:
    path = GOLDEN / f"{table.name}.txt"
    text = golden(table)
    if os.environ.get("UPDATE_GOLDENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    known = path.read_text() if path.exists() else ""
    if text != known:
        diff = difflib.unified_diff(known.splitlines(), text.splitlines(), "reviewed", "compiled", lineterm="")
        pytest.fail("\n".join([*diff, "", "if that is meant: UPDATE_GOLDENS=1 pytest, and look at the diff"]))


def test_no_golden_is_of_a_table_that_is_gone() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {table.name for table in TABLES if table is not DIGEST}
