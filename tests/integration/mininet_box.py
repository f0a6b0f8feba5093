"""A place for Mininet: namespaces of its own for network, mounts and processes, and an Open vSwitch of its own.

Mininet takes the Open vSwitch of the machine, in the machine's own network namespace. Here that is a private one; and
when the process that holds the box ends, however it ends, everything in the box ends with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
_SCRIPT = """
set -e
mount -t tmpfs tmpfs /run
# Mininet clears up in /tmp after an error: it sees nothing there but what it needs.
number=0
for each in $KEEP; do number=$((number + 1)); mkdir "/run/$number" && mount --bind "$each" "/run/$number"; done
mount -t tmpfs tmpfs /tmp
number=0
for each in $KEEP; do number=$((number + 1)); mkdir -p "$each" && mount --bind "/run/$number" "$each"; done
cd "$TMPDIR"
ip link set lo up
ovsdb-tool create "$OVS_DBDIR/conf.db" SCHEMA
options="--pidfile --detach --no-chdir -vconsole:off --log-file"
ovsdb-server "$OVS_DBDIR/conf.db" --remote="punix:$OVS_RUNDIR/db.sock" $options
ovs-vsctl --no-wait init
ovs-vswitchd "unix:$OVS_RUNDIR/db.sock" --disable-system --monitor $options
exec "$@"
""".replace("SCHEMA", _SCHEMA)


def run(argv: Sequence[str], directory: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command in a box; its files are in `directory`, an empty one. What it prints comes back, errors too."""
    ovs = directory / "ovs"
    ovs.mkdir()
    # Mininet is the system's, everything else the environment's that the tests run in.
    packages = directory / "packages"
    packages.mkdir()
    (packages / "mininet").symlink_to(mininet_package())
    environment = {
        **os.environ,
        **dict.fromkeys(("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"), str(ovs)),
        "PYTHONPATH": f"{packages}:{ROOT}",
        "SIGNALBOX": f"{sys.executable} -m deploy.command",
        "TMPDIR": str(directory),
        "KEEP": " ".join(str(each) for each in (ROOT, sys.prefix, directory) if Path("/tmp") in Path(each).parents),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    box = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return subprocess.run(
        [*box, "sh", "-c", _SCRIPT, "sh", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
        env=environment,
        cwd=directory,
    )


def mininet_package() -> Path:
    """Where Debian puts Mininet."""
    return Path("/usr/lib/python3/dist-packages/mininet")
