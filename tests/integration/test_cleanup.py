"""A lab that belongs to a process goes when the process goes, whenever and however that happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from guests import Guest
from probes import until
from stand_ins import StandIns

from deploy.lab import processes, substrate
from deploy.lab.cluster import Lab, labs, owner, settings_for, sweep
from deploy.lab.layout import Layout
from deploy.lab.substrate import namespaces

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "deploy/lab/examples"
OWNER = """
    import os, signal, sys, time
    from pathlib import Path
    from deploy.lab.cluster import Lab, owner, settings_for
    here = Lab(sys.argv[1])
    try:
        here.up(settings_for(sys.argv[1], 2, **owner(os.getpid())), [Path(sys.argv[2])])
        print("up", flush=True)
        time.sleep(60)
    finally:
        here.down()
"""


def own(name: str) -> subprocess.Popen[str]:
    """A process that brings a lab up and keeps it. It ends with this one: what a killed test run leaves is its own."""
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", sys.executable, "-c", textwrap.dedent(OWNER), name, str(EXAMPLES)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def left(layout: Layout) -> list[str]:
    """What there still is of a lab: namespaces, files, processes that name its directory or run in it."""
    found = sorted(filter(layout.owns, namespaces()))
    found += [str(path) for path in (layout.directory, layout.lock) if path.exists()]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and processes.started_at(int(entry.name)) is not None:
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            guards = "deploy.lab.guardian" in command and command.rstrip().endswith(f" {layout.name}")
            if f"{layout.directory}/" in command or guards:
                found.append(command)
    return found


@pytest.mark.parametrize("moment", [0.05, 0.3, 0.5, 0.8, 1.2, "up"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_nothing_is_left_of_a_lab_whose_owner_ends(moment: float | str, number: int) -> None:
    layout = Layout(f"own{os.getpid()}")
    process = own(layout.name)
    try:
        assert process.stdout is not None
        if moment == "up":
            assert process.stdout.readline() == "up\n"
            assert left(layout)
        else:
            # From the moment that there is something to be left behind.
            until(lambda: layout.directory.exists(), "the lab is begun")
            time.sleep(float(moment))
        process.send_signal(number)
        process.wait(timeout=20)
        until(lambda: not left(layout), f"{left(layout)} is gone")
    finally:
        process.kill()
        process.communicate()


def test_a_lab_whose_owner_and_guardian_are_both_killed_is_swept_by_the_next() -> None:
    layout = Layout(f"orphan{os.getpid()}")
    process = own(layout.name)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        guardian = processes.recorded(layout.guardian)
        assert guardian is not None
        os.kill(guardian.pid, signal.SIGKILL)
        process.kill()
        process.wait(timeout=10)
        until(lambda: not processes.is_alive(guardian), "the guardian is dead")
        assert layout.name in labs() and left(layout)
        sweep()
        assert not left(layout)
    finally:
        process.kill()
        process.communicate()


def test_a_lab_that_nobody_owns_stays_until_it_is_taken_down(lab: Lab) -> None:
    sweep()
    assert lab.is_up
    assert lab.ask("status")["healthy"]


def test_a_node_that_is_cleaned_has_nothing_of_the_agent_s_left(tmp_path: Path) -> None:
    here = Lab(f"clean{os.getpid()}")
    here.up(settings_for(here.layout.name, 1, **owner(os.getpid())), [EXAMPLES])
    try:
        (node,) = here.nodes
        netns = here.layout.node_netns(node)
        (web,) = (row for row in here.ask("services")["items"] if row["name"] == "web")

        def announced() -> set[str]:
            lines = (substrate.run(["ip", family, "neigh", "show", "proxy"], netns=netns) for family in ("-4", "-6"))
            return {line.split()[0] for each in lines for line in each.splitlines()}

        until(lambda: announced() == set(web["externalIPs"]), "the node announces the Service's addresses")
        nic, guest = StandIns(here, node, 1), Guest(here, "guest", node)
        guest.declare()
        guest.add(deviceID=nic.pci(0))
        assert nic.left() == []
        process = processes.recorded(here.layout.processes / f"agent-{node}.json")
        assert process is not None
        argv = Path(f"/proc/{process.pid}/cmdline").read_text().rstrip("\0").split("\0")
        here.stop_agent(node)
        for name in ("10-signalbox.conflist", "signalbox-cni", "somebody-else-s"):
            (tmp_path / name).touch()
        places = ["--cni-conf-dir", str(tmp_path), "--cni-bin-dir", str(tmp_path)]
        substrate.run([*argv, *places, "--clean"], netns=netns, env={"PYTHONPATH": str(ROOT)})
        assert [path.name for path in tmp_path.iterdir()] == ["somebody-else-s"]
        assert announced() == set()
        assert nic.left() == nic.all(), "given back, not deleted"
        assert substrate.vsctl(here.layout, node, "list-br").split() == ["br-phy"]
        assert "signalbox" not in substrate.run(["nft", "list", "tables"], netns=netns)
        assert "sb-gw0" not in substrate.run(["ip", "route"], netns=netns)
        assert "pod" not in substrate.run(["ip", "-br", "link"], netns=netns)
    finally:
        here.down()
