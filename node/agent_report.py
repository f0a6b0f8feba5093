"""The agent's report: that it is there, its version, and how the node's offload is.

    Offload ──report──> Reporter ──text──> the bridge's dp-desc, which the controller reads
                           ▲
                     a beat, now and then

The beat is counted by what runs CNI requests, too: where that stands still, so does the beat. Nothing else that the
agent does keeps it from beating, and the database has the last one, so that one after a restart is another.
"""

from __future__ import annotations

import asyncio
import logging

from node import ovsdb
from node.ovsdb import Database, DatabaseError
from topology.agent_report import BEAT, BEATS, AgentReport, encode, parse
from topology.offload import Report
from topology.version import version

log = logging.getLogger(__name__)


class Reporter:
    """Writes the report, whole each time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._beat: int | None = None
        self._offload: Report | None = None

    async def keep(self) -> None:
        """Beat, until cancelled."""
        while True:
            if not await self._database.until(lambda rows: rows.bridge, BEAT):
                continue
            try:
                await self.beat()
            except DatabaseError as error:
                log.warning("the controller isn't told that the agent is there: %s", error)
            await asyncio.sleep(BEAT)

    async def beat(self) -> None:
        """Say once more that the agent is there. Raises DatabaseError."""
        self._go_on()
        assert self._beat is not None
        self._beat = (self._beat + 1) % BEATS
        await self._write()

    async def take(self, offload: Report) -> None:
        """How the node's offload is; it is written where that is news. Raises DatabaseError."""
        self._go_on()
        if offload != self._offload:
            self._offload = offload
            await self._write()

    def _go_on(self) -> None:
        """Go on from what is in the database, at the start."""
        if self._beat is None:
            told = parse(self._database.rows.description) or AgentReport()
            self._beat, self._offload = told.beat or 0, told.offload

    async def _write(self) -> None:
        report = AgentReport(version=version(), beat=self._beat, offload=self._offload)
        await self._database.transact(ovsdb.describe(encode(report)))
