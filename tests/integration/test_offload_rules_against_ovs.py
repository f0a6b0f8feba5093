"""The linter against Open vSwitch itself: what its TC code hands to the kernel, and what it refuses.

A userspace datapath with `hw-offload` set gives its flows to the same code that a kernel's does. A filter that is asked
of the kernel is one that Open vSwitch takes, whatever the kernel then says: it may have qdiscs to hang filters on, and
no flower. In such a kernel Open vSwitch finds no conntrack, and so takes nothing of connections: those rules are left
out, as are chains, which a userspace datapath doesn't share with TC.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from bridges import Holder
from probes import until

sys.path.append(str(Path(__file__).parent.parent / "unit"))

from offload_corpus import CORPUS, TAKEN, Flow

from flows.offload.datapath import read_flow
from flows.offload.lint import lint

_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
#: Of conntrack and chains; what dpctl can't make as it would be made: an output by tunnel, a meter that is there, a
#: flow whose protocol was forgotten, options of a port that is Geneve's.
_LEFT_OUT = r"ct_|\bct\b|recirc\(|tnl_push|meter\(|proto=0/0|geneve"
#: What later versions take, and from which on.
_LATER = {(3, 2): "gbp", (3, 5): "oam"}
#: RTM_NEWTFILTER.
_FILTER = "type=44("


#: As many as a flow of the corpus sends to.
_PORTS = range(2, 20)


#: What follows an IP header: a flow that can be made has it, matched or not.
_HEADERS = {
    6: "tcp(src=1/0,dst=2/0)",
    17: "udp(src=1/0,dst=2/0)",
    132: "sctp(src=1/0,dst=2/0)",
    1: "icmp(type=8/0,code=0/0)",
    58: "icmpv6(type=128/0,code=0/0)",
}


class TcSwitch:
    """An Open vSwitch whose datapath's flows go to its TC code."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._environment = {**os.environ, **{f"OVS_{name}DIR": str(directory) for name in ("RUN", "DB", "LOG")}}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._holder = Holder()
        self._number = 0
        self._log = directory / "vswitchd.log"

    def start(self) -> None:
        database = f"unix:{self._directory / 'db.sock'}"
        self._run("ovsdb-tool", "create", str(self._directory / "conf.db"), _SCHEMA)
        self._spawn("ovsdb-server", str(self._directory / "conf.db"), f"--remote=p{database}", "--unixctl=none")
        for number in _PORTS:
            # Nobody sends anything by them.
            words = ["ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", f"w{number}"]
            self._holder.run(*words)
            self._holder.run("ip", "link", "set", f"v{number}", "addrgenmode", "none", "up")
        vsctl = ["ovs-vsctl", f"--db={database}", "--retry", "--timeout=20"]
        self._run(*vsctl, "--no-wait", "init", "--", "set", "Open_vSwitch", ".", "other_config:hw-offload=true")
        debugged = [f"-v{module}:file:dbg" for module in ("netdev_offload_tc", "netlink_socket", "dpif_netdev")]
        control = f"--unixctl={self._directory / 'ctl'}"
        self._spawn("ovs-vswitchd", database, "--disable-system", control, f"--log-file={self._log}", *debugged)
        settings = ["datapath_type=netdev", "fail_mode=secure"]
        # The bridge's own port is the datapath's first.
        self._run(*vsctl, "add-br", "br0", "--", "set", "bridge", "br0", *settings)
        self._run(*vsctl, *[word for number in _PORTS for word in ("--", "add-port", "br0", f"v{number}")][1:])
        self.appctl("vlog/disable-rate-limit")
        # They delete flows that no OpenFlow flow has made.
        self.appctl("revalidator/pause")

    def takes(self, flow: Flow) -> tuple[bool, str] | None:
        """Whether it asks the kernel for a filter, and what it says otherwise; None if no such flow can be made."""
        match, actions = flow
        # Each has another source: so its flow is told apart in the log.
        self._number += 1
        if "eth(" not in match and "packet_type(ns=1" not in match:
            match = f"eth(src=0a:58:00:00:{self._number >> 8:02x}:{self._number & 255:02x}),{match}"
        for protocol, header in _HEADERS.items():
            if re.search(rf"proto={protocol}\b", match) and header.partition("(")[0] + "(" not in match:
                match = f"{match},{header}"
        self.appctl("dpctl/del-flows")
        begin = self._log.stat().st_size
        done = self._call("dpctl/add-flow", f"in_port(2),{match}", "" if actions == "drop" else actions)
        if done.returncode:
            return None

        def told() -> str:
            """What is said of this flow from the beginning to the end."""
            with self._log.open() as log:
                log.seek(begin)
                text = log.read()
            named = re.search(r"flow_add: ufid:\S+ mega_ufid:(\S+)", text)
            judged = named and re.search(rf"(?:failed|succeed) to add netdev flow {named[1]}", text)
            return text[: judged.end()] if judged else ""

        until(lambda: bool(told()), f"{flow} is judged")
        return _FILTER in told(), "; ".join(re.findall(r"netdev_offload_tc\S*\|DBG\|(.*)", told()))

    def close(self) -> None:
        for each in self._processes:
            each.kill()
            each.wait()
        self._holder.close()

    def appctl(self, *words: str) -> str:
        done = self._call(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _call(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = self._holder.argv("ovs-appctl", "-t", str(self._directory / "ctl"), *words)
        return subprocess.run(argv, env=self._environment, capture_output=True, text=True, timeout=30, check=False)

    def _run(self, *argv: str) -> None:
        words = self._holder.argv(*argv)
        done = subprocess.run(words, env=self._environment, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"

    def _spawn(self, *argv: str) -> None:
        words = self._holder.argv("setpriv", "--pdeathsig", "KILL", "--", *argv)
        with (self._directory / f"{argv[0]}.out").open("wb") as output:
            self._processes.append(subprocess.Popen(words, env=self._environment, stdout=output, stderr=output))

    @property
    def has_tc(self) -> bool:
        """Whether flows go to TC: the kernel must have its queueing disciplines."""
        return "Assigned flow API 'linux_tc'" in self._log.read_text()


def version() -> tuple[int, ...]:
    done = subprocess.run(["ovs-vswitchd", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"(\d+)\.(\d+)\.\d+", done.stdout)
    assert found is not None, done.stdout
    return tuple(map(int, found.groups()))


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcSwitch]:
    if version() >= (3, 7):
        pytest.skip("userspace datapaths and TC are strangers to each other since Open vSwitch 3.7")
    here = TcSwitch(tmp_path_factory.mktemp("tc"))
    try:
        here.start()
        if not here.has_tc:
            pytest.skip("the kernel has no ingress qdisc")
        yield here
    finally:
        here.close()


def test_the_linter_says_of_the_corpus_what_open_vswitch_does(switch: TcSwitch) -> None:
    left_out = "|".join([_LEFT_OUT, *(text for since, text in _LATER.items() if version() >= since)])
    wrong, compared, unmade = [], Counter[bool](), 0
    for match, actions in [flow for entry in CORPUS for flow in entry[1:3]] + [(match, "3") for match in TAKEN]:
        if re.search(left_out, f"{match} {actions}"):
            continue
        found = switch.takes((match, actions))
        if found is None:
            unmade += 1
            continue
        taken, said = found
        (verdict,) = lint([read_flow(f"in_port(2),{match} actions:{actions}")])
        compared[taken] += 1
        if verdict.offloadable != taken:
            wrong.append(f"{match} {actions}: {taken}, {said}; and we say {[*map(str, verdict.reasons)]}")
    print(f"{compared[True]} are taken and {compared[False]} not; {unmade} can't be made by dpctl/add-flow")
    assert not wrong, "\n".join(wrong)
    assert compared[True] > 45 and compared[False] > 30
