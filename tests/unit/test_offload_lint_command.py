"""`signalbox offload lint` of files: what it prints, in which forms, and by which exit code it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from test_offload_rules import OF_KERNEL, TRACE, VERBOSE, flow

from controller.cli import offload_lint
from controller.cli.offload_lint import _ports_of_others
from deploy.command import main

GOOD = flow("2", 0, actions="ct(zone=5),recirc(0x1)")
BAD = flow("2", 1, "skb_mark(0x1),eth_type(0x0800),ipv4(frag=no)")
ASKED = flow("2", 0, "eth_type(0x0806),arp(op=1)", "userspace(pid=0,slow_path(action))")


def lint(text: str, *options: str) -> Result:
    return CliRunner().invoke(main, ["offload", "lint", "-", *options], input=text)


def test_what_is_all_offloadable_is_a_line_and_success() -> None:
    done = lint(f"{GOOD}\n{flow('2', 1)}\n")
    assert (done.exit_code, done.output) == (
        0,
        "2 flows of established connections: 2 are offloadable, with 100% of the bytes.\n",
    )


def test_what_is_not_is_told_with_its_reasons_and_fails() -> None:
    done = lint(f"{GOOD}\n{BAD}\n{ASKED}\n")
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert lines[0] == "2 flows of established connections: 1 are offloadable, with 50% of the bytes."
    assert lines[1] == "1 others, of which 1 are not: 1 for ARP."
    assert lines[3].startswith("recirc_id(0x1),in_port(2),skb_mark(0x1)")
    assert lines[5] == "  match skb_mark(0x1): flower matches no packet mark, and no part of one"


def test_what_the_switch_answers_itself_is_no_failure() -> None:
    assert lint(ASKED).exit_code == 0


def test_flows_whose_predecessors_are_not_there_are_said_to_hang_on_them() -> None:
    assert "2 go on from flows that aren't here" in lint(f"{VERBOSE}\n{OF_KERNEL}").output


def test_rows_have_what_scripts_need() -> None:
    first, second = json.loads(lint(f"{GOOD}\n{BAD}\n", "-o", "json").output)["items"]
    assert (first["offloadable"], first["chain"], first["packets"], first["reasons"]) == (True, "0x0", 1, [])
    assert (second["offloadable"], second["chain"], second["port"]) == (False, "0x1", "2")
    (reason,) = second["reasons"]
    assert (reason["kind"], reason["what"], reason["flows"]) == ("match", "skb_mark(0x1)", [])
    assert "match skb_mark(0x1)" in lint(BAD, "-o", "table").output


def test_a_trace_names_the_openflow_flow(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text(TRACE.replace("ct_state=+new-rpl+trk", "ct_state=-new+est-rpl+trk"))
    done = CliRunner().invoke(main, ["offload", "lint", str(path)])
    assert done.exit_code == 1
    assert "    brought in by br-int table=20 pkt_mark=0x1/0x1, priority 200" in done.output
    # Of a connection that is new, as ofproto/trace has them if it isn't told otherwise, only those who ask are told.
    path.write_text(TRACE)
    done = CliRunner().invoke(main, ["offload", "lint", str(path)])
    assert done.exit_code == 0 and "pkt_mark" not in done.output
    done = CliRunner().invoke(main, ["offload", "lint", "--all", str(path)])
    assert done.exit_code == 0 and "brought in by br-int table=20 pkt_mark=0x1/0x1" in done.output


def test_what_is_no_dump_is_said_to_be_none() -> None:
    done = lint("hello\n")
    assert done.exit_code == 1 and "no datapath flow, because it has no actions: 'hello'" in done.output


def test_a_file_and_somebody_to_ask_are_too_much() -> None:
    assert lint(GOOD, "--node", "node-1").exit_code == 2


def test_a_lab_that_is_not_up_is_said_to_be_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload_lint.client, "LABS", tmp_path)
    done = CliRunner().invoke(main, ["offload", "lint", "--lab", "nowhere", "--node", "node-1"])
    assert done.exit_code == 1 and "is the lab up" in done.output
    assert CliRunner().invoke(main, ["offload", "lint", "--lab", "nowhere"]).exit_code == 2


SHOWN = """netdev@ovs-netdev: hit:5376 missed:104
  br-int:
    br-int 65534/4: (tap)
    pod3a4ba0ad328f 3/6: (system)
    sb-tun0 2/5: (vxlan: key=flow, local_ip=172.30.0.1, remote_ip=flow)
    patch0 9/none: (patch: peer=patch1)
  br-phy:
    br-phy 65534/2: (tap)
    eth0 1/1: (system)
system@ovs-system: hit:0 missed:0
  br-other:
    eth1 1/1: (system)
"""


def test_ports_of_other_bridges_of_the_datapath_are_left_out() -> None:
    assert _ports_of_others(SHOWN, "br-int") == ("netdev@ovs-netdev", {"br-phy", "2", "eth0", "1"})
    assert _ports_of_others(SHOWN, "br-other") == ("system@ovs-system", set())


def test_what_is_no_text_at_all_is_an_error_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "flows"
    file.write_bytes(bytes(range(1, 256)).replace(b"\n", b""))
    done = CliRunner().invoke(main, ["offload", "lint", str(file)])
    assert done.exit_code == 1 and done.output.startswith("Error: no datapath flow")
    assert len(done.output.splitlines()) == 1
