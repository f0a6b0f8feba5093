"""What a node's agent tells of hardware offload, as text: a part of its report (`topology.agent_report`). Pure.

offload v1 asked=1 capable=1 enabled=1 nics=2 vfs=8/16 flows=120/3/4 bytes=93 why=<words>
"""

from __future__ import annotations

import re

import msgspec

_BEGIN = "offload v1"
_REPORT = re.compile(
    r"offload v1 asked=([01]) capable=([01]) enabled=([01]) nics=(\d{1,9}) vfs=(\d{1,9})/(\d{1,9}) "
    r"flows=(\d{1,9})/(\d{1,9})/(\d{1,9}) bytes=(\d{1,3})(?: why=(.*))?",
    re.DOTALL,
)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A node's offload: asked for, possible, in force; NICs that take flows, virtual functions in use and in all.

    Datapath flows are counted where it is in force: in the NIC, in part, not. `share` is the percentage of bytes that
    went by offloaded flows. `why` is the first reason for which less is offloaded than could be, empty where there is
    none.
    """

    asked: bool = False
    capable: bool = False
    enabled: bool = False
    nics: int = 0
    used_functions: int = 0
    functions: int = 0
    offloaded: int = 0
    partial: int = 0
    not_offloaded: int = 0
    share: int = 0
    why: str = ""

    @property
    def is_in_force(self) -> bool:
        """Whether a NIC may be given flows."""
        return self.capable and self.enabled


def encode(report: Report) -> str:
    """A report as text. The reason comes last: where there is no room for all, it is what is cut."""
    text = (
        f"{_BEGIN} asked={report.asked:d} capable={report.capable:d} enabled={report.enabled:d} nics={report.nics} "
        f"vfs={report.used_functions}/{report.functions} "
        f"flows={report.offloaded}/{report.partial}/{report.not_offloaded} bytes={report.share}"
    )
    if report.why:
        text += " why=" + " ".join(report.why.split())
    return text


def parse(text: str) -> Report | None:
    """The report that a text is; None where it is none, or of a form that this version doesn't know."""
    match = _REPORT.fullmatch(text)
    if match is None:
        return None
    asked, capable, enabled, *numbers, share, why = match.groups()
    nics, used, functions, offloaded, partial, rest = map(int, numbers)
    return Report(
        asked=asked == "1",
        capable=capable == "1",
        enabled=enabled == "1",
        nics=nics,
        used_functions=used,
        functions=functions,
        offloaded=offloaded,
        partial=partial,
        not_offloaded=rest,
        share=min(int(share), 100),
        why=why or "",
    )
