"""Hardware offload on a node: what Open vSwitch is told, when it must be restarted, and what is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import sysfs_trees
from hypothesis import given
from hypothesis import strategies as st
from test_node_settings import GOOD

from node.devlink import Devlink
from node.nics import Survey, survey
from node.offload import Read, count, options, reading, restart_reason, why
from node.ovsdb import Rows
from node.settings import Settings, SettingsError
from topology.offload import Report, encode, parse

_NUMBERS = st.integers(0, 10**9 - 1)
REPORTS = st.builds(
    Report,
    asked=st.booleans(),
    capable=st.booleans(),
    enabled=st.booleans(),
    nics=_NUMBERS,
    used_functions=_NUMBERS,
    functions=_NUMBERS,
    offloaded=_NUMBERS,
    partial=_NUMBERS,
    not_offloaded=_NUMBERS,
    share=st.integers(0, 100),
    why=st.text(max_size=400),
)


@given(REPORTS)
def test_a_report_comes_back_from_its_text(report: Report) -> None:
    assert parse(encode(report)) == msgspec.structs.replace(report, why=" ".join(report.why.split()))


@pytest.mark.parametrize("text", ["", "dpif-netdev", "offload v2 asked=1", "offload v1 asked=1", "\0" * 9])
def test_other_texts_are_no_report(text: str) -> None:
    assert parse(text) is None


def settings(**more: Any) -> Settings:
    return Settings(**{**GOOD, **more})


@pytest.fixture
def able(tmp_path: Path) -> Survey:
    return survey(sysfs_trees.make(tmp_path / "able", "mlx5"), Devlink())


@pytest.fixture
def legacy(tmp_path: Path) -> Survey:
    return survey(sysfs_trees.make(tmp_path / "legacy", "mlx5-legacy"), Devlink())


def test_open_vswitch_is_told_where_a_nic_was_found_or_it_was_asked_for(able: Survey, legacy: Survey) -> None:
    on = {"hw-offload": "true"}
    assert options(settings(), able, {}) == on
    assert options(settings(), legacy, {}) == options(settings(), Survey(), {}) == {}
    assert options(settings(datapath_type="netdev"), able, {}) == {}
    assert options(settings(datapath_type="netdev", dpdk=True), able, {"dpdk-init": "true"}) == on
    assert options(settings(hw_offload="on"), Survey(), {}) == on
    assert options(settings(hw_offload="on"), able, on) == {}
    assert options(settings(hw_offload="off"), able, on) == {"hw-offload": "false"}
    assert options(settings(hw_offload="off"), able, {}) == {}
    # Somebody else's.
    assert options(settings(), Survey(), {**on, "tc-policy": "skip_hw"}) == {}
    assert options(settings(tc_policy="skip_sw"), able, on) == {"tc-policy": "skip_sw"}
    assert options(settings(datapath_type="netdev", dpdk=True), Survey(), {}) == {"dpdk-init": "true"}


def test_dpdk_takes_the_datapath_in_userspace() -> None:
    with pytest.raises(SettingsError, match="--datapath-type netdev"):
        settings(dpdk=True)


def test_a_restart_is_needed_only_for_what_a_running_switch_has_read_for_good() -> None:
    on = {"hw-offload": "true"}
    read = reading("start-1", {}, Read())
    assert not restart_reason({}, read)
    assert not restart_reason(on, read), "it takes hw-offload at once"
    read = reading("start-1", on, read)
    assert not restart_reason(on, read)
    assert "hw-offload is off" in restart_reason({"hw-offload": "false"}, read)
    skip = {**on, "tc-policy": "skip_sw"}
    assert "tc-policy is skip_sw, and ovs-vswitchd goes on with none" in restart_reason(
        skip, reading("start-1", skip, read)
    )
    assert not restart_reason(skip, reading("start-2", skip, read))
    assert not restart_reason({}, reading("start-2", {}, read))


def test_what_is_in_the_way_is_said_in_words(able: Survey, legacy: Survey) -> None:
    def reason(now: Settings, found: Survey, rows: Rows, tunnels: str = "") -> str:
        return why(now, found, rows, Read("1") if rows.options.get("hw-offload") else Read(), tunnels)

    on, off = Rows(options={"hw-offload": "true"}), Rows()
    assert reason(settings(), Survey(), off) == "no NIC of this node has a switch that takes flows"
    assert "in legacy mode: 'devlink dev eswitch set pci/0000:03:00.0 mode switchdev'" in reason(settings(), legacy, on)
    assert reason(settings(), able, on) == ""
    assert "hw-offload isn't true" in reason(settings(), able, off)
    assert reason(settings(hw_offload="off"), able, off) == "it is off (--hw-offload off)"
    assert "until it is restarted" in why(settings(hw_offload="off"), able, off, Read("1"), "")
    userspace = settings(datapath_type="netdev")
    assert "DPDK isn't initialized" in reason(userspace, able, off)
    assert "DPDK isn't initialized" in reason(userspace, able, on)
    assert reason(userspace, able, Rows(options=on.options, dpdk_initialized=True)) == ""
    assert reason(settings(), able, on, "tunnels end on eth9") == "tunnels end on eth9"
    assert reason(settings(), Survey((), ("NIC x: broken",)), on) == "NIC x: broken"
    reset = msgspec.structs.replace(able.nics[0], uplink="")
    assert "is it being reset?" in reason(settings(), Survey((reset,)), on)


def test_flows_and_bytes_are_counted_by_where_they_are() -> None:
    flow = "recirc_id(0),in_port(2),eth(),eth_type(0x0800),ipv4(frag=no), packets:9, bytes:{}, used:0.1s, actions:3"
    header = "flow-dump from the main thread:"
    counts = count("\n".join([flow.format(600), flow.format(300)]), "", f"{header}\n{flow.format(100)}\n")
    assert (counts.offloaded, counts.partial, counts.rest, counts.share) == (2, 0, 1, 90)
    assert count("", "", header).share == 0
