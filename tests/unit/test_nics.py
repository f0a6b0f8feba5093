"""NICs with a switch, virtual functions and representors, by recorded trees of sysfs and answers of devlink."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sysfs_trees
from pyroute2.netlink.devlink import devlinkcmd

from node import devlink
from node.devlink import Devlink, VfPort
from node.nics import NicError, find, survey, unplaced_reason

NOTHING = Devlink()
RECORDED = sysfs_trees.RECORDINGS / "mlx5.devlink.json"


def tree(tmp_path: Path, recording: str) -> Path:
    return sysfs_trees.make(tmp_path / "sys", recording)


@pytest.mark.parametrize(
    ("recording", "pci", "driver", "uplink", "representors"),
    [
        ("mlx5", "0000:03:00.0", "mlx5_core", "enp3s0f0np0", [f"enp3s0f0npf0vf{n}" for n in range(3)]),
        ("mlx5", "0000:03:00.1", "mlx5_core", "enp3s0f1np1", ["enp3s0f1npf1vf0"]),
        ("mlx5-old", "0000:05:00.0", "mlx5_core", "ens2f0", ["eth0", "eth1"]),
        ("ice", "0000:18:00.0", "ice", "ens785f0np0", ["eth2", "eth3"]),
        ("ice-new", "0000:18:00.0", "ice", "ens785f0np0", ["ens785f0npf0vf0", "ens785f0npf0vf1"]),
        ("bnxt", "0000:3b:00.1", "bnxt_en", "ens1f1np1", ["eth0", "eth1"]),
    ],
)
def test_a_nic_in_switchdev_mode_is_known_with_its_uplink_and_representors(
    tmp_path: Path, recording: str, pci: str, driver: str, uplink: str, representors: list[str]
) -> None:
    found = survey(tree(tmp_path, recording), NOTHING)
    assert not found.problems
    nic = next(each for each in found.nics if each.pci == pci)
    assert (nic.driver, nic.uplink, nic.mode, nic.offloads) == (driver, uplink, "switchdev", True)
    assert dict(nic.representors) == dict(enumerate(representors))
    assert nic.vfs == len(representors)


@pytest.mark.parametrize(("recording", "pci"), [("mlx5-legacy", "0000:03:00.0"), ("bnxt", "0000:3b:00.0")])
def test_a_nic_in_legacy_mode_could_take_flows_and_does_not(tmp_path: Path, recording: str, pci: str) -> None:
    nic = next(each for each in survey(tree(tmp_path, recording), NOTHING).nics if each.pci == pci)
    assert (nic.mode, nic.offloads, dict(nic.representors)) == ("legacy", False, {})


def test_a_machine_without_such_a_nic_has_none_and_no_problem(tmp_path: Path) -> None:
    assert survey(tree(tmp_path, "none"), NOTHING) == survey(tmp_path / "nowhere", NOTHING)
    assert survey(tmp_path / "nowhere", NOTHING).nics == ()


def test_what_devlink_says_counts_more_than_names(tmp_path: Path) -> None:
    said = Devlink({"0000:18:00.0": "switchdev"}, (VfPort("0000:18:00.0", 1, "renamed"),))
    (nic,) = survey(tree(tmp_path, "ice"), said).nics
    assert dict(nic.representors) == {0: "eth2", 1: "renamed"}
    legacy = survey(tmp_path / "sys", Devlink({"0000:18:00.0": "legacy"})).nics[0]
    assert legacy.mode == "legacy"
    # A driver that isn't known by name is, where devlink says that it has a switch.
    assert [each.mode for each in survey(tree(tmp_path / "2", "none"), Devlink({"0000:00:03.0": "legacy"})).nics] == [
        "legacy"
    ]


def test_devlinks_answers_are_read_as_the_kernel_encodes_them() -> None:
    ports = json.loads(RECORDED.read_text())["port"]
    messages = []
    for place, port in ports.items():
        bus, pci, _ = place.split("/")
        attributes = [
            ("DEVLINK_ATTR_BUS_NAME", bus),
            ("DEVLINK_ATTR_DEV_NAME", pci),
            ("DEVLINK_ATTR_PORT_FLAVOUR", {"physical": 0, "pcivf": 4}[port["flavour"]]),
        ]
        if "netdev" in port:
            attributes.append(("DEVLINK_ATTR_PORT_NETDEV_NAME", port["netdev"]))
        if "vfnum" in port:
            attributes.append(("DEVLINK_ATTR_PORT_PCI_PF_NUMBER", port["pfnum"]))
            attributes.append(("DEVLINK_ATTR_PORT_PCI_VF_NUMBER", port["vfnum"]))
        sent = devlinkcmd()
        sent["attrs"] = attributes
        sent.encode()
        received = devlinkcmd(sent.data)
        received.decode()
        messages.append(received)
    assert devlink.ports_of(messages) == (
        VfPort("0000:03:00.0", 0, "enp3s0f0npf0vf0"),
        VfPort("0000:03:00.0", 1, "enp3s0f0npf0vf1"),
        VfPort("0000:03:00.1", 0, "enp3s0f1npf1vf0"),
    )


# Virtual functions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recording", "pci", "number", "netdev", "representor"),
    [
        ("mlx5", "0000:03:00.2", 0, "enp3s0f0v0", "enp3s0f0npf0vf0"),
        ("mlx5", "0000:03:01.2", 0, "enp3s0f1v0", "enp3s0f1npf1vf0"),
        ("mlx5-old", "0000:05:00.3", 1, "ens2f0v1", "eth1"),
        ("ice", "0000:18:01.1", 1, "ens785f0v1", "eth3"),
        ("bnxt", "0000:3b:02.1", 1, "ens1f1v1", "eth1"),
    ],
)
def test_a_device_id_leads_to_an_interface_and_its_representor(
    tmp_path: Path, recording: str, pci: str, number: int, netdev: str, representor: str
) -> None:
    found = find(tree(tmp_path, recording), pci, NOTHING)
    assert (found.number, found.netdev, found.representor) == (number, netdev, representor)
    assert not found.is_userspace


def test_a_function_that_a_program_drives_has_no_interface_but_a_representor(tmp_path: Path) -> None:
    found = find(tree(tmp_path, "mlx5"), "0000:03:00.3", NOTHING)
    assert (found.is_userspace, found.netdev, found.representor) == (True, "", "enp3s0f0npf0vf1")


@pytest.mark.parametrize(
    ("recording", "device_id", "why"),
    [
        ("mlx5", "eth0", "not a PCI address"),
        ("mlx5", "../../etc/passwd", "not a PCI address"),
        ("mlx5", "0000:03:00.7", "no such PCI device"),
        ("mlx5", "0000:03:00.0", "not a virtual function"),
        ("mlx5", "0000:03:00.4", "isn't on the host: it is in a pod already"),
        ("mlx5-legacy", "0000:03:00.2", "is in legacy mode.*devlink dev eswitch set pci/0000:03:00.0 mode switchdev"),
    ],
)
def test_what_is_no_function_to_give_away_is_refused_with_the_reason(
    tmp_path: Path, recording: str, device_id: str, why: str
) -> None:
    with pytest.raises(NicError, match=why):
        find(tree(tmp_path, recording), device_id, NOTHING)


def test_broken_trees_are_problems_and_hide_no_other_nic(tmp_path: Path) -> None:
    sysfs = tree(tmp_path, "mlx5")
    numvfs = sysfs / "bus/pci/devices/0000:03:00.0/sriov_numvfs"
    numvfs.write_text("many\n")
    found = survey(sysfs, NOTHING)
    assert [each.pci for each in found.nics] == ["0000:03:00.1"]
    assert found.problems == (
        f"NIC 0000:03:00.0: {numvfs} can't be read: invalid literal for int() with base 10: 'many\\n'",
    )
    with pytest.raises(NicError, match="sriov_numvfs can't be read"):
        find(sysfs, "0000:03:00.2", NOTHING)
    numvfs.write_text("3\n")
    (sysfs / "bus/pci/devices/0000:03:00.0/virtfn0").unlink()
    with pytest.raises(NicError, match=r"none of its virtual functions is 0000:03:00\.2"):
        find(sysfs, "0000:03:00.2", NOTHING)


def test_a_nic_that_is_reset_has_no_interfaces_for_a_while(tmp_path: Path) -> None:
    sysfs = tree(tmp_path, "mlx5")
    for name in ("enp3s0f0np0", "enp3s0f0npf0vf0", "enp3s0f0npf0vf1", "enp3s0f0npf0vf2"):
        (sysfs / "class/net" / name).unlink()
    shutil.rmtree((sysfs / "bus/pci/devices/0000:03:00.0/net").resolve())
    nic = survey(sysfs, Devlink({"0000:03:00.0": "switchdev"})).nics[0]
    assert (nic.uplink, nic.offloads) == ("", False)
    with pytest.raises(NicError, match="has no representor of its virtual function 0"):
        find(sysfs, "0000:03:00.2", Devlink({"0000:03:00.0": "switchdev"}))


def test_tunnels_are_to_end_on_an_uplink_or_on_what_is_made_of_uplinks(tmp_path: Path) -> None:
    sysfs = tree(tmp_path, "mlx5")
    nics = survey(sysfs, NOTHING).nics
    for name, lower in (("bond0", "enp3s0f1np1"), ("bond0.7", "bond0")):
        (sysfs / "class/net" / name).mkdir()
        (sysfs / "class/net" / name / f"lower_{lower}").symlink_to(f"../{lower}")
    for good in ("enp3s0f1np1", "bond0", "bond0.7"):
        assert not unplaced_reason(sysfs, nics, good)
    assert "tunnels end on eth9, which is no uplink" in unplaced_reason(sysfs, nics, "eth9")
    assert not unplaced_reason(sysfs, (), "eth9")


def test_where_dpdk_drives_the_nic_the_kernel_needs_no_representors(tmp_path: Path) -> None:
    found = find(tree(tmp_path, "mlx5-legacy"), "0000:03:00.3", NOTHING, by_dpdk=True)
    assert (found.nic.pci, found.number, found.representor) == ("0000:03:00.0", 1, "")
