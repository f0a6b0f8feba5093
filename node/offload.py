"""Hardware offload on this node: Open vSwitch is told to use what NICs can do, and a report says what comes of it.

    sysfs, devlink ──> which NICs take flows ──> other_config of Open vSwitch, hw-tc-offload of their interfaces
                                │
    ovs-vswitchd: dump-flows ───┴──> report ──> Reporter (`node.agent_report`), which tells the controller

ovs-vswitchd takes `hw-offload=true` from the database at once, and never gives it up, nor takes another tc-policy after
that (lib/netdev-offload.c reads both once): these changes, and only these, need a restart, which is announced, and done
by the command of `--restart-ovs` where there is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from node import devlink, netlink, nics, ovsdb, unixctl
from node.agent_report import Reporter
from node.netlink import LinkError
from node.nics import LEGACY, Survey
from node.ovsdb import Database, DatabaseError, Rows
from node.settings import Settings
from node.unixctl import ControlError
from topology.offload import Report

if TYPE_CHECKING:
    from node.nics import Nic

log = logging.getLogger(__name__)

#: Seconds between two looks, and so between two reports.
INTERVAL = 10.0
_RESTART_LIMIT = 120.0
_BYTES = re.compile(r"bytes:(\d+)")
#: Open vSwitch's own, where nothing is said.
_NO_POLICY = "none"


class Read(msgspec.Struct, frozen=True):
    """What a running ovs-vswitchd has read for good: which start of it, and with which tc-policy."""

    identity: str = ""
    policy: str = _NO_POLICY


class Counts(msgspec.Struct, frozen=True):
    """Datapath flows, and the bytes that went by them."""

    offloaded: int = 0
    partial: int = 0
    rest: int = 0
    share: int = 0


def options(settings: Settings, survey: Survey, now: Mapping[str, str]) -> dict[str, str]:
    """What other_config of Open vSwitch is to say. What nobody asked for stays as somebody else has it."""
    wanted = {}
    # In userspace only DPDK's ports are offloaded: for others it would cost something, and be of no use.
    is_of_use = any(nic.offloads for nic in survey.nics) and (settings.datapath_type != "netdev" or settings.dpdk)
    if settings.hw_offload == "on" or (settings.hw_offload == "auto" and is_of_use):
        wanted["hw-offload"] = "true"
    elif settings.hw_offload == "off" and now.get("hw-offload") == "true":
        wanted["hw-offload"] = "false"
    if settings.tc_policy:
        wanted["tc-policy"] = settings.tc_policy
    if settings.dpdk:
        wanted["dpdk-init"] = "true"
    return {key: value for key, value in wanted.items() if now.get(key) != value}


def reading(identity: str, now: Mapping[str, str], before: Read) -> Read:
    """What the ovs-vswitchd that runs now has read, by the settings that there are and what was known before."""
    if before.identity == identity:
        return before
    return Read(identity, now.get("tc-policy", _NO_POLICY)) if now.get("hw-offload") == "true" else Read()


def restart_reason(now: Mapping[str, str], read: Read) -> str:
    """Why ovs-vswitchd isn't as its settings are until it is started anew; empty where it is."""
    if not read.identity:
        return ""
    if now.get("hw-offload") != "true":
        return "hw-offload is off, and ovs-vswitchd goes on with it until it is restarted"
    policy = now.get("tc-policy", _NO_POLICY)
    if policy != read.policy:
        return f"tc-policy is {policy}, and ovs-vswitchd goes on with {read.policy} until it is restarted"
    return ""


def why(settings: Settings, survey: Survey, rows: Rows, read: Read, tunnels: str) -> str:
    """The first reason for which this node offloads less than it could, in words; empty where there is none."""
    able = [nic for nic in survey.nics if nic.offloads]
    legacy = [nic for nic in survey.nics if nic.mode == LEGACY]
    restart = restart_reason(rows.options, read)
    if settings.hw_offload == "off":
        return restart or "it is off (--hw-offload off)"
    if not able:
        return (survey.problems or (_not_able(survey.nics, legacy),))[0]
    if settings.datapath_type == "netdev" and not rows.dpdk_initialized:
        return "the datapath is in userspace and DPDK isn't initialized: only its ports are offloaded there"
    if rows.options.get("hw-offload") != "true":
        return "Open vSwitch isn't told to: other_config:hw-offload isn't true"
    if restart:
        return restart
    if survey.problems:
        return survey.problems[0]
    if tunnels:
        return tunnels
    if legacy:
        return _in_legacy_mode(legacy)
    return ""


def _not_able(found: Iterable[Nic], legacy: list[Nic]) -> str:
    if legacy:
        return _in_legacy_mode(legacy)
    for nic in found:
        return f"NIC {nic.pci} ({nic.driver}) has no interface: is it being reset?"
    return "no NIC of this node has a switch that takes flows"


def _in_legacy_mode(legacy: list[Nic]) -> str:
    first = legacy[0]
    return (
        f"NIC {first.pci} ({first.driver}) is in legacy mode: 'devlink dev eswitch set pci/{first.pci} mode switchdev'"
    )


def _let_interfaces(survey: Survey) -> None:
    """Uplinks and representors take flows only where their feature hw-tc-offload is on."""
    for nic in survey.nics:
        for name in (nic.uplink, *nic.representors.values()) if nic.offloads else ():
            problem = netlink.allow_tc_offload(name)
            if problem:
                log.debug("%s: hw-tc-offload: %s", name, problem)


def _lost(rows: Rows) -> str:
    """Which pod has lost its function's interfaces, if one has: those of a NIC that is reset are made anew."""
    for name, row in sorted(rows.interfaces.items()):
        ids = row.external_ids
        if ids.get(ovsdb.REPRESENTOR) and not netlink.index_of(name):
            pod = f"{ids[ovsdb.POD_NAMESPACE]}/{ids[ovsdb.POD_NAME]}"
            return f"pod {pod} has lost its interface, of {ids[ovsdb.DEVICE]}: was the NIC reset? Delete the pod"
    return ""


def count(offloaded: str, partial: str, rest: str) -> Counts:
    """Flows and bytes in three answers of dpctl/dump-flows."""
    numbers = [[int(match[1]) for match in _BYTES.finditer(text)] for text in (offloaded, partial, rest)]
    whole, carried = sum(map(sum, numbers)), sum(numbers[0])
    flows = [len(each) for each in numbers]
    return Counts(flows[0], flows[1], flows[2], 100 * carried // whole if whole else 0)


class Offload:
    """The node's offload, looked at again and again."""

    def __init__(self, settings: Settings, database: Database, reporter: Reporter) -> None:
        self._settings = settings
        self._database = database
        self._reporter = reporter
        self._told = ""
        self._restarted = ("", "")

    async def keep(self) -> None:
        """Look, set and report, until cancelled. Nothing here keeps the node from working."""
        while True:
            if self._database.rows.bridge:
                try:
                    await self.look()
                except (ControlError, DatabaseError, LinkError, OSError) as error:
                    self._say(f"hardware offload can't be looked after: {error}")
                except Exception:
                    # A NIC that nobody has seen yet, say: pods are served all the same.
                    log.exception("hardware offload can't be looked after")
                await asyncio.sleep(INTERVAL)
            else:
                await self._database.until(lambda rows: rows.bridge, INTERVAL)

    async def look(self) -> None:
        """Once: set what is to be set, and report. Raises ControlError, DatabaseError, LinkError and OSError."""
        settings, database = self._settings, self._database
        survey = await asyncio.to_thread(self._survey)
        control = unixctl.socket_of(settings)
        identity = unixctl.identity(control)
        before = database.rows.offload_read
        read = reading(identity, database.rows.options, Read(*before.split(" "))) if identity else Read()
        changes = options(settings, survey, database.rows.options)
        if changes:
            await database.transact(ovsdb.set_options(changes))
            log.info("Open vSwitch is told: %s", ", ".join(f"{key}={value}" for key, value in sorted(changes.items())))
            read = reading(identity, database.rows.options, read)
        if read.identity and f"{read.identity} {read.policy}" != before:
            await database.transact(ovsdb.remember_offload(f"{read.identity} {read.policy}"))
        if database.rows.options.get("hw-offload") == "true":
            await asyncio.to_thread(_let_interfaces, survey)
        reason = restart_reason(database.rows.options, read)
        if reason and (identity, reason) != self._restarted:
            self._restarted = (identity, reason)
            if await self._restart(reason):
                return
        await self._report(survey, read, control if identity else None)

    def _survey(self) -> Survey:
        return nics.survey(self._settings.sysfs, devlink.read())

    async def _report(self, survey: Survey, read: Read, control: object) -> None:
        settings, rows = self._settings, self._database.rows
        enabled = (
            rows.options.get("hw-offload") == "true"
            and not restart_reason(rows.options, read)
            and (settings.datapath_type != "netdev" or rows.dpdk_initialized)
        )
        uplink = await asyncio.to_thread(netlink.interface_of, settings.node_ips[0])
        able = [nic for nic in survey.nics if nic.offloads]
        tunnels = nics.unplaced_reason(settings.sysfs, survey.nics, uplink)
        reason = why(settings, survey, rows, read, tunnels)
        reason = await asyncio.to_thread(_lost, rows) or reason
        counts = Counts()
        if enabled and control is not None:
            counts = await self._count()
        report = Report(
            asked=settings.hw_offload == "on",
            capable=bool(able),
            enabled=enabled,
            nics=len(able),
            used_functions=sum(1 for row in rows.interfaces.values() if ovsdb.DEVICE in row.external_ids),
            functions=sum(nic.vfs for nic in able),
            offloaded=counts.offloaded,
            partial=counts.partial,
            not_offloaded=counts.rest,
            share=counts.share,
            why=reason,
        )
        await self._reporter.take(report)
        if report.asked and not report.is_in_force:
            self._say(f"hardware offload was asked for and is not in force: {reason}")
        elif self._told:
            self._told = ""
            log.info("hardware offload: %s", reason or "in force")

    async def _count(self) -> Counts:
        kind = self._settings.datapath_type
        datapath = f"{kind}@ovs-{kind}"
        control = unixctl.socket_of(self._settings)
        answers = [
            await unixctl.ask(control, "dpctl/dump-flows", datapath, f"type={each}")
            for each in ("offloaded", "partially-offloaded", "non-offloaded")
        ]
        return await asyncio.to_thread(count, *answers)

    async def _restart(self, reason: str) -> bool:
        """Announce a restart that is needed, and have it done where a command was given for it; whether it was."""
        command = self._settings.restart_ovs
        if not command:
            log.warning("%s: restart it, or give --restart-ovs", reason)
            return False
        log.warning("%s: restarting it: %s", reason, command)
        process = await asyncio.create_subprocess_exec(
            *shlex.split(command), stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(_RESTART_LIMIT):
                _, errors = await process.communicate()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            log.warning("--restart-ovs doesn't end within %g s", _RESTART_LIMIT)
            return False
        if process.returncode:
            log.warning("--restart-ovs ends with %d: %s", process.returncode, errors.decode(errors="replace").strip())
        return process.returncode == 0

    def _say(self, text: str) -> None:
        if text != self._told:
            log.warning("%s", text)
        self._told = text
