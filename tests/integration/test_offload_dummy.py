"""The agent's part in hardware offload against a real ovs-vswitchd with its dummy provider: one that offloads nothing
anywhere, and is asked and told as a NIC's is (`--enable-dummy`, ports of type dummy-pmd)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from probes import until

from deploy.lab import processes
from deploy.lab.substrate import run
from node import unixctl
from node.agent_report import Reporter
from node.limits import Bandwidth
from node.offload import Offload
from node.ovsdb import Database, add_pod_port, remove_bridge, remove_ports
from node.settings import Settings
from topology.agent_report import parse
from topology.naming import pod_port_name, port_of_place
from topology.offload import Report
from topology.version import version

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
PACKET = (
    "in_port(1),eth(src=50:54:00:00:00:09,dst=50:54:00:00:00:0a),eth_type(0x0800),"
    "ipv4(src=10.0.0.2,dst=10.0.0.1,proto=17,tos=0,ttl=64,frag=no),udp(src=1,dst={})"
)


class Dummy:
    """An Open vSwitch of its own, in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.control = directory / "v.ctl"
        self.env = {"OVS_RUNDIR": str(directory), "OVS_DBDIR": str(directory), "OVS_LOGDIR": str(directory)}
        self.script = directory / "restart.sh"
        self.daemon = [
            "ovs-vswitchd", f"unix:{directory / 'db.sock'}", f"--unixctl={self.control}",
            f"--pidfile={directory / 'v.pid'}", f"--log-file={directory / 'v.log'}", "--enable-dummy=override",
            "--disable-system", "--detach", "--no-chdir", "-vconsole:off", "-vdpif_netdev:file:dbg",
        ]  # fmt: skip
        run(["ovsdb-tool", "create", str(directory / "conf.db"), SCHEMA])
        run(
            [
                "ovsdb-server", str(directory / "conf.db"), f"--remote=punix:{directory / 'db.sock'}",
                f"--unixctl={directory / 'o.ctl'}", f"--pidfile={directory / 'o.pid'}", "--detach", "--no-chdir",
                "-vconsole:off", f"--log-file={directory / 'o.log'}",
            ],
            env=self.env,
        )  # fmt: skip
        self.vsctl("--no-wait", "init")
        run(self.daemon, env=self.env)
        # Flows stay until they are looked at, however long that takes.
        self.vsctl("set", "open", ".", "other_config:max-idle=600000")
        self.vsctl(
            "add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=dummy",
            "--", "add-port", "br-int", "p1", "--", "set", "interface", "p1", "type=dummy-pmd", "ofport_request=1",
            "--", "add-port", "br-int", "p2", "--", "set", "interface", "p2", "type=dummy-pmd", "ofport_request=2",
        )  # fmt: skip
        kill = f"kill $(cat {directory}/v.pid)\nwhile test -e {directory}/v.pid; do sleep 0.05; done\n"
        self.script.write_text(f"set -e\necho x >>{directory}/restarts\n{kill}exec {' '.join(self.daemon)}\n")

    def vsctl(self, *words: str) -> str:
        return run(["ovs-vsctl", f"--db=unix:{self.directory / 'db.sock'}", "--timeout=15", *words], env=self.env)

    @property
    def log(self) -> str:
        return (self.directory / "v.log").read_text()

    @property
    def restarts(self) -> int:
        path = self.directory / "restarts"
        return path.read_text().count("x") if path.exists() else 0

    def send(self, count: int) -> None:
        """Flows of the datapath, one for each packet."""
        run(["ovs-ofctl", "add-flow", "br-int", "udp,udp_dst=9,actions=drop"], env=self.env)
        run(["ovs-ofctl", "add-flow", "br-int", "priority=0,in_port=1,actions=2"], env=self.env)
        for number in range(count):
            run(["ovs-appctl", f"--target={self.control}", "netdev-dummy/receive", "p1", PACKET.format(16 << number)])

    def stop(self) -> None:
        for name in ("v.pid", "o.pid"):
            process = processes.of_pidfile(self.directory / name)
            if process is not None:
                processes.stop([process])


@pytest.fixture
async def ovs(tmp_path: Path) -> AsyncIterator[Dummy]:
    here = Dummy(tmp_path)
    yield here
    here.stop()


def settings(ovs: Dummy, **more: Any) -> Settings:
    return Settings(
        name="n1",
        pod_cidrs=(ip_network("10.244.1.0/24"),),
        cluster_cidrs=(ip_network("10.244.0.0/16"),),
        node_ips=(ip_address("127.0.0.1"),),
        controllers=("unix:/nowhere",),
        datapath_type="dummy",
        ovsdb=f"unix:{ovs.directory / 'db.sock'}",
        ovs_rundir=ovs.directory,
        ovs_control=ovs.control,
        sysfs=ovs.directory / "sys",
        **{"hw_offload": "on", **more},
    )


class Agent:
    """The part of an agent that looks after offload."""

    def __init__(self, ovs: Dummy, **more: Any) -> None:
        now = settings(ovs, **more)
        self.database = Database(now.ovsdb)
        self.offload = Offload(now, self.database, Reporter(self.database))

    async def look(self) -> Report:
        if not self.database.rows.connected:
            self.database.start()
            assert await self.database.until(lambda rows: rows.bridge, 10.0)
        await self.offload.look()
        report = parse(self.database.rows.description)
        assert report is not None and report.offload is not None
        return report.offload


async def looked(ovs: Dummy, **more: Any) -> Report:
    """The report of an agent that has just started."""
    agent = Agent(ovs, **more)
    try:
        return await agent.look()
    finally:
        await agent.database.stop()


async def test_offload_is_in_force_without_a_restart_and_flows_are_counted(ovs: Dummy) -> None:
    agent = Agent(ovs)
    try:
        report = await agent.look()
        assert (report.asked, report.enabled, report.capable) == (True, True, False)
        assert report.why == "no NIC of this node has a switch that takes flows"
        until(lambda: "netdev: Flow API Enabled" in ovs.log, "Open vSwitch has taken it at once")
        ovs.send(4)
        until(lambda: "succeed to add netdev flow" in ovs.log, "the provider is given flows")
        report = await agent.look()
        # What its dummy provider has taken, 3.1 shows nowhere; later versions say that it is offloaded.
        assert report.offloaded + report.partial + report.not_offloaded > 0
        asked = [
            await unixctl.ask(ovs.control, "dpctl/dump-flows", "dummy@ovs-dummy", f"type={each}")
            for each in ("offloaded", "partially-offloaded", "non-offloaded")
        ]
        flows = [sum("recirc_id" in line for line in each.splitlines()) for each in asked]
        assert [report.offloaded, report.partial, report.not_offloaded] == flows
        desc = run(["ovs-ofctl", "-O", "OpenFlow15", "dump-desc", "br-int"], env=ovs.env)
        assert f"DP Description: agent v1 version={version()} beat=0 every=30 offload v1 asked=1 capable=0" in desc
        assert f" enabled=1 nics=0 vfs=0/0 flows={flows[0]}/" in desc
        assert ovs.restarts == 0
        # Somebody else's settings stay, ours go with the bridge.
        ovs.vsctl("set", "open", ".", "other_config:n-offload-threads=1")
        await agent.database.transact(remove_bridge)
        assert ovs.vsctl("get", "open", ".", "other_config").strip() == '{max-idle="600000", n-offload-threads="1"}'
    finally:
        await agent.database.stop()


async def test_what_needs_a_restart_is_announced_and_left_to_people(
    ovs: Dummy, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await looked(ovs)).enabled
    # Another agent, after the first one: what the switch had read it finds in the database.
    report = await looked(ovs, tc_policy="skip_sw")
    assert "tc-policy is skip_sw, and ovs-vswitchd goes on with none until it is restarted" in caplog.text
    assert "restart it, or give --restart-ovs" in caplog.text
    assert ovs.restarts == 0
    assert not report.enabled
    report = await looked(ovs, tc_policy="none")
    assert report.enabled, "as the switch has read it"
    report = await looked(ovs, hw_offload="off")
    assert report.why == "hw-offload is off, and ovs-vswitchd goes on with it until it is restarted"
    assert (report.asked, report.enabled) == (False, False)


async def test_a_restart_is_done_by_the_command_that_is_given_and_once(ovs: Dummy) -> None:
    assert (await looked(ovs)).enabled
    command = f"sh {ovs.script}"
    agent = Agent(ovs, tc_policy="skip_sw", restart_ovs=command)
    try:
        await agent.look()
        assert ovs.restarts == 1
        until(lambda: ovs.control.exists(), "it is back")
        report = await agent.look()
        assert report.enabled and ovs.restarts == 1
        await agent.look()
        assert ovs.restarts == 1
    finally:
        await agent.database.stop()


async def test_a_switch_that_is_away_is_said_and_ends_nothing(ovs: Dummy) -> None:
    agent = Agent(ovs)
    try:
        await agent.look()
        process = processes.of_pidfile(ovs.directory / "v.pid")
        assert process is not None
        processes.stop([process])
        ovs.control.unlink(missing_ok=True)
        report = await agent.look()
        assert report.not_offloaded == 0
        run(ovs.daemon, env=ovs.env)
        assert (await agent.look()).enabled
    finally:
        await agent.database.stop()


async def test_ports_of_dpdk_are_rows_as_open_vswitch_wants_them(ovs: Dummy) -> None:
    database = Database(f"unix:{ovs.directory / 'db.sock'}")
    database.start()
    try:
        assert await database.until(lambda rows: rows.bridge, 10.0)
        for place, (kind, options) in enumerate(
            [
                ("dpdkvhostuserclient", {"vhost-server-path": "/run/vhost/pod.sock"}),
                ("dpdk", {"dpdk-devargs": "0000:03:00.0,representor=[1]"}),
            ],
            start=2,
        ):
            port, number = pod_port_name("default", kind), port_of_place(place)
            ids = {"signalbox/container": kind}
            await database.transact(add_pod_port(port, ids, Bandwidth(), place, number, kind, options))
            told = [ovs.vsctl("get", "interface", port, each).strip() for each in ("type", "ofport_request")]
            assert told == [kind, str(number)]
            assert next(iter(options.values())) in ovs.vsctl("get", "interface", port, "options")
            row = database.rows.interfaces[port]
            assert (row.kind, row.ofport) == (kind, 0)
            # This build has none of them, and says so: an ADD tells it, and undoes the row.
            told_error = await database.until(lambda rows, port=port: bool(rows.interfaces[port].error), 10.0)  # type: ignore[misc]
            assert told_error, database.rows.interfaces[port]
            await database.transact(remove_ports({port}))
            assert port not in database.rows.interfaces
    finally:
        await database.stop()
