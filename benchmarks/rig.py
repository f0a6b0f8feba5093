"""What the benchmarks stand on: a place of their own to run in, an Open vSwitch in it, and the one table they print.

`isolated` runs a benchmark in PID, mount and network namespaces of its own, with its own /run. Whatever the benchmark
starts or writes there ends with it, also when it is interrupted or killed. No benchmark judges its figures.
"""

import argparse
import asyncio
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# The project runs from its source folder too.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

RUN = Path("/run/bench")
DATABASE = f"--db=unix:{RUN / 'db.sock'}"
_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
_INSIDE = "SIGNALBOX_BENCHMARK_INSIDE"
_ENVIRONMENT = {"OVS_RUNDIR": str(RUN), "OVS_DBDIR": str(RUN), "OVS_LOGDIR": str(RUN)}


def arguments(description: str) -> bool:
    """Parse the command line; whether --quick was given."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer runs")
    return bool(parser.parse_args().quick)


def isolated(main: Callable[[], None]) -> None:
    """Run `main` in namespaces of its own, which takes root. Everything in them ends with this process."""
    if os.environ.get(_INSIDE):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        RUN.mkdir()
        main()
        return
    need("ovs-vswitchd", "ovsdb-server", "ovs-vsctl", "ovs-ofctl", "unshare", "setpriv", "ip")
    signal.signal(signal.SIGTERM, _interrupt)
    # --pdeathsig and --kill-child: even where this process is killed, nothing outlives it.
    inner = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL",
         "--mount-proc", sys.executable, *sys.argv],
        env={**os.environ, _INSIDE: "1"},
        start_new_session=True,
    )  # fmt: skip
    try:
        code = inner.wait()
    except KeyboardInterrupt:
        code = 130
    finally:
        if inner.poll() is None:
            inner.kill()
            inner.wait()
    sys.exit(code)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def need(*programs: str) -> None:
    """End with a clear line where the benchmark can't run."""
    if os.geteuid() != 0:
        sys.exit("this benchmark makes network namespaces, which takes root: run it with sudo")
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        sys.exit(f"missing programs: {', '.join(missing)}")


# Open vSwitch -------------------------------------------------------------------------------------------------------


def start_switch(*, dummy: bool = True) -> int:
    """An ovsdb-server and an ovs-vswitchd with dummy datapaths only, or that in userspace. Returns the latter's pid."""
    (RUN / "conf.db").unlink(missing_ok=True)
    run("ovsdb-tool", "create", str(RUN / "conf.db"), _SCHEMA)
    common = ["-vconsole:off", "--detach", "--no-chdir"]
    run("ovsdb-server", str(RUN / "conf.db"), f"--remote=punix:{RUN / 'db.sock'}", f"--unixctl={RUN / 'ovsdb.ctl'}",
        f"--pidfile={RUN / 'ovsdb.pid'}", f"--log-file={RUN / 'ovsdb.log'}", *common)  # fmt: skip
    run("ovs-vsctl", DATABASE, "--no-wait", "init")
    run("ovs-vswitchd", f"unix:{RUN / 'db.sock'}", f"--unixctl={RUN / 'vswitchd.ctl'}", "--disable-system",
        f"--pidfile={RUN / 'vswitchd.pid'}", f"--log-file={RUN / 'vswitchd.log'}", *common,
        *(["--enable-dummy=override"] if dummy else []))  # fmt: skip
    return switch_pid()


def switch_pid() -> int:
    """The pid of the ovs-vswitchd that runs."""
    return int((RUN / "vswitchd.pid").read_text())


def stop_switch() -> None:
    """End both, and wait until they are gone."""
    pids = [int((RUN / f"{name}.pid").read_text()) for name in ("vswitchd", "ovsdb")]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    # Their parent is init here, which is this process.
    for pid in pids:
        os.waitpid(pid, 0)


def add_bridges(ids: dict[str, int], controller: str = "") -> None:
    """Dummy bridges by name, with their datapath ids, as a node agent would set them up; all in one transaction."""
    words: list[str] = []
    for bridge, datapath_id in ids.items():
        words += ["--", "add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=dummy", "fail_mode=secure",
                  f"other_config:datapath-id={datapath_id:016x}"]  # fmt: skip
        if controller:
            # Backoff and probe as the node agent sets them.
            words += ["--", f"--id=@{bridge}", "create", "controller", f'target="{controller}"',
                      "connection_mode=out-of-band", "max_backoff=1000", "inactivity_probe=5000",
                      "--", "set", "bridge", bridge, f"controller=@{bridge}"]  # fmt: skip
    run("ovs-vsctl", DATABASE, "--timeout=300", *words)


def run(*argv: str) -> str:
    """Run a command to its end and return what it printed."""
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, **_ENVIRONMENT}, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv[:4])} ...: {(done.stderr or done.stdout).strip()[:2000]}")
    return done.stdout


def flow_count(bridge: str) -> int:
    """How many flows a bridge holds."""
    text = run("ovs-ofctl", "-O", "OpenFlow15", "dump-aggregate", bridge)
    return int(text.rpartition("flow_count=")[2].split()[0])


def cpu_seconds(pid: int) -> float:
    """CPU that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int | str = "self") -> float:
    """The largest resident set a process has had, in MB (10**6 bytes). Unlike getrusage's, not its parent's."""
    return _memory(pid, "VmHWM")


def memory(pid: int | str = "self") -> float:
    """The resident set that a process has now, in MB."""
    return _memory(pid, "VmRSS")


def _memory(pid: int | str, what: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"the kernel doesn't tell {what}")


async def until(condition: Callable[[], bool], what: str, limit: float = 300.0, pause: float = 0.001) -> None:
    """Look every `pause` seconds whether something has become true."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {limit:g} s")
        await asyncio.sleep(pause)


# What is printed ----------------------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The table, and the machine it was measured on."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [cell.ljust(width) if index == 0 else cell.rjust(width)
                 for index, (cell, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        print("  ".join(cells).rstrip())
    print(machine(), flush=True)


def progress(text: str) -> None:
    """Where the benchmark is, for whoever waits; not part of the output."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def machine() -> str:
    """Cores, CPU, kernel, Open vSwitch and Python in a line."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())  # fmt: skip
    try:
        version = subprocess.run(["ovs-vswitchd", "--version"], capture_output=True, text=True, check=False).stdout
        switch = version.splitlines()[0].rpartition(" ")[2]
    except (OSError, IndexError):
        switch = "none"
    return (
        f"machine: {os.cpu_count()} cores, {model}, Linux {platform.release()}, "
        f"Open vSwitch {switch}, Python {platform.python_version()}"
    )


def milliseconds(values: Sequence[float]) -> str:
    """The median of some seconds."""
    return f"{statistics.median(values) * 1e3:.1f} ms"


def seconds(values: Sequence[float]) -> str:
    """The median of some seconds."""
    return f"{statistics.median(values):.3f} s"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of all doesn't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def free_port() -> int:
    """A TCP port on the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
