"""A lab over TLS: connectivity, certificates that change under way, and switches that must stay outside."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import make_pod_lab
from probes import PODS, inside, pairs_between, ping_all, until
from test_outage import crossing, pinging

from controller.cli import client
from deploy import certificates
from deploy.lab import processes, substrate
from deploy.lab.cluster import Lab
from deploy.lab.layout import controller_target, netns_path
from topology import naming

HERE = Path(__file__).parent
#: The agent and the controller look at their files every two seconds.
TAKEN = 60.0
BRIDGE = "br-rogue"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three nodes over TLS, with the pods that the lab of all tests has."""
    yield from make_pod_lab("tls", tmp_path_factory.mktemp("manifests"), tls=True)


def refused(lab: Lab) -> dict[str, dict[str, Any]]:
    """What the controller says of peers that it refuses, by kind."""
    return {row["kind"]: row for row in lab.ask("status")["refusedPeers"]}


def log_of(lab: Lab) -> str:
    return (lab.layout.directory / "controller.log").read_text()


def connects(lab: Lab) -> dict[str, int]:
    return {node: log_of(lab).count(f"switch of node {node} connected\n") for node in lab.nodes}


def test_everything_reaches_everything_over_tls(lab: Lab) -> None:
    assert not ping_all(pairs_between(lab, PODS, PODS))
    for node in lab.nodes:
        shown = substrate.vsctl(lab.layout, node, "get", "bridge", "br-int", "controller")
        row = shown.strip().strip("[]")
        target = substrate.vsctl(lab.layout, node, "get", "controller", row, "target").strip()
        assert target == f'"{controller_target(lab.settings, 1)}"'
    assert lab.ask("status")["nodesInSync"] == 3
    assert lab.ask("status")["refusedConnections"] == {}


def in_use(lab: Lab, node: str, column: str) -> bytes:
    """What a node's switch has been handed."""
    path = substrate.vsctl(lab.layout, node, "get", "ssl", ".", column).strip().strip('"')
    return Path(path).read_bytes()


def test_a_node_s_new_certificate_is_taken_without_a_reconnection_and_shown_at_the_next(lab: Lab) -> None:
    lab.wait_for_sync()
    before = connects(lab)
    with pinging(crossing(lab)) as running:
        made = certificates.make_node(lab.layout.pki, "node-2", anew=True)
        until(lambda: in_use(lab, "node-2", "certificate") == made.certificate.read_bytes(), "it is handed on", TAKEN)
        time.sleep(0.5)
        assert connects(lab) == before and lab.ask("status")["nodesInSync"] == 3
        # Now only the new one is good any more: the former would have to be refused.
        lab.stop_controller(signal.SIGKILL)
        lab.start_controller()
        lab.wait_for_sync()
    assert {each.title: each.lost for each in running} == {each.title: 0 for each in running}
    assert lab.ask("status")["flowModsSent"] == 0
    assert not refused(lab)


def test_the_controller_s_new_certificate_is_taken_and_nobody_reconnects(lab: Lab) -> None:
    before = connects(lab)
    certificates.make_controller(lab.layout.pki, anew=True)
    until(lambda: "are taken anew from their files" in log_of(lab), "it is taken", TAKEN)
    time.sleep(0.5)
    assert connects(lab) == before
    assert shown_by_controller(lab) == (lab.layout.pki / "controller.crt").read_text()
    assert lab.ask("status")["healthy"]


def shown_by_controller(lab: Lab) -> str:
    """The certificate that the controller shows to who connects now."""
    target = controller_target(lab.settings, 1).removeprefix("ssl:")
    done = inside(lab.layout.outside, ["openssl", "s_client", "-connect", target])
    return done.stdout[done.stdout.index("-----BEGIN") : done.stdout.index("-----END")] + "-----END CERTIFICATE-----\n"


class Rogue:
    """An Open vSwitch on the host outside, which tries to be a node's."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        self._pids: list[int] = []
        env = {"OVS_RUNDIR": str(directory), "OVS_DBDIR": str(directory), "OVS_LOGDIR": str(directory)}
        database, schema = directory / "conf.db", "/usr/share/openvswitch/vswitch.ovsschema"
        common = ["-vconsole:off", "--detach", "--no-chdir"]
        substrate.run(["ovsdb-tool", "create", str(database), schema])
        for argv in (
            ["ovsdb-server", str(database), f"--remote=punix:{directory / 'db.sock'}"],
            ["ovs-vswitchd", f"unix:{directory / 'db.sock'}", "--enable-dummy=override", "--disable-system"],
        ):
            name = argv[0].removeprefix("ovs-")
            paths = [f"--{what}={directory / name}.{end}" for what, end in (("unixctl", "ctl"), ("pidfile", "pid"))]
            log = f"--log-file={directory / name}.log"
            substrate.run([*argv, *paths, log, *common], netns=lab.layout.outside, env=env)
            if name == "ovsdb-server":
                self.vsctl("--no-wait", "init")

    def vsctl(self, *words: str) -> str:
        argv = ["ovs-vsctl", f"--db=unix:{self.directory / 'db.sock'}", "--timeout=15", *words]
        return substrate.run(argv, netns=self.lab.layout.outside)

    def connect(self, target: str, node: str, certificate: Path, ca: Path) -> None:
        """Say to be a node's switch, with a certificate and a CA."""
        identity = f"{naming.datapath_id(node):016x}"
        self.vsctl(
            "set-ssl", str(certificate.with_suffix(".key")), str(certificate), str(ca),
            "--", "add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=dummy", "fail_mode=secure",
            f"other_config:datapath-id={identity}",
            "--", "set-controller", BRIDGE, target, "--", "set", "controller", BRIDGE, "max_backoff=1000",
        )  # fmt: skip

    def disconnect(self) -> None:
        self.vsctl("--if-exists", "del-br", BRIDGE)


@pytest.fixture(scope="module")
def rogue(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Rogue:
    """It ends with the lab, like everything in its namespaces."""
    return Rogue(lab, tmp_path_factory.mktemp("rogue"))


@pytest.fixture(scope="module")
def other_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("other")
    certificates.make_ca(here)
    certificates.make_controller(here)
    certificates.make_node(here, "node-1")
    return here


def expired(lab: Lab, directory: Path) -> Path:
    """A certificate of node-1 that the lab's CA made, and that has ended."""
    for name in ("ca.crt", "ca.key"):
        shutil.copy(lab.layout.pki / name, directory / name)
    return certificates.make_node(directory, "node-1", days=0).certificate


@pytest.mark.parametrize(
    ("case", "kind", "reason"),
    [
        ("another CA", "untrusted certificate", "its certificate is not one of --tls-ca"),
        ("expired", "expired certificate", "its certificate has expired"),
        ("another node", "wrong node", "its certificate is node node-2's, its datapath id"),
        ("trusts another CA", "doesn't trust this controller", "another CA"),
        ("plain TCP", "plain text where TLS is spoken", "its controller must be ssl:"),
    ],
)
def test_a_switch_that_isn_t_what_it_says_stays_outside_and_is_told_of_once(
    lab: Lab, rogue: Rogue, other_ca: Path, tmp_path: Path, case: str, kind: str, reason: str
) -> None:
    lab.wait_for_sync()
    pki, target = lab.layout.pki, controller_target(lab.settings, 1)
    before, written = connects(lab), len(log_of(lab))
    certificate = {
        "another CA": lambda: other_ca / "nodes/node-1.crt",
        "expired": lambda: expired(lab, tmp_path),
        "another node": lambda: pki / "nodes/node-2.crt",
    }.get(case, lambda: pki / "nodes/node-1.crt")()
    ca = (other_ca if case == "trusts another CA" else pki) / "ca.crt"
    rogue.connect(target.replace("ssl:", "tcp:") if case == "plain TCP" else target, "node-1", certificate, ca)
    try:
        until(lambda: refused(lab).get(kind, {"count": 0})["count"] >= 3, f"{case}: it is refused again and again")
        (row,) = [row for row in refused(lab).values() if row["kind"] == kind]
        assert reason in row["reason"] and row["peer"] == "172.30.0.254"
        lines = [line for line in log_of(lab)[written:].splitlines() if "172.30.0.254 is refused" in line]
        assert len(lines) == 1 and reason in lines[0]
        assert lab.ask("status")["refusedConnections"][kind] >= 3
        shown = signalbox_status(lab)
        assert "refused: 172.30.0.254, " in shown and reason in shown
        # The node's own switch never noticed, and nothing is wrong with the cluster.
        assert connects(lab) == before and lab.ask("status")["healthy"]
        assert (
            rogue.vsctl("get", "bridge", BRIDGE, "datapath_id").strip('"\n') == f"{naming.datapath_id('node-1'):016x}"
        )
    finally:
        rogue.disconnect()


def signalbox_status(lab: Lab) -> str:
    argv = [sys.executable, "-m", "deploy.command", "status", "--socket", str(lab.layout.api)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=60).stdout


def test_without_a_certificate_nobody_gets_in(lab: Lab) -> None:
    assert "BEGIN CERTIFICATE" in shown_by_controller(lab)
    assert refused(lab)["no certificate"]["reason"] == "it shows no certificate"


def test_a_switch_over_tls_is_refused_at_a_plain_port_with_the_remedy(lab: Lab, rogue: Rogue, tmp_path: Path) -> None:
    address = controller_target(lab.settings, 1).removeprefix("ssl:").rpartition(":")[0]
    api, log = tmp_path / "plain.sock", tmp_path / "plain.log"
    plain = processes.start(
        [sys.executable, "-m", "deploy.command", "controller", "--listen", f"tcp:{address}:6654", "--insecure",
         "--manifests", str(lab.layout.manifests), "--socket", str(api)],
        log, netns=lab.layout.net, env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        until(lambda: "listening on" in log.read_text(), "it listens")
        rogue.connect(f"ssl:{address}:6654", "node-1", lab.layout.pki / "nodes/node-1.crt", lab.layout.pki / "ca.crt")
        until(lambda: bool(client.ask(api, ["status"])["refusedPeers"]), "it is refused")
        (row,) = client.ask(api, ["status"])["refusedPeers"]
        assert row["kind"] == "TLS where plain text is spoken" and "tcp:" in row["reason"]
    finally:
        rogue.disconnect()
        processes.stop([plain])


def test_a_node_can_t_pass_for_the_controller(lab: Lab, rogue: Rogue, tmp_path: Path) -> None:
    pki = lab.layout.pki
    server = (
        "import socket, ssl, sys\n"
        "context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n"
        "context.load_cert_chain(sys.argv[1] + '.crt', sys.argv[1] + '.key')\n"
        "with socket.create_server(('127.0.0.1', 6655)) as listening:\n"
        "    print('ready', flush=True)\n"
        "    connection = listening.accept()[0]\n"
        "    try:\n"
        "        context.wrap_socket(connection, server_side=True)\n"
        "        print('believed', flush=True)\n"
        "    except ssl.SSLError as error:\n"
        "        print(error.reason, flush=True)\n"
    )

    def met_as(whose: str) -> str:
        argv = ["nsenter", f"--net={netns_path(lab.layout.outside)}", sys.executable, "-c", server, str(pki / whose)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None and running.stdout.readline() == "ready\n"
            rogue.connect("ssl:127.0.0.1:6655", "node-1", pki / "nodes/node-1.crt", pki / "ca.crt")
            try:
                return running.stdout.readline().strip()
            finally:
                rogue.disconnect()
                running.kill()

    assert met_as("nodes/node-2") != "believed"
    assert met_as("controller") == "believed"


def back_after(lab: Lab) -> float:
    """Seconds until a node whose switch dies is in sync again."""
    lab.stop_switch("node-2", signal.SIGKILL)
    lab.start_switch("node-2")
    # The agent sets the gateway up anew, if vswitchd has made it anew.
    return until(lambda: lab.ask("status")["nodesInSync"] == 3, "the node is back")


def test_connections_that_say_nothing_hold_nobody_up(lab: Lab) -> None:
    address, _, port = controller_target(lab.settings, 1).removeprefix("ssl:").rpartition(":")
    crowd = (
        "import socket, sys, time\n"
        f"held = [socket.create_connection(({address!r}, {port})) for _ in range(900)]\n"
        "for each in held[::2]: each.sendall(b'\\x16\\x03\\x01\\x02\\x00')\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    argv = ["nsenter", f"--net={netns_path(lab.layout.outside)}", sys.executable, "-c", crowd]
    alone = back_after(lab)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None and running.stdout.readline() == "ready\n"
            # Less than the ten seconds more in which those that say nothing are given up.
            assert back_after(lab) < alone + 9.0
            until(lambda: refused(lab).get("too slow", {"count": 0})["count"] >= 900, "they are hung up on")
        finally:
            running.kill()


def test_half_of_a_renewal_harms_nobody(lab: Lab) -> None:
    lab.wait_for_sync()
    before = connects(lab)
    key = lab.layout.pki / "controller.key"
    good = key.read_bytes()
    key.write_bytes((lab.layout.pki / "ca.key").read_bytes())
    try:
        until(lambda: any("--tls-key" in each for each in lab.ask("status")["problems"]), "it is a problem", TAKEN)
        assert lab.ask("status")["nodesInSync"] == 3 and connects(lab) == before
    finally:
        key.write_bytes(good)
    until(lambda: bool(lab.ask("status")["healthy"]), "all is well again", TAKEN)


def test_another_ca_comes_in_three_steps_without_a_loss(lab: Lab, other_ca: Path) -> None:
    """Trust both; change certificates; trust the new one only."""
    lab.wait_for_sync()
    before, pki = connects(lab), lab.layout.pki
    former = (pki / "ca.crt").read_bytes()
    with pinging(crossing(lab)) as running:
        (pki / "ca.crt").write_bytes(former + (other_ca / "ca.crt").read_bytes())
        for name in lab.nodes:
            until(lambda name=name: in_use(lab, name, "ca_cert") == (pki / "ca.crt").read_bytes(), "trusted", TAKEN)  # type: ignore[misc]
        for name in lab.nodes:
            made = certificates.make_node(other_ca, name)
            for path in (made.key, made.certificate):
                shutil.copy(path, pki / "nodes" / path.name)
        for name in ("controller.key", "controller.crt"):
            shutil.copy(other_ca / name, pki / name)
        for name in lab.nodes:
            wanted = (pki / f"nodes/{name}.crt").read_bytes()
            until(lambda name=name, wanted=wanted: in_use(lab, name, "certificate") == wanted, "handed on", TAKEN)  # type: ignore[misc]
        (pki / "ca.crt").write_bytes((other_ca / "ca.crt").read_bytes())
        for name in lab.nodes:
            until(lambda name=name: in_use(lab, name, "ca_cert") == (pki / "ca.crt").read_bytes(), "trusted", TAKEN)  # type: ignore[misc]
        assert connects(lab) == before
        lab.stop_controller(signal.SIGKILL)
        lab.start_controller()
        lab.wait_for_sync()
    assert {each.title: each.lost for each in running} == {each.title: 0 for each in running}
    assert lab.ask("status")["flowModsSent"] == 0


def test_an_ssl_configuration_of_somebody_else_is_left_alone(lab: Lab) -> None:
    lab.stop_agent("node-1")
    theirs = ("/theirs/key", "/theirs/certificate", "/theirs/ca")
    substrate.vsctl(lab.layout, "node-1", "--no-wait", "del-ssl", "--", "set-ssl", *theirs)
    lab.start_agent("node-1")
    log = lab.layout.node("node-1") / "agent.log"
    try:
        until(lambda: "which isn't ours (private_key=/theirs/key)" in log.read_text(), "it says so")
        assert "/theirs/certificate" in substrate.vsctl(lab.layout, "node-1", "get-ssl")
    finally:
        substrate.vsctl(lab.layout, "node-1", "--no-wait", "del-ssl")
    lab.wait_for_agents()
    assert "/theirs/" not in substrate.vsctl(lab.layout, "node-1", "get-ssl")
    lab.wait_for_sync()


def test_copies_that_are_gone_after_a_reboot_come_back_with_the_agent(lab: Lab) -> None:
    lab.wait_for_sync()
    lab.stop_agent("node-3")
    lab.stop_switch("node-3", signal.SIGKILL)
    shutil.rmtree(lab.layout.node("node-3") / "node.tls")
    lab.start_switch("node-3")
    log = lab.layout.node("node-3") / "vswitchd.log"
    until(lambda: "node.tls" in log.read_text(), "Open vSwitch finds none")
    lab.start_agent("node-3")
    lab.wait_for_agents()
    lab.wait_for_sync()


def test_the_admin_api_is_asked_from_another_host(lab: Lab, tmp_path: Path) -> None:
    address = controller_target(lab.settings, 1).removeprefix("ssl:").rpartition(":")[0]
    certificates.make_ca(tmp_path)
    made = certificates.make_controller(tmp_path, [address])
    tokens, api, log = tmp_path / "tokens", tmp_path / "api.sock", tmp_path / "log"
    tokens.write_text("a-token-that-may-read,alice,read-only\n")
    running = processes.start(
        [sys.executable, "-m", "deploy.command", "controller", "--listen", f"unix:{tmp_path / 'of.sock'}",
         "--manifests", str(lab.layout.manifests), "--socket", str(api), "--api-listen", f"{address}:6680",
         "--api-tokens", str(tokens), "--tls-cert", str(made.certificate), "--tls-key", str(made.key),
         "--tls-ca", str(tmp_path / "ca.crt")],
        log, netns=lab.layout.net, env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        until(lambda: "listening on" in log.read_text(), "it listens")
        asked = ["get", "nodes", "-o", "name", "--server", f"https://{address}:6680", "--ca", str(tmp_path / "ca.crt")]
        person, node = certificates.make_user(tmp_path, "bob", "read-only"), certificates.make_node(tmp_path, "node-1")
        for shown, code, said in [
            (["SIGNALBOX_TOKEN=a-token-that-may-read"], 0, "node/node-1\n"),
            (["SIGNALBOX_TOKEN=another"], 1, "a valid token is"),
            ([f"SIGNALBOX_CERT={person.certificate}", f"SIGNALBOX_KEY={person.key}"], 0, "node/node-1\n"),
            ([f"SIGNALBOX_CERT={node.certificate}", f"SIGNALBOX_KEY={node.key}"], 1, "a valid token is"),
        ]:
            environment = ["env", *shown, f"PYTHONPATH={os.pathsep.join(sys.path)}"]
            done = inside(lab.layout.outside, [*environment, sys.executable, "-m", "deploy.command", *asked])
            assert done.returncode == code and said in done.stdout + done.stderr
    finally:
        processes.stop([running])
    assert not api.exists()
