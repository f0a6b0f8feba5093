"""What an agent tells the controller: the text, both ways, and when the agent writes it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_kubernetes_source import until
from test_offload import REPORTS

from node import agent_report
from node.agent_report import Reporter
from node.ovsdb import Change, Database, DatabaseError, Rows
from topology import offload
from topology.agent_report import BEAT, BEATS, LIMIT, AgentReport, encode, parse
from topology.naming import BRIDGE
from topology.version import version

OFFLOAD = offload.Report(capable=True, enabled=True, nics=1, why="NIC 0000:03:00.0 (mlx5_core) is in legacy mode")


@given(
    st.builds(
        AgentReport,
        version=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40),
        beat=st.integers(0, BEATS - 1),
        every=st.integers(1, 9999),
        offload=st.none() | REPORTS,
    )
)
def test_a_report_fits_a_description_and_comes_back_from_it(report: AgentReport) -> None:
    text = encode(report)
    assert len(text.encode()) <= LIMIT
    found = parse(text)
    assert found is not None
    assert (found.version, found.beat, found.every) == (report.version, report.beat, report.every)
    if report.offload is None or found.offload is None:
        assert found.offload is report.offload is None
        return
    # Only the reason may be cut, and only where there was no room for it.
    whole, there = " ".join(report.offload.why.split()), found.offload.why
    assert whole.startswith(there) and (there == whole or len(text.encode()) > LIMIT - 4)
    assert found.offload == msgspec.structs.replace(report.offload, why=there)


def test_a_version_that_is_no_word_is_made_one() -> None:
    assert parse(encode(AgentReport(version="1.0 beat=7\nx", beat=1))) == AgentReport(version="1.0beat=7x", beat=1)
    assert parse(encode(AgentReport(version="\u00e9" * 300, beat=1))) == AgentReport(version="unknown", beat=1)


def test_an_agent_that_knew_of_offload_only_is_understood() -> None:
    assert parse(offload.encode(OFFLOAD)) == AgentReport(offload=OFFLOAD)


def test_what_a_later_version_adds_is_passed_over() -> None:
    text = f"agent v1 version=9.0 beat=3 every=60 ready=1 load= {offload.encode(OFFLOAD)}"
    assert parse(text) == AgentReport(version="9.0", beat=3, every=60, offload=OFFLOAD)
    assert parse("agent v1 version=9.0 beat=3 every=60 moods v1 fine=1") == AgentReport(version="9.0", beat=3, every=60)


@pytest.mark.parametrize(
    "text",
    [
        *("", "dpif-netdev", "agent v1", "agent v2 version=1 beat=1 every=30", "\0" * 9),
        *("agent v1 version=1 beat=x every=30", "agent v1 beat=1 every=30", "agent v1 version=1 beat=1234567 every=30"),
    ],
)
def test_other_descriptions_are_no_report(text: str) -> None:
    assert parse(text) is None


class Bridge:
    """A database with a bridge, and what was written into it."""

    def __init__(self, description: str = "") -> None:
        self.row = SimpleNamespace(name=BRIDGE, other_config={"dp-desc": description} if description else {})
        self.written: list[AgentReport | None] = []
        self.faults = 0

    @property
    def rows(self) -> Rows:
        return Rows(connected=True, bridge=True, description=self.row.other_config.get("dp-desc", ""))

    async def until(self, condition: Any, timeout: float) -> bool:
        return bool(condition(self.rows))

    async def transact(self, change: Change) -> None:
        if self.faults:
            self.faults -= 1
            raise DatabaseError("it doesn't answer")
        change(None, cast(Any, SimpleNamespace(tables={"Bridge": SimpleNamespace(rows={1: self.row})})))
        self.written.append(parse(self.rows.description))

    def reporter(self) -> Reporter:
        """What an agent that starts now reports with."""
        return Reporter(cast(Database, self))


def said(beat: int, offload: offload.Report | None = None) -> AgentReport:
    return AgentReport(version=version(), beat=beat, every=BEAT, offload=offload)


async def test_offload_is_written_where_it_is_news_and_a_beat_is_news_each_time() -> None:
    bridge = Bridge()
    reporter = bridge.reporter()
    await reporter.beat()
    await reporter.take(OFFLOAD)
    await reporter.take(OFFLOAD)
    await reporter.beat()
    assert bridge.written == [said(1), said(1, OFFLOAD), said(2, OFFLOAD)]


async def test_an_agent_that_starts_anew_goes_on_from_the_last_beat_and_has_lost_nothing() -> None:
    bridge = Bridge(encode(said(BEATS - 2, OFFLOAD)))
    await bridge.reporter().beat()
    await bridge.reporter().beat()
    assert bridge.written == [said(BEATS - 1, OFFLOAD), said(0, OFFLOAD)]
    before = Bridge(offload.encode(OFFLOAD))
    await before.reporter().beat()
    assert before.written == [said(1, OFFLOAD)]


async def test_what_could_not_be_written_is_written_with_the_next_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_report, "BEAT", 0.001)
    bridge = Bridge()
    bridge.faults = 2
    reporter = bridge.reporter()
    with pytest.raises(DatabaseError):
        await reporter.take(OFFLOAD)
    beating = asyncio.create_task(reporter.keep())
    await until(lambda: bool(bridge.written), "it is written")
    beating.cancel()
    assert bridge.written[0] == said(2, OFFLOAD)
