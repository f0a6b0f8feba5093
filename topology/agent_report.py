"""What a node's agent tells the controller, as the text that its bridge is described by. Pure.

The controller speaks OpenFlow alone, so the agent writes its report where OpenFlow tells it: `other_config:dp-desc` of
the bridge, which is the datapath's description (OFPMP_DESC). `node` writes and `controller` reads; both import this.

    agent v1 version=0.1.0 beat=17 every=30 offload v1 asked=1 capable=1 <more of topology.offload>

The beat is another number every so many seconds, so that silence is seen: switches go on without their agents. It is no
time, since nodes' clocks differ. Later versions may put more `name=value` behind `every`.
"""

from __future__ import annotations

import re

import msgspec

from topology import offload

#: Bytes of a datapath's description (OpenFlow 1.5.1, 7.3.5.1: 256 with the zero at the end).
LIMIT = 255
#: Seconds between two beats. Each has ovs-vswitchd look through all ports of the bridge: docs/node.md has figures.
BEAT = 30
#: After this many the count begins anew.
BEATS = 1_000_000
_VERSION_LIMIT = 40
_UNPRINTABLE = re.compile(r"[^!-~]")
_REPORT = re.compile(
    r"agent v1 version=([!-~]{1,40}) beat=([0-9]{1,6}) every=([0-9]{1,4})(?: [a-z]+=[!-~]*)*(?: (.*))?", re.DOTALL
)


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's version, its beat and the seconds between two, and how its node's offload is, where it says so.

    An agent of a version that knew of offload only has said neither version nor beat: `beat` is None.
    """

    version: str = ""
    beat: int | None = None
    every: int = BEAT
    offload: offload.Report | None = None


def encode(report: AgentReport) -> str:
    """A report as text of at most `LIMIT` bytes: what comes last, offload's reason, is cut."""
    version = _UNPRINTABLE.sub("", report.version)[:_VERSION_LIMIT] or "unknown"
    text = f"agent v1 version={version} beat={(report.beat or 0) % BEATS} every={report.every}"
    if report.offload is not None:
        text += f" {offload.encode(report.offload)}"
    return text.encode()[:LIMIT].decode(errors="ignore")


def parse(text: str) -> AgentReport | None:
    """The report that a description is; None where it is none, or of a form that this version doesn't know."""
    match = _REPORT.fullmatch(text)
    if match is not None:
        version, beat, every, rest = match.groups()
        return AgentReport(version=version, beat=int(beat), every=int(every), offload=offload.parse(rest or ""))
    report = offload.parse(text)
    return None if report is None else AgentReport(offload=report)
