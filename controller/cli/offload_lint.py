"""signalbox offload lint: which flows of a datapath TC takes, and what prevents the others.

It reads text, or asks an ovs-vswitchd on this machine by ovs-appctl: never the controller, which knows no datapath.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from controller.cli import client
from controller.cli.printing import Column, print_rows
from controller.cli.questions import output_option

if TYPE_CHECKING:
    from flows.offload.lint import Verdict
    from flows.offload.rules import Reason

_COLUMNS = [
    Column("OFFLOADABLE", "offloadable"),
    Column("PACKETS", "packets"),
    Column("PORT", "port"),
    Column("CHAIN", "chain"),
    Column("FOR", "occasion"),
    Column("REASONS", "words"),
    Column("MATCH", "match", wide=True),
    Column("ACTIONS", "actions", wide=True),
]
#: Seconds that ovs-vswitchd may take to answer.
_PATIENCE = 30.0
#: Flows whose reasons are traced: each takes ovs-vswitchd some milliseconds.
_TRACED = 50

Appctl = Callable[..., str]


@click.command()
@click.argument("file", type=click.File(errors="replace"), required=False)
@click.option("--lab", metavar="NAME", envvar="SIGNALBOX_LAB", help="Ask a node of this lab, which --node names.")
@click.option("--node", metavar="NODE", help="The lab's node.")
@click.option("--target", metavar="SOCKET", help="Ask the ovs-vswitchd with this control socket: see ovs-appctl(8).")
@click.option("--bridge", default="br-int", show_default=True, help="Only flows of packets that enter by its ports.")
@click.option("--all", "wants_all", is_flag=True, help="Give the reasons also of flows that may be refused.")
@output_option("text", "table", "wide", "json", "yaml")
def lint(
    file: Any | None,
    lab: str | None,
    node: str | None,
    target: str | None,
    bridge: str,
    wants_all: bool,
    output: str,
) -> None:
    """Say of a datapath's flows which ones TC takes, and so a NIC may, and what prevents the others.

    FILE has what `ovs-appctl dpctl/dump-flows -m` or `ovs-appctl ofproto/trace` prints; - is the input. Without it this
    machine's ovs-vswitchd is asked, or that of a lab's node, and each reason is followed to the OpenFlow flow that
    brought it in. The exit code is 1 if TC doesn't take a flow that an established connection may have: first packets,
    ARP, neighbour discovery, DHCP and LLDP may be refused.
    """
    from flows.offload.datapath import DatapathTextError

    try:
        if file is not None:
            if node or target:
                raise click.UsageError("say FILE, or whom to ask")
            rows = _of_text(file.read())
        else:
            rows = _of_switch(_appctl(_target(lab, node, target)), bridge, wants_all)
    except DatapathTextError as error:
        raise click.ClickException(str(error)) from error
    if output == "text":
        click.echo(_words(rows, wants_all))
    else:
        print_rows(
            [{**each, "words": "; ".join(r["text"] for r in each["reasons"])} for each in rows], _COLUMNS, output
        )
    if any(not each["offloadable"] and not each["occasion"] for each in rows):
        raise SystemExit(1)


# What there is --------------------------------------------------------------------------------------------------------


def _of_text(text: str) -> list[dict[str, Any]]:
    from flows.offload.datapath import read_dump
    from flows.offload.lint import lint as judge
    from flows.offload.trace_text import blame, is_trace, read_trace

    if not is_trace(text):
        return [_row(each, {}) for each in judge(read_dump(text))]
    traced = read_trace(text)
    return [
        _row(each, {reason: blame(reason, traced.steps) for reason in each.reasons}) for each in judge(traced.flows)
    ]


def _of_switch(appctl: Appctl, bridge: str, wants_all: bool) -> list[dict[str, Any]]:
    from flows.offload.datapath import read_dump
    from flows.offload.lint import lint as judge
    from flows.offload.trace_text import blame, question, read_trace

    datapath, others = _ports_of_others(appctl("dpif/show"), bridge)
    flows = read_dump(appctl("dpctl/dump-flows", "-m", datapath))
    verdicts = judge([each for each in flows if each.in_port not in others])
    openflow: list[str] = []
    rows = []
    traced = 0
    for each in verdicts:
        guilty: dict[Reason, list[str]] = {}
        # What only follows another flow isn't to blame.
        told = wants_all or not each.occasion
        asked = [reason for reason in each.reasons if reason.kind != "chain"] if told else []
        if asked and traced < _TRACED:
            traced += 1
            openflow = openflow or appctl("bridge/dump-flows", bridge).splitlines()
            steps = read_trace(appctl("ofproto/trace", datapath.partition("@")[2], question(each.flow))).steps
            guilty = {reason: blame(reason, steps, openflow) for reason in asked}
        rows.append(_row(each, guilty))
    return rows


def _ports_of_others(shown: str, bridge: str) -> tuple[str, set[str]]:
    """The datapath that a bridge is on, and the ports there that are other bridges'. Raises click.ClickException."""
    datapath, current, found = "", "", None
    ports: dict[tuple[str, str], set[str]] = {}
    for line in shown.splitlines():
        if line and not line.startswith(" "):
            datapath = line.partition(":")[0]
        elif head := re.match(r"  (\S+):$", line):
            current = head[1]
            found = datapath if current == bridge else found
        elif port := re.match(r"    (\S+) \d+/(\d+|none):", line):
            ports.setdefault((datapath, current), set()).update(port.groups())
    if found is None:
        raise click.ClickException(f"there is no bridge {bridge}: name it with --bridge")
    own = ports.get((found, bridge), set())
    return found, {each for (where, _), names in ports.items() if where == found for each in names} - own


def _row(verdict: Verdict, guilty: dict[Reason, list[str]]) -> dict[str, Any]:
    flow = verdict.flow
    return {
        "offloadable": verdict.offloadable,
        "packets": flow.packets,
        "bytes": flow.bytes,
        "port": flow.in_port,
        "chain": f"{flow.recirculation:#x}",
        "occasion": verdict.occasion,
        "dangling": verdict.dangling,
        "offloaded": flow.offloaded,
        "reasons": [
            {"kind": each.kind, "what": each.what, "why": each.why, "text": str(each), "flows": guilty.get(each, [])}
            for each in verdict.reasons
        ],
        "match": flow.match,
        "actions": ",".join(each.text for each in flow.actions),
    }


# Whom to ask ----------------------------------------------------------------------------------------------------------


def _target(lab: str | None, node: str | None, target: str | None) -> str | None:
    if target is not None:
        return target
    if node is None and click.get_current_context().get_parameter_source("lab") is not ParameterSource.COMMANDLINE:
        return None
    labs = sorted(each.name for each in client.LABS.glob("*/") if each.is_dir())
    if lab is None and len(labs) == 1:
        (lab,) = labs
    if node is None or lab is None:
        raise click.UsageError("say --lab NAME and --node NODE")
    path = client.LABS / lab / "nodes" / node / "vswitchd.ctl"
    if not path.exists():
        raise click.ClickException(f"{path}: no such socket: is the lab up, and has it such a node?")
    return str(path)


def _appctl(target: str | None) -> Appctl:
    def appctl(*words: str) -> str:
        argv = ["ovs-appctl", f"--timeout={_PATIENCE:.0f}", *(["--target", target] if target else []), *words]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise click.ClickException("ovs-appctl isn't installed: give a dump as FILE") from error
        if done.returncode:
            raise click.ClickException(f"{' '.join(words[:1])}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    return appctl


# In words -------------------------------------------------------------------------------------------------------------


def _words(rows: Sequence[dict[str, Any]], wants_all: bool) -> str:
    established = [each for each in rows if not each["occasion"]]
    good = [each for each in established if each["offloadable"]]
    told = [f"{len(established)} flows of established connections: {len(good)} are offloadable{_share(established)}."]
    others = Counter(each["occasion"] for each in rows if each["occasion"])
    if others:
        refused = sum(not each["offloadable"] for each in rows if each["occasion"])
        listed = ", ".join(f"{number} for {occasion}" for occasion, number in sorted(others.items()))
        told.append(f"{sum(others.values())} others, of which {refused} are not: {listed}.")
    dangling = sum(each["dangling"] for each in established)
    if dangling:
        told.append(f"{dangling} go on from flows that aren't here: they are offloadable if those are.")
    for row in rows:
        if row["offloadable"] or (row["occasion"] and not wants_all):
            continue
        told += ["", f"{row['match']}", f"  packets:{row['packets']} actions:{row['actions']}"]
        for reason in row["reasons"]:
            told.append(f"  {click.style(reason['text'], fg='red')}")
            told += [f"    brought in by {each}" for each in reason["flows"]]
    return "\n".join(told)


def _share(rows: Sequence[dict[str, Any]]) -> str:
    total = sum(each["bytes"] for each in rows)
    mine = sum(each["bytes"] for each in rows if each["offloadable"])
    return f", with {100 * mine // total}% of the bytes" if total else ""
